package stream

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vigie/watchlist"
	"vigie/watchlist/control"
)

// script is a control log that hands out what it is told, and may break off.
type script struct {
	ControlLog
	steps chan step
}

type step struct {
	records   []control.Record
	next, end int64
	err       error // ends Follow
}

func (l script) Follow(ctx context.Context, apply func([]control.Record, int64, int64) error) error {
	for {
		select {
		case s := <-l.steps:
			if s.err != nil {
				return s.err
			}
			if err := apply(s.records, s.next, s.end); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// A gateway knows sensors and nothing else, and goes on knowing them while the log
// cannot be followed and until it has been read again.
func TestRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := time.Now()
		sensor := func(offset int64, id string) control.Record {
			rec, err := control.SensorRecord(&control.Sensor{ID: id, Name: id}, "op", at)
			if err != nil {
				t.Fatal(err)
			}
			rec.Offset = offset
			return rec
		}
		l := &watchlist.List{ID: "stolen", Name: "n", Owner: "o", LegalBasis: "l", Purpose: "p", Queue: "patrol", Salt: make([]byte, watchlist.SaltSize),
			DefaultAction: watchlist.ActionIntercept, DefaultPriority: watchlist.PriorityHigh}
		list, err := control.ListRecord(l, "op", at)
		if err != nil {
			t.Fatal(err)
		}
		withdraw := control.WithdrawSensor("a")
		withdraw.Offset = 4

		var bad atomic.Int32
		file := filepath.Join(t.TempDir(), "sensors")
		r := NewRegistry(file, func(error) { bad.Add(1) })
		log := script{steps: make(chan step)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Follow(ctx, log) }()
		want := func(when string, caughtUp bool, ids ...string) {
			t.Helper()
			synctest.Wait()
			n := 0
			for _, id := range []string{"a", "b", "c"} {
				if r.Sensor(id) != nil {
					n++
				}
			}
			for _, id := range ids {
				if r.Sensor(id) == nil {
					t.Errorf("%s: %s is not known", when, id)
				}
			}
			if n != len(ids) || r.CaughtUp() != caughtUp {
				t.Errorf("%s: %d sensors, want %d; caught up: %v", when, n, len(ids), r.CaughtUp())
			}
		}
		want("before anything", false)
		log.steps <- step{records: []control.Record{list, sensor(1, "a")}, next: 2, end: 3}
		want("half read", false)
		log.steps <- step{records: []control.Record{sensor(2, "b")}, next: 3, end: 3}
		want("read", true, "a", "b")
		if s := r.state.Stats(); s.Lists != 0 || s.Sensors != 2 {
			t.Errorf("a gateway holds %+v", s)
		}
		log.steps <- step{records: []control.Record{{Offset: 3, Key: []byte("sensor/c"), Value: []byte("x")}}, next: 4, end: 4}
		want("an unreadable record", true, "a", "b")
		log.steps <- step{err: errors.New("not read for a day")}
		want("broken off", true, "a", "b")
		if n := bad.Load(); n != 2 {
			t.Errorf("told of %d errors, want the record and the end", n)
		}
		log.steps <- step{records: []control.Record{sensor(1, "a")}, next: 2, end: 5}
		want("read again by half", true, "a", "b")
		log.steps <- step{records: []control.Record{sensor(2, "b"), withdraw}, next: 5, end: 5}
		want("read again", true, "b")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}

		// The next start knows what this one knew, before it has heard of the log; but no damaged file.
		if r = NewRegistry(file, func(error) { bad.Add(1) }); bad.Load() != 2 {
			t.Error("a whole file is not used")
		}
		want("started again", true, "b")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			damaged := slices.Clone(b)
			damaged[i] ^= 4
			if err := os.WriteFile(file, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			before := bad.Load()
			if r = NewRegistry(file, func(error) { bad.Add(1) }); r.CaughtUp() || bad.Load() != before+1 {
				t.Fatalf("a file with byte %d damaged is used", i)
			}
		}
	})
}
