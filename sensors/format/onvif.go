package format

import (
	"strings"

	"vigie/sensors"
)

// ONVIF Profile M. A metadata stream (XML, or JSON as onvif-mj sends it) has frames, and in
// them objects of which some have a LicensePlateInfo; the object of the vehicle is the parent of that of the
// plate, or the same. An event of the rule LicensePlateRecognition (XML notification or
// onvif-ej) has the same in its Data.
//
// The track is the vehicle, else the plate object. No message names its device: the prefix of the MQTT
// topic does, by SensorOfTopic. Speeds are metres per second.

func isONVIF(n *node) bool {
	switch n.name {
	case "MetadataStream", "NotificationMessage", "Notify", "Frame", "SampleFrame", "VideoAnalytics", "PullMessagesResponse":
		return true
	case "Envelope", "Message":
		found := false
		walk(n, func(n *node) bool {
			found = found || n.name == "NotificationMessage" || n.name == "Data"
			return !found
		})
		return found
	}
	return n.json && (has(n, "Data") && hasAny(n, "UtcTime", "Source/VideoSource", "Source/Rule", "Source/VideoSourceToken") ||
		hasAny(n, "VideoAnalytics", "Frame", "MetadataStream", "NotificationMessage") ||
		has(n, "UtcTime") && has(n, "Object") || has(n, "message/data/LicensePlateInfo"))
}

func decodeONVIF(d *decoder, root *node) {
	walk(root, func(n *node) bool {
		switch {
		case n.name == "Frame", n.name == "SampleFrame", n.json && has(n, "Object") && has(n, "UtcTime"):
			d.onvifFrame(n)
			return false
		case strings.EqualFold(n.name, "Message") && has(n, "Data") || n == root && has(n, "Data"):
			d.onvifEvent(n, d.find(root, "timestamp").text())
			return false
		}
		return true
	})
	if d.msg.Sensor == "" {
		d.msg.Sensor = SensorOfTopic(d.in.Topic)
	}
}

func (d *decoder) onvifFrame(frame *node) {
	objects := all(frame, "Object")
	parents := make(map[string]*node, len(objects))
	for _, o := range objects {
		parents[d.text(o, "ObjectId")] = o
	}
	for _, o := range objects {
		info := d.find(o, "Appearance/LicensePlateInfo", "LicensePlateInfo")
		if info == nil {
			continue
		}
		d.add(func(s *sensors.Sighting) {
			parent := d.text(o, "Parent")
			vehicle := parents[parent]
			if vehicle == nil || parent == "" {
				vehicle = o
			}
			if s.Track = track(parent); s.Track == "" {
				s.Track = track(d.text(o, "ObjectId"))
			}
			d.when(s, true, d.text(frame, "UtcTime"))
			d.onvifPlate(s, info, "")
			look := d.find(vehicle, "Appearance")
			if look == nil {
				look = vehicle
			}
			d.onvifVehicle(s, look, vehicle, o)
			picture := d.find(o, "Appearance/Image", "Image").picture()
			s.Context = d.find(look, "VehicleInfo/Image").picture()
			switch {
			case vehicle != o:
				s.Plate, s.Context = picture, d.find(look, "Image").picture()
			case s.Context == nil && has(look, "VehicleInfo"):
				s.Context = picture
			default:
				s.Plate = picture
			}
		})
	}
}

// onvifPlate reads a LicensePlateInfo.
func (d *decoder) onvifPlate(s *sensors.Sighting, info *node, likelihood string) {
	number := d.find(info, "PlateNumber")
	s.Read.Plate = number.text()
	if number != nil {
		if l := d.text(number, "Likelihood"); l != "" {
			likelihood = l
		}
	}
	s.Read.Conf = d.conf(likelihood, sensors.ScaleUnit)
	s.Read.Country = country(d.text(info, "CountryCode"))
	s.Read.Sensor = SensorOfTopic(d.in.Topic)
}

// onvifVehicle reads what is told of the vehicle, from the first of the nodes that tells it.
func (d *decoder) onvifVehicle(s *sensors.Sighting, nodes ...*node) {
	for _, n := range nodes {
		if n == nil {
			continue
		}
		if s.Read.Make == "" {
			s.Read.Make = brand(d.text(n, "VehicleInfo/Brand"))
		}
		if s.Read.Speed == 0 {
			s.Read.Speed = speed(d.text(n, "Behaviour/Speed", "Speed"), mps)
		}
		if s.Read.Direction == "" {
			s.Read.Direction = angle(d.text(n, "Behaviour/Direction/yaw", "Direction/yaw", "Direction"))
		}
	}
}

// onvifEvent reads an event. Its items are members of Data, or SimpleItem and ElementItem
// with a Name.
func (d *decoder) onvifEvent(event *node, outer string) {
	data := d.find(event, "Data")
	if data == nil {
		return
	}
	items := node{name: "Data", json: data.json}
	for i := range data.kids {
		k := &data.kids[i]
		name := firstText(k, "Name")
		switch {
		case k.name == "SimpleItem" && name != "":
			if v := d.find(k, "Value"); v != nil {
				v := *v
				v.name = name
				items.kids = append(items.kids, v)
			}
		case k.name == "ElementItem":
			for _, v := range k.kids {
				if v.name != "Name" {
					if name != "" {
						v.name = name
					}
					items.kids = append(items.kids, v)
				}
			}
		default:
			items.kids = append(items.kids, *k)
		}
	}
	for _, name := range []string{"LicensePlateInfo", "VehicleInfo"} { // an item that wraps the element of its own name
		for _, k := range all(&items, name) {
			if inner := d.find(k, name); inner != nil {
				*k = *inner
			}
		}
	}
	info := d.find(&items, "LicensePlateInfo")
	if info == nil {
		if has(&items, "carID") { // an Axis device
			d.axisItems(&items, event)
			return
		}
		// Some devices have the text as an item of its own.
		if !hasAny(&items, "PlateNumber", "LicensePlate", "Plate") {
			return
		}
		info = &node{kids: items.kids}
	}
	d.add(func(s *sensors.Sighting) {
		d.when(s, true, d.text(event, "UtcTime"), outer)
		d.onvifPlate(s, info, d.text(&items, "Likelihood"))
		if s.Read.Plate == "" {
			s.Read.Plate = d.text(&items, "LicensePlate", "Plate")
		}
		d.onvifVehicle(s, &items)
		for _, name := range []string{"ParentObjectId", "ObjectId"} {
			if s.Track != "" {
				break
			}
			if id := d.find(&items, name); id != nil {
				if s.Track = track(id.text()); s.Track == "" {
					s.Track = track(d.text(id, "ObjectId"))
				}
			}
		}
		s.Plate = d.find(&items, "Image").picture()
	})
}
