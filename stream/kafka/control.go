package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"vigie/watchlist/control"
)

const (
	// followWait is how long the broker holds a fetch at the end of the log open; a record
	// that is written meanwhile comes at once.
	followWait = 250 * time.Millisecond
	// followBytes is asked for at a time. Large steps make a long import cheap, because every
	// step rebuilds the shards of the matcher that it touches. The first catching up, after
	// which the matcher is built once, does with less.
	followBytes = 16 << 20
	loadBytes   = 4 << 20
	// followKeep is how many records of a step make its buffers too large to keep.
	followKeep = 4096
	// followBatch bounds one batch of the log, ours being at most writeBytes.
	followBatch = 64 << 20
	// tombstones is how long the log keeps withdrawals after compaction; see Topics.
	tombstones = 24 * time.Hour
)

// ControlLog is the control topic. It implements stream.ControlLog.
type ControlLog struct {
	c     *Cluster
	topic string
	out   *producer
	gap   time.Duration // longest time between two looks at the log
}

// ControlLog returns the control log.
func (c *Cluster) ControlLog() *ControlLog {
	topic := c.topic(topicControl)
	out := c.producer(topic)
	// Of two records of a key the later counts, so that a repeat which comes late (a network
	// that was cut delivers what it has kept) would bring back what was withdrawn meanwhile.
	// A try is given up for time as late as possible; that a leader has lost its place, after
	// which nothing of it comes late, is noticed as soon as elsewhere.
	out.first = c.timeout / 2
	return &ControlLog{c: c, topic: topic, out: out, gap: tombstones / 2}
}

// Append writes the records in one batch, so that every follower sees all of them or none, and
// returns the offset of the last once all in-sync replicas have them. Only more than about
// 1 MB of records is cut into several batches, in order; an error may then leave the first of
// them in the log, and the records of others may come between them: a withdrawal does not
// wait behind a long import. After an error the outcome is unknown and appending again is safe: the
// last record of a key counts. A record that no batch can hold is ErrTooLarge, and nothing is
// written. Records that are none to append return -1.
func (l *ControlLog) Append(ctx context.Context, records []control.Record) (last int64, err error) {
	last = -1
	ms := make([]message, len(records))
	for i, rec := range records {
		if len(rec.Key) == 0 {
			return -1, fmt.Errorf("kafka: control record %d of %d has no key", i+1, len(records))
		}
		ms[i] = message{key: rec.Key, value: rec.Value}
		if w := rec.Why; w != nil {
			ms[i].headers = []kafkago.Header{
				{Key: HeaderActor, Value: []byte(w.Actor)},
				{Key: HeaderReason, Value: []byte(w.Reason)},
				{Key: HeaderTime, Value: []byte(w.At.UTC().Format(time.RFC3339Nano))},
			}
		}
		if n := ms[i].size(); n > writeBytes {
			return -1, fmt.Errorf("kafka: control record %d of %d: %w: %d bytes of %d", i+1, len(records), ErrTooLarge, n, writeBytes)
		}
	}
	for len(ms) > 0 {
		n := take(ms)
		base, _, err := l.out.produce(ctx, 0, ms[:n])
		if err != nil {
			return -1, fmt.Errorf("kafka: append to the control log: %w", err)
		}
		last, ms = base+int64(n)-1, ms[n:]
	}
	return last, nil
}

// Follow hands the records of the log to apply, from the first on and for ever; see
// stream.ControlLog. It calls apply after every good answer of the broker, which takes followWait at
// most, also when there are no records: the follower of an empty log learns that it is
// caught up, and one that hears nothing that it is cut off. Nothing
// of the records is the follower's to keep.
//
// Brokers that are away are waited for. It returns nil when ctx ends, the error of apply,
// ErrLogTruncated, ErrLogUnread, or an error that waiting cannot mend, such as a missing permission. A
// damaged batch is never passed over, since it may hold a withdrawal: Follow logs it and tries
// again, and the distance of next to end tells that the follower is behind.
func (l *ControlLog) Follow(ctx context.Context, apply func(records []control.Record, next, end int64) error) error {
	r := l.c.newReader(l.topic, 0, followWait, loadBytes, followBatch, false)
	r.compacted = true
	defer func() {
		if r.zstd != nil {
			r.zstd.Close()
		}
	}()
	var records []control.Record
	toldNext, toldEnd := int64(-1), int64(-1)
	live := false // it has been at the end of the log
	// By the wall clock: the monotonic one stands still while a machine is asleep.
	read := time.Now().Round(0)
	for ctx.Err() == nil {
		var err error
		if !r.pending() {
			if err = r.poll(ctx); err == nil && !r.told {
				continue // throttled: it has said nothing of the log
			}
		}
		if now := time.Now().Round(0); err == nil {
			if toldNext >= 0 && now.Sub(read) > l.gap {
				return fmt.Errorf("kafka: %s: %w: last read at %s", l.topic, ErrLogUnread, read.UTC().Format(time.RFC3339))
			}
			read = now
		}
		if errors.Is(err, kafkago.OffsetOutOfRange) {
			err = l.relocate(ctx, r, toldNext >= 0)
		}
		records = records[:0]
		if err == nil {
			r.recycle()
			records, err = l.read(r, records)
		}
		// A new leader may report an end that is behind what the old one has handed out.
		if end := max(r.end, r.next); r.end >= 0 && (err == nil || len(records) > 0 || r.next != toldNext || end != toldEnd) {
			began := time.Now()
			if err := apply(records, r.next, end); err != nil {
				return fmt.Errorf("kafka: apply the control log up to offset %d: %w", r.next, err)
			}
			toldNext, toldEnd = r.next, end
			took := time.Since(began)
			if r.wait = followWait; took > followWait {
				r.wait = 0 // the lists are as old as that took: reads wait to hear that they are not
			}
			switch { // a step that takes long makes the lists old meanwhile
			case !live:
			case took > followWait:
				r.ask = max(loadBytes/8, r.ask/2)
				r.now = min(r.now, r.ask)
			case took < followWait/4:
				r.ask = min(followBytes, 2*r.ask)
			}
			clear(records)
			if r.next == end {
				live = true
				if cap(records) > followKeep {
					records, r.fetch = nil, nil
				}
			}
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrLogTruncated):
			return fmt.Errorf("kafka: %s: %w", l.topic, err)
		default:
			if r.failed(ctx, err) {
				continue
			}
			if l.c.isClosed() || !transient(err) {
				return fmt.Errorf("kafka: follow the control log: %w", l.c.explain(l.topic, err))
			}
			l.c.sleep(ctx, longestPause)
		}
	}
	return nil
}

// read reads all records of an answer.
func (l *ControlLog) read(r *reader, records []control.Record) ([]control.Record, error) {
	var rec record
	for {
		at := r.next
		ok, err := r.records.read(&rec)
		if err != nil {
			r.seek(at) // whatever it is, it is not passed over
			l.c.sampled.Error("kafka: the control log is damaged, its followers fall behind",
				zap.String("topic", l.topic), zap.Int64("offset", at), zap.Error(err))
			return records, err
		}
		if !ok {
			return records, nil
		}
		records = append(records, control.Record{Offset: rec.offset, Key: rec.key, Value: rec.value})
	}
}

// relocate finds the beginning of a log that does not begin at offset 0.
func (l *ControlLog) relocate(ctx context.Context, r *reader, begun bool) error {
	first, end, err := r.bounds(ctx)
	switch {
	case err != nil:
		return err
	case r.next > end && begun:
		return ErrLogTruncated
	case r.next < first && begun:
		// Records were deleted before they were applied, perhaps withdrawals among them.
		return ErrLogTruncated
	case r.next < first || r.next > end:
		r.seek(first)
		return nil
	}
	return fmt.Errorf("fetch %s at offset %d of %d to %d: %w", l.topic, r.next, first, end, kafkago.LeaderNotAvailable)
}
