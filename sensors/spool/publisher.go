package spool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"vigie/sensors"
)

var _ sensors.Publisher = (*Publisher)(nil)

// PublisherConfig configures NewPublisher. The zero value of an optional field takes the
// default.
type PublisherConfig struct {
	Direct sensors.Publisher // to Kafka; required
	Spool  *Spool            // required; stays the caller's to close, after Run has returned
	// Patience is how long a publish may wait for Kafka before its reads go to the spool,
	// and so about the longest delay that an outage adds to a request; 800 ms.
	Patience time.Duration
	// BatchReads is the most reads drained at once; 2,000.
	BatchReads int
	// LiveTarget is the time of a live publish above which draining slows down; 20 ms.
	LiveTarget time.Duration
	// Refused reports whether an error of Direct says that a read will never be taken, such
	// as one too large for the topic. Its publisher is told so, and one that meets it in
	// the spool is dropped and counted instead of being tried for ever. Nil for none.
	Refused func(error) bool
	// Log receives the begin and the end of outages; nothing is written when nil.
	Log *zap.Logger
}

const (
	// A drain waits as long as drainTimeout for Kafka. During an outage it tries with
	// probeReads, from probeMin to probeMax apart.
	drainTimeout = 5 * time.Second
	probeReads   = 100
	probeMin     = 50 * time.Millisecond
	probeMax     = 200 * time.Millisecond
	// While live publishes are slow, draining goes down to slowReads at a time and rests as
	// long as the slowest of them took, but no longer than maxRest. So it does not fall
	// below 20,000 reads per second unless Kafka takes more than 30 ms for as many.
	slowReads = 1000
	maxRest   = 20 * time.Millisecond
	// idleTick is how often the age of the spool is looked at while nothing happens.
	idleTick = time.Minute
)

// Publisher publishes to Kafka while that answers, and to a Spool while it does not. It
// implements sensors.Publisher, and Run drains the spool.
//
// A publish that fails or takes longer than Patience goes to the spool, whether its caller
// still waits or not; its outcome in Kafka is unknown, and its ids make a repeat harmless. It
// also opens the circuit: whatever waits for Kafka goes to the spool at once, and so does what
// follows, until Run has brought reads from the spool to Kafka within Patience. Then live
// reads go to Kafka directly and the spool drains behind them. So:
//
//   - Spooled reads reach Kafka in the order in which they were spooled, which is the order
//     of each sensor.
//   - A live read may overtake spooled reads of its sensor. It does not wait for
//     them, since a wanted car that passes now is worth more than one that has passed.
//   - A read of a passage that has reads in the spool goes to the spool too, so that the
//     reads of one passage keep their order; see Spool.Holds for the bound.
type Publisher struct {
	cfg PublisherConfig
	log *zap.Logger

	circuit struct {
		sync.Mutex
		ctx    context.Context // ends when the circuit opens
		cancel context.CancelFunc
		since  time.Time // when it was opened
	}
	open     atomic.Bool  // the circuit
	live     atomic.Int64 // slowest live publish since the last look, nanoseconds
	trips    atomic.Uint64
	direct   atomic.Uint64
	spooled  atomic.Uint64
	heldBack atomic.Uint64
	refused  atomic.Uint64
}

// PublisherStats are the state of a Publisher and its counts.
type PublisherStats struct {
	Open     bool   // Kafka is taken to be away: reads go to the spool
	Trips    uint64 // times that the circuit has opened
	Direct   uint64 // reads acknowledged by Kafka
	Spooled  uint64 // reads acknowledged by the spool
	HeldBack uint64 // those of them that went there behind a read of their passage
	Refused  uint64 // reads of the spool that Kafka will never take: dropped
}

// NewPublisher returns a Publisher, or an error that names what cfg lacks.
func NewPublisher(cfg PublisherConfig) (*Publisher, error) {
	switch {
	case cfg.Direct == nil:
		return nil, errors.New("spool: PublisherConfig.Direct is required")
	case cfg.Spool == nil:
		return nil, errors.New("spool: PublisherConfig.Spool is required")
	case cfg.Patience < 0 || cfg.BatchReads < 0 || cfg.LiveTarget < 0:
		return nil, errors.New("spool: Patience, BatchReads and LiveTarget must not be negative")
	}
	if cfg.Patience == 0 {
		cfg.Patience = 800 * time.Millisecond
	}
	if cfg.BatchReads == 0 {
		cfg.BatchReads = 2000
	}
	if cfg.LiveTarget == 0 {
		cfg.LiveTarget = 20 * time.Millisecond
	}
	if cfg.Refused == nil {
		cfg.Refused = func(error) bool { return false }
	}
	p := &Publisher{cfg: cfg, log: sampled(cfg.Log)}
	p.circuit.ctx, p.circuit.cancel = context.WithCancel(context.Background())
	return p, nil
}

// Publish returns nil once every read is in Kafka or on the disk of the spool. ErrFull says
// that Kafka is away and the spool is full. See sensors.Publisher for the rest.
//
// What has begun goes on when ctx ends, in Kafka and then in the spool, for up to Patience
// each. Senders that wait for less would otherwise never let it be known that
// Kafka hangs.
func (p *Publisher) Publish(ctx context.Context, reads []sensors.Read) error {
	if len(reads) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.open.Load() {
		return p.spool(ctx, reads)
	}
	now, later := p.split(reads)
	if len(now) > 0 {
		err := p.publish(ctx, now)
		if ctx.Err() != nil {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), p.cfg.Patience)
			defer cancel()
		}
		switch {
		case err == nil:
			p.direct.Add(uint64(len(now)))
		case p.cfg.Refused(err):
			return err
		default:
			// Encoding comes first, since a read that cannot be written says nothing of Kafka.
			call, invalid := encode(reads)
			if invalid != nil {
				return fmt.Errorf("spool: publish %d reads: %w", len(reads), invalid)
			}
			p.trip(err)
			if full := p.cfg.Spool.append(ctx, call); full != nil {
				return fmt.Errorf("spool: publish %d reads: %w, after %w", len(reads), full, err)
			}
			p.spooled.Add(uint64(len(reads)))
			return nil
		}
	}
	if len(later) > 0 {
		if err := p.spool(ctx, later); err != nil {
			return err
		}
		p.heldBack.Add(uint64(len(later)))
	}
	return nil
}

func (p *Publisher) spool(ctx context.Context, reads []sensors.Read) error {
	if err := p.cfg.Spool.Append(ctx, reads); err != nil {
		return err
	}
	p.spooled.Add(uint64(len(reads)))
	return nil
}

// split parts reads into those that go to Kafka now and those of passages that are in the
// spool.
func (p *Publisher) split(reads []sensors.Read) (now, later []sensors.Read) {
	now = reads
	for i := range reads {
		switch held := p.cfg.Spool.Holds(&reads[i]); {
		case held && later == nil:
			now = append([]sensors.Read(nil), reads[:i]...)
			later = append(later, reads[i])
		case held:
			later = append(later, reads[i])
		case later != nil:
			now = append(now, reads[i])
		}
	}
	return now, later
}

// publish is a live publish to Kafka. It does not end with ctx.
func (p *Publisher) publish(ctx context.Context, reads []sensors.Read) error {
	p.circuit.Lock()
	closed := p.circuit.ctx
	p.circuit.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.cfg.Patience)
	defer cancel()
	defer context.AfterFunc(closed, cancel)()
	began := time.Now()
	err := p.cfg.Direct.Publish(ctx, reads)
	took := int64(time.Since(began))
	for {
		slowest := p.live.Load()
		if took <= slowest || p.live.CompareAndSwap(slowest, took) {
			return err
		}
	}
}

// trip opens the circuit.
func (p *Publisher) trip(cause error) {
	c := &p.circuit
	c.Lock()
	defer c.Unlock()
	if p.open.Swap(true) {
		return
	}
	p.trips.Add(1)
	c.since = time.Now()
	c.cancel()
	wake(p.cfg.Spool.more)
	p.log.Warn("Kafka does not take reads: they are spooled", zap.Error(cause))
}

// close closes the circuit.
func (p *Publisher) close() {
	c := &p.circuit
	c.Lock()
	defer c.Unlock()
	if !p.open.Load() {
		return
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	p.open.Store(false)
	p.log.Info("Kafka takes reads again: the spool is drained behind them", zap.Duration("outage", time.Since(c.since)),
		zap.Uint64("spooled", p.cfg.Spool.Stats().Depth))
}

// Run drains the spool until ctx ends, and then returns nil. One drain is under way at a time.
func (p *Publisher) Run(ctx context.Context) error {
	batch, wait := probeReads, probeMin
	for ctx.Err() == nil {
		batch = min(batch, p.cfg.BatchReads)
		n, err := p.cfg.Spool.Drain(ctx, batch, p.drain)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			if !errors.Is(err, errPublish) {
				p.log.Error("the spool cannot be drained", zap.Error(err))
			}
			pause(ctx, wait, nil)
			batch, wait = probeReads, min(2*wait, probeMax)
		case n > 0:
			wait = probeMin
			slowest := time.Duration(p.live.Swap(0))
			if slowest <= p.cfg.LiveTarget {
				batch *= 2
				continue
			}
			batch = max(batch/2, slowReads)
			pause(ctx, min(slowest, maxRest), nil)
		case p.open.Load():
			// Nothing to try Kafka with: the next live read does.
			pause(ctx, wait, p.cfg.Spool.More())
			if p.cfg.Spool.Stats().Depth == 0 {
				p.close()
			}
		case p.cfg.Spool.Stats().Segments > 0:
			pause(ctx, linger, p.cfg.Spool.More())
		default:
			pause(ctx, idleTick, p.cfg.Spool.More())
		}
	}
	return nil
}

// errPublish marks errors of Kafka among those of draining.
var errPublish = errors.New("publish")

// drain brings spooled reads to Kafka.
func (p *Publisher) drain(ctx context.Context, reads []sensors.Read) error {
	within, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	began := time.Now()
	err := p.cfg.Direct.Publish(within, reads)
	switch {
	case err == nil:
		if time.Since(began) < p.cfg.Patience { // else live reads would only wait for it
			p.close()
		}
		return nil
	case ctx.Err() != nil:
		return err
	case p.cfg.Refused(err) && len(reads) > 1: // find the one
		half := len(reads) / 2
		if err := p.drain(ctx, reads[:half]); err != nil {
			return err
		}
		return p.drain(ctx, reads[half:])
	case p.cfg.Refused(err):
		p.refused.Add(1)
		p.log.Error("Kafka will never take a read of the spool: it is dropped", zap.Error(err))
		return nil
	default:
		p.trip(err)
		return fmt.Errorf("%w: %w", errPublish, err)
	}
}

// pause waits for a time, an element of early, or the end of ctx.
func pause(ctx context.Context, d time.Duration, early <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-early:
	case <-ctx.Done():
	}
}

// Stats returns the state and the counts. It may be called at any time.
func (p *Publisher) Stats() PublisherStats {
	return PublisherStats{
		Open: p.open.Load(), Trips: p.trips.Load(), Direct: p.direct.Load(), Spooled: p.spooled.Load(),
		HeldBack: p.heldBack.Load(), Refused: p.refused.Load(),
	}
}
