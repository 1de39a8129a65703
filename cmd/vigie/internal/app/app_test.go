package app

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"vigie/cmd/vigie/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// embeddedConfig is the configuration of `vigie serve` without settings, on a
// free port.
func embeddedConfig(t *testing.T) config.Config {
	t.Helper()
	cfg, err := config.Load("", nil, map[string]string{"http.addr": "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestRunAndStop starts every part on embedded services, waits until it is
// ready, and stops it: Run returns nil and, by TestMain, no goroutine stays.
func TestRunAndStop(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	a, err := New(t.Context(), embeddedConfig(t), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	host, _, err := net.SplitHostPort(strings.TrimPrefix(a.URL(), "http://"))
	if err != nil || !net.ParseIP(host).IsLoopback() {
		t.Errorf("listens on %s, want a loopback address", a.URL())
	}
	for name, secret := range a.Secrets() {
		if len(secret) < 40 {
			t.Errorf("token %s has %d characters", name, len(secret))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	deadline := time.Now().Add(30 * time.Second)
	for get(t, a.URL()+"/readyz?verbose") == "" {
		if time.Now().After(deadline) {
			t.Fatal("it does not become ready")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if text := get(t, a.URL()+"/readyz?verbose"); !strings.Contains(text, "control log") || !strings.Contains(text, "redis") {
		t.Errorf("readyz: %s", text)
	}
	metrics := get(t, a.URL()+"/metrics")
	for _, name := range []string{
		"vigie_control_version", "vigie_matcher_entries", "vigie_stream_reads_total", "vigie_stream_latency_seconds_bucket",
		"vigie_control_age_seconds", "vigie_stream_panics_total", "vigie_stream_unknown_sensor_reads_total", "vigie_stream_batch_reads_bucket",
		`vigie_stream_stage_seconds_bucket{stage="queues",le="0.003"}`, `vigie_stream_stage_seconds_sum{stage="match"}`,
		"vigie_sensors_accepted_reads_total", "vigie_redisqueue_stored_alerts_total", "vigie_redisqueue_subscribers", "vigie_queues_failovers_total", "vigie_queues_blocked_seconds", "vigie_redisqueue_refusals_total", "vigie_http_requests_total", "go_goroutines",
	} {
		if !strings.Contains(metrics, "\n"+name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Run does not end")
	}
	if err := a.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

// get returns the body of a 200, "" for any other answer.
func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(b)
}

// TestNewClosesWhatItOpened fails at the last part, the HTTP port, with all
// others running: the data folder must be free again.
func TestNewClosesWhatItOpened(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	cfg := embeddedConfig(t)
	cfg.Data = filepath.Join(t.TempDir(), "data")
	cfg.HTTP.Addr = busy.Addr().String()
	for range 2 {
		_, err := New(t.Context(), cfg, zap.NewNop())
		if err == nil || !strings.Contains(err.Error(), cfg.HTTP.Addr) {
			t.Fatalf("got %v, want an error that names %s", err, cfg.HTTP.Addr)
		}
	}
}

func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.yaml")
	if err := os.WriteFile(broken, []byte("- name: x\n  rolle: operator\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		set  func(*config.Config)
		want string
	}{
		{"no tokens file", func(c *config.Config) { c.HTTP.TokensFile = filepath.Join(dir, "none.yaml") }, "http.tokens_file"},
		{"bad tokens file", func(c *config.Config) { c.HTTP.TokensFile = broken }, "rolle"},
		{"no CA file", func(c *config.Config) { c.Redis.TLS = config.TLS{Enabled: true, CAFile: filepath.Join(dir, "ca.pem")} }, "redis.tls.ca_file"},
		{"CA file without a certificate", func(c *config.Config) { c.Redis.TLS = config.TLS{Enabled: true, CAFile: broken} }, "no PEM certificate"},
		{"half a key pair", func(c *config.Config) { c.Redis.TLS = config.TLS{Enabled: true, CertFile: broken} }, "go together"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := embeddedConfig(t)
			tc.set(&cfg)
			a, err := New(t.Context(), cfg, zap.NewNop())
			if err == nil {
				err = errors.Join(errors.New("accepted"), a.Close())
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}
