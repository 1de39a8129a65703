package matcher

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// slowIndex is an index as one would write it first.
type slowIndex map[uint64][]*watchlist.Packed

func (x slowIndex) do(key uint64, e *watchlist.Packed, remove bool) {
	at := slices.Index(x[key], e)
	switch {
	case remove && at >= 0:
		x[key] = slices.Delete(slices.Clone(x[key]), at, at+1)
	case !remove && at < 0:
		x[key] = append(slices.Clone(x[key]), e)
	}
}

// TestIndexAgainstSlow makes random edits, several of them at once, to few keys
// and entries, so that the same pair comes and goes within one edit and one
// entry stands under several keys. Earlier versions must not change.
func TestIndexAgainstSlow(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 5))
		pool := make([]*watchlist.Packed, 6)
		for i := range pool {
			pool[i] = watchlist.Pack(&watchlist.Entry{ID: fmt.Sprint(i)})
		}
		keys := 1 + rng.Uint64N(200) // many in the same shard when few bits differ
		type version struct {
			fast *index
			slow slowIndex
			size int
		}
		cur := version{fast: new(index), slow: slowIndex{}}
		var past []version
		for range 60 {
			next := version{slow: slowIndex{}}
			for k, es := range cur.slow {
				next.slow[k] = es
			}
			edits := make([]*edit, 1+rng.IntN(3))
			var ops, ticked int
			for i := range edits {
				edits[i] = &edit{only: allShards}
				for range rng.IntN(60) {
					k, e, remove := rng.Uint64N(keys), pool[rng.IntN(len(pool))], rng.IntN(2) == 0
					if remove {
						edits[i].remove(k, e)
					} else {
						edits[i].insert(k, e)
					}
					next.slow.do(k, e, remove)
				}
				ops += edits[i].n
			}
			var grown int
			next.fast, grown = cur.fast.apply(edits, atomicAdd(&ticked))
			next.size = cur.size + grown
			if ticked != ops {
				t.Fatalf("%d operations reported, %d made", ticked, ops)
			}
			past = append(past, next)
			cur = next
		}
		for i, v := range past {
			var size, each int
			for k := range keys {
				if got := v.fast.find(k); !slices.Equal(got, v.slow[k]) {
					t.Fatalf("seed %d, version %d, key %d: %d entries, want %d in order of insertion", seed, i, k, len(got), len(v.slow[k]))
				}
				size += len(v.slow[k])
			}
			v.fast.each(func(*watchlist.Packed) { each++ })
			if v.size != size || each != size {
				t.Fatalf("seed %d, version %d: size %d, each sees %d, want %d", seed, i, v.size, each, size)
			}
			for _, s := range v.fast {
				checkShard(t, s)
			}
		}
	}
}

// TestApplyBulk loads enough at once to go in chunks, with every plate on two
// lists, and finds all of it in the order of the changes; then takes it out.
func TestApplyBulk(t *testing.T) {
	const n = 5 * minChunk
	var in, out []control.Change
	for i := range n {
		e := &watchlist.Entry{List: "exact", Key: plate.Key(1 + i%(n/2))}
		if i%2 == 1 {
			e.List = "ocr"
		}
		in = append(in, control.Change{NewEntry: watchlist.Pack(e)})
		out = append(out, control.Change{OldEntry: in[i].NewEntry})
	}
	m := New()
	m.Apply([]control.Change{
		{NewList: &watchlist.List{ID: "exact"}},
		{NewList: &watchlist.List{ID: "ocr", Tolerance: watchlist.ToleranceOCR}},
	}, 1)
	var last, calls int
	m.ApplyWithProgress(in, 2, func(done, total int) {
		if calls++; done <= last || total != n+n/2 {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last = done
	})
	if s := m.Snapshot(); last != n+n/2 || s.Len() != n || s.nFolded != n/2 || s.Version() != 2 {
		t.Fatalf("done %d, %d and %d entries, version %d", last, s.Len(), s.nFolded, s.Version())
	}
	t.Logf("%d reports of progress", calls)
	for i := range n / 2 {
		got := m.Snapshot().exact.find(uint64(1 + i))
		if want := []*watchlist.Packed{in[i].NewEntry, in[i+n/2].NewEntry}; !slices.Equal(got, want) {
			t.Fatalf("key %d: %d entries, or in the wrong order", 1+i, len(got))
		}
	}
	m.Apply(out, 3)
	if s := m.Snapshot(); s.Len() != 0 || s.nFolded != 0 || *s.exact != (index{}) || *s.folded != (index{}) {
		t.Errorf("%d and %d entries left", s.Len(), s.nFolded)
	}
}

// TestLoad: loaded in parts, whatever their sizes, a matcher is what Apply makes it.
func TestLoad(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	all := []control.Change{{NewSensor: &control.Sensor{ID: "s", Zones: []string{"z"}}}}
	for tolerance := range watchlist.TolerancePattern + 1 {
		l := &watchlist.List{ID: tolerance.String(), Tolerance: tolerance}
		all = append(all, control.Change{NewList: l})
		for i := range []int{3 * minChunk, 2 * minChunk, 1000, 20}[tolerance] {
			e := &watchlist.Entry{ID: fmt.Sprint(i), List: l.ID, Key: plate.Key(1 + rng.IntN(50_000))}
			if tolerance == watchlist.TolerancePattern {
				e.Key = 0
				e.Pattern, _ = watchlist.ParsePattern(fmt.Sprintf("AB%d*", i))
			}
			all = append(all, control.Change{NewEntry: watchlist.Pack(e)})
		}
		all = append(all, control.Change{NewExemption: &watchlist.Exemption{List: l.ID, Entry: "1", Read: 7, Until: time.UnixMilli(8)}})
	}
	want, got := New(), New()
	want.Apply(all, 9)
	got.Load(func(yield func([]control.Change) bool) {
		for from := 0; from < len(all); {
			part := slices.Clone(all[from:min(len(all), from+1+rng.IntN(2*minChunk))])
			from += len(part)
			yield(part)
			clear(part) // it is the caller's again
		}
	}, 9)
	if !reflect.DeepEqual(got.Snapshot(), want.Snapshot()) {
		t.Error("the snapshots differ")
	}
	if got.Snapshot().Len() != want.Snapshot().Len() || got.Snapshot().patterns.len() != 20 {
		t.Errorf("%d entries, %d patterns", got.Snapshot().Len(), got.Snapshot().patterns.len())
	}
}

// TestToleranceMoves changes the tolerance of a list while its entries come and
// go in the same batch, before and after.
func TestToleranceMoves(t *testing.T) {
	exact := &watchlist.List{ID: "l"}
	tolerant := &watchlist.List{ID: "l", Tolerance: watchlist.ToleranceOCR}
	entry := func(k plate.Key) *watchlist.Packed { return watchlist.Pack(&watchlist.Entry{List: "l", Key: k}) }
	stays, goes, comes := entry(1), entry(2), entry(3)
	for _, from := range []*watchlist.List{exact, tolerant} {
		to := exact
		if from == exact {
			to = tolerant
		}
		m := New()
		m.Apply([]control.Change{{NewList: from}, {NewEntry: stays}, {NewEntry: goes}}, 1)
		m.Apply([]control.Change{{OldEntry: goes}, {OldList: from, NewList: to}, {NewEntry: comes}, {OldEntry: stays}, {NewEntry: stays}}, 2)
		want := 0
		if to == tolerant {
			want = 2
		}
		if s := m.Snapshot(); s.Len() != 2 || s.nFolded != want {
			t.Errorf("to %v: %d entries, %d folded, want 2 and %d", to.Tolerance, s.Len(), s.nFolded, want)
		}
	}
}

// TestMayHold never denies a key that is there, and agrees with the filter.
func TestMayHold(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 6))
	x, held := randomIndex(rng, 5_000)
	for _, n := range []int{0, 1, 63, 64, 65, 1000} {
		keys := make([]plate.Key, n)
		for i := range keys {
			keys[i] = held[rng.IntN(len(held))]
			if rng.IntN(2) == 0 {
				keys[i] = plate.Key(rng.Uint64())
			}
		}
		got := x.mayHold(nil, keys)
		if len(got) != (n+63)/64 {
			t.Fatalf("%d words for %d keys", len(got), n)
		}
		for i, k := range keys {
			h := mix(uint64(k))
			s := x[shardOf(h)]
			if bit, want := got[i/64]>>(i%64)&1 == 1, s != nil && filterHas(s.words, h); bit != want {
				t.Errorf("key %d of %d: %v, want %v", i, n, bit, want)
			}
			if len(x.find(uint64(k))) > 0 && got[i/64]>>(i%64)&1 == 0 {
				t.Errorf("key %d of %d is there and denied", i, n)
			}
		}
	}
	if n := testing.AllocsPerRun(100, func() { x.mayHold(make([]uint64, 0, 4), held[:200]) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// BenchmarkMiss takes texts to misses in batches of 64, one by one and through
// mayHold: compare the two, per read.
func BenchmarkMiss(b *testing.B) {
	sizes := []int{100_000, 1_000_000, 10_000_000}
	if testing.Short() {
		sizes = sizes[:2]
	}
	for _, n := range sizes {
		rng := rand.New(rand.NewPCG(1, uint64(n)))
		x, _ := randomIndex(rng, n)
		runtime.GC()
		texts := make([]string, 0, 1<<17)
		for len(texts) < cap(texts) {
			s := fmt.Sprintf("%c%c-%03d-%c%c", 'A'+rng.IntN(26), 'A'+rng.IntN(26), 1+rng.IntN(999), 'A'+rng.IntN(26), 'A'+rng.IntN(26))
			texts = append(texts, s)
		}
		parse := func(text string) plate.Key {
			k, err := plate.Parse(text)
			if err != nil {
				b.Fatal(err)
			}
			return k
		}
		for _, batch := range []bool{false, true} {
			b.Run(fmt.Sprintf("entries=%d/batch=%v", n, batch), func(b *testing.B) {
				keys, may := make([]plate.Key, 64), make([]uint64, 1)
				var at, hits int
				for b.Loop() {
					some := texts[at:][:64]
					at = (at + 64) % len(texts)
					if batch {
						for i, text := range some {
							keys[i] = parse(text)
						}
						may = x.mayHold(may[:0], keys)
						for i, k := range keys {
							if may[0]>>i&1 == 1 {
								hits += len(x.find(uint64(k)))
							}
						}
						continue
					}
					for _, text := range some {
						hits += len(x.find(uint64(parse(text))))
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*64), "ns/read")
			})
		}
	}
}

// randomIndex holds n keys above those of any plate of seven characters.
func randomIndex(rng *rand.Rand, n int) (*index, []plate.Key) {
	ed := edit{only: allShards}
	ed.expect(n)
	keys := make([]plate.Key, n)
	e := watchlist.Pack(new(watchlist.Entry))
	for i := range keys {
		keys[i] = plate.Key(rng.Uint64() | 1<<63)
		ed.insert(uint64(keys[i]), e)
	}
	x, _ := new(index).apply([]*edit{&ed}, func(int) {})
	return x, keys
}
