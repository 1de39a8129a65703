package kafka

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"vigie/stream"
)

// TestCommitted watches a group from outside: -1 before it has committed anything,
// then what it committed.
func TestCommitted(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 3})
		group := c.prefix + "g"
		until := func(want ...int64) {
			t.Helper()
			deadline := time.Now().Add(patience)
			for {
				got, err := c.Committed(t.Context(), group)
				if err == nil && slices.Equal(got, want) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("committed %v, %v; want %v", got, err, want)
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
		until(-1, -1, -1)
		put(t, c, topicReads, 1, nil, &kgo.Record{Value: []byte("a")}, &kgo.Record{Value: []byte("b")})
		start(t, c.Source(SourceConfig{Group: group}), func(ctx context.Context, p stream.Partition) error {
			var batch stream.Batch
			for ctx.Err() == nil {
				if err := p.Fetch(ctx, &batch); err != nil {
					return err
				}
				if len(batch.Records) > 0 {
					if err := p.Commit(ctx, batch.Next); err != nil {
						return err
					}
				}
			}
			return nil
		})
		until(-1, 2, -1)
	})
}

func TestCommittedWithoutTopic(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		if got, err := c.Committed(t.Context(), "g"); err == nil {
			t.Errorf("without a topic: %v", got)
		}
	})
}
