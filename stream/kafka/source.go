package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"vigie/sensors"
	"vigie/stream"
)

// DefaultGroup is the consumer group of the matchers unless SourceConfig says otherwise.
const DefaultGroup = "vigie-matcher"

// headBytes is how much of a value that is too large is handed on.
const headBytes = 64 << 10

// leaveGrace bounds how long Run waits, after the last consume has returned, for brokers that
// do not answer when it leaves the group.
const leaveGrace = time.Second

// SourceConfig says how the reads topic is consumed. The zero value is good for production.
type SourceConfig struct {
	// Group is the consumer group; its members share the partitions. Default DefaultGroup.
	Group string
	// Members, when not 0, fixes who reads what, without a membership of the group: of so many
	// members the one with an Ordinal, from 0 on, reads the partitions whose number leaves that
	// ordinal when divided by Members. Offsets are still those of Group.
	Members int
	Ordinal int
	// MaxRecords and MaxBytes bound a batch, MaxBytes also what is asked of the broker at a
	// time. Defaults 8192 and 1 MiB.
	MaxRecords int
	MaxBytes   int
	// MaxWait is how long a Fetch waits for the first record. Default 250 ms.
	MaxWait time.Duration
	// MaxRecordBytes is what a record may have; a larger one is handed on as TooLarge. Default
	// sensors.MaxReadBytes.
	MaxRecordBytes int
	// MaxBatchBytes bounds what a record batch of a producer may take, as sent and unpacked;
	// a larger one (a decompression bomb) is handed on as one record that is TooLarge. Each
	// partition may hold twice that. Default 16 MiB.
	MaxBatchBytes int
	// SessionTimeout is how long a dead member keeps its partitions; HeartbeatInterval, at
	// most a third of it, how soon a member learns of a rebalance. Defaults 10 s and 3 s.
	SessionTimeout    time.Duration
	HeartbeatInterval time.Duration
	// RebalanceTimeout is how long consume may take to return when partitions move; a member
	// that needs longer loses its partitions without a last commit. Default 15 s.
	RebalanceTimeout time.Duration
}

// SourceStats counts what a Source did since it was made.
type SourceStats struct {
	Records      int64 // handed on
	Bytes        int64 // of their values
	Fetches      int64 // asked of brokers
	FetchErrors  int64
	Skipped      int64 // offsets that were gone, by retention or loss, before they were read
	Rewinds      int64 // partitions that ended before the offset to be read next
	Markers      int64 // transaction markers passed over
	TooLarge     int64 // records handed on as TooLarge
	Damaged      int64 // records that could not be had from a damaged batch
	Commits      int64
	CommitErrors int64
	Generations  int64 // times that partitions were assigned
	GroupErrors  int64
	Behind       int64            // commits left out because the group's offset was ahead already; see SourceConfig.Members
	Partitions   []PartitionStats // those owned now, by ID
}

// PartitionStats says where one partition stands. End - Committed is what is not done yet.
type PartitionStats struct {
	ID        int
	Next      int64 // offset to be read next, -1 before it is known
	Committed int64 // -1 when nothing was ever committed
	End       int64 // of the partition as last seen, -1 before that
}

// Source reads the reads topic as a member of a consumer group, or the partitions that its
// configuration fixes. It implements stream.Source.
type Source struct {
	c     *Cluster
	cfg   SourceConfig
	topic string

	running atomic.Bool
	stats   struct {
		records, bytes, fetches, fetchErrors, skipped, rewinds, markers, tooLarge, damaged,
		commits, commitErrors, generations, groupErrors, behind atomic.Int64
	}
	mu    sync.Mutex
	owned map[*partition]struct{}
}

// Source returns a Source of the reads topic. Nothing is read before Run.
func (c *Cluster) Source(cfg SourceConfig) *Source {
	def(&cfg.Group, DefaultGroup)
	def(&cfg.MaxRecords, 8192)
	def(&cfg.MaxBytes, 1<<20)
	def(&cfg.MaxWait, 250*time.Millisecond)
	def(&cfg.MaxRecordBytes, sensors.MaxReadBytes)
	def(&cfg.MaxBatchBytes, 16<<20)
	def(&cfg.SessionTimeout, 10*time.Second)
	def(&cfg.HeartbeatInterval, 3*time.Second)
	def(&cfg.RebalanceTimeout, 15*time.Second)
	return &Source{c: c, cfg: cfg, topic: c.topic(topicReads), owned: make(map[*partition]struct{})}
}

// def sets v to d when it has its zero value.
func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// check names the first field that cannot be.
func (cfg *SourceConfig) check() error {
	switch {
	case cfg.Members < 0:
		return fmt.Errorf("kafka: SourceConfig.Members %d: is negative", cfg.Members)
	case cfg.Ordinal < 0 || cfg.Ordinal > max(cfg.Members-1, 0):
		return fmt.Errorf("kafka: SourceConfig.Ordinal %d: must be from 0 to Members-1, of %d members", cfg.Ordinal, cfg.Members)
	case cfg.MaxRecords < 1:
		return fmt.Errorf("kafka: SourceConfig.MaxRecords %d: must be at least 1", cfg.MaxRecords)
	case cfg.MaxBytes < 1 || cfg.MaxBytes > 64<<20:
		return fmt.Errorf("kafka: SourceConfig.MaxBytes %d: must be between 1 and 64 MiB", cfg.MaxBytes)
	case cfg.MaxWait < 0:
		return fmt.Errorf("kafka: SourceConfig.MaxWait %v: is negative", cfg.MaxWait)
	case cfg.MaxRecordBytes < 1:
		return fmt.Errorf("kafka: SourceConfig.MaxRecordBytes %d: must be at least 1", cfg.MaxRecordBytes)
	case cfg.MaxBatchBytes < cfg.MaxBytes:
		return fmt.Errorf("kafka: SourceConfig.MaxBatchBytes %d: must be at least MaxBytes, %d", cfg.MaxBatchBytes, cfg.MaxBytes)
	case cfg.HeartbeatInterval <= 0 || cfg.SessionTimeout < 3*cfg.HeartbeatInterval:
		return fmt.Errorf("kafka: SourceConfig.SessionTimeout %v: must be at least three times HeartbeatInterval, %v",
			cfg.SessionTimeout, cfg.HeartbeatInterval)
	case cfg.RebalanceTimeout < time.Second:
		return fmt.Errorf("kafka: SourceConfig.RebalanceTimeout %v: must be at least 1 s", cfg.RebalanceTimeout)
	}
	return nil
}

// Run joins the group, unless SourceConfig.Members fixes its partitions, and calls consume for
// every partition that it has, as stream.Source says. It survives brokers that go away and come back, and returns an error
// only for what waiting cannot mend: no such topic, no permission, a wrong password, settings
// that the brokers refuse. When ctx ends it leaves the group, so that others take over at
// once, and returns within two seconds of the last consume even when no broker answers.
//
// Only one Run at a time.
func (s *Source) Run(ctx context.Context, consume func(context.Context, stream.Partition) error) error {
	if err := s.cfg.check(); err != nil {
		return err
	}
	if !s.running.CompareAndSwap(false, true) {
		return errors.New("kafka: Source.Run is already running")
	}
	defer s.running.Store(false)
	if err := s.waitTopic(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	if s.cfg.Members > 0 {
		return s.runFixed(ctx, consume)
	}
	conns := newConns(s.c.conns.DialContext)
	defer conns.cut()
	group, err := kafkago.NewConsumerGroup(kafkago.ConsumerGroupConfig{
		ID:                    s.cfg.Group,
		Brokers:               s.c.brokers,
		Dialer:                s.groupDialer(conns),
		Topics:                []string{s.topic},
		HeartbeatInterval:     s.cfg.HeartbeatInterval,
		SessionTimeout:        s.cfg.SessionTimeout,
		RebalanceTimeout:      s.cfg.RebalanceTimeout,
		JoinGroupBackoff:      250 * time.Millisecond,
		StartOffset:           kafkago.FirstOffset,
		WatchPartitionChanges: true,
		Timeout:               min(s.c.timeout, s.cfg.SessionTimeout/3),
		ErrorLogger: kafkago.LoggerFunc(func(format string, args ...any) {
			s.c.sampled.Warn("kafka: consumer group", zap.String("group", s.cfg.Group), zap.String("detail", fmt.Sprintf(format, args...)))
		}),
	})
	if err != nil {
		return fmt.Errorf("kafka: consumer group: %w", err)
	}
	run := &groupRun{s: s, consume: consume}
	err = run.generations(ctx, group)

	// Closing ends the generation, whose consumes then commit and return; only after that
	// kafka-go leaves the group. Connections are cut if brokers let that take too long.
	left := make(chan struct{})
	go func() { defer close(left); group.Close() }()
	run.consumes.Wait()
	grace := time.NewTimer(leaveGrace)
	defer grace.Stop()
	select {
	case <-left:
	case <-grace.C:
		s.c.log.Warn("kafka: no broker answers to leaving the group: others take over after the session timeout",
			zap.String("group", s.cfg.Group), zap.Duration("session", s.cfg.SessionTimeout))
		conns.cut()
		<-left
	}
	conns.cut()
	run.commits.Wait()
	return err
}

// groupDialer is a Dialer for the group, which passes over a broker that has just let somebody
// wait in vain, while there are others: kafka-go asks the first broker that accepts a connection
// for the coordinator, and one that is stopped (SIGSTOP) does accept. Without this a group
// whose coordinator was stopped stood still until it woke.
func (s *Source) groupDialer(conns *conns) *kafkago.Dialer {
	d := s.c.newDialer(conns)
	d.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		other := func(broker string) bool { return broker != addr && !s.c.redial.Silent(broker, silence) }
		if s.c.redial.Silent(addr, silence) && slices.ContainsFunc(s.c.brokers, other) {
			return nil, errSilent
		}
		return conns.DialContext(ctx, network, addr)
	}
	return d
}

// silence is how long a broker that has not answered is passed over.
const silence = 5 * time.Second

var errSilent = errors.New("this broker has not answered a moment ago: another is asked")

// waitTopic returns once the reads topic exists. kafka-go's group code would have it made by
// the broker, with the broker's defaults: one partition and a retention that nobody chose.
func (s *Source) waitTopic(ctx context.Context) error {
	started := time.Now()
	for n := 1; ; n++ {
		_, err := s.c.partitions(ctx, s.topic)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		gone := missing(err)
		if !transient(err) || gone && time.Since(started) > min(s.c.timeout, 3*metadataTTL) {
			return fmt.Errorf("kafka: %w", s.c.explain(s.topic, err))
		}
		s.c.sampled.Warn("kafka: the reads topic cannot be looked up yet", zap.Error(s.c.explain(s.topic, err)))
		if !s.c.sleep(ctx, backoff(n, time.Second)) {
			if s.c.isClosed() {
				return fmt.Errorf("kafka: %w", err)
			}
			return nil
		}
	}
}

// groupRun is one Run of a Source.
type groupRun struct {
	s        *Source
	consume  func(context.Context, stream.Partition) error
	consumes sync.WaitGroup          // calls of consume
	commits  sync.WaitGroup          // commits whose caller may have stopped waiting
	fail     context.CancelCauseFunc // ends a Run with fixed partitions
}

// generations starts the partitions of each generation until ctx ends.
func (run *groupRun) generations(ctx context.Context, group *kafkago.ConsumerGroup) error {
	s := run.s
	for {
		gen, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
		case errors.Is(err, kafkago.ErrGroupClosed):
			return nil
		default:
			s.stats.groupErrors.Add(1)
			if !transient(err) && !memberLost(err) {
				return fmt.Errorf("kafka: consumer group %s: %w", s.cfg.Group, s.c.explain(s.topic, err))
			}
			if s.c.isClosed() {
				return fmt.Errorf("kafka: consumer group %s: %w", s.cfg.Group, err)
			}
			s.c.sampled.Warn("kafka: joining the consumer group fails, trying again", zap.String("group", s.cfg.Group), zap.Error(err))
			continue // kafka-go waits before it tries again
		}
		s.stats.generations.Add(1)
		var ids []int
		for _, a := range gen.Assignments[s.topic] {
			ids = append(ids, a.ID)
			p := s.newPartition(run, gen, a)
			run.consumes.Add(1)
			gen.Start(func(ended context.Context) {
				defer run.consumes.Done()
				p.run(ctx, ended)
			})
		}
		s.c.log.Info("kafka: partitions assigned", zap.String("group", s.cfg.Group),
			zap.Int32("generation", gen.ID), zap.Ints("partitions", ids))
	}
}

// memberLost reports whether err says that the group has moved on without this member.
func memberLost(err error) bool {
	return errors.Is(err, kafkago.IllegalGeneration) || errors.Is(err, kafkago.UnknownMemberId) ||
		errors.Is(err, kafkago.FencedInstanceID)
}

// Stats returns the counters so far. It may be called at any time.
func (s *Source) Stats() SourceStats {
	st := SourceStats{
		Records: s.stats.records.Load(), Bytes: s.stats.bytes.Load(),
		Fetches: s.stats.fetches.Load(), FetchErrors: s.stats.fetchErrors.Load(),
		Skipped: s.stats.skipped.Load(), Rewinds: s.stats.rewinds.Load(), Markers: s.stats.markers.Load(),
		TooLarge: s.stats.tooLarge.Load(), Damaged: s.stats.damaged.Load(),
		Commits: s.stats.commits.Load(), CommitErrors: s.stats.commitErrors.Load(),
		Generations: s.stats.generations.Load(), GroupErrors: s.stats.groupErrors.Load(), Behind: s.stats.behind.Load(),
	}
	s.mu.Lock()
	for p := range s.owned {
		st.Partitions = append(st.Partitions, PartitionStats{
			ID: p.id, Next: p.atNext.Load(), Committed: p.atCommitted.Load(), End: p.atEnd.Load(),
		})
	}
	s.mu.Unlock()
	slices.SortFunc(st.Partitions, func(a, b PartitionStats) int { return a.ID - b.ID })
	return st
}

// partition is one partition while it is this process's. It implements stream.Partition.
type partition struct {
	*reader
	s     *Source
	gen   *kafkago.Generation // nil outside of a group
	group *groupRun
	id    int

	start   int64 // where a consume begins: the last committed offset, -1 for the first there is; owned by Commit during one
	again   int64 // where the next consume begins instead of start, -1 for nowhere else
	handed  bool  // this consume was given records
	damage  int   // reads in a row that met a damaged batch
	markers int64 // told to the statistics
	jumped  int64 // likewise
	lost    atomic.Bool

	atNext, atCommitted, atEnd atomic.Int64
}

func (s *Source) newPartition(run *groupRun, gen *kafkago.Generation, a kafkago.PartitionAssignment) *partition {
	p := &partition{
		reader: s.c.newReader(s.topic, a.ID, s.cfg.MaxWait, s.cfg.MaxBytes, s.cfg.MaxBatchBytes, false),
		s:      s, gen: gen, group: run, id: a.ID, start: max(a.Offset, -1), again: -1,
	}
	p.atNext.Store(p.start)
	p.atCommitted.Store(p.start)
	p.atEnd.Store(-1)
	return p
}

// run calls consume until ctx or the generation has ended.
func (p *partition) run(ctx, ended context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ended, cancel)
	defer stop()
	p.s.mu.Lock()
	p.s.owned[p] = struct{}{}
	p.s.mu.Unlock()
	defer func() {
		p.lost.Store(true)
		p.s.mu.Lock()
		delete(p.s.owned, p)
		p.s.mu.Unlock()
		if p.zstd != nil {
			p.zstd.Close()
		}
	}()
	for n := 0; ctx.Err() == nil && ended.Err() == nil; {
		if p.gen == nil && !p.resume(ctx) {
			return
		}
		p.seek(p.start)
		p.handed, p.damage = false, 0
		before := p.start
		err := p.group.consume(ctx, p)
		if ctx.Err() != nil {
			return
		}
		if p.again >= 0 {
			p.start, p.again = p.again, -1
		}
		if n++; p.start != before {
			n = 1 // it made progress
		}
		wait := backoff(n+2, 5*time.Second)
		p.s.c.sampled.Warn("kafka: a partition's consumer has stopped, it begins again at the committed offset",
			zap.Int("partition", p.id), zap.Int64("offset", p.start), zap.Duration("in", wait), zap.Error(err))
		p.c.sleep(ctx, wait)
	}
}

// ID is the number of the partition.
func (p *partition) ID() int { return p.id }

// Fetch is one look at the partition: at most one request to the broker, no request while
// records of the last answer are left. It retries what may pass by returning no records, and
// fails when reading has failed for longer than Config.Timeout or cannot succeed.
func (p *partition) Fetch(ctx context.Context, b *stream.Batch) error {
	b.Records, b.Skipped = b.Records[:0], 0
	p.recycle()
	if !p.pending() {
		if err := p.load(ctx, b); err != nil {
			return err
		}
	}
	p.fill(b)
	b.Next = max(p.next, 0) // less when nothing is known of the partition yet
	p.handed = p.handed || b.Next > 0
	b.HighWater = max(p.end, b.Next)
	p.atNext.Store(p.next)
	p.atEnd.Store(p.end)
	return nil
}

// load asks the broker for records.
func (p *partition) load(ctx context.Context, b *stream.Batch) error {
	var err error
	if p.next < 0 {
		var first int64
		if first, p.end, err = p.bounds(ctx); err == nil {
			p.seek(first)
		}
	}
	if err == nil {
		p.s.stats.fetches.Add(1)
		err = p.poll(ctx)
	}
	if errors.Is(err, kafkago.OffsetOutOfRange) {
		err = p.relocate(ctx, b)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrRewound):
		return err
	}
	if !errors.Is(err, errHole) {
		p.s.stats.fetchErrors.Add(1)
	}
	if !p.failed(ctx, err) {
		return fmt.Errorf("kafka: %w", p.c.explain(p.topic, err))
	}
	return ctx.Err()
}

// relocate finds a place to go on when the partition has no such offset.
func (p *partition) relocate(ctx context.Context, b *stream.Batch) error {
	first, end, err := p.bounds(ctx)
	if err != nil {
		return err
	}
	switch {
	case p.next < first:
		b.Skipped = first - p.next
		p.s.stats.skipped.Add(b.Skipped)
		p.seek(first)
		return nil
	case p.next > end:
		// Whether it was made anew (then nothing in it was read) or cut short by an unclean
		// election (then some was), only the beginning is sure to miss nothing.
		p.s.stats.rewinds.Add(1)
		p.c.log.Error("kafka: a partition ends before the offset to be read next: was the topic made anew? Reading it from its beginning",
			zap.String("topic", p.topic), zap.Int("partition", p.id), zap.Int64("next", p.next), zap.Int64("end", end), zap.Int64("first", first))
		if p.handed {
			p.again = first                                                  // once the commits of this consume have ended
			return fmt.Errorf("kafka: %s/%d: %w", p.topic, p.id, ErrRewound) // offsets must not go back under one consume
		}
		p.start = first
		p.seek(first)
		return nil
	}
	return fmt.Errorf("fetch %s/%d at offset %d of %d to %d: %w", p.topic, p.id, p.next, first, end, kafkago.LeaderNotAvailable)
}

// damageTries is how often a damaged batch is read again before its records are given up.
const damageTries = 3

// fill hands on records of the last answer, up to the limits of a batch.
func (p *partition) fill(b *stream.Batch) {
	var rec record
	bytes, damaged := 0, int64(0)
	for len(b.Records) < p.s.cfg.MaxRecords && bytes < p.s.cfg.MaxBytes {
		ok, err := p.read(&rec)
		if err != nil {
			var bad *badBatch
			errors.As(err, &bad)
			r, giveUp := p.reject(bad)
			if !giveUp {
				break
			}
			damaged += int64(max(bad.count, 1))
			b.Records = append(b.Records, r)
			continue
		}
		if !ok {
			break
		}
		p.damage = 0
		r := stream.Record{Offset: rec.offset, Value: rec.value}
		bytes += len(rec.value)
		if len(rec.value) > p.s.cfg.MaxRecordBytes {
			r.Value, r.TooLarge = rec.value[:min(headBytes, len(rec.value))], true
			p.s.stats.tooLarge.Add(1)
		}
		b.Records = append(b.Records, r)
	}
	if n := len(b.Records); n > 0 {
		p.handed = true
		p.s.stats.records.Add(int64(n))
		p.s.stats.bytes.Add(int64(bytes))
		p.s.stats.damaged.Add(damaged)
	}
	if p.reader.markers != p.markers {
		p.s.stats.markers.Add(p.reader.markers - p.markers)
		p.markers = p.reader.markers
	}
	if lost := p.reader.jumped - p.jumped; lost > 0 {
		// Nothing is ever compacted away in this topic.
		b.Skipped += lost
		p.s.stats.skipped.Add(lost)
		p.jumped = p.reader.jumped
	}
}

// reject decides about a batch whose records cannot be had. With ok it is given up for, and r
// stands for it: TooLarge, or the beginning of the batch, whose first byte is 0 and so no read.
func (p *partition) reject(bad *badBatch) (r stream.Record, ok bool) {
	tooLarge := errors.Is(bad, errUnpacksTooLarge)
	if !bad.passed {
		// Its extent is unknown: the fault may lie on the way, so it is read again, and then
		// passed offset by offset.
		if p.damage++; p.damage < damageTries {
			p.c.sampled.Warn("kafka: a damaged batch, reading it again", zap.String("topic", p.topic), zap.Int("partition", p.id), zap.Error(bad))
			return r, false
		}
		p.seek(p.next + 1)
	}
	p.c.sampled.Error("kafka: a batch cannot be read, it goes to the dead letters", zap.String("topic", p.topic),
		zap.Int("partition", p.id), zap.Int("records", bad.count), zap.Error(bad))
	if tooLarge {
		p.s.stats.tooLarge.Add(1)
	}
	head := slices.Clone(bad.raw[:min(len(bad.raw), headBytes)])
	return stream.Record{Offset: bad.offset, Value: head, TooLarge: tooLarge}, true
}

// Commit commits next for the group. When ctx ends first, the outcome is unknown; committing
// again is safe. An offset below the last committed one is refused: the reads between would
// come again at the next start.
func (p *partition) Commit(ctx context.Context, next int64) error {
	if p.lost.Load() {
		return fmt.Errorf("kafka: commit %s/%d: %w", p.topic, p.id, ErrNotOwner)
	}
	if next < p.start {
		return fmt.Errorf("kafka: commit %s/%d: offset %d is below the committed one, %d", p.topic, p.id, next, p.start)
	}
	commit := p.commitMember
	if p.gen == nil {
		commit = p.commitFixed
	}
	err := commit(ctx, next)
	if err != nil {
		p.s.stats.commitErrors.Add(1)
		if p.gen != nil && memberLost(err) {
			return fmt.Errorf("kafka: commit %s/%d: %w: %w", p.topic, p.id, ErrNotOwner, err)
		}
		return fmt.Errorf("kafka: commit %s/%d: %w", p.topic, p.id, err)
	}
	p.s.stats.commits.Add(1)
	p.start = next
	p.atCommitted.Store(next)
	return nil
}

// commitMember commits next for this generation of the group.
func (p *partition) commitMember(ctx context.Context, next int64) error {
	done := make(chan error, 1)
	p.group.commits.Add(1)
	go func() {
		defer p.group.commits.Done()
		done <- p.gen.CommitOffsets(map[string]map[int]int64{p.topic: {p.id: next}})
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
