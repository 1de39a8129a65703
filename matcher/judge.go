package matcher

import (
	"vigie/watchlist"
	"vigie/watchlist/plate"
)

// Verdict is what the rules say of one entry whose text the read meets.
type Verdict struct {
	Hit       // Kind and Grade only when it alerts
	Alerts    bool
	Threshold float32 // score that a hit on a text that differs needs on the list; 0 where it does not count
	Because   string  // the rule that decided; a constant, without any plate
}

// met is how the text of a read meets an entry.
type met uint8

const (
	equalText   met = iota // the texts are the same
	alikeText              // by the list's tolerance; the score says how likely
	fitsPattern            // the read fits the pattern
)

// The scores of hits that are not weighed, strongest first. An unknown country
// costs one grade; a different one is never exact. They order hits for a person;
// only the scores of texts that differ are probabilities.
const (
	scoreEqual         = 1.0
	scoreEqualNoC      = 0.8
	scorePattern       = 0.7
	scorePatternNoC    = 0.5
	scoreEqualOther    = 0.4
	likely             = 0.5 // score from which a hit on a text that differs is more likely right than wrong
	becauseEqual       = "same text, same country"
	becauseEqualNoC    = "same text, country not known"
	becauseEqualOther  = "same text, different country: the camera may have the country wrong"
	becauseAlike       = "texts differ, but the read is likely enough a misread of the entry; same country"
	becauseAlikeNoC    = "texts differ, but the read is likely enough a misread of the entry; country not known"
	becausePattern     = "the read fits the pattern, same country"
	becausePatternNoC  = "the read fits the pattern, country not known"
	becauseGone        = "the entry's list is gone"
	becauseOther       = "different country, and the list takes exact hits only"
	becauseAlikeOther  = "texts differ and so do the countries"
	becausePatternElse = "the read fits the pattern, but its country is another"
	becauseNoPattern   = "the entry is a pattern, and its list no longer takes any"
	becauseUnlikely    = "the score is below the list's threshold: another vehicle is more likely"
	becauseExempt      = "this reading was confirmed to be a misread of another vehicle"
	becauseNotYet      = "the entry is not valid yet at the time of the read"
	becauseExpired     = "the entry has expired at the time of the read"
	becauseSensor      = "the list is not allowed at this sensor"
	becauseServes      = "this sensor may not be used for the list or its purpose"
)

// judge applies the rules of the entry and its list to a read that meets the
// entry's text in a way how; score counts for alikeText only.
func (s *Snapshot) judge(e *watchlist.Packed, q *Query, how met, score float32) Verdict {
	v := Verdict{Hit: Hit{Entry: e, Country: plate.Relate(e.Country(), q.Country)}}
	l := s.lists[e.List()]
	if l == nil {
		v.Because = becauseGone
		return v
	}
	v.List = l.List
	if e.Key().IsContainer() {
		v.Country = plate.CountrySame // the code is the only one of its kind in the world
	}
	same, other := v.Country == plate.CountrySame, v.Country == plate.CountryDifferent
	var kind Kind
	grade := GradeLow
	switch how {
	case equalText:
		switch {
		case same:
			kind, grade, v.Score, v.Because = KindExact, GradeHigh, scoreEqual, becauseEqual
		case !other:
			kind, grade, v.Score, v.Because = KindExact, GradeMedium, scoreEqualNoC, becauseEqualNoC
		case inexact(l.Tolerance):
			kind, v.Score, v.Because = kindOf(l.Tolerance), scoreEqualOther, becauseEqualOther
		default:
			v.Because = becauseOther
			return v
		}
	case alikeText:
		v.Differs, v.Score = differs(e.Key(), q.Key), score
		kind = kindOf(l.Tolerance)
		switch {
		case other:
			v.Because = becauseAlikeOther
			return v
		case same:
			v.Because = becauseAlike
			if score >= likely {
				grade = GradeMedium
			}
		default:
			v.Because = becauseAlikeNoC
		}
	case fitsPattern:
		kind = KindPattern
		switch {
		case l.Tolerance != watchlist.TolerancePattern: // the list was changed under it
			v.Because = becauseNoPattern
			return v
		case other:
			v.Because = becausePatternElse
			return v
		case same:
			grade, v.Score, v.Because = GradeMedium, scorePattern, becausePattern
		default:
			v.Score, v.Because = scorePatternNoC, becausePatternNoC
		}
	}
	if how == alikeText {
		v.Threshold = l.threshold
	}
	from, until := e.Validity()
	sensor := s.sensors[q.Sensor]
	switch {
	case v.Score < v.Threshold:
		v.Because = becauseUnlikely
	case kind != KindExact && s.exempts(e, q):
		v.Because = becauseExempt
	case q.At < from:
		v.Because = becauseNotYet
	case q.At >= until:
		v.Because = becauseExpired
	case !l.AllowsAt(q.Sensor, sensor.Stands()):
		v.Because = becauseSensor
	case !sensor.Serves(l.List):
		v.Because = becauseServes
	default:
		v.Alerts, v.Kind, v.Grade = true, kind, grade
	}
	return v
}

func kindOf(t watchlist.Tolerance) Kind {
	if t == watchlist.ToleranceNear {
		return KindNear
	}
	return KindOCR
}

// differs sets bit i when a and b differ at position i, counted from the left.
// Texts of different lengths are compared position by position, and what one
// has more of differs.
func differs(a, b plate.Key) (mask uint16) {
	var x, y [plate.MaxLen]byte
	s, t := a.AppendTo(x[:0]), b.AppendTo(y[:0])
	for i := range max(len(s), len(t)) {
		if i >= len(s) || i >= len(t) || s[i] != t[i] {
			mask |= 1 << i
		}
	}
	return mask
}

// Positions lists the positions, from 0, where the two texts differ.
func (h *Hit) Positions() (at []int) {
	for i := range plate.MaxLen {
		if h.Differs&(1<<i) != 0 {
			at = append(at, i)
		}
	}
	return at
}
