package measure

import (
	"math"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	v := []float64{5, 1, 4, 2, 3}
	if Median(v) != 3 || Quantile(v, 0) != 1 || Quantile(v, 1) != 5 || Quantile(v, 0.99) != 5 {
		t.Errorf("quantiles of %v", v)
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

// TestAlternate: every contender gets the same windows, all within the reads, and
// the slower one is found to be.
func TestAlternate(t *testing.T) {
	const rounds, n = 7, 3 * Window / 2
	var got [2][]int
	run := func(i int, d time.Duration) Contender {
		return func(from, to int) int {
			if from < 0 || to > n || to-from != Window {
				t.Errorf("from %d to %d of %d", from, to, n)
			}
			got[i] = append(got[i], from)
			time.Sleep(d)
			return 0
		}
	}
	ns := Alternate(rounds, n, []Contender{run(0, 0), run(1, 5*time.Millisecond)})
	for i := range got[0] {
		if got[0][i] != got[1][i] {
			t.Errorf("windows %v and %v", got[0], got[1])
			break
		}
	}
	if len(got[0]) != 2*(2*rounds+1) || len(ns[0]) != rounds || len(ns[1]) != rounds {
		t.Errorf("%d windows, %d and %d values", len(got[0]), len(ns[0]), len(ns[1]))
	}
	if r := Ratios(ns[1], ns[0]); Median(r) < 1 {
		t.Errorf("ratios %v", r)
	}
}

func TestHere(t *testing.T) {
	if m := Here(); m.Cores < 1 || m.Go == "" || m.Date == "" || m.String() == "" {
		t.Errorf("%#v", m)
	}
}
