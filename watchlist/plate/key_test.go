package plate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"
)

func mustParse(t testing.TB, raw string) Key {
	t.Helper()
	k, err := Parse(raw)
	if err != nil {
		t.Fatalf("Parse(%q): %v", raw, err)
	}
	return k
}

// randomPlate draws a plate of MinLen to MaxLen characters.
func randomPlate(r *rand.Rand) string {
	b := make([]byte, MinLen+r.IntN(MaxLen-MinLen+1))
	for i := range b {
		b[i] = alphabet[1+r.IntN(36)]
	}
	return string(b)
}

// Every packing of up to three characters, and a gap in each place of longer ones.
func TestValid(t *testing.T) {
	check := func(k Key, want string) {
		t.Helper()
		if got := k.String(); got != want {
			t.Errorf("Key %d: String = %q; want %q", uint64(k), got, want)
		}
		if got := k.Valid(); got != (want != "") {
			t.Errorf("Key %d: Valid = %t", uint64(k), got)
		}
		if got := k.Len(); got != len(want) {
			t.Errorf("Key %d: Len = %d; want %d", uint64(k), got, len(want))
		}
		if got := string(k.AppendTo([]byte("x"))); got != "x"+want {
			t.Errorf("Key %d: AppendTo = %q; want %q", uint64(k), got, "x"+want)
		}
		if got := k.Fold(); got != pack(modelFold(want)) {
			t.Errorf("Key %d: Fold = %d; want that of %q", uint64(k), uint64(got), modelFold(want))
		}
	}
	for k := range Key(base * base * base) {
		want := ""
		for rest := k; rest != 0; rest /= base {
			if rest%base == 0 {
				want = ""
				break
			}
			want = string(alphabet[rest%base]) + want
		}
		if len(want) < MinLen {
			want = ""
		}
		check(k, want)
	}
	full := pack("ZZZZZZZZZZZZ")
	check(full, "ZZZZZZZZZZZZ")
	check(full+1, "") // thirteen characters, the others none
	check(full*base+1, "")
	check(1<<64-1, "")
	place := Key(1)
	for range MaxLen {
		check(full-36*place, strings.TrimPrefix(pack12(full-36*place), "\x00"))
		place *= base
	}
}

// pack12 spells the twelve characters of k, or returns "" when one but the first is missing.
func pack12(k Key) string {
	b := make([]byte, 12)
	for i := 11; i >= 0; i-- {
		b[i] = alphabet[k%base]
		k /= base
	}
	if bytes.IndexByte(b, 0) > 0 {
		return ""
	}
	return string(b)
}

func TestKeyOrder(t *testing.T) {
	const seed = 7
	r := rand.New(rand.NewPCG(seed, 1))
	for range 10_000 {
		a, b := randomPlate(r), randomPlate(r)
		want := cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) // ASCII has digits before letters too
		if got := cmp.Compare(pack(a), pack(b)); got != want {
			t.Fatalf("seed %d: %s and %s compare %d; want %d", seed, a, b, got, want)
		}
	}
}

func TestFold(t *testing.T) {
	for _, tt := range []struct{ plate, want string }{
		{"AB-123-CD", "A8123C0"},
		{"0ODQ", "0000"},
		{"1I", "11"},
		{"8B5S2Z6G", "88552266"},
		{"ACEFHJKLMNPRTUVWXY", ""},
		{"3479", "3479"},
		{"OO", "00"}, // the packing of a sentinel, for comparing only
	} {
		if len(tt.plate) > MaxLen {
			continue
		}
		if got := mustParse(t, tt.plate).Fold(); got.String() != tt.want {
			t.Errorf("Fold(%s) = %s; want %s", tt.plate, got.String(), tt.want)
		}
	}
	for _, c := range "ACEFHJKLMNPRTUVWXY3479" {
		if k := pack("A" + string(c)); k.Fold() != k {
			t.Errorf("%c belongs to no class, yet folds", c)
		}
	}
}

func TestKeyAgainstModel(t *testing.T) {
	const seed = 20260316
	r := rand.New(rand.NewPCG(seed, 1))
	for range 50_000 {
		p := randomPlate(r)
		k := pack(p)
		if got := k.String(); got != p {
			t.Fatalf("seed %d: String = %q; want %q", seed, got, p)
		}
		if got, want := k.Fold().String(), modelFold(p); got != want {
			t.Fatalf("seed %d: Fold(%s) = %s; want %s", seed, p, got, want)
		}
	}
}

func TestKeyAllocations(t *testing.T) {
	k := mustParse(t, "AB-123-CD")
	dst := make([]byte, 0, MaxLen)
	for name, f := range map[string]func(){
		"AppendTo": func() { dst = k.AppendTo(dst[:0]) },
		"Fold":     func() { _ = k.Fold() },
		"Len":      func() { _ = k.Len() },
		"Valid":    func() { _ = k.Valid() },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times; want 0", name, n)
		}
	}
}

var digest = regexp.MustCompile(`^plate:[0-9a-f]{12}$`)

func TestDigest(t *testing.T) {
	a, b := mustParse(t, "AB-123-CD"), mustParse(t, "AB-123-CE")
	if !digest.MatchString(a.Digest()) {
		t.Errorf("Digest = %q; want plate: and 12 hexadecimal digits", a.Digest())
	}
	if a.Digest() != mustParse(t, "ab123cd").Digest() {
		t.Error("equal keys have different digests")
	}
	if a.Digest() == b.Digest() {
		t.Error("different keys have equal digests")
	}
	if Key(0).Digest() == "" || !digest.MatchString(Key(0).Digest()) {
		t.Errorf("Digest of no plate = %q", Key(0).Digest())
	}
}

// canary is a plate that must appear in nothing that is printed.
const canary = "QX731ZK"

// leaks returns the ways of writing the canary, or its key, that occur in s.
func leaks(s string) (found []string) {
	n := uint64(pack(canary))
	ways := []string{canary, canary[:2]} // digits alone occur in times and addresses
	for _, verb := range []string{"%d", "%x", "%X", "%b", "%o", "%#x", "%q"} {
		ways = append(ways, fmt.Sprintf(verb, n))
	}
	ways = append(ways, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprintf("% x", canary))
	for _, w := range ways {
		if strings.Contains(s, w) {
			found = append(found, w)
		}
	}
	return found
}

func TestPrintsNoPlate(t *testing.T) {
	k := pack(canary)
	type hit struct {
		ID    string
		Plate Key
	}
	type embedded struct{ Key }
	type nested struct {
		Hit  hit
		Keys []Key
		By   map[Key]Key
		Any  any
	}
	type linked struct {
		Hit *hit
		Key *Key
	}
	h := hit{ID: "01J", Plate: k}
	// A digest may by chance hold a short piece of the canary, so it is cut out.
	clean := func(s string) string { return strings.ReplaceAll(s, k.Digest(), "") }

	noVerb := "hit" // a variable, or vet objects
	values := map[string]any{
		"key":           k,
		"pointer":       &k,
		"slice":         []Key{k, k},
		"array":         [2]Key{k, k},
		"map":           map[string]Key{"k": k},
		"map key":       map[Key]bool{k: true},
		"struct":        h,
		"struct, ptr":   &h,
		"embedded":      embedded{k},
		"embedded, ptr": &embedded{k},
		"nested":        nested{h, []Key{k}, map[Key]Key{k: k}, k},
		"error":         fmt.Errorf("watchlist: %v: %w", k, errors.New("gone")),
		"interface":     any(k),
	}
	for name, v := range values {
		for verb := 'A'; verb <= 'z'; verb++ {
			if verb == 'p' || verb == 'w' || verb > 'Z' && verb < 'a' {
				continue
			}
			for _, flags := range []string{"", "+", "#", " ", "0", "-", "20", ".2", "#+20.3"} {
				format := "%" + flags + string(verb)
				if s := clean(fmt.Sprintf(format, v)); len(leaks(s)) > 0 {
					t.Errorf("%s: %s prints %v in %q", name, format, leaks(s), s)
				}
			}
		}
		for how, s := range map[string]string{
			"Sprint":   fmt.Sprint(v),
			"Sprintln": fmt.Sprintln(v),
			"Append":   string(fmt.Append(nil, v)),
			//lint:ignore SA5009 an argument too many is what is tried
			"EXTRA": fmt.Sprintf(noVerb, v),
		} {
			if s := clean(s); len(leaks(s)) > 0 {
				t.Errorf("%s: %s prints %v in %q", name, how, leaks(s), s)
			}
		}

		var out bytes.Buffer
		for _, log := range []*slog.Logger{
			slog.New(slog.NewTextHandler(&out, nil)),
			slog.New(slog.NewJSONHandler(&out, nil)),
		} {
			log.Info("hit", "v", v, slog.Group("g", "v", v))
			log.With("v", v).Info("hit")
		}
		_ = template.Must(template.New("").Parse("{{.}} {{printf `%v %d %q` . . .}}")).Execute(&out, v)
		_ = json.NewEncoder(&out).Encode(v)
		if s := clean(out.String()); len(leaks(s)) > 0 {
			t.Errorf("%s: slog, template or JSON write %v in %q", name, leaks(s), s)
		}
	}

	for _, format := range []string{"%v", "%+v", "%#v", "%d", "%x", "%X"} {
		if s := clean(fmt.Sprintf(format, linked{&h, &k})); len(leaks(s)) > 0 {
			t.Errorf("pointers: %s prints %v in %q", format, leaks(s), s)
		}
	}
	if got := fmt.Sprintf("%v", k); got != k.Digest() {
		t.Errorf("%%v prints %q; want the digest", got)
	}
	if got := fmt.Sprintf("%v", h); got != "{01J "+k.Digest()+"}" {
		t.Errorf("a struct prints %q; want the digest in it", got)
	}
	if got := k.LogValue().String(); got != k.Digest() {
		t.Errorf("LogValue = %q; want the digest", got)
	}
}

// The ways round Format that the comment of Key admits: they show a number, never the text.
// If fmt ever closes them, the comment can go.
func TestPrintsNoPlateText(t *testing.T) {
	k := pack(canary)
	type hidden struct{ plate Key }
	type linked struct{ Hit *struct{ Key Key } }
	l := linked{&struct{ Key Key }{k}}
	verbP, verbW, verbS := "%p", "%w", "%s"
	//lint:ignore SA5009 wrong verbs are what is tried
	for _, s := range []string{fmt.Sprintf(verbP, k), fmt.Sprintf(verbW, k), fmt.Sprintf("%+v", hidden{k}), fmt.Sprintf("%#v", hidden{k}), fmt.Sprintf(verbS, l)} {
		if strings.Contains(s, canary) {
			t.Errorf("prints the plate in %q", s)
		}
		if s = strings.ReplaceAll(s, k.Digest(), ""); len(leaks(s)) == 0 {
			t.Errorf("fmt no longer shows the bare integer: %q", s)
		}
	}
}

// A key does not come back from its digest, and says so.
func TestKeyJSON(t *testing.T) {
	b, err := json.Marshal(pack(canary))
	if err != nil {
		t.Fatal(err)
	}
	var k Key
	if err := json.Unmarshal(b, &k); err == nil {
		t.Errorf("a digest was read as the key %d", uint64(k))
	}
}

func TestSentinelsFit(t *testing.T) {
	for k := range sentinels {
		if !k.Valid() || slices.ContainsFunc([]byte(k.String()), func(c byte) bool { return c > '0' && c <= '9' }) {
			t.Errorf("sentinel %q: parseASCII would not leave it to parseText", k.String())
		}
	}
}
