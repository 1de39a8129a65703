// Package control is the control log: the compacted topic that holds lists,
// entries, exemptions and sensors, and the state machine that every process applies to it
// in the same order. It is pure: package stream/kafka moves the records.
//
// The offset of a record is the version of what it holds; a State that has
// applied offset v is "at version v", whatever process it lives in.
//
// What a State holds depends on nothing but the last record of each key. That is
// the one property everything here serves: compaction may remove any earlier
// record, so a process that starts today and one that has run for a year agree
// only if no earlier record matters. DESIGN.md draws the consequences.
package control

import (
	"fmt"
	"math"
	"strings"
	"time"

	"vigie/watchlist"
)

// Sensor is a LAPI device as the registry knows it: where it stands and which
// territories (zones) it belongs to.
type Sensor struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Lat       float64  `json:"lat"` // WGS 84 degrees
	Lon       float64  `json:"lon"`
	Road      string   `json:"road,omitempty"`
	Direction string   `json:"direction,omitempty"`
	Zones     []string `json:"zones,omitempty"`
	Version   int64    `json:"version"`
}

// Validate returns every rule that s breaks, in the order of its fields, or nil.
// The id is mandatory and free text, for vendors choose it: at most
// watchlist.MaxNameText characters. Latitude and longitude are within ±90 and ±180.
func (s *Sensor) Validate() (errs []watchlist.FieldError) {
	add := func(field, reason string) {
		if reason != "" {
			errs = append(errs, watchlist.FieldError{Field: field, Reason: reason})
		}
	}
	if s.ID == "" || strings.TrimSpace(s.ID) != s.ID {
		add("id", "is mandatory, without white space at its ends")
	} else {
		add("id", watchlist.CheckText(s.ID, watchlist.MaxNameText))
	}
	add("name", watchlist.CheckText(s.Name, watchlist.MaxShortText))
	if !(math.Abs(s.Lat) <= 90) { // also refuses NaN
		add("lat", "must be -90 to 90 degrees")
	}
	if !(math.Abs(s.Lon) <= 180) {
		add("lon", "must be -180 to 180 degrees")
	}
	add("road", watchlist.CheckText(s.Road, watchlist.MaxShortText))
	add("direction", watchlist.CheckText(s.Direction, watchlist.MaxShortText))
	if len(s.Zones) > watchlist.MaxZones {
		add("zones", fmt.Sprintf("has %d members; at most %d are allowed", len(s.Zones), watchlist.MaxZones))
		return errs
	}
	for i, z := range s.Zones {
		if strings.TrimSpace(z) == "" {
			add("zones", fmt.Sprintf("member %d is empty", i+1))
		} else if reason := watchlist.CheckText(z, watchlist.MaxNameText); reason != "" {
			add("zones", fmt.Sprintf("member %d %s", i+1, reason))
		}
	}
	return errs
}

// Record is one record of the control log as it travels: Value nil withdraws
// the Key.
type Record struct {
	Offset int64 // given by the log; meaningless before
	Key    []byte
	Value  []byte
	// Why goes with a withdrawal on its way into the log. A record without a
	// value cannot say it, so it travels in headers; a State does not read it.
	Why *Why
}

// Why says who withdrew something, when, and for what reason.
type Why struct {
	Actor  string // the name of a token, never a secret
	Reason string // as the operator wrote it; it may name a plate, like all of the log
	At     time.Time
}

// Change is one effect of one record on the State: Old is what was, New what
// is, of one kind; at least one of them is set. The values are shared and never
// written again.
//
// A Change speaks of an entry only while the list of the entry exists: what no
// list owns can hit nothing. A consumer that applies changes in order therefore
// never meets an entry before its list or after it. Likewise it speaks of an
// exemption only while the entry of the exemption is there: it comes after the
// entry and goes before it, and stays when the entry is replaced.
type Change struct {
	Version                    int64 // offset of the record
	OldList, NewList           *watchlist.List
	OldEntry, NewEntry         *watchlist.Packed
	OldSensor, NewSensor       *Sensor
	OldExemption, NewExemption *watchlist.Exemption
}
