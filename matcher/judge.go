package matcher

import (
	"vigie/watchlist"
	"vigie/watchlist/plate"
)

// Verdict is what the rules say of one entry whose text the read meets.
type Verdict struct {
	Hit     // Kind, Grade and Score only when it alerts
	Alerts  bool
	Because string // the rule that decided; a constant, without any plate
}

// The grade and score of each way to meet an entry, strongest first. An unknown
// country costs one grade; a different one is never exact. The figures order
// hits for a person; they are not probabilities.
var (
	sameText      = evidence{KindExact, GradeHigh, 1.0, "same text, same country"}
	sameTextNoC   = evidence{KindExact, GradeMedium, 0.8, "same text, country not known"}
	ocrText       = evidence{KindOCR, GradeMedium, 0.7, "texts differ only where cameras confuse characters, same country"}
	ocrTextNoC    = evidence{KindOCR, GradeLow, 0.5, "texts differ only where cameras confuse characters, country not known"}
	sameTextOther = evidence{KindOCR, GradeLow, 0.4, "same text, different country: the camera may have the country wrong"}
)

type evidence struct {
	kind    Kind
	grade   Grade
	score   float32
	because string
}

// judge applies the rules of the entry and its list to a read that meets the
// entry's text: equal says whether the texts are the same, or only by the
// list's tolerance.
func (s *Snapshot) judge(e *watchlist.Entry, q *Query, equal bool) Verdict {
	v := Verdict{Hit: Hit{Entry: e, List: s.lists[e.List], Country: plate.Relate(e.Country, q.Country)}}
	if !equal {
		v.Differs = differs(e.Key, q.Key)
	}
	var ev *evidence
	switch {
	case v.List == nil:
		v.Because = "the entry's list is gone"
		return v
	case equal && v.Country == plate.CountrySame:
		ev = &sameText
	case equal && v.Country == plate.CountryUnknown:
		ev = &sameTextNoC
	case equal && ocr(v.List):
		ev = &sameTextOther
	case equal:
		v.Because = "different country, and the list takes exact hits only"
		return v
	case v.Country == plate.CountrySame:
		ev = &ocrText
	case v.Country == plate.CountryUnknown:
		ev = &ocrTextNoC
	default:
		v.Because = "texts differ and so do the countries"
		return v
	}
	switch {
	case q.At < e.ValidFrom.UnixMilli():
		v.Because = "the entry is not valid yet at the time of the read"
	case q.At >= e.ValidUntil.UnixMilli():
		v.Because = "the entry has expired at the time of the read"
	case !v.List.AllowsAt(q.Sensor, s.zones[q.Sensor]):
		v.Because = "the list is not allowed at this sensor"
	default:
		v.Alerts, v.Kind, v.Grade, v.Score, v.Because = true, ev.kind, ev.grade, ev.score, ev.because
	}
	return v
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
