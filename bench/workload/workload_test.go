package workload

import (
	"fmt"
	"hash/fnv"
	"regexp"
	"strings"
	"testing"

	"vigie/watchlist/plate"
)

// TestNew checks what the documentation promises of every workload, on small ones.
func TestNew(t *testing.T) {
	for _, c := range []Config{
		{Kind: French, Seed: 1, Entries: 20_000, Reads: 50_000, HitRatio: 0.01},
		{Kind: French, Seed: 1, Entries: 20_000, Reads: 50_000},
		{Kind: European, Seed: 2, Entries: 20_000, Reads: 50_000, HitRatio: 0.001},
		{Kind: European, Seed: 3, Reads: 1000, HitRatio: 0.5},
	} {
		t.Run(fmt.Sprintf("kind=%s/entries=%d/hits=%v", c.Kind, c.Entries, c.HitRatio), func(t *testing.T) {
			w := New(c)
			if len(w.Entries) != c.Entries || len(w.Reads) != c.Reads || len(w.Changes()) != c.Entries+1 {
				t.Fatalf("%d entries, %d reads, %d changes", len(w.Entries), len(w.Reads), len(w.Changes()))
			}
			listed := map[plate.Key]bool{}
			ids := map[string]bool{}
			for i := range w.Entries {
				e := &w.Entries[i]
				if k, err := plate.Parse(e.Plate); err != nil || k != e.Key || k.Syntax(e.Country) != plate.Valid {
					t.Fatalf("entry %q of %s: key %v, %v", e.Plate, e.Country, k == e.Key, err)
				}
				if listed[e.Key] || ids[e.ID] || !e.ValidAt(At.UnixMilli()) {
					t.Fatalf("entry %d: drawn twice, or not valid", i)
				}
				listed[e.Key], ids[e.ID] = true, true
			}
			wanted := int(float64(c.Reads)*c.HitRatio + 0.5)
			if c.Entries == 0 {
				wanted = 0
			}
			var hits, unknown, valid, bare, small int
			seen := map[plate.Key]bool{}
			for _, r := range w.Reads {
				k, err := plate.Parse(r.Text)
				if err != nil {
					t.Fatalf("read %q: %v", r.Text, err)
				}
				if r.Hit != listed[k] || !r.Hit && seen[k] {
					t.Fatalf("read %q: hit %v, listed %v, seen %v", r.Text, r.Hit, listed[k], seen[k])
				}
				seen[k] = true
				for _, count := range []struct {
					n  *int
					is bool
				}{
					{&hits, r.Hit},
					{&unknown, r.Country == 0},
					{&valid, r.Country != 0 && k.Syntax(r.Country) == plate.Valid},
					{&bare, !strings.ContainsAny(r.Text, "- ")},
					{&small, strings.ToUpper(r.Text) != r.Text},
				} {
					if count.is {
						*count.n++
					}
				}
			}
			if hits != wanted || w.Hits != wanted {
				t.Errorf("%d hits, said %d, want %d", hits, w.Hits, wanted)
			}
			t.Logf("of %d reads: %d of unknown country, %d valid in theirs, %d without separators, %d in small letters",
				c.Reads, unknown, valid, bare, small)
			if c.Kind == French {
				siv := regexp.MustCompile(`^[A-H][A-Z]-[0-9]{3}-[A-Z]{2}$`)
				for _, r := range w.Reads {
					if !siv.MatchString(r.Text) {
						t.Fatalf("read %q", r.Text)
					}
				}
				if valid != c.Reads {
					t.Errorf("%d of %d French reads are valid", valid, c.Reads)
				}
			} else if n := c.Reads; unknown < n/4 || unknown > n*35/100 || valid > n*69/100 || valid < n/2 || bare < n/3 || small < n/20 {
				t.Error("shares are not as documented")
			}
		})
	}
}

// TestNewIsDeterministic holds the workloads themselves: a change here makes old
// figures incomparable, and must be said beside them.
func TestNewIsDeterministic(t *testing.T) {
	for _, tc := range []struct {
		c    Config
		want string
	}{
		{Config{Kind: French, Seed: 1, Entries: 1000, Reads: 1000, HitRatio: 0.01}, "f443f4eee2ccd2a0"},
		{Config{Kind: European, Seed: 1, Entries: 1000, Reads: 1000, HitRatio: 0.01}, "9124c9cfe1dd465e"},
	} {
		h := fnv.New64a()
		w := New(tc.c)
		for _, e := range w.Entries {
			fmt.Fprintln(h, e.ID, e.Plate, e.Country)
		}
		for _, r := range w.Reads {
			fmt.Fprintln(h, r.Text, r.Country, r.Hit)
		}
		if got := fmt.Sprintf("%016x", h.Sum64()); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.c.Kind, got, tc.want)
		}
	}
}

func ExampleNew() {
	w := New(Config{Kind: European, Seed: 5, Entries: 100, Reads: 1000, HitRatio: 0.01})
	fmt.Println(len(w.Entries), "entries,", len(w.Reads), "reads,", w.Hits, "hits")
	// Output: 100 entries, 1000 reads, 10 hits
}

// BenchmarkNew is the drawing itself, which a benchmark waits for before it starts.
func BenchmarkNew(b *testing.B) {
	for _, k := range []Kind{French, European} {
		b.Run("kind="+k.String(), func(b *testing.B) {
			for b.Loop() {
				New(Config{Kind: k, Seed: 1, Entries: 1_000_000})
			}
		})
	}
}
