// Package slow is the matcher as one would write it first: it scans every entry
// for every read and applies the rules of design section 5 one after the other.
// Tests hold the fast matcher to it, and ledgers use it to know which alerts a
// set of reads must raise. It shares no code with package matcher beyond the
// words of a Hit and how likely one plate is read as another: package misread,
// which has a slow model of its own.
package slow

import (
	"slices"
	"strings"

	"vigie/matcher"
	"vigie/matcher/misread"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// Matcher holds lists and entries in plain maps and slices.
type Matcher struct {
	lists   map[string]*watchlist.List
	entries []entry
	sensors map[string]*control.Sensor

	exemptions []*watchlist.Exemption
}

// entry is an entry as it is looked at, and as it is handed out.
type entry struct {
	*watchlist.Entry
	packed *watchlist.Packed
}

// New returns a Matcher that knows no entry.
func New() *Matcher {
	return &Matcher{lists: map[string]*watchlist.List{}, sensors: map[string]*control.Sensor{}}
}

// Apply makes the changes, in order.
func (m *Matcher) Apply(changes []control.Change) {
	for _, c := range changes {
		switch {
		case c.NewList != nil:
			m.lists[c.NewList.ID] = c.NewList
		case c.OldList != nil:
			delete(m.lists, c.OldList.ID)
		}
		switch {
		case c.NewSensor != nil:
			m.sensors[c.NewSensor.ID] = c.NewSensor
		case c.OldSensor != nil:
			delete(m.sensors, c.OldSensor.ID)
		}
		if c.OldEntry != nil {
			m.entries = slices.DeleteFunc(m.entries, func(e entry) bool {
				return e.List == c.OldEntry.List() && e.ID == c.OldEntry.ID()
			})
		}
		if c.NewEntry != nil {
			m.entries = append(m.entries, entry{c.NewEntry.Unpack(), c.NewEntry})
		}
		if c.OldExemption != nil {
			m.exemptions = slices.DeleteFunc(m.exemptions, func(x *watchlist.Exemption) bool { return x == c.OldExemption })
		}
		if c.NewExemption != nil {
			m.exemptions = append(m.exemptions, c.NewExemption)
		}
	}
}

// Match returns the hits of a read, in the order in which the entries came.
func (m *Matcher) Match(q matcher.Query) (hits []matcher.Hit) {
	r := look(q)
	for _, e := range m.entries {
		if h, ok := m.meet(e, q, r); ok {
			hits = append(hits, h)
		}
	}
	return hits
}

func (m *Matcher) meet(e entry, q matcher.Query, r reading) (h matcher.Hit, ok bool) {
	list := m.lists[e.List]
	if list == nil {
		return h, false
	}
	if q.At < e.ValidFrom.UnixMilli() || q.At >= e.ValidUntil.UnixMilli() {
		return h, false
	}
	if !m.allowed(list, q.Sensor) {
		return h, false
	}
	h = matcher.Hit{Entry: e.packed, List: list, Country: plate.CountryUnknown}
	switch {
	case e.Key.IsContainer():
		h.Country = plate.CountrySame
	case e.Country == 0 || q.Country == 0:
	case e.Country == q.Country:
		h.Country = plate.CountrySame
	default:
		h.Country = plate.CountryDifferent
	}
	inexact := list.Tolerance == watchlist.ToleranceOCR || list.Tolerance == watchlist.ToleranceNear
	if e.Pattern.IsZero() && e.Key == q.Key && h.Country != plate.CountryDifferent {
		h.Kind, h.Grade, h.Score = matcher.KindExact, matcher.GradeHigh, 1
		if h.Country == plate.CountryUnknown {
			h.Grade, h.Score = matcher.GradeMedium, 0.8
		}
		return h, true
	}
	// From here on the hit is not exact.
	for _, x := range m.exemptions {
		if x.List == e.List && x.Entry == e.ID && x.Read == q.Key && q.At < x.Until.UnixMilli() {
			return h, false
		}
	}
	if !e.Pattern.IsZero() {
		h.Kind, h.Grade, h.Score = matcher.KindPattern, matcher.GradeMedium, 0.7
		if h.Country == plate.CountryUnknown {
			h.Grade, h.Score = matcher.GradeLow, 0.5
		}
		return h, list.Tolerance == watchlist.TolerancePattern && h.Country != plate.CountryDifferent && e.Pattern.Matches(r.text)
	}
	if !inexact {
		return h, false
	}
	h.Kind, h.Grade = matcher.KindOCR, matcher.GradeLow
	if list.Tolerance == watchlist.ToleranceNear {
		h.Kind = matcher.KindNear
	}
	if e.Key == q.Key {
		h.Score = 0.4
		return h, true
	}
	if h.Country == plate.CountryDifferent || !r.finds(e, list.Tolerance) {
		return h, false
	}
	h.Score = score(e, q)
	if h.Country == plate.CountrySame && h.Score >= 0.5 {
		h.Grade = matcher.GradeMedium
	}
	h.Differs = differing(e.Key.String(), r.text)
	threshold := list.Threshold
	if threshold == 0 { // last, since it looks at every entry again
		threshold = matcher.DefaultThreshold(list.Tolerance, m.count(list.ID))
	}
	return h, h.Score >= threshold
}

// count returns the number of entries on a list.
func (m *Matcher) count(list string) (n int) {
	for _, e := range m.entries {
		if e.List == list {
			n++
		}
	}
	return n
}

// reading is what a read may have been, before any entry is looked at.
type reading struct {
	text    string      // the one that the sensor settled on
	texts   []string    // folded: that one, then the others
	shorter []string    // of the first, without one character
	decoded []plate.Key // place by place
}

func look(q matcher.Query) (r reading) {
	r.text = q.Key.String()
	r.texts = []string{folded(r.text)}
	for i, c := range q.Candidates {
		if i < matcher.MaxCandidates && c.Key != 0 {
			r.texts = append(r.texts, folded(c.Key.String()))
		}
	}
	r.shorter = shorter(r.texts[0])
	var m misread.Reading
	m.Set(q.Key, q.Country, q.Conf, nil)
	r.decoded = m.Decode(nil, matcher.DecodeLeast)
	return r
}

// finds reports whether a list of tolerance t looks for e at all in a read that
// does not equal it.
func (r *reading) finds(e entry, t watchlist.Tolerance) bool {
	entry := folded(e.Key.String())
	if slices.Contains(r.texts, entry) {
		return true
	}
	if t == watchlist.ToleranceOCR {
		return entry == r.shorter[0] || entry == r.shorter[len(r.shorter)-1] || slices.Contains(r.decoded, e.Key)
	}
	// Within one edit of what the sensor settled on, or one edit to either
	// side of it; of its other readings, with one character more.
	less := shorter(entry)
	if slices.Contains(r.shorter, entry) {
		return true
	}
	for _, s := range less {
		if slices.Contains(r.texts, s) || slices.Contains(r.shorter, s) {
			return true
		}
	}
	return false
}

// score weighs the readings of q by how sure the sensor is of each.
func score(e entry, q matcher.Query) (p float32) {
	var r misread.Reading
	r.Set(q.Key, q.Country, q.Conf, q.CharConf)
	sure := func(conf float32) float32 {
		if conf > 0 && conf <= 1 {
			return conf
		}
		return 0.1
	}
	whole := q.Conf
	if whole == 0 && len(q.CharConf) == q.Key.Len() {
		for _, c := range q.CharConf {
			whole += c
		}
		whole /= float32(len(q.CharConf))
	}
	var others []matcher.Candidate
	for _, c := range q.Candidates[:min(len(q.Candidates), matcher.MaxCandidates)] {
		same := func(o matcher.Candidate) bool { return o.Key == c.Key }
		if c.Key != q.Key && c.Key != 0 && !slices.ContainsFunc(others, same) {
			others = append(others, c)
		}
	}
	if len(others) == 0 {
		return r.Posterior(e.Key, e.Country)
	}
	all := float32(0)
	for _, c := range others {
		all += sure(c.Conf)
	}
	all += sure(whole) // in this order: the sums must be equal to the last bit
	p = r.Posterior(e.Key, e.Country) * (sure(whole) / all)
	for _, c := range others {
		r.Set(c.Key, q.Country, q.Conf, nil)
		p += sure(c.Conf) / all * r.Posterior(e.Key, e.Country)
	}
	return p
}

// allowed applies the purpose limitations of a list and of a sensor.
func (m *Matcher) allowed(l *watchlist.List, sensor string) bool {
	if s := m.sensors[sensor]; s != nil {
		if len(s.Lists) > 0 && !slices.Contains(s.Lists, l.ID) {
			return false
		}
		named := len(s.Purposes) == 0
		for _, p := range s.Purposes {
			named = named || l.Purpose != "" && strings.EqualFold(p, l.Purpose)
		}
		if !named {
			return false
		}
	}
	if len(l.Sensors) == 0 && len(l.Zones) == 0 {
		return true
	}
	if slices.Contains(l.Sensors, sensor) {
		return true
	}
	if s := m.sensors[sensor]; s != nil {
		for _, z := range s.Zones {
			if slices.Contains(l.Zones, z) {
				return true
			}
		}
	}
	return false
}

// folded writes one character for all of a class of look-alikes.
func folded(s string) string { return classes.Replace(s) }

var classes = strings.NewReplacer("O", "0", "D", "0", "Q", "0", "I", "1", "B", "8", "S", "5", "Z", "2", "G", "6")

// shorter returns what is left of s without one of its characters.
func shorter(s string) (all []string) {
	for i := range s {
		all = append(all, s[:i]+s[i+1:])
	}
	return all
}

func differing(a, b string) (mask uint16) {
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			mask |= 1 << i
		}
	}
	return mask
}
