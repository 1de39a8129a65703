package stream

import (
	"context"
	"fmt"
	"time"
)

// committer commits one partition beside the work: an answer takes milliseconds, in which reads
// would wait. One commit is under way at a time; its answer is taken before the next one and
// before the partition is let go of.
type committer struct {
	p    *Processor
	part Partition

	asked     int64      // next offset of the last commit, under way or not
	committed int64      // next offset known to be committed
	at        time.Time  // when the last commit began
	answer    chan error // of the commit under way; nil when there is none
}

// begin starts to commit next, if that is due and no commit is under way.
func (c *committer) begin(ctx context.Context, next int64, now time.Time) {
	if next == c.asked || c.answer != nil || now.Sub(c.at) < c.p.cfg.CommitEvery {
		return
	}
	c.asked, c.at, c.answer = next, now, make(chan error, 1)
	go func() { c.answer <- c.commit(ctx, next) }()
}

// poll takes the answer of a commit that has ended.
func (c *committer) poll() error {
	select {
	case err := <-c.answer:
		return c.take(err)
	default: // none yet, or none asked for
		return nil
	}
}

// wait takes the answer of the commit under way, if there is one.
func (c *committer) wait() error {
	if c.answer == nil {
		return nil
	}
	return c.take(<-c.answer)
}

// last commits next unless that has been done. No commit may be under way.
func (c *committer) last(ctx context.Context, next int64) error {
	if next == c.committed {
		return nil
	}
	return c.commit(ctx, next)
}

func (c *committer) take(err error) error {
	if c.answer = nil; err == nil {
		c.committed = c.asked
	}
	return err
}

func (c *committer) commit(ctx context.Context, next int64) error {
	began := time.Now()
	if err := c.part.Commit(ctx, next); err != nil {
		return fmt.Errorf("commit partition %d at offset %d: %w", c.part.ID(), next, err)
	}
	c.p.stats.stage(stageCommit, time.Since(began))
	return nil
}
