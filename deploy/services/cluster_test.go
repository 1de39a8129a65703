//go:build unix

package services

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"vigie/stream/streamtest"
)

// controller is the broker that is the active controller, by what the brokers have written
// about their last election.
func controller(t *testing.T, c *KafkaCluster) (leader int) {
	t.Helper()
	eventually(t, "a controller", func() error {
		epoch := -1
		leader = -1
		for _, b := range c.brokers {
			name := filepath.Join(filepath.Dir(b.Log()), "data", "__cluster_metadata-0", "quorum-state")
			raw, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			var state struct{ LeaderID, LeaderEpoch int }
			if err := json.Unmarshal(raw, &state); err != nil {
				return err
			}
			if state.LeaderEpoch > epoch {
				leader, epoch = state.LeaderID, state.LeaderEpoch
			}
		}
		if leader < 0 {
			return fmt.Errorf("no leader in epoch %d", epoch)
		}
		return nil
	})
	return leader
}

// writeAll writes a record to every partition of topic with acks=all.
func writeAll(ctx context.Context, c *kafkago.Client, topic string, partitions int, value string) error {
	for p := range partitions {
		resp, err := c.Produce(ctx, &kafkago.ProduceRequest{
			Topic: topic, Partition: p, RequiredAcks: kafkago.RequireAll,
			Records: kafkago.NewRecordReader(kafkago.Record{Value: kafkago.NewBytes([]byte(value))}),
		})
		if err == nil {
			err = resp.Error
		}
		if err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
	}
	return nil
}

// TestKafkaCluster takes three brokers, with a proxy before each, through everything that a
// test may do to them. Each fault hits the broker that is the active controller, which is
// also the leader of a partition: the worst case.
func TestKafkaCluster(t *testing.T) {
	needServices(t)
	jars, err := KafkaJars(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	const brokers = 3
	var proxies []*streamtest.Proxy
	cfg := KafkaConfig{Dir: t.TempDir(), Jars: jars}
	for range brokers {
		p := streamtest.NewProxy(t, "")
		proxies = append(proxies, p)
		cfg.Advertise = append(cfg.Advertise, p.Addr())
	}
	began := time.Now()
	c, err := StartKafkaCluster(t.Context(), cfg, brokers)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("first start %v", time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
	})
	for i, p := range proxies {
		p.SetTarget(c.Broker(i).Addr())
		if b := c.Broker(i); b.ID() != i || b.Advertised() != p.Addr() || b.Addr() == p.Addr() {
			t.Errorf("broker %d: id %d on %s advertises %s", i, b.ID(), b.Addr(), b.Advertised())
		}
	}
	if !slices.Equal(c.Addrs(), cfg.Advertise) {
		t.Errorf("the addresses for clients are %v, want %v", c.Addrs(), cfg.Advertise)
	}

	tr := &kafkago.Transport{MetadataTTL: 100 * time.Millisecond, DialTimeout: time.Second}
	t.Cleanup(tr.CloseIdleConnections)
	client := &kafkago.Client{Addr: kafkago.TCP(c.Addrs()...), Transport: tr, Timeout: time.Second}
	eventually(t, "to create the topic", func() error { // the client's timeout is short, for what comes
		resp, err := client.CreateTopics(t.Context(), &kafkago.CreateTopicsRequest{Topics: []kafkago.TopicConfig{
			{Topic: "reads", NumPartitions: brokers, ReplicationFactor: -1},
		}})
		if err == nil {
			err = resp.Errors["reads"]
		}
		if errors.Is(err, kafkago.TopicAlreadyExists) {
			err = nil
		}
		return err
	})
	commit := func(offset int64) error {
		resp, err := client.OffsetCommit(t.Context(), &kafkago.OffsetCommitRequest{
			GroupID: "g", GenerationID: -1,
			Topics: map[string][]kafkago.OffsetCommit{"reads": {{Partition: 0, Offset: offset}}},
		})
		if err != nil {
			return err
		}
		return resp.Topics["reads"][0].Error
	}
	committed := func() (int64, error) {
		resp, err := client.OffsetFetch(t.Context(), &kafkago.OffsetFetchRequest{GroupID: "g", Topics: map[string][]int{"reads": {0}}})
		if err == nil {
			err = resp.Error
		}
		if err != nil {
			return 0, err
		}
		p := resp.Topics["reads"][0]
		return p.CommittedOffset, p.Error
	}
	var written []string
	write := func(t *testing.T, value string) {
		t.Helper()
		eventually(t, "a write with acks=all", func() error { return writeAll(t.Context(), client, "reads", brokers, value) })
		written = append(written, value)
	}
	write(t, "first")
	eventually(t, "a commit", func() error { return commit(1) })

	t.Run("topics", func(t *testing.T) {
		if err := c.AwaitInSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		m, err := metadata(t.Context(), c.Broker(0).Addr(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, topic := range m.Topics {
			names = append(names, topic.Name)
			for _, p := range topic.Partitions {
				if len(p.Replicas) != 3 {
					t.Errorf("topic %s, partition %d has %d replicas, want 3", topic.Name, p.ID, len(p.Replicas))
				}
				if p.Leader.Host != "127.0.0.1" || net.JoinHostPort(p.Leader.Host, strconv.Itoa(p.Leader.Port)) != cfg.Advertise[p.Leader.ID] {
					t.Errorf("a client is sent to %s:%d for broker %d", p.Leader.Host, p.Leader.Port, p.Leader.ID)
				}
			}
			resp, err := client.DescribeConfigs(t.Context(), &kafkago.DescribeConfigsRequest{Resources: []kafkago.DescribeConfigRequestResource{{
				ResourceType: kafkago.ResourceTypeTopic, ResourceName: topic.Name,
				ConfigNames: []string{"min.insync.replicas", "unclean.leader.election.enable"},
			}}})
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, e := range resp.Resources[0].ConfigEntries {
				got[e.ConfigName] = e.ConfigValue
			}
			if got["min.insync.replicas"] != "2" || got["unclean.leader.election.enable"] != "false" {
				t.Errorf("topic %s: %v", topic.Name, got)
			}
		}
		if slices.Sort(names); !slices.Equal(names, []string{"__consumer_offsets", "reads"}) {
			t.Errorf("topics %v", names)
		}
	})

	t.Run("proxies", func(t *testing.T) { // clients are cut off, brokers are not
		for _, p := range proxies {
			p.Hold(streamtest.BothWays)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // longer than the lag that is allowed
		defer cancel()
		for ctx.Err() == nil {
			if err := writeAll(ctx, client, "reads", 1, "cut off"); err == nil {
				t.Fatal("a client writes through proxies that hold")
			}
		}
		if err := c.inSync(t.Context()); err != nil {
			t.Errorf("the cluster suffers from what is before it: %v", err)
		}
		for _, p := range proxies {
			p.Cut() // what is held must not be written
			p.Heal()
		}
		write(t, "through proxies")
	})

	for _, tt := range []struct {
		name string
		hit  func(*Kafka) error
		mend func(*Kafka) error
	}{
		{"kill", (*Kafka).Kill, func(b *Kafka) error { return b.Restart(t.Context()) }},
		{"pause", (*Kafka).Pause, (*Kafka).Resume},
		{"stop", (*Kafka).Stop, func(b *Kafka) error { return b.Restart(t.Context()) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			victim := c.Broker(controller(t, c))
			if err := tt.hit(victim); err != nil {
				t.Fatal(err)
			}
			hit := time.Now()
			write(t, tt.name)
			written := time.Since(hit)
			eventually(t, "the committed offset", func() error { // the coordinator too has moved
				n, err := committed()
				if err == nil && n != int64(len(tt.name)) {
					err = commit(int64(len(tt.name)))
				}
				return err
			})
			if now := controller(t, c); now == victim.ID() {
				t.Errorf("broker %d is still the controller", now)
			}
			if err := c.inSync(t.Context()); err == nil {
				t.Error("AwaitInSync would not wait for a broker that is away")
			}
			mend := time.Now()
			if err := tt.mend(victim); err != nil {
				t.Fatal(err)
			}
			if err := c.AwaitInSync(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: writes with acks=all go on after %v; in sync again %v after its end", tt.name,
				written.Round(10*time.Millisecond), time.Since(mend).Round(10*time.Millisecond))
			if written > 15*time.Second {
				t.Errorf("writes went on after %v", written)
			}
		})
	}

	t.Run("two away", func(t *testing.T) { // or min.insync.replicas is not what it says
		first, second := c.Broker(0), c.Broker(1)
		for _, b := range []*Kafka{first, second} {
			if err := b.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		for ctx.Err() == nil {
			if err := writeAll(ctx, client, "reads", brokers, "lost"); err == nil {
				t.Fatal("one broker of three takes writes with acks=all")
			}
		}
		began := time.Now()
		restarted := make(chan error, 2)
		for _, b := range []*Kafka{first, second} {
			go func() { restarted <- b.Restart(t.Context()) }()
		}
		if err := errors.Join(<-restarted, <-restarted); err != nil {
			t.Fatal(err)
		}
		if err := c.AwaitInSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("in sync again %v after the restart of both", time.Since(began).Round(10*time.Millisecond))
		write(t, "last")
	})

	// Repeats are allowed: a write that fails may be stored all the same.
	got := values(t, client, "reads")
	for _, v := range written {
		if !slices.Contains(got, v) {
			t.Errorf("%q was acknowledged and is lost; the partition holds %q", v, got)
		}
	}

	began = time.Now()
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	t.Logf("stopped in %v", time.Since(began).Round(10*time.Millisecond))
	for i := range brokers {
		if c.Broker(i).Running() {
			t.Errorf("broker %d runs after Stop", i)
		}
	}
}

func TestKafkaClusterRefuses(t *testing.T) {
	for _, tt := range []struct {
		want string
		cfg  KafkaConfig
		n    int
	}{
		{"of 0 brokers", KafkaConfig{Dir: t.TempDir(), Jars: "j"}, 0},
		{"Port", KafkaConfig{Dir: t.TempDir(), Jars: "j", Port: 20000}, 3},
		{"Dir and Jars", KafkaConfig{Jars: "j"}, 3},
		{"2 addresses for 3 brokers", KafkaConfig{Dir: t.TempDir(), Jars: "j", Advertise: []string{"a:1", "b:2"}}, 3},
	} {
		if _, err := StartKafkaCluster(t.Context(), tt.cfg, tt.n); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want it to say %q", err, tt.want)
		}
	}
	needServices(t)
	jars, err := KafkaJars(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	_, err = StartKafkaCluster(t.Context(), KafkaConfig{Dir: t.TempDir(), Jars: jars, Properties: map[string]string{"num.io.threads": "many"}}, 3)
	if err == nil || !strings.Contains(err.Error(), "num.io.threads") {
		t.Errorf("a wrong setting: %v", err)
	}
}
