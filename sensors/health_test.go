package sensors

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// site is a gateway whose clock the test moves.
type site struct {
	t       testing.TB
	g       *Gateway
	now     time.Time
	n       int             // reads so far
	unknown map[string]bool // sensors that the registry has not
}

func newSite(t testing.TB, change ...func(*Config)) *site {
	t.Helper()
	s := &site{t: t, now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), unknown: map[string]bool{}}
	cfg := Config{Publisher: nowhere{}, Clock: func() time.Time { return s.now }, Known: func(id string) bool { return !s.unknown[id] }}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if s.g, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return s
}

// read has a sensor send one read that it took a moment ago.
func (s *site) read(sensor string, change ...func(*Read)) {
	s.t.Helper()
	s.n++
	r := Read{ID: strconv.Itoa(s.n), Sensor: sensor, Plate: "AB123CD", Country: "FR", TS: s.now.UnixMilli() - 200}
	for _, f := range change {
		f(&r)
	}
	if _, err := s.g.Accept(s.t.Context(), []Read{r}, AcceptOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// hours lets hours pass in which a sensor sends reads at even distances.
func (s *site) hours(sensor string, hours, reads int) {
	s.t.Helper()
	for range hours {
		end := s.now.Add(time.Hour)
		for i := range reads {
			s.now = end.Add(-time.Hour + time.Duration(2*i+1)*time.Hour/time.Duration(2*reads))
			s.read(sensor)
		}
		s.now = end
	}
}

func (s *site) health(sensor string) SensorHealth {
	s.t.Helper()
	for _, h := range s.g.Health().Sensors {
		if h.ID == sensor {
			return h
		}
	}
	s.t.Fatalf("nothing is told of %s", sensor)
	return SensorHealth{}
}

// TestSilence has a sensor with a busy day and a quiet night: the same silence is one by
// day and none by night, and ends with the next read.
func TestSilence(t *testing.T) {
	s := newSite(t)
	for range 4 {
		s.hours("A", 6, 2)    // 0 to 6 h: 2 reads an hour
		s.hours("A", 18, 120) // 6 to 24 h: one each 30 s
	}
	s.hours("A", 6, 2)
	s.now = s.now.Add(4 * time.Minute) // 6:04
	if h := s.health("A"); h.Silent {
		t.Errorf("19 minutes after a read, 15 of them at night: %+v", h)
	}
	s.now = s.now.Add(2 * time.Minute)
	h := s.health("A")
	if !h.Silent || h.Missed < 12 || h.Missed > 13 {
		t.Errorf("6 busy minutes without a read: %+v, want it silent and 12 reads missed", h)
	}
	if h.WarmingUp {
		t.Error("warming up after 4 days")
	}
	if got := s.g.Health(); got.Silent != 1 || got.Unregistered != 0 {
		t.Errorf("%d are silent and %d unregistered, want 1 and 0", got.Silent, got.Unregistered)
	}
	s.read("A")
	if h := s.health("A"); h.Silent || h.Missed != 0 {
		t.Errorf("after its return: %+v", h)
	}
	s.now = s.now.Add(3 * time.Minute)
	if h := s.health("A"); h.Silent {
		t.Errorf("3 minutes are never a silence: %+v", h)
	}
}

// TestQuietNightIsNoSilence: an hour without a read is as usual at 2 reads an hour.
func TestQuietNightIsNoSilence(t *testing.T) {
	s := newSite(t)
	for range 4 {
		s.hours("A", 24, 2)
	}
	s.now = s.now.Add(4 * time.Hour)
	if h := s.health("A"); h.Silent {
		t.Errorf("after 4 h and 8 missed reads: %+v", h)
	}
	s.now = s.now.Add(2 * time.Hour)
	if h := s.health("A"); !h.Silent {
		t.Errorf("after 6 h and 12 missed reads: %+v, want it silent", h)
	}
}

// TestSilenceOfANewSensor rests on the mean so far, and a day is too long for any.
func TestSilenceOfANewSensor(t *testing.T) {
	s := newSite(t)
	s.read("few")
	s.hours("new", 1, 60)
	s.now = s.now.Add(9 * time.Minute)
	if h := s.health("new"); h.Silent || !h.WarmingUp {
		t.Errorf("after 9 minutes at 60 reads an hour: %+v, want it warming up and not silent", h)
	}
	s.now = s.now.Add(3 * time.Minute)
	if h := s.health("new"); !h.Silent {
		t.Errorf("after 12 minutes: %+v, want it silent", h)
	}
	if h := s.health("few"); h.Silent {
		t.Errorf("one read tells nothing of what is usual: %+v", h)
	}
	s.now = s.now.Add(24 * time.Hour)
	if h := s.health("few"); !h.Silent {
		t.Errorf("after a day: %+v, want it silent", h)
	}
}

// TestHeartbeats keep a sensor without traffic from being silent, and tell of its end
// although there never was a read.
func TestHeartbeats(t *testing.T) {
	s := newSite(t)
	beat := func(minutes int) {
		for range minutes {
			s.now = s.now.Add(time.Minute)
			s.g.Heartbeat("A", s.now)
		}
	}
	beat(60)
	last := s.now
	if h := s.health("A"); h.Silent || !h.LastHeartbeat.Equal(last) || !h.LastRead.IsZero() || h.Accepted != 0 {
		t.Errorf("after an hour of heartbeats: %+v", h)
	}
	s.now = s.now.Add(4 * time.Minute)
	if h := s.health("A"); h.Silent {
		t.Errorf("4 minutes are never a silence: %+v", h)
	}
	s.now = s.now.Add(2 * time.Minute)
	if h := s.health("A"); !h.Silent {
		t.Errorf("6 minutes without a heartbeat: %+v, want it silent", h)
	}
	s.now = s.now.Add(10 * time.Hour)
	beat(1)
	s.now = s.now.Add(6 * time.Minute)
	if h := s.health("A"); !h.Silent {
		t.Errorf("an outage of hours has become the usual gap: %+v", h)
	}
	s.g.Heartbeat("no sensor", s.now)
	if h := s.g.Health(); len(h.Sensors) != 1 {
		t.Errorf("%d sensors, want none for what is no id", len(h.Sensors))
	}
}

// TestRateOverDays compares an hour with the same hour of the days before, of which a
// week or so counts.
func TestRateOverDays(t *testing.T) {
	s := newSite(t)
	for day := range 5 {
		s.hours("A", 12, 10)
		if h := s.health("A"); h.WarmingUp != (day < warmDays) {
			t.Errorf("day %d: warming up is %v", day, h.WarmingUp)
		}
		s.hours("A", 12, 100)
	}
	s.hours("A", 12, 10)
	for range 20 { // 12:00 to 12:30 at 40 reads an hour
		s.now = s.now.Add(90 * time.Second)
		s.read("A")
	}
	h := s.health("A")
	if h.HourReads != 20 || h.Usual == nil || *h.Usual != 100 || h.Rate == nil || *h.Rate != 0.4 {
		t.Errorf("at half past twelve: %s, want 20 reads of usually 100, a rate of 0.4", show(h))
	}
	s.now = s.now.Add(-28 * time.Minute)
	if h := s.health("A"); h.Rate != nil {
		t.Errorf("after two minutes: %s, want no rate yet", show(h))
	}

	// The usual follows: after two weeks at half the rate it is near the half.
	s = newSite(t)
	for range 10 {
		s.hours("A", 24, 100)
	}
	for range 14 {
		s.hours("A", 24, 50)
	}
	if h := s.health("A"); *h.Usual < 50 || *h.Usual > 60 {
		t.Errorf("after two weeks at 50 reads an hour: %s, want a little above 50", show(h))
	}
}

// TestOutageIsNotUsual: a sensor that was dead for days is not expected to be dead, and
// neither are the hours in which it died and returned.
func TestOutageIsNotUsual(t *testing.T) {
	s := newSite(t)
	for range 5 {
		s.hours("A", 24, 60)
	}
	s.now = s.now.Add(20 * time.Minute)
	s.read("A")
	s.now = s.now.Add(7*24*time.Hour + 20*time.Minute)
	if h := s.health("A"); !h.Silent || h.HourReads != 0 {
		t.Errorf("after a week: %s, want it silent", show(h))
	}
	if h := s.health("A"); h.Rate == nil || *h.Rate != 0 {
		t.Errorf("after a week: %s, want a rate of 0", show(h))
	}
	s.read("A")
	if h := s.health("A"); h.Rate != nil {
		t.Errorf("back in the middle of an hour: %s, want no rate for this hour", show(h))
	}
	s.now = s.now.Add(20 * time.Minute)
	s.hours("A", 24, 60)
	if h := s.health("A"); *h.Usual != 60 {
		t.Errorf("a day after: %s, want the usual 60", show(h))
	}
}

// TestRetransmittedAndDuplicates: what is sent again says nothing of rate and clock.
func TestRetransmittedAndDuplicates(t *testing.T) {
	s := newSite(t)
	s.read("A")
	old := s.now.Add(-time.Hour).UnixMilli()
	for range 3 {
		s.read("A", func(r *Read) { r.ID, r.TS = "1", old })
	}
	for range 40 {
		s.read("A", func(r *Read) { r.Retransmitted, r.TS = true, old })
	}
	s.read("B", func(r *Read) { r.ID = "1" })
	if h := s.health("A"); h.Accepted != 44 || h.HourReads != 1 || *h.Skew != 0.2 || h.Duplicates != 3 {
		t.Errorf("after 3 repeats and 40 retransmitted reads: %s", show(h))
	}
	if h := s.health("B"); h.Duplicates != 0 {
		t.Errorf("the same id of another sensor: %s", show(h))
	}
	if st := s.g.Stats(); st.Duplicates != s.health("A").Duplicates {
		t.Errorf("Stats.Duplicates is %d", st.Duplicates)
	}
}

// TestRepeatedBatch: a batch of 30 that comes twice is found out, nearly all of it.
func TestRepeatedBatch(t *testing.T) {
	s := newSite(t)
	reads := make([]Read, 30)
	for i := range reads {
		reads[i] = Read{ID: fmt.Sprintf("%024x", rand.Uint64()), Sensor: "A", Plate: "AB123CD", TS: s.now.UnixMilli()}
	}
	for range 2 {
		if _, err := s.g.Accept(t.Context(), reads, AcceptOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if h := s.health("A"); h.Duplicates < 15 || h.Duplicates > 30 {
		t.Errorf("%d duplicates, want nearly 30", h.Duplicates)
	}
}

func TestSkewIsAMedian(t *testing.T) {
	s := newSite(t)
	for i := range 100 {
		s.read("A", func(r *Read) {
			r.TS = s.now.Add(-90 * time.Second).UnixMilli()
			if i%3 == 0 { // a third comes at another time
				r.TS = s.now.Add(-5 * time.Hour).UnixMilli()
			}
		})
	}
	if h := s.health("A"); *h.Skew != 90 {
		t.Errorf("%s, want a skew of 90 s", show(h))
	}
	for range 40 { // the clock was set right, and then too far
		s.read("A", func(r *Read) { r.TS = s.now.Add(2 * time.Second).UnixMilli() })
	}
	if h := s.health("A"); *h.Skew != -2 {
		t.Errorf("%s, want a skew of -2 s", show(h))
	}
	s.read("1970", func(r *Read) { r.TS = 1 })
	if h := s.health("1970"); *h.Skew < 2_000_000 {
		t.Errorf("%s, want weeks at least", show(h))
	}
}

func TestQuality(t *testing.T) {
	s := newSite(t)
	for i := range 1000 {
		s.read("A", func(r *Read) {
			if r.Conf = 0.9; i%4 == 0 {
				r.Plate, r.Conf = "unknown", 0
			}
		})
	}
	if h := s.health("A"); *h.Conf != 0.9 || h.NoPlate < 0.24 || h.NoPlate > 0.26 {
		t.Errorf("%s, want conf 0.9 and a quarter without a plate", show(h))
	}
	for range 2 * longMemory {
		s.read("A", func(r *Read) { r.Conf = 0.5 })
	}
	if h := s.health("A"); *h.Conf > 0.56 || h.NoPlate > 0.05 {
		t.Errorf("%s, want what was before nearly forgotten", show(h))
	}
	if h := s.health("A"); h.Rejected != 0 || h.LastRejection != nil {
		t.Errorf("%s", show(h))
	}
}

// TestRejectedReads are told of the sensor that sent them, not of whom they name.
func TestRejectedReads(t *testing.T) {
	s := newSite(t)
	good := Read{ID: "1", Sensor: "A", Plate: "AB123CD", TS: s.now.UnixMilli()}
	forged, seconds, nobody := good, good, good
	forged.Sensor, seconds.TS, nobody.Sensor = "B", 1_773_470_467, "é"
	if _, err := s.g.Accept(t.Context(), []Read{good, seconds, forged}, AcceptOptions{Sensor: "A"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.g.Accept(t.Context(), []Read{nobody}, AcceptOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.g.AcceptBody(t.Context(), "application/x-ndjson", strings.NewReader("rubbish\n"), Limits{}, AcceptOptions{Sensor: "C"}); err != nil {
		t.Fatal(err)
	}
	h := s.g.Health()
	if len(h.Sensors) != 2 {
		t.Fatalf("%+v, want A and C", h.Sensors)
	}
	a, c := h.Sensors[0], h.Sensors[1]
	if a.Rejected != 2 || a.LastRejection.Field != "sensor" || a.LastRejection.Index != 2 || !a.LastRejected.Equal(s.now) || a.Accepted != 1 {
		t.Errorf("A is %s, want 2 rejections, the last for the sensor", show(a))
	}
	if c.ID != "C" || c.Rejected != 1 || c.Silent || !c.LastRead.IsZero() {
		t.Errorf("C is %s, want 1 rejection", show(c))
	}
}

// TestMemoryIsBounded: sensors beyond the limit are accepted and not told of, strangers
// leave room for the registered, and nothing of one sensor grows.
func TestMemoryIsBounded(t *testing.T) {
	if size := unsafe.Sizeof(watched{}) + MaxIDBytes; size >= 1<<10 {
		t.Errorf("a sensor takes %d bytes, want less than 1024", size)
	}
	s := newSite(t, func(c *Config) { c.MaxSensors = 8 })
	for i := range 20 {
		id := fmt.Sprint("stranger", i)
		s.unknown[id] = true
		s.read(id)
	}
	for i := range 8 {
		s.read(fmt.Sprint("ours", i))
	}
	h := s.g.Health()
	if len(h.Sensors) != 8 || h.Unregistered != 2 || h.Untold != 18+2 {
		t.Errorf("%d told, %d unregistered, %d untold; want 8, 2 and 20", len(h.Sensors), h.Unregistered, h.Untold)
	}
	// Registered meanwhile, it is one of ours and makes room for another stranger; in a
	// week, who is none of ours is forgotten.
	delete(s.unknown, "stranger0")
	s.read("stranger0")
	if h := s.g.Health(); h.Unregistered != 1 {
		t.Errorf("%d unregistered, want 1", h.Unregistered)
	}
	s.now = s.now.Add(8 * 24 * time.Hour)
	if h := s.g.Health(); len(h.Sensors) != 7 || h.Unregistered != 0 || h.Silent != 7 {
		t.Errorf("after a week: %d told, %d unregistered, %d silent; want 7, 0, 7", len(h.Sensors), h.Unregistered, h.Silent)
	}
	s.read("ours7")
	if h := s.g.Health(); len(h.Sensors) != 8 {
		t.Errorf("%d told, want the room of the stranger taken", len(h.Sensors))
	}
}

// TestReportOfMany crosses the chunks in which a report copies.
func TestReportOfMany(t *testing.T) {
	s := newSite(t)
	for i := range 3*chunk + 1 {
		s.read(fmt.Sprintf("s%04d", i))
	}
	h := s.g.Health()
	if len(h.Sensors) != 3*chunk+1 {
		t.Fatalf("%d sensors", len(h.Sensors))
	}
	for i, sn := range h.Sensors {
		if sn.ID != fmt.Sprintf("s%04d", i) {
			t.Fatalf("place %d has %s", i, sn.ID)
		}
	}
}

// TestRestartForgets: health is in memory alone, and says since when.
func TestRestartForgets(t *testing.T) {
	s := newSite(t, func(c *Config) { c.SpoolDepth = func() int64 { return 7 } })
	for range 4 {
		s.hours("A", 24, 60)
	}
	if h := s.health("A"); h.WarmingUp || h.Usual == nil {
		t.Errorf("before: %s", show(h))
	}
	again := newSite(t)
	again.now = s.now
	if h := again.g.Health(); len(h.Sensors) != 0 || h.Spool != nil {
		t.Errorf("a new gateway tells %+v", h)
	}
	again.read("A")
	if h := again.health("A"); !h.WarmingUp || h.Usual != nil || h.Silent {
		t.Errorf("after: %s, want it warming up", show(h))
	}
	if h := s.g.Health(); *h.Spool != 7 || !h.Since.Equal(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)) || !h.At.Equal(s.now) {
		t.Errorf("Health is at %v since %v with %v spooled", h.At, h.Since, h.Spool)
	}
}

// TestClockThatJumps: the gateway's own clock may be set while it runs.
func TestClockThatJumps(t *testing.T) {
	s := newSite(t)
	s.hours("A", 3, 60)
	s.now = s.now.Add(-2 * time.Hour)
	s.read("A")
	if h := s.health("A"); h.Silent || h.Missed != 0 {
		t.Errorf("set back by 2 h: %s", show(h))
	}
	s.now = s.now.AddDate(10, 0, 0)
	if h := s.health("A"); !h.Silent {
		t.Errorf("set ahead by 10 years: %s", show(h))
	}
	s.read("A")
	if h := s.health("A"); h.Silent {
		t.Errorf("and a read: %s", show(h))
	}
}

// TestHealthAllocatesNothing for a sensor that it knows.
func TestHealthAllocatesNothing(t *testing.T) {
	var h health
	h.init(10, noon)
	reads := make([]Read, 100)
	for i := range reads {
		reads[i] = Read{ID: strconv.Itoa(i), Sensor: "A", Conf: 0.9, TS: 1, Received: 2}
	}
	known := func(string) bool { return true }
	now := noon.UnixMilli()
	h.saw(portion{reads: reads}, known, now)
	if n := testing.AllocsPerRun(100, func() {
		now += 60_000
		h.saw(portion{reads: reads}, known, now)
		h.beat("A", true, now)
	}); n != 0 {
		t.Errorf("%v allocations for 100 reads and a heartbeat, want 0", n)
	}
}

// show is h with its figures, not their addresses.
func show(h SensorHealth) string {
	f := func(p *float64) string {
		if p == nil {
			return "-"
		}
		return fmt.Sprint(*p)
	}
	return fmt.Sprintf("%+v usual=%s rate=%s skew=%s conf=%s", h, f(h.Usual), f(h.Rate), f(h.Skew), f(h.Conf))
}

// BenchmarkHealth is what a gateway pays to know how its sensors do. From one sensor to
// the next the look-up and its misses in the cache come on top.
func BenchmarkHealth(b *testing.B) {
	for _, run := range []int{100, 10, 1} { // reads of one sensor in a row
		b.Run(fmt.Sprintf("sensors=3000/run=%d", run), func(b *testing.B) {
			var h health
			h.init(10_000, noon)
			reads := make([]Read, 30_000)
			ids := make([]string, 3000)
			for i := range ids {
				ids[i] = fmt.Sprintf("A7-%04d-2", i)
			}
			for i := range reads {
				reads[i] = Read{ID: fmt.Sprintf("%026d", i), Sensor: ids[i/run%3000], Conf: 0.9, TS: 1, Received: 300}
			}
			known := func(string) bool { return true }
			now := noon.UnixMilli()
			b.ReportAllocs()
			for b.Loop() {
				h.seed = maphash.MakeSeed() // the same ids are others now
				for i := 0; i < len(reads); i += 100 {
					h.saw(portion{reads: reads[i : i+100]}, known, now)
				}
				now += 1000
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(reads)), "ns/read")
		})
	}
}

// BenchmarkHealthReport is a scrape of a national fleet.
func BenchmarkHealthReport(b *testing.B) {
	s := newSite(b)
	for i := range 3000 {
		for range 32 {
			s.read(fmt.Sprintf("A7-%04d-2", i))
		}
	}
	for b.Loop() {
		s.g.Health()
	}
}
