//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"vigie/bench/e2e/loop"
	"vigie/bench/measure"
	"vigie/bench/workload"
)

// Budgets of a drain: design.md, sections 3 and 8.
const (
	cpuLimit  = 0.35 // microseconds a read, all in
	rateLimit = 4e6  // reads a second
	rssLimit  = 150  // MiB
)

// drainOptions are the flags of throughput.
type drainOptions struct {
	common
	compression string
	batchBytes  int
	repeat      int
	warmUp      int
	loop        bool
}

// drain is one run of vigie over the backlog.
type drain struct {
	verdict
	ready  float64 // seconds
	cpu    float64 // microseconds a read
	rate   float64 // reads a second
	rss    float64 // MiB, while draining
	peak   float64 // MiB, in the life of the process
	stages map[string]float64
}

// throughput writes a backlog of reads, lets vigie drain it, and beside it the plainest
// consumer there is.
func throughput(ctx context.Context, args []string) error {
	o := drainOptions{common: common{hits: 0.001, format: "both"}}
	fs := flag.NewFlagSet("throughput", flag.ContinueOnError)
	o.register(fs)
	fs.IntVar(&o.reads, "reads", 10_000_000, "reads of the backlog")
	fs.StringVar(&o.compression, "compression", "none", "of the reads topic's batches: none, lz4, zstd, snappy or gzip")
	fs.IntVar(&o.batchBytes, "batch-bytes", 1_000_000, "most bytes of a record batch; 16384 is the default of Java's producer")
	fs.IntVar(&o.repeat, "repeat", 1, "drains of each backlog; figures are medians")
	fs.IntVar(&o.warmUp, "warm-up", 2, "drains of each backlog that are not measured, for the broker")
	fs.BoolVar(&o.loop, "loop", true, "measure the plain kafka-go loop beside, in turn")
	if err := o.parse(fs, args); err != nil {
		return err
	}
	forms := []string{o.format}
	if o.format == "both" {
		forms = []string{"json", "protobuf"}
	}
	if formats[forms[0]] == nil || o.repeat < 1 {
		fs.Usage()
		return errors.New("-format json, protobuf or both; -repeat at least 1")
	}
	doing := progress(os.Stderr)
	w := draw(&o.common, doing)
	s, err := openSite(ctx, o.partitions, o.heap, doing)
	var results []*drained
	if err == nil {
		results, err = drainAll(ctx, s, &o, w, forms)
	}
	if err := errors.Join(err, s.close()); err != nil {
		return err
	}
	return reportDrains(&o, results)
}

// draw makes the workload.
func draw(c *common, doing func(string, ...any)) *workload.Workload {
	doing("drawing %d entries and %d reads, %s", c.entries, c.reads, c.plates)
	kind := workload.French
	if c.plates == "european" {
		kind = workload.European
	}
	return workload.New(workload.Config{Kind: kind, Seed: c.seed, Entries: c.entries, Reads: c.reads, HitRatio: c.hits})
}

// drained is what was measured on a backlog of one form.
type drained struct {
	form    string
	bytes   float64 // of a value on average
	runs    []drain
	loopCPU []float64
	loopHz  []float64
}

func drainAll(ctx context.Context, s *site, o *drainOptions, w *workload.Workload, forms []string) ([]*drained, error) {
	s.doing("writing %d entries to the control log", o.entries)
	hit, err := fillControl(ctx, s.cluster.ControlLog(), w.Entries, w.Reads)
	if err != nil {
		return nil, err
	}
	w.Entries = nil
	var out []*drained
	for i, form := range forms {
		s.doing("writing %d reads as %s, compression %s", o.reads, form, o.compression)
		if err := deleteRecords(ctx, s.admin, readsTopic, o.partitions); err != nil {
			return nil, err
		}
		c, err := newProducer(s.kafka.Addr(), o.compression, o.batchBytes, 20*time.Millisecond)
		if err != nil {
			return nil, err
		}
		written, err := produce(ctx, c, w, newCaster(string(rune('a'+i)), hit), formats[form], time.Now)
		c.Close()
		if err != nil {
			return nil, err
		}
		syscall.Sync() // what the disk has to do now it does not do while we measure
		d := &drained{form: form, bytes: written.mean()}
		out = append(out, d)
		if err := d.measure(ctx, s, o, written); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// measure lets vigie and the plain loop have the backlog in turn, each first every other
// time: what disturbs the machine disturbs both.
func (d *drained) measure(ctx context.Context, s *site, o *drainOptions, b *backlog) error {
	all, err := spans(ctx, s.admin, readsTopic, o.partitions)
	if err != nil {
		return err
	}
	both := []func(int) error{
		func(i int) error {
			s.doing("vigie drains the %s backlog, run %d of %d", d.form, i+1, o.repeat)
			run, err := drainOnce(ctx, s, all, b)
			if err == nil {
				d.runs = append(d.runs, run)
				s.doing("  %.3f us CPU a read, %.2f M reads/s, %.0f MiB, ready in %.1f s; %d of %d hits", run.cpu, run.rate/1e6, run.rss, run.ready, run.Found, run.Expected)
			}
			return err
		},
		func(int) error {
			if !o.loop {
				return nil
			}
			cpu, rate, err := loopOnce(ctx, s.kafka.Addr(), all, b.reads)
			d.loopCPU, d.loopHz = append(d.loopCPU, cpu), append(d.loopHz, rate)
			s.doing("  plain loop: %.3f us CPU a read, %.2f M reads/s", cpu, rate/1e6)
			return err
		},
	}
	// A broker that has just started compiles itself while it serves, with half of its
	// time and one of our cores. In production it has long done so.
	s.doing("warming the broker up with the %s backlog", d.form)
	for range o.warmUp {
		if _, err := drainOnce(ctx, s, all, b); err != nil {
			return err
		}
		if _, _, err := loopOnce(ctx, s.kafka.Addr(), all, b.reads); err != nil {
			return err
		}
	}
	if err := settle(ctx); err != nil {
		return err
	}
	for i := range o.repeat {
		for _, turn := range []int{i % 2, (i + 1) % 2} {
			if err := both[turn](i); err != nil {
				return err
			}
		}
	}
	return nil
}

// drainOnce starts vigie as a group that has read nothing, against an empty Redis, and
// waits until it has committed everything.
func drainOnce(ctx context.Context, s *site, all []loop.Span, b *backlog) (d drain, err error) {
	if err := deleteRecords(ctx, s.admin, hitsTopic, hitsParts); err != nil {
		return d, err
	}
	db := s.newDB()
	group := fmt.Sprintf("drain-%d", db)
	p, err := s.serve(ctx, "matcher", "VIGIE_KAFKA_GROUP="+group, fmt.Sprintf("VIGIE_REDIS_DB=%d", db),
		// Whether the backlog is older than the limit must not depend on how long it took to write.
		"VIGIE_MATCHER_MAX_AGE=24h")
	if err != nil {
		return d, err
	}
	defer p.kill()
	most := watchMemory(ctx, p.pid)
	defer most()
	err = until(ctx, p, "the backlog is committed", 50*time.Millisecond, func() (bool, error) {
		committed, err := s.cluster.Committed(ctx, group)
		if err != nil {
			return false, err
		}
		for _, sp := range all {
			if committed[sp.Partition] < sp.End {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return d, err
	}
	end := time.Now()
	cpu, err := cpuTime(p.pid)
	if err != nil {
		return d, err
	}
	d.rss = most()
	select {
	case <-p.assigned:
	default:
		return d, errors.New("vigie's log does not say when it was assigned partitions; see follow in bench/e2e/site.go")
	}
	m, err := memoryOf(p.pid)
	if err != nil {
		return d, err
	}
	page, err := p.get("/metrics")
	if err != nil {
		return d, err
	}
	d.ready, d.stages = p.ready.Seconds(), parseStages(page)
	d.peak = max(m.peak, d.rss) // the system counts both roughly
	d.cpu = (cpu - p.firstCPU).Seconds() * 1e6 / float64(b.reads)
	d.rate = float64(b.reads) / end.Sub(p.first).Seconds()
	p.kill()
	d.verdict, _, err = s.check(ctx, db, b.alerts)
	return d, err
}

var stageSum = regexp.MustCompile(`(?m)^vigie_stream_stage_seconds_sum\{[^}]*stage="([^"]+)"[^}]*\} ([0-9.eE+-]+)$`)

// parseStages finds the seconds spent in each stage on a page of metrics.
func parseStages(page []byte) map[string]float64 {
	out := map[string]float64{}
	for _, m := range stageSum.FindAllSubmatch(page, -1) {
		if v, err := strconv.ParseFloat(string(m[2]), 64); err == nil {
			out[string(m[1])] += v
		}
	}
	return out
}

// loopMode is the argument with which this program runs itself as the plain loop.
const loopMode = "plain-loop"

// runLoop is the child: it says ready, waits for a line, reads, and says how many.
func runLoop(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("plain-loop is run by throughput only")
	}
	var all []loop.Span
	for _, a := range args[1:] {
		var s loop.Span
		if _, err := fmt.Sscanf(a, "%d:%d:%d", &s.Partition, &s.First, &s.End); err != nil {
			return fmt.Errorf("span %q: %w", a, err)
		}
		all = append(all, s)
	}
	in := bufio.NewReader(os.Stdin)
	n, err := loop.Run(ctx, args[0], readsTopic, all, func() error {
		fmt.Println("ready")
		_, err := in.ReadString('\n')
		return err
	})
	if err != nil {
		return err
	}
	fmt.Println(n)
	_, _ = io.Copy(io.Discard, in) // until the parent has looked at our CPU
	return nil
}

// loopOnce measures the plain loop in a process of its own.
func loopOnce(ctx context.Context, broker string, all []loop.Span, reads int64) (cpu, rate float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	args := []string{loopMode, broker}
	for _, s := range all {
		args = append(args, fmt.Sprintf("%d:%d:%d", s.Partition, s.First, s.End))
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, 0, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	read := make(chan struct{})
	ended := make(chan error, 1)
	if err := start(cmd, func() { <-read; ended <- cmd.Wait() }); err != nil {
		return 0, 0, err
	}
	cpu, rate, err = timeLoop(cmd.Process.Pid, in, bufio.NewReader(stdout), reads)
	in.Close()
	close(read)
	return cpu, rate, errors.Join(err, <-ended)
}

// timeLoop talks to the child, see runLoop.
func timeLoop(pid int, in io.Writer, out *bufio.Reader, reads int64) (cpu, rate float64, err error) {
	if _, err := out.ReadString('\n'); err != nil {
		return 0, 0, fmt.Errorf("plain loop: %w", err)
	}
	before, err := cpuTime(pid)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if _, err := io.WriteString(in, "go\n"); err != nil {
		return 0, 0, err
	}
	line, err := out.ReadString('\n')
	took := time.Since(began)
	if err != nil {
		return 0, 0, fmt.Errorf("plain loop: %w", err)
	}
	after, err := cpuTime(pid)
	if err != nil {
		return 0, 0, err
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64); err != nil || n != reads {
		return 0, 0, fmt.Errorf("plain loop: read %s values of %d", strings.TrimSpace(line), reads)
	}
	return (after - before).Seconds() * 1e6 / float64(reads), float64(reads) / took.Seconds(), nil
}

// drainFigures are the medians, as the JSON line has them.
type drainFigures struct {
	Format     string             `json:"format"`
	Reads      int                `json:"reads"`
	ValueBytes float64            `json:"value_bytes"`
	CPU        float64            `json:"cpu_us_per_read"`
	Rate       float64            `json:"reads_per_s"`
	RSS        float64            `json:"rss_mb"`
	Peak       float64            `json:"rss_peak_mb"`
	Ready      float64            `json:"ready_s"`
	verdict                       // the worst of the runs
	LoopCPU    float64            `json:"loop_cpu_us_per_read,omitempty"`
	LoopRate   float64            `json:"loop_reads_per_s,omitempty"`
	Stages     map[string]float64 `json:"stage_seconds,omitempty"`
}

func (d *drained) figures(reads int) *drainFigures {
	f := &drainFigures{
		Format: d.form, Reads: reads, ValueBytes: round(d.bytes, 1),
		CPU:   round(medianOf(d.runs, func(r *drain) float64 { return r.cpu }), 4),
		Rate:  round(medianOf(d.runs, func(r *drain) float64 { return r.rate }), 0),
		RSS:   round(medianOf(d.runs, func(r *drain) float64 { return r.rss }), 1),
		Peak:  round(medianOf(d.runs, func(r *drain) float64 { return r.peak }), 1),
		Ready: round(medianOf(d.runs, func(r *drain) float64 { return r.ready }), 2),
	}
	f.verdict = d.runs[0].verdict
	for i := range d.runs {
		if v := d.runs[i].verdict; !v.good() && f.good() {
			f.verdict = v
		}
	}
	if len(d.loopCPU) > 0 {
		f.LoopCPU, f.LoopRate = round(measure.Median(d.loopCPU), 4), round(measure.Median(d.loopHz), 0)
	}
	f.Stages = map[string]float64{}
	for name := range d.runs[0].stages {
		f.Stages[name] = round(medianOf(d.runs, func(r *drain) float64 { return r.stages[name] }), 3)
	}
	return f
}

// reportDrains prints the table, the budgets and the JSON line.
func reportDrains(o *drainOptions, results []*drained) error {
	here := measure.Here()
	fmt.Println(here)
	fmt.Printf("%d reads with %g hits each, %d entries, %d partitions, %s plates, compression %s, batches of up to %d B, median of %d\n",
		o.reads, o.hits, o.entries, o.partitions, o.plates, o.compression, o.batchBytes, o.repeat)
	tw := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "FORM\tB/READ\tCPU us/READ\tREADS/S\tRSS MiB\tPEAK MiB\tREADY s\tHITS\tTWICE\tLOOP CPU us\tLOOP READS/S")
	var all []*drainFigures
	good := true
	var budgets []budget
	for _, d := range results {
		f := d.figures(o.reads)
		all = append(all, f)
		good = good && f.good()
		fmt.Fprintf(tw, "%s\t%.1f\t%.3f\t%.2f M\t%.0f\t%.0f\t%.2f\t%d/%d\t%d\t%.3f\t%.2f M\n", f.Format, f.ValueBytes, f.CPU, f.Rate/1e6,
			f.RSS, f.Peak, f.Ready, f.Found, f.Expected, f.Duplicates, f.LoopCPU, f.LoopRate/1e6)
		budgets = append(budgets,
			budget{what: f.Format + " cpu_us_per_read", value: f.CPU, limit: cpuLimit},
			budget{what: f.Format + " reads_per_s", value: f.Rate, limit: rateLimit, least: true},
			budget{what: f.Format + " rss_mb", value: f.RSS, limit: rssLimit})
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, f := range all {
		printStages(f)
	}
	verdict := verdictOf(good, o.budget, budgets)
	last := struct {
		*drainFigures
		Protobuf *drainFigures   `json:"protobuf,omitempty"`
		Machine  measure.Machine `json:"machine"`
	}{drainFigures: all[0], Machine: here}
	if len(all) > 1 {
		last.Protobuf = all[1]
	}
	return errors.Join(verdict, printJSON(last))
}

// printStages prints where the goroutines of a drain spent their time, as its metrics
// tell it: waiting counts, so a stage's share is not one of CPU.
func printStages(f *drainFigures) {
	var sum float64
	for _, v := range f.Stages {
		sum += v
	}
	if sum == 0 {
		fmt.Printf("%s: /metrics has no vigie_stream_stage_seconds\n", f.Format)
		return
	}
	fmt.Printf("%s: share of time by stage:", f.Format)
	for _, name := range slices.SortedFunc(maps.Keys(f.Stages), func(a, b string) int { return strings.Compare(a, b) }) {
		fmt.Printf("  %s %.1f %%", name, 100*f.Stages[name]/sum)
	}
	fmt.Println()
}
