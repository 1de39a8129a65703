//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vigie/bench/workload"
	"vigie/sensors"
)

func testTraffic(sensors, batch int) *traffic {
	w := workload.New(workload.Config{Kind: workload.European, Seed: 1, Entries: 1, Reads: 1000})
	return &traffic{run: "t", fleet: fleet(sensors), plates: w.Reads, batch: batch}
}

// TestTraffic: a request has the reads that its number says, a gateway takes every one of them,
// and each number comes back from its id.
func TestTraffic(t *testing.T) {
	for _, mixed := range []bool{false, true} {
		tr := testTraffic(7, 10)
		tr.mixed = mixed
		last := map[string]int64{}
		for first := int64(0); first < 5000; first += 10 {
			body, err := tr.appendBody(nil, first, time.UnixMilli(1_773_470_467_412))
			if err != nil {
				t.Fatal(err)
			}
			var got counter
			gw, err := sensors.New(sensors.Config{Publisher: &got})
			if err != nil {
				t.Fatal(err)
			}
			res, err := gw.AcceptBody(t.Context(), "application/x-ndjson", bytes.NewReader(body), sensors.Limits{}, sensors.AcceptOptions{})
			if err != nil || res.Accepted != 10 {
				t.Fatalf("%v, %+v", err, res)
			}
			of := map[string]bool{}
			for i, r := range got.reads {
				n, ok := tr.number(r.ID)
				if !ok || n != first+int64(i) || r.Sensor != tr.fleet[tr.sensor(n)] {
					t.Fatalf("read %d of request %d is %d of %s, %v", i, first, n, r.Sensor, ok)
				}
				if l, ok := last[r.Sensor]; ok && n <= l {
					t.Fatalf("read %d of %s follows %d", n, r.Sensor, l)
				}
				last[r.Sensor], of[r.Sensor] = n, true
			}
			if mixed != (len(of) > 1) {
				t.Fatalf("mixed %v: a request of %d sensors", mixed, len(of))
			}
		}
	}
	for _, id := range []string{"", "t", "u12", "t!", "w1"} {
		if n, ok := testTraffic(1, 1).number(id); ok {
			t.Errorf("%q is number %d", id, n)
		}
	}
}

// counter keeps copies of what is published.
type counter struct{ reads []sensors.Read }

func (c *counter) Publish(_ context.Context, reads []sensors.Read) error {
	for i := range reads {
		c.reads = append(c.reads, reads[i].Clone())
	}
	return nil
}

func TestJudgeGateway(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	// Two requests of A, and one of B, acknowledged at 10, 20 and 20 s.
	posted := []posting{
		{first: 0, reads: 2, acked: at(10)}, {first: 4, reads: 2, acked: at(20)}, {first: 2, reads: 2, acked: at(20)},
	}
	k := func(n int64, s int) kept {
		return kept{n, map[bool]string{false: "A", true: "B"}[n == 2 || n == 3], at(s).UnixMilli()}
	}
	for _, tt := range []struct {
		name  string
		topic []kept
		want  gatewayVerdict
		good  bool
	}{
		{"live", []kept{k(0, 9), k(1, 9), k(2, 19), k(3, 19), k(4, 20), k(5, 20)}, gatewayVerdict{}, true},
		{"spooled", []kept{k(0, 90), k(1, 90), k(2, 90), k(4, 90), k(3, 90), k(5, 91)}, gatewayVerdict{Spooled: 6}, true},
		{"overtaken", []kept{k(4, 19), k(5, 19), k(2, 19), k(3, 19), k(0, 90), k(1, 90)}, gatewayVerdict{Spooled: 2, Overtaken: 2}, true},
		{"again", []kept{k(0, 9), k(1, 9), k(0, 15), k(2, 19), k(3, 19), k(4, 20), k(5, 20), k(5, 90)}, gatewayVerdict{Repeats: 2}, true},
		{"both ways", []kept{k(4, 25), k(5, 25), k(2, 19), k(3, 19), k(0, 90), k(1, 90), k(4, 91), k(5, 91)}, gatewayVerdict{Spooled: 4, Overtaken: 2, Repeats: 2}, true},
		{"drained again", []kept{k(0, 90), k(1, 90), k(2, 90), k(3, 90), k(4, 90), k(0, 91), k(1, 91), k(4, 91), k(5, 91)}, gatewayVerdict{Spooled: 6, Repeats: 3}, true},
		{"again and out of order", []kept{k(4, 90), k(5, 90), k(0, 91), k(1, 91), k(0, 92), k(1, 92), k(2, 90), k(3, 90)}, gatewayVerdict{Spooled: 6, Repeats: 2, OutOfOrder: 2}, false},
		{"nobody was told", []kept{k(0, 9), k(1, 9), k(2, 19), k(3, 19), k(4, 20), k(5, 20), k(6, 30)}, gatewayVerdict{Unasked: 1}, true},
		{"lost", []kept{k(0, 9), k(2, 19), k(3, 19), k(5, 20)}, gatewayVerdict{Lost: 2}, false},
		{"order of live ones", []kept{k(1, 9), k(0, 9), k(2, 19), k(3, 19), k(4, 20), k(5, 20)}, gatewayVerdict{OutOfOrder: 1}, false},
		{"order of spooled ones", []kept{k(4, 90), k(5, 90), k(0, 91), k(1, 91), k(2, 91), k(3, 91)}, gatewayVerdict{Spooled: 6, OutOfOrder: 2}, false},
		{"live behind spooled", []kept{k(4, 90), k(0, 9), k(1, 9), k(5, 91), k(2, 91), k(3, 91)}, gatewayVerdict{Spooled: 4, OutOfOrder: 2}, false},
		{"nothing", nil, gatewayVerdict{Lost: 6}, false},
	} {
		tt.want.Acknowledged = 6
		got, arrived := judgeGateway(posted, tt.topic)
		if got != tt.want || got.good() != tt.good || len(arrived) != 6-got.Lost {
			t.Errorf("%s: %+v, good %v, %d arrived; want %+v", tt.name, got, got.good(), len(arrived), tt.want)
		}
	}
	if v, _ := judgeGateway(nil, nil); v.good() {
		t.Error("nothing acknowledged is good")
	}
}

func TestOutageTimes(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(ms) }
	post := func(sent, acked int64) posting {
		return posting{reads: 1, due: at(sent), sent: at(sent), acked: at(acked)}
	}
	posted := []posting{post(1000, 1010), post(3000, 3800), post(5100, 7000), post(8000, 8002), post(10_100, 10_105), post(10_500, 10_520), post(20_000, 20_030)}
	arrived := []arrival{
		{&posted[1], 11_000, true}, {&posted[3], 12_250, true}, {&posted[4], 12_300, true}, {&posted[5], 10_519, false}, {&posted[6], 20_029, false},
	}
	var f outageFigures
	f.times(posted, arrived, at(2000), at(5000), at(6500), at(10_000))
	if f.Before.Max != 10 || f.Away.Max != 800 || f.Away.P50 != 800 || f.After.Max != 30 || f.AckGap != 9.51 {
		t.Errorf("before %v, away %v, after %v, gap %v", f.Before, f.Away, f.After, f.AckGap)
	}
	if f.Drained != 2.3 || f.LiveMax != 2200 || f.LiveSpooled != 1 || f.DirectMax != 29 {
		t.Errorf("%+v", f)
	}
}

// gatewayStub takes reads, and says no every so often.
type gatewayStub struct {
	every int64 // of so many requests one is not taken; 0 for none
	code  int
	n     atomic.Int64

	mu     sync.Mutex
	bodies []string
}

func (g *gatewayStub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n := g.n.Add(1); g.every > 0 && n%g.every == 0 {
		w.Header().Set("Retry-After", "0")
		http.Error(w, "not now", g.code)
		return
	}
	body := make([]byte, r.ContentLength)
	for n := 0; n < len(body); {
		m, err := r.Body.Read(body[n:])
		if n += m; err != nil {
			break
		}
	}
	g.mu.Lock()
	g.bodies = append(g.bodies, string(body))
	g.mu.Unlock()
	w.WriteHeader(http.StatusAccepted)
	fmt.Fprint(w, `{"accepted":5,"rejected":[]}`)
}

func TestSteadyAndFlood(t *testing.T) {
	g := new(gatewayStub)
	srv := httptest.NewServer(g)
	defer srv.Close()
	p, tr := newPoster(srv.URL, 4), testTraffic(3, 5)
	done, err := steady(t.Context(), p, tr, 100, 1000, 200*time.Millisecond, 4)
	if err != nil || len(done) != 40 || len(g.bodies) != 40 {
		t.Fatalf("%d requests of 40, %v", len(done), err)
	}
	slices.SortFunc(done, func(a, b posting) int { return int(a.first - b.first) })
	for i, d := range done {
		if d.first != 100+int64(5*i) || d.reads != 5 || d.acked.Before(d.due) {
			t.Errorf("request %d: %+v", i, d)
		}
	}
	bodies := [][]byte{[]byte("a"), []byte("b"), []byte("c")}
	if done, err := flood(t.Context(), p, tr, 0, bodies, 2); err != nil || len(done) != 3 {
		t.Errorf("%d requests of 3, %v", len(done), err)
	}
	g.every, g.code = 2, http.StatusServiceUnavailable
	if _, err := flood(t.Context(), p, tr, 0, bodies, 2); err == nil {
		t.Error("a request that is not taken passes unseen")
	}
	if _, err := steady(t.Context(), p, tr, 0, 1000, 100*time.Millisecond, 4); err == nil {
		t.Error("a request that is not taken passes unseen")
	}
}

// TestCamera: a request that is not taken is sent again, before the next.
func TestCamera(t *testing.T) {
	g := &gatewayStub{every: 3, code: http.StatusServiceUnavailable}
	srv := httptest.NewServer(g)
	defer srv.Close()
	halt, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer stop()
	var failures atomic.Int64
	c := &camera{p: newPoster(srv.URL, 1), t: testTraffic(2, 5), index: 1, start: time.Now(), every: 20 * time.Millisecond, failures: &failures}
	done, err := c.run(halt)
	if err != nil || len(done) < 5 || failures.Load() < 2 || len(g.bodies) != len(done) {
		t.Fatalf("%d requests, %d not taken, %v", len(done), failures.Load(), err)
	}
	for i, d := range done {
		if want := int64(5 + 10*i); d.first != want || c.t.sensor(d.first) != 1 {
			t.Errorf("request %d begins with %d, want %d", i, d.first, want)
		}
	}
	g.every, g.code = 1, http.StatusUnprocessableEntity
	if _, err := c.run(t.Context()); err == nil {
		t.Error("a request that is wrong is sent for ever")
	}
}

// TestWatchOthers: what this process does is not of others.
func TestWatchOthers(t *testing.T) {
	before, err := familyTime()
	if err != nil {
		t.Fatal(err)
	}
	end := watchOthers()
	x := 1
	for began := time.Now(); time.Since(began) < 1500*time.Millisecond; {
		x = x*7 + 1
	}
	seconds, err := end()
	if err != nil || len(seconds) != 1 || seconds[0].others < 0 || seconds[0].others > 1 || x == 0 {
		t.Fatalf("%+v, %v", seconds, err)
	}
	if after, err := familyTime(); err != nil || after-before < 500*time.Millisecond {
		t.Errorf("%v of our own, %v", after-before, err)
	}
	var f steadyFigures
	done := []posting{{due: seconds[0].from, acked: seconds[0].from.Add(5 * time.Millisecond)}, {due: seconds[0].to, acked: seconds[0].to.Add(time.Second)}}
	f.spread = ackTimes(done)
	f.quiet(done, []second{{seconds[0].from, seconds[0].to, 0.05}, {seconds[0].to, seconds[0].to.Add(time.Second), 0.35}})
	if f.Seconds != 1 || f.Others != 0.2 || f.Quiet == nil || f.Quiet.Max != 5 || f.counts().Max != 1000 {
		t.Errorf("%+v, %+v", f, f.Quiet)
	}
	if f.Seconds = 5; f.counts().Max != 5 {
		t.Errorf("%+v counts", f.counts())
	}
}

func TestGatewayUsage(t *testing.T) {
	for _, args := range [][]string{{"-batch", "0"}, {"-kill"}, {"-outage", "1m", "-kill", "-spool=false"}, {"-outage", "-1s"}, {"x"}, {"-reads", "10"}} {
		if code := run(append([]string{"gateway"}, args...)); code != 2 {
			t.Errorf("%q: exit code %d, want 2", args, code)
		}
	}
	if code := run([]string{"gateway", "-h"}); code != 0 {
		t.Errorf("-h: exit code %d", code)
	}
}
