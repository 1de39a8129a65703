//go:build linux

package chaos

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// bombBytes is what the decompression bomb unpacks to: gzip makes about 300 KB of it.
const bombBytes = 300 << 20

// TestPoison mixes records that are no reads, each of a kind that has broken a consumer
// somewhere, with the load, on every partition: each lands in the dead letters with its reason,
// and nothing else is lost.
func TestPoison(t *testing.T) {
	rng := dice(t)
	s, gateway, ms := newMatcherSite(t, 1)
	tr := s.begin("poison, oversized and bomb records", plan{rate: 1000, share: 0.1, changes: 2, duration: 5 * time.Second}, gateway, ms...)
	time.Sleep(between(rng, 500*time.Millisecond, time.Second))

	read := func(plate string) string {
		return fmt.Sprintf(`{"id":"poison","sensor":"poison","plate":%q,"country":"FR","ts":%d}`, plate, time.Now().UnixMilli())
	}
	poison := []struct {
		reason string // "" for a record that is a read
		value  []byte
		key    []byte
	}{
		{"json", []byte(`{"id":"01JBROKEN","sensor":"A7-118-2","plate":`), []byte("poison")},
		{"json", []byte(strings.Repeat(`{"a":`, 2_000)), []byte("poison")},
		{"protobuf", []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, []byte("poison")},
		{"protobuf", []byte("hello"), nil}, // nil key
		{"empty", nil, []byte("poison")},
		{"empty", []byte{}, []byte("poison")},
		{"plate", []byte(read("AB#123")), []byte("poison")},
		{"json", []byte("{\"id\":\"x\",\"sensor\":\"\xff\xfe\",\"plate\":\"AB123CD\",\"ts\":1773470467412}"), []byte{0xff}}, // invalid UTF-8
		{"field", []byte(`{"id":"x","plate":"AB123CD","ts":1773470467412}`), []byte("poison")},                              // no sensor
		{"toolarge", bytes.Repeat([]byte("x"), 900<<10), []byte("poison")},
	}
	tr.strike()
	base := tr.peak(ms[0])
	want := map[string]int{}
	producer := s.producer()
	aborted := s.producer(kgo.TransactionalID(s.id + "-tx"))
	for part := range int32(partitions) {
		for _, p := range poison {
			if p.reason != "" {
				want[p.reason]++
			}
			tr.put(producer, &kgo.Record{Partition: part, Key: p.key, Value: p.value})
			time.Sleep(between(rng, 0, 10*time.Millisecond))
		}
		// A transaction leaves a marker, which is no record; what was aborted is handed on all the
		// same, for a repeat is better than a miss.
		if err := aborted.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		tr.put(aborted, &kgo.Record{Partition: part, Value: []byte("aborted")})
		if err := aborted.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		want["protobuf"]++
	}
	bomb := s.producer(kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(bombBytes+1<<20), kgo.BrokerMaxWriteBytes(bombBytes+2<<20))
	tr.put(bomb, &kgo.Record{Partition: 2, Key: []byte("poison"), Value: bytes.Repeat([]byte("{"), bombBytes)})
	want["toolarge"]++
	tr.heal()
	// An idle process collects garbage every two minutes, and only then gives memory back.
	tr.settleWithin = short(0, 4*time.Minute)

	tr.finish()
	got := s.deadLetters(sumOf(want))
	if !maps.Equal(got, want) {
		t.Errorf("dead letters by reason: %v, want %v", got, want)
	}
	peak := tr.peak(ms[0])
	tr.shown("%d records that are no reads became %d dead letters: %v; the most memory the matcher held was %d MiB, %d before",
		sumOf(want), sumOf(got), got, peak, base)
	if limit := 160; peak > limit {
		t.Errorf("the matcher held %d MiB, more than %d: a bomb went off", peak, limit)
	}
}

func sumOf(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// producer is a client that writes to the reads topic as others do.
func (s *site) producer(opts ...kgo.Opt) *kgo.Client {
	s.t.Helper()
	opts = append([]kgo.Opt{
		kgo.SeedBrokers(s.cfg.kafka...), kgo.DefaultProduceTopic(s.readsTopic()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(0),
	}, opts...)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(cl.Close)
	return cl
}

func (s *site) put(cl *kgo.Client, r *kgo.Record) {
	s.t.Helper()
	if err := cl.ProduceSync(s.t.Context(), r).FirstErr(); err != nil {
		s.t.Fatalf("a record of %d bytes: %v", len(r.Value), err)
	}
}

// deadLetters reads the dead topic until it has given n letters, or nothing more for three
// seconds, and counts them by reason.
func (s *site) deadLetters(n int) map[string]int {
	s.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.kafka...), kgo.ConsumeTopics(s.id+".dead"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	reasons := map[string]int{}
	for {
		// One more than wanted must show, too: so the last poll waits in vain.
		wait := 3 * time.Second
		if sumOf(reasons) >= n {
			wait = time.Second
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), wait)
		fetches := cl.PollFetches(ctx)
		cancel()
		if fetches.NumRecords() == 0 {
			return reasons
		}
		for r := range fetches.RecordsAll() {
			for _, h := range r.Headers {
				if h.Key == "vigie.reason" {
					reasons[string(h.Value)]++
				}
			}
		}
	}
}

// peak is the most memory, in MiB, that a process has ever held.
func (s *site) peak(p *process) int {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kb int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			return kb >> 10
		}
	}
	s.t.Fatal("the system does not tell how much memory a process has held")
	return 0
}
