package format

import "vigie/sensors"

// Plate Recognizer: webhooks of Stream, alone or as the field json of a form beside the picture, and answers of
// Snapshot. With vehicle detection a plate is an object with its readings in props, and may be
// missing. Scores are 0 to 1.

func isPlateRecognizer(n *node) bool {
	return has(n, "hook") && hasAny(n, "data", "hook/event", "hook/target") || has(n, "data/results") ||
		has(n, "results") && !has(n, "epoch_time") && hasAny(n, "camera_id", "timestamp", "filename", "processing_time") ||
		has(n, "data/camera_id") && !has(n, "webhook_type")
}

func decodePlateRecognizer(d *decoder, root *node) {
	data := d.find(root, "data")
	if data == nil {
		data = root
	}
	sensor := sensorID(d.text(data, "camera_id"))
	if sensor == "" {
		sensor = sensorID(d.text(root, "hook/id"))
	}
	if d.msg.Sensor == "" {
		d.msg.Sensor = sensor
	}
	for _, result := range all(data, "results") {
		d.add(func(s *sensors.Sighting) {
			r := &s.Read
			r.Sensor = sensor
			d.when(s, false, d.text(result, "timestamp"), d.text(data, "timestamp"), d.text(data, "timestamp_local"), d.text(data, "timestamp_camera"))
			r.Direction = angle(d.text(result, "direction"))
			score, region := d.text(result, "score"), d.text(result, "region/code", "region")
			props := d.find(result, "plate/props")
			if props == nil {
				r.Plate = d.text(result, "plate")
				d.candidates(r, all(result, "candidates"), []string{"plate", "value"}, []string{"score"}, sensors.ScaleUnit)
			} else {
				readings := all(props, "plate")
				if len(readings) > 0 {
					r.Plate, score = d.text(readings[0], "value"), d.text(readings[0], "score")
				}
				d.candidates(r, readings, []string{"value"}, []string{"score"}, sensors.ScaleUnit)
				region = firstText(props, "region/value")
			}
			r.Conf = d.conf(score, sensors.ScaleUnit)
			r.Country = country(region)
			r.Make = brand(firstText(result, "model_make/make", "vehicle/props/make_model/make"))
			r.Color = word(firstText(result, "color/color", "color", "vehicle/props/color/value"))
		})
	}
}
