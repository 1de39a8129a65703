package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vigie.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	path := file(t, "kafka:\n  prefix: file.\n  group: file\nmatcher:\n  max_age: 5m\n")
	c, err := Load(path, []string{"VIGIE_KAFKA_GROUP=env", "VIGIE_MATCHER_MAX_AGE=6m", "HOME=/x", "VIGIE_TOKEN=t"}, map[string]string{"matcher.max_age": "7m"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Kafka.Prefix != "file." || c.Kafka.Group != "env" || c.Matcher.MaxAge != 7*time.Minute || c.HTTP.Addr != "127.0.0.1:8080" {
		t.Errorf("got prefix %q group %q max_age %v addr %q", c.Kafka.Prefix, c.Kafka.Group, c.Matcher.MaxAge, c.HTTP.Addr)
	}
}

func TestErrorsNameThePlaceAndTheMend(t *testing.T) {
	for _, tc := range []struct {
		name, yaml string
		env        []string
		set        map[string]string
		want       []string
	}{
		{"unknown key, with its line", "kafka:\n  prefix: a.\n  brokerz: [x]\n", nil, nil, []string{"vigie.yaml", "[3:3]", "brokerz"}},
		{"wrong type, with its line", "redis:\n  db: many\n", nil, nil, []string{"[2:7]"}},
		{"misspelt environment", "", []string{"VIGIE_KAFKA_BROKER=x"}, nil, []string{"VIGIE_KAFKA_BROKER", "vigie config print"}},
		{"unknown --set", "", nil, map[string]string{"kafka.broker": "x"}, []string{"--set kafka.broker"}},
		{"bad duration", "", []string{"VIGIE_MATCHER_MAX_AGE=10"}, nil, []string{"VIGIE_MATCHER_MAX_AGE", "10m"}},
		{"unknown part", "target: gatway\n", nil, nil, []string{"target", `"gatway"`, "gateway"}},
		{"real services without tokens", "kafka:\n  brokers: [a:1]\nredis:\n  addr: b:2\n", nil, nil, []string{"http.tokens_file"}},
		{"half embedded", "kafka:\n  brokers: [a:1]\n", nil, nil, []string{"redis.addr", "both or neither"}},
		{"a server and its Sentinels", "redis:\n  addr: a:1\n  sentinels: [b:2]\n  master: m\n", nil, nil, []string{"redis.sentinels", "redis.addr"}},
		{"Sentinels without a name", "redis:\n  sentinels: [b:2]\n", nil, nil, []string{"redis.master"}},
		{"a negative rewind", "redis:\n  rewind: -1s\n", nil, nil, []string{"redis.rewind"}},
		{"replay would alert twice", "redis:\n  seen_ttl: 1h\n", nil, nil, []string{"redis.seen_ttl", "twice"}},
		{"an unknown assignment", "matcher:\n  assignment: sticky\n", nil, nil, []string{"matcher.assignment", `"sticky"`, "fixed"}},
		{"fixed, of how many", "matcher:\n  assignment: fixed\n", nil, nil, []string{"matcher.members", "how many"}},
		{"fixed, which one", "matcher:\n  assignment: fixed\n  members: 4\n", nil, nil, []string{"matcher.ordinal", "0 to 3", "VIGIE_MATCHER_ORDINAL"}},
		{"an ordinal too high", "matcher:\n  assignment: fixed\n  members: 4\n", []string{"VIGIE_MATCHER_ORDINAL=4"}, nil, []string{"matcher.ordinal", "0 to 3"}},
		{"a pod name for an ordinal", "", []string{"VIGIE_MATCHER_ORDINAL=vigie-matcher-3"}, nil, []string{"VIGIE_MATCHER_ORDINAL", "whole number"}},
		{"members of a group", "matcher:\n  members: 4\n", nil, nil, []string{"matcher.members", "fixed"}},
		{"a certificate without a key", "http:\n  tls:\n    cert_file: a.pem\n", nil, nil, []string{"http.tls.key_file", "both or neither"}},
		{"sensor certificates without TLS", "http:\n  tls:\n    client_ca: a.pem\n", nil, nil, []string{"http.tls.client_ca", "cert_file"}},
		{"strangers", "gateway:\n  unknown_sensors: maybe\n", nil, nil, []string{"must be accept, quarantine or refuse"}},
		{"strangers in the environment", "", []string{"VIGIE_GATEWAY_UNKNOWN_SENSORS=maybe"}, nil, []string{"VIGIE_GATEWAY_UNKNOWN_SENSORS", "must be accept, quarantine or refuse"}},
		{"a window for ever", "gateway:\n  replay_window: 24h\n", nil, nil, []string{"gateway.replay_window", "15m"}},
		{"no reads at all", "gateway:\n  limits: {reads_per_second: 0}\n", nil, nil, []string{"gateway.limits.reads_per_second", "-1 for no limit"}},
		{"no requests at all", "", []string{"VIGIE_GATEWAY_LIMITS_REQUESTS_PER_SECOND=-2"}, nil, []string{"gateway.limits.requests_per_second", "-1 for no limit"}},
		{"no burst", "gateway:\n  limits: {burst: -1}\n", nil, nil, []string{"gateway.limits.burst"}},
		{"messages without end", "gateway:\n  limits: {message_bytes: 1000000000}\n", nil, nil, []string{"gateway.limits.message_bytes", "67108864", "gateway.limits.memory_bytes"}},
		{"a size in words", "", []string{"VIGIE_GATEWAY_SPOOL_MAX_BYTES=4G"}, nil, []string{"VIGIE_GATEWAY_SPOOL_MAX_BYTES", "whole number"}},
		{"a spool of nothing", "gateway:\n  spool: {max_bytes: 1000, reserve: -1}\n", nil, nil, []string{"gateway.spool.max_bytes", "gateway.spool.reserve"}},
		{"a spool beyond the law", "gateway:\n  spool: {max_age: 361h}\n", nil, nil, []string{"gateway.spool.max_age", "L233-2"}},
		{"topics of no broker", "gateway:\n  mqtt: {topics: [a]}\n", nil, nil, []string{"gateway.mqtt.url"}},
		{"no broker's address", "gateway:\n  mqtt: {url: 'broker:1883', topics: [a]}\n", nil, nil, []string{"gateway.mqtt.url", "mqtt://"}},
		{"a password in the address", "gateway:\n  mqtt: {url: 'mqtt://me:canary@b:1883', topics: [a]}\n", nil, nil, []string{"gateway.mqtt.url", "password_file"}},
		{"TLS or not", "gateway:\n  mqtt: {url: 'mqtts://b:8883', topics: [a]}\n", nil, nil, []string{"gateway.mqtt.tls.enabled", "mqtts"}},
		{"nothing to subscribe to", "gateway:\n  mqtt: {url: 'mqtt://b:1883', client_id: '', password_file: p}\n", nil, nil, []string{"gateway.mqtt.topics", "gateway.mqtt.client_id", "gateway.mqtt.user"}},
		{"everything at once", "log:\n  level: loud\nmatcher:\n  max_age: 0s\n", nil, nil, []string{"log.level", "matcher.max_age"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := ""
			if tc.yaml != "" {
				path = file(t, tc.yaml)
			}
			c, err := Load(path, tc.env, tc.set)
			if err == nil {
				err = c.Complete()
			}
			if err == nil {
				t.Fatal("accepted")
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error shows a password: %v", err)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
		})
	}
}

func TestFixedAssignment(t *testing.T) {
	c, err := Load(file(t, "matcher:\n  assignment: fixed\n  members: 4\n"), []string{"VIGIE_MATCHER_ORDINAL=3"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m := c.Matcher; m.Assignment != AssignFixed || m.Members != 4 || m.Ordinal != 3 {
		t.Errorf("got %+v", m)
	}
}

func TestPrintIsTheFileWithoutSecrets(t *testing.T) {
	c, err := Load("", []string{"VIGIE_REDIS_PASSWORD=canary-secret", "VIGIE_KAFKA_PREFIX=x."}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := c.Print()
	if strings.Contains(text, "canary-secret") {
		t.Error("print shows a password")
	}
	again, err := Load(file(t, text), nil, nil)
	if err != nil {
		t.Fatalf("print is not a configuration: %v\n%s", err, text)
	}
	again.Redis.Password = c.Redis.Password
	if again.Print() != text {
		t.Errorf("read back:\n%s\nwant:\n%s", again.Print(), text)
	}
}

func TestExampleFile(t *testing.T) {
	if _, err := Load("../../../../deploy/vigie.example.yaml", nil, nil); err != nil {
		t.Fatal(err)
	}
}
