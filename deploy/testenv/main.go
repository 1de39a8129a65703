//go:build unix

// Command testenv runs a command beside a real Kafka broker and a real Redis server:
//
//	go run ./deploy/testenv -- go test ./...
//
// Both are started for this run on free ports of 127.0.0.1 and are gone afterwards, with
// everything they wrote. The command finds them, and the programs that tests use, in its
// environment:
//
//	VIGIE_TEST_KAFKA     host:port of the broker
//	VIGIE_TEST_REDIS     host:port of Redis
//	VIGIE_TEST_CHROMIUM  path of a Chromium or Chrome
//	VIGIE_TEST_KCAT      path of kcat
//	VIGIE_TEST_REQUIRE   1: a test that misses one of these must fail, not skip
//
// What is missing is installed when testenv runs as root on a Debian-like system, unless
// VIGIE_TEST_NO_INSTALL=1; otherwise it is named with the command that brings it. Kafka's jars
// are fetched with Maven once and cached.
//
// Exit codes: the command's own, 128 plus the signal that ended it, 127 if it cannot be run;
// 2 wrong usage, 3 something is missing, 4 a service does not start. (`go run` itself turns
// each but 0 into 1.)
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"vigie/deploy/services"
)

const (
	exitUsage   = 2
	exitMissing = 3
	exitService = 4
	exitCommand = 127
)

func main() {
	os.Exit(run(os.Args[1:], os.Stderr))
}

func run(args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("testenv", flag.ContinueOnError)
	flags.SetOutput(stderr)
	keep := flags.Bool("keep", false, "keep the folder of the services, with their logs, and say where it is")
	heap := flags.String("heap", "512m", "heap of the broker's JVM")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: go run ./deploy/testenv [flags] -- command [args ...]")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return exitUsage
	}
	if flags.NArg() == 0 {
		flags.Usage()
		return exitUsage
	}

	if _, err := exec.LookPath(flags.Arg(0)); err != nil { // before half a minute of preparation
		fmt.Fprintln(stderr, "testenv:", err)
		return exitCommand
	}

	// Until the command runs, a signal ends the preparation; then it is the command's.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	prepared, watched := make(chan struct{}), make(chan struct{})
	var interrupted syscall.Signal // set before watched is closed
	go func() {
		defer close(watched)
		select {
		case s := <-signals:
			interrupted = s.(syscall.Signal)
			cancel(fmt.Errorf("interrupted (%v)", s))
		case <-prepared:
		}
	}()

	env, code := prepare(ctx, *heap, *keep, stderr)
	if env != nil {
		defer env.close(stderr)
	}
	close(prepared)
	<-watched // or it could swallow a signal that is the command's
	if ctx.Err() != nil {
		return 128 + int(interrupted)
	}
	if code != 0 {
		return code
	}
	return command(flags.Args(), env.vars, signals, stderr)
}

// environment is what runs beside the command.
type environment struct {
	dir   string
	keep  bool
	kafka *services.Kafka
	redis *services.Redis
	vars  []string
}

// prepare finds or brings what is needed and starts the services. It returns an environment
// to close even when it fails, as the second result then says.
func prepare(ctx context.Context, heap string, keep bool, stderr io.Writer) (*environment, int) {
	programs, missing := thisMachine().ensure(ctx, stderr)
	if len(missing) > 0 {
		for _, m := range missing {
			fmt.Fprintln(stderr, "testenv:", m)
		}
		return nil, exitMissing
	}
	jars, err := services.KafkaJars(ctx, prefixed{stderr})
	if err != nil {
		fmt.Fprintln(stderr, "testenv:", err)
		return nil, exitMissing
	}
	dir, err := os.MkdirTemp("", "vigie-testenv-")
	if err != nil {
		fmt.Fprintln(stderr, "testenv:", err)
		return nil, exitService
	}
	env := &environment{dir: dir, keep: keep}
	var wg sync.WaitGroup
	var kafkaErr, redisErr error
	began := time.Now()
	wg.Go(func() {
		env.kafka, kafkaErr = services.StartKafka(ctx, services.KafkaConfig{
			Dir: filepath.Join(dir, "kafka"), Jars: jars, Java: programs["java"], Heap: heap,
		})
	})
	wg.Go(func() {
		env.redis, redisErr = services.StartRedis(ctx, services.RedisConfig{
			Dir: filepath.Join(dir, "redis"), Binary: programs["redis-server"], AOF: true,
		})
	})
	wg.Wait()
	if err := errors.Join(kafkaErr, redisErr); err != nil {
		fmt.Fprintln(stderr, "testenv:", err)
		return env, exitService
	}
	fmt.Fprintf(stderr, "testenv: Kafka %s on %s and Redis on %s, after %v\n",
		services.KafkaVersion, env.kafka.Addr(), env.redis.Addr(), time.Since(began).Round(100*time.Millisecond))
	env.vars = []string{
		"VIGIE_TEST_KAFKA=" + env.kafka.Addr(),
		"VIGIE_TEST_REDIS=" + env.redis.Addr(),
		"VIGIE_TEST_CHROMIUM=" + programs["chromium"],
		"VIGIE_TEST_KCAT=" + programs["kcat"],
		"VIGIE_TEST_REQUIRE=1",
	}
	return env, 0
}

// close ends the services and removes their folder. They are killed: nothing they could
// save on the way out is kept.
func (e *environment) close(stderr io.Writer) {
	var errs []error
	if e.kafka != nil {
		if !e.kafka.Running() {
			e.keep = true
			fmt.Fprintln(stderr, "testenv: Kafka ended during the run")
		}
		errs = append(errs, e.kafka.Kill())
	}
	if e.redis != nil {
		if !e.redis.Running() {
			e.keep = true
			fmt.Fprintln(stderr, "testenv: Redis ended during the run")
		}
		errs = append(errs, e.redis.Kill())
	}
	if e.keep {
		fmt.Fprintln(stderr, "testenv: logs and data of the services are in", e.dir)
	} else {
		errs = append(errs, os.RemoveAll(e.dir))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(stderr, "testenv:", err)
	}
}

// command runs the command on our own standard streams and returns its exit code. Signals
// are passed on; at a terminal a Ctrl-C has reached the command already, and a second one
// does no harm to what is run here.
func command(args, vars []string, signals <-chan os.Signal, stderr io.Writer) int {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), vars...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(stderr, "testenv:", err)
		return exitCommand
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s) // it may have ended just now
		case err := <-ended:
			if err == nil {
				return 0
			}
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
					return 128 + int(status.Signal())
				}
				return exit.ExitCode()
			}
			fmt.Fprintln(stderr, "testenv:", err)
			return exitCommand
		}
	}
}

// prefixed marks the lines of others as ours; each Write is whole lines.
type prefixed struct{ io.Writer }

func (p prefixed) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		if _, err := io.WriteString(p.Writer, "testenv: "+line); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}
