package mqtt_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"vigie/sensors"
	"vigie/sensors/ingest"
	"vigie/sensors/mqtt"
	"vigie/sensors/passage"
	"vigie/stream/streamtest"
)

// kafka is a Publisher that keeps what it gets, and fails when told so.
type kafka struct {
	mu    sync.Mutex
	fails int
	got   []string
}

func (k *kafka) Publish(_ context.Context, reads []sensors.Read) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fails > 0 {
		k.fails--
		return errors.New("away")
	}
	for _, r := range reads {
		k.got = append(k.got, fmt.Sprintf("%s %s %d %.2f %s %d", r.Sensor, r.Plate, r.TS, r.Conf, r.Country, r.Revision))
	}
	return nil
}

func (k *kafka) reads() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.got)
}

// whole is an Ingester with the gateway behind it.
func whole(t testing.TB, k *kafka) *ingest.Ingester {
	t.Helper()
	g, err := sensors.New(sensors.Config{Publisher: k})
	if err != nil {
		t.Fatal(err)
	}
	passages, err := passage.New(passage.Config{})
	if err != nil {
		t.Fatal(err)
	}
	in, err := ingest.New(ingest.Config{Gateway: g, Passages: passages})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// message is one to publish.
type message struct{ topic, sample string }

func sample(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// From the broker to the publisher, which fails at first: nothing is acknowledged before it is
// published, and what is sent again is judged as if it had not come.
func TestEndToEnd(t *testing.T) {
	const update = "frigate/tracked_object_update"
	onvif := message{onvifTopic, "onvif-event.json"}
	tests := []struct {
		name string
		ms   []message
		want []string
	}{
		{"onvif", []message{onvif}, []string{"A7-118-2 GK-482-TZ 1773470467412 0.91 FR 0"}},
		{"onvif twice", []message{onvif, onvif}, []string{"A7-118-2 GK-482-TZ 1773470467412 0.91 FR 0"}},
		{"frigate", []message{
			{frigateTopic, "frigate-new.json"}, {update, "frigate-update.json"}, {update, "frigate-changed.json"}, {frigateTopic, "frigate-end.json"},
		}, []string{
			"a7_pk118 GK482TZ 1773470467412 0.87  0", "a7_pk118 GK482TX 1773470467912 0.88  1",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := startBroker(t, "127.0.0.1:0", "", nil)
			k := &kafka{fails: 2}
			log := &logged{}
			cfg := config(b.addr, whole(t, k))
			cfg.Log = log.logger()
			s, _ := subscribed(t, b, cfg)
			for _, m := range tt.ms {
				b.publish(t, m.topic, sample(t, m.sample))
			}
			b.wantAcked(t, len(tt.ms))
			if got := k.reads(); !slices.Equal(got, tt.want) {
				t.Errorf("published\n%q, want\n%q", got, tt.want)
			}
			if st := s.Stats(); st.Failed != 2 || st.Unusable != 0 || st.RejectedReads != 0 {
				t.Errorf("stats %+v\n%s", st, log)
			}
		})
	}
}

// A stranger to the certificate authority is not spoken to.
func TestTLS(t *testing.T) {
	cert, pool := certificate(t)
	b := startBroker(t, "127.0.0.1:0", "correct", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
	k := &kafka{}
	cfg := config(b.addr, whole(t, k))
	cfg.Servers = []string{"mqtts://" + b.addr}
	cfg.Username, cfg.Password = "vigie", "correct"
	s, stop := run(t, cfg)
	streamtest.Eventually(t, patience, "a refusal", func() bool { return s.Stats().ConnectErrors > 0 })
	stop()
	if s.Stats().Connects > 0 {
		t.Error("connected to a broker that nobody vouches for")
	}
	cfg.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	subscribed(t, b, cfg)
	b.publish(t, onvifTopic, sample(t, "onvif-event.json"))
	b.wantAcked(t, 1)
	if len(k.reads()) != 1 {
		t.Errorf("published %q", k.reads())
	}
}

// certificate is one for 127.0.0.1, and what vouches for it.
func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	what := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, what, what, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// What a message costs on its way through broker, client and gateway.
func BenchmarkMessages(b *testing.B) {
	br := startBroker(b, "127.0.0.1:0", "", nil)
	k := &taker{}
	s, stop := subscribed(b, br, config(br.addr, k))
	defer stop()
	body := sample(b, "onvif-event.json")
	n := uint64(0)
	for b.Loop() {
		br.publish(b, fmt.Sprintf("s%d/onvif-ej/RuleEngine/Recognition/LicensePlate/1", n%64), body)
		if n++; n%32 == 0 { // within the receive maximum
			streamtest.Eventually(b, patience, "the messages", func() bool { return s.Stats().Stored == n && br.count(&br.acked) == int(n) })
		}
	}
}

var _ mqtt.Ingester = (*ingest.Ingester)(nil)
