package httpapi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"vigie/sensors"
	"vigie/sensors/ingest"
	"vigie/stream"
	"vigie/stream/redisqueue"
	"vigie/watchlist"
)

// decodeProblem reads the body of an answer, as a problem when it is one.
func decodeProblem(t testing.TB, res *http.Response, p *Problem) {
	t.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.Header.Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(b, p); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	log, tokens := zap.NewNop(), testTokens(t)
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"tokens", Config{Log: log}, "Config.Tokens is required"},
		{"no token", Config{Log: log, Tokens: new(Tokens)}, "Config.Tokens is required"},
		{"log", Config{Tokens: tokens}, "Config.Log is required"},
		{"feed", Config{Tokens: tokens, Log: log, Alerts: newFakeAlerts()}, "Config.Alerts and Config.Feed go together"},
		{"address", Config{Tokens: tokens, Log: log, Addr: "nowhere"}, "cannot listen on nowhere; set another with http.addr in the configuration or the flag --http"},
	} {
		if _, err := New(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q in it", tc.name, err, tc.want)
		}
	}
}

func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := ln.Addr().String()
	_, err = New(Config{Addr: addr, Tokens: testTokens(t), Log: zap.NewNop()})
	want := "another program listens on " + addr + " already; set another with http.addr in the configuration or the flag --http"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got  %v\nwant %q in it", err, want)
	}
}

// TestProblems holds the table to its purpose: every row can be read and acted on,
// and rows with one word agree on their status.
func TestProblems(t *testing.T) {
	status := map[string]int{}
	for _, row := range problems {
		if row.title == "" || row.mend == "" || row.status < 400 {
			t.Errorf("%s: status %d, title %q, mend %q", row.kind, row.status, row.title, row.mend)
		}
		if s, ok := status[row.kind]; ok && s != row.status {
			t.Errorf("%s stands for %d and %d", row.kind, s, row.status)
		}
		status[row.kind] = row.status
		if p := problemOf(fmt.Errorf("wrapped: %w", row.err)); p.Status != row.status || p.Type != "urn:vigie:problem:"+row.kind {
			t.Errorf("%v: got %+v", row.err, p)
		}
	}
	p := problemOf(errors.New("stream: dial tcp 10.0.0.7:9092: refused"))
	if p.Status != 503 || strings.Contains(fmt.Sprint(p), "10.0.0.7") {
		t.Errorf("an error of a part behind: got %+v, want 503 without its text", p)
	}
}

func TestNotServed(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Gateway, c.Desk, c.Alerts, c.Feed, c.Metrics, c.Console = nil, nil, nil, nil, nil, nil
	})
	for _, tc := range []struct{ who, method, path string }{
		{"sensor", "POST", "/v1/reads"},
		{"operator", "GET", "/v1/lists"},
		{"patrol", "GET", "/v1/alerts/stream?queue=patrol"},
		{"patrol", "POST", "/v1/alerts/a1/take"},
		{"", "GET", "/metrics"},
		{"", "GET", "/"},
	} {
		status, body := w.do(t, tc.who, tc.method, tc.path, "application/json", "")
		if status != 404 || !strings.Contains(body, "not-served") {
			t.Errorf("%s %s: %d %s", tc.method, tc.path, status, body)
		}
	}
	if status, _ := w.do(t, "", "GET", "/readyz", "", ""); status != 200 {
		t.Errorf("readyz: %d", status)
	}
}

func TestPanicIsAnswered(t *testing.T) {
	w := newWorld(t)
	status, body := w.do(t, "operator", "POST", "/v1/lists", "application/json",
		`{"id":"panics","name":"n","owner":"o","legal_basis":"l"}`)
	if status != 500 || !strings.Contains(body, "urn:vigie:problem:internal") {
		t.Errorf("got %d %s", status, body)
	}
	entries := w.logs.FilterMessage("handler panicked").All()
	if len(entries) != 1 {
		t.Fatalf("got %d log lines, want 1", len(entries))
	}
	if s := fmt.Sprint(entries[0].ContextMap()); strings.Contains(s, "AB123CD") || !strings.Contains(s, "POST /v1/lists") {
		t.Errorf("the log line names no route, or shows the value: %s", s)
	}
	if status, _ := w.do(t, "operator", "GET", "/v1/lists", "", ""); status != 200 {
		t.Errorf("after the panic: %d", status)
	}
}

func TestStats(t *testing.T) {
	w := newWorld(t)
	w.do(t, "operator", "GET", "/v1/lists", "", "")
	w.do(t, "operator", "GET", "/v1/lists", "", "")
	w.do(t, "", "GET", "/v1/lists", "", "")
	w.do(t, "", "GET", "/nowhere", "", "")
	got := map[string]uint64{}
	for _, r := range w.Stats().Routes {
		got[r.Route+" "+r.Class] = r.Requests
		if r.Seconds < 0 || r.Seconds > 10 {
			t.Errorf("%s %s took %v s", r.Route, r.Class, r.Seconds)
		}
	}
	want := map[string]uint64{"GET /v1/lists 2xx": 2, "GET /v1/lists 4xx": 1, "other 4xx": 1}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// TestDrain checks that Run waits for a request in flight, and no longer than it
// was told to.
func TestDrain(t *testing.T) {
	for _, tc := range []struct {
		name  string
		drain time.Duration
		ok    bool
	}{
		{"in time", 10 * time.Second, true},
		{"cut", 20 * time.Millisecond, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			begun, release := make(chan struct{}), make(chan struct{})
			w := newWorld(t, func(c *Config) {
				c.Drain = tc.drain
				c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					close(begun)
					select {
					case <-release:
					case <-r.Context().Done():
					}
					io.WriteString(w, "done")
				})
			})
			answer := make(chan error, 1)
			go func() {
				res, err := client(t).Get(w.URL() + "/metrics")
				if err == nil {
					_, err = io.ReadAll(res.Body)
					res.Body.Close()
				}
				answer <- err
			}()
			<-begun
			stopped := make(chan error, 1)
			go func() { stopped <- w.stop() }()
			<-w.streaming.Done()
			if tc.ok {
				close(release)
			}
			err := <-stopped
			if (err == nil) != tc.ok {
				t.Errorf("Run returned %v", err)
			}
			if err := <-answer; (err == nil) != tc.ok {
				t.Errorf("the request in flight ended with %v", err)
			}
			w.stop = func() error { return nil }
		})
	}
}

func TestNotReadyWhileStopping(t *testing.T) {
	s, err := New(Config{Addr: "127.0.0.1:0", Tokens: testTokens(t), Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.stop()
	rec := newRecorder()
	if err := s.getReady(rec, mustRequest("GET", "/readyz"), nil); err != nil {
		t.Fatal(err)
	}
	if rec.status != 503 || !strings.Contains(rec.body.String(), "the server is stopping") {
		t.Errorf("got %d %s", rec.status, rec.body.String())
	}
}

type recorder struct {
	probeWriter
	body bytes.Buffer
}

func newRecorder() *recorder                    { return &recorder{probeWriter: probeWriter{header: http.Header{}}} }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func mustRequest(method, path string) *http.Request {
	r, _ := http.NewRequest(method, path, nil)
	return r
}

// TestSlowSenders checks that neither a header nor a body that drips in holds a
// connection for longer than its limit.
func TestSlowSenders(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.limits = defaultLimits
		c.limits.header, c.limits.body = 100*time.Millisecond, 200*time.Millisecond
	})
	addr := strings.TrimPrefix(w.URL(), "http://")

	t.Run("header", func(t *testing.T) {
		conns := make([]net.Conn, 50)
		for i := range conns {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, "POST /v1/reads HTTP/1.1\r\nHost: x\r\nX-Slow: ")
			conns[i] = c
		}
		if status, _ := w.do(t, "", "GET", "/livez", "", ""); status != 200 {
			t.Errorf("livez meanwhile: %d", status)
		}
		for _, c := range conns {
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			// Whatever the server says, it hangs up.
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Fatalf("the connection was not closed: %v", err)
			}
		}
	})

	t.Run("body", func(t *testing.T) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /v1/reads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n[", secrets["sensor"])
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		var p Problem
		decodeProblem(t, res, &p)
		if res.StatusCode != 408 {
			t.Errorf("got %d %+v, want 408", res.StatusCode, p)
		}
	})

	t.Run("large header", func(t *testing.T) {
		req := mustRequest("GET", w.URL()+"/livez")
		req.Header.Set("X-Large", strings.Repeat("x", 64<<10))
		res, err := client(t).Do(req)
		if err != nil {
			return // it hung up while the header was still on its way
		}
		res.Body.Close()
		if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("got %d, want 431", res.StatusCode)
		}
	})
}

// pack compresses n bytes of JSON white space after a prefix.
func pack(t testing.TB, prefix string, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, prefix)
	blank := bytes.Repeat([]byte(" "), 1<<16)
	for n > 0 {
		k, err := z.Write(blank[:min(n, len(blank))])
		if err != nil {
			t.Fatal(err)
		}
		n -= k
	}
	z.Close()
	return b.Bytes()
}

func TestCompressedBodies(t *testing.T) {
	w := newWorld(t)
	read := fmt.Sprintf(`{"sensor":"A7-1","plate":"AB123CD","ts":%d}`, testNow.UnixMilli())
	whole := pack(t, read, 0)
	// A ratio of about a thousand: 8 MiB of blanks in 8 KiB.
	bomb := pack(t, read, 8<<20)
	// Reads that repeat themselves pack well without being a bomb.
	var many strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&many, `{"sensor":"A7-%d","plate":"AB%03dCD","ts":%d,"conf":0.%d}`+"\n", i%40, i%1000, testNow.UnixMilli()+int64(i*37), 50+i%50)
	}
	for _, tc := range []struct {
		name, encoding, contentType string
		body                        []byte
		status                      int
		kind                        string
	}{
		{"one read", "gzip", "application/json", whole, 202, ""},
		{"a large batch", "gzip", "application/x-ndjson", pack(t, many.String(), 0), 202, ""},
		{"a bomb", "gzip", "application/json", bomb, 413, "expands"},
		{"cut off", "gzip", "application/json", whole[:len(whole)-6], 400, "gzip"},
		{"not gzip", "gzip", "application/json", []byte(read), 400, "gzip"},
		{"a bad checksum", "gzip", "application/json", append(whole[:len(whole)-8:len(whole)-8], make([]byte, 8)...), 400, "gzip"},
		{"another encoding", "br", "application/json", []byte(read), 415, "content-encoding"},
		{"plain and too large", "", "application/json", append([]byte(read), bytes.Repeat([]byte(" "), 33<<20)...), 413, "too-large"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, _ := http.NewRequest("POST", w.URL()+"/v1/reads", bytes.NewReader(tc.body))
			req.Header.Set("Authorization", "Bearer "+secrets["sensor"])
			req.Header.Set("Content-Type", tc.contentType)
			if tc.encoding != "" {
				req.Header.Set("Content-Encoding", tc.encoding)
			}
			res, err := client(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			var p Problem
			decodeProblem(t, res, &p)
			if res.StatusCode != tc.status || (tc.kind != "" && p.Type != "urn:vigie:problem:"+tc.kind) {
				t.Errorf("got %d %+v, want %d %s", res.StatusCode, p, tc.status, tc.kind)
			}
		})
	}
}

// TestGunzipLimit checks that the limit holds for what comes out, whatever the ratio.
func TestGunzipLimit(t *testing.T) {
	for _, tc := range []struct {
		size, limit int64
		ok          bool
	}{{1000, 1000, true}, {1001, 1000, false}} {
		packed := &arriving{r: bytes.NewReader(pack(t, "", int(tc.size)))}
		n, err := io.Copy(io.Discard, &gunzip{packed: packed, limit: tc.limit})
		if (err == nil) != tc.ok || n > tc.limit {
			t.Errorf("%d bytes at a limit of %d: got %d and %v", tc.size, tc.limit, n, err)
		}
	}
}

// TestCutBody checks that a client that goes away in the middle is not taken for
// a failure of ours.
func TestCutBody(t *testing.T) {
	w := newWorld(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(w.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST /v1/reads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n[", secrets["sensor"])
	c.(*net.TCPConn).CloseWrite()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	io.Copy(io.Discard, c)
	c.Close()
	w.stop()
	for _, e := range w.logs.All() {
		if e.Message == "request failed" {
			t.Errorf("logged as a failure: %v", e.ContextMap())
		}
	}
}

func TestPublishFailure(t *testing.T) {
	w := newWorld(t)
	w.reads.err = errors.New("kafka: write 1 record: connection refused")
	req, _ := http.NewRequest("POST", w.URL()+"/v1/reads", strings.NewReader(fmt.Sprintf(`{"sensor":"A7-1","plate":"AB123CD","ts":%d}`, testNow.UnixMilli())))
	req.Header.Set("Authorization", "Bearer "+secrets["sensor"])
	req.Header.Set("Content-Type", "application/json")
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	var p Problem
	decodeProblem(t, res, &p)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || strings.Contains(fmt.Sprint(p), "kafka") {
		t.Errorf("got %d, Retry-After %q, %+v", res.StatusCode, res.Header.Get("Retry-After"), p)
	}
}

// TestLogsHoldNoPlate runs through every change and looks for what must not be
// in a log.
func TestLogsHoldNoPlate(t *testing.T) {
	w := newWorld(t)
	const canary = "ZZ998YY"
	do := func(who, method, path, contentType, body string) string {
		_, answer := w.do(t, who, method, path, contentType, body)
		return answer
	}
	do("operator", "POST", "/v1/lists", "application/json", `{"id":"stolen","name":"n","owner":"o","legal_basis":"l"}`)
	entry := do("operator", "POST", "/v1/lists/stolen/entries", "application/json",
		`{"plate":"`+canary+`","reason":"raison-`+canary+`","case_ref":"c","valid_until":"2026-06-01T00:00:00Z"}`)
	var e struct{ ID string }
	if err := json.Unmarshal([]byte(entry), &e); err != nil || e.ID == "" {
		t.Fatalf("%v in %s", err, entry)
	}
	do("operator", "GET", "/v1/lists/stolen/entries", "", "")
	do("operator", "POST", "/v1/lists/stolen/entries", "application/json", `{"plate":"`+canary+`","`+canary+`":1}`)
	do("operator", "POST", "/v1/explain", "application/json", `{"plate":"`+canary+`"}`)
	do("operator", "GET", "/v1/lists/"+canary, "", "")
	do("operator", "DELETE", "/v1/lists/stolen/entries/"+e.ID, "application/json", `{"reason":"`+canary+`"}`)
	do("operator", "DELETE", "/v1/lists/away", "application/json", `{"reason":"`+canary+`"}`)
	do("sensor", "POST", "/v1/reads", "application/json", `[{"sensor":"A7-1","plate":"`+canary+`","ts":1}]`)
	w.alerts.put(testAlert("a1", "patrol"))
	do("patrol", "POST", "/v1/alerts/a1/take", "application/json", `{}`)
	do("patrol", "POST", "/v1/alerts/a1/reject", "application/json", `{"outcome":"misread","note":"`+canary+`"}`)
	w.stop()

	changes := 0
	for _, line := range w.logs.All() {
		text := line.Message + fmt.Sprint(line.ContextMap())
		if strings.Contains(text, canary) || strings.Contains(text, "AB123CD") {
			t.Errorf("a plate is in the log: %s", text)
		}
		if line.Message == "lists changed" || line.Message == "alert stepped" {
			changes++
			if line.ContextMap()["actor"] == "" {
				t.Errorf("nobody did it: %s", text)
			}
		}
	}
	if changes != 5 {
		t.Errorf("%d changes are logged, want 5", changes)
	}
}

// FuzzProblems sends bodies that hold a plate: whatever is wrong with them, the
// answer does not repeat it.
func FuzzProblems(f *testing.F) {
	const canary = "ZZ998YY"
	for _, seed := range []string{
		`{"plate":"$"}`, `{"$":1}`, `{"plate":"$","plate":"$"}`, `{"plate":["$"]}`, `{"valid_until":"$"}`,
		`{"reason":$}`, `["$"]`, `"$"`, `{"plate":"$`, `$`, `{"plate":"$"} $`, `{"PLATE":"$"}`, `{"valid_from":"$"}`,
	} {
		f.Add(seed)
	}
	w := newWorld(f)
	w.desk.PutList(context.Background(), "x", testList("stolen"))
	f.Fuzz(func(t *testing.T, body string) {
		body = strings.ReplaceAll(body, "$", canary)
		rec := newRecorder()
		r, _ := http.NewRequest("POST", "/v1/lists/stolen/entries", strings.NewReader(body))
		r.SetPathValue("list", "stolen")
		r.Header.Set("Content-Type", "application/json")
		err := w.postEntry(rec, r, &Token{Name: "operator", Role: RoleOperator})
		if err == nil {
			return // it was an entry
		}
		if writeProblem(rec, err); strings.Contains(rec.body.String(), canary) {
			t.Errorf("%q is answered with %s", body, rec.body.String())
		}
		if rec.status < 400 || rec.status >= 500 {
			t.Errorf("%q: status %d", body, rec.status)
		}
	})
}

// What stands behind the interfaces in the program.
var (
	_ readAcceptor    = (*sensors.Gateway)(nil)
	_ messageIngester = (*ingest.Ingester)(nil)
	_ listDesk        = (*stream.Desk)(nil)
	_ alertDesk       = (*redisqueue.Queues)(nil)
	_ Subscription    = (*redisqueue.Subscription)(nil)
	_ listState       = (*stream.Replica)(nil)
)

func testList(id string) watchlist.List {
	return watchlist.List{ID: id, Name: "n", Owner: "o", LegalBasis: "l"}
}
