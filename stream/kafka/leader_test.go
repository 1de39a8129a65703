package kafka

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	"vigie/deploy/services"
	"vigie/sensors"
	"vigie/stream/alert"
	"vigie/stream/streamtest"
)

// impatient is a Config.Timeout for tests in which brokers stay away.
const impatient = 2 * time.Second

// A broker that takes requests and does not answer: the write is tried several times, each
// time on a new connection, ends with Config.Timeout, and leaves nothing behind.
func TestProduceHung(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		cluster, way := through(t, b, Config{Prefix: c.prefix, Timeout: impatient})
		w := cluster.Reads()
		w.out.first = 200 * time.Millisecond
		streamtest.Eventually(t, patience, "the new topic", func() bool { return w.Publish(t.Context(), someReads(1)) == nil })

		way.Hold(streamtest.BothWays)
		before := w.out.tries.Load()
		began := time.Now()
		if err := w.Publish(t.Context(), someReads(2)); err == nil || !strings.Contains(err.Error(), "no broker has answered in time") {
			t.Errorf("Publish: %v, want that no broker has answered", err)
		}
		if took := time.Since(began); took < impatient-100*time.Millisecond || took > impatient+time.Second {
			t.Errorf("it took %v, want %v", took, impatient)
		}
		// 0.2, 0.4, 0.8 and the rest of 2 s.
		if n := w.out.tries.Load() - before; n < 3 || n > 5 {
			t.Errorf("%d tries, want about 4", n)
		}
		if n := w.out.asked.Load(); n != 0 {
			t.Errorf("%d questions to other brokers, there are none", n)
		}
		// Those of tries that were given up are closed, at the latest when connecting would be.
		streamtest.Eventually(t, patience, "the connections to end", func() bool { return cluster.openConns() <= 2 })

		way.Heal()
		streamtest.Eventually(t, patience, "the way to be used again", func() bool { return w.Publish(t.Context(), someReads(3)) == nil })
		stored := make(map[string]int)
		for _, r := range readTopic(t, c, topicReads) {
			var read sensors.Read
			if err := sensors.Decode(r.Value, &read); err != nil {
				t.Fatal(err)
			}
			stored[read.ID]++
		}
		for _, r := range someReads(3) {
			if stored[r.ID] == 0 {
				t.Errorf("%s is missing", r.ID)
			}
		}
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
}

// openConns is the number of connections that are not closed.
func (c *Cluster) openConns() int {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	return len(c.conns.open)
}

// The leader of a partition hangs, and another one is elected: the others are asked, so that
// the write does not wait for the end of its try, nor for kafka-go to look.
func TestLeaderMoves(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		ask  time.Duration
		most time.Duration
	}{
		{"others are asked", 200 * time.Millisecond, 3 * time.Second},
		{"nobody is asked", time.Hour, 0}, // the negative control
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, err := kfake.NewCluster(kfake.NumBrokers(3))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(f.Close)
			ways := make(map[string]*streamtest.Proxy)
			for _, addr := range f.ListenAddrs() {
				ways[addr] = streamtest.NewProxy(t, addr)
			}
			c, err := Open(Config{Brokers: f.ListenAddrs(), Prefix: prefix(), Log: logTo(t), Timeout: 4 * time.Second,
				dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
					return ways[addr].DialContext(ctx, network, addr)
				}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			topics(t, c, TopicsConfig{ReadsPartitions: 1})
			w := c.Reads()
			w.out.first, w.out.ask = 4*time.Second, tt.ask
			streamtest.Eventually(t, patience, "the new topic", func() bool { return w.Publish(t.Context(), someReads(1)) == nil })

			old := f.LeaderFor(w.topic, 0)
			way := ways[f.ListenAddrs()[old]]
			way.Hold(streamtest.BothWays)
			defer way.Heal()
			began := time.Now()
			done := make(chan error, 1)
			go func() { done <- w.Publish(t.Context(), someReads(2)) }()
			time.Sleep(500 * time.Millisecond)
			next := (old + 1) % 3
			if err := f.MoveTopicPartition(w.topic, 0, next); err != nil {
				t.Fatal(err)
			}
			err = <-done
			took := time.Since(began)
			t.Logf("%v after %v, %d tries, %d questions", err, took, w.out.tries.Load(), w.out.asked.Load())
			if tt.most == 0 {
				if err == nil {
					t.Errorf("published after %v: what is it that the questions do?", took)
				}
				return
			}
			if err != nil || took > tt.most {
				t.Errorf("Publish: %v after %v, want success within %v", err, took, tt.most)
			}
			// What was learnt holds for what comes next.
			began = time.Now()
			for range 5 {
				if err := w.Publish(t.Context(), someReads(2)); err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("five more took %v", took)
			}
		})
	}
}

// What the layout says counts, unless another broker has said what is newer.
func TestLeads(t *testing.T) {
	t.Parallel()
	c, err := Open(Config{Brokers: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, tt := range []struct {
		name    string
		answers []leader // old is the layout at that time
		layout  int32
		want    int32
	}{
		{"nothing learnt", nil, 1, 1},
		{"an answer like the layout", []leader{{1, 5, 1}}, 1, 1},
		{"a new leader", []leader{{2, 6, 1}}, 1, 2},
		{"the layout knows it, too", []leader{{2, 6, 1}}, 2, 2},
		{"the layout knows another", []leader{{2, 6, 1}}, 3, 3},
		{"no leader at the moment", []leader{{-1, 6, 1}}, 1, 1},
		{"one who is behind the times", []leader{{2, 6, 1}, {1, 5, 1}}, 1, 2},
		{"and back", []leader{{2, 6, 1}, {1, 7, 1}}, 1, 1},
		{"further", []leader{{2, 6, 1}, {3, 7, 1}}, 1, 3},
	} {
		p := c.producer("reads")
		for _, a := range tt.answers {
			p.learn(answerOf(a), map[int32]int32{0: a.old})
		}
		if got := p.leads(0, tt.layout); got != tt.want {
			t.Errorf("%s: leader %d, want %d", tt.name, got, tt.want)
		}
	}
}

// TestLeaderStopped stops (SIGSTOP) the broker that leads some partitions, one of three, for
// 14 s, while reads are published every 50 ms and events are appended one after the other.
// With VIGIE_KAFKA_CONTROL=1 it does so with neither short tries nor questions, and writes
// must hang.
func TestLeaderStopped(t *testing.T) {
	streamtest.Need(t, "VIGIE_TEST_KAFKA") // then Java and the jars are there
	jars, err := services.KafkaJars(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	brokers, err := services.StartKafkaCluster(t.Context(), services.KafkaConfig{Dir: filepath.Join(t.TempDir(), "kafka"), Jars: jars}, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := brokers.Kill(); err != nil {
			t.Error(err)
		}
	})
	leaks := goleak.IgnoreCurrent()
	c, err := Open(Config{Brokers: brokers.Addrs(), Prefix: prefix(), Log: logTo(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	specs, err := Topics(TopicsConfig{Prefix: c.prefix, ReadsPartitions: 6, HitsPartitions: 1, Replication: 3})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ApplyTopics(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	w, j := c.Reads(), c.Journal()
	without := os.Getenv("VIGIE_KAFKA_CONTROL") == "1"
	if without {
		for _, p := range []*producer{w.out, j.out} {
			p.first, p.ask = c.timeout, time.Hour
		}
	}
	read := func(n int) sensors.Read { // of a sensor of each partition, by turns
		r := someReads(1)[0]
		r.ID, r.Sensor = fmt.Sprintf("r%05d", n), fmt.Sprintf("A7-%d", n%23)
		return r
	}
	streamtest.Eventually(t, patience, "the topics", func() bool {
		return w.Publish(t.Context(), someReads(40)) == nil && j.Append(t.Context(), []*alert.Event{hit("e00000")}) == nil
	})
	layout, err := c.layoutOf(t.Context(), topicHits)
	if err != nil {
		t.Fatal(err)
	}
	victim := layout[0]
	reads, err := c.layoutOf(t.Context(), topicReads)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(reads, victim) {
		t.Fatalf("broker %d leads no reads: %v", victim, reads)
	}

	type result struct {
		id    string
		began time.Time
		took  time.Duration
		err   error
	}
	var mu sync.Mutex
	var published, appended []result
	var wg sync.WaitGroup
	stopped := time.Now()
	if err := brokers.Broker(victim).Pause(); err != nil {
		t.Fatal(err)
	}
	const away = 14 * time.Second
	wg.Go(func() {
		for n := 1; time.Since(stopped) < away; n++ {
			id, began := fmt.Sprintf("e%05d", n), time.Now()
			err := j.Append(t.Context(), []*alert.Event{hit(id)})
			appended = append(appended, result{id, began, time.Since(began), err})
			time.Sleep(20 * time.Millisecond)
		}
	})
	most := 0
	for n := 0; time.Since(stopped) < away; n++ {
		wg.Go(func() {
			r := read(n)
			began := time.Now()
			err := w.Publish(t.Context(), []sensors.Read{r})
			mu.Lock()
			defer mu.Unlock()
			published = append(published, result{r.ID, began, time.Since(began), err})
		})
		most = max(most, c.openConns())
		time.Sleep(50 * time.Millisecond)
	}
	wg.Wait()
	if err := brokers.Broker(victim).Resume(); err != nil {
		t.Fatal(err)
	}
	if err := brokers.AwaitInSync(t.Context()); err != nil {
		t.Fatal(err)
	}

	for _, x := range []struct {
		what    string
		results []result
		topic   string
		id      func([]byte) string
	}{
		{"publish", published, topicReads, func(b []byte) string {
			var r sensors.Read
			if err := sensors.Decode(b, &r); err != nil {
				t.Fatal(err)
			}
			return r.ID
		}},
		{"append", appended, topicHits, func(b []byte) string {
			e, err := alert.UnmarshalEvent(b)
			if err != nil {
				t.Fatal(err)
			}
			return e.AlertID
		}},
	} {
		var took []time.Duration
		var worst, again time.Duration
		failed := 0
		for _, r := range x.results {
			took = append(took, r.took)
			worst = max(worst, r.took)
			if r.err != nil {
				failed++
			}
			if r.err != nil || r.took > 500*time.Millisecond { // it was in want of a leader until then
				again = max(again, r.began.Add(r.took).Sub(stopped))
			}
		}
		stored := make(map[string]int)
		var order []string // of the first time that each is there, as if there were one partition
		total := 0
		for _, r := range readTopic(t, c, x.topic) {
			id := x.id(r.Value)
			if stored[id]++; stored[id] == 1 {
				order = append(order, id)
			}
			total++
		}
		lost := 0
		for _, r := range x.results {
			if r.err == nil && stored[r.id] == 0 {
				lost++
			}
		}
		t.Logf("%s: %d calls, %d failed, p50 %v, p99 %v, worst %v, all well again after %v, %d stored for %d, %d lost", x.what,
			len(x.results), failed, at(took, 50), at(took, 99), worst, again, total, len(stored), lost)
		if lost > 0 {
			t.Errorf("%s: %d acknowledged ones are lost", x.what, lost)
		}
		if x.topic == topicHits && !slices.IsSorted(order) {
			t.Errorf("%s: the events are not in order", x.what)
		}
		if without {
			if again < 9*time.Second {
				t.Errorf("%s: without the defence all was well again after %v: it does nothing", x.what, again)
			}
			continue
		}
		if failed > 0 || worst > 7*time.Second || again > 7*time.Second {
			t.Errorf("%s: %d failed, the worst took %v, all well again after %v, want 0, and both within 7s", x.what, failed, worst, again)
		}
	}
	t.Logf("%d tries, %d questions, %d connections at most, %d now", w.out.tries.Load()+j.out.tries.Load(), w.out.asked.Load()+j.out.asked.Load(), most, c.openConns())
	if most > 60 {
		t.Errorf("%d connections at a time", most)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, leaks)
}

// layoutOf is the leaders of the partitions of a topic.
func (c *Cluster) layoutOf(ctx context.Context, topic string) ([]int, error) {
	res, err := c.client.Metadata(ctx, &kafkago.MetadataRequest{Topics: []string{c.topic(topic)}})
	if err != nil {
		return nil, err
	}
	leaders := make([]int, len(res.Topics[0].Partitions))
	for _, p := range res.Topics[0].Partitions {
		leaders[p.ID] = p.Leader.ID
	}
	return leaders, nil
}

func answerOf(l leader) *metadata.ResponsePartition {
	return &metadata.ResponsePartition{LeaderID: l.id, LeaderEpoch: l.epoch}
}
