package stream

import (
	"sync"
	"sync/atomic"
	"time"

	"vigie/stream/alert"
)

// LatencyBuckets are the upper bounds, in seconds, of Stats.Latency. The budget
// of design section 3 (15 ms and 50 ms) is among them.
var LatencyBuckets = [...]float64{0.001, 0.002, 0.003, 0.005, 0.010, 0.015, 0.025, 0.050, 0.100, 0.250, 1, 5, 30}

// Stats is what a Processor has done since it started.
type Stats struct {
	Reads      int64            // records that were reads and were matched
	Sentinels  int64            // reads on which the camera saw no plate
	Alerts     int64            // alerts newly stored in a queue
	Duplicates int64            // alerts that were there before
	Stale      int64            // alerts refused by a fence and matched again
	Dead       map[Reason]int64 // records sent to the dead-letter topic
	Skipped    int64            // reads that were gone, by retention or loss, before they were matched
	Retries    int64            // failed calls to the queues, the hits topic or the dead-letter topic
	Lag        map[int]int64    // records not yet fetched, by partition owned

	// Latency counts new alerts by the time from the gateway to the queue:
	// Latency[i] took at most LatencyBuckets[i], the last element counts all.
	Latency    [len(LatencyBuckets) + 1]int64
	LatencySum time.Duration
}

type stats struct {
	reads, sentinels, alerts, duplicates, stale, skipped, retries atomic.Int64

	latency    [len(LatencyBuckets) + 1]atomic.Int64
	latencySum atomic.Int64

	mu     sync.Mutex // guards the maps
	deadBy map[Reason]int64
	lagOf  map[int]*atomic.Int64
}

func (s *stats) partition(id int) *atomic.Int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lagOf == nil {
		s.lagOf = map[int]*atomic.Int64{}
	}
	if s.lagOf[id] == nil {
		s.lagOf[id] = new(atomic.Int64)
	}
	return s.lagOf[id]
}

func (s *stats) dead(r Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deadBy == nil {
		s.deadBy = map[Reason]int64{}
	}
	s.deadBy[r]++
}

// observe counts a new alert and how long it took since the gateway had the read.
func (s *stats) observe(now time.Time, a *alert.Alert) {
	s.alerts.Add(1)
	if a.Read.Received == 0 {
		return
	}
	took := now.Sub(time.UnixMilli(a.Read.Received))
	s.latencySum.Add(int64(took))
	for i, le := range LatencyBuckets {
		if took.Seconds() <= le {
			s.latency[i].Add(1)
		}
	}
	s.latency[len(LatencyBuckets)].Add(1)
}

// Stats returns the counters; it may be called at any time.
func (p *Processor) Stats() Stats {
	s := &p.stats
	out := Stats{
		Reads: s.reads.Load(), Sentinels: s.sentinels.Load(), Alerts: s.alerts.Load(),
		Duplicates: s.duplicates.Load(), Stale: s.stale.Load(), Skipped: s.skipped.Load(),
		Retries: s.retries.Load(), LatencySum: time.Duration(s.latencySum.Load()),
		Dead: map[Reason]int64{}, Lag: map[int]int64{},
	}
	for i := range s.latency {
		out.Latency[i] = s.latency[i].Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for r, n := range s.deadBy {
		out.Dead[r] = n
	}
	for id, lag := range s.lagOf {
		out.Lag[id] = lag.Load()
	}
	return out
}
