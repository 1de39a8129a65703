package format

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"vigie/sensors"
	"vigie/watchlist/plate"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestParseTime(t *testing.T) {
	const want = 1773470467412 // 2026-03-14 06:41:07.412 UTC
	for _, tt := range []struct {
		text  string
		ms    int64
		named bool
	}{
		{"1773470467", want - 412, true},
		{"1773470467.412", want, true},
		{"1773470467412", want, true},
		{"1.773470467412E9", want, true},
		{"1.773470467412e12", want, true},
		{"1e19", 0, false},
		{"1773470467412000", want, true},
		{"1773470467412000000", want, true},
		{"20260314064107", want - 412, false},
		{"20260314064107412", want, false},
		{"20260314 064107412", want, false},
		{"20260314T064107Z", want - 412, true},
		{"2026-03-14T06:41:07.412Z", want, true},
		{"2026-03-14T07:41:07.412+01:00", want, true},
		{"2026-03-14 07:41:07.412009+01:00", want, true},
		{"2026-03-14 01:41:07.412-0500", want, true},
		{"2026-03-14T06:41:07,412", want, false},
		{"2026-03-14 06:41:07", want - 412, false},
		{"2026-03-14 06:41", want - 7412, false},
		{"2026:03:14 06:41:07", want - 412, false},
		{"2026/3/14 6:41:07", want - 412, false},
		{"14/03/2026 06:41:07", want - 412, false},
		{"14.03.2026 06:41:07.412", want, false},
		{"14-03-2026 06:41:07 AM", want - 412, false},
		{"13/03/2026 06:41:07 PM", want - 412 - 12*3600_000, false},
		{"2026-03-14 06:41:07 UTC", want - 412, true},
		{"2026-03-14 06:41:07:412", want, false},
		{"2026-03-14T07:41:07:412+01:00", want, true},
		{"2026-03-14T07:41:07.412+01:00[Europe/Paris]", want, true},
		{"2026-03-14T06:41:07Z[UTC]", want - 412, true},
		{"Sat, 14 Mar 2026 06:41:07 GMT", want - 412, true},
		{"Sat, 14 mar 2026 07:41:07 +0100", want - 412, true},
		{"Sat, 4 Apr 2026 06:41:07", want - 412 + 21*24*3600_000, false},
		{"2026-03-14 06:41:07:41", 0, false}, // 41 or 410 ms
		{"2026-03-14 06:41:07:4123", 0, false},
		{"2026-03-14T07:41:07[Europe/Paris]", 0, false}, // a zone is looked up for nobody
		{"2026-03-14T07:41:07+01:00[Europe/Paris", 0, false},
		{"Sat, 14 Mai 2026 06:41:07 GMT", 0, false},
		{"Sat, 14 Mar 2026 06:41:07 CET", 0, false},
		{"Sat, 31 Feb 2026 06:41:07 GMT", 0, false},
		{"Sat, , , ,", 0, false},
		// American order, dates that are on no calendar, and what is no time at all.
		{"03/14/2026 06:41:07", 0, false},
		{"31/02/2026 06:41:07", 0, false},
		{"2026-03-14 25:00:00", 0, false},
		{"2026-03-14", 0, false},
		{"14/03/26 06:41:07", 0, false},
		{"2026-03-14T06:41:07+99:00", 0, false},
		{"2026-03-14T06:41:07 somewhere", 0, false},
		{"2026-03/14 06:41:07", 0, false},
		{"", 0, false},
		{"0", 0, false},
		{strings.Repeat("9", 40), 0, false},
	} {
		st, ok := parseTime(tt.text)
		if ok != (tt.ms != 0) {
			t.Errorf("parseTime(%q) ok = %v", tt.text, ok)
			continue
		}
		if ok && (st.t.UnixMilli() != tt.ms || st.named != tt.named) {
			t.Errorf("parseTime(%q) = %d, named %v; want %d, %v", tt.text, st.t.UnixMilli(), st.named, tt.ms, tt.named)
		}
	}
}

// TestClock decodes one time under every profile.
func TestClock(t *testing.T) {
	const ts = 1773470467000 // 06:41:07 UTC, 07:41:07 in Paris
	paris := zone(t, "Europe/Paris")
	for _, tt := range []struct {
		name, text string
		profile    sensors.Profile
		want       int64
		clock      sensors.Clock
	}{
		{"epoch", "1773470467", sensors.Profile{}, ts, ""},
		{"epoch, zone known", "1773470467", sensors.Profile{Zone: paris}, ts, ""},
		{"local time as epoch", "1773474067", sensors.Profile{Clock: sensors.ClockLocal, Zone: paris}, ts, sensors.ClockLocal},
		{"local time as UTC", "2026-03-14T07:41:07Z", sensors.Profile{Clock: sensors.ClockLocal, Zone: paris}, ts, sensors.ClockLocal},
		{"local, offset named", "2026-03-14T07:41:07+01:00", sensors.Profile{Clock: sensors.ClockLocal, Zone: paris}, ts, ""},
		{"local in summer", "2026-07-14 08:41:07", sensors.Profile{Clock: sensors.ClockLocal, Zone: paris}, 1784011267000, sensors.ClockLocal},
		{"no offset", "2026-03-14 06:41:07", sensors.Profile{}, ts, sensors.ClockUTC},
		{"no offset, zone known", "2026-03-14 07:41:07", sensors.Profile{Zone: paris}, ts, sensors.ClockLocal},
		{"no offset, UTC", "2026-03-14 06:41:07", sensors.Profile{Clock: sensors.ClockUTC}, ts, sensors.ClockUTC},
		{"not trusted", "2026-03-14 06:41:07", sensors.Profile{Clock: sensors.ClockGateway}, received.UnixMilli(), sensors.ClockGateway},
		{"never set", "1970-01-14 06:41:07", sensors.Profile{}, received.UnixMilli(), sensors.ClockGateway},
		{"far off", "2126-01-14 06:41:07", sensors.Profile{}, received.UnixMilli(), sensors.ClockGateway},
		{"none", "", sensors.Profile{}, received.UnixMilli(), sensors.ClockGateway},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := fmt.Sprintf(`{"SnapInfo":{"DeviceID":"c","SnapTime":"%s"},"Plate":{"PlateNumber":"AB123CD"}}`, tt.text)
			msg, err := Decode("dahua", Input{Body: []byte(body), Profile: tt.profile, Received: received})
			if err != nil {
				t.Fatal(err)
			}
			if s := msg.Sightings[0]; s.Read.TS != tt.want || s.Clock != tt.clock {
				t.Errorf("ts %d, clock %q; want %d, %q", s.Read.TS, s.Clock, tt.want, tt.clock)
			}
		})
	}
}

func TestConf(t *testing.T) {
	for _, tt := range []struct {
		text    string
		scale   sensors.Scale
		profile sensors.Scale
		want    float32
	}{
		{"0.91", sensors.ScaleUnit, "", 0.91},
		{"0,91", sensors.ScaleUnit, "", 0.91},
		{"91", sensors.ScalePercent, "", 0.91},
		{"91 %", sensors.ScalePercent, "", 0.91},
		{"0.91", sensors.ScalePercent, "", 0.91}, // the other unit
		{"0,91", sensors.ScalePercent, "", 0.91},
		{"1.0", sensors.ScalePercent, "", 1},
		{"1", sensors.ScalePercent, "", 0.01},
		{"1.5", sensors.ScalePercent, "", 0.015},
		{"0.91 %", sensors.ScalePercent, "", 0.0091},
		{"0.91", sensors.ScalePercent, sensors.ScalePercent, 0.0091},
		{"91", sensors.ScaleUnit, "", 0.91},
		{"91.5", sensors.ScaleUnit, "", 0.915},
		{"91 %", sensors.ScaleUnit, "", 0.91},
		{"100", sensors.ScaleUnit, "", 1},
		{"1", sensors.ScaleUnit, "", 1},
		{"1.0000001", sensors.ScaleUnit, "", 0},
		{"101", sensors.ScaleUnit, "", 0},
		{"91", sensors.ScaleUnit, sensors.ScaleUnit, 0},
		{"91", sensors.ScaleUnit, sensors.ScalePercent, 0.91},
		{"0.91", sensors.ScalePercent, sensors.ScaleUnit, 0.91},
		{"101", sensors.ScalePercent, "", 0},
		{"-1", sensors.ScalePercent, "", 0},
		{"NaN", sensors.ScaleUnit, "", 0},
		{"1e999", sensors.ScaleUnit, "", 0},
		{"", sensors.ScaleUnit, "", 0},
		{"high", sensors.ScaleUnit, "", 0},
	} {
		d := &decoder{in: Input{Profile: sensors.Profile{Scale: tt.profile}}}
		if got := d.conf(tt.text, tt.scale); got != tt.want {
			t.Errorf("conf(%q, %s) under %q = %v, want %v", tt.text, tt.scale, tt.profile, got, tt.want)
		}
	}
}

// TestConfLists reads confidences that belong together: one tells the unit of all.
func TestConfLists(t *testing.T) {
	for _, tt := range []struct {
		text    string
		scale   sensors.Scale
		profile sensors.Scale
		want    []float32
	}{
		{"99,98,1", sensors.ScalePercent, "", []float32{0.99, 0.98, 0.01}},
		{"0.99,0.5,1", sensors.ScalePercent, "", []float32{0.99, 0.5, 1}},
		{"99,0.5,1", sensors.ScalePercent, "", []float32{0.99, 0.005, 0.01}},
		{"1,0,1", sensors.ScalePercent, "", []float32{0.01, 0, 0.01}},
		{"99,1,50", sensors.ScaleUnit, "", []float32{0.99, 0.01, 0.5}},
		{"0.99,1,0.5", sensors.ScaleUnit, "", []float32{0.99, 1, 0.5}},
		{"99,1,500", sensors.ScaleUnit, "", []float32{0, 1, 0}},
		{"0.99,0.5,1", sensors.ScalePercent, sensors.ScalePercent, []float32{0.0099, 0.005, 0.01}},
		{"99,1,50", sensors.ScaleUnit, sensors.ScaleUnit, []float32{0, 1, 0}},
	} {
		d := &decoder{in: Input{Profile: sensors.Profile{Scale: tt.profile}}}
		if got := d.charConf(tt.text, tt.scale); !slices.Equal(got, tt.want) {
			t.Errorf("charConf(%q, %s) under %q = %v, want %v", tt.text, tt.scale, tt.profile, got, tt.want)
		}
	}
	body := `{"hook":{"id":"c"},"data":{"results":[{"plate":"AB123CD","score":93,"candidates":[{"plate":"AB123CD","score":93},{"plate":"A8123CD","score":1}]}]}}`
	msg, err := Decode("", Input{Body: []byte(body), Received: received})
	if err != nil || len(msg.Sightings) != 1 || msg.Sightings[0].Read.Conf != 0.93 || len(msg.Sightings[0].Read.Candidates) != 1 || msg.Sightings[0].Read.Candidates[0].Conf != 0.01 {
		t.Errorf("candidates: %+v, %v", msg, err)
	}
}

// TestNoPlate decodes what devices write where there was no plate: reads without one, none rejected.
func TestNoPlate(t *testing.T) {
	for _, tt := range []struct{ format, body, plate string }{
		{"hikvision", `<EventNotificationAlert><eventType>ANPR</eventType><ANPR><licensePlate>无车牌</licensePlate></ANPR></EventNotificationAlert>`, "无车牌"},
		{"dahua", `{"Picture":{"Plate":{"PlateNumber":"未识别"},"SnapInfo":{"DeviceID":"c"}}}`, "未识别"},
		{"dahua", `{"Picture":{"Plate":{"IsExist":false,"PlateNumber":"AB123CD"},"SnapInfo":{"DeviceID":"c"}}}`, ""},
		{"dahua", `{"Picture":{"Plate":{"IsExist":false,"PlateNumber":"A?#"},"SnapInfo":{"DeviceID":"c"}}}`, ""},
		{"dahua", `{"Picture":{"Plate":{"IsExist":false,"PlateNumber":"No Plate"},"SnapInfo":{"DeviceID":"c"}}}`, "No Plate"},
		{"frigate", `{"type":"lpr","id":"1","camera":"c","plate":"N/A"}`, "N/A"},
		{"genetec", `{"CameraName":"c","Plate":"????"}`, "????"},
	} {
		msg, err := Decode("", Input{Body: []byte(tt.body), Received: received})
		if err != nil || msg.Format != tt.format || len(msg.Sightings) != 1 || len(msg.Rejected) != 0 {
			t.Errorf("%s: %+v, %v", tt.body, msg, err)
			continue
		}
		r := msg.Sightings[0].Read
		if _, err := r.Key(); r.Plate != tt.plate || !errors.Is(err, plate.ErrSentinel) {
			t.Errorf("%s: plate %q, %v", tt.body, r.Plate, err)
		}
	}
	body := `{"Picture":{"Plate":{"IsExist":true,"PlateNumber":"AB123CD"},"SnapInfo":{"DeviceID":"c"}}}`
	if msg, err := Decode("", Input{Body: []byte(body), Received: received}); err != nil || msg.Sightings[0].Read.Plate != "AB123CD" {
		t.Errorf("a plate that is there: %+v, %v", msg, err)
	}
}

func TestCountry(t *testing.T) {
	for _, tt := range []struct {
		texts []string
		want  string
	}{
		{[]string{"FR"}, "FR"},
		{[]string{"eu-fr"}, "eu-fr"},
		{[]string{"us-mo"}, "us-mo"},
		{[]string{"FRA"}, "FRA"},
		{[]string{"France"}, "FR"},
		{[]string{"12", "FRA"}, "FRA"},
		{[]string{"12"}, ""},
		{[]string{"Unknown", "---", ""}, ""},
		{[]string{"NED"}, "NED"},
		{[]string{"France (FR)"}, "FR"},
		{[]string{"Germany ( GER )"}, "GER"},
		{[]string{"Moldova (Republic of)"}, "MD"},
		{[]string{"EU", "eur", "Europe"}, ""},
		{[]string{"EU", "F"}, "F"},
		{[]string{"Middle-earth", "F"}, "F"},
		{[]string{"Middle-earth"}, "Middle-earth"}, // counted by the gateway, and empty then
	} {
		if got := country(tt.texts...); got != tt.want {
			t.Errorf("country(%q) = %q, want %q", tt.texts, got, tt.want)
		}
	}
	msg, err := Decode("", Input{Body: []byte(`{"type":"lpr","id":"1","camera":"c","plate":"AB123CD"}`), Profile: sensors.Profile{Country: "F"}, Received: received})
	if err != nil || msg.Sightings[0].Read.Country != "F" {
		t.Errorf("country of the profile: %+v, %v", msg.Sightings, err)
	}
}

func TestSpeed(t *testing.T) {
	for _, tt := range []struct {
		text string
		unit float64
		want float32
	}{
		{"113 km/h", mph, 113}, {"70 mph", kmh, 112.65408}, {"31.4", mps, 113.04}, {"10 m/s", kmh, 36},
		{"-1", kmh, 0}, {"1001", kmh, 0}, {"", kmh, 0}, {"fast", kmh, 0}, {"3 knots", kmh, 0}, {"87", kmh, 87},
	} {
		if got := speed(tt.text, tt.unit); got != tt.want {
			t.Errorf("speed(%q, %v) = %v, want %v", tt.text, tt.unit, got, tt.want)
		}
	}
}

func TestWords(t *testing.T) {
	if got := word(" Peu\u202egeot\n" + strings.Repeat("x", 100)); got != "Peugeot"+strings.Repeat("x", 57) {
		t.Errorf("word = %q", got)
	}
	if got := word("Unknown"); got != "" {
		t.Errorf("word of nothing = %q", got)
	}
	if got := sensorID(" A7 / été " + strings.Repeat("y", 70)); len(got) != 64 || strings.Trim(got, "y") != "" {
		t.Errorf("sensorID = %q", got)
	}
	if got := sensorID("A7/é:1"); got != "A7__:1" {
		t.Errorf("sensorID = %q", got)
	}
	if got := readID("a b"); got != "" {
		t.Errorf("readID = %q", got)
	}
}

func TestPosition(t *testing.T) {
	for _, tt := range []struct {
		gps      string
		lat, lon float32
	}{
		{`<Latitude><degree>33</degree><minute>30</minute><sec>36</sec></Latitude><Longitude><degree>7</degree><minute>36</minute><sec>0</sec></Longitude><latitudeType>S</latitudeType><longitudeType>W</longitudeType>`, -33.51, -7.6},
		{`<Latitude>45.5</Latitude><Longitude>4.25</Longitude>`, 45.5, 4.25},
		{`<Latitude><degree>-1</degree></Latitude><Longitude><degree>7</degree></Longitude>`, 0, 0},
		{`<Latitude>95</Latitude><Longitude>4</Longitude>`, 0, 0},
		{`<Longitude>4</Longitude>`, 0, 0},
	} {
		body := "<EventNotificationAlert><ANPR><licensePlate>A1</licensePlate></ANPR><DeviceGPSInfo>" + tt.gps + "</DeviceGPSInfo></EventNotificationAlert>"
		msg, err := Decode("", Input{Body: []byte(body), Received: received})
		if err != nil || msg.Sightings[0].Read.Lat != tt.lat || msg.Sightings[0].Read.Lon != tt.lon {
			t.Errorf("%s: %+v, %v", tt.gps, msg.Sightings, err)
		}
	}
}

func TestNames(t *testing.T) {
	want := []string{"onvif", "openalpr", "platerecognizer", "hikvision", "axis", "dahua", "genetec", "frigate"}
	if got := Names(); !slices.Equal(got, want) {
		t.Errorf("Names = %q, want %q", got, want)
	}
	for _, name := range want {
		if !strings.Contains(ErrFormat.Error(), name) {
			t.Errorf("ErrFormat does not name %s", name)
		}
	}
}

// TestForm decodes messages that need their content type to be told.
func TestForm(t *testing.T) {
	body := samples(t)["platerecognizer.json"]
	form := []byte(url.Values{"json": {string(body)}}.Encode())
	msg, err := Decode("auto", Input{ContentType: "application/x-www-form-urlencoded", Body: form, Received: received})
	if err != nil || len(msg.Sightings) != 1 || msg.Format != "platerecognizer" {
		t.Errorf("form: %+v, %v", msg, err)
	}
	if msg, err := Decode("auto", Input{ContentType: "application/x-www-form-urlencoded", Body: body, Received: received}); err != nil || len(msg.Sightings) != 1 {
		t.Errorf("posted by a tool that calls everything a form: %+v, %v", msg, err)
	}
	parts := samples(t)["hikvision-multipart.bin"]
	for _, contentType := range []string{
		"multipart/form-data; boundary=boundary", "multipart/form-data; boundary=--boundary", "Multipart/Form-Data;boundary=\"boundary\"", "multipart/mixed; boundary=boundary; charset", "multipart/mixed;\xc0; Boundary = boundary",
	} {
		msg, err := Decode("hikvision", Input{ContentType: contentType, Body: parts, Received: received})
		if err != nil || len(msg.Sightings) != 1 || len(msg.Sightings[0].Plate) == 0 {
			t.Errorf("%s: %+v, %v", contentType, msg, err)
		}
	}
	other := []byte("--b\r\nContent-Disposition: form-data; name=\"meta\"\r\n\r\n{\"x\":1}\r\n--b\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\n{\"plateUTF8\":\"AB123CD\",\"carID\":\"1\"}\r\n--b\r\n\r\n{\"y\":1}\r\n--b--")
	for _, format := range []string{"axis", "auto"} {
		if msg, err := Decode(format, Input{Body: other, Received: received}); err != nil || len(msg.Sightings) != 1 || len(msg.Rejected) != 0 || len(msg.Sightings[0].Context) != 3 {
			t.Errorf("form with other parts: %+v, %v", msg, err)
		}
	}
	latin := []byte("<?xml version=\"1.0\" encoding=\"windows-1252\"?><Read CameraName=\"c\" Plate=\"AB123CD\"><Attributes><VehicleMake>Citro\xebn</VehicleMake></Attributes></Read>")
	if msg, err := Decode("", Input{Body: latin, Received: received}); err != nil || msg.Sightings[0].Read.Make != "Citroën" {
		t.Errorf("windows-1252: %+v, %v", msg, err)
	}
}

// TestSensorOfTopic gives prefixes of devices, every two of which must stay two.
func TestSensorOfTopic(t *testing.T) {
	long := strings.Repeat("x", 60)
	seen := make(map[string]string)
	for _, tt := range []struct{ prefix, want string }{
		{"A7-118-2", "A7-118-2"},
		{"unknown", "unknown"},
		{"site/cam1", "site:cam1"},
		{"site_cam1", "site_cam1"},
		{"site:cam1", "site:cam1-hh5ley"},
		{"/site/cam1", ":site:cam1"},
		{"north/A7 118", "north:A7_118-ggjrkl"},
		{"north/A7é118", "north:A7_118-zhf6gi"},
		{"north/A7\xff118", "north:A7_118-yukfx6"},
		{long + "/123", long + ":123"},
		{"1/" + long + "/123", long[:53] + ":123-qjntmg"}, // cut
		{"2/" + long + "/123", long[:53] + ":123-oxtld6"},
	} {
		topic := tt.prefix + "/onvif-ej/RuleEngine/Recognition/LicensePlate/VS_1"
		got := SensorOfTopic(topic)
		if got != tt.want || len(got) > sensors.MaxIDBytes {
			t.Errorf("SensorOfTopic(%q) = %q, want %q", topic, got, tt.want)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q are both %q", other, tt.prefix, got)
		}
		seen[got] = tt.prefix
		body := `{"UtcTime":"2026-03-14T06:41:07Z","Data":{"LicensePlateInfo":{"PlateNumber":"AB123CD"}}}`
		msg, err := Decode("", Input{Topic: topic, Body: []byte(body), Received: received})
		if err != nil || len(msg.Sightings) != 1 || msg.Sensor != got || msg.Sightings[0].Read.Sensor != got {
			t.Errorf("%s: %+v, %v", topic, msg, err)
		}
	}
	for _, topic := range []string{"onvif-ej/RuleEngine", "frigate/events", "", "/onvif-ej", "/onvif-ej/", "a/onvif-ej"} {
		if got := SensorOfTopic(topic); got != "" {
			t.Errorf("SensorOfTopic(%q) = %q, want none", topic, got)
		}
	}
}

func TestTopic(t *testing.T) {
	for _, tt := range []struct{ topic, body, format string }{
		{"frigate/available", "online", "frigate"},
		{"frigate/events", `{"type":"new","after":{"id":"1"}}`, "frigate"},
		{"home/frigate/tracked_object_update", `{"type":"face","id":"1","camera":"c"}`, "frigate"},
		{"x/onvif-ej/VideoSource/MotionAlarm", `{"UtcTime":"2026-03-14T06:41:07Z","Source":{},"Data":{"State":true}}`, "onvif"},
	} {
		msg, err := Decode("auto", Input{Topic: tt.topic, Body: []byte(tt.body), Received: received})
		if err != nil || msg.Format != tt.format || !msg.Heartbeat {
			t.Errorf("%s: %+v, %v", tt.topic, msg, err)
		}
	}
	msg, err := Decode("frigate", Input{Body: []byte("offline"), Received: received})
	if err != nil || msg.Heartbeat {
		t.Errorf("offline: %+v, %v", msg, err)
	}
}

// TestRefused gives messages that must not become reads, each with what its error must say.
func TestRefused(t *testing.T) {
	deep := strings.Repeat("[", 100_000)
	part := "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nx\r\n"
	for _, tt := range []struct{ name, format, contentType, body, says string }{
		{"unknown format", "vaxtor", "", "{}", "onvif, openalpr"},
		{"not recognised", "auto", "", `{"hello":"world"}`, "onvif, openalpr"},
		{"binary", "auto", "", strings.Repeat("\xff\xd8", 100), "onvif, openalpr"},
		{"another format", "axis", "", `{"type":"lpr","id":"1","camera":"c","plate":"AB123CD"}`, "not a message of this format"},
		{"empty", "axis", "", "  ", "empty"},
		{"number", "axis", "", "[1]", "not a message"},
		{"JSON cut off", "axis", "", `{"plateUTF8":"AB1`, "JSON"},
		{"JSON invalid UTF-8", "axis", "", "{\"plateUTF8\":\"\xff\",\"carID\":1}", "UTF-8"},
		{"JSON name twice", "axis", "", `{"plateUTF8":"A1","carID":"1","plateUTF8":"B2"}`, "twice"},
		{"JSON name twice deep inside", "axis", "", `{"plateUTF8":"A1","carID":"1","x":{"y":1,"y":2}}`, "twice"},
		{"JSON depth", "auto", "", deep, "deeply"},
		{"JSON depth of objects", "auto", "", strings.Repeat(`{"a":`, 100_000), "deeply"},
		{"JSON values", "auto", "", `{"a":[` + strings.Repeat("1,", 60_000) + `1]}`, "too many values"},
		{"XML bomb", "hikvision", "", `<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;">]><EventNotificationAlert>&lol2;</EventNotificationAlert>`, "DOCTYPE"},
		{"XML declaration behind a comment", "hikvision", "", "<!-- --><!ELEMENT x ANY><EventNotificationAlert/>", "DOCTYPE"},
		{"XML entity", "hikvision", "", "<EventNotificationAlert>&lol;</EventNotificationAlert>", "not XML"},
		{"XML depth", "auto", "", strings.Repeat("<a>", 100_000), "deeply"},
		{"XML attributes", "auto", "", "<a" + attributes(1_000_000) + "/>", "attributes"},
		{"XML elements", "auto", "", "<a>" + strings.Repeat("<b/>", 200_000) + "</a>", "too many values"},
		{"XML cut off", "auto", "", "<EventNotificationAlert><ANPR>", "ends within"},
		{"XML UTF-16", "auto", "", `<?xml version="1.0" encoding="UTF-16"?><a/>`, "encoding"},
		{"no boundary", "hikvision", "multipart/form-data", part + "--b--", "boundary"},
		{"another boundary", "hikvision", "multipart/form-data; boundary=c", part + "--b--", "boundary"},
		{"multipart without end", "hikvision", "multipart/form-data; boundary=b", part, "last boundary"},
		{"multipart without content", "hikvision", "multipart/form-data; boundary=b", part + "--b--", "without a part"},
		{"parts", "hikvision", "multipart/form-data; boundary=b", strings.Repeat(part, 17) + "--b--", "16"},
		{"stream parts", "hikvision", "multipart/mixed; boundary=b", strings.Repeat(part, 1025) + "--b--", "1024"},
		{"part header", "hikvision", "multipart/form-data; boundary=b", "--b\r\n" + strings.Repeat("X: y\r\n", 1000) + "\r\nx\r\n--b--", "header"},
		{"form without message", "platerecognizer", "application/x-www-form-urlencoded", "a=1", "field json"},
		{"form fields", "platerecognizer", "application/x-www-form-urlencoded", strings.Repeat("a=1&", 20), "16"},
		{"form with two messages", "platerecognizer", "application/x-www-form-urlencoded", "json={}&json={}", "twice"},
		{"event line twice", "dahua", "", "Events[0].TrafficCar.PlateNumber=A1\nEvents[0].TrafficCar.PlateNumber=B2\n", "twice"},
		{"event depth", "dahua", "", "Events[0]" + strings.Repeat(".a", 100) + "=1", "levels"},
		{"documents", "frigate", "", strings.Repeat(`{"after":{}}`+"\n", 10_001), "10000"},
		{"broken documents", "frigate", "", `{"after":{}}` + strings.Repeat("\n{]", 200), "JSON"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := []byte(tt.body)
			kept := bytes.Clone(body)
			_, err := Decode(tt.format, Input{ContentType: tt.contentType, Body: body, Received: received})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("error %v, must say %q", err, tt.says)
			}
			if as := (*Error)(nil); !errors.Is(err, ErrFormat) && !errors.As(err, &as) {
				t.Errorf("error is a %T", err)
			}
			if !bytes.Equal(body, kept) {
				t.Error("the body was changed")
			}
		})
	}
}

// TestAmbiguous gives reads of which nobody can say which plate was meant: they are rejected one by one.
func TestAmbiguous(t *testing.T) {
	for _, tt := range []struct{ name, body, field string }{
		{"case variants", `{"plateUTF8":"A1","PlateUTF8":"B2","carID":"1"}`, "plateUTF8"},
		{"list", `{"plateUTF8":["A1","B2"],"carID":"1"}`, "plateUTF8"},
		{"elements", `<EventNotificationAlert><ANPR><licensePlate>A1</licensePlate><LicensePlate>B2</LicensePlate></ANPR></EventNotificationAlert>`, "licensePlate"},
		{"element and attribute", `<EventNotificationAlert><ANPR licensePlate="A1"><licensePlate>B2</licensePlate></ANPR></EventNotificationAlert>`, "licensePlate"},
		{"frigate", `{"type":"lpr","id":"1","camera":"c","plate":"A1","Plate":"B2"}`, "plate"},
		{"platerecognizer", `{"hook":{"id":"c"},"data":{"results":[{"plate":"A1"},{"plate":"A1","PLATE":"B2"}]}}`, "plate"},
	} {
		msg, err := Decode("auto", Input{Body: []byte(tt.body), Received: received})
		if err != nil || len(msg.Rejected) != 1 || msg.Rejected[0].Field != tt.field {
			t.Errorf("%s: %+v, %v", tt.name, msg, err)
			continue
		}
		if i := msg.Rejected[0].Index; i != len(msg.Sightings) {
			t.Errorf("%s: rejected as number %d", tt.name, i)
		}
	}
}

func attributes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ` a%d="1"`, i)
	}
	return b.String()
}

// TestMemory bounds what decoding takes by what it allocates in all, the size of the body taken as one.
func TestMemory(t *testing.T) {
	const size = 4 << 20
	picture := strings.Repeat("AAAA", size/4)
	many := `{"a":[` + strings.Repeat(`{"b":1},`, size/8) + `1]}`
	for _, tt := range []struct {
		name, body string
		factor     float64
	}{
		{"picture in JSON", `{"plateUTF8":"A1","carID":"1","plateImage":"` + picture + `"}`, 1.2},
		{"picture in JSON, escaped", `{"plateUTF8":"A1","carID":"1","plateImage":"\/` + picture[2:] + `"}`, 2.5},
		{"picture in XML", `<Read CameraName="c" Plate="A1"><PlateImage>` + picture + `</PlateImage></Read>`, 8},
		{"picture in a form", "--b\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\n{\"plateUTF8\":\"A1\",\"carID\":\"1\"}\r\n--b\r\nContent-Type: image/jpeg\r\n\r\n" + picture + "\r\n--b--", 0.1},
		{"values", many, 8},
		{"attributes", "<a" + attributes(size/12) + "/>", 0.1},
		{"elements", "<a>" + strings.Repeat("<b>", size/3), 0.1},
		{"text before anything", "<a>" + strings.Repeat("x", size), 0.1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := []byte(tt.body)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Decode("auto", Input{Body: body, Received: received})
			runtime.ReadMemStats(&after)
			took := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(body))
			t.Logf("took %.2f of the body, %v", took, err)
			if took > tt.factor {
				t.Errorf("took %.2f times the body, at most %.1f are allowed", took, tt.factor)
			}
		})
	}
}

// TestPictures holds that pictures of a form are where they were.
func TestPictures(t *testing.T) {
	body := samples(t)["hikvision-multipart.bin"]
	msg, err := Decode("hikvision", Input{Body: body, Received: received})
	if err != nil {
		t.Fatal(err)
	}
	s := msg.Sightings[0]
	if len(s.Plate) == 0 || &s.Plate[0] != &body[bytes.Index(body, s.Plate)] || &s.Context[0] != &body[bytes.Index(body, s.Context)] {
		t.Error("the pictures are copies")
	}
}
