package matcher

import "github.com/bits-and-blooms/bloom/v3"

// The filter is a bloom/v3 filter driven by our own integer hash: every position
// of a key lies inside one 512-bit line, so a probe touches one cache line and
// hashes eight bytes once. bloom/v3 remains the container and the serialised
// form; its own Test hashes a byte string and touches up to filterProbes lines,
// which costs more than the map look-up it is meant to save (DESIGN.md).
const (
	lineWords        = 8  // 64-bit words in a 512-bit line
	filterProbes     = 6  // positions per key
	filterBitsPerKey = 12 // at the size the shard was built for
)

// newFilter returns an empty filter sized for n keys.
func newFilter(n int) *bloom.BloomFilter {
	lines := max(1, (n*filterBitsPerKey+lineWords*64-1)/(lineWords*64))
	return bloom.From(make([]uint64, lines*lineWords), filterProbes)
}

// mix spreads a key over 64 bits: the finaliser of MurmurHash3 (Austin Appleby,
// public domain), a bijection, so that equal hashes mean equal keys.
func mix(k uint64) uint64 {
	k ^= k >> 33
	k *= 0xff51afd7ed558ccd
	k ^= k >> 33
	k *= 0xc4ceb9fe1a85ec53
	k ^= k >> 33
	return k
}

// line returns the first word of the line of a hash. The top shardBits chose
// the shard, so the line is taken from the 32 bits below the top 16.
func line(words int, h uint64) int {
	return int(uint64(uint32(h>>16))*uint64(words/lineWords)>>32) * lineWords
}

// spread gives the bits from which the positions in the line are cut, 9 at a
// time. It must not reuse the bits that chose shard and line, or keys of one
// line would share positions.
func spread(h uint64) uint64 { return h * 0x9e3779b97f4a7c15 }

func filterAdd(words []uint64, h uint64) {
	w := words[line(len(words), h):]
	for p, i := spread(h), 0; i < filterProbes; i++ {
		w[p>>61] |= 1 << (p >> 55 & 63)
		p <<= 9
	}
}

// filterHas reports whether a key with hash h may be in the set; false is certain.
func filterHas(words []uint64, h uint64) bool {
	at := line(len(words), h)
	w := words[at : at+lineWords : at+lineWords]
	for p, i := spread(h), 0; i < filterProbes; i++ {
		if w[p>>61]&(1<<(p>>55&63)) == 0 {
			return false
		}
		p <<= 9
	}
	return true
}
