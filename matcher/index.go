package matcher

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"vigie/watchlist"
	"vigie/watchlist/plate"
)

// An index finds entries by one 64-bit key: the plate itself, or a form of it
// under which look-alikes meet. One entry may stand under several keys. It is
// 1<<shardBits shards, chosen by the top bits of the hash of the key.
//
// Invariants: a shard is never written after it was built; two indexes may
// share shards; nil stands for an empty shard.
type index [1 << shardBits]*shard

const shardBits = 10

func shardOf(h uint64) int { return int(h >> (64 - shardBits)) }

// mix spreads a key over 64 bits: the finaliser of MurmurHash3 (Austin Appleby,
// public domain), a bijection, so that equal hashes mean equal keys and shards
// need not keep the keys beside the hashes.
func mix(k uint64) uint64 {
	k ^= k >> 33
	k *= 0xff51afd7ed558ccd
	k ^= k >> 33
	k *= 0xc4ceb9fe1a85ec53
	k ^= k >> 33
	return k
}

// find returns the entries of key in the order in which they were inserted.
// The slice belongs to the index.
func (x *index) find(key uint64) []*watchlist.Packed {
	h := mix(key)
	return x[shardOf(h)].find(h)
}

// mayHold appends to dst a bit for each of keys, 64 to a word and the lowest
// first: clear is certain, set means that find may return entries.
//
// It asks for the filter lines of 64 keys before it looks at any, so that their
// waits overlap. Plates parsed and asked for here in batches, then looked up
// where the bit is set, against Parse and find one by one (medians of 25 turns
// each, BenchmarkMiss): at 10 M entries 36 against 50 ns a read on a quiet
// machine, 42 against 104 while others use its cache; at 1 M 24 against 26; at
// 100 k no difference. The whole test in the first pass overlaps less: 52
// against 34 ns a key at 10 M.
func (x *index) mayHold(dst []uint64, keys []plate.Key) []uint64 {
	var hashes [64]uint64
	for len(keys) > 0 {
		n := min(len(hashes), len(keys))
		var touched, bits uint64
		for i, k := range keys[:n] {
			h := mix(uint64(k))
			hashes[i] = h
			if s := x[shardOf(h)]; s != nil {
				touched += s.words[line(len(s.words), h)]
			}
		}
		runtime.KeepAlive(touched) // or the loads above go away
		for i, h := range hashes[:n] {
			if s := x[shardOf(h)]; s != nil && filterHas(s.words, h) {
				bits |= 1 << i
			}
		}
		dst = append(dst, bits)
		keys = keys[n:]
	}
	return dst
}

// each calls f for every entry, once per key under which it stands.
func (x *index) each(f func(*watchlist.Packed)) {
	for _, s := range x {
		if s != nil {
			for _, e := range s.entries {
				f(e)
			}
		}
	}
}

// op puts an entry under the key with hash h, or takes it out.
type op struct {
	h      uint64
	entry  *watchlist.Packed
	seq    uint32 // place among the operations of the shard
	remove bool
}

// shards are those of an index from one until before another.
type shards struct{ from, to int }

var allShards = shards{0, 1 << shardBits}

// edit gathers, shard by shard and in order, what one Apply does to one index,
// so that a shard is rebuilt once however many of its entries change. Putting
// in what is there and taking out what is not change nothing.
type edit struct {
	only shards                // operations on others are passed over
	ops  *[1 << shardBits][]op // nil when there are none
	n    int                   // operations in all
	room int                   // operations to make room for in a shard that is touched
}

// expect makes room for n operations spread evenly.
func (ed *edit) expect(n int) { ed.room = n * 9 / 8 >> shardBits }

func (ed *edit) insert(key uint64, e *watchlist.Packed) { ed.add(op{h: mix(key), entry: e}) }

func (ed *edit) remove(key uint64, e *watchlist.Packed) {
	ed.add(op{h: mix(key), entry: e, remove: true})
}

func (ed *edit) add(o op) {
	if n := shardOf(o.h); n < ed.only.from || n >= ed.only.to {
		return
	}
	ed.n++
	if ed.ops == nil {
		ed.ops = new([1 << shardBits][]op)
	}
	ops := &ed.ops[shardOf(o.h)]
	if *ops == nil {
		*ops = make([]op, 0, max(1, ed.room))
	}
	*ops = append(*ops, o)
}

// apply returns x with the edits made one after the other, and by how much its
// size grew. Shards are rebuilt in parallel; after each, tick is called with the
// number of operations that it took, from any goroutine. The edits are used up.
func (x *index) apply(edits []*edit, tick func(n int)) (*index, int) {
	var touched []int
	for i := range x {
		if slices.ContainsFunc(edits, func(ed *edit) bool { return ed.ops != nil && ed.ops[i] != nil }) {
			touched = append(touched, i)
		}
	}
	if len(touched) == 0 {
		return x, 0
	}
	next := *x
	var at, grown atomic.Int64
	parallel(min(len(touched), runtime.GOMAXPROCS(0)), func(int) {
		var b builder
		for {
			n := at.Add(1) - 1
			if n >= int64(len(touched)) {
				return
			}
			i := touched[n]
			b.ops = b.ops[:0]
			for _, ed := range edits {
				if ed.ops != nil {
					b.ops = append(b.ops, ed.ops[i]...)
					ed.ops[i] = nil // a bulk load gives back what it has done
				}
			}
			next[i] = b.rebuild(x[i])
			grown.Add(int64(next[i].size() - x[i].size()))
			tick(len(b.ops))
		}
	})
	return &next, int(grown.Load())
}

// parallel calls f(0) to f(n-1) at the same time and waits for them.
func parallel(n int, f func(i int)) {
	if n == 1 {
		f(0)
		return
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}
