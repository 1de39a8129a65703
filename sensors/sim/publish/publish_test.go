package publish_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/goleak"

	"vigie/sensors/sim/publish"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hook asks for a password, lets nobody publish below closed, and keeps what is published.
type hook struct {
	mochi.HookBase
	mu  sync.Mutex
	got []string
}

func (*hook) Provides(b byte) bool {
	return bytes.Contains([]byte{mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnPublished}, []byte{b})
}

func (*hook) OnConnectAuthenticate(_ *mochi.Client, pk packets.Packet) bool {
	return string(pk.Connect.Username) == "camera" && string(pk.Connect.Password) == "secret"
}

func (*hook) OnACLCheck(_ *mochi.Client, topic string, _ bool) bool {
	return !strings.HasPrefix(topic, "closed")
}

func (h *hook) OnPublished(_ *mochi.Client, pk packets.Packet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, pk.TopicName+" "+pk.Properties.ContentType+" "+string(pk.Payload))
}

// start starts a broker on an address, of which the port may be 0.
func start(t *testing.T, addr string, h *hook) (stop func(), to *url.URL) {
	t.Helper()
	server := mochi.New(&mochi.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err := server.AddHook(h, nil); err != nil {
		t.Fatal(err)
	}
	listener := listeners.NewTCP(listeners.Config{ID: "t", Address: addr})
	if err := server.AddListener(listener); err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() { server.Close() })
	t.Cleanup(stop)
	return stop, &url.URL{Scheme: "mqtt", Host: listener.Address()}
}

func TestPublish(t *testing.T) {
	h := &hook{}
	stop, to := start(t, "127.0.0.1:0", h)
	b, err := publish.Connect(t.Context(), to, "camera", "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Publish(t.Context(), "a/b", "application/json", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "closed/b", "", []byte("x")); !errors.Is(err, publish.ErrRefused) {
		t.Errorf("a topic that is closed: %v", err)
	}
	h.mu.Lock()
	if len(h.got) != 1 || h.got[0] != "a/b application/json {}" {
		t.Errorf("the broker got %q", h.got)
	}
	h.mu.Unlock()

	stop()
	away, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := b.Publish(away, "a/b", "", []byte("x")); err == nil || errors.Is(err, publish.ErrRefused) {
		t.Errorf("without a broker: %v", err)
	}
	start(t, to.Host, h)
	deadline := time.Now().Add(30 * time.Second)
	for b.Publish(t.Context(), "a/b", "", []byte("back")) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the connection is not made anew")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestConnectFails(t *testing.T) {
	stop, to := start(t, "127.0.0.1:0", &hook{})
	if _, err := publish.Connect(t.Context(), to, "camera", "guess"); err == nil || strings.Contains(err.Error(), "guess") {
		t.Errorf("with a wrong password: %v", err)
	}
	stop()
	if _, err := publish.Connect(t.Context(), to, "camera", "secret"); err == nil {
		t.Error("connected to nobody")
	}
}
