// Package format reads the messages of roadside cameras and their servers: each vendor
// format in one file, as one small mapper to sensors.Message.
//
// Mappers are strict where a car could be mistaken (which member is the plate, which
// number the time) and lenient everywhere else: members and elements they do not know are passed
// over.
//
// No error of this package holds anything of a message.
package format

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"vigie/sensors"
)

// vendors are the formats in the order in which Detect asks whose a message is.
var vendors = []vendor{
	{"onvif", isONVIF, decodeONVIF},
	{"openalpr", isOpenALPR, decodeOpenALPR},
	{"platerecognizer", isPlateRecognizer, decodePlateRecognizer},
	{"hikvision", isHikvision, decodeHikvision},
	{"axis", isAxis, decodeAxis},
	{"dahua", isDahua, decodeDahua},
	{"genetec", isGenetec, decodeGenetec},
	{"frigate", isFrigate, decodeFrigate},
}

type vendor struct {
	name string
	is   func(*node) bool
	// decode adds what one document says. It is called only when is reports true.
	decode func(*decoder, *node)
}

func byName(name string) *vendor {
	for i := range vendors {
		if vendors[i].name == name {
			return &vendors[i]
		}
	}
	return nil
}

// Names returns the names of the formats, in a fixed order.
func Names() []string {
	names := make([]string, len(vendors))
	for i := range vendors {
		names[i] = vendors[i].name
	}
	return names
}

// ErrFormat says that a format is not known here or that a message is of none.
var ErrFormat = errors.New("format: must be one of " + strings.Join(Names(), ", ") + ", or auto for a message of one of them")

// Error says what is wrong with a message as a whole. It holds nothing of it.
type Error struct {
	Format string // empty when it is not known yet
	Index  int    // of the document in the message, from 0
	Field  string // or header; empty when it is none in particular
	Reason string // what is wrong and what would be right
}

func (e *Error) Error() string {
	s := "format: "
	if e.Format != "" {
		s += e.Format + ": "
	}
	s += "document " + strconv.Itoa(e.Index) + ": "
	if e.Field != "" {
		s += e.Field + ": "
	}
	return s + e.Reason
}

// Input is one message as it came.
type Input struct {
	ContentType string // MIME type as the sensor told it; may be empty
	Topic       string // of MQTT, else empty
	Body        []byte // not changed; what Decode returns may point into it
	Profile     sensors.Profile
	Received    time.Time // stands in for a time of capture that cannot be used
}

// Detect finds out the format of a message that tells one of Names. ok is false when it
// tells none, or cannot be read.
func Detect(contentType string, body []byte) (name string, ok bool) {
	d := &decoder{in: Input{ContentType: contentType, Body: body}, only: true}
	if err := d.run(); err != nil || d.vendor == nil {
		return "", false
	}
	return d.vendor.name, true
}

// Decode reads a message of a format. With an empty name or "auto" the format is that of
// the profile, else the one that the topic or the message tells.
//
// A message may hold several reads, in one document or several: JSON documents one after the
// other or as an array, XML documents one after the other, or parts of a multipart body.
// Those that are bad become rejections, with their position among all. The error is ErrFormat
// or an *Error, and then nothing was taken. Memory stays within a small factor of the body.
func Decode(name string, in Input) (sensors.Message, error) {
	if name == "" || name == "auto" {
		name = in.Profile.Format
	}
	d := &decoder{in: in}
	switch name {
	case "", "auto":
		d.vendor = byName(topicFormat(in.Topic))
	default:
		if d.vendor = byName(name); d.vendor == nil {
			return sensors.Message{}, ErrFormat
		}
	}
	d.given = d.vendor != nil
	if err := d.run(); err != nil {
		return sensors.Message{}, err
	}
	d.msg.Format = d.vendor.name
	if len(d.msg.Sightings) == 0 && len(d.msg.Rejected) == 0 {
		d.msg.Heartbeat = d.msg.Heartbeat || !d.dead
	}
	return d.msg, nil
}

// topicFormat returns the format of the messages of an MQTT topic, "" when it does not tell.
func topicFormat(topic string) string {
	if strings.Contains(topic, "onvif-ej/") || strings.Contains(topic, "onvif-mj/") {
		return "onvif"
	}
	last := topic[strings.LastIndexByte(topic, '/')+1:]
	if last == "tracked_object_update" || topic == "frigate/events" || topic == "frigate/available" || topic == "frigate/stats" {
		return "frigate"
	}
	return ""
}

// Limits of one message.
const (
	maxDepth     = 64     // of JSON values and XML elements
	maxNodes     = 50_000 // values of a JSON document, elements and attributes of an XML document
	maxAttrs     = 64     // of an XML element
	maxParts     = 16     // of a form; a stream may have maxStream
	maxStream    = 1024
	maxDocuments = 10_000
	maxBroken    = 100 // JSON documents behind a good one
)

// decoder reads one message.
type decoder struct {
	in     Input
	vendor *vendor // nil until known
	given  bool    // the vendor was told, not found out
	only   bool    // stop when the vendor is known
	parts  bool    // of several, of which some may be something else

	msg   sensors.Message
	dead  bool   // the message says that the sensor does not see
	doc   int    // documents so far
	read  int    // reads so far, bad ones included
	fault *fault // of the read under way
}

// fault is what is wrong with one read.
type fault struct{ field, reason string }

// bad notes the first fault of the read under way.
func (d *decoder) bad(field, reason string) {
	if d.fault == nil {
		d.fault = &fault{field, reason}
	}
}

// fail returns an *Error about the document under way.
func (d *decoder) fail(reason string) *Error {
	e := &Error{Index: d.doc, Reason: reason}
	if d.vendor != nil {
		e.Format = d.vendor.name
	}
	return e
}

// add ends the read under way: fill completes it, and when nothing was wrong it is taken.
func (d *decoder) add(fill func(s *sensors.Sighting)) {
	s := sensors.Sighting{}
	fill(&s)
	if d.fault != nil {
		d.msg.Rejected = append(d.msg.Rejected, sensors.Rejection{Index: d.read, Field: d.fault.field, Reason: d.fault.reason})
		d.fault = nil
	} else {
		if s.Read.TS == 0 {
			d.noTime(&s)
		}
		if s.Read.Country == "" {
			s.Read.Country = d.in.Profile.Country
		}
		if d.msg.Sensor == "" {
			d.msg.Sensor = s.Read.Sensor
		}
		d.msg.Sightings = append(d.msg.Sightings, s)
	}
	d.read++
}

// document takes one document of the message.
func (d *decoder) document(root *node) error {
	v := d.vendor
	if v == nil {
		for i := range vendors {
			if vendors[i].is(root) {
				v = &vendors[i]
				break
			}
		}
		if v == nil && d.parts {
			return nil
		}
		if v == nil {
			return ErrFormat
		}
		d.vendor = v
	} else if !v.is(root) {
		if d.parts {
			return nil
		}
		if d.given && d.doc == 0 {
			return d.fail("is not a message of this format: send it to the format that it is of, or to auto")
		}
		d.bad("", "is not a message of this format")
	}
	if d.doc++; d.doc > maxDocuments {
		return d.fail("more than " + strconv.Itoa(maxDocuments) + " documents in one message: send less at once")
	}
	switch {
	case d.only:
	case d.fault != nil:
		d.reject()
	default:
		v.decode(d, root)
		d.reject()
	}
	return nil
}

// reject turns a fault that no read took into a rejection.
func (d *decoder) reject() {
	if d.fault != nil {
		d.add(func(*sensors.Sighting) {})
	}
}
