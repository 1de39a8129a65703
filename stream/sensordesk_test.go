package stream_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"vigie/stream"
	"vigie/watchlist"
	"vigie/watchlist/control"
)

// TestSensorMayNotServeList: reads of a sensor that is limited to other lists alert on its
// own only, from the moment at which the limit was confirmed until it is gone.
func TestSensorMayNotServeList(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.list("wanted", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	h.entry("wanted", "AB-123-CD")
	h.process(nil)
	offset := int64(0)
	pass := func() (lists []string) {
		t.Helper()
		before := len(h.queues.In(watchlist.DefaultQueue))
		h.produce(0, read(fmt.Sprint("r", offset), "AB-123-CD"))
		offset++
		h.committed(offset, 0)
		for _, a := range h.queues.In(watchlist.DefaultQueue)[before:] {
			lists = append(lists, a.List.ID)
		}
		slices.Sort(lists)
		return lists
	}
	sensor := control.Sensor{ID: read("x", "AB-123-CD").Sensor, Lists: []string{"wanted"}}
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"not registered", func() error { return nil }, "stolen wanted"},
		{"limited", func() error { _, err := h.desk.PutSensor(t.Context(), "op", sensor); return err }, "wanted"},
		{"withdrawn", func() error { _, err := h.desk.WithdrawSensor(t.Context(), "op", sensor.ID, "gone"); return err }, "stolen wanted"},
		{"limited to a purpose of no list", func() error {
			_, err := h.desk.PutSensor(t.Context(), "op", control.Sensor{ID: sensor.ID, Purposes: []string{"fraude"}})
			return err
		}, ""},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := strings.Join(pass(), " "); got != step.want {
			t.Errorf("%s: alerts of %q, want %q", step.name, got, step.want)
		}
	}
	ex := h.desk.Explain(stream.ExplainQuery{Plate: "AB-123-CD", Country: "FR", Sensor: sensor.ID})
	if len(ex.Hits) != 0 || len(ex.Others) != 2 || !strings.Contains(ex.Others[0].Because, "this sensor may not be used") {
		t.Errorf("explained as %+v", ex)
	}
}

func TestSensorDesk(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	for _, id := range []string{"c", "a", "b"} {
		s, err := h.desk.PutSensor(ctx, "op", control.Sensor{ID: id, Country: "F"})
		if err != nil || s.Version < 0 || s.Country != "FR" {
			t.Fatalf("PutSensor: %+v, %v", s, err)
		}
		if got, ok := h.desk.Sensor(id); !ok || !got.Equal(s) || got.Version != s.Version {
			t.Errorf("Sensor(%s) is %+v", id, got)
		}
	}
	for _, tt := range []struct {
		after string
		limit int
		want  string
	}{{"", 10, "a b c"}, {"", 2, "a b"}, {"b", 2, "c"}, {"aa", 1, "b"}, {"c", 1, ""}} {
		var got []string
		for _, s := range h.desk.Sensors(tt.after, tt.limit) {
			got = append(got, s.ID)
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("Sensors(%q, %d) is %q, want %q", tt.after, tt.limit, s, tt.want)
		}
	}
	var invalid *stream.InvalidError
	if _, err := h.desk.PutSensor(ctx, "op", control.Sensor{ID: "d", Clock: "sun"}); !errors.As(err, &invalid) || invalid.Fields[0].Field != "clock" {
		t.Errorf("a bad sensor: %v", err)
	}
	if _, err := h.desk.PutSensor(ctx, "op", control.Sensor{ID: "A7/118 2"}); !errors.As(err, &invalid) || invalid.Fields[0].Field != "id" {
		t.Errorf("an id that no read can bear: %v", err)
	}
	if _, err := h.desk.WithdrawSensor(ctx, "op", "a", " "); !errors.As(err, &invalid) || invalid.Fields[0].Field != "reason" {
		t.Errorf("withdrawn without a reason: %v", err)
	}
	if _, err := h.desk.WithdrawSensor(ctx, "op", "a", "stolen"); err != nil {
		t.Error(err)
	}
	if _, ok := h.desk.Sensor("a"); ok {
		t.Error("a is still there")
	}
	if _, err := h.desk.WithdrawSensor(ctx, "op", "a", "stolen"); !errors.Is(err, stream.ErrNoSensor) {
		t.Errorf("withdrawn again: %v, want ErrNoSensor", err)
	}
}

// TestSensorFormats: a misspelt format is refused from a form and from a file.
func TestSensorFormats(t *testing.T) {
	h := newHouse(t)
	desk, err := stream.NewDesk(stream.DeskConfig{Log: h.log, Replica: h.replica, Fencer: h.queues, Formats: []string{"axis", "onvif"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"", "onvif"} {
		if _, err := desk.PutSensor(t.Context(), "op", control.Sensor{ID: "a", Format: format}); err != nil {
			t.Errorf("format %q: %v", format, err)
		}
	}
	var invalid *stream.InvalidError
	if _, err := desk.PutSensor(t.Context(), "op", control.Sensor{ID: "a", Format: "onfiv"}); !errors.As(err, &invalid) || invalid.Fields[0].Field != "format" {
		t.Errorf("a form: %v", err)
	}
	rep, err := desk.ImportSensors(t.Context(), "op", strings.NewReader("id,format\na,onfiv\n"), false)
	if err != nil || rep.Rejected != 1 || rep.Errors[0].Column != "format" || rep.Applied {
		t.Errorf("a file: %+v, %v", rep, err)
	}
}

func TestImportSensors(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	if _, err := h.desk.PutSensor(ctx, "op", control.Sensor{ID: "old", Name: "before", Lists: []string{"stolen"}}); err != nil {
		t.Fatal(err)
	}
	const file = "id,name\nold,after\nnew,n\n"
	rep, err := h.desk.ImportSensors(ctx, "op", strings.NewReader(file), true)
	if err != nil || rep.Rows != 2 || rep.Added != 1 || rep.Changed != 1 || rep.Applied {
		t.Errorf("the trial: %+v, %v", rep, err)
	}
	if _, ok := h.desk.Sensor("new"); ok {
		t.Error("the trial has written")
	}
	rep, err = h.desk.ImportSensors(ctx, "op", strings.NewReader(file+"bad,\x00\n"), false)
	if err != nil || rep.Applied || rep.Rejected != 1 || rep.Errors[0].Row != 4 || rep.Errors[0].Column != "name" {
		t.Errorf("with a bad row: %+v, %v", rep, err)
	}
	if _, ok := h.desk.Sensor("new"); ok {
		t.Error("a file with a bad row was applied")
	}

	var away atomic.Bool
	h.queues.Fail = func() error {
		if away.Load() {
			return errors.New("away")
		}
		return nil
	}
	away.Store(true)
	if _, err := h.desk.ImportSensors(ctx, "op", strings.NewReader(file), false); !errors.Is(err, stream.ErrNotConfirmed) {
		t.Errorf("with the queues away: %v", err)
	}
	away.Store(false)
	rep, err = h.desk.ImportSensors(ctx, "op", strings.NewReader(file), false)
	if err != nil || !rep.Applied || rep.Same != 2 {
		t.Errorf("repeated: %+v, %v; want it confirmed with nothing to write", rep, err)
	}
	if s, ok := h.desk.Sensor("old"); !ok || s.Name != "after" || !slices.Equal(s.Lists, []string{"stolen"}) {
		t.Errorf("old is %+v", s)
	}
}
