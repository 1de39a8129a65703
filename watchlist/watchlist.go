// Package watchlist says what is wanted: lists, their entries, and the rules an
// entry must meet before it may stop a car.
//
// It is pure: it reads no file, no clock and no network. The control log
// (package watchlist/control) carries these values to every process, and the
// matcher reads them; neither may change one once it is shared.
//
// A plate is personal data. No error of this package repeats what was typed or
// imported, since a shifted column puts plates anywhere; and Entry, EntryInput
// and List print as ids under fmt, so that a careless log line gives nothing away.
package watchlist

import (
	"fmt"
	"slices"
	"time"

	"vigie/watchlist/plate"
)

// List is a named set of entries with an owner service, a legal basis and a
// tolerance.
type List struct {
	ID         string    `json:"id"` // see ValidID
	Name       string    `json:"name"`
	Owner      string    `json:"owner"`       // service that answers for the list
	LegalBasis string    `json:"legal_basis"` // text that allows it, such as "CSI L233-1"
	Purpose    string    `json:"purpose,omitempty"`
	Tolerance  Tolerance `json:"tolerance"`
	// Threshold, 0 to 1, is the least score at which a hit on a text that
	// differs from the entry's alerts, with ToleranceOCR and ToleranceNear; it
	// is 0 with any other. 0 stands for the figure that package matcher chooses
	// for the tolerance and number of entries (matcher.DefaultThreshold).
	Threshold float32 `json:"threshold,omitempty"`
	// Queue receives the alerts of this list; DefaultQueue when empty. It is
	// never empty in a list that came through the control log.
	Queue string `json:"queue"`
	// Sensors and Zones limit where the list may hit (purpose limitation is
	// law). Both empty means everywhere; otherwise the sensor must be named or
	// stand in one of the zones. See AllowsAt.
	Sensors []string `json:"sensors,omitempty"`
	Zones   []string `json:"zones,omitempty"`
	// DefaultAction and DefaultPriority fill entries that say nothing.
	DefaultAction   Action   `json:"default_action"`
	DefaultPriority Priority `json:"default_priority,omitempty"`
	// Salt keys the ids of the list's entries. Made once by NewSalt and kept
	// for the life of the list; never shown.
	Salt []byte `json:"-"`
	// Version is the control-log offset that last wrote the list.
	Version int64 `json:"version"`
}

// DefaultQueue receives the alerts of lists that name no queue.
const DefaultQueue = "patrol"

// AllowsAt reports whether l may hit at a sensor that stands in zones: l names
// no sensor and no zone, or it names the sensor, or one of the zones.
func (l *List) AllowsAt(sensor string, zones []string) bool {
	if len(l.Sensors) == 0 && len(l.Zones) == 0 {
		return true
	}
	if slices.Contains(l.Sensors, sensor) {
		return true
	}
	for _, z := range zones {
		if slices.Contains(l.Zones, z) {
			return true
		}
	}
	return false
}

// String names the list without its salt.
func (l List) String() string { return fmt.Sprintf("list %s v%d", l.ID, l.Version) }

// GoString is String, so that %#v gives no more away.
func (l List) GoString() string { return l.String() }

// Entry is one wanted plate on a list, or on a list with TolerancePattern one
// pattern of plates. A list holds at most one entry for a plate or pattern and
// country; adding it again replaces it under the same id.
type Entry struct {
	ID    string    `json:"id"` // see EntryID and PatternID: opaque, safe in a URL
	List  string    `json:"list"`
	Plate string    `json:"plate"` // as the operator wrote it
	Key   plate.Key `json:"-"`     // plate.Parse(Plate); 0 when Pattern is set
	// Pattern is ParsePattern(Plate) when Plate holds a wildcard, else zero.
	// NewEntry sets it only on a list with TolerancePattern. Should two processes
	// that write at the same moment leave a pattern on another list, it means
	// nothing there.
	Pattern Pattern       `json:"-"`
	Country plate.Country `json:"country"` // 0 when not known
	Action  Action        `json:"action"`
	// Priority is never 0 in an entry made by NewEntry.
	Priority Priority `json:"priority"`
	// ListTag is List.Tag of the list the entry was made for, or 0 for an
	// entry that belongs to whichever list bears the id. See List.Owns.
	ListTag   uint32 `json:"-"`
	Reason    string `json:"reason"`
	CaseRef   string `json:"case_ref"`
	Requester string `json:"requester,omitempty"`
	Vehicle   string `json:"vehicle,omitempty"` // make, model, colour to compare with
	Safety    string `json:"safety,omitempty"`  // what an officer must know first
	// ValidFrom is inclusive, ValidUntil exclusive, both compared with the
	// time of the read. ValidUntil is mandatory: nothing is wanted for ever.
	// Both are UTC and whole milliseconds, as the control log keeps them.
	ValidFrom  time.Time `json:"valid_from"`
	ValidUntil time.Time `json:"valid_until"`
	// Version is the control-log offset that last wrote the entry.
	Version int64 `json:"version"`
}

// ValidAt reports whether e is valid at ms, milliseconds since the Unix epoch:
// from ValidFrom on, and before ValidUntil.
func (e *Entry) ValidAt(ms int64) bool {
	return e.ValidFrom.UnixMilli() <= ms && ms < e.ValidUntil.UnixMilli()
}

// Normalised returns what reads are compared with, in clear: the normalised plate
// of e, or its pattern.
func (e *Entry) Normalised() string {
	if !e.Pattern.IsZero() {
		return e.Pattern.Text()
	}
	return e.Key.String()
}

// Equal reports whether e and o say the same in every field but Version.
func (e *Entry) Equal(o *Entry) bool {
	return e.ID == o.ID && e.List == o.List && e.ListTag == o.ListTag &&
		e.Plate == o.Plate && e.Key == o.Key && e.Pattern == o.Pattern && e.Country == o.Country &&
		e.Action == o.Action && e.Priority == o.Priority &&
		e.Reason == o.Reason && e.CaseRef == o.CaseRef && e.Requester == o.Requester &&
		e.Vehicle == o.Vehicle && e.Safety == o.Safety &&
		e.ValidFrom.Equal(o.ValidFrom) && e.ValidUntil.Equal(o.ValidUntil)
}

// String names the entry without its plate.
func (e Entry) String() string { return fmt.Sprintf("entry %s/%s v%d", e.List, e.ID, e.Version) }

// GoString is String, so that %#v gives no more away.
func (e Entry) GoString() string { return e.String() }

// FieldError is one rule that a value breaks. Its text never contains what was
// given for the field.
type FieldError struct {
	Field  string `json:"field"`  // JSON name of the field
	Reason string `json:"reason"` // what is wrong and what would be right
}

func (e FieldError) Error() string { return e.Field + ": " + e.Reason }
