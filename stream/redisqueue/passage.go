package redisqueue

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/alert"
)

// passageTTL is how long a passage remembers its alerts. Its reads come within seconds, but
// a matcher may have been away between two of them.
const passageTTL = time.Hour

// What a later read of a passage does to an alert.
const (
	corrected = iota
	raised
	amended
)

var rereads = map[string]int{
	alert.OutcomeOtherPlate: corrected, alert.OutcomeReadAgain: raised, alert.OutcomeEvidence: amended,
}

// passage is the key of the passage of a read. It shows neither the sensor nor the time.
func (k keys) passage(r *sensors.Read) string {
	// Clean, as alert.New keeps them.
	sensor, passage := strings.ToValidUTF8(r.Sensor, "\uFFFD"), strings.ToValidUTF8(r.Passage, "\uFFFD")
	b := binary.AppendUvarint(make([]byte, 0, 96), uint64(len(sensor)))
	b = append(append(b, sensor...), passage...)
	sum := sha256.Sum256(b)
	return string(k) + "{p:" + base64.RawURLEncoding.EncodeToString(sum[:16]) + "}"
}

// notePassage is the call by which later reads of its passage find an alert, for a time.
// It need not come before the alert is put: both are done before the offset of the read
// is committed, and the later reads stand behind it.
func (q *Queues) notePassage(a *alert.Alert, keep time.Duration) call {
	return call{script: passageScript, keys: []string{q.keys.passage(&a.Read)}, args: []any{a.ID, keep.Milliseconds()}}
}

// seen are the fields of a state that tell what the passage has shown, for create.lua and
// redo.lua.
func seen(a *alert.Alert) []any {
	if a.Read.Passage == "" {
		return nil
	}
	return append(shown(a), "rev", a.Read.Revision)
}

// shown are the fields of a state that tell what the alert shows.
func shown(a *alert.Alert) []any {
	r := alert.ReadingOf(&a.Read)
	return []any{"reads", r.Text, "syntax", int(r.Syntax), "conf", r.Conf, "digest", a.Digest()}
}

// Revise implements stream.Queues. It takes one round trip when none of the passages has an
// alert, else two, and a third when there is something to tell.
func (q *Queues) Revise(ctx context.Context, reads []stream.Revision) ([]*alert.Event, error) {
	if len(reads) == 0 {
		return nil, nil
	}
	events, err := q.revise(ctx, reads)
	if err != nil {
		return nil, fmt.Errorf("redisqueue: revise the alerts of %d reads: %w", len(reads), err)
	}
	return events, nil
}

func (q *Queues) revise(ctx context.Context, reads []stream.Revision) ([]*alert.Event, error) {
	pipe := q.rdb.Pipeline()
	known := make([]*redis.StringCmd, len(reads))
	for i := range reads {
		known[i] = pipe.Get(ctx, q.keys.passage(&reads[i].Read))
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, q.failed(err)
	}
	var ids []string
	var calls []call
	for i := range reads {
		r := &reads[i]
		list, err := known[i].Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, q.failed(err)
		}
		hits := make(map[string]*alert.Alert, len(r.Alerts))
		for _, a := range r.Alerts {
			hits[a.ID] = a
			if !strings.Contains(list, a.ID+" ") {
				list += a.ID + " "
			}
		}
		for _, id := range strings.Fields(list) {
			c, err := q.reviseCall(id, r, hits[id])
			if err != nil {
				return nil, fmt.Errorf("alert %s: %w", id, err)
			}
			ids, calls = append(ids, id), append(calls, c)
		}
	}
	replies, err := q.run(ctx, calls)
	if err != nil {
		return nil, err
	}
	var events []*alert.Event
	var puts []call
	for i, r := range replies {
		done, err := q.revised(ids[i], r)
		if err != nil {
			return nil, fmt.Errorf("alert %s: %w", ids[i], err)
		}
		if done.event == nil {
			continue
		}
		events = append(events, done.event)
		if done.again && q.cfg.Clock().Sub(time.UnixMilli(done.event.At)) > q.cfg.SeenTTL/2 {
			continue // the queue was told long ago, and may have forgotten that it was
		}
		put, err := q.putUpdate(done.event, done.list, done.entry, "")
		if err != nil {
			return nil, err
		}
		puts = append(puts, put)
	}
	_, err = q.run(ctx, puts)
	return events, err
}

// reviseCall is the call of revise.lua for an alert of the passage, with the alert that the
// read makes, or nil when it does not hit.
func (q *Queues) reviseCall(id string, r *stream.Revision, hit *alert.Alert) (call, error) {
	var outcomes []string
	word, move := "miss", alert.Reread(hit != nil)
	if hit == nil {
		outcomes = []string{alert.OutcomeOtherPlate}
	} else {
		word, outcomes = "hit", []string{alert.OutcomeEvidence, alert.OutcomeReadAgain}
	}
	reading := alert.ReadingOf(&r.Read)
	args := []any{
		r.Read.Revision, word, reading.Text, int(reading.Syntax), reading.Conf, alert.Doubt, move.From.String(), move.To.String(),
	}
	for _, o := range outcomes {
		d, err := json.Marshal(deed{At: r.At.UnixMilli(), Outcome: o, Revision: r.Read.Revision})
		if err != nil {
			return call{}, err
		}
		args = append(args, d)
	}
	if hit != nil {
		data, err := json.Marshal(hit)
		if err != nil {
			return call{}, err
		}
		digest := hit.Digest()
		if hit.Late {
			digest = "" // it must not take the stop from an alert that was made in time
		}
		args = append(args, digest, data)
	}
	return call{script: reviseScript, keys: []string{q.keys.state(id)}, args: args}, nil
}

// revised reads the answer of revise.lua; without an event there is nothing to tell.
func (q *Queues) revised(id string, r reply) (done stepDone, err error) {
	const unknown, nothing, made, repeated = 0, 1, 2, 3
	code, err := r.code()
	if err != nil || code == unknown || code == nothing {
		return done, err
	}
	if code != made && code != repeated {
		return done, errReply
	}
	f, err := r.texts(7)
	if err != nil {
		return done, err
	}
	ev, err := event(id, f[0], f[3], f[4], f[5])
	if err != nil {
		return done, err
	}
	kind, ok := rereads[ev.Outcome]
	if !ok {
		return done, errReply
	}
	if kind != corrected {
		ev.Amended = new(alert.Alert)
		if err := json.Unmarshal([]byte(f[6]), ev.Amended); err != nil {
			return done, errReply // not wrapped: it may quote what it read
		}
	}
	if code == made {
		q.revisions[kind].Add(1)
	}
	return stepDone{event: ev, list: f[1], entry: f[2], again: code == repeated}, nil
}
