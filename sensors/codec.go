package sensors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// MaxReadBytes is the largest value of the reads topic. A full read with 32
// candidates takes about 3 KiB; pictures travel on their own topic.
const MaxReadBytes = 64 << 10

// maxElements bounds candidates and char_conf while decoding, so that a value does
// not grow to many times its size in memory. Check draws the line closer.
const maxElements = 256

// Form names one of the two forms of a value of the reads topic. It is a closed
// set and may be used as a metric label.
type Form string

const (
	FormJSON     Form = "json"     // first byte '{'
	FormProtobuf Form = "protobuf" // vigie.v1.Read, anything else
)

// DecodeError says where and why a value is not a read. None of its fields holds
// any of the value: Field is one of the documented names and Reason comes from a
// closed set of sentences of this package.
type DecodeError struct {
	Form   Form   // empty when the size alone decides
	Field  string // JSON name such as "candidates[2].conf"; empty when no known field is at fault
	Offset int    // the fault lies at or after this byte of the value
	Reason string
}

func (e *DecodeError) Error() string {
	b := []byte("sensors: ")
	if e.Form == "" {
		return string(append(b, e.Reason...))
	}
	b = append(append(b, e.Form...), ": "...)
	if e.Field != "" {
		b = append(append(b, e.Field...), ": "...)
	}
	b = append(b, e.Reason...)
	b = append(b, " (byte "...)
	b = strconv.AppendInt(b, int64(e.Offset), 10)
	return string(append(b, ')'))
}

// Values that are refused for their size, before their form is looked at. Both
// are *DecodeError.
var (
	ErrEmpty    error = &DecodeError{Reason: "empty value"}
	ErrTooLarge error = &DecodeError{Reason: "larger than " + strconv.Itoa(MaxReadBytes) + " bytes"}
)

// Reasons of a DecodeError.
const (
	reasonTruncated = "ends too early"
	reasonSyntax    = "is not valid JSON"
	reasonTrailing  = "has data after the closing brace"
	reasonUTF8      = "is not valid UTF-8"
	reasonDepth     = "is nested too deeply"
	reasonDuplicate = "name is given twice"
	reasonVariant   = "name must be written as documented: lower case, words joined by _"
	reasonString    = "must be a string"
	reasonNumber    = "must be a number"
	reasonInteger   = "must be a whole number"
	reasonBool      = "must be true or false"
	reasonArray     = "must be an array"
	reasonObject    = "must be an object"
	reasonElements  = "has too many elements"
	reasonRange     = "is out of range for its type"
	reasonNotFinite = "must be a finite number"
	reasonTag       = "is not a vigie.v1.Read message"
	reasonWireType  = "has the wrong wire type"
)

// Decode reads a value of the reads topic into r, whose former content it drops
// without reusing: r may be kept and copied freely. It takes one allocation for
// all texts, one for each repeated field and one for each picture.
//
// Members and fields it does not know are skipped, since foreign producers and
// newer versions send them. In JSON a null means that the sensor did not tell.
// Refused are: a name given twice, a documented name in other letters (PLATE,
// charConf), a wrong type, a number that is not finite or does not fit, text
// that is not UTF-8, more than 16 levels, more than 256 candidates or values of
// char_conf, data after the end, an empty value and one above MaxReadBytes.
// Whether the fields make sense is for Check to say.
//
// The error is a *DecodeError; r is then the zero Read.
func Decode(value []byte, r *Read) error {
	*r = Read{}
	if len(value) > MaxReadBytes {
		return ErrTooLarge
	}
	return DecodeView(slices.Clone(value), r)
}

// DecodeView is Decode without the copies, for the loop that throws most reads
// away: texts of r point into value and the slices and pictures of r are reused
// from call to call, so that a read costs no allocation. Until value changes or
// r is decoded into again everything is as after Decode; Clone what is kept.
func DecodeView(value []byte, r *Read) error {
	d := decoder{[...]*Image{r.Image, r.Context}}
	reset := Read{Candidates: r.Candidates[:0], CharConf: r.CharConf[:0]}
	*r = reset
	var err error
	switch {
	case len(value) == 0:
		err = ErrEmpty
	case len(value) > MaxReadBytes:
		err = ErrTooLarge
	case value[0] == '{':
		if d.plainJSON(view(value), r) {
			return nil
		}
		// Rare or wrong: start again with the reader that knows all of JSON and
		// can say what is wrong.
		*r = reset
		err = d.strictJSON(value, r)
	default:
		err = d.protobuf(value, r)
	}
	if err != nil {
		*r = reset
	}
	return err
}

// decoder holds what a decoding may reuse.
type decoder struct {
	spare [2]*Image // for the image and the context of a read; nil where there is none
}

// imageOf returns r.Image, or r.Context, supplying it from the spare or the heap.
func (d *decoder) imageOf(r *Read, context bool) *Image {
	img, spare := &r.Image, &d.spare[0]
	if context {
		img, spare = &r.Context, &d.spare[1]
	}
	if *img == nil {
		if *spare == nil {
			*spare = new(Image)
		}
		**spare = Image{}
		*img = *spare
	}
	return *img
}

// view is b as a string without a copy. It is sound because everything made of
// it is documented to live no longer than b stays unchanged.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Field numbers of read.proto.
const (
	numID protowire.Number = iota + 1
	numSensor
	numPlate
	numCountry
	numTS
	numConf
	numPassage
	numCandidates
	numCharConf
	numImage
	numLane
	numDirection
	numSpeed
	numMake
	numColor
	numReceived
	numRetransmitted
	numRevision
	numLat
	numLon
	numContext
)

// protoNames gives the JSON name of each field number.
var protoNames = [...]string{
	numID: "id", numSensor: "sensor", numPlate: "plate", numCountry: "country", numTS: "ts", numConf: "conf",
	numPassage: "passage", numCandidates: "candidates", numCharConf: "char_conf", numImage: "image",
	numLane: "lane", numDirection: "direction", numSpeed: "speed", numMake: "make", numColor: "color",
	numReceived: "received", numRetransmitted: "retransmitted", numRevision: "revision",
	numLat: "lat", numLon: "lon", numContext: "context",
}

// fault is a decoding error before its offset in the whole value is known.
type fault struct {
	field  string
	reason string
}

// protobuf decodes a vigie.v1.Read. As Protobuf demands, the last of several
// values of a singular field counts and images merge. It is stricter than the
// official decoder in three points: a known field with the wrong wire type, a
// number that does not fit its type and a float that is not finite are refused
// where the official one skips, cuts or takes them.
func (d *decoder) protobuf(value []byte, r *Read) error {
	b := value
	for len(b) > 0 {
		if n := plainField(b, r); n > 0 {
			b = b[n:]
			continue
		}
		n, f := d.protoField(b, r)
		if f.reason != "" {
			return &DecodeError{Form: FormProtobuf, Field: f.field, Offset: len(value) - len(b), Reason: f.reason}
		}
		b = b[n:]
	}
	return nil
}

// plainField decodes one of the fields that nearly all reads have at the start of b, as
// they nearly always are, and returns its length; 0 for any other, right or wrong.
func plainField(b []byte, r *Read) int {
	const text, varint, fixed32 = uint8(protowire.BytesType), uint8(protowire.VarintType), uint8(protowire.Fixed32Type)
	if len(b) < 5 {
		return 0
	}
	var dst *string
	switch b[0] {
	case uint8(numID)<<3 | text:
		dst = &r.ID
	case uint8(numSensor)<<3 | text:
		dst = &r.Sensor
	case uint8(numPlate)<<3 | text:
		dst = &r.Plate
	case uint8(numCountry)<<3 | text:
		dst = &r.Country
	case uint8(numTS)<<3 | varint:
		if len(b) < 10 { // the longest here
			return 0
		}
		var v uint64
		for i := 1; i < 10; i++ {
			v |= uint64(b[i]&0x7f) << (7 * (i - 1))
			if b[i] < 0x80 {
				r.TS = int64(v)
				return i + 1
			}
		}
		return 0
	case uint8(numConf)<<3 | fixed32:
		if bits := binary.LittleEndian.Uint32(b[1:]); finiteBits(bits) {
			r.Conf = math.Float32frombits(bits)
			return 5
		}
		return 0
	default:
		return 0
	}
	n := 2 + int(b[1])
	if b[1] >= 0x80 || n > len(b) || !isASCII(view(b[2:n])) {
		return 0
	}
	*dst = view(b[2:n])
	return n
}

// protoField decodes one field at the start of b and returns its length.
func (d *decoder) protoField(b []byte, r *Read) (int, fault) {
	num, typ, tag := consumeTag(b)
	if tag < 0 {
		return 0, fault{reason: wireReason(tag)}
	}
	var name string
	if int(num) < len(protoNames) {
		name = protoNames[num]
	}
	b = b[tag:]
	switch typ {
	case protowire.BytesType:
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return 0, fault{name, wireReason(n)}
		}
		var dst *string
		switch num {
		case numID:
			dst = &r.ID
		case numSensor:
			dst = &r.Sensor
		case numPlate:
			dst = &r.Plate
		case numCountry:
			dst = &r.Country
		case numPassage:
			dst = &r.Passage
		case numDirection:
			dst = &r.Direction
		case numMake:
			dst = &r.Make
		case numColor:
			dst = &r.Color
		case numCandidates:
			c, f := protoCandidate(v)
			if f.reason != "" {
				return 0, fault{indexed(name, len(r.Candidates), f.field), f.reason}
			}
			if len(r.Candidates) == maxElements {
				return 0, fault{name, reasonElements}
			}
			r.Candidates = append(r.Candidates, c)
			return tag + n, fault{}
		case numCharConf: // packed, the form that proto3 writers use
			if len(v)%4 != 0 {
				return 0, fault{name, reasonTruncated}
			}
			if len(r.CharConf)+len(v)/4 > maxElements {
				return 0, fault{name, reasonElements}
			}
			for ; len(v) > 0; v = v[4:] {
				bits, _ := protowire.ConsumeFixed32(v)
				if !finiteBits(bits) {
					return 0, fault{indexed(name, len(r.CharConf), ""), reasonNotFinite}
				}
				r.CharConf = append(r.CharConf, math.Float32frombits(bits))
			}
			return tag + n, fault{}
		case numImage, numContext:
			f := protoImage(v, d.imageOf(r, num == numContext))
			if f.reason != "" {
				return 0, fault{dotted(name, f.field), f.reason}
			}
			return tag + n, fault{}
		default:
			return tag + n, wrongType(name)
		}
		if !utf8.Valid(v) {
			return 0, fault{name, reasonUTF8}
		}
		*dst = view(v)
		return tag + n, fault{}
	case protowire.VarintType:
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return 0, fault{name, wireReason(n)}
		}
		switch num {
		case numTS:
			r.TS = int64(v)
		case numReceived:
			r.Received = int64(v)
		case numLane, numRevision:
			if v > math.MaxUint32 {
				return 0, fault{name, reasonRange}
			}
			if num == numLane {
				r.Lane = uint32(v)
			} else {
				r.Revision = uint32(v)
			}
		case numRetransmitted:
			r.Retransmitted = v != 0
		default:
			return tag + n, wrongType(name)
		}
		return tag + n, fault{}
	case protowire.Fixed32Type:
		bits, n := protowire.ConsumeFixed32(b)
		if n < 0 {
			return 0, fault{name, wireReason(n)}
		}
		v := math.Float32frombits(bits)
		switch num {
		case numConf:
			r.Conf = v
		case numSpeed:
			r.Speed = v
		case numLat:
			r.Lat = v
		case numLon:
			r.Lon = v
		case numCharConf: // not packed
			if len(r.CharConf) == maxElements {
				return 0, fault{name, reasonElements}
			}
			r.CharConf = append(r.CharConf, v)
		default:
			return tag + n, wrongType(name)
		}
		if !finiteBits(bits) {
			return 0, fault{name, reasonNotFinite}
		}
		return tag + n, fault{}
	default:
		n := protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			return 0, fault{name, wireReason(n)}
		}
		return tag + n, wrongType(name)
	}
}

// protoCandidate decodes a vigie.v1.Candidate.
func protoCandidate(b []byte) (c Candidate, _ fault) {
	for len(b) > 0 {
		num, typ, n := consumeTag(b)
		if n < 0 {
			return c, fault{reason: wireReason(n)}
		}
		b = b[n:]
		switch {
		case num == 1 && typ == protowire.BytesType:
			var v []byte
			if v, n = protowire.ConsumeBytes(b); n >= 0 && !utf8.Valid(v) {
				return c, fault{"plate", reasonUTF8}
			}
			c.Plate = view(v)
		case num == 2 && typ == protowire.Fixed32Type:
			var bits uint32
			if bits, n = protowire.ConsumeFixed32(b); n >= 0 && !finiteBits(bits) {
				return c, fault{"conf", reasonNotFinite}
			}
			c.Conf = math.Float32frombits(bits)
		default:
			if n = protowire.ConsumeFieldValue(num, typ, b); n >= 0 && num <= 2 {
				return c, fault{[...]string{1: "plate", 2: "conf"}[num], reasonWireType}
			}
		}
		if n < 0 {
			return c, fault{reason: wireReason(n)}
		}
		b = b[n:]
	}
	return c, fault{}
}

// protoImage decodes a vigie.v1.Image over img.
func protoImage(b []byte, img *Image) fault {
	for len(b) > 0 {
		num, typ, n := consumeTag(b)
		if n < 0 {
			return fault{reason: wireReason(n)}
		}
		b = b[n:]
		if num <= 2 && typ == protowire.VarintType {
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			switch {
			case n < 0:
			case num == 2:
				img.Offset = int64(v)
			case int64(v) != int64(int32(v)):
				return fault{"partition", reasonRange}
			default:
				img.Partition = int32(v)
			}
		} else if n = protowire.ConsumeFieldValue(num, typ, b); n >= 0 && num <= 2 {
			return fault{[...]string{1: "partition", 2: "offset"}[num], reasonWireType}
		}
		if n < 0 {
			return fault{reason: wireReason(n)}
		}
		b = b[n:]
	}
	return fault{}
}

// consumeTag is protowire.ConsumeTag with the upper bound on field numbers that
// the official decoder draws.
func consumeTag(b []byte) (protowire.Number, protowire.Type, int) {
	num, typ, n := protowire.ConsumeTag(b)
	if num > protowire.MaxValidNumber {
		return 0, 0, codeReserved
	}
	return num, typ, n
}

// codeReserved is a code of protowire that wireReason takes for "not a message".
const codeReserved = -4

// wrongType is the fault of a whole field whose wire type its number does not
// have, and none when the number is unknown (name is empty).
func wrongType(name string) fault {
	if name == "" {
		return fault{}
	}
	return fault{name, reasonWireType}
}

// wireReason puts an error code of protowire into words of the closed set.
func wireReason(code int) string {
	if errors.Is(protowire.ParseError(code), io.ErrUnexpectedEOF) {
		return reasonTruncated
	}
	return reasonTag
}

// finiteBits reports whether bits are a float32 that is neither NaN nor infinite.
func finiteBits(bits uint32) bool { return bits&0x7f800000 != 0x7f800000 }

// dotted is name or name.field.
func dotted(name, field string) string {
	if field == "" {
		return name
	}
	return name + "." + field
}

// indexed is name[i] or name[i].field.
func indexed(name string, i int, field string) string {
	return dotted(name+"["+strconv.Itoa(i)+"]", field)
}

// AppendProto appends r as a vigie.v1.Read, the form that the gateway writes to
// the reads topic. Decode of what it appended gives r again.
//
// It fails, returning dst as it was, when Decode would refuse the result: on
// text that is not UTF-8, a float that is not finite, more than 256 candidates or
// values of char_conf, a message above MaxReadBytes or a Read without any content.
func AppendProto(dst []byte, r *Read) ([]byte, error) {
	if f := encodable(r); f.reason != "" {
		return dst, fmt.Errorf("sensors: encode read: %s %s", f.field, f.reason)
	}
	start := len(dst)
	dst = appendString(dst, numID, r.ID)
	dst = appendString(dst, numSensor, r.Sensor)
	dst = appendString(dst, numPlate, r.Plate)
	dst = appendString(dst, numCountry, r.Country)
	dst = appendVarint(dst, numTS, uint64(r.TS))
	dst = appendFloat(dst, numConf, r.Conf)
	dst = appendString(dst, numPassage, r.Passage)
	for i := range r.Candidates {
		c := &r.Candidates[i]
		size := 0
		if c.Plate != "" {
			size += protowire.SizeTag(1) + protowire.SizeBytes(len(c.Plate))
		}
		if math.Float32bits(c.Conf) != 0 {
			size += protowire.SizeTag(2) + protowire.SizeFixed32()
		}
		dst = protowire.AppendTag(dst, numCandidates, protowire.BytesType)
		dst = protowire.AppendVarint(dst, uint64(size))
		dst = appendString(dst, 1, c.Plate)
		dst = appendFloat(dst, 2, c.Conf)
	}
	if len(r.CharConf) > 0 {
		dst = protowire.AppendTag(dst, numCharConf, protowire.BytesType)
		dst = protowire.AppendVarint(dst, uint64(4*len(r.CharConf)))
		for _, c := range r.CharConf {
			dst = protowire.AppendFixed32(dst, math.Float32bits(c))
		}
	}
	dst = appendImage(dst, numImage, r.Image)
	dst = appendVarint(dst, numLane, uint64(r.Lane))
	dst = appendString(dst, numDirection, r.Direction)
	dst = appendFloat(dst, numSpeed, r.Speed)
	dst = appendString(dst, numMake, r.Make)
	dst = appendString(dst, numColor, r.Color)
	dst = appendVarint(dst, numReceived, uint64(r.Received))
	dst = appendVarint(dst, numRetransmitted, protowire.EncodeBool(r.Retransmitted))
	dst = appendVarint(dst, numRevision, uint64(r.Revision))
	dst = appendFloat(dst, numLat, r.Lat)
	dst = appendFloat(dst, numLon, r.Lon)
	dst = appendImage(dst, numContext, r.Context)
	switch n := len(dst) - start; {
	case n == 0:
		return dst, ErrEmpty
	case n > MaxReadBytes:
		return dst[:start], ErrTooLarge
	}
	return dst, nil
}

// encodable names the first field that AppendProto must refuse.
func encodable(r *Read) fault {
	switch {
	case len(r.Candidates) > maxElements:
		return fault{"candidates", reasonElements}
	case len(r.CharConf) > maxElements:
		return fault{"char_conf", reasonElements}
	}
	for _, s := range [...]struct{ name, text string }{
		{"id", r.ID}, {"sensor", r.Sensor}, {"plate", r.Plate}, {"country", r.Country}, {"passage", r.Passage},
		{"direction", r.Direction}, {"make", r.Make}, {"color", r.Color},
	} {
		if !utf8.ValidString(s.text) {
			return fault{s.name, reasonUTF8}
		}
	}
	for i := range r.Candidates {
		if !utf8.ValidString(r.Candidates[i].Plate) {
			return fault{"candidates", reasonUTF8}
		}
		if !finiteBits(math.Float32bits(r.Candidates[i].Conf)) {
			return fault{"candidates", reasonNotFinite}
		}
	}
	for _, c := range r.CharConf {
		if !finiteBits(math.Float32bits(c)) {
			return fault{"char_conf", reasonNotFinite}
		}
	}
	for _, f := range [...]struct {
		name  string
		value float32
	}{{"conf", r.Conf}, {"speed", r.Speed}, {"lat", r.Lat}, {"lon", r.Lon}} {
		if !finiteBits(math.Float32bits(f.value)) {
			return fault{f.name, reasonNotFinite}
		}
	}
	return fault{}
}

func appendImage(dst []byte, num protowire.Number, img *Image) []byte {
	if img == nil {
		return dst
	}
	size := 0
	if img.Partition != 0 {
		size += protowire.SizeTag(1) + protowire.SizeVarint(uint64(img.Partition))
	}
	if img.Offset != 0 {
		size += protowire.SizeTag(2) + protowire.SizeVarint(uint64(img.Offset))
	}
	dst = protowire.AppendTag(dst, num, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(size))
	dst = appendVarint(dst, 1, uint64(img.Partition))
	return appendVarint(dst, 2, uint64(img.Offset))
}

func appendString(dst []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), s)
}

func appendVarint(dst []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
}

// appendFloat leaves out +0 only: -0 is a value of its own, as the official
// encoder has it.
func appendFloat(dst []byte, num protowire.Number, v float32) []byte {
	if math.Float32bits(v) == 0 {
		return dst
	}
	return protowire.AppendFixed32(protowire.AppendTag(dst, num, protowire.Fixed32Type), math.Float32bits(v))
}
