// Package mqtt takes in the messages that sensors publish through an MQTT 5 broker: ONVIF Profile M
// cameras, Frigate, and what else package ingest can read.
//
// A message is acknowledged only when its reads are stored, or when it cannot be read at all and
// would come again for ever. The broker keeps the others, also while this process is away, and
// sends them again: at least once, and what comes twice is told by its ids. The package
// publishes nothing.
package mqtt

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vigie/sensors/format"
	"vigie/sensors/ingest"
)

// Ingester takes messages in; *ingest.Ingester is one.
type Ingester interface {
	// Ingest returns nil once the reads of m are stored, ingest.ErrFormat or ErrMessage when
	// sending m again is of no use, and any other error when it must come again.
	Ingest(ctx context.Context, m ingest.Message) (ingest.Result, error)
}

// Config configures New.
type Config struct {
	// Servers are the addresses of the broker, tried in turn: mqtt://host:1883,
	// mqtts://host:8883, ws:// or wss://. At least one is required.
	Servers []string
	// ClientID names the session, in which the broker keeps messages while we are away. It is
	// required, stays the same from start to start, and is no other client's.
	ClientID string
	Username string // empty for none
	Password string
	TLS      *tls.Config // for mqtts and wss; TLS 1.2 or newer and the roots of the system when nil
	// Topics are the filters subscribed to, DefaultTopics when empty. Gateways that share the
	// work prefix them with $share/ and the name of their group. A filter that is left out later
	// stays subscribed for as long as the session lasts.
	Topics []string
	// Sensor returns the sensor that alone may publish to a topic, empty when the message names
	// its sensor; SensorOfTopic when nil. It is for the broker to see to it that no other can.
	Sensor func(topic string) string
	Ingest Ingester    // required
	Log    *zap.Logger // nothing is logged when nil

	// SessionExpiry is for how long the broker keeps messages while we are away, if it is
	// willing to; 24 h when 0.
	SessionExpiry time.Duration
	KeepAlive     time.Duration // 30 s when 0; an hour at most
	// ReceiveMaximum is how many messages the broker sends ahead of our acknowledgements; 64
	// when 0, and as many published at QoS 0 may wait. With MaxMessage, the largest message in
	// bytes, 1 MiB when 0, it bounds memory. The broker drops larger ones.
	ReceiveMaximum uint16
	MaxMessage     uint32
	// Workers is how many messages are stored at a time; 16 when 0. Those of one sensor are
	// stored one after the other, in their order; where the topic does not tell the sensor,
	// those of all topics with the same first level, since Frigate tells of one vehicle in two.
	Workers int
	Timeout time.Duration // of one attempt to store a message; 30 s when 0
	Drain   time.Duration // for the messages in hand when Run is told to stop; 5 s when 0
}

// DefaultTopics returns the topics of ONVIF Profile M, with a prefix of one level and without one,
// and those of Frigate.
func DefaultTopics() []string {
	return []string{
		"+/onvif-ej/RuleEngine/Recognition/LicensePlate/#", "onvif-ej/RuleEngine/Recognition/LicensePlate/#",
		"+/onvif-mj/#", "onvif-mj/#",
		"frigate/events", "frigate/tracked_object_update",
	}
}

// SensorOfTopic is that of package format, which names the sensor of a message in the same way.
func SensorOfTopic(topic string) string { return format.SensorOfTopic(topic) }

const (
	// acksEvery is how often acknowledgements are sent; ReceiveMaximum messages may come in
	// between.
	acksEvery = 5 * time.Millisecond
	// Waits grow from the first to the second: between attempts to store a message, and to
	// connect.
	storeAgain, storeAgainMax     = 100 * time.Millisecond, 10 * time.Second
	connectAgain, connectAgainMax = 250 * time.Millisecond, 30 * time.Second
	// shortLife is that of a connection which ends as if it had not come about: when two
	// clients have the same id the broker lets each in and throws the other out.
	shortLife = 10 * time.Second
)

// Subscriber takes messages from a broker. Run may be called once.
type Subscriber struct {
	cfg     Config
	servers []*url.URL
	log     *zap.Logger // sampled
	lanes   []lane

	queued     atomic.Int64  // messages in lanes
	connection atomic.Uint64 // counts up when one is lost
	connected  atomic.Bool

	connects, connectErrors, sessionsLost, subscribeErrors      atomic.Uint64
	received, stored, unusable, failed, again, dropped, refused atomic.Uint64

	since time.Time // begin of the connection; used by autopaho's goroutine alone
	short int       // connections of a short life in a row; likewise
}

// Stats are counts of a Subscriber since it was made.
type Stats struct {
	Connected     bool
	Connects      uint64
	ConnectErrors uint64 // attempts that failed: away, wrong password, no right
	// SessionsLost counts connections to a broker that had forgotten us: what was published
	// while we were away is lost.
	SessionsLost    uint64
	SubscribeErrors uint64 // attempts that failed, mostly for want of a right
	Received        uint64 // messages
	Stored          uint64 // and acknowledged, with those that told nothing new or nothing at all
	Unusable        uint64 // acknowledged although they cannot be read
	RejectedReads   uint64 // of stored messages
	Failed          uint64 // attempts to store that failed
	Again           uint64 // messages that the broker sends again since the connection was lost
	Dropped         uint64 // messages published at QoS 0 for which there was no room
	Queued          int64  // messages that wait now
}

// Stats returns the counts so far.
func (s *Subscriber) Stats() Stats {
	return Stats{
		Connected: s.connected.Load(), Connects: s.connects.Load(), ConnectErrors: s.connectErrors.Load(),
		SessionsLost: s.sessionsLost.Load(), SubscribeErrors: s.subscribeErrors.Load(), Received: s.received.Load(),
		Stored: s.stored.Load(), Unusable: s.unusable.Load(), RejectedReads: s.refused.Load(), Failed: s.failed.Load(),
		Again: s.again.Load(), Dropped: s.dropped.Load(), Queued: s.queued.Load(),
	}
}

// New returns a Subscriber, or an error that names what cfg lacks. It does not connect.
func New(cfg Config) (*Subscriber, error) {
	switch {
	case cfg.Ingest == nil:
		return nil, errors.New("mqtt: Config.Ingest is required")
	case len(cfg.Servers) == 0:
		return nil, errors.New("mqtt: Config.Servers is required")
	case cfg.ClientID == "":
		return nil, errors.New("mqtt: Config.ClientID is required")
	case cfg.SessionExpiry < 0, cfg.KeepAlive < 0, cfg.Timeout < 0, cfg.Drain < 0, cfg.Workers < 0:
		return nil, errors.New("mqtt: durations and Workers must not be negative")
	case cfg.KeepAlive > time.Hour:
		return nil, errors.New("mqtt: Config.KeepAlive must be an hour at most")
	}
	if len(cfg.Topics) == 0 {
		cfg.Topics = DefaultTopics()
	}
	for i, topic := range cfg.Topics {
		if !validFilter(topic) {
			return nil, fmt.Errorf("mqtt: Config.Topics[%d]: # must be the last level, + a level of its own, and none be missing", i)
		}
	}
	if cfg.Sensor == nil {
		cfg.Sensor = SensorOfTopic
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.TLS == nil {
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	cfg.SessionExpiry = cmp.Or(cfg.SessionExpiry, 24*time.Hour)
	cfg.KeepAlive = max(cmp.Or(cfg.KeepAlive, 30*time.Second), time.Second)
	cfg.ReceiveMaximum = cmp.Or(cfg.ReceiveMaximum, 64)
	cfg.MaxMessage = cmp.Or(cfg.MaxMessage, 1<<20)
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	cfg.Drain = cmp.Or(cfg.Drain, 5*time.Second)
	s := &Subscriber{cfg: cfg, lanes: make([]lane, cmp.Or(cfg.Workers, 16))}
	for i := range s.lanes {
		s.lanes[i].wake = make(chan struct{}, 1)
	}
	s.log = cfg.Log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, 10*time.Second, 3, 0)
	}))
	for i, server := range cfg.Servers {
		u, err := url.Parse(server)
		switch {
		case err != nil: // which quotes the address
			return nil, fmt.Errorf("mqtt: Config.Servers[%d] is no address such as mqtts://host:8883", i)
		case u.User != nil: // it would be logged
			return nil, fmt.Errorf("mqtt: Config.Servers[%d]: user and password belong into Username and Password", i)
		case !slices.Contains([]string{"mqtt", "mqtts", "ws", "wss"}, u.Scheme) || u.Host == "":
			return nil, fmt.Errorf("mqtt: Config.Servers[%d] must be mqtt, mqtts, ws or wss:// and a host", i)
		}
		s.servers = append(s.servers, u)
	}
	return s, nil
}

// validFilter reports whether a broker would take the filter.
func validFilter(filter string) bool {
	levels := strings.Split(filter, "/")
	for i, l := range levels {
		if strings.Contains(l, "#") && (l != "#" || i < len(levels)-1) || strings.Contains(l, "+") && l != "+" {
			return false
		}
	}
	return filter != "" && len(filter) <= math.MaxUint16 && !strings.Contains(filter, "\x00")
}

// Run takes messages until ctx ends. Then it finishes those in hand, leaves the others to the
// broker, and returns nil. A broker that is away or refuses us is tried again for ever.
func (s *Subscriber) Run(ctx context.Context) error {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var work, subscribing sync.WaitGroup
	cm, err := autopaho.NewConnection(life, s.client(life, &subscribing))
	if err != nil {
		return fmt.Errorf("mqtt: %w", err)
	}
	for i := range s.lanes {
		work.Go(func() { s.work(ctx, life, &s.lanes[i]) })
	}
	<-ctx.Done()
	drain := time.AfterFunc(s.cfg.Drain, stop)
	defer drain.Stop()
	work.Wait()
	select { // acknowledgements are on their way
	case <-time.After(3 * acksEvery):
	case <-life.Done():
	}
	stop()
	<-cm.Done()
	subscribing.Wait()
	s.connected.Store(false)
	return nil
}

// client is what autopaho needs to know. Its callbacks come from one goroutine, none while a
// message is being handed on.
func (s *Subscriber) client(life context.Context, subscribing *sync.WaitGroup) autopaho.ClientConfig {
	expiry := uint32(min(s.cfg.SessionExpiry/time.Second, math.MaxUint32-1)) // the largest means for ever
	return autopaho.ClientConfig{
		ServerUrls: s.servers, TlsCfg: s.cfg.TLS, KeepAlive: uint16(s.cfg.KeepAlive / time.Second),
		ConnectUsername: s.cfg.Username, ConnectPassword: []byte(s.cfg.Password),
		SessionExpiryInterval: expiry,
		ReconnectBackoff:      func(n int) time.Duration { return backoff(n+s.short, connectAgain, connectAgainMax) },
		ConnectPacketBuilder: func(c *paho.Connect, _ *url.URL) (*paho.Connect, error) {
			c.Properties.ReceiveMaximum, c.Properties.MaximumPacketSize = &s.cfg.ReceiveMaximum, &s.cfg.MaxMessage
			return c, nil
		},
		OnConnectionUp: func(cm *autopaho.ConnectionManager, ack *paho.Connack) {
			if s.connects.Add(1) > 1 && !ack.SessionPresent {
				s.sessionsLost.Add(1)
				s.log.Warn("the MQTT broker has forgotten our session: what was published meanwhile is lost")
			}
			s.since = time.Now()
			s.connected.Store(true)
			n := s.connection.Load()
			subscribing.Go(func() { s.subscribe(life, cm, n) })
		},
		OnConnectionDown: func() bool {
			s.connected.Store(false)
			if s.short++; time.Since(s.since) >= shortLife {
				s.short = 0
			}
			s.connection.Add(1)
			s.forget()
			return true
		},
		OnConnectError: func(err error) {
			s.connectErrors.Add(1)
			s.log.Warn("cannot connect to the MQTT broker", zap.Error(err))
		},
		ClientConfig: paho.ClientConfig{
			ClientID: s.cfg.ClientID, EnableManualAcknowledgment: true, SendAcksInterval: acksEvery,
			OnClientError: func(err error) { s.log.Warn("the connection to the MQTT broker is lost", zap.Error(err)) },
			OnServerDisconnect: func(d *paho.Disconnect) {
				s.log.Warn("the MQTT broker has ended the connection", zap.Uint8("reason", d.ReasonCode))
			},
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){s.receive},
		},
	}
}

// backoff is how long to wait before attempt n, from 0: from first on, doubled up to most, less up
// to a half by chance.
func backoff(n int, first, most time.Duration) time.Duration {
	d := most
	if n < 16 {
		d = min(first<<n, most)
	}
	return d - rand.N(d/2)
}

// subscribe subscribes to all topics, and tries again as long as connection n lasts.
func (s *Subscriber) subscribe(life context.Context, cm *autopaho.ConnectionManager, n uint64) {
	var sub paho.Subscribe
	for _, topic := range s.cfg.Topics {
		// What a broker retains is sent for a new subscription only: it has come before.
		sub.Subscriptions = append(sub.Subscriptions, paho.SubscribeOptions{Topic: topic, QoS: 1, RetainHandling: 1})
	}
	for try := 0; life.Err() == nil && s.connection.Load() == n; try++ {
		_, err := cm.Subscribe(life, &sub)
		if err == nil || life.Err() != nil || s.connection.Load() != n {
			return
		}
		s.subscribeErrors.Add(1)
		s.log.Error("the MQTT broker refuses a subscription", zap.Strings("topics", s.cfg.Topics), zap.Error(err))
		if !sleep(life, backoff(try, connectAgain, connectAgainMax)) {
			return
		}
	}
}

// sleep waits and reports whether ctx has lasted.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// item is a message in a lane.
type item struct {
	client     *paho.Client // that wants the acknowledgement
	packet     *paho.Publish
	connection uint64 // that it came by
}

// lane holds the messages of some sensors, in their order.
type lane struct {
	mu    sync.Mutex
	items []item
	wake  chan struct{} // has one element when there may be items
}

// receive puts a message into its lane. It never waits: as long as it did, a lost connection could
// not be replaced. At QoS 1 the broker sends no more than Config.ReceiveMaximum ahead, and to leave
// one of these out would hold up the acknowledgements of all after it.
func (s *Subscriber) receive(p paho.PublishReceived) (bool, error) {
	s.received.Add(1)
	if p.Packet.QoS == 0 && s.queued.Load() >= int64(s.cfg.ReceiveMaximum) {
		s.dropped.Add(1)
		s.log.Warn("no room for an MQTT message: publish at QoS 1, which waits", zap.String("topic", p.Packet.Topic))
		return true, nil
	}
	group := s.cfg.Sensor(p.Packet.Topic)
	if group == "" {
		group, _, _ = strings.Cut(p.Packet.Topic, "/")
	}
	h := fnv.New32a()
	h.Write([]byte(group))
	l := &s.lanes[h.Sum32()%uint32(len(s.lanes))]
	l.mu.Lock()
	l.items = append(l.items, item{client: p.Client, packet: p.Packet, connection: s.connection.Load()})
	s.queued.Add(1)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true, nil
}

// forget leaves to the broker what it will send again.
func (s *Subscriber) forget() {
	for i := range s.lanes {
		l := &s.lanes[i]
		l.mu.Lock()
		n := len(l.items)
		l.items = slices.DeleteFunc(l.items, func(it item) bool { return it.packet.QoS > 0 })
		n -= len(l.items)
		l.mu.Unlock()
		s.queued.Add(int64(-n))
		s.again.Add(uint64(n))
	}
}

// next returns the next message of a lane once there is one, and false when ctx ends.
func (s *Subscriber) next(ctx context.Context, l *lane) (it item, ok bool) {
	for ctx.Err() == nil {
		l.mu.Lock()
		if len(l.items) > 0 {
			it = l.items[0]
			l.items = slices.Delete(l.items, 0, 1)
			s.queued.Add(-1)
			l.mu.Unlock()
			return it, true
		}
		l.mu.Unlock()
		select {
		case <-l.wake:
		case <-ctx.Done():
		}
	}
	return it, false
}

// work stores the messages of a lane, one after the other, until ctx ends.
func (s *Subscriber) work(ctx, life context.Context, l *lane) {
	for {
		it, ok := s.next(ctx, l)
		if !ok {
			return
		}
		s.store(ctx, life, it)
	}
}

// store stores a message and acknowledges it. It tries until it is done, ctx ends, or the broker
// is going to send the message again.
func (s *Subscriber) store(ctx, life context.Context, it item) {
	topic := it.packet.Topic
	m := ingest.Message{Topic: topic, Body: it.packet.Payload, Sensor: s.cfg.Sensor(topic)}
	if p := it.packet.Properties; p != nil {
		m.ContentType = p.ContentType
	}
	for try := 0; ; try++ {
		if it.packet.QoS > 0 && it.connection != s.connection.Load() {
			s.again.Add(1)
			return
		}
		one, cancel := context.WithTimeout(life, s.cfg.Timeout)
		res, err := s.cfg.Ingest.Ingest(one, m)
		cancel()
		switch {
		case err == nil:
			s.stored.Add(1)
			s.refused.Add(uint64(len(res.Rejected)))
			s.acknowledge(it)
			return
		case errors.Is(err, ingest.ErrMessage), errors.Is(err, ingest.ErrFormat):
			s.unusable.Add(1)
			s.log.Warn("an MQTT message cannot be read and is passed over", zap.String("topic", topic),
				zap.Int("bytes", len(m.Body)), zap.Error(err))
			s.acknowledge(it)
			return
		}
		s.failed.Add(1)
		s.log.Error("an MQTT message cannot be stored; it is tried again", zap.String("topic", topic), zap.Error(err))
		if !sleep(ctx, backoff(try, storeAgain, storeAgainMax)) {
			return
		}
	}
}

// acknowledge tells the broker that it may forget a message.
func (s *Subscriber) acknowledge(it item) {
	if err := it.client.Ack(it.packet); err != nil { // the connection is lost, and the message comes again
		s.again.Add(1)
	}
}
