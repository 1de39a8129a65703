package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vigie/sensors"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		writer(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// arrived is when the reads of a test arrived.
var arrived = time.Now().UnixMilli()

// read is the nth read of a test.
func read(n int) sensors.Read {
	return sensors.Read{
		ID: fmt.Sprintf("r%06d", n), Sensor: fmt.Sprint("A7-", n%3), Plate: fmt.Sprintf("AB%03dCD", n%1000), Country: "FR",
		TS: arrived - 50, Received: arrived, Conf: 0.9, Passage: fmt.Sprint("p", n/2),
		Candidates: []sensors.Candidate{{Plate: "A8123CD", Conf: 0.3}}, CharConf: []float32{0.9, 0.8, 0.7, 1, 1, 0.5, 0.25},
	}
}

func readsFrom(first, n int) (rs []sensors.Read) {
	for i := range n {
		rs = append(rs, read(first+i))
	}
	return rs
}

func open(t testing.TB, cfg Config) *Spool {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func appendAll(t testing.TB, s *Spool, rs ...sensors.Read) {
	t.Helper()
	if err := s.Append(t.Context(), rs); err != nil {
		t.Fatalf("Append: %v", err)
	}
}

// drainAll drains everything, max reads at a time.
func drainAll(t testing.TB, s *Spool, max int) (got []sensors.Read) {
	t.Helper()
	for {
		n, err := s.Drain(t.Context(), max, func(_ context.Context, rs []sensors.Read) error {
			if len(rs) > max {
				t.Errorf("%d reads at once, want at most %d", len(rs), max)
			}
			for i := range rs {
				got = append(got, rs[i].Clone())
			}
			return nil
		})
		if err != nil {
			t.Fatalf("Drain: %v", err)
		}
		if n == 0 {
			return got
		}
	}
}

func ids(rs []sensors.Read) (s []string) {
	for i := range rs {
		s = append(s, rs[i].ID)
	}
	return s
}

func wantReads(t testing.TB, got, want []sensors.Read) {
	t.Helper()
	if !slices.Equal(ids(got), ids(want)) {
		t.Fatalf("reads %v, want %v", ids(got), ids(want))
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("read %s came back changed", want[i].ID)
		}
	}
}

func TestAppendAndDrain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s := open(t, Config{Dir: dir, SegmentBytes: 1000})
	want := readsFrom(0, 100)
	for i := 0; i < 100; i += 5 {
		appendAll(t, s, want[i:i+5]...)
	}
	st := s.Stats()
	if st.Depth != 100 || st.Appended != 100 || st.Segments < 5 || st.Bytes < 5000 || st.OldestAge <= 0 || st.OldestAge > time.Since(time.UnixMilli(arrived)) {
		t.Errorf("stats %+v", st)
	}
	var modes []fs.FileMode
	fs.WalkDir(os.DirFS(dir), ".", func(_ string, e fs.DirEntry, _ error) error {
		info, _ := e.Info()
		modes = append(modes, info.Mode())
		return nil
	})
	for i, m := range modes {
		if want := map[bool]fs.FileMode{true: fs.ModeDir | 0o700, false: 0o600}[i == 0]; m != want {
			t.Errorf("mode %v, want %v", m, want)
		}
	}
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open: %v, want ErrLocked", err)
	}

	broken := errors.New("broken")
	if n, err := s.Drain(t.Context(), 7, func(context.Context, []sensors.Read) error { return broken }); n != 0 || !errors.Is(err, broken) {
		t.Errorf("Drain: %d, %v, want the error of the callback", n, err)
	}
	var got []sensors.Read
	for len(got) < 50 {
		if _, err := s.Drain(t.Context(), 7, func(_ context.Context, rs []sensors.Read) error {
			for i := range rs {
				got = append(got, rs[i].Clone())
			}
			return nil
		}); err != nil {
			t.Fatalf("Drain: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if err := s.Append(t.Context(), want[:1]); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Close: %v", err)
	}
	if _, err := s.Drain(t.Context(), 1, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Drain after Close: %v", err)
	}

	s = open(t, Config{Dir: dir, SegmentBytes: 1000})
	if st := s.Stats(); st.Depth != uint64(100-len(got)) || st.TornTails != 0 {
		t.Errorf("stats %+v after opening again, want %d reads", st, 100-len(got))
	}
	if r := want[99]; !s.Holds(&r) {
		t.Error("the last passage is not known after opening again")
	}
	if r := want[0]; s.Holds(&r) {
		t.Error("a drained passage is held")
	}
	more := readsFrom(100, 3)
	appendAll(t, s, more...)
	got = append(got, drainAll(t, s, 1000)...)
	wantReads(t, got, append(want, more...))
	st = s.Stats()
	if st.Depth != 0 || st.Segments > 1 || st.Damaged != 0 || st.OldestAge != 0 {
		t.Errorf("stats %+v of an empty spool", st)
	}
	s.Close()
	if st := s.Stats(); st.Segments != 0 || st.Bytes != 0 {
		t.Errorf("stats %+v of an empty spool", st)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix)); len(names) > 0 {
		t.Errorf("files %v are left of an empty spool", names)
	}
	if r := more[2]; s.Holds(&r) {
		t.Error("an empty spool holds a passage")
	}
	// Numbers go on where they were, so that the position never lies ahead of new reads.
	s = open(t, Config{Dir: dir})
	appendAll(t, s, read(200))
	s.Close()
	s = open(t, Config{Dir: dir})
	wantIDs(t, drainAll(t, s, 10), readsFrom(200, 1))
}

// TestInvalid: a read that cannot be written is refused before any is.
func TestInvalid(t *testing.T) {
	s := open(t, newMemDisk().config(Config{}))
	bad := read(2)
	bad.Make = "\xff"
	if err := s.Append(t.Context(), []sensors.Read{read(1), bad}); !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "AB") {
		t.Errorf("Append: %v, want ErrInvalid", err)
	}
	if err := s.Append(t.Context(), nil); err != nil {
		t.Errorf("Append of nothing: %v", err)
	}
	if st := s.Stats(); st.Depth != 0 || st.Segments != 0 {
		t.Errorf("stats %+v", st)
	}
	if _, err := Open(Config{}); err == nil {
		t.Error("Open without a directory")
	}
	if _, err := Open(Config{Dir: "x", MaxBytes: -1}); err == nil {
		t.Error("Open with a negative size")
	}
}

// small is a spool of 20 reads in 3 segments, and where each record lies.
func small(t *testing.T) (*memDisk, []sensors.Read) {
	t.Helper()
	d := newMemDisk()
	s := open(t, d.config(Config{SegmentBytes: 1000}))
	want := readsFrom(0, 20)
	for i := range want {
		appendAll(t, s, want[i])
	}
	s.Close()
	if n := len(d.segments()); n != 3 {
		t.Fatalf("%d segments, want 3", n)
	}
	return d, want
}

// recordAt is which record of a segment a byte belongs to; -1 for the header.
func recordAt(data []byte, at int) int {
	n, end := -1, headerBytes
	for at >= end {
		end += recordHeader + int(binary.LittleEndian.Uint32(data[end+8:]))
		n++
	}
	return n
}

// without is rs without those from first on, n of them.
func without(rs []sensors.Read, first, n int) []sensors.Read {
	return slices.Concat(rs[:first], rs[first+n:])
}

// TestTornTail cuts each segment at every byte: whatever lies before the cut is there, and so
// are the other segments, and appending goes on.
func TestTornTail(t *testing.T) {
	d, want := small(t)
	base := 0
	for i, name := range d.segments() {
		whole := d.files[name].data
		records := recordAt(whole, len(whole)-1) + 1
		for size := range len(whole) {
			damaged := d.snapshot()
			damaged.put(name, whole[:size])
			keep := 0
			if size > headerBytes {
				keep = recordAt(whole, size) // the one that is cut, or the first behind the cut
			}
			s := open(t, damaged.config(Config{}))
			last := read(99)
			appendAll(t, s, last)
			wantReads(t, drainAll(t, s, 4), append(without(want, base+keep, records-keep), last))
			st := s.Stats()
			lost := uint64(records - keep)
			if i == 2 {
				lost = 0 // nobody can tell what was there
			}
			if whole := size == 0 || size == headerBytes || recordAt(whole, size-1) != recordAt(whole, size); st.Damaged != lost || st.TornTails != 0 && (i != 2 || whole && size > headerBytes) {
				t.Fatalf("segment %d cut at %d: stats %+v, want %d damaged", i, size, st, lost)
			}
			s.Close()
		}
		base += records
	}
}

// flips flips bits of every byte of each segment, opens the spool and calls check with what
// it drains.
func flips(t *testing.T, cfg Config, bits int, check func(segment, at int, hit int, got []sensors.Read, st Stats)) {
	d, _ := small(t)
	base := 0
	for i, name := range d.segments() {
		whole := d.files[name].data
		records := recordAt(whole, len(whole)-1) + 1
		for at := range whole {
			for bit := 0; bit < 8; bit += 8 / bits {
				damaged := d.snapshot()
				damaged.files[name].data[at] ^= 1 << ((bit + at) % 8)
				s, err := Open(damaged.config(cfg))
				if err != nil {
					t.Fatalf("segment %d byte %d: Open: %v", i, at, err)
				}
				hit := recordAt(whole, at)
				if hit >= 0 {
					hit += base
				}
				got := drainAll(t, s, 100)
				check(i, at, hit, got, s.Stats())
				s.Close()
			}
		}
		base += records
	}
}

// TestFlippedBit flips each bit: the record that has it is lost and counted, every other comes
// back as it was, and nothing else does.
func TestFlippedBit(t *testing.T) {
	want := readsFrom(0, 20)
	flips(t, Config{}, 4, func(i, at, hit int, got []sensors.Read, st Stats) {
		expect, lost := want, 0
		if hit >= 0 {
			expect, lost = without(want, hit, 1), 1
		}
		if !reflect.DeepEqual(got, expect) {
			t.Fatalf("segment %d byte %d: reads %v, or others than they were", i, at, ids(got))
		}
		if torn := hit == 19; torn != (st.TornTails == 1) || !torn && st.Damaged != uint64(lost) {
			t.Fatalf("segment %d byte %d: stats %+v, want %d damaged", i, at, st, lost)
		}
	})
}

// TestFlippedBitUnchecked is TestFlippedBit with a spool that believes every CRC: it must hand
// on garbage, or TestFlippedBit sees nothing.
func TestFlippedBitUnchecked(t *testing.T) {
	want := readsFrom(0, 20)
	garbage := 0
	flips(t, Config{noCRC: true}, 1, func(_, _, _ int, got []sensors.Read, _ Stats) {
		for k := range got {
			i := slices.IndexFunc(want, func(r sensors.Read) bool { return r.ID == got[k].ID })
			if i < 0 || got[k].Plate != want[i].Plate || got[k].Sensor != want[i].Sensor {
				garbage++
				break
			}
		}
	})
	if garbage < 300 {
		t.Errorf("%d flips gave another plate, sensor or id without the CRC, want about one for each byte of these", garbage)
	}
}

func TestDamagedDirectory(t *testing.T) {
	tests := []struct {
		name    string
		damage  func(d *memDisk, segs []string)
		lost    [2]int // from, how many
		damaged uint64
	}{
		{"nothing", func(*memDisk, []string) {}, [2]int{}, 0},
		{"foreign files", func(d *memDisk, _ []string) {
			d.put("README", []byte("not ours"))
			d.put("1.seg", []byte("nor this"))
			d.put("00000000000000000000.seg", nil)
			d.put("99999999999999999999.seg", nil)
			d.put("position.new", []byte("cut off"))
		}, [2]int{}, 0},
		{"an empty last segment", func(d *memDisk, _ []string) { d.put(segmentName(21), nil) }, [2]int{}, 0},
		{"a last segment with a header only", func(d *memDisk, _ []string) { d.put(segmentName(21), appendHeader(nil, 21)) }, [2]int{}, 0},
		{"the first segment is missing", func(d *memDisk, segs []string) { delete(d.files, segs[0]) }, [2]int{0, 9}, 9},
		{"the second segment is missing", func(d *memDisk, segs []string) { delete(d.files, segs[1]) }, [2]int{9, 9}, 9},
		{"the second segment is empty", func(d *memDisk, segs []string) { d.put(segs[1], nil) }, [2]int{9, 9}, 9},
		{"the second segment is zeros", func(d *memDisk, segs []string) { d.put(segs[1], make([]byte, 2000)) }, [2]int{9, 9}, 9},
		{"the second segment is a copy of the first", func(d *memDisk, segs []string) {
			d.put(segs[1], d.files[segs[0]].data)
		}, [2]int{9, 9}, 9},
		{"garbage in front of the second", func(d *memDisk, segs []string) {
			d.put(segs[1], slices.Concat(make([]byte, 10_000), d.files[segs[1]].data))
		}, [2]int{}, 0},
		{"the position is missing", func(d *memDisk, _ []string) { delete(d.files, positionName) }, [2]int{}, 0},
		{"the position is damaged", func(d *memDisk, _ []string) { d.put(positionName, []byte("garbage!----")) }, [2]int{}, 0},
		{"the position is far too long", func(d *memDisk, _ []string) { d.put(positionName, make([]byte, 100)) }, [2]int{}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, want := small(t)
			d.put(positionName, formatPosition(1))
			tt.damage(d, d.segments())
			if n := len(d.segments()); n < 2 {
				t.Fatalf("%d segments", n)
			}
			s := open(t, d.config(Config{}))
			last := read(99)
			appendAll(t, s, last)
			wantReads(t, drainAll(t, s, 100), append(without(want, tt.lost[0], tt.lost[1]), last))
			if st := s.Stats(); st.Damaged != tt.damaged {
				t.Errorf("stats %+v, want %d damaged", st, tt.damaged)
			}
			if d.files["README"] == nil && tt.name == "foreign files" {
				t.Error("a foreign file was removed")
			}
		})
	}
}

// TestVersion: a segment of a later version is neither drained nor damaged.
func TestVersion(t *testing.T) {
	d := newMemDisk()
	h := appendHeader(nil, 1)
	h[8] = 2
	h = binary.LittleEndian.AppendUint32(h[:headerBytes-4], crc32.Checksum(h[:headerBytes-4], castagnoli))
	d.put(segmentName(1), h)
	if _, err := Open(d.config(Config{})); !errors.Is(err, errVersion) {
		t.Errorf("Open: %v, want errVersion", err)
	}
	if len(d.segments()) != 1 {
		t.Error("the segment was removed")
	}
}

// TestFailingDisk makes each kind of operation fail: nothing of it is acknowledged, what was
// acknowledged before stays, and it goes on when the disk does.
func TestFailingDisk(t *testing.T) {
	for _, op := range []string{"create", "write", "sync", "dirsync"} {
		for _, cause := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
			for _, acked := range []int{0, 5} {
				if op == "dirsync" && acked > 0 || op == "create" && acked > 0 {
					continue // they come with a new segment only
				}
				t.Run(fmt.Sprintf("%s/%v/after=%d", op, cause, acked), func(t *testing.T) {
					d := newMemDisk()
					s := open(t, d.config(Config{}))
					for i := range acked {
						appendAll(t, s, read(i))
					}
					d.mu.Lock()
					d.fail = func(o, _ string) error {
						if o == op || o == "truncate" || o == "remove" {
							return cause
						}
						return nil
					}
					d.mu.Unlock()
					for range 3 {
						err := s.Append(t.Context(), readsFrom(50, 2))
						if !errors.Is(err, cause) || errors.Is(err, ErrFull) != (cause == syscall.ENOSPC) {
							t.Fatalf("Append: %v, want %v", err, cause)
						}
					}
					if st := s.Stats(); st.SyncErrors != 3 || st.Appended != uint64(acked) || st.Depth != uint64(acked) {
						t.Errorf("stats %+v", st)
					}
					d.mu.Lock()
					d.fail = nil
					d.mu.Unlock()
					appendAll(t, s, readsFrom(60, 3)...)
					want := slices.Concat(readsFrom(0, acked), readsFrom(60, 3))

					// After a restart, what could not be cut off is left out.
					again := open(t, d.snapshot().config(Config{}))
					wantIDs(t, drainAll(t, again, 10), want)
					wantIDs(t, drainAll(t, s, 10), want)
					for _, s := range []*Spool{s, again} {
						s.Close()
						if st := s.Stats(); st.Damaged != 0 || st.Depth != 0 || st.Segments != 0 {
							t.Errorf("stats %+v", st)
						}
					}
				})
			}
		}
	}
}

func wantIDs(t testing.TB, got, want []sensors.Read) {
	t.Helper()
	if !slices.Equal(ids(got), ids(want)) {
		t.Fatalf("reads %v, want %v", ids(got), ids(want))
	}
}

// powerLosses appends and drains at random, loses the power, and returns how many of the
// acknowledged reads that were not drained are missing then.
func powerLosses(t *testing.T, lies bool) (missing int) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 7))
		d := newMemDisk()
		d.lies = lies
		if rng.IntN(2) == 0 {
			n := rng.IntN(30)
			d.fail = func(op, _ string) error {
				if n--; n < 0 && n > -4 && op != "read" && op != "open" {
					return syscall.EIO
				}
				return nil
			}
		}
		s, err := Open(d.config(Config{SegmentBytes: 600}))
		if err != nil {
			t.Fatal(err)
		}
		var acked []string
		gone := map[string]bool{}
		for i := range rng.IntN(40) {
			if rng.IntN(4) == 0 {
				s.Drain(t.Context(), 1+rng.IntN(4), func(_ context.Context, rs []sensors.Read) error {
					for i := range rs {
						gone[strings.Clone(rs[i].ID)] = true
					}
					return nil
				})
				continue
			}
			rs := readsFrom(i*10, 1+rng.IntN(3))
			if s.Append(t.Context(), rs) == nil {
				acked = append(acked, ids(rs)...)
			}
		}
		again := open(t, d.powerLoss(rng).config(Config{}))
		if st := again.Stats(); !lies && st.Damaged != 0 {
			t.Fatalf("seed %d: stats %+v", seed, st)
		}
		got := ids(drainAll(t, again, 10))
		if !slices.IsSorted(got) {
			t.Fatalf("seed %d: out of order: %v", seed, got)
		}
		have := map[string]bool{}
		for _, id := range got {
			have[id] = true
		}
		for _, id := range acked {
			if !have[id] && !gone[id] {
				missing++
			}
		}
		s.Close()
		again.Close()
	}
	return missing
}

// TestPowerLoss: what was acknowledged and not drained survives one at any moment, although
// the disk failed before. TestPowerLossUnsynced sees what happens when fsync does nothing.
func TestPowerLoss(t *testing.T) {
	if n := powerLosses(t, false); n > 0 {
		t.Errorf("%d acknowledged reads are missing", n)
	}
}

func TestPowerLossUnsynced(t *testing.T) {
	if n := powerLosses(t, true); n == 0 {
		t.Error("nothing is missing although fsync did nothing")
	}
}

// TestUnreadable: a place that cannot be read is tried again, and when that does not help only
// what lies there is lost.
func TestUnreadable(t *testing.T) {
	d := newMemDisk()
	s := open(t, d.config(Config{}))
	want := readsFrom(0, 200)
	appendAll(t, s, want...)
	failures := 0
	d.mu.Lock()
	d.fail = func(op, name string) error {
		var at int
		if op != "read" {
			return nil
		}
		fmt.Sscanf(name[strings.Index(name, "@")+1:], "%d", &at)
		if failures++; failures <= 3 || at == 8192 || at < 8192 && failures < 100 && at == 0 {
			return syscall.EIO
		}
		return nil
	}
	d.mu.Unlock()
	errs := 0
	var got []sensors.Read
	for len(got) == 0 || s.Stats().Depth > 0 {
		if _, err := s.Drain(t.Context(), 1000, func(_ context.Context, rs []sensors.Read) error {
			for i := range rs {
				got = append(got, rs[i].Clone())
			}
			return nil
		}); err != nil {
			if !errors.Is(err, syscall.EIO) {
				t.Fatalf("Drain: %v", err)
			}
			errs++
		}
		if errs > 20 {
			t.Fatal("stuck")
		}
	}
	st := s.Stats()
	if errs != readTries-1 || st.Damaged == 0 || st.Damaged > 100 || len(got)+int(st.Damaged) != 200 {
		t.Errorf("%d errors, %d reads, stats %+v", errs, len(got), st)
	}
}

func TestMaxBytes(t *testing.T) {
	d := newMemDisk()
	s := open(t, d.config(Config{MaxBytes: 10_000, SegmentBytes: 1000}))
	var kept []sensors.Read
	for i := 0; ; i++ {
		err := s.Append(t.Context(), []sensors.Read{read(i)})
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatalf("Append: %v", err)
		}
		kept = append(kept, read(i))
	}
	if st := s.Stats(); st.Bytes > 10_000 || st.Bytes < 9500 || st.Full != 1 || st.SyncErrors != 0 {
		t.Errorf("stats %+v", st)
	}
	wantIDs(t, drainAll(t, s, 10), kept)
	appendAll(t, s, read(1)) // there is room again

	d.mu.Lock()
	d.room = 1 << 20
	d.mu.Unlock()
	if err := s.Append(t.Context(), []sensors.Read{read(2)}); !errors.Is(err, ErrFull) {
		t.Errorf("Append: %v with no more than the reserve free, want ErrFull", err)
	}
}

func TestMaxAge(t *testing.T) {
	d := newMemDisk()
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	pass := func(by time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(by) }
	at := func(n int) sensors.Read {
		r := read(n)
		r.Received = clock().UnixMilli()
		return r
	}
	s := open(t, d.config(Config{MaxAge: 10 * time.Hour, Clock: clock}))
	old := at(1)
	old.Received -= (10*time.Hour + time.Second).Milliseconds()
	old.TS = old.Received - 50
	young := at(2)
	young.Received = 0 // TS counts then
	appendAll(t, s, old, young)
	if age := s.Stats().OldestAge; age < 10*time.Hour || age > 11*time.Hour {
		t.Errorf("oldest %v", age)
	}
	wantIDs(t, drainAll(t, s, 10), []sensors.Read{young})
	if st := s.Stats(); st.TooOld != 1 || st.Drained != 1 {
		t.Errorf("stats %+v", st)
	}

	// While Kafka stays away, whole segments go off the disk in time.
	away := errors.New("away")
	drain := func() error {
		_, err := s.Drain(t.Context(), 10, func(context.Context, []sensors.Read) error { return away })
		return err
	}
	appendAll(t, s, at(3))
	pass(2 * time.Hour)
	appendAll(t, s, at(4))
	if n := len(d.segments()); n != 2 {
		t.Errorf("%d segments, want one an hour", n)
	}
	pass(8*time.Hour + time.Minute)
	if err := drain(); err != nil { // expires the first
		t.Errorf("Drain: %v", err)
	}
	if err := drain(); !errors.Is(err, away) {
		t.Errorf("Drain: %v, want the error of the callback", err)
	}
	if st := s.Stats(); st.TooOld != 2 || st.Depth != 1 || st.Segments != 1 || len(d.segments()) != 1 {
		t.Errorf("stats %+v", st)
	}
	wantIDs(t, drainAll(t, s, 10), []sensors.Read{at(4)})
}

// clocks are the clocks of a machine whose wall clock can be set.
type clocks struct {
	mu   sync.Mutex
	wall time.Time
	up   time.Duration
}

// date is a time of a test.
func date(day int) time.Time { return time.Date(2026, 11, day, 12, 0, 0, 0, time.UTC) }

func (c *clocks) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.wall }

func (c *clocks) set(to time.Time) { c.mu.Lock(); defer c.mu.Unlock(); c.wall = to }

func (c *clocks) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.up = c.wall.Add(d), c.up+d
}

// boot opens the spool of a machine that has just started with a time.
func (c *clocks) boot(t *testing.T, d *memDisk, at time.Time) *Spool {
	t.Helper()
	c.set(at)
	c.up = 0
	return open(t, d.config(Config{
		MaxAge: 10 * time.Hour, Clock: c.now,
		uptime: func(time.Time) time.Duration { c.mu.Lock(); defer c.mu.Unlock(); return c.up },
	}))
}

// at is a read of now, whose sensor has another clock.
func (c *clocks) at(n int, ts time.Time) sensors.Read {
	r := read(n)
	r.Received, r.TS = c.now().UnixMilli(), ts.UnixMilli()
	return r
}

// TestClockIsSet: whatever the clock of the machine did, a read is handed on for MaxAge after
// it has come, and not after that.
func TestClockIsSet(t *testing.T) {
	unset := time.Unix(120, 0)
	for _, tt := range []struct {
		name      string
		boot, set time.Time // the clock when reads come, and then
		ts        time.Time // of the sensors
	}{
		{"no clock, then the right time", unset, date(24), date(24)},
		{"no clock anywhere", unset, date(24), unset},
		{"the time of when it was switched off", date(4), date(24), date(24)},
		{"the time of when it was switched off, sensors too", date(4), date(24), date(4)},
		{"years ahead, then the right time", date(24).AddDate(20, 0, 0), date(24), date(24)},
		{"days ahead, sensors behind", date(26), date(24), date(4)},
		{"right, then years ahead", date(24), date(24).AddDate(20, 0, 0), date(24)},
		{"a small step back", date(24), date(24).Add(-30 * time.Second), date(24)},
		{"never set", unset, unset, unset},
		{"right", date(24), date(24), date(24)},
	} {
		for _, wait := range []time.Duration{2 * time.Hour, 9 * time.Hour, 10*time.Hour + 15*time.Minute} {
			for _, whole := range []bool{false, true} { // all of the segment has the same age
				t.Run(fmt.Sprintf("%s/wait=%v/whole=%v", tt.name, wait, whole), func(t *testing.T) {
					c, d := new(clocks), newMemDisk()
					s := c.boot(t, d, tt.boot)
					c.pass(30 * 24 * time.Hour)
					c.set(tt.boot)
					want := []sensors.Read{c.at(1, tt.ts)}
					appendAll(t, s, want...)
					c.pass(30 * time.Minute)
					whole := whole || tt.set.Equal(unset) // without any time all has the age of the first
					if !whole {
						second := c.at(2, tt.ts.Add(30*time.Minute))
						appendAll(t, s, second)
						want = append(want, second)
					}
					c.set(tt.set.Add(30 * time.Minute))
					third := c.at(3, tt.ts)
					if !whole {
						appendAll(t, s, third)
						want = append(want, third)
					}
					c.pass(wait - 30*time.Minute)
					if age := s.Stats().OldestAge; (age - wait).Abs() > clockStep {
						t.Errorf("oldest %v, want %v", age, wait)
					}
					if wait > 10*time.Hour {
						want = want[1:]
					}
					wantIDs(t, drainAll(t, s, 10), want)
				})
			}
		}
	}
}

// TestSmallStep: a read that came before the clock went back by less than clockStep is new.
func TestSmallStep(t *testing.T) {
	m := moment{now: date(24), uptime: time.Hour}
	if age := m.age(new(segment), date(24).Add(clockStep/2).UnixMilli(), 0); age != 0 {
		t.Errorf("age %v, want 0", age)
	}
}

// TestClockIsSetBefore: the reads of before a restart came while the clock was not set, and
// nothing tells any more by how much.
func TestClockIsSetBefore(t *testing.T) {
	unset := time.Unix(120, 0)
	for _, tt := range []struct {
		name           string
		boot, ts, open time.Time
		kept           time.Duration // from Open; 0 for not at all
	}{
		{"no clock", unset, date(24), date(24), 10 * time.Hour},
		{"no clock, and the reads are old", unset, date(20), date(24), 0},
		{"no clock anywhere", unset, unset, date(24), 10 * time.Hour},
		{"the time of when it was switched off", date(4), date(24), date(24), 10 * time.Hour},
		{"years ahead", date(24).AddDate(20, 0, 0), date(24), date(24), 10 * time.Hour},
		{"years ahead everywhere", date(24).AddDate(20, 0, 0), date(24).AddDate(20, 0, 0), date(24), 10 * time.Hour},
		{"right", date(20), date(20), date(24), 0},
		{"right, and unset now", date(24), date(24), unset, 10 * time.Hour},
	} {
		for _, wait := range []time.Duration{0, 9 * time.Hour, 11 * time.Hour} {
			t.Run(fmt.Sprintf("%s/wait=%v", tt.name, wait), func(t *testing.T) {
				c, d := new(clocks), newMemDisk()
				s := c.boot(t, d, tt.boot)
				want := []sensors.Read{c.at(1, tt.ts)}
				appendAll(t, s, want...)
				s.Close()
				d.written = tt.boot
				s = c.boot(t, d, tt.open)
				if wait >= tt.kept {
					want = nil
				}
				// The file goes with the last read, whether Kafka is there or not.
				away := errors.New("away")
				c.pass(wait)
				for range 2 {
					if _, err := s.Drain(t.Context(), 10, func(context.Context, []sensors.Read) error { return away }); err != nil && !errors.Is(err, away) {
						t.Errorf("Drain: %v", err)
					}
				}
				if st := s.Stats(); st.Depth != uint64(len(want)) || st.TooOld != uint64(1-len(want)) {
					t.Errorf("stats %+v", st)
				}
				wantIDs(t, drainAll(t, s, 10), want)
			})
		}
	}
}

// TestConcurrent appends from many goroutines while another drains: each finds its own reads
// in order, once.
func TestConcurrent(t *testing.T) {
	const writers, calls, perCall = 8, 60, 5
	s := open(t, Config{Dir: t.TempDir(), SegmentBytes: 20_000})
	ctx, cancel := context.WithCancel(t.Context())
	var wg, drainer sync.WaitGroup
	got := map[string][]string{}
	n := 0
	drainer.Go(func() {
		for n < writers*calls*perCall && ctx.Err() == nil {
			k, err := s.Drain(ctx, 50, func(_ context.Context, rs []sensors.Read) error {
				for i := range rs {
					got[strings.Clone(rs[i].Sensor)] = append(got[rs[i].Sensor], strings.Clone(rs[i].ID))
				}
				n += len(rs)
				return nil
			})
			if err != nil && ctx.Err() == nil {
				t.Errorf("Drain: %v", err)
				return
			}
			if k == 0 {
				pause(ctx, time.Minute, s.More())
			}
		}
	})
	for w := range writers {
		wg.Go(func() {
			for i := range calls {
				rs := readsFrom(i*perCall, perCall)
				for k := range rs {
					rs[k].Sensor = fmt.Sprint("w", w)
				}
				if err := s.Append(ctx, rs); err != nil {
					t.Errorf("Append: %v", err)
				}
				s.Stats()
				s.Holds(&rs[0])
			}
		})
	}
	wg.Wait()
	time.AfterFunc(20*time.Second, cancel)
	drainer.Wait()
	cancel()
	if st := s.Stats(); st.Damaged != 0 || st.Appended != writers*calls*perCall {
		t.Errorf("stats %+v", st)
	}
	for w := range writers {
		if want := ids(readsFrom(0, calls*perCall)); !slices.Equal(got[fmt.Sprint("w", w)], want) {
			t.Errorf("writer %d: %d reads, or in another order", w, len(got[fmt.Sprint("w", w)]))
		}
	}
}

// TestAppendContext: a caller that has gone does not wait.
func TestAppendContext(t *testing.T) {
	s := open(t, newMemDisk().config(Config{}))
	s.tail.Lock() // the commit hangs
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	for range 2 {
		go func() { errs <- s.Append(ctx, readsFrom(0, 1)) }()
	}
	cancel()
	for range 2 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("Append: %v", err)
		}
	}
	s.tail.Unlock()
}
