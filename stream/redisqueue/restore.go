package redisqueue

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"vigie/stream/alert"
)

// Restore puts back what the hits topic tells: the queues, the states of the alerts and
// the steps made. Events of one alert must come in order; those past their retention
// are left out, and so is one that no version of the program writes. What is there already stays as it is, so a repeat changes nothing, and it
// may run while alerts are published and stepped. Where the topic and Redis differ, because
// a failover lost a step that somebody was told of, Redis is right.
//
// Messages get ids as close as the stream allows to the time of their event. So give
// events in order of time as far as possible, and before anything is published: then a
// patrol that comes back with the id of its last message misses nothing and hears nothing
// twice.
//
// On an error part of the events may have been put back; repeat the call.
func (q *Queues) Restore(ctx context.Context, events []*alert.Event) error {
	const batch = 256
	for len(events) > 0 {
		n := min(batch, len(events))
		if err := q.restore(ctx, events[:n]); err != nil {
			return fmt.Errorf("redisqueue: restore %d events: %w", n, err)
		}
		events = events[n:]
	}
	return nil
}

// restored is what Restore knows of an alert.
type restored struct {
	step        uint32 // the last in Redis or in this batch before the event at hand; 0 for no state
	list, entry string
}

// restore puts back a batch: first the messages, then the states, for a state says that its
// alert is in the queue.
func (q *Queues) restore(ctx context.Context, events []*alert.Event) error {
	known, err := q.known(ctx, events)
	if err != nil {
		return err
	}
	now := q.cfg.Clock()
	var puts, states []call
	for _, e := range events {
		at := known[e.AlertID]
		keep := q.cfg.Retention - now.Sub(time.UnixMilli(e.At))
		if keep < time.Millisecond || (e.Step > 1 && at.step == 0) {
			q.expired.Add(1)
			continue
		}
		if at.step >= e.Step {
			continue
		}
		put, state, err := q.restoreCalls(e, at, min(keep, q.cfg.Retention))
		if err != nil {
			// One bad event must not keep all others from coming back.
			q.unusable.Add(1)
			q.cfg.Log.Error("an event of the hits topic cannot be restored and is left out", zap.Error(err))
			continue
		}
		puts, states = append(puts, put), append(states, state)
		at.step = e.Step
	}
	if _, err := q.run(ctx, puts); err != nil {
		return err
	}
	if _, err := q.run(ctx, states); err != nil {
		return err
	}
	q.restored.Add(int64(len(puts)))
	return nil
}

// known asks Redis how far the alerts of the events are.
func (q *Queues) known(ctx context.Context, events []*alert.Event) (map[string]*restored, error) {
	known := make(map[string]*restored)
	asked := make(map[string]*redis.SliceCmd)
	pipe := q.rdb.Pipeline()
	for _, e := range events {
		if asked[e.AlertID] == nil {
			asked[e.AlertID] = pipe.HMGet(ctx, q.keys.state(e.AlertID), "step", "list", "entry")
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, q.failed(err)
	}
	for id, cmd := range asked {
		known[id] = new(restored)
		f := cmd.Val()
		if len(f) != 3 || f[0] == nil {
			continue
		}
		step, _ := f[0].(string)
		n, err := strconv.ParseUint(step, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("alert %s: %w", id, errReply)
		}
		known[id].step = uint32(n)
		known[id].list, _ = f[1].(string)
		known[id].entry, _ = f[2].(string)
	}
	return known, nil
}

// restoreCalls are the calls that put back one event. They fill in what at does not know.
func (q *Queues) restoreCalls(e *alert.Event, at *restored, keep time.Duration) (put, state call, err error) {
	var ms string // the present, for an event that does not know better
	if e.At > 0 {
		ms = strconv.FormatInt(e.At, 10)
	}
	switch a := e.Alert; {
	case e.Step == 1 && a == nil:
		return put, state, fmt.Errorf("alert %s step 1: the alert is missing", e.AlertID)
	case e.Step == 1:
		data, err := json.Marshal(a)
		if err != nil {
			return put, state, fmt.Errorf("alert %s: %w", e.AlertID, err)
		}
		at.list, at.entry = a.List.ID, a.Entry.ID
		return q.putAlert(a, data, "", ms), q.create(a, data, keep), nil
	}
	verb, err := verbTo(e.State)
	if err != nil {
		return put, state, fmt.Errorf("alert %s step %d: %w", e.AlertID, e.Step, err)
	}
	data, err := json.Marshal(deed{At: e.At, Actor: e.Actor, Outcome: e.Outcome, Note: e.Note})
	if err != nil {
		return put, state, fmt.Errorf("alert %s step %d: %w", e.AlertID, e.Step, err)
	}
	if put, err = q.putUpdate(e, at.list, at.entry, ms); err != nil {
		return put, state, err
	}
	return put, call{
		script: redoScript,
		keys:   []string{q.keys.state(e.AlertID)},
		args:   []any{e.Step, e.State.String(), verb.String(), e.Actor, allowed(verb), data},
	}, nil
}

// verbTo is the verb that leads to a state.
func verbTo(s alert.State) (alert.Verb, error) {
	for _, v := range alert.Verbs() {
		for _, t := range alert.Transitions(v) {
			if t.To == s {
				return v, nil
			}
		}
	}
	return 0, fmt.Errorf("no step leads to state %s", s)
}
