//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"vigie/bench/measure"
	"vigie/bench/workload"
	"vigie/stream/alert"
)

// ratioLimit is how many times as long a live alert may take at p99 during a replay.
const ratioLimit = 2

// replayOptions are the flags of replay.
type replayOptions struct {
	common
	liveRate int
	liveHits float64
	rate     int
	alone    time.Duration
	warmUp   time.Duration
	linger   time.Duration
}

// replayed is what was measured.
type replayed struct {
	Reads   int     `json:"reads"`
	Seconds float64 `json:"replay_s"`
	Rate    float64 `json:"replay_reads_per_s"`
	CPU     float64 `json:"replay_cpu_us_per_read"`
	Alerts  int     `json:"replayed_alerts"`   // of old reads, in the queue
	Wanted  int     `json:"replayed_expected"` // of old reads, that had to come
	Stops   int     `json:"replayed_not_late"` // of them, not late or asking for a stop
	Lates   int     `json:"live_late"`         // alerts of live reads that are late or ask for no stop

	LiveRate int     `json:"live_rate"`
	Behind   int64   `json:"behind"`
	WorstMS  float64 `json:"behind_max_ms"`
	Samples  [2]int  `json:"live_samples"` // alone, during the replay
	Alone    spread  `json:"live_ms_alone"`
	During   spread  `json:"live_ms_during"`
	Ratio    float64 `json:"p99_ratio"`
}

// replay has old reads matched again while live ones come.
func replay(ctx context.Context, args []string) error {
	o := replayOptions{common: common{hits: 0.0001, format: "json"}}
	fs := flag.NewFlagSet("replay", flag.ContinueOnError)
	o.register(fs)
	fs.IntVar(&o.reads, "reads", 5_000_000, "old reads to be replayed")
	fs.IntVar(&o.liveRate, "live-rate", 5000, "live reads per second")
	fs.Float64Var(&o.liveHits, "live-hits", 0.02, "share of the live reads that hit")
	fs.IntVar(&o.rate, "rate", 50_000, "--rate of vigie replay; 0 leaves it to vigie")
	fs.DurationVar(&o.alone, "alone", 20*time.Second, "how long live reads are measured before the replay")
	fs.DurationVar(&o.warmUp, "warm-up", 5*time.Second, "how long live reads are sent before, which is not measured")
	fs.DurationVar(&o.linger, "linger", time.Millisecond, "how long the producer may gather live reads; part of what is measured")
	if err := o.parse(fs, args); err != nil {
		return err
	}
	if formats[o.format] == nil || o.liveRate < 1 || o.liveHits <= 0 || o.liveHits > 1 || o.alone <= 0 || o.rate < 0 {
		fs.Usage()
		return errors.New("-format json or protobuf; -live-rate, -live-hits and -alone more than 0")
	}
	doing := progress(os.Stderr)
	old := draw(&o.common, doing)
	now := o.common
	now.reads, now.hits = 1<<18, o.liveHits
	live := draw(&now, doing) // of the same entries: they depend on their number and the seed
	s, err := openSite(ctx, o.partitions, o.heap, doing)
	var r *replayed
	var v verdict
	if err == nil {
		r, v, err = replayBeside(ctx, s, &o, old, live)
	}
	if err := errors.Join(err, s.close()); err != nil {
		return err
	}
	return reportReplay(&o, r, v)
}

func replayBeside(ctx context.Context, s *site, o *replayOptions, old, live *workload.Workload) (*replayed, verdict, error) {
	s.doing("writing %d entries to the control log", o.entries)
	hit, err := fillControl(ctx, s.cluster.ControlLog(), old.Entries, old.Reads, live.Reads)
	if err != nil {
		return nil, verdict{}, err
	}
	// Kafka stamps records itself, so that their range is that of this writing; what the
	// sensors said is a day old.
	from := time.Now().Truncate(time.Second)
	backlog, err := s.writeOld(ctx, o, old, newCaster("old", hit))
	if err != nil {
		return nil, verdict{}, err
	}
	old.Entries, old.Reads, live.Entries = nil, nil, nil
	debug.SetGCPercent(400)
	to := time.Now().Truncate(time.Second).Add(time.Second)
	group := "replay"
	ends, err := offsets(ctx, s.admin, readsTopic, o.partitions, false)
	if err != nil {
		return nil, verdict{}, err
	}
	if err := commitOffsets(ctx, s.admin, group, readsTopic, ends); err != nil {
		return nil, verdict{}, err
	}
	db := s.newDB()
	env := []string{"VIGIE_KAFKA_GROUP=" + group, fmt.Sprintf("VIGIE_REDIS_DB=%d", db)}
	p, err := s.serve(ctx, "matcher,patrol", env...)
	if err != nil {
		return nil, verdict{}, err
	}
	defer p.kill()
	l := newLedger()
	hangUp, err := p.patrol(ctx, l)
	if err != nil {
		return nil, verdict{}, err
	}
	defer hangUp()
	c, err := newProducer(s.kafka.Addr(), "none", 1_000_000, o.linger)
	if err != nil {
		return nil, verdict{}, err
	}
	defer c.Close()

	<-time.After(time.Until(to)) // live reads are none of the range
	f := &feed{schedule: schedule{time.Now().Add(50 * time.Millisecond), float64(o.liveRate)}, client: c, reads: live.Reads,
		cast: newCaster("live", hit), encode: formats[o.format], ledger: l}
	feeding, stop := context.WithCancel(ctx)
	defer stop()
	fed := make(chan error, 1)
	go func() { fed <- f.run(feeding, math.MaxInt64) }()
	r := &replayed{Reads: o.reads, LiveRate: o.liveRate, Wanted: len(backlog.alerts)}
	began := f.start.Add(o.warmUp)
	s.doing("%d live reads/s for %v, after %v that do not count", o.liveRate, o.alone, o.warmUp)
	select {
	case <-time.After(time.Until(began.Add(o.alone))):
	case <-p.end:
		return nil, verdict{}, fmt.Errorf("vigie ended:\n%s", &p.tail)
	case <-ctx.Done():
		return nil, verdict{}, ctx.Err()
	}
	replaying := time.Now()
	s.doing("vigie replay of %d reads beside", o.reads)
	err = s.runReplay(ctx, o, env, from, to, r)
	ended := time.Now()
	stop()
	if err := errors.Join(err, <-fed); err != nil {
		return nil, verdict{}, err
	}
	if err := landed(ctx, p, l); err != nil {
		return nil, verdict{}, err
	}
	if back := hangUp(); back > 0 {
		s.doing("the alert stream ended %d times and was taken up again; the log of vigie ends:\n%s", back, &p.tail)
	}
	p.kill()
	r.Behind, r.WorstMS = f.behind, round(float64(f.worst.Microseconds())/1e3, 3)
	alone, during := l.between(began, replaying), l.between(replaying, ended)
	r.Samples = [2]int{len(alone), len(during)}
	r.Alone, _ = times(alone, time.Now())
	r.During, _ = times(during, time.Now())
	r.Ratio = round(r.During.P99/r.Alone.P99, 3)

	expected := l.expected()
	liveIDs := len(expected)
	for id := range backlog.alerts {
		expected[id] = true
	}
	s.doing("checking %d alerts of live reads and %d of old ones", liveIDs, len(backlog.alerts))
	v, alerts, err := s.check(ctx, db, expected)
	r.judge(alerts, backlog.alerts)
	return r, v, err
}

// writeOld fills the reads topic with reads that sensors made in an hour of yesterday.
func (s *site) writeOld(ctx context.Context, o *replayOptions, w *workload.Workload, cast *caster) (*backlog, error) {
	s.doing("writing %d old reads", o.reads)
	c, err := newProducer(s.kafka.Addr(), "none", 1_000_000, 20*time.Millisecond)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	at := time.Now().AddDate(0, 0, -1)
	step := time.Hour / time.Duration(o.reads)
	return produce(ctx, c, w, cast, formats[o.format], func() time.Time {
		at = at.Add(step)
		return at
	})
}

// runReplay runs vigie replay to its end.
func (s *site) runReplay(ctx context.Context, o *replayOptions, env []string, from, to time.Time, r *replayed) error {
	args := []string{"replay", "--from", from.Format(time.RFC3339), "--to", to.Format(time.RFC3339), "-o", "json"}
	if o.rate > 0 {
		args = append(args, "--rate", strconv.Itoa(o.rate))
	}
	cmd := s.command(ctx, env, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	ended := make(chan error, 1)
	began := time.Now()
	if err := start(cmd, func() { ended <- cmd.Wait() }); err != nil {
		return err
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("vigie replay: %w\n%s", err, &stderr)
	}
	took := time.Since(began).Seconds()
	var got struct{ Reads, New int64 }
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		return fmt.Errorf("vigie replay -o json: %w", err)
	}
	if got.Reads != int64(o.reads) {
		return fmt.Errorf("vigie replay matched %d reads of %d", got.Reads, o.reads)
	}
	r.Seconds, r.Rate = round(took, 2), round(float64(o.reads)/took, 0)
	r.CPU = round((cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()).Seconds()*1e6/float64(o.reads), 3)
	return nil
}

// judge looks at what the alerts ask for. Only those of old reads are late, and an alert
// that is late asks for no stop.
func (r *replayed) judge(alerts []alert.Alert, old map[string]bool) {
	for i := range alerts {
		a := &alerts[i]
		switch {
		case !old[a.ID]:
			if a.Late || !a.Stop {
				r.Lates++
			}
		case !a.Late || a.Stop:
			r.Stops++
			fallthrough
		default:
			r.Alerts++
		}
	}
}

func reportReplay(o *replayOptions, r *replayed, v verdict) error {
	here := measure.Here()
	fmt.Println(here)
	fmt.Printf("%d old reads replayed in %.1f s, %.0f/s, %.3f us CPU a read; %d live reads/s, %d entries, %d partitions, %s plates as %s\n",
		r.Reads, r.Seconds, r.Rate, r.CPU, r.LiveRate, o.entries, o.partitions, o.plates, o.format)
	fmt.Printf("live, alone          %v  (%d alerts)\n", r.Alone, r.Samples[0])
	fmt.Printf("live, beside replay  %v  (%d alerts)\n", r.During, r.Samples[1])
	fmt.Printf("%d reads sent behind the schedule, at most %.1f ms\n", r.Behind, r.WorstMS)
	fmt.Printf("alerts of old reads: %d of %d, %d of them not late or asking for a stop; live alerts that are late or ask for none: %d\n",
		r.Alerts, r.Wanted, r.Stops, r.Lates)
	fmt.Printf("hits: %d of %d, %d twice, %d unexpected\n", v.Found, v.Expected, v.Duplicates, v.Unexpected)
	good := v.good() && r.Alerts == r.Wanted && r.Stops == 0 && r.Lates == 0
	// Not only with -budget: it is what a replay promises.
	err := verdictOf(good, true, []budget{{what: "live p99 ratio", value: r.Ratio, limit: ratioLimit}})
	return errors.Join(err, printJSON(struct {
		Mode string `json:"mode"`
		*replayed
		verdict
		Machine measure.Machine `json:"machine"`
	}{"replay", r, v, here}))
}
