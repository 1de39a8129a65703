package streamtest_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"vigie/stream/streamtest"
)

const (
	// patience bounds every wait; only a failing test uses it up.
	patience = 20 * time.Second
	// moment is how long what must not happen is given to happen.
	moment = 100 * time.Millisecond
)

// serve starts a server that hands every connection to handle and closes it after that.
func serve(t *testing.T, handle func(c *net.TCPConn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

func echo(c *net.TCPConn) { _, _ = io.Copy(c, struct{ io.Reader }{c}) }

// dial connects to addr; the connection is closed with the test.
func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatalf("write %q: %v", s, err)
	}
}

// expect reads exactly want.
func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

// silent checks that nothing arrives for a moment, not even an end.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(moment)); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	n, err := c.Read(b[:])
	if e, ok := errors.AsType[net.Error](err); n > 0 || !ok || !e.Timeout() {
		t.Fatalf("read %d bytes, %v, want silence", n, err)
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
}

// isReset checks that c ends with a reset.
func isReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read: %v, want a reset", err)
	}
}

// isRefused checks that a new connection to addr is reset, at once or when it is used.
func isRefused(t *testing.T, addr string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("dial: %v, want a reset", err)
		}
		return
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	isReset(t, c)
}

// roundTrip is how long one byte takes to the server and back.
func roundTrip(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	write(t, c, "x")
	expect(t, c, "x")
	return time.Since(began)
}

// TestProxyForwards sends different bytes both ways at the same time, in pieces of any size,
// and ends one direction before the other.
func TestProxyForwards(t *testing.T) {
	const size = 8 << 20
	random := func(seed uint64) io.Reader {
		return io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), size)
	}
	sum := func(r io.Reader) string {
		h := sha256.New()
		n, err := io.Copy(h, r)
		return fmt.Sprintf("%d %x %v", n, h.Sum(nil), err)
	}
	wantUp, wantDown := sum(random(1)), sum(random(2))
	up := make(chan string, 1)
	addr := serve(t, func(c *net.TCPConn) {
		var wg sync.WaitGroup
		wg.Go(func() { up <- sum(c) })
		_, _ = io.Copy(c, random(2))
		wg.Wait()
		_, _ = io.WriteString(c, "and after the end of the client")
	})
	p := streamtest.NewProxy(t, addr)
	c := dial(t, p.Addr())
	down := make(chan string, 1)
	go func() {
		s := sum(io.LimitReader(c, size))
		rest, err := io.ReadAll(iotest.OneByteReader(c))
		down <- fmt.Sprint(s, string(rest), err)
	}()
	src := random(1)
	for n := int64(1); ; n = n*7%65521 + 1 {
		if _, err := io.CopyN(c, src, n); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := <-up; got != wantUp {
		t.Errorf("the server got %s, want %s", got, wantUp)
	}
	if got, want := <-down, wantDown+"and after the end of the client<nil>"; got != want {
		t.Errorf("the client got %s, want %s", got, want)
	}
	streamtest.Eventually(t, patience, "the connection to end", func() bool { return p.Open() == 0 })
	if got := p.Passed(streamtest.ToTarget); got != size {
		t.Errorf("%d bytes passed to the target, want %d", got, size)
	}
	if got := p.Passed(streamtest.BothWays); got <= 2*size {
		t.Errorf("%d bytes passed both ways", got)
	}
}

// A reset of one end is a reset at the other, and an end that goes on writing to a peer that
// has closed gets one, but not before it got all that the peer has said.
func TestProxyPassesResets(t *testing.T) {
	for _, held := range []bool{false, true} {
		t.Run(fmt.Sprint("held=", held), func(t *testing.T) {
			ended := make(chan error, 1)
			p := streamtest.NewProxy(t, serve(t, func(c *net.TCPConn) {
				_, err := io.Copy(io.Discard, c)
				ended <- err
			}))
			c := dial(t, p.Addr())
			write(t, c, "x")
			streamtest.Eventually(t, patience, "the byte to pass", func() bool { return p.Passed(streamtest.ToTarget) == 1 })
			if held {
				p.Hold(streamtest.ToTarget)
			}
			if err := c.SetLinger(0); err != nil {
				t.Fatal(err)
			}
			c.Close()
			if held {
				select {
				case err := <-ended:
					t.Fatalf("the server was told of a reset that is held: %v", err)
				case <-time.After(moment):
				}
				p.Release(streamtest.ToTarget)
			}
			if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the server got %v, want a reset", err)
			}
		})
	}
	t.Run("last words", func(t *testing.T) {
		p := streamtest.NewProxy(t, serve(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "no more") }))
		c := dial(t, p.Addr())
		if got, err := io.ReadAll(c); err != nil || string(got) != "no more" {
			t.Errorf("read %q, %v", got, err)
		}
		for { // until it is told that nobody listens
			if _, err := io.WriteString(c, "on and on"); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("writing to a peer that is gone goes on for ever")
			} else if err != nil {
				break
			}
		}
		streamtest.Eventually(t, patience, "the connection to end", func() bool { return p.Open() == 0 })
	})
}

func TestProxyLatency(t *testing.T) {
	const delay = 80 * time.Millisecond
	p := streamtest.NewProxy(t, serve(t, echo))
	c := dial(t, p.Addr())
	for _, tt := range []struct {
		name        string
		dir         streamtest.Direction
		least, most time.Duration
	}{
		{"none", 0, 0, delay},
		{"to the target", streamtest.ToTarget, delay, 2 * delay},
		{"to the client", streamtest.ToClient, delay, 2 * delay},
		{"both ways", streamtest.BothWays, 2 * delay, 3 * delay},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.SetLatency(tt.dir, delay)
			defer p.Heal()
			best := time.Hour // of a few, since the machine may be busy
			for range 3 {
				took := roundTrip(t, c)
				if took < tt.least {
					t.Errorf("a round trip took %v, want at least %v", took, tt.least)
				}
				best = min(best, took)
			}
			if best >= tt.most {
				t.Errorf("the best round trip took %v, want less than %v", best, tt.most)
			}
		})
	}
	t.Run("it delays and does not slow down", func(t *testing.T) {
		p.SetLatency(streamtest.BothWays, delay)
		defer p.Heal()
		began := time.Now()
		for range 100 {
			write(t, c, "0123456789")
			time.Sleep(time.Millisecond) // a packet of its own
		}
		expect(t, c, string(bytes.Repeat([]byte("0123456789"), 100)))
		if took := time.Since(began); took > 10*delay {
			t.Errorf("100 writes took %v, as if each waited for the one before", took)
		}
	})
	t.Run("the end is late too", func(t *testing.T) {
		p.SetLatency(streamtest.ToTarget, delay)
		defer p.Heal()
		began := time.Now()
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || time.Since(began) < delay {
			t.Errorf("%v after %v, want the end after %v", err, time.Since(began), delay)
		}
	})
	t.Run("healing does not wait for it", func(t *testing.T) {
		p.SetLatency(streamtest.BothWays, time.Hour)
		c := dial(t, p.Addr())
		write(t, c, "late")
		silent(t, c)
		p.Heal()
		expect(t, c, "late")
	})
}

func TestProxyBandwidth(t *testing.T) {
	const size = 100_000
	p := streamtest.NewProxy(t, serve(t, echo))
	transfer := func(conns int) time.Duration {
		t.Helper()
		var wg sync.WaitGroup
		began := time.Now()
		for range conns {
			c := dial(t, p.Addr())
			wg.Go(func() {
				if _, err := c.Write(make([]byte, size)); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if _, err := io.CopyN(io.Discard, c, size); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		return time.Since(began)
	}
	if took := transfer(2); took > 250*time.Millisecond {
		t.Errorf("without a limit it took %v", took)
	}
	for _, tt := range []struct {
		dir   streamtest.Direction
		conns int
		want  time.Duration
	}{
		{streamtest.ToTarget, 1, 250 * time.Millisecond},
		{streamtest.ToClient, 1, 250 * time.Millisecond},
		{streamtest.ToClient, 2, 500 * time.Millisecond}, // they share it
	} {
		p.SetBandwidth(tt.dir, 400_000)
		if took := transfer(tt.conns); took < tt.want*9/10 || took > 3*tt.want {
			t.Errorf("direction %d, %d connections: it took %v, want %v", tt.dir, tt.conns, took, tt.want)
		}
		p.Heal()
	}
	p.SetBandwidth(streamtest.BothWays, 1)
	c := dial(t, p.Addr())
	write(t, c, "slow")
	silent(t, c)
	p.SetBandwidth(streamtest.BothWays, 0)
	expect(t, c, "slow")
}

func TestProxyHold(t *testing.T) {
	served := make(chan string, 10)
	p := streamtest.NewProxy(t, serve(t, func(c *net.TCPConn) {
		b := make([]byte, 5)
		for {
			if _, err := io.ReadFull(c, b); err != nil {
				served <- err.Error()
				return
			}
			served <- string(b)
			if _, err := c.Write(bytes.ToUpper(b)); err != nil {
				return
			}
		}
	}))
	isServed := func(t *testing.T, want string) {
		t.Helper()
		select {
		case got := <-served:
			if got != want {
				t.Fatalf("the server got %q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("the server did not get %q", want)
		}
	}
	notServed := func(t *testing.T) {
		t.Helper()
		select {
		case got := <-served:
			t.Fatalf("the server got %q", got)
		case <-time.After(moment):
		}
	}
	c := dial(t, p.Addr())
	write(t, c, "alive")
	isServed(t, "alive")
	expect(t, c, "ALIVE")

	t.Run("to the client", func(t *testing.T) {
		p.Hold(streamtest.ToClient)
		write(t, c, "first")
		isServed(t, "first")
		silent(t, c)
		p.Release(streamtest.ToClient)
		expect(t, c, "FIRST")
	})
	t.Run("to the target", func(t *testing.T) {
		p.Hold(streamtest.ToTarget)
		write(t, c, "after")
		notServed(t)
		p.Release(streamtest.ToClient) // the wrong one
		notServed(t)
		p.Heal()
		isServed(t, "after")
		expect(t, c, "AFTER")
	})
	t.Run("a new connection", func(t *testing.T) {
		p.Hold(streamtest.BothWays)
		fresh := dial(t, p.Addr())
		write(t, fresh, "fresh")
		notServed(t)
		p.Heal()
		isServed(t, "fresh")
		expect(t, fresh, "FRESH")
		fresh.Close()
		isServed(t, "EOF")
	})
	t.Run("the end", func(t *testing.T) {
		p.Hold(streamtest.ToTarget)
		c := dial(t, p.Addr())
		c.Close()
		notServed(t)
		p.Heal()
		isServed(t, "EOF")
	})
	t.Run("a sender in the end waits", func(t *testing.T) {
		p.Hold(streamtest.ToTarget)
		defer p.Heal()
		c := dial(t, p.Addr())
		if err := c.SetWriteDeadline(time.Now().Add(5 * moment)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Write(make([]byte, 64<<20))
		if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
			t.Errorf("it wrote %d bytes, %v, want to run out of time", n, err)
		}
		p.Cut()
	})
	t.Run("served and not answered", func(t *testing.T) {
		for drained := false; !drained; {
			select {
			case <-served:
			case <-time.After(moment):
				drained = true
			}
		}
		c := dial(t, p.Addr())
		p.Hold(streamtest.ToClient)
		write(t, c, "twice")
		isServed(t, "twice")
		if n := p.Cut(); n != 1 {
			t.Errorf("%d connections cut, want 1", n)
		}
		isReset(t, c)
		p.Heal()
		again := dial(t, p.Addr())
		write(t, again, "twice")
		expect(t, again, "TWICE")
	})
}

func TestProxyRefusesAndCuts(t *testing.T) {
	p := streamtest.NewProxy(t, serve(t, echo))
	a, b := dial(t, p.Addr()), dial(t, p.Addr())
	roundTrip(t, a)
	roundTrip(t, b)

	p.Refuse()
	isRefused(t, p.Addr())
	roundTrip(t, a) // the present ones go on
	p.Admit()
	roundTrip(t, dial(t, p.Addr()))

	if n := p.Cut(); n != 3 {
		t.Errorf("%d connections cut, want 3", n)
	}
	isReset(t, a)
	isReset(t, b)
	if n := p.Open(); n != 0 {
		t.Errorf("%d connections open after Cut", n)
	}
	c := dial(t, p.Addr()) // may come back at once
	roundTrip(t, c)

	if n := p.Down(); n != 1 {
		t.Errorf("%d connections cut, want 1", n)
	}
	isReset(t, c)
	isRefused(t, p.Addr())
	p.Heal()
	roundTrip(t, dial(t, p.Addr()))
	if n := p.Accepted(); n != 7 {
		t.Errorf("%d connections accepted, want 7", n)
	}
}

func TestProxyTarget(t *testing.T) {
	word := func(s string) string {
		return serve(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, s) })
	}
	p, err := streamtest.NewProxyOn("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	isRefused(t, p.Addr())
	p.SetTarget(word("first"))
	expect(t, dial(t, p.Addr()), "first")
	p.SetTarget(word("second"))
	c, err := p.DialContext(t.Context(), "tcp", "192.0.2.1:9092") // not there
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	expect(t, c, "second")

	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	p.SetTarget(gone.Addr().String())
	isRefused(t, p.Addr())

	if _, err := streamtest.NewProxyOn(p.Addr(), ""); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second proxy on the same port: %v", err)
	}
	p.Close()
	p.Close()
	if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial of a closed proxy: %v", err)
	}
	again, err := streamtest.NewProxyOn(p.Addr(), word("again"))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	expect(t, dial(t, again.Addr()), "again")
}

func TestProxyDials(t *testing.T) {
	p := streamtest.NewProxy(t, serve(t, echo))
	began := time.Now()
	for range 3 {
		roundTrip(t, dial(t, p.Addr()))
	}
	time.Sleep(moment)
	p.Refuse()
	for range 3 {
		isRefused(t, p.Addr())
	}
	dials := p.Dials()
	if len(dials) != 6 || dials[0].Before(began) || dials[3].Sub(dials[2]) < moment {
		t.Errorf("dials at %v", dials)
	}
	at := func(ms ...int) (times []time.Time) {
		for _, m := range ms {
			times = append(times, began.Add(time.Duration(m)*time.Millisecond))
		}
		return times
	}
	for _, tt := range []struct {
		times []time.Time
		want  int
	}{
		{nil, 0},
		{at(5), 1},
		{at(0, 1000, 2000), 1},
		{at(0, 999, 1998), 2},
		{at(0, 600, 900, 1000, 1500, 1599, 5000), 5},
	} {
		if got := streamtest.Peak(tt.times, time.Second); got != tt.want {
			t.Errorf("Peak of %v is %d, want %d", tt.times, got, tt.want)
		}
	}
}

// TestProxyUnderChange: whatever is set and taken back, a connection that is not cut carries
// its bytes, and Close leaves nothing, with bytes held at that moment.
func TestProxyUnderChange(t *testing.T) {
	addr := serve(t, echo)
	p := streamtest.NewProxy(t, addr)
	conns := make([]*net.TCPConn, 4)
	for i := range conns {
		conns[i] = dial(t, p.Addr())
		roundTrip(t, conns[i])
	}
	stop := make(chan struct{})
	var changes, traffic sync.WaitGroup
	for seed := range uint64(3) {
		rnd := rand.New(rand.NewPCG(1, seed))
		changes.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(rnd.IntN(3000)) * time.Microsecond):
				}
				dir := streamtest.Direction(1 + rnd.IntN(3))
				switch rnd.IntN(8) {
				case 0:
					p.SetLatency(dir, time.Duration(rnd.IntN(5))*time.Millisecond)
				case 1:
					p.SetBandwidth(dir, 1_000_000*rnd.IntN(10))
				case 2:
					p.Hold(dir)
				case 3:
					p.Refuse()
				case 4:
					p.SetTarget(addr)
					_, _, _ = p.Open(), p.Passed(dir), p.Dials()
				case 5: // one that comes, may be refused, and goes in the middle of it
					if c, err := net.Dial("tcp", p.Addr()); err == nil {
						_, _ = c.Write(make([]byte, rnd.IntN(50_000)))
						_ = c.(*net.TCPConn).SetLinger(rnd.IntN(2) - 1)
						c.Close()
					}
				default:
					p.Heal()
				}
			}
		})
	}
	for i, c := range conns {
		data := bytes.Repeat([]byte{byte('a' + i), 0, '\n'}, 300_000)
		traffic.Go(func() {
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
				t.Errorf("connection %d: %d of %d bytes, or others; %v", i, len(got), len(data), err)
			}
		})
		traffic.Go(func() {
			if _, err := c.Write(data); err != nil {
				t.Error(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
	}
	traffic.Wait()
	close(stop)
	changes.Wait()

	p.Heal()
	streamtest.Eventually(t, patience, "all connections to end", func() bool { return p.Open() == 0 })
	c := dial(t, p.Addr())
	roundTrip(t, c)
	p.Hold(streamtest.BothWays)
	write(t, c, "never to arrive")
	p.Close()
	isReset(t, c)
}

// failing is a test that may fail.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	panic(f)
}

func TestEventually(t *testing.T) {
	n := 0
	streamtest.Eventually(t, patience, "three", func() bool { n++; return n == 3 })
	if n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
	f := &failing{TB: t}
	func() {
		defer func() {
			if recover() != f {
				t.Error("it returned")
			}
		}()
		streamtest.Eventually(f, 20*time.Millisecond, "what never comes", func() bool { return false })
	}()
	if f.said != "waited 20ms for what never comes" {
		t.Errorf("it said %q", f.said)
	}
}
