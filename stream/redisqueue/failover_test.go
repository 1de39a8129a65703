package redisqueue

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"vigie/deploy/services"
	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/streamtest"
	"vigie/watchlist"
)

// ownRedis starts a Redis server for one test, to be broken. It keeps nothing over a restart.
func ownRedis(t *testing.T) *services.Redis {
	t.Helper()
	streamtest.Need(t, "VIGIE_TEST_REDIS") // then the program is there
	r, err := services.StartRedis(t.Context(), services.RedisConfig{
		Dir: t.TempDir(), Args: []string{"--repl-diskless-sync-delay", "0"},
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

// matcherOn is a matcher whose queues are real and whose Kafka is not.
type matcherOn struct {
	reads    *streamtest.Reads
	q        *Queues
	failover *stream.Failover
	desk     *stream.Desk
}

func newMatcher(t *testing.T, cfg Config, rewind time.Duration) *matcherOn {
	t.Helper()
	q, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m := &matcherOn{reads: streamtest.NewReads(1), q: q}
	log, journal := streamtest.NewControlLog(), new(streamtest.Journal)
	rep := stream.NewReplica(nil)
	if m.failover, err = stream.NewFailover(stream.FailoverConfig{
		Store: q, Hits: journal, Replica: rep, Rewind: rewind, Every: 50 * time.Millisecond,
	}); err != nil {
		t.Fatal(err)
	}
	if m.desk, err = stream.NewDesk(stream.DeskConfig{Log: log, Replica: rep, Fencer: q}); err != nil {
		t.Fatal(err)
	}
	p, err := stream.New(stream.Config{
		Source: m.reads.Source(20), Replica: rep, Queues: m.failover, Journal: journal, Dead: new(streamtest.Dead),
		CommitEvery: time.Millisecond, Drain: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	for _, run := range []func(context.Context) error{
		func(ctx context.Context) error { return rep.Follow(ctx, log) }, m.failover.Run, p.Run,
	} {
		go func() { ended <- run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := m.desk.PutList(t.Context(), "op", watchlist.List{
		ID: "stolen", Name: "stolen", Owner: "SDLP", LegalBasis: "CSI L233-1", DefaultAction: watchlist.ActionIntercept,
	}); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *matcherOn) entry(t *testing.T, plate string) *watchlist.Entry {
	t.Helper()
	e, err := m.desk.AddEntry(t.Context(), "op", "stolen", watchlist.EntryInput{
		Plate: plate, Country: "FR", Reason: "stolen", CaseRef: "T-1",
		ValidFrom: time.Now().Add(-time.Hour), ValidUntil: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (m *matcherOn) read(t *testing.T, id, plate string) {
	t.Helper()
	b, err := sensors.AppendProto(nil, &sensors.Read{ID: id, Sensor: "A7-118-2", Plate: plate, Country: "FR", TS: time.Now().UnixMilli()})
	if err != nil {
		t.Fatal(err)
	}
	m.reads.Produce(0, b)
}

// alerts counts how often the alert of each read is in the queue.
func (m *matcherOn) alerts(t *testing.T) map[string]int {
	t.Helper()
	got := map[string]int{}
	for _, msg := range inQueue(t, m.q, watchlist.DefaultQueue) {
		got[msg.AlertID]++
	}
	return got
}

func (m *matcherOn) committed(t *testing.T, n int64) {
	t.Helper()
	streamtest.Eventually(t, patience, fmt.Sprintf("offset %d to be committed", n), func() bool { return m.reads.Committed()[0] == n })
}

// TestRedisRestartsEmpty kills Redis while alerts are published and starts it again
// without any data: all come back, each once, and with them the fences. The same without
// a rewind loses what was published before, which shows that the count sees a loss.
func TestRedisRestartsEmpty(t *testing.T) {
	for _, rewind := range []time.Duration{30 * time.Second, 0} {
		t.Run(fmt.Sprint("rewind=", rewind), func(t *testing.T) {
			const reads, kill = 600, 300
			r := ownRedis(t)
			m := newMatcher(t, Config{Addr: r.Addr()}, rewind)
			m.entry(t, "AB-123-CD")
			restarted := make(chan error, 1)
			for i := range reads {
				if i == kill {
					if err := r.Kill(); err != nil {
						t.Fatal(err)
					}
					go func() { restarted <- r.Restart(context.Background()) }()
				}
				m.read(t, fmt.Sprintf("r%04d", i), "AB-123-CD")
				time.Sleep(2 * time.Millisecond)
			}
			if err := <-restarted; err != nil {
				t.Fatal(err)
			}
			m.committed(t, reads)
			streamtest.Eventually(t, patience, "the restart to be noticed", func() bool { return m.failover.Stats().Failovers == 1 })
			got := m.alerts(t)
			for id, n := range got {
				if n != 1 {
					t.Errorf("alert %s is %d times in the queue", id, n)
				}
			}
			t.Logf("%d alerts of %d, stats %+v", len(got), reads, m.failover.Stats())
			if rewind > 0 && len(got) != reads {
				t.Errorf("%d alerts of %d", len(got), reads)
			}
			if rewind == 0 && len(got) > reads-kill/2 {
				t.Errorf("%d alerts of %d without a rewind: the test would not see a loss", len(got), reads)
			}
			if fence, err := m.q.FenceOf(t.Context(), watchlist.DefaultQueue); err != nil || fence < 1 {
				t.Errorf("fence %d, %v: it was not raised again", fence, err)
			}
			// What is known of an alert is back too.
			for id := range got {
				if _, _, err := m.q.Get(t.Context(), id, []string{watchlist.DefaultQueue}); err != nil {
					t.Fatalf("alert %s: %v", id, err)
				}
			}
		})
	}
}

// TestReplicaTakesOver: a replica that was cut off is promoted while its master goes on to
// acknowledge, and then everybody is sent to it: what a split brain looks like from here.
// What only the old master had comes back, and without a rewind does not. Withdrawals that
// the old master alone knew of hold.
func TestReplicaTakesOver(t *testing.T) {
	for _, rewind := range []time.Duration{30 * time.Second, 0} {
		t.Run(fmt.Sprint("rewind=", rewind), func(t *testing.T) {
			const replicated, lost, later = 100, 100, 100
			master, replica := ownRedis(t), ownRedis(t)
			way := streamtest.NewProxy(t, master.Addr())
			m := newMatcher(t, Config{Addr: way.Addr()}, rewind)
			m.entry(t, "AB-123-CD")
			gone := m.entry(t, "EF-456-GH")
			second, err := Open(Config{Addr: replica.Addr()})
			if err != nil {
				t.Fatal(err)
			}
			defer second.Close()
			host, port, _ := strings.Cut(master.Addr(), ":")
			if err := second.rdb.Do(ctx, "REPLICAOF", host, port).Err(); err != nil {
				t.Fatal(err)
			}
			sent := 0
			send := func(n int, plate string) {
				t.Helper()
				for range n {
					m.read(t, fmt.Sprintf("r%04d", sent), plate)
					sent++
				}
				m.committed(t, int64(sent))
			}
			send(replicated, "AB-123-CD")
			streamtest.Eventually(t, patience, "the replica to have them", func() bool { return len(inQueue(t, second, watchlist.DefaultQueue)) == replicated })
			if err := second.rdb.Do(ctx, "REPLICAOF", "NO", "ONE").Err(); err != nil {
				t.Fatal(err)
			}
			send(lost, "AB-123-CD")
			send(5, "EF-456-GH")
			v, err := m.desk.WithdrawEntry(ctx, "op", "stolen", gone.ID, "found")
			if err != nil {
				t.Fatal(err)
			}
			// The first replica that a master meets changes its history; nothing was lost by that.
			before := m.failover.Stats().Failovers
			way.SetTarget(replica.Addr())
			way.Cut()
			send(later, "AB-123-CD")
			streamtest.Eventually(t, patience, "the fail-over to be noticed", func() bool { return m.failover.Stats().Failovers > before })
			got := m.alerts(t)
			for id, n := range got {
				if n != 1 {
					t.Errorf("alert %s is %d times in the queue", id, n)
				}
			}
			want := replicated + lost + later
			if rewind == 0 {
				want -= lost
			}
			if len(got) != want {
				t.Errorf("%d alerts, want %d; stats %+v", len(got), want, m.failover.Stats())
			}
			if s := m.failover.Stats(); rewind > 0 && (s.Restored != lost || s.Unwanted != 5) {
				t.Errorf("stats %+v, want %d restored and 5 unwanted", s, lost)
			}
			if fence, err := m.q.FenceOf(ctx, watchlist.DefaultQueue); err != nil || fence < v {
				t.Errorf("fence %d, %v; the withdrawal is version %d", fence, err, v)
			}
		})
	}
}

// sentinel starts a Sentinel that watches a server under the name "vigie", and returns its address.
func sentinel(t *testing.T, master string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	_, port, _ := strings.Cut(addr, ":")
	host, masterPort, _ := strings.Cut(master, ":")
	dir := t.TempDir()
	conf := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf("bind 127.0.0.1\nport %s\ndir %s\nsentinel monitor vigie %s %s 1\n"+
		"sentinel down-after-milliseconds vigie 1000\nsentinel failover-timeout vigie 3000\n", port, dir, host, masterPort)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("redis-server", conf, "--sentinel")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	return addr
}

// TestSentinelFailsOver kills the master, and in a second run stops it in its tracks, while
// reads come in: Sentinel promotes the replica, the matcher follows, and every alert is there
// once. A stopped master that wakes has become a replica by then.
func TestSentinelFailsOver(t *testing.T) {
	for _, how := range []string{"kill", "stop"} {
		t.Run(how, func(t *testing.T) {
			const before, during = 200, 200
			master, replica := ownRedis(t), ownRedis(t)
			second, err := Open(Config{Addr: replica.Addr()})
			if err != nil {
				t.Fatal(err)
			}
			defer second.Close()
			host, port, _ := strings.Cut(master.Addr(), ":")
			if err := second.rdb.Do(ctx, "REPLICAOF", host, port).Err(); err != nil {
				t.Fatal(err)
			}
			watch := sentinel(t, master.Addr())
			eyes := redis.NewSentinelClient(&redis.Options{Addr: watch})
			defer eyes.Close()
			streamtest.Eventually(t, patience, "the Sentinel to know the replica", func() bool {
				replicas, err := eyes.Replicas(ctx, "vigie").Result()
				return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
			})
			m := newMatcher(t, Config{Addrs: []string{watch}, Master: "vigie"}, 30*time.Second)
			m.entry(t, "AB-123-CD")
			sent := 0
			send := func(n int) {
				for range n {
					m.read(t, fmt.Sprintf("r%04d", sent), "AB-123-CD")
					sent++
				}
			}
			send(before)
			m.committed(t, before)
			send(during)
			began := time.Now()
			if how == "kill" {
				err = master.Kill()
			} else {
				err = master.Pause()
			}
			if err != nil {
				t.Fatal(err)
			}
			send(during)
			m.committed(t, int64(sent))
			t.Logf("after %s all alerts were stored within %v, stats %+v", how, time.Since(began).Round(10*time.Millisecond), m.failover.Stats())
			if how == "stop" {
				if err := master.Resume(); err != nil {
					t.Fatal(err)
				}
			}
			send(during)
			m.committed(t, int64(sent))
			got := map[string]int{}
			for _, msg := range inQueue(t, second, watchlist.DefaultQueue) {
				got[msg.AlertID]++
			}
			for id, n := range got {
				if n != 1 {
					t.Errorf("alert %s is %d times in the queue", id, n)
				}
			}
			if len(got) != sent {
				t.Errorf("%d alerts, want %d", len(got), sent)
			}
			if s := m.failover.Stats(); s.Failovers == 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// TestRedisRefuses makes Redis a replica, and then short of memory: nothing is committed,
// the refusals are counted by reason and the alarm rises; afterwards every alert is there.
func TestRedisRefuses(t *testing.T) {
	r := ownRedis(t)
	m := newMatcher(t, Config{Addr: r.Addr()}, 30*time.Second)
	m.entry(t, "AB-123-CD")
	m.read(t, "r0", "AB-123-CD")
	m.committed(t, 1)
	do := func(args ...any) {
		t.Helper()
		if err := m.q.rdb.Do(t.Context(), args...).Err(); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
	}
	n := int64(1)
	for _, tc := range []struct {
		reason      string
		break_, fix []any
		failover    bool
	}{
		{"readonly", []any{"REPLICAOF", "127.0.0.1", "1"}, []any{"REPLICAOF", "NO", "ONE"}, true},
		{"oom", []any{"CONFIG", "SET", "maxmemory", "1"}, []any{"CONFIG", "SET", "maxmemory", "0"}, false},
	} {
		before := m.failover.Stats().Failovers
		do(tc.break_...)
		m.read(t, fmt.Sprint("r", n), "AB-123-CD")
		streamtest.Eventually(t, patience, "the alarm", func() bool { return m.failover.Stats().Blocked > 200*time.Millisecond })
		if got := m.reads.Committed()[0]; got != n {
			t.Errorf("%s: offset %d is committed, want %d", tc.reason, got, n)
		}
		if got := m.q.Stats().Refused; got[tc.reason] == 0 {
			t.Errorf("%s is not counted: %v", tc.reason, got)
		}
		do(tc.fix...)
		n++
		m.committed(t, n)
		if got := m.alerts(t); len(got) != int(n) {
			t.Errorf("%s: %d alerts, want %d", tc.reason, len(got), n)
		}
		if got := m.failover.Stats(); got.Failovers-before != map[bool]int64{true: 1}[tc.failover] || got.Blocked != 0 {
			t.Errorf("%s: stats %+v", tc.reason, got)
		}
	}
}

// TestPutBack: alerts come after all that is there, or at their own time; a fence refuses
// them and then their steps too.
func TestPutBack(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		const n = 40
		q := open(t, b)
		events := history(t, q, n)
		opt := stream.PutBackOptions{Version: 5}
		res, err := q.PutBack(ctx, events, opt)
		if err != nil || res.Restored != 0 || res.There != int64(len(events)) || res.Fence != -1 {
			t.Errorf("over what is there: %+v, %v", res, err)
		}
		wipe(t, q)
		if err := q.Fence(ctx, []string{"q1"}, 6); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if res, err = q.PutBack(ctx, events, opt); err != nil || res.Fence != 6 {
				t.Errorf("below a fence: %+v, %v", res, err)
			}
			if got := inQueue(t, q, "q1"); len(got) != 0 {
				t.Errorf("the fenced queue holds %v", got)
			}
		}
		opt.Version = 6
		if res, err = q.PutBack(ctx, events, opt); err != nil || res.Fence != -1 {
			t.Errorf("at the fence: %+v, %v", res, err)
		}
		seen := map[string]bool{}
		for i := range 3 {
			for _, m := range inQueue(t, q, fmt.Sprint("q", i)) {
				if age := time.Since(time.UnixMilli(int64(m.at.ms))); age > time.Hour {
					t.Errorf("%v has an id of its own time: who listens has passed it", m)
				}
				seen[m.Kind+m.AlertID+string(m.Data)] = true
			}
		}
		distinct := map[string]bool{}
		for _, e := range events {
			distinct[fmt.Sprint(e.AlertID, e.Step)] = true
		}
		if len(seen) != len(distinct) {
			t.Errorf("%d messages, want %d", len(seen), len(distinct))
		}
		wipe(t, q)
		opt.KeepTime = true
		if _, err = q.PutBack(ctx, events, opt); err != nil {
			t.Fatal(err)
		}
		for _, m := range inQueue(t, q, "q0") {
			if age := time.Since(time.UnixMilli(int64(m.at.ms))); age < 23*time.Hour {
				t.Errorf("%v is %v old", m, age)
			}
		}
	})
}

// TestServer: the identity changes with the server, and a loss shows by the mark.
func TestServer(t *testing.T) {
	t.Run("redis", func(t *testing.T) {
		r := ownRedis(t)
		q, err := Open(Config{Addr: r.Addr()})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		var ids []string
		look := func() stream.QueueServer {
			t.Helper()
			s, err := q.Server(ctx)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, s.ID)
			return s
		}
		if s := look(); s.Marked != "" {
			t.Errorf("a new server has the mark %q", s.Marked)
		}
		at := time.Now().Truncate(time.Millisecond)
		if err := q.Mark(ctx, ids[0], at); err != nil {
			t.Fatal(err)
		}
		if s := look(); s.Marked != ids[0] || !s.MarkedAt.Equal(at) || s.ID != ids[0] {
			t.Errorf("got %+v, want the mark of %v", s, at)
		}
		for _, args := range [][]any{{"REPLICAOF", "127.0.0.1", "1"}, {"REPLICAOF", "NO", "ONE"}} {
			if err := q.rdb.Do(ctx, args...).Err(); err != nil {
				t.Fatal(err)
			}
			if args[1] != "NO" {
				if _, err := q.Server(ctx); err == nil {
					t.Error("a replica is taken for a server to write to")
				}
			}
		}
		if s := look(); s.Marked != ids[0] { // its data is there, its history another
			t.Errorf("after a promotion: %+v", s)
		}
		if err := r.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := r.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, _ = q.Server(ctx) // on the broken connection
		if s := look(); s.Marked != "" {
			t.Errorf("after an empty restart: %+v", s)
		}
		if slices.Sort(ids); len(slices.Compact(ids)) != 3 {
			t.Errorf("identities %q, want 3 different ones", ids)
		}
	})
	t.Run("miniredis", func(t *testing.T) {
		r := miniredis.RunT(t)
		q := open(t, backend{addr: r.Addr()})
		s, err := q.Server(ctx)
		if err != nil || s.ID != untold || s.Marked != "" {
			t.Fatalf("got %+v, %v", s, err)
		}
		if err := q.Mark(ctx, s.ID, time.Now()); err != nil {
			t.Fatal(err)
		}
		if s, err = q.Server(ctx); err != nil || s.Marked != s.ID {
			t.Fatalf("marked: %+v, %v", s, err)
		}
		r.FlushAll()
		if s, err = q.Server(ctx); err != nil || s.Marked != "" {
			t.Errorf("after a loss: %+v, %v", s, err)
		}
	})
}
