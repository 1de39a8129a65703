package app

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"vigie/cmd/vigie/internal/config"
	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/kafka"
	"vigie/stream/redisqueue"
)

// ReplayOptions say what comes again. From is required.
type ReplayOptions struct {
	From, To time.Time // by when Kafka got it; a zero To is now
	Rate     int       // reads or events a second at most; 2000 when 0
	// QueueOnly leaves the hits topic as it is.
	QueueOnly bool
	// Rebuild puts back what the hits topic holds instead of matching reads again.
	Rebuild bool
	// Progress is told every second how far it is, if not nil.
	Progress func(ReplayResult)
}

// ReplayResult is what came of a replay.
type ReplayResult struct {
	Total    int64 `json:"total"`    // records of the range
	Done     int64 `json:"done"`     // of these, gone over
	Left     int64 `json:"left"`     // reads of the range left to the live matchers, which have not come to them yet
	Reads    int64 `json:"reads"`    // matched
	Hits     int64 `json:"hits"`     // found, or on the hits topic: new, already there and unwanted
	New      int64 `json:"new"`      // alerts (with Rebuild also steps) that were missing in the queues
	There    int64 `json:"there"`    // that were in the queues already
	Unwanted int64 `json:"unwanted"` // with Rebuild: not put back, because of a withdrawal or their age
}

// knownSlack is added to the range in which hits are looked up: brokers' clocks differ.
const knownSlack = time.Minute

// Replay matches the reads of a time range again, by the lists as they are now, or rebuilds
// queues from the hits topic. It runs beside live matchers and commits nothing. On an error
// the result tells how far it came; doing it again is safe.
func Replay(ctx context.Context, cfg config.Config, log *zap.Logger, opt ReplayOptions) (res ReplayResult, err error) {
	if cfg.Embedded() {
		return res, errors.New("kafka.brokers or redis.addr is empty: an embedded service lives inside `vigie serve` and rebuilds its queues itself")
	}
	if opt.Rate == 0 {
		opt.Rate = 2000
	}
	if opt.To.IsZero() {
		opt.To = time.Now()
	}
	cluster, err := Cluster(&cfg, log)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	queues, err := Queues(&cfg, log)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, queues.Close()) }()
	reach, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := Reach(reach, cluster); err != nil {
		return res, err
	}
	if err := queues.Ping(reach); err != nil {
		return res, fmt.Errorf("%w (setting redis.addr, VIGIE_REDIS_ADDR)", err)
	}
	r := &replay{cfg: cfg, log: log, opt: opt, cluster: cluster, queues: queues, journal: cluster.Journal(), done: make(chan struct{})}
	r.replica = stream.NewReplica(func(err error) { log.Error("a control record cannot be read", zap.Error(err)) })
	g, ctx := errgroup.WithContext(ctx)
	following, stop := context.WithCancel(ctx)
	defer stop()
	g.Go(func() error { return r.replica.Follow(following, cluster.ControlLog()) })
	g.Go(func() error {
		defer stop()
		defer close(r.done)
		if err := r.replica.WaitCaughtUp(ctx); err != nil {
			return err
		}
		if opt.Rebuild {
			return r.rebuild(ctx)
		}
		return r.match(ctx, g)
	})
	g.Go(func() error { r.tell(); return nil })
	err = g.Wait()
	return r.result(), err
}

// replay is one Replay under way.
type replay struct {
	cfg     config.Config
	log     *zap.Logger
	opt     ReplayOptions
	cluster *kafka.Cluster
	queues  *redisqueue.Queues
	journal *kafka.Journal
	replica *stream.Replica
	done    chan struct{} // closed at the end

	source    atomic.Pointer[kafka.Replay]
	processor atomic.Pointer[stream.Processor]

	events, restored, there, unwanted atomic.Int64 // of a rebuild
}

// tell tells the progress each second.
func (r *replay) tell() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-r.done:
			return
		case <-tick.C:
			if r.opt.Progress != nil {
				r.opt.Progress(r.result())
			}
		}
	}
}

func (r *replay) result() (res ReplayResult) {
	if s := r.source.Load(); s != nil {
		res.Total, res.Done, res.Left = s.Total(), s.Done(), s.Left()
	}
	if p := r.processor.Load(); p != nil {
		s := p.Stats()
		res.Reads, res.New, res.There = s.Reads, s.Alerts, s.Duplicates
		res.Hits = res.New + res.There
	}
	if r.opt.Rebuild {
		res.Hits, res.New, res.There, res.Unwanted = r.events.Load(), r.restored.Load(), r.there.Load(), r.unwanted.Load()
		res.Total, res.Done = res.Hits, res.Hits
	}
	return res
}

// match runs a processor over the range.
func (r *replay) match(ctx context.Context, g *errgroup.Group) error {
	source, err := r.cluster.Replay(ctx, kafka.ReplayConfig{From: r.opt.From, To: r.opt.To, Group: r.cfg.Kafka.Group, Rate: r.opt.Rate})
	if err != nil {
		return err
	}
	r.source.Store(source)
	queues, err := stream.NewFailover(stream.FailoverConfig{
		Store: r.queues, Hits: r.journal, Replica: r.replica, Rewind: r.cfg.Redis.Rewind, Log: r.log,
	})
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	g.Go(func() error { return queues.Run(watching) })
	var journal stream.Journal = nowhere{}
	if !r.opt.QueueOnly {
		if journal, err = r.newHits(ctx); err != nil {
			return err
		}
	}
	p, err := stream.New(stream.Config{
		Source: source, Replica: r.replica, Queues: queues, Journal: journal, Dead: nowhere{},
		MaxAge: r.cfg.Matcher.MaxAge, Late: true, Log: r.log,
	})
	if err != nil {
		return err
	}
	r.processor.Store(p)
	if err := p.Run(ctx); err != nil {
		return err
	}
	return ctx.Err() // a replay that was stopped is not through
}

// nowhere takes what a replay does not repeat: dead letters, and hits with QueueOnly.
type nowhere struct{}

func (nowhere) Append(context.Context, []*alert.Event) error    { return nil }
func (nowhere) Send(context.Context, []stream.DeadLetter) error { return nil }

// newHits is the hits topic for hits that it does not have.
type newHits struct {
	stream.Journal
	seed  maphash.Seed
	known map[uint64]struct{} // events, by a hash of their alert and step
}

func (r *replay) newHits(ctx context.Context) (*newHits, error) {
	n := &newHits{Journal: r.journal, seed: maphash.MakeSeed(), known: map[uint64]struct{}{}}
	err := r.journal.ReadSince(ctx, r.opt.From.Add(-knownSlack), func(events []*alert.Event) error {
		for _, e := range events {
			n.known[n.hash(e)] = struct{}{}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (n *newHits) hash(e *alert.Event) uint64 {
	return maphash.Comparable(n.seed, struct {
		alert string
		step  uint32
	}{e.AlertID, e.Step})
}

// Append writes the hits that the topic does not have.
func (n *newHits) Append(ctx context.Context, events []*alert.Event) error {
	var unknown []*alert.Event
	for _, e := range events {
		if _, ok := n.known[n.hash(e)]; !ok {
			unknown = append(unknown, e)
		}
	}
	return n.Journal.Append(ctx, unknown)
}

// rebuild puts back what the hits topic holds of the range.
func (r *replay) rebuild(ctx context.Context) error {
	if err := stream.RaiseFences(ctx, r.queues, r.replica); err != nil {
		return err
	}
	return r.journal.ReadRange(ctx, r.opt.From, r.opt.To, func(events []*alert.Event) error {
		const batch = 256
		for len(events) > 0 {
			n := min(batch, len(events))
			began := time.Now()
			res, unwanted, err := stream.PutBackWanted(ctx, r.queues, r.replica, time.Now, events[:n], true)
			if err != nil {
				return err
			}
			r.restored.Add(res.Restored)
			r.there.Add(res.There)
			r.unwanted.Add(unwanted + res.LeftOut)
			r.events.Add(int64(n))
			events = events[n:]
			t := time.NewTimer(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(r.opt.Rate))))
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			}
		}
		return nil
	})
}
