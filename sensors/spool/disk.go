package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// disk is the directory of a spool. Tests put one with faults in its place.
type disk interface {
	list() ([]entry, error)
	// create makes a new file to write to; it must not be there yet.
	create(name string) (file, error)
	// open opens a file to be read, and cut.
	open(name string) (file, error)
	remove(name string) error
	// replace gives a file new content, durably: after a crash it has the old or the new.
	replace(name string, content []byte) error
	// sync makes the creation of files durable.
	sync() error
	// free is how many bytes may still be written.
	free() (int64, error)
	close() error
}

// file is one file of a disk.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
}

// entry is a file in a listing.
type entry struct {
	name    string
	size    int64
	written time.Time
}

// lockName is the file whose lock says that the directory is in use.
const lockName = "lock"

// dir is a disk: a directory that nothing leaves through a link or a name with dots.
type dir struct {
	root *os.Root
	self *os.File // the directory, to sync it
	lock *os.File
}

// openDir makes the directory when it is missing, and locks it.
func openDir(path string) (_ *dir, err error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory, or give one that may be written to: %w", err)
	}
	d := new(dir)
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.root, err = os.OpenRoot(path); err != nil {
		return nil, err
	}
	if d.self, err = d.root.Open("."); err != nil {
		return nil, err
	}
	if d.lock, err = d.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	switch err = syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, ErrLocked
	case err != nil:
		return nil, fmt.Errorf("lock %s: %w", filepath.Join(path, lockName), err)
	}
	return d, nil
}

func (d *dir) list() ([]entry, error) {
	all, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	var files []entry
	for _, e := range all {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // gone meanwhile, or not ours
		}
		files = append(files, entry{e.Name(), info.Size(), info.ModTime()})
	}
	return files, nil
}

func (d *dir) create(name string) (file, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d *dir) open(name string) (file, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d *dir) remove(name string) error { return d.root.Remove(name) }

func (d *dir) replace(name string, content []byte) error {
	temp := name + tempSuffix
	f, err := d.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := d.root.Rename(temp, name); err != nil {
		return err
	}
	return d.sync()
}

func (d *dir) sync() error { return d.self.Sync() }

func (d *dir) free() (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(int(d.self.Fd()), &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func (d *dir) close() error {
	var errs []error
	if d.lock != nil { // which unlocks it
		errs = append(errs, d.lock.Close())
	}
	if d.self != nil {
		errs = append(errs, d.self.Close())
	}
	if d.root != nil {
		errs = append(errs, d.root.Close())
	}
	return errors.Join(errs...)
}
