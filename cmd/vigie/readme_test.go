package main

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/jpeg"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vigie/stream/alert"
)

// TestQuickStart runs the blocks of the README's quick start as they stand, on
// the real services, with no more than the three addresses changed.
func TestQuickStart(t *testing.T) {
	kafkaAddr, redisAddr := services(t)
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(readme), "<!-- quickstart")
	text, _, ok2 := strings.Cut(text, "<!-- end of quickstart")
	if !ok || !ok2 {
		t.Fatal("the README has lost the marks of its quick start")
	}
	script := "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n"
	for i, block := range strings.Split(text, "```sh\n") {
		if i == 0 {
			continue
		}
		code, _, _ := strings.Cut(block, "```")
		script += code
	}
	script = strings.NewReplacer("127.0.0.1:9092", kafkaAddr, "127.0.0.1:6379", redisAddr, "127.0.0.1:8080", freeAddr(t)).Replace(script)

	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "VIGIE_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "vigie.log"))
		t.Fatalf("the quick start fails: %v\n%s\nvigie.log:\n%s", err, out, log)
	}
	t.Logf("%s", out)

	events, err := os.ReadFile(filepath.Join(dir, "alerts.txt"))
	if err != nil {
		t.Fatal(err)
	}
	_, data, _ := strings.Cut(string(events), "event: alert\n")
	_, data, _ = strings.Cut(data, "data: ")
	data, _, _ = strings.Cut(data, "\n")
	var a alert.Alert
	if err := json.Unmarshal([]byte(data), &a); err != nil {
		t.Fatalf("alert: %v in\n%s", err, events)
	}
	for what, ok := range map[string]bool{
		"list":                    a.List.ID == "stolen" && a.List.Name == "Véhicules volés",
		"reason":                  a.Entry.Reason == "Véhicule volé",
		"action":                  a.Action.String() == "intercept" && a.Stop,
		"plate as read":           a.Read.Plate == "AB I23 CD" && a.Match.Read == "ABI23CD",
		"plate as wanted":         a.Entry.Plate == "AB-123-CD" && a.Match.Entry == "AB123CD",
		"match kind":              a.Match.Kind == "ocr",
		"country relation":        a.Match.Country == "same",
		"control-log version":     a.Match.Version >= a.Entry.Version && a.Entry.Version > 0,
		"positions that differ":   len(a.Match.Differs) == 1 && a.Match.Differs[0] == 2,
		"an id made for the read": a.Read.ID != "",
	} {
		if !ok {
			t.Errorf("the alert does not give the %s: %s", what, data)
		}
	}
}

// TestCameraReadme runs the curl lines of package format against a gateway. Each must be taken,
// and some bring a read; several tell of the same vehicle at the same sensor.
func TestCameraReadme(t *testing.T) {
	s := newSite(t)
	p := s.serve("gateway")
	dir := filepath.Join("..", "..", "sensors", "format")
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, script, ok := strings.Cut(string(readme), "```sh\n")
	script, _, ok2 := strings.Cut(script, "```")
	if !ok || !ok2 {
		t.Fatal("the README of package format has lost its curl lines")
	}
	work := t.TempDir()
	if err := os.CopyFS(work, os.DirFS(filepath.Join(dir, "testdata"))); err != nil {
		t.Fatal(err)
	}
	var picture bytes.Buffer
	if err := jpeg.Encode(&picture, image.NewGray(image.Rect(0, 0, 64, 32)), nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"plate.jpg", "scene.jpg"} {
		if err := os.WriteFile(filepath.Join(work, name), picture.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euc", script)
	cmd.Dir = work
	cmd.Env = append(s.env, "GW="+p.url, "TOKEN="+sensorToken)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	answers, calls := bytes.Count(out, []byte(`{"accepted":`)), strings.Count(script, "\npost ")
	if taken := bytes.Count(out, []byte(`{"accepted":1`)); answers != calls || taken < 8 || bytes.Contains(out, []byte(`"reason"`)) {
		t.Errorf("%d answers to %d calls, %d reads taken:\n%s", answers, calls, taken, out)
	}
}

// freeAddr is a loopback address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
