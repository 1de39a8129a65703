package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"vigie/cmd/vigie/internal/httpapi"
	"vigie/watchlist"
)

func newEntriesCmd() *cobra.Command {
	c := new(client)
	cmd := &cobra.Command{
		Use:   "entries",
		Short: "Show the entries of a list, add one, withdraw one",
		Args:  cobra.NoArgs,
		RunE:  help,
	}
	c.register(cmd)
	cmd.AddCommand(newEntryListCmd(c), newEntryAddCmd(c), newEntryWithdrawCmd(c))
	return cmd
}

func newEntryListCmd(c *client) *cobra.Command {
	var limit int
	var after string
	cmd := &cobra.Command{
		Use:   "list LIST",
		Short: "Show the entries of a list, in order of their ids",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return errors.New("--limit: must not be negative; 0 shows all")
			}
			all := httpapi.EntryPage{Entries: []*watchlist.Entry{}, Next: after}
			for first := true; first || all.Next != ""; first = false {
				size := 1000
				if limit > 0 {
					size = min(size, limit-len(all.Entries))
				}
				if size == 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "there are more; --limit 0 shows all, --after %s goes on\n", clean(all.Next))
					break
				}
				q := url.Values{"limit": {strconv.Itoa(size)}}
				if all.Next != "" {
					q.Set("after", all.Next)
				}
				var page httpapi.EntryPage
				if err := c.get(cmd, listPath(args[0])+"/entries?"+q.Encode(), &page); err != nil {
					return err
				}
				all.Entries, all.Next = append(all.Entries, page.Entries...), page.Next
			}
			return c.print(cmd, all, func(w io.Writer) {
				if len(all.Entries) == 0 {
					fmt.Fprintln(cmd.ErrOrStderr(), "no entries")
					return
				}
				row(w, "ENTRY", "PLATE", "COUNTRY", "ACTION", "PRIORITY", "UNTIL", "CASE", "REASON")
				for _, e := range all.Entries {
					row(w, e.ID, e.Plate, e.Country, e.Action, e.Priority, e.ValidUntil.Local().Format(day), e.CaseRef, e.Reason)
				}
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "how many to show; 0 shows all")
	cmd.Flags().StringVar(&after, "after", "", "begin after this entry; `id`")
	return cmd
}

func newEntryAddCmd(c *client) *cobra.Command {
	var in watchlist.EntryInput
	var from, until string
	cmd := &cobra.Command{
		Use:   "add LIST",
		Short: "Add an entry, or replace the one for the same plate and country",
		Long: `Add an entry, or replace the one for the same plate and country. The command
returns when it is effective everywhere. Dates are yyyy-mm-dd or dd/mm/yyyy, with
hh:mm if wanted, in the time of this machine; a bare date is meant to its end.

On a list with tolerance pattern a plate may hold ? for one character and * for
any run, beside at least two letters or digits. Put it in quotes, or the shell
takes it for file names.`,
		Example: `  vigie entries add stolen --plate AB-123-CD --country FR --reason "vol" --case 2026/417 --until 2026-12-31
  vigie entries add partial --plate "AB-1??-*" --country FR --reason "témoin" --case 2026/418 --until 2026-12-31`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if in.Plate, err = plateArg(cmd, in.Plate); err != nil {
				return err
			}
			if from != "" {
				if in.ValidFrom, err = watchlist.ParseValidFrom(from, time.Local); err != nil {
					return fmt.Errorf("--from: %w", err)
				}
			}
			if until != "" {
				if in.ValidUntil, err = watchlist.ParseValidUntil(until, time.Local); err != nil {
					return fmt.Errorf("--until: %w", err)
				}
			}
			var e watchlist.Entry
			if err := c.post(cmd, listPath(args[0])+"/entries", in, &e); err != nil {
				return err
			}
			return c.print(cmd, e, func(w io.Writer) {
				row(w, "entry", e.ID)
				row(w, "list", e.List)
				row(w, "plate", e.Plate)
				row(w, "country", e.Country)
				row(w, "action", e.Action)
				row(w, "priority", e.Priority)
				row(w, "from", e.ValidFrom.Local().Format(day))
				row(w, "until", e.ValidUntil.Local().Format(day))
				row(w, "version", e.Version)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Plate, "plate", "", `plate, as written; "-" reads it from standard input`)
	f.StringVar(&in.Country, "country", "", "country of the plate, such as FR; empty when not known")
	f.StringVar(&in.Reason, "reason", "", "why it is wanted; mandatory")
	f.StringVar(&in.CaseRef, "case", "", "case reference; mandatory")
	f.StringVar(&until, "until", "", "end of validity; mandatory")
	f.StringVar(&from, "from", "", "begin of validity; now when empty")
	f.StringVar(&in.Action, "action", "", "inform, intercept, discreet, inquiry or specific; the list's when empty")
	f.StringVar(&in.Priority, "priority", "", "critical, high, medium or info; the list's when empty")
	f.StringVar(&in.Requester, "requester", "", "who asked for it")
	f.StringVar(&in.Vehicle, "vehicle", "", "make, model and colour, to compare with")
	f.StringVar(&in.Safety, "safety", "", "what an officer must know first")
	return cmd
}

func newEntryWithdrawCmd(c *client) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "withdraw LIST ENTRY",
		Short: "Withdraw an entry; returns when it alerts nowhere any more",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := c.remove(cmd, listPath(args[0])+"/entries/"+url.PathEscape(args[1]), reason)
			if err != nil {
				return err
			}
			return c.print(cmd, out, func(w io.Writer) {
				fmt.Fprintf(w, "entry %s is withdrawn everywhere, version %d\n", clean(args[1]), out.Version)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; mandatory")
	return cmd
}
