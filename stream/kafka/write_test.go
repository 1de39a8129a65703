package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/streamtest"
)

func TestPublish(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		const callers, perCaller = 8, 250
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 4})
		w := c.Reads()
		if err := w.Publish(t.Context(), nil); err != nil {
			t.Errorf("nothing: %v", err)
		}
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				reads := make([]sensors.Read, 5)
				for j := 0; j < perCaller; j += len(reads) {
					for k := range reads {
						reads[k] = sensors.Read{ID: fmt.Sprintf("%d-%04d", i, j+k), Sensor: fmt.Sprint("A7-", i), Plate: "AB123CD", TS: 1773470467412}
					}
					if err := w.Publish(t.Context(), reads); err != nil {
						t.Errorf("Publish: %v", err)
					}
					for k := range reads { // they are the caller's again
						reads[k] = sensors.Read{ID: "overwritten"}
					}
				}
			})
		}
		wg.Wait()
		last := make(map[string]string)
		place := make(map[string]int32)
		n := 0
		for _, r := range readTopic(t, c, topicReads) {
			var read sensors.Read
			if err := sensors.Decode(r.Value, &read); err != nil {
				t.Fatalf("Decode: %v", err)
			}
			if string(r.Key) != read.Sensor || read.Plate != "AB123CD" {
				t.Fatalf("read %+v with key %q", read, r.Key)
			}
			if read.ID <= last[read.Sensor] {
				t.Errorf("read %s after %s", read.ID, last[read.Sensor])
			}
			if p, ok := place[read.Sensor]; ok && p != r.Partition {
				t.Errorf("sensor %s is in two partitions", read.Sensor)
			}
			if want := partitionOf([]byte(read.Sensor), 4); int(r.Partition) != want {
				t.Errorf("sensor %s is in partition %d, want %d", read.Sensor, r.Partition, want)
			}
			last[read.Sensor], place[read.Sensor] = read.ID, r.Partition
			n++
		}
		if n != callers*perCaller {
			t.Errorf("%d reads, want %d", n, callers*perCaller)
		}
		if st := w.Stats(); st.Reads != callers*perCaller || st.Failed != 0 || st.Requests == 0 || st.Requests > st.Reads {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestPublishErrors(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 2})
		reads := someReads(3)
		reads[1].Make = strings.Repeat("x", sensors.MaxReadBytes)
		if err := c.Reads().Publish(t.Context(), reads); !errors.Is(err, sensors.ErrTooLarge) || !strings.Contains(err.Error(), "read 2 of 3") {
			t.Errorf("a read that is too large: %v", err)
		}
		if rs := readTopic(t, c, topicReads); len(rs) != 0 {
			t.Errorf("%d reads were written although one cannot be", len(rs))
		}
		cluster, way := through(t, b, Config{Prefix: c.prefix, Timeout: time.Second})
		far := cluster.Reads()
		streamtest.Eventually(t, patience, "the new topic", func() bool { return far.Publish(t.Context(), someReads(3)) == nil })
		for _, o := range []outage{down, hung} {
			o.begin(way)
			began := time.Now()
			var wg sync.WaitGroup
			for range 20 { // what waits behind a failing request fails with it
				wg.Go(func() {
					if err := far.Publish(t.Context(), someReads(3)); err == nil {
						t.Errorf("%s: Publish: no error", o.name)
					} else if strings.Contains(err.Error(), "AB123CD") {
						t.Errorf("a plate is in the error: %v", err)
					}
				})
			}
			wg.Wait()
			if took := time.Since(began); took > 2500*time.Millisecond {
				t.Errorf("%s: it took %v", o.name, took)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			began = time.Now()
			if err := far.Publish(ctx, someReads(1)); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 500*time.Millisecond {
				t.Errorf("%s: told to stop: %v after %v", o.name, err, time.Since(began))
			}
			cancel()
			way.Heal()
			streamtest.Eventually(t, patience, "the way to be used again", func() bool { return far.Publish(t.Context(), someReads(1)) == nil })
		}
		none := open(t, b, Config{Timeout: time.Second})
		if err := none.Reads().Publish(t.Context(), someReads(1)); err == nil || !strings.Contains(err.Error(), "vigie topics apply") {
			t.Errorf("without a topic: %v, want what to do", err)
		}
	})
}

// Topics that take smaller batches than ours get smaller ones.
func TestPublishSmallBatches(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1}, func(specs []TopicSpec) { specs[0].Configs["max.message.bytes"] = "2000" })
		if err := c.Reads().Publish(t.Context(), someReads(100)); err != nil {
			t.Fatalf("Publish: %v", err)
		}
		rs := readTopic(t, c, topicReads)
		var ids []string
		for _, r := range rs {
			var read sensors.Read
			if err := sensors.Decode(r.Value, &read); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, read.ID)
		}
		if len(ids) != 100 || !slices.IsSorted(ids) {
			t.Errorf("%d reads, in order %v", len(ids), slices.IsSorted(ids))
		}
		big := someReads(1)
		big[0].Make = strings.Repeat("x", 5000)
		if err := c.Reads().Publish(t.Context(), big); !errors.Is(err, ErrTooLarge) {
			t.Errorf("one read larger than the topic takes: %v, want ErrTooLarge", err)
		}
	})
}

func hit(id string) *alert.Event { return alert.Hit(streamtest.NewAlert(id, "q1", 3)) }

func TestReadAll(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{HitsPartitions: 3})
		j := c.Journal()
		if es := readAll(t, j); len(es) != 0 {
			t.Errorf("an empty topic: %d events", len(es))
		}
		var events []*alert.Event
		for i := range 300 {
			events = append(events, hit(fmt.Sprint("a", i)))
		}
		if err := j.Append(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		// What is no event, and a transaction marker as the last record of a partition.
		put(t, c, topicHits, 0, nil, values("garbage", "")...)
		cl := client(t, c, kgo.TransactionalID(c.prefix+"tx"), kgo.DefaultProduceTopic(c.topic(topicHits)))
		defer cl.Close()
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		value, err := alert.MarshalEvent(hit("by others"))
		if err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Partition: 1, Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		// What is appended while it is read is not waited for.
		got := make(map[string]bool)
		err = j.ReadAll(t.Context(), func(es []*alert.Event) error {
			for _, e := range es {
				got[e.AlertID] = true
			}
			return j.Append(t.Context(), []*alert.Event{hit("late")})
		})
		if err != nil {
			t.Fatalf("ReadAll: %v", err)
		}
		delete(got, "late")
		if len(got) != 301 || !got["by others"] {
			t.Errorf("%d events, want 301", len(got))
		}
		if n := j.Skipped(); n != 2 {
			t.Errorf("skipped %d, want 2", n)
		}
		boom := errors.New("boom")
		if err := j.ReadAll(t.Context(), func([]*alert.Event) error { return boom }); !errors.Is(err, boom) {
			t.Errorf("got %v, want the error of apply", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := j.ReadAll(ctx, func([]*alert.Event) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("told to stop: %v", err)
		}
		if err := j.Append(t.Context(), []*alert.Event{hit("ok"), {AlertID: "x"}}); err == nil || !strings.Contains(err.Error(), "event 2 of 2") {
			t.Errorf("an event that cannot be written: %v", err)
		}
	})
}

func TestDeadLetters(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 2})
		long := strings.Repeat("l", 600_000)
		rs := []*kgo.Record{
			{Key: []byte("A7-1"), Value: []byte("bad one"), Headers: []kgo.RecordHeader{{Key: "gateway", Value: []byte("g1")}, {Key: "large", Value: make([]byte, 2*deadSmall)}}},
			{Key: []byte("A7-2"), Value: []byte("good")},
			{Key: []byte("A7-3"), Value: []byte(long)},
			{Value: []byte("bad two")},
			{Key: []byte("A7-4")},
		}
		put(t, c, topicReads, 1, []kgo.Opt{kgo.ProducerBatchCompression(kgo.Lz4Compression())}, rs...)
		put(t, c, topicReads, 1, []kgo.Opt{kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(64 << 20),
			kgo.BrokerMaxWriteBytes(100 << 20)}, values(strings.Repeat("{", 30<<20))...)
		letters := []stream.DeadLetter{
			{Partition: 1, Offset: 4, Reason: stream.ReasonEmpty},
			{Partition: 1, Offset: 0, Reason: stream.ReasonProtobuf, Value: []byte("bad one")},
			{Partition: 1, Offset: 2, Reason: stream.ReasonTooLarge, Value: []byte(long[:100])},
			{Partition: 1, Offset: 3, Reason: stream.ReasonProtobuf, Value: []byte("bad two")},
			{Partition: 1, Offset: 5, Reason: stream.ReasonTooLarge, Value: []byte("the head of a bomb")},
			{Partition: 1, Offset: 99, Reason: stream.ReasonJSON, Value: []byte("{gone")},
			{Partition: 1, Offset: 1, Reason: stream.ReasonJSON, Value: []byte("{of another topic")},
			{Partition: 7, Offset: 1, Reason: stream.ReasonJSON, Value: []byte("{of no partition")},
		}
		began := time.Now()
		if err := c.DeadLetters().Send(t.Context(), letters); err != nil {
			t.Fatalf("Send: %v", err)
		}
		if took := time.Since(began); took > deadLookup {
			t.Errorf("it took %v", took)
		}
		want := map[string]struct {
			key, value string
			size       string
		}{
			"1/0":  {"A7-1", "bad one", ""},
			"1/2":  {"A7-3", long[:deadValue], "600000"},
			"1/3":  {"", "bad two", ""},
			"1/4":  {"A7-4", "", ""},
			"1/5":  {"", "the head of a bomb", ""},
			"1/99": {"", "{gone", ""},
			"1/1":  {"", "{of another topic", ""},
			"7/1":  {"", "{of no partition", ""},
		}
		for _, r := range readTopic(t, c, topicDead) {
			h := make(map[string]string)
			for _, x := range r.Headers {
				h[x.Key] = string(x.Value)
			}
			at := h[HeaderPartition] + "/" + h[HeaderOffset]
			w, ok := want[at]
			if !ok {
				t.Errorf("a letter of %s", at)
				continue
			}
			delete(want, at)
			if string(r.Key) != w.key || !bytes.Equal(r.Value, []byte(w.value)) || h[HeaderSize] != w.size {
				t.Errorf("%s: key %q, %d bytes, size %q, want key %q, %d bytes, size %q", at, r.Key, len(r.Value), h[HeaderSize], w.key, len(w.value), w.size)
			}
			if h[HeaderTopic] != c.topic(topicReads) || h[HeaderReason] == "" || h[HeaderTime] == "" {
				t.Errorf("%s: headers %v", at, h)
			}
			if _, large := h["large"]; at == "1/0" && (h["gateway"] != "g1" || large) {
				t.Errorf("%s: headers %v, want those of the record, without the large one", at, h)
			}
		}
		if len(want) > 0 {
			t.Errorf("no letters of %v", want)
		}
	})
}

// BenchmarkPublish is the way from the gateway to the acknowledgement, with many requests at
// the same time as a gateway has, and with one.
func BenchmarkPublish(b *testing.B) {
	for _, bb := range []struct{ callers, reads int }{{1, 1}, {64, 5}} {
		b.Run(fmt.Sprintf("kafka/callers=%d/reads=%d", bb.callers, bb.reads), func(b *testing.B) {
			c := open(b, real(b), Config{})
			topics(b, c, TopicsConfig{ReadsPartitions: 8})
			w := c.Reads()
			if err := w.Publish(b.Context(), someReads(100)); err != nil {
				b.Fatal(err)
			}
			var mu sync.Mutex
			var took []time.Duration
			spent := cpu()
			b.SetParallelism(bb.callers)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				reads := someReads(bb.reads)
				for pb.Next() {
					began := time.Now()
					if err := w.Publish(b.Context(), reads); err != nil {
						b.Error(err)
					}
					d := time.Since(began)
					mu.Lock()
					took = append(took, d)
					mu.Unlock()
				}
			})
			n := float64(len(took) * bb.reads)
			b.ReportMetric(n/b.Elapsed().Seconds(), "reads/s")
			b.ReportMetric(float64((cpu()-spent).Nanoseconds())/n, "cpu-ns/read")
			b.ReportMetric(at(took, 50).Seconds()*1000, "p50-ms")
			b.ReportMetric(at(took, 99).Seconds()*1000, "p99-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}
