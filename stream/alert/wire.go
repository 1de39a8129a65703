package alert

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"vigie/sensors"
	"vigie/sensors/readpb"
	"vigie/stream/alert/alertpb"
	"vigie/watchlist"
)

// MarshalEvent returns e in the wire form of the hits topic, vigie.v1.AlertEvent.
// It refuses what UnmarshalEvent would refuse, and texts that are not UTF-8. Errors
// name the alert by its id.
func MarshalEvent(e *Event) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("alert: write event: %w", err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(e.toProto())
	if err != nil {
		// Not wrapped: what Protobuf says of a bad text is its business.
		return nil, fmt.Errorf("alert: write event: alert %s step %d has a text that is not UTF-8", e.AlertID, e.Step)
	}
	return b, nil
}

// UnmarshalEvent reads what MarshalEvent wrote, here or in another version of the
// program: fields it does not know are skipped. What it returns can be written as
// JSON: numbers that are not finite become 0. It keeps nothing of b, and an error
// holds none of it.
func UnmarshalEvent(b []byte) (*Event, error) {
	var m alertpb.AlertEvent
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, errors.New("alert: read event: not a vigie.v1.AlertEvent")
	}
	e, err := fromProto(&m)
	if err == nil {
		err = e.check()
	}
	if err != nil {
		return nil, fmt.Errorf("alert: read event: %w", err)
	}
	return e, nil
}

// check reports what an event must have and e has not.
func (e *Event) check() error {
	switch {
	case e.AlertID == "":
		return errors.New("it has no alert id")
	case e.Step == 0:
		return errors.New("its step is 0; steps count from 1")
	case e.Step == 1 && e.Alert == nil:
		return errors.New("it is a hit without its alert")
	case e.Step > 1 && e.Alert != nil:
		return errors.New("it carries an alert but is not the hit")
	case e.Alert != nil && e.Alert.ID != e.AlertID:
		return errors.New("its alert has another id")
	case e.Step == 1 && (e.Amended != nil || e.Revision != 0):
		return errors.New("it is the hit but follows one")
	case e.Amended != nil && (e.Revision == 0 || e.Amended.ID != e.AlertID):
		return errors.New("it amends an alert without a revision, or another one")
	}
	_, err := e.State.MarshalText()
	for _, a := range []*Alert{e.Alert, e.Amended} {
		if a == nil || err != nil {
			continue
		}
		if _, err = a.Action.MarshalText(); err == nil {
			_, err = a.Priority.MarshalText()
		}
	}
	return err
}

func (e *Event) toProto() *alertpb.AlertEvent {
	m := &alertpb.AlertEvent{
		Step: e.Step, AlertId: e.AlertID, State: e.State.String(), Queue: e.Queue, At: e.At,
		Actor: e.Actor, Outcome: e.Outcome, Note: e.Note, Revision: e.Revision,
	}
	m.Alert, m.Amended = alertToProto(e.Alert), alertToProto(e.Amended)
	return m
}

func alertToProto(a *Alert) *alertpb.Alert {
	if a == nil {
		return nil
	}
	m := &alertpb.Alert{
		Id: a.ID, Queue: a.Queue, Created: a.Created, Read: readToProto(&a.Read),
		EntryId: a.Entry.ID, ListId: a.List.ID, ListName: a.List.Name, ListOwner: a.List.Owner,
		EntryPlate: a.Entry.Plate, EntryCountry: a.Entry.Country.String(),
		Reason: a.Entry.Reason, Action: a.Action.String(), Priority: uint32(a.Priority),
		CaseRef: a.Entry.CaseRef, Vehicle: a.Entry.Vehicle, Safety: a.Entry.Safety, EntryVersion: a.Entry.Version,
		Match: a.Match.Kind, CountryRelation: a.Match.Country, Grade: a.Match.Grade, Score: a.Match.Score,
		Syntax: a.Match.Syntax, PlateRead: a.Match.Read, PlateEntry: a.Match.Entry, Version: a.Match.Version,
		Stop: a.Stop, Late: a.Late,
	}
	for _, d := range a.Match.Differs {
		m.Differs = append(m.Differs, uint32(d))
	}
	if p := a.Place; p != nil {
		m.Place = &alertpb.Place{
			Name: p.Name, Lat: p.Lat, Lon: p.Lon, Road: p.Road, Direction: p.Direction, Zones: p.Zones,
		}
	}
	return m
}

func fromProto(m *alertpb.AlertEvent) (*Event, error) {
	e := &Event{
		AlertID: m.GetAlertId(), Step: m.GetStep(), Queue: m.GetQueue(), At: m.GetAt(),
		Actor: m.GetActor(), Outcome: m.GetOutcome(), Note: m.GetNote(), Revision: m.GetRevision(),
	}
	err := e.State.UnmarshalText([]byte(m.GetState()))
	if err == nil {
		e.Alert, err = alertFromProto(m.GetAlert())
	}
	if err == nil {
		e.Amended, err = alertFromProto(m.GetAmended())
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

func alertFromProto(p *alertpb.Alert) (*Alert, error) {
	if p == nil {
		return nil, nil
	}
	a := &Alert{
		ID: p.GetId(), Queue: p.GetQueue(), Stop: p.GetStop(), Late: p.GetLate(),
		List: ListRef{ID: p.GetListId(), Name: p.GetListName(), Owner: p.GetListOwner()},
		Entry: EntryRef{
			ID: p.GetEntryId(), Version: p.GetEntryVersion(), Plate: p.GetEntryPlate(), Reason: p.GetReason(),
			CaseRef: p.GetCaseRef(), Vehicle: p.GetVehicle(), Safety: p.GetSafety(),
		},
		Match: Evidence{
			Kind: p.GetMatch(), Country: p.GetCountryRelation(), Grade: p.GetGrade(), Score: finite(p.GetScore()),
			Syntax: p.GetSyntax(), Read: p.GetPlateRead(), Entry: p.GetPlateEntry(), Version: p.GetVersion(),
		},
		Read:    readFromProto(p.GetRead()),
		Created: p.GetCreated(),
	}
	if err := a.Action.UnmarshalText([]byte(p.GetAction())); err != nil {
		return nil, err
	}
	// Out of range in 32 bits must not be in range in 8.
	a.Priority = watchlist.Priority(min(p.GetPriority(), 255))
	if err := a.Entry.Country.UnmarshalText([]byte(p.GetEntryCountry())); err != nil {
		return nil, err
	}
	for _, d := range p.GetDiffers() {
		a.Match.Differs = append(a.Match.Differs, int(d))
	}
	if q := p.GetPlace(); q != nil {
		a.Place = &Place{
			Name: q.GetName(), Lat: finite(q.GetLat()), Lon: finite(q.GetLon()),
			Road: q.GetRoad(), Direction: q.GetDirection(), Zones: q.GetZones(),
		}
	}
	return a, nil
}

func readToProto(r *sensors.Read) *readpb.Read {
	m := &readpb.Read{
		Id: r.ID, Sensor: r.Sensor, Plate: r.Plate, Country: r.Country, Ts: r.TS, Conf: r.Conf,
		Passage: r.Passage, CharConf: r.CharConf, Lane: r.Lane, Direction: r.Direction, Speed: r.Speed,
		Make: r.Make, Color: r.Color, Received: r.Received, Retransmitted: r.Retransmitted,
		Revision: r.Revision, Lat: r.Lat, Lon: r.Lon, Image: imageToProto(r.Image), Context: imageToProto(r.Context),
	}
	for _, c := range r.Candidates {
		m.Candidates = append(m.Candidates, &readpb.Candidate{Plate: c.Plate, Conf: c.Conf})
	}
	return m
}

func imageToProto(img *sensors.Image) *readpb.Image {
	if img == nil {
		return nil
	}
	return &readpb.Image{Partition: img.Partition, Offset: img.Offset}
}

func readFromProto(m *readpb.Read) sensors.Read {
	r := sensors.Read{
		ID: m.GetId(), Sensor: m.GetSensor(), Plate: m.GetPlate(), Country: m.GetCountry(), TS: m.GetTs(),
		Conf: finite(m.GetConf()), Passage: m.GetPassage(), CharConf: m.GetCharConf(), Lane: m.GetLane(),
		Direction: m.GetDirection(), Speed: finite(m.GetSpeed()), Make: m.GetMake(), Color: m.GetColor(),
		Received: m.GetReceived(), Retransmitted: m.GetRetransmitted(),
		Revision: m.GetRevision(), Lat: finite(m.GetLat()), Lon: finite(m.GetLon()),
		Image: imageFromProto(m.GetImage()), Context: imageFromProto(m.GetContext()),
	}
	for i, conf := range r.CharConf {
		r.CharConf[i] = finite(conf)
	}
	for _, c := range m.GetCandidates() {
		r.Candidates = append(r.Candidates, sensors.Candidate{Plate: c.GetPlate(), Conf: finite(c.GetConf())})
	}
	return r
}

func imageFromProto(m *readpb.Image) *sensors.Image {
	if m == nil {
		return nil
	}
	return &sensors.Image{Partition: m.GetPartition(), Offset: m.GetOffset()}
}
