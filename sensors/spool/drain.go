package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"go.uber.org/zap"

	"vigie/sensors"
)

// Drain hands the oldest reads to fn, at most limit of them (and at least one) and in the order of Append, and
// takes them out of the spool when fn returns nil. It returns how many reads left the spool,
// dropped ones included; 0 without an error says that the spool is empty. When fn fails its
// error is returned and the same reads come again. After a crash reads of the last second,
// or the last 20,000 and one call, come again too: their ids make that harmless.
//
// What fn is given belongs to the spool again when fn returns. Reads older than
// Config.MaxAge are dropped and counted. Calls wait for each other.
func (s *Spool) Drain(ctx context.Context, limit int, fn func(context.Context, []sensors.Read) error) (int, error) {
	s.head.Lock()
	defer s.head.Unlock()
	for {
		select {
		case <-s.closing:
			return 0, fmt.Errorf("spool: drain: %w", ErrClosed)
		default:
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		s.head.numbers = s.head.numbers[:0]
		if n := s.expire(); n > 0 {
			return n, nil
		}
		n, more, err := s.drain(ctx, max(limit, 1), fn)
		if err != nil {
			return 0, fmt.Errorf("spool: drain: %w", err)
		}
		if n > 0 || !more {
			return n, nil
		}
	}
}

// drain is one round of Drain, within one segment. More is false when the spool is empty.
func (s *Spool) drain(ctx context.Context, limit int, fn func(context.Context, []sensors.Read) error) (n int, more bool, err error) {
	s.mu.Lock()
	if s.pos == s.next {
		s.mu.Unlock()
		s.retire(false)
		return 0, false, nil
	}
	g := s.segs[0]
	pos, size, end := s.pos, g.size, g.next
	s.mu.Unlock()
	h := &s.head
	b := batch{pos: pos}
	if g != h.seg {
		switch err := s.enter(g, size, end); {
		case errors.Is(err, fs.ErrNotExist):
			s.apply(batch{pos: end, lost: end - pos})
			s.finish(g)
			return 0, true, nil
		case err != nil:
			return 0, true, err
		}
	}
	h.w.size, h.w.limit = size, end
	start := h.w.place()
	at := s.look()
	// What h.reads point to is in the window of the walker, which must stay where it is.
	for len(h.numbers) < limit && (len(h.numbers) == 0 || !h.w.stale()) {
		number, payload, ok, err := h.w.next()
		if err != nil {
			h.w.back(start)
			return 0, true, err
		}
		if !ok { // and if the last ones are damaged, no other tells
			b.lost += end - b.pos
			b.pos = end
			break
		}
		if number < b.pos {
			continue
		}
		b.lost += number - b.pos
		b.pos = number + 1
		if len(h.numbers) == len(h.reads) {
			h.reads = append(h.reads, sensors.Read{})
		}
		r := &h.reads[len(h.numbers)]
		if sensors.DecodeView(payload, r) != nil {
			b.lost++
			continue
		}
		age := at.age(g, r.Received, r.TS)
		if age > s.cfg.MaxAge {
			b.old++
			continue
		}
		h.numbers = append(h.numbers, number)
		b.arrived = at.uptime - age
	}
	reads := h.reads[:len(h.numbers)]
	if len(reads) > 0 {
		if err := fn(ctx, reads); err != nil {
			h.w.back(start)
			return 0, true, err
		}
	}
	s.apply(b)
	if b.pos == end {
		s.finish(g)
	}
	s.keepPosition()
	return len(reads) + int(b.old), true, nil
}

// batch is what leaves the spool in one round, beside the reads of Spool.head.
type batch struct {
	pos       uint64        // after it
	lost, old uint64        // reads
	arrived   time.Duration // of the last of the reads of Spool.head, since Open
}

// apply takes a batch, and the reads of Spool.head, out of the spool.
func (s *Spool) apply(b batch) {
	h := &s.head
	s.mu.Lock()
	s.pos = b.pos
	s.stats.Drained += uint64(len(h.numbers))
	s.stats.Damaged += b.lost
	s.stats.TooOld += b.old
	for i, number := range h.numbers {
		s.passages.drained(passageOf(&h.reads[i]), number)
		s.oldest = b.arrived
	}
	if s.pos == s.next {
		s.passages = passages{}
	}
	s.mu.Unlock()
	if b.lost > 0 {
		s.log.Error("the disk has damaged reads in the spool: they are lost; see whether the disk fails", zap.Uint64("reads", b.lost))
	}
	if b.old > 0 {
		s.log.Warn("reads in the spool were older than their legal maximum and were dropped", zap.Uint64("reads", b.old))
	}
}

// enter opens a segment to drain it.
func (s *Spool) enter(g *segment, size int64, end uint64) error {
	_ = s.leaveHead() // it was open for reading
	f, err := s.disk.open(g.name())
	if err != nil {
		return err
	}
	if err := s.head.w.open(f, size, g.first, end); err != nil {
		f.Close()
		return err
	}
	s.head.seg, s.head.file = g, f
	return nil
}

func (s *Spool) leaveHead() error {
	h := &s.head
	if h.file == nil {
		return nil
	}
	err := h.file.Close()
	h.seg, h.file = nil, nil
	return err
}

// finish removes a segment when all of its reads are drained. The one that is written to
// stays until retire; it may also have got more reads since.
func (s *Spool) finish(g *segment) {
	s.tail.Lock()
	done := s.tail.seg != g
	s.tail.Unlock()
	s.mu.Lock()
	done = done && s.pos >= g.next
	s.mu.Unlock()
	if done {
		s.drop(g)
	}
}

// retire removes the segment that is written to when all of it is drained: while Kafka is
// there, no read is on the disk. It waits for linger unless there is much in it, or now is
// set, because a read that is spooled and drained at once would cost two files otherwise.
func (s *Spool) retire(now bool) {
	s.tail.Lock()
	defer s.tail.Unlock()
	s.mu.Lock()
	var g *segment
	if s.pos == s.next && len(s.segs) > 0 {
		g = s.segs[0]
		if !now && g.size < s.cfg.SegmentBytes/4 && s.cfg.Clock().Sub(g.written) < linger {
			g = nil
		}
	}
	s.mu.Unlock()
	if g == nil {
		return
	}
	_ = s.leaveTail() // all of it is synced
	s.drop(g)
	s.tail.buf = nil
	s.head.reads, s.head.numbers, s.head.w.buf = nil, nil, nil
}

// drop stores the position and removes the first segment. The position goes first: a
// segment that is missing counts as lost. When it cannot be stored, for want of room as like
// as not, the segment is removed all the same, which makes room. One that cannot be removed
// is left to the next Open.
func (s *Spool) drop(g *segment) {
	if s.head.seg == g {
		_ = s.leaveHead() // it was open for reading
	}
	s.mu.Lock()
	pos := s.pos
	s.segs = slices.Delete(s.segs, 0, 1)
	s.mu.Unlock()
	if s.head.stored != pos {
		_ = s.store(pos)
	}
	if err := s.disk.remove(g.name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("a drained segment of the spool cannot be removed: see the mode of its directory", zap.Error(err))
	}
}

// keepPosition stores the position now and then.
func (s *Spool) keepPosition() {
	s.mu.Lock()
	pos := s.pos
	s.mu.Unlock()
	if pos >= s.head.stored+positionReads || s.cfg.Clock().Sub(s.head.storedAt) >= positionAge {
		_ = s.store(pos) // one that is behind does no harm
	}
}

// store stores the position.
func (s *Spool) store(pos uint64) error {
	s.head.storedAt = s.cfg.Clock()
	if err := s.disk.replace(positionName, formatPosition(pos)); err != nil {
		s.mu.Lock()
		s.stats.SyncErrors++
		s.mu.Unlock()
		return fmt.Errorf("store the position: %w", err)
	}
	s.head.stored = pos
	return nil
}

// expire removes the first segment when all of it is older than a read may be, whether Kafka
// takes reads or not. It returns how many reads that were.
func (s *Spool) expire() int {
	at := s.look()
	s.mu.Lock()
	if len(s.segs) == 0 {
		s.mu.Unlock()
		return 0
	}
	g := s.segs[0]
	whole := at.uptime-g.begun >= min(segmentAge, s.cfg.MaxAge)
	youngest := at.age(g, g.written.UnixMilli(), 0)
	s.mu.Unlock()
	if !whole && youngest <= s.cfg.MaxAge {
		return 0
	}
	s.tail.Lock()
	if s.tail.seg == g {
		_ = s.leaveTail() // what comes goes into another, so that this one ages
	}
	s.tail.Unlock()
	s.mu.Lock()
	youngest = at.age(g, g.written.UnixMilli(), 0)
	pos, end := s.pos, g.next
	s.mu.Unlock()
	if youngest <= s.cfg.MaxAge {
		return 0
	}
	// The file may have its time from a clock that was behind. Its reads know better.
	var r sensors.Read
	_, _ = s.scan(g, end, func(number uint64, payload []byte) { // what cannot be read has no say
		if number >= pos && sensors.DecodeView(payload, &r) == nil {
			youngest = min(youngest, at.age(g, r.Received, r.TS))
		}
	})
	if youngest <= s.cfg.MaxAge {
		s.mu.Lock()
		g.written = at.now.Add(-youngest - at.set(g)) // not looked at again until it is old
		s.mu.Unlock()
		return 0
	}
	s.apply(batch{pos: end, old: end - pos})
	s.drop(g)
	return int(end - pos)
}
