package spool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"vigie/sensors"
)

const (
	// writerEnv names the directory that the test binary writes to instead of running tests.
	writerEnv = "VIGIE_TEST_SPOOL_WRITER"
	// drainerEnv makes it drain at the same time.
	drainerEnv = "VIGIE_TEST_SPOOL_DRAINER"

	writerCall  = 50
	writerDrain = 100
)

// writer appends for ever and prints the number of the last read of each acknowledged call,
// and that of each drained batch.
func writer(dir string) {
	fatal := func(err error) {
		fmt.Println(err)
		os.Exit(1)
	}
	s, err := Open(Config{Dir: dir, SegmentBytes: 200_000})
	if err != nil {
		fatal(err)
	}
	if os.Getenv(drainerEnv) != "" {
		go func() {
			for {
				last := ""
				n, err := s.Drain(context.Background(), writerDrain, func(_ context.Context, rs []sensors.Read) error {
					last = strings.Clone(rs[len(rs)-1].ID[1:])
					return nil
				})
				if err != nil {
					fatal(err)
				}
				if n > 0 {
					fmt.Println("drained", strings.TrimLeft(last, "0"))
				} else {
					<-s.More()
				}
			}
		}()
	}
	for i := 0; ; i += writerCall {
		if err := s.Append(context.Background(), readsFrom(i, writerCall)); err != nil {
			fatal(err)
		}
		fmt.Println("appended", i+writerCall-1)
	}
}

// startWriter starts a writer, which is killed at the end of the test at the latest.
func startWriter(t *testing.T, dir string, env ...string) (cmd *exec.Cmd, lines *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(exe)
	cmd.Env = append(append(os.Environ(), writerEnv+"="+dir), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, bufio.NewScanner(out)
}

// TestKilled kills a writer in the middle: everything that it has acknowledged and not drained
// is there, in order. What it had drained comes again as far as Drain says.
func TestKilled(t *testing.T) {
	for _, tt := range []struct {
		name string
		stop int
		env  []string
	}{
		{"appending", 2_000, nil},
		{"appending/later", 7_000, nil},
		{"draining", 60_000, []string{drainerEnv + "=1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			cmd, lines := startWriter(t, dir, tt.env...)
			appended, drained, killed := -1, -1, false
			for lines.Scan() {
				var what string
				var n int
				if _, err := fmt.Sscan(lines.Text(), &what, &n); err != nil {
					t.Fatalf("the writer says %q", lines.Text())
				}
				if what == "appended" {
					appended = n
				} else {
					drained = n
				}
				if !killed && appended >= tt.stop {
					cmd.Process.Signal(syscall.SIGKILL)
					killed = true
				}
			}
			if !killed {
				t.Fatalf("the writer ended after %d reads", appended)
			}
			cmd.Wait()
			s := open(t, Config{Dir: dir})
			got := drainAll(t, s, 1000)
			first, next := appended+1, appended+1
			if len(got) > 0 {
				first, _ = strconv.Atoi(got[0].ID[1:])
				next = first + len(got)
			}
			if next <= appended || next > appended+1+writerCall {
				t.Errorf("the last read is %d, want %d and at most one call more", next-1, appended)
			}
			if first > drained+1+writerDrain || first < drained+1-positionReads-writerDrain {
				t.Errorf("the first read is %d, after %d were drained", first, drained+1)
			}
			if drained >= 0 && first == 0 {
				t.Error("no position was stored")
			}
			wantIDs(t, got, readsFrom(first, len(got)))
			if st := s.Stats(); st.Damaged != 0 {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

// tmpfs mounts a file system of a size. It needs root, or the right to user namespaces.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("VIGIE_TEST_REQUIRE") == "" && errors.Is(err, syscall.EPERM) {
			t.Skip("mounting a small file system needs root: run make test as root")
		}
		t.Fatalf("mount: %v; run the tests as root", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// TestDiskFull fills a file system of 8 MB: the spool is full before its last MB, has all that
// it acknowledged, and takes reads again once some are drained.
func TestDiskFull(t *testing.T) {
	dir := tmpfs(t, "8m")
	s := open(t, Config{Dir: dir})
	var acked []sensors.Read
	fill := func() {
		t.Helper()
		for i := 0; ; i++ {
			rs := readsFrom(len(acked), 50)
			err := s.Append(t.Context(), rs)
			if errors.Is(err, ErrFull) {
				break
			}
			if err != nil {
				t.Fatalf("Append: %v", err)
			}
			acked = append(acked, rs...)
		}
		free, err := s.disk.free()
		if err != nil || free < 1<<20 || free > 1<<20+64<<10 {
			t.Errorf("%d bytes are free when the spool is full, %v", free, err)
		}
	}
	fill()
	if st := s.Stats(); st.SyncErrors != 0 || st.Segments < 4 || len(acked) < 20_000 {
		t.Errorf("stats %+v", st)
	}
	var got []sensors.Read
	keep := func(_ context.Context, rs []sensors.Read) error {
		for i := range rs {
			got = append(got, rs[i].Clone())
		}
		return nil
	}
	for s.Stats().Segments > 5 {
		if _, err := s.Drain(t.Context(), 1000, keep); err != nil {
			t.Fatalf("Drain: %v", err)
		}
	}
	fill() // by itself
	got = append(got, drainAll(t, s, 1000)...)
	wantIDs(t, got, acked)
	s.Close()

	// The room goes to somebody else, reserve and all: still nothing that was acknowledged
	// is lost, nothing is acknowledged that is not written, and draining makes room.
	s = open(t, Config{Dir: dir, SegmentBytes: 1 << 20})
	acked, got = nil, nil
	fill()
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := s.Append(t.Context(), readsFrom(0, 50)); !errors.Is(err, ErrFull) {
		t.Errorf("Append on a full disk: %v", err)
	}
	s.cfg.Reserve = -1 << 30 // of a spool that does not look
	if err := s.Append(t.Context(), readsFrom(0, 50)); !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Append on a full disk without a reserve: %v", err)
	}
	s.cfg.Reserve = 1 << 20
	got = drainAll(t, s, 1000)
	wantIDs(t, got, acked)
	appendAll(t, s, read(0))
	if st := s.Stats(); st.Damaged != 0 || st.Depth != 1 {
		t.Errorf("stats %+v", st)
	}
}

// TestLockOfKilled: a process holds its lock as long as it lives.
func TestLockOfKilled(t *testing.T) {
	dir := t.TempDir()
	cmd, lines := startWriter(t, dir)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "appended") {
		t.Fatalf("the writer says %q", lines.Text())
	}
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("Open: %v, want ErrLocked", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if s := open(t, Config{Dir: dir}); s.Stats().Depth < writerCall {
		t.Errorf("stats %+v", s.Stats())
	}
}
