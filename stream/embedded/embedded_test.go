package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/plain"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir) // see TestKilledBrokerLosesNothing
	}
	goleak.VerifyTestMain(m)
}

// start runs the services for one test and checks that they close cleanly.
func start(t testing.TB, cfg Config) *Services {
	t.Helper()
	cfg.Log = zaptest.NewLogger(t)
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t testing.TB, s *Services) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func mechanism(s *Services) plain.Mechanism {
	return plain.Mechanism{Username: s.KafkaUser(), Password: s.KafkaPassword()}
}

func dialer(s *Services) *kafka.Dialer {
	return &kafka.Dialer{SASLMechanism: mechanism(s), Timeout: 5 * time.Second}
}

// kafkaClient returns a kafka-go client that is logged in to s.
func kafkaClient(t testing.TB, s *Services) *kafka.Client {
	t.Helper()
	tr := &kafka.Transport{SASL: mechanism(s)}
	t.Cleanup(tr.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(s.KafkaAddrs()...), Transport: tr, Timeout: 10 * time.Second}
}

func redisClient(t testing.TB, s *Services) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.RedisAddr(), Password: s.RedisPassword(), MaxRetries: -1})
	t.Cleanup(func() { c.Close() })
	return c
}

func createTopic(t testing.TB, c *kafka.Client, topic string, partitions int, configs ...kafka.ConfigEntry) {
	t.Helper()
	resp, err := c.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: topic, NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: configs,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Errors[topic]; err != nil {
		t.Fatal(err)
	}
}

func produce(ctx context.Context, c *kafka.Client, topic string, partition int, values ...string) (int64, error) {
	records := make([]kafka.Record, len(values))
	for i, v := range values {
		records[i] = kafka.Record{Key: kafka.NewBytes([]byte("k" + v)), Value: kafka.NewBytes([]byte(v)), Time: time.Now()}
	}
	resp, err := c.Produce(ctx, &kafka.ProduceRequest{
		Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
	})
	if err != nil {
		return 0, err
	}
	return resp.BaseOffset, resp.Error
}

func mustProduce(t testing.TB, c *kafka.Client, topic string, partition int, values ...string) int64 {
	t.Helper()
	base, err := produce(t.Context(), c, topic, partition, values...)
	if err != nil {
		t.Fatal(err)
	}
	return base
}

// offsets returns the first and the next offset of a partition.
func offsets(t testing.TB, c *kafka.Client, topic string, partition int) (first, next int64) {
	t.Helper()
	resp, err := c.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		topic: {kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	p := resp.Topics[topic][0]
	if p.Error != nil {
		t.Fatal(p.Error)
	}
	return p.FirstOffset, p.LastOffset
}

// readAll returns every value of a partition in order, with Client.Fetch.
func readAll(t testing.TB, c *kafka.Client, topic string, partition int) []string {
	t.Helper()
	first, next := offsets(t, c, topic, partition)
	var values []string
	for at := first; at < next; {
		resp, err := c.Fetch(t.Context(), &kafka.FetchRequest{
			Topic: topic, Partition: partition, Offset: at, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 100 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		if resp.Error != nil {
			t.Fatal(resp.Error)
		}
		before := at
		for {
			r, err := resp.Records.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.Offset < at {
				continue
			}
			v, err := kafka.ReadAll(r.Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, string(v))
			at = r.Offset + 1
		}
		if at == before {
			t.Fatalf("fetch at %d of %d gave nothing", at, next)
		}
	}
	return values
}

func committed(t testing.TB, c *kafka.Client, group, topic string, partition int) int64 {
	t.Helper()
	resp, err := c.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{
		GroupID: group, Topics: map[string][]int{topic: {partition}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Error != nil {
		t.Fatal(resp.Error)
	}
	return resp.Topics[topic][0].CommittedOffset
}

// consume joins a group as the processor does, with the Generation API and a batch
// connection, hands each record of partition 0 to fn until it returns false, commits what
// was handed over and leaves. It returns how long joining took.
func consume(t testing.TB, s *Services, group, topic string, fn func(offset int64, value string) bool) time.Duration {
	t.Helper()
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: group, Brokers: s.KafkaAddrs(), Topics: []string{topic}, Dialer: dialer(s), StartOffset: kafka.FirstOffset,
		HeartbeatInterval: 500 * time.Millisecond, JoinGroupBackoff: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	began := time.Now()
	gen, err := g.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	joined := time.Since(began)
	done := make(chan error, 1)
	gen.Start(func(context.Context) { done <- consumeFirst(ctx, s, gen, topic, fn) })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return joined
}

func consumeFirst(ctx context.Context, s *Services, gen *kafka.Generation, topic string, fn func(int64, string) bool) error {
	at := int64(-1)
	for _, a := range gen.Assignments[topic] {
		if a.ID == 0 {
			at = a.Offset
		}
	}
	conn, err := dialer(s).DialLeader(ctx, "tcp", s.KafkaAddrs()[0], topic, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	if at < 0 {
		if at, err = conn.ReadFirstOffset(); err != nil {
			return err
		}
	}
	if _, err := conn.Seek(at, kafka.SeekAbsolute); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for more := true; more; {
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		batch := conn.ReadBatchWith(kafka.ReadBatchConfig{MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 250 * time.Millisecond})
		for more {
			offset := batch.Offset()
			n, err := batch.Read(buf)
			if err != nil {
				break
			}
			if offset < at {
				continue
			}
			at = offset + 1
			more = fn(offset, string(buf[:n]))
		}
		if err := batch.Close(); err != nil {
			return err
		}
	}
	return gen.CommitOffsets(map[string]map[int]int64{topic: {0: at}})
}

func TestRoundTrip(t *testing.T) {
	for _, disk := range []bool{false, true} {
		t.Run("disk="+strconv.FormatBool(disk), func(t *testing.T) {
			cfg := Config{}
			if disk {
				cfg.Dir = t.TempDir()
			}
			s := start(t, cfg)
			c := kafkaClient(t, s)
			createTopic(t, c, "reads", 1)
			w := &kafka.Writer{
				Addr: kafka.TCP(s.KafkaAddrs()...), Topic: "reads", Transport: c.Transport, RequiredAcks: kafka.RequireAll,
				Balancer: &kafka.Murmur2Balancer{}, BatchTimeout: 5 * time.Millisecond,
			}
			var want []string
			for i := range 20 {
				want = append(want, "read-"+strconv.Itoa(i))
				if err := w.WriteMessages(t.Context(), kafka.Message{Key: []byte("s1"), Value: []byte(want[i])}); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, c, "reads", 0); !slices.Equal(got, want) {
				t.Errorf("Client.Fetch read %v, want %v", got, want)
			}
			var got []string
			consume(t, s, "matcher", "reads", func(_ int64, v string) bool {
				got = append(got, v)
				return len(got) < len(want)
			})
			if !slices.Equal(got, want) {
				t.Errorf("ReadBatchWith read %v, want %v", got, want)
			}
		})
	}
}

// TestRestartKeepsEverything: topics and their configuration, records, offsets and the
// commits of a group are there again; passwords are new and the old ones are nowhere.
func TestRestartKeepsEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := start(t, Config{Dir: dir})
	c := kafkaClient(t, s)
	createTopic(t, c, "vigie.control", 1, kafka.ConfigEntry{ConfigName: "cleanup.policy", ConfigValue: "compact"})
	createTopic(t, c, "vigie.reads", 2, kafka.ConfigEntry{ConfigName: "retention.ms", ConfigValue: "3600000"})
	mustProduce(t, c, "vigie.control", 0, "a", "b", "a")
	mustProduce(t, c, "vigie.reads", 0, "r0", "r1", "r2", "r3")
	mustProduce(t, c, "vigie.reads", 1, "r4")
	consume(t, s, "matcher", "vigie.reads", func(offset int64, _ string) bool { return offset < 1 })
	oldKafka, oldRedis := s.KafkaPassword(), s.RedisPassword()
	if strings.Contains(everyByte(t, dir), oldKafka) {
		t.Error("the folder holds the broker's password while it runs")
	}
	stop(t, s)

	if strings.Contains(everyByte(t, dir), oldKafka) {
		t.Error("the folder holds the broker's password")
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder mode %v, %v; want 0700", info.Mode(), err)
	}

	s = start(t, Config{Dir: dir})
	c = kafkaClient(t, s)
	if s.KafkaPassword() == oldKafka || s.RedisPassword() == oldRedis {
		t.Error("a password was used twice")
	}
	if got, want := readAll(t, c, "vigie.control", 0), []string{"a", "b", "a"}; !slices.Equal(got, want) {
		t.Errorf("control log %v, want %v", got, want)
	}
	if got, want := readAll(t, c, "vigie.reads", 0), []string{"r0", "r1", "r2", "r3"}; !slices.Equal(got, want) {
		t.Errorf("reads/0 %v, want %v", got, want)
	}
	if got := mustProduce(t, c, "vigie.reads", 0, "r5"); got != 4 {
		t.Errorf("next offset %d, want 4", got)
	}
	if got := committed(t, c, "matcher", "vigie.reads", 0); got != 2 {
		t.Errorf("committed %d, want 2", got)
	}
	if got := describe(t, c, "vigie.control")["cleanup.policy"]; got != "compact" {
		t.Errorf("cleanup.policy %q, want compact", got)
	}
	first := int64(-1)
	consume(t, s, "matcher", "vigie.reads", func(offset int64, _ string) bool { first = offset; return false })
	if first != 2 {
		t.Errorf("the group went on at %d, want 2", first)
	}
}

// TestLeftoversOfTheLastProcess: neither its password nor its group members count.
func TestLeftoversOfTheLastProcess(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{Dir: dir})
	createTopic(t, kafkaClient(t, s), "reads", 1)
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: "matcher", Brokers: s.KafkaAddrs(), Topics: []string{"reads"}, Dialer: dialer(s), Timeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop(t, s) // with the member in the group
	g.Close()
	old := `{"version":1,"plain":{"vigie":"old"}}`
	if err := os.WriteFile(filepath.Join(dir, "kafka", "sasl.json"), []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}

	s = start(t, Config{Dir: dir})
	mustProduce(t, kafkaClient(t, s), "reads", 0, "a")
	joined := consume(t, s, "matcher", "reads", func(int64, string) bool { return false })
	if joined > 4*time.Second { // kafka-go's session timeout is 30 s
		t.Errorf("joining after a restart took %v", joined)
	}
}

// everyByte returns the content of every file below dir.
func everyByte(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		all.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestGroupSurvivesUncleanStop: the group's commit is on disk when CommitOffsets returns.
// The copy of the folder is what a power cut would leave.
func TestGroupSurvivesUncleanStop(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{Dir: dir})
	c := kafkaClient(t, s)
	createTopic(t, c, "reads", 1)
	mustProduce(t, c, "reads", 0, "a", "b", "c")
	consume(t, s, "matcher", "reads", func(offset int64, _ string) bool { return offset < 1 })
	left := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}

	s = start(t, Config{Dir: left})
	c = kafkaClient(t, s)
	if got := committed(t, c, "matcher", "reads", 0); got != 2 {
		t.Errorf("committed %d, want 2", got)
	}
	if got, want := readAll(t, c, "reads", 0), []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("records %v, want %v", got, want)
	}
}

// TestEmptiedPartition: retention removed every record, the program restarts, kfake numbers
// from 0 again. The group must meet the next record all the same.
func TestEmptiedPartition(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{Dir: dir})
	c := kafkaClient(t, s)
	createTopic(t, c, "reads", 1, kafka.ConfigEntry{ConfigName: "retention.ms", ConfigValue: "1"})
	mustProduce(t, c, "reads", 0, "a", "b", "c")
	consume(t, s, "matcher", "reads", func(offset int64, _ string) bool { return offset < 2 })
	time.Sleep(5 * time.Millisecond) // the records' age, in the broker's clock
	s.pass(0, true)
	if first, next := offsets(t, c, "reads", 0); first != 3 || next != 3 {
		t.Fatalf("after retention %d..%d, want 3..3", first, next)
	}
	stop(t, s)

	s = start(t, Config{Dir: dir})
	c = kafkaClient(t, s)
	mustProduce(t, c, "reads", 0, "d")
	var got []string
	consume(t, s, "matcher", "reads", func(_ int64, v string) bool { got = append(got, v); return false })
	if !slices.Equal(got, []string{"d"}) {
		t.Errorf("the group met %v, want the new record", got)
	}
}

// describe returns the configuration of a topic by DescribeConfigs.
func describe(t testing.TB, c *kafka.Client, topic string) map[string]string {
	t.Helper()
	resp, err := c.DescribeConfigs(t.Context(), &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic},
	}})
	if err != nil {
		t.Fatal(err)
	}
	configs := map[string]string{}
	for _, r := range resp.Resources {
		if r.Error != nil {
			t.Fatal(r.Error)
		}
		for _, e := range r.ConfigEntries {
			configs[e.ConfigName] = e.ConfigValue
		}
	}
	return configs
}

func TestTopicConfigs(t *testing.T) {
	s := start(t, Config{PartitionBytes: 12345})
	c := kafkaClient(t, s)
	tests := []struct {
		topic string
		set   map[string]string
		want  map[string]string
	}{
		{
			topic: "defaults",
			want:  map[string]string{"cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "12345"},
		},
		{
			topic: "reads",
			set:   map[string]string{"retention.ms": "86400000", "retention.bytes": "-1", "max.message.bytes": "65536"},
			want:  map[string]string{"retention.ms": "86400000", "retention.bytes": "-1", "max.message.bytes": "65536"},
		},
		{
			// Kafka ignores retention on a compacted topic; kfake would delete the control log.
			topic: "control",
			set:   map[string]string{"cleanup.policy": "compact", "retention.ms": "1", "retention.bytes": "1", "min.cleanable.dirty.ratio": "0.1"},
			want:  map[string]string{"cleanup.policy": "compact", "retention.bytes": "-1", "min.cleanable.dirty.ratio": "0.1"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.topic, func(t *testing.T) {
			var entries []kafka.ConfigEntry
			for k, v := range tt.set {
				entries = append(entries, kafka.ConfigEntry{ConfigName: k, ConfigValue: v})
			}
			createTopic(t, c, tt.topic, 1, entries...)
			got := describe(t, c, tt.topic)
			for k, want := range tt.want {
				if got[k] != want {
					t.Errorf("%s is %q, want %q", k, got[k], want)
				}
			}
		})
	}
	t.Run("too large", func(t *testing.T) {
		_, err := produce(t.Context(), c, "reads", 0, strings.Repeat("x", 70000))
		if !errors.Is(err, kafka.MessageSizeTooLarge) {
			t.Errorf("got %v, want MessageSizeTooLarge", err)
		}
	})
	t.Run("no auto-creation", func(t *testing.T) {
		_, err := produce(t.Context(), c, "absent", 0, "x")
		if err == nil {
			t.Error("an unknown topic took a record")
		}
		if _, err := c.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{"absent"}}); err != nil {
			t.Fatal(err)
		}
		if info := s.kafka.TopicInfo("absent"); info != nil {
			t.Error("a topic was created by asking for it")
		}
	})
	t.Run("replication", func(t *testing.T) {
		resp, err := c.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
			{Topic: "three", NumPartitions: 1, ReplicationFactor: 3},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Errors["three"]; !errors.Is(err, kafka.InvalidReplicationFactor) {
			t.Errorf("got %v, want InvalidReplicationFactor", err)
		}
	})
}

// TestControlLogIsNeverTrimmed: neither age nor a retention set by mistake takes a record
// from a compacted topic, at once or after a restart.
func TestControlLogIsNeverTrimmed(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{Dir: dir})
	c := kafkaClient(t, s)
	createTopic(t, c, "control", 1, kafka.ConfigEntry{ConfigName: "cleanup.policy", ConfigValue: "compact"})
	month := time.Now().Add(-30 * 24 * time.Hour)
	_, err := c.Produce(t.Context(), &kafka.ProduceRequest{
		Topic: "control", RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{Time: month, Key: kafka.NewBytes([]byte("k")), Value: kafka.NewBytes([]byte("old"))}),
	})
	if err != nil {
		t.Fatal(err)
	}
	alter, err := c.IncrementalAlterConfigs(t.Context(), &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: "control",
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "retention.ms", Value: "1", ConfigOperation: kafka.ConfigOperationSet}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := alter.Resources[0].Error; err != nil {
		t.Fatal(err)
	}
	s.pass(0, true)
	if got := readAll(t, c, "control", 0); !slices.Equal(got, []string{"old"}) {
		t.Fatalf("control log %v after retention.ms", got)
	}
	if _, err := c.AlterConfigs(t.Context(), &kafka.AlterConfigsRequest{Resources: []kafka.AlterConfigRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: "control",
		Configs: []kafka.AlterConfigRequestConfig{{Name: "cleanup.policy", Value: "compact"}, {Name: "retention.bytes", Value: "1"}},
	}}}); err != nil {
		t.Fatal(err)
	}
	s.pass(0, true)
	if got := readAll(t, c, "control", 0); !slices.Equal(got, []string{"old"}) {
		t.Fatalf("control log %v after retention.bytes", got)
	}
	stop(t, s)
	s = start(t, Config{Dir: dir})
	s.pass(0, true)
	if got := readAll(t, kafkaClient(t, s), "control", 0); !slices.Equal(got, []string{"old"}) {
		t.Fatalf("control log %v after a restart", got)
	}
}

func TestPartitionBytes(t *testing.T) {
	s := start(t, Config{PartitionBytes: 10000})
	c := kafkaClient(t, s)
	createTopic(t, c, "reads", 1)
	for range 40 {
		mustProduce(t, c, "reads", 0, strings.Repeat("x", 500)) // with its key, a little over 1000 bytes
	}
	s.pass(0, true)
	first, next := offsets(t, c, "reads", 0)
	if next != 40 || next-first < 7 || next-first > 9 {
		t.Errorf("kept %d..%d, want the last 7 to 9 of 40", first, next)
	}
}

// TestRunMakesTimePass: keys expire while Run runs, and Run ends with its context.
func TestRunMakesTimePass(t *testing.T) {
	s := start(t, Config{})
	r := redisClient(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if err := r.Set(ctx, "short", "1", 500*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	if err := r.Set(ctx, "long", "1", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for r.Exists(ctx, "short").Val() == 1 {
		if time.Now().After(deadline) {
			t.Fatal("a key of 500 ms is still there")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if ttl := r.TTL(ctx, "long").Val(); ttl > time.Hour || ttl < time.Hour-20*time.Second {
		t.Errorf("ttl of the other key is %v, want almost an hour", ttl)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRunEndsAfterClose(t *testing.T) {
	s := start(t, Config{})
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	stop(t, s)
	stop(t, s) // again: nothing
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestCloseCutsClients: open connections and a blocked fetch do not keep Close waiting.
func TestCloseCutsClients(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	c := kafkaClient(t, s)
	createTopic(t, c, "reads", 1)
	fetched := make(chan error, 1)
	go func() {
		_, err := c.Fetch(t.Context(), &kafka.FetchRequest{Topic: "reads", MinBytes: 1, MaxBytes: 1000, MaxWait: time.Minute})
		fetched <- err
	}()
	r := redisClient(t, s)
	popped := make(chan error, 1)
	go func() { popped <- r.BLPop(t.Context(), time.Minute, "nothing").Err() }()
	for len(s.redis.Keys()) > 0 || s.redis.CurrentConnectionCount() == 0 {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	stop(t, s)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
	if err := <-fetched; err == nil {
		t.Error("the fetch did not notice")
	}
	if err := <-popped; err == nil {
		t.Error("the pop did not notice")
	}
}

func TestRefusesAddresses(t *testing.T) {
	for _, addr := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:9092", "127.0.0.1", "127.0.0.1:port", "example.invalid:0"} {
		if s, err := Start(Config{KafkaAddr: addr}); err == nil {
			s.Close()
			t.Errorf("Kafka listens on %q", addr)
		} else if !strings.Contains(err.Error(), "KafkaAddr") {
			t.Errorf("%q: error %q does not name the field", addr, err)
		}
		if s, err := Start(Config{RedisAddr: addr}); err == nil {
			s.Close()
			t.Errorf("Redis listens on %q", addr)
		} else if !strings.Contains(err.Error(), "RedisAddr") {
			t.Errorf("%q: error %q does not name the field", addr, err)
		}
	}
	if _, err := Start(Config{PartitionBytes: -1}); err == nil {
		t.Error("a negative PartitionBytes was accepted")
	}
}

func TestPortInUse(t *testing.T) {
	s := start(t, Config{})
	taken := s.KafkaAddrs()[0]
	for _, tt := range []struct {
		field string
		cfg   Config
	}{
		{"KafkaAddr", Config{KafkaAddr: taken}},
		{"RedisAddr", Config{RedisAddr: taken}},
	} {
		second, err := Start(tt.cfg)
		if err == nil {
			second.Close()
			t.Fatalf("%s: two services on %s", tt.field, taken)
		}
		_, port, _ := net.SplitHostPort(taken)
		for _, want := range []string{tt.field, "port " + port, "another program"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q lacks %q", err, want)
			}
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("error %q is not EADDRINUSE", err)
		}
	}
}

// TestListensOnLoopbackOnly reads the kernel's list of listening sockets of this process.
func TestListensOnLoopbackOnly(t *testing.T) {
	start(t, Config{})
	start(t, Config{KafkaAddr: "localhost:0"})
	if first, err := Start(Config{KafkaAddr: "[::1]:0"}); err == nil { // not every machine has IPv6
		defer first.Close()
	}
	mine := map[string]bool{}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc: ", err)
	}
	for _, fd := range fds {
		if link, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			mine[link] = true
		}
	}
	found := 0
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		table, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(table)) {
			f := strings.Fields(line) // sl local remote state … inode is field 9
			if len(f) < 10 || f[3] != "0A" || !mine["socket:["+f[9]+"]"] {
				continue
			}
			found++
			host, _, _ := strings.Cut(f[1], ":")
			// 127.0.0.1 and ::1 as the kernel prints them: words in host order.
			if host != "0100007F" && host != "00000000000000000000000001000000" {
				t.Errorf("listens on %s", f[1])
			}
		}
	}
	if found < 4 {
		t.Errorf("found %d listening sockets, want 4 or more", found)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{Dir: dir})
	second, err := Start(Config{Dir: dir})
	if err == nil {
		second.Close()
		t.Fatal("two brokers on one folder")
	}
	for _, want := range []string{"data folder", dir, "in use", strconv.Itoa(os.Getpid())} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	stop(t, s)
	start(t, Config{Dir: dir})
}

func TestRefusesFolders(t *testing.T) {
	t.Run("of others", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if s, err := Start(Config{Dir: dir}); err == nil {
			s.Close()
			t.Fatal("took somebody's folder")
		} else if !strings.Contains(err.Error(), "thesis.txt") {
			t.Errorf("error %q does not say why", err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("left files behind: %v", entries)
		}
	})
	t.Run("of the future", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "VERSION"), []byte("vigie embedded 2\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if s, err := Start(Config{Dir: dir}); err == nil {
			s.Close()
			t.Fatal("took a folder of another format")
		} else if !strings.Contains(err.Error(), "vigie embedded 2") {
			t.Errorf("error %q does not name the format", err)
		}
	})
	t.Run("no folder", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if s, err := Start(Config{Dir: file}); err == nil {
			s.Close()
			t.Fatal("took a file")
		}
	})
}

func BenchmarkProduce(b *testing.B) {
	for _, disk := range []bool{false, true} {
		for _, n := range []int{1, 100} {
			b.Run(fmt.Sprintf("disk=%t/records=%d", disk, n), func(b *testing.B) {
				cfg := Config{}
				if disk {
					cfg.Dir = b.TempDir()
				}
				s := start(b, cfg)
				c := kafkaClient(b, s)
				createTopic(b, c, "reads", 1)
				values := make([]string, n)
				for i := range values {
					values[i] = strings.Repeat("x", 150)
				}
				for b.Loop() {
					mustProduce(b, c, "reads", 0, values...)
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "µs/request")
			})
		}
	}
}
