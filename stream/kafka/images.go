package kafka

import (
	"context"
	"fmt"

	"vigie/sensors"
)

// imagesAtOnce bounds the requests under way, each of which has a connection to itself.
const imagesAtOnce = 16

// MaxImageBytes is the largest picture that Images takes. It fits into a batch of the size that
// brokers take unless told otherwise.
const MaxImageBytes = writeBytes - 4096

// Images writes pictures to the images topic, whose records are kept as long as the reads that
// point to them.
type Images struct {
	c     *Cluster
	topic string
	out   *producer
	slots chan struct{} // has one element for each request under way
}

// Images returns a writer of the images topic. One per process is best.
func (c *Cluster) Images() *Images {
	topic := c.topic(topicImages)
	return &Images{c: c, topic: topic, out: c.producer(topic), slots: make(chan struct{}, imagesAtOnce)}
}

// Put writes a picture, a JPEG of package picture, under the id of its read and returns where it
// is once all in-sync replicas have it. Jpeg must not be changed afterwards. It waits for brokers
// and for its turn until ctx ends, Config.Timeout at most: give it a short time, since the read
// waits too and is worth more than its picture. After an error the picture may be there, with
// nothing that points to it. ErrTooLarge is for one above MaxImageBytes, or what the topic takes.
func (i *Images) Put(ctx context.Context, read string, jpeg []byte) (sensors.Image, error) {
	at, err := i.put(ctx, read, jpeg)
	if err != nil {
		return at, fmt.Errorf("kafka: put a picture of %d bytes: %w", len(jpeg), err)
	}
	return at, nil
}

func (i *Images) put(ctx context.Context, read string, jpeg []byte) (at sensors.Image, err error) {
	if len(jpeg) > MaxImageBytes {
		return at, ErrTooLarge
	}
	select {
	case i.slots <- struct{}{}:
		defer func() { <-i.slots }()
	case <-ctx.Done():
		return at, ctx.Err()
	}
	n, err := i.c.waitPartitions(ctx, i.topic)
	if err != nil {
		return at, err
	}
	key := []byte(read)
	partition := partitionOf(key, n)
	offset, _, err := i.out.produce(ctx, partition, []message{{key: key, value: jpeg}})
	if err != nil {
		return at, err
	}
	return sensors.Image{Partition: int32(partition), Offset: offset}, nil
}
