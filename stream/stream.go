// Package stream turns reads into alerts: it fetches records, matches them in
// memory, hands hits to the queues and to the hits topic, and only then commits
// the offsets. See DESIGN.md for the delivery argument.
//
// It speaks to Kafka and Redis through the small interfaces below and imports
// neither client; the adapters are stream/kafka and stream/redisqueue, and
// streamtest holds the suite that fakes and real services must both pass.
package stream

import (
	"context"
	"time"

	"vigie/sensors"
	"vigie/stream/alert"
	"vigie/watchlist/control"
)

// Source hands out the partitions of the reads topic.
type Source interface {
	// Run calls consume on a goroutine of its own for every partition that
	// this process owns, until ctx ends or an error that retrying cannot mend.
	// When ownership changes it cancels the context given to consume and waits
	// for every consume to return before it lets go of the partition, so that
	// offsets committed on the way out still count. A consume that returns an
	// error is called again with the partition at its last committed offset.
	// Run returns nil when ctx ends.
	Run(ctx context.Context, consume func(context.Context, Partition) error) error
}

// Partition is one partition while this process owns it. It is used by one
// goroutine at a time.
type Partition interface {
	// ID is the number of the partition, from 0.
	ID() int
	// Fetch replaces the content of b with the next records, in offset order.
	// It waits a bounded time for the first record; no record then is no
	// error. Records are delivered at least once: after a restart, from the
	// last committed offset.
	Fetch(ctx context.Context, b *Batch) error
	// Commit records that every offset below next is done with. It is called
	// only when the alerts of those records are safely stored, by one goroutine at a
	// time, which need not be that of Fetch. It fails, and changes nothing, once the
	// partition belongs to someone else.
	Commit(ctx context.Context, next int64) error
}

// Batch is a run of records of one partition, reused from Fetch to Fetch.
type Batch struct {
	Records   []Record
	Next      int64 // offset after the last record, to commit; also moves over records that are not data
	HighWater int64 // end of the partition when the batch was fetched
	Skipped   int64 // offsets that were gone, by retention or loss, before they were read: reads that nobody matched
}

// Record is one record of the reads topic. Value is valid until the next Fetch.
type Record struct {
	Offset   int64
	Value    []byte
	TooLarge bool // Value is only the beginning: a read is never that long
}

// Outcome is what became of one published alert.
type Outcome uint8

const (
	// Stored means the alert is in its queue now.
	Stored Outcome = iota
	// Duplicate means it was there before; nothing has changed.
	Duplicate
	// Stale means that a withdrawal newer than the snapshot behind the alert
	// was confirmed to an operator: nothing is stored, and the read must be
	// matched again at Fence or later.
	Stale
)

// Published is the answer of Queues for one alert.
type Published struct {
	Outcome Outcome
	Fence   int64 // for Stale: the version the snapshot must have reached
}

// Queues is where patrols wait for alerts.
type Queues interface {
	// Publish stores each alert once under its id and says what became of it.
	// Repeating a call whose outcome is unknown is safe. When it returns an
	// error none of the answers counts.
	Publish(ctx context.Context, alerts []*alert.Alert) ([]Published, error)
	// Revise brings the alerts of passages up to a later read of them, in the order given,
	// once the alerts of its hits have been published. An alert that the read hits too is
	// amended where the evidence differs, and raised again where a read before has taken
	// it back; one that it does not hit is taken back, if the read overrules the one that
	// the alert shows (see alert.Reading), and else is only told of it. A read of the same
	// text and country takes nothing back: it is the lists that have changed. One of
	// another text amends only where it overrules. Revise returns the steps that were made,
	// now or by the same read before: repeating a call changes nothing, nor does a read
	// that is older than what the alert has seen. When it returns an error, any part may
	// have been done.
	Revise(ctx context.Context, reads []Revision) ([]*alert.Event, error)
}

// Revision is a later read of a passage and what it hits.
type Revision struct {
	Read   sensors.Read // its Revision is 1 or more and its Passage is given
	Alerts []*alert.Alert
	At     time.Time // by the matcher's clock
}

// Fencer holds back alerts of lists as they were before a withdrawal.
type Fencer interface {
	// Fence returns once no queue named will take an alert matched at a
	// version below v. A lower fence than the present one changes nothing.
	Fence(ctx context.Context, queues []string, v int64) error
}

// Journal is the hits topic: every step of every alert, in the order of each alert.
type Journal interface {
	// Append returns once every event is acknowledged by all in-sync replicas.
	Append(ctx context.Context, events []*alert.Event) error
}

// DeadLetter is a record that is not a read, or cannot be handled, with the reason.
type DeadLetter struct {
	Partition int
	Offset    int64
	Reason    Reason
	Value     []byte // copied before Send returns
}

// Reason says why a record is a dead letter. It is a closed set, used as header
// value and metric label; it never holds any of the record.
type Reason string

const (
	ReasonEmpty    Reason = "empty"    // no value
	ReasonTooLarge Reason = "toolarge" // more bytes than a read can have
	ReasonJSON     Reason = "json"     // begins with '{' and is not the JSON form
	ReasonProtobuf Reason = "protobuf" // not vigie.v1.Read
	ReasonField    Reason = "field"    // a field is missing or out of range
	ReasonPlate    Reason = "plate"    // the plate cannot be a plate
	ReasonPanic    Reason = "panic"    // a fault of this program: handling it panicked, alone as well
	// ReasonUnknownSensor is of reads that a gateway has put aside; they were never on the reads topic.
	ReasonUnknownSensor Reason = "unknown_sensor"
)

// DeadLetters is the dead-letter topic.
type DeadLetters interface {
	// Send returns once every letter is acknowledged.
	Send(ctx context.Context, letters []DeadLetter) error
}

// ControlLog is the compacted topic of lists, entries and sensors.
type ControlLog interface {
	// Append writes the records as one and returns the offset of the last.
	// After a timeout the outcome is unknown; appending again is safe.
	Append(ctx context.Context, records []control.Record) (last int64, err error)
	// Follow calls apply with the records in offset order, from the first one
	// on, until ctx ends; they are valid until apply returns. end is the end of the log as last seen: the replica
	// has caught up when it has applied everything below it. Offsets that
	// compaction removed are missing; apply gets next, the offset to be read
	// next, also when no record was left to deliver. A log that may be cut off calls
	// apply several times a second while it answers, without records when there are
	// none, and asks anew only when apply has returned: from that the replica knows how
	// old its lists may be.
	Follow(ctx context.Context, apply func(records []control.Record, next, end int64) error) error
}

// Clock tells the time; it is passed in so that tests own it.
type Clock func() time.Time
