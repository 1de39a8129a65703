package control_test

import (
	"fmt"
	"runtime"
	"testing"

	"vigie/watchlist/control"
)

// records returns a list and n of its entries, in random order of ids.
func records(n int) []control.Record {
	l := list("stolen", 1)
	recs := make([]control.Record, 0, n+1)
	recs = append(recs, at(0, listRec(l)))
	for i := range n {
		recs = append(recs, at(int64(i+1), entryRec(entry(l, i))))
	}
	return recs
}

// BenchmarkLoad is the start of a process: decode and insert every entry of a
// list. It grows with the logarithm of the size, from cache misses.
// heap-B/entry is all that the State holds, without the records.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			recs := records(n)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var s *control.State
			for b.Loop() {
				s = control.NewState()
				for _, rec := range recs {
					if err := s.Load(rec); err != nil {
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
