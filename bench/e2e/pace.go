//go:build linux

package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"vigie/bench/workload"
)

// schedule says when reads are due. It does not wait for answers: what a slow service
// delays counts from when it was due, and so in full.
type schedule struct {
	start time.Time
	rate  float64 // reads a second
}

// due is when read n, from 0, is to be sent.
func (s schedule) due(n int64) time.Time {
	return s.start.Add(time.Duration(float64(n) / s.rate * float64(time.Second)))
}

const (
	// tick is the shortest sleep between sends: so long reads that are due wait for each
	// other, at most.
	tick = 250 * time.Microsecond
	// behindAfter is from when on a read counts as sent behind the schedule.
	behindAfter = 5 * time.Millisecond
)

// feed sends reads at their times.
type feed struct {
	schedule
	client *kgo.Client
	reads  []workload.Read // over and over
	cast   *caster
	encode encoder
	ledger *ledger

	sent   int64
	behind int64
	worst  time.Duration
	failed error // first error of a delivery
	mu     sync.Mutex
}

// run sends until ctx ends or total reads are sent, and then waits for the broker.
func (f *feed) run(ctx context.Context, total int64) error {
	// A sleep of the runtime may take a millisecond longer than asked; one of the
	// system on a thread of ours 50 microseconds.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for f.sent < total && ctx.Err() == nil {
		now := time.Now()
		for f.sent < total {
			due := f.due(f.sent)
			late := now.Sub(due)
			if late < 0 {
				break
			}
			if late > behindAfter {
				f.behind++
			}
			f.worst = max(f.worst, late)
			if err := f.send(due); err != nil {
				return err
			}
		}
		rest := syscall.NsecToTimespec(int64(max(tick, time.Until(f.due(f.sent)))))
		_ = syscall.Nanosleep(&rest, nil) // cut short by a signal it is made good by the next
	}
	if err := f.client.Flush(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// send hands one read to the client.
func (f *feed) send(due time.Time) error {
	r, id, err := f.cast.next(&f.reads[f.sent%int64(len(f.reads))], due)
	if err != nil {
		return err
	}
	if id != "" {
		f.ledger.expect(id, due)
	}
	value, err := f.encode(make([]byte, 0, 128), &r)
	if err != nil {
		return err
	}
	f.sent++
	f.client.Produce(context.Background(), &kgo.Record{Key: []byte(r.Sensor), Value: value}, func(_ *kgo.Record, err error) {
		if err != nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.failed == nil {
				f.failed = fmt.Errorf("produce: %w", err)
			}
		}
	})
	return nil
}
