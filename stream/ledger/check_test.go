package ledger

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"vigie/matcher"
	"vigie/matcher/slow"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

const (
	ms  = int64(1000) // in µs
	sec = 1000 * ms
)

// story is a small history, told in seconds: one entry, added and confirmed at 1,
// withdrawn and confirmed at 10, added again at 20; a read each second.
func story(t *testing.T) (*History, []Alert) {
	t.Helper()
	var records []Record
	change := func(n int64, op Op, at int64, result Result) {
		records = append(records,
			Record{Change: &Change{N: n, Op: op, List: "load", Plate: "AB-123-CD", Country: "FR", Issued: at*sec - 5*ms}},
			Record{Changed: &Changed{N: n, Entry: "e", Version: 100 + at, Result: result, Confirmed: at * sec}})
	}
	change(0, Add, 1, OK)
	change(1, Withdraw, 10, OK)
	change(2, Add, 20, OK)
	var alerts []Alert
	for i := range int64(30) {
		sent := i*sec + 500*ms
		r := Read{N: i, ID: fmt.Sprintf("run-%d", i), Sensor: "s", Plate: "AB123CD", Country: "FR", TS: sent / 1000, Sent: sent}
		result := OK
		switch i {
		case 5:
			result = Fail
		case 6:
			result = Unknown
		}
		records = append(records, Record{Read: &r}, Record{Outcome: &Outcome{First: i, Count: 1, Result: result, At: sent + 2*ms}})
		if i != 5 && (i >= 1 && i < 10 || i >= 20) {
			alerts = append(alerts, Alert{ID: idOf(r.ID, "s", "e"), Read: r.ID, Sensor: "s", TS: r.TS, List: "load", Entry: "e",
				Exact: true, Version: 100 + max(1, i/10*10), Stored: sent/1000 + 3})
		}
	}
	records = append(records, Record{Offset: &Offset{Partition: 0, Committed: 10, At: 1 * sec}}, Record{Offset: &Offset{Partition: 1, Committed: 3, At: 1 * sec}},
		Record{Offset: &Offset{Partition: 0, Committed: 20, At: 2 * sec}}, Record{End: &End{At: 31 * sec}})
	h, err := Load(bytes.NewReader(text(t, Header{List: "load", Queue: "load", Tolerance: "exact", Plan: Plan{Run: "run"}}, records...)))
	if err != nil {
		t.Fatal(err)
	}
	return h, alerts
}

// alertFor is an alert on a read of the story, as a service would write it.
func alertFor(i int64, version int64) Alert {
	id := fmt.Sprintf("run-%d", i)
	return Alert{ID: idOf(id, "s", "e"), Read: id, Sensor: "s", TS: (i*sec + 500*ms) / 1000, List: "load", Entry: "e", Exact: true, Version: version}
}

// TestCheckSees shows the checker what must not be, and it sees each; and what may
// be, and it does not mind.
func TestCheckSees(t *testing.T) {
	type seen = map[Kind]int
	for _, tt := range []struct {
		name  string
		spoil func(*Observed)
		want  seen
	}{
		{"all is well", func(*Observed) {}, nil},
		{"a loss", func(o *Observed) { o.Queue = o.Queue[1:] }, seen{Missing: 1}},
		{"a loss from the hits topic", func(o *Observed) { o.Hits = o.Hits[1:] }, seen{NotRecorded: 1}},
		{"an empty hits topic", func(o *Observed) { o.Hits = []Alert{} }, seen{NotRecorded: 18}},
		{"a repeat", func(o *Observed) { o.Queue = append(o.Queue, o.Queue[0]) }, seen{Repeat: 1}},
		{"a repeat on the hits topic", func(o *Observed) { o.Hits = append(o.Hits, o.Hits[0]) }, nil},
		{"a read that was not sent", func(o *Observed) {
			a := alertFor(77, 101)
			o.Queue, o.Hits = append(o.Queue, a), append(o.Hits, a)
		}, seen{Ghost: 1}},
		{"a ghost on the hits topic only", func(o *Observed) { o.Hits = append(o.Hits, alertFor(77, 101)) }, seen{Ghost: 1, Missing: 1}},
		{"a read that was refused", func(o *Observed) { a := alertFor(5, 101); o.Queue, o.Hits = append(o.Queue, a), append(o.Hits, a) }, seen{Ghost: 1}},
		{"an entry before it was added", func(o *Observed) { a := alertFor(0, 0); o.Queue, o.Hits = append(o.Queue, a), append(o.Hits, a) }, seen{Ghost: 1}},
		{"an entry that never was", func(o *Observed) {
			a := alertFor(3, 101)
			a.Entry, a.ID = "x", idOf(a.Read, "s", "x")
			o.Queue, o.Hits = append(o.Queue, a), append(o.Hits, a)
		}, seen{Ghost: 1}},
		{"an id of its own", func(o *Observed) {
			a := alertFor(3, 101)
			a.ID = strings.Repeat("a", 26)
			o.Queue, o.Hits = append(o.Queue, a), append(o.Hits, a)
		}, seen{Ghost: 1}},
		{"a late withdrawal", func(o *Observed) { a := alertFor(10, 101); o.Queue, o.Hits = append(o.Queue, a), append(o.Hits, a) }, seen{Withdrawn: 1}},
		{"long after the withdrawal", func(o *Observed) { a := alertFor(15, 101); o.Queue, o.Hits = append(o.Queue, a), append(o.Hits, a) }, seen{Withdrawn: 1}},
		{"matched by lists that have no such entry", func(o *Observed) { o.Queue[3].Version = 115 }, seen{Withdrawn: 1}},
		{"matched by lists older than the entry", func(o *Observed) { o.Queue[3].Version = 50 }, seen{Ghost: 1}},
		{"a late withdrawal, without a version", func(o *Observed) { a := alertFor(10, 0); o.Queue, o.Hits = append(o.Queue, a), append(o.Hits, a) }, seen{Withdrawn: 1}},
		{"matched by lists older than a withdrawal, of an entry that is back", func(o *Observed) { o.Queue[15].Version = 105 }, seen{Withdrawn: 1}},
		{"an offset that rewinds", func(o *Observed) { o.Offsets = []Offset{{1, 3, 4 * sec}, {0, 19, 3 * sec}, {0, 25, 5 * sec}} }, seen{Rewound: 1}},
		{"offsets that rise", func(o *Observed) { o.Offsets = []Offset{{0, 20, 3 * sec}, {1, 1 << 40, 4 * sec}} }, nil},
		{"the unknown read missing", func(o *Observed) {
			unknown := func(a Alert) bool { return a.Read == "run-6" }
			o.Queue, o.Hits = slices.DeleteFunc(o.Queue, unknown), slices.DeleteFunc(o.Hits, unknown)
		}, nil},
		{"hits not looked at", func(o *Observed) { o.Hits = nil }, nil},
		{"alerts of others", func(o *Observed) {
			o.Queue = append(o.Queue, Alert{ID: "x", Read: "y", List: "stolen", TS: 9000}, Alert{ID: "z", Read: "y", List: "load", TS: -1}, Alert{ID: "z", Read: "y", List: "load", TS: -1})
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, alerts := story(t)
			o := Observed{Queue: slices.Clone(alerts), Hits: slices.Clone(alerts)}
			tt.spoil(&o)
			rep := Check(h, o, Options{})
			got := seen{}
			for _, v := range rep.Violations {
				got[v.Kind]++
				if text := v.String(); strings.Contains(text, "AB") || strings.Contains(text, "123CD") {
					t.Errorf("a plate in %q", text)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("violations %v, want %v: %v", got, tt.want, rep.Violations)
			}
			// All that are there but 6, whose outcome is unknown.
			if rep.Expected != 17 {
				t.Errorf("%d alerts expected, want 17", rep.Expected)
			}
		})
	}
}

// TestCheckPatience: a read near a change neither must nor must not alert.
func TestCheckPatience(t *testing.T) {
	h, alerts := story(t)
	near := func(a Alert) bool { return a.Read == "run-1" || a.Read == "run-9" || a.Read == "run-20" }
	o := Observed{Queue: slices.DeleteFunc(slices.Clone(alerts), near)}
	if rep := Check(h, o, Options{}); rep.Count(Missing) != 3 {
		t.Errorf("within 250 ms of no change: %v", rep.Violations)
	}
	if rep := Check(h, o, Options{Staleness: 600 * time.Millisecond}); !rep.OK() {
		t.Errorf("within 600 ms of a change: %v", rep.Violations)
	}
	if rep := Check(h, o, Options{Lag: 600 * time.Millisecond}); rep.Count(Missing) != 2 {
		t.Errorf("reads may wait 600 ms: %v", rep.Violations)
	}
	// An entry that was added while the read waited.
	o = Observed{Queue: append(slices.Clone(alerts), alertFor(19, 120))}
	if rep := Check(h, o, Options{}); rep.Count(Ghost) != 1 {
		t.Errorf("half a second before its entry was added again: %v", rep.Violations)
	}
	if rep := Check(h, o, Options{Lag: time.Second}); !rep.OK() || rep.Allowed != 3 { // and 6, unknown, and 9, just before the withdrawal
		t.Errorf("it may have waited: %d allowed, %v", rep.Allowed, rep.Violations)
	}
	// No patience makes up for a confirmed withdrawal.
	o = Observed{Queue: append(slices.Clone(alerts), alertFor(10, 101))}
	if rep := Check(h, o, Options{Staleness: 5 * time.Second}); rep.Count(Withdrawn) != 1 {
		t.Errorf("after the withdrawal: %v", rep.Violations)
	}
}

// world is a service as it should be, in a few lines: a list of changes and reads
// that take effect at a moment between being issued and being answered.
type world struct {
	rng     *rand.Rand
	list    *watchlist.List
	records []Record // with times
	times   []int64
	events  []event
	obs     Observed
	lag     int64
}

type event struct {
	at int64
	do func()
}

func (w *world) record(at int64, r Record) {
	w.records, w.times = append(w.records, r), append(w.times, at)
}

// outcome draws what became of something: when it took effect (0 for never), and
// what its sender knows from when on.
func (w *world) outcome(issued int64) (effect int64, result Result, known int64) {
	known = issued + 1 + w.rng.Int64N(30*ms)
	switch w.rng.IntN(20) {
	case 0:
		return 0, Fail, known
	case 1:
		return 0, Unknown, known
	case 2:
		return issued + w.rng.Int64N(3*sec), Unknown, known // later than anybody thinks
	}
	return issued + w.rng.Int64N(known-issued), OK, known
}

// run builds a history of a few seconds.
func (w *world) run(t *testing.T) *History {
	list := watchlist.List{ID: "load", Name: "n", Owner: "o", LegalBasis: "l", Queue: "load", Salt: bytes.Repeat([]byte{7}, watchlist.SaltSize)}
	w.list = &list
	start := time.UnixMilli(1_700_000_000_000)
	g, err := NewGenerator(Plan{Seed: w.rng.Uint64(), Run: "run", Rate: 200, Duration: 10 * time.Second, WantedShare: 0.5, Changes: 20, Entries: 10, Sensors: 3})
	if err != nil {
		t.Fatal(err)
	}
	model := slow.New()
	model.Apply([]control.Change{{NewList: &list}})
	var version int64
	onList := map[string]*watchlist.Packed{}

	// Changes follow each other, plate by plate, from before the reads on.
	listed, lost := map[string]bool{}, map[string]bool{}
	at := start.UnixMicro() - sec
	for n := int64(0); at < start.UnixMicro()+10*sec; n++ {
		text := g.Wanted()[g.NextChange()]
		if lost[text] {
			at += ms
			continue
		}
		effect, result, known := w.outcome(at)
		e, bad := watchlist.NewEntry(&list, watchlist.EntryInput{Plate: text, Country: "FR", Reason: "r", CaseRef: "c",
			ValidFrom: start.Add(-time.Hour), ValidUntil: start.Add(time.Hour)}, start)
		if bad != nil {
			t.Fatal(bad)
		}
		c := &Change{N: n, Op: Add, List: "load", Plate: text, Country: "FR", Issued: at}
		done := &Changed{N: n, Result: result, Confirmed: known}
		if listed[text] {
			c.Op, c.Entry = Withdraw, e.ID
		}
		if result == OK {
			done.Entry = e.ID
			listed[text] = !listed[text]
		}
		lost[text] = result == Unknown
		w.record(at, Record{Change: c})
		if result != Unknown || w.rng.IntN(2) == 0 {
			w.record(known, Record{Changed: done})
		}
		if effect > 0 {
			w.events = append(w.events, event{effect, func() {
				version++
				done.Version = version
				if old := onList[text]; old != nil {
					model.Apply([]control.Change{{OldEntry: old}})
					delete(onList, text)
				}
				if c.Op == Add {
					onList[text] = watchlist.Pack(e)
					model.Apply([]control.Change{{NewEntry: onList[text]}})
				}
			}})
		}
		at = known + w.rng.Int64N(200*ms)
	}
	for {
		r, ok := g.Next()
		if !ok {
			break
		}
		r.Sent = start.UnixMicro() + g.plan.Due(r.N).Microseconds()
		r.TS = r.Sent / 1000
		effect, result, known := w.outcome(r.Sent)
		w.record(r.Sent, Record{Read: &r})
		if result != Unknown || w.rng.IntN(2) == 0 {
			w.record(known, Record{Outcome: &Outcome{First: r.N, Count: 1, Result: result, At: known}})
		}
		if effect == 0 {
			continue
		}
		if result == OK {
			effect = max(effect, known) + w.rng.Int64N(w.lag) - w.rng.Int64N(known-r.Sent)
		}
		w.events = append(w.events, event{max(effect, r.Sent), func() {
			k, _ := plate.Parse(r.Plate)
			fr, _ := plate.ParseCountry(r.Country)
			for _, hit := range model.Match(matcher.Query{Key: k, Country: fr, At: r.TS, Sensor: r.Sensor}) {
				a := Alert{ID: idOf(r.ID, r.Sensor, hit.Entry.ID()), Read: r.ID, Sensor: r.Sensor, TS: r.TS, List: "load", Entry: hit.Entry.ID(),
					Exact: true, Version: version, Stored: effect/1000 + 1}
				w.obs.Queue, w.obs.Hits = append(w.obs.Queue, a), append(w.obs.Hits, a)
			}
		}})
	}
	sort.SliceStable(w.events, func(i, j int) bool { return w.events[i].at < w.events[j].at })
	for _, e := range w.events {
		e.do()
	}
	order := make([]int, len(w.records))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool { return w.times[order[i]] < w.times[order[j]] })
	sorted := make([]Record, 0, len(order))
	for _, i := range order {
		sorted = append(sorted, w.records[i])
	}
	h, err := Load(bytes.NewReader(text(t, Header{Start: start.UnixMicro(), List: "load", Queue: "load", Tolerance: "exact", Plan: g.plan}, sorted...)))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestCheckProperty: whatever a service does that keeps its promises, judged by the
// slow matcher, passes; and any one alert taken away, given twice or made up is seen.
func TestCheckProperty(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	expected, allowed := 0, 0
	for i := range uint64(15) {
		w := &world{rng: rand.New(rand.NewPCG(seed, i)), lag: 100 * ms}
		h := w.run(t)
		rep := Check(h, w.obs, Options{Lag: 100 * time.Millisecond})
		if !rep.OK() {
			t.Fatalf("history %d: %v", i, rep.Violations)
		}
		expected, allowed = expected+rep.Expected, allowed+rep.Allowed
		if rep.Found != rep.Expected || rep.Found+rep.Allowed != len(w.obs.Queue) {
			t.Fatalf("history %d: %d of %d, %d allowed, of %d alerts", i, rep.Found, rep.Expected, rep.Allowed, len(w.obs.Queue))
		}
		must := (&judge{History: h, staleness: 250 * ms, lag: 100 * ms}).expected()
		for range 10 {
			n := w.rng.IntN(len(w.obs.Queue))
			victim := w.obs.Queue[n]
			lost := Observed{Queue: slices.Delete(slices.Clone(w.obs.Queue), n, n+1)}
			rep := Check(h, lost, Options{Lag: 100 * time.Millisecond})
			if _, ok := must[victim.ID]; ok != (rep.Count(Missing) == 1) {
				t.Fatalf("history %d: alert %s is lost, expected is %v: %v", i, victim.ID, ok, rep.Violations)
			}
			twice := Observed{Queue: append(slices.Clone(w.obs.Queue), victim)}
			if rep := Check(h, twice, Options{Lag: 100 * time.Millisecond}); rep.Count(Repeat) != 1 {
				t.Fatalf("history %d: alert %s stands there twice: %v", i, victim.ID, rep.Violations)
			}
		}
	}
	t.Logf("%d alerts expected, %d allowed", expected, allowed)
	// A property that looks at nothing holds too.
	if expected < 1000 || allowed < 50 {
		t.Errorf("only %d alerts expected and %d allowed: the histories show too little", expected, allowed)
	}
}

// TestCheckTolerant: of a list that tolerates misreads a text that differs may
// alert, and an exact one must.
func TestCheckTolerant(t *testing.T) {
	read := func(n int64, plate string) Record {
		return Record{Read: &Read{N: n, ID: fmt.Sprintf("run-%d", n), Sensor: "s", Plate: plate, Country: "FR", TS: 5000 + n, Sent: 5*sec + n}}
	}
	b := text(t, Header{Start: 1, List: "load", Tolerance: "ocr", Plan: Plan{Run: "run"}},
		Record{Change: &Change{N: 0, Op: Add, Plate: "AB-123-CD", Country: "FR", Issued: 1}},
		Record{Changed: &Changed{N: 0, Entry: "e", Version: 4, Result: OK, Confirmed: 2}},
		read(0, "AB-I23-CD"), read(1, "AB-123-CD"), Record{Outcome: &Outcome{First: 0, Count: 2, Result: OK, At: 6 * sec}})
	h, err := Load(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	a := func(n int) Alert {
		id := fmt.Sprintf("run-%d", n)
		return Alert{ID: idOf(id, "s", "e"), Read: id, Sensor: "s", TS: 5000, List: "load", Entry: "e", Exact: n == 1}
	}
	if rep := Check(h, Observed{Queue: []Alert{a(0), a(1)}}, Options{}); !rep.OK() || rep.Expected != 1 || rep.Allowed != 1 {
		t.Errorf("both: %+v", rep)
	}
	if rep := Check(h, Observed{Queue: []Alert{a(0)}}, Options{}); rep.Count(Missing) != 1 {
		t.Errorf("without the exact one: %+v", rep)
	}
}
