//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"vigie/deploy/services"
	"vigie/stream/kafka"
)

// Names of every run. Databases of Redis and consumer groups keep runs apart.
const (
	prefix        = "vigie."
	readsTopic    = prefix + "reads"
	hitsTopic     = prefix + "hits"
	hitsParts     = 4
	queue         = "bench"
	operatorToken = "operator-token-0123456789abcdef0123456789abcd"
	sensorToken   = "sensor-token-0123456789abcdef0123456789abcdef"
	patrolToken   = "patrol-token-0123456789abcdef0123456789abcdef"
)

// patience bounds every wait for something that is to happen soon.
const patience = 2 * time.Minute

// site is a broker, a Redis and a build of vigie, all for this run.
type site struct {
	dir     string
	bin     string
	kafka   *services.Kafka
	redis   *services.Redis
	admin   *kgo.Client
	cluster *kafka.Cluster
	env     []string
	doing   func(format string, args ...any)

	partitions int
	nextDB     int
}

// settings of Kafka over those of deploy/kafka, which are for tests: nothing is
// looked for all the time.
var brokerProperties = map[string]string{
	"log.retention.check.interval.ms": "300000",
	"log.cleaner.backoff.ms":          "15000",
}

// openSite builds vigie, starts the services and makes the topics. What it returns,
// even beside an error, is to be closed.
func openSite(ctx context.Context, partitions int, heap string, doing func(string, ...any)) (*site, error) {
	s := &site{doing: doing, partitions: partitions}
	jars, err := services.KafkaJars(ctx, os.Stderr)
	if err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", "vigie-bench-"); err != nil {
		return s, err
	}
	doing("building vigie")
	s.bin = filepath.Join(s.dir, "vigie")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", s.bin, "vigie/cmd/vigie")
	if out, err := build.CombinedOutput(); err != nil {
		return s, fmt.Errorf("go build: %w\n%s", err, out)
	}
	doing("starting Kafka %s, -Xmx%s, G1, and Redis", services.KafkaVersion, heap)
	s.kafka, err = services.StartKafka(ctx, services.KafkaConfig{
		Dir: filepath.Join(s.dir, "kafka"), Jars: jars, Heap: heap,
		JVM: []string{"-XX:-UseSerialGC", "-XX:+UseG1GC"}, Properties: brokerProperties,
	})
	if err != nil {
		return s, err
	}
	s.redis, err = services.StartRedis(ctx, services.RedisConfig{
		Dir: filepath.Join(s.dir, "redis"), AOF: true, Args: []string{"--databases", "1000"},
	})
	if err != nil {
		return s, err
	}
	tokens := filepath.Join(s.dir, "tokens.yaml")
	text := fmt.Sprintf("- {name: desk, role: operator, token: %s}\n- {name: patrol, role: patrol, queues: [%s], token: %s}\n- {name: sensors, role: sensor, token: %s}\n",
		operatorToken, queue, patrolToken, sensorToken)
	if err := os.WriteFile(tokens, []byte(text), 0o600); err != nil {
		return s, err
	}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "VIGIE_") {
			s.env = append(s.env, kv)
		}
	}
	s.env = append(s.env,
		"VIGIE_KAFKA_BROKERS="+s.kafka.Addr(), "VIGIE_REDIS_ADDR="+s.redis.Addr(), "VIGIE_KAFKA_PREFIX="+prefix,
		fmt.Sprintf("VIGIE_KAFKA_TOPICS_READS_PARTITIONS=%d", partitions), "VIGIE_HTTP_TOKENS_FILE="+tokens)
	if out, err := s.command(ctx, nil, "topics", "apply").CombinedOutput(); err != nil {
		return s, fmt.Errorf("vigie topics apply: %w\n%s", err, out)
	}
	if s.admin, err = newProducer(s.kafka.Addr(), "none", 1_000_000, 0); err != nil {
		return s, err
	}
	s.cluster, err = kafka.Open(kafka.Config{Brokers: []string{s.kafka.Addr()}, Prefix: prefix})
	return s, err
}

// close ends the services, which have nothing to keep, and removes their folder.
func (s *site) close() error {
	var errs []error
	if s.admin != nil {
		s.admin.Close()
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.Close())
	}
	if s.kafka != nil {
		errs = append(errs, s.kafka.Kill())
	}
	if s.redis != nil {
		errs = append(errs, s.redis.Kill())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// newDB is a database of Redis that nobody has used.
func (s *site) newDB() int {
	s.nextDB++
	return s.nextDB
}

// command is vigie with arguments; more are variables of the environment.
func (s *site) command(ctx context.Context, more []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.bin, args...)
	cmd.Env = append(s.env[:len(s.env):len(s.env)], more...)
	// A Ctrl-C at the terminal is ours to pass on, and nothing is to outlive us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// process is a running vigie serve.
type process struct {
	url  string
	pid  int
	cmd  *exec.Cmd
	tail tail
	end  chan struct{} // closed when it has ended

	began time.Time
	ready time.Duration // from exec to a green /readyz

	// When it was told its partitions, and the processor time it had used by then.
	assigned chan struct{}
	first    time.Time
	firstCPU time.Duration
}

// start is cmd.Start on a thread that stays until the process has ended: with
// Pdeathsig the system ends a process with the thread that started it.
func start(cmd *exec.Cmd, ended func()) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended()
		}
	}()
	return <-started
}

// serve starts vigie with some parts and waits until it is ready.
func (s *site) serve(ctx context.Context, target string, more ...string) (*process, error) {
	cmd := s.command(ctx, more, "serve", "--target", target, "--http", "127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, end: make(chan struct{}), assigned: make(chan struct{}), began: time.Now()}
	url := make(chan string, 1)
	pid := make(chan int, 1)
	ended := func() {
		p.follow(<-pid, stderr, url)
		_ = cmd.Wait()
		close(p.end)
	}
	if err := start(cmd, ended); err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid
	pid <- p.pid
	select {
	case p.url = <-url:
	case <-p.end:
		return nil, fmt.Errorf("vigie serve --target %s ended at its start:\n%s", target, &p.tail)
	}
	err = until(ctx, p, "it is ready", 5*time.Millisecond, func() (bool, error) {
		resp, err := http.Get(p.url + "/readyz")
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK, nil
	})
	p.ready = time.Since(p.began)
	if err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// follow reads the log of the process to its end.
func (p *process) follow(pid int, log io.Reader, url chan<- string) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	seen := false
	for lines.Scan() {
		p.tail.add(lines.Text())
		var l struct{ Msg, URL string }
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			continue
		}
		switch {
		case l.Msg == "serving":
			url <- l.URL
		case l.Msg == "kafka: partitions assigned" && !seen:
			seen = true
			p.first = time.Now()
			p.firstCPU, _ = cpuTime(pid)
			close(p.assigned)
		}
	}
}

// kill ends the process with SIGKILL and waits for it. Nothing it could do on its
// way out is measured.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.end
}

// until polls ok while the process lives. An error of ok is why it is not so yet.
func until(ctx context.Context, p *process, what string, every time.Duration, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited %v until %s", patience, what))
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		done, err := ok()
		if done {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.end:
			return fmt.Errorf("vigie ended before %s:\n%s", what, &p.tail)
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w; the end of its log:\n%s", context.Cause(ctx), err, &p.tail)
		}
	}
}

// get fetches a page of the process.
func (p *process) get(path string) ([]byte, error) {
	req, err := http.NewRequest(http.MethodGet, p.url+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, resp.Status, b)
	}
	return b, err
}

// tail keeps the last lines of a log.
type tail struct{ lines chan string }

const tailLines = 20

func (t *tail) add(line string) {
	if t.lines == nil {
		t.lines = make(chan string, tailLines)
	}
	for {
		select {
		case t.lines <- line:
			return
		default:
			<-t.lines
		}
	}
}

func (t *tail) String() string {
	var b bytes.Buffer
	for len(t.lines) > 0 {
		fmt.Fprintln(&b, <-t.lines)
	}
	return b.String()
}
