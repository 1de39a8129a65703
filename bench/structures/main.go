// Command structures compares what a miss costs in the sets that a matcher could
// be made of: bloom/v3 as it comes, the matcher's blocked filter, a flat set, Go
// maps by integer and by text, and the matcher itself with all it carries.
//
//	go run ./bench/structures            writes bench/results/structures.{md,svg,json}
//
// All are asked for the same French plates, none of which they have.
package main

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/bits-and-blooms/bloom/v3"

	"vigie/bench/measure"
	"vigie/bench/workload"
	"vigie/matcher"
	"vigie/watchlist/plate"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "structures:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fs := flag.NewFlagSet("structures", flag.ContinueOnError)
	out := fs.String("out", "bench/results", "folder to write to")
	sizes := fs.String("sizes", "100000,1000000,10000000", "numbers of entries; 10 M take a minute and 5 GB")
	rounds := fs.Int("rounds", 21, "rounds of each timing")
	if err := fs.Parse(args); err != nil {
		return err
	}
	r := results{Machine: measure.Here()}
	for s := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("-sizes: %q is not a number of entries", s)
		}
		fmt.Fprintln(os.Stderr, "measuring", n, "entries")
		r.Rows = append(r.Rows, compare(n, *rounds)...)
		runtime.GC()
	}
	return r.write(*out)
}

// results is the content of structures.json.
type results struct {
	Machine measure.Machine `json:"machine"`
	Rows    []row           `json:"rows"`
}

// row is one structure with one number of entries.
type row struct {
	Entries        int     `json:"entries"`
	Structure      string  `json:"structure"`
	FalsePositives float64 `json:"false_positives"` // share of the misses
	Bytes          float64 `json:"bytes_per_entry"` // heap it keeps, without the entries themselves
	BuildNs        float64 `json:"build_ns_per_entry"`
	MissNs         float64 `json:"miss_ns"` // median over the rounds
	Least          float64 `json:"miss_ns_least"`
	Most           float64 `json:"miss_ns_most"`
}

// set is one structure under test. has is asked for reads by number, from and to.
type set struct {
	name  string
	build func() // fills it; its time and its growth of the heap are measured
	has   measure.Contender
}

// The names, in the order of the table.
const (
	nameBloom   = "bloom/v3, Test of 8 bytes, 1 %"
	nameBlocked = "bloom/v3 driven as in matcher/filter.go"
	nameFlat    = "flat set of uint64, at most half full"
	nameMap     = "map[uint64]struct{}"
	nameText    = "map[string]struct{}"
	nameMatcher = "matcher: filter, exact set, entries found"
)

// compare measures all structures with n entries.
func compare(n, rounds int) []row {
	w := workload.New(workload.Config{Seed: 1, Entries: n})
	reads := len(w.Reads)
	keys := make([]uint64, reads)
	texts := make([]string, reads)
	octets := make([]byte, 8*reads)
	for i := range w.Reads {
		k, err := plate.Parse(w.Reads[i].Text)
		if err != nil {
			panic("structures: a read of the workload is no plate")
		}
		keys[i], texts[i] = uint64(k), k.String()
		binary.LittleEndian.PutUint64(octets[8*i:], uint64(k))
	}
	changes := w.Changes()

	var (
		plain   *bloom.BloomFilter
		blocked *bloom.BloomFilter
		words   []uint64
		flat    flatSet
		byKey   map[uint64]struct{}
		byText  map[string]struct{}
		m       *matcher.Matcher
		snap    *matcher.Snapshot
	)
	query := matcher.Query{Country: w.Reads[0].Country, At: workload.At.UnixMilli()}
	hits := make([]matcher.Hit, 0, 16)
	sets := []set{
		{nameBloom, func() {
			plain = bloom.NewWithEstimates(uint(n), 0.01)
			var b [8]byte
			for i := range w.Entries {
				binary.LittleEndian.PutUint64(b[:], uint64(w.Entries[i].Key))
				plain.Add(b[:])
			}
		}, func(from, to int) (hits int) {
			for i := from; i < to; i++ {
				if plain.Test(octets[8*i : 8*i+8]) {
					hits++
				}
			}
			return hits
		}},
		{nameBlocked, func() {
			blocked = newFilter(n)
			words = blocked.BitSet().Words()
			for i := range w.Entries {
				filterAdd(words, mix(uint64(w.Entries[i].Key)))
			}
		}, func(from, to int) (hits int) {
			for _, k := range keys[from:to] {
				if filterHas(words, mix(k)) {
					hits++
				}
			}
			return hits
		}},
		{nameFlat, func() {
			flat = newFlatSet(n)
			for i := range w.Entries {
				flat.add(uint64(w.Entries[i].Key))
			}
		}, func(from, to int) (hits int) {
			for _, k := range keys[from:to] {
				if flat.has(k) {
					hits++
				}
			}
			return hits
		}},
		{nameMap, func() {
			byKey = make(map[uint64]struct{}, n)
			for i := range w.Entries {
				byKey[uint64(w.Entries[i].Key)] = struct{}{}
			}
		}, func(from, to int) (hits int) {
			for _, k := range keys[from:to] {
				if _, ok := byKey[k]; ok {
					hits++
				}
			}
			return hits
		}},
		{nameText, func() {
			byText = make(map[string]struct{}, n)
			for i := range w.Entries {
				byText[w.Entries[i].Key.String()] = struct{}{}
			}
		}, func(from, to int) (hits int) {
			for _, s := range texts[from:to] {
				if _, ok := byText[s]; ok {
					hits++
				}
			}
			return hits
		}},
		{nameMatcher, func() {
			m = matcher.New()
			m.Apply(changes, int64(len(changes)))
			snap = m.Snapshot()
		}, func(from, to int) (found int) {
			for _, k := range keys[from:to] {
				query.Key = plate.Key(k)
				hits = snap.Match(hits[:0], &query)
				found += len(hits)
			}
			return found
		}},
	}

	rows := make([]row, len(sets))
	contenders := make([]measure.Contender, len(sets))
	for i, s := range sets {
		before := heap()
		start := time.Now()
		s.build()
		took := time.Since(start)
		rows[i] = row{
			Entries: n, Structure: s.name,
			Bytes:          (heap() - before) / float64(n),
			BuildNs:        float64(took.Nanoseconds()) / float64(n),
			FalsePositives: float64(s.has(0, reads)) / float64(reads),
		}
		contenders[i] = s.has
	}
	for i, ns := range measure.Alternate(rounds, reads, contenders) {
		rows[i].MissNs, rows[i].Least, rows[i].Most = measure.Median(ns), measure.Quantile(ns, 0), measure.Quantile(ns, 1)
	}
	runtime.KeepAlive(m)
	runtime.KeepAlive(blocked)
	return rows
}

// heap returns the bytes in use after a collection. The second one frees what the
// first has only found.
func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// write writes the three files.
func (r *results) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	for _, f := range []struct{ ext, text string }{
		{"json", string(data) + "\n"}, {"md", r.markdown()}, {"svg", r.svg()},
	} {
		if err := os.WriteFile(filepath.Join(dir, "structures."+f.ext), []byte(f.text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r *results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Sets compared

%s. By `+"`go run ./bench/structures`"+`, which writes this file.

A miss is the median over the rounds, least and most behind it; structures take turns in one run. Bytes are what the heap
keeps, without the entries themselves. The matcher's row is the whole of Snapshot.Match, with all it must know to find the entry.

| entries | structure | miss, ns | least..most | false positives | bits per key | bytes per entry | build, ns per entry |
|---:|---|---:|---:|---:|---:|---:|---:|
`, r.Machine)
	for _, row := range r.Rows {
		fp := "0"
		if row.FalsePositives > 0 {
			fp = fmt.Sprintf("%.2f %%", 100*row.FalsePositives)
		}
		fmt.Fprintf(&b, "| %s | %s | %.1f | %.1f..%.1f | %s | %.1f | %.1f | %.0f |\n",
			count(row.Entries), row.Structure, row.MissNs, row.Least, row.Most, fp, 8*row.Bytes, row.Bytes, row.BuildNs)
	}
	b.WriteString("\n![misses and memory](structures.svg)\n")
	return b.String()
}

// count writes 100 k, 1 M.
func count(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%d M", n/1_000_000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%d k", n/1000)
	}
	return strconv.Itoa(n)
}
