package watchlist

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"vigie/watchlist/plate"
)

// MaxValidity is how far ahead of now an entry may be valid: two years, rounded
// up so that a bare date two years ahead passes, to the end of its day. It is
// our default, not a legal figure; a longer need is met by renewing the entry,
// which makes someone look at it again.
const MaxValidity = 732 * 24 * time.Hour

// Greatest lengths of texts, in characters, and of sets.
const (
	MaxShortText = 100  // names, owners, case references, requesters
	MaxLongText  = 500  // reasons, purposes, legal bases, descriptions
	MaxPlateText = 32   // a plate as written, separators included
	MaxNameText  = 128  // the id of a sensor, the name of a zone
	MaxSensors   = 1000 // sensors that one list may be limited to; beyond, zones are meant
	MaxZones     = 500  // zones that one list may be limited to
)

// CheckText says what is wrong with s as a text of at most limit characters
// that will be shown to people, or "" when nothing is. Refused are bytes that
// are not UTF-8, the mark of a character lost in a conversion, control characters
// and line breaks, and the marks that turn the direction of writing, with which
// a text can be made to look like another.
func CheckText(s string, limit int) string {
	if !utf8.ValidString(s) {
		return "must be UTF-8"
	}
	for _, r := range s {
		switch {
		case unicode.IsControl(r), r == '\u2028', r == '\u2029':
			return "must not contain control characters or line breaks"
		case r == utf8.RuneError:
			return "contains a character that was lost in a conversion (U+FFFD)"
		case unicode.Is(unicode.Bidi_Control, r):
			return "must not contain marks that change the direction of writing"
		}
	}
	if n := utf8.RuneCountInString(s); n > limit {
		return fmt.Sprintf("has %d characters; at most %d are allowed", n, limit)
	}
	return ""
}

// fieldErrors gathers every broken rule of a value.
type fieldErrors []FieldError

func (errs *fieldErrors) add(field, reason string) {
	*errs = append(*errs, FieldError{Field: field, Reason: reason})
}

// text checks an optional text.
func (errs *fieldErrors) text(field, s string, limit int) {
	if reason := CheckText(s, limit); reason != "" {
		errs.add(field, reason)
	}
}

// mandatory checks a text that must be there.
func (errs *fieldErrors) mandatory(field, s string, limit int) {
	if strings.TrimSpace(s) == "" {
		errs.add(field, "is mandatory")
		return
	}
	errs.text(field, s, limit)
}

// plate parses a plate, or with TolerancePattern a pattern, that must be there. It
// returns 0 and no pattern when it is wrong, otherwise one of the two.
func (errs *fieldErrors) plate(field, s string, t Tolerance) (plate.Key, Pattern) {
	before := len(*errs)
	if errs.mandatory(field, s, MaxPlateText); len(*errs) > before {
		return 0, Pattern{}
	}
	if HasWildcard(s) {
		if t != TolerancePattern {
			errs.add(field, "holds a wildcard, ? or *, which only a list with tolerance pattern takes: put the entry on such a list, or write the whole plate")
			return 0, Pattern{}
		}
		p, err := ParsePattern(s)
		if err != nil {
			errs.add(field, strings.TrimPrefix(err.Error(), "plate: "))
		}
		return 0, p
	}
	return errs.key(field, s), Pattern{}
}

// key parses a plate; it returns 0 when it is wrong.
func (errs *fieldErrors) key(field, s string) plate.Key {
	key, err := plate.Parse(s)
	switch {
	case errors.Is(err, plate.ErrSentinel):
		errs.add(field, "is a word for an unread plate, not a plate")
		return 0
	case err != nil:
		// The texts of plate name the place that is wrong, never the plate.
		errs.add(field, strings.TrimPrefix(err.Error(), "plate: "))
		return 0
	}
	if right, ok := key.ContainerCheckDigit(); ok && !key.IsContainer() {
		errs.add(field, fmt.Sprintf("has the form of a container code, whose check digit would be %d (ISO 6346): look at every character again", right))
		return 0
	}
	return key
}

// names checks a set of sensors or zones.
func (errs *fieldErrors) names(field string, names []string, limit int) {
	if len(names) > limit {
		errs.add(field, fmt.Sprintf("has %d members; at most %d are allowed", len(names), limit))
		return
	}
	for i, name := range names {
		if strings.TrimSpace(name) == "" {
			errs.add(field, fmt.Sprintf("member %d is empty", i+1))
		} else if reason := CheckText(name, MaxNameText); reason != "" {
			errs.add(field, fmt.Sprintf("member %d %s", i+1, reason))
		}
	}
}

// Validate returns every rule that l breaks, in the order of its fields, or nil.
// The id, name, owner, legal basis and salt are mandatory.
func (l *List) Validate() []FieldError {
	var errs fieldErrors
	if !ValidID(l.ID) {
		errs.add("id", idRule)
	}
	errs.mandatory("name", l.Name, MaxShortText)
	errs.mandatory("owner", l.Owner, MaxShortText)
	errs.mandatory("legal_basis", l.LegalBasis, MaxLongText)
	errs.text("purpose", l.Purpose, MaxLongText)
	if int(l.Tolerance) >= len(toleranceNames) {
		errs.add("tolerance", "must be one of: "+wordList(toleranceNames))
	}
	switch {
	case !ValidThreshold(l.Threshold):
		errs.add("threshold", "must be a number from 0 to 1; 0 or nothing leaves the choice to Vigie")
	case l.Threshold != 0 && !l.Tolerance.scores():
		errs.add("threshold", "counts with tolerance ocr and near only; give 0 or nothing with any other")
	}
	if l.Queue != "" && !ValidID(l.Queue) {
		errs.add("queue", idRule)
	}
	errs.names("sensors", l.Sensors, MaxSensors)
	errs.names("zones", l.Zones, MaxZones)
	if int(l.DefaultAction) >= len(actionNames) {
		errs.add("default_action", "must be one of: "+wordList(actionNames))
	}
	if int(l.DefaultPriority) >= len(priorityNames) {
		errs.add("default_priority", "must be one of: "+wordList(priorityNames))
	}
	if len(l.Salt) != SaltSize {
		errs.add("salt", fmt.Sprintf("must be the %d bytes that NewSalt made with the list", SaltSize))
	}
	return errs
}

// ValidThreshold reports whether t may be List.Threshold of a list: 0 to 1, and
// not NaN.
func ValidThreshold(t float32) bool { return t >= 0 && t <= 1 }

// EntryInput is an entry as a person or a file gives it. Texts are trimmed of
// white space at both ends.
type EntryInput struct {
	// Plate is mandatory: anything that plate.Parse takes, but no container code
	// with a wrong check digit. With TolerancePattern also anything that
	// ParsePattern takes.
	Plate     string `json:"plate"`
	Country   string `json:"country,omitempty"`  // anything that plate.ParseCountry takes
	Reason    string `json:"reason"`             // mandatory
	Action    string `json:"action,omitempty"`   // see ParseAction; empty: the default of the list
	Priority  string `json:"priority,omitempty"` // see ParsePriority; empty: the default of the list, else medium
	CaseRef   string `json:"case_ref"`           // mandatory
	Requester string `json:"requester,omitempty"`
	Vehicle   string `json:"vehicle,omitempty"`
	Safety    string `json:"safety,omitempty"`
	// ValidFrom is now when zero. It may lie in the past.
	ValidFrom time.Time `json:"valid_from,omitzero"`
	// ValidUntil is mandatory, after ValidFrom and after now, and at most
	// MaxValidity after now.
	ValidUntil time.Time `json:"valid_until"`
}

// String gives nothing away: all of an EntryInput is what someone typed.
func (in EntryInput) String() string { return "entry input" }

// GoString is String.
func (in EntryInput) GoString() string { return in.String() }

// NewEntry makes the entry that in describes for list l, or returns every rule
// that in breaks, in the order of its fields. Its Version is 0 until the control
// log gives it one. Times are cut to milliseconds.
func NewEntry(l *List, in EntryInput, now time.Time) (*Entry, []FieldError) {
	e, errs := newEntry(l, in, now)
	if errs != nil {
		return nil, errs
	}
	return e, nil
}

// newEntry is NewEntry that returns the entry, as far as it could be made,
// beside the errors: Key and Pattern are both zero only when the plate is wrong.
func newEntry(l *List, in EntryInput, now time.Time) (*Entry, fieldErrors) {
	var errs fieldErrors
	e := &Entry{
		List:      l.ID,
		ListTag:   l.Tag(),
		Plate:     strings.TrimSpace(in.Plate),
		Reason:    strings.TrimSpace(in.Reason),
		CaseRef:   strings.TrimSpace(in.CaseRef),
		Requester: strings.TrimSpace(in.Requester),
		Vehicle:   strings.TrimSpace(in.Vehicle),
		Safety:    strings.TrimSpace(in.Safety),
	}
	if len(l.Salt) < SaltSize {
		errs.add("list", "has no salt; write it again with one")
	}

	e.Key, e.Pattern = errs.plate("plate", e.Plate, l.Tolerance)
	var ok bool
	if e.Country, ok = plate.ParseCountry(strings.TrimSpace(in.Country)); !ok {
		errs.add("country", "is not a country; use ISO 3166-1 alpha-2 such as FR, or nothing when unknown")
	}
	errs.mandatory("reason", e.Reason, MaxLongText)

	e.Action = l.DefaultAction
	if word := strings.TrimSpace(in.Action); word != "" {
		var err error
		if e.Action, err = ParseAction(word); err != nil {
			errs.add("action", err.Error())
		}
	}
	var err error
	if e.Priority, err = ParsePriority(strings.TrimSpace(in.Priority)); err != nil {
		errs.add("priority", err.Error())
	}
	if e.Priority == 0 {
		e.Priority = l.DefaultPriority
	}
	if e.Priority == 0 {
		e.Priority = PriorityMedium
	}
	errs.mandatory("case_ref", e.CaseRef, MaxShortText)
	errs.text("requester", e.Requester, MaxShortText)
	errs.text("vehicle", e.Vehicle, MaxLongText)
	errs.text("safety", e.Safety, MaxLongText)

	e.ValidFrom, e.ValidUntil = utcMillis(in.ValidFrom), utcMillis(in.ValidUntil)
	now = utcMillis(now)
	if in.ValidFrom.IsZero() {
		e.ValidFrom = now
	}
	switch {
	case in.ValidUntil.IsZero():
		errs.add("valid_until", "is mandatory: nothing is wanted for ever")
	case !e.ValidUntil.After(now):
		errs.add("valid_until", "is not in the future")
	case !e.ValidUntil.After(e.ValidFrom):
		errs.add("valid_until", "is not after valid_from")
	case e.ValidUntil.Sub(now) > MaxValidity:
		errs.add("valid_until", fmt.Sprintf("is more than %d days ahead", MaxValidity/(24*time.Hour)))
	}

	switch {
	case errs != nil:
	case !e.Pattern.IsZero():
		e.ID = PatternID(l, e.Pattern, e.Country)
	default:
		e.ID = EntryID(l, e.Key, e.Country)
	}
	return e, errs
}

// utcMillis is t as the control log keeps it.
func utcMillis(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()).UTC() }

// errDate says which dates can be read; it does not repeat the one that cannot.
var errDate = errors.New("is not a date; use yyyy-mm-dd, dd/mm/yyyy, either with hh:mm, or RFC 3339")

// dateLayouts are tried in order. The day comes before the month, as in most of
// Europe. One layout reads one or two digits for day, month and hour.
var dateLayouts = []struct {
	layout string
	bare   bool // a date without a time
}{
	{time.RFC3339, false},
	{"2006-1-2", true},
	{"2/1/2006", true},
	{"2006-1-2 15:04", false},
	{"2006-1-2 15:04:05", false},
	{"2006-1-2T15:04:05", false},
	{"2/1/2006 15:04", false},
	{"2/1/2006 15:04:05", false},
}

// ParseValidFrom reads a moment at which validity begins. s is yyyy-mm-dd,
// dd/mm/yyyy, either one with hh:mm or hh:mm:ss, or RFC 3339. A date without a time
// is the start of that day; without a zone it is meant in loc (nil: UTC).
func ParseValidFrom(s string, loc *time.Location) (time.Time, error) {
	t, _, err := parseDate(s, loc)
	return t, err
}

// ParseValidUntil reads a moment at which validity ends. It takes what
// ParseValidFrom takes, but a date without a time is the end of that day in loc:
// since ValidUntil is exclusive, the first moment of the next.
func ParseValidUntil(s string, loc *time.Location) (time.Time, error) {
	t, bare, err := parseDate(s, loc)
	if bare {
		y, m, d := t.Date()
		t = time.Date(y, m, d+1, 0, 0, 0, 0, t.Location())
	}
	return t, err
}

func parseDate(s string, loc *time.Location) (t time.Time, bare bool, err error) {
	if loc == nil {
		loc = time.UTC
	}
	s = strings.TrimSpace(s)
	for _, l := range dateLayouts {
		if t, err := time.ParseInLocation(l.layout, s, loc); err == nil {
			return t, l.bare, nil
		}
	}
	return time.Time{}, false, errDate
}
