package redisqueue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"vigie/stream/alert"
	"vigie/stream/streamtest"
)

// startHub runs a hub until the test ends; stop ends it sooner.
func startHub(t testing.TB, q *Queues, cfg HubConfig) (h *Hub, stop func()) {
	t.Helper()
	h = NewHub(q, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Errorf("Run has not returned %v after its context ended", patience)
		}
	})
	t.Cleanup(stop)
	return h, stop
}

func subscribe(t testing.TB, h *Hub, queue, after string) *Subscription {
	t.Helper()
	s, err := h.Subscribe(context.Background(), queue, after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// next returns the next n messages.
func next(t testing.TB, s *Subscription, n int) []Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out := make([]Message, n)
	for i := range out {
		var err error
		if out[i], err = s.Next(ctx); err != nil {
			t.Fatalf("message %d of %d: %v", i, n, err)
		}
	}
	return out
}

// nothing checks that there is no message for a moment.
func nothing(t testing.TB, s *Subscription) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if m, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Next: %v, %v; want to wait", m, err)
	}
}

// isLive returns once s gets its messages from the reader.
func isLive(t testing.TB, s *Subscription) {
	t.Helper()
	streamtest.Eventually(t, patience, "the subscription to be live", func() bool {
		nothing(t, s)
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.mode == live
	})
}

func TestSubscribe(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		h, _ := startHub(t, q, HubConfig{})
		publish(t, q, makeAlerts(300, "q1")...) // more than two pages
		kept := inQueue(t, q, "q1")

		fresh := subscribe(t, h, "q1", "")
		all := subscribe(t, h, "q1", "0")
		some := subscribe(t, h, "q1", kept[199].ID)
		none := subscribe(t, h, "q1", kept[299].ID)
		beyond := subscribe(t, h, "q1", "99999999999999-0") // of another Redis, perhaps
		empty := subscribe(t, h, "q2", "")
		if got := list(next(t, all, 300)); got != list(kept) {
			t.Errorf("after 0: %.100s", got)
		}
		if got := list(next(t, some, 100)); got != list(kept[200:]) {
			t.Errorf("after the 200th: %.100s", got)
		}

		later := makeAlert("later", "q1")
		publish(t, q, later)
		step(t, q, "later", alert.VerbTake, "bri-12", "")
		for name, s := range map[string]*Subscription{"new": fresh, "all": all, "some": some, "none": none, "beyond": beyond} {
			got := next(t, s, 2)
			if list(got) != "alert:later update:later" || got[0].Queue != "q1" || !strings.Contains(string(got[1].Data), `"taken"`) {
				t.Errorf("%s: %s", name, list(got))
			}
			if kept := inQueue(t, q, "q1"); got[0].ID != kept[300].ID || got[1].ID != kept[301].ID {
				t.Errorf("%s: ids %v, want those of the stream", name, got)
			}
			nothing(t, s)
		}
		nothing(t, empty)
		publish(t, q, makeAlert("b", "q2"))
		if got := list(next(t, empty, 1)); got != "alert:b" {
			t.Errorf("q2: %s", got)
		}
		if s := h.Stats(); s.Subscribers != 6 || s.Readers != 2 || s.Delivered != 300+100+10+1 || s.Slow != 0 || s.Failures != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestSubscribeRefuses(t *testing.T) {
	q, err := Open(Config{Addr: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	h, stop := startHub(t, q, HubConfig{})
	for _, id := range []string{"x", "$", "-", "+", "1", "1-", "-1", "1-2-3", "1-x", "+1-1", "01-1", "1-01", " 1-1", "1-1 ", "18446744073709551616-0", "1-18446744073709551616", "(1-1"} {
		if _, err := h.Subscribe(ctx, "q1", id); !errors.Is(err, ErrBadID) {
			t.Errorf("after %q: %v, want ErrBadID", id, err)
		}
	}
	if _, err := h.Subscribe(ctx, "q1", ""); err == nil || errors.Is(err, ErrBadID) {
		t.Errorf("without Redis: %v", err)
	}
	stop()
	if _, err := h.Subscribe(ctx, "q1", ""); !errors.Is(err, ErrClosed) {
		t.Errorf("after Run: %v, want ErrClosed", err)
	}
}

// TestSubscribeAnyTime subscribes at random moments, to all there is or to what comes
// from now on, and leaves and comes back, while messages come in: each message once and
// in order.
func TestSubscribeAnyTime(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		const total = 1000
		q := open(t, b)
		h, _ := startHub(t, q, HubConfig{Buffer: total})
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		var writers, readers, begun sync.WaitGroup
		for w := range 2 {
			writers.Go(func() {
				for i := 0; i < total/2; {
					var batch []*alert.Alert
					for n := 1 + rand.N(20); n > 0 && i < total/2; n, i = n-1, i+1 {
						batch = append(batch, makeAlert(fmt.Sprintf("%d-%04d", w, i), "q1"))
					}
					if _, err := q.Publish(ctx, batch); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		got := make([][]string, 12)
		for i := range got {
			begun.Add(1)
			readers.Go(func() {
				time.Sleep(rand.N(100 * time.Millisecond))
				after := []string{"0", ""}[i%2]
				for first := true; ; first = false {
					s, err := h.Subscribe(ctx, "q1", after)
					if first {
						begun.Done()
					}
					if err != nil {
						t.Error(err)
						return
					}
					for n := 1 + rand.N(400); n > 0; n-- {
						m, err := s.Next(ctx)
						if err != nil {
							t.Errorf("subscriber %d: %v", i, err)
							s.Close()
							return
						}
						got[i], after = append(got[i], m.ID), m.ID
						if m.AlertID == "end" {
							s.Close()
							return
						}
					}
					s.Close()
				}
			})
		}
		writers.Wait()
		begun.Wait()
		publish(t, q, makeAlert("end", "q1"))
		readers.Wait()
		var want []string
		for _, m := range inQueue(t, q, "q1") {
			want = append(want, m.ID)
		}
		if len(want) != total+1 {
			t.Fatalf("%d messages, want %d", len(want), total+1)
		}
		for i, ids := range got {
			if i%2 == 1 && len(ids) <= len(want) {
				want := want[len(want)-len(ids):]
				if !slices.Equal(ids, want) {
					t.Errorf("subscriber %d, from then on: %d messages, not the last ones in order", i, len(ids))
				}
			} else if !slices.Equal(ids, want) {
				t.Errorf("subscriber %d: %d messages, not all in order", i, len(ids))
			}
		}
	})
}

// TestSlow: who does not take his messages is cut, and nobody else notices.
func TestSlow(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		h, _ := startHub(t, q, HubConfig{Buffer: 10})
		slow, quick := subscribe(t, h, "q1", ""), subscribe(t, h, "q1", "")
		isLive(t, slow)
		isLive(t, quick)
		var last string
		for i := range 30 {
			publish(t, q, makeAlert(fmt.Sprint("a", i), "q1"))
			m := next(t, quick, 1)[0]
			if m.AlertID != fmt.Sprint("a", i) {
				t.Fatalf("the quick one got %v as message %d", m, i)
			}
			if i == 4 {
				last = next(t, slow, 5)[4].ID
			}
		}
		if m, err := slow.Next(ctx); !errors.Is(err, ErrSlow) {
			t.Errorf("the slow one: %v, %v; want ErrSlow", m, err)
		}
		if s := h.Stats(); s.Slow != 1 {
			t.Errorf("stats %+v", s)
		}
		slow.Close()
		if s := h.Stats(); s.Subscribers != 1 {
			t.Errorf("stats %+v", s)
		}
		// It has lost nothing.
		if got := list(next(t, subscribe(t, h, "q1", last), 25)); !strings.HasPrefix(got, "alert:a5 ") || !strings.HasSuffix(got, " alert:a29") {
			t.Errorf("back again it gets %s", got)
		}
	})
}

// TestSlowEnough is the negative control: within the buffer nobody is cut.
func TestSlowEnough(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		h, _ := startHub(t, q, HubConfig{Buffer: 10})
		s, probe := subscribe(t, h, "q1", ""), subscribe(t, h, "q1", "")
		isLive(t, s)
		isLive(t, probe)
		publish(t, q, makeAlerts(10, "q1")...)
		next(t, probe, 10)
		if got := len(next(t, s, 10)); got != 10 || h.Stats().Slow != 0 {
			t.Errorf("%d messages, stats %+v", got, h.Stats())
		}
	})
}

// TestRedisComesBack: subscriptions outlive an outage, and a backlog larger than their
// buffers is no reason to cut them.
func TestRedisComesBack(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		l := streamtest.NewProxy(t, b.addr)
		core, logs := observer.New(zap.InfoLevel)
		q := open(t, b, func(c *Config) { c.Addr, c.Log = l.Addr(), zap.New(core) })
		other := open(t, b, func(c *Config) { c.Prefix = q.cfg.Prefix })
		h, _ := startHub(t, q, HubConfig{Buffer: 5})
		waiting := subscribe(t, h, "q1", "")
		isLive(t, waiting)
		replaying := subscribe(t, h, "q1", "0")  // has not begun
		for round, n := range []int{1, 5, 600} { // fits the buffer, fills it, is a backlog of several pages
			before := h.Stats().Failures
			l.Down()
			streamtest.Eventually(t, patience, "the outage to be noticed", func() bool { return h.Stats().Failures > before })
			var batch []*alert.Alert
			for i := range n {
				batch = append(batch, makeAlert(fmt.Sprintf("r%d-%03d", round, i), "q1"))
			}
			publish(t, other, batch...)
			l.Heal()
			for i, m := range next(t, waiting, n) {
				if want := batch[i].ID; m.AlertID != want {
					t.Fatalf("round %d, message %d: %v, want %s", round, i, m, want)
				}
			}
			isLive(t, waiting)
		}
		if got, want := list(next(t, replaying, 606)), list(inQueue(t, other, "q1")); got != want {
			t.Errorf("after 0: %.100s", got)
		}
		if logs.FilterMessage("the alert queue can be read again").Len() == 0 {
			t.Error("the log does not say that it is over")
		}
	})
}

// TestReplayThroughOutage: Redis is away at the moment of the first Next.
func TestReplayThroughOutage(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		l := streamtest.NewProxy(t, b.addr)
		q := open(t, b, func(c *Config) { c.Addr = l.Addr() })
		publish(t, q, makeAlert("a", "q1"))
		h, _ := startHub(t, q, HubConfig{})
		s := subscribe(t, h, "q1", "0")
		l.Down()
		nothing(t, s)
		l.Heal()
		if got := list(next(t, s, 1)); got != "alert:a" || h.Stats().Failures == 0 {
			t.Errorf("got %s, stats %+v", got, h.Stats())
		}
	})
}

// TestStreamLosesItsEnd: a failover loses the last messages, and the clock of the new
// server is behind, so that its messages get lower ids than those already seen.
func TestStreamLosesItsEnd(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		l := streamtest.NewProxy(t, b.addr)
		q := open(t, b, func(c *Config) { c.Addr = l.Addr() })
		other := open(t, b, func(c *Config) { c.Prefix = q.cfg.Prefix })
		h, _ := startHub(t, q, HubConfig{})
		s := subscribe(t, h, "q1", "")
		isLive(t, s)
		publish(t, q, makeAlert("lost", "q1"))
		next(t, s, 1)

		before := h.Stats().Failures
		l.Down()
		streamtest.Eventually(t, patience, "the outage to be noticed", func() bool { return h.Stats().Failures > before })
		wipe(t, other)
		l.Heal()
		streamtest.Eventually(t, patience, "the reader to go back", func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			r := h.readers["q1"]
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.last == streamID{}
		})
		hit := alert.Hit(makeAlert("low", "q1"))
		hit.At -= 60_000 // Restore gives the id of that time
		if err := other.Restore(ctx, []*alert.Event{hit}); err != nil {
			t.Fatal(err)
		}
		if got := list(next(t, s, 1)); got != "alert:low" {
			t.Errorf("got %s", got)
		}
	})
}

// TestReplayAcrossFailover is the same for a subscriber who has just come back with the id
// of a message that is lost.
func TestReplayAcrossFailover(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		l := streamtest.NewProxy(t, b.addr)
		q := open(t, b, func(c *Config) { c.Addr = l.Addr() })
		other := open(t, b, func(c *Config) { c.Prefix = q.cfg.Prefix })
		h, _ := startHub(t, q, HubConfig{})
		publish(t, q, makeAlert("lost", "q1"))
		s := subscribe(t, h, "q1", inQueue(t, q, "q1")[0].ID)
		l.Down()
		nothing(t, s)
		wipe(t, other)
		l.Heal()
		isLive(t, s)
		hit := alert.Hit(makeAlert("low", "q1"))
		hit.At -= 60_000
		if err := other.Restore(ctx, []*alert.Event{hit}); err != nil {
			t.Fatal(err)
		}
		if got := list(next(t, s, 1)); got != "alert:low" {
			t.Errorf("got %s", got)
		}
	})
}

// afterRange calls f after the first XRANGE.
type afterRange struct {
	once *sync.Once
	f    func()
}

func (h afterRange) DialHook(next redis.DialHook) redis.DialHook { return next }
func (h afterRange) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h afterRange) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == "xrange" {
			h.once.Do(h.f)
		}
		return err
	}
}

// TestNoGap: a message comes, and the reader hands it out, between the last look of a new
// subscriber at the stream and his joining the reader.
func TestNoGap(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		h, _ := startHub(t, q, HubConfig{})
		present := subscribe(t, h, "q1", "")
		isLive(t, present)
		publish(t, q, makeAlert("a", "q1"))
		next(t, present, 1)
		late := subscribe(t, h, "q1", "0")
		h.rdb.AddHook(afterRange{new(sync.Once), func() {
			publish(t, q, makeAlert("between", "q1"))
			next(t, present, 1)
		}})
		if got := list(next(t, late, 2)); got != "alert:a alert:between" {
			t.Errorf("got %s", got)
		}
		publish(t, q, makeAlert("b", "q1"))
		if got := list(next(t, late, 1)); got != "alert:b" {
			t.Errorf("got %s", got)
		}
	})
}

// TestReadersEnd: no subscriber, no reader; and a reader that is about to end serves the
// next subscriber.
func TestReadersEnd(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		h, _ := startHub(t, q, HubConfig{})
		if s := h.Stats(); s.Readers != 0 {
			t.Fatalf("stats %+v", s)
		}
		one, two := subscribe(t, h, "q1", ""), subscribe(t, h, "q1", "")
		isLive(t, one)
		isLive(t, two)
		if s := h.Stats(); s.Readers != 1 || s.Subscribers != 2 {
			t.Errorf("stats %+v, want one reader for two subscribers", s)
		}
		one.Close()
		two.Close()
		three := subscribe(t, h, "q1", "")
		isLive(t, three)
		publish(t, q, makeAlert("a", "q1"))
		if got := list(next(t, three, 1)); got != "alert:a" {
			t.Errorf("got %s", got)
		}
		three.Close()
		three.Close()
		begin := time.Now()
		streamtest.Eventually(t, patience, "the reader to end", func() bool { return h.Stats().Readers == 0 })
		if took := time.Since(begin); took > 2*block {
			t.Errorf("the reader ended after %v", took)
		}
		if s := h.Stats(); s.Subscribers != 0 {
			t.Errorf("stats %+v", s)
		}
		if _, err := three.Next(ctx); !errors.Is(err, ErrClosed) {
			t.Errorf("Next of a closed one: %v", err)
		}
	})
}

// TestCloseWakes ends a Next that waits.
func TestCloseWakes(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		h, _ := startHub(t, q, HubConfig{})
		s := subscribe(t, h, "q1", "")
		isLive(t, s)
		ended := make(chan error)
		go func() {
			_, err := s.Next(context.Background())
			ended <- err
		}()
		s.Close()
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("Next: %v", err)
		}
	})
}

// TestRunEnds although Redis has stopped answering, as a stopped process or a dead line
// does, with subscribers live and replaying.
func TestRunEnds(t *testing.T) {
	for _, stalled := range []bool{false, true} {
		t.Run(fmt.Sprint("stalled=", stalled), func(t *testing.T) {
			eachRedis(t, func(t *testing.T, b backend) {
				l := streamtest.NewProxy(t, b.addr)
				q := open(t, b, func(c *Config) { c.Addr = l.Addr() })
				h, stop := startHub(t, q, HubConfig{})
				quiet, replaying := subscribe(t, h, "q1", ""), subscribe(t, h, "q1", "0")
				isLive(t, quiet)
				if stalled {
					l.Hold(streamtest.BothWays)
				}
				var wg sync.WaitGroup
				for _, s := range []*Subscription{quiet, replaying} {
					wg.Go(func() {
						if _, err := s.Next(context.Background()); !errors.Is(err, ErrClosed) {
							t.Errorf("Next: %v, want ErrClosed", err)
						}
					})
				}
				time.Sleep(20 * time.Millisecond) // let both be in the middle of something
				begin := time.Now()
				stop()
				wg.Wait()
				if took := time.Since(begin); took > 1200*time.Millisecond {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestParseID(t *testing.T) {
	for _, s := range []string{"0-1", "1773470467412-0", "18446744073709551615-18446744073709551615"} {
		if id, err := parseID(s); err != nil || id.String() != s {
			t.Errorf("%s: %v, %v", s, id, err)
		}
	}
	if (streamID{1, 2}).less(streamID{1, 2}) || !(streamID{1, 2}).less(streamID{1, 3}) || !(streamID{1, 9}).less(streamID{2, 0}) {
		t.Error("the order is wrong")
	}
}

// BenchmarkDeliver is the time from Publish to the return of Next, one alert at a time.
func BenchmarkDeliver(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("subscribers=%d", n), func(b *testing.B) {
			q := open(b, backend{addr: streamtest.Need(b, "VIGIE_TEST_REDIS"), real: true})
			h, _ := startHub(b, q, HubConfig{})
			subs := make([]*Subscription, n)
			for i := range subs {
				subs[i] = subscribe(b, h, "q1", "")
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
				_, _ = subs[i].Next(ctx)
				cancel()
			}
			i := 0
			for b.Loop() {
				i++
				publish(b, q, makeAlert(fmt.Sprint("a", i), "q1"))
				for _, s := range subs {
					next(b, s, 1)
				}
			}
		})
	}
}
