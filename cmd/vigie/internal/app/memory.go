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
const gcHeadroom = 16 << 20

// loadPercent is the GOGC while the lists are loaded: nearly all that is allocated stays.
const loadPercent = 25

// tendMemory gives back what loading the lists has taken, and from then on keeps the
// heap within gcHeadroom of what lives, or a tenth of it. GOGC, where it is set, wins.
func (a *App) tendMemory(ctx context.Context) error {
	tune := os.Getenv("GOGC") == ""
	if tune {
		debug.SetGCPercent(loadPercent)
	}
	if err := a.replica.WaitCaughtUp(ctx); err != nil {
		return nil // told to stop
	}
	debug.FreeOSMemory()
	if !tune {
		return nil
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for percent := loadPercent; ; {
		metrics.Read(live)
		if want := gcPercent(live[0].Value.Uint64()); want != percent {
			percent = want
			debug.SetGCPercent(percent)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// gcPercent is the GOGC that lets a heap of which so many bytes live grow by gcHeadroom:
// 100 at most, as the runtime's own, and 10 at least.
func gcPercent(live uint64) int {
	return int(min(100, max(10, gcHeadroom*100/max(live, 1))))
}
