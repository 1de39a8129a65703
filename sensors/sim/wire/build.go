package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"strings"
	"sync"

	"vigie/sensors"
	"vigie/sensors/sim"
	"vigie/watchlist/plate"
)

// Content types.
const (
	typeJSON = "application/json"
	typeXML  = "application/xml"
	typeForm = "multipart/form-data; boundary=" + boundary
	boundary = "boundary"
)

// object is a JSON object.
type object = map[string]any

// marshal writes JSON. Everything in it is of this package, and can be written.
func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("wire: a message cannot be written as JSON")
	}
	return b
}

// text makes a text fit to stand in XML.
func text(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) //nolint:errcheck // a Builder takes everything
	return b.String()
}

// part is one part of a form.
type part struct{ header, body string }

// form writes a form as cameras do.
func form(parts ...part) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		fmt.Fprintf(&b, "--%s\r\n%s\r\nContent-Length: %d\r\n\r\n%s\r\n", boundary, p.header, len(p.body), p.body)
	}
	b.WriteString("--" + boundary + "--\r\n")
	return b.Bytes()
}

// pictures are JPEGs of a plate and of a scene, grey all over.
var pictures = sync.OnceValue(func() (p struct{ plate, scene string }) {
	for _, it := range []struct {
		to   *string
		w, h int
		grey uint8
	}{{&p.plate, 64, 16, 220}, {&p.scene, 160, 90, 90}} {
		img := image.NewGray(image.Rect(0, 0, it.w, it.h))
		for i := range img.Pix {
			img.Pix[i] = color.Gray{Y: it.grey}.Y
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, img, nil); err != nil {
			panic("wire: a grey picture cannot be encoded")
		}
		*it.to = b.String()
	}
	return p
})

func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// plain is the plate of a read without separators, in capitals. A text that says that there is no
// plate stays as it is.
func plain(s *sim.Step) string {
	if s.Truth.Sentinel {
		return s.Read.Plate
	}
	return strings.ToUpper(strings.ReplaceAll(s.Read.Plate, "-", ""))
}

// alpha2 and alpha3 are the country of a read, "" when the device does not know it.
func alpha2(r *sensors.Read) string { return r.CountryCode().String() }

func alpha3(r *sensors.Read) string { return sim.Alpha3(alpha2(r)) }

// percent is a confidence in whole percent, as vendors of that scale write it.
func percent(v float32) int { return int(math.Round(100 * float64(v))) }

// hundredths is a confidence in percent with two digits behind the point.
func hundredths(v float32) float64 { return math.Round(1e4*float64(v)) / 100 }

// others are the other readings of a read with their confidences, without repetitions.
func others(s *sim.Step) []sensors.Candidate {
	seen := map[string]bool{plain(s): true}
	var out []sensors.Candidate
	for _, c := range s.Read.Candidates {
		if _, err := plate.Parse(c.Plate); err == nil && !seen[c.Plate] {
			seen[c.Plate] = true
			out = append(out, c)
		}
	}
	return out
}

// yaw is where vehicles are heading in the picture, in degrees.
func (d *device) yaw() int {
	if d.away {
		return 2
	}
	return 178
}
