package matcher

import (
	"vigie/watchlist"
	"vigie/watchlist/plate"
)

// nearIndex is an index with one more filter in front, over all its keys in one
// piece. A read makes eight probes here where it makes one of the exact index,
// and they lie in the second cache: what counts is instructions, not lines. So a
// key has four bits in one 64-bit word, a probe is one load and one comparison,
// and of 16 bits a key 0.9 % are positive by mistake. With the filters of the
// shards alone a read took 190 ns here, so 60 (beside 1 M exact entries).
//
// The front is built anew with every change of a near list, which short lists can
// afford: 1 ms for the 160,000 keys of a full one.
type nearIndex struct {
	*index
	front []uint64
}

// withFront returns x, which holds a number of keys, with its filter.
func withFront(x *index, keys int) nearIndex {
	n := nearIndex{index: x}
	if keys == 0 {
		return n
	}
	n.front = make([]uint64, (keys+3)/4)
	for _, s := range x {
		if s != nil {
			for _, h := range s.hashes {
				n.front[frontWord(h, len(n.front))] |= frontBits(h)
			}
		}
	}
	return n
}

// frontWord returns the word of a hash, by its high bits.
func frontWord(h uint64, words int) int { return int(h >> 32 * uint64(words) >> 32) }

// frontBits returns the four bits of a hash, by its low bits.
func frontBits(h uint64) uint64 {
	return 1<<(h&63) | 1<<(h>>6&63) | 1<<(h>>12&63) | 1<<(h>>18&63)
}

// find returns the entries of key.
func (x *nearIndex) find(key uint64) []*watchlist.Packed {
	h := mix(key)
	if bits := frontBits(h); x.front[frontWord(h, len(x.front))]&bits != bits {
		return nil
	}
	if s := x.index[shardOf(h)]; s != nil {
		return s.lookUp(h)
	}
	return nil
}

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
	right := uint64(0) // what is right of character i, as a number
	for i := range n {
		code[i] = foldCodes[code[i]]
		right = right*packBase + uint64(code[i])
	}
	dst[0] = right
	count := 1
	left, last := uint64(0), uint8(0)
	for i, c := range code[:n] {
		weight := packPowers[n-1-i]
		right -= uint64(c) * weight
		if c != last {
			dst[count] = left*weight + right
			count++
		}
		left, last = left*packBase+uint64(c), c
	}
	return count
}

// packPowers are the powers of packBase.
var packPowers = func() (p [plate.MaxLen]uint64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = p[i-1] * packBase
	}
	return p
}()
