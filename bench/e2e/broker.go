//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"vigie/bench/e2e/loop"
)

// newProducer returns a client that writes the reads topic as the sensors' own producers
// would: acknowledged by all replicas, and partitioned by key as Java does. It also asks
// the broker what the rest of this file needs.
func newProducer(addr, codec string, batchBytes int, linger time.Duration) (*kgo.Client, error) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
		"snappy": kgo.SnappyCompression(), "gzip": kgo.GzipCompression(),
	}
	c, ok := codecs[codec]
	if !ok {
		return nil, fmt.Errorf("-compression %s: say none, lz4, zstd, snappy or gzip", codec)
	}
	return kgo.NewClient(
		kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(readsTopic), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(c),
		kgo.ProducerBatchMaxBytes(int32(batchBytes)), kgo.ProducerLinger(linger), kgo.MaxBufferedRecords(200_000),
	)
}

// offsets are the ends of a topic's partitions, or with first their beginnings.
func offsets(ctx context.Context, c *kgo.Client, topic string, partitions int, first bool) ([]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for id := range partitions {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = int32(id), -1
		if first {
			p.Timestamp = -2
		}
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("offsets of %s: %w", topic, err)
	}
	out := make([]int64, partitions)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("offsets of %s/%d: %w", topic, p.Partition, err)
			}
			out[p.Partition] = p.Offset
		}
	}
	return out, nil
}

// spans are all that a topic holds now.
func spans(ctx context.Context, c *kgo.Client, topic string, partitions int) ([]loop.Span, error) {
	first, err1 := offsets(ctx, c, topic, partitions, true)
	end, err2 := offsets(ctx, c, topic, partitions, false)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	out := make([]loop.Span, partitions)
	for id := range out {
		out[id] = loop.Span{Partition: id, First: first[id], End: end[id]}
	}
	return out, nil
}

// deleteRecords empties a topic.
func deleteRecords(ctx context.Context, c *kgo.Client, topic string, partitions int) error {
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = 10_000
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic = topic
	for id := range partitions {
		p := kmsg.NewDeleteRecordsRequestTopicPartition()
		p.Partition, p.Offset = int32(id), -1 // up to the end
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, c)
	if err != nil {
		return fmt.Errorf("empty %s: %w", topic, err)
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("empty %s/%d: %w", topic, p.Partition, err)
			}
		}
	}
	return nil
}

// commitOffsets sets where a group that has no members goes on.
func commitOffsets(ctx context.Context, c *kgo.Client, group, topic string, at []int64) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = topic
	for id, offset := range at {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset = int32(id), offset
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, c)
	if err != nil {
		return fmt.Errorf("commit for %s: %w", group, err)
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("commit %s/%d for %s: %w", topic, p.Partition, group, err)
			}
		}
	}
	return nil
}
