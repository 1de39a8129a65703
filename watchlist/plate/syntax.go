package plate

import (
	"bytes"
	"math/bits"
	"slices"
	"strings"
)

// Grade says how well a plate agrees with the numbering scheme of a country. Grades are
// ordered: a greater one agrees better. The zero value is Invalid.
type Grade uint8

const (
	Invalid  Grade = iota // the country cannot have issued it
	Possible              // letters and digits in the right places, or nothing known against it
	Valid                 // as the scheme has it, as far as the scheme is described here
)

// String returns "invalid", "possible" or "valid"; "invalid" also for any other value.
func (g Grade) String() string {
	switch g {
	case Possible:
		return "possible"
	case Valid:
		return "valid"
	}
	return "invalid"
}

// MarshalText implements encoding.TextMarshaler with String.
func (g Grade) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// Syntax grades k against the scheme of c. It is evidence about a reading, never a reason
// to drop one: a plate graded Invalid may be a forgery, or a series this package has not
// heard of.
//
//   - A country described in the table of schemes: Valid when k follows one of its forms
//     in every respect; Possible when it has letters and digits in the places of a form,
//     but a letter or a number that the form does not use, or when the form is known in
//     outline only (state vehicles, personal plates); otherwise Invalid.
//   - A country not described: Possible, for nothing is known against it.
//   - The unknown country, zero: Possible when k is Valid in some described country,
//     otherwise Invalid. It is never Valid, since nothing says that the country fits.
//   - A container code (see IsContainer) is no country's: in any country it is Valid, with
//     a country unknown Possible as plates are. The form of one with a wrong check digit is
//     Invalid everywhere, also in a country not described: something is known against it.
//
// A k that is not Valid as a key is Invalid everywhere. The French overseas departments
// are graded as France. District codes are checked where there are few (France,
// Switzerland, Spain before 2000, Romania), not in Germany, Austria or Poland. Syntax does
// not allocate.
func (k Key) Syntax(c Country) Grade {
	if right, ok := k.ContainerCheckDigit(); ok {
		switch {
		case k%base != Key(code0+right):
			return Invalid
		case c == 0:
			return Possible
		}
		return Valid
	}
	t := k.spell()
	if t.len() == 0 {
		return Invalid
	}
	same := formsOf(t.shape())
	if c == 0 {
		for i := range same {
			if same[i].grade(&t) == Valid {
				return Possible
			}
		}
		return Invalid
	}
	c = c.register()
	personal, described := personalLen[c]
	if !described {
		return Possible
	}
	best := Invalid
	if t.len() <= personal {
		best = Possible
	}
	for i := range same {
		if f := &same[i]; f.country == c {
			best = max(best, f.grade(&t))
		}
	}
	return best
}

// shape says where a plate has letters: a leading 1 bit, then one bit for each place from
// the first to the last, 1 for a letter and 0 for a digit. LLDDDLL is 1_1100011.
type shape uint16

// shapes is the number of shapes of at most MaxLen places.
const shapes = 1 << (MaxLen + 1)

// shape returns the shape of t.
func (t *text) shape() shape {
	s := shape(1)
	for _, c := range t.bytes() {
		s <<= 1
		if c >= 'A' {
			s |= 1
		}
	}
	return s
}

// places returns the number of places of s.
func (s shape) places() int { return bits.Len16(uint16(s)) - 1 }

// charset is a set of characters: bit n for the character with code n.
type charset uint64

// charsetOf returns the set of the characters of s.
func charsetOf(s string) (set charset) {
	for i := range len(s) {
		set |= 1 << (ascii[s[i]] & codeMask)
	}
	return set
}

// has reports whether c, in ASCII, is in the set.
func (s charset) has(c byte) bool { return s>>(ascii[c]&codeMask)&1 != 0 }

// form is one way of writing plates of one country: a fixed number of places.
type form struct {
	shape   shape
	country Country
	allowed [MaxLen]charset   // by place, from the first
	literal uint16            // bit i: place i is part of the form itself, not of the number
	rule    func(b text) bool // what the places alone cannot say; nil for nothing
	loose   bool              // known in outline: never better than Possible
}

// grade grades t, which has the shape of f.
func (f *form) grade(t *text) Grade {
	g := Valid
	if f.loose {
		g = Possible
	}
	for i, c := range t.bytes() {
		if !f.allowed[i].has(c) {
			if f.literal>>i&1 != 0 {
				return Invalid
			}
			g = Possible
		}
	}
	if g == Valid && f.rule != nil && !f.rule(*t) {
		return Possible
	}
	return g
}

// forms holds the forms of all countries in the order of their shapes, formIndex the
// position of the first form of each shape, and one more.
var (
	forms       = compileSchemes()
	formIndex   = indexForms(forms)
	personalLen = personalLengths() // of every described country
)

// formsOf returns the forms of shape s.
func formsOf(s shape) []form { return forms[formIndex[s]:formIndex[s+1]] }

func indexForms(forms []form) (index [shapes + 1]uint16) {
	n := 0
	for s := range index {
		for n < len(forms) && int(forms[n].shape) < s {
			n++
		}
		index[s] = uint16(n)
	}
	return index
}

func personalLengths() map[Country]int {
	m := make(map[Country]int, len(schemes))
	for _, s := range schemes {
		m[country(s.country)] = s.personal
	}
	return m
}

// compileSchemes turns the table of schemes into forms.
func compileSchemes() []form {
	var all []form
	for _, s := range schemes {
		for _, series := range s.series {
			for _, pattern := range strings.Fields(series.patterns) {
				// x[y][y] stands for xy twice: once is enough.
				fixed := expand(pattern)
				slices.Sort(fixed)
				for _, places := range slices.Compact(fixed) {
					all = append(all, series.form(country(s.country), places))
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b form) int { return int(a.shape) - int(b.shape) })
	return all
}

// expand resolves the optional places of a pattern, [x], and its places for letter or
// digit, a, and returns the patterns of fixed places that it stands for.
func expand(pattern string) []string {
	i := strings.IndexAny(pattern, "[a")
	switch {
	case i < 0:
		return []string{pattern}
	case pattern[i] == 'a':
		return slices.Concat(expand(pattern[:i]+"l"+pattern[i+1:]), expand(pattern[:i]+"d"+pattern[i+1:]))
	}
	end := i + strings.IndexByte(pattern[i:], ']')
	return slices.Concat(expand(pattern[:i]+pattern[end+1:]), expand(pattern[:i]+pattern[i+1:end]+pattern[end+1:]))
}

// form builds the form of a pattern of fixed places.
func (s *series) form(c Country, places string) form {
	f := form{shape: 1, country: c, rule: s.rule, loose: s.loose}
	for i := range len(places) {
		var set charset
		letter := false
		switch p := places[i]; p {
		case 'l':
			set, letter = charsetOf(orElse(s.l, letters)), true
		case 'm':
			set, letter = charsetOf(orElse(s.m, letters)), true
		case 'd':
			set = charsetOf("0123456789")
		case 'n':
			set = charsetOf("123456789")
		default:
			set, letter = charsetOf(string(p)), p >= 'A'
			f.literal |= 1 << i
		}
		f.allowed[i] = set
		f.shape <<= 1
		if letter {
			f.shape |= 1
		}
	}
	return f
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// equals reports whether the places from i to j of t are s.
func (t *text) equals(i, j int, s string) bool { return string(t.bytes()[i:j]) == s }

// number returns the value of the digits of t from place i to j.
func (t *text) number(i, j int) int {
	v := 0
	for _, c := range t.bytes()[i:j] {
		v = v*10 + int(c-'0')
	}
	return v
}

// leading returns the letters that t begins with.
func (t *text) leading() []byte {
	b := t.bytes()
	if i := bytes.IndexAny(b, digits); i >= 0 {
		return b[:i]
	}
	return b
}
