package matcher

import (
	"math/rand/v2"
	"testing"
)

// TestFilter bounds the false-positive rate at the size the filter was built
// for and shows that it never forgets a key.
func TestFilter(t *testing.T) {
	for _, n := range []int{1, 10, 1000, 100_000} {
		rng := rand.New(rand.NewPCG(uint64(n), 3))
		f := newFilter(n)
		words := f.BitSet().Words()
		keys := make(map[uint64]bool, n)
		for range n {
			k := rng.Uint64() >> 1
			keys[k] = true
			filterAdd(words, mix(k))
		}
		for k := range keys {
			if !filterHas(words, mix(k)) {
				t.Fatalf("n=%d: a key that was added is not there", n)
			}
		}
		const probes = 200_000
		wrong := 0
		for range probes {
			if k := rng.Uint64() >> 1; !keys[k] && filterHas(words, mix(k)) {
				wrong++
			}
		}
		rate := float64(wrong) / probes
		t.Logf("n=%d: false positives %.3f %%, %d bits per key", n, 100*rate, len(words)*64/n)
		if rate > 0.01 {
			t.Errorf("n=%d: false positives %.2f %%, want at most 1 %%", n, 100*rate)
		}
	}
}
