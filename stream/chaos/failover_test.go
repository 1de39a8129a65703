//go:build linux && chaos

package chaos

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"vigie/deploy/services"
	"vigie/stream/ledger"
	"vigie/stream/streamtest"
)

// ownRedis starts a Redis for one test.
func ownRedis(t *testing.T, aof bool, args ...string) *services.Redis {
	t.Helper()
	streamtest.Need(t, "VIGIE_TEST_REDIS") // then the program is there
	r, err := services.StartRedis(t.Context(), services.RedisConfig{
		Dir: filepath.Join(t.TempDir(), "redis"), AOF: aof, Args: append(args, "--repl-diskless-sync-delay", "0"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Kill(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// master is the name under which Sentinel knows the server.
const master = "vigie"

// startSentinel starts a Sentinel that watches a server, and returns its address.
func startSentinel(t *testing.T, server string) string {
	t.Helper()
	port := freePorts(t, 1)[0]
	host, serverPort, _ := strings.Cut(server, ":")
	dir := t.TempDir()
	conf := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf("bind 127.0.0.1\nport %d\ndir %s\nsentinel monitor %s %s %s 1\n"+
		"sentinel down-after-milliseconds %s 1000\nsentinel failover-timeout %s 3000\n", port, dir, master, host, serverPort, master, master)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("redis-server", conf, "--sentinel")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// TestSentinel kills the Redis master, and in a second run stops it in its tracks: Sentinel
// promotes the replica, and everybody follows. The recovery counts from the fault.
func TestSentinel(t *testing.T) {
	for _, how := range []string{"killed", "stopped"} {
		t.Run(how, func(t *testing.T) {
			first, second := ownRedis(t, true), ownRedis(t, true)
			host, port, _ := strings.Cut(first.Addr(), ":")
			replica := redis.NewClient(&redis.Options{Addr: second.Addr()})
			defer replica.Close()
			if err := replica.Do(t.Context(), "REPLICAOF", host, port).Err(); err != nil {
				t.Fatal(err)
			}
			watch := startSentinel(t, first.Addr())
			eyes := redis.NewSentinelClient(&redis.Options{Addr: watch})
			defer eyes.Close()
			s := newSite(t, siteConfig{
				kafka: []string{sharedKafka(t)},
				redisNow: func() string {
					addr, err := eyes.GetMasterAddrByName(context.Background(), master).Result()
					if err != nil || len(addr) != 2 {
						return "127.0.0.1:1" // nobody is there
					}
					return net.JoinHostPort(addr[0], addr[1])
				},
				env: []string{"VIGIE_REDIS_SENTINELS=" + watch, "VIGIE_REDIS_MASTER=" + master},
			})
			s.until("the Sentinel knows the replica", func() bool {
				replicas, err := eyes.Replicas(t.Context(), master).Result()
				return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
			})
			gateway, m := s.serve("office", office), s.serve("matcher-0", "matcher")
			tr := s.begin("Redis master "+how+", Sentinel fails over", plan{rate: 1000, share: 0.1, changes: 2, duration: 18 * time.Second}, gateway, m)
			time.Sleep(between(dice(t), time.Second, 2*time.Second))
			tr.strike()
			if how == "killed" {
				tr.must(first.Kill())
			} else {
				tr.must(first.Pause())
			}
			tr.heal() // nothing is mended: the replica takes over
			s.until("the replica is the master", func() bool { return s.cfg.redisNow() == second.Addr() })
			tr.shown("Sentinel named another master %.1f s after the fault", time.Since(tr.strikes[0]).Seconds())
			if how == "stopped" {
				time.Sleep(10*time.Second - time.Since(tr.strikes[0]))
				tr.must(first.Resume()) // and finds that it is a replica now
			}
			tr.finish()
			if n := s.metric(m, "vigie_queues_failovers_total"); n == 0 {
				t.Error("the matcher has noticed no fail-over")
			}
			if tr.res.RecoverySeconds > 10 {
				t.Errorf("recovered after %v s, more than 10", tr.res.RecoverySeconds)
			}
		})
	}
}

// TestRedisEmptied kills a Redis that keeps nothing on disk: the queues come back from the hits
// topic. Without redis.rewind they do not, and the check must say so.
func TestRedisEmptied(t *testing.T) {
	for _, rewind := range []string{"30s", "0s"} {
		t.Run("rewind="+rewind, func(t *testing.T) {
			r := ownRedis(t, false)
			s := newSite(t, siteConfig{kafka: []string{sharedKafka(t)}, redis: r.Addr(), env: []string{"VIGIE_REDIS_REWIND=" + rewind}})
			gateway, m := s.serve("office", office), s.serve("matcher-0", "matcher")
			name := "Redis killed, comes back empty"
			if rewind == "0s" {
				name = "CONTROL: the same without redis.rewind"
			}
			tr := s.begin(name, plan{rate: 1000, share: 0.1, duration: 8 * time.Second}, gateway, m)
			time.Sleep(between(dice(t), 2*time.Second, 3*time.Second))
			tr.strike()
			tr.must(r.Kill())
			time.Sleep(between(dice(t), 500*time.Millisecond, time.Second))
			tr.must(r.Restart(t.Context()))
			tr.heal()
			if rewind != "0s" {
				tr.finish()
				tr.shown("%d of %d alerts had been stored when it lost them all", tr.res.StoredAtStrike, tr.res.Found+tr.res.Allowed)
				return
			}
			<-tr.ended
			s.until("the lag is 0", func() bool { return s.lag() == 0 })
			tr.probe.stop()
			rep := tr.check(tr.ledger, time.Since(tr.strikes[0]), 2)
			tr.res.Reads, tr.res.Expected, tr.res.Found = rep.Reads, rep.Expected, rep.Found
			lost := rep.Count(ledger.Missing)
			tr.shown("%d alerts had been stored when it lost them all; the check reports %d missing", tr.res.StoredAtStrike, lost)
			if int64(lost) < tr.res.StoredAtStrike/2 {
				t.Errorf("%d alerts are reported missing of %d that were lost", lost, tr.res.StoredAtStrike)
			}
		})
	}
}
