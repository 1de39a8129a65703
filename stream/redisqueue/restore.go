package redisqueue

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"vigie/stream"
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
	_, err := q.putBack(ctx, events, putBack{keepTime: true})
	return err
}

// PutBack implements stream.QueueStore: it is Restore for queues in use.
func (q *Queues) PutBack(ctx context.Context, events []*alert.Event, opt stream.PutBackOptions) (stream.PutBackResult, error) {
	return q.putBack(ctx, events, putBack{keepTime: opt.KeepTime, version: strconv.FormatInt(opt.Version, 10)})
}

// putBack says how events are put back.
type putBack struct {
	keepTime bool   // under ids of their time, not of now
	version  string // of the lists, for the fences to refuse; empty when no fence concerns them
}

func (q *Queues) putBack(ctx context.Context, events []*alert.Event, how putBack) (res stream.PutBackResult, err error) {
	const batch = 256
	res.Fence = -1
	for len(events) > 0 {
		n := min(batch, len(events))
		if err := q.restore(ctx, events[:n], how, &res); err != nil {
			return res, fmt.Errorf("redisqueue: restore %d events: %w", n, err)
		}
		events = events[n:]
	}
	return res, nil
}

// restored is what Restore knows of an alert.
type restored struct {
	step        uint32 // the last in Redis or in this batch before the event at hand; 0 for no state
	list, entry string
}

// restore puts back a batch: first the messages, then the states, for a state says that its
// alert is in the queue.
func (q *Queues) restore(ctx context.Context, events []*alert.Event, how putBack, res *stream.PutBackResult) error {
	known, err := q.known(ctx, events)
	if err != nil {
		return err
	}
	if how.version == "" {
		return q.restoreWave(ctx, events, known, how, res)
	}
	// A fence may refuse an alert, and then its steps must not be put either: hits first.
	var hits, steps []*alert.Event
	for _, e := range events {
		if e.Step == 1 {
			hits = append(hits, e)
		} else {
			steps = append(steps, e)
		}
	}
	if err := q.restoreWave(ctx, hits, known, how, res); err != nil {
		return err
	}
	return q.restoreWave(ctx, steps, known, how, res)
}

// restoreWave puts back events of which none depends on whether another is refused.
func (q *Queues) restoreWave(ctx context.Context, events []*alert.Event, known map[string]*restored, how putBack, res *stream.PutBackResult) error {
	now := q.cfg.Clock()
	var puts, notes, states []call
	var put []*alert.Event
	for _, e := range events {
		at := known[e.AlertID]
		age := now.Sub(time.UnixMilli(e.At))
		keep := q.cfg.Retention - age
		// Also for one that is there: its passage may lie on another node.
		left := passageTTL - max(age, 0)
		if a := e.Alert; a != nil && a.Read.Passage != "" && left >= time.Millisecond {
			notes = append(notes, q.notePassage(a, left))
		}
		if keep < time.Millisecond || (e.Step > 1 && at.step == 0) {
			q.expired.Add(1)
			res.LeftOut++
			continue
		}
		if at.step >= e.Step {
			res.There++
			continue
		}
		message, state, err := q.restoreCalls(e, at, min(keep, q.cfg.Retention), how)
		if err != nil {
			// One bad event must not keep all others from coming back.
			q.unusable.Add(1)
			res.LeftOut++
			q.cfg.Log.Error("an event of the hits topic cannot be restored and is left out", zap.Error(err))
			continue
		}
		puts, states, put = append(puts, message), append(states, state), append(put, e)
		at.step = e.Step
	}
	replies, err := q.run(ctx, append(puts, notes...))
	if err != nil {
		return err
	}
	made := states[:0]
	for i, r := range replies[:len(puts)] {
		p, err := published(r)
		if err != nil {
			return err
		}
		if p.Outcome == stream.Stale {
			res.Fence = max(res.Fence, p.Fence)
			known[put[i].AlertID].step = 0
			continue
		}
		made = append(made, states[i])
	}
	if _, err := q.run(ctx, made); err != nil {
		return err
	}
	q.restored.Add(int64(len(made)))
	res.Restored += int64(len(made))
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
func (q *Queues) restoreCalls(e *alert.Event, at *restored, keep time.Duration, how putBack) (put, state call, err error) {
	var ms string // the present, for an event that does not know better
	if e.At > 0 && how.keepTime {
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
		return q.putAlert(a, data, how.version, ms), q.create(a, data, keep), nil
	}
	did, who, more, err := deedOf(e)
	if err != nil {
		return put, state, fmt.Errorf("alert %s step %d: %w", e.AlertID, e.Step, err)
	}
	data, err := json.Marshal(deed{At: e.At, Actor: e.Actor, Outcome: e.Outcome, Note: e.Note, Revision: e.Revision})
	if err != nil {
		return put, state, fmt.Errorf("alert %s step %d: %w", e.AlertID, e.Step, err)
	}
	if put, err = q.putUpdate(e, at.list, at.entry, ms); err != nil {
		return put, state, err
	}
	return put, call{
		script: redoScript,
		keys:   []string{q.keys.state(e.AlertID)},
		args:   append([]any{e.Step, e.State.String(), did, e.Actor, who, data}, more...),
	}, nil
}

// deedOf says what made a step after the hit, who may, and what else the state keeps of it,
// as redo.lua takes them.
func deedOf(e *alert.Event) (did, who string, more []any, err error) {
	if e.Revision == 0 {
		verb, err := verbTo(e.State)
		return verb.String(), allowed(verb), nil, err
	}
	more = []any{"rev", e.Revision}
	if a := e.Amended; a != nil {
		data, err := json.Marshal(a)
		if err != nil {
			return "", "", nil, err
		}
		more = append(append(more, shown(a)...), "alert", data, "against", "")
	} else {
		more = append(more, "against", "1")
	}
	return "rev:" + strconv.FormatUint(uint64(e.Revision), 10), "nobody", more, nil
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
