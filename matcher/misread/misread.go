// Package misread says how likely it is that a read is a misread of a wanted
// plate, from how real engines misread (table.go, learnt by internal/learn).
//
// The model is a pair hidden Markov model (Durbin, Eddy, Krogh, Mitchison,
// "Biological Sequence Analysis", 1998, ch. 4): each character of the plate is
// read, read as another, or lost, and characters are added between them, with
// the rates of one of a few kinds of reading, from clean to poor; the confidence
// of the read says how likely each kind is.
//
// What a patrol needs is not how alike two texts are but how likely this vehicle
// is the wanted one. Posterior therefore divides by everything that could have
// been read so: all plates that the country issues in the form of the entry,
// summed by the same model in one pass, and the read itself if it is a good
// plate of another form. A confident, valid plate of another vehicle scores
// near 0, however much it resembles the entry.
//
// Pure: no I/O, no clock, no allocation.
package misread

import (
	"math"

	"vigie/watchlist/plate"
)

// Sizes of the model.
const (
	Kinds   = 3      // kinds of reading, from clean to poor
	Bands   = 13     // bands of confidence, see Band
	Gaps    = 6      // classes of gaps between characters, see GapClass
	Places  = 5      // classes of places, see PlaceClass
	Codes   = 36 + 1 // codes of characters as in plate.Key; 0 is none
	unknown = Bands  // the band of a read without confidence
	drift   = 2      // most characters that a read may be ahead of or behind the plate
)

// paddedLen is the room for the characters of a read with drift places before the
// first and after the last, as seen from the gap after the last character of the
// longest plate.
const paddedLen = plate.MaxLen + 2*drift + 1

// Table is what is learnt from reads whose true plates are known.
type Table struct {
	Kind    [Bands + 1][Kinds]float32 // probability of each kind, by band; the last row is for reads without confidence
	Wrong   [Kinds][Codes]float32     // that a character that is read is read as another
	As      [Codes][Codes]float32     // as which one, given that it is another
	Lost    [Kinds][Places]float32    // that a character is lost, by class of place
	Added   [Kinds][Gaps]float32      // that a character is added in a gap, by class; several in a row are geometric
	AddedAs [Gaps][Codes]float32      // which one
}

// bandEdges are the confidences at which one band ends and the next begins. They
// are narrow near 1, where most reads lie and one step means most.
var bandEdges = [Bands - 1]float32{.5, .6, .7, .77, .83, .87, .90, .925, .95, .97, .985, .994}

// Band returns the band of a confidence, 0 to Bands-1. Zero and anything outside
// 0 to 1 is no confidence, and has a band of its own.
func Band(conf float32) int {
	if !(conf > 0 && conf <= 1) {
		return unknown
	}
	b := 0
	for b < len(bandEdges) && conf >= bandEdges[b] {
		b++
	}
	return b
}

// GapClass returns the class of the gap before character i of a plate of n
// characters, of which bit i of letters says whether character i is a letter.
// i == n is the gap after the last. Dirt, country signs and separators add
// characters at the ends and where letters and digits meet.
func GapClass(n, i int, letters uint16) int {
	switch {
	case i == 0:
		return 0
	case i == n:
		return 5
	case i == 1:
		return 1
	case i == n-1:
		return 4
	case (letters>>i^letters>>(i-1))&1 != 0:
		return 2
	}
	return 3
}

// PlaceClass returns the class of character i of a plate of n characters: the
// first two and the last two differ from the others.
func PlaceClass(n, i int) int {
	switch i {
	case 0:
		return 0
	case n - 1:
		return 4
	case 1:
		return 1
	case n - 2:
		return 3
	}
	return 2
}

// A row says, for one character of a plate or for all characters of a set
// together, how likely each character is read from it, by level of doubt.
type row [levels][Kinds][Codes]float32

// What follows from the table, by the program's start.
var (
	charRow [Codes]*row // of one character
	setRow  = map[plate.Set]*row{}
	formRow [][]*row // of each place of each form of package plate
	addedAs [Gaps][Kinds][Codes]float32
	letters = plate.Letters
	digits  = plate.Digits
)

// Levels of doubt in one character against the others of its read: factors on
// the odds that it is wrong. The first is for reads that say nothing of it.
const levels = 7

var doubts = [levels]float32{1, 1. / 30, 1. / 8, 1. / 2.5, 2.5, 8, 30}

func init() {
	for x := 1; x < Codes; x++ {
		charRow[x] = sumRow(1 << x)
	}
	rowOf := func(s plate.Set) *row {
		if setRow[s] == nil {
			setRow[s] = sumRow(s)
		}
		return setRow[s]
	}
	rowOf(letters)
	rowOf(digits)
	formRow = make([][]*row, plate.NumForms())
	for f := range formRow {
		for _, s := range plate.FormPlaces(f) {
			formRow[f] = append(formRow[f], rowOf(s))
		}
	}
	for g := range addedAs {
		for z := range Kinds {
			for y := range Codes {
				addedAs[g][z][y] = learnt.Added[z][g] * learnt.AddedAs[g][y]
			}
		}
	}
	prepareChoices()
	prepareFloor()
}

// sumRow adds up the rows of the characters of a set.
func sumRow(s plate.Set) *row {
	r := new(row)
	for l, doubt := range doubts {
		for z := range Kinds {
			for x := 1; x < Codes; x++ {
				if s>>x&1 == 0 {
					continue
				}
				wrong := learnt.Wrong[z][x] * doubt
				wrong /= wrong + 1 - learnt.Wrong[z][x]
				for y := 1; y < Codes; y++ {
					if y == x {
						r[l][z][y] += 1 - wrong
					} else {
						r[l][z][y] += wrong * learnt.As[x][y]
					}
				}
			}
		}
	}
	return r
}

// Reading is one read, made ready to be compared with several entries. Set makes
// it; the zero value reads nothing.
type Reading struct {
	key     plate.Key
	country plate.Country
	band    int
	n       int
	code    [paddedLen]uint8 // of character j at j+drift
	level   [paddedLen]uint8 // likewise
	doubted bool             // some level is not 0
	asked   bool             // valid is known
	valid   bool             // see good
	self    float32          // likelihood of key if it is the plate; -1 not asked
	form    int              // form whose mass is known, notAsked
	mass    float32
}

const notAsked = -2

// Set makes r the read of key in a country, with the confidence in the whole
// plate (0 to 1, 0 when not known) and, if the sensor gave one for each
// character of key, the confidences in the characters (otherwise they are
// ignored). Confidences in characters say which of them to doubt; how much to
// doubt the read as a whole is said by conf, or by their mean when conf is 0.
func (r *Reading) Set(key plate.Key, country plate.Country, conf float32, charConf []float32) {
	r.key, r.country = key, country
	r.asked, r.self, r.form = false, -1, notAsked
	var code [plate.MaxLen]uint8
	r.n = key.Codes(&code)
	r.code = [paddedLen]uint8{}
	copy(r.code[drift:], code[:r.n])
	r.level, r.doubted = [paddedLen]uint8{}, false
	if r.n > 0 && len(charConf) == r.n {
		sum, logs := float32(0), float64(0)
		var odds [plate.MaxLen]float64
		for i, q := range charConf {
			sum += q
			p := min(max(float64(q), 0.01), 0.999)
			odds[i] = math.Log((1 - p) / p)
			logs += odds[i]
		}
		mean := logs / float64(r.n)
		for i := range r.n {
			r.level[i+drift] = levelOf(odds[i] - mean)
			r.doubted = r.doubted || r.level[i+drift] != 0
		}
		if conf == 0 {
			conf = sum / float32(r.n)
		}
	}
	r.band = Band(conf)
}

// levelOf returns the level whose factor is nearest to e^log.
func levelOf(log float64) uint8 {
	best := 0
	for l, d := range doubts {
		if math.Abs(math.Log(float64(d))-log) < math.Abs(math.Log(float64(doubts[best]))-log) {
			best = l
		}
	}
	return uint8(best)
}

// Posterior returns how likely the vehicle that was read bears the plate entry
// of a country, 0 to 1, before it is known that the plate is wanted: the
// likelihood of the read if entry is the plate, divided by the sum of the
// likelihoods of all plates that could have been read so.
func (r *Reading) Posterior(entry plate.Key, country plate.Country) float32 {
	l := r.likelihood(entry)
	if l == 0 {
		return 0
	}
	form := -1
	if entry.Syntax(country) == plate.Valid { // else the plates of the form do not include it
		form = entry.FormOf(country)
	}
	return min(1, l/r.all(entry, form))
}

// Below reports whether the Posterior of entry is less than least. It is for the
// many entries that are alike and yet out of the question: at half the price it
// rules out most of them. False says nothing.
func (r *Reading) Below(entry plate.Key, least float32) bool {
	// What may have been read as r includes r itself, if it is a good plate.
	return r.country != 0 && r.good() && r.likelihood(entry) < least*selfFloor[r.band]
}

// selfFloor is, by band, the least likelihood with which any plate is read right,
// apart from doubts in single characters.
var selfFloor [Bands + 1]float32

func prepareFloor() {
	var wrong, lost, added float32
	for x := 1; x < Codes; x++ {
		wrong = max(wrong, learnt.Wrong[0][x])
	}
	for _, p := range learnt.Lost[0] {
		lost = max(lost, p)
	}
	for _, p := range learnt.Added[0] {
		added = max(added, p)
	}
	for b := range selfFloor {
		p := learnt.Kind[b][0] * (1 - added)
		for range plate.MaxLen {
			p *= (1 - wrong) * (1 - lost) * (1 - added)
		}
		selfFloor[b] = p
	}
}

// all returns the sum of the likelihoods of what may have been read as r: the
// plates of a form, which is that of entry, or of all texts with letters and
// digits where entry has them when form is -1; and r itself if it is a good plate
// and none of these.
func (r *Reading) all(entry plate.Key, form int) float32 {
	if form < 0 || r.form != form {
		r.mass, r.form = r.massLike(entry, form), form
	}
	if !r.good() || r.among(entry, form) {
		return r.mass
	}
	if r.self < 0 {
		r.self = r.likelihood(r.key)
	}
	return r.mass + r.self
}

// among reports whether r is one of the plates that massLike sums up.
func (r *Reading) among(entry plate.Key, form int) bool {
	if form >= 0 {
		places := plate.FormPlaces(form)
		if len(places) != r.n {
			return false
		}
		for i, set := range places {
			if set>>r.code[i+drift]&1 == 0 {
				return false
			}
		}
		return true
	}
	var code [plate.MaxLen]uint8
	n := entry.Codes(&code)
	for i, x := range code[:n] {
		if letters>>x&1 != letters>>r.code[i+drift]&1 {
			return false
		}
	}
	return n == r.n
}

// good reports whether the read is, as it stands, a plate that its country
// issues; for a read without country, that some country does.
func (r *Reading) good() bool {
	if !r.asked {
		r.asked = true
		if r.country != 0 {
			r.valid = r.key.Syntax(r.country) == plate.Valid
		} else {
			r.valid = r.key.Syntax(0) == plate.Possible
		}
	}
	return r.valid
}

// likelihood returns the probability that plate k is read as r.
func (r *Reading) likelihood(k plate.Key) float32 {
	var (
		code  [plate.MaxLen]uint8
		rows  [plate.MaxLen]*row
		width [plate.MaxLen]float32
		shape uint16
	)
	n := k.Codes(&code)
	for i := range n {
		rows[i], width[i] = charRow[code[i]], 1
		if letters>>code[i]&1 != 0 {
			shape |= 1 << i
		}
	}
	return r.forward(n, shape, &rows, &width)
}

// massLike returns the sum of the likelihoods of all plates of a form, or, when
// form is -1, of all texts with letters and digits where k has them.
func (r *Reading) massLike(k plate.Key, form int) float32 {
	var (
		code  [plate.MaxLen]uint8
		rows  [plate.MaxLen]*row
		width [plate.MaxLen]float32
		shape uint16
	)
	n := k.Codes(&code)
	for i := range n {
		set := digits
		if letters>>code[i]&1 != 0 {
			set = letters
			shape |= 1 << i
		}
		if form >= 0 {
			set = plate.FormPlaces(form)[i]
			rows[i] = formRow[form][i]
		} else {
			rows[i] = setRow[set]
		}
		width[i] = float32(bits(set))
	}
	return r.forward(n, shape, &rows, &width)
}

// forward sums over all ways in which the n places of rows may have been read as
// r. It is the forward algorithm of the model, for each kind of reading, in a
// band of drift places on either side of the diagonal. rows and width say, for
// each place, how likely each character is read there and how likely nothing
// is, summed over the characters that may stand in the place.
func (r *Reading) forward(n int, shape uint16, rows *[plate.MaxLen]*row, width *[plate.MaxLen]float32) (total float32) {
	end := r.n - n + drift // where the whole read is, on the last line
	if r.n == 0 || n == 0 || end < 0 || end > 2*drift {
		return 0
	}
	var gap, place [plate.MaxLen + 1]uint8
	for i := range n {
		gap[i], place[i] = uint8(GapClass(n, i, shape)), uint8(PlaceClass(n, i))
	}
	gap[n] = uint8(GapClass(n, n, shape))
	for z := range Kinds {
		// a to e: probability of having read i-drift to i+drift characters
		// from the first i places. Characters before the first and after the
		// last have code 0, which nothing is read as. Five variables stay in
		// registers where an array takes twice the time.
		var a, b, d, e float32
		c := learnt.Kind[r.band][z]
		for i := 0; ; i++ {
			g := gap[i]
			added, stay := &addedAs[g][z], 1-learnt.Added[z][g]
			y := (*[2*drift + 1]uint8)(r.code[i:])
			b += a * added[y[0]]
			c += b * added[y[1]]
			d += c * added[y[2]]
			e += d * added[y[3]]
			if i == n {
				total += [...]float32{a, b, c, d, e}[end] * stay
				break
			}
			lost := learnt.Lost[z][place[i]]
			keep := (1 - lost) * stay
			lost *= stay * width[i]
			if r.doubted {
				l := (*[2*drift + 1]uint8)(r.level[i:])
				row := rows[i]
				a = a*keep*row[l[0]][z][y[0]] + b*lost
				b = b*keep*row[l[1]][z][y[1]] + c*lost
				c = c*keep*row[l[2]][z][y[2]] + d*lost
				d = d*keep*row[l[3]][z][y[3]] + e*lost
				e = e * keep * row[l[4]][z][y[4]]
				continue
			}
			read := &rows[i][0][z]
			a = a*keep*read[y[0]] + b*lost
			b = b*keep*read[y[1]] + c*lost
			c = c*keep*read[y[2]] + d*lost
			d = d*keep*read[y[3]] + e*lost
			e = e * keep * read[y[4]]
		}
	}
	return total
}

func bits(s plate.Set) (n int) {
	for ; s != 0; s &= s - 1 {
		n++
	}
	return n
}
