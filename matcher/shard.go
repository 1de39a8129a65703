package matcher

import (
	"cmp"
	"slices"

	"github.com/bits-and-blooms/bloom/v3"

	"vigie/watchlist"
)

// shard is an immutable set of (hash, entry) pairs with a filter in front.
//
// The pairs are sorted by hash, those of one hash in the order of insertion,
// and cut into buckets of perBucket pairs on average by the value of the hash:
// a look-up reads one line of the filter, two neighbours in start and one run
// of hashes. A change merges what is sorted already. It needs 19.4 bytes per
// pair, filter included; an open-addressed table at most half full, with its
// sorted entries, needs 50 to 80. Misses, nearly all reads, end at the filter
// and see neither; hits cost 96 against 100 ns at 1 M pairs and 190 against 130
// at 10 M, for start is one more line to wait for. Without a filter a miss costs
// 62 ns instead of 18 at 1 M and 150 instead of 75 at 10 M.
type shard struct {
	words   []uint64 // the bits of filter, read directly
	start   []uint32 // bucket b is start[b] to start[b+1]
	hashes  []uint64
	entries []*watchlist.Packed // beside hashes
	filter  *bloom.BloomFilter  // container and serialised form
}

const perBucket = 4

// bucketOf returns the bucket of h among n. It grows with h, and takes the 32
// bits below those that chose the shard.
func bucketOf(h uint64, n int) int {
	return int(uint64(uint32(h>>(32-shardBits))) * uint64(n) >> 32)
}

// find returns the entries under hash h.
func (s *shard) find(h uint64) []*watchlist.Packed {
	if s == nil || !filterHas(s.words, h) {
		return nil
	}
	return s.lookUp(h)
}

// lookUp is find without the filter.
func (s *shard) lookUp(h uint64) []*watchlist.Packed {
	b := bucketOf(h, len(s.start)-1)
	i, end := s.start[b], s.start[b+1]
	for i < end && s.hashes[i] < h {
		i++
	}
	j := i
	for j < end && s.hashes[j] == h {
		j++
	}
	return s.entries[i:j:j]
}

func (s *shard) size() int {
	if s == nil {
		return 0
	}
	return len(s.entries)
}

// builder rebuilds shards one after the other.
type builder struct {
	ops []op // of the shard to rebuild, in order
}

// rebuild returns old with b.ops done. It is quadratic in the entries under one
// hash, which are few: a plate is on few lists.
func (b *builder) rebuild(old *shard) *shard {
	if old == nil {
		old = new(shard)
	}
	room := len(old.hashes)
	for i := range b.ops {
		b.ops[i].seq = uint32(i)
		if !b.ops[i].remove {
			room++
		}
	}
	slices.SortFunc(b.ops, func(p, q op) int {
		if p.h != q.h {
			return cmp.Compare(p.h, q.h)
		}
		return cmp.Compare(p.seq, q.seq)
	})
	hashes, entries := make([]uint64, 0, room), make([]*watchlist.Packed, 0, room)
	at := 0 // pairs of old that are taken
	for i := 0; i < len(b.ops); {
		h, n := b.ops[i].h, at
		for n < len(old.hashes) && old.hashes[n] < h {
			n++
		}
		hashes = append(hashes, old.hashes[at:n]...)
		for n < len(old.hashes) && old.hashes[n] == h {
			n++
		}
		entries = append(entries, old.entries[at:n]...)
		at = n
		from := len(hashes) // of the entries under h
		for ; i < len(b.ops) && b.ops[i].h == h; i++ {
			o := &b.ops[i]
			k := slices.Index(entries[from:], o.entry)
			switch {
			case o.remove && k >= 0:
				entries = slices.Delete(entries, from+k, from+k+1)
			case !o.remove && k < 0:
				entries = append(entries, o.entry)
			}
		}
		for len(hashes) < len(entries) {
			hashes = append(hashes, h)
		}
	}
	hashes = append(hashes, old.hashes[at:]...)
	entries = append(entries, old.entries[at:]...)
	if len(hashes) == 0 {
		return nil
	}
	if len(hashes) < room-room/8 { // do not keep the room of what went
		hashes, entries = slices.Clone(hashes), slices.Clone(entries)
	}
	return newShard(hashes, entries)
}

// newShard makes a shard of pairs sorted by hash, which it keeps.
func newShard(hashes []uint64, entries []*watchlist.Packed) *shard {
	s := &shard{hashes: hashes, entries: entries}
	s.start = make([]uint32, max(1, len(hashes)/perBucket)+1)
	keys, buckets := 0, len(s.start)-1
	for i, h := range hashes {
		s.start[bucketOf(h, buckets)+1]++
		if i == 0 || h != hashes[i-1] {
			keys++
		}
	}
	for b := range buckets {
		s.start[b+1] += s.start[b]
	}
	s.filter = newFilter(keys)
	s.words = s.filter.BitSet().Words()
	for _, h := range hashes {
		filterAdd(s.words, h)
	}
	return s
}
