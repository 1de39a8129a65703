package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest/observer"

	"vigie/stream"
	"vigie/watchlist"
	"vigie/watchlist/control"
)

// fakeRegistry keeps sensors in memory.
type fakeRegistry struct {
	mu            sync.Mutex
	version       int64
	sensors       []*control.Sensor // by id
	actor, reason string            // of the last change
}

func (f *fakeRegistry) find(id string) (int, bool) {
	return slices.BinarySearchFunc(f.sensors, id, func(s *control.Sensor, id string) int { return strings.Compare(s.ID, id) })
}

func (f *fakeRegistry) Sensors(after string, limit int) []*control.Sensor {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, found := f.find(after)
	if found {
		i++
	}
	return slices.Clone(f.sensors[i:min(i+limit, len(f.sensors))])
}

func (f *fakeRegistry) Sensor(id string) (*control.Sensor, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, found := f.find(id)
	if !found {
		return nil, false
	}
	return f.sensors[i], true
}

func (f *fakeRegistry) PutSensor(_ context.Context, actor string, s control.Sensor) (*control.Sensor, error) {
	if errs := s.Validate(); errs != nil {
		return nil, &stream.InvalidError{Fields: errs}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	s.Version, f.actor = f.version, actor
	if i, found := f.find(s.ID); found {
		f.sensors[i] = &s
	} else {
		f.sensors = slices.Insert(f.sensors, i, &s)
	}
	return &s, nil
}

func (f *fakeRegistry) WithdrawSensor(_ context.Context, actor, id, reason string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if reason == "" {
		return 0, &stream.InvalidError{Fields: []watchlist.FieldError{{Field: "reason", Reason: "is mandatory"}}}
	}
	i, found := f.find(id)
	if !found {
		return 0, stream.ErrNoSensor
	}
	f.sensors = slices.Delete(f.sensors, i, i+1)
	f.version++
	f.actor, f.reason = actor, reason
	return f.version, nil
}

func (f *fakeRegistry) ImportSensors(ctx context.Context, actor string, file io.Reader, dryRun bool) (stream.ImportReport, error) {
	in, err := control.ReadSensors(file)
	if err != nil {
		return stream.ImportReport{}, err
	}
	added, changed, same := in.Plan(func(id string) *control.Sensor { s, _ := f.Sensor(id); return s }, (*control.Sensor).Validate)
	rep := stream.ImportReport{Rows: in.Rows, Added: len(added), Changed: len(changed), Same: same, Errors: in.Errors, Rejected: in.Rejected()}
	if !dryRun && rep.Rejected == 0 {
		for _, s := range append(added, changed...) {
			if _, err := f.PutSensor(ctx, actor, *s); err != nil {
				return rep, err
			}
		}
		rep.Applied, rep.Version = true, f.version
	}
	return rep, nil
}

func newRegistryWorld(t *testing.T) (*world, *fakeRegistry) {
	f := new(fakeRegistry)
	return newWorld(t, func(c *Config) { c.Registry = f }), f
}

// ask sends a request as the operator and decodes the answer, which must have a status.
func (w *world) ask(t *testing.T, method, path, contentType, body string, status int, out any) {
	t.Helper()
	got, answer := w.do(t, "operator", method, path, contentType, body)
	if got != status {
		t.Fatalf("%s %s: %d %s, want %d", method, path, got, answer, status)
	}
	if err := json.Unmarshal([]byte(answer), out); err != nil {
		t.Fatalf("%s %s: %v in %s", method, path, err, answer)
	}
}

func TestRegistry(t *testing.T) {
	w, f := newRegistryWorld(t)
	var got control.Sensor
	w.ask(t, "POST", "/v1/sensors", "application/json",
		`{"id":"A7/118 2","name":"A7","lat":45.1,"lon":4.8,"zones":["26"],"kind":"fixed","clock":"local","time_zone":"Europe/Paris","lists":["stolen"]}`, 200, &got)
	if got.ID != "A7/118 2" || got.Version != 1 || got.Zone != "Europe/Paris" || f.actor != "operator" {
		t.Errorf("put %+v by %s", got, f.actor)
	}
	// An id is free text: with a slash and a space it is found all the same.
	w.ask(t, "GET", "/v1/sensors/A7%2F118%202", "", "", 200, &got)
	if got.ID != "A7/118 2" || got.Lists[0] != "stolen" {
		t.Errorf("got %+v", got)
	}

	var p Problem
	w.ask(t, "POST", "/v1/sensors", "application/json", `{"id":"x","clock":"sun","lat":91}`, 422, &p)
	if len(p.Errors) != 2 || p.Errors[0].Field != "lat" || p.Errors[1].Field != "clock" {
		t.Errorf("a bad sensor: %+v", p)
	}
	w.ask(t, "POST", "/v1/sensors", "application/json", `{"id":"x","colour":"red"}`, 400, &p)
	w.ask(t, "GET", "/v1/sensors/nowhere", "", "", 404, &p)
	if p.Type != "urn:vigie:problem:no-sensor" {
		t.Errorf("a sensor that is not there: %+v", p)
	}
	w.ask(t, "DELETE", "/v1/sensors/A7%2F118%202", "", "", 422, &p)
	var out Withdrawn
	w.ask(t, "DELETE", "/v1/sensors/A7%2F118%202", "application/json", `{"reason":"sold"}`, 200, &out)
	if out.Version != 2 || f.reason != "sold" {
		t.Errorf("withdrawn at %d for %q", out.Version, f.reason)
	}
	changes := w.logs.FilterMessage("registry changed")
	if !slices.EqualFunc(changes.All(), []string{"sensor put", "sensor withdrawn"}, func(e observer.LoggedEntry, kind string) bool {
		return e.ContextMap()["change"] == kind && e.ContextMap()["actor"] == "operator" && e.ContextMap()["sensor"] == "A7/118 2"
	}) {
		t.Errorf("logged %v", changes.All())
	}
}

func TestRegistryPages(t *testing.T) {
	w, f := newRegistryWorld(t)
	for i := range 5 {
		if _, err := f.PutSensor(t.Context(), "op", control.Sensor{ID: fmt.Sprint("s", i)}); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	next := ""
	for range 4 {
		var page SensorPage
		w.ask(t, "GET", "/v1/sensors?limit=2&after="+next, "", "", 200, &page)
		for _, s := range page.Sensors {
			ids = append(ids, s.ID)
		}
		if next = page.Next; next == "" {
			break
		}
	}
	if got := strings.Join(ids, " "); got != "s0 s1 s2 s3 s4" {
		t.Errorf("pages hold %q", got)
	}
	if status, body := w.do(t, "operator", "GET", "/v1/sensors?limit=0", "", ""); status != 400 {
		t.Errorf("limit=0: %d %s", status, body)
	}
	for _, who := range []string{"", "sensor", "patrol", "monitor"} {
		if status, _ := w.do(t, who, "GET", "/v1/sensors", "", ""); status != 401 && status != 403 {
			t.Errorf("%q sees the registry: %d", who, status)
		}
	}
	if status, body := newWorld(t, func(c *Config) { c.Registry = nil }).do(t, "operator", "GET", "/v1/sensors", "", ""); status != 404 || !strings.Contains(body, "not-served") {
		t.Errorf("without a registry: %d %s", status, body)
	}
}

func TestRegistryImport(t *testing.T) {
	w, f := newRegistryWorld(t)
	const file = "id;lat;lon\na;48,5;2\nb;1;1\n"
	var rep stream.ImportReport
	w.ask(t, "POST", "/v1/sensors/import?dry_run=1", "text/csv", file, 200, &rep)
	if rep.Added != 2 || rep.Applied || len(f.sensors) != 0 {
		t.Errorf("the trial: %+v with %d sensors", rep, len(f.sensors))
	}
	w.ask(t, "POST", "/v1/sensors/import", "text/csv", file, 200, &rep)
	if rep.Added != 2 || !rep.Applied || len(f.sensors) != 2 {
		t.Errorf("the import: %+v with %d sensors", rep, len(f.sensors))
	}
	w.ask(t, "POST", "/v1/sensors/import", "application/json", `[{"id":"a","lat":48.5,"lon":2},{"id":"b","lat":2}]`, 200, &rep)
	if rep.Same != 1 || rep.Changed != 1 {
		t.Errorf("as JSON: %+v", rep)
	}
	var p Problem
	w.ask(t, "POST", "/v1/sensors/import", "text/csv", "id;lat\na;north\nc;1\nd;91\n", 422, &p)
	if len(p.Errors) != 2 || p.Errors[0].Row != 2 || p.Errors[1].Row != 4 || p.Errors[1].Column != "lat" || len(f.sensors) != 2 {
		t.Errorf("with bad rows: %+v", p)
	}
	w.ask(t, "POST", "/v1/sensors/import", "text/csv", "nothing", 422, &p)
	w.ask(t, "POST", "/v1/sensors/import", "text/plain", file, 415, &p)
	w.ask(t, "POST", "/v1/sensors/import?dry_run=maybe", "text/csv", file, 400, &p)
}

func TestSensorHealth(t *testing.T) {
	w, f := newRegistryWorld(t)
	for _, id := range []string{"A7-1", "A7-2"} {
		if _, err := f.PutSensor(t.Context(), "op", control.Sensor{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	ts := testNow.Add(-2 * time.Second).UnixMilli()
	if status, body := w.do(t, "sensor", "POST", "/v1/reads", "application/json", fmt.Sprintf(`{"sensor":"A7-1","plate":"AB123CD","ts":%d,"conf":0.5}`, ts)); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, body)
	}
	for _, who := range []string{"operator", "monitor"} {
		status, body := w.do(t, who, "GET", "/v1/sensors/health", "", "")
		var page SensorHealthPage
		if err := json.Unmarshal([]byte(body), &page); status != 200 || err != nil {
			t.Fatalf("%s: %d %v", who, status, err)
		}
		if len(page.Sensors) != 1 || page.Sensors[0].ID != "A7-1" || *page.Sensors[0].Skew != 2 || !slices.Equal(page.NeverHeard, []string{"A7-2"}) {
			t.Errorf("%s: %s", who, body)
		}
		if strings.Contains(body, "AB123CD") {
			t.Errorf("%s: a plate in %s", who, body)
		}
	}
}
