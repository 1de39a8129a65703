//go:build linux && chaos

package chaos

import (
	"testing"
	"time"
)

// TestRedisLoads kills a Redis that takes its time to read its data when it starts again: it
// answers, and refuses everything, as one with many gigabytes does.
func TestRedisLoads(t *testing.T) {
	r := ownRedis(t, true, "--key-load-delay", "1000") // µs for each command of the file
	s := newSite(t, siteConfig{kafka: []string{sharedKafka(t)}, redis: r.Addr()})
	gateway, m := s.serve("office", office), s.serve("matcher-0", "matcher")
	tr := s.begin("Redis killed, loads its data for seconds", plan{rate: 1000, share: 0.1, changes: 2, duration: 12 * time.Second}, gateway, m)
	time.Sleep(between(dice(t), 2*time.Second, 3*time.Second))
	tr.strike()
	tr.must(r.Kill())
	began := time.Now()
	tr.must(r.Restart(t.Context())) // it is back when it has loaded
	tr.heal()
	const refusals = `vigie_redisqueue_refusals_total{reason="loading"}`
	n := s.metric(m, refusals)
	tr.shown("it loaded for %.1f s and refused %.0f calls", time.Since(began).Seconds(), n)
	if n == 0 {
		t.Error("no call was refused because it loads")
	}
	tr.finish()
}
