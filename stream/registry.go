package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"vigie/watchlist/control"
)

// Registry is the sensors of the control log and nothing else of it: a gateway stands at the
// roadside, and must not hold whom the services look for.
//
// One goroutine (Follow) writes; everything else may be called from anywhere.
type Registry struct {
	state    *control.State // owned by Follow, like target
	target   int64          // end of the log when it was first seen
	read     bool           // the log, up to target
	sensors  atomic.Pointer[map[string]*control.Sensor]
	caughtUp atomic.Bool
	file     string // empty for none
	onBad    func(error)
	again    time.Duration // from an error to the next try
}

// NewRegistry returns a Registry that keeps what it knows in a file, so that a gateway which starts
// while Kafka is away knows its sensors and how to read what they send; with an empty name it starts
// with nothing. onBad, if not nil, is told of every record of a sensor that cannot be read, of
// what keeps Follow from following, and of a file that cannot be used.
func NewRegistry(file string, onBad func(error)) *Registry {
	if onBad == nil {
		onBad = func(error) {}
	}
	r := &Registry{file: file, onBad: onBad, again: 10 * time.Second}
	r.sensors.Store(new(map[string]*control.Sensor))
	if file == "" {
		return r
	}
	switch sensors, err := loadSensors(file); {
	case err == nil:
		r.sensors.Store(&sensors)
		r.caughtUp.Store(true)
	case !errors.Is(err, fs.ErrNotExist):
		onBad(fmt.Errorf("stream: the sensors of the last start are not known: %w", err))
	}
	return r
}

// A registry file is the CRC-32C of what follows, in hexadecimal, a line feed, and the sensors as
// JSON.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func loadSensors(file string) (map[string]*control.Sensor, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	sum, text, _ := bytes.Cut(b, []byte("\n"))
	if string(sum) != fmt.Sprintf("%08x", crc32.Checksum(text, castagnoli)) {
		return nil, fmt.Errorf("%s is damaged", file)
	}
	var all []*control.Sensor
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	sensors := make(map[string]*control.Sensor, len(all))
	for _, s := range all {
		sensors[s.ID] = s
	}
	return sensors, nil
}

// keepSensors puts the file in place of the last one, whole or not at all.
func keepSensors(file string, all []*control.Sensor) error {
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%08x\n%s", crc32.Checksum(text, castagnoli), text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// Follow applies the control log until ctx ends. An error does not end it, as it ends a Replica:
// a gateway that has not heard of Kafka for a day keeps the sensors that it knows, takes
// their reads, and reads the log from its beginning once it is back.
func (r *Registry) Follow(ctx context.Context, log ControlLog) error {
	for {
		r.state, r.target, r.read = control.NewState(), -1, false
		err := log.Follow(ctx, r.apply)
		if ctx.Err() != nil {
			return nil
		}
		r.onBad(fmt.Errorf("stream: follow the control log for its sensors: %w", err))
		if pause(ctx, r.again) != nil {
			return nil
		}
	}
}

var sensorKey = []byte(control.KindSensor + "/")

func (r *Registry) apply(records []control.Record, next, end int64) error {
	var changes []control.Change
	for _, rec := range records {
		if !bytes.HasPrefix(rec.Key, sensorKey) {
			continue
		}
		var err error
		changes, err = r.state.Apply(rec, changes)
		var bad *control.RecordError
		switch {
		case errors.As(err, &bad):
			r.onBad(bad)
		case err != nil:
			return err
		}
	}
	if r.target < 0 {
		r.target = end
	}
	if next < r.target {
		return nil // half a registry would forget sensors that another half knows
	}
	if len(changes) > 0 || !r.read {
		sensors, all := make(map[string]*control.Sensor), r.state.Sensors()
		for _, s := range all {
			sensors[s.ID] = s
		}
		r.sensors.Store(&sensors)
		if r.file != "" {
			if err := keepSensors(r.file, all); err != nil {
				r.onBad(fmt.Errorf("stream: the sensors cannot be kept for the next start: %w", err))
			}
		}
	}
	r.read = true
	r.caughtUp.Store(true)
	return nil
}

// Sensor returns the sensor of that id, nil when the registry has none.
func (r *Registry) Sensor(id string) *control.Sensor { return (*r.sensors.Load())[id] }

// CaughtUp reports whether the Registry knows all sensors that the log held when it was first
// seen, or when the file was last written. Before that a sensor that is not there may be one of ours.
func (r *Registry) CaughtUp() bool { return r.caughtUp.Load() }
