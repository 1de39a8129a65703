package matcher

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"vigie/watchlist"
)

// atomicAdd returns a tick that adds to n.
func atomicAdd(n *int) func(int) {
	var mu sync.Mutex
	return func(by int) {
		mu.Lock()
		defer mu.Unlock()
		*n += by
	}
}

// checkShard checks the invariants of a shard.
func checkShard(t *testing.T, s *shard) {
	t.Helper()
	if s == nil {
		return
	}
	n := len(s.hashes)
	if n == 0 || len(s.entries) != n || !slices.IsSorted(s.hashes) {
		t.Fatalf("%d hashes, %d entries, sorted %v", n, len(s.entries), slices.IsSorted(s.hashes))
	}
	buckets := len(s.start) - 1
	if s.start[0] != 0 || int(s.start[buckets]) != n || !slices.IsSorted(s.start) {
		t.Fatalf("the buckets do not cover the shard")
	}
	for i, h := range s.hashes {
		if b := bucketOf(h, buckets); uint32(i) < s.start[b] || uint32(i) >= s.start[b+1] {
			t.Fatalf("pair %d is outside its bucket", i)
		}
	}
	if &s.words[0] != &s.filter.BitSet().Words()[0] {
		t.Fatal("the words are not those of the filter")
	}
}

// TestShardGivesBack takes most of a shard out: what remains must not hold the
// room of what went.
func TestShardGivesBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	var b builder
	for range 10_000 {
		b.ops = append(b.ops, op{h: rng.Uint64() >> shardBits, entry: watchlist.Pack(new(watchlist.Entry))})
	}
	full := b.rebuild(nil)
	checkShard(t, full)
	for i := range b.ops {
		b.ops[i].remove = true
	}
	b.ops = b.ops[100:]
	few := b.rebuild(full)
	checkShard(t, few)
	if few.size() != 100 || cap(few.hashes) > 200 || cap(few.entries) > 200 {
		t.Errorf("%d pairs in the room of %d", few.size(), cap(few.hashes))
	}
	if full.size() != 10_000 {
		t.Error("the old shard was written to")
	}
}

// TestBucketOf grows with the hash and fills all buckets alike.
func TestBucketOf(t *testing.T) {
	const n = 7
	var count [n]int
	last := 0
	for i := range uint64(70_000) {
		b := bucketOf(i*(1<<(64-shardBits)/70_000), n)
		if b < last || b >= n {
			t.Fatalf("bucket %d after %d", b, last)
		}
		count[b]++
		last = b
	}
	for b, c := range count {
		if c < 9_900 || c > 10_100 {
			t.Errorf("bucket %d has %d of 70,000 hashes, want a seventh", b, c)
		}
	}
}
