package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vigie/cmd/vigie/internal/httpapi"
	"vigie/stream"
	"vigie/watchlist"
)

func newExplainCmd() *cobra.Command {
	c := new(client)
	var in httpapi.ExplainRequest
	var at string
	var expect []string
	cmd := &cobra.Command{
		Use:   "explain PLATE",
		Short: "Would this read alert, and why",
		Long: `Say what would become of a read: the plate as it is compared, every entry that it
would alert for, and those that it came near, each with the rule that decided.
Nothing is changed or stored.

With --expect the exit code is 2 when the lists that would alert are others than
those named; "none" expects no alert. "-" for PLATE reads it from standard input.`,
		Example: `  vigie explain AB-123-CD --country FR --conf 0.82
  vigie explain AB-123-CD --expect list=stolen`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			want, err := parseExpect(expect)
			if err != nil {
				return err
			}
			if in.Plate, err = plateArg(cmd, args[0]); err != nil {
				return err
			}
			if at != "" {
				if in.At, err = watchlist.ParseValidFrom(at, time.Local); err != nil {
					return fmt.Errorf("--at: %w", err)
				}
			}
			var ex stream.Explanation
			if err := c.post(cmd, "/v1/explain", in, &ex); err != nil {
				return err
			}
			if err := c.print(cmd, ex, func(w io.Writer) { writeExplanation(w, &ex) }); err != nil {
				return err
			}
			if got := listsOf(ex.Hits); len(expect) > 0 && !slices.Equal(got, want) {
				return refused(fmt.Errorf("expected alerts of %s, got %s", names(want), names(got)))
			}
			return nil
		},
	}
	c.register(cmd)
	f := cmd.Flags()
	f.StringVar(&in.Country, "country", "", "country as the sensor would give it; empty when it does not")
	f.Float32Var(&in.Conf, "conf", 0, "confidence of the sensor, 0 to 1; 0 when it gives none")
	f.StringVar(&in.Sensor, "sensor", "", "sensor that reads, for lists limited to sensors or zones")
	f.StringVar(&at, "at", "", "time of the read; now when empty")
	f.StringArrayVar(&expect, "expect", nil, "`list=ID` that would alert, may be repeated; or none")
	return cmd
}

// parseExpect reads the values of --expect into ids of lists, in order.
func parseExpect(values []string) ([]string, error) {
	var lists []string
	for _, v := range values {
		id, ok := strings.CutPrefix(v, "list=")
		switch {
		case ok && id != "":
			lists = append(lists, id)
		case v != "none" || len(values) > 1:
			return nil, errors.New("--expect: must be list=ID, which may be repeated, or none alone")
		}
	}
	slices.Sort(lists)
	return slices.Compact(lists), nil
}

// listsOf is the lists of hits, each once, in order.
func listsOf(hits []stream.Explained) []string {
	var lists []string
	for _, h := range hits {
		lists = append(lists, h.List)
	}
	slices.Sort(lists)
	return slices.Compact(lists)
}

func names(lists []string) string {
	if len(lists) == 0 {
		return "no list"
	}
	return clean(strings.Join(lists, ", "))
}

func writeExplanation(w io.Writer, ex *stream.Explanation) {
	if ex.Problem != "" {
		fmt.Fprintf(w, "never matched: %s\n", clean(ex.Problem))
		return
	}
	country := ex.Country.String()
	if country == "" {
		country = "country unknown"
	}
	fmt.Fprintf(w, "%s, %s, syntax %s; lists at version %d\n", clean(ex.Normalised), country, clean(ex.Syntax), ex.Version)
	if len(ex.Hits) == 0 {
		fmt.Fprintln(w, "no alert")
	} else {
		fmt.Fprintf(w, "\nwould alert:\n")
		row(w, "LIST", "ENTRY", "PLATE", "QUEUE", "ACTION", "PRIORITY", "MATCH", "COUNTRY", "GRADE", "SCORE", "WHY")
		for _, h := range ex.Hits {
			row(w, h.List, h.Entry, h.Plate, h.Queue, h.Action, h.Priority, h.Kind, h.Country, h.Grade, score(h), h.Because)
		}
	}
	if len(ex.Others) > 0 {
		fmt.Fprintf(w, "\ncame near, without an alert:\n")
		row(w, "LIST", "ENTRY", "PLATE", "COUNTRY", "SCORE", "WHY")
		for _, o := range ex.Others {
			row(w, o.List, o.Entry, o.Plate, o.Country, score(o), o.Because)
		}
	}
}

// score writes a score, and what the list needs of it.
func score(e stream.Explained) string {
	switch {
	case e.Score == 0 && e.Threshold == 0:
		return "-"
	case e.Threshold == 0:
		return fmt.Sprintf("%.2f", e.Score)
	}
	return fmt.Sprintf("%.3g of %.3g", e.Score, e.Threshold)
}
