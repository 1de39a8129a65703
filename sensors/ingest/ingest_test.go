package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"vigie/sensors"
	"vigie/sensors/format"
	"vigie/sensors/ingest"
	"vigie/sensors/passage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 3, 14, 6, 41, 7, 412e6, time.UTC)

// said is a message of the format of these tests.
type said struct {
	Sensor    string
	Heartbeat bool
	Sees      []seen
}

type seen struct {
	Plate, Track, Sensor string
	Conf                 float32
	TS                   int64 // after start
	Picture              string
}

// decode reads a said. With a profile it takes the confidences for percents.
func decode(name string, in format.Input) (msg sensors.Message, err error) {
	if name != "" && name != "said" {
		return msg, format.ErrFormat
	}
	var m said
	if err := json.Unmarshal(in.Body, &m); err != nil {
		return msg, errors.New("said: not JSON")
	}
	msg = sensors.Message{Format: "said", Sensor: m.Sensor, Heartbeat: m.Heartbeat}
	for i, s := range m.Sees {
		if s.Plate == "garbled" {
			msg.Rejected = append(msg.Rejected, sensors.Rejection{Index: i, Field: "ts", Reason: "is no time"})
			continue
		}
		if in.Profile.Scale == sensors.ScalePercent {
			s.Conf /= 100
		}
		msg.Sightings = append(msg.Sightings, sensors.Sighting{Track: s.Track, Plate: []byte(s.Picture), Read: sensors.Read{
			Sensor: s.Sensor, Plate: s.Plate, Conf: s.Conf, TS: start.UnixMilli() + s.TS, Country: in.Profile.Country,
		}})
	}
	return msg, nil
}

// world is an Ingester before a real gateway whose publisher and beats are watched.
type world struct {
	*ingest.Ingester
	mu        sync.Mutex
	published []sensors.Read
	beats     []string
	fail      error
	hold      func(sensors.Read) // called by Publish
	profiles  map[string]sensors.Profile
	aside     []sensors.Read
}

func (w *world) Publish(_ context.Context, reads []sensors.Read) error {
	if w.hold != nil {
		w.hold(reads[0])
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return w.fail
	}
	for i := range reads {
		w.published = append(w.published, reads[i].Clone())
	}
	return nil
}

func (w *world) Profile(sensor string) (sensors.Profile, bool) {
	p, ok := w.profiles[sensor]
	return p, ok
}

// beating is a gateway whose heartbeats are watched.
type beating struct {
	*sensors.Gateway
	w *world
}

func (b beating) Heartbeat(sensor string, _ time.Time) {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	b.w.beats = append(b.w.beats, sensor)
}

type quarantine struct{ w *world }

func (q quarantine) Publish(_ context.Context, reads []sensors.Read) error {
	q.w.aside = append(q.w.aside, reads...)
	return nil
}

func newWorld(t *testing.T, change ...func(*ingest.Config, *sensors.Config)) *world {
	t.Helper()
	w := &world{profiles: map[string]sensors.Profile{"A": {}, "B": {}, "P": {Scale: sensors.ScalePercent, Country: "FR"}}}
	gc := sensors.Config{Publisher: w, Quarantine: quarantine{w}}
	passages, err := passage.New(passage.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := ingest.Config{Decode: decode, Passages: passages, Profiles: w}
	for _, f := range change {
		f(&cfg, &gc)
	}
	g, err := sensors.New(gc)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Gateway == nil {
		cfg.Gateway = beating{g, w}
	}
	if w.Ingester, err = ingest.New(cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

func message(m said) ingest.Message {
	body, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return ingest.Message{Body: body}
}

// take ingests m and expects no error.
func (w *world) take(t *testing.T, m ingest.Message) ingest.Result {
	t.Helper()
	res, err := w.Ingest(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// tell writes reads in short: sensor, plate, revision.
func tell(reads []sensors.Read) string {
	var s []string
	for _, r := range reads {
		s = append(s, fmt.Sprintf("%s %s/%d", r.Sensor, r.Plate, r.Revision))
	}
	return strings.Join(s, ", ")
}

func TestPassages(t *testing.T) {
	w := newWorld(t)
	one := func(s seen) ingest.Result { return w.take(t, message(said{Sensor: "A", Sees: []seen{s}})) }
	for i, want := range []ingest.Result{{Accepted: 1}, {Suppressed: 1}, {Accepted: 1}, {Accepted: 1}} {
		s := []seen{
			{"AB123CD", "7", "", .9, 0, ""}, {"AB123CD", "7", "", .9, 50, ""}, {"AB123CC", "7", "", .9, 100, ""}, {"XY987ZW", "8", "", .9, 150, ""},
		}[i]
		want.Rejected = []sensors.Rejection{}
		if got := one(s); !reflect.DeepEqual(got, want) {
			t.Errorf("message %d: %+v, want %+v", i, got, want)
		}
	}
	if got, want := tell(w.published), "A AB123CD/0, A AB123CC/1, A XY987ZW/0"; got != want {
		t.Errorf("published %s, want %s", got, want)
	}
	r := w.published
	if r[0].Passage != passage.ID("A", "7", start.UnixMilli()) || r[1].Passage != r[0].Passage || r[2].Passage == r[0].Passage {
		t.Errorf("passages %s, %s, %s", r[0].Passage, r[1].Passage, r[2].Passage)
	}
	if len(w.beats) != 1 || w.beats[0] != "A" {
		t.Errorf("beats %v, want one of A for the message that was suppressed", w.beats)
	}
}

// A message whose reads could not be stored comes again; its first read must be first still.
func TestFailed(t *testing.T) {
	w := newWorld(t)
	w.fail = errors.New("away")
	m := message(said{Sensor: "A", Sees: []seen{{"AB123CD", "7", "", .9, 0, ""}}})
	for range 2 {
		if res, err := w.Ingest(t.Context(), m); !errors.Is(err, w.fail) || res.Accepted != 0 {
			t.Fatalf("got %+v, %v", res, err)
		} else if errors.Is(err, ingest.ErrMessage) {
			t.Fatalf("%v says that the message is at fault", err)
		}
	}
	w.fail = nil
	w.take(t, m)
	w.take(t, m)
	if got, want := tell(w.published), "A AB123CD/0"; got != want {
		t.Errorf("published %s, want %s", got, want)
	}
	if s := w.Stats(); s.Failed != 2 || s.Messages != 2 || s.Passages.Decisions[passage.Repeat] != 1 {
		t.Errorf("stats %+v", s)
	}
}

// unanswered is a publisher that stores reads and may not say so.
type unanswered struct {
	*world
	silent bool
}

func (u *unanswered) Publish(ctx context.Context, reads []sensors.Read) error {
	if err := u.world.Publish(ctx, reads); err != nil || !u.silent {
		return err
	}
	return context.DeadlineExceeded
}

// A read that was stored although nobody said so, and that does not come again, may have taken
// an alert back: what is true must be told again, and as later.
func TestUnanswered(t *testing.T) {
	p := new(unanswered)
	w := newWorld(t, func(_ *ingest.Config, g *sensors.Config) { g.Publisher = p })
	p.world = w
	for i, s := range []seen{
		{"AB123CD", "7", "", .9, 0, ""}, {"XY987ZW", "7", "", .9, 100, ""}, {"AB123CD", "7", "", .9, 200, ""}, {"AB123CD", "7", "", .96, 300, ""},
	} {
		p.silent = i == 1
		if _, err := w.Ingest(t.Context(), message(said{Sensor: "A", Sees: []seen{s}})); (err != nil) != p.silent {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if got, want := tell(w.published), "A AB123CD/0, A XY987ZW/1, A AB123CD/2, A AB123CD/3"; got != want {
		t.Errorf("published %s, want %s", got, want)
	}
}

// Of a message of which one read is rejected, the others are stored: their revisions are used up.
func TestPartlyRejected(t *testing.T) {
	w := newWorld(t, func(_ *ingest.Config, g *sensors.Config) {
		g.Known, g.Unknown = func(id string) bool { return id == "A" }, sensors.UnknownRefuse
	})
	w.take(t, message(said{Sees: []seen{{"AB123CD", "7", "A", .9, 0, ""}}}))
	w.take(t, message(said{Sees: []seen{{"XY987ZW", "7", "A", .9, 100, ""}, {"AB123CD", "7", "Z", .9, 100, ""}}}))
	w.take(t, message(said{Sees: []seen{{"AB123CD", "7", "A", .9, 200, ""}}}))
	if got, want := tell(w.published), "A AB123CD/0, A XY987ZW/1, A AB123CD/2"; got != want {
		t.Errorf("published %s, want %s", got, want)
	}
}

// Two vehicles in one picture, as two formats without tracks tell them, and in two lanes under one
// track.
func TestSeveralVehicles(t *testing.T) {
	tests := []struct{ format, body, want string }{
		{"openalpr", `{"data_type":"alpr_results","version":2,"epoch_time":1773470467412,"uuid":"u-1","camera_id":7,"results":[
			{"plate":"AB123CD","confidence":74.0,"region":"fr","candidates":[]},
			{"plate":"AB123CE","confidence":93.0,"region":"fr","candidates":[]}]}`, "A AB123CD/0, A AB123CE/0"},
		{"platerecognizer", `{"hook":{"target":"webhook","id":"camera-2","event":"recognition"},"data":{"camera_id":"camera-2",
			"timestamp":"2026-03-14T06:41:07.412Z","results":[
			{"plate":"ab123ce","score":0.91,"region":{"code":"fr","score":0.7}},
			{"plate":"ab123cd","score":0.72,"region":{"code":"fr","score":0.7}}]}}`, "A ab123ce/0, A ab123cd/0"},
		{"dahua", strings.ReplaceAll(`Events[0].EventBaseInfo.Code=TrafficJunction
Events[0].GroupID=5
Events[0].UTC=1773470467
Events[0].Lane=1
Events[0].TrafficCar.PlateNumber=AB123CD
Events[0].Object.Confidence=95
Events[1].EventBaseInfo.Code=TrafficJunction
Events[1].GroupID=5
Events[1].UTC=1773470467
Events[1].Lane=2
Events[1].TrafficCar.PlateNumber=XY987ZW
Events[1].Object.Confidence=95
`, "\n", "\r\n"), "A AB123CD/0, A XY987ZW/0"},
	}
	for _, tt := range tests {
		t.Run(tt.format, func(t *testing.T) {
			w := newWorld(t, func(c *ingest.Config, _ *sensors.Config) { c.Decode = nil })
			for range 2 {
				w.take(t, ingest.Message{Format: tt.format, Sensor: "A", Body: []byte(tt.body)})
			}
			if got := tell(w.published); got != tt.want {
				t.Fatalf("published %s, want %s", got, tt.want)
			}
			if w.published[0].Passage == w.published[1].Passage {
				t.Error("both have one passage")
			}
		})
	}
}

// asking counts how often a profile is asked for, whose zone is found anew each time.
type asking struct{ asked []string }

func (a *asking) Profile(sensor string) (p sensors.Profile, ok bool) {
	a.asked = append(a.asked, sensor)
	if sensor == "camera" {
		return p, false
	}
	return sensors.Profile{Zone: time.FixedZone("CET", 3600)}, true
}

func TestDecodedOnce(t *testing.T) {
	tests := []struct {
		name string
		m    ingest.Message
		sees []string // sensors
		want string   // decodings and names asked for
	}{
		{"the source is the sensor", ingest.Message{Source: "A"}, []string{"A", "A"}, "1 [A]"},
		{"only the message names it", ingest.Message{}, []string{"A", "A"}, "2 [A]"},
		{"the source is another", ingest.Message{Source: "B"}, []string{"A"}, "2 [B A]"},
		{"the token names it", ingest.Message{Sensor: "A"}, []string{"A", "camera", "camera"}, "1 [A camera]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			decoded, profiles := 0, new(asking)
			w := newWorld(t, func(c *ingest.Config, _ *sensors.Config) {
				c.Profiles = profiles
				c.Decode = func(name string, in format.Input) (sensors.Message, error) {
					decoded++
					return decode(name, in)
				}
			})
			var s said
			for i, sensor := range tt.sees {
				s.Sees = append(s.Sees, seen{"AB123CD", fmt.Sprint(i), sensor, .9, 0, ""})
			}
			tt.m.Body = message(s).Body
			w.take(t, tt.m)
			if got := fmt.Sprint(decoded, " ", profiles.asked); got != tt.want {
				t.Errorf("decoded and asked for %s, want %s", got, tt.want)
			}
		})
	}
}

func TestSensorAndProfile(t *testing.T) {
	tests := []struct {
		name string
		m    ingest.Message
		said string // the sensor
		want string // published, with confidence and country; or the field for which it is rejected
	}{
		{"the message names it", ingest.Message{}, "P", "P 0.9 FR"},
		{"the source names it", ingest.Message{Source: "P"}, "", "P 0.9 FR"},
		{"the message goes before the source", ingest.Message{Source: "P"}, "C", "conf"}, // 90 is none
		{"the token names it", ingest.Message{Sensor: "P"}, "", "P 0.9 FR"},
		{"the device has a name of its own", ingest.Message{Sensor: "P"}, "axis-b8a44f000118", "P 0.9 FR"},
		{"the device has the name of another sensor", ingest.Message{Sensor: "P"}, "A", "sensor"},
		{"and so has the source", ingest.Message{Sensor: "P", Source: "A"}, "", "P 0.9 FR"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.m.Body = message(said{Sensor: tt.said, Heartbeat: true, Sees: []seen{{"AB123CD", "7", "", 90, 0, ""}}}).Body
			res := w.take(t, tt.m)
			if len(res.Rejected) > 0 {
				if res.Rejected[0].Field != tt.want || tt.want == "sensor" && len(w.beats) > 0 {
					t.Errorf("got %+v, beats %v, want %s", res, w.beats, tt.want)
				}
				return
			}
			if len(w.published) != 1 {
				t.Fatalf("published %d reads, result %+v", len(w.published), res)
			}
			r := w.published[0]
			if got := fmt.Sprintf("%s %.1f %s", r.Sensor, r.Conf, r.Country); got != tt.want || !slices.Equal(w.beats, []string{r.Sensor}) {
				t.Errorf("got %s, beats %v, want %s", got, w.beats, tt.want)
			}
		})
	}
}

func TestRejected(t *testing.T) {
	w := newWorld(t)
	res := w.take(t, message(said{Sensor: "A", Sees: []seen{
		{"AB123CD", "7", "", .9, 0, ""}, {Plate: "garbled"}, {"AB123CD", "7", "", .9, 1, ""}, {"A?", "8", "", .9, 2, ""},
		{Plate: "garbled"}, {"XY987ZW", "9", "", 9, 3, ""}, {"unknown", "5", "", 0, 4, ""},
	}}))
	var got []string
	for _, rej := range res.Rejected {
		got = append(got, fmt.Sprint(rej.Index, " ", rej.Field))
	}
	if want := []string{"1 ts", "3 plate", "4 ts", "5 conf"}; !slices.Equal(got, want) || res.Accepted != 2 || res.Suppressed != 1 {
		t.Errorf("got %v, %+v, want %v", got, res, want)
	}
	if s := w.Stats(); s.Passages.Passages != 2 || s.Garbled != 2 {
		t.Errorf("%d passages, %d garbled, want 2 and 2: what is rejected has no passage", s.Passages.Passages, s.Garbled)
	}
}

func TestUnknownSensor(t *testing.T) {
	known := func(id string) bool { return id == "A" }
	m := message(said{Sensor: "Z", Sees: []seen{{"AB123CD", "7", "", .9, 0, ""}}})
	w := newWorld(t, func(_ *ingest.Config, g *sensors.Config) { g.Known, g.Unknown = known, sensors.UnknownQuarantine })
	if res := w.take(t, m); res.Quarantined != 1 || res.Accepted != 0 || len(w.aside) != 1 || len(w.published) != 0 {
		t.Errorf("quarantine: %+v", res)
	}
	w = newWorld(t, func(_ *ingest.Config, g *sensors.Config) { g.Known, g.Unknown = known, sensors.UnknownRefuse })
	for range 2 {
		if res := w.take(t, m); len(res.Rejected) != 1 || res.Suppressed != 0 {
			t.Errorf("refuse: %+v", res)
		}
	}
	if s := w.Stats().Passages; s.Passages != 0 {
		t.Errorf("refused reads take room: %+v", s)
	}
}

func TestErrors(t *testing.T) {
	w := newWorld(t, func(_ *ingest.Config, g *sensors.Config) { g.MaxBatch = 1 })
	tests := []struct {
		name string
		m    ingest.Message
		want error
	}{
		{"format", ingest.Message{Format: "morse", Body: []byte("{}")}, ingest.ErrFormat},
		{"message", ingest.Message{Body: []byte("...---...")}, ingest.ErrMessage},
		{"too many reads", message(said{Sensor: "A", Sees: []seen{{"AB123CD", "1", "", 0, 0, ""}, {"AB123CD", "2", "", 0, 0, ""}}}), ingest.ErrMessage},
	}
	for _, tt := range tests {
		_, err := w.Ingest(t.Context(), tt.m)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if strings.Contains(err.Error(), "...---...") || strings.Contains(err.Error(), "AB123CD") {
			t.Errorf("%s: the error has content", tt.name)
		}
	}
	if s := w.Stats(); s.UnknownFormat != 1 || s.Undecodable != 2 || s.Failed != 0 || s.Messages != 0 {
		t.Errorf("stats %+v", s)
	}
	for _, cfg := range []ingest.Config{{}, {Gateway: beating{}}, {Passages: new(passage.Tracker)}} {
		if _, err := ingest.New(cfg); err == nil {
			t.Error("New took an incomplete Config")
		}
	}
}

func TestHeartbeat(t *testing.T) {
	w := newWorld(t)
	m := message(said{Heartbeat: true})
	m.Source = "A"
	if res := w.take(t, m); !res.Heartbeat || res.Accepted != 0 || !slices.Equal(w.beats, []string{"A"}) {
		t.Errorf("got %+v, beats %v", res, w.beats)
	}
	if s := w.Stats(); s.Heartbeats != 1 {
		t.Errorf("stats %+v", s)
	}
}

// storing is a Pictures that takes its time.
type storing struct {
	takes time.Duration
	deaf  bool // to its context
	mu    sync.Mutex
	ids   []string
}

func (p *storing) Store(ctx context.Context, id string, plate, scene []byte) (*sensors.Image, *sensors.Image) {
	timeout := ctx.Done()
	if p.deaf {
		timeout = nil
	}
	select {
	case <-time.After(p.takes):
	case <-timeout:
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ids = append(p.ids, id)
	if string(plate) != "picture" || len(scene) > 0 {
		return nil, nil
	}
	return &sensors.Image{Partition: 3, Offset: int64(len(p.ids))}, nil
}

func TestPictures(t *testing.T) {
	tests := []struct {
		name    string
		store   *storing
		picture string
		want    string // images of the two reads that would be published, or of the one
		within  time.Duration
		lost    uint64
	}{
		{"in time", &storing{takes: 20 * time.Millisecond}, "picture", "yes", 20 * time.Millisecond, 0},
		{"too late", &storing{takes: time.Second}, "picture", "no no", 100 * time.Millisecond, 2},
		{"too late, and cannot be stopped", &storing{takes: time.Second, deaf: true}, "picture", "no no", 100 * time.Millisecond, 2},
		{"no picture", &storing{}, "something else", "no no", 0, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(c *ingest.Config, _ *sensors.Config) { c.Pictures = tt.store })
				defer w.Close()
				began := time.Now()
				for i := range int64(2) { // the second has news only as long as no picture is stored
					w.take(t, message(said{Sensor: "A", Sees: []seen{{"AB123CD", "7", "", .9, i, tt.picture}}}))
				}
				if d := time.Since(began); d > tt.within {
					t.Errorf("the reads waited %v, want %v", d, tt.within)
				}
				var got []string
				for _, r := range w.published {
					if r.Image != nil && r.ID == tt.store.ids[0] {
						got = append(got, "yes")
					} else {
						got = append(got, "no")
					}
				}
				if s := strings.Join(got, " "); s != tt.want || w.Stats().PicturesLost != tt.lost {
					t.Errorf("pictures %s, %d lost, want %s, %d", s, w.Stats().PicturesLost, tt.want, tt.lost)
				}
			})
		})
	}
}

// While pictures are away reads do not wait for them and are no news for having one; the first
// that can be stored again is.
func TestPicturesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, away := &storing{takes: 20 * time.Millisecond}, true
		w := newWorld(t, func(c *ingest.Config, _ *sensors.Config) {
			c.Pictures, c.PicturesAway = store, func() bool { return away }
		})
		defer w.Close()
		began := time.Now()
		one := func(ts int64) {
			w.take(t, message(said{Sensor: "A", Sees: []seen{{"AB123CD", "7", "", .9, ts, "picture"}}}))
		}
		one(0)
		one(100)
		if d := time.Since(began); d != 0 || len(store.ids) > 0 || w.Stats().PicturesLost != 1 || tell(w.published) != "A AB123CD/0" {
			t.Errorf("waited %v, %d stored, %d lost, published %s", d, len(store.ids), w.Stats().PicturesLost, tell(w.published))
		}
		away = false
		one(200)
		if len(w.published) != 2 || w.published[1].Image == nil || w.Stats().PicturesLost != 1 {
			t.Errorf("afterwards: published %s, %d lost", tell(w.published), w.Stats().PicturesLost)
		}
	})
}

func TestPicturesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &storing{takes: time.Minute, deaf: true}
		w := newWorld(t, func(c *ingest.Config, _ *sensors.Config) { c.Pictures, c.PicturesAtOnce = store, 3 })
		began := time.Now()
		for i := range 5 {
			w.take(t, message(said{Sensor: "A", Sees: []seen{{"AB123CD", fmt.Sprint(i), "", .9, 0, "picture"}}}))
		}
		if d := time.Since(began); d != 150*time.Millisecond {
			t.Errorf("took %v, want the wait for three pictures: the others find no room", d)
		}
		w.Close()
		if len(store.ids) != 3 {
			t.Errorf("%d stored late, want 3", len(store.ids))
		}
	})
}

// While a message is being stored, others of its sensor wait and those of other sensors do not.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.hold = func(r sensors.Read) {
			if r.Sensor == "A" {
				time.Sleep(time.Second)
			}
		}
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				w.take(t, message(said{Sensor: "A", Sees: []seen{{"AB123CD", fmt.Sprint(i), "", .9, int64(i), ""}}}))
			})
			synctest.Wait()
		}
		w.take(t, message(said{Sensor: "B", Sees: []seen{{"XY987ZW", "1", "", .9, 0, ""}}}))
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := w.Ingest(ctx, message(said{Sensor: "A", Sees: []seen{{"AB123CD", "9", "", .9, 9, ""}}}))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a message that waits too long: %v", err)
		}
		wg.Wait()
		var got []int64
		for _, r := range w.published {
			if r.Sensor == "A" {
				got = append(got, r.TS-start.UnixMilli())
			}
		}
		if w.published[0].Sensor != "B" || !slices.Equal(got, []int64{0, 1, 2}) {
			t.Errorf("published %s, of A at %v", tell(w.published), got)
		}
	})
}

// Messages of many sensors in one: no two of them wait for each other for ever.
func TestManySensors(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 50 {
				var m said
				for k := range 20 {
					m.Sees = append(m.Sees, seen{"AB123CD", "7", fmt.Sprint("S", (g*7+k*(1+g%3))%40), .9, int64(i), ""})
				}
				w.take(t, message(m))
			}
		})
	}
	wg.Wait()
	if got := len(w.published); got != 40 {
		t.Errorf("%d reads published, want the first of each of 40 sensors", got)
	}
}

// Through the formats as they are: what an Axis camera says under one car is one passage.
func TestAxis(t *testing.T) {
	w := newWorld(t, func(c *ingest.Config, _ *sensors.Config) { c.Decode = nil })
	for i, m := range []struct{ state, plate, conf string }{
		{"new", "GK482TZ", "0.81"}, {"update", "GK482TZ", "0.82"}, {"update", "GK482TX", "0.90"}, {"lost", "GK482TX", "0.90"},
	} {
		body := fmt.Sprintf(`{"packetCounter":"%d","capture_timestamp":"%d","plateUTF8":%q,"plateCountry":"FRA","plateConfidence":%q,
			"carState":%q,"carID":"1144696","camera_info":{"SerialNumber":"B8A44F000118"},"sensorProviderID":"defaultID_176"}`,
			i, start.UnixMilli()+int64(i)*200, m.plate, m.conf, m.state)
		w.take(t, ingest.Message{Format: "axis", Sensor: "A", Body: []byte(body)})
	}
	if got, want := tell(w.published), "A GK482TZ/0, A GK482TX/1"; got != want {
		t.Fatalf("published %s, want %s", got, want)
	}
	if a, b := w.published[0], w.published[1]; a.Passage != b.Passage || a.Passage != passage.ID("A", "1144696", start.UnixMilli()) {
		t.Errorf("passages %s and %s", a.Passage, b.Passage)
	}
}

// Whatever a message says: every read of it is told of once, and who may speak for one sensor only
// makes no read of another.
func FuzzIngest(f *testing.F) {
	f.Add("axis", []byte(`{"capture_timestamp":"1773470467412","plateUTF8":"GK482TZ","plateConfidence":"0.9","carState":"new","carID":"7","sensorProviderID":"B"}`))
	f.Add("auto", []byte(`{"type":"lpr","id":"1-a","plate":"GK482TZ","score":0.87,"camera":"A","timestamp":1773470467.412}`))
	f.Add("openalpr", []byte(`{"data_type":"heartbeat","agent_uid":"x","timestamp":1773470467412}`))
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		w := newWorld(t, func(c *ingest.Config, g *sensors.Config) { c.Decode = nil })
		for range 2 {
			res, err := w.Ingest(t.Context(), ingest.Message{Format: name, Sensor: "A", Body: body})
			if err != nil {
				if !errors.Is(err, ingest.ErrFormat) && !errors.Is(err, ingest.ErrMessage) {
					t.Fatalf("an error that asks for the message again: %v", err)
				}
				return
			}
			if s := w.Stats(); uint64(len(res.Rejected)) < s.Garbled/s.Messages {
				t.Fatalf("%d rejected of %d garbled", len(res.Rejected), s.Garbled)
			}
			for i, rej := range res.Rejected {
				if i > 0 && rej.Index <= res.Rejected[i-1].Index {
					t.Fatal("rejections do not rise")
				}
			}
		}
		ids := map[string]bool{}
		for _, r := range w.published {
			if r.Sensor != "A" || r.Passage == "" || r.ID == "" || r.Check() != nil {
				t.Fatalf("published %v with passage %q", r, r.Passage)
			}
			ids[r.Passage+" "+fmt.Sprint(r.Revision)] = true
		}
		if len(ids) != len(w.published) {
			t.Fatal("two reads of a passage have the same revision")
		}
	})
}

// nowhere is a gateway that stores nothing.
type nowhere struct{}

func (nowhere) Accept(_ context.Context, reads []sensors.Read, _ sensors.AcceptOptions) (sensors.Result, error) {
	return sensors.Result{Accepted: len(reads)}, nil
}
func (nowhere) Heartbeat(string, time.Time) {}

// What a message costs besides storing its reads: of a new vehicle, and of one that is known.
func BenchmarkIngest(b *testing.B) {
	const body = `{"packetCounter":"1","capture_timestamp":"%d","plateUTF8":"GK482TZ","plateCountry":"FRA","plateConfidence":"0.91",
		"carState":"new","carID":"%d","camera_info":{"SerialNumber":"B8A44F000118"},"sensorProviderID":"defaultID_176"}`
	for _, known := range []bool{false, true} {
		b.Run(fmt.Sprintf("known=%t", known), func(b *testing.B) {
			passages, err := passage.New(passage.Config{})
			if err != nil {
				b.Fatal(err)
			}
			at := start
			in, err := ingest.New(ingest.Config{Gateway: nowhere{}, Passages: passages, Clock: func() time.Time { return at }})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				at = at.Add(500 * time.Millisecond) // a busy lane
				car := i
				if known {
					car = 0
				}
				m := ingest.Message{Format: "axis", Sensor: "A", Body: fmt.Appendf(nil, body, at.UnixMilli(), car)}
				if _, err := in.Ingest(b.Context(), m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
