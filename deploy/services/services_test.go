//go:build unix

package services

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
	}
	goleak.VerifyTestMain(m)
}

// needServices skips a test that starts real services, unless it runs where they are there.
func needServices(t *testing.T) {
	t.Helper()
	if os.Getenv("VIGIE_TEST_REQUIRE") != "1" {
		t.Skip("starts a real service: run it with `go run ./deploy/testenv -- go test ./deploy/services`")
	}
}

func startKafka(t *testing.T, cfg KafkaConfig) *Kafka {
	t.Helper()
	needServices(t)
	jars, err := KafkaJars(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dir, cfg.Jars = t.TempDir(), jars
	k, err := StartKafka(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Kill(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func startRedis(t *testing.T, cfg RedisConfig) *Redis {
	t.Helper()
	needServices(t)
	cfg.Dir = t.TempDir()
	r, err := StartRedis(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Kill(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func kafkaClient(t *testing.T, k *Kafka) *kafkago.Client {
	t.Helper()
	tr := &kafkago.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &kafkago.Client{Addr: kafkago.TCP(k.Addr()), Transport: tr, Timeout: 10 * time.Second}
}

func createTopic(t *testing.T, c *kafkago.Client, topic string, configs ...kafkago.ConfigEntry) {
	t.Helper()
	resp, err := c.CreateTopics(t.Context(), &kafkago.CreateTopicsRequest{Topics: []kafkago.TopicConfig{
		{Topic: topic, NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: configs},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Errors[topic]; err != nil {
		t.Fatal(err)
	}
}

func produce(ctx context.Context, c *kafkago.Client, topic, value string) error {
	resp, err := c.Produce(ctx, &kafkago.ProduceRequest{
		Topic: topic, RequiredAcks: kafkago.RequireAll,
		Records: kafkago.NewRecordReader(kafkago.Record{Key: kafkago.NewBytes([]byte("k")), Value: kafkago.NewBytes([]byte(value))}),
	})
	if err != nil {
		return err
	}
	return resp.Error
}

// eventually calls do until it succeeds: after a restart a client first meets the end of its
// old connections, and a topic its leader a moment after the broker.
func eventually(t *testing.T, what string, do func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// values reads topic's partition to its end.
func values(t *testing.T, c *kafkago.Client, topic string) (got []string) {
	t.Helper()
	eventually(t, "fetch "+topic, func() error {
		got = nil
		resp, err := c.Fetch(t.Context(), &kafkago.FetchRequest{Topic: topic, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
		if err == nil {
			err = resp.Error
		}
		if err != nil {
			return err
		}
		for {
			r, err := resp.Records.ReadRecord()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			b, err := kafkago.ReadAll(r.Value)
			if err != nil {
				return err
			}
			got = append(got, string(b))
		}
	})
	return got
}

// TestKafka takes one broker through everything that a test may do to it.
func TestKafka(t *testing.T) {
	began := time.Now()
	k := startKafka(t, KafkaConfig{JVM: QuickJVM})
	t.Logf("first start %v", time.Since(began).Round(time.Millisecond))
	c := kafkaClient(t, k)
	createTopic(t, c, "reads")
	eventually(t, "produce", func() error { return produce(t.Context(), c, "reads", "before") })
	addr := k.Addr()

	t.Run("compacts", func(t *testing.T) { // the configuration lets such a test end within seconds
		createTopic(t, c, "control",
			kafkago.ConfigEntry{ConfigName: "cleanup.policy", ConfigValue: "compact"},
			kafkago.ConfigEntry{ConfigName: "min.cleanable.dirty.ratio", ConfigValue: "0.01"},
			kafkago.ConfigEntry{ConfigName: "segment.ms", ConfigValue: "100"})
		for i := range 5 {
			eventually(t, "produce", func() error { return produce(t.Context(), c, "control", fmt.Sprint("old", i)) })
		}
		began := time.Now()
		eventually(t, "compaction", func() error {
			// The segment in use is not compacted: each write rolls it.
			if err := produce(t.Context(), c, "control", "new"); err != nil {
				return err
			}
			if got := values(t, c, "control"); strings.HasPrefix(got[0], "old") {
				return fmt.Errorf("%d records, the first %q", len(got), got[0])
			}
			return nil
		})
		t.Logf("after %v", time.Since(began).Round(time.Millisecond))
	})

	t.Run("pause", func(t *testing.T) {
		if err := k.Pause(); err != nil {
			t.Fatal(err)
		}
		if !k.Running() {
			t.Error("a paused broker does not run")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := produce(ctx, c, "control", "unanswered"); err == nil {
			t.Error("a paused broker answered")
		}
		if err := k.Resume(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "produce after Resume", func() error { return produce(t.Context(), c, "control", "resumed") })
	})

	t.Run("kill", func(t *testing.T) {
		if err := k.Kill(); err != nil {
			t.Fatal(err)
		}
		if k.Running() {
			t.Error("runs after Kill")
		}
		if err := k.Kill(); err != nil {
			t.Errorf("Kill of a dead broker: %v", err)
		}
		if err := k.Pause(); err == nil {
			t.Error("Pause of a dead broker succeeded")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := produce(ctx, c, "reads", "lost"); err == nil {
			t.Error("a dead broker took a record")
		}
		began := time.Now()
		if err := k.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("restart %v", time.Since(began).Round(time.Millisecond))
		if k.Addr() != addr || !k.Running() {
			t.Errorf("restarted on %s (running %t), want %s", k.Addr(), k.Running(), addr)
		}
		if got := values(t, c, "reads"); len(got) != 1 || got[0] != "before" {
			t.Errorf("%v, want the record from before", got)
		}
	})

	t.Run("restart of a paused one", func(t *testing.T) { // must not wait for ever
		if err := k.Pause(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := k.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("restart %v", time.Since(began).Round(time.Millisecond))
		if got := values(t, c, "reads"); len(got) != 1 || got[0] != "before" {
			t.Errorf("%v, want the record from before", got)
		}
	})
}

func TestKafkaSaysWhyItDoesNotStart(t *testing.T) {
	needServices(t)
	jars, err := KafkaJars(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	_, err = StartKafka(t.Context(), KafkaConfig{Dir: t.TempDir(), Jars: jars, JVM: QuickJVM, Properties: map[string]string{"num.io.threads": "many"}})
	if err == nil || !strings.Contains(err.Error(), "num.io.threads") {
		t.Errorf("a wrong setting: %v", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = StartKafka(t.Context(), KafkaConfig{Dir: t.TempDir(), Jars: jars, JVM: QuickJVM, Port: ln.Addr().(*net.TCPAddr).Port})
	if err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a port in use: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("changed my mind"))
	_, err = StartKafka(ctx, KafkaConfig{Dir: t.TempDir(), Jars: jars})
	if err == nil || !strings.Contains(err.Error(), "changed my mind") {
		t.Errorf("cancelled: %v", err)
	}
}

// ask sends one inline command and returns the first line of the answer.
func ask(addr, command string) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if strings.HasPrefix(line, "$") && line != "$-1\r\n" { // the value follows
		line, err = r.ReadString('\n')
	}
	return strings.TrimSpace(line), err
}

func mustAsk(t *testing.T, addr, command string) string {
	t.Helper()
	answer, err := ask(addr, command)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return answer
}

func TestRedis(t *testing.T) {
	for _, tt := range []struct {
		aof  bool
		want string
	}{{true, "1"}, {false, "$-1"}} {
		t.Run(fmt.Sprintf("aof=%t", tt.aof), func(t *testing.T) {
			began := time.Now()
			r := startRedis(t, RedisConfig{AOF: tt.aof, Args: []string{"--maxmemory", "64mb"}})
			t.Logf("start %v", time.Since(began).Round(time.Millisecond))
			if got := mustAsk(t, r.Addr(), "SET k 1"); got != "+OK" {
				t.Fatal(got)
			}
			if got := mustAsk(t, r.Addr(), "INFO memory"); !strings.HasPrefix(got, "#") {
				t.Errorf("INFO answers %q", got)
			}
			if err := r.Pause(); err != nil {
				t.Fatal(err)
			}
			if got, err := ask(r.Addr(), "PING"); err == nil {
				t.Errorf("a paused server answers %q", got)
			}
			if err := r.Resume(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "PING", func() error { _, err := ask(r.Addr(), "PING"); return err })
			if err := r.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := r.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := mustAsk(t, r.Addr(), "GET k"); got != tt.want {
				t.Errorf("after Kill and Restart the key is %q, want %q", got, tt.want)
			}
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
			if err := r.Stop(); err != nil {
				t.Errorf("second Stop: %v", err)
			}
		})
	}
}

func TestRedisSaysWhyItDoesNotStart(t *testing.T) {
	needServices(t)
	_, err := StartRedis(t.Context(), RedisConfig{Dir: t.TempDir(), Args: []string{"--maxmemory", "lots"}})
	if err == nil || !strings.Contains(err.Error(), "maxmemory") {
		t.Errorf("a wrong setting: %v", err)
	}
	_, err = StartRedis(t.Context(), RedisConfig{Dir: t.TempDir(), Binary: "redis-server-of-tomorrow"})
	if !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("no such program: %v", err)
	}
}

// childEnv, when set, makes the test binary a parent that starts a server in that folder,
// says where it listens and waits to be killed.
const childEnv = "VIGIE_SERVICES_TEST_DIR"

func child() {
	r, err := StartRedis(context.Background(), RedisConfig{Dir: os.Getenv(childEnv)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(r.Addr())
	for range 20 { // threads that start and end are what Pdeathsig must not be fooled by
		done := make(chan struct{})
		go func() { runtime.LockOSThread(); close(done) }()
		<-done
	}
	select {}
}

func TestServicesEndWithTheirParent(t *testing.T) {
	needServices(t)
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a process with its parent")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimSpace(line)
	time.Sleep(200 * time.Millisecond) // for the child's threads to come and go
	mustAsk(t, addr, "PING")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the child ended by itself")
	}
	eventually(t, "the orphan's end", func() error {
		if _, err := ask(addr, "PING"); err == nil {
			return errors.New("it still answers")
		}
		return nil
	})
}

func TestRequiredFields(t *testing.T) {
	if _, err := StartKafka(t.Context(), KafkaConfig{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "Jars") {
		t.Errorf("without Jars: %v", err)
	}
	if _, err := StartRedis(t.Context(), RedisConfig{}); err == nil || !strings.Contains(err.Error(), "Dir") {
		t.Errorf("without Dir: %v", err)
	}
}

// TestJarsAreWholeOrAbsent: a fetch that fails or is cut short is done again, and jars of
// another pom are replaced.
func TestJarsAreWholeOrAbsent(t *testing.T) {
	cache := t.TempDir()
	var progress bytes.Buffer
	fetches := 0
	fetch := func(_ context.Context, dir string) error {
		fetches++
		return os.WriteFile(filepath.Join(dir, "a.jar"), []byte{byte(fetches)}, 0o644)
	}
	broken := func(_ context.Context, dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "a.jar"), nil, 0o644); err != nil {
			return err
		}
		return errors.New("the network is gone")
	}
	if _, err := kafkaJars(t.Context(), cache, &progress, broken); err == nil || !strings.Contains(err.Error(), "the network is gone") {
		t.Fatalf("a broken fetch: %v", err)
	}
	if entries, err := os.ReadDir(cache); err != nil || len(entries) != 0 {
		t.Errorf("a broken fetch left %v, %v", entries, err)
	}
	dir, err := kafkaJars(t.Context(), cache, &progress, fetch)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(progress.String(), KafkaVersion) {
		t.Errorf("progress %q does not say what is fetched", progress.String())
	}
	if again, err := kafkaJars(t.Context(), cache, &progress, broken); err != nil || again != dir {
		t.Errorf("the second time: %q, %v; want %q without a fetch", again, err, dir)
	}
	if err := os.WriteFile(filepath.Join(dir, complete), []byte("of another pom"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := kafkaJars(t.Context(), cache, &progress, fetch); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a.jar")); err != nil || got[0] != 2 {
		t.Errorf("jars of another pom were kept: %v, %v", got, err)
	}
	if entries, err := os.ReadDir(cache); err != nil || len(entries) != 1 {
		t.Errorf("the cache holds %v, %v", entries, err)
	}
}

func TestFreePorts(t *testing.T) {
	ports, err := freePorts(50)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range ports {
		if seen[p] {
			t.Errorf("port %d twice", p)
		}
		if p >= 32768 {
			t.Errorf("port %d is one that outgoing connections get", p)
		}
		seen[p] = true
	}
}
