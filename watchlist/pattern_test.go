package watchlist_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"vigie/watchlist"
	"vigie/watchlist/plate"
)

func TestParsePattern(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"AB-1??-*", "AB1??*"},
		{"*ab*", "*AB*"},
		{"*12", "*12"},
		{"\u0410-1-?", "A1?"}, // Cyrillic
		{"Ä1 ？ ＊ Z", "A1?*Z"},
		{"A\u0308B?", "AB?"},
		{"AB**", "AB*"},
		{"AB*?*?*CD", "AB??*CD"},
		{"* * ? - AB", "?*AB"},
		{"\u2047AB", "??AB"},
		{"ABCDEFGHIJK?", "ABCDEFGHIJK?"},
		{"*ABCDEFGHIJKL*", "*ABCDEFGHIJKL*"},
		{"??????????AB", "??????????AB"},
		{"UNKNOWN?", "UNKNOWN?"},
		{"00*", "00*"},
		{"A?B", "A?B"},
	} {
		if got, err := watchlist.ParsePattern(tt.text); got.Text() != tt.want || err != nil {
			t.Errorf("ParsePattern(%q) = %q, %v; want %q", tt.text, got.Text(), err, tt.want)
		}
	}
	for _, tt := range []struct {
		text string
		want error
	}{
		{"AB-123-CD", watchlist.ErrNoWildcard},
		{"", watchlist.ErrNoWildcard},
		{"*", watchlist.ErrPatternLoose},
		{"????", watchlist.ErrPatternLoose},
		{"A*", watchlist.ErrPatternLoose},
		{"?*7", watchlist.ErrPatternLoose},
		{"ABCDEFGHIJKL?", watchlist.ErrPatternLong},
		{"*ABCDEFGHIJKLM", watchlist.ErrPatternLong},
		{"???????????AB", watchlist.ErrPatternLong},
	} {
		if got, err := watchlist.ParsePattern(tt.text); !got.IsZero() || !errors.Is(err, tt.want) {
			t.Errorf("ParsePattern(%q) = %q, %v; want %v", tt.text, got.Text(), err, tt.want)
		}
	}
	for text, want := range map[string]plate.Reason{
		"AB,CD*": plate.BadCharacter, "AB?\u0308": plate.BadCharacter, "AB*\xff": plate.BadUTF8, strings.Repeat("*", plate.MaxRaw+1): plate.RawTooLong,
	} {
		var pe *plate.Error
		if got, err := watchlist.ParsePattern(text); !got.IsZero() || !errors.As(err, &pe) || pe.Reason != want {
			t.Errorf("ParsePattern(%q) = %q, %v; want %v", text, got.Text(), err, want)
		}
	}
}

func TestPatternMatches(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		yes, no string // texts, apart by spaces
	}{
		{"AB1??*", "AB123 AB123CD AB1ZZZ", "AB12 AB223 XAB123 A"},
		{"*AB*", "AB XAB ABX XABX AABB", "A BA AXB"},
		{"*AB", "AB XAB AAB", "ABX B"},
		{"AB?", "AB1", "AB AB12"},
		{"A?*B", "A1B A12B ABB", "AB A1BX"},
		{"*A*A*", "AA XAXAX", "A XAX"},
		{"?AB", "1AB", "AB 11AB"},
	} {
		p, err := watchlist.ParsePattern(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		for text := range strings.FieldsSeq(tt.yes) {
			if !p.Matches(text) {
				t.Errorf("%s does not match %s", tt.pattern, text)
			}
		}
		for text := range strings.FieldsSeq(tt.no) {
			if p.Matches(text) {
				t.Errorf("%s matches %s", tt.pattern, text)
			}
		}
		if p.Matches("") || p.Matches(strings.Repeat("AB1", 5)) {
			t.Errorf("%s matches what is no plate", tt.pattern)
		}
	}
	if (watchlist.Pattern{}).Matches("") || (watchlist.Pattern{}).Matches("AB") {
		t.Error("no pattern matches")
	}
}

// loose is what s means when it is read as it stands, every wildcard on its own.
func loose(s, text string) bool {
	reach := map[int]bool{0: true} // characters of text used so far
	for _, c := range s {
		next := map[int]bool{}
		for i := range reach {
			switch {
			case c == '*':
				for j := i; j <= len(text); j++ {
					next[j] = true
				}
			case i < len(text) && (c == '?' || byte(c) == text[i]):
				next[i+1] = true
			}
		}
		reach = next
	}
	return reach[len(text)]
}

// FuzzParsePattern asserts that a pattern is its own canonical form, keeps the
// limits, matches what the text as written means, and that its errors say
// nothing of the text.
func FuzzParsePattern(f *testing.F) {
	for _, text := range []string{"AB-1??-*", "*ab*", "*?*?AB", "Ä1？＊Z", "????", "AB-123-CD", "*A*B*C*", "\u2047AB", "AB\xff?", "AB,*"} {
		f.Add(text, "AB123CD")
		f.Add(text, "ABC")
	}
	f.Fuzz(func(t *testing.T, text, read string) {
		p, err := watchlist.ParsePattern(text)
		if err != nil {
			var pe *plate.Error
			if !p.IsZero() || !errors.As(err, &pe) && !errors.Is(err, watchlist.ErrNoWildcard) &&
				!errors.Is(err, watchlist.ErrPatternLoose) && !errors.Is(err, watchlist.ErrPatternLong) {
				t.Fatalf("%q, %v", p.Text(), err)
			}
			if key, bad := plate.Parse(text); bad == nil && !errors.Is(err, watchlist.ErrNoWildcard) {
				t.Fatalf("the plate %s is refused for %v", key.String(), err)
			}
			return
		}
		if !watchlist.HasWildcard(text) {
			t.Error("HasWildcard sees none")
		}
		if key, err := plate.Parse(text); err == nil {
			t.Errorf("a plate too: %s", key.String())
		}
		if again, err := watchlist.ParsePattern(p.Text()); again != p || err != nil {
			t.Errorf("ParsePattern(%q) = %q, %v", p.Text(), again.Text(), err)
		}
		canonical := p.Text()
		stars := strings.Count(canonical, "*")
		fixed := len(canonical) - stars - strings.Count(canonical, "?")
		if len(canonical)-stars > plate.MaxLen || fixed < watchlist.MinPatternFixed || strings.Contains(canonical, "**") || strings.Contains(canonical, "*?") {
			t.Errorf("%q is not canonical", canonical)
		}
		normal, err := plate.AppendNormal(nil, text, "?*")
		if err != nil {
			t.Fatal(err)
		}
		reads := []string{"AB123CD", canonical, strings.ReplaceAll(canonical, "*", ""), strings.ReplaceAll(strings.ReplaceAll(canonical, "*", "Z"), "?", "0")}
		if key, err := plate.Parse(read); err == nil {
			reads = append(reads, key.String())
		}
		for _, r := range reads {
			if len(r) > plate.MaxLen || strings.ContainsAny(r, "?*") {
				continue
			}
			if got, want := p.Matches(r), loose(string(normal), r); got != want {
				t.Errorf("%q as %q matches %q: %v, want %v", normal, canonical, r, got, want)
			}
		}
	})
}

// TestNothingPrintsAPattern: a pattern is half a plate.
func TestNothingPrintsAPattern(t *testing.T) {
	p, err := watchlist.ParsePattern("QX-99?")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "p", p, "s", struct{ P watchlist.Pattern }{p})
	text, err := json.Marshal([]watchlist.Pattern{p})
	if err != nil {
		t.Fatal(err)
	}
	out := log.String() + string(text)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%10s", "%d"} {
		out += fmt.Sprintf(format, p) + fmt.Sprintf(format, []watchlist.Pattern{p}) + fmt.Sprintf(format, struct{ P watchlist.Pattern }{p})
		// Where fmt cannot reach the Format method, it finds a handle.
		out += fmt.Sprintf(format, struct{ p watchlist.Pattern }{p}) + fmt.Sprintf(format, &struct{ p watchlist.Pattern }{p})
	}
	if text, err = json.Marshal(map[watchlist.Pattern]int{p: 1}); err != nil {
		t.Fatal(err)
	}
	out += string(text)
	out += p.String()
	if strings.Contains(out, "QX") || strings.Contains(out, fmt.Sprintf("%x", "QX")) || !strings.Contains(out, p.Digest()) {
		t.Errorf("printed in clear, or not at all: %s", out)
	}
	other, _ := watchlist.ParsePattern("QX-98?")
	if d := p.Digest(); d == other.Digest() || !strings.HasPrefix(d, "pattern:") || len(d) != len("pattern:")+12 {
		t.Errorf("digests %s and %s", d, other.Digest())
	}
}

// partial returns a list that takes patterns.
func partial() *watchlist.List {
	l := stolen()
	l.ID, l.Tolerance = "partial", watchlist.TolerancePattern
	return l
}

// TestEntryFitsItsSizeClass: beyond 208 bytes, each of ten million entries takes 16
// more.
func TestEntryFitsItsSizeClass(t *testing.T) {
	if n := unsafe.Sizeof(watchlist.Entry{}); n > 208 {
		t.Errorf("an Entry has %d bytes, more than 208, a size class of the allocator", n)
	}
}

func TestPatternEntry(t *testing.T) {
	l := partial()
	entry := func(text string) *watchlist.Entry {
		t.Helper()
		in := input()
		in.Plate = text
		e, errs := watchlist.NewEntry(l, in, now)
		if errs != nil {
			t.Fatal(errs)
		}
		return e
	}
	e := entry(" ab-1?? * ")
	if e.Plate != "ab-1?? *" || e.Key != 0 || e.Pattern.Text() != "AB1??*" || e.Normalised() != "AB1??*" ||
		e.ID != watchlist.PatternID(l, e.Pattern, e.Country) || !watchlist.ValidID(e.ID) {
		t.Errorf("entry %v, plate %q, key %d, pattern %q", e, e.Plate, e.Key, e.Pattern.Text())
	}
	plain := entry("AB-123-CD")
	if !plain.Pattern.IsZero() || plain.Normalised() != "AB123CD" || plain.ID != watchlist.EntryID(l, plain.Key, plain.Country) {
		t.Errorf("entry %v, pattern %q", plain, plain.Pattern.Text())
	}
	if same := entry("AB1*??"); same.ID != e.ID {
		t.Error("the same pattern written otherwise has another id")
	}
	ids := []string{e.ID, plain.ID, entry("AB1?*").ID, entry("AB1??").ID, entry("AB1").ID}
	if len(slices.Compact(slices.Sorted(slices.Values(ids)))) != len(ids) {
		t.Errorf("ids %q", ids)
	}
	other := *e
	other.Pattern, _ = watchlist.ParsePattern("AB*")
	if e.Equal(&other) {
		t.Error("equal with another pattern")
	}

	for text, want := range map[string]string{
		"*":             "needs at least 2 letters or digits beside its wildcards: with fewer it would hit anybody",
		"A??":           "needs at least 2 letters or digits beside its wildcards: with fewer it would hit anybody",
		"ABCDEFGHIJKL?": "has more than 12 letters, digits and ?: no plate is as long",
		"AB,?":          "character 3 is not a letter or digit",
		"A":             "1 character, at least 2",
	} {
		in := input()
		in.Plate = text
		_, errs := watchlist.NewEntry(l, in, now)
		if len(errs) != 1 || errs[0].Field != "plate" || errs[0].Reason != want {
			t.Errorf("%s: %v, want %s", text, errs, want)
		}
	}
}

// TestPatternCSV: patterns are imported, found twice, and exported as written.
func TestPatternCSV(t *testing.T) {
	const head = "plate,country,reason,case_ref,valid_until\n"
	im, err := watchlist.ParseCSV(strings.NewReader(head+
		"AB-1??-*,FR,vol,1,2026-06-30\n"+
		"*77,FR,vol,2,2026-06-30\n"+
		"AB-123-CD,FR,vol,3,2026-06-30\n"+
		"ab1*??,F,vol,4,2026-06-30\n"+ // as in row 2
		"AB-1??-*,IT,vol,5,2026-06-30\n"+
		"*,FR,vol,6,2026-06-30\n"), partial(), now, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(im.Entries) != 4 || im.Rejected != 2 || len(im.Errors) != 2 ||
		im.Errors[0].Error() != "row 5, plate: is the same plate and country as in row 2" || im.Errors[1].Row != 7 {
		t.Errorf("%d entries, errors %v", len(im.Entries), im.Errors)
	}
	var out bytes.Buffer
	if err := watchlist.WriteCSV(&out, slices.Values(im.Entries)); err != nil {
		t.Fatal(err)
	}
	again, err := watchlist.ParseCSV(&out, partial(), now, nil)
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]*watchlist.Entry{}
	for _, e := range im.Entries {
		held[e.ID] = e
	}
	if added, changed, same := again.Diff(func(id string) *watchlist.Entry { return held[id] }); len(added)+len(changed) != 0 || same != 4 {
		t.Errorf("read back: %d added, %d changed, %d same", len(added), len(changed), same)
	}
	im, err = watchlist.ParseCSV(strings.NewReader(head+"AB-1??-*,FR,vol,1,2026-06-30\n"), stolen(), now, nil)
	if err != nil || im.Rejected != 1 || !strings.Contains(im.Errors[0].Reason, "tolerance pattern") {
		t.Errorf("on an exact list: %v %v", im.Errors, err)
	}
}

func ExampleParsePattern() {
	p, err := watchlist.ParsePattern("ab-1*?-cd")
	fmt.Println(p.Text(), p.Matches("AB123CD"), p.Matches("AB1CD"), err)
	_, err = watchlist.ParsePattern("A*")
	fmt.Println(err)
	// Output:
	// AB1?*CD true false <nil>
	// needs at least 2 letters or digits beside its wildcards: with fewer it would hit anybody
}
