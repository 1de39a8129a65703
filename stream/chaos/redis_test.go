//go:build linux

package chaos

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// standstill checks that, while Redis keeps no alerts, matchers commit nothing once every
// partition has met an alert that waits; then for hold it looks on.
func (tr *trial) standstill(hold time.Duration) {
	tr.t.Helper()
	time.Sleep(1500 * time.Millisecond) // every partition has a probe each 100 ms, a commit is due every 200 ms
	before := tr.committed()
	time.Sleep(hold)
	after := tr.committed()
	if before == nil || !slices.Equal(before, after) {
		tr.t.Errorf("the committed offsets went on from %v to %v while Redis kept no alerts", before, after)
	}
	if lag := tr.lag(); lag <= 0 {
		tr.t.Errorf("the lag is %d while Redis keeps no alerts", lag)
	}
}

// TestRedisKilled kills Redis with SIGKILL and starts it again on its data.
func TestRedisKilled(t *testing.T) {
	rng, kills, r := dice(t), short(1, 4), sharedRedis(t)
	s, gateway, ms := newMatcherSite(t, 1)
	tr := s.begin(fmt.Sprintf("Redis killed and restarted, %d times", kills), plan{
		rate: 1000, share: 0.1, changes: 2, duration: time.Duration(kills)*8*time.Second + 3*time.Second,
	}, gateway, ms...)
	for range kills {
		time.Sleep(between(rng, time.Second, 2*time.Second))
		tr.strike()
		if err := r.Kill(); err != nil {
			t.Fatal(err)
		}
		tr.standstill(between(rng, 500*time.Millisecond, 2*time.Second))
		tr.shown("nothing was committed while it was away, the alarm stood at %.1f s and the lag at %d reads",
			s.metric(ms[0], "vigie_queues_blocked_seconds"), s.lag())
		if err := r.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		tr.heal()
	}
	tr.finish()
	if tr.res.RecoverySeconds > 10 {
		t.Errorf("recovered after %v s, more than 10", tr.res.RecoverySeconds)
	}
}

// TestRedisRefuses makes Redis refuse to keep alerts, in each way that it has.
func TestRedisRefuses(t *testing.T) {
	rng := dice(t)
	set := func(name, value string) []any { return []any{"CONFIG", "SET", name, value} }
	ways := []struct {
		reason      string
		break_, fix [][]any
	}{
		{"oom", [][]any{set("maxmemory", "1")}, [][]any{set("maxmemory", "0")}},
		{"readonly", [][]any{{"REPLICAOF", "127.0.0.1", "1"}}, [][]any{{"REPLICAOF", "NO", "ONE"}}},
		{"noreplicas", [][]any{set("min-replicas-to-write", "1")}, [][]any{set("min-replicas-to-write", "0")}},
		// A snapshot that cannot be written, for nobody can make a file there.
		{"misconf", [][]any{set("save", "3600 1"), set("dir", "/proc"), {"BGSAVE"}}, [][]any{set("dir", lab.dir+"/redis"), set("save", "")}},
	}
	ways = ways[:short(2, len(ways))]
	s, gateway, ms := newMatcherSite(t, 1)
	tr := s.begin(fmt.Sprintf("Redis refuses, %d ways", len(ways)), plan{
		rate: 1000, share: 0.1, changes: 2, duration: time.Duration(len(ways)) * 6 * time.Second,
	}, gateway, ms...)
	do := func(commands [][]any) {
		t.Helper()
		inRedis(s, func(rdb *redis.Client) ([]redis.Cmder, error) {
			return rdb.Pipelined(context.Background(), func(p redis.Pipeliner) error {
				for _, c := range commands {
					p.Do(context.Background(), c...)
				}
				return nil
			})
		})
	}
	for _, way := range ways {
		time.Sleep(between(rng, 500*time.Millisecond, time.Second))
		refusals := fmt.Sprintf("vigie_redisqueue_refusals_total{reason=%q}", way.reason)
		before := s.metric(ms[0], refusals)
		tr.strike()
		began := time.Now()
		do(way.break_)
		s.until("the refusals are counted", func() bool { return s.metric(ms[0], refusals) > before })
		alarm := time.Since(began)
		tr.standstill(500 * time.Millisecond)
		do(way.fix)
		tr.heal()
		s.until("the matcher goes on", func() bool { return s.metric(ms[0], "vigie_queues_blocked_seconds") == 0 })
		tr.shown("%s: counted after %.2f s, nothing was committed", way.reason, alarm.Seconds())
		if alarm > 5*time.Second {
			t.Errorf("%s: the refusals were counted after %v, more than 5 s", way.reason, alarm)
		}
		if ms[0].gone() {
			t.Fatalf("%s: the matcher has ended", way.reason)
		}
		time.Sleep(steady * probeEvery)
	}
	tr.finish()
}
