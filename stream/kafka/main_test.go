package kafka

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/streamtest"
)

func TestMain(m *testing.M) {
	if args := os.Getenv(zombieEnv); args != "" {
		os.Exit(zombie(args))
	}
	goleak.VerifyTestMain(m)
}

// patience bounds every wait; only a failing test uses it up.
const patience = 30 * time.Second

// A backend is a Kafka for tests. Every test takes topics of its own.
type backend struct {
	name string
	addr string
	sasl *SASL
}

// each runs a test on the in-process broker and on real Kafka.
func each(t *testing.T, test func(t *testing.T, b backend)) {
	t.Parallel() // most of them wait most of the time
	t.Run("kfake", func(t *testing.T) { t.Parallel(); test(t, fake(t)) })
	t.Run("kafka", func(t *testing.T) { t.Parallel(); test(t, real(t)) })
}

// alone is each for tests that measure memory.
func alone(t *testing.T, test func(t *testing.T, b backend)) {
	t.Run("kfake", func(t *testing.T) { test(t, fake(t)) })
	t.Run("kafka", func(t *testing.T) { test(t, real(t)) })
}

// fake starts an in-process broker.
func fake(t testing.TB, opts ...kfake.Opt) backend {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		t.Fatalf("start kfake: %v", err)
	}
	t.Cleanup(c.Close)
	return backend{name: "kfake", addr: c.ListenAddrs()[0]}
}

// real is the Kafka that VIGIE_TEST_KAFKA names.
func real(t testing.TB) backend {
	t.Helper()
	return backend{name: "kafka", addr: streamtest.Need(t, "VIGIE_TEST_KAFKA")}
}

// prefix is one that no other test has.
func prefix() string { return "t" + strings.ToLower(rand.Text()[:10]) + "." }

// open connects to b with a prefix of its own, or that of cfg.
func open(t testing.TB, b backend, cfg Config) *Cluster {
	t.Helper()
	cfg.Brokers = []string{b.addr}
	if cfg.SASL == nil {
		cfg.SASL = b.sasl
	}
	if cfg.Prefix == "" {
		cfg.Prefix = prefix()
	}
	if cfg.Log == nil {
		cfg.Log = logTo(t)
	}
	c, err := Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// testLog writes to the log of a test until that has ended.
type testLog struct {
	mu sync.Mutex
	t  testing.TB // nil after the end
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.t != nil {
		l.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

// logTo is a log that go test shows when the test fails.
func logTo(t testing.TB) *zap.Logger {
	w := &testLog{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		w.t = nil
		w.mu.Unlock()
	})
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()), zapcore.AddSync(w), zap.DebugLevel))
}

// topics makes all topics, with settings for tests.
func topics(t testing.TB, c *Cluster, cfg TopicsConfig, change ...func([]TopicSpec)) []TopicSpec {
	t.Helper()
	cfg.Prefix, cfg.Replication = c.prefix, 1
	if cfg.ReadsPartitions == 0 {
		cfg.ReadsPartitions = 3
	}
	specs, err := Topics(cfg)
	if err != nil {
		t.Fatalf("Topics: %v", err)
	}
	for _, f := range change {
		f(specs)
	}
	if _, err := c.ApplyTopics(t.Context(), specs); err != nil {
		t.Fatalf("ApplyTopics: %v", err)
	}
	t.Cleanup(func() {
		var names []string
		for _, s := range specs {
			names = append(names, s.Name)
		}
		// Without it a broker used for many runs grows slow; whether it works is no concern.
		_, _ = c.client.DeleteTopics(context.Background(), &kafkago.DeleteTopicsRequest{Topics: names})
	})
	return specs
}

// client is another Kafka client, for what ours does not do. The caller closes it.
func client(t testing.TB, c *Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(1 << 20), kgo.MetadataMinAge(50 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		t.Fatalf("kgo: %v", err)
	}
	return cl
}

// put writes records with another client and returns once they are there.
func put(t testing.TB, c *Cluster, topic string, partition int32, opts []kgo.Opt, rs ...*kgo.Record) {
	t.Helper()
	cl := client(t, c, opts...)
	defer cl.Close()
	for _, r := range rs {
		r.Topic, r.Partition = c.topic(topic), partition
	}
	if err := cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
		t.Fatalf("produce: %v", err)
	}
}

// values are records with these values and no keys.
func values(vs ...string) (rs []*kgo.Record) {
	for _, v := range vs {
		rs = append(rs, &kgo.Record{Value: []byte(v)})
	}
	return rs
}

// through opens a Cluster whose connections all lead through a proxy to the one broker of b,
// which does not know of it and sends its clients to itself.
func through(t testing.TB, b backend, cfg Config) (*Cluster, *streamtest.Proxy) {
	t.Helper()
	p := streamtest.NewProxy(t, b.addr)
	cfg.dial = p.DialContext
	return open(t, b, cfg), p
}

// An outage is something that brokers do to their clients.
type outage struct {
	name  string
	begin func(*streamtest.Proxy)
}

var (
	// down resets connections, new ones too.
	down = outage{"down", func(p *streamtest.Proxy) { p.Down() }}
	// hung accepts connections, and nothing moves any more.
	hung = outage{"hung", func(p *streamtest.Proxy) { p.Hold(streamtest.BothWays) }}
)

// readTopic reads all records of a topic with another client, control records too.
func readTopic(t testing.TB, c *Cluster, topic string) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n, err := c.partitions(ctx, c.topic(topic))
	if err != nil {
		t.Fatalf("partitions of %s: %v", topic, err)
	}
	starts, left := make(map[int32]kgo.Offset), make(map[int32]int64)
	for p := range n {
		var first, end int64
		streamtest.Eventually(t, patience, "the bounds of "+topic, func() bool {
			first, end, err = c.bounds(ctx, c.topic(topic), p)
			return err == nil
		})
		if end > first {
			starts[int32(p)], left[int32(p)] = kgo.NewOffset().At(first), end
		}
	}
	if len(left) == 0 {
		return nil
	}
	cl := client(t, c, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{c.topic(topic): starts}))
	defer cl.Close()
	var all []*kgo.Record
	for len(left) > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("read %s: %v", topic, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			all = append(all, r)
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return all
}

func atoi(t testing.TB, b []byte) int {
	t.Helper()
	n, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatalf("%q is no number", b)
	}
	return n
}

// someReads are reads of some sensors.
func someReads(n int) []sensors.Read {
	rs := make([]sensors.Read, n)
	for i := range rs {
		rs[i] = sensors.Read{
			ID: fmt.Sprintf("read-%06d", i), Sensor: fmt.Sprintf("A7-%d", i%17), Plate: "AB123CD", Country: "FR",
			TS: 1773470467412 + int64(i), Conf: 0.95,
		}
	}
	return rs
}

// consumeN runs s until n records were handed on and committed, and returns their values.
func consumeN(t testing.TB, s *Source, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var mu sync.Mutex
	var got []string
	err := s.Run(ctx, func(ctx context.Context, p stream.Partition) error {
		return consume(ctx, p, func(b *stream.Batch) {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range b.Records {
				got = append(got, string(r.Value))
			}
			if len(got) >= n {
				cancel()
			}
		})
	})
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	return got
}

// consume hands every batch to f and commits, at the end what is not committed yet.
func consume(ctx context.Context, p stream.Partition, f func(*stream.Batch)) error {
	var b stream.Batch
	for ctx.Err() == nil {
		if err := p.Fetch(ctx, &b); err != nil {
			if ctx.Err() != nil {
				break
			}
			return err
		}
		f(&b)
		if b.Next > 0 {
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			err := p.Commit(last, b.Next)
			cancel()
			if err != nil {
				return err
			}
		}
	}
	return nil
}
