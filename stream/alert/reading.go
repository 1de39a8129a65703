package alert

import (
	"math"

	"vigie/sensors"
	"vigie/watchlist/plate"
)

// Reading is what a camera took the plate of a vehicle for, and how far it is to be believed.
type Reading struct {
	Text   string      // plate and country, normalised
	Syntax plate.Grade // how well the plate agrees with the country
	Conf   int         // confidence in thousandths; 0 when the camera told none
}

// ReadingOf is the reading of a read whose plate parses.
func ReadingOf(r *sensors.Read) Reading {
	key, _ := r.Key() // the caller has parsed it; else it is the empty text, which nothing is equal to
	country := r.CountryCode()
	return Reading{
		Text: key.String() + "/" + country.String(), Syntax: key.Syntax(country),
		Conf: int(math.Round(float64(finite(r.Conf)) * 1000)),
	}
}

// Doubt is by how much, in thousandths, a reading may be less sure than one before and be
// believed as much.
const Doubt = 50

// Overrules reports whether a later reading of the same vehicle is to be believed where it
// differs from one before. Cameras send the reads of a vehicle that leaves the picture too: one
// that is clearly less sure, or of worse syntax, must not take back what a good one said.
func (r Reading) Overrules(before Reading) bool {
	return r.Syntax >= before.Syntax && (r.Conf == 0 || before.Conf == 0 || r.Conf+Doubt >= before.Conf)
}
