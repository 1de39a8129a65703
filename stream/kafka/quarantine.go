package kafka

import (
	"context"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"vigie/sensors"
	"vigie/stream"
)

// Quarantine writes reads of sensors that the registry has not to the dead-letter topic, keyed by
// sensor and with the reason unknown_sensor: they meet no list, and somebody can look at
// what would have come. It implements sensors.Publisher.
type Quarantine struct {
	c   *Cluster
	out *producer
}

// Quarantine returns a writer of quarantined reads. One per process is best.
func (c *Cluster) Quarantine() *Quarantine {
	return &Quarantine{c: c, out: c.producer(c.topic(topicDead))}
}

// Publish returns nil once all in-sync replicas have every read.
func (q *Quarantine) Publish(ctx context.Context, reads []sensors.Read) error {
	now := time.Now().UTC().Format(time.RFC3339Nano)
	ms := make([]message, len(reads))
	for i := range reads {
		value, err := sensors.AppendProto(nil, &reads[i])
		if err != nil {
			return fmt.Errorf("kafka: quarantine read %d of %d: %w", i+1, len(reads), err)
		}
		ms[i] = message{key: []byte(reads[i].Sensor), value: value, headers: []kafkago.Header{
			{Key: HeaderReason, Value: []byte(stream.ReasonUnknownSensor)},
			{Key: HeaderTime, Value: []byte(now)},
		}}
	}
	if err := q.out.keyed(ctx, ms); err != nil {
		return fmt.Errorf("kafka: quarantine %d reads: %w", len(reads), err)
	}
	return nil
}
