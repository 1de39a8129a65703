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
	"golang.org/x/sync/errgroup"

	"vigie/deploy/kafka"
)

// KafkaConfig says where a broker, or a cluster of them, lives. Dir and Jars are required.
type KafkaConfig struct {
	Dir        string            // for its configuration, data and log; Stop leaves it
	Jars       string            // what KafkaJars returned
	Java       string            // the program; default "java" on the PATH, version 17 or newer
	Port       int               // of its clients; 0 takes a free one and the same again at a restart; not for a cluster
	Heap       string            // of each JVM; default "512m", in a cluster "320m"
	JVM        []string          // further options of the JVM; default none, in a cluster QuickJVM
	Properties map[string]string // server properties over those of deploy/kafka
	Env        []string          // of the broker, KEY=value; default that of this process

	// Advertise sends clients to these addresses, host:port, one for each broker in order,
	// instead of to the broker itself: proxies that stand before them, for a test to break
	// what its clients have of the cluster. The brokers know each other by listeners of
	// their own and are out of a proxy's reach. Nothing need listen there when the brokers
	// start; a proxy forwards to the broker's Addr.
	Advertise []string
}

// QuickJVM makes a broker start with half the work, and then work at half the speed: for
// tests that start more brokers than they fill.
var QuickJVM = []string{"-XX:TieredStopAtLevel=1"}

// Kafka is a broker, which is a controller too: a KRaft node. Its methods may be called
// from several goroutines.
type Kafka struct {
	*service
	id         int
	addr       string
	advertised string
}

// StartKafka formats the storage below cfg.Dir, starts a broker on it and waits until it
// answers a metadata request. An error holds the end of the broker's log.
func StartKafka(ctx context.Context, cfg KafkaConfig) (*Kafka, error) {
	if cfg.Heap == "" {
		cfg.Heap = "512m"
	}
	brokers, err := startBrokers(ctx, cfg, []node{{name: "Kafka", id: 1, dir: cfg.Dir}}, nil)
	if err != nil {
		return nil, err
	}
	return brokers[0], nil
}

// node is a broker that is to be started.
type node struct {
	name string
	id   int
	dir  string
}

// startBrokers starts the nodes at the same time, for they wait for each other, and waits
// until each of them answers. All are there, or none. The defaults are those of a cluster,
// under those of cfg.
func startBrokers(ctx context.Context, cfg KafkaConfig, nodes []node, defaults map[string]string) ([]*Kafka, error) {
	if cfg.Dir == "" || cfg.Jars == "" {
		return nil, errors.New("services: KafkaConfig.Dir and Jars are required")
	}
	if n := len(cfg.Advertise); n != 0 && n != len(nodes) {
		return nil, fmt.Errorf("services: KafkaConfig.Advertise has %d addresses for %d brokers", n, len(nodes))
	}
	if cfg.Java == "" {
		cfg.Java = "java"
	}
	if cfg.Env == nil {
		cfg.Env = os.Environ()
	}
	brokers := make([]*Kafka, len(nodes))
	prepared := make([]launcher, len(nodes))
	for i, n := range nodes {
		dir, err := filepath.Abs(n.dir)
		if err != nil {
			return nil, fmt.Errorf("services: start Kafka: %w", err)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("services: start Kafka: %w", err)
		}
		brokers[i] = &Kafka{id: n.id}
		prepared[i] = launcher{KafkaConfig: cfg, name: n.name, defaults: defaults}
		prepared[i].Dir = dir
		if err := os.WriteFile(prepared[i].file("log4j2.yaml"), kafka.Log4j, 0o600); err != nil {
			return nil, fmt.Errorf("services: start Kafka: %w", err)
		}
	}
	const listeners = 3 // for clients, for the other brokers, for the controllers
	err := onPorts(ctx, listeners*len(nodes), cfg.Port, func(ctx context.Context, ports []int) error {
		var voters []string
		for i, n := range nodes {
			voters = append(voters, fmt.Sprintf("%d@%s", n.id, local(ports[listeners*i+2])))
		}
		g, ctx := errgroup.WithContext(ctx) // one that fails ends the waiting of the others
		for i, k := range brokers {
			own := ports[listeners*i:][:listeners]
			k.addr = local(own[0])
			k.advertised = k.addr
			if len(cfg.Advertise) > 0 {
				k.advertised = cfg.Advertise[i]
			}
			g.Go(func() error { return prepared[i].launch(ctx, k, own, strings.Join(voters, ",")) })
		}
		err := g.Wait()
		if err != nil {
			for _, k := range brokers {
				if k.service != nil {
					err = errors.Join(err, k.Kill())
				}
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return brokers, nil
}

// clusterID is any 16 bytes in base64; one for all, so that a Dir can be used again.
const clusterID = "vigieTestClusterAAAAAA"

// launcher is the configuration of one broker, with a Dir of its own.
type launcher struct {
	KafkaConfig
	name      string
	defaults  map[string]string // of the cluster, under Properties
	formatted bool              // a JVM of its own does it, and once is enough: ports are not part of it
}

// launch starts a broker on its ports and waits until it answers.
func (l *launcher) launch(ctx context.Context, k *Kafka, ports []int, voters string) error {
	if err := os.WriteFile(l.file("server.properties"), l.serverProperties(k, ports, voters), 0o600); err != nil {
		return fmt.Errorf("services: start %s: %w", l.name, err)
	}
	if !l.formatted {
		if err := run(ctx, l.java(QuickJVM, "kafka.tools.StorageTool", "format", "--ignore-formatted",
			"--cluster-id", clusterID, "--config", l.file("server.properties"))); err != nil {
			return fmt.Errorf("services: format the storage of %s: %w", l.name, err)
		}
		l.formatted = true
	}
	k.service = &service{
		name:    l.name,
		log:     l.file("kafka.log"),
		command: func() *exec.Cmd { return l.java(l.JVM, "kafka.Kafka", l.file("server.properties")) },
		ready:   kafkaReady(k.addr, k.id),
	}
	return k.start(ctx)
}

func (l *launcher) file(name string) string { return filepath.Join(l.Dir, name) }

// java is the command to run a class of Kafka.
func (l *launcher) java(options []string, class string, args ...string) *exec.Cmd {
	line := []string{
		"-Xms64m", "-Xmx" + l.Heap,
		"-XX:+UseSerialGC",            // starts a second sooner than G1 on two busy cores
		"-XX:+ExitOnOutOfMemoryError", // a broker that limps on makes a test fail late and for no visible reason
		"-XX:ErrorFile=" + l.file("java_error.log"),
		"-Djava.awt.headless=true",
		"-Dlog4j2.configurationFile=file:" + l.file("log4j2.yaml"),
		"-Dkafka.logs.dir=" + l.Dir,
	}
	line = append(line, options...)
	line = append(line, "-cp", filepath.Join(l.Jars, "*"), class)
	cmd := exec.Command(l.Java, append(line, args...)...)
	cmd.Dir = l.Dir
	cmd.Env = l.Env
	return cmd
}

// serverProperties is the server.properties of a broker. Other brokers use a listener that
// is never advertised to clients, so that what stands before the clients' does not stand
// between brokers.
func (l *launcher) serverProperties(k *Kafka, ports []int, voters string) []byte {
	internal := "INTERNAL://" + local(ports[1])
	set := map[string]string{
		"node.id":                        strconv.Itoa(k.id),
		"listeners":                      "PLAINTEXT://" + k.addr + "," + internal + ",CONTROLLER://" + local(ports[2]),
		"advertised.listeners":           "PLAINTEXT://" + k.advertised + "," + internal,
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"inter.broker.listener.name":     "INTERNAL",
		"controller.quorum.voters":       voters,
		"log.dirs":                       l.file("data"),
	}
	maps.Copy(set, l.defaults)
	maps.Copy(set, l.Properties)
	var b strings.Builder
	b.Write(kafka.Properties)
	b.WriteString("\n# of this start\n")
	for _, name := range slices.Sorted(maps.Keys(set)) { // a later line wins over an earlier one
		fmt.Fprintf(&b, "%s=%s\n", name, strings.ReplaceAll(set[name], `\`, `\\`))
	}
	return []byte(b.String())
}

// kafkaReady asks for metadata: the broker is ready when it knows itself, for a controller
// has let it in then.
func kafkaReady(addr string, id int) func(context.Context) error {
	return func(ctx context.Context) error {
		m, err := metadata(ctx, addr, []string{})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(m.Brokers, func(b kafkago.Broker) bool { return b.ID == id }) {
			return errors.New("it is not yet part of the cluster")
		}
		return nil
	}
}

// metadata asks one broker, over a connection of its own since a Transport answers from what
// it knew before; nil topics are all.
func metadata(ctx context.Context, addr string, topics []string) (*kafkago.MetadataResponse, error) {
	transport := &kafkago.Transport{DialTimeout: time.Second}
	defer transport.CloseIdleConnections()
	client := &kafkago.Client{Addr: kafkago.TCP(addr), Transport: transport, Timeout: 2 * time.Second}
	return client.Metadata(ctx, &kafkago.MetadataRequest{Topics: topics})
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// ID is its node id, by which metadata name a leader: 1, in a cluster the index of the
// broker.
func (k *Kafka) ID() int { return k.id }

// Addr is the bootstrap address, host:port; it stays the same over restarts. It is that of
// the broker itself, whatever the broker advertises.
func (k *Kafka) Addr() string { return k.addr }

// Advertised is the address that the broker sends clients to: Addr, or that of its proxy.
func (k *Kafka) Advertised() string { return k.advertised }

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
