//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"vigie/sensors"
)

// kept is a read that the topic holds.
type kept struct {
	n      int64  // its number
	sensor string // by which Kafka keeps order
	at     int64  // Unix milliseconds when the broker appended it
}

// topicReads returns the reads of a run that the topic holds, those of a sensor in the order
// in which they lie there. The topic has the broker's times.
func topicReads(ctx context.Context, s *site, t *traffic) ([]kept, error) {
	ends, err := offsets(ctx, s.admin, readsTopic, s.partitions, false)
	if err != nil {
		return nil, err
	}
	from := map[int32]kgo.Offset{}
	left := map[int32]int64{} // the next offset that is to come
	for id, end := range ends {
		if end > 0 {
			from[int32(id)], left[int32(id)] = kgo.NewOffset().AtStart(), end
		}
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Addr()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{readsTopic: from}))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the reads topic was not read within %v", patience))
	defer cancel()
	var out []kept
	sensor := make(map[string]string, len(t.fleet)) // one string for each
	for _, id := range t.fleet {
		sensor[id] = id
	}
	for len(left) > 0 {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return nil, fmt.Errorf("reads topic: %w", context.Cause(ctx))
		}
		var failed error
		fetches.EachError(func(_ string, _ int32, err error) { failed = err })
		fetches.EachRecord(func(rec *kgo.Record) {
			if rec.Offset+1 >= left[rec.Partition] {
				delete(left, rec.Partition)
			}
			var r sensors.Read
			if err := sensors.Decode(rec.Value, &r); err != nil {
				failed = fmt.Errorf("offset %d of partition %d: %w", rec.Offset, rec.Partition, err)
				return
			}
			if n, ok := t.number(r.ID); ok {
				out = append(out, kept{n, sensor[r.Sensor], rec.Timestamp.UnixMilli()})
			}
		})
		if failed != nil {
			return nil, fmt.Errorf("reads topic: %w", failed)
		}
	}
	return out, nil
}

// gatewayVerdict compares what was acknowledged with what Kafka holds.
//
// A read was live when Kafka had it by the time it was acknowledged, and spooled otherwise. A
// sensor sends a request when the one before is acknowledged, so its reads are in order within
// each of the two; live ones may overtake spooled ones: see sensors/spool/DESIGN.md. One that
// went both ways, since Kafka took it later than the gateway would wait, is on the topic
// twice, and may overtake too.
type gatewayVerdict struct {
	Acknowledged int `json:"acknowledged"`
	Lost         int `json:"lost"`         // acknowledged, and not on the topic
	OutOfOrder   int `json:"out_of_order"` // behind a later one of the same sensor, both live or both spooled
	Overtaken    int `json:"overtaken"`    // spooled, and behind a later live one of the same sensor
	Repeats      int `json:"repeats"`      // on the topic again: at least once is promised
	Unasked      int `json:"unasked"`      // on the topic without an acknowledgement: the sender was told to come again, or nothing
	Spooled      int `json:"spooled"`
}

func (v gatewayVerdict) good() bool { return v.Acknowledged > 0 && v.Lost == 0 && v.OutOfOrder == 0 }

// arrival is an acknowledged read that Kafka has.
type arrival struct {
	*posting
	at      int64 // Unix milliseconds when the broker appended it first
	spooled bool
}

// judgeGateway compares, and returns what arrived in the order of the topic.
func judgeGateway(posted []posting, topic []kept) (v gatewayVerdict, arrived []arrival) {
	by := map[int64]*posting{}
	for i := range posted {
		p := &posted[i]
		v.Acknowledged += p.reads
		for n := p.first; n < p.first+int64(p.reads); n++ {
			by[n] = p
		}
	}
	type last struct{ live, spooled int64 } // highest number so far
	sensors := map[string]*last{}
	times := make(map[int64]int, len(by))
	for _, k := range topic {
		times[k.n]++
	}
	for _, k := range topic {
		again := times[k.n] > 1
		if times[k.n] == 0 { // its first is behind us
			v.Repeats++
			continue
		}
		times[k.n] = 0
		p := by[k.n]
		if p == nil {
			v.Unasked++
			continue
		}
		l := sensors[k.sensor]
		if l == nil {
			l = &last{-1, -1}
			sensors[k.sensor] = l
		}
		a := arrival{p, k.at, k.at > p.acked.UnixMilli()}
		arrived = append(arrived, a)
		mine := &l.live
		if a.spooled {
			v.Spooled++
			if !again || k.n < l.live {
				mine = &l.spooled
			}
		}
		switch {
		case k.n < *mine || mine == &l.live && k.n < l.spooled:
			v.OutOfOrder++
		case k.n < l.live:
			v.Overtaken++
		}
		*mine = max(*mine, k.n)
	}
	v.Lost = v.Acknowledged - len(arrived)
	return v, arrived
}

// longestGap is the longest time in which nothing was acknowledged, in seconds.
func longestGap(ps []posting) float64 {
	at := make([]time.Time, len(ps))
	for i := range ps {
		at[i] = ps[i].acked
	}
	slices.SortFunc(at, time.Time.Compare)
	var most time.Duration
	for i := 1; i < len(at); i++ {
		most = max(most, at[i].Sub(at[i-1]))
	}
	return round(most.Seconds(), 3)
}

// ms is a duration in milliseconds.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
