//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"vigie/deploy/services"
)

// need is a program that the test run uses.
type need struct {
	name     string   // what we call it
	programs []string // the names it goes by; the first on the PATH is taken
	why      string
	version  []string       // arguments that make it print its version; nil when any will do
	pattern  *regexp.Regexp // finds major and minor version in that
	least    version
	apt      string // Debian package; "" when Debian's is too old
	brew     string // Homebrew formula or cask
	other    string // instead of both
}

type version struct{ major, minor int }

func (v version) less(w version) bool {
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

func (v version) String() string {
	if v.minor == 0 {
		return strconv.Itoa(v.major)
	}
	return fmt.Sprintf("%d.%d", v.major, v.minor)
}

var needs = []need{
	{
		name: "go", programs: []string{"go"}, why: "the tests build programs with it",
		other: "see https://go.dev/doc/install",
	},
	{
		name: "java", programs: []string{"java"}, why: "Kafka runs on it",
		version: []string{"-version"}, pattern: regexp.MustCompile(`version "(\d+)(?:\.(\d+))?`), least: version{17, 0},
		apt: "openjdk-17-jre-headless", brew: "openjdk@17",
	},
	{
		name: "mvn", programs: []string{"mvn"}, why: "it fetches Kafka's jars",
		apt: "maven", brew: "maven",
	},
	{
		name: "redis-server", programs: []string{"redis-server"}, why: "the alert queues",
		version: []string{"--version"}, pattern: regexp.MustCompile(`v=(\d+)\.(\d+)`), least: version{7, 0},
		apt: "redis-server", brew: "redis",
	},
	{
		name: "chromium", programs: []string{
			"chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
			"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium",
		},
		why: "the console is tested in it",
		apt: "chromium", brew: "--cask chromium",
	},
	{
		name: "kcat", programs: []string{"kcat", "kafkacat"}, why: "another Kafka client reads what we wrote",
		apt: "kcat", brew: "kcat",
	},
	{
		name: "gcc", programs: []string{"gcc", "clang", "cc"}, why: "the race detector needs a C compiler",
		apt: "gcc libc6-dev", brew: "gcc",
	},
	{
		name: "curl", programs: []string{"curl"}, why: "the README's quick start speaks with it",
		apt: "curl", brew: "curl",
	},
}

// machine is what the check asks of the computer it runs on.
type machine struct {
	lookPath func(string) (string, error)
	output   func(ctx context.Context, program string, args ...string) (string, error) // both streams
	install  func(ctx context.Context, packages []string) error                        // nil when we may not
	haveJars bool                                                                      // mvn has done its work
	os       string                                                                    // runtime.GOOS
}

func thisMachine() machine {
	m := machine{lookPath: exec.LookPath, output: output, haveJars: services.HaveKafkaJars(), os: runtime.GOOS}
	_, err := os.Stat("/etc/debian_version")
	if err == nil && os.Geteuid() == 0 && os.Getenv("VIGIE_TEST_NO_INSTALL") != "1" {
		if apt, err := exec.LookPath("apt-get"); err == nil {
			m.install = aptInstall(apt)
		}
	}
	return m
}

// ensure returns the path of each program that is needed, by name. What is missing is
// installed if that is allowed; what is missing then comes back as one line each.
func (m machine) ensure(ctx context.Context, progress io.Writer) (map[string]string, []string) {
	found, missing := m.find(ctx)
	if len(missing) == 0 || m.install == nil {
		return found, m.lines(missing)
	}
	var packages []string
	for _, g := range missing {
		if g.apt != "" {
			packages = append(packages, strings.Fields(g.apt)...)
		}
	}
	if len(packages) == 0 {
		return found, m.lines(missing)
	}
	fmt.Fprintf(progress, "testenv: installing %s with apt-get (VIGIE_TEST_NO_INSTALL=1 forbids it) …\n", strings.Join(packages, " "))
	began := time.Now()
	if err := m.install(ctx, packages); err != nil {
		fmt.Fprintf(progress, "testenv: %v\n", err)
		return found, m.lines(missing)
	}
	fmt.Fprintf(progress, "testenv: installed after %v\n", time.Since(began).Round(time.Second))
	found, missing = m.find(ctx)
	return found, m.lines(missing)
}

// gap is a need that is not met.
type gap struct {
	need
	problem string
}

func (m machine) find(ctx context.Context) (map[string]string, []gap) {
	found := map[string]string{}
	var missing []gap
	for _, n := range needs {
		if n.name == "mvn" && m.haveJars {
			continue
		}
		path, problem := m.check(ctx, n)
		if problem != "" {
			missing = append(missing, gap{n, problem})
			continue
		}
		found[n.name] = path
	}
	return found, missing
}

// check returns where the program is, or what is wrong.
func (m machine) check(ctx context.Context, n need) (path, problem string) {
	for _, name := range n.programs {
		p, err := m.lookPath(name)
		if err != nil {
			continue
		}
		if n.version == nil {
			return p, ""
		}
		out, err := m.output(ctx, p, n.version...)
		if err != nil {
			return "", fmt.Sprintf("%s does not run (%v)", p, err)
		}
		got, ok := parseVersion(n.pattern, out)
		if !ok {
			return "", fmt.Sprintf("%s says no version that we understand", p)
		}
		if got.less(n.least) {
			return "", fmt.Sprintf("%s is version %v, older than %v", p, got, n.least)
		}
		return p, ""
	}
	return "", "not found"
}

func parseVersion(pattern *regexp.Regexp, out string) (version, bool) {
	match := pattern.FindStringSubmatch(out)
	if match == nil {
		return version{}, false
	}
	major, err := strconv.Atoi(match[1])
	minor := 0
	if err == nil && match[2] != "" {
		minor, err = strconv.Atoi(match[2])
	}
	return version{major, minor}, err == nil
}

// lines says for each gap what is missing, why it is needed and which command brings it.
func (m machine) lines(missing []gap) []string {
	var lines []string
	for _, g := range missing {
		bring := "apt-get install --no-install-recommends " + g.apt
		switch {
		case g.other != "":
			bring = g.other
		case m.os == "darwin":
			bring = "brew install " + g.brew
		case m.os != "linux":
			bring = fmt.Sprintf("on Debian or Ubuntu: %s; on macOS: brew install %s", bring, g.brew)
		default:
			bring = fmt.Sprintf("sudo %s (macOS: brew install %s)", bring, g.brew)
		}
		lines = append(lines, fmt.Sprintf("%s: %s; %s: %s", g.name, g.problem, g.why, bring))
	}
	return lines
}

func output(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	return string(out), err
}

// aptInstall installs packages without asking. What apt-get says is shown when it fails.
func aptInstall(apt string) func(context.Context, []string) error {
	return func(ctx context.Context, packages []string) error {
		for _, args := range [][]string{
			{"-q", "update"},
			append([]string{"-q", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "install"}, packages...),
		} {
			cmd := exec.CommandContext(ctx, apt, args...)
			cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
			// Let dpkg finish a package rather than leave it half installed.
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.WaitDelay = 30 * time.Second
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				lines := strings.Split(strings.TrimSpace(out.String()), "\n")
				return errors.Join(fmt.Errorf("apt-get %s: %w", strings.Join(args, " "), err),
					errors.New("  "+strings.Join(lines[max(0, len(lines)-20):], "\n  ")))
			}
		}
		return nil
	}
}
