//go:build unix

package services

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// KafkaCluster is some brokers that replicate each other's partitions and elect the
// controller among them. With three of them, any one may be gone and topics can still be
// written with acks=all; with two gone nothing works any more until one is back. Its methods
// may be called from several goroutines.
type KafkaCluster struct {
	brokers []*Kafka
}

// clusterProperties make n brokers a cluster that gets over the loss of one of them within a
// few seconds. With Kafka's own settings that takes 10 to 40 s, too long for a test.
func clusterProperties(n int) map[string]string {
	replicas := min(n, 3)
	inSync := max(replicas-1, 1) // one may be gone
	set := map[string]string{
		// An acknowledged record is on as many brokers as must be in sync, and only one that
		// has it can become the leader: a test that misses a record has found a loss.
		"unclean.leader.election.enable": "false",

		// A broker that is silent for this long, killed or paused, loses its partitions.
		// Shorter would also expel one that two busy cores keep waiting.
		"broker.session.timeout.ms":    "2000",
		"broker.heartbeat.interval.ms": "400",

		// The silent one may be the controller. The others give it up after this time,
		// half of Kafka's, and elect another at once, which grants every broker a session
		// anew: up to 4 s in all.
		"controller.quorum.fetch.timeout.ms":        "1000",
		"controller.quorum.request.timeout.ms":      "1000",
		"controller.quorum.election.timeout.ms":     "500",
		"controller.quorum.election.backoff.max.ms": "300",

		// A paused broker takes a request and does not answer. Kafka waits 30 s for a
		// controller or a leader before it asks the next.
		"controller.socket.timeout.ms": "2000",
		"replica.socket.timeout.ms":    "2000",

		// A follower that keeps its session and does not keep up holds writes for as long:
		// 30 s in Kafka. One that meets an error tries again after the second.
		"replica.lag.time.max.ms":  "2000",
		"replica.fetch.backoff.ms": "200",

		// Leaders move when a test makes them, and not because five minutes are over.
		"auto.leader.rebalance.enable": "false",
	}
	for _, name := range []string{
		"default.replication.factor",
		"offsets.topic.replication.factor",
		"transaction.state.log.replication.factor",
		"share.coordinator.state.topic.replication.factor",
	} {
		set[name] = strconv.Itoa(replicas)
	}
	for _, name := range []string{
		"min.insync.replicas", // of __consumer_offsets as well
		"transaction.state.log.min.isr",
		"share.coordinator.state.topic.min.isr",
	} {
		set[name] = strconv.Itoa(inSync)
	}
	return set
}

// StartKafkaCluster starts n brokers in folders below cfg.Dir and waits until each knows all.
// Topics have three replicas, of which two must be in sync, unless they are made otherwise
// (as many as there are brokers and one less, with fewer than three).
func StartKafkaCluster(ctx context.Context, cfg KafkaConfig, n int) (*KafkaCluster, error) {
	if n < 1 {
		return nil, fmt.Errorf("services: a Kafka cluster of %d brokers", n)
	}
	if cfg.Port != 0 {
		return nil, errors.New("services: KafkaConfig.Port is for one broker; a cluster takes free ones")
	}
	if cfg.Heap == "" {
		cfg.Heap = "320m"
	}
	if cfg.JVM == nil {
		cfg.JVM = QuickJVM
	}
	nodes := make([]node, n)
	for i := range nodes {
		nodes[i].id, nodes[i].name = i, fmt.Sprintf("Kafka broker %d", i)
		if cfg.Dir != "" {
			nodes[i].dir = filepath.Join(cfg.Dir, "broker-"+strconv.Itoa(i))
		}
	}
	brokers, err := startBrokers(ctx, cfg, nodes, clusterProperties(n))
	if err != nil {
		return nil, err
	}
	c := &KafkaCluster{brokers: brokers}
	if err := c.AwaitInSync(ctx); err != nil {
		return nil, errors.Join(err, c.Kill())
	}
	return c, nil
}

// Broker is the broker with node id i, from 0 on.
func (c *KafkaCluster) Broker(i int) *Kafka { return c.brokers[i] }

// Addrs are the addresses that the brokers send clients to, in order; any of them will do as
// a client's first.
func (c *KafkaCluster) Addrs() []string {
	var addrs []string
	for _, b := range c.brokers {
		addrs = append(addrs, b.advertised)
	}
	return addrs
}

// AwaitInSync waits until the cluster is whole again: each broker knows of all of them, and
// of a leader for every partition, whose replicas are all in sync. It asks the brokers
// themselves, not what they advertise. It waits as long as ctx, at most 90 s.
func (c *KafkaCluster) AwaitInSync(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("it took %v", startTimeout))
	defer cancel()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		last := c.inSync(ctx)
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("services: wait for the Kafka cluster: %w; the last state: %w", context.Cause(ctx), last)
		case <-poll.C:
		}
	}
}

// inSync says what is missing.
func (c *KafkaCluster) inSync(ctx context.Context) error {
	for _, b := range c.brokers {
		m, err := metadata(ctx, b.addr, nil)
		if err != nil {
			return fmt.Errorf("broker %d: %w", b.id, err)
		}
		if len(m.Brokers) != len(c.brokers) {
			return fmt.Errorf("broker %d knows of %d brokers, want %d", b.id, len(m.Brokers), len(c.brokers))
		}
		for _, t := range m.Topics {
			if t.Error != nil {
				return fmt.Errorf("broker %d: topic %s: %w", b.id, t.Name, t.Error)
			}
			for _, p := range t.Partitions {
				if p.Error != nil {
					return fmt.Errorf("broker %d: topic %s, partition %d: %w", b.id, t.Name, p.ID, p.Error)
				}
				if len(p.Isr) != len(p.Replicas) {
					return fmt.Errorf("broker %d: topic %s, partition %d: %d of %d replicas are in sync",
						b.id, t.Name, p.ID, len(p.Isr), len(p.Replicas))
				}
			}
		}
	}
	return nil
}

// Stop stops every broker, paused ones too. See Kafka.Stop.
func (c *KafkaCluster) Stop() error { return c.each((*Kafka).Stop) }

// Kill ends every broker with SIGKILL and waits for them.
func (c *KafkaCluster) Kill() error { return c.each((*Kafka).Kill) }

func (c *KafkaCluster) each(do func(*Kafka) error) error {
	errs := make([]error, len(c.brokers))
	var wg sync.WaitGroup
	for i, b := range c.brokers {
		wg.Go(func() { errs[i] = do(b) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
