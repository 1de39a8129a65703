package main

import (
	"math/rand/v2"
	"time"

	"vigie/matcher"
	"vigie/matcher/misread"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// lowest is the threshold down to which hits are gathered for the curve.
const lowest = 0.002

// now is the time of all reads, within the validity of all entries.
var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// wanted is an entry of a list.
type wanted struct {
	key     plate.Key
	country plate.Country
}

// listOf returns a matcher that holds one list.
func listOf(tol watchlist.Tolerance, threshold float32, plates []wanted) *matcher.Snapshot {
	l := &watchlist.List{ID: "l", Tolerance: tol, Threshold: threshold}
	changes := make([]control.Change, 0, len(plates)+1)
	changes = append(changes, control.Change{NewList: l})
	for _, w := range plates {
		e := watchlist.Entry{List: "l", Key: w.key, Country: w.country, ValidFrom: now.Add(-time.Hour), ValidUntil: now.Add(time.Hour)}
		changes = append(changes, control.Change{NewEntry: watchlist.Pack(&e)})
	}
	m := matcher.New()
	m.Apply(changes, 1)
	return m.Snapshot()
}

// match calls hit for every hit of read number i on s.
func (c *corpus) match(s *matcher.Snapshot, i int, buf []matcher.Hit, hit func(matcher.Hit)) []matcher.Hit {
	r := &c.reads[i]
	if r.key == 0 {
		return buf
	}
	buf = s.Match(buf[:0], &matcher.Query{Key: r.key, Country: c.vehicles[r.vehicle].country, Conf: r.conf, At: now.UnixMilli()})
	for _, h := range buf {
		hit(h)
	}
	return buf
}

// scope is one of the two sets of figures: French plates, or all.
type scope struct {
	c      *corpus
	french bool
	reads  []int     // numbers of reads
	shares []float64 // of each series on a list
}

func (c *corpus) scope(french bool) *scope {
	s := &scope{c: c, french: french, shares: make([]float64, len(c.series))}
	for i := range c.reads {
		if !french || c.vehicles[c.reads[i].vehicle].siv {
			s.reads = append(s.reads, i)
		}
	}
	for i := range c.series {
		switch {
		case !french:
			s.shares[i] = c.series[i].share
		case c.series[i].form == siv:
			s.shares[i] = 1
		}
	}
	return s
}

// draw adds n plates as issued, none of a vehicle of the corpus.
func (s *scope) draw(r *rand.Rand, plates []wanted, n int) []wanted {
	truths := map[wanted]bool{}
	for _, v := range s.c.vehicles {
		truths[wanted{v.key, v.country}] = true
	}
	for range n {
		x := r.Float64()
		i := 0
		for i < len(s.shares)-1 && x >= s.shares[i] {
			x -= s.shares[i]
			i++
		}
		for s.shares[i] == 0 { // rounding
			i--
		}
		w := wanted{s.c.series[i].draw(r), s.c.series[i].country}
		for truths[w] {
			w.key = s.c.series[i].draw(r)
		}
		plates = append(plates, w)
	}
	return plates
}

// expected returns how often a drawn list of n plates holds w.
func (s *scope) expected(w wanted, n int) (e float64) {
	for i, share := range s.shares {
		if sr := &s.c.series[i]; share > 0 && sr.holds(w) {
			e += float64(n) * share / sr.size
		}
	}
	return e
}

func (s *series) holds(w wanted) bool {
	if w.country != s.country {
		return false
	}
	var codes [plate.MaxLen]uint8
	if w.key.Codes(&codes) != len(s.places) {
		return false
	}
	for i, set := range s.places {
		if set>>codes[i]&1 == 0 {
			return false
		}
	}
	return true
}

// event is one hit: of the true plate, or of another that would be listed so
// many times.
type event struct {
	score float32
	truth bool
	times float64
}

func (c *corpus) measure(o *options, tol watchlist.Tolerance, p *plot) (f figures) {
	threshold := matcher.DefaultThreshold(tol, o.list)
	f.Threshold = threshold
	for _, french := range []bool{true, false} {
		s := c.scope(french)
		recall := s.recall(o, tol, threshold)
		events := s.events(o, tol)
		falseHits := 0.0
		for _, e := range events {
			if !e.truth && (e.score >= threshold) {
				falseHits += e.times
			}
		}
		falseHits *= 1e6 / float64(len(s.reads))
		counted := s.count(o, tol, threshold)
		if french {
			f.RecallFR, f.FalseFR, f.CountedFR = recall, falseHits, counted
			p.curve(tol, threshold, events, len(s.reads))
		} else {
			f.RecallAll, f.FalseAll, f.CountedAll = recall, falseHits, counted
		}
	}
	return f
}

// recall lists all true plates, fills up to the size of the list with others,
// and returns the share of reads that hit their own.
func (s *scope) recall(o *options, tol watchlist.Tolerance, threshold float32) float64 {
	r := rand.New(rand.NewPCG(o.seed, 1))
	var plates []wanted
	for _, v := range s.c.vehicles {
		if v.siv || !s.french {
			plates = append(plates, wanted{v.key, v.country})
		}
	}
	plates = s.draw(r, plates, max(0, o.list-len(plates)))
	snap := listOf(tol, threshold, plates)
	hits := 0
	var buf []matcher.Hit
	for _, i := range s.reads {
		truth := s.c.vehicles[s.c.reads[i].vehicle].key
		found := false
		buf = s.c.match(snap, i, buf, func(h matcher.Hit) { found = found || h.Entry.Key() == truth })
		if found {
			hits++
		}
	}
	return float64(hits) / float64(len(s.reads))
}

// events lists everything that could hit and returns all hits.
func (s *scope) events(o *options, tol watchlist.Tolerance) (events []event) {
	all := map[wanted]float64{} // with how often it is expected on a list
	add := func(w wanted) {
		if _, ok := all[w]; !ok {
			if e := s.expected(w, o.list); e > 0 {
				all[w] = e
			}
		}
	}
	for _, i := range s.reads {
		r := &s.c.reads[i]
		v := &s.c.vehicles[r.vehicle]
		add(wanted{v.key, v.country})
		if r.key == 0 {
			continue
		}
		for j := range s.c.series {
			add(wanted{r.key, s.c.series[j].country})
		}
		if tol == watchlist.ToleranceExact {
			continue
		}
		var rd misread.Reading
		rd.Set(r.key, v.country, r.conf, nil)
		for j, sr := range s.c.series {
			if s.shares[j] > 0 && sr.country == v.country && sr.form >= 0 {
				rd.Plausible(sr.form, lowest, func(k plate.Key) { add(wanted{k, sr.country}) })
			}
		}
	}
	plates := make([]wanted, 0, len(all))
	for w := range all {
		plates = append(plates, w)
	}
	threshold := float32(lowest)
	if tol == watchlist.ToleranceExact {
		threshold = 0
	}
	snap := listOf(tol, threshold, plates)
	var buf []matcher.Hit
	for _, i := range s.reads {
		truth := s.c.vehicles[s.c.reads[i].vehicle]
		buf = s.c.match(snap, i, buf, func(h matcher.Hit) {
			w := wanted{h.Entry.Key(), h.Entry.Country()}
			events = append(events, event{h.Score, w == wanted{truth.key, truth.country}, all[w]})
		})
	}
	return events
}

// count draws lists and counts false hits per million reads.
func (s *scope) count(o *options, tol watchlist.Tolerance, threshold float32) float64 {
	if o.draws == 0 {
		return 0
	}
	r := rand.New(rand.NewPCG(o.seed, 2))
	hits := 0
	var buf []matcher.Hit
	for range o.draws {
		snap := listOf(tol, threshold, s.draw(r, nil, o.list))
		for _, i := range s.reads {
			buf = s.c.match(snap, i, buf, func(matcher.Hit) { hits++ })
		}
	}
	return float64(hits) * 1e6 / float64(o.draws*len(s.reads))
}
