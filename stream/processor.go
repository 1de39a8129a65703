package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vigie/matcher"
	"vigie/sensors"
	"vigie/stream/alert"
	"vigie/watchlist/plate"
)

// Config has the parts of a Processor. Source, Replica, Queues, Journal and
// Dead are required.
type Config struct {
	Source  Source
	Replica *Replica
	Queues  Queues
	Journal Journal
	Dead    DeadLetters

	Clock Clock       // time.Now when nil
	Log   *zap.Logger // silent when nil

	// MaxAge is the age of a read, by its own time, from which its alerts are
	// late and ask for no stop. 10 minutes when 0.
	MaxAge time.Duration
	// Late makes every alert late, whatever the age of its read: for reads that are
	// read again.
	Late bool
	// MaxListAge is how long the replica may have heard nothing of the control log, not even
	// that there is nothing new, before reads wait. 1 s when 0; a healthy Kafka
	// answers four times a second.
	MaxListAge time.Duration
	// CommitEvery bounds how long finished records stay uncommitted, and so how
	// many reads are read again after a crash. 200 ms when 0.
	CommitEvery time.Duration
	// Drain bounds how long a batch in hand may still take once the process is
	// told to stop or the partition to move. 5 s when 0.
	Drain time.Duration
}

// Processor turns reads into alerts, one goroutine per partition: fetch, match,
// publish to the queues, append to the hits topic, and only then commit. Every
// step may be repeated, so a crash anywhere between two of them repeats work and
// loses none.
type Processor struct {
	cfg     Config
	sampled *zap.Logger // for what a fault may repeat with every read
	stats   stats

	decode func([]byte, *sensors.Read) error // sensors.DecodeView, unless a test breaks it

	life context.Context // of Run; ends Config.Drain after it is told to stop
	owed sync.WaitGroup  // see owe
}

// New returns a Processor, or says which part is missing.
func New(cfg Config) (*Processor, error) {
	switch {
	case cfg.Source == nil:
		return nil, errors.New("stream: Config.Source is required")
	case cfg.Replica == nil:
		return nil, errors.New("stream: Config.Replica is required")
	case cfg.Queues == nil:
		return nil, errors.New("stream: Config.Queues is required")
	case cfg.Journal == nil:
		return nil, errors.New("stream: Config.Journal is required")
	case cfg.Dead == nil:
		return nil, errors.New("stream: Config.Dead is required")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = 10 * time.Minute
	}
	if cfg.MaxListAge == 0 {
		cfg.MaxListAge = time.Second
	}
	if cfg.CommitEvery == 0 {
		cfg.CommitEvery = 200 * time.Millisecond
	}
	if cfg.Drain == 0 {
		cfg.Drain = 5 * time.Second
	}
	return &Processor{
		cfg: cfg,
		sampled: cfg.Log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(core, 10*time.Second, 3, 0)
		})),
		decode: sensors.DecodeView,
	}, nil
}

// Run waits until the replica has caught up with the control log, since
// matching against half a list would miss silently, and then processes reads
// until ctx ends.
func (p *Processor) Run(ctx context.Context) error {
	if err := p.cfg.Replica.WaitCaughtUp(ctx); err != nil {
		return nil // told to stop before it could start
	}
	life, stop := drain(ctx, p.cfg.Drain)
	defer stop()
	p.life = life
	if err := p.cfg.Source.Run(ctx, p.consume); err != nil {
		stop()
		p.owed.Wait()
		return fmt.Errorf("stream: %w", err)
	}
	p.owed.Wait()
	return nil
}

// owe appends hits whose alerts the queues have, after the worker had to give up on them:
// an append needs no partition. The reads come again, but by newer lists they may hit
// nothing, and an alert that a patrol has seen would be on no record.
func (p *Processor) owe(settled []*alert.Event) {
	if len(settled) == 0 {
		return
	}
	p.owed.Go(func() {
		_ = p.retry(p.life, "hits topic", func() error { return p.cfg.Journal.Append(p.life, settled) }) // its error: told to stop
	})
}

// worker is the state of one partition's goroutine, reused from batch to batch.
type worker struct {
	p     *Processor
	part  Partition
	batch Batch
	reads []read
	keys  []plate.Key   // of the reads
	may   []uint64      // see matcher.Snapshot.MayHit
	hits  []matcher.Hit // of one read
	rev   []int         // places of the later reads of a passage; see revise

	// What has been matched and is not stored yet.
	next      int64          // offset after it
	alerts    []*alert.Alert // of it
	offsets   []int64        // of the records that the alerts are of
	later     []later        // see revise
	matched   int64          // reads
	sentinels int64
	since     time.Time // when the first of the alerts was made

	candidates []matcher.Candidate // of one read
	charConf   []float32           // likewise
	dead       []DeadLetter
	lag        *atomic.Int64
	at         time.Time // when the stage in hand began
}

// read is a read that can be matched.
type read struct {
	sensors.Read
	key     plate.Key
	country plate.Country
	offset  int64
}

// consume processes one partition until ctx ends.
func (p *Processor) consume(ctx context.Context, part Partition) error {
	w := worker{p: p, part: part, lag: p.stats.partition(part.ID())}
	defer w.lag.Store(0)
	// Cancelling stops the next fetch; the batch in hand gets Drain to finish.
	finishing, stop := drain(ctx, p.cfg.Drain)
	defer stop()

	var done int64 // next offset
	commits := committer{p: p, part: part}
	defer func() { _ = commits.wait() }()
	inTime := true
	for ctx.Err() == nil {
		stage := stageFetch
		if w.batch.Next >= w.batch.HighWater {
			stage = stageWait // nothing is known to be there: most of the time goes by until a read comes
		}
		w.at = time.Now()
		if err := part.Fetch(ctx, &w.batch); err != nil {
			if ctx.Err() != nil {
				break
			}
			return fmt.Errorf("fetch partition %d: %w", part.ID(), err)
		}
		w.lap(stage)
		if w.batch.Skipped > 0 {
			p.stats.skipped.Add(w.batch.Skipped)
			p.cfg.Log.Error("reads were gone before they were matched, by retention or because a broker lost them: raise the retention of the reads topic or add matchers",
				zap.Int("partition", part.ID()), zap.Int64("reads", w.batch.Skipped))
		}
		// A fetch may have taken long, and lists that are old may hold up what comes next.
		var err error
		if w.inHand() > 0 && (time.Since(w.since) >= holdFor || p.cfg.Replica.Age() > p.cfg.MaxListAge) {
			err = w.store(finishing)
		}
		if err == nil {
			err = w.process(finishing)
		}
		if err == nil && !w.holds() {
			err = w.store(finishing)
		}
		if err != nil { // no time was left: it is not committed and comes again
			inTime = false
			break
		}
		now := p.cfg.Clock()
		done = max(done, w.stored())
		w.lag.Store(max(0, w.batch.HighWater-w.batch.Next))
		if err := commits.poll(); err != nil && ctx.Err() == nil {
			return err
		}
		commits.begin(finishing, done, now)
	}
	if inTime && w.store(finishing) == nil {
		done = max(done, w.stored())
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.cfg.Drain)
	defer cancel()
	_ = commits.wait() // the last commit tells what is wrong
	return commits.last(last, done)
}

// process matches the batch in hand. Its only error is that there was no time left.
func (w *worker) process(ctx context.Context) error {
	if records := w.batch.Records; len(records) > 0 {
		w.p.stats.batches.add(int64(len(records)), float64(len(records)), BatchBuckets[:])
		fault, err := w.attempt(ctx, records)
		if fault != nil {
			err = w.oneByOne(ctx, records, fault)
		}
		if err != nil {
			return err
		}
	}
	w.next = max(w.next, w.batch.Next)
	return nil
}

// Alerts of a partition that is behind are stored together: what a call of Redis and of
// Kafka costs is then paid for many. No batch is taken in addition once there are so many, or
// the first has waited so long, beside one fetch; and only while more records than a batch
// has are known to wait.
const (
	holdAlerts = 256
	holdFor    = 10 * time.Millisecond
	holdBehind = 8192
)

// holds reports whether the alerts in hand may wait for more.
func (w *worker) holds() bool {
	return w.inHand() > 0 && w.inHand() < holdAlerts && w.batch.HighWater-w.batch.Next > holdBehind &&
		time.Since(w.since) < holdFor
}

// stored is the offset below which everything is stored.
func (w *worker) stored() int64 {
	if w.inHand() > 0 {
		return 0
	}
	return w.next
}

// store returns once the alerts in hand are stored. Its only error is that there was no
// time left.
func (w *worker) store(ctx context.Context) error {
	if w.inHand() > 0 {
		w.at = time.Now()
		fault, err := guard(func() error { return w.publish(ctx, w.alerts, w.later) })
		if fault != nil {
			err = w.storeOneByOne(ctx, fault)
		}
		if err != nil {
			return err
		}
	}
	w.p.stats.reads.Add(w.matched)
	w.p.stats.sentinels.Add(w.sentinels)
	clear(w.alerts)
	clear(w.later)
	w.later = w.later[:0]
	w.alerts, w.offsets, w.matched, w.sentinels = w.alerts[:0], w.offsets[:0], 0, 0
	return nil
}

// window is how many records are decoded before they are matched: so few that what was
// decoded (250 bytes a read) is still in the cache then, and enough for MayHit.
const window = 256

// handle decodes records and matches them, and adds the alerts to those in hand.
func (w *worker) handle(ctx context.Context, records []Record) error {
	if err := w.awaitLists(ctx); err != nil {
		return err
	}
	snap := w.p.cfg.Replica.Matcher().Snapshot()
	w.dead = w.dead[:0]
	if w.inHand() == 0 {
		w.since = time.Now()
	}
	var decoding, matching time.Duration
	for some := range slices.Chunk(records, window) {
		w.decode(some)
		decoded := time.Now()
		decoding += decoded.Sub(w.at)
		w.may = snap.MayHit(w.may[:0], w.keys)
		for i := range w.reads {
			if w.may[i/64]>>(i%64)&1 != 0 {
				w.alerts = w.match(w.alerts, snap, &w.reads[i])
				for len(w.offsets) < len(w.alerts) {
					w.offsets = append(w.offsets, w.reads[i].offset)
				}
			}
		}
		w.revise()
		w.at = time.Now()
		matching += w.at.Sub(decoded)
		w.matched += int64(len(w.reads))
	}
	w.p.stats.stage(stageDecode, decoding)
	w.p.stats.stage(stageMatch, matching)
	return w.bury(ctx, w.dead)
}

// bury returns once the letters are on the dead-letter topic.
func (w *worker) bury(ctx context.Context, letters []DeadLetter) error {
	if len(letters) == 0 {
		return nil
	}
	err := w.p.retry(ctx, "dead letters", func() error {
		fault, err := guard(func() error { return w.p.cfg.Dead.Send(ctx, letters) })
		if fault != nil {
			err = errors.New("panic") // nothing is left to be tried with these but waiting
		}
		return err
	})
	if err != nil {
		return err
	}
	w.p.stats.dead(letters)
	w.lap(stageDead)
	return nil
}

// drain returns a context that outlives ctx by d.
func drain(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(d, cancel)
		context.AfterFunc(late, func() { t.Stop() })
	})
	return late, func() { unhook(); cancel() }
}

// decode sorts a window of records into reads to match, and adds to the dead letters.
func (w *worker) decode(records []Record) {
	w.reads, w.keys, w.rev = w.reads[:0], w.keys[:0], w.rev[:0]
	for _, rec := range records {
		n := len(w.reads)
		if n < cap(w.reads) {
			w.reads = w.reads[:n+1]
		} else {
			w.reads = append(w.reads, read{})
		}
		r := &w.reads[n]
		reason, ok := r.decode(rec, w.p.decode)
		switch {
		case ok:
			w.keys = append(w.keys, r.key)
			if r.Revision > 0 && r.Passage != "" {
				w.rev = append(w.rev, n)
			}
			continue
		case reason != "":
			w.dead = append(w.dead, DeadLetter{Partition: w.part.ID(), Offset: rec.Offset, Reason: reason, Value: rec.Value})
		default:
			w.sentinels++
		}
		w.reads = w.reads[:n]
	}
}

// decode fills r from a record. Without ok it gives the reason why the record
// is not a read, or none for a read on which the camera saw no plate.
func (r *read) decode(rec Record, decode func([]byte, *sensors.Read) error) (reason Reason, ok bool) {
	switch {
	case rec.TooLarge:
		return ReasonTooLarge, false
	case len(rec.Value) == 0:
		return ReasonEmpty, false
	}
	// A view: alert.New copies what it keeps, everything else ends with the batch.
	if err := decode(rec.Value, &r.Read); err != nil {
		if rec.Value[0] == '{' {
			return ReasonJSON, false
		}
		return ReasonProtobuf, false
	}
	if err := r.Check(); err != nil {
		return ReasonField, false
	}
	key, err := r.Key()
	switch {
	case errors.Is(err, plate.ErrSentinel):
		return "", false
	case err != nil:
		return ReasonPlate, false
	}
	r.key, r.country, r.offset = key, r.CountryCode(), rec.Offset
	r.EnsureID()
	return "", true
}

// match appends the alerts of one read at the version of snap.
func (w *worker) match(dst []*alert.Alert, snap *matcher.Snapshot, r *read) []*alert.Alert {
	q := matcher.Query{Key: r.key, Country: r.country, At: r.TS, Sensor: r.Sensor}
	if snap.Weighs() {
		w.weigh(&q, &r.Read)
	}
	w.hits = snap.Match(w.hits[:0], &q)
	if len(w.hits) == 0 {
		return dst
	}
	now, place := w.p.cfg.Clock(), w.p.cfg.Replica.Sensor(r.Sensor)
	if place == nil {
		w.p.stats.unknownSensor.Add(1)
	}
	for i := range w.hits {
		h := &w.hits[i]
		entry := h.Entry.Unpack()
		dst = append(dst, alert.New(alert.Input{
			List: h.List, Entry: entry, Read: &r.Read, Sensor: place,
			Evidence: alert.Evidence{
				Kind: h.Kind.String(), Country: h.Country.String(), Grade: h.Grade.String(), Score: h.Score,
				Syntax: r.key.Syntax(r.country).String(),
				Read:   r.key.String(), Entry: entry.Normalised(),
				Differs: h.Positions(), Version: snap.Version(),
			},
			Now: now, MaxAge: w.p.cfg.MaxAge, Late: w.p.cfg.Late,
		}))
	}
	return dst
}

// weigh adds what the sensor said beside the plate, for lists that hit on texts
// that differ.
func (w *worker) weigh(q *matcher.Query, r *sensors.Read) {
	q.Conf = r.Conf
	w.charConf = r.AppendCharConf(w.charConf[:0])
	q.CharConf = w.charConf
	w.candidates = w.candidates[:0]
	for _, c := range r.Candidates {
		if k, err := plate.Parse(c.Plate); err == nil && len(w.candidates) < matcher.MaxCandidates {
			w.candidates = append(w.candidates, matcher.Candidate{Key: k, Conf: c.Conf})
		}
	}
	q.Candidates = w.candidates
}

// generation is that of queues which may lose what they have acknowledged; see
// Failover. Others have one.
func (p *Processor) generation() int64 {
	if q, ok := p.cfg.Queues.(interface{ Generation() int64 }); ok {
		return q.Generation()
	}
	return 0
}

// publish returns once every alert is in its queue and on the hits topic, or no longer
// wanted, and so is what later reads change.
func (w *worker) publish(ctx context.Context, alerts []*alert.Alert, reads []later) error {
	for {
		generation := w.p.generation()
		if err := w.publishOnce(ctx, alerts, reads); err != nil {
			return err
		}
		if w.p.generation() == generation {
			return nil
		}
		// The queues failed over between their answer and that of the hits topic,
		// from which they were made good too early for these.
	}
}

func (w *worker) publishOnce(ctx context.Context, todo []*alert.Alert, reads []later) error {
	var settled []*alert.Event
	for len(todo) > 0 {
		var answers []Published
		err := w.p.retry(ctx, "queues", func() (err error) {
			answers, err = w.p.cfg.Queues.Publish(ctx, todo)
			return err
		})
		if err != nil {
			w.p.owe(settled)
			return err
		}
		var stale []*alert.Alert
		var fence int64
		for i, a := range todo {
			switch answers[i].Outcome {
			case Stale:
				stale, fence = append(stale, a), max(fence, answers[i].Fence)
				continue
			case Duplicate:
				w.p.stats.duplicates.Add(1)
			case Stored:
				w.p.stats.observe(w.p.cfg.Clock(), a)
			}
			// A duplicate goes to the hits topic too: a crash may have come
			// between the queue and the topic.
			settled = append(settled, alert.Hit(a))
		}
		todo = nil
		if len(stale) > 0 {
			if todo, err = w.rematch(ctx, stale, fence); err != nil {
				w.p.owe(settled)
				return err
			}
		}
	}
	changes, err := w.reviseQueues(ctx, reads)
	settled = append(settled, changes...)
	if err != nil {
		w.p.owe(settled)
		return err
	}
	w.lap(stageQueues)
	if len(settled) == 0 {
		return nil
	}
	if err := w.p.retry(ctx, "hits topic", func() error { return w.p.cfg.Journal.Append(ctx, settled) }); err != nil {
		w.p.owe(settled)
		return err
	}
	w.lap(stageHits)
	return nil
}

// rematch matches the reads of stale alerts again once the replica has reached
// the fence that refused them. What was withdrawn meanwhile is gone from the
// answer.
func (w *worker) rematch(ctx context.Context, stale []*alert.Alert, fence int64) ([]*alert.Alert, error) {
	w.p.stats.stale.Add(int64(len(stale)))
	if err := w.awaitFence(ctx, fence); err != nil {
		return nil, err
	}
	snap := w.p.cfg.Replica.Matcher().Snapshot()
	refused := make(map[string]bool, len(stale))
	for _, a := range stale {
		refused[a.ID] = true
	}
	var again []*alert.Alert
	seen := make(map[string]bool, len(stale)) // reads matched again
	for _, a := range stale {
		if seen[a.Read.ID] {
			continue
		}
		seen[a.Read.ID] = true
		key, _ := a.Read.Key() // it has parsed before
		r := read{Read: a.Read, key: key, country: a.Read.CountryCode()}
		for _, b := range w.match(nil, snap, &r) {
			if refused[b.ID] {
				again = append(again, b)
			}
		}
	}
	return again, nil
}

// awaitLists waits while the replica has heard nothing of the control log for longer than
// Config.MaxListAge: a matcher that was cut off from Kafka must not match what has waited
// there by lists that have waited too.
func (w *worker) awaitLists(ctx context.Context) error {
	p := w.p
	for waited := time.Duration(0); p.cfg.Replica.Age() > p.cfg.MaxListAge; waited += p.cfg.MaxListAge / 100 {
		if waited >= time.Second {
			p.sampled.Error("reads wait: nothing was heard of the control log, and by old lists they could miss: look at Kafka",
				zap.Int("partition", w.part.ID()), zap.Duration("age", p.cfg.Replica.Age()))
		}
		if err := pause(ctx, p.cfg.MaxListAge/100); err != nil {
			return err
		}
	}
	w.lap(stageLists)
	return nil
}

// awaitFence waits until the replica has reached a fence, and says so when that
// takes long: its alerts wait meanwhile.
func (w *worker) awaitFence(ctx context.Context, fence int64) error {
	for {
		wait, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := w.p.cfg.Replica.WaitVersion(wait, fence)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		w.p.stats.retries.Add(1)
		w.p.cfg.Log.Error("alerts wait for the control log to reach the fence of their queue; if it never can, another installation uses the same Redis keys or the control topic was made anew",
			zap.Int64("fence", fence), zap.Int64("version", w.p.cfg.Replica.Version()))
	}
}

// retry does f until it succeeds or ctx ends, backing off to one second. While
// Redis or Kafka is away nothing is committed and the reads wait in Kafka.
func (p *Processor) retry(ctx context.Context, what string, f func() error) error {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := f()
		if err == nil {
			return nil
		}
		p.stats.retries.Add(1)
		p.cfg.Log.Warn("not stored yet, trying again", zap.String("part", what), zap.Duration("in", wait), zap.Error(err))
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// pause waits for d, or returns the error of ctx when that ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
