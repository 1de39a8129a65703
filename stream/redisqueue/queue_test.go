package redisqueue

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/streamtest"
)

var ctx = context.Background()

// TestSuite runs what stream asks of any queues.
func TestSuite(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		fixture := func(t *testing.T) streamtest.QueuesFixture {
			q := open(t, b)
			return streamtest.QueuesFixture{
				Queues: q, Fencer: q,
				Stored: func(t *testing.T, queue string) []string {
					var ids []string
					for _, m := range inQueue(t, q, queue) {
						ids = append(ids, m.AlertID)
					}
					return ids
				},
				Take: func(t *testing.T, id string) { step(t, q, id, alert.VerbTake, "bri-12", "") },
				Standing: func(t *testing.T, id string) (*alert.Alert, alert.State) {
					a, s, err := q.Get(ctx, id, []string{"q1"})
					if err != nil {
						t.Fatal(err)
					}
					return a, s.State
				},
			}
		}
		streamtest.TestQueues(t, fixture)
		streamtest.TestRevisions(t, fixture)
	})
}

func TestPublish(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		a := makeAlert("a", "q1")
		if got := publish(t, q, a, makeAlert("b", "q2"), a); got != "stored stored duplicate" {
			t.Errorf("answers: %s", got)
		}
		messages := inQueue(t, q, "q1")
		if len(messages) != 1 {
			t.Fatalf("queue holds %s, want one alert", list(messages))
		}
		want, _ := json.Marshal(a)
		m := messages[0]
		if m.Kind != KindAlert || m.AlertID != "a" || m.List != "stolen" || m.Entry != "entry-a" || string(m.Data) != string(want) {
			t.Errorf("message %+v %s", m, m.Data)
		}
		got, at, err := q.Get(ctx, "a", []string{"q2", "q1"})
		if err != nil || !reflect.DeepEqual(got, a) || !reflect.DeepEqual(at, alert.Standing{State: alert.StateNew, Step: 1}) {
			t.Errorf("Get: %v, %+v, %v", got, at, err)
		}
		if s := q.Stats(); s.Stored != 2 || s.Duplicates != 1 || s.Stale != 0 || s.Failures != 0 {
			t.Errorf("stats %+v", s)
		}
		if got := publish(t, q); got != "" {
			t.Errorf("no alerts: %s", got)
		}
	})
}

// TestFenceOff is the negative control of the fence: without it, what was matched
// before a withdrawal reaches the patrols after it.
func TestFenceOff(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		if err := q.Fence(ctx, []string{"q1"}, 6); err != nil {
			t.Fatal(err)
		}
		a := makeAlert("a", "q1") // of version 5
		if got := publish(t, q, a); got != "stale" {
			t.Errorf("with the fence: %s", got)
		}
		if n := len(keyNames(t, q)); n != 1 {
			t.Errorf("a stale alert left something: %v", keyNames(t, q))
		}
		data, _ := json.Marshal(a)
		if _, err := q.run(ctx, []call{q.putAlert(a, data, "", "")}); err != nil {
			t.Fatal(err)
		}
		if got := list(inQueue(t, q, "q1")); got != "alert:a" {
			t.Errorf("without the fence the queue holds %q; the test above shows nothing", got)
		}
	})
}

// TestPublishAgainAfterFence: the answer to a call was lost, a fence rose, the call is
// repeated. The alert is in the queue, and the caller must hear so to record it.
func TestPublishAgainAfterFence(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		publish(t, q, makeAlert("a", "q1"))
		if err := q.Fence(ctx, []string{"q1"}, 9); err != nil {
			t.Fatal(err)
		}
		if got := publish(t, q, makeAlert("a", "q1"), makeAlert("b", "q1")); got != "duplicate stale" {
			t.Errorf("answers: %s, want duplicate stale", got)
		}
	})
}

// TestPublisherDies between the queue and the state.
func TestPublisherDies(t *testing.T) {
	half := func(t *testing.T, q *Queues) *alert.Alert {
		a := makeAlert("a", "q1")
		data, _ := json.Marshal(a)
		if _, err := q.run(ctx, []call{q.putAlert(a, data, "5", "")}); err != nil {
			t.Fatal(err)
		}
		return a
	}
	eachRedis(t, func(t *testing.T, b backend) {
		t.Run("and publishes again", func(t *testing.T) {
			q := open(t, b)
			if got := publish(t, q, half(t, q)); got != "duplicate" {
				t.Errorf("answer: %s", got)
			}
			if n, err := q.rdb.Exists(ctx, q.keys.state("a")).Result(); n != 1 {
				t.Errorf("no state was made (%v)", err)
			}
		})
		t.Run("and a patrol takes", func(t *testing.T) {
			q := open(t, b)
			half(t, q)
			if ev := step(t, q, "a", alert.VerbTake, "bri-12", ""); ev.Step != 2 || ev.State != alert.StateTaken {
				t.Errorf("event %+v", ev)
			}
			if got := list(inQueue(t, q, "q1")); got != "alert:a update:a" || q.Stats().Revived != 1 {
				t.Errorf("queue holds %s, revived %d", got, q.Stats().Revived)
			}
		})
		t.Run("and a patrol looks", func(t *testing.T) {
			q := open(t, b)
			a := half(t, q)
			if got, _, err := q.Get(ctx, "a", []string{"q0", "q1"}); err != nil || !reflect.DeepEqual(got, a) {
				t.Errorf("Get: %v, %v", got, err)
			}
		})
		t.Run("and a stranger looks", func(t *testing.T) {
			q := open(t, b)
			half(t, q)
			if _, _, err := q.Get(ctx, "a", []string{"q2"}); !errors.Is(err, ErrUnknownAlert) {
				t.Errorf("Get: %v, want ErrUnknownAlert", err)
			}
		})
	})
}

// TestOldReads: a queue forgets what it has seen, but a replay of old reads is silent
// all the same. The second half is the negative control: a read that claims to be new is
// not looked up, and is stored twice.
func TestOldReads(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b, func(c *Config) { c.SeenTTL = 50 * time.Millisecond })
		old, fresh := makeAlert("old", "q1"), makeAlert("fresh", "q1")
		old.Read.TS -= 1000
		publish(t, q, old, fresh)
		n := 0
		streamtest.Eventually(t, patience, "the queue to forget", func() bool {
			n++
			publish(t, q, makeAlert(fmt.Sprint("filler-", n), "q1"))
			return q.rdb.ZScore(ctx, q.keys.seen("q1"), "fresh").Err() != nil
		})
		if got := publish(t, q, old); got != "duplicate" {
			t.Errorf("an old read: %s, want duplicate", got)
		}
		byGateway := makeAlert("old", "q1") // a sensor whose clock runs ahead
		byGateway.Read.TS, byGateway.Read.Received = time.Now().Add(time.Hour).UnixMilli(), old.Read.TS
		if got := publish(t, q, byGateway); got != "duplicate" {
			t.Errorf("a read that was received long ago: %s, want duplicate", got)
		}
		fresh.Read.TS = time.Now().Add(time.Hour).UnixMilli()
		if got := publish(t, q, fresh); got != "stored" {
			t.Errorf("not looked up: %s; the test above shows nothing", got)
		}
	})
}

// putOld fills a queue as it was some time ago: n messages and their members, one
// millisecond apart, the last one age ago.
func putOld(t *testing.T, q *Queues, queue string, n int, age time.Duration) {
	t.Helper()
	pipe := q.rdb.Pipeline()
	for i := range n {
		ms := time.Now().Add(-age).UnixMilli() - int64(n-1-i)
		id := fmt.Sprintf("old-%v-%d", age, i)
		pipe.XAdd(ctx, &redis.XAddArgs{
			Stream: q.keys.alerts(queue), ID: fmt.Sprintf("%d-0", ms), Values: []any{"kind", KindAlert, "id", id},
		})
		pipe.ZAdd(ctx, q.keys.seen(queue), redis.Z{Score: float64(ms), Member: id})
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestRetention(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b, func(c *Config) { c.Retention, c.SeenTTL = 2*time.Hour, time.Hour })
		putOld(t, q, "q1", 250, 2*time.Hour+time.Minute)
		putOld(t, q, "q1", 1, 2*time.Hour-time.Minute)
		putOld(t, q, "q1", 1, time.Hour-time.Minute)
		for range 3 { // each run forgets at most 100 members
			publish(t, q, makeAlert("a", "q1"), makeAlert("b", "q1"))
			publish(t, q, makeAlert(fmt.Sprint(time.Now().UnixNano()), "q1"))
		}
		// Exactly what is due: a node more would be a loss, a node less unlawful.
		if got := list(inQueue(t, q, "q1")); !strings.HasPrefix(got, "alert:old-1h59m0s-0 alert:old-59m0s-0 alert:a alert:b ") {
			t.Errorf("the queue holds %.200s", got)
		}
		if got, want := q.rdb.ZCard(ctx, q.keys.seen("q1")).Val(), int64(6); got != want {
			t.Errorf("%d members are remembered, want %d", got, want)
		}
		for key, most := range map[string]time.Duration{
			q.keys.alerts("q1"): 2 * time.Hour, q.keys.state("a"): 2 * time.Hour, q.keys.seen("q1"): time.Hour,
		} {
			if ttl := q.rdb.PTTL(ctx, key).Val(); ttl <= most-time.Minute || ttl > most {
				t.Errorf("%s lives %v, want %v", key, ttl, most)
			}
		}
	})
}

// TestExpire: a queue that rests. It takes more than one bounded run of the script.
func TestExpire(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		putOld(t, q, "q1", 2500, MaxRetention+time.Minute)
		putOld(t, q, "q1", 1, MaxRetention-time.Minute)
		if err := q.Expire(ctx, []string{"q1", "nothing"}); err != nil {
			t.Fatal(err)
		}
		if got := list(inQueue(t, q, "q1")); got != "alert:old-719h59m0s-0" {
			t.Errorf("the queue holds %.200s", got)
		}
		if n := q.rdb.ZCard(ctx, q.keys.seen("q1")).Val(); n != 0 {
			t.Errorf("%d members are remembered", n)
		}
	})
}

// TestScriptsForgotten: a server that was restarted knows no script.
func TestScriptsForgotten(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		publish(t, q, makeAlert("a", "q1"))
		for i := range 3 {
			if err := q.rdb.ScriptFlush(ctx).Err(); err != nil {
				t.Fatal(err)
			}
			id := fmt.Sprint("b", i)
			if got := publish(t, q, makeAlert(id, "q1"), makeAlert(id, "q1"), makeAlert("a", "q1")); got != "stored duplicate duplicate" {
				t.Errorf("answers: %s", got)
			}
		}
		if q.Stats().Failures != 0 {
			t.Errorf("%d failures counted", q.Stats().Failures)
		}
	})
}

func TestRedisAway(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		l := streamtest.NewProxy(t, b.addr)
		q := open(t, b, func(c *Config) { c.Addr = l.Addr() })
		publish(t, q, makeAlert("a", "q1"))
		l.Down()
		if _, err := q.Publish(ctx, []*alert.Alert{makeAlert("b", "q1")}); err == nil {
			t.Error("Publish: no error")
		}
		if err := q.Fence(ctx, []string{"q1"}, 1); err == nil {
			t.Error("Fence: no error")
		}
		if err := q.Ping(ctx); err == nil {
			t.Error("Ping: no error")
		}
		_, err := q.Step(ctx, StepRequest{AlertID: "a", Verb: alert.VerbTake, Actor: "x", Queues: []string{"q1"}})
		if err == nil || errors.Is(err, ErrUnknownAlert) {
			t.Errorf("Step: %v, want the error of Redis", err)
		}
		if _, _, err := q.Get(ctx, "zz", []string{"q1"}); err == nil || errors.Is(err, ErrUnknownAlert) {
			t.Errorf("Get: %v, want the error of Redis", err)
		}
		if n := q.Stats().Failures; n < 5 {
			t.Errorf("%d failures counted", n)
		}
		l.Heal()
		streamtest.Eventually(t, patience, "the line to be used again", func() bool { return q.Ping(ctx) == nil })
		if got := publish(t, q, makeAlert("b", "q1")); got != "stored" && got != "duplicate" {
			t.Errorf("answer: %s", got)
		}
		if got := list(inQueue(t, q, "q1")); got != "alert:a alert:b" {
			t.Errorf("queue holds %s", got)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg  Config
		want string
	}{
		"nothing":        {Config{}, "either Addr or Addrs"},
		"both":           {Config{Addr: "a:1", Addrs: []string{"b:1"}}, "either Addr or Addrs"},
		"master alone":   {Config{Addr: "a:1", Master: "m"}, "Sentinels"},
		"braces":         {Config{Addr: "a:1", Prefix: "{x}"}, "braces"},
		"retention":      {Config{Addr: "a:1", Retention: MaxRetention + 1}, "CSI L233-2"},
		"no retention":   {Config{Addr: "a:1", Retention: -1}, "Retention"},
		"no memory":      {Config{Addr: "a:1", SeenTTL: -1}, "SeenTTL"},
		"sub-ms":         {Config{Addr: "a:1", Retention: time.Microsecond}, "Retention"},
		"sub-ms to know": {Config{Addr: "a:1", SeenTTL: time.Microsecond}, "SeenTTL"},
	} {
		if q, err := Open(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want an error with %q", name, q, err, tt.want)
		}
	}
}

func TestPing(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		if err := q.Ping(ctx); err != nil {
			t.Error(err)
		}
		want := int64(1) // miniredis tells nothing
		if b.real {
			want = 0
		}
		if got := q.Stats().Unchecked; got != want {
			t.Errorf("%d pings unchecked, want %d", got, want)
		}
	})
	for _, tt := range []struct {
		name, version, policy, config string
		want                          string // in the error
		unchecked                     int64
	}{
		{name: "fit", version: "7.0.15", policy: "noeviction"},
		{name: "newer", version: "10.1.0", policy: "noeviction"},
		{name: "old", version: "6.2.14", policy: "noeviction", want: "7.0 or newer"},
		{name: "evicting", version: "7.2.4", policy: "allkeys-lru", want: "CONFIG SET maxmemory-policy noeviction"},
		{name: "told by CONFIG", version: "7.2.4", config: "noeviction"},
		{name: "evicting, told by CONFIG", version: "7.2.4", config: "volatile-ttl", want: "volatile-ttl"},
		{name: "tells nothing", unchecked: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv, err := server.NewServer("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer srv.Close()
			handle := func(cmd string, h server.Cmd) {
				if err := srv.Register(cmd, h); err != nil {
					t.Fatal(err)
				}
			}
			handle("PING", func(c *server.Peer, _ string, _ []string) { c.WriteInline("PONG") })
			handle("CLIENT", func(c *server.Peer, _ string, _ []string) { c.WriteOK() })
			handle("INFO", func(c *server.Peer, _ string, args []string) {
				switch {
				case args[0] == "server" && tt.version != "":
					c.WriteBulk("# Server\r\nredis_version:" + tt.version + "\r\nos:x\r\n")
				case args[0] == "memory" && tt.policy != "":
					c.WriteBulk("# Memory\r\nmaxmemory_policy:" + tt.policy + "\r\n")
				default:
					c.WriteBulk("# Nothing\r\n")
				}
			})
			handle("CONFIG", func(c *server.Peer, _ string, _ []string) {
				if tt.config == "" {
					c.WriteError("NOPERM this user has no permissions to run the 'config|get' command")
					return
				}
				c.WriteStrings([]string{"maxmemory-policy", tt.config})
			})
			q, err := Open(Config{Addr: srv.Addr().String()})
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			err = q.Ping(ctx)
			if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Ping: %v, want %q in the error", err, tt.want)
			}
			if got := q.Stats().Unchecked; got != tt.unchecked {
				t.Errorf("%d pings unchecked, want %d", got, tt.unchecked)
			}
		})
	}
}

// TestOneSlot: all keys of a call bear the same hash tag, or a cluster refuses it.
func TestOneSlot(t *testing.T) {
	q, err := Open(Config{Addr: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	a := makeAlert("a", "q1")
	update, err := q.putUpdate(&alert.Event{AlertID: "a", Step: 2, Queue: "q1"}, "l", "e", "")
	if err != nil {
		t.Fatal(err)
	}
	stepCall, err := q.stepCall(&StepRequest{AlertID: "a", Verb: alert.VerbTake, Queues: []string{"q1"}})
	if err != nil {
		t.Fatal(err)
	}
	tag := regexp.MustCompile(`^vigie:\{[^{}]+\}`)
	for _, c := range []call{q.putAlert(a, nil, "", ""), update, q.create(a, nil, time.Hour), stepCall} {
		for _, key := range c.keys {
			if got, want := tag.FindString(key), tag.FindString(c.keys[0]); got == "" || got != want {
				t.Errorf("key %s beside %s", key, c.keys[0])
			}
		}
	}
	if got := q.keys.alerts("patrol"); got != "vigie:{q:patrol}:alerts" {
		t.Errorf("key %s", got)
	}
}

// TestNoPlateLeaks looks for the canary plate wherever operators and tools look.
func TestNoPlateLeaks(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		core, logs := observer.New(zapcore.DebugLevel)
		q := open(t, b, func(c *Config) { c.Log = zap.New(core) })
		publish(t, q, makeAlert("a", "q1"))
		ev := step(t, q, "a", alert.VerbTake, "bri-12", "")
		_, conflict := q.Step(ctx, StepRequest{AlertID: "a", Verb: alert.VerbClose, Actor: "bri-13", Outcome: alert.OutcomeObserved, Note: "CA777RY", Queues: []string{"q1"}})
		_, wrong := q.Step(ctx, StepRequest{AlertID: "a", Verb: alert.VerbReject, Actor: "bri-12", Outcome: "CA777RY", Queues: []string{"q1"}})
		bad := &alert.Event{AlertID: "x", Step: 2, State: alert.StateNew, Note: "CA777RY", At: time.Now().UnixMilli()}
		if err := q.Restore(ctx, []*alert.Event{alert.Hit(makeAlert("x", "q1")), bad}); err != nil {
			t.Fatal(err)
		}
		if err := q.rdb.HSet(ctx, q.keys.state("a"), "alert", `{"action":"CA777RY"}`).Err(); err != nil {
			t.Fatal(err)
		}
		_, _, unreadable := q.Get(ctx, "a", []string{"q1"})
		said := []any{ev, conflict, wrong, unreadable, inQueue(t, q, "q1"), keyNames(t, q)}
		for _, e := range logs.All() {
			said = append(said, e.Message, e.ContextMap())
		}
		if conflict == nil || wrong == nil || unreadable == nil || logs.Len() == 0 {
			t.Fatalf("nothing was said: %v", said)
		}
		for _, v := range said {
			if text := fmt.Sprintf("%v %+v %#v", v, v, v); strings.Contains(text, "CA777RY") || strings.Contains(text, "CA-777-RY") {
				t.Errorf("a plate shows in %T: %s", v, text)
			}
		}
	})
}

// TestLeastRights works as an ACL user who may do what the package comment says, and
// nothing else.
func TestLeastRights(t *testing.T) {
	doc, err := os.ReadFile("redisqueue.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rights, ok := strings.Cut(string(doc), "//\tACL SETUSER vigie on >password ")
	rights, _, _ = strings.Cut(rights, "\n//\n")
	rights = strings.ReplaceAll(rights, "\n//\t", " ")
	if !ok {
		t.Fatal("the package comment names no rights")
	}
	admin := open(t, backend{addr: streamtest.Need(t, "VIGIE_TEST_REDIS"), real: true})
	user := "vigie-test-" + rand.Text()
	rule := []any{"ACL", "SETUSER", user, "on", ">secret"}
	for _, word := range strings.Fields(strings.ReplaceAll(rights, "~vigie:*", "~"+admin.cfg.Prefix+"*")) {
		rule = append(rule, word)
	}
	if err := admin.rdb.Do(ctx, rule...).Err(); err != nil {
		t.Fatalf("%v: %v", rule, err)
	}
	defer func() {
		if err := admin.rdb.Do(ctx, "ACL", "DELUSER", user).Err(); err != nil {
			t.Error(err)
		}
	}()
	cfg := admin.cfg
	cfg.Username, cfg.Password = user, "secret"
	q, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	h, _ := startHub(t, q, HubConfig{})
	s := subscribe(t, h, "q1", "")
	if err := q.Ping(ctx); err != nil || q.Stats().Unchecked != 0 {
		t.Errorf("Ping: %v, unchecked %d", err, q.Stats().Unchecked)
	}
	if err := q.Fence(ctx, []string{"q1"}, 5); err != nil {
		t.Error(err)
	}
	a := makeAlert("a", "q1")
	a.Read.TS = 0
	publish(t, q, a, a)
	if err := admin.rdb.ZAdd(ctx, q.keys.seen("q1"), redis.Z{Score: 1, Member: "old"}).Err(); err != nil {
		t.Fatal(err)
	}
	if err := q.Expire(ctx, []string{"q1"}); err != nil {
		t.Error(err)
	}
	ev := step(t, q, "a", alert.VerbTake, "bri-12", "")
	if _, _, err := q.Get(ctx, "unknown", []string{"q1"}); !errors.Is(err, ErrUnknownAlert) {
		t.Error(err)
	}
	if got := list(next(t, s, 2)); got != "alert:a update:a" {
		t.Errorf("got %s", got)
	}
	wipe(t, admin)
	if err := q.Restore(ctx, []*alert.Event{alert.Hit(a), alert.Hit(makeAlert("b", "q1")), ev}); err != nil {
		t.Error(err)
	}
	if err := q.rdb.Get(ctx, "something else").Err(); err == nil || errors.Is(err, redis.Nil) {
		t.Errorf("the user may read other keys: %v", err)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("alerts=%d", n), func(b *testing.B) {
			q := open(b, backend{addr: streamtest.Need(b, "VIGIE_TEST_REDIS"), real: true})
			alerts := makeAlerts(n, "q1")
			i := 0
			for b.Loop() {
				for _, a := range alerts {
					i++
					a.ID = fmt.Sprintf("a%025d", i)
				}
				if _, err := q.Publish(ctx, alerts); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "us/alert")
		})
	}
}

var _ stream.Queues = (*Queues)(nil)
