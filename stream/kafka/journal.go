package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"vigie/stream/alert"
)

const (
	journalBytes = 1 << 20  // asked for at a time by ReadAll
	journalBatch = 16 << 20 // bounds one batch
)

// Journal is the hits topic, keyed by alert, so that the steps of one alert stay in order. It
// implements stream.Journal.
type Journal struct {
	c       *Cluster
	topic   string
	out     *producer
	skipped atomic.Int64
}

// Journal returns the hits topic.
func (c *Cluster) Journal() *Journal {
	topic := c.topic(topicHits)
	return &Journal{c: c, topic: topic, out: c.producer(topic)}
}

// Append returns once all in-sync replicas have every event. It writes none when one of them
// cannot be encoded. After another error the outcome of each is unknown and appending them
// again is safe: an event is the same by its alert and step.
func (j *Journal) Append(ctx context.Context, events []*alert.Event) error {
	if len(events) == 0 {
		return nil
	}
	ms := make([]message, len(events))
	for i, e := range events {
		value, err := alert.MarshalEvent(e)
		if err != nil {
			return fmt.Errorf("kafka: append event %d of %d: %w", i+1, len(events), err)
		}
		ms[i] = message{key: []byte(e.AlertID), value: value}
		if n := ms[i].size(); n > writeBytes {
			return fmt.Errorf("kafka: append event %d of %d: %w: %d bytes of %d", i+1, len(events), ErrTooLarge, n, writeBytes)
		}
	}
	if err := j.out.keyed(ctx, ms); err != nil {
		return fmt.Errorf("kafka: append %d events: %w", len(events), err)
	}
	return nil
}

// Skipped is the number of records that ReadAll passed over because they are no events.
func (j *Journal) Skipped() int64 { return j.skipped.Load() }

// ReadAll hands every event to apply that the topic holds when ReadAll begins, partition by
// partition, in the order of each alert. It is for building the queues anew. A record that is
// no event is counted, logged by its offset and passed over. It stops at the first error of
// apply, and fails when brokers are away for longer than Config.Timeout or ctx ends.
func (j *Journal) ReadAll(ctx context.Context, apply func([]*alert.Event) error) error {
	return j.ReadRange(ctx, time.Time{}, time.Time{}, apply)
}

// ReadSince is ReadAll for what the topic has had since a time. It implements stream.HitsReader.
func (j *Journal) ReadSince(ctx context.Context, since time.Time, apply func([]*alert.Event) error) error {
	return j.ReadRange(ctx, since, time.Time{}, apply)
}

// ReadRange is ReadAll for what the topic got from one time until before another, by the
// broker's clock. The zero time stands for the beginning and the end of the topic.
func (j *Journal) ReadRange(ctx context.Context, from, to time.Time, apply func([]*alert.Event) error) error {
	n, err := j.c.waitPartitions(ctx, j.topic)
	if err != nil {
		return fmt.Errorf("kafka: read the hits: %w", err)
	}
	spans := make([]span, n)
	for p := range spans {
		// All ends before the first event is read: what comes later is not ours to wait for.
		r := j.reader(p)
		for {
			s, err := j.c.spanOf(ctx, j.topic, p, from, to)
			if err == nil {
				spans[p] = s
				break
			}
			if !r.failed(ctx, err) || ctx.Err() != nil {
				return fmt.Errorf("kafka: read the hits: %w", j.c.explain(j.topic, err))
			}
		}
	}
	for p, s := range spans {
		if err := j.readPartition(ctx, p, s.first, s.end, apply); err != nil {
			return fmt.Errorf("kafka: read the hits: %w", err)
		}
	}
	return nil
}

func (j *Journal) reader(partition int) *reader {
	return j.c.newReader(j.topic, partition, 250*time.Millisecond, journalBytes, journalBatch, false)
}

// readPartition reads a partition from first until before end.
func (j *Journal) readPartition(ctx context.Context, partition int, first, end int64, apply func([]*alert.Event) error) error {
	r := j.reader(partition)
	defer func() {
		if r.zstd != nil {
			r.zstd.Close()
		}
	}()
	r.seek(first)
	for r.next < end {
		r.recycle()
		var err error
		if !r.pending() {
			if err = r.poll(ctx); errors.Is(err, kafkago.OffsetOutOfRange) {
				if first, _, err = r.bounds(ctx); err == nil {
					if first <= r.next {
						return nil // cut short or made anew: there is no more of what was to be read
					}
					r.seek(first) // retention was faster
				}
			}
		}
		events := []*alert.Event(nil) // apply may keep it
		for err == nil && r.next < end {
			var rec record
			ok, bad := r.read(&rec)
			if bad != nil {
				if err = j.passBad(r, bad); err != nil {
					break
				}
				continue
			}
			if !ok {
				break
			}
			e, bad := alert.UnmarshalEvent(rec.value)
			if bad != nil {
				j.skipped.Add(1)
				j.c.sampled.Warn("kafka: a record of the hits topic is no event, it is passed over", zap.String("topic", j.topic),
					zap.Int("partition", partition), zap.Int64("offset", rec.offset), zap.Error(bad))
				continue
			}
			events = append(events, e)
		}
		if len(events) > 0 {
			if err := apply(events); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case !r.failed(ctx, err):
			return j.c.explain(j.topic, err)
		}
	}
	return nil
}

// passBad goes on behind a batch that cannot be read. One whose extent is unknown is read
// again first, and then passed offset by offset.
func (j *Journal) passBad(r *reader, err error) error {
	var bad *badBatch
	errors.As(err, &bad)
	if !bad.passed {
		if r.failures+1 < damageTries {
			return err // counted by failed
		}
		r.seek(r.next + 1)
	}
	j.skipped.Add(int64(max(bad.count, 1)))
	j.c.sampled.Error("kafka: a batch of the hits topic cannot be read, it is passed over", zap.String("topic", j.topic),
		zap.Int("partition", r.partition), zap.Int("records", bad.count), zap.Error(err))
	return nil
}
