package matcher_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"vigie/matcher"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// TestEvidence reads wanted and other vehicles with one character wrong and asks
// what the sensor's doubts are worth: at one and the same threshold, more of the
// wanted must be found, and no more of the others be taken for them.
func TestEvidence(t *testing.T) {
	const n, threshold = 3000, 0.05
	rng := rand.New(rand.NewPCG(7, 7))
	l := list("near", watchlist.ToleranceNear)
	l.Threshold = threshold
	changes := []control.Change{putList(l)}
	var wanted []string
	for i := range n {
		e := entry(t, "near", fmt.Sprint(i), siv(rng).String(), fr)
		wanted = append(wanted, e.Unpack().Plate)
		changes = append(changes, control.Change{NewEntry: e})
	}
	m := matcher.New()
	m.Apply(changes, 1)
	snap := m.Snapshot()

	// A misread of text, with what a sensor may say beside it.
	type seen struct {
		query                matcher.Query
		charConf             []float32
		candidates, nonsense []matcher.Candidate
	}
	misread := func(text string) (s seen) {
		truth := key(t, text)
		var c [plate.MaxLen]uint8
		length := truth.Codes(&c)
		b := []byte(truth.String())
		at := rng.IntN(length)
		for b[at] == truth.String()[at] {
			b[at] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[rng.IntN(36)]
		}
		s.query = matcher.Query{Key: key(t, string(b)), Country: fr, At: epoch.UnixMilli(), Conf: 0.75}
		for i := range length {
			conf := 0.9 + 0.09*rng.Float32()
			if i == at {
				conf = 0.35 + 0.3*rng.Float32()
			}
			s.charConf = append(s.charConf, conf)
		}
		s.candidates = []matcher.Candidate{{Key: siv(rng), Conf: 0.1}, {Key: truth, Conf: 0.4}}
		s.nonsense = []matcher.Candidate{{Key: siv(rng), Conf: 0.75}, {Key: siv(rng), Conf: 0.75}}
		return s
	}
	hits := func(vehicles []string, with func(*matcher.Query, seen)) (count int) {
		rng = rand.New(rand.NewPCG(8, 8)) // the same misreads each time
		var buf []matcher.Hit
		for _, v := range vehicles {
			s := misread(v)
			with(&s.query, s)
			buf = snap.Match(buf[:0], &s.query)
			for _, h := range buf {
				if h.Entry.Key() == key(t, v) || &vehicles[0] != &wanted[0] {
					count++
				}
			}
		}
		return count
	}
	var others []string
	for range 20 * n {
		others = append(others, siv(rng).String())
	}
	plain := func(*matcher.Query, seen) {}
	charConf := func(q *matcher.Query, s seen) { q.CharConf = s.charConf }
	candidates := func(q *matcher.Query, s seen) { q.Candidates = s.candidates }
	nonsense := func(q *matcher.Query, s seen) { q.Candidates = s.nonsense }

	found, taken := hits(wanted, plain), hits(others, plain)
	t.Logf("of %d wanted and %d others: plain %d and %d", n, len(others), found, taken)
	for _, tc := range []struct {
		name        string
		with        func(*matcher.Query, seen)
		least, most float64 // times as many wanted
	}{
		{"confidences in characters", charConf, 1.1, 10},
		{"the truth among the candidates", candidates, 1.5, 10},
		{"candidates that are other plates", nonsense, 0, 0.9},
	} {
		f, o := hits(wanted, tc.with), hits(others, tc.with)
		t.Logf("%s: %d and %d", tc.name, f, o)
		if r := float64(f) / float64(found); r < tc.least || r > tc.most {
			t.Errorf("%s: %.2f times as many wanted found, want %v to %v", tc.name, r, tc.least, tc.most)
		}
		if o > taken+taken/2+5 {
			t.Errorf("%s: %d others taken for wanted, %d without", tc.name, o, taken)
		}
	}
}

// TestInexactAllocations: hits on texts that differ cost no allocation either.
func TestInexactAllocations(t *testing.T) {
	m := matcher.New()
	m.Apply(append([]control.Change{
		putList(list("ocr", watchlist.ToleranceOCR)), putList(list("near", watchlist.ToleranceNear)), putList(list("pattern", watchlist.TolerancePattern)),
	}, putEntries(
		entry(t, "ocr", "o", "TL-111-LT", fr), entry(t, "near", "n", "GW-274-NR", fr), pattern(t, "pattern", "p", "HK-9?4-*", fr),
	)...), 1)
	snap := m.Snapshot()
	hits := make([]matcher.Hit, 0, 8)
	for _, read := range []string{"TLL11LT", "6W274NR", "HK914ZZ"} {
		q := matcher.Query{
			Key: key(t, read), Country: fr, At: epoch.UnixMilli(), Conf: 0.8,
			CharConf: []float32{.4, .9, .5, .9, .9, .9, .9}, Candidates: []matcher.Candidate{{Key: key(t, "AB123CD"), Conf: 0.1}},
		}
		if n := testing.AllocsPerRun(100, func() { hits = snap.Match(hits[:0], &q) }); n != 0 || len(hits) != 1 {
			t.Errorf("%s: %v allocations and %d hits, want 0 and 1", read, n, len(hits))
		}
	}
}
