// Package workload draws the lists and reads that benchmarks and budgets run on.
// The same Config gives the same workload on every machine, so figures taken
// months apart compare. Plates are drawn as issued: in the shapes, letters and
// number ranges of their countries, see plates.go. It measures nothing, and no
// plate in it is anyone's but by chance.
package workload

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// Kind is where the plates come from, and how sensors write them.
type Kind uint8

const (
	// French is SIV plates, all written AB-123-CD, all with their country, none
	// misread: the plainest traffic, in which nothing hides the cost of a look-up.
	French Kind = iota
	// European is the plates of eleven countries. Separators are as issued, gone,
	// or others; some reads are in small letters, unknownShare have no country,
	// wrongShare a wrong one, and misreadShare a text that is not the plate's.
	European
)

// String returns french or european.
func (k Kind) String() string { return [...]string{"french", "european"}[k] }

// Shares of the European reads. A read of a listed plate is neither misread nor
// of a wrong country, so that HitRatio says how many reads hit.
const (
	unknownShare = 0.30
	wrongShare   = 0.02
	misreadShare = 0.10
)

// DefaultReads is more than any cache holds, with their texts.
const DefaultReads = 1 << 20

// Config describes a workload. The zero value is a million French reads against
// an empty list.
type Config struct {
	Kind     Kind
	Seed     uint64
	Entries  int     // 100_000, 1_000_000 and 10_000_000 are the sizes that figures are given for
	Reads    int     // 0: DefaultReads
	HitRatio float64 // share of the reads that hit: 0, 0.001 and 0.01 are usual

	List      string              // id of the list; empty: "bench"
	Tolerance watchlist.Tolerance // of the list
}

// Workload is one list and the reads that pass while it stands.
type Workload struct {
	List    *watchlist.List
	Entries []watchlist.Entry // each plate once, in the order of no index
	Reads   []Read            // no plate twice, but for hits
	Hits    int               // reads with Hit set
}

// Read is what a sensor sent.
type Read struct {
	Text    string
	Country plate.Country
	Hit     bool // the plate of an entry, well read; no other read has the key of an entry
}

// At is the time of every read: all entries are valid at it.
var At = time.Date(2026, time.November, 24, 8, 0, 0, 0, time.UTC)

// New draws the workload of c. Ten million entries take some ten seconds and 3 GB.
func New(c Config) *Workload {
	if c.Reads == 0 {
		c.Reads = DefaultReads
	}
	if c.List == "" {
		c.List = "bench"
	}
	d := &drawer{
		rng:  rand.New(rand.NewPCG(c.Seed, uint64(c.Kind)<<32|uint64(c.Entries))),
		kind: c.Kind,
		seen: newKeySet(c.Entries + c.Reads),
	}
	w := &Workload{List: &watchlist.List{
		ID: c.List, Name: c.List, Owner: "bench", LegalBasis: "bench", Tolerance: c.Tolerance, Queue: watchlist.DefaultQueue,
	}}
	w.Entries = d.entries(c.Entries, c.List)
	w.Reads = d.reads(c.Reads, w.Entries, c.HitRatio)
	for i := range w.Reads {
		if w.Reads[i].Hit {
			w.Hits++
		}
	}
	return w
}

// Changes puts the list and its entries in, in one batch for Matcher.Apply.
func (w *Workload) Changes() []control.Change {
	cs := make([]control.Change, 0, len(w.Entries)+1)
	cs = append(cs, control.Change{NewList: w.List})
	packer := watchlist.Packer{Bulk: true}
	for i := range w.Entries {
		cs = append(cs, control.Change{Version: int64(i + 1), NewEntry: packer.Pack(&w.Entries[i])})
	}
	return cs
}

// drawer draws the entries and reads of one workload.
type drawer struct {
	rng  *rand.Rand
	kind Kind
	seen *keySet // every key given out so far
	buf  []byte
}

// plate draws a plate that was not drawn before, in d.buf, as issued.
func (d *drawer) plate() (plate.Key, plate.Country) {
	for {
		c := fr
		if d.kind == French {
			d.buf = appendSIV(d.buf[:0], d.rng)
		} else {
			d.buf, c = appendEuropean(d.buf[:0], d.rng)
		}
		k, err := plate.ParseBytes(d.buf)
		if err != nil {
			panic(fmt.Sprintf("workload: drew what is no plate: %v", err))
		}
		// The shape of an SIV plate is built to be valid; asking costs more than drawing.
		if (d.kind == French || k.Syntax(c) == plate.Valid) && d.seen.add(uint64(k)) {
			return k, c
		}
	}
}

func (d *drawer) entries(n int, list string) []watchlist.Entry {
	entries := make([]watchlist.Entry, n)
	var texts texts
	from, until := At.AddDate(0, -1, 0), At.AddDate(0, 1, 0)
	for i := range entries {
		k, c := d.plate()
		texts.add(d.buf)
		texts.add(strconv.AppendInt(d.buf[:0], int64(i), 36))
		entries[i] = watchlist.Entry{
			List: list, Key: k, Country: c, Priority: watchlist.PriorityMedium,
			Reason: "stolen", CaseRef: "bench", ValidFrom: from, ValidUntil: until,
		}
	}
	i := 0
	for t := range texts.all {
		if e := &entries[i/2]; i%2 == 0 {
			e.Plate = t
		} else {
			e.ID = t
		}
		i++
	}
	return entries
}

func (d *drawer) reads(n int, entries []watchlist.Entry, hitRatio float64) []Read {
	reads := make([]Read, n)
	// Exactly so many hits, at random places.
	hits := int(float64(n)*hitRatio + 0.5)
	if len(entries) == 0 {
		hits = 0
	}
	for _, i := range d.rng.Perm(n)[:hits] {
		reads[i].Hit = true
	}
	var texts texts
	for i := range reads {
		r := &reads[i]
		if r.Hit {
			e := &entries[d.rng.IntN(len(entries))]
			d.buf, r.Country = append(d.buf[:0], e.Plate...), e.Country
		} else {
			_, r.Country = d.plate()
		}
		if d.kind == European {
			if !r.Hit && d.rng.Float64() < misreadShare {
				d.misread()
			}
			d.buf = rewrite(d.buf, d.rng)
			switch p := d.rng.Float64(); {
			case p < unknownShare:
				r.Country = 0
			case p < unknownShare+wrongShare && !r.Hit:
				r.Country = drawCountry(d.rng).code
			}
		}
		texts.add(d.buf)
	}
	i := 0
	for t := range texts.all {
		reads[i].Text = t
		i++
	}
	return reads
}

// misread replaces the plate in d.buf by what a camera makes of it, unless that
// is no plate or one that was drawn.
func (d *drawer) misread() {
	var buf [2 * plate.MaxLen]byte
	b := misread(append(buf[:0], d.buf...), d.rng)
	if k, err := plate.ParseBytes(b); err == nil && d.seen.add(uint64(k)) {
		d.buf = append(d.buf[:0], b...)
	}
}

// texts gathers texts, to be one string in memory instead of millions.
type texts struct {
	bytes []byte
	ends  []uint32
}

func (t *texts) add(b []byte) {
	t.bytes = append(t.bytes, b...)
	t.ends = append(t.ends, uint32(len(t.bytes)))
}

// all yields the texts in the order in which they were added.
func (t *texts) all(yield func(string) bool) {
	s, from := string(t.bytes), uint32(0)
	for _, end := range t.ends {
		if !yield(s[from:end]) {
			return
		}
		from = end
	}
}

// keySet is a set of keys other than 0: open addressing, at most half full.
type keySet struct{ slots []uint64 }

func newKeySet(n int) *keySet {
	size := 16
	for size < 2*n {
		size *= 2
	}
	return &keySet{slots: make([]uint64, size)}
}

// add reports whether k was not there yet.
func (s *keySet) add(k uint64) bool {
	mask := uint64(len(s.slots) - 1)
	for i := k * 0x9e3779b97f4a7c15 >> 20 & mask; ; i = (i + 1) & mask {
		switch s.slots[i] {
		case k:
			return false
		case 0:
			s.slots[i] = k
			return true
		}
	}
}
