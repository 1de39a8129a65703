package alert

import (
	"errors"
	"slices"
	"testing"

	"vigie/watchlist"
)

func TestNext(t *testing.T) {
	want := map[State]map[Verb]State{
		StateNew:       {VerbTake: StateTaken},
		StateTaken:     {VerbConfirm: StateConfirmed, VerbReject: StateRejected},
		StateConfirmed: {VerbClose: StateClosed},
		StateRejected:  {VerbClose: StateClosed},
		StateClosed:    {},
		StateWithdrawn: {},
	}
	for from := StateNew; from <= StateWithdrawn+1; from++ {
		for v := Verb(0); v <= VerbClose+1; v++ {
			to, ok := want[from][v]
			if !ok {
				to = from
			}
			if got, gotOK := Next(from, v); got != to || gotOK != ok {
				t.Errorf("%v, %v: %v %v, want %v %v", from, v, got, gotOK, to, ok)
			}
		}
	}
	n := 0
	for _, v := range Verbs() {
		for _, tr := range Transitions(v) {
			if to, ok := Next(tr.From, v); !ok || to != tr.To || tr.Verb != v {
				t.Errorf("Transitions(%v) has %+v, Next says %v %v", v, tr, to, ok)
			}
			n++
		}
	}
	if n != len(transitions) {
		t.Errorf("Transitions gives %d steps in all, want %d", n, len(transitions))
	}
}

// TestReread: a later read takes back only what nobody has taken, and brings back only
// what a read took back.
func TestReread(t *testing.T) {
	for hits, want := range map[bool]Transition{
		false: {From: StateNew, To: StateWithdrawn}, true: {From: StateWithdrawn, To: StateNew},
	} {
		if got := Reread(hits); got != want {
			t.Errorf("hits %v: %+v, want %+v", hits, got, want)
		}
	}
}

func TestByOwner(t *testing.T) {
	for _, v := range Verbs() {
		if got, want := v.ByOwner(), v != VerbTake; got != want {
			t.Errorf("%v by the owner only: %v, want %v", v, got, want)
		}
	}
}

func TestOutcomes(t *testing.T) {
	all := []string{"", "misread", "wrong_country", "not_our_target", "stale_entry", "intercepted", "observed", "not_located", "no_action", "AB123CD"}
	for v, want := range map[Verb][]string{
		VerbTake:    {""},
		VerbConfirm: {""},
		VerbReject:  {"misread", "wrong_country", "not_our_target", "stale_entry"},
		VerbClose:   {"intercepted", "observed", "not_located", "no_action"},
	} {
		for _, o := range all {
			err := CheckOutcome(v, o)
			if ok := slices.Contains(want, o); ok != (err == nil) {
				t.Errorf("%v with outcome %q: %v", v, o, err)
			}
			var field *watchlist.FieldError
			if err != nil && (!errors.As(err, &field) || field.Field != "outcome") {
				t.Errorf("%v with outcome %q: %T, want a FieldError of outcome", v, o, err)
			}
		}
	}
}

func TestWords(t *testing.T) {
	for s := StateNew; s <= StateWithdrawn; s++ {
		b, err := s.MarshalText()
		var back State
		if err != nil || back.UnmarshalText(b) != nil || back != s || s.String() != string(b) {
			t.Errorf("state %d: %q, %v, back %v", uint8(s), b, err, back)
		}
	}
	for _, v := range Verbs() {
		b, err := v.MarshalText()
		var back Verb
		if err != nil || back.UnmarshalText(b) != nil || back != v || v.String() != string(b) {
			t.Errorf("verb %d: %q, %v, back %v", uint8(v), b, err, back)
		}
	}
	if _, err := (StateWithdrawn + 1).MarshalText(); err == nil {
		t.Error("a state out of range has a word")
	}
	for _, v := range []Verb{0, VerbClose + 1} {
		if _, err := v.MarshalText(); err == nil {
			t.Errorf("verb %d has a word", uint8(v))
		}
	}
	for _, word := range []string{"", "New", "taken ", "release"} {
		if new(State).UnmarshalText([]byte(word)) == nil {
			t.Errorf("%q is a state", word)
		}
		if new(Verb).UnmarshalText([]byte(word)) == nil {
			t.Errorf("%q is a verb", word)
		}
	}
}
