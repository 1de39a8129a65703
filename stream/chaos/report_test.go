//go:build linux

package chaos

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"vigie/stream/ledger"
)

// result is one row of the table.
type result struct {
	Fault  string       `json:"fault"`
	Test   string       `json:"test"`
	Failed bool         `json:"failed"`
	Reads  ledger.Tally `json:"reads"`

	Expected   int     `json:"expected"`
	Found      int     `json:"found"`
	Allowed    int     `json:"allowed"`
	Duplicates int     `json:"duplicates"` // entries of the queue beyond the first of an alert
	Rematched  int     `json:"rematched"`  // hits that the hits topic has again: their reads were processed twice
	P99MS      float64 `json:"stored_p99_ms"`

	StoredAtStrike int64   `json:"stored_at_strike"`
	Probes         int     `json:"probe_rounds"`
	ProbesRefused  int     `json:"probe_rounds_not_taken"`
	WorstSeconds   float64 `json:"slowest_probe_s"`
	// RecoverySeconds is the longest time from a mending until reads were alerts within a second
	// again; DisturbedSeconds likewise, where the service had not recovered from one fault when
	// the next came.
	RecoverySeconds  float64 `json:"recovery_s"`
	DisturbedSeconds float64 `json:"disturbed_recovery_s,omitempty"`

	Shown     []string    `json:"shown"`
	Control   string      `json:"control"`
	Processes []footprint `json:"processes"`
}

// footprint is what a process takes, before the fault and after everything.
type footprint struct {
	Process string `json:"process"`
	Before  usage  `json:"before"`
	After   usage  `json:"after"`
}

// usage is what a process takes.
type usage struct {
	RSSMiB     float64 `json:"rss_mib"`
	Goroutines float64 `json:"goroutines"`
	Files      float64 `json:"files"`
}

// A footprint is back at its base within a tenth of it, or these: an idle pool keeps some
// connections, and the collector some memory, more or less from one time to the next.
var slack = usage{RSSMiB: 24, Goroutines: 12, Files: 12}

// within reports whether a process that took before may take u.
func (u usage) within(before usage) bool {
	ok := func(now, base, slack float64) bool { return now <= base+math.Max(base/10, slack) }
	return ok(u.RSSMiB, before.RSSMiB, slack.RSSMiB) && ok(u.Goroutines, before.Goroutines, slack.Goroutines) && ok(u.Files, before.Files, slack.Files)
}

// watched is a process whose footprint is compared.
type watched struct {
	name   string
	p      *process
	before usage
}

func (s *site) watch(p *process) *watched {
	s.t.Helper()
	return &watched{name: p.name, p: p, before: s.usage(p)}
}

func (s *site) usage(p *process) usage {
	s.t.Helper()
	m, err := p.scrape()
	if err != nil {
		s.t.Fatalf("metrics of %s: %v", p.name, err)
	}
	return usage{RSSMiB: math.Round(m["process_resident_memory_bytes"]/(1<<20)*10) / 10, Goroutines: m["go_goroutines"], Files: m["process_open_fds"]}
}

// settleWithin is how long a process may take to come back to its base: idle connections are
// closed after half a minute.
const settleWithin = 40 * time.Second

// settle compares the footprints of the watched processes, or of those that replaced them,
// with their base.
func (tr *trial) settle(survivors []*process) {
	tr.t.Helper()
	deadline := time.Now().Add(max(tr.settleWithin, settleWithin))
	for _, w := range tr.watched {
		for _, p := range survivors {
			if p.name == w.name {
				w.p = p
			}
		}
		if w.p.gone() {
			continue
		}
		base := w.before
		if tr.settleWithin == 0 {
			base.RSSMiB = math.Inf(1) // the test bounds it
		}
		after := tr.usage(w.p)
		for !after.within(base) && time.Now().Before(deadline) {
			time.Sleep(500 * time.Millisecond)
			after = tr.usage(w.p)
		}
		if !after.within(base) {
			tr.t.Errorf("%s took %+v before and takes %+v: not back at its base", w.name, w.before, after)
		}
		tr.res.Processes = append(tr.res.Processes, footprint{w.name, w.before, after})
	}
}

// report prints the table and writes it where VIGIE_CHAOS_OUT says.
func report(results []*result) error {
	if len(results) == 0 {
		return nil
	}
	fmt.Printf("\nchaos: seed %d, %s form, %v, %s, %d CPUs\n", lab.seed, short("short", "full"), time.Since(lab.began).Round(time.Second), runtime.Version(), runtime.NumCPU())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "fault\treads sent/ok/unknown\talerts found/expected\tduplicates\trematched\tslowest probe\trecovery\tRSS MiB, goroutines, files before > after")
	for _, r := range results {
		name := r.Fault
		if r.Failed {
			name = "FAILED " + name
		}
		fmt.Fprintf(w, "%s\t%d/%d/%d\t%d/%d\t%d\t%d\t%.2f s\t%s\t%s\n", name, r.Reads.Sent, r.Reads.OK, r.Reads.Unknown,
			r.Found, r.Expected, r.Duplicates, r.Rematched, r.WorstSeconds, r.recovery(), r.feet())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	path := os.Getenv("VIGIE_CHAOS_OUT")
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(map[string]any{
		"seed": lab.seed, "form": short("short", "full"), "date": lab.began.UTC().Format(time.RFC3339), "took_s": math.Round(time.Since(lab.began).Seconds()),
		"machine": machine(), "cpus": runtime.NumCPU(), "go": runtime.Version(), "tolerance": tolerance(), "results": results,
	}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(strings.TrimSuffix(path, filepath.Ext(path))+".md", []byte(markdown(results)), 0o644)
}

func tolerance() string {
	return fmt.Sprintf("a tenth of the base, or %.0f MiB, %.0f goroutines, %.0f files", slack.RSSMiB, slack.Goroutines, slack.Files)
}

// markdown is the page that people read.
func markdown(results []*result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What was broken, and what came of it\n\n%s, %d cores %s, %s, shared with Kafka and Redis. By `make chaos SEED=%d` (%s form, %v), which writes this file.\n\n",
		lab.began.UTC().Format(time.DateOnly), runtime.NumCPU(), machine(), runtime.Version(), lab.seed, short("short", "full"), time.Since(lab.began).Round(time.Second))
	b.WriteString("*Matched again* are alerts whose read was processed more than once, as the hits topic shows; each is in its queue once. " +
		"*Recovery* is from the mending (from the fault, where others take over) until reads to every partition were alerts within a second again, ten rounds of probes in a row; " +
		"in brackets where the next fault came before that. *Not taken* are rounds of probes of which the gateway refused a part. Memory, goroutines and files are before > after, tolerance " + tolerance() + ".\n\n")
	b.WriteString("| fault | reads sent / ok / unknown | alerts found / expected | duplicates | matched again | slowest probe | not taken | recovery | MiB, goroutines, files |\n|---|---:|---:|---:|---:|---:|---:|---:|---|\n")
	for _, r := range results {
		name := r.Fault
		if r.Failed {
			name = "**FAILED** " + name
		}
		fmt.Fprintf(&b, "| %s | %d / %d / %d | %d / %d | %d | %d | %.2f s | %d / %d | %s | %s |\n", name, r.Reads.Sent, r.Reads.OK, r.Reads.Unknown,
			r.Found, r.Expected, r.Duplicates, r.Rematched, r.WorstSeconds, r.ProbesRefused, r.Probes, r.recovery(), r.feet())
	}
	b.WriteString("\nWhat showed that the fault had hit:\n\n")
	for _, r := range results {
		fmt.Fprintf(&b, "- %s: %d alerts were stored when it began", r.Fault, r.StoredAtStrike)
		for _, text := range r.Shown {
			b.WriteString("; " + text)
		}
		b.WriteString(".\n")
	}
	b.WriteString("\nAfter each row but the controls, the same history was spoiled: one alert taken away, one repeated, one made up, one offset rewound. The check reported each.\n")
	return b.String()
}

// recovery is what the table says of it.
func (r *result) recovery() string {
	switch {
	case r.Control == "":
		return "-" // nobody measured it
	case r.DisturbedSeconds > 0:
		return fmt.Sprintf("%.2f s (%.2f s)", r.RecoverySeconds, r.DisturbedSeconds)
	default:
		return fmt.Sprintf("%.2f s", r.RecoverySeconds)
	}
}

// feet are the footprints on one line.
func (r *result) feet() string {
	var feet []string
	for _, f := range r.Processes {
		feet = append(feet, fmt.Sprintf("%s %.0f,%.0f,%.0f > %.0f,%.0f,%.0f", f.Process,
			f.Before.RSSMiB, f.Before.Goroutines, f.Before.Files, f.After.RSSMiB, f.After.Goroutines, f.After.Files))
	}
	return strings.Join(feet, "; ")
}

// machine is the name of the processor.
func machine() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
