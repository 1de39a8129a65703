//go:build linux

package chaos

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"vigie/stream/ledger"
)

// queue is where the alerts of a load go: vigie load makes its list so.
const queue = "load"

// plan is the load of a trial.
type plan struct {
	rate     int
	duration time.Duration
	share    float64 // of reads that are of wanted plates; 0.05 when 0
	changes  float64 // of the list, per second
	via      string  // gateway when empty
	// staleness is how old the lists may be by which a read is matched: what a matcher that is
	// cut off from Kafka may go on with. 250 ms when 0.
	staleness time.Duration
}

// cutOff is the staleness where matchers are cut off from Kafka: they go on for a second
// (stream.Config.MaxListAge) by the lists that they have.
const cutOff = 1250 * time.Millisecond

// trial is one fault under one load: begin, strike, heal, finish.
type trial struct {
	*site
	res     *result
	gateway *process
	watched []*watched
	probe   *probe
	ledger  string

	cmd   *exec.Cmd     // the load
	said  bytes.Buffer  // by it, on stderr; once ended is closed
	ended chan struct{} // closed when it has ended

	warmed  int64       // alerts of the warming load
	strikes []time.Time // injections
	heals   []time.Time // mendings

	// settleWithin is how long memory may take to come back to its base; 0 leaves it to the
	// test to bound.
	settleWithin time.Duration

	staleness time.Duration // see plan
}

// begin loads a site whose processes run: first until their connections and memory are as they
// will be, which is the base that they must come back to, and then for the trial. It returns
// when the load is under way. Reads and list changes go through gateway; watch are the
// processes whose footprints are compared.
func (s *site) begin(fault string, p plan, gateway *process, watch ...*process) *trial {
	s.t.Helper()
	tr := &trial{
		site: s, res: &result{Fault: fault, Test: s.t.Name()}, gateway: gateway,
		ledger: filepath.Join(s.dir, "ledger.jsonl"), ended: make(chan struct{}),
		settleWithin: settleWithin, staleness: cmp.Or(p.staleness, 250*time.Millisecond),
	}
	s.t.Cleanup(func() {
		tr.res.Failed = s.t.Failed()
		lab.mu.Lock()
		defer lab.mu.Unlock()
		lab.results = append(lab.results, tr.res)
	})
	tr.probe = s.newProbe(gateway)
	s.until("the matchers work on every partition", tr.probe.reaches)
	s.until("the matchers share the partitions", func() bool { return shared(watch) })
	warm := p
	warm.duration = 2 * time.Second
	s.vigie(tr.loadArgs("warm", filepath.Join(s.dir, "warm.jsonl"), warm)...)
	s.until("the warming load is processed", func() bool { return s.lag() == 0 })
	tr.warmed = s.length(queue)
	for _, w := range slices.Concat(watch, []*process{gateway}) {
		tr.watched = append(tr.watched, s.watch(w))
	}
	tr.load(p)
	tr.probe.start()
	s.t.Cleanup(tr.probe.stop)
	return tr
}

// load starts the load of the trial and returns when it sends.
func (tr *trial) load(p plan) {
	tr.t.Helper()
	tr.cmd = tr.command(tr.loadArgs("load", tr.ledger, p)...)
	stderr, err := tr.cmd.StderrPipe()
	if err != nil {
		tr.t.Fatal(err)
	}
	if err := tr.cmd.Start(); err != nil {
		tr.t.Fatal(err)
	}
	sending := make(chan struct{})
	go func() {
		told := false
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintf(&tr.said, "%s\n", lines.Bytes())
			if !told && strings.Contains(lines.Text(), "; sending ") {
				told = true
				close(sending)
			}
		}
		_ = tr.cmd.Wait() // ProcessState says how it ended
		close(tr.ended)
	}()
	tr.t.Cleanup(func() { _ = tr.cmd.Process.Kill(); <-tr.ended })
	select {
	case <-sending:
	case <-tr.ended:
		tr.t.Fatalf("the load does not start: %s", &tr.said)
	case <-time.After(patience):
		tr.t.Fatal("the load does not start")
	}
}

// shared reports whether each of the matchers has a part of the partitions, and together they
// have all: then their footprints can be compared.
func shared(matchers []*process) bool {
	all, generation := 0, int64(0)
	for _, p := range matchers {
		generation = max(generation, p.assignment.Load().generation)
	}
	for _, p := range matchers {
		a := p.assignment.Load()
		if a.generation != generation || len(a.partitions) == 0 {
			return false
		}
		all += len(a.partitions)
	}
	return all == partitions
}

// loadArgs are the arguments of vigie for a load onto a list of its own.
func (tr *trial) loadArgs(list, path string, p plan) []string {
	token := func(name, secret string) string {
		file := filepath.Join(tr.dir, name)
		if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
			tr.t.Fatal(err)
		}
		return file
	}
	if p.share == 0 {
		p.share = 0.05
	}
	if p.via == "" {
		p.via = "gateway"
	}
	return []string{"load", "--server", tr.gateway.url, "--list", list, "--ledger", path, "--via", p.via,
		"--rate", fmt.Sprint(p.rate), "--duration", p.duration.String(), "--wanted-share", fmt.Sprint(p.share),
		"--entries", "40", "--changes-per-second", fmt.Sprint(p.changes), "--seed", fmt.Sprint(lab.seed + uint64(len(list))),
		"--token-file", token("operator.token", operatorToken), "--sensor-token-file", token("sensor.token", sensorToken), "-o", "json"}
}

// loading reports whether the load still sends.
func (tr *trial) loading() bool {
	select {
	case <-tr.ended:
		return false
	default:
		return true
	}
}

// strike notes that a fault begins now. The first one must find alerts under way: some stored,
// and more to come, which finish looks at.
func (tr *trial) strike() {
	tr.t.Helper()
	if !tr.loading() {
		tr.t.Fatal("the load has ended before the fault: the plan of this test is too short")
	}
	if len(tr.strikes) == 0 {
		tr.until("alerts are under way", func() bool {
			tr.res.StoredAtStrike = tr.length(queue) - tr.warmed
			return tr.res.StoredAtStrike > 0
		})
	}
	tr.strikes = append(tr.strikes, time.Now())
}

// heal notes that what was broken is whole again: recovery counts from here.
func (tr *trial) heal() { tr.heals = append(tr.heals, time.Now()) }

// shown notes what showed that the fault has hit.
func (tr *trial) shown(format string, args ...any) {
	tr.t.Helper()
	text := fmt.Sprintf(format, args...)
	tr.t.Log(text)
	tr.res.Shown = append(tr.res.Shown, text)
}

// finish ends a trial whose faults are healed: it waits until everything is processed, judges
// the history, and shows that the judge is not blind. Survivors stand for the watched
// processes that were replaced, by name.
func (tr *trial) finish(survivors ...*process) *ledger.Report {
	tr.t.Helper()
	select {
	case <-tr.ended:
	case <-time.After(patience + 60*time.Second):
		tr.t.Fatal("the load does not end")
	}
	if code := tr.cmd.ProcessState.ExitCode(); code != 0 {
		tr.t.Errorf("vigie load: exit code %d\n%s", code, &tr.said)
	}
	tr.until("the lag is 0", func() bool { return tr.lag() == 0 })
	tr.probe.recovered(tr.t) // a second's worth of probes after everything
	tr.until("the lag is 0 after the last probe", func() bool { return tr.lag() == 0 })
	tr.probe.judge(tr)

	lag := tr.probe.longest
	rep, code, _ := tr.look(tr.ledger, lag, 10*time.Second)
	if code != 0 {
		// A read that was taken while no probe was may have waited longer than any of them.
		lag = max(lag, time.Duration(rep.StoredMS.Max)*time.Millisecond)
		rep = tr.check(tr.ledger, lag, 0)
	}
	tr.res.Reads, tr.res.Expected, tr.res.Found, tr.res.Allowed = rep.Reads, rep.Expected, rep.Found, rep.Allowed
	tr.res.Duplicates, tr.res.Rematched = rep.Count(ledger.Repeat), rep.HitRepeats
	tr.res.P99MS = rep.StoredMS.P99
	if total := tr.length(queue) - tr.warmed; tr.res.StoredAtStrike >= total {
		tr.t.Errorf("%d of %d alerts were stored when the fault began: it hit nothing", tr.res.StoredAtStrike, total)
	}
	if rep.Expected < 20 || rep.OffsetSamples == 0 {
		tr.t.Errorf("%d alerts were expected and %d offsets compared: that shows little", rep.Expected, rep.OffsetSamples)
	}
	tr.settle(survivors)
	tr.spoil(lag)
	return rep
}

// look runs vigie load check and returns its report, its exit code and what it said beside. A
// read may have waited for lag until it was matched, and a second more on a busy machine; alerts
// that are missing are waited for.
func (tr *trial) look(path string, lag, wait time.Duration) (rep *ledger.Report, code int, said string) {
	tr.t.Helper()
	cmd := tr.command("load", "check", "--ledger", path, "--staleness", tr.staleness.String(), "--lag", (lag + time.Second).String(), "--wait", wait.String(), "-o", "json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, _ := cmd.Output() // the code is looked at
	rep = new(ledger.Report)
	if err := json.Unmarshal(out, rep); err != nil {
		tr.t.Fatalf("vigie load check: %v, %v\n%s%s", cmd.ProcessState, err, out, &stderr)
	}
	return rep, cmd.ProcessState.ExitCode(), stderr.String()
}

// check is look at a history whose check must end with the code.
func (tr *trial) check(path string, lag time.Duration, code int) *ledger.Report {
	tr.t.Helper()
	wait := 10 * time.Second
	if code != 0 {
		wait = 0
	}
	rep, got, said := tr.look(path, lag, wait)
	if got != code {
		tr.t.Errorf("vigie load check: code %d, want %d\n%s", got, code, said)
		kinds := map[ledger.Kind]int{}
		for i, v := range rep.Violations {
			if kinds[v.Kind]++; i < 10 {
				tr.t.Log(v)
			}
		}
		tr.t.Logf("violations: %v", kinds)
		tr.explain(rep.Violations)
	}
	return rep
}

// spoil takes one alert of the history away, repeats one, makes one up and rewinds an offset:
// the check that has just passed must see each.
func (tr *trial) spoil(lag time.Duration) {
	tr.t.Helper()
	var alerts []redis.XMessage
	for _, m := range tr.stored(queue) {
		if m.Values["kind"] == "alert" && m.Values["list"] == "load" {
			alerts = append(alerts, m)
		}
	}
	if len(alerts) < 3 {
		tr.t.Fatalf("%d alerts", len(alerts))
	}
	ghost := map[string]any{}
	var data map[string]any
	if err := json.Unmarshal([]byte(alerts[2].Values["data"].(string)), &data); err != nil {
		tr.t.Fatal(err)
	}
	data["id"] = "never"
	data["read"].(map[string]any)["id"] = "never-sent"
	text, err := json.Marshal(data)
	if err != nil {
		tr.t.Fatal(err)
	}
	maps.Copy(ghost, alerts[2].Values)
	ghost["id"], ghost["data"] = "never", text
	inRedis(tr.site, func(rdb *redis.Client) ([]redis.Cmder, error) {
		return rdb.Pipelined(context.Background(), func(p redis.Pipeliner) error {
			p.XDel(context.Background(), tr.key(queue), alerts[0].ID)
			p.XAdd(context.Background(), &redis.XAddArgs{Stream: tr.key(queue), Values: alerts[1].Values})
			p.XAdd(context.Background(), &redis.XAddArgs{Stream: tr.key(queue), Values: ghost})
			return nil
		})
	})
	rep := tr.check(tr.rewound(), lag, 2)
	for _, k := range []ledger.Kind{ledger.Missing, ledger.Repeat, ledger.Ghost, ledger.Rewound} {
		if rep.Count(k) == 0 {
			tr.t.Errorf("the check does not see what was spoiled: %s", k)
		}
	}
	tr.res.Control = "the same history spoiled: missing, repeat, ghost and rewound are each reported"
}

// rewound is a copy of the ledger in which the highest offset went back once.
func (tr *trial) rewound() string {
	tr.t.Helper()
	b, err := os.ReadFile(tr.ledger)
	if err != nil {
		tr.t.Fatal(err)
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	at := -1
	var high ledger.Offset
	for i, line := range lines {
		if !bytes.HasPrefix(line, []byte(`{"offset"`)) {
			continue
		}
		var rec ledger.Record
		if err := json.Unmarshal(line, &rec); err != nil {
			tr.t.Fatal(err)
		}
		if rec.Offset.Committed >= high.Committed {
			at, high = i, *rec.Offset
		}
	}
	if at < 0 {
		tr.t.Fatal("the ledger has no offsets")
	}
	high.Committed--
	high.At++
	line, err := json.Marshal(ledger.Record{Offset: &high})
	if err != nil {
		tr.t.Fatal(err)
	}
	path := filepath.Join(tr.dir, "rewound.jsonl")
	all := slices.Concat(lines[:at+1], [][]byte{line, []byte("\n")}, lines[at+1:])
	if err := os.WriteFile(path, bytes.Join(all, nil), 0o600); err != nil {
		tr.t.Fatal(err)
	}
	return path
}
