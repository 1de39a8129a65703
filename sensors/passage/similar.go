package passage

import "vigie/watchlist/plate"

// oneEdit reports whether b is a with at most one character replaced, lost or added.
func oneEdit(a, b plate.Key) bool {
	var x, y [plate.MaxLen]uint8
	n, m := a.Codes(&x), b.Codes(&y)
	if n > m {
		x, y, n, m = y, x, m, n
	}
	if m-n > 1 {
		return false
	}
	i := 0 // characters that are the same at the beginning
	for i < n && x[i] == y[i] {
		i++
	}
	k := 0 // and at the end of the rest
	for k < n-i && x[n-1-k] == y[m-1-k] {
		k++
	}
	return m-i-k <= 1
}

// differ reports whether a and b are wholly different: less than half of the characters are the
// same.
func differ(a, b plate.Key) bool { return common(a, b)*2 < max(a.Len(), b.Len()) }

// common returns how many characters a and b have in common in the same order: the length of
// their longest common subsequence.
func common(a, b plate.Key) int {
	var x, y [plate.MaxLen]uint8
	n, m := a.Fold().Codes(&x), b.Fold().Codes(&y)
	var row [plate.MaxLen + 1]int // of the characters of x so far, by those of y
	for i := range n {
		diagonal := 0
		for j := range m {
			up := row[j+1]
			if x[i] == y[j] {
				row[j+1] = diagonal + 1
			} else {
				row[j+1] = max(up, row[j])
			}
			diagonal = up
		}
	}
	return row[m]
}
