//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"text/tabwriter"
	"time"

	"vigie/bench/measure"
	"vigie/bench/workload"
)

// Budgets of the gateway: design.md, section 3, and for its memory twice what a matcher has.
const (
	ackLimit         = 10      // ms, p99 from when a request was due to its answer
	gatewayRateLimit = 100_000 // reads a second
	gatewayRSSLimit  = 200     // MiB
)

// gatewayOptions are the flags of gateway.
type gatewayOptions struct {
	partitions int
	heap       string
	seed       uint64
	budget     bool
	spool      bool
	rate       float64
	batch      int
	sensors    int

	// without an outage
	duration   time.Duration
	reads      int
	floodBatch int
	senders    int
	repeat     int

	// of an outage
	outage time.Duration
	kill   bool
	before time.Duration
	after  time.Duration
}

// gateway posts reads to a gateway as sensors do: at a steady rate, as fast as it takes them,
// or with -outage at a steady rate while Kafka is away.
func gateway(ctx context.Context, args []string) error {
	var o gatewayOptions
	fs := flag.NewFlagSet("gateway", flag.ContinueOnError)
	fs.SetOutput(os.Stderr)
	fs.IntVar(&o.partitions, "partitions", 8, "partitions of the reads topic")
	fs.StringVar(&o.heap, "heap", "1g", "heap of the broker")
	fs.Uint64Var(&o.seed, "seed", 1, "seed of the plates and of the moment of -kill")
	fs.BoolVar(&o.budget, "budget", false, "exit with 1 when a budget is missed")
	fs.BoolVar(&o.spool, "spool", true, "give the gateway a spool")
	fs.Float64Var(&o.rate, "rate", 0, "reads per second; 5000, with -outage 2000")
	fs.IntVar(&o.batch, "batch", 10, "reads of a request at that rate")
	fs.IntVar(&o.sensors, "sensors", 0, "sensors that send; 3104, with -outage 200")
	fs.DurationVar(&o.duration, "duration", 30*time.Second, "how long to send at the rate")
	fs.IntVar(&o.reads, "reads", 2_000_000, "reads to send as fast as possible")
	fs.IntVar(&o.floodBatch, "flood-batch", 1000, "reads of a request then")
	fs.IntVar(&o.senders, "senders", 8, "connections then")
	fs.IntVar(&o.repeat, "repeat", 3, "how often; figures are medians")
	fs.DurationVar(&o.outage, "outage", 0, "stop Kafka for so long instead")
	fs.BoolVar(&o.kill, "kill", false, "kill the gateway with SIGKILL in the middle of the outage, and start it again")
	fs.DurationVar(&o.before, "before", 10*time.Second, "how long to send before the outage")
	fs.DurationVar(&o.after, "after", 40*time.Second, "how long to send after it")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.rate == 0 {
		o.rate = 5000
		if o.outage > 0 {
			o.rate = 2000
		}
	}
	if o.sensors == 0 {
		o.sensors = fleetSize
		if o.outage > 0 {
			o.sensors = 200
		}
	}
	if fs.NArg() > 0 || o.partitions < 1 || o.rate < 1 || o.batch < 1 || o.sensors < 1 || o.duration <= 0 || o.floodBatch < 1 ||
		o.reads < o.floodBatch || o.senders < 1 || o.repeat < 1 || o.outage < 0 || o.before < 0 || o.after < 0 || o.kill && (o.outage == 0 || !o.spool) {
		fs.Usage()
		return errors.New("no arguments; counts are at least 1; -kill goes with -outage and -spool")
	}
	doing := progress(os.Stderr)
	s, err := openSite(ctx, o.partitions, o.heap, doing)
	run := gatewayAtWork
	if o.outage > 0 {
		run = gatewayOutage
	}
	var report func() error
	if err == nil {
		debug.SetGCPercent(400) // we share the processors with what we measure
		report, err = run(ctx, s, &o)
	}
	if err := errors.Join(err, s.close()); err != nil {
		return err
	}
	return report()
}

// gatewayEnv is how a gateway of the run is configured.
func (s *site) gatewayEnv(o *gatewayOptions) []string {
	if !o.spool {
		return nil
	}
	return []string{"VIGIE_GATEWAY_SPOOL_DIR=" + filepath.Join(s.dir, "spool")}
}

// plates are what sensors read.
func (o *gatewayOptions) plates() []workload.Read {
	return workload.New(workload.Config{Kind: workload.European, Seed: o.seed, Entries: 1, Reads: 1 << 16}).Reads
}

// steadyFigures are what was measured at a steady rate.
type steadyFigures struct {
	Sensors string  `json:"sensors_of_a_request"` // one or many
	Rate    float64 `json:"rate"`
	Batch   int     `json:"batch"`
	spread
	CPU    float64 `json:"cpu_us_per_read"`
	Plain  spread  `json:"plain_ms"` // a record of a plain producer, beside
	Stall  float64 `json:"longest_time_without_ack_s"`
	Others float64 `json:"others"` // share of the machine that other processes had, 0 to 1

	Seconds int     `json:"quiet_seconds"` // in which they had little
	Quiet   *spread `json:"quiet_ms"`      // of requests due then; nil for none
}

// counts are the figures that budgets are about: those of the quiet seconds, when there are
// enough.
func (f *steadyFigures) counts() spread {
	if f.Quiet != nil && f.Seconds >= 5 {
		return *f.Quiet
	}
	return f.spread
}

// quiet fills in what was measured while others had little of the machine.
func (f *steadyFigures) quiet(done []posting, seconds []second) {
	var sum float64
	var calm []posting
	for _, s := range seconds {
		sum += s.others
		if s.others > quietShare {
			continue
		}
		f.Seconds++
		for _, p := range done {
			if !p.due.Before(s.from) && p.due.Before(s.to) {
				calm = append(calm, p)
			}
		}
	}
	f.Others = round(sum/float64(max(1, len(seconds))), 3)
	if len(calm) > 0 {
		times := ackTimes(calm)
		f.Quiet = &times
	}
}

// floodFigures are what was measured at full speed.
type floodFigures struct {
	Rate      float64 `json:"reads_per_s"`
	RSS       float64 `json:"rss_mb"`
	CPU       float64 `json:"cpu_us_per_read"`
	ClientCPU float64 `json:"client_cpu_us_per_read"` // ours, on the same processors
	Request   spread  `json:"request_ms"`
}

// gatewayAtWork measures a gateway when nothing is broken.
func gatewayAtWork(ctx context.Context, s *site, o *gatewayOptions) (func() error, error) {
	t := &traffic{run: "w", fleet: fleet(o.sensors), plates: o.plates()}
	p, err := s.serve(ctx, "gateway", s.gatewayEnv(o)...)
	if err != nil {
		return nil, err
	}
	defer p.kill()
	to := newPoster(p.url, max(o.senders, steadySenders))
	var all []posting
	var next int64 // number of the first read that was not used yet
	floodOnce := func(reads int) (floodFigures, error) {
		t.mixed, t.batch = true, o.floodBatch
		bodies := make([][]byte, reads/t.batch)
		now := time.Now()
		for i := range bodies {
			var err error
			if bodies[i], err = t.appendBody(make([]byte, 0, 110*t.batch), next+int64(i*t.batch), now); err != nil {
				return floodFigures{}, err
			}
		}
		most := watchMemory(ctx, p.pid)
		defer most()
		gatewayCPU, err1 := cpuTime(p.pid)
		ownCPU, err2 := cpuTime(os.Getpid())
		began := time.Now()
		done, err := flood(ctx, to, t, next, bodies, o.senders)
		took := time.Since(began)
		gatewayEnd, err3 := cpuTime(p.pid)
		ownEnd, err4 := cpuTime(os.Getpid())
		if err := errors.Join(err, err1, err2, err3, err4); err != nil {
			return floodFigures{}, err
		}
		all = append(all, done...)
		sent := len(bodies) * t.batch
		next += int64(sent)
		return floodFigures{
			Rate: round(float64(sent)/took.Seconds(), 0), RSS: round(most(), 1),
			CPU:       round(float64((gatewayEnd-gatewayCPU).Microseconds())/float64(sent), 3),
			ClientCPU: round(float64((ownEnd-ownCPU).Microseconds())/float64(sent), 3),
			Request:   ackTimes(done),
		}, nil
	}
	steadyOnce := func(mixed bool, d time.Duration) (steadyFigures, error) {
		t.mixed, t.batch = mixed, o.batch
		before, err1 := cpuTime(p.pid)
		others := watchOthers()
		plain, err2 := plainly(ctx, s, prefix+"dead")
		if err := errors.Join(err1, err2); err != nil {
			return steadyFigures{}, err
		}
		done, err := steady(ctx, to, t, next, o.rate, d, steadySenders)
		control, err1 := plain()
		seconds, err2 := others()
		after, err3 := cpuTime(p.pid)
		if err := errors.Join(err, err1, err2, err3); err != nil {
			return steadyFigures{}, err
		}
		all = append(all, done...)
		sent := len(done) * t.batch
		next += int64(sent)
		f := steadyFigures{
			Sensors: map[bool]string{false: "one", true: "many"}[mixed], Rate: o.rate, Batch: o.batch, spread: ackTimes(done),
			CPU: round(float64((after-before).Microseconds())/float64(sent), 3), Plain: control, Stall: longestGap(done),
		}
		f.quiet(done, seconds)
		return f, nil
	}

	s.doing("warming the broker up") // it compiles itself while it serves
	if _, err := floodOnce(max(o.reads/2, o.floodBatch)); err != nil {
		return nil, err
	}
	if _, err := steadyOnce(true, min(o.duration, 5*time.Second)); err != nil {
		return nil, err
	}
	syscall.Sync() // what the disk has to do now it does not do while we measure
	if err := settle(ctx); err != nil {
		return nil, err
	}
	var figures []steadyFigures
	for _, mixed := range []bool{false, true} {
		s.doing("%g reads/s in requests of %d for %v", o.rate, o.batch, o.duration)
		f, err := steadyOnce(mixed, o.duration)
		if err != nil {
			return nil, err
		}
		s.doing("  sensors of a request: %s; %v; a plain producer %v; others had %.0f %% of the machine", f.Sensors, f.spread, f.Plain, 100*f.Others)
		figures = append(figures, f)
	}
	var runs []floodFigures
	for i := range o.repeat {
		s.doing("%d reads as fast as possible, run %d of %d", o.reads, i+1, o.repeat)
		f, err := floodOnce(o.reads)
		if err != nil {
			return nil, err
		}
		s.doing("  %.0f reads/s, %.0f MiB, %.2f us CPU a read, and %.2f of ours", f.Rate, f.RSS, f.CPU, f.ClientCPU)
		runs = append(runs, f)
	}
	p.kill()
	s.doing("looking for %d reads in Kafka", next)
	topic, err := topicReads(ctx, s, t)
	if err != nil {
		return nil, err
	}
	v, _ := judgeGateway(all, topic)
	return func() error { return reportGateway(o, figures, runs, v) }, nil
}

// steadySenders is how many requests may be under way at once at a steady rate.
const steadySenders = 64

// ackTimes are how long requests took from when they were due.
func ackTimes(ps []posting) spread {
	times := make([]float64, len(ps))
	for i := range ps {
		times[i] = ms(ps[i].acked.Sub(ps[i].due))
	}
	return spreadOf(times)
}

func reportGateway(o *gatewayOptions, steady []steadyFigures, runs []floodFigures, v gatewayVerdict) error {
	here := measure.Here()
	fmt.Println(here)
	fmt.Printf("%d sensors, %d partitions, European plates as NDJSON, spool %v; full speed: %d reads in requests of %d over %d connections, median of %d\n",
		o.sensors, o.partitions, o.spool, o.reads, o.floodBatch, o.senders, o.repeat)
	tw := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "LOAD\tREADS/S\tP50 ms\tP99 ms\tP99.9 ms\tMAX ms\tCPU us/READ\tCLIENT\tRSS MiB")
	var budgets []budget
	worst := spread{}
	for i := range steady {
		f := &steady[i]
		name := fmt.Sprintf("%d reads a request, of %s", f.Batch, map[string]string{"one": "one sensor", "many": "many sensors"}[f.Sensors])
		fmt.Fprintf(tw, "%s\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t\t\n", name, f.Rate, f.P50, f.P99, f.P999, f.Max, f.CPU)
		if f.Quiet != nil {
			q := f.Quiet
			fmt.Fprintf(tw, "  in %d quiet seconds*\t\t%.2f\t%.2f\t%.2f\t%.2f\t\t\t\n", f.Seconds, q.P50, q.P99, q.P999, q.Max)
		}
		fmt.Fprintf(tw, "  a plain producer beside\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t\t\t\n", 50., f.Plain.P50, f.Plain.P99, f.Plain.P999, f.Plain.Max)
		counts := f.counts()
		budgets = append(budgets, budget{what: f.Sensors + ": ack p99 ms", value: counts.P99, limit: ackLimit})
		if counts.P99 > worst.P99 {
			worst = counts
		}
	}
	full := floodFigures{
		Rate:      medianOf(runs, func(f *floodFigures) float64 { return f.Rate }),
		RSS:       medianOf(runs, func(f *floodFigures) float64 { return f.RSS }),
		CPU:       medianOf(runs, func(f *floodFigures) float64 { return f.CPU }),
		ClientCPU: medianOf(runs, func(f *floodFigures) float64 { return f.ClientCPU }),
		Request: spread{
			P50:  medianOf(runs, func(f *floodFigures) float64 { return f.Request.P50 }),
			P99:  medianOf(runs, func(f *floodFigures) float64 { return f.Request.P99 }),
			P999: medianOf(runs, func(f *floodFigures) float64 { return f.Request.P999 }),
			Max:  medianOf(runs, func(f *floodFigures) float64 { return f.Request.Max }),
		},
	}
	fmt.Fprintf(tw, "full speed\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\n",
		full.Rate, full.Request.P50, full.Request.P99, full.Request.P999, full.Request.Max, full.CPU, full.ClientCPU, full.RSS)
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Printf("* other processes had at most %.0f %% of the machine; over all they had %.0f and %.0f %%. Budgets are about these when there are 5 or more.\n",
		100*quietShare, 100*steady[0].Others, 100*steady[1].Others)
	fmt.Printf("%d reads acknowledged, %d of them not in Kafka, %d there twice\n", v.Acknowledged, v.Lost, v.Repeats)
	budgets = append(budgets,
		budget{what: "reads_per_s", value: full.Rate, limit: gatewayRateLimit, least: true},
		budget{what: "rss_mb", value: full.RSS, limit: gatewayRSSLimit})
	verdict := verdictOf(v.Lost == 0, o.budget, budgets)
	return errors.Join(verdict, printJSON(struct {
		Mode string `json:"mode"`
		floodFigures
		P50          float64         `json:"p50_ms"` // of the worse of steady
		P99          float64         `json:"p99_ms"`
		Steady       []steadyFigures `json:"steady"`
		Acknowledged int             `json:"acknowledged"`
		Lost         int             `json:"lost"`
		Repeats      int             `json:"repeats"`
		Spool        bool            `json:"spool"`
		Machine      measure.Machine `json:"machine"`
	}{"gateway", full, worst.P50, worst.P99, steady, v.Acknowledged, v.Lost, v.Repeats, o.spool, here}))
}
