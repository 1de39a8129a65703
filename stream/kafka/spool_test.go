package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"vigie/sensors"
	"vigie/sensors/spool"
	"vigie/stream/streamtest"
)

// TestSpoolBridgesOutage sends 2,000 reads per second, from sensors that each wait for the
// answer of a request before the next, while the brokers are gone for seconds. Every read
// that was acknowledged is on the topic, those that were spooled in the order of their sensor
// and passages in theirs; no request waits for long, and soon after their return the spool is
// empty.
func TestSpoolBridgesOutage(t *testing.T) {
	for _, o := range []outage{down, hung} {
		t.Run(o.name, func(t *testing.T) {
			each(t, func(t *testing.T, b backend) { spoolBridges(t, b, o) })
		})
	}
}

func spoolBridges(t *testing.T, b backend, o outage) {
	const sensorsN, perCall, pace = 20, 10, 100 * time.Millisecond
	c := open(t, b, Config{})
	topics(t, c, TopicsConfig{ReadsPartitions: 4})
	far, way := through(t, b, Config{Prefix: c.prefix})
	s, err := spool.Open(spool.Config{Dir: t.TempDir(), Log: logTo(t)})
	if err != nil {
		t.Fatalf("spool: %v", err)
	}
	defer s.Close()
	p, err := spool.NewPublisher(spool.PublisherConfig{
		Direct: far.Reads(), Spool: s, Log: logTo(t),
		Refused: func(err error) bool { return errors.Is(err, ErrTooLarge) },
	})
	if err != nil {
		t.Fatalf("publisher: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run, senders sync.WaitGroup
	run.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stop := func() { cancel(); senders.Wait(); run.Wait() }
	defer stop()

	var mu sync.Mutex
	away := false
	acked := make(map[string]bool)       // by id
	spooled := make(map[string][]string) // by sensor
	var slowest, slowestBack time.Duration
	back := false
	sending, halt := context.WithCancel(ctx)
	defer halt()
	for k := range sensorsN {
		senders.Go(func() {
			sensor := fmt.Sprintf("A7-%02d", k)
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for i := 0; ; i += perCall {
				reads := make([]sensors.Read, perCall)
				for j := range reads {
					reads[j] = sensors.Read{
						ID: fmt.Sprintf("%s-%06d", sensor, i+j), Sensor: sensor, Plate: "AB123CD", TS: 1773470467412,
						Received: time.Now().UnixMilli(), Passage: fmt.Sprint((i + j + 5) / 10), // half of one, half of the next
					}
				}
				mu.Lock()
				gone := away
				mu.Unlock()
				began := time.Now()
				err := p.Publish(ctx, reads)
				took := time.Since(began)
				if err != nil {
					t.Errorf("Publish: %v", err)
					return
				}
				mu.Lock()
				slowest = max(slowest, took)
				if back {
					slowestBack = max(slowestBack, took)
				}
				for _, r := range reads {
					acked[r.ID] = true
					if gone && away {
						spooled[sensor] = append(spooled[sensor], r.ID)
					}
				}
				mu.Unlock()
				select {
				case <-tick.C:
				case <-sending.Done():
					return
				}
			}
		})
	}

	time.Sleep(2 * time.Second)
	if st := p.Stats(); st.Direct == 0 {
		t.Errorf("before the outage: %+v", st)
	}
	o.begin(way)
	time.Sleep(time.Second) // until nothing of before is under way
	mu.Lock()
	away = true
	mu.Unlock()
	time.Sleep(4 * time.Second)
	mu.Lock()
	away = false
	mu.Unlock()
	depth := s.Stats().Depth
	way.Heal()
	healed := time.Now()
	streamtest.Eventually(t, patience, "the spool to be empty", func() bool {
		return s.Stats().Depth == 0 && !p.Stats().Open
	})
	drained := time.Since(healed)
	mu.Lock()
	back = true
	mu.Unlock()
	time.Sleep(2 * time.Second)
	halt()
	senders.Wait()
	streamtest.Eventually(t, patience, "the spool to be empty", func() bool { return s.Stats().Depth == 0 })
	stop()

	place := make(map[string]int)
	last := make(map[string]string) // by sensor and passage
	for i, r := range readTopic(t, c, topicReads) {
		var read sensors.Read
		if err := sensors.Decode(r.Value, &read); err != nil {
			t.Fatalf("Decode: %v", err)
		}
		if _, again := place[read.ID]; again {
			continue
		}
		place[read.ID] = i
		passage := read.Sensor + "/" + read.Passage
		if read.ID < last[passage] {
			t.Errorf("read %s came after %s of its passage", read.ID, last[passage])
		}
		last[passage] = read.ID
	}
	missing := 0
	for id := range acked {
		if _, ok := place[id]; !ok {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d acknowledged reads are missing", missing, len(acked))
	}
	n := 0
	for sensor, ids := range spooled {
		n += len(ids)
		if !slices.IsSortedFunc(ids, func(a, b string) int { return place[a] - place[b] }) {
			t.Errorf("spooled reads of sensor %s came in another order", sensor)
		}
	}
	if n < sensorsN*perCall*20 {
		t.Errorf("%d reads were spooled", n)
	}
	if slowest > 5*time.Second || slowestBack > time.Second {
		t.Errorf("the slowest request took %v, afterwards %v", slowest, slowestBack)
	}
	if drained > 10*time.Second {
		t.Errorf("%d reads were drained within %v", depth, drained)
	}
	t.Logf("%d reads acknowledged, %d in the spool when the brokers came back, drained %v later; slowest request %v, afterwards %v; %+v",
		len(acked), depth, drained.Round(time.Millisecond), slowest.Round(time.Millisecond), slowestBack.Round(time.Millisecond), p.Stats())
}

// TestSpoolDrainsBehindLive drains a spool into real Kafka while 2,000 reads per second go
// there directly, and live reads hardly notice. 600,000 reads are to be drained within 30 s,
// 20,000 per second; with the race detector on a busy machine half of that will do.
func TestSpoolDrainsBehindLive(t *testing.T) {
	const backlog, perCall = 200_000, 10
	b := real(t)
	c := open(t, b, Config{})
	topics(t, c, TopicsConfig{ReadsPartitions: 4})
	s, err := spool.Open(spool.Config{Dir: t.TempDir(), Log: logTo(t)})
	if err != nil {
		t.Fatalf("spool: %v", err)
	}
	defer s.Close()
	reads := func(sensor string, first, n int) (rs []sensors.Read) {
		for i := range n {
			rs = append(rs, sensors.Read{
				ID: fmt.Sprintf("%s-%06d", sensor, first+i), Sensor: fmt.Sprintf("%s-%02d", sensor, (first+i)%50), Plate: "AB123CD",
				Country: "FR", TS: 1773470467412, Received: time.Now().UnixMilli(), Conf: 0.9, Passage: fmt.Sprint("p", first+i),
			})
		}
		return rs
	}
	for i := 0; i < backlog; i += 5000 {
		if err := s.Append(t.Context(), reads("old", i, 5000)); err != nil {
			t.Fatalf("Append: %v", err)
		}
	}
	direct := c.Reads()
	p, err := spool.NewPublisher(spool.PublisherConfig{Direct: direct, Spool: s, Log: logTo(t)})
	if err != nil {
		t.Fatalf("publisher: %v", err)
	}
	// Live reads by themselves, and then with the drain behind them.
	live := func(ctx context.Context) (took []time.Duration) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for k := range 20 {
			wg.Go(func() {
				tick := time.NewTicker(100 * time.Millisecond)
				defer tick.Stop()
				for i := 0; ctx.Err() == nil; i += perCall {
					began := time.Now()
					if err := p.Publish(context.Background(), reads(fmt.Sprintf("live%02d", k), i, perCall)); err != nil {
						t.Errorf("Publish: %v", err)
					}
					mu.Lock()
					took = append(took, time.Since(began))
					mu.Unlock()
					<-tick.C
				}
			})
		}
		wg.Wait()
		slices.Sort(took)
		return took
	}
	quantile := func(took []time.Duration, q float64) time.Duration {
		return took[int(q*float64(len(took)-1))].Round(100 * time.Microsecond)
	}
	alone, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	before := live(alone)
	cancel()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var run sync.WaitGroup
	began := time.Now()
	var drained time.Duration
	run.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	busy, idle := context.WithCancel(ctx)
	run.Go(func() {
		defer idle()
		for s.Stats().Depth > 0 && time.Since(began) < patience {
			time.Sleep(time.Millisecond)
		}
		drained = time.Since(began)
	})
	during := live(busy)
	cancel()
	run.Wait()
	st := s.Stats()
	if st.Depth > 0 || st.Drained != backlog || p.Stats().Spooled > 0 || drained > backlog/10_000*time.Second {
		t.Errorf("after %v: %+v, %+v", drained, st, p.Stats())
	}
	if slowest := during[len(during)-1]; slowest > time.Second {
		t.Errorf("a live request took %v", slowest)
	}
	t.Logf("%.0f reads/s drained; live requests p50 %v p99 %v max %v, without the drain p50 %v p99 %v max %v", backlog/drained.Seconds(),
		quantile(during, 0.5), quantile(during, 0.99), quantile(during, 1), quantile(before, 0.5), quantile(before, 0.99), quantile(before, 1))
}
