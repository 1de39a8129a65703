package watchlist

import (
	"fmt"
	"slices"
	"strings"
)

// Tolerance says how far a read may be from an entry and still hit. It belongs
// to the list, because tolerance on a mass list drowns patrols in false hits.
type Tolerance uint8

const (
	// ToleranceExact hits only when the normalised texts are equal.
	ToleranceExact Tolerance = iota
	// ToleranceOCR also hits on look-alikes and likely misreads whose score
	// reaches the threshold of the list.
	ToleranceOCR
	// ToleranceNear, for small lists of high priority, also hits on texts
	// within one edit (a character more, less or another), ranked by the
	// evidence of the read, whose score reaches the threshold of the list. At
	// most MaxNear entries.
	ToleranceNear
	// TolerancePattern takes entries with wildcards, see Pattern: ? is one
	// character and * any run. It hits when the normalised text of the read
	// matches. At most MaxPatterns entries, plain plates included.
	TolerancePattern
)

var toleranceNames = []string{"exact", "ocr", "near", "pattern"}

// The greatest number of entries on a list, by its tolerance. What one read may
// meet by chance grows with the list, and so does the cost of asking.
const (
	MaxNear     = 20_000 // with ToleranceNear
	MaxPatterns = 1_000  // with TolerancePattern
)

// MaxEntries returns how many entries a list of tolerance t may hold; 0 means no
// limit.
func (t Tolerance) MaxEntries() int {
	switch t {
	case ToleranceNear:
		return MaxNear
	case TolerancePattern:
		return MaxPatterns
	}
	return 0
}

// scores reports whether hits of t on a text that differs have a score that must
// reach the threshold of the list.
func (t Tolerance) scores() bool { return t == ToleranceOCR || t == ToleranceNear }

// Action is what the patrol is asked to do. It comes first on an alert.
type Action uint8

const (
	// ActionInform asks for nothing but attention.
	ActionInform Action = iota
	// ActionIntercept asks for a stop.
	ActionIntercept
	// ActionDiscreet is a SIS discreet check: never stop, never reveal.
	ActionDiscreet
	// ActionInquiry is a SIS inquiry check: question, without a search.
	ActionInquiry
	// ActionSpecific is a SIS specific check: search of person, vehicle and objects.
	ActionSpecific
)

var actionNames = []string{"inform", "intercept", "discreet", "inquiry", "specific"}

// AsksForStop reports whether a patrol that follows a stops the vehicle. A late
// or discreet alert never may.
func (a Action) AsksForStop() bool {
	return a == ActionIntercept || a == ActionInquiry || a == ActionSpecific
}

// Priority orders alerts for a patrol. The zero value means "not said", written
// as the empty word; it is replaced by the list's default, then by
// PriorityMedium.
type Priority uint8

const (
	PriorityCritical Priority = iota + 1 // danger to life
	PriorityHigh
	PriorityMedium
	PriorityInfo
)

var priorityNames = []string{"", "critical", "high", "medium", "info"}

// The three types travel as words in JSON, CSV and the control log, never as
// numbers: a word survives a change of order, and a person can read it. An
// unknown word is an error that lists the known ones and does not repeat the
// unknown one.

// ParseTolerance returns the tolerance called word: exact, ocr, near, pattern.
func ParseTolerance(word string) (Tolerance, error) {
	return parseWord[Tolerance]("tolerance", toleranceNames, word)
}

// String returns the word for t, or "Tolerance(n)" for a value out of range.
func (t Tolerance) String() string { return wordOr("Tolerance", toleranceNames, t) }

// MarshalText returns the word for t. It fails for a value out of range.
func (t Tolerance) MarshalText() ([]byte, error) {
	return wordBytes("tolerance", toleranceNames, t)
}

// UnmarshalText is ParseTolerance.
func (t *Tolerance) UnmarshalText(b []byte) (err error) {
	return setWord(t, ParseTolerance, b)
}

// ParseAction returns the action called word: inform, intercept, discreet,
// inquiry, specific.
func ParseAction(word string) (Action, error) {
	return parseWord[Action]("action", actionNames, word)
}

// String returns the word for a, or "Action(n)" for a value out of range.
func (a Action) String() string { return wordOr("Action", actionNames, a) }

// MarshalText returns the word for a. It fails for a value out of range.
func (a Action) MarshalText() ([]byte, error) { return wordBytes("action", actionNames, a) }

// UnmarshalText is ParseAction.
func (a *Action) UnmarshalText(b []byte) error { return setWord(a, ParseAction, b) }

// ParsePriority returns the priority called word: critical, high, medium, info,
// or the empty word for 0, "not said".
func ParsePriority(word string) (Priority, error) {
	return parseWord[Priority]("priority", priorityNames, word)
}

// String returns the word for p, or "Priority(n)" for a value out of range.
func (p Priority) String() string { return wordOr("Priority", priorityNames, p) }

// MarshalText returns the word for p. It fails for a value out of range.
func (p Priority) MarshalText() ([]byte, error) { return wordBytes("priority", priorityNames, p) }

// UnmarshalText is ParsePriority.
func (p *Priority) UnmarshalText(b []byte) error { return setWord(p, ParsePriority, b) }

func parseWord[T ~uint8](kind string, words []string, word string) (T, error) {
	if i := slices.Index(words, word); i >= 0 {
		return T(i), nil
	}
	return 0, fmt.Errorf("unknown %s; use one of: %s", kind, wordList(words))
}

func wordOr[T ~uint8](typ string, words []string, v T) string {
	if int(v) < len(words) {
		return words[v]
	}
	return fmt.Sprintf("%s(%d)", typ, uint8(v))
}

func wordBytes[T ~uint8](kind string, words []string, v T) ([]byte, error) {
	if int(v) < len(words) {
		return []byte(words[v]), nil
	}
	return nil, fmt.Errorf("watchlist: %s %d is out of range", kind, uint8(v))
}

func setWord[T ~uint8](dst *T, parse func(string) (T, error), b []byte) error {
	v, err := parse(string(b))
	if err != nil {
		return fmt.Errorf("watchlist: %w", err)
	}
	*dst = v
	return nil
}

// wordList joins the words that can be written, for an error text.
func wordList(words []string) string {
	return strings.TrimPrefix(strings.Join(words, ", "), ", ")
}
