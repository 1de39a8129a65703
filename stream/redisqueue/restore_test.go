package redisqueue

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vigie/stream/alert"
)

// history makes n alerts, takes them through their lives, and returns the events as the
// hits topic has them. The alerts are a day old, one second apart.
func history(t *testing.T, q *Queues, n int) []*alert.Event {
	t.Helper()
	var events []*alert.Event
	begin := time.Now().Add(-24 * time.Hour)
	for i := range n {
		at := begin.Add(time.Duration(i) * time.Second)
		a := makeAlert(fmt.Sprintf("a%03d", i), fmt.Sprint("q", i%3))
		a.Created, a.Read.TS = at.UnixMilli(), at.UnixMilli()-300
		publish(t, q, a)
		hit := alert.Hit(a)
		events = append(events, hit, hit) // a duplicate is journalled as well
		for k, s := range []struct {
			v alert.Verb
			o string
		}{{alert.VerbTake, ""}, {alert.VerbReject, alert.OutcomeMisread}, {alert.VerbClose, alert.OutcomeNoAction}} {
			if i%4 <= k {
				break
			}
			ev, err := q.Step(ctx, StepRequest{
				AlertID: a.ID, Verb: s.v, Actor: fmt.Sprint("bri-", i%5), Outcome: s.o, Note: "note",
				Queues: []string{a.Queue}, At: at.Add(time.Duration(k+1) * 100 * time.Millisecond),
			})
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, ev)
		}
	}
	return events
}

// contents is everything that Restore should bring back.
func contents(t *testing.T, q *Queues, n int) map[string]any {
	t.Helper()
	all := map[string]any{}
	for i := range 3 {
		queue := fmt.Sprint("q", i)
		var texts []string
		for _, m := range inQueue(t, q, queue) {
			texts = append(texts, m.Kind+" "+m.AlertID+" "+m.List+" "+m.Entry+" "+string(m.Data))
		}
		all[queue] = texts
	}
	for i := range n {
		id := fmt.Sprintf("a%03d", i)
		a, s, err := q.Get(ctx, id, []string{"q0", "q1", "q2"})
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		all[id] = []any{a, s}
	}
	return all
}

func wipe(t *testing.T, q *Queues) {
	t.Helper()
	for _, name := range keyNames(t, q) {
		if err := q.rdb.Del(ctx, name).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRestore(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		const n = 100
		q := open(t, b)
		events := history(t, q, n)
		want := contents(t, q, n)

		// What is there stays as it is.
		restore := func(what string) {
			if err := q.Restore(ctx, events); err != nil {
				t.Fatal(err)
			}
			if got := contents(t, q, n); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v\nwant %v", what, got, want)
			}
		}
		restore("over what is there")
		if got := q.Stats().Restored; got != 0 {
			t.Errorf("%d events put back where all are there", got)
		}
		wipe(t, q)
		restore("after a loss")
		if got, want := q.Stats().Restored, int64(len(events)-n); got != want {
			t.Errorf("%d events put back, want %d", got, want)
		}
		restore("twice")

		// The times of the ids are those of the events, so they are no longer kept
		// and nobody hears them twice.
		for i := range 3 {
			for _, m := range inQueue(t, q, fmt.Sprint("q", i)) {
				if age := time.Since(time.UnixMilli(int64(m.at.ms))); age < 23*time.Hour {
					t.Errorf("%v is %v old", m, age)
				}
			}
		}
		if ttl := q.rdb.PTTL(ctx, q.keys.state("a000")).Val(); ttl > MaxRetention-23*time.Hour {
			t.Errorf("a state that is put back lives %v", ttl)
		}

		// And life goes on: the same steps are repeats, others follow.
		if got := publish(t, q, events[0].Alert); got != "duplicate" {
			t.Errorf("published again: %s", got)
		}
		if _, err := q.Step(ctx, StepRequest{
			AlertID: "a002", Verb: alert.VerbClose, Actor: "bri-2", Outcome: alert.OutcomeNoAction, Queues: []string{"q2"},
		}); err != nil {
			t.Errorf("the next step: %v", err)
		}
	})
}

// TestRestoreOutOfOrder: the partitions of the topic are not read in step.
func TestRestoreOutOfOrder(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		var events []*alert.Event
		for _, age := range []time.Duration{3, 2, 5, 4, 1} {
			a := makeAlert(fmt.Sprint(int(age), "h"), "q1")
			a.Created -= (age * time.Hour).Milliseconds()
			events = append(events, alert.Hit(a))
		}
		if err := q.Restore(ctx, events); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range inQueue(t, q, "q1") {
			got = append(got, fmt.Sprint(m.AlertID, ":", time.Since(time.UnixMilli(int64(m.at.ms))).Round(time.Hour).Hours()))
		}
		if want := []string{"3h:3", "2h:2", "5h:2", "4h:2", "1h:1"}; !slices.Equal(got, want) {
			t.Errorf("alerts and the hours of their ids: %v, want %v", got, want)
		}
		// An id that was given and is gone cannot be given again; the next one can.
		if err := q.rdb.XTrimMaxLen(ctx, q.keys.alerts("q1"), 0).Err(); err != nil {
			t.Fatal(err)
		}
		late := alert.Hit(makeAlert("late", "q1"))
		late.At -= (6 * time.Hour).Milliseconds()
		if err := q.Restore(ctx, []*alert.Event{late}); err != nil {
			t.Fatal(err)
		}
		if got := list(inQueue(t, q, "q1")); got != "alert:late" {
			t.Errorf("queue holds %s", got)
		}
	})
}

// TestRedoLate: the state has moved on since Restore looked.
func TestRedoLate(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		publish(t, q, makeAlert("a", "q1"))
		taken := step(t, q, "a", alert.VerbTake, "bri-12", "")
		step(t, q, "a", alert.VerbConfirm, "bri-12", "")
		_, want, err := q.Get(ctx, "a", []string{"q1"})
		if err != nil {
			t.Fatal(err)
		}
		taken.Actor = "bri-13" // what a failover lost and the topic has kept
		_, redo, err := q.restoreCalls(taken, &restored{step: 1}, time.Hour, putBack{keepTime: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := q.run(ctx, []call{redo}); err != nil {
			t.Fatal(err)
		}
		if _, got, err := q.Get(ctx, "a", []string{"q1"}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("stands %+v, %v; want %+v", got, err, want)
		}
	})
}

// TestRestoreDies after the messages and before the states.
func TestRestoreDies(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		const n = 20
		q := open(t, b)
		events := history(t, q, n)
		want := contents(t, q, n)
		for i := range n {
			if err := q.rdb.Del(ctx, q.keys.state(fmt.Sprintf("a%03d", i))).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.Restore(ctx, events); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, q, n); !reflect.DeepEqual(got, want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
	})
}

func TestRestoreLeavesOut(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		now := time.Now().UnixMilli()
		old := alert.Hit(makeAlert("old", "q1"))
		old.At -= (MaxRetention + time.Minute).Milliseconds()
		fine := alert.Hit(makeAlert("fine", "q1"))
		events := []*alert.Event{
			old,
			{AlertID: "old", Step: 2, State: alert.StateTaken, Queue: "q1", At: now, Actor: "x"},
			fine,
			{AlertID: "fine", Step: 2, State: alert.StateNew, Queue: "q1", At: now, Actor: "x"}, // leads nowhere
			{AlertID: "bad", Step: 1, Queue: "q1", At: now},
			{AlertID: "fine", Step: 4, State: alert.StateClosed, Queue: "q1", At: now, Actor: "x", Outcome: "no_action"}, // 2, 3 lost
			{AlertID: "fine", Step: 3, State: alert.StateRejected, Queue: "q1", At: now, Actor: "x", Outcome: "misread"}, // too late
		}
		for range 2 {
			if err := q.Restore(ctx, events); err != nil {
				t.Fatal(err)
			}
		}
		if got := list(inQueue(t, q, "q1")); got != "alert:fine update:fine" {
			t.Errorf("queue holds %s", got)
		}
		_, s, err := q.Get(ctx, "fine", []string{"q1"})
		if err != nil || s.State != alert.StateClosed || s.Owner != "x" || s.Step != 4 || len(s.Events) != 1 {
			t.Errorf("stands %+v, %v", s, err)
		}
		if s := q.Stats(); s.Restored != 2 || s.Expired != 4 || s.Unusable != 3 {
			t.Errorf("stats %+v, want 2 restored, twice 2 expired, 2 and then 1 unusable", s)
		}
	})
}

// TestRestoreWhileWorking puts back and publishes and steps at the same time.
func TestRestoreWhileWorking(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		const n = 40
		q := open(t, b)
		events := history(t, q, n)
		wipe(t, q)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := q.Restore(ctx, events); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			for _, e := range events {
				if e.Alert != nil {
					if _, err := q.Publish(ctx, []*alert.Alert{e.Alert}); err != nil {
						t.Error(err)
					}
				}
			}
		})
		wg.Go(func() {
			for _, e := range events {
				if e.State == alert.StateTaken { // may be too early or too late
					_, _ = q.Step(context.Background(), StepRequest{AlertID: e.AlertID, Verb: alert.VerbTake, Actor: e.Actor, Queues: []string{e.Queue}})
				}
			}
		})
		wg.Wait()
		seen := map[string]bool{}
		for i := range 3 {
			for _, m := range inQueue(t, q, fmt.Sprint("q", i)) {
				what := m.Kind + m.AlertID
				if m.Kind == KindUpdate {
					_, step, _ := strings.Cut(string(m.Data), `"step":`)
					what += step[:1]
				}
				if seen[what] {
					t.Errorf("twice in a queue: %s", what)
				}
				seen[what] = true
			}
		}
		distinct := map[string]bool{}
		for _, e := range events {
			distinct[fmt.Sprint(e.AlertID, e.Step)] = true
		}
		if len(seen) != len(distinct) {
			t.Errorf("%d messages, want %d", len(seen), len(distinct))
		}
	})
}
