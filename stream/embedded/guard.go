package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// listener accepts connections, wraps each in a guard and keeps count of them, so that
// shutting down can wait for the last. Neither server does that for itself, and both trust
// what they are sent: a browser that tries http on the Kafka port makes kfake allocate the
// 1.2 GB that "GET " spells, and a few bytes stop the whole process (see the guards).
type listener struct {
	net.Listener
	guard  func(net.Conn) net.Conn
	failed chan error // the error that ended Accept, when it was not Close

	done chan struct{} // closed by Close

	mu     sync.Mutex
	closed bool // no connection is added to conns any more
	conns  map[net.Conn]struct{}
	open   sync.WaitGroup // one for each of conns
}

func newListener(ln net.Listener, guard func(net.Conn) net.Conn) *listener {
	return &listener{
		Listener: ln, guard: guard, failed: make(chan error, 1), done: make(chan struct{}), conns: make(map[net.Conn]struct{}),
	}
}

// Accept waits for a connection. It rides out a shortage of file descriptors, which kfake
// would take for the end.
func (l *listener) Accept() (net.Conn, error) {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		conn, err := l.Listener.Accept()
		switch {
		case err == nil:
			return l.track(conn)
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			select {
			case <-time.After(pause):
			case <-l.done:
			}
			continue
		case !errors.Is(err, net.ErrClosed):
			select {
			case l.failed <- err:
			default:
			}
		}
		return nil, err
	}
}

func (l *listener) track(conn net.Conn) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	l.conns[conn] = struct{}{}
	l.open.Add(1)
	return l.guard(&trackedConn{Conn: conn, l: l}), nil
}

// Close stops accepting. Open connections stay.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	close(l.done)
	return l.Listener.Close()
}

// shut stops accepting, cuts every connection and waits until the server has closed them.
func (l *listener) shut() error {
	err := l.Close()
	l.mu.Lock()
	for conn := range l.conns {
		conn.Close() // wakes the server's reader, which then closes its own end
	}
	l.mu.Unlock()
	l.open.Wait()
	return err
}

// trackedConn tells its listener when the server has closed it.
type trackedConn struct {
	net.Conn
	l    *listener
	once sync.Once
}

func (c *trackedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.l.mu.Lock()
		delete(c.l.conns, c.Conn)
		c.l.mu.Unlock()
		c.l.open.Done()
	})
	return err
}

const (
	// maxKafkaRequest is Kafka's own default of socket.request.max.bytes.
	maxKafkaRequest = 100 << 20
	// maxKafkaLogin bounds requests before the client has logged in.
	maxKafkaLogin = 64 << 10
	keyAuth       = 36 // SaslAuthenticate
)

// kafkaGuard lets whole, known requests through. kfake allocates whatever length a client
// announces, and an unknown request kind is a nil dereference there.
type kafkaGuard struct {
	net.Conn
	head   [6]byte // length and kind of the request being read
	unread []byte  // what of head the server has not seen
	left   int     // bytes of the request still to come after head
	authed bool    // a login was sent; the broker closes the connection if it fails
}

func newKafkaGuard(c net.Conn) net.Conn { return &kafkaGuard{Conn: c} }

func (g *kafkaGuard) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(g.unread) == 0 && g.left == 0 {
		if err := g.next(); err != nil {
			return 0, err
		}
	}
	if len(g.unread) > 0 {
		n := copy(p, g.unread)
		g.unread = g.unread[n:]
		return n, nil
	}
	if len(p) > g.left {
		p = p[:g.left]
	}
	n, err := g.Conn.Read(p)
	g.left -= n
	return n, err
}

// next reads and checks the head of the next request.
func (g *kafkaGuard) next() error {
	if _, err := io.ReadFull(g.Conn, g.head[:]); err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint32(g.head[:4]))
	kind := int16(binary.BigEndian.Uint16(g.head[4:]))
	limit := maxKafkaLogin
	if g.authed {
		limit = maxKafkaRequest
	}
	const header = 8 // kind, version, correlation id
	if size < header || size > limit || kmsg.RequestForKey(kind) == nil {
		return fmt.Errorf("embedded: not a Kafka request (kind %d, %d bytes)", kind, size)
	}
	if kind == keyAuth {
		g.authed = true
	}
	g.unread, g.left = g.head[:], size-2
	return nil
}

const (
	// maxRedisArgs and maxRedisArg bound one command: far above what the alert scripts
	// send, far below what hurts.
	maxRedisArgs = 1 << 16
	maxRedisArg  = 16 << 20
)

// redisGuard lets commands through that a Redis client would send: arrays of bulk strings.
// In miniredis an empty array is an index out of range and a huge length a panic of make,
// before any password is asked for.
type redisGuard struct {
	net.Conn
	line []byte // the header line so far, without its end
	args int    // arguments of the command still to come
	skip int    // bytes of the argument still to come, with its line end
}

func newRedisGuard(c net.Conn) net.Conn { return &redisGuard{Conn: c} }

func (g *redisGuard) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if bad := g.check(p[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

var errNotRedis = errors.New("embedded: not a Redis command")

// check follows the framing of b, which continues the bytes of earlier calls.
func (g *redisGuard) check(b []byte) error {
	for len(b) > 0 {
		if g.skip > 0 {
			n := min(g.skip, len(b))
			g.skip -= n
			b = b[n:]
			continue
		}
		c := b[0]
		b = b[1:]
		if c != '\n' {
			if g.line = append(g.line, c); len(g.line) > 16 {
				return errNotRedis
			}
			continue
		}
		n, err := g.header()
		if err != nil {
			return err
		}
		if g.args == 0 {
			g.args = n
		} else {
			g.args--
			g.skip = n + 2
		}
		g.line = g.line[:0]
	}
	return nil
}

// header reads the number of the finished line: how many arguments follow, or how long the
// next one is.
func (g *redisGuard) header() (int, error) {
	kind, least, most := byte('*'), 1, maxRedisArgs
	if g.args > 0 {
		kind, least, most = '$', 0, maxRedisArg
	}
	l := len(g.line)
	if l < 3 || g.line[0] != kind || g.line[l-1] != '\r' {
		return 0, errNotRedis
	}
	n, err := strconv.Atoi(string(g.line[1 : l-1]))
	if err != nil || n < least || n > most {
		return 0, errNotRedis
	}
	return n, nil
}
