package format

import (
	"strings"

	"vigie/sensors"
)

// Frigate over MQTT: frigate/events with an object before and after, of which after counts;
// frigate/tracked_object_update of type lpr; frigate/available. Scores are 0 to 1, times epochs
// in seconds; no country is told. The id is that of the object, which a car keeps while its plate is read again
// and again: it is the track. Events without a plate tell nothing: most objects are no cars.
// Speeds are km/h unless the device was set to imperial units, which no message tells.

func isFrigate(n *node) bool {
	switch n.name {
	case "#text":
		return n.text() == "online" || n.text() == "offline"
	}
	if !n.json {
		return false
	}
	return hasAny(n, "before", "after") || has(n, "type") && has(n, "id") && hasAny(n, "plate", "camera", "description") || has(n, "cameras") && has(n, "detectors") || has(n, "recognized_license_plate")
}

func decodeFrigate(d *decoder, root *node) {
	if root.name == "#text" {
		d.dead = root.text() == "offline"
		return
	}
	n := root
	if after := d.find(root, "after"); after != nil {
		n = after
	}
	sensor := sensorID(d.text(n, "camera"))
	if d.msg.Sensor == "" {
		d.msg.Sensor = sensor
	}
	in := n
	if data := d.find(n, "data"); data != nil && !has(n, "recognized_license_plate") {
		in = data
	}
	plate, score := firstText(in, "recognized_license_plate"), d.text(in, "recognized_license_plate_score")
	if strings.EqualFold(d.text(root, "type"), "lpr") && n == root {
		plate, score = d.text(n, "plate"), d.text(n, "score")
	} else if pair := all(in, "recognized_license_plate"); len(pair) == 2 && score == "" {
		score = pair[1].text()
	}
	if plate == "" {
		return
	}
	d.add(func(s *sensors.Sighting) {
		r := &s.Read
		r.Sensor, r.Plate = sensor, plate
		r.Conf = d.conf(score, sensors.ScaleUnit)
		d.when(s, true, d.text(n, "recognized_license_plate_frame_time"), d.text(n, "timestamp"), d.text(n, "frame_time"), d.text(n, "end_time"), d.text(n, "start_time"))
		r.Speed = speed(d.text(n, "current_estimated_speed"), kmh)
		if r.Speed == 0 {
			r.Speed = speed(d.text(in, "average_estimated_speed"), kmh)
		}
		if r.Speed > 0 {
			r.Direction = angle(d.text(in, "velocity_angle"))
		}
		s.Track = track(d.text(n, "id"))
	})
}
