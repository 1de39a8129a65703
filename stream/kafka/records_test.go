package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/protocol"
)

// A testBatch is encoded by kafka-go and then put at its place in the log.
type testBatch struct {
	base    int64
	codec   compress.Compression
	control bool
	holes   []int // records removed by compaction, by index
	values  []string
}

// encode returns the batch as a broker would send it.
func (tb testBatch) encode(t testing.TB) []byte {
	t.Helper()
	var rs []protocol.Record
	for i, v := range tb.values {
		if slices.Contains(tb.holes, i) {
			continue
		}
		rs = append(rs, protocol.Record{
			Key: protocol.NewBytes(fmt.Appendf(nil, "k%d", i)), Value: protocol.NewBytes([]byte(v)),
			Headers: []protocol.Header{{Key: "h", Value: []byte(v)}},
		})
	}
	set := protocol.RecordSet{Version: 2, Attributes: protocol.Attributes(tb.codec)}
	if tb.control {
		set.Attributes |= protocol.Control
	}
	// kafka-go numbers records from 0; with holes they are put in one by one.
	set.Records = protocol.NewRecordReader(rs...)
	var buf bytes.Buffer
	if _, err := set.WriteTo(&buf); err != nil && !errors.Is(err, protocol.ErrNoRecord) {
		t.Fatalf("encode: %v", err)
	}
	b := buf.Bytes()
	if len(b) == 0 { // compaction has left nothing but the header
		b = make([]byte, 4+batchHeader)
		b[4+batchMagic] = 2
		binary.BigEndian.PutUint32(b[4+batchLength:], batchHeader-batchLength-4)
	}
	b = b[4:]
	binary.BigEndian.PutUint64(b, uint64(tb.base))
	if len(tb.holes) > 0 {
		if tb.codec != compress.None {
			t.Fatal("holes are only made in plain batches")
		}
		renumber(b, tb.holes)
		binary.BigEndian.PutUint32(b[batchLastDelta:], uint32(len(tb.values)-1))
	}
	seal(b)
	return b
}

// renumber moves the records of b to make room for the holes. Offsets stay below 64, where
// their delta is one byte.
func renumber(b []byte, holes []int) {
	body, n := b[batchHeader:], 0
	for len(body) > 0 {
		for slices.Contains(holes, n) {
			n++
		}
		length, w := binary.Varint(body)
		rec := body[w : w+int(length)]
		_, tw := binary.Varint(rec[1:]) // attributes, then time
		rec[1+tw] = byte(n << 1)
		body, n = body[w+int(length):], n+1
	}
}

// seal sets the checksum.
func seal(b []byte) {
	binary.BigEndian.PutUint32(b[batchCRC:], crc32.Checksum(b[batchAttrs:], castagnoli))
}

type got struct {
	offset int64
	key    string
	value  string
}

// drain reads all there is, recycling as partitions do: a few records at a time.
func drain(r *records, step int) (all []got, bad []*badBatch) {
	for r.pending() {
		r.recycle()
		type view struct {
			record
			then string
		}
		var batch []view
		for range step {
			var rec record
			ok, err := r.read(&rec)
			if err != nil {
				var b *badBatch
				errors.As(err, &b)
				bad = append(bad, b)
				if !b.passed {
					r.seek(r.next)
				}
				break
			}
			if !ok {
				break
			}
			batch = append(batch, view{rec, string(rec.value)})
		}
		for _, v := range batch {
			if v.then != string(v.value) {
				panic("a value has changed before the arena was recycled")
			}
			all = append(all, got{v.offset, string(v.key), string(v.value)})
		}
	}
	return all, bad
}

func numbered(prefix string, n int) (vs []string) {
	for i := range n {
		vs = append(vs, fmt.Sprintf("%s-%d", prefix, i))
	}
	return vs
}

func TestRecords(t *testing.T) {
	wide := func(n int) string { return strings.Repeat("x", n) }
	codecs := []compress.Compression{compress.None, compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd}
	for _, codec := range codecs {
		t.Run(codec.String(), func(t *testing.T) {
			var log []byte
			var want []got
			base := int64(100)
			for i := range 5 {
				vs := append(numbered(fmt.Sprint("b", i), 3+i), wide(1000*i))
				log = append(log, testBatch{base: base, codec: codec, values: vs}.encode(t)...)
				for j, v := range vs {
					want = append(want, got{base + int64(j), fmt.Sprint("k", j), v})
				}
				base += int64(len(vs))
				log = append(log, testBatch{base: base, control: true, values: []string{"marker"}}.encode(t)...)
				base++
			}
			for _, from := range []int64{0, 100, 101, 104, 105, base - 2, base - 1, base} {
				for step := 1; step < 12; step += 5 {
					r := &records{limit: 1 << 20, soft: 2000, next: from}
					r.feed(log, false)
					all, bad := drain(r, step)
					if len(bad) > 0 {
						t.Fatalf("from %d: %v", from, bad[0])
					}
					if r.next != max(base, from) {
						t.Errorf("from %d: next is %d, want %d", from, r.next, base)
					}
					var w []got
					for _, g := range want {
						if g.offset >= from {
							w = append(w, g)
						}
					}
					if !slices.Equal(all, w) {
						t.Errorf("from %d by %d: got %d records, want %d", from, step, len(all), len(w))
					}
				}
			}
		})
	}
}

func TestRecordsCompacted(t *testing.T) {
	log := testBatch{base: 10, holes: []int{0, 3, 5}, values: numbered("a", 6)}.encode(t)
	log = append(log, testBatch{base: 20, holes: []int{0, 1, 2}, values: numbered("b", 3)}.encode(t)...)
	log = append(log, testBatch{base: 30, values: numbered("c", 1)}.encode(t)...)
	r := &records{limit: 1 << 20, soft: 1 << 20, next: 3}
	r.feed(log[:len(log)-1], false)
	all, bad := drain(r, 100)
	want := []got{{11, "k1", "a-1"}, {12, "k2", "a-2"}, {14, "k4", "a-4"}}
	if len(bad) > 0 || !slices.Equal(all, want) || r.next != 23 {
		t.Errorf("got %v, %v, next %d, want %v, next 23", all, bad, r.next, want)
	}
}

// A damaged answer must never become a wrong value: each byte is cut off and each bit flipped.
func TestRecordsDamaged(t *testing.T) {
	a := testBatch{base: 5, values: numbered("a", 3)}.encode(t)
	b := testBatch{base: 8, codec: compress.Gzip, values: numbered("b", 3)}.encode(t)
	log := slices.Concat(a, b)
	valid := make(map[string]bool)
	for _, v := range slices.Concat(numbered("a", 3), numbered("b", 3)) {
		valid[v] = true
	}
	for i := range log {
		r := &records{limit: 1 << 16, soft: 1 << 16, next: 5}
		r.feed(log[:i], false)
		all, bad := drain(r, 100)
		if want := map[bool]int{true: 3, false: 0}[i >= len(a)]; len(all) != want || len(bad) > 0 {
			t.Errorf("cut at %d: %d records and %d bad batches, want %d and 0", i, len(all), len(bad), want)
		}
		for bit := range 8 {
			log := slices.Clone(log)
			log[i] ^= 1 << bit
			r := &records{limit: 1 << 16, soft: 1 << 16, next: 5}
			r.feed(log, false)
			all, _ := drain(r, 100)
			for _, g := range all {
				if !valid[g.value] {
					t.Fatalf("bit %d of byte %d: a value that was never written", bit, i)
				}
			}
		}
	}
}

// A decompression bomb costs no more memory than the limit, and does not stop what is behind it.
func TestRecordsBomb(t *testing.T) {
	const limit = 1 << 20
	huge := strings.Repeat("\x00", 48<<20)
	for _, codec := range []compress.Compression{compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		t.Run(codec.String(), func(t *testing.T) {
			log := testBatch{base: 7, codec: codec, values: []string{huge}}.encode(t)
			size := len(log)
			log = append(log, testBatch{base: 8, codec: codec, values: []string{"behind"}}.encode(t)...)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := &records{limit: limit, soft: limit, next: 7}
			r.feed(log, false)
			all, bad := drain(r, 100)
			runtime.ReadMemStats(&after)
			if len(bad) != 1 || !errors.Is(bad[0], errUnpacksTooLarge) || bad[0].offset != 7 || !bad[0].passed {
				t.Fatalf("%d bytes: got %v", size, bad)
			}
			if len(all) != 1 || all[0].value != "behind" {
				t.Errorf("behind it: %v", all)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 24*limit { // lz4 takes 16 and, with the race detector, a little more
				t.Errorf("%d bytes that unpack to 48 MiB took %d MiB", size, took>>20)
			}
		})
	}
	t.Run("a snappy block that lies", func(t *testing.T) {
		if _, err := unsnappy(nil, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}, limit); !errors.Is(err, errUnpacksTooLarge) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("larger than the limit as sent", func(t *testing.T) {
		log := testBatch{base: 7, values: []string{huge[:2*limit], "b"}}.encode(t)
		r := &records{limit: limit, soft: limit, next: 7}
		r.feed(log[:limit], true)
		_, bad := drain(r, 100)
		if len(bad) != 1 || !errors.Is(bad[0], errUnpacksTooLarge) || r.next != 9 || bad[0].count != 2 {
			t.Errorf("got %v, next %d, want next 9", bad, r.next)
		}
	})
}

func TestParseHeaders(t *testing.T) {
	b := []byte{4, 2, 'a', 4, 'x', 'y', 2, 'b', 1}
	hs := parseHeaders(b, 10)
	if len(hs) != 2 || hs[0].Key != "a" || string(hs[0].Value) != "xy" || hs[1].Key != "b" || hs[1].Value != nil {
		t.Errorf("got %v", hs)
	}
	if hs := parseHeaders(b, 1); len(hs) != 1 {
		t.Errorf("limit 1: got %d", len(hs))
	}
	for i := range b {
		parseHeaders(b[:i], 10)
	}
	if hs := parseHeaders([]byte{0xfe, 0xff, 0xff, 0xff, 0x0f}, 1<<20); len(hs) != 0 {
		t.Errorf("a false count: got %d", len(hs))
	}
}

// Whatever the bytes: it ends, offsets go up, and memory stays near the limit.
func FuzzRecords(f *testing.F) {
	for _, codec := range []compress.Compression{compress.None, compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		f.Add(testBatch{base: 3, codec: codec, values: numbered("v", 3)}.encode(f), int64(4), false)
	}
	f.Add(testBatch{base: 3, control: true, values: numbered("v", 1)}.encode(f), int64(0), true)
	f.Add(testBatch{base: 3, holes: []int{1}, values: numbered("v", 3)}.encode(f), int64(0), true)
	f.Fuzz(func(t *testing.T, data []byte, from int64, resealed bool) {
		if len(data) >= batchHeader && resealed {
			data = slices.Clone(data)
			seal(data) // else the fuzzer would hardly get past the checksum
			binary.BigEndian.PutUint32(data[batchLength:], uint32(len(data)-batchLength-4))
		}
		r := &records{limit: 1 << 16, soft: 1 << 14, next: max(from, 0)}
		r.feed(data, false)
		last := r.next - 1
		all, bad := drain(r, 7)
		for _, g := range all {
			if g.offset <= last {
				t.Fatalf("offset %d after %d", g.offset, last)
			}
			last = g.offset
		}
		if r.next <= last {
			t.Fatalf("next %d after a record at %d", r.next, last)
		}
		for _, b := range bad {
			if errors.Is(b, errCorrupt) == errors.Is(b, errUnpacksTooLarge) {
				t.Fatalf("neither damaged nor too large, or both: %v", b)
			}
		}
	})
}

// BenchmarkRecords is decoding alone, of what lies in memory.
func BenchmarkRecords(b *testing.B) {
	for _, codec := range []compress.Compression{compress.None, compress.Lz4, compress.Zstd} {
		b.Run("compression="+codec.String(), func(b *testing.B) {
			rnd := rand.New(rand.NewPCG(1, 2))
			var vs []string
			for range 4096 {
				vs = append(vs, fmt.Sprintf("%045x%045d", rnd.Uint64(), rnd.Uint64()))
			}
			log := testBatch{codec: codec, values: vs}.encode(b)
			r := &records{limit: 16 << 20, soft: 1 << 20}
			for b.Loop() {
				r.seek(0)
				r.recycle()
				r.feed(log, false)
				var rec record
				n := 0
				for {
					ok, err := r.read(&rec)
					if err != nil {
						b.Fatal(err)
					}
					if !ok {
						break
					}
					n++
				}
				if n != len(vs) {
					b.Fatalf("%d records", n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(vs)), "ns/record")
			b.ReportMetric(0, "ns/op")
			b.ReportAllocs()
		})
	}
}

var _ io.ByteReader = (*sliceReader)(nil)
