// Package measure says how figures are taken: contenders in turn in one run, so
// that what disturbs the machine disturbs them alike, and quantiles rather than
// means. What is measured is the caller's business.
package measure

import (
	"cmp"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

// Contender is one way to do the work on the reads from a number to another; it
// returns the hits, which keeps the compiler honest and can be compared.
type Contender func(from, to int) (hits int)

// Window is how many reads a contender runs before it is another's turn: few
// enough that a neighbour on the machine spoils single rounds and not the median.
const Window = 1 << 16

// Alternate times the contenders in turn, each round on the next window of n
// reads and each round beginning with another of them, and returns the
// nanoseconds per read by contender and round. Before its turn a contender runs
// the window before, untimed: what is measured is each at work, with what it
// keeps using in the cache, not the cost of coming after another. Twice as many
// rounds are run, and the half is kept in which all contenders together took
// least: a neighbour on the machine only ever slows, and choosing whole rounds
// favours no contender.
func Alternate(rounds, n int, cs []Contender) [][]float64 {
	type round struct {
		total float64
		ns    []float64
	}
	var all []round
	size := min(Window, n)
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // none of them allocates
	runtime.GC()
	for r := -1; r < 2*rounds; r++ { // the first round warms up
		this := round{ns: make([]float64, len(cs))}
		from := (r + 1) * size % (n - size + 1)
		for i := range cs {
			i := (i + r + 1) % len(cs)
			before := (from + n - size) % (n - size + 1)
			cs[i](before, before+size)
			start := time.Now()
			cs[i](from, from+size)
			this.ns[i] = float64(time.Since(start).Nanoseconds()) / float64(size)
			this.total += this.ns[i]
		}
		if r >= 0 {
			all = append(all, this)
		}
	}
	slices.SortStableFunc(all, func(a, b round) int { return cmp.Compare(a.total, b.total) })
	ns := make([][]float64, len(cs))
	for _, r := range all[:rounds] {
		for i := range cs {
			ns[i] = append(ns[i], r.ns[i])
		}
	}
	return ns
}

// Ratios divides a by b, round by round.
func Ratios(a, b []float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = a[i] / b[i]
	}
	return out
}

// Median is Quantile at one half.
func Median(v []float64) float64 { return Quantile(v, 0.5) }

// Quantile returns the value below which a share p of v lies, NaN of nothing.
func Quantile(v []float64, p float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	return s[int(p*float64(len(s)-1)+0.5)]
}
