package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"vigie/cmd/vigie/internal/app"
	"vigie/cmd/vigie/internal/config"
	"vigie/cmd/vigie/internal/httpapi"
	"vigie/sensors"
	"vigie/stream/ledger"
)

// inProcess runs a command inside this process.
func inProcess(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	root := newRootCmd()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(ctx)
	return out.String(), errs.String(), err
}

// secretFile writes a token and returns its file.
func secretFile(t *testing.T, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// busy is how long a read may wait on a machine that runs all tests at once.
const busy = time.Second

// TestLoadEmbedded loads everything on embedded services for five seconds, with list
// changes, and the history is clean. The checker is not blind: what is taken away
// from the same history is missed.
func TestLoadEmbedded(t *testing.T) {
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

	// A matcher that has just started takes a moment until it has its partitions.
	s := &site{t: t}
	s.must(http.StatusAccepted, "POST", a.URL()+"/v1/reads", a.Secrets()["sensor"], jsonType, []sensors.Read{readOf("warm", "ZZ-999-ZZ")})
	s.until("the matcher works", func() bool {
		committed, err := a.Observer().Committed(ctx, cfg.Kafka.Group)
		return err == nil && slices.Max(committed) > 0
	})

	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	sampling, sampled := context.WithCancel(ctx)
	samples := make(chan []ledger.Offset, 1)
	go func() { samples <- sample(sampling, a.Observer(), cfg.Kafka.Group) }()
	out, progress, err := inProcess(ctx, "load", "--server", a.URL(), "--list", "load", "--ledger", path,
		"--rate", "500", "--duration", "5s", "--wanted-share", "0.2", "--misread-share", "0.05", "--entries", "40", "--changes-per-second", "10",
		"--token-file", secretFile(t, a.Secrets()["operator"]), "--sensor-token-file", secretFile(t, a.Secrets()["sensor"]), "-o", "json")
	if err != nil {
		t.Fatalf("vigie load: %v\n%s%s", err, progress, out)
	}
	var sum loadSummary
	if err := json.Unmarshal([]byte(out), &sum); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if sum.Reads.Sent != 2500 || sum.Reads.OK != 2500 || sum.Achieved > 510 || sum.Changes.OK < 40+5 || sum.Stopped {
		t.Errorf("summary: %s", out)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the ledger has mode %v, %v", info.Mode(), err)
	}

	h, err := loadLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	sampled()
	h.Offsets = <-samples
	seen := &recorded{observer: a.Observer()}
	rep, err := checkLedger(ctx, h, seen, ledger.Options{Lag: busy}, patience, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	writeReport(&text, &rep)
	t.Logf("\n%s", &text)
	if err := verdict(&rep); err != nil {
		t.Errorf("%v", err)
	}
	if rep.Expected < 100 || rep.Found != rep.Expected || !rep.HitsChecked || !rep.Complete || rep.OffsetSamples < 5 {
		t.Errorf("report: %+v", rep)
	}

	// The same history, spoiled.
	obs := seen.last
	for name, spoiled := range map[ledger.Kind]ledger.Observed{
		ledger.NotRecorded: {Queue: obs.Queue, Hits: []ledger.Alert{}},
		ledger.Missing:     {Queue: nil, Hits: obs.Hits},
		ledger.Repeat:      {Queue: append(slices.Clone(obs.Queue), obs.Queue...), Hits: obs.Hits},
	} {
		if rep := ledger.Check(h, spoiled, ledger.Options{Lag: busy}); rep.Count(name) == 0 || verdict(&rep) == nil {
			t.Errorf("%s goes unseen", name)
		}
	}

	// The list is not empty any more.
	_, _, err = inProcess(ctx, "load", "--server", a.URL(), "--list", "load", "--ledger", path+"2",
		"--token-file", secretFile(t, a.Secrets()["operator"]), "--sensor-token-file", secretFile(t, a.Secrets()["sensor"]))
	if err == nil || !strings.Contains(err.Error(), "vigie lists drop load") {
		t.Errorf("a second load on the same list: %v", err)
	}
	if _, err := os.Stat(path + "2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it has made a ledger: %v", err)
	}

	// A token that may not: the load stops at once, and the ledger says failed.
	_, _, err = inProcess(ctx, "load", "--server", a.URL(), "--list", "load-2", "--ledger", path+"3", "--entries", "1",
		"--token-file", secretFile(t, a.Secrets()["operator"]), "--sensor-token-file", secretFile(t, a.Secrets()["patrol"]))
	if err == nil || !strings.Contains(err.Error(), "--sensor-token-file") {
		t.Errorf("with a patrol's token: %v", err)
	}
	if h, err := loadLedger(path + "3"); err != nil || h.Ended || h.Reads.Fail == 0 || h.Reads.OK+h.Reads.Unknown != 0 {
		t.Errorf("its ledger: %+v, %v", h, err)
	}
}

// sample collects committed offsets until ctx ends.
func sample(ctx context.Context, o *app.Observer, group string) (all []ledger.Offset) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return all
		case <-tick.C:
		}
		committed, err := o.Committed(ctx, group)
		if err != nil {
			continue // there is no coordinator yet, or the test is over
		}
		for p, next := range committed {
			if next >= 0 {
				all = append(all, ledger.Offset{Partition: p, Committed: next, At: time.Now().UnixMicro()})
			}
		}
	}
}

// recorded keeps what an observer saw last.
type recorded struct {
	observer
	last ledger.Observed
}

func (r *recorded) Alerts(ctx context.Context, h ledger.Header) (ledger.Observed, error) {
	obs, err := r.observer.Alerts(ctx, h)
	r.last = obs
	return obs, err
}

// atWork serves a site and returns when its matcher has its partitions.
func (s *site) atWork() *process {
	s.t.Helper()
	p := s.serve("all")
	s.list(p, "exact")
	s.entry(p, "AB-123-CD")
	s.post(p, readOf("warm", "AB-123-CD"))
	s.until("the matcher works", func() bool { return len(s.stored()) > 0 })
	return p
}

// load is the command that loads the site through p.
func (s *site) load(p *process, path string, args ...string) *exec.Cmd {
	return s.command(append([]string{"load", "--server", p.url, "--list", "load", "--ledger", path,
		"--rate", "1000", "--wanted-share", "0.05", "--entries", "40", "--changes-per-second", "10",
		"--token-file", secretFile(s.t, operatorToken), "--sensor-token-file", secretFile(s.t, sensorToken)}, args...)...)
}

// TestLoad loads a real installation from outside, through the gateway and straight
// into Kafka; load check finds it clean, and sees an alert that is taken from Redis.
func TestLoad(t *testing.T) {
	for _, via := range []string{"gateway", "kafka"} {
		t.Run(via, func(t *testing.T) {
			s := newSite(t)
			path := filepath.Join(t.TempDir(), "ledger.jsonl")
			out, err := s.load(s.atWork(), path, "--via", via, "--duration", "5s").CombinedOutput()
			if err != nil {
				t.Fatalf("vigie load: %v\n%s", err, out)
			}
			t.Logf("%s", out)
			out, err = s.command("load", "check", "--ledger", path, "--lag", busy.String()).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("every promise was kept")) || bytes.Contains(out, []byte(" 0 samples of offsets")) {
				t.Fatalf("vigie load check: %v\n%s", err, out)
			}
			t.Logf("%s", out)

			h, err := loadLedger(path)
			if err != nil {
				t.Fatal(err)
			}
			rdb := redis.NewClient(&redis.Options{Addr: s.redis})
			defer rdb.Close()
			key := strings.TrimSuffix(s.prefix, ".") + ":{q:" + h.Header.Queue + "}:alerts"
			msgs, err := rdb.XRangeN(t.Context(), key, "-", "+", 1).Result()
			if err != nil || len(msgs) != 1 {
				t.Fatalf("%d messages, %v", len(msgs), err)
			}
			if err := rdb.XDel(t.Context(), key, msgs[0].ID).Err(); err != nil {
				t.Fatal(err)
			}
			lost := msgs[0].Values["id"].(string)
			check := s.command("load", "check", "--ledger", path, "--wait", "0s", "--lag", busy.String())
			out, err = check.CombinedOutput()
			if check.ProcessState.ExitCode() != 2 || !bytes.Contains(out, []byte("missing: alert "+lost)) {
				t.Errorf("with an alert lost: %v\n%s", err, out)
			}
			asJSON, _ := s.command("load", "check", "--ledger", path, "--wait", "0s", "--lag", busy.String(), "-o", "json").Output()
			var rep ledger.Report
			if err := json.Unmarshal(asJSON, &rep); err != nil || len(rep.Violations) != 1 || rep.Violations[0].Alert != lost {
				t.Errorf("as JSON: %v\n%s", err, asJSON)
			}
			out = append(out, asJSON...)
			// No plate of the ledger is in what was said.
			for plate := range platesOf(t, path) {
				if bytes.Contains(out, []byte(plate)) {
					t.Errorf("the check shows a plate")
				}
			}
		})
	}
}

// TestLoadCutShort kills a load with SIGKILL, and stops another with SIGINT: what it
// sent by then can be checked.
func TestLoadCutShort(t *testing.T) {
	s := newSite(t)
	p := s.atWork()
	for _, sig := range []os.Signal{os.Kill, os.Interrupt} {
		path := filepath.Join(t.TempDir(), "ledger.jsonl")
		list := map[os.Signal]string{os.Kill: "load-kill", os.Interrupt: "load-int"}[sig]
		cmd := s.load(p, path, "--duration", "1m", "--list", list, "--seed", strconv.Itoa(len(list)))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s.until("some reads are sent", func() bool {
			info, err := os.Stat(path)
			return err == nil && info.Size() > 300_000
		})
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if sig == os.Interrupt && (cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "the ledger holds what was sent") || !strings.Contains(out.String(), "reads sent: ")) {
			t.Errorf("stopped: %v\n%s", cmd.ProcessState, &out)
		}
		b, err := s.command("load", "check", "--ledger", path, "--lag", busy.String()).CombinedOutput()
		if err != nil || !bytes.Contains(b, []byte("was cut short")) || !bytes.Contains(b, []byte("every promise was kept")) {
			t.Errorf("after %v: %v\n%s", sig, err, b)
		}
		t.Logf("%v: %s", sig, b)
	}
}

func platesOf(t *testing.T, path string) map[string]bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := ledger.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	plates := map[string]bool{}
	for {
		rec, err := r.Next()
		if err != nil {
			break
		}
		if rec.Change != nil {
			plates[rec.Change.Plate] = true
			plates[strings.ReplaceAll(rec.Change.Plate, "-", "")] = true
		}
	}
	if len(plates) == 0 {
		t.Fatal("the ledger has no plates")
	}
	return plates
}

// TestGatewayResults: what an answer of the gateway says of the reads.
func TestGatewayResults(t *testing.T) {
	reads := []sensors.Read{{ID: "a"}, {ID: "b"}, {ID: "c"}}
	for _, tt := range []struct {
		name     string
		status   int
		body     string
		want     ledger.Result
		rejected []int
		useless  bool
	}{
		{"accepted", 202, `{"accepted":3,"rejected":[]}`, ledger.OK, nil, false},
		{"one rejected", 202, `{"accepted":2,"rejected":[{"index":1,"reason":"x"}]}`, ledger.OK, []int{1}, false},
		{"not Vigie", 202, `hello`, ledger.Unknown, nil, true},
		{"fewer than sent", 202, `{"accepted":2,"rejected":[]}`, ledger.Unknown, nil, true},
		{"another 2xx", 200, `{"accepted":3,"rejected":[]}`, ledger.Unknown, nil, false},
		{"all rejected", 422, `{}`, ledger.Fail, nil, false},
		{"bad token", 401, `{}`, ledger.Fail, nil, true},
		{"wrong role", 403, `{}`, ledger.Fail, nil, true},
		{"elsewhere", 302, ``, ledger.Fail, nil, false},
		{"Kafka away", 503, `{}`, ledger.Unknown, nil, false},
		{"failed", 500, `{}`, ledger.Unknown, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v1/reads" || r.Header.Get("Authorization") != "Bearer secret" || r.Header.Get("Content-Type") != "application/x-ndjson" {
					t.Errorf("request %s %v", r.URL, r.Header)
				}
				w.WriteHeader(tt.status)
				fmt.Fprint(w, tt.body)
			}))
			defer srv.Close()
			got, rejected, err := newGatewaySender(srv.URL, "secret", 1).send(t.Context(), reads)
			if got != tt.want || !slices.Equal(rejected, tt.rejected) || (err != nil) != tt.useless {
				t.Errorf("%s, rejected %v, %v", got, rejected, err)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		if got, _, err := newGatewaySender("http://"+freeAddr(t), "secret", 1).send(t.Context(), reads); got != ledger.Fail || err != nil {
			t.Errorf("%s, %v", got, err)
		}
	})
	t.Run("hangs up", func(t *testing.T) {
		srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
		defer srv.Close()
		if got, _, err := newGatewaySender(srv.URL, "secret", 1).send(t.Context(), reads); got != ledger.Unknown || err != nil {
			t.Errorf("%s, %v", got, err)
		}
	})
	t.Run("does not answer", func(t *testing.T) {
		release := make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
		defer srv.Close()
		defer close(release)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if got, _, err := newGatewaySender(srv.URL, "secret", 1).send(ctx, reads); got != ledger.Unknown || err != nil {
			t.Errorf("%s, %v", got, err)
		}
	})
}

func TestChangeResults(t *testing.T) {
	problem := func(status int) error { return &apiError{httpapi.Problem{Status: status}} }
	for _, tt := range []struct {
		err  error
		want ledger.Result
	}{
		{nil, ledger.OK},
		{problem(404), ledger.Fail},
		{refused(problem(422)), ledger.Fail},
		{problem(503), ledger.Unknown},
		{errors.New("did not answer"), ledger.Unknown},
		{fmt.Errorf("cannot reach: %w", os.NewSyscallError("connect", syscall.ECONNREFUSED)), ledger.Fail},
	} {
		if got := changeResult(tt.err); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.err, got, tt.want)
		}
	}
}

// hanging answers none of its sends until released.
type hanging struct {
	release chan struct{}
}

func (h *hanging) send(ctx context.Context, _ []sensors.Read) (ledger.Result, []int, error) {
	select {
	case <-h.release:
		return ledger.OK, nil, nil
	case <-ctx.Done():
		return ledger.Unknown, nil, nil
	}
}

// TestPaceDoesNotDrift: the answers do not slow the schedule down, and what a stall
// delays is sent after it, in the time that was planned, and counted.
func TestPaceDoesNotDrift(t *testing.T) {
	var b bytes.Buffer
	l := &load{plan: ledger.Plan{Run: "r", Rate: 1000, Duration: time.Second, Entries: 1, Sensors: 1}, every: 5 * time.Millisecond, flight: 1, patience: 300 * time.Millisecond, began: time.Now()}
	var err error
	if l.file, err = ledger.NewWriter(&b, ledger.Header{Plan: l.plan}); err != nil {
		t.Fatal(err)
	}
	g, err := ledger.NewGenerator(l.plan)
	if err != nil {
		t.Fatal(err)
	}
	s := &hanging{release: make(chan struct{})}
	l.sender = s
	time.AfterFunc(500*time.Millisecond, func() { close(s.release) })
	l.start = time.Now()
	if err := l.pace(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	sum := l.summary(false)
	if sum.Reads.Sent != 1000 || sum.Reads.OK+sum.Reads.Unknown != 1000 || sum.Reads.Unknown == 0 {
		t.Errorf("reads: %+v", sum.Reads)
	}
	if sum.Behind < 100 || sum.Behind > 700 || sum.MaxBehindMS < 100 {
		t.Errorf("%d reads are behind, by %v ms at most", sum.Behind, sum.MaxBehindMS)
	}
	if sum.Achieved < 900 || sum.Achieved > 1001 {
		t.Errorf("%v reads/s, planned were 1000", sum.Achieved)
	}
}
