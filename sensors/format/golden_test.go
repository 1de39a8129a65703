package format

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vigie/sensors"
)

var update = flag.Bool("update", false, "write the golden files anew")

var received = time.Date(2026, 3, 14, 6, 41, 9, 0, time.UTC)

// told is what a golden file shows of a message.
type told struct {
	Format    string
	Sensor    string              `json:",omitempty"`
	Heartbeat bool                `json:",omitempty"`
	Rejected  []sensors.Rejection `json:",omitempty"`
	Sightings []toldSighting      `json:",omitempty"`
}

type toldSighting struct {
	Read    sensors.Read
	Track   string        `json:",omitempty"`
	Clock   sensors.Clock `json:",omitempty"`
	Plate   int           `json:",omitempty"` // bytes of the picture
	Context int           `json:",omitempty"`
}

// topics are those of the samples that come over MQTT.
var topics = map[string]string{
	"onvif-mqtt-event.json": "vigie/A7-118/onvif-ej/RuleEngine/Recognition/LicensePlate/&VS_1/LPR_lane2",
}

// samples are the messages of testdata, those that every vendor is known by and further ones.
func samples(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.IsDir() || strings.HasSuffix(f, ".golden.json") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(f)] = b
	}
	return all
}

// TestGolden decodes every sample by the name of its format, which its file name begins with, and as auto,
// and compares what it says with the golden file beside it.
func TestGolden(t *testing.T) {
	for name, body := range samples(t) {
		t.Run(name, func(t *testing.T) {
			vendor, _, _ := strings.Cut(name, "-")
			vendor, _, _ = strings.Cut(vendor, ".")
			in := Input{Body: body, Topic: topics[name], Received: received}
			msg, err := Decode("auto", in)
			if err != nil {
				t.Fatal(err)
			}
			if msg.Format != vendor {
				t.Fatalf("auto took it for %q", msg.Format)
			}
			if byFormat, err := Decode(vendor, in); err != nil || len(byFormat.Sightings) != len(msg.Sightings) {
				t.Errorf("by its name: %v, %d sightings instead of %d", err, len(byFormat.Sightings), len(msg.Sightings))
			}
			if got, ok := Detect("", body); !ok || got != vendor {
				t.Errorf("Detect = %q, %v", got, ok)
			}
			out := told{Format: msg.Format, Sensor: msg.Sensor, Heartbeat: msg.Heartbeat, Rejected: msg.Rejected}
			for _, s := range msg.Sightings {
				r := s.Read
				if r.Sensor == "" {
					r.Sensor = "given"
				}
				if err := r.Check(); err != nil {
					t.Errorf("the gateway would refuse it: %v", err)
				}
				out.Sightings = append(out.Sightings, toldSighting{s.Read, s.Track, s.Clock, len(s.Plate), len(s.Context)})
			}
			got, err := json.MarshalIndent(out, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", name+".golden.json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// BenchmarkDecode decodes each of the samples that vendors are known by.
func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{
		"onvif-metadata.xml", "onvif-mqtt-event.json", "openalpr-group.json", "platerecognizer.json", "hikvision-multipart.bin",
		"axis-lpv.json", "dahua-itsapi.json", "dahua-snapmanager.bin", "genetec-read.json", "frigate-lpr.json",
	} {
		in := Input{Body: samples(b)[name], Received: received}
		b.Run("sample="+name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(in.Body)))
			for b.Loop() {
				if _, err := Decode("auto", in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
