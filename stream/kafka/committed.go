package kafka

import (
	"context"
	"errors"
	"fmt"

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
	committed := make([]int64, n)
	for i := range ids {
		ids[i], committed[i] = i, -1
	}
	res, err := c.client.OffsetFetch(ctx, &kafkago.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: ids}})
	if err == nil {
		err = res.Error
	}
	if errors.Is(err, kafkago.GroupIdNotFound) {
		return committed, nil // some brokers say so of a group that has committed nothing
	}
	if err != nil {
		return nil, fmt.Errorf("kafka: committed offsets of group %s: %w", group, c.explain(topic, err))
	}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("kafka: committed offset of group %s, partition %d: %w", group, p.Partition, c.explain(topic, p.Error))
		}
		if p.Partition >= 0 && p.Partition < n {
			committed[p.Partition] = max(-1, p.CommittedOffset)
		}
	}
	return committed, nil
}
