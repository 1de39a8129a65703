package stream_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"vigie/stream"
	"vigie/stream/streamtest"
	"vigie/watchlist"
)

// TestBudgetsAreBuckets: whether a budget of design section 3 is kept can be read off.
func TestBudgetsAreBuckets(t *testing.T) {
	for _, le := range []float64{0.003, 0.005, 0.0029} {
		if !slices.Contains(stream.StageBuckets[:], le) {
			t.Errorf("StageBuckets lacks %v", le)
		}
	}
	for name, bounds := range map[string][]float64{"stage": stream.StageBuckets[:], "batch": stream.BatchBuckets[:], "latency": stream.LatencyBuckets[:]} {
		if !slices.IsSorted(bounds) || len(bounds) > len(stream.StageBuckets) {
			t.Errorf("%s buckets %v", name, bounds)
		}
	}
}

// stage returns one stage of s.
func stage(t *testing.T, s stream.Stats, name string) stream.Histogram {
	t.Helper()
	i := slices.Index(stream.StageNames[:], name)
	if i < 0 {
		t.Fatalf("no stage %s", name)
	}
	return s.Stages[i]
}

// TestStagesAndBatches: a read that comes alone is a batch of its own and goes through at
// once; what has gathered meanwhile is taken in large batches; and the time that each
// stage takes is counted there.
func TestStagesAndBatches(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	const slow = 30 * time.Millisecond
	h.queues.Fail = func() error { time.Sleep(slow); return nil }
	p, _ := h.process(nil)
	for i := range int64(3) {
		h.produce(0, read("lone", "ZZ-999-ZZ"))
		h.committed(i+1, 0)
	}
	s := p.Stats()
	if s.Batches.Counts[0] != 3 || s.Batches.Sum != 3 {
		t.Errorf("batches %+v, want 3 of one record", s.Batches)
	}
	all := func(h stream.Histogram) int64 { return h.Counts[len(h.Counts)-1] }
	if all(stage(t, s, "queues")) != 0 || all(stage(t, s, "hits")) != 0 {
		t.Error("reads that hit nothing have a time of publishing")
	}
	for _, name := range []string{"decode", "match", "commit"} {
		if n := all(stage(t, s, name)); n != 3 {
			t.Errorf("%d times in stage %s, want 3", n, name)
		}
	}
	if w := stage(t, s, "wait"); all(w) < 3 || w.Sum <= 0 {
		t.Errorf("wait %+v", w)
	}

	h.produce(0, read("hit", "AB-123-CD")) // slow to publish: a backlog gathers
	until(t, "it is on its way", func() bool { return p.Stats().Batches.Sum == 4 })
	for range 300 {
		h.produce(0, read("behind", "ZZ-999-ZZ"))
	}
	h.committed(304, 0)
	s = p.Stats()
	full := slices.Index(stream.BatchBuckets[:], 100)
	if large := s.Batches.Counts[full] - s.Batches.Counts[full-1]; large < 2 || all(s.Batches) > 9 {
		t.Errorf("behind a backlog: batches %+v, want most of 100 records", s.Batches)
	}
	if q := stage(t, s, "queues"); all(q) != 1 || q.Sum < slow.Seconds() || q.Counts[slices.Index(stream.StageBuckets[:], 0.010)] != 0 {
		t.Errorf("queues %+v, want one of %v", q, slow)
	}
	if hits := stage(t, s, "hits"); all(hits) != 1 || hits.Sum > slow.Seconds() {
		t.Errorf("hits %+v", hits)
	}
	if f := stage(t, s, "fetch"); all(f) < 2 {
		t.Errorf("fetch %+v, want the batches of the backlog", f)
	}
}

// TestUnknownSensor: a read of a sensor that the registry has not alerts all the same.
func TestUnknownSensor(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	p, _ := h.process(nil)
	h.produce(0, read("r1", "AB-123-CD"), read("r2", "ZZ-999-ZZ"))
	h.committed(2, 0)
	if n := len(h.queues.In(watchlist.DefaultQueue)); n != 1 {
		t.Errorf("%d alerts, want 1", n)
	}
	if n := p.Stats().UnknownSensor; n != 1 {
		t.Errorf("%d reads of unknown sensors counted, want the one that hit", n)
	}
}

// TestNoAllocations: a batch of reads that hit nothing allocates nothing.
func TestNoAllocations(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	if err := h.replica.WaitCaughtUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	run := func(batches int) float64 {
		s := &again{values: readValues(t, 256), batches: batches}
		p, err := stream.New(stream.Config{Source: s, Replica: h.replica, Queues: new(streamtest.Queues),
			Journal: new(streamtest.Journal), Dead: new(streamtest.Dead), CommitEvery: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		return testing.AllocsPerRun(5, func() {
			s.batches = batches
			if err := p.Run(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	few, many := run(10), run(1010)
	if perBatch := (many - few) / 1000; perBatch > 0.01 {
		t.Errorf("%.3f allocations a batch", perBatch)
	}
}

// TestAge: the age of the lists counts from when the last answer of the control log was
// asked for, also one without news, and grows when there is none.
func TestAge(t *testing.T) {
	r := stream.NewReplica(nil)
	const pause = 100 * time.Millisecond
	answer := func() {
		t.Helper()
		if err := stream.Apply(r, nil, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		time.Sleep(pause)
		if age := r.Age(); age < pause {
			t.Errorf("age %v after %v without a word", age, pause)
		}
		answer()
		if age := r.Age(); age < pause {
			t.Errorf("age %v after an answer that was on its way for %v", age, pause)
		}
		answer()
		if age := r.Age(); age >= pause {
			t.Errorf("age %v after an answer at once", age)
		}
	}
	if !r.CaughtUp() {
		t.Error("an empty log is caught up")
	}
}

// TestAgeAfterSilence: the first answer after a silence does not make the lists young while
// what the log held then is not applied; without a silence, being behind does not matter.
func TestAgeAfterSilence(t *testing.T) {
	r := stream.NewReplica(nil)
	answer := func(next, end int64) {
		t.Helper()
		for range 2 { // the second was asked for after the first
			if err := stream.Apply(r, nil, next, end); err != nil {
				t.Fatal(err)
			}
		}
	}
	young := func() bool { return r.Age() < 500*time.Millisecond }
	answer(100, 100)
	answer(101, 200)
	if !young() {
		t.Errorf("age %v in a long import", r.Age())
	}
	answer(200, 200)
	time.Sleep(1100 * time.Millisecond)
	answer(201, 300)
	answer(250, 400)
	if young() {
		t.Errorf("age %v with 50 records of the silence to come", r.Age())
	}
	answer(300, 500)
	if !young() {
		t.Errorf("age %v when all that the silence hid is applied", r.Age())
	}
}
