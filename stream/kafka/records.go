package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/protocol"
)

// The layout of a record batch, magic 2: https://kafka.apache.org/documentation/#recordbatch
const (
	batchLength    = 8 // counts the bytes after itself
	batchMagic     = 16
	batchCRC       = 17 // of the bytes after itself
	batchAttrs     = 21
	batchLastDelta = 23
	batchTime      = 27
	batchMaxTime   = 35
	batchCount     = 57
	batchHeader    = 61
)

const logAppendTime = 1 << 3 // attribute: the broker's time counts, not the producer's

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errUnpacksTooLarge = errors.New("the batch unpacks to more than is allowed")
	errCorrupt         = errors.New("the batch is damaged")
)

// A badBatch is a batch whose records cannot be had.
type badBatch struct {
	err    error
	offset int64 // the first offset that is lost with it
	count  int   // records in it, as it says itself
	raw    []byte
	passed bool // records goes on behind it; if not, its extent is not to be trusted either
}

func (b *badBatch) Error() string {
	return fmt.Sprintf("batch at offset %d: %v", b.offset, b.err)
}

func (b *badBatch) Unwrap() error { return b.err }

// record is one record. Its slices are valid as long as the data that it was read from.
type record struct {
	offset  int64
	time    int64  // milliseconds since the Unix epoch
	key     []byte // nil for null
	value   []byte // nil for null
	headers []byte // as encoded, beginning with their number
}

// records walks the record batches of fetch answers: unpacked, checked, without transaction
// markers and without what lies below the offset wanted.
//
// Invariants: every offset below next has been returned or is no record (any more). left > 0
// means that body holds that many records of the batch that ends at last.
type records struct {
	limit int // a batch may unpack to so many bytes
	soft  int // no further batch is unpacked into an arena that holds so many
	keep  bool

	next   int64  // the offset wanted next
	data   []byte // batches not yet begun
	cut    bool   // data ends early; see fetch
	body   []byte // records not yet read
	left   int
	base   int64 // offset of the batch being read
	last   int64 // the last offset of the batch being read
	time   int64 // base timestamp, or the time of all when fixed
	fixed  bool  // the time is the broker's
	arena  []byte
	inside bool // body lies in arena
	held   bool // arena held unread records when recycle was called

	markers int64 // control batches passed
	jumped  int64 // offsets that no batch held: the broker has lost them, or compaction removed them
	zstd    *zstd.Decoder
}

// feed hands over the data of an answer to a fetch at offset next. What next read before must
// be used up.
func (r *records) feed(data []byte, cut bool) { r.data, r.cut = data, cut }

// seek forgets all data and wants offset next.
func (r *records) seek(next int64) {
	r.next, r.data, r.body, r.left, r.cut = next, nil, nil, 0, false
}

// pending reports whether there is data that next has not used up.
func (r *records) pending() bool { return r.left > 0 || len(r.data) > 0 }

// recycle declares that no slice of earlier records is used any more, but what pends.
func (r *records) recycle() {
	r.held = r.left > 0 && r.inside
	if r.held {
		return
	}
	if r.keep || cap(r.arena) > 4*r.soft {
		r.arena = nil // kept by the caller, or blown up by a rare large batch
	}
	r.arena = r.arena[:0]
}

// read gets the next record. It reports false when the data is used up, or when the arena must
// be recycled first: then more is pending. The error is always a *badBatch.
func (r *records) read(rec *record) (bool, error) {
	for {
		for r.left > 0 {
			ok := r.parse(rec)
			r.left--
			if !ok || rec.offset < r.base || rec.offset > r.last {
				bad := &badBatch{err: fmt.Errorf("%w: a record does not parse", errCorrupt), offset: max(r.base, r.next), count: r.left + 1, passed: true}
				r.left, r.next = 0, r.last+1
				return false, bad
			}
			if r.left == 0 {
				r.body = nil
			}
			if rec.offset < r.next {
				continue // the batch began below the offset asked for
			}
			if r.next = rec.offset + 1; r.left == 0 {
				r.next = r.last + 1 // compaction may have removed the end of the batch
			}
			return true, nil
		}
		if more, err := r.open(); !more || err != nil {
			return false, err
		}
	}
}

// open begins the next batch that has wanted records.
func (r *records) open() (bool, error) {
	for len(r.data) > 0 {
		b := r.data
		if len(b) < batchHeader {
			r.data = nil // the broker cuts the last batch of an answer short
			return false, nil
		}
		be := binary.BigEndian
		base, length := int64(be.Uint64(b)), int64(int32(be.Uint32(b[batchLength:])))
		size := length + batchLength + 4
		lastDelta, count := int64(int32(be.Uint32(b[batchLastDelta:]))), int(int32(be.Uint32(b[batchCount:])))
		last := base + lastDelta
		if magic := b[batchMagic]; magic != 2 {
			r.data = nil
			return false, &badBatch{err: fmt.Errorf("%w: message format %d, only format 2 (Kafka 0.11 and newer) is read", errCorrupt, magic), offset: r.next, raw: b}
		}
		if size < batchHeader || base < 0 || lastDelta < 0 || last < base || count < 0 {
			r.data = nil
			return false, &badBatch{err: fmt.Errorf("%w: its header is impossible", errCorrupt), offset: r.next, raw: b}
		}
		if size > int64(len(b)) {
			r.data = nil
			if !r.cut || size <= int64(r.limit) || last < r.next {
				return false, nil
			}
			bad := &badBatch{err: fmt.Errorf("%w: %d bytes as sent", errUnpacksTooLarge, size), offset: max(base, r.next), count: count, raw: b, passed: true}
			r.next = last + 1
			return false, bad
		}
		all := r.data
		b, r.data = b[:size], all[size:]
		if last < r.next {
			continue
		}
		if crc32.Checksum(b[batchAttrs:], castagnoli) != be.Uint32(b[batchCRC:]) {
			r.data = nil
			return false, &badBatch{err: fmt.Errorf("%w: its checksum differs", errCorrupt), offset: r.next, raw: b}
		}
		if base > r.next {
			r.jumped += base - r.next
			r.next = base
		}
		attrs := protocol.Attributes(be.Uint16(b[batchAttrs:]))
		if attrs.Control() || count == 0 {
			// A transaction marker, or a batch that compaction has emptied.
			if attrs.Control() {
				r.markers++
			}
			r.next = last + 1
			continue
		}
		body := b[batchHeader:]
		r.inside = false
		if c := attrs.Compression(); c != compress.None {
			if r.held || len(r.arena) >= r.soft && r.soft > 0 && !r.keep {
				r.data = all // the arena must be recycled first
				return false, nil
			}
			var err error
			if body, err = r.unpack(c, body); err != nil {
				bad := &badBatch{err: err, offset: max(base, r.next), count: count, raw: b, passed: true}
				r.next = last + 1
				return false, bad
			}
			r.inside = true
		}
		r.body, r.left, r.base, r.last = body, count, base, last
		r.fixed = attrs&logAppendTime != 0
		if r.time = int64(be.Uint64(b[batchTime:])); r.fixed {
			r.time = int64(be.Uint64(b[batchMaxTime:]))
		}
		return true, nil
	}
	return false, nil
}

// parse reads the record at the beginning of body:
// https://kafka.apache.org/documentation/#record
func (r *records) parse(rec *record) bool {
	length, n := varint(r.body)
	if n <= 0 || length < 0 || length > int64(len(r.body)-n) {
		return false
	}
	b := r.body[n : n+int(length)]
	r.body = r.body[n+int(length):]
	if len(b) == 0 {
		return false
	}
	b = b[1:] // attributes: unused
	delta, n := varint(b)
	if n <= 0 {
		return false
	}
	rec.time = r.time
	if !r.fixed {
		rec.time += delta
	}
	b = b[n:]
	if delta, n = varint(b); n <= 0 {
		return false
	}
	rec.offset = r.base + delta
	b = b[n:]
	var ok bool
	if rec.key, b, ok = varbytes(b); !ok {
		return false
	}
	if rec.value, b, ok = varbytes(b); !ok {
		return false
	}
	rec.headers = b
	return true
}

// varint reads a zigzag varint and the number of its bytes, 0 or less when there is none.
func varint(b []byte) (int64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return int64(b[0]>>1) ^ -int64(b[0]&1), 1
	}
	if len(b) > 1 && b[1] < 0x80 {
		u := uint64(b[0]&0x7f) | uint64(b[1])<<7
		return int64(u>>1) ^ -int64(u&1), 2
	}
	return binary.Varint(b)
}

// varbytes reads bytes with their length before them, nil for length -1.
func varbytes(b []byte) (v, rest []byte, ok bool) {
	length, n := varint(b)
	if n <= 0 || length < -1 || length > int64(len(b)-n) {
		return nil, nil, false
	}
	b = b[n:]
	if length < 0 {
		return nil, b, true
	}
	return b[:length:length], b[length:], true
}

// parseHeaders decodes the headers of a record, at most max of them.
func parseHeaders(b []byte, max int) []protocol.Header {
	count, n := varint(b)
	if n <= 0 {
		return nil
	}
	b = b[n:]
	var hs []protocol.Header
	for ; count > 0 && len(hs) < max; count-- {
		var k, v []byte
		var ok bool
		if k, b, ok = varbytes(b); !ok {
			return hs
		}
		if v, b, ok = varbytes(b); !ok {
			return hs
		}
		hs = append(hs, protocol.Header{Key: string(k), Value: v})
	}
	return hs
}

// unpack decompresses the records of a batch into the arena, limit bytes at most.
func (r *records) unpack(c compress.Compression, src []byte) ([]byte, error) {
	from := len(r.arena)
	var err error
	switch c {
	case compress.Zstd:
		// kafka-go's reader would allocate whatever window the frame asks for.
		if r.zstd == nil {
			r.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxMemory(uint64(r.limit)), zstd.WithDecoderMaxWindow(uint64(max(r.limit, 1<<20))))
			if err != nil {
				return nil, err
			}
		}
		var out []byte
		out, err = r.zstd.DecodeAll(src, r.arena[from:from:cap(r.arena)])
		switch {
		case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
			err = errUnpacksTooLarge
		case err == nil && len(out) > r.limit:
			err = errUnpacksTooLarge
		case err == nil && len(out) > 0 && cap(r.arena) > from && &out[0] == &r.arena[:from+1][from]:
			r.arena = r.arena[:from+len(out)] // it was decoded in place
		case err == nil:
			r.arena, from = out, 0 // earlier records stay in the old arena
		}
	case compress.Snappy:
		r.arena, err = unsnappy(r.arena, src, r.limit)
	default:
		codec := c.Codec()
		if codec == nil {
			return nil, fmt.Errorf("%w: unknown compression %d", errCorrupt, c)
		}
		rd := codec.NewReader(&sliceReader{src})
		r.arena, err = readLimited(r.arena, rd, r.limit)
		rd.Close()
	}
	if err != nil {
		r.arena = r.arena[:min(from, len(r.arena))]
		if !errors.Is(err, errUnpacksTooLarge) {
			err = fmt.Errorf("%w: %v: %w", errCorrupt, c, err)
		}
		return nil, err
	}
	return r.arena[from:len(r.arena):len(r.arena)], nil
}

// readLimited appends what rd yields, at most limit bytes.
func readLimited(dst []byte, rd io.Reader, limit int) ([]byte, error) {
	for from := len(dst); ; {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		n, err := rd.Read(dst[len(dst):min(cap(dst), from+limit+1)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst)-from > limit:
			return dst, errUnpacksTooLarge
		case err == io.EOF:
			return dst, nil
		case err != nil:
			return dst, err
		}
	}
}

// xerial begins snappy data as Java frames it: magic, version, compatible version.
const xerial = "\x82SNAPPY\x00"

// unsnappy appends the unpacked data, framed as by Java or one block as by others. A block
// says how long it unpacks; that is checked before memory is taken for it.
func unsnappy(dst, src []byte, limit int) ([]byte, error) {
	if len(src) < 16 || string(src[:8]) != xerial {
		return unsnappyBlock(dst, src, limit)
	}
	src = src[16:]
	from := len(dst)
	for len(src) > 0 {
		if len(src) < 4 {
			return dst, io.ErrUnexpectedEOF
		}
		n := int64(binary.BigEndian.Uint32(src))
		if src = src[4:]; n > int64(len(src)) {
			return dst, io.ErrUnexpectedEOF
		}
		var err error
		if dst, err = unsnappyBlock(dst, src[:n], limit-(len(dst)-from)); err != nil {
			return dst, err
		}
		src = src[n:]
	}
	return dst, nil
}

func unsnappyBlock(dst, block []byte, limit int) ([]byte, error) {
	n, err := snappy.DecodedLen(block)
	if err != nil {
		return dst, err
	}
	if n > limit {
		return dst, errUnpacksTooLarge
	}
	from := len(dst)
	if cap(dst)-from < n {
		dst = append(make([]byte, 0, max(2*cap(dst), from+n)), dst...)
	}
	if _, err := snappy.Decode(dst[from:from+n], block); err != nil {
		return dst, err
	}
	return dst[:from+n], nil
}

// sliceReader reads a slice; unlike bytes.Reader it does not tempt a codec to rewind it.
type sliceReader struct{ b []byte }

func (s *sliceReader) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.b)
	s.b = s.b[n:]
	return n, nil
}

// ReadByte spares the decompressor a buffer of its own.
func (s *sliceReader) ReadByte() (byte, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	c := s.b[0]
	s.b = s.b[1:]
	return c, nil
}
