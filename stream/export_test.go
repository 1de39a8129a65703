package stream

import (
	"context"

	"vigie/sensors"
)

// BreakDecode makes a processor decode through f, which is given the real decoder.
func (p *Processor) BreakDecode(f func(value []byte, r *sensors.Read, decode func([]byte, *sensors.Read) error) error) {
	p.decode = func(value []byte, r *sensors.Read) error { return f(value, r, sensors.DecodeView) }
}

// HandleBare handles records without the guard against panics.
func (p *Processor) HandleBare(ctx context.Context, part Partition, records []Record) error {
	w := worker{p: p, part: part, lag: p.stats.partition(part.ID())}
	return w.handle(ctx, records)
}

// Apply is what a control log calls.
var Apply = (*Replica).apply
