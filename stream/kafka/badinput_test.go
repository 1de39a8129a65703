package kafka

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protowire"

	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/streamtest"
	"vigie/watchlist"
)

// TestBadInput writes everything that is not a good read among good reads and lets a whole
// processor take it from there, once in a group and once with fixed partitions: each goes
// to the dead letters with its reason or is passed over as documented, every good read
// alerts once, and the partition is committed to its end. A second start finds nothing to do.
func TestBadInput(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		for _, members := range []int{0, 1} {
			t.Run(fmt.Sprint("members=", members), func(t *testing.T) { badInput(t, b, members) })
		}
	})
}

func badInput(t *testing.T, b backend, members int) {
	c := open(t, b, Config{})
	topics(t, c, TopicsConfig{ReadsPartitions: 1})
	control, replica := streamtest.NewControlLog(), stream.NewReplica(nil)
	queues, journal := new(streamtest.Queues), new(streamtest.Journal)
	background(t, func(ctx context.Context) error { return replica.Follow(ctx, control) })
	desk, err := stream.NewDesk(stream.DeskConfig{Log: control, Replica: replica, Fencer: queues})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := desk.PutList(t.Context(), "op", watchlist.List{ID: "l", Name: "l", Owner: "o", LegalBasis: "x",
		Tolerance: watchlist.ToleranceExact, DefaultAction: watchlist.ActionIntercept}); err != nil {
		t.Fatal(err)
	}
	if _, err := desk.AddEntry(t.Context(), "op", "l", watchlist.EntryInput{Plate: "AB-123-CD", Country: "FR", Reason: "r", CaseRef: "c",
		ValidFrom: time.Now().Add(-time.Hour), ValidUntil: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}

	read := func(id string, change func(*sensors.Read)) []byte {
		r := sensors.Read{ID: id, Sensor: "A7-118-2", Plate: "AB-123-CD", Country: "FR", TS: time.Now().UnixMilli(), Conf: 0.9}
		if change != nil {
			change(&r)
		}
		v, err := sensors.AppendProto(nil, &r)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	// A later version of the schema has fields that this one does not know: passed over. When it has
	// given a known field another type, what it says cannot be known: a dead letter.
	later := protowire.AppendTag(read("later", nil), 900, protowire.BytesType)
	later = protowire.AppendBytes(later, []byte("from the future"))
	later = protowire.AppendTag(later, 901, protowire.VarintType)
	later = protowire.AppendVarint(later, 3)
	retyped := protowire.AppendTag(read("retyped", nil), 3, protowire.VarintType)
	retyped = protowire.AppendVarint(retyped, 7)
	laterJSON := fmt.Appendf(nil, `{"id":"later-json","sensor":"s1","plate":"AB123CD","country":"FR","ts":%d,"schema":9,"axles":{"n":[2,{}]}}`, time.Now().UnixMilli())
	confluent := append(binary.BigEndian.AppendUint32([]byte{0}, 1234), read("framed", nil)...) // of a schema registry

	var want = map[string]int{}
	var alerts []string
	var n int64
	write := func(opts []kgo.Opt, reason string, rs ...*kgo.Record) {
		t.Helper()
		put(t, c, topicReads, 0, opts, rs...)
		n += int64(len(rs))
		if reason != "" {
			want[reason] += len(rs)
		}
	}
	good := func(id string, value []byte, key []byte) {
		t.Helper()
		write(nil, "", &kgo.Record{Key: key, Value: value})
		alerts = append(alerts, id)
	}
	good("null-key", read("null-key", nil), nil)
	good("empty-key", read("empty-key", nil), []byte{})
	good("wrong-key", read("wrong-key", nil), []byte("\xff\x00not a sensor"))
	write(nil, "empty", &kgo.Record{Key: []byte("A7-118-2"), Value: nil}, &kgo.Record{Key: []byte("A7-118-2"), Value: []byte{}}, &kgo.Record{})
	good("later", later, nil)
	good("later-json", laterJSON, nil)
	write(nil, "protobuf", values(string(retyped), string(confluent), "<?xml version=\"1.0\"?><read/>", "Obj\x01avro", "\x00\x01\x02", strings.Repeat("\xff", 40))...)
	write(nil, "json", values("{", `{"plate":1}`, "{}{}", `{"sensor":"s","PLATE":"AB123CD","ts":1}`)...)
	write(nil, "field", values(string(read("x", func(r *sensors.Read) { r.Sensor = "" })), string(read("x", func(r *sensors.Read) { r.TS = 1_700_000_000 })))...)
	write(nil, "plate", values(string(read("x", func(r *sensors.Read) { r.Plate = "A#B" })))...)
	write(nil, "", values(string(read("x", func(r *sensors.Read) { r.Plate = "unknown" })))...) // a read without a plate
	good("unknown-sensor", read("unknown-sensor", func(r *sensors.Read) { r.Sensor = "never-registered" }), nil)
	write(nil, "toolarge", values("{"+strings.Repeat(" ", sensors.MaxReadBytes))...)
	big := []kgo.Opt{kgo.ProducerBatchMaxBytes(64 << 20), kgo.BrokerMaxWriteBytes(100 << 20)}
	for _, codec := range []kgo.CompressionCodec{kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		write(append(big, kgo.ProducerBatchCompression(codec)), "toolarge", values(strings.Repeat("{", 8<<20))...)
	}
	cl := client(t, c, kgo.TransactionalID(c.prefix+"tx"), kgo.DefaultProduceTopic(c.topic(topicReads)))
	defer cl.Close()
	for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		id := fmt.Sprint("tx", i)
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), values(string(read(id, nil)))...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
		alerts, n = append(alerts, id), n+2 // the read and the marker; an aborted read is matched too
	}
	good("last", read("last", nil), []byte("A7-118-2"))

	cfg := SourceConfig{Group: c.prefix + "g", Members: members, MaxBatchBytes: 4 << 20}
	run := func() (*stream.Processor, *Source, func()) {
		s := c.Source(cfg)
		p, err := stream.New(stream.Config{Source: s, Replica: replica, Queues: queues, Journal: journal, Dead: c.DeadLetters(),
			CommitEvery: 10 * time.Millisecond, Log: logTo(t)})
		if err != nil {
			t.Fatal(err)
		}
		return p, s, background(t, p.Run)
	}
	p, s, stop := run()
	streamtest.Eventually(t, patience, "the partition to be committed to its end", func() bool { return committed(t, c, cfg.Group, 1)[0] == n })
	stop()

	got := map[string]int{}
	for _, l := range readTopic(t, c, topicDead) {
		for _, h := range l.Headers {
			if h.Key == HeaderReason {
				got[string(h.Value)]++
			}
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("dead letters by reason %v, want %v", got, want)
	}
	ids := func(as []*alert.Alert) (ids []string) {
		for _, a := range as {
			ids = append(ids, a.Read.ID)
		}
		slices.Sort(ids)
		return ids
	}
	slices.Sort(alerts)
	if got := ids(queues.In(watchlist.DefaultQueue)); !slices.Equal(got, alerts) {
		t.Errorf("alerts of %v, want one each of %v", got, alerts)
	}
	st := p.Stats()
	if st.Sentinels != 1 || st.Panics != 0 || st.Skipped != 0 || st.Reads != int64(len(alerts)) {
		t.Errorf("stats %+v", st)
	}
	if st := s.Stats(); st.Markers != 2 {
		t.Errorf("%d transaction markers, want 2", st.Markers)
	}

	p, _, _ = run()
	put(t, c, topicReads, 0, nil, values(string(read("after", nil)))...)
	streamtest.Eventually(t, patience, "the read after the second start", func() bool { return committed(t, c, cfg.Group, 1)[0] == n+1 })
	if st := p.Stats(); st.Reads != 1 || len(st.Dead) != 0 {
		t.Errorf("the second start has repeated: %+v", st)
	}
}

// background runs f until the returned function, or the end of the test, stops it.
func background(t *testing.T, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ends with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}
