package format

import (
	"strings"

	"vigie/sensors"
)

// OpenALPR and Rekor agents. alpr_results tells what is on one frame, alpr_group what the agent made of
// all frames of a vehicle, up to 10 s later and perhaps more than once; a heartbeat comes every
// minute. Confidences are percent, times epochs in milliseconds, of old agents in seconds.
//
// The id of a frame is that of its read when it shows one plate. A group has none: its uuids are those of
// the frames, so it gets the first as its track, which stays as the group grows.

func isOpenALPR(n *node) bool {
	kind := firstText(n, "data_type")
	return strings.HasPrefix(kind, "alpr_") || kind == "vehicle" || kind == "heartbeat" && !has(n, "hook") ||
		hasAny(n, "best_plate_number", "best_plate") || has(n, "epoch_time") && (has(n, "results") || has(n, "uuid"))
}

func decodeOpenALPR(d *decoder, root *node) {
	sensor := sensorID(d.text(root, "camera_id"))
	if sensor == "" {
		sensor = sensorID(d.text(root, "web_server_config/camera_label", "site_id", "agent_uid"))
	}
	if streams := all(root, "video_streams"); d.text(root, "data_type") == "heartbeat" && len(streams) == 1 {
		if id := sensorID(d.text(streams[0], "camera_id")); id != "" {
			sensor = id
		}
	}
	if d.msg.Sensor == "" {
		d.msg.Sensor = sensor
	}
	area := d.text(root, "country")
	if hasAny(root, "best_plate_number", "best_plate") || strings.HasPrefix(d.text(root, "data_type"), "alpr_group") || d.text(root, "data_type") == "vehicle" {
		d.add(func(s *sensors.Sighting) {
			best := d.find(root, "best_plate")
			if best == nil {
				best = new(node)
			}
			r := &s.Read
			r.Sensor = sensor
			if r.Plate = d.text(root, "best_plate_number"); r.Plate == "" {
				r.Plate = d.text(best, "plate")
			}
			confidence := d.text(root, "best_confidence")
			if confidence == "" {
				confidence = d.text(best, "confidence")
			}
			r.Conf = d.conf(confidence, sensors.ScalePercent)
			region := d.text(root, "best_region")
			if region == "" {
				region = d.text(best, "region")
			}
			r.Country = openALPRCountry(region, area)
			d.when(s, true, d.text(root, "best_uuid_epoch_ms"), d.text(root, "epoch_start"), d.text(root, "epoch_end"))
			d.candidates(r, all(root, "candidates"), []string{"plate"}, []string{"confidence"}, sensors.ScalePercent)
			d.candidates(r, all(best, "candidates"), []string{"plate"}, []string{"confidence"}, sensors.ScalePercent)
			if s.Track = track(firstText(root, "uuids")); s.Track == "" {
				s.Track = track(d.text(root, "best_uuid"))
			}
			d.openALPRVehicle(s, root)
			d.pictures(s, d.find(best, "plate_crop_jpeg"), d.find(root, "overview_jpeg", "vehicle_crop_jpeg"))
		})
		return
	}
	results := all(root, "results")
	for _, result := range results {
		d.add(func(s *sensors.Sighting) {
			r := &s.Read
			r.Sensor = sensor
			r.Plate = d.text(result, "plate")
			r.Conf = d.conf(d.text(result, "confidence"), sensors.ScalePercent)
			r.Country = openALPRCountry(d.text(result, "region"), area)
			d.when(s, true, d.text(result, "epoch_time"), d.text(root, "epoch_time"))
			d.candidates(r, all(result, "candidates"), []string{"plate"}, []string{"confidence"}, sensors.ScalePercent)
			if len(results) == 1 {
				r.ID = readID(d.text(root, "uuid"))
			}
			d.openALPRVehicle(s, root)
			d.pictures(s, d.find(result, "plate_crop_jpeg"), d.find(root, "overview_jpeg", "vehicle_crop_jpeg"))
		})
	}
}

// openALPRVehicle reads what is told of the vehicle and of where it was seen.
func (d *decoder) openALPRVehicle(s *sensors.Sighting, root *node) {
	s.Read.Color = word(firstText(root, "vehicle/color/name"))
	s.Read.Make = brand(firstText(root, "vehicle/make/name"))
	s.Read.Direction = angle(d.text(root, "travel_direction"))
	position(&s.Read, d.text(root, "gps_latitude"), d.text(root, "gps_longitude"))
}

// openALPRCountry reads a region, which is eu-fr or us-mo, or without the area it is in. A
// state must not be taken for the country of the same two letters. Without a region nothing is
// known: the area is a setting of the agent.
func openALPRCountry(region, area string) string {
	area, _, _ = strings.Cut(strings.ToLower(area), ",")
	switch {
	case strings.ContainsAny(region, "-_"), area == "eu" && region != "":
		return country(region)
	case region != "" && area != "eu":
		return country(area)
	}
	return ""
}
