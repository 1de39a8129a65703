package control_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"vigie/watchlist"
	"vigie/watchlist/control"
)

// registry is what a plan is compared with.
func registry(sensors ...control.Sensor) func(string) *control.Sensor {
	return func(id string) *control.Sensor {
		for i := range sensors {
			if sensors[i].ID == id {
				return &sensors[i]
			}
		}
		return nil
	}
}

func TestReadSensors(t *testing.T) {
	want := control.Sensor{
		ID: "A7-118-2", Name: "A7 PK 118", Lat: 45.1, Lon: 4.8, Road: "A7", Direction: "sud", Zones: []string{"26", "07"},
		Owner: "Préfecture", Kind: "fixed", Format: "hikvision", Clock: "local", Zone: "Europe/Paris", Scale: "percent",
		Country: "FR", Lists: []string{"stolen"}, Purposes: []string{"vols, recel"},
	}
	for name, file := range map[string]string{
		"English": "id,name,lat,lon,road,direction,zones,owner,kind,format,clock,time_zone,scale,country,lists,purposes\n" +
			"A7-118-2,A7 PK 118,45.1,4.8,A7,sud,26|07,Préfecture,fixed,hikvision,local,Europe/Paris,percent,F,stolen,\"vols, recel\"\n",
		"French, another order": "\xef\xbb\xbfNom;Identifiant;Latitude;Longitude;Route;Sens;Zone;Service;Type;Format;Horloge;Fuseau horaire;Échelle;Pays;Listes;Finalités\r\n" +
			";;;\r\n" +
			"A7 PK 118; A7-118-2 ;45,1;4,8;A7;sud;26 | 07;Préfecture;fixed;hikvision;local;Europe/Paris;percent;FR;stolen;vols, recel\r\n",
		"Windows-1252": "id\tname\tlat\tlon\troad\tdirection\tzones\towner\tkind\tformat\tclock\ttime_zone\tscale\tcountry\tlists\tpurposes\n" +
			"A7-118-2\tA7 PK 118\t45.1\t4.8\tA7\tsud\t26|07\tPr\xe9fecture\tfixed\thikvision\tlocal\tEurope/Paris\tpercent\tFR\tstolen\tvols, recel",
	} {
		f, err := control.ReadSensors(strings.NewReader(file))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		added, changed, same := f.Plan(registry(), (*control.Sensor).Validate)
		if f.Rows != 1 || f.Errors != nil || len(changed)+same > 0 || len(added) != 1 || !reflect.DeepEqual(*added[0], want) {
			t.Errorf("%s: got %+v, errors %v, want %+v", name, added, f.Errors, want)
		}
	}
	// What the API shows is a file.
	shown, err := json.Marshal(map[string]any{"sensors": []control.Sensor{want, {ID: "new"}}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := control.ReadSensors(bytes.NewReader(shown))
	if err != nil {
		t.Fatal(err)
	}
	old := want
	old.Version = 9
	if added, changed, same := f.Plan(registry(old), (*control.Sensor).Validate); f.Errors != nil || len(added) != 1 || len(changed) != 0 || same != 1 {
		t.Errorf("the export: %d added, %d changed, %d the same, %v; want 1, 0, 1", len(added), len(changed), same, f.Errors)
	}
}

// TestSensorFileKeepsWhatItDoesNotSay: a file without the column of lists must not make a
// limited sensor one that may be used for anything.
func TestSensorFileKeepsWhatItDoesNotSay(t *testing.T) {
	old := control.Sensor{ID: "a", Name: "old", Lat: 1, Lon: 2, Zones: []string{"z"}, Lists: []string{"stolen"}, Version: 4}
	for file, want := range map[string]control.Sensor{
		"id,name\na,new":                      {ID: "a", Name: "new", Lat: 1, Lon: 2, Zones: []string{"z"}, Lists: []string{"stolen"}},
		"id,lat,zones\na,,":                   {ID: "a", Name: "old", Lat: 1, Lon: 2, Zones: []string{}, Lists: []string{"stolen"}},
		`[{"id":"a","lat":3}]`:                {ID: "a", Name: "old", Lat: 3, Lon: 2, Zones: []string{"z"}, Lists: []string{"stolen"}},
		`[{"id":"a","name":"b"}]`:             {ID: "a", Name: "b", Lat: 1, Lon: 2, Zones: []string{"z"}, Lists: []string{"stolen"}},
		`{"sensors":[{"id":"a","lists":[]}]}`: {ID: "a", Name: "old", Lat: 1, Lon: 2, Zones: []string{"z"}, Lists: []string{}},
	} {
		f, err := control.ReadSensors(strings.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		_, changed, _ := f.Plan(registry(old), (*control.Sensor).Validate)
		if f.Errors != nil || len(changed) != 1 || !reflect.DeepEqual(*changed[0], want) {
			t.Errorf("%q: got %+v, %v; want %+v", file, changed, f.Errors, want)
		}
	}
}

func TestSensorFileErrors(t *testing.T) {
	file := `id;lat;zones;clock;time_zone;lists
a;north;x;;;
;1;x;;;
b;91;"x;y";local;;No List

a;1;;;;
c;1;;;;;;more
d;"1"1;;;;
ok;48,5;x|y;;;
e;1;;sun;Europe/Lutece;
`
	f, err := control.ReadSensors(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	added, _, _ := f.Plan(registry(), (*control.Sensor).Validate)
	var got []string
	for _, e := range f.Errors {
		got = append(got, fmt.Sprintf("%d %s: %s", e.Row, e.Column, e.Reason))
	}
	want := []string{
		"2 lat: is not a number of degrees such as 48.8566",
		"3 id: is mandatory",
		"4 zones: has a comma or semicolon; put | between its members",
		"6 id: is the same as in row 2",
		"7 : has a value in column 8, which the header does not name",
		"8 : has a quote that is not closed, or text after one that is",
		"10 clock: must be one of: utc, local, gateway",
		"10 time_zone: is not a time zone; use an IANA name such as Europe/Paris",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if f.Rows != 8 || f.Rejected() != 7 || len(added) != 1 || added[0].ID != "ok" {
		t.Errorf("%d rows, %d rejected, %d good; want 8, 7, 1", f.Rows, f.Rejected(), len(added))
	}

	f, err = control.ReadSensors(strings.NewReader(`[{"id":"a","lat":"north"},{"id":"b","colour":"red"},7,{"name":"x"},{"id":"c","zones":["x",1]}]`))
	if err != nil {
		t.Fatal(err)
	}
	f.Plan(registry(), (*control.Sensor).Validate)
	got = nil
	for _, e := range f.Errors {
		got = append(got, fmt.Sprint(e.Row, " ", e.Column))
	}
	if s := strings.Join(got, ", "); s != "1 lat, 2 , 3 , 4 id, 5 zones" || f.Rows != 5 {
		t.Errorf("JSON: errors in %q of %d rows", s, f.Rows)
	}
}

func TestNoSensorFile(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"nothing":        {" \n", "is empty"},
		"no header":      {"A7-118-2;45.1;4.8\n", "no header"},
		"no id":          {"name,lat\nx,1", "column id is missing"},
		"unknown column": {"id,AB123CD\n", "column 2 is not known"},
		"twice":          {"id,lat,latitude\n", "columns 2 and 3 both hold lat"},
		"UTF-16":         {"\xff\xfei\x00d\x00", "UTF-16"},
		"a workbook":     {"PK\x03\x04xx", "a workbook"},
		"cut JSON":       {`[{"id":"a"`, "not JSON from byte"},
		"a name twice":   {`[{"id":"a","id":"b"}]`, "twice"},
		"other JSON":     {`{"lists":[]}`, "neither an array"},
		"a page":         {`{"sensors":[],"next":"x"}`, "one page of several"},
		"too long":       {"id\n" + strings.Repeat("a\n", control.MaxSensorFile/2), "longer than 16 MB"},
		"too many":       {"id\n" + strings.Repeat("a\n", control.MaxSensorRows+1), "at most 100000"},
	} {
		_, err := control.ReadSensors(strings.NewReader(tt.in))
		var file *watchlist.FileError
		if !errors.As(err, &file) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "AB123CD") {
			t.Errorf("%s: %v, want a FileError with %q", name, err, tt.want)
		}
	}
}

// FuzzReadSensors: every sensor that a file yields is good, and is read back the same from
// its JSON form.
func FuzzReadSensors(f *testing.F) {
	f.Add("id,name,lat,lon,zones\na,b,1,2,x|y\n")
	f.Add("id;lat\na;\"1\n2\";\nb;1,5\r\n")
	f.Add(`[{"id":"a","zones":["x"],"clock":"local","time_zone":"UTC"}]`)
	f.Add(`{"sensors":[{"id":"a","version":1}],"next":""}`)
	f.Fuzz(func(t *testing.T, in string) {
		file, err := control.ReadSensors(strings.NewReader(in))
		if err != nil {
			return
		}
		added, changed, same := file.Plan(registry(), (*control.Sensor).Validate)
		if len(added)+file.Rejected() != file.Rows || len(changed)+same > 0 {
			t.Fatalf("%d of %d rows are good and %d rejected", len(added), file.Rows, file.Rejected())
		}
		for _, s := range added {
			if errs := s.Validate(); errs != nil {
				t.Fatalf("a sensor breaks rules: %v", errs)
			}
		}
		shown, err := json.Marshal(added)
		if err != nil {
			t.Fatal(err)
		}
		again, err := control.ReadSensors(bytes.NewReader(shown))
		if added == nil {
			return // null is no file
		}
		if err != nil {
			t.Fatal(err)
		}
		if a, c, n := again.Plan(func(id string) *control.Sensor {
			for _, s := range added {
				if s.ID == id {
					return s
				}
			}
			return nil
		}, (*control.Sensor).Validate); len(a)+len(c) > 0 || n != len(added) || again.Errors != nil {
			t.Fatalf("read back: %d added, %d changed, %d the same of %d, %v", len(a), len(c), n, len(added), again.Errors)
		}
	})
}
