package stream_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"vigie/stream"
	"vigie/stream/alert"
	"vigie/watchlist"
)

// counting counts calls of queues.
type counting struct {
	stream.Queues
	calls atomic.Int64
}

func (q *counting) Publish(ctx context.Context, alerts []*alert.Alert) ([]stream.Published, error) {
	q.calls.Add(1)
	return q.Queues.Publish(ctx, alerts)
}

// TestBacklogIsStoredTogether: the alerts of a matcher that is behind share calls of the
// queues, and those of one that is not do not wait for each other. Either way nothing is
// committed before it is stored, which the tests of crashes hold.
func TestBacklogIsStoredTogether(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	const batches, size = 300, 100 // each with a hit
	for i := range batches * size {
		plate := "EF-456-GH"
		if i%size == 0 {
			plate = "AB-123-CD"
		}
		h.produce(0, read(fmt.Sprint("r", i), plate))
	}
	q := &counting{Queues: h.queues}
	h.process(func(c *stream.Config) { c.Source, c.Queues = h.reads.Source(size), q })
	h.committed(batches*size, 0)
	if n := len(h.queues.In(watchlist.DefaultQueue)); n != batches {
		t.Errorf("%d alerts, want %d", n, batches)
	}
	if n := q.calls.Load(); n > batches*2/3 { // the last 8192 records are no backlog
		t.Errorf("%d calls for %d batches", n, batches)
	}
	before := q.calls.Load()
	for i := range int64(3) {
		h.produce(0, read(fmt.Sprint("live", i), "AB-123-CD"))
		h.committed(batches*size+i+1, 0)
	}
	if n := q.calls.Load() - before; n != 3 {
		t.Errorf("%d calls for 3 reads, one after the other", n)
	}
}
