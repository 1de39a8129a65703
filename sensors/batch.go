package sensors

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"mime"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// defaultReads is the most reads of a request unless told otherwise.
const defaultReads = 10_000

// Limits bound what ParseBatch reads. The zero value of a field takes the
// default. The memory that a request takes stays below about four times BodyBytes.
type Limits struct {
	Reads     int   // reads in a request, rejected ones included; 10,000
	ReadBytes int   // bytes of one read; MaxReadBytes, which is also the most
	BodyBytes int64 // bytes of the body once decompressed; 32 MiB
}

func (l Limits) withDefaults() Limits {
	if l.Reads <= 0 {
		l.Reads = defaultReads
	}
	if l.ReadBytes <= 0 || l.ReadBytes > MaxReadBytes {
		l.ReadBytes = MaxReadBytes
	}
	if l.BodyBytes <= 0 {
		l.BodyBytes = 32 << 20
	}
	return l
}

// Errors of ParseBatch beside *BodyError, ErrTooManyReads and those of the body.
var (
	ErrContentType  = errors.New("sensors: content type is not one of application/json, application/x-ndjson, application/x-protobuf")
	ErrBodyTooLarge = errors.New("sensors: body is too large")
)

// BodyError says where a body stops being readable. It holds nothing of the body.
type BodyError struct {
	Offset int64  // byte of the body at or after which the fault lies
	Reason string // what is wrong and what would be right
}

func (e *BodyError) Error() string {
	return "sensors: byte " + strconv.FormatInt(e.Offset, 10) + " of the body: " + e.Reason
}

// ParseBatch reads the reads of a request, in the order of the body:
//
//   - application/json, also when contentType is empty: an array of reads, or one
//     read;
//   - application/x-ndjson (or application/ndjson, application/jsonl): one read a
//     line, of which blank ones do not count;
//   - application/x-protobuf (or application/protobuf): vigie.v1.Read messages,
//     each behind its length as a varint.
//
// A read that Decode refuses, or that is larger than the limit, becomes a
// Rejection with its position, and the others go on. The index of a read that was
// taken is its place among those; Result.Merge puts the two together.
//
// When the body as a whole is at fault nothing is returned but the error: a
// *BodyError when it is cut off or its syntax does not tell where reads end;
// ErrContentType; ErrTooManyReads; ErrBodyTooLarge; or, wrapped, an error of body.
func ParseBatch(contentType string, body io.Reader, limits Limits) ([]Read, []Rejection, error) {
	form, err := parseContentType(contentType)
	if err != nil {
		return nil, nil, err
	}
	b := batch{limits: limits.withDefaults()}
	in := &boundedReader{r: body, left: b.limits.BodyBytes}
	switch form {
	case bodyJSON:
		err = b.json(in)
	case bodyNDJSON:
		err = b.ndjson(bufio.NewReader(in))
	default:
		err = b.protobuf(bufio.NewReader(in))
	}
	if in.err != nil && in.err != io.EOF { // the cause of whatever the parser thinks
		err = in.err
		if err != ErrBodyTooLarge {
			err = fmt.Errorf("sensors: read body: %w", err)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return b.reads, b.rejected, nil
}

type bodyForm uint8

const (
	bodyJSON bodyForm = iota
	bodyNDJSON
	bodyProtobuf
)

func parseContentType(s string) (bodyForm, error) {
	if s == "" {
		return bodyJSON, nil
	}
	media, params, err := mime.ParseMediaType(s)
	if err != nil {
		return 0, ErrContentType
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return 0, ErrContentType
	}
	switch media {
	case "application/json":
		return bodyJSON, nil
	case "application/x-ndjson", "application/ndjson", "application/jsonl":
		return bodyNDJSON, nil
	case "application/x-protobuf", "application/protobuf":
		return bodyProtobuf, nil
	}
	return 0, ErrContentType
}

// boundedReader fails with ErrBodyTooLarge past its limit, where io.LimitReader
// would make a cut-off body look whole. It keeps the error of the body, which the
// parsers wrap or replace.
type boundedReader struct {
	r    io.Reader
	left int64
	err  error
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	// One byte more than is left tells a body at the limit from one above it.
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		n, err = n-1, ErrBodyTooLarge
	}
	b.err = err
	return n, err
}

// batch gathers the reads of a body.
type batch struct {
	limits   Limits
	reads    []Read
	rejected []Rejection
}

// room reports ErrTooManyReads when the limit is reached.
func (b *batch) room() error {
	if len(b.reads)+len(b.rejected) >= b.limits.Reads {
		return ErrTooManyReads
	}
	return nil
}

func (b *batch) reject(field, reason string) {
	b.rejected = append(b.rejected, Rejection{Index: len(b.reads) + len(b.rejected), Field: field, Reason: reason})
}

func (b *batch) rejectLarge() {
	b.reject("", "is larger than "+strconv.Itoa(b.limits.ReadBytes)+" bytes")
}

// add decodes one read of the given form.
func (b *batch) add(value []byte, form Form) {
	var r Read
	switch {
	case len(value) > b.limits.ReadBytes:
		b.rejectLarge()
		return
	case form == FormJSON && (len(value) == 0 || value[0] != '{'):
		b.reject("", reasonObject)
		return
	case form == FormProtobuf && len(value) > 0 && value[0] == '{':
		b.reject("", reasonTag)
		return
	}
	if err := Decode(value, &r); err != nil {
		fault, _ := errors.AsType[*DecodeError](err)
		reason := fault.Reason
		if fault.Form != "" {
			reason += " (byte " + strconv.Itoa(fault.Offset) + " of the read)"
		}
		b.reject(fault.Field, reason)
		return
	}
	b.reads = append(b.reads, r)
}

// json reads an array or one object. Repeated names and bad UTF-8 are let through
// here for Decode to refuse read by read; the syntax must hold, or the end of a
// read cannot be known.
func (b *batch) json(in io.Reader) error {
	dec := jsontext.NewDecoder(in, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	fail := func(err error, reason string) error {
		f := &BodyError{Offset: dec.InputOffset(), Reason: reason}
		if s, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
			f.Offset = s.ByteOffset
		}
		if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
			f.Reason = "the JSON ends too early; send the whole array"
		}
		return f
	}
	const notJSON = "is not valid JSON; send an array of reads, or one read a line as application/x-ndjson"
	switch dec.PeekKind() {
	case '{':
		value, err := dec.ReadValue()
		if err != nil {
			return fail(err, notJSON)
		}
		b.add(value, FormJSON)
	case '[':
		if _, err := dec.ReadToken(); err != nil {
			return fail(err, notJSON)
		}
		for dec.PeekKind() != ']' {
			value, err := dec.ReadValue()
			if err != nil {
				return fail(err, notJSON)
			}
			if err := b.room(); err != nil {
				return err
			}
			b.add(value, FormJSON)
		}
		if _, err := dec.ReadToken(); err != nil {
			return fail(err, notJSON)
		}
	default:
		_, err := dec.ReadToken()
		return fail(err, notJSON)
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		return fail(nil, "has data after the end; send one array, or one read a line as application/x-ndjson")
	}
	return nil
}

func (b *batch) ndjson(in *bufio.Reader) error {
	var line []byte
	for {
		line = line[:0]
		size := 0
		var err error
		for { // one line, of which no more is kept than a read may have
			var part []byte
			part, err = in.ReadSlice('\n')
			size += len(part)
			if len(line) <= b.limits.ReadBytes {
				line = append(line, part...)
			}
			if err != bufio.ErrBufferFull {
				break
			}
		}
		if err != nil && err != io.EOF {
			return err
		}
		value := bytes.Trim(line, " \t\r\n")
		if len(value) > 0 || size > len(line) {
			if err := b.room(); err != nil {
				return err
			}
			if size > len(line) {
				b.rejectLarge()
			} else {
				b.add(value, FormJSON)
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

func (b *batch) protobuf(in *bufio.Reader) error {
	var value []byte
	var offset int64
	for {
		size, n, err := readLength(in)
		if err == io.EOF && n == 0 {
			return nil
		}
		offset += int64(n)
		if err != nil {
			return &BodyError{Offset: offset, Reason: "is not the length of a message; send each read behind its length as a varint"}
		}
		if err := b.room(); err != nil {
			return err
		}
		if size > uint64(b.limits.BodyBytes) {
			return ErrBodyTooLarge
		}
		cut := func(got int) error {
			return &BodyError{Offset: offset + int64(got), Reason: "the message ends too early; send the whole body"}
		}
		if size > uint64(b.limits.ReadBytes) {
			if got, err := in.Discard(int(size)); err != nil {
				return cut(got)
			}
			b.rejectLarge()
		} else {
			value = append(value[:0], make([]byte, size)...)
			if got, err := io.ReadFull(in, value); err != nil {
				return cut(got)
			}
			b.add(value, FormProtobuf)
		}
		offset += int64(size)
	}
}

// readLength reads a varint and says how many bytes it took. An error of
// binary.ReadUvarint would not tell a clean end from a cut-off one.
func readLength(in *bufio.Reader) (v uint64, n int, err error) {
	for n < binary.MaxVarintLen64 {
		c, err := in.ReadByte()
		if err != nil {
			return 0, n, err
		}
		if n == binary.MaxVarintLen64-1 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << (7 * n)
		n++
		if c < 0x80 {
			return v, n, nil
		}
	}
	return 0, n, errors.New("more than 64 bits")
}
