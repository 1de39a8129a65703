package alert

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"vigie/sensors"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var noon = time.Date(2026, time.March, 14, 6, 41, 8, 0, time.UTC)

// hit is an ordinary hit, fresh maps and slices each time.
func hit() Input {
	fr, _ := plate.ParseCountry("FR")
	return Input{
		List: &watchlist.List{
			ID: "stolen", Name: "Véhicules volés", Owner: "DNPJ", Queue: "bri",
			DefaultAction: watchlist.ActionIntercept, DefaultPriority: watchlist.PriorityHigh, Version: 10,
		},
		Entry: &watchlist.Entry{
			ID: "b5qk4v7h2n3m6j7d5y2xw4e3ra", List: "stolen", Plate: "AB-123-CD", Country: fr,
			Action: watchlist.ActionIntercept, Priority: watchlist.PriorityCritical, Reason: "vol à main armée",
			CaseRef: "2026/00417", Vehicle: "Peugeot 308 grise", Safety: "occupants armés", Version: 4711,
		},
		Read: &sensors.Read{
			ID: "01JPA0K9Q2Y6T4M8V1R7D3X5ZB", Sensor: "A7-118-2", Plate: "AB 123 C0", Country: "FR",
			TS: noon.UnixMilli() - 588, Conf: 0.75, Passage: "118-2-90417",
			Candidates: []sensors.Candidate{{Plate: "AB123CD", Conf: 0.5}},
			CharConf:   []float32{1, 1, 0.75, 1, 1, 1, 0.5},
			Image:      &sensors.Image{Partition: 3, Offset: 88123},
			Lane:       2, Direction: "S", Speed: 118, Make: "Peugeot", Color: "grey", Received: noon.UnixMilli() - 540,
		},
		Sensor: &control.Sensor{
			ID: "A7-118-2", Name: "A7 PR 118 sens 2", Lat: 44.5, Lon: 4.75,
			Road: "A7", Direction: "Marseille", Zones: []string{"zone-sud", "dpt-26"},
		},
		Evidence: Evidence{
			Kind: "ocr", Country: "same", Grade: "medium", Score: 0.875, Syntax: "possible",
			Read: "AB123C0", Entry: "AB123CD", Differs: []int{6}, Version: 4800,
		},
		Now: noon, MaxAge: 10 * time.Minute,
	}
}

// TestGolden pins the JSON that patrols, scripts and the console read.
func TestGolden(t *testing.T) {
	a := New(hit())
	for name, v := range map[string]any{
		"alert.json": a,
		"event.json": &Event{
			AlertID: a.ID, Step: 3, State: StateRejected, Queue: a.Queue, At: noon.UnixMilli() + 60_000,
			Actor: "bri-12", Outcome: OutcomeMisread, Note: "0 lu pour D",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := json.MarshalIndent(v, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("%s has changed; if that is meant, run go test -update\n got %s\nwant %s", file, got, want)
			}
			back := reflect.New(reflect.TypeOf(v).Elem())
			if err := json.Unmarshal(got, back.Interface()); err != nil {
				t.Fatalf("read it back: %v", err)
			}
			if !reflect.DeepEqual(back.Interface(), v) {
				t.Errorf("read back %#v\nwant %#v", back.Interface(), v)
			}
		})
	}
}

func TestStopAndLate(t *testing.T) {
	ms := func(d time.Duration) int64 { return noon.Add(d).UnixMilli() }
	tests := []struct {
		name       string
		change     func(*Input)
		stop, late bool
	}{
		{"an ordinary hit", func(*Input) {}, true, false},
		{"inquiry", func(in *Input) { in.Entry.Action = watchlist.ActionInquiry }, true, false},
		{"specific", func(in *Input) { in.Entry.Action = watchlist.ActionSpecific }, true, false},
		{"inform", func(in *Input) { in.Entry.Action = watchlist.ActionInform }, false, false},
		{"discreet", func(in *Input) { in.Entry.Action = watchlist.ActionDiscreet }, false, false},
		{"unknown country", func(in *Input) { in.Evidence.Country = "unknown" }, true, false},
		{"another country", func(in *Input) { in.Evidence.Country = "different" }, false, false},
		{"sent again", func(in *Input) { in.Read.Retransmitted = true }, false, true},
		{"sent again, no age limit", func(in *Input) { in.Read.Retransmitted, in.MaxAge = true, 0 }, false, true},
		{"at the age limit", func(in *Input) { in.Read.TS = ms(-10 * time.Minute) }, true, false},
		{"past the age limit", func(in *Input) { in.Read.TS = ms(-10*time.Minute) - 1 }, false, true},
		{"old, no age limit", func(in *Input) { in.Read.TS, in.MaxAge = ms(-24*time.Hour), 0 }, true, false},
		{"old, negative age limit", func(in *Input) { in.Read.TS, in.MaxAge = ms(-24*time.Hour), -1 }, true, false},
		{"from the future", func(in *Input) { in.Read.TS = ms(time.Hour) }, true, false},
		{"from the far future", func(in *Input) { in.Read.TS = math.MaxInt64 }, true, false},
		{"from the far past", func(in *Input) { in.Read.TS = math.MinInt64 }, false, true},
		{"sensor clock at 1970", func(in *Input) { in.Read.TS = 0 }, false, true},
		{"fast sensor clock, long in the spool", func(in *Input) {
			in.Read.TS, in.Read.Received = ms(time.Hour), ms(-11*time.Minute)
		}, false, true},
		{"no gateway on the way", func(in *Input) { in.Read.Received = 0 }, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := hit()
			tt.change(&in)
			if a := New(in); a.Stop != tt.stop || a.Late != tt.late {
				t.Errorf("stop %v late %v, want %v %v", a.Stop, a.Late, tt.stop, tt.late)
			}
		})
	}
}

func TestNewDefaults(t *testing.T) {
	in := hit()
	in.List.Queue, in.Entry.Priority, in.Sensor = "", 0, nil
	a := New(in)
	if a.Queue != watchlist.DefaultQueue || a.Priority != watchlist.PriorityHigh || a.Place != nil {
		t.Errorf("queue %q priority %v place %v", a.Queue, a.Priority, a.Place)
	}
	in.List.DefaultPriority = 0
	if a := New(in); a.Priority != watchlist.PriorityMedium {
		t.Errorf("priority %v, want medium", a.Priority)
	}
}

// TestWhereAMobileSensorWas: a sensor that drives tells where, and only that one is believed.
func TestWhereAMobileSensorWas(t *testing.T) {
	for kind, want := range map[control.SensorKind]float64{"": 44.5, control.SensorFixed: 44.5, control.SensorTransportable: 44.5, control.SensorMobile: 48.5} {
		in := hit()
		in.Sensor.Kind, in.Read.Lat, in.Read.Lon = kind, 48.5, 2.25
		if a := New(in); a.Place.Lat != want {
			t.Errorf("kind %q: at %v, want %v", kind, a.Place.Lat, want)
		}
		in = hit()
		in.Sensor.Kind = kind
		if a := New(in); a.Place.Lat != 44.5 || a.Place.Lon != 4.75 {
			t.Errorf("kind %q without a position of its own: at %v, %v", kind, a.Place.Lat, a.Place.Lon)
		}
	}
}

// TestNewShares fills a read with everything it can hold and looks for memory
// that the alert shares with it: reads live in buffers that are used again.
func TestNewShares(t *testing.T) {
	in := hit()
	in.Read = new(sensors.Read)
	fill(reflect.ValueOf(in.Read).Elem(), new(int))
	want := clonedByJSON(t, *in.Read)

	a := New(in)
	ours := map[unsafe.Pointer]string{}
	pointers(reflect.ValueOf(in.Read).Elem(), "Read", ours)
	pointers(reflect.ValueOf(in.Evidence.Differs), "Differs", ours)
	pointers(reflect.ValueOf(in.Sensor.Zones[:0]), "Zones", ours) // the array; its texts are never written
	theirs := map[unsafe.Pointer]string{}
	pointers(reflect.ValueOf(a).Elem(), "Alert", theirs)
	for p, where := range theirs {
		if from, shared := ours[p]; shared {
			t.Errorf("%s shares memory with %s", where, from)
		}
	}
	if !reflect.DeepEqual(a.Read, want) {
		t.Errorf("read %#v, want %#v", a.Read, want)
	}
}

func TestNewCleans(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	in := hit()
	in.Read.Plate, in.Read.Make = "AB\xff", "\xc3\x28"
	in.Read.Conf, in.Read.Speed, in.Read.CharConf = nan, inf, []float32{nan, 0.5}
	in.Read.Candidates = []sensors.Candidate{{Plate: "\xff", Conf: nan}}
	in.Evidence.Score = nan
	in.Sensor.Lat = math.NaN()
	a := New(in)
	if _, err := json.Marshal(a); err != nil {
		t.Errorf("JSON: %v", err)
	}
	if _, err := MarshalEvent(Hit(a)); err != nil {
		t.Errorf("Protobuf: %v", err)
	}
	if in.Read.CharConf[0] == 0 || in.Read.Candidates[0].Conf == 0 {
		t.Error("the read itself was changed")
	}
}

// TestID pins ids: a change would raise every alert of the last days again.
func TestID(t *testing.T) {
	passage := &sensors.Read{ID: "r1", Sensor: "s1", Passage: "p1"}
	single := &sensors.Read{ID: "r1", Sensor: "s1"}
	for name, got := range map[string][2]string{
		"passage": {ID(passage, "e1"), "qqrt3dw6ur7oghgxpy6lqqut4a"},
		"read":    {ID(single, "e1"), "5wgnhe2tgnze3yowt2owrnppoi"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: id %s, want %s", name, got[0], got[1])
		}
		if len(got[0]) != IDLen || strings.Trim(got[0], "abcdefghijklmnopqrstuvwxyz234567") != "" {
			t.Errorf("%s: id %q is not %d characters of lower-case base32", name, got[0], IDLen)
		}
	}
	again := &sensors.Read{ID: "r2", Sensor: "s1", Passage: "p1", Plate: "AB123CD"}
	if ID(again, "e1") != ID(passage, "e1") {
		t.Error("two reads of one passage make two alerts")
	}
	bare := sensors.Read{Sensor: "s1", Plate: "AB123CD", TS: 1}
	named := bare
	named.EnsureID()
	if ID(&bare, "e1") != ID(&named, "e1") {
		t.Error("a read is another one once it has its stable id")
	}
	// Moving a character over any boundary, or a field to its neighbour, makes another id.
	seen := map[string]string{}
	for _, in := range []struct{ id, sensor, passage, entry string }{
		{"r1", "s1", "p1", "e1"}, {"r1", "s2", "p1", "e1"}, {"r1", "s1", "p2", "e1"}, {"r1", "s1", "p1", "e2"},
		{"r1", "s1p", "1", "e1"}, {"r1", "s", "1p1", "e1"}, {"r1", "s1", "p1e", "1"}, {"r1", "s1", "p", "1e1"},
		{"r1", "s1", "", "e1"}, {"r1e", "s1", "", "1"}, {"r", "s1", "", "1e1"}, {"", "s1", "", "r1e1"},
		{"s1", "p1", "", "e1"}, {"r1", "", "s1", "p1e1"}, {"r1", "s1\x00", "p1", "e1"}, {"r1", "s1", "\x00p1", "e1"},
	} {
		id := ID(&sensors.Read{ID: in.id, Sensor: in.sensor, Passage: in.passage}, in.entry)
		if other, dup := seen[id]; dup {
			t.Errorf("%+v has the id of %s", in, other)
		}
		seen[id] = fmt.Sprintf("%+v", in)
	}
}

// TestNoPlateUnderFmt prints everything that holds a plate in every usual way.
func TestNoPlateUnderFmt(t *testing.T) {
	a := New(hit())
	e := Hit(a)
	e.Note = "AB-123-CD"
	for _, v := range []any{a, *a, e, *e, a.Entry, a.Match, []*Alert{a}, []Alert{*a}, map[string]Alert{"x": *a}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			got := fmt.Sprintf(verb, v)
			for _, secret := range []string{"AB123", "AB-123", "AB 123"} {
				if strings.Contains(got, secret) {
					t.Errorf("%s of %T shows the plate: %s", verb, v, got)
				}
			}
		}
	}
}

// TestDigest changes one thing at a time: what a patrol sees makes another digest, and what
// it does not see makes none.
func TestDigest(t *testing.T) {
	base := New(hit()).Digest()
	for name, change := range map[string]func(*Alert){
		"plate": func(a *Alert) { a.Match.Read = "AB124CD" }, "score": func(a *Alert) { a.Match.Score /= 2 },
		"confidence": func(a *Alert) { a.Read.Conf /= 2 }, "country": func(a *Alert) { a.Read.Country = "IT" },
		"stop": func(a *Alert) { a.Stop = !a.Stop }, "entry": func(a *Alert) { a.Entry.Safety += "!" },
		"picture": func(a *Alert) { a.Read.Image = &sensors.Image{Offset: 77} },
	} {
		a := New(hit())
		if change(a); a.Digest() == base || len(a.Digest()) != IDLen {
			t.Errorf("%s: digest %q, before %q", name, a.Digest(), base)
		}
	}
	a := New(hit())
	a.Created, a.Match.Version, a.Read.ID, a.Read.Revision, a.Read.TS = 1, a.Match.Version+1, "other", 7, 2
	if a.Digest() != base {
		t.Error("the digest depends on what no patrol sees")
	}
}

func clonedByJSON[T any](t *testing.T, v T) (out T) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// fill gives every field below v a value of its own that is not zero.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text ", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(float64(*n))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Uint8, reflect.Uint16: // a word or a country
		switch v.Interface().(type) {
		case plate.Country:
			fr, _ := plate.ParseCountry("FR")
			v.SetUint(uint64(fr))
		default:
			v.SetUint(2)
		}
	default:
		panic("fill: " + v.Type().String())
	}
}

// pointers gathers where the texts, slices and pointers below v keep their data.
func pointers(v reflect.Value, path string, into map[unsafe.Pointer]string) {
	switch v.Kind() {
	case reflect.String:
		if s := v.String(); s != "" {
			into[unsafe.Pointer(unsafe.StringData(s))] = path
		}
	case reflect.Pointer:
		if !v.IsNil() {
			into[v.UnsafePointer()] = path
			pointers(v.Elem(), path, into)
		}
	case reflect.Slice:
		if v.Cap() > 0 {
			into[v.UnsafePointer()] = path
		}
		for i := range v.Len() {
			pointers(v.Index(i), fmt.Sprintf("%s[%d]", path, i), into)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			pointers(v.Field(i), path+"."+v.Type().Field(i).Name, into)
		}
	}
}
