package httpapi

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"go.uber.org/zap"

	"vigie/sensors"
	"vigie/stream"
	"vigie/watchlist/control"
)

// sensorDesk is where operators keep the registry of sensors; stream.Desk is one. A change
// returns once it is effective. Errors are those of package stream.
type sensorDesk interface {
	// Sensors returns up to limit sensors in order of id, after the id given.
	Sensors(after string, limit int) []*control.Sensor
	Sensor(id string) (*control.Sensor, bool)
	PutSensor(ctx context.Context, actor string, s control.Sensor) (*control.Sensor, error)
	WithdrawSensor(ctx context.Context, actor, id, reason string) (version int64, err error)
	ImportSensors(ctx context.Context, actor string, file io.Reader, dryRun bool) (stream.ImportReport, error)
}

// sensorWatch knows how sensors do; sensors.Gateway is one.
type sensorWatch interface {
	Health() sensors.Health
}

// SensorPage is one page of the registry. Next is the value of ?after= for the next page,
// empty on the last.
type SensorPage struct {
	Sensors []*control.Sensor `json:"sensors"`
	Next    string            `json:"next,omitempty"`
}

// SensorHealthPage is the answer of GET /v1/sensors/health: what the gateway of this
// process knows. Another gateway hears other sensors.
type SensorHealthPage struct {
	sensors.Health
	// NeverHeard are the registered sensors of which this gateway has heard nothing since
	// it began to watch. Absent where the registry is not served.
	NeverHeard []string `json:"never_heard,omitempty"`
}

func (s *Server) getSensors(w http.ResponseWriter, r *http.Request, _ *Token) error {
	limit, err := pageLimit(r.URL.Query())
	if err != nil {
		return err
	}
	page := SensorPage{Sensors: s.cfg.Registry.Sensors(r.URL.Query().Get("after"), limit)}
	if page.Sensors == nil {
		page.Sensors = []*control.Sensor{}
	}
	if len(page.Sensors) == limit {
		page.Next = page.Sensors[limit-1].ID
	}
	return writeJSON(w, http.StatusOK, page)
}

// pageLimit is the size of a page that a request asks for.
func pageLimit(q url.Values) (int, error) {
	text := q.Get("limit")
	if text == "" {
		return defaultPage, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxPage {
		return 0, badParam("limit", "must be a whole number from 1 to "+strconv.Itoa(maxPage))
	}
	return n, nil
}

func (s *Server) getSensor(w http.ResponseWriter, r *http.Request, _ *Token) error {
	sensor, ok := s.cfg.Registry.Sensor(r.PathValue("sensor"))
	if !ok {
		return stream.ErrNoSensor
	}
	return writeJSON(w, http.StatusOK, sensor)
}

func (s *Server) postSensor(w http.ResponseWriter, r *http.Request, who *Token) error {
	var in control.Sensor
	if err := readJSON(w, r, maxForm, &in); err != nil {
		return err
	}
	sensor, err := s.cfg.Registry.PutSensor(r.Context(), who.Name, in)
	if err != nil {
		return err
	}
	s.logRegistry(who, "sensor put", sensor.ID, sensor.Version)
	return writeJSON(w, http.StatusOK, sensor)
}

func (s *Server) deleteSensor(w http.ResponseWriter, r *http.Request, who *Token) error {
	reason, err := readReason(w, r)
	if err != nil {
		return err
	}
	id := r.PathValue("sensor")
	version, err := s.cfg.Registry.WithdrawSensor(r.Context(), who.Name, id, reason)
	if err != nil {
		return err
	}
	s.logRegistry(who, "sensor withdrawn", id, version)
	return writeJSON(w, http.StatusOK, Withdrawn{Version: version})
}

func (s *Server) postSensorImport(w http.ResponseWriter, r *http.Request, who *Token) error {
	dryRun, err := dryRunParam(r.URL.Query())
	if err != nil {
		return err
	}
	body, err := openBody(w, r, control.MaxSensorFile, "text/csv", "application/json")
	if err != nil {
		return err
	}
	report, err := s.cfg.Registry.ImportSensors(r.Context(), who.Name, body, dryRun)
	if err != nil {
		return err
	}
	if report.Rejected > 0 {
		return rejectedImport(report)
	}
	if report.Applied {
		s.logRegistry(who, "sensors imported", "", report.Version)
	}
	return writeJSON(w, http.StatusOK, report)
}

// dryRunParam reports whether a request asks for a trial.
func dryRunParam(q url.Values) (bool, error) {
	text := q.Get("dry_run")
	if text == "" {
		return false, nil
	}
	dryRun, err := strconv.ParseBool(text)
	if err != nil {
		return false, badParam("dry_run", "must be 1 or 0")
	}
	return dryRun, nil
}

func (s *Server) getSensorHealth(w http.ResponseWriter, _ *http.Request, _ *Token) error {
	page := SensorHealthPage{Health: s.cfg.SensorHealth.Health()}
	if s.cfg.Registry != nil {
		heard := make(map[string]bool, len(page.Sensors))
		for i := range page.Sensors {
			heard[page.Sensors[i].ID] = true
		}
		after := ""
		for {
			registered := s.cfg.Registry.Sensors(after, maxPage)
			for _, sn := range registered {
				if !heard[sn.ID] {
					page.NeverHeard = append(page.NeverHeard, sn.ID)
				}
			}
			if len(registered) < maxPage {
				break
			}
			after = registered[maxPage-1].ID
		}
	}
	return writeJSON(w, http.StatusOK, page)
}

// logRegistry records who changed which sensor. Why stays in the control log.
func (s *Server) logRegistry(who *Token, kind, sensor string, version int64) {
	s.cfg.Log.Info("registry changed", zap.String("actor", who.Name), zap.String("change", kind),
		zap.String("sensor", sensor), zap.Int64("version", version))
}
