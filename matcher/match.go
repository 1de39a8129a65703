package matcher

import (
	"slices"

	"vigie/matcher/misread"
	"vigie/watchlist"
	"vigie/watchlist/plate"
)

// Match appends a hit for every entry that the read meets and returns the
// extended slice. It is the whole look-up cost of a read: no allocation beyond
// dst, no lock, no clock.
func (s *Snapshot) Match(dst []Hit, q *Query) []Hit {
	for _, e := range s.exact.find(uint64(q.Key)) {
		if v := s.judge(e, q, equalText, 1); v.Alerts {
			dst = append(dst, v.Hit)
		}
	}
	if s.Weighs() {
		dst = s.gather(dst, nil, q)
	}
	if s.patterns != nil {
		dst = s.matchPatterns(dst, q)
	}
	return dst
}

// MayHit appends to dst a bit for each of keys, 64 to a word and the lowest
// first, and returns the extended slice: where the bit is clear, Match of a read
// of that key hits nothing. Asked for a batch at once, the waits for memory
// overlap; see index.mayHold for what that is worth.
func (s *Snapshot) MayHit(dst []uint64, keys []plate.Key) []uint64 {
	if !s.Weighs() && s.patterns == nil {
		return s.exact.mayHold(dst, keys)
	}
	for range (len(keys) + 63) / 64 {
		dst = append(dst, ^uint64(0))
	}
	return dst
}

// Explain returns a verdict for every entry whose text the read meets, whether
// it hits or not. It is for people: it may allocate.
func (s *Snapshot) Explain(q *Query) (vs []Verdict) {
	for _, e := range s.exact.find(uint64(q.Key)) {
		vs = append(vs, s.judge(e, q, equalText, 1))
	}
	if s.Weighs() {
		s.gather(nil, &vs, q)
	}
	var buf [plate.MaxLen]byte
	for _, e := range s.patterns.match(nil, q.Key.AppendTo(buf[:0])) {
		vs = append(vs, s.judge(e, q, fitsPattern, 1))
	}
	return vs
}

func (s *Snapshot) matchPatterns(dst []Hit, q *Query) []Hit {
	var (
		found [64]*watchlist.Packed
		buf   [plate.MaxLen]byte
	)
	for _, e := range s.patterns.match(found[:0], q.Key.AppendTo(buf[:0])) {
		if v := s.judge(e, q, fitsPattern, 1); v.Alerts {
			dst = append(dst, v.Hit)
		}
	}
	return dst
}

// Weighs reports whether some list hits on texts that differ, so that Conf,
// CharConf and Candidates of a Query count.
func (s *Snapshot) Weighs() bool { return s.nFolded+s.nNear > 0 }

// DecodeLeast is the share of all plates that would be read as a read was, down
// to which the matcher looks for plates place by place (misread.Reading.Decode).
const DecodeLeast = 0.01

// found holds entries that a read may be a misread of, not yet weighed. Looking
// up is cheap and nearly always finds nothing; weighing is not, so it is made
// ready only once something was found.
type found struct {
	entries [32]*watchlist.Packed
	n       int
}

// gather looks up all that lists with tolerance ocr or near may hit, and appends
// the hits to dst, or, when vs is not nil, the verdicts to vs.
func (s *Snapshot) gather(dst []Hit, vs *[]Verdict, q *Query) []Hit {
	var (
		f      found
		from   = len(dst)
		around [maxNeighbours]uint64
	)
	n := neighbours(&around, q.Key)
	if s.nFolded > 0 {
		dst = s.note(dst, from, vs, &f, q, s.folded.find(around[0]))
		dst = s.note(dst, from, vs, &f, q, s.folded.find(around[1]))   // without the first character
		dst = s.note(dst, from, vs, &f, q, s.folded.find(around[n-1])) // without the last
		var (
			r   misread.Reading
			buf [misread.MaxDecoded]plate.Key
		)
		r.Set(q.Key, q.Country, q.Conf, nil)
		for _, k := range r.Decode(buf[:0], DecodeLeast) {
			for _, e := range s.exact.find(uint64(k)) {
				if l := s.lists[e.List()]; l != nil && l.Tolerance == watchlist.ToleranceOCR {
					dst = s.note(dst, from, vs, &f, q, []*watchlist.Packed{e})
				}
			}
		}
	}
	if s.nNear > 0 {
		for _, k := range around[:n] {
			if entries := s.near.find(k); entries != nil {
				dst = s.note(dst, from, vs, &f, q, entries)
			}
		}
	}
	for _, c := range q.Candidates[:min(len(q.Candidates), MaxCandidates)] {
		k := uint64(c.Key.Fold())
		if s.nFolded > 0 {
			dst = s.note(dst, from, vs, &f, q, s.folded.find(k))
		}
		if s.nNear > 0 {
			dst = s.note(dst, from, vs, &f, q, s.near.find(k))
		}
	}
	if f.n > 0 {
		dst = s.weigh(dst, from, vs, &f, q)
	}
	return dst
}

// note keeps entries in f, each once, and weighs what is there when f is full.
// Entries of equal text were met before.
func (s *Snapshot) note(dst []Hit, from int, vs *[]Verdict, f *found, q *Query, entries []*watchlist.Packed) []Hit {
	for _, e := range entries {
		if e.Key() == q.Key || slices.Contains(f.entries[:f.n], e) {
			continue
		}
		if f.n == len(f.entries) {
			dst = s.weigh(dst, from, vs, f, q)
		}
		f.entries[f.n] = e
		f.n++
	}
	return dst
}

// weigh judges what is in f and empties it. dst[from:] and vs have what was
// weighed before.
func (s *Snapshot) weigh(dst []Hit, from int, vs *[]Verdict, f *found, q *Query) []Hit {
	var r misread.Reading
	r.Set(q.Key, q.Country, q.Conf, q.CharConf)
	for _, e := range f.entries[:f.n] {
		l := s.lists[e.List()]
		if l == nil || !inexact(l.Tolerance) ||
			vs == nil && len(q.Candidates) == 0 && r.Below(e.Key(), l.threshold) ||
			slices.ContainsFunc(dst[from:], func(h Hit) bool { return h.Entry == e }) {
			continue
		}
		switch v := s.judge(e, q, alikeText, score(e, &r, q)); {
		case vs != nil:
			if !slices.ContainsFunc(*vs, func(v Verdict) bool { return v.Entry == e }) {
				*vs = append(*vs, v)
			}
		case v.Alerts:
			dst = append(dst, v.Hit)
		}
	}
	f.n = 0
	return dst
}

// inexact reports whether lists of tolerance t hit on texts that differ.
func inexact(t watchlist.Tolerance) bool {
	return t == watchlist.ToleranceOCR || t == watchlist.ToleranceNear
}
