package app

import "testing"

func TestGCPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, 1 << 20: 100, 12 << 20: 100, 48 << 20: 25, 100 << 20: 12, 3 << 30: 10} {
		if got := gcPercent(live, 10); got != want {
			t.Errorf("gcPercent(%d MiB) = %d, want %d", live>>20, got, want)
		}
	}
	if got := gcPercent(100<<20, loadLeast); got != loadLeast {
		t.Errorf("%d while the lists are loaded", got)
	}
}
