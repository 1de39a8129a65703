package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// format names the layout of a data folder; it changes when an older program could not
// read what a newer one writes.
const format = "vigie embedded 1\n"

// dataDir is a locked data folder:
//
//	LOCK     locked by the process that uses the folder; holds its id for the error message
//	VERSION  the format above
//	kafka/   kfake's own files
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir creates path when needed and takes it for this process.
func openDataDir(path string) (_ *dataDir, err error) {
	wrap := func(err error) error { return fmt.Errorf("embedded: data folder %q: %w", path, err) }
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, wrap(err)
	}
	// A folder that somebody's script or a service manager made is often 0755; this one
	// holds plates.
	if err := os.Chmod(path, 0o700); err != nil {
		return nil, wrap(err)
	}
	d := &dataDir{path: path}
	if err := d.checkOurs(); err != nil {
		return nil, wrap(err)
	}
	if d.lock, err = lockFile(d.file("LOCK")); err != nil {
		return nil, wrap(err)
	}
	if err := d.mark(); err != nil {
		return nil, wrap(errors.Join(err, d.close()))
	}
	return d, nil
}

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// kafka is the folder that kfake writes to.
func (d *dataDir) kafka() string { return d.file("kafka") }

// checkOurs refuses a folder in use for something else before anything is written to it.
func (d *dataDir) checkOurs() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "LOCK" })
	if len(others) == 0 {
		return nil // new, or its creation was cut short
	}
	_, err = os.Stat(d.file("VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the folder holds other files (%s, …): name an empty or new one", others[0].Name())
	}
	return err
}

// mark checks the format of the folder, or writes it into a new one.
func (d *dataDir) mark() error {
	got, err := os.ReadFile(d.file("VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return writeSynced(d.file("VERSION"), format)
	}
	if err != nil {
		return err
	}
	if string(got) != format {
		return fmt.Errorf("the folder has format %q and this program writes %q: use the program that wrote it, or name a new folder",
			strings.TrimSpace(string(got)), strings.TrimSpace(format))
	}
	return nil
}

// writeSynced writes a small file whole or not at all.
func writeSynced(name, content string) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = tmp.WriteString(content)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// prepareKafka removes what must not outlive the process that wrote it: its password,
// which kfake would take over the new one, and its group members, which a restarted
// consumer would have to wait for.
func (d *dataDir) prepareKafka() error {
	return errors.Join(d.forgetPasswords(), remove(filepath.Join(d.kafka(), "session_state.json")))
}

// forgetPasswords removes the password file that kfake writes when it starts and stops.
func (d *dataDir) forgetPasswords() error {
	return remove(filepath.Join(d.kafka(), "sasl.json"))
}

// close lets another process have the folder.
func (d *dataDir) close() error { return d.lock.Close() }

func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
