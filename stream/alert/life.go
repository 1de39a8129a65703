package alert

import (
	"fmt"
	"slices"
	"strings"

	"vigie/watchlist"
)

// State is where an alert stands.
type State uint8

const (
	StateNew       State = iota // nobody has it yet
	StateTaken                  // one patrol has it
	StateConfirmed              // that patrol compared the picture: the read is right
	StateRejected               // that patrol compared the picture: the read or the entry is wrong
	StateClosed                 // an outcome is recorded
	StateWithdrawn              // nobody had it yet when the camera read another plate
)

var stateNames = []string{"new", "taken", "confirmed", "rejected", "closed", "withdrawn"}

// Verb is what somebody does with an alert. The zero value is no verb.
type Verb uint8

const (
	VerbTake    Verb = iota + 1 // take it in charge; the first one wins
	VerbConfirm                 // the picture shows the wanted plate
	VerbReject                  // it does not, or the entry is wrong
	VerbClose                   // record how it ended
)

var verbNames = []string{"", "take", "confirm", "reject", "close"}

// Transition is one permitted step.
type Transition struct {
	From State
	Verb Verb
	To   State
}

// transitions is the whole life of an alert. The script that steps an alert in
// Redis is given these rows and has no table of its own.
var transitions = []Transition{
	{StateNew, VerbTake, StateTaken},
	{StateTaken, VerbConfirm, StateConfirmed},
	{StateTaken, VerbReject, StateRejected},
	{StateConfirmed, VerbClose, StateClosed},
	{StateRejected, VerbClose, StateClosed},
}

// Reread returns the step that a later read of the passage makes by itself in an alert
// whose entry it hits, or no longer hits; its Verb is none. Only an alert that nobody has
// taken is withdrawn, and only by a reading that overrules (see Reading): whoever has taken
// it, or has judged the picture, is told and decides. What was withdrawn comes back when
// the camera reads the wanted plate again.
func Reread(hits bool) Transition {
	if hits {
		return Transition{From: StateWithdrawn, To: StateNew}
	}
	return Transition{From: StateNew, To: StateWithdrawn}
}

// Verbs returns all verbs.
func Verbs() []Verb { return []Verb{VerbTake, VerbConfirm, VerbReject, VerbClose} }

// Transitions returns the steps that v can make.
func Transitions(v Verb) []Transition {
	var ts []Transition
	for _, t := range transitions {
		if t.Verb == v {
			ts = append(ts, t)
		}
	}
	return ts
}

// Next returns the state after v, or false when v may not follow from.
func Next(from State, v Verb) (State, bool) {
	for _, t := range transitions {
		if t.From == from && t.Verb == v {
			return t.To, true
		}
	}
	return from, false
}

// ByOwner reports whether only the one who took the alert may do v. Taking makes
// the owner, so anybody who sees the alert may.
func (v Verb) ByOwner() bool { return v != VerbTake }

// Outcomes that reject and close must give, each from a closed set: they are
// counted by list and by sensor.
const (
	OutcomeMisread      = "misread"        // the plate on the picture reads otherwise
	OutcomeWrongCountry = "wrong_country"  // same text, plate of another country
	OutcomeNotOurTarget = "not_our_target" // right plate, other vehicle: a copy, or a changed holder
	OutcomeStaleEntry   = "stale_entry"    // the entry should have been withdrawn

	OutcomeIntercepted = "intercepted" // the vehicle was stopped
	OutcomeObserved    = "observed"    // it was seen and reported, not stopped
	OutcomeNotLocated  = "not_located" // it was not found
	OutcomeNoAction    = "no_action"   // nothing was done
)

// Outcomes of the steps that the matcher makes by a later read of the passage.
const (
	OutcomeOtherPlate = "other_plate"  // the camera now reads another plate; the alert is withdrawn, or somebody has to compare
	OutcomeReadAgain  = "read_again"   // after that, it reads one that hits again
	OutcomeEvidence   = "new_evidence" // it still hits, by other evidence
)

// Outcomes returns the outcomes of which v must give one; none for take and
// confirm, which take no outcome.
func Outcomes(v Verb) []string {
	switch v {
	case VerbReject:
		return []string{OutcomeMisread, OutcomeWrongCountry, OutcomeNotOurTarget, OutcomeStaleEntry}
	case VerbClose:
		return []string{OutcomeIntercepted, OutcomeObserved, OutcomeNotLocated, OutcomeNoAction}
	}
	return nil
}

// CheckOutcome reports an outcome that does not belong to v. The error is a
// *watchlist.FieldError and does not repeat what was given.
func CheckOutcome(v Verb, outcome string) error {
	known := Outcomes(v)
	switch {
	case len(known) == 0 && outcome != "":
		return &watchlist.FieldError{Field: "outcome", Reason: fmt.Sprintf("%s takes no outcome; leave it out", v)}
	case len(known) > 0 && !slices.Contains(known, outcome):
		return &watchlist.FieldError{
			Field:  "outcome",
			Reason: fmt.Sprintf("%s needs one of: %s", v, strings.Join(known, ", ")),
		}
	}
	return nil
}

// Event is one step in the life of an alert, as written to the hits topic and
// shown to everyone who watches its queue.
type Event struct {
	AlertID string `json:"alert"`
	Step    uint32 `json:"step"` // 1 is the hit itself
	State   State  `json:"state"`
	Queue   string `json:"queue"`
	At      int64  `json:"at"`                // milliseconds since the Unix epoch
	Actor   string `json:"actor,omitempty"`   // who took the step; empty for the matcher
	Outcome string `json:"outcome,omitempty"` // see Outcomes
	Note    string `json:"note,omitempty"`
	Alert   *Alert `json:"-"` // on step 1 only

	// Revision is that of the read by which the matcher made a step after the hit; 0
	// for the hit and for what people do.
	Revision uint32 `json:"revision,omitempty"`
	// Amended is the alert as it is from this step on, with OutcomeReadAgain and
	// OutcomeEvidence only.
	Amended *Alert `json:"amended,omitempty"`
}

// Hit returns the first event of an alert.
func Hit(a *Alert) *Event {
	return &Event{AlertID: a.ID, Step: 1, State: StateNew, Queue: a.Queue, At: a.Created, Alert: a}
}

// String names the event without its note, which may hold anything.
func (e Event) String() string {
	return fmt.Sprintf("alert %s step %d %s", e.AlertID, e.Step, e.State)
}

// GoString is String, so that %#v gives no more away.
func (e Event) GoString() string { return e.String() }

// Standing is where an alert stands now and how it came there.
type Standing struct {
	State  State    `json:"state"`
	Owner  string   `json:"owner,omitempty"`  // who took it; empty while it is new
	Step   uint32   `json:"step"`             // number of the last event
	Events []*Event `json:"events,omitempty"` // those after the hit, in order
}

// String returns the word for s, or "State(n)" for a value out of range.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// MarshalText returns the word for s. It fails for a value out of range.
func (s State) MarshalText() ([]byte, error) {
	if int(s) < len(stateNames) {
		return []byte(stateNames[s]), nil
	}
	return nil, fmt.Errorf("alert: state %d is out of range", uint8(s))
}

// UnmarshalText reads one of the words new, taken, confirmed, rejected, closed,
// withdrawn.
func (s *State) UnmarshalText(b []byte) error {
	i := slices.Index(stateNames, string(b))
	if i < 0 {
		return fmt.Errorf("alert: unknown state; use one of: %s", strings.Join(stateNames, ", "))
	}
	*s = State(i)
	return nil
}

// String returns the word for v, or "Verb(n)" for a value that is no verb.
func (v Verb) String() string {
	if v != 0 && int(v) < len(verbNames) {
		return verbNames[v]
	}
	return fmt.Sprintf("Verb(%d)", uint8(v))
}

// MarshalText returns the word for v. It fails for a value that is no verb.
func (v Verb) MarshalText() ([]byte, error) {
	if v != 0 && int(v) < len(verbNames) {
		return []byte(verbNames[v]), nil
	}
	return nil, fmt.Errorf("alert: verb %d is out of range", uint8(v))
}

// UnmarshalText reads one of the words take, confirm, reject, close.
func (v *Verb) UnmarshalText(b []byte) error {
	i := slices.Index(verbNames, string(b))
	if i < 1 {
		return fmt.Errorf("alert: unknown verb; use one of: %s", strings.Join(verbNames[1:], ", "))
	}
	*v = Verb(i)
	return nil
}
