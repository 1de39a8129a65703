//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"vigie/bench/measure"
)

// flight is an alert on its way.
type flight struct {
	due    time.Time // when its read was to be sent
	at     time.Time // when the patrol had it, zero before
	stored int64     // Redis's clock when it was put there, Unix milliseconds
	late   bool
	stop   bool
}

// ledger knows the alerts that are to come and those that have.
type ledger struct {
	mu      sync.Mutex
	flights map[string]*flight
	missing int
}

func newLedger() *ledger { return &ledger{flights: map[string]*flight{}} }

// expect notes an alert before its read is sent.
func (l *ledger) expect(id string, due time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flights[id] = &flight{due: due}
	l.missing++
}

// arrived notes that the patrol has an alert. One that nobody expects is left to the
// check of the queue.
func (l *ledger) arrived(id string, at time.Time, stored int64, late, stop bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.flights[id]; f != nil && f.at.IsZero() {
		f.at, f.stored, f.late, f.stop = at, stored, late, stop
		l.missing--
	}
}

// left is how many have not come.
func (l *ledger) left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.missing
}

// expected are the ids of all.
func (l *ledger) expected() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]bool, len(l.flights))
	for id := range l.flights {
		out[id] = true
	}
	return out
}

// between are the flights whose reads were due from one time until before another.
func (l *ledger) between(from, to time.Time) (out []flight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.flights {
		if !f.due.Before(from) && f.due.Before(to) {
			out = append(out, *f)
		}
	}
	return out
}

// spread is how times lie, in milliseconds.
type spread struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

func (s spread) String() string {
	return fmt.Sprintf("p50 %.2f  p99 %.2f  p99.9 %.2f  max %.2f ms", s.P50, s.P99, s.P999, s.Max)
}

// spreadOf sorts ms.
func spreadOf(ms []float64) spread {
	slices.Sort(ms)
	q := func(p float64) float64 { return round(measure.Quantile(ms, p), 3) }
	return spread{P50: q(0.5), P99: q(0.99), P999: q(0.999), Max: q(1)}
}

// times are how long flights took to the patrol and to Redis. One that has not come
// has taken for ever: until now.
func times(flights []flight, now time.Time) (patrol, redis spread) {
	var a, b []float64
	for _, f := range flights {
		at, stored := f.at, float64(f.stored)
		if at.IsZero() {
			at, stored = now, float64(now.UnixMicro())/1e3
		}
		a = append(a, float64(at.Sub(f.due).Microseconds())/1e3)
		b = append(b, stored-float64(f.due.UnixMicro())/1e3)
	}
	return spreadOf(a), spreadOf(b)
}

// patrol is a client of the alert stream. As a browser does, it comes back when the
// stream ends and asks for what it has missed.
type patrol struct {
	ledger *ledger
	url    string
	last   string // id of the last event
	opened bool
	back   int // times that it had to come back
}

// patrol follows the queue and notes in l what comes, until the function that it
// returns is called, which says how often the stream had to be taken up again.
func (p *process) patrol(ctx context.Context, l *ledger) (hangUp func() int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	c := &patrol{ledger: l, url: p.url + "/v1/alerts/stream?queue=" + queue, last: "0"}
	opened, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- c.run(ctx, opened) }()
	select {
	case <-opened:
		return sync.OnceValue(func() int { cancel(); <-ended; return c.back }), nil
	case err := <-ended:
		cancel()
		return nil, err
	}
}

// run follows the queue until ctx ends; it fails only when it cannot even begin.
func (c *patrol) run(ctx context.Context, opened chan<- struct{}) error {
	for {
		err := c.watch(ctx, opened)
		if ctx.Err() != nil {
			return nil
		}
		if !c.opened {
			return err
		}
		c.back++
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
}

// watch reads the stream until it ends.
func (c *patrol) watch(ctx context.Context, opened chan<- struct{}) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+patrolToken)
	req.Header.Set("Last-Event-ID", c.last)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("alert stream: %s", resp.Status)
	}
	if !c.opened {
		c.opened = true
		close(opened)
	}
	return c.readEvents(resp.Body)
}

// readEvents notes the alerts of a stream of Server-Sent Events, each of which has its
// data on one line.
func (c *patrol) readEvents(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	kind := ""
	for lines.Scan() {
		at := time.Now()
		switch name, value, _ := strings.Cut(lines.Text(), ": "); name {
		case "id":
			c.last = value
		case "event":
			kind = value
		case "data":
			if kind != "alert" {
				continue
			}
			ms, _, _ := strings.Cut(c.last, "-")
			stored, err := strconv.ParseInt(ms, 10, 64)
			var a struct {
				ID   string
				Late bool
				Stop bool
			}
			if err := errors.Join(err, json.Unmarshal([]byte(value), &a)); err != nil {
				return fmt.Errorf("event %s: %w", c.last, err)
			}
			c.ledger.arrived(a.ID, at, stored, a.Late, a.Stop)
		}
	}
	return lines.Err()
}
