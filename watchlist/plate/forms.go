package plate

// Set is a set of characters: bit n stands for the character with code n in the packing of
// Key, 1 to 10 for the digits and 11 to 36 for the letters.
type Set = charset

// Letters and Digits are the sets of all letters and of all digits.
const (
	Digits  Set = 0b11_1111_1111 << 1
	Letters Set = (1<<26 - 1) << codeA
)

// NumForms returns how many forms FormOf tells apart.
func NumForms() int { return len(forms) }

// FormPlaces returns the characters that may stand at each place of a form, from the
// first. The slice is shared and must not be changed.
func FormPlaces(form int) []Set {
	f := &forms[form]
	return f.allowed[:f.shape.places()]
}

// FormsOf returns the forms, by number, in which c issues plates of n characters, without
// those known in outline only.
func FormsOf(c Country, n int) []int {
	if n < 0 || n > MaxLen {
		return nil
	}
	return formsByLength[c.register()][n]
}

var formsByLength = func() map[Country][MaxLen + 1][]int {
	m := make(map[Country][MaxLen + 1][]int)
	for i := range forms {
		if f := &forms[i]; !f.loose {
			by := m[f.country]
			by[f.shape.places()] = append(by[f.shape.places()], i)
			m[f.country] = by
		}
	}
	return m
}()

// FormOf returns the form of c that k follows, the first of those it follows best, or -1
// when it follows none, c is not described, or c is unknown. It does not allocate.
func (k Key) FormOf(c Country) int {
	t := k.spell()
	if t.len() == 0 || c == 0 {
		return -1
	}
	c = c.register()
	s := t.shape()
	best, found := Invalid, -1
	for i := int(formIndex[s]); i < int(formIndex[s+1]); i++ {
		if f := &forms[i]; f.country == c {
			if g := f.grade(&t); g > best {
				best, found = g, i
			}
		}
	}
	return found
}

// Codes writes the codes of the characters of k, 1 to 36, to dst and returns their number,
// 0 when k is not Valid. It takes k apart two characters at a time, for the same reason as
// Fold.
func (k Key) Codes(dst *[MaxLen]uint8) int {
	var buf [MaxLen + 2]uint8 // the characters, at the end
	at := len(buf)
	for k != 0 && at > 0 {
		rest := k / pairBase
		pair := uint32(k - rest*pairBase)
		hi := pair / base
		at -= 2
		buf[at], buf[at+1] = uint8(hi), uint8(pair-hi*base)
		k = rest
	}
	if at < len(buf) && buf[at] == 0 {
		at++
	}
	n := len(buf) - at
	if k != 0 || n < MinLen || n > MaxLen {
		return 0
	}
	for i, c := range buf[at:] {
		if c == 0 {
			return 0
		}
		dst[i] = c
	}
	return n
}
