package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"go.uber.org/zap"

	"vigie/cmd/vigie/internal/app"
	"vigie/cmd/vigie/internal/config"
	"vigie/sensors"
	"vigie/sensors/ingest"
	"vigie/sensors/mqtt"
	"vigie/sensors/passage"
	"vigie/sensors/sim/wire"
	"vigie/stream/streamtest"
)

// carried is a carrier that keeps what it is given.
type carried struct {
	takes time.Duration
	// do says what becomes of a message, of which n tries were made before; all are taken when
	// nil.
	do func(m *wire.Message, n int) reply

	mu   sync.Mutex
	n    map[*wire.Message]int
	sent []wire.Message // that were taken, with the time at which they came in Due
	late time.Duration  // the most that one came after it was due
}

func (c *carried) send(ctx context.Context, m *wire.Message) (reply, error) {
	came := time.Now()
	select {
	case <-time.After(c.takes):
	case <-ctx.Done():
		return reply{silent: true, again: againUsual}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.do != nil {
		if c.n == nil {
			c.n = map[*wire.Message]int{}
		}
		c.n[m]++
		if r := c.do(m, c.n[m]-1); r.again > 0 {
			return r, nil
		}
	}
	c.late = max(c.late, came.Sub(m.Due))
	c.sent = append(c.sent, *m)
	return reply{counts: simCounts{Accepted: one(m.Read != nil)}}, nil
}

// ordered fails unless the messages of each device came in their order.
func (c *carried) ordered(t *testing.T) {
	t.Helper()
	last := map[string]time.Time{}
	for _, m := range c.sent {
		if m.Due.Before(last[m.Sensor]) {
			t.Fatalf("messages of %s come in another order", m.Sensor)
		}
		last[m.Sensor] = m.Due
	}
}

// simulate carries out a plan in fake time.
func simulate(t *testing.T, ctx context.Context, c *carried) (*simSummary, time.Duration, error) {
	t.Helper()
	s := &simulation{
		to: "http://127.0.0.1:1", plan: wire.Config{Sensors: 10, Rate: 50, Seed: 4, Outage: 0.05, Retransmit: 0.02},
		duration: 20 * time.Second, patience: 5 * time.Second, drain: 30 * time.Second, carrier: c,
	}
	if err := s.prepare(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err := s.perform(ctx)
	return s.summary(err != nil), time.Since(began), err
}

// Messages go out when they are due, whatever becomes of them, and those of one device one after
// the other.
func TestSimPace(t *testing.T) {
	t.Setenv("VIGIE_TOKEN", "t")
	tests := []struct {
		name    string
		carrier *carried
		check   func(t *testing.T, sum *simSummary, c *carried, took time.Duration)
	}{
		{"at once", &carried{}, func(t *testing.T, sum *simSummary, c *carried, took time.Duration) {
			if c.late != 0 || took > 20*time.Second || sum.Retries+sum.Errors+sum.Unanswered != 0 || sum.AnswerMS.P99 > 0.02 {
				t.Errorf("%v late, took %v, %+v", c.late, took, sum)
			}
		}},
		{"slow answers", &carried{takes: 400 * time.Millisecond}, func(t *testing.T, sum *simSummary, c *carried, took time.Duration) {
			if c.late == 0 || took < 20*time.Second || math.Abs(sum.AnswerMS.P50-400) > 8 || math.Abs(sum.AnswerMS.P99-400) > 8 {
				t.Errorf("%v late, took %v, %+v", c.late, took, sum)
			}
		}},
		{"every tenth is put off", &carried{do: func(m *wire.Message, n int) reply {
			return reply{again: time.Duration(one(n == 0 && m.Due.UnixMilli()%10 == 0)) * 2 * time.Second}
		}}, func(t *testing.T, sum *simSummary, c *carried, _ time.Duration) {
			if sum.Retries < sum.Messages/20 || sum.Retries > sum.Messages/5 || c.late < 2*time.Second {
				t.Errorf("%v late, %+v", c.late, sum)
			}
		}},
		{"away for 10 s", &carried{do: func(_ *wire.Message, n int) reply {
			if n < 10 {
				return reply{silent: true, again: againUsual}
			}
			return reply{}
		}}, func(t *testing.T, sum *simSummary, _ *carried, took time.Duration) {
			// Each message takes 10 s then, and one after the other that is too long.
			if sum.Unanswered == 0 || sum.Errors < 10*sum.Answered || took > 51*time.Second || took < 49*time.Second {
				t.Errorf("took %v, %+v", took, sum)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := tt.carrier
				sum, took, err := simulate(t, t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				c.ordered(t)
				tt.check(t, sum, c, took)
				if sum.Messages < 900 || sum.Messages > 1200 || sum.Behind != 0 || sum.Dropped != 0 ||
					sum.Answered+sum.Unanswered != sum.Messages || int64(len(c.sent)) != sum.Answered || sum.Accepted != sum.Reads || sum.Late == 0 || sum.Repeated == 0 {
					t.Errorf("%d arrived, %+v", len(c.sent), sum)
				}
			})
		})
	}
}

// The messages of two runs of a seed are the same, and those of another are not.
func TestSimSameSeed(t *testing.T) {
	t.Setenv("VIGIE_TOKEN", "t")
	bodies := func() (out []string) {
		synctest.Test(t, func(t *testing.T) {
			c := &carried{}
			if _, _, err := simulate(t, t.Context(), c); err != nil {
				t.Fatal(err)
			}
			for _, m := range c.sent {
				out = append(out, m.Sensor+" "+string(m.Body))
			}
		})
		slices.Sort(out) // devices speak at the same time
		return out
	}
	if a, b := bodies(), bodies(); !slices.Equal(a, b) || len(a) < 900 {
		t.Errorf("%d and %d messages of one seed are not the same", len(a), len(b))
	}
}

func TestSimStopped(t *testing.T) {
	t.Setenv("VIGIE_TOKEN", "t")
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), 7*time.Second)
		defer stop()
		c := &carried{do: func(*wire.Message, int) reply { return reply{again: time.Minute} }}
		sum, took, err := simulate(t, ctx, c)
		if !errors.Is(err, context.DeadlineExceeded) || !sum.Stopped || took != 9*time.Second || sum.Unanswered != sum.Messages {
			t.Errorf("took %v, %v, %+v", took, err, sum)
		}
	})
}

// When the gateway says that sending on is of no use, nothing more is sent.
func TestSimFatal(t *testing.T) {
	t.Setenv("VIGIE_TOKEN", "t")
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"type":"urn:vigie:problem:bad-token","title":"This token is not known here","status":401,"mend":"check the token"}`)
	}))
	defer gateway.Close()
	out, _, err := inProcess(t.Context(), "sim", "--to", gateway.URL, "--rate", "500", "--duration", "1m")
	if err == nil || !strings.Contains(err.Error(), "This token is not known here; check the token") || out != "" {
		t.Errorf("%v\n%s", err, out)
	}
}

// Ctrl-C and refused data: the summary is printed all the same, and the exit codes tell them apart.
func TestSimEnds(t *testing.T) {
	t.Setenv("VIGIE_TOKEN", "t")
	code, body := http.StatusAccepted, `{"accepted":1,"rejected":[]}`
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		io.WriteString(w, body)
	}))
	defer gateway.Close()
	ctx, stop := context.WithCancel(t.Context())
	time.AfterFunc(500*time.Millisecond, stop)
	out, _, err := inProcess(ctx, "sim", "--to", gateway.URL, "--format", "native", "--rate", "200", "--duration", "1m", "-o", "json")
	if err == nil || err.Error() != "stopped before the end of the plan" || !strings.Contains(out, `"stopped": true`) {
		t.Errorf("stopped: %v\n%s", err, out)
	}
	for code, body = range map[int]string{http.StatusUnprocessableEntity: "{}", http.StatusUnsupportedMediaType: "{}"} {
		out, _, err = inProcess(t.Context(), "sim", "--to", gateway.URL, "--format", "native", "--rate", "200", "--duration", "300ms")
		var coded *exitError
		if !errors.As(err, &coded) || coded.code != 2 || !strings.Contains(out, " messages of ") {
			t.Errorf("%d: %v\n%s", code, err, out)
		}
	}
}

// What each answer of a gateway means.
func TestSimAnswers(t *testing.T) {
	tests := []struct {
		code   int
		retry  string
		body   string
		format string
		want   reply
		fatal  string
	}{
		{202, "", `{"accepted":1,"rejected":[],"suppressed":2}`, "axis", reply{counts: simCounts{Accepted: 1, Suppressed: 2}}, ""},
		{200, "", `{"accepted":0,"rejected":[{"index":0,"reason":"x"}],"heartbeat":true}`, "dahua", reply{counts: simCounts{Rejected: 1}}, ""},
		{202, "", `{"accepted":3,"quarantined":2,"rejected":[]}`, "axis", reply{counts: simCounts{Accepted: 3, Quarantined: 2}}, ""},
		{202, "", `{"accepted":3,"quarantined":2,"rejected":[]}`, wire.Native, reply{counts: simCounts{Accepted: 1, Quarantined: 2}}, ""},
		{202, "", `hello`, "axis", reply{}, "something else than Vigie"},
		{202, "", `{}`, "axis", reply{}, "something else than Vigie"},
		{503, "7", ``, "axis", reply{again: 7 * time.Second}, ""},
		{503, "86400", ``, "axis", reply{again: againMost}, ""},
		{503, "", ``, "axis", reply{again: againUsual}, ""},
		{500, "-1", ``, "axis", reply{again: againUsual}, ""},
		{429, "2", ``, "axis", reply{again: 2 * time.Second}, ""},
		{408, "", ``, "axis", reply{again: againUsual}, ""},
		{422, "", `{"title":"x"}`, "axis", reply{counts: simCounts{Rejected: 1}}, ""},
		{400, "", ``, "axis", reply{refused: true}, ""},
		{415, "", ``, "axis", reply{refused: true}, ""},
		{413, "", ``, "axis", reply{refused: true}, ""},
		{404, "", `{"title":"There is nothing at this address"}`, "axis", reply{}, "There is nothing at this address"},
		{404, "", `nginx`, "axis", reply{}, "404 Not Found, which Vigie does not"},
		{302, "", ``, "axis", reply{}, "302 Found"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.code, " ", tt.body), func(t *testing.T) {
			gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if b, _ := io.ReadAll(r.Body); string(b) != "body" || r.Header.Get("Authorization") != "Bearer secret" ||
					r.Header.Get("Content-Type") != "text/x" || r.URL.String() != "/v1/ingest/x?sensor=y" {
					t.Errorf("request %s %v", r.URL, r.Header)
				}
				if tt.retry != "" {
					w.Header().Set("Retry-After", tt.retry)
				}
				w.WriteHeader(tt.code)
				io.WriteString(w, tt.body)
			}))
			defer gateway.Close()
			g := newGatewayCarrier(gateway.URL+"/", "secret", 1)
			defer g.http.CloseIdleConnections()
			m := &wire.Message{Format: tt.format, Path: "/v1/ingest/x?sensor=y", ContentType: "text/x", Body: []byte("body")}
			got, err := g.send(t.Context(), m)
			if got != tt.want || (err == nil) != (tt.fatal == "") || err != nil && !strings.Contains(err.Error(), tt.fatal) {
				t.Errorf("got %+v, %v, want %+v, %q", got, err, tt.want, tt.fatal)
			}
			gateway.Close()
			if got, err := g.send(t.Context(), m); !got.silent || got.again != againUsual || err != nil {
				t.Errorf("nobody there: %+v, %v", got, err)
			}
		})
	}
}

// sums fails unless every message and every read of a summary is accounted for.
func (s *simSummary) sums(t *testing.T) {
	t.Helper()
	if s.Messages != s.Answered+s.Unanswered+s.Dropped || s.Reads != s.Accepted+s.Suppressed+s.Rejected+s.Quarantined || s.Passages == 0 {
		t.Errorf("the summary does not add up: %+v", s)
	}
}

// All formats at once, with every fault, to a whole service.
func TestSimEmbedded(t *testing.T) {
	cfg, err := config.Load("", nil, map[string]string{"http.addr": "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(t.Context(), cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	if err := a.Replica().WaitCaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	token := secretFile(t, a.Secrets()["sensor"])
	out, progress, err := inProcess(ctx, "sim", "--to", a.URL(), "--token-file", token, "--sensors", "27", "--rate", "200", "--duration", "4s",
		"--misreads", "0.1", "--outage", "0.2", "--skew", "0.3", "--retransmit", "0.05", "-o", "json")
	if err != nil {
		t.Fatalf("vigie sim: %v\n%s%s", err, progress, out)
	}
	var sum simSummary
	if err := json.Unmarshal([]byte(out), &sum); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	sum.sums(t)
	if sum.Messages < 500 || sum.Unanswered+sum.Dropped+sum.Refused+sum.Rejected != 0 || sum.Suppressed == 0 || sum.Repeated == 0 || sum.Stopped {
		t.Errorf("summary: %s", out)
	}
	t.Logf("%s", out)

	out, _, err = inProcess(ctx, "sim", "--to", a.URL(), "--token-file", token, "--rate", "100", "--duration", "1s", "--format", "hikvision", "--late")
	if err != nil || !strings.Contains(out, " reads: ") || !strings.Contains(out, " 0 heartbeats") {
		t.Errorf("late: %v\n%s", err, out)
	}
	out, _, err = inProcess(ctx, "sim", "--to", a.URL(), "--token-file", secretFile(t, a.Secrets()["patrol"]), "--duration", "10s")
	if err == nil || !strings.Contains(err.Error(), "This token may not do that") || out != "" {
		t.Errorf("with the token of a patrol: %v\n%s", err, out)
	}
}

// memory is a Publisher that keeps reads.
type memory struct {
	mu    sync.Mutex
	reads []sensors.Read
}

func (m *memory) Publish(_ context.Context, reads []sensors.Read) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range reads {
		m.reads = append(m.reads, reads[i].Clone())
	}
	return nil
}

// Through a broker to the subscriber of a gateway: every message arrives.
func TestSimMQTT(t *testing.T) {
	server := mochi.New(&mochi.Options{InlineClient: true, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err := server.AddHook(new(allowAll), nil); err != nil {
		t.Fatal(err)
	}
	listener := listeners.NewTCP(listeners.Config{ID: "t", Address: "127.0.0.1:0"})
	if err := server.AddListener(listener); err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	to := "mqtt://" + listener.Address()

	kept := &memory{}
	gateway, err := sensors.New(sensors.Config{Publisher: kept})
	if err != nil {
		t.Fatal(err)
	}
	passages, err := passage.New(passage.Config{})
	if err != nil {
		t.Fatal(err)
	}
	in, err := ingest.New(ingest.Config{Gateway: gateway, Passages: passages})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	sub, err := mqtt.New(mqtt.Config{Servers: []string{to}, ClientID: "t", Topics: append(mqtt.DefaultTopics(), "vigie/#"), Ingest: in})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sub.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	streamtest.Eventually(t, patience, "the subscription", func() bool {
		return len(server.Topics.Subscribers("vigie/axis/x").Subscriptions) > 0 && len(server.Topics.Subscribers("frigate/events").Subscriptions) > 0
	})
	out, progress, err := inProcess(ctx, "sim", "--to", to, "--sensors", "16", "--rate", "150", "--duration", "3s", "--misreads", "0.1", "-o", "json")
	if err != nil {
		t.Fatalf("vigie sim: %v\n%s%s", err, progress, out)
	}
	var sum simSummary
	if err := json.Unmarshal([]byte(out), &sum); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	text := &strings.Builder{}
	if sum.write(text); !strings.Contains(text.String(), " published; ") {
		t.Errorf("for people: %s", text)
	}
	streamtest.Eventually(t, patience, "the messages", func() bool { return int64(sub.Stats().Stored) >= sum.Answered })
	stats, told := sub.Stats(), in.Stats()
	if sum.Messages < 300 || sum.Answered != sum.Messages || stats.Unusable+stats.RejectedReads+stats.Dropped != 0 || told.Garbled != 0 {
		t.Errorf("%+v\n%+v\n%+v", sum, stats, told)
	}
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if n := len(kept.reads); n < 100 || int64(n) > sum.Reads {
		t.Errorf("%d reads arrived of %d", n, sum.Reads)
	}
	from := map[string]bool{}
	for i := range kept.reads {
		from[kept.reads[i].Sensor] = true
	}
	if len(from) < 12 {
		t.Errorf("reads of %d sensors", len(from))
	}
}
