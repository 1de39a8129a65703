package control

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"

	"google.golang.org/protobuf/proto"

	"vigie/watchlist"
	"vigie/watchlist/control/controlpb"
	"vigie/watchlist/plate"
)

// Schema is the schema of records that this package writes, and the highest that
// it reads. See the field of that name in control.proto.
const Schema = 1

// MaxRecordBytes is the greatest length of a value. Kafka takes 1 MiB by default,
// key, headers and framing included; the longest list that Validate accepts
// needs less.
const MaxRecordBytes = 1<<20 - 4096

// Kind is what a record speaks of, the first part of its key. It is a closed set,
// fit for a metric label.
type Kind string

const (
	KindList      Kind = "list"      // list/<list id>
	KindEntry     Kind = "entry"     // entry/<list id>/<entry id>
	KindSensor    Kind = "sensor"    // sensor/<sensor id>
	KindExemption Kind = "exemption" // exemption/<list id>/<exemption id>
	KindUnknown   Kind = "unknown"   // written by a newer version, and none of ours
)

// ListRecord returns the record that adds or replaces l. actor is the name of who
// does it, a token's name and never a secret; at is when, by the clock of the
// writer. l must pass Validate; the error joins the FieldErrors otherwise.
//
// A change of a list keeps its Salt: with another one it is another list, which
// owns none of the entries.
func ListRecord(l *watchlist.List, actor string, at time.Time) (Record, error) {
	if err := joined(l.Validate()); err != nil {
		return Record{}, fmt.Errorf("control: list record: %w", err)
	}
	return seal(listKey(l.ID), actor, at, &controlpb.Control{Of: &controlpb.Control_List{List: &controlpb.List{
		Id:              l.ID,
		Name:            l.Name,
		Owner:           l.Owner,
		LegalBasis:      l.LegalBasis,
		Purpose:         l.Purpose,
		Tolerance:       l.Tolerance.String(),
		Threshold:       l.Threshold,
		Queue:           l.Queue,
		Sensors:         l.Sensors,
		Zones:           l.Zones,
		DefaultAction:   l.DefaultAction.String(),
		DefaultPriority: uint32(l.DefaultPriority),
		Salt:            l.Salt,
	}}})
}

// EntryRecord returns the record that adds or replaces e; see ListRecord for actor
// and at. It fails unless e is as watchlist.NewEntry makes it: what is read back
// from the log would be another entry.
func EntryRecord(e *watchlist.Entry, actor string, at time.Time) (Record, error) {
	rec, err := seal(entryKey(e.List, e.ID), actor, at, &controlpb.Control{Of: &controlpb.Control_Entry{Entry: &controlpb.Entry{
		Id:         e.ID,
		List:       e.List,
		ListTag:    e.ListTag,
		Plate:      e.Plate,
		Key:        uint64(e.Key),
		Country:    e.Country.String(),
		Reason:     e.Reason,
		Action:     e.Action.String(),
		Priority:   uint32(e.Priority),
		CaseRef:    e.CaseRef,
		Requester:  e.Requester,
		Vehicle:    e.Vehicle,
		Safety:     e.Safety,
		ValidFrom:  e.ValidFrom.UnixMilli(),
		ValidUntil: e.ValidUntil.UnixMilli(),
	}}})
	if err != nil {
		return Record{}, err
	}
	var d decoder
	var back watchlist.Entry
	if fault := d.entry(&back, rec.Value, []byte(e.List), []byte(e.ID)); fault != nil {
		return Record{}, fmt.Errorf("control: entry record would be unreadable: %w", fault)
	}
	if !back.Equal(e) {
		return Record{}, errors.New("control: entry record: key, pattern, country, priority or times are not as watchlist.NewEntry makes them")
	}
	return rec, nil
}

// SensorRecord returns the record that adds or replaces s; see ListRecord.
func SensorRecord(s *Sensor, actor string, at time.Time) (Record, error) {
	if err := joined(s.Validate()); err != nil {
		return Record{}, fmt.Errorf("control: sensor record: %w", err)
	}
	return seal(sensorKey(s.ID), actor, at, &controlpb.Control{Of: &controlpb.Control_Sensor{Sensor: &controlpb.Sensor{
		Id:        s.ID,
		Name:      s.Name,
		Lat:       s.Lat,
		Lon:       s.Lon,
		Road:      s.Road,
		Direction: s.Direction,
		Zones:     s.Zones,
		Owner:     s.Owner,
		Kind:      string(s.Kind),
		Format:    s.Format,
		Clock:     s.Clock,
		TimeZone:  s.Zone,
		Scale:     s.Scale,
		Country:   s.Country,
		Lists:     s.Lists,
		Purposes:  s.Purposes,
	}}})
}

// WithdrawList returns the record that drops a list. It takes every entry of the
// list out of matching at once, with one record. The records of the entries stay
// in the log until they are withdrawn as well; see State.WithdrawHeld.
func WithdrawList(id string) Record { return Record{Key: listKey(id)} }

// WithdrawEntry returns the record that takes an entry off a list.
func WithdrawEntry(list, id string) Record { return Record{Key: entryKey(list, id)} }

// WithdrawSensor returns the record that takes a sensor out of the registry.
func WithdrawSensor(id string) Record { return Record{Key: sensorKey(id)} }

func listKey(id string) []byte        { return []byte(string(KindList) + "/" + id) }
func entryKey(list, id string) []byte { return []byte(string(KindEntry) + "/" + list + "/" + id) }
func sensorKey(id string) []byte      { return []byte(string(KindSensor) + "/" + id) }
func joined(errs []watchlist.FieldError) error {
	all := make([]error, len(errs))
	for i, e := range errs {
		all[i] = e
	}
	return errors.Join(all...)
}

// seal encodes c under key. Equal values have equal bytes.
func seal(key []byte, actor string, at time.Time, c *controlpb.Control) (Record, error) {
	if kind, _, _, ok := parseKey(key); !ok {
		return Record{}, fmt.Errorf("control: %s record: malformed id", kind)
	}
	reason := watchlist.CheckText(actor, watchlist.MaxShortText)
	if strings.TrimSpace(actor) == "" {
		reason = "is mandatory"
	}
	if reason != "" {
		return Record{}, fmt.Errorf("control: record: %w", watchlist.FieldError{Field: "actor", Reason: reason})
	}
	c.Packing, c.Actor, c.At = plate.Packing, actor, at.UnixMilli()
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		return Record{}, fmt.Errorf("control: encode record: %w", err)
	}
	if len(value) > MaxRecordBytes {
		return Record{}, fmt.Errorf("control: record has %d bytes, more than %d", len(value), MaxRecordBytes)
	}
	return Record{Key: key, Value: value}, nil
}

// Reason is why a record cannot be read. It is a closed set, fit for a metric label.
type Reason string

const (
	ReasonKey    Reason = "key"    // a key of a known kind with a malformed id
	ReasonProto  Reason = "proto"  // not vigie.v1.Control
	ReasonSchema Reason = "schema" // needs a newer version of this program
	ReasonKind   Reason = "kind"   // holds something other than its key says
	ReasonID     Reason = "id"     // holds another id than its key
	ReasonField  Reason = "field"  // a field holds a word or number out of its set
	ReasonPlate  Reason = "plate"  // the plate or pattern of an entry cannot be parsed
)

// RecordError says that a record could not be read. Nothing of the record is in
// its text but the name of the field.
type RecordError struct {
	Offset int64
	Kind   Kind
	Reason Reason
	Field  string // for ReasonField: its name in control.proto
}

func (e *RecordError) Error() string {
	s := fmt.Sprintf("control: record %d (%s) cannot be read: %s", e.Offset, e.Kind, e.Reason)
	if e.Field != "" {
		s += " " + e.Field
	}
	return s
}

// parseKey takes a key apart. list is set for KindList, KindEntry and KindExemption,
// id for all but KindList. ok is false for a malformed key of a known kind.
func parseKey(key []byte) (kind Kind, list, id []byte, ok bool) {
	head, rest, found := bytes.Cut(key, []byte{'/'})
	if !found {
		return KindUnknown, nil, nil, true
	}
	switch kind = Kind(head); kind {
	case KindList:
		return KindList, rest, nil, watchlist.ValidID(string(rest))
	case KindEntry, KindExemption:
		list, id, _ = bytes.Cut(rest, []byte{'/'})
		return kind, list, id, watchlist.ValidID(string(list)) && watchlist.ValidID(string(id))
	case KindSensor:
		return KindSensor, nil, rest, len(rest) > 0 && watchlist.CheckText(string(rest), watchlist.MaxNameText) == ""
	}
	return KindUnknown, nil, nil, true
}

// fault builds the error of a value; State fills in offset and kind.
func fault(r Reason, field string) *RecordError { return &RecordError{Reason: r, Field: field} }

// decoder reads values. Only one goroutine may use it at a time.
type decoder struct {
	packer watchlist.Packer
}

// parsed is what a decoder makes of a record without a State: its key taken apart, and
// its entry, or what is wrong with that. Records of other kinds are few, and decoded
// when they are applied.
type parsed struct {
	kind     Kind
	list, id []byte // they lie in the key
	ok       bool   // as parseKey says
	entry    *watchlist.Packed
	prefix   uint64 // of the id of entry
	bad      *RecordError
}

func (d *decoder) parse(rec Record) (p parsed) {
	p.kind, p.list, p.id, p.ok = parseKey(rec.Key)
	if p.ok && p.kind == KindEntry && len(rec.Value) > 0 {
		var e watchlist.Entry
		if p.bad = d.entry(&e, rec.Value, p.list, p.id); p.bad == nil {
			e.Version = rec.Offset
			p.entry, p.prefix = d.packer.Pack(&e), prefix(p.id)
		}
	}
	return p
}

// control decodes the envelope.
func (d *decoder) control(value []byte) (*controlpb.Control, *RecordError) {
	var c controlpb.Control
	if err := proto.Unmarshal(value, &c); err != nil {
		return nil, fault(ReasonProto, "")
	}
	if c.GetSchema() > Schema {
		return nil, fault(ReasonSchema, "")
	}
	return &c, nil
}

func (d *decoder) list(value []byte, id string) (*watchlist.List, *RecordError) {
	c, bad := d.control(value)
	if bad != nil {
		return nil, bad
	}
	p := c.GetList()
	switch {
	case p == nil:
		return nil, fault(ReasonKind, "")
	case p.GetId() != id:
		return nil, fault(ReasonID, "")
	}
	l := &watchlist.List{
		ID:              p.GetId(),
		Name:            p.GetName(),
		Owner:           p.GetOwner(),
		LegalBasis:      p.GetLegalBasis(),
		Purpose:         p.GetPurpose(),
		Queue:           p.GetQueue(),
		Sensors:         p.GetSensors(),
		Zones:           p.GetZones(),
		DefaultPriority: watchlist.Priority(p.GetDefaultPriority()),
		Salt:            p.GetSalt(),
		Threshold:       p.GetThreshold(),
	}
	if !watchlist.ValidThreshold(l.Threshold) {
		return nil, fault(ReasonField, "threshold")
	}
	var err error
	if l.Tolerance, err = watchlist.ParseTolerance(p.GetTolerance()); err != nil {
		return nil, fault(ReasonField, "tolerance")
	}
	if l.DefaultAction, err = watchlist.ParseAction(p.GetDefaultAction()); err != nil {
		return nil, fault(ReasonField, "default_action")
	}
	if p.GetDefaultPriority() > uint32(watchlist.PriorityInfo) {
		return nil, fault(ReasonField, "default_priority")
	}
	if l.Queue == "" {
		l.Queue = watchlist.DefaultQueue
	}
	if !watchlist.ValidID(l.Queue) { // it becomes part of a Redis key
		return nil, fault(ReasonField, "queue")
	}
	return l, nil
}

// entry decodes an entry into e, whose texts lie in value. It
// parses the plate rather than trust the key beside it:
// reads go through the plate.Parse of this very program, whatever version of it
// wrote the record, and parsing costs 20 ns.
func (d *decoder) entry(e *watchlist.Entry, value, list, id []byte) *RecordError {
	var f entryFields
	if !f.scan(value) {
		c, bad := d.control(value)
		if bad != nil {
			return bad
		}
		if c.GetEntry() == nil {
			return fault(ReasonKind, "")
		}
		f.generated(c.GetEntry())
	}
	if !bytes.Equal(f.list, list) || !bytes.Equal(f.id, id) {
		return fault(ReasonID, "")
	}
	*e = watchlist.Entry{
		ID:         view(f.id),
		List:       view(f.list),
		ListTag:    f.listTag,
		Plate:      view(f.plate),
		CaseRef:    view(f.caseRef),
		Reason:     view(f.reason),
		Requester:  view(f.requester),
		Vehicle:    view(f.vehicle),
		Safety:     view(f.safety),
		Priority:   watchlist.Priority(f.priority),
		ValidFrom:  time.UnixMilli(f.from).UTC(),
		ValidUntil: time.UnixMilli(f.until).UTC(),
	}
	var err error
	if e.Key, err = plate.Parse(e.Plate); err != nil {
		// What has a wildcard is no plate. The list that would tolerate it is not
		// looked at: its record may come later.
		if e.Pattern, err = watchlist.ParsePattern(e.Plate); err != nil {
			return fault(ReasonPlate, "")
		}
	}
	var ok bool
	if e.Country, ok = plate.ParseCountry(view(f.country)); !ok {
		return fault(ReasonField, "country")
	}
	if e.Action, err = watchlist.ParseAction(view(f.action)); err != nil {
		return fault(ReasonField, "action")
	}
	if f.priority > uint32(watchlist.PriorityInfo) {
		return fault(ReasonField, "priority")
	}
	if e.Priority == 0 {
		e.Priority = watchlist.PriorityMedium
	}
	return nil
}

// view is b as a text, for as long as b is not written to.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func (d *decoder) sensor(value []byte, id string) (*Sensor, *RecordError) {
	c, bad := d.control(value)
	if bad != nil {
		return nil, bad
	}
	p := c.GetSensor()
	switch {
	case p == nil:
		return nil, fault(ReasonKind, "")
	case p.GetId() != id:
		return nil, fault(ReasonID, "")
	}
	return &Sensor{
		ID:        p.GetId(),
		Name:      p.GetName(),
		Lat:       p.GetLat(),
		Lon:       p.GetLon(),
		Road:      p.GetRoad(),
		Direction: p.GetDirection(),
		Zones:     p.GetZones(),
		Owner:     p.GetOwner(),
		Kind:      SensorKind(p.GetKind()),
		Format:    p.GetFormat(),
		Clock:     p.GetClock(),
		Zone:      p.GetTimeZone(),
		Scale:     p.GetScale(),
		Country:   p.GetCountry(),
		Lists:     p.GetLists(),
		Purposes:  p.GetPurposes(),
	}, nil
}
