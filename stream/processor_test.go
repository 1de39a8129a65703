package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/streamtest"
	"vigie/watchlist"
	"vigie/watchlist/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// house is a matcher process on fakes.
type house struct {
	t       testing.TB
	log     *streamtest.ControlLog
	reads   *streamtest.Reads
	queues  *streamtest.Queues
	journal *streamtest.Journal
	dead    *streamtest.Dead
	replica *stream.Replica
	desk    *stream.Desk
}

func newHouse(t testing.TB) *house {
	h := &house{
		t: t, log: streamtest.NewControlLog(), reads: streamtest.NewReads(2),
		queues: new(streamtest.Queues), journal: new(streamtest.Journal), dead: new(streamtest.Dead),
		replica: stream.NewReplica(func(err error) { t.Errorf("bad control record: %v", err) }),
	}
	h.background("replica", func(ctx context.Context) error { return h.replica.Follow(ctx, h.log) })
	desk, err := stream.NewDesk(stream.DeskConfig{Log: h.log, Replica: h.replica, Fencer: h.queues, Wait: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	h.desk = desk
	return h
}

// background runs f until the returned function, or the test, ends it.
func (h *house) background(name string, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				h.t.Errorf("%s: %v", name, err)
			}
		case <-time.After(patience):
			h.t.Errorf("%s does not end", name)
		}
	})
	h.t.Cleanup(stop)
	return stop
}

// process starts a processor; configure may change its parts.
func (h *house) process(configure func(*stream.Config)) (p *stream.Processor, stop func()) {
	h.t.Helper()
	cfg := stream.Config{
		Source: h.reads.Source(100), Replica: h.replica, Queues: h.queues, Journal: h.journal, Dead: h.dead,
		CommitEvery: time.Millisecond, Drain: time.Second,
	}
	if configure != nil {
		configure(&cfg)
	}
	p, err := stream.New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return p, h.background("processor", p.Run)
}

func (h *house) list(id string, tol watchlist.Tolerance) {
	h.t.Helper()
	if _, err := h.desk.PutList(h.t.Context(), "op", watchlist.List{
		ID: id, Name: id, Owner: "SDLP", LegalBasis: "CSI L233-1", Tolerance: tol, DefaultAction: watchlist.ActionIntercept,
	}); err != nil {
		h.t.Fatalf("PutList: %v", err)
	}
}

func (h *house) entry(list, plate string) *watchlist.Entry {
	h.t.Helper()
	e, err := h.desk.AddEntry(h.t.Context(), "op", list, watchlist.EntryInput{
		Plate: plate, Country: "FR", Reason: "stolen", CaseRef: "T-1", ValidUntil: time.Now().Add(24 * time.Hour),
		ValidFrom: time.Now().Add(-time.Hour),
	})
	if err != nil {
		h.t.Fatalf("AddEntry: %v", err)
	}
	return e
}

func read(id, plate string) sensors.Read {
	return sensors.Read{ID: id, Sensor: "A7-118-2", Plate: plate, Country: "FR", TS: time.Now().UnixMilli(), Conf: 0.9}
}

func (h *house) produce(partition int, reads ...sensors.Read) {
	h.t.Helper()
	for i := range reads {
		b, err := sensors.AppendProto(nil, &reads[i])
		if err != nil {
			h.t.Fatal(err)
		}
		h.reads.Produce(partition, b)
	}
}

// until waits for a condition that other goroutines bring about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v until %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (h *house) committed(want ...int64) {
	h.t.Helper()
	until(h.t, fmt.Sprintf("the offsets %v are committed (now %v)", want, h.reads.Committed()), func() bool {
		return slices.Equal(h.reads.Committed(), want)
	})
}

func TestReadsBecomeAlerts(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	e := h.entry("stolen", "AB-123-CD")
	p, _ := h.process(nil)
	h.produce(0, read("r1", "ab 123 cd"), read("r2", "ZZ-999-ZZ"))
	h.produce(1, read("r3", "unknown"))
	h.reads.Produce(1, []byte(`{"id":"r4","sensor":"A7-118-2","plate":"AB123CD","country":"F","ts":1773470467412}`))
	h.committed(2, 2)
	got := h.queues.In(watchlist.DefaultQueue)
	if len(got) != 1 { // r4 is from before the entry was valid
		t.Fatalf("%d alerts, want 1", len(got))
	}
	a := got[0]
	if a.Entry.ID != e.ID || a.Read.ID != "r1" || a.Match.Kind != "exact" || a.Match.Country != "same" ||
		a.Match.Version != h.replica.Version() || a.Entry.Plate != "AB-123-CD" || a.Read.Plate != "ab 123 cd" || !a.Stop || a.Late {
		t.Errorf("alert %+v", a)
	}
	events := h.journal.Events()
	if len(events) != 1 || events[0].Alert != a || events[0].Step != 1 || events[0].AlertID != a.ID {
		t.Errorf("events %+v", events)
	}
	if s := p.Stats(); s.Reads != 3 || s.Sentinels != 1 || s.Alerts != 1 || s.Duplicates != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestWhatIsNotAReadGoesToTheDeadLetters(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	h.process(nil)
	for _, v := range []string{
		"", "{", `{"sensor":"s","plate":"AB123CD","PLATE":"x","ts":1773470467412}`, "\xff\xff\xff",
		`{"sensor":"s","plate":"AB123CD"}`, `{"sensor":"s","plate":"A#B","ts":1773470467412}`,
	} {
		h.reads.Produce(0, []byte(v))
	}
	h.produce(0, read("r1", "AB-123-CD"))
	h.committed(7, 0)
	var got []string
	for _, l := range h.dead.Letters() {
		got = append(got, fmt.Sprintf("%d %s", l.Offset, l.Reason))
	}
	want := []string{"0 empty", "1 json", "2 json", "3 protobuf", "4 field", "5 plate"}
	if !slices.Equal(got, want) {
		t.Errorf("dead letters %q, want %q", got, want)
	}
	if n := len(h.queues.In(watchlist.DefaultQueue)); n != 1 {
		t.Errorf("%d alerts after the poison, want 1", n)
	}
}

func TestAReadWithoutIDAlertsOnce(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	h.process(nil)
	r := read("", "AB-123-CD")
	h.produce(0, r, r)
	r.TS++
	h.produce(0, r)
	h.committed(3, 0)
	if n := len(h.queues.In(watchlist.DefaultQueue)); n != 2 {
		t.Errorf("%d alerts, want 2: the same read twice is one, a later read another", n)
	}
}

func TestOneAlertPerPassage(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	h.process(nil)
	for i := range 3 {
		r := read(fmt.Sprint("r", i), "AB-123-CD")
		r.Passage = "p1"
		h.produce(0, r)
	}
	h.committed(3, 0)
	if n := len(h.queues.In(watchlist.DefaultQueue)); n != 1 {
		t.Errorf("%d alerts, want 1 for the passage", n)
	}
}

// TestNothingIsCommittedBeforeItIsStored breaks the queues and then the hits
// topic: while either is away the offsets stay, and afterwards every alert is
// there once.
func TestNothingIsCommittedBeforeItIsStored(t *testing.T) {
	for _, broken := range []string{"queues", "hits"} {
		t.Run(broken, func(t *testing.T) {
			h := newHouse(t)
			h.list("stolen", watchlist.ToleranceExact)
			h.entry("stolen", "AB-123-CD")
			var down atomic.Bool
			var tries atomic.Int64
			fail := func() error {
				tries.Add(1)
				if down.Load() {
					return errors.New("away")
				}
				return nil
			}
			if broken == "queues" {
				h.queues.Fail = fail
			} else {
				h.journal.Fail = fail
			}
			down.Store(true)
			h.process(nil)
			for i := range 5 {
				h.produce(0, read(fmt.Sprint("r", i), "AB-123-CD"))
			}
			until(t, "it has been tried", func() bool { return tries.Load() >= 3 })
			if got := h.reads.Committed(); got[0] != 0 {
				t.Errorf("committed %v while %s were away", got, broken)
			}
			down.Store(false)
			h.committed(5, 0)
			if n := len(h.queues.In(watchlist.DefaultQueue)); n != 5 {
				t.Errorf("%d alerts, want 5", n)
			}
			if n := len(h.journal.Events()); n < 5 {
				t.Errorf("%d events, want at least 5", n)
			}
		})
	}
}

// TestCrashBetweenStoreAndCommit stops the processor while the hits topic is
// away, as a crash would, and starts another.
func TestCrashBetweenStoreAndCommit(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	var down atomic.Bool
	down.Store(true)
	h.journal.Fail = func() error {
		if down.Load() {
			return errors.New("away")
		}
		return nil
	}
	_, stop := h.process(func(c *stream.Config) { c.Drain = time.Millisecond })
	h.produce(0, read("r1", "AB-123-CD"))
	until(t, "the queue has it", func() bool { return len(h.queues.In(watchlist.DefaultQueue)) == 1 })
	stop()
	if got := h.reads.Committed(); got[0] != 0 {
		t.Fatalf("committed %v without the hits topic", got)
	}
	down.Store(false)
	h.process(nil)
	h.committed(1, 0)
	if n := len(h.queues.In(watchlist.DefaultQueue)); n != 1 {
		t.Errorf("%d alerts, want 1", n)
	}
	if n := len(h.journal.Events()); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

// leaving takes the partitions away when told to, as a rebalance does, and gives them back.
type leaving struct {
	stream.Source
	leave, back chan struct{}
}

func (s leaving) Run(ctx context.Context, consume func(context.Context, stream.Partition) error) error {
	owned, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		<-s.leave
		cancel()
	}()
	if err := s.Source.Run(owned, consume); err != nil || ctx.Err() != nil {
		return err
	}
	<-s.back
	return s.Source.Run(ctx, consume)
}

// TestHitsAreOwed: an alert that is in its queue gets onto the hits topic although the
// partition was lost in between, and its entry withdrawn before the read came again.
func TestHitsAreOwed(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	e := h.entry("stolen", "AB-123-CD")
	var down atomic.Bool
	down.Store(true)
	h.journal.Fail = func() error {
		if down.Load() {
			return errors.New("away")
		}
		return nil
	}
	s := leaving{h.reads.Source(100), make(chan struct{}), make(chan struct{})}
	h.process(func(c *stream.Config) { c.Source, c.Drain = s, 10*time.Millisecond })
	h.produce(0, read("r1", "AB-123-CD"))
	until(t, "the queue has it", func() bool { return len(h.queues.In(watchlist.DefaultQueue)) == 1 })
	close(s.leave)
	if _, err := h.desk.WithdrawEntry(t.Context(), "op", "stolen", e.ID, "found"); err != nil {
		t.Fatal(err)
	}
	close(s.back)
	h.committed(1, 0) // it came again, and hits nothing now
	if n := len(h.journal.Events()); n != 0 {
		t.Fatalf("%d events while the hits topic is away", n)
	}
	down.Store(false)
	until(t, "the hits topic has it", func() bool { return len(h.journal.Events()) == 1 })
}

// halfStale stores the first alert and refuses the others at a fence that never comes.
type halfStale struct{ stream.Queues }

func (q halfStale) Publish(ctx context.Context, alerts []*alert.Alert) ([]stream.Published, error) {
	out, err := q.Queues.Publish(ctx, alerts[:1])
	for range alerts[1:] {
		out = append(out, stream.Published{Outcome: stream.Stale, Fence: 1 << 40})
	}
	return out, err
}

// TestHitsAreOwedBesideStaleOnes: what is in its queue is owed to the hits topic also when
// the time runs out over other alerts of the batch.
func TestHitsAreOwedBesideStaleOnes(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	h.entry("stolen", "AB-124-CD")
	h.produce(0, read("r1", "AB-123-CD"), read("r2", "AB-124-CD"))
	_, stop := h.process(func(c *stream.Config) { c.Queues, c.Drain = halfStale{h.queues}, 100*time.Millisecond })
	until(t, "the queue has one", func() bool { return len(h.queues.In(watchlist.DefaultQueue)) == 1 })
	stop()
	if n := len(h.journal.Events()); n != 1 {
		t.Errorf("%d events, want that of the alert in the queue", n)
	}
}

// eager commits every batch before it is processed: the defence switched off.
type eager struct{ stream.Source }

func (s eager) Run(ctx context.Context, consume func(context.Context, stream.Partition) error) error {
	return s.Source.Run(ctx, func(ctx context.Context, p stream.Partition) error {
		return consume(ctx, eagerPartition{p})
	})
}

type eagerPartition struct{ stream.Partition }

func (p eagerPartition) Fetch(ctx context.Context, b *stream.Batch) error {
	if err := p.Partition.Fetch(ctx, b); err != nil {
		return err
	}
	return p.Partition.Commit(ctx, b.Next)
}

// TestCommitBeforeStoreLoses is the negative control of the two tests above: the
// same crash, with offsets committed as the batch is fetched, loses the alert.
func TestCommitBeforeStoreLoses(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	var down atomic.Bool
	down.Store(true)
	var tries atomic.Int64
	h.queues.Fail = func() error {
		if tries.Add(1); down.Load() {
			return errors.New("away")
		}
		return nil
	}
	off := func(c *stream.Config) { c.Source, c.Drain = eager{c.Source}, time.Millisecond }
	_, stop := h.process(off)
	h.produce(0, read("r1", "AB-123-CD"))
	until(t, "it has been tried", func() bool { return tries.Load() > 0 })
	stop()
	down.Store(false)
	h.process(off)
	h.produce(0, read("r2", "AB-123-CD"))
	until(t, "the next read has alerted", func() bool { return len(h.queues.In(watchlist.DefaultQueue)) > 0 })
	if got := h.queues.In(watchlist.DefaultQueue); len(got) != 1 || got[0].Read.ID != "r2" {
		t.Errorf("%d alerts: the loss that the defence prevents is not seen here", len(got))
	}
}

// hold lets the first Publish wait until it is released: a batch in flight.
type hold struct {
	*streamtest.Queues
	entered, release chan struct{}
	once             sync.Once
}

func (q *hold) Publish(ctx context.Context, alerts []*alert.Alert) ([]stream.Published, error) {
	q.once.Do(func() { close(q.entered); <-q.release })
	return q.Queues.Publish(ctx, alerts)
}

// TestWithdrawnWhileInFlight confirms a withdrawal while a batch that was
// matched before it is on its way to the queue. With the fence nothing
// arrives; without it (the control) the alert of a withdrawn entry does.
func TestWithdrawnWhileInFlight(t *testing.T) {
	for _, fenced := range []bool{true, false} {
		t.Run(fmt.Sprint("fence=", fenced), func(t *testing.T) {
			h := newHouse(t)
			h.list("stolen", watchlist.ToleranceExact)
			gone, kept := h.entry("stolen", "AB-123-CD"), h.entry("stolen", "EF-456-GH")
			q := &hold{Queues: h.queues, entered: make(chan struct{}), release: make(chan struct{})}
			p, _ := h.process(func(c *stream.Config) { c.Queues = q })
			h.produce(0, read("r1", "AB-123-CD"))
			<-q.entered
			h.produce(0, read("r2", "EF-456-GH"))

			desk := h.desk
			if !fenced {
				var err error
				if desk, err = stream.NewDesk(stream.DeskConfig{Log: h.log, Replica: h.replica, Fencer: noFence{}}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := desk.WithdrawEntry(t.Context(), "op", "stolen", gone.ID, "found"); err != nil {
				t.Fatalf("WithdrawEntry: %v", err)
			}
			close(q.release)
			h.committed(2, 0)
			var got []string
			for _, a := range h.queues.In(watchlist.DefaultQueue) {
				got = append(got, a.Entry.ID)
			}
			want := []string{kept.ID}
			if !fenced {
				want = []string{gone.ID, kept.ID}
			}
			if !slices.Equal(got, want) {
				t.Errorf("alerts of %v, want %v", got, want)
			}
			if s := p.Stats(); (s.Stale > 0) != fenced {
				t.Errorf("%d stale alerts", s.Stale)
			}
			for _, ev := range h.journal.Events() {
				if fenced && ev.Alert.Entry.ID == gone.ID {
					t.Error("the hits topic has a hit of the withdrawn entry")
				}
			}
		})
	}
}

type noFence struct{}

func (noFence) Fence(context.Context, []string, int64) error { return nil }

// TestChangedWhileInFlight changes an entry from intercept to discreet under an
// alert in flight: what arrives must not ask for a stop.
func TestChangedWhileInFlight(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	q := &hold{Queues: h.queues, entered: make(chan struct{}), release: make(chan struct{})}
	h.process(func(c *stream.Config) { c.Queues = q })
	h.produce(0, read("r1", "AB-123-CD"))
	<-q.entered
	if _, err := h.desk.AddEntry(t.Context(), "op", "stolen", watchlist.EntryInput{
		Plate: "AB123CD", Country: "FR", Reason: "observe", CaseRef: "T-2", Action: "discreet",
		ValidFrom: time.Now().Add(-time.Hour), ValidUntil: time.Now().Add(time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	close(q.release)
	h.committed(1, 0)
	got := h.queues.In(watchlist.DefaultQueue)
	if len(got) != 1 || got[0].Stop || got[0].Action != watchlist.ActionDiscreet {
		t.Errorf("alerts %+v, want one that asks for no stop", got)
	}
}

// slowLog tells of its records only when released.
type slowLog struct {
	*streamtest.ControlLog
	release chan struct{}
}

func (l *slowLog) Follow(ctx context.Context, apply func([]control.Record, int64, int64) error) error {
	return l.ControlLog.Follow(ctx, func(records []control.Record, next, end int64) error {
		for i := range records { // one by one, the last only when released
			if i == len(records)-1 {
				<-l.release
			}
			if err := apply(records[i:i+1], records[i].Offset+1, end); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestNoMatchAgainstHalfAList starts a processor while its replica is still
// reading the control log.
func TestNoMatchAgainstHalfAList(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "EF-456-GH")
	h.entry("stolen", "AB-123-CD")

	slow := &slowLog{ControlLog: h.log, release: make(chan struct{})}
	replica := stream.NewReplica(nil)
	h.background("slow replica", func(ctx context.Context) error { return replica.Follow(ctx, slow) })
	h.process(func(c *stream.Config) { c.Replica = replica })
	h.produce(0, read("r1", "AB-123-CD"))
	until(t, "most of the log is applied", func() bool { return replica.Behind() == 1 })
	if replica.CaughtUp() {
		t.Fatal("caught up too early")
	}
	if n := len(h.queues.In(watchlist.DefaultQueue)); n != 0 || h.reads.Committed()[0] != 0 {
		t.Fatalf("%d alerts, committed %v before the list was whole", n, h.reads.Committed())
	}
	close(slow.release)
	h.committed(1, 0)
	if n := len(h.queues.In(watchlist.DefaultQueue)); n != 1 {
		t.Errorf("%d alerts, want 1", n)
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	_, err := stream.New(stream.Config{})
	if err == nil || !strings.Contains(err.Error(), "Config.Source") {
		t.Errorf("got %v", err)
	}
}

func TestFakes(t *testing.T) {
	streamtest.TestSource(t, func(t *testing.T) streamtest.SourceFixture {
		r := streamtest.NewReads(3)
		return streamtest.SourceFixture{
			Partitions: 3,
			NewMember:  func() stream.Source { return r.Source(7) },
			Produce:    func(_ *testing.T, p int, values ...[]byte) { r.Produce(p, values...) },
		}
	})
	queues := func(*testing.T) streamtest.QueuesFixture {
		q := new(streamtest.Queues)
		return streamtest.QueuesFixture{
			Queues: q, Fencer: q,
			Stored: func(_ *testing.T, queue string) (ids []string) {
				for _, a := range q.In(queue) {
					ids = append(ids, a.ID)
				}
				return ids
			},
			Take:     func(_ *testing.T, id string) { q.Take(id) },
			Standing: func(_ *testing.T, id string) (*alert.Alert, alert.State) { return q.Standing(id) },
		}
	}
	streamtest.TestQueues(t, queues)
	streamtest.TestRevisions(t, queues)
	streamtest.TestControlLog(t, func(t *testing.T) stream.ControlLog { return streamtest.NewControlLog() })
	streamtest.TestJournal(t, func(t *testing.T) streamtest.JournalFixture {
		j := new(streamtest.Journal)
		return streamtest.JournalFixture{Journal: j, All: func(*testing.T) []*alert.Event { return j.Events() }}
	})
	streamtest.TestDeadLetters(t, func(t *testing.T) streamtest.DeadFixture {
		d := new(streamtest.Dead)
		return streamtest.DeadFixture{Dead: d, All: func(*testing.T) []stream.DeadLetter { return d.Letters() }}
	})
}
