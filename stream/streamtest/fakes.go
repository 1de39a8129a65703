// Package streamtest has in-memory stand-ins for Kafka and Redis and the suite
// that they and the real adapters must both pass. A fake that passes the suite
// may be trusted in the tests of package stream.
package streamtest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/alert"
	"vigie/watchlist/control"
)

// Reads is a reads topic in memory with one consumer group. Its members must
// run one after the other.
type Reads struct {
	mu        sync.Mutex
	parts     [][][]byte
	committed []int64
	grown     chan struct{}
}

// NewReads returns an empty topic.
func NewReads(partitions int) *Reads {
	return &Reads{parts: make([][][]byte, partitions), committed: make([]int64, partitions), grown: make(chan struct{})}
}

// Produce appends values to a partition.
func (r *Reads) Produce(partition int, values ...[]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parts[partition] = append(r.parts[partition], values...)
	close(r.grown)
	r.grown = make(chan struct{})
}

// Committed returns the committed offset of each partition.
func (r *Reads) Committed() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.committed)
}

// Source returns a member of the group. Batches hold at most max records.
func (r *Reads) Source(max int) stream.Source { return &source{topic: r, max: max} }

type source struct {
	topic *Reads
	max   int
}

func (s *source) Run(ctx context.Context, consume func(context.Context, stream.Partition) error) error {
	var wg sync.WaitGroup
	for id := range s.topic.parts {
		wg.Go(func() {
			for ctx.Err() == nil {
				s.topic.mu.Lock()
				p := &partition{source: s, id: id, next: s.topic.committed[id]}
				s.topic.mu.Unlock()
				_ = consume(ctx, p) // an error starts it again from the last commit
			}
		})
	}
	wg.Wait()
	return nil
}

type partition struct {
	*source
	id   int
	next int64
}

func (p *partition) ID() int { return p.id }

func (p *partition) Fetch(ctx context.Context, b *stream.Batch) error {
	b.Records, b.Skipped = b.Records[:0], 0
	idle := time.After(5 * time.Millisecond)
	for {
		p.topic.mu.Lock()
		all, grown := p.topic.parts[p.id], p.topic.grown
		p.topic.mu.Unlock()
		if int(p.next) < len(all) {
			for _, v := range all[p.next:min(len(all), int(p.next)+p.max)] {
				b.Records = append(b.Records, stream.Record{Offset: p.next, Value: v})
				p.next++
			}
			b.Next, b.HighWater = p.next, int64(len(all))
			return nil
		}
		select {
		case <-grown:
		case <-idle:
			b.Next = p.next
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *partition) Commit(_ context.Context, next int64) error {
	p.topic.mu.Lock()
	defer p.topic.mu.Unlock()
	if next < p.topic.committed[p.id] {
		return fmt.Errorf("commit rewinds from %d to %d", p.topic.committed[p.id], next)
	}
	p.topic.committed[p.id] = next
	return nil
}

// Queues are alert queues in memory. Fail, when set, is asked before every call.
type Queues struct {
	Fail func() error

	mu       sync.Mutex
	alerts   map[string][]*alert.Alert
	seen     map[string]bool
	fences   map[string]int64
	passages map[[2]string][]string // ids of alerts, by sensor and passage
	states   map[string]*state      // by id of the alert
	server   int                    // counts fail-overs
	marked   string
	markedAt time.Time
}

// Lose makes another server answer, which has nothing of what was stored, or with keep
// all of it but the last so many alerts of each queue.
func (q *Queues) Lose(keep bool, last int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.server++
	if !keep {
		q.alerts, q.seen, q.fences, q.marked, q.passages, q.states = nil, nil, nil, "", nil, nil
		return
	}
	for name, as := range q.alerts {
		n := max(0, len(as)-last)
		for _, a := range as[n:] {
			delete(q.seen, name+"/"+a.ID)
			delete(q.states, a.ID)
		}
		q.alerts[name] = as[:n:n]
	}
}

// Server implements stream.QueueStore.
func (q *Queues) Server(context.Context) (stream.QueueServer, error) {
	if q.Fail != nil {
		if err := q.Fail(); err != nil {
			return stream.QueueServer{}, err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return stream.QueueServer{ID: fmt.Sprint("server-", q.server), Marked: q.marked, MarkedAt: q.markedAt}, nil
}

// Mark implements stream.QueueStore.
func (q *Queues) Mark(_ context.Context, server string, at time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.marked, q.markedAt = server, at
	return nil
}

// Connects implements stream.QueueStore: there is one connection to each server.
func (q *Queues) Connects() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return int64(q.server) + 1
}

// PutBack implements stream.QueueStore for hits; the fake keeps no steps.
func (q *Queues) PutBack(ctx context.Context, events []*alert.Event, opt stream.PutBackOptions) (res stream.PutBackResult, err error) {
	res.Fence = -1
	for _, e := range events {
		if e.Alert == nil {
			res.LeftOut++
			continue
		}
		q.mu.Lock()
		fence, fenced := q.fences[e.Queue]
		refused := fenced && opt.Version < fence && !q.seen[e.Queue+"/"+e.AlertID]
		q.mu.Unlock()
		if refused {
			res.Fence = max(res.Fence, fence)
			continue
		}
		a := *e.Alert
		a.Match.Version = max(a.Match.Version, opt.Version)
		got, err := q.Publish(ctx, []*alert.Alert{&a})
		if err != nil {
			return res, err
		}
		if got[0].Outcome == stream.Stored {
			res.Restored++
		} else {
			res.There++
		}
	}
	return res, nil
}

// Publish implements stream.Queues.
func (q *Queues) Publish(_ context.Context, alerts []*alert.Alert) ([]stream.Published, error) {
	if q.Fail != nil {
		if err := q.Fail(); err != nil {
			return nil, err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.alerts == nil {
		q.alerts, q.seen = map[string][]*alert.Alert{}, map[string]bool{}
		q.passages, q.states = map[[2]string][]string{}, map[string]*state{}
	}
	out := make([]stream.Published, len(alerts))
	for i, a := range alerts {
		key := a.Queue + "/" + a.ID
		switch fence := q.fences[a.Queue]; {
		case q.seen[key]:
			out[i].Outcome = stream.Duplicate
		case a.Match.Version < fence:
			out[i] = stream.Published{Outcome: stream.Stale, Fence: fence}
		default:
			q.seen[key] = true
			q.alerts[a.Queue] = append(q.alerts[a.Queue], a)
			q.states[a.ID] = &state{alert: a, step: 1, revision: a.Read.Revision, did: map[uint32]*alert.Event{}}
			if p := passage(&a.Read); p[1] != "" && !slices.Contains(q.passages[p], a.ID) {
				q.passages[p] = append(q.passages[p], a.ID)
			}
		}
	}
	return out, nil
}

func passage(r *sensors.Read) [2]string { return [2]string{r.Sensor, r.Passage} }

// state is where an alert stands.
type state struct {
	alert    *alert.Alert
	state    alert.State
	step     uint32
	revision uint32 // the last seen
	against  bool   // the last read speaks against the alert
	did      map[uint32]*alert.Event
}

// Revise implements stream.Queues.
func (q *Queues) Revise(_ context.Context, reads []stream.Revision) (events []*alert.Event, err error) {
	if q.Fail != nil {
		if err := q.Fail(); err != nil {
			return nil, err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range reads {
		r := &reads[i]
		for _, id := range q.passages[passage(&r.Read)] {
			var hit *alert.Alert
			for _, a := range r.Alerts {
				if a.ID == id {
					hit = a
				}
			}
			if s := q.states[id]; s != nil {
				if e := s.revise(r, hit); e != nil {
					events = append(events, e)
				}
			}
		}
	}
	return events, nil
}

// revise makes the step of a read, or finds the one that it made before.
func (s *state) revise(r *stream.Revision, hit *alert.Alert) *alert.Event {
	n := r.Read.Revision
	if e := s.did[n]; e != nil || n <= s.revision {
		return e
	}
	s.revision = n
	now, before := alert.ReadingOf(&r.Read), alert.ReadingOf(&s.alert.Read)
	overrules := now.Overrules(before)
	moves := s.state == alert.Reread(hit != nil).From && (hit != nil || overrules)
	e := &alert.Event{AlertID: s.alert.ID, Queue: s.alert.Queue, At: r.At.UnixMilli(), Revision: n}
	switch {
	case hit == nil && (now.Text == before.Text || (s.against && !moves)):
		return nil
	case hit == nil:
		e.Outcome = alert.OutcomeOtherPlate
	case s.against:
		e.Outcome, e.Amended = alert.OutcomeReadAgain, hit
	case hit.Late || hit.Digest() == s.alert.Digest() || (now.Text != before.Text && !overrules):
		return nil
	default:
		e.Outcome, e.Amended = alert.OutcomeEvidence, hit
	}
	if hit != nil {
		s.alert = hit
	}
	s.against = hit == nil
	if moves {
		s.state = alert.Reread(hit != nil).To
	}
	s.step++
	e.Step, e.State = s.step, s.state
	s.did[n] = e
	return e
}

// Take makes an alert taken, as a patrol does.
func (q *Queues) Take(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.states[id]
	s.state, s.step = alert.StateTaken, s.step+1
}

// Standing is an alert as it is now, and where it stands. It is nil when there is none.
func (q *Queues) Standing(id string) (*alert.Alert, alert.State) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.states[id]
	if s == nil {
		return nil, 0
	}
	return s.alert, s.state
}

// Fence implements stream.Fencer.
func (q *Queues) Fence(_ context.Context, queues []string, v int64) error {
	if q.Fail != nil {
		if err := q.Fail(); err != nil {
			return err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fences == nil {
		q.fences = map[string]int64{}
	}
	for _, name := range queues {
		q.fences[name] = max(q.fences[name], v)
	}
	return nil
}

// In returns the alerts of a queue in order.
func (q *Queues) In(queue string) []*alert.Alert {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.alerts[queue])
}

// Journal is a hits topic in memory.
type Journal struct {
	Fail func() error

	mu     sync.Mutex
	events []*alert.Event
}

// Append implements stream.Journal.
func (j *Journal) Append(_ context.Context, events []*alert.Event) error {
	if j.Fail != nil {
		if err := j.Fail(); err != nil {
			return err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, events...)
	return nil
}

// ReadSince implements stream.HitsReader, by the times of the events.
func (j *Journal) ReadSince(_ context.Context, since time.Time, apply func([]*alert.Event) error) error {
	var events []*alert.Event
	for _, e := range j.Events() {
		if e.At >= since.UnixMilli() {
			events = append(events, e)
		}
	}
	return apply(events)
}

// Events returns everything appended, in order.
func (j *Journal) Events() []*alert.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.events)
}

// Dead is a dead-letter topic in memory.
type Dead struct {
	mu      sync.Mutex
	letters []stream.DeadLetter
}

// Send implements stream.DeadLetters.
func (d *Dead) Send(_ context.Context, letters []stream.DeadLetter) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range letters {
		l.Value = slices.Clone(l.Value)
		d.letters = append(d.letters, l)
	}
	return nil
}

// Letters returns everything sent, in order.
func (d *Dead) Letters() []stream.DeadLetter {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.letters)
}

// ControlLog is a control log in memory that compacts nothing.
type ControlLog struct {
	mu      sync.Mutex
	records []control.Record
	grown   chan struct{}
}

// NewControlLog returns an empty log.
func NewControlLog() *ControlLog { return &ControlLog{grown: make(chan struct{})} }

// Append implements stream.ControlLog.
func (l *ControlLog) Append(_ context.Context, records []control.Record) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		r.Offset = int64(len(l.records))
		l.records = append(l.records, r)
	}
	close(l.grown)
	l.grown = make(chan struct{})
	return int64(len(l.records)) - 1, nil
}

// Follow implements stream.ControlLog.
func (l *ControlLog) Follow(ctx context.Context, apply func(records []control.Record, next, end int64) error) error {
	idle := time.NewTicker(100 * time.Millisecond)
	defer idle.Stop()
	for next := -1; ; {
		l.mu.Lock()
		all, grown := l.records, l.grown
		l.mu.Unlock()
		if next < len(all) {
			from := max(next, 0)
			if err := apply(all[from:], int64(len(all)), int64(len(all))); err != nil {
				return err
			}
			next = len(all)
		}
		select {
		case <-grown:
		case <-idle.C: // nothing new, and says so
			if err := apply(nil, int64(next), int64(next)); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}
