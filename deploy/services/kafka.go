//go:build unix

package services

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"vigie/deploy/kafka"
)

// KafkaConfig says where a broker lives. Dir and Jars are required.
type KafkaConfig struct {
	Dir        string            // for its configuration, data and log; Stop leaves it
	Jars       string            // what KafkaJars returned
	Java       string            // the program; default "java" on the PATH, version 17 or newer
	Port       int               // of its clients; 0 takes a free one and the same again at a restart
	Heap       string            // of the JVM; default "512m"
	JVM        []string          // further options of the JVM, such as QuickJVM
	Properties map[string]string // server properties over those of deploy/kafka
	Env        []string          // of the broker, KEY=value; default that of this process
}

// QuickJVM makes a broker start with half the work, and then work at half the speed: for
// tests that start more brokers than they fill.
var QuickJVM = []string{"-XX:TieredStopAtLevel=1"}

// Kafka is a broker of one KRaft node. Its methods may be called from several goroutines.
type Kafka struct {
	*service
	addr string
}

// StartKafka formats the storage below cfg.Dir, starts a broker on it and waits until it
// answers a metadata request. An error holds the end of the broker's log.
func StartKafka(ctx context.Context, cfg KafkaConfig) (*Kafka, error) {
	if cfg.Dir == "" || cfg.Jars == "" {
		return nil, errors.New("services: KafkaConfig.Dir and Jars are required")
	}
	if cfg.Java == "" {
		cfg.Java = "java"
	}
	if cfg.Heap == "" {
		cfg.Heap = "512m"
	}
	if cfg.Env == nil {
		cfg.Env = os.Environ()
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("services: start Kafka: %w", err)
	}
	cfg.Dir = dir
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("services: start Kafka: %w", err)
	}
	if err := os.WriteFile(cfg.file("log4j2.yaml"), kafka.Log4j, 0o600); err != nil {
		return nil, fmt.Errorf("services: start Kafka: %w", err)
	}
	k := &Kafka{}
	formatted := false // a JVM of its own does it, and once is enough: ports are not part of it
	err = onPorts(ctx, 2, cfg.Port, func(ctx context.Context, ports []int) error {
		if err := os.WriteFile(cfg.file("server.properties"), cfg.properties(ports), 0o600); err != nil {
			return fmt.Errorf("services: start Kafka: %w", err)
		}
		if !formatted {
			if err := run(ctx, cfg.java(QuickJVM, "kafka.tools.StorageTool", "format", "--ignore-formatted",
				"--cluster-id", clusterID, "--config", cfg.file("server.properties"))); err != nil {
				return fmt.Errorf("services: format Kafka's storage: %w", err)
			}
			formatted = true
		}
		k.addr = local(ports[0])
		k.service = &service{
			name:    "Kafka",
			log:     cfg.file("kafka.log"),
			command: func() *exec.Cmd { return cfg.java(cfg.JVM, "kafka.Kafka", cfg.file("server.properties")) },
			ready:   kafkaReady(k.addr),
		}
		return k.start(ctx)
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// clusterID is any 16 bytes in base64; one for all, so that a Dir can be used again.
const clusterID = "vigieTestClusterAAAAAA"

func (c KafkaConfig) file(name string) string { return filepath.Join(c.Dir, name) }

// java is the command to run a class of Kafka.
func (c KafkaConfig) java(options []string, class string, args ...string) *exec.Cmd {
	line := []string{
		"-Xms64m", "-Xmx" + c.Heap,
		"-XX:+UseSerialGC",            // starts a second sooner than G1 on two busy cores
		"-XX:+ExitOnOutOfMemoryError", // a broker that limps on makes a test fail late and for no visible reason
		"-XX:ErrorFile=" + c.file("java_error.log"),
		"-Djava.awt.headless=true",
		"-Dlog4j2.configurationFile=file:" + c.file("log4j2.yaml"),
		"-Dkafka.logs.dir=" + c.Dir,
	}
	line = append(line, options...)
	line = append(line, "-cp", filepath.Join(c.Jars, "*"), class)
	cmd := exec.Command(c.Java, append(line, args...)...)
	cmd.Dir = c.Dir
	cmd.Env = c.Env
	return cmd
}

// properties is the server.properties for a client and a controller port.
func (c KafkaConfig) properties(ports []int) []byte {
	clients, controller := local(ports[0]), local(ports[1])
	set := map[string]string{
		"listeners":                "PLAINTEXT://" + clients + ",CONTROLLER://" + controller,
		"advertised.listeners":     "PLAINTEXT://" + clients,
		"controller.quorum.voters": "1@" + controller,
		"log.dirs":                 c.file("data"),
	}
	maps.Copy(set, c.Properties)
	var b strings.Builder
	b.Write(kafka.Properties)
	b.WriteString("\n# of this start\n")
	for _, name := range slices.Sorted(maps.Keys(set)) { // a later line wins over an earlier one
		fmt.Fprintf(&b, "%s=%s\n", name, strings.ReplaceAll(set[name], `\`, `\\`))
	}
	return []byte(b.String())
}

// kafkaReady asks for metadata: the broker is ready when it knows itself and its controller.
func kafkaReady(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		transport := &kafkago.Transport{DialTimeout: time.Second}
		defer transport.CloseIdleConnections()
		client := &kafkago.Client{Addr: kafkago.TCP(addr), Transport: transport, Timeout: 2 * time.Second}
		m, err := client.Metadata(ctx, &kafkago.MetadataRequest{Topics: []string{}})
		if err != nil {
			return err
		}
		if len(m.Brokers) == 0 {
			return errors.New("the cluster has no broker yet")
		}
		return nil
	}
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Addr is the bootstrap address, host:port; it stays the same over restarts.
func (k *Kafka) Addr() string { return k.addr }

// Log is the path of the broker's log.
func (k *Kafka) Log() string { return k.log }

// Running reports whether the broker runs; a paused one does.
func (k *Kafka) Running() bool { return k.running() }

// Stop lets the broker shut down in order and waits for it, at most 20 s; then it is killed
// and that is an error. Stopping twice is none.
func (k *Kafka) Stop() error { return k.end(syscall.SIGTERM) }

// Kill ends the broker with SIGKILL and waits for it.
func (k *Kafka) Kill() error { return k.end(syscall.SIGKILL) }

// Pause stops the broker in its tracks (SIGSTOP): connections stay and are not answered.
func (k *Kafka) Pause() error { return k.send(syscall.SIGSTOP) }

// Resume lets a paused broker go on.
func (k *Kafka) Resume() error { return k.send(syscall.SIGCONT) }

// Restart stops the broker if it runs, starts it again on the same port and data, and waits
// until it answers.
func (k *Kafka) Restart(ctx context.Context) error { return k.restart(ctx) }
