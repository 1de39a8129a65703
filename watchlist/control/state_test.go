package control_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/control/controlpb"
)

// describe renders changes as -old +new, in order: l list, e entry, s sensor.
func describe(changes []control.Change) string {
	var s []string
	side := func(sign string, l *watchlist.List, e *watchlist.Packed, sn *control.Sensor) {
		switch {
		case l != nil:
			s = append(s, fmt.Sprintf("%sl:%s@%d", sign, l.ID, l.Version))
		case e != nil:
			s = append(s, fmt.Sprintf("%se:%s@%d", sign, e.Key().String(), e.Unpack().Version))
		case sn != nil:
			s = append(s, fmt.Sprintf("%ss:%s@%d", sign, sn.ID, sn.Version))
		}
	}
	for _, c := range changes {
		side("-", c.OldList, c.OldEntry, c.OldSensor)
		side("+", c.NewList, c.NewEntry, c.NewSensor)
	}
	return strings.Join(s, " ")
}

// TestApply tells the story of a list and of the changes a matcher sees.
func TestApply(t *testing.T) {
	first, second := list("a", 1), list("a", 2)
	one, two := entry(first, 1), entry(first, 2)
	if one.ID > two.ID {
		one, two = two, one
	}
	three := entry(second, 3)
	k1, k2, k3 := one.Key.String(), two.Key.String(), three.Key.String()
	renamed := *first
	renamed.Name = "Renamed"

	steps := []struct {
		name string
		rec  control.Record
		want string
	}{
		{"entry before its list", entryRec(one), ""},
		{"its list", listRec(first), "+l:a@1 +e:" + k1 + "@0"},
		{"entry", entryRec(two), "+e:" + k2 + "@2"},
		{"entry again", entryRec(two), "-e:" + k2 + "@2 +e:" + k2 + "@3"},
		{"list renamed", listRec(&renamed), "-l:a@1 +l:a@4"},
		{"entry withdrawn", control.WithdrawEntry("a", two.ID), "-e:" + k2 + "@3"},
		{"entry withdrawn twice", control.WithdrawEntry("a", two.ID), ""},
		{"entry back", entryRec(two), "+e:" + k2 + "@7"},
		{"list dropped", control.WithdrawList("a"), "-e:" + k1 + "@0 -e:" + k2 + "@7 -l:a@4"},
		{"list dropped twice", control.WithdrawList("a"), ""},
		{"entry withdrawn without a list", control.WithdrawEntry("a", two.ID), ""},
		{"drop undone", listRec(first), "+l:a@11 +e:" + k1 + "@0"},
		{"entry of the next list", entryRec(three), ""},
		{"list made anew", listRec(second), "-e:" + k1 + "@0 -l:a@11 +l:a@13 +e:" + k3 + "@12"},
		{"entry of the former list", entryRec(two), ""},
		{"entry of the former list, again", entryRec(two), ""},
		{"sensor", sensorRec(&control.Sensor{ID: "A7/1"}), "+s:A7/1@16"},
		{"sensor moved", sensorRec(&control.Sensor{ID: "A7/1", Lat: 1}), "-s:A7/1@16 +s:A7/1@17"},
		{"sensor withdrawn", control.WithdrawSensor("A7/1"), "-s:A7/1@17"},
		{"sensor withdrawn twice", control.WithdrawSensor("A7/1"), ""},
	}
	s := control.NewState()
	for i, step := range steps {
		changes, err := s.Apply(at(int64(i), step.rec), nil)
		if got := describe(changes); got != step.want || err != nil {
			t.Errorf("%s: %q, %v, want %q", step.name, got, err, step.want)
		}
		for _, c := range changes {
			if c.Version != int64(i) {
				t.Errorf("%s: change at version %d, want %d", step.name, c.Version, i)
			}
		}
	}
	if st := s.Stats(); st.Entries != 1 || st.Held != 2 || s.Len("a") != 1 || st.Records != uint64(len(steps)) || st.Version != 19 {
		t.Errorf("stats %+v", st)
	}
	if s.Entry("a", one.ID) != nil || s.Entry("a", three.ID) == nil {
		t.Error("Entry does not tell held entries from those of the list")
	}
	if page := s.Entries("a", "", 10); len(page) != 1 || page[0].ID != three.ID {
		t.Errorf("Entries = %v", page)
	}

	// Held entries can be withdrawn; the limit holds.
	if recs := s.WithdrawHeld(1); len(recs) != 1 {
		t.Errorf("WithdrawHeld(1) = %d records", len(recs))
	}
	for _, rec := range s.WithdrawHeld(10) {
		if changes := apply(t, s, rec); len(changes) != 0 {
			t.Errorf("withdrawing a held entry: %s", describe(changes))
		}
	}
	if st := s.Stats(); st.Held != 0 || st.Entries != 1 || s.WithdrawHeld(10) != nil {
		t.Errorf("stats %+v after WithdrawHeld", st)
	}
}

func TestApplyAppends(t *testing.T) {
	s := control.NewState()
	dst := make([]control.Change, 1, 8)
	dst, err := s.Apply(at(5, listRec(list("a", 1))), dst)
	if err != nil || len(dst) != 2 || dst[1].NewList == nil || s.Version() != 5 {
		t.Errorf("Apply = %d changes, %v, at version %d", len(dst), err, s.Version())
	}
}

func TestOffsets(t *testing.T) {
	s := control.NewState()
	if s.Version() != -1 {
		t.Errorf("a new State is at version %d", s.Version())
	}
	apply(t, s, listRec(list("a", 1)))
	if _, err := s.Apply(at(7, listRec(list("b", 1))), nil); err != nil { // a gap left by compaction
		t.Error(err)
	}
	for _, offset := range []int64{7, 6, 0, -1} {
		changes, err := s.Apply(at(offset, control.WithdrawList("a")), nil)
		if !errors.Is(err, control.ErrOffset) || changes != nil || s.List("a") == nil || s.Version() != 7 {
			t.Errorf("offset %d again: %v, %v", offset, changes, err)
		}
		if err := s.Load(at(offset, control.WithdrawList("a"))); !errors.Is(err, control.ErrOffset) {
			t.Errorf("offset %d again: Load: %v", offset, err)
		}
	}
	s.Advance(5) // no way back
	if s.Version() != 7 {
		t.Errorf("version %d after Advance(5), want 7", s.Version())
	}
	s.Advance(20)
	if s.Version() != 19 {
		t.Errorf("version %d after Advance(20), want 19", s.Version())
	}
	if err := s.Load(at(20, control.WithdrawList("a"))); err != nil || s.List("a") != nil {
		t.Errorf("Load at 20: %v", err)
	}
}

// TestUnreadable: each way in which a value can be bad withdraws what its key
// held, is counted, and stops nothing.
func TestUnreadable(t *testing.T) {
	l := list("a", 1)
	e := entry(l, 1)
	sn := &control.Sensor{ID: "s"}
	edit := func(rec control.Record, change func(*controlpb.Control)) control.Record {
		var c controlpb.Control
		if err := proto.Unmarshal(rec.Value, &c); err != nil {
			t.Fatal(err)
		}
		change(&c)
		value, err := proto.Marshal(&c)
		if err != nil {
			t.Fatal(err)
		}
		return control.Record{Key: rec.Key, Value: value}
	}
	value := func(rec, of control.Record) control.Record { return control.Record{Key: rec.Key, Value: of.Value} }
	lr, er, sr := listRec(l), entryRec(e), sensorRec(sn)
	lost, lostList := "-e:"+e.Key.String()+"@1", "-e:"+e.Key.String()+"@1 -l:a@0"

	tests := []struct {
		name   string
		rec    control.Record
		kind   control.Kind
		reason control.Reason
		field  string
		want   string
	}{
		{"entry, garbage", control.Record{Key: er.Key, Value: []byte("{}")}, control.KindEntry, control.ReasonProto, "", lost},
		{"entry, newer", edit(er, func(c *controlpb.Control) { c.Schema = control.Schema + 1 }), control.KindEntry, control.ReasonSchema, "", lost},
		{"entry, other kind", value(er, lr), control.KindEntry, control.ReasonKind, "", lost},
		{"entry, nothing in it", edit(er, func(c *controlpb.Control) { c.Of = nil }), control.KindEntry, control.ReasonKind, "", lost},
		{"entry, other id", edit(er, func(c *controlpb.Control) { c.GetEntry().Id = "b" }), control.KindEntry, control.ReasonID, "", lost},
		{"entry, other list", edit(er, func(c *controlpb.Control) { c.GetEntry().List = "b" }), control.KindEntry, control.ReasonID, "", lost},
		{"entry, plate", edit(er, func(c *controlpb.Control) { c.GetEntry().Plate = "?" }), control.KindEntry, control.ReasonPlate, "", lost},
		{"entry, sentinel", edit(er, func(c *controlpb.Control) { c.GetEntry().Plate = "unknown" }), control.KindEntry, control.ReasonPlate, "", lost},
		{"entry, country", edit(er, func(c *controlpb.Control) { c.GetEntry().Country = "?" }), control.KindEntry, control.ReasonField, "country", lost},
		{"entry, action", edit(er, func(c *controlpb.Control) { c.GetEntry().Action = "arrest" }), control.KindEntry, control.ReasonField, "action", lost},
		{"entry, no action", edit(er, func(c *controlpb.Control) { c.GetEntry().Action = "" }), control.KindEntry, control.ReasonField, "action", lost},
		{"entry, priority", edit(er, func(c *controlpb.Control) { c.GetEntry().Priority = 5 }), control.KindEntry, control.ReasonField, "priority", lost},
		{"entry, huge priority", edit(er, func(c *controlpb.Control) { c.GetEntry().Priority = 257 }), control.KindEntry, control.ReasonField, "priority", lost},
		{"list, garbage", control.Record{Key: lr.Key, Value: []byte{0xff}}, control.KindList, control.ReasonProto, "", lostList},
		{"list, other kind", value(lr, er), control.KindList, control.ReasonKind, "", lostList},
		{"list, other id", value(lr, listRec(list("b", 1))), control.KindList, control.ReasonID, "", lostList},
		{"list, tolerance", edit(lr, func(c *controlpb.Control) { c.GetList().Tolerance = "fuzzy" }), control.KindList, control.ReasonField, "tolerance", lostList},
		{"list, threshold", edit(lr, func(c *controlpb.Control) { c.GetList().Threshold = 1.5 }), control.KindList, control.ReasonField, "threshold", lostList},
		{"list, threshold no number", edit(lr, func(c *controlpb.Control) { c.GetList().Threshold = float32(math.NaN()) }), control.KindList, control.ReasonField, "threshold", lostList},
		{"list, action", edit(lr, func(c *controlpb.Control) { c.GetList().DefaultAction = "" }), control.KindList, control.ReasonField, "default_action", lostList},
		{"list, priority", edit(lr, func(c *controlpb.Control) { c.GetList().DefaultPriority = 260 }), control.KindList, control.ReasonField, "default_priority", lostList},
		{"list, queue", edit(lr, func(c *controlpb.Control) { c.GetList().Queue = "{x}" }), control.KindList, control.ReasonField, "queue", lostList},
		{"sensor, garbage", control.Record{Key: sr.Key, Value: []byte{0xff}}, control.KindSensor, control.ReasonProto, "", "-s:s@2"},
		{"sensor, other kind", value(sr, er), control.KindSensor, control.ReasonKind, "", "-s:s@2"},
		{"sensor, other id", value(sr, sensorRec(&control.Sensor{ID: "t"})), control.KindSensor, control.ReasonID, "", "-s:s@2"},
		{"key of a list", control.Record{Key: []byte("list/A"), Value: lr.Value}, control.KindList, control.ReasonKey, "", ""},
		{"key of a list, withdrawn", control.Record{Key: []byte("list/")}, control.KindList, control.ReasonKey, "", ""},
		{"key of an entry", control.Record{Key: []byte("entry/a"), Value: er.Value}, control.KindEntry, control.ReasonKey, "", ""},
		{"key of an entry, too deep", control.Record{Key: []byte("entry/a/b/c"), Value: er.Value}, control.KindEntry, control.ReasonKey, "", ""},
		{"key of a sensor", control.Record{Key: []byte("sensor/\xff"), Value: sr.Value}, control.KindSensor, control.ReasonKey, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := control.NewState()
			for _, rec := range []control.Record{lr, er, sr} {
				apply(t, s, rec)
			}
			changes, err := s.Apply(at(3, tt.rec), nil)
			var re *control.RecordError
			if !errors.As(err, &re) || *re != (control.RecordError{Offset: 3, Kind: tt.kind, Reason: tt.reason, Field: tt.field}) {
				t.Errorf("error %v", err)
			}
			if got := describe(changes); got != tt.want {
				t.Errorf("changes %q, want %q", got, tt.want)
			}
			if st := s.Stats(); st.Version != 3 || st.Unreadable != 1 || st.Records != 4 {
				t.Errorf("stats %+v", st)
			}
			apply(t, s, lr) // it goes on
			apply(t, s, er)
			if s.Len("a") != 1 {
				t.Error("the list did not recover")
			}
		})
	}
	err := error(&control.RecordError{Offset: 3, Kind: control.KindEntry, Reason: control.ReasonField, Field: "action"})
	if got, want := err.Error(), "control: record 3 (entry) cannot be read: field action"; got != want {
		t.Errorf("error text %q, want %q", got, want)
	}
}

// TestUnreadableListSparesItsEntries: an old program must not throw away the
// entries of a list that only newer ones can read.
func TestUnreadableListSparesItsEntries(t *testing.T) {
	l := list("a", 1)
	s := control.NewState()
	apply(t, s, listRec(l))
	apply(t, s, entryRec(entry(l, 1)))
	if _, err := s.Apply(at(2, control.Record{Key: []byte("list/a"), Value: []byte{0xff}}), nil); err == nil {
		t.Fatal("no error")
	}
	if st := s.Stats(); st.Held != 1 || s.WithdrawHeld(9) != nil {
		t.Errorf("stats %+v, and WithdrawHeld gives %d records", st, len(s.WithdrawHeld(9)))
	}
	apply(t, s, control.WithdrawList("a")) // now it is dropped for good
	if recs := s.WithdrawHeld(9); len(recs) != 1 {
		t.Errorf("WithdrawHeld gives %d records, want 1", len(recs))
	}
}

func TestUnknownKindsArePassedOver(t *testing.T) {
	s := control.NewState()
	for i, key := range []string{"", "route/1", "alias/a/b", "list", "LIST/a", "/"} {
		changes, err := s.Apply(at(int64(i), control.Record{Key: []byte(key), Value: []byte{0xff}}), nil)
		if err != nil || changes != nil {
			t.Errorf("key %q: %v, %v", key, changes, err)
		}
	}
	if st := s.Stats(); st.Unknown != 6 || st.Records != 6 || st.Unreadable != 0 {
		t.Errorf("stats %+v", st)
	}
}

// TestOtherPacking: the plate counts, not the key that another packing gave it.
func TestOtherPacking(t *testing.T) {
	l := list("a", 1)
	e := entry(l, 1)
	rec := entryRec(e)
	var c controlpb.Control
	if err := proto.Unmarshal(rec.Value, &c); err != nil {
		t.Fatal(err)
	}
	c.Packing, c.GetEntry().Key = 99, 12345
	rec.Value, _ = proto.Marshal(&c)
	s := control.NewState()
	apply(t, s, listRec(l))
	apply(t, s, rec)
	if got := s.Entry("a", e.ID); got.Key != e.Key {
		t.Errorf("key %v, want %v", got.Key, e.Key)
	}
}

func TestDefaultsOfOtherWriters(t *testing.T) {
	write := func(key string, c *controlpb.Control) control.Record {
		value, err := proto.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return control.Record{Key: []byte(key), Value: value}
	}
	s := control.NewState()
	apply(t, s, write("list/a", &controlpb.Control{Of: &controlpb.Control_List{List: &controlpb.List{Id: "a", Tolerance: "exact", DefaultAction: "inform"}}}))
	apply(t, s, write("entry/a/e1", &controlpb.Control{Of: &controlpb.Control_Entry{Entry: &controlpb.Entry{Id: "e1", List: "a", Plate: "AB-123-CD", Action: "inform"}}}))
	if got := s.List("a").Queue; got != watchlist.DefaultQueue {
		t.Errorf("queue %q, want %q", got, watchlist.DefaultQueue)
	}
	if e := s.Entry("a", "e1"); e == nil || e.Priority != watchlist.PriorityMedium || e.Country != 0 {
		t.Errorf("entry %v", e)
	}
}

func TestAccessors(t *testing.T) {
	s := control.NewState()
	for _, id := range []string{"c", "a", "b"} {
		l := list(id, 1)
		l.Queue = map[string]string{"a": "q2", "b": "q1", "c": "q2"}[id]
		apply(t, s, listRec(l))
		apply(t, s, sensorRec(&control.Sensor{ID: "S" + id}))
	}
	var ids []string
	for _, l := range s.Lists() {
		ids = append(ids, l.ID)
	}
	for _, sn := range s.Sensors() {
		ids = append(ids, sn.ID)
	}
	if want := []string{"a", "b", "c", "Sa", "Sb", "Sc"}; !slices.Equal(ids, want) {
		t.Errorf("ids %q, want %q", ids, want)
	}
	if got, want := s.Queues(), []string{"q1", "q2"}; !slices.Equal(got, want) {
		t.Errorf("Queues() = %q, want %q", got, want)
	}
	if s.List("x") != nil || s.Entry("x", "y") != nil || s.Entry("a", "y") != nil || s.Len("x") != 0 || s.Sensor("x") != nil || s.Entries("x", "", 9) != nil {
		t.Error("something is there that is not")
	}

	l := list("a", 1)
	for n := range 50 {
		apply(t, s, entryRec(entry(l, n)))
	}
	var all []*watchlist.Entry
	for e := range s.All("a") {
		all = append(all, e.Unpack())
	}
	for _, limit := range []int{1, 7, 50, 51} {
		var paged []*watchlist.Entry
		for after := ""; ; after = paged[len(paged)-1].ID {
			page := s.Entries("a", after, limit)
			if len(page) == 0 {
				break
			}
			paged = append(paged, page...)
		}
		if !slices.EqualFunc(paged, all, func(a, b *watchlist.Entry) bool { return *a == *b }) || len(all) != 50 {
			t.Errorf("pages of %d give %d entries, All gives %d", limit, len(paged), len(all))
		}
	}
	if !slices.IsSortedFunc(all, func(a, b *watchlist.Entry) int { return strings.Compare(a.ID, b.ID) }) {
		t.Error("All is not in order")
	}
	if s.Entries("a", "", 0) != nil || s.Entries("a", "", -1) != nil {
		t.Error("a page of nothing has entries")
	}
	for range s.All("a") { // may be left early
		break
	}
}

// TestBuffersAreNotKept: a caller may reuse the buffers of a record after Apply.
func TestBuffersAreNotKept(t *testing.T) {
	l := list("a", 1)
	e := entry(l, 1)
	s := control.NewState()
	for _, rec := range []control.Record{listRec(l), entryRec(e), sensorRec(&control.Sensor{ID: "s", Name: "n", Zones: []string{"z"}})} {
		apply(t, s, rec)
		for _, b := range [][]byte{rec.Key, rec.Value} {
			for i := range b {
				b[i] = 'x'
			}
		}
	}
	got := *s.Entry("a", e.ID)
	got.Version = 0
	if !reflect.DeepEqual(&got, e) || s.List("a").Name != l.Name || s.Sensor("s").Zones[0] != "z" {
		t.Error("the State keeps the buffers of a record")
	}
}

// ExampleState is the loop of a process that follows the log.
func ExampleState() {
	l := list("stolen", 1)
	log := []control.Record{
		at(0, listRec(l)),
		at(1, entryRec(entry(l, 1))),
		at(2, control.Record{Key: []byte("entry/stolen/x"), Value: []byte("not a record")}),
		at(3, control.WithdrawList("stolen")),
	}
	s := control.NewState()
	var changes []control.Change
	for _, rec := range log {
		var err error
		changes, err = s.Apply(rec, changes[:0])
		var unreadable *control.RecordError
		switch {
		case errors.As(err, &unreadable):
			fmt.Println(err) // report it and go on
		case err != nil:
			panic(err) // out of order: a fault of the loop
		}
		for _, c := range changes {
			switch {
			case c.OldList != nil || c.NewList != nil:
				fmt.Println(c.Version, "list", c.OldList != nil, c.NewList != nil)
			case c.OldEntry != nil || c.NewEntry != nil:
				fmt.Println(c.Version, "entry", c.OldEntry != nil, c.NewEntry != nil)
			}
		}
	}
	// Output:
	// 0 list false true
	// 1 entry false true
	// control: record 2 (entry) cannot be read: proto
	// 3 entry true false
	// 3 list true false
}
