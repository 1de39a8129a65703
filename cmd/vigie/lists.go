package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"vigie/cmd/vigie/internal/httpapi"
	"vigie/watchlist"
)

func newListsCmd() *cobra.Command {
	c := new(client)
	cmd := &cobra.Command{
		Use:   "lists",
		Short: "Show the watchlists, and create, import, export or drop one",
		Long: `Show the watchlists. The commands below create, change, fill and drop them, with
an operator's token in VIGIE_TOKEN or in a file named by --token-file.`,
		Example: `  vigie lists
  vigie lists create stolen --name "Véhicules volés" --owner DNPJ --legal-basis "CSI L233-1" --action intercept
  vigie lists import stolen volés.csv --dry-run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var page httpapi.ListPage
			if err := c.get(cmd, "/v1/lists", &page); err != nil {
				return err
			}
			return c.print(cmd, page, func(w io.Writer) {
				if len(page.Lists) == 0 {
					fmt.Fprintln(cmd.ErrOrStderr(), "no lists yet; vigie lists create makes one")
					return
				}
				row(w, "ID", "NAME", "OWNER", "ENTRIES", "TOLERANCE", "QUEUE", "ACTION", "PRIORITY")
				for _, l := range page.Lists {
					row(w, l.ID, l.Name, l.Owner, l.Entries, l.Tolerance, queueName(l.Queue), l.DefaultAction, l.DefaultPriority)
				}
			})
		},
	}
	c.register(cmd)
	cmd.AddCommand(newListCreateCmd(c), newListShowCmd(c), newListImportCmd(c), newListExportCmd(c), newListDropCmd(c))
	return cmd
}

// queueName is the queue that a list's alerts go to.
func queueName(queue string) string {
	if queue == "" {
		return watchlist.DefaultQueue
	}
	return queue
}

func listPath(id string) string { return "/v1/lists/" + url.PathEscape(id) }

func newListShowCmd(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "show LIST",
		Short: "Show the settings of a list",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var l httpapi.ListView
			if err := c.get(cmd, listPath(args[0]), &l); err != nil {
				return err
			}
			return c.printList(cmd, l)
		},
	}
}

func (c *client) printList(cmd *cobra.Command, l httpapi.ListView) error {
	return c.print(cmd, l, func(w io.Writer) {
		row(w, "list", l.ID)
		row(w, "name", l.Name)
		row(w, "owner", l.Owner)
		row(w, "legal basis", l.LegalBasis)
		row(w, "purpose", l.Purpose)
		row(w, "entries", l.Entries)
		row(w, "tolerance", l.Tolerance)
		if l.Threshold != 0 {
			row(w, "threshold", l.Threshold)
		}
		row(w, "queue", queueName(l.Queue))
		row(w, "action", l.DefaultAction)
		row(w, "priority", l.DefaultPriority)
		row(w, "sensors", everywhere(l.Sensors))
		row(w, "zones", everywhere(l.Zones))
		row(w, "version", l.Version)
	})
}

func everywhere(names []string) string {
	if len(names) == 0 {
		return "not limited"
	}
	return fmt.Sprint(names)
}

func newListCreateCmd(c *client) *cobra.Command {
	var in watchlist.List
	var tolerance, action, priority string
	var change bool
	cmd := &cobra.Command{
		Use:   "create LIST",
		Short: "Create a list, or with --change alter the settings given",
		Long: `Create a list. An id that is taken is an error, so that the settings of a list
are not overwritten by mistake; --change alters those that are given and keeps
the others. The command returns when the change is effective everywhere.

--tolerance says how far a read may be from an entry and still hit:
  exact    equal but for spaces, hyphens and the like; for lists of any size
  ocr      also look-alikes and likely misreads
  near     also one character more, less or another, when the evidence is good;
           at most 20,000 entries
  pattern  entries may hold ? (one character) and * (any run); at most 1,000
With ocr and near, --threshold is the least score, 0 to 1, at which a hit on a
text that differs alerts; 0 leaves the choice to Vigie.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := c.listToWrite(cmd, args[0], change)
			if err != nil {
				return err
			}
			var errs []error
			for _, f := range []struct {
				name string
				set  func() error
			}{
				{"name", func() error { l.Name = in.Name; return nil }},
				{"owner", func() error { l.Owner = in.Owner; return nil }},
				{"legal-basis", func() error { l.LegalBasis = in.LegalBasis; return nil }},
				{"purpose", func() error { l.Purpose = in.Purpose; return nil }},
				{"queue", func() error { l.Queue = in.Queue; return nil }},
				{"sensor", func() error { l.Sensors = in.Sensors; return nil }},
				{"zone", func() error { l.Zones = in.Zones; return nil }},
				{"tolerance", func() (err error) { l.Tolerance, err = watchlist.ParseTolerance(tolerance); return err }},
				{"threshold", func() error {
					if l.Threshold = in.Threshold; !watchlist.ValidThreshold(l.Threshold) {
						return errors.New("must be a number from 0 to 1")
					}
					return nil
				}},
				{"action", func() (err error) { l.DefaultAction, err = watchlist.ParseAction(action); return err }},
				{"priority", func() (err error) { l.DefaultPriority, err = watchlist.ParsePriority(priority); return err }},
			} {
				if !cmd.Flags().Changed(f.name) {
					continue
				}
				if err := f.set(); err != nil {
					errs = append(errs, fmt.Errorf("--%s: %w", f.name, err))
				}
			}
			if len(errs) > 0 {
				return errors.Join(errs...)
			}
			var out httpapi.ListView
			if err := c.post(cmd, "/v1/lists", l, &out); err != nil {
				return err
			}
			return c.printList(cmd, out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Name, "name", "", "name for people")
	f.StringVar(&in.Owner, "owner", "", "service that answers for the list")
	f.StringVar(&in.LegalBasis, "legal-basis", "", `text that allows it, such as "CSI L233-1"`)
	f.StringVar(&in.Purpose, "purpose", "", "what it is for")
	f.StringVar(&tolerance, "tolerance", "exact", "how far a read may be from an entry: exact, ocr, near, pattern; see above")
	f.Float32Var(&in.Threshold, "threshold", 0, "least score of a hit on a text that differs, with ocr and near; 0 leaves it to Vigie")
	f.StringVar(&in.Queue, "queue", watchlist.DefaultQueue, "queue that receives the alerts")
	f.StringSliceVar(&in.Zones, "zone", nil, "limit to a zone; may be repeated")
	f.StringSliceVar(&in.Sensors, "sensor", nil, "limit to a sensor; may be repeated")
	f.StringVar(&action, "action", "inform", "what entries ask for that say nothing: inform, intercept, discreet, inquiry, specific")
	f.StringVar(&priority, "priority", "medium", "priority of entries that say nothing: critical, high, medium, info")
	f.BoolVar(&change, "change", false, "alter the settings given of a list that is there")
	return cmd
}

// listToWrite is the list as it is, or an empty one under a free id.
func (c *client) listToWrite(cmd *cobra.Command, id string, change bool) (*watchlist.List, error) {
	quiet := *c
	quiet.output = "table" // a list that is not there is no result
	var old httpapi.ListView
	err := quiet.get(cmd, listPath(id), &old)
	var api *apiError
	missing := errors.As(err, &api) && api.Type == "urn:vigie:problem:no-list"
	switch {
	case missing && change:
		return nil, fmt.Errorf("no list has the id %q; without --change it is created", id)
	case missing:
		return &watchlist.List{ID: id}, nil
	case err != nil:
		return nil, err
	case !change:
		return nil, refused(fmt.Errorf("a list has the id %q already; --change alters its settings", id))
	}
	return old.List, nil
}

func newListDropCmd(c *client) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "drop LIST",
		Short: "Withdraw a list with all its entries",
		Long:  `Withdraw a list with all its entries. The command returns when nothing of it alerts any more.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := c.remove(cmd, listPath(args[0]), reason)
			if err != nil {
				return err
			}
			return c.print(cmd, out, func(w io.Writer) {
				fmt.Fprintf(w, "list %s is withdrawn everywhere, version %d\n", clean(args[0]), out.Version)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; mandatory")
	return cmd
}
