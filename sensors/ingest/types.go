package ingest

import "vigie/sensors"

// Message is one message of a device as it came, by whatever way.
type Message struct {
	// Format is the name of a vendor format in package format; empty or "auto" finds it out.
	Format      string
	ContentType string // MIME type as the device told it, empty when it told none
	Topic       string // MQTT topic, empty for other ways
	// Body is not kept after Ingest has returned.
	Body []byte
	// Sensor is the sensor on whose behalf the sender may speak; empty when it may speak for
	// every one.
	Sensor string
	// Source is the device when neither Sensor nor the message names one, such as a part of
	// the address that the message was sent to.
	Source string
}

// Result is what became of a message. Every read of it was accepted, rejected, quarantined or
// suppressed, and is counted once.
type Result struct {
	Accepted int                 `json:"accepted"`
	Rejected []sensors.Rejection `json:"rejected"` // by rising position in the message; never nil
	// Quarantined reads are of a sensor that is not registered; they were put aside.
	Quarantined int `json:"quarantined,omitzero"`
	// Suppressed reads told nothing that reads of the same passage had not told before.
	Suppressed int `json:"suppressed,omitzero"`
	// Heartbeat says that the message told that the sensor is alive.
	Heartbeat bool `json:"heartbeat,omitzero"`
}
