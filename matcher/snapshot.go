package matcher

import (
	"iter"
	"maps"
	"runtime"
	"slices"
	"sync"
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
		version:    -1,
		exact:      new(index),
		folded:     new(index),
		near:       nearIndex{index: new(index)},
		lists:      map[string]*listState{},
		counts:     map[string]int{},
		sensors:    map[string]*control.Sensor{},
		exemptions: map[exemption]int64{},
	})
	return m
}

// Snapshot returns the current state of the lists. It stays valid, and stays
// the same, for as long as the caller keeps it.
func (m *Matcher) Snapshot() *Snapshot { return m.cur.Load() }

// Snapshot is all lists at one version of the control log.
//
// Invariants: exact holds every entry that is a plate under its plate; folded
// holds, under the folded plate, the entries of lists with tolerance ocr; near
// holds, under each of its neighbours, those of lists with tolerance near;
// patterns holds the entries that are patterns. Nothing is written after the
// Snapshot was published.
type Snapshot struct {
	version  int64
	exact    *index
	folded   *index
	near     nearIndex
	nExact   int
	nFolded  int // 0 spares every read the folding
	nNear    int
	patterns *patternSet // nil for none

	lists      map[string]*listState
	counts     map[string]int             // entries by list
	sensors    map[string]*control.Sensor // by id
	exemptions map[exemption]int64        // until when, milliseconds since the Unix epoch
}

// listState is a list and what follows from it.
type listState struct {
	*watchlist.List
	threshold float32 // score that a hit on a text that differs must reach
}

// Version is the control-log offset that the snapshot has reached, -1 for none.
func (s *Snapshot) Version() int64 { return s.version }

// Len is the number of entries.
func (s *Snapshot) Len() int { return s.nExact + s.patterns.len() }

// Sensor returns the sensor of that id, nil when the registry has none. It is shared and
// must not be changed.
func (s *Snapshot) Sensor(id string) *control.Sensor { return s.sensors[id] }

// Apply makes the changes and moves to version. Readers keep the snapshot they
// have; those that ask afterwards see every change at once. Only the shards
// that a change touches are rebuilt.
func (m *Matcher) Apply(changes []control.Change, version int64) {
	m.ApplyWithProgress(changes, version, nil)
}

// ApplyWithProgress is Apply for a bulk load. It calls progress, if not nil,
// after every rebuilt shard, one call at a time and with growing done: done of
// total places in the indexes are set. An entry has one place per index that
// holds it, so total is no number of entries.
func (m *Matcher) ApplyWithProgress(changes []control.Change, version int64, progress func(done, total int)) {
	old := m.cur.Load()
	next := *old
	next.version = version
	if len(changes) > 0 {
		next.apply(changes, progress)
	}
	m.cur.Store(&next)
}

// loadPasses is how often Load goes over its parts, each time for as many shards. Each costs 0.15 s
// for a million entries and spares memory: with 8 the matcher took 1.3 s of a start, with 4 it
// takes 0.58, with 2 0.35 and 12 MiB more at the peak.
const loadPasses = 4

// Load is Apply, to a Matcher that knows nothing, of changes that only add, in parts: the
// slice is the caller's again when the next is asked for. It goes over all parts several
// times. Ten million changes in one piece are 720 MB, and what they do to the indexes 270 (70 with these passes),
// as much again as the entries themselves.
func (m *Matcher) Load(parts iter.Seq[[]control.Change], version int64) {
	next := *m.cur.Load()
	next.version = version
	var first []*edits
	for pass := range loadPasses {
		var all []*edits
		only := shards{pass << shardBits / loadPasses, (pass + 1) << shardBits / loadPasses}
		for changes := range parts {
			if pass == 0 {
				next.applyListsAndSensors(changes)
				next.applyPatterns(changes)
				next.applyExemptions(changes)
			}
			all = append(all, next.allEdits(changes, nil, only)...)
		}
		if pass == 0 {
			first = all
		}
		next.applyIndexes(all, nil)
	}
	next.applyThresholds(first)
	m.cur.Store(&next)
}

// edits is what a run of changes does to each index and list.
type edits struct {
	exact, folded, near edit
	counts              map[string]int // entries more, by list
}

func newEdits(only shards) *edits {
	return &edits{exact: edit{only: only}, folded: edit{only: only}, near: edit{only: only}, counts: map[string]int{}}
}

// minChunk is the number of changes that are worth a goroutine.
const minChunk = 1 << 14

func (s *Snapshot) apply(changes []control.Change, progress func(done, total int)) {
	// Lists first: where an entry belongs depends on its list.
	before := s.lists
	s.applyListsAndSensors(changes)

	// Then the entries of lists that change their tolerance, as they were
	// before: the changes that follow see them where they now belong.
	all := append(s.moved(before), s.allEdits(changes, before, allShards)...)
	s.applyIndexes(all, progress)
	s.applyThresholds(all)
	s.applyPatterns(changes)
	s.applyExemptions(changes)
}

// allEdits is what changes do to some shards of the indexes, in their order.
func (s *Snapshot) allEdits(changes []control.Change, before map[string]*listState, only shards) []*edits {
	all := make([]*edits, max(1, min(runtime.GOMAXPROCS(0), len(changes)/minChunk)))
	parallel(len(all), func(i int) {
		lo, hi := len(changes)*i/len(all), len(changes)*(i+1)/len(all)
		all[i] = s.edits(changes[lo:hi], before, only)
	})
	return all
}

// applyIndexes brings the indexes up to date. It uses the edits up, but for their counts.
func (s *Snapshot) applyIndexes(all []*edits, progress func(done, total int)) {
	exact, folded, near := make([]*edit, len(all)), make([]*edit, len(all)), make([]*edit, len(all))
	var total int
	for i, ed := range all {
		exact[i], folded[i], near[i] = &ed.exact, &ed.folded, &ed.near
		total += ed.exact.n + ed.folded.n + ed.near.n
	}
	tick := func(int) {}
	if progress != nil {
		var mu sync.Mutex
		var done int
		tick = func(n int) {
			mu.Lock()
			defer mu.Unlock()
			done += n
			progress(done, total)
		}
	}
	var grown int
	s.exact, grown = s.exact.apply(exact, tick)
	s.nExact += grown
	s.folded, grown = s.folded.apply(folded, tick)
	s.nFolded += grown
	if x, grown := s.near.apply(near, tick); x != s.near.index {
		s.nNear += grown
		s.near = withFront(x, s.nNear)
	}
}

// moved is what each change of a tolerance does to the entries that are there.
func (s *Snapshot) moved(before map[string]*listState) (all []*edits) {
	for id, l := range s.lists {
		was := before[id]
		if was == nil || was.Tolerance == l.Tolerance || !inexact(was.Tolerance) && !inexact(l.Tolerance) {
			continue
		}
		ed := newEdits(allShards)
		s.exact.each(func(e *watchlist.Packed) {
			if e.List() == id {
				ed.inexact(was.Tolerance, e, (*edit).remove)
				ed.inexact(l.Tolerance, e, (*edit).insert)
			}
		})
		all = append(all, ed)
	}
	return all
}

// inexact puts in or takes out the keys by which an entry is found from texts
// that differ from its own.
func (ed *edits) inexact(t watchlist.Tolerance, e *watchlist.Packed, do func(*edit, uint64, *watchlist.Packed)) {
	switch t {
	case watchlist.ToleranceOCR:
		do(&ed.folded, uint64(e.Key().Fold()), e)
	case watchlist.ToleranceNear:
		var keys [maxNeighbours]uint64
		for _, k := range keys[:neighbours(&keys, e.Key())] {
			do(&ed.near, k, e)
		}
	}
}

// edits is what the changes of entries do, in their order.
func (s *Snapshot) edits(changes []control.Change, before map[string]*listState, only shards) *edits {
	ed := newEdits(only)
	ed.exact.expect(len(changes))
	// What holds for the list of the last entry: nearly always the next one's.
	var list string
	var was, is watchlist.Tolerance
	count := 0
	look := func(id string) {
		if id == list {
			return
		}
		ed.counts[list] += count
		list, count = id, 0
		was, is = watchlist.ToleranceExact, watchlist.ToleranceExact
		if l := before[id]; l != nil {
			was = l.Tolerance
		}
		if l := s.lists[id]; l != nil {
			is = l.Tolerance
		}
	}
	for i := range changes {
		if e := changes[i].OldEntry; e != nil {
			look(e.List())
			count--
			if e.Key() != 0 {
				ed.exact.remove(uint64(e.Key()), e)
				ed.inexact(is, e, (*edit).remove)
				if was != is { // it may have come before the list changed, in this very batch
					ed.inexact(was, e, (*edit).remove)
				}
			}
		}
		if e := changes[i].NewEntry; e != nil {
			look(e.List())
			count++
			if e.Key() != 0 {
				ed.exact.insert(uint64(e.Key()), e)
				ed.inexact(is, e, (*edit).insert)
			}
		}
	}
	look("")
	delete(ed.counts, "")
	return ed
}

// applyThresholds brings the counts of entries, and what follows from them, up
// to date.
func (s *Snapshot) applyThresholds(all []*edits) {
	counts := maps.Clone(s.counts)
	for _, ed := range all {
		for id, n := range ed.counts {
			if counts[id] += n; counts[id] == 0 {
				delete(counts, id)
			}
		}
	}
	lists := make(map[string]*listState, len(s.lists))
	for id, l := range s.lists {
		threshold := l.Threshold
		if threshold == 0 {
			threshold = DefaultThreshold(l.Tolerance, counts[id])
		}
		if threshold != l.threshold {
			l = &listState{List: l.List, threshold: threshold}
		}
		lists[id] = l
	}
	s.counts, s.lists = counts, lists
}

// applyPatterns compiles the patterns anew if any of them changes: a few
// thousand at most.
func (s *Snapshot) applyPatterns(changes []control.Change) {
	var items []patternItem
	changed := false
	begin := func() {
		if !changed && s.patterns != nil {
			for _, e := range s.patterns.entries {
				items = append(items, patternItem{e.Pattern().Text(), e})
			}
		}
		changed = true
	}
	for i := range changes {
		if e := changes[i].OldEntry; e != nil && e.IsPattern() {
			begin()
			items = slices.DeleteFunc(items, func(it patternItem) bool { return it.entry == e })
		}
		if e := changes[i].NewEntry; e != nil && e.IsPattern() {
			begin()
			items = append(items, patternItem{e.Pattern().Text(), e})
		}
	}
	switch {
	case !changed:
	case len(items) == 0:
		s.patterns = nil
	default:
		s.patterns = newPatternSet(items)
	}
}

// exemption is an entry and a read that no longer alerts on it, unless the texts
// are equal.
type exemption struct {
	list, entry string
	read        plate.Key
}

// applyExemptions replaces the exemptions if any of them changes.
func (s *Snapshot) applyExemptions(changes []control.Change) {
	cloned := false
	for i := range changes {
		c := &changes[i]
		if c.OldExemption == nil && c.NewExemption == nil {
			continue
		}
		if !cloned {
			s.exemptions, cloned = maps.Clone(s.exemptions), true
		}
		if x := c.OldExemption; x != nil {
			delete(s.exemptions, exemption{x.List, x.Entry, x.Read})
		}
		if x := c.NewExemption; x != nil {
			s.exemptions[exemption{x.List, x.Entry, x.Read}] = x.Until.UnixMilli()
		}
	}
}

// exempts reports whether a hit of q on e was confirmed to be a misread, and is
// still exempt at the time of the read.
func (s *Snapshot) exempts(e *watchlist.Packed, q *Query) bool {
	return len(s.exemptions) > 0 && q.At < s.exemptions[exemption{e.List(), e.ID(), q.Key}]
}

// applyListsAndSensors replaces the maps that the changes touch.
func (s *Snapshot) applyListsAndSensors(changes []control.Change) {
	var lists, sensors bool
	for i := range changes {
		c := &changes[i]
		if c.OldList != nil || c.NewList != nil {
			if !lists {
				s.lists, lists = maps.Clone(s.lists), true
			}
			if c.NewList != nil {
				s.lists[c.NewList.ID] = &listState{List: c.NewList}
			} else {
				delete(s.lists, c.OldList.ID)
			}
		}
		if c.OldSensor != nil || c.NewSensor != nil {
			if !sensors {
				s.sensors, sensors = maps.Clone(s.sensors), true
			}
			if c.NewSensor != nil {
				s.sensors[c.NewSensor.ID] = c.NewSensor
			} else {
				delete(s.sensors, c.OldSensor.ID)
			}
		}
	}
}
