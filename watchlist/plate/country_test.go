package plate

import (
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/text/language"
)

func TestParseCountry(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		ok       bool
	}{
		{"", "", true},
		{"  ", "", true},
		{"FR", "FR", true},
		{"fr", "FR", true},
		{" Fr\t", "FR", true},
		{"FRA", "FR", true},
		{"fra", "FR", true},
		{"F", "FR", true},
		{"f", "FR", true},
		{"eu-fr", "FR", true},
		{"EU_FR", "FR", true},
		{"eu-fra", "FR", true},
		{"eu-d", "DE", true},
		{"eu-uk", "GB", true},
		{"us-mo", "US", true},
		{"US-CA", "US", true},
		{"gb-eng", "GB", true},
		{"fr-75", "FR", true},
		{"GB", "GB", true},
		{"UK", "GB", true},
		{"GBR", "GB", true},
		{"GR", "GR", true},
		{"EL", "GR", true},

		// Distinguishing signs.
		{"A", "AT", true}, {"AND", "AD", true}, {"B", "BE", true}, {"BIH", "BA", true},
		{"CH", "CH", true}, {"D", "DE", true}, {"E", "ES", true}, {"EST", "EE", true},
		{"FIN", "FI", true}, {"FL", "LI", true}, {"GBA", "GG", true}, {"GBG", "GG", true},
		{"GBJ", "JE", true}, {"GBM", "IM", true}, {"GBZ", "GI", true}, {"H", "HU", true},
		{"HKJ", "JO", true}, {"I", "IT", true}, {"IRL", "IE", true}, {"IS", "IS", true},
		{"L", "LU", true}, {"LAR", "LY", true}, {"M", "MT", true}, {"MK", "MK", true},
		{"MNE", "ME", true}, {"N", "NO", true}, {"NMK", "MK", true}, {"P", "PT", true},
		{"RKS", "XK", true}, {"RL", "LB", true}, {"RSM", "SM", true}, {"RUS", "RU", true},
		{"S", "SE", true}, {"SLO", "SI", true}, {"SRB", "RS", true}, {"SYR", "SY", true},
		{"V", "VA", true}, {"XK", "XK", true}, {"XKX", "XK", true},

		// Codes of the International Olympic Committee.
		{"NED", "NL", true}, {"GER", "DE", true}, {"por", "PT", true}, {"SUI", "CH", true}, {"eu-ned", "NL", true},

		// Two letters are alpha-2 before they are a sign.
		{"ET", "ET", true}, {"SD", "SD", true}, {"AG", "AG", true},

		{"EU", "", false},
		{"EUR", "", false},
		{"eu-", "", false},
		{"eu-eu", "", false},
		{"eu-fr-75", "", false},
		{"fr-", "", false},
		{"fr-abcd", "", false},
		{"f-75", "", false},
		{"zz-75", "", false},
		{"-fr", "", false},
		{"ZZ", "", false},
		{"ZZZ", "", false},
		{"R", "", false},
		{"12", "", false},
		{"F1", "", false},
		{"France", "", false},
		{"F R", "", false},
		{"ｆｒ", "", false},
		{"unknown", "", false},
		{strings.Repeat("F", 1<<16), "", false},
	} {
		c, ok := ParseCountry(tt.in)
		if c.String() != tt.want || ok != tt.ok {
			t.Errorf("ParseCountry(%.20q) = %q, %t; want %q, %t", tt.in, c.String(), ok, tt.want, tt.ok)
		}
	}
}

// The table against that of x/text, code by code.
func TestISO3166(t *testing.T) {
	codes := strings.Fields(iso3166)
	if len(codes) != 249+1 {
		t.Errorf("%d countries; want the 249 of ISO 3166-1, and Kosovo", len(codes))
	}
	for i, f := range codes {
		if i > 0 && codes[i-1] >= f && f != "XKXKX" && codes[i-1] != "XKXKX" {
			t.Errorf("%s after %s", f, codes[i-1])
		}
		two, three := f[:2], f[2:]
		if two != "XK" {
			r, err := language.ParseRegion(two)
			if err != nil || !r.IsCountry() || r.ISO3() != three {
				t.Errorf("%s %s: x/text says %v %s, %v", two, three, r, r.ISO3(), err)
			}
		}
		for _, code := range []string{two, three, strings.ToLower(two), "eu-" + two} {
			if c, ok := ParseCountry(code); c.String() != two || !ok {
				t.Errorf("ParseCountry(%q) = %q, %t; want %q", code, c.String(), ok, two)
			}
		}
	}
}

func TestSignsAreCountries(t *testing.T) {
	f := strings.Fields(signs)
	for i := 0; i < len(f); i += 2 {
		c, ok := ParseCountry(f[i+1])
		if !ok || c.String() != f[i+1] {
			t.Errorf("sign %s of %s, which is no country", f[i], f[i+1])
		}
		if got, _ := ParseCountry(f[i]); got != c {
			t.Errorf("sign %s is %s; want %s", f[i], got, c)
		}
	}
}

func TestCountryText(t *testing.T) {
	type read struct{ Country Country }
	for _, tt := range []struct{ in, want string }{
		{`{"Country":"FRA"}`, `{"Country":"FR"}`},
		{`{"Country":""}`, `{"Country":""}`},
		{`{"Country":"D"}`, `{"Country":"DE"}`},
	} {
		var r read
		if err := json.Unmarshal([]byte(tt.in), &r); err != nil {
			t.Errorf("%s: %v", tt.in, err)
		}
		if b, err := json.Marshal(r); string(b) != tt.want || err != nil {
			t.Errorf("%s: came back as %s, %v; want %s", tt.in, b, err, tt.want)
		}
	}
	c := fr
	if err := c.UnmarshalText([]byte(canary)); err == nil || strings.Contains(err.Error(), canary) || c != fr {
		t.Errorf("UnmarshalText of nonsense: %v, country %s", err, c)
	}
	for _, bad := range []Country{1, 'F' << 8, 'f'<<8 | 'r', 0xffff} {
		if b, err := bad.MarshalText(); err == nil {
			t.Errorf("MarshalText of %#x = %q; want an error", uint16(bad), b)
		}
		if s := bad.String(); s != "" {
			t.Errorf("String of %#x = %q; want none", uint16(bad), s)
		}
	}
}

func TestRelate(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want Relation
	}{
		{"", "", CountryUnknown},
		{"FR", "", CountryUnknown},
		{"", "FR", CountryUnknown},
		{"FR", "F", CountrySame},
		{"IT", "IT", CountrySame},
		{"FR", "IT", CountryDifferent},
		{"RE", "FR", CountrySame},
		{"FRA", "GLP", CountrySame},
		{"MQ", "GF", CountrySame},
		{"YT", "IT", CountryDifferent},
		{"NC", "FR", CountryDifferent},
		{"GB", "IM", CountryDifferent},
	} {
		a, _ := ParseCountry(tt.a)
		b, _ := ParseCountry(tt.b)
		if got := Relate(a, b); got != tt.want {
			t.Errorf("Relate(%q, %q) = %v; want %v", tt.a, tt.b, got, tt.want)
		}
		if got := Relate(b, a); got != tt.want {
			t.Errorf("Relate(%q, %q) = %v; want %v", tt.b, tt.a, got, tt.want)
		}
	}
	for r, want := range map[Relation]string{CountryUnknown: "unknown", CountrySame: "same", CountryDifferent: "different", 9: "unknown"} {
		if b, err := r.MarshalText(); r.String() != want || string(b) != want || err != nil {
			t.Errorf("Relation(%d) = %s, %s, %v; want %s", uint8(r), r, b, err, want)
		}
	}
}

func TestCountryAllocations(t *testing.T) {
	for _, s := range []string{"FR", " fra ", "F", "eu-fr", "us-mo", "nowhere", ""} {
		if n := testing.AllocsPerRun(100, func() { _, _ = ParseCountry(s) }); n != 0 {
			t.Errorf("ParseCountry(%q) allocates %v times; want 0", s, n)
		}
	}
}
