package mqtt_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vigie/sensors"
	"vigie/sensors/ingest"
	"vigie/sensors/mqtt"
	"vigie/stream/streamtest"
)

// Killed between receiving and storing: the message comes again. A client that acknowledges what
// it has received loses it; with this control the test is known to see a loss.
func TestKill(t *testing.T) {
	for _, tt := range []struct {
		kind string
		want []string
	}{
		{"ours", []string{"first", "second"}},
		{"ack first", []string{"second"}},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			b := startBroker(t, "127.0.0.1:0", "", nil)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), victimEnv+"="+tt.kind+"@"+b.addr)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			kill := sync.OnceFunc(func() {
				cmd.Process.Kill()
				cmd.Wait()
			})
			defer kill()
			streamtest.Eventually(t, patience, "the subscription", func() bool { return b.count(&b.subscribed) > 0 })
			b.publish(t, frigateTopic, "first")
			if tt.kind == "ours" {
				streamtest.Eventually(t, patience, "the message to be sent", func() bool { return atomic.LoadInt64(&b.Info.MessagesSent) > 0 })
			} else {
				streamtest.Eventually(t, patience, "the acknowledgement", func() bool { return b.count(&b.acked) > 0 })
			}
			kill()
			if n := b.count(&b.acked); tt.kind == "ours" && n > 0 {
				t.Fatalf("%d messages acknowledged that nobody has stored", n)
			}
			b.publish(t, frigateTopic, "second") // while nobody is there
			k := &taker{}
			run(t, config(b.addr, k))
			streamtest.Eventually(t, patience, "the messages", func() bool { return len(k.of(frigateTopic)) >= len(tt.want) })
			// The broker of these tests does not keep the order of what it sends again.
			if got := slices.Sorted(slices.Values(k.of(frigateTopic))); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			b.wantAcked(t, 2)
		})
	}
}

// As long as a message cannot be stored it is tried again, and none behind it in its topic goes
// before it; those of other topics do.
func TestFailing(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0", "", nil)
	var mu sync.Mutex
	left := 3
	k := &taker{do: func(m ingest.Message) error {
		mu.Lock()
		defer mu.Unlock()
		if string(m.Body) == "0" && m.Topic == frigateTopic && left > 0 {
			left--
			return errors.New("kafka and the spool are away")
		}
		return nil
	}}
	log := &logged{}
	cfg := config(b.addr, k)
	cfg.Log = log.logger()
	s, _ := subscribed(t, b, cfg)
	var want []string
	for i := range 20 {
		b.publish(t, frigateTopic, fmt.Sprint(i))
		b.publish(t, onvifTopic, fmt.Sprint(i))
		want = append(want, fmt.Sprint(i))
	}
	streamtest.Eventually(t, patience, "the messages", func() bool { return len(k.of(frigateTopic)) == 20 && len(k.of(onvifTopic)) == 20 })
	if got := k.of(frigateTopic); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := k.of(onvifTopic); !slices.Equal(got, want) {
		t.Errorf("the other topic: got %v, want %v", got, want)
	}
	k.mu.Lock()
	last := k.got[len(k.got)-1]
	k.mu.Unlock()
	if !strings.HasPrefix(last, frigateTopic) {
		t.Error("the other topic waited for the one that failed")
	}
	b.wantAcked(t, 40)
	if st := s.Stats(); st.Failed != 3 || st.Stored != 40 || st.Received != 40 || st.Queued != 0 || !st.Connected {
		t.Errorf("stats %+v", st)
	}
	if !strings.Contains(log.String(), "cannot be stored") {
		t.Error("the failure is not logged")
	}
}

func TestBadPayload(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0", "", nil)
	k := &taker{do: func(m ingest.Message) error {
		switch string(m.Body) {
		case "GK482TZ":
			return fmt.Errorf("%w: byte 0 is no object", ingest.ErrMessage)
		case "?":
			return ingest.ErrFormat
		}
		return nil
	}}
	log := &logged{}
	cfg := config(b.addr, k)
	cfg.Log = log.logger()
	s, _ := subscribed(t, b, cfg)
	for _, body := range []string{"GK482TZ", "?", "good"} {
		b.publish(t, frigateTopic, body)
	}
	streamtest.Eventually(t, patience, "the good message", func() bool { return len(k.of(frigateTopic)) == 1 })
	b.wantAcked(t, 3)
	if st := s.Stats(); st.Unusable != 2 || st.Stored != 1 || st.Failed != 0 {
		t.Errorf("stats %+v", st)
	}
	if l := log.String(); !strings.Contains(l, "byte 0 is no object") || strings.Contains(l, "GK482TZ") {
		t.Errorf("log: %s", l)
	}
}

// A connection that is cut while messages are in hand: they come again, and are stored once the
// Ingester has done with the first attempt.
func TestCut(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0", "", nil)
	p := streamtest.NewProxy(t, b.addr)
	k := &taker{held: make(chan struct{})}
	cfg := config(p.Addr(), k)
	cfg.Workers = 1
	s, _ := subscribed(t, b, cfg)
	for i := range 5 {
		b.publish(t, frigateTopic, fmt.Sprint(i))
	}
	streamtest.Eventually(t, patience, "the messages", func() bool { return s.Stats().Received == 5 && s.Stats().Queued == 4 })
	p.Cut()
	streamtest.Eventually(t, patience, "another connection", func() bool { return s.Stats().Connects == 2 && s.Stats().Received == 10 })
	if q := s.Stats().Queued; q != 5 {
		t.Errorf("%d messages queued, want 5: those of the lost connection were not forgotten", q)
	}
	k.mu.Lock()
	close(k.held)
	k.held = nil
	k.mu.Unlock()
	b.wantAcked(t, 5)
	seen := map[string]int{}
	for _, body := range k.of(frigateTopic) {
		seen[body]++
	}
	if len(seen) != 5 {
		t.Errorf("stored %v, want five", seen)
	}
	if st := s.Stats(); st.SessionsLost != 0 || st.Again != 5 {
		t.Errorf("stats %+v", st)
	}
}

// A message that cannot be stored when its connection is cut is left to the next connection, and
// not stored once for each.
func TestCutFailing(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0", "", nil)
	p := streamtest.NewProxy(t, b.addr)
	var away atomic.Bool
	away.Store(true)
	k := &taker{do: func(ingest.Message) error {
		if away.Load() {
			return errors.New("kafka and the spool are away")
		}
		return nil
	}}
	s, _ := subscribed(t, b, config(p.Addr(), k))
	b.publish(t, frigateTopic, "0")
	streamtest.Eventually(t, patience, "a failure", func() bool { return s.Stats().Failed > 0 })
	p.Cut()
	streamtest.Eventually(t, patience, "the message by another connection", func() bool { return s.Stats().Received == 2 })
	away.Store(false)
	b.wantAcked(t, 1)
	streamtest.Eventually(t, patience, "the end", func() bool { st := s.Stats(); return st.Queued == 0 && st.Stored+st.Again == 2 })
	if st := s.Stats(); st.Stored != 1 || st.Again != 1 {
		t.Errorf("stats %+v", st)
	}
}

// A broker that has lost its sessions: we subscribe anew and say that messages may be lost.
func TestBrokerRestart(t *testing.T) {
	addr := freePort(t)
	b := startBroker(t, addr, "", nil)
	k := &taker{}
	s, _ := subscribed(t, b, config(addr, k))
	b.publish(t, frigateTopic, "before")
	streamtest.Eventually(t, patience, "the first message", func() bool { return len(k.of(frigateTopic)) == 1 })
	b.stop()
	streamtest.Eventually(t, patience, "the loss of the connection", func() bool { return !s.Stats().Connected })
	b = startBroker(t, addr, "", nil)
	streamtest.Eventually(t, patience, "the subscription", func() bool { return b.count(&b.subscribed) > 0 })
	b.publish(t, frigateTopic, "after")
	streamtest.Eventually(t, patience, "the second message", func() bool { return len(k.of(frigateTopic)) == 2 })
	if st := s.Stats(); st.SessionsLost != 1 || st.Connects != 2 {
		t.Errorf("stats %+v", st)
	}
}

func TestPassword(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0", "correct", nil)
	k := &taker{}
	log := &logged{}
	cfg := config(b.addr, k)
	cfg.Username, cfg.Password, cfg.Log = "vigie", "wrong-one", log.logger()
	s, stop := run(t, cfg)
	streamtest.Eventually(t, patience, "two refusals", func() bool { return s.Stats().ConnectErrors >= 2 })
	if s.Stats().Connects != 0 {
		t.Error("connected with a wrong password")
	}
	stop()
	if l := log.String(); !strings.Contains(l, "cannot connect") || strings.Contains(l, "wrong-one") {
		t.Errorf("log: %s", l)
	}
	cfg.Password = "correct"
	subscribed(t, b, cfg)
	b.publish(t, frigateTopic, "in")
	streamtest.Eventually(t, patience, "the message", func() bool { return len(k.of(frigateTopic)) == 1 })
}

// Told to stop, Run finishes and acknowledges the message in hand and leaves the others.
func TestStop(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0", "", nil)
	k := &taker{held: make(chan struct{})}
	s, stop := subscribed(t, b, config(b.addr, k))
	for i := range 3 {
		b.publish(t, frigateTopic, fmt.Sprint(i))
	}
	streamtest.Eventually(t, patience, "the first message", func() bool { return k.started() == 1 && s.Stats().Received == 3 })
	time.AfterFunc(50*time.Millisecond, func() { close(k.held) })
	stop()
	if got := k.of(frigateTopic); !slices.Equal(got, []string{"0"}) {
		t.Errorf("stored %v, want the one in hand", got)
	}
	b.wantAcked(t, 1)

	again := &taker{}
	run(t, config(b.addr, again))
	streamtest.Eventually(t, patience, "the others", func() bool { return len(again.of(frigateTopic)) == 2 })
}

// A message that hangs is given up after Config.Drain.
func TestStopHung(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0", "", nil)
	k := &taker{held: make(chan struct{})}
	cfg := config(b.addr, k)
	cfg.Drain = 50 * time.Millisecond
	_, stop := subscribed(t, b, cfg)
	b.publish(t, frigateTopic, "0")
	streamtest.Eventually(t, patience, "the message", func() bool { return k.started() == 1 })
	stop()
	if n := b.count(&b.acked); n != 0 {
		t.Errorf("%d messages acknowledged, want none", n)
	}
}

// Messages that the broker does not hold back are dropped beyond the room there is for them.
func TestNoRoom(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0", "", nil)
	k := &taker{held: make(chan struct{})}
	cfg := config(b.addr, k)
	cfg.ReceiveMaximum = 4
	s, _ := subscribed(t, b, cfg)
	for i := range 10 {
		if err := b.Publish(frigateTopic, []byte(fmt.Sprint(i)), false, 0); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			streamtest.Eventually(t, patience, "the first message", func() bool { return k.started() == 1 })
		}
	}
	streamtest.Eventually(t, patience, "the messages", func() bool { return s.Stats().Received == 10 })
	if st := s.Stats(); st.Queued != 4 || st.Dropped != 5 {
		t.Errorf("stats %+v", st)
	}
	b.publish(t, frigateTopic, "at QoS 1") // which has room of its own
	streamtest.Eventually(t, patience, "another message", func() bool { return s.Stats().Queued == 5 })
	close(k.held)
	b.wantAcked(t, 1)
	if st := s.Stats(); st.Queued != 0 || st.Dropped != 5 || st.Stored != 6 {
		t.Errorf("in the end: stats %+v", st)
	}
}

// The broker is told how much it may send.
func TestLimits(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0", "", nil)
	cfg := config(b.addr, &taker{})
	cfg.ReceiveMaximum, cfg.MaxMessage = 4, 5000
	subscribed(t, b, cfg)
	c, ok := b.Clients.Get("vigie-test")
	if !ok {
		t.Fatal("no such client")
	}
	p := c.Properties.Props
	if p.ReceiveMaximum != 4 || p.MaximumPacketSize != 5000 || p.SessionExpiryInterval != 24*3600 || c.Properties.Clean {
		t.Errorf("the broker was told: receive maximum %d, packet size %d, session expiry %d, clean start %t",
			p.ReceiveMaximum, p.MaximumPacketSize, p.SessionExpiryInterval, c.Properties.Clean)
	}
}

func TestSensorOfTopic(t *testing.T) {
	for topic, want := range map[string]string{
		onvifTopic: "A7-118-2", "north/A7/onvif-mj/VideoAnalytics": "north:A7", "north_A7/onvif-ej/x": "north_A7",
		"onvif-ej/RuleEngine": "", frigateTopic: "", "": "", "/onvif-ej": "", "/onvif-ej/": "",
	} {
		if got := mqtt.SensorOfTopic(topic); got != want {
			t.Errorf("SensorOfTopic(%q) = %q, want %q", topic, got, want)
		}
	}
}

// FuzzSensorOfTopic: what a prefix becomes is the id of a sensor, and two prefixes become two.
func FuzzSensorOfTopic(f *testing.F) {
	f.Add("site/cam1", "site_cam1")
	f.Add("site/cam1", "site:cam1")
	f.Add("é", "\xff")
	f.Add(strings.Repeat("x", 65), strings.Repeat("x", 66))
	f.Fuzz(func(t *testing.T, a, b string) {
		idA, idB := mqtt.SensorOfTopic(a+"/onvif-ej/x"), mqtt.SensorOfTopic(b+"/onvif-ej/x")
		if r := (sensors.Read{Sensor: idA, TS: 1, Plate: "AB123CD"}); idA != "" && r.Check() != nil {
			t.Errorf("prefix %q: %q is no id of a sensor", a, idA)
		}
		if strings.Contains(a+b, "/onvif-") { // the prefix ends there
			return
		}
		if idA == idB && a != b {
			t.Errorf("prefixes %q and %q are both %q", a, b, idA)
		}
	})
}

func TestConfig(t *testing.T) {
	good := config("h:1883", &taker{})
	if _, err := mqtt.New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*mqtt.Config){
		"Ingest":     func(c *mqtt.Config) { c.Ingest = nil },
		"Servers":    func(c *mqtt.Config) { c.Servers = nil },
		"ClientID":   func(c *mqtt.Config) { c.ClientID = "" },
		"Servers[0]": func(c *mqtt.Config) { c.Servers = []string{"http://h"} },
		"Username":   func(c *mqtt.Config) { c.Servers = []string{"mqtt://u:secret@h"} },
		"no address": func(c *mqtt.Config) { c.Servers = []string{"mqtt://secret%zz"} },
		"Topics[1]":  func(c *mqtt.Config) { c.Topics = []string{"a/#", "a/#/b"} },
		"Topics[0]":  func(c *mqtt.Config) { c.Topics = []string{"a+/b"} },
		"KeepAlive":  func(c *mqtt.Config) { c.KeepAlive = 2 * time.Hour },
		"negative":   func(c *mqtt.Config) { c.Drain = -1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := mqtt.New(cfg); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
