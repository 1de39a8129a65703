package matcher

import (
	"cmp"
	"slices"

	"github.com/bits-and-blooms/bloom/v3"

	"vigie/watchlist"
)

// An index finds entries by one 64-bit key: the plate itself, or its folded
// form. It is 1<<shardBits shards, chosen by the top bits of the hash of the key.
//
// Invariants: a shard is never written after it was built; two indexes may
// share shards; nil stands for an empty shard.
type index [1 << shardBits]*shard

const shardBits = 10

func shardOf(h uint64) int { return int(h >> (64 - shardBits)) }

// shard is an immutable set of entries with a filter in front.
type shard struct {
	words   []uint64           // the bits of filter, read directly
	filter  *bloom.BloomFilter // container and serialised form
	slots   []slot             // open addressing, linear probing, at most half full
	entries []item             // sorted by key: entries of one key stand together
}

// slot is one key of a shard and where its entries stand.
type slot struct {
	key uint64 // 0: empty; no plate packs to 0
	at  uint32
	n   uint32
}

type item struct {
	key   uint64
	entry *watchlist.Entry
}

// find returns the entries of key, whose hash is h.
func (s *shard) find(key, h uint64) []item {
	if s == nil || !filterHas(s.words, h) {
		return nil
	}
	mask := uint64(len(s.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch sl := &s.slots[i]; sl.key {
		case key:
			return s.entries[sl.at : sl.at+sl.n]
		case 0:
			return nil
		}
	}
}

// rebuilt returns s without the items of drop and with those of add. Items are
// the same when they are the same pointer.
func (s *shard) rebuilt(drop map[*watchlist.Entry]struct{}, add []item) *shard {
	var old []item
	if s != nil {
		old = s.entries
	}
	items := make([]item, 0, len(old)+len(add))
	for _, it := range old {
		if _, gone := drop[it.entry]; !gone {
			items = append(items, it)
		}
	}
	items = append(items, add...)
	if len(items) == 0 {
		return nil
	}
	// Stable, so that hits come in the order of the control log.
	slices.SortStableFunc(items, func(a, b item) int { return cmp.Compare(a.key, b.key) })
	return build(items)
}

// build makes a shard of items sorted by key.
func build(items []item) *shard {
	keys := 1
	for i := 1; i < len(items); i++ {
		if items[i].key != items[i-1].key {
			keys++
		}
	}
	size := 2
	for size < 2*keys {
		size *= 2
	}
	filter := newFilter(keys)
	s := &shard{
		filter:  filter,
		words:   filter.BitSet().Words(),
		slots:   make([]slot, size),
		entries: items,
	}
	mask := uint64(size - 1)
	for at := 0; at < len(items); {
		key, n := items[at].key, 1
		for at+n < len(items) && items[at+n].key == key {
			n++
		}
		h := mix(key)
		filterAdd(s.words, h)
		i := h & mask
		for s.slots[i].key != 0 {
			i = (i + 1) & mask
		}
		s.slots[i] = slot{key: key, at: uint32(at), n: uint32(n)}
		at += n
	}
	return s
}
