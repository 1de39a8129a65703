package control_test

import (
	"fmt"
	"testing"
	"time"

	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// now is the moment of all tests.
var now = time.Date(2026, 3, 14, 8, 30, 0, 0, time.UTC)

// list returns a list that passes Validate; salt tells apart lists of one id.
func list(id string, salt byte) *watchlist.List {
	l := &watchlist.List{
		ID: id, Name: "List " + id, Owner: "DNPJ", LegalBasis: "CSI L233-1", Queue: "patrol-" + id,
		DefaultAction: watchlist.ActionIntercept,
		Salt:          make([]byte, watchlist.SaltSize),
	}
	l.Salt[0] = salt
	return l
}

// entry returns an entry of l, its plate made from n.
func entry(l *watchlist.List, n int) *watchlist.Entry {
	e, errs := watchlist.NewEntry(l, watchlist.EntryInput{
		Plate:   plateOf(n),
		Country: "FR", Reason: "vol", CaseRef: fmt.Sprintf("2026/%06d", n), ValidUntil: now.AddDate(1, 0, 0),
	}, now)
	if errs != nil {
		panic(errs[0])
	}
	return e
}

// exemption returns an exemption from the entry of l with an id, of the read that is
// the nth plate.
func exemption(l *watchlist.List, entry string, n int) *watchlist.Exemption {
	read, err := plate.Parse(plateOf(n))
	if err != nil {
		panic(err)
	}
	return &watchlist.Exemption{
		ID: watchlist.ExemptionID(l, entry, read), List: l.ID, Entry: entry, ListTag: l.Tag(), Read: read,
		Reason: "another vehicle", Requester: "BRI", Until: now.AddDate(0, 6, 0),
	}
}

// plateOf returns the nth plate of the French series, AA-001-AA and so on.
func plateOf(n int) string {
	const letters = "ABCDEFGHJKLMNPQRSTVWXYZ"
	pair := func(i int) string { return string([]byte{letters[i/23%23], letters[i%23]}) }
	return fmt.Sprintf("%s-%03d-%s", pair(n/999/529), 1+n%999, pair(n/999))
}

// at returns rec with an offset.
func at(offset int64, rec control.Record) control.Record {
	rec.Offset = offset
	return rec
}

// must returns a record that can be made.
func must(rec control.Record, err error) control.Record {
	if err != nil {
		panic(err)
	}
	return rec
}

func listRec(l *watchlist.List) control.Record   { return must(control.ListRecord(l, "op", now)) }
func entryRec(e *watchlist.Entry) control.Record { return must(control.EntryRecord(e, "op", now)) }
func exemptionRec(x *watchlist.Exemption) control.Record {
	return must(control.ExemptionRecord(x, "op", now))
}
func sensorRec(s *control.Sensor) control.Record { return must(control.SensorRecord(s, "op", now)) }

// apply applies rec at the next offset and returns its changes.
func apply(t testing.TB, s *control.State, rec control.Record) []control.Change {
	t.Helper()
	changes, err := s.Apply(at(s.Version()+1, rec), nil)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}
