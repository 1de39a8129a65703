package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"vigie/sensors"
	"vigie/sensors/format"
	"vigie/sensors/sim"
	"vigie/watchlist/plate"
)

func newTraffic(t testing.TB, cfg Config) *Traffic {
	t.Helper()
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// decode reads a message as a gateway would, which is told as little as a camera tells it.
func decode(t *testing.T, m *Message, mqtt bool) sensors.Message {
	t.Helper()
	if m.Format == Native {
		reads, rejected, err := sensors.ParseBatch(m.ContentType, bytes.NewReader(m.Body), sensors.Limits{BodyBytes: 1 << 20})
		if err != nil || len(reads)+len(rejected) != 1 {
			t.Fatalf("%d reads, %d rejected, %v", len(reads), len(rejected), err)
		}
		return sensors.Message{Sightings: []sensors.Sighting{{Read: reads[0]}}, Rejected: rejected}
	}
	in := format.Input{ContentType: m.ContentType, Body: m.Body, Received: m.Due}
	if mqtt {
		in.Topic = m.Topic
	}
	if name, ok := format.Detect(m.ContentType, m.Body); !ok || name != m.Format {
		t.Fatalf("%s is taken for %q: %s", m.Format, name, m.Body)
	}
	msg, err := format.Decode(m.Format, in)
	if err != nil {
		t.Fatalf("%s: %v", m.Format, err)
	}
	return msg
}

// near reports whether two numbers are the same up to the rounding of a format.
func near(a, b float32, within float64) bool { return math.Abs(float64(a)-float64(b)) <= within }

// alike compares a read with what it was to be. Confidences are rounded to percent at worst, and
// what a message says of its sensor may stand in its address.
func alike(got, want sensors.Read, m *Message) bool {
	if got.Sensor == "" && strings.HasSuffix(m.Path, "?sensor="+want.Sensor) {
		got.Sensor = want.Sensor
	}
	ok := near(got.Conf, want.Conf, 0.00501) && near(got.Speed, want.Speed, 0.01) && near(got.Lat, want.Lat, 1e-5) && near(got.Lon, want.Lon, 1e-5)
	ok = ok && len(got.CharConf) == len(want.CharConf) && len(got.Candidates) == len(want.Candidates)
	for i := range want.CharConf {
		ok = ok && near(got.CharConf[i], want.CharConf[i], 0.00501)
	}
	for i := range want.Candidates {
		ok = ok && got.Candidates[i].Plate == want.Candidates[i].Plate && near(got.Candidates[i].Conf, want.Candidates[i].Conf, 0.0001)
	}
	ok = ok && got.CountryCode() == want.CountryCode()
	for _, r := range []*sensors.Read{&got, &want} {
		r.Conf, r.Speed, r.Lat, r.Lon, r.CharConf, r.Candidates, r.Country = 0, 0, 0, 0, nil, nil, ""
	}
	return ok && reflect.DeepEqual(got, want)
}

// tells is what a format says of a vehicle, as its documentation has it. It is here to be compared
// with, and not taken from the encoders.
var tells = map[string]struct {
	country bool
	conf    float64       // rounding
	ts      time.Duration // rounding
}{
	"onvif": {true, 0, time.Millisecond}, "openalpr": {true, 1e-4, time.Millisecond}, "platerecognizer": {true, 0, time.Millisecond},
	"hikvision": {true, 0.00501, time.Second}, "axis": {true, 1e-6, time.Millisecond}, "dahua": {true, 0.00501, time.Millisecond},
	"genetec": {true, 0.00501, time.Second}, "frigate": {false, 0, time.Millisecond}, Native: {true, 0, time.Millisecond},
}

// Whatever a format is, what its devices say is decoded to what the fleet has seen: the plates of
// every passage, the country, the time by the clock of the device, and the confidence in its unit.
func TestRoundTrip(t *testing.T) {
	for _, name := range Formats() {
		for _, mqtt := range []bool{false, true} {
			if mqtt && name == Native {
				continue
			}
			t.Run(fmt.Sprintf("%s/mqtt=%t", name, mqtt), func(t *testing.T) {
				roundTrip(t, Config{
					Seed: 3, Formats: []string{name}, MQTT: mqtt, Sensors: 8, Rate: 50, Misreads: 0.2, Outage: 0.1, Skew: 0.5, Retransmit: 0.05,
				})
			})
		}
	}
}

func roundTrip(t *testing.T, cfg Config) {
	tr, fleet := newTraffic(t, cfg), newTraffic(t, cfg).fleet
	steps := map[string][]sim.Step{}
	for range 2000 {
		s := fleet.Next()
		steps[s.Read.Passage] = append(steps[s.Read.Passage], s)
	}
	found := map[string][]sensors.Sighting{} // by passage
	tracks := map[string]string{}            // by sensor and track: the passage
	clocks := map[time.Duration]bool{}
	var beats, late, again, said int
	var last time.Time
	for range 900 {
		m := tr.Next()
		if m.Due.Before(last) {
			t.Fatalf("a message is due at %v after one at %v", m.Due, last)
		}
		last = m.Due
		if m.Late {
			late++
		}
		if m.Again {
			again++
		}
		msg := decode(t, &m, cfg.MQTT)
		if len(msg.Rejected) > 0 {
			t.Fatalf("rejected for %s: %s\n%s", msg.Rejected[0].Field, msg.Rejected[0].Reason, m.Body)
		}
		if m.Read == nil {
			if len(msg.Sightings) > 0 || !msg.Heartbeat && m.Passage == "" {
				t.Fatalf("a message of no vehicle tells of %d, heartbeat %t:\n%s", len(msg.Sightings), msg.Heartbeat, m.Body)
			}
			if m.Passage == "" {
				beats++
				if msg.Sensor != m.Sensor {
					t.Fatalf("a heartbeat of %s is taken for one of %s", m.Sensor, msg.Sensor)
				}
			}
			continue
		}
		said++
		if len(msg.Sightings) != 1 {
			t.Fatalf("tells of %d vehicles, want 1:\n%s", len(msg.Sightings), m.Body)
		}
		got := msg.Sightings[0]
		if !alike(got.Read, *m.Read, &m) {
			t.Fatalf("told %#v\nwant %#v\nin %s", fields(got.Read), fields(*m.Read), m.Body)
		}
		if m.Late != got.Read.Retransmitted && tr.devices[m.Sensor].vendor.flags {
			t.Fatalf("kept is %t, marked is %t", m.Late, got.Read.Retransmitted)
		}
		if pictures := len(got.Plate)+len(got.Context) > 0; pictures != (tr.devices[m.Sensor].pictures && slices.Contains([]string{"platerecognizer", "hikvision", "dahua", "genetec"}, m.Format)) {
			t.Fatalf("pictures: %t", pictures)
		}
		if got.Track != "" {
			key := m.Sensor + " " + got.Track
			if tracks[key] == "" {
				tracks[key] = m.Passage
			}
			if tracks[key] != m.Passage {
				t.Fatalf("two vehicles have the track %s", got.Track)
			}
		}
		clocks[tr.devices[m.Sensor].clock] = true
		found[m.Passage] = append(found[m.Passage], got)
	}
	fits := tells[cfg.Formats[0]]
	changed, glimpses := 0, 0
	for id, sightings := range found {
		seen := steps[id]
		if len(seen) == 0 {
			t.Fatal("a passage of no fleet")
		}
		texts := map[plate.Key]bool{}
		for i := range sightings {
			r := &sightings[i].Read
			key, err := r.Key()
			at := slices.IndexFunc(seen, func(s sim.Step) bool {
				was, _ := s.Read.Key()
				return was == key && near(r.Conf, s.Read.Conf, fits.conf) && (!fits.country || s.Read.CountryCode() == r.CountryCode())
			})
			if at < 0 && cfg.Formats[0] == "axis" {
				glimpses++ // from afar
				texts[key] = true
				continue
			}
			if at < 0 {
				t.Fatalf("%v was not seen: key error %v, confidence %g, country %q", r, err, r.Conf, r.Country)
			}
			texts[key] = true
			s := seen[at]
			clock := tr.devices[s.Read.Sensor].clock
			first, end := seen[0].At.Add(clock-fits.ts), seen[len(seen)-1].At.Add(clock+4*time.Second)
			if ts := time.UnixMilli(r.TS); ts.Before(first) || ts.After(end) {
				t.Fatalf("time of capture %v, want %v to %v", ts, first, end)
			}
		}
		if len(texts) > 1 {
			changed++
		}
	}
	if flagged := tr.devices[fleet.Sensors()[0].ID].vendor.beat != nil; flagged != (beats > 0) {
		t.Errorf("%d heartbeats", beats)
	}
	if late < 20 || late > 250 || again < 20 || said < 500 || len(clocks) < 3 || len(clocks) > 7 {
		t.Errorf("%d late, %d again, %d reads, %d clocks", late, again, said, len(clocks))
	}
	if cfg.Formats[0] == "axis" && (changed < len(found)/5 || glimpses == 0) {
		t.Errorf("the plate changed in %d of %d passages", changed, len(found))
	}
	t.Logf("%d reads of %d passages, plates changed in %d, %d late, %d again, %d heartbeats", said, len(found), changed, late, again, beats)
}

// fields is a Read that is printed whole.
func fields(r sensors.Read) any {
	type bare sensors.Read
	return bare(r)
}

func digest(t *testing.T, cfg Config) string {
	t.Helper()
	tr, h := newTraffic(t, cfg), sha256.New()
	for range 3000 {
		m := tr.Next()
		fmt.Fprintln(h, m.Sensor, m.Format, m.Due.UnixNano(), m.Path, m.Topic, m.ContentType, m.Passage, m.First, m.Again, m.Late)
		body := m.Body
		if m.ContentType == typeForm { // how JPEGs are compressed is for the library to say
			body = bytes.ReplaceAll(bytes.ReplaceAll(body, []byte(pictures().plate), nil), []byte(pictures().scene), nil)
		}
		h.Write(body)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func TestSameSeedSameMessages(t *testing.T) {
	cfg := Config{Seed: 7, Sensors: 30, Misreads: 0.05, Outage: 0.05, Skew: 0.1, Retransmit: 0.02, Start: time.Date(2026, 11, 24, 7, 0, 0, 0, time.UTC)}
	got := digest(t, cfg)
	if again := digest(t, cfg); again != got {
		t.Errorf("the same seed gave %s, then %s", got, again)
	}
	other := cfg
	other.Seed = 8
	if digest(t, other) == got {
		t.Error("two seeds gave the same messages")
	}
}

// The rate is that of messages, whatever the format makes of a vehicle; faults add to it.
func TestRate(t *testing.T) {
	for _, cfg := range []Config{
		{Formats: []string{"axis"}, Rate: 300}, {Formats: []string{"frigate"}, Rate: 300}, {Formats: []string{"genetec"}, Rate: 800}, {Rate: 300},
	} {
		cfg.Sensors = 40
		tr := newTraffic(t, cfg)
		start := tr.cfg.Start.Add(7 * time.Second) // a group of OpenALPR comes late
		n := 0
		for {
			m := tr.Next()
			if m.Due.Sub(start) > 5*time.Second {
				break
			}
			if m.Passage != "" && !m.Due.Before(start) {
				n++
			}
		}
		if got := float64(n) / 5; math.Abs(got/cfg.Rate-1) > 0.1 {
			t.Errorf("%v: %.0f messages a second, want %g", cfg.Formats, got, cfg.Rate)
		}
	}
}

// While a link is away a device says nothing, and afterwards everything that it kept, in order.
func TestOutage(t *testing.T) {
	cfg := Config{Seed: 5, Formats: []string{"hikvision"}, Sensors: 5, Rate: 100, Outage: 0.3}
	whole := cfg
	whole.Outage = 0
	want, got := map[string]bool{}, map[string]int{}
	for tr := newTraffic(t, whole); len(want) < 4000; {
		if m := tr.Next(); m.Passage != "" {
			want[m.Passage] = true
		}
	}
	tr := newTraffic(t, cfg)
	late, n := map[string]int64{}, 0
	for ; n < 3000; n++ {
		m := tr.Next()
		if d := tr.devices[m.Sensor]; !m.Due.Before(d.from) && m.Due.Before(d.until) {
			t.Fatalf("%s speaks at %v, while its link is away from %v to %v", m.Sensor, m.Due, d.from, d.until)
		}
		if m.Late {
			if m.Read.TS+1000 < late[m.Sensor] {
				t.Fatal("what was kept comes in another order")
			}
			late[m.Sensor] = m.Read.TS
		}
		if m.Passage != "" {
			if got[m.Passage]++; got[m.Passage] > 1 || !want[m.Passage] {
				t.Fatalf("passage %s comes %d times, expected %t", m.Passage, got[m.Passage], want[m.Passage])
			}
		}
	}
	kept := tr.Kept()
	missing := 0
	i := 0
	for other := newTraffic(t, whole); i < len(got)+kept; {
		if m := other.Next(); m.Passage != "" {
			if i++; got[m.Passage] == 0 {
				missing++
			}
		}
	}
	if len(late) < 5 || missing > kept+20 { // some are on their way
		t.Errorf("%d devices had something to send afterwards; %d passages missing, %d kept", len(late), missing, kept)
	}
}

// With Late everything is of long ago, marked as the vendor does, and sent now.
func TestLate(t *testing.T) {
	start := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	tr := newTraffic(t, Config{Formats: []string{"hikvision", Native, "onvif"}, Start: start, Late: 3 * time.Hour})
	for range 500 {
		m := tr.Next()
		ago := m.Due.Sub(time.UnixMilli(m.Read.TS))
		if !m.Late || m.Due.Before(start) || ago < 3*time.Hour || ago > 3*time.Hour+10*time.Second {
			t.Fatalf("%s due %v, %v after the vehicle", m.Format, m.Due, ago)
		}
		if m.Read.Retransmitted != (m.Format != "onvif") {
			t.Fatalf("%s: marked is %t", m.Format, m.Read.Retransmitted)
		}
	}
}

func TestAllFormatsTakeTurns(t *testing.T) {
	for _, mqtt := range []bool{false, true} {
		tr := newTraffic(t, Config{Sensors: 36, MQTT: mqtt})
		seen := map[string]bool{}
		for range 3000 {
			m := tr.Next()
			seen[m.Format] = true
			if mqtt == (m.Format == Native) && mqtt {
				t.Fatal("native reads go through MQTT")
			}
		}
		if want := len(vendors) - map[bool]int{true: 1}[mqtt]; len(seen) != want {
			t.Errorf("mqtt %t: %d formats, want %d", mqtt, len(seen), want)
		}
	}
	if names := Formats(); !slices.Equal(names[:len(names)-1], format.Names()) || names[len(names)-1] != Native {
		t.Errorf("formats %v; a gateway knows %v", names, format.Names())
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{Misreads: 0.5}, "Config.Misreads must be 0 to 0.4"},
		{Config{Outage: -1}, "Config.Outage"},
		{Config{Skew: math.NaN()}, "Config.Skew"},
		{Config{Retransmit: 2}, "Config.Retransmit"},
		{Config{Rate: -1}, "Config.Rate"},
		{Config{Sensors: sim.MaxSensors + 1}, "Config.Sensors"},
		{Config{Late: -1}, "Config.Late"},
		{Config{Formats: []string{"morse"}}, "Config.Formats must be of onvif,"},
		{Config{Formats: []string{Native}, MQTT: true}, "does not go through MQTT"},
	} {
		if _, err := New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.cfg, err, tt.want)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	tr := newTraffic(b, Config{Rate: 5000, Sensors: 200})
	b.ReportAllocs()
	for b.Loop() {
		tr.Next()
	}
}
