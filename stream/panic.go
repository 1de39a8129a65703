package stream

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"go.uber.org/zap"

	"vigie/sensors"
	"vigie/stream/alert"
)

// panicked is a panic while records were handled. It holds nothing of them: not the
// value of the panic, whose text may quote a plate, and no arguments of functions, since
// a plate packed into a number would show among them.
type panicked struct {
	kind  string // type of the value
	stack string // functions and lines
}

// guard calls f; of a panic it returns what may be told.
func guard(f func() error) (fault *panicked, err error) {
	defer func() {
		if v := recover(); v != nil {
			fault = &panicked{kind: fmt.Sprintf("%T", v), stack: stack()}
		}
	}()
	return nil, f()
}

// stack names the functions that lead to a panic, the innermost first.
func stack() string {
	pcs := make([]uintptr, 48)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)]) // without itself and guard's deferred function
	var b strings.Builder
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		fmt.Fprintf(&b, "%s %s:%d\n", f.Function, f.File, f.Line)
	}
	return b.String()
}

// tell counts a panic, and says where it happened.
func (w *worker) tell(msg string, fault *panicked, offset int64, records int) {
	w.p.stats.panics.Add(1)
	w.p.sampled.Error(msg, zap.Int("partition", w.part.ID()), zap.Int64("offset", offset), zap.Int("records", records),
		zap.String("type", fault.kind), zap.String("where", fault.stack))
}

const (
	msgOneByOne = "a panic while reads were handled: they are handled one by one now. This is a fault of the program, report it"
	msgGuilty   = "a record that makes the program panic goes to the dead letters, the others go on"
)

// attempt is handle; of a panic it takes back what that has added to what is in hand.
func (w *worker) attempt(ctx context.Context, records []Record) (fault *panicked, err error) {
	alerts, later, matched, sentinels := len(w.alerts), len(w.later), w.matched, w.sentinels
	fault, err = guard(func() error { return w.handle(ctx, records) })
	if fault != nil {
		w.alerts, w.offsets, w.matched, w.sentinels = w.alerts[:alerts], w.offsets[:alerts], matched, sentinels
		w.later = w.later[:later]
	}
	return fault, err
}

// oneByOne handles each record of a batch that has panicked alone. Those that panic again go to
// the dead letters: a record that Vigie cannot handle must not keep those behind it
// waiting, nor come again with every start. A dead letter of the first attempt may be
// sent again.
func (w *worker) oneByOne(ctx context.Context, records []Record, fault *panicked) error {
	w.tell(msgOneByOne, fault, records[0].Offset, len(records))
	var letters []DeadLetter
	for i := range records {
		fault, err := w.attempt(ctx, records[i:i+1])
		if err != nil {
			return err
		}
		if fault == nil {
			continue
		}
		rec := &records[i]
		w.tell(msgGuilty, fault, rec.Offset, 1)
		letters = append(letters, DeadLetter{Partition: w.part.ID(), Offset: rec.Offset, Reason: ReasonPanic, Value: rec.Value})
	}
	return w.bury(ctx, letters)
}

// storeOneByOne is oneByOne for alerts whose storing has panicked. What the first attempt
// has stored is stored again, which changes nothing. The records are gone by then: a
// dead letter holds the read encoded anew.
func (w *worker) storeOneByOne(ctx context.Context, fault *panicked) error {
	w.tell(msgOneByOne, fault, w.first(), w.inHand())
	var letters []DeadLetter
	one := func(offset int64, read *sensors.Read, alerts []*alert.Alert, reads []later) error {
		fault, err := guard(func() error { return w.publish(ctx, alerts, reads) })
		if err != nil || fault == nil {
			return err
		}
		w.tell(msgGuilty, fault, offset, 1)
		value, err := sensors.AppendProto(nil, read)
		if err != nil { // it was read from the topic
			value = nil
		}
		letters = append(letters, DeadLetter{Partition: w.part.ID(), Offset: offset, Reason: ReasonPanic, Value: value})
		return nil
	}
	for i, a := range w.alerts {
		if err := one(w.offsets[i], &a.Read, w.alerts[i:i+1], nil); err != nil {
			return err
		}
	}
	for i := range w.later {
		if err := one(w.later[i].offset, &w.later[i].Read, nil, w.later[i:i+1]); err != nil {
			return err
		}
	}
	return w.bury(ctx, letters)
}
