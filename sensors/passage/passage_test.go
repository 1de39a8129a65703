package passage_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vigie/sensors"
	"vigie/sensors/passage"
)

// start is the moment at which every test begins, the arrival of its first message.
var start = time.Date(2026, 3, 14, 6, 41, 7, 412e6, time.UTC)

// at is a sighting of sensor A in lane 1, that many milliseconds after start.
func at(ms int64, plate string, conf float32, change ...func(*sensors.Sighting)) sensors.Sighting {
	s := sensors.Sighting{Read: sensors.Read{
		Sensor: "A", Plate: plate, Country: "FR", Conf: conf, TS: start.UnixMilli() + ms, Lane: 1,
	}}
	for _, f := range change {
		f(&s)
	}
	return s
}

func track(name string) func(*sensors.Sighting) { return func(s *sensors.Sighting) { s.Track = name } }
func lane(n uint32) func(*sensors.Sighting)     { return func(s *sensors.Sighting) { s.Read.Lane = n } }
func country(c string) func(*sensors.Sighting) {
	return func(s *sensors.Sighting) { s.Read.Country = c }
}
func retransmitted(s *sensors.Sighting) { s.Read.Retransmitted = true }
func pictured(s *sensors.Sighting)      { s.Context = []byte{0xff} }
func charConf(s *sensors.Sighting)      { s.Read.CharConf = []float32{.9, .9, .9, .9, .9, .9, .9} }
func candidates(s *sensors.Sighting) {
	s.Read.Candidates = []sensors.Candidate{{Plate: "AB123CO", Conf: .3}}
}

// arriving makes a sighting arrive that many milliseconds after start instead of when captured.
type arriving struct {
	ms int64
	sensors.Sighting
}

func tracker(t testing.TB, cfg passage.Config) *passage.Tracker {
	t.Helper()
	tr, err := passage.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// one judges a message of one sighting and commits.
func one(tr *passage.Tracker, s sensors.Sighting, ms int64) passage.Decision {
	tx := tr.Begin(start.Add(time.Duration(ms) * time.Millisecond))
	d := tx.Decide(&s)
	tx.Commit()
	return d
}

// story judges messages one by one and tells for each the number of its passage, in the order
// in which they began, and the reason; what is forwarded has its revision after a slash.
func story(tr *passage.Tracker, ss []any) string {
	var told, ids []string
	for _, s := range ss {
		var d passage.Decision
		switch s := s.(type) {
		case sensors.Sighting:
			d = one(tr, s, s.Read.TS-start.UnixMilli())
		case arriving:
			d = one(tr, s.Sighting, s.ms)
		}
		n := slices.Index(ids, d.Passage)
		if n < 0 {
			n = len(ids)
			ids = append(ids, d.Passage)
		}
		word := fmt.Sprintf("%d:%s", n+1, d.Reason)
		if d.Forward() {
			word += fmt.Sprintf("/%d", d.Revision)
		}
		told = append(told, word)
	}
	return strings.Join(told, " ")
}

func TestDecide(t *testing.T) {
	tests := []struct {
		name string
		ss   []any
		want string
	}{
		{"a track", []any{
			at(0, "AB123CD", .9, track("7")), at(100, "AB-123-CD", .91, track("7")), at(200, "AB123CD", .95, track("7")),
		}, "1:first/0 1:nothing 1:confidence/1"},
		{"a track whose plate changes and changes back", []any{
			at(0, "AB123CD", .9, track("7")), at(100, "XY987ZW", .9, track("7")), at(200, "AB123CD", .9, track("7")),
		}, "1:first/0 1:text/1 1:text/2"},
		{"its end", []any{
			at(0, "AB123CD", .9, track("7")), at(0, "AB123CD", .9, track("7")),
		}, "1:first/0 1:repeat"},
		{"its end with another plate", []any{
			at(0, "AB123CD", .9, track("7")), at(900, "AB123CO", .9, track("7")),
		}, "1:first/0 1:text/1"},
		{"a doubtful first read goes out at once", []any{
			at(0, "AB123CD", .1, track("7")), at(100, "AB123CD", .12, track("7")), at(200, "AB123CD", .16, track("7")),
		}, "1:first/0 1:nothing 1:confidence/1"},
		{"a level of confidence is forwarded once for each text", []any{
			at(0, "AB123CD", .9, track("7")), at(100, "AB123CO", .5, track("7")), at(200, "AB123CD", .6, track("7")),
			at(300, "AB123CD", .7, track("7")), at(400, "AB123CD", .96, track("7")),
		}, "1:first/0 1:text/1 1:text/2 1:nothing 1:confidence/3"},
		{"country", []any{
			at(0, "AB123CD", .9, track("7"), country("")), at(100, "AB123CD", .9, track("7"), country("FRA")),
			at(200, "AB123CD", .9, track("7"), country("")), at(300, "AB123CD", .9, track("7"), country("I")),
		}, "1:first/0 1:country/1 1:nothing 1:country/2"},
		{"evidence", []any{
			at(0, "AB123CD", .9, track("7")), at(100, "AB123CD", .9, track("7"), pictured), at(200, "AB123CD", .9, track("7"), pictured),
			at(300, "AB123CD", .9, track("7"), charConf), at(400, "AB123CD", .9, track("7"), candidates, charConf, pictured),
			at(500, "AB123CD", .9, track("7"), candidates),
		}, "1:first/0 1:evidence/1 1:nothing 1:evidence/2 1:evidence/3 1:nothing"},
		{"a plate appears and disappears", []any{
			at(0, "unknown", 0, track("7")), at(100, "", 0, track("7")), at(200, "AB123CD", .6, track("7")), at(300, "unknown", 0, track("7")),
			at(400, "AB123CD", .6, track("7")),
		}, "1:first/0 1:nothing 1:text/1 1:nothing 1:nothing"},
		{"a track is used again after a minute", []any{
			at(0, "AB123CD", .9, track("7")), at(60_000, "AB123CD", .9, track("7")), at(120_001, "AB123CD", .9, track("7")),
		}, "1:first/0 1:nothing 2:first/0"},
		{"a camera has restarted", []any{
			at(0, "AB123CD", .9, track("7")), at(10_001, "XY987ZW", .9, track("7")),
		}, "1:first/0 2:first/0"},
		{"it may have, but the second plate is doubtful", []any{
			at(0, "AB123CD", .9, track("7")), at(10_001, "XY987ZW", .5, track("7")),
		}, "1:first/0 1:text/1"},
		{"it may have, but the first plate was doubtful", []any{
			at(0, "AB123CD", .5, track("7")), at(10_001, "XY987ZW", .9, track("7")),
		}, "1:first/0 1:text/1"},
		{"it has not, for the plates are alike", []any{
			at(0, "AB123CD", .9, track("7")), at(10_001, "AB128CD", .9, track("7")),
		}, "1:first/0 1:text/1"},
		{"it has not, for the gap is short", []any{
			at(0, "AB123CD", .9, track("7")), at(10_000, "XY987ZW", .9, track("7")),
		}, "1:first/0 1:text/1"},
		{"two hours of a track come at once", []any{
			arriving{0, at(-7_200_000, "AB123CD", .9, track("7"))}, arriving{1, at(0, "XY987ZW", .5, track("7"))},
		}, "1:first/0 2:first/0"},
		{"tracks apart", []any{
			at(0, "AB123CD", .9, track("7")), at(0, "AB123CD", .9, track("8")), at(10, "AB123CD", .9),
		}, "1:first/0 2:first/0 3:first/0"},
		{"a message sent twice after a change", []any{
			at(0, "AB123CD", .9, track("7")), at(100, "AB128CD", .9, track("7")), arriving{200, at(0, "AB123CD", .9, track("7"))},
		}, "1:first/0 1:text/1 1:repeat"},
		{"a clock that stands still", []any{
			at(0, "AB123CD", .9, track("7")), arriving{100, at(0, "AB128CD", .9, track("7"))}, arriving{200, at(0, "AB123CD", .9, track("7"))},
		}, "1:first/0 1:text/1 1:text/2"},

		{"no track, same plate", []any{
			at(0, "AB123CD", .9), at(5000, "AB123CD", .9), at(10_000, "AB 123 CD", .9), at(15_001, "AB123CD", .9),
		}, "1:first/0 1:nothing 1:nothing 2:first/0"},
		{"no track, late arrival", []any{
			at(0, "AB123CD", .9), arriving{5001, at(100, "AB123CD", .9)},
		}, "1:first/0 2:first/0"},
		{"no track, two buffered reads of different times", []any{
			at(0, "AB123CD", .9), arriving{1, at(5001, "AB123CD", .9)},
		}, "1:first/0 2:first/0"},
		{"no track, consecutive plates of a fleet", []any{
			at(0, "AB123CD", .9), at(2000, "AB124CD", .9), at(2100, "AB123CD", .9), at(2200, "AB124CD", .9),
		}, "1:first/0 2:first/0 1:nothing 2:nothing"},
		{"no track, consecutive plates without confidence", []any{
			at(0, "AB123CD", 0), at(2000, "AB124CD", 0),
		}, "1:first/0 2:first/0"},
		{"no track, a doubtful plate corrected", []any{
			at(0, "AB124CD", .6), at(300, "AB123CD", .95), at(600, "AB124CD", .6),
		}, "1:first/0 1:text/1 1:text/2"},
		{"no track, a fragment; AB123C is a plate too, of a moped", []any{
			at(0, "AB123CD", .95), at(300, "B123CD", .95), at(600, "AB123C", .95), at(700, "AB123C", .5, lane(2)),
			at(800, "AB123CD", .95, lane(2)),
		}, "1:first/0 1:text/1 2:first/0 3:first/0 3:text/1"},
		{"no track, confusable characters", []any{
			at(0, "OB123CD", .9), at(300, "DB123CD", .9), at(600, "0B1Z3CD", .9),
		}, "1:first/0 2:first/0 2:text/1"},
		{"no track, two edits", []any{
			at(0, "AB123CD", .5), at(300, "AB143CE", .5),
		}, "1:first/0 2:first/0"},
		{"no track, a doubtful read does not join two vehicles", []any{
			at(0, "AB123CD", .95), at(300, "AB123CO", .5), at(600, "AB123CQ", .95),
		}, "1:first/0 1:text/1 2:first/0"},
		{"no track, a plate known for sure although its better reading was suppressed", []any{
			at(0, "AB123CD", .78), at(300, "AB123CD", .81), at(600, "AB124CD", .95),
		}, "1:first/0 1:nothing 2:first/0"},
		{"no track, lanes", []any{
			at(0, "AB123CD", .6, lane(1)), at(0, "AB123CD", .6, lane(2)), at(100, "AB123CD", .6, lane(0)), at(200, "AB123CC", .6, lane(1)),
		}, "1:first/0 2:first/0 2:nothing 1:text/1"},
		{"no track, an unknown lane becomes known", []any{
			at(0, "AB123CD", .6, lane(0)), at(100, "AB123CD", .6, lane(2)), at(200, "AB123CD", .6, lane(3)),
		}, "1:first/0 1:nothing 2:first/0"},
		{"no track, no plate", []any{
			at(0, "unknown", 0), at(3000, "NO PLATE", 0), at(3100, "AB123CD", .5), at(5001, "unknown", 0), at(5001, "unknown", 0, lane(2)),
		}, "1:first/0 1:nothing 2:first/0 3:first/0 4:first/0"},

		{"retransmitted reads count by time of capture", []any{
			arriving{0, at(-9000, "AB123CD", .9, retransmitted)}, arriving{60_000, at(-5000, "AB123CD", .9, retransmitted)},
			arriving{60_001, at(1, "AB123CD", .9, retransmitted)},
		}, "1:first/0 1:nothing 2:first/0"},
		{"retransmitted reads and live ones keep apart", []any{
			at(0, "AB123CD", .9, track("7")), arriving{50, at(50, "XY987ZW", .9, track("7"), retransmitted)}, at(100, "AB123CD", .9, track("7")),
		}, "1:first/0 2:first/0 1:nothing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := story(tracker(t, passage.Config{}), tt.ss); got != tt.want {
				t.Errorf(" got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestOneMessage(t *testing.T) {
	tr := tracker(t, passage.Config{})
	tx := tr.Begin(start)
	var got []string
	for _, s := range []sensors.Sighting{
		at(0, "AB123CD", .9, track("7")), at(0, "XY987ZW", .9, track("8")), at(1, "AB123CD", .9, track("7")), at(2, "AB123CC", .9, track("7")),
	} {
		d := tx.Decide(&s)
		got = append(got, fmt.Sprintf("%s/%d", d.Reason, d.Revision))
	}
	tx.Commit()
	if want := "[first/0 first/0 nothing/1 text/1]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if d := one(tr, at(3, "AB123CC", .9, track("7")), 3); d.Reason != passage.Nothing || d.Revision != 2 {
		t.Errorf("after the commit: %s, revision %d", d.Reason, d.Revision)
	}
}

// Several vehicles in one message, each as its passage and revision, in whatever order they come.
func TestSeveralVehicles(t *testing.T) {
	none := lane(0)
	tests := []struct {
		name     string
		messages [][]sensors.Sighting
		want     string
	}{
		{"one picture", [][]sensors.Sighting{
			{at(0, "AB123CD", .74, none), at(0, "AB123CE", .93, none)}, {at(300, "AB123CE", .93, none), at(300, "AB123CD", .74, none)},
		}, "AB123CD=1/0 AB123CE=2/0 AB123CE=2:nothing AB123CD=1:nothing"},
		{"the second appears later", [][]sensors.Sighting{
			{at(0, "AB123CD", .74, none)}, {at(300, "AB123CE", .93, none), at(300, "AB123CD", .74, none)},
		}, "AB123CD=1/0 AB123CE=2/0 AB123CD=1:nothing"},
		{"what was taken for a correction is another", [][]sensors.Sighting{
			{at(0, "AB123CD", .74, none)}, {at(300, "AB123CE", .93, none)}, {at(600, "AB123CD", .74, none), at(600, "AB123CE", .93, none)},
		}, "AB123CD=1/0 AB123CE=1/1 AB123CD=2/0 AB123CE=1:nothing"},
		{"a correction in a message of several pictures", [][]sensors.Sighting{
			{at(0, "AB123CD", .74, none), at(300, "AB123CE", .93, none)},
		}, "AB123CD=1/0 AB123CE=1/1"},
		{"one plate twice in a picture", [][]sensors.Sighting{
			{at(0, "AB123CD", .74, none), at(0, "AB123CD", .75, none)},
		}, "AB123CD=1/0 AB123CD=1:nothing"},
		{"a track in two lanes", [][]sensors.Sighting{
			{at(0, "AB123CD", .95, track("5"), lane(1)), at(0, "XY987ZW", .5, track("5"), lane(2))},
			{at(100, "AB123CD", .95, track("5"), lane(1))}, {at(200, "XY987ZW", .9, track("5"), lane(2))},
		}, "AB123CD=1/0 XY987ZW=2/0 AB123CD=1:nothing XY987ZW=2/1"},
		{"a track of two plates", [][]sensors.Sighting{
			{at(0, "AB123CD", .95, track("5")), at(9, "XY987ZW", .9, track("5"))},
			{at(100, "AB123CO", .5, track("5"))}, {at(200, "XY987ZW", .9, track("5"))}, {at(300, "GK482TZ", .9, track("5"))},
			{at(400, "AB123CD", .95, track("5"))},
		}, "AB123CD=1/0 XY987ZW=2/0 AB123CO=1/1 XY987ZW=2:nothing GK482TZ=3/0 AB123CD=1/2"},
		{"a track of two plates of a fleet at the same time", [][]sensors.Sighting{
			{at(0, "AB123CD", .95, track("5")), at(0, "AB124CD", .9, track("5"))},
		}, "AB123CD=1/0 AB124CD=2/0"},
		{"a track that turns out to be of two", [][]sensors.Sighting{
			{at(0, "AB123CD", .95, track("5"), lane(1))},
			{at(100, "XY987ZW", .95, track("5"), lane(2)), at(100, "AB123CD", .95, track("5"), lane(1))},
		}, "AB123CD=1/0 XY987ZW=2/0 AB123CD=1:nothing"},
		{"a track whose plate is in doubt", [][]sensors.Sighting{
			{at(0, "AB123CD", .95, track("5")), at(0, "XY987ZW", .5, track("5")), at(0, "AB123CD", .95, track("6"), lane(2))},
		}, "AB123CD=1/0 XY987ZW=1/1 AB123CD=2/0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := tracker(t, passage.Config{})
			var got, ids []string
			for _, m := range tt.messages {
				tx := tr.Begin(start.Add(time.Duration(m[0].Read.TS-start.UnixMilli())*time.Millisecond), m...)
				for i := range m {
					d := tx.Decide(&m[i])
					n := slices.Index(ids, d.Passage)
					if n < 0 {
						n = len(ids)
						ids = append(ids, d.Passage)
					}
					word := fmt.Sprintf("%s=%d:%s", m[i].Read.Plate, n+1, d.Reason)
					if d.Forward() {
						word = fmt.Sprintf("%s=%d/%d", m[i].Read.Plate, n+1, d.Revision)
					}
					got = append(got, word)
				}
				tx.Commit()
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf(" got %s\nwant %s", s, tt.want)
			}
		})
	}
}

// Nobody knows whether the reads of an abandoned message are stored: their revisions are used up,
// and the passage is told anew.
func TestAbandon(t *testing.T) {
	abandon := func(tr *passage.Tracker, s sensors.Sighting, ms int64) passage.Decision {
		tx := tr.Begin(start.Add(time.Duration(ms) * time.Millisecond))
		d := tx.Decide(&s)
		tx.Abandon()
		return d
	}
	a, b := at(0, "AB123CD", .9, track("7")), at(100, "XY987ZW", .9, track("7"))
	tell := func(d passage.Decision) string { return fmt.Sprintf("%s/%d", d.Reason, d.Revision) }

	t.Run("a first read", func(t *testing.T) {
		tr := tracker(t, passage.Config{})
		want := abandon(tr, a, 0)
		if got := one(tr, a, 1); got.Reason != passage.First || got.Revision != 0 || got.ID != want.ID || got.Passage != want.Passage {
			t.Errorf("got %s, want first/0 with the ids as before", tell(got))
		}
	})
	t.Run("does not come again", func(t *testing.T) {
		tr := tracker(t, passage.Config{})
		one(tr, a, 0)
		abandon(tr, b, 100)
		if got := tell(one(tr, a, 150)); got != "repeat/2" {
			t.Errorf("the first message sent twice: %s", got)
		}
		if got := tell(one(tr, at(160, "", 0, track("7")), 160)); got != "nothing/2" {
			t.Errorf("no plate: %s", got)
		}
		if got := tell(one(tr, at(200, "AB123CD", .9, track("7")), 200)); got != "text/2" {
			t.Errorf("the plate before: %s, want text/2: another may have been stored as revision 1", got)
		}
		if got := tell(one(tr, at(300, "AB123CD", .9, track("7")), 300)); got != "nothing/3" {
			t.Errorf("and once more: %s", got)
		}
	})
	t.Run("comes again", func(t *testing.T) {
		tr := tracker(t, passage.Config{})
		one(tr, a, 0)
		first := at(0, "AB123CD", .99, track("7")) // has the StableID of a
		for _, s := range []sensors.Sighting{first, b} {
			x, y := abandon(tr, s, 100), abandon(tr, s, 200)
			other := s
			other.Read.Conf = .5
			between := one(tr, other, 250)
			pictured := s
			pictured.Context = []byte{0xff} // which could not be stored before, or not now
			z := one(tr, pictured, 300)
			if x.ID != y.ID || x.ID != z.ID || x.ID == between.ID || !z.Forward() {
				t.Errorf("ids %s, %s and %s (%s), and of another %s", x.ID, y.ID, z.ID, tell(z), between.ID)
			}
			if y.Revision <= x.Revision || between.Revision <= y.Revision || z.Revision <= between.Revision {
				t.Errorf("revisions %d, %d, %d, %d do not rise", x.Revision, y.Revision, between.Revision, z.Revision)
			}
		}
	})
	t.Run("told nothing", func(t *testing.T) {
		tr := tracker(t, passage.Config{})
		one(tr, a, 0)
		abandon(tr, at(100, "AB123CD", .9, track("7")), 100)
		if got := tell(one(tr, at(200, "AB123CD", .9, track("7")), 200)); got != "nothing/1" {
			t.Errorf("got %s", got)
		}
	})
}

// A message that could not be stored comes again and must be judged as if it had not come.
func TestNotCommitted(t *testing.T) {
	tr := tracker(t, passage.Config{})
	first := at(0, "AB123CD", .9, track("7"))
	want := tr.Begin(start).Decide(&first)
	if got := one(tr, first, 500); got.Reason != passage.First || got.Passage != want.Passage || got.ID != want.ID {
		t.Errorf("first: got %s %s %s, want as before %s %s", got.Reason, got.Passage, got.ID, want.Passage, want.ID)
	}
	second := at(600, "AB123CC", .9, track("7"))
	want = tr.Begin(start.Add(600 * time.Millisecond)).Decide(&second)
	got := one(tr, second, 700)
	if got.Reason != passage.Text || got.Revision != 1 || got.ID != want.ID {
		t.Errorf("second: got %s, revision %d, id %s, want text, 1, %s", got.Reason, got.Revision, got.ID, want.ID)
	}
	if s := tr.Stats(); s.Passages != 1 || s.Decisions[passage.First] != 1 || s.Decisions[passage.Text] != 1 {
		t.Errorf("stats count what was not committed: %+v", s)
	}
}

func TestPicturesLost(t *testing.T) {
	tr := tracker(t, passage.Config{})
	tx := tr.Begin(start)
	s := at(0, "AB123CD", .9, track("7"), pictured)
	d := tx.Decide(&s)
	d.PicturesLost()
	tx.Commit()
	if d := one(tr, at(100, "AB123CD", .9, track("7"), pictured), 100); d.Reason != passage.Evidence {
		t.Errorf("the first picture that can be stored: %s, want evidence", d.Reason)
	}
}

// A stronger read of the same plate and time has the StableID of the first.
func TestReadIDs(t *testing.T) {
	tr := tracker(t, passage.Config{})
	first := at(0, "AB123CD", .5, track("7"))
	a, b := one(tr, first, 0), one(tr, at(0, "AB123CD", .9, track("7")), 0)
	if want := sensors.StableID(&first.Read); a.ID != want {
		t.Errorf("first: id %s, want %s", a.ID, want)
	}
	if b.Reason != passage.Confidence || b.ID == a.ID || len(b.ID) != 26 {
		t.Errorf("second: %s with id %s after %s", b.Reason, b.ID, a.ID)
	}
	own := at(0, "AB123CD", .5, track("8"), func(s *sensors.Sighting) { s.Read.ID = "vendor-1" })
	if d := one(tr, own, 0); d.ID != "vendor-1" {
		t.Errorf("id %s, want the sensor's own", d.ID)
	}
	own.Read.Conf = .9
	if d := one(tr, own, 0); d.ID == "vendor-1" || d.ID == "" {
		t.Errorf("id %q although the passage has had it", d.ID)
	}
}

func TestID(t *testing.T) {
	if got, want := passage.ID("A7-118-2", "4412", 1773470467412), "kaxlb4ld6bhjdbbclgefgzd45i"; got != want {
		t.Errorf("ID = %s, want %s: passages of running gateways would begin anew", got, want)
	}
	r := sensors.Read{Sensor: "A7-118-2", Plate: "GK-482-TZ", TS: 1773470467412, Lane: 2}
	id := passage.ReadID(&r)
	if want := "wi3iwxwydsa6gbl4rxk5w72b3i"; id != want {
		t.Errorf("ReadID = %s, want %s", id, want)
	}
	r.Plate = "gk482tz"
	if got := passage.ReadID(&r); got != id {
		t.Errorf("ReadID = %s for the same plate written otherwise, want %s", got, id)
	}
	seen := map[string]string{id: "gk482tz"}
	for _, other := range []string{
		passage.ID("A", "B1", 1), passage.ID("AB", "1", 1), passage.ID("A", "B", 1), passage.ID("A", "B", 2),
		passage.ReadID(&sensors.Read{Sensor: "A7-118-2", Plate: "GK482TZ", TS: 1773470467412, Lane: 3}),
		passage.ReadID(&sensors.Read{Sensor: "A7-118-2", TS: 1773470467412, Lane: 2}),
	} {
		if seen[other] != "" || len(other) != 26 {
			t.Errorf("id %s repeats or has not 26 characters", other)
		}
		seen[other] = "x"
	}
}

func TestBounds(t *testing.T) {
	tr := tracker(t, passage.Config{MaxPerSensor: 4, Max: 6})
	for i := range 5 {
		one(tr, at(int64(i), "AB123CD", .9, track(fmt.Sprint(i))), int64(i))
	}
	if s := tr.Stats(); s.Passages != 4 || s.Evicted != 1 {
		t.Errorf("per sensor: %d passages, %d evicted, want 4, 1", s.Passages, s.Evicted)
	}
	if d := one(tr, at(10, "AB123CD", .9, track("1")), 10); d.Reason != passage.Nothing {
		t.Errorf("a passage that was kept: %s", d.Reason)
	}
	for i := range 3 {
		one(tr, at(20, "AB123CD", .9, func(s *sensors.Sighting) { s.Read.Sensor = fmt.Sprint("B", i) }), 20)
	}
	if s := tr.Stats(); s.Passages != 6 || s.Evicted != 2 {
		t.Errorf("in total: %d passages, %d evicted, want 6, 2", s.Passages, s.Evicted)
	}
	if d := one(tr, at(30, "AB123CD", .9, track("1")), 30); d.Reason != passage.Nothing {
		t.Errorf("the passage heard of last: %s", d.Reason)
	}
	one(tr, at(100_000, "AB123CD", .9, track("9")), 100_000)
	if s := tr.Stats(); s.Passages != 4 || s.Evicted != 2 {
		t.Errorf("after a time: %d passages, %d evicted, want 4, 2: what is over was not evicted", s.Passages, s.Evicted)
	}
}

func TestMemory(t *testing.T) {
	const n = 20_000
	before := heap()
	tr := tracker(t, passage.Config{})
	for i := range n {
		s := at(int64(i), "AB123CD", .9, track(fmt.Sprint(i)), func(s *sensors.Sighting) { s.Read.Sensor = fmt.Sprint(i / 100) })
		one(tr, s, int64(i))
	}
	each := (heap() - before) / n
	t.Logf("%d bytes a passage", each)
	if each > 700 {
		t.Errorf("%d bytes a passage, want 700 at most", each)
	}
	runtime.KeepAlive(tr)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestConcurrent(t *testing.T) {
	tr := tracker(t, passage.Config{MaxPerSensor: 8, Max: 20})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				one(tr, at(int64(i), "AB123CD", .9, track(fmt.Sprint(i%11)), func(s *sensors.Sighting) {
					s.Read.Sensor = fmt.Sprint(g % 4) // shared by two: nothing may break
				}), int64(i))
				tr.Stats()
			}
		})
	}
	wg.Wait()
	if s := tr.Stats(); s.Passages > 20 {
		t.Errorf("%d passages, 20 at most", s.Passages)
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []passage.Config{{Window: -1}, {TrackAge: -1}, {Max: -1}, {MaxPerSensor: -1}} {
		if _, err := passage.New(cfg); err == nil {
			t.Errorf("New(%+v) took it", cfg)
		}
	}
}

// Whatever comes: every text of a track is forwarded, revisions of a passage count up from 0, no
// two passages and no two forwarded reads have an id in common, and another Tracker decides the
// same.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plates := []string{"AB123CD", "AB124CD", "AB-123-CD", "AB123C", "A8123CD", "XY987ZW", "unknown", ""}
		var ss []sensors.Sighting
		var arrivals []int64
		now, ts := int64(0), int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "n") {
			now += rapid.SampledFrom([]int64{0, 1, 700, 4000, 11_000, 70_000}).Draw(t, "gap")
			ts = max(ts+1, now)
			s := at(ts, rapid.SampledFrom(plates).Draw(t, "plate"), rapid.SampledFrom([]float32{0, .5, .79, .9, .99}).Draw(t, "conf"),
				track(rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "track")), lane(rapid.Uint32Range(0, 2).Draw(t, "lane")),
				country(rapid.SampledFrom([]string{"", "FR", "I"}).Draw(t, "country")))
			ss, arrivals = append(ss, s), append(arrivals, now)
		}
		x, err := passage.New(passage.Config{})
		if err != nil {
			t.Fatal(err)
		}
		y, _ := passage.New(passage.Config{})
		type told struct{ passage, text string }
		texts, revisions, reads := map[told]bool{}, map[string]uint32{}, map[string]bool{}
		owner := map[string]string{} // of a passage: its track
		for i, s := range ss {
			if rapid.Bool().Draw(t, "fails first") {
				x.Begin(start.Add(time.Duration(arrivals[i]) * time.Millisecond)).Decide(&s)
			}
			d, e := one(x, s, arrivals[i]), one(y, s, arrivals[i])
			if d.Passage != e.Passage || d.Revision != e.Revision || d.Reason != e.Reason || d.ID != e.ID {
				t.Fatalf("message %d: two trackers decide differently: %s and %s", i, d.Reason, e.Reason)
			}
			if of, ok := owner[d.Passage]; ok && of != s.Track {
				t.Fatalf("message %d: passage of track %q also has track %q", i, of, s.Track)
			}
			owner[d.Passage] = s.Track
			if d.Revision != revisions[d.Passage] {
				t.Fatalf("message %d: revision %d after %d forwarded", i, d.Revision, revisions[d.Passage])
			}
			key, err := s.Read.Key()
			text := told{d.Passage, key.String()}
			if d.Forward() {
				revisions[d.Passage]++
				if reads[d.ID] || d.ID == "" {
					t.Fatalf("message %d: id %q has been forwarded before", i, d.ID)
				}
				reads[d.ID] = true
				texts[text] = true
			} else if err == nil && !texts[text] {
				t.Fatalf("message %d: suppressed as %s, and its text was never forwarded", i, d.Reason)
			}
		}
	})
}

// Whatever comes in one message, and whether or not it is known to be stored: no passage begins
// twice, no two plates without a track that are seen at the same time share one, revisions
// rise, and no two reads of a passage that are stored have an id in common.
func TestMessageProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plates := []string{"AB123CD", "AB124CD", "AB123C", "A8123CD", "XY987ZW", "unknown"}
		tr, err := passage.New(passage.Config{})
		if err != nil {
			t.Fatal(err)
		}
		revisions, begun, reads := map[string]uint32{}, map[string]bool{}, map[string]bool{}
		now := int64(0)
		for range rapid.IntRange(1, 20).Draw(t, "messages") {
			now += rapid.SampledFrom([]int64{1, 700, 4000, 11_000}).Draw(t, "gap")
			var m []sensors.Sighting
			for range rapid.IntRange(1, 5).Draw(t, "n") {
				m = append(m, at(now, rapid.SampledFrom(plates).Draw(t, "plate"), rapid.SampledFrom([]float32{.5, .9}).Draw(t, "conf"),
					track(rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "track")), lane(rapid.Uint32Range(0, 2).Draw(t, "lane"))))
			}
			stored := rapid.Bool().Draw(t, "stored")
			tx := tr.Begin(start.Add(time.Duration(now)*time.Millisecond), m...)
			shows := map[string]string{}
			for i := range m {
				d := tx.Decide(&m[i])
				if other, ok := shows[d.Passage]; ok && other != m[i].Read.Plate && m[i].Track == "" {
					t.Fatalf("%s and %s of one picture are one vehicle", other, m[i].Read.Plate)
				}
				shows[d.Passage] = m[i].Read.Plate
				if !d.Forward() {
					continue
				}
				if next, known := revisions[d.Passage]; known && d.Revision < next {
					t.Fatalf("revision %d (%s) after %d", d.Revision, d.Reason, next-1)
				}
				if stored && (reads[d.Passage+d.ID] || d.Reason == passage.First && begun[d.Passage]) {
					t.Fatalf("the id %s of a read or %s of a passage is given twice", d.ID, d.Passage)
				}
				if stored || begun[d.Passage] {
					revisions[d.Passage] = d.Revision + 1
				}
				if stored {
					reads[d.Passage+d.ID], begun[d.Passage] = true, true
				}
			}
			if stored {
				tx.Commit()
			} else {
				tx.Abandon()
			}
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	for _, passages := range []int{1, 256} {
		b.Run(fmt.Sprintf("passages=%d", passages), func(b *testing.B) {
			tr := tracker(b, passage.Config{})
			names := make([]string, passages)
			for i := range names {
				names[i] = fmt.Sprint(i)
				one(tr, at(0, "AB123CD", .9, track(names[i])), 0)
			}
			i := 0
			for b.Loop() {
				s := at(int64(i%1000), "AB123CD", .9, track(names[i%passages]))
				one(tr, s, int64(i%1000))
				i++
			}
		})
	}
}
