package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vigie/stream"
	"vigie/watchlist"
	"vigie/watchlist/control"
)

const goodCSV = "plate,country,reason,case_ref,valid_from,valid_until,action\nAB-123-CD,FR,stolen,T-1,2026-01-01,2027-12-31,"

// TestRepeatingConfirms breaks the queues while a change is confirmed: the change
// is recorded but not confirmed, and repeating it raises the fence, although
// there is nothing left to record.
func TestRepeatingConfirms(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(h *house) error
		after  error // what the repeat answers once it has confirmed
	}{
		{"import", func(h *house) error {
			_, err := h.desk.Import(h.t.Context(), "op", "stolen", strings.NewReader(goodCSV+"discreet\n"), false)
			return err
		}, nil},
		{"drop", func(h *house) error {
			_, err := h.desk.DropList(h.t.Context(), "op", "stolen", "over")
			return err
		}, stream.ErrNoList},
		{"withdraw", func(h *house) error {
			l, ok := h.desk.List("stolen")
			if !ok {
				return stream.ErrNoList
			}
			e, _ := watchlist.NewEntry(l, watchlist.EntryInput{Plate: "AB123CD", Country: "FR", Reason: "x", CaseRef: "x", ValidUntil: time.Now().Add(time.Hour)}, time.Now())
			_, err := h.desk.WithdrawEntry(h.t.Context(), "op", "stolen", e.ID, "found")
			return err
		}, stream.ErrNoEntry},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHouse(t)
			h.list("stolen", watchlist.ToleranceExact)
			if _, err := h.desk.Import(t.Context(), "op", "stolen", strings.NewReader(goodCSV+"intercept\n"), false); err != nil {
				t.Fatal(err)
			}
			var away atomic.Bool
			var fences atomic.Int64
			h.queues.Fail = func() error {
				if away.Load() {
					return errors.New("away")
				}
				fences.Add(1)
				return nil
			}
			away.Store(true)
			if err := tc.change(h); !errors.Is(err, stream.ErrNotConfirmed) {
				t.Fatalf("with the queues away: %v, want ErrNotConfirmed", err)
			}
			away.Store(false)
			if err := tc.change(h); !errors.Is(err, tc.after) {
				t.Fatalf("repeated: %v, want %v", err, tc.after)
			}
			if fences.Load() == 0 {
				t.Error("the repeat raised no fence")
			}
			alerts, err := h.queues.Publish(context.Background(), nil)
			if err != nil || len(alerts) != 0 {
				t.Errorf("%v %v", alerts, err)
			}
		})
	}
}

// behindLog lets another process write first: before each Append of a list it
// appends the record it was given.
type behindLog struct {
	stream.ControlLog
	first control.Record
}

func (l *behindLog) Append(ctx context.Context, records []control.Record) (int64, error) {
	last, err := l.ControlLog.Append(ctx, records)
	if err != nil || l.first.Key == nil {
		return last, err
	}
	rec := l.first
	l.first = control.Record{}
	return l.ControlLog.Append(ctx, []control.Record{rec})
}

// TestTwoMakeOneList has another process make the same list at the same moment,
// with a salt of its own that stands: the loser is told, since entries that it
// added would belong to no list.
func TestTwoMakeOneList(t *testing.T) {
	h := newHouse(t)
	l := watchlist.List{ID: "stolen", Name: "Stolen", Owner: "other", LegalBasis: "x", Salt: []byte("0123456789abcdef")}
	rec, err := control.ListRecord(&l, "other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	desk, err := stream.NewDesk(stream.DeskConfig{Log: &behindLog{h.log, rec}, Replica: h.replica, Fencer: h.queues})
	if err != nil {
		t.Fatal(err)
	}
	l.Salt, l.Owner = nil, "mine"
	if _, err := desk.PutList(t.Context(), "op", l); !errors.Is(err, stream.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
	if _, err := desk.PutList(t.Context(), "op", l); err != nil {
		t.Errorf("repeated: %v", err)
	}
	if got, _ := desk.List("stolen"); got == nil || got.Owner != "mine" || string(got.Salt) != "0123456789abcdef" {
		t.Error("the repeat did not change the list that stands")
	}
}

func TestStillWanted(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	e := h.entry("stolen", "AB-123-CD")
	good := stream.Claim{List: "stolen", Entry: e.ID, Queue: watchlist.DefaultQueue, Action: watchlist.ActionIntercept}
	for _, tc := range []struct {
		name  string
		claim func(c *stream.Claim)
		now   time.Time
		want  bool
	}{
		{"as the lists say", func(*stream.Claim) {}, time.Now(), true},
		{"another action", func(c *stream.Claim) { c.Action = watchlist.ActionDiscreet }, time.Now(), false},
		{"another queue", func(c *stream.Claim) { c.Queue = "discreet" }, time.Now(), false},
		{"no such entry", func(c *stream.Claim) { c.Entry = "x" }, time.Now(), false},
		{"no such list", func(c *stream.Claim) { c.List = "x" }, time.Now(), false},
		{"expired meanwhile", func(*stream.Claim) {}, e.ValidUntil, false},
	} {
		c := good
		tc.claim(&c)
		if got := h.replica.StillWanted(c, tc.now); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// heldLog holds the first Append that has many records until it is released.
type heldLog struct {
	stream.ControlLog
	entered, release chan struct{}
}

func (l *heldLog) Append(ctx context.Context, records []control.Record) (int64, error) {
	if len(records) > 1 {
		close(l.entered)
		<-l.release
	}
	return l.ControlLog.Append(ctx, records)
}

// TestAWithdrawalDoesNotWaitForAnImport withdraws while a long import is being
// written.
func TestAWithdrawalDoesNotWaitForAnImport(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceExact)
	e := h.entry("stolen", "EF-456-GH")
	log := &heldLog{h.log, make(chan struct{}), make(chan struct{})}
	desk, err := stream.NewDesk(stream.DeskConfig{Log: log, Replica: h.replica, Fencer: h.queues})
	if err != nil {
		t.Fatal(err)
	}
	imported := make(chan error, 1)
	go func() {
		_, err := desk.Import(context.Background(), "op", "stolen", strings.NewReader(goodCSV+"\nIJ-789-KL,FR,stolen,T-2,2026-01-01,2027-12-31,\n"), false)
		imported <- err
	}()
	<-log.entered
	withdrawn := make(chan error, 1)
	go func() {
		_, err := desk.WithdrawEntry(context.Background(), "op", "stolen", e.ID, "found")
		withdrawn <- err
	}()
	select {
	case err := <-withdrawn:
		if err != nil {
			t.Errorf("withdraw: %v", err)
		}
	case <-time.After(patience):
		t.Error("the withdrawal waits for the import")
	}
	close(log.release)
	if err := <-imported; err != nil {
		t.Errorf("import: %v", err)
	}
}

// csvOf returns a file with a row for each of n plates that format makes of a number.
func csvOf(format string, n int) *strings.Reader {
	var b strings.Builder
	b.WriteString("plate,country,reason,case_ref,valid_from,valid_until\n")
	for i := range n {
		fmt.Fprintf(&b, format+",FR,stolen,T-1,2026-01-01,2027-12-31\n", i)
	}
	return strings.NewReader(b.String())
}

// TestListsAreLimited fills lists up to what their tolerance allows: one more
// entry is refused by every way in, and replacing one is not.
func TestListsAreLimited(t *testing.T) {
	for _, tc := range []struct {
		tol    watchlist.Tolerance
		format string // of plates
		first  string // the plate of number 0, written otherwise
	}{
		{watchlist.ToleranceNear, "AB%05d", "ab-00000"},
		{watchlist.TolerancePattern, "AB%05d?*", "AB-00000*?"},
	} {
		t.Run(tc.tol.String(), func(t *testing.T) {
			h := newHouse(t)
			h.list("small", tc.tol)
			limit := tc.tol.MaxEntries()
			full := func(what string, err error, entries int) {
				t.Helper()
				var fe *stream.FullError
				if !errors.As(err, &fe) || *fe != (stream.FullError{Tolerance: tc.tol, Entries: entries, Max: limit}) {
					t.Errorf("%s: %v, want a FullError with %d entries", what, err, entries)
				}
			}
			for _, dryRun := range []bool{true, false} {
				before := h.replica.Version()
				rep, err := h.desk.Import(t.Context(), "op", "small", csvOf(tc.format, limit+1), dryRun)
				full("import", err, limit+1)
				if rep.Applied || h.desk.Count("small") != 0 || h.replica.Version() != before {
					t.Errorf("a refused import left %d entries", h.desk.Count("small"))
				}
			}
			if _, err := h.desk.Import(t.Context(), "op", "small", csvOf(tc.format, limit), false); err != nil {
				t.Fatal(err)
			}
			in := watchlist.EntryInput{Plate: tc.first, Country: "FR", Reason: "again", CaseRef: "T-2", ValidUntil: time.Now().Add(time.Hour)}
			if _, err := h.desk.AddEntry(t.Context(), "op", "small", in); err != nil {
				t.Errorf("replacing an entry of a full list: %v", err)
			}
			in.Plate = "ZZ-999-ZZ"
			_, err := h.desk.AddEntry(t.Context(), "op", "small", in)
			full("add", err, limit+1)
			if _, err := h.desk.Import(t.Context(), "op", "small", csvOf(tc.format, limit), false); err != nil {
				t.Errorf("importing into a full list what it holds: %v", err)
			}
			if n := h.desk.Count("small"); n != limit {
				t.Errorf("%d entries, want %d", n, limit)
			}

			h.list("large", watchlist.ToleranceExact)
			if _, err := h.desk.Import(t.Context(), "op", "large", csvOf("AB%05d", limit+1), false); err != nil {
				t.Fatal(err)
			}
			l, _ := h.desk.List("large")
			changed := *l
			changed.Tolerance = tc.tol
			_, err = h.desk.PutList(t.Context(), "op", changed)
			full("put", err, limit+1)
			if now, _ := h.desk.List("large"); now != l {
				t.Error("a refused change of a list was recorded")
			}
			changed.Tolerance, changed.Threshold = watchlist.ToleranceOCR, 0.35
			if _, err := h.desk.PutList(t.Context(), "op", changed); err != nil {
				t.Errorf("a tolerance without a limit: %v", err)
			}
		})
	}
}

// TestPatternsKeepTheirTolerance: a list with patterns cannot take another
// tolerance, nor take patterns that were read for another.
func TestPatternsKeepTheirTolerance(t *testing.T) {
	h := newHouse(t)
	h.list("partial", watchlist.TolerancePattern)
	h.entry("partial", "AB-123-CD")
	e := h.entry("partial", "AB-1?*")
	if got, ok := h.desk.Entry("partial", e.ID); !ok || got.Pattern.Text() != "AB1?*" || got.Key != 0 {
		t.Errorf("the pattern is not on the list as it was added: %v", got)
	}
	l, _ := h.desk.List("partial")
	changed := *l
	changed.Tolerance = watchlist.ToleranceExact
	if _, err := h.desk.PutList(t.Context(), "op", changed); !errors.Is(err, stream.ErrPatterns) {
		t.Errorf("%v, want ErrPatterns", err)
	}
	named := *l
	named.Name = "Partial plates"
	if _, err := h.desk.PutList(t.Context(), "op", named); err != nil {
		t.Errorf("another name: %v", err)
	}
	if _, err := h.desk.WithdrawEntry(t.Context(), "op", "partial", e.ID, "over"); err != nil {
		t.Fatal(err)
	}

	// The tolerance changes while a file is read.
	file := csvOf("AB%03d?", 2)
	_, err := h.desk.Import(t.Context(), "op", "partial", readerFunc(func(p []byte) (int, error) {
		if l, _ := h.desk.List("partial"); l.Tolerance == watchlist.TolerancePattern {
			if _, err := h.desk.PutList(t.Context(), "op", changed); err != nil {
				t.Error(err)
			}
		}
		return file.Read(p)
	}), false)
	if !errors.Is(err, stream.ErrChanged) || h.desk.Count("partial") != 1 {
		t.Errorf("%v, %d entries; want ErrChanged and 1", err, h.desk.Count("partial"))
	}
}

// TestImportInPart gives up bad rows beforehand, and never more than can be named.
func TestImportInPart(t *testing.T) {
	h := newHouse(t)
	h.list("hot", watchlist.ToleranceExact)
	const file = "Stolen;FR;AB123CD;2026-01-01;2027-12-31\nStolen;FR;0;2026-01-01;2027-12-31\nStolen;;EF456GH;;\n"
	opt := stream.ImportOptions{Defaults: watchlist.Defaults{CaseRef: "T-1", ValidFor: "30d", Country: "F"}}
	try := func(what, file string, opt stream.ImportOptions, added, rejected, count int, applied bool) {
		t.Helper()
		rep, err := h.desk.ImportFile(t.Context(), "op", "hot", strings.NewReader(file), opt)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if rep.Format != "genetec" || rep.Added != added || rep.Rejected != rejected || rep.Applied != applied || h.desk.Count("hot") != count {
			t.Errorf("%s: %+v, %d entries", what, rep, h.desk.Count("hot"))
		}
	}
	try("as a whole", file, opt, 2, 1, 0, false)
	opt.Partial, opt.DryRun = true, true
	try("in part, a trial", file, opt, 2, 1, 0, false)
	opt.DryRun = false
	bad := strings.Repeat("Stolen;FR;0;2026-01-01;2027-12-31\n", watchlist.MaxRowErrors+1)
	try("with more errors than can be named", file+bad, opt, 2, watchlist.MaxRowErrors+2, 0, false)
	try("in part", file, opt, 2, 1, 2, true)
	try("in part, again", file, opt, 0, 1, 2, true)

	_, err := h.desk.ImportFile(t.Context(), "op", "hot", strings.NewReader(file), stream.ImportOptions{})
	var invalid *stream.InvalidError
	if !errors.As(err, &invalid) || len(invalid.Fields) != 1 || invalid.Fields[0].Field != "case_ref" {
		t.Errorf("without a case reference: %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
