// Package kafka is Vigie's adapter to Apache Kafka 2.3 or newer: the reads, control, hits and
// dead topics behind the interfaces of packages stream and sensors, and the topics themselves.
// It is the only package that imports kafka-go, and no type of kafka-go leaves it.
//
// kafka-go moves the bytes: connections, TLS, SASL, cluster layout, consumer groups, produce
// and administration. Fetch answers are decoded here, through kafka-go's RawExchanger, because
// its own readers cannot do what plates need: skip transaction markers, refuse a decompression
// bomb before it is unpacked, check the CRC, tell loss by retention from a gap, and walk a
// compacted topic without stalling. Doing so also takes less than half the CPU; see DESIGN.md.
//
// Nothing here logs a plate, puts one in an error or uses one as a key.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/redial"
)

var (
	_ stream.Source      = (*Source)(nil)
	_ stream.Partition   = (*partition)(nil)
	_ stream.ControlLog  = (*ControlLog)(nil)
	_ stream.Journal     = (*Journal)(nil)
	_ stream.DeadLetters = (*DeadLetters)(nil)
	_ sensors.Publisher  = (*Reads)(nil)
)

// DefaultPrefix begins the name of every topic unless Config says otherwise.
const DefaultPrefix = "vigie."

// Config says how to reach a cluster. Brokers is required.
type Config struct {
	// Brokers are addresses to begin with, host:port; the others are learnt from them.
	Brokers []string
	// Prefix begins the name of every topic. Default DefaultPrefix.
	Prefix string
	// ClientID is the name that brokers log and put quotas on. Default "vigie".
	ClientID string
	// TLS encrypts every connection; nil means plain text. Without a ServerName the
	// broker's host name is verified.
	TLS *tls.Config
	// SASL authenticates every connection; nil means no authentication.
	SASL *SASL
	// Timeout bounds connecting to a broker and every write, retries included, when the
	// caller's context does not end sooner. Default 10 s.
	Timeout time.Duration
	// Log receives warnings and errors, sampled where the world can repeat itself.
	// Default: none are written.
	Log *zap.Logger

	// dial opens network connections; tests replace it.
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// SASL names a user of the cluster. It prints without the password.
type SASL struct {
	Mechanism string // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	Username  string
	Password  string `json:"-"`
}

// String returns mechanism and user.
func (s SASL) String() string { return s.Mechanism + " as " + strconv.Quote(s.Username) }

// GoString is String, so that %#v does not print the password either.
func (s SASL) GoString() string { return s.String() }

// Cluster is a Kafka cluster with Vigie's topics. Its methods may be called from several
// goroutines; the parts that it hands out share its connections.
type Cluster struct {
	prefix    string
	brokers   []string
	clientID  string
	timeout   time.Duration
	log       *zap.Logger
	sampled   *zap.Logger // for what can repeat itself: at most three of a kind in ten seconds
	conns     *conns
	redial    *redial.Dialer
	dialer    *kafkago.Dialer
	transport *kafkago.Transport
	client    *kafkago.Client
	tls       *tls.Config
	sasl      sasl.Mechanism

	closed    chan struct{}
	closeOnce sync.Once
}

// names of the topics, after the prefix.
const (
	topicReads   = "reads"
	topicControl = "control"
	topicHits    = "hits"
	topicImages  = "images"
	topicDead    = "dead"
	topicAudit   = "audit"
)

// metadataTTL bounds how long a change of leader stays unnoticed; kafka-go refreshes the
// layout at random intervals below it.
const metadataTTL = 2 * time.Second

// connectTimeout bounds connecting, which kafka-go does also to look for a new leader: at the
// very broker that has stopped, as like as not. It leaves room for a name server that is
// away, for which Go's resolver waits 5 s.
const connectTimeout = 6 * time.Second

var topicPrefix = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,200}$`)

// Open checks the configuration. It does not connect: that happens with the first use, and
// Ping says whether it would work.
func Open(cfg Config) (*Cluster, error) {
	if len(cfg.Brokers) == 0 {
		return nil, errors.New("kafka: Config.Brokers is required: give at least one host:port")
	}
	for _, b := range cfg.Brokers {
		host, port, err := net.SplitHostPort(b)
		if err != nil || host == "" {
			return nil, fmt.Errorf("kafka: broker %q is not host:port, such as kafka1:9092", b)
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, fmt.Errorf("kafka: broker %q: the port is a number from 1 to 65535", b)
		}
	}
	if cfg.Prefix == "" {
		cfg.Prefix = DefaultPrefix
	}
	if !topicPrefix.MatchString(cfg.Prefix) {
		return nil, fmt.Errorf("kafka: prefix %q: use up to 200 of a-z A-Z 0-9 . _ -", cfg.Prefix)
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "vigie"
	}
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("kafka: timeout %v is negative", cfg.Timeout)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.dial == nil {
		cfg.dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	mechanism, err := cfg.SASL.mechanism()
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		prefix:   cfg.Prefix,
		brokers:  append([]string(nil), cfg.Brokers...),
		clientID: cfg.ClientID,
		timeout:  cfg.Timeout,
		log:      cfg.Log,
		sampled: cfg.Log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(core, 10*time.Second, 3, 0)
		})),
		redial: redial.New(cfg.dial),
		tls:    cfg.TLS,
		sasl:   mechanism,
		closed: make(chan struct{}),
	}
	c.conns = newConns(c.redial.DialContext)
	c.dialer = c.newDialer(c.conns)
	c.transport = &kafkago.Transport{
		Dial:        c.conns.DialContext,
		DialTimeout: min(c.timeout, connectTimeout),
		IdleTimeout: time.Minute,
		MetadataTTL: metadataTTL,
		// Without this list kafka-go asks for every topic of the cluster, each second or so.
		MetadataTopics: []string{
			c.topic(topicReads), c.topic(topicControl), c.topic(topicHits),
			c.topic(topicImages), c.topic(topicDead), c.topic(topicAudit),
		},
		ClientID: c.clientID,
		TLS:      c.tls,
		SASL:     c.sasl,
		Context:  c.conns.ctx,
	}
	c.client = &kafkago.Client{Addr: kafkago.TCP(c.brokers...), Transport: c.transport, Timeout: c.timeout}
	return c, nil
}

// mechanism returns what kafka-go needs to authenticate, nil for no SASL.
func (s *SASL) mechanism() (sasl.Mechanism, error) {
	if s == nil {
		return nil, nil
	}
	if s.Username == "" || s.Password == "" {
		return nil, errors.New("kafka: SASL needs a user name and a password")
	}
	switch s.Mechanism {
	case "PLAIN":
		return plain.Mechanism{Username: s.Username, Password: s.Password}, nil
	case "SCRAM-SHA-256":
		return scram.Mechanism(scram.SHA256, s.Username, s.Password)
	case "SCRAM-SHA-512":
		return scram.Mechanism(scram.SHA512, s.Username, s.Password)
	}
	return nil, fmt.Errorf("kafka: SASL mechanism %q: use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", s.Mechanism)
}

// newDialer returns a Dialer with the same TLS, SASL and client id as the Transport, whose
// connections belong to conns. Consumer groups and Ping need one; all else uses the Transport.
func (c *Cluster) newDialer(conns *conns) *kafkago.Dialer {
	return &kafkago.Dialer{
		ClientID:      c.clientID,
		Timeout:       c.timeout,
		DialFunc:      conns.DialContext,
		TLS:           c.tls,
		SASLMechanism: c.sasl,
	}
}

// topic is the full name of a topic.
func (c *Cluster) topic(name string) string { return c.prefix + name }

// Ping connects to a bootstrap broker, authenticates, and then connects to every broker that
// the cluster advertises, since a client must reach them all. The error names each address
// that fails and what to look at.
func (c *Cluster) Ping(ctx context.Context) error {
	var cluster []kafkago.Broker
	var errs []error
	for _, addr := range c.brokers {
		bs, err := c.ask(ctx, addr)
		if err == nil {
			cluster, errs = bs, nil
			break
		}
		errs = append(errs, fmt.Errorf("kafka: broker %s: %w", addr, explainDial(err, c.tls != nil, c.sasl != nil)))
	}
	for _, b := range cluster {
		addr := net.JoinHostPort(b.Host, strconv.Itoa(b.Port))
		if _, err := c.ask(ctx, addr); err != nil {
			errs = append(errs, fmt.Errorf("kafka: broker %d advertises %s, which cannot be used from here "+
				"(see its advertised.listeners): %w", b.ID, addr, explainDial(err, c.tls != nil, c.sasl != nil)))
		}
	}
	return errors.Join(errs...)
}

// ask connects to one broker and returns the brokers that it knows.
func (c *Cluster) ask(ctx context.Context, addr string) ([]kafkago.Broker, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	conn, err := c.dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	bs, err := conn.Brokers()
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return bs, err
}

// Close cuts every connection. Writes still waiting for an answer fail, and whether Kafka has
// them is unknown. It is safe to call again.
func (c *Cluster) Close() error {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.transport.CloseIdleConnections()
		c.conns.cut()
	})
	return nil
}

func (c *Cluster) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// sleep waits for d, or less when ctx ends or the cluster is closed; then it reports false.
func (c *Cluster) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-c.closed:
	}
	return false
}

// backoff is how long to wait before attempt n, from 1 on, at something that failed.
func backoff(n int, longest time.Duration) time.Duration {
	d := 25 * time.Millisecond << min(n-1, 10)
	return min(d, longest)
}

// partitions is the number of partitions of a topic, from the layout that the transport keeps.
func (c *Cluster) partitions(ctx context.Context, topic string) (int, error) {
	res, err := c.client.Metadata(ctx, &kafkago.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return 0, err
	}
	for _, t := range res.Topics {
		if t.Name != topic {
			continue
		}
		if t.Error != nil {
			return 0, t.Error
		}
		if len(t.Partitions) > 0 {
			return len(t.Partitions), nil
		}
	}
	return 0, kafkago.UnknownTopicOrPartition
}

// conns opens the network connections of one owner and can cut them all, so that stopping
// never waits for a broker that does not answer.
type conns struct {
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	ctx    context.Context // ends with cut
	cancel context.CancelFunc

	mu   sync.Mutex
	open map[*conn]struct{} // nil once cut
}

// conn is a connection that its conns knows of until it is closed.
type conn struct {
	net.Conn
	owner *conns
}

func newConns(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *conns {
	ctx, cancel := context.WithCancel(context.Background())
	return &conns{dial: dial, ctx: ctx, cancel: cancel, open: make(map[*conn]struct{})}
}

// DialContext opens a connection, unless the owner has been cut off.
func (cs *conns) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(cs.ctx, cancel)
	defer stop()
	nc, err := cs.dial(ctx, network, addr)
	if cs.ctx.Err() != nil {
		if err == nil {
			nc.Close()
		}
		return nil, net.ErrClosed
	}
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, owner: cs}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		nc.Close()
		return nil, net.ErrClosed
	}
	cs.open[c] = struct{}{}
	return c, nil
}

// cut closes every connection and refuses new ones.
func (cs *conns) cut() {
	cs.cancel()
	cs.mu.Lock()
	open := cs.open
	cs.open = nil
	cs.mu.Unlock()
	for c := range open {
		c.Conn.Close()
	}
}

// Close closes the connection.
func (c *conn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.open, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}
