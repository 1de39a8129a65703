package spool

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// memDisk is a disk in memory that knows what a loss of power would leave, and fails on
// demand.
type memDisk struct {
	mu      sync.Mutex
	files   map[string]*memFile
	durable map[string]*memFile // the directory as it was synced
	room    int64               // what free returns
	// fail returns the error of an operation on a file: create, open, remove, replace,
	// dirsync, read, write, sync. A write that fails has written half of it.
	fail func(op, name string) error
	// lies makes sync succeed without doing anything.
	lies   bool
	writes int // and syncs, so far
	// written is when the files were, in a listing; now when zero.
	written time.Time
}

func newMemDisk() *memDisk {
	return &memDisk{files: map[string]*memFile{}, durable: map[string]*memFile{}, room: 1 << 40}
}

func (d *memDisk) config(cfg Config) Config {
	cfg.Dir = "memory"
	cfg.open = func(string) (disk, error) { return d, nil }
	return cfg
}

// failing returns the error for an operation; mu is held.
func (d *memDisk) failing(op, name string) error {
	d.writes++
	if d.fail == nil {
		return nil
	}
	return d.fail(op, name)
}

// snapshot is a copy of what the disk has.
func (d *memDisk) snapshot() *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := newMemDisk()
	for name, f := range d.files {
		c.put(name, f.data)
	}
	return c
}

// powerLoss is what the disk has after one: of each file what was synced, and what the
// system had written by then of the rest, in part as garbage.
func (d *memDisk) powerLoss(rng *rand.Rand) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := newMemDisk()
	for name, f := range d.durable {
		data := slices.Clone(f.synced)
		if more := len(f.data) - len(data); more > 0 {
			data = append(data, f.data[len(data):len(data)+rng.IntN(more+1)]...)
			for i := len(f.synced); i < len(data); i++ {
				if rng.IntN(50) == 0 {
					data[i] = byte(rng.Uint32())
				}
			}
		}
		c.put(name, data)
	}
	return c
}

func (d *memDisk) put(name string, data []byte) {
	f := &memFile{d: d, name: name, data: slices.Clone(data), synced: slices.Clone(data)}
	d.files[name], d.durable[name] = f, f
}

// segments are the names of the segment files, in order.
func (d *memDisk) segments() (names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.files {
		if _, ok := parseSegmentName(name); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (d *memDisk) list() (all []entry, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	written := d.written
	if written.IsZero() {
		written = time.Now()
	}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		all = append(all, entry{name, int64(len(d.files[name].data)), written})
	}
	return all, nil
}

func (d *memDisk) create(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("create", name); err != nil {
		return nil, err
	}
	if d.files[name] != nil {
		return nil, fs.ErrExist
	}
	f := &memFile{d: d, name: name}
	d.files[name] = f
	return f, nil
}

func (d *memDisk) open(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("open", name); err != nil {
		return nil, err
	}
	if f := d.files[name]; f != nil {
		return f, nil
	}
	return nil, fs.ErrNotExist
}

func (d *memDisk) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("remove", name); err != nil {
		return err
	}
	if d.files[name] == nil {
		return fs.ErrNotExist
	}
	delete(d.files, name)
	return nil
}

func (d *memDisk) replace(name string, content []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("replace", name); err != nil {
		return err
	}
	d.put(name, content)
	return nil
}

func (d *memDisk) sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("dirsync", ""); err != nil {
		return err
	}
	d.durable = maps.Clone(d.files)
	return nil
}

func (d *memDisk) free() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.room, nil
}

func (d *memDisk) close() error { return nil }

// memFile is a file of a memDisk, whose mu guards it.
type memFile struct {
	d            *memDisk
	name         string
	data, synced []byte
}

func (f *memFile) ReadAt(b []byte, at int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.failing("read", fmt.Sprint(f.name, "@", at)); err != nil {
		return 0, err
	}
	if at >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.data[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, at int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	err := f.d.failing("write", f.name)
	if err != nil {
		b = b[:len(b)/2]
	}
	f.data = append(f.data[:min(int(at), len(f.data))], b...)
	return len(b), err
}

func (f *memFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.failing("sync", f.name); err != nil {
		return err
	}
	if !f.d.lies {
		f.synced = f.data[:len(f.data):len(f.data)]
	}
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.failing("truncate", f.name); err != nil {
		return err
	}
	f.data = slices.Clone(f.data[:size]) // synced keeps the old
	return nil
}

func (f *memFile) Close() error { return nil }
