// Package config reads the settings of vigie: one YAML file, then VIGIE_*
// environment variables, then flags, each over the one before. A key that does
// not exist is an error wherever it comes from, because a misspelt retention or
// token file must not pass unseen.
package config

import (
	"encoding"
	"errors"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"vigie/sensors"
)

// Config is every setting of vigie. The yaml tags are the keys of the file; the
// same path in capitals, VIGIE_KAFKA_BROKERS for kafka.brokers, is the
// environment variable. A tag `secret:"true"` hides the value in print.
type Config struct {
	Target  string  `yaml:"target" help:"parts to run: all, or a list of gateway, matcher, operator, patrol"`
	Data    string  `yaml:"data" help:"folder of the embedded Kafka; empty keeps everything in memory"`
	HTTP    HTTP    `yaml:"http"`
	Kafka   Kafka   `yaml:"kafka"`
	Redis   Redis   `yaml:"redis"`
	Gateway Gateway `yaml:"gateway"`
	Matcher Matcher `yaml:"matcher"`
	Log     Log     `yaml:"log"`
}

// HTTP is the one server of the process.
type HTTP struct {
	Addr       string `yaml:"addr" help:"address to listen on"`
	TokensFile string `yaml:"tokens_file" help:"YAML file of tokens; empty makes random ones, for the embedded mode only"`
	TLS        HTTPS  `yaml:"tls"`
}

// HTTPS encrypts what the server is asked, with TLS 1.3.
type HTTPS struct {
	CertFile string `yaml:"cert_file" help:"PEM file of the server's certificate and those between it and its authority; empty serves plain HTTP"`
	KeyFile  string `yaml:"key_file" help:"PEM file of its key"`
	ClientCA string `yaml:"client_ca" help:"PEM file of the authorities of sensor certificates, which name their sensor as URI vigie:sensor:<id>; empty takes tokens and signatures only"`
}

// Kafka says where the topics are. Without brokers the embedded one is started.
type Kafka struct {
	Brokers []string `yaml:"brokers" help:"host:port of each broker; empty starts the embedded one"`
	Prefix  string   `yaml:"prefix" help:"prefix of every topic name and, with a colon, of every Redis key"`
	Group   string   `yaml:"group" help:"consumer group of the matchers"`
	TLS     TLS      `yaml:"tls"`
	SASL    SASL     `yaml:"sasl"`
	Topics  Topics   `yaml:"topics"`
}

// TLS turns encryption on.
type TLS struct {
	Enabled  bool   `yaml:"enabled" help:"speak TLS"`
	CAFile   string `yaml:"ca_file" help:"PEM file of the authorities to trust; empty trusts the system's"`
	CertFile string `yaml:"cert_file" help:"PEM file of our certificate, for mutual TLS"`
	KeyFile  string `yaml:"key_file" help:"PEM file of our key, for mutual TLS"`
}

// SASL is how to log in to Kafka.
type SASL struct {
	Mechanism string `yaml:"mechanism" help:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty for none"`
	Username  string `yaml:"username" help:"user name"`
	Password  string `yaml:"password" secret:"true" help:"password; better given as VIGIE_KAFKA_SASL_PASSWORD"`
}

// Topics is what `vigie topics apply` makes and `check` compares with.
type Topics struct {
	ReadsPartitions int           `yaml:"reads_partitions" help:"partitions of the reads topic: the most matchers that can share the work"`
	Replication     int           `yaml:"replication" help:"copies of each record; 3 in production"`
	ReadsRetention  time.Duration `yaml:"reads_retention" help:"how long reads are kept; at most 360h (15 days, CSI L233-2)"`
	HitsRetention   time.Duration `yaml:"hits_retention" help:"how long hits are kept; at most 720h (one month, CSI L233-2)"`
	AuditRetention  time.Duration `yaml:"audit_retention" help:"how long the audit trail is kept"`
}

// Redis says where the alert queues are. Without an address the embedded one is started.
type Redis struct {
	Addr      string        `yaml:"addr" help:"host:port; empty starts the embedded one"`
	Sentinels []string      `yaml:"sentinels" help:"host:port of each Sentinel that knows the server, in place of addr"`
	Master    string        `yaml:"master" help:"name of the server among the Sentinels"`
	Username  string        `yaml:"username" help:"ACL user"`
	Password  string        `yaml:"password" secret:"true" help:"password; better given as VIGIE_REDIS_PASSWORD"`
	DB        int           `yaml:"db" help:"database number"`
	TLS       TLS           `yaml:"tls"`
	SeenTTL   time.Duration `yaml:"seen_ttl" help:"how long a repeat of an alert is recognised; longer than reads can be replayed"`
	Rewind    time.Duration `yaml:"rewind" help:"how much of what Redis acknowledged before a fail-over or restart is put back from the hits topic; 0 puts nothing back"`
}

// Gateway is how reads come in.
type Gateway struct {
	UnknownSensors sensors.UnknownPolicy `yaml:"unknown_sensors" help:"reads of sensors that are not registered: accept, quarantine or refuse"`
	ReplayWindow   time.Duration         `yaml:"replay_window" help:"how far the time of a signed request may be from ours; a repeat within it is refused"`
	Limits         Limits                `yaml:"limits"`
	Spool          Spool                 `yaml:"spool"`
	MQTT           MQTT                  `yaml:"mqtt"`
}

// Limits bound what one sensor may send, and what all of them may make the process hold.
type Limits struct {
	RequestsPerSecond int   `yaml:"requests_per_second" help:"requests of a caller that speaks for one sensor; -1 for no limit"`
	ReadsPerSecond    int   `yaml:"reads_per_second" help:"reads of a caller that speaks for one sensor; -1 for no limit"`
	Burst             int   `yaml:"burst" help:"reads that may come at once before that counts, for a sensor that was away"`
	MessageBytes      int64 `yaml:"message_bytes" help:"bytes of a vendor's message with its pictures, unpacked"`
	MemoryBytes       int64 `yaml:"memory_bytes" help:"bytes of bodies held at the same time; one caller may have a quarter, which bounds a batch too"`
}

// Spool is where reads wait while Kafka is away.
type Spool struct {
	Dir      string        `yaml:"dir" help:"folder of the spool; empty for none: sensors are asked to come again while Kafka is away"`
	MaxBytes int64         `yaml:"max_bytes" help:"bytes that it may hold; about 140 a read"`
	MaxAge   time.Duration `yaml:"max_age" help:"age from which a read is dropped; at most 360h (15 days, CSI L233-2)"`
	Reserve  int64         `yaml:"reserve" help:"bytes of the disk that it leaves free"`
}

// MQTT is the broker that sensors publish to.
type MQTT struct {
	URL          string   `yaml:"url" help:"broker, such as mqtts://broker:8883; empty for none"`
	Topics       []string `yaml:"topics" help:"topics to subscribe to, with + and #"`
	ClientID     string   `yaml:"client_id" help:"name of our session at the broker; another one for each gateway"`
	User         string   `yaml:"user" help:"user name"`
	PasswordFile string   `yaml:"password_file" help:"file that holds the password"`
	TLS          TLS      `yaml:"tls"`
}

// Matcher is how reads become alerts.
type Matcher struct {
	MaxAge      time.Duration `yaml:"max_age" help:"age of a read from which its alerts are late and ask for no stop"`
	MaxListAge  time.Duration `yaml:"max_list_age" help:"how long nothing may be heard of the control log, not even that there is nothing new, before reads wait; raise it where Kafka takes long to answer"`
	CommitEvery time.Duration `yaml:"commit_every" help:"how long finished reads stay uncommitted: what a crash repeats"`
	Assignment  string        `yaml:"assignment" help:"who reads which partition: group, shared out among the matchers that run; fixed, by ordinal, for a StatefulSet"`
	Members     int           `yaml:"members" help:"with fixed: how many matchers there are"`
	Ordinal     int           `yaml:"ordinal" help:"with fixed: number of this matcher, 0 to members-1; it reads the partitions whose number leaves it when divided by members"`
}

// Values of Matcher.Assignment.
const (
	AssignGroup = "group"
	AssignFixed = "fixed"
)

// Log is the process's own log, JSON lines on stderr.
type Log struct {
	Level string `yaml:"level" help:"debug, info, warn or error"`
}

// maxReadAge is the legal maximum of a read without a hit: CSI L233-2.
const maxReadAge = 15 * 24 * time.Hour

// Default returns the settings that hold where nothing else is said.
func Default() Config {
	return Config{
		Target: "all",
		HTTP:   HTTP{Addr: "127.0.0.1:8080"},
		Kafka: Kafka{
			Prefix: "vigie.", Group: "vigie-matcher",
			Topics: Topics{ReadsPartitions: 8, Replication: 1, ReadsRetention: 72 * time.Hour, HitsRetention: 720 * time.Hour, AuditRetention: 3 * 365 * 24 * time.Hour},
		},
		Redis: Redis{SeenTTL: 96 * time.Hour, Rewind: 30 * time.Second},
		Gateway: Gateway{
			ReplayWindow: time.Minute,
			Limits:       Limits{RequestsPerSecond: 500, ReadsPerSecond: 2000, Burst: 10_000, MessageBytes: 8 << 20, MemoryBytes: 128 << 20},
			Spool:        Spool{MaxBytes: 4 << 30, MaxAge: maxReadAge, Reserve: 1 << 20},
			MQTT:         MQTT{ClientID: "vigie-gateway"},
		},
		Matcher: Matcher{MaxAge: 10 * time.Minute, MaxListAge: time.Second, CommitEvery: 200 * time.Millisecond, Assignment: AssignGroup, Ordinal: -1},
		Log:     Log{Level: "info"},
	}
}

// Embedded reports whether Kafka or Redis of this configuration run inside the process.
func (c *Config) Embedded() bool { return len(c.Kafka.Brokers) == 0 || !c.Redis.given() }

// given reports whether a Redis is named.
func (r *Redis) given() bool { return r.Addr != "" || len(r.Sentinels) > 0 }

// Targets are the parts that Config.Target may name.
var Targets = []string{"gateway", "matcher", "operator", "patrol"}

// Runs reports whether the configuration runs a part.
func (c *Config) Runs(part string) bool {
	return c.Target == "all" || slices.Contains(strings.Split(c.Target, ","), part)
}

// notSettings are VIGIE_* variables that other commands read.
var notSettings = []string{"VIGIE_TOKEN", "VIGIE_SERVER", "VIGIE_CONFIG"}

// Load reads the file at path (none when empty), then the VIGIE_* variables of
// env (as os.Environ gives them), then set: settings by path, such as
// "kafka.prefix". All problems of the values are reported at once.
func Load(path string, env []string, set map[string]string) (Config, error) {
	c := Default()
	if path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return c, fmt.Errorf("config: %w", err)
		}
		if err := yaml.UnmarshalWithOptions(data, &c, yaml.Strict()); err != nil {
			return c, fmt.Errorf("config: %s: %s", path, yaml.FormatError(err, false, false))
		}
	}
	leaves := c.leaves()
	var errs []error
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "VIGIE_") || strings.HasPrefix(name, "VIGIE_TEST_") || slices.Contains(notSettings, name) {
			continue
		}
		i := slices.IndexFunc(leaves, func(l leaf) bool { return l.env() == name })
		if i < 0 {
			errs = append(errs, fmt.Errorf("environment: %s is not a setting; `vigie config print` lists them", name))
		} else if err := leaves[i].set(value); err != nil {
			errs = append(errs, fmt.Errorf("environment: %s: %w", name, err))
		}
	}
	for key, value := range set {
		i := slices.IndexFunc(leaves, func(l leaf) bool { return l.path == key })
		if i < 0 {
			errs = append(errs, fmt.Errorf("--set %s: no such setting; `vigie config print` lists them", key))
		} else if err := leaves[i].set(value); err != nil {
			errs = append(errs, fmt.Errorf("--set %s: %w", key, err))
		}
	}
	errs = append(errs, c.validate()...)
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("config: %w", err)
	}
	return c, nil
}

func (c *Config) validate() (errs []error) {
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.Target != "all" {
		for _, t := range strings.Split(c.Target, ",") {
			if !slices.Contains(Targets, t) {
				bad("target", "%q is not a part; say all, or some of %s with commas", t, strings.Join(Targets, ", "))
			}
		}
	}
	if c.HTTP.Addr == "" {
		bad("http.addr", "is empty; say host:port")
	}
	if c.Kafka.Topics.ReadsPartitions < 1 {
		bad("kafka.topics.reads_partitions", "is %d, must be at least 1", c.Kafka.Topics.ReadsPartitions)
	}
	if c.Kafka.Topics.Replication < 1 {
		bad("kafka.topics.replication", "is %d, must be at least 1", c.Kafka.Topics.Replication)
	}
	if c.Redis.SeenTTL < c.Kafka.Topics.ReadsRetention {
		bad("redis.seen_ttl", "is %v, less than kafka.topics.reads_retention (%v): a replay would alert twice", c.Redis.SeenTTL, c.Kafka.Topics.ReadsRetention)
	}
	if c.Redis.Addr != "" && len(c.Redis.Sentinels) > 0 {
		bad("redis.sentinels", "redis.addr is set too; the Sentinels say where the server is, leave it empty")
	}
	if (len(c.Redis.Sentinels) > 0) != (c.Redis.Master != "") {
		bad("redis.master", "goes with redis.sentinels: both or neither")
	}
	if c.Redis.Rewind < 0 || c.Redis.Rewind > c.Kafka.Topics.HitsRetention {
		bad("redis.rewind", "is %v, must be from 0 to kafka.topics.hits_retention (%v)", c.Redis.Rewind, c.Kafka.Topics.HitsRetention)
	}
	c.HTTP.TLS.validate(bad)
	c.Gateway.validate(bad)
	if a := c.Matcher.MaxListAge; a < 500*time.Millisecond || a > time.Minute {
		bad("matcher.max_list_age", "is %v, must be from 500ms, twice the pause between two answers of the log, to 1m", a)
	}
	if c.Matcher.MaxAge <= 0 {
		bad("matcher.max_age", "is %v, must be more than 0", c.Matcher.MaxAge)
	}
	if c.Matcher.CommitEvery <= 0 {
		bad("matcher.commit_every", "is %v, must be more than 0", c.Matcher.CommitEvery)
	}
	switch m := c.Matcher; {
	case m.Assignment == AssignGroup && m.Members != 0:
		bad("matcher.members", "is %d, but matcher.assignment is group; say matcher.assignment: fixed, or leave members out", m.Members)
	case m.Assignment == AssignGroup:
	case m.Assignment != AssignFixed:
		bad("matcher.assignment", "%q is neither group nor fixed", m.Assignment)
	case m.Members < 1:
		bad("matcher.members", "is %d; with matcher.assignment fixed say how many matchers there are", m.Members)
	case m.Ordinal < 0 || m.Ordinal >= m.Members:
		bad("matcher.ordinal", "is %d, must be from 0 to %d, matcher.members less one, and another one for each matcher (VIGIE_MATCHER_ORDINAL)", m.Ordinal, m.Members-1)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		bad("log.level", "%q is not a level; say debug, info, warn or error", c.Log.Level)
	}
	return errs
}

func (t *HTTPS) validate(bad func(key, format string, args ...any)) {
	if (t.CertFile == "") != (t.KeyFile == "") {
		bad("http.tls.key_file", "goes with http.tls.cert_file: both or neither")
	}
	if t.ClientCA != "" && t.CertFile == "" {
		bad("http.tls.client_ca", "needs TLS; name http.tls.cert_file and key_file too")
	}
}

func (g *Gateway) validate(bad func(key, format string, args ...any)) {
	if w := g.ReplayWindow; w < time.Second || w > 15*time.Minute {
		bad("gateway.replay_window", "is %v, must be from 1s to 15m", w)
	}
	if n := g.Limits.RequestsPerSecond; n < 1 && n != -1 {
		bad("gateway.limits.requests_per_second", "is %d, must be at least 1, or -1 for no limit", n)
	}
	if n := g.Limits.ReadsPerSecond; n < 1 && n != -1 {
		bad("gateway.limits.reads_per_second", "is %d, must be at least 1, or -1 for no limit", n)
	}
	if n := g.Limits.Burst; n < 1 {
		bad("gateway.limits.burst", "is %d, must be at least 1", n)
	}
	if n := g.Limits.MessageBytes; n < 64<<10 || n > 64<<20 {
		bad("gateway.limits.message_bytes", "is %d, must be from 65536 to 67108864", n)
	}
	if n, least := g.Limits.MemoryBytes, 4*g.Limits.MessageBytes; n < least {
		bad("gateway.limits.memory_bytes", "is %d, must be at least four times message_bytes (%d), of which one caller has a quarter", n, least)
	}
	if n := g.Spool.MaxBytes; n < 1<<20 {
		bad("gateway.spool.max_bytes", "is %d, must be at least 1048576", n)
	}
	if n := g.Spool.Reserve; n < 0 {
		bad("gateway.spool.reserve", "is %d, must not be negative", n)
	}
	if age := g.Spool.MaxAge; age <= 0 || age > maxReadAge {
		bad("gateway.spool.max_age", "is %v, must be more than 0 and at most 360h: reads without a hit may be kept for 15 days (CSI L233-2)", age)
	}
	g.MQTT.validate(bad)
}

func (m *MQTT) validate(bad func(key, format string, args ...any)) {
	if m.URL == "" {
		if len(m.Topics) > 0 {
			bad("gateway.mqtt.url", "is empty, but topics are given; name the broker")
		}
		return
	}
	u, err := url.Parse(m.URL)
	switch {
	case err != nil || u.Host == "" || !slices.Contains([]string{"mqtt", "mqtts"}, u.Scheme):
		bad("gateway.mqtt.url", "is not mqtt://host:1883 or mqtts://host:8883")
	case u.User != nil:
		bad("gateway.mqtt.url", "holds a user; say gateway.mqtt.user and password_file")
	case m.TLS.Enabled != (u.Scheme == "mqtts"):
		bad("gateway.mqtt.tls.enabled", "does not agree with the scheme of gateway.mqtt.url: mqtts is with TLS, mqtt without")
	}
	if len(m.Topics) == 0 {
		bad("gateway.mqtt.topics", "is empty; name what to subscribe to, such as [\"+/onvif-ej/#\", frigate/events]")
	}
	if m.ClientID == "" {
		bad("gateway.mqtt.client_id", "is empty; the broker keeps what was missed by this name")
	}
	if m.PasswordFile != "" && m.User == "" {
		bad("gateway.mqtt.user", "is empty, but a password_file is given")
	}
}

// Complete says what is missing to serve: a configuration may be good for other
// commands without it.
func (c *Config) Complete() error {
	var errs []error
	if (len(c.Kafka.Brokers) == 0) == c.Redis.given() {
		errs = append(errs, errors.New("config: kafka.brokers, redis.addr: give both or neither; an embedded service beside a real one would lose alerts at a restart"))
	}
	if !c.Embedded() && c.HTTP.TokensFile == "" {
		errs = append(errs, errors.New("config: http.tokens_file: is required with a real Kafka and Redis; name the file that holds the tokens (see README)"))
	}
	return errors.Join(errs...)
}

// Print renders the settings as the YAML file that would give them, with the
// meaning of each and without secrets.
func (c *Config) Print() string {
	var b strings.Builder
	var open []string
	for _, l := range c.leaves() {
		parts := strings.Split(l.path, ".")
		for i, p := range parts[:len(parts)-1] {
			if i < len(open) && open[i] == p {
				continue
			}
			open = append(open[:i:i], p)
			fmt.Fprintf(&b, "%s%s:\n", strings.Repeat("  ", i), p)
		}
		open = open[:len(parts)-1]
		pad := strings.Repeat("  ", len(parts)-1)
		fmt.Fprintf(&b, "%s# %s (%s)\n%s%s: %s\n", pad, l.help, l.env(), pad, parts[len(parts)-1], l.show())
	}
	return b.String()
}

// leaf is one setting.
type leaf struct {
	path, help string
	secret     bool
	value      reflect.Value
}

func (c *Config) leaves() []leaf { return walk(reflect.ValueOf(c).Elem(), "") }

func walk(v reflect.Value, prefix string) (out []leaf) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		path := prefix + f.Tag.Get("yaml")
		if f.Type.Kind() == reflect.Struct {
			out = append(out, walk(v.Field(i), path+".")...)
			continue
		}
		out = append(out, leaf{path: path, help: f.Tag.Get("help"), secret: f.Tag.Get("secret") == "true", value: v.Field(i)})
	}
	return out
}

func (l leaf) env() string {
	return "VIGIE_" + strings.ToUpper(strings.ReplaceAll(l.path, ".", "_"))
}

func (l leaf) set(s string) error {
	switch p := l.value.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(s))
	case *string:
		*p = s
	case *[]string:
		*p = nil
		for _, part := range strings.Split(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				*p = append(*p, part)
			}
		}
	case *int:
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", s)
		}
		*p = n
	case *int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", s)
		}
		*p = n
	case *bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is not true or false", s)
		}
		*p = b
	case *time.Duration:
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("%q is not a duration such as 200ms, 10m or 72h", s)
		}
		*p = d
	default:
		return fmt.Errorf("a setting of type %T cannot be given as text", p)
	}
	return nil
}

func (l leaf) show() string {
	if l.secret {
		if l.value.IsZero() {
			return `""`
		}
		return `"(hidden)"`
	}
	switch v := l.value.Interface().(type) {
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = strconv.Quote(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case string:
		return strconv.Quote(v)
	case time.Duration:
		text := v.String() // 72h0m0s
		for _, zero := range []string{"m0s", "h0m"} {
			if strings.HasSuffix(text, zero) {
				text = text[:len(text)-2]
			}
		}
		return text
	default:
		return fmt.Sprint(v)
	}
}
