package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"vigie/cmd/vigie/internal/app"
	"vigie/cmd/vigie/internal/config"
	"vigie/cmd/vigie/internal/httpapi"
	"vigie/sensors"
	"vigie/stream/kafka"
	"vigie/stream/ledger"
	"vigie/watchlist"
)

func newLoadCmd() *cobra.Command {
	var s settings
	c := new(client)
	l := &load{client: c}
	var sensorToken string
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Send invented reads and list changes at a steady rate, and keep a ledger for load check",
		Long: `Send invented reads at a steady rate while entries are added to a list and
withdrawn from it, and write down in a ledger what was sent and what became of it.
"vigie load check" then says whether the service lost, repeated or made up an alert.

NOT ON A SYSTEM THAT IS AT WORK. The plates are invented, but each may be somebody's:
on other lists they may raise alerts, and alerts of --list go to its queue. The list
must have no entries of its own; one that does not exist is created, with tolerance
exact and the queue "load", and afterwards "vigie lists drop" removes it.

THE LEDGER HOLDS PLATES IN CLEAR, or it could not be checked. It is made with mode
0600 and never overwrites a file. Remove it when you are done.

Reads go out when they are due (read n at n/rate), however slow the answers are.
Those sent later than they were due are counted as behind: then this machine or the
gateway, not the ledger, was too slow. A read is acknowledged (202, or Kafka's ack),
failed (refused, or nobody listened) or unknown (no answer, or 5xx); unknown ones
may alert or not. Changes are made as by "vigie entries", with the operator's token
in VIGIE_TOKEN or --token-file. With kafka.brokers in the configuration the
committed offsets of kafka.group are sampled too.

Exit codes: 0 the plan was carried out to its end, whatever became of the reads;
1 it was not, or not one read was acknowledged. What was sent is in the ledger
either way, also after Ctrl-C and kill -9.`,
		Example: `  vigie load --list load --rate 500 --duration 30s --changes-per-second 5 \
      --sensor-token-file sensor.token --token-file operator.token --ledger load.jsonl
  vigie load check --ledger load.jsonl --config vigie.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(nil)
			if err != nil {
				return err
			}
			if l.plan.Run == "" {
				l.plan.Run = newRun()
			}
			if err := l.prepare(&cfg, sensorToken); err != nil {
				return err
			}
			return l.run(cmd, &cfg)
		},
	}
	s.register(cmd)
	c.register(cmd)
	f := cmd.Flags()
	f.StringVar(&l.list, "list", "", "list whose entries are added and withdrawn; mandatory")
	f.StringVar(&l.path, "ledger", "", "file to write the ledger to; mandatory, and must not exist; `file`")
	f.StringVar(&l.via, "via", "gateway", "where reads go: gateway (POST /v1/reads) or kafka (the reads topic)")
	f.StringVar(&sensorToken, "sensor-token-file", "", "file that holds a sensor's token, for --via gateway; `file`")
	f.Float64Var(&l.plan.Rate, "rate", 500, "reads per second")
	f.DurationVar(&l.plan.Duration, "duration", 30*time.Second, "how long to send")
	f.Float64Var(&l.plan.WantedShare, "wanted-share", 0.01, "share of reads, 0 to 1, of plates that are on the list at some time")
	f.Float64Var(&l.plan.MisreadShare, "misread-share", 0, "share of reads, 0 to 1, with a character taken for its look-alike")
	f.Float64Var(&l.plan.Changes, "changes-per-second", 1, "entries added or withdrawn per second; 0 for none")
	f.IntVar(&l.plan.Entries, "entries", 100, "entries on the list when the reads begin; as many plates more are added in time")
	f.IntVar(&l.plan.Sensors, "sensors", 50, "sensors that the reads come from")
	f.Uint64Var(&l.plan.Seed, "seed", 1, "seed of plates, reads and changes")
	f.DurationVar(&l.every, "every", 5*time.Millisecond, "reads that became due within this time share a request")
	f.IntVar(&l.flight, "in-flight", 64, "requests that may wait for their answers at a time")
	f.DurationVar(&l.patience, "timeout", 15*time.Second, "how long an answer may take until a read is unknown")
	cmd.AddCommand(newLoadCheckCmd(c))
	return cmd
}

// load is one run of the command.
type load struct {
	client   *client
	list     string
	path     string
	via      string
	plan     ledger.Plan
	every    time.Duration
	flight   int
	patience time.Duration

	token  string // of the sensor
	began  time.Time
	file   *ledger.Writer
	sender sender
	quiet  *cobra.Command // for calls that say nothing on the terminal

	start                 time.Time // when read 0 is due
	sent, ok, fail        atomic.Int64
	unknown, behind       atomic.Int64
	worst                 atomic.Int64 // nanoseconds behind
	took                  atomic.Int64 // nanoseconds until the last read was sent
	skipped               atomic.Int64 // changes
	changes, changeOK     atomic.Int64
	changeFail, changeUnk atomic.Int64
}

// sender hands reads to the service.
type sender interface {
	// send says what became of the reads: result, except of those at the indexes
	// rejected, which have failed. An error means that sending on is of no use.
	send(ctx context.Context, reads []sensors.Read) (result ledger.Result, rejected []int, err error)
}

// maxSent bounds the reads of one request.
const maxSent = 1000

// behindAfter is from when on a read counts as late, beyond load.every.
const behindAfter = 50 * time.Millisecond

// newRun is the beginning of the ids of a run that no other run has.
func newRun() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails
	return "load-" + hex.EncodeToString(b[:])
}

// prepare checks the flags before anything is done.
func (l *load) prepare(cfg *config.Config, sensorToken string) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := ledger.NewGenerator(l.plan); err != nil {
		errs = append(errs, planError(err))
	}
	switch {
	case l.list == "":
		bad("--list: is required; name a list that may be filled and emptied, such as load")
	case !watchlist.ValidID(l.list):
		bad("--list: must be 1 to %d of a-z 0-9 - _", watchlist.MaxIDBytes)
	}
	if l.path == "" {
		bad("--ledger: is required; name the file to write")
	}
	if l.every <= 0 || l.every > time.Second {
		bad("--every: must be more than 0 and at most 1s")
	}
	if l.flight < 1 || l.flight > 10_000 {
		bad("--in-flight: must be 1 to 10000")
	}
	if l.patience <= 0 {
		bad("--timeout: must be more than 0")
	}
	switch l.via {
	case "gateway":
		if sensorToken == "" {
			bad("--sensor-token-file: is required with --via gateway; it holds a token of role sensor that is bound to no sensor")
			break
		}
		b, err := os.ReadFile(sensorToken)
		if err != nil {
			bad("--sensor-token-file: %w", err)
		} else if l.token = strings.TrimSpace(string(b)); l.token == "" {
			bad("--sensor-token-file: is empty")
		}
	case "kafka":
		if len(cfg.Kafka.Brokers) == 0 {
			bad("--via kafka: kafka.brokers is empty: name the brokers in the file, or set VIGIE_KAFKA_BROKERS")
		}
	default:
		bad("--via: must be gateway or kafka")
	}
	if _, err := l.client.token(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// planError says which flag is at fault.
func planError(err error) error {
	text, ok := strings.CutPrefix(err.Error(), "ledger: Plan.")
	field, rest, ok2 := strings.Cut(text, " ")
	flag := map[string]string{
		"Rate": "rate", "Duration": "duration", "WantedShare": "wanted-share", "MisreadShare": "misread-share",
		"Changes": "changes-per-second", "Entries": "entries", "Sensors": "sensors",
	}[field]
	if !ok || !ok2 || flag == "" {
		return err
	}
	return fmt.Errorf("--%s: %s", flag, rest)
}

// clock is microseconds since the Unix epoch that never run backwards.
func (l *load) clock() int64 { return l.began.Add(time.Since(l.began)).UnixMicro() }

func (l *load) run(cmd *cobra.Command, cfg *config.Config) error {
	view, err := l.ownList(cmd)
	if err != nil {
		return err
	}
	l.quiet = &cobra.Command{}
	l.quiet.SetOut(io.Discard)
	l.quiet.SetErr(io.Discard)

	var cluster *kafka.Cluster
	if len(cfg.Kafka.Brokers) > 0 {
		if cluster, err = app.Cluster(cfg, zap.NewNop()); err != nil {
			return err
		}
		defer cluster.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), 15*time.Second)
		err := app.Reach(ctx, cluster)
		cancel()
		if err != nil {
			return err
		}
	}
	if l.via == "kafka" {
		l.sender = kafkaSender{cluster.Reads()}
	} else {
		l.sender = newGatewaySender(l.client.server, l.token, l.flight)
	}

	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("--ledger: %w", err)
	}
	defer file.Close()
	l.began = time.Now()
	l.file, err = ledger.NewWriter(file, ledger.Header{
		Start: l.began.UnixMicro(), List: l.list, Queue: queueName(view.Queue),
		Tolerance: view.Tolerance.String(), Via: l.via, Plan: l.plan,
	})
	if err != nil {
		return err
	}
	err = l.perform(cmd, cluster, cfg.Kafka.Group)
	if err == nil {
		err = l.file.Append(ledger.Record{End: &ledger.End{At: l.clock()}})
	}
	err = errors.Join(err, l.file.Flush(), file.Sync())
	if l.sent.Load() == 0 && err != nil {
		return err
	}
	sum := l.summary(err != nil)
	if printErr := print(cmd, l.client.output, sum, func() { sum.write(cmd.OutOrStdout()) }); printErr != nil {
		return errors.Join(err, printErr)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("stopped before the end of the plan; the ledger holds what was sent")
	case err != nil:
		return err
	case sum.Reads.OK == 0:
		return errors.New("not one read was acknowledged")
	}
	return nil
}

// ownList is the list, created when it is missing, and refused when it is somebody's.
func (l *load) ownList(cmd *cobra.Command) (*httpapi.ListView, error) {
	quiet := *l.client
	quiet.output = "table" // a list that is not there is no result
	var view httpapi.ListView
	err := quiet.get(cmd, listPath(l.list), &view)
	var api *apiError
	if errors.As(err, &api) && api.Type == "urn:vigie:problem:no-list" {
		err = quiet.post(cmd, "/v1/lists", watchlist.List{
			ID: l.list, Name: "Essai de charge (vigie load)", Owner: "vigie load", LegalBasis: "essai technique, plaques inventées",
			Tolerance: watchlist.ToleranceExact, Queue: "load", DefaultAction: watchlist.ActionInform, DefaultPriority: watchlist.PriorityInfo,
		}, &view)
		if err == nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "created the list %s, whose alerts go to the queue %s\n", l.list, view.Queue)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case view.Entries > 0:
		return nil, fmt.Errorf("the list %s has %d entries; vigie load needs a list of its own: name another, or `vigie lists drop %s` if it is left from an earlier load", l.list, view.Entries, l.list)
	case len(view.Sensors) > 0 || len(view.Zones) > 0:
		return nil, fmt.Errorf("the list %s is limited to sensors or zones; vigie load needs one that is not", l.list)
	}
	return &view, nil
}

// perform fills the list and then carries out the plan.
func (l *load) perform(cmd *cobra.Command, cluster *kafka.Cluster, group string) error {
	ctx := cmd.Context()
	reads, err := ledger.NewGenerator(l.plan)
	if err != nil {
		return err
	}
	plates, err := ledger.NewGenerator(l.plan)
	if err != nil {
		return err
	}
	l.quiet.SetContext(ctx)
	ch := &changer{load: l, wanted: plates.Wanted(), entries: map[int]string{}, lost: map[int]bool{}, validFrom: l.began.Add(-time.Hour), validUntil: l.began.AddDate(0, 0, 30)}
	for i := range l.plan.Entries {
		if result, err := ch.change(i); err != nil || result != ledger.OK {
			return fmt.Errorf("fill the list %s: entry %d of %d: %w", l.list, i+1, l.plan.Entries, errors.Join(err, ch.why))
		}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%d entries on the list %s; sending %g reads/s for %v through %s, run %s\n",
		l.plan.Entries, l.list, l.plan.Rate, l.plan.Duration, l.via, l.plan.Run)

	l.start = time.Now()
	g, gctx := errgroup.WithContext(ctx)
	watching, stop := context.WithCancel(gctx)
	defer stop()
	var watchers sync.WaitGroup
	watchers.Go(func() { l.progress(watching, cmd.ErrOrStderr()) })
	if cluster != nil {
		watchers.Go(func() { l.sampleOffsets(watching, cluster, group, cmd.ErrOrStderr()) })
	}
	g.Go(func() error { return l.pace(gctx, reads) })
	if l.plan.Changes > 0 {
		g.Go(func() error { return ch.run(gctx, plates) })
	}
	err = g.Wait()
	stop()
	watchers.Wait()
	return err
}

// pace sends every read when it is due. It keeps to the schedule and not to the
// answers: what a slow answer delays is sent at once after it, and counted.
func (l *load) pace(ctx context.Context, reads *ledger.Generator) error {
	tick := time.NewTicker(l.every)
	defer tick.Stop()
	slots := make(chan struct{}, l.flight)
	g, sending := errgroup.WithContext(ctx)
	next, more := reads.Next()
	due := func() bool { return more && l.plan.Due(next.N) <= time.Since(l.start) }
	for more && sending.Err() == nil {
		select {
		case <-sending.Done():
			continue
		case <-tick.C:
		}
		for due() {
			select {
			case slots <- struct{}{}:
			case <-sending.Done():
			}
			if sending.Err() != nil {
				break
			}
			var batch []ledger.Read
			for due() && len(batch) < maxSent {
				next.TS = l.start.Add(l.plan.Due(next.N)).UnixMilli()
				batch = append(batch, next)
				next, more = reads.Next()
			}
			g.Go(func() error {
				defer func() { <-slots }()
				return l.send(ctx, batch)
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// send writes a batch down, sends it, and writes down what became of it.
func (l *load) send(ctx context.Context, batch []ledger.Read) error {
	late := time.Since(l.start)
	sent := l.clock()
	records := make([]ledger.Record, len(batch))
	out := make([]sensors.Read, len(batch))
	for i := range batch {
		r := &batch[i]
		r.Sent = sent
		records[i].Read = r
		out[i] = sensors.Read{ID: r.ID, Sensor: r.Sensor, Plate: r.Plate, Country: r.Country, TS: r.TS, Conf: 0.95}
		if d := late - l.plan.Due(r.N); d > l.every+behindAfter {
			l.behind.Add(1)
			atLeast(&l.worst, int64(d))
		}
	}
	if err := errors.Join(l.file.Append(records...), l.file.Flush()); err != nil {
		return err
	}
	l.sent.Add(int64(len(batch)))
	atLeast(&l.took, int64(late))
	// A stop lets the batch in hand be answered.
	sending, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.patience)
	result, rejected, useless := l.sender.send(sending, out)
	cancel()

	at := l.clock()
	failed := make([]bool, len(batch))
	for _, i := range rejected {
		failed[i] = true
	}
	records = records[:0]
	for i := 0; i < len(batch); {
		end := i + 1
		for end < len(batch) && failed[end] == failed[i] {
			end++
		}
		o := &ledger.Outcome{First: batch[i].N, Count: int64(end - i), Result: result, At: at}
		if failed[i] {
			o.Result = ledger.Fail
		}
		switch o.Result {
		case ledger.OK:
			l.ok.Add(o.Count)
		case ledger.Fail:
			l.fail.Add(o.Count)
		default:
			l.unknown.Add(o.Count)
		}
		records = append(records, ledger.Record{Outcome: o})
		i = end
	}
	if err := l.file.Append(records...); err != nil {
		return err
	}
	return useless
}

// atLeast raises v to n.
func atLeast(v *atomic.Int64, n int64) {
	for old := v.Load(); n > old && !v.CompareAndSwap(old, n); old = v.Load() {
	}
}

// progress tells now and then how things stand.
func (l *load) progress(ctx context.Context, w io.Writer) {
	tick := time.NewTicker(max(time.Second, l.plan.Duration/30))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			fmt.Fprintf(w, "%4.0f s: %d reads sent, %d acknowledged, %d unknown, %d failed, %d behind; %d changes, %d skipped\n", time.Since(l.start).Seconds(),
				l.sent.Load(), l.ok.Load(), l.unknown.Load(), l.fail.Load(), l.behind.Load(), l.changes.Load(), l.skipped.Load())
		}
	}
}

// sampleEvery is how often committed offsets are looked at.
const sampleEvery = 200 * time.Millisecond

// sampleOffsets writes down the committed offsets of the matchers. When Kafka does
// not answer there is nothing to write down.
func (l *load) sampleOffsets(ctx context.Context, cluster *kafka.Cluster, group string, w io.Writer) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	told := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked, cancel := context.WithTimeout(ctx, 2*time.Second)
		committed, err := cluster.Committed(asked, group)
		cancel()
		if err != nil && ctx.Err() == nil && !told {
			told = true
			fmt.Fprintf(w, "committed offsets cannot be sampled just now: %v\n", err)
		}
		at := l.clock()
		var records []ledger.Record
		for p, next := range committed {
			if next >= 0 {
				records = append(records, ledger.Record{Offset: &ledger.Offset{Partition: p, Committed: next, At: at}})
			}
		}
		if l.file.Append(records...) != nil {
			return // the next read says so
		}
	}
}

// changer adds and withdraws entries, one at a time.
type changer struct {
	load       *load
	wanted     []string
	entries    map[int]string // index in wanted: id, of those on the list
	lost       map[int]bool   // index in wanted: nobody knows whether it is on the list
	n          int64
	validFrom  time.Time
	validUntil time.Time
	why        error // of the last change that was not OK
}

// run makes the changes of the plan when they are due. One that is due while the
// last is under way is skipped: changes must not come in bursts.
func (ch *changer) run(ctx context.Context, plates *ledger.Generator) error {
	l := ch.load
	for n := int64(0); ; n++ {
		due := l.plan.ChangeDue(n)
		if due >= l.plan.Duration {
			return nil
		}
		i := plates.NextChange()
		wait := due - time.Since(l.start)
		if ch.lost[i] || -wait > max(behindAfter, 2*l.plan.ChangeDue(0)) {
			l.skipped.Add(1)
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
		if _, err := ch.change(i); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// change withdraws a plate that is on the list and adds one that is not. Its error
// is that of the ledger; ch.why is the service's.
func (ch *changer) change(i int) (ledger.Result, error) {
	l := ch.load
	entry, listed := ch.entries[i]
	c := &ledger.Change{N: ch.n, Op: ledger.Add, List: l.list, Plate: ch.wanted[i], Country: ledger.Country, Issued: l.clock()}
	if listed {
		c.Op, c.Entry = ledger.Withdraw, entry
	}
	ch.n++
	if err := errors.Join(l.file.Append(ledger.Record{Change: c}), l.file.Flush()); err != nil {
		return ledger.Unknown, err
	}
	quiet := *l.client
	quiet.output = "table"
	done := &ledger.Changed{N: c.N}
	var err error
	if listed {
		var out httpapi.Withdrawn
		out, err = quiet.remove(l.quiet, listPath(l.list)+"/entries/"+url.PathEscape(entry), "vigie load")
		done.Entry, done.Version = entry, out.Version
	} else {
		var e watchlist.Entry
		err = quiet.post(l.quiet, listPath(l.list)+"/entries", watchlist.EntryInput{
			Plate: c.Plate, Country: c.Country, Reason: "vigie load", CaseRef: l.plan.Run,
			ValidFrom: ch.validFrom, ValidUntil: ch.validUntil,
		}, &e)
		done.Entry, done.Version = e.ID, e.Version
	}
	done.Result, done.Confirmed = changeResult(err), l.clock()
	l.changes.Add(1)
	switch done.Result {
	case ledger.OK:
		l.changeOK.Add(1)
		if listed {
			delete(ch.entries, i)
		} else {
			ch.entries[i] = done.Entry
		}
	case ledger.Fail:
		l.changeFail.Add(1)
	default:
		l.changeUnk.Add(1)
		ch.lost[i] = true
		delete(ch.entries, i)
	}
	ch.why = err
	return done.Result, l.file.Append(ledger.Record{Changed: done})
}

// changeResult is what an error of the operators' API leaves of a change.
func changeResult(err error) ledger.Result {
	var api *apiError
	switch {
	case err == nil:
		return ledger.OK
	case errors.As(err, &api) && api.Status >= 400 && api.Status < 500, errors.Is(err, syscall.ECONNREFUSED):
		return ledger.Fail
	default:
		return ledger.Unknown
	}
}

// gatewaySender sends reads as sensors do.
type gatewaySender struct {
	url, token string
	http       *http.Client
}

func newGatewaySender(server, token string, flight int) *gatewaySender {
	return &gatewaySender{
		url: strings.TrimSuffix(server, "/") + "/v1/reads", token: token,
		http: &http.Client{
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: flight, IdleConnTimeout: 30 * time.Second},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (s *gatewaySender) send(ctx context.Context, reads []sensors.Read) (ledger.Result, []int, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	for i := range reads {
		if err := enc.Encode(&reads[i]); err != nil {
			return ledger.Fail, nil, fmt.Errorf("encode a read: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, &body)
	if err != nil {
		return ledger.Fail, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := s.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return ledger.Fail, nil, nil
		}
		return ledger.Unknown, nil, nil
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden || code == http.StatusNotFound:
		return ledger.Fail, nil, fmt.Errorf("the gateway at %s answered %s: look at --server and at the token in --sensor-token-file", s.url, resp.Status)
	case code >= 300 && code < 500:
		return ledger.Fail, nil, nil
	case code != http.StatusAccepted || err != nil:
		return ledger.Unknown, nil, nil
	}
	var res struct {
		Accepted int
		Rejected []struct{ Index int }
	}
	if json.Unmarshal(answer, &res) != nil || res.Accepted+len(res.Rejected) != len(reads) {
		return ledger.Unknown, nil, fmt.Errorf("%s answered something else than Vigie does; check --server", s.url)
	}
	var rejected []int
	for _, r := range res.Rejected {
		if r.Index >= 0 && r.Index < len(reads) {
			rejected = append(rejected, r.Index)
		}
	}
	return ledger.OK, rejected, nil
}

// kafkaSender writes reads to the topic, as sensors without our gateway do.
type kafkaSender struct{ reads *kafka.Reads }

func (s kafkaSender) send(ctx context.Context, reads []sensors.Read) (ledger.Result, []int, error) {
	if err := s.reads.Publish(ctx, reads); err != nil {
		return ledger.Unknown, nil, nil // what was written of them the error does not tell
	}
	return ledger.OK, nil, nil
}

// loadSummary is what a load has done.
type loadSummary struct {
	Ledger  string       `json:"ledger"`
	List    string       `json:"list"`
	Via     string       `json:"via"`
	Run     string       `json:"run"`
	Seed    uint64       `json:"seed"`
	Stopped bool         `json:"stopped"` // before the end of the plan
	Reads   ledger.Tally `json:"reads"`
	// Changes counts those that filled the list too.
	Changes        ledger.Tally `json:"changes"`
	ChangesSkipped int64        `json:"changes_skipped"`
	Rate           float64      `json:"rate"`          // asked for
	Achieved       float64      `json:"achieved_rate"` // reads sent per second
	Behind         int64        `json:"behind"`        // reads sent later than they were due
	MaxBehindMS    float64      `json:"max_behind_ms"`
}

func (l *load) summary(stopped bool) *loadSummary {
	s := &loadSummary{
		Ledger: l.path, List: l.list, Via: l.via, Run: l.plan.Run, Seed: l.plan.Seed, Stopped: stopped,
		Reads:          ledger.Tally{Sent: l.sent.Load(), OK: l.ok.Load(), Fail: l.fail.Load(), Unknown: l.unknown.Load()},
		Changes:        ledger.Tally{Sent: l.changes.Load(), OK: l.changeOK.Load(), Fail: l.changeFail.Load(), Unknown: l.changeUnk.Load()},
		ChangesSkipped: l.skipped.Load(),
		Rate:           l.plan.Rate, Behind: l.behind.Load(), MaxBehindMS: float64(l.worst.Load()/1000) / 1000,
	}
	if took := max(l.took.Load(), int64(l.plan.Due(s.Reads.Sent))); took > 0 {
		s.Achieved = float64(s.Reads.Sent) / time.Duration(took).Seconds()
	}
	return s
}

func (s *loadSummary) write(w io.Writer) {
	fmt.Fprintf(w, "%d reads sent: %d acknowledged, %d unknown, %d failed\n", s.Reads.Sent, s.Reads.OK, s.Reads.Unknown, s.Reads.Fail)
	fmt.Fprintf(w, "%.1f reads/s of %g asked for; %d were behind, by %.1f ms at most\n", s.Achieved, s.Rate, s.Behind, s.MaxBehindMS)
	fmt.Fprintf(w, "%d list changes: %d confirmed, %d unknown, %d failed, %d skipped\n", s.Changes.Sent, s.Changes.OK, s.Changes.Unknown, s.Changes.Fail, s.ChangesSkipped)
	fmt.Fprintf(w, "ledger %s (plates in clear), run %s, seed %d; next: vigie load check --ledger %s\n", s.Ledger, s.Run, s.Seed, s.Ledger)
}
