package control

import (
	"errors"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"

	"vigie/watchlist"
)

// LoadAll is Load for each of recs in their order, on all processors. It calls
// unreadable, if not nil, for every record that cannot be read, in order, from the
// goroutine of its caller. It stops at any other error, as of Load; what came before
// has then been applied. The records are not kept.
//
// Decoding a record needs nothing but the record, and two entries of one list with
// different ids do not meet. So records are taken a window at a time: all of it is
// decoded, and the entries of one list that follow each other are put there sorted,
// each processor into a part of the list of its own. Worth while are some thousand
// records at a time.
func (s *State) LoadAll(recs []Record, unreadable func(*RecordError)) error {
	l := &loader{state: s, window: make([]parsed, min(len(recs), loadWindow))}
	for len(s.bulk) < runtime.GOMAXPROCS(0) {
		s.bulk = append(s.bulk, &decoder{packer: watchlist.Packer{Bulk: true}})
	}
	for len(recs) > 0 {
		n := min(len(recs), len(l.window))
		l.parse(recs[:n])
		if err := l.apply(recs[:n], unreadable); err != nil {
			return err
		}
		recs = recs[n:]
	}
	return nil
}

// Settle gives back memory that a load has taken in reserve. It costs about 30 ns an
// entry, and the State stays what it was.
func (s *State) Settle() {
	for _, b := range s.books {
		b.entries.settle()
	}
}

// Everything is all that s holds as changes to a consumer that knows nothing, in an order that
// it can follow, in parts: the slice is used again for the next.
func (s *State) Everything() iter.Seq[[]Change] {
	return func(yield func([]Change) bool) {
		const part = 1 << 15
		changes, more := make([]Change, 0, part), true
		put := func(c Change) {
			if changes = append(changes, c); len(changes) == part {
				more = more && yield(changes)
				changes = changes[:0]
			}
		}
		for _, sn := range s.Sensors() {
			put(Change{NewSensor: sn})
		}
		for _, l := range s.Lists() {
			put(Change{NewList: l})
			for e := range s.All(l.ID) {
				put(Change{NewEntry: e})
			}
			for x := range s.AllExemptions(l.ID) {
				put(Change{NewExemption: x})
			}
		}
		if more {
			yield(changes)
		}
	}
}

const (
	// loadWindow bounds the records that are decoded and not yet applied, and so the
	// memory beside the State: some 150 bytes each.
	loadWindow = 1 << 14
	// loadChunk is how many records a goroutine decodes at a time.
	loadChunk = 1 << 9
	// loadPart is the least number of entries that are worth a goroutine.
	loadPart = 1 << 11
)

// loader is one run of LoadAll.
type loader struct {
	state   *State
	window  []parsed                  // what the records of a window are
	book    *book                     // of the entries that wait
	waiting []item[*watchlist.Packed] // to be put there, in the order of their records
}

// parse decodes recs into the window.
func (l *loader) parse(recs []Record) {
	decoders := l.state.bulk
	chunks := (len(recs) + loadChunk - 1) / loadChunk
	var taken atomic.Int64
	parallel(min(chunks, len(decoders)), func(worker int) {
		for i := int(taken.Add(1)) - 1; i < chunks; i = int(taken.Add(1)) - 1 {
			for j := i * loadChunk; j < min(len(recs), (i+1)*loadChunk); j++ {
				l.window[j] = decoders[worker].parse(recs[j])
			}
		}
	})
}

// apply applies recs, which lie decoded in the window.
func (l *loader) apply(recs []Record, unreadable func(*RecordError)) error {
	s := l.state
	defer l.flush()
	for i := range recs {
		p := &l.window[i]
		if p.entry != nil && recs[i].Offset > s.version {
			if l.book == nil || string(p.list) != l.book.id {
				l.flush()
				l.book = s.book(p.list)
			}
			s.version = recs[i].Offset
			s.stats.Records++
			l.waiting = append(l.waiting, item[*watchlist.Packed]{p.prefix, p.entry})
			continue
		}
		l.flush()
		err := s.apply(recs[i], p, nil)
		var bad *RecordError
		switch {
		case err == nil:
		case !errors.As(err, &bad):
			return err
		case unreadable != nil:
			unreadable(bad)
		}
	}
	return nil
}

// flush puts the entries that wait on their book, as setEntry does one after the other.
func (l *loader) flush() {
	b := l.book
	l.book = nil
	if b == nil {
		return
	}
	if len(b.lost) > 0 {
		for _, it := range l.waiting {
			delete(b.lost, it.value.ID())
		}
	}
	var live, exempt atomic.Int64
	parts := b.entries.take(min(len(l.state.bulk), max(1, len(l.waiting)/loadPart)))
	parallel(len(parts), func(i int) {
		var n, m int
		parts[i].putAll(l.waiting, func(old, e *watchlist.Packed) {
			dn, dm := b.tally(old, e)
			n, m = n+dn, m+dm
		})
		live.Add(int64(n))
		exempt.Add(int64(m))
	})
	b.entries.unite(parts)
	b.live += int(live.Load())
	b.exempt += int(exempt.Load())
	clear(l.waiting)
	l.waiting = l.waiting[:0]
}

// parallel calls f with each number from 0 to n-1, each in a goroutine of its own, and
// returns when all have returned.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := 1; i < n; i++ {
		wg.Go(func() { f(i) })
	}
	if n > 0 {
		f(0)
	}
	wg.Wait()
}
