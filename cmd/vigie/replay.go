package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"vigie/cmd/vigie/internal/app"
	"vigie/watchlist"
)

func newReplayCmd() *cobra.Command {
	var s settings
	var from, to, output string
	opt := app.ReplayOptions{}
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Match the reads of a time range again, or rebuild queues from the hits topic",
		Long: `Match the reads that Kafka got in a time range again, by the lists as they are now,
beside the live matchers and at a limited rate. An alert that was made before stays
as it is; a new one is late and never asks for a stop. Reads that the live matchers
have not come to yet are left to them. No offset of theirs is touched.

With --rebuild nothing is matched: alerts and steps that the hits topic holds are put
back into queues that lack them, unless they were withdrawn meanwhile.

A time is a date, a date with a time, or RFC 3339, in local time unless it says
otherwise; or a duration such as 90m for so long ago. Repeating a replay is safe.`,
		Example: `  vigie replay --from "2026-11-24 02:00" --to "2026-11-24 06:30" --rate 5000
  vigie replay --rebuild --from 720h`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			now := time.Now()
			if opt.From, err = moment(from, now); err != nil {
				return fmt.Errorf("--from: %w", err)
			}
			if opt.To, err = moment(to, now); err != nil {
				return fmt.Errorf("--to: %w", err)
			}
			switch {
			case opt.To.After(now):
				opt.To = now
			case opt.Rebuild && opt.QueueOnly:
				return errors.New("--rebuild never writes to the hits topic: leave out --queue-only")
			}
			if !opt.From.Before(opt.To) {
				return errors.New("--from must be before --to, and not in the future")
			}
			if opt.Rate < 1 {
				return fmt.Errorf("--rate: %d must be at least 1 a second", opt.Rate)
			}
			cfg, err := s.load(nil)
			if err != nil {
				return err
			}
			log, err := newLogger("warn")
			if err != nil {
				return err
			}
			opt.Progress = func(r app.ReplayResult) {
				if opt.Rebuild {
					fmt.Fprintf(cmd.ErrOrStderr(), "%d events, %d put back\n", r.Hits, r.New)
					return
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d reads, %d hits, %d new\n", r.Done, r.Total, r.Hits, r.New)
			}
			r, err := app.Replay(cmd.Context(), cfg, log, opt)
			if err != nil && cmd.Context().Err() != nil {
				err = errors.New("told to stop before it was through; doing it again is safe")
			}
			if err != nil && r == (app.ReplayResult{}) {
				return err
			}
			return errors.Join(err, print(cmd, output, r, func() {
				w := cmd.OutOrStdout()
				if opt.Rebuild {
					fmt.Fprintf(w, "%d events: %d put back, %d already there, %d not wanted any more or too old\n", r.Hits, r.New, r.There, r.Unwanted)
					return
				}
				fmt.Fprintf(w, "%d reads: %d hits, %d new, %d already there; %d reads left to the live matchers\n", r.Reads, r.Hits, r.New, r.There, r.Left)
			}))
		},
	}
	s.register(cmd)
	outputFlag(cmd, &output)
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "begin of the range: a `time`, or how long ago; required")
	f.StringVar(&to, "to", "0s", "end of the range, exclusive: a `time`, or how long ago")
	f.IntVar(&opt.Rate, "rate", 2000, "reads, or events with --rebuild, a second at most")
	f.BoolVar(&opt.QueueOnly, "queue-only", false, "put new alerts into the queues and leave the hits topic as it is")
	f.BoolVar(&opt.Rebuild, "rebuild", false, "put back what the hits topic holds of the range instead of matching")
	if err := cmd.MarkFlagRequired("from"); err != nil {
		panic(err) // a flag that is not there
	}
	return cmd
}

// moment reads a time as people give it: see the help of replay.
func moment(s string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(s); err == nil {
		if ago < 0 {
			return time.Time{}, errors.New("a duration says how long ago, and is not negative")
		}
		return now.Add(-ago), nil
	}
	t, err := watchlist.ParseValidFrom(s, time.Local)
	if err != nil {
		return t, errors.New("must be a date such as 2026-11-24, a date with a time, RFC 3339, or a duration such as 90m")
	}
	return t, nil
}
