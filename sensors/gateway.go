package sensors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"vigie/watchlist/plate"
)

// Publisher hands accepted reads to Kafka, or to the spool when Kafka is away.
type Publisher interface {
	// Publish returns nil once every read is stored safely: acknowledged by all
	// in-sync replicas, or by the disk of the spool. Reads of one sensor keep
	// their order. After an error the outcome of each read is unknown, and
	// publishing it again is safe because its id makes the repeat harmless.
	// reads and what they point to belong to the caller again on return.
	Publish(ctx context.Context, reads []Read) error
}

// Config configures New.
type Config struct {
	Publisher Publisher        // required
	Clock     func() time.Time // time.Now when nil
	// MaxBatch is the most reads that one Accept takes; 10,000 when 0. It bounds
	// the memory that a request can hold.
	MaxBatch int
	// MaxSensors is how many sensors Health tells about; 10,000 when 0, three
	// times the national plan. Reads of further sensors are accepted all the same.
	MaxSensors int

	// Known reports whether a sensor is in the registry; all are when nil. It is asked
	// once for each run of reads of one sensor and must answer at once. While the registry
	// is not known yet it must say true: half a registry would shut sensors out.
	Known func(sensor string) bool
	// Unknown is what becomes of reads of other sensors. They are counted whatever it is.
	Unknown UnknownPolicy
	// Quarantine stores the reads that UnknownQuarantine keeps from Publisher. Required with
	// it. It must return soon after its context ends.
	Quarantine Publisher
	// SpoolDepth is how many reads wait on this machine for Kafka; not told when nil.
	SpoolDepth func() int64
}

// UnknownPolicy is what becomes of reads of sensors that the registry has not.
type UnknownPolicy uint8

const (
	// UnknownAccept takes them like any other.
	UnknownAccept UnknownPolicy = iota
	// UnknownQuarantine puts them aside: they meet no list, and somebody can look at what
	// would have come. Nobody is owed them, so that they never hold up reads of other sensors:
	// those that Config.Quarantine has not stored within half a second are dropped and
	// counted as Stats.QuarantineLost, and so are those of the next five seconds, without a try.
	// Their senders are told the same as if they were stored.
	UnknownQuarantine
	// UnknownRefuse rejects them.
	UnknownRefuse
)

var unknownNames = [...]string{"accept", "quarantine", "refuse"}

// String returns the word for p, as in a configuration: accept, quarantine, refuse.
func (p UnknownPolicy) String() string {
	if int(p) < len(unknownNames) {
		return unknownNames[p]
	}
	return fmt.Sprintf("UnknownPolicy(%d)", uint8(p))
}

// MarshalText returns the word for p.
func (p UnknownPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText sets p to what a word says.
func (p *UnknownPolicy) UnmarshalText(text []byte) error {
	i := slices.Index(unknownNames[:], string(text))
	if i < 0 {
		return errors.New("must be accept, quarantine or refuse")
	}
	*p = UnknownPolicy(i)
	return nil
}

// Gateway takes reads in: it checks them, completes them and publishes them. Its
// methods may be called at the same time.
type Gateway struct {
	cfg    Config
	count  counters
	health health
	// shut is when the quarantine failed last; nil for never.
	shut atomic.Pointer[time.Time]
}

const (
	// quarantineWait is how long a request may wait for the quarantine. After a failure, what
	// comes within quarantineRest does not wait at all.
	quarantineWait = 500 * time.Millisecond
	quarantineRest = 5 * time.Second
)

// New returns a Gateway, or an error that names what cfg lacks.
func New(cfg Config) (*Gateway, error) {
	switch {
	case cfg.Publisher == nil:
		return nil, errors.New("sensors: Config.Publisher is required")
	case cfg.MaxBatch < 0:
		return nil, errors.New("sensors: Config.MaxBatch must not be negative")
	case cfg.MaxSensors < 0:
		return nil, errors.New("sensors: Config.MaxSensors must not be negative")
	case cfg.Unknown > UnknownRefuse:
		return nil, errors.New("sensors: Config.Unknown is none of the policies")
	case cfg.Unknown == UnknownQuarantine && cfg.Quarantine == nil:
		return nil, errors.New("sensors: Config.Quarantine is required with UnknownQuarantine")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.MaxBatch == 0 {
		cfg.MaxBatch = defaultReads
	}
	if cfg.MaxSensors == 0 {
		cfg.MaxSensors = 10_000
	}
	g := &Gateway{cfg: cfg}
	g.health.init(cfg.MaxSensors, cfg.Clock())
	return g, nil
}

// AcceptOptions says on whose behalf reads come.
type AcceptOptions struct {
	// Sensor is the sensor that the caller's token is bound to: a read of any
	// other is rejected, and one that names none gets this one. Empty means that
	// the token speaks for every sensor.
	Sensor string
}

// Rejection says why one read of a request was not taken. It never holds any of
// the read.
type Rejection struct {
	Index  int    `json:"index"`           // position in the request, from 0
	Field  string `json:"field,omitempty"` // JSON name; empty when the read could not be decoded
	Reason string `json:"reason"`          // what is wrong and what would be right
}

// Result is the answer to a request. Every read of it is either accepted or
// rejected.
type Result struct {
	Accepted int `json:"accepted"`
	// Quarantined are the accepted reads that go no further, because the registry does
	// not have their sensor; see UnknownQuarantine.
	Quarantined int         `json:"quarantined,omitempty"`
	Rejected    []Rejection `json:"rejected"` // by rising index; never nil
}

// Merge returns res as the answer to a request of which ParseBatch rejected
// parsed and handed the rest to Accept: the indexes of res, which count the reads
// that were handed on, become positions in the request.
func (res Result) Merge(parsed []Rejection) Result {
	merged := make([]Rejection, 0, len(parsed)+len(res.Rejected))
	k := 0 // rejections of parsed in front
	for _, rej := range res.Rejected {
		for k < len(parsed) && parsed[k].Index <= rej.Index+k {
			merged = append(merged, parsed[k])
			k++
		}
		rej.Index += k
		merged = append(merged, rej)
	}
	res.Rejected = append(merged, parsed[k:]...)
	return res
}

// ErrTooManyReads is returned for a request with more reads than the limit. None
// of them was taken; the sender must send less at once.
var ErrTooManyReads = errors.New("sensors: too many reads in one request")

// Accept publishes the reads that are in order and names the others. It completes
// reads in place: Received is set, ID is made when missing, Country becomes
// alpha-2, or empty when it is not recognised, and a CharConf that fits the plate
// neither with nor without separators is dropped.
//
// A read without a plate (see Key) is accepted and published: it tells that the
// sensor is awake. One whose plate is not a plate is rejected.
//
// When publishing fails the Result is zero and nothing may be told accepted, for
// it is unknown which reads are stored; the sender sends the request again. The
// other error is ErrTooManyReads.
func (g *Gateway) Accept(ctx context.Context, reads []Read, opts AcceptOptions) (Result, error) {
	res, t, err := g.accept(ctx, reads, opts)
	if err != nil {
		return Result{}, err
	}
	g.count.add(&t)
	return res, nil
}

// AcceptBody is ParseBatch, Accept and Merge. Its errors are those of ParseBatch,
// before anything was published, and of Accept.
func (g *Gateway) AcceptBody(ctx context.Context, contentType string, body io.Reader, limits Limits, opts AcceptOptions) (Result, error) {
	reads, parsed, err := ParseBatch(contentType, body, limits)
	if err != nil {
		return Result{}, err
	}
	res, t, err := g.accept(ctx, reads, opts)
	if err != nil {
		return Result{}, err
	}
	for _, rej := range parsed {
		t.reject(rej.Field)
	}
	g.note(opts.Sensor, g.cfg.Clock().UnixMilli(), parsed...)
	g.count.add(&t)
	return res.Merge(parsed), nil
}

// accept is Accept without the counting, so that a request whose outcome is not
// told is not counted either.
func (g *Gateway) accept(ctx context.Context, reads []Read, opts AcceptOptions) (Result, tally, error) {
	var t tally
	if len(reads) > g.cfg.MaxBatch {
		return Result{}, t, ErrTooManyReads
	}
	now := g.cfg.Clock().UnixMilli()
	res := Result{Rejected: []Rejection{}}
	good := portion{reads: reads[:0]} // a copy from the first read that is left out: the caller may pass reads again
	aside := portion{}                // for the quarantine
	sameSensor := run{}
	for i := range reads {
		r := &reads[i]
		sentinels := t.sentinels
		fault := g.complete(r, now, opts, &sameSensor, &t)
		quarantined := sameSensor.stranger && g.cfg.Unknown == UnknownQuarantine
		if (fault != nil || quarantined) && len(good.reads) == i {
			good.reads = slices.Clone(good.reads)
		}
		to := &good
		switch {
		case fault != nil:
			res.Rejected = append(res.Rejected, Rejection{Index: i, Field: fault.Field, Reason: fault.Reason})
			t.reject(fault.Field)
			continue
		case quarantined:
			to = &aside
		}
		if t.sentinels > sentinels {
			to.blank = to.blank.with(len(to.reads), len(reads))
		}
		if to == &good && len(good.reads) == i {
			good.reads = reads[:i+1]
		} else {
			to.reads = append(to.reads, *r)
		}
	}
	if n := uint64(len(aside.reads)); n > 0 {
		if g.putAside(ctx, aside.reads) {
			t.batches++
		} else {
			t.unknown[UnknownQuarantine] -= n
			t.quarantineLost += n
		}
	}
	if len(good.reads) > 0 {
		if err := g.cfg.Publisher.Publish(ctx, good.reads); err != nil {
			g.count.publishErrors.Add(1)
			return Result{}, t, fmt.Errorf("sensors: publish %d reads: %w", len(good.reads), err)
		}
		t.batches++
	}
	t.accepted += uint64(len(good.reads) + len(aside.reads))
	for _, b := range []portion{good, aside} {
		t.duplicates += g.health.saw(b, g.known, now)
	}
	for _, rej := range res.Rejected {
		g.note(cmp.Or(opts.Sensor, reads[rej.Index].Sensor), now, rej)
	}
	res.Accepted, res.Quarantined = len(good.reads)+len(aside.reads), len(aside.reads)
	return res, t, nil
}

// putAside stores reads in the quarantine and reports whether it could. It does not end with
// ctx, since a sender that waits for less would never let the quarantine rest.
func (g *Gateway) putAside(ctx context.Context, reads []Read) bool {
	if shut := g.shut.Load(); shut != nil && time.Since(*shut) < quarantineRest {
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), quarantineWait)
	defer cancel()
	if g.cfg.Quarantine.Publish(ctx, reads) != nil {
		now := time.Now()
		g.shut.Store(&now)
		return false
	}
	return true
}

// portion is a part of a request.
type portion struct {
	reads []Read
	blank bitset // those without a plate
}

// run is what is known of the sensor of the read before.
type run struct {
	sensor   string // empty before the first
	stranger bool   // the registry does not have it
}

// known reports whether a sensor is in the registry.
func (g *Gateway) known(sensor string) bool { return g.cfg.Known == nil || g.cfg.Known(sensor) }

// note tells the health of a sensor that reads were rejected. Who a read was forged for,
// or whoever has an id that cannot be one, is not to be blamed.
func (g *Gateway) note(sensor string, now int64, rejected ...Rejection) {
	if !validSensor(sensor) {
		return
	}
	known := g.known(sensor)
	for _, rej := range rejected {
		g.health.refused(sensor, known, rej, now)
	}
}

const reasonUnknown = "is not in the registry: add it with `vigie sensors add`, or set gateway.unknown_sensors"

// complete checks r and fills in what the gateway knows better than the sensor.
func (g *Gateway) complete(r *Read, received int64, opts AcceptOptions, last *run, t *tally) *FieldError {
	if opts.Sensor != "" && r.Sensor != opts.Sensor {
		if r.Sensor != "" {
			t.foreign++
			return &FieldError{"sensor", "is not the sensor that the token belongs to"}
		}
		r.Sensor = opts.Sensor
	}
	r.Received = received
	if fault := r.check(); fault != nil {
		return fault
	}
	if r.Sensor != last.sensor {
		*last = run{r.Sensor, !g.known(r.Sensor)}
	}
	if last.stranger && g.cfg.Unknown == UnknownRefuse {
		t.unknown[UnknownRefuse]++
		return &FieldError{"sensor", reasonUnknown}
	}
	_, err := r.Key()
	switch {
	case errors.Is(err, plate.ErrSentinel):
		t.sentinels++
	case err != nil:
		return &FieldError{"plate", strings.TrimPrefix(err.Error(), "plate: ")}
	}
	if last.stranger {
		t.unknown[g.cfg.Unknown]++
	}
	country, known := plate.ParseCountry(r.Country)
	switch {
	case !known:
		t.unknownCountries++
	case country == 0:
		t.noCountry++
	}
	if text := country.String(); text != r.Country {
		r.Country = text
	}
	if len(r.CharConf) > 0 && !charConfFits(r) {
		r.CharConf = nil
		t.charConfDropped++
	}
	if r.ID == "" {
		r.EnsureID()
		t.derivedIDs++
	}
	if r.Retransmitted {
		t.retransmitted++
	} else {
		t.delay.observe(received - r.TS)
	}
	return nil
}

// charConfFits reports whether there is one confidence per character of the plate,
// separators counted or not.
func charConfFits(r *Read) bool {
	n := len(r.CharConf)
	if n == utf8.RuneCountInString(r.Plate) {
		return true
	}
	for _, c := range r.Plate {
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			n--
		}
	}
	return n == 0
}
