//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"vigie/bench/measure"
)

// Budgets of an outage.
const (
	drainLimit = 30    // s after Kafka is back
	liveLimit  = 1_000 // ms from a sensor to Kafka, once that is back
)

// outageFigures are what was measured around an outage.
type outageFigures struct {
	Mode    string  `json:"mode"`
	Rate    float64 `json:"rate"`
	Sensors int     `json:"sensors"`
	Batch   int     `json:"batch"`
	Seed    uint64  `json:"seed"`
	Outage  float64 `json:"outage_s"` // from when Kafka had stopped until it answered
	Killed  float64 `json:"killed_s"` // after the outage began; 0 for not
	Restart float64 `json:"restart_s"`
	gatewayVerdict
	Drained     float64 `json:"drained_s"`                  // from when Kafka answered until it had the last spooled read
	LiveMax     float64 `json:"live_delay_max_ms"`          // reads sent after Kafka answered, from the sensor to Kafka
	LiveP99     float64 `json:"live_delay_p99_ms"`          //
	LiveSpooled int     `json:"live_spooled"`               // of them, those that went through the spool
	DirectMax   float64 `json:"live_direct_delay_max_ms"`   // of them, the others
	Away        spread  `json:"ack_while_away_ms"`          // requests sent while Kafka was away, without those of the restart
	Before      spread  `json:"ack_before_ms"`              // requests sent before
	After       spread  `json:"ack_after_ms"`               // and after it
	Refused     int64   `json:"requests_not_taken"`         // tries that were not acknowledged
	AckGap      float64 `json:"longest_time_without_ack_s"` // of all sensors
	RSS         float64 `json:"rss_mb"`
	CPU         float64 `json:"cpu_us_per_read"` // of the gateway that saw the end

	Machine measure.Machine `json:"machine"`
}

// gatewayOutage stops Kafka under a gateway.
func gatewayOutage(ctx context.Context, s *site, o *gatewayOptions) (func() error, error) {
	t := &traffic{run: "o", fleet: fleet(o.sensors), plates: o.plates(), batch: o.batch}
	env := s.gatewayEnv(o)
	p, err := s.serve(ctx, "gateway", env...)
	if err != nil {
		return nil, err
	}
	defer func() { p.kill() }()
	f := &outageFigures{Mode: "gateway-outage", Rate: o.rate, Sensors: o.sensors, Batch: o.batch, Seed: o.seed}
	most := watchMemory(ctx, p.pid)
	defer func() { most() }()

	to := newPoster(p.url, o.sensors)
	sending, halt := context.WithCancel(ctx)
	defer halt()
	var refused atomic.Int64
	var out postings
	var cameras sync.WaitGroup
	every := time.Duration(float64(o.batch*o.sensors) / o.rate * float64(time.Second))
	start := time.Now()
	for i := range o.sensors {
		c := &camera{p: to, t: t, index: i, every: every, failures: &refused,
			start: start.Add(every * time.Duration(i) / time.Duration(o.sensors))}
		cameras.Go(func() {
			done, err := c.run(sending)
			out.add(done, err)
			if err != nil {
				halt()
			}
		})
	}
	stopAll := func() { halt(); cameras.Wait() }
	defer stopAll()

	s.doing("%g reads/s of %d sensors in requests of %d for %v", o.rate, o.sensors, o.batch, o.before)
	pauseUntil(sending, time.Now().Add(o.before))
	stopping := time.Now()
	if err := s.kafka.Stop(); err != nil {
		return nil, err
	}
	down := time.Now()
	s.doing("Kafka is stopped for %v", o.outage)
	var killed, restarted time.Time
	if o.kill {
		// Somewhere in the middle half.
		share := 0.25 + 0.5*rand.New(rand.NewPCG(o.seed, 0)).Float64()
		pauseUntil(sending, down.Add(time.Duration(share*float64(o.outage))))
		f.RSS = most()
		killed = time.Now()
		p.kill()
		if p, err = s.serve(ctx, "gateway", env...); err != nil {
			return nil, fmt.Errorf("start the gateway without Kafka: %w", err)
		}
		restarted = time.Now()
		to.url.Store(&p.url)
		most = watchMemory(ctx, p.pid)
		f.Killed, f.Restart = round(killed.Sub(down).Seconds(), 1), round(restarted.Sub(killed).Seconds(), 2)
		s.doing("the gateway was killed %v into the outage, and takes reads again %v later", killed.Sub(down).Round(time.Millisecond), restarted.Sub(killed).Round(time.Millisecond))
	}
	pauseUntil(sending, down.Add(o.outage))
	s.doing("starting Kafka")
	if err := s.kafka.Restart(ctx); err != nil {
		return nil, err
	}
	back := time.Now()
	f.Outage = round(back.Sub(down).Seconds(), 1)
	s.doing("Kafka answers after %v", back.Sub(down).Round(time.Millisecond))
	pauseUntil(sending, back.Add(o.after))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	stopAll()
	if out.err != nil {
		return nil, out.err
	}
	s.doing("looking for the reads of %d requests in Kafka", len(out.all))
	topic, err := settledTopic(ctx, s, t, out.all)
	if err != nil {
		return nil, err
	}
	cpu, err := cpuTime(p.pid)
	if err != nil {
		return nil, err
	}
	f.RSS = round(max(f.RSS, most()), 1)
	f.Refused = refused.Load()

	v, arrived := judgeGateway(out.all, topic)
	f.gatewayVerdict = v
	f.times(out.all, arrived, stopping, killed, restarted, back)
	served := 0
	for i := range out.all {
		if out.all[i].acked.After(restarted) {
			served += out.all[i].reads
		}
	}
	f.CPU = round(float64(cpu.Microseconds())/float64(served), 2)
	return func() error { return reportOutage(o, f) }, nil
}

// settledTopic waits until the topic has every acknowledged read, or until nothing has come
// for so long that nothing will, and returns what it has.
func settledTopic(ctx context.Context, s *site, t *traffic, posted []posting) ([]kept, error) {
	const still = 10 * time.Second
	var before []int64
	changed := time.Now()
	for {
		topic, err := topicReads(ctx, s, t)
		if err != nil {
			return nil, err
		}
		if v, _ := judgeGateway(posted, topic); v.Lost == 0 {
			return topic, nil
		}
		ends, err := offsets(ctx, s.admin, readsTopic, s.partitions, false)
		if err != nil {
			return nil, err
		}
		for i := range ends {
			if before == nil || ends[i] != before[i] {
				changed = time.Now()
			}
		}
		before = ends
		if time.Since(changed) > still {
			return topic, nil
		}
		if !pauseUntil(ctx, time.Now().Add(time.Second)) {
			return nil, ctx.Err()
		}
	}
}

// times fills in how long things took. The gateway was killed and restarted at no time when
// these are zero.
func (f *outageFigures) times(posted []posting, arrived []arrival, stopping, killed, restarted, back time.Time) {
	var before, away, after []posting
	for _, p := range posted {
		switch {
		case p.acked.Before(stopping):
			before = append(before, p)
		case p.sent.After(back):
			after = append(after, p)
		case p.acked.Before(back) && (killed.IsZero() || p.acked.Before(killed) || p.due.After(restarted)):
			away = append(away, p)
		}
	}
	f.Before, f.Away, f.After = ackTimes(before), ackTimes(away), ackTimes(after)
	f.AckGap = longestGap(posted)
	var live []float64
	for _, a := range arrived {
		at := time.UnixMilli(a.at)
		if a.spooled {
			f.Drained = max(f.Drained, round(at.Sub(back).Seconds(), 2))
		}
		if !a.sent.After(back) {
			continue
		}
		delay := max(0, ms(at.Sub(a.sent))) // the broker's time is cut to the millisecond
		live = append(live, delay)
		if a.spooled {
			f.LiveSpooled++
		} else {
			f.DirectMax = max(f.DirectMax, delay)
		}
	}
	d := spreadOf(live)
	f.LiveMax, f.LiveP99 = d.Max, d.P99
}

func reportOutage(o *gatewayOptions, f *outageFigures) error {
	f.Machine = measure.Here()
	fmt.Println(f.Machine)
	fmt.Printf("%g reads/s of %d sensors in requests of %d, %d partitions, spool %v, seed %d; Kafka away for %.1f s\n",
		f.Rate, f.Sensors, f.Batch, o.partitions, o.spool, f.Seed, f.Outage)
	if f.Killed > 0 {
		fmt.Printf("the gateway was killed %.1f s into the outage and was ready again %.2f s later\n", f.Killed, f.Restart)
	}
	fmt.Printf("acknowledged %d, spooled %d; lost %d, out of order %d, overtaken by live ones %d, again %d, without acknowledgement %d\n",
		f.Acknowledged, f.Spooled, f.Lost, f.OutOfOrder, f.Overtaken, f.Repeats, f.Unasked)
	fmt.Printf("drained %.2f s after Kafka answered; reads sent from then on were there after at most %.0f ms, p99 %.0f ms; %d of them went through the spool, the others took at most %.0f ms\n",
		f.Drained, f.LiveMax, f.LiveP99, f.LiveSpooled, f.DirectMax)
	fmt.Printf("acknowledged before  %v\n             away    %v\n             after   %v\n", f.Before, f.Away, f.After)
	fmt.Printf("%d tries not taken; longest time without an acknowledgement %.2f s; %.0f MiB, %.1f us CPU a read\n", f.Refused, f.AckGap, f.RSS, f.CPU)
	verdict := verdictOf(f.good(), o.budget, []budget{
		{what: "lost", value: float64(f.Lost)}, {what: "out_of_order", value: float64(f.OutOfOrder)},
		{what: "drained_s", value: f.Drained, limit: drainLimit}, {what: "live_delay_max_ms", value: f.LiveMax, limit: liveLimit},
		{what: "rss_mb", value: f.RSS, limit: gatewayRSSLimit},
	})
	return errors.Join(verdict, printJSON(f))
}
