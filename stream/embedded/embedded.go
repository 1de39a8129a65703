// Package embedded runs a Kafka broker and a Redis server inside the process, for
// `vigie demo` and for evaluating Vigie on one machine without installing anything. It is
// not a deployment: one broker, no replica, queues that live in memory only.
//
// It listens on loopback addresses and nowhere else, and both services ask for a password
// made anew at each Start, because other users of the machine must not read plates.
//
// The broker is github.com/twmb/franz-go/pkg/kfake and Redis is
// github.com/alicebob/miniredis/v2; both were written for tests. DESIGN.md says what they do
// differently from the real services, and what this package does about it.
package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
)

const (
	// ClusterID is the Kafka cluster id that the embedded broker reports. A program that
	// meets it talks to an evaluation broker and should say so.
	ClusterID = "vigie-embedded"

	kafkaUser = "vigie"

	// tick is how often Run moves the clock of Redis; keys expire up to that much late.
	tick = time.Second
	// retentionEvery is how often Run removes what the topics' retention no longer allows.
	retentionEvery = 10 * time.Second
)

// Config says where the services listen and what they keep. The zero value is a demo: free
// ports, nothing on disk.
type Config struct {
	// Dir keeps topics, records and committed offsets from one start to the next; it is
	// created with mode 0700 and used by one process at a time. What Kafka acknowledged has
	// been written and synced, so it survives a killed process and a power cut. Redis keeps
	// nothing: its queues are rebuilt from the hits topic. Empty means memory only.
	Dir string

	// KafkaAddr and RedisAddr are where to listen, host:port. The host must be a loopback
	// address or localhost; port 0 takes a free one. Default "127.0.0.1:0".
	KafkaAddr string
	RedisAddr string

	// PartitionBytes bounds each partition of a topic that is created without a
	// retention.bytes of its own and is not compacted: the oldest records go first. Default
	// 32 MiB without Dir, 128 MiB with it (after a crash the whole log passes through memory).
	PartitionBytes int64

	// Log receives the warnings of the broker. Default: none are written.
	Log *zap.Logger
}

// Services are a running broker and a running Redis. Its methods may be called from several
// goroutines.
type Services struct {
	log           *zap.Logger
	kafkaAddr     string
	redisAddr     string
	kafkaPassword string
	redisPassword string

	mu     sync.Mutex // held while anything talks to kafka, which blocks for ever once closed
	closed bool
	kafka  *kfake.Cluster
	redis  *miniredis.Miniredis

	kafkaListener *listener
	redisListener *listener
	redisServed   chan struct{} // closed when the accept loop of Redis has ended
	dir           *dataDir      // nil in memory
}

// Start opens both services. On an error nothing is left running. The error says which
// address or folder is taken and names the field of Config to change; errors.Is works on
// the cause (syscall.EADDRINUSE).
func Start(cfg Config) (_ *Services, err error) {
	if cfg.PartitionBytes < 0 {
		return nil, fmt.Errorf("embedded: PartitionBytes is %d, want 0 for the default or more", cfg.PartitionBytes)
	}
	if cfg.PartitionBytes == 0 {
		cfg.PartitionBytes = 32 << 20
		if cfg.Dir != "" {
			cfg.PartitionBytes = 128 << 20
		}
	}
	s := &Services{
		log:           cfg.Log,
		kafkaPassword: rand.Text(),
		redisPassword: rand.Text(),
		redisServed:   make(chan struct{}),
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}

	// Ports first: a port in use is the common mistake and must not cost the loading of a
	// large folder before it shows.
	if s.kafkaListener, err = listen("Kafka", "KafkaAddr", cfg.KafkaAddr, newKafkaGuard); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.kafkaListener.shut())
		}
	}()
	if s.redisListener, err = listen("Redis", "RedisAddr", cfg.RedisAddr, newRedisGuard); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.redisListener.shut())
		}
	}()
	if cfg.Dir != "" {
		if s.dir, err = openDataDir(cfg.Dir); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, s.dir.close())
			}
		}()
	}
	if s.kafka, err = startKafka(s.kafkaListener, s.kafkaPassword, s.dir, cfg.PartitionBytes, s.log); err != nil {
		return nil, err
	}
	if s.redis, err = startRedis(s.redisPassword); err != nil {
		s.kafka.Close()
		return nil, err
	}
	s.kafkaAddr = s.kafkaListener.Addr().String()
	s.redisAddr = s.redisListener.Addr().String()
	go s.serveRedis()
	return s, nil
}

// KafkaAddrs returns the broker's bootstrap addresses, host:port. Clients log in with SASL
// PLAIN, without TLS, as KafkaUser with KafkaPassword.
func (s *Services) KafkaAddrs() []string { return []string{s.kafkaAddr} }

// KafkaUser returns the name to log in to the broker with.
func (s *Services) KafkaUser() string { return kafkaUser }

// KafkaPassword returns the broker's password: random, and another one at each Start.
func (s *Services) KafkaPassword() string { return s.kafkaPassword }

// RedisAddr returns the address of Redis, host:port. Clients log in with RedisPassword, as
// the default user.
func (s *Services) RedisAddr() string { return s.redisAddr }

// RedisPassword returns the password of Redis: random, and another one at each Start.
func (s *Services) RedisPassword() string { return s.redisPassword }

// Run makes time pass: Redis keys expire and topics lose what their retention no longer
// allows only while it runs. It returns nil when ctx ends or after Close, and an error when
// a service can no longer accept connections.
func (s *Services) Run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	last := time.Now()
	trimmed := time.Time{} // at once: a folder may have rested longer than the law allows
	for {
		now := time.Now()
		if !s.pass(now.Sub(last), now.Sub(trimmed) >= retentionEvery) {
			return nil
		}
		if last = now; now.Sub(trimmed) >= retentionEvery {
			trimmed = now
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.redisListener.failed:
			return fmt.Errorf("embedded: Redis stopped accepting connections: %w", err)
		case err := <-s.kafkaListener.failed:
			return fmt.Errorf("embedded: Kafka stopped accepting connections: %w", err)
		case <-ticker.C:
		}
	}
}

// pass lets elapsed go by for the keys of Redis, and trims the topics when trim is set. It
// reports false when the services are closed.
func (s *Services) pass(elapsed time.Duration, trim bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	// miniredis can follow the clock by itself (ClockTTL), but then it walks every key at
	// every command; once a second is enough.
	s.redis.FastForward(elapsed)
	if trim {
		s.kafka.ApplyRetention()
	}
	return true
}

// Close stops both services, closes their connections and waits for them. With Dir it
// writes what makes the next Start fast. Calling it again does nothing.
func (s *Services) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true

	err := s.redisListener.Close()
	<-s.redisServed // or it could hand Redis a connection that nobody closes
	s.redis.Close()
	err = errors.Join(err, s.redisListener.shut())
	s.kafka.Close()
	err = errors.Join(err, s.kafkaListener.shut())
	if s.dir != nil {
		err = errors.Join(err, s.dir.forgetPasswords(), s.dir.close())
	}
	return err
}

// startRedis makes a Redis without a listener of its own: connections reach it through
// serveRedis, which checks them first.
func startRedis(password string) (*miniredis.Miniredis, error) {
	r := miniredis.NewMiniRedis()
	conn, err := r.Dial() // starts the server
	if err != nil {
		return nil, fmt.Errorf("embedded: start Redis: %w", err)
	}
	r.RequireAuth(password)
	return r, conn.Close()
}

// serveRedis hands accepted connections to Redis until the listener ends.
func (s *Services) serveRedis() {
	defer close(s.redisServed)
	server := s.redis.Server()
	for {
		conn, err := s.redisListener.Accept()
		if err != nil {
			return
		}
		server.ServeConn(conn)
	}
}

// listen opens a loopback listener for service on the address in the named field of Config.
func listen(service, field, addr string, guard func(net.Conn) net.Conn) (*listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	refuse := func(why error) error {
		return fmt.Errorf("embedded: %s is %q: %w", field, addr, why)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, refuse(fmt.Errorf("want host:port: %w", err))
	}
	if host == "" {
		return nil, refuse(errNotLoopback)
	}
	// The name is resolved once and the number is what we listen on, so that what was
	// checked is what is used.
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, refuse(err)
	}
	if !tcp.IP.IsLoopback() {
		return nil, refuse(errNotLoopback)
	}
	ln, err := net.ListenTCP("tcp", tcp)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, refuse(fmt.Errorf("%s cannot listen, port %d is used by another program: stop it, or give "+
				"another port (0 takes a free one): %w", service, tcp.Port, syscall.EADDRINUSE))
		}
		if errors.Is(err, fs.ErrPermission) {
			return nil, refuse(fmt.Errorf("%s may not listen on port %d: give a port above 1023: %w", service, tcp.Port, err))
		}
		return nil, refuse(err)
	}
	return newListener(ln, guard), nil
}

var errNotLoopback = errors.New("the embedded services answer on this machine only; " +
	"want a loopback address such as 127.0.0.1:0")
