package httpapi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vigie/sensors/format"
	"vigie/sensors/ingest"
)

// authority signs certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spec := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, spec, spec, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// issue makes a certificate that is good until the given time and has the URIs as alternative names.
func (a *authority) issue(t testing.TB, until time.Time, uris ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spec := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "A7-1"}, // never looked at
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		spec.URIs = append(spec.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, spec, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// TestImpostors shows who gets in with a certificate, and for which sensor.
func TestImpostors(t *testing.T) {
	ca, stranger := newAuthority(t, "ours"), newAuthority(t, "theirs")
	hour := time.Now().Add(time.Hour)
	server := ca.issue(t, hour)
	w := newWorld(t, func(c *Config) {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{server}, ClientCAs: ca.pool()}
	})
	if !strings.HasPrefix(w.URL(), "https://127.0.0.1:") {
		t.Fatalf("serves at %s", w.URL())
	}
	one := ca.issue(t, hour, "vigie:sensor:A7-1")
	read := func(sensor string) string {
		return fmt.Sprintf(`{"sensor":%q,"plate":"AB123CD","ts":%d}`, sensor, testNow.UnixMilli())
	}
	for _, tc := range []struct {
		name    string
		cert    *tls.Certificate
		who     string // token
		signs   string // sensor that the request is signed for
		version uint16
		sensor  string // of the read
		status  int    // 0: no connection
		kind    string
	}{
		{name: "a certificate and its sensor", cert: &one, sensor: "A7-1", status: 202},
		{name: "a sensor that need not be named", cert: &one, status: 202},
		{name: "with the token of its sensor", cert: &one, who: "bound", sensor: "A7-1", status: 202},
		{name: "no certificate, a token", who: "bound", sensor: "A7-1", status: 202},
		{name: "another sensor than that of the certificate", cert: &one, sensor: "A7-2", status: 422, kind: "reads-rejected"},
		{name: "another, with a token for all", cert: &one, who: "sensor", sensor: "A7-2", status: 422, kind: "reads-rejected"},
		{name: "another, with a signature", cert: &one, signs: "A7-9", sensor: "A7-9", status: 403, kind: "contradiction"},
		{name: "a token of another", cert: certOf(ca.issue(t, hour, "vigie:sensor:A7-2")), who: "bound", sensor: "A7-1", status: 403, kind: "contradiction"},
		{name: "a token of an operator", cert: &one, who: "operator", status: 403, kind: "contradiction"},
		{name: "another sensor than that of the token", who: "bound", sensor: "A7-2", status: 422, kind: "reads-rejected"},
		{name: "neither certificate nor token", sensor: "A7-1", status: 401, kind: "no-token"},
		{name: "a certificate that names nobody, but for its common name", cert: certOf(ca.issue(t, hour)), sensor: "A7-1", status: 401, kind: "no-token"},
		{name: "one that names two", cert: certOf(ca.issue(t, hour, "vigie:sensor:A7-1", "vigie:sensor:A7-2")), sensor: "A7-1", status: 401, kind: "bad-certificate"},
		{name: "one that names no sensor", cert: certOf(ca.issue(t, hour, "vigie:gateway:A7")), sensor: "A7-1", status: 401, kind: "bad-certificate"},
		{name: "one that names no id", cert: certOf(ca.issue(t, hour, "vigie:sensor:A7/1")), sensor: "A7-1", status: 401, kind: "bad-certificate"},
		{name: "another authority", cert: certOf(stranger.issue(t, hour, "vigie:sensor:A7-1")), sensor: "A7-1"},
		{name: "another authority, with a good token", cert: certOf(stranger.issue(t, hour, "vigie:sensor:A7-1")), who: "bound", sensor: "A7-1"},
		{name: "expired", cert: certOf(ca.issue(t, time.Now().Add(-time.Minute), "vigie:sensor:A7-1")), sensor: "A7-1"},
		{name: "an old protocol", cert: &one, version: tls.VersionTLS12, sensor: "A7-1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conf := &tls.Config{RootCAs: ca.pool(), MinVersion: tls.VersionTLS12, MaxVersion: tc.version}
			if tc.cert != nil {
				// Whatever authorities the server asks for: a rogue does not care.
				conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return tc.cert, nil }
			}
			tr := &http.Transport{TLSClientConfig: conf}
			defer tr.CloseIdleConnections()
			body := read(tc.sensor)
			if tc.sensor == "" {
				body = strings.Replace(body, `"sensor":"",`, "", 1)
			}
			req, _ := http.NewRequest("POST", w.URL()+"/v1/reads", strings.NewReader(body))
			req.Header.Set("Content-Type", "application/json")
			if tc.who != "" {
				req.Header.Set("Authorization", "Bearer "+secrets[tc.who])
			}
			if tc.signs != "" {
				sign(req, signingKey, tc.signs, "0123456789abcdef", testNow, body)
			}
			w.reads.mu.Lock()
			before := len(w.reads.reads)
			w.reads.mu.Unlock()
			c := &http.Client{Transport: tr, Timeout: 10 * time.Second}
			if tc.status == 0 {
				if res, err := c.Do(req); err == nil {
					res.Body.Close()
					t.Errorf("connected, and got %d", res.StatusCode)
				}
			} else if status, kind := answer(t, c, req); status != tc.status || kind != tc.kind {
				t.Errorf("got %d %s, want %d %s", status, kind, tc.status, tc.kind)
			}
			w.reads.mu.Lock()
			defer w.reads.mu.Unlock()
			if got := len(w.reads.reads) - before; (got == 1) != (tc.status == 202) {
				t.Errorf("%d reads went through", got)
			}
			for _, r := range w.reads.reads {
				if r.Sensor != "A7-1" {
					t.Errorf("a read of %s went through", r.Sensor)
				}
			}
		})
	}
}

// TestExpiredMeanwhile lets a certificate expire while its connection stays open.
func TestExpiredMeanwhile(t *testing.T) {
	ca := newAuthority(t, "ours")
	until := time.Now().Add(time.Hour)
	server, sensor := ca.issue(t, until), ca.issue(t, until, "vigie:sensor:A7-1")
	var late atomic.Bool
	w := newWorld(t, func(c *Config) {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server}, ClientCAs: ca.pool()}
		c.Clock = func() time.Time {
			if late.Load() {
				return until.Add(time.Second)
			}
			return testNow
		}
	})
	tr := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca.pool(), Certificates: []tls.Certificate{sensor}}}
	defer tr.CloseIdleConnections()
	post := func() (int, string) {
		req, _ := http.NewRequest("POST", w.URL()+"/v1/ingest/auto", strings.NewReader("x"))
		return answer(t, &http.Client{Transport: tr}, req)
	}
	if status, kind := post(); status != 202 {
		t.Fatalf("before: %d %s", status, kind)
	}
	late.Store(true)
	if status, kind := post(); status != 401 || kind != "expired-certificate" {
		t.Errorf("after: %d %s, want 401 expired-certificate", status, kind)
	}
}

func certOf(c tls.Certificate) *tls.Certificate { return &c }

// TestReplayedCapture sends what was sent before, and what was signed long ago.
func TestReplayedCapture(t *testing.T) {
	w := newWorld(t)
	read := fmt.Sprintf(`{"plate":"AB123CD","ts":%d}`, testNow.UnixMilli())
	capture := func(nonce string, at time.Time) *http.Request {
		req, _ := http.NewRequest("POST", w.URL()+"/v1/reads", strings.NewReader(read))
		req.Header.Set("Content-Type", "application/json")
		sign(req, signingKey, "A7-9", nonce, at, read)
		return req
	}
	if status, kind := answer(t, client(t), capture("0123456789abcdef", testNow)); status != 202 {
		t.Fatalf("the first time: %d %s", status, kind)
	}
	for range 3 {
		if status, kind := answer(t, client(t), capture("0123456789abcdef", testNow)); status != 409 || kind != "replayed" {
			t.Errorf("again: %d %s, want 409 replayed", status, kind)
		}
	}
	if status, kind := answer(t, client(t), capture("fedcba9876543210", testNow.Add(-2*time.Minute))); status != 401 || kind != "stale-signature" {
		t.Errorf("signed long ago: %d %s, want 401 stale-signature", status, kind)
	}
	if n := len(w.reads.reads); n != 1 {
		t.Errorf("%d reads went through, want 1", n)
	}
	// Without what is remembered the capture goes through: it is this that refuses it.
	w.replays.mu.Lock()
	clear(w.replays.seen)
	w.replays.mu.Unlock()
	if status, _ := answer(t, client(t), capture("0123456789abcdef", testNow)); status != 202 {
		t.Errorf("with nothing remembered: %d, want 202", status)
	}
}

// peak runs an attack and returns by how much the heap grew at most, and the times that posts of a
// good sensor took meanwhile, shortest first; each is answered 202 or the test fails.
func (w *world) peak(t *testing.T, attack func()) (grown uint64, took []time.Duration) {
	t.Helper()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	// What counts is what has to be held, not what waits for a collector that sees no need yet.
	defer debug.SetGCPercent(debug.SetGCPercent(25))
	runtime.GC()
	runtime.GC()
	before := heap()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		attack()
	})
	c := client(t)
	for stop := false; !stop; {
		select {
		case <-done:
			stop = true
		case <-time.After(10 * time.Millisecond):
		}
		grown = max(grown, max(heap(), before)-before)
		req, _ := http.NewRequest("POST", w.URL()+"/v1/reads", strings.NewReader(batch("A7-1", 3)))
		req.Header.Set("Authorization", "Bearer "+secrets["bound"])
		req.Header.Set("Content-Type", "application/x-ndjson")
		start := time.Now()
		if status, kind := answer(t, c, req); status != 202 {
			t.Errorf("a good sensor meanwhile: %d %s", status, kind)
		}
		took = append(took, time.Since(start))
	}
	wg.Wait()
	slices.Sort(took)
	return grown, took
}

// good fails when the posts of a good sensor were held up.
func good(t *testing.T, took []time.Duration) {
	t.Helper()
	median, worst := took[len(took)/2], took[len(took)-1]
	t.Logf("%d posts of a good sensor meanwhile: median %v, longest %v", len(took), median, worst)
	if median > slack*100*time.Millisecond || worst > slack*2*time.Second {
		t.Errorf("posts of a good sensor took %v at the median and %v at worst", median, worst)
	}
}

// rogues is how many stolen tokens attack at the same time; rogue is the secret of one.
const rogues = 8

func rogue(i int) string { return fmt.Sprintf("rogue-secret-0123456789-%d", i%rogues) }

// withRogues adds their tokens.
func withRogues(t *testing.T) func(*Config) {
	return func(c *Config) {
		for i := range rogues {
			tok := Token{Name: fmt.Sprint("rogue-", i), Role: RoleSensor, Sensor: fmt.Sprint("B1-", i)}
			if err := c.Tokens.Add(tok, rogue(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// begin opens a connection and sends what begins a request.
func (w *world) begin(t *testing.T, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(w.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, text)
	return c
}

// waiting stands for a connection that is neither answered nor closed.
const waiting = -1

// ended waits for the answer on each connection, and counts their statuses; 0 stands for one that
// was closed without.
func ended(t *testing.T, conns []net.Conn, wait time.Duration) map[int]int {
	t.Helper()
	statuses := map[int]int{}
	until := time.Now().Add(wait)
	for _, c := range conns {
		c.SetReadDeadline(until)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		switch {
		case err == nil:
			statuses[res.StatusCode]++
		case errors.Is(err, os.ErrDeadlineExceeded):
			statuses[waiting]++
		default:
			statuses[0]++
		}
		c.Close()
	}
	return statuses
}

// TestSlowloris opens 200 connections that never come to the end of what they begin.
func TestSlowloris(t *testing.T) {
	const conns = 200
	slow := func(c *Config) {
		c.limits = defaultLimits
		c.limits.header = 400 * time.Millisecond
		c.limits.body, c.limits.message = 600*time.Millisecond, 600*time.Millisecond
	}
	for _, tc := range []struct {
		name   string
		begin  func(i int) string
		drip   string
		status int // 0: the connection is closed
	}{
		{"header", func(int) string { return "POST /v1/reads HTTP/1.1\r\nHost: x\r\nX-Slow: " }, "x", 0},
		{"body", func(i int) string {
			return "POST /v1/reads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + rogue(i) +
				"\r\nContent-Type: application/x-ndjson\r\nContent-Length: 8000000\r\n\r\n" + strings.Repeat(" ", 2000)
		}, " ", 408},
		{"body in chunks without end", func(i int) string {
			return "POST /v1/reads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + rogue(i) +
				"\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\n \r\n", 100)
		}, "1\r\n \r\n", 408},
		{"body of a stranger", func(int) string {
			return "POST /v1/reads HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100000\r\n\r\n "
		}, " ", 401},
		{"body that claims to be signed", func(i int) string {
			return fmt.Sprintf("POST /v1/ingest/auto HTTP/1.1\r\nHost: x\r\nVigie-Sensor: A7-9\r\nVigie-Signature: t=%d,n=0123456789abcdef%d,v1=%s\r\nContent-Length: 100000\r\n\r\n ",
				testNow.UnixMilli(), i, strings.Repeat("00", 32))
		}, " ", 408},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, slow, withRogues(t))
			var statuses map[int]int
			grown, took := w.peak(t, func() {
				open := make([]net.Conn, conns)
				for i := range open {
					open[i] = w.begin(t, tc.begin(i))
				}
				stop := drip(open, tc.drip)
				statuses = ended(t, open, 10*time.Second)
				stop()
			})
			if statuses[tc.status] != conns {
				t.Errorf("answers %v, want %d times %d", statuses, conns, tc.status)
			}
			t.Logf("heap and stacks of %d connections, both ends: %d KiB", conns, grown>>10)
			if grown > 64<<20 {
				t.Errorf("the heap grew by %d MiB", grown>>20)
			}
			good(t, took)
		})
		if tc.name != "header" && tc.name != "body" {
			continue
		}
		t.Run("negative control: without the limits nobody is cut off, "+tc.name, func(t *testing.T) {
			w := newWorld(t, withRogues(t))
			open := make([]net.Conn, 5)
			for i := range open {
				open[i] = w.begin(t, tc.begin(i))
			}
			if statuses := ended(t, open, 900*time.Millisecond); statuses[waiting] != len(open) {
				t.Errorf("answers %v", statuses)
			}
		})
	}
}

// drip sends a little more on each connection again and again, until stop is called.
func drip(conns []net.Conn, text string) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			case <-time.After(50 * time.Millisecond):
			}
			for _, c := range conns {
				io.WriteString(c, text)
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

// TestManyLargeBodies sends, with eight stolen tokens, far more than there is memory for, and then
// nothing more, so that all of it would have to be held.
func TestManyLargeBodies(t *testing.T) {
	const conns, size = 96, 2 << 20
	attack := func(t *testing.T, limits SensorLimits) (grown uint64, statuses map[int]int, took []time.Duration) {
		w := newWorld(t, func(c *Config) {
			c.Limits = limits
			c.limits = defaultLimits
			c.limits.message = 1500 * time.Millisecond
		}, withRogues(t))
		open := make([]net.Conn, conns)
		filler := bytes.Repeat([]byte(" "), 64<<10)
		grown, took = w.peak(t, func() {
			var wg sync.WaitGroup
			for i := range open {
				open[i] = w.begin(t, fmt.Sprintf("POST /v1/ingest/auto HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", rogue(i), size+1))
				wg.Go(func() {
					for range size / len(filler) {
						if _, err := open[i].Write(filler); err != nil {
							return // refused
						}
					}
				})
			}
			wg.Wait()
			statuses = ended(t, open, 10*time.Second)
		})
		return grown, statuses, took
	}
	t.Run("bounded", func(t *testing.T) {
		grown, statuses, took := attack(t, SensorLimits{Memory: 8 << 20})
		t.Logf("%d bodies of %d MiB: %d MiB more memory, answers %v", conns, size>>20, grown>>20, statuses)
		if grown > 32<<20 {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
		if statuses[429]+statuses[503]+statuses[0] < conns/2 || statuses[429]+statuses[503] == 0 || statuses[202] > 0 {
			t.Errorf("answers %v", statuses)
		}
		good(t, took)
	})
	t.Run("negative control: with no bound they are all held", func(t *testing.T) {
		grown, statuses, _ := attack(t, SensorLimits{Memory: 1 << 40})
		if grown < 64<<20 || statuses[408] != conns {
			t.Errorf("the heap grew by %d MiB, answers %v", grown>>20, statuses)
		}
	})
}

// TestGzipBombs sends many small bodies that become large ones.
func TestGzipBombs(t *testing.T) {
	bomb := func(n int) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		blank := bytes.Repeat([]byte(" "), 1<<20)
		for range n >> 20 {
			z.Write(blank)
		}
		z.Close()
		return b.Bytes()
	}
	packed := bomb(256 << 20) // 256 KiB
	attack := func(t *testing.T, limits SensorLimits, path string, packed []byte) (uint64, map[int]int, []time.Duration) {
		w := newWorld(t, func(c *Config) { c.Limits = limits }, withRogues(t))
		statuses := map[int]int{}
		var mu sync.Mutex
		grown, took := w.peak(t, func() {
			var wg sync.WaitGroup
			for i := range 2 * rogues {
				wg.Go(func() {
					req, _ := http.NewRequest("POST", w.URL()+path, bytes.NewReader(packed))
					req.Header.Set("Authorization", "Bearer "+rogue(i))
					req.Header.Set("Content-Encoding", "gzip")
					req.Header.Set("Content-Type", "application/json")
					status, _ := answer(t, client(t), req)
					mu.Lock()
					defer mu.Unlock()
					statuses[status]++
				})
			}
			wg.Wait()
		})
		return grown, statuses, took
	}
	for _, path := range []string{"/v1/reads", "/v1/ingest/auto"} {
		t.Run(path, func(t *testing.T) {
			grown, statuses, took := attack(t, SensorLimits{}, path, packed)
			t.Logf("%d bombs of 256 MiB: %d MiB more memory, answers %v", 2*rogues, grown>>20, statuses)
			if statuses[413] != 2*rogues || grown > 64<<20 {
				t.Errorf("answers %v, the heap grew by %d MiB", statuses, grown>>20)
			}
			good(t, took)
		})
	}
	t.Run("negative control: what unpacks to less than the limits is taken", func(t *testing.T) {
		_, statuses, _ := attack(t, SensorLimits{}, "/v1/ingest/auto", bomb(1<<20))
		if statuses[202] != 2*rogues {
			t.Errorf("answers %v, want all of them 202", statuses)
		}
	})
}

// TestBodyLimits sends bodies at the limit and above it, with and without saying how long they are.
func TestBodyLimits(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.MessageBytes = 100_000 })
	for _, tc := range []struct {
		name   string
		size   int
		known  bool
		status int
	}{
		{"at the limit", 100_000, true, 202},
		{"above", 100_001, true, 413},
		{"at the limit, in chunks", 100_000, false, 202},
		{"above, in chunks", 100_001, false, 413},
	} {
		var body io.Reader = strings.NewReader(strings.Repeat("x", tc.size))
		if !tc.known {
			body = struct{ io.Reader }{body}
		}
		req, _ := http.NewRequest("POST", w.URL()+"/v1/ingest/auto", body)
		req.Header.Set("Authorization", "Bearer "+secrets["bound"])
		if status, _ := answer(t, client(t), req); status != tc.status {
			t.Errorf("%s: got %d, want %d", tc.name, status, tc.status)
		}
	}
	var got []ingest.Message
	w.ingest.mu.Lock()
	got = w.ingest.got
	w.ingest.mu.Unlock()
	if len(got) != 2 || len(got[1].Body) != 100_000 || got[1].Sensor != "A7-1" || got[1].Format != "auto" {
		t.Errorf("%d messages got through", len(got))
	}
}

// TestJSONAttacks sends JSON that two programs would read differently, or that is deep.
func TestJSONAttacks(t *testing.T) {
	w := newWorld(t, withRogues(t))
	read := fmt.Sprintf(`"sensor":"A7-1","ts":%d`, testNow.UnixMilli())
	for _, tc := range []struct {
		name, body string
		status     int
	}{
		{"a name twice", `{"plate":"AB123CD","plate":"ZZ999ZZ",` + read + `}`, 422},
		{"a name in two ways", `{"plate":"AB123CD","Plate":"ZZ999ZZ",` + read + `}`, 422},
		{"arrays 100,000 deep", strings.Repeat("[", 100_000), 400},
		{"objects 100,000 deep", `{` + read + `,"plate":"AB123CD","x":` + strings.Repeat(`{"a":`, 100_000) + `1` + strings.Repeat(`}`, 100_001), 400},
		{"a million names", `{` + read + `,"plate":"AB123CD"` + manyNames(1_000_000) + `}`, 422},
	} {
		t.Run(tc.name, func(t *testing.T) {
			grown, took := w.peak(t, func() {
				req, _ := http.NewRequest("POST", w.URL()+"/v1/reads", strings.NewReader(tc.body))
				req.Header.Set("Authorization", "Bearer "+rogue(0))
				req.Header.Set("Content-Type", "application/json")
				if status, kind := answer(t, client(t), req); status != tc.status {
					t.Errorf("got %d %s, want %d", status, kind, tc.status)
				}
			})
			if grown > 64<<20 {
				t.Errorf("the heap grew by %d MiB", grown>>20)
			}
			good(t, took)
		})
	}
}

// decoding takes messages with the mappers of the vendors' formats, and keeps nothing.
type decoding struct{}

func (decoding) Ingest(_ context.Context, in ingest.Message) (ingest.Result, error) {
	msg, err := format.Decode(in.Format, format.Input{ContentType: in.ContentType, Body: in.Body, Received: testNow})
	switch {
	case errors.Is(err, format.ErrFormat):
		return ingest.Result{}, ingest.ErrFormat
	case err != nil:
		return ingest.Result{}, fmt.Errorf("%w: %w", ingest.ErrMessage, err)
	}
	return ingest.Result{Accepted: len(msg.Sightings), Rejected: msg.Rejected, Heartbeat: msg.Heartbeat}, nil
}

// TestMessageAttacks sends what breaks careless readers of XML, JSON and forms.
func TestMessageAttacks(t *testing.T) {
	const alert = `<EventNotificationAlert version="2.0" xmlns="http://www.hikvision.com/ver20/XMLSchema">`
	var entities strings.Builder
	entities.WriteString(`<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "aaaaaaaaaa">`)
	for i := range 12 {
		fmt.Fprintf(&entities, `<!ENTITY a%d "%s">`, i+1, strings.Repeat(fmt.Sprintf("&a%d;", i), 10))
	}
	entities.WriteString(`]>` + alert + `<licensePlate>&a12;</licensePlate></EventNotificationAlert>`)
	part := "--b\r\nContent-Disposition: form-data; name=\"a.xml\"\r\n\r\n"

	w := newWorld(t, withRogues(t), func(c *Config) { c.Ingest, c.Formats = decoding{}, format.Names() })
	for _, tc := range []struct {
		name, contentType, body string
		status                  int
		why                     string // in the detail of the answer
	}{
		{"XML entities that multiply", "application/xml", entities.String(), 400, "DOCTYPE"},
		{"XML of another file", "application/xml", `<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>` + alert + `<licensePlate>&f;</licensePlate></EventNotificationAlert>`, 400, "DOCTYPE"},
		{"XML 100,000 deep", "application/xml", alert + strings.Repeat("<a>", 100_000) + strings.Repeat("</a>", 100_000) + "</EventNotificationAlert>", 400, "nested too deeply"},
		{"XML 100,000 deep, left open", "application/xml", strings.Repeat("<a>", 100_000), 400, "nested too deeply"},
		{"a million attributes", "application/xml", strings.TrimSuffix(alert, ">") + manyAttributes(1_000_000) + "/>", 413, "at most 8388608 bytes"},
		{"as many attributes as a message holds", "application/xml", strings.TrimSuffix(alert, ">") + manyAttributes(500_000) + "/>", 400, "too many attributes"},
		{"a name twice", "application/json", `{"data_type":"alpr_group","data_type":"heartbeat","version":2,"epoch_start":1,"best_plate_number":"AB123CD"}`, 400, "a name twice"},
		{"JSON 100,000 deep", "application/json", `{"data_type":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}", 400, "nested too deeply"},
		{"half a million names", "application/json", `{"data_type":"alpr_group"` + manyNames(500_000) + "}", 400, "too many values"},
		{"a form without end", "multipart/form-data; boundary=b", part + strings.Repeat("x", 4<<20), 400, "last boundary"},
		{"a form of parts without end", "multipart/form-data; boundary=b", strings.Repeat(part+"x\r\n", 60_000), 400, "too many parts"},
		{"a form of one header without end", "multipart/form-data; boundary=b", "--b\r\nX: " + strings.Repeat("x", 4<<20), 400, "boundary"},
		{"a form without a boundary", "multipart/form-data", part, 400, "boundary of the content type: is missing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			grown, took := w.peak(t, func() {
				for i := range 3 {
					req, _ := http.NewRequest("POST", w.URL()+"/v1/ingest/auto", strings.NewReader(tc.body))
					req.Header.Set("Authorization", "Bearer "+rogue(i))
					req.Header.Set("Content-Type", tc.contentType)
					res, err := client(t).Do(req)
					if err != nil {
						t.Error(err)
						return
					}
					var p Problem
					decodeProblem(t, res, &p)
					if res.StatusCode != tc.status || !strings.Contains(p.Detail, tc.why) {
						t.Errorf("got %d %+v, want %d because of %q", res.StatusCode, p, tc.status, tc.why)
					}
				}
			})
			if grown > 64<<20 {
				t.Errorf("the heap grew by %d MiB", grown>>20)
			}
			good(t, took)
		})
	}
}

func manyAttributes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ` a%d="x"`, i)
	}
	return b.String()
}

func manyNames(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"n%d":1`, i)
	}
	return b.String()
}
