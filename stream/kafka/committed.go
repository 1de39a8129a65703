package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"

	kafkago "github.com/segmentio/kafka-go"
)

// Committed returns the offsets that a consumer group has committed of the reads topic, by
// partition: the offset to be read next, -1 where nothing was ever committed. It is for
// whoever watches a group without being in it, and asks once.
func (c *Cluster) Committed(ctx context.Context, group string) ([]int64, error) {
	topic := c.topic(topicReads)
	n, err := c.partitions(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("kafka: committed offsets: %w", c.explain(topic, err))
	}
	ids := make([]int, n)
	for i := range ids {
		ids[i] = i
	}
	committed, err := c.committed(ctx, group, topic, ids...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", c.explain(topic, err))
	}
	return committed, nil
}

// committed asks for the offsets that a group has committed of some partitions, in their order;
// -1 for none.
func (c *Cluster) committed(ctx context.Context, group, topic string, ids ...int) ([]int64, error) {
	res, err := c.client.OffsetFetch(ctx, &kafkago.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: ids}})
	if err == nil {
		err = res.Error
	}
	committed := slices.Repeat([]int64{-1}, len(ids))
	if errors.Is(err, kafkago.GroupIdNotFound) {
		return committed, nil // some brokers say so of a group that has committed nothing
	}
	if err != nil {
		return nil, fmt.Errorf("committed offsets of group %s: %w", group, err)
	}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("committed offset of group %s, partition %d: %w", group, p.Partition, p.Error)
		}
		if i := slices.Index(ids, p.Partition); i >= 0 {
			committed[i] = max(-1, p.CommittedOffset)
		}
	}
	return committed, nil
}
