package watchlist_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"vigie/watchlist"
)

// fields joins the fields of errs, in order.
func fields(errs []watchlist.FieldError) string {
	var names []string
	for _, e := range errs {
		names = append(names, e.Field)
	}
	return strings.Join(names, " ")
}

func TestListValidate(t *testing.T) {
	long := func(n int) string { return strings.Repeat("é", n) }
	many := func(n int) []string {
		s := make([]string, n)
		for i := range s {
			s[i] = fmt.Sprintf("s%d", i)
		}
		return s
	}
	tests := []struct {
		name   string
		change func(*watchlist.List)
		want   string // fields in error
	}{
		{"good", func(*watchlist.List) {}, ""},
		{"all set", func(l *watchlist.List) {
			l.Queue, l.Tolerance, l.DefaultPriority = "patrol-1", watchlist.ToleranceOCR, watchlist.PriorityInfo
			l.Sensors, l.Zones, l.Purpose = []string{"A7-118-2"}, []string{"Nord (59)"}, "enquête"
		}, ""},
		{"longest", func(l *watchlist.List) {
			l.Name, l.LegalBasis = long(watchlist.MaxShortText), long(watchlist.MaxLongText)
			l.Sensors, l.Zones = many(watchlist.MaxSensors), many(watchlist.MaxZones)
		}, ""},
		{"too long", func(l *watchlist.List) {
			l.Name, l.LegalBasis = long(watchlist.MaxShortText+1), long(watchlist.MaxLongText+1)
			l.Sensors, l.Zones = many(watchlist.MaxSensors+1), many(watchlist.MaxZones+1)
		}, "name legal_basis sensors zones"},
		{"empty", func(l *watchlist.List) { *l = watchlist.List{} }, "id name owner legal_basis salt"},
		{"white space only", func(l *watchlist.List) { l.Name, l.Owner = " ", "\u00a0" }, "name owner"},
		{"id", func(l *watchlist.List) { l.ID = "Stolen" }, "id"},
		{"queue", func(l *watchlist.List) { l.Queue = "{q}" }, "queue"},
		{"threshold, ocr", func(l *watchlist.List) { l.Tolerance, l.Threshold = watchlist.ToleranceOCR, 1 }, ""},
		{"threshold, near", func(l *watchlist.List) { l.Tolerance, l.Threshold = watchlist.ToleranceNear, 0.004 }, ""},
		{"threshold, exact", func(l *watchlist.List) { l.Threshold = 0.5 }, "threshold"},
		{"threshold, pattern", func(l *watchlist.List) { l.Tolerance, l.Threshold = watchlist.TolerancePattern, 0.5 }, "threshold"},
		{"threshold, too high", func(l *watchlist.List) { l.Tolerance, l.Threshold = watchlist.ToleranceOCR, 1.01 }, "threshold"},
		{"threshold, negative", func(l *watchlist.List) { l.Tolerance, l.Threshold = watchlist.ToleranceOCR, -0.01 }, "threshold"},
		{"threshold, not a number", func(l *watchlist.List) { l.Threshold = float32(math.NaN()) }, "threshold"},
		{"numbers out of range", func(l *watchlist.List) { l.Tolerance, l.DefaultAction, l.DefaultPriority = 9, 9, 9 },
			"tolerance default_action default_priority"},
		{"bad members", func(l *watchlist.List) { l.Sensors, l.Zones = []string{"a", ""}, []string{"\x00", "\u202e"} },
			"sensors zones zones"},
		{"short salt", func(l *watchlist.List) { l.Salt = l.Salt[:15] }, "salt"},
		{"control characters", func(l *watchlist.List) { l.Name, l.Owner, l.Purpose = "a\tb", "a\u2066b", "a\xffb" }, "name owner purpose"},
	}
	for _, tt := range tests {
		l := stolen()
		tt.change(l)
		errs := l.Validate()
		if got := fields(errs); got != tt.want {
			t.Errorf("%s: Validate() = %v, want errors in %q", tt.name, errs, tt.want)
		}
	}
}

func TestNewEntryFillsIn(t *testing.T) {
	l := stolen()
	fine := now.Add(123456 * time.Microsecond)
	in := input()
	in.Plate, in.Reason = "  ab 123 cd ", "\tvol "
	e, errs := watchlist.NewEntry(l, in, fine.In(paris))
	if errs != nil {
		t.Fatal(errs)
	}
	if e.Plate != "ab 123 cd" || e.Key.String() != "AB123CD" || e.Reason != "vol" || e.Country.String() != "FR" {
		t.Errorf("plate %q key %q reason %q country %v", e.Plate, e.Key.String(), e.Reason, e.Country)
	}
	if e.Action != watchlist.ActionIntercept || e.Priority != watchlist.PriorityMedium {
		t.Errorf("action %v, priority %v, want the list's intercept and medium", e.Action, e.Priority)
	}
	if want := now.Add(123 * time.Millisecond); e.ValidFrom != want {
		t.Errorf("valid_from %v, want %v: UTC and whole milliseconds", e.ValidFrom, want)
	}
	if want := watchlist.EntryID(l, e.Key, e.Country); e.ID != want || e.List != l.ID || e.ListTag != l.Tag() {
		t.Errorf("id %q list %q tag %d", e.ID, e.List, e.ListTag)
	}

	l.DefaultPriority = watchlist.PriorityHigh
	if e, _ := watchlist.NewEntry(l, in, now); e.Priority != watchlist.PriorityHigh {
		t.Errorf("priority %v, want the list's high", e.Priority)
	}
	in.Action, in.Priority = "discreet", "info"
	if e, _ := watchlist.NewEntry(l, in, now); e.Action != watchlist.ActionDiscreet || e.Priority != watchlist.PriorityInfo {
		t.Errorf("action %v, priority %v, want its own discreet and info", e.Action, e.Priority)
	}
}

func TestNewEntryRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*watchlist.EntryInput)
		want   string // fields in error
	}{
		{"nothing", func(*watchlist.EntryInput) {}, ""},
		{"everything at once", func(in *watchlist.EntryInput) { *in = watchlist.EntryInput{Country: "??", Action: "?", Priority: "?"} },
			"plate country reason action priority case_ref valid_until"},
		{"bad plate", func(in *watchlist.EntryInput) { in.Plate = "AB,123" }, "plate"},
		{"wildcard", func(in *watchlist.EntryInput) { in.Plate = "AB?123" }, "plate"},
		{"full-width wildcard", func(in *watchlist.EntryInput) { in.Plate = "AB＊" }, "plate"},
		{"short plate", func(in *watchlist.EntryInput) { in.Plate = "A" }, "plate"},
		{"sentinel", func(in *watchlist.EntryInput) { in.Plate = "NO PLATE" }, "plate"},
		{"zeros", func(in *watchlist.EntryInput) { in.Plate = "000" }, "plate"},
		{"bidi in the plate", func(in *watchlist.EntryInput) { in.Plate = "AB\u202e123CD" }, "plate"},
		{"long plate text", func(in *watchlist.EntryInput) { in.Plate = "AB" + strings.Repeat("-", 30) + "1" }, "plate"},
		{"container code", func(in *watchlist.EntryInput) { in.Plate, in.Country = "CSQU 305438-3", "" }, ""},
		{"container code, wrong check digit", func(in *watchlist.EntryInput) { in.Plate, in.Country = "CSQU 305438-4", "" }, "plate"},
		{"unknown country", func(in *watchlist.EntryInput) { in.Country = "ZZ" }, "country"},
		{"no country", func(in *watchlist.EntryInput) { in.Country = "" }, ""},
		{"white space for a reason", func(in *watchlist.EntryInput) { in.Reason, in.CaseRef = " ", "\u3000" }, "reason case_ref"},
		{"long texts", func(in *watchlist.EntryInput) {
			in.Reason, in.CaseRef = strings.Repeat("x", 501), strings.Repeat("x", 101)
			in.Requester, in.Vehicle, in.Safety = in.CaseRef, in.Reason, in.Reason
		}, "reason case_ref requester vehicle safety"},
		{"line break", func(in *watchlist.EntryInput) { in.Safety = "armed\nnot armed" }, "safety"},
		{"not UTF-8", func(in *watchlist.EntryInput) { in.Vehicle = "Citro\xebn" }, "vehicle"},
		{"until now", func(in *watchlist.EntryInput) { in.ValidUntil = now }, "valid_until"},
		{"until a millisecond from now", func(in *watchlist.EntryInput) { in.ValidUntil = now.Add(time.Millisecond) }, ""},
		{"until before from", func(in *watchlist.EntryInput) { in.ValidFrom = in.ValidUntil }, "valid_until"},
		{"from the past", func(in *watchlist.EntryInput) { in.ValidFrom = now.AddDate(-9, 0, 0) }, ""},
		{"as long as allowed", func(in *watchlist.EntryInput) { in.ValidUntil = now.Add(watchlist.MaxValidity) }, ""},
		{"too long", func(in *watchlist.EntryInput) { in.ValidUntil = now.Add(watchlist.MaxValidity + time.Millisecond) }, "valid_until"},
		{"far future", func(in *watchlist.EntryInput) {
			in.ValidFrom, in.ValidUntil = now.AddDate(50, 0, 0), now.AddDate(50, 0, 1)
		}, "valid_until"},
	}
	for _, tt := range tests {
		in := input()
		tt.change(&in)
		e, errs := watchlist.NewEntry(stolen(), in, now)
		if got := fields(errs); got != tt.want {
			t.Errorf("%s: NewEntry: %v, want errors in %q", tt.name, errs, tt.want)
		}
		if (e == nil) == (errs == nil) {
			t.Errorf("%s: NewEntry = %v, %v: want either an entry or errors", tt.name, e, errs)
		}
	}

	in := input()
	in.Plate = "CSQU 305438-4"
	_, errs := watchlist.NewEntry(stolen(), in, now)
	if len(errs) != 1 || !strings.Contains(errs[0].Reason, "check digit would be 3") || strings.Contains(errs[0].Reason, "305438") {
		t.Errorf("NewEntry of a container code with a wrong check digit: %v", errs)
	}

	l := stolen()
	l.Salt = nil
	if _, errs := watchlist.NewEntry(l, input(), now); fields(errs) != "list" {
		t.Errorf("NewEntry on a list without salt: %v", errs)
	}
}

// TestTwoYearsFit holds the promise of MaxValidity for every day and zone rule
// that Paris has in eight years.
func TestTwoYearsFit(t *testing.T) {
	for day := range 8 * 365 {
		at := time.Date(2026, 1, 1+day, 0, 0, 0, 0, paris).Add(time.Duration(day%24) * time.Hour)
		in := input()
		var err error
		if in.ValidUntil, err = watchlist.ParseValidUntil(at.AddDate(2, 0, 0).Format("02/01/2006"), paris); err != nil {
			t.Fatal(err)
		}
		if _, errs := watchlist.NewEntry(stolen(), in, at); errs != nil {
			t.Errorf("two years from %v: %v", at, errs)
		}
	}
}

func TestParseDates(t *testing.T) {
	tests := []struct {
		in, from, until string // RFC 3339, empty for an error
	}{
		{"2026-03-14T08:30:00Z", "2026-03-14T08:30:00Z", "2026-03-14T08:30:00Z"},
		{"2026-03-14T08:30:00.123+01:00", "2026-03-14T07:30:00.123Z", "2026-03-14T07:30:00.123Z"},
		{"2026-03-14", "2026-03-13T23:00:00Z", "2026-03-14T23:00:00Z"},
		{"14/03/2026", "2026-03-13T23:00:00Z", "2026-03-14T23:00:00Z"},
		{" 4/3/2026 ", "2026-03-03T23:00:00Z", "2026-03-04T23:00:00Z"},
		{"29/03/2026", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"}, // 23 hours long
		{"31/12/2026", "2026-12-30T23:00:00Z", "2026-12-31T23:00:00Z"},
		{"14/03/2026 08:30", "2026-03-14T07:30:00Z", "2026-03-14T07:30:00Z"},
		{"14/07/2026 8:30:15", "2026-07-14T06:30:15Z", "2026-07-14T06:30:15Z"},
		{"2026-07-14 08:30", "2026-07-14T06:30:00Z", "2026-07-14T06:30:00Z"},
		{"2026-07-14T08:30:00", "2026-07-14T06:30:00Z", "2026-07-14T06:30:00Z"},
		{"03/14/2026", "", ""}, // the month is never first
		{"14/03/26", "", ""},
		{"30/02/2026", "", ""},
		{"46095", "", ""}, // the number under a date in a spreadsheet
		{"demain", "", ""},
		{"", "", ""},
	}
	for _, tt := range tests {
		for _, f := range []struct {
			name  string
			parse func(string, *time.Location) (time.Time, error)
			want  string
		}{{"ParseValidFrom", watchlist.ParseValidFrom, tt.from}, {"ParseValidUntil", watchlist.ParseValidUntil, tt.until}} {
			got, err := f.parse(tt.in, paris)
			if tt.from == "" {
				if err == nil || !got.IsZero() || tt.in != "" && strings.Contains(err.Error(), tt.in) {
					t.Errorf("%s(%q) = %v, %v, want an error that does not quote it", f.name, tt.in, got, err)
				}
				continue
			}
			if s := got.UTC().Format(time.RFC3339Nano); s != f.want || err != nil {
				t.Errorf("%s(%q) = %s, %v, want %s", f.name, tt.in, s, err, f.want)
			}
		}
	}
	if got, err := watchlist.ParseValidUntil("2026-03-14", nil); err != nil || got.Format(time.RFC3339) != "2026-03-15T00:00:00Z" {
		t.Errorf("without a location: %v, %v", got, err)
	}
}

func ExampleNewEntry() {
	list := &watchlist.List{
		ID: "stolen", Name: "Stolen vehicles", Owner: "DNPJ", LegalBasis: "CSI L233-1",
		DefaultAction: watchlist.ActionIntercept,
		Salt:          []byte("0123456789abcdef"), // NewSalt(rand.Reader)
	}
	now := time.Date(2026, 3, 14, 8, 30, 0, 0, time.UTC)
	entry, _ := watchlist.NewEntry(list, watchlist.EntryInput{
		Plate: "ab-123-cd", Country: "F", Reason: "stolen on 12 March", CaseRef: "2026/00417",
		ValidUntil: now.AddDate(0, 1, 0),
	}, now)
	fmt.Println(entry, entry.Country, entry.Action, entry.Priority)

	_, errs := watchlist.NewEntry(list, watchlist.EntryInput{Plate: "ab-123-cd", Priority: "urgent"}, now)
	for _, e := range errs {
		fmt.Println(e)
	}
	// Output:
	// entry stolen/ipannqrr7qxxi4ntc7u2wc4zhu v0 FR intercept medium
	// reason: is mandatory
	// priority: unknown priority; use one of: critical, high, medium, info
	// case_ref: is mandatory
	// valid_until: is mandatory: nothing is wanted for ever
}

func TestEntryInputJSON(t *testing.T) {
	var in watchlist.EntryInput
	err := json.Unmarshal([]byte(`{"plate":"AB-123-CD","country":"FR","reason":"vol","case_ref":"1","valid_until":"2026-04-14T08:30:00Z"}`), &in)
	if err != nil {
		t.Fatal(err)
	}
	if e, errs := watchlist.NewEntry(stolen(), in, now); errs != nil || e.Key.String() != "AB123CD" {
		t.Errorf("NewEntry = %v, %v", e, errs)
	}
}
