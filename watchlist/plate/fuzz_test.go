package plate

import (
	"errors"
	"strings"
	"testing"
)

// FuzzParse: Parse agrees with the model, every key it returns is valid and comes back from
// its text, and its errors are made of fixed words and numbers alone.
func FuzzParse(f *testing.F) {
	for _, s := range append(nasty, "AB-123-CD", "ab 123 cd", "А123ВС77", "MÜ-ÄÖ 123", "CSQU 305438-3", "A1\ufe0f", "´Ａ1",
		"UE-MA 123", "0000000000000", strings.Repeat("\u0308", 200), "A"+strings.Repeat("\u0308", 120)+"1") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if got, want := parsed(raw), model(raw); got != want {
			t.Fatalf("Parse(%q) = %v; want %v", raw, got, want)
		}
		k, err := Parse(raw)
		if kb, errb := ParseBytes([]byte(raw)); kb != k || (errb == nil) != (err == nil) || err != nil && errb.Error() != err.Error() {
			t.Fatalf("ParseBytes(%q) = %d, %v; Parse %d, %v", raw, uint64(kb), errb, uint64(k), err)
		}
		if err != nil {
			if k != 0 {
				t.Fatalf("Parse(%q) = %d with an error", raw, uint64(k))
			}
			if !message.MatchString(err.Error()) {
				t.Fatalf("Parse(%q): %q", raw, err)
			}
			if e, ok := errors.AsType[*Error](err); !ok && !errors.Is(err, ErrSentinel) || ok && (e.Pos < 0 || e.Pos > len(raw)) {
				t.Fatalf("Parse(%q): %#v", raw, err)
			}
			return
		}
		if !k.Valid() {
			t.Fatalf("Parse(%q) = %d, which is not valid", raw, uint64(k))
		}
		if again, err := Parse(k.String()); again != k || err != nil {
			t.Fatalf("Parse(%q), of its own String: %v", k.String(), err)
		}
	})
}

// FuzzParseCountry: a country comes back from its code, and what surrounds a text or how
// it is capitalised does not matter.
func FuzzParseCountry(f *testing.F) {
	for _, s := range []string{"", "FR", "fra", "F", "eu-fr", "us_mo", "UK", "ZZ", "\u00a0fr", "12", "eu-", "-", "İ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, ok := ParseCountry(s)
		if !ok && c != 0 {
			t.Fatalf("ParseCountry(%q) = %s, not ok", s, c)
		}
		if again, ok := ParseCountry(c.String()); again != c || !ok {
			t.Fatalf("ParseCountry(%q) = %s, which comes back as %s", s, c, again)
		}
		if other, ok2 := ParseCountry(" " + s + "\n"); other != c || ok2 != ok {
			t.Fatalf("ParseCountry(%q) = %s; with spaces %s", s, c, other)
		}
		if isASCII(s) {
			if other, ok2 := ParseCountry(strings.ToLower(s)); other != c || ok2 != ok {
				t.Fatalf("ParseCountry(%q) = %s; in lower case %s", s, c, other)
			}
		}
		if Relate(c, c) == CountryDifferent {
			t.Fatalf("%s differs from itself", c)
		}
		var u Country
		if err := u.UnmarshalText([]byte(s)); (err == nil) != ok || u != c {
			t.Fatalf("UnmarshalText(%q) = %s, %v; ParseCountry %s, %t", s, u, err, c, ok)
		}
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

// FuzzKey: whatever number is taken for a key, its methods agree with one another and with
// the models.
func FuzzKey(f *testing.F) {
	for _, k := range []Key{0, 1, 38, pack("AB123CD"), pack("0100110"), pack("A8I23CD"), pack("ZZZZZZZZZZZZ"), 1<<64 - 1} {
		f.Add(uint64(k), uint16(fr))
	}
	f.Add(uint64(pack("AB1Z3CD")), uint16(0))
	f.Add(uint64(pack("1234AB2A")), uint16(country("RE")))
	f.Fuzz(func(t *testing.T, n uint64, c16 uint16) {
		k, c := Key(n), Country(c16)
		s := k.String()
		if k.Valid() != (pack(s) == k && len(s) >= MinLen && len(s) <= MaxLen) || k.Len() != len(s) || string(k.AppendTo(nil)) != s {
			t.Fatalf("key %d: Valid %t, Len %d, String %q", n, k.Valid(), k.Len(), s)
		}
		if k.Valid() {
			if back, err := Parse(s); back != k && !errors.Is(err, ErrSentinel) {
				t.Fatalf("Parse(%q) = %d, %v; want %d", s, uint64(back), err, n)
			}
		}

		folded := k.Fold()
		if folded.Fold() != folded || folded.Len() != k.Len() || folded.String() != modelFold(s) {
			t.Fatalf("Fold(%q) = %q; folded again %q", s, folded.String(), folded.Fold().String())
		}

		grade := k.Syntax(c)
		if grade > Possible && (c == 0 || !k.Valid()) || grade == Valid && k.Syntax(0) != Possible {
			t.Fatalf("%q in %q is %v; in the unknown country %v", s, c, grade, k.Syntax(0))
		}

		if leak := k.Digest(); !digest.MatchString(leak) {
			t.Fatalf("digest %q", leak)
		}
	})
}
