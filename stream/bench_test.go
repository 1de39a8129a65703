package stream_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/streamtest"
	"vigie/watchlist"
)

// again is a Source of one partition that hands out the same records over and over, in
// batches of their number, and ends after some batches.
type again struct {
	values  [][]byte
	batches int
}

func (s *again) Run(ctx context.Context, consume func(context.Context, stream.Partition) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return consume(ctx, &againPartition{again: s, end: cancel})
}

type againPartition struct {
	*again
	next int64
	end  context.CancelFunc
}

func (*againPartition) ID() int { return 0 }

func (p *againPartition) Fetch(ctx context.Context, b *stream.Batch) error {
	if p.batches--; p.batches < 0 {
		p.end()
		return ctx.Err()
	}
	b.Records, b.Skipped = b.Records[:0], 0
	for _, v := range p.values {
		b.Records = append(b.Records, stream.Record{Offset: p.next, Value: v})
		p.next++
	}
	b.Next, b.HighWater = p.next, p.next+1
	return nil
}

func (*againPartition) Commit(context.Context, int64) error { return nil }

// readValues are reads on which no list has an entry, as Protobuf.
func readValues(t testing.TB, n int) (values [][]byte) {
	for i := range n {
		r := sensors.Read{ID: fmt.Sprintf("01J%08d", i), Sensor: fmt.Sprint("A7-118-", i%20), Country: "FR", Conf: 0.9,
			Plate: fmt.Sprintf("MN-%03d-%c%c", 1+i%999, 'A'+byte(i%7), 'K'+byte(i%5)), TS: 1773470467412 + int64(i)}
		b, err := sensors.AppendProto(nil, &r)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, b)
	}
	return values
}

// BenchmarkProcessor is the cost of a read that hits nothing, without fetching it: decode,
// match, bookkeeping. The batch of one is what an idle matcher pays for a read.
func BenchmarkProcessor(b *testing.B) {
	for _, n := range []int{1, 100, 4096} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			h := newHouse(b)
			h.list("stolen", watchlist.ToleranceExact)
			h.entry("stolen", "AB-123-CD")
			if err := h.replica.WaitCaughtUp(b.Context()); err != nil {
				b.Fatal(err)
			}
			s := &again{values: readValues(b, n), batches: b.N}
			p, err := stream.New(stream.Config{Source: s, Replica: h.replica, Queues: new(streamtest.Queues),
				Journal: new(streamtest.Journal), Dead: new(streamtest.Dead), CommitEvery: time.Minute})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			if err := p.Run(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if got := p.Stats().Reads; got != int64(b.N)*int64(n) {
				b.Fatalf("%d reads, want %d", got, b.N*n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/read")
		})
	}
}
