package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"vigie/sensors"
	"vigie/watchlist/plate"
)

func newFleet(t testing.TB, cfg Config) *Fleet {
	t.Helper()
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

var someWanted = []Wanted{{"AB-123-CD", 0}, {"EF 456 GH", france}, {"AA123BB", italy}, {"1ABC234", country("BE")}}

func country(s string) plate.Country {
	c, ok := plate.ParseCountry(s)
	if !ok {
		panic("not a country")
	}
	return c
}

// digest is a hash over n steps with their truth.
func digest(t testing.TB, f *Fleet, n int) string {
	t.Helper()
	h := sha256.New()
	enc := json.NewEncoder(h)
	for range n {
		if err := enc.Encode(f.Next()); err != nil {
			t.Fatal(err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func TestSameSeedSameSteps(t *testing.T) {
	cfg := Config{Seed: 7, Wanted: someWanted, WantedShare: 0.01, RushHours: true}
	got := digest(t, newFleet(t, cfg), 20_000)
	if again := digest(t, newFleet(t, cfg), 20_000); again != got {
		t.Errorf("the same seed gave %s, then %s", got, again)
	}
	// Other machines may round floats otherwise, by fusing operations.
	if want := "ba15f306fa36c2c4"; runtime.GOARCH == "amd64" && got != want {
		t.Errorf("steps of seed 7 hash to %s, want %s: recorded runs can no longer be repeated", got, want)
	}
	cfg.Seed = 8
	if other := digest(t, newFleet(t, cfg), 20_000); other == got {
		t.Error("two seeds gave the same steps")
	}
}

// TestStepsAreReads takes a long run and holds every step to what a reader of it
// relies on, and the whole to the shares that were asked for.
func TestStepsAreReads(t *testing.T) {
	cfg := Config{Seed: 1, Rate: 500, Wanted: someWanted, WantedShare: 0.02, TwinShare: 0.01}
	f := newFleet(t, cfg)
	byID := make(map[string]Sensor)
	for _, s := range f.Sensors() {
		byID[s.ID] = s
	}
	type passage struct{ sensor, plate string }
	passages := make(map[string]passage)
	ids := make(map[string]bool)
	wanted := make(map[string]int)
	const n = 120_000
	var last time.Time
	var misread, sentinel, noCountry, hot, twins, valid, foreign, withCandidates, withCharConf int
	for range n {
		s := f.Next()
		if s.At.Before(last) {
			t.Fatalf("time goes back from %v to %v", last, s.At)
		}
		last = s.At
		r := &s.Read
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		if r.TS != s.At.UnixMilli() || byID[r.Sensor].ID == "" || r.Direction != byID[r.Sensor].Direction {
			t.Fatalf("%v at %v, direction %q", r, s.At, r.Direction)
		}
		if ids[r.ID] || len(r.ID) != 26 {
			t.Fatalf("id %s comes twice or is no ULID", r.ID)
		}
		ids[r.ID] = true
		p := passage{r.Sensor, s.Truth.Plate}
		if old, ok := passages[r.Passage]; ok && old != p {
			t.Fatalf("passage %s is of two vehicles or sensors", r.Passage)
		}
		passages[r.Passage] = p

		truth, err := plate.Parse(s.Truth.Plate)
		if err != nil || truth.String() != s.Truth.Plate {
			t.Fatalf("true plate of %v is not normalised: %v", r, err)
		}
		if truth.Syntax(s.Truth.Country) == plate.Valid {
			valid++
		}
		if s.Truth.Country != france {
			foreign++
		}
		if s.Truth.Wanted {
			hot++
			wanted[s.Truth.Plate]++
		} else if slices.ContainsFunc(someWanted, func(w Wanted) bool { return strings.NewReplacer("-", "", " ", "").Replace(w.Plate) == s.Truth.Plate }) {
			twins++
		}
		key, err := r.Key()
		switch {
		case s.Truth.Sentinel:
			sentinel++
			if !errors.Is(err, plate.ErrSentinel) || s.Truth.Misread {
				t.Fatalf("sentinel of %v: %v", r, err)
			}
			continue
		case err != nil:
			t.Fatalf("plate of %v: %v", r, err)
		case (key != truth) != s.Truth.Misread:
			t.Fatalf("%v: Misread is %v", r, s.Truth.Misread)
		}
		if s.Truth.Misread {
			misread++
		}
		switch r.CountryCode() {
		case 0:
			noCountry++
		case s.Truth.Country:
		default:
			t.Fatalf("country of %v is another", r)
		}
		if len(r.Candidates) > 0 {
			withCandidates++
		}
		if len(r.CharConf) > 0 {
			withCharConf++
		}
		if len(r.CharConf) != 0 && len(r.CharConf) != key.Len() {
			t.Fatalf("%v: %d confidences for %d characters", r, len(r.CharConf), key.Len())
		}
	}
	took := last.Sub(f.cfg.Start).Seconds()
	for _, tt := range []struct {
		name      string
		got, want float64
		within    float64 // relative
	}{
		{"reads a second", n / took, 500, 0.02},
		{"misread share", float64(misread) / n, 0.06, 0.1},
		{"sentinel share", float64(sentinel) / n, 0.005, 0.1},
		{"share without country", float64(noCountry) / n, 0.1, 0.05},
		{"wanted share", float64(hot) / n, 0.02, 0.1},
		{"twin share", float64(twins) / n, 0.01, 0.15},
		{"share of foreign plates", float64(foreign) / n, 0.2, 0.3},
		{"reads a passage", float64(n) / float64(len(passages)), 1.2, 0.1},
		{"share of plates valid in their country", float64(valid) / n, 1, 0.01},
		{"share with confidences per character", float64(withCharConf) / n, 0.3, 0.6},
		{"share with candidates", float64(withCandidates) / n, 0.075, 0.6},
	} {
		if math.Abs(tt.got/tt.want-1) > tt.within {
			t.Errorf("%s: got %.4g, want %.4g within %g %%", tt.name, tt.got, tt.want, 100*tt.within)
		}
	}
	if len(wanted) != len(someWanted) {
		t.Errorf("%d wanted plates were on the road, want %d", len(wanted), len(someWanted))
	}
}

// TestShareOfNothing switches every chance off.
func TestShareOfNothing(t *testing.T) {
	f := newFleet(t, Config{Wanted: someWanted, WantedShare: -1, TwinShare: -1, MisreadShare: -1, NoCountryShare: -1, SentinelShare: -1})
	for range 20_000 {
		s := f.Next()
		if s.Truth.Wanted || s.Truth.Misread || s.Truth.Sentinel || s.Read.CountryCode() != s.Truth.Country {
			t.Fatalf("%v came although its share is none: %+v", s.Read, s.Truth)
		}
	}
}

// TestVehiclesAreSeenAgain follows cars along their road. A plate stands for a car
// here, so a few that look like the same are two; the test asks for nearly all.
func TestVehiclesAreSeenAgain(t *testing.T) {
	f := newFleet(t, Config{Seed: 3, Rate: 50, MisreadShare: -1, SentinelShare: -1})
	sites := make(map[string]Sensor)
	for _, s := range f.Sensors() {
		sites[s.ID] = s
	}
	type sighting struct {
		sensor Sensor
		at     time.Time
	}
	seen := make(map[string]sighting)
	var again, plausible int
	for range 200_000 {
		s := f.Next()
		here := sites[s.Read.Sensor]
		before, ok := seen[s.Truth.Plate]
		seen[s.Truth.Plate] = sighting{here, s.At}
		hours := s.At.Sub(before.at).Hours()
		if !ok || before.sensor.ID == here.ID || hours > 3 || before.sensor.Direction != here.Direction {
			continue
		}
		again++
		if v := distance(before.sensor, here) / hours; v > 40 && v < 170 && before.sensor.Road == here.Road {
			plausible++
		}
	}
	if again < 10_000 || float64(plausible) < 0.9*float64(again) {
		t.Errorf("%d vehicles met a second sensor, %d of them at the speed of a vehicle", again, plausible)
	}
}

// distance in kilometres on the sphere, near enough at this scale.
func distance(a, b Sensor) float64 {
	const degree = 111.2
	return math.Hypot((a.Lat-b.Lat)*degree, (a.Lon-b.Lon)*degree*math.Cos(a.Lat*math.Pi/180))
}

func TestRushHours(t *testing.T) {
	paris := time.FixedZone("CEST", 2*3600)
	rate := func(hour int) float64 {
		f := newFleet(t, Config{Rate: 100, RushHours: true, Start: time.Date(2026, 6, 1, hour, 0, 0, 0, paris)})
		var s Step
		for range 5000 {
			s = f.Next()
		}
		return 5000 / s.At.Sub(f.cfg.Start).Seconds()
	}
	if night, evening := rate(2), rate(17); night > 20 || evening < 150 {
		t.Errorf("%.0f reads a second at night and %.0f in the evening, with a mean of 100", night, evening)
	}
	mean := 0.0
	for _, v := range dayShape {
		mean += v / 24
	}
	if math.Abs(mean-1) > 1e-9 {
		t.Errorf("the mean of dayShape is %v, want 1", mean)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{Sensors: -1}, "Config.Sensors must be"},
		{Config{Sensors: MaxSensors + 1}, "Config.Sensors must be"},
		{Config{Rate: -1}, "Config.Rate"},
		{Config{Rate: math.NaN()}, "Config.Rate"},
		{Config{MisreadShare: 0.41}, "Config.MisreadShare"},
		{Config{WantedShare: 1.1}, "Config.WantedShare"},
		{Config{Wanted: someWanted, WantedShare: 0.9, TwinShare: 0.9}, "together"},
		{Config{Wanted: []Wanted{someWanted[0], {"QZQ?1", 0}}}, "Config.Wanted[1]"},
	} {
		_, err := New(tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "QZQ") {
			t.Errorf("New(%+v): %v, want %q", tt.cfg, err, tt.want)
		}
	}
}

func TestSensors(t *testing.T) {
	if n := len(newFleet(t, Config{}).Sensors()); n != 24 {
		t.Errorf("the default fleet has %d sensors, want 24", n)
	}
	small, large := newFleet(t, Config{Sensors: 40}).Sensors(), newFleet(t, Config{Sensors: MaxSensors, Seed: 9}).Sensors()
	if !reflect.DeepEqual(small, large[:40]) {
		t.Error("a fleet does not grow by adding sensors at its end")
	}
	if MaxSensors < 3104 {
		t.Errorf("the largest fleet has %d sensors, fewer than the national plan", MaxSensors)
	}
	ids := make(map[string]bool)
	for _, s := range large {
		if ids[s.ID] {
			t.Errorf("two sensors have the id %s", s.ID)
		}
		ids[s.ID] = true
		if r := (sensors.Read{Sensor: s.ID, TS: 1, Direction: s.Direction}); r.Check() != nil {
			t.Errorf("id of %s: %v", s.Name, r.Check())
		}
		if s.Lat < 42.3 || s.Lat > 51.1 || s.Lon < -1.9 || s.Lon > 8.3 {
			t.Errorf("%s stands at %v, %v, outside France", s.ID, s.Lat, s.Lon)
		}
		if s.Name == "" || s.Road == "" || len(s.Zones) != 2 || strings.HasSuffix(s.Zones[1], "-") {
			t.Errorf("%s is not complete: %+v", s.ID, s)
		}
	}
	if !slices.ContainsFunc(small[:24], func(s Sensor) bool { return s.ID == "A7-118-2" }) {
		t.Error("A7-118-2, the sensor of all examples, is not in the default fleet")
	}
	for _, rd := range roads { // coordinates and kilometres must agree
		for i := 1; i < len(rd.sites); i++ {
			a, b := rd.sites[i-1], rd.sites[i]
			line := distance(Sensor{Lat: a.lat, Lon: a.lon}, Sensor{Lat: b.lat, Lon: b.lon})
			if ratio := line / float64(b.km-a.km); ratio < 0.7 || ratio > 1.05 {
				t.Errorf("%s: %s to %s is %d km of road and %.1f km of line", rd.name, a.name, b.name, b.km-a.km, line)
			}
		}
		if len(rd.sites) > mostSites || rd.hub >= len(rd.sites) {
			t.Errorf("%s has %d sites, hub %d", rd.name, len(rd.sites), rd.hub)
		}
		total := 0.0
		for _, s := range rd.mix {
			total += s.percent
			if s.country != "FR" && alpha3[s.country] == "" {
				t.Errorf("%s: no alpha-3 code of %s", rd.name, s.country)
			}
		}
		if math.Abs(total-100) > 1e-9 {
			t.Errorf("%s: the shares of countries make %v %%", rd.name, total)
		}
	}
}

func TestChainsFollowTheRoad(t *testing.T) {
	f := newFleet(t, Config{Sensors: 500})
	seen := 0
	for _, c := range f.chains {
		seen += len(c.sensors)
		if !slices.IsSorted(c.km) || c.km[0] != 0 {
			t.Errorf("%s: kilometres %v", c.road.name, c.km)
		}
		for i := 1; i < len(c.sensors); i++ {
			a, b := f.sensors[c.sensors[i-1]], f.sensors[c.sensors[i]]
			if a.Direction != b.Direction || a.Road != b.Road || distance(a, b) > 1.05*(c.km[i]-c.km[i-1])+0.1 {
				t.Errorf("%s is not followed by %s", a.ID, b.ID)
			}
		}
	}
	if seen != 500 {
		t.Errorf("the chains hold %d of 500 sensors", seen)
	}
}

// TestMisreadsAreLikeTheRealOnes draws as many wrong reads as were learnt from, of
// plates of the same countries, and compares what a matcher feels.
func TestMisreadsAreLikeTheRealOnes(t *testing.T) {
	r := rng(5)
	var edits [9]int
	var otherLength, dTo0, zeroToD, last int
	var confident [2]int // above 0.9: right, wrong
	const n = 30_000
	for range n {
		truth := plateOf(&r, []string{"FR", "FR", "FR", "BE", "DE", "ES", "IT", "GB"}[r.intn(8)], 170)
		read, k, doubt := misread(&r, truth)
		if read == truth || len(read) < 2 || len(read) > 12 || doubt>>len(read) != 0 {
			t.Fatalf("a plate of %d characters became one of %d, %d edits, doubt %b", len(truth), len(read), k, doubt)
		}
		edits[k]++
		if len(read) != len(truth) {
			otherLength++
		} else if k == 1 {
			for i := range truth {
				if truth[i] == 'D' && read[i] == '0' {
					dTo0++
				}
				if truth[i] == '0' && read[i] == 'D' {
					zeroToD++
				}
			}
		}
		if read == truth[:len(truth)-1] {
			last++
		}
		if confidence(&r, 0) > 0.9 {
			confident[0]++
		}
		if confidence(&r, k) > 0.9 {
			confident[1]++
		}
	}
	band := func(b [10]uint32) float64 { return float64(b[9]) / float64(sum(b[:])) }
	for _, tt := range []struct {
		name      string
		got, want float64
		within    float64
	}{
		{"one edit", float64(edits[1]) / n, float64(learnt.edits[1]) / float64(learnt.wrong), 0.02},
		{"two edits", float64(edits[2]) / n, float64(learnt.edits[2]) / float64(learnt.wrong), 0.02},
		{"another length", float64(otherLength) / n, float64(learnt.otherLength) / float64(learnt.wrong), 0.12},
		{"right and surer than 0.9", float64(confident[0]) / n, band(learnt.rightBand), 0.03},
		{"wrong and surer than 0.9", float64(confident[1]) / n, band(learnt.wrongBand), 0.03},
	} {
		if math.Abs(tt.got-tt.want) > tt.within {
			t.Errorf("share of wrong reads with %s: %.3f, real %.3f", tt.name, tt.got, tt.want)
		}
	}
	if dTo0 < 8*zeroToD || last == 0 {
		t.Errorf("D became 0 %d times, 0 became D %d times, the last character was lost %d times", dTo0, zeroToD, last)
	}
}

func TestLearntTableIsWhole(t *testing.T) {
	if total := int(sum(learnt.edits[:])); total != learnt.reads || total-int(learnt.edits[0]) != learnt.wrong {
		t.Errorf("edits of %d reads, %d wrong", learnt.reads, learnt.wrong)
	}
	for i, s := range learnt.subs {
		if len(s.to) == 0 || len(s.to) != len(s.weights) || s.seen == 0 || rate[i] == 0 || strings.IndexByte(s.to, alphabet[i]) >= 0 {
			t.Errorf("substitutions of %c: %q with %d weights, seen %d", alphabet[i], s.to, len(s.weights), s.seen)
		}
	}
	for i, q := range learnt.conf {
		if !slices.IsSorted(q[:]) || q[0] < 0 || q[len(q)-1] > 1 {
			t.Errorf("confidences of %d edits: %v", i, q)
		}
	}
}

// TestPlatesOfEachCountry grades the plates of every country by its own scheme.
func TestPlatesOfEachCountry(t *testing.T) {
	for name := range alpha3 {
		r := rng(11)
		valid := 0
		const n = 2000
		for range n {
			key, err := plate.Parse(plateOf(&r, name, 170))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if key.Syntax(country(name)) == plate.Valid {
				valid++
			}
		}
		if valid < n*99/100 {
			t.Errorf("%d of %d plates of %s are valid there", valid, n, name)
		}
	}
}

// TestQueue compares the heap with a sorted slice.
func TestQueue(t *testing.T) {
	src := rand.New(rand.NewPCG(1, 1))
	var q queue
	var model []event
	for i := range 5000 {
		if len(model) > 0 && src.IntN(3) == 0 {
			slices.SortFunc(model, func(a, b event) int {
				if a.before(b) {
					return -1
				}
				return 1
			})
			if got := q.pop(); got != model[0] {
				t.Fatalf("pop %d gave %v, want %v", i, got, model[0])
			}
			model = model[1:]
			continue
		}
		e := event{int64(src.IntN(100)), uint32(i)}
		q.push(e)
		model = append(model, e)
	}
}

// TestMemoryIsBounded runs at a rate no road has seen.
func TestMemoryIsBounded(t *testing.T) {
	f := newFleet(t, Config{Rate: 1e6})
	for range 400_000 {
		f.Next()
	}
	if len(f.trips) > maxUnderWay*5/4 || len(f.queue)+len(f.free) != len(f.trips) {
		t.Errorf("%d trips, %d under way, %d free", len(f.trips), len(f.queue), len(f.free))
	}
}

// BenchmarkNext is what a load test pays per read, once the roads are full. The
// longer queue of rate=50000 costs a few cache misses more.
func BenchmarkNext(b *testing.B) {
	for _, bm := range []struct {
		name string
		cfg  Config
	}{
		{"rate=2000", Config{Rate: 2000, Wanted: someWanted}},
		{"rate=50000/sensors=3000", Config{Rate: 50000, Sensors: 3000, Wanted: someWanted}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			f := newFleet(b, bm.cfg)
			for range 300_000 {
				f.Next()
			}
			b.ReportAllocs()
			for b.Loop() {
				f.Next()
			}
		})
	}
}
