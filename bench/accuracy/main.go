// Command accuracy says how many wanted vehicles the matcher finds, and how many
// others it would have patrols look at, on recorded reads whose true plates are
// known:
//
//	go run ./bench/accuracy --corpus reads.csv --list 100000 --json
//
// The corpus is CSV with the columns true_plate, country, read_plate and
// confidence, in any order and beside any others. Every read stands alone: no
// second look, no sensor candidates. The figures are for the vehicles that
// misread.HeldOut keeps out of learning; --vehicles all takes every vehicle, for
// a corpus that nothing was learnt from.
//
// For each tolerance it prints
//
//	recall_*             share of the reads whose true plate, when listed among
//	                     --list plates, is hit
//	false_per_million_*  hits per million reads of vehicles that are not listed
//
// for the French plates since 2009 (_fr: country FR, on a list of such plates)
// and for all reads (_all: on a list of all countries and forms in proportion to
// the vehicles of the corpus). Plates of a list are drawn evenly from the form in
// which they are issued. Hits are those of the real matcher.
//
// False hits are rare, so drawing lists and counting is slow to settle. Instead
// every plate that could hit is listed at once, found by misread.Plausible, and
// each hit counts as often as a drawn list would hold that plate: its expected
// value, without the noise. --draws also draws real lists and counts, as a check.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"vigie/watchlist"
)

func main() {
	var o options
	flag.StringVar(&o.corpus, "corpus", "", "CSV of reads with their true plates (required)")
	flag.IntVar(&o.list, "list", 100_000, "plates on the list")
	flag.StringVar(&o.vehicles, "vehicles", "held-out", "held-out: those the misread table was not learnt from; learnt: the others, to choose settings by; all: every one, for another corpus")
	flag.IntVar(&o.draws, "draws", 0, "also draw this many lists and count the false hits, as a check")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of all that is drawn")
	flag.StringVar(&o.plot, "plot", "bench/results/accuracy.svg", "where to write the curve of recall over false hits, SVG; empty for nowhere")
	asJSON := flag.Bool("json", false, "print JSON instead of a table")
	flag.Parse()
	rep, err := run(&o, os.Stderr)
	if err == nil {
		err = rep.print(os.Stdout, *asJSON)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "accuracy:", err)
		os.Exit(1)
	}
}

type options struct {
	corpus, vehicles, plot string
	list, draws            int
	seed                   uint64
}

// figures are the results for one tolerance.
type figures struct {
	Threshold  float32 `json:"threshold"` // of the list; 0 for exact
	RecallFR   float64 `json:"recall_fr"`
	RecallAll  float64 `json:"recall_all"`
	FalseFR    float64 `json:"false_per_million_fr"`
	FalseAll   float64 `json:"false_per_million_all"`
	CountedFR  float64 `json:"counted_false_per_million_fr,omitempty"` // with --draws
	CountedAll float64 `json:"counted_false_per_million_all,omitempty"`
}

type report struct {
	Date     string  `json:"date"`
	List     int     `json:"list"`
	Vehicles int     `json:"vehicles"`
	Reads    int     `json:"reads"`
	ReadsFR  int     `json:"reads_fr"`
	Exact    figures `json:"exact"`
	OCR      figures `json:"ocr"`
	Near     figures `json:"near"`
}

func run(o *options, progress io.Writer) (*report, error) {
	switch {
	case o.corpus == "":
		return nil, errors.New("--corpus is required: a CSV file with the columns true_plate, country, read_plate, confidence")
	case o.list < 1 || o.list > 10_000_000:
		return nil, errors.New("--list: 1 to 10000000")
	case o.vehicles != "held-out" && o.vehicles != "learnt" && o.vehicles != "all":
		return nil, errors.New("--vehicles: held-out, learnt or all")
	}
	c, err := load(o.corpus, o.vehicles)
	if err != nil {
		return nil, err
	}
	rep := &report{Date: time.Now().Format(time.DateOnly), List: o.list, Vehicles: len(c.vehicles), Reads: len(c.reads), ReadsFR: c.french}
	var plot plot
	for _, t := range []struct {
		tol watchlist.Tolerance
		fig *figures
	}{
		{watchlist.ToleranceExact, &rep.Exact},
		{watchlist.ToleranceOCR, &rep.OCR},
		{watchlist.ToleranceNear, &rep.Near},
	} {
		start := time.Now()
		*t.fig = c.measure(o, t.tol, &plot)
		fmt.Fprintf(progress, "%s: %.1f s\n", t.tol, time.Since(start).Seconds())
	}
	if o.plot != "" {
		if err := os.WriteFile(o.plot, plot.svg(rep), 0o644); err != nil {
			return nil, err
		}
	}
	return rep, nil
}

func (r *report) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	fmt.Fprintf(w, "%d reads of %d vehicles, %d of them French (SIV); list of %d plates\n\n", r.Reads, r.Vehicles, r.ReadsFR, r.List)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "tolerance\tthreshold\trecall FR\tfalse/M FR\trecall all\tfalse/M all\t")
	for _, f := range []struct {
		name string
		figures
	}{{"exact", r.Exact}, {"ocr", r.OCR}, {"near", r.Near}} {
		fmt.Fprintf(tw, "%s\t%.4f\t%.1f %%\t%.0f\t%.1f %%\t%.0f\t\n", f.name, f.Threshold, 100*f.RecallFR, f.FalseFR, 100*f.RecallAll, f.FalseAll)
	}
	return tw.Flush()
}
