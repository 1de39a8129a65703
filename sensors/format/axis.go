package format

import (
	"strings"

	"vigie/sensors"
)

// AXIS License Plate Verifier and FF Group CaptureEdge: JSON, alone or as the part event of a form
// beside the part image. carState new, update and lost tell of the same carID, of which the plate may
// change: the carID is the track. Confidences are 0 to 1. plateUTF8 counts before plateASCII, which
// spells other alphabets by sound.

func isAxis(n *node) bool {
	n = axisEvent(n)
	return hasAny(n, "plateUTF8", "plateASCII", "plateUnicode", "plateText") &&
		hasAny(n, "carID", "carState", "capture_timestamp", "plateConfidence", "packetCounter")
}

// axisEvent is the event itself: over MQTT it is the data of a message.
func axisEvent(n *node) *node {
	for _, path := range []string{"message/data", "event"} {
		if in := all(n, path); len(in) == 1 && !in[0].leaf {
			return in[0]
		}
	}
	return n
}

func decodeAxis(d *decoder, root *node) {
	n := axisEvent(root)
	d.add(func(s *sensors.Sighting) {
		d.axis(s, n, root)
		for _, image := range all(n, "ImageArray") {
			if binary := d.find(image, "BinaryImage").picture(); strings.EqualFold(d.text(image, "ImageType"), "plate") {
				s.Plate = binary
			} else if binary != nil {
				s.Context = binary
			}
		}
	})
}

// axisItems reads the items of an ONVIF event of an Axis device.
func (d *decoder) axisItems(items, event *node) {
	d.add(func(s *sensors.Sighting) {
		d.axis(s, items, event)
		r := &s.Read
		if r.Plate == "" {
			r.Plate = d.text(items, "text", "lpText")
		}
		if r.Country == "" {
			r.Country = country(d.text(items, "country"))
		}
		if r.TS == 0 {
			d.when(s, true, d.text(event, "UtcTime"))
		}
		if r.Sensor == "" {
			r.Sensor = SensorOfTopic(d.in.Topic)
		}
	})
}

// axis reads an event n within the document root.
func (d *decoder) axis(s *sensors.Sighting, n, root *node) {
	r := &s.Read
	r.Plate = d.text(n, "plateUTF8", "plateUnicode", "plateText", "plateASCII")
	r.Conf = d.conf(d.text(n, "plateConfidence"), sensors.ScaleUnit)
	r.Country = country(d.text(n, "plateCountry"), d.text(n, "plateCountryCode"))
	d.when(s, false, d.text(n, "capture_timestamp"), d.text(n, "capture_ts"), d.text(n, "datetime"), d.text(root, "timestamp"))
	// Every device is called defaultID until somebody names it.
	id := d.text(n, "sensorProviderID")
	if id == "" || strings.HasPrefix(strings.ToLower(id), "defaultid") {
		if serial := d.text(n, "camera_info/SerialNumber", "camera_info/MACAddress"); serial != "" {
			id = serial
		}
	}
	r.Sensor = sensorID(id)
	r.Lane = lane(d.text(n, "roiID"))
	r.Direction = word(d.text(n, "carMoveDirection"))
	r.Make = brand(d.text(n, "vehicle_info/brand", "vehicle_info/make"))
	r.Color = word(d.text(n, "vehicle_info/color"))
	position(r, d.text(n, "geotag/lat"), d.text(n, "geotag/lon"))
	s.Track = track(d.text(n, "carID"))
	if strings.EqualFold(d.text(n, "imageType"), "plate") {
		d.pictures(s, d.find(n, "plateImage", "image"), d.find(n, "frameImage", "vehicleImage"))
	} else {
		d.pictures(s, d.find(n, "plateImage"), d.find(n, "frameImage", "vehicleImage", "image"))
	}
}
