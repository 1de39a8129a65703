package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"vigie/cmd/vigie/internal/app"
	"vigie/stream/ledger"
)

func newLoadCheckCmd(c *client) *cobra.Command {
	var s settings
	var path string
	var opt ledger.Options
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Hold the alert queue and the hits topic to the ledger of a load",
		Long: `Read the alert queue from Redis and the hits topic from Kafka, and compare them
with the ledger that vigie load wrote. Nothing is changed. The promises:

  missing       an alert that must be in the queue is not there: a hit was lost
  not recorded  an alert that must be on the hits topic is not there
  repeat        the queue holds an alert twice
  ghost         an alert without a read that was sent, or before its entry was added
  withdrawn     an alert although the withdrawal of its entry was confirmed before
                the read was sent, or known to the lists by which it was matched
  rewound       a committed offset went back

An alert must be there when its read was acknowledged and its entry in effect from
--staleness before sending it until --lag after its acknowledgement. Close to a
change, and where an outcome is unknown, it may be there or not. When something was
down, or a matcher had just been started, give --lag the time that reads waited in
Kafka for it: they are rightly matched against the lists as they were afterwards.

Alerts that are missing at first are waited for. Violations are named by ids, which
the ledger explains; the ledger alone holds the plates.

Exit codes: 0 every promise was kept; 2 one was broken; 1 the check could not be
made, or nothing was expected, which shows nothing.`,
		Example: `  vigie load check --ledger load.jsonl --config vigie.yaml
  vigie load check --ledger load.jsonl --config vigie.yaml --lag 30s --wait 1m -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case path == "":
				return errors.New("--ledger: is required; name the file that vigie load wrote")
			case opt.Staleness < 0 || opt.Lag < 0 || wait < 0:
				return errors.New("--staleness, --lag, --wait: must not be negative")
			}
			cfg, err := s.load(nil)
			if err != nil {
				return err
			}
			h, err := loadLedger(path)
			if err != nil {
				return err
			}
			o, err := app.Observe(cmd.Context(), &cfg, zap.NewNop())
			if err != nil {
				return err
			}
			defer o.Close()
			rep, err := checkLedger(cmd.Context(), h, o, opt, wait, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if took := time.Duration(rep.StoredMS.Max) * time.Millisecond; !rep.OK() && took > max(opt.Lag, opt.Staleness) {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: alerts were stored up to %v after their reads were sent; if something was down or had just been started meanwhile, check again with --lag %v\n", took, took.Round(time.Second)+time.Second)
			}
			if err := print(cmd, c.output, rep, func() { writeReport(cmd.OutOrStdout(), &rep) }); err != nil {
				return err
			}
			return verdict(&rep)
		},
	}
	s.register(cmd)
	f := cmd.Flags()
	f.StringVar(&path, "ledger", "", "the ledger to check; mandatory; `file`")
	f.DurationVar(&opt.Staleness, "staleness", 250*time.Millisecond, "how long a confirmed change may take to reach the next read")
	f.DurationVar(&opt.Lag, "lag", 0, "how long reads may have waited to be matched; --staleness when 0")
	f.DurationVar(&wait, "wait", 10*time.Second, "how long to wait for alerts that are missing")
	return cmd
}

func loadLedger(path string) (*ledger.History, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--ledger: %w", err)
	}
	defer f.Close()
	h, err := ledger.Load(f)
	if err != nil {
		return nil, fmt.Errorf("--ledger: %s: %w", path, err)
	}
	return h, nil
}

// observer looks at what came of a load; app.Observer is one.
type observer interface {
	Alerts(ctx context.Context, h ledger.Header) (ledger.Observed, error)
}

// checkLedger checks until nothing is missing or wait is over.
func checkLedger(ctx context.Context, h *ledger.History, o observer, opt ledger.Options, wait time.Duration, w io.Writer) (ledger.Report, error) {
	deadline := time.Now().Add(wait)
	for first := true; ; first = false {
		obs, err := o.Alerts(ctx, h.Header)
		if err != nil {
			return ledger.Report{}, err
		}
		rep := ledger.Check(h, obs, opt)
		missing := rep.Count(ledger.Missing) + rep.Count(ledger.NotRecorded)
		// What is wrong in another way does not come right by waiting.
		if missing == 0 || missing < len(rep.Violations) || time.Now().After(deadline) {
			return rep, nil
		}
		if first {
			fmt.Fprintf(w, "%d alerts are missing so far; waiting for them up to %v\n", missing, wait)
		}
		select {
		case <-ctx.Done():
			return rep, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// maxShown is how many violations are shown to people; -o json shows all.
const maxShown = 20

func writeReport(w io.Writer, r *ledger.Report) {
	fmt.Fprintf(w, "%d reads: %d acknowledged, %d unknown, %d failed; %d list changes: %d confirmed, %d unknown, %d failed\n",
		r.Reads.Sent, r.Reads.OK, r.Reads.Unknown, r.Reads.Fail, r.Changes.Sent, r.Changes.OK, r.Changes.Unknown, r.Changes.Fail)
	if !r.Complete {
		fmt.Fprintf(w, "the load was cut short; %d bytes of a torn last line are passed over\n", r.Torn)
	}
	fmt.Fprintf(w, "%d of %d expected alerts found, %d allowed beside them, %d late; %d of others passed over\n", r.Found, r.Expected, r.Allowed, r.Late, r.Passed)
	fmt.Fprintf(w, "sent to stored p50 %.0f ms, p99 %.0f ms, max %.0f ms; %d repeats on the hits topic, as may be; %d samples of offsets compared\n",
		r.StoredMS.P50, r.StoredMS.P99, r.StoredMS.Max, r.HitRepeats, r.OffsetSamples)
	for i, v := range r.Violations {
		if i == maxShown {
			fmt.Fprintf(w, "and %d more; -o json shows them all\n", len(r.Violations)-i)
			break
		}
		fmt.Fprintln(w, clean(v.String()))
	}
	if r.OK() && r.Expected > 0 {
		fmt.Fprintln(w, "every promise was kept")
	}
}

// verdict is the exit code of a report.
func verdict(r *ledger.Report) error {
	switch {
	case !r.OK():
		return refused(fmt.Errorf("%d promises were broken: %d missing, %d not recorded, %d repeats, %d ghosts, %d withdrawn, %d rewound", len(r.Violations),
			r.Count(ledger.Missing), r.Count(ledger.NotRecorded), r.Count(ledger.Repeat), r.Count(ledger.Ghost), r.Count(ledger.Withdrawn), r.Count(ledger.Rewound)))
	case r.Expected == 0:
		return errors.New("no alert was expected, so nothing is shown: load longer, or with a larger --wanted-share")
	}
	return nil
}
