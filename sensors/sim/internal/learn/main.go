// Command learn counts how real engines misread plates and writes the counts as
// the Go table that the simulated sensors misread from:
//
//	go run ./sensors/sim/internal/learn -csv ocr-reads.csv -date 2026-11-24 -o sensors/sim/misreads_table.go
//
// The input is CSV with the columns true_plate, read_plate and confidence (0 to
// 1), in any order and beside any others; both plates in A-Z and 0-9. It holds
// plates and is not kept in the repository; the table holds counts only.
package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"go/format"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func main() {
	var (
		in   = flag.String("csv", "", "reads to learn from")
		out  = flag.String("o", "", "Go file to write; standard output when empty")
		date = flag.String("date", "", "day to note in the file, YYYY-MM-DD")
	)
	flag.Parse()
	if err := run(*in, *out, *date); err != nil {
		fmt.Fprintln(os.Stderr, "learn:", err)
		os.Exit(1)
	}
}

func run(in, out, date string) error {
	if in == "" || date == "" {
		return errors.New("-csv and -date are required")
	}
	f, err := os.Open(in)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := count(f)
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	src, err := c.source(filepath.Base(in), date)
	if err != nil {
		return err
	}
	if out == "" {
		_, err = os.Stdout.Write(src)
		return err
	}
	return os.WriteFile(out, src, 0o644)
}

const (
	alphabet  = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	maxEdits  = 8  // more edits count as this many
	bands     = 10 // of confidence, each a tenth wide
	quantiles = 32 // steps of a distribution of confidences
)

// counts is what the table is made of.
type counts struct {
	columns       []string
	reads, plates int
	edits         [maxEdits + 1]int // reads by number of edits; 0 is right
	longer        int               // reads of another length than the plate
	seen          [36]int           // characters of the plates, over all reads
	subs          [36][36]int       // substitutions, by true and read character
	deletions     [3]int            // first, inner, last character
	insertions    [3]int            // before the first, inner, after the last
	inserted      [36]int           // inserted characters
	band          [bands][2]int     // right and wrong reads by tenth of confidence
	conf          [4][]float64      // confidences of reads with 0, 1, 2, 3 or more edits
}

// count reads the CSV.
func count(r io.Reader) (*counts, error) {
	rd := csv.NewReader(r)
	rd.ReuseRecord = true
	header, err := rd.Read()
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	c := &counts{columns: slices.Clone(header)}
	var at [3]int
	for i, name := range []string{"true_plate", "read_plate", "confidence"} {
		if at[i] = slices.Index(header, name); at[i] < 0 {
			return nil, fmt.Errorf("no column %s", name)
		}
	}
	plates := make(map[string]bool)
	for {
		rec, err := rd.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := rd.FieldPos(0)
		truth, read := rec[at[0]], rec[at[1]]
		if strings.Trim(truth, alphabet) != "" || strings.Trim(read, alphabet) != "" || truth == "" || read == "" {
			return nil, fmt.Errorf("line %d: a plate is not in A-Z and 0-9", line)
		}
		conf, err := strconv.ParseFloat(rec[at[2]], 64)
		if err != nil || !(conf >= 0 && conf <= 1) {
			return nil, fmt.Errorf("line %d: confidence is not a number from 0 to 1", line)
		}
		plates[strings.Clone(truth)] = true
		c.add(truth, read, conf)
	}
	if c.edits[0] == 0 || c.edits[0] == c.reads {
		return nil, errors.New("need right and wrong reads to learn from")
	}
	c.plates = len(plates)
	return c, nil
}

// add counts one read.
func (c *counts) add(truth, read string, conf float64) {
	c.reads++
	for i := range len(truth) {
		c.seen[strings.IndexByte(alphabet, truth[i])]++
	}
	ops := align(truth, read)
	n := min(len(ops), maxEdits)
	c.edits[n]++
	c.conf[min(n, 3)] = append(c.conf[min(n, 3)], conf)
	c.band[min(int(conf*bands), bands-1)][min(n, 1)]++
	if len(truth) != len(read) {
		c.longer++
	}
	for _, op := range ops {
		place := 1
		switch {
		case op.at == 0:
			place = 0
		case op.at == len(truth) || op.read == 0 && op.at == len(truth)-1:
			place = 2
		}
		switch {
		case op.read == 0:
			c.deletions[place]++
		case op.truth == 0:
			c.insertions[place]++
			c.inserted[strings.IndexByte(alphabet, op.read)]++
		default:
			c.subs[strings.IndexByte(alphabet, op.truth)][strings.IndexByte(alphabet, op.read)]++
		}
	}
}

// edit turns one character of the truth, at position at, into one of the read; 0
// stands for no character. An insertion comes in front of position at.
type edit struct {
	at          int
	truth, read byte
}

// align returns the fewest edits from truth to read, the last first. Of several
// such it prefers substitutions, then deletions.
func align(truth, read string) []edit {
	w := len(read) + 1
	d := make([]int, (len(truth)+1)*w)
	for i := range len(truth) + 1 {
		for j := range w {
			switch {
			case i == 0:
				d[j] = j
			case j == 0:
				d[i*w] = i
			default:
				d[i*w+j] = min(d[(i-1)*w+j-1]+cost(truth[i-1], read[j-1]), d[(i-1)*w+j]+1, d[i*w+j-1]+1)
			}
		}
	}
	var ops []edit
	for i, j := len(truth), len(read); i > 0 || j > 0; {
		switch here := d[i*w+j]; {
		case i > 0 && j > 0 && here == d[(i-1)*w+j-1]+cost(truth[i-1], read[j-1]):
			i, j = i-1, j-1
			if truth[i] != read[j] {
				ops = append(ops, edit{i, truth[i], read[j]})
			}
		case i > 0 && here == d[(i-1)*w+j]+1:
			i--
			ops = append(ops, edit{i, truth[i], 0})
		default:
			j--
			ops = append(ops, edit{i, 0, read[j]})
		}
	}
	return ops
}

func cost(a, b byte) int {
	if a == b {
		return 0
	}
	return 1
}

// source writes the table as Go.
func (c *counts) source(csvName, date string) ([]byte, error) {
	var b bytes.Buffer
	wrong := c.reads - c.edits[0]
	fmt.Fprintf(&b, `// Code generated by sensors/sim/internal/learn; DO NOT EDIT.
//
// Counted on %s from %d reads of %d plates, %d of them wrong, in a CSV file with
// the columns %s:
//
//	go run ./sensors/sim/internal/learn -csv %s -date %s -o sensors/sim/misreads_table.go

package sim

var learnt = table{
`, date, c.reads, c.plates, wrong, strings.Join(c.columns, ", "), csvName, date)
	fmt.Fprintf(&b, "reads: %d, wrong: %d, otherLength: %d,\n", c.reads, wrong, c.longer)
	fmt.Fprintf(&b, "edits: [9]uint32%s,\n", list(c.edits[:]))
	fmt.Fprintf(&b, "deletions: [3]uint32%s, insertions: [3]uint32%s,\n", list(c.deletions[:]), list(c.insertions[:]))
	fmt.Fprintf(&b, "inserted: [36]uint32%s,\n", list(c.inserted[:]))
	fmt.Fprintf(&b, "rightBand: [10]uint32%s,\n", column(c.band[:], 0))
	fmt.Fprintf(&b, "wrongBand: [10]uint32%s,\n", column(c.band[:], 1))
	b.WriteString("conf: [4][33]float32{\n")
	for _, conf := range c.conf {
		fmt.Fprintf(&b, "%s,\n", steps(conf))
	}
	b.WriteString("},\nsubs: [36]substitutions{\n")
	for i, row := range c.subs {
		to := make(map[byte]int)
		for j, n := range row {
			if n > 0 {
				to[alphabet[j]] = n
			}
		}
		chars := slices.SortedFunc(maps.Keys(to), func(x, y byte) int {
			if to[x] != to[y] {
				return to[y] - to[x]
			}
			return int(x) - int(y)
		})
		weights := make([]int, len(chars))
		for j, ch := range chars {
			weights[j] = to[ch]
		}
		fmt.Fprintf(&b, "%d: {seen: %d, to: %q, weights: []uint32%s}, // %c\n", i, c.seen[i], chars, list(weights), alphabet[i])
	}
	b.WriteString("},\n}\n")
	return format.Source(b.Bytes())
}

// list is {1, 2, 3}.
func list(v []int) string {
	s := make([]string, len(v))
	for i, n := range v {
		s[i] = strconv.Itoa(n)
	}
	return "{" + strings.Join(s, ", ") + "}"
}

func column(band [][2]int, i int) string {
	v := make([]int, len(band))
	for j := range band {
		v[j] = band[j][i]
	}
	return list(v)
}

// steps is the distribution of conf as its quantiles from least to greatest.
func steps(conf []float64) string {
	conf = slices.Sorted(slices.Values(conf))
	s := make([]string, quantiles+1)
	for i := range s {
		v := 0.0
		if len(conf) > 0 {
			v = conf[int(math.Round(float64(i*(len(conf)-1))/quantiles))]
		}
		s[i] = strconv.FormatFloat(v, 'f', 3, 64)
	}
	return "{" + strings.Join(s, ", ") + "}"
}
