package plate

import (
	"math/rand/v2"
	"testing"
)

func TestFormOf(t *testing.T) {
	for _, tt := range []struct {
		country, text string
		places        int // 0: no form
		first         Set
	}{
		{"FR", "AB123CD", 7, charsetOf(noIOU)},
		{"RE", "AB123CD", 7, charsetOf(noIOU)},
		{"FR", "IB123CD", 7, charsetOf(noIOU)}, // possible only, still the form it is in
		{"ES", "1234BCD", 7, Digits},
		{"FR", "A1B2C3D", 0, 0},
		{"", "AB123CD", 0, 0},
		{"JP", "AB123CD", 0, 0},
	} {
		f := pack(tt.text).FormOf(mustCountry(t, tt.country))
		if tt.places == 0 {
			if f >= 0 {
				t.Errorf("%s in %q has form %d, want none", tt.text, tt.country, f)
			}
			continue
		}
		if f < 0 {
			t.Errorf("%s in %q has no form", tt.text, tt.country)
			continue
		}
		if p := FormPlaces(f); len(p) != tt.places || p[0] != tt.first {
			t.Errorf("%s in %q: %d places, first %#x", tt.text, tt.country, len(p), uint64(p[0]))
		}
	}
	if f := Key(0).FormOf(fr); f != -1 {
		t.Errorf("no plate has form %d", f)
	}
}

// Every form that FormsOf lists has the places asked for and is found again by a plate of it.
func TestFormsOf(t *testing.T) {
	seen := 0
	for _, s := range schemes {
		c := mustCountry(t, s.country)
		for n := -1; n <= MaxLen+1; n++ {
			for _, f := range FormsOf(c, n) {
				seen++
				var k Key
				for _, set := range FormPlaces(f) {
					x := Key(1)
					for set>>x&1 == 0 {
						x++
					}
					k = k*base + x
				}
				if len(FormPlaces(f)) != n || k.Len() != n || k.FormOf(c) < 0 || forms[k.FormOf(c)].shape != forms[f].shape {
					t.Errorf("form %d of %s, %d places: not found by its first plate", f, s.country, n)
				}
			}
		}
	}
	if seen < 100 {
		t.Errorf("%d forms", seen)
	}
}

func TestCodes(t *testing.T) {
	var c [MaxLen]uint8
	if n := pack("0A9Z").Codes(&c); n != 4 || c[0] != 1 || c[1] != 11 || c[2] != 10 || c[3] != 36 {
		t.Errorf("codes %v of %d characters", c, n)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		k := Key(r.Uint64() >> r.IntN(64))
		text := k.spell()
		n := k.Codes(&c)
		if n != text.len() {
			t.Fatalf("key %d has %d codes, %d characters", uint64(k), n, text.len())
		}
		for i, ch := range text.bytes() {
			if c[i] != ascii[ch]&codeMask {
				t.Fatalf("key %d: code %d is %d, character %c", uint64(k), i, c[i], ch)
			}
		}
	}
	if n := Key(5).Codes(&c); n != 0 {
		t.Errorf("a key that is not valid has %d codes", n)
	}
	if Digits != charsetOf(digits) || Letters != charsetOf(letters) {
		t.Error("Digits and Letters are not the digits and the letters")
	}
}
