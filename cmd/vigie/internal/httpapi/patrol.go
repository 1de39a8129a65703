package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/redisqueue"
	"vigie/watchlist"
)

// alertDesk keeps where each alert stands; redisqueue.Queues is one. Queues are
// those that the caller may see: an alert of another does not exist for it.
type alertDesk interface {
	// Get returns an alert and where it stands, or redisqueue.ErrUnknownAlert.
	Get(ctx context.Context, id string, queues []string) (*alert.Alert, alert.Standing, error)
	// Step makes a step in the life of an alert and returns its event. Asking
	// again for a step that was made returns the event of the first time.
	// Errors: *watchlist.FieldError, redisqueue.ErrUnknownAlert,
	// *redisqueue.ConflictError.
	Step(ctx context.Context, req redisqueue.StepRequest) (*alert.Event, error)
}

// alertFeed hands out what happens in queues; redisqueue.Hub is one.
type alertFeed interface {
	// Subscribe follows a queue from behind the message of id after; with "0"
	// from the oldest one kept. An id that no message can have is
	// redisqueue.ErrBadID.
	Subscribe(ctx context.Context, queue, after string) (Subscription, error)
}

// Subscription is one reader of a queue; *redisqueue.Subscription is one.
type Subscription interface {
	// Next waits for the next message. When ctx ends it returns the error of
	// ctx and may be called again; any other error ends the subscription,
	// redisqueue.ErrSlow when the reader was too slow.
	Next(ctx context.Context) (redisqueue.Message, error)
	Close()
}

// AlertView is an alert as a patrol sees it.
type AlertView struct {
	Alert    *alert.Alert   `json:"alert"`
	Standing alert.Standing `json:"standing"`
}

// StepRequest is the body of a step. Which outcomes a verb takes, see alert.Outcomes.
type StepRequest struct {
	Outcome string `json:"outcome,omitempty"`
	Note    string `json:"note,omitempty"`
}

// Hello is the first event of a stream: as whom the patrol is known, and for
// which queue.
type Hello struct {
	Actor string `json:"actor"`
	Queue string `json:"queue"`
}

// WithdrawnAlert is the event that takes the place of an alert whose entry was
// withdrawn, or follows it when it was handed out before; and that of an alert that
// nobody had taken when the camera read another plate in the same passage. Step is that
// of the alert in the last case: a later event may bring the alert back.
type WithdrawnAlert struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
	Step   uint32 `json:"step,omitempty"`
}

const (
	// recheckEvery is how often the alerts handed out on a stream are asked
	// about, to take back those whose entry was withdrawn meanwhile.
	recheckEvery = time.Second
	// maxOpen is how many alerts of a stream are asked about; beyond that the
	// oldest are let go.
	maxOpen = 1000
	// maxBehind is the age from which an alert cannot be ahead of the lists of
	// this process.
	maxBehind = time.Minute
	// streamBuffer is how many bytes of a stream the kernel may hold for a
	// patrol that does not read.
	streamBuffer = 64 << 10
	// retryHint is the pause, in milliseconds, that a client makes before it
	// connects again.
	retryHint = "retry: 2000\n\n"

	maxNote = 4 << 10 // bytes of a step's body

	reasonWithdrawn  = "entry withdrawn"
	reasonOtherPlate = "the camera now reads another plate"
)

func (s *Server) getAlert(w http.ResponseWriter, r *http.Request, who *Token) error {
	a, standing, err := s.cfg.Alerts.Get(r.Context(), r.PathValue("alert"), who.Queues)
	if err != nil {
		return err
	}
	if err := s.wanted(r.Context(), claimOf(a), a.Match.Version, a.Created); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, AlertView{Alert: a, Standing: standing})
}

func (s *Server) postStep(w http.ResponseWriter, r *http.Request, who *Token) error {
	var verb alert.Verb
	if err := verb.UnmarshalText([]byte(r.PathValue("verb"))); err != nil {
		return errNotFound
	}
	var in StepRequest
	if err := readOptionalJSON(w, r, maxNote, &in); err != nil {
		return err
	}
	id := r.PathValue("alert")
	// What was begun may be ended, but nobody takes up what is no longer wanted.
	if verb == alert.VerbTake || verb == alert.VerbConfirm {
		a, _, err := s.cfg.Alerts.Get(r.Context(), id, who.Queues)
		if err != nil {
			return err
		}
		if err := s.wanted(r.Context(), claimOf(a), a.Match.Version, a.Created); err != nil {
			return err
		}
	}
	ev, err := s.cfg.Alerts.Step(r.Context(), redisqueue.StepRequest{
		AlertID: id, Verb: verb, Actor: who.Name, Outcome: in.Outcome, Note: in.Note, Queues: who.Queues, At: s.cfg.Clock(),
	})
	if err != nil {
		return err
	}
	s.cfg.Log.Info("alert stepped", zap.String("actor", who.Name), zap.String("verb", verb.String()),
		zap.String("alert", ev.AlertID), zap.Uint32("step", ev.Step))
	return writeJSON(w, http.StatusOK, ev)
}

// claimOf is what an alert says of its entry.
func claimOf(a *alert.Alert) stream.Claim {
	return stream.Claim{List: a.List.ID, Entry: a.Entry.ID, Queue: a.Queue, Action: a.Action}
}

// wanted returns nil when the lists still say what an alert claims, else
// errWithdrawn, or errBehind when this process cannot know yet.
//
// The fence of the queue is asked first: it tells of withdrawals that were
// confirmed to an operator, and this process may be cut off from the control log
// while its queues work.
//
// An entry that is not there may be so new that this process has not heard of
// it: only at the version by which the alert was matched, or later, does missing
// mean withdrawn. Saying so too early would take a good alert from a patrol for
// ever. No process is behind for long, though, so an alert of some age whose
// entry and version are both unknown comes from a control log that is no more.
func (s *Server) wanted(ctx context.Context, c stream.Claim, matched, created int64) error {
	if s.cfg.Fence != nil {
		fence, err := s.cfg.Fence(ctx, c.Queue)
		if err != nil {
			return errBehind
		}
		if err := s.waitVersion(ctx, fence); err != nil {
			return err
		}
	}
	if s.cfg.StillWanted(c) {
		return nil
	}
	if s.cfg.Clock().Sub(time.UnixMilli(created)) < maxBehind {
		if err := s.waitVersion(ctx, matched); err != nil {
			return err
		}
		if s.cfg.StillWanted(c) {
			return nil
		}
	}
	return errWithdrawn
}

// waitVersion waits a moment until this process knows version v of the lists.
func (s *Server) waitVersion(ctx context.Context, v int64) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.limits.behind)
	defer cancel()
	if err := s.cfg.Lists.WaitVersion(ctx, v); err != nil {
		return errBehind
	}
	return nil
}

// getStream follows a queue as Server-Sent Events until the patrol goes away,
// is too slow, or the server stops.
func (s *Server) getStream(w http.ResponseWriter, r *http.Request, who *Token) error {
	q := r.URL.Query()
	queue := q.Get("queue")
	if queue == "" {
		return badParam("queue", "is required")
	}
	if !who.mayWatch(queue) {
		return errQueue
	}
	after := r.Header.Get("Last-Event-ID")
	if after == "" {
		after = q.Get("last_event_id")
	}
	if after == "" {
		// A message is numbered by the millisecond in which it was put.
		after = strconv.FormatInt(s.cfg.Clock().Add(-s.cfg.Replay).UnixMilli(), 10) + "-0"
	}
	if s.isStopping() {
		return errStopping
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.streaming, cancel)()
	sub, err := s.cfg.Feed.Subscribe(ctx, queue, after)
	if err != nil {
		return err
	}
	defer sub.Close()
	s.streams.open.Add(1)
	defer s.streams.open.Add(-1)

	err = s.follow(ctx, w, r, sub, Hello{Actor: who.Name, Queue: queue})
	switch {
	case errors.Is(err, redisqueue.ErrSlow):
		s.streams.slow.Add(1)
		s.cfg.Log.Warn("slow patrol cut", zap.String("actor", who.Name), zap.String("queue", queue))
	case errors.Is(err, errBehind):
		s.cfg.Log.Warn("stream ended: the lists of this process are behind its alerts", zap.String("queue", queue))
	}
	return nil // the answer has begun: nothing more can be told
}

// follow writes what comes from sub until ctx ends or writing fails.
func (s *Server) follow(ctx context.Context, w http.ResponseWriter, r *http.Request, sub Subscription, hello Hello) error {
	if conn, ok := r.Context().Value(connKey{}).(*net.TCPConn); ok {
		conn.SetWriteBuffer(streamBuffer) //nolint:errcheck // a smaller buffer is a wish
	}
	out := eventWriter{w: w, rc: http.NewResponseController(w), timeout: s.cfg.WriteTimeout}
	out.rc.SetReadDeadline(time.Time{}) //nolint:errcheck // else the stream ends with the server's limit, and is taken up again
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx must not hold alerts back
	w.WriteHeader(http.StatusOK)
	out.buf.WriteString(retryHint)
	out.event("hello", "", encode(hello))
	if err := out.flush(); err != nil {
		return err
	}

	var open openAlerts
	recheck := time.Now().Add(recheckEvery)
	heartbeat := time.Now().Add(s.cfg.Heartbeat)
	for {
		next := heartbeat
		if recheck.Before(next) {
			next = recheck
		}
		wait, cancel := context.WithDeadline(ctx, next)
		m, err := sub.Next(wait)
		cancel()
		switch {
		case err == nil:
			// An error here leaves m to the next connection of the patrol.
			if err := s.relay(ctx, &out, &open, m); err != nil {
				return err
			}
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, context.DeadlineExceeded):
			return err
		}
		// Messages without end must keep neither of these from their turn.
		now := time.Now()
		if !now.Before(recheck) {
			for _, id := range open.drop(s.cfg.StillWanted) {
				out.event("withdrawn", "", encode(WithdrawnAlert{ID: id, Reason: reasonWithdrawn}))
			}
			recheck = now.Add(recheckEvery)
		}
		if !now.Before(heartbeat) {
			out.buf.WriteString(":\n\n")
			heartbeat = now.Add(s.cfg.Heartbeat)
		}
		if err := out.flush(); err != nil {
			return err
		}
	}
}

// relay puts one message into the form of the stream. Whether the entry of an
// alert is still wanted is asked here, at the last moment before it leaves.
func (s *Server) relay(ctx context.Context, out *eventWriter, open *openAlerts, m redisqueue.Message) error {
	switch m.Kind {
	case redisqueue.KindUpdate:
		var u struct {
			Step    uint32
			State   alert.State
			Outcome string
			Amended *claimed
		}
		_ = json.Unmarshal(m.Data, &u) // what does not decode is an update like another
		switch {
		case u.Amended != nil:
			open.forget(m.AlertID) // as it was before
			return s.relayAlert(ctx, out, open, m, "amended", u.Amended)
		case u.State == alert.StateWithdrawn && u.Outcome == alert.OutcomeOtherPlate:
			open.forget(m.AlertID)
			out.event("withdrawn", m.ID, encode(WithdrawnAlert{ID: m.AlertID, Reason: reasonOtherPlate, Step: u.Step}))
		default:
			out.event("update", m.ID, m.Data)
		}
	case redisqueue.KindAlert:
		var a claimed
		_ = json.Unmarshal(m.Data, &a) // what does not decode has been known for ever, and is judged so
		return s.relayAlert(ctx, out, open, m, "alert", &a)
	}
	return nil // other kinds are of a later version; the page would not know them either
}

// claimed is what is asked about an alert before it leaves.
type claimed struct {
	Match   struct{ Version int64 }
	Created int64
	Action  watchlist.Action
}

// relayAlert puts a message that holds an alert into the form of the stream, as an event of
// that name or, when the entry of the alert was withdrawn, as that.
func (s *Server) relayAlert(ctx context.Context, out *eventWriter, open *openAlerts, m redisqueue.Message, name string, a *claimed) error {
	claim := stream.Claim{List: m.List, Entry: m.Entry, Queue: m.Queue, Action: a.Action}
	err := s.wanted(ctx, claim, a.Match.Version, a.Created)
	switch {
	case err == nil:
		open.add(openAlert{id: m.AlertID, claim: claim})
		out.event(name, m.ID, m.Data)
	case errors.Is(err, errWithdrawn):
		s.streams.withheld.Add(1)
		out.event("withdrawn", m.ID, encode(WithdrawnAlert{ID: m.AlertID, Reason: reasonWithdrawn}))
	default:
		return err
	}
	return nil
}

// openAlerts are the alerts handed out on one stream, oldest first, so that
// they can be taken back.
type openAlerts []openAlert

type openAlert struct {
	id    string
	claim stream.Claim
}

func (o *openAlerts) add(a openAlert) {
	if len(*o) == maxOpen {
		*o = append((*o)[:0], (*o)[1:]...)
	}
	*o = append(*o, a)
}

// forget removes an alert, if it is there.
func (o *openAlerts) forget(id string) {
	if i := slices.IndexFunc(*o, func(a openAlert) bool { return a.id == id }); i >= 0 {
		*o = slices.Delete(*o, i, i+1)
	}
}

// drop removes the alerts that are no longer wanted and returns their ids.
func (o *openAlerts) drop(wanted func(stream.Claim) bool) (ids []string) {
	*o = slices.DeleteFunc(*o, func(a openAlert) bool {
		if wanted(a.claim) {
			return false
		}
		ids = append(ids, a.id)
		return true
	})
	return ids
}

// eventWriter gathers events and sends them with a deadline of their own.
type eventWriter struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
	buf     bytes.Buffer
}

// event adds one event. data is JSON as Go writes it: one line.
func (e *eventWriter) event(name, id string, data []byte) {
	if id != "" {
		e.buf.WriteString("id: ")
		e.buf.WriteString(id)
		e.buf.WriteByte('\n')
	}
	e.buf.WriteString("event: ")
	e.buf.WriteString(name)
	e.buf.WriteString("\ndata: ")
	e.buf.Write(bytes.TrimSuffix(data, []byte("\n")))
	e.buf.WriteString("\n\n")
}

// flush sends what was gathered, if anything. A reader that did not take it in
// time is redisqueue.ErrSlow, as one that lets messages wait.
func (e *eventWriter) flush() error {
	if e.buf.Len() == 0 {
		return nil
	}
	err := e.rc.SetWriteDeadline(time.Now().Add(e.timeout))
	if err == nil {
		_, err = e.w.Write(e.buf.Bytes())
	}
	if err == nil {
		err = e.rc.Flush()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return redisqueue.ErrSlow
	}
	e.buf.Reset()
	return err
}
