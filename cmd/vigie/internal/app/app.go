// Package app builds the parts of a vigie process, owns every goroutine, and
// closes what it opened in reverse. It is the only package that knows all the
// others; whatever can be decided elsewhere is.
package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"vigie/cmd/vigie/internal/config"
	"vigie/cmd/vigie/internal/console"
	"vigie/cmd/vigie/internal/httpapi"
	"vigie/cmd/vigie/internal/metrics"
	"vigie/sensors/format"
	"vigie/sensors/spool"
	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/embedded"
	"vigie/stream/kafka"
	"vigie/stream/redisqueue"
)

// App is a vigie process that is ready to Run.
type App struct {
	cfg    config.Config
	log    *zap.Logger
	parts  []part
	closes []namedClose

	kafka    *kafka.Cluster
	queues   *redisqueue.Queues
	replica  *stream.Replica // nil when no part of this process needs the lists
	desk     *stream.Desk
	server   *httpapi.Server
	spool    *spool.Spool // nil, like spooling, when reads do not wait on this machine
	spooling *spool.Publisher
	gate     gateState
	secrets  map[string]string
	known    sensorRegistry // nil when no gateway runs here
	embedded bool           // Kafka and Redis run inside this process
}

type part struct {
	name string
	run  func(context.Context) error
}

type namedClose struct {
	name  string
	close func() error
}

// New builds the process that cfg describes and reaches out to Kafka and Redis
// once, so that what is missing is told before anything runs. On an error
// everything opened is closed again.
func New(ctx context.Context, cfg config.Config, log *zap.Logger) (_ *App, err error) {
	a := &App{cfg: cfg, log: log, embedded: cfg.Embedded()}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if a.embedded {
		if err := a.embed(); err != nil {
			return nil, err
		}
	}
	if err := a.connect(ctx); err != nil {
		return nil, err
	}
	if err := a.build(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// embed starts Kafka and Redis inside the process and points cfg at them.
func (a *App) embed() error {
	s, err := embedded.Start(embedded.Config{Dir: a.cfg.Data, Log: a.log.Named("embedded")})
	if err != nil {
		return err
	}
	a.onClose("embedded services", s.Close)
	a.start("embedded services", s.Run)
	a.cfg.Kafka.Brokers = s.KafkaAddrs()
	a.cfg.Kafka.SASL = config.SASL{Mechanism: "PLAIN", Username: s.KafkaUser(), Password: s.KafkaPassword()}
	a.cfg.Redis.Addr, a.cfg.Redis.Password = s.RedisAddr(), s.RedisPassword()
	return nil
}

// Cluster opens the Kafka of a configuration; it makes no request yet.
func Cluster(cfg *config.Config, log *zap.Logger) (*kafka.Cluster, error) {
	tlsConfig, err := loadTLS(cfg.Kafka.TLS, "kafka.tls")
	if err != nil {
		return nil, err
	}
	kc := kafka.Config{Brokers: cfg.Kafka.Brokers, Prefix: cfg.Kafka.Prefix, ClientID: "vigie", TLS: tlsConfig, Log: log.Named("kafka")}
	if s := cfg.Kafka.SASL; s.Mechanism != "" {
		kc.SASL = &kafka.SASL{Mechanism: s.Mechanism, Username: s.Username, Password: s.Password}
	}
	return kafka.Open(kc)
}

// Queues opens the alert queues of a configuration; it makes no request yet.
func Queues(cfg *config.Config, log *zap.Logger) (*redisqueue.Queues, error) {
	tlsConfig, err := loadTLS(cfg.Redis.TLS, "redis.tls")
	if err != nil {
		return nil, err
	}
	return redisqueue.Open(redisqueue.Config{
		Addr: cfg.Redis.Addr, Addrs: cfg.Redis.Sentinels, Master: cfg.Redis.Master,
		Username: cfg.Redis.Username, Password: cfg.Redis.Password, DB: cfg.Redis.DB,
		// Keys carry the prefix of the topics: two installations that share a Redis
		// must share neither queues nor fences.
		Prefix: strings.TrimSuffix(cfg.Kafka.Prefix, ".") + ":",
		TLS:    tlsConfig, SeenTTL: cfg.Redis.SeenTTL, Retention: cfg.Kafka.Topics.HitsRetention, Log: log.Named("redis"),
	})
}

// Topics is what the configuration wants the topics to be.
func Topics(cfg *config.Config) ([]kafka.TopicSpec, error) {
	t := cfg.Kafka.Topics
	specs, err := kafka.Topics(kafka.TopicsConfig{
		Prefix: cfg.Kafka.Prefix, ReadsPartitions: t.ReadsPartitions, Replication: t.Replication,
		ReadsRetention: t.ReadsRetention, HitsRetention: t.HitsRetention, AuditRetention: t.AuditRetention,
	})
	if err != nil {
		return nil, fmt.Errorf("config: kafka.topics: %w", err)
	}
	return specs, nil
}

// Reach asks whether Kafka answers, and says which setting to look at when not.
func Reach(ctx context.Context, c *kafka.Cluster) error {
	if err := c.Ping(ctx); err != nil {
		return fmt.Errorf("%w (setting kafka.brokers, VIGIE_KAFKA_BROKERS)", err)
	}
	return nil
}

func (a *App) connect(ctx context.Context) error {
	patience := 15 * time.Second
	if a.roadside() && a.cfg.Gateway.Spool.Dir != "" {
		patience = 3 * time.Second // sensors wait, and the spool does not need Kafka
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	cluster, err := Cluster(&a.cfg, a.log)
	if err != nil {
		return err
	}
	a.kafka = cluster
	a.onClose("kafka", cluster.Close)
	err = Reach(ctx, cluster)
	if err == nil {
		err = a.topics(ctx)
	}
	if a.roadside() {
		if err != nil && a.cfg.Gateway.Spool.Dir != "" {
			a.log.Warn("Kafka is away or not as it should be: reads go to the spool", zap.Error(err))
			a.gate.err.Store(&err)
			a.start("topics", a.awaitTopics)
			return nil
		}
		return err
	}
	if err != nil {
		return err
	}
	if a.queues, err = Queues(&a.cfg, a.log); err != nil {
		return err
	}
	a.onClose("redis", a.queues.Close)
	if err := a.queues.Ping(ctx); err != nil {
		return fmt.Errorf("%w (setting redis.addr, VIGIE_REDIS_ADDR)", err)
	}
	return nil
}

// gateState is what /readyz says of a gateway beside whether Kafka answers.
type gateState struct {
	err atomic.Pointer[error] // what keeps the topics from being as they should; nil for nothing

	mu      sync.Mutex
	refused uint64 // reads that the spool had no room for
	at      time.Time
}

// fullFor is how long a spool that has refused reads counts as full.
const fullFor = 30 * time.Second

// full returns an error while the spool has refused reads lately, of which it counts refused by now.
func (s *gateState) full(refused uint64, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if refused > s.refused {
		s.refused, s.at = refused, now
	}
	if s.at.IsZero() || now.Sub(s.at) > fullFor {
		return nil
	}
	return spool.ErrFull
}

// awaitTopics looks at the topics until they are as they should be, for a gateway that has started
// without Kafka.
func (a *App) awaitTopics(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if a.kafka.Ping(ctx) != nil {
			continue // it is away, and that is said elsewhere
		}
		err := a.topics(ctx)
		if err == nil {
			a.gate.err.Store(nil)
			return nil
		}
		if ctx.Err() == nil {
			a.gate.err.Store(&err)
			a.log.Error("Kafka answers, but reads of the spool will not get there", zap.Error(err))
		}
	}
}

// roadside reports whether this process takes reads in and does nothing else: it needs neither
// lists nor queues, and with a spool no Kafka for a while.
func (a *App) roadside() bool {
	return !a.cfg.Runs("matcher") && !a.cfg.Runs("operator") && !a.cfg.Runs("patrol")
}

// topics makes the topics of an embedded Kafka and checks those of a real one,
// which belong to its owners.
func (a *App) topics(ctx context.Context) error {
	specs, err := Topics(&a.cfg)
	if err != nil {
		return err
	}
	if a.embedded {
		_, err := a.kafka.ApplyTopics(ctx, specs)
		return err
	}
	problems, err := a.kafka.CheckTopics(ctx, specs)
	if err != nil {
		return err
	}
	errs := make([]error, 0, len(problems))
	for _, p := range problems {
		errs = append(errs, errors.New(p.String()))
	}
	return errors.Join(errs...)
}

// build makes the parts that the target names.
func (a *App) build(ctx context.Context) error {
	serve, err := serverTLS(a.cfg.HTTP.TLS)
	if err != nil {
		return err
	}
	g := a.cfg.Gateway
	hc := httpapi.Config{
		Addr: a.cfg.HTTP.Addr, TLS: serve, Log: a.log.Named("http"),
		Health: a.health, Console: console.Handler(),
		Limits: httpapi.SensorLimits{
			RequestsPerSecond: g.Limits.RequestsPerSecond, ReadsPerSecond: g.Limits.ReadsPerSecond, Burst: g.Limits.Burst,
			MessageBytes: g.Limits.MessageBytes, Memory: g.Limits.MemoryBytes, ReplayWindow: g.ReplayWindow,
		},
	}
	reg := metrics.New()

	// Alerts of an embedded Redis do not survive a restart; the hits topic
	// brings them back before anyone can ask.
	journal := a.kafka.Journal()
	if a.embedded {
		if err := a.restore(ctx, journal); err != nil {
			return err
		}
	}
	if !a.roadside() {
		a.replica = stream.NewReplica(func(err error) {
			a.log.Error("a control record cannot be read; what it was about is not matched any more", zap.Error(err))
		})
		control := a.kafka.ControlLog()
		a.start("control log", func(ctx context.Context) error { return a.replica.Follow(ctx, control) })
		hc.StillWanted = func(c stream.Claim) bool { return a.replica.StillWanted(c, time.Now()) }
		hc.Lists, hc.Fence = a.replica, a.queues.FenceOf
		reg.Replica(a.replica)
		a.start("memory", a.tendMemory)
		if a.cfg.Runs("operator") {
			desk, err := stream.NewDesk(stream.DeskConfig{Log: control, Replica: a.replica, Fencer: a.queues, Formats: format.Names()})
			if err != nil {
				return err
			}
			a.desk, hc.Desk, hc.Registry = desk, desk, desk
			a.start("expiry", a.expire)
		}
	}
	if a.cfg.Runs("gateway") {
		if err := a.gateway(&hc, reg); err != nil {
			return err
		}
	}
	if a.cfg.Runs("matcher") {
		queues, err := stream.NewFailover(stream.FailoverConfig{
			Store: a.queues, Hits: journal, Replica: a.replica, Rewind: a.cfg.Redis.Rewind, Log: a.log.Named("redis"),
		})
		if err != nil {
			return err
		}
		a.start("alert queues", queues.Run)
		reg.Failover(queues)
		source := kafka.SourceConfig{Group: a.cfg.Kafka.Group}
		if m := a.cfg.Matcher; m.Assignment == config.AssignFixed {
			source.Members, source.Ordinal = m.Members, m.Ordinal
		}
		p, err := stream.New(stream.Config{
			Source: a.kafka.Source(source), Replica: a.replica,
			Queues: queues, Journal: journal, Dead: a.kafka.DeadLetters(),
			MaxAge: a.cfg.Matcher.MaxAge, MaxListAge: a.cfg.Matcher.MaxListAge, CommitEvery: a.cfg.Matcher.CommitEvery, Log: a.log.Named("matcher"),
		})
		if err != nil {
			return err
		}
		a.start("matcher", p.Run)
		reg.Processor(p)
	}
	if a.cfg.Runs("patrol") {
		hub := redisqueue.NewHub(a.queues, redisqueue.HubConfig{})
		a.start("alert feed", hub.Run)
		reg.Hub(hub)
		hc.Alerts, hc.Feed = patrolDesk{a.queues, journal}, feed{hub}
	}
	if a.queues != nil {
		reg.Queues(a.queues)
	}
	hc.Metrics = reg.Handler()

	tokens, err := a.tokens()
	if err != nil {
		return err
	}
	hc.Tokens = tokens
	if a.server, err = httpapi.New(hc); err != nil {
		return err
	}
	reg.HTTP(a.server)
	a.onClose("http server", a.server.Close)
	a.start("http server", a.server.Run)
	return nil
}

// restore fills the queues from the hits topic.
func (a *App) restore(ctx context.Context, journal *kafka.Journal) error {
	n := 0
	err := journal.ReadAll(ctx, func(events []*alert.Event) error {
		n += len(events)
		return a.queues.Restore(ctx, events)
	})
	if err != nil {
		return fmt.Errorf("restore the queues from the hits topic: %w", err)
	}
	if n > 0 {
		a.log.Info("queues restored from the hits topic", zap.Int("events", n))
	}
	return nil
}

// tokens loads the tokens file, or makes one random token per role.
func (a *App) tokens() (*httpapi.Tokens, error) {
	if path := a.cfg.HTTP.TokensFile; path != "" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("http.tokens_file: %w", err)
		}
		defer f.Close()
		tokens, err := httpapi.LoadTokens(f)
		if err != nil {
			return nil, fmt.Errorf("http.tokens_file: %s: %w", path, err)
		}
		return tokens, nil
	}
	tokens, secrets := new(httpapi.Tokens), map[string]string{}
	for _, t := range []httpapi.Token{
		{Name: "sensor", Role: httpapi.RoleSensor},
		{Name: "operator", Role: httpapi.RoleOperator},
		{Name: "patrol", Role: httpapi.RolePatrol, Queues: []string{"patrol"}},
		{Name: "discreet", Role: httpapi.RolePatrol, Queues: []string{"discreet"}},
	} {
		secrets[t.Name] = httpapi.NewRandomToken()
		if err := tokens.Add(t, secrets[t.Name]); err != nil {
			return nil, err
		}
	}
	a.secrets = secrets
	return tokens, nil
}

// URL is where the HTTP server listens.
func (a *App) URL() string { return a.server.URL() }

// Secrets are the random tokens of this process by name, nil when a file gave them.
func (a *App) Secrets() map[string]string { return a.secrets }

// Desk is the operators' desk, nil when this process does not run it.
func (a *App) Desk() *stream.Desk { return a.desk }

// Replica is this process's copy of the lists, nil when no part needs it.
func (a *App) Replica() *stream.Replica { return a.replica }

// Run runs every part until ctx ends or one fails, and then closes everything.
func (a *App) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range a.parts {
		g.Go(func() error {
			if err := p.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			return nil
		})
	}
	return errors.Join(g.Wait(), a.Close())
}

// Close closes what was opened, last first. It may be called again.
func (a *App) Close() error {
	var errs []error
	for i := len(a.closes) - 1; i >= 0; i-- {
		if err := a.closes[i].close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", a.closes[i].name, err))
		}
	}
	a.closes = nil
	return errors.Join(errs...)
}

func (a *App) start(name string, run func(context.Context) error) {
	a.parts = append(a.parts, part{name, run})
}

func (a *App) onClose(name string, f func() error) {
	a.closes = append(a.closes, namedClose{name, f})
}

// health says whether this process does its work: it is asked by /readyz.
func (a *App) health(ctx context.Context) httpapi.Health {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	h := httpapi.Health{Ready: true}
	check := func(name string, err error, detail string) {
		c := httpapi.Check{Name: name, OK: err == nil, Detail: detail}
		if err != nil {
			h.Ready, c.Detail = false, err.Error()
		}
		h.Checks = append(h.Checks, c)
	}
	if a.replica != nil {
		var err error
		if !a.replica.CaughtUp() {
			err = fmt.Errorf("%d records behind: nothing is matched against half a list", a.replica.Behind())
		}
		check("control log", err, fmt.Sprintf("version %d", a.replica.Version()))
	}
	kafkaErr, detail := a.kafka.Ping(ctx), ""
	if a.roadside() && a.spool != nil {
		if kafkaErr != nil {
			// Sensors must not be sent away while their reads are safe here.
			kafkaErr, detail = nil, "away: reads go to the spool"
		} else if err := a.gate.err.Load(); err != nil {
			kafkaErr = *err // it answers, and reads will not get there
		}
	}
	check("kafka", kafkaErr, detail)
	if a.spool != nil {
		s := a.spool.Stats()
		check("spool", a.gate.full(s.Full, time.Now()), fmt.Sprintf("%d reads wait; Kafka is taken to be away: %v", s.Depth, a.spooling.Stats().Open))
	}
	if a.known != nil {
		detail := "known"
		if !a.known.CaughtUp() {
			detail = "not known yet: every sensor is taken for one of ours"
		}
		check("sensor registry", nil, detail)
	}
	if a.replica != nil {
		check("redis", a.queues.Ping(ctx), "")
	}
	return h
}
