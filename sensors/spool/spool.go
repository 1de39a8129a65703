// Package spool keeps reads on disk while Kafka is away, and hands them on when it is
// back. What Append has acknowledged survives kill -9, a loss of power, torn writes and a
// full disk; what a disk has damaged is left out, counted, and never handed on as
// something else. See DESIGN.md for the file format and the order of reads.
//
// It knows nothing of Kafka: Publisher stands between a sensors.Publisher and a Spool.
// Plates are in its files and nowhere else; no error and no log line has any of a read.
package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vigie/sensors"
)

var (
	// ErrFull says that Append has taken none of the reads, since the spool may not grow.
	// The sender keeps them and comes again.
	ErrFull = errors.New("the spool is full: bring Kafka back, raise its size, or free the disk")
	// ErrLocked says that another process uses the directory.
	ErrLocked = errors.New("another process uses the directory: give each gateway a directory of its own")
	// ErrClosed is returned by Append and Drain after Close.
	ErrClosed = errors.New("the spool is closed")
	// ErrInvalid says that a read cannot be written at all; see sensors.AppendProto.
	ErrInvalid = errors.New("a read cannot be written")

	errVersion = errors.New("a segment is of another version of Vigie: drain it with that version, or move it away")
)

// LegalMaxAge is how long reads without a hit may be kept, in France (CSI L233-2).
const LegalMaxAge = 15 * 24 * time.Hour

// Config says where a Spool is and how far it may grow. The zero value of a field but Dir
// takes the default.
type Config struct {
	// Dir is a directory for this spool alone; required. It is made when missing, with
	// mode 0700. Files in it have mode 0600.
	Dir string
	// MaxBytes bounds all segments together; 4 GiB, which is about 30 million reads.
	MaxBytes int64
	// Reserve is how much room the file system must keep beyond what is written, so that
	// the spool is full before the disk is; 1 MiB.
	Reserve int64
	// SegmentBytes is the size at which a segment is followed by another. Its room is free
	// again when all of it is drained. 16 MiB, but no more than an eighth of MaxBytes nor
	// of the room there is.
	SegmentBytes int64
	// MaxAge is the legal maximum of a read: Drain drops what is older. It counts from
	// arrival, which is Received, or TS when that is later and not in the future. When the
	// clock of the machine is set meanwhile nothing grows older by it, and a read with
	// neither a Received nor a TS that can be counts from Append or Open. LegalMaxAge.
	MaxAge time.Duration
	// Clock is time.Now when nil.
	Clock func() time.Time
	// Log receives warnings; none are written when nil.
	Log *zap.Logger

	open  func(path string) (disk, error) // of tests
	noCRC bool                            // of tests: what comes of believing every record
	// uptime, of tests, is the time since Open at a time of Clock, which says it itself otherwise.
	uptime func(now time.Time) time.Duration
}

const (
	// segmentAge bounds how long a segment is added to, and so how much later than MaxAge
	// its last read is off the disk while Kafka stays away.
	segmentAge = time.Hour
	// commitBytes bounds what is gathered for one fsync, unless one call alone is larger.
	commitBytes = 4 << 20
	// positionReads and positionAge bound how far the stored position falls behind, and so
	// how many reads are drained again after a crash.
	positionReads = 20_000
	positionAge   = time.Second
	// linger is how long a drained segment that is written to stays for what may come.
	linger = time.Second
)

// Spool is a log of reads on disk: Append adds to its end, Drain takes from its front. Its
// methods may be called at the same time.
type Spool struct {
	cfg   Config
	log   *zap.Logger
	disk  disk
	began time.Time // when it was opened
	calls chan *call
	// closing is closed by Close, done when the last commit is over.
	closing   chan struct{}
	done      chan struct{}
	closeOnce sync.Once
	closeErr  error
	more      chan struct{} // has an element when there may be reads to drain

	tail struct { // what is written to
		sync.Mutex
		seg  *segment // nil when the next commit begins one
		file file
		buf  []byte // reused
	}
	head struct { // what is drained from
		sync.Mutex
		seg      *segment // that w is in; nil for none
		file     file
		w        walker
		reads    []sensors.Read // reused
		numbers  []uint64       // of the reads of this round
		stored   uint64         // the position on disk
		storedAt time.Time
	}

	mu       sync.Mutex    // never held over I/O; taken last
	segs     []*segment    // by first; the last may be tail.seg
	next     uint64        // number of the next read to be appended: all below are durable
	pos      uint64        // number of the next read to be drained
	oldest   time.Duration // arrival of the read at pos, or of one shortly before it, since Open
	passages passages
	stats    Stats
}

// Stats are the state of a Spool and its counts since Open.
type Stats struct {
	Depth    uint64 // reads to be drained, damaged ones included while undiscovered
	Bytes    int64  // of all segments
	Segments int
	// OldestAge is the age of the read to be drained next since its arrival, or of one
	// drained shortly before it; 0 when there is none.
	OldestAge time.Duration
	Appended  uint64 // reads acknowledged
	Drained   uint64 // reads handed on
	Damaged   uint64 // acknowledged reads that are lost, because the disk has damaged or lost them
	// TornTails counts segments whose end was cut off at Open. After a crash it held what
	// was not acknowledged; on a disk that damages files it may have held the last reads.
	TornTails  uint64
	TooOld     uint64 // reads dropped for Config.MaxAge
	Full       uint64 // reads refused with ErrFull
	SyncErrors uint64 // failed writes and fsyncs; the reads of those were not acknowledged
}

// call is one call of Append.
type call struct {
	records  []byte // without numbers
	reads    int
	passages []uint64 // of the reads, 0 for none
	received int64    // of the first
	ts       int64    // of the first
	done     chan error
}

// Open opens the spool in cfg.Dir, and makes it when there is none. Damage is no error: it
// is left out, counted and logged. An error is ErrLocked, a directory that cannot be used,
// or a segment of another version.
func Open(cfg Config) (_ *Spool, err error) {
	if cfg.Dir == "" {
		return nil, errors.New("spool: Config.Dir is required")
	}
	if cfg.MaxBytes < 0 || cfg.Reserve < 0 || cfg.SegmentBytes < 0 || cfg.MaxAge < 0 {
		return nil, errors.New("spool: MaxBytes, Reserve, SegmentBytes and MaxAge must not be negative")
	}
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, 4<<30)
	cfg.Reserve = cmp.Or(cfg.Reserve, 1<<20)
	cfg.MaxAge = cmp.Or(cfg.MaxAge, LegalMaxAge)
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.open == nil {
		cfg.open = func(path string) (disk, error) { return openDir(path) }
	}
	d, err := cfg.open(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("spool: open %s: %w", cfg.Dir, err)
	}
	s := &Spool{
		cfg: cfg, log: sampled(cfg.Log), disk: d,
		calls: make(chan *call), closing: make(chan struct{}), done: make(chan struct{}), more: make(chan struct{}, 1),
	}
	s.head.w.noCRC = cfg.noCRC
	s.began = cfg.Clock()
	if cfg.uptime == nil {
		s.cfg.uptime = func(now time.Time) time.Duration { return now.Sub(s.began) }
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("spool: open %s: %w", cfg.Dir, err), s.leave(), d.close())
	}
	go s.commits()
	return s, nil
}

// sampled lets at most three lines of a kind through in ten seconds: a disk or a network that
// fails does so again and again. Nil writes nothing.
func sampled(log *zap.Logger) *zap.Logger {
	if log == nil {
		return zap.NewNop()
	}
	return log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, 10*time.Second, 3, 0)
	}))
}

// recover finds out what the directory holds.
func (s *Spool) recover() error {
	files, err := s.disk.list()
	if err != nil {
		return err
	}
	var room int64
	foreign := 0
	for _, e := range files {
		room += e.size
		first, ok := parseSegmentName(e.name)
		switch {
		case ok:
			s.segs = append(s.segs, &segment{first: first, size: e.size, written: e.written})
		case e.name == positionName+tempSuffix:
			_ = s.disk.remove(e.name) // replaced the next time otherwise
		case e.name != positionName && e.name != lockName:
			foreign++
		}
	}
	if foreign > 0 {
		s.log.Warn("the directory of the spool has files that are not of a spool: they are left alone; give it a directory of its own",
			zap.Int("files", foreign))
	}
	if s.cfg.SegmentBytes == 0 {
		s.cfg.SegmentBytes = min(16<<20, s.cfg.MaxBytes/8)
		if free, err := s.disk.free(); err == nil {
			s.cfg.SegmentBytes = min(s.cfg.SegmentBytes, (free+room)/8)
		}
		s.cfg.SegmentBytes = max(s.cfg.SegmentBytes, 64<<10)
	}
	slices.SortFunc(s.segs, func(a, b *segment) int { return cmp.Compare(a.first, b.first) })
	for i := 1; i < len(s.segs); i++ {
		s.segs[i-1].next = s.segs[i].first
	}
	if err := s.recoverTail(); err != nil {
		return err
	}
	s.recoverPosition()
	if n := len(s.segs); n > 0 {
		s.next = s.segs[n-1].next
	}
	s.next = max(s.next, s.pos)
	s.head.stored, s.head.storedAt = s.pos, s.cfg.Clock()
	if s.pos == s.next {
		return nil
	}
	if err := s.recoverPassages(); err != nil {
		return err
	}
	if err := s.recoverOldest(); err != nil {
		return err
	}
	s.log.Info("the spool has reads of before", zap.Uint64("reads", s.next-s.pos), zap.Int("segments", len(s.segs)))
	wake(s.more)
	return nil
}

// recoverTail finds the end of the last segment and cuts off what is no record.
func (s *Spool) recoverTail() error {
	n := len(s.segs)
	if n == 0 {
		return nil
	}
	g := s.segs[n-1]
	g.next = g.first
	limit := g.first + uint64(g.size)/recordHeader + 1
	w, err := s.scan(g, limit, func(number uint64, _ []byte) { g.next = number + 1 })
	switch {
	case err != nil:
		return err
	case w.unread: // Drain may be luckier; until then no number that may be in it is used again
		s.log.Error("the last segment of the spool cannot be read as a whole: see whether the disk fails")
		g.next = limit
		return nil
	case w.good < g.size:
		s.stats.TornTails++
		s.log.Warn("the end of the last segment of the spool is not whole and was cut off, as after a crash",
			zap.Int64("bytes", g.size-w.good))
		s.cut(g.name(), w.good)
		g.size = w.good
	}
	if g.next == g.first { // nothing in it: its name is wanted for what comes next
		s.segs = s.segs[:n-1]
		_ = s.disk.remove(g.name()) // create tries again
	}
	return nil
}

// cut shortens a file. It need not succeed: what is beyond does not fit into the sequence.
func (s *Spool) cut(name string, size int64) {
	f, err := s.disk.open(name)
	if err != nil {
		return
	}
	defer f.Close()
	if f.Truncate(size) == nil {
		_ = f.Sync()
	}
}

// scan walks through the records of a segment and returns the walker at its end.
func (s *Spool) scan(g *segment, limit uint64, record func(number uint64, payload []byte)) (w walker, err error) {
	f, err := s.disk.open(g.name())
	if err != nil {
		return w, err
	}
	defer f.Close()
	w.noCRC = s.cfg.noCRC
	for range readTries {
		if err = w.open(f, g.size, g.first, limit); err == nil || errors.Is(err, errVersion) {
			break
		}
	}
	for ok := err == nil; ok; {
		var number uint64
		var payload []byte
		for range readTries {
			if number, payload, ok, err = w.next(); err == nil {
				break
			}
		}
		if ok {
			record(number, payload)
		}
	}
	return w, err
}

// recoverPosition reads where Drain has come to and removes what lies before.
func (s *Spool) recoverPosition() {
	if b := s.readSmall(positionName); b != nil {
		if s.pos = parsePosition(b); s.pos == 0 {
			s.log.Warn("the position of the spool is damaged: the reads of one segment may be published again, which changes nothing")
		}
	}
	if s.pos == 0 {
		s.pos = 1
		if len(s.segs) > 0 {
			s.pos = s.segs[0].first
		}
	}
	for len(s.segs) > 0 && s.segs[0].next <= s.pos {
		_ = s.disk.remove(s.segs[0].name()) // or the next Open does
		s.segs = s.segs[1:]
	}
}

// readSmall returns the first bytes of a file, nil when there is none.
func (s *Spool) readSmall(name string) []byte {
	f, err := s.disk.open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, 64)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return b[:0]
	}
	return b[:n]
}

// recoverPassages fills the set of passages from the newest reads.
func (s *Spool) recoverPassages() error {
	var r sensors.Read
	for _, g := range s.segs {
		if g.next+maxPassages/2 < s.next {
			continue
		}
		_, err := s.scan(g, g.next, func(number uint64, payload []byte) {
			if number >= s.pos && sensors.DecodeView(payload, &r) == nil {
				s.passages.add(passageOf(&r), number)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// recoverOldest finds out when the next read to be drained has arrived.
func (s *Spool) recoverOldest() error {
	g := s.segs[0]
	var r sensors.Read
	at, found := s.look(), false
	s.oldest = at.uptime - at.age(g, g.written.UnixMilli(), 0)
	_, err := s.scan(g, g.next, func(number uint64, payload []byte) {
		if !found && number >= s.pos && sensors.DecodeView(payload, &r) == nil {
			s.oldest, found = at.uptime-at.age(g, r.Received, r.TS), true
		}
	})
	return err
}

// Append returns nil once all of the reads are on the disk: written and synced with
// fsync, by one fsync for all calls of the moment. ErrFull, ErrClosed and ErrInvalid say
// that none was taken; after another error that is unknown, and appending them again is
// safe. When ctx ends first its error is returned, and the reads may be taken all the same.
// Reads of one call, and of calls that follow each other, keep their order.
func (s *Spool) Append(ctx context.Context, reads []sensors.Read) error {
	c, err := encode(reads)
	if err == nil {
		err = s.append(ctx, c)
	}
	if err != nil {
		return fmt.Errorf("spool: append %d reads: %w", len(reads), err)
	}
	return nil
}

// encode makes the records of reads.
func encode(reads []sensors.Read) (*call, error) {
	c := &call{
		records: make([]byte, 0, 192*len(reads)), reads: len(reads),
		passages: make([]uint64, len(reads)), done: make(chan error, 1),
	}
	var err error
	for i := range reads {
		if c.records, err = appendRecord(c.records, &reads[i]); err != nil {
			return nil, fmt.Errorf("%w: number %d: %w", ErrInvalid, i+1, err)
		}
		c.passages[i] = passageOf(&reads[i])
	}
	if len(reads) > 0 {
		c.received, c.ts = reads[0].Received, reads[0].TS
	}
	return c, nil
}

func (s *Spool) append(ctx context.Context, c *call) error {
	if c.reads == 0 {
		return nil
	}
	select {
	case s.calls <- c:
	case <-s.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Holds reports whether the spool has a read of the passage of r that is not drained yet.
// Reads without a passage never are. It forgets passages when there are very many, the
// longest without a read first; see maxPassages.
func (s *Spool) Holds(r *sensors.Read) bool {
	if r.Passage == "" {
		return false
	}
	p := passageOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passages.has(p)
}

// More has an element when reads may have come since the last Drain. It is for the one who
// drains.
func (s *Spool) More() <-chan struct{} { return s.more }

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Stats returns the state and the counts. It may be called at any time.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Depth = s.next - s.pos
	st.Segments = len(s.segs)
	for _, g := range s.segs {
		st.Bytes += g.size
	}
	if st.Depth > 0 {
		st.OldestAge = max(0, s.look().uptime-s.oldest)
	}
	return st
}

// Close waits for the calls of Append and Drain under way, stores the position and lets
// go of the directory. Closing twice is allowed.
func (s *Spool) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		<-s.done
		s.head.Lock()
		defer s.head.Unlock()
		s.retire(true)
		s.mu.Lock()
		pos := s.pos
		s.mu.Unlock()
		var err error
		if pos != s.head.stored {
			err = s.store(pos)
		}
		if err = errors.Join(err, s.leave(), s.disk.close()); err != nil {
			s.closeErr = fmt.Errorf("spool: close: %w", err)
		}
	})
	return s.closeErr
}

// leave closes the open segments.
func (s *Spool) leave() error {
	_ = s.leaveHead() // it was open for reading
	s.tail.Lock()
	defer s.tail.Unlock()
	return s.leaveTail()
}
