package matcher_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vigie/matcher"
	"vigie/matcher/slow"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

var (
	fr, _ = plate.ParseCountry("FR")
	it, _ = plate.ParseCountry("IT")
	epoch = time.Date(2026, 3, 14, 6, 0, 0, 0, time.UTC)
)

func key(t testing.TB, text string) plate.Key {
	t.Helper()
	k, err := plate.Parse(text)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return k
}

func list(id string, tol watchlist.Tolerance) *watchlist.List {
	return &watchlist.List{ID: id, Name: id, Owner: "test", LegalBasis: "test", Tolerance: tol}
}

func entry(t testing.TB, list, id, text string, c plate.Country) *watchlist.Packed {
	return watchlist.Pack(&watchlist.Entry{
		ID: id, List: list, Plate: text, Key: key(t, text), Country: c,
		ValidFrom: epoch, ValidUntil: epoch.Add(24 * time.Hour),
	})
}

func pattern(t testing.TB, list, id, text string, c plate.Country) *watchlist.Packed {
	t.Helper()
	p, err := watchlist.ParsePattern(text)
	if err != nil {
		t.Fatal(err)
	}
	return watchlist.Pack(&watchlist.Entry{
		ID: id, List: list, Plate: text, Pattern: p, Country: c,
		ValidFrom: epoch, ValidUntil: epoch.Add(24 * time.Hour),
	})
}

func putEntries(es ...*watchlist.Packed) (cs []control.Change) {
	for _, e := range es {
		cs = append(cs, control.Change{NewEntry: e})
	}
	return cs
}

func putList(l *watchlist.List) control.Change { return control.Change{NewList: l} }

func TestMatchRules(t *testing.T) {
	near := list("near", watchlist.ToleranceNear)
	sure := list("sure", watchlist.ToleranceNear)
	sure.Threshold = 0.53
	limited := list("limited", watchlist.ToleranceExact)
	limited.Zones, limited.Sensors = []string{"south"}, []string{"bridge-1", "s-purposes"}
	limited.Purpose = "vols"
	m := matcher.New()
	m.Apply(append([]control.Change{
		putList(list("mass", watchlist.ToleranceExact)), putList(list("ocr", watchlist.ToleranceOCR)), putList(limited),
		putList(near), putList(sure), putList(list("pattern", watchlist.TolerancePattern)),
		{NewSensor: &control.Sensor{ID: "s-south", Zones: []string{"south", "coast"}}},
		{NewSensor: &control.Sensor{ID: "s-north", Zones: []string{"north"}}},
		{NewSensor: &control.Sensor{ID: "s-lists", Zones: []string{"south"}, Lists: []string{"sure", "ocr"}}},
		{NewSensor: &control.Sensor{ID: "s-purposes", Purposes: []string{"Vols"}}},
	}, putEntries(
		entry(t, "mass", "m1", "AB-123-CD", fr),
		entry(t, "mass", "m2", "XY-789-ZT", 0),
		entry(t, "ocr", "o1", "BD-180-SG", fr),
		entry(t, "ocr", "o2", "EF-456-GH", fr),
		entry(t, "ocr", "o3", "TL-111-LT", fr),
		entry(t, "limited", "l1", "CC-333-CC", fr),
		entry(t, "near", "n1", "GW-274-NR", fr),
		entry(t, "sure", "n2", "GW-274-NR", fr),
		entry(t, "near", "n3", "ABCD-1234-5678", fr),
		entry(t, "mass", "m3", "CSQU-305438-3", 0),
		pattern(t, "pattern", "p1", "HK-9?4-*", fr),
		entry(t, "pattern", "p2", "HK-114-JJ", fr),
	)...), 9)
	exempt := &watchlist.Exemption{List: "near", Entry: "n1", Read: key(t, "GN274NR"), Until: epoch.Add(time.Hour)}
	m.Apply([]control.Change{{NewExemption: exempt}}, 9)

	for _, tc := range []struct {
		name    string
		read    string
		country plate.Country
		at      time.Duration // after the epoch
		sensor  string
		want    string // "entry kind country grade score differs"
	}{
		{"equal, same country", "ab 123 cd", fr, 0, "", "m1 exact same high 1 []"},
		{"equal, read without country", "AB123CD", 0, 0, "", "m1 exact unknown medium 0.8 []"},
		{"equal, entry without country", "XY789ZT", it, 0, "", "m2 exact unknown medium 0.8 []"},
		{"equal, other country, exact list", "AB123CD", it, 0, "", ""},
		{"equal, other country, ocr list", "EF456GH", it, 0, "", "o2 ocr different low 0.4 []"},
		{"look-alikes on an exact list", "A8123CD", fr, 0, "", ""},
		{"look-alikes on an ocr list", "BD180S6", fr, 0, "", "o1 ocr same medium p [6]"},
		{"many look-alikes", "8D-I8O-5G", fr, 0, "", "o1 ocr same low p [0 2 4 5]"},
		{"look-alikes, no country", "BD180S6", 0, 0, "", "o1 ocr unknown low p [6]"},
		{"look-alikes, other country", "BD180S6", it, 0, "", ""},
		{"decoded in its places", "TLL11LT", fr, 0, "", "o3 ocr same low p [2]"},
		{"a character before the first", "1EF456GH", fr, 0, "", "o2 ocr same medium p [0 1 2 3 4 5 6 7]"},
		{"a character after the last", "EF456GHI", fr, 0, "", "o2 ocr same medium p [7]"},
		{"a digit that nobody confuses, on an ocr list", "EF156GH", fr, 0, "", ""},
		{"near, likely", "6W274NR", fr, 0, "", "n1 near same medium p [0]"},
		{"near, less likely", "GW274WR", fr, 0, "", "n1 near same low p [5]"},
		{"near, sure enough for both lists", "GW274NRI", fr, 0, "", "n1 near same medium p [7]\nn2 near same medium p [7]"},
		{"near, one letter lost", "GW274N", fr, 0, "", "n1 near same low p [6]"},
		{"near, a good plate of another vehicle", "GW279NR", fr, 0, "", ""},
		{"the longest plate", "ABCD1234567B", fr, 0, "", "n3 near same medium p [11]"},
		{"near, exempt", "GN274NR", fr, 0, "", ""},
		{"near, exempt until then", "GN274NR", fr, time.Hour, "", "n1 near same low p [1]"},
		{"near, equal", "GW274NR", fr, 0, "", "n1 exact same high 1 []\nn2 exact same high 1 []"},
		{"near, equal, other country", "GW274NR", it, 0, "", "n1 near different low 0.4 []\nn2 near different low 0.4 []"},
		{"pattern", "HK914ZZ", fr, 0, "", "p1 pattern same medium 0.7 []"},
		{"pattern, no country", "HK914ZZ", 0, 0, "", "p1 pattern unknown low 0.5 []"},
		{"pattern, other country", "HK914ZZ", it, 0, "", ""},
		{"pattern, not that one", "HK924ZZ", fr, 0, "", "p1 pattern same medium 0.7 []"},
		{"pattern, another digit", "HK915ZZ", fr, 0, "", ""},
		{"a plate on a list of patterns", "HK114JJ", fr, 0, "", "p2 exact same high 1 []"},
		{"a container needs no country", "CSQU3054383", fr, 0, "", "m3 exact same high 1 []"},
		{"before it is valid", "AB123CD", fr, -time.Millisecond, "", ""},
		{"last moment", "AB123CD", fr, 24*time.Hour - time.Millisecond, "", "m1 exact same high 1 []"},
		{"expired", "AB123CD", fr, 24 * time.Hour, "", ""},
		{"limited list, sensor in the zone", "CC333CC", fr, 0, "s-south", "l1 exact same high 1 []"},
		{"limited list, named sensor", "CC333CC", fr, 0, "bridge-1", "l1 exact same high 1 []"},
		{"limited list, elsewhere", "CC333CC", fr, 0, "s-north", ""},
		{"limited list, unknown sensor", "CC333CC", fr, 0, "nowhere", ""},
		{"limited sensor, its list", "GW274NR", fr, 0, "s-lists", "n2 exact same high 1 []"},
		{"limited sensor, another list in its zone", "CC333CC", fr, 0, "s-lists", ""},
		{"limited sensor, a mass list", "AB123CD", fr, 0, "s-lists", ""},
		{"limited sensor, look-alikes", "BD180S6", fr, 0, "s-lists", "o1 ocr same medium p [6]"},
		{"limited to a purpose, which the list states", "CC333CC", fr, 0, "s-purposes", "l1 exact same high 1 []"},
		{"limited to a purpose, the list states none", "AB123CD", fr, 0, "s-purposes", ""},
		{"not wanted", "ZZ999ZZ", fr, 0, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := matcher.Query{Key: key(t, tc.read), Country: tc.country, At: epoch.Add(tc.at).UnixMilli(), Sensor: tc.sensor, Conf: 0.85}
			snap := m.Snapshot()
			if got := show(snap.Match(nil, &q)); got != tc.want {
				t.Errorf("Match = %q, want %q", got, tc.want)
			}
			var hits int
			for _, v := range snap.Explain(&q) {
				if v.Because == "" {
					t.Error("a verdict without a reason")
				}
				if v.Alerts {
					hits++
				}
			}
			if want := strings.Count(tc.want, "\n") + min(1, len(tc.want)); hits != want {
				t.Errorf("Explain has %d hits, want %d", hits, want)
			}
		})
	}
	if v := m.Snapshot().Version(); v != 9 {
		t.Errorf("version %d, want 9", v)
	}
}

func show(hits []matcher.Hit) string {
	lines := make([]string, len(hits))
	for i, h := range hits {
		score := fmt.Sprint(h.Score)
		if h.Differs != 0 {
			score = "p" // a probability, see package misread
		}
		lines[i] = fmt.Sprintf("%s %s %s %s %s %v", h.Entry.ID(), h.Kind, h.Country, h.Grade, score, h.Positions())
	}
	return strings.Join(lines, "\n")
}

// TestAgainstSlow runs the same seeded random lists, swaps and reads through
// this matcher and the slow one, in batches of random size. The plates are
// drawn from few characters, most of them look-alikes, so that texts, folds
// and misreads meet all the time. VIGIE_MODEL_SEEDS makes it longer: 600
// seeds are ten million changes and reads.
func TestAgainstSlow(t *testing.T) {
	steps := 6_000
	if testing.Short() {
		steps = 2_000
	}
	seeds := uint64(4)
	if s := os.Getenv("VIGIE_MODEL_SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		seeds = n
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			compare(t, rand.New(rand.NewPCG(seed, 1)), steps)
		})
	}
}

var containers = []string{"CSQU3054383", "CSQU3054384", "C5QU3054383"}

func compare(t *testing.T, rng *rand.Rand, steps int) {
	fast, model := matcher.New(), slow.New()
	countries := []plate.Country{0, fr, it}
	sensors := []string{"s0", "s1", "s2", "unregistered"}
	zones := []string{"north", "south"}
	text := func() string {
		b := make([]byte, 7)
		if rng.IntN(10) == 0 {
			b = make([]byte, plate.MinLen+1+rng.IntN(plate.MaxLen-plate.MinLen))
		}
		for i := range b {
			chars := "AB8D0O"
			switch {
			case rng.IntN(8) == 0:
				chars = "1IT5S2Z6GQL"
			case i >= 2 && i <= 4:
				chars = "0182"
			}
			b[i] = chars[rng.IntN(len(chars))]
		}
		b[0] = "AB8D1T"[rng.IntN(6)] // all zeros are no plate
		return string(b[:len(b)-rng.IntN(2)])
	}
	// near changes up to two characters of a text to look-alikes, and may lose
	// or add one.
	near := func(text string) string {
		b := []byte(text)
		switch i := rng.IntN(len(b)); rng.IntN(8) {
		case 0:
			b = slices.Delete(b, i, i+1)
		case 1:
			b = slices.Insert(b, i, "01BD8"[rng.IntN(5)])
		case 2:
			b = append(b, 'J')
		case 3:
			b = append([]byte("F"), b...)
		}
		for range rng.IntN(3) {
			i := rng.IntN(len(b))
			for _, class := range []string{"0ODQ", "1ILT", "8B", "5S", "2Z", "6G"} {
				if strings.IndexByte(class, b[i]) >= 0 {
					b[i] = class[rng.IntN(len(class))]
					break
				}
			}
		}
		if _, err := plate.Parse(string(b)); err != nil {
			return text // all zeros, too short or too long
		}
		return string(b)
	}
	var wanted []string // texts of entries, past ones too
	maybe := func(of []string) (out []string) {
		for _, s := range of {
			if rng.IntN(3) == 0 {
				out = append(out, s)
			}
		}
		return out
	}
	lists := map[string]*watchlist.List{}
	sensorOf := map[string]*control.Sensor{}
	exemptions := map[string]*watchlist.Exemption{}
	wildcards := func(text string) string {
		b := []byte(text)
		if len(b) < 3 {
			b = []byte("AB8D0")
		}
		i := rng.IntN(len(b))
		b[i] = "?*"[rng.IntN(2)]
		if rng.IntN(2) == 0 && len(b) > 5 {
			b = append(b[:len(b)-2], '*')
		}
		return string(b)
	}
	entries := map[string]map[string]*watchlist.Packed{} // by list, by id
	var batch []control.Change
	var version int64
	add := func(c control.Change) {
		version++
		c.Version = version
		batch = append(batch, c)
	}
	change := func() {
		switch n := rng.IntN(40); {
		case n == 0: // a list comes or changes
			id := fmt.Sprint("l", rng.IntN(4))
			l := list(id, watchlist.Tolerance(rng.IntN(4)))
			if rng.IntN(2) == 0 {
				l.Threshold = rng.Float32() * rng.Float32()
			}
			if rng.IntN(3) == 0 {
				l.Sensors, l.Zones = maybe(sensors), maybe(zones)
			}
			if rng.IntN(2) == 0 {
				l.Purpose = "vols"
			}
			add(control.Change{OldList: lists[id], NewList: l})
			lists[id] = l
		case n == 1 && rng.IntN(4) == 0: // a list goes, its entries first
			id := fmt.Sprint("l", rng.IntN(4))
			if lists[id] == nil {
				return
			}
			for eid, e := range entries[id] {
				add(control.Change{OldEntry: e})
				delete(entries[id], eid)
			}
			add(control.Change{OldList: lists[id]})
			delete(lists, id)
		case n == 3: // an exemption comes or goes
			id := fmt.Sprint("l", rng.IntN(4))
			x := &watchlist.Exemption{List: id, Entry: fmt.Sprint("e", rng.IntN(60)), Read: key(t, near(text())), Until: epoch.Add(2 * time.Hour)}
			if e := entries[id][x.Entry]; e != nil && e.Key() != 0 {
				x.Read = key(t, near(e.Key().String()))
			}
			at := x.List + x.Entry + x.Read.String()
			if old := exemptions[at]; old != nil {
				add(control.Change{OldExemption: old})
				delete(exemptions, at)
				return
			}
			add(control.Change{NewExemption: x})
			exemptions[at] = x
			wanted = append(wanted, x.Read.String())
		case n == 2:
			s := &control.Sensor{ID: sensors[rng.IntN(3)], Zones: maybe(zones)}
			if rng.IntN(2) == 0 {
				s.Lists, s.Purposes = maybe([]string{"l0", "l1", "l2"}), maybe([]string{"Vols"})
			}
			add(control.Change{OldSensor: sensorOf[s.ID], NewSensor: s})
			sensorOf[s.ID] = s
		default: // an entry comes, changes or goes
			id := fmt.Sprint("l", rng.IntN(4))
			if lists[id] == nil {
				return
			}
			if entries[id] == nil {
				entries[id] = map[string]*watchlist.Packed{}
			}
			eid := fmt.Sprint("e", rng.IntN(60))
			old := entries[id][eid]
			if old != nil && rng.IntN(2) == 0 {
				add(control.Change{OldEntry: old})
				delete(entries[id], eid)
				return
			}
			e := entry(t, id, eid, text(), countries[rng.IntN(3)]).Unpack()
			wanted = append(wanted, e.Plate)
			switch rng.IntN(10) {
			case 0:
				e = pattern(t, id, eid, wildcards(e.Plate), e.Country).Unpack()
			case 1:
				e = entry(t, id, eid, containers[rng.IntN(len(containers))], e.Country).Unpack()
				wanted = append(wanted, e.Plate)
			}
			e.ValidFrom = epoch.Add(time.Duration(rng.IntN(3)-1) * time.Hour)
			e.ValidUntil = e.ValidFrom.Add(time.Duration(1+rng.IntN(3)) * time.Hour)
			packed := watchlist.Pack(e)
			add(control.Change{OldEntry: old, NewEntry: packed})
			entries[id][eid] = packed
		}
	}
	var hits, reads int
	kinds := map[matcher.Kind]int{}
	for step := range steps {
		change()
		if rng.IntN(10) == 0 || step == 0 {
			fast.Apply(batch, version)
			model.Apply(batch)
			batch = nil
		}
		if len(batch) > 0 {
			continue // the two are at different versions
		}
		for range 20 {
			seen := text()
			if len(wanted) > 0 && rng.IntN(2) == 0 {
				seen = near(wanted[len(wanted)-1-rng.IntN(min(len(wanted), 100))])
			}
			q := matcher.Query{
				Key: key(t, seen), Country: countries[rng.IntN(3)], Sensor: sensors[rng.IntN(len(sensors))],
				At: epoch.Add(time.Duration(rng.IntN(6*60)-90) * time.Minute).UnixMilli(),
			}
			q.Conf = float32(rng.IntN(3)) * rng.Float32() / 2
			if rng.IntN(4) == 0 {
				for range q.Key.Len() - rng.IntN(2) {
					q.CharConf = append(q.CharConf, rng.Float32())
				}
			}
			if rng.IntN(4) == 0 {
				for range rng.IntN(10) {
					q.Candidates = append(q.Candidates, matcher.Candidate{Key: key(t, near(seen)), Conf: rng.Float32() - 0.1})
				}
			}
			got, want := fast.Snapshot().Match(nil, &q), model.Match(q)
			if may := fast.Snapshot().MayHit(nil, []plate.Key{q.Key}); len(want) > 0 && may[0]&1 == 0 {
				t.Fatalf("step %d: MayHit rules out read %s", step, q.Key.String())
			}
			reads++
			hits += len(want)
			for _, h := range want {
				kinds[h.Kind]++
			}
			byEntry := func(a, b matcher.Hit) int {
				return strings.Compare(a.Entry.List()+"/"+a.Entry.ID(), b.Entry.List()+"/"+b.Entry.ID())
			}
			slices.SortFunc(got, byEntry)
			slices.SortFunc(want, byEntry)
			if !slices.Equal(got, want) {
				t.Fatalf("step %d, read %s %s at %s:\ngot\n%s\nwant\n%s", step, q.Key.String(), q.Country, q.Sensor, show(got), show(want))
			}
		}
	}
	t.Logf("%d changes, %d reads, %d hits: %v", steps, reads, hits, kinds)
	for _, k := range []matcher.Kind{matcher.KindExact, matcher.KindOCR, matcher.KindNear, matcher.KindPattern} {
		if kinds[k] == 0 {
			t.Errorf("no hit of kind %s: the comparison says little", k)
		}
	}
	if hits < steps/20 {
		t.Errorf("only %d hits: the comparison says little", hits)
	}
}

// TestSnapshotNeverHalf matches while lists are swapped as wholes: a reader sees
// one whole edition or the other, whatever it asks.
func TestSnapshotNeverHalf(t *testing.T) {
	const n = 200
	m := matcher.New()
	m.Apply([]control.Change{putList(list("l", watchlist.ToleranceExact))}, 0)
	editions := make([][]*watchlist.Packed, 2)
	for ed := range editions {
		for i := range n {
			editions[ed] = append(editions[ed], entry(t, "l", fmt.Sprint(ed, "-", i), fmt.Sprintf("AA-%03d-%c%c", i, 'A'+ed, 'A'+i%20), fr))
		}
	}
	m.Apply(putEntries(editions[0]...), 1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				snap := m.Snapshot()
				var count [2]int
				for ed := range editions {
					for _, e := range editions[ed] {
						q := matcher.Query{Key: e.Key(), Country: fr, At: epoch.UnixMilli()}
						count[ed] += len(snap.Match(nil, &q))
					}
				}
				if count != [2]int{n, 0} && count != [2]int{0, n} {
					t.Errorf("a mix: %v of %d", count, n)
					return
				}
			}
		})
	}
	for v := int64(2); v < 60; v++ {
		from, to := editions[v%2], editions[(v+1)%2]
		var cs []control.Change
		for i := range n {
			cs = append(cs, control.Change{OldEntry: from[i], NewEntry: to[i]})
		}
		slices.Reverse(cs)
		m.Apply(cs, v)
		runtime.Gosched()
	}
	close(stop)
	wg.Wait()
}

// TestMatchAllocatesNothing is the guard of the hot path, hits included.
func TestMatchAllocatesNothing(t *testing.T) {
	m := matcher.New()
	limited := list("ocr", watchlist.ToleranceOCR)
	limited.Zones = []string{"south"}
	m.Apply(append([]control.Change{
		putList(list("mass", watchlist.ToleranceExact)), putList(limited),
		{NewSensor: &control.Sensor{ID: "s", Zones: []string{"south"}}},
	}, putEntries(entry(t, "mass", "m", "AB-123-CD", fr), entry(t, "ocr", "o", "BD-180-SG", fr))...), 1)
	snap := m.Snapshot()
	hits := make([]matcher.Hit, 0, 8)
	for _, text := range []string{"AB-123-CD", "8D-18O-5G", "ZZ-999-ZZ", "1LLLLLT"} {
		q := matcher.Query{Key: key(t, text), Country: fr, At: epoch.UnixMilli(), Sensor: "s"}
		if n := testing.AllocsPerRun(1000, func() { hits = snap.Match(hits[:0], &q) }); n != 0 {
			t.Errorf("read of %d characters: %v allocations, want 0", q.Key.Len(), n)
		}
	}
}
