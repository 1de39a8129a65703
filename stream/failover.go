package stream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"vigie/stream/alert"
	"vigie/watchlist/control"
)

// QueueStore is what a Failover needs of the queues beside their use.
type QueueStore interface {
	Queues
	Fencer
	// Server says who answers now, and what was last marked there. A server that
	// cannot keep alerts at present (a replica, one that still loads) is an error.
	Server(ctx context.Context) (QueueServer, error)
	// Mark records that alerts are made good up to this server at this time.
	Mark(ctx context.Context, server string, at time.Time) error
	// PutBack puts back events of the hits topic where they are missing; repeats
	// change nothing. Events of one alert must come in order.
	PutBack(ctx context.Context, events []*alert.Event, opt PutBackOptions) (PutBackResult, error)
	// Connects counts the connections made so far: one more may lead to another server.
	Connects() int64
}

// QueueServer is who keeps the queues.
type QueueServer struct {
	// ID is another one after every restart and every fail-over.
	ID string
	// Marked is what was last given to Mark and MarkedAt when; empty on a server that
	// holds nothing of this installation. Both are as old as the data that the server
	// has: what was acknowledged well before MarkedAt is there.
	Marked   string
	MarkedAt time.Time
}

// PutBackOptions say how events are put back.
type PutBackOptions struct {
	// Version is the version of the lists at which the alerts were found to be still
	// wanted: a queue whose fence is above it takes none.
	Version int64
	// KeepTime gives messages ids near the time of their event, for queues that are
	// empty; otherwise they come after all that is there, so that nobody who listens
	// has passed them already.
	KeepTime bool
}

// PutBackResult is what became of events that were put back.
type PutBackResult struct {
	Restored int64 // missing before, there now
	There    int64 // there before
	LeftOut  int64 // past their retention, of an alert that is not there, or unusable
	Fence    int64 // the highest fence that refused an alert; -1 when none did
}

// HitsReader reads the hits topic back.
type HitsReader interface {
	// ReadSince hands every event to apply that the topic has had since a time and
	// holds when ReadSince begins, in the order of each alert.
	ReadSince(ctx context.Context, since time.Time, apply func([]*alert.Event) error) error
}

// FailoverConfig has the parts of a Failover. Store, Hits and Replica are required.
type FailoverConfig struct {
	Store   QueueStore
	Hits    HitsReader
	Replica *Replica

	// Rewind is how much of what the queues acknowledged before a fail-over is taken
	// to be lost, and put back from the hits topic. 0 puts nothing back.
	Rewind time.Duration
	// Every is how often the server is looked at while nothing seems wrong. 1 s when 0.
	Every time.Duration

	Clock Clock       // time.Now when nil
	Log   *zap.Logger // silent when nil
}

// Failover is Queues that make good what a fail-over of their server lost. Redis
// replicates and syncs behind its answers: a server that takes over, or comes back from
// its disk, may lack what was acknowledged last, and the offsets of those reads are
// committed. The hits topic has them, since it is written before offsets are committed.
//
// It asks for the identity of the server when it begins, each second, after every call
// that failed and after every new connection. When that identity is not the one last
// marked in the queues, or not the one that this process knew, it raises the fences again
// and puts back the hits since the server was last known to be good, less
// FailoverConfig.Rewind, as far as the lists still want them. Publish waits meanwhile.
// Any number of processes may do so at once: what is there stays as it is.
type Failover struct {
	cfg FailoverConfig

	suspect    atomic.Bool  // the server must be looked at before anything is published
	connects   atomic.Int64 // of the store, when it was last looked at
	generation atomic.Int64
	failing    atomic.Int64 // since when calls fail, Unix nanoseconds; 0 while they work
	kick       chan struct{}

	failovers, restored, unwanted, failures atomic.Int64

	looking   chan struct{} // holds a token while the server is looked at and made good; guards what follows
	server    string        // last seen, "" at first
	good      time.Time     // when
	again     time.Time     // when to look at the hits once more; zero for never
	againFrom time.Time
	failed    error // of the last look, nil when it went well
	looked    time.Time
}

// settle is how long after a fail-over the hits are looked at once more: another process
// may have had an acknowledgement of the old server in hand and written its hit after the
// first look, and have died since.
const settle = 5 * time.Second

// NewFailover returns a Failover, or says which part is missing.
func NewFailover(cfg FailoverConfig) (*Failover, error) {
	switch {
	case cfg.Store == nil:
		return nil, errors.New("stream: FailoverConfig.Store is required")
	case cfg.Hits == nil:
		return nil, errors.New("stream: FailoverConfig.Hits is required")
	case cfg.Replica == nil:
		return nil, errors.New("stream: FailoverConfig.Replica is required")
	case cfg.Rewind < 0:
		return nil, fmt.Errorf("stream: FailoverConfig.Rewind is %v, want 0 or more", cfg.Rewind)
	}
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	f := &Failover{cfg: cfg, kick: make(chan struct{}, 1), looking: make(chan struct{}, 1)}
	f.suspect.Store(true)
	return f, nil
}

// FailoverStats is what a Failover has seen and done.
type FailoverStats struct {
	Failovers int64 // times that another server was found, or one that had lost its marks
	Restored  int64 // events put back
	Unwanted  int64 // alerts not put back because the lists do not want them any more
	Failures  int64 // looks at the server, and tries to make good, that failed
	// Blocked is how long alerts could not be published by now; 0 while they can.
	Blocked time.Duration
}

// Stats returns the counters; it may be called at any time.
func (f *Failover) Stats() FailoverStats {
	s := FailoverStats{
		Failovers: f.failovers.Load(), Restored: f.restored.Load(), Unwanted: f.unwanted.Load(), Failures: f.failures.Load(),
	}
	if since := f.failing.Load(); since != 0 {
		s.Blocked = max(f.cfg.Clock().Sub(time.Unix(0, since)), time.Nanosecond)
	}
	return s
}

// Generation changes before the hits are read for a fail-over. What was published in one
// generation and written to the hits topic in a later one may be in neither: the processor
// then publishes it again.
func (f *Failover) Generation() int64 { return f.generation.Load() }

// Publish implements Queues.
func (f *Failover) Publish(ctx context.Context, alerts []*alert.Alert) (out []Published, err error) {
	err = f.call(ctx, func() error {
		out, err = f.cfg.Store.Publish(ctx, alerts)
		return err
	})
	return out, err
}

// Revise implements Queues.
func (f *Failover) Revise(ctx context.Context, reads []Revision) (out []*alert.Event, err error) {
	err = f.call(ctx, func() error {
		out, err = f.cfg.Store.Revise(ctx, reads)
		return err
	})
	return out, err
}

// call calls the store once it is known to be good, and doubts it after an error.
func (f *Failover) call(ctx context.Context, store func() error) (err error) {
	if f.doubtful() {
		err = f.look(ctx, false)
	}
	if err == nil {
		err = store()
	}
	if err != nil {
		f.suspect.Store(true)
		f.wake()
		f.failing.CompareAndSwap(0, f.cfg.Clock().UnixNano())
		return err
	}
	f.failing.Store(0)
	return nil
}

// doubtful reports whether the server may be another than the one last seen.
func (f *Failover) doubtful() bool {
	return f.suspect.Load() || f.cfg.Store.Connects() != f.connects.Load()
}

// wake makes Run look at the server now.
func (f *Failover) wake() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// Run looks at the server until ctx ends. It returns nil.
func (f *Failover) Run(ctx context.Context) error {
	if err := f.cfg.Replica.WaitCaughtUp(ctx); err != nil {
		return nil
	}
	tick := time.NewTicker(f.cfg.Every)
	defer tick.Stop()
	failed := false
	for {
		err := f.look(ctx, true)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !failed:
			f.cfg.Log.Warn("the alert queues cannot be looked after, trying again", zap.Error(err))
		case err == nil && failed:
			f.cfg.Log.Info("the alert queues can be looked after again")
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-f.kick:
			// A call has just failed; the next look a moment later tells more.
			if pause(ctx, min(f.cfg.Every, 50*time.Millisecond)) != nil {
				return nil
			}
		}
	}
}

// look asks who the server is and makes good what has to be. Unless always is set it
// returns at once when somebody else has just done so.
func (f *Failover) look(ctx context.Context, always bool) error {
	began := time.Now()
	select {
	case f.looking <- struct{}{}:
		defer func() { <-f.looking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if !always && !f.doubtful() {
		return nil
	}
	if !always && f.failed != nil && f.looked.After(began) {
		return f.failed // just seen; a server that hangs must not cost every partition its turn
	}
	f.failed = f.lookLocked(ctx)
	f.looked = time.Now()
	if f.failed != nil {
		f.suspect.Store(true)
		if ctx.Err() == nil {
			f.failures.Add(1)
		}
	}
	return f.failed
}

// errChanged says that the next look will find another server still.
var errChanged = errors.New("stream: the server of the queues changed while it was looked at")

// lookLocked is look with the token in hand.
func (f *Failover) lookLocked(ctx context.Context) error {
	f.suspect.Store(false) // before the question: a doubt that arises meanwhile must stay
	connects := f.cfg.Store.Connects()
	now := f.cfg.Clock()
	s, err := f.cfg.Store.Server(ctx)
	if err != nil {
		return fmt.Errorf("stream: look at the queues: %w", err)
	}
	other := f.server != "" && s.ID != f.server
	if other || s.Marked != s.ID {
		if err := f.failedOver(ctx, s, now); err != nil {
			return err
		}
	} else if !f.again.IsZero() && now.After(f.again) {
		if err := f.makeGood(ctx, f.againFrom); err != nil {
			return err
		}
		f.again = time.Time{}
	}
	if f.connects.Load() != f.cfg.Store.Connects() {
		// Making good takes a while, and a new connection may lead elsewhere.
		connects = f.cfg.Store.Connects()
		if s2, err := f.cfg.Store.Server(ctx); err != nil {
			return fmt.Errorf("stream: look at the queues again: %w", err)
		} else if s2.ID != s.ID {
			return errChanged
		}
	}
	if err := f.cfg.Store.Mark(ctx, s.ID, now); err != nil {
		return fmt.Errorf("stream: mark the queues: %w", err)
	}
	f.server, f.good = s.ID, now
	// The question itself may have made a connection, to the server it asked.
	f.connects.Store(max(connects, f.cfg.Store.Connects()))
	return nil
}

// failedOver makes good what may be missing on server s.
func (f *Failover) failedOver(ctx context.Context, s QueueServer, now time.Time) error {
	last := now // when the server was last known to be good
	if f.server != "" {
		last = f.good
	}
	if s.Marked != "" && s.MarkedAt.Before(last) {
		last = s.MarkedAt
	}
	from := last.Add(-f.cfg.Rewind)
	if f.server != "" { // else this process has published nothing yet
		f.generation.Add(1) // before the end of the hits is asked for
	}
	before := f.restored.Load()
	if err := f.makeGood(ctx, from); err != nil {
		return err
	}
	f.again, f.againFrom = now.Add(settle), from
	restored := zap.Int64("restored", f.restored.Load()-before)
	switch {
	case f.server == "" && s.Marked == "":
		f.cfg.Log.Info("the queues hold no mark of this installation: a first start, or Redis has lost everything; `vigie replay --rebuild` brings back what the hits topic has",
			zap.Time("since", from), restored)
	case s.Marked == "":
		f.failovers.Add(1)
		f.cfg.Log.Error("Redis has lost the queues: alerts before the time given come back with `vigie replay --rebuild`", zap.Time("since", from), restored)
	default:
		f.failovers.Add(1)
		f.cfg.Log.Warn("Redis has failed over or was restarted; what it may have lost is put back", zap.Time("since", from), restored)
	}
	return nil
}

// makeGood raises the fences and puts back the hits since a time.
func (f *Failover) makeGood(ctx context.Context, from time.Time) error {
	rep := f.cfg.Replica
	wait, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// What this process does not know to be withdrawn yet must not come back.
	end := rep.end.Load()
	if err := rep.wait(wait, func() bool { return rep.CaughtUp() && rep.passed.Load() >= end-1 }); err != nil {
		return fmt.Errorf("stream: make the queues good: this process is behind the control log: %w", err)
	}
	if err := RaiseFences(ctx, f.cfg.Store, rep); err != nil {
		return fmt.Errorf("stream: make the queues good: %w", err)
	}
	if f.cfg.Rewind == 0 {
		return nil
	}
	err := f.cfg.Hits.ReadSince(ctx, from, func(events []*alert.Event) error {
		res, unwanted, err := PutBackWanted(ctx, f.cfg.Store, rep, f.cfg.Clock, events, false)
		f.restored.Add(res.Restored)
		f.unwanted.Add(unwanted)
		return err
	})
	if err != nil {
		return fmt.Errorf("stream: put back the hits since %s: %w", from.UTC().Format(time.RFC3339), err)
	}
	return nil
}

// RaiseFences raises the fence of every queue to the version of the replica. Fences live in
// Redis; whoever finds that it lost data does this before alerts are put back.
func RaiseFences(ctx context.Context, fencer Fencer, rep *Replica) error {
	v := rep.Version()
	var queues []string
	rep.View(func(s *control.State) { queues = append(queues, s.Queues()...) })
	if v < 0 || len(queues) == 0 {
		return nil
	}
	return fencer.Fence(ctx, queues, v)
}

// PutBackWanted puts back those of the events that the lists still want: a hit whose entry
// was withdrawn, or now says something else, is left out and counted in unwanted, and no
// fence is passed. It waits for the replica where a fence is ahead of it.
func PutBackWanted(ctx context.Context, store QueueStore, rep *Replica, clock Clock, events []*alert.Event, keepTime bool) (res PutBackResult, unwanted int64, err error) {
	for {
		v := rep.Version() // before the question: the lists may only be newer
		wanted := make([]*alert.Event, 0, len(events))
		for _, e := range events {
			if a := e.Alert; a != nil && !rep.StillWanted(Claim{List: a.List.ID, Entry: a.Entry.ID, Queue: a.Queue, Action: a.Action}, clock()) {
				continue
			}
			wanted = append(wanted, e)
		}
		one, err := store.PutBack(ctx, wanted, PutBackOptions{Version: v, KeepTime: keepTime})
		res.Restored += one.Restored
		if err != nil {
			return res, 0, err
		}
		if one.Fence <= v {
			res.There, res.LeftOut, res.Fence = max(one.There-res.Restored+one.Restored, 0), one.LeftOut, one.Fence
			return res, int64(len(events) - len(wanted)), nil
		}
		wait, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = rep.WaitVersion(wait, one.Fence)
		cancel()
		if err != nil {
			return res, 0, fmt.Errorf("this process is behind the fence of a queue: %w", err)
		}
	}
}
