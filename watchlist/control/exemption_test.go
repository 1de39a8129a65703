package control_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/control/controlpb"
	"vigie/watchlist/plate"
)

// tell renders changes as describe does, with x for exemptions.
func tell(changes []control.Change) string {
	var s []string
	for _, c := range changes {
		if d := describe([]control.Change{c}); d != "" {
			s = append(s, d)
		}
		if x := c.OldExemption; x != nil {
			s = append(s, fmt.Sprintf("-x:%s@%d", x.Read.String(), x.Version))
		}
		if x := c.NewExemption; x != nil {
			s = append(s, fmt.Sprintf("+x:%s@%d", x.Read.String(), x.Version))
		}
	}
	return strings.Join(s, " ")
}

// TestExemptions tells the story of an entry, its exemptions, and what a matcher sees.
func TestExemptions(t *testing.T) {
	first, second := list("a", 1), list("a", 2)
	e := entry(first, 1)
	x, y := exemption(first, e.ID, 2), exemption(first, e.ID, 3)
	if x.ID > y.ID {
		x, y = y, x
	}
	longer := *x
	longer.Until = now.AddDate(1, 0, 0)
	next := exemption(second, e.ID, 4)
	k, kx, ky := e.Key.String(), x.Read.String(), y.Read.String()

	steps := []struct {
		name string
		rec  control.Record
		want string
	}{
		{"exemption before its list", exemptionRec(x), ""},
		{"list", listRec(first), "+l:a@1"},
		{"exemption before its entry", exemptionRec(y), ""},
		{"its entry", entryRec(e), "+e:" + k + "@3 +x:" + kx + "@0 +x:" + ky + "@2"},
		{"entry again", entryRec(e), "-e:" + k + "@3 +e:" + k + "@4"},
		{"exemption prolonged", exemptionRec(&longer), "-x:" + kx + "@0 +x:" + kx + "@5"},
		{"exemption ended", control.WithdrawExemption("a", y.ID), "-x:" + ky + "@2"},
		{"ended twice", control.WithdrawExemption("a", y.ID), ""},
		{"entry withdrawn", control.WithdrawEntry("a", e.ID), "-x:" + kx + "@5 -e:" + k + "@4"},
		{"entry back", entryRec(e), "+e:" + k + "@9 +x:" + kx + "@5"},
		{"list dropped", control.WithdrawList("a"), "-x:" + kx + "@5 -e:" + k + "@9 -l:a@1"},
		{"drop undone", listRec(first), "+l:a@11 +e:" + k + "@9 +x:" + kx + "@5"},
		{"exemption of the next list", exemptionRec(next), ""},
		{"list made anew", listRec(second), "-x:" + kx + "@5 -e:" + k + "@9 -l:a@11 +l:a@13"},
	}
	s := control.NewState()
	for i, step := range steps {
		changes, err := s.Apply(at(int64(i), step.rec), nil)
		if got := tell(changes); got != step.want || err != nil {
			t.Errorf("%s: %q, %v, want %q", step.name, got, err, step.want)
		}
	}
	if st := s.Stats(); st.Exemptions != 0 || st.HeldExemptions != 2 || st.Held != 1 {
		t.Errorf("stats %+v", st)
	}
	if s.Exemption("a", x.ID) != nil || s.ExemptionsOf("a", e.ID) != nil || s.Exemptions("a", "", 9) != nil {
		t.Error("held exemptions are seen")
	}

	// An entry that says nothing of a tag stays when its list is made anew, and its exemption does not.
	untagged := *e
	untagged.ListTag = 0
	apply(t, s, entryRec(&untagged))
	if of := s.ExemptionsOf("a", e.ID); len(of) != 1 || !of[0].Equal(next) || of[0] != s.Exemption("a", next.ID) {
		t.Errorf("ExemptionsOf = %v", of)
	}
	changes := apply(t, s, listRec(first))
	if got, want := tell(changes), fmt.Sprintf("-x:%s@12 -l:a@13 +l:a@15 +x:%s@5", next.Read.String(), kx); got != want {
		t.Errorf("list made anew around an untagged entry: %q, want %q", got, want)
	}

	// What is held can be withdrawn; the limit holds.
	apply(t, s, control.WithdrawList("a"))
	if recs := s.WithdrawHeld(1); len(recs) != 1 {
		t.Errorf("WithdrawHeld(1) = %d records", len(recs))
	}
	recs := s.WithdrawHeld(9)
	if len(recs) != 3 {
		t.Errorf("WithdrawHeld = %d records", len(recs))
	}
	for _, rec := range recs {
		apply(t, s, rec)
	}
	if st := s.Stats(); st.HeldExemptions != 0 || st.Held != 0 {
		t.Errorf("stats %+v", st)
	}
}

// TestUnreadableEntrySparesItsExemptions: an old program must not throw away what a
// newer one says of an entry that only newer ones can read.
func TestUnreadableEntrySparesItsExemptions(t *testing.T) {
	l := list("a", 1)
	e := entry(l, 1)
	x := exemption(l, e.ID, 2)
	s := control.NewState()
	for _, rec := range []control.Record{listRec(l), entryRec(e), exemptionRec(x)} {
		apply(t, s, rec)
	}
	if changes, err := s.Apply(at(3, control.Record{Key: entryRec(e).Key, Value: []byte{0xff}}), nil); err == nil || len(changes) != 2 {
		t.Fatalf("%d changes, %v", len(changes), err)
	}
	if st := s.Stats(); st.HeldExemptions != 1 || s.WithdrawHeld(9) != nil {
		t.Errorf("stats %+v, and WithdrawHeld gives %d records", st, len(s.WithdrawHeld(9)))
	}
	apply(t, s, control.WithdrawEntry("a", e.ID)) // now it is withdrawn for good
	if recs := s.WithdrawHeld(9); len(recs) != 1 || string(recs[0].Key) != "exemption/a/"+x.ID {
		t.Errorf("WithdrawHeld gives %d records, want 1", len(recs))
	}
}

func TestExemptionRecord(t *testing.T) {
	l, e, _ := full()
	x := exemption(l, e.ID, 5)
	rec := exemptionRec(x)
	if want := "exemption/stolen/" + x.ID; string(rec.Key) != want {
		t.Errorf("key %q, want %q", rec.Key, want)
	}
	if strings.Contains(string(rec.Key), x.Read.String()) {
		t.Error("the key holds the plate")
	}
	if got := control.WithdrawExemption(l.ID, x.ID); string(got.Key) != string(rec.Key) || got.Value != nil {
		t.Errorf("withdrawn by %q with %d bytes", got.Key, len(got.Value))
	}
	var c controlpb.Control
	if err := proto.Unmarshal(rec.Value, &c); err != nil {
		t.Fatal(err)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&c)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "record_exemption.json", text)

	s := control.NewState()
	for _, rec := range []control.Record{listRec(l), entryRec(e), rec} {
		apply(t, s, rec)
	}
	x.Version = 2
	if got := s.Exemption(l.ID, x.ID); !reflect.DeepEqual(got, x) {
		t.Errorf("exemption differs from the one written")
	}

	// The writer refuses what Apply would, and what nobody may ask.
	for _, tt := range []struct {
		name   string
		change func(*watchlist.Exemption)
		want   string // part of the error
	}{
		{"id", func(x *watchlist.Exemption) { x.ID = "A/B" }, "id:"},
		{"list", func(x *watchlist.Exemption) { x.List = "" }, "list:"},
		{"entry", func(x *watchlist.Exemption) { x.Entry = "" }, "entry:"},
		{"no read", func(x *watchlist.Exemption) { x.Read = 0 }, "read:"},
		{"no reason", func(x *watchlist.Exemption) { x.Reason = " " }, "reason: is mandatory"},
		{"text", func(x *watchlist.Exemption) { x.Requester = "\xff" }, "requester: must be UTF-8"},
		{"no end", func(x *watchlist.Exemption) { x.Until = time.Time{} }, "until: is mandatory"},
		{"over", func(x *watchlist.Exemption) { x.Until = now }, "until: is not in the future"},
		{"too long", func(x *watchlist.Exemption) { x.Until = now.Add(watchlist.MaxExemption + time.Millisecond) }, "until: is more than 366 days"},
		{"fine time", func(x *watchlist.Exemption) { x.Until = x.Until.Add(1) }, "NewExemption"},
		{"two errors", func(x *watchlist.Exemption) { x.Reason, x.Read = "", 1 }, "reason:"},
	} {
		c := *x
		tt.change(&c)
		_, err := control.ExemptionRecord(&c, "op", now)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), x.Read.String()) {
			t.Errorf("%s: error %v, want one with %q and without the plate", tt.name, err, tt.want)
		}
	}
	if _, err := control.ExemptionRecord(x, "", now); err == nil {
		t.Error("no actor, and no error")
	}
	longest := *x
	longest.Until = now.Add(watchlist.MaxExemption)
	if _, err := control.ExemptionRecord(&longest, "op", now); err != nil {
		t.Errorf("the longest exemption: %v", err)
	}
}

// TestUnreadableExemptions: a value that is bad ends the exemption, so that its read
// alerts again.
func TestUnreadableExemptions(t *testing.T) {
	l := list("a", 1)
	e := entry(l, 1)
	x := exemption(l, e.ID, 2)
	rec := exemptionRec(x)
	edit := func(change func(*controlpb.Control)) control.Record {
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
	lost := "-x:" + x.Read.String() + "@2"
	for _, tt := range []struct {
		name   string
		rec    control.Record
		reason control.Reason
		field  string
		want   string
	}{
		{"garbage", control.Record{Key: rec.Key, Value: []byte("{}")}, control.ReasonProto, "", lost},
		{"newer", edit(func(c *controlpb.Control) { c.Schema = control.Schema + 1 }), control.ReasonSchema, "", lost},
		{"other kind", control.Record{Key: rec.Key, Value: entryRec(e).Value}, control.ReasonKind, "", lost},
		{"other id", edit(func(c *controlpb.Control) { c.GetExemption().Id = "b" }), control.ReasonID, "", lost},
		{"other list", edit(func(c *controlpb.Control) { c.GetExemption().List = "b" }), control.ReasonID, "", lost},
		{"no entry", edit(func(c *controlpb.Control) { c.GetExemption().Entry = "" }), control.ReasonField, "entry", lost},
		{"read", edit(func(c *controlpb.Control) { c.GetExemption().Read = "A*" }), control.ReasonPlate, "", lost},
		{"no read", edit(func(c *controlpb.Control) { c.GetExemption().Read = "" }), control.ReasonPlate, "", lost},
		{"for ever", edit(func(c *controlpb.Control) { c.GetExemption().Until = 0 }), control.ReasonField, "until", lost},
		{"too long", edit(func(c *controlpb.Control) { c.GetExemption().Until = now.Add(watchlist.MaxExemption).UnixMilli() + 1 }), control.ReasonField, "until", lost},
		{"wrapping round", edit(func(c *controlpb.Control) { c.At, c.GetExemption().Until = -1<<63, 1<<62 }), control.ReasonField, "until", lost},
		{"over when written", edit(func(c *controlpb.Control) { c.GetExemption().Until = c.GetAt() }), control.ReasonField, "until", lost},
		{"written never", edit(func(c *controlpb.Control) { c.At = 0 }), control.ReasonField, "until", lost},
		{"key", control.Record{Key: []byte("exemption/a"), Value: rec.Value}, control.ReasonKey, "", ""},
		{"key, too deep", control.Record{Key: []byte("exemption/a/b/c"), Value: rec.Value}, control.ReasonKey, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := control.NewState()
			for _, rec := range []control.Record{listRec(l), entryRec(e), rec} {
				apply(t, s, rec)
			}
			changes, err := s.Apply(at(3, tt.rec), nil)
			var re *control.RecordError
			if !errors.As(err, &re) || *re != (control.RecordError{Offset: 3, Kind: control.KindExemption, Reason: tt.reason, Field: tt.field}) {
				t.Errorf("error %v", err)
			}
			if got := tell(changes); got != tt.want {
				t.Errorf("changes %q, want %q", got, tt.want)
			}
			apply(t, s, rec) // it goes on
			if s.Stats().Exemptions != 1 {
				t.Error("the exemption did not recover")
			}
		})
	}
}

// TestOlderAndNewerReaders: an exemption needs no new schema. A program that does not
// know the kind passes over its key (TestUnknownKindsArePassedOver) and so never looks
// at the value; if it did, it would find a Control that holds nothing it knows. And a
// field that a newer writer adds is skipped here.
func TestOlderAndNewerReaders(t *testing.T) {
	l := list("a", 1)
	e := entry(l, 1)
	rec := exemptionRec(exemption(l, e.ID, 2))
	var c controlpb.Control
	if err := proto.Unmarshal(rec.Value, &c); err != nil || c.GetSchema() != 0 {
		t.Fatalf("schema %d, %v: want none said", c.GetSchema(), err)
	}
	for b := rec.Value; len(b) > 0; {
		num, _, n := protowire.ConsumeField(b)
		if n < 0 || num >= 4 && num <= 6 {
			t.Fatalf("field %d, which says list, entry or sensor to older readers", num)
		}
		b = b[n:]
	}

	x := c.GetExemption()
	x.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 99, protowire.BytesType), "new"))
	newer, err := proto.Marshal(&c)
	if err != nil {
		t.Fatal(err)
	}
	s := control.NewState()
	for _, rec := range []control.Record{listRec(l), entryRec(e), {Key: rec.Key, Value: newer}} {
		apply(t, s, rec)
	}
	if s.Stats().Exemptions != 1 {
		t.Errorf("stats %+v", s.Stats())
	}
}

func ExampleExemptionRecord() {
	l := list("stolen", 1)
	e := entry(l, 1)
	read, _ := plate.Parse("AA-O02-AA")
	x, _ := watchlist.NewExemption(l, e, watchlist.ExemptionInput{
		Read: read, Reason: "another vehicle, stopped on 12 March", Until: now.AddDate(0, 6, 0),
	}, now)
	rec, err := control.ExemptionRecord(x, "token-of-operator-7", now)
	fmt.Println(string(rec.Key), err)
	// Output: exemption/stolen/mg2l224jjqvrnodu4qywga3xle <nil>
}
