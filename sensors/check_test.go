package sensors

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"vigie/watchlist/plate"
)

func TestCheck(t *testing.T) {
	nan := float32(math.NaN())
	for _, tt := range []struct {
		name   string
		change func(r *Read)
		field  string // empty when the read is in order
		reason string
	}{
		{"full", func(r *Read) {}, "", ""},
		{"least", func(r *Read) { *r = Read{Sensor: "s", TS: 1} }, "", ""},
		{"no sensor", func(r *Read) { r.Sensor = "" }, "sensor", "is required"},
		{"sensor with every kind of character", func(r *Read) { r.Sensor = "Az-09_.:" }, "", ""},
		{"sensor with a space", func(r *Read) { r.Sensor = "A7 118" }, "sensor", "must be 1 to 64 letters, digits and - _ . :"},
		{"sensor with an accent", func(r *Read) { r.Sensor = "Évry" }, "sensor", "must be 1 to 64 letters, digits and - _ . :"},
		{"sensor, 64", func(r *Read) { r.Sensor = strings.Repeat("s", 64) }, "", ""},
		{"sensor, 65", func(r *Read) { r.Sensor = strings.Repeat("s", 65) }, "sensor", "must be 1 to 64 letters, digits and - _ . :"},
		{"no id", func(r *Read) { r.ID = "" }, "", ""},
		{"id of visible characters", func(r *Read) { r.ID = "!~{}#/" }, "", ""},
		{"id with a space", func(r *Read) { r.ID = "a b" }, "id", "must be at most 64 visible ASCII characters"},
		{"id with a line break", func(r *Read) { r.ID = "a\n" }, "id", "must be at most 64 visible ASCII characters"},
		{"id with DEL", func(r *Read) { r.ID = "a\x7f" }, "id", "must be at most 64 visible ASCII characters"},
		{"id, 65", func(r *Read) { r.ID = strings.Repeat("i", 65) }, "id", "must be at most 64 visible ASCII characters"},
		{"passage with a space", func(r *Read) { r.Passage = "a b" }, "passage", "must be at most 64 visible ASCII characters"},
		{"no ts", func(r *Read) { r.TS = 0 }, "ts", "is required, in milliseconds since 1970"},
		{"negative ts", func(r *Read) { r.TS = -1 }, "ts", "must be after 1970, in milliseconds"},
		{"ts of a clock that starts in 1970", func(r *Read) { r.TS = 86_400_000 }, "", ""},
		{"ts in seconds", func(r *Read) { r.TS = 1_773_470_467 }, "ts", "looks like seconds; milliseconds expected"},
		{"ts with eleven digits", func(r *Read) { r.TS = 10_000_000_000 }, "", ""},
		{"ts in microseconds", func(r *Read) { r.TS = 1_773_470_467_412_000 }, "ts", "looks like microseconds; milliseconds expected"},
		{"ts in nanoseconds", func(r *Read) { r.TS = 1_773_470_467_412_000_000 }, "ts", "looks like nanoseconds; milliseconds expected"},
		{"ts at the end of 2099", func(r *Read) { r.TS = 4_102_444_799_999 }, "", ""},
		{"ts in 2100", func(r *Read) { r.TS = 4_102_444_800_000 }, "ts", "must be before 2100, in milliseconds"},
		{"no plate", func(r *Read) { r.Plate, r.CharConf = "", nil }, "", ""},
		{"plate, 64 characters of two bytes", func(r *Read) { r.Plate = strings.Repeat("é", 64) }, "", ""},
		{"plate, 65", func(r *Read) { r.Plate = strings.Repeat("A", 65) }, "plate", "must be at most 64 characters"},
		{"plate that is not UTF-8", func(r *Read) { r.Plate = "AB\xff" }, "plate", "is not valid UTF-8"},
		{"conf 0", func(r *Read) { r.Conf = 0 }, "", ""},
		{"conf in percent", func(r *Read) { r.Conf = 95 }, "conf", "must be between 0 and 1 (0.95, not 95)"},
		{"negative conf", func(r *Read) { r.Conf = -0.1 }, "conf", "must be between 0 and 1 (0.95, not 95)"},
		{"conf NaN", func(r *Read) { r.Conf = nan }, "conf", "must be between 0 and 1 (0.95, not 95)"},
		{"32 candidates", func(r *Read) { r.Candidates = make([]Candidate, 32) }, "", ""},
		{"33 candidates", func(r *Read) { r.Candidates = make([]Candidate, 33) }, "candidates", "must be at most 32"},
		{"long candidate", func(r *Read) { r.Candidates[1].Plate = strings.Repeat("A", 65) }, "candidates[1].plate", "must be at most 64 characters"},
		{"candidate with conf in percent", func(r *Read) { r.Candidates[1].Conf = 41 }, "candidates[1].conf", "must be between 0 and 1 (0.95, not 95)"},
		{"char_conf of another count", func(r *Read) { r.CharConf = make([]float32, 64) }, "", ""},
		{"char_conf, 65", func(r *Read) { r.CharConf = make([]float32, 65) }, "char_conf", "must be one value per character of the plate, at most 64"},
		{"char_conf out of range", func(r *Read) { r.CharConf[2] = 1.01 }, "char_conf[2]", "must be between 0 and 1 (0.95, not 95)"},
		{"negative partition", func(r *Read) { r.Image.Partition = -1 }, "image", "partition and offset must not be negative"},
		{"negative offset", func(r *Read) { r.Image.Offset = -1 }, "image", "partition and offset must not be negative"},
		{"negative offset of the context", func(r *Read) { r.Context = &Image{Offset: -1} }, "context", "partition and offset must not be negative"},
		{"beyond the pole", func(r *Read) { r.Lat = 90.1 }, "lat", "must be -90 to 90 degrees"},
		{"no latitude", func(r *Read) { r.Lat = float32(math.NaN()) }, "lat", "must be -90 to 90 degrees"},
		{"beyond the date line", func(r *Read) { r.Lon = -180.1 }, "lon", "must be -180 to 180 degrees"},
		{"lane 1000", func(r *Read) { r.Lane = 1000 }, "lane", "must be at most 999"},
		{"negative speed", func(r *Read) { r.Speed = -1 }, "speed", "must be 0 to 1000 km/h; leave it out when it was not measured"},
		{"speed NaN", func(r *Read) { r.Speed = nan }, "speed", "must be 0 to 1000 km/h; leave it out when it was not measured"},
		{"negative received", func(r *Read) { r.Received = -1 }, "received", "must be in milliseconds since 1970, or left out"},
		{"long make", func(r *Read) { r.Make = strings.Repeat("m", 65) }, "make", "must be at most 64 characters"},
		{"direction with a line break", func(r *Read) { r.Direction = "N\n" }, "direction", "must not hold control characters, line breaks or marks of writing direction"},
		{"color with an escape sequence", func(r *Read) { r.Color = "\x1b[31mred" }, "color", "must not hold control characters, line breaks or marks of writing direction"},
		{"make with a bidi override", func(r *Read) { r.Make = "a\u202eb" }, "make", "must not hold control characters, line breaks or marks of writing direction"},
		{"make with a line separator", func(r *Read) { r.Make = "a\u2028b" }, "make", "must not hold control characters, line breaks or marks of writing direction"},
		{"make with a C1 control", func(r *Read) { r.Make = "a\u0085b" }, "make", "must not hold control characters, line breaks or marks of writing direction"},
		{"country nobody knows", func(r *Read) { r.Country = "\x00Middle-earth" + strings.Repeat("!", 500) }, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := fullRead()
			tt.change(&r)
			err := r.Check()
			if tt.field == "" {
				if err != nil {
					t.Errorf("got error %v", err)
				}
				return
			}
			f, _ := errors.AsType[*FieldError](err)
			if f == nil || f.Field != tt.field || f.Reason != tt.reason {
				t.Errorf("got error %v, want %s: %s", err, tt.field, tt.reason)
			}
		})
	}
}

func TestKey(t *testing.T) {
	for _, tt := range []struct {
		plate string
		want  string
		err   error
	}{
		{"ab-123-cd", "AB123CD", nil},
		{"", "", plate.ErrSentinel},
		{"unknown", "", plate.ErrSentinel},
		{"NO PLATE", "", plate.ErrSentinel},
		{"000000", "", plate.ErrSentinel},
	} {
		r := Read{Plate: tt.plate}
		if got, err := r.Key(); got.String() != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Key of %q = %q, %v; want %q, %v", tt.plate, got.String(), err, tt.want, tt.err)
		}
	}
	r := Read{Plate: "AB?23CD"}
	if _, err := r.Key(); err == nil || errors.Is(err, plate.ErrSentinel) {
		t.Errorf("Key of a plate with ? = %v, want an error of its own", err)
	}
}

func TestCountryCode(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "FR": "FR", "fra": "FR", "F": "FR", "eu-fr": "FR", "D": "DE", "Middle-earth": "", "\xff": "",
	} {
		r := Read{Country: text}
		if got := r.CountryCode().String(); got != want {
			t.Errorf("CountryCode of %q = %q, want %q", text, got, want)
		}
	}
}

// TestStableIDNeverChanges pins ids: one that changed would make every repeat of
// an older read a new one.
func TestStableIDNeverChanges(t *testing.T) {
	for _, tt := range []struct {
		read Read
		want string
	}{
		{Read{Sensor: "A7-118-2", TS: 1773470467412, Plate: "AB123CD"}, "v246jfeb3pdhrc2gb2oauxsjgi"},
		{Read{Sensor: "A7-118-2", TS: 1773470467412, Plate: "ab 123-cd", Country: "FR", Conf: 0.5, Lane: 3}, "v246jfeb3pdhrc2gb2oauxsjgi"},
		{Read{Sensor: "A7-118-2", TS: 1773470467412, Plate: "unknown"}, "ns3plsrhehfxmbwlv6nuqp4bre"},
	} {
		if got := StableID(&tt.read); got != tt.want {
			t.Errorf("StableID(%s, %d, %q) = %s, want %s", tt.read.Sensor, tt.read.TS, tt.read.Plate, got, tt.want)
		}
	}
}

// TestStableIDTellsReadsApart draws pairs of reads that are close to each other,
// such as ones whose fields join to the same text, and compares them field by field.
func TestStableIDTellsReadsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) Read {
			return Read{
				Sensor: rapid.SampledFrom([]string{"A", "A1", "A1A", "A1A1", "1"}).Draw(t, label+" sensor"),
				TS:     rapid.SampledFrom([]int64{1, 0x31, 0x3131, 1 << 40}).Draw(t, label+" ts"),
				Plate:  rapid.SampledFrom([]string{"", "A1", "A-1", "1A1", "1A1A", "A1A1", "A1?", "A1?A", "\x01A1"}).Draw(t, label+" plate"),
			}
		}
		a, b := draw("a"), draw("b")
		norm := func(r Read) string {
			if key, err := r.Key(); err == nil {
				return "key " + key.String()
			}
			return "raw " + r.Plate
		}
		equal := a.Sensor == b.Sensor && a.TS == b.TS && norm(a) == norm(b)
		if idA, idB := StableID(&a), StableID(&b); (idA == idB) != equal {
			t.Fatalf("ids %s and %s of %q %d %q and %q %d %q", idA, idB, a.Sensor, a.TS, a.Plate, b.Sensor, b.TS, b.Plate)
		}
	})
}

func TestEnsureID(t *testing.T) {
	r := Read{Sensor: "s", TS: 1, Plate: "AB123CD"}
	r.EnsureID()
	if r.ID != StableID(&r) || r.Check() != nil {
		t.Errorf("EnsureID set %q, want %q, in order", r.ID, StableID(&r))
	}
	r.ID = "mine"
	if r.EnsureID(); r.ID != "mine" {
		t.Errorf("EnsureID replaced an id by %q", r.ID)
	}
}

// canaries are plates that must not come out of anything but a Read.
// They share a beginning that no word of this package has.
var canaries = []string{"QZQ1", "QZQ-12-AB", "qzq?3", "QZQ\xff4", "QZQQZQQZQQZQQZQ5"}

// TestPlatesStayInside makes every kind of error with canary plates in every
// place that takes text, and prints reads in every way of fmt.
func TestPlatesStayInside(t *testing.T) {
	said := func(what, text string) {
		t.Helper()
		if upper := strings.ToUpper(text); strings.Contains(upper, "QZQ") || strings.Contains(upper, fmt.Sprintf("%X", "QZQ")) {
			t.Errorf("%s says %q", what, text)
		}
	}
	for _, c := range canaries {
		full := fullRead()
		full.Plate, full.Candidates = c, []Candidate{{Plate: c}}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			for _, v := range []any{full, &full, []Read{full}, struct{ R Read }{full}, full.Candidates, full.Candidates[0]} {
				said("a read printed with "+verb, fmt.Sprintf(verb, v))
			}
		}
		for _, value := range []string{
			`{"plate":"%s"`, `{"plate":"%s","plate":1}`, `{"%s":1,"%s":2}`, `{"%s":}`, `{"plate":"%s"}%s`, `{"ts":"%s"}`,
			`{"PLATE":"%s"}`, `{"conf":%s}`, `{"retransmitted":"%s"}`, `{"%s":` + strings.Repeat("[", 99), `{"candidates":{"%s":1}}`,
			`{"candidates":["%s"]}`, `{"image":{"offset":"%s"}}`, "\x1a\x05%s", "%s", "\x1a%s", "\x09%s",
		} {
			value = strings.ReplaceAll(value, "%s", c)
			var r Read
			if err := Decode([]byte(value), &r); err != nil {
				said("Decode", err.Error())
			}
			for _, contentType := range []string{"application/json", "application/x-ndjson", "application/x-protobuf", c} {
				_, rejected, err := ParseBatch(contentType, strings.NewReader(value), Limits{})
				said("ParseBatch", fmt.Sprint(rejected, err))
				_, rejected, err = ParseBatch(contentType, strings.NewReader("["+value+"]"), Limits{})
				said("ParseBatch", fmt.Sprint(rejected, err))
			}
		}
		broken := func(change func(r *Read)) {
			r := fullRead()
			change(&r)
			if err := r.Check(); err != nil {
				said("Check", err.Error())
			}
			if _, err := r.Key(); err != nil {
				said("Key", err.Error())
			}
			if _, err := AppendProto(nil, &r); err != nil {
				said("AppendProto", err.Error())
			}
			g, _ := newGateway(t)
			res, err := g.Accept(t.Context(), []Read{r}, AcceptOptions{})
			said("Accept", fmt.Sprint(res.Rejected, err))
		}
		long := strings.Repeat(c, 70)
		for _, text := range []string{c, long, c + "\n", c + "\u202e", c + " "} {
			broken(func(r *Read) { r.Plate = text })
			broken(func(r *Read) { r.Sensor = text })
			broken(func(r *Read) { r.ID = text })
			broken(func(r *Read) { r.Passage = text })
			broken(func(r *Read) { r.Country = text })
			broken(func(r *Read) { r.Make = text })
			broken(func(r *Read) { r.Direction = text })
			broken(func(r *Read) { r.Candidates[0].Plate = text })
		}
	}
	if got, want := fullRead().String(), `read of sensor "A7-118-2" at 1773470467412`; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
}

func TestAppendCharConf(t *testing.T) {
	for _, tt := range []struct {
		name, plate string
		conf, want  []float32
	}{
		{"none", "AB-123", nil, nil},
		{"one for each letter and digit", "AB-123", []float32{.1, .2, .3, .4, .5}, []float32{.1, .2, .3, .4, .5}},
		{"one for each character", "AB-123", []float32{.1, .2, .9, .3, .4, .5}, []float32{.1, .2, .3, .4, .5}},
		{"neither", "AB-123", []float32{.1, .2}, nil},
		{"letters of two bytes", "ÄB 1", []float32{.1, .2, .9, .3}, []float32{.1, .2, .3}},
	} {
		r := Read{Plate: tt.plate, CharConf: tt.conf}
		if got := r.AppendCharConf(nil); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
