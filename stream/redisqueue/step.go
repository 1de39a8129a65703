package redisqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"vigie/stream/alert"
	"vigie/watchlist"
)

// StepRequest asks for one step in the life of an alert.
type StepRequest struct {
	AlertID string
	Verb    alert.Verb
	Actor   string // who asks
	Outcome string // see alert.Outcomes
	Note    string // free text, at most MaxNote bytes
	// Queues are those the actor may see. An alert of another queue does not
	// exist for him; with none, no alert does.
	Queues []string
	At     time.Time // the clock of Config when zero
}

// MaxNote is the greatest length of a note in bytes.
const MaxNote = 2000

// ErrUnknownAlert means that there is no such alert, that it is past its retention, or
// that it is in a queue which the actor may not see: the three look the same.
var ErrUnknownAlert = errors.New("redisqueue: no such alert")

// ErrNotOwner is what errors.Is finds in a *ConflictError when somebody else has the
// alert and only he may do what was asked.
var ErrNotOwner = errors.New("redisqueue: somebody else has the alert")

// ConflictError means that the step may not follow: somebody was faster, or it was
// never possible. The alert is unchanged.
type ConflictError struct {
	AlertID string
	Verb    alert.Verb
	State   alert.State // where the alert stands
	Owner   string      // who has it; empty when nobody has

	notOwner bool
}

func (e *ConflictError) Error() string {
	if e.Owner == "" {
		return fmt.Sprintf("redisqueue: cannot %s alert %s: it is %s", e.Verb, e.AlertID, e.State)
	}
	return fmt.Sprintf("redisqueue: cannot %s alert %s: it is %s and %s has it", e.Verb, e.AlertID, e.State, e.Owner)
}

// Is reports whether target is ErrNotOwner and the actor is not the owner.
func (e *ConflictError) Is(target error) bool { return target == ErrNotOwner && e.notOwner }

// deed is what is kept of a step beside its number and state.
type deed struct {
	At      int64  `json:"at"`
	Actor   string `json:"actor"`
	Outcome string `json:"outcome,omitempty"`
	Note    string `json:"note,omitempty"`

	Revision uint32 `json:"revision,omitempty"` // of the read that made it
}

// Step makes a step and returns its event, which is in the queue by then; the caller
// writes it to the hits topic.
//
// It is atomic: of any number who take an alert at once, one does. It is idempotent: the
// same actor who asks for the same step with the same outcome, because the answer was
// lost, gets the event of the first time, with its time and note.
//
// Errors: *watchlist.FieldError for a request that is wrong in itself, ErrUnknownAlert,
// *ConflictError. After any other error the step may or may not be made; ask again.
func (q *Queues) Step(ctx context.Context, req StepRequest) (*alert.Event, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	if req.At.IsZero() {
		req.At = q.cfg.Clock()
	}
	done, err := q.step(ctx, &req)
	if err != nil {
		return nil, err
	}
	ev := done.event
	if done.again && q.cfg.Clock().Sub(time.UnixMilli(ev.At)) > q.cfg.SeenTTL/2 {
		return ev, nil // the queue was told long ago, and may have forgotten that it was
	}
	// The step is made: whoever asked for it has perhaps lost the line, but the
	// others who see this queue must hear of it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ioTimeout)
	defer cancel()
	put, err := q.putUpdate(ev, done.list, done.entry, "")
	if err == nil {
		_, err = q.run(ctx, []call{put})
	}
	if err != nil {
		return nil, fmt.Errorf("redisqueue: tell the queue that alert %s is %s: %w", ev.AlertID, ev.State, err)
	}
	return ev, nil
}

func (r *StepRequest) check() error {
	if _, err := r.Verb.MarshalText(); err != nil {
		return &watchlist.FieldError{Field: "verb", Reason: "must be one of: take, confirm, reject, close"}
	}
	if r.Actor == "" {
		return &watchlist.FieldError{Field: "actor", Reason: "is required: somebody must answer for the step"}
	}
	if len(r.Note) > MaxNote || !utf8.ValidString(r.Note) {
		return &watchlist.FieldError{Field: "note", Reason: fmt.Sprintf("must be UTF-8 of at most %d bytes", MaxNote)}
	}
	return alert.CheckOutcome(r.Verb, r.Outcome)
}

// stepDone is a step that was made.
type stepDone struct {
	event       *alert.Event
	list, entry string // of the alert
	again       bool   // it was made before
}

// step makes the step in the state of the alert.
func (q *Queues) step(ctx context.Context, req *StepRequest) (done stepDone, err error) {
	c, err := q.stepCall(req)
	if err != nil {
		return done, err
	}
	for revived := false; ; revived = true {
		replies, err := q.run(ctx, []call{c})
		if err == nil {
			done, err = q.stepped(req, replies[0])
		}
		if errors.Is(err, ErrUnknownAlert) && !revived {
			var ok bool
			if ok, err = q.revive(ctx, req.AlertID, req.Queues); ok {
				continue
			} else if err == nil {
				err = ErrUnknownAlert
			}
		}
		var conflict *ConflictError
		if err != nil && !errors.Is(err, ErrUnknownAlert) && !errors.As(err, &conflict) {
			err = fmt.Errorf("redisqueue: %s alert %s: %w", req.Verb, req.AlertID, err)
		}
		return done, err
	}
}

// stepCall is the call of step.lua.
func (q *Queues) stepCall(req *StepRequest) (call, error) {
	data, err := json.Marshal(deed{At: req.At.UnixMilli(), Actor: req.Actor, Outcome: req.Outcome, Note: req.Note})
	if err != nil {
		return call{}, fmt.Errorf("redisqueue: %s alert %s: %w", req.Verb, req.AlertID, err)
	}
	args := []any{req.Verb.String(), req.Actor, allowed(req.Verb), data, len(req.Queues)}
	for _, queue := range req.Queues {
		args = append(args, queue)
	}
	for _, t := range alert.Transitions(req.Verb) {
		args = append(args, t.From.String(), t.To.String())
	}
	return call{script: stepScript, keys: []string{q.keys.state(req.AlertID)}, args: args}, nil
}

// allowed is the word by which the scripts know who may do v.
func allowed(v alert.Verb) string {
	if v.ByOwner() {
		return "owner"
	}
	return "anyone"
}

// stepped reads the answer of step.lua.
func (q *Queues) stepped(req *StepRequest, r reply) (done stepDone, err error) {
	const unknown, made, repeated, refused = 0, 1, 2, 3
	code, err := r.code()
	if err != nil {
		return done, err
	}
	if code == unknown {
		return done, ErrUnknownAlert
	}
	n := 8
	if code == refused {
		n = 2
	}
	f, err := r.texts(n)
	if err != nil {
		return done, err
	}
	conflict := &ConflictError{AlertID: req.AlertID, Verb: req.Verb, Owner: f[1]}
	if err := conflict.State.UnmarshalText([]byte(f[0])); err != nil {
		return done, err
	}
	conflict.notOwner = req.Verb.ByOwner() && conflict.Owner != "" && conflict.Owner != req.Actor
	if code == refused {
		q.conflicts.Add(1)
		return done, conflict
	}
	ev, err := event(req.AlertID, f[2], f[5], f[6], f[7])
	switch {
	case err != nil:
		return done, err
	case code == made:
		q.steps[req.Verb].Add(1)
	case code == repeated && ev.Actor == req.Actor && ev.Outcome == req.Outcome:
		q.repeats.Add(1)
	default:
		q.conflicts.Add(1)
		return done, conflict
	}
	return stepDone{event: ev, list: f[3], entry: f[4], again: code == repeated}, nil
}

// event puts together what a state keeps of a step.
func event(id, queue, step, state, data string) (*alert.Event, error) {
	n, err := strconv.ParseUint(step, 10, 32)
	if err != nil {
		return nil, errReply
	}
	var d deed
	if err := json.Unmarshal([]byte(data), &d); err != nil {
		return nil, errReply
	}
	ev := &alert.Event{
		AlertID: id, Step: uint32(n), Queue: queue,
		At: d.At, Actor: d.Actor, Outcome: d.Outcome, Note: d.Note, Revision: d.Revision,
	}
	return ev, ev.State.UnmarshalText([]byte(state))
}

// Get returns an alert and where it stands, or ErrUnknownAlert when it is in none of the
// queues.
func (q *Queues) Get(ctx context.Context, alertID string, queues []string) (*alert.Alert, alert.Standing, error) {
	fields, err := q.rdb.HGetAll(ctx, q.keys.state(alertID)).Result()
	if err != nil {
		return nil, alert.Standing{}, fmt.Errorf("redisqueue: get alert %s: %w", alertID, q.failed(err))
	}
	if len(fields) == 0 {
		ok, err := q.revive(ctx, alertID, queues)
		if ok {
			fields, err = q.rdb.HGetAll(ctx, q.keys.state(alertID)).Result()
		}
		if err != nil {
			return nil, alert.Standing{}, fmt.Errorf("redisqueue: get alert %s: %w", alertID, err)
		}
	}
	if len(fields) == 0 || !slices.Contains(queues, fields["queue"]) {
		return nil, alert.Standing{}, ErrUnknownAlert
	}
	a, s, err := standing(alertID, fields)
	if err != nil {
		return nil, alert.Standing{}, fmt.Errorf("redisqueue: get alert %s: its state does not read: %w", alertID, err)
	}
	return a, s, nil
}

// standing reads the fields of a state.
func standing(id string, fields map[string]string) (*alert.Alert, alert.Standing, error) {
	var s alert.Standing
	a := new(alert.Alert)
	if err := json.Unmarshal([]byte(fields["alert"]), a); err != nil {
		return nil, s, errReply // not wrapped: it may quote what it read
	}
	if err := s.State.UnmarshalText([]byte(fields["state"])); err != nil {
		return nil, s, err
	}
	step, err := strconv.ParseUint(fields["step"], 10, 32)
	if err != nil {
		return nil, s, errReply
	}
	s.Step, s.Owner = uint32(step), fields["owner"]
	for n := uint64(2); n <= step; n++ {
		word := strconv.FormatUint(n, 10)
		if fields["deed:"+word] == "" {
			continue // a gap that Restore found on the hits topic
		}
		ev, err := event(id, fields["queue"], word, fields["to:"+word], fields["deed:"+word])
		if err != nil {
			return nil, s, err
		}
		s.Events = append(s.Events, ev)
	}
	return a, s, nil
}

// revive makes the state of an alert that is in one of the queues and has none, because
// its publisher has died in between or is just about to make it. It reports whether there
// was such an alert.
func (q *Queues) revive(ctx context.Context, alertID string, queues []string) (bool, error) {
	if len(queues) == 0 {
		return false, nil
	}
	pipe := q.rdb.Pipeline()
	scores := make([]*redis.FloatCmd, len(queues))
	for i, queue := range queues {
		scores[i] = pipe.ZScore(ctx, q.keys.seen(queue), alertID)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i, queue := range queues {
		score, err := scores[i].Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return false, q.failed(err)
		}
		// The score is the time in the id of the message.
		ms := strconv.FormatInt(int64(score), 10)
		messages, err := q.rdb.XRange(ctx, q.keys.alerts(queue), ms, ms).Result()
		if err != nil {
			return false, q.failed(err)
		}
		for i := range messages {
			m := message(queue, &messages[i])
			if m.AlertID != alertID || m.Kind != KindAlert {
				continue
			}
			a := new(alert.Alert)
			if err := json.Unmarshal(m.Data, a); err != nil {
				return false, errReply // not wrapped: it may quote what it read
			}
			if _, err := q.run(ctx, []call{q.create(a, m.Data, q.cfg.Retention)}); err != nil {
				return false, err
			}
			q.revived.Add(1)
			return true, nil
		}
	}
	return false, nil
}
