package sim

import "strings"

// alphabet gives the characters of plates the places they have in a table.
const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

// table holds how real engines misread; see internal/learn for the counting.
type table struct {
	reads, wrong, otherLength int
	edits                     [9]uint32      // reads by number of edits; 0 is right, 8 is 8 or more
	deletions, insertions     [3]uint32      // at the beginning, inside, at the end
	inserted                  [36]uint32     // inserted characters
	rightBand, wrongBand      [10]uint32     // right and wrong reads by tenth of confidence
	conf                      [4][33]float32 // quantiles of confidence for 0, 1, 2, 3 or more edits
	subs                      [36]substitutions
}

// substitutions of one character.
type substitutions struct {
	seen    uint32 // how often the character stood on a plate
	to      string // what it was read as
	weights []uint32
}

// Totals of learnt, made once.
var (
	editsTotal      = sum(learnt.edits[1:])
	deletionsTotal  = sum(learnt.deletions[:])
	insertionsTotal = sum(learnt.insertions[:])
	insertedTotal   = sum(learnt.inserted[:])
	subsTotal, rate = func() (total [36]uint32, rate [36]uint32) {
		for i, s := range learnt.subs {
			total[i] = sum(s.weights)
			rate[i] = uint32(1e6 * float64(total[i]) / float64(s.seen))
		}
		return total, rate
	}()
	// kinds weighs substitution, deletion and insertion against each other.
	kinds      = [3]uint32{sum(subsTotal[:]), deletionsTotal, insertionsTotal}
	kindsTotal = sum(kinds[:])
)

// characters of a plate, at most as many as plate.MaxLen.
type characters struct {
	c [12]byte
	n int
}

func charactersOf(s string) (t characters) {
	t.n = copy(t.c[:], s)
	return t
}

func (t *characters) text() string { return string(t.c[:t.n]) }

// misread returns what a camera might read instead of truth, which is of A-Z and
// 0-9, and how many edits it took, at least one. doubt has a bit for every
// character of the result that is not as it was.
//
// The number of edits, their kinds, the place of deletions and insertions, and the
// pairs of characters come each from the learnt table, independently of each
// other. Real errors hang together more: a blurred plate loses neighbours.
func misread(r *rng, truth string) (read string, edits int, doubt uint16) {
	for {
		t := charactersOf(truth)
		doubt = 0
		edits = 1 + r.weighted(learnt.edits[1:], editsTotal)
		for range edits {
			doubt = edit(r, &t, doubt)
		}
		if read = t.text(); read != truth { // edits can undo each other
			return read, edits, doubt
		}
	}
}

// edit makes one edit and keeps doubt in step.
func edit(r *rng, t *characters, doubt uint16) uint16 {
	switch kind := r.weighted(kinds[:], kindsTotal); {
	case kind == 1 && t.n > 3:
		i := place(r, learnt.deletions[:], deletionsTotal, t.n-1)
		copy(t.c[i:], t.c[i+1:t.n])
		t.n--
		low := uint16(1)<<i - 1
		return doubt&low | doubt>>1&^low
	case kind == 2 && t.n < len(t.c):
		i := place(r, learnt.insertions[:], insertionsTotal, t.n)
		copy(t.c[i+1:], t.c[i:t.n])
		t.c[i] = alphabet[r.weighted(learnt.inserted[:], insertedTotal)]
		t.n++
		low := uint16(1)<<i - 1
		return doubt&low | doubt&^low<<1 | 1<<i
	default:
		var weights [12]uint32
		for i := range t.n {
			weights[i] = rate[strings.IndexByte(alphabet, t.c[i])]
		}
		i := r.weighted(weights[:t.n], sum(weights[:t.n]))
		c := strings.IndexByte(alphabet, t.c[i])
		t.c[i] = learnt.subs[c].to[r.weighted(learnt.subs[c].weights, subsTotal[c])]
		return doubt | 1<<i
	}
}

// place returns 0, last or a position between, by the weights of beginning,
// inside and end.
func place(r *rng, weights []uint32, total uint32, last int) int {
	switch r.weighted(weights, total) {
	case 0:
		return 0
	case 1:
		return r.between(1, last-1)
	}
	return last
}

// confidence draws what an engine says of a read with so many edits.
func confidence(r *rng, edits int) float32 {
	q := &learnt.conf[min(edits, 3)]
	at := r.float() * float64(len(q)-1)
	i := int(at)
	return q[i] + float32(at-float64(i))*(q[i+1]-q[i])
}
