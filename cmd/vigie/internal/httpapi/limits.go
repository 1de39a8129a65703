package httpapi

import (
	"io"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"vigie/sensors"
)

// SensorLimits bound what one sensor may send. The zero value of a field takes the default.
type SensorLimits struct {
	// RequestsPerSecond and ReadsPerSecond are for a caller that speaks for one sensor; less
	// than 0 for no limit. 500 and 2,000. A caller that speaks for all sensors has none.
	RequestsPerSecond, ReadsPerSecond int
	// Burst is how many reads may come at once before ReadsPerSecond counts, for a sensor that
	// was away; 10,000. A batch is taken whole, and paid for by waiting afterwards: what is owed
	// never grows past the larger of Burst and one batch, however many come at once.
	Burst int
	// MessageBytes is the most bytes of a vendor's message, plain and compressed; 8 MiB.
	MessageBytes int64
	// Memory is how many bytes of bodies are held at the same time; 128 MiB. One caller may have
	// a quarter of it, and always has a 128th. Bodies whose signature is not checked yet are not
	// among them: they have a quarter as much beside it, or room for four of the largest messages
	// when that is more, and what is said of one caller holds there for one address.
	Memory int64
	// ReplayWindow is how far the time of a signed request may be from ours; 60 s.
	ReplayWindow time.Duration
}

func (l *SensorLimits) setDefaults() {
	setDefault(&l.RequestsPerSecond, 500)
	setDefault(&l.ReadsPerSecond, 2000)
	setDefault(&l.Burst, 10_000)
	setDefault(&l.MessageBytes, 8<<20)
	setDefault(&l.Memory, 128<<20)
	setDefault(&l.ReplayWindow, time.Minute)
}

const (
	// failuresPerSecond and failuresBurst are how often one address may be wrong about who it
	// is, and apart from that, how often a signature for one sensor may be wrong that comes from
	// it. Secrets are too long to be guessed; it bounds the work and the noise.
	failuresPerSecond, failuresBurst = 20, 200
	// maxCallers and maxAddresses bound how many are told apart.
	maxCallers, maxAddresses = 20_000, 10_000
)

// limiters has a rate for each of many keys, in bounded memory. A key whose allowance is whole is
// as good as one that never came, and is forgotten when room is wanted; when there is none, new
// keys share one allowance.
type limiters[K comparable] struct {
	rate  rate.Limit
	burst int
	max   int // keys

	mu     sync.Mutex
	of     map[K]*rate.Limiter
	shared *rate.Limiter
	swept  time.Time
}

func newLimiters[K comparable](perSecond, burst, most int) *limiters[K] {
	l := &limiters[K]{rate: rate.Limit(perSecond), burst: burst, max: most, of: make(map[K]*rate.Limiter)}
	if perSecond < 0 {
		l.rate = rate.Inf
	}
	l.shared = rate.NewLimiter(l.rate, burst)
	return l
}

// get returns the limiter of a key.
func (l *limiters[K]) get(key K, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lim := l.of[key]; lim != nil {
		return lim
	}
	if len(l.of) >= l.max && now.Sub(l.swept) >= time.Second {
		l.swept = now
		for k, lim := range l.of {
			if lim.TokensAt(now) >= float64(l.burst) {
				delete(l.of, k)
			}
		}
	}
	if len(l.of) >= l.max {
		return l.shared
	}
	lim := rate.NewLimiter(l.rate, l.burst)
	l.of[key] = lim
	return lim
}

// allow takes one from the allowance of a key.
func (l *limiters[K]) allow(key K, now time.Time) bool {
	return l.get(key, now).AllowN(now, 1)
}

// left reports whether the allowance of a key is not used up. It takes nothing, and remembers no
// key that never took any, so that asking fills no memory.
func (l *limiters[K]) left(key K, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	lim := l.of[key]
	switch {
	case l.rate == rate.Inf:
		return true
	case lim == nil && len(l.of) < l.max:
		return true // whole
	case lim == nil:
		lim = l.shared
	}
	return lim.TokensAt(now) >= 1
}

// spend takes n, also when that is more than there is: then nothing is left until time has paid for
// it. Of many who spend at once, all but the first may get some for nothing: what is owed is at most
// n or the burst, whichever is more.
func (l *limiters[K]) spend(key K, n int, now time.Time) {
	if l.rate == rate.Inf {
		return
	}
	lim := l.get(key, now)
	l.mu.Lock() // no other spends between the look and the taking
	defer l.mu.Unlock()
	n = min(n, max(n, l.burst)+int(lim.TokensAt(now)))
	for n > 0 {
		part := min(n, l.burst)
		lim.ReserveN(now, part)
		n -= part
	}
}

// wait is how long it takes until the allowance of a key is not used up.
func (l *limiters[K]) wait(key K, now time.Time) time.Duration {
	missing := 1 - l.get(key, now).TokensAt(now)
	return time.Duration(max(0, missing) / float64(l.rate) * float64(time.Second))
}

// limitedError says that a caller sends too much, and when it may come again.
type limitedError struct {
	err  error // errTooManyRequests or errTooManyOfSensor
	wait time.Duration
}

func (e *limitedError) Error() string { return e.err.Error() }
func (e *limitedError) Unwrap() error { return e.err }

// seconds is for Retry-After.
func (e *limitedError) seconds() int { return max(1, int(math.Ceil(e.wait.Seconds()))) }

// admitSensor refuses a caller that speaks for one sensor when it sends too much.
func (s *Server) admitSensor(who *Token) error {
	if who.Sensor == "" {
		return nil
	}
	now, caller := time.Now(), who.caller()
	if !s.readRates.left(caller, now) {
		return &limitedError{errTooManyOfSensor, s.readRates.wait(caller, now)}
	}
	if !s.requestRates.allow(caller, now) {
		return &limitedError{errTooManyRequests, s.requestRates.wait(caller, now)}
	}
	return nil
}

// took counts the reads of a request against the rate of its caller.
func (s *Server) took(who *Token, reads int) {
	if who.Sensor != "" {
		s.readRates.spend(who.caller(), reads, time.Now())
	}
}

// addressOf is where a request comes from: an address of IPv4, or a network of IPv6 as one customer
// has it. A proxy in front is one address.
func addressOf(r *http.Request) netip.Prefix {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := at.Addr().Unmap(), 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.WithZone("").Prefix(bits) // bits fit the address
	return p
}

// caller is whose limits count: the sensor, by whatever credential it comes, or a token that speaks
// for all.
func (t *Token) caller() string {
	if t.Sensor != "" {
		return "sensor " + t.Sensor
	}
	return t.Name
}

// signer is who claims to have signed: a sensor that has a key, and where the request comes from.
type signer struct {
	from   netip.Prefix
	sensor string
}

// budget bounds the bytes of bodies that are held. Nobody waits for room, for who waits holds what
// he has already: the request ends at once and is to come again. A few callers who hold all there
// is do not shut out the others: up to a floor everybody may hold something, until that too has
// come to the same sum again.
type budget struct {
	total        int64
	share, floor int64 // of one caller: at most, and at least

	mu   sync.Mutex
	used int64
	by   map[string]int64 // callers that hold any
}

func newBudget(total int64) *budget {
	return &budget{total: total, share: total / 4, floor: total / 128, by: make(map[string]int64)}
}

// newUnverified is the budget of bodies whose signature is not checked yet. The share of one address
// has room for the largest message.
func newUnverified(l *SensorLimits) *budget {
	return newBudget(max(l.Memory/4, 4*min(l.MessageBytes, maxSigned)))
}

// charge begins a request that holds nothing yet.
func (b *budget) charge(caller string) *charge { return &charge{b: b, caller: caller} }

// charge is what one request holds.
type charge struct {
	b      *budget
	caller string
	n      int64
}

// add takes n bytes more, or takes none and returns errTooMuch, errBusy or, when the request alone
// is more than one caller may hold, *http.MaxBytesError.
func (c *charge) add(n int64) error {
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	switch his := b.by[c.caller] + n; {
	case c.n+n > b.share:
		return &http.MaxBytesError{Limit: b.share}
	case his > b.share:
		return errTooMuch
	case b.used+n > b.total && his > b.floor, b.used+n > 2*b.total:
		return errBusy
	}
	b.used += n
	b.by[c.caller] += n
	c.n += n
	return nil
}

// release gives everything back.
func (c *charge) release() {
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= c.n
	if b.by[c.caller] -= c.n; b.by[c.caller] == 0 {
		delete(b.by, c.caller)
	}
	c.n = 0
}

// metered is a body whose bytes are charged as they come, so that one which is slow holds only
// what it has sent.
type metered struct {
	r io.Reader
	c *charge
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if n > 0 {
		if fault := m.c.add(int64(n)); fault != nil {
			return 0, fault
		}
	}
	return n, err
}

// readAll reads a body whole. Size is what it says of itself, less than 0 when nothing: a hint,
// for which no memory is taken before as much has come.
func (c *charge) readAll(r io.Reader, size int64) ([]byte, error) {
	r = &metered{r, c}
	first := int64(4 << 10)
	if size >= 0 {
		first = min(first, size+1)
	}
	body := make([]byte, 0, first)
	for {
		if n := int64(len(body)); len(body) == cap(body) {
			more := n // twice: what it leaves behind is no more than what it is
			if size > n && size < 2*n {
				more = size - n + 1 // the last read finds the end
			}
			body = slices.Grow(body, int(more))
		}
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case err == io.EOF:
			return body, nil
		case err != nil:
			return nil, err
		}
	}
}

// allRejected is the problem of a batch of which nothing was taken.
func allRejected(rejected []sensors.Rejection) error {
	d := &detailed{err: errAllRejected}
	for _, rej := range rejected {
		d.errs = append(d.errs, ProblemError{Index: &rej.Index, Field: rej.Field, Reason: rej.Reason})
	}
	return d
}
