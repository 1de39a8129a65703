package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"vigie/stream"
)

// Headers of a dead letter, after those that the record had. HeaderActor,
// HeaderReason and HeaderTime are those of a withdrawal in the control log as well.
const (
	HeaderActor     = "vigie.actor"     // who withdrew it
	HeaderReason    = "vigie.reason"    // a stream.Reason; of a withdrawal, the words of the operator
	HeaderTopic     = "vigie.topic"     // where the record is, as long as retention leaves it there
	HeaderPartition = "vigie.partition" // decimal
	HeaderOffset    = "vigie.offset"    // decimal
	HeaderTime      = "vigie.time"      // of the letter or withdrawal, RFC 3339, UTC
	HeaderSize      = "vigie.size"      // only when the value was cut: its bytes before that, decimal
)

const (
	deadValue   = 256 << 10 // of a value, the rest is cut
	deadHeaders = 32        // that the record had; more are dropped
	deadSmall   = 8 << 10   // a key or a header above is dropped
	deadLookup  = 2 * time.Second
)

// DeadLetters is the dead topic: records that are no reads, as they were, with the reason. It
// implements stream.DeadLetters.
type DeadLetters struct {
	c    *Cluster
	from string
	out  *producer
}

// DeadLetters returns the dead topic, for records of the reads topic.
func (c *Cluster) DeadLetters() *DeadLetters {
	return &DeadLetters{c: c, from: c.topic(topicReads), out: c.producer(c.topic(topicDead))}
}

// Send returns once all in-sync replicas have every letter. Key and headers of each record are
// looked up on the reads topic, within two seconds for all; when the record cannot be had any
// more the letter goes without them. A value above 256 KiB is cut and says its size. After an
// error the outcome of each letter is unknown and sending them again is safe.
func (d *DeadLetters) Send(ctx context.Context, letters []stream.DeadLetter) error {
	if len(letters) == 0 {
		return nil
	}
	originals := d.lookup(ctx, letters)
	now := time.Now().UTC().Format(time.RFC3339Nano)
	ms := make([]message, len(letters))
	for i := range letters {
		ms[i] = d.message(&letters[i], originals[i], now)
	}
	if err := d.out.keyed(ctx, ms); err != nil {
		return fmt.Errorf("kafka: send %d dead letters: %w", len(letters), err)
	}
	return nil
}

// original is a record as it was found again.
type original struct {
	key, value []byte
	headers    []kafkago.Header
}

// message is the letter with what was found of its record, nil for nothing.
func (d *DeadLetters) message(l *stream.DeadLetter, o *original, now string) message {
	m := message{value: slices.Clone(l.Value)}
	if o != nil {
		m.value = o.value
		if len(o.key) <= deadSmall {
			m.key = o.key
		}
		for _, h := range o.headers {
			if len(h.Key)+len(h.Value) <= deadSmall {
				m.headers = append(m.headers, h)
			}
		}
	}
	add := func(key, value string) {
		m.headers = append(m.headers, kafkago.Header{Key: key, Value: []byte(value)})
	}
	add(HeaderReason, string(l.Reason))
	add(HeaderTopic, d.from)
	add(HeaderPartition, strconv.Itoa(l.Partition))
	add(HeaderOffset, strconv.FormatInt(l.Offset, 10))
	add(HeaderTime, now)
	if n := len(m.value); n > deadValue {
		m.value = m.value[:deadValue]
		add(HeaderSize, strconv.Itoa(n))
	}
	return m
}

// lookup reads the records of the letters again, as far as it gets; nil stands for the others.
func (d *DeadLetters) lookup(ctx context.Context, letters []stream.DeadLetter) []*original {
	ctx, cancel := context.WithTimeout(ctx, deadLookup)
	defer cancel()
	found := make([]*original, len(letters))
	order := make([]int, len(letters))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if d := letters[a].Partition - letters[b].Partition; d != 0 {
			return d
		}
		return int(min(max(letters[a].Offset-letters[b].Offset, -1), 1))
	})
	var r *reader
	for _, i := range order {
		l := &letters[i]
		if r == nil || r.partition != l.Partition {
			r = d.c.newReader(d.from, l.Partition, time.Millisecond, 256<<10, 16<<20, true)
			defer func(r *reader) {
				if r.zstd != nil {
					r.zstd.Close()
				}
			}(r)
		}
		found[i] = d.find(ctx, r, l)
	}
	return found
}

// find reads forward to the record of a letter.
func (d *DeadLetters) find(ctx context.Context, r *reader, l *stream.DeadLetter) *original {
	if r.next > l.Offset || !r.pending() {
		r.seek(l.Offset)
	}
	for tries := 0; r.next <= l.Offset && tries < 3 && ctx.Err() == nil; {
		if !r.pending() {
			tries++
			r.seek(l.Offset)
			if err := r.poll(ctx); err != nil {
				if errors.Is(err, kafkago.OffsetOutOfRange) || !transient(err) && !errors.Is(err, errHole) {
					return nil
				}
				d.c.sleep(ctx, backoff(tries, time.Second))
				continue
			}
			r.recycle()
			if !r.pending() {
				return nil // nothing there
			}
		}
		var rec record
		ok, err := r.read(&rec)
		if err != nil {
			return nil // damaged, or it unpacks to too much
		}
		if !ok || rec.offset < l.Offset {
			continue
		}
		// A topic made anew has another record there.
		if rec.offset != l.Offset || !bytes.HasPrefix(rec.value, l.Value) {
			return nil
		}
		return &original{key: rec.key, value: rec.value, headers: parseHeaders(rec.headers, deadHeaders)}
	}
	return nil
}
