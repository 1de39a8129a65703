package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

const (
	// holeChecks is how often a fetch below the end must come back empty before the offsets
	// up to the end are taken for removed by compaction. A leader that has just been elected
	// may answer empty once.
	holeChecks = 3
	holePause  = 20 * time.Millisecond

	leastAsk = 64 << 10 // see reader.adapt

	// fetchTimeout bounds the first try of a fetch, beside its wait; each further one may take
	// twice as long, up to Config.Timeout. It is what a leader that has stopped costs
	// before the next one is looked for.
	fetchTimeout = 3 * time.Second
)

// errHole says that a fetch below the end came back empty.
var errHole = errors.New("nothing at this offset although the partition goes on")

// reader reads one partition from an offset on. It is used by one goroutine.
type reader struct {
	records
	c         *Cluster
	topic     string
	partition int
	wait      time.Duration // how long a fetch waits for the first record
	ask       int           // bytes to ask for at most
	end       int64         // end of the partition as last seen, -1 before that

	fetch   *fetch
	told    bool      // the last answer spoke of the partition; not when the broker throttles
	now     int       // bytes to ask for now
	quiet   time.Time // no fetch before this
	holes   int       // fetches in a row that came back empty below the end
	holeEnd int64     // end of the partition at the first of them
	// compacted says that the topic may end in offsets that are gone for good.
	compacted bool
	failures  int       // tries in a row that failed
	failing   time.Time // when the first of them failed
}

// newReader returns a reader of a partition at offset 0. limit bounds the bytes of one batch,
// as sent and unpacked. With keep, records stay valid for good; without, until the next poll.
func (c *Cluster) newReader(topic string, partition int, wait time.Duration, ask, limit int, keep bool) *reader {
	return &reader{
		records:   records{limit: limit, soft: ask, keep: keep},
		c:         c,
		topic:     topic,
		partition: partition,
		wait:      wait,
		ask:       ask,
		now:       ask,
		end:       -1,
	}
}

// poll fetches from the offset next on. It must be called only when nothing is pending. It
// waits up to wait for the first record; none then is no error. OffsetOutOfRange means that
// next lies outside of the partition: see bounds. Other errors go to failed.
func (r *reader) poll(ctx context.Context) error {
	if rest := time.Until(r.quiet); rest > 0 && !r.c.sleep(ctx, rest) {
		return context.Cause(ctx)
	}
	err := r.fetchOnce(ctx)
	if err == nil || errors.Is(err, kafkago.OffsetOutOfRange) {
		r.failures = 0
	}
	return err
}

// longestPause bounds the wait between tries while the brokers are away.
const longestPause = time.Second

// failed counts a failure and waits before the next try. It reports whether
// trying again is worth it: the error may pass, and has not lasted longer than the timeout.
func (r *reader) failed(ctx context.Context, err error) bool {
	if errors.Is(err, errHole) {
		return true // it has waited already
	}
	if r.failures++; r.failures == 1 {
		r.failing = time.Now()
	}
	r.c.sampled.Warn("kafka: reading fails", zap.String("topic", r.topic), zap.Int("partition", r.partition),
		zap.Int("failures", r.failures), zap.Error(err))
	if !transient(err) || r.c.isClosed() || time.Since(r.failing) > r.c.timeout {
		return false
	}
	r.c.sleep(ctx, backoff(r.failures, longestPause))
	return true
}

// until is a context with a deadline and without a timer: kafka-go holds its connections to
// the deadline, made or to be made, and nothing else of a fetch takes time. At 3,500 reads a second, each of
// which is fetched alone, the timers and channels of context.WithTimeout were 60 % of what a fetch
// allocates, and with a million entries a collection takes a tenth of a second.
type until struct {
	context.Context
	at time.Time
}

// Deadline is the earlier one of the two.
func (u until) Deadline() (time.Time, bool) {
	if d, ok := u.Context.Deadline(); ok && d.Before(u.at) {
		return d, true
	}
	return u.at, true
}

func (r *reader) fetchOnce(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f := r.fetch
	if f == nil {
		f = &fetch{clientID: r.c.clientID, topic: r.topic, partition: int32(r.partition), limit: r.limit}
	}
	if r.keep {
		f.data = nil
	}
	f.offset, f.wait, f.ask = r.next, r.wait, int32(r.now)
	if r.end < 0 {
		f.wait = 0 // where the partition ends is news in itself
	}
	deadline := until{ctx, time.Now().Add(r.wait + min(r.c.timeout, fetchTimeout<<min(r.failures, 4)))}
	// Until the answer is here f belongs to the connection, which may outlive this call.
	r.fetch = nil
	if _, err := r.c.transport.RoundTrip(deadline, r.c.client.Addr, f); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
			return context.DeadlineExceeded // the connection has noticed first
		}
		if timedOut(err) {
			r.now = max(r.now/2, min(leastAsk, r.ask)) // a slow network: ask for less at a time
		}
		return fmt.Errorf("fetch %s/%d at offset %d: %w", r.topic, r.partition, r.next, err)
	}
	r.fetch = f
	if f.throttle > 0 {
		r.quiet = time.Now().Add(min(f.throttle, 5*time.Second)) // the broker's quota is used up
	}
	if f.code != 0 {
		return fmt.Errorf("fetch %s/%d at offset %d: %w", r.topic, r.partition, r.next, kafkago.Error(f.code))
	}
	if r.told = f.answered; !r.told {
		return nil
	}
	if len(f.data) >= r.now/2 {
		r.now = min(2*r.now, r.ask)
	}
	if len(f.data) == 0 && r.next < f.highWater {
		if !r.compacted { // nothing but retention removes records here, and that moves the start
			return fmt.Errorf("fetch %s/%d at offset %d of %d: an empty answer: %w", r.topic, r.partition, r.next, f.highWater, kafkago.LeaderNotAvailable)
		}
		return r.hole(ctx, f.highWater)
	}
	r.holes = 0
	r.end = f.highWater
	r.feed(f.data, f.cut)
	return nil
}

// hole deals with an empty answer below the end of a compacted topic: what was there is gone for good (compaction
// has removed the last records), or, rarely, not readable for a moment. Skipping would lose
// records in the second case, so it is asked again before next moves to the end.
func (r *reader) hole(ctx context.Context, end int64) error {
	if r.holes == 0 {
		r.holeEnd = end
	}
	r.holes++
	if r.holes < holeChecks {
		if !r.c.sleep(ctx, holePause) {
			return ctx.Err()
		}
		return errHole
	}
	r.holes = 0
	r.end = end
	r.next = r.holeEnd
	return nil
}

// bounds returns the first offset of the partition and the one after the last.
func (r *reader) bounds(ctx context.Context) (first, end int64, err error) {
	return r.c.bounds(ctx, r.topic, r.partition)
}

func (c *Cluster) bounds(ctx context.Context, topic string, partition int) (first, end int64, err error) {
	res, err := c.client.ListOffsets(ctx, &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{
		topic: {kafkago.FirstOffsetOf(partition), kafkago.LastOffsetOf(partition)},
	}})
	if err == nil {
		for _, p := range res.Topics[topic] {
			if p.Partition != partition {
				continue
			}
			if p.Error == nil && p.FirstOffset >= 0 && p.LastOffset >= p.FirstOffset {
				return p.FirstOffset, p.LastOffset, nil
			}
			err = p.Error
		}
		if err == nil {
			err = kafkago.LeaderNotAvailable
		}
	}
	return 0, 0, fmt.Errorf("offsets of %s/%d: %w", topic, partition, err)
}

// span is a run of offsets of a partition: from first until before end.
type span struct{ first, end int64 }

// spanOf is what a partition got from one time until before another. The zero time stands for
// its beginning and its end.
func (c *Cluster) spanOf(ctx context.Context, topic string, partition int, from, to time.Time) (s span, err error) {
	if s.first, s.end, err = c.bounds(ctx, topic, partition); err != nil {
		return s, err
	}
	end := s.end
	if !to.IsZero() {
		if s.end, err = c.offsetAt(ctx, topic, partition, to, end); err != nil {
			return s, err
		}
	}
	if !from.IsZero() {
		at, err := c.offsetAt(ctx, topic, partition, from, end)
		if err != nil {
			return s, err
		}
		s.first = max(s.first, at)
	}
	s.end = max(s.first, min(s.end, end))
	return s, nil
}

// offsetAt is the offset of the first record of that time or later, end when there is none.
func (c *Cluster) offsetAt(ctx context.Context, topic string, partition int, at time.Time, end int64) (int64, error) {
	res, err := c.client.ListOffsets(ctx, &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{
		topic: {kafkago.TimeOffsetOf(partition, at)},
	}})
	if err == nil {
		err = kafkago.LeaderNotAvailable
		for _, p := range res.Topics[topic] {
			if p.Partition != partition {
				continue
			}
			if err = p.Error; err != nil {
				break
			}
			for offset := range p.Offsets { // one at most
				if offset >= 0 {
					end = min(end, offset)
				}
			}
			return end, nil
		}
	}
	return 0, fmt.Errorf("offset by time of %s/%d: %w", topic, partition, err)
}
