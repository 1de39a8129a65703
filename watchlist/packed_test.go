package watchlist

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"vigie/watchlist/plate"
)

// drawEntry draws an entry as operators and files write it, or one that nobody would.
func drawEntry(rng *rand.Rand) *Entry {
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	text := func() string { return strings.Repeat(pick("", "v", "vol", "é", "x"), 1+rng.IntN(80)) }
	e := &Entry{
		ID:   pick("e1", "", strings.Repeat("a", EntryIDLen), strings.Repeat("7", EntryIDLen), strings.Repeat("z", 70)),
		List: pick("stolen", "", "l"), ListTag: rng.Uint32N(3),
		Plate:   pick("AB-123-CD", "AB 123 CD", "AB123CD", "ab-123-cd", "AB-123 CD", "-AB123CD", "AB123CD-", "AB--123-CD", "", "WÜ-E 1"),
		Country: plate.Country(rng.Uint32()), Action: Action(rng.Uint32()), Priority: Priority(rng.Uint32()),
		Reason: text(), CaseRef: text(), Requester: text(), Vehicle: text(), Safety: text(),
		ValidFrom:  time.UnixMilli(rng.Int64N(3e12) - 1e12).UTC(),
		ValidUntil: time.Unix(rng.Int64N(5e9), 0).UTC(),
		Version:    rng.Int64() >> rng.IntN(64) * (rng.Int64N(3) - 1),
	}
	if rng.IntN(2) == 0 {
		raw := make([]byte, idBytes)
		for i := range raw {
			raw[i] = byte(rng.Uint32())
		}
		e.ID = entryIDEncoding.EncodeToString(raw)
	}
	switch rng.IntN(4) {
	case 0:
		e.ValidFrom = time.Unix(rng.Int64N(2e9), 0).UTC()
	case 1:
		e.ValidFrom, e.ValidUntil = time.UnixMilli(math.MinInt64).UTC(), time.UnixMilli(math.MaxInt64).UTC()
	}
	if k, err := plate.Parse(e.Plate); err == nil {
		e.Key = k
	}
	if rng.IntN(8) == 0 {
		e.Key = plate.Key(rng.Uint64()) // of a newer packing, say
	}
	if rng.IntN(8) == 0 {
		e.Key, e.Plate = 0, "ab-1*"
		e.Pattern, _ = ParsePattern("AB1*")
	}
	return e
}

// TestPack: what is packed comes back, and what is read in place says the same.
func TestPack(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	packers := []*Packer{{}, {Bulk: true}}
	type pair struct {
		e *Entry
		p *Packed
	}
	var all []pair
	for i := range 20_000 {
		e := drawEntry(rng)
		all = append(all, pair{e, packers[i%2].Pack(e)})
	}
	runtime.GC() // entries of Bulk share memory that only pointers into its midst hold
	for _, a := range all {
		got := a.p.Unpack()
		if !reflect.DeepEqual(got, a.e) {
			t.Fatalf("got  %#v\nwant %#v", *got, *a.e)
		}
		from, until := a.p.Validity()
		if a.p.ID() != a.e.ID || a.p.List() != a.e.List || a.p.ListTag() != a.e.ListTag || a.p.Key() != a.e.Key ||
			a.p.Country() != a.e.Country || a.p.Action() != a.e.Action || a.p.Pattern() != a.e.Pattern ||
			a.p.IsPattern() == a.e.Pattern.IsZero() || from != a.e.ValidFrom.UnixMilli() || until != a.e.ValidUntil.UnixMilli() {
			t.Fatalf("in place it is not %#v", *a.e)
		}
	}
}

// TestPackKeepsNothing: the texts of an entry may lie in a buffer that is used again.
func TestPackKeepsNothing(t *testing.T) {
	buf := []byte("a-list,a reason,AB 123 CD,entry1")
	text := func(from, to int) string { return unsafe.String(&buf[from], to-from) }
	var k Packer
	p := k.Pack(&Entry{List: text(0, 6), Reason: text(7, 15), Plate: text(16, 25), ID: text(26, 32)})
	for i := range buf {
		buf[i] = 'x'
	}
	q := k.Pack(&Entry{List: "a-list", Reason: "a reason"})
	if e := p.Unpack(); e.List != "a-list" || e.Reason != "a reason" || e.Plate != "AB 123 CD" || e.ID != "entry1" {
		t.Errorf("%q, %q, %q, %q", e.List, e.Reason, e.Plate, e.ID)
	}
	if e := q.Unpack(); e.List != "a-list" || e.Reason != "a reason" {
		t.Errorf("then %q, %q", e.List, e.Reason)
	}
}

// TestPackedSize: a stolen vehicle, as lists hold millions of them, needs some 45 bytes.
func TestPackedSize(t *testing.T) {
	l := &List{ID: "stolen", Salt: make([]byte, SaltSize)}
	RememberSalt(l)
	const n = 10_000
	k := Packer{Bulk: true}
	entries := make([]*Entry, n)
	for i := range entries {
		text := "AB-" + string([]byte{'0' + byte(i/100%10), '0' + byte(i/10%10), '1' + byte(i%9)}) + "-CD"
		e, bad := NewEntry(l, EntryInput{Plate: text, Country: "FR", Reason: "vol", CaseRef: "2026/12345", Requester: "DNPJ",
			ValidFrom: time.Unix(1_790_000_000, 0), ValidUntil: time.Unix(1_800_000_000, 0)}, time.Unix(1_790_000_000, 0))
		if bad != nil {
			t.Fatal(bad[0])
		}
		e.Version = int64(1_000_000 + i)
		entries[i] = e
	}
	packed := make([]*Packed, n)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i, e := range entries {
		packed[i] = k.Pack(e)
	}
	runtime.ReadMemStats(&after)
	per := float64(after.TotalAlloc-before.TotalAlloc) / n
	t.Logf("%.1f bytes an entry", per)
	if per > 52 {
		t.Errorf("%.1f bytes an entry", per)
	}
}

// TestPackDerives: what is left out of an entry whose salt is remembered comes back, an id
// that the plate does not give stays as it is, and a salt that comes later changes nothing.
func TestPackDerives(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	salt := func(b byte) []byte { return bytes.Repeat([]byte{b}, SaltSize) }
	l := &List{ID: "derives", Salt: salt(1)}
	entry := func(plate string) *Entry {
		e, bad := NewEntry(l, EntryInput{Plate: plate, Country: "FR", Reason: "vol", CaseRef: "1", ValidFrom: now, ValidUntil: now.Add(time.Hour)}, now)
		if bad != nil {
			t.Fatal(bad[0])
		}
		return e
	}
	plain, early, foreign := entry("AB-123-CD"), entry("AB-124-CD"), entry("AB-125-CD")
	foreign.ID = early.ID
	var k Packer
	before := k.Pack(early)
	RememberSalt(l)
	RememberSalt(&List{ID: l.ID, Salt: salt(2)}) // another list of the same name
	for _, tt := range []struct {
		e       *Entry
		p       *Packed
		derives bool
	}{{plain, k.Pack(plain), true}, {early, before, false}, {early, k.Pack(early), true}, {foreign, k.Pack(foreign), false}} {
		if got := tt.p.flags&packedDerived != 0; got != tt.derives {
			t.Errorf("derives: %v, want %v", got, tt.derives)
		}
		if got := tt.p.Unpack(); !reflect.DeepEqual(got, tt.e) || tt.p.ID() != tt.e.ID {
			t.Errorf("got %+v with id %s, want %+v with id %s", got, got.ID, tt.e, tt.e.ID)
		}
	}
	if a, b := len(before.rest()), len(k.Pack(early).rest()); a-b != idBytes {
		t.Errorf("%d bytes with the id and %d without", a, b)
	}
}

// TestPackUnique: texts that no two entries share leave room for those that many do.
func TestPackUnique(t *testing.T) {
	k := Packer{Bulk: true}
	for i := range 2 * maxTexts {
		k.Pack(&Entry{Vehicle: "no other vehicle is described as " + strconv.Itoa(i)})
	}
	e := &Entry{Reason: "a reason of many entries, which was first met after all those others"}
	k.Pack(e)
	if n := len(k.Pack(e).rest()); n > 30 {
		t.Errorf("%d bytes beside the fixed ones, for a text that repeats", n)
	}
}

// TestPackTogether packs on several goroutines, as a load does, with texts and lists
// that meet for the first time.
func TestPackTogether(t *testing.T) {
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(9, uint64(worker%2)))
			var k Packer
			for range 2000 {
				e := drawEntry(rng)
				e.List, e.Reason = "together"+string(rune('a'+rng.IntN(500))), "because"+string(rune('a'+rng.IntN(5000)))
				if got := k.Pack(e).Unpack(); !reflect.DeepEqual(got, e) {
					t.Errorf("got %#v", *got)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzSeparated(f *testing.F) {
	f.Add("AB-123-CD")
	f.Add("ab 123 cd")
	f.Add("A--B1")
	f.Fuzz(func(t *testing.T, text string) {
		e := &Entry{Plate: text, ValidFrom: time.UnixMilli(0).UTC(), ValidUntil: time.UnixMilli(1).UTC()}
		e.Key, _ = plate.Parse(text)
		if got := Pack(e).Unpack(); !reflect.DeepEqual(got, e) {
			t.Errorf("%q comes back as %q", text, got.Plate)
		}
	})
}

func BenchmarkPack(b *testing.B) {
	l := &List{ID: "stolen", Salt: make([]byte, SaltSize)}
	e, bad := NewEntry(l, EntryInput{Plate: "AB-123-CD", Country: "FR", Reason: "vol", CaseRef: "2026/12345", Requester: "DNPJ",
		ValidFrom: time.Unix(1_790_000_000, 0), ValidUntil: time.Unix(1_800_000_000, 0)}, time.Unix(1_790_000_000, 0))
	if bad != nil {
		b.Fatal(bad[0])
	}
	pack := func(b *testing.B) {
		k := Packer{Bulk: true}
		for b.Loop() {
			k.Pack(e)
		}
	}
	b.Run("pack", pack)
	RememberSalt(l)
	b.Run("pack without id", pack)
	p := Pack(e)
	b.Run("unpack", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.Unpack()
		}
	})
	b.Run("list", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n += len(p.List())
		}
	})
}
