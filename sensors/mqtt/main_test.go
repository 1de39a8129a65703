package mqtt_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vigie/sensors/ingest"
	"vigie/sensors/mqtt"
	"vigie/stream/streamtest"
)

func TestMain(m *testing.M) {
	if args := os.Getenv(victimEnv); args != "" {
		victim(args)
	}
	goleak.VerifyTestMain(m)
}

// patience bounds every wait; only a failing test uses it up.
const patience = 20 * time.Second

const (
	onvifTopic   = "A7-118-2/onvif-ej/RuleEngine/Recognition/LicensePlate/&VS_1/LPR_lane2"
	frigateTopic = "frigate/events"
)

// server is a broker in this process.
type server struct {
	*broker.Server
	broker.HookBase
	addr     string
	password string // asked for when not empty

	once sync.Once // for stop

	mu         sync.Mutex
	subscribed int
	acked      int
}

// startBroker starts a broker on addr, of which the port may be 0.
func startBroker(t testing.TB, addr, password string, tlsConfig *tls.Config) *server {
	t.Helper()
	s := &server{password: password}
	s.Server = broker.New(&broker.Options{InlineClient: true, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err := s.AddHook(s, nil); err != nil {
		t.Fatal(err)
	}
	l := listeners.NewTCP(listeners.Config{ID: "t", Address: addr, TLSConfig: tlsConfig})
	streamtest.Eventually(t, patience, "the port of the broker", func() bool { return s.AddListener(l) == nil })
	if err := s.Serve(); err != nil {
		t.Fatal(err)
	}
	s.addr = l.Address()
	t.Cleanup(s.stop)
	return s
}

// stop stops the broker. It throws out clients that have come while it was stopping, for which the
// broker would wait for ever.
func (s *server) stop() {
	s.once.Do(func() {
		done := make(chan struct{})
		go func() {
			s.Close()
			close(done)
		}()
		for again := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-done:
				again.Stop()
				return
			case <-again.C:
				for _, c := range s.Clients.GetAll() {
					if !c.Net.Inline {
						c.Stop(nil)
					}
				}
			}
		}
	})
}

func (s *server) ID() string { return "test" }

func (s *server) Provides(b byte) bool {
	return bytes.Contains([]byte{broker.OnConnectAuthenticate, broker.OnACLCheck, broker.OnSubscribed, broker.OnQosComplete}, []byte{b})
}

func (s *server) OnConnectAuthenticate(_ *broker.Client, pk packets.Packet) bool {
	return s.password == "" || string(pk.Connect.Password) == s.password && string(pk.Connect.Username) == "vigie"
}

func (s *server) OnACLCheck(*broker.Client, string, bool) bool { return true }

func (s *server) OnSubscribed(*broker.Client, packets.Packet, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribed++
}

func (s *server) OnQosComplete(*broker.Client, packets.Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked++
}

func (s *server) count(n *int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *n
}

// wantAcked waits until that many messages were acknowledged, and fails if more are.
func (s *server) wantAcked(t testing.TB, n int) {
	t.Helper()
	streamtest.Eventually(t, patience, fmt.Sprint(n, " acknowledgements"), func() bool { return s.count(&s.acked) >= n })
	if got := s.count(&s.acked); got > n {
		t.Errorf("%d messages acknowledged, want %d", got, n)
	}
}

// publish publishes at QoS 1.
func (s *server) publish(t testing.TB, topic, payload string) {
	t.Helper()
	if err := s.Publish(topic, []byte(payload), false, 1); err != nil {
		t.Fatal(err)
	}
}

// taker is an Ingester that keeps what it gets.
type taker struct {
	mu   sync.Mutex
	got  []string // topic and body
	do   func(m ingest.Message) error
	held chan struct{} // what Ingest waits for unless nil
	runs int
}

func (k *taker) Ingest(ctx context.Context, m ingest.Message) (ingest.Result, error) {
	k.mu.Lock()
	k.runs++
	held, do := k.held, k.do
	k.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return ingest.Result{}, ctx.Err()
		}
	}
	if do != nil {
		if err := do(m); err != nil {
			return ingest.Result{}, err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.got = append(k.got, m.Topic+" "+string(m.Body))
	return ingest.Result{Accepted: 1}, nil
}

// of returns the bodies of a topic.
func (k *taker) of(topic string) (bodies []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, g := range k.got {
		if body, ok := strings.CutPrefix(g, topic+" "); ok {
			bodies = append(bodies, body)
		}
	}
	return bodies
}

func (k *taker) started() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.runs
}

// config is for a broker and an Ingester.
func config(addr string, in mqtt.Ingester) mqtt.Config {
	return mqtt.Config{Servers: []string{"mqtt://" + addr}, ClientID: "vigie-test", Ingest: in}
}

// run runs a Subscriber until the end of the test or a call of stop.
func run(t testing.TB, cfg mqtt.Config) (s *mqtt.Subscriber, stop func()) {
	t.Helper()
	s, err := mqtt.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(stop)
	return s, stop
}

// subscribed runs a Subscriber and waits until it has subscribed.
func subscribed(t testing.TB, b *server, cfg mqtt.Config) (s *mqtt.Subscriber, stop func()) {
	t.Helper()
	before := b.count(&b.subscribed)
	s, stop = run(t, cfg)
	streamtest.Eventually(t, patience, "the subscription", func() bool { return b.count(&b.subscribed) > before })
	return s, stop
}

// logged is a log whose lines a test reads.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) Sync() error { return nil }

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) logger() *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), l, zap.DebugLevel))
}

// victimEnv has "ours" or "ack first" and the address of a broker, for a process that takes one
// message, says so, and never gets to store it.
const victimEnv = "VIGIE_TEST_MQTT_VICTIM"

func victim(args string) {
	kind, addr, _ := strings.Cut(args, "@")
	if kind == "ours" {
		s, err := mqtt.New(config(addr, &taker{held: make(chan struct{})}))
		if err == nil {
			err = s.Run(context.Background())
		}
		fmt.Println(err)
		os.Exit(1)
	}
	// The client of the library as it comes: it acknowledges when it has handed a message on.
	conf := autopaho.ClientConfig{
		ServerUrls: []*url.URL{{Scheme: "mqtt", Host: addr}}, KeepAlive: 30, SessionExpiryInterval: 3600,
		OnConnectionUp: func(cm *autopaho.ConnectionManager, _ *paho.Connack) {
			go cm.Subscribe(context.Background(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: frigateTopic, QoS: 1}}})
		},
		ClientConfig: paho.ClientConfig{
			ClientID:          "vigie-test",
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(paho.PublishReceived) (bool, error) { return true, nil }},
		},
	}
	if _, err := autopaho.NewConnection(context.Background(), conf); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	select {}
}

// freePort is an address that a broker can come back to.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
