package format

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"vigie/sensors"
	"vigie/watchlist/plate"
)

// Dahua. ITSAPI pushes JSON with a Picture that has Plate, Vehicle and SnapInfo, and a keep-alive.
// The stream of snapManager and eventManager has parts with lines such as
// Events[0].TrafficCar.PlateNumber=..., each before its pictures, and Heartbeat; some firmwares write
// Events as JSON. Confidences are percent, speeds km/h.
//
// UTC of an event is often the local time written as an epoch: then the profile must say ClockLocal.
// Object.Text is a plate only when ObjectType says so, else the brand. A Plate whose IsExist is false is none.
// GroupID is the track. SnapInfo.TimeZone is not read: it does not tell whether it is hours or a number in a list.

func isDahua(n *node) bool {
	if n.name == "#text" {
		return n.text() == "Heartbeat"
	}
	if n.name == "#event" {
		return true
	}
	return hasAny(n, "Picture/Plate", "Picture/SnapInfo", "Picture/Vehicle", "Plate/PlateNumber", "SnapInfo", "Events/TrafficCar", "Events/EventBaseInfo", "Events/Object", "TrafficCar/PlateNumber", "Events/Code") ||
		hasAny(n, "Active", "DeviceModel", "DeviceType", "Manufacturer") && hasAny(n, "DeviceID", "DeviceName") || has(n, "Code") && has(n, "Action") && has(n, "Data")
}

func decodeDahua(d *decoder, root *node) {
	if events := all(root, "Events"); len(events) > 0 {
		for _, e := range events {
			d.dahuaEvent(e)
		}
		return
	}
	if data := d.find(root, "Data"); data != nil && has(root, "Code") {
		root = data
	}
	if hasAny(root, "TrafficCar", "EventBaseInfo", "Object") {
		d.dahuaEvent(root)
		return
	}
	push := d.find(root, "Picture")
	if push == nil {
		push = root
	}
	if !hasAny(push, "Plate", "SnapInfo", "Vehicle") {
		if d.msg.Sensor == "" && root.name != "#text" {
			d.msg.Sensor = sensorID(d.text(root, "DeviceID", "DeviceName"))
		}
		d.msg.Heartbeat = true
		return
	}
	d.add(func(s *sensors.Sighting) {
		r := &s.Read
		r.Plate = d.text(push, "Plate/PlateNumber", "Plate/PlateNo", "PlateNumber")
		if _, err := r.Key(); strings.EqualFold(d.text(push, "Plate/IsExist"), "false") && !errors.Is(err, plate.ErrSentinel) {
			r.Plate = ""
		}
		r.Conf = d.conf(d.text(push, "Plate/Confidence"), sensors.ScalePercent)
		r.Country = country(d.text(push, "Plate/Country"), d.text(push, "Plate/Region"), d.text(push, "Plate/PlateCountry"), d.text(push, "Country"))
		r.Sensor = sensorID(d.text(push, "SnapInfo/DeviceID", "SnapInfo/DeviceName", "DeviceID"))
		if r.Sensor == "" {
			r.Sensor = sensorID(d.text(root, "DeviceID", "DeviceName"))
		}
		d.when(s, false, d.text(push, "SnapInfo/AccurateTime"), d.text(push, "SnapInfo/SnapTime"), d.text(push, "AccurateTime"), d.text(push, "SnapTime"), d.text(push, "Time"))
		r.Lane = lane(d.text(push, "SnapInfo/LanNo", "SnapInfo/LaneNo", "SnapInfo/Lane"))
		r.Direction = word(d.text(push, "SnapInfo/Direction"))
		r.Speed = speed(d.text(push, "Vehicle/Speed", "SnapInfo/Speed", "Vehicle/VehicleSpeed"), kmh)
		r.Make = brand(d.text(push, "Vehicle/VehicleSign", "Vehicle/Brand"))
		r.Color = word(d.text(push, "Vehicle/VehicleColor"))
		position(r, d.text(push, "SnapInfo/Latitude"), d.text(push, "SnapInfo/Longitude"))
		d.pictures(s, d.find(push, "CutoutPic/Content", "PlatePic/Content"), d.find(push, "NormalPic/Content", "VehiclePic/Content"))
	})
}

func (d *decoder) dahuaEvent(e *node) {
	if !hasAny(e, "TrafficCar", "Object", "Plate", "PlateNumber") {
		d.msg.Heartbeat = true // an event of another kind
		return
	}
	d.add(func(s *sensors.Sighting) {
		r := &s.Read
		isPlate := strings.EqualFold(d.text(e, "Object/ObjectType"), "Plate")
		r.Plate = d.text(e, "TrafficCar/PlateNumber", "Plate/PlateNumber", "PlateNumber")
		if r.Plate == "" && isPlate {
			r.Plate = d.text(e, "Object/Text")
		}
		confidence := ""
		if isPlate || !has(e, "Object/ObjectType") {
			confidence = d.text(e, "Object/Confidence")
		}
		if confidence == "" {
			confidence = d.text(e, "TrafficCar/Confidence", "Plate/Confidence")
		}
		r.Conf = d.conf(confidence, sensors.ScalePercent)
		r.Country = country(d.text(e, "TrafficCar/Country"), d.text(e, "Object/Country"), d.text(e, "CommInfo/Country"), d.text(e, "Country"))
		r.Sensor = sensorID(d.text(e, "DeviceID", "TrafficCar/DeviceID", "TrafficCar/MachineName", "MachineName", "TrafficCar/DeviceAddress", "TrafficCar/MachineAddress"))
		d.dahuaTime(s, e)
		r.Lane = lane(d.text(e, "Lane", "TrafficCar/Lane"))
		r.Direction = word(firstText(e, "TrafficCar/DrivingDirection", "JunctionDirection", "VehicleDirection"))
		r.Speed = speed(d.text(e, "Speed", "TrafficCar/Speed", "Vehicle/Speed"), kmh)
		r.Make = brand(d.text(e, "TrafficCar/VehicleSign", "Vehicle/Text"))
		if r.Make == "" && !isPlate && has(e, "Object/ObjectType") {
			r.Make = brand(d.text(e, "Object/Text"))
		}
		r.Color = word(d.text(e, "TrafficCar/VehicleColor", "Vehicle/VehicleColor", "Vehicle/MainColorName"))
		s.Track = track(d.text(e, "GroupID", "TrafficCar/GroupID"))
	})
}

// dahuaTime reads UTC in seconds and UTCMS, its milliseconds.
func (d *decoder) dahuaTime(s *sensors.Sighting, e *node) {
	utc := d.text(e, "UTC", "EventBaseInfo/UTC", "TrafficCar/UTC")
	if ms := lane(d.text(e, "UTCMS")); len(utc) == 10 && ms > 0 {
		utc += strconv.Itoa(1000 + int(ms))[1:]
	}
	d.when(s, false, utc, d.text(e, "LocalTime", "Time"), d.text(e, "TrafficCar/CapTime"))
}

// looksLikeEvent reports whether a text is lines of an event.
func looksLikeEvent(b []byte) bool {
	return bytes.HasPrefix(b, []byte("Events[")) || bytes.HasPrefix(b, []byte("ReturnEvents[")) || bytes.HasPrefix(b, []byte("Code="))
}

// parseEvent reads lines such as Events[0].TrafficCar.PlateNumber=..., or the one line of
// eventManager, Code=...;action=...;data={...}.
func parseEvent(b []byte) (*node, error) {
	root := &node{name: "#event"}
	if bytes.HasPrefix(b, []byte("Code=")) {
		event := new(node)
		if at := bytes.Index(b, []byte("data={")); at >= 0 {
			var err error
			if event, err = newJSONReader(b[at+len("data="):]).next(); err != nil {
				return nil, errors.New(jsonReason(err))
			}
		}
		event.name = "Events"
		root.kids = []node{*event}
		return root, nil
	}
	nodes := 0
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		b = rest
		key, value, ok := bytes.Cut(bytes.TrimRight(line, "\r"), []byte("="))
		if !ok || len(key) > 1024 {
			continue // cameras mix lines of other kinds in
		}
		key = bytes.TrimPrefix(key, []byte("Return"))
		at := root
		for depth := 0; len(key) > 0; depth++ {
			if depth == maxDepth {
				return nil, errors.New("has a key of too many levels: at most 64 are read")
			}
			if nodes++; nodes > maxNodes {
				return nil, errTooMany
			}
			var step []byte
			step, key, _ = bytes.Cut(key, []byte("."))
			at = at.grow(string(step), len(key) == 0)
			if at == nil {
				return nil, errors.New("has a line twice: every key must be there once")
			}
		}
		at.raw, at.leaf = bytes.TrimSpace(value), true
	}
	walk(root, func(n *node) bool {
		if n != root {
			n.name, _, _ = strings.Cut(n.name, "[")
		}
		return true
	})
	return root, nil
}

// grow returns the child with a name, made when it is not there; nil when it is and must not be.
func (n *node) grow(name string, last bool) *node {
	for i := len(n.kids) - 1; i >= 0; i-- {
		if k := &n.kids[i]; k.name == name {
			if last || k.leaf {
				return nil
			}
			return k
		}
		if !last && len(n.kids)-i > 64 { // lines of one thing stand together
			break
		}
	}
	n.kids = append(n.kids, node{name: name})
	return &n.kids[len(n.kids)-1]
}
