package metrics

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"vigie/sensors"
)

type nowhere struct{}

func (nowhere) Publish(context.Context, []sensors.Read) error { return nil }

// TestGatewaySensors: what is silent, not registered or off its clock is a figure, and only
// sensors of the registry have one of their own.
func TestGatewaySensors(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	g, err := sensors.New(sensors.Config{
		Publisher: nowhere{}, Clock: func() time.Time { return now }, Known: func(id string) bool { return id != "stranger" },
	})
	if err != nil {
		t.Fatal(err)
	}
	send := func(sensor string, ahead time.Duration) {
		t.Helper()
		if _, err := g.Accept(t.Context(), []sensors.Read{{Sensor: sensor, Plate: "AB123CD", TS: now.Add(ahead).UnixMilli()}}, sensors.AcceptOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	send("dead", -300*time.Millisecond)
	now = now.Add(25 * time.Hour)
	send("A", -3*time.Second)
	send("A", -3*time.Second)
	send("ahead", 10*time.Minute)
	send("stranger", -2*time.Hour)

	reg := New()
	reg.Gateway(g)
	rec := httptest.NewRecorder()
	reg.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		"vigie_sensors_silent 1", "vigie_sensors_unregistered 1", "vigie_sensors_watched 4", "vigie_sensors_untold_reads_total 0",
		"vigie_sensors_duplicate_reads_total 1",
		`vigie_sensors_unknown_reads_total{outcome="accept"} 1`, `vigie_sensors_unknown_reads_total{outcome="refuse"} 0`,
		`vigie_sensors_unknown_reads_total{outcome="lost"} 0`,
		`vigie_sensors_skew_seconds_bucket{le="-60"} 1`, `vigie_sensors_skew_seconds_bucket{le="0.5"} 2`,
		`vigie_sensors_skew_seconds_bucket{le="5"} 3`, `vigie_sensors_skew_seconds_bucket{le="3600"} 3`,
		`vigie_sensors_skew_seconds_bucket{le="+Inf"} 4`, "vigie_sensors_skew_seconds_count 4",
		`vigie_sensors_last_read_timestamp_seconds{sensor="A"}`,
	} {
		if !strings.Contains(rec.Body.String(), "\n"+want) {
			t.Errorf("no line begins with %s", want)
		}
	}
	for _, never := range []string{"stranger", "AB123CD"} {
		if strings.Contains(rec.Body.String(), never) {
			t.Errorf("%s is in the metrics", never)
		}
	}
}
