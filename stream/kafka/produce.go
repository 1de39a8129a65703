package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"
)

// writeBytes bounds a record batch that is written. Every topic takes it: it is below the
// brokers' own default for max.message.bytes, 1,048,588.
const writeBytes = 1_000_000

// message is one record to be written.
type message struct {
	key, value []byte // nil for null
	headers    []kafkago.Header
}

// size bounds the bytes of m in a batch.
func (m *message) size() int {
	n := len(m.key) + len(m.value) + 40
	for _, h := range m.headers {
		n += len(h.Key) + len(h.Value) + 10
	}
	return n
}

// take returns how many of the first messages fit into one batch, at least one.
func take(ms []message) int {
	bytes := 0
	for i := range ms {
		if bytes += ms[i].size(); bytes > writeBytes && i > 0 {
			return i
		}
	}
	return len(ms)
}

// produce writes messages as one record batch, which Kafka stores whole or not at all, and
// returns the offset of the first. It returns once all in-sync replicas have them. It tries
// again what may pass, until ctx ends or Config.Timeout is over; after such an error, and
// after a retry, the batch may be stored once more than the answer says.
func (c *Cluster) produce(ctx context.Context, topic string, partition int, ms []message) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var last error
	for n := 1; ; n++ {
		// Half of the time for one try, so that a leader that hangs can be replaced.
		try, stop := context.WithTimeout(ctx, c.timeout/2)
		res, err := c.client.Produce(try, &kafkago.ProduceRequest{
			Topic:        topic,
			Partition:    partition,
			RequiredAcks: kafkago.RequireAll,
			Records:      &messageReader{ms: ms},
		})
		stop()
		if err == nil {
			err = res.Error
		}
		if err == nil {
			return res.BaseOffset, nil
		}
		if last == nil || ctx.Err() == nil {
			last = err // what ended the waiting says less than what made it wait
		}
		if !transient(err) || !c.sleep(ctx, backoff(n, 500*time.Millisecond)) {
			return 0, fmt.Errorf("write %d records to %s/%d: %w", len(ms), topic, partition, c.explain(topic, last))
		}
	}
}

// produceAll writes messages in order, in as many batches as it takes.
func (c *Cluster) produceAll(ctx context.Context, topic string, partition int, ms []message) error {
	for len(ms) > 0 {
		n := take(ms)
		if err := c.produceSplit(ctx, topic, partition, ms[:n]); err != nil {
			return err
		}
		ms = ms[n:]
	}
	return nil
}

// produceSplit writes one batch, or two halves of it when the topic takes smaller ones only.
func (c *Cluster) produceSplit(ctx context.Context, topic string, partition int, ms []message) error {
	_, err := c.produce(ctx, topic, partition, ms)
	tooLarge := errors.Is(err, kafkago.MessageSizeTooLarge) || errors.Is(err, kafkago.RecordListTooLarge)
	if !tooLarge {
		return err
	}
	if len(ms) == 1 {
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	half := len(ms) / 2
	if err := c.produceSplit(ctx, topic, partition, ms[:half]); err != nil {
		return err
	}
	return c.produceSplit(ctx, topic, partition, ms[half:])
}

// produceKeyed writes messages to the partitions of their keys, in order within each, and
// returns once all are acknowledged.
func (c *Cluster) produceKeyed(ctx context.Context, topic string, ms []message) error {
	n, err := c.waitPartitions(ctx, topic)
	if err != nil {
		return err
	}
	if n == 1 {
		return c.produceAll(ctx, topic, 0, ms)
	}
	byPartition := make(map[int][]message)
	for _, m := range ms {
		p := partitionOf(m.key, n)
		byPartition[p] = append(byPartition[p], m)
	}
	var g errgroup.Group
	for p, ms := range byPartition {
		g.Go(func() error { return c.produceAll(ctx, topic, p, ms) })
	}
	return g.Wait()
}

// waitPartitions is the number of partitions of a topic; it waits for brokers as produce does.
func (c *Cluster) waitPartitions(ctx context.Context, topic string) (int, error) {
	n, err := c.partitions(ctx, topic)
	if err == nil {
		return n, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for try := 1; ; try++ {
		if !transient(err) || !c.sleep(ctx, backoff(try, 500*time.Millisecond)) {
			return 0, fmt.Errorf("look up %s: %w", topic, c.explain(topic, err))
		}
		again := err
		if n, err = c.partitions(ctx, topic); err == nil {
			return n, nil
		}
		if ctx.Err() != nil {
			err = again
		}
	}
}

// partitionOf is the partition of a key among n, as Java's producer has it: murmur2.
func partitionOf(key []byte, n int) int {
	return kafkago.Murmur2Balancer{Consistent: true}.Balance(kafkago.Message{Key: key}, numbers(n)...)
}

var firstNumbers = func() (ns [256]int) {
	for i := range ns {
		ns[i] = i
	}
	return ns
}()

// numbers is 0 to n-1.
func numbers(n int) []int {
	if n <= len(firstNumbers) {
		return firstNumbers[:n]
	}
	ns := make([]int, n)
	for i := range ns {
		ns[i] = i
	}
	return ns
}

// messageReader hands messages to kafka-go's encoder without allocating for each.
type messageReader struct {
	ms         []message
	record     kafkago.Record
	key, value payload
}

// ReadRecord returns the next message, io.EOF after the last.
func (r *messageReader) ReadRecord() (*kafkago.Record, error) {
	if len(r.ms) == 0 {
		return nil, io.EOF
	}
	m := &r.ms[0]
	r.ms = r.ms[1:]
	r.record = kafkago.Record{Headers: m.headers}
	if m.key != nil {
		r.key.Reset(m.key)
		r.record.Key = &r.key
	}
	if m.value != nil {
		r.value.Reset(m.value)
		r.record.Value = &r.value
	}
	return &r.record, nil
}

// payload is a key or a value for kafka-go.
type payload struct{ bytes.Reader }

func (*payload) Close() error { return nil }
