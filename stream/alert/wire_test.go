package alert

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"vigie/stream/alert/alertpb"
)

// TestEventRoundTrip fills every field there is, so that one added later and
// forgotten in the wire form fails here.
func TestEventRoundTrip(t *testing.T) {
	full := Event{}
	fill(reflect.ValueOf(&full).Elem(), new(int))
	full.Step, full.AlertID = 2, full.Amended.ID
	first := full
	first.Step, first.AlertID, first.Revision, first.Amended, full.Alert = 1, full.Alert.ID, 0, nil, nil
	step := Event{AlertID: "a", Step: 3, State: StateRejected, Queue: "q", At: 1, Actor: "bri-12", Outcome: OutcomeMisread, Note: "é"}
	for name, e := range map[string]*Event{
		"everything": &full, "everything of a hit": &first, "hit": Hit(New(hit())), "step": &step,
		"bare": {AlertID: "a", Step: 1, Alert: &Alert{ID: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := MarshalEvent(e)
			if err != nil {
				t.Fatal(err)
			}
			got, err := UnmarshalEvent(b)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, e) {
				t.Errorf("got %s\nwant %s", show(t, got), show(t, e))
			}
			// A field of a later version is no reason to lose a hit.
			b = protowire.AppendTag(b, 1000, protowire.BytesType)
			b = protowire.AppendString(b, "from the future")
			if got, err := UnmarshalEvent(b); err != nil || !reflect.DeepEqual(got, e) {
				t.Errorf("with an unknown field: %v, %v", got, err)
			}
		})
	}
}

func TestMarshalEventRefuses(t *testing.T) {
	for name, change := range map[string]func(*Event){
		"no id":              func(e *Event) { e.AlertID = "" },
		"no step":            func(e *Event) { e.Step = 0 },
		"hit without alert":  func(e *Event) { e.Alert = nil },
		"alert on a step":    func(e *Event) { e.Step = 2 },
		"alert of another":   func(e *Event) { e.Alert.ID = "other" },
		"hit that amends":    func(e *Event) { e.Amended = e.Alert },
		"hit with revision":  func(e *Event) { e.Revision = 1 },
		"amended by nothing": func(e *Event) { e.Step, e.Amended, e.Alert = 2, e.Alert, nil },
		"amends another": func(e *Event) {
			e.Step, e.Revision, e.Amended, e.Alert, e.AlertID = 2, 1, e.Alert, nil, "other"
		},
		"amended action": func(e *Event) {
			e.Step, e.Revision, e.Amended, e.Alert = 2, 1, e.Alert, nil
			e.Amended.Action = 99
		},
		"state":              func(e *Event) { e.State = 99 },
		"action":             func(e *Event) { e.Alert.Action = 99 },
		"priority":           func(e *Event) { e.Alert.Priority = 99 },
		"text that is bytes": func(e *Event) { e.Note = "AB-123-CD\xff" },
	} {
		t.Run(name, func(t *testing.T) {
			e := Hit(New(hit()))
			change(e)
			_, err := MarshalEvent(e)
			if err == nil {
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), "AB") {
				t.Errorf("the error shows the text: %v", err)
			}
		})
	}
}

func TestUnmarshalEventRefuses(t *testing.T) {
	good := func() *Event { return Hit(New(hit())) }
	for name, b := range map[string][]byte{
		"empty":        {},
		"garbage":      []byte("{\"plate\":\"AB123CD\"}"),
		"cut":          mustMarshal(t, good())[:40],
		"state":        mutated(t, good(), func(m *alertpb.AlertEvent) { m.State = "AB123CD" }),
		"action":       mutated(t, good(), func(m *alertpb.AlertEvent) { m.Alert.Action = "AB123CD" }),
		"country":      mutated(t, good(), func(m *alertpb.AlertEvent) { m.Alert.EntryCountry = "AB123CD" }),
		"alert absent": mutated(t, good(), func(m *alertpb.AlertEvent) { m.Alert = nil }),
		"priority":     mutated(t, good(), func(m *alertpb.AlertEvent) { m.Alert.Priority = 258 }), // 2 in 8 bits
	} {
		e, err := UnmarshalEvent(b)
		if err == nil {
			t.Errorf("%s: read as %v", name, e)
		} else if strings.Contains(err.Error(), "AB123CD") {
			t.Errorf("%s: the error shows what it read: %v", name, err)
		}
	}
}

// FuzzUnmarshalEvent: what is accepted can be written again, to the same event,
// and shown as JSON.
func FuzzUnmarshalEvent(f *testing.F) {
	f.Add(mustMarshal(f, Hit(New(hit()))))
	f.Add(mustMarshal(f, &Event{AlertID: "a", Step: 2, State: StateTaken, Queue: "q", Actor: "x"}))
	f.Add([]byte{0x08, 0x01})
	amended := Hit(New(hit()))
	amended.Step, amended.Revision, amended.Amended, amended.Alert = 2, 1, amended.Alert, nil
	f.Add(mustMarshal(f, amended))
	nan := Hit(New(hit()))
	nan.Alert.Match.Score, nan.Alert.Place.Lat = float32(math.NaN()), math.Inf(-1)
	nan.Alert.Read.CharConf[0] = float32(math.Inf(1))
	f.Add(mustMarshal(f, nan))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := UnmarshalEvent(b)
		if err != nil {
			return
		}
		again, err := MarshalEvent(e)
		if err != nil {
			t.Fatalf("accepted but cannot be written: %v", err)
		}
		back, err := UnmarshalEvent(again)
		if err != nil {
			t.Fatalf("written but not accepted: %v", err)
		}
		if !reflect.DeepEqual(back, e) {
			t.Errorf("got %s\nwant %s", show(t, back), show(t, e))
		}
		if e.Alert != nil {
			show(t, back)
		}
	})
}
func mustMarshal(t testing.TB, e *Event) []byte {
	t.Helper()
	b, err := MarshalEvent(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// show is e with its alert, for a failure message.
func show(t testing.TB, e *Event) string {
	t.Helper()
	b, err := json.Marshal(struct {
		*Event
		A *Alert
	}{e, e.Alert})
	if err != nil {
		t.Fatalf("cannot be shown as JSON: %v", err)
	}
	return string(b)
}

// mutated is the wire form of e after change.
func mutated(t testing.TB, e *Event, change func(*alertpb.AlertEvent)) []byte {
	t.Helper()
	var m alertpb.AlertEvent
	if err := proto.Unmarshal(mustMarshal(t, e), &m); err != nil {
		t.Fatal(err)
	}
	change(&m)
	b, err := proto.Marshal(&m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
