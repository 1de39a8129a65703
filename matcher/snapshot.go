package matcher

import (
	"maps"
	"sync/atomic"

	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// Matcher holds the current Snapshot. Apply is for one goroutine; Snapshot may
// be called from anywhere and never waits.
type Matcher struct {
	cur atomic.Pointer[Snapshot] // replaced whole, never written through; load once per batch
}

// New returns a Matcher that knows no entry, at version -1.
func New() *Matcher {
	m := new(Matcher)
	m.cur.Store(&Snapshot{
		version: -1,
		exact:   new(index),
		folded:  new(index),
		lists:   map[string]*watchlist.List{},
		zones:   map[string][]string{},
	})
	return m
}

// Snapshot returns the current state of the lists. It stays valid, and stays
// the same, for as long as the caller keeps it.
func (m *Matcher) Snapshot() *Snapshot { return m.cur.Load() }

// Snapshot is all lists at one version of the control log.
//
// Invariants: exact holds every entry under its plate; folded holds, under the
// folded plate, the entries of lists with tolerance ocr; lists and zones are
// never written after the Snapshot was published.
type Snapshot struct {
	version int64
	exact   *index
	folded  *index
	nFolded int // entries in folded: 0 spares every read the folding
	nExact  int
	lists   map[string]*watchlist.List
	zones   map[string][]string // zones by sensor id
}

// Version is the control-log offset that the snapshot has reached, -1 for none.
func (s *Snapshot) Version() int64 { return s.version }

// Len is the number of entries.
func (s *Snapshot) Len() int { return s.nExact }

// Apply makes the changes and moves to version. Readers keep the snapshot they
// have; those that ask afterwards see every change at once. Only the shards
// that a change touches are rebuilt.
func (m *Matcher) Apply(changes []control.Change, version int64) {
	old := m.cur.Load()
	next := *old
	next.version = version
	if len(changes) > 0 {
		next.apply(changes)
	}
	m.cur.Store(&next)
}

func (s *Snapshot) apply(changes []control.Change) {
	// Lists first: whether an entry belongs into folded depends on its list.
	before := s.lists
	s.applyListsAndSensors(changes)

	var exact, folded edit
	for i := range changes {
		c := &changes[i]
		if e := c.OldEntry; e != nil {
			exact.remove(uint64(e.Key), e)
			if ocr(before[e.List]) || ocr(s.lists[e.List]) { // it may have come in this very batch
				folded.remove(uint64(e.Key.Fold()), e)
			}
		}
		if e := c.NewEntry; e != nil {
			exact.insert(uint64(e.Key), e)
			if ocr(s.lists[e.List]) {
				folded.insert(uint64(e.Key.Fold()), e)
			}
		}
	}
	// A list that gains or loses its tolerance moves all its entries.
	for id, l := range s.lists {
		was := before[id]
		if was == nil || ocr(was) == ocr(l) {
			continue
		}
		s.exact.each(func(e *watchlist.Entry) {
			if e.List != id || exact.touched(e) {
				return
			}
			if ocr(l) {
				folded.insert(uint64(e.Key.Fold()), e)
			} else {
				folded.remove(uint64(e.Key.Fold()), e)
			}
		})
	}
	s.exact, s.nExact = exact.on(s.exact, s.nExact)
	s.folded, s.nFolded = folded.on(s.folded, s.nFolded)
}

func ocr(l *watchlist.List) bool { return l != nil && l.Tolerance == watchlist.ToleranceOCR }

// applyListsAndSensors replaces the maps that the changes touch.
func (s *Snapshot) applyListsAndSensors(changes []control.Change) {
	var lists, zones bool
	for i := range changes {
		c := &changes[i]
		if c.OldList != nil || c.NewList != nil {
			if !lists {
				s.lists, lists = maps.Clone(s.lists), true
			}
			if c.NewList != nil {
				s.lists[c.NewList.ID] = c.NewList
			} else {
				delete(s.lists, c.OldList.ID)
			}
		}
		if c.OldSensor != nil || c.NewSensor != nil {
			if !zones {
				s.zones, zones = maps.Clone(s.zones), true
			}
			if c.NewSensor != nil {
				s.zones[c.NewSensor.ID] = c.NewSensor.Zones
			} else {
				delete(s.zones, c.OldSensor.ID)
			}
		}
	}
}

// edit gathers what one Apply does to one index, so that a shard is rebuilt
// once however many of its entries change. The last word on an entry counts.
type edit struct {
	drop map[*watchlist.Entry]struct{} // entries to take out, by identity
	add  map[*watchlist.Entry]uint64   // entries to put in, with their key
	keys map[int]struct{}              // shards that change
	list []*watchlist.Entry            // order of insertion
}

func (ed *edit) touch(key uint64) {
	if ed.keys == nil {
		ed.drop = map[*watchlist.Entry]struct{}{}
		ed.add = map[*watchlist.Entry]uint64{}
		ed.keys = map[int]struct{}{}
	}
	ed.keys[shardOf(mix(key))] = struct{}{}
}

func (ed *edit) remove(key uint64, e *watchlist.Entry) {
	ed.touch(key)
	if _, pending := ed.add[e]; pending {
		delete(ed.add, e)
		return
	}
	ed.drop[e] = struct{}{}
}

func (ed *edit) insert(key uint64, e *watchlist.Entry) {
	ed.touch(key)
	ed.add[e] = key
	ed.list = append(ed.list, e)
}

// touched reports whether the edit already moves e.
func (ed *edit) touched(e *watchlist.Entry) bool {
	_, d := ed.drop[e]
	_, a := ed.add[e]
	return d || a
}

// on returns idx with the edit made, and the number of its entries, n before.
func (ed *edit) on(idx *index, n int) (*index, int) {
	if len(ed.keys) == 0 {
		return idx, n
	}
	next := *idx
	adds := make(map[int][]item, len(ed.keys))
	for _, e := range ed.list {
		key, ok := ed.add[e]
		if !ok {
			continue
		}
		delete(ed.add, e) // inserted twice: once is enough
		i := shardOf(mix(key))
		adds[i] = append(adds[i], item{key: key, entry: e})
	}
	for i := range ed.keys {
		n -= next[i].size()
		next[i] = next[i].rebuilt(ed.drop, adds[i])
		n += next[i].size()
	}
	return &next, n
}

func (s *shard) size() int {
	if s == nil {
		return 0
	}
	return len(s.entries)
}

func (x *index) each(f func(*watchlist.Entry)) {
	for _, s := range x {
		if s == nil {
			continue
		}
		for _, it := range s.entries {
			f(it.entry)
		}
	}
}

func (x *index) find(key uint64) []item {
	h := mix(key)
	return x[shardOf(h)].find(key, h)
}

// maxRepairs bounds the repaired texts of one read: plate.Key.Repairs.
const maxRepairs = 16

// Match appends a hit for every entry that the read meets and returns the
// extended slice. It is the whole look-up cost of a read: no allocation beyond
// dst, no lock, no clock.
func (s *Snapshot) Match(dst []Hit, q *Query) []Hit {
	for _, it := range s.exact.find(uint64(q.Key)) {
		if v := s.judge(it.entry, q, true); v.Alerts {
			dst = append(dst, v.Hit)
		}
	}
	if s.nFolded > 0 {
		dst = s.matchOCR(dst, q)
	}
	return dst
}

func (s *Snapshot) matchOCR(dst []Hit, q *Query) []Hit {
	fold := q.Key.Fold()
	for _, it := range s.folded.find(uint64(fold)) {
		if it.entry.Key == q.Key {
			continue // met by its exact text
		}
		if v := s.judge(it.entry, q, false); v.Alerts {
			dst = append(dst, v.Hit)
		}
	}
	var buf [maxRepairs]plate.Key
	for _, r := range q.Key.Repairs(q.Country, buf[:0]) {
		if r.Fold() == fold {
			continue // met by its folded text
		}
		for _, it := range s.exact.find(uint64(r)) {
			if !ocr(s.lists[it.entry.List]) {
				continue
			}
			if v := s.judge(it.entry, q, false); v.Alerts {
				dst = append(dst, v.Hit)
			}
		}
	}
	return dst
}

// Explain returns a verdict for every entry whose text the read meets, whether
// it hits or not. It is for people: it may allocate.
func (s *Snapshot) Explain(q *Query) []Verdict {
	var vs []Verdict
	seen := map[*watchlist.Entry]bool{}
	ask := func(items []item, equal bool) {
		for _, it := range items {
			if seen[it.entry] || equal != (it.entry.Key == q.Key) {
				continue
			}
			seen[it.entry] = true
			vs = append(vs, s.judge(it.entry, q, equal))
		}
	}
	ask(s.exact.find(uint64(q.Key)), true)
	ask(s.folded.find(uint64(q.Key.Fold())), false)
	for _, r := range q.Key.Repairs(q.Country, nil) {
		for _, it := range s.exact.find(uint64(r)) {
			if ocr(s.lists[it.entry.List]) {
				ask([]item{it}, false)
			}
		}
	}
	return vs
}
