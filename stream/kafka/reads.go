package kafka

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"vigie/sensors"
)

// readsPace is the shortest time between two requests for one partition. The first read after
// a quiet moment goes out at once; under load reads gather that long. Measured with 128 callers
// on 2 cores shared with the broker: 1.4 ms at the median without a pace, at three times the
// broker's CPU per read; 2.7 ms with a pace of 2 ms, 5.5 ms with 5 ms.
const readsPace = 2 * time.Millisecond

// Reads writes accepted reads to the reads topic, keyed by sensor, so that the reads of one
// sensor stay in order. It implements sensors.Publisher. Concurrent calls share requests; each
// partition has one request under way at a time.
type Reads struct {
	c     *Cluster
	topic string
	out   *producer

	stats struct{ reads, requests, failed atomic.Int64 }
	mu    sync.Mutex
	lanes map[int]*lane
}

// ReadsStats counts what Reads has written.
type ReadsStats struct {
	Reads    int64 // acknowledged
	Requests int64 // made of brokers, without retries
	Failed   int64 // reads whose outcome is unknown; they may be published again
}

// Stats returns the counters so far. It may be called at any time.
func (r *Reads) Stats() ReadsStats {
	return ReadsStats{Reads: r.stats.reads.Load(), Requests: r.stats.requests.Load(), Failed: r.stats.failed.Load()}
}

// Reads returns a writer of the reads topic. One per process is best.
func (c *Cluster) Reads() *Reads {
	topic := c.topic(topicReads)
	return &Reads{c: c, topic: topic, out: c.producer(topic), lanes: make(map[int]*lane)}
}

// Publish returns nil once all in-sync replicas have every read. It fails before writing any
// when one of them cannot be written (see sensors.AppendProto); after another error the
// outcome of each is unknown and publishing them again is safe. It waits for brokers that are
// away for Config.Timeout at most.
func (r *Reads) Publish(ctx context.Context, reads []sensors.Read) error {
	if len(reads) == 0 {
		return nil
	}
	n, err := r.c.waitPartitions(ctx, r.topic)
	if err != nil {
		return fmt.Errorf("kafka: publish %d reads: %w", len(reads), err)
	}
	call := &call{done: make(chan struct{})}
	call.left.Store(int64(len(reads)))
	buf := make([]byte, 0, 160*len(reads))
	byLane := make(map[int][]queued)
	for i := range reads {
		// An append that moves buf leaves earlier slices on the old array, which is fine.
		from := len(buf)
		buf = append(buf, reads[i].Sensor...)
		key := buf[from:len(buf):len(buf)]
		from = len(buf)
		if buf, err = sensors.AppendProto(buf, &reads[i]); err != nil {
			return fmt.Errorf("kafka: publish read %d of %d: %w", i+1, len(reads), err)
		}
		p := partitionOf(key, n)
		byLane[p] = append(byLane[p], queued{message{key: key, value: buf[from:len(buf):len(buf)]}, call})
	}
	for p, q := range byLane {
		r.lane(p).add(q)
	}
	select {
	case <-call.done:
	case <-ctx.Done():
		call.gone.Store(true)
		return fmt.Errorf("kafka: publish %d reads: %w", len(reads), ctx.Err())
	}
	if err := call.err.Load(); err != nil {
		return fmt.Errorf("kafka: publish %d reads: %w", len(reads), *err)
	}
	return nil
}

// lane returns the queue of a partition.
func (r *Reads) lane(partition int) *lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lanes[partition]
	if l == nil {
		l = &lane{r: r, partition: partition}
		r.lanes[partition] = l
	}
	return l
}

// call is one call of Publish.
type call struct {
	left atomic.Int64 // reads without an answer
	err  atomic.Pointer[error]
	gone atomic.Bool // nobody waits any more
	done chan struct{}
}

func (c *call) answer(err error) {
	if err != nil {
		c.err.CompareAndSwap(nil, &err)
	}
	if c.left.Add(-1) == 0 {
		close(c.done)
	}
}

// queued is a read on its way.
type queued struct {
	message
	call *call
}

// lane is what waits for one partition. A goroutine sends it while there is any.
type lane struct {
	r         *Reads
	partition int

	mu      sync.Mutex
	queue   []queued
	sending bool

	last time.Time // when the last request began; owned by send
}

func (l *lane) add(q []queued) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, q...)
	if !l.sending {
		l.sending = true
		go l.send()
	}
}

// send empties the queue and returns. Its end is bounded: every request is, by Config.Timeout,
// and a request that fails for want of a broker fails all that waits behind it.
func (l *lane) send() {
	c := l.r.c
	var ms []message
	for {
		if wait := time.Until(l.last.Add(readsPace)); wait > 0 {
			c.sleep(context.Background(), wait)
		}
		l.mu.Lock()
		queue := l.queue
		l.queue = nil
		if len(queue) == 0 {
			l.sending = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		l.last = time.Now()

		var failed error
		for len(queue) > 0 {
			ms = ms[:0]
			n, bytes := 0, 0
			for ; n < len(queue); n++ {
				if queue[n].call.gone.Load() {
					continue
				}
				if bytes += queue[n].size(); bytes > writeBytes && len(ms) > 0 {
					break
				}
				ms = append(ms, queue[n].message)
			}
			count := len(ms)
			var err error
			switch {
			case failed != nil:
				err = failed
			case len(ms) > 0:
				l.r.stats.requests.Add(1)
				var tries int
				tries, err = l.r.out.split(context.Background(), l.partition, ms)
				if err != nil && transient(err) {
					failed = err
				}
				if err != nil || tries > 1 {
					ms = nil // a try that was given up may read it still
				}
			}
			if err != nil {
				l.r.stats.failed.Add(int64(n))
			} else {
				l.r.stats.reads.Add(int64(count))
			}
			for i := range queue[:n] {
				queue[i].call.answer(err)
			}
			queue = queue[n:]
		}
		if failed != nil {
			l.mu.Lock()
			queue, l.queue = l.queue, nil
			l.mu.Unlock()
			l.r.stats.failed.Add(int64(len(queue)))
			for i := range queue {
				queue[i].call.answer(failed)
			}
		}
	}
}
