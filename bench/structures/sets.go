package main

// flatSet is the plainest set of keys other than 0: open addressing, linear
// probing, at most half full.
type flatSet []uint64

func newFlatSet(n int) flatSet {
	size := 2
	for size < 2*n {
		size *= 2
	}
	return make(flatSet, size)
}

func (s flatSet) add(k uint64) {
	if i := s.find(k); s[i] == 0 {
		s[i] = k
	}
}

func (s flatSet) has(k uint64) bool { return s[s.find(k)] == k }

// find returns the slot of k, or the free one where it would go.
func (s flatSet) find(k uint64) uint64 {
	mask := uint64(len(s) - 1)
	i := mix(k) & mask
	for s[i] != k && s[i] != 0 {
		i = (i + 1) & mask
	}
	return i
}
