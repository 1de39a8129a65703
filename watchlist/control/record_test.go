package control_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/control/controlpb"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file of testdata, as indented JSON.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, got, "", "  "); err != nil {
		t.Fatal(err)
	}
	b.WriteByte('\n')
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s differs (go test -update rewrites it)\n got: %s\nwant: %s", path, b.Bytes(), want)
	}
}

func full() (*watchlist.List, *watchlist.Entry, *control.Sensor) {
	l := list("stolen", 7)
	l.Purpose, l.Tolerance, l.Threshold, l.DefaultPriority = "vols", watchlist.ToleranceOCR, 0.35, watchlist.PriorityHigh
	l.Sensors, l.Zones = []string{"A7-118-2"}, []string{"59", "62"}
	e, errs := watchlist.NewEntry(l, watchlist.EntryInput{
		Plate: "ab 123 cd", Country: "I", Reason: "vol", Action: "discreet", Priority: "critical", CaseRef: "2026/417",
		Requester: "BRI", Vehicle: "Fiat", Safety: "armé", ValidFrom: now.AddDate(0, -1, 0), ValidUntil: now.AddDate(0, 1, 0),
	}, now)
	if errs != nil {
		panic(errs[0])
	}
	return l, e, &control.Sensor{
		ID: "A7-118-2", Name: "A7 PK 118", Lat: 45.1, Lon: 4.8, Road: "A7", Direction: "sud", Zones: []string{"26"},
		Owner: "DIR Centre-Est", Kind: control.SensorTransportable, Format: "hikvision", Clock: "local", Zone: "Europe/Paris",
		Scale: "percent", Country: "FR", Lists: []string{"stolen"}, Purposes: []string{"vols"},
	}
}

// TestRecordsRoundTrip: what is written is what a State holds, at the offset.
func TestRecordsRoundTrip(t *testing.T) {
	l, e, sn := full()
	s := control.NewState()
	for _, rec := range []control.Record{listRec(l), entryRec(e), sensorRec(sn)} {
		apply(t, s, rec)
	}
	l.Version, e.Version, sn.Version = 0, 1, 2
	if got := s.List("stolen"); !reflect.DeepEqual(got, l) {
		t.Errorf("list is %#v, want %#v", *got, *l)
	}
	if got := s.Entry("stolen", e.ID); !reflect.DeepEqual(got, e) {
		t.Errorf("entry differs from the one written")
	}
	if got := s.Sensor(sn.ID); !reflect.DeepEqual(got, sn) {
		t.Errorf("sensor is %+v, want %+v", got, sn)
	}
}

// TestPatternsRoundTrip: a pattern is read back as one, from whatever list.
func TestPatternsRoundTrip(t *testing.T) {
	l := list("partial", 7)
	l.Tolerance = watchlist.TolerancePattern
	e, errs := watchlist.NewEntry(l, watchlist.EntryInput{
		Plate: "ab-1** ?cd", Reason: "vol", CaseRef: "1", ValidUntil: now.AddDate(0, 1, 0),
	}, now)
	if errs != nil {
		t.Fatal(errs)
	}
	l.Tolerance = watchlist.ToleranceExact // the entry is decoded without its list
	s := control.NewState()
	apply(t, s, listRec(l))
	apply(t, s, entryRec(e))
	e.Version = 1
	if got := s.Entry(l.ID, e.ID); !reflect.DeepEqual(got, e) || got.Pattern.Text() != "AB1?*CD" || got.Key != 0 {
		t.Error("entry differs from the one written")
	}
	for name, change := range map[string]func(*watchlist.Entry){
		"another pattern": func(e *watchlist.Entry) { e.Pattern, _ = watchlist.ParsePattern("AB*") },
		"none":            func(e *watchlist.Entry) { e.Pattern = watchlist.Pattern{} },
		"a key too":       func(e *watchlist.Entry) { e.Key = 1 },
		"loose":           func(e *watchlist.Entry) { e.Plate = "A*" },
	} {
		c := *e
		change(&c)
		if _, err := control.EntryRecord(&c, "op", now); err == nil || strings.Contains(err.Error(), "AB") {
			t.Errorf("%s: error %v, want one without the pattern", name, err)
		}
	}
}

func TestGolden(t *testing.T) {
	l, e, sn := full()
	for name, rec := range map[string]control.Record{"list": listRec(l), "entry": entryRec(e), "sensor": sensorRec(sn)} {
		var c controlpb.Control
		if err := proto.Unmarshal(rec.Value, &c); err != nil {
			t.Fatal(err)
		}
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&c)
		if err != nil {
			t.Fatal(err)
		}
		// The form of protojson is not stable in its spacing, which golden redoes.
		golden(t, "record_"+name+".json", text)
		if want := map[string]string{"list": "list/stolen", "entry": "entry/stolen/" + e.ID, "sensor": "sensor/A7-118-2"}[name]; string(rec.Key) != want {
			t.Errorf("key %q, want %q", rec.Key, want)
		}
	}
	sn.Version = 17
	text, err := json.Marshal(sn)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "sensor.json", text)
	text, err = json.Marshal(control.Stats{Version: 9, Lists: 1, Entries: 2, Held: 3, Sensors: 4, Records: 10, Unknown: 1, Unreadable: 1})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "stats.json", text)
}

func TestWithdrawRecords(t *testing.T) {
	for want, rec := range map[string]control.Record{
		"list/a": control.WithdrawList("a"), "entry/a/b": control.WithdrawEntry("a", "b"), "sensor/A/1": control.WithdrawSensor("A/1"),
	} {
		if string(rec.Key) != want || rec.Value != nil {
			t.Errorf("record %q with %d bytes, want %q with none", rec.Key, len(rec.Value), want)
		}
	}
}

// TestNothingUnreadableIsWritten: the writer refuses what Apply would.
func TestNothingUnreadableIsWritten(t *testing.T) {
	l, e, sn := full()
	writeList := func(change func(*watchlist.List)) error {
		c := *l
		change(&c)
		_, err := control.ListRecord(&c, "op", now)
		return err
	}
	writeEntry := func(change func(*watchlist.Entry)) error {
		c := *e
		change(&c)
		_, err := control.EntryRecord(&c, "op", now)
		return err
	}
	writeSensor := func(change func(*control.Sensor)) error {
		c := *sn
		change(&c)
		_, err := control.SensorRecord(&c, "op", now)
		return err
	}
	_, noActor := control.EntryRecord(e, " ", now)
	_, badActor := control.EntryRecord(e, "op\n", now)
	tests := []struct {
		name string
		err  error
		want string // part of the error
	}{
		{"list id", writeList(func(l *watchlist.List) { l.ID = "A" }), "id:"},
		{"list without salt", writeList(func(l *watchlist.List) { l.Salt = nil }), "salt:"},
		{"list, two errors", writeList(func(l *watchlist.List) { l.Name, l.Owner = "", "" }), "owner:"},
		{"entry id", writeEntry(func(e *watchlist.Entry) { e.ID = "A/B" }), "malformed id"},
		{"entry list", writeEntry(func(e *watchlist.Entry) { e.List = "" }), "malformed id"},
		{"entry plate", writeEntry(func(e *watchlist.Entry) { e.Plate = "?" }), "unreadable"},
		{"entry key", writeEntry(func(e *watchlist.Entry) { e.Key++ }), "NewEntry"},
		{"entry action", writeEntry(func(e *watchlist.Entry) { e.Action = 9 }), "unreadable"},
		{"entry priority", writeEntry(func(e *watchlist.Entry) { e.Priority = 0 }), "NewEntry"},
		{"entry times", writeEntry(func(e *watchlist.Entry) { e.ValidFrom = e.ValidFrom.Add(1) }), "NewEntry"},
		{"entry text", writeEntry(func(e *watchlist.Entry) { e.Reason = "\xff" }), "UTF-8"},
		{"sensor id", writeSensor(func(s *control.Sensor) { s.ID = "" }), "id:"},
		{"sensor place", writeSensor(func(s *control.Sensor) { s.Lat = math.NaN() }), "lat:"},
		{"no actor", noActor, "actor: is mandatory"},
		{"bad actor", badActor, "actor:"},
	}
	for _, tt := range tests {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) || strings.Contains(tt.err.Error(), "123") {
			t.Errorf("%s: error %v, want one with %q and without the plate", tt.name, tt.err, tt.want)
		}
	}
	var fe watchlist.FieldError
	if !errors.As(tests[0].err, &fe) || fe.Field != "id" {
		t.Errorf("%v is no FieldError", tests[0].err)
	}
}

// TestTheLongestListFits: whatever Validate accepts can be written.
func TestTheLongestListFits(t *testing.T) {
	l := list("stolen", 1)
	wide := func(n int) string { return strings.Repeat("\U0001F697", n) }
	l.Name, l.Owner, l.LegalBasis, l.Purpose = wide(watchlist.MaxShortText), wide(watchlist.MaxShortText), wide(watchlist.MaxLongText), wide(watchlist.MaxLongText)
	for range watchlist.MaxSensors {
		l.Sensors = append(l.Sensors, wide(watchlist.MaxNameText))
	}
	for range watchlist.MaxZones {
		l.Zones = append(l.Zones, wide(watchlist.MaxNameText))
	}
	rec, err := control.ListRecord(l, "op", now)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(rec.Value))
}

func TestSensorValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*control.Sensor)
		want   string
	}{
		{"good", func(*control.Sensor) {}, ""},
		{"least", func(s *control.Sensor) { *s = control.Sensor{ID: "x"} }, ""},
		{"poles", func(s *control.Sensor) { s.Lat, s.Lon = -90, 180 }, ""},
		{"empty", func(s *control.Sensor) { *s = control.Sensor{} }, "id"},
		{"white space", func(s *control.Sensor) { s.ID = "x " }, "id"},
		{"swapped", func(s *control.Sensor) { s.Lat, s.Lon = 104.8, 45 }, "lat"},
		{"not a number", func(s *control.Sensor) { s.Lat, s.Lon = math.NaN(), math.Inf(1) }, "lat lon"},
		{"texts", func(s *control.Sensor) { s.Name, s.Road, s.Direction = "\x00", "\u202e", strings.Repeat("x", 101) }, "name road direction"},
		{"zones", func(s *control.Sensor) { s.Zones = []string{"a", " ", "\n"} }, "zones zones"},
		{"too many zones", func(s *control.Sensor) { s.Zones = make([]string, watchlist.MaxZones+1) }, "zones"},
		{"taken", func(s *control.Sensor) { s.ID = "health" }, "id"},
		{"words", func(s *control.Sensor) { s.Kind, s.Clock, s.Scale = "flying", "sun", "Percent" }, "kind clock scale"},
		{"format", func(s *control.Sensor) { s.Format = "Hik Vision" }, "format"},
		{"time zone", func(s *control.Sensor) { s.Zone = "Europe/Lutece" }, "time_zone"},
		{"time zone of the machine", func(s *control.Sensor) { s.Zone = "Local" }, "time_zone"},
		{"local, but where", func(s *control.Sensor) { s.Zone = "" }, "time_zone"},
		{"country", func(s *control.Sensor) { s.Country = "Gondor" }, "country"},
		{"owner", func(s *control.Sensor) { s.Owner = "\n" }, "owner"},
		{"lists", func(s *control.Sensor) { s.Lists = []string{"ok", "No List", ""} }, "lists lists"},
		{"too many lists", func(s *control.Sensor) { s.Lists = make([]string, control.MaxSensorLists+1) }, "lists"},
		{"purposes", func(s *control.Sensor) { s.Purposes = []string{"\u202e", " "} }, "purposes purposes"},
	}
	for _, tt := range tests {
		_, _, sn := full()
		tt.change(sn)
		var got []string
		for _, e := range sn.Validate() {
			got = append(got, e.Field)
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: errors in %q, want %q", tt.name, s, tt.want)
		}
	}
}

// TestSensorFromBefore: a record of the time before owner and the fields after it is a
// sensor that is limited to nothing; one of a newer version keeps its words.
func TestSensorFromBefore(t *testing.T) {
	value, err := proto.Marshal(&controlpb.Control{Of: &controlpb.Control_Sensor{Sensor: &controlpb.Sensor{Id: "s", Zones: []string{"z"}}}})
	if err != nil {
		t.Fatal(err)
	}
	s := control.NewState()
	apply(t, s, control.Record{Offset: 0, Key: []byte("sensor/s"), Value: value})
	if got, want := s.Sensor("s"), (&control.Sensor{ID: "s", Zones: []string{"z"}}); !reflect.DeepEqual(got, want) || !got.Serves(list("any", 1)) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	value, err = proto.Marshal(&controlpb.Control{Of: &controlpb.Control_Sensor{Sensor: &controlpb.Sensor{Id: "s", Kind: "flying", Lists: []string{"a"}}}})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, control.Record{Offset: 1, Key: []byte("sensor/s"), Value: value})
	if got := s.Sensor("s"); got == nil || got.Kind != "flying" || got.Serves(list("b", 1)) {
		t.Errorf("a sensor of a new kind is %+v, want it with its limit", got)
	}
}

func TestSensorServes(t *testing.T) {
	vols, other, none := list("stolen", 1), list("other", 2), list("none", 3)
	vols.Purpose, other.Purpose = "Vols de véhicules", "fraude"
	for _, tt := range []struct {
		name   string
		sensor *control.Sensor
		want   string
	}{
		{"not registered", nil, "stolen other none"},
		{"not limited", &control.Sensor{}, "stolen other none"},
		{"lists", &control.Sensor{Lists: []string{"none", "other"}}, "other none"},
		{"a list that is not there", &control.Sensor{Lists: []string{"gone"}}, ""},
		{"purposes, however written", &control.Sensor{Purposes: []string{"x", " VOLS de Véhicules"}}, "stolen"},
		{"both hold", &control.Sensor{Lists: []string{"stolen", "none"}, Purposes: []string{"fraude"}}, ""},
	} {
		var got []string
		for _, l := range []*watchlist.List{vols, other, none} {
			if tt.sensor.Serves(l) {
				got = append(got, l.ID)
			}
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: serves %q, want %q", tt.name, s, tt.want)
		}
	}
}

func TestSensorEqual(t *testing.T) {
	_, _, a := full()
	b := *a
	b.Version = 9
	if !a.Equal(&b) {
		t.Error("another version makes a difference")
	}
	// Every field but Version does.
	v := reflect.ValueOf(&b).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		if v.Type().Field(i).Name == "Version" {
			continue
		}
		old := reflect.ValueOf(f.Interface())
		f.SetZero()
		if a.Equal(&b) {
			t.Errorf("%s makes no difference", v.Type().Field(i).Name)
		}
		f.Set(old)
	}
}

func ExampleEntryRecord() {
	l := list("stolen", 1)
	e, _ := watchlist.NewEntry(l, watchlist.EntryInput{
		Plate: "AB-123-CD", Country: "FR", Reason: "stolen", CaseRef: "2026/417", ValidUntil: now.AddDate(0, 1, 0),
	}, now)
	rec, err := control.EntryRecord(e, "token-of-operator-7", now)
	fmt.Println(string(rec.Key), err)
	// Output: entry/stolen/7lemvvowyskvvpk7qftwlq6a3e <nil>
}
