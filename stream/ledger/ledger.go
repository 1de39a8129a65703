// Package ledger keeps account of what was meant: which reads were sent, which
// entries were on a list and when, and what became of both. From that it knows
// which alerts must exist, which may, and which must not, and Check holds a
// history of the service to it. A missed hit is invisible in any log of the
// service; only somebody who knows what was sent can miss it.
//
// It is pure: it opens no file, speaks to no Kafka and no Redis, and reads no
// clock. `vigie load` does that for it. It shares no code with the matcher, which
// it judges.
//
// # The file
//
// A ledger is a text of JSON lines, one Record each, written in the order in which
// things happened and never changed. A line holds an object with exactly one
// member, which says what it is:
//
//	{"header":{…}}    first line: the plan, its seed, the list
//	{"change":{…}}    an entry is about to be added or withdrawn
//	{"changed":{…}}   what became of that
//	{"read":{…}}      a read is about to be sent
//	{"outcome":{…}}   what became of a run of reads
//	{"offset":{…}}    a committed offset, as seen
//	{"end":{…}}       last line of a run that came to its end
//
// What is about to be done is written before it is done, and its outcome after, so
// that a process killed in between leaves the truth behind: without an outcome it
// is unknown. A last line that was cut off is passed over and counted.
//
// Reads and changes carry plates in clear, since a ledger without them could not
// be checked. They are invented, but may be anybody's: keep the file to yourself
// (0600) and remove it with the test. No error and no Violation of this package
// holds a plate; they name things by their ids.
package ledger

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// Version is the version of the file that this package writes, and the newest that
// it reads.
const Version = 1

// Result is what became of a read or a change, as far as its sender knows.
type Result string

// The results. The zero Result stands for Unknown.
const (
	OK      Result = "ok"      // acknowledged: it must have its effect
	Fail    Result = "fail"    // refused: it must have none
	Unknown Result = "unknown" // it may have an effect, now or later
)

// Op is what a change does to an entry.
type Op string

// The changes.
const (
	Add      Op = "add"
	Withdraw Op = "withdraw"
)

// Record is one line of a ledger. Exactly one field is set. Times ending in "µs"
// below are microseconds since the Unix epoch by the clock of the one process that
// writes the ledger, and never run backwards.
type Record struct {
	Header  *Header  `json:"header,omitempty"`
	Change  *Change  `json:"change,omitempty"`
	Changed *Changed `json:"changed,omitempty"`
	Read    *Read    `json:"read,omitempty"`
	Outcome *Outcome `json:"outcome,omitempty"`
	Offset  *Offset  `json:"offset,omitempty"`
	End     *End     `json:"end,omitempty"`
}

// Header says what a ledger is of. Run begins the id of every read.
type Header struct {
	Version   int    `json:"version"`
	Start     int64  `json:"start"` // µs: when the ledger was begun, before any change or read
	List      string `json:"list"`
	Queue     string `json:"queue"`     // that receives the alerts of the list
	Tolerance string `json:"tolerance"` // of the list; see Check
	Via       string `json:"via"`       // gateway or kafka
	Plan
}

// Read is a read about to be sent.
type Read struct {
	N       int64  `json:"n"` // its place in the plan, from 0
	ID      string `json:"id"`
	Sensor  string `json:"sensor"`
	Plate   string `json:"plate"` // as sent
	Country string `json:"country,omitempty"`
	TS      int64  `json:"ts"`   // milliseconds since the Unix epoch, as sent: when it was due
	Sent    int64  `json:"sent"` // µs: when it was handed to the network
}

// String names the read without its plate.
func (r Read) String() string { return "read " + r.ID }

// GoString is String.
func (r Read) GoString() string { return r.String() }

// Outcome is what became of Count reads from the one with N equal to First on.
type Outcome struct {
	First  int64  `json:"first"`
	Count  int64  `json:"count"`
	Result Result `json:"result"`
	At     int64  `json:"at"` // µs: when it was known
}

// Change is an entry about to be added or withdrawn. Changes of one plate follow
// each other: one begins when the outcome of the one before is known.
type Change struct {
	N       int64  `json:"n"` // counts changes, from 0
	Op      Op     `json:"op"`
	List    string `json:"list"`
	Entry   string `json:"entry,omitempty"` // id; empty for an Add, which learns it
	Plate   string `json:"plate"`
	Country string `json:"country,omitempty"`
	Issued  int64  `json:"issued"` // µs: when it was handed to the network
}

// String names the change without its plate.
func (c Change) String() string { return fmt.Sprintf("change %d (%s)", c.N, c.Op) }

// GoString is String.
func (c Change) GoString() string { return c.String() }

// Changed is what became of the change with the same N.
type Changed struct {
	N         int64  `json:"n"`
	Entry     string `json:"entry,omitempty"`   // id, as far as known
	Version   int64  `json:"version,omitempty"` // control-log offset of the change, when it was confirmed
	Result    Result `json:"result"`
	Confirmed int64  `json:"confirmed"` // µs: when that was known
}

// Offset is a committed offset of a partition of the reads topic.
type Offset struct {
	Partition int   `json:"partition"`
	Committed int64 `json:"committed"` // the offset to be read next
	At        int64 `json:"at"`        // µs
}

// End closes a ledger whose run came to its end.
type End struct {
	At int64 `json:"at"` // µs
}

// Writer writes a ledger. Its methods may be called from several goroutines; every
// line is written whole. What it was given is with w after Flush, Close or about 64
// KiB. The first error of w ends the ledger: every later call returns it.
type Writer struct {
	mu  sync.Mutex
	w   *bufio.Writer
	buf bytes.Buffer
	enc *json.Encoder
	err error
}

// NewWriter begins a ledger. It sets the Version of h.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	lw := &Writer{w: bufio.NewWriterSize(w, 64<<10)}
	lw.enc = json.NewEncoder(&lw.buf)
	lw.enc.SetEscapeHTML(false)
	h.Version = Version
	if err := lw.Append(Record{Header: &h}); err != nil {
		return nil, err
	}
	return lw, lw.Flush()
}

// Append adds records, one line each and in this order.
func (w *Writer) Append(records ...Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range records {
		if w.err != nil {
			break
		}
		w.buf.Reset()
		if err := w.enc.Encode(&records[i]); err != nil {
			w.err = errors.New("ledger: a record cannot be written as JSON")
		} else if _, err := w.w.Write(w.buf.Bytes()); err != nil {
			w.err = fmt.Errorf("ledger: %w", err)
		}
	}
	return w.err
}

// Flush hands everything appended so far to the underlying writer.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if err := w.w.Flush(); err != nil {
		w.err = fmt.Errorf("ledger: %w", err)
	}
	return w.err
}

// Errors of a Reader, beside those of what it reads.
var (
	// ErrNoHeader says that a text does not begin with the header of a ledger.
	ErrNoHeader = errors.New("ledger: does not begin with the header of a ledger")
	// ErrNewer says that a newer version of the program wrote the ledger.
	ErrNewer = fmt.Errorf("ledger: was written by a newer version of this program; this one reads version %d", Version)
)

// maxLine bounds a line: records are a few hundred bytes.
const maxLine = 64 << 10

// Reader reads a ledger line by line.
type Reader struct {
	r      *bufio.Reader
	header Header
	line   int
	torn   int
}

// NewReader returns a Reader that has read the header.
func NewReader(r io.Reader) (*Reader, error) {
	lr := &Reader{r: bufio.NewReaderSize(r, maxLine)}
	rec, err := lr.Next()
	switch {
	case err == io.EOF || err == nil && rec.Header == nil || errors.Is(err, errLine):
		return nil, ErrNoHeader
	case err != nil:
		return nil, err
	case rec.Header.Version > Version:
		return nil, ErrNewer
	case rec.Header.Version < 1:
		return nil, ErrNoHeader
	}
	lr.header = *rec.Header
	return lr, nil
}

// Header is the first line.
func (r *Reader) Header() Header { return r.header }

// Torn is the number of bytes of a last line without its end, of which nothing
// counts: 0 until Next returned io.EOF, and for a ledger that is whole.
func (r *Reader) Torn() int { return r.torn }

// errLine is wrapped by errors about a line.
var errLine = errors.New("is not a record of a ledger")

// Next returns the next record, and io.EOF after the last whole line.
func (r *Reader) Next() (Record, error) {
	line, err := r.r.ReadSlice('\n')
	switch {
	case err == io.EOF:
		r.torn = len(line)
		return Record{}, io.EOF
	case err == bufio.ErrBufferFull:
		return Record{}, fmt.Errorf("ledger: line %d is too long: %w", r.line+1, errLine)
	case err != nil:
		return Record{}, fmt.Errorf("ledger: %w", err)
	}
	r.line++
	var rec Record
	// What encoding/json says of a bad line repeats some of it.
	if json.Unmarshal(line, &rec) != nil || !rec.one() {
		return Record{}, fmt.Errorf("ledger: line %d: %w", r.line, errLine)
	}
	return rec, nil
}

// one reports whether exactly one field is set.
func (r *Record) one() bool {
	n := 0
	for _, set := range []bool{r.Header != nil, r.Change != nil, r.Changed != nil, r.Read != nil, r.Outcome != nil, r.Offset != nil, r.End != nil} {
		if set {
			n++
		}
	}
	return n == 1
}

// orUnknown reads a result, of which anything strange is Unknown.
func (r Result) orUnknown() Result {
	if r == OK || r == Fail {
		return r
	}
	return Unknown
}

// valid reports whether text may stand in a read as id or sensor; see package sensors.
func valid(text string) bool {
	return text != "" && len(text) <= 64 && !strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c >= 0x7f })
}
