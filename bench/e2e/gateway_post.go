//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"vigie/bench/workload"
	"vigie/sensors"
)

// traffic numbers the reads of a run from 0 and says what each is. The number is in the id,
// so that what Kafka holds can be compared with what was acknowledged.
type traffic struct {
	run    string // begins every id
	fleet  []string
	plates []workload.Read // over and over
	batch  int             // reads of a request
	mixed  bool            // a request has reads of many sensors; otherwise of one
}

// sensor is which of the fleet makes read n.
func (t *traffic) sensor(n int64) int {
	if !t.mixed {
		n /= int64(t.batch)
	}
	return int(n % int64(len(t.fleet)))
}

// number finds the number of a read in its id.
func (t *traffic) number(id string) (int64, bool) {
	text, ok := strings.CutPrefix(id, t.run)
	n, err := strconv.ParseInt(text, 36, 64)
	return n, ok && err == nil
}

// appendBody appends the request whose first read has a number: a line for each, made at a
// time.
func (t *traffic) appendBody(b []byte, first int64, at time.Time) ([]byte, error) {
	for n := first; n < first+int64(t.batch); n++ {
		p := &t.plates[n%int64(len(t.plates))]
		r := sensors.Read{
			ID: t.run + strconv.FormatInt(n, 36), Sensor: t.fleet[t.sensor(n)], Plate: p.Text,
			TS: at.UnixMilli(), Conf: float32(70+n%30) / 100,
		}
		if p.Country != 0 {
			r.Country = p.Country.String()
		}
		var err error
		if b, err = appendJSON(b, &r); err != nil {
			return nil, err
		}
		b = append(b, '\n')
	}
	return b, nil
}

// posting is a request that was acknowledged.
type posting struct {
	first int64 // number of its first read
	reads int
	due   time.Time // when it was to be sent
	sent  time.Time // when that was first tried
	acked time.Time
}

// poster sends requests to a gateway. Its methods may be called at the same time.
type poster struct {
	client *http.Client
	url    atomic.Pointer[string] // of the gateway, which changes with a restart
}

// newPoster returns a poster that keeps as many connections as there are senders.
func newPoster(url string, senders int) *poster {
	p := &poster{client: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: senders, MaxIdleConns: senders, IdleConnTimeout: time.Minute},
	}}
	p.url.Store(&url)
	return p
}

// refusal says that the gateway has not taken a request.
type refusal struct {
	status int
	body   string
	wait   time.Duration // until it may be sent again
}

func (r *refusal) Error() string {
	return fmt.Sprintf("POST /v1/reads: status %d: %s", r.status, r.body)
}

// post sends one request and returns nil when all of its reads are acknowledged. It is a
// *refusal when the gateway says no.
func (p *poster) post(ctx context.Context, body []byte, reads int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, *p.url.Load()+"/v1/reads", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+sensorToken)
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted {
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // none is 0
		return &refusal{resp.StatusCode, string(answer), time.Duration(seconds) * time.Second}
	}
	var res struct{ Accepted int }
	if err := json.Unmarshal(answer, &res); err != nil {
		return err
	}
	if res.Accepted != reads {
		return fmt.Errorf("POST /v1/reads: %d of %d reads accepted: %s", res.Accepted, reads, answer)
	}
	return nil
}

// postings are those of several senders.
type postings struct {
	mu  sync.Mutex
	all []posting
	err error // the first
}

func (p *postings) add(of []posting, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, of...)
	if p.err == nil {
		p.err = err
	}
}

// steady posts requests at their times, from number first on, for a duration, and returns
// them. A request that is not taken at once is an error: nothing is broken here.
func steady(ctx context.Context, p *poster, t *traffic, first int64, rate float64, d time.Duration, senders int) ([]posting, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := schedule{time.Now().Add(50 * time.Millisecond), rate / float64(t.batch)}
	total := int64(d.Seconds() * s.rate)
	due := make(chan int64, total) // never full: who is late does not keep others from being sent
	var out postings
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			var mine []posting
			var err error
			var body []byte
			for i := range due {
				n := first + i*int64(t.batch)
				now := time.Now()
				if body, err = t.appendBody(body[:0], n, now); err == nil {
					err = p.post(ctx, body, t.batch)
				}
				if err != nil {
					cancel()
					break
				}
				mine = append(mine, posting{first: n, reads: t.batch, due: s.due(i), sent: now, acked: time.Now()})
			}
			out.add(mine, err)
		})
	}
	wg.Go(func() {
		defer close(due)
		s.each(ctx, total, func(i int64) { due <- i })
	})
	wg.Wait()
	return out.all, out.err
}

// each calls f for every number below total when it is due.
func (s schedule) each(ctx context.Context, total int64, f func(n int64)) {
	for n := int64(0); n < total && ctx.Err() == nil; {
		for ; n < total && !time.Now().Before(s.due(n)); n++ {
			f(n)
		}
		rest := syscall.NsecToTimespec(int64(max(tick, time.Until(s.due(n)))))
		_ = syscall.Nanosleep(&rest, nil) // cut short by a signal it is made good by the next
	}
}

// plainly writes a record every so often, as the plainest producer there is, until the function
// that it returns is called, which returns how long acknowledgements took: what the broker and
// the machine alone cost. Nobody reads the topic.
func plainly(ctx context.Context, s *site, topic string) (func() (spread, error), error) {
	const every = 20 * time.Millisecond
	c, err := newProducer(s.kafka.Addr(), "none", 1_000_000, 0)
	if err != nil {
		return nil, err
	}
	halt, stop := context.WithCancel(ctx)
	var mu sync.Mutex
	var times []float64
	var failed error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		value := make([]byte, 100*10)
		pace := schedule{time.Now(), float64(time.Second / every)}
		pace.each(halt, 1<<40, func(n int64) {
			c.Produce(ctx, &kgo.Record{Topic: topic, Value: value}, func(_ *kgo.Record, err error) {
				mu.Lock()
				defer mu.Unlock()
				times = append(times, ms(time.Since(pace.due(n))))
				if failed == nil {
					failed = err
				}
			})
		})
	}()
	return func() (spread, error) {
		defer c.Close()
		stop()
		<-ended
		err := c.Flush(ctx)
		mu.Lock()
		defer mu.Unlock()
		return spreadOf(times), errors.Join(err, failed)
	}, nil
}

// flood posts bodies, from number first on, as fast as the gateway takes them.
func flood(ctx context.Context, p *poster, t *traffic, first int64, bodies [][]byte, senders int) ([]posting, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var next atomic.Int64
	var out postings
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			var mine []posting
			for {
				i := next.Add(1) - 1
				if i >= int64(len(bodies)) {
					out.add(mine, nil)
					return
				}
				now := time.Now()
				if err := p.post(ctx, bodies[i], t.batch); err != nil {
					out.add(mine, err)
					cancel()
					return
				}
				mine = append(mine, posting{first: first + i*int64(t.batch), reads: t.batch, due: now, sent: now, acked: time.Now()})
			}
		})
	}
	wg.Wait()
	return out.all, out.err
}

// camera is one sensor of an outage: it makes a request every so often, sends it until it is
// acknowledged, and only then the next, as fast as that goes while it is behind.
type camera struct {
	p        *poster
	t        *traffic
	index    int // in the fleet
	start    time.Time
	every    time.Duration
	failures *atomic.Int64 // of all cameras: requests that were not taken
}

// run sends until halt ends, and returns what was acknowledged by then. A request that the
// gateway says is wrong is an error.
func (c *camera) run(halt context.Context) ([]posting, error) {
	var out []posting
	var body []byte
	for round := int64(0); ; round++ {
		due := c.start.Add(time.Duration(round) * c.every)
		if !pauseUntil(halt, due) {
			return out, nil
		}
		first := (round*int64(len(c.t.fleet)) + int64(c.index)) * int64(c.t.batch)
		sent := time.Now()
		var err error
		if body, err = c.t.appendBody(body[:0], first, sent); err != nil {
			return out, err
		}
		for {
			err := c.p.post(context.WithoutCancel(halt), body, c.t.batch)
			if err == nil {
				out = append(out, posting{first: first, reads: c.t.batch, due: due, sent: sent, acked: time.Now()})
				break
			}
			c.failures.Add(1)
			wait := 100 * time.Millisecond
			if no, ok := errors.AsType[*refusal](err); ok {
				if no.status < 500 {
					return out, err
				}
				wait = max(wait, no.wait)
			}
			if !pauseUntil(halt, time.Now().Add(wait)) {
				return out, nil // nobody was promised anything
			}
		}
	}
}

// pauseUntil waits for a time, and reports whether ctx has not ended.
func pauseUntil(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
