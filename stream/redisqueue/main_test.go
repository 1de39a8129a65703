package redisqueue

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"go.uber.org/goleak"

	"vigie/sensors"
	"vigie/stream/alert"
	"vigie/stream/streamtest"
	"vigie/watchlist"
)

// A pool whose dials fail tries on aside, and sees a second later that it was closed.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// patience bounds every wait; only a failing test uses it up.
const patience = 20 * time.Second

// backend is a Redis to test against.
type backend struct {
	addr string
	real bool
}

// eachRedis runs a test on miniredis and on the server named by VIGIE_TEST_REDIS.
func eachRedis(t *testing.T, test func(t *testing.T, b backend)) {
	t.Run("miniredis", func(t *testing.T) { test(t, backend{addr: miniredis.RunT(t).Addr()}) })
	t.Run("redis", func(t *testing.T) { test(t, backend{addr: streamtest.Need(t, "VIGIE_TEST_REDIS"), real: true}) })
}

// open opens queues under a prefix of their own, which is emptied after the test.
func open(t testing.TB, b backend, change ...func(*Config)) *Queues {
	t.Helper()
	cfg := Config{Addr: b.addr, Prefix: "vigie-test-" + rand.Text() + ":"}
	for _, f := range change {
		f(&cfg)
	}
	q, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		clean, err := Open(Config{Addr: b.addr, Prefix: cfg.Prefix}) // q may be on a broken line
		if err != nil {
			t.Fatal(err)
		}
		if names := keyNames(t, clean); len(names) > 0 {
			for _, name := range names {
				if err := clean.rdb.Del(context.Background(), name).Err(); err != nil {
					t.Error(err)
				}
			}
		}
		if err := clean.Close(); err != nil {
			t.Error(err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

// keyNames are all keys of q.
func keyNames(t testing.TB, q *Queues) []string {
	t.Helper()
	var names []string
	for it := q.rdb.Scan(context.Background(), 0, q.cfg.Prefix+"*", 1000).Iterator(); ; {
		if !it.Next(context.Background()) {
			if err := it.Err(); err != nil {
				t.Fatal(err)
			}
			return names
		}
		names = append(names, it.Val())
	}
}

// makeAlert makes a fresh alert of version 5. Its plate is a canary.
func makeAlert(id, queue string) *alert.Alert {
	now := time.Now().UnixMilli()
	return &alert.Alert{
		ID: id, Queue: queue, Action: watchlist.ActionIntercept, Stop: true, Priority: watchlist.PriorityHigh,
		List:    alert.ListRef{ID: "stolen", Name: "Véhicules volés", Owner: "DNPJ"},
		Entry:   alert.EntryRef{ID: "entry-" + id, Version: 5, Plate: "CA-777-RY", Reason: "vol", CaseRef: "2026/1"},
		Match:   alert.Evidence{Kind: "exact", Country: "same", Grade: "high", Score: 1, Syntax: "valid", Read: "CA777RY", Entry: "CA777RY", Version: 5},
		Read:    sensors.Read{ID: "read-" + id, Sensor: "A7-118-2", Plate: "CA777RY", Country: "FR", TS: now},
		Created: now,
	}
}

func makeAlerts(n int, queue string) []*alert.Alert {
	out := make([]*alert.Alert, n)
	for i := range out {
		out[i] = makeAlert(fmt.Sprintf("%s-%04d", queue, i), queue)
	}
	return out
}

// publish publishes and returns the outcomes as a word each.
func publish(t testing.TB, q *Queues, alerts ...*alert.Alert) string {
	t.Helper()
	answers, err := q.Publish(context.Background(), alerts)
	if err != nil {
		t.Fatalf("Publish: %v", err)
	}
	words := make([]string, len(answers))
	for i, a := range answers {
		words[i] = [...]string{"stored", "duplicate", "stale"}[a.Outcome]
	}
	return strings.Join(words, " ")
}

// inQueue returns the messages of a queue.
func inQueue(t testing.TB, q *Queues, queue string) []Message {
	t.Helper()
	entries, err := q.rdb.XRange(context.Background(), q.keys.alerts(queue), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	out := make([]Message, len(entries))
	for i := range entries {
		out[i] = message(queue, &entries[i])
	}
	return out
}

// list is the messages as "kind:alert" words.
func list(messages []Message) string {
	words := make([]string, len(messages))
	for i, m := range messages {
		words[i] = m.Kind + ":" + m.AlertID
	}
	return strings.Join(words, " ")
}

func step(t testing.TB, q *Queues, id string, v alert.Verb, actor, outcome string) *alert.Event {
	t.Helper()
	ev, err := q.Step(context.Background(), StepRequest{
		AlertID: id, Verb: v, Actor: actor, Outcome: outcome, Queues: []string{"q1"},
	})
	if err != nil {
		t.Fatalf("%v by %s: %v", v, actor, err)
	}
	return ev
}
