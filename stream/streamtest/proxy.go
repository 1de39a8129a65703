package streamtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Direction is a direction of the bytes through a Proxy, or both.
type Direction uint8

// The directions. The two ends of a Proxy are the client, which has connected to it, and
// the target, to which it has connected itself.
const (
	ToTarget Direction = 1 << iota
	ToClient
	BothWays = ToTarget | ToClient
)

const (
	// chunkBytes is the most that a direction moves at once.
	chunkBytes = 16 << 10
	// windowBytes is the most that one direction of a connection holds under way, as a
	// network does; then the sender has to wait. Under a latency of 100 ms one connection
	// moves 10 MB/s at the most.
	windowBytes = 1 << 20
	// smooth is how finely a limit of the bandwidth cuts the bytes: a chunk takes no longer
	// unless it is a single byte.
	smooth = 20 * time.Millisecond
	// burst is how much of its time a limited direction may make up for: timers are late.
	burst = 10 * time.Millisecond
)

// Proxy is the network between one service and its clients, for tests to break: a TCP
// listener that forwards every connection to a target.
//
// Without a fault it forwards bytes unchanged and in order, both ways, and the end of each
// direction by itself (half-close); a reset is passed on as a reset. Faults hold for present
// and future connections, may be combined, and are set and taken back at any time, from any
// goroutine. A change is complete when its method returns: what an end writes after that
// meets the new state.
//
// A proxy works above TCP, so it cannot lose, repeat or reorder packets, and it lets the
// handshake of a connection through even while it holds all bytes. That is how a stopped
// process (SIGSTOP) and a peer lost after connecting look; it is not how a host looks that
// was never there, whose connections time out.
type Proxy struct {
	ln     net.Listener
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	target  string
	refuse  bool
	ways    [2]way
	conns   map[*proxied]struct{}
	dials   []time.Time
	changed chan struct{} // closed, and replaced, when a fault is changed
}

// way is the state of one direction. All connections share it.
type way struct {
	latency   time.Duration
	bandwidth int // bytes per second; 0 is no limit
	held      bool
	free      time.Time // when a limited direction has sent what it took
	passed    int64
}

// NewProxy starts a proxy before target on a free port of 127.0.0.1. It is closed at the
// end of the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p, err := NewProxyOn("127.0.0.1:0", target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// NewProxyOn starts a proxy that listens on addr, host:port. The target may be empty: until
// SetTarget names one, connections are reset. So a service that must be told its proxy's
// address, as a Kafka broker that advertises it, can be started after the proxy. The caller
// closes it.
func NewProxyOn(addr, target string) (*Proxy, error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("streamtest: proxy: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Proxy{
		ln: ln, ctx: ctx, cancel: cancel, target: target,
		conns: make(map[*proxied]struct{}), changed: make(chan struct{}),
	}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is where clients connect, host:port.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// DialContext connects to the proxy whatever address is asked for. It is the dialer of a
// client that learns the address of a service from the service itself, which does not know
// of the proxy.
func (p *Proxy) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, p.Addr())
}

// Close stops listening, resets every connection and returns when all is over. Closing
// twice is allowed.
func (p *Proxy) Close() {
	p.ln.Close()
	p.cancel()
	p.Cut()
	p.wg.Wait()
}

// SetTarget makes connections from now on end at addr, host:port. The present ones stay:
// Cut them to move their clients.
func (p *Proxy) SetTarget(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// SetLatency delays bytes, and the end of a direction, by d between their arrival and their
// departure. A round trip under BothWays takes 2 d longer. Zero ends it, also for what is
// under way.
func (p *Proxy) SetLatency(dir Direction, d time.Duration) {
	p.change(dir, func(w *way) { w.latency = d })
}

// SetBandwidth lets all connections together pass bytesPerSecond bytes per second in each
// given direction. Zero ends it.
func (p *Proxy) SetBandwidth(dir Direction, bytesPerSecond int) {
	p.change(dir, func(w *way) { w.bandwidth, w.free = bytesPerSecond, time.Time{} })
}

// Hold lets nothing through in a direction any more while connections stay open: half open
// with one direction, hung with both. The end of a connection and a reset are held as well.
// An end that goes on writing has to wait once about 1 MiB, besides the buffers of the
// system, is under way. What is held goes on after Release or Heal, as after a lost packet;
// held bytes of a connection that is Cut never arrive, so Hold(ToClient), a request and Cut
// make a request that was served and not answered.
func (p *Proxy) Hold(dir Direction) { p.change(dir, func(w *way) { w.held = true }) }

// Release ends Hold.
func (p *Proxy) Release(dir Direction) { p.change(dir, func(w *way) { w.held = false }) }

// Refuse resets new connections as soon as they are there, until Admit; the present ones
// stay. A client sees a reset when it connects or when it first uses the connection.
// Attempts are counted as accepted, for which the port has to stay open: "connection
// refused" comes from a port without a listener, as that of a killed service.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = true
}

// Admit ends Refuse and Down.
func (p *Proxy) Admit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = false
}

// Cut resets every present connection at both ends, without sending what is under way, and
// returns how many there were. Clients may come back at once.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cutLocked()
}

// Down is Refuse and Cut in one step, so that no connection is made between them: the
// service as its clients see it after a crash. It returns how many were cut. Admit or Heal
// ends it.
func (p *Proxy) Down() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = true
	return p.cutLocked()
}

func (p *Proxy) cutLocked() int {
	n := len(p.conns)
	for c := range p.conns {
		c.reset()
	}
	clear(p.conns)
	return n
}

// Heal ends every fault. Connections that were not cut go on, with all of their bytes.
func (p *Proxy) Heal() {
	p.change(BothWays, func(w *way) { *w = way{passed: w.passed} })
	p.Admit()
}

// Accepted is how many connections clients have made so far, the refused ones included.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.dials)
}

// Dials returns when each accepted connection was made, the oldest first, the refused ones
// included. Peak says how many of them come close together.
func (p *Proxy) Dials() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.dials)
}

// Open is how many connections there are now.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Passed is how many bytes were handed on in a direction so far; with BothWays, in both.
func (p *Proxy) Passed(dir Direction) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var n int64
	for i := range p.ways {
		if dir&(1<<i) != 0 {
			n += p.ways[i].passed
		}
	}
	return n
}

// Peak returns the largest number of times that lie within less than window of each other.
// times ascend, as those of Dials do.
func Peak(times []time.Time, window time.Duration) int {
	most, first := 0, 0
	for i, t := range times {
		for t.Sub(times[first]) >= window {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

func (p *Proxy) change(dir Direction, set func(*way)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.ways {
		if dir&(1<<i) != 0 {
			set(&p.ways[i])
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) accept() {
	for {
		nc, err := p.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // of one connection, or of a process out of files: the next may do
			select {
			case <-p.ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
				continue
			}
		}
		p.admit(nc.(*net.TCPConn))
	}
}

// admit counts a new connection and serves it, unless it is refused.
func (p *Proxy) admit(client *net.TCPConn) {
	ctx, cancel := context.WithCancel(p.ctx)
	c := &proxied{p: p, ctx: ctx, cancel: cancel, client: client}
	p.mu.Lock()
	p.dials = append(p.dials, time.Now())
	target := p.target
	// Once Close has cut the connections, none may join them.
	if p.refuse || target == "" || p.ctx.Err() != nil {
		p.mu.Unlock()
		c.reset()
		return
	}
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	p.wg.Go(func() { c.serve(target) })
}

// proxied is one connection through a Proxy.
type proxied struct {
	p      *Proxy
	ctx    context.Context // ends with reset
	cancel context.CancelFunc
	client *net.TCPConn

	mu     sync.Mutex
	target *net.TCPConn // nil until it is connected
	broken bool         // by reset
}

// reset resets the connection at both ends.
func (c *proxied) reset() {
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return
	}
	c.broken = true
	reset(c.client)
	if c.target != nil {
		reset(c.target)
	}
}

// reset closes a connection such that its peer sees a reset and not an end.
func reset(nc *net.TCPConn) {
	_ = nc.SetLinger(0) // of a connection that the peer has reset there is nothing to set
	nc.Close()
}

// serve connects to the target and forwards until both directions have ended.
func (c *proxied) serve(addr string) {
	defer func() {
		c.p.mu.Lock()
		delete(c.p.conns, c)
		c.p.mu.Unlock()
		c.cancel()
	}()
	nc, err := new(net.Dialer).DialContext(c.ctx, "tcp", addr)
	if err != nil {
		c.reset()
		return
	}
	target := nc.(*net.TCPConn)
	c.mu.Lock()
	if c.broken {
		c.mu.Unlock()
		reset(target)
		return
	}
	c.target = target
	c.mu.Unlock()
	up, down := newPipe(c, 0, c.client, target), newPipe(c, 1, target, c.client)
	up.back, down.back = down, up
	var wg sync.WaitGroup
	for _, s := range []*pipe{up, down} {
		wg.Go(s.read)
		wg.Go(s.write)
	}
	wg.Wait()
	target.Close()
	c.client.Close()
}

// pipe is one direction of a connection: read takes bytes in at the pace of the bandwidth,
// write lets them out when they are due.
type pipe struct {
	c        *proxied
	way      int
	src, dst *net.TCPConn
	back     *pipe         // the other direction
	more     chan struct{} // has one element when chunks may have been added
	room     chan struct{} // has one element when chunks may have been taken out
	done     chan struct{} // closed when nothing goes out any more

	mu     sync.Mutex
	chunks []chunk
	size   int // bytes of chunks
}

// chunk is what came in at a time: bytes, or the end.
type chunk struct {
	bytes []byte
	at    time.Time
	err   error // io.EOF or what reading ended with; no bytes then
}

func newPipe(c *proxied, way int, src, dst *net.TCPConn) *pipe {
	return &pipe{
		c: c, way: way, src: src, dst: dst,
		more: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// read moves what comes in to the queue, until the end.
func (s *pipe) read() {
	buf := make([]byte, chunkBytes)
	for {
		n, err := s.src.Read(buf)
		for in := buf[:n]; len(in) > 0; {
			n := min(s.c.p.grain(s.way), len(in))
			if !s.c.send(s.way, n) || !s.put(chunk{bytes: slices.Clone(in[:n]), at: time.Now()}) {
				return
			}
			in = in[n:]
		}
		if err != nil {
			s.put(chunk{at: time.Now(), err: err})
			return
		}
	}
}

// put appends to the queue when there is room; false says that the connection is over.
func (s *pipe) put(ch chunk) bool {
	for {
		s.mu.Lock()
		if s.size == 0 || s.size+len(ch.bytes) <= windowBytes {
			s.chunks = append(s.chunks, ch)
			s.size += len(ch.bytes)
			s.mu.Unlock()
			wake(s.more)
			return true
		}
		s.mu.Unlock()
		select {
		case <-s.room:
		case <-s.c.ctx.Done():
			return false
		}
	}
}

// take returns the oldest chunk, which stays in the queue and goes on taking up its room;
// false says that the connection is over.
func (s *pipe) take() (chunk, bool) {
	for {
		s.mu.Lock()
		if len(s.chunks) > 0 {
			ch := s.chunks[0]
			s.mu.Unlock()
			return ch, true
		}
		s.mu.Unlock()
		select {
		case <-s.more:
		case <-s.c.ctx.Done():
			return chunk{}, false
		}
	}
}

// drop removes the oldest chunk.
func (s *pipe) drop() {
	s.mu.Lock()
	s.size -= len(s.chunks[0].bytes)
	s.chunks = s.chunks[1:]
	s.mu.Unlock()
	wake(s.room)
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// write lets the chunks out, each when it is due, until the end.
func (s *pipe) write() {
	defer close(s.done)
	for {
		ch, ok := s.take()
		if !ok || !s.c.due(s.way, ch.at) {
			return
		}
		switch {
		case errors.Is(ch.err, io.EOF):
			_ = s.dst.CloseWrite() // a peer that is gone needs no end
			return
		case ch.err != nil:
			s.c.reset()
			return
		}
		n, err := s.dst.Write(ch.bytes)
		s.c.p.pass(s.way, n)
		if err != nil {
			s.gone()
			return
		}
		s.drop()
	}
}

// gone tells src that dst is gone. The news goes the other way: behind what dst has said
// before, and held with it.
func (s *pipe) gone() {
	select {
	case <-s.back.done:
	case <-s.c.ctx.Done():
	}
	if s.c.due(s.back.way, time.Now()) {
		s.c.reset()
	}
}

// pass counts bytes that were handed on.
func (p *Proxy) pass(i, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ways[i].passed += int64(n)
}

// grain is how many bytes a direction sends at once.
func (p *Proxy) grain(i int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.ways[i].bandwidth; b > 0 {
		return min(max(int(float64(b)*smooth.Seconds()), 1), chunkBytes)
	}
	return chunkBytes
}

// send waits while n bytes go through a direction of limited bandwidth; false says that the
// connection is over. When the limit changes meanwhile, they are through.
func (c *proxied) send(i, n int) bool {
	c.p.mu.Lock()
	w := &c.p.ways[i]
	if w.bandwidth == 0 {
		c.p.mu.Unlock()
		return true
	}
	if earliest := time.Now().Add(-burst); w.free.Before(earliest) {
		w.free = earliest
	}
	w.free = w.free.Add(time.Duration(float64(n) / float64(w.bandwidth) * float64(time.Second)))
	free, limit := w.free, w.bandwidth
	c.p.mu.Unlock()
	return c.wait(func() time.Time {
		if c.p.ways[i].bandwidth != limit {
			return time.Time{}
		}
		return free
	})
}

// due waits until what came in at a moment may go out: its latency is over and the
// direction is not held. False says that the connection is over.
func (c *proxied) due(i int, at time.Time) bool {
	return c.wait(func() time.Time {
		if c.p.ways[i].held {
			return never
		}
		if c.p.ways[i].latency == 0 {
			return time.Time{}
		}
		return at.Add(c.p.ways[i].latency)
	})
}

// never is later than any test.
var never = time.Unix(1<<40, 0)

// wait waits until a time that a change of the faults may change; until is called with p.mu
// held. False says that the connection is over.
func (c *proxied) wait(until func() time.Time) bool {
	for {
		c.p.mu.Lock()
		t, changed := until(), c.p.changed
		c.p.mu.Unlock()
		if c.ctx.Err() != nil {
			return false
		}
		d := time.Until(t)
		if d <= 0 {
			return true
		}
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-changed:
		case <-c.ctx.Done():
		}
		timer.Stop()
	}
}
