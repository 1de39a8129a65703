package wire

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"vigie/sensors"
	"vigie/sensors/sim"
)

// AXIS License Plate Verifier: new, perhaps updates, and lost, under one carID. Every third vehicle
// is misread at first, from afar, and the plate changes while the carID stays.
func axis(d *device, p *passage) []saying {
	var out []saying
	say := func(at time.Time, state string, s *sim.Step, text string, conf float32) {
		r := &sensors.Read{
			Sensor: d.ID, Plate: text, Country: alpha3(&s.Read), TS: d.ms(at), Conf: conf, Lane: s.Read.Lane, Direction: "in",
			Make: s.Read.Make, Color: s.Read.Color, Lat: float32(d.Lat), Lon: float32(d.Lon),
		}
		if d.away {
			r.Direction = "out"
		}
		d.counter++
		counter, ms := d.counter, strconv.FormatInt(r.TS, 10)
		out = append(out, saying{at: d.after(at, 30, 90), read: r, contentType: typeJSON, body: func(bool) []byte {
			m := object{
				"packetCounter": strconv.FormatUint(uint64(counter), 10), "capture_timestamp": ms, "capture_ts": ms + "000000", "frame_timestamp": "0",
				"datetime":  time.UnixMilli(r.TS).UTC().Format("20060102 150405") + ms[len(ms)-3:],
				"plateText": escaped(r.Plate), "plateUnicode": escaped(r.Plate), "plateUTF8": r.Plate, "plateASCII": r.Plate,
				"plateCountry": r.Country, "plateConfidence": fmt.Sprintf("%.6f", r.Conf), "carState": state, "carID": strconv.FormatUint(uint64(p.track), 10),
				"roiID": strconv.FormatUint(uint64(r.Lane), 10), "carMoveDirection": r.Direction, "geotag": object{"lat": d.Lat, "lon": d.Lon},
				"imageType": "plate", "plateImageType": "jpg", "plateImageSize": "0", "plateCoordinates": []int{1185, 532, 140, 28},
				"camera_info":      object{"SerialNumber": fmt.Sprintf("B8A44F%06X", d.n), "ProdShortName": "AXIS P1465-LE-3"},
				"sensorProviderID": d.ID,
			}
			if r.Make != "" {
				m["vehicle_info"] = object{"brand": r.Make, "color": r.Color}
			}
			return marshal(m)
		}})
	}
	first := &p.steps[0]
	state := "new"
	if !first.Truth.Sentinel && d.dice.Chance(1.0/3) {
		other, conf := d.dice.Misread(plain(first))
		say(first.At.Add(-time.Duration(d.dice.Between(150, 400))*time.Millisecond), state, first, other, conf)
		state = "update"
	}
	for i := range p.steps {
		s := &p.steps[i]
		say(s.At, state, s, plain(s), s.Read.Conf)
		state = "update"
	}
	last := &p.steps[len(p.steps)-1]
	say(d.after(last.At, 300, 900), "lost", last, plain(last), last.Read.Conf)
	return out
}

// escaped is a text in JSON of which every character is written as its number.
func escaped(s string) json.RawMessage {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s { // plates are of the first plane
		fmt.Fprintf(&b, `\u%04x`, c)
	}
	b.WriteByte('"')
	return json.RawMessage(b.String())
}

// OpenALPR: results of every frame, and seconds later the group that the agent made of them. It
// says nothing of vehicles without a plate.
func openALPR(d *device, p *passage) []saying {
	if p.best().Truth.Sentinel {
		return nil
	}
	agent := fmt.Sprintf("SIM%037d", d.n)
	frame := func(s *sim.Step) string { return agent + "-" + strconv.FormatInt(d.ms(s.At), 10) }
	var out []saying
	var uuids []string
	for i := range p.steps {
		s := &p.steps[i]
		if s.Truth.Sentinel {
			continue
		}
		r := d.openALPRRead(s)
		r.ID = frame(s)
		uuids = append(uuids, r.ID)
		out = append(out, saying{at: d.after(s.At, 40, 120), read: r, contentType: typeJSON, body: func(bool) []byte {
			result := openALPRPlate(r)
			result["plate_index"], result["requested_topn"] = 0, 10
			return marshal(object{
				"data_type": "alpr_results", "version": 2, "uuid": r.ID, "camera_id": d.ID, "agent_uid": agent, "agent_type": "alprd",
				"site_id": d.Road, "epoch_time": r.TS, "img_width": 1920, "img_height": 1080, "country": "eu", "results": []object{result},
			})
		}})
	}
	best := p.best()
	r := d.openALPRRead(best)
	r.TS = d.ms(p.steps[0].At)
	r.Direction = strconv.Itoa(d.yaw())
	r.Make, r.Color = strings.ToLower(best.Read.Make), best.Read.Color
	r.Lat, r.Lon = float32(d.Lat), float32(d.Lon)
	return append(out, saying{at: d.after(p.steps[len(p.steps)-1].At, 2000, 6000), read: r, contentType: typeJSON, body: func(bool) []byte {
		plate := openALPRPlate(r)
		m := object{
			"data_type": "alpr_group", "version": 2, "epoch_start": r.TS, "epoch_end": r.TS + 800, "camera_id": d.ID, "agent_uid": agent,
			"agent_type": "alprd", "country": "eu", "uuids": uuids, "candidates": plate["candidates"], "best_plate": plate, "best_plate_number": r.Plate,
			"best_confidence": plate["confidence"], "best_uuid": frame(best), "best_region": plate["region"], "best_image_width": 1920, "is_parked": false,
			"travel_direction": d.yaw(), "gps_latitude": d.Lat, "gps_longitude": d.Lon,
		}
		if r.Make != "" {
			m["vehicle"] = object{
				"color": []object{{"name": r.Color, "confidence": 71.2}}, "make": []object{{"name": r.Make, "confidence": 64.0}},
				"body_type": []object{{"name": "sedan-compact", "confidence": 55.9}},
			}
		}
		return marshal(m)
	}})
}

func (d *device) openALPRRead(s *sim.Step) *sensors.Read {
	r := &sensors.Read{Sensor: d.ID, Plate: plain(s), TS: d.ms(s.At), Conf: s.Read.Conf, Candidates: others(s)}
	if c := alpha2(&s.Read); c != "" {
		r.Country = "eu-" + strings.ToLower(c)
	}
	return r
}

func openALPRPlate(r *sensors.Read) object {
	candidates := []object{{"plate": r.Plate, "confidence": hundredths(r.Conf), "matches_template": 1}}
	for _, c := range r.Candidates {
		candidates = append(candidates, object{"plate": c.Plate, "confidence": hundredths(c.Conf), "matches_template": 0})
	}
	return object{"plate": r.Plate, "confidence": hundredths(r.Conf), "region": r.Country, "region_confidence": 88, "candidates": candidates}
}

func openALPRBeat(d *device, at time.Time) saying {
	return saying{at: at, contentType: typeJSON, body: func(bool) []byte {
		return marshal(object{
			"data_type": "heartbeat", "version": 1, "agent_uid": fmt.Sprintf("SIM%037d", d.n), "agent_type": "alprd", "timestamp": d.ms(at),
			"video_streams": []object{{"camera_id": d.ID, "is_streaming": true, "fps": 25}},
		})
	}}
}

// Plate Recognizer: one webhook for a vehicle, of its best reading, as JSON or as a form with the
// picture. Without a plate it has no results.
func plateRecognizer(d *device, p *passage) []saying {
	s := p.best()
	at := d.after(s.At, 150, 500)
	stamp := s.At.Add(d.clock).UTC().Truncate(time.Millisecond)
	says := saying{at: at, contentType: typeJSON}
	if !s.Truth.Sentinel {
		r := &sensors.Read{
			Sensor: d.ID, Plate: strings.ToLower(plain(s)), Country: strings.ToLower(alpha2(&s.Read)), TS: stamp.UnixMilli(), Conf: s.Read.Conf,
			Direction: strconv.Itoa(d.yaw()), Make: s.Read.Make, Color: s.Read.Color,
		}
		for _, c := range others(s) {
			r.Candidates = append(r.Candidates, sensors.Candidate{Plate: strings.ToLower(c.Plate), Conf: c.Conf})
		}
		says.read = r
	}
	body := func(bool) []byte {
		results := []object{}
		if r := says.read; r != nil {
			candidates := []object{{"plate": r.Plate, "score": r.Conf}}
			for _, c := range r.Candidates {
				candidates = append(candidates, object{"plate": c.Plate, "score": c.Conf})
			}
			result := object{
				"box": object{"xmin": 1266, "ymin": 687, "xmax": 1485, "ymax": 741}, "plate": r.Plate, "score": r.Conf, "dscore": 0.842,
				"candidates": candidates, "vehicle": object{"type": "Sedan", "score": 0.867}, "direction": d.yaw(),
			}
			if r.Country != "" {
				result["region"] = object{"code": r.Country, "score": 0.913}
			}
			if r.Make != "" {
				result["model_make"] = []object{{"make": r.Make, "model": "unknown", "score": 0.421}}
				result["color"] = []object{{"color": r.Color, "score": 0.712}}
			}
			results = append(results, result)
		}
		file := d.ID + "_screenshots/" + stamp.Format("06-01-02/15-04-05.000000") + ".jpg"
		return marshal(object{
			"hook": object{"target": "https://gateway.example.invalid/", "id": d.ID, "event": "recognition", "filename": file},
			"data": object{
				"camera_id": d.ID, "filename": file, "timestamp": stamp.Format("2006-01-02T15:04:05.000000Z07:00"),
				"timestamp_local": stamp.In(wall).Format("2006-01-02 15:04:05.000000-07:00"), "results": results,
			},
		})
	}
	says.body = body
	if d.pictures {
		says.contentType = typeForm
		says.body = func(bool) []byte {
			return form(part{"Content-Disposition: form-data; name=\"json\"", string(body(false))},
				part{"Content-Disposition: form-data; name=\"upload\"; filename=\"frame.jpg\"\r\nContent-Type: image/jpeg", pictures().scene})
		}
	}
	return []saying{says}
}

// wall is the clock on the wall for devices that write local time with its offset, all year.
var wall = time.FixedZone("", 3600)

// Dahua ITSAPI: one push for a vehicle, of its best reading; its clock shows UTC.
func dahua(d *device, p *passage) []saying {
	s := p.best()
	r := &sensors.Read{
		Sensor: d.ID, Plate: plain(s), Country: alpha3(&s.Read), TS: d.ms(s.At), Conf: s.Read.Conf, Lane: s.Read.Lane, Direction: "Approach",
		Speed: float32(int(s.Read.Speed)), Make: s.Read.Make, Color: s.Read.Color,
	}
	if s.Truth.Sentinel {
		r.Plate = "No Plate"
	}
	if d.away {
		r.Direction = "Leave"
	}
	return []saying{{at: d.after(s.At, 80, 250), read: r, contentType: typeJSON, body: func(bool) []byte {
		t := time.UnixMilli(r.TS).UTC()
		m := object{
			"Plate": object{
				"IsExist": !s.Truth.Sentinel, "PlateNumber": r.Plate, "PlateColor": "White", "PlateType": "Unknown", "Confidence": percent(r.Conf),
				"Region": r.Country, "BoundingBox": []int{410, 520, 462, 541},
			},
			"Vehicle": object{"VehicleColor": r.Color, "VehicleType": "SaloonCar", "VehicleSign": r.Make, "Speed": r.Speed},
			"SnapInfo": object{
				"DeviceID": d.ID, "SnapTime": t.Format("2006-01-02 15:04:05"), "AccurateTime": t.Format("2006-01-02 15:04:05.000"),
				"SnapAddress": d.Name, "LanNo": r.Lane, "Direction": r.Direction,
			},
		}
		if d.pictures {
			name := t.Format("20060102150405")
			m["NormalPic"] = object{"PicName": name + ".jpg", "Content": base64Of(pictures().scene)}
			m["CutoutPic"] = object{"PicName": name + "_plate.jpg", "Content": base64Of(pictures().plate)}
		}
		return marshal(object{"Picture": m})
	}}}
}

func dahuaBeat(d *device, at time.Time) saying {
	return saying{at: at, contentType: typeJSON, body: func(bool) []byte { return marshal(object{"Active": "keepAlive", "DeviceID": d.ID}) }}
}

// Genetec AutoVu: one read for a vehicle, of its best reading; date and time are two fields, and
// confidences texts.
func genetec(d *device, p *passage) []saying {
	s := p.best()
	stamp := s.At.Add(d.clock).UTC().Truncate(time.Second)
	r := &sensors.Read{
		Sensor: d.ID, Plate: plain(s), Country: alpha2(&s.Read), TS: stamp.UnixMilli(), Conf: s.Read.Conf, Direction: "Closer",
		Speed: float32(int(s.Read.Speed)), Make: s.Read.Make, Color: s.Read.Color,
	}
	if d.away {
		r.Direction = "Moving Away"
	}
	return []saying{{at: d.after(s.At, 200, 800), read: r, contentType: typeJSON, body: func(bool) []byte {
		conf := strconv.Itoa(percent(r.Conf))
		m := object{
			"CameraName": d.ID, "Plate": r.Plate, "State": r.Country, "ConfidenceScore": conf,
			"DateUtc": stamp.Format("02/01/2006"), "TimeUtc": stamp.Format("15:04:05"),
			"Attributes": object{
				"Confidence Score": conf, "Relative Motion": r.Direction, "Vehicle Make": r.Make, "Vehicle Color": r.Color, "Vehicle Type": "Car",
				"Speed": strconv.Itoa(int(r.Speed)) + " km/h", "Context": "EU", "Characters Height": "36",
			},
		}
		if d.pictures {
			m["ContextImage"], m["PlateImage"] = base64Of(pictures().scene), base64Of(pictures().plate)
		}
		return marshal(m)
	}}}
}

// Frigate: an object that is new without a plate, its plate as soon as it was read, the object
// again with the plate, and its end.
func frigate(d *device, p *passage) []saying {
	first := &p.steps[0]
	id := strconv.FormatFloat(float64(d.ms(first.At))/1000, 'f', 6, 64) + "-" + fmt.Sprintf("%06x", d.dice.Bits()>>40)
	start := float64(d.ms(first.At)) / 1000
	best := p.best()
	event := func(at time.Time, kind string, end any, s *sim.Step) saying {
		out := saying{at: d.after(at, 20, 60), contentType: typeJSON, topic: "frigate/events"}
		frame := d.ms(at)
		if s != nil {
			out.read = &sensors.Read{
				Sensor: d.ID, Plate: plain(s), TS: frame, Conf: s.Read.Conf, Speed: s.Read.Speed, Direction: strconv.Itoa(d.yaw()),
			}
		}
		out.body = func(bool) []byte {
			after := object{
				"id": id, "camera": d.ID, "frame_time": float64(frame) / 1000, "start_time": start, "end_time": end, "label": "car",
				"sub_label": nil, "top_score": 0.9, "current_estimated_speed": first.Read.Speed, "velocity_angle": d.yaw(),
				"recognized_license_plate": nil,
			}
			if r := out.read; r != nil {
				after["recognized_license_plate"], after["recognized_license_plate_score"], after["current_estimated_speed"] = r.Plate, r.Conf, r.Speed
			}
			return marshal(object{"type": kind, "before": after, "after": after})
		}
		return out
	}
	out := []saying{event(first.At, "new", nil, nil)}
	for i := range p.steps {
		s := &p.steps[i]
		if s.Truth.Sentinel {
			continue
		}
		r := &sensors.Read{Sensor: d.ID, Plate: plain(s), TS: d.ms(s.At), Conf: s.Read.Conf}
		out = append(out, saying{at: d.after(s.At, 250, 450), read: r, contentType: typeJSON, topic: "frigate/tracked_object_update", body: func(bool) []byte {
			return marshal(object{
				"type": "lpr", "id": id, "name": nil, "plate": r.Plate, "score": r.Conf, "camera": d.ID, "timestamp": float64(r.TS) / 1000,
				"plate_box": []int{1266, 687, 1485, 741},
			})
		}})
	}
	if best.Truth.Sentinel {
		best = nil
	}
	last := p.steps[len(p.steps)-1].At
	ends := d.after(last, 1500, 2500)
	return append(out, event(d.after(last, 500, 700), "update", nil, best), event(ends, "end", float64(d.ms(ends))/1000, best))
}

// Native: every read as the fleet has it.
func native(d *device, p *passage) []saying {
	var out []saying
	for i := range p.steps {
		r := p.steps[i].Read
		r.TS = d.ms(p.steps[i].At)
		out = append(out, saying{at: d.after(p.steps[i].At, 20, 60), read: &r, contentType: typeJSON, body: func(late bool) []byte {
			r.Retransmitted = late
			return marshal(&r)
		}})
	}
	return out
}
