package control_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"vigie/watchlist"
	"vigie/watchlist/control"
)

// jumble returns a log of n records: mostly entries of one long list, with entries that
// come twice or are withdrawn, entries of other lists, exemptions, values that cannot be
// read, and lists that change, go and come back.
func jumble(n int, seed uint64) []control.Record {
	r := rand.New(rand.NewPCG(seed, 1))
	lists := []*watchlist.List{list("long", 1), list("long", 2), list("short", 1)}
	recs := []control.Record{at(0, listRec(lists[0]))}
	for len(recs) < n {
		var rec control.Record
		l := lists[0]
		if r.IntN(100) == 0 {
			l = lists[r.IntN(len(lists))]
		}
		e := entry(l, r.IntN(n))
		switch r.IntN(400) {
		case 0:
			rec = listRec(lists[r.IntN(len(lists))])
		case 1:
			rec = control.WithdrawEntry(l.ID, e.ID)
		case 2:
			rec = control.Record{Key: entryRec(e).Key, Value: []byte{0xff}}
		case 3:
			rec = exemptionRec(exemption(l, e.ID, r.IntN(n)))
		case 4:
			if r.IntN(10) == 0 {
				rec = control.WithdrawList(l.ID)
			} else {
				rec = sensorRec(&control.Sensor{ID: fmt.Sprint(r.IntN(9))})
			}
		case 5: // the same entry at once again, and with another tag
			recs = append(recs, at(int64(2*len(recs)), entryRec(e)))
			again := *e
			again.ListTag = 0
			rec = entryRec(&again)
		default:
			rec = entryRec(e)
		}
		recs = append(recs, at(int64(2*len(recs)), rec))
	}
	return append(recs, at(int64(2*len(recs)), listRec(lists[0])))
}

// sameState fails unless two States say the same.
func sameState(t *testing.T, got, want *control.State) {
	t.Helper()
	if got.Stats() != want.Stats() {
		t.Fatalf("stats %+v, want %+v", got.Stats(), want.Stats())
	}
	if !reflect.DeepEqual(got.Lists(), want.Lists()) || !reflect.DeepEqual(got.Sensors(), want.Sensors()) {
		t.Fatal("other lists or sensors")
	}
	for _, l := range want.Lists() {
		if !slices.EqualFunc(slices.Collect(got.All(l.ID)), slices.Collect(want.All(l.ID)), func(a, b *watchlist.Packed) bool { return *a.Unpack() == *b.Unpack() }) {
			t.Fatalf("other entries of list %s", l.ID)
		}
		if !slices.EqualFunc(slices.Collect(got.AllExemptions(l.ID)), slices.Collect(want.AllExemptions(l.ID)), func(a, b *watchlist.Exemption) bool { return *a == *b }) {
			t.Fatalf("other exemptions of list %s", l.ID)
		}
	}
	if !reflect.DeepEqual(got.WithdrawHeld(1<<20), want.WithdrawHeld(1<<20)) {
		t.Fatal("other records held")
	}
}

// TestLoadAllIsLoad: with any number of processors, and however many records are handed
// over at a time, LoadAll does what Load does for each.
func TestLoadAllIsLoad(t *testing.T) {
	for _, tt := range []struct {
		records      int
		procs, sizes []int
	}{{1000, []int{1, 3}, []int{7, 1001}}, {40_000, []int{2, 5}, []int{5000, 40_001}}} {
		recs := jumble(tt.records, 1)
		one := func() (s *control.State, bad []control.RecordError) {
			s = control.NewState()
			for _, rec := range recs {
				var re *control.RecordError
				if err := s.Load(rec); errors.As(err, &re) {
					bad = append(bad, *re)
				} else if err != nil {
					t.Fatal(err)
				}
			}
			return s, bad
		}
		// It goes on from there with single records.
		further := func(s *control.State) *control.State {
			apply(t, s, control.WithdrawList("long"))
			apply(t, s, entryRec(entry(list("long", 1), tt.records)))
			apply(t, s, listRec(list("long", 1)))
			return s
		}
		want, bad := one()
		later, _ := one()
		further(later)
		if st := want.Stats(); tt.records > 10_000 && (st.Entries < tt.records/3 || st.Held == 0 || st.Unreadable < 50 || st.HeldExemptions == 0 || st.Exemptions == 0) {
			t.Errorf("stats %+v: the log does not hold what it should", st)
		}
		for _, procs := range tt.procs {
			for _, size := range tt.sizes {
				t.Run(fmt.Sprintf("records=%d/procs=%d/size=%d", tt.records, procs, size), func(t *testing.T) {
					defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
					got := control.NewState()
					var unreadable []control.RecordError
					for part := range slices.Chunk(recs, size) {
						if err := got.LoadAll(part, func(re *control.RecordError) { unreadable = append(unreadable, *re) }); err != nil {
							t.Fatal(err)
						}
					}
					sameState(t, got, want)
					sameState(t, further(got), later)
					if !slices.Equal(unreadable, bad) {
						t.Errorf("%d unreadable records were reported, want %d in their order", len(unreadable), len(bad))
					}
				})
			}
		}
	}
}

// TestLoadAllStopsAtAnOffset: what comes before a record out of order is applied, what
// comes after is not.
func TestLoadAllStopsAtAnOffset(t *testing.T) {
	l := list("a", 1)
	for _, last := range []control.Record{entryRec(entry(l, 3)), control.WithdrawList("a")} {
		s := control.NewState()
		err := s.LoadAll([]control.Record{
			at(4, listRec(l)), at(5, entryRec(entry(l, 1))), at(7, entryRec(entry(l, 2))), at(7, last), at(9, entryRec(entry(l, 4))),
		}, nil)
		if st := s.Stats(); !errors.Is(err, control.ErrOffset) || st.Version != 7 || st.Entries != 2 || st.Records != 3 {
			t.Errorf("%v, stats %+v", err, st)
		}
	}
	if err := control.NewState().LoadAll(nil, nil); err != nil {
		t.Error(err)
	}
}
