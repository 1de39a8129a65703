package matcher

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"vigie/watchlist"
	"vigie/watchlist/plate"
)

// glob is the model: the obvious recursion.
func glob(pattern, text string) bool {
	if pattern == "" {
		return text == ""
	}
	if pattern[0] == '*' {
		return glob(pattern[1:], text) || text != "" && glob(pattern, text[1:])
	}
	return text != "" && (pattern[0] == '?' || pattern[0] == text[0]) && glob(pattern[1:], text[1:])
}

func patternItems(patterns ...string) []patternItem {
	items := make([]patternItem, len(patterns))
	for i, p := range patterns {
		items[i] = patternItem{p, watchlist.Pack(&watchlist.Entry{ID: p})}
	}
	return items
}

func TestPatternSet(t *testing.T) {
	items := patternItems("AB-1??-*", "*", "??-123-??", "*AB*", "ab 123 cd", "AB-1??-*", "*CD", "A*1*D", "AB.123", "Ä*",
		"", "-", "???????", "????????????", "*?????????????", "**A**", "AB123CD*", "*?*")
	p := newPatternSet(items)
	for _, tc := range []struct{ text, want string }{
		{"AB123CD", "AB-1??-*|*|??-123-??|*AB*|ab 123 cd|AB-1??-*|*CD|A*1*D|???????|**A**|AB123CD*|*?*"},
		{"AB12", "*|*AB*|**A**|*?*"},
		{"ZZ123ZZ", "*|??-123-??|???????|*?*"},
		{"AB123456789Z", "AB-1??-*|*|*AB*|AB-1??-*|????????????|**A**|*?*"},
		{"AB123456789ZZ", ""}, // no plate is so long
		{"AB-123-CD", ""},     // not the text of a plate
	} {
		var got []string
		for _, e := range p.match(nil, []byte(tc.text)) {
			got = append(got, e.ID())
		}
		if got := strings.Join(got, "|"); got != tc.want {
			t.Errorf("%s matches %s, want %s", tc.text, got, tc.want)
		}
	}
	for _, none := range []*patternSet{nil, newPatternSet(nil), newPatternSet(patternItems("A.B", "????????????A"))} {
		if got := none.match(nil, []byte("AB123CD")); len(got) != 0 {
			t.Errorf("a set of nothing matches %v", got)
		}
	}
}

// TestPatternSetAgainstGlob runs random sets and reads of few characters, so that
// they meet, through the set and the model. With the numbers below more than
// four million pairs are compared.
func TestPatternSetAgainstGlob(t *testing.T) {
	sets := 800
	if testing.Short() {
		sets = 100
	}
	rng := rand.New(rand.NewPCG(1, 4))
	var pairs, met int
	for i := range sets {
		alphabet := []string{"AB", "A1Z", "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"}[rng.IntN(3)]
		n := 1 + rng.IntN(100)
		if i == 3 {
			n = 5000
		}
		patterns := make([]string, n)
		for j := range patterns {
			patterns[j] = drawPattern(rng, alphabet)
		}
		items := patternItems(patterns...)
		p := newPatternSet(items)
		var got, want []*watchlist.Packed
		for range 100 {
			text := drawText(rng, alphabet, 2+rng.IntN(11))
			got, want = p.match(got[:0], text), want[:0]
			for _, it := range items {
				if glob(it.text, string(text)) {
					want = append(want, it.entry)
				}
			}
			pairs += n
			met += len(want)
			if !slices.Equal(got, want) {
				t.Fatalf("%s: got %d of %d patterns, want %d\npatterns %q", text, len(got), n, len(want), patterns[:min(n, 100)])
			}
		}
	}
	t.Logf("%d pairs of pattern and text, %d meet", pairs, met)
}

func drawPattern(rng *rand.Rand, alphabet string) string {
	var b strings.Builder
	for range rng.IntN(14) {
		switch k := rng.IntN(10); {
		case k < 2:
			b.WriteByte('*')
		case k < 4:
			b.WriteByte('?')
		default:
			b.WriteByte(alphabet[rng.IntN(len(alphabet))])
		}
	}
	return b.String()
}

func drawText(rng *rand.Rand, alphabet string, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[rng.IntN(len(alphabet))]
	}
	return b
}

// FuzzPatternSet: whatever the patterns, one a line, the set agrees with the model,
// which sees only those patterns that are written in the alphabet.
func FuzzPatternSet(f *testing.F) {
	f.Add("AB-1??-*\n??123??\n*AB*", "AB123CD")
	f.Add("*A*B*\n*A*B*\n*", "BABABABABABA")
	f.Add("A\x00\nä*\n?????????????", "AB")
	f.Fuzz(func(t *testing.T, patterns, text string) {
		lines := strings.Split(patterns, "\n")
		if len(lines) > 200 || len(text) > 40 {
			return
		}
		items := patternItems(lines...)
		isPlate := len(text) <= plate.MaxLen && strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
		var want []*watchlist.Packed
		for _, it := range items {
			p := strings.Map(func(r rune) rune {
				if r == ' ' || r == '-' {
					return -1
				}
				if 'a' <= r && r <= 'z' {
					return r - 'a' + 'A'
				}
				return r
			}, it.text)
			known := strings.Trim(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789?*") == ""
			for strings.Contains(p, "**") { // spares the model exponential time
				p = strings.ReplaceAll(p, "**", "*")
			}
			if p != "" && known && isPlate && glob(p, text) {
				want = append(want, it.entry)
			}
		}
		if got := newPatternSet(items).match(nil, []byte(text)); !slices.Equal(got, want) {
			t.Fatalf("%q: got %v, want %v", text, got, want)
		}
	})
}

func TestPatternSetAllocatesNothing(t *testing.T) {
	p := newPatternSet(patternItems("AB-1??-*", "*AB*", "??-123-??", "*"))
	dst := make([]*watchlist.Packed, 0, 8)
	for _, text := range []string{"AB123CD", "ZZ999ZZ"} {
		b := []byte(text)
		if n := testing.AllocsPerRun(1000, func() { dst = p.match(dst[:0], b) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", text, n)
		}
	}
}

// patternSets are the sets of BenchmarkPatternSet, n patterns each.
var patternSets = []struct {
	name string
	draw func(rng *rand.Rand) string
}{
	{"forms", func(rng *rand.Rand) string {
		switch s := sivText(rng); rng.IntN(3) {
		case 0:
			return s[:2] + "-" + s[2:3] + "??-*"
		case 1:
			return "??-" + s[2:5] + "-??"
		default:
			return "*" + s[:2] + "*"
		}
	}},
	// Under a prefix that no read has: what a read costs that meets nothing.
	{"forms-miss", func(rng *rand.Rand) string {
		switch s := sivText(rng); rng.IntN(3) {
		case 0:
			return "SS-" + s[2:3] + "??-*"
		case 1:
			return "?" + "I-" + s[2:5] + "-??"
		default:
			return "*" + s[:1] + "O*"
		}
	}},
	{"floating", func(rng *rand.Rand) string { return "*" + sivText(rng)[:2] + "*" }},
	{"hostile-same", func(*rand.Rand) string { return "*A*B*" }},
	{"hostile-pairs", func(rng *rand.Rand) string { s := sivText(rng); return "*" + s[:1] + "*" + s[1:2] + "*" }},
	// The characters of the worst read, each between stars, in some other order.
	{"worst", func(rng *rand.Rand) string {
		b := []byte(worstRead)
		rng.Shuffle(len(b), func(i, j int) { b[i], b[j] = b[j], b[i] })
		return "*" + strings.Join(strings.Split(string(b), ""), "*") + "*"
	}},
}

const worstRead = "AB123CD45EFG"

func sivText(rng *rand.Rand) string {
	l := func() byte { return "ABCDEFGHJKLMNPQRSTVWXYZ"[rng.IntN(23)] }
	return fmt.Sprintf("%c%c%03d%c%c", l(), l(), 1+rng.IntN(999), l(), l())
}

func (p *patternSet) size() (bytes int) {
	return int(unsafe.Sizeof(*p)) + cap(p.words)*int(unsafe.Sizeof(patternWord{})) + 8*cap(p.entries)
}

// BenchmarkPatternSet is one French read (for patterns=worst, one of twelve
// characters) against a set. It grows slower than the set where patterns say what
// stands at a place, and with the set where they do not.
func BenchmarkPatternSet(b *testing.B) {
	for _, ps := range patternSets {
		for _, n := range []int{10, 100, 1000} {
			rng := rand.New(rand.NewPCG(uint64(n), 5))
			patterns := make([]string, n)
			for i := range patterns {
				patterns[i] = ps.draw(rng)
			}
			p := newPatternSet(patternItems(patterns...))
			reads := make([][]byte, 1<<14)
			for i := range reads {
				reads[i] = []byte(sivText(rng))
				if ps.name == "worst" {
					reads[i] = []byte(worstRead)
				}
			}
			b.Run(fmt.Sprintf("patterns=%s/n=%d", ps.name, n), func(b *testing.B) {
				dst := make([]*watchlist.Packed, 0, 2*n)
				hits, i := 0, 0
				for b.Loop() {
					dst = p.match(dst[:0], reads[i&(1<<14-1)])
					hits += len(dst)
					i++
				}
				b.ReportMetric(float64(hits)/float64(b.N), "hits/read")
				b.ReportMetric(float64(p.size()), "set-B")
			})
		}
	}
}
