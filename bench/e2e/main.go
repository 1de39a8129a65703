//go:build linux

// Command e2e measures the whole job on real services: its own Kafka and Redis, and
// the real vigie program in a process of its own.
//
//	go run ./bench/e2e throughput   a backlog of reads: CPU per read, reads per second, memory
//	go run ./bench/e2e latency      reads at a steady rate: until the patrol has the alert
//	go run ./bench/e2e replay       what a replay of old reads does to live ones
//	go run ./bench/e2e gateway      reads posted to a gateway: until Kafka has them, and while it is away
//
// Every run checks that each alert that had to come has come once, in the queue and on
// the hits topic, and no other; with gateway, that each acknowledged read is in Kafka. The
// last line of stdout is a JSON object; progress goes to stderr. Exit codes: 0 good, 1 alerts are wrong or a budget is missed, 2 not measured.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"vigie/bench/measure"
)

func main() { os.Exit(run(os.Args[1:])) }

// errBad says that what was measured is not good enough.
var errBad = errors.New("not good")

const usage = `usage: e2e throughput | latency | replay | gateway [flags]

Measures the whole job on a Kafka and a Redis of its own; e2e throughput -h lists flags.
`

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	modes := map[string]func(context.Context, []string) error{
		"throughput": throughput, "latency": latency, "replay": replay, "gateway": gateway, loopMode: runLoop,
	}
	if len(args) == 0 || modes[args[0]] == nil {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	err := modes[args[0]](ctx, args[1:])
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errBad):
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 2
}

// common are the flags of every mode.
type common struct {
	entries    int
	reads      int
	hits       float64
	partitions int
	plates     string
	format     string
	heap       string
	seed       uint64
	budget     bool
}

func (c *common) register(fs *flag.FlagSet) {
	fs.IntVar(&c.entries, "entries", 1_000_000, "entries on the list")
	fs.Float64Var(&c.hits, "hits", c.hits, "share of reads, 0 to 1, that hit")
	fs.IntVar(&c.partitions, "partitions", 8, "partitions of the reads topic")
	fs.StringVar(&c.plates, "plates", "european", "french (all as AB-123-CD, with their country) or european (eleven countries; other separators, unknown countries and misreads among them): see bench/workload")
	fs.StringVar(&c.format, "format", c.format, "form of the reads: json or protobuf, with throughput also both")
	fs.StringVar(&c.heap, "heap", "1g", "heap of the broker")
	fs.Uint64Var(&c.seed, "seed", 1, "seed of the plates")
	fs.BoolVar(&c.budget, "budget", false, "exit with 1 when a budget of design.md is missed")
}

// parse parses the flags of a mode and checks those in common.
func (c *common) parse(fs *flag.FlagSet, args []string) error {
	fs.SetOutput(os.Stderr)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || c.entries < 1 || c.reads < 1 || c.partitions < 1 || c.hits < 0 || c.hits > 1 ||
		c.plates != "french" && c.plates != "european" {
		fs.Usage()
		return errors.New("no arguments; counts are at least 1, -hits from 0 to 1, -plates french or european")
	}
	return nil
}

// progress returns a function that tells what is being done, and since when.
func progress(w io.Writer) func(format string, args ...any) {
	start := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(w, "%6.1fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
}

// budget is a limit on a figure.
type budget struct {
	what  string
	value float64
	limit float64
	least bool // the limit is the least and not the most
}

func (b budget) held() bool {
	if b.least {
		return b.value >= b.limit
	}
	return b.value <= b.limit // not for NaN: what could not be measured is missed
}

// verdictOf is nil when all that had to come is there and, if asked, all budgets held.
func verdictOf(allThere, ask bool, budgets []budget) error {
	var errs []error
	if !allThere {
		errs = append(errs, errors.New("alerts or reads are missing, doubled or made up"))
	}
	for _, b := range budgets {
		sign := "<="
		if b.least {
			sign = ">="
		}
		word := "held"
		if !b.held() {
			word = "MISSED"
			if ask {
				errs = append(errs, fmt.Errorf("%s is %.4g, want %s %g", b.what, b.value, sign, b.limit))
			}
		}
		fmt.Printf("budget %-28s %10.4g  %s %-8g %s\n", b.what, b.value, sign, b.limit, word)
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w: %w", errBad, errors.Join(errs...))
	}
	return nil
}

// printJSON prints the last line.
func printJSON(v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = fmt.Printf("%s\n", b)
	}
	return err
}

// round keeps n decimals, for people who read the JSON.
func round(v float64, n int) float64 {
	var out float64
	fmt.Sscanf(fmt.Sprintf("%.*f", n, v), "%g", &out)
	return out
}

// medianOf is the median of a figure over runs.
func medianOf[T any](runs []T, figure func(*T) float64) float64 {
	v := make([]float64, len(runs))
	for i := range runs {
		v[i] = figure(&runs[i])
	}
	return measure.Median(v)
}
