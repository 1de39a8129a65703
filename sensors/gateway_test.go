package sensors

import (
	"context"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakePublisher keeps copies of what it was given.
type fakePublisher struct {
	mu    sync.Mutex
	err   error
	calls [][]Read
}

func (p *fakePublisher) Publish(_ context.Context, reads []Read) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	batch := make([]Read, len(reads))
	for i := range reads {
		batch[i] = reads[i].Clone()
	}
	p.calls = append(p.calls, batch)
	return p.err
}

var noon = time.UnixMilli(1773470468000)

func newGateway(t testing.TB) (*Gateway, *fakePublisher) {
	t.Helper()
	p := new(fakePublisher)
	g, err := New(Config{Publisher: p, Clock: func() time.Time { return noon }, MaxBatch: 100, MaxSensors: 3})
	if err != nil {
		t.Fatal(err)
	}
	return g, p
}

// goodRead is in order and has what the gateway would set.
func goodRead() Read {
	return Read{ID: "id1", Sensor: "A7-118-2", Plate: "AB123CD", Country: "FR", TS: noon.UnixMilli() - 300, Conf: 0.9}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	for want, cfg := range map[string]Config{
		"Publisher":  {},
		"MaxBatch":   {Publisher: new(fakePublisher), MaxBatch: -1},
		"MaxSensors": {Publisher: new(fakePublisher), MaxSensors: -1},
		"Unknown":    {Publisher: new(fakePublisher), Unknown: 3},
		"Quarantine": {Publisher: new(fakePublisher), Unknown: UnknownQuarantine},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New without a good %s: %v", want, err)
		}
	}
}

func TestAcceptCompletesReads(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts AcceptOptions
		in   func(r *Read)
		want func(r *Read)
	}{
		{"nothing to do", AcceptOptions{}, func(r *Read) {}, func(r *Read) {}},
		{"id", AcceptOptions{}, func(r *Read) { r.ID = "" }, func(r *Read) { r.ID = StableID(r) }},
		{"received is replaced", AcceptOptions{}, func(r *Read) { r.Received = 5 }, func(r *Read) {}},
		{"country becomes alpha-2", AcceptOptions{}, func(r *Read) { r.Country = "d" }, func(r *Read) { r.Country = "DE" }},
		{"country not recognised", AcceptOptions{}, func(r *Read) { r.Country = "Gondor" }, func(r *Read) { r.Country = "" }},
		{"plate stays as given", AcceptOptions{}, func(r *Read) { r.Plate = "ab-123-cd" }, func(r *Read) { r.Plate = "ab-123-cd" }},
		{"no plate", AcceptOptions{}, func(r *Read) { r.Plate = "unknown" }, func(r *Read) { r.Plate = "unknown" }},
		{"char_conf per letter and digit", AcceptOptions{},
			func(r *Read) { r.Plate, r.CharConf = "AB-123-CD", make([]float32, 7) },
			func(r *Read) { r.Plate, r.CharConf = "AB-123-CD", make([]float32, 7) }},
		{"char_conf per character", AcceptOptions{},
			func(r *Read) { r.Plate, r.CharConf = "AB-123-CD", make([]float32, 9) },
			func(r *Read) { r.Plate, r.CharConf = "AB-123-CD", make([]float32, 9) }},
		{"char_conf that does not fit", AcceptOptions{},
			func(r *Read) { r.Plate, r.CharConf = "AB-123-CD", make([]float32, 8) },
			func(r *Read) { r.Plate = "AB-123-CD" }},
		{"sensor of the token", AcceptOptions{Sensor: "A7-118-2"}, func(r *Read) { r.Sensor = "" }, func(r *Read) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, p := newGateway(t)
			in, want := goodRead(), goodRead()
			tt.in(&in)
			want.Received = noon.UnixMilli()
			tt.want(&want)
			res, err := g.Accept(t.Context(), []Read{in}, tt.opts)
			if err != nil || res.Accepted != 1 || len(res.Rejected) != 0 {
				t.Fatalf("got %+v, %v", res, err)
			}
			if got := p.calls[0][0]; !same(&got, &want) {
				t.Errorf("published %s, want %s", dump(t, &got), dump(t, &want))
			}
		})
	}
}

func TestAcceptRejectsByIndex(t *testing.T) {
	g, p := newGateway(t)
	reads := make([]Read, 6)
	for i := range reads {
		reads[i] = goodRead()
		reads[i].ID = strconv.Itoa(i)
	}
	reads[1].TS = 1_773_470_467
	reads[2].Sensor = "A1-8-1"
	reads[4].Plate = "AB,123"
	reads[5].Candidates = []Candidate{{Conf: 2}}
	want := Result{Accepted: 2, Rejected: []Rejection{
		{1, "ts", "looks like seconds; milliseconds expected"},
		{2, "sensor", "is not the sensor that the token belongs to"},
		{4, "plate", "character 3 is not a letter or digit"},
		{5, "candidates[0].conf", "must be between 0 and 1 (0.95, not 95)"},
	}}
	res, err := g.Accept(t.Context(), reads, AcceptOptions{Sensor: "A7-118-2"})
	if err != nil || !reflect.DeepEqual(res, want) {
		t.Fatalf("got %+v, %v; want %+v", res, err, want)
	}
	if len(p.calls) != 1 || len(p.calls[0]) != 2 || p.calls[0][0].ID != "0" || p.calls[0][1].ID != "3" {
		t.Errorf("published %v, want reads 0 and 3 in one call", p.calls)
	}
	for i := range reads {
		if reads[i].ID != strconv.Itoa(i) {
			t.Errorf("read %d of the caller was moved", i)
		}
	}
	s := g.Stats()
	wantRejected := map[string]uint64{"ts": 1, "sensor": 1, "plate": 1, "candidates": 1}
	for name, n := range s.Rejected {
		if n != wantRejected[name] {
			t.Errorf("Stats.Rejected[%s] = %d, want %d", name, n, wantRejected[name])
		}
	}
	if s.Accepted != 2 || s.ForeignSensor != 1 || s.Batches != 1 {
		t.Errorf("Stats = %+v", s)
	}
}

func TestAcceptOfNothing(t *testing.T) {
	g, p := newGateway(t)
	for _, reads := range [][]Read{nil, {{}}, {{}, {Sensor: "s"}}} {
		res, err := g.Accept(t.Context(), reads, AcceptOptions{})
		if err != nil || res.Accepted != 0 || res.Rejected == nil || len(res.Rejected) != len(reads) {
			t.Errorf("Accept of %d bad reads: %+v, %v", len(reads), res, err)
		}
	}
	if len(p.calls) != 0 {
		t.Error("something was published")
	}
	if _, err := g.Accept(t.Context(), make([]Read, 101), AcceptOptions{}); !errors.Is(err, ErrTooManyReads) {
		t.Errorf("Accept of 101 reads: %v, want ErrTooManyReads", err)
	}
}

// TestAcceptTellsNothingWhenPublishingFails sends a request again after a failure:
// the first answer must name no read as accepted, the second call must publish the
// same reads under the same ids, and the counts must be those of one request.
func TestAcceptTellsNothingWhenPublishingFails(t *testing.T) {
	g, p := newGateway(t)
	p.err = errors.New("broker is away")
	reads := []Read{goodRead(), {}, goodRead()}
	reads[0].ID, reads[2].ID, reads[2].Plate = "", "", "EF456GH"
	res, err := g.Accept(t.Context(), reads, AcceptOptions{})
	if !errors.Is(err, p.err) || !reflect.DeepEqual(res, Result{}) {
		t.Fatalf("got %+v, %v; want a zero Result and the error of the publisher", res, err)
	}
	if s := g.Stats(); s.Accepted != 0 || s.PublishErrors != 1 || s.Batches != 0 || s.DerivedIDs != 0 || s.Rejected["sensor"] != 0 {
		t.Errorf("after the failure Stats = %+v", s)
	}
	if h := g.Health(); len(h.Sensors) != 0 {
		t.Errorf("after the failure Health = %+v", h)
	}
	p.err = nil
	res, err = g.Accept(t.Context(), reads, AcceptOptions{})
	if err != nil || res.Accepted != 2 || len(res.Rejected) != 1 || res.Rejected[0].Index != 1 {
		t.Fatalf("second time: %+v, %v", res, err)
	}
	if !reflect.DeepEqual(p.calls[0], p.calls[1]) {
		t.Error("the second call published other reads")
	}
	if s := g.Stats(); s.Accepted != 2 || s.Rejected["sensor"] != 1 {
		t.Errorf("at last Stats = %+v", s)
	}
}

func TestStatsCountWhatHappened(t *testing.T) {
	g, _ := newGateway(t)
	reads := make([]Read, 7)
	for i := range reads {
		reads[i] = goodRead()
	}
	reads[0].Plate = "NO PLATE"
	reads[1].Country = ""
	reads[2].Country = "Gondor"
	reads[3].ID = ""
	reads[4].CharConf = []float32{1}
	reads[5].Retransmitted, reads[5].TS = true, 1
	reads[6].TS = noon.UnixMilli() + 2*3600*1000
	if _, err := g.Accept(t.Context(), reads, AcceptOptions{}); err != nil {
		t.Fatal(err)
	}
	s := g.Stats()
	want := Stats{Accepted: 7, Rejected: s.Rejected, Sentinels: 1, NoCountry: 1, UnknownCountry: 1, DerivedIDs: 1,
		CharConfDropped: 1, Retransmitted: 1, Duplicates: s.Duplicates, Batches: 1, Delay: s.Delay}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("Stats = %+v, want %+v", s, want)
	}
	if s.Delay.Counts[0] != 1 || s.Delay.Counts[6] != 5 || s.Delay.Sum != 5*300*time.Millisecond-2*time.Hour {
		t.Errorf("Delay = %+v", s.Delay)
	}
	if len(s.Rejected) != len(fields) {
		t.Errorf("Rejected has %d keys, want all %d", len(s.Rejected), len(fields))
	}
}

func TestHistogramHoldsAnyClock(t *testing.T) {
	var h Histogram
	for millis, bucket := range map[int64]int{
		-1 << 63: 0, -3_600_000: 0, -3_599_999: 1, -1: 3, 0: 3, 1: 4, 100: 4, 101: 5, 86_400_000: 14, 86_400_001: 15, 1<<63 - 1: 15,
	} {
		before := h.Counts[bucket]
		if h.observe(millis); h.Counts[bucket] != before+1 {
			t.Errorf("%d ms is not in bucket %d", millis, bucket)
		}
	}
	if h.Sum < -48*time.Hour || h.Sum > 48*time.Hour*2 {
		t.Errorf("Sum = %v", h.Sum)
	}
}

func TestAcceptFromManyGoroutines(t *testing.T) {
	g, p := newGateway(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				r := goodRead()
				r.Sensor = "s" + strconv.Itoa(i)
				if _, err := g.Accept(t.Context(), []Read{r, {}}, AcceptOptions{}); err != nil {
					t.Error(err)
				}
				g.Stats()
				g.Heartbeat("s1", noon)
				g.Health()
			}
		})
	}
	wg.Wait()
	if s := g.Stats(); s.Accepted != 160 || s.Rejected["sensor"] != 160 || len(p.calls) != 160 {
		t.Errorf("Stats = %+v", s)
	}
}

// TestUnknownSensors has reads of a sensor that the registry has between others that it
// has not, under each policy.
func TestUnknownSensors(t *testing.T) {
	for _, tt := range []struct {
		policy           UnknownPolicy
		published, aside string
		want             Result
	}{
		{UnknownAccept, "0 1 2 3 5", "", Result{Accepted: 5, Rejected: []Rejection{{4, "ts", "is required, in milliseconds since 1970"}}}},
		{UnknownQuarantine, "1 3", "0 2 5", Result{Accepted: 5, Quarantined: 3, Rejected: []Rejection{{4, "ts", "is required, in milliseconds since 1970"}}}},
		{UnknownRefuse, "1 3", "", Result{Accepted: 2, Rejected: []Rejection{
			{0, "sensor", reasonUnknown}, {2, "sensor", reasonUnknown}, {4, "ts", "is required, in milliseconds since 1970"}, {5, "sensor", reasonUnknown},
		}}},
	} {
		t.Run(tt.policy.String(), func(t *testing.T) {
			p, q := new(fakePublisher), new(fakePublisher)
			g, err := New(Config{
				Publisher: p, Quarantine: q, Unknown: tt.policy, Clock: func() time.Time { return noon },
				Known: func(sensor string) bool { return sensor == "A7-118-2" },
			})
			if err != nil {
				t.Fatal(err)
			}
			reads := make([]Read, 6)
			for i := range reads {
				reads[i] = goodRead()
				reads[i].ID = strconv.Itoa(i)
			}
			reads[0].Sensor, reads[2].Sensor, reads[5].Sensor = "x", "y", "x"
			reads[2].Plate, reads[3].Plate = "", "unknown"
			reads[4].TS = 0
			res, err := g.Accept(t.Context(), reads, AcceptOptions{})
			if err != nil || !reflect.DeepEqual(res, tt.want) {
				t.Errorf("got %+v, %v; want %+v", res, err, tt.want)
			}
			if got := published(p); got != tt.published {
				t.Errorf("published %q, want %q", got, tt.published)
			}
			if got := published(q); got != tt.aside {
				t.Errorf("quarantined %q, want %q", got, tt.aside)
			}
			for i := range reads {
				if reads[i].ID != strconv.Itoa(i) {
					t.Errorf("read %d of the caller was moved", i)
				}
			}
			var unknown [UnknownRefuse + 1]uint64
			unknown[tt.policy] = 3
			if s := g.Stats(); s.UnknownSensor != unknown {
				t.Errorf("Stats.UnknownSensor is %v, want %v", s.UnknownSensor, unknown)
			}
			h := g.Health()
			if h.Unregistered != 2 || len(h.Sensors) != 3 {
				t.Fatalf("Health is %+v, want 2 of 3 unregistered", h)
			}
			x := h.Sensors[1]
			if x.ID != "x" || !x.Unregistered || x.Accepted+x.Rejected != 2 || x.LastRead.IsZero() == x.LastRejected.IsZero() {
				t.Errorf("x is %+v, want it unregistered with 2 reads and when the last one came", x)
			}
			// 0, 2 and 5 are the only ones without a plate that count for their own sensor.
			if a := h.Sensors[0]; a.NoPlate != 0.5 || a.Rejected != 1 || a.LastRejection.Field != "ts" {
				t.Errorf("A7-118-2 is %+v, want half of its 2 reads without a plate", a)
			}
			if y := h.Sensors[2]; tt.policy != UnknownRefuse && y.NoPlate != 1 {
				t.Errorf("y is %+v, want no plate seen", y)
			}
		})
	}
}

// hungPublisher does not answer while it is hung.
type hungPublisher struct {
	fakePublisher
	hung bool
}

func (p *hungPublisher) Publish(ctx context.Context, reads []Read) error {
	if p.hung {
		p.fakePublisher.Publish(ctx, nil) // counts the call
		<-ctx.Done()
		return ctx.Err()
	}
	return p.fakePublisher.Publish(ctx, reads)
}

// TestQuarantineThatFails: while the quarantine refuses or hangs, what is for it is dropped
// and counted, and the rest of each request is published once, after a short wait at
// most, even for a sender that waits for less.
func TestQuarantineThatFails(t *testing.T) {
	for _, hung := range []bool{false, true} {
		t.Run("hung="+strconv.FormatBool(hung), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, q := new(fakePublisher), &hungPublisher{hung: hung}
				q.err = errors.New("away")
				g, err := New(Config{
					Publisher: p, Quarantine: q, Unknown: UnknownQuarantine, Clock: func() time.Time { return noon },
					Known: func(sensor string) bool { return sensor == "A7-118-2" },
				})
				if err != nil {
					t.Fatal(err)
				}
				accept := func(id string, within time.Duration) {
					t.Helper()
					reads := []Read{goodRead(), goodRead()}
					reads[0].ID, reads[1].ID, reads[1].Sensor = id, id+"x", "x"
					ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
					defer cancel()
					began := time.Now()
					if res, err := g.Accept(ctx, reads, AcceptOptions{}); err != nil || res.Accepted != 2 || res.Quarantined != 1 {
						t.Errorf("%s: got %+v, %v; want both accepted and one quarantined", id, res, err)
					}
					if took := time.Since(began); took > within {
						t.Errorf("%s took %v, want at most %v", id, took, within)
					}
				}
				accept("1", quarantineWait)
				accept("2", 0)
				time.Sleep(quarantineRest)
				accept("3", quarantineWait)
				if len(q.calls) != 2 {
					t.Errorf("the quarantine was tried %d times, want a rest after the first", len(q.calls))
				}
				q.hung, q.err, q.calls = false, nil, nil
				accept("4", 0)
				time.Sleep(quarantineRest)
				accept("5", 0)
				if got := published(p); got != "1 2 3 4 5" {
					t.Errorf("published %q, want each once", got)
				}
				if got := published(&q.fakePublisher); got != "5x" {
					t.Errorf("quarantined %q, want what came after the rest", got)
				}
				if s := g.Stats(); s.Accepted != 10 || s.QuarantineLost != 4 || s.UnknownSensor[UnknownQuarantine] != 1 || s.PublishErrors != 0 || s.Batches != 6 {
					t.Errorf("Stats = %+v", s)
				}
			})
		})
	}
}

// TestQuarantineComesFirst: when publishing fails, the sender comes again with all of it.
func TestQuarantineComesFirst(t *testing.T) {
	p, q := &fakePublisher{err: errors.New("full")}, new(fakePublisher)
	g, err := New(Config{
		Publisher: p, Quarantine: q, Unknown: UnknownQuarantine, Clock: func() time.Time { return noon },
		Known: func(sensor string) bool { return sensor == "A7-118-2" },
	})
	if err != nil {
		t.Fatal(err)
	}
	reads := []Read{goodRead(), goodRead()}
	reads[1].Sensor = "x"
	if res, err := g.Accept(t.Context(), reads, AcceptOptions{}); !errors.Is(err, p.err) || !reflect.DeepEqual(res, Result{}) {
		t.Errorf("got %+v, %v; want the error of the publisher", res, err)
	}
	p.err = nil
	if res, err := g.Accept(t.Context(), reads, AcceptOptions{}); err != nil || res.Accepted != 2 || res.Quarantined != 1 {
		t.Errorf("second time: %+v, %v", res, err)
	}
	if s := g.Stats(); s.Accepted != 2 || s.Duplicates != 0 || s.UnknownSensor[UnknownQuarantine] != 1 || s.QuarantineLost != 0 {
		t.Errorf("Stats = %+v, want those of one request", s)
	}
}

func TestUnknownPolicyWords(t *testing.T) {
	for _, p := range []UnknownPolicy{UnknownAccept, UnknownQuarantine, UnknownRefuse} {
		text, err := p.MarshalText()
		var back UnknownPolicy
		if err != nil || back.UnmarshalText(text) != nil || back != p {
			t.Errorf("%v is written %q and read as %v", p, text, back)
		}
	}
	p := UnknownRefuse
	if err := p.UnmarshalText([]byte("Accept")); err == nil || p != UnknownRefuse {
		t.Errorf("a word that is none: %v, %v", p, err)
	}
}

// published are the ids of all reads that p was given.
func published(p *fakePublisher) string {
	var ids []string
	for _, call := range p.calls {
		for i := range call {
			ids = append(ids, call[i].ID)
		}
	}
	return strings.Join(ids, " ")
}

func BenchmarkAccept(b *testing.B) {
	g, err := New(Config{Publisher: nowhere{}})
	if err != nil {
		b.Fatal(err)
	}
	reads := make([]Read, 100)
	b.ReportAllocs()
	for b.Loop() {
		for i := range reads {
			reads[i] = goodRead()
		}
		if _, err := g.Accept(b.Context(), reads, AcceptOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(reads)), "ns/read")
}

type nowhere struct{}

func (nowhere) Publish(context.Context, []Read) error { return nil }
