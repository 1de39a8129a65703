package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/streamtest"
	"vigie/watchlist"
)

// passage makes reads of one passage, one for each plate.
func passage(id string, plates ...string) (reads []sensors.Read) {
	for i, p := range plates {
		r := read(fmt.Sprint(id, "-", i), p)
		r.Passage, r.Revision = id, uint32(i)
		reads = append(reads, r)
	}
	return reads
}

// standings are the alerts in their queue as "plate state", in order.
func (h *house) standings() string {
	var words []string
	for _, a := range h.queues.In(watchlist.DefaultQueue) {
		now, s := h.queues.Standing(a.ID)
		words = append(words, fmt.Sprint(now.Match.Read, " ", s))
	}
	return strings.Join(words, ", ")
}

// steps are the events on the hits topic as "plate of the entry step state outcome".
func (h *house) steps() string {
	entry := map[string]string{}
	var words []string
	for _, e := range h.journal.Events() {
		if e.Alert != nil {
			entry[e.AlertID] = e.Alert.Match.Entry
		}
		words = append(words, strings.TrimSpace(fmt.Sprintf("%s %d %s %s", entry[e.AlertID], e.Step, e.State, e.Outcome)))
	}
	return strings.Join(words, ", ")
}

// TestPassages reads passages in one batch and read by read; what the last read hits stands, and
// nothing else does.
func TestPassages(t *testing.T) {
	const a, b, free = "AB-123-CD", "AB-124-CD", "ZZ-999-ZZ"
	for _, tc := range []struct {
		name             string
		plates           []string
		standings, steps string
	}{
		{"changes", []string{a, free}, "AB123CD withdrawn", "AB123CD 1 new, AB123CD 2 withdrawn other_plate"},
		{
			"changes to another target", []string{a, b}, "AB123CD withdrawn, AB124CD new",
			"AB123CD 1 new, AB124CD 1 new, AB123CD 2 withdrawn other_plate",
		},
		{
			"changes back", []string{a, free, a}, "AB123CD new",
			"AB123CD 1 new, AB123CD 2 withdrawn other_plate, AB123CD 3 new read_again",
		},
		{"becomes a target", []string{free, a}, "AB123CD new", "AB123CD 1 new"},
		{"stays", []string{a, a}, "AB123CD new", "AB123CD 1 new"},
		{"is lost from sight", []string{a, "unknown"}, "AB123CD new", "AB123CD 1 new"},
		{"never hits", []string{free, "ZZ-998-ZZ"}, "", ""},
	} {
		for _, size := range []int{1, 100} {
			t.Run(fmt.Sprintf("%s/batch=%d", tc.name, size), func(t *testing.T) {
				h := newHouse(t)
				h.list("stolen", watchlist.ToleranceExact)
				h.entry("stolen", a)
				h.entry("stolen", b)
				h.produce(0, passage("p1", tc.plates...)...)
				h.process(func(c *stream.Config) { c.Source = h.reads.Source(size) })
				h.committed(int64(len(tc.plates)), 0)
				if got := h.standings(); got != tc.standings {
					t.Errorf("alerts: %s\nwant %s", got, tc.standings)
				}
				// The hit of a duplicate is on the topic again, and in one batch all hits come first.
				got, seen := "", map[string]bool{}
				for _, s := range strings.Split(h.steps(), ", ") {
					if !seen[s] {
						seen[s] = true
						got += ", " + s
					}
				}
				if got = strings.TrimPrefix(got, ", "); got != tc.steps {
					t.Errorf("steps: %s\nwant %s", got, tc.steps)
				}
			})
		}
	}
}

// TestPassagesInABacklog: while a matcher is behind, alerts wait for each other over batches;
// a later read of their passage must find them all the same.
func TestPassagesInABacklog(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	const batches, size = 200, 100
	var records int64
	for i := range batches {
		here := passage(fmt.Sprint("p", i), "AB-123-CD", "ZZ-999-ZZ")
		before := passage(fmt.Sprint("q", i-1), "AB-123-CD", "ZZ-999-ZZ", "AB-123-CD")
		h.produce(0, here[0], here[1], passage(fmt.Sprint("q", i), "AB-123-CD")[0], before[1], before[2])
		for j := range size - 5 {
			h.produce(0, read(fmt.Sprint("r", i, "-", j), "EF-456-GH"))
		}
		records += size
	}
	q := &counting{Queues: h.queues}
	h.process(func(c *stream.Config) { c.Source, c.Queues = h.reads.Source(size), q })
	h.committed(records, 0)
	withdrawn, stand := 0, 0
	for _, a := range h.queues.In(watchlist.DefaultQueue) {
		_, s := h.queues.Standing(a.ID)
		switch {
		case s == alert.StateWithdrawn && a.Read.Passage[0] == 'p':
			withdrawn++
		case s == alert.StateNew && a.Read.Passage[0] == 'q':
			stand++
		default:
			t.Errorf("an alert of passage %s is %v", a.Read.Passage, s)
		}
	}
	if withdrawn != batches || stand != batches+1 { // q-1 begins with its revision 1
		t.Errorf("%d withdrawn and %d standing of %d", withdrawn, stand, batches)
	}
	if n := q.calls.Load(); n >= batches {
		t.Errorf("%d calls for %d batches: nothing waited", n, batches)
	}
}

// TestStrongerReadAmends: the same plate with more confidence is shown, without a new alert.
func TestStrongerReadAmends(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	reads := passage("p1", "AB-123-CD", "AB-123-CD")
	reads[1].Conf = 0.99
	h.produce(0, reads...)
	p, _ := h.process(nil)
	h.committed(2, 0)
	as := h.queues.In(watchlist.DefaultQueue)
	if len(as) != 1 {
		t.Fatalf("%d alerts, want 1", len(as))
	}
	if now, s := h.queues.Standing(as[0].ID); s != alert.StateNew || now.Read.Conf != 0.99 || now.Read.ID != "p1-1" {
		t.Errorf("shown: %+v %v", now, s)
	}
	if s := p.Stats(); s.Alerts != 1 || s.Duplicates != 1 {
		t.Errorf("stats %+v", s)
	}
}

// TestCorrectionAfterTake: the one who has taken an alert keeps it, and is told.
func TestCorrectionAfterTake(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	h.process(nil)
	reads := passage("p1", "AB-123-CD", "ZZ-999-ZZ")
	h.produce(0, reads[0])
	h.committed(1, 0)
	h.queues.Take(h.queues.In(watchlist.DefaultQueue)[0].ID)
	h.produce(0, reads[1])
	h.committed(2, 0)
	if got := h.steps(); got != "AB123CD 1 new, AB123CD 3 taken other_plate" {
		t.Errorf("steps: %s", got)
	}
}

// TestWeakReadTakesNothingBack: the last frames of a vehicle that leaves are the worst; one of them
// must not cost the alert of a good one, and is told.
func TestWeakReadTakesNothingBack(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	reads := passage("p1", "AB-123-CD", "A8-123-CD", "AB-128-CD")
	reads[2].Conf = 0.3
	h.produce(0, reads...)
	h.process(nil)
	h.committed(3, 0)
	if got := h.steps(); got != "AB123CD 1 new, AB123CD 2 new other_plate" {
		t.Errorf("steps: %s", got)
	}
}

// TestWithdrawnEntryIsNoCorrection: when the same plate no longer hits, it is the list that has
// changed, and the camera must not be blamed.
func TestWithdrawnEntryIsNoCorrection(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	e := h.entry("stolen", "AB-123-CD")
	h.process(nil)
	reads := passage("p1", "AB-123-CD", "AB-123-CD", "ZZ-999-ZZ")
	h.produce(0, reads[0])
	h.committed(1, 0)
	if _, err := h.desk.WithdrawEntry(t.Context(), "op", "stolen", e.ID, "found"); err != nil {
		t.Fatal(err)
	}
	h.produce(0, reads[1])
	h.committed(2, 0)
	if got := h.steps(); got != "AB123CD 1 new" {
		t.Errorf("steps: %s", got)
	}
	h.produce(0, reads[2])
	h.committed(3, 0)
	if got := h.standings(); got != "AB123CD withdrawn" {
		t.Errorf("alerts: %s", got)
	}
}

// revising are queues whose Revise fails as told, before or after it has worked.
type revising struct {
	*streamtest.Queues
	fail  func() error
	after bool
}

func (q *revising) Revise(ctx context.Context, reads []stream.Revision) ([]*alert.Event, error) {
	if q.after {
		if _, err := q.Queues.Revise(ctx, reads); err != nil {
			return nil, err
		}
	}
	if err := q.fail(); err != nil {
		return nil, err
	}
	return q.Queues.Revise(ctx, reads)
}

// TestCrashInPassage stops the processor at each point of a passage that changes and changes
// back, and starts another: what the last read says stands, and the hits topic tells the steps
// in order.
func TestCrashInPassage(t *testing.T) {
	for _, point := range []string{"before the queues", "before the correction", "after the correction", "before the hits topic"} {
		t.Run(point, func(t *testing.T) {
			h := newHouse(t)
			h.list("stolen", watchlist.ToleranceExact)
			h.entry("stolen", "AB-123-CD")
			var down atomic.Bool
			var tries atomic.Int64
			fail := func() error {
				if !down.Load() {
					return nil
				}
				tries.Add(1)
				return errors.New("away")
			}
			q := &revising{Queues: h.queues, fail: func() error { return nil }}
			switch point {
			case "before the queues":
				h.queues.Fail = fail
			case "before the correction":
				q.fail = fail
			case "after the correction":
				q.fail, q.after = fail, true
			case "before the hits topic":
				h.journal.Fail = fail
			}
			short := func(c *stream.Config) { c.Queues, c.Drain = q, time.Millisecond }
			reads := passage("p1", "AB-123-CD", "ZZ-999-ZZ", "AB-123-CD")
			for i := range reads {
				down.Store(true)
				before := tries.Load()
				_, stop := h.process(short)
				h.produce(0, reads[i])
				if i == 0 && strings.HasSuffix(point, "correction") {
					h.committed(1, 0) // there is nothing to correct
				} else {
					until(t, "it was tried", func() bool { return tries.Load() > before })
				}
				stop()
				down.Store(false)
				_, stop = h.process(short)
				h.committed(int64(i+1), 0)
				stop()
			}
			// All of it comes once more.
			h.produce(0, reads...)
			h.process(short)
			h.committed(6, 0)
			if got := h.standings(); got != "AB123CD new" {
				t.Errorf("alerts: %s", got)
			}
			last := uint32(0)
			for _, e := range h.journal.Events() {
				if e.Step > last+1 {
					t.Errorf("step %d after %d", e.Step, last)
				}
				last = max(last, e.Step)
			}
			if last != 3 {
				t.Errorf("the hits topic has: %s", h.steps())
			}
		})
	}
}

// blind are queues that take no later reads: the defence switched off.
type blind struct{ *streamtest.Queues }

func (blind) Revise(context.Context, []stream.Revision) ([]*alert.Event, error) { return nil, nil }

// TestWithoutRevisionsTheAlertStays is the negative control of the tests above.
func TestWithoutRevisionsTheAlertStays(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	h.process(func(c *stream.Config) { c.Queues = blind{h.queues} })
	h.produce(0, passage("p1", "AB-123-CD", "ZZ-999-ZZ")...)
	h.committed(2, 0)
	if got := h.standings(); got != "AB123CD new" {
		t.Errorf("alerts: %s: what the defence prevents is not seen here", got)
	}
}

// TestPanicInRevise: a later read that makes the program panic is a dead letter, and those
// beside it are brought to the queues.
func TestPanicInRevise(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	guilty := passage("p1", "ZZ-999-ZZ", poison)
	h.produce(0, append(guilty, passage("p2", "AB-123-CD", "ZZ-999-ZZ")...)...)
	q := &revising{Queues: h.queues, fail: func() error { return nil }}
	p, _ := h.process(func(c *stream.Config) { c.Queues = panicky{q} })
	h.committed(4, 0)
	if got := h.standings(); got != "AB123CD withdrawn" {
		t.Errorf("alerts: %s", got)
	}
	letters := h.dead.Letters()
	if len(letters) != 1 || letters[0].Offset != 1 || letters[0].Reason != stream.ReasonPanic || p.Stats().Panics == 0 {
		t.Errorf("dead letters %+v", letters)
	}
}

// panicky are queues that panic over a later read of the poison.
type panicky struct{ *revising }

func (q panicky) Revise(ctx context.Context, reads []stream.Revision) ([]*alert.Event, error) {
	for i := range reads {
		if reads[i].Read.Plate == poison {
			panic("cannot revise " + poison)
		}
	}
	return q.revising.Revise(ctx, reads)
}

// TestRevisionIsPublishedAgain: the queues lose what a later read has changed, between their
// answer and that of the hits topic; it is made again.
func TestRevisionIsPublishedAgain(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	q := &lossy{Queues: h.queues}
	h.produce(0, passage("p1", "AB-123-CD", "ZZ-999-ZZ")...)
	h.process(func(c *stream.Config) { c.Queues = q })
	h.committed(2, 0)
	if got := h.standings(); got != "AB123CD withdrawn" {
		t.Errorf("alerts: %s", got)
	}
}

// lossy are queues that lose everything once, after the first correction.
type lossy struct {
	*streamtest.Queues
	generation atomic.Int64
}

func (q *lossy) Generation() int64 { return q.generation.Load() }

func (q *lossy) Revise(ctx context.Context, reads []stream.Revision) ([]*alert.Event, error) {
	events, err := q.Queues.Revise(ctx, reads)
	if len(events) > 0 && q.generation.CompareAndSwap(0, 1) {
		q.Lose(false, 0)
	}
	return events, err
}
