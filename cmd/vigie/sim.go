package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"vigie/cmd/vigie/internal/httpapi"
	"vigie/sensors/sim/publish"
	"vigie/sensors/sim/wire"
)

func newSimCmd() *cobra.Command {
	to := os.Getenv("VIGIE_SERVER")
	if to == "" {
		to = "http://127.0.0.1:8080"
	}
	s := &simulation{drain: 30 * time.Second}
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Be a fleet of cameras of many vendors that speak to a gateway, with the faults of real ones",
		Long: `Be a fleet of cameras beside French motorways that speak to a gateway as those of
their vendors do: in their formats, with as many messages for a vehicle as they send,
and with wrong reads. On request their clocks are wrong, their links go away and come
back, and messages come twice.

NOT ON A SYSTEM THAT IS AT WORK. The plates are invented, but each may be somebody's,
and may raise an alert.

--to http:// or https:// is a gateway: messages go to /v1/ingest/{format}, those of
the format native to /v1/reads, with a sensor's token that is bound to no sensor in
VIGIE_TOKEN or --token-file. --to mqtt:// or mqtts:// is a broker; --user is the name,
and the token the password. ONVIF messages are published to {sensor}/onvif-ej/...,
those of Frigate to frigate/..., others to vigie/{format}/{sensor}, which a gateway
takes when its gateway.mqtt.topics have vigie/#.

A device sends one message after the other. What a gateway does not take for now (503,
429, no answer) it sends again after Retry-After, and the next ones wait. Messages of
an outage wait too, and are sent afterwards, marked as retransmitted by the vendors who
do so. The same seed makes the same vehicles, reads and faults. --rate is reached after
some seconds, since some vendors speak of a vehicle only then.

Exit codes: 0 done; 1 nobody was reached, the token is wrong, or it was stopped; 2 it
was done, but some messages or reads were refused.`,
		Example: `  vigie sim --format axis --rate 50 --duration 10s --token-file sensor.token
  vigie sim --to mqtt://127.0.0.1:1883 --format onvif,frigate --misreads 0.1
  vigie sim --sensors 200 --rate 2000 --outage 0.02 --skew 0.1 --retransmit 0.01 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.prepare(); err != nil {
				return err
			}
			return s.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&s.formats, "format", []string{"all"}, "formats that the devices take turns in: all, or of "+strings.Join(wire.Formats(), ", "))
	f.StringVar(&s.to, "to", to, "gateway (or VIGIE_SERVER) or broker; `url`")
	f.StringVar(&s.tokenFile, "token-file", "", "file that holds the sensor's token, or the password of the broker (or either itself in VIGIE_TOKEN); `file`")
	f.StringVar(&s.user, "user", "", "user at the broker")
	f.IntVar(&s.plan.Sensors, "sensors", 20, "devices")
	f.Float64Var(&s.plan.Rate, "rate", 100, "messages about vehicles per second, of all devices together")
	f.DurationVar(&s.duration, "duration", time.Minute, "how long to send")
	f.Uint64Var(&s.plan.Seed, "seed", 1, "seed of vehicles, reads and faults")
	f.Float64Var(&s.plan.Misreads, "misreads", 0.05, "share of wrong reads, 0 to 0.4")
	f.Float64Var(&s.plan.Outage, "outage", 0, "share of the time, 0 to 0.9, for which the link of a device is away")
	f.Float64Var(&s.plan.Skew, "skew", 0, "share of devices, 0 to 1, whose clock is wrong, by up to 90 s")
	f.Float64Var(&s.plan.Retransmit, "retransmit", 0, "share of messages, 0 to 1, that are sent twice")
	f.DurationVar(&s.plan.Late, "late", 0, "send what was kept of an outage that long ago; 1h when no time is given")
	f.Lookup("late").NoOptDefVal = "1h"
	f.DurationVar(&s.patience, "timeout", 15*time.Second, "how long an answer may take until the message is sent again")
	outputFlag(cmd, &s.output)
	return cmd
}

// simulation is one run of the command.
type simulation struct {
	formats   []string
	to        string
	tokenFile string
	user      string
	output    string
	plan      wire.Config
	duration  time.Duration
	patience  time.Duration
	drain     time.Duration // for messages that have no answer when the plan is over

	url     *url.URL
	token   string
	carrier carrier
	traffic *wire.Traffic
	start   time.Time // when the first message may be sent

	mu  sync.Mutex // guards what follows
	sum simSummary
	lat latencies
}

// carrier brings messages to a gateway.
type carrier interface {
	// send sends a message once. An error means that sending on is of no use.
	send(ctx context.Context, m *wire.Message) (reply, error)
}

// reply is what became of one try to send a message.
type reply struct {
	// again is after how long the message must be sent again; 0 when this was the last try.
	again  time.Duration
	silent bool // there was no answer
	// refused says that the message as a whole was not taken and never will be.
	refused bool
	counts  simCounts // of a message that was taken
}

// simCounts are reads as a gateway counts them.
type simCounts struct {
	Accepted    int64 `json:"accepted"`
	Rejected    int64 `json:"rejected"`
	Suppressed  int64 `json:"suppressed"` // told nothing new
	Quarantined int64 `json:"quarantined"`
}

// simSummary is what a simulation has done.
type simSummary struct {
	To       string   `json:"to"`
	Formats  []string `json:"formats"`
	Sensors  int      `json:"sensors"`
	Seed     uint64   `json:"seed"`
	Stopped  bool     `json:"stopped"`  // before the end of the plan
	Messages int64    `json:"messages"` // due within the duration
	Passages int64    `json:"passages"` // of which these messages were the first to tell
	Reads    int64    `json:"reads"`    // in answered messages
	simCounts
	Heartbeats int64 `json:"heartbeats"` // answered messages that tell of no vehicle, and of no passage
	Answered   int64 `json:"answered"`   // messages
	Refused    int64 `json:"refused"`    // answered messages that cannot be read there
	Unanswered int64 `json:"unanswered"` // messages that were given up
	Dropped    int64 `json:"dropped"`    // messages for which a device that waits had no room
	Kept       int64 `json:"kept"`       // messages in devices whose link was away at the end
	Repeated   int64 `json:"repeated"`   // messages sent twice on purpose
	Late       int64 `json:"late"`       // messages sent after an outage
	// Retries are tries that were put off, by 503, 429 and the like; Errors those without an answer.
	Retries     int64   `json:"retries"`
	Errors      int64   `json:"errors"`
	Rate        float64 `json:"rate"`          // asked for
	Achieved    float64 `json:"achieved_rate"` // messages per second
	Behind      int64   `json:"behind"`        // messages handed to their device later than they were due
	MaxBehindMS float64 `json:"max_behind_ms"`
	AnswerMS    struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
	} `json:"answer_ms"` // of tries that were answered
}

// prepare checks the flags and reads the token.
func (s *simulation) prepare() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	s.plan.Formats = s.formats
	if slices.Equal(s.formats, []string{"all"}) {
		s.plan.Formats = nil
	}
	for _, name := range s.plan.Formats {
		if !slices.Contains(wire.Formats(), name) {
			bad("--format: must be all, or of %s", strings.Join(wire.Formats(), ", "))
			break
		}
	}
	var err error
	if s.url, err = url.Parse(s.to); err != nil || s.url.Host == "" || !slices.Contains([]string{"http", "https", "mqtt", "mqtts"}, s.url.Scheme) {
		bad("--to: must be http://, https://, mqtt:// or mqtts:// and a host")
		return errors.Join(errs...)
	}
	if s.url.User != nil {
		bad("--to: must not hold a user or a password, which would be seen in the list of processes: use --user and --token-file")
	}
	s.plan.MQTT = strings.HasPrefix(s.url.Scheme, "mqtt")
	if s.plan.MQTT && slices.Contains(s.plan.Formats, wire.Native) {
		bad("--format: %s does not go through a broker", wire.Native)
	}
	if s.user != "" && !s.plan.MQTT {
		bad("--user: is for a broker only")
	}
	if s.duration <= 0 {
		bad("--duration: must be more than 0")
	}
	if s.patience <= 0 {
		bad("--timeout: must be more than 0")
	}
	if s.plan.Rate <= 0 {
		bad("--rate: must be more than 0")
	}
	if s.plan.Sensors <= 0 {
		bad("--sensors: must be more than 0")
	}
	s.token = os.Getenv("VIGIE_TOKEN")
	if s.tokenFile != "" {
		b, err := os.ReadFile(s.tokenFile)
		if err != nil {
			bad("--token-file: %w", err)
		}
		s.token = string(b)
	}
	if s.token = strings.TrimSpace(s.token); s.token == "" && !s.plan.MQTT {
		bad("no token: put a sensor's token that is bound to no sensor into VIGIE_TOKEN, or into a file named by --token-file")
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	s.plan.Start = time.Now().Truncate(time.Millisecond)
	s.traffic, err = wire.New(s.plan)
	if text, ok := strings.CutPrefix(fmt.Sprint(err), "wire: Config."); ok {
		name, rest, _ := strings.Cut(text, " ")
		return fmt.Errorf("--%s: %s", strings.ToLower(name), rest)
	}
	return err
}

func (s *simulation) run(cmd *cobra.Command) error {
	if !s.plan.MQTT && s.url.Scheme == "http" && !isLoopback(s.url.Hostname()) {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: the token travels to %s in clear; https protects it\n", s.url.Host)
	}
	done, err := s.connect(cmd.Context())
	if err != nil {
		return err
	}
	defer done()
	fmt.Fprintf(cmd.ErrOrStderr(), "%d sensors send %g messages/s for %v to %s\n", s.plan.Sensors, s.plan.Rate, s.duration, s.to)
	watching, stop := context.WithCancel(cmd.Context())
	var watcher sync.WaitGroup
	watcher.Go(func() { s.progress(watching, cmd.ErrOrStderr()) })
	err = s.perform(cmd.Context())
	stop()
	watcher.Wait()

	sum := s.summary(err != nil)
	if errors.Is(err, context.Canceled) {
		err = errors.New("stopped before the end of the plan")
	}
	if sum.Answered == 0 && err != nil {
		return err
	}
	if printErr := print(cmd, s.output, sum, func() { sum.write(cmd.OutOrStdout()) }); printErr != nil {
		return errors.Join(err, printErr)
	}
	switch {
	case err != nil:
		return err
	case sum.Answered == 0:
		return errors.New("not one message was answered")
	case sum.Refused > 0 || sum.Rejected > 0:
		return refused(fmt.Errorf("%d messages were refused and %d reads rejected", sum.Refused, sum.Rejected))
	}
	return nil
}

// connect makes the carrier, once somebody listens there.
func (s *simulation) connect(ctx context.Context) (done func(), err error) {
	if s.plan.MQTT {
		b, err := publish.Connect(ctx, s.url, s.user, s.token)
		if err != nil {
			return nil, fmt.Errorf("cannot connect to %s (%w); is the broker running, and are --to, --user and the password right?", s.to, err)
		}
		s.carrier = brokerCarrier{b}
		return b.Close, nil
	}
	port := cmp.Or(s.url.Port(), s.url.Scheme)
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(s.url.Hostname(), port))
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, fmt.Errorf("cannot reach %s (%w); is the gateway running, and is --to right?", s.to, err)
	}
	conn.Close()
	g := newGatewayCarrier(s.to, s.token, s.plan.Sensors)
	s.carrier = g
	return g.http.CloseIdleConnections, nil
}

// roomForAll is how many messages all devices together hold while they wait for answers.
const roomForAll = 1 << 16

// perform carries out the plan.
func (s *simulation) perform(ctx context.Context) error {
	// What was sent is answered also when the plan is over or stopped, within limits.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, sending := errgroup.WithContext(life)
	devices := make(map[string]chan wire.Message)
	room := max(16, roomForAll/s.plan.Sensors)
	s.start = time.Now()
	err := s.pace(ctx, sending, func(m wire.Message) bool {
		ch := devices[m.Sensor]
		if ch == nil {
			ch = make(chan wire.Message, room)
			devices[m.Sensor] = ch
			g.Go(func() error { return s.device(sending, ch) })
		}
		select {
		case ch <- m:
			return true
		default:
			return false
		}
	})
	for _, ch := range devices {
		close(ch)
	}
	patience := time.AfterFunc(s.drain, end)
	defer patience.Stop()
	if ctx.Err() != nil {
		patience.Reset(min(s.drain, 2*time.Second))
	}
	if failed := g.Wait(); failed != nil {
		return failed
	}
	return err
}

// pace hands every message of the plan to its device when it is due, however slow the answers are.
// It ends with an error when ctx does, and without one when sending does.
func (s *simulation) pace(ctx, sending context.Context, hand func(m wire.Message) bool) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		m := s.traffic.Next()
		due := m.Due.Sub(s.plan.Start)
		if due >= s.duration {
			return nil
		}
		if wait := due - time.Since(s.start); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
			case <-sending.Done():
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case sending.Err() != nil:
			return nil // the device that ended it says why
		}
		behind := time.Since(s.start) - due
		taken := hand(m)
		s.mu.Lock()
		s.sum.Messages++
		s.sum.Passages += one(m.First)
		s.sum.Repeated += one(m.Again)
		s.sum.Late += one(m.Late)
		s.sum.Dropped += one(!taken)
		if behind > behindAfter {
			s.sum.Behind++
		}
		s.sum.MaxBehindMS = max(s.sum.MaxBehindMS, milliseconds(behind))
		s.mu.Unlock()
	}
}

func one(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// device sends the messages of one device, one after the other. When ctx ends, those that are left
// are given up.
func (s *simulation) device(ctx context.Context, messages <-chan wire.Message) error {
	for m := range messages {
		if err := s.deliver(ctx, &m); err != nil {
			return err
		}
	}
	return nil
}

// deliver sends a message until it is answered for good or ctx ends.
func (s *simulation) deliver(ctx context.Context, m *wire.Message) error {
	for ctx.Err() == nil {
		began := time.Now()
		trying, cancel := context.WithTimeout(ctx, s.patience)
		r, err := s.carrier.send(trying, m)
		cancel()
		if err != nil {
			return err
		}
		if r.silent && ctx.Err() != nil {
			break
		}
		s.note(m, &r, time.Since(began))
		if r.again == 0 {
			return nil
		}
		t := time.NewTimer(r.again)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum.Unanswered++
	return nil
}

// note counts one try.
func (s *simulation) note(m *wire.Message, r *reply, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.silent {
		s.sum.Errors++
		return
	}
	s.lat.add(took)
	switch {
	case r.again > 0:
		s.sum.Retries++
		return
	case r.refused:
		s.sum.Refused++
	case m.Passage == "":
		s.sum.Heartbeats++
	}
	s.sum.Answered++
	s.sum.Reads += one(m.Read != nil)
	s.sum.Accepted += r.counts.Accepted
	s.sum.Rejected += r.counts.Rejected
	s.sum.Suppressed += r.counts.Suppressed
	s.sum.Quarantined += r.counts.Quarantined
}

// progress tells now and then how things stand.
func (s *simulation) progress(ctx context.Context, w io.Writer) {
	tick := time.NewTicker(max(time.Second, s.duration/30))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.mu.Lock()
			sum := s.sum
			s.mu.Unlock()
			fmt.Fprintf(w, "%4.0f s: %d messages of %d vehicles, %d answered; %d reads accepted, %d suppressed, %d rejected; %d retries, %d errors, %d behind\n",
				time.Since(s.start).Seconds(), sum.Messages, sum.Passages, sum.Answered, sum.Accepted, sum.Suppressed, sum.Rejected, sum.Retries, sum.Errors, sum.Behind)
		}
	}
}

func (s *simulation) summary(stopped bool) *simSummary {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.sum
	sum.To, sum.Formats, sum.Sensors, sum.Seed, sum.Rate, sum.Stopped = s.to, s.formats, s.plan.Sensors, s.plan.Seed, s.plan.Rate, stopped
	sum.Kept = int64(s.traffic.Kept())
	took := s.duration
	if stopped {
		took = max(time.Since(s.start), time.Millisecond)
	}
	sum.Achieved = math.Round(10*float64(sum.Messages)/took.Seconds()) / 10
	sum.AnswerMS.P50, sum.AnswerMS.P99 = s.lat.quantile(0.5), s.lat.quantile(0.99)
	return &sum
}

func (s *simSummary) write(w io.Writer) {
	fmt.Fprintf(w, "%d messages of %d vehicles: %d answered, %d refused, %d unanswered, %d dropped, %d kept\n",
		s.Messages, s.Passages, s.Answered, s.Refused, s.Unanswered, s.Dropped, s.Kept)
	if strings.HasPrefix(s.To, "mqtt") {
		fmt.Fprintf(w, "%d reads and %d heartbeats published; what became of them the gateway knows\n", s.Reads, s.Heartbeats)
	} else {
		fmt.Fprintf(w, "%d reads: %d accepted, %d suppressed, %d quarantined, %d rejected; %d heartbeats\n",
			s.Reads, s.Accepted, s.Suppressed, s.Quarantined, s.Rejected, s.Heartbeats)
	}
	fmt.Fprintf(w, "%d retries, %d errors; %d messages sent twice, %d late\n", s.Retries, s.Errors, s.Repeated, s.Late)
	fmt.Fprintf(w, "%.1f messages/s of %g asked for, %d behind, by %.1f ms at most; answers p50 %.1f ms, p99 %.1f ms\n",
		s.Achieved, s.Rate, s.Behind, s.MaxBehindMS, s.AnswerMS.P50, s.AnswerMS.P99)
}

// latencies counts durations in classes that are 2 % apart, from 10 us to 5 minutes.
type latencies struct {
	n     [900]int64
	total int64
}

const (
	shortest = 10 * time.Microsecond
	apart    = 1.02
)

func (l *latencies) add(d time.Duration) {
	i := int(math.Log(max(float64(d)/float64(shortest), 1)) / math.Log(apart))
	l.n[min(i, len(l.n)-1)]++
	l.total++
}

// quantile returns milliseconds, 0 when there is nothing.
func (l *latencies) quantile(q float64) float64 {
	rank, seen := int64(math.Ceil(q*float64(l.total))), int64(0)
	for i, n := range l.n {
		if seen += n; n > 0 && seen >= rank {
			v := float64(shortest) * math.Pow(apart, float64(i)+0.5)
			return milliseconds(time.Duration(v))
		}
	}
	return 0
}

// gatewayCarrier posts messages to a gateway.
type gatewayCarrier struct {
	to, token string
	http      *http.Client
}

func newGatewayCarrier(to, token string, sensors int) *gatewayCarrier {
	return &gatewayCarrier{to: strings.TrimSuffix(to, "/"), token: token, http: &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: sensors, IdleConnTimeout: 30 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Waits before a message is sent again.
const (
	againUsual = time.Second // when nothing is said
	againMost  = 30 * time.Second
)

func (g *gatewayCarrier) send(ctx context.Context, m *wire.Message) (reply, error) {
	silent := reply{silent: true, again: againUsual}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.to+m.Path, bytes.NewReader(m.Body))
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Authorization", "Bearer "+g.token)
	req.Header.Set("Content-Type", m.ContentType)
	res, err := g.http.Do(req)
	if err != nil {
		return silent, nil
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return silent, nil
	}
	switch code := res.StatusCode; {
	case code == http.StatusOK, code == http.StatusAccepted:
		var told struct {
			Accepted, Suppressed, Quarantined int64
			Rejected                          []struct{ Index int }
		}
		if json.Unmarshal(answer, &told) != nil || told.Rejected == nil {
			return reply{}, fmt.Errorf("%s answered with something else than Vigie does; check --to", g.to)
		}
		c := simCounts{Accepted: told.Accepted, Suppressed: told.Suppressed, Quarantined: told.Quarantined, Rejected: int64(len(told.Rejected))}
		if m.Format == wire.Native { // there the accepted ones include them
			c.Accepted -= c.Quarantined
		}
		return reply{counts: c}, nil
	case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusNotFound, code < 400:
		var p httpapi.Problem
		if json.Unmarshal(answer, &p) == nil && p.Title != "" {
			return reply{}, fmt.Errorf("%s: %w", g.to, &apiError{p})
		}
		return reply{}, fmt.Errorf("%s answered %s, which Vigie does not; check --to", g.to, res.Status)
	case code == http.StatusUnprocessableEntity:
		return reply{counts: simCounts{Rejected: 1}}, nil
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
		return reply{again: retryAfter(res.Header)}, nil
	default:
		return reply{refused: true}, nil
	}
}

// retryAfter is how long a gateway asks to wait.
func retryAfter(h http.Header) time.Duration {
	if seconds, err := strconv.Atoi(h.Get("Retry-After")); err == nil && seconds > 0 {
		return min(time.Duration(seconds)*time.Second, againMost)
	}
	return againUsual
}

// brokerCarrier publishes messages, those of all devices over one connection. That a message is
// taken says that the broker has it: what becomes of its read the gateway alone knows.
type brokerCarrier struct{ *publish.Broker }

func (b brokerCarrier) send(ctx context.Context, m *wire.Message) (reply, error) {
	switch err := b.Publish(ctx, m.Topic, m.ContentType, m.Body); {
	case errors.Is(err, publish.ErrRefused):
		return reply{refused: true}, nil
	case err != nil:
		return reply{silent: true, again: againUsual}, nil
	}
	return reply{}, nil
}
