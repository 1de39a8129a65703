package redisqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"vigie/stream"
	"vigie/stream/alert"
)

// Kinds of message in a queue.
const (
	KindAlert  = "alert"  // data is an alert.Alert
	KindUpdate = "update" // data is an alert.Event after the hit
)

// Publish implements stream.Queues. It takes two round trips, whatever the number of
// alerts, and three when some of the reads are older than Config.SeenTTL.
func (q *Queues) Publish(ctx context.Context, alerts []*alert.Alert) ([]stream.Published, error) {
	if len(alerts) == 0 {
		return nil, nil
	}
	out, err := q.publish(ctx, alerts)
	if err != nil {
		return nil, fmt.Errorf("redisqueue: publish %d alerts: %w", len(alerts), err)
	}
	for _, p := range out {
		switch p.Outcome {
		case stream.Stored:
			q.stored.Add(1)
		case stream.Duplicate:
			q.duplicates.Add(1)
		case stream.Stale:
			q.stale.Add(1)
		}
	}
	return out, nil
}

func (q *Queues) publish(ctx context.Context, alerts []*alert.Alert) ([]stream.Published, error) {
	out := make([]stream.Published, len(alerts))
	known, err := q.knownOld(ctx, alerts)
	if err != nil {
		return nil, err
	}
	var todo []int // indices of the alerts to put
	var notes, puts, creates []call
	for i, a := range alerts {
		if a.Read.Passage != "" {
			notes = append(notes, q.notePassage(a, passageTTL))
		}
		if known[a.ID] {
			out[i].Outcome = stream.Duplicate
			continue
		}
		data, err := json.Marshal(a)
		if err != nil {
			return nil, fmt.Errorf("alert %s: %w", a.ID, err)
		}
		todo = append(todo, i)
		puts = append(puts, q.putAlert(a, data, strconv.FormatInt(a.Match.Version, 10), ""))
		creates = append(creates, q.create(a, data, q.cfg.Retention))
	}
	replies, err := q.run(ctx, append(puts, notes...))
	if err != nil {
		return nil, err
	}
	made := creates[:0]
	for n, i := range todo {
		if out[i], err = published(replies[n]); err != nil {
			return nil, err
		}
		// A duplicate may be the work of a process that died before it made the state.
		if out[i].Outcome != stream.Stale {
			made = append(made, creates[n])
		}
	}
	if _, err := q.run(ctx, made); err != nil {
		return nil, err
	}
	return out, nil
}

// published reads the answer of put.lua.
func published(r reply) (p stream.Published, err error) {
	code, err := r.code()
	if err != nil {
		return p, err
	}
	switch code {
	case 0:
		p.Outcome = stream.Stored
	case 1:
		p.Outcome = stream.Duplicate
	case 2:
		p.Outcome = stream.Stale
		fence, err := r.texts(1)
		if err != nil {
			return p, err
		}
		if p.Fence, err = strconv.ParseInt(fence[0], 10, 64); err != nil {
			return p, errReply
		}
	default:
		return p, errReply
	}
	return p, nil
}

// knownOld returns those of the alerts that were in a queue before it may have
// forgotten them. A state exists only for an alert that was put; so its existence
// tells, but at the price of a round trip, and only a read that is itself old can make
// an alert that was put long ago.
func (q *Queues) knownOld(ctx context.Context, alerts []*alert.Alert) (map[string]bool, error) {
	limit := q.cfg.Clock().Add(-q.cfg.SeenTTL / 2).UnixMilli()
	var old []*alert.Alert
	for _, a := range alerts {
		if a.Read.TS < limit || (a.Read.Received != 0 && a.Read.Received < limit) {
			old = append(old, a)
		}
	}
	if len(old) == 0 {
		return nil, nil
	}
	pipe := q.rdb.Pipeline()
	exist := make([]*redis.IntCmd, len(old))
	for i, a := range old {
		exist[i] = pipe.Exists(ctx, q.keys.state(a.ID))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, q.failed(err)
	}
	known := make(map[string]bool)
	for i, a := range old {
		if exist[i].Val() > 0 {
			known[a.ID] = true
		}
	}
	return known, nil
}

// putAlert is the call that puts an alert into its queue. version is empty when no
// fence concerns it, at when it is new.
func (q *Queues) putAlert(a *alert.Alert, data []byte, version, at string) call {
	return q.put(a.Queue, a.ID, version, at, KindAlert, a.ID, a.List.ID, a.Entry.ID, data)
}

// putUpdate is the call that puts a step after the hit into the queue of its alert.
func (q *Queues) putUpdate(e *alert.Event, list, entry, at string) (call, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return call{}, fmt.Errorf("alert %s step %d: %w", e.AlertID, e.Step, err)
	}
	member := e.AlertID + ":" + strconv.FormatUint(uint64(e.Step), 10)
	return q.put(e.Queue, member, "", at, KindUpdate, e.AlertID, list, entry, data), nil
}

func (q *Queues) put(queue, member, version, at, kind, id, list, entry string, data []byte) call {
	return call{
		script: putScript,
		keys:   []string{q.keys.alerts(queue), q.keys.seen(queue), q.keys.fence(queue)},
		args: []any{
			member, version, at, q.cfg.Retention.Milliseconds(), q.cfg.SeenTTL.Milliseconds(),
			"kind", kind, "id", id, "list", list, "entry", entry, "data", data,
		},
	}
}

// create is the call that makes the state of an alert, to be kept for a time.
func (q *Queues) create(a *alert.Alert, data []byte, keep time.Duration) call {
	return call{
		script: createScript,
		keys:   []string{q.keys.state(a.ID)},
		args: append([]any{
			keep.Milliseconds(), alert.StateNew.String(), a.Queue, a.List.ID, a.Entry.ID, data,
		}, seen(a)...),
	}
}

// Fence implements stream.Fencer. A fence lives in Redis only: after Redis has lost
// data, the last withdrawal must be fenced again before alerts are published.
func (q *Queues) Fence(ctx context.Context, queues []string, v int64) error {
	calls := make([]call, len(queues))
	for i, queue := range queues {
		calls[i] = call{script: fenceScript, keys: []string{q.keys.fence(queue)}, args: []any{v}}
	}
	if _, err := q.run(ctx, calls); err != nil {
		return fmt.Errorf("redisqueue: fence %d queues: %w", len(queues), err)
	}
	return nil
}

// FenceOf returns the fence of a queue, -1 when it has none.
func (q *Queues) FenceOf(ctx context.Context, queue string) (int64, error) {
	v, err := q.rdb.Get(ctx, q.keys.fence(queue)).Int64()
	if errors.Is(err, redis.Nil) {
		return -1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("redisqueue: read the fence of queue %s: %w", queue, err)
	}
	return v, nil
}

// Expire removes from the queues what Config.Retention no longer allows. A queue in
// use does so by itself; one that rests must be told, an hour apart or so, or it would
// keep its last alerts for up to twice as long.
func (q *Queues) Expire(ctx context.Context, queues []string) error {
	for _, queue := range queues {
		for done := int64(0); done == 0; {
			replies, err := q.run(ctx, []call{{
				script: expireScript,
				keys:   []string{q.keys.alerts(queue), q.keys.seen(queue)},
				args:   []any{q.cfg.Retention.Milliseconds(), q.cfg.SeenTTL.Milliseconds()},
			}})
			if err == nil {
				done, err = replies[0].code()
			}
			if err != nil {
				return fmt.Errorf("redisqueue: expire queue %s: %w", queue, err)
			}
		}
	}
	return nil
}
