package matcher

import "vigie/watchlist/plate"

// maxNeighbours is the most keys that neighbours returns.
const maxNeighbours = plate.MaxLen + 1

// packBase is the radix of plate.Key.
const packBase = 37

// foldCodes is plate.Key.Fold by the codes of single characters.
var foldCodes = func() (t [packBase]uint8) {
	for x := 1; x < packBase; x++ {
		var code [plate.MaxLen]uint8
		plate.Key(x*packBase + x).Fold().Codes(&code)
		t[x] = code[0]
	}
	return t
}()

// neighbours writes to dst the folded text of a plate and its deletion
// neighbourhood, the texts that one character less leaves of it, and returns
// their number, at least 2. Two texts within one edit of each other share one of
// these (Mor and Fraenkel, "A hash code method for detecting and correcting
// spelling errors", 1982), so an entry is stored under all of its own and found
// by all of the read's: length+1 probes, nearly all of which the filter answers.
//
// The first key is the folded text, the second lacks its first character, the
// last its last. Of a run of equal characters one is left out once.
func neighbours(dst *[maxNeighbours]uint64, k plate.Key) int {
	var code [plate.MaxLen]uint8
	n := k.Codes(&code)
	var weight, right [plate.MaxLen + 1]uint64 // of character i; of what is right of it
	w, r := uint64(1), uint64(0)
	for i := n - 1; i >= 0; i-- {
		code[i] = foldCodes[code[i]]
		weight[i], right[i] = w, r
		r += uint64(code[i]) * w
		w *= packBase
	}
	dst[0] = r
	count := 1
	left := uint64(0)
	for i := range n {
		if i == 0 || code[i] != code[i-1] {
			dst[count] = left*weight[i] + right[i]
			count++
		}
		left = left*packBase + uint64(code[i])
	}
	return count
}
