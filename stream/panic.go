package stream

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"go.uber.org/zap"
)

// panicked is a panic while records were handled. It holds nothing of them: not the
// value of the panic, whose text may quote a plate, and no arguments of functions, since
// a plate packed into a number would show among them.
type panicked struct {
	kind  string // type of the value
	stack string // functions and lines
}

// attempt is handle; of a panic it returns what may be told.
func (w *worker) attempt(ctx context.Context, records []Record) (fault *panicked, err error) {
	defer func() {
		if v := recover(); v != nil {
			w.p.stats.panics.Add(1)
			fault = &panicked{kind: fmt.Sprintf("%T", v), stack: stack()}
		}
	}()
	return nil, w.handle(ctx, records)
}

// stack names the functions that lead to a panic, the innermost first.
func stack() string {
	pcs := make([]uintptr, 48)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)]) // without itself and attempt's deferred function
	var b strings.Builder
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		fmt.Fprintf(&b, "%s %s:%d\n", f.Function, f.File, f.Line)
	}
	return b.String()
}

// oneByOne handles each record of a batch that has panicked alone. Those that panic again go to
// the dead letters: a record that Vigie cannot handle must not keep those behind it
// waiting, nor come again with every start. What the first attempt has stored is stored
// again, which changes nothing.
func (w *worker) oneByOne(ctx context.Context, records []Record, fault *panicked) error {
	tell := func(msg string, fault *panicked, offset int64, records int) {
		w.p.sampled.Error(msg, zap.Int("partition", w.part.ID()), zap.Int64("offset", offset), zap.Int("records", records),
			zap.String("type", fault.kind), zap.String("where", fault.stack))
	}
	tell("a panic while a batch of reads was handled: they are handled one by one now. This is a fault of the program, report it", fault, records[0].Offset, len(records))
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
		tell("a record that makes the program panic goes to the dead letters, the others go on", fault, rec.Offset, 1)
		letters = append(letters, DeadLetter{Partition: w.part.ID(), Offset: rec.Offset, Reason: ReasonPanic, Value: rec.Value})
	}
	if len(letters) == 0 {
		return nil // it did not come again
	}
	return w.bury(ctx, letters)
}
