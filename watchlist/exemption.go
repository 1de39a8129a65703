package watchlist

import (
	"fmt"
	"strings"
	"time"

	"vigie/watchlist/plate"
)

// MaxExemption is how far ahead an exemption may end: one year, a leap day
// included. It is our default, not a legal figure. An exemption is a hole in a
// list: whoever needs it longer must look at it again.
const MaxExemption = 366 * 24 * time.Hour

// Exemption says that a read is known to be no hit of an entry: people have
// confirmed that the camera misreads, or that it is another vehicle whose plate
// looks alike. Until it ends, that read of that entry alerts no more, unless the
// texts are equal: a plate that is read as it was wanted always alerts.
//
// There is at most one exemption for an entry and a read; adding it again
// replaces it under the same id.
type Exemption struct {
	ID    string `json:"id"` // see ExemptionID: opaque, safe in a URL
	List  string `json:"list"`
	Entry string `json:"entry"` // id of the entry on the list
	// ListTag is List.Tag of the list the exemption was made for, or 0 for one
	// that belongs to whichever list bears the id.
	ListTag uint32 `json:"-"`
	// Read is the plate that was read: that of a vehicle which nobody wants, and
	// so the most protected of all. It is in no text and no JSON of an Exemption.
	Read      plate.Key `json:"-"`
	Reason    string    `json:"reason"`
	Requester string    `json:"requester,omitempty"`
	// Until is exclusive and compared with the time of the read. It is mandatory,
	// UTC, and whole milliseconds, as the control log keeps it.
	Until time.Time `json:"until"`
	// Version is the control-log offset that last wrote the exemption.
	Version int64 `json:"version"`
}

// Exempts reports whether x silences a read of its entry at ms, milliseconds since
// the Unix epoch: it is the plate that x names, and x has not ended.
func (x *Exemption) Exempts(read plate.Key, ms int64) bool {
	return x.Read == read && ms < x.Until.UnixMilli()
}

// Equal reports whether x and o say the same in every field but Version.
func (x *Exemption) Equal(o *Exemption) bool {
	return x.ID == o.ID && x.List == o.List && x.Entry == o.Entry && x.ListTag == o.ListTag &&
		x.Read == o.Read && x.Reason == o.Reason && x.Requester == o.Requester && x.Until.Equal(o.Until)
}

// String names the exemption without its plate.
func (x Exemption) String() string {
	return fmt.Sprintf("exemption %s/%s v%d", x.List, x.ID, x.Version)
}

// GoString is String, so that %#v gives no more away.
func (x Exemption) GoString() string { return x.String() }

// Validate returns every rule that x breaks when it is written at a time, in the
// order of its fields, or nil. The ids, the read, the reason and the end are
// mandatory; the end is after at, and at most MaxExemption after it.
func (x *Exemption) Validate(at time.Time) []FieldError {
	var errs fieldErrors
	for _, id := range []struct{ field, id string }{{"id", x.ID}, {"list", x.List}, {"entry", x.Entry}} {
		if !ValidID(id.id) {
			errs.add(id.field, idRule)
		}
	}
	if k, err := plate.Parse(x.Read.String()); err != nil || k != x.Read {
		errs.add("read", "is no plate that plate.Parse returns")
	}
	errs.mandatory("reason", x.Reason, MaxLongText)
	errs.text("requester", x.Requester, MaxShortText)
	switch at := utcMillis(at); {
	case x.Until.IsZero():
		errs.add("until", "is mandatory: no read is exempt for ever")
	case !x.Until.After(at):
		errs.add("until", "is not in the future")
	case x.Until.Sub(at) > MaxExemption:
		errs.add("until", fmt.Sprintf("is more than %d days ahead", MaxExemption/(24*time.Hour)))
	}
	return errs
}

// ExemptionInput is an exemption as a person gives it, after the look at an alert.
// Texts are trimmed of white space at both ends.
type ExemptionInput struct {
	Read      plate.Key // mandatory; the plate that was read, another than that of the entry
	Reason    string    // mandatory
	Requester string
	Until     time.Time // mandatory, after now, and at most MaxExemption after it
}

// String gives nothing away: all of an ExemptionInput is what someone typed.
func (in ExemptionInput) String() string { return "exemption input" }

// GoString is String.
func (in ExemptionInput) GoString() string { return in.String() }

// NewExemption makes the exemption that in describes for entry e of list l, or
// returns every rule that in breaks, in the order of its fields. Its Version is 0
// until the control log gives it one. Until is cut to milliseconds.
func NewExemption(l *List, e *Entry, in ExemptionInput, now time.Time) (*Exemption, []FieldError) {
	if len(l.Salt) < SaltSize {
		return nil, []FieldError{{"list", "has no salt; write it again with one"}}
	}
	if !l.Owns(e) {
		return nil, []FieldError{{"entry", "is not on the list"}}
	}
	x := &Exemption{
		ID:        ExemptionID(l, e.ID, in.Read),
		List:      l.ID,
		Entry:     e.ID,
		ListTag:   l.Tag(),
		Read:      in.Read,
		Reason:    strings.TrimSpace(in.Reason),
		Requester: strings.TrimSpace(in.Requester),
	}
	if !in.Until.IsZero() {
		x.Until = utcMillis(in.Until)
	}
	errs := x.Validate(now)
	if x.Read != 0 && x.Read == e.Key {
		errs = append([]FieldError{{"read", "is the plate of the entry, which always alerts: withdraw the entry instead"}}, errs...)
	}
	if errs != nil {
		return nil, errs
	}
	return x, nil
}
