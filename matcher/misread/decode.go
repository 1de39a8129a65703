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
	d := decoder{own: r.key, dst: dst, room: MaxDecoded}
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
			d.form(f, code, 1)
		}
		for _, f := range shorter {
			d.form(f, code[1:], first)
			d.form(f, code[:r.n-1], last)
		}
	}
	return d.dst
}

// decoder goes through one form after the other.
type decoder struct {
	z     int // kind of reading
	own   plate.Key
	dst   []plate.Key
	room  int     // of dst
	all   float32 // sum over all plates of all forms
	least float32 // what a plate must reach; 0 while all is summed up

	places []*[Codes]choice
	code   []uint8
	best   [plate.MaxLen + 1]float32 // product of the best options from a place on
}

// form adds up, or picks, the plates of form f read as code, of which the whole
// has probability p.
func (d *decoder) form(f int, code []uint8, p float32) {
	d.places, d.code = choices[d.z][f], code
	if d.least == 0 {
		for i, y := range code {
			p *= d.places[i][y].all
		}
		d.all += p
		return
	}
	d.best[len(code)] = 1
	for i := len(code) - 1; i >= 0; i-- {
		c := &d.places[i][code[i]]
		if len(c.best) == 0 {
			return
		}
		d.best[i] = d.best[i+1] * c.best[0].p
	}
	d.walk(0, 0, p)
}

func (d *decoder) walk(i int, key plate.Key, p float32) {
	if i == len(d.code) {
		if key != d.own && d.room > 0 {
			d.dst = append(d.dst, key)
			d.room--
		}
		return
	}
	for _, o := range d.places[i][d.code[i]].best {
		q := p * o.p
		if q*d.best[i+1] < d.least {
			return
		}
		d.walk(i+1, key*Codes+plate.Key(o.code), q) // packed as in plate.Key
	}
}
