package sim

import (
	"math"
	"math/bits"
)

// rng is SplitMix64. It is the fleet's own so that a seed means the same vehicles
// in every version of Go, which math/rand/v2 does not promise for its methods.
type rng uint64

func (r *rng) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	return mix64(uint64(*r))
}

// mix64 is the finalizer of SplitMix64, a bijection.
func mix64(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// intn returns 0 to n-1. Its bias, n in 2^64, is of no concern.
func (r *rng) intn(n int) int {
	hi, _ := bits.Mul64(r.next(), uint64(n))
	return int(hi)
}

// between returns lo to hi, both included.
func (r *rng) between(lo, hi int) int { return lo + r.intn(hi-lo+1) }

// float returns a number in [0, 1).
func (r *rng) float() float64 { return float64(r.next()>>11) / (1 << 53) }

// chance is true once in 1/p calls.
func (r *rng) chance(p float64) bool { return r.float() < p }

// exp is exponential with mean 1.
func (r *rng) exp() float64 { return -math.Log(1 - r.float()) }

// normal has mean 0 and deviation 1, and no value beyond 3.5: the sum of four
// uniform numbers, near enough to a bell for speeds.
func (r *rng) normal() float64 {
	return (r.float() + r.float() + r.float() + r.float() - 2) * math.Sqrt(3)
}

// pick returns one byte of s.
func (r *rng) pick(s string) byte { return s[r.intn(len(s))] }

// weighted returns an index by its weight.
func (r *rng) weighted(weights []uint32, total uint32) int {
	n := uint32(r.intn(int(total)))
	for i, w := range weights {
		if n < w {
			return i
		}
		n -= w
	}
	return len(weights) - 1
}

func sum(weights []uint32) (total uint32) {
	for _, w := range weights {
		total += w
	}
	return total
}
