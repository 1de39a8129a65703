package matcher_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"vigie/matcher"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// sizes are the lengths of the benchmarks' lists: in the cache, a large list,
// and the national list of design.md.
func sizes() []int {
	if testing.Short() {
		return []int{100_000, 1_000_000}
	}
	return []int{100_000, 1_000_000, 10_000_000}
}

// BenchmarkMatch is one look-up, with more queries than fit the cache. A miss
// should grow only with the misses of the cache, not with the list. A hit
// also reads the entry, its list and its times, each from memory.
func BenchmarkMatch(b *testing.B) {
	for _, n := range sizes() {
		snap, wanted := long(b, n)
		rng := rand.New(rand.NewPCG(7, 7))
		for _, hit := range []bool{false, true} {
			qs := make([]matcher.Query, 1<<17)
			for i := range qs {
				qs[i] = matcher.Query{Key: unwanted(rng, snap), Country: fr, At: epoch.UnixMilli()}
				if hit {
					qs[i].Key = wanted[rng.IntN(n)].NewEntry.Key()
				}
			}
			b.Run(fmt.Sprintf("entries=%d/hit=%v", n, hit), func(b *testing.B) {
				hits := make([]matcher.Hit, 0, 8)
				i := 0
				for b.Loop() {
					hits = snap.Match(hits[:0], &qs[i&(len(qs)-1)])
					i++
				}
			})
		}
	}
}

// BenchmarkParseMatchMiss is the whole cost of a plate that nobody wants, from
// its text on: at most 60 ns at 1 M entries, 110 ns at 10 M.
func BenchmarkParseMatchMiss(b *testing.B) {
	for _, n := range sizes() {
		snap, _ := long(b, n)
		rng := rand.New(rand.NewPCG(7, 7))
		texts := make([]string, 1<<17)
		for i := range texts {
			s := unwanted(rng, snap).String()
			texts[i] = s[:2] + "-" + s[2:5] + "-" + s[5:]
		}
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			hits := make([]matcher.Hit, 0, 8)
			q := matcher.Query{Country: fr, At: epoch.UnixMilli()}
			i := 0
			for b.Loop() {
				k, err := plate.Parse(texts[i&(len(texts)-1)])
				if err != nil {
					b.Fatal(err)
				}
				q.Key = k
				hits = snap.Match(hits[:0], &q)
				i++
			}
		})
	}
}

// BenchmarkApplyOne is one entry into a long list, or out of it: the copy of
// one shard. It should grow with a thousandth of the list.
func BenchmarkApplyOne(b *testing.B) {
	for _, n := range sizes() {
		_, changes := long(b, n)
		m := matcher.New()
		m.Apply([]control.Change{putList(list("l", watchlist.ToleranceExact))}, 0)
		m.Apply(changes, 1)
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			one := []control.Change{{NewEntry: watchlist.Pack(&watchlist.Entry{ID: "one", List: "l"})}}
			rng := rand.New(rand.NewPCG(9, 9))
			v := int64(2)
			runtime.GC()   // of the set-up, not on this account
			for b.Loop() { // another shard each time
				if one[0].NewEntry != nil {
					one[0].NewEntry = watchlist.Pack(&watchlist.Entry{ID: "one", List: "l", Key: siv(rng)})
				}
				m.Apply(one, v)
				one[0].OldEntry, one[0].NewEntry = one[0].NewEntry, one[0].OldEntry
				v++
			}
		})
	}
}

// BenchmarkBulk is a whole list into an empty matcher, as after a start.
func BenchmarkBulk(b *testing.B) {
	for _, n := range sizes() {
		_, changes := long(b, n)
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			runtime.GC()
			for b.Loop() {
				m := matcher.New()
				m.Apply(changes, 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
		})
	}
}

// BenchmarkMemory is what the matcher keeps beside the entries.
func BenchmarkMemory(b *testing.B) {
	for _, n := range sizes() {
		_, changes := long(b, n)
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(bytesPerEntry(changes), "B/entry")
			}
		})
	}
}

// TestMemory holds the matcher to 40 bytes per entry, the entries apart.
func TestMemory(t *testing.T) {
	_, changes := long(t, 1_000_000)
	if got := bytesPerEntry(changes); got > 40 {
		t.Errorf("%.1f bytes per entry, want at most 40", got)
	} else {
		t.Logf("%.1f bytes per entry", got)
	}
}

func bytesPerEntry(changes []control.Change) float64 {
	heap := func() uint64 {
		var ms runtime.MemStats
		runtime.GC()
		runtime.GC() // what a first cycle frees, the second has swept
		runtime.ReadMemStats(&ms)
		return ms.HeapAlloc
	}
	before := heap()
	m := matcher.New()
	m.Apply(changes, 1)
	after := heap()
	runtime.KeepAlive(m)
	return float64(int64(after-before)) / float64(len(changes))
}

// siv draws a plate of the French pattern.
func siv(rng *rand.Rand) plate.Key {
	const letters = "ABCDEFGHJKLMNPQRSTVWXYZ"
	l := func() byte { return letters[rng.IntN(len(letters))] }
	n := 1 + rng.IntN(999)
	k, err := plate.ParseBytes([]byte{l(), l(), '0' + byte(n/100), '0' + byte(n/10%10), '0' + byte(n%10), l(), l()})
	if err != nil {
		panic(err)
	}
	return k
}

// unwanted draws a plate that is not on the list.
func unwanted(rng *rand.Rand, snap *matcher.Snapshot) plate.Key {
	for {
		q := matcher.Query{Key: siv(rng), Country: fr, At: epoch.UnixMilli()}
		if len(snap.Match(nil, &q)) == 0 {
			return q.Key
		}
	}
}

type longList struct {
	snap    *matcher.Snapshot
	changes []control.Change // every entry, added
}

var (
	longMu    sync.Mutex
	longLists = map[int]longList{}
)

// long returns a list of n entries with tolerance exact, the same one each
// time, and the changes that add its entries.
func long(tb testing.TB, n int) (*matcher.Snapshot, []control.Change) {
	tb.Helper()
	longMu.Lock()
	defer longMu.Unlock()
	l, ok := longLists[n]
	if !ok {
		rng := rand.New(rand.NewPCG(1, uint64(n)))
		for range n {
			l.changes = append(l.changes, control.Change{NewEntry: watchlist.Pack(&watchlist.Entry{
				List: "l", Key: siv(rng), Country: fr, ValidFrom: epoch, ValidUntil: epoch.Add(time.Hour),
			})})
		}
		m := matcher.New()
		m.Apply([]control.Change{putList(list("l", watchlist.ToleranceExact))}, 0)
		m.Apply(l.changes, 1)
		l.snap = m.Snapshot()
		longLists[n] = l
	}
	return l.snap, l.changes
}
