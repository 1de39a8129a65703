package spool

import (
	"hash/maphash"

	"vigie/sensors"
)

// maxPassages bounds the memory for passages, at about 20 MB. When there are as many, those
// are forgotten whose last read lies more than half as many reads back, and a new read of
// one may then overtake what the spool has of it. A passage takes seconds; at 2,000
// reads per second so many take two minutes.
const maxPassages = 1 << 19

var seed = maphash.MakeSeed()

// passageOf is the passage of a read as a number that is not 0; 0 for none. Two that share
// one are kept back together, which does no harm.
func passageOf(r *sensors.Read) uint64 {
	if r.Passage == "" {
		return 0
	}
	var h maphash.Hash
	h.SetSeed(seed)
	h.WriteString(r.Sensor)
	h.WriteByte(0)
	h.WriteString(r.Passage)
	return max(h.Sum64(), 1)
}

// passages is the set of passages that have reads in the spool, each with the number of its
// last read.
type passages struct {
	last map[uint64]uint64
}

// add takes note of a read of a passage. Numbers ascend.
func (p *passages) add(passage, number uint64) {
	if passage == 0 {
		return
	}
	if len(p.last) >= maxPassages {
		for k, n := range p.last {
			if n+maxPassages/2 < number {
				delete(p.last, k)
			}
		}
	}
	if p.last == nil {
		p.last = make(map[uint64]uint64)
	}
	p.last[passage] = number
}

// drained takes note that a read of a passage has left the spool.
func (p *passages) drained(passage, number uint64) {
	if p.last[passage] <= number {
		delete(p.last, passage)
	}
	if len(p.last) == 0 {
		p.last = nil // a map does not give memory back
	}
}

func (p *passages) has(passage uint64) bool {
	_, ok := p.last[passage]
	return ok
}
