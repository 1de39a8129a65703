//go:build unix

package services

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vigie/deploy/redis"
)

// RedisConfig says where a Redis server lives. Dir is required.
type RedisConfig struct {
	Dir    string   // for its configuration, data and log; Stop leaves it
	Binary string   // the program; default "redis-server" on the PATH, version 7.0 or newer
	Port   int      // 0 takes a free one and the same again at a restart
	AOF    bool     // keep the data over a restart, as in production; without it a restart is empty
	Args   []string // further arguments, such as --maxmemory 16mb
}

// Redis is a Redis server. Its methods may be called from several goroutines.
type Redis struct {
	*service
	addr string
}

// StartRedis starts a server on the configuration of deploy/redis and waits until it answers
// PING. An error holds the end of its log.
func StartRedis(ctx context.Context, cfg RedisConfig) (*Redis, error) {
	if cfg.Dir == "" {
		return nil, errors.New("services: RedisConfig.Dir is required")
	}
	if cfg.Binary == "" {
		cfg.Binary = "redis-server"
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("services: start Redis: %w", err)
	}
	conf := filepath.Join(cfg.Dir, "redis.conf")
	if err := os.WriteFile(conf, redis.Conf, 0o600); err != nil {
		return nil, fmt.Errorf("services: start Redis: %w", err)
	}
	r := &Redis{}
	err := onPorts(ctx, 1, cfg.Port, func(ctx context.Context, ports []int) error {
		args := []string{"redis.conf", "--bind", "127.0.0.1", "--port", strconv.Itoa(ports[0])}
		if !cfg.AOF {
			args = append(args, "--appendonly", "no")
		}
		args = append(args, cfg.Args...)
		r.addr = local(ports[0])
		r.service = &service{
			name: "Redis",
			log:  filepath.Join(cfg.Dir, "redis.log"),
			command: func() *exec.Cmd {
				cmd := exec.Command(cfg.Binary, args...)
				cmd.Dir = cfg.Dir // its data folder too
				return cmd
			},
			ready: redisReady(r.addr),
		}
		return r.start(ctx)
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// redisReady asks PING; a server that still loads its data, or wants a password, answers
// with an error. The second is as ready as it gets.
func redisReady(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
			return err
		}
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			return err
		}
		if !strings.HasPrefix(answer, "+PONG") && !strings.HasPrefix(answer, "-NOAUTH") {
			return fmt.Errorf("it answers PING with %q", strings.TrimSpace(answer))
		}
		return nil
	}
}

// Addr is the address, host:port; it stays the same over restarts.
func (r *Redis) Addr() string { return r.addr }

// Log is the path of the server's log.
func (r *Redis) Log() string { return r.log }

// Running reports whether the server runs; a paused one does.
func (r *Redis) Running() bool { return r.running() }

// Stop lets the server shut down in order and waits for it, at most 20 s; then it is killed
// and that is an error. Stopping twice is none.
func (r *Redis) Stop() error { return r.end(syscall.SIGTERM) }

// Kill ends the server with SIGKILL and waits for it.
func (r *Redis) Kill() error { return r.end(syscall.SIGKILL) }

// Pause stops the server in its tracks (SIGSTOP): connections stay and are not answered.
func (r *Redis) Pause() error { return r.send(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (r *Redis) Resume() error { return r.send(syscall.SIGCONT) }

// Restart stops the server if it runs, starts it again on the same port and waits until it
// answers.
func (r *Redis) Restart(ctx context.Context) error { return r.restart(ctx) }
