package control

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"vigie/watchlist"
)

// checkSet compares s with the obvious model and its own invariants.
func checkSet(t *testing.T, s *set[*watchlist.Packed], model map[string]*watchlist.Packed) {
	t.Helper()
	want := slices.Sorted(maps.Keys(model))
	var got []string
	for i, r := range s.runs {
		if len(r.blocks) == 0 || len(r.blocks) > maxRun || r.first != r.blocks[0].first {
			t.Fatalf("run %d has %d blocks, first %x", i, len(r.blocks), r.first)
		}
		for i, b := range r.blocks {
			if len(b.items) == 0 || len(b.items) > maxBlock || b.first != b.items[0].prefix {
				t.Fatalf("block %d has %d items, first %x", i, len(b.items), b.first)
			}
			for _, it := range b.items {
				id := it.value.ID()
				if it.prefix != prefix(id) || model[id] != it.value {
					t.Fatalf("item %q is not what was put", id)
				}
				got = append(got, id)
			}
		}
	}
	if !slices.Equal(got, want) || s.n != len(want) {
		t.Fatalf("holds %d ids, counts %d, want %d in order", len(got), s.n, len(want))
	}
}

// TestSet grows a set through several splits and shrinks it to nothing, with
// ids that are random, ascending, and equal in their first eight bytes.
func TestSet(t *testing.T) {
	for name, another := range map[string]func(*rand.Rand, int) string{
		"random":      func(r *rand.Rand, _ int) string { return fmt.Sprintf("%08x", r.Uint32()>>18) },
		"ascending":   func(_ *rand.Rand, i int) string { return fmt.Sprintf("%06d", i) },
		"descending":  func(_ *rand.Rand, i int) string { return fmt.Sprintf("%06d", 999999-i) },
		"base32":      func(r *rand.Rand, _ int) string { return base32ID(r, 1+r.IntN(4)) },
		"foreign":     func(r *rand.Rand, _ int) string { return foreignID(r, 1+r.IntN(4)) },
		"same prefix": func(r *rand.Rand, _ int) string { return fmt.Sprintf("list-of-%d", r.IntN(4000)) },
		"short":       func(r *rand.Rand, _ int) string { return fmt.Sprintf("%x", r.IntN(3000)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			var s set[*watchlist.Packed]
			model := make(map[string]*watchlist.Packed)
			for i := range 6000 {
				id := another(r, i)
				e := watchlist.Pack(&watchlist.Entry{ID: id})
				if old := s.put(e); old != model[id] {
					t.Fatalf("put(%q) = %v, want %v", id, old, model[id])
				}
				model[id] = e
				if i%3 == 0 { // sometimes one that is not there
					gone := another(r, i/2)
					if old := s.remove([]byte(gone)); old != model[gone] {
						t.Fatalf("remove(%q) = %v, want %v", gone, old, model[gone])
					}
					delete(model, gone)
				}
				if i%500 == 0 {
					checkSet(t, &s, model)
				}
				if i == 4000 {
					s.settle()
					checkSet(t, &s, model)
				}
			}
			checkSet(t, &s, model)

			ids := slices.Sorted(maps.Keys(model))
			for _, after := range []string{"", ids[0], ids[len(ids)/2], ids[len(ids)/2] + "x", ids[len(ids)-1], "\xff"} {
				want := ids[:0:0]
				for _, id := range ids {
					if id > after {
						want = append(want, id)
					}
				}
				var got []string
				for e := range s.all([]byte(after)) {
					got = append(got, e.ID())
				}
				if !slices.Equal(got, want) {
					t.Errorf("all(%q) yields %d ids, want %d", after, len(got), len(want))
				}
			}

			r.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			for i, id := range ids {
				if b := []byte(id); s.get(b) != model[id] || s.remove(b) != model[id] || s.get(b) != nil {
					t.Fatalf("%q was not found, or is still there", id)
				}
				delete(model, id)
				if i%500 == 0 {
					checkSet(t, &s, model)
					if blocks := countBlocks(&s); s.n > maxBlock && s.n < blocks*maxBlock/8 {
						t.Errorf("%d entries lie in %d blocks", s.n, blocks)
					}
				}
			}
			checkSet(t, &s, model)
			if len(s.runs) != 0 {
				t.Errorf("the empty set has %d runs", len(s.runs))
			}
		})
	}
}

// TestSetParts puts many entries at a time, several parts at once, and takes them out.
func TestSetParts(t *testing.T) {
	for name, id := range map[string]func(*rand.Rand) string{
		"base32": func(r *rand.Rand) string { return base32ID(r, watchlist.EntryIDLen) },
		"short":  func(r *rand.Rand) string { return base32ID(r, 3) },
		// All of a million ids have one of a few prefixes, and runs begin within one.
		"same prefix": func(r *rand.Rand) string { return fmt.Sprintf("%d-%06d", r.IntN(3), r.IntN(1e6)) },
		"one prefix":  func(r *rand.Rand) string { return fmt.Sprintf("list-of-%06d", r.IntN(1e6)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(5, 6))
			var s set[*watchlist.Packed]
			model := make(map[string]*watchlist.Packed)
			for round := range 6 {
				var items []item[*watchlist.Packed]
				old := make(map[*watchlist.Packed]*watchlist.Packed)
				for range 12_000 {
					id := id(r)
					e := watchlist.Pack(&watchlist.Entry{ID: id})
					items = append(items, item[*watchlist.Packed]{prefix(id), e})
					old[e], model[id] = model[id], e
				}
				parts := s.take(1 + round)
				done := make([]map[*watchlist.Packed]*watchlist.Packed, len(parts))
				parallel(len(parts), func(i int) {
					done[i] = make(map[*watchlist.Packed]*watchlist.Packed)
					parts[i].putAll(items, func(old, e *watchlist.Packed) { done[i][e] = old })
				})
				s.unite(parts)
				checkSet(t, &s, model)
				if round%2 == 0 {
					s.settle()
					checkSet(t, &s, model)
					if blocks := countBlocks(&s); blocks != (s.n+maxBlock-1)/maxBlock {
						t.Errorf("%d entries settle in %d blocks", s.n, blocks)
					}
				}
				n := 0
				for _, d := range done {
					for e, was := range d {
						if n++; old[e] != was {
							t.Fatalf("put(%q) = %v, want %v", e.ID(), was, old[e])
						}
					}
				}
				if n != len(items) {
					t.Fatalf("%d of %d entries were put", n, len(items))
				}
			}
			if name == "base32" && len(s.runs) < 4 {
				t.Errorf("%d runs: the test tests little", len(s.runs))
			}
			left := len(model)
			for id, e := range model {
				if s.remove([]byte(id)) != e {
					t.Fatalf("%q was not found", id)
				}
				delete(model, id)
				if left--; left%20_000 == 0 {
					checkSet(t, &s, model)
				}
			}
			checkSet(t, &s, model)
		})
	}
}

func countBlocks(s *set[*watchlist.Packed]) (n int) {
	for _, r := range s.runs {
		n += len(r.blocks)
	}
	return n
}

func base32ID(r *rand.Rand, n int) string { return randomID(r, n, "234567abcdefghijklmnopqrstuvwxyz") }

func foreignID(r *rand.Rand, n int) string { return randomID(r, n, "-012789_ayz") }

func randomID(r *rand.Rand, n int, from string) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = from[r.IntN(len(from))]
	}
	return string(b)
}

// TestPrefix: prefixes never sort against the ids, whatever is in these, and those of
// entry ids are spread evenly.
func TestPrefix(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	ids := []string{"", "\x00", "\xff", "\xff\xff", "z", "zzzzzzzzzzzzz", "{", "a", "_", "8", "9z", "7z", "1", "-"}
	for range 2000 {
		ids = append(ids, base32ID(r, r.IntN(16)), foreignID(r, r.IntN(16)), randomID(r, r.IntN(16), "\x00-129_az~\xff"))
	}
	slices.Sort(ids)
	for i := 1; i < len(ids); i++ {
		if prefix(ids[i-1]) > prefix(ids[i]) {
			t.Fatalf("%q has a greater prefix than %q", ids[i-1], ids[i])
		}
	}
	var quarters [4]int
	for range 40_000 {
		quarters[prefix(base32ID(r, watchlist.EntryIDLen))>>58]++
	}
	for i, n := range quarters {
		if n < 9_500 || n > 10_500 {
			t.Errorf("%d of 40,000 random ids in quarter %d", n, i)
		}
	}
}
