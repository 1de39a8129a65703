package sim

// Dice is chance for who makes more of the steps of a fleet, such as what its devices say of them.
// The same seed gives the same for ever. It is not safe for concurrent use.
type Dice struct{ rng rng }

// NewDice returns dice of which those of two seeds have nothing in common.
func NewDice(seed uint64) *Dice { return &Dice{rng: rng(mix64(seed))} }

// Chance is true once in 1/p calls.
func (d *Dice) Chance(p float64) bool { return d.rng.chance(p) }

// Between returns lo to hi, both included.
func (d *Dice) Between(lo, hi int) int { return d.rng.between(lo, hi) }

// Exp returns a number of exponential distribution with mean 1.
func (d *Dice) Exp() float64 { return d.rng.exp() }

// Bits returns 64 bits of chance.
func (d *Dice) Bits() uint64 { return d.rng.next() }

// Misread returns what a camera might read in the place of a plate of A-Z and 0-9, which is
// always another text, and how sure it would be, 0 to 1.
func (d *Dice) Misread(plate string) (read string, conf float32) {
	read, edits, _ := misread(&d.rng, plate)
	return read, round3(confidence(&d.rng, edits))
}

// Alpha3 returns the ISO 3166-1 alpha-3 code for the alpha-2 code of a country whose vehicles a
// fleet has, "" for others.
func Alpha3(alpha2 string) string { return alpha3[alpha2] }
