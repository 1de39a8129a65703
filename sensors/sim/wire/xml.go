package wire

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"vigie/sensors"
	"vigie/sensors/sim"
)

// ONVIF Profile M: one device in two sends frames of a metadata stream in XML, one for every
// reading; the others, and all that publish through MQTT, events of their rule in JSON.
func onvif(d *device, p *passage) []saying {
	vehicle := strconv.FormatUint(uint64(2*p.track), 10)
	plate := strconv.FormatUint(uint64(2*p.track+1), 10)
	var out []saying
	for i := range p.steps {
		s := &p.steps[i]
		speed := math.Round(float64(s.Read.Speed)/0.036) / 100 // m/s
		r := &sensors.Read{
			Sensor: d.ID, Plate: s.Read.Plate, Country: alpha2(&s.Read), TS: d.ms(s.At), Conf: s.Read.Conf,
			Speed: float32(3.6 * speed), Direction: strconv.Itoa(d.yaw()), Make: s.Read.Make,
		}
		says := saying{at: d.after(s.At, 20, 80), read: r, contentType: typeJSON}
		says.topic = d.ID + "/onvif-ej/RuleEngine/Recognition/LicensePlate/&VS_1/LPR_lane" + strconv.FormatUint(uint64(s.Read.Lane), 10)
		if d.pictures && !d.mqtt {
			says.contentType = typeXML
			says.body = func(bool) []byte { return d.onvifFrame(r, vehicle, plate, speed) }
		} else {
			says.body = func(bool) []byte { return d.onvifEvent(r, s, vehicle, plate, speed) }
		}
		out = append(out, says)
	}
	return out
}

func onvifTime(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

func (d *device) onvifEvent(r *sensors.Read, s *sim.Step, vehicle, plate string, speed float64) []byte {
	likely := func(v any, t string) object { return object{"@Likelihood": v, "#text": t} }
	info := object{"PlateNumber": likely(r.Conf, r.Plate), "PlateType": likely(0.88, "Normal")}
	if r.Country != "" {
		info["CountryCode"] = likely(0.83, r.Country)
	}
	data := object{
		"Likelihood": r.Conf, "ObjectId": object{"@ObjectId": plate}, "ParentObjectId": object{"@ObjectId": vehicle},
		"BoundingBox":      object{"@left": -0.12, "@top": -0.30, "@right": 0.02, "@bottom": -0.37},
		"LicensePlateInfo": info, "Speed": speed, "Direction": object{"@yaw": d.yaw()},
	}
	if r.Make != "" {
		data["VehicleInfo"] = object{"Type": likely(0.94, "Car"), "Brand": likely(0.71, r.Make)}
	}
	return marshal(object{
		"UtcTime": onvifTime(r.TS), "Source": object{"VideoSource": "VS_1", "Rule": "LPR_lane" + strconv.FormatUint(uint64(s.Read.Lane), 10)}, "Data": data,
	})
}

func (d *device) onvifFrame(r *sensors.Read, vehicle, plate string, speed float64) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?>
<tt:MetadataStream xmlns:tt="http://www.onvif.org/ver10/schema"><tt:VideoAnalytics>
<tt:Frame UtcTime="%s" Source="LprEngine">
<tt:Object ObjectId="%s"><tt:Appearance><tt:Class><tt:Type Likelihood="0.97">Vehicle</tt:Type></tt:Class>
`, onvifTime(r.TS), vehicle)
	if r.Make != "" {
		fmt.Fprintf(&b, "<tt:VehicleInfo><tt:Type Likelihood=\"0.94\">Car</tt:Type><tt:Brand Likelihood=\"0.71\">%s</tt:Brand></tt:VehicleInfo>\n", text(r.Make))
	}
	fmt.Fprintf(&b, `</tt:Appearance><tt:Behaviour><tt:Speed>%g</tt:Speed><tt:Direction yaw="%d"/></tt:Behaviour></tt:Object>
<tt:Object ObjectId="%s" Parent="%s"><tt:Appearance><tt:Class><tt:Type Likelihood="0.93">LicensePlate</tt:Type></tt:Class>
<tt:LicensePlateInfo><tt:PlateNumber Likelihood="%g">%s</tt:PlateNumber><tt:PlateType Likelihood="0.88">Normal</tt:PlateType>
`, speed, d.yaw(), plate, vehicle, r.Conf, text(r.Plate))
	if r.Country != "" {
		fmt.Fprintf(&b, "<tt:CountryCode Likelihood=\"0.83\">%s</tt:CountryCode>\n", r.Country)
	}
	b.WriteString("</tt:LicensePlateInfo></tt:Appearance></tt:Object>\n</tt:Frame></tt:VideoAnalytics></tt:MetadataStream>\n")
	return []byte(b.String())
}

// Hikvision: one alert for a vehicle, of its best reading, as XML or as a form with the pictures.
// What was kept while the link was away is marked. Between vehicles it says that the
// picture is not lost.
func hikvision(d *device, p *passage) []saying {
	s := p.best()
	stamp := s.At.Add(d.clock).Truncate(time.Millisecond).In(wall)
	absTime := strings.Replace(stamp.Format("20060102150405.000"), ".", "", 1)
	r := &sensors.Read{
		ID:     absTime + fmt.Sprintf("001%016x%012X", d.dice.Bits(), d.n),
		Sensor: d.ID, Plate: plain(s), Country: alpha3(&s.Read), TS: stamp.Truncate(time.Second).UnixMilli(), Conf: s.Read.Conf,
		Lane: s.Read.Lane, Direction: "forward", Speed: float32(int(s.Read.Speed)), Color: s.Read.Color, Lat: float32(d.Lat), Lon: float32(d.Lon),
		CharConf: s.Read.CharConf,
	}
	if s.Truth.Sentinel {
		r.Plate = "unknown"
	}
	if d.away {
		r.Direction = "reverse"
	}
	alert := func(late bool) []byte {
		var b strings.Builder
		d.hikvisionHead(&b, stamp, 1, "ANPR", "active")
		fmt.Fprintf(&b, "  <ANPR>\n    <country>%d</country>\n    <licensePlate>%s</licensePlate>\n    <line>%d</line>\n    <direction>%s</direction>\n"+
			"    <confidenceLevel>%d</confidenceLevel>\n    <plateType>unknown</plateType>\n    <plateColor>white</plateColor>\n",
			d.n%40, text(r.Plate), r.Lane, r.Direction, percent(r.Conf))
		if len(r.CharConf) > 0 {
			each := make([]string, len(r.CharConf))
			for i, c := range r.CharConf {
				each[i] = strconv.Itoa(percent(c))
			}
			fmt.Fprintf(&b, "    <plateCharBelieve>%s</plateCharBelieve>\n", strings.Join(each, ","))
		}
		fmt.Fprintf(&b, "    <vehicleType>vehicle</vehicleType>\n    <vehicleInfo>\n      <index>%d</index>\n      <color>%s</color>\n      <speed>%d</speed>\n    </vehicleInfo>\n",
			p.track, text(r.Color), int(r.Speed))
		count := 0
		if d.pictures {
			count = 2
			b.WriteString("    <pictureInfoList>\n")
			for _, name := range []string{"licensePlatePicture", "detectionPicture"} {
				fmt.Fprintf(&b, "      <pictureInfo>\n        <fileName>%s.jpg</fileName>\n        <type>%s</type>\n        <absTime>%s</absTime>\n      </pictureInfo>\n", name, name, absTime)
			}
			b.WriteString("    </pictureInfoList>\n")
		}
		fmt.Fprintf(&b, "    <originalLicensePlate>%s</originalLicensePlate>\n    <vehicleListName>otherList</vehicleListName>\n  </ANPR>\n"+
			"  <UUID>%s</UUID>\n  <picNum>%d</picNum>\n  <monitoringSiteID>%s</monitoringSiteID>\n  <isDataRetransmission>%t</isDataRetransmission>\n",
			text(r.Plate), r.ID, count, d.ID, late)
		b.WriteString("  <DeviceGPSInfo>\n")
		for _, axis := range []struct {
			name, kind, plus, minus string
			v                       float64
		}{{"Longitude", "longitudeType", "E", "W", d.Lon}, {"Latitude", "latitudeType", "N", "S", d.Lat}} {
			side, v := axis.plus, axis.v
			if v < 0 {
				side, v = axis.minus, -v
			}
			degree, rest := math.Modf(v)
			minute, rest := math.Modf(60 * rest)
			fmt.Fprintf(&b, "    <%s>%s</%s>\n    <%s><degree>%.0f</degree><minute>%.0f</minute><sec>%.6f</sec></%s>\n",
				axis.kind, side, axis.kind, axis.name, degree, minute, 60*rest, axis.name)
		}
		fmt.Fprintf(&b, "  </DeviceGPSInfo>\n  <countryAbbreviation>%s</countryAbbreviation>\n</EventNotificationAlert>\n", r.Country)
		return []byte(b.String())
	}
	says := saying{at: d.after(s.At, 100, 300), read: r, contentType: typeXML, body: alert}
	if d.pictures {
		says.contentType = typeForm
		says.body = func(late bool) []byte {
			picture := func(name, body string) part {
				return part{fmt.Sprintf("Content-Disposition: form-data; name=%q; filename=%q\r\nContent-Type: image/pjpeg\r\nContent-ID: %s",
					name+".jpg", name+".jpg", name), body}
			}
			return form(part{"Content-Disposition: form-data; name=\"anpr.xml\"; filename=\"anpr.xml\"\r\nContent-Type: text/xml; charset=\"UTF-8\"", string(alert(late))},
				picture("licensePlatePicture", pictures().plate), picture("detectionPicture", pictures().scene))
		}
	}
	return []saying{says}
}

// hikvisionHead writes what every alert begins with.
func (d *device) hikvisionHead(b *strings.Builder, at time.Time, count int, kind, state string) {
	fmt.Fprintf(b, `<?xml version="1.0" encoding="UTF-8"?>
<EventNotificationAlert version="2.0" xmlns="http://www.hikvision.com/ver20/XMLSchema">
  <ipAddress>192.0.2.%d</ipAddress>
  <portNo>8888</portNo>
  <protocol>HTTP</protocol>
  <macAddress>02:00:5e:10:%02x:%02x</macAddress>
  <channelID>1</channelID>
  <dateTime>%s</dateTime>
  <activePostCount>%d</activePostCount>
  <eventType>%s</eventType>
  <eventState>%s</eventState>
  <eventDescription>%s</eventDescription>
  <channelName>%s</channelName>
`, d.n%250+1, d.n>>8&0xff, d.n&0xff, at.Format("2006-01-02T15:04:05-07:00"), count, kind, state, kind, d.ID)
}

func hikvisionBeat(d *device, at time.Time) saying {
	return saying{at: at, contentType: typeXML, body: func(bool) []byte {
		var b strings.Builder
		d.hikvisionHead(&b, at.Add(d.clock).In(wall), 0, "videoloss", "inactive")
		b.WriteString("</EventNotificationAlert>\n")
		return []byte(b.String())
	}}
}
