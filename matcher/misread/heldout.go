package misread

import "hash/fnv"

// HeldOut reports whether the vehicle with a true plate, in A-Z and 0-9, is kept
// out of learning, so that accuracy can be reported on vehicles that the table
// has never seen: every second one, by a hash of its plate.
func HeldOut(truth string) bool {
	h := fnv.New32a()
	h.Write([]byte(truth))
	v := h.Sum32() * 0x9e3779b1 // the last character alone would move the low bits little
	return v>>31 != 0
}
