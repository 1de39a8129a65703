package redisqueue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// Message is one message of a queue.
type Message struct {
	ID      string // of the Redis stream; the id of the server-sent event
	Kind    string // KindAlert or KindUpdate
	AlertID string
	List    string // id of the list that the alert comes from
	Entry   string // id of the entry
	Queue   string
	Data    []byte // JSON as stored, shared with other subscribers: not to be changed

	at streamID // ID
}

// String names the message without its data, which holds plates.
func (m Message) String() string { return fmt.Sprintf("%s %s of alert %s", m.Kind, m.ID, m.AlertID) }

// GoString is String, so that %#v gives no more away.
func (m Message) GoString() string { return m.String() }

// message reads an entry of a stream.
func message(queue string, m *redis.XMessage) Message {
	text := func(field string) string { s, _ := m.Values[field].(string); return s }
	at, _ := parseID(m.ID) // Redis made it
	return Message{
		ID: m.ID, Kind: text("kind"), AlertID: text("id"), List: text("list"), Entry: text("entry"),
		Queue: queue, Data: []byte(text("data")), at: at,
	}
}

// Errors of subscriptions.
var (
	// ErrSlow ends a subscription whose subscriber let HubConfig.Buffer messages
	// wait. It may subscribe again after the last message it got.
	ErrSlow = errors.New("redisqueue: the subscriber is too slow")
	// ErrClosed ends a subscription that was closed, or whose Hub ended.
	ErrClosed = errors.New("redisqueue: the subscription is closed")
	// ErrBadID refuses to subscribe after something that is not the id of a message.
	ErrBadID = errors.New("redisqueue: not the id of a message; want digits, a hyphen and digits, or 0")
)

// HubConfig says how a Hub treats its subscribers.
type HubConfig struct {
	// Buffer is how many new messages may wait for one subscriber. Default 128.
	Buffer int
}

const (
	// block is how long Redis is asked to wait for a message, and so how long a
	// reader outlives its last subscriber.
	block = time.Second
	// page is how many messages are asked for at once. A reader that gets a whole
	// page has a backlog in front of it; see reader.handOut.
	page = 128
	// replays is how many subscribers read the past at the same time; more wait for
	// their turn, so that a thousand patrols coming back at once do not bring
	// Redis, and with it new alerts, to a halt.
	replays = 16
	// maxReaders bounds the connections of a Hub, each made when needed.
	maxReaders = 1000
)

// Hub hands the messages of queues to any number of subscribers. It has connections of
// its own, since a blocked read holds one, and reads each queue once: from the first
// subscriber until the last is gone.
//
// While Redis is away subscriptions stay open, and go on after the last message when it is
// back.
type Hub struct {
	q    *Queues
	cfg  HubConfig
	rdb  redis.UniversalClient
	turn chan struct{} // holds a token for each replay under way

	ctx  context.Context // ends with the Hub
	stop context.CancelFunc
	wg   sync.WaitGroup // of readers

	mu      sync.Mutex // guards the rest; held before reader.mu
	closed  bool
	readers map[string]*reader
	open    map[*Subscription]struct{}

	delivered, slow, failures atomic.Int64
}

// NewHub returns a Hub over the queues of q. Its Run must be called: it ends the
// connections and goroutines that subscriptions start.
func NewHub(q *Queues, cfg HubConfig) *Hub {
	if cfg.Buffer <= 0 {
		cfg.Buffer = 128
	}
	h := &Hub{
		q: q, cfg: cfg, rdb: q.cfg.client(maxReaders+replays, nil), turn: make(chan struct{}, replays),
		readers: make(map[string]*reader), open: make(map[*Subscription]struct{}),
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	return h
}

// Run keeps the Hub until ctx ends, then ends every subscription with ErrClosed and
// returns once no goroutine of the Hub is left. It closes the connections to do so, for
// nothing else interrupts a blocked read.
func (h *Hub) Run(ctx context.Context) error {
	<-ctx.Done()
	h.mu.Lock()
	h.closed = true
	for s := range h.open {
		s.end(ErrClosed)
	}
	clear(h.open)
	h.mu.Unlock()
	h.stop()
	err := h.rdb.Close()
	h.wg.Wait()
	if err != nil {
		return fmt.Errorf("redisqueue: close the hub: %w", err)
	}
	return nil
}

// HubStats is what a Hub does and has done.
type HubStats struct {
	Subscribers int   // now
	Readers     int   // queues being read now
	Delivered   int64 // messages returned by Next
	Slow        int64 // subscriptions ended with ErrSlow
	Failures    int64 // reads that Redis did not answer
}

// Stats returns the counters. It may be called at any time.
func (h *Hub) Stats() HubStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return HubStats{
		Subscribers: len(h.open), Readers: len(h.readers),
		Delivered: h.delivered.Load(), Slow: h.slow.Load(), Failures: h.failures.Load(),
	}
}

// Subscribe gives the messages of a queue, each once and in order: with after empty those
// put from now on, with "0" all that are kept, with the id of a message all later ones.
// An id which the stream has not reached, left over from a Redis whose clock ran ahead or
// which lost its last messages, stands for the end of the stream.
//
// It returns ErrBadID, ErrClosed, or the error of a Redis that is away.
func (h *Hub) Subscribe(ctx context.Context, queue, after string) (*Subscription, error) {
	from, err := parseID(after)
	if err != nil {
		return nil, err
	}
	if after == "" {
		from = streamID{math.MaxUint64, math.MaxUint64}
	}
	h.mu.Lock()
	closed := h.closed
	h.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	if from, err = h.notPast(ctx, queue, from); err != nil {
		return nil, fmt.Errorf("redisqueue: subscribe to queue %s: %w", queue, h.failed(err))
	}
	s := &Subscription{hub: h, queue: queue, wake: make(chan struct{}, 1), cursor: from, mode: replaying}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	h.open[s] = struct{}{}
	return s, nil
}

// notPast returns id, or the end of the stream when id is past it.
func (h *Hub) notPast(ctx context.Context, queue string, id streamID) (streamID, error) {
	if id == (streamID{}) {
		return id, nil
	}
	end, err := h.end(ctx, queue)
	if err != nil {
		return id, err
	}
	return id.min(end), nil
}

// end returns the id of the last message of a queue, or the zero id.
func (h *Hub) end(ctx context.Context, queue string) (id streamID, err error) {
	last, err := h.rdb.XRevRangeN(ctx, h.q.keys.alerts(queue), "+", "-", 1).Result()
	if err != nil {
		return id, err
	}
	if len(last) > 0 {
		id, _ = parseID(last[0].ID) // Redis made it
	}
	return id, nil
}

func (h *Hub) failed(err error) error {
	h.failures.Add(1)
	return err
}

// join puts s among the subscribers of its queue, to get what comes after id. It reports
// false, and does nothing, when the reader of the queue has passed id: s must then read on
// from the stream.
func (h *Hub) join(s *Subscription, id streamID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, open := h.open[s]; !open {
		return true // it has ended, and s.err says so
	}
	r := h.readers[s.queue]
	if r == nil {
		r = &reader{hub: h, queue: s.queue, last: id, subs: make(map[*Subscription]streamID)}
		h.readers[s.queue] = r
		h.wg.Go(r.run)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if id.less(r.last) {
		return false
	}
	r.subs[s] = id
	return true
}

// leave forgets s.
func (h *Hub) leave(s *Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, s)
	if r := h.readers[s.queue]; r != nil {
		r.mu.Lock()
		delete(r.subs, s)
		r.mu.Unlock()
	}
}

// reader reads one queue for all its subscribers.
type reader struct {
	hub   *Hub
	queue string

	mu   sync.Mutex
	last streamID                   // everything up to here was handed out
	subs map[*Subscription]streamID // with the message after which each one joined
}

// run reads until the last subscriber is gone or the Hub ends.
func (r *reader) run() {
	log := r.hub.q.cfg.Log.With(zap.String("queue", r.queue))
	var pause time.Duration // after an error, longer each time
	for !r.done() {
		var err error
		if pause > 0 {
			err = r.resume()
		}
		if err == nil {
			var messages []redis.XMessage
			if messages, err = r.read(); err == nil {
				if pause > 0 {
					log.Info("the alert queue can be read again")
					pause = 0
				}
				r.handOut(messages)
				continue
			}
		}
		if r.hub.ctx.Err() != nil {
			continue // the error is ours: done says so
		}
		if pause == 0 {
			log.Warn("the alert queue cannot be read, trying again", zap.Error(err))
		}
		_ = r.hub.failed(err)
		pause = min(max(2*pause, 50*time.Millisecond), time.Second)
		sleep(r.hub.ctx, pause/2+jitter(pause/2))
	}
}

// done reports whether nobody needs the reader, which then is no longer the reader of
// its queue.
func (r *reader) done() bool {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.subs) > 0 && !r.hub.closed {
		return false
	}
	delete(r.hub.readers, r.queue)
	return true
}

// read waits for messages after the last.
func (r *reader) read() ([]redis.XMessage, error) {
	r.mu.Lock()
	last := r.last
	r.mu.Unlock()
	// Redis answers in time or is away; go-redis alone would give it 10 s more.
	ctx, cancel := context.WithTimeout(r.hub.ctx, block+ioTimeout)
	defer cancel()
	streams, err := r.hub.rdb.XRead(ctx, &redis.XReadArgs{
		Streams: []string{r.hub.q.keys.alerts(r.queue), last.String()}, Count: page, Block: block,
	}).Result()
	if errors.Is(err, redis.Nil) || (err == nil && len(streams) == 0) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return streams[0].Messages, nil
}

// handOut gives messages to the subscribers.
//
// A whole page means that there is a backlog, as after an outage. Handed out as fast as it
// can be read it would run over the buffers of subscribers who are not slow at all; so
// they are sent away to read it from the stream, each at its own pace, and come back.
func (r *reader) handOut(messages []redis.XMessage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	backlog := len(messages) == page
	for i := range messages {
		m := message(r.queue, &messages[i])
		r.last = m.at
		if backlog {
			continue
		}
		for s, from := range r.subs {
			if from.less(m.at) && !s.push(m) {
				delete(r.subs, s)
				r.hub.slow.Add(1)
			}
		}
	}
	if backlog {
		for s := range r.subs {
			s.fallBack()
		}
		clear(r.subs)
	}
}

// resume goes back to the end of the stream where that is before the last message: a
// failover may have lost it, and the next messages may get lower ids.
func (r *reader) resume() error {
	end, err := r.hub.end(r.hub.ctx, r.queue)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = r.last.min(end)
	for s, from := range r.subs {
		r.subs[s] = from.min(end)
	}
	return nil
}

// mode is where a Subscription takes its messages from.
type mode uint8

const (
	replaying mode = iota // from the stream, until there are no more
	live                  // from the reader
	fallen                // from what the reader left in the buffer; then replaying
)

// Subscription is one subscriber's view of a queue.
type Subscription struct {
	hub   *Hub
	queue string
	wake  chan struct{} // told when mu guards something new

	// Owned by the goroutine that calls Next.
	cursor streamID  // everything up to here was returned or is in past
	past   []Message // of the stream, to be returned first
	doubt  bool      // the stream may since have lost its end, and cursor be past it

	mu   sync.Mutex
	mode mode
	buf  []Message // handed out by the reader
	err  error     // why it has ended
}

// Next returns the next message. It waits for one until ctx ends, and then returns the
// error of ctx; the subscription stays open. It returns ErrSlow or ErrClosed when the
// subscription has ended, which Close must still be told of. One goroutine at a time may
// call it.
//
// The first call joins the queue: messages wait in the buffer from then on, and in Redis
// until then.
func (s *Subscription) Next(ctx context.Context) (Message, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Message{}, err
		}
		m, ok, err := s.take()
		if ok || err != nil {
			return m, err
		}
		s.mu.Lock()
		replay := s.mode == replaying
		s.mu.Unlock()
		if replay {
			s.replay(ctx)
			continue
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
	}
}

// take returns what is at hand.
func (s *Subscription) take() (m Message, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		s.past, s.buf = nil, nil
		return m, false, s.err
	case len(s.past) > 0:
		m, s.past = s.past[0], s.past[1:]
	case len(s.buf) > 0:
		m, s.buf = s.buf[0], s.buf[1:]
		s.cursor = m.at
	default:
		if s.mode == fallen {
			s.mode, s.doubt = replaying, true
		}
		return m, false, nil
	}
	s.hub.delivered.Add(1)
	return m, true, nil
}

// replay reads the next page of the stream, and joins the reader when that was the last.
// It returns early when ctx or the subscription ends, and after a pause when Redis is away.
func (s *Subscription) replay(ctx context.Context) {
	select {
	case s.hub.turn <- struct{}{}:
		defer func() { <-s.hub.turn }()
	case <-s.wake:
		return
	case <-ctx.Done():
		return
	}
	messages, err := s.read(ctx)
	if err != nil {
		_ = s.hub.failed(err)
		s.doubt = true
		select {
		case <-s.wake: // ended
		case <-ctx.Done():
		case <-time.After(100*time.Millisecond + jitter(400*time.Millisecond)):
		}
		return
	}
	for i := range messages {
		m := message(s.queue, &messages[i])
		s.past, s.cursor = append(s.past, m), m.at
	}
	if len(messages) == page {
		return // there is more
	}
	s.setMode(live) // before the reader can change it
	if !s.hub.join(s, s.cursor) {
		s.setMode(replaying)
	}
}

// read reads the stream from the cursor on.
func (s *Subscription) read(ctx context.Context) ([]redis.XMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	if s.doubt {
		end, err := s.hub.notPast(ctx, s.queue, s.cursor)
		if err != nil {
			return nil, err
		}
		s.cursor, s.doubt = end, false
	}
	return s.hub.rdb.XRangeN(ctx, s.hub.q.keys.alerts(s.queue), "("+s.cursor.String(), "+", page).Result()
}

func (s *Subscription) setMode(m mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = m
}

// push gives s a message. It reports false when s has ended, or ends it for being slow.
func (s *Subscription) push(m Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && len(s.buf) >= s.hub.cfg.Buffer {
		s.err = ErrSlow
	}
	if s.err == nil {
		s.buf = append(s.buf, m)
	}
	s.signal()
	return s.err == nil
}

// fallBack sends s back to the stream for what comes after the last message it was given.
func (s *Subscription) fallBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = fallen
	s.signal()
}

// end ends s with an error, unless it has ended before.
func (s *Subscription) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.signal()
}

// signal wakes Next. s.mu is held.
func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close ends the subscription: a Next that waits returns ErrClosed. It may be called from
// any goroutine and more than once.
func (s *Subscription) Close() {
	s.end(ErrClosed)
	s.hub.leave(s)
}

// jitter is a random part of d, so that all do not come back at the same moment.
func jitter(d time.Duration) time.Duration { return rand.N(d) }

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// streamID is the id of a message, in the order of the stream.
type streamID struct{ ms, seq uint64 }

func (a streamID) less(b streamID) bool { return a.ms < b.ms || (a.ms == b.ms && a.seq < b.seq) }

func (a streamID) min(b streamID) streamID {
	if b.less(a) {
		return b
	}
	return a
}

func (a streamID) String() string {
	return strconv.FormatUint(a.ms, 10) + "-" + strconv.FormatUint(a.seq, 10)
}

// parseID reads an id as Redis writes it, or "0" or nothing for the one before all others.
func parseID(s string) (id streamID, err error) {
	if s == "" || s == "0" {
		return id, nil
	}
	ms, seq, _ := strings.Cut(s, "-")
	if id.ms, err = strconv.ParseUint(ms, 10, 64); err == nil {
		id.seq, err = strconv.ParseUint(seq, 10, 64)
	}
	if err != nil || id.String() != s { // Redis writes no sign and no leading zero
		return streamID{}, ErrBadID
	}
	return id, nil
}
