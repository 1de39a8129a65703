package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"vigie/sensors"
	"vigie/watchlist"
	"vigie/watchlist/control"
)

// ErrNoSensor says that the registry has no sensor of that id (any more).
var ErrNoSensor = errors.New("no such sensor in the registry")

// Sensors returns up to limit sensors in order of id, after the id given.
func (d *Desk) Sensors(after string, limit int) (page []*control.Sensor) {
	d.cfg.Replica.View(func(s *control.State) { page = s.Sensors() })
	i, found := slices.BinarySearchFunc(page, after, func(s *control.Sensor, id string) int { return strings.Compare(s.ID, id) })
	if found {
		i++
	}
	page = page[i:]
	return page[:min(limit, len(page))]
}

// Sensor returns one sensor.
func (d *Desk) Sensor(id string) (*control.Sensor, bool) {
	s := d.cfg.Replica.Sensor(id)
	return s, s != nil
}

// PutSensor adds a sensor to the registry or replaces it, and returns it as recorded. What
// it breaks is an *InvalidError. When it returns without an error, no read of the sensor
// meets a list any more that it may not serve.
func (d *Desk) PutSensor(ctx context.Context, actor string, s control.Sensor) (*control.Sensor, error) {
	s.Normalise()
	if fields := d.checkSensor(&s); len(fields) > 0 {
		return nil, &InvalidError{Fields: fields}
	}
	v, err := d.PutSensors(ctx, actor, []control.Sensor{s})
	if err != nil {
		return nil, err
	}
	s.Version = v
	return &s, nil
}

// checkSensor returns every rule that s breaks. The registry may hold ids that no read can
// bear, but nobody is to register a sensor in vain.
func (d *Desk) checkSensor(s *control.Sensor) []watchlist.FieldError {
	errs := s.Validate()
	var fault *sensors.FieldError
	if err := (&sensors.Read{Sensor: s.ID, TS: 1}).Check(); len(errs) == 0 && errors.As(err, &fault) {
		errs = append(errs, watchlist.FieldError{Field: "id", Reason: fault.Reason + ": reads name their sensor so"})
	}
	if f := d.cfg.Formats; f != nil && s.Format != "" && !slices.Contains(f, s.Format) {
		errs = append(errs, watchlist.FieldError{Field: "format", Reason: "is not known here; leave it out, or use one of: " + strings.Join(f, ", ")})
	}
	return errs
}

// WithdrawSensor takes a sensor out of the registry. Its reads become those of an unknown
// sensor: lists limited to zones do not hit there, and what it might not be used for is
// forgotten, so that the gateway had better not accept such reads. For a sensor that is not
// there it makes sure of the same and returns ErrNoSensor.
func (d *Desk) WithdrawSensor(ctx context.Context, actor, id, reason string) (int64, error) {
	why, err := d.why(actor, reason)
	if err != nil {
		return 0, err
	}
	if _, ok := d.Sensor(id); !ok {
		// It may have been withdrawn by a call that could not be confirmed.
		if err := d.confirm(ctx, d.cfg.Replica.Version(), nil); err != nil {
			return 0, err
		}
		return 0, ErrNoSensor
	}
	rec := control.WithdrawSensor(id)
	rec.Why = why
	return d.write(ctx, []control.Record{rec})
}

// ImportSensors plans a file of sensors (see control.ReadSensors) against the registry and,
// unless dryRun, adds and changes them. Sensors that the file does not name stay. One bad
// row and nothing is applied; the report names every bad row.
func (d *Desk) ImportSensors(ctx context.Context, actor string, file io.Reader, dryRun bool) (ImportReport, error) {
	f, err := control.ReadSensors(file)
	if err != nil {
		return ImportReport{}, fmt.Errorf("stream: import sensors: %w", err)
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	rep := ImportReport{Rows: f.Rows, Version: d.cfg.Replica.Version()}
	var added, changed []*control.Sensor
	d.cfg.Replica.View(func(s *control.State) { added, changed, rep.Same = f.Plan(s.Sensor, d.checkSensor) })
	rep.Added, rep.Changed = len(added), len(changed)
	if rep.Errors, rep.Rejected = f.Errors, f.Rejected(); dryRun || rep.Rejected > 0 {
		return rep, nil
	}
	records := make([]control.Record, 0, len(added)+len(changed))
	for _, s := range append(added, changed...) {
		rec, err := control.SensorRecord(s, actor, d.cfg.Clock())
		if err != nil {
			return rep, fmt.Errorf("stream: import sensors: %w", err)
		}
		records = append(records, rec)
	}
	if len(records) == 0 {
		// The rows may have been recorded by a call that could not be confirmed.
		err = d.confirm(ctx, rep.Version, nil)
	} else {
		rep.Version, err = d.write(ctx, records)
	}
	if err != nil {
		return rep, err
	}
	rep.Applied = true
	return rep, nil
}
