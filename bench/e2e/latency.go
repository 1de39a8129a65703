//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"vigie/bench/measure"
	"vigie/bench/workload"
)

// latencyOptions are the flags of latency.
type latencyOptions struct {
	common
	rates    string
	duration time.Duration
	warmUp   time.Duration
	linger   time.Duration
	separate bool
}

// latencyLimits are the budgets of read to patrol in milliseconds, by rate: design.md,
// section 3.
var latencyLimits = map[int]spread{
	20_000: {P50: 3, P99: 15, P999: 50},
	3_500:  {P99: 8},
}

// phase is what was measured at one rate.
type phase struct {
	Rate    int     `json:"rate"`
	Reads   int64   `json:"reads"`
	Samples int     `json:"samples"`
	Behind  int64   `json:"behind"`        // reads sent more than 5 ms after they were due
	WorstMS float64 `json:"behind_max_ms"` // of them; part of the times below
	Patrol  spread  `json:"patrol_ms"`
	Redis   spread  `json:"redis_ms"`
	CPU     float64 `json:"cpu_us_per_read"` // of vigie, all of its processes
}

// latency sends reads at a steady rate and follows the queue as a patrol.
func latency(ctx context.Context, args []string) error {
	o := latencyOptions{common: common{hits: 0.01, format: "json", reads: 1 << 20}}
	fs := flag.NewFlagSet("latency", flag.ContinueOnError)
	o.register(fs)
	fs.StringVar(&o.rates, "rates", "20000,3500", "reads per second, one run for each")
	fs.DurationVar(&o.duration, "duration", 60*time.Second, "how long to measure at each rate")
	fs.DurationVar(&o.warmUp, "warm-up", 30*time.Second, "how long to send before, which is not measured")
	fs.DurationVar(&o.linger, "linger", time.Millisecond, "how long the producer may gather reads; part of what is measured")
	fs.BoolVar(&o.separate, "separate", false, "run matcher and patrol in two processes")
	if err := o.parse(fs, args); err != nil {
		return err
	}
	var rates []int
	for r := range strings.SplitSeq(o.rates, ",") {
		n, err := strconv.Atoi(r)
		if err != nil || n < 1 {
			return fmt.Errorf("-rates: %q is no number of reads per second", r)
		}
		rates = append(rates, n)
	}
	if formats[o.format] == nil || o.duration <= 0 || o.hits == 0 {
		fs.Usage()
		return errors.New("-format json or protobuf; -duration and -hits more than 0")
	}
	doing := progress(os.Stderr)
	w := draw(&o.common, doing)
	s, err := openSite(ctx, o.partitions, o.heap, doing)
	var phases []phase
	var v verdict
	if err == nil {
		phases, v, err = latencies(ctx, s, &o, w, rates)
	}
	if err := errors.Join(err, s.close()); err != nil {
		return err
	}
	return reportLatencies(&o, phases, v)
}

func latencies(ctx context.Context, s *site, o *latencyOptions, w *workload.Workload, rates []int) ([]phase, verdict, error) {
	s.doing("writing %d entries to the control log", o.entries)
	hit, err := fillControl(ctx, s.cluster.ControlLog(), w.Entries, w.Reads)
	if err != nil {
		return nil, verdict{}, err
	}
	w.Entries = nil
	debug.SetGCPercent(400) // we share the processors with what we measure
	db := s.newDB()
	env := []string{"VIGIE_KAFKA_GROUP=latency", fmt.Sprintf("VIGIE_REDIS_DB=%d", db)}
	targets := []string{"matcher,patrol"}
	if o.separate {
		targets = []string{"matcher", "patrol"}
	}
	var running []*process
	for _, target := range targets {
		p, err := s.serve(ctx, target, env...)
		if err != nil {
			return nil, verdict{}, err
		}
		defer p.kill()
		running = append(running, p)
		s.doing("vigie serve --target %s is ready after %.1f s", target, p.ready.Seconds())
	}
	select {
	case <-running[0].assigned:
	case <-time.After(patience):
		return nil, verdict{}, errors.New("the matcher is given no partitions")
	case <-ctx.Done():
		return nil, verdict{}, ctx.Err()
	}
	l := newLedger()
	office := running[len(running)-1]
	hangUp, err := office.patrol(ctx, l)
	if err != nil {
		return nil, verdict{}, err
	}
	defer hangUp()
	var phases []phase
	for i, rate := range rates {
		s.doing("sending %d reads/s for %v, after %v that do not count", rate, o.duration, o.warmUp)
		ph, err := onePhase(ctx, s, o, w, newCaster(string(rune('a'+i)), hit), rate, running, l)
		if err != nil {
			return nil, verdict{}, err
		}
		s.doing("  patrol: %v; %d alerts, %d reads behind", ph.Patrol, ph.Samples, ph.Behind)
		phases = append(phases, ph)
	}
	if back := hangUp(); back > 0 {
		s.doing("the alert stream ended %d times and was taken up again; the log of vigie ends:\n%s", back, &office.tail)
	}
	for _, p := range running {
		p.kill()
	}
	v, _, err := s.check(ctx, db, l.expected())
	return phases, v, err
}

func onePhase(ctx context.Context, s *site, o *latencyOptions, w *workload.Workload, cast *caster, rate int, running []*process, l *ledger) (phase, error) {
	c, err := newProducer(s.kafka.Addr(), "none", 1_000_000, o.linger)
	if err != nil {
		return phase{}, err
	}
	defer c.Close()
	before, err := cpuOf(running)
	if err != nil {
		return phase{}, err
	}
	// A moment ahead, so that the first read is not behind.
	f := &feed{schedule: schedule{time.Now().Add(50 * time.Millisecond), float64(rate)}, client: c, reads: w.Reads, cast: cast, encode: formats[o.format], ledger: l}
	from := f.start.Add(o.warmUp)
	to := from.Add(o.duration)
	if err := f.run(ctx, int64(to.Sub(f.start).Seconds()*float64(rate))); err != nil {
		return phase{}, err
	}
	if err := landed(ctx, running[0], l); err != nil {
		return phase{}, err
	}
	after, err := cpuOf(running)
	if err != nil {
		return phase{}, err
	}
	flights := l.between(from, to)
	ph := phase{
		Rate: rate, Reads: f.sent, Samples: len(flights), Behind: f.behind,
		WorstMS: round(float64(f.worst.Microseconds())/1e3, 3), CPU: round((after-before).Seconds()*1e6/float64(f.sent), 3),
	}
	ph.Patrol, ph.Redis = times(flights, time.Now())
	return ph, nil
}

// landed waits until the patrol has every alert, but not for ever: what is missing then
// is the check's to tell.
func landed(ctx context.Context, p *process, l *ledger) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := until(ctx, p, "the patrol has all alerts", 10*time.Millisecond, func() (bool, error) { return l.left() == 0, nil })
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil
	}
	return err
}

func cpuOf(ps []*process) (sum time.Duration, err error) {
	for _, p := range ps {
		t, err := cpuTime(p.pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

func reportLatencies(o *latencyOptions, phases []phase, v verdict) error {
	here := measure.Here()
	fmt.Println(here)
	fmt.Printf("%d entries, %d partitions, %s plates as %s, %g of the reads hit, linger %v, matcher and patrol in %s; from when a read was due\n",
		o.entries, o.partitions, o.plates, o.format, o.hits, o.linger, map[bool]string{false: "one process", true: "two processes"}[o.separate])
	var budgets []budget
	for _, ph := range phases {
		fmt.Printf("%6d reads/s  to the patrol  %v  (%d alerts)\n", ph.Rate, ph.Patrol, ph.Samples)
		fmt.Printf("                 to Redis*     %v\n", ph.Redis)
		fmt.Printf("                 %.3f us CPU a read; %d of %d reads sent behind the schedule, at most %.1f ms\n", ph.CPU, ph.Behind, ph.Reads, ph.WorstMS)
		limit := latencyLimits[ph.Rate]
		for _, b := range []budget{
			{what: "p50", value: ph.Patrol.P50, limit: limit.P50},
			{what: "p99", value: ph.Patrol.P99, limit: limit.P99},
			{what: "p99.9", value: ph.Patrol.P999, limit: limit.P999},
		} {
			if b.limit > 0 {
				b.what = fmt.Sprintf("%d reads/s %s ms", ph.Rate, b.what)
				budgets = append(budgets, b)
			}
		}
	}
	fmt.Println("* by Redis's clock, cut to the millisecond")
	fmt.Printf("hits: %d of %d, %d twice, %d unexpected\n", v.Found, v.Expected, v.Duplicates, v.Unexpected)
	err := verdictOf(v.good(), o.budget, budgets)
	return errors.Join(err, printJSON(struct {
		Mode     string  `json:"mode"`
		Separate bool    `json:"separate"`
		Rates    []phase `json:"rates"`
		verdict
		Machine measure.Machine `json:"machine"`
	}{"latency", o.separate, phases, v, here}))
}
