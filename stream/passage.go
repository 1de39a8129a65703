package stream

import (
	"context"

	"vigie/stream/alert"
)

// A passage is one vehicle, and what its last read says is what counts: the camera may
// have read another plate before. The alerts of the reads before stand in the queues, in
// the order of the reads, which share a partition; so a read that is not the first of its
// passage is brought to the queues even when it hits nothing. First reads, which nearly
// all are, cost nothing.

// later is a read that is not the first of its passage.
type later struct {
	Revision
	offset int64
}

// revise adds the later reads of a window that was matched to those in hand; w.rev has
// their places.
func (w *worker) revise() {
	for _, i := range w.rev {
		r := &w.reads[i]
		l := later{Revision{Read: r.Clone(), At: w.p.cfg.Clock()}, r.offset}
		for j := len(w.alerts) - 1; j >= 0 && w.offsets[j] >= r.offset; j-- {
			if w.offsets[j] == r.offset {
				l.Alerts = append(l.Alerts, w.alerts[j])
			}
		}
		w.later = append(w.later, l)
	}
}

// inHand is how many alerts and later reads are matched and not stored yet.
func (w *worker) inHand() int { return len(w.alerts) + len(w.later) }

// first is an offset of what is in hand.
func (w *worker) first() int64 {
	if len(w.offsets) > 0 {
		return w.offsets[0]
	}
	return w.later[0].offset
}

// reviseQueues brings later reads to the queues and returns what that changed. The alerts in
// hand are in their queues by then.
func (w *worker) reviseQueues(ctx context.Context, reads []later) (events []*alert.Event, err error) {
	if len(reads) == 0 {
		return nil, nil
	}
	rs := make([]Revision, len(reads))
	for i := range reads {
		rs[i] = reads[i].Revision
	}
	err = w.p.retry(ctx, "queues", func() (err error) {
		events, err = w.p.cfg.Queues.Revise(ctx, rs)
		return err
	})
	return events, err
}
