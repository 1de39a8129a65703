package kafka

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestOpenRefuses(t *testing.T) {
	ok := []string{"kafka1:9092"}
	tests := []struct {
		name string
		cfg  Config
		says string
	}{
		{"no broker", Config{}, "Config.Brokers is required"},
		{"no port", Config{Brokers: []string{"kafka1"}}, "host:port"},
		{"no host", Config{Brokers: []string{":9092"}}, "host:port"},
		{"a port that is none", Config{Brokers: []string{"kafka1:kafka"}}, "1 to 65535"},
		{"prefix", Config{Brokers: ok, Prefix: "vigie/"}, "prefix"},
		{"timeout", Config{Brokers: ok, Timeout: -1}, "negative"},
		{"mechanism", Config{Brokers: ok, SASL: &SASL{Mechanism: "GSSAPI", Username: "u", Password: "p"}}, "SCRAM-SHA-512"},
		{"no password", Config{Brokers: ok, SASL: &SASL{Mechanism: "PLAIN", Username: "u"}}, "password"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want it to say %q", err, tt.says)
			}
		})
	}
}

func TestSASLHidesPassword(t *testing.T) {
	s := SASL{Mechanism: "PLAIN", Username: "vigie", Password: "open sesame"}
	cfg := Config{SASL: &s}
	j, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s", s, s, s, s), fmt.Sprintf("%+v", cfg), string(j)} {
		if strings.Contains(text, "sesame") {
			t.Errorf("the password is in %q", text)
		}
	}
}

// Every part of the adapter authenticates, over TLS too.
func TestSASLAndTLS(t *testing.T) {
	serverTLS, clientTLS := certificate(t)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			opts := []kfake.Opt{kfake.EnableSASL(), kfake.Superuser(mechanism, "ad,m=in", "secret"), kfake.TLS(serverTLS)}
			b := fake(t, opts...)
			b.sasl = &SASL{Mechanism: mechanism, Username: "ad,m=in", Password: "secret"}
			c := open(t, b, Config{TLS: clientTLS})
			if err := c.Ping(t.Context()); err != nil {
				t.Fatalf("Ping: %v", err)
			}
			topics(t, c, TopicsConfig{})
			if err := c.Reads().Publish(t.Context(), someReads(10)); err != nil {
				t.Fatalf("Publish: %v", err)
			}
			got := consumeN(t, c.Source(SourceConfig{}), 10)
			if len(got) != 10 {
				t.Errorf("%d records, want 10", len(got))
			}

			wrong := open(t, b, Config{TLS: clientTLS, SASL: &SASL{Mechanism: mechanism, Username: "ad,m=in", Password: "wrong"}})
			if err := wrong.Ping(t.Context()); err == nil || strings.Contains(err.Error(), "wrong\"") {
				t.Errorf("Ping with a wrong password: %v", err)
			} else if !strings.Contains(err.Error(), b.addr) {
				t.Errorf("Ping with a wrong password: %v, want the address in it", err)
			}
			plain := open(t, b, Config{TLS: clientTLS, SASL: &SASL{Mechanism: "PLAIN", Username: "x", Password: "y"}})
			if err := plain.Ping(t.Context()); err == nil {
				t.Error("Ping as an unknown user: no error")
			}
			bare := open(t, b, Config{Timeout: 2 * time.Second})
			if err := bare.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "TLS") {
				t.Errorf("Ping without TLS: %v, want it to speak of TLS", err)
			}
		})
	}
}

// certificate is one for 127.0.0.1 and the configuration of a client that trusts it.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: pool}
}

func TestPing(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		if err := open(t, b, Config{}).Ping(t.Context()); err != nil {
			t.Errorf("Ping: %v", err)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts, by its backlog, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	tests := []struct{ name, addr, says string }{
		{"nobody listens", nobody, "whether Kafka runs"},
		{"nobody answers", listener.Addr().String(), "no answer in time"},
		{"no such host", "kafka.invalid:9092", "host name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := open(t, backend{addr: tt.addr}, Config{Timeout: 300 * time.Millisecond})
			err := c.Ping(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.addr) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %s and %q", err, tt.addr, tt.says)
			}
		})
	}
	t.Run("one of two is enough", func(t *testing.T) {
		c, err := Open(Config{Brokers: []string{nobody, fake(t).addr}, Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Ping(t.Context()); err != nil {
			t.Errorf("Ping: %v", err)
		}
	})
	t.Run("told to stop", func(t *testing.T) {
		c := open(t, backend{addr: listener.Addr().String()}, Config{})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := c.Ping(ctx); err == nil || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// After Close nothing runs on and every call fails soon. goleak looks at the goroutines.
func TestClose(t *testing.T) {
	c := open(t, fake(t), Config{})
	topics(t, c, TopicsConfig{})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	began := time.Now()
	if err := c.Reads().Publish(t.Context(), someReads(1)); err == nil {
		t.Error("Publish: no error")
	}
	if err := c.ControlLog().Follow(t.Context(), nil); err == nil {
		t.Error("Follow: no error")
	}
	if err := c.Source(SourceConfig{}).Run(t.Context(), nil); err == nil {
		t.Error("Run: no error")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Keys go where Java's producer and other clients put them.
func TestPartitionOf(t *testing.T) {
	p := kgo.StickyKeyPartitioner(nil).ForTopic("")
	for n := 1; n < 300; n += 37 {
		for i := range 200 {
			key := fmt.Appendf(nil, "A7-%d-%d", i, n)
			if got, want := partitionOf(key, n), p.Partition(&kgo.Record{Key: key}, n); got != want {
				t.Fatalf("key %s of %d partitions: %d, want %d", key, n, got, want)
			}
		}
	}
	// org.apache.kafka.common.utils.UtilsTest, testMurmur2: murmur2("21") is -973932308.
	if got, want := partitionOf([]byte("21"), 1000), int((-973932308&0x7fffffff)%1000); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}
