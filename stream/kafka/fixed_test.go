package kafka

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"vigie/stream"
	"vigie/stream/streamtest"
)

// ids are the partitions that a member reads now.
func (m *member) ids() (ids []int) {
	for _, p := range m.s.Stats().Partitions {
		ids = append(ids, p.ID)
	}
	return ids
}

// tallying hands batches to ty and commits them.
func tallying(ty *tally) func(context.Context, stream.Partition) error {
	return func(ctx context.Context, p stream.Partition) error { return consume(ctx, p, ty.add) }
}

// Two members share the partitions by their numbers; one that is started again goes on where
// it has committed, while the other never pauses.
func TestFixedShares(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		const partitions, n = 5, 2000
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: partitions})
		cfg := func(ordinal int) SourceConfig {
			return SourceConfig{Group: c.prefix + "g", Members: 2, Ordinal: ordinal, MaxWait: 50 * time.Millisecond}
		}
		ty := newTally()
		zero, one := start(t, c.Source(cfg(0)), tallying(ty)), start(t, c.Source(cfg(1)), tallying(ty))
		streamtest.Eventually(t, patience, "the partitions", func() bool {
			return slices.Equal(zero.ids(), []int{0, 2, 4}) && slices.Equal(one.ids(), []int{1, 3})
		})
		var wg sync.WaitGroup
		wg.Go(func() { produceSteadily(t, c, partitions, n, 2*time.Second) })
		for range 3 {
			time.Sleep(300 * time.Millisecond)
			if took := one.stop(t); took > 2*time.Second {
				t.Errorf("stopping took %v", took)
			}
			one = start(t, c.Source(cfg(1)), tallying(ty))
		}
		wg.Wait()
		streamtest.Eventually(t, patience, "all reads", func() bool { return ty.count() == n })
		zero.stop(t)
		one.stop(t)
		if again := ty.check(t, "v", n); again > 0 {
			t.Errorf("%d records came again, want none", again)
		}
		if st := zero.s.Stats(); st.Generations != 1 {
			t.Errorf("the member that was left alone has begun %d times", st.Generations)
		}
		var sum int64
		for _, o := range committed(t, c, c.prefix+"g", partitions) {
			sum += o
		}
		if sum != n {
			t.Errorf("committed offsets add up to %d, want %d", sum, n)
		}
	})
}

// A process that was stopped for long, or has an ordinal twice by mistake, must not set the
// offsets back.
func TestFixedNeverRewinds(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		put(t, c, topicReads, 0, nil, values(numbered("v", 20)...)...)
		cfg := SourceConfig{Group: c.prefix + "g", Members: 1, MaxRecords: 5}
		slow, goOn := make(chan struct{}), make(chan struct{})
		result := make(chan error, 1)
		var once sync.Once
		first := start(t, c.Source(cfg), func(ctx context.Context, p stream.Partition) error {
			once.Do(func() {
				var batch stream.Batch
				for len(batch.Records) == 0 && ctx.Err() == nil {
					if err := p.Fetch(ctx, &batch); err != nil {
						t.Error(err)
					}
				}
				close(slow)
				<-goOn
				result <- p.Commit(ctx, batch.Next)
			})
			<-ctx.Done()
			return nil
		})
		<-slow // it has 5 records in hand
		ty := newTally()
		second := start(t, c.Source(cfg), tallying(ty))
		streamtest.Eventually(t, patience, "the second to commit all", func() bool { return committed(t, c, cfg.Group, 1)[0] == 20 })
		close(goOn)
		if err := <-result; err != nil {
			t.Errorf("commit of what another has done too: %v, want nil and no effect", err)
		}
		if at := committed(t, c, cfg.Group, 1)[0]; at != 20 {
			t.Errorf("committed is %d, want 20", at)
		}
		if st := first.s.Stats(); st.Behind != 1 {
			t.Errorf("stats %+v, want 1 commit left out", st)
		}
		first.stop(t)
		second.stop(t)
		ty.check(t, "v", 20)
	})
}

// An offset beyond the end, of a topic that was cut short, is no reason not to commit.
func TestFixedBeyondTheEnd(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		put(t, c, topicReads, 0, nil, values(numbered("v", 7)...)...)
		cfg := SourceConfig{Group: c.prefix + "g", Members: 1}
		if _, err := c.client.OffsetCommit(t.Context(), &kafkago.OffsetCommitRequest{
			GroupID: cfg.Group, GenerationID: -1, Topics: map[string][]kafkago.OffsetCommit{c.topic(topicReads): {{Offset: 1000}}},
		}); err != nil {
			t.Fatal(err)
		}
		consumeN(t, c.Source(cfg), 7)
		if at := committed(t, c, cfg.Group, 1)[0]; at != 7 {
			t.Errorf("committed is %d, want 7", at)
		}
	})
}

// Partitions that are added are read, each by the member whose it is, from their beginning.
func TestFixedGrowth(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		ty := newTally()
		var ms []*member
		for ordinal := range 2 {
			ms = append(ms, start(t, c.Source(SourceConfig{Group: c.prefix + "g", Members: 2, Ordinal: ordinal}), tallying(ty)))
		}
		streamtest.Eventually(t, patience, "the first partition", func() bool { return ms[0].owns() == 1 })
		if _, err := c.client.CreatePartitions(t.Context(), &kafkago.CreatePartitionsRequest{
			Topics: []kafkago.TopicPartitionsConfig{{Name: c.topic(topicReads), Count: 4}},
		}); err != nil {
			t.Fatal(err)
		}
		streamtest.Eventually(t, patience, "the layout", func() bool { n, err := c.partitions(t.Context(), c.topic(topicReads)); return err == nil && n == 4 })
		for p, v := range numbered("v", 4) {
			put(t, c, topicReads, int32(p), nil, values(v)...)
		}
		streamtest.Eventually(t, patience, "a record of each partition", func() bool { return ty.count() == 4 })
		if !slices.Equal(ms[0].ids(), []int{0, 2}) || !slices.Equal(ms[1].ids(), []int{1, 3}) {
			t.Errorf("partitions %v and %v", ms[0].ids(), ms[1].ids())
		}
		for _, m := range ms {
			m.stop(t)
		}
		if again := ty.check(t, "v", 4); again > 0 {
			t.Errorf("%d records came again", again)
		}
	})
}

// From a group to fixed partitions and back nothing is lost and nothing comes twice. While
// the group has a member the fixed one waits and says why.
func TestFixedAndGroup(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		const partitions = 3
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: partitions})
		group := SourceConfig{Group: c.prefix + "g", MaxWait: 50 * time.Millisecond}
		fixed := group
		fixed.Members = 1
		ty, n := newTally(), 0
		more := func() {
			t.Helper()
			for range 3 {
				put(t, c, topicReads, int32(n/10%partitions), nil, values(numbered("v", n+10)[n:]...)...)
				n += 10
			}
		}
		done := func() {
			t.Helper()
			streamtest.Eventually(t, patience, "all to be committed", func() bool {
				var sum int64
				for _, o := range committed(t, c, group.Group, partitions) {
					sum += max(o, 0)
				}
				return sum == int64(n)
			})
		}
		more()
		m := start(t, c.Source(group), tallying(ty))
		done()

		waiting := start(t, c.Source(fixed), tallying(ty))
		streamtest.Eventually(t, patience, "the fixed one to be refused", func() bool { return waiting.s.Stats().GroupErrors >= partitions })
		more()
		done()
		if got := waiting.s.Stats().Records; got != 0 {
			t.Errorf("it has read %d records beside the group", got)
		}
		p := waiting.s.newPartition(&groupRun{s: waiting.s}, nil, kafkago.PartitionAssignment{Offset: -1})
		if err := p.Commit(t.Context(), 1<<20); !errors.Is(err, ErrGroupInUse) || !strings.Contains(err.Error(), "another group") {
			t.Errorf("a commit beside the group: %v, want ErrGroupInUse and what to do", err)
		}
		m.stop(t)
		more()
		done()
		waiting.stop(t)
		more()
		m = start(t, c.Source(group), tallying(ty))
		done()
		m.stop(t)
		if again := ty.check(t, "v", n); again > 0 {
			t.Errorf("%d records came again, want none", again)
		}
	})
}

// What waiting cannot mend ends Run, and the cluster's end does.
func TestFixedEnds(t *testing.T) {
	b := fake(t)
	c := open(t, b, Config{Timeout: time.Second})
	for _, cfg := range []SourceConfig{{Members: -1}, {Members: 2, Ordinal: 2}, {Members: 2, Ordinal: -1}, {Ordinal: 1}} {
		if err := c.Source(cfg).Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "SourceConfig.") {
			t.Errorf("%+v: %v, want an error that names the field", cfg, err)
		}
	}
	topics(t, c, TopicsConfig{ReadsPartitions: 2})
	idle := func(ctx context.Context, p stream.Partition) error { return consume(ctx, p, func(*stream.Batch) {}) }
	other := open(t, b, Config{Prefix: c.prefix})
	ended := make(chan error, 1)
	go func() { ended <- other.Source(SourceConfig{Members: 1}).Run(t.Context(), idle) }()
	time.Sleep(100 * time.Millisecond)
	other.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("Run ends without an error although nobody has told it to")
		}
	case <-time.After(patience):
		t.Fatal("Run does not end with the cluster")
	}
	far, way := through(t, b, Config{Prefix: c.prefix})
	s := far.Source(SourceConfig{Group: c.prefix + "g", Members: 1})
	m := start(t, s, idle)
	streamtest.Eventually(t, patience, "the partitions", func() bool { return m.owns() == 2 })
	hung.begin(way)
	time.Sleep(50 * time.Millisecond)
	if took := m.stop(t); took > 2300*time.Millisecond {
		t.Errorf("stopping took %v while no broker answers", took)
	}
}

// A read that comes alone does not wait for others, nor for the end of a fetch: with 20 seconds'
// patience for the first record it is there at once.
func TestLoneReadDoesNotWait(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		for _, members := range []int{0, 1} {
			ty := newTally()
			s := c.Source(SourceConfig{Group: c.prefix + "g", Members: members, MaxWait: 20 * time.Second})
			m := start(t, s, tallying(ty))
			put(t, c, topicReads, 0, nil, values("first")...)
			streamtest.Eventually(t, patience, "the first read", func() bool { return ty.count() > 0 })
			for i, v := range numbered("alone", 3) {
				began := time.Now()
				put(t, c, topicReads, 0, nil, values(v)...)
				streamtest.Eventually(t, patience, "a read that comes alone", func() bool { return ty.count() == i+2 })
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("a read that came alone took %v", took)
				}
			}
			m.stop(t)
		}
	})
}
