package control

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"vigie/watchlist"
	"vigie/watchlist/plate"
)

// Sensor is a LAPI device as the registry knows it: where it stands, which territories
// (zones) it belongs to, who answers for it, how its messages are read, and what it may
// be used for.
type Sensor struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Lat       float64  `json:"lat"` // WGS 84 degrees
	Lon       float64  `json:"lon"`
	Road      string   `json:"road,omitempty"`
	Direction string   `json:"direction,omitempty"`
	Zones     []string `json:"zones,omitempty"`
	Owner     string   `json:"owner,omitempty"` // service that answers for the sensor
	// Kind is how the sensor is mounted; empty is as SensorFixed. A mobile one tells its
	// position with each read.
	Kind SensorKind `json:"kind,omitempty"`

	// How the messages of the sensor are read: the fields of sensors.Profile, where the
	// words are explained. Empty fields leave it to the format.
	Format  string `json:"format,omitempty"`    // of a vendor; empty: recognised by the message
	Clock   string `json:"clock,omitempty"`     // utc, local, gateway
	Zone    string `json:"time_zone,omitempty"` // IANA name, such as Europe/Paris
	Scale   string `json:"scale,omitempty"`     // unit, percent
	Country string `json:"country,omitempty"`   // of plates that come without one

	// Lists and Purposes limit what the sensor may be used for (purpose limitation is
	// law). Both hold; an empty one does not limit. See Serves.
	Lists    []string `json:"lists,omitempty"`    // ids of lists
	Purposes []string `json:"purposes,omitempty"` // as watchlist.List.Purpose, in capitals or not

	Version int64 `json:"version"`
}

// SensorKind is how a sensor is mounted. It is a closed set, but a State keeps a word
// that a newer version wrote, for what it says of a sensor must not be lost over it.
type SensorKind string

// Kinds of sensors.
const (
	SensorFixed         SensorKind = "fixed"         // on a gantry or a post
	SensorTransportable SensorKind = "transportable" // stands for days or weeks, then elsewhere
	SensorMobile        SensorKind = "mobile"        // in a vehicle
)

// The words that Validate takes beside the empty one.
var (
	sensorKinds  = []string{string(SensorFixed), string(SensorTransportable), string(SensorMobile)}
	sensorClocks = []string{"utc", "local", "gateway"}
	sensorScales = []string{"unit", "percent"}
)

// The greatest number of lists and of purposes that one sensor may be limited to.
const (
	MaxSensorLists    = 1000
	MaxSensorPurposes = 50
)

// Serves reports whether reads of s may hit entries of l: the list is one of s.Lists, if
// there are any, and its purpose one of s.Purposes, if there are any. A list that states
// no purpose is served by no sensor that is limited to purposes. A nil s, a sensor that
// the registry has not, is not limited; which reads of it come in is for the gateway.
func (s *Sensor) Serves(l *watchlist.List) bool {
	switch {
	case s == nil:
		return true
	case len(s.Lists) > 0 && !slices.Contains(s.Lists, l.ID):
		return false
	case len(s.Purposes) == 0:
		return true
	}
	purpose := strings.TrimSpace(l.Purpose)
	return purpose != "" && slices.ContainsFunc(s.Purposes, func(p string) bool {
		return strings.EqualFold(strings.TrimSpace(p), purpose)
	})
}

// Stands returns the zones of s, none for a nil s.
func (s *Sensor) Stands() []string {
	if s == nil {
		return nil
	}
	return s.Zones
}

// Equal reports whether s and o say the same in every field but Version.
func (s *Sensor) Equal(o *Sensor) bool {
	return s.ID == o.ID && s.Name == o.Name && s.Lat == o.Lat && s.Lon == o.Lon && s.Road == o.Road &&
		s.Direction == o.Direction && slices.Equal(s.Zones, o.Zones) && s.Owner == o.Owner && s.Kind == o.Kind &&
		s.Format == o.Format && s.Clock == o.Clock && s.Zone == o.Zone && s.Scale == o.Scale &&
		s.Country == o.Country && slices.Equal(s.Lists, o.Lists) && slices.Equal(s.Purposes, o.Purposes)
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
	word := func(field, value string, words []string) {
		if value != "" && !slices.Contains(words, value) {
			add(field, "must be one of: "+strings.Join(words, ", "))
		}
	}
	// each checks the members of a set one by one.
	each := func(field string, members []string, limit int, check func(string) string) {
		if len(members) > limit {
			add(field, fmt.Sprintf("has %d members; at most %d are allowed", len(members), limit))
			return
		}
		for i, m := range members {
			if strings.TrimSpace(m) == "" {
				add(field, fmt.Sprintf("member %d is empty", i+1))
			} else if reason := check(m); reason != "" {
				add(field, fmt.Sprintf("member %d %s", i+1, reason))
			}
		}
	}
	short := func(text string) string { return watchlist.CheckText(text, watchlist.MaxShortText) }

	switch {
	case s.ID == "" || strings.TrimSpace(s.ID) != s.ID:
		add("id", "is mandatory, without white space at its ends")
	case s.ID == reservedID:
		add("id", "is the address of something else; choose another")
	default:
		add("id", watchlist.CheckText(s.ID, watchlist.MaxNameText))
	}
	add("name", short(s.Name))
	if !(math.Abs(s.Lat) <= 90) { // also refuses NaN
		add("lat", "must be -90 to 90 degrees")
	}
	if !(math.Abs(s.Lon) <= 180) {
		add("lon", "must be -180 to 180 degrees")
	}
	add("road", short(s.Road))
	add("direction", short(s.Direction))
	each("zones", s.Zones, watchlist.MaxZones, func(z string) string { return watchlist.CheckText(z, watchlist.MaxNameText) })
	add("owner", short(s.Owner))
	word("kind", string(s.Kind), sensorKinds)
	if s.Format != "" && !watchlist.ValidID(s.Format) {
		add("format", "is not the name of a format, such as hikvision")
	}
	word("clock", s.Clock, sensorClocks)
	switch {
	case s.Zone != "" && !knownZone(s.Zone):
		add("time_zone", "is not a time zone; use an IANA name such as Europe/Paris")
	case s.Zone == "" && s.Clock == "local":
		add("time_zone", "is mandatory with clock local: without it the time of a read is not known")
	}
	word("scale", s.Scale, sensorScales)
	if _, ok := plate.ParseCountry(s.Country); !ok {
		add("country", "is not a country; use ISO 3166-1 alpha-2 such as FR, or nothing when plates of several pass")
	}
	each("lists", s.Lists, MaxSensorLists, func(id string) string {
		if !watchlist.ValidID(id) {
			return "is not the id of a list"
		}
		return ""
	})
	each("purposes", s.Purposes, MaxSensorPurposes, func(p string) string { return watchlist.CheckText(p, watchlist.MaxLongText) })
	return errs
}

// reservedID would name GET /v1/sensors/health.
const reservedID = "health"

// knownZone reports whether name is in the time zone database. "Local" is whatever the
// machine is set to, another one for each process, and so is no zone of a sensor.
func knownZone(name string) bool {
	_, err := time.LoadLocation(name)
	return err == nil && name != "Local"
}
