package streamtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/alert"
	"vigie/watchlist"
	"vigie/watchlist/control"
)

// patience bounds every wait of the suite; only a failing test uses it up.
const patience = 30 * time.Second

// SourceFixture is a reads topic of its own for one test.
type SourceFixture struct {
	Partitions int
	// NewMember returns a new member of the same consumer group.
	NewMember func() stream.Source
	// Produce appends values to a partition and returns once they can be read.
	Produce func(t *testing.T, partition int, values ...[]byte)
}

// TestSource checks what stream.Source and stream.Partition promise.
func TestSource(t *testing.T, fixture func(t *testing.T) SourceFixture) {
	t.Run("every record once and in order", func(t *testing.T) {
		f := fixture(t)
		want := produce(t, f, 0, 500)
		got := newCollector(want)
		run(t, f.NewMember(), got.consume(commitAll), got.done)
		got.check(t, 1)
	})

	t.Run("an idle partition gives no records and no error in bounded time", func(t *testing.T) {
		f := fixture(t)
		idle := make(chan struct{})
		var once sync.Once
		run(t, f.NewMember(), func(ctx context.Context, p stream.Partition) error {
			var b stream.Batch
			if err := p.Fetch(ctx, &b); err != nil {
				if ctx.Err() == nil {
					t.Errorf("Fetch of an idle partition: %v", err)
				}
				return err
			}
			if len(b.Records) != 0 {
				t.Errorf("%d records of an empty topic", len(b.Records))
			}
			once.Do(func() { close(idle) })
			<-ctx.Done()
			return nil
		}, idle)
	})

	t.Run("records that come while it runs", func(t *testing.T) {
		f := fixture(t)
		want := produce(t, f, 0, 10)
		got := newCollector(want)
		stop := start(t, f.NewMember(), got.consume(commitAll))
		wait(t, got.done, "the first records")
		got.extend(produce(t, f, 10, 100))
		wait(t, got.done, "the later records")
		stop()
		got.check(t, 1)
	})

	t.Run("a new member goes on where the last commit stands", func(t *testing.T) {
		f := fixture(t)
		want := produce(t, f, 0, 50)
		first := newCollector(want)
		run(t, f.NewMember(), first.consume(commitAll), first.done)
		later := produce(t, f, 50, 80)
		second := newCollector(later)
		run(t, f.NewMember(), second.consume(commitAll), second.done)
		second.check(t, 1)
	})

	t.Run("what was not committed comes again", func(t *testing.T) {
		f := fixture(t)
		want := produce(t, f, 0, 50)
		first := newCollector(want)
		run(t, f.NewMember(), first.consume(commitNone), first.done)
		second := newCollector(want)
		run(t, f.NewMember(), second.consume(commitAll), second.done)
		second.check(t, 1)
	})

	t.Run("a commit on the way out counts", func(t *testing.T) {
		f := fixture(t)
		want := produce(t, f, 0, 50)
		first := newCollector(want)
		run(t, f.NewMember(), first.consume(commitAtEnd), first.done)
		later := produce(t, f, 50, 60)
		second := newCollector(later)
		run(t, f.NewMember(), second.consume(commitAll), second.done)
		second.check(t, 1)
	})

	t.Run("an error of consume starts again at the last commit", func(t *testing.T) {
		f := fixture(t)
		want := produce(t, f, 0, 50)
		got := newCollector(want)
		var once sync.Map
		inner := got.consume(commitAll)
		run(t, f.NewMember(), func(ctx context.Context, p stream.Partition) error {
			if _, failed := once.LoadOrStore(p.ID(), true); !failed {
				var b stream.Batch
				if err := p.Fetch(ctx, &b); err != nil {
					return err
				}
				return errors.New("a failure made by the test")
			}
			return inner(ctx, p)
		}, got.done)
		got.check(t, 1)
	})
}

// commit styles of a collector
type commitStyle int

const (
	commitAll commitStyle = iota
	commitNone
	commitAtEnd
)

// collector gathers values by partition until it has all it waits for.
type collector struct {
	mu   sync.Mutex
	want map[string]int // how often each value has come
	left int
	last map[int]int64
	bad  []string
	done chan struct{}
}

func newCollector(values []string) *collector {
	c := &collector{want: map[string]int{}, last: map[int]int64{}, done: make(chan struct{})}
	for _, v := range values {
		c.want[v] = 0
	}
	c.left = len(values)
	return c
}

// extend makes c wait for more values.
func (c *collector) extend(values []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = make(chan struct{})
	for _, v := range values {
		if _, early := c.want[v]; !early {
			c.want[v] = 0
			c.left++
		}
	}
	if c.left == 0 {
		close(c.done)
	}
}

func (c *collector) add(part int, rec stream.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, ok := c.last[part]; ok && rec.Offset <= last {
		c.bad = append(c.bad, fmt.Sprintf("partition %d: offset %d after %d", part, rec.Offset, last))
	}
	c.last[part] = rec.Offset
	v := string(rec.Value)
	n, known := c.want[v]
	if !known {
		n = 0
		c.left++ // not awaited yet: produced between two calls of the test
	}
	c.want[v] = n + 1
	if n == 0 {
		if c.left--; c.left == 0 {
			select {
			case <-c.done:
			default:
				close(c.done)
			}
		}
	}
}

func (c *collector) consume(style commitStyle) func(context.Context, stream.Partition) error {
	return func(ctx context.Context, p stream.Partition) error {
		c.mu.Lock()
		delete(c.last, p.ID()) // a new owner may start lower
		c.mu.Unlock()
		var b stream.Batch
		var next int64
		for ctx.Err() == nil {
			if err := p.Fetch(ctx, &b); err != nil {
				if ctx.Err() != nil {
					break
				}
				return err
			}
			for _, rec := range b.Records {
				c.add(p.ID(), rec)
			}
			if len(b.Records) == 0 {
				continue
			}
			if want := b.Records[len(b.Records)-1].Offset + 1; b.Next < want {
				return fmt.Errorf("batch ends at %d after a record at %d", b.Next, want-1)
			}
			next = b.Next
			if style == commitAll {
				if err := p.Commit(ctx, next); err != nil && ctx.Err() == nil {
					return err
				}
			}
		}
		if style != commitNone && next > 0 {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			defer cancel()
			return p.Commit(ctx, next)
		}
		return nil
	}
}

// check fails unless every value came exactly times times.
func (c *collector) check(t *testing.T, times int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.bad {
		t.Error(b)
	}
	for v, n := range c.want {
		if n != times {
			t.Errorf("value %q came %d times, want %d", v, n, times)
		}
	}
}

func produce(t *testing.T, f SourceFixture, from, to int) []string {
	t.Helper()
	byPart := make([][][]byte, f.Partitions)
	var values []string
	for i := from; i < to; i++ {
		v := fmt.Sprintf("value-%05d", i)
		values = append(values, v)
		byPart[i%f.Partitions] = append(byPart[i%f.Partitions], []byte(v))
	}
	for p, vs := range byPart {
		if len(vs) > 0 {
			f.Produce(t, p, vs...)
		}
	}
	return values
}

func start(t *testing.T, s stream.Source, consume func(context.Context, stream.Partition) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, consume) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("Run: %v, want nil when its context ends", err)
				}
			case <-time.After(patience):
				t.Errorf("Run has not returned %v after its context ended", patience)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func run(t *testing.T, s stream.Source, consume func(context.Context, stream.Partition) error, until <-chan struct{}) {
	t.Helper()
	stop := start(t, s, consume)
	wait(t, until, "every record")
	stop()
}

func wait(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
	}
}

// QueuesFixture is a set of queues of its own for one test.
type QueuesFixture struct {
	Queues stream.Queues
	Fencer stream.Fencer
	// Stored returns the ids of the alerts of a queue in order.
	Stored func(t *testing.T, queue string) []string
	// Take makes an alert of queue q1 taken, as a patrol does.
	Take func(t *testing.T, id string)
	// Standing returns an alert of queue q1 as it is now, and where it stands.
	Standing func(t *testing.T, id string) (*alert.Alert, alert.State)
}

// NewAlert makes an alert for tests, matched at a version.
func NewAlert(id, queue string, version int64) *alert.Alert {
	return &alert.Alert{
		ID: id, Queue: queue, Action: watchlist.ActionIntercept, Stop: true, Priority: watchlist.PriorityHigh,
		List:    alert.ListRef{ID: "stolen", Name: "Stolen vehicles", Owner: "test"},
		Entry:   alert.EntryRef{ID: "entry-" + id, Version: version, Plate: "AB-123-CD", Reason: "stolen", CaseRef: "T-1"},
		Match:   alert.Evidence{Kind: "exact", Country: "same", Grade: "high", Score: 1, Syntax: "valid", Read: "AB123CD", Entry: "AB123CD", Version: version},
		Read:    sensors.Read{ID: "read-" + id, Sensor: "A7-118-2", Plate: "AB123CD", Country: "FR", TS: 1773470467412},
		Created: 1773470467500,
	}
}

// TestQueues checks what stream.Queues and stream.Fencer promise.
func TestQueues(t *testing.T, fixture func(t *testing.T) QueuesFixture) {
	ctx := context.Background()
	publish := func(t *testing.T, f QueuesFixture, alerts ...*alert.Alert) []stream.Published {
		t.Helper()
		got, err := f.Queues.Publish(ctx, alerts)
		if err != nil {
			t.Fatalf("Publish: %v", err)
		}
		if len(got) != len(alerts) {
			t.Fatalf("%d answers for %d alerts", len(got), len(alerts))
		}
		return got
	}
	stored := func(t *testing.T, f QueuesFixture, queue string, want ...string) {
		t.Helper()
		if got := f.Stored(t, queue); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("queue %s holds %v, want %v", queue, got, want)
		}
	}

	t.Run("an alert is stored once", func(t *testing.T) {
		f := fixture(t)
		got := publish(t, f, NewAlert("a", "q1", 5), NewAlert("b", "q1", 5), NewAlert("a", "q1", 6))
		want := []stream.Outcome{stream.Stored, stream.Stored, stream.Duplicate}
		for i := range want {
			if got[i].Outcome != want[i] {
				t.Errorf("answer %d is %v, want %v", i, got[i].Outcome, want[i])
			}
		}
		if got := publish(t, f, NewAlert("b", "q1", 5)); got[0].Outcome != stream.Duplicate {
			t.Errorf("repeated: %v, want Duplicate", got[0].Outcome)
		}
		stored(t, f, "q1", "a", "b")
	})

	t.Run("queues are apart", func(t *testing.T) {
		f := fixture(t)
		publish(t, f, NewAlert("a", "q1", 5), NewAlert("b", "q2", 5))
		stored(t, f, "q1", "a")
		stored(t, f, "q2", "b")
	})

	t.Run("a fence refuses older snapshots", func(t *testing.T) {
		f := fixture(t)
		if err := f.Fencer.Fence(ctx, []string{"q1"}, 7); err != nil {
			t.Fatalf("Fence: %v", err)
		}
		got := publish(t, f, NewAlert("old", "q1", 6), NewAlert("new", "q1", 7), NewAlert("other", "q2", 6))
		if got[0].Outcome != stream.Stale || got[0].Fence != 7 {
			t.Errorf("below the fence: %+v, want Stale at 7", got[0])
		}
		if got[1].Outcome != stream.Stored || got[2].Outcome != stream.Stored {
			t.Errorf("at the fence and elsewhere: %+v, want Stored", got[1:])
		}
		stored(t, f, "q1", "new")
		stored(t, f, "q2", "other")
		// Matched again it is a new alert, not a duplicate.
		if got := publish(t, f, NewAlert("old", "q1", 7)); got[0].Outcome != stream.Stored {
			t.Errorf("matched again: %v, want Stored", got[0].Outcome)
		}
	})

	t.Run("a fence never goes back", func(t *testing.T) {
		f := fixture(t)
		for _, v := range []int64{9, 4} {
			if err := f.Fencer.Fence(ctx, []string{"q1", "q2"}, v); err != nil {
				t.Fatalf("Fence: %v", err)
			}
		}
		if got := publish(t, f, NewAlert("a", "q1", 8)); got[0].Outcome != stream.Stale || got[0].Fence != 9 {
			t.Errorf("after a lower fence: %+v, want Stale at 9", got[0])
		}
	})

	t.Run("many at once from many callers", func(t *testing.T) {
		f := fixture(t)
		var wg sync.WaitGroup
		var mu sync.Mutex
		count := map[stream.Outcome]int{}
		for range 8 {
			wg.Go(func() {
				for i := range 50 {
					got, err := f.Queues.Publish(ctx, []*alert.Alert{NewAlert(fmt.Sprint("m", i), "q1", 5)})
					if err != nil {
						t.Errorf("Publish: %v", err)
						return
					}
					mu.Lock()
					count[got[0].Outcome]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if count[stream.Stored] != 50 || count[stream.Duplicate] != 350 {
			t.Errorf("%d stored and %d duplicates, want 50 and 350", count[stream.Stored], count[stream.Duplicate])
		}
		if got := f.Stored(t, "q1"); len(got) != 50 {
			t.Errorf("%d alerts in the queue, want 50", len(got))
		}
	})
}

// NewPassageAlert is NewAlert for the read of a passage. A text is the plate of the read.
func NewPassageAlert(id, passage, text string, revision uint32) *alert.Alert {
	a := NewAlert(id, "q1", 5)
	a.Read.Passage, a.Read.Revision, a.Read.Plate, a.Match.Read = passage, revision, text, text
	return a
}

// NewRevision is a later read of a passage with its hits.
func NewRevision(passage, text string, revision uint32, hits ...*alert.Alert) stream.Revision {
	r := NewPassageAlert("", passage, text, revision).Read
	if len(hits) > 0 {
		r = hits[0].Read
	}
	return stream.Revision{Read: r, Alerts: hits, At: time.UnixMilli(1773470467000 + int64(revision))}
}

// TestRevisions checks what stream.Queues promises of later reads of a passage.
func TestRevisions(t *testing.T, fixture func(t *testing.T) QueuesFixture) {
	const first, other = "AB123CD", "AB124CD"
	ctx := context.Background()
	publish := func(t *testing.T, f QueuesFixture, alerts ...*alert.Alert) {
		t.Helper()
		if _, err := f.Queues.Publish(ctx, alerts); err != nil {
			t.Fatalf("Publish: %v", err)
		}
	}
	// revise returns the steps as "alert:step state outcome", with the plate where one amends.
	revise := func(t *testing.T, f QueuesFixture, want string, reads ...stream.Revision) {
		t.Helper()
		for _, word := range []string{"", "repeated: "} {
			events, err := f.Queues.Revise(ctx, reads)
			if err != nil {
				t.Fatalf("%sRevise: %v", word, err)
			}
			var got []string
			for _, e := range events {
				s := fmt.Sprintf("%s:%d %s %s", e.AlertID, e.Step, e.State, e.Outcome)
				if e.Amended != nil {
					s += " " + e.Amended.Match.Read
				}
				if got = append(got, s); e.Queue != "q1" || e.Actor != "" || e.Revision == 0 || e.At != 1773470467000+int64(e.Revision) || e.Alert != nil {
					t.Errorf("%sevent %+v of revision %d at %d", word, e, e.Revision, e.At)
				}
			}
			if got := strings.Join(got, "; "); got != want {
				t.Errorf("%s%s\nwant %s", word, got, want)
			}
		}
	}
	stands := func(t *testing.T, f QueuesFixture, id string, state alert.State, text string) {
		t.Helper()
		a, got := f.Standing(t, id)
		if a == nil || got != state || a.Match.Read != text {
			t.Errorf("%s is %v %v, want %v of %s", id, a, got, state, text)
		}
	}

	t.Run("another plate takes an alert back, the same plate raises it again", func(t *testing.T) {
		f := fixture(t)
		publish(t, f, NewPassageAlert("a", "p1", first, 0))
		revise(t, f, "a:2 withdrawn other_plate", NewRevision("p1", other, 1))
		stands(t, f, "a", alert.StateWithdrawn, first)
		revise(t, f, "", NewRevision("p1", "ZZ999ZZ", 2)) // it is back already
		again := NewPassageAlert("a", "p1", first, 3)
		publish(t, f, again)
		revise(t, f, "a:3 new read_again AB123CD", NewRevision("p1", first, 3, again))
		stands(t, f, "a", alert.StateNew, first)
	})

	t.Run("the second plate has an alert of its own", func(t *testing.T) {
		f := fixture(t)
		second := NewPassageAlert("b", "p1", other, 1)
		publish(t, f, NewPassageAlert("a", "p1", first, 0), second)
		revise(t, f, "a:2 withdrawn other_plate", NewRevision("p1", other, 1, second))
		stands(t, f, "a", alert.StateWithdrawn, first)
		stands(t, f, "b", alert.StateNew, other)
	})

	t.Run("other evidence amends, the same does not", func(t *testing.T) {
		f := fixture(t)
		publish(t, f, NewPassageAlert("a", "p1", first, 0))
		same := NewPassageAlert("a", "p1", first, 1)
		revise(t, f, "", NewRevision("p1", first, 1, same))
		stronger := NewPassageAlert("a", "p1", first, 2)
		stronger.Read.Conf = 0.99
		revise(t, f, "a:2 new new_evidence AB123CD", NewRevision("p1", first, 2, stronger))
		if a, _ := f.Standing(t, "a"); a.Read.Conf != 0.99 || a.Read.Revision != 2 {
			t.Errorf("shown: confidence %v, revision %d", a.Read.Conf, a.Read.Revision)
		}
	})

	t.Run("a weaker read does not take back, but is told", func(t *testing.T) {
		f := fixture(t)
		strong := NewPassageAlert("a", "p1", first, 0)
		strong.Read.Conf = 0.9
		publish(t, f, strong)
		weak := NewRevision("p1", other, 1)
		weak.Read.Conf = 0.3
		revise(t, f, "a:2 new other_plate", weak)
		invalid := NewRevision("p1", "A8123CDE", 2)
		revise(t, f, "", invalid) // it is told already
		again := NewPassageAlert("a", "p1", first, 3)
		again.Read.Conf = 0.9
		revise(t, f, "a:3 new read_again AB123CD", NewRevision("p1", first, 3, again))
		weak.Read.Revision = 4
		weak.At = weak.At.Add(3 * time.Millisecond)
		revise(t, f, "a:4 new other_plate", weak)
		sure := NewRevision("p1", other, 5)
		sure.Read.Conf = 0.86
		revise(t, f, "a:5 withdrawn other_plate", sure)
	})

	t.Run("a weaker read of another text that hits amends nothing", func(t *testing.T) {
		f := fixture(t)
		strong := NewPassageAlert("a", "p1", first, 0)
		strong.Read.Conf = 0.9
		publish(t, f, strong)
		near := NewPassageAlert("a", "p1", other, 1)
		near.Read.Conf = 0.3
		revise(t, f, "", NewRevision("p1", other, 1, near))
		stands(t, f, "a", alert.StateNew, first)
		surer := NewPassageAlert("a", "p1", other, 2)
		surer.Read.Conf = 0.95
		revise(t, f, "a:2 new new_evidence AB124CD", NewRevision("p1", other, 2, surer))
		stands(t, f, "a", alert.StateNew, other)
	})

	t.Run("a late read takes no stop away, but corrects", func(t *testing.T) {
		f := fixture(t)
		publish(t, f, NewPassageAlert("a", "p1", first, 0))
		late := NewPassageAlert("a", "p1", first, 1)
		late.Read.Conf, late.Late, late.Stop = 0.99, true, false
		revise(t, f, "", NewRevision("p1", first, 1, late))
		if a, _ := f.Standing(t, "a"); !a.Stop {
			t.Error("the alert asks for no stop any more")
		}
		revise(t, f, "a:2 withdrawn other_plate", NewRevision("p1", other, 2))
	})

	t.Run("the same text takes nothing back: the lists have changed", func(t *testing.T) {
		f := fixture(t)
		publish(t, f, NewPassageAlert("a", "p1", first, 0))
		revise(t, f, "", NewRevision("p1", first, 1))
		italian := NewRevision("p1", first, 2)
		italian.Read.Country = "IT"
		revise(t, f, "a:2 withdrawn other_plate", italian)
	})

	t.Run("what was taken stays taken, and is told", func(t *testing.T) {
		f := fixture(t)
		publish(t, f, NewPassageAlert("a", "p1", first, 0))
		f.Take(t, "a")
		revise(t, f, "a:3 taken other_plate", NewRevision("p1", other, 1))
		again := NewPassageAlert("a", "p1", first, 2)
		revise(t, f, "a:4 taken read_again AB123CD", NewRevision("p1", first, 2, again))
	})

	t.Run("an older read changes nothing", func(t *testing.T) {
		f := fixture(t)
		publish(t, f, NewPassageAlert("a", "p1", first, 3))
		revise(t, f, "", NewRevision("p1", other, 2), NewRevision("p1", other, 3))
		stands(t, f, "a", alert.StateNew, first)
	})

	t.Run("a read that changes nothing is seen all the same", func(t *testing.T) {
		f := fixture(t)
		publish(t, f, NewPassageAlert("a", "p1", first, 0))
		same := NewPassageAlert("a", "p1", first, 2)
		revise(t, f, "", NewRevision("p1", first, 2, same), NewRevision("p1", other, 1))
		stands(t, f, "a", alert.StateNew, first)
	})

	t.Run("other passages and other sensors are left alone", func(t *testing.T) {
		f := fixture(t)
		alone := NewAlert("c", "q1", 5)
		publish(t, f, NewPassageAlert("a", "p1", first, 0), NewPassageAlert("b", "p2", first, 0), alone)
		stranger := NewRevision("p2", other, 1)
		stranger.Read.Sensor = "A7-118-3"
		revise(t, f, "a:2 withdrawn other_plate", NewRevision("p1", other, 1), stranger)
		stands(t, f, "b", alert.StateNew, first)
		stands(t, f, "c", alert.StateNew, first)
	})

	t.Run("several reads at once, in order", func(t *testing.T) {
		f := fixture(t)
		b, again := NewPassageAlert("b", "p1", other, 1), NewPassageAlert("a", "p1", first, 2)
		publish(t, f, NewPassageAlert("a", "p1", first, 0), b, again)
		revise(t, f, "a:2 withdrawn other_plate; a:3 new read_again AB123CD; b:2 withdrawn other_plate",
			NewRevision("p1", other, 1, b), NewRevision("p1", first, 2, again))
		stands(t, f, "a", alert.StateNew, first)
		stands(t, f, "b", alert.StateWithdrawn, other)
	})
}

// TestControlLog checks what stream.ControlLog promises, on an empty log per test.
func TestControlLog(t *testing.T, fixture func(t *testing.T) stream.ControlLog) {
	key := func(i int) []byte { return fmt.Appendf(nil, "entry/l/%04d", i) }

	t.Run("an empty log is caught up", func(t *testing.T) {
		f := follow(t, fixture(t))
		f.until(t, "the end of an empty log", func() bool { return f.calls > 0 && f.next >= f.end })
	})

	t.Run("records in order, withdrawals too", func(t *testing.T) {
		log := fixture(t)
		f := follow(t, log)
		var want int
		for batch := range 20 {
			var records []control.Record
			for i := range 1 + batch%7 {
				rec := control.Record{Key: key(want), Value: []byte("x")}
				if i%3 == 2 {
					rec.Value = nil
				}
				records, want = append(records, rec), want+1
			}
			last, err := log.Append(context.Background(), records)
			if err != nil {
				t.Fatalf("Append: %v", err)
			}
			f.until(t, "the record just appended", func() bool { return f.next > last })
			f.mu.Lock()
			if got := f.records[len(f.records)-1]; got.Offset != last || string(got.Key) != string(key(want-1)) {
				t.Errorf("last record is %q at %d, want %q at %d", got.Key, got.Offset, key(want-1), last)
			}
			f.mu.Unlock()
		}
		again := follow(t, log)
		again.until(t, "the whole log", func() bool { return len(again.records) == want })
		again.mu.Lock()
		defer again.mu.Unlock()
		for i, rec := range again.records {
			if string(rec.Key) != string(key(i)) {
				t.Fatalf("record %d is %q, want %q", i, rec.Key, key(i))
			}
			if i > 0 && rec.Offset <= again.records[i-1].Offset {
				t.Fatalf("offset %d after %d", rec.Offset, again.records[i-1].Offset)
			}
		}
	})

	t.Run("two writers", func(t *testing.T) {
		log := fixture(t)
		f := follow(t, log)
		var wg sync.WaitGroup
		for w := range 2 {
			wg.Go(func() {
				for i := range 25 {
					if _, err := log.Append(context.Background(), []control.Record{
						{Key: key(1000*w + 2*i), Value: []byte("x")}, {Key: key(1000*w + 2*i + 1), Value: []byte("x")},
					}); err != nil {
						t.Errorf("Append: %v", err)
					}
				}
			})
		}
		wg.Wait()
		f.until(t, "all records", func() bool { return len(f.records) == 100 })
		f.mu.Lock()
		defer f.mu.Unlock()
		for i := 0; i < len(f.records); i += 2 { // records appended as one stand together
			a, b := string(f.records[i].Key), string(f.records[i+1].Key)
			if a[:len(a)-1] == b[:len(b)-1] {
				continue
			}
			var x, y int
			fmt.Sscanf(a, "entry/l/%04d", &x)
			fmt.Sscanf(b, "entry/l/%04d", &y)
			if y != x+1 {
				t.Fatalf("%s is followed by %s: an append was torn", a, b)
			}
		}
	})
}

type follower struct {
	mu        sync.Mutex
	records   []control.Record
	next, end int64
	calls     int
	moved     chan struct{}
}

func follow(t *testing.T, log stream.ControlLog) *follower {
	t.Helper()
	f := &follower{moved: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- log.Follow(ctx, func(records []control.Record, next, end int64) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, r := range records {
				r.Key = append([]byte(nil), r.Key...)
				f.records = append(f.records, r)
			}
			f.next, f.end, f.calls = next, end, f.calls+1
			close(f.moved)
			f.moved = make(chan struct{})
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Follow: %v, want nil when its context ends", err)
			}
		case <-time.After(patience):
			t.Errorf("Follow has not returned %v after its context ended", patience)
		}
	})
	return f
}

func (f *follower) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		f.mu.Lock()
		good, moved := ok(), f.moved
		f.mu.Unlock()
		if good {
			return
		}
		select {
		case <-moved:
		case <-deadline:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// JournalFixture is a hits topic of its own for one test.
type JournalFixture struct {
	Journal stream.Journal
	// All returns every event from the beginning.
	All func(t *testing.T) []*alert.Event
}

// TestJournal checks what stream.Journal promises.
func TestJournal(t *testing.T, fixture func(t *testing.T) JournalFixture) {
	t.Run("the steps of an alert stay in order", func(t *testing.T) {
		f := fixture(t)
		for step := uint32(1); step <= 3; step++ {
			var events []*alert.Event
			for i := range 20 {
				ev := &alert.Event{AlertID: fmt.Sprint("alert-", i), Step: step, Queue: "q1", At: int64(step)}
				if step == 1 {
					ev.Alert = NewAlert(ev.AlertID, "q1", 3)
				} else {
					ev.State, ev.Actor = alert.StateTaken, "bri-12"
				}
				events = append(events, ev)
			}
			if err := f.Journal.Append(context.Background(), events); err != nil {
				t.Fatalf("Append: %v", err)
			}
		}
		steps := map[string]uint32{}
		for _, ev := range f.All(t) {
			if ev.Step != steps[ev.AlertID]+1 {
				t.Errorf("%s: step %d after %d", ev.AlertID, ev.Step, steps[ev.AlertID])
			}
			steps[ev.AlertID] = ev.Step
			if (ev.Alert != nil) != (ev.Step == 1) {
				t.Errorf("%s: step %d has alert %v", ev.AlertID, ev.Step, ev.Alert != nil)
			}
		}
		if len(steps) != 20 {
			t.Errorf("%d alerts, want 20", len(steps))
		}
	})
}

// DeadFixture is a dead-letter topic of its own for one test.
type DeadFixture struct {
	Dead stream.DeadLetters
	// All returns every letter from the beginning.
	All func(t *testing.T) []stream.DeadLetter
}

// TestDeadLetters checks what stream.DeadLetters promises.
func TestDeadLetters(t *testing.T, fixture func(t *testing.T) DeadFixture) {
	t.Run("the bytes and the reason arrive", func(t *testing.T) {
		f := fixture(t)
		value := []byte("{not a read")
		letters := []stream.DeadLetter{
			{Partition: 0, Offset: 7, Reason: stream.ReasonJSON, Value: value},
			{Partition: 0, Offset: 9, Reason: stream.ReasonEmpty},
		}
		if err := f.Dead.Send(context.Background(), letters); err != nil {
			t.Fatalf("Send: %v", err)
		}
		copy(value, "xxxxxxxxxxx") // the caller owns it again
		got := f.All(t)
		if len(got) != 2 {
			t.Fatalf("%d letters, want 2", len(got))
		}
		for _, l := range got {
			switch l.Offset {
			case 7:
				if string(l.Value) != "{not a read" || l.Reason != stream.ReasonJSON {
					t.Errorf("letter %+v", l)
				}
			case 9:
				if len(l.Value) != 0 || l.Reason != stream.ReasonEmpty {
					t.Errorf("letter %+v", l)
				}
			default:
				t.Errorf("letter of offset %d", l.Offset)
			}
		}
	})
}
