package format

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"vigie/sensors"
)

func FuzzONVIF(f *testing.F)           { fuzzVendor(f, "onvif") }
func FuzzOpenALPR(f *testing.F)        { fuzzVendor(f, "openalpr") }
func FuzzPlateRecognizer(f *testing.F) { fuzzVendor(f, "platerecognizer") }
func FuzzHikvision(f *testing.F)       { fuzzVendor(f, "hikvision") }
func FuzzAxis(f *testing.F)            { fuzzVendor(f, "axis") }
func FuzzDahua(f *testing.F)           { fuzzVendor(f, "dahua") }
func FuzzGenetec(f *testing.F)         { fuzzVendor(f, "genetec") }
func FuzzFrigate(f *testing.F)         { fuzzVendor(f, "frigate") }

// FuzzAuto has every sample as a seed, and finds the format out.
func FuzzAuto(f *testing.F) { fuzzVendor(f, "auto") }

// fuzzVendor decodes whatever comes and holds what Decode promises of it: a gateway has nothing to
// complain of but the plate, every read is taken or rejected, and the same message says the same again.
func fuzzVendor(f *testing.F, vendor string) {
	for name, body := range samples(f) {
		if vendor == "auto" || strings.HasPrefix(name, vendor) {
			f.Add("", body)
		}
	}
	f.Add("multipart/form-data; boundary=b", []byte("--b\r\nContent-Type: image/jpeg\r\n\r\nx\r\n--b--"))
	f.Add("application/x-www-form-urlencoded", []byte("json=%7B%7D"))
	paris, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		for _, p := range []sensors.Profile{{}, {Clock: sensors.ClockLocal, Zone: paris, Scale: sensors.ScalePercent, Country: "F"}} {
			in := Input{ContentType: contentType, Body: body, Profile: p, Received: received}
			kept := bytes.Clone(body)
			msg, err := Decode(vendor, in)
			if !bytes.Equal(body, kept) {
				t.Fatal("the body was changed")
			}
			if err != nil {
				if as := (*Error)(nil); !errors.Is(err, ErrFormat) && !errors.As(err, &as) {
					t.Fatalf("error is a %T", err)
				}
				continue
			}
			if again, err := Decode(msg.Format, in); err != nil || !reflect.DeepEqual(again, msg) {
				t.Fatalf("decoded again as %s: %v", msg.Format, err)
			}
			for i := range msg.Sightings {
				r := msg.Sightings[i].Read
				if r.Sensor == "" {
					r.Sensor = "given"
				}
				var fault *sensors.FieldError
				if err := r.Check(); err != nil && (!errors.As(err, &fault) || fault.Field != "plate") {
					t.Fatalf("sighting %d: %v", i, err)
				}
				if r.Passage != "" || r.Received != 0 || r.Image != nil {
					t.Fatalf("sighting %d has what only a gateway gives", i)
				}
			}
			last := -1
			for _, rej := range msg.Rejected {
				if rej.Index <= last || rej.Index >= len(msg.Sightings)+len(msg.Rejected) || rej.Reason == "" {
					t.Fatalf("rejections %+v among %d reads", msg.Rejected, len(msg.Sightings)+len(msg.Rejected))
				}
				last = rej.Index
			}
		}
	})
}
