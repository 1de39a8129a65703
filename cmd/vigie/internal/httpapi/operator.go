package httpapi

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"vigie/stream"
	"vigie/watchlist"
)

// listDesk is where operators change lists; stream.Desk is one. A change
// returns once it is effective. Errors are those of package stream.
type listDesk interface {
	Lists() []*watchlist.List
	List(id string) (*watchlist.List, bool)
	Count(list string) int
	PutList(ctx context.Context, actor string, l watchlist.List) (*watchlist.List, error)
	DropList(ctx context.Context, actor, id, reason string) (version int64, err error)

	// Entries returns up to limit entries in order of id, after the id given.
	Entries(list, after string, limit int) ([]*watchlist.Entry, error)
	Entry(list, id string) (*watchlist.Entry, bool)
	AddEntry(ctx context.Context, actor, list string, in watchlist.EntryInput) (*watchlist.Entry, error)
	WithdrawEntry(ctx context.Context, actor, list, id, reason string) (version int64, err error)
	ImportFile(ctx context.Context, actor, list string, file io.Reader, opt stream.ImportOptions) (stream.ImportReport, error)
	Explain(q stream.ExplainQuery) stream.Explanation
}

const (
	maxForm   = 64 << 10 // bytes of a JSON body that a person writes
	maxImport = 1 << 30  // bytes of a file of entries: ten million rows
	// longAnswer is for what may carry or change millions of rows.
	longAnswer = 15 * time.Minute

	defaultPage = 100
	maxPage     = 1000
)

// ListView is a list as operators see it.
type ListView struct {
	*watchlist.List
	Entries int `json:"entries"`
}

// ListPage is the answer of GET /v1/lists.
type ListPage struct {
	Lists []ListView `json:"lists"`
}

// EntryPage is one page of a list. Next is the value of ?after= for the next
// page, empty on the last.
type EntryPage struct {
	Entries []*watchlist.Entry `json:"entries"`
	Next    string             `json:"next,omitempty"`
}

// Withdrawn confirms that something is off the lists, at a version of the
// control log.
type Withdrawn struct {
	Version int64 `json:"version"`
}

// WithdrawRequest is the body of a DELETE. The header Vigie-Reason may carry
// the reason instead.
type WithdrawRequest struct {
	Reason string `json:"reason"`
}

// ExplainRequest asks whether a read would hit. The plate is in the body, so
// that it is in no address and no log of one.
type ExplainRequest struct {
	Plate   string    `json:"plate"`
	Country string    `json:"country,omitempty"`
	Conf    float32   `json:"conf,omitempty"`
	Sensor  string    `json:"sensor,omitempty"`
	At      time.Time `json:"at,omitzero"` // now when absent
}

func (s *Server) view(l *watchlist.List) ListView {
	return ListView{List: l, Entries: s.cfg.Desk.Count(l.ID)}
}

func (s *Server) getLists(w http.ResponseWriter, _ *http.Request, _ *Token) error {
	page := ListPage{Lists: []ListView{}}
	for _, l := range s.cfg.Desk.Lists() {
		page.Lists = append(page.Lists, s.view(l))
	}
	return writeJSON(w, http.StatusOK, page)
}

func (s *Server) postList(w http.ResponseWriter, r *http.Request, who *Token) error {
	var in watchlist.List
	if err := readJSON(w, r, maxForm, &in); err != nil {
		return err
	}
	l, err := s.cfg.Desk.PutList(r.Context(), who.Name, in)
	if err != nil {
		return err
	}
	s.logChange(who, "list put", l.ID, "", l.Version)
	return writeJSON(w, http.StatusOK, s.view(l))
}

func (s *Server) getList(w http.ResponseWriter, r *http.Request, _ *Token) error {
	l, ok := s.cfg.Desk.List(r.PathValue("list"))
	if !ok {
		return stream.ErrNoList
	}
	return writeJSON(w, http.StatusOK, s.view(l))
}

func (s *Server) deleteList(w http.ResponseWriter, r *http.Request, who *Token) error {
	reason, err := readReason(w, r)
	if err != nil {
		return err
	}
	list := r.PathValue("list")
	version, err := s.cfg.Desk.DropList(r.Context(), who.Name, list, reason)
	if err != nil {
		return err
	}
	s.logChange(who, "list dropped", list, "", version)
	return writeJSON(w, http.StatusOK, Withdrawn{Version: version})
}

func (s *Server) getEntries(w http.ResponseWriter, r *http.Request, who *Token) error {
	q := r.URL.Query()
	limit, err := pageLimit(q)
	if err != nil {
		return err
	}
	list := r.PathValue("list")
	entries, err := s.cfg.Desk.Entries(list, q.Get("after"), limit)
	if err != nil {
		return err
	}
	s.cfg.Log.Info("entries consulted", zap.String("actor", who.Name), zap.String("list", list), zap.Int("entries", len(entries)))
	page := EntryPage{Entries: entries}
	if page.Entries == nil {
		page.Entries = []*watchlist.Entry{}
	}
	if len(entries) == limit {
		page.Next = entries[limit-1].ID
	}
	return writeJSON(w, http.StatusOK, page)
}

func (s *Server) getEntry(w http.ResponseWriter, r *http.Request, who *Token) error {
	list, id := r.PathValue("list"), r.PathValue("entry")
	if _, ok := s.cfg.Desk.List(list); !ok {
		return stream.ErrNoList
	}
	e, ok := s.cfg.Desk.Entry(list, id)
	if !ok {
		return stream.ErrNoEntry
	}
	s.cfg.Log.Info("entry consulted", zap.String("actor", who.Name), zap.String("list", list), zap.String("entry", e.ID))
	return writeJSON(w, http.StatusOK, e)
}

func (s *Server) postEntry(w http.ResponseWriter, r *http.Request, who *Token) error {
	var in watchlist.EntryInput
	if err := readJSON(w, r, maxForm, &in); err != nil {
		return err
	}
	list := r.PathValue("list")
	e, err := s.cfg.Desk.AddEntry(r.Context(), who.Name, list, in)
	if err != nil {
		return err
	}
	s.logChange(who, "entry put", list, e.ID, e.Version)
	w.Header().Set("Location", "/v1/lists/"+e.List+"/entries/"+e.ID)
	return writeJSON(w, http.StatusCreated, e)
}

func (s *Server) deleteEntry(w http.ResponseWriter, r *http.Request, who *Token) error {
	reason, err := readReason(w, r)
	if err != nil {
		return err
	}
	list, id := r.PathValue("list"), r.PathValue("entry")
	version, err := s.cfg.Desk.WithdrawEntry(r.Context(), who.Name, list, id, reason)
	if err != nil {
		return err
	}
	s.logChange(who, "entry withdrawn", list, id, version)
	return writeJSON(w, http.StatusOK, Withdrawn{Version: version})
}

func (s *Server) postImport(w http.ResponseWriter, r *http.Request, who *Token) error {
	opt, err := importParams(r.URL.Query())
	if err != nil {
		return err
	}
	body, err := openBody(w, r, maxImport, "text/csv", "text/plain")
	if err != nil {
		return err
	}
	list := r.PathValue("list")
	report, err := s.cfg.Desk.ImportFile(r.Context(), who.Name, list, body, opt)
	if err != nil {
		return err
	}
	if report.Rejected > 0 && (!opt.Partial || report.Omitted > 0) {
		return rejectedImport(report)
	}
	if report.Applied {
		s.logChange(who, "list imported", list, "", report.Version)
	}
	return writeJSON(w, http.StatusOK, report)
}

// importParams reads how a file is to be imported.
func importParams(q url.Values) (opt stream.ImportOptions, err error) {
	if opt.DryRun, err = dryRunParam(q); err != nil {
		return opt, err
	}
	if text := q.Get("accept_partial"); text != "" {
		if opt.Partial, err = strconv.ParseBool(text); err != nil {
			return opt, badParam("accept_partial", "must be 1 or 0")
		}
	}
	if word := q.Get("format"); word != "" {
		if opt.Format, err = watchlist.ParseFormat(word); err != nil {
			return opt, badParam("format", err.Error())
		}
	}
	opt.Defaults = watchlist.Defaults{
		Reason: q.Get("reason"), CaseRef: q.Get("case_ref"), Requester: q.Get("requester"), Country: q.Get("country"),
		ValidUntil: q.Get("valid_until"), ValidFor: q.Get("valid_for"),
	}
	return opt, nil
}

func rejectedImport(report stream.ImportReport) error {
	d := &detailed{err: errImport, detail: strconv.Itoa(report.Rejected) + " of " + strconv.Itoa(report.Rows) + " rows break rules"}
	if report.Omitted > 0 {
		d.detail += "; " + strconv.Itoa(report.Omitted) + " more errors are not listed"
	}
	for _, e := range report.Errors {
		d.errs = append(d.errs, ProblemError{Row: e.Row, Column: e.Column, Reason: e.Reason})
	}
	report.Errors = nil // they stand there already
	d.report = &report
	return d
}

func (s *Server) postExplain(w http.ResponseWriter, r *http.Request, who *Token) error {
	var in ExplainRequest
	if err := readJSON(w, r, maxForm, &in); err != nil {
		return err
	}
	if strings.TrimSpace(in.Plate) == "" {
		return &stream.InvalidError{Fields: []watchlist.FieldError{{Field: "plate", Reason: "is required"}}}
	}
	ex := s.cfg.Desk.Explain(stream.ExplainQuery{
		Plate: in.Plate, Country: in.Country, Conf: in.Conf, Sensor: in.Sensor, At: in.At,
	})
	s.cfg.Log.Info("lists consulted", zap.String("actor", who.Name), zap.Int("hits", len(ex.Hits)))
	return writeJSON(w, http.StatusOK, ex)
}

// logChange records who changed what. Ids only: what an entry says, and why it
// was changed, stays in the control log.
func (s *Server) logChange(who *Token, kind, list, entry string, version int64) {
	s.cfg.Log.Info("lists changed", zap.String("actor", who.Name), zap.String("change", kind),
		zap.String("list", list), zap.String("entry", entry), zap.Int64("version", version))
}

// readReason takes the reason of a withdrawal from the header Vigie-Reason or
// from the body. Whether it is good enough is for the desk to say.
func readReason(w http.ResponseWriter, r *http.Request) (string, error) {
	if reason := r.Header.Get("Vigie-Reason"); reason != "" {
		return reason, nil
	}
	var in WithdrawRequest
	if err := readOptionalJSON(w, r, maxForm, &in); err != nil {
		return "", err
	}
	return in.Reason, nil
}

func badParam(name, reason string) error {
	return &detailed{err: errBadParam, errs: []ProblemError{{Field: name, Reason: reason}}}
}
