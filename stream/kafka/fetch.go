package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// fetchVersion is the version of the Fetch API spoken here, KIP-392, Kafka 2.3 and newer. It
// is the newest that kafka-go negotiates, and the last before flexible encoding.
const fetchVersion = 11

// errAnswer is wrapped by errors about answers that break the protocol.
var errAnswer = errors.New("malformed fetch answer")

// fetch asks the leader of one partition for records, and holds the answer. kafka-go's
// Transport routes it by Broker and hands it the connection (protocol.RawExchanger). After a
// round trip that failed it must not be used again: the connection may still write into it.
type fetch struct {
	clientID  string
	topic     string
	partition int32
	offset    int64         // the first offset wanted
	wait      time.Duration // how long the broker waits for the first record
	ask       int32         // bytes to answer with, at least one whole batch
	limit     int           // bytes to hold: of a larger batch only the beginning is kept

	version   int16
	code      int16 // error of the partition
	throttle  time.Duration
	answered  bool // the answer speaks of the partition; not when the broker throttles
	highWater int64
	data      []byte // record batches, the last of which may be incomplete; reused
	cut       bool   // data ends early because the answer was above limit

	id      int32 // correlation id
	request []byte
	in      answer
}

// ApiKey says that fetch is a Fetch request, and its answer too.
func (f *fetch) ApiKey() protocol.ApiKey { return protocol.Fetch }

// Broker is the leader of the partition.
func (f *fetch) Broker(cluster protocol.Cluster) (protocol.Broker, error) {
	none := protocol.Broker{ID: -1}
	t, ok := cluster.Topics[f.topic]
	if !ok || t.Error == int16(kafkago.UnknownTopicOrPartition) {
		return none, protocol.NewErrNoTopic(f.topic)
	}
	p, ok := t.Partitions[f.partition]
	if !ok {
		return none, protocol.NewErrNoPartition(f.topic, f.partition)
	}
	b, ok := cluster.Brokers[p.Leader]
	if !ok {
		return none, protocol.NewErrNoLeader(f.topic, f.partition)
	}
	return b, nil
}

// Required makes kafka-go call RawExchange.
func (f *fetch) Required(versions map[protocol.ApiKey]int16) bool {
	f.version = versions[protocol.Fetch]
	return true
}

// RawExchange writes the request and reads the answer.
func (f *fetch) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if f.version != fetchVersion {
		return nil, fmt.Errorf("the broker speaks version %d of the Fetch API, version %d is needed: use Kafka 2.3 or newer", f.version, fetchVersion)
	}
	f.id++
	f.request = f.appendRequest(f.request[:0])
	if _, err := rw.Write(f.request); err != nil {
		return nil, err
	}
	if err := f.readAnswer(rw); err != nil {
		return nil, err
	}
	return f, nil
}

// appendRequest appends the request of https://kafka.apache.org/protocol#The_Messages_Fetch.
func (f *fetch) appendRequest(b []byte) []byte {
	be := binary.BigEndian
	b = be.AppendUint32(b, 0) // size, below
	b = be.AppendUint16(b, uint16(protocol.Fetch))
	b = be.AppendUint16(b, fetchVersion)
	b = be.AppendUint32(b, uint32(f.id))
	b = appendString(b, f.clientID)
	b = be.AppendUint32(b, 0xffffffff) // replica id: a consumer
	b = be.AppendUint32(b, uint32(f.wait.Milliseconds()))
	b = be.AppendUint32(b, 1) // min bytes: answer with the first record
	b = be.AppendUint32(b, uint32(f.ask))
	b = append(b, 0)                   // isolation: read uncommitted, the last stable offset must not hold reads back
	b = be.AppendUint32(b, 0)          // no fetch session
	b = be.AppendUint32(b, 0xffffffff) // and none to be made
	b = be.AppendUint32(b, 1)          // topics
	b = appendString(b, f.topic)
	b = be.AppendUint32(b, 1) // partitions
	b = be.AppendUint32(b, uint32(f.partition))
	b = be.AppendUint32(b, 0xffffffff) // leader epoch unknown
	b = be.AppendUint64(b, uint64(f.offset))
	b = be.AppendUint64(b, 0xffffffffffffffff) // log start offset: followers only
	b = be.AppendUint32(b, uint32(f.ask))
	b = be.AppendUint32(b, 0) // forgotten topics
	b = appendString(b, "")   // rack: read from the leader
	be.PutUint32(b, uint32(len(b)-4))
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// readAnswer reads the whole answer off the connection, of which it keeps at most limit bytes
// of records.
func (f *fetch) readAnswer(r io.Reader) error {
	f.code, f.throttle, f.answered, f.cut, f.data = 0, 0, false, false, f.data[:0]
	in := &f.in
	in.r, in.left, in.err = r, 8, nil
	size, id := in.int32(), in.int32()
	if in.err == nil && (size < 4 || id != f.id) {
		return fmt.Errorf("%w: size %d, correlation id %d, not %d", errAnswer, size, id, f.id)
	}
	in.left = int(size) - 4
	f.throttle = time.Duration(max(in.int32(), 0)) * time.Millisecond
	f.code = in.int16()
	in.int32() // session id
	if topics := in.int32(); topics > 0 {
		if topics > 1 {
			return fmt.Errorf("%w: %d topics", errAnswer, topics)
		}
		in.skip(int(in.int16()))
		if n := in.int32(); n != 1 && in.err == nil {
			return fmt.Errorf("%w: %d partitions", errAnswer, n)
		}
		if p := in.int32(); p != f.partition && in.err == nil {
			return fmt.Errorf("%w: partition %d, not %d", errAnswer, p, f.partition)
		}
		if code := in.int16(); code != 0 {
			f.code = code
		}
		f.highWater = in.int64()
		in.int64() // last stable offset
		in.int64() // log start offset
		if aborted := in.int32(); aborted > 0 {
			in.skip(16 * int(aborted))
		}
		in.int32() // preferred read replica
		if n := int(in.int32()); n > 0 && in.err == nil {
			f.readRecords(n)
		}
		f.answered = in.err == nil
	}
	in.skip(in.left)
	in.r = nil
	return in.err
}

// readRecords reads n bytes of records into data.
func (f *fetch) readRecords(n int) {
	in := &f.in
	if n > in.left {
		in.err = fmt.Errorf("%w: %d bytes of records in %d", errAnswer, n, in.left)
		return
	}
	keep := min(n, f.limit)
	f.cut = keep < n
	usual := int(f.ask) + int(f.ask)/2
	switch {
	case cap(f.data) < keep:
		f.data = make([]byte, 0, max(keep, min(cap(f.data)+cap(f.data)/8, usual)))
	case cap(f.data) > 2*usual && keep <= usual:
		f.data = make([]byte, 0, usual) // let go what a rare large batch has blown up
	}
	f.data = f.data[:keep]
	if _, in.err = io.ReadFull(in.r, f.data); in.err != nil {
		return
	}
	in.left -= keep
	in.skip(n - keep)
}

// answer reads numbers off a connection. After the first error it returns zeros.
type answer struct {
	r    io.Reader
	left int // bytes of the answer not yet read
	err  error
	b    [8]byte
}

// take returns the next n bytes, at most 8.
func (a *answer) take(n int) []byte {
	if a.err == nil && n > a.left {
		a.err = fmt.Errorf("%w: it ends early", errAnswer)
	}
	if a.err == nil {
		_, a.err = io.ReadFull(a.r, a.b[:n])
		a.left -= n
	}
	if a.err != nil {
		clear(a.b[:])
	}
	return a.b[:n]
}

func (a *answer) int16() int16 { return int16(binary.BigEndian.Uint16(a.take(2))) }
func (a *answer) int32() int32 { return int32(binary.BigEndian.Uint32(a.take(4))) }
func (a *answer) int64() int64 { return int64(binary.BigEndian.Uint64(a.take(8))) }

// skip passes over n bytes.
func (a *answer) skip(n int) {
	if a.err != nil || n <= 0 {
		return
	}
	if n > a.left {
		a.err = fmt.Errorf("%w: it ends early", errAnswer)
		return
	}
	a.left -= n
	if d, ok := a.r.(interface{ Discard(int) (int, error) }); ok {
		_, a.err = d.Discard(n)
		return
	}
	_, a.err = io.CopyN(io.Discard, a.r, int64(n))
}
