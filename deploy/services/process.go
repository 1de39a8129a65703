//go:build unix

package services

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// startTimeout bounds a start, however long its context allows.
	startTimeout = 90 * time.Second
	// stopTimeout is how long a service may take to stop before it is killed.
	stopTimeout = 20 * time.Second
	pollEvery   = 50 * time.Millisecond
	tailLines   = 30
)

// service is a program that can be started more than once with the same command.
type service struct {
	name    string
	command func() *exec.Cmd // a fresh one each time
	log     string           // its output, kept over restarts
	ready   func(context.Context) error

	mu   sync.Mutex
	proc *process // nil while it does not run
}

// process is one run of a service.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // why, once done is closed
}

// start runs the service and waits until it answers.
func (s *service) start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.startLocked(ctx)
}

func (s *service) startLocked(ctx context.Context) error {
	if s.proc != nil {
		return fmt.Errorf("services: %s runs already", s.name)
	}
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("services: start %s: %w", s.name, err)
	}
	defer out.Close() // the process has its own
	cmd := s.command()
	cmd.Stdout, cmd.Stderr = out, out
	p, err := launch(cmd)
	if err != nil {
		return fmt.Errorf("services: start %s: %w", s.name, err)
	}
	if err := s.await(ctx, p); err != nil {
		_ = p.signal(syscall.SIGKILL) // it may be gone
		<-p.done
		return fmt.Errorf("services: start %s: %w%s", s.name, err, tail(s.log))
	}
	s.proc = p
	return nil
}

// await polls until the service is ready, has ended or is out of time.
func (s *service) await(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not ready after %v", startTimeout))
	defer cancel()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		last := s.ready(ctx)
		if last == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("it ended: %w", p.err)
		case <-ctx.Done():
			return fmt.Errorf("%w; the last attempt: %w", context.Cause(ctx), last)
		case <-poll.C:
		}
	}
}

// launch starts cmd in a process group of its own. A signal to the group then reaches its
// children, and a Ctrl-C at the terminal does not reach it.
func launch(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = isolated()
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The system ends the process when the thread that started it ends; this one stays
		// until the process has ended by itself.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		if p.err = cmd.Wait(); p.err == nil {
			p.err = errors.New("exit status 0")
		}
		close(p.done)
	}()
	return p, <-started
}

// signal sends sig to the whole group. A group that is gone is no error.
func (p *process) signal(sig syscall.Signal) error {
	if err := syscall.Kill(-p.cmd.Process.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %v: %w", sig, err)
	}
	return nil
}

// end makes a running service end by sig and waits for it. A service that does not run is
// left so.
func (s *service) end(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endLocked(sig)
}

func (s *service) endLocked(sig syscall.Signal) error {
	p := s.proc
	if p == nil {
		return nil
	}
	s.proc = nil
	err := p.signal(sig)
	if sig != syscall.SIGKILL {
		err = errors.Join(err, p.signal(syscall.SIGCONT)) // a paused one would never see it
		select {
		case <-p.done:
		case <-time.After(stopTimeout):
			err = errors.Join(err, fmt.Errorf("still there %v after %v, killed", stopTimeout, sig), p.signal(syscall.SIGKILL))
		}
	}
	<-p.done
	if err != nil {
		return fmt.Errorf("services: stop %s: %w", s.name, err)
	}
	return nil
}

// send signals a running service without ending it.
func (s *service) send(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return fmt.Errorf("services: %s does not run", s.name)
	}
	return s.proc.signal(sig)
}

func (s *service) restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.endLocked(syscall.SIGTERM); err != nil {
		return err
	}
	return s.startLocked(ctx)
}

// running reports whether the service was started and has not ended since.
func (s *service) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return false
	}
	select {
	case <-s.proc.done:
		return false
	default:
		return true
	}
}

// tail returns the end of a log for an error message.
func tail(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Sprintf("\n(its log cannot be read: %v)", err)
	}
	return fmt.Sprintf("\nthe end of its log:\n  %s", lastLines(string(b)))
}

// freePorts returns n ports of 127.0.0.1 that nobody listens on. They lie below the range
// from which the system takes the ports of outgoing connections: a client that keeps
// dialling a killed service would otherwise in time connect to itself and keep the service
// from coming back.
func freePorts(n int) ([]int, error) {
	const low, high, attempts = 20000, 32000, 1000
	var ports []int
	for range attempts {
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(low+rand.IntN(high-low))))
		if err != nil {
			continue
		}
		defer ln.Close() // all at the end, so that none is returned twice
		if ports = append(ports, ln.Addr().(*net.TCPAddr).Port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("services: no free port on 127.0.0.1")
}

// onPorts calls start with n free ports, the first of them fixed unless that is 0. Another
// process may take a free port between the choice and the start, so it tries again with
// others.
func onPorts(ctx context.Context, n, fixed int, start func(context.Context, []int) error) error {
	for attempt := 1; ; attempt++ {
		ports, err := freePorts(n)
		if err != nil {
			return err
		}
		if fixed != 0 {
			ports[0] = fixed
		}
		err = start(ctx, ports)
		if err == nil || fixed != 0 || attempt == 3 || ctx.Err() != nil || !strings.Contains(err.Error(), "in use") {
			return err
		}
	}
}

// run runs a helper program to its end. Its output is for the error.
func run(ctx context.Context, cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := launch(cmd)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.signal(syscall.SIGKILL) })
	defer stop()
	<-p.done
	if cmd.ProcessState.Success() {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w\n  %s", p.err, lastLines(out.String()))
}

// lastLines returns the end of a program's output, indented.
func lastLines(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n  ")
}
