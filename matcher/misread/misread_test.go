package misread

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"vigie/watchlist/plate"
)

var fr, _ = plate.ParseCountry("FR")

func key(t testing.TB, s string) plate.Key {
	t.Helper()
	k, err := plate.Parse(s)
	if err != nil {
		t.Fatalf("Parse(%q): %v", s, err)
	}
	return k
}

func reading(t testing.TB, text string, conf float32, charConf ...float32) *Reading {
	r := new(Reading)
	r.Set(key(t, text), fr, conf, charConf)
	return r
}

// What a patrol would expect, in words; the figures are those of the table.
func TestPosterior(t *testing.T) {
	for _, tc := range []struct {
		name, entry, read string
		conf              float32
		least, most       float32
	}{
		{"read right, confident", "AB123CD", "AB123CD", 0.99, 0.95, 1},
		{"read right, not sure", "AB123CD", "AB123CD", 0.6, 0.7, 0.98},
		{"digit for a letter", "AB123CD", "A8123CD", 0.9, 0.3, 0.9},
		{"one of two letters that look so", "AB123CQ", "AB123C0", 0.9, 0.3, 0.95},
		{"the other of them", "AB123CD", "AB123C0", 0.9, 0.03, 0.7},
		{"country strip read as a character", "AB123CD", "FAB123CD", 0.9, 0.2, 0.95},
		{"last character lost", "AB123CD", "AB123C", 0.7, 0.001, 1.0 / 23},
		{"another valid plate, confident", "AB123CD", "AB123CO", 0.999, 0, 0.05},
		{"another valid plate, one digit off, confident", "AB123CD", "AB128CD", 0.999, 0, 1e-4},
		{"another valid plate, one letter off, not sure", "AB123CD", "AB123GD", 0.6, 1e-5, 0.1},
		{"nothing alike", "AB123CD", "XY789ZT", 0.4, 0, 1e-9},
		{"good plate of another form", "AB123CD", "123ABC75", 0.9, 0, 1e-6},
		{"an entry with a letter that is not issued, another such read", "AB123UI", "AB123UO", 0.998, 0, 0.004},
		{"the longest plate, one letter off", "ABCD12345678", "ABCD1234567B", 0.9, 0.01, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if p := reading(t, tc.read, tc.conf).Posterior(key(t, tc.entry), fr); p < tc.least || p > tc.most {
				t.Errorf("Posterior = %v, want %v to %v", p, tc.least, tc.most)
			}
		})
	}
}

// A read without country that is a good plate somewhere explains itself.
func TestPosteriorWithoutCountry(t *testing.T) {
	var r Reading
	r.Set(key(t, "OS123AB"), 0, 0.998, nil) // Croatian
	if p := r.Posterior(key(t, "QS123AB"), fr); p > 0.3 {
		t.Errorf("Posterior = %v", p)
	}
}

// naive sums over alignments the way the model is told: from character i of the
// plate and j of the read, add, lose or read one, but never drift apart by more
// than the band.
func naive(r *Reading, code []uint8, z int) float64 {
	n := len(code)
	var shape uint16
	for p, x := range code {
		if x >= 11 {
			shape |= 1 << p
		}
	}
	known := map[[2]int]float64{}
	var from func(i, j int) float64
	from = func(i, j int) (p float64) {
		if j > r.n || j-i > drift || i-j > drift {
			return 0
		}
		if p, ok := known[[2]int{i, j}]; ok {
			return p
		}
		defer func() { known[[2]int{i, j}] = p }()
		g := GapClass(n, i, shape)
		if j < r.n {
			p += float64(learnt.Added[z][g]) * float64(learnt.AddedAs[g][r.code[j+drift]]) * from(i, j+1)
		}
		stay := 1 - float64(learnt.Added[z][g])
		if i == n {
			if j == r.n {
				p += stay
			}
			return p
		}
		lost := float64(learnt.Lost[z][PlaceClass(n, i)])
		p += stay * lost * from(i+1, j)
		if j < r.n {
			doubt := float64(doubts[r.level[j+drift]])
			wrong := float64(learnt.Wrong[z][code[i]])
			wrong = wrong * doubt / (wrong*doubt + 1 - wrong)
			read := 1 - wrong
			if y := r.code[j+drift]; y != code[i] {
				read = wrong * float64(learnt.As[code[i]][y])
			}
			p += stay * (1 - lost) * read * from(i+1, j+1)
		}
		return p
	}
	return from(0, 0)
}

func randomText(r *rand.Rand, n int) (s string) {
	for range n {
		s += string("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[r.IntN(36)])
	}
	return s
}

// The forward algorithm against the sum over all alignments.
func TestLikelihood(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 4000 {
		entry := key(t, "A"+randomText(r, 1+r.IntN(plate.MaxLen-1)))
		text := "B" + randomText(r, 1+r.IntN(plate.MaxLen-1))
		if r.IntN(2) == 0 { // near each other
			b := []byte(entry.String())
			b[r.IntN(len(b))] = text[1]
			text = string(b)
		}
		var conf []float32
		if r.IntN(2) == 0 {
			for range text {
				conf = append(conf, r.Float32())
			}
		}
		rd := reading(t, text, float32(r.IntN(3))*r.Float32(), conf...)
		var code [plate.MaxLen]uint8
		n := entry.Codes(&code)
		want := 0.0
		for z := range Kinds {
			want += float64(learnt.Kind[rd.band][z]) * naive(rd, code[:n], z)
		}
		if got := float64(rd.likelihood(entry)); math.Abs(got-want) > 1e-4*want+1e-30 {
			t.Fatalf("likelihood of %q read %q = %v, want %v", entry.String(), text, got, want)
		}
	}
}

// moped is a French form of few plates: A1B.
func everyMoped(t testing.TB) (form int, all []plate.Key) {
	form = key(t, "A1B").FormOf(fr)
	places := plate.FormPlaces(form)
	if len(places) != 3 {
		t.Fatalf("A1B follows a form of %d places", len(places))
	}
	for a := range plate.Key(Codes) {
		for b := range plate.Key(Codes) {
			for c := range plate.Key(Codes) {
				if places[0]>>a&1 != 0 && places[1]>>b&1 != 0 && places[2]>>c&1 != 0 {
					all = append(all, (a*Codes+b)*Codes+c)
				}
			}
		}
	}
	return form, all
}

// The sum over a form in one pass, against the sum over its plates one by one;
// and the search, against trying all.
func TestAgainstEveryPlate(t *testing.T) {
	form, all := everyMoped(t)
	for _, text := range []string{"A1B", "A8B", "A1BK", "XA1B", "AIB", "1B", "8D", "A11B", "7", "WW123"} {
		if len(text) < plate.MinLen {
			continue
		}
		for _, conf := range []float32{0, 0.5, 0.9, 0.999} {
			rd := reading(t, text, conf)
			sum, posteriors := 0.0, 0.0
			var want []plate.Key
			const least = 0.01
			for _, k := range all {
				sum += float64(rd.likelihood(k))
				p := rd.Posterior(k, fr)
				posteriors += float64(p)
				if p >= least*1.0001 {
					want = append(want, k)
				}
			}
			for _, k := range all {
				if p := rd.Posterior(k, fr); rd.Below(k, 0.01) && p >= 0.01 {
					t.Errorf("%s at %v: Below rules out %s, which has %v", text, conf, k.String(), p)
				}
			}
			if mass := float64(rd.massLike(all[0], form)); math.Abs(mass-sum) > 1e-3*sum {
				t.Errorf("%s at %v: mass %v, want %v", text, conf, mass, sum)
			}
			if posteriors > 1.001 {
				t.Errorf("%s at %v: the posteriors add up to %v", text, conf, posteriors)
			}
			var got []plate.Key
			rd.Plausible(form, least, func(k plate.Key) { got = append(got, k) })
			slices.Sort(got)
			slices.Sort(want)
			for _, k := range want {
				if !slices.Contains(got, k) {
					t.Errorf("%s at %v: Plausible misses %s with %v", text, conf, k.String(), rd.Posterior(k, fr))
				}
			}
			if len(got) > len(want)+2 { // those on the edge
				t.Errorf("%s at %v: Plausible gives %d, want %d", text, conf, len(got), len(want))
			}
		}
	}
}

func TestDecode(t *testing.T) {
	for _, tc := range []struct {
		read string
		want string
	}{
		{"A8123CD", "AB123CD"},
		{"AB1Z3CD", "AB123CD"},
		{"AB123C0", "AB123CD"},
		{"AB123C0", "AB123CQ"},
		{"0O123CD", "QQ123CD"},
		{"FAB123CD", "AB123CD"},
		{"AB123CD1", "AB123CD"},
		{"FA8I23CD", "AB123CD"},
	} {
		rd := reading(t, tc.read, 0.9)
		if got := rd.Decode(nil, 0.01); !slices.Contains(got, key(t, tc.want)) {
			t.Errorf("Decode(%s) lacks %s", tc.read, tc.want)
		}
	}
	if got := reading(t, "AB123CD", 0.99).Decode(nil, 0.01); len(got) != 0 {
		t.Errorf("a confident good plate decodes to %d others", len(got))
	}
	var rd Reading
	rd.Set(key(t, "AB1Z3CD"), 0, 0.9, nil)
	if got := rd.Decode(nil, 0.01); !slices.Contains(got, key(t, "AB123CD")) {
		t.Error("a read without country that no country issues is not decoded as French")
	}
	rd.Set(key(t, "AB12SCD"), 0, 0.5, nil) // a British plate as it stands
	if got := rd.Decode(nil, 0.01); len(got) != 0 {
		t.Error("a read without country that is a good plate is decoded")
	}
}

// Confidences in characters say where the error is: of many seeded misreads, the
// true plate scores better with them, and better still when they are sure.
func TestCharConf(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	siv := key(t, "AB123CD").FormOf(fr)
	places := plate.FormPlaces(siv)
	var without, with, wrong float64
	const n = 2000
	for range n {
		var code [7]uint8
		for i, set := range places {
			for code[i] == 0 || set>>code[i]&1 == 0 {
				code[i] = uint8(1 + r.IntN(36))
			}
		}
		truth := pack(code[:])
		at := r.IntN(7)
		code[at] = drawConfusion(r, code[at])
		conf, misled := make([]float32, 7), make([]float32, 7)
		for i := range conf {
			conf[i] = 0.9 + 0.09*r.Float32()
			misled[i] = conf[i]
		}
		conf[at] = 0.3 + 0.4*r.Float32()
		misled[(at+1+r.IntN(6))%7] = 0.3
		var rd Reading
		ask := func(c []float32) float64 {
			rd.Set(pack(code[:]), fr, 0.8, c)
			return float64(rd.Posterior(truth, fr))
		}
		without += ask(nil)
		with += ask(conf)
		wrong += ask(misled)
	}
	t.Logf("mean score of the true plate: %.3f without, %.3f with confidences in characters, %.3f with misleading ones", without/n, with/n, wrong/n)
	if with < 1.15*without || wrong > 0.8*without {
		t.Error("the score does not follow the confidences in characters")
	}
}

func pack(code []uint8) (k plate.Key) {
	for _, x := range code {
		k = k*Codes + plate.Key(x)
	}
	return k
}

func drawConfusion(r *rand.Rand, x uint8) uint8 {
	u := r.Float32()
	for y, p := range learnt.As[x] {
		if u -= p; u < 0 {
			return uint8(y)
		}
	}
	return x%36 + 1
}

// The table is one of probabilities, none of them 0 or 1 where it could happen.
func TestTable(t *testing.T) {
	sum := func(name string, row []float32, own int) {
		s := 0.0
		for y, p := range row {
			s += float64(p)
			if p < 0 || p > 1 || p == 0 && y != own && (y > 0 || own < 0) {
				t.Errorf("%s: probability %v at %d", name, p, y)
			}
		}
		if math.Abs(s-1) > 0.01 {
			t.Errorf("%s adds up to %v", name, s)
		}
	}
	for b, row := range learnt.Kind {
		sum(fmt.Sprint("Kind ", b), row[:], -1)
	}
	for x := 1; x < Codes; x++ {
		sum(fmt.Sprint("As ", x), learnt.As[x][:], x)
	}
	for g, row := range learnt.AddedAs {
		sum(fmt.Sprint("AddedAs ", g), row[:], 0)
	}
}

func TestHeldOut(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	held := 0
	for range 10_000 {
		if HeldOut(randomText(r, 7)) {
			held++
		}
	}
	if held < 4800 || held > 5200 {
		t.Errorf("%d of 10000 held out, want about half", held)
	}
	if !HeldOut("AB123CD") || HeldOut("AB123CE") { // pinned: the table depends on it
		t.Error("the split has changed: the table must be learnt anew")
	}
}

// FuzzReading: whatever a sensor says, scores are probabilities.
func FuzzReading(f *testing.F) {
	f.Add(uint64(key(f, "AB123CD")), uint64(key(f, "A8123CD")), uint16(fr), float32(0.9), []byte{1, 2, 3, 4, 5, 6, 255})
	f.Add(uint64(key(f, "ABCD12345678")), uint64(key(f, "ABCD1234567B")), uint16(fr), float32(0.9), []byte{})
	f.Add(uint64(0), uint64(1), uint16(0), float32(math.NaN()), []byte{})
	f.Fuzz(func(t *testing.T, entry, read uint64, c uint16, conf float32, chars []byte) {
		var charConf []float32
		for _, b := range chars {
			charConf = append(charConf, float32(b)/250-0.1)
		}
		if len(chars) > 3 {
			charConf[0], charConf[1] = float32(math.NaN()), float32(math.Inf(1))
		}
		var r Reading
		r.Set(plate.Key(read), plate.Country(c), conf, charConf)
		if p := r.Posterior(plate.Key(entry), plate.Country(c)); !(p >= 0 && p <= 1) {
			t.Fatalf("Posterior = %v", p)
		}
		for _, c := range []plate.Country{plate.Country(c), 0} {
			if p := r.Posterior(plate.Key(entry), c); p >= 0.01 && r.Below(plate.Key(entry), 0.01) {
				t.Fatalf("Below rules out %v", p)
			}
		}
		for _, k := range r.Decode(nil, 0.01) {
			if !k.Valid() || k == plate.Key(read) {
				t.Fatalf("Decode gives %d", uint64(k))
			}
		}
	})
}

func TestAllocations(t *testing.T) {
	var r Reading
	read, entry := key(t, "A8123C0"), key(t, "AB123CD")
	conf := []float32{.9, .3, .9, .9, .9, .9, .5}
	dst := make([]plate.Key, 0, MaxDecoded)
	if n := testing.AllocsPerRun(100, func() {
		r.Set(read, fr, 0.8, conf)
		r.Posterior(entry, fr)
		dst = r.Decode(dst[:0], 0.01)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// BenchmarkPosterior isolates one entry weighed against one read: two passes of
// the forward algorithm.
func BenchmarkPosterior(b *testing.B) {
	entry, read := key(b, "AB123CD"), key(b, "AB123CO")
	var r Reading
	b.ReportAllocs()
	for b.Loop() {
		r.Set(read, fr, .9, nil)
		r.Posterior(entry, fr)
	}
}

// BenchmarkDecode isolates the proposals for one read: nearly nothing for a good
// plate read clearly, otherwise growing with the forms of the country.
func BenchmarkDecode(b *testing.B) {
	dst := make([]plate.Key, 0, MaxDecoded)
	for _, text := range []string{"AB123CD", "A8123C0", "ABI23CDJ", "A1E3KS"} {
		b.Run("read="+text, func(b *testing.B) {
			k := key(b, text)
			var r Reading
			b.ReportAllocs()
			for b.Loop() {
				r.Set(k, fr, .95, nil)
				dst = r.Decode(dst[:0], .02)
			}
			b.ReportMetric(float64(len(dst)), "plates")
		})
	}
}
