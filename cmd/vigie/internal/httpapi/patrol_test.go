package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/redisqueue"
)

// sse is one open stream, read event by event.
type sse struct {
	t    *testing.T
	res  *http.Response
	r    *bufio.Reader
	stop func()
}

type event struct{ id, name, data string }

// open connects to the stream of queue patrol and reads the greeting.
func (w *world) open(t *testing.T, query string, header ...string) *sse {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	req, err := http.NewRequestWithContext(ctx, "GET", w.URL()+"/v1/alerts/stream?queue=patrol"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+secrets["patrol"])
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	tr := &http.Transport{}
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	s := &sse{t: t, res: res, r: bufio.NewReader(res.Body)}
	s.stop = func() { cancel(); res.Body.Close(); tr.CloseIdleConnections() }
	t.Cleanup(s.stop)
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		b, _ := io.ReadAll(res.Body)
		t.Fatalf("got %d %s: %s", res.StatusCode, res.Header.Get("Content-Type"), b)
	}
	if block := s.block(); block != "retry: 2000" {
		t.Fatalf("the stream begins with %q", block)
	}
	if e := s.next(); e.name != "hello" || e.data != `{"actor":"patrol","queue":"patrol"}` {
		t.Fatalf("greeted with %+v", e)
	}
	return s
}

// block reads up to the next blank line.
func (s *sse) block() string {
	s.t.Helper()
	var lines []string
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			s.t.Fatalf("the stream ended: %v", err)
		}
		if line == "\n" {
			return strings.Join(lines, "\n")
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
}

// next is the next event, heartbeats left out.
func (s *sse) next() (e event) {
	s.t.Helper()
	block := s.block()
	for block == ":" {
		block = s.block()
	}
	for _, line := range strings.Split(block, "\n") {
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			e.data = value
		default:
			s.t.Fatalf("an unknown line: %q", line)
		}
	}
	return e
}

// ended checks that the server ends the stream.
func (s *sse) ended() {
	s.t.Helper()
	if _, err := io.Copy(io.Discard, s.r); err != nil {
		s.t.Fatalf("the stream did not end cleanly: %v", err)
	}
}

func TestStream(t *testing.T) {
	w := newWorld(t)
	w.feed.put(alertMessage("100-0", testAlert("a1", "patrol")))
	s := w.open(t, "&last_event_id=0")
	if e := s.next(); e.id != "100-0" || e.name != "alert" || !strings.Contains(e.data, `"id":"a1"`) {
		t.Errorf("replayed: %+v", e)
	}
	w.feed.put(updateMessage("101-0", &alert.Event{AlertID: "a1", Step: 2, State: alert.StateTaken, Queue: "patrol", At: 1, Actor: "bri-7"}))
	want := event{"101-0", "update", `{"alert":"a1","step":2,"state":"taken","queue":"patrol","at":1,"actor":"bri-7"}`}
	if e := s.next(); e != want {
		t.Errorf("got  %+v\nwant %+v", e, want)
	}
	w.feed.put(redisqueue.Message{ID: "102-0", Kind: "later", Data: []byte("{}")})
	w.feed.put(alertMessage("103-0", testAlert("a2", "patrol")))
	if e := s.next(); e.id != "103-0" {
		t.Errorf("after a kind of a later version: %+v", e)
	}
	if n := w.Stats().Streams; n != 1 {
		t.Errorf("%d streams are counted, want 1", n)
	}
	s.stop()
	w.feed.closed(t, 0)
}

// TestStreamOfRevisions: what later reads of a passage change is told by events of its own, and
// what comes back is asked about like a new alert.
func TestStreamOfRevisions(t *testing.T) {
	w := newWorld(t)
	s := w.open(t, "")
	tell := func(id string, step uint32, state alert.State, outcome string, amended *alert.Alert) event {
		t.Helper()
		w.feed.put(updateMessage(id, &alert.Event{
			AlertID: "a1", Step: step, State: state, Queue: "patrol", At: 1, Outcome: outcome, Revision: step - 1, Amended: amended,
		}))
		return s.next()
	}
	w.feed.put(alertMessage("100-0", testAlert("a1", "patrol")))
	if e := s.next(); e.name != "alert" {
		t.Fatalf("got %+v", e)
	}
	want := event{"101-0", "withdrawn", `{"id":"a1","reason":"the camera now reads another plate","step":2}`}
	if e := tell("101-0", 2, alert.StateWithdrawn, alert.OutcomeOtherPlate, nil); e != want {
		t.Errorf("got  %+v\nwant %+v", e, want)
	}
	again := testAlert("a1", "patrol")
	again.Read.Conf = 0.5
	if e := tell("102-0", 3, alert.StateNew, alert.OutcomeReadAgain, again); e.name != "amended" || e.id != "102-0" ||
		!strings.Contains(e.data, `"outcome":"read_again"`) || !strings.Contains(e.data, `"conf":0.5`) {
		t.Errorf("got %+v", e)
	}
	if e := tell("103-0", 4, alert.StateTaken, alert.OutcomeOtherPlate, nil); e.name != "update" || !strings.Contains(e.data, `"outcome":"other_plate"`) {
		t.Errorf("got %+v", e)
	}
	w.withdraw("e1")
	want = event{"", "withdrawn", `{"id":"a1","reason":"entry withdrawn"}`} // once, though it was handed out twice
	if e := s.next(); e != want {
		t.Errorf("got  %+v\nwant %+v", e, want)
	}
	want.id = "104-0"
	if e := tell("104-0", 5, alert.StateNew, alert.OutcomeReadAgain, again); e != want {
		t.Errorf("of an entry that was withdrawn: %+v, want %+v", e, want)
	}
}

// TestStreamBegins checks where a stream begins: where the client says, else a
// shift ago.
func TestStreamBegins(t *testing.T) {
	w := newWorld(t)
	shift := fmt.Sprintf("%d-0", testNow.Add(-12*time.Hour).UnixMilli())
	for _, tc := range []struct{ name, query, header, want string }{
		{"nothing said", "", "", shift},
		{"header", "", "17-3", "17-3"},
		{"parameter", "&last_event_id=18-0", "", "18-0"},
		{"both", "&last_event_id=18-0", "19-1", "19-1"},
		{"all", "&last_event_id=0", "", "0"},
	} {
		var header []string
		if tc.header != "" {
			header = []string{"Last-Event-ID", tc.header}
		}
		w.open(t, tc.query, header...).stop()
		w.feed.mu.Lock()
		got := w.feed.after[len(w.feed.after)-1]
		w.feed.mu.Unlock()
		if got != tc.want {
			t.Errorf("%s: begins after %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestReconnectMissesNothing cuts the stream again and again while alerts come.
func TestReconnectMissesNothing(t *testing.T) {
	w := newWorld(t)
	const n = 60
	seen := map[string]int{}
	last := "0"
	for i := 0; i < n; {
		s := w.open(t, "", "Last-Event-ID", last)
		for k := 0; k < 7 && i < n; k++ {
			w.feed.put(alertMessage(fmt.Sprintf("%03d-0", 100+i), testAlert(fmt.Sprint("a", i), "patrol")))
			i++
		}
		for range 4 { // not all of what came
			e := s.next()
			last = e.id
			seen[e.id]++
		}
		s.stop()
	}
	s := w.open(t, "", "Last-Event-ID", last)
	for len(seen) < n {
		seen[s.next().id]++
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("%s came %d times", id, times)
		}
	}
}

func TestWithdrawnIsNeverDelivered(t *testing.T) {
	w := newWorld(t)
	s := w.open(t, "")
	w.feed.put(alertMessage("100-0", testAlert("a1", "patrol")))
	if e := s.next(); e.name != "alert" {
		t.Fatalf("got %+v", e)
	}
	w.withdraw("e1")

	// What was handed out is taken back.
	want := event{"", "withdrawn", `{"id":"a1","reason":"entry withdrawn"}`}
	if e := s.next(); e != want {
		t.Errorf("got  %+v\nwant %+v", e, want)
	}
	// What was not is not any more, here and for whoever comes later.
	w.feed.put(alertMessage("101-0", testAlert("a2", "patrol")))
	want = event{"101-0", "withdrawn", `{"id":"a2","reason":"entry withdrawn"}`}
	if e := s.next(); e != want {
		t.Errorf("got  %+v\nwant %+v", e, want)
	}
	later := w.open(t, "&last_event_id=0")
	for range 2 {
		if e := later.next(); e.name != "withdrawn" || strings.Contains(e.data, "AB123CD") {
			t.Errorf("got %+v", e)
		}
	}
	if got := w.Stats().Withheld; got != 3 {
		t.Errorf("%d withheld, want 3", got)
	}
}

// TestEntryNotHeardOf lets a matcher be ahead of this process: its alert waits
// until the lists here have reached it, and is not taken for withdrawn.
func TestEntryNotHeardOf(t *testing.T) {
	w := newWorld(t)
	s := w.open(t, "")
	w.set("e1", false)
	w.lists.set(8) // the alert was matched at 9
	w.feed.put(alertMessage("100-0", testAlert("a1", "patrol")))
	time.Sleep(50 * time.Millisecond) // long enough to say the wrong thing
	w.set("e1", true)
	w.lists.set(9)
	if e := s.next(); e.id != "100-0" || e.name != "alert" {
		t.Errorf("got %+v", e)
	}
}

// TestListsStayBehind checks that an alert ahead of the lists is left to the next
// connection and refused one by one, and that one that has some age holds up
// nobody: it comes from another control log.
func TestListsStayBehind(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.limits = defaultLimits
		c.limits.behind = 20 * time.Millisecond
	})
	w.set("e1", false)
	w.lists.set(8)
	old := testAlert("a0", "patrol")
	old.Created -= maxBehind.Milliseconds()
	w.feed.put(alertMessage("100-0", old))
	w.feed.put(alertMessage("101-0", testAlert("a1", "patrol")))
	w.alerts.put(testAlert("a1", "patrol"))

	s := w.open(t, "&last_event_id=0")
	if e := s.next(); e.id != "100-0" || e.name != "withdrawn" {
		t.Errorf("of another log: %+v", e)
	}
	s.ended()
	if status, body := w.do(t, "patrol", "POST", "/v1/alerts/a1/take", "", ""); status != 503 || !strings.Contains(body, "problem:behind") {
		t.Errorf("got %d %s", status, body)
	}
	w.set("e1", true)
	w.lists.set(9)
	if e := w.open(t, "&last_event_id=100-0").next(); e.id != "101-0" || e.name != "alert" {
		t.Errorf("the next connection got %+v", e)
	}
}

// TestNotBeforeTheListsAreThere checks that half the lists are shown to nobody.
func TestNotBeforeTheListsAreThere(t *testing.T) {
	w := newWorld(t)
	w.lists.catching = true
	for _, rt := range w.routes {
		method, path, _ := strings.Cut(rt.pattern, " ")
		path = strings.NewReplacer("{list}", "x", "{entry}", "x", "{alert}", "x", "{verb}", "take", "{file}", "app.js", "{$}", "").Replace(path)
		who := ""
		if rt.roles != nil {
			who = string(rt.roles[0])
		}
		status, body := w.do(t, who, method, path, "application/json", "[]")
		if refused := status == 503 && strings.Contains(body, "problem:catching-up"); refused != (who == "operator" || who == "patrol") {
			t.Errorf("%s as %q: %d %s", rt.pattern, who, status, body)
		}
	}
}

func TestHeartbeat(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Heartbeat = 10 * time.Millisecond })
	s := w.open(t, "")
	for range 3 {
		if b := s.block(); b != ":" {
			t.Errorf("got %q, want a comment", b)
		}
	}
}

func TestShutdownEndsStreams(t *testing.T) {
	w := newWorld(t)
	streams := []*sse{w.open(t, ""), w.open(t, ""), w.open(t, "")}
	begin := time.Now()
	if err := w.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("stopping took %v with streams open", took)
	}
	for i, s := range streams {
		s.ended()
		w.feed.closed(t, i)
	}
	if n := w.Stats().Streams; n != 0 {
		t.Errorf("%d streams are counted after the end", n)
	}
}

// TestSlowPatrol lets one patrol stop reading: it is cut, the others go on.
func TestSlowPatrol(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.WriteTimeout = 100 * time.Millisecond })
	slow, err := net.Dial("tcp", strings.TrimPrefix(w.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	slow.(*net.TCPConn).SetReadBuffer(4 << 10)
	fmt.Fprintf(slow, "GET /v1/alerts/stream?queue=patrol HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", secrets["patrol"])
	if _, err := bufio.NewReader(slow).ReadString('\n'); err != nil { // subscribed
		t.Fatal(err)
	}
	good := w.open(t, "")

	big := testAlert("a1", "patrol")
	big.Entry.Reason = strings.Repeat("x", 16<<10)
	for i := range 200 { // 3 MiB, of which the connection holds a fraction
		w.feed.put(alertMessage(fmt.Sprintf("%03d-0", 100+i), big))
		if e := good.next(); e.name != "alert" {
			t.Fatalf("the patrol that reads got %+v", e)
		}
	}
	w.feed.closed(t, 0)
	for w.Stats().SlowStreams == 0 || w.Stats().Streams != 1 {
		if t.Context().Err() != nil {
			t.Fatal("the slow patrol is not counted")
		}
		time.Sleep(time.Millisecond)
	}
	if w.logs.FilterMessage("slow patrol cut").Len() != 1 {
		t.Error("the slow patrol is not in the log")
	}
}

// TestSubscriptionEnds checks that a stream ends with its subscription, and that
// one that cannot begin is an error before the stream.
func TestSubscriptionEnds(t *testing.T) {
	w := newWorld(t)
	s := w.open(t, "")
	w.feed.mu.Lock()
	sub := w.feed.subs[0]
	w.feed.mu.Unlock()
	sub.Close()
	s.ended()

	for _, tc := range []struct {
		err    error
		status int
	}{
		{redisqueue.ErrBadID, 400},
		{redisqueue.ErrClosed, 503},
		{errors.New("redisqueue: subscribe: dial tcp: refused"), 503},
	} {
		w.feed.err = tc.err
		if status, body := w.do(t, "patrol", "GET", "/v1/alerts/stream?queue=patrol", "", ""); status != tc.status {
			t.Errorf("%v: got %d %s", tc.err, status, body)
		}
	}
}

func TestOpenAlertsAreBounded(t *testing.T) {
	var open openAlerts
	for i := range maxOpen + 10 {
		open.add(openAlert{id: fmt.Sprint(i), claim: stream.Claim{Entry: fmt.Sprint(i)}})
	}
	if len(open) != maxOpen || open[0].id != "10" {
		t.Errorf("%d are kept, the first is %s", len(open), open[0].id)
	}
	gone := open.drop(func(c stream.Claim) bool { return c.Entry != "12" })
	if len(gone) != 1 || gone[0] != "12" || len(open) != maxOpen-1 {
		t.Errorf("dropped %v, %d left", gone, len(open))
	}
}

// TestBehindTheFence serves a patrol from a process that is cut off from the
// control log: it does not know of a withdrawal that was confirmed elsewhere,
// but the fence of the queue tells that there was one, so nothing is handed out.
func TestBehindTheFence(t *testing.T) {
	s := &Server{cfg: Config{
		Clock:       time.Now,
		StillWanted: func(stream.Claim) bool { return true },
		Lists:       stuckAt(8),
		Fence:       func(context.Context, string) (int64, error) { return 10, nil },
	}}
	s.cfg.limits.behind = time.Millisecond
	claim := stream.Claim{List: "l", Entry: "e", Queue: "patrol"}
	if err := s.wanted(t.Context(), claim, 8, time.Now().UnixMilli()); !errors.Is(err, errBehind) {
		t.Errorf("below the fence: %v, want errBehind", err)
	}
	s.cfg.Lists = stuckAt(10)
	if err := s.wanted(t.Context(), claim, 8, time.Now().UnixMilli()); err != nil {
		t.Errorf("at the fence: %v", err)
	}
	s.cfg.Fence = func(context.Context, string) (int64, error) { return 0, errors.New("away") }
	if err := s.wanted(t.Context(), claim, 8, time.Now().UnixMilli()); !errors.Is(err, errBehind) {
		t.Errorf("with the queues away: %v, want errBehind", err)
	}
}

// stuckAt is a process that never knows a later version.
type stuckAt int64

func (stuckAt) CaughtUp() bool { return true }

func (v stuckAt) WaitVersion(ctx context.Context, want int64) error {
	if want <= int64(v) {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}
