package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"time"

	"vigie/sensors"
)

// The format of a segment file; DESIGN.md has the reasons. Numbers are little-endian.
//
//	header  magic "VIGSPOOL", version uint32, first uint64, CRC32C of these uint32
//	record  magic uint32, CRC32C of what follows uint32, length uint32, number uint64, payload
//
// The payload is one read as sensors.AppendProto writes it. Reads are numbered from 1 on
// without gaps, over all segments; a file is named after the number of its first.
const (
	headerMagic  = "VIGSPOOL"
	version      = 1
	headerBytes  = 24
	recordHeader = 20
	// maxRecord is the longest record.
	maxRecord = recordHeader + sensors.MaxReadBytes
	// maxNumber is above every number of a read and below what could overflow.
	maxNumber = 1 << 62

	segmentSuffix = ".seg"
	positionName  = "position"
	tempSuffix    = ".new"
)

// recordMagic begins every record. None of these bytes occurs in valid UTF-8 nor as the
// high byte of a share, so what a sensor writes into a read cannot look like a record.
var recordMagic = [4]byte{0xF8, 0xFE, 0xFF, 0xF9}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segmentName is the file of the segment that begins with a read of this number.
func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

// parseSegmentName is the reverse; false for names that are not of a segment.
func parseSegmentName(name string) (first uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && first > 0 && first < maxNumber && name == segmentName(first)
}

// appendHeader appends the header of a segment.
func appendHeader(dst []byte, first uint64) []byte {
	start := len(dst)
	dst = append(dst, headerMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, version)
	dst = binary.LittleEndian.AppendUint64(dst, first)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// parseHeader returns the version in a header, 0 when it is damaged.
func parseHeader(b []byte) uint32 {
	if len(b) < headerBytes || string(b[:8]) != headerMagic ||
		crc32.Checksum(b[:headerBytes-4], castagnoli) != binary.LittleEndian.Uint32(b[headerBytes-4:]) {
		return 0
	}
	return binary.LittleEndian.Uint32(b[8:])
}

// appendRecord appends a record whose number, and with it the CRC, is still to be set.
func appendRecord(dst []byte, r *sensors.Read) ([]byte, error) {
	start := len(dst)
	dst = append(dst, recordMagic[:]...)
	dst = append(dst, make([]byte, recordHeader-len(recordMagic))...)
	dst, err := sensors.AppendProto(dst, r)
	if err != nil {
		return dst[:start], err
	}
	binary.LittleEndian.PutUint32(dst[start+8:], uint32(len(dst)-start-recordHeader))
	return dst, nil
}

// setNumbers numbers the records in b from first on and returns the number after the last.
func setNumbers(b []byte, first uint64) uint64 {
	for len(b) > 0 {
		size := recordHeader + int(binary.LittleEndian.Uint32(b[8:]))
		binary.LittleEndian.PutUint64(b[12:], first)
		binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:size], castagnoli))
		b = b[size:]
		first++
	}
	return first
}

// segment is a segment file. Its fields are guarded by Spool.mu.
type segment struct {
	first   uint64    // number of its first read
	next    uint64    // number after its last durable read
	size    int64     // durable bytes
	written time.Time // when it was last written to
	// begun and ahead are moment.uptime and ahead of when it was begun, 0 for one of before
	// Open. A step of the clock begins another.
	begun, ahead time.Duration
}

func (g *segment) name() string { return segmentName(g.first) }

const (
	// window is how much of a segment is in memory at a time.
	window = 4 << 20
	// readTries is how often a piece of a file may fail to be read, until it counts as
	// damaged. Publisher tries again for more than a second before.
	readTries = 5
	// page is the unit in which the unreadable is left out.
	page = 4096
)

// walker yields the records of a segment in order. Bytes that are no record of it are
// passed over up to the next one that is.
type walker struct {
	f      file
	size   int64  // bytes of the file that count
	expect uint64 // lowest number that fits
	limit  uint64 // number above all that fit
	noCRC  bool   // believes every CRC; tests show what that leads to

	buf    []byte // window of the file, at base
	base   int64
	off    int
	good   int64 // end of the last good record in the file
	failed int   // reads of the present window that failed
	unread bool  // something could not be read and counts as damaged
}

// open begins a segment of the given size whose numbers are first to below limit. The error
// is errVersion when it is of another version, or that of reading.
func (w *walker) open(f file, size int64, first, limit uint64) error {
	*w = walker{f: f, size: size, expect: first, limit: limit, noCRC: w.noCRC, buf: w.buf[:0], failed: w.failed}
	if err := w.load(); err != nil {
		return err
	}
	switch v := parseHeader(w.buf); v {
	case version:
		w.off, w.good = headerBytes, headerBytes
	case 0: // damaged: its records speak for themselves
	default:
		return fmt.Errorf("%w (%d)", errVersion, v)
	}
	return nil
}

// load fills the window from the present place on.
func (w *walker) load() error {
	at := w.base + int64(w.off)
	n := int(min(w.size-at, window))
	if cap(w.buf) < n {
		w.buf = make([]byte, n)
	}
	w.buf, w.base, w.off = w.buf[:n], at, 0
	got, err := w.f.ReadAt(w.buf, at)
	if got == n || errors.Is(err, io.EOF) { // or the file was cut by somebody
		w.buf, w.failed = w.buf[:got], 0
		if got < n {
			w.size = at + int64(got)
		}
		return nil
	}
	if w.failed++; w.failed < readTries {
		w.buf = w.buf[:0]
		return fmt.Errorf("read at byte %d: %w", at, err)
	}
	w.failed = 0
	for i := 0; i < n; i += page {
		part := w.buf[i:min(i+page, n)]
		if _, err := w.f.ReadAt(part, at+int64(i)); err != nil {
			clear(part)
			w.unread = true
		}
	}
	return nil
}

// stale reports whether the next record may not lie in the window as a whole, so that the
// window has to be moved, and what was returned before becomes invalid.
func (w *walker) stale() bool {
	return len(w.buf)-w.off < maxRecord && w.base+int64(len(w.buf)) < w.size
}

// next returns the next record; ok is false at the end. The payload is valid until the
// window is moved; see stale.
func (w *walker) next() (number uint64, payload []byte, ok bool, err error) {
	for {
		if w.stale() {
			if err := w.load(); err != nil {
				return 0, nil, false, err
			}
		}
		b := w.buf[w.off:]
		if number, payload, ok := w.parse(b); ok {
			w.off += recordHeader + len(payload)
			w.good = w.base + int64(w.off)
			w.expect = number + 1
			return number, payload, true, nil
		}
		if len(b) == 0 {
			return 0, nil, false, nil
		}
		skip := bytes.Index(b[1:], recordMagic[:])
		switch {
		case skip >= 0:
			w.off += 1 + skip
		case w.base+int64(len(w.buf)) < w.size: // the magic may lie across the end
			w.off = max(len(w.buf)-len(recordMagic)+1, w.off+1)
		default:
			w.off = len(w.buf)
		}
	}
}

// parse returns the record at the start of b; false when there is none that fits.
func (w *walker) parse(b []byte) (number uint64, payload []byte, ok bool) {
	if len(b) <= recordHeader || [4]byte(b) != recordMagic {
		return 0, nil, false
	}
	size := binary.LittleEndian.Uint32(b[8:])
	if size == 0 || size > sensors.MaxReadBytes || int(size) > len(b)-recordHeader {
		return 0, nil, false
	}
	number = binary.LittleEndian.Uint64(b[12:])
	payload = b[recordHeader : recordHeader+int(size)]
	if number < w.expect || number >= w.limit {
		return 0, nil, false
	}
	if crc32.Checksum(b[8:recordHeader+int(size)], castagnoli) != binary.LittleEndian.Uint32(b[4:]) && !w.noCRC {
		return 0, nil, false
	}
	return number, payload, true
}

// place is where a walker is.
type place struct {
	at     int64
	expect uint64
}

func (w *walker) place() place { return place{w.base + int64(w.off), w.expect} }

// back goes back to a place.
func (w *walker) back(p place) {
	w.expect = p.expect
	if p.at >= w.base {
		w.off = int(p.at - w.base)
		return
	}
	w.buf, w.base, w.off = w.buf[:0], p.at, 0
}

// formatPosition is the content of the position file.
func formatPosition(number uint64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, number)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// parsePosition is the reverse; 0 for what is damaged.
func parsePosition(b []byte) uint64 {
	if len(b) != 12 || crc32.Checksum(b[:8], castagnoli) != binary.LittleEndian.Uint32(b[8:]) {
		return 0
	}
	if n := binary.LittleEndian.Uint64(b); n < maxNumber {
		return n
	}
	return 0
}
