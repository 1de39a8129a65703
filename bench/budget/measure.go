package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"vigie/bench/measure"
	"vigie/bench/workload"
	"vigie/matcher"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// A matching is what a processor asks of a snapshot, or what a test puts in its place.
type matching interface {
	MayHit(dst []uint64, keys []plate.Key) []uint64
	Match(dst []matcher.Hit, q *matcher.Query) []matcher.Hit
}

// batch is the number of reads that are decoded before they are matched.
const batch = 256

// reader runs reads as a processor does: it parses a batch, asks which of it may
// hit, and matches those. What it holds is reused from batch to batch.
type reader struct {
	on    matching
	query matcher.Query
	hits  []matcher.Hit
	keys  []plate.Key
	may   []uint64
}

func newReader(on matching) *reader {
	return &reader{
		on:    on,
		query: matcher.Query{At: workload.At.UnixMilli(), Sensor: "bench"},
		hits:  make([]matcher.Hit, 0, 16),
		keys:  make([]plate.Key, 0, batch),
		may:   make([]uint64, 0, batch/64),
	}
}

// pass runs reads from text to hits and returns the number of hits.
func (r *reader) pass(reads []workload.Read) (hits int) {
	for len(reads) > 0 {
		n := min(batch, len(reads))
		keys := r.keys[:n]
		for i := range reads[:n] {
			keys[i], _ = plate.Parse(reads[i].Text) // 0 when it is no plate: nothing is known of that
		}
		hits += r.match(keys, func(i int) plate.Country { return reads[i].Country })
		reads = reads[n:]
	}
	return hits
}

// match runs keys of a batch.
func (r *reader) match(keys []plate.Key, country func(int) plate.Country) (hits int) {
	r.may = r.on.MayHit(r.may[:0], keys)
	for i, k := range keys {
		if r.may[i/64]>>(i%64)&1 == 0 {
			continue
		}
		r.query.Key, r.query.Country = k, country(i)
		r.hits = r.on.Match(r.hits[:0], &r.query)
		hits += len(r.hits)
	}
	return hits
}

// parsed runs what Parse made of French reads.
func (r *reader) parsed(keys []plate.Key) (hits int) {
	for len(keys) > 0 {
		n := min(batch, len(keys))
		hits += r.match(keys[:n], func(int) plate.Country { return france })
		keys = keys[n:]
	}
	return hits
}

var france, _ = plate.ParseCountry("FR")

// calls is how many calls single times per round, if there are as many reads.
const calls = 100_000

// single times each call of a batch of one read and returns, by round, the
// quantiles asked for, in nanoseconds, less what the clock itself takes.
func single(on matching, reads []workload.Read, rounds int, quantiles ...float64) [][]float64 {
	out := make([][]float64, len(quantiles))
	times := make([]float64, min(calls, len(reads)))
	rd := newReader(on)
	for r := -1; r < rounds; r++ {
		for i := range times {
			start := time.Now()
			times[i] = float64(time.Since(start))
		}
		clock := measure.Median(times)
		for i := range times {
			at := (max(r, 0)*len(times) + i) % len(reads)
			start := time.Now()
			rd.pass(reads[at : at+1])
			times[i] = float64(time.Since(start)) - clock
		}
		if r < 0 {
			continue
		}
		for i, p := range quantiles {
			out[i] = append(out[i], measure.Quantile(times, p))
		}
	}
	return out
}

// churn is what updating measured, a value per round.
type churn struct {
	effective []float64 // ms until the matching goroutine uses the change, p99
	worst     []float64 // the same, the longest
	apply     []float64 // ms in Apply, p99
	quiet     []float64 // us per batch without changes, p99
	busy      []float64 // us per batch with changes, p99
	wrong     int       // changes that had no effect
}

// update runs updateRounds rounds, each of them half without changes and half with.
const (
	updateRounds = 9
	half         = 300 * time.Millisecond
)

// update matches batches at full speed on one core while, for the second half of
// each round, the other puts an entry in and takes it out again. A change is
// effective when the matching goroutine has finished a batch with it.
func update(m *matcher.Matcher, reads []workload.Read) (c churn) {
	const (
		off = iota
		quiet
		busy
		stop
	)
	var phase atomic.Int32
	var seen, seenAt atomic.Int64 // version last matched with, and when first
	epoch := time.Now()
	var wg sync.WaitGroup
	var times [stop][]float64 // owned by the goroutine but for phase off
	var idle atomic.Bool
	wg.Go(func() {
		rd := newReader(nil)
		for at := 0; ; at = (at + batch) % (len(reads) - batch) {
			p := phase.Load()
			idle.Store(p == off)
			if p == off {
				runtime.Gosched()
				continue
			}
			if p == stop {
				return
			}
			start := time.Now()
			snap := m.Snapshot()
			rd.on = snap
			rd.pass(reads[at : at+batch])
			times[p] = append(times[p], float64(time.Since(start))/1e3)
			if v := snap.Version(); v != seen.Load() {
				seenAt.Store(int64(time.Since(epoch)))
				seen.Store(v)
			}
		}
	})
	defer wg.Wait()
	defer phase.Store(stop)

	extra := watchlist.Pack(&workload.New(workload.Config{Seed: 99, Entries: 1, Reads: 1}).Entries[0])
	q := matcher.Query{Key: extra.Key(), Country: extra.Country(), At: workload.At.UnixMilli()}
	before := len(m.Snapshot().Match(nil, &q))
	version := m.Snapshot().Version()
	for range updateRounds {
		phase.Store(quiet)
		time.Sleep(half) //nolint:forbidigo // the other goroutine matches for so long
		phase.Store(busy)
		var effective, apply []float64
		for end := time.Now().Add(half); time.Now().Before(end) || len(effective)%2 != 0; time.Sleep(time.Millisecond) { //nolint:forbidigo // a thousand changes a second at most
			version++
			change := control.Change{Version: version, NewEntry: extra}
			want := before + 1
			if len(effective)%2 != 0 {
				change, want = control.Change{Version: version, OldEntry: extra}, before
			}
			start := time.Since(epoch)
			m.Apply([]control.Change{change}, version)
			apply = append(apply, float64(time.Since(epoch)-start)/1e6)
			for seen.Load() < version {
				// The moment is noted by the one who matches: waiting for it
				// busily would take the core that it or the collector needs.
				time.Sleep(100 * time.Microsecond) //nolint:forbidigo // see above
			}
			effective = append(effective, float64(seenAt.Load()-int64(start))/1e6)
			if len(m.Snapshot().Match(nil, &q)) != want {
				c.wrong++
			}
		}
		phase.Store(off)
		for !idle.Load() {
			time.Sleep(20 * time.Microsecond) //nolint:forbidigo // a moment, until its batch is through
		}
		c.effective = append(c.effective, measure.Quantile(effective, 0.99))
		c.worst = append(c.worst, measure.Quantile(effective, 1))
		c.apply = append(c.apply, measure.Quantile(apply, 0.99))
		c.quiet = append(c.quiet, measure.Quantile(times[quiet], 0.99))
		c.busy = append(c.busy, measure.Quantile(times[busy], 0.99))
		times[quiet], times[busy] = times[quiet][:0], times[busy][:0]
	}
	return c
}
