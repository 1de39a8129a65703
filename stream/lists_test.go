package stream_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"vigie/stream"
	"vigie/watchlist"
	"vigie/watchlist/control"
)

// cutLog is a control log that one process can be cut off from.
type cutLog struct {
	stream.ControlLog
	cut atomic.Bool
}

func (l *cutLog) Follow(ctx context.Context, apply func([]control.Record, int64, int64) error) error {
	return l.ControlLog.Follow(ctx, func(records []control.Record, next, end int64) error {
		for l.cut.Load() && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		if ctx.Err() != nil {
			return nil
		}
		return apply(records, next, end)
	})
}

// cutOff is a matcher that is cut off from the control log when an entry is added and the
// vehicle passes, and then not any more. It returns the alerts.
func cutOff(t *testing.T, maxListAge time.Duration) int {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	log := &cutLog{ControlLog: h.log}
	replica := stream.NewReplica(nil)
	h.background("replica apart", func(ctx context.Context) error { return replica.Follow(ctx, log) })
	p, _ := h.process(func(c *stream.Config) { c.Replica, c.MaxListAge = replica, maxListAge })
	h.produce(0, read("r1", "EF-456-GH"))
	h.committed(1, 0) // it works, and misses

	log.cut.Store(true)
	until(t, "the lists of the matcher are old", func() bool { return replica.Age() > 300*time.Millisecond })
	h.entry("stolen", "AB-123-CD")
	h.produce(0, read("r2", "AB-123-CD"))
	if maxListAge < time.Minute {
		for range 20 { // the read is there and waits
			time.Sleep(5 * time.Millisecond)
			if got := p.Stats().Reads; got != 1 {
				t.Fatalf("%d reads matched while cut off", got)
			}
		}
		log.cut.Store(false)
	}
	h.committed(2, 0)
	log.cut.Store(false)
	return len(h.queues.In(watchlist.DefaultQueue))
}

// TestNoMatchByOldLists: an entry that was confirmed while a matcher was cut off hits the
// reads that waited for that matcher.
func TestNoMatchByOldLists(t *testing.T) {
	if n := cutOff(t, 250*time.Millisecond); n != 1 {
		t.Errorf("%d alerts, want 1", n)
	}
}

// TestOldListsMiss is its negative control.
func TestOldListsMiss(t *testing.T) {
	if n := cutOff(t, time.Hour); n != 0 {
		t.Errorf("%d alerts by lists that do not have the entry", n)
	}
}
