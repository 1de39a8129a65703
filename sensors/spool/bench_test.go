package spool

import (
	"context"
	"sync"
	"testing"

	"vigie/sensors"
)

// BenchmarkAppend is 8 goroutines that append 10 reads a call: how many fsyncs they share, and
// how fast the disk of this machine does one, decide.
func BenchmarkAppend(b *testing.B) {
	const callers, perCall = 8, 10
	s := open(b, Config{Dir: b.TempDir()})
	reads := readsFrom(0, perCall)
	var wg sync.WaitGroup
	calls := make(chan struct{})
	b.ReportAllocs()
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for range calls {
				if err := s.Append(context.Background(), reads); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		calls <- struct{}{}
	}
	close(calls)
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N*perCall)/b.Elapsed().Seconds(), "reads/s")
}

// BenchmarkDrain drains 600,000 reads, 5 minutes at 2,000 per second, into nothing: what the
// spool itself takes, decoding included.
func BenchmarkDrain(b *testing.B) {
	const backlog = 600_000
	for b.Loop() {
		b.StopTimer()
		s := open(b, Config{Dir: b.TempDir()})
		for i := 0; i < backlog; i += 5000 {
			appendAll(b, s, readsFrom(i, 5000)...)
		}
		b.StartTimer()
		for n := 1; n > 0; {
			var err error
			if n, err = s.Drain(b.Context(), 5000, func(context.Context, []sensors.Read) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N*backlog)/b.Elapsed().Seconds(), "reads/s")
}

// BenchmarkOpen opens a spool with 600,000 reads, as after kill -9 in an outage.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := open(b, Config{Dir: dir})
	for i := 0; i < 600_000; i += 5000 {
		appendAll(b, s, readsFrom(i, 5000)...)
	}
	s.Close()
	for b.Loop() {
		s, err := Open(Config{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
