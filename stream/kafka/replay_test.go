package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"vigie/stream"
	"vigie/stream/streamtest"
)

// TestReplay: the reads between two times come again, each once, in the order of their
// partition; what the live group has not committed does not; the group's offsets stay; and
// the rate holds.
func TestReplay(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		const each = 60 // in a round and partition
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 3})
		group := c.prefix + "live"
		var marks []time.Time
		round := func(n, partitions int) {
			marks = append(marks, time.Now())
			time.Sleep(10 * time.Millisecond)
			for p := range partitions {
				put(t, c, topicReads, int32(p), nil, values(numbered(fmt.Sprintf("round%d-p%d", n, p), each)...)...)
			}
			time.Sleep(10 * time.Millisecond)
		}
		round(0, 3)
		round(1, 3)
		live := c.Source(SourceConfig{Group: group})
		consumeN(t, live, 6*each)
		round(2, 2) // not committed by the live group
		marks = append(marks, time.Now())
		before, err := (&Replay{c: c, s: live, cfg: ReplayConfig{Group: group}}).committed(t.Context(), 3)
		if err != nil {
			t.Fatal(err)
		}

		replay := func(ctx context.Context, cfg ReplayConfig) (*Replay, map[int][]string, error) {
			t.Helper()
			cfg.Group = group
			r, err := c.Replay(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			got := map[int][]string{}
			err = r.Run(ctx, func(ctx context.Context, p stream.Partition) error {
				var b stream.Batch
				for ctx.Err() == nil {
					if err := p.Fetch(ctx, &b); err != nil {
						if ctx.Err() != nil {
							break
						}
						return err
					}
					mu.Lock()
					for _, rec := range b.Records {
						got[p.ID()] = append(got[p.ID()], string(rec.Value))
					}
					mu.Unlock()
					if err := p.Commit(ctx, b.Next); err != nil {
						return err
					}
				}
				return nil
			})
			return r, got, err
		}
		for _, tc := range []struct {
			name     string
			from, to time.Time
			rounds   []int
			left     int64
		}{
			{"one round", marks[1], marks[2], []int{1}, 0},
			{"to the end", marks[1], time.Time{}, []int{1}, 2 * each},
			{"all", marks[0].Add(-time.Hour), marks[3].Add(time.Hour), []int{0, 1}, 2 * each},
			{"what is not the replay's", marks[2], marks[3], nil, 2 * each},
			{"nothing", marks[3], time.Time{}, nil, 0},
		} {
			r, got, err := replay(t.Context(), ReplayConfig{From: tc.from, To: tc.to, Rate: 100_000})
			if err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			for p := range 3 {
				var want []string
				for _, n := range tc.rounds {
					want = append(want, numbered(fmt.Sprintf("round%d-p%d", n, p), each)...)
				}
				if strings.Join(got[p], " ") != strings.Join(want, " ") {
					t.Errorf("%s: partition %d gave %d reads, want %d: %.200q", tc.name, p, len(got[p]), len(want), got[p])
				}
			}
			if total := int64(3 * each * len(tc.rounds)); r.Left() != tc.left || r.Total() != total || r.Done() != total {
				t.Errorf("%s: left %d, total %d, done %d; want %d, %d", tc.name, r.Left(), r.Total(), r.Done(), tc.left, total)
			}
		}

		began := time.Now()
		if _, got, err := replay(t.Context(), ReplayConfig{From: marks[0], To: marks[2], Rate: 6 * each}); err != nil || len(got[0]) != 2*each {
			t.Errorf("at a rate: %d reads of partition 0, %v", len(got[0]), err)
		}
		if took := time.Since(began); took < 700*time.Millisecond || took > 10*time.Second {
			t.Errorf("%d reads at %d a second took %v", 6*each, 6*each, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if r, _, err := replay(ctx, ReplayConfig{From: marks[0], To: marks[2], Rate: 20}); err != nil && !errors.Is(err, context.Canceled) || r.Done() > 5*each {
			t.Errorf("told to stop: %v, %d done", err, r.Done())
		}
		after, err := (&Replay{c: c, s: live, cfg: ReplayConfig{Group: group}}).committed(t.Context(), 3)
		if err != nil || fmt.Sprint(before) != fmt.Sprint(after) || fmt.Sprint(before) != fmt.Sprint([]int64{2 * each, 2 * each, 2 * each}) {
			t.Errorf("the group stood at %v and stands at %v, %v", before, after, err)
		}
	})
}

// TestReplayYields: while the live matchers are behind, the replay gives a batch a second.
func TestReplayYields(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		put(t, c, topicReads, 0, nil, values(numbered("v", 100)...)...)
		group := c.prefix + "live"
		consumeN(t, c.Source(SourceConfig{Group: group}), 100)
		from := time.Now().Add(-time.Hour)
		r, err := c.Replay(t.Context(), ReplayConfig{From: from, Group: group, Rate: 100, YieldLag: 10})
		if err != nil {
			t.Fatal(err)
		}
		put(t, c, topicReads, 0, nil, values(numbered("more", 50)...)...) // the live group does not run
		ctx, cancel := context.WithCancel(t.Context())
		watching := make(chan struct{})
		go func() { defer close(watching); r.watch(ctx) }()
		streamtest.Eventually(t, patience, "the lag to be seen", func() bool { return r.lag.Load() == 50 })
		p := &replayPartition{partition: r.s.newPartition(nil, nil, kafkago.PartitionAssignment{}), r: r, end: 100, through: func() {}}
		p.seek(0)
		began := time.Now()
		var batch stream.Batch
		for n := 0; n == 0; n = len(batch.Records) {
			if err := p.Fetch(ctx, &batch); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 900*time.Millisecond {
			t.Errorf("a batch took %v while the live matchers were behind", took)
		}
		consumeN(t, c.Source(SourceConfig{Group: group}), 50)
		streamtest.Eventually(t, patience, "the lag to be gone", func() bool { return r.lag.Load() == 0 })
		cancel()
		<-watching
	})
}
