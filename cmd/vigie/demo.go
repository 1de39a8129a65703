package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"vigie/cmd/vigie/internal/app"
	"vigie/matcher"
	"vigie/matcher/slow"
	"vigie/sensors/sim"
	"vigie/stream/alert"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// demoSettle is how long the demo waits, after the last read, for alerts that
// its ledger still expects.
const demoSettle = 10 * time.Second

func newDemoCmd() *cobra.Command {
	var s settings
	var data, addr, output string
	var duration time.Duration
	var rate float64
	var seed uint64
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run everything in one process with simulated sensors and show hits as they come",
		Long: `Run everything in one process: Kafka and Redis inside it, a seeded fleet of
sensors on French roads, three watchlists, and patrols that watch two queues.
Hits are shown as they come. At the end the fleet's own ledger says which
alerts had to come; missed and duplicates must be 0, or the exit code is 1.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !(rate > 0 && rate <= 100_000) {
				return fmt.Errorf("--rate %v: say more than 0 and at most 100000 reads per second", rate)
			}
			cfg, err := s.load(map[string]string{"target": "all", "data": data, "http.addr": addr, "log.level": "warn"})
			if err != nil {
				return err
			}
			if !cfg.Embedded() {
				return errors.New("the demo runs on embedded services only, so that simulated hits reach no real patrol: unset kafka.brokers and redis.addr")
			}
			log, err := newLogger(cfg.Log.Level)
			if err != nil {
				return err
			}
			a, err := app.New(cmd.Context(), cfg, log)
			if err != nil {
				return err
			}
			hits := cmd.OutOrStdout()
			if output == "json" {
				hits = cmd.ErrOrStderr()
			}
			announce(cmd.ErrOrStderr(), &cfg, a)
			d := &demo{app: a, rate: rate, duration: duration, seed: seed, out: hits, ledger: slow.New(), expected: map[string]time.Time{}, seen: map[string]int{}}
			sum, err := d.run(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(sum)
			} else {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "\n%d reads, %d hits of %d expected, %d missed, %d duplicates, %d unexpected; sensor to patrol p50 %.1f ms, p99 %.1f ms\n",
					sum.Reads, sum.Hits, sum.Expected, sum.Missed, sum.Duplicates, sum.Unexpected, sum.LatencyMS.P50, sum.LatencyMS.P99)
			}
			if err == nil && (sum.Missed > 0 || sum.Duplicates > 0 || sum.Unexpected > 0) {
				err = errors.New("the alerts are not those that the ledger expects")
			}
			return err
		},
	}
	s.register(cmd)
	outputFlag(cmd, &output)
	cmd.Flags().DurationVar(&duration, "duration", 0, "how long to run; 0 runs until Ctrl-C")
	cmd.Flags().Float64Var(&rate, "rate", 2000, "reads per second over the whole fleet")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "seed of plates and traffic")
	cmd.Flags().StringVar(&data, "data", "", "folder in which the embedded Kafka keeps reads, lists and hits")
	cmd.Flags().StringVar(&addr, "http", "127.0.0.1:8080", "address to listen on")
	return cmd
}

// summary is the last line of the demo.
type summary struct {
	Reads      int `json:"reads"`      // accepted by the gateway
	Hits       int `json:"hits"`       // different alerts that reached a patrol
	Expected   int `json:"expected"`   // alerts that the ledger wants
	Missed     int `json:"missed"`     // of these, alerts that did not come
	Duplicates int `json:"duplicates"` // alerts that came again
	Unexpected int `json:"unexpected"` // alerts that the ledger does not know
	LatencyMS  struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
	} `json:"latency_ms"` // from a sensor sending a read to the patrol having its alert
}

// demo is a fleet of sensors, two patrols and the ledger between them.
type demo struct {
	app      *app.App
	rate     float64
	duration time.Duration
	seed     uint64
	out      io.Writer
	ledger   *slow.Matcher // the entries that were meant; owned by play

	mu         sync.Mutex // guards what follows and out
	reads      int
	expected   map[string]time.Time // alert id: when its first read was sent
	seen       map[string]int       // alert id: how often it reached a patrol
	unexpected int
	latency    []time.Duration
	progress   chan struct{} // closed and replaced at each alert
}

func (d *demo) run(ctx context.Context) (*summary, error) {
	d.progress = make(chan struct{})
	// The service outlives the sensors: what they sent must still arrive.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, serving := errgroup.WithContext(serving)
	g.Go(func() error { return d.app.Run(serving) })
	g.Go(func() error {
		defer stop()
		return d.play(ctx, serving, g)
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	return d.summary(), nil
}

// play sets up lists and patrols and then lets traffic flow until ctx ends or
// the time is over.
func (d *demo) play(ctx, serving context.Context, g *errgroup.Group) error {
	if err := d.app.Replica().WaitCaughtUp(serving); err != nil {
		return err
	}
	start := time.Now()
	wanted, err := d.fillLists(serving, start)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	fleet, err := sim.New(sim.Config{Seed: d.seed, Rate: d.rate, Start: start, Wanted: wanted})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	var registry []control.Sensor
	for _, s := range fleet.Sensors() {
		registry = append(registry, control.Sensor{ID: s.ID, Name: s.Name, Lat: s.Lat, Lon: s.Lon, Road: s.Road, Direction: s.Direction, Zones: s.Zones})
	}
	if _, err := d.app.Desk().PutSensors(serving, "demo", registry); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	for _, queue := range []string{"patrol", "discreet"} {
		ready := make(chan struct{})
		g.Go(func() error { return d.watch(serving, queue, ready) })
		select {
		case <-ready:
		case <-serving.Done():
			return serving.Err()
		}
	}
	if d.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.duration)
		defer cancel()
	}
	if err := d.drive(ctx, serving, fleet); err != nil {
		return err
	}
	d.settle(serving)
	return nil
}

// Sizes of the demo's lists, and how many plates of each are on the road.
var demoLists = []struct {
	list    watchlist.List
	size    int
	onRoad  int
	reason  string
	vehicle string
}{
	{watchlist.List{ID: "stolen", Name: "Véhicules volés", Owner: "SDLP", LegalBasis: "CSI L233-1",
		Tolerance: watchlist.ToleranceExact, Queue: "patrol", DefaultAction: watchlist.ActionIntercept, DefaultPriority: watchlist.PriorityMedium},
		2000, 120, "Véhicule volé", ""},
	{watchlist.List{ID: "priority", Name: "Objectifs prioritaires", Owner: "OFAST", LegalBasis: "CSI L233-1",
		Tolerance: watchlist.ToleranceOCR, Queue: "patrol", DefaultAction: watchlist.ActionIntercept, DefaultPriority: watchlist.PriorityCritical},
		60, 40, "Go-fast, équipe armée possible", "Audi RS6 noire"},
	{watchlist.List{ID: "discreet", Name: "Surveillance discrète", Owner: "DGSI", LegalBasis: "SIS II art. 36",
		Tolerance: watchlist.ToleranceExact, Queue: "discreet", DefaultAction: watchlist.ActionDiscreet, DefaultPriority: watchlist.PriorityHigh},
		40, 20, "Contrôle discret", ""},
}

// fillLists creates the three lists, imports their entries as an operator would,
// and returns the plates that drive on the simulated roads.
func (d *demo) fillLists(ctx context.Context, now time.Time) (wanted []sim.Wanted, err error) {
	rng := rand.New(rand.NewPCG(d.seed, 0x7669676965)) // another stream than the fleet's
	fr, _ := plate.ParseCountry("FR")
	for _, l := range demoLists {
		if _, err := d.app.Desk().PutList(ctx, "demo", l.list); err != nil {
			return nil, err
		}
		var csv strings.Builder
		csv.WriteString("plaque;pays;motif;dossier;début;échéance;véhicule\n")
		list, _ := d.app.Desk().List(l.list.ID) // for the salt that keys entry ids
		d.ledger.Apply([]control.Change{{NewList: list}})
		from, until := now.AddDate(0, 0, -1), now.AddDate(0, 1, 0)
		taken := map[string]bool{}
		for len(taken) < l.size {
			text := drawSIV(rng)
			if taken[text] {
				continue
			}
			taken[text] = true
			fmt.Fprintf(&csv, "%s;F;%s;2026-%05d;%s;%s;%s\n", text, l.reason, len(taken),
				from.Format("02/01/2006"), until.Format("02/01/2006"), l.vehicle)
			// The ledger keeps what was meant, not what the service made of it.
			e, bad := watchlist.NewEntry(list, watchlist.EntryInput{Plate: text, Country: "FR", Reason: l.reason, CaseRef: "demo", ValidFrom: from, ValidUntil: until}, now)
			if bad != nil {
				return nil, fmt.Errorf("entry for the ledger: %w", bad[0])
			}
			d.ledger.Apply([]control.Change{{NewEntry: watchlist.Pack(e)}})
			if len(taken) <= l.onRoad {
				wanted = append(wanted, sim.Wanted{Plate: text, Country: fr})
			}
		}
		rep, err := d.app.Desk().Import(ctx, "demo", l.list.ID, strings.NewReader(csv.String()), false)
		if err != nil {
			return nil, err
		}
		if rep.Rejected > 0 {
			return nil, fmt.Errorf("import of %s: %w", l.list.ID, rep.Errors[0])
		}
	}
	rng.Shuffle(len(wanted), func(i, j int) { wanted[i], wanted[j] = wanted[j], wanted[i] })
	return wanted, nil
}

// drawSIV draws a plate of the French pattern.
func drawSIV(rng *rand.Rand) string {
	const letters = "ABCDEFGHJKLMNPQRSTVWXYZ" // without I O U
	l := func() byte { return letters[rng.IntN(len(letters))] }
	for {
		left, right := string([]byte{l(), l()}), string([]byte{l(), l()})
		if left != "SS" && right != "SS" && left != "WW" {
			return fmt.Sprintf("%s-%03d-%s", left, 1+rng.IntN(999), right)
		}
	}
}

// drive sends the fleet's reads at their time until ctx ends.
func (d *demo) drive(ctx, serving context.Context, fleet *sim.Fleet) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	step := fleet.Next()
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-serving.Done():
			return serving.Err()
		case now := <-tick.C:
			body.Reset()
			n := 0
			for ; !step.At.After(now) && n < 5000; step = fleet.Next() {
				if err := enc.Encode(&step.Read); err != nil {
					return fmt.Errorf("demo: encode a read: %w", err)
				}
				n++
				d.expect(&step)
			}
			if n == 0 {
				continue
			}
			if err := d.post(serving, &body, n); err != nil {
				return err
			}
		}
	}
}

// expect writes down the alerts that a read must raise.
func (d *demo) expect(step *sim.Step) {
	r := step.Read
	key, err := r.Key()
	if err != nil {
		return // no plate to be seen
	}
	r.EnsureID()
	now := time.Now()
	for _, h := range d.ledger.Match(matcher.Query{Key: key, Country: r.CountryCode(), At: r.TS, Sensor: r.Sensor}) {
		id := alert.ID(&r, h.Entry.ID())
		d.mu.Lock()
		if _, known := d.expected[id]; !known {
			d.expected[id] = now
		}
		d.mu.Unlock()
	}
}

// post sends reads to the gateway as a sensor does.
func (d *demo) post(ctx context.Context, body io.Reader, n int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.app.URL()+"/v1/reads", body)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+d.app.Secrets()["sensor"])
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("demo: send reads: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("demo: send reads: %w", err)
	}
	var res struct{ Accepted int }
	if err := json.Unmarshal(answer, &res); err != nil || resp.StatusCode != http.StatusAccepted || res.Accepted != n {
		return fmt.Errorf("demo: the gateway accepted %d of %d reads: %s %s", res.Accepted, n, resp.Status, answer)
	}
	d.mu.Lock()
	d.reads += n
	d.mu.Unlock()
	return nil
}

// watch follows a queue as a patrol does and shows its alerts.
func (d *demo) watch(ctx context.Context, queue string, ready chan<- struct{}) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.app.URL()+"/v1/alerts/stream?queue="+url.QueryEscape(queue), nil)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+d.app.Secrets()[queue])
	// From now on: a data folder may hold the alerts of an earlier demo.
	req.Header.Set("Last-Event-ID", fmt.Sprintf("%d-0", time.Now().UnixMilli()))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("demo: watch the queue %s: %w", queue, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("demo: watch the queue %s: %s", queue, resp.Status)
	}
	err = readEvents(resp.Body, func(_, kind, data string) error {
		switch kind {
		case "hello":
			close(ready)
		case "alert":
			var a alert.Alert
			if err := json.Unmarshal([]byte(data), &a); err != nil {
				return fmt.Errorf("an alert cannot be read: %w", err)
			}
			d.got(&a, time.Now())
		}
		return nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("demo: the stream of queue %s ended: %w", queue, cmp.Or(err, io.ErrUnexpectedEOF))
}

// readEvents calls handle for each event of a stream of Server-Sent Events, of
// which Vigie sends one line of data each, until r ends or handle fails.
func readEvents(r io.Reader, handle func(id, kind, data string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	id, kind := "", ""
	for lines.Scan() {
		switch name, value, _ := strings.Cut(lines.Text(), ": "); name {
		case "id":
			id = value
		case "event":
			kind = value
		case "data":
			if err := handle(id, kind, value); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// got notes that an alert has reached its patrol, and shows it.
func (d *demo) got(a *alert.Alert, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen[a.ID]++
	sent, known := d.expected[a.ID]
	switch {
	case d.seen[a.ID] > 1:
	case known:
		took := now.Sub(sent)
		d.latency = append(d.latency, took)
		fmt.Fprintln(d.out, hitLine(a, took))
	default:
		d.unexpected++
		fmt.Fprintln(d.out, "NOT IN THE LEDGER", hitLine(a, 0))
	}
	close(d.progress)
	d.progress = make(chan struct{})
}

// hitLine is an alert for someone who reads a terminal: what to do first.
func hitLine(a *alert.Alert, took time.Duration) string {
	sign := "≈"
	if a.Match.Kind == "exact" {
		sign = "✓"
	}
	do := strings.ToUpper(a.Action.String())
	if a.Action.AsksForStop() && !a.Stop {
		do = "NO STOP" // late, or a plate of another country
	}
	where := a.Read.Sensor
	if a.Place != nil {
		where = a.Place.Name
	}
	return fmt.Sprintf("%s  %-9s %-8s  %-10s %s %-5s country %-9s  %-28s  %s: %s  (%.1f ms)",
		time.UnixMilli(a.Read.TS).Format("15:04:05.000"), do, a.Priority, a.Match.Read,
		sign, a.Match.Kind, a.Match.Country, where, a.List.Name, a.Entry.Reason, float64(took.Microseconds())/1000)
}

// settle waits for the alerts that are still expected, at most demoSettle, and
// then until it has been quiet for a moment: one that comes twice comes late.
func (d *demo) settle(serving context.Context) {
	timeout := time.After(demoSettle)
	for {
		d.mu.Lock()
		missing, progress := d.missing(), d.progress
		d.mu.Unlock()
		var quiet <-chan time.Time
		if missing == 0 {
			quiet = time.After(500 * time.Millisecond)
		}
		select {
		case <-progress:
		case <-quiet:
			return
		case <-timeout:
			return
		case <-serving.Done():
			return
		}
	}
}

// missing counts the alerts that have not come; mu is held.
func (d *demo) missing() (n int) {
	for id := range d.expected {
		if d.seen[id] == 0 {
			n++
		}
	}
	return n
}

func (d *demo) summary() *summary {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &summary{Reads: d.reads, Hits: len(d.seen), Expected: len(d.expected), Missed: d.missing(), Unexpected: d.unexpected}
	for _, n := range d.seen {
		s.Duplicates += n - 1
	}
	slices.Sort(d.latency)
	if n := len(d.latency); n > 0 {
		ms := func(i int) float64 { return float64(d.latency[i].Microseconds()) / 1000 }
		s.LatencyMS.P50, s.LatencyMS.P99 = ms(n/2), ms(min(n-1, n*99/100))
	}
	return s
}
