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
const gcHeadroom = 12 << 20

// loadLeast is the least GOGC while the lists are loaded. With 10, collections took a third of
// the CPU of a start on a million entries; what it takes more is given back afterwards.
const loadLeast = 25

// tendMemory keeps the heap within gcHeadroom of what lives, or a tenth of it, and gives
// back what loading the lists has taken. GOGC, where it is set, wins.
func (a *App) tendMemory(ctx context.Context) error {
	percent, least, live := 100, uint64(loadLeast), []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tune := func() {
		metrics.Read(live)
		if want := gcPercent(live[0].Value.Uint64(), least); want != percent && os.Getenv("GOGC") == "" {
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
			every, caughtUp, least = time.Minute, true, 10
			debug.FreeOSMemory()
		}
	}
}

// gcPercent is the GOGC that lets a heap of which so many bytes live grow by gcHeadroom:
// 100 at most, as the runtime's own, and least at least.
func gcPercent(live, least uint64) int {
	return int(min(100, max(least, gcHeadroom*100/max(live, 1))))
}
