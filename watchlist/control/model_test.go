package control_test

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"vigie/watchlist"
	"vigie/watchlist/control"
)

// meant is a record with what it means, said by whoever made it.
type meant struct {
	rec    control.Record
	list   *watchlist.List
	entry  *watchlist.Entry
	sensor *control.Sensor
	exempt *watchlist.Exemption
	bad    bool // cannot be read
	noKey  bool // of no kind we know, or with a malformed key
}

// model is the slow, obvious State: the last record of each key, and nothing else.
type model map[string]meant

func (m model) apply(r meant) {
	if !r.noKey {
		m[string(r.rec.Key)] = r
	}
}

// content is all that a State says, in a form that compares.
type content struct {
	Lists   map[string]watchlist.List
	Entries map[string]watchlist.Entry // by list and id
	Sensors map[string]control.Sensor
	Exempt  map[string]watchlist.Exemption // by list and id
	Held    int
	HeldEx  int
	Sweep   []string // keys of WithdrawHeld
	Queues  []string
}

func newContent() content {
	return content{Lists: map[string]watchlist.List{}, Entries: map[string]watchlist.Entry{},
		Sensors: map[string]control.Sensor{}, Exempt: map[string]watchlist.Exemption{}}
}

// content says what is effective: an entry whose list is there and has the salt
// that the entry was made under, or that says nothing of a salt; and an exemption
// of which the same is true, and whose entry is effective.
func (m model) content() content {
	c := newContent()
	queues := map[string]bool{}
	for _, r := range m {
		switch {
		case r.list != nil:
			l := *r.list
			l.Version = r.rec.Offset
			c.Lists[l.ID] = l
			queues[l.Queue] = true
		case r.sensor != nil:
			sn := *r.sensor
			sn.Version = r.rec.Offset
			c.Sensors[sn.ID] = sn
		}
	}
	for _, r := range m {
		if r.entry == nil {
			continue
		}
		l, ok := c.Lists[r.entry.List]
		if !ok || r.entry.ListTag != 0 && r.entry.ListTag != l.Tag() {
			c.Held++
			if !m["list/"+r.entry.List].bad {
				c.Sweep = append(c.Sweep, string(r.rec.Key))
			}
			continue
		}
		e := *r.entry
		e.Version = r.rec.Offset
		c.Entries[e.List+"/"+e.ID] = e
	}
	for _, r := range m {
		if r.exempt == nil {
			continue
		}
		x := *r.exempt
		l, listed := c.Lists[x.List]
		owned := listed && (x.ListTag == 0 || x.ListTag == l.Tag())
		if _, ok := c.Entries[x.List+"/"+x.Entry]; !ok || !owned {
			c.HeldEx++
			if !m["list/"+x.List].bad && !(owned && m["entry/"+x.List+"/"+x.Entry].bad) {
				c.Sweep = append(c.Sweep, string(r.rec.Key))
			}
			continue
		}
		x.Version = r.rec.Offset
		c.Exempt[x.List+"/"+x.ID] = x
	}
	slices.Sort(c.Sweep)
	c.Queues = slices.Sorted(maps.Keys(queues))
	return c
}

// contentOf reads a State through its accessors, which must agree with each other.
func contentOf(t *rapid.T, s *control.State) content {
	c := newContent()
	c.Queues = s.Queues()
	st := s.Stats()
	c.Held, c.HeldEx = st.Held, st.HeldExemptions
	for _, rec := range s.WithdrawHeld(1 << 20) {
		c.Sweep = append(c.Sweep, string(rec.Key))
	}
	slices.Sort(c.Sweep)
	for _, l := range s.Lists() {
		c.Lists[l.ID] = *l
		n := 0
		for packed := range s.All(l.ID) {
			n++
			e := packed.Unpack()
			c.Entries[e.List+"/"+e.ID] = *e
			if e.List != l.ID || *s.Entry(l.ID, e.ID) != *e || !l.Owns(e) {
				t.Fatalf("entry %s/%s on list %s", e.List, e.ID, l.ID)
			}
		}
		if s.List(l.ID) != l || s.Len(l.ID) != n {
			t.Fatalf("list %s has %d entries, Len says %d", l.ID, n, s.Len(l.ID))
		}
		var all []*watchlist.Exemption
		for x := range s.AllExemptions(l.ID) {
			all = append(all, x)
			c.Exempt[x.List+"/"+x.ID] = *x
			if x.List != l.ID || s.Exemption(l.ID, x.ID) != x || !slices.Contains(s.ExemptionsOf(l.ID, x.Entry), x) {
				t.Fatalf("exemption %s/%s on list %s", x.List, x.ID, l.ID)
			}
		}
		if !slices.Equal(s.Exemptions(l.ID, "", 99), all) || len(all) > 1 && !slices.Equal(s.Exemptions(l.ID, all[0].ID, 1), all[1:2]) {
			t.Fatalf("pages of the exemptions of list %s differ from all", l.ID)
		}
		for e := range s.All(l.ID) {
			for _, x := range s.ExemptionsOf(l.ID, e.ID()) {
				if x.Entry != e.ID() || !slices.Contains(all, x) {
					t.Fatalf("exemption %s of entry %s", x.ID, e.ID())
				}
			}
		}
	}
	for _, sn := range s.Sensors() {
		c.Sensors[sn.ID] = *sn
	}
	if st.Lists != len(c.Lists) || st.Entries != len(c.Entries) || st.Sensors != len(c.Sensors) || st.Exemptions != len(c.Exempt) {
		t.Fatalf("stats %+v of %d lists, %d entries, %d sensors, %d exemptions", st, len(c.Lists), len(c.Entries), len(c.Sensors), len(c.Exempt))
	}
	return c
}

// follower is a consumer of changes, such as the matcher. It holds what they say
// and refuses any that does not follow from what it holds.
type follower struct {
	lists   map[string]*watchlist.List
	entries map[string]*watchlist.Packed
	sensors map[string]*control.Sensor
	exempt  map[string]*watchlist.Exemption
}

func newFollower() *follower {
	return &follower{map[string]*watchlist.List{}, map[string]*watchlist.Packed{}, map[string]*control.Sensor{}, map[string]*watchlist.Exemption{}}
}

func (f *follower) follow(t *rapid.T, c control.Change, version int64) {
	if c.Version != version {
		t.Fatalf("change at %d for record %d", c.Version, version)
	}
	kinds := 0
	for _, set := range []bool{c.OldList != nil || c.NewList != nil, c.OldEntry != nil || c.NewEntry != nil, c.OldSensor != nil || c.NewSensor != nil, c.OldExemption != nil || c.NewExemption != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		t.Fatalf("change of %d kinds", kinds)
	}
	swap(t, f.lists, c.OldList, c.NewList, func(l *watchlist.List) string { return l.ID })
	swap(t, f.entries, c.OldEntry, c.NewEntry, func(e *watchlist.Packed) string { return e.List() + "/" + e.ID() })
	swap(t, f.sensors, c.OldSensor, c.NewSensor, func(s *control.Sensor) string { return s.ID })
	swap(t, f.exempt, c.OldExemption, c.NewExemption, func(x *watchlist.Exemption) string { return x.List + "/" + x.ID })
	for _, x := range []*watchlist.Exemption{c.OldExemption, c.NewExemption} {
		if x != nil && f.entries[x.List+"/"+x.Entry] == nil {
			t.Fatalf("change of an exemption from entry %s/%s, which the follower does not have", x.List, x.Entry)
		}
	}
	if c.OldEntry != nil && c.NewEntry == nil {
		for _, x := range f.exempt {
			if x.List == c.OldEntry.List() && x.Entry == c.OldEntry.ID() {
				t.Fatalf("entry %s/%s goes before its exemption", x.List, x.Entry)
			}
		}
	}
	for _, e := range []*watchlist.Packed{c.OldEntry, c.NewEntry} {
		if e != nil && f.lists[e.List()] == nil {
			t.Fatalf("change of an entry of list %s, which the follower does not have", e.List())
		}
	}
	if c.OldList != nil && c.NewList == nil {
		for _, e := range f.entries {
			if e.List() == c.OldList.ID {
				t.Fatalf("list %s goes before its entry", e.List())
			}
		}
	}
}

func swap[T any](t *rapid.T, m map[string]*T, old, new *T, id func(*T) string) {
	switch {
	case old != nil:
		if m[id(old)] != old || new != nil && id(new) != id(old) {
			t.Fatalf("Old of %s is not what the follower has", id(old))
		}
		delete(m, id(old))
	case new != nil && m[id(new)] != nil:
		t.Fatalf("New of %s without Old", id(new))
	}
	if new != nil {
		m[id(new)] = new
	}
}

// check compares what the follower holds with the content of the State.
func (f *follower) check(t *rapid.T, c content) {
	if len(f.lists) != len(c.Lists) || len(f.entries) != len(c.Entries) || len(f.sensors) != len(c.Sensors) || len(f.exempt) != len(c.Exempt) {
		t.Fatalf("the follower has %d lists, %d entries, %d sensors, %d exemptions, the State %d, %d, %d, %d",
			len(f.lists), len(f.entries), len(f.sensors), len(f.exempt), len(c.Lists), len(c.Entries), len(c.Sensors), len(c.Exempt))
	}
	for id, x := range f.exempt {
		if !reflect.DeepEqual(*x, c.Exempt[id]) {
			t.Fatalf("the follower has another exemption %s", id)
		}
	}
	for id, e := range f.entries {
		if !reflect.DeepEqual(*e.Unpack(), c.Entries[id]) {
			t.Fatalf("the follower has another entry %s", id)
		}
	}
	for id, l := range f.lists {
		if !reflect.DeepEqual(*l, c.Lists[id]) {
			t.Fatalf("the follower has another list %s", id)
		}
	}
}

// drawRecord draws a record over few enough keys that they meet.
func drawRecord(t *rapid.T) meant {
	listID := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "list")
	l := list(listID, byte(rapid.IntRange(1, 2).Draw(t, "salt")))
	entryID := fmt.Sprintf("e%d", rapid.IntRange(0, 3).Draw(t, "entry"))
	sensorID := rapid.SampledFrom([]string{"s", "s/1"}).Draw(t, "sensor")
	exemptID := fmt.Sprintf("x%d", rapid.IntRange(0, 4).Draw(t, "exemption"))
	switch op := rapid.IntRange(0, 17).Draw(t, "op"); op {
	case 0, 1, 2:
		l.Name = fmt.Sprintf("Name %d", rapid.IntRange(0, 9).Draw(t, "name"))
		l.Queue = rapid.SampledFrom([]string{"q1", "q2"}).Draw(t, "queue")
		return meant{rec: listRec(l), list: l}
	case 3, 4:
		return meant{rec: control.WithdrawList(listID)}
	case 5, 6, 7, 8:
		e := entry(l, rapid.IntRange(0, 3).Draw(t, "plate"))
		e.ID = entryID
		if rapid.IntRange(0, 4).Draw(t, "untagged") == 0 {
			e.ListTag = 0
		}
		return meant{rec: entryRec(e), entry: e}
	case 9:
		return meant{rec: control.WithdrawEntry(listID, entryID)}
	case 10:
		s := &control.Sensor{ID: sensorID, Lat: float64(rapid.IntRange(0, 9).Draw(t, "lat"))}
		return meant{rec: sensorRec(s), sensor: s}
	case 11:
		return meant{rec: control.WithdrawSensor(sensorID)}
	case 13, 14, 15:
		// Under one id there may be exemptions from several entries: a State that can
		// bear this bears what HMACs make.
		x := exemption(l, entryID, rapid.IntRange(4, 7).Draw(t, "read"))
		x.ID = exemptID
		if rapid.IntRange(0, 4).Draw(t, "untagged") == 0 {
			x.ListTag = 0
		}
		return meant{rec: exemptionRec(x), exempt: x}
	case 16:
		return meant{rec: control.WithdrawExemption(listID, exemptID)}
	case 12: // a value that cannot be read
		key := rapid.SampledFrom([][]byte{
			control.WithdrawList(listID).Key, control.WithdrawEntry(listID, entryID).Key, control.WithdrawSensor(sensorID).Key,
			control.WithdrawExemption(listID, exemptID).Key,
		}).Draw(t, "bad key")
		value := rapid.SampledFrom([][]byte{
			{0xff}, // no Protobuf
			{},     // see below
			listRec(list("other", 1)).Value,
			sensorRec(&control.Sensor{ID: "other"}).Value,
			append([]byte{7 << 3, 99}, listRec(l).Value...), // of a newer schema
		}).Draw(t, "bad value")
		return meant{rec: control.Record{Key: key, Value: value}, bad: len(value) > 0}
	default: // a kind or key that says nothing
		key := rapid.SampledFrom([]string{"", "route/a", "list/A", "entry/a", "sensor/", "exemption/a"}).Draw(t, "no key")
		return meant{rec: control.Record{Key: []byte(key), Value: []byte("x")}, noKey: true, bad: key != "" && key != "route/a"}
	}
}

// TestStateIsTheLastRecordOfEachKey is the property that everything rests on. For
// any sequence of records:
//
//   - after each, the State says what the last record of each key says;
//   - whoever follows the changes holds the same;
//   - whatever compaction leaves of the log gives the same State. It must leave
//     the last record of a key, or nothing when that is a withdrawal; earlier
//     ones may be there or not, except that none outlives its withdrawal.
func TestStateIsTheLastRecordOfEachKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// A slice of drawn length would be short most of the time.
		n := rapid.SampledFrom([]int{5, 40, 120}).Draw(t, "records")
		log := rapid.SliceOfN(rapid.Custom(drawRecord), n, n).Draw(t, "log")
		s, m, f := control.NewState(), model{}, newFollower()
		offset := int64(-1)
		for i := range log {
			offset += 1 + int64(rapid.IntRange(0, 2).Draw(t, "gap"))
			log[i].rec.Offset = offset
			m.apply(log[i])
			changes, err := s.Apply(log[i].rec, nil)
			if bad := errors.As(err, new(*control.RecordError)); bad != log[i].bad || err != nil && !bad {
				t.Fatalf("record %d: %v, bad %v", i, err, log[i].bad)
			}
			for _, c := range changes {
				f.follow(t, c, offset)
			}
			got := contentOf(t, s)
			if want := m.content(); !reflect.DeepEqual(got, want) {
				t.Fatalf("after record %d of key %s:\n got %#v\nwant %#v", i, log[i].rec.Key, got, want)
			}
			f.check(t, got)
		}

		compacted := compact(t, log)
		again, g := control.NewState(), newFollower()
		load := rapid.Bool().Draw(t, "load")
		if load { // one or many at a time
			recs := make([]control.Record, len(compacted))
			for i, r := range compacted {
				recs[i] = r.rec
			}
			for part := range slices.Chunk(recs, rapid.IntRange(1, 40).Draw(t, "at a time")) {
				if len(part) == 1 {
					_ = again.Load(part[0]) // judged above
				} else if err := again.LoadAll(part, nil); err != nil {
					t.Fatal(err)
				}
			}
			compacted = nil
		}
		for _, r := range compacted {

			changes, _ := again.Apply(r.rec, nil)
			for _, c := range changes {
				g.follow(t, c, r.rec.Offset)
			}
		}
		again.Advance(offset + 1)
		if again.Version() != s.Version() {
			t.Fatalf("version %d from the compacted log, %d from the whole", again.Version(), s.Version())
		}
		got := contentOf(t, again)
		if want := contentOf(t, s); !reflect.DeepEqual(got, want) {
			t.Fatalf("%d of %d records left by compaction:\n got %#v\nwant %#v", len(compacted), len(log), got, want)
		}
		if !load {
			g.check(t, got)
		}
	})
}

// compact draws what compaction may leave of a log.
func compact(t *rapid.T, log []meant) []meant {
	last := make(map[string]int)
	for i, r := range log {
		last[string(r.rec.Key)] = i
	}
	// A key whose last record withdraws it may be gone altogether.
	gone := make(map[string]bool)
	for _, key := range slices.Sorted(maps.Keys(last)) {
		gone[key] = len(log[last[key]].rec.Value) == 0 && rapid.Bool().Draw(t, "gone "+key)
	}
	keepAll := rapid.Bool().Draw(t, "keep earlier")
	var out []meant
	for i, r := range log {
		key := string(r.rec.Key)
		switch {
		case gone[key]:
		case i == last[key]:
			out = append(out, r)
		case keepAll && rapid.Bool().Draw(t, "keep"):
			out = append(out, r)
		}
	}
	return out
}

// FuzzApply feeds arbitrary keys and values between records that are in order. It
// must not panic, and the last records alone must give the same content.
func FuzzApply(f *testing.F) {
	l := list("a", 1)
	e := entry(l, 1)
	x := exemption(l, e.ID, 9)
	for _, rec := range []control.Record{
		listRec(l), entryRec(e), sensorRec(&control.Sensor{ID: "s"}), control.WithdrawList("a"), control.WithdrawEntry("a", e.ID),
		exemptionRec(x), control.WithdrawExemption("a", x.ID),
	} {
		f.Add(rec.Key, rec.Value, []byte("list/b"), []byte{0xff})
		f.Add(listRec(list("a", 2)).Key, listRec(list("a", 2)).Value, rec.Key, rec.Value)
	}
	f.Fuzz(func(t *testing.T, key1, value1, key2, value2 []byte) {
		log := []control.Record{
			listRec(l), entryRec(e), exemptionRec(x), {Key: key1, Value: value1}, {Key: key2, Value: value2}, entryRec(entry(l, 2)),
		}
		whole, compacted := control.NewState(), control.NewState()
		for i, rec := range log {
			rec.Offset = int64(i)
			changes, err := whole.Apply(rec, nil)
			if err != nil && !errors.As(err, new(*control.RecordError)) {
				t.Fatal(err)
			}
			for _, c := range changes {
				if c == (control.Change{Version: int64(i)}) {
					t.Fatal("an empty change")
				}
			}
			later := slices.ContainsFunc(log[i+1:], func(r control.Record) bool { return string(r.Key) == string(rec.Key) })
			if !later {
				_ = compacted.Load(rec)
			}
		}
		a, b := whole.Stats(), compacted.Stats()
		if a.Lists != b.Lists || a.Entries != b.Entries || a.Held != b.Held || a.Sensors != b.Sensors ||
			a.Exemptions != b.Exemptions || a.HeldExemptions != b.HeldExemptions {
			t.Fatalf("whole log %+v, compacted %+v", a, b)
		}
		for _, l := range whole.Lists() {
			if !slices.EqualFunc(whole.Entries(l.ID, "", 9), compacted.Entries(l.ID, "", 9), func(x, y *watchlist.Entry) bool { return *x == *y }) {
				t.Fatalf("list %s differs", l.ID)
			}
		}
	})
}
