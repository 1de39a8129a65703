package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/streamtest"
	"vigie/watchlist"
)

// failover puts a Failover before the queues of the house.
func (h *house) failover(change func(*stream.FailoverConfig)) (f *stream.Failover, stop func()) {
	h.t.Helper()
	cfg := stream.FailoverConfig{
		Store: h.queues, Hits: h.journal, Replica: h.replica, Rewind: 30 * time.Second, Every: 5 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	f, err := stream.NewFailover(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return f, h.background("failover", f.Run)
}

// inQueue returns the reads whose alerts are in the queue, in order of id.
func (h *house) inQueue() (ids []string) {
	for _, a := range h.queues.In(watchlist.DefaultQueue) {
		ids = append(ids, a.Read.ID)
	}
	slices.Sort(ids)
	return ids
}

func readIDs(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("r%02d", i))
	}
	return ids
}

// TestFailoverPutsBack: what a server that took over lacks comes back once; the same
// without a rewind loses it, which shows that the test would see a loss.
func TestFailoverPutsBack(t *testing.T) {
	for _, rewind := range []time.Duration{30 * time.Second, 0} {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprintf("rewind=%v/keep=%v", rewind, keep), func(t *testing.T) {
				h := newHouse(t)
				h.list("stolen", watchlist.ToleranceExact)
				h.entry("stolen", "AB-123-CD")
				f, _ := h.failover(func(c *stream.FailoverConfig) { c.Rewind = rewind })
				_, stop := h.process(func(c *stream.Config) { c.Queues = f })
				for _, id := range readIDs(10) {
					h.produce(0, read(id, "AB-123-CD"))
				}
				h.committed(10, 0)
				// The matcher stops: nothing but the rewind can bring anything back.
				stop()
				h.queues.Lose(keep, 4)
				until(t, "the fail-over is noticed", func() bool { return f.Stats().Failovers == 1 })
				want := readIDs(10)
				switch {
				case rewind == 0 && keep:
					want = readIDs(6)
				case rewind == 0:
					want = nil
				}
				if got := h.inQueue(); !slices.Equal(got, want) {
					t.Errorf("in the queue: %v, want %v", got, want)
				}
				restored := map[bool]int64{true: int64(len(want)), false: 0}[rewind > 0]
				if keep && rewind > 0 {
					restored = 4
				}
				if s := f.Stats(); s.Restored != restored || s.Failovers != 1 {
					t.Errorf("stats %+v, want %d restored", s, restored)
				}
			})
		}
	}
}

// TestFailoverOfManyProcesses: each of three processes makes it good, at once, and once.
func TestFailoverOfManyProcesses(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	var fs []*stream.Failover
	for range 3 {
		f, _ := h.failover(nil)
		fs = append(fs, f)
	}
	h.process(func(c *stream.Config) { c.Queues = fs[0] })
	for _, id := range readIDs(10) {
		h.produce(0, read(id, "AB-123-CD"))
	}
	h.committed(10, 0)
	h.queues.Lose(false, 0)
	for _, f := range fs {
		until(t, "every process has noticed", func() bool { return f.Stats().Failovers >= 1 })
	}
	if got := h.inQueue(); !slices.Equal(got, readIDs(10)) {
		t.Errorf("in the queue: %v", got)
	}
}

// TestWithdrawnDoesNotComeBack: what was withdrawn after its alert was queued stays out of
// queues that are made good, and the fence of the withdrawal stands again.
func TestWithdrawnDoesNotComeBack(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	gone := h.entry("stolen", "EF-456-GH")
	f, _ := h.failover(nil)
	_, stop := h.process(func(c *stream.Config) { c.Queues = f })
	h.produce(0, read("r00", "AB-123-CD"), read("r01", "EF-456-GH"))
	h.committed(2, 0)
	stop()
	old := streamtest.NewAlert("old", watchlist.DefaultQueue, h.replica.Version())
	if _, err := h.desk.WithdrawEntry(t.Context(), "op", "stolen", gone.ID, "found"); err != nil {
		t.Fatal(err)
	}
	h.queues.Lose(false, 0)
	// No look has been needed yet: the first publisher on the new connection makes good.
	got, err := f.Publish(t.Context(), []*alert.Alert{old})
	if err != nil || got[0].Outcome != stream.Stale || got[0].Fence != h.replica.Version() {
		t.Errorf("an alert from before the withdrawal: %+v, %v; want Stale at %d", got, err, h.replica.Version())
	}
	if got := h.inQueue(); !slices.Equal(got, []string{"r00"}) {
		t.Errorf("in the queue: %v, want r00 only", got)
	}
	if s := f.Stats(); s.Unwanted < 1 || s.Restored != 1 {
		t.Errorf("stats %+v", s)
	}
}

// gate is a journal that waits before it appends.
type gate struct {
	*streamtest.Journal
	reached, open chan struct{}
	once          sync.Once
}

func (g *gate) Append(ctx context.Context, events []*alert.Event) error {
	g.once.Do(func() { close(g.reached) })
	select {
	case <-g.open:
	case <-ctx.Done():
		return ctx.Err()
	}
	return g.Journal.Append(ctx, events)
}

// TestFailoverBetweenQueueAndHits: the queue had answered, the hits topic had not, when
// Redis was lost and made good. Without the generations nobody would have the alert.
func TestFailoverBetweenQueueAndHits(t *testing.T) {
	for _, generations := range []bool{true, false} {
		t.Run(fmt.Sprintf("generations=%v", generations), func(t *testing.T) {
			h := newHouse(t)
			h.list("stolen", watchlist.ToleranceExact)
			h.entry("stolen", "AB-123-CD")
			f, stopFailover := h.failover(nil)
			var queues stream.Queues = f
			if !generations {
				queues = struct{ stream.Queues }{f}
			}
			g := &gate{Journal: h.journal, reached: make(chan struct{}), open: make(chan struct{})}
			h.process(func(c *stream.Config) { c.Queues, c.Journal = queues, g })
			h.produce(0, read("r00", "AB-123-CD"))
			<-g.reached
			h.queues.Lose(false, 0)
			until(t, "the queues are made good", func() bool { return f.Stats().Failovers == 1 })
			stopFailover() // no second look
			close(g.open)
			h.committed(1, 0)
			if got := len(h.inQueue()); (got == 1) != generations {
				t.Errorf("%d alerts in the queue", got)
			}
		})
	}
}

// TestRewindBeginsBeforeTheOutage: Redis was away for longer than the rewind. What counts
// is when it was last known to be good, not now.
func TestRewindBeginsBeforeTheOutage(t *testing.T) {
	for _, tc := range []struct {
		name      string
		restarted bool // the matcher too, so that only the mark knows
		keep      bool // some of the data, and with it the mark; else only the matcher knows
	}{{"both know", false, true}, {"the mark knows", true, true}, {"the matcher knows", false, false}} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHouse(t)
			h.list("stolen", watchlist.ToleranceExact)
			h.entry("stolen", "AB-123-CD")
			var shift atomic.Int64
			clock := func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
			var down atomic.Bool
			h.queues.Fail = func() error {
				if down.Load() {
					return errors.New("away")
				}
				return nil
			}
			f, stopFailover := h.failover(func(c *stream.FailoverConfig) { c.Clock = clock })
			_, stop := h.process(func(c *stream.Config) { c.Queues = f })
			for _, id := range readIDs(5) {
				h.produce(0, read(id, "AB-123-CD"))
			}
			h.committed(5, 0)
			stop()
			down.Store(true)
			until(t, "the outage is noticed", func() bool { return f.Stats().Failures > 0 })
			if tc.restarted {
				stopFailover()
			}
			shift.Store(int64(10 * time.Minute))
			h.queues.Lose(tc.keep, 3)
			down.Store(false)
			if tc.restarted {
				f, _ = h.failover(func(c *stream.FailoverConfig) { c.Clock = clock })
			}
			until(t, "the fail-over is noticed", func() bool { return f.Stats().Failovers == 1 })
			if got := h.inQueue(); !slices.Equal(got, readIDs(5)) {
				t.Errorf("in the queue: %v", got)
			}
		})
	}
}

// TestSecondLook: another process had an acknowledgement of the old server in hand, wrote its
// hit after this one had read the hits, and died. The look after settle finds it.
func TestSecondLook(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	var shift atomic.Int64
	f, _ := h.failover(func(c *stream.FailoverConfig) {
		c.Clock = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	})
	_, stop := h.process(func(c *stream.Config) { c.Queues = f })
	h.produce(0, read("r00", "AB-123-CD"))
	h.committed(1, 0)
	stop()
	h.queues.Lose(false, 0)
	until(t, "the fail-over is noticed", func() bool { return f.Stats().Failovers == 1 })
	late := *h.journal.Events()[0].Alert
	late.ID, late.Read.ID = "late", "r01"
	if err := h.journal.Append(t.Context(), []*alert.Event{alert.Hit(&late)}); err != nil {
		t.Fatal(err)
	}
	shift.Store(int64(10 * time.Second))
	until(t, "the late hit is put back", func() bool { return slices.Equal(h.inQueue(), readIDs(2)) })
	if s := f.Stats(); s.Failovers != 1 {
		t.Errorf("the second look counts as a fail-over: %+v", s)
	}
}

// TestBlocked: while nothing can be published, the alarm's figure grows; then it is 0.
func TestBlocked(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	var down atomic.Bool
	h.queues.Fail = func() error {
		if down.Load() {
			return errors.New("READONLY")
		}
		return nil
	}
	f, _ := h.failover(nil)
	h.process(func(c *stream.Config) { c.Queues = f })
	h.produce(0, read("r00", "AB-123-CD"))
	h.committed(1, 0)
	if got := f.Stats().Blocked; got != 0 {
		t.Errorf("blocked for %v while all is well", got)
	}
	down.Store(true)
	h.produce(0, read("r01", "AB-123-CD"))
	until(t, "it is blocked", func() bool { return f.Stats().Blocked > 20*time.Millisecond })
	if got := h.reads.Committed(); got[0] != 1 {
		t.Errorf("committed %v while Redis refuses", got)
	}
	down.Store(false)
	h.committed(2, 0)
	if got := f.Stats().Blocked; got != 0 {
		t.Errorf("blocked for %v after it", got)
	}
}

// TestAHangingServer: a look that hangs costs all partitions one wait, not one each, and
// whoever is told to stop does.
func TestAHangingServer(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	const hang = 200 * time.Millisecond
	h.queues.Fail = func() error { time.Sleep(hang); return errors.New("no answer") }
	f, err := stream.NewFailover(stream.FailoverConfig{Store: h.queues, Hits: h.journal, Replica: h.replica})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	began := time.Now()
	for range 8 {
		wg.Go(func() {
			if _, err := f.Publish(t.Context(), []*alert.Alert{streamtest.NewAlert("a", "q", 1)}); err == nil {
				t.Error("published to a server that hangs")
			}
		})
	}
	time.Sleep(hang / 4)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Publish(stopped, []*alert.Alert{streamtest.NewAlert("b", "q", 1)}); !errors.Is(err, context.Canceled) || time.Since(began) > hang {
		t.Errorf("told to stop: %v after %v", err, time.Since(began))
	}
	wg.Wait()
	if took := time.Since(began); took > 3*hang {
		t.Errorf("8 partitions waited %v for a server that hangs %v", took, hang)
	}
}
