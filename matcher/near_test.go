package matcher

import (
	"math/rand/v2"
	"slices"
	"testing"

	"vigie/watchlist/plate"
)

// The neighbourhood against the one made of strings.
func TestNeighbours(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20_000 {
		b := make([]byte, plate.MinLen+r.IntN(plate.MaxLen-plate.MinLen+1))
		for i := range b {
			b[i] = "0ODQ1I8B5S2Z6GAXY79"[r.IntN(19)]
		}
		k, err := plate.Parse(string(b))
		if err != nil {
			continue
		}
		folded := k.Fold().String()
		want := []uint64{pack(folded)}
		for i := range folded {
			want = append(want, pack(folded[:i]+folded[i+1:]))
		}
		var got [maxNeighbours]uint64
		n := neighbours(&got, k)
		if n < 2 || got[0] != want[0] || got[1] != want[1] || got[n-1] != want[len(want)-1] {
			t.Fatalf("%s: whole, without the first and without the last do not stand where they should", b)
		}
		if !slices.Equal(sorted(got[:n]), sorted(want)) {
			t.Fatalf("%s: %v, want %v", b, got[:n], want)
		}
	}
}

func sorted(keys []uint64) []uint64 {
	keys = slices.Clone(keys)
	slices.Sort(keys)
	return slices.Compact(keys)
}

func pack(s string) (k uint64) {
	for _, c := range s {
		code := c - '0' + 1
		if c >= 'A' {
			code = c - 'A' + 11
		}
		k = k*packBase + uint64(code)
	}
	return k
}
