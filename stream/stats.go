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

// The stages of a batch, in the order of StageNames.
const (
	stageWait = iota
	stageFetch
	stageLists
	stageDecode
	stageMatch
	stageDead
	stageQueues
	stageHits
	stageCommit
	stages
)

// StageNames are the stages that a batch passes: wait is fetching when no record was known to
// be there, so mostly idle; fetch is fetching what was known to wait; lists is waiting for
// the control log, nothing while it is heard of; queues ends with
// the acknowledgement of Redis, hits and dead with that of their topics. A batch without
// hits has no queues and hits, most have no commit.
var StageNames = [...]string{
	stageWait: "wait", stageFetch: "fetch", stageLists: "lists", stageDecode: "decode", stageMatch: "match",
	stageDead: "dead", stageQueues: "queues", stageHits: "hits", stageCommit: "commit",
}

// StageBuckets are the upper bounds, in seconds, of Stats.Stages. The budgets of design
// section 3 are among them: 3 ms for the queues, 5 ms from Kafka to the processor, and
// 0.35 us for each of 8192 reads, a full batch, which is 2.9 ms.
var StageBuckets = [...]float64{
	10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 0.001, 0.002, 0.0029, 0.003, 0.005, 0.010, 0.025, 0.050, 0.100, 0.250, 1, 5,
}

// BatchBuckets are the upper bounds of Stats.Batches, in records.
var BatchBuckets = [...]float64{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 8192}

// Histogram counts values by upper bounds, such as StageBuckets: Counts[i] were at most
// bound i, the last element counts all.
type Histogram struct {
	Counts []int64
	Sum    float64
}

// histogram gathers a Histogram of at most as many bounds as StageBuckets has, at two atomic
// steps for each value.
type histogram struct {
	in  [len(StageBuckets) + 1]atomic.Int64 // above the bound before, at most this one
	sum atomic.Int64
}

// add counts v, which adds n to the sum.
func (h *histogram) add(n int64, v float64, bounds []float64) {
	i := 0
	for i < len(bounds) && v > bounds[i] {
		i++
	}
	h.in[i].Add(1)
	h.sum.Add(n)
}

// load returns the histogram, with a sum of so many units.
func (h *histogram) load(bounds []float64, unit float64) Histogram {
	out := Histogram{Counts: make([]int64, len(bounds)+1), Sum: float64(h.sum.Load()) / unit}
	var n int64
	for i := range out.Counts {
		n += h.in[i].Load()
		out.Counts[i] = n
	}
	return out
}

// Stats is what a Processor has done since it started.
type Stats struct {
	Reads      int64            // records that were reads and were matched
	Sentinels  int64            // reads on which the camera saw no plate
	Alerts     int64            // alerts newly stored in a queue
	Duplicates int64            // alerts that were there before
	Stale      int64            // alerts refused by a fence and matched again
	Dead       map[Reason]int64 // records sent to the dead-letter topic
	Panics     int64            // panics while records were handled: of a batch, and of its records alone
	Skipped    int64            // reads that were gone, by retention or loss, before they were matched
	Retries    int64            // failed calls to the queues, the hits topic or the dead-letter topic
	Lag        map[int]int64    // records not yet fetched, by partition owned

	// UnknownSensor counts reads that hit of sensors that the registry has not. They
	// alert like all others, without a place.
	UnknownSensor int64

	Batches Histogram                  // records in a batch, by BatchBuckets
	Stages  [len(StageNames)]Histogram // seconds of each batch, by StageBuckets, in the order of StageNames

	Latency Histogram // seconds from the gateway to the queue of new alerts, by LatencyBuckets
}

type stats struct {
	reads, sentinels, alerts, duplicates, stale, skipped, retries, panics, unknownSensor atomic.Int64

	batches, latency histogram
	stages           [stages]histogram

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

func (s *stats) dead(letters []DeadLetter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deadBy == nil {
		s.deadBy = map[Reason]int64{}
	}
	for i := range letters {
		s.deadBy[letters[i].Reason]++
	}
}

// lap ends the stage in hand, and begins the next.
func (w *worker) lap(stage int) {
	now := time.Now()
	w.p.stats.stage(stage, now.Sub(w.at))
	w.at = now
}

func (s *stats) stage(stage int, took time.Duration) {
	s.stages[stage].add(int64(took), took.Seconds(), StageBuckets[:])
}

// observe counts a new alert and how long it took since the gateway had the read.
func (s *stats) observe(now time.Time, a *alert.Alert) {
	s.alerts.Add(1)
	if a.Read.Received == 0 {
		return
	}
	took := now.Sub(time.UnixMilli(a.Read.Received))
	s.latency.add(int64(took), took.Seconds(), LatencyBuckets[:])
}

// Stats returns the counters; it may be called at any time.
func (p *Processor) Stats() Stats {
	s := &p.stats
	out := Stats{
		Reads: s.reads.Load(), Sentinels: s.sentinels.Load(), Alerts: s.alerts.Load(),
		Duplicates: s.duplicates.Load(), Stale: s.stale.Load(), Skipped: s.skipped.Load(),
		Retries: s.retries.Load(), Panics: s.panics.Load(), UnknownSensor: s.unknownSensor.Load(),
		Dead: map[Reason]int64{}, Lag: map[int]int64{},
		Batches: s.batches.load(BatchBuckets[:], 1), Latency: s.latency.load(LatencyBuckets[:], 1e9),
	}
	for i := range s.stages {
		out.Stages[i] = s.stages[i].load(StageBuckets[:], 1e9)
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
