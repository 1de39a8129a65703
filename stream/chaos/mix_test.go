//go:build linux && chaos

package chaos

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"vigie/stream/streamtest"
)

// TestMix breaks matchers, Redis, Kafka and the network to both, one after the other for two
// minutes, without waiting until the service has recovered from the last fault.
func TestMix(t *testing.T) {
	const lasting = 2 * time.Minute
	rng := dice(t)
	k, toKafka := proxiedKafka(t)
	r := ownRedis(t, true)
	toRedis := streamtest.NewProxy(t, r.Addr())
	s := newSite(t, siteConfig{kafka: []string{k.Addr()}, redis: r.Addr()})
	gateway := s.serve("office", office)
	through := []string{"VIGIE_KAFKA_BROKERS=" + toKafka.Addr(), "VIGIE_REDIS_ADDR=" + toRedis.Addr()}
	ms := []*process{s.serve("matcher-0", "matcher", through...), s.serve("matcher-1", "matcher", through...)}
	tr := s.begin("a mix of faults, 2 min", plan{rate: 1000, share: 0.1, changes: 2, staleness: cutOff, duration: lasting + 5*time.Second}, gateway, ms...)

	pause := func(lo, hi time.Duration) { time.Sleep(between(rng, lo, hi)) }
	set := func(name, value string) {
		t.Helper()
		inRedis(s, func(rdb *redis.Client) (string, error) {
			return rdb.ConfigSet(context.Background(), name, value).Result()
		})
	}
	faults := []struct {
		name string
		do   func()
	}{
		{"a matcher killed", func() {
			i := rng.IntN(len(ms))
			ms[i].kill()
			pause(0, time.Second)
			ms[i] = s.start(ms[i].name, "matcher", through...)
		}},
		{"a matcher stopped", func() {
			m := ms[rng.IntN(len(ms))]
			if m.gone() {
				return
			}
			s.signal(m, syscall.SIGSTOP)
			pause(time.Second, 14*time.Second)
			s.signal(m, syscall.SIGCONT)
		}},
		{"a matcher ended", func() {
			i := rng.IntN(len(ms))
			if !ms[i].gone() {
				s.terminate(ms[i])
			}
			ms[i] = s.start(ms[i].name, "matcher", through...)
		}},
		{"Redis killed", func() { tr.must(r.Kill()); pause(0, 3*time.Second); tr.must(r.Restart(t.Context())) }},
		{"Redis stopped", func() { tr.must(r.Pause()); pause(time.Second, 5*time.Second); tr.must(r.Resume()) }},
		{"Redis out of memory", func() { set("maxmemory", "1"); pause(time.Second, 4*time.Second); set("maxmemory", "0") }},
		{"the network to Redis held", func() { toRedis.Hold(streamtest.ToClient); pause(time.Second, 5*time.Second); toRedis.Heal() }},
		{"the network to Kafka held", func() { toKafka.Hold(streamtest.ToTarget); pause(time.Second, 5*time.Second); toKafka.Heal() }},
		{"connections reset", func() { toKafka.Cut(); toRedis.Cut() }},
		{"Kafka stopped", func() { tr.must(k.Pause()); pause(time.Second, 5*time.Second); tr.must(k.Resume()) }},
		{"Kafka killed", func() { tr.must(k.Kill()); pause(0, 2*time.Second); tr.must(k.Restart(t.Context())) }},
	}
	count := map[string]int{}
	for began := time.Now(); time.Since(began) < lasting-20*time.Second; {
		pause(time.Second, 4*time.Second)
		f := faults[rng.IntN(len(faults))]
		t.Logf("%5.1f s: %s", time.Since(began).Seconds(), f.name)
		count[f.name]++
		tr.strike()
		f.do()
		tr.heal()
	}
	for i, m := range ms {
		if m.gone() { // one that was started while a broker was away says so and ends
			ms[i] = s.start(m.name, "matcher", through...)
		}
	}
	for _, m := range ms {
		s.awaitReady(m)
	}
	tr.heal()
	tr.shown("%v", count)
	tr.finish(ms...)
}
