package kafka

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"vigie/stream"
)

// benchRecords in one partition, of 90 bytes as a read takes.
const benchRecords = 500_000

func fillReads(b testing.TB, c *Cluster, opts ...kgo.Opt) {
	b.Helper()
	cl := client(b, c, append([]kgo.Opt{kgo.ProducerLinger(5 * time.Millisecond), kgo.DefaultProduceTopic(c.topic(topicReads)),
		kgo.MaxBufferedRecords(50_000)}, opts...)...)
	defer cl.Close()
	for i := range benchRecords {
		v := fmt.Appendf(nil, "%090d", i)
		cl.Produce(b.Context(), &kgo.Record{Key: []byte("A7-118-2"), Value: v}, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	if err := cl.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// cpu is the processor time of this process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFetch is the whole cost of getting a read out of Kafka, on one partition with a
// backlog: request, network, checksum, decoding. A batch holds 8192 records.
func BenchmarkFetch(b *testing.B) {
	for _, codec := range []struct {
		name string
		opt  kgo.CompressionCodec
	}{{"none", kgo.NoCompression()}, {"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()}} {
		b.Run("kafka/compression="+codec.name, func(b *testing.B) { benchFetch(b, real(b), kgo.ProducerBatchCompression(codec.opt)) })
	}
}

func benchFetch(b *testing.B, be backend, opts ...kgo.Opt) {
	c := open(b, be, Config{})
	topics(b, c, TopicsConfig{ReadsPartitions: 1})
	fillReads(b, c, opts...)
	s := c.Source(SourceConfig{})
	p := s.newPartition(&groupRun{s: s}, nil, kafkago.PartitionAssignment{Offset: 0})
	p.seek(0)
	var batch stream.Batch
	records, spent := 0, cpu()
	for b.Loop() {
		if err := p.Fetch(b.Context(), &batch); err != nil {
			b.Fatal(err)
		}
		records += len(batch.Records)
		if batch.Next >= benchRecords {
			p.seek(0)
		}
	}
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64((cpu()-spent).Nanoseconds())/float64(records), "cpu-ns/record")
	b.ReportMetric(0, "ns/op")
	b.ReportAllocs()
}

// BenchmarkConn is the same work with kafka-go's own batch reader, for comparison. It neither
// checks the CRC nor skips transaction markers.
func BenchmarkConn(b *testing.B) {
	c := open(b, real(b), Config{})
	topics(b, c, TopicsConfig{ReadsPartitions: 1})
	fillReads(b, c, kgo.ProducerBatchCompression(kgo.NoCompression()))
	conn, err := c.dialer.DialLeader(b.Context(), "tcp", c.brokers[0], c.topic(topicReads), 0)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 4096)
	records, spent := 0, cpu()
	for b.Loop() {
		if _, err := conn.Seek(0, kafkago.SeekAbsolute|kafkago.SeekDontCheck); err != nil {
			b.Fatal(err)
		}
		for n := 0; n < benchRecords; {
			batch := conn.ReadBatchWith(kafkago.ReadBatchConfig{MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 250 * time.Millisecond})
			for {
				if _, err := batch.Read(buf); err != nil {
					if !errors.Is(err, io.EOF) {
						b.Fatal(err)
					}
					break
				}
				n++
			}
			if err := batch.Close(); err != nil {
				b.Fatal(err)
			}
		}
		records += benchRecords
	}
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64((cpu()-spent).Nanoseconds())/float64(records), "cpu-ns/record")
	b.ReportMetric(0, "ns/op")
}
