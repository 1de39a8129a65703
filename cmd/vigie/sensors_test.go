package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vigie/cmd/vigie/internal/httpapi"
	"vigie/stream"
	"vigie/watchlist/control"
)

// TestSensorsCommands is the life of a sensor in the registry as an operator types it.
func TestSensorsCommands(t *testing.T) {
	newOperatorServer(t)
	ok := func(args ...string) result {
		t.Helper()
		r := vigie(t, "", args...)
		if r.code != 0 {
			t.Fatalf("vigie %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
		}
		return r
	}
	var got control.Sensor
	show := func(id string) control.Sensor {
		t.Helper()
		got = control.Sensor{}
		if err := json.Unmarshal([]byte(ok("sensors", "show", id, "-o", "json").out), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}

	if r := ok("sensors", "list"); !strings.Contains(r.err, "no sensors yet") {
		t.Errorf("an empty registry: %q", r.err)
	}
	ok("sensors", "add", "A7:118.2", "--name", "A7 PK 118", "--lat", "45.1", "--lon", "4.8", "--zone", "26", "--zone", "Drôme, sud",
		"--format", "hikvision", "--clock", "local", "--time-zone", "Europe/Paris", "--list", "stolen", "--country", "F")
	if s := show("A7:118.2"); s.Lat != 45.1 || len(s.Zones) != 2 || s.Zone != "Europe/Paris" || s.Country != "FR" || len(s.Lists) != 1 {
		t.Errorf("added %+v", s)
	}
	if r := vigie(t, "", "sensors", "add", "A7:118.2", "--name", "x"); r.code != 2 || !strings.Contains(r.err, "--change") {
		t.Errorf("added again: %d %s", r.code, r.err)
	}
	if r := vigie(t, "", "sensors", "add", "other", "--change"); r.code != 1 {
		t.Errorf("changed before it is there: %d %s", r.code, r.err)
	}
	if r := vigie(t, "", "sensors", "add", "other", "--clock", "local"); r.code != 2 || !strings.Contains(r.err, "time_zone: is mandatory") {
		t.Errorf("local time of nowhere: %d %s", r.code, r.err)
	}
	ok("sensors", "add", "A7:118.2", "--change", "--name", "new", "--list", "")
	if s := show("A7:118.2"); s.Name != "new" || s.Lat != 45.1 || len(s.Lists) != 0 {
		t.Errorf("changed to %+v", s)
	}
	if r := ok("sensors", "show", "A7:118.2"); !strings.Contains(r.out, "lists      all") {
		t.Errorf("shown as\n%s", r.out)
	}

	// Import: all errors at once, then a trial, then for real, then nothing to do.
	file := filepath.Join(t.TempDir(), "capteurs.csv")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("identifiant;nom;latitude;longitude\nA7:118.2;newer;;\nb;B;north;1\nc;C;95;1\n")
	r := vigie(t, "", "sensors", "import", file)
	if r.code != 2 || !strings.Contains(r.err, "row 3: lat") || !strings.Contains(r.err, "row 4: lat") {
		t.Errorf("bad rows: %d %s", r.code, r.err)
	}
	write("identifiant;nom;latitude;longitude\nA7:118.2;newer;;\nb;B;48,5;1\n")
	if r := ok("sensors", "import", file, "--dry-run"); r.out != "2 sensors: 1 added, 1 changed, 0 the same\na trial: nothing was changed\n" {
		t.Errorf("the trial: %q", r.out)
	}
	ok("sensors", "import", file)
	var rep stream.ImportReport
	if err := json.Unmarshal([]byte(ok("sensors", "import", file, "-o", "json").out), &rep); err != nil || rep.Same != 2 || !rep.Applied {
		t.Errorf("again: %+v, %v", rep, err)
	}
	if s := show("A7:118.2"); s.Name != "newer" || s.Lat != 45.1 || len(s.Zones) != 2 {
		t.Errorf("imported over: %+v", s)
	}
	// An export is a file.
	export := ok("sensors", "list", "-o", "json").out
	if r := vigie(t, export, "sensors", "import", "-", "--dry-run"); r.code != 0 || !strings.HasPrefix(r.out, "2 sensors: 0 added, 0 changed, 2 the same") {
		t.Errorf("the export: %d %q %s", r.code, r.out, r.err)
	}
	if r := ok("sensors", "list"); strings.Count(r.out, "\n") != 3 || !strings.Contains(r.out, "newer") {
		t.Errorf("the list is\n%s", r.out)
	}
	if r := ok("sensors", "list", "--limit", "1"); strings.Count(r.out, "\n") != 2 || !strings.Contains(r.err, `--after "A7:118.2"`) {
		t.Errorf("the first of two is\n%s%s", r.out, r.err)
	}

	// Health: one sensor is heard, one is not registered, one never came.
	for i, sensor := range []string{"b", "b", "stranger", "b"} {
		plate := fmt.Sprintf("AB12%dCD", i)
		if i == 3 {
			plate = "AB,"
		}
		body := fmt.Sprintf(`{"sensor":%q,"plate":%q,"ts":%d,"conf":0.75}`, sensor, plate, time.Now().UnixMilli())
		post(t, body)
	}
	var page httpapi.SensorHealthPage
	if err := json.Unmarshal([]byte(ok("sensors", "health", "-o", "json").out), &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Sensors) != 2 || page.Sensors[0].Accepted != 2 || page.Sensors[0].Rejected != 1 || !page.Sensors[1].Unregistered || len(page.NeverHeard) != 1 {
		t.Errorf("health is %+v", page)
	}
	r = ok("sensors", "health")
	for _, want := range []string{"b ", "ok", "0.75", "plate: character 3", "not registered", "never heard"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("health lacks %q:\n%s", want, r.out)
		}
	}
	if !strings.HasPrefix(r.err, "2 sensors heard since ") || strings.Contains(r.out, "AB12") {
		t.Errorf("health says\n%s%s", r.err, r.out)
	}

	if r := vigie(t, "", "sensors", "withdraw", "b"); r.code != 2 {
		t.Errorf("withdrawn without a reason: %d %s", r.code, r.err)
	}
	ok("sensors", "withdraw", "b", "--reason", "sold")
	if r := vigie(t, "", "sensors", "show", "b"); r.code != 1 || !strings.Contains(r.err, "no sensor of that id") {
		t.Errorf("shown after: %d %s", r.code, r.err)
	}
}

// post hands in a read as a sensor does.
func post(t *testing.T, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", os.Getenv("VIGIE_SERVER")+"/v1/reads", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+sensorSecret)
	req.Header.Set("Content-Type", "application/json")
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}

func TestAgo(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s ago", 59 * time.Second: "59 s ago", time.Minute: "1 min ago", 90 * time.Minute: "1 h ago", 72 * time.Hour: "3 days ago",
	} {
		if got := ago(now, now.Add(-d)); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if got := ago(now, time.Time{}); got != "" {
		t.Errorf("never: %q", got)
	}
}
