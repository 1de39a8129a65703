package control_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"vigie/watchlist/control"
)

// records returns a list and n of its entries, in random order of ids. Keys and values
// lie back to back in few large pieces, as they do in answers of a broker: ten million
// small objects would be the work of the collector, and the benchmark its victim.
func records(n int) []control.Record {
	l := list("stolen", 1)
	recs := make([]control.Record, n+1)
	recs[0] = at(0, listRec(l))
	var wg sync.WaitGroup
	parts := runtime.GOMAXPROCS(0)
	for part := range parts {
		wg.Go(func() {
			var piece []byte
			for i := n * part / parts; i < n*(part+1)/parts; i++ {
				rec := entryRec(entry(l, i))
				k, v := len(rec.Key), len(rec.Value)
				if cap(piece)-len(piece) < k+v {
					piece = make([]byte, 0, 1<<20)
				}
				from := len(piece)
				piece = append(append(piece, rec.Key...), rec.Value...)
				recs[i+1] = control.Record{Offset: int64(i + 1), Key: piece[from : from+k : from+k], Value: piece[from+k : from+k+v : from+k+v]}
			}
		})
	}
	wg.Wait()
	return recs
}

// BenchmarkLoad is the start of a process: decode and insert every entry of a
// list, handed over in the pieces that an answer of a broker has. It grows with the
// logarithm of the size, from cache misses. heap-B/entry is all that the State holds,
// without the records. Ten million need 10 GB and two minutes, and are left out
// with -short.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			if n > 1_000_000 && testing.Short() {
				b.Skip("needs 10 GB and two minutes")
			}
			recs := records(n)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var s *control.State
			for b.Loop() {
				s = control.NewState()
				for part := range slices.Chunk(recs, answer) {
					if err := s.LoadAll(part, nil); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/entry")
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "heap-B/entry")
			runtime.KeepAlive(s)
			runtime.KeepAlive(recs)
		})
	}
}

// answer is about how many entries an answer of a broker holds, at the 16 MiB that stream/kafka asks for.
const answer = 65_536

// BenchmarkApply is one entry replaced while a million are held: what an
// operator's change costs each process before the matcher sees it.
func BenchmarkApply(b *testing.B) {
	const n = 1_000_000
	recs := records(n)
	s := control.NewState()
	for _, rec := range recs {
		if err := s.Load(rec); err != nil {
			b.Fatal(err)
		}
	}
	var changes []control.Change
	var err error
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i = (i + 7919) % n
		if changes, err = s.Apply(at(s.Version()+1, recs[1+i]), changes[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPage is a page of 100 entries from the middle of a million.
func BenchmarkPage(b *testing.B) {
	s := control.NewState()
	for _, rec := range records(1_000_000) {
		if err := s.Load(rec); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if page := s.Entries("stolen", "m", 100); len(page) != 100 {
			b.Fatal(len(page))
		}
	}
}
