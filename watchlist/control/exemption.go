package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"vigie/watchlist"
	"vigie/watchlist/control/controlpb"
	"vigie/watchlist/plate"
)

// exemptions are exemptions in the order of their ids, and those of each entry. The
// zero value is empty. There are few beside the entries: each is one answer that a
// person gave.
type exemptions struct {
	byID    set[*watchlist.Exemption]
	byEntry map[string][]*watchlist.Exemption // in the order of their ids; none is empty
}

// replace puts x in the place of the exemption with an id, or takes that out when x is
// nil, and returns what was there, or nil.
func (s *exemptions) replace(id string, x *watchlist.Exemption) (old *watchlist.Exemption) {
	if x == nil {
		old = s.byID.remove([]byte(id))
	} else {
		old = s.byID.put(x)
	}
	if old != nil {
		of := s.byEntry[old.Entry]
		if i, ok := slices.BinarySearchFunc(of, id, byID); ok {
			if of = slices.Delete(of, i, i+1); len(of) > 0 {
				s.byEntry[old.Entry] = of
			} else {
				delete(s.byEntry, old.Entry)
			}
		}
	}
	if x != nil {
		if s.byEntry == nil {
			s.byEntry = make(map[string][]*watchlist.Exemption)
		}
		of := s.byEntry[x.Entry]
		i, _ := slices.BinarySearchFunc(of, id, byID)
		s.byEntry[x.Entry] = slices.Insert(of, i, x)
	}
	return old
}

func byID(x *watchlist.Exemption, id string) int { return strings.Compare(x.ID, id) }

// ExemptionRecord returns the record that adds or replaces x; see ListRecord for actor
// and at. x must pass Validate at that time, and be as watchlist.NewExemption makes it;
// the error joins the FieldErrors otherwise.
func ExemptionRecord(x *watchlist.Exemption, actor string, at time.Time) (Record, error) {
	if err := joined(x.Validate(at)); err != nil {
		return Record{}, fmt.Errorf("control: exemption record: %w", err)
	}
	rec, err := seal(exemptionKey(x.List, x.ID), actor, at, &controlpb.Control{Of: &controlpb.Control_Exemption{Exemption: &controlpb.Exemption{
		Id:        x.ID,
		List:      x.List,
		Entry:     x.Entry,
		ListTag:   x.ListTag,
		Read:      x.Read.String(),
		Reason:    x.Reason,
		Requester: x.Requester,
		Until:     x.Until.UnixMilli(),
	}}})
	if err != nil {
		return Record{}, err
	}
	var d decoder
	back, fault := d.exemption(rec.Value, x.List, []byte(x.ID))
	if fault != nil {
		return Record{}, fmt.Errorf("control: exemption record would be unreadable: %w", fault)
	}
	if !back.Equal(x) {
		return Record{}, errors.New("control: exemption record: the end is not as watchlist.NewExemption makes it")
	}
	return rec, nil
}

// WithdrawExemption returns the record that ends an exemption.
func WithdrawExemption(list, id string) Record { return Record{Key: exemptionKey(list, id)} }

func exemptionKey(list, id string) []byte {
	return []byte(string(KindExemption) + "/" + list + "/" + id)
}

// exemption decodes an exemption. The read is parsed again, as the plate of an entry is.
// An end that is missing, or further from the writing than watchlist.MaxExemption, makes
// the record unreadable: what silences a plate for longer than anyone may ask is a
// fault, and to alert is the safer mistake.
func (d *decoder) exemption(value []byte, list string, id []byte) (*watchlist.Exemption, *RecordError) {
	c, bad := d.control(value)
	if bad != nil {
		return nil, bad
	}
	p := c.GetExemption()
	switch {
	case p == nil:
		return nil, fault(ReasonKind, "")
	case p.GetList() != list || p.GetId() != string(id):
		return nil, fault(ReasonID, "")
	case !watchlist.ValidID(p.GetEntry()):
		return nil, fault(ReasonField, "entry")
	}
	at, until := c.GetAt(), p.GetUntil()
	if at < 0 || // the difference might wrap round
		until <= at || until-at > watchlist.MaxExemption.Milliseconds() {
		return nil, fault(ReasonField, "until")
	}
	read, err := plate.Parse(p.GetRead())
	if err != nil {
		return nil, fault(ReasonPlate, "")
	}
	return &watchlist.Exemption{
		ID:        p.GetId(),
		List:      list,
		Entry:     p.GetEntry(),
		ListTag:   p.GetListTag(),
		Read:      read,
		Reason:    p.GetReason(),
		Requester: p.GetRequester(),
		Until:     time.UnixMilli(until).UTC(),
	}, nil
}
