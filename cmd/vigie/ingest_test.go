package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/twmb/franz-go/pkg/kgo"

	"vigie/sensors"
)

var updateGolden = flag.Bool("update", false, "write the golden files of TestVendorMessages anew")

// vendorMessages are messages as cameras send them: the file of package format, where it goes, and
// with what.
var vendorMessages = []struct {
	file, path, contentType, topic string
}{
	{"onvif-metadata.xml", "/v1/ingest/onvif?sensor=A7-118-2", "application/xml", ""},
	{"openalpr-group.json", "/v1/ingest/openalpr", "application/json", ""},
	{"platerecognizer.json", "/v1/ingest/platerecognizer", "application/json", ""},
	{"platerecognizer-form.bin", "/v1/ingest/platerecognizer", "", ""},
	{"hikvision.xml", "/v1/ingest/hikvision", "application/xml", ""},
	{"hikvision-multipart.bin", "/v1/ingest/hikvision", "", ""},
	{"axis-lpv.json", "/v1/ingest/axis", "application/json", ""},
	{"dahua-itsapi.json", "/NotificationInfo/TollgateInfo", "application/json", ""},
	{"dahua-snapmanager.bin", "/v1/ingest/dahua", "multipart/x-mixed-replace; boundary=myboundary", ""},
	{"genetec-read.json", "/v1/ingest/genetec", "application/json", ""},
	{"genetec-read.xml", "/v1/ingest/auto", "", ""},
	{"onvif-mqtt-event.json", "", "", "A7-118-2/onvif-ej/RuleEngine/Recognition/LicensePlate/&VS_1/LPR_lane2"},
	{"frigate-lpr.json", "", "", "frigate/tracked_object_update"},
	{"frigate-events.ndjson", "/v1/ingest/auto", "application/x-ndjson", ""},
}

// TestVendorMessages sends the messages of every vendor to a gateway of their own, by HTTP or through
// an MQTT broker, and reads from Kafka what becomes of them: what the golden file says, and what
// `vigie sensors decode` shows.
func TestVendorMessages(t *testing.T) {
	s := newSite(t)
	broker := mochi.New(&mochi.Options{InlineClient: true, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err := broker.AddHook(new(allowAll), nil); err != nil {
		t.Fatal(err)
	}
	listener := listeners.NewTCP(listeners.Config{ID: "t", Address: "127.0.0.1:0"})
	if err := broker.AddListener(listener); err != nil {
		t.Fatal(err)
	}
	if err := broker.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	s.env = append(s.env, "VIGIE_GATEWAY_MQTT_URL=mqtt://"+listener.Address(),
		"VIGIE_GATEWAY_MQTT_TOPICS=+/onvif-ej/RuleEngine/Recognition/LicensePlate/#,frigate/events,frigate/tracked_object_update")

	client, err := kgo.NewClient(kgo.SeedBrokers(s.kafka), kgo.ConsumeTopics(s.prefix+"reads"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)

	for _, m := range vendorMessages {
		t.Run(m.file, func(t *testing.T) {
			s.t = t
			path := filepath.Join("..", "..", "sensors", "format", "testdata", m.file)
			body, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			contentType := m.contentType
			if contentType == "" && bytes.HasPrefix(body, []byte("--")) {
				line, _, _ := bytes.Cut(body, []byte("\n"))
				contentType = "multipart/form-data; boundary=" + string(bytes.TrimSpace(line[2:]))
			}
			golden := filepath.Join("testdata", "ingest", m.file+".json")
			want, err := os.ReadFile(golden)
			if err != nil && !*updateGolden {
				t.Fatal(err)
			}

			p := s.serve("gateway")
			defer p.kill()
			if m.topic != "" {
				s.until("the gateway has subscribed", func() bool { return len(broker.Topics.Subscribers(m.topic).Subscriptions) > 0 })
				if err := broker.Publish(m.topic, body, false, 1); err != nil {
					t.Fatal(err)
				}
			} else {
				code, answer := s.call("POST", p.url+m.path, sensorToken, contentType, string(body))
				if code != http.StatusAccepted && code != http.StatusOK {
					t.Fatalf("%d %s", code, answer)
				}
			}
			n := max(1, bytes.Count(want, []byte("\n")))
			if *updateGolden {
				time.Sleep(time.Second)
			}
			got := readsFrom(t, client, n)
			if *updateGolden {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}

			args := []string{"sensors", "decode", "--sensor", "A7-118-2", "-o", "json", path}
			if m.topic != "" {
				args = append(args, "--topic", m.topic)
			}
			decoded, err := exec.Command("vigie", args...).Output()
			if err != nil || !bytes.Equal(decoded, got) {
				t.Errorf("vigie sensors decode: %v\n%swant\n%s", err, decoded, got)
			}
		})
	}
}

// allowAll lets everybody publish and subscribe.
type allowAll struct{ mochi.HookBase }

func (*allowAll) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck
}

func (*allowAll) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }

func (*allowAll) OnACLCheck(*mochi.Client, string, bool) bool { return true }

// readsFrom waits for n reads on the reads topic and returns them and those that came with them as
// JSON lines, without the time of arrival and the places of pictures.
func readsFrom(t *testing.T, client *kgo.Client, n int) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for got := 0; got < n; {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("%d reads of %d: %v", got, n, err)
		}
		for _, rec := range fetches.Records() {
			var r sensors.Read
			if err := sensors.Decode(rec.Value, &r); err != nil {
				t.Fatal(err)
			}
			if r.Received == 0 || string(rec.Key) != r.Sensor {
				t.Errorf("received at %d, with the key %q of sensor %q", r.Received, rec.Key, r.Sensor)
			}
			r.Received, r.Image, r.Context = 0, nil, nil
			if err := enc.Encode(&r); err != nil {
				t.Fatal(err)
			}
			got++
		}
	}
	return out.Bytes()
}
