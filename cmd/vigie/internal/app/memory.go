package app

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// gcHeadroom is what the heap may grow by between two collections. Nearly all of it is
// the lists, which live for months and hold few pointers: letting it grow by as much as
// there is, as the runtime does by itself, would double the memory of a process for
// collections that are cheap.
const gcHeadroom = 10 << 20

// tendMemory keeps the heap within gcHeadroom of what lives, or a tenth of it, and gives
// back what loading the lists has taken. GOGC, where it is set, wins.
func (a *App) tendMemory(ctx context.Context) error {
	percent, live := 100, []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tune := func() {
		metrics.Read(live)
		if want := gcPercent(live[0].Value.Uint64()); want != percent && os.Getenv("GOGC") == "" {
			percent = want
			debug.SetGCPercent(percent)
		}
	}
	every, caughtUp := 50*time.Millisecond, false
	for {
		tune()
		t := time.NewTimer(every)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		if !caughtUp && a.replica.CaughtUp() {
			every, caughtUp = time.Minute, true
			debug.FreeOSMemory()
		}
	}
}

// gcPercent is the GOGC that lets a heap of which so many bytes live grow by gcHeadroom:
// 100 at most, as the runtime's own, and 10 at least.
func gcPercent(live uint64) int {
	return int(min(100, max(10, gcHeadroom*100/max(live, 1))))
}
