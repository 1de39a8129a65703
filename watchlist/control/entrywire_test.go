package control

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"vigie/watchlist/control/controlpb"
)

// FuzzScan asserts that whatever scan accepts, the generated decoder accepts with
// the same result, and that scan accepts what the generated encoder writes.
func FuzzScan(f *testing.F) {
	full := &controlpb.Control{Packing: 1, Actor: "op", At: 1, Of: &controlpb.Control_Entry{Entry: &controlpb.Entry{
		Id: "a", List: "b", Plate: "AB-123-CD", Key: 1 << 60, Country: "FR", Reason: "é", Action: "discreet", Priority: 300,
		CaseRef: "c", Requester: "d", ValidFrom: -1, ValidUntil: 1 << 40, Vehicle: "e", Safety: "f", ListTag: 0xdeadbeef,
	}}}
	for _, c := range []*controlpb.Control{
		full,
		{Of: &controlpb.Control_Entry{Entry: &controlpb.Entry{}}},
		{Schema: 2, Of: &controlpb.Control_Entry{Entry: &controlpb.Entry{Id: "a"}}},
		{Of: &controlpb.Control_List{List: &controlpb.List{Id: "a"}}},
	} {
		b, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, b...)) // fields given twice
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		var c controlpb.Control
		err := proto.Unmarshal(value, &c)
		var got, want entryFields
		if !got.scan(value) {
			if err != nil || c.GetEntry() == nil || c.GetSchema() != 0 || len(c.ProtoReflect().GetUnknown()) > 0 ||
				len(c.GetEntry().ProtoReflect().GetUnknown()) > 0 {
				return
			}
			// In the form we write, it must be accepted.
			if value, err = (proto.MarshalOptions{Deterministic: true}).Marshal(&c); err != nil {
				t.Fatal(err)
			}
			if got = (entryFields{}); !got.scan(value) {
				t.Fatalf("scan refuses the canonical form of %v", &c)
			}
		} else if err != nil {
			t.Fatalf("scan accepts what the generated decoder refuses: %v", err)
		}
		if c.GetEntry() == nil || c.GetSchema() > Schema {
			t.Fatalf("scan takes this for an entry: %v", &c)
		}
		want.generated(c.GetEntry())
		for n := range 15 {
			if p := got.text(protowire.Number(n)); p != nil && *p == nil {
				*p = []byte{}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("scan reads %+v, want %+v", got, want)
		}
	})
}
