package format

import (
	"strings"

	"vigie/sensors"
)

// Genetec AutoVu: reads of the data exporter in JSON or XML, and hits in XML with the read in them.
// Date and time are two fields, in UTC or local. Confidences are percent. State may be the state of a
// federation, and CA is California: so what Context says counts, and State only when it says nothing
// or Europe. A Guid alone may be that of the device, so it is no id of a read.

func isGenetec(n *node) bool { return genetecRead(n) != nil }

// genetecRead returns the first read in a document.
func genetecRead(root *node) *node {
	var found *node
	walk(root, func(n *node) bool {
		if found == nil && isGenetecRead(n) {
			found = n
		}
		return found == nil
	})
	return found
}

var genetecPlate = []string{"Plate", "PlateNumber", "PlateRead", "LicensePlate"}

func isGenetecRead(n *node) bool {
	isText := false
	for _, name := range genetecPlate {
		for _, k := range all(n, name) {
			isText = isText || k.leaf
		}
	}
	return isText && hasAny(n, "DateUtc", "UtcDate", "TimeUtc", "UtcTime", "DateLocal", "LocalDate", "TimeLocal", "LocalTime", "DateTimeUtc", "UtcDateTime", "TimestampUtc", "CameraName", "ReadDate")
}

func decodeGenetec(d *decoder, root *node) {
	walk(root, func(n *node) bool {
		if !isGenetecRead(n) {
			return true
		}
		d.add(func(s *sensors.Sighting) { d.genetec(s, n) })
		return false
	})
}

func (d *decoder) genetec(s *sensors.Sighting, n *node) {
	r := &s.Read
	r.Plate = d.text(n, genetecPlate...)
	score := d.text(n, "ConfidenceScore", "Confidence", "PlateConfidence")
	if score == "" {
		score = d.attribute(n, "Confidence Score")
	}
	r.Conf = d.conf(score, sensors.ScalePercent)
	r.Country = country(d.text(n, "Country", "PlateCountry"), d.attribute(n, "Context"))
	if r.Country == "" || strings.HasPrefix(strings.ToLower(r.Country), "eu") {
		r.Country = country(d.text(n, "State", "PlateState", "PlateOrigin"))
	}
	r.Sensor = sensorID(d.text(n, "CameraName", "ReaderName", "UnitName", "SharpName", "SourceName", "DeviceName"))
	utc := []string{
		both(d.text(n, "DateUtc", "UtcDate"), d.text(n, "TimeUtc", "UtcTime")),
		d.text(n, "DateTimeUtc", "UtcDateTime", "TimestampUtc"),
	}
	d.when(s, true, utc...)
	if r.TS == 0 {
		d.when(s, false, both(d.text(n, "DateLocal", "LocalDate", "ReadDate", "Date"), d.text(n, "TimeLocal", "LocalTime", "ReadTime", "Time")),
			d.text(n, "DateTimeLocal", "LocalDateTime", "Timestamp", "DateTime"))
	}
	speedText := d.attribute(n, "Speed")
	if speedText == "" {
		speedText = d.text(n, "Speed")
	}
	r.Speed = speed(speedText, kmh)
	r.Direction = word(d.attribute(n, "Relative Motion", "Direction"))
	r.Make = brand(d.attribute(n, "Vehicle Make", "Make"))
	r.Color = word(d.attribute(n, "Vehicle Color", "Vehicle Colour", "Color"))
	r.Lane = lane(d.attribute(n, "Lane", "Lane Number"))
	position(r, d.text(n, "Latitude", "Lat"), d.text(n, "Longitude", "Long", "Lon"))
	r.ID = readID(strings.Trim(d.text(n, "ReadGuid", "ReadId"), "{}"))
	d.pictures(s, d.find(n, "PlateImage", "LprImage"), d.find(n, "ContextImage", "OverviewImage"))
}

// both joins a date and a time, of which either may be a date with a time: of the date the midnight
// behind it does not count.
func both(date, clock string) string {
	switch {
	case date == "" || strings.ContainsAny(clock, "T/"):
		return clock
	case clock == "":
		return date
	}
	if i := strings.IndexAny(date, " T"); i > 0 {
		date = date[:i]
	}
	return date + " " + clock
}

// attribute returns one of the attributes of a read: a member of Attributes, with or without the
// spaces of its name, an element with Name or Key and Value, or a member of the read itself.
func (d *decoder) attribute(n *node, names ...string) string {
	found := ""
	for _, name := range names {
		short := strings.ReplaceAll(name, " ", "")
		for _, in := range append(all(n, "Attributes"), n) {
			if s := d.text(in, name, short); s != "" {
				return s
			}
			walk(in, func(k *node) bool {
				if key := firstText(k, "Name", "Key"); found == "" && (strings.EqualFold(key, name) || strings.EqualFold(key, short)) {
					if found = d.text(k, "Value"); found == "" {
						found = k.text()
					}
				}
				return found == ""
			})
			if found != "" {
				return found
			}
		}
	}
	return ""
}
