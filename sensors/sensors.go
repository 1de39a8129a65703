// Package sensors says what a sensor saw (a read) and takes reads in: it checks
// them, gives them an id when the sensor gave none, and hands them to Kafka. A
// read is accepted only when Kafka has it.
//
// It knows nothing of watchlists and never tells a sensor whether a plate is wanted.
//
// A value of the reads topic has one of two forms, told apart by its first byte
// and decoded by Decode: JSON (`{`), for producers written in an afternoon, and
// Protobuf, which the gateway writes. Both are decoded by strict readers of this
// package, because two parsers that disagree about a repeated or oddly written
// name disagree about which car was seen.
package sensors

import (
	"slices"
	"strconv"
	"strings"
)

// Read is what a sensor saw. The zero value of an optional field means that the
// sensor did not tell.
//
// Plate and Candidates hold personal data. Printing a Read with fmt shows the
// sensor and the time only; its JSON form shows everything.
type Read struct {
	// ID is made at the edge and is the idempotency key everywhere after. When
	// empty, StableID supplies one from sensor, time and plate.
	ID string `json:"id,omitzero"`
	// Sensor is the id of the device, the Kafka key: reads of one sensor stay
	// in order.
	Sensor string `json:"sensor"`
	// Plate is the text as the sensor gave it, not normalised. It may hold any
	// character, so escape it before showing it; see Key for comparing it.
	Plate string `json:"plate"`
	// Country is as the sensor gave it in any form that plate.ParseCountry
	// takes, alpha-2 once a gateway has accepted the read.
	Country string `json:"country,omitzero"`
	// TS is the time of capture by the sensor's clock, milliseconds since the
	// Unix epoch.
	TS int64 `json:"ts"`
	// Conf is the confidence in the whole plate, 0 to 1.
	Conf float32 `json:"conf,omitzero"`
	// Passage groups the reads of one vehicle passing one sensor.
	Passage    string      `json:"passage,omitzero"`
	Candidates []Candidate `json:"candidates,omitempty"`
	// CharConf has one confidence per character of Plate, 0 to 1.
	CharConf  []float32 `json:"char_conf,omitempty"`
	Image     *Image    `json:"image,omitzero"`
	Lane      uint32    `json:"lane,omitzero"` // from 1
	Direction string    `json:"direction,omitzero"`
	Speed     float32   `json:"speed,omitzero"` // km/h
	Make      string    `json:"make,omitzero"`
	Color     string    `json:"color,omitzero"`
	// Received is the arrival at the gateway by its own clock, milliseconds
	// since the Unix epoch. The gateway sets it; what a sensor says is replaced.
	Received int64 `json:"received,omitzero"`
	// Retransmitted says that the sensor sent the read again after an outage:
	// its alerts are late and never ask for a stop.
	Retransmitted bool `json:"retransmitted,omitzero"`
	// Revision is 0 for the first read of a passage. A later one, which changes or
	// strengthens what was read before, counts up: it may correct an alert.
	Revision uint32 `json:"revision,omitzero"`
	// Lat and Lon are where the sensor was, for one that moves: WGS 84 degrees to about
	// 2 m, both 0 when it did not tell.
	Lat float32 `json:"lat,omitzero"`
	Lon float32 `json:"lon,omitzero"`
	// Context is the picture of the whole scene, Image that of the plate.
	Context *Image `json:"context,omitzero"`
}

// Candidate is another reading that the sensor thought possible.
type Candidate struct {
	Plate string  `json:"plate"`
	Conf  float32 `json:"conf"` // 0 to 1
}

// Image points to a JPEG on the images topic.
type Image struct {
	Partition int32 `json:"partition"`
	Offset    int64 `json:"offset"`
}

func (img *Image) clone() *Image {
	if img == nil {
		return nil
	}
	c := *img
	return &c
}

// Clone returns a copy of r that shares no memory with it, so that it outlives
// the buffer behind a read of DecodeView.
func (r *Read) Clone() Read {
	c := *r
	for _, s := range []*string{&c.ID, &c.Sensor, &c.Plate, &c.Country, &c.Passage, &c.Direction, &c.Make, &c.Color} {
		*s = strings.Clone(*s)
	}
	c.Candidates = slices.Clone(r.Candidates)
	for i := range c.Candidates {
		c.Candidates[i].Plate = strings.Clone(c.Candidates[i].Plate)
	}
	c.CharConf = slices.Clone(r.CharConf)
	c.Image, c.Context = r.Image.clone(), r.Context.clone()
	return c
}

// String names the sensor and the time, so that a read that slips into a log
// line or an error does not take its plate along. The id is left out too: one
// made by StableID can be guessed back to a plate.
func (r Read) String() string {
	return "read of sensor " + strconv.Quote(r.Sensor) + " at " + strconv.FormatInt(r.TS, 10)
}

// GoString is String, for the %#v of a debugging session that ends up in a log.
func (r Read) GoString() string { return r.String() }

// String hides the plate; see Read.String.
func (c Candidate) String() string { return "candidate" }

// GoString is String.
func (c Candidate) GoString() string { return c.String() }
