//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fake is a machine with the given programs; a version is what they print.
func fake(programs map[string]string) machine {
	return machine{
		os: "linux",
		lookPath: func(name string) (string, error) {
			if _, ok := programs[name]; !ok {
				return "", exec.ErrNotFound
			}
			return "/bin/" + name, nil
		},
		output: func(_ context.Context, program string, _ ...string) (string, error) {
			out := programs[strings.TrimPrefix(program, "/bin/")]
			if out == "broken" {
				return "", errors.New("exit status 1")
			}
			return out, nil
		},
	}
}

// full is what a prepared machine has.
func full() map[string]string {
	return map[string]string{
		"go": "", "mvn": "", "chromium": "", "kcat": "", "gcc": "", "curl": "",
		"java":         "openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment",
		"redis-server": "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=d81b8ff71cfb150e",
	}
}

func TestEnsure(t *testing.T) {
	with := func(change func(map[string]string)) machine {
		programs := full()
		change(programs)
		return fake(programs)
	}
	tests := []struct {
		name    string
		machine machine
		want    []string // parts of the lines, in order; none when all is there
	}{
		{"complete", fake(full()), nil},
		{"empty", fake(nil), []string{
			"go: not found", "java: not found", "mvn: not found", "redis-server: not found", "chromium: not found", "kcat: not found", "gcc: not found", "curl: not found",
		}},
		{"old java", with(func(p map[string]string) { p["java"] = `java version "1.8.0_402"` }), []string{
			"java: /bin/java is version 1.8, older than 17; Kafka runs on it: sudo apt-get install --no-install-recommends openjdk-17-jre-headless",
		}},
		{"java of a whole number", with(func(p map[string]string) { p["java"] = `openjdk version "21" 2023-09-19` }), nil},
		{"old redis", with(func(p map[string]string) { p["redis-server"] = "Redis server v=6.0.16 sha=0" }), []string{
			"redis-server: /bin/redis-server is version 6, older than 7; the alert queues: sudo apt-get install --no-install-recommends redis-server (macOS: brew install redis)",
		}},
		{"broken java", with(func(p map[string]string) { p["java"] = "broken" }), []string{"java: /bin/java does not run (exit status 1)"}},
		{"java that says nothing", with(func(p map[string]string) { p["java"] = "hello" }), []string{"java: /bin/java says no version"}},
		{"another browser", with(func(p map[string]string) { delete(p, "chromium"); p["google-chrome"] = "" }), nil},
		{"old name of kcat", with(func(p map[string]string) { delete(p, "kcat"); p["kafkacat"] = "" }), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found, lines := tt.machine.ensure(t.Context(), t.Output())
			if len(lines) != len(tt.want) {
				t.Fatalf("lines %q, want %d", lines, len(tt.want))
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("line %q, want it to begin with %q", lines[i], want)
				}
				if strings.Contains(lines[i], "\n") {
					t.Errorf("%q is more than one line", lines[i])
				}
			}
			if len(found)+len(lines) != len(needs) {
				t.Errorf("found %v and missing %d of %d", found, len(lines), len(needs))
			}
		})
	}
	t.Run("macOS", func(t *testing.T) {
		m := fake(nil)
		m.os = "darwin"
		_, lines := m.ensure(t.Context(), t.Output())
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasSuffix(l, "brew install --cask chromium") }) ||
			slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "apt-get") }) {
			t.Errorf("lines %q", lines)
		}
	})
	t.Run("jars are there", func(t *testing.T) {
		programs := full()
		delete(programs, "mvn")
		m := fake(programs)
		m.haveJars = true
		if _, lines := m.ensure(t.Context(), t.Output()); len(lines) != 0 {
			t.Errorf("lines %q although Maven has done its work", lines)
		}
	})
}

func TestEnsureInstalls(t *testing.T) {
	programs := full()
	delete(programs, "kcat")
	programs["java"] = `openjdk version "11.0.2"`
	var asked []string
	m := fake(programs)
	m.install = func(_ context.Context, packages []string) error {
		asked = packages
		programs["kcat"] = ""
		programs["java"] = `openjdk version "17.0.15"`
		return nil
	}
	var progress bytes.Buffer
	found, lines := m.ensure(t.Context(), &progress)
	if len(lines) != 0 || found["kcat"] != "/bin/kcat" {
		t.Errorf("found %v, lines %q", found, lines)
	}
	if want := []string{"openjdk-17-jre-headless", "kcat"}; !slices.Equal(asked, want) {
		t.Errorf("installed %v, want %v", asked, want)
	}
	if !strings.Contains(progress.String(), "openjdk-17-jre-headless kcat") {
		t.Errorf("progress %q does not say what is installed", progress.String())
	}

	delete(programs, "kcat")
	m.install = func(context.Context, []string) error { return errors.New("no network") }
	if _, lines := m.ensure(t.Context(), &progress); len(lines) != 1 || !strings.Contains(progress.String(), "no network") {
		t.Errorf("after a failed installation: lines %q, progress %q", lines, progress.String())
	}
	m.install = func(context.Context, []string) error { t.Error("apt-get cannot bring Go"); return nil }
	programs["kcat"] = ""
	delete(programs, "go")
	if _, lines := m.ensure(t.Context(), &progress); len(lines) != 1 || !strings.HasPrefix(lines[0], "go: not found") {
		t.Errorf("without Go: lines %q", lines)
	}
}

// build returns the path of the program.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "testenv")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// TestMissingPrograms runs the real program where nothing is installed.
func TestMissingPrograms(t *testing.T) {
	bin := build(t)
	empty := t.TempDir()
	cmd := exec.CommandContext(t.Context(), bin, "--", os.Args[0])
	cmd.Env = []string{"PATH=" + empty, "HOME=" + empty, "VIGIE_TEST_NO_INSTALL=1"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 {
		t.Fatalf("%v, want exit code 3; stderr %q", err, stderr.String())
	}
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	if len(lines) != len(needs) {
		t.Errorf("%d lines for %d programs: %q", len(lines), len(needs), lines)
	}
	for i, n := range needs {
		if i < len(lines) && !strings.HasPrefix(lines[i], "testenv: "+n.name+": not found; ") {
			t.Errorf("line %q, want one about %s", lines[i], n.name)
		}
	}
	if stdout.Len() > 0 {
		t.Errorf("wrote %q to stdout, which is the command's", stdout.String())
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
	}{{nil, 2}, {[]string{"-nope"}, 2}, {[]string{"-h"}, 0}} {
		var stderr bytes.Buffer
		if code := run(tt.args, &stderr); code != tt.code || !strings.Contains(stderr.String(), "usage: go run ./deploy/testenv") {
			t.Errorf("%q: code %d, stderr %q; want %d and the usage", tt.args, code, stderr.String(), tt.code)
		}
	}
}

// TestCommand: exit codes and signals of the command, without services.
func TestCommand(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		code int
	}{
		{"success", []string{"true"}, 0},
		{"failure", []string{"sh", "-c", "exit 7"}, 7},
		{"environment", []string{"sh", "-c", `test "$VIGIE_TEST_X" = y`}, 0},
		{"killed", []string{"sh", "-c", "kill -9 $$"}, 128 + 9},
		{"absent", []string{"no-such-command"}, 127},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stderr bytes.Buffer
			if got := command(tt.args, []string{"VIGIE_TEST_X=y"}, nil, &stderr); got != tt.code {
				t.Errorf("exit code %d, want %d; stderr %q", got, tt.code, stderr.String())
			}
		})
	}
	t.Run("signal", func(t *testing.T) {
		ready := filepath.Join(t.TempDir(), "ready")
		signals := make(chan os.Signal, 1)
		go func() {
			waitFor(t, ready)
			signals <- syscall.SIGTERM
		}()
		args := []string{"sh", "-c", `trap 'exit 5' TERM; : >"$0"; while :; do sleep 0.05; done`, ready}
		if got := command(args, nil, signals, t.Output()); got != 5 {
			t.Errorf("exit code %d, want 5 from the trap", got)
		}
	})
	t.Run("absent, before anything is started", func(t *testing.T) {
		var stderr bytes.Buffer
		if got := run([]string{"--", "no-such-command"}, &stderr); got != 127 || !strings.Contains(stderr.String(), "no-such-command") {
			t.Errorf("exit code %d, stderr %q; want 127 and the name", got, stderr.String())
		}
	})
}

func TestKeep(t *testing.T) {
	dir := t.TempDir()
	var stderr bytes.Buffer
	(&environment{dir: dir, keep: true}).close(&stderr)
	if _, err := os.Stat(dir); err != nil || !strings.Contains(stderr.String(), dir) {
		t.Errorf("%v; stderr %q, want it to say where the logs are", err, stderr.String())
	}
	(&environment{dir: dir}).close(&stderr)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
}

// TestRun runs the real program with its services: what the command sees, its streams, its
// exit code, and nothing left behind.
func TestRun(t *testing.T) {
	if os.Getenv("VIGIE_TEST_REQUIRE") != "1" {
		t.Skip("starts real services: run it with `go run ./deploy/testenv -- go test ./deploy/testenv`")
	}
	bin := build(t)
	tmp := t.TempDir()
	start := func(t *testing.T, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
		t.Helper()
		stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
		cmd = exec.CommandContext(t.Context(), bin, args...)
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "VIGIE_TEST_NO_INSTALL=1")
		cmd.Stdin = strings.NewReader("from stdin")
		cmd.Stdout, cmd.Stderr = stdout, stderr
		return cmd, stdout, stderr
	}
	check := func(t *testing.T, err error, code int, stderr *bytes.Buffer) {
		t.Helper()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != code {
			t.Errorf("%v, want exit code %d; stderr %s", err, code, stderr)
		}
		if left, err := filepath.Glob(filepath.Join(tmp, "vigie-*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	t.Run("to the end", func(t *testing.T) {
		cmd, stdout, stderr := start(t, "--", "sh", "-c",
			`cat; echo; echo "$VIGIE_TEST_REQUIRE $VIGIE_TEST_CHROMIUM $VIGIE_TEST_REDIS"; "$VIGIE_TEST_KCAT" -L -b "$VIGIE_TEST_KAFKA"; echo to stderr >&2; exit 7`)
		check(t, cmd.Run(), 7, stderr)
		for _, want := range []string{"from stdin\n1 /", " 127.0.0.1:", "1 brokers:"} {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("stdout %q lacks %q", stdout, want)
			}
		}
		if !strings.Contains(stderr.String(), "to stderr\n") {
			t.Errorf("stderr %q lacks the command's", stderr)
		}
	})
	t.Run("interrupted while starting", func(t *testing.T) {
		cmd, stdout, stderr := start(t, "--", "echo", "never")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, filepath.Join(tmp, "vigie-testenv-*", "kafka", "server.properties"))
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		check(t, cmd.Wait(), 128+2, stderr)
		if stdout.Len() > 0 {
			t.Errorf("the command ran: %q", stdout)
		}
	})
}

// waitFor waits for a file to exist.
func waitFor(t *testing.T, pattern string) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s does not appear", pattern)
			return
		}
	}
}
