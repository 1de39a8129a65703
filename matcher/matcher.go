// Package matcher answers, for one read, which entries it meets. It is pure: no
// I/O, no clock, no log, no lock on the way of a read. See DESIGN.md for the
// structure and the numbers behind it.
package matcher

import (
	"vigie/watchlist"
	"vigie/watchlist/plate"
)

// Kind says how the text of a read met the text of an entry.
type Kind uint8

const (
	// KindExact: the normalised texts are equal.
	KindExact Kind = iota + 1
	// KindOCR: equal after folding or repair, see watchlist.ToleranceOCR; or
	// equal texts whose countries differ, which is never an exact hit.
	KindOCR
	KindNear
	KindPattern
)

// Grade sums up the evidence of a hit for a person.
type Grade uint8

const (
	GradeLow Grade = iota + 1
	GradeMedium
	GradeHigh
)

// Query is what the matcher needs to know of a read.
type Query struct {
	Key     plate.Key
	Country plate.Country
	At      int64  // time of the read, milliseconds since the Unix epoch
	Sensor  string // id of the sensor, for lists limited to sensors or zones

	// Evidence for lists that hit on texts that differ.
	Conf       float32     // confidence in the whole plate, 0 to 1; 0 when not known
	CharConf   []float32   // confidence in each character of Key, 0 to 1; used when there are as many
	Candidates []Candidate // other readings that the sensor thought possible; the first MaxCandidates are weighed
}

// Candidate is another reading of the same plate.
type Candidate struct {
	Key  plate.Key
	Conf float32 // 0 to 1; 0 when not known
}

// Hit is a read meeting an entry. Entry and List are shared and must not be changed.
type Hit struct {
	Entry   *watchlist.Packed
	List    *watchlist.List
	Kind    Kind
	Country plate.Relation
	Grade   Grade
	Score   float32 // 0 to 1
	Differs uint16  // bit i: the texts differ at position i
}

var (
	kindNames  = [...]string{"", "exact", "ocr", "near", "pattern"}
	gradeNames = [...]string{"", "low", "medium", "high"}
)

// String returns the word used on alerts: exact, ocr.
func (k Kind) String() string { return kindNames[k] }

// String returns the word used on alerts: low, medium, high.
func (g Grade) String() string { return gradeNames[g] }
