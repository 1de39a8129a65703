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
	"time"

	"vigie/watchlist"
)

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
