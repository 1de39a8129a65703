package format

import (
	"math"
	"strconv"
	"strings"

	"vigie/sensors"
)

// Hikvision ISAPI: an EventNotificationAlert in XML or JSON, alone, as part of a form with
// the pictures, or one of many in an alert stream. Confidences are percent. country and CRIndex
// are numbers that differ between firmwares, so countryAbbreviation counts alone. An alert of
// another kind than ANPR, such as the videoloss inactive that comes every few seconds, is a
// heartbeat.
//
// A UUID that begins with the time is that of the event, also when it is retransmitted, and so
// the id of its read. Of other UUIDs nobody can say that they are not the device's.

func isHikvision(n *node) bool {
	return n.name == "EventNotificationAlert" || n.json && (has(n, "eventType") && hasAny(n, "ANPR", "ipAddress", "macAddress", "eventState") || has(n, "EventNotificationAlert"))
}

func decodeHikvision(d *decoder, alert *node) {
	if inner := d.find(alert, "EventNotificationAlert"); inner != nil {
		alert = inner
	}
	sensor := sensorID(d.text(alert, "deviceID", "monitoringSiteID", "channelName", "macAddress", "ipAddress"))
	if d.msg.Sensor == "" {
		d.msg.Sensor = sensor
	}
	reads := all(alert, "ANPR")
	if len(reads) == 0 && strings.EqualFold(d.text(alert, "eventType"), "ANPR") && has(alert, "licensePlate") {
		reads = []*node{alert}
	}
	if len(reads) == 0 {
		kind := strings.ToLower(d.text(alert, "eventType"))
		switch {
		case kind == "anpr":
			d.bad("ANPR", "is missing")
		case strings.Contains(kind, "videoloss") && strings.EqualFold(d.text(alert, "eventState"), "active"):
			d.dead = true
		default:
			d.msg.Heartbeat = true
		}
		return
	}
	for _, anpr := range reads {
		d.add(func(s *sensors.Sighting) {
			r := &s.Read
			r.Sensor = sensor
			original := d.text(anpr, "originalLicensePlate")
			if r.Plate = d.text(anpr, "licensePlate"); r.Plate == "" {
				r.Plate = original
			}
			r.Conf = d.conf(d.text(anpr, "confidenceLevel"), sensors.ScalePercent)
			d.candidate(r, original, r.Conf)
			r.CharConf = d.charConf(d.text(anpr, "plateCharBelieve"), sensors.ScalePercent)
			r.Country = country(d.text(alert, "countryAbbreviation"), d.text(anpr, "countryAbbreviation"), d.text(anpr, "region"), d.text(anpr, "country"))
			d.when(s, false, d.text(alert, "dateTime"), firstText(anpr, "pictureInfoList/pictureInfo/absTime"))
			r.Lane = lane(d.text(anpr, "line", "laneNo"))
			r.Direction = word(d.text(anpr, "direction"))
			r.Speed = speed(d.text(anpr, "vehicleInfo/speed", "speed"), kmh)
			r.Color = word(d.text(anpr, "vehicleInfo/color", "vehicleColor"))
			r.Make = brand(d.text(anpr, "vehicleInfo/vehicleLogo", "vehicleInfo/brand", "vehicleInfo/vehicleBrand"))
			r.Retransmitted = truth(d.text(alert, "isDataRetransmission"))
			if id := d.text(alert, "UUID"); len(reads) == 1 && digits(id) >= len("20060102150405") {
				r.ID = readID(id)
			}
			gps := d.find(alert, "DeviceGPSInfo", "GPSInfo")
			if gps == nil {
				gps = d.find(anpr, "DeviceGPSInfo", "GPSInfo")
			}
			if gps != nil {
				position(r, d.degrees(gps, "Latitude", "latitudeType", "S"), d.degrees(gps, "Longitude", "longitudeType", "W"))
			}
		})
	}
}

// degrees reads an angle that is a number or has degree, minute and sec.
func (d *decoder) degrees(gps *node, name, side, negative string) string {
	n := d.find(gps, name)
	if n == nil {
		return ""
	}
	v, ok := decimal(n.text())
	if !n.leaf {
		for i, unit := range []string{"degree", "minute", "sec"} {
			part, isNumber := decimal(d.text(n, unit))
			if !isNumber || part < 0 {
				if i == 0 {
					return ""
				}
				continue
			}
			v += part / math.Pow(60, float64(i))
		}
		ok = true
	}
	if !ok {
		return ""
	}
	if strings.EqualFold(d.text(gps, side), negative) {
		v = -v
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}
