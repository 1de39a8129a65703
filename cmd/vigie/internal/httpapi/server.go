// Package httpapi is the one HTTP server of Vigie. It speaks to three audiences: sensors
// hand in reads (gateway.go) or messages as their vendors write them (ingest.go),
// operators keep the lists (operator.go), patrols receive and answer alerts (patrol.go).
//
// A handler decodes, calls one small interface declared here, and encodes. What
// a list, a read or an alert is, and what may be done with it, is decided behind
// those interfaces. There is no address that searches reads, and no plate is
// ever part of an address, a log line or an error.
package httpapi

import (
	"context"
	"crypto/tls"
	_ "embed"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"vigie/stream"
)

// Config has the parts of a Server. Tokens and Log are required; an audience
// left nil is not served, and its addresses say so.
type Config struct {
	Addr   string // host:port to listen on; 127.0.0.1:8080 when empty, port 0 takes a free one
	Tokens *Tokens
	// TLS encrypts every connection, with version 1.3 or newer; plain HTTP when nil. With
	// ClientCAs a client may show a certificate, which says which sensor it is.
	TLS   *tls.Config
	Log   *zap.Logger
	Clock func() time.Time // time.Now when nil

	Gateway readAcceptor    // sensors
	Ingest  messageIngester // sensors that speak as their vendor does
	Formats []string        // names of the formats that Ingest reads, beside auto
	Limits  SensorLimits    // what a sensor may send
	Desk    listDesk        // operators
	// Registry and SensorHealth are for operators too: the sensors, and how they do.
	Registry     sensorDesk
	SensorHealth sensorWatch
	Alerts       alertDesk // patrols, together with Feed
	Feed         alertFeed
	// StillWanted reports whether the lists still say what an alert claims. An
	// alert for which that is not so is never handed out. All are wanted when nil.
	StillWanted func(stream.Claim) bool
	// Fence returns the version of the lists that a process must know before it
	// hands out an alert of the queue. None when nil.
	Fence func(ctx context.Context, queue string) (int64, error)
	// Lists says how far this process is with the lists, on which Desk and
	// StillWanted rest. Operators and patrols are refused before it has caught
	// up. Always up to date when nil.
	Lists listState

	Health  func(context.Context) Health // ready when nil
	Metrics http.Handler                 // no metrics when nil
	Console http.Handler                 // no console when nil

	// Drain is how long requests in flight may take to end after Run's context
	// has ended; 10 s when 0.
	Drain time.Duration
	// Heartbeat is the silence after which an alert stream says that it lives;
	// 5 s when 0.
	Heartbeat time.Duration
	// Replay is how far back a stream begins for a patrol that does not say what
	// it had last; 12 h, a shift, when 0.
	Replay time.Duration
	// WriteTimeout is how long a patrol may take to receive one message before
	// its stream is cut; 5 s when 0.
	WriteTimeout time.Duration

	limits limits // for tests; defaultLimits when zero
}

// listState is how far a process is with the control log; *stream.Replica is one.
type listState interface {
	// CaughtUp reports whether everything recorded before the process started
	// is known to it. Half the lists would show an operator that an entry is
	// missing, and take alerts from patrols.
	CaughtUp() bool
	// WaitVersion returns once version v is known, or with the error of ctx.
	WaitVersion(ctx context.Context, v int64) error
}

// upToDate is the listState of a process that is never behind.
type upToDate struct{}

func (upToDate) CaughtUp() bool                           { return true }
func (upToDate) WaitVersion(context.Context, int64) error { return nil }

// Health says whether this process does its work.
type Health struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks,omitempty"`
}

// Check is one condition of being ready.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"` // what is so, and when not OK what is missing
}

// limits bound every connection: a client that sends its header or body drop by
// drop, or does not take its answer, is cut. A route may have longer ones.
type limits struct {
	header, body, answer, idle time.Duration
	// message and messageAnswer are body and answer of a vendor's message, which brings its
	// pictures over a mobile link.
	message, messageAnswer time.Duration
	headerBytes            int
	// behind is how long a patrol waits for the lists of this process to reach
	// the version of an alert, before it is asked to come again.
	behind time.Duration
}

var defaultLimits = limits{
	header: 5 * time.Second, body: 15 * time.Second, answer: 30 * time.Second, idle: 2 * time.Minute,
	message: 30 * time.Second, messageAnswer: 45 * time.Second,
	headerBytes: 16 << 10, behind: 5 * time.Second,
}

// Server listens from New on and serves from Run on.
type Server struct {
	cfg      Config
	ln       net.Listener
	loopback bool
	http     *http.Server
	mux      *http.ServeMux
	routes   []*route
	other    counters // requests that met no route
	streams  streamCounters

	failures     *limiters[netip.Prefix] // of credentials, by where they come from
	forgeries    *limiters[signer]       // of signatures for a sensor that has a key
	requestRates *limiters[string]       // by Token.caller
	readRates    *limiters[string]
	memory       *budget // of bodies on their way
	unverified   *budget // of those whose signature is not checked yet, by address
	replays      replays
	refused      [len(refusals)]atomic.Uint64

	// streaming ends when Run begins to stop: streams end, /readyz is red.
	streaming context.Context
	stop      context.CancelFunc
}

// New checks cfg and takes the address, so that a port in use is an error
// before anything else is started.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Tokens == nil || cfg.Tokens.Len() == 0:
		return nil, errors.New("httpapi: Config.Tokens is required and needs a token")
	case cfg.Log == nil:
		return nil, errors.New("httpapi: Config.Log is required")
	case (cfg.Alerts == nil) != (cfg.Feed == nil):
		return nil, errors.New("httpapi: Config.Alerts and Config.Feed go together")
	}
	setDefault(&cfg.Addr, "127.0.0.1:8080")
	setDefault(&cfg.limits, defaultLimits)
	setDefault(&cfg.Drain, 10*time.Second)
	setDefault(&cfg.Heartbeat, 5*time.Second)
	setDefault(&cfg.Replay, 12*time.Hour)
	setDefault(&cfg.WriteTimeout, 5*time.Second)
	cfg.Limits.setDefaults()
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.StillWanted == nil {
		cfg.StillWanted = func(stream.Claim) bool { return true }
	}
	if cfg.Lists == nil {
		cfg.Lists = upToDate{}
	}
	if cfg.Health == nil {
		cfg.Health = func(context.Context) Health { return Health{Ready: true} }
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, describeListen(cfg.Addr, err)
	}
	s := &Server{
		cfg: cfg, ln: ln, mux: http.NewServeMux(),
		failures:     newLimiters[netip.Prefix](failuresPerSecond, failuresBurst, maxAddresses),
		forgeries:    newLimiters[signer](failuresPerSecond, failuresBurst, maxCallers),
		requestRates: newLimiters[string](cfg.Limits.RequestsPerSecond, max(1, cfg.Limits.RequestsPerSecond), maxCallers),
		readRates:    newLimiters[string](cfg.Limits.ReadsPerSecond, cfg.Limits.Burst, maxCallers),
		memory:       newBudget(cfg.Limits.Memory),
		unverified:   newUnverified(&cfg.Limits),
		replays:      replays{window: cfg.Limits.ReplayWindow.Milliseconds(), max: noncesFor(&cfg.Limits), seen: make(map[string]*nonces)},
	}
	s.streaming, s.stop = context.WithCancel(context.Background())
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok {
		s.loopback = tcp.IP.IsLoopback()
	}
	s.routes = s.table()
	for _, rt := range s.routes {
		s.mux.Handle(rt.pattern, s.wrap(rt))
	}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: cfg.limits.header,
		ReadTimeout:       cfg.limits.body,
		WriteTimeout:      cfg.limits.answer,
		IdleTimeout:       cfg.limits.idle,
		MaxHeaderBytes:    cfg.limits.headerBytes,
		ErrorLog:          log.New(&errorLog{log: cfg.Log, few: rate.Sometimes{First: 10, Interval: time.Second}}, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	if cfg.TLS != nil {
		t := cfg.TLS.Clone()
		t.MinVersion = tls.VersionTLS13
		if t.ClientCAs != nil {
			t.ClientAuth = tls.VerifyClientCertIfGiven // people come with a token
		}
		s.http.TLSConfig = t
		// The limits of this server are those of connections, and HTTP/2 would have many
		// requests on one.
		s.http.Protocols = new(http.Protocols)
		s.http.Protocols.SetHTTP1(true)
	}
	return s, nil
}

// errorLog takes what net/http says about single connections, of which anybody can make many.
type errorLog struct {
	log *zap.Logger
	few rate.Sometimes
}

func (l *errorLog) Write(p []byte) (int, error) {
	l.few.Do(func() { l.log.Info(strings.TrimSpace(string(p))) })
	return len(p), nil
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func describeListen(addr string, err error) error {
	const mend = "set another with http.addr in the configuration or the flag --http"
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("httpapi: another program listens on %s already; %s (%w)", addr, mend, err)
	}
	return fmt.Errorf("httpapi: cannot listen on %s; %s: %w", addr, mend, err)
}

// URL is where the server listens, such as http://127.0.0.1:8080.
func (s *Server) URL() string {
	scheme := "http://"
	if s.cfg.TLS != nil {
		scheme = "https://"
	}
	addr, ok := s.ln.Addr().(*net.TCPAddr)
	if ok && addr.IP.IsUnspecified() {
		return fmt.Sprintf("%s127.0.0.1:%d", scheme, addr.Port)
	}
	return scheme + s.ln.Addr().String()
}

// Close lets go of the address of a Server that was never run. After Run it does
// nothing.
func (s *Server) Close() error {
	s.stop()
	if err := s.ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Run serves until ctx ends, then stops: alert streams end at once, requests in
// flight have Config.Drain to finish. It returns nil after a clean stop. Run is
// called once.
func (s *Server) Run(ctx context.Context) error {
	if !s.loopback && s.cfg.TLS == nil {
		s.cfg.Log.Warn("listening beyond this machine without TLS: tokens and plates travel in clear unless a proxy in front adds it")
	}
	served := make(chan error, 1)
	go func() {
		if s.cfg.TLS != nil {
			served <- s.http.ServeTLS(s.ln, "", "")
		} else {
			served <- s.http.Serve(s.ln)
		}
	}()
	select {
	case err := <-served:
		return fmt.Errorf("httpapi: serve: %w", err)
	case <-ctx.Done():
	}
	s.stop()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
	defer cancel()
	err := s.http.Shutdown(drain)
	<-served
	if err != nil {
		s.http.Close()
		return fmt.Errorf("httpapi: requests were cut after %v: %w", s.cfg.Drain, err)
	}
	return nil
}

// connKey is the connection in the context of a request.
type connKey struct{}

// isStopping reports whether Run has begun to stop.
func (s *Server) isStopping() bool { return s.streaming.Err() != nil }

// A handler answers a request of who, nil on routes that need no token. It
// either writes an answer or returns an error, never both.
type handler func(w http.ResponseWriter, r *http.Request, who *Token) error

// route is one address. What is not in the table is not served, and a role that
// is not in its row is refused.
type route struct {
	pattern string
	roles   []Role // nil: no token needed
	served  bool   // false when this process runs without the part
	lists   bool   // rests on the lists: not before they are all there
	handle  handler
	// body is how long the body may take to arrive, answer how long the whole
	// request may take; 0 means what limits says.
	body, answer time.Duration
	stream       bool // never ends by itself: its duration is no latency

	counters counters
}

// table is every address, who may use it, and what answers.
func (s *Server) table() []*route {
	var (
		sensor   = []Role{RoleSensor}
		operator = []Role{RoleOperator}
		patrol   = []Role{RolePatrol}
		watch    = []Role{RoleMonitor, RoleOperator}
		anyone   []Role

		gateway = s.cfg.Gateway != nil
		vendors = s.cfg.Ingest != nil
		desk    = s.cfg.Desk != nil
		alerts  = s.cfg.Alerts != nil

		registry = s.cfg.Registry != nil
	)
	if s.loopback {
		watch = anyone // whoever is on this machine
	}
	return []*route{
		{pattern: "POST /v1/reads", roles: sensor, served: gateway, handle: s.postReads},
		{pattern: "POST /v1/ingest/{format}", roles: sensor, served: vendors, handle: s.postIngest, body: s.cfg.limits.message, answer: s.cfg.limits.messageAnswer},
		{pattern: "POST /NotificationInfo/{kind}", roles: sensor, served: vendors, handle: s.postDahua, body: s.cfg.limits.message, answer: s.cfg.limits.messageAnswer},

		{pattern: "GET /v1/lists", roles: operator, served: desk, lists: true, handle: s.getLists},
		{pattern: "POST /v1/lists", roles: operator, served: desk, lists: true, handle: s.postList},
		{pattern: "GET /v1/lists/{list}", roles: operator, served: desk, lists: true, handle: s.getList},
		{pattern: "DELETE /v1/lists/{list}", roles: operator, served: desk, lists: true, handle: s.deleteList, answer: longAnswer},
		{pattern: "GET /v1/lists/{list}/entries", roles: operator, served: desk, lists: true, handle: s.getEntries},
		{pattern: "POST /v1/lists/{list}/entries", roles: operator, served: desk, lists: true, handle: s.postEntry},
		{pattern: "GET /v1/lists/{list}/entries/{entry}", roles: operator, served: desk, lists: true, handle: s.getEntry},
		{pattern: "DELETE /v1/lists/{list}/entries/{entry}", roles: operator, served: desk, lists: true, handle: s.deleteEntry},
		{pattern: "POST /v1/lists/{list}/import", roles: operator, served: desk, lists: true, handle: s.postImport, body: longAnswer, answer: longAnswer},

		{pattern: "GET /v1/sensors", roles: operator, served: registry, lists: true, handle: s.getSensors},
		{pattern: "POST /v1/sensors", roles: operator, served: registry, lists: true, handle: s.postSensor},
		{pattern: "GET /v1/sensors/{sensor}", roles: operator, served: registry, lists: true, handle: s.getSensor},
		{pattern: "DELETE /v1/sensors/{sensor}", roles: operator, served: registry, lists: true, handle: s.deleteSensor},
		{pattern: "POST /v1/sensors/import", roles: operator, served: registry, lists: true, handle: s.postSensorImport},
		{pattern: "GET /v1/sensors/health", roles: []Role{RoleOperator, RoleMonitor}, served: s.cfg.SensorHealth != nil, lists: true, handle: s.getSensorHealth},

		{pattern: "POST /v1/explain", roles: operator, served: desk, lists: true, handle: s.postExplain},

		{pattern: "GET /v1/alerts/stream", roles: patrol, served: alerts, lists: true, handle: s.getStream, stream: true},
		{pattern: "GET /v1/alerts/{alert}", roles: patrol, served: alerts, lists: true, handle: s.getAlert},
		{pattern: "POST /v1/alerts/{alert}/{verb}", roles: patrol, served: alerts, lists: true, handle: s.postStep},

		{pattern: "GET /v1/openapi.yaml", roles: anyone, served: true, handle: s.getOpenAPI},
		{pattern: "GET /livez", roles: anyone, served: true, handle: s.getLive},
		{pattern: "GET /readyz", roles: anyone, served: true, handle: s.getReady},
		{pattern: "GET /metrics", roles: watch, served: s.cfg.Metrics != nil, handle: plain(s.cfg.Metrics)},
		{pattern: "GET /{$}", roles: anyone, served: s.cfg.Console != nil, handle: plain(s.cfg.Console)},
		{pattern: "GET /console/{file}", roles: anyone, served: s.cfg.Console != nil, handle: plain(s.cfg.Console)},
	}
}

// plain makes a handler of one that knows nothing of tokens.
func plain(h http.Handler) handler {
	return func(w http.ResponseWriter, r *http.Request, _ *Token) error {
		h.ServeHTTP(w, r)
		return nil
	}
}

// serve is the way of every request: to its route, or to a problem that says
// why it has none.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")

	unmatched, pattern := s.mux.Handler(r)
	if pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	// The mux alone knows whether the address exists for another method.
	probe := probeWriter{header: make(http.Header)}
	unmatched.ServeHTTP(&probe, r)
	err := errNotFound
	if probe.status == http.StatusMethodNotAllowed {
		err = errMethod
		h.Set("Allow", probe.header.Get("Allow"))
	}
	s.other.add(writeProblem(w, err), 0)
}

// probeWriter keeps the status and header of an answer and drops its body.
type probeWriter struct {
	header http.Header
	status int
}

func (p *probeWriter) Header() http.Header         { return p.header }
func (p *probeWriter) Write(b []byte) (int, error) { return len(b), nil }
func (p *probeWriter) WriteHeader(status int)      { p.status = status }

// wrap is what every route has in common: deadlines, the token, the counters,
// and an answer whatever happens.
func (s *Server) wrap(rt *route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		sw := &statusWriter{ResponseWriter: w}
		defer func() {
			if v := recover(); v != nil {
				// The value may hold part of the request; its type and the
				// stack do not.
				s.cfg.Log.Error("handler panicked", zap.String("route", rt.pattern),
					zap.String("value_type", fmt.Sprintf("%T", v)), zap.ByteString("stack", debug.Stack()))
				s.fail(sw, r, rt, errPanic)
			}
			took := time.Since(start)
			if rt.stream {
				took = 0
			}
			rt.counters.add(sw.status, took)
		}()
		rc := http.NewResponseController(w)
		if rt.body != 0 {
			rc.SetReadDeadline(start.Add(rt.body)) //nolint:errcheck // without it the server's own limit holds
		}
		if rt.answer != 0 {
			rc.SetWriteDeadline(start.Add(rt.answer)) //nolint:errcheck // as above
		}
		if err := s.admit(rt, sw, r); err != nil {
			s.fail(sw, r, rt, err)
		}
	})
}

// admit checks the token and lets the route answer.
func (s *Server) admit(rt *route, w http.ResponseWriter, r *http.Request) error {
	var who *Token
	if rt.roles != nil {
		var err error
		if who, err = s.authenticate(rt, w, r); err != nil {
			if isFailedAuth(err) && !s.failures.allow(addressOf(r), time.Now()) {
				return errTooManyFailures
			}
			return err
		}
		if !rt.allows(who.Role) {
			return errForbidden
		}
	}
	if !rt.served {
		return errNotServed
	}
	if rt.lists && !s.cfg.Lists.CaughtUp() {
		return errCatchingUp
	}
	return rt.handle(w, r, who)
}

func (rt *route) allows(role Role) bool {
	return slices.Contains(rt.roles, role)
}

// fail answers with the problem of err, unless an answer has begun.
func (s *Server) fail(w *statusWriter, r *http.Request, rt *route, err error) {
	if w.status != 0 || clientGone(r, err) {
		return
	}
	for i, refusal := range refusals {
		if errors.Is(err, refusal) {
			s.refused[i].Add(1)
		}
	}
	if errors.Is(err, errNoToken) && rt.allows(RoleSensor) {
		// First, for cameras that look at the first alone and send no password unasked.
		w.Header().Set("WWW-Authenticate", `Basic realm="vigie"`)
	}
	if !errors.Is(err, errSlow) {
		// The server takes what is left of a body before it answers. Who is refused does not get long for it.
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(refusedBody)) //nolint:errcheck // the limit of the route holds
	}
	if status := writeProblem(w, err); status >= 500 && !errors.Is(err, errPanic) && !errors.Is(err, errStopping) && !errors.Is(err, errCatchingUp) && !errors.Is(err, errBusy) {
		s.cfg.Log.Warn("request failed", zap.String("route", rt.pattern), zap.Int("status", status), zap.Error(err))
	}
}

// refusedBody is how long the rest of a body is waited for that nobody will read.
const refusedBody = time.Second

// refusals are the errors that Stats counts.
var refusals = [...]error{
	errBadToken, errBadSignature, errStale, errReplayed, errNonces, errBadCert, errContradiction,
	errTooManyFailures, errTooManyRequests, errTooManyOfSensor, errTooMuch, errBusy,
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

//go:embed openapi.yaml
var openAPI []byte

func (s *Server) getOpenAPI(w http.ResponseWriter, _ *http.Request, _ *Token) error {
	w.Header().Set("Content-Type", "application/yaml")
	w.Write(openAPI) //nolint:errcheck // the client is gone
	return nil
}

// getLive says that the process runs. It asks nobody.
func (s *Server) getLive(w http.ResponseWriter, _ *http.Request, _ *Token) error {
	return writeJSON(w, http.StatusOK, map[string]bool{"live": true})
}

// getReady says whether the process does its work, and if not, why not; with
// ?verbose every check.
func (s *Server) getReady(w http.ResponseWriter, r *http.Request, _ *Token) error {
	health := s.cfg.Health(r.Context())
	if s.isStopping() {
		health.Ready = false
		health.Checks = append(health.Checks, Check{Name: "http", Detail: "the server is stopping"})
	}
	status := http.StatusOK
	if !health.Ready {
		status = http.StatusServiceUnavailable
	}
	if !r.URL.Query().Has("verbose") {
		var red []Check
		for _, c := range health.Checks {
			if !c.OK {
				red = append(red, c)
			}
		}
		health.Checks = red
	}
	return writeJSON(w, status, health)
}

// Stats is what the server has done since it started.
type Stats struct {
	Routes []RouteStats
	// Streams is the number of patrols connected now.
	Streams int64
	// SlowStreams is the number of streams cut because the patrol did not take
	// its messages in time.
	SlowStreams uint64
	// Withheld is the number of alerts that were not handed out because their
	// entry had been withdrawn.
	Withheld uint64
	// Refused counts requests by why they were refused: who they said they were, or how much
	// they sent.
	Refused []RefusalStats
}

// RefusalStats counts the requests that were refused for one reason.
type RefusalStats struct {
	Reason   string // last part of Problem.Type; one of a closed set
	Requests uint64
}

// RouteStats counts the answers of one route and one class of status.
type RouteStats struct {
	Route    string // pattern of the route; "other" for addresses that do not exist
	Class    string // 2xx, 3xx, 4xx, 5xx
	Requests uint64
	Seconds  float64 // sum of the time they took; 0 for streams
}

// Stats returns the counters of every route that was asked.
func (s *Server) Stats() Stats {
	st := Stats{
		Streams:     s.streams.open.Load(),
		SlowStreams: s.streams.slow.Load(),
		Withheld:    s.streams.withheld.Load(),
	}
	for i, refusal := range refusals {
		reason := strings.TrimPrefix(problemOf(refusal).Type, problemPrefix)
		st.Refused = append(st.Refused, RefusalStats{Reason: reason, Requests: s.refused[i].Load()})
	}
	for _, rt := range s.routes {
		st.Routes = rt.counters.appendTo(st.Routes, rt.pattern)
	}
	st.Routes = s.other.appendTo(st.Routes, "other")
	return st
}

type streamCounters struct {
	open           atomic.Int64
	slow, withheld atomic.Uint64
}

var classes = [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}

// counters are the answers of one route by class of status.
type counters [len(classes)]struct {
	requests    atomic.Uint64
	nanoseconds atomic.Int64
}

func (c *counters) add(status int, took time.Duration) {
	class := status/100 - 1
	if class < 0 || class >= len(classes) {
		return // the client went away before there was an answer
	}
	c[class].requests.Add(1)
	c[class].nanoseconds.Add(int64(took))
}

func (c *counters) appendTo(dst []RouteStats, route string) []RouteStats {
	for i := range c {
		if n := c[i].requests.Load(); n > 0 {
			seconds := time.Duration(c[i].nanoseconds.Load()).Seconds()
			dst = append(dst, RouteStats{Route: strings.TrimSuffix(route, "{$}"), Class: classes[i], Requests: n, Seconds: seconds})
		}
	}
	return dst
}
