package embedded

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/plain"
)

// TestWantsPasswords: nothing is served to a client that is not logged in.
func TestWantsPasswords(t *testing.T) {
	s := start(t, Config{})
	for _, login := range []plain.Mechanism{
		{Username: s.KafkaUser(), Password: "wrong"},
		{Username: s.KafkaUser(), Password: ""},
		{Username: "unknown", Password: ""}, // kfake by itself lets this one in
		{Username: "", Password: ""},
		{Username: "unknown", Password: s.KafkaPassword()},
	} {
		for range 2 { // a control function that has answered once is gone by default
			tr := &kafka.Transport{SASL: login}
			c := &kafka.Client{Addr: kafka.TCP(s.KafkaAddrs()...), Transport: tr, Timeout: 5 * time.Second}
			_, err := c.Metadata(t.Context(), &kafka.MetadataRequest{})
			if !errors.Is(err, kafka.SASLAuthenticationFailed) {
				t.Errorf("Kafka login %q %q: %v, want SASLAuthenticationFailed", login.Username, login.Password, err)
			}
			tr.CloseIdleConnections()
		}
	}
	tr := &kafka.Transport{}
	c := &kafka.Client{Addr: kafka.TCP(s.KafkaAddrs()...), Transport: tr, Timeout: 5 * time.Second}
	if _, err := c.Metadata(t.Context(), &kafka.MetadataRequest{}); err == nil {
		t.Error("Kafka served a client that did not log in")
	}
	tr.CloseIdleConnections()
	if _, err := kafkaClient(t, s).Metadata(t.Context(), &kafka.MetadataRequest{}); err != nil {
		t.Errorf("the right password: %v", err)
	}

	for _, options := range []*redis.Options{
		{Addr: s.RedisAddr()},
		{Addr: s.RedisAddr(), Password: "wrong"},
		{Addr: s.RedisAddr(), Username: "other", Password: s.RedisPassword()},
	} {
		options.MaxRetries = -1
		r := redis.NewClient(options)
		for _, command := range [][]any{
			{"GET", "k"}, {"KEYS", "*"}, {"SCAN", "0"}, {"XRANGE", "k", "-", "+"}, {"XREAD", "STREAMS", "k", "0"},
			{"HGETALL", "k"}, {"ZRANGE", "k", "0", "-1"}, {"EVAL", "return redis.call('KEYS','*')", "0"}, {"LPOP", "k"},
			{"SUBSCRIBE", "c"}, {"DUMP", "k"}, {"MULTI"}, {"FLUSHALL"}, {"SET", "k", "v"}, {"SWAPDB", "0", "1"},
		} {
			err := r.Do(t.Context(), command...).Err()
			if err == nil || !strings.Contains(err.Error(), "NOAUTH") && !strings.Contains(err.Error(), "WRONGPASS") {
				t.Errorf("Redis answers %v to %v without its password", err, command)
			}
		}
		r.Close()
	}
	if err := redisClient(t, s).Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Errorf("the right password: %v", err)
	}
}

// TestSurvivesGarbage: each of these stops the process, or takes gigabytes, without the
// guards.
func TestSurvivesGarbage(t *testing.T) {
	s := start(t, Config{})
	unknown := binary.BigEndian.AppendUint32(nil, 20)
	unknown = append(unknown, 0x7f, 0x7f) // a kind that is none
	unknown = append(unknown, make([]byte, 18)...)
	negative := append(binary.BigEndian.AppendUint32(nil, 20), 0xff, 0xff)
	negative = append(negative, make([]byte, 18)...)
	huge := append(binary.BigEndian.AppendUint32(nil, 1<<31), 0, 18)
	large := append(binary.BigEndian.AppendUint32(nil, 1<<20), 0, 0) // a megabyte before the login
	short := append(binary.BigEndian.AppendUint32(nil, 2), 0, 18)
	for _, b := range [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), unknown, negative, huge, large, short,
	} {
		refused(t, s.KafkaAddrs()[0], b)
	}
	for _, text := range []string{
		"*0\r\n", "*-1\r\n", "*1\r\n$9223372036854775805\r\n", "*1\r\n$17000000\r\n", "*1\r\n$-1\r\n", "*1\r\n:1\r\n",
		"*999999999\r\n", "PING\r\n", "GET / HTTP/1.1\r\n\r\n", "*1\n$4\nPING\n", strings.Repeat("*", 100),
		"*1\r\n$1\r\nx\r\n*0\r\n", "\r\n", "*\r\n", "*+1x\r\n",
	} {
		refused(t, s.RedisAddr(), []byte(text))
	}
	if _, err := kafkaClient(t, s).Metadata(t.Context(), &kafka.MetadataRequest{}); err != nil {
		t.Errorf("Kafka afterwards: %v", err)
	}
	if err := redisClient(t, s).Ping(t.Context()).Err(); err != nil {
		t.Errorf("Redis afterwards: %v", err)
	}
}

// refused sends b and waits for the server to hang up.
func refused(t *testing.T, addr string, b []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			t.Errorf("%q is not refused", b)
		}
	}
}

// TestRedisGuardFraming: commands pass whole however the network cuts them.
func TestRedisGuardFraming(t *testing.T) {
	commands := "*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$6\r\n\r\n*0\r\n\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n"
	for name, reader := range map[string]io.Reader{
		"whole": strings.NewReader(commands),
		"bytes": iotest.OneByteReader(strings.NewReader(commands)),
		"halfs": iotest.HalfReader(strings.NewReader(commands)),
	} {
		got, err := io.ReadAll(newRedisGuard(readConn{reader}))
		if err != nil || string(got) != commands {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestKafkaGuardFraming(t *testing.T) {
	frame := func(kind byte, size int) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(size))
		return append(b, append([]byte{0, kind}, make([]byte, size-2)...)...)
	}
	stream := append(frame(18, 8), frame(17, 30)...)
	stream = append(stream, frame(keyAuth, 40)...)
	stream = append(stream, frame(0, 1<<20)...) // fine after the login
	for name, reader := range map[string]io.Reader{
		"whole": strings.NewReader(string(stream)),
		"bytes": iotest.OneByteReader(strings.NewReader(string(stream))),
	} {
		guarded := bufio.NewReaderSize(newKafkaGuard(readConn{reader}), 1000)
		got, err := io.ReadAll(guarded)
		if err != nil || string(got) != string(stream) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(stream), err)
		}
	}
	cut := newKafkaGuard(readConn{strings.NewReader(string(stream[:50]))}) // in the third head
	if _, err := io.ReadAll(cut); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut stream: %v", err)
	}
}

// readConn is a connection that only reads.
type readConn struct{ io.Reader }

func (readConn) Write([]byte) (int, error)        { return 0, errors.ErrUnsupported }
func (readConn) Close() error                     { return nil }
func (readConn) LocalAddr() net.Addr              { return nil }
func (readConn) RemoteAddr() net.Addr             { return nil }
func (readConn) SetDeadline(time.Time) error      { return nil }
func (readConn) SetReadDeadline(time.Time) error  { return nil }
func (readConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzRedisGuard: what the guard lets through parses as whole commands, each with a name.
func FuzzRedisGuard(f *testing.F) {
	for _, seed := range []string{"*1\r\n$4\r\nPING\r\n", "*0\r\n", "*2\r\n$3\r\nGET\r\n$0\r\n\r\n", "*1\r\n$-1\r\n", "*1\r\n$4\r\nPI"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g := &redisGuard{}
		if g.check(b) != nil {
			return
		}
		for rest := string(b); rest != ""; {
			var args int
			var ok bool
			if args, rest, ok = header(rest, '*'); !ok {
				return // an unfinished line
			}
			if args < 1 {
				t.Fatalf("%q passes a command of %d arguments", b, args)
			}
			for ; args > 0; args-- {
				var n int
				if n, rest, ok = header(rest, '$'); !ok {
					return
				}
				if n < 0 || n > maxRedisArg {
					t.Fatalf("%q passes an argument of %d bytes", b, n)
				}
				if len(rest) < n+2 {
					return
				}
				rest = rest[n+2:]
			}
		}
	})
}

// header reads a line such as *3 from s.
func header(s string, kind byte) (n int, rest string, ok bool) {
	line, rest, ok := strings.Cut(s, "\r\n")
	if !ok || line == "" || line[0] != kind {
		return 0, rest, false
	}
	n, err := strconv.Atoi(line[1:])
	return n, rest, err == nil
}
