package plate

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// benchPlates is how many plates a benchmark goes through: enough that the processor does
// not learn them by heart, few enough to stay in its cache.
const benchPlates = 1024

// sivPlates draws SIV numbers and writes them with format, which takes the letters on the
// left, the number and the letters on the right.
func sivPlates(format string) []string {
	r := rand.New(rand.NewPCG(20260314, 1))
	pair := func() string { return string([]byte{noIOU[r.IntN(len(noIOU))], noIOU[r.IntN(len(noIOU))]}) }
	plates := make([]string, benchPlates)
	for i := range plates {
		plates[i] = fmt.Sprintf(format, pair(), 1+r.IntN(999), pair())
	}
	return plates
}

// sink makes a result escape, as it does in real life.
var sink string

func keysOf(b *testing.B, plates []string) []Key {
	keys := make([]Key, len(plates))
	for i, p := range plates {
		keys[i] = mustParse(b, p)
	}
	return keys
}

// perPlate runs f on one plate after the other and reports the time of one. Allocations
// are those of a round of benchPlates.
func perPlate(b *testing.B, f func(i int)) {
	b.ReportAllocs()
	for b.Loop() {
		for i := range benchPlates {
			f(i)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchPlates), "ns/plate")
	b.ReportMetric(0, "ns/op") // the time of a whole round tells nobody anything
}

// BenchmarkParse isolates the normalisation of one plate. The first four forms take the
// fast path and grow with the length of the text; the others walk through the tables of
// Unicode, and must stay within a few hundred nanoseconds.
func BenchmarkParse(b *testing.B) {
	mixed := sivPlates("%s-%03d-%s")
	for i, p := range sivPlates("%s %03d %s") {
		if i%3 == 1 {
			mixed[i] = p
		}
	}
	for i, p := range sivPlates("%s%03d%s") {
		if i%3 == 2 {
			mixed[i] = p
		}
	}
	same := func(s string) []string {
		texts := make([]string, benchPlates)
		for i := range texts {
			texts[i] = s
		}
		return texts
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	for _, bb := range []struct {
		form  string
		texts []string
	}{
		{"bare", sivPlates("%s%03d%s")},
		{"dashes", sivPlates("%s-%03d-%s")},
		{"mixed", mixed},
		{"one", same("AB-123-CD")},
		{"unknown", same("unknown")},
		{"umlaut", same("MÜ-AO 123")},
		{"cyrillic", same("А123ВС77")},
		{"fullwidth", same("ＡＢ－１２３")},
		{"error", same("AB?123CD")},
	} {
		b.Run("form="+bb.form, func(b *testing.B) {
			perPlate(b, func(i int) { _, _ = Parse(bb.texts[i]) })
		})
	}
	b.Run("form=dashes/bytes", func(b *testing.B) {
		var texts [][]byte
		for _, p := range sivPlates("%s-%03d-%s") {
			texts = append(texts, []byte(p))
		}
		perPlate(b, func(i int) { _, _ = ParseBytes(texts[i]) })
	})
}

// BenchmarkKey isolates what matchers ask of a key; the cost grows with its length.
func BenchmarkKey(b *testing.B) {
	keys := keysOf(b, sivPlates("%s%03d%s"))
	dst := make([]byte, 0, MaxLen)
	b.Run("op=fold", func(b *testing.B) { perPlate(b, func(i int) { _ = keys[i].Fold() }) })
	b.Run("op=append", func(b *testing.B) { perPlate(b, func(i int) { dst = keys[i].AppendTo(dst[:0]) }) })
	b.Run("op=string", func(b *testing.B) { perPlate(b, func(i int) { sink = keys[i].String() }) })
	b.Run("op=valid", func(b *testing.B) { perPlate(b, func(i int) { _ = keys[i].Valid() }) })
	b.Run("op=digest", func(b *testing.B) { perPlate(b, func(i int) { _ = keys[i].Digest() }) })
}

// BenchmarkSyntax isolates the grading of SIV numbers, whose shape is the most shared.
func BenchmarkSyntax(b *testing.B) {
	keys := keysOf(b, sivPlates("%s%03d%s"))
	for _, c := range []string{"FR", "DE", ""} {
		c := mustCountry(b, c)
		b.Run("country="+c.String(), func(b *testing.B) { perPlate(b, func(i int) { _ = keys[i].Syntax(c) }) })
	}
}

// BenchmarkIsContainer isolates the test for container codes: of plates, which their length
// alone rules out, and of codes, which are spelled out and summed.
func BenchmarkIsContainer(b *testing.B) {
	plates := keysOf(b, sivPlates("%s%03d%s"))
	codes := make([]Key, benchPlates)
	for i := range codes {
		codes[i] = mustParse(b, fmt.Sprintf("CSQU%07d", 3054383+i))
	}
	n := 0
	count := func(k Key) {
		if k.IsContainer() {
			n++
		}
	}
	b.Run("key=plate", func(b *testing.B) { perPlate(b, func(i int) { count(plates[i]) }) })
	b.Run("key=container", func(b *testing.B) { perPlate(b, func(i int) { count(codes[i]) }) })
}

// BenchmarkParseCountry isolates the look-up of the country of a read.
func BenchmarkParseCountry(b *testing.B) {
	for _, s := range []string{"FR", "FRA", "eu-fr", "nowhere"} {
		b.Run("text="+s, func(b *testing.B) { perPlate(b, func(int) { _, _ = ParseCountry(s) }) })
	}
}
