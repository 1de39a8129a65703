package stream_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"vigie/stream"
	"vigie/watchlist"
)

// slowCommits lets each commit wait until it is released, and notes them.
type slowCommits struct {
	stream.Source
	entered, release chan struct{}
	committing       *atomic.Int32
	offsets          *[]int64
}

func (s slowCommits) Run(ctx context.Context, consume func(context.Context, stream.Partition) error) error {
	return s.Source.Run(ctx, func(ctx context.Context, p stream.Partition) error {
		return consume(ctx, slowCommit{p, s})
	})
}

type slowCommit struct {
	stream.Partition
	s slowCommits
}

func (p slowCommit) Commit(ctx context.Context, next int64) error {
	if p.ID() != 0 {
		return p.Partition.Commit(ctx, next)
	}
	if p.s.committing.Add(1) > 1 {
		return fmt.Errorf("two commits at once")
	}
	defer p.s.committing.Add(-1)
	*p.s.offsets = append(*p.s.offsets, next)
	p.s.entered <- struct{}{}
	select {
	case <-p.s.release:
	case <-ctx.Done():
		return ctx.Err()
	}
	return p.Partition.Commit(ctx, next)
}

// Reads do not wait for a commit: what comes while one is under way alerts at once. The
// commits follow each other, and the last one, when the process is told to stop, waits for
// the one under way and covers everything.
func TestReadsDoNotWaitForCommits(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	s := slowCommits{entered: make(chan struct{}, 10), release: make(chan struct{}), committing: new(atomic.Int32), offsets: new([]int64)}
	_, stop := h.process(func(c *stream.Config) {
		s.Source = c.Source
		c.Source = s
	})
	h.produce(0, read("r0", "AB-123-CD"))
	<-s.entered
	for i := range 5 {
		h.produce(0, read(fmt.Sprint("r", i+1), "AB-123-CD"))
		until(t, "the read has alerted although a commit is under way", func() bool {
			return len(h.queues.In(watchlist.DefaultQueue)) == i+2
		})
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	s.release <- struct{}{}
	<-s.entered
	s.release <- struct{}{}
	<-stopped
	h.committed(6, 0)
	if want := []int64{1, 6}; !slices.Equal(*s.offsets, want) {
		t.Errorf("committed %v, want %v", *s.offsets, want)
	}
}
