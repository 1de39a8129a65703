package stream

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"vigie/matcher"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

var (
	// ErrNoList says that no list has that id.
	ErrNoList = errors.New("no such list")
	// ErrNoEntry says that the list has no entry of that id (any more).
	ErrNoEntry = errors.New("no such entry on the list")
	// ErrNoExemption says that the list has no exemption of that id (any more).
	ErrNoExemption = errors.New("no such exemption on the list")
	// ErrConflict says that somebody else made a list of that id at the same
	// moment, in another process, and that list stands.
	ErrConflict = errors.New("somebody else made that list at the same moment; look at it and repeat")
	// ErrChanged says that the tolerance of a list was changed while a file for it
	// was read. Nothing was imported.
	ErrChanged = errors.New("the tolerance of the list was changed while the file was read; import it again")
	// ErrPatterns says that a list cannot take another tolerance while it holds
	// entries with wildcards: they would mean nothing there.
	ErrPatterns = errors.New("the list holds entries with wildcards, which only tolerance pattern knows; withdraw them first")
	// ErrNotConfirmed says that a change is recorded but could not be
	// confirmed in time: it may not be effective everywhere yet. Doing it
	// again is safe and confirms it.
	ErrNotConfirmed = errors.New("recorded, but not confirmed to be effective everywhere yet; repeating it is safe")
)

// InvalidError says which fields of an operator's input break which rules.
type InvalidError struct{ Fields []watchlist.FieldError }

func (e *InvalidError) Error() string {
	var b strings.Builder
	for i, f := range e.Fields {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(f.Error())
	}
	return b.String()
}

// FullError says that a change would leave more entries on a list than its
// tolerance allows. Nothing of the change was recorded.
type FullError struct {
	Tolerance watchlist.Tolerance
	Entries   int // that the list would hold
	Max       int // Tolerance.MaxEntries
}

func (e *FullError) Error() string {
	return fmt.Sprintf("the list would hold %d entries; with tolerance %s it may hold %d", e.Entries, e.Tolerance, e.Max)
}

// room returns a *FullError unless a list of tolerance t may hold a number of entries.
func room(t watchlist.Tolerance, entries int) error {
	if limit := t.MaxEntries(); limit > 0 && entries > limit {
		return &FullError{Tolerance: t, Entries: entries, Max: limit}
	}
	return nil
}

// ImportReport is the plan of an import and what became of it. Nothing is
// applied unless every row is good, or the bad ones were given up beforehand.
type ImportReport struct {
	Format   string               `json:"format,omitempty"` // layout of a file of entries
	Rows     int                  `json:"rows"`
	Added    int                  `json:"added"`
	Changed  int                  `json:"changed"`
	Removed  int                  `json:"removed"`
	Same     int                  `json:"same"`
	Rejected int                  `json:"rejected"`
	Errors   []watchlist.RowError `json:"errors,omitempty"`
	Omitted  int                  `json:"omitted,omitempty"` // errors beyond those listed
	Applied  bool                 `json:"applied"`
	Version  int64                `json:"version"` // control-log version after it, or the version planned against
}

// ExplainQuery asks whether a read would hit.
type ExplainQuery struct {
	Plate   string
	Country string
	Sensor  string
	Conf    float32
	At      time.Time // zero means now
}

// Explanation says what would happen to a read, and why.
type Explanation struct {
	Normalised string        `json:"normalised,omitempty"` // the plate as it is compared
	Problem    string        `json:"problem,omitempty"`    // why the text is never matched
	Country    plate.Country `json:"country,omitempty"`
	Syntax     string        `json:"syntax,omitempty"` // valid, possible, invalid for the country
	Version    int64         `json:"version"`          // control-log version asked
	Hits       []Explained   `json:"hits"`             // entries that would alert
	Others     []Explained   `json:"others,omitempty"` // entries that came near, with the rule that stopped them
}

// Explained is one entry that a read met or nearly met.
type Explained struct {
	List     string  `json:"list"`
	Entry    string  `json:"entry"`
	Plate    string  `json:"plate"` // normalised plate of the entry, or its pattern
	Queue    string  `json:"queue,omitempty"`
	Action   string  `json:"action"`
	Priority string  `json:"priority"`
	Kind     string  `json:"kind,omitempty"`
	Country  string  `json:"country"` // same, unknown, different
	Grade    string  `json:"grade,omitempty"`
	Score    float32 `json:"score,omitempty"`
	// Threshold is the score that a hit on a text that differs needs on this
	// list; 0 where the score does not decide.
	Threshold float32 `json:"threshold,omitempty"`
	Differs   []int   `json:"differs,omitempty"`
	Because   string  `json:"because"` // the rule that decided, in words
}

// Desk is where operators change lists. It confirms a change only once it is
// effective: an entry withdrawn here alerts nowhere after the call returned.
//
// A withdrawal takes three steps: the control log records it, a fence at its
// version is set on every queue, and this process's replica passes it. A matcher
// anywhere that is behind the fence, or a batch matched before it, is refused
// by the queue and matches again, so the confirmation need not know who else runs.
type Desk struct {
	cfg DeskConfig
	// writing is held from looking at the state to having read the change back,
	// so that what one change decides is true when it is recorded. A withdrawal
	// does not take it: it decides nothing, and must not wait behind an import.
	writing sync.Mutex

	mu sync.Mutex // guards fenced
	// fenced are the queues ever fenced here: one whose last list is gone has
	// alerts still.
	fenced map[string]bool
}

// DeskConfig has the parts of a Desk; the first three are required.
type DeskConfig struct {
	Log     ControlLog
	Replica *Replica
	Fencer  Fencer
	Clock   Clock          // time.Now when nil
	Wait    time.Duration  // how long a confirmation may take; 5 s when 0
	Zone    *time.Location // zone of bare dates in imports; Europe/Paris or, without zone data, UTC when nil
	Formats []string       // of vendors that sensors of the registry may have; any when nil
}

// NewDesk returns a Desk, or says which part is missing.
func NewDesk(cfg DeskConfig) (*Desk, error) {
	switch {
	case cfg.Log == nil:
		return nil, errors.New("stream: DeskConfig.Log is required")
	case cfg.Replica == nil:
		return nil, errors.New("stream: DeskConfig.Replica is required")
	case cfg.Fencer == nil:
		return nil, errors.New("stream: DeskConfig.Fencer is required")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Wait == 0 {
		cfg.Wait = 5 * time.Second
	}
	if cfg.Zone == nil {
		cfg.Zone = time.UTC
		if paris, err := time.LoadLocation("Europe/Paris"); err == nil {
			cfg.Zone = paris
		}
	}
	return &Desk{cfg: cfg, fenced: map[string]bool{}}, nil
}

// Lists returns every list in order of id.
func (d *Desk) Lists() (ls []*watchlist.List) {
	d.cfg.Replica.View(func(s *control.State) { ls = s.Lists() })
	return ls
}

// List returns the list of that id.
func (d *Desk) List(id string) (l *watchlist.List, ok bool) {
	d.cfg.Replica.View(func(s *control.State) { l = s.List(id) })
	return l, l != nil
}

// Count is the number of entries on a list.
func (d *Desk) Count(list string) (n int) {
	d.cfg.Replica.View(func(s *control.State) { n = s.Len(list) })
	return n
}

// Entries returns up to limit entries of a list in order of id, after the id given.
func (d *Desk) Entries(list, after string, limit int) (es []*watchlist.Entry, err error) {
	d.cfg.Replica.View(func(s *control.State) {
		if s.List(list) == nil {
			err = ErrNoList
			return
		}
		es = s.Entries(list, after, limit)
	})
	return es, err
}

// Entry returns one entry.
func (d *Desk) Entry(list, id string) (e *watchlist.Entry, ok bool) {
	d.cfg.Replica.View(func(s *control.State) { e = s.Entry(list, id) })
	return e, e != nil
}

// PutList creates a list or changes its settings, and returns it as recorded. A
// list that holds more entries than the tolerance asked for allows stays as it is,
// with a *FullError, and so does one that holds patterns and is to have another
// tolerance, with ErrPatterns.
func (d *Desk) PutList(ctx context.Context, actor string, l watchlist.List) (*watchlist.List, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	old, exists := d.List(l.ID)
	if exists {
		l.Salt = old.Salt
	} else {
		salt, err := watchlist.NewSalt(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("stream: put list: %w", err)
		}
		l.Salt = salt
	}
	if fields := l.Validate(); len(fields) > 0 {
		return nil, &InvalidError{Fields: fields}
	}
	if exists && l.Tolerance != old.Tolerance {
		if err := d.mayBecome(old, l.Tolerance); err != nil {
			return nil, err
		}
	}
	rec, err := control.ListRecord(&l, actor, d.cfg.Clock())
	if err != nil {
		return nil, fmt.Errorf("stream: put list: %w", err)
	}
	v, err := d.write(ctx, []control.Record{rec})
	if err != nil {
		return nil, err
	}
	if now, ok := d.List(l.ID); !ok || !bytes.Equal(now.Salt, l.Salt) {
		return nil, ErrConflict // entries of a list belong to its salt
	}
	l.Version = v
	return &l, nil
}

// mayBecome says why the entries of l keep it from having tolerance t.
func (d *Desk) mayBecome(l *watchlist.List, t watchlist.Tolerance) (err error) {
	d.cfg.Replica.View(func(s *control.State) {
		if err = room(t, s.Len(l.ID)); err != nil || l.Tolerance != watchlist.TolerancePattern {
			return
		}
		for e := range s.All(l.ID) {
			if e.IsPattern() {
				err = ErrPatterns
				return
			}
		}
	})
	return err
}

// DropList withdraws a list with all its entries and their exemptions.
func (d *Desk) DropList(ctx context.Context, actor, id, reason string) (int64, error) {
	why, err := d.why(actor, reason)
	if err != nil {
		return 0, err
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	var records []control.Record
	d.cfg.Replica.View(func(s *control.State) {
		if s.List(id) == nil {
			err = ErrNoList
			return
		}
		// The list goes first: without it none of its entries is effective.
		list := control.WithdrawList(id)
		list.Why = why
		records = append(records, list)
		for e := range s.All(id) {
			records = append(records, control.WithdrawEntry(id, e.ID()))
		}
		for x := range s.AllExemptions(id) {
			records = append(records, control.WithdrawExemption(id, x.ID))
		}
	})
	if err != nil {
		// It may have been dropped by a call that could not be confirmed.
		if unconfirmed := d.confirm(ctx, d.cfg.Replica.Version(), nil); unconfirmed != nil {
			return 0, unconfirmed
		}
		return 0, err
	}
	return d.write(ctx, records)
}

// AddEntry adds an entry, or replaces the one for the same plate and country. A
// new one beyond what the tolerance of the list allows is refused with a
// *FullError.
func (d *Desk) AddEntry(ctx context.Context, actor, list string, in watchlist.EntryInput) (*watchlist.Entry, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	l, ok := d.List(list)
	if !ok {
		return nil, ErrNoList
	}
	now := d.cfg.Clock()
	e, fields := watchlist.NewEntry(l, in, now)
	if len(fields) > 0 {
		return nil, &InvalidError{Fields: fields}
	}
	if _, replaces := d.Entry(list, e.ID); !replaces {
		if err := room(l.Tolerance, d.Count(list)+1); err != nil {
			return nil, err
		}
	}
	rec, err := control.EntryRecord(e, actor, now)
	if err != nil {
		return nil, fmt.Errorf("stream: add entry: %w", err)
	}
	v, err := d.write(ctx, []control.Record{rec})
	if err != nil {
		return nil, err
	}
	e.Version = v
	return e, nil
}

// WithdrawEntry takes an entry off its list, with its exemptions. When it returns without an error,
// no alert of that entry is made or delivered any more. For an entry that is
// not there it makes sure of the same and returns ErrNoEntry.
func (d *Desk) WithdrawEntry(ctx context.Context, actor, list, id, reason string) (int64, error) {
	why, err := d.why(actor, reason)
	if err != nil {
		return 0, err
	}
	if _, ok := d.Entry(list, id); !ok {
		// It may have been withdrawn by a call that could not be confirmed.
		if err := d.confirm(ctx, d.cfg.Replica.Version(), nil); err != nil {
			return 0, err
		}
		if _, ok := d.List(list); !ok {
			return 0, ErrNoList
		}
		return 0, ErrNoEntry
	}
	rec := control.WithdrawEntry(list, id)
	rec.Why = why
	records := []control.Record{rec} // the entry goes first: without it no exemption is effective
	d.cfg.Replica.View(func(s *control.State) {
		for _, x := range s.ExemptionsOf(list, id) {
			records = append(records, control.WithdrawExemption(list, x.ID))
		}
	})
	return d.write(ctx, records)
}

// Exemptions returns up to limit exemptions of a list in order of id, after the id
// given. Those that have ended are among them until they are dropped.
func (d *Desk) Exemptions(list, after string, limit int) (xs []*watchlist.Exemption, err error) {
	d.cfg.Replica.View(func(s *control.State) {
		if s.List(list) == nil {
			err = ErrNoList
			return
		}
		xs = s.Exemptions(list, after, limit)
	})
	return xs, err
}

// Exemption returns one exemption.
func (d *Desk) Exemption(list, id string) (x *watchlist.Exemption, ok bool) {
	d.cfg.Replica.View(func(s *control.State) { x = s.Exemption(list, id) })
	return x, x != nil
}

// PutExemption exempts a read from an entry, or prolongs, shortens or explains anew
// the exemption of the same read. When it returns without an error, no alert of that
// entry is made any more for that read, until the exemption ends; one that waits in
// a queue already stays there. What the input breaks is an *InvalidError.
func (d *Desk) PutExemption(ctx context.Context, actor, list, entry string, in watchlist.ExemptionInput) (*watchlist.Exemption, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	l, ok := d.List(list)
	if !ok {
		return nil, ErrNoList
	}
	e, ok := d.Entry(list, entry)
	if !ok {
		return nil, ErrNoEntry
	}
	now := d.cfg.Clock()
	x, fields := watchlist.NewExemption(l, e, in, now)
	if len(fields) > 0 {
		return nil, &InvalidError{Fields: fields}
	}
	rec, err := control.ExemptionRecord(x, actor, now)
	if err != nil {
		return nil, fmt.Errorf("stream: put exemption: %w", err)
	}
	v, err := d.write(ctx, []control.Record{rec})
	if err != nil {
		return nil, err
	}
	x.Version = v
	return x, nil
}

// DropExemption ends an exemption: from when it returns without an error, the read
// alerts again. For an exemption that is not there it makes sure of the same and
// returns ErrNoExemption.
func (d *Desk) DropExemption(ctx context.Context, actor, list, id, reason string) (int64, error) {
	why, err := d.why(actor, reason)
	if err != nil {
		return 0, err
	}
	if _, ok := d.Exemption(list, id); !ok {
		// It may have been dropped by a call that could not be confirmed.
		if err := d.confirm(ctx, d.cfg.Replica.Version(), nil); err != nil {
			return 0, err
		}
		if _, ok := d.List(list); !ok {
			return 0, ErrNoList
		}
		return 0, ErrNoExemption
	}
	rec := control.WithdrawExemption(list, id)
	rec.Why = why
	return d.write(ctx, []control.Record{rec})
}

// why is what goes with a withdrawal; a reason is mandatory.
func (d *Desk) why(actor, reason string) (*control.Why, error) {
	bad := watchlist.CheckText(reason, watchlist.MaxLongText)
	if strings.TrimSpace(reason) == "" {
		bad = "is mandatory: say why it is withdrawn"
	}
	if bad != "" {
		return nil, &InvalidError{Fields: []watchlist.FieldError{{Field: "reason", Reason: bad}}}
	}
	return &control.Why{Actor: actor, Reason: reason, At: d.cfg.Clock()}, nil
}

// ImportOptions say how a file is imported. The zero value recognises the format
// and applies nothing unless every row is good.
type ImportOptions struct {
	DryRun bool // plan, and change nothing
	// Partial applies the good rows although others are bad, if the report can
	// name every error: what nobody is told of would be lost.
	Partial  bool
	Format   watchlist.Format
	Defaults watchlist.Defaults
}

// Import is ImportFile of a CSV that says all that an entry needs.
func (d *Desk) Import(ctx context.Context, actor, list string, csv io.Reader, dryRun bool) (ImportReport, error) {
	return d.ImportFile(ctx, actor, list, csv, ImportOptions{DryRun: dryRun, Format: watchlist.FormatCSV})
}

// ImportFile plans a file against a list and, unless it is a trial, adds and
// changes the entries. Entries that the file does not name stay. One bad row and
// nothing is applied unless the options say so; the report names every bad row. Good
// rows that would leave more entries on the list than its tolerance allows are
// refused with a *FullError, in a trial too, and wrong or missing defaults with an
// *InvalidError.
func (d *Desk) ImportFile(ctx context.Context, actor, list string, file io.Reader, opt ImportOptions) (ImportReport, error) {
	l, ok := d.List(list)
	if !ok {
		return ImportReport{}, ErrNoList
	}
	now := d.cfg.Clock()
	im, err := watchlist.ParseEntries(file, l, now, watchlist.ImportOptions{Format: opt.Format, Defaults: opt.Defaults, Zone: d.cfg.Zone})
	var wrong *watchlist.DefaultsError
	switch {
	case errors.As(err, &wrong):
		return ImportReport{}, &InvalidError{Fields: wrong.Fields}
	case err != nil:
		return ImportReport{}, fmt.Errorf("stream: import: %w", err)
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	switch now, ok := d.List(list); {
	case !ok || now.Tag() != l.Tag():
		return ImportReport{}, ErrNoList // dropped while the file was read
	case now.Tolerance != l.Tolerance:
		return ImportReport{}, ErrChanged // the rows were judged by the old one
	}
	rep := ImportReport{Format: im.Format.String(), Rows: im.Rows, Rejected: im.Rejected, Errors: im.Errors, Omitted: im.Omitted, Version: d.cfg.Replica.Version()}
	var added, changed []*watchlist.Entry
	var held int
	d.cfg.Replica.View(func(s *control.State) {
		added, changed, rep.Same = im.Diff(func(id string) *watchlist.Entry { return s.Entry(list, id) })
		held = s.Len(list)
	})
	rep.Added, rep.Changed = len(added), len(changed)
	if rep.Rejected > 0 && (!opt.Partial || rep.Omitted > 0) {
		return rep, nil
	}
	if len(added) > 0 {
		if err := room(l.Tolerance, held+len(added)); err != nil {
			return rep, err
		}
	}
	if opt.DryRun {
		return rep, nil
	}
	records := make([]control.Record, 0, len(added)+len(changed))
	for _, e := range append(added, changed...) {
		rec, err := control.EntryRecord(e, actor, now)
		if err != nil {
			return rep, fmt.Errorf("stream: import: %w", err)
		}
		records = append(records, rec)
	}
	if len(records) == 0 {
		// The rows may have been recorded by a call that could not be confirmed.
		err = d.confirm(ctx, rep.Version, nil)
	} else {
		rep.Version, err = d.write(ctx, records)
	}
	if err != nil {
		return rep, err
	}
	rep.Applied = true
	return rep, nil
}

// PutSensors records sensors in the registry.
func (d *Desk) PutSensors(ctx context.Context, actor string, sensors []control.Sensor) (int64, error) {
	records := make([]control.Record, 0, len(sensors))
	d.writing.Lock()
	defer d.writing.Unlock()
	for i := range sensors {
		rec, err := control.SensorRecord(&sensors[i], actor, d.cfg.Clock())
		if err != nil {
			return 0, fmt.Errorf("stream: put sensors: %w", err)
		}
		records = append(records, rec)
	}
	return d.write(ctx, records)
}

// write records a change and confirms it.
func (d *Desk) write(ctx context.Context, records []control.Record) (int64, error) {
	before := d.Queues() // a list may be on its way from one queue to another
	v, err := d.cfg.Log.Append(ctx, records)
	if err != nil {
		return 0, fmt.Errorf("stream: write the control log: %w", err)
	}
	return v, d.confirm(ctx, v, before)
}

// confirm waits until this process is at version v and no queue takes an alert
// matched before v. Additions are fenced like all else: what looks new here may
// replace what another process has just recorded.
func (d *Desk) confirm(ctx context.Context, v int64, queues []string) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Wait)
	defer cancel()
	if err := d.cfg.Replica.WaitVersion(ctx, v); err != nil {
		return fmt.Errorf("%w (this process has not yet read it back: %w)", ErrNotConfirmed, err)
	}
	d.mu.Lock()
	for _, q := range append(queues, d.Queues()...) {
		d.fenced[q] = true
	}
	queues = slices.Sorted(maps.Keys(d.fenced))
	d.mu.Unlock()
	if err := d.cfg.Fencer.Fence(ctx, queues, v); err != nil {
		return fmt.Errorf("%w (the alert queues did not answer: %w)", ErrNotConfirmed, err)
	}
	return nil
}

// Queues are the queues that alerts may go to at this version.
func (d *Desk) Queues() (queues []string) {
	d.cfg.Replica.View(func(s *control.State) { queues = slices.Clone(s.Queues()) })
	return queues
}

// Explain says whether a read would hit, and why. It changes nothing.
func (d *Desk) Explain(q ExplainQuery) Explanation {
	snap := d.cfg.Replica.Matcher().Snapshot()
	ex := Explanation{Version: snap.Version(), Hits: []Explained{}}
	key, err := plate.Parse(q.Plate)
	if err != nil {
		ex.Problem = err.Error()
		return ex
	}
	ex.Normalised = key.String()
	ex.Country, _ = plate.ParseCountry(q.Country)
	ex.Syntax = key.Syntax(ex.Country).String()
	at := q.At
	if at.IsZero() {
		at = d.cfg.Clock()
	}
	mq := matcher.Query{Key: key, Country: ex.Country, At: at.UnixMilli(), Sensor: q.Sensor, Conf: q.Conf}
	for _, v := range snap.Explain(&mq) {
		entry := v.Entry.Unpack()
		e := Explained{
			List: v.List.ID, Entry: entry.ID, Plate: entry.Normalised(),
			Action: entry.Action.String(), Priority: entry.Priority.String(),
			Country: v.Country.String(), Because: v.Because,
			Score: v.Score, Threshold: v.Threshold, Differs: v.Positions(),
		}
		if !v.Alerts {
			ex.Others = append(ex.Others, e)
			continue
		}
		e.Queue, e.Kind, e.Grade = queueOf(v.List), v.Kind.String(), v.Grade.String()
		ex.Hits = append(ex.Hits, e)
	}
	return ex
}

// queueOf is the queue that receives the alerts of a list.
func queueOf(l *watchlist.List) string {
	if l.Queue == "" {
		return watchlist.DefaultQueue
	}
	return l.Queue
}
