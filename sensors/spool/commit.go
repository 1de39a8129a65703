package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"go.uber.org/zap"
)

// commits writes what Append hands over until Close.
func (s *Spool) commits() {
	defer close(s.done)
	var calls []*call
	for {
		select {
		case c := <-s.calls:
			calls = s.gather(append(calls[:0], c))
			s.commit(calls)
			clear(calls)
		case <-s.closing:
			return
		}
	}
}

// gather adds the calls that wait, for one fsync to serve them all.
func (s *Spool) gather(calls []*call) []*call {
	bytes := len(calls[0].records)
	for bytes < commitBytes {
		select {
		case c := <-s.calls:
			calls = append(calls, c)
			bytes += len(c.records)
		default:
			return calls
		}
	}
	return calls
}

// commit writes and syncs calls, and answers them. It takes a prefix of them: once one does
// not fit, none behind it overtakes it.
func (s *Spool) commit(calls []*call) {
	s.tail.Lock()
	defer s.tail.Unlock()
	at := s.look()
	s.mu.Lock()
	first := s.next
	var used int64
	for _, g := range s.segs {
		used += g.size
	}
	s.mu.Unlock()
	room := s.cfg.MaxBytes - used
	if free, err := s.disk.free(); err == nil {
		room = min(room, free-s.cfg.Reserve)
	}
	if g := s.tail.seg; g != nil && (g.size >= s.cfg.SegmentBytes ||
		at.uptime-g.begun >= segmentAge || at.set(g) != 0) {
		_ = s.leaveTail() // all of it is synced
	}
	buf := s.tail.buf[:0]
	if s.tail.seg == nil {
		buf = appendHeader(buf, first)
	}
	taken, reads := 0, 0
	for _, c := range calls {
		if int64(len(buf)+len(c.records)) > room {
			break
		}
		setNumbers(c.records, first+uint64(reads))
		buf = append(buf, c.records...)
		taken++
		reads += c.reads
	}
	if cap(buf) <= 2*commitBytes {
		s.tail.buf = buf
	}
	refused := 0
	for _, c := range calls[taken:] {
		refused += c.reads
		c.done <- ErrFull
	}
	if refused > 0 {
		s.mu.Lock()
		s.stats.Full += uint64(refused)
		s.mu.Unlock()
	}
	calls = calls[:taken]
	if taken == 0 {
		return
	}

	err := s.write(buf, first)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	if err != nil {
		s.log.Error("reads could not be spooled: they were not acknowledged; see whether the disk is full or fails",
			zap.Int("reads", reads), zap.Error(err))
		s.mu.Lock()
		s.stats.SyncErrors++
		s.mu.Unlock()
		s.seal()
	} else {
		s.mu.Lock()
		g := s.tail.seg
		if g.next == g.first {
			g.begun, g.ahead = at.uptime, at.ahead
			s.segs = append(s.segs, g)
		}
		if s.pos == s.next {
			s.oldest = at.uptime - at.age(g, calls[0].received, calls[0].ts)
		}
		number := first
		for _, c := range calls {
			for _, p := range c.passages {
				s.passages.add(p, number)
				number++
			}
		}
		s.next = number
		s.stats.Appended += uint64(reads)
		g.next, g.size, g.written = number, g.size+int64(len(buf)), at.now
		s.mu.Unlock()
		wake(s.more)
	}
	for _, c := range calls {
		c.done <- err
	}
}

// write puts b durably at the end of the tail, and makes one when there is none.
func (s *Spool) write(b []byte, first uint64) error {
	t := &s.tail
	fresh := t.seg == nil
	if fresh {
		name := segmentName(first)
		f, err := s.disk.create(name)
		if errors.Is(err, fs.ErrExist) { // of an attempt that failed: nothing in it was acknowledged
			if err := s.disk.remove(name); err != nil {
				return err
			}
			f, err = s.disk.create(name)
		}
		if err != nil {
			return err
		}
		t.seg, t.file = &segment{first: first, next: first}, f
	}
	if _, err := t.file.WriteAt(b, t.seg.size); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := t.file.Sync(); err != nil {
		return fmt.Errorf("fsync: %w", err)
	}
	if fresh {
		if err := s.disk.sync(); err != nil {
			return fmt.Errorf("fsync of the directory: %w", err)
		}
	}
	return nil
}

// seal ends the tail after a failure: at the last byte that is known to be durable. After a
// failed fsync nobody can say what is on the disk, and another fsync would not tell.
func (s *Spool) seal() {
	t := &s.tail
	if t.seg == nil {
		return
	}
	if t.seg.next == t.seg.first { // nothing in it was acknowledged
		_ = t.file.Close()
		_ = s.disk.remove(t.seg.name()) // write tries again
	} else {
		if t.file.Truncate(t.seg.size) == nil {
			_ = t.file.Sync()
		}
		_ = t.file.Close()
	}
	t.seg, t.file = nil, nil
}

// leaveTail ends the tail: the next commit begins a segment. The caller has locked tail.
func (s *Spool) leaveTail() error {
	t := &s.tail
	if t.seg == nil {
		return nil
	}
	err := t.file.Close()
	t.seg, t.file = nil, nil
	return err
}
