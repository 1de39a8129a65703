package format

import (
	"crypto/sha256"
	"encoding/base32"
	"math"
	"strconv"
	"strings"
	"unicode"

	"vigie/sensors"
	"vigie/watchlist/plate"
)

// conf reads a confidence in the unit of the profile, else that of the format. One that is out of
// its range is 0, which means that none was told: a read is not lost over it.
func (d *decoder) conf(text string, scale sensors.Scale) float32 {
	return share(text, d.scaleOf(scale, text))
}

// share reads a confidence in the unit of scale.
func share(text string, scale sensors.Scale) float32 {
	v, ok := decimal(strings.TrimSuffix(text, "%"))
	if scale == sensors.ScalePercent {
		v /= 100
	}
	if !ok || v < 0 || v > 1 {
		return 0
	}
	return float32(v)
}

// scaleOf returns the unit of confidences that belong together: that of the profile, else that of the format,
// unless they can only be meant in the other. These are shares where the format has percent: none is above 1, and
// one has a fraction or a point. And these are percent where it has shares: one is 2 to 100. A little
// above 1 is a share that was rounded badly, and no camera tells of a plate with 1 %.
func (d *decoder) scaleOf(scale sensors.Scale, texts ...string) sensors.Scale {
	if d.in.Profile.Scale != "" {
		return d.in.Profile.Scale
	}
	most, point := 0.0, false
	for _, text := range texts {
		if strings.HasSuffix(text, "%") {
			return sensors.ScalePercent
		}
		if v, ok := decimal(text); ok && v > 0 {
			most, point = max(most, v), point || v < 1 || strings.ContainsAny(text, ".,")
		}
	}
	switch {
	case scale == sensors.ScalePercent && point && most <= 1:
		return sensors.ScaleUnit
	case scale == sensors.ScaleUnit && most >= 2 && most <= 100:
		return sensors.ScalePercent
	}
	return scale
}

// charConf reads a list of confidences in characters. A list that has anything else in it is as none.
func (d *decoder) charConf(text string, scale sensors.Scale) []float32 {
	fields := strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ';' || c == ' ' })
	if len(fields) == 0 || len(fields) > sensors.MaxPlateRunes {
		return nil
	}
	scale = d.scaleOf(scale, fields...)
	out := make([]float32, len(fields))
	for i, f := range fields {
		if v, ok := decimal(f); !ok || v < 0 {
			return nil
		}
		out[i] = share(f, scale)
	}
	return out
}

// candidates adds other readings to a read: those that differ from its plate and from one another,
// as many as a read may have.
func (d *decoder) candidates(r *sensors.Read, plates []*node, names []string, confs []string, scale sensors.Scale) {
	told := make([]string, len(plates))
	for i, n := range plates {
		told[i] = d.text(n, confs...)
	}
	scale = d.scaleOf(scale, told...)
	for i, n := range plates {
		text := d.text(n, names...)
		if n.leaf {
			text = n.text()
		}
		d.candidate(r, text, share(told[i], scale))
	}
}

func (d *decoder) candidate(r *sensors.Read, text string, conf float32) {
	if text == "" || text == r.Plate || len(r.Candidates) == sensors.MaxCandidates || len([]rune(text)) > sensors.MaxPlateRunes {
		return
	}
	if _, err := plate.Parse(text); err != nil {
		return
	}
	for _, c := range r.Candidates {
		if c.Plate == text {
			return
		}
	}
	r.Candidates = append(r.Candidates, sensors.Candidate{Plate: text, Conf: conf})
}

// decimal reads a number, with a point or a comma.
func decimal(s string) (float64, bool) {
	s = strings.TrimSpace(s)
	if len(s) > 32 {
		return 0, false
	}
	if strings.Count(s, ",") == 1 && !strings.Contains(s, ".") {
		s = strings.Replace(s, ",", ".", 1)
	}
	v, err := strconv.ParseFloat(s, 64)
	return v, err == nil && !math.IsNaN(v) && !math.IsInf(v, 0)
}

// Factors to km/h.
const (
	kmh = 1
	mph = 1.609344
	mps = 3.6
)

// speed reads a speed; a unit behind it counts more than the one of the format. One that cannot be is 0.
func speed(text string, unit float64) float32 {
	i := 0
	for i < len(text) && strings.IndexByte("0123456789.,+-", text[i]) >= 0 {
		i++
	}
	v, ok := decimal(text[:i])
	switch strings.ToLower(strings.TrimSpace(text[i:])) {
	case "":
	case "km/h", "kmh", "kph", "kmph":
		unit = kmh
	case "mph", "mi/h":
		unit = mph
	case "m/s", "mps":
		unit = mps
	default:
		return 0
	}
	v *= unit
	if !ok || v < 0 || v > sensors.MaxSpeed {
		return 0
	}
	return float32(v)
}

// lane reads the number of a lane from 1 on; 0 for anything else.
func lane(text string) uint32 {
	v, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
	if err != nil || v > sensors.MaxLane {
		return 0
	}
	return uint32(v)
}

// truth reads a yes or no.
func truth(text string) bool {
	switch strings.ToLower(text) {
	case "true", "1", "yes":
		return true
	}
	return false
}

// word returns a text fit for Direction, Make and Color: without control characters, cut to
// length, and empty when it says that nothing is known.
func word(text string) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) || c == '\u2028' || c == '\u2029' || c == unicode.ReplacementChar {
			return -1
		}
		return c
	}, strings.ToValidUTF8(text, ""))
	text = strings.TrimSpace(text)
	if unsaid(text) {
		return ""
	}
	if runes := []rune(text); len(runes) > sensors.MaxTextRunes {
		text = strings.TrimSpace(string(runes[:sensors.MaxTextRunes]))
	}
	return text
}

// unsaid reports whether a text says that nothing is known.
func unsaid(text string) bool {
	switch strings.ToLower(text) {
	case "", "unknown", "none", "null", "n/a", "na", "-", "--", "---", "undefined", "other", "not available":
		return true
	}
	return false
}

// brand is word for a make, of which a number says nothing without the list of its vendor.
func brand(text string) string {
	if _, isNumber := decimal(text); isNumber {
		return ""
	}
	return word(text)
}

// angle is word for a direction in degrees, of which a negative one means that none was told.
func angle(text string) string {
	if v, ok := decimal(text); ok {
		if v < 0 || v > 360 {
			return ""
		}
		return strconv.FormatFloat(v, 'f', -1, 32)
	}
	return word(text)
}

// country returns the first of the texts that names a country; when none does, the first that says
// something, so that it is counted. A number says nothing: every vendor counts in its own way. Europe is
// no country. Behind a name a code may stand in brackets, and then counts.
func country(texts ...string) string {
	told := ""
	for _, text := range texts {
		if unsaid(text) || digits(text) == len(text) || len(text) > 64 {
			continue
		}
		switch strings.ToLower(text) {
		case "eu", "eur", "europe":
			continue
		}
		if c, ok := plate.ParseCountry(text); ok && c != 0 {
			return text
		}
		name, code, _ := strings.Cut(text, "(")
		code = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(code), ")"))
		if c, ok := plate.ParseCountry(code); ok && c != 0 {
			return code
		}
		if code := countryNames[strings.ToLower(strings.TrimSpace(name))]; code != "" {
			return code
		}
		if told == "" {
			told = text
		}
	}
	return told
}

// countryNames are English names of the countries whose vehicles drive in Europe, and the few others
// that vendors spell out.
var countryNames = map[string]string{
	"albania": "AL", "andorra": "AD", "armenia": "AM", "austria": "AT", "azerbaijan": "AZ", "belarus": "BY",
	"belgium": "BE", "bosnia and herzegovina": "BA", "bulgaria": "BG", "canada": "CA", "croatia": "HR", "cyprus": "CY",
	"czech republic": "CZ", "czechia": "CZ", "denmark": "DK", "estonia": "EE", "finland": "FI", "france": "FR",
	"georgia": "GE", "germany": "DE", "greece": "GR", "hungary": "HU", "iceland": "IS", "ireland": "IE", "italy": "IT",
	"kazakhstan": "KZ", "kosovo": "XK", "latvia": "LV", "liechtenstein": "LI", "lithuania": "LT", "luxembourg": "LU",
	"malta": "MT", "mexico": "MX", "moldova": "MD", "monaco": "MC", "montenegro": "ME", "morocco": "MA",
	"netherlands": "NL", "the netherlands": "NL", "north macedonia": "MK", "norway": "NO", "poland": "PL", "portugal": "PT",
	"romania": "RO", "russia": "RU", "san marino": "SM", "serbia": "RS", "slovakia": "SK", "slovenia": "SI", "spain": "ES",
	"sweden": "SE", "switzerland": "CH", "tunisia": "TN", "turkey": "TR", "ukraine": "UA", "united kingdom": "GB",
	"united states": "US", "usa": "US", "great britain": "GB", "holland": "NL", "macedonia": "MK", "russian federation": "RU",
	"algeria": "DZ", "egypt": "EG", "israel": "IL", "lebanon": "LB", "brazil": "BR", "australia": "AU", "bosnia": "BA",
}

// sensorID makes the id of a sensor of what a message calls it: every character that no id has is a _. Of a
// name that is too long the end stays, which tells devices apart more often than the beginning.
// Two names may become one.
func sensorID(text string) string {
	text = strings.TrimSpace(text)
	if unsaid(text) {
		return ""
	}
	return lastBytes(strings.Map(idRune, text), sensors.MaxIDBytes)
}

// idRune returns c when ids of sensors have it, else _.
func idRune(c rune) rune {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == ':':
		return c
	}
	return '_'
}

func lastBytes(s string, n int) string { return s[max(0, len(s)-n):] }

// SensorOfTopic returns the id of the sensor that publishes to an ONVIF topic of MQTT: what stands before
// onvif-ej or onvif-mj, with a : for every slash. It returns nothing for other topics, and where nothing stands
// before. A prefix that is too long, or has a : or a character that no id has, gets a
// short digest of the whole behind it, so that two prefixes do not become one sensor.
func SensorOfTopic(topic string) string {
	for _, kind := range []string{"/onvif-ej/", "/onvif-mj/"} {
		prefix, _, ok := strings.Cut(topic, kind)
		if !ok {
			continue
		}
		id := strings.Map(idRune, strings.ReplaceAll(prefix, "/", ":"))
		if len(id) <= sensors.MaxIDBytes && !strings.Contains(prefix, ":") && strings.ReplaceAll(id, ":", "/") == prefix {
			return id
		}
		sum := sha256.Sum256([]byte(prefix))
		digest := "-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:6])
		return lastBytes(id, sensors.MaxIDBytes-len(digest)) + digest
	}
	return ""
}

// readID returns an id of a vendor that can be the id of a read, else "".
func readID(text string) string {
	if text == "" || len(text) > sensors.MaxIDBytes {
		return ""
	}
	for i := range len(text) {
		if text[i] <= ' ' || text[i] >= 0x7f {
			return ""
		}
	}
	return text
}

// track returns the track that a message names. Devices that do not track number everything 0.
func track(text string) string {
	if text == "0" || text == "-1" || len(text) > 256 {
		return ""
	}
	return text
}

// position sets where the sensor was. What is on no map, and 0, 0, is as none.
func position(r *sensors.Read, lat, lon string) {
	la, ok1 := decimal(lat)
	lo, ok2 := decimal(lon)
	if ok1 && ok2 && math.Abs(la) <= 90 && math.Abs(lo) <= 180 {
		r.Lat, r.Lon = float32(la), float32(lo)
	}
}
