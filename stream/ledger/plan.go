package ledger

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// Plan is what a load does. Two Generators of equal Plans give the same reads and
// the same plates to change.
type Plan struct {
	Seed uint64 `json:"seed"`
	// Run begins the id of every read and so the ids of all alerts. It must be
	// another for every run, or the service takes the second for a repeat of the
	// first. Letters, digits and hyphens, at most 32.
	Run      string        `json:"run"`
	Rate     float64       `json:"rate"`     // reads per second
	Duration time.Duration `json:"duration"` // of sending, in nanoseconds
	// WantedShare is the share of reads of plates that are on the list at some
	// time, though not always when they are read.
	WantedShare float64 `json:"wanted_share"`
	// MisreadShare is the share of reads with one character taken for its
	// look-alike.
	MisreadShare float64 `json:"misread_share"`
	// Changes is how many entries are added or withdrawn per second.
	Changes float64 `json:"changes_per_second"`
	// Entries is how many entries are on the list when the reads begin; as many
	// plates more wait to be added.
	Entries int `json:"entries"`
	// Sensors is how many sensors send; reads are spread over them evenly.
	Sensors int `json:"sensors"`
}

// Limits of a Plan.
const (
	MaxRate    = 1_000_000
	MaxEntries = 1_000_000
	MaxSensors = 100_000
)

// check names the first field that cannot be.
func (p *Plan) check() error {
	bad := func(name, want string) error { return fmt.Errorf("ledger: Plan.%s must be %s", name, want) }
	share := func(f float64) bool { return f >= 0 && f <= 1 }
	switch {
	case !valid(p.Run) || len(p.Run) > 32:
		return bad("Run", "1 to 32 visible ASCII characters")
	case !(p.Rate > 0 && p.Rate <= MaxRate):
		return bad("Rate", fmt.Sprintf("more than 0 and at most %d", MaxRate))
	case p.Duration <= 0:
		return bad("Duration", "more than 0")
	case !share(p.WantedShare):
		return bad("WantedShare", "0 to 1")
	case !share(p.MisreadShare):
		return bad("MisreadShare", "0 to 1")
	case !(p.Changes >= 0 && p.Changes <= MaxRate):
		return bad("Changes", fmt.Sprintf("0 to %d", MaxRate))
	case p.Entries < 1 || p.Entries > MaxEntries:
		return bad("Entries", fmt.Sprintf("1 to %d", MaxEntries))
	case p.Sensors < 1 || p.Sensors > MaxSensors:
		return bad("Sensors", fmt.Sprintf("1 to %d", MaxSensors))
	}
	return nil
}

// Reads is how many reads the plan has.
func (p *Plan) Reads() int64 { return int64(p.Rate * p.Duration.Seconds()) }

// Generator makes the reads of a Plan one after the other, and says which plate is
// the next to change. It reads no clock. It is for one goroutine; make two for two.
type Generator struct {
	plan    Plan
	reads   *rand.Rand
	changes *rand.Rand
	wanted  []string
	isA     map[string]bool // wanted
	sensors []string
	n       int64

	recent     int     // index of the plate that was changed last, as planned
	recentFrom float64 // seconds: when the plan changes the next
	ahead      *rand.Rand
}

// Country of every plate of a Generator.
const Country = "FR"

// NewGenerator returns a Generator at the beginning of a plan.
func NewGenerator(p Plan) (*Generator, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	g := &Generator{
		plan:    p,
		reads:   rand.New(rand.NewPCG(p.Seed, 1)),
		changes: rand.New(rand.NewPCG(p.Seed, 2)),
		ahead:   rand.New(rand.NewPCG(p.Seed, 2)),
		isA:     make(map[string]bool, 2*p.Entries),
		recent:  -1,
	}
	if p.Changes > 0 {
		g.recentFrom = 1 / p.Changes
	}
	plates := rand.New(rand.NewPCG(p.Seed, 3))
	for len(g.wanted) < 2*p.Entries {
		if text := drawPlate(plates); !g.isA[text] {
			g.isA[text] = true
			g.wanted = append(g.wanted, text)
		}
	}
	for i := range p.Sensors {
		g.sensors = append(g.sensors, "load-"+strconv.Itoa(i+1))
	}
	return g, nil
}

// Due is when read n is due, from the start of the plan.
func (p *Plan) Due(n int64) time.Duration {
	return time.Duration(float64(n) / p.Rate * float64(time.Second))
}

// ChangeDue is when change n is due, from the start of the plan. The changes that
// fill the list before do not count.
func (p *Plan) ChangeDue(n int64) time.Duration {
	return time.Duration(float64(n+1) / p.Changes * float64(time.Second))
}

// Wanted are the plates that the plan puts on the list at one time or another: the
// first Plan.Entries before it begins.
func (g *Generator) Wanted() []string { return g.wanted }

// NextChange is the index in Wanted of the next plate to change: to withdraw when
// it is on the list, to add when it is not.
func (g *Generator) NextChange() int { return g.changes.IntN(len(g.wanted)) }

// Next returns the next read, without its times, and false when the plan has no
// more. A fourth of the reads of wanted plates are of the plate that is planned to
// have changed last, for that is where a service goes wrong.
func (g *Generator) Next() (Read, bool) {
	if g.n >= g.plan.Reads() {
		return Read{}, false
	}
	r := g.reads
	read := Read{
		N: g.n, ID: g.plan.Run + "-" + strconv.FormatInt(g.n, 36), Country: Country,
		Sensor: g.sensors[r.IntN(len(g.sensors))],
	}
	for at := g.plan.Due(g.n).Seconds(); g.plan.Changes > 0 && g.recentFrom <= at; g.recentFrom += 1 / g.plan.Changes {
		g.recent = g.ahead.IntN(len(g.wanted))
	}
	switch {
	case r.Float64() >= g.plan.WantedShare:
		for read.Plate = drawPlate(r); g.isA[read.Plate]; read.Plate = drawPlate(r) {
		}
	case g.recent >= 0 && r.IntN(4) == 0:
		read.Plate = g.wanted[g.recent]
	default:
		read.Plate = g.wanted[r.IntN(len(g.wanted))]
	}
	if g.plan.MisreadShare > 0 && r.Float64() < g.plan.MisreadShare {
		read.Plate = misread(r, read.Plate)
	}
	g.n++
	return read, true
}

// drawPlate draws a plate of the French pattern in use since 2009.
func drawPlate(rng *rand.Rand) string {
	const letters = "ABCDEFGHJKLMNPQRSTVWXYZ" // without I O U
	b := make([]byte, 0, 9)
	pair := func() {
		for {
			x, y := letters[rng.IntN(len(letters))], letters[rng.IntN(len(letters))]
			if x != 'S' || y != 'S' { // never issued
				b = append(b, x, y)
				return
			}
		}
	}
	pair()
	n := 1 + rng.IntN(999)
	b = append(b, '-', byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10), '-')
	pair()
	return string(b)
}

// lookAlike is what cameras take for one another. No result is a plate of the
// pattern of drawPlate.
var lookAlike = map[byte]byte{
	'B': '8', 'D': '0', 'Q': '0', 'G': '6', 'S': '5', 'Z': '2', 'T': '7', 'A': '4',
	'8': 'B', '0': 'O', '6': 'G', '5': 'S', '2': 'Z', '7': 'T', '4': 'A', '1': 'I',
}

// misread takes one character of text for its look-alike, if one has any.
func misread(rng *rand.Rand, text string) string {
	b := []byte(text)
	from := rng.IntN(len(b))
	for i := range b {
		at := (from + i) % len(b)
		if c, ok := lookAlike[b[at]]; ok {
			b[at] = c
			break
		}
	}
	return string(b)
}
