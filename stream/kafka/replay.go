package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"vigie/stream"
)

// ReplayConfig says which reads come again, and how fast. From is required.
type ReplayConfig struct {
	// From and To bound the reads by when Kafka got them: from From until before To. A zero
	// To is now.
	From, To time.Time
	// Group is the consumer group of the live matchers. What it has not committed is its own
	// to do and is left to it: an alert of a replay is late, and would silence the live one.
	// Default DefaultGroup.
	Group string
	// Rate is how many reads come in a second at most, all partitions together. Default 2000.
	Rate int
	// YieldLag is how many reads the live matchers may be behind before the replay steps back
	// to a batch a second. Default 20,000.
	YieldLag int64
}

// Replay is a time range of the reads topic, once more. It implements stream.Source outside of
// any consumer group: nothing is committed. Run returns when all of it has been consumed.
type Replay struct {
	c     *Cluster
	cfg   ReplayConfig
	s     *Source
	spans []span
	left  int64
	pace  pace
	lag   atomic.Int64
	done  atomic.Int64
}

// Replay looks up the range.
func (c *Cluster) Replay(ctx context.Context, cfg ReplayConfig) (*Replay, error) {
	def(&cfg.Group, DefaultGroup)
	def(&cfg.Rate, 2000)
	def(&cfg.YieldLag, 20_000)
	switch {
	case cfg.From.IsZero():
		return nil, errors.New("kafka: ReplayConfig.From is required")
	case !cfg.To.IsZero() && !cfg.From.Before(cfg.To):
		return nil, errors.New("kafka: ReplayConfig.From must be before To")
	case cfg.Rate < 1:
		return nil, fmt.Errorf("kafka: ReplayConfig.Rate %d: must be at least 1", cfg.Rate)
	}
	r := &Replay{c: c, cfg: cfg, pace: pace{each: time.Second / time.Duration(cfg.Rate)}}
	batch := min(max(cfg.Rate/10, 1), 512)
	r.s = c.Source(SourceConfig{MaxRecords: batch, MaxBytes: 256 << 10})
	n, err := c.waitPartitions(ctx, r.s.topic)
	if err != nil {
		return nil, fmt.Errorf("kafka: replay: %w", err)
	}
	committed, err := r.committed(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("kafka: replay: %w", err)
	}
	for p := range n {
		s, err := c.spanOf(ctx, r.s.topic, p, cfg.From, cfg.To)
		if err != nil {
			return nil, fmt.Errorf("kafka: replay: %w", c.explain(r.s.topic, err))
		}
		if end := max(s.first, min(s.end, committed[p])); end < s.end {
			r.left += s.end - end
			s.end = end
		}
		r.spans = append(r.spans, s)
	}
	return r, nil
}

// Total is how many offsets the replay goes over.
func (r *Replay) Total() (n int64) {
	for _, s := range r.spans {
		n += s.end - s.first
	}
	return n
}

// Left is how many offsets of the range are left to the live matchers, which have not
// committed them yet.
func (r *Replay) Left() int64 { return r.left }

// Done is how many offsets have been handed on so far.
func (r *Replay) Done() int64 { return r.done.Load() }

// committed is what the live group has committed of each of n partitions, 0 where it has nothing.
func (r *Replay) committed(ctx context.Context, n int) ([]int64, error) {
	for try := 1; ; try++ {
		got, err := r.c.Committed(ctx, r.cfg.Group)
		if err == nil {
			out := make([]int64, n)
			for p := range min(n, len(got)) {
				out[p] = max(got[p], 0)
			}
			return out, nil
		}
		if !transient(err) || try >= 10 || !r.c.sleep(ctx, backoff(try, time.Second)) {
			return nil, err
		}
	}
}

// Run hands the range to consume, partition beside partition, and returns once it is through,
// or ctx ends, or a consume fails.
func (r *Replay) Run(ctx context.Context, consume func(context.Context, stream.Partition) error) error {
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { r.watch(watching) })
	defer func() { stop(); watch.Wait() }()
	g, ctx := errgroup.WithContext(ctx)
	for id, s := range r.spans {
		if s.first == s.end {
			continue
		}
		g.Go(func() error {
			ctx, through := context.WithCancel(ctx)
			defer through()
			p := &replayPartition{
				partition: r.s.newPartition(nil, nil, kafkago.PartitionAssignment{ID: id, Offset: s.first}),
				r:         r, end: s.end, through: through,
			}
			defer func() {
				if p.zstd != nil {
					p.zstd.Close()
				}
			}()
			p.seek(s.first)
			return consume(ctx, p)
		})
	}
	return g.Wait()
}

// watch keeps an eye on how far behind the live matchers are.
func (r *Replay) watch(ctx context.Context) {
	behind := false
	for r.c.sleep(ctx, time.Second) {
		committed, err := r.committed(ctx, len(r.spans))
		if err != nil {
			continue
		}
		var lag int64
		for p, next := range committed {
			first, end, err := r.c.bounds(ctx, r.s.topic, p)
			if err == nil {
				lag += end - max(next, first)
			}
		}
		r.lag.Store(lag)
		if now := lag > r.cfg.YieldLag; now != behind {
			if behind = now; now {
				r.c.log.Warn("kafka: the live matchers are behind, the replay steps back", zap.Int64("reads", lag))
			} else {
				r.c.log.Info("kafka: the live matchers have caught up, the replay goes on")
			}
		}
	}
}

// replayPartition is one partition of a Replay.
type replayPartition struct {
	*partition
	r       *Replay
	end     int64
	through context.CancelFunc // ends the consume
}

// Fetch implements stream.Partition, at the pace of the replay. At the end of the range it ends
// the consume.
func (p *replayPartition) Fetch(ctx context.Context, b *stream.Batch) error {
	b.Records, b.Skipped = b.Records[:0], 0
	if p.next >= p.end {
		p.through()
		return context.Canceled
	}
	if p.r.lag.Load() > p.r.cfg.YieldLag {
		p.c.sleep(ctx, time.Second)
	}
	if !p.r.pace.wait(ctx, p.c) {
		return context.Canceled
	}
	from := p.next
	if err := p.partition.Fetch(ctx, b); err != nil {
		return err
	}
	if b.Next < from {
		return fmt.Errorf("kafka: %s/%d: %w", p.topic, p.id, ErrRewound)
	}
	for n := len(b.Records); n > 0 && b.Records[n-1].Offset >= p.end; n-- {
		b.Records = b.Records[:n-1]
	}
	b.Next = min(b.Next, p.end)
	b.HighWater = p.end
	p.r.done.Add(b.Next - from)
	p.r.pace.took(len(b.Records))
	return nil
}

// Commit does nothing: a replay leaves the offsets of the group alone.
func (p *replayPartition) Commit(context.Context, int64) error { return nil }

// pace spreads reads over time.
type pace struct {
	each time.Duration

	mu   sync.Mutex
	next time.Time // when the next batch may begin
}

// wait returns when the next batch may begin, false when ctx ends first.
func (p *pace) wait(ctx context.Context, c *Cluster) bool {
	for {
		p.mu.Lock()
		rest := time.Until(p.next)
		p.mu.Unlock()
		if rest <= 0 {
			return ctx.Err() == nil
		}
		if !c.sleep(ctx, rest) {
			return false
		}
	}
}

// took counts what a batch took.
func (p *pace) took(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(n) * p.each)
}
