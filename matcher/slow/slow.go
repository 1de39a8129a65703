// Package slow is the matcher as one would write it first: it scans every entry
// for every read and applies the rules of design section 5 one after the other.
// Tests hold the fast matcher to it, and ledgers use it to know which alerts a
// set of reads must raise. It shares no code with package matcher beyond the
// words of a Hit.
package slow

import (
	"slices"

	"vigie/matcher"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// Matcher holds lists and entries in plain maps and slices.
type Matcher struct {
	lists   map[string]*watchlist.List
	entries []*watchlist.Entry
	sensors map[string]*control.Sensor
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
			m.entries = slices.DeleteFunc(m.entries, func(e *watchlist.Entry) bool {
				return e.List == c.OldEntry.List && e.ID == c.OldEntry.ID
			})
		}
		if c.NewEntry != nil {
			m.entries = append(m.entries, c.NewEntry)
		}
	}
}

// Match returns the hits of a read, in the order in which the entries came.
func (m *Matcher) Match(q matcher.Query) (hits []matcher.Hit) {
	for _, e := range m.entries {
		if h, ok := m.meet(e, q); ok {
			hits = append(hits, h)
		}
	}
	return hits
}

func (m *Matcher) meet(e *watchlist.Entry, q matcher.Query) (h matcher.Hit, ok bool) {
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
	entry, read := e.Key.String(), q.Key.String()
	tolerant := list.Tolerance == watchlist.ToleranceOCR
	if entry != read && !(tolerant && confusable(entry, read, q)) {
		return h, false
	}
	h = matcher.Hit{Entry: e, List: list, Differs: differing(entry, read)}
	known := e.Country != 0 && q.Country != 0
	switch {
	case known && e.Country != q.Country:
		h.Country = plate.CountryDifferent
		if !tolerant || entry != read {
			return h, false
		}
		h.Kind, h.Grade, h.Score = matcher.KindOCR, matcher.GradeLow, 0.4
	case known:
		h.Country = plate.CountrySame
		h.Kind, h.Grade, h.Score = matcher.KindExact, matcher.GradeHigh, 1
		if entry != read {
			h.Kind, h.Grade, h.Score = matcher.KindOCR, matcher.GradeMedium, 0.7
		}
	default:
		h.Country = plate.CountryUnknown
		h.Kind, h.Grade, h.Score = matcher.KindExact, matcher.GradeMedium, 0.8
		if entry != read {
			h.Kind, h.Grade, h.Score = matcher.KindOCR, matcher.GradeLow, 0.5
		}
	}
	return h, true
}

// allowed applies the purpose limitation of a list.
func (m *Matcher) allowed(l *watchlist.List, sensor string) bool {
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

// confusable reports whether a camera may have made read of entry: every
// character is the same or of one class of look-alikes, or the read repaired in
// the places of the SIV pattern is the entry.
func confusable(entry, read string, q matcher.Query) bool {
	return alike(entry, read) || slices.Contains(q.Key.Repairs(q.Country, nil), plateKey(entry))
}

func alike(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	classes := []string{"0ODQ", "1I", "8B", "5S", "2Z", "6G"}
	for i := range a {
		if a[i] == b[i] {
			continue
		}
		found := false
		for _, c := range classes {
			if slices.Contains([]byte(c), a[i]) && slices.Contains([]byte(c), b[i]) {
				found = true
			}
		}
		if !found {
			return false
		}
	}
	return true
}

func plateKey(s string) plate.Key {
	k, _ := plate.Parse(s)
	return k
}

func differing(a, b string) (mask uint16) {
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			mask |= 1 << i
		}
	}
	return mask
}
