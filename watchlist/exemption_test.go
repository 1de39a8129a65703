package watchlist_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"vigie/watchlist"
	"vigie/watchlist/plate"
)

// exempted returns a list, an entry of it, and an exemption that passes NewExemption.
func exempted(t *testing.T) (*watchlist.List, *watchlist.Entry, watchlist.ExemptionInput) {
	t.Helper()
	l := stolen()
	e, errs := watchlist.NewEntry(l, input(), now)
	if errs != nil {
		t.Fatal(errs)
	}
	return l, e, watchlist.ExemptionInput{Read: keyOf(t, "AB-128-CD"), Reason: "other vehicle", Until: now.AddDate(0, 6, 0)}
}

func keyOf(t *testing.T, raw string) plate.Key {
	t.Helper()
	k, err := plate.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestNewExemption(t *testing.T) {
	l, e, in := exempted(t)
	in.Reason, in.Requester, in.Until = " other vehicle\t", " BRI ", in.Until.Add(123456*time.Nanosecond).In(paris)
	x, errs := watchlist.NewExemption(l, e, in, now)
	if errs != nil {
		t.Fatal(errs)
	}
	want := watchlist.Exemption{
		ID: watchlist.ExemptionID(l, e.ID, in.Read), List: "stolen", Entry: e.ID, ListTag: l.Tag(), Read: in.Read,
		Reason: "other vehicle", Requester: "BRI", Until: now.AddDate(0, 6, 0),
	}
	if *x != want {
		t.Errorf("NewExemption = %v", x)
	}

	for _, tt := range []struct {
		name   string
		change func(*watchlist.ExemptionInput)
		want   string // fields in error
	}{
		{"nothing", func(*watchlist.ExemptionInput) {}, ""},
		{"everything at once", func(in *watchlist.ExemptionInput) { *in = watchlist.ExemptionInput{} }, "read reason until"},
		{"no plate", func(in *watchlist.ExemptionInput) { in.Read = 1 }, "read"},
		{"a sentinel", func(in *watchlist.ExemptionInput) { in.Read = keyOf(t, "NONE1") / 37 }, "read"},
		{"the plate of the entry", func(in *watchlist.ExemptionInput) { in.Read = e.Key }, "read"},
		{"the plate of the entry, and no reason", func(in *watchlist.ExemptionInput) { in.Read, in.Reason = e.Key, "" }, "read reason"},
		{"a container code misread", func(in *watchlist.ExemptionInput) { in.Read = keyOf(t, "CSQU3054384") }, ""},
		{"long texts", func(in *watchlist.ExemptionInput) {
			in.Reason, in.Requester = strings.Repeat("x", 501), strings.Repeat("x", 101)
		}, "reason requester"},
		{"line break", func(in *watchlist.ExemptionInput) { in.Reason = "a\nb" }, "reason"},
		{"until now", func(in *watchlist.ExemptionInput) { in.Until = now }, "until"},
		{"until a millisecond from now", func(in *watchlist.ExemptionInput) { in.Until = now.Add(time.Millisecond) }, ""},
		{"as long as allowed", func(in *watchlist.ExemptionInput) { in.Until = now.AddDate(1, 0, 0) }, ""},
		{"too long", func(in *watchlist.ExemptionInput) { in.Until = now.Add(watchlist.MaxExemption + time.Millisecond) }, "until"},
	} {
		_, _, in := exempted(t)
		tt.change(&in)
		x, errs := watchlist.NewExemption(l, e, in, now)
		if got := fields(errs); got != tt.want || (x == nil) == (errs == nil) {
			t.Errorf("%s: NewExemption = %v, %v; want errors in %q", tt.name, x, errs, tt.want)
		}
		for _, err := range errs {
			if strings.Contains(err.Error(), "AB1") || in.Read.Valid() && strings.Contains(err.Error(), in.Read.String()) {
				t.Errorf("%s: %v names the plate", tt.name, err)
			}
		}
	}

	other, saltless := stolen(), stolen()
	other.Salt, saltless.Salt = []byte("fedcba9876543210"), nil
	if _, errs := watchlist.NewExemption(other, e, in, now); fields(errs) != "entry" {
		t.Errorf("NewExemption from an entry of another list: %v", errs)
	}
	if _, errs := watchlist.NewExemption(saltless, e, in, now); fields(errs) != "list" {
		t.Errorf("NewExemption on a list without salt: %v", errs)
	}
}

// TestExemptionID pins ids, which are stored. The digests were computed with another
// program.
func TestExemptionID(t *testing.T) {
	other, salted := stolen(), stolen()
	other.ID = "stolen2"
	salted.Salt = []byte("0123456789abcdeg")
	for _, tt := range []struct {
		name        string
		l           *watchlist.List
		entry, read string
		want        string
	}{
		{"first", stolen(), "ipannqrr7qxxi4ntc7u2wc4zhu", "AB-128-CD", "z65qlr6bjqgpemqxxlihti4nmm"},
		{"same, written otherwise", stolen(), "ipannqrr7qxxi4ntc7u2wc4zhu", "ab128cd", "z65qlr6bjqgpemqxxlihti4nmm"},
		{"other read", stolen(), "ipannqrr7qxxi4ntc7u2wc4zhu", "AB-12B-CD", "veqlf4z2my2qgqrld2n6bj46ui"},
		{"other entry", stolen(), "py23di4e6bznif4kt55ay6fohq", "AB-128-CD", "2aclebtosi6frns4h5d55ty2tq"},
		{"other list", other, "ipannqrr7qxxi4ntc7u2wc4zhu", "AB-128-CD", "77s46palo6n2pvzefdoxko56r4"},
		{"other salt", salted, "ipannqrr7qxxi4ntc7u2wc4zhu", "AB-128-CD", "jdftaum5vyhxebpdspocibqbvy"},
	} {
		got := watchlist.ExemptionID(tt.l, tt.entry, keyOf(t, tt.read))
		if got != tt.want || !watchlist.ValidID(got) {
			t.Errorf("%s: ExemptionID = %q, want %q", tt.name, got, tt.want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("ExemptionID of a list without a salt did not panic")
		}
	}()
	watchlist.ExemptionID(&watchlist.List{ID: "stolen"}, "x", keyOf(t, "AB-128-CD"))
}

func TestExempts(t *testing.T) {
	l, e, in := exempted(t)
	x, errs := watchlist.NewExemption(l, e, in, now)
	if errs != nil {
		t.Fatal(errs)
	}
	until := x.Until.UnixMilli()
	for _, tt := range []struct {
		read plate.Key
		ms   int64
		want bool
	}{
		{x.Read, 0, true}, {x.Read, until - 1, true}, {x.Read, until, false}, {e.Key, 0, false}, {keyOf(t, "AB-12B-CD"), 0, false},
	} {
		if got := x.Exempts(tt.read, tt.ms); got != tt.want {
			t.Errorf("Exempts(%v, %d) = %t, want %t", tt.read, tt.ms, got, tt.want)
		}
	}
}

// TestExemptionsPrintNoPlate covers the careless log line, and the careless encoder.
func TestExemptionsPrintNoPlate(t *testing.T) {
	l, e, in := exempted(t)
	x, errs := watchlist.NewExemption(l, e, in, now)
	if errs != nil {
		t.Fatal(errs)
	}
	digest := fmt.Sprintf("%d", uint64(x.Read))
	for _, v := range []any{x, *x, in, &in, []any{*x, in}, struct{ X watchlist.Exemption }{*x}} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			s := fmt.Sprintf(format, v)
			if strings.Contains(s, "AB128CD") || strings.Contains(s, digest) || strings.Contains(s, "other") {
				t.Errorf("%s of %T gives the exemption away: %s", format, v, s)
			}
		}
	}
	if got, want := x.String(), "exemption stolen/"+x.ID+" v0"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	x.Requester, x.Version = "BRI 12", 43
	golden(t, "exemption.json", x)
	if text, err := json.Marshal(in); err != nil || strings.Contains(string(text), "AB128CD") {
		t.Errorf("JSON of an ExemptionInput: %s, %v", text, err)
	}
}
