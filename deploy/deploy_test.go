// Package deploy holds what runs beside Vigie; it has no code, only this test of its files.
package deploy

import (
	"encoding/xml"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"vigie/deploy/services"
)

type compose struct {
	Name     string                    `yaml:"name"`
	Services map[string]composeService `yaml:"services"`
	Volumes  map[string]any            `yaml:"volumes"`
}

type composeService struct {
	Image       string         `yaml:"image"`
	Restart     string         `yaml:"restart"`
	Command     []string       `yaml:"command"`
	Ports       []string       `yaml:"ports"`
	Environment map[string]any `yaml:"environment"`
	Volumes     []string       `yaml:"volumes"`
	Healthcheck struct {
		Test        []string `yaml:"test"`
		StartPeriod string   `yaml:"start_period"`
		Interval    string   `yaml:"interval"`
		Timeout     string   `yaml:"timeout"`
		Retries     int      `yaml:"retries"`
	} `yaml:"healthcheck"`
}

func readCompose(t *testing.T) compose {
	t.Helper()
	b, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c compose
	if err := yaml.UnmarshalWithOptions(b, &c, yaml.Strict()); err != nil {
		t.Fatalf("compose.yaml: %v", err)
	}
	return c
}

// TestVersionsAgree: containers, jars and the code's constants are of the same version, and
// so is the file that CI's readers see.
func TestVersionsAgree(t *testing.T) {
	c := readCompose(t)
	if got, want := c.Services["kafka"].Image, "apache/kafka:"+services.KafkaVersion; got != want {
		t.Errorf("compose.yaml runs %q, services.KafkaVersion wants %q", got, want)
	}
	if got, want := c.Services["redis"].Image, "redis:"+services.RedisVersion; got != want {
		t.Errorf("compose.yaml runs %q, services.RedisVersion wants %q", got, want)
	}

	b, err := os.ReadFile("kafka/pom.xml")
	if err != nil {
		t.Fatal(err)
	}
	var pom struct {
		Version      string `xml:"properties>kafka.version"`
		Dependencies []struct {
			Group    string `xml:"groupId"`
			Artifact string `xml:"artifactId"`
			Version  string `xml:"version"`
		} `xml:"dependencies>dependency"`
	}
	if err := xml.Unmarshal(b, &pom); err != nil {
		t.Fatalf("pom.xml: %v", err)
	}
	if pom.Version != services.KafkaVersion {
		t.Errorf("pom.xml names Kafka %q, services.KafkaVersion is %q", pom.Version, services.KafkaVersion)
	}
	kafkas := 0
	for _, d := range pom.Dependencies {
		if d.Group == "org.apache.kafka" {
			kafkas++
			if d.Version != "${kafka.version}" {
				t.Errorf("pom.xml: %s has a version of its own, %q", d.Artifact, d.Version)
			}
		}
	}
	if kafkas == 0 {
		t.Error("pom.xml names no jar of Kafka")
	}
}

// TestComposeIsPrivate: neither service has a password, so neither may be reached from
// another machine.
func TestComposeIsPrivate(t *testing.T) {
	for name, s := range readCompose(t).Services {
		if len(s.Ports) == 0 {
			t.Errorf("%s publishes no port", name)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s is published on %s, want 127.0.0.1", name, p)
			}
		}
		if len(s.Healthcheck.Test) == 0 {
			t.Errorf("%s has no health check", name)
		}
	}
}

// TestComposeFindsItsFiles: what is mounted exists, and volumes are declared.
func TestComposeFindsItsFiles(t *testing.T) {
	c := readCompose(t)
	for name, s := range c.Services {
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if strings.HasPrefix(source, ".") {
				if _, err := os.Stat(source); err != nil {
					t.Errorf("%s mounts %v", name, err)
				}
			} else if _, ok := c.Volumes[source]; !ok {
				t.Errorf("%s uses volume %q, which is not declared", name, source)
			}
		}
	}
}

// TestRedisConf: the settings that the delivery argument rests on.
func TestRedisConf(t *testing.T) {
	b, err := os.ReadFile("redis/redis.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"maxmemory-policy noeviction", "appendonly yes"} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).Match(b) {
			t.Errorf("redis.conf lacks %q", want)
		}
	}
}
