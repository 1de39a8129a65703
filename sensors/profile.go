package sensors

import "time"

// Clock says what a sensor writes as the time of capture. It is a closed set; the empty
// Clock is that of the message's format.
type Clock string

// Clocks.
const (
	// ClockUTC is a time in UTC, or one that names its offset, as it stands.
	ClockUTC Clock = "utc"
	// ClockLocal is the local time of Profile.Zone although it is written as UTC, as an epoch
	// or without an offset: many cameras do so.
	ClockLocal Clock = "local"
	// ClockGateway is a clock that cannot be trusted at all: the time of arrival counts.
	ClockGateway Clock = "gateway"
)

// Scale says in which unit a sensor writes confidences. It is a closed set; the empty
// Scale is that of the message's format, or the other where the numbers leave no doubt.
type Scale string

// Scales.
const (
	ScaleUnit    Scale = "unit"    // 0 to 1
	ScalePercent Scale = "percent" // 0 to 100
)

// Profile says how the messages of one sensor are to be read. The zero value reads them as
// their format says.
type Profile struct {
	Format  string         // name in package format; empty or "auto" for any
	Clock   Clock          //
	Zone    *time.Location // of local times, and of times that name no offset; UTC when nil
	Scale   Scale          // of confidences
	Country string         // of plates of which the message tells none; any form that plate.ParseCountry takes
}

// Sighting is one read as a message of a sensor tells it, with what came along.
type Sighting struct {
	// Read is complete but for what a gateway adds. Its Sensor is what the message calls
	// the device, empty when it does not say; its Passage is empty.
	Read Read
	// Track is what the sensor calls the passage of this vehicle, empty when it does not.
	// It is unique for the sensor for as long as a vehicle takes to pass, no longer:
	// counters start again with the device.
	Track string
	// Plate and Context are pictures as they came, of the plate and of the whole scene: not
	// checked in any way.
	Plate, Context []byte
	// Clock is set when the time of capture needed a guess: the message named no offset, or
	// the profile says that its clock is another.
	Clock Clock
}

// Message is what one message of a sensor says.
type Message struct {
	Format    string // that it was read as
	Sensor    string // who sent it, as it calls itself; empty when it does not say
	Sightings []Sighting
	// Rejected are the reads that could not be made sense of, by rising position among all
	// reads of the message.
	Rejected []Rejection
	// Heartbeat says that the message tells that the sensor is alive.
	Heartbeat bool
}
