package redisqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"vigie/stream/alert"
	"vigie/watchlist"
)

// TestLife takes an alert from the hit to its end, and looks at it after each step.
func TestLife(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		publish(t, q, makeAlert("a", "q1"))
		at := time.Date(2026, time.March, 14, 7, 0, 0, 0, time.UTC)
		var events []*alert.Event
		for i, s := range []struct {
			verb    alert.Verb
			outcome string
			note    string
			state   alert.State
		}{
			{alert.VerbTake, "", "", alert.StateTaken},
			{alert.VerbConfirm, "", "plaque « conforme »", alert.StateConfirmed},
			{alert.VerbClose, alert.OutcomeIntercepted, "", alert.StateClosed},
		} {
			req := StepRequest{
				AlertID: "a", Verb: s.verb, Actor: "bri-12", Outcome: s.outcome, Note: s.note,
				Queues: []string{"q0", "q1"}, At: at.Add(time.Duration(i) * time.Minute),
			}
			want := &alert.Event{
				AlertID: "a", Step: uint32(i + 2), State: s.state, Queue: "q1", At: req.At.UnixMilli(),
				Actor: "bri-12", Outcome: s.outcome, Note: s.note,
			}
			for range 2 { // the answer may be lost
				got, err := q.Step(ctx, req)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Fatalf("%v: %+v, %v; want %+v", s.verb, got, err, want)
				}
				req.At = req.At.Add(time.Hour) // and asked for again later
			}
			events = append(events, want)
			// The read may come again at any time and must not undo the step.
			if got := publish(t, q, makeAlert("a", "q1")); got != "duplicate" {
				t.Errorf("published again: %s", got)
			}
			_, standing, err := q.Get(ctx, "a", []string{"q1"})
			if want := (alert.Standing{State: s.state, Owner: "bri-12", Step: want.Step, Events: events}); err != nil || !reflect.DeepEqual(standing, want) {
				t.Errorf("standing %+v, %v; want %+v", standing, err, want)
			}
		}
		messages := inQueue(t, q, "q1")
		if got := list(messages); got != "alert:a update:a update:a update:a" {
			t.Fatalf("queue holds %s", got)
		}
		for i, m := range messages[1:] {
			want, _ := json.Marshal(events[i])
			if string(m.Data) != string(want) || m.List != "stolen" || m.Entry != "entry-a" {
				t.Errorf("message %+v %s, want %s", m, m.Data, want)
			}
		}
		if s := q.Stats(); s.Steps[alert.VerbTake] != 1 || s.Steps[alert.VerbConfirm] != 1 || s.Steps[alert.VerbClose] != 1 || s.Repeats != 3 || s.Conflicts != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestStepRefuses(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		publish(t, q, makeAlerts(3, "q1")...)
		step(t, q, "q1-0001", alert.VerbTake, "bri-12", "")
		step(t, q, "q1-0002", alert.VerbTake, "bri-12", "")
		step(t, q, "q1-0002", alert.VerbReject, "bri-12", alert.OutcomeMisread)
		ours := []string{"q1"}
		conflict := func(s alert.State, owner string) func(error) bool {
			return func(err error) bool {
				var c *ConflictError
				return errors.As(err, &c) && c.State == s && c.Owner == owner && !errors.Is(err, ErrNotOwner) &&
					strings.Contains(err.Error(), s.String()) && strings.Contains(err.Error(), owner)
			}
		}
		notOwner := func(s alert.State) func(error) bool {
			return func(err error) bool {
				var c *ConflictError
				return errors.Is(err, ErrNotOwner) && errors.As(err, &c) && c.State == s && c.Owner == "bri-12"
			}
		}
		unknown := func(err error) bool { return errors.Is(err, ErrUnknownAlert) }
		field := func(name string) func(error) bool {
			return func(err error) bool {
				var f *watchlist.FieldError
				return errors.As(err, &f) && f.Field == name
			}
		}
		for name, tt := range map[string]struct {
			req  StepRequest
			want func(error) bool
		}{
			"no such alert":       {StepRequest{AlertID: "zz", Verb: alert.VerbTake, Actor: "x", Queues: ours}, unknown},
			"no alert id":         {StepRequest{Verb: alert.VerbTake, Actor: "x", Queues: ours}, unknown},
			"another queue":       {StepRequest{AlertID: "q1-0000", Verb: alert.VerbTake, Actor: "x", Queues: []string{"q2"}}, unknown},
			"no queue":            {StepRequest{AlertID: "q1-0000", Verb: alert.VerbTake, Actor: "x"}, unknown},
			"taken, elsewhere":    {StepRequest{AlertID: "q1-0001", Verb: alert.VerbTake, Actor: "bri-12", Queues: []string{"q2"}}, unknown},
			"confirm a new one":   {StepRequest{AlertID: "q1-0000", Verb: alert.VerbConfirm, Actor: "x", Queues: ours}, conflict(alert.StateNew, "")},
			"take a taken one":    {StepRequest{AlertID: "q1-0001", Verb: alert.VerbTake, Actor: "x", Queues: ours}, conflict(alert.StateTaken, "bri-12")},
			"confirm another's":   {StepRequest{AlertID: "q1-0001", Verb: alert.VerbConfirm, Actor: "x", Queues: ours}, notOwner(alert.StateTaken)},
			"close a taken one":   {StepRequest{AlertID: "q1-0001", Verb: alert.VerbClose, Actor: "bri-12", Outcome: "no_action", Queues: ours}, conflict(alert.StateTaken, "bri-12")},
			"confirm a rejected":  {StepRequest{AlertID: "q1-0002", Verb: alert.VerbConfirm, Actor: "bri-12", Queues: ours}, conflict(alert.StateRejected, "bri-12")},
			"reject, other cause": {StepRequest{AlertID: "q1-0002", Verb: alert.VerbReject, Actor: "bri-12", Outcome: "stale_entry", Queues: ours}, conflict(alert.StateRejected, "bri-12")},
			"reject another's":    {StepRequest{AlertID: "q1-0002", Verb: alert.VerbReject, Actor: "x", Outcome: "misread", Queues: ours}, notOwner(alert.StateRejected)},
			"no verb":             {StepRequest{AlertID: "q1-0000", Actor: "x", Queues: ours}, field("verb")},
			"no actor":            {StepRequest{AlertID: "q1-0000", Verb: alert.VerbTake, Queues: ours}, field("actor")},
			"no outcome":          {StepRequest{AlertID: "q1-0001", Verb: alert.VerbReject, Actor: "bri-12", Queues: ours}, field("outcome")},
			"long note":           {StepRequest{AlertID: "q1-0000", Verb: alert.VerbTake, Actor: "x", Queues: ours, Note: strings.Repeat("x", MaxNote+1)}, field("note")},
			"note of bytes":       {StepRequest{AlertID: "q1-0000", Verb: alert.VerbTake, Actor: "x", Queues: ours, Note: "\xff"}, field("note")},
		} {
			if ev, err := q.Step(ctx, tt.req); !tt.want(err) {
				t.Errorf("%s: %v, %v", name, ev, err)
			}
		}
		if got := len(inQueue(t, q, "q1")); got != 3+3 {
			t.Errorf("%d messages, want the 3 alerts and 3 updates of before", got)
		}
	})
}

// TestFirstTakerWins lets two patrols take each of many alerts at once.
func TestFirstTakerWins(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		n := 1000
		if !b.real {
			n = 200
		}
		q := open(t, b)
		publish(t, q, makeAlerts(n, "q1")...)
		for i := range n {
			id := fmt.Sprintf("q1-%04d", i)
			actors := []string{"bri-12", "bri-13"}
			events, errs := make([]*alert.Event, 2), make([]error, 2)
			var wg sync.WaitGroup
			gate := make(chan struct{})
			for p, actor := range actors {
				wg.Go(func() {
					<-gate
					events[p], errs[p] = q.Step(ctx, StepRequest{AlertID: id, Verb: alert.VerbTake, Actor: actor, Queues: []string{"q1"}})
				})
			}
			close(gate)
			wg.Wait()
			won := 0
			if errs[0] != nil {
				won = 1
			}
			var c *ConflictError
			if errs[won] != nil || !errors.As(errs[1-won], &c) || c.Owner != actors[won] || events[won].Actor != actors[won] {
				t.Fatalf("%s: %v %v, %v %v", id, events[0], errs[0], events[1], errs[1])
			}
		}
		if got := len(inQueue(t, q, "q1")); got != 2*n {
			t.Errorf("%d messages, want %d", got, 2*n)
		}
		if s := q.Stats(); s.Steps[alert.VerbTake] != int64(n) || s.Conflicts != int64(n) {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestStepDies between the state and the queue: the repeat tells the queue.
func TestStepDies(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		publish(t, q, makeAlert("a", "q1"))
		req := StepRequest{AlertID: "a", Verb: alert.VerbTake, Actor: "bri-12", Queues: []string{"q1"}, At: time.Now().Add(-time.Hour)}
		if _, err := q.step(ctx, &req); err != nil {
			t.Fatal(err)
		}
		if got := list(inQueue(t, q, "q1")); got != "alert:a" {
			t.Fatalf("queue holds %s", got)
		}
		if ev := step(t, q, "a", alert.VerbTake, "bri-12", ""); ev.At != req.At.UnixMilli() {
			t.Errorf("the repeat has a time of its own: %d", ev.At)
		}
		if got := list(inQueue(t, q, "q1")); got != "alert:a update:a" {
			t.Errorf("queue holds %s", got)
		}
	})
}

// TestOldRepeat: a repeat from an outbox that was offline for days is answered, but the
// queue, which has forgotten by then, is not told again.
func TestOldRepeat(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		publish(t, q, makeAlert("a", "q1"))
		req := StepRequest{AlertID: "a", Verb: alert.VerbTake, Actor: "bri-12", Queues: []string{"q1"}, At: time.Now().Add(-72 * time.Hour)}
		for range 2 {
			if _, err := q.Step(ctx, req); err != nil {
				t.Fatal(err)
			}
			if err := q.rdb.Del(ctx, q.keys.seen("q1")).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if got := list(inQueue(t, q, "q1")); got != "alert:a update:a" {
			t.Errorf("queue holds %s", got)
		}
	})
}

// cancelAfter ends a context once a script was run: the patrol loses the line while its
// step is made.
type cancelAfter struct {
	cancel context.CancelFunc
	digest string
}

func (h cancelAfter) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (h cancelAfter) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (h cancelAfter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if cmds[0].Args()[1] == h.digest && cmds[0].Err() == nil {
			h.cancel()
		}
		return err
	}
}

func TestStepLosesItsCaller(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		publish(t, q, makeAlert("a", "q1"))
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		q.rdb.AddHook(cancelAfter{cancel, stepScript.digest})
		if _, err := q.Step(ctx, StepRequest{AlertID: "a", Verb: alert.VerbTake, Actor: "x", Queues: []string{"q1"}}); err != nil {
			t.Error(err)
		}
		if ctx.Err() == nil {
			t.Fatal("the context has not ended: the test shows nothing")
		}
		if got := list(inQueue(t, q, "q1")); got != "alert:a update:a" {
			t.Errorf("queue holds %s: the others were not told", got)
		}
	})
}

// model is what step.lua does, said plainly.
type model struct {
	state  alert.State
	owner  string
	step   uint32
	events map[alert.Verb]*alert.Event
}

func (m *model) do(v alert.Verb, actor, outcome string) (ev *alert.Event, notOwner, ok bool) {
	stranger := v.ByOwner() && m.owner != "" && m.owner != actor
	if ev := m.events[v]; ev != nil {
		if ev.Actor == actor && ev.Outcome == outcome {
			return ev, false, true
		}
		return nil, stranger, false
	}
	to, ok := alert.Next(m.state, v)
	if !ok || (v.ByOwner() && actor != m.owner) {
		return nil, stranger, false
	}
	if v == alert.VerbTake {
		m.owner = actor
	}
	m.state, m.step = to, m.step+1
	ev = &alert.Event{AlertID: "a", Step: m.step, State: to, Queue: "q1", Actor: actor, Outcome: outcome}
	m.events[v] = ev
	return ev, false, true
}

// TestStepModel makes random steps in Redis and in the model.
func TestStepModel(t *testing.T) {
	eachRedis(t, func(t *testing.T, b backend) {
		q := open(t, b)
		run := 0
		rapid.Check(t, func(rt *rapid.T) {
			run++
			id := fmt.Sprint("a", run)
			publish(t, q, makeAlert(id, "q1"))
			m := &model{step: 1, events: map[alert.Verb]*alert.Event{}}
			told := 0
			for range rapid.IntRange(1, 12).Draw(rt, "steps") {
				v := rapid.SampledFrom(alert.Verbs()).Draw(rt, "verb")
				actor := rapid.SampledFrom([]string{"bri-12", "bri-13"}).Draw(rt, "actor")
				outcome := ""
				if all := alert.Outcomes(v); len(all) > 0 {
					outcome = rapid.SampledFrom(all[:2]).Draw(rt, "outcome")
				}
				before := m.step
				want, notOwner, ok := m.do(v, actor, outcome)
				told += int(m.step - before)
				got, err := q.Step(ctx, StepRequest{AlertID: id, Verb: v, Actor: actor, Outcome: outcome, Queues: []string{"q1"}})
				if (err == nil) != ok || errors.Is(err, ErrNotOwner) != notOwner {
					rt.Fatalf("%v by %s: %v; the model says ok %v, not the owner %v", v, actor, err, ok, notOwner)
				}
				var c *ConflictError
				if errors.As(err, &c) && (c.State != m.state || c.Owner != m.owner) {
					rt.Fatalf("%v by %s: %+v, want state %v owner %q", v, actor, c, m.state, m.owner)
				}
				if ok {
					want := *want
					want.AlertID, want.At = id, got.At
					if !reflect.DeepEqual(got, &want) {
						rt.Fatalf("%v by %s: %+v, want %+v", v, actor, got, want)
					}
				}
			}
			_, s, err := q.Get(ctx, id, []string{"q1"})
			if err != nil || s.State != m.state || s.Owner != m.owner || s.Step != m.step || len(s.Events) != told {
				rt.Fatalf("stands %+v, %v; the model %+v", s, err, m)
			}
			updates := 0
			for _, msg := range inQueue(t, q, "q1") {
				if msg.AlertID == id && msg.Kind == KindUpdate {
					updates++
				}
			}
			if updates != told {
				rt.Fatalf("%d updates in the queue, want %d", updates, told)
			}
			if err := q.rdb.Del(ctx, q.keys.alerts("q1")).Err(); err != nil { // keep inQueue short
				rt.Fatal(err)
			}
		})
	})
}
