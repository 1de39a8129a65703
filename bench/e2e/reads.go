//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"vigie/bench/workload"
	"vigie/sensors"
	"vigie/stream/alert"
	"vigie/watchlist/plate"
)

// fleet are the ids of sensors: motorway, kilometre, lane.
func fleet(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("A%d-%d-%d", 1+i%13, 1+i/13%300, 1+i/(13*300))
	}
	return ids
}

// fleetSize is that of the French plan of 2024.
const fleetSize = 3104

// caster turns the reads of a workload into reads of sensors.
type caster struct {
	rng    *rand.Rand
	fleet  []string
	wanted wanted
	run    string // begins every id, so that no two runs share one
	n      int64
}

func newCaster(run string, w wanted) *caster {
	return &caster{rng: rand.New(rand.NewPCG(1, 2)), fleet: fleet(fleetSize), wanted: w, run: run}
}

// next is the read that a sensor has made at a time of a workload's read. For a read
// that hits it returns the id of the alert too.
func (c *caster) next(r *workload.Read, at time.Time) (out sensors.Read, alertID string, err error) {
	out = sensors.Read{
		ID: c.run + strconv.FormatInt(c.n, 36), Sensor: c.fleet[c.rng.IntN(len(c.fleet))],
		Plate: r.Text, TS: at.UnixMilli(), Conf: float32(70+c.rng.IntN(30)) / 100,
	}
	c.n++
	if r.Country != 0 {
		out.Country = r.Country.String()
	}
	if r.Hit {
		k, err := plate.Parse(r.Text)
		if err != nil {
			return out, "", err
		}
		alertID = alert.ID(&out, c.wanted[k])
	}
	return out, alertID, nil
}

// appendJSON appends the JSON form of a read, as a sensor's own producer writes it. No
// text of ours needs escaping.
func appendJSON(b []byte, r *sensors.Read) ([]byte, error) {
	b = append(append(b, `{"id":"`...), r.ID...)
	b = append(append(b, `","sensor":"`...), r.Sensor...)
	b = append(append(b, `","plate":"`...), r.Plate...)
	if r.Country != "" {
		b = append(append(b, `","country":"`...), r.Country...)
	}
	b = strconv.AppendInt(append(b, `","ts":`...), r.TS, 10)
	b = strconv.AppendFloat(append(b, `,"conf":`...), float64(r.Conf), 'f', 2, 32)
	return append(b, '}'), nil
}

// encoder appends a read in the form of a value on the reads topic.
type encoder func([]byte, *sensors.Read) ([]byte, error)

var formats = map[string]encoder{"json": appendJSON, "protobuf": sensors.AppendProto}

// backlog is what was written to the reads topic.
type backlog struct {
	reads  int64
	bytes  int64           // of the values
	alerts map[string]bool // by id, that have to come of it
}

// mean is the bytes of a value on average.
func (b *backlog) mean() float64 { return float64(b.bytes) / float64(b.reads) }

// produce writes all reads of a workload, made at the times that at gives, and returns
// once all are acknowledged.
func produce(ctx context.Context, c *kgo.Client, w *workload.Workload, cast *caster, encode encoder, at func() time.Time) (*backlog, error) {
	out := &backlog{alerts: make(map[string]bool, w.Hits)}
	var mu sync.Mutex
	var failed error
	done := func(_ *kgo.Record, err error) {
		if err != nil {
			mu.Lock()
			failed = err
			mu.Unlock()
		}
	}
	const slab = 1024
	var records []kgo.Record
	var values []byte
	for i := range w.Reads {
		if i%slab == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			records, values = make([]kgo.Record, slab), make([]byte, 0, slab*200)
		}
		r, id, err := cast.next(&w.Reads[i], at())
		if err != nil {
			return nil, err
		}
		if id != "" {
			out.alerts[id] = true
		}
		from := len(values)
		if values, err = encode(values, &r); err != nil {
			return nil, err
		}
		rec := &records[i%slab]
		rec.Key, rec.Value = []byte(r.Sensor), values[from:len(values):len(values)]
		out.bytes += int64(len(rec.Value))
		c.Produce(ctx, rec, done)
	}
	out.reads = int64(len(w.Reads))
	if err := c.Flush(ctx); err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	if failed != nil {
		return nil, fmt.Errorf("produce: %w", failed)
	}
	return out, nil
}
