package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestLimitersForget checks that the memory of many keys is bounded, that who has used up his
// allowance is not forgotten for it, and that who comes when there is no room is limited all the same.
func TestLimitersForget(t *testing.T) {
	l := newLimiters[int](10, 20, 100)
	now := time.Now()
	for range 20 {
		if !l.allow(-1, now) {
			t.Fatal("refused within the burst")
		}
	}
	if l.allow(-1, now) {
		t.Fatal("taken beyond the burst")
	}
	for k := range 99 {
		l.allow(k, now)
	}
	taken := 0
	for k := 1000; k < 2000; k++ {
		if l.allow(k, now) {
			taken++
		}
	}
	if len(l.of) != 100 || taken != 20 {
		t.Errorf("%d keys, and %d of those for which there was no room", len(l.of), taken)
	}
	if l.allow(-1, now) {
		t.Error("a flood of others gave the first a new allowance")
	}
	later := now.Add(time.Second) // the 99 have theirs whole again, the first has half
	for range 5 {
		l.allow(5000, later)
	}
	if len(l.of) != 2 || !l.left(-1, later) {
		t.Errorf("later: %d keys", len(l.of))
	}
}

// TestAsking checks that a key which only asks takes no room from those that take.
func TestAsking(t *testing.T) {
	l := newLimiters[int](10, 20, 100)
	now := time.Now()
	for k := range 1000 {
		if !l.left(k, now) {
			t.Fatal("nothing is left to who took nothing")
		}
	}
	if len(l.of) != 0 {
		t.Errorf("%d are remembered that took nothing", len(l.of))
	}
}

// TestDebt checks that many batches at once do not shut a sensor out for longer than the largest of
// them, or the burst.
func TestDebt(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		name    string
		burst   int
		batches []int
		wait    time.Duration
	}{
		{"one batch above the burst", 50, []int{250}, 2 * time.Second},
		{"many as large as the burst", 50, slices.Repeat([]int{50}, 80), 500 * time.Millisecond},
		{"many above the burst", 50, slices.Repeat([]int{250}, 80), 2500 * time.Millisecond},
		{"many small ones", 50, slices.Repeat([]int{1}, 4000), 500 * time.Millisecond},
		{"small ones after a large one", 50, append([]int{250}, slices.Repeat([]int{1}, 4000)...), 2 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLimiters[string](100, tc.burst, 10)
			var wg sync.WaitGroup
			l.spend("a", tc.batches[0], now)
			for _, n := range tc.batches[1:] {
				wg.Go(func() { l.spend("a", n, now) })
			}
			wg.Wait()
			if got := l.wait("a", now); got < tc.wait || got > tc.wait+100*time.Millisecond {
				t.Errorf("wait %v, want a little above %v", got, tc.wait)
			}
		})
	}
}

// TestSpend checks that what is spent beyond the allowance is paid for by waiting.
func TestSpend(t *testing.T) {
	l := newLimiters[string](100, 50, 10)
	now := time.Now()
	l.spend("a", 250, now) // 200 more than there is
	if l.left("a", now) || !l.left("b", now) {
		t.Error("not spent, or not by a")
	}
	if got := l.wait("a", now); got < 2*time.Second || got > 2100*time.Millisecond {
		t.Errorf("wait %v, want a little above 2 s", got)
	}
	if l.left("a", now.Add(1900*time.Millisecond)) || !l.left("a", now.Add(2100*time.Millisecond)) {
		t.Error("left at another time than wait says")
	}
	for _, none := range []*limiters[string]{newLimiters[string](-1, 1, 10)} {
		none.spend("a", 1e9, now)
		if !none.left("a", now) || !none.allow("a", now) {
			t.Error("no limit limits")
		}
	}
}

func TestBudget(t *testing.T) {
	b := newBudget(128 << 10) // a share of 32 KiB, a floor of 1 KiB
	hold := func(caller string, n int64, want error) *charge {
		t.Helper()
		c := b.charge(caller)
		if err := c.add(n); !errors.Is(err, want) {
			t.Errorf("%s and %d: %v, want %v", caller, n, err, want)
		}
		return c
	}
	first := hold("a", 30<<10, nil)
	hold("a", 3<<10, errTooMuch)
	hold("a", 2<<10, nil)
	var tooLarge *http.MaxBytesError
	if err := b.charge("b").add(32<<10 + 1); !errors.As(err, &tooLarge) || tooLarge.Limit != 32<<10 {
		t.Errorf("more than one may ever hold: %v", err)
	}
	for _, rogue := range []string{"b", "c", "d"} {
		hold(rogue, 32<<10, nil)
	}
	hold("e", 1<<10+1, errBusy)
	hold("e", 1<<10, nil) // the floor
	for i := range 127 {
		hold(strconv.Itoa(i), 1<<10, nil)
	}
	hold("f", 1, errBusy) // the floors of all have come to the same sum
	first.release()
	hold("f", 1<<10, nil)
	first.release()
	if b.used != 227<<10 {
		t.Errorf("%d are held", b.used)
	}
	c := b.charge("g")
	body, err := c.readAll(strings.NewReader("abc"), -1)
	if string(body) != "abc" || err != nil || c.n != 3 {
		t.Errorf("got %q, %v, and %d held", body, err, c.n)
	}
	c.release()
	if _, ok := b.by["g"]; ok {
		t.Error("who holds nothing is remembered")
	}
}

func TestCaller(t *testing.T) {
	for _, tc := range []struct {
		a, b Token
		same bool
	}{
		{Token{Name: "x", Sensor: "A7-1"}, Token{Name: "cert:A7-1", Sensor: "A7-1"}, true},
		{Token{Name: "all", Sensor: "A7-1"}, Token{Name: "all", Sensor: "A7-2"}, false}, // by its certificate
		{Token{Name: "a7"}, Token{Name: "b", Sensor: "a7"}, false},
		{Token{Name: "a"}, Token{Name: "b"}, false},
	} {
		if got := tc.a.caller() == tc.b.caller(); got != tc.same {
			t.Errorf("%q and %q: the same is %t", tc.a.caller(), tc.b.caller(), got)
		}
	}
}

func TestAddressOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7:99": "192.0.2.7/32", "[::ffff:192.0.2.7]:99": "192.0.2.7/32",
		"[2001:db8:1:2:3:4:5:6]:99": "2001:db8:1:2::/64", "[fe80::1%eth0]:99": "fe80::/64",
	} {
		if got := addressOf(&http.Request{RemoteAddr: in}); got != netip.MustParsePrefix(want) {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	if got := addressOf(&http.Request{RemoteAddr: "@"}); got.IsValid() {
		t.Errorf("no address: %s", got)
	}
}

// reads is a batch of n reads of a sensor, one to a line.
func batch(sensor string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"sensor":%q,"plate":"AB%03dCD","ts":%d}`+"\n", sensor, i%1000, testNow.UnixMilli()+int64(i))
	}
	return b.String()
}

// TestRates checks what a caller gets that sends too much, and that it is the only one who gets it.
func TestRates(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Limits = SensorLimits{RequestsPerSecond: 3, ReadsPerSecond: 10, Burst: 100}
	})
	post := func(who, path, body string) *http.Response {
		t.Helper()
		req, _ := http.NewRequest("POST", w.URL()+path, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+secrets[who])
		req.Header.Set("Content-Type", "application/x-ndjson")
		res, err := client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	expect := func(name string, res *http.Response, status int, kind, retry string) {
		t.Helper()
		var p Problem
		decodeProblem(t, res, &p)
		if res.StatusCode != status || strings.TrimPrefix(p.Type, problemPrefix) != kind || res.Header.Get("Retry-After") != retry {
			t.Errorf("%s: got %d %s, Retry-After %q", name, res.StatusCode, p.Type, res.Header.Get("Retry-After"))
		}
	}
	expect("more reads than the burst", post("bound", "/v1/reads", batch("A7-1", 120)), 202, "", "")
	expect("after them", post("bound", "/v1/reads", batch("A7-1", 1)), 429, "too-many-of-sensor", "3")
	expect("a message after them", post("bound", "/v1/ingest/auto", "x"), 429, "too-many-of-sensor", "3")
	for i := range 20 {
		expect("one that speaks for all", post("sensor", "/v1/reads", batch("A7-1", 120)), 202, "", "")
		if i < 3 {
			req, _ := http.NewRequest("POST", w.URL()+"/v1/ingest/auto", strings.NewReader("x"))
			sign(req, signingKey, "A7-9", fmt.Sprint("0123456789abcdef-", i), testNow, "x")
			if status, kind := answer(t, client(t), req); status != 202 {
				t.Errorf("another sensor: %d %s", status, kind)
			}
		}
	}
	req, _ := http.NewRequest("POST", w.URL()+"/v1/ingest/auto", strings.NewReader("x"))
	sign(req, signingKey, "A7-9", "0123456789abcdef-99", testNow, "x")
	if status, kind := answer(t, client(t), req); status != 429 || kind != "too-many-requests" {
		t.Errorf("a fourth request: %d %s", status, kind)
	}
	counts := map[string]uint64{}
	for _, r := range w.Stats().Refused {
		counts[r.Reason] = r.Requests
	}
	if counts["too-many-of-sensor"] != 2 || counts["too-many-requests"] != 1 || len(counts) != len(refusals) {
		t.Errorf("counted %v", counts)
	}
}

// TestFailures checks that an address that is often wrong is told so in the end, and that a right
// token from the same address is taken all the same.
func TestFailures(t *testing.T) {
	w := newWorld(t)
	statuses := map[int]int{}
	for range failuresBurst + 100 {
		req := mustRequest("GET", w.URL()+"/v1/lists")
		req.Header.Set("Authorization", "Bearer wrong-secret-0123456789")
		res, err := client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		statuses[res.StatusCode]++
	}
	if statuses[401] < failuresBurst || statuses[429] == 0 || len(statuses) != 2 {
		t.Errorf("statuses %v", statuses)
	}
	if status, _ := w.do(t, "operator", "GET", "/v1/lists", "", ""); status != 200 {
		t.Errorf("a right token: %d", status)
	}
	// Nor do they keep out who signs: the address may be a proxy.
	req, _ := http.NewRequest("POST", w.URL()+"/v1/ingest/auto", bytes.NewReader(nil))
	sign(req, signingKey, "A7-9", "0123456789abcdef", testNow, "")
	if status, kind := answer(t, client(t), req); status != 202 {
		t.Errorf("a right signature: %d %s", status, kind)
	}
}

// TestForgeries checks that who often signs wrongly for a sensor is refused in the end before his
// body is read, and that this shuts out neither another sensor at the same address nor the same
// sensor at another.
func TestForgeries(t *testing.T) {
	const otherKey = "hmac-key-9876543210-9876543210"
	w := newWorld(t, func(c *Config) {
		if err := c.Tokens.AddKey(Token{Name: "other-signer", Role: RoleSensor, Sensor: "A7-8"}, otherKey); err != nil {
			t.Fatal(err)
		}
	})
	n := 0
	post := func(from, sensor, key string) (int, string) {
		n++
		return w.from(from, signed(sensor, key, fmt.Sprintf("0123456789abcdef-%d", n), "x"))
	}
	kinds := map[string]int{}
	for range failuresBurst + 100 {
		_, kind := post("192.0.2.1", "A7-9", "no-key-of-ours-0123456789")
		kinds[kind]++
	}
	if kinds["bad-signature"] < failuresBurst || kinds["too-many-failures"] == 0 || len(kinds) != 2 {
		t.Errorf("answers %v", kinds)
	}
	for _, tc := range []struct {
		name, from, sensor, key string
		status                  int
	}{
		{"the same from there", "192.0.2.1", "A7-9", signingKey, 429},
		{"another sensor from there", "192.0.2.1", "A7-8", otherKey, 202},
		{"the same from elsewhere", "192.0.2.2", "A7-9", signingKey, 202},
	} {
		if status, kind := post(tc.from, tc.sensor, tc.key); status != tc.status {
			t.Errorf("%s: got %d %s, want %d", tc.name, status, kind, tc.status)
		}
	}
	for i := range 1000 { // sensors that have no key are not remembered
		post("192.0.2.3", fmt.Sprint("B-", i), signingKey)
	}
	if len(w.forgeries.of) != 1 {
		t.Errorf("%d are remembered, want 1", len(w.forgeries.of))
	}
}

// TestUnverifiedBodies lets strangers who know the id of a sensor, and no key, hold as much as they
// can. It takes the room of their own addresses, and of nobody else.
func TestUnverifiedBodies(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	hold := func(from string, i int) (release func()) {
		body, send := io.Pipe()
		r := signed("A7-9", "no-key-of-ours-0123456789", fmt.Sprintf("strangerstranger-%d", i), "")
		r.Body, r.ContentLength = body, maxSigned
		wg.Go(func() {
			w.from(from, r)
			body.Close() // refused: what is still sent goes nowhere
		})
		send.Write(make([]byte, maxSigned-1)) // refused ones take no more
		send.Write(nil)                       // returns when what came before is charged
		return func() { send.Close() }
	}
	honest := 0
	expect := func(name, from string, size, status int, kind string) {
		t.Helper()
		honest++
		r := signed("A7-9", signingKey, fmt.Sprintf("honesthonesthonest-%d", honest), strings.Repeat("x", size))
		if s, k := w.from(from, r); s != status || k != kind {
			t.Errorf("%s: got %d %s, want %d %s", name, s, k, status, kind)
		}
	}
	expect("the largest before", "192.0.2.9", maxSigned, 202, "")
	held := func() (all, one int64) {
		w.unverified.mu.Lock()
		defer w.unverified.mu.Unlock()
		return w.unverified.used, w.unverified.by["192.0.2.1/32"]
	}
	var release []func()
	for i := range 4 {
		release = append(release, hold("192.0.2.1", i))
	}
	if _, one := held(); one < 4<<20 || one > maxSigned {
		t.Errorf("one address holds %d bytes", one)
	}
	expect("the largest from elsewhere", "192.0.2.9", maxSigned, 202, "")
	expect("a neighbour of the stranger", "192.0.2.1", 64<<10, 429, "too-much")
	for i := range 6 {
		release = append(release, hold(fmt.Sprint("192.0.2.", i+2), i+4))
	}
	if all, _ := held(); all < 31<<20 || all > 64<<20 {
		t.Errorf("all strangers hold %d bytes", all)
	}
	expect("a small one, when strangers at many addresses hold all", "192.0.2.9", 128<<10, 202, "")
	expect("a large one then", "192.0.2.9", 1<<20, 503, "busy")
	if w.memory.used != 0 {
		t.Errorf("strangers hold %d bytes of those who are known", w.memory.used)
	}
	for _, f := range release {
		f()
	}
	wg.Wait()
	if all, _ := held(); all != 0 || len(w.unverified.by) != 0 {
		t.Errorf("%d bytes are held by nobody", all)
	}
	expect("the largest after", "192.0.2.9", maxSigned, 202, "")
}

// signed is a message of a sensor.
func signed(sensor, key, nonce, body string) *http.Request {
	r := httptest.NewRequest("POST", "/v1/ingest/auto", strings.NewReader(body))
	sign(r, key, sensor, nonce, testNow, body)
	return r
}

// from has a request answered as if it came from an address, and returns status and problem type.
func (w *world) from(addr string, r *http.Request) (int, string) {
	r.RemoteAddr = addr + ":4711"
	rec := httptest.NewRecorder()
	w.http.Handler.ServeHTTP(rec, r)
	var p Problem
	json.Unmarshal(rec.Body.Bytes(), &p) // no problem then
	return rec.Code, strings.TrimPrefix(p.Type, problemPrefix)
}
