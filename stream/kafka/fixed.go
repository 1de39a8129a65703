package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"vigie/stream"
)

// ErrGroupInUse says that the consumer group has members, so that Kafka takes no offsets from
// anybody else: matchers with group and with fixed assignment run at the same time.
var ErrGroupInUse = errors.New("the consumer group has members: stop the matchers whose assignment is by group, " +
	"or give these another group; a member that has died leaves it after the session timeout")

// growthCheck is how often a Source with fixed partitions looks whether the topic has more.
const growthCheck = 2 * time.Second

// runFixed is Run for partitions that the configuration fixes. There is no heartbeat and no
// rebalance: nobody else takes the partitions of a process that is gone, and nothing stops the
// others while it comes back.
func (s *Source) runFixed(ctx context.Context, consume func(context.Context, stream.Partition) error) error {
	fixed, stop := context.WithCancelCause(ctx)
	run := &groupRun{s: s, consume: consume, fail: stop}
	defer run.consumes.Wait()
	defer stop(nil)
	for known := 0; ; {
		n, err := s.c.partitions(fixed, s.topic)
		if err == nil { // else what is known goes on, and says what is wrong
			if known == 0 && s.cfg.Members > n {
				s.c.log.Warn("kafka: there are more matchers than partitions, those with the highest ordinals have nothing to do: add partitions or take matchers away",
					zap.Int("members", s.cfg.Members), zap.Int("partitions", n))
			}
			run.take(fixed, known, n)
			known = max(known, n)
		}
		if s.c.sleep(fixed, growthCheck) {
			continue
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case fixed.Err() != nil:
			return fmt.Errorf("kafka: %w", s.c.explain(s.topic, context.Cause(fixed)))
		}
		return errors.New("kafka: the cluster is closed")
	}
}

// take starts those of the partitions known to n-1 that are this member's.
func (run *groupRun) take(ctx context.Context, known, n int) {
	s := run.s
	var ids []int
	for id := known; id < n; id++ {
		if id%s.cfg.Members != s.cfg.Ordinal {
			continue
		}
		ids = append(ids, id)
		p := s.newPartition(run, nil, kafkago.PartitionAssignment{ID: id, Offset: -1})
		run.consumes.Go(func() { p.run(ctx, ctx) })
	}
	if len(ids) > 0 {
		s.stats.generations.Add(1)
		s.c.log.Info("kafka: partitions taken by fixed assignment", zap.String("group", s.cfg.Group),
			zap.Int("ordinal", s.cfg.Ordinal), zap.Int("members", s.cfg.Members), zap.Ints("partitions", ids))
	}
}

// resume finds out where a consume begins: where the group's offset stands, which may have
// moved since the last one. It waits while the group has members, since they read the same
// records and what is done here could not be committed. It reports false when there is nothing
// to begin: ctx has ended, or Run does because waiting cannot mend it.
func (p *partition) resume(ctx context.Context) bool {
	for n := 1; ; n++ {
		at, err := p.fetchCommitted(ctx)
		if err == nil && at >= 0 {
			err = p.sendCommit(ctx, at) // changes nothing, and tells whether commits are taken
		}
		switch {
		case ctx.Err() != nil:
			return false
		case err == nil:
			p.start = at
			p.atCommitted.Store(at)
			return true
		}
		p.s.stats.groupErrors.Add(1)
		if !transient(err) && !errors.Is(err, ErrGroupInUse) {
			p.group.fail(fmt.Errorf("consumer group %s, partition %d: %w", p.s.cfg.Group, p.id, err))
			return false
		}
		p.c.sampled.Error("kafka: this partition is not read yet, trying again", zap.String("group", p.s.cfg.Group),
			zap.Int("partition", p.id), zap.Error(p.c.explain(p.topic, err)))
		if !p.c.sleep(ctx, backoff(n, 2*time.Second)) {
			return false
		}
	}
}

// commitFixed commits next, unless the group's offset is ahead: then another process, by mistake
// or because this one was stopped for long, has done the same records and more, and must
// not do them again. Kafka cannot compare and set, so this leaves the moment between two
// requests, in which the other can only lose what its next commit puts right.
func (p *partition) commitFixed(ctx context.Context, next int64) error {
	at, err := p.fetchCommitted(ctx)
	if err != nil {
		return err
	}
	if at > next {
		_, end, err := p.bounds(ctx)
		if err != nil {
			return err
		}
		// An offset beyond the end is of a topic that was made anew or cut short.
		if at <= end {
			p.s.stats.behind.Add(1)
			p.c.sampled.Error("kafka: another process reads this partition too, its offset is ahead and stays: give each matcher an ordinal of its own",
				zap.String("group", p.s.cfg.Group), zap.Int("partition", p.id), zap.Int("ordinal", p.s.cfg.Ordinal),
				zap.Int64("offset", next), zap.Int64("committed", at))
			return nil
		}
	}
	return p.sendCommit(ctx, next)
}

// fetchCommitted is the group's offset of the partition, -1 for none.
func (p *partition) fetchCommitted(ctx context.Context) (int64, error) {
	at, err := p.c.committed(ctx, p.s.cfg.Group, p.topic, p.id)
	if err != nil {
		return 0, err
	}
	return at[0], nil
}

// sendCommit commits without being a member.
func (p *partition) sendCommit(ctx context.Context, next int64) error {
	res, err := p.c.client.OffsetCommit(ctx, &kafkago.OffsetCommitRequest{
		GroupID: p.s.cfg.Group, GenerationID: -1,
		Topics: map[string][]kafkago.OffsetCommit{p.topic: {{Partition: p.id, Offset: next}}},
	})
	if err != nil {
		return err
	}
	for _, o := range res.Topics[p.topic] {
		if o.Partition != p.id {
			continue
		}
		if memberLost(o.Error) || errors.Is(o.Error, kafkago.RebalanceInProgress) {
			return fmt.Errorf("%w: %w", ErrGroupInUse, o.Error)
		}
		return o.Error
	}
	return fmt.Errorf("commit: %w", kafkago.LeaderNotAvailable) // an answer about nothing
}
