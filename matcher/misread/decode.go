package misread

import (
	"cmp"
	"slices"

	"vigie/watchlist/plate"
)

// MaxDecoded bounds what Decode appends.
const MaxDecoded = 32

// minShare is the least share of one character among those that may have been
// read as another for Decode to consider it.
const minShare = 0.02

// option is a character that may stand in a place, and the probability that what
// was read is read from it.
type option struct {
	code uint8
	p    float32
}

// choice is what may stand in a place where a character was read.
type choice struct {
	all  float32  // the sum over all characters of the place
	best []option // the likely ones, best first
}

// choices holds, by kind of reading and for each place of each form of package
// plate, the choice for each character read.
var choices [Kinds][][]*[Codes]choice

// siv is the form of French plates since 2009, by which reads without country
// are decoded that no country issues.
var siv int

// prepareChoices follows from the rows that init makes.
func prepareChoices() {
	for z := range Kinds {
		of := map[plate.Set]*[Codes]choice{}
		for f := range plate.NumForms() {
			var places []*[Codes]choice
			for _, s := range plate.FormPlaces(f) {
				if of[s] == nil {
					of[s] = choicesOf(z, s)
				}
				places = append(places, of[s])
			}
			choices[z] = append(choices[z], places)
		}
	}
	fr, _ := plate.ParseCountry("FR")
	k, _ := plate.Parse("AB123CD")
	siv = k.FormOf(fr)
}

func choicesOf(z int, s plate.Set) *[Codes]choice {
	t := new([Codes]choice)
	for y := 1; y < Codes; y++ {
		c := &t[y]
		c.all = setRow[s][0][z][y]
		for x := 1; x < Codes; x++ {
			if p := charRow[x][0][z][y]; s>>x&1 != 0 && p >= minShare*c.all {
				c.best = append(c.best, option{uint8(x), p})
			}
		}
		slices.SortStableFunc(c.best, func(a, b option) int { return -cmp.Compare(a.p, b.p) })
	}
	return t
}

// Decode appends to dst plates that r may be a misread of, place by place: of
// the forms of the read's country with as many characters, or with one less at
// either end, those that make up at least the share least (0 to 1) of all plates
// that would be read so. It proposes; Posterior decides. A read without country
// is decoded as a French one, if it is no plate of any country as it stands. At
// most MaxDecoded keys are appended, none of them the read's own.
func (r *Reading) Decode(dst []plate.Key, least float32) []plate.Key {
	if r.n <= plate.MinLen || r.country == 0 && r.good() {
		return dst
	}
	d := decoder{own: r.key, room: MaxDecoded}
	for k, p := range learnt.Kind[r.band] {
		if p > learnt.Kind[r.band][d.z] {
			d.z = k
		}
	}
	if !r.good() {
		d.z = max(d.z, 1) // a clean reading would have given a plate
	} else if d.z == 0 {
		return dst // nothing else comes near the read itself
	}
	code := r.code[drift : drift+r.n]
	same, shorter := plate.FormsOf(r.country, r.n), plate.FormsOf(r.country, r.n-1)
	if r.country == 0 {
		switch r.n {
		case 7:
			same = []int{siv}
		case 8:
			shorter = []int{siv}
		}
	}
	first, last := addedAs[0][d.z][code[0]], addedAs[Gaps-1][d.z][code[r.n-1]]
	for pass := range 2 { // sum up all, then pick
		if pass == 1 {
			d.least = least * d.all
		}
		for _, f := range same {
			dst = d.form(dst, f, code, 1)
		}
		for _, f := range shorter {
			dst = d.form(dst, f, code[1:], first)
			dst = d.form(dst, f, code[:r.n-1], last)
		}
	}
	return dst
}

// decoder goes through one form after the other.
type decoder struct {
	z     int // kind of reading
	own   plate.Key
	room  int     // for more keys
	all   float32 // sum over all plates of all forms
	least float32 // what a plate must reach; 0 while all is summed up

	places []*[Codes]choice
	best   [plate.MaxLen + 1]float32 // product of the best options from a place on
}

// form adds up, or picks, the plates of form f read as code, of which the whole
// has probability p.
func (d *decoder) form(dst []plate.Key, f int, code []uint8, p float32) []plate.Key {
	d.places = choices[d.z][f]
	if d.least == 0 {
		for i, y := range code {
			p *= d.places[i][y].all
		}
		d.all += p
		return dst
	}
	d.best[len(code)] = 1
	for i := len(code) - 1; i >= 0; i-- {
		c := &d.places[i][code[i]]
		if len(c.best) == 0 {
			return dst
		}
		d.best[i] = d.best[i+1] * c.best[0].p
	}
	return d.pick(dst, code, p)
}

// pick appends the plates that reach least, depth first. It keeps its own stack:
// a recursive function would make its arguments escape.
func (d *decoder) pick(dst []plate.Key, code []uint8, p float32) []plate.Key {
	var stack [plate.MaxLen + 1]struct {
		next int // option to try
		p    float32
		key  plate.Key
	}
	stack[0].p = p
	for i := 0; i >= 0; {
		at := &stack[i]
		if i == len(code) {
			if at.key != d.own && d.room > 0 {
				dst = append(dst, at.key)
				d.room--
			}
			i--
			continue
		}
		best := d.places[i][code[i]].best
		if at.next == len(best) || at.p*best[at.next].p*d.best[i+1] < d.least {
			i--
			continue
		}
		o := best[at.next]
		at.next++
		i++
		stack[i].next, stack[i].p = 0, at.p*o.p
		stack[i].key = at.key*Codes + plate.Key(o.code) // packed as in plate.Key
	}
	return dst
}
