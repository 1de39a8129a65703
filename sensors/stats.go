package sensors

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Stats are the counts of a Gateway since it was made. They cover answered
// requests only: one that failed to publish shows in PublishErrors and comes again.
type Stats struct {
	Accepted uint64 // reads told accepted
	// Rejected counts reads by the field at fault; "body" stands for those that
	// could not be decoded. The keys are a closed set, all always present.
	Rejected map[string]uint64
	// ForeignSensor counts the rejected reads that named a sensor which their
	// token is not bound to: a wrong set-up, or an attempt to forge reads.
	ForeignSensor uint64
	Sentinels     uint64 // accepted reads without a plate ("unknown", empty); a rise means a dirty lens
	// NoCountry counts accepted reads whose sensor told no country, and
	// UnknownCountry those whose text was not recognised; both can hit one grade
	// lower only. The second is a sensor to be set up.
	NoCountry, UnknownCountry uint64
	DerivedIDs                uint64 // accepted reads that came without an id
	CharConfDropped           uint64 // accepted reads whose char_conf did not fit the plate
	Retransmitted             uint64 // accepted reads marked as sent again after an outage
	Duplicates                uint64 // accepted reads that came a moment before already; see SensorHealth
	// UnknownSensor counts reads of sensors that the registry has not, by what became of
	// them: the index is an UnknownPolicy.
	UnknownSensor [UnknownRefuse + 1]uint64
	// QuarantineLost counts further ones, which were told accepted and dropped because the
	// quarantine could not be written; see UnknownQuarantine.
	QuarantineLost uint64
	Batches        uint64 // successful calls of Publisher.Publish, also for the quarantine
	PublishErrors  uint64 // failed ones; their senders were told to come again
	// Delay is received minus captured: the way from the sensor plus the error of
	// its clock. Negative delays are clocks that run ahead. Reads marked as
	// retransmitted are left out.
	Delay Histogram
}

// DelayBounds are the upper bounds, inclusive, of the buckets of Stats.Delay.
var DelayBounds = [...]time.Duration{
	-time.Hour, -time.Minute, -time.Second, 0, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 30 * time.Second,
	time.Minute, 5 * time.Minute, time.Hour, 24 * time.Hour,
}

// Histogram counts durations in the buckets of DelayBounds.
type Histogram struct {
	Counts [len(DelayBounds) + 1]uint64 // not cumulative; the last has no bound
	// Sum is of durations cut to a day either way, so that one clock in 1970 does
	// not drown the others.
	Sum time.Duration
}

func (h *Histogram) observe(millis int64) {
	const day = 24 * time.Hour
	d := time.Duration(max(min(millis, day.Milliseconds()+1), -day.Milliseconds())) * time.Millisecond
	i, _ := slices.BinarySearch(DelayBounds[:], d)
	h.Counts[i]++
	h.Sum += min(d, day)
}

// fields are the keys of Stats.Rejected.
var fields = [...]string{
	"body", "sensor", "id", "passage", "ts", "plate", "conf", "candidates", "char_conf", "image", "lane",
	"speed", "direction", "make", "color", "lat", "lon", "context",
}

// fieldIndex is the place of the top-level name of field in fields, 0 (body) for
// what is not in it.
func fieldIndex(field string) int {
	if i := strings.IndexAny(field, ".["); i >= 0 {
		field = field[:i]
	}
	return max(slices.Index(fields[:], field), 0)
}

// tally is what one request adds to the counters.
type tally struct {
	accepted, foreign, sentinels, noCountry, unknownCountries uint64
	derivedIDs, charConfDropped, retransmitted, batches       uint64
	duplicates, quarantineLost                                uint64
	unknown                                                   [UnknownRefuse + 1]uint64
	rejected                                                  [len(fields)]uint64
	delay                                                     Histogram
}

func (t *tally) reject(field string) { t.rejected[fieldIndex(field)]++ }

// counters are the counts of a Gateway. One lock per request is not seen beside
// the round trip to Kafka, and it keeps the counts of a scrape consistent.
type counters struct {
	mu            sync.Mutex
	total         tally         // guarded by mu
	publishErrors atomic.Uint64 // counted where no tally is kept
}

func (c *counters) add(t *tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.total
	s.accepted += t.accepted
	s.foreign += t.foreign
	s.sentinels += t.sentinels
	s.noCountry += t.noCountry
	s.unknownCountries += t.unknownCountries
	s.derivedIDs += t.derivedIDs
	s.charConfDropped += t.charConfDropped
	s.retransmitted += t.retransmitted
	s.batches += t.batches
	s.duplicates += t.duplicates
	s.quarantineLost += t.quarantineLost
	for i, n := range t.unknown {
		s.unknown[i] += n
	}
	for i, n := range t.rejected {
		s.rejected[i] += n
	}
	for i, n := range t.delay.Counts {
		s.delay.Counts[i] += n
	}
	s.delay.Sum += t.delay.Sum
}

// Stats returns the counts so far.
func (g *Gateway) Stats() Stats {
	g.count.mu.Lock()
	t := g.count.total
	g.count.mu.Unlock()
	s := Stats{
		Accepted: t.accepted, Rejected: make(map[string]uint64, len(fields)), ForeignSensor: t.foreign,
		Sentinels: t.sentinels, NoCountry: t.noCountry, UnknownCountry: t.unknownCountries,
		DerivedIDs: t.derivedIDs, CharConfDropped: t.charConfDropped, Retransmitted: t.retransmitted,
		Duplicates: t.duplicates, UnknownSensor: t.unknown, QuarantineLost: t.quarantineLost, Batches: t.batches, PublishErrors: g.count.publishErrors.Load(), Delay: t.delay,
	}
	for i, name := range fields {
		s.Rejected[name] = t.rejected[i]
	}
	return s
}
