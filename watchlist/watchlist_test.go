package watchlist_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vigie/watchlist"
)

func TestWords(t *testing.T) {
	type word interface {
		fmt.Stringer
		MarshalText() ([]byte, error)
	}
	tests := []struct {
		v    word
		want string
	}{
		{watchlist.ToleranceExact, "exact"},
		{watchlist.ToleranceOCR, "ocr"},
		{watchlist.ToleranceNear, "near"},
		{watchlist.TolerancePattern, "pattern"},
		{watchlist.ActionInform, "inform"},
		{watchlist.ActionIntercept, "intercept"},
		{watchlist.ActionDiscreet, "discreet"},
		{watchlist.ActionInquiry, "inquiry"},
		{watchlist.ActionSpecific, "specific"},
		{watchlist.Priority(0), ""},
		{watchlist.PriorityCritical, "critical"},
		{watchlist.PriorityHigh, "high"},
		{watchlist.PriorityMedium, "medium"},
		{watchlist.PriorityInfo, "info"},
	}
	for _, tt := range tests {
		text, err := tt.v.MarshalText()
		if got := tt.v.String(); got != tt.want || string(text) != tt.want || err != nil {
			t.Errorf("%T: String %q, MarshalText %q, %v; want %q", tt.v, got, text, err, tt.want)
		}
		var back word
		switch tt.v.(type) {
		case watchlist.Tolerance:
			var v watchlist.Tolerance
			err = v.UnmarshalText(text)
			back = v
		case watchlist.Action:
			var v watchlist.Action
			err = v.UnmarshalText(text)
			back = v
		case watchlist.Priority:
			var v watchlist.Priority
			err = v.UnmarshalText(text)
			back = v
		}
		if err != nil || back != tt.v {
			t.Errorf("UnmarshalText(%q) = %v, %v, want %v", text, back, err, tt.v)
		}
	}
	for _, v := range []word{watchlist.Tolerance(4), watchlist.Action(5), watchlist.Priority(5)} {
		if text, err := v.MarshalText(); err == nil {
			t.Errorf("MarshalText of %v = %q, want an error", v, text)
		}
		if got := v.String(); !strings.Contains(got, "(") {
			t.Errorf("String of an unknown value = %q", got)
		}
	}
}

func TestUnknownWordListsTheKnownOnes(t *testing.T) {
	tests := []struct {
		parse func(string) error
		want  string
	}{
		{func(s string) error { _, err := watchlist.ParseTolerance(s); return err }, "unknown tolerance; use one of: exact, ocr, near, pattern"},
		{func(s string) error { _, err := watchlist.ParseAction(s); return err }, "unknown action; use one of: inform, intercept, discreet, inquiry, specific"},
		{func(s string) error { _, err := watchlist.ParsePriority(s); return err }, "unknown priority; use one of: critical, high, medium, info"},
	}
	for _, tt := range tests {
		for _, word := range []string{"AB123CD", "Exact", "HIGH", "inform "} {
			err := tt.parse(word)
			if err == nil || err.Error() != tt.want {
				t.Errorf("parse %q: %v, want %s", word, err, tt.want)
			}
		}
	}
}

func TestMaxEntries(t *testing.T) {
	for tol, want := range map[watchlist.Tolerance]int{
		watchlist.ToleranceExact: 0, watchlist.ToleranceOCR: 0, watchlist.ToleranceNear: 20_000, watchlist.TolerancePattern: 1_000,
	} {
		if got := tol.MaxEntries(); got != want {
			t.Errorf("%v.MaxEntries() = %d, want %d", tol, got, want)
		}
	}
}

func TestActionsThatStop(t *testing.T) {
	for a, want := range map[watchlist.Action]bool{
		watchlist.ActionInform: false, watchlist.ActionIntercept: true, watchlist.ActionDiscreet: false,
		watchlist.ActionInquiry: true, watchlist.ActionSpecific: true,
	} {
		if got := a.AsksForStop(); got != want {
			t.Errorf("%v.AsksForStop() = %v, want %v", a, got, want)
		}
	}
}

func TestAllowsAt(t *testing.T) {
	tests := []struct {
		name           string
		sensors, zones []string
		at             string
		in             []string
		want           bool
	}{
		{"no limit", nil, nil, "s1", nil, true},
		{"no limit, sensor unknown", nil, nil, "", nil, true},
		{"named sensor", []string{"s0", "s1"}, nil, "s1", nil, true},
		{"other sensor", []string{"s0"}, nil, "s1", []string{"z1"}, false},
		{"in zone", nil, []string{"z0", "z1"}, "s1", []string{"z9", "z1"}, true},
		{"outside zone", nil, []string{"z0"}, "s1", []string{"z1"}, false},
		{"sensor without zones", nil, []string{"z0"}, "s1", nil, false},
		{"either is enough", []string{"s1"}, []string{"z0"}, "s1", []string{"z1"}, true},
		{"a zone is no sensor", []string{"z1"}, nil, "s1", []string{"z1"}, false},
	}
	for _, tt := range tests {
		l := &watchlist.List{Sensors: tt.sensors, Zones: tt.zones}
		if got := l.AllowsAt(tt.at, tt.in); got != tt.want {
			t.Errorf("%s: AllowsAt(%q, %q) = %v, want %v", tt.name, tt.at, tt.in, got, tt.want)
		}
	}
}

func TestValidAt(t *testing.T) {
	e := &watchlist.Entry{ValidFrom: now, ValidUntil: now.Add(time.Hour)}
	from, until := e.ValidFrom.UnixMilli(), e.ValidUntil.UnixMilli()
	for ms, want := range map[int64]bool{
		from - 1: false, from: true, until - 1: true, until: false, 0: false,
	} {
		if got := e.ValidAt(ms); got != want {
			t.Errorf("ValidAt(from%+d) = %v, want %v", ms-from, got, want)
		}
	}
}

// TestNothingPrintsAPlate covers the careless log line.
func TestNothingPrintsAPlate(t *testing.T) {
	l, in := stolen(), input()
	e, errs := watchlist.NewEntry(l, in, now)
	if errs != nil {
		t.Fatal(errs)
	}
	for _, v := range []any{e, *e, in, &in, l, *l, []any{*e, in, *l}, struct {
		E watchlist.Entry
		L watchlist.List
	}{*e, *l}} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			s := fmt.Sprintf(format, v)
			if strings.Contains(s, "AB") || strings.Contains(s, "123") {
				t.Errorf("%s of %T gives away a plate or a salt: %s", format, v, s)
			}
		}
	}
	if got, want := e.String(), "entry stolen/"+e.ID+" v0"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
}

func TestJSON(t *testing.T) {
	l := stolen()
	l.Purpose = "recherche des véhicules volés"
	l.Tolerance, l.Threshold = watchlist.ToleranceOCR, 0.35
	l.Queue = "patrol-nord"
	l.Zones = []string{"59", "62"}
	l.DefaultPriority = watchlist.PriorityHigh
	l.Version = 41
	golden(t, "list.json", l)

	in := input()
	in.Requester = "BRI 12"
	in.Vehicle = "Renault Clio grise"
	in.Safety = "conducteur armé"
	e, errs := watchlist.NewEntry(l, in, now)
	if errs != nil {
		t.Fatal(errs)
	}
	e.Version = 42
	golden(t, "entry.json", e)

	_, errs = watchlist.NewEntry(l, watchlist.EntryInput{Plate: "AB 123 CD?", Country: "Gaule", Action: "stop", Priority: "1"}, now)
	golden(t, "entry_errors.json", errs)
	bad := &watchlist.List{Threshold: 1.5}
	golden(t, "list_errors.json", bad.Validate())
}
