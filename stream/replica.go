package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"vigie/matcher"
	"vigie/watchlist"
	"vigie/watchlist/control"
)

// Replica is this process's copy of the control log: the State that operators
// look at and the Matcher that reads meet, kept at the same version.
//
// One goroutine (Follow) writes; everything else may be called from anywhere.
type Replica struct {
	matcher *matcher.Matcher

	mu    sync.RWMutex // guards state and moved
	state *control.State
	moved chan struct{} // closed and replaced whenever version or caughtUp moves

	version  atomic.Int64 // offset up to which the matcher knows the log, -1 before it has caught up
	passed   atomic.Int64 // offset of the last record passed
	end      atomic.Int64 // end of the log as last seen
	target   int64        // end of the log when it was first seen; owned by Follow
	caughtUp atomic.Bool
	bad      atomic.Int64 // records that could not be read

	hearing sync.Mutex // guards heard
	heard   time.Time  // when what the log answered last was asked, at the earliest
	asked   time.Time  // likewise, of the answer that comes next; owned by Follow
	goal    int64      // offset to be reached, after a silence, before the lists are young again; owned by Follow

	onBad func(error)
}

// NewReplica returns a Replica that has seen nothing. onBad, if not nil, is
// told of every control record that cannot be read; it gets no plate.
func NewReplica(onBad func(error)) *Replica {
	r := &Replica{
		matcher: matcher.New(),
		state:   control.NewState(),
		moved:   make(chan struct{}),
		heard:   time.Now(),
		onBad:   onBad,
	}
	r.asked = r.heard
	r.version.Store(-1)
	r.passed.Store(-1)
	r.target = -1
	return r
}

// Follow applies the control log until ctx ends.
func (r *Replica) Follow(ctx context.Context, log ControlLog) error {
	if err := log.Follow(ctx, r.apply); err != nil {
		return fmt.Errorf("stream: follow the control log: %w", err)
	}
	return nil
}

// apply is called by one goroutine with records in offset order.
func (r *Replica) apply(records []control.Record, next, end int64) error {
	defer func() { r.asked = time.Now() }()
	if r.CaughtUp() && len(records) == 0 && next-1 == r.passed.Load() && end == r.end.Load() {
		r.hear(next, end)
		return nil // the log has answered that there is nothing new
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var changes []control.Change
	catchingUp := !r.caughtUp.Load()
	unreadable := func(err *control.RecordError) {
		r.bad.Add(1)
		if r.onBad != nil {
			r.onBad(err)
		}
	}
	if catchingUp { // the matcher takes the whole state at the end, at once
		if err := r.state.LoadAll(records, unreadable); err != nil {
			return err
		}
		records = nil
	}
	for _, rec := range records {
		var err error
		changes, err = r.state.Apply(rec, changes)
		var bad *control.RecordError
		switch {
		case errors.As(err, &bad):
			unreadable(bad)
		case err != nil:
			return err
		}
	}
	r.state.Advance(next)
	if r.target < 0 {
		r.target = end
	}
	r.passed.Store(next - 1)
	r.end.Store(end)
	if !catchingUp || next >= r.target {
		// The matcher goes first: whoever sees the version must also match by it.
		if v := next - 1; v > r.version.Load() {
			if catchingUp {
				r.state.Settle()
				r.matcher.Load(r.state.Everything(), v)
			} else {
				r.matcher.Apply(changes, v)
			}
			r.version.Store(v)
		}
		r.caughtUp.Store(true)
	}
	r.hear(next, end) // last: whoever trusts the lists because of it must see these
	close(r.moved)
	r.moved = make(chan struct{})
	return nil
}

// silence is how old lists may become before they count as those of a process that was cut
// off. Config.MaxListAge is the same by default.
const silence = time.Second

// hear notes that the log has answered. After a silence the first answer may be the first of
// many: the lists are young again when what the log held then has been applied, not before.
// Without one, a replica that is behind a long import stays young: what it lacks is not
// confirmed to anybody yet, as like as not.
func (r *Replica) hear(next, end int64) {
	if r.goal == 0 && r.CaughtUp() && r.Age() > silence {
		r.goal = end
	}
	if next < r.goal {
		return
	}
	r.goal = 0
	r.hearing.Lock()
	defer r.hearing.Unlock()
	r.heard = r.asked
}

// Matcher is the matcher that follows this replica.
func (r *Replica) Matcher() *matcher.Matcher { return r.matcher }

// Version is the control-log offset by which reads are matched, -1 before the
// replica has caught up or while the log is empty.
func (r *Replica) Version() int64 { return r.version.Load() }

// Behind is how many offsets the replica has yet to pass, as last seen.
func (r *Replica) Behind() int64 { return max(0, r.end.Load()-1-r.passed.Load()) }

// Age is how old the lists may be: how long it is since the last answer of the control
// log was asked for, which may have been on its way for long. What was changed in that
// time may not be known here.
//
// It counts by the wall clock too: the other one stands still while a machine is asleep.
func (r *Replica) Age() time.Duration {
	r.hearing.Lock()
	defer r.hearing.Unlock()
	now := time.Now()
	return max(now.Sub(r.heard), now.Round(0).Sub(r.heard.Round(0)))
}

// CaughtUp reports whether the replica has applied everything that the log held
// when it was first seen. Before that nothing may be matched.
func (r *Replica) CaughtUp() bool { return r.caughtUp.Load() }

// BadRecords is the number of control records that could not be read.
func (r *Replica) BadRecords() int64 { return r.bad.Load() }

// WaitVersion returns once the replica is at version v or later, or with the
// error of ctx.
func (r *Replica) WaitVersion(ctx context.Context, v int64) error {
	return r.wait(ctx, func() bool { return r.version.Load() >= v })
}

// WaitCaughtUp returns once CaughtUp is true, or with the error of ctx.
func (r *Replica) WaitCaughtUp(ctx context.Context) error {
	return r.wait(ctx, r.caughtUp.Load)
}

func (r *Replica) wait(ctx context.Context, done func() bool) error {
	for {
		r.mu.RLock()
		moved := r.moved
		r.mu.RUnlock()
		if done() {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// View calls f with the State, which must only be read and not be kept.
func (r *Replica) View(f func(*control.State)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f(r.state)
}

// Sensor returns the sensor of that id, nil when the registry has none.
func (r *Replica) Sensor(id string) *control.Sensor {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.state.Sensor(id)
}

// Claim is what an alert says of its entry.
type Claim struct {
	List, Entry string // ids
	Queue       string // in which the alert waits
	Action      watchlist.Action
}

// StillWanted reports whether the lists still say at now what an alert claims:
// the entry is there, valid, asks for the same action, and its list uses the
// same queue. An alert for which that is not so must reach nobody, for it might
// ask for a stop that nobody wants any more, or show a covert entry.
func (r *Replica) StillWanted(c Claim, now time.Time) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, l := r.state.Packed(c.List, c.Entry), r.state.List(c.List)
	if e == nil || l == nil {
		return false
	}
	_, until := e.Validity()
	return e.Action() == c.Action && queueOf(l) == c.Queue && now.UnixMilli() < until
}
