package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"vigie/stream/streamtest"
	"vigie/watchlist/control"
)

// A follower keeps the map that a control log stands for.
type follower struct {
	cancel context.CancelFunc
	done   chan error

	mu        sync.Mutex
	state     map[string]string
	records   int
	last      int64
	next, end int64
	calls     int
	wrong     []string
}

func follow(t testing.TB, log *ControlLog) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{cancel: cancel, done: make(chan error, 1), state: make(map[string]string), last: -1, next: -1, end: -1}
	go func() { f.done <- log.Follow(ctx, f.apply) }()
	t.Cleanup(func() { f.stop(t) })
	return f
}

func (f *follower) apply(records []control.Record, next, end int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	for _, r := range records {
		if r.Offset <= f.last || r.Offset >= next {
			f.wrong = append(f.wrong, fmt.Sprintf("offset %d after %d with next %d", r.Offset, f.last, next))
		}
		f.last = r.Offset
		f.records++
		if r.Value == nil {
			delete(f.state, string(r.Key))
		} else {
			f.state[string(r.Key)] = string(r.Value)
		}
	}
	if next < f.next {
		f.wrong = append(f.wrong, fmt.Sprintf("next %d after %d", next, f.next))
	}
	f.next, f.end = next, end
	return nil
}

func (f *follower) stop(t testing.TB) {
	t.Helper()
	f.cancel()
	select {
	case err := <-f.done:
		if err != nil {
			t.Errorf("Follow: %v", err)
		}
		f.done <- nil
	case <-time.After(patience):
		t.Fatalf("Follow has not returned after %v", patience)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.wrong {
		t.Error(w)
	}
}

// reach waits until the follower has passed an offset.
func (f *follower) reach(t testing.TB, offset int64) {
	t.Helper()
	streamtest.Eventually(t, patience, fmt.Sprintf("offset %d to be passed", offset), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.next > offset
	})
}

func (f *follower) snapshot() (state map[string]string, next, end int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.state), f.next, f.end
}

// countedConn counts requests: kafka-go writes each at once.
type countedConn struct {
	net.Conn
	requests *atomic.Int64
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.requests.Add(1)
	return c.Conn.Write(b)
}

// The log of real Kafka is compacted over and over, written by us, by idempotent producers with
// compression, and by transactions. A follower that begins anew must reach the map that the
// writer has kept, without stalling and without asking the broker in a loop.
func TestFollowCompacted(t *testing.T) {
	b := real(t)
	c := open(t, b, Config{})
	topics(t, c, TopicsConfig{}, func(specs []TopicSpec) {
		maps.Copy(specs[1].Configs, map[string]string{
			"segment.ms": "200", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "300", "delete.retention.ms": "300",
		})
	})
	log := c.ControlLog()
	var requests atomic.Int64
	live := follow(t, open(t, b, Config{Prefix: c.prefix, dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &countedConn{nc, &requests}, err
	}}).ControlLog())
	rnd := rand.New(rand.NewPCG(7, 7))
	want := make(map[string]string)
	key := func() string { return fmt.Sprintf("entry/l/%03d", rnd.IntN(120)) }
	change := func() (string, []byte) {
		k := key()
		if rnd.IntN(3) == 0 {
			delete(want, k)
			return k, nil
		}
		want[k] = fmt.Sprint(rnd.Uint64())
		return k, []byte(want[k])
	}
	topic := c.topic(topicControl)
	foreign := []*kgo.Client{
		client(t, c, kgo.ProducerBatchCompression(kgo.ZstdCompression())), // idempotent as well
		client(t, c, kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.TransactionalID(c.prefix+"tx")),
	}
	for _, cl := range foreign {
		defer cl.Close()
	}
	appended, last := 0, int64(-1)
	write := func(round int) {
		for batch := range 6 {
			n := 1 + rnd.IntN(40)
			appended += n
			switch (round + batch) % 3 {
			case 0:
				var recs []control.Record
				for range n {
					k, v := change()
					recs = append(recs, control.Record{Key: []byte(k), Value: v})
				}
				var err error
				if last, err = log.Append(t.Context(), recs); err != nil {
					t.Fatal(err)
				}
			default:
				cl := foreign[(round+batch)%3-1]
				tx := cl == foreign[1]
				var recs []*kgo.Record
				for range n {
					k, v := change()
					recs = append(recs, &kgo.Record{Topic: topic, Key: []byte(k), Value: v})
				}
				if tx {
					if err := cl.BeginTransaction(); err != nil {
						t.Fatal(err)
					}
				}
				rs := cl.ProduceSync(t.Context(), recs...)
				if err := rs.FirstErr(); err != nil {
					t.Fatal(err)
				}
				last = recs[len(recs)-1].Offset
				if tx {
					if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	began := time.Now()
	for round := range 5 {
		write(round)
		time.Sleep(250 * time.Millisecond) // old enough for a new segment
		// One key written after the pause closes the segment, so that the cleaner may have it.
		k, v := change()
		var err error
		if last, err = log.Append(t.Context(), []control.Record{{Key: []byte(k), Value: v}}); err != nil {
			t.Fatal(err)
		}
		appended++
		left := 0
		streamtest.Eventually(t, patience, "the cleaner", func() bool {
			left = len(readTopic(t, c, topicControl))
			return left < appended-40*round && left < 400
		})
		fresh := follow(t, log)
		fresh.reach(t, last)
		state, next, end := fresh.snapshot()
		fresh.stop(t)
		if !maps.Equal(state, want) {
			t.Errorf("round %d: a new follower has %d keys, want %d, or other values", round, len(state), len(want))
		}
		if next < end {
			t.Errorf("round %d: next %d of %d", round, next, end)
		}
		t.Logf("round %d: %d records appended, %d left, the new follower got %d", round, appended, left, fresh.records)
	}
	live.reach(t, last)
	if state, _, _ := live.snapshot(); !maps.Equal(state, want) {
		t.Errorf("the live follower has %d keys, want %d, or other values", len(state), len(want))
	}
	if perSecond := float64(requests.Load()) / time.Since(began).Seconds(); perSecond > 50 {
		t.Errorf("the live follower made %.0f requests per second", perSecond)
	}
}

// Offsets up to the end that compaction has emptied are passed, but only after asking again:
// one empty answer of a new leader must not make the follower skip a withdrawal.
func TestFollowHole(t *testing.T) {
	for _, tt := range []struct {
		name    string
		empty   int // answers without records, before the broker answers as it should
		holding bool
		next    int64
	}{
		{"gone for good", 1 << 30, false, 10},
		{"not readable for a moment", 2, true, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kf, err := kfake.NewCluster(kfake.NumBrokers(1))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(kf.Close)
			c := open(t, backend{addr: kf.ListenAddrs()[0]}, Config{})
			topics(t, c, TopicsConfig{})
			put(t, c, topicControl, 0, nil, keyed("k", 10)...)
			var mu sync.Mutex
			asked := 0
			answerFetch(kf, func(offset int64) ([]byte, int64, bool) {
				mu.Lock()
				defer mu.Unlock()
				if offset >= 10 || asked >= tt.empty {
					return nil, 0, false
				}
				asked++
				return nil, 10, true
			})
			f := follow(t, c.ControlLog())
			f.reach(t, 9)
			f.stop(t)
			want := 0
			if tt.holding {
				want = 10
			}
			if f.records != want {
				t.Errorf("%d records, want %d", f.records, want)
			}
			mu.Lock()
			defer mu.Unlock()
			if asked > holeChecks {
				t.Errorf("asked %d times", asked)
			}
		})
	}
}

// answerFetch answers fetches of a fake broker, as far as answer says so, with record batches
// and an end of the partition.
func answerFetch(kf *kfake.Cluster, answer func(offset int64) (batches []byte, end int64, ok bool)) {
	kf.ControlKey(1, func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		kf.KeepControl()
		req := kreq.(*kmsg.FetchRequest)
		if len(req.Topics) == 0 || len(req.Topics[0].Partitions) == 0 {
			return nil, nil, false
		}
		batches, end, ok := answer(req.Topics[0].Partitions[0].FetchOffset)
		if !ok {
			return nil, nil, false
		}
		res := req.ResponseKind().(*kmsg.FetchResponse)
		rt := kmsg.NewFetchResponseTopic()
		rt.Topic = req.Topics[0].Topic
		rp := kmsg.NewFetchResponseTopicPartition()
		rp.HighWatermark, rp.LastStableOffset, rp.RecordBatches = end, end, batches
		rt.Partitions = append(rt.Partitions, rp)
		res.Topics = append(res.Topics, rt)
		return res, nil, true
	})
}

func keyed(prefix string, n int) (rs []*kgo.Record) {
	for i := range n {
		rs = append(rs, &kgo.Record{Key: fmt.Appendf(nil, "%s-%d", prefix, i), Value: []byte("v")})
	}
	return rs
}

// A damaged batch is not passed over: the follower stays behind, visibly, and goes on when the
// log can be read again.
func TestFollowDamaged(t *testing.T) {
	kf, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kf.Close)
	c := open(t, backend{addr: kf.ListenAddrs()[0]}, Config{})
	topics(t, c, TopicsConfig{})
	put(t, c, topicControl, 0, nil, keyed("k", 3)...)
	var mu sync.Mutex
	damaged, asked := true, 0
	good := testBatch{base: 0, codec: compress.None, values: []string{"a", "b", "c"}}.encode(t)
	bad := slices.Clone(good)
	bad[len(bad)-1] ^= 1
	answerFetch(kf, func(offset int64) ([]byte, int64, bool) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return bad, 3, damaged && offset == 0
	})
	f := follow(t, c.ControlLog())
	streamtest.Eventually(t, patience, "some tries", func() bool { mu.Lock(); defer mu.Unlock(); return asked > 3 })
	if _, next, end := f.snapshot(); next != 0 || end != 3 || f.records != 0 {
		t.Errorf("next %d of %d, want 0 of 3", next, end)
	}
	mu.Lock()
	damaged = false
	mu.Unlock()
	f.reach(t, 2)
	if f.records != 3 {
		t.Errorf("%d records, want 3", f.records)
	}
}

func TestAppend(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{})
		log := c.ControlLog()
		if last, err := log.Append(t.Context(), nil); last != -1 || err != nil {
			t.Errorf("nothing: %d, %v", last, err)
		}
		if _, err := log.Append(t.Context(), []control.Record{{Value: []byte("v")}}); err == nil {
			t.Error("a record without a key: no error")
		}
		huge := control.Record{Key: []byte("k"), Value: make([]byte, writeBytes)}
		if _, err := log.Append(t.Context(), []control.Record{{Key: []byte("a"), Value: []byte("v")}, huge}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a record that is too large: %v, want ErrTooLarge", err)
		}
		// Three megabytes go in several batches; one that fits goes in one, compressed by nobody.
		var recs []control.Record
		for i := range 300 {
			recs = append(recs, control.Record{Key: fmt.Appendf(nil, "k%d", i), Value: make([]byte, 10_000)})
		}
		last, err := log.Append(t.Context(), recs)
		if err != nil || last != 299 {
			t.Fatalf("three megabytes: last %d, %v, want 299", last, err)
		}
		recs = append(recs[:50], control.Record{Key: []byte("k7")}) // and a withdrawal
		if last, err = log.Append(t.Context(), recs); err != nil || last != 350 {
			t.Fatalf("half a megabyte: last %d, %v, want 350", last, err)
		}
		f := follow(t, log)
		f.reach(t, 350)
		f.stop(t)
		if len(f.state) != 299 || f.records != 351 {
			t.Errorf("%d keys of %d records, want 299 of 351", len(f.state), f.records)
		}
		batches := batchesOf(t, c, topicControl)
		if n := len(batches); n != 5 {
			t.Errorf("%d batches, want 4 and 1", n)
		}
		if tail := batches[len(batches)-1]; tail.base != 300 || tail.last != 350 || tail.codec != compress.None {
			t.Errorf("the last batch is %+v", tail)
		}
	})
}

type batchInfo struct {
	base, last int64
	codec      compress.Compression
}

// batchesOf are the batches of partition 0, as they are stored.
func batchesOf(t *testing.T, c *Cluster, topic string) (infos []batchInfo) {
	t.Helper()
	r := c.newReader(c.topic(topic), 0, time.Millisecond, 16<<20, 16<<20, true)
	for {
		if err := r.poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(r.data) == 0 {
			return infos
		}
		for {
			more, err := r.open()
			if err != nil {
				t.Fatal(err)
			}
			if !more {
				break
			}
			infos = append(infos, batchInfo{r.base, r.last, 0})
			if r.inside {
				infos[len(infos)-1].codec = -1
			}
			r.next = r.last + 1
		}
		r.seek(r.next)
	}
}

// A record is with the followers within a few milliseconds, also when nothing was written for
// longer than a fetch waits.
func TestFollowLatency(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{})
		log := c.ControlLog()
		arrived := make(chan int64, 100)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() {
			done <- open(t, b, Config{Prefix: c.prefix}).ControlLog().Follow(ctx, func(_ []control.Record, next, _ int64) error {
				arrived <- next
				return nil
			})
		}()
		<-arrived // it is caught up
		var acked, seen []time.Duration
		for i := range 150 {
			if i%50 == 49 {
				time.Sleep(followWait + 20*time.Millisecond)
			}
			began := time.Now()
			last, err := log.Append(t.Context(), []control.Record{{Key: []byte("k"), Value: []byte("v")}})
			if err != nil {
				t.Fatal(err)
			}
			acked = append(acked, time.Since(began))
			for next := range arrived {
				if next > last {
					break
				}
			}
			seen = append(seen, time.Since(began))
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Follow: %v", err)
		}
		t.Logf("Append acknowledged p50 %v p99 %v; with the follower p50 %v p99 %v", at(acked, 50), at(acked, 99), at(seen, 50), at(seen, 99))
		if p50 := at(seen, 50); p50 > 50*time.Millisecond {
			t.Errorf("p50 is %v", p50)
		}
	})
}

// at is a percentile.
func at(ds []time.Duration, percent int) time.Duration {
	slices.Sort(ds)
	return ds[(len(ds)-1)*percent/100].Round(10 * time.Microsecond)
}

// Follow waits for brokers that go away; Append gives up in time, and what it says it has
// written is there.
func TestControlLogBrokersAway(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{})
		far, way := through(t, b, Config{Prefix: c.prefix, Timeout: time.Second})
		log := far.ControlLog()
		f := follow(t, log)
		rec := func(k string) []control.Record { return []control.Record{{Key: []byte(k), Value: []byte("v")}} }
		var last int64
		streamtest.Eventually(t, patience, "the new topic", func() bool {
			var err error
			last, err = log.Append(t.Context(), rec("a"))
			return err == nil
		})
		f.reach(t, last)
		for _, o := range []outage{down, hung} {
			o.begin(way)
			began := time.Now()
			if _, err := log.Append(t.Context(), rec("lost")); err == nil {
				t.Errorf("%s: Append has written", o.name)
			} else {
				t.Log(err)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("%s: Append gave up after %v, want 1 s", o.name, took)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			began = time.Now()
			if _, err := log.Append(ctx, rec("lost")); err == nil || time.Since(began) > 500*time.Millisecond {
				t.Errorf("%s: told to stop: %v after %v", o.name, err, time.Since(began))
			}
			cancel()
			near, err := c.ControlLog().Append(t.Context(), rec("near "+o.name))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
			way.Heal()
			f.reach(t, near)
			if _, err := log.Append(t.Context(), rec("again")); err != nil {
				t.Errorf("%s: Append after it: %v", o.name, err)
			}
		}
		if d := way.Accepted(); d > 100 {
			t.Errorf("%d connections were tried", d)
		}
		// It stops at once even when nothing answers.
		hung.begin(way)
		began := time.Now()
		f.stop(t)
		if took := time.Since(began); took > time.Second {
			t.Errorf("stopping took %v", took)
		}
	})
}

// A log that has become shorter than what was applied is not the same log.
func TestFollowTruncated(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		specs := topics(t, c, TopicsConfig{})
		put(t, c, topicControl, 0, nil, keyed("old", 30)...)
		f := follow(t, c.ControlLog())
		f.reach(t, 29)
		if _, err := c.client.DeleteTopics(t.Context(), &kafkago.DeleteTopicsRequest{Topics: []string{c.topic(topicControl)}}); err != nil {
			t.Fatal(err)
		}
		streamtest.Eventually(t, patience, "the topic to be made anew", func() bool {
			rs, err := c.ApplyTopics(t.Context(), specs[1:2])
			return err == nil && rs[0].Action == ActionCreated
		})
		select {
		case err := <-f.done:
			if !errors.Is(err, ErrLogTruncated) {
				t.Errorf("Follow: %v, want ErrLogTruncated", err)
			}
			f.done <- nil
		case <-time.After(patience):
			t.Error("the follower of a log that is gone goes on")
		}
	})
}

// A process that was stopped for longer than withdrawals are kept must not go on.
func TestFollowUnread(t *testing.T) {
	b := fake(t)
	c := open(t, b, Config{})
	topics(t, c, TopicsConfig{})
	far, way := through(t, b, Config{Prefix: c.prefix})
	log := far.ControlLog()
	log.gap = 600 * time.Millisecond
	f := follow(t, log)
	last, err := c.ControlLog().Append(t.Context(), []control.Record{{Key: []byte("k"), Value: []byte("v")}})
	if err != nil {
		t.Fatal(err)
	}
	f.reach(t, last)
	time.Sleep(800 * time.Millisecond) // while it reads, a quiet log is no reason
	select {
	case err := <-f.done:
		t.Fatalf("Follow of a quiet log: %v", err)
	default:
	}
	hung.begin(way)
	time.Sleep(700 * time.Millisecond)
	way.Heal()
	select {
	case err := <-f.done:
		if !errors.Is(err, ErrLogUnread) {
			t.Errorf("Follow: %v, want ErrLogUnread", err)
		}
		f.done <- nil
	case <-time.After(patience):
		t.Error("the follower goes on")
	}
}

func TestFollowErrors(t *testing.T) {
	c := open(t, fake(t), Config{})
	topics(t, c, TopicsConfig{})
	put(t, c, topicControl, 0, nil, keyed("k", 3)...)
	boom := errors.New("boom")
	if err := c.ControlLog().Follow(t.Context(), func([]control.Record, int64, int64) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("got %v, want the error of apply", err)
	}
	none := open(t, fake(t), Config{Timeout: time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if err := none.ControlLog().Follow(ctx, nil); err != nil {
		t.Errorf("without a topic: %v, want it to wait for one", err)
	}
	if _, err := none.ControlLog().Append(t.Context(), []control.Record{{Key: []byte("k")}}); err == nil || !strings.Contains(err.Error(), "vigie topics apply") {
		t.Errorf("Append without a topic: %v", err)
	}
}
