package stream_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/alert"
	"vigie/watchlist"
)

const poison = "XX-666-XX" // the plate that makes a broken program panic

// panicking are queues that panic over alerts of the poison, before or after they are stored.
type panicking struct {
	stream.Queues
	after bool
}

func (q panicking) Publish(ctx context.Context, alerts []*alert.Alert) (out []stream.Published, err error) {
	if q.after {
		out, err = q.Queues.Publish(ctx, alerts)
	}
	for _, a := range alerts {
		if a.Read.Plate == poison {
			panic("cannot handle " + a.Read.Plate)
		}
	}
	if !q.after {
		out, err = q.Queues.Publish(ctx, alerts)
	}
	return out, err
}

// breakDecoding panics over the poison.
func breakDecoding(value []byte, r *sensors.Read, decode func([]byte, *sensors.Read) error) error {
	err := decode(value, r)
	if r.Plate == poison {
		var none []byte
		return fmt.Errorf("%d", none[len(r.Plate)])
	}
	return err
}

// TestPanics lets the program panic over one read among others, in each stage: that read
// is a dead letter, the others alert once, the offsets move on, and what is logged tells
// where it happened and nothing of the read.
func TestPanics(t *testing.T) {
	for _, stage := range []string{"decode", "match", "queues", "queues, stored"} {
		t.Run(stage, func(t *testing.T) {
			h := newHouse(t)
			h.list("stolen", watchlist.ToleranceExact)
			h.entry("stolen", "AB-123-CD")
			h.entry("stolen", poison)
			var logged bytes.Buffer
			log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&logged), zap.DebugLevel))
			var armed atomic.Bool
			cfg := stream.Config{
				Source: h.reads.Source(100), Replica: h.replica, Queues: h.queues, Journal: h.journal, Dead: h.dead,
				CommitEvery: time.Millisecond, Drain: time.Second, Log: log,
			}
			switch stage {
			case "match":
				// Alerts are built with the time, so the clock is where matching can be broken.
				cfg.Clock = func() time.Time {
					if armed.CompareAndSwap(true, false) {
						panic(fmt.Errorf("%w: %s", context.Canceled, poison))
					}
					return time.Now()
				}
			case "queues", "queues, stored":
				cfg.Queues = panicking{h.queues, stage == "queues, stored"}
			}
			p, err := stream.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			switch stage {
			case "decode":
				p.BreakDecode(breakDecoding)
			case "match":
				p.BreakDecode(func(value []byte, r *sensors.Read, decode func([]byte, *sensors.Read) error) error {
					err := decode(value, r)
					if r.Plate == poison {
						armed.Store(true)
					}
					return err
				})
			}
			for i := range 9 {
				h.produce(0, read(fmt.Sprint("r", i), "AB-123-CD"))
				if i == 4 {
					h.produce(0, read("poison", poison))
					h.reads.Produce(0, []byte("{"))
				}
			}
			stop := h.background("processor", p.Run)
			h.committed(11, 0)
			h.produce(0, read("r9", "AB-123-CD"))
			h.committed(12, 0)
			stop()

			var got, dead []string
			for _, a := range h.queues.In(watchlist.DefaultQueue) {
				if a.Read.ID != "poison" {
					got = append(got, a.Read.ID)
				}
			}
			slices.Sort(got)
			if want := []string{"r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"}; !slices.Equal(got, want) {
				t.Errorf("alerts of %v, want one each of %v", got, want)
			}
			for _, l := range h.dead.Letters() {
				dead = append(dead, fmt.Sprint(l.Offset, " ", l.Reason))
				if l.Reason == stream.ReasonPanic && !bytes.Contains(l.Value, []byte(poison)) {
					t.Error("the dead letter is not the read")
				}
			}
			slices.Sort(dead)
			if dead = slices.Compact(dead); !slices.Equal(dead, []string{"5 panic", "6 json"}) {
				t.Errorf("dead letters %v", dead)
			}
			s := p.Stats()
			if s.Panics != 2 || s.Dead[stream.ReasonPanic] != 1 {
				t.Errorf("%d panics, dead %v: want 2, of the batch and of the read, and 1 letter", s.Panics, s.Dead)
			}
			text := logged.String()
			for _, secret := range []string{poison, "XX666XX", "poison", "cannot handle"} {
				if strings.Contains(text, secret) {
					t.Errorf("the log has %q of the read:\n%s", secret, text)
				}
			}
			for _, want := range []string{"stream.(*worker).", "processor.go:", `"offset":5`, `"type":"`} {
				if !strings.Contains(text, want) {
					t.Errorf("the log does not say %q:\n%s", want, text)
				}
			}
		})
	}
}

// TestPanicsUnguarded is the negative control: without the guard the same read takes the
// process down, before anything of the batch is stored, and would again at every start.
func TestPanicsUnguarded(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	p, err := stream.New(stream.Config{Source: h.reads.Source(100), Replica: h.replica, Queues: h.queues, Journal: h.journal, Dead: h.dead})
	if err != nil {
		t.Fatal(err)
	}
	p.BreakDecode(breakDecoding)
	var records []stream.Record
	for i, plate := range []string{"AB-123-CD", poison, "AB-123-CD"} {
		r := read(fmt.Sprint("r", i), plate)
		b, err := sensors.AppendProto(nil, &r)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, stream.Record{Offset: int64(i), Value: b})
	}
	defer func() {
		if recover() == nil {
			t.Error("it does not panic: what the guard is for is not seen here")
		}
		if n := len(h.queues.In(watchlist.DefaultQueue)); n != 0 {
			t.Errorf("%d alerts", n)
		}
	}()
	err = p.HandleBare(t.Context(), &againPartition{}, records)
	t.Errorf("it returned %v", err)
}

// TestPanicOnce: a panic that does not come again when the records are handled one by one
// costs nobody a read.
func TestPanicOnce(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	h.entry("stolen", "AB-123-CD")
	p, err := stream.New(stream.Config{Source: h.reads.Source(100), Replica: h.replica, Queues: h.queues, Journal: h.journal, Dead: h.dead, CommitEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var done atomic.Bool
	p.BreakDecode(func(value []byte, r *sensors.Read, decode func([]byte, *sensors.Read) error) error {
		if done.CompareAndSwap(false, true) {
			panic("once")
		}
		return decode(value, r)
	})
	h.produce(0, read("r1", "AB-123-CD"))
	h.background("processor", p.Run)
	h.committed(1, 0)
	if n := len(h.queues.In(watchlist.DefaultQueue)); n != 1 || len(h.dead.Letters()) != 0 || p.Stats().Panics != 1 {
		t.Errorf("%d alerts, dead letters %v, %d panics", n, h.dead.Letters(), p.Stats().Panics)
	}
}
