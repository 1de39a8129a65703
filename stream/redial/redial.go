// Package redial keeps a process from storming a service that does not work. Clients with
// many connections dial them all anew when a service resets or refuses them, fifty times
// within a second, and again, which is what a server that has just come back can least
// bear. But a process that starts needs many connections at once, so dials are slowed down
// only while they lead nowhere.
package redial

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// pace is the least time between two dials while they lead nowhere: with burst,
	// six within a second.
	pace  = 250 * time.Millisecond
	burst = 2
)

// Func is net.Dialer.DialContext, or what stands in its place.
type Func func(ctx context.Context, network, addr string) (net.Conn, error)

// Dialer dials one service, on behalf of all its clients in the process. It dials an address
// slowly once a dial has failed, a connection was ended by the service, or one has ended from
// which no byte was ever read, and freely again with the first byte of a connection made
// since: one from before may be good while every new one is refused.
type Dialer struct {
	dial Func

	mu      sync.Mutex
	failing map[string]*failure  // addresses to which dials lead nowhere
	silent  map[string]time.Time // addresses, and when one has let somebody wait in vain
}

// failure is an address to which dials lead nowhere.
type failure struct {
	since time.Time
	next  time.Time // when the next dial may be made
}

// New returns a Dialer that dials with dial.
func New(dial Func) *Dialer {
	return &Dialer{dial: dial, failing: make(map[string]*failure), silent: make(map[string]time.Time)}
}

// DialContext is Func.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	for {
		rest := d.turn(addr)
		if rest <= 0 {
			break
		}
		t := time.NewTimer(rest)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
	began := time.Now()
	c, err := d.dial(ctx, network, addr)
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) {
			d.failed(addr)
		}
		return nil, err
	}
	wrapped := &conn{Conn: c, d: d, addr: addr, began: began}
	if sys, ok := c.(syscall.Conn); ok {
		return sysConn{wrapped, sys}, nil
	}
	return wrapped, nil
}

// turn returns how long to wait before asking again, 0 for dialing now.
func (d *Dialer) turn(addr string) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.failing[addr]
	if f == nil {
		return 0
	}
	now := time.Now()
	if f.next.Before(now.Add(-burst * pace)) {
		f.next = now.Add(-burst * pace)
	}
	if f.next = f.next.Add(pace); !f.next.After(now) {
		return 0
	}
	rest := f.next.Sub(now)
	f.next = f.next.Add(-pace)                              // nobody is promised a turn: those who give up would leave gaps
	return rest + time.Duration(rand.Int64N(int64(pace)/5)) // processes that were cut at once come back apart
}

// Silent reports whether the service at addr has let somebody wait in vain, within the time
// given, and not answered since.
func (d *Dialer) Silent(addr string, within time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, ok := d.silent[addr]
	return ok && time.Since(at) < within
}

// conn is a connection of a Dialer.
type conn struct {
	net.Conn
	d     *Dialer
	addr  string
	began time.Time
	heard atomic.Bool // a byte was read
	late  atomic.Bool // somebody has waited in vain since
}

// sysConn is a conn whose socket can be looked at: go-redis does, to see whether a connection
// of its pool was closed meanwhile.
type sysConn struct {
	*conn
	syscall.Conn
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	switch {
	case n > 0:
		if !c.heard.Swap(true) || c.late.Swap(false) {
			c.d.answered(c)
		}
	case timedOut(err):
		c.late.Store(true)
		c.d.mu.Lock()
		c.d.silent[c.addr] = time.Now()
		c.d.mu.Unlock()
	case err != nil && !errors.Is(err, net.ErrClosed):
		c.d.failed(c.addr) // the service has ended it, and perhaps all others too
	}
	return n, err
}

// failed says that the next dials of addr may lead nowhere.
func (d *Dialer) failed(addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failing[addr] == nil {
		d.failing[addr] = &failure{since: time.Now()}
	}
}

// answered says that the first byte of c has come, or the first after somebody has waited.
func (d *Dialer) answered(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.silent, c.addr)
	if f := d.failing[c.addr]; f != nil && !c.began.Before(f.since) {
		delete(d.failing, c.addr)
	}
}

func (c *conn) Close() error {
	if !c.heard.Load() {
		c.d.failed(c.addr)
	}
	return c.Conn.Close()
}

func timedOut(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
