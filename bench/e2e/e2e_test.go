//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"vigie/bench/workload"
	"vigie/sensors"
	"vigie/stream/alert"
	"vigie/watchlist/plate"
)

func TestParseStat(t *testing.T) {
	const line = "4242 (a ) b (c) S 1 4242 4242 0 -1 4194560 1234 0 0 0 1051 237 5 6 20 0 9 0 123456 1234567 890 18446744073709551615\n"
	got, err := parseStat([]byte(line))
	if want := 12880 * time.Millisecond; err != nil || got != want {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "4242", "4242 (a) S 1 2", strings.Replace(line, "1051", "x", 1)} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %v, want an error", bad, got)
		}
	}
}

func TestParseStatus(t *testing.T) {
	const text = "Name:\tvigie\nVmPeak:\t 1900 kB\nVmHWM:\t  204800 kB\nVmRSS:\t  102912 kB\nThreads:\t9\n"
	got, err := parseStatus([]byte(text))
	if want := (memory{now: 100.5, peak: 200}); err != nil || got != want {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "VmRSS:\t1 kB\n", strings.Replace(text, "102912", "x", 1)} {
		if got, err := parseStatus([]byte(bad)); err == nil {
			t.Errorf("%q: %v, want an error", bad, got)
		}
	}
}

// TestSelf: what this machine writes is what we parse.
func TestSelf(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	x := 1.0
	for began := time.Now(); time.Since(began) < 50*time.Millisecond; {
		x = math.Sqrt(x + 1)
	}
	after, err := cpuTime(os.Getpid())
	if err != nil || after <= before || x == 0 {
		t.Errorf("%v after %v, %v", after, before, err)
	}
	most := watchMemory(t.Context(), os.Getpid())
	if m := most(); m <= 0 || m != most() {
		t.Errorf("%v MiB in RAM", m)
	}
}

func TestSchedule(t *testing.T) {
	s := schedule{start: time.Unix(1000, 0), rate: 20_000}
	for n, want := range map[int64]time.Duration{0: 0, 1: 50 * time.Microsecond, 20_000: time.Second, 72_000_000: time.Hour} {
		if got := s.due(n).Sub(s.start); got != want {
			t.Errorf("read %d is due at %v, want %v", n, got, want)
		}
	}
	s.rate = 3 // no drift by rounding
	if got := s.due(3 * 3600).Sub(s.start); got != time.Hour {
		t.Errorf("at %v, want 1h", got)
	}
}

func TestTimes(t *testing.T) {
	due := time.UnixMilli(1_000_000)
	var fs []flight
	for i := range 1000 {
		at := due.Add(time.Duration(i+1) * time.Millisecond)
		fs = append(fs, flight{due: due, at: at, stored: at.UnixMilli() - 1})
	}
	patrol, redis := times(fs, due)
	if want := (spread{P50: 501, P99: 990, P999: 999, Max: 1000}); patrol != want {
		t.Errorf("patrol %+v, want %+v", patrol, want)
	}
	if want := (spread{P50: 500, P99: 989, P999: 998, Max: 999}); redis != want {
		t.Errorf("redis %+v, want %+v", redis, want)
	}
	// What has not come counts, or losing alerts would look fast.
	fs[0] = flight{due: due}
	if patrol, _ := times(fs, due.Add(time.Minute)); patrol.Max != 60_000 {
		t.Errorf("max %v, want a minute", patrol.Max)
	}
	if patrol, _ := times(nil, due); !math.IsNaN(patrol.P50) {
		t.Errorf("of nothing: %v", patrol)
	}
}

func TestJudge(t *testing.T) {
	expected := map[string]bool{"a": true, "b": true, "c": true}
	all := []string{"a", "b", "c"}
	for _, tt := range []struct {
		name          string
		queue, topic  []string
		want          verdict
		wantItIsRight bool
	}{
		{"right", all, all, verdict{Expected: 3, Found: 3}, true},
		{"again on the topic", all, append([]string{"b"}, all...), verdict{Expected: 3, Found: 3, Repeated: 1}, true},
		{"lost in the queue", all[:2], all, verdict{Expected: 3, Found: 2}, false},
		{"lost on the topic", all, all[1:], verdict{Expected: 3, Found: 2}, false},
		{"doubled", append([]string{"c", "c"}, all...), all, verdict{Expected: 3, Found: 3, Duplicates: 2}, false},
		{"made up", append([]string{"x"}, all...), append([]string{"x", "y"}, all...), verdict{Expected: 3, Found: 3, Unexpected: 2}, false},
		{"nothing", nil, nil, verdict{Expected: 3}, false},
	} {
		if got := judge(expected, tt.queue, tt.topic); got != tt.want || got.good() != tt.wantItIsRight {
			t.Errorf("%s: %+v, good %v, want %+v, %v", tt.name, got, got.good(), tt.want, tt.wantItIsRight)
		}
	}
}

func TestJudgeReplay(t *testing.T) {
	old := map[string]bool{"a": true, "b": true, "c": true}
	var r replayed
	r.judge([]alert.Alert{
		{ID: "a", Late: true}, {ID: "b", Late: true, Stop: true}, {ID: "c"},
		{ID: "x", Stop: true}, {ID: "y", Stop: true, Late: true}, {ID: "z"},
	}, old)
	if r.Alerts != 3 || r.Stops != 2 || r.Lates != 2 {
		t.Errorf("%d replayed, %d not late; %d live ones late; want 3, 2, 2", r.Alerts, r.Stops, r.Lates)
	}
}

func TestVerdictOf(t *testing.T) {
	most := budget{what: "cpu", value: 0.4, limit: 0.35}
	least := budget{what: "rate", value: 5e6, limit: 4e6, least: true}
	for _, tt := range []struct {
		name      string
		good, ask bool
		budgets   []budget
		wantBad   bool
	}{
		{"held", true, true, []budget{least}, false},
		{"missed", true, true, []budget{least, most}, true},
		{"missed, not asked", true, false, []budget{most}, false},
		{"lost alerts", false, false, nil, true},
		{"not measured", true, true, []budget{{what: "p99", value: math.NaN(), limit: 1}}, true},
	} {
		if err := verdictOf(tt.good, tt.ask, tt.budgets); errors.Is(err, errBad) != tt.wantBad {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestParseStages(t *testing.T) {
	got := parseStages([]byte(`# HELP vigie_stream_stage_seconds x
vigie_stream_stage_seconds_bucket{stage="fetch",le="0.1"} 7
vigie_stream_stage_seconds_sum{stage="fetch"} 1.25
vigie_stream_stage_seconds_count{stage="fetch"} 9
vigie_stream_stage_seconds_sum{stage="match"} 2.5e-03
vigie_stream_reads_total 5
`))
	if len(got) != 2 || got["fetch"] != 1.25 || got["match"] != 0.0025 {
		t.Errorf("%v", got)
	}
}

// TestReads: both forms of a read decode to what was cast, ids differ, and the alert is
// the one that vigie makes.
func TestReads(t *testing.T) {
	w := workload.New(workload.Config{Kind: workload.European, Seed: 1, Entries: 100, Reads: 5000, HitRatio: 0.01})
	hit := wanted{}
	for i := range w.Reads {
		if k, err := plate.Parse(w.Reads[i].Text); err != nil {
			t.Fatal(err)
		} else if w.Reads[i].Hit {
			hit[k] = "entry"
		}
	}
	at := time.UnixMilli(1_773_470_467_412)
	ids, alerts, bytes := map[string]bool{}, 0, map[string]int{}
	c := newCaster("a", hit)
	for i := range w.Reads {
		r, id, err := c.next(&w.Reads[i], at)
		if err != nil || ids[r.ID] || r.Check() != nil {
			t.Fatalf("read %d: %v, %v; id seen %v", i, err, r.Check(), ids[r.ID])
		}
		ids[r.ID] = true
		if (id != "") != w.Reads[i].Hit || id != "" && id != alert.ID(&r, "entry") {
			t.Fatalf("read %d: alert %q", i, id)
		}
		if id != "" {
			alerts++
		}
		for name, encode := range formats {
			value, err := encode(nil, &r)
			if err != nil {
				t.Fatal(err)
			}
			bytes[name] += len(value)
			var back sensors.Read
			if err := sensors.Decode(value, &back); err != nil {
				t.Fatalf("read %d as %s: %v", i, name, err)
			}
			got, _ := json.Marshal(back)
			want, _ := json.Marshal(r)
			if string(got) != string(want) {
				t.Fatalf("as %s %s, want %s", name, got, want)
			}
		}
	}
	if alerts != w.Hits {
		t.Errorf("%d alerts, want %d", alerts, w.Hits)
	}
	if mean := bytes["json"] / len(w.Reads); mean < 85 || mean > 100 {
		t.Errorf("%d bytes of JSON a read, want about 90", mean)
	}
}

func TestReadEvents(t *testing.T) {
	l := newLedger()
	due := time.UnixMilli(1000)
	l.expect("a", due)
	l.expect("b", due)
	const stream = "retry: 2000\n\nevent: hello\ndata: {\"actor\":\"x\"}\n\n" +
		"id: 1234-0\nevent: alert\ndata: {\"id\":\"a\",\"late\":true,\"stop\":false}\n\n" +
		":\n\nid: 1235-0\nevent: update\ndata: {\"id\":\"b\"}\n\n" +
		"id: 1236-0\nevent: alert\ndata: {\"id\":\"nobody's\"}\n\n"
	c := &patrol{ledger: l}
	if err := c.readEvents(strings.NewReader(stream)); err != nil || c.last != "1236-0" {
		t.Fatalf("%v, last event %s", err, c.last)
	}
	if l.left() != 1 || len(l.expected()) != 2 {
		t.Errorf("%d left of %d, want 1 of 2", l.left(), len(l.expected()))
	}
	if f := l.flights["a"]; f.stored != 1234 || !f.late || f.stop || f.at.IsZero() {
		t.Errorf("%+v", f)
	}
	if n := len(l.between(due, due.Add(1))); n != 2 {
		t.Errorf("%d flights due then, want 2", n)
	}
	if n := len(l.between(due.Add(1), due.Add(2))); n != 0 {
		t.Errorf("%d flights due after, want none", n)
	}
	if err := c.readEvents(strings.NewReader("id: 1-0\nevent: alert\ndata: {\n")); err == nil {
		t.Error("no error for data that is no JSON")
	}
}

func TestTail(t *testing.T) {
	var tl tail
	for i := range 2 * tailLines {
		tl.add(string(rune('A' + i)))
	}
	if got := strings.Fields(tl.String()); len(got) != tailLines || got[0] != string(rune('A'+tailLines)) {
		t.Errorf("%q", got)
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
	}{
		{nil, 2}, {[]string{"nonsense"}, 2}, {[]string{"throughput", "-h"}, 0},
		{[]string{"throughput", "-reads", "0"}, 2}, {[]string{"latency", "-rates", "fast"}, 2},
		{[]string{"replay", "-format", "xml"}, 2}, {[]string{loopMode}, 2},
	} {
		if code := run(tt.args); code != tt.code {
			t.Errorf("%q: exit code %d, want %d", tt.args, code, tt.code)
		}
	}
}

func TestParseMachine(t *testing.T) {
	idle, all, err := parseMachine([]byte("cpu  10 2 3 100 5 0 1 0 0 0\ncpu0 1 1 1 1 1\n"))
	if idle != 105 || all != 121 || err != nil {
		t.Errorf("idle %d of %d, %v", idle, all, err)
	}
	for _, bad := range []string{"", "cpu 1 2", "intr 1 2 3 4 5", "cpu a b c d e"} {
		if _, _, err := parseMachine([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
