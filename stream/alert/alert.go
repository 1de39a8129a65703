// Package alert is the life of a hit on its way to patrols: what an alert says,
// which queue it goes to, and which step may follow which. It is pure: time is
// passed in, and the adapters in stream/redisqueue and stream/kafka store what
// it decides.
//
// It does not judge the hit, which is the matcher's part, and it knows neither
// rights nor transport. What it knows of a plate comes out in fields and in JSON
// only: under fmt an Alert, an Event and their parts print as ids.
package alert

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"vigie/sensors"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// Alert is everything a patrol needs to judge a hit before acting on it. The
// fields stand in the order in which a person should read them. An Alert is not
// changed after New made it; its state lives in Events. A later read of the passage
// may put another Alert of the same id in its place; see Event.Amended.
type Alert struct {
	// ID is the same for every repeat of the same hit; see ID.
	ID       string             `json:"id"`
	Queue    string             `json:"queue"`
	Action   watchlist.Action   `json:"action"`
	Stop     bool               `json:"stop"` // the action asks for a stop and nothing forbids it (late, discreet)
	Late     bool               `json:"late"` // too old, or sent again after an outage: for the record only
	Priority watchlist.Priority `json:"priority"`
	List     ListRef            `json:"list"`
	Entry    EntryRef           `json:"entry"`
	Match    Evidence           `json:"match"`
	Read     sensors.Read       `json:"read"`
	Place    *Place             `json:"place,omitempty"` // nil when the sensor is not in the registry
	Created  int64              `json:"created"`         // by the matcher's clock, milliseconds since the Unix epoch
}

// ListRef names the list of an alert.
type ListRef struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Owner string `json:"owner"`
}

// EntryRef is the entry as it was when the hit was made.
type EntryRef struct {
	ID      string        `json:"id"`
	Version int64         `json:"version"` // control-log offset
	Plate   string        `json:"plate"`   // as the operator wrote it
	Country plate.Country `json:"country,omitempty"`
	Reason  string        `json:"reason"`
	CaseRef string        `json:"case_ref"`
	Vehicle string        `json:"vehicle,omitempty"`
	Safety  string        `json:"safety,omitempty"`
}

// Evidence says how well the read meets the entry, and against which state of
// the lists.
type Evidence struct {
	Kind    string  `json:"kind"`              // matcher.Kind: exact, ocr, near, pattern
	Country string  `json:"country"`           // plate.Relation: same, unknown, different
	Grade   string  `json:"grade"`             // matcher.Grade: high, medium, low
	Score   float32 `json:"score"`             // 0 to 1
	Syntax  string  `json:"syntax"`            // plate.Grade of the read: valid, possible, invalid
	Read    string  `json:"read"`              // normalised plate of the read
	Entry   string  `json:"entry"`             // normalised plate of the entry, or its pattern
	Differs []int   `json:"differs,omitempty"` // positions, from 0, where the two differ
	Version int64   `json:"version"`           // control-log version of the snapshot that matched
}

// Place is where the sensor stands.
type Place struct {
	Name      string   `json:"name"`
	Lat       float64  `json:"lat"`
	Lon       float64  `json:"lon"`
	Road      string   `json:"road,omitempty"`
	Direction string   `json:"direction,omitempty"`
	Zones     []string `json:"zones,omitempty"`
}

// String names the alert without its plates.
func (a Alert) String() string { return "alert " + a.ID }

// GoString is String, so that %#v gives no more away.
func (a Alert) GoString() string { return a.String() }

// String names the entry without its plate.
func (e EntryRef) String() string { return fmt.Sprintf("entry %s v%d", e.ID, e.Version) }

// GoString is String.
func (e EntryRef) GoString() string { return e.String() }

// String tells the evidence without the plates.
func (e Evidence) String() string {
	return fmt.Sprintf("%s match, country %s, grade %s, v%d", e.Kind, e.Country, e.Grade, e.Version)
}

// GoString is String.
func (e Evidence) GoString() string { return e.String() }

// IDLen is the length of what ID returns.
const IDLen = 26

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ID returns the id of the alert that read raises with an entry: IDLen
// characters of lower-case base32, the first 128 bits of a SHA-256.
//
// It depends on the passage when the sensor gave one, else on the read, and on
// the entry; so a read that comes again, and the 2 to 50 reads that a camera
// sends of one passing vehicle, make one alert. Both ids belong to a sensor:
// two sensors that count from 1 are kept apart. For a read that has neither
// passage nor id, sensors.StableID stands in.
//
// The id shows nothing of the plate, but whoever also knows the entry id, the
// sensor and the time can find the plate by trial: do not log them together.
func ID(read *sensors.Read, entryID string) string {
	buf := make([]byte, 0, 160)
	buf = append(buf, "vigie alert 1\x00"...)
	// A length before each field, and a mark of the kind, so that no two
	// different inputs spell the same bytes.
	if read.Passage != "" {
		buf = appendField(append(buf, 'p'), read.Sensor)
		buf = appendField(buf, read.Passage)
	} else {
		id := read.ID
		if id == "" {
			id = sensors.StableID(read)
		}
		buf = appendField(append(buf, 'r'), read.Sensor)
		buf = appendField(buf, id)
	}
	sum := sha256.Sum256(appendField(buf, entryID))
	return idEncoding.EncodeToString(sum[:16])
}

func appendField(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// Digest is the same for two alerts of one id that tell a patrol the same: what to do, how
// well the read meets the entry, and what was seen of the vehicle. It is of 26 characters
// of lower-case base32.
func (a *Alert) Digest() string {
	r, match := &a.Read, a.Match
	match.Version = 0
	b, err := json.Marshal(struct {
		Action         watchlist.Action
		Stop           bool
		Priority       watchlist.Priority
		Entry          EntryRef
		Match          Evidence
		Image, Context *sensors.Image
		Texts          []string
		Conf           float32
		Lane           uint32
	}{
		a.Action, a.Stop, a.Priority, a.Entry, match, r.Image, r.Context,
		[]string{r.Plate, r.Country, r.Direction, r.Make, r.Color}, r.Conf, r.Lane,
	})
	if err != nil {
		return "" // New makes none that cannot be written
	}
	sum := sha256.Sum256(b)
	return idEncoding.EncodeToString(sum[:16])
}

// Input is what an alert is made from. List, Entry and Read are required.
type Input struct {
	List     *watchlist.List
	Entry    *watchlist.Entry
	Read     *sensors.Read   // copied; it may live in a buffer that is used again
	Sensor   *control.Sensor // nil when the sensor is not in the registry
	Evidence Evidence
	Now      time.Time
	// MaxAge is the age from which a read is late; 0 or less means that age
	// alone makes none late.
	MaxAge time.Duration
	Late   bool // late whatever its age: the read is replayed
}

// New makes the alert of a hit.
//
// It is late when Input.Late says so, when the sensor marked the read as sent again, or when either
// clock, that of the sensor (TS) or that of the gateway (Received), says that
// the read is older than MaxAge. Two clocks, because a sensor whose clock runs
// ahead must not make news of a read that lay in a gateway's spool for an hour.
// A read from the future is not late: the clock of that sensor is wrong, the
// vehicle is there.
//
// The alert asks for a stop when the action does, the alert is not late, and the
// country of the plate is not known to be another than that of the entry. In
// that last case the text is equal and the vehicle is not: countries share
// their plate shapes (LLDDDLL is French, Italian and six more), and stopping
// such a vehicle is the classic wrong stop. An unknown country does not forbid
// a stop, since most cameras tell none; its lower grade says so.
//
// Whatever a sensor sent, the alert can be written as JSON and as Protobuf: bytes
// that are not UTF-8 become U+FFFD and numbers that are not finite become 0. A
// hit that could not be written would block its partition for ever.
func New(in Input) *Alert {
	list, entry, read := in.List, in.Entry, in.Read
	a := &Alert{
		ID:       ID(read, entry.ID),
		Queue:    list.Queue,
		Action:   entry.Action,
		Late:     in.Late || late(read, in.Now, in.MaxAge),
		Priority: entry.Priority,
		List:     ListRef{ID: list.ID, Name: list.Name, Owner: list.Owner},
		Entry: EntryRef{
			ID: entry.ID, Version: entry.Version, Plate: entry.Plate, Country: entry.Country,
			Reason: entry.Reason, CaseRef: entry.CaseRef, Vehicle: entry.Vehicle, Safety: entry.Safety,
		},
		Match:   in.Evidence,
		Read:    cleanRead(read),
		Created: in.Now.UnixMilli(),
	}
	if a.Queue == "" {
		a.Queue = watchlist.DefaultQueue
	}
	if a.Priority == 0 {
		a.Priority = list.DefaultPriority
	}
	if a.Priority == 0 {
		a.Priority = watchlist.PriorityMedium
	}
	a.Match.Score = finite(a.Match.Score)
	a.Match.Differs = slices.Clone(a.Match.Differs)
	a.Stop = a.Action.AsksForStop() && !a.Late && a.Match.Country != plate.CountryDifferent.String()
	if s := in.Sensor; s != nil {
		a.Place = &Place{
			Name: s.Name, Lat: finite(s.Lat), Lon: finite(s.Lon),
			Road: s.Road, Direction: s.Direction, Zones: slices.Clone(s.Zones),
		}
		// The registry knows where a mobile sensor is kept, not where it drives.
		if r := in.Read; s.Kind == control.SensorMobile && (r.Lat != 0 || r.Lon != 0) {
			a.Place.Lat, a.Place.Lon = finite(float64(r.Lat)), finite(float64(r.Lon))
		}
	}
	return a
}

// late reports whether a read is too old to act on; see New.
func late(r *sensors.Read, now time.Time, maxAge time.Duration) bool {
	if r.Retransmitted {
		return true
	}
	if maxAge <= 0 {
		return false
	}
	// Sub saturates, so a time of 1970 or of year 292 million does no harm.
	tooOld := func(ms int64) bool { return now.Sub(time.UnixMilli(ms)) > maxAge }
	return tooOld(r.TS) || (r.Received != 0 && tooOld(r.Received))
}

// cleanRead copies a read, cleaned as New promises.
func cleanRead(r *sensors.Read) sensors.Read {
	c := r.Clone()
	for _, s := range []*string{&c.ID, &c.Sensor, &c.Plate, &c.Country, &c.Passage, &c.Direction, &c.Make, &c.Color} {
		*s = strings.ToValidUTF8(*s, "\uFFFD")
	}
	c.Conf, c.Speed = finite(c.Conf), finite(c.Speed)
	for i := range c.Candidates {
		cand := &c.Candidates[i]
		cand.Plate, cand.Conf = strings.ToValidUTF8(cand.Plate, "\uFFFD"), finite(cand.Conf)
	}
	for i, conf := range c.CharConf {
		c.CharConf[i] = finite(conf)
	}
	return c
}

// finite returns f, or 0 for a value that JSON cannot write.
func finite[F float32 | float64](f F) F {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return 0
	}
	return f
}
