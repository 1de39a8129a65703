package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"vigie/cmd/vigie/internal/httpapi"
	"vigie/stream"
	"vigie/watchlist"
)

// listImport is one run of vigie lists import.
type listImport struct {
	list, file    string // file is "-" for standard input
	format        string
	defaults      watchlist.Defaults
	dryRun        bool
	offline       bool
	tolerance     string // of the list, offline
	rejectFile    string
	acceptPartial bool
}

func newListImportCmd(c *client) *cobra.Command {
	var in listImport
	cmd := &cobra.Command{
		Use:   "import LIST FILE",
		Short: "Add and change the entries that a file names",
		Long: `Add and change the entries that a file names. Entries that it does not name
stay: an import never removes any, and counts 0 removed. "-" reads standard input.

One bad row and nothing is changed: every bad row is named by row and column in
one pass, and the exit code is 2. --reject-file copies the bad rows, each with what
is wrong with it; with --accept-partial the good ones are applied nevertheless, and
the copy can be mended and imported by itself. The exit code is 2 then too.

Formats, recognised by the first rows unless --format says which:
  csv       columns by name, in English or French: plate, country, reason, action,
            priority, case_ref, requester, valid_from, valid_until, vehicle, safety;
            ; , or tab between them, UTF-8 or Windows-1252, dates as yyyy-mm-dd or
            dd/mm/yyyy in the zone of the server (--offline: of this machine)
  ncic      licence plate extract of NCIC, of fixed width
  ncic-csv  the same as 11 or 12 cells
  genetec   Category;PlateState;PlateNumber;EffectiveDate;ExpiryDate; a plate with *
            goes on a list with tolerance pattern only
  openalpr  Plate Number,Description,State/Province or Category

What a row does not say is taken from --reason, --case-ref, --requester, --country,
and --valid-until or --valid-for. NCIC needs an end of validity, Genetec a case
reference, OpenALPR both. With --country US or CA two letters are a state before they
are a country.

--offline checks a file without a server: against the rules for entries and
--tolerance, and not against what a list holds, so that every good row counts as
added.`,
		Example: `  vigie lists import stolen volés.csv --dry-run
  vigie lists import stolen ncic.txt --valid-for 2d --reject-file bad.txt --accept-partial
  vigie lists import stolen hotlist.txt --offline --case-ref 2026/417 -o json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.list, in.file = args[0], args[1]
			switch {
			case in.acceptPartial && in.rejectFile == "":
				return errors.New("--accept-partial: needs --reject-file, so that no row is lost")
			case in.rejectFile != "" && in.file == "-":
				return errors.New("--reject-file: needs a file by its name, since it is read twice; standard input is gone after once")
			}
			return in.run(cmd, c)
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.format, "format", "auto", "layout of the file: auto, csv, ncic, ncic-csv, genetec, openalpr")
	f.BoolVar(&in.dryRun, "dry-run", false, "say what would be done, and change nothing")
	f.BoolVar(&in.offline, "offline", false, "check the file without a server, and change nothing")
	f.StringVar(&in.tolerance, "tolerance", "exact", "with --offline: tolerance of the list; exact, ocr, near, pattern")
	f.StringVar(&in.rejectFile, "reject-file", "", "copy the bad rows there, with what is wrong; `file`")
	f.BoolVar(&in.acceptPartial, "accept-partial", false, "apply the good rows although others are bad; needs --reject-file")
	f.StringVar(&in.defaults.Reason, "reason", "", "why, for rows that do not say it")
	f.StringVar(&in.defaults.CaseRef, "case-ref", "", "case reference, for rows that do not say it")
	f.StringVar(&in.defaults.Requester, "requester", "", "who asked, for rows that do not say it")
	f.StringVar(&in.defaults.Country, "country", "", "country, for rows that do not say it, such as FR")
	f.StringVar(&in.defaults.ValidUntil, "valid-until", "", "end of validity, for rows that do not say it; `date`")
	f.StringVar(&in.defaults.ValidFor, "valid-for", "", "the same as a number of `days` from today, such as 30d")
	cmd.MarkFlagsMutuallyExclusive("valid-until", "valid-for")
	cmd.MarkFlagsMutuallyExclusive("offline", "accept-partial")
	return cmd
}

func (in *listImport) run(cmd *cobra.Command, c *client) error {
	format, err := watchlist.ParseFormat(in.format)
	if err != nil {
		return fmt.Errorf("--format: %w", err)
	}
	file := cmd.InOrStdin()
	if in.file != "-" {
		f, err := os.Open(in.file)
		if err != nil {
			return err
		}
		defer f.Close()
		file = f
		if info, err := f.Stat(); err == nil && info.Size() > 1<<20 && !in.offline {
			fmt.Fprintf(cmd.ErrOrStderr(), "sending %s, %d MB\n", filepath.Base(in.file), info.Size()>>20)
		}
	}
	var reject *newFile
	if in.rejectFile != "" {
		// Before anything is applied: where it cannot be written, nothing is.
		if reject, err = in.createReject(); err != nil {
			return fmt.Errorf("--reject-file: %w", err)
		}
		defer reject.discard()
	}
	var rep stream.ImportReport
	if in.offline {
		rep, err = in.check(file, format)
	} else {
		rep, err = in.send(cmd, c, file)
	}
	if rep.Rejected == 0 && err != nil {
		return err
	}
	done := err == nil && (rep.Rejected == 0 || in.acceptPartial)
	if rep.Rejected > 0 && err == nil {
		err = refused(&apiError{in.rejected(rep)})
	}
	if reject != nil && rep.Rejected > 0 {
		if failed := in.writeReject(reject, format, rep); failed != nil {
			err = errors.Join(err, fmt.Errorf("--reject-file: %w", failed))
		} else {
			fmt.Fprintf(cmd.ErrOrStderr(), "%d bad rows are in %s, of format %s\n", rep.Rejected, in.rejectFile, rep.Format)
		}
	}
	if done || c.output == "json" {
		if failed := c.print(cmd, rep, func(w io.Writer) { in.table(w, rep) }); failed != nil {
			return failed
		}
	}
	return err
}

func (in *listImport) table(w io.Writer, rep stream.ImportReport) {
	if in.offline {
		fmt.Fprintf(w, "%d rows of format %s: all are good\n", rep.Rows, rep.Format)
		return
	}
	fmt.Fprintf(w, "%d rows: %d added, %d changed, %d the same", rep.Rows, rep.Added, rep.Changed, rep.Same)
	if rep.Rejected > 0 {
		fmt.Fprintf(w, ", %d rejected", rep.Rejected)
	}
	fmt.Fprintln(w)
	if rep.Applied {
		fmt.Fprintf(w, "in effect everywhere, version %d\n", rep.Version)
	} else {
		fmt.Fprintln(w, "a trial: nothing was changed")
	}
}

// send has the server import the file. With bad rows it returns the report, and an
// error unless the rest was accepted.
func (in *listImport) send(cmd *cobra.Command, c *client, file io.Reader) (rep stream.ImportReport, err error) {
	q := url.Values{}
	for name, value := range map[string]string{
		"format": in.format, "reason": in.defaults.Reason, "case_ref": in.defaults.CaseRef,
		"requester": in.defaults.Requester, "country": in.defaults.Country,
		"valid_until": in.defaults.ValidUntil, "valid_for": in.defaults.ValidFor,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if in.dryRun {
		q.Set("dry_run", "1")
	}
	if in.acceptPartial {
		q.Set("accept_partial", "1")
	}
	// With -o json the report is the one document, whether rows are bad or not.
	quiet := *c
	quiet.output = "table"
	// net/http closes a body that can be closed; the file is not its.
	err = quiet.do(cmd, "POST", listPath(in.list)+"/import?"+q.Encode(), "text/csv", io.NopCloser(file), &rep)
	var api *apiError
	switch {
	case !errors.As(err, &api):
		return rep, err
	case api.Report == nil:
		if c.output == "json" {
			return rep, errors.Join(err, print(cmd, c.output, &api.Problem, nil))
		}
		return rep, err
	}
	rep = *api.Report
	for _, e := range api.Errors {
		rep.Errors = append(rep.Errors, watchlist.RowError{Row: e.Row, Column: e.Column, Reason: e.Reason})
	}
	return rep, err
}

// check judges the file as a server would that knows nothing of the list.
func (in *listImport) check(file io.Reader, format watchlist.Format) (rep stream.ImportReport, err error) {
	l := &watchlist.List{ID: in.list}
	if l.Tolerance, err = watchlist.ParseTolerance(in.tolerance); err != nil {
		return rep, fmt.Errorf("--tolerance: %w", err)
	}
	if !watchlist.ValidID(in.list) {
		return rep, errors.New("LIST: is not the id of a list")
	}
	if l.Salt, err = watchlist.NewSalt(rand.Reader); err != nil {
		return rep, err
	}
	im, err := watchlist.ParseEntries(file, l, time.Now(), watchlist.ImportOptions{Format: format, Defaults: in.defaults, Zone: time.Local})
	switch {
	case errors.As(err, new(*watchlist.FileError)), errors.As(err, new(*watchlist.DefaultsError)):
		return rep, refused(err)
	case err != nil:
		return rep, err
	}
	rep = stream.ImportReport{
		Format: im.Format.String(), Rows: im.Rows, Added: len(im.Entries), Rejected: im.Rejected, Errors: im.Errors, Omitted: im.Omitted,
	}
	if limit := l.Tolerance.MaxEntries(); rep.Rejected == 0 && limit > 0 && rep.Added > limit {
		return rep, refused(&stream.FullError{Tolerance: l.Tolerance, Entries: rep.Added, Max: limit})
	}
	return rep, nil
}

// rejected says for people which rows are bad, where no server has said it.
func (in *listImport) rejected(rep stream.ImportReport) httpapi.Problem {
	p := httpapi.Problem{
		Title:  "The file would not be imported",
		Detail: strconv.Itoa(rep.Rejected) + " of " + strconv.Itoa(rep.Rows) + " rows break rules",
		Mend:   "correct the rows named",
	}
	switch {
	case rep.Applied:
		p.Title, p.Mend = "Some rows were not imported", "correct them in the reject file and import that"
	case in.acceptPartial:
		p.Title = "Some rows would not be imported"
	}
	if rep.Omitted > 0 {
		p.Detail += "; " + strconv.Itoa(rep.Omitted) + " more errors are not listed"
	}
	for _, e := range rep.Errors {
		p.Errors = append(p.Errors, httpapi.ProblemError{Row: e.Row, Column: e.Column, Reason: e.Reason})
	}
	return p
}

// newFile is a file that is not there under its name before it is whole. Nobody
// else may read it: it holds plates.
type newFile struct {
	*os.File
	path string
}

func createNew(path string) (*newFile, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".vigie-*")
	if err != nil {
		return nil, err
	}
	return &newFile{f, path}, nil
}

// keep gives the file its name, in the place of one that may be there.
func (f *newFile) keep() error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), f.path)
}

// discard removes the file unless it was kept.
func (f *newFile) discard() {
	_ = f.Close()
	_ = os.Remove(f.Name())
}

// createReject begins the file of bad rows.
func (in *listImport) createReject() (*newFile, error) {
	a, errA := os.Stat(in.rejectFile)
	b, errB := os.Stat(in.file)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return nil, errors.New("is the file that is imported; name another one")
	}
	return createNew(in.rejectFile)
}

// writeReject reads the file again and copies its bad rows.
func (in *listImport) writeReject(to *newFile, format watchlist.Format, rep stream.ImportReport) error {
	if rep.Omitted > 0 {
		return fmt.Errorf("not written: %d errors are more than can be named one by one; correct the file itself", len(rep.Errors)+rep.Omitted)
	}
	// Opened anew: a request that was answered early may still read the other one.
	f, err := os.Open(in.file)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := watchlist.WriteRejected(to, f, format, rep.Errors)
	switch {
	case err != nil:
		return err
	case n != rep.Rejected:
		return errors.New("not written: the file has changed since it was imported")
	}
	return to.keep()
}

func newListExportCmd(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export LIST [FILE]",
		Short: "Write the entries of a list as CSV, which lists import reads",
		Long: `Write the entries of a list as CSV, which lists import reads again, to standard
output or to FILE, which is there only once it is whole. Cells that a spreadsheet
would run as a formula begin with an apostrophe, which an import drops. The entries
are fetched page by page: what is changed meanwhile may or may not be among them.
For JSON see vigie entries list -o json.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.output == "json" {
				return errors.New("-o json: lists export writes CSV; vigie entries list LIST --limit 0 -o json writes JSON")
			}
			if len(args) == 1 {
				_, err := c.export(cmd, args[0], cmd.OutOrStdout())
				return err
			}
			f, err := createNew(args[1])
			if err != nil {
				return err
			}
			defer f.discard()
			n, err := c.export(cmd, args[0], f)
			if err != nil {
				return err
			}
			if err := f.keep(); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d entries are in %s\n", n, args[1])
			return nil
		},
	}
	return cmd
}

// export writes a list page by page. It returns the number of entries.
func (c *client) export(cmd *cobra.Command, list string, w io.Writer) (n int, err error) {
	var page httpapi.EntryPage
	next := func() error {
		q := url.Values{"limit": {"1000"}}
		if page.Next != "" {
			q.Set("after", page.Next)
		}
		page = httpapi.EntryPage{}
		return c.get(cmd, listPath(list)+"/entries?"+q.Encode(), &page)
	}
	if err := next(); err != nil { // before the header: a list may not be there
		return 0, err
	}
	var failed error
	err = watchlist.WriteCSV(w, func(yield func(*watchlist.Entry) bool) {
		for {
			for _, e := range page.Entries {
				if !yield(e) {
					return
				}
				n++
			}
			if page.Next == "" {
				return
			}
			if failed = next(); failed != nil {
				return
			}
		}
	})
	return n, errors.Join(failed, err)
}
