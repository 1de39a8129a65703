// Command budget measures the matcher against its budgets and exits with 1, and
// a table of what was allowed and what was measured, when one is broken.
//
//	go run ./bench/budget              1 M entries; allocations and ratios, sanity limits for times
//	go run ./bench/budget -full -ns    10 M entries too, and the times themselves: on a quiet machine
//
// In order of trust: allocations hold on every machine; ratios are taken in one
// run, contenders in turn, as the median over the quieter half of the rounds; times
// hold on the machine named in bench/README.md only, so without -ns (or VIGIE_BUDGET_NS=1)
// they may be sanityFactor times as long.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"vigie/bench/measure"
)

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errBroken):
		fmt.Fprintln(os.Stderr, "budget:", err)
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "budget:", err)
		os.Exit(2)
	}
}

var errBroken = errors.New("a budget is broken")

// options are the flags.
type options struct {
	full   bool
	ns     bool
	rounds int
	seed   uint64
	only   *regexp.Regexp
}

func run(args []string, stdout, stderr io.Writer) error {
	o := options{only: regexp.MustCompile("")}
	fs := flag.NewFlagSet("budget", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.BoolVar(&o.full, "full", false, "also 10 M entries: several GB, about a minute")
	fs.BoolVar(&o.ns, "ns", os.Getenv("VIGIE_BUDGET_NS") == "1", "hold the times themselves, not only sanity limits (VIGIE_BUDGET_NS=1)")
	fs.IntVar(&o.rounds, "rounds", 21, "rounds of each timing, at least 7")
	fs.Uint64Var(&o.seed, "seed", 1, "seed of the workload")
	fs.Func("only", "regular expression: measure only the guards whose name it matches", func(s string) (err error) {
		o.only, err = regexp.Compile(s)
		return err
	})
	tries := fs.Int("tries", 3, "how often a broken guard is measured before it counts: a neighbour on the machine only ever slows")
	output := fs.String("o", "text", "text or json")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.rounds < 7 || *output != "text" && *output != "json" || fs.NArg() > 0 {
		fs.Usage()
		return errors.New("at least 7 rounds, -o text or json, no arguments")
	}

	start := time.Now()
	doing := func(what string) { fmt.Fprintf(stderr, "%5.1fs  %s\n", time.Since(start).Seconds(), what) }
	r := &report{Machine: measure.Here(), ns: o.ns}
	guardAll(r, o, doing)
	for try := 2; try <= *tries && r.broken() > 0; try++ {
		again := &report{Machine: r.Machine, ns: o.ns}
		o.only = r.brokenGuards()
		doing(fmt.Sprintf("try %d of %d of what is broken: %s", try, *tries, o.only))
		guardAll(again, o, doing)
		r.replace(again)
	}
	r.Seconds = float64(int(time.Since(start).Seconds()*10)) / 10
	if *output == "json" {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else if err := r.print(stdout); err != nil {
		return err
	}
	if n := r.broken(); n > 0 {
		return fmt.Errorf("%w: %d of %d rows", errBroken, n, len(r.Rows))
	}
	return nil
}

// report is the outcome of a run.
type report struct {
	Machine measure.Machine `json:"machine"`
	Seconds float64         `json:"seconds"`
	Rows    []row           `json:"rows"`
	ns      bool
}

// brokenGuards matches the names of the guards that are broken.
func (r *report) brokenGuards() *regexp.Regexp {
	var names []string
	for _, row := range r.Rows {
		if row.Verdict == broken && !slices.Contains(names, regexp.QuoteMeta(row.Guard)) {
			names = append(names, regexp.QuoteMeta(row.Guard))
		}
	}
	return regexp.MustCompile("^(" + strings.Join(names, "|") + ")$")
}

// replace puts the rows of the guards that were measured again where the old ones were.
func (r *report) replace(again *report) {
	var rows []row
	done := map[string]bool{}
	for _, old := range r.Rows {
		if done[old.Guard] {
			continue
		}
		fresh := slices.DeleteFunc(slices.Clone(again.Rows), func(n row) bool { return n.Guard != old.Guard })
		if len(fresh) == 0 {
			rows = append(rows, old)
			continue
		}
		done[old.Guard] = true
		rows = append(rows, fresh...)
	}
	r.Rows = rows
}

// row is one line of the table.
type row struct {
	Guard   string  `json:"guard"`
	What    string  `json:"what"`
	Allowed string  `json:"allowed,omitempty"`
	Unit    string  `json:"unit,omitempty"`
	Median  float64 `json:"median"` // over the rounds
	Least   float64 `json:"least"`
	Most    float64 `json:"most"`
	Verdict verdict `json:"verdict"`
	Note    string  `json:"note,omitempty"`
}

// verdict of a row.
type verdict string

const (
	ok      verdict = "ok"
	broken  verdict = "BROKEN"
	info    verdict = "-" // measured beside, no budget
	skipped verdict = "skipped"
)

// sanityFactor is how much longer than its budget a time may be where times are
// not trusted.
const sanityFactor = 5

func (r *report) add(guard, what, unit string, values []float64, allowed string, v verdict) {
	r.Rows = append(r.Rows, row{
		Guard: guard, What: what, Unit: unit, Allowed: allowed, Verdict: v,
		Median: measure.Median(values), Least: measure.Quantile(values, 0), Most: measure.Quantile(values, 1),
	})
}

// time adds a time, held to its limit or, without -ns, to sanityFactor times it.
func (r *report) time(guard, what, unit string, values []float64, limit float64) {
	allowed := fmt.Sprintf("<= %g", limit)
	if !r.ns {
		allowed = fmt.Sprintf("<= %g (sanity; %g with -ns)", limit*sanityFactor, limit)
		limit *= sanityFactor
	}
	r.add(guard, what, unit, values, allowed, judge(measure.Median(values) <= limit))
}

// atMost and atLeast add what holds on every measure.
func (r *report) atMost(guard, what, unit string, values []float64, limit float64) {
	r.add(guard, what, unit, values, fmt.Sprintf("<= %g", limit), judge(measure.Median(values) <= limit))
}

func (r *report) atLeast(guard, what, unit string, values []float64, limit float64) {
	r.add(guard, what, unit, values, fmt.Sprintf(">= %g", limit), judge(measure.Median(values) >= limit))
}

// info adds a figure without a budget.
func (r *report) info(guard, what, unit string, values []float64) {
	r.add(guard, what, unit, values, "", info)
}

func (r *report) skip(guard, why string) {
	r.Rows = append(r.Rows, row{Guard: guard, Verdict: skipped, Note: why})
}

func (r *report) fail(guard, what, why string) {
	r.Rows = append(r.Rows, row{Guard: guard, What: what, Verdict: broken, Note: why})
}

// judge is false for NaN, too: what could not be measured is broken.
func judge(held bool) verdict {
	if held {
		return ok
	}
	return broken
}

func (r *report) broken() (n int) {
	for _, row := range r.Rows {
		if row.Verdict == broken {
			n++
		}
	}
	return n
}

func (r *report) print(w io.Writer) error {
	fmt.Fprintln(w, r.Machine)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "GUARD\tWHAT\tALLOWED\tMEDIAN\tLEAST..MOST\tVERDICT")
	for _, row := range r.Rows {
		if row.Note != "" {
			fmt.Fprintf(tw, "%s\t%s\t%s\t\t\t%s: %s\n", row.Guard, row.What, row.Allowed, row.Verdict, row.Note)
			continue
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%.3g %s\t%.3g..%.3g\t%s\n",
			row.Guard, row.What, row.Allowed, row.Median, row.Unit, row.Least, row.Most, row.Verdict)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%.1f s\n", r.Seconds)
	return err
}
