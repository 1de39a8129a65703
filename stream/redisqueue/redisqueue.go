// Package redisqueue keeps the alert queues in Redis: it puts alerts where patrols
// wait for them, steps their state so that the first taker wins, and hands both out
// as they happen. It is the only importer of go-redis.
//
// Every change is one Lua script, atomic in Redis and harmless when repeated; what
// each needs and answers stands above its text in folder lua. They need Redis 7.0 and
// run on miniredis too.
//
// A queue is a stream, so the id of a message is also the id under which a browser
// asks for what it has missed. The keys, with the default prefix:
//
//	vigie:{q:<queue>}:alerts   stream of alerts and updates, as long as Config.Retention
//	vigie:{q:<queue>}:seen     what was put there, so that nothing is put twice
//	vigie:{q:<queue>}:fence    version below which the queue takes no alert
//	vigie:{a:<alert id>}       state of an alert, as long as Config.Retention
//	vigie:{p:<passage>}        alerts of a passage, for an hour, so that later reads of it can amend them
//	vigie:server               server up to which fail-overs are made good, and when it was seen
//
// Braces keep what a script touches on one node of a cluster. An alert therefore
// takes two scripts on two nodes, the queue first. A crash between them leaves an alert
// without a state; whoever publishes it again or wants to step it makes one.
//
// The least rights that a user of Redis needs:
//
//	ACL SETUSER vigie on >password ~vigie:* +ping +info +client|setname +script|load
//	+evalsha +exists +get +set +time +hgetall +hmget +hset +pexpire +xadd +xrange
//	+xread +xrevrange +xtrim +zadd +zrangebyscore +zrem +zscore
//
// Redis is not the record: queues and states can be rebuilt from the hits topic
// (Restore), and must be when Redis lost them; stream.Failover does so after a fail-over.
package redisqueue

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/zap"

	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/redial"
)

// MaxRetention is the longest that hits may be kept: one month, French Code de la
// sécurité intérieure, article L233-2.
const MaxRetention = 30 * 24 * time.Hour

// Config says where Redis is and how long it keeps what. Either Addr or Addrs is
// required; the zero value of any other field is a good default.
type Config struct {
	// Addr is the one server, host:port.
	Addr string
	// Addrs are nodes of a cluster, or with Master the Sentinels that know it.
	Addrs []string
	// Master is the name under which Sentinels watch the server.
	Master string

	Username string // ACL user; empty is the default user
	Password string
	TLS      *tls.Config // nil: no TLS
	DB       int         // not in a cluster

	// Prefix begins every key. Default "vigie:". No braces.
	Prefix string
	// Retention is how long alerts and their states are kept. Default and
	// greatest value MaxRetention.
	Retention time.Duration
	// SeenTTL is how long a queue remembers by itself that an alert was put
	// there. Default 48 h. An alert of a read older than that is looked up by its
	// state, at the price of one more round trip, so a replay of two weeks is as
	// silent as one of a minute.
	SeenTTL time.Duration

	Log   *zap.Logger  // silent when nil
	Clock stream.Clock // time.Now when nil

	dial redial.Func // shared by all clients of a Queues; tests go without its limit
}

// Queues are the alert queues. Its methods may be called from several goroutines.
type Queues struct {
	cfg  Config
	keys keys
	rdb  redis.UniversalClient

	stored, duplicates, stale, restored, expired atomic.Int64
	steps                                        [8]atomic.Int64 // by alert.Verb
	repeats, conflicts, revived                  atomic.Int64
	revisions                                    [3]atomic.Int64 // by rereads
	unusable, failures, unchecked                atomic.Int64
	refused                                      [len(refusals)]atomic.Int64
	connects                                     atomic.Int64
}

var (
	_ stream.Queues = (*Queues)(nil)
	_ stream.Fencer = (*Queues)(nil)

	_ stream.QueueStore = (*Queues)(nil)
)

// timeouts of one command: a server that answers later than this is away.
const (
	dialTimeout = 2 * time.Second
	ioTimeout   = 3 * time.Second
)

func init() {
	// go-redis writes to stderr beside the errors that it returns to us; they
	// would be said twice, and not in our format.
	redis.SetLogger(silence{})
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// Open checks cfg and returns the queues. It does not connect: Redis may come later,
// and Ping says whether it is there and fit.
func Open(cfg Config) (*Queues, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "vigie:"
	}
	if cfg.Retention == 0 {
		cfg.Retention = MaxRetention
	}
	if cfg.SeenTTL == 0 {
		cfg.SeenTTL = 48 * time.Hour
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	switch {
	case (cfg.Addr == "") == (len(cfg.Addrs) == 0):
		return nil, errors.New("redisqueue: Config needs either Addr or Addrs")
	case cfg.Master != "" && len(cfg.Addrs) == 0:
		return nil, errors.New("redisqueue: Config.Master needs the addresses of the Sentinels in Addrs")
	case strings.ContainsAny(cfg.Prefix, "{}"):
		return nil, errors.New("redisqueue: Config.Prefix must not hold braces")
	case cfg.Retention < time.Millisecond:
		return nil, fmt.Errorf("redisqueue: Config.Retention is %v, want a millisecond or more", cfg.Retention)
	case cfg.Retention > MaxRetention:
		return nil, fmt.Errorf("redisqueue: Config.Retention is %v, but hits may be kept for %v at most (CSI L233-2)",
			cfg.Retention, MaxRetention)
	case cfg.SeenTTL < time.Millisecond:
		return nil, fmt.Errorf("redisqueue: Config.SeenTTL is %v, want a millisecond or more", cfg.SeenTTL)
	}
	if cfg.dial == nil {
		cfg.dial = redial.New(connect.DialContext).DialContext
	}
	q := &Queues{cfg: cfg, keys: keys(cfg.Prefix)}
	q.rdb = cfg.client(0, func(context.Context, *redis.Conn) error {
		q.connects.Add(1)
		return nil
	})
	return q, nil
}

// connect is what go-redis dials with by itself: a dead peer is noticed within a minute.
var connect = net.Dialer{
	Timeout:         dialTimeout,
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3},
}

// connection opens a connection for a client.
func (cfg *Config) connection(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := cfg.dial(ctx, network, addr)
	if err != nil || cfg.TLS == nil {
		return c, err
	}
	settings := cfg.TLS.Clone()
	if settings.ServerName == "" {
		settings.ServerName, _, _ = net.SplitHostPort(addr) // an address it could dial
	}
	secure := tls.Client(c, settings)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = c.Close() // the error that counts is the other
		return nil, err
	}
	return secure, nil
}

// client opens a client of its own. A pool of 0 is the default of go-redis, 10
// connections for each CPU. onConnect, if not nil, is called for each connection.
func (cfg *Config) client(pool int, onConnect func(context.Context, *redis.Conn) error) redis.UniversalClient {
	addrs := cfg.Addrs
	if cfg.Addr != "" {
		addrs = []string{cfg.Addr}
	}
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: addrs, MasterName: cfg.Master, IsClusterMode: len(cfg.Addrs) > 0 && cfg.Master == "",
		Username: cfg.Username, Password: cfg.Password, TLSConfig: cfg.TLS, DB: cfg.DB,
		ClientName:  "vigie",
		Dialer:      cfg.connection,
		OnConnect:   onConnect,
		PoolSize:    pool,
		DialTimeout: dialTimeout, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout,
		ContextTimeoutEnabled: true,
		// A retry below us could run a command twice behind our back, and hides
		// an outage. Callers of this package retry.
		MaxRetries: -1, DialerRetries: 1,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

// Close closes the connections. Calls in flight fail. A Hub has connections of its
// own and ends with its Run.
func (q *Queues) Close() error { return q.rdb.Close() }

// Ping checks that Redis answers and is fit to keep alerts: version 7.0 or newer, and
// a maxmemory-policy of noeviction, since any other lets Redis drop queues silently
// when memory runs out. Its errors say what to do. What a server does not tell, as
// managed ones and miniredis do not, is counted in Stats.Unchecked and taken for good.
// In a cluster it asks one node.
func (q *Queues) Ping(ctx context.Context) error {
	pipe := q.rdb.Pipeline()
	ping := pipe.Ping(ctx)
	server := pipe.Info(ctx, "server")
	memory := pipe.Info(ctx, "memory")
	_, _ = pipe.Exec(ctx) // each command has its own error
	if err := ping.Err(); err != nil {
		q.failures.Add(1)
		return fmt.Errorf("redisqueue: ping: %w", err)
	}
	unchecked := false
	if version := infoField(server.Val(), "redis_version"); version == "" {
		unchecked = true
	} else if major, _, _ := strings.Cut(version, "."); len(major) == 1 && major < "7" {
		return fmt.Errorf("redisqueue: this is Redis %s; 7.0 or newer is needed", version)
	}
	policy := infoField(memory.Val(), "maxmemory_policy")
	if policy == "" {
		if got, err := q.rdb.ConfigGet(ctx, "maxmemory-policy").Result(); err == nil {
			policy = got["maxmemory-policy"]
		}
	}
	switch policy {
	case "noeviction":
	case "":
		unchecked = true
	default:
		return fmt.Errorf("redisqueue: maxmemory-policy is %s, which lets Redis drop alerts when memory runs out; "+
			"run `redis-cli CONFIG SET maxmemory-policy noeviction` and set it in redis.conf", policy)
	}
	if unchecked {
		q.unchecked.Add(1)
	}
	return nil
}

// infoField returns a field of an answer of INFO, or "".
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// Stats is what Queues has done since Open.
type Stats struct {
	Stored     int64                // alerts put into a queue
	Duplicates int64                // alerts that were there before
	Stale      int64                // alerts refused by a fence
	Steps      map[alert.Verb]int64 // steps made
	Repeats    int64                // steps asked for again by the same actor
	Conflicts  int64                // steps refused: too late, or not the owner
	Revived    int64                // states made for alerts whose publisher had died in between
	Corrected  int64                // alerts against which a later read of their passage spoke
	Raised     int64                // of these, alerts for which a still later one spoke again
	Amended    int64                // alerts whose evidence a later read of their passage changed
	Restored   int64                // events put back by Restore
	Expired    int64                // events that Restore left out: past their retention, or their alert is
	Unusable   int64                // events that Restore left out because they make no sense
	Failures   int64                // calls that Redis did not answer, or not well
	Refused    map[string]int64     // of these, calls that Redis refused, by its word in small letters; see refusals
	Unchecked  int64                // Pings that could not learn version or eviction policy
}

// Stats returns the counters. It may be called at any time.
func (q *Queues) Stats() Stats {
	s := Stats{
		Stored: q.stored.Load(), Duplicates: q.duplicates.Load(), Stale: q.stale.Load(),
		Steps:   make(map[alert.Verb]int64),
		Repeats: q.repeats.Load(), Conflicts: q.conflicts.Load(), Revived: q.revived.Load(),
		Restored: q.restored.Load(), Expired: q.expired.Load(), Unusable: q.unusable.Load(),
		Failures: q.failures.Load(), Unchecked: q.unchecked.Load(),
		Corrected: q.revisions[corrected].Load(), Raised: q.revisions[raised].Load(), Amended: q.revisions[amended].Load(),
	}
	for _, v := range alert.Verbs() {
		s.Steps[v] = q.steps[v].Load()
	}
	s.Refused = make(map[string]int64, len(refusals))
	for i, word := range refusals {
		s.Refused[strings.ToLower(word)] = q.refused[i].Load()
	}
	return s
}

// keys makes the names of keys; its value is the prefix.
type keys string

func (k keys) queue(name string) string    { return string(k) + "{q:" + name + "}" }
func (k keys) alerts(queue string) string  { return k.queue(queue) + ":alerts" }
func (k keys) seen(queue string) string    { return k.queue(queue) + ":seen" }
func (k keys) fence(queue string) string   { return k.queue(queue) + ":fence" }
func (k keys) server() string              { return string(k) + "server" }
func (k keys) state(alertID string) string { return string(k) + "{a:" + alertID + "}" }
