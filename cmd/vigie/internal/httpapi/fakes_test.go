package httpapi

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"vigie/sensors"
	"vigie/sensors/ingest"
	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/redisqueue"
	"vigie/watchlist"
)

var update = flag.Bool("update", false, "rewrite the expected answers of testdata/script")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testNow is the time of every test, inside the validity of its entries.
var testNow = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

// secrets are the tokens of every test by name.
var secrets = map[string]string{
	"sensor":   "sensor-secret-0123456789",
	"bound":    "bound-secret-0123456789",
	"operator": "operator-secret-0123456789",
	"patrol":   "patrol-secret-0123456789",
	"other":    "other-patrol-secret-0123",
	"monitor":  "monitor-secret-0123456789",
}

func testTokens(t testing.TB) *Tokens {
	t.Helper()
	ts := new(Tokens)
	for _, tok := range []Token{
		{Name: "sensor", Role: RoleSensor},
		{Name: "bound", Role: RoleSensor, Sensor: "A7-1"},
		{Name: "operator", Role: RoleOperator},
		{Name: "patrol", Role: RolePatrol, Queues: []string{"patrol"}},
		{Name: "other", Role: RolePatrol, Queues: []string{"patrol", "discreet"}},
		{Name: "monitor", Role: RoleMonitor},
	} {
		if err := ts.Add(tok, secrets[tok.Name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := ts.AddKey(Token{Name: "signer", Role: RoleSensor, Sensor: "A7-9"}, signingKey); err != nil {
		t.Fatal(err)
	}
	return ts
}

// world is a running server with fakes behind it.
type world struct {
	*Server
	desk   *fakeDesk
	alerts *fakeAlerts
	feed   *fakeFeed
	reads  *fakeReads
	ingest *fakeIngest
	logs   *observer.ObservedLogs
	stop   func() error // ends Run and returns what it returned

	lists *fakeLists

	mu        sync.Mutex
	unwanted  map[string]bool // entries withdrawn, or not heard of yet
	unhealthy bool
}

// fakeLists is how far the process is with the lists.
type fakeLists struct {
	mu       sync.Mutex
	catching bool
	version  int64
	moved    chan struct{}
}

func (l *fakeLists) CaughtUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.catching
}

func (l *fakeLists) set(version int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.version = version
	close(l.moved)
	l.moved = make(chan struct{})
}

func (l *fakeLists) WaitVersion(ctx context.Context, v int64) error {
	for {
		l.mu.Lock()
		version, moved := l.version, l.moved
		l.mu.Unlock()
		if version >= v {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *world) isWanted(c stream.Claim) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.unwanted[c.Entry]
}

func (w *world) withdraw(entry string) { w.set(entry, false) }

func (w *world) set(entry string, wanted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unwanted[entry] = !wanted
}

func newWorld(t testing.TB, change ...func(*Config)) *world {
	t.Helper()
	w := &world{
		desk: newFakeDesk(), alerts: newFakeAlerts(), feed: &fakeFeed{}, reads: &fakeReads{}, ingest: &fakeIngest{},
		unwanted: map[string]bool{}, lists: &fakeLists{version: 1000, moved: make(chan struct{})},
	}
	core, logs := observer.New(zapcore.DebugLevel)
	w.logs = logs
	gateway, err := sensors.New(sensors.Config{Publisher: w.reads, Clock: func() time.Time { return testNow }})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Addr: "127.0.0.1:0", Tokens: testTokens(t), Log: zap.New(core), Clock: func() time.Time { return testNow },
		Gateway: gateway, Ingest: w.ingest, Formats: []string{"dahua", "hikvision", "platerecognizer"}, Desk: w.desk, Registry: new(fakeRegistry), SensorHealth: gateway, Alerts: w.alerts, Feed: w.feed, StillWanted: w.isWanted, Lists: w.lists,
		Health: func(context.Context) Health {
			w.mu.Lock()
			defer w.mu.Unlock()
			return Health{Ready: !w.unhealthy, Checks: []Check{
				{Name: "kafka", OK: true, Detail: "3 brokers"},
				{Name: "control log", OK: !w.unhealthy, Detail: "12 records behind"},
			}}
		},
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "vigie_up 1\n") }),
		Console: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "console\n") }),
	}
	for _, f := range change {
		f(&cfg)
	}
	if w.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	w.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

// client shares no connection with another test and leaves none behind.
func client(t testing.TB) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

// do sends a request and returns the status and body of the answer.
func (w *world) do(t testing.TB, who, method, path, contentType, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, w.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if secret := secrets[who]; secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// fakeReads is a Publisher.
type fakeReads struct {
	mu    sync.Mutex
	reads []sensors.Read
	err   error
}

func (f *fakeReads) Publish(_ context.Context, reads []sensors.Read) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.reads = append(f.reads, reads...)
	}
	return f.err
}

// fakeIngest takes messages; the first word of one says what becomes of it, and one with another is
// accepted.
type fakeIngest struct {
	mu  sync.Mutex
	got []ingest.Message
}

func (f *fakeIngest) Ingest(_ context.Context, in ingest.Message) (res ingest.Result, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in.Body = slices.Clone(in.Body)
	f.got = append(f.got, in)
	word, _, _ := strings.Cut(string(in.Body), " ")
	switch word {
	case "alive":
		res.Heartbeat = true
	case "again":
		res.Suppressed = 2
	case "stranger":
		res.Quarantined = 1
	case "some", "none":
		res.Rejected = []sensors.Rejection{{Index: 1, Field: "ts", Reason: "is required, in milliseconds since 1970"}}
		if word == "some" {
			res.Accepted = 1
		}
	case "riddle":
		err = ingest.ErrFormat
	case "broken":
		err = fmt.Errorf("ingest: %w: %w", ingest.ErrMessage, errors.New("hikvision: byte 17: is not XML"))
	case "away":
		err = errors.New("kafka: connection refused")
	default:
		res.Accepted = 1
	}
	return res, err
}

// fakeDesk keeps lists in memory. Names make it fail: a list "away" cannot be
// reached, one "unconfirmed" is not confirmed, one "full" takes nothing more, one
// "partial" holds patterns, one "changed" changes meanwhile, one "panics" breaks
// the handler.
type fakeDesk struct {
	mu      sync.Mutex
	version int64
	lists   map[string]*watchlist.List
	entries map[string][]*watchlist.Entry
	actor   string // of the last change
	reason  string
}

func newFakeDesk() *fakeDesk {
	return &fakeDesk{version: 100, lists: map[string]*watchlist.List{}, entries: map[string][]*watchlist.Entry{}}
}

func (d *fakeDesk) fail(list string) error {
	switch list {
	case "away":
		return errors.New("stream: write the control log: dial tcp 10.0.0.7:9092: refused")
	case "unconfirmed":
		return stream.ErrNotConfirmed
	case "full":
		return &stream.FullError{Tolerance: watchlist.TolerancePattern, Entries: 1001, Max: 1000}
	case "partial":
		return stream.ErrPatterns
	case "changed":
		return stream.ErrChanged
	case "panics":
		panic("AB123CD")
	}
	return nil
}

func (d *fakeDesk) Lists() (ls []*watchlist.List) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lists {
		ls = append(ls, l)
	}
	slices.SortFunc(ls, func(a, b *watchlist.List) int { return strings.Compare(a.ID, b.ID) })
	return ls
}

func (d *fakeDesk) List(id string) (*watchlist.List, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, ok := d.lists[id]
	return l, ok
}

func (d *fakeDesk) Count(list string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.entries[list])
}

func (d *fakeDesk) PutList(_ context.Context, actor string, l watchlist.List) (*watchlist.List, error) {
	if err := d.fail(l.ID); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l.Salt = []byte("0123456789abcdef")
	if fields := l.Validate(); fields != nil {
		return nil, &stream.InvalidError{Fields: fields}
	}
	d.version++
	l.Version, d.actor = d.version, actor
	d.lists[l.ID] = &l
	return &l, nil
}

func (d *fakeDesk) DropList(_ context.Context, actor, id, reason string) (int64, error) {
	if err := d.fail(id); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lists[id] == nil {
		return 0, stream.ErrNoList
	}
	delete(d.lists, id)
	delete(d.entries, id)
	d.version++
	d.actor, d.reason = actor, reason
	return d.version, nil
}

func (d *fakeDesk) Entries(list, after string, limit int) (es []*watchlist.Entry, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lists[list] == nil {
		return nil, stream.ErrNoList
	}
	for _, e := range d.entries[list] {
		if e.ID > after && len(es) < limit {
			es = append(es, e)
		}
	}
	return es, nil
}

func (d *fakeDesk) Entry(list, id string) (*watchlist.Entry, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.entries[list] {
		if e.ID == id {
			return e, true
		}
	}
	return nil, false
}

func (d *fakeDesk) AddEntry(_ context.Context, actor, list string, in watchlist.EntryInput) (*watchlist.Entry, error) {
	if err := d.fail(list); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lists[list]
	if l == nil {
		return nil, stream.ErrNoList
	}
	e, fields := watchlist.NewEntry(l, in, testNow)
	if fields != nil {
		return nil, &stream.InvalidError{Fields: fields}
	}
	d.version++
	e.Version, d.actor = d.version, actor
	d.entries[list] = append(d.entries[list], e)
	slices.SortFunc(d.entries[list], func(a, b *watchlist.Entry) int { return strings.Compare(a.ID, b.ID) })
	return e, nil
}

func (d *fakeDesk) WithdrawEntry(_ context.Context, actor, list, id, reason string) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if strings.TrimSpace(reason) == "" {
		return 0, &stream.InvalidError{Fields: []watchlist.FieldError{{Field: "reason", Reason: "is required: say why the entry is withdrawn"}}}
	}
	if d.lists[list] == nil {
		return 0, stream.ErrNoList
	}
	n := len(d.entries[list])
	d.entries[list] = slices.DeleteFunc(d.entries[list], func(e *watchlist.Entry) bool { return e.ID == id })
	if len(d.entries[list]) == n {
		return 0, stream.ErrNoEntry
	}
	d.version++
	d.actor, d.reason = actor, reason
	return d.version, nil
}

func (d *fakeDesk) ImportFile(_ context.Context, actor, list string, file io.Reader, opt stream.ImportOptions) (stream.ImportReport, error) {
	if err := d.fail(list); err != nil {
		return stream.ImportReport{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lists[list]
	if l == nil {
		return stream.ImportReport{}, stream.ErrNoList
	}
	im, err := watchlist.ParseEntries(file, l, testNow, watchlist.ImportOptions{Format: opt.Format, Defaults: opt.Defaults, Zone: time.UTC})
	var wrong *watchlist.DefaultsError
	switch {
	case errors.As(err, &wrong):
		return stream.ImportReport{}, &stream.InvalidError{Fields: wrong.Fields}
	case err != nil:
		return stream.ImportReport{}, err
	}
	rep := stream.ImportReport{Format: im.Format.String(), Rows: im.Rows, Rejected: im.Rejected, Errors: im.Errors, Omitted: im.Omitted, Added: len(im.Entries), Version: d.version}
	if !opt.DryRun && (rep.Rejected == 0 || opt.Partial) {
		d.entries[list] = append(d.entries[list], im.Entries...)
		rep.Applied, d.actor = true, actor
	}
	return rep, nil
}

func (d *fakeDesk) Explain(q stream.ExplainQuery) stream.Explanation {
	return stream.Explanation{Normalised: strings.ToUpper(q.Plate), Version: 100, Hits: []stream.Explained{
		{List: "stolen", Entry: "e1", Plate: strings.ToUpper(q.Plate), Queue: "patrol", Action: "intercept", Priority: "high",
			Kind: "exact", Country: "same", Grade: "high", Score: 0.97, Because: "the texts and the countries are equal"},
	}}
}

// fakeAlerts keeps alerts in memory.
type fakeAlerts struct {
	mu     sync.Mutex
	alerts map[string]*alert.Alert
	state  map[string]*alert.Standing
	err    error
}

func newFakeAlerts() *fakeAlerts {
	return &fakeAlerts{alerts: map[string]*alert.Alert{}, state: map[string]*alert.Standing{}}
}

func (f *fakeAlerts) put(a *alert.Alert) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alerts[a.ID], f.state[a.ID] = a, &alert.Standing{Step: 1}
}

func (f *fakeAlerts) get(id string, queues []string) (*alert.Alert, *alert.Standing, error) {
	a := f.alerts[id]
	switch {
	case f.err != nil:
		return nil, nil, f.err
	case a == nil || !slices.Contains(queues, a.Queue):
		return nil, nil, redisqueue.ErrUnknownAlert
	}
	return a, f.state[id], nil
}

func (f *fakeAlerts) Get(_ context.Context, id string, queues []string) (*alert.Alert, alert.Standing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, st, err := f.get(id, queues)
	if err != nil {
		return nil, alert.Standing{}, err
	}
	return a, *st, nil
}

func (f *fakeAlerts) Step(_ context.Context, req redisqueue.StepRequest) (*alert.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := alert.CheckOutcome(req.Verb, req.Outcome); err != nil {
		return nil, err
	}
	a, st, err := f.get(req.AlertID, req.Queues)
	if err != nil {
		return nil, err
	}
	next, ok := alert.Next(st.State, req.Verb)
	if !ok || (req.Verb.ByOwner() && st.Owner != req.Actor) {
		return nil, &redisqueue.ConflictError{AlertID: a.ID, Verb: req.Verb, State: st.State, Owner: st.Owner}
	}
	if req.Verb == alert.VerbTake {
		st.Owner = req.Actor
	}
	st.Step++
	st.State = next
	ev := &alert.Event{AlertID: a.ID, Step: st.Step, State: next, Queue: a.Queue, At: req.At.UnixMilli(), Actor: req.Actor, Outcome: req.Outcome, Note: req.Note}
	st.Events = append(st.Events, ev)
	return ev, nil
}

// fakeFeed hands every subscriber the messages that were put.
type fakeFeed struct {
	mu    sync.Mutex
	subs  []*fakeSub
	after []string // of each Subscribe
	past  []redisqueue.Message
	err   error
}

type fakeSub struct {
	messages chan redisqueue.Message
	closed   chan struct{}
	close    func()
}

func (f *fakeFeed) Subscribe(_ context.Context, _, after string) (Subscription, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after = append(f.after, after)
	if f.err != nil {
		return nil, f.err
	}
	s := &fakeSub{messages: make(chan redisqueue.Message, 1000), closed: make(chan struct{})}
	s.close = sync.OnceFunc(func() { close(s.closed) })
	for _, m := range f.past {
		if m.ID > after {
			s.messages <- m
		}
	}
	f.subs = append(f.subs, s)
	return s, nil
}

func (f *fakeFeed) put(m redisqueue.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.past = append(f.past, m)
	for _, s := range f.subs {
		select {
		case s.messages <- m:
		case <-s.closed:
		}
	}
}

// closed waits until subscription i was closed.
func (f *fakeFeed) closed(t *testing.T, i int) {
	t.Helper()
	f.mu.Lock()
	s := f.subs[i]
	f.mu.Unlock()
	select {
	case <-s.closed:
	case <-time.After(10 * time.Second):
		t.Fatal("the subscription was never closed")
	}
}

func (s *fakeSub) Next(ctx context.Context) (redisqueue.Message, error) {
	select {
	case m := <-s.messages:
		return m, nil
	case <-ctx.Done():
		return redisqueue.Message{}, ctx.Err()
	case <-s.closed:
		return redisqueue.Message{}, redisqueue.ErrClosed
	}
}

func (s *fakeSub) Close() { s.close() }

// testAlert is an alert of entry e1 on the list stolen.
func testAlert(id, queue string) *alert.Alert {
	return &alert.Alert{
		ID: id, Queue: queue, Action: watchlist.ActionIntercept, Stop: true, Priority: watchlist.PriorityHigh,
		List:    alert.ListRef{ID: "stolen", Name: "Véhicules volés", Owner: "DNPJ"},
		Entry:   alert.EntryRef{ID: "e1", Version: 7, Plate: "AB-123-CD", Reason: "vol", CaseRef: "2026/17"},
		Match:   alert.Evidence{Kind: "exact", Country: "same", Grade: "high", Score: 0.97, Syntax: "valid", Read: "AB123CD", Entry: "AB123CD", Version: 9},
		Read:    sensors.Read{ID: "r1", Sensor: "A7-1", Plate: "AB123CD", Country: "FR", TS: testNow.UnixMilli(), Conf: 0.95},
		Created: testNow.UnixMilli(),
	}
}

func alertMessage(id string, a *alert.Alert) redisqueue.Message {
	return redisqueue.Message{ID: id, Kind: redisqueue.KindAlert, AlertID: a.ID, List: a.List.ID, Entry: a.Entry.ID, Queue: a.Queue, Data: encode(a)}
}

func updateMessage(id string, ev *alert.Event) redisqueue.Message {
	return redisqueue.Message{ID: id, Kind: redisqueue.KindUpdate, AlertID: ev.AlertID, List: "stolen", Entry: "e1", Queue: ev.Queue, Data: encode(ev)}
}
