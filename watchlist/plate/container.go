package plate

// containerLen is the length of a container code (ISO 6346): three letters for the owner, as
// the Bureau International des Containers registers them, one for the category, six digits
// that the owner gives, and a check digit.
const (
	containerLen     = 11
	containerLetters = 4
)

// Keys of containerLen characters lie between the packings of eleven times the first
// and eleven times the last character.
const (
	containerFrom = base * base * base * base * base * base * base * base * base * base // base^10
	containerTo   = containerFrom * base
)

// IsContainer reports whether k is the code of a freight container (ISO 6346), such as
// CSQU 305438-3: three letters of the owner, a category U (container), J (equipment that
// can be taken off one) or Z (trailer, chassis), six digits, and a check digit that is
// right. Whether the owner exists is not looked at: the register is not public. It does
// not allocate, and two comparisons are all it costs for a key of another length.
func (k Key) IsContainer() bool {
	right, ok := k.ContainerCheckDigit()
	return ok && k%base == Key(code0+right)
}

// ContainerCheckDigit returns the check digit, 0 to 9, that ISO 6346 prescribes for the
// container code k, whatever digit k ends with; ok is false, and the digit 0, when k does not
// have the form of a container code. A k of that form that is no [Key.IsContainer] has
// been misread or mistyped: the digit finds every single wrong character but for those whose
// values are equal mod 11 (such as B and M) or lead to the sums 0 and 10, which share a
// digit. It does not allocate.
func (k Key) ContainerCheckDigit() (digit int, ok bool) {
	if k < containerFrom || k >= containerTo {
		return 0, false
	}
	t := k.spell()
	b := t.bytes()
	if len(b) != containerLen || b[3] != 'U' && b[3] != 'J' && b[3] != 'Z' || b[containerLen-1] > '9' {
		return 0, false
	}
	// ISO 6346, determination of the check digit: digits count as they are, letters from A = 10 upwards without the
	// multiples of eleven (B = 12, L = 23, V = 34); place i from the left weighs 2^i.
	sum := 0
	for i, c := range b[:containerLen-1] {
		letter := c >= 'A'
		if letter != (i < containerLetters) {
			return 0, false
		}
		v := int(c - '0')
		if letter {
			v = int(c-'A') + 10
			v += (v - 1) / 10 // the multiples of eleven skipped so far
		}
		sum += v << i
	}
	return sum % 11 % 10, true
}
