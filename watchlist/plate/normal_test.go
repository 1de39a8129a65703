package plate

import (
	"errors"
	"strings"
	"testing"
)

func TestAppendNormal(t *testing.T) {
	for _, tt := range []struct {
		raw, extra, want string
		reason           Reason
	}{
		{"ab-123 cd", "", "AB123CD", 0},
		{"ab-1?? *", "?*", "AB1??*", 0},
		{"\uff21\uff1f \uff0a", "?*", "A?*", 0}, // full width
		{"\u0410\u0392?", "?*", "AB?", 0},       // Cyrillic, Greek
		{"", "?*", "", 0},
		{"000", "", "000", 0},
		{"ABCDEFGHIJKLMNOP", "", "ABCDEFGHIJKLMNOP", 0},
		{"ab*", "?", "", BadCharacter},
		{"a?\u0308", "?", "", BadCharacter}, // a mark after what is no letter
		{"a?\xff", "?", "", BadUTF8},
		{strings.Repeat("?", MaxRaw+1), "?", "", RawTooLong},
	} {
		got, err := AppendNormal([]byte("x"), tt.raw, tt.extra)
		var pe *Error
		if errors.As(err, &pe) != (tt.reason != 0) || pe != nil && pe.Reason != tt.reason || string(got) != "x"+tt.want {
			t.Errorf("AppendNormal(%q, %q) = %q, %v; want x%s, %v", tt.raw, tt.extra, got, err, tt.want, tt.reason)
		}
	}
}

// FuzzAppendNormal asserts that AppendNormal spells every plate as Parse packs it, and
// refuses the characters that Parse refuses, at the same place.
func FuzzAppendNormal(f *testing.F) {
	for _, raw := range []string{"AB-123-CD", "ä1", "\u0410\u0392", "A\u0308B", "unknown", "AB,1", "\xff", "\u338f"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		text, err := AppendNormal(nil, raw, "")
		key, refused := Parse(raw)
		var pe *Error
		switch {
		case refused == nil:
			if err != nil || string(text) != key.String() {
				t.Errorf("AppendNormal = %q, %v, want %q", text, err, key.String())
			}
		case errors.As(refused, &pe) && pe.Reason != TooShort && pe.Reason != TooLong:
			if err == nil || err.Error() != refused.Error() {
				t.Errorf("AppendNormal: %v, want %v", err, refused)
			}
		case err != nil:
			t.Errorf("AppendNormal refuses what Parse only measures: %v", err)
		}
		kept, err := AppendNormal(nil, raw, "?*")
		if err == nil && !strings.ContainsAny(string(kept), "?*") && string(kept) != string(text) {
			t.Errorf("extra changes %q to %q", text, kept)
		}
	})
}

func TestDigestText(t *testing.T) {
	a, b := DigestText("pattern", "AB*"), DigestText("pattern", "AC*")
	if a == b || a != DigestText("pattern", "AB*") || a == DigestText("other", "AB*") || len(a) != len("pattern:")+12 || !strings.HasPrefix(a, "pattern:") {
		t.Errorf("digests %q and %q", a, b)
	}
}
