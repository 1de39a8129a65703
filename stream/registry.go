package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	onBad    func(error)
	again    time.Duration // from an error to the next try
}

// NewRegistry returns a Registry that has seen nothing. onBad, if not nil, is told of every
// record of a sensor that cannot be read, and of what keeps Follow from following.
func NewRegistry(onBad func(error)) *Registry {
	if onBad == nil {
		onBad = func(error) {}
	}
	r := &Registry{onBad: onBad, again: 10 * time.Second}
	r.sensors.Store(new(map[string]*control.Sensor))
	return r
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
		sensors := make(map[string]*control.Sensor)
		for _, s := range r.state.Sensors() {
			sensors[s.ID] = s
		}
		r.sensors.Store(&sensors)
	}
	r.read = true
	r.caughtUp.Store(true)
	return nil
}

// Sensor returns the sensor of that id, nil when the registry has none.
func (r *Registry) Sensor(id string) *control.Sensor { return (*r.sensors.Load())[id] }

// CaughtUp reports whether the Registry knows all sensors that the log held when it was first
// seen. Before that a sensor that is not there may be one of ours.
func (r *Registry) CaughtUp() bool { return r.caughtUp.Load() }
