//go:build linux

package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	kafkago "github.com/segmentio/kafka-go"
)

// patience bounds every wait; only a failing test uses it up.
const patience = 90 * time.Second

// Tokens of every site.
const (
	sensorToken   = "chaos-sensor-0123456789abcdef0123456789abcdef"
	operatorToken = "chaos-operator-0123456789abcdef0123456789abcd"
)

// partitions of the reads topic of a site.
const partitions = 4

// office is what takes reads in and keeps the lists: a process apart, so that what is done to
// matchers does not stop the load.
const office = "gateway,operator,patrol"

// siteConfig says where an installation lives.
type siteConfig struct {
	kafka []string // as harness and office reach it
	redis string   // likewise; empty when env names Sentinels
	// redisNow is where the queues are at a moment, when that changes; nil means redis.
	redisNow func() string
	env      []string // more settings, of every process
}

// site is an installation with names of its own. Its methods are for the goroutine of the test
// unless they say otherwise.
type site struct {
	t    *testing.T
	cfg  siteConfig
	id   string
	dir  string
	env  []string
	vig  string
	kafk *kafkago.Client
	all  []*process
}

func newSite(t *testing.T, cfg siteConfig) *site {
	t.Helper()
	s := &site{t: t, cfg: cfg, vig: program(t), dir: t.TempDir()}
	s.id = fmt.Sprintf("c%08x", rand.Uint32())
	tokens := filepath.Join(s.dir, "tokens.yaml")
	text := fmt.Sprintf("- {name: gantry, role: sensor, token: %s}\n- {name: op-7, role: operator, token: %s}\n", sensorToken, operatorToken)
	if err := os.WriteFile(tokens, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "VIGIE_") {
			s.env = append(s.env, kv)
		}
	}
	s.env = append(s.env, "VIGIE_KAFKA_BROKERS="+strings.Join(cfg.kafka, ","), "VIGIE_KAFKA_PREFIX="+s.id+".", "VIGIE_KAFKA_GROUP="+s.id,
		fmt.Sprintf("VIGIE_KAFKA_TOPICS_READS_PARTITIONS=%d", partitions), "VIGIE_HTTP_TOKENS_FILE="+tokens, "VIGIE_REDIS_ADDR="+cfg.redis)
	s.env = append(s.env, cfg.env...)
	transport := &kafkago.Transport{}
	s.kafk = &kafkago.Client{Addr: kafkago.TCP(cfg.kafka...), Transport: transport, Timeout: 5 * time.Second}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if t.Failed() {
			s.showLogs()
		}
	})
	s.vigie("topics", "apply")
	return s
}

// showLogs shows the end of the log of every process.
func (s *site) showLogs() {
	for _, p := range s.all {
		b, err := os.ReadFile(p.log)
		if err != nil {
			s.t.Logf("log of %s: %v", p.name, err)
			continue
		}
		const most = 6 << 10
		s.t.Logf("the end of the log of %s (pid %d):\n%s", p.name, p.pid(), b[max(0, len(b)-most):])
	}
}

// command is a vigie command with the settings of the site.
func (s *site) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.vig, args...)
	cmd.Env = s.env
	return cmd
}

// vigie runs a command that must succeed and returns its stdout.
func (s *site) vigie(args ...string) []byte {
	s.t.Helper()
	cmd := s.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("vigie %s: %v\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return out
}

// process is a running vigie serve.
type process struct {
	name    string
	log     string // file
	cmd     *exec.Cmd
	serving chan struct{} // closed when it listens
	url     string        // where, once serving is closed
	exited  chan struct{} // closed when it has ended
	end     time.Time     // when that was, once exited is closed

	assignment atomic.Pointer[assignment] // its last one, never nil
}

// assignment is the part of a group that a matcher was given.
type assignment struct {
	generation int64
	partitions []int
}

// start starts a process with some parts and returns at once. More are settings of its own.
func (s *site) start(name, target string, more ...string) *process {
	s.t.Helper()
	p := &process{
		name: name, log: filepath.Join(s.dir, fmt.Sprintf("%s-%d.log", name, len(s.all))),
		cmd:     s.command("serve", "--target", target, "--http", "127.0.0.1:0"),
		serving: make(chan struct{}), exited: make(chan struct{}),
	}
	p.assignment.Store(new(assignment))
	p.cmd.Env = slices.Concat(p.cmd.Env, more)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that panics cleans nothing up
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	file, err := os.Create(p.log)
	if err != nil {
		s.t.Fatal(err)
	}
	started := make(chan error)
	go func() {
		// The system ends the process when the thread that started it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.follow(stderr, file)
		}
	}()
	if err := <-started; err != nil {
		s.t.Fatal(err)
	}
	s.all = append(s.all, p)
	s.t.Cleanup(p.kill)
	return p
}

// follow keeps the log of a process and reads in it until the process has ended.
func (p *process) follow(log io.Reader, file *os.File) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fmt.Fprintf(file, "%s\n", lines.Bytes())
		var l struct {
			Msg, URL   string
			Generation int64
			Partitions []int
		}
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			continue
		}
		switch l.Msg {
		case "serving":
			p.url = l.URL
			close(p.serving)
		case "kafka: partitions assigned":
			p.assignment.Store(&assignment{l.Generation, l.Partitions})
		}
	}
	_ = p.cmd.Wait() // ProcessState says how it ended
	p.end = time.Now()
	file.Close()
	close(p.exited)
}

// serve starts a process and waits until it is ready.
func (s *site) serve(name, target string, more ...string) *process {
	s.t.Helper()
	p := s.start(name, target, more...)
	s.awaitReady(p)
	return p
}

// awaitReady waits until a process that was started is ready.
func (s *site) awaitReady(p *process) {
	s.t.Helper()
	select {
	case <-p.serving:
	case <-p.exited:
		s.t.Fatalf("%s ended at its start", p.name)
	case <-time.After(patience):
		s.t.Fatalf("%s does not start", p.name)
	}
	s.until(p.name+" is ready", p.ready)
}

// generation is the last generation of the group that any process has told of.
func (s *site) generation() (g int64) {
	for _, p := range s.all {
		g = max(g, p.assignment.Load().generation)
	}
	return g
}

// ready reports whether the process says that it does its work.
func (p *process) ready() bool {
	resp, err := http.Get(p.url + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// gone reports whether the process has ended.
func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// kill ends the process with SIGKILL and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.exited
}

// signal sends a signal to a process that must be there.
func (s *site) signal(p *process, sig syscall.Signal) {
	s.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("%s: %v: %v", p.name, sig, err)
	}
}

// terminate sends SIGTERM and returns how long the process took to end, which must be in order
// and within the ten seconds that every process has.
func (s *site) terminate(p *process) time.Duration {
	s.t.Helper()
	began := time.Now()
	s.signal(p, syscall.SIGTERM)
	return s.ended(p, began)
}

// ended waits for a process that was sent SIGTERM at a time; see terminate.
func (s *site) ended(p *process, told time.Time) time.Duration {
	s.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		s.t.Fatalf("%s does not end", p.name)
	}
	took := p.end.Sub(told)
	if took > 10*time.Second {
		s.t.Errorf("%s took %v to end after SIGTERM, more than 10 s", p.name, took)
	}
	select {
	case <-p.serving:
	default:
		return took // it was told before it had started, and says so
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		s.t.Errorf("%s ended with code %d after SIGTERM", p.name, code)
	}
	return took
}

// until waits for a condition that must come.
func (s *site) until(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited %v until %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// errRefused says that a process has answered, and what.
var errRefused = errors.New("refused")

// call makes an HTTP request of a process. It may be called from any goroutine.
func call(ctx context.Context, method, url, token string, body, answer any) error {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode >= 400 && resp.StatusCode < 500:
		return fmt.Errorf("%s %s: %s: %s: %w", method, url, resp.Status, b, errRefused)
	case resp.StatusCode >= 300:
		return fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, b)
	case answer != nil:
		return json.Unmarshal(b, answer)
	}
	return nil
}

// scrape returns the metrics of a process by name and labels. It may be called from any
// goroutine; a process that does not answer within a second has none.
func (p *process) scrape() (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	m := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil && name != "#" {
			m[name] = v
		}
	}
	return m, lines.Err()
}

// metric is one metric of a process that answers.
func (s *site) metric(p *process, name string) float64 {
	s.t.Helper()
	m, err := p.scrape()
	if err != nil {
		s.t.Fatalf("metrics of %s: %v", p.name, err)
	}
	return m[name]
}

func (s *site) readsTopic() string { return s.id + ".reads" }

// committed returns the offsets that the group of the matchers has committed; nil while Kafka
// does not say. It may be called from any goroutine.
func (s *site) committed() []int64 {
	topic := s.readsTopic()
	ids := make([]int, partitions)
	for i := range ids {
		ids[i] = i
	}
	res, err := s.kafk.OffsetFetch(context.Background(), &kafkago.OffsetFetchRequest{GroupID: s.id, Topics: map[string][]int{topic: ids}})
	if err != nil || res.Error != nil || len(res.Topics[topic]) != partitions {
		return nil
	}
	offsets := make([]int64, partitions)
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil
		}
		offsets[p.Partition] = max(p.CommittedOffset, 0)
	}
	return offsets
}

// ends returns the end of each partition of the reads topic; nil while Kafka does not say. It
// may be called from any goroutine.
func (s *site) ends() []int64 {
	topic := s.readsTopic()
	var ask []kafkago.OffsetRequest
	for i := range partitions {
		ask = append(ask, kafkago.LastOffsetOf(i))
	}
	res, err := s.kafk.ListOffsets(context.Background(), &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{topic: ask}})
	if err != nil || len(res.Topics[topic]) != partitions {
		return nil
	}
	offsets := make([]int64, partitions)
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil
		}
		offsets[p.Partition] = p.LastOffset
	}
	return offsets
}

// lag is how many reads are not committed yet, -1 while Kafka does not say.
func (s *site) lag() int64 {
	committed, ends := s.committed(), s.ends()
	if committed == nil || ends == nil {
		return -1
	}
	return sum(ends) - sum(committed)
}

func sum(v []int64) (n int64) {
	for _, x := range v {
		n += x
	}
	return n
}

// dial opens a client of the Redis that keeps the queues now.
func (s *site) dial() *redis.Client {
	addr := s.cfg.redis
	if s.cfg.redisNow != nil {
		addr = s.cfg.redisNow()
	}
	return redis.NewClient(&redis.Options{Addr: addr, DialTimeout: 2 * time.Second, ReadTimeout: 5 * time.Second})
}

// key is the stream of a queue in Redis.
func (s *site) key(queue string) string { return s.id + ":{q:" + queue + "}:alerts" }

// inRedis asks Redis for something that it must answer.
func inRedis[T any](s *site, ask func(*redis.Client) (T, error)) T {
	s.t.Helper()
	rdb := s.dial()
	defer rdb.Close()
	v, err := ask(rdb)
	if err != nil {
		s.t.Fatalf("Redis: %v", err)
	}
	return v
}

// stored returns the messages of a queue.
func (s *site) stored(queue string) []redis.XMessage {
	s.t.Helper()
	return inRedis(s, func(rdb *redis.Client) ([]redis.XMessage, error) {
		return rdb.XRange(context.Background(), s.key(queue), "-", "+").Result()
	})
}

// length is the number of messages of a queue.
func (s *site) length(queue string) int64 {
	s.t.Helper()
	return inRedis(s, func(rdb *redis.Client) (int64, error) { return rdb.XLen(context.Background(), s.key(queue)).Result() })
}
