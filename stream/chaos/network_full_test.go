//go:build linux && chaos

package chaos

import (
	"testing"
	"time"

	"vigie/stream/streamtest"
)

// TestKafkaCut cuts the network between the matcher and Kafka.
func TestKafkaCut(t *testing.T) {
	k, proxy := proxiedKafka(t)
	s := newSite(t, siteConfig{kafka: []string{k.Addr()}, redis: sharedRedis(t).Addr()})
	s.cutMatcher("Kafka", proxy, cuts, "VIGIE_KAFKA_BROKERS="+proxy.Addr())
}

// TestCutOffTakenOver cuts one of two matchers off from Kafka for longer than its session, in
// the middle of batches that it has stored in Redis and not on the hits topic, while the list
// changes quickly: the other one goes on from what was committed, by newer lists.
func TestCutOffTakenOver(t *testing.T) {
	k, proxy := proxiedKafka(t)
	s := newSite(t, siteConfig{kafka: []string{k.Addr()}, redis: sharedRedis(t).Addr()})
	gateway := s.serve("office", office)
	ms := []*process{s.serve("matcher-0", "matcher", "VIGIE_KAFKA_BROKERS="+proxy.Addr()), s.serve("matcher-1", "matcher")}
	tr := s.begin("matcher cut off from Kafka beyond its session", plan{
		rate: 1000, share: 0.5, changes: 10, staleness: cutOff, duration: 24 * time.Second,
	}, gateway, ms...)
	time.Sleep(between(dice(t), time.Second, 2*time.Second))
	tr.strike()
	proxy.Hold(streamtest.ToTarget)
	generation := s.generation()
	s.until("the other matcher has every partition", func() bool { return len(ms[1].assignment.Load().partitions) == partitions })
	tr.shown("taken over %.1f s after the cut, in generation %d after %d", time.Since(tr.strikes[0]).Seconds(), s.generation(), generation)
	time.Sleep(between(dice(t), time.Second, 2*time.Second))
	proxy.Cut() // what was under way never arrives
	proxy.Heal()
	tr.heal()
	tr.finish()
}

// TestSlowNetwork gives the matcher 1 Mbit/s and 200 ms to Kafka and to Redis, less than the
// load needs: reads wait in Kafka, and not in the matcher's memory.
func TestSlowNetwork(t *testing.T) {
	k, toKafka := proxiedKafka(t)
	toRedis := streamtest.NewProxy(t, sharedRedis(t).Addr())
	s := newSite(t, siteConfig{kafka: []string{k.Addr()}, redis: sharedRedis(t).Addr()})
	gateway := s.serve("office", office)
	m := s.serve("matcher-0", "matcher", "VIGIE_KAFKA_BROKERS="+toKafka.Addr(), "VIGIE_REDIS_ADDR="+toRedis.Addr())
	tr := s.begin("slow network to Kafka and Redis, 1 Mbit/s and 200 ms", plan{
		rate: 2000, share: 0.1, changes: 2, staleness: cutOff, duration: 30 * time.Second,
	}, gateway, m)
	time.Sleep(2 * time.Second)
	tr.strike()
	for _, p := range []*streamtest.Proxy{toKafka, toRedis} {
		p.SetBandwidth(streamtest.BothWays, 1_000_000/8)
		p.SetLatency(streamtest.BothWays, 100*time.Millisecond)
	}
	dials := len(toKafka.Dials()) + len(toRedis.Dials())
	time.Sleep(20 * time.Second)
	lag := s.lag()
	dials = len(toKafka.Dials()) + len(toRedis.Dials()) - dials
	toKafka.Heal()
	toRedis.Heal()
	tr.heal()
	tr.shown("after 20 s the lag was %d reads, the most memory the matcher held was %d MiB, it dialled %d times", lag, s.peak(m), dials)
	if lag < 4000 {
		t.Errorf("the lag was %d reads: the network was not slow", lag)
	}
	if peak := s.peak(m); peak > 160 {
		t.Errorf("the matcher held %d MiB: reads do not wait in Kafka", peak)
	}
	if dials > 20*maxDials {
		t.Errorf("%d connections within 20 s", dials)
	}
	tr.finish()
}
