package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The request is read and the answer written by another implementation of the protocol.

func TestFetchRequest(t *testing.T) {
	f := &fetch{clientID: "vigie", topic: "vigie.reads", partition: 3, offset: 1 << 40, wait: 250 * time.Millisecond, ask: 1 << 20, id: 77}
	b := f.appendRequest(nil)
	be := binary.BigEndian
	if n := int(be.Uint32(b)); n != len(b)-4 {
		t.Fatalf("size %d, want %d", n, len(b)-4)
	}
	if key, v, id := be.Uint16(b[4:]), be.Uint16(b[6:]), be.Uint32(b[8:]); key != 1 || v != fetchVersion || id != 77 {
		t.Errorf("key %d, version %d, id %d", key, v, id)
	}
	n := int(be.Uint16(b[12:]))
	if s := string(b[14 : 14+n]); s != "vigie" {
		t.Errorf("client id %q", s)
	}
	req := kmsg.NewPtrFetchRequest()
	req.Version = fetchVersion
	if err := req.ReadFrom(b[14+n:]); err != nil {
		t.Fatalf("ReadFrom: %v", err)
	}
	if req.ReplicaID != -1 || req.MaxWaitMillis != 250 || req.MinBytes != 1 || req.MaxBytes != 1<<20 || req.IsolationLevel != 0 ||
		req.SessionID != 0 || req.SessionEpoch != -1 || len(req.Topics) != 1 || req.Rack != "" {
		t.Errorf("request %+v", req)
	}
	if p := req.Topics[0].Partitions[0]; req.Topics[0].Topic != "vigie.reads" || p.Partition != 3 || p.FetchOffset != 1<<40 ||
		p.PartitionMaxBytes != 1<<20 || p.CurrentLeaderEpoch != -1 || p.LogStartOffset != -1 {
		t.Errorf("partition %+v", p)
	}
}

// fetchAnswer is an answer as a broker writes it.
func fetchAnswer(id int32, change func(*kmsg.FetchResponse, *kmsg.FetchResponseTopicPartition)) []byte {
	res := kmsg.NewPtrFetchResponse()
	res.Version = fetchVersion
	rt := kmsg.NewFetchResponseTopic()
	rt.Topic = "vigie.reads"
	p := kmsg.NewFetchResponseTopicPartition()
	p.Partition, p.HighWatermark, p.LastStableOffset, p.LogStartOffset = 3, 500, 400, 20
	rt.Partitions = append(rt.Partitions, p)
	res.Topics = append(res.Topics, rt)
	change(res, &res.Topics[0].Partitions[0])
	b := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(id))
	b = res.AppendTo(b)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func TestFetchAnswer(t *testing.T) {
	records := []byte(strings.Repeat("r", 1000))
	tests := []struct {
		name   string
		change func(*kmsg.FetchResponse, *kmsg.FetchResponseTopicPartition)
		limit  int
		check  func(*fetch) bool
	}{
		{"records", func(r *kmsg.FetchResponse, p *kmsg.FetchResponseTopicPartition) { p.RecordBatches = records }, 1 << 20,
			func(f *fetch) bool {
				return f.answered && bytes.Equal(f.data, records) && f.highWater == 500 && !f.cut && f.code == 0
			}},
		{"none", func(*kmsg.FetchResponse, *kmsg.FetchResponseTopicPartition) {}, 1 << 20,
			func(f *fetch) bool { return f.answered && len(f.data) == 0 && f.highWater == 500 }},
		{"more than the limit", func(r *kmsg.FetchResponse, p *kmsg.FetchResponseTopicPartition) { p.RecordBatches = records }, 100,
			func(f *fetch) bool { return f.answered && bytes.Equal(f.data, records[:100]) && f.cut }},
		{"aborted transactions", func(r *kmsg.FetchResponse, p *kmsg.FetchResponseTopicPartition) {
			p.AbortedTransactions = make([]kmsg.FetchResponseTopicPartitionAbortedTransaction, 3)
			p.RecordBatches = records
		}, 1 << 20, func(f *fetch) bool { return f.answered && bytes.Equal(f.data, records) }},
		{"throttled", func(r *kmsg.FetchResponse, p *kmsg.FetchResponseTopicPartition) { r.Topics, r.ThrottleMillis = nil, 70 }, 1 << 20,
			func(f *fetch) bool { return !f.answered && f.throttle == 70*time.Millisecond && f.code == 0 }},
		{"error of the partition", func(r *kmsg.FetchResponse, p *kmsg.FetchResponseTopicPartition) { p.ErrorCode = 6 }, 1 << 20,
			func(f *fetch) bool { return f.code == 6 }},
		{"error of the request", func(r *kmsg.FetchResponse, p *kmsg.FetchResponseTopicPartition) { r.Topics, r.ErrorCode = nil, 58 }, 1 << 20,
			func(f *fetch) bool { return f.code == 58 && !f.answered }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			whole := fetchAnswer(9, tt.change)
			f := &fetch{partition: 3, ask: 1 << 10, limit: tt.limit, id: 9}
			rest := bytes.NewReader(append(slices.Clone(whole), "next"...))
			if err := f.readAnswer(rest); err != nil {
				t.Fatalf("readAnswer: %v", err)
			}
			if !tt.check(f) {
				t.Errorf("answer %+v", f)
			}
			if rest.Len() != 4 {
				t.Errorf("%d bytes are left on the connection, want those of the next answer", rest.Len())
			}
			for i := range whole {
				f := &fetch{partition: 3, ask: 1 << 10, limit: tt.limit, id: 9}
				if err := f.readAnswer(bytes.NewReader(whole[:i])); err == nil {
					t.Fatalf("cut at %d: no error", i)
				}
			}
		})
	}
	t.Run("of another request", func(t *testing.T) {
		f := &fetch{partition: 3, limit: 1 << 20, id: 10}
		b := fetchAnswer(9, func(*kmsg.FetchResponse, *kmsg.FetchResponseTopicPartition) {})
		if err := f.readAnswer(bytes.NewReader(b)); !errors.Is(err, errAnswer) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a broker that is too old", func(t *testing.T) {
		f := &fetch{}
		f.Required(map[protocol.ApiKey]int16{protocol.Fetch: 10})
		if _, err := f.RawExchange(new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "2.3") {
			t.Errorf("got %v, want the version of Kafka that is needed", err)
		}
	})
}

func FuzzFetchAnswer(f *testing.F) {
	f.Add(fetchAnswer(9, func(r *kmsg.FetchResponse, p *kmsg.FetchResponseTopicPartition) { p.RecordBatches = []byte("records") }))
	f.Fuzz(func(t *testing.T, b []byte) {
		x := &fetch{partition: 3, ask: 1 << 10, limit: 1 << 12, id: 9}
		r := bytes.NewReader(b)
		if err := x.readAnswer(r); err != nil {
			return
		}
		if len(x.data) > x.limit {
			t.Fatalf("holds %d bytes of %d", len(x.data), x.limit)
		}
		if n := int(binary.BigEndian.Uint32(b)); r.Len() != len(b)-4-n {
			t.Fatalf("read %d bytes of an answer of %d", len(b)-r.Len(), 4+n)
		}
	})
}
