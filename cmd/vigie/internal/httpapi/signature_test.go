package httpapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// signingKey is that of the sensor A7-9 in every test.
const signingKey = "hmac-key-0123456789-0123456789"

// sign signs a request as a sensor would that has read the documentation, and none of our code.
func sign(r *http.Request, key, sensor, nonce string, at time.Time, body string) {
	t := fmt.Sprint(at.UnixMilli())
	mac := hmac.New(sha256.New, []byte(key))
	io.WriteString(mac, strings.Join([]string{t, nonce, r.Method, r.URL.RequestURI(), body}, "\n"))
	r.Header.Set("Vigie-Sensor", sensor)
	r.Header.Set("Vigie-Signature", "t="+t+",n="+nonce+",v1="+hex.EncodeToString(mac.Sum(nil)))
}

// answer sends a request and returns status and problem type of its answer.
func answer(t testing.TB, c *http.Client, r *http.Request) (int, string) {
	t.Helper()
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	var p Problem
	decodeProblem(t, res, &p)
	return res.StatusCode, strings.TrimPrefix(p.Type, problemPrefix)
}

func TestSignedRequests(t *testing.T) {
	w := newWorld(t)
	const nonce = "0123456789abcdef"
	read := fmt.Sprintf(`{"plate":"AB123CD","ts":%d}`, testNow.UnixMilli())
	foreign := fmt.Sprintf(`{"sensor":"A7-1","plate":"AB123CD","ts":%d}`, testNow.UnixMilli())
	for i, tc := range []struct {
		name   string
		path   string
		body   string
		at     time.Duration
		change func(r *http.Request)
		status int
		kind   string
	}{
		{name: "right", status: 202},
		{name: "of a message", path: "/v1/ingest/auto?sensor=A7-9", body: "some", status: 202},
		{name: "parts in another order", change: func(r *http.Request) {
			p := strings.Split(r.Header.Get(headerSignature), ",")
			r.Header.Set(headerSignature, p[2]+", "+p[0]+" ,"+p[1])
		}, status: 202},
		{name: "just in time", at: -time.Minute, status: 202},
		{name: "just not ahead of time", at: time.Minute, status: 202},
		{name: "stale", at: -time.Minute - time.Millisecond, status: 401, kind: "stale-signature"},
		{name: "ahead of time", at: time.Minute + time.Millisecond, status: 401, kind: "stale-signature"},
		{name: "a read of another sensor", body: foreign, status: 422, kind: "reads-rejected"},
		{name: "a message of another sensor", path: "/v1/ingest/auto?sensor=A7-1", status: 403, kind: "forbidden-sensor"},
		{name: "another body", change: func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(strings.ToLower(read))) }, status: 401, kind: "bad-signature"},
		{name: "another address", change: func(r *http.Request) { r.URL.RawQuery = "x=1" }, status: 401, kind: "bad-signature"},
		{name: "another sensor", change: func(r *http.Request) { r.Header.Set(headerSensor, "A7-8") }, status: 401, kind: "bad-signature"},
		{name: "a sensor without a key", change: func(r *http.Request) { r.Header.Set(headerSensor, "A7-1") }, status: 401, kind: "bad-signature"},
		{name: "no sensor", change: func(r *http.Request) { r.Header.Del(headerSensor) }, status: 401, kind: "bad-signature"},
		{name: "two sensors", change: func(r *http.Request) { r.Header.Add(headerSensor, "A7-9") }, status: 401, kind: "bad-signature"},
		{name: "two signatures", change: func(r *http.Request) { r.Header.Add(headerSignature, r.Header.Get(headerSignature)) }, status: 401, kind: "bad-signature"},
		{name: "a time for ever", change: func(r *http.Request) {
			r.Header.Set(headerSignature, "t=99999999999999999999,n="+nonce+",v1="+strings.Repeat("00", 32))
		}, status: 401, kind: "bad-signature"},
		{name: "and a token", change: func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secrets["sensor"]) }, status: 401, kind: "two-credentials"},
		{name: "the key as a token", change: func(r *http.Request) {
			r.Header.Del(headerSignature)
			r.Header.Set("Authorization", "Bearer "+signingKey)
		}, status: 401, kind: "bad-token"},
		{name: "an operator's route", path: "/v1/lists", status: 403, kind: "forbidden"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path, body := tc.path, tc.body
			if path == "" {
				path = "/v1/reads"
			}
			if body == "" {
				body = read
			}
			r, _ := http.NewRequest("POST", w.URL()+path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			sign(r, signingKey, "A7-9", fmt.Sprintf("%s-%d", nonce, i), testNow.Add(tc.at), body)
			if tc.change != nil {
				tc.change(r)
			}
			if status, kind := answer(t, client(t), r); status != tc.status || kind != tc.kind {
				t.Errorf("got %d %s, want %d %s", status, kind, tc.status, tc.kind)
			}
		})
	}
	for _, r := range w.reads.reads {
		if r.Sensor != "A7-9" {
			t.Errorf("a read of %s went through", r.Sensor)
		}
	}
}

// TestReplayWindow follows what is remembered: no request is taken twice, one sensor does not push
// out what another sent, and what is over is forgotten.
func TestReplayWindow(t *testing.T) {
	const window = 60_000
	rp := replays{window: window, max: 1000, seen: make(map[string]*nonces)}
	now := int64(1_773_470_467_412)
	if err := rp.first("A", "nonce", now, now); err != nil {
		t.Fatal(err)
	}
	if err := rp.first("A", "nonce", now, now+window); !errors.Is(err, errReplayed) {
		t.Errorf("again: %v", err)
	}
	if err := rp.first("B", "nonce", now, now); err != nil {
		t.Errorf("the same nonce of another sensor: %v", err)
	}
	full := 0
	for i := range 5000 {
		if err := rp.first("B", fmt.Sprint("flood-", i), now+window, now); errors.Is(err, errNonces) {
			full++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := len(rp.seen["B"].until); n != 1000 || full != 5000-999 {
		t.Errorf("B: %d remembered, %d refused", n, full)
	}
	if err := rp.first("A", "nonce", now, now+window); !errors.Is(err, errReplayed) {
		t.Errorf("again, after a flood of another sensor: %v", err)
	}
	for i := range 999 {
		if err := rp.first("B", fmt.Sprint("flood-", i), now+window, now+2*window); !errors.Is(err, errReplayed) {
			t.Fatalf("B %d: %v", i, err)
		}
	}
	later := now + 2*window + 1 // nothing of before can be near any more
	for i := range 400 {
		if err := rp.first("B", fmt.Sprint("later-", i), later, later); err != nil {
			t.Fatalf("later %d: %v", i, err)
		}
	}
	if n := len(rp.seen["B"].until); n != 400 {
		t.Errorf("later %d are remembered, want 400", n)
	}
}

// TestFloodSweeps checks that a sensor that sends more than can be remembered does not make each of
// its requests a sweep over all of them.
func TestFloodSweeps(t *testing.T) {
	const window = 64_000
	rp := replays{window: window, max: 1000, seen: make(map[string]*nonces)}
	sweeps, last := 0, int64(0)
	for i := range int64(10_000) { // one each ms
		rp.first("A", fmt.Sprint(i), i-window+2000, i) // does not listen to what it is told
		if next := rp.seen["A"].next; i > 5000 && next != last {
			sweeps++
			last = next
		}
	}
	if sweeps < 4 || sweeps > 7 {
		t.Errorf("%d sweeps in 5 s, want about one a second", sweeps)
	}
}

// TestNoncesFor checks that a sensor may keep up its rate whatever its clock says within the window,
// and that what is remembered is bounded for any limits.
func TestNoncesFor(t *testing.T) {
	for _, tc := range []struct {
		rate   int
		window time.Duration
		want   int
	}{
		{500, time.Minute, 120_000},
		{20, time.Minute, 4800},
		{1, time.Millisecond, 1},
		{500, 15 * time.Minute, maxNonces},
		{1 << 62, 15 * time.Minute, maxNonces},
		{-1, time.Minute, maxNonces},
	} {
		if got := noncesFor(&SensorLimits{RequestsPerSecond: tc.rate, ReplayWindow: tc.window}); got != tc.want {
			t.Errorf("%d/s and %v: %d, want %d", tc.rate, tc.window, got, tc.want)
		}
	}
	var l SensorLimits
	l.setDefaults()
	window := l.ReplayWindow.Milliseconds()
	rp := replays{window: window, max: noncesFor(&l), seen: make(map[string]*nonces)}
	start := testNow.UnixMilli()
	for i := range 5 * 60 * l.RequestsPerSecond { // five minutes
		now := start + int64(i)*1000/int64(l.RequestsPerSecond)
		if err := rp.first("A", strconv.Itoa(i), now+window, now); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	if n := len(rp.seen["A"].until); n > rp.max {
		t.Errorf("%d are remembered, want at most %d", n, rp.max)
	}
}

func TestKeysOfTokens(t *testing.T) {
	ts, err := LoadTokens(strings.NewReader(`
- {name: old, role: sensor, sensor: A7-9, hmac_key: an-old-key-0123456789-0123}
- {name: new, role: sensor, sensor: A7-9, hmac_key: a-new-key-0123456789-0123}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := ts.signing["A7-9"]; len(got) != 2 || got[1].Name != "new" || ts.Len() != 2 {
		t.Errorf("got %v of %d", got, ts.Len())
	}
	if got := ts.find("a-new-key-0123456789-0123"); got != nil {
		t.Error("a key can be sent as a token")
	}
	const key = "SECRET-0123456789-0123456789"
	for _, tc := range []struct{ name, in, want string }{
		{"no sensor", "- {name: a, role: sensor, hmac_key: " + key + "}", "hmac_key: only a token of role sensor that is bound"},
		{"an operator", "- {name: a, role: operator, hmac_key: " + key + "}", "hmac_key: only a token of role sensor"},
		{"short", "- {name: a, role: sensor, sensor: A7-9, hmac_key: short}", "has 5 characters, need at least 20"},
		{"and a token", "- {name: a, role: sensor, sensor: A7-9, token: " + key + ", hmac_key: " + key + "}", "needs either token or sha256, or hmac_key"},
		{"twice", "- {name: a, role: sensor, sensor: A7-9, hmac_key: " + key + "}\n- {name: b, role: sensor, sensor: A7-8, hmac_key: " + key + "}", `is the same secret as that of "a"`},
		{"misspelt", "- {name: a, role: sensor, sensor: A7-9, hmackey: " + key + "}", "known are name, role, sensor, queues, token, sha256, hmac_key"},
	} {
		if _, err := LoadTokens(strings.NewReader(tc.in)); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: got %v, want %q in it", tc.name, err, tc.want)
		}
	}
}

func FuzzParseSignature(f *testing.F) {
	good := "t=1773470467412,n=0123456789abcdef,v1=" + strings.Repeat("ab", 32)
	f.Add(good)
	f.Add(good + ",v1=00")
	f.Add("t=-1,n=,v1=")
	f.Add("t=1,t=2,n=0123456789abcdef")
	f.Fuzz(func(t *testing.T, header string) {
		sig, ok := parseSignature(header)
		if !ok {
			return
		}
		again := fmt.Sprintf("t=%s,n=%s,v1=%x", sig.time, sig.nonce, sig.mac)
		same, ok := parseSignature(again)
		if !ok || same.t != sig.t || same.nonce != sig.nonce || !hmac.Equal(same.mac, sig.mac) || sig.t < 0 {
			t.Errorf("%q became %q", header, again)
		}
		if strings.ContainsAny(sig.time+sig.nonce, "\n") {
			t.Errorf("%q has a line feed in it: what is signed is ambiguous", header)
		}
	})
}
