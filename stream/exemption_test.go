package stream_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vigie/stream"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// seenLog keeps the records that pass through it.
type seenLog struct {
	stream.ControlLog
	records []control.Record
}

func (l *seenLog) Append(ctx context.Context, records []control.Record) (int64, error) {
	l.records = append(l.records, records...)
	return l.ControlLog.Append(ctx, records)
}

func key(t *testing.T, raw string) plate.Key {
	t.Helper()
	k, err := plate.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// misread is the answer of a patrol that stopped AB-12B-CD.
func misread(t *testing.T) watchlist.ExemptionInput {
	return watchlist.ExemptionInput{Read: key(t, "AB-12B-CD"), Reason: "misread, seen by patrol 7", Until: time.Now().Add(24 * time.Hour)}
}

// TestExemptions exempts a read, which then alerts no more, although the plate itself
// and another read do; drops the exemption, and it alerts again.
func TestExemptions(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceOCR)
	e := h.entry("stolen", "AB-128-CD")
	log := &seenLog{ControlLog: h.log}
	desk, err := stream.NewDesk(stream.DeskConfig{Log: log, Replica: h.replica, Fencer: h.queues})
	if err != nil {
		t.Fatal(err)
	}
	alerts := func(r *stream.Replica, raw string) bool {
		d, err := stream.NewDesk(stream.DeskConfig{Log: h.log, Replica: r, Fencer: h.queues})
		if err != nil {
			t.Fatal(err)
		}
		return len(d.Explain(stream.ExplainQuery{Plate: raw, Country: "FR"}).Hits) > 0
	}
	check := func(when string, r *stream.Replica, want bool) {
		t.Helper()
		if got := alerts(r, "AB-12B-CD"); got != want {
			t.Errorf("%s: the misread alerts %t, want %t", when, got, want)
		}
		if !alerts(r, "AB-128-CD") {
			t.Errorf("%s: the plate itself does not alert", when)
		}
	}
	check("before", h.replica, true)

	x, err := desk.PutExemption(t.Context(), "op", "stolen", e.ID, misread(t))
	if err != nil {
		t.Fatal(err)
	}
	check("exempt", h.replica, false)
	if got, ok := desk.Exemption("stolen", x.ID); !ok || !got.Equal(x) || got.Version != x.Version || x.Entry != e.ID {
		t.Errorf("Exemption = %v, %t, want %v", got, ok, x)
	}
	if page, err := desk.Exemptions("stolen", "", 10); err != nil || len(page) != 1 {
		t.Errorf("Exemptions = %v, %v", page, err)
	}
	again, err := desk.PutExemption(t.Context(), "op", "stolen", e.ID, misread(t))
	if err != nil || again.ID != x.ID || again.Version <= x.Version {
		t.Errorf("put again: %v, %v", again, err)
	}

	// A process that starts now knows it too.
	late := stream.NewReplica(nil)
	h.background("late replica", func(ctx context.Context) error { return late.Follow(ctx, h.log) })
	if err := late.WaitVersion(t.Context(), again.Version); err != nil {
		t.Fatal(err)
	}
	check("in a new process", late, false)

	v, err := desk.DropExemption(t.Context(), "op", "stolen", x.ID, "it is the vehicle after all")
	if err != nil || v <= again.Version {
		t.Errorf("drop: version %d, %v", v, err)
	}
	check("dropped", h.replica, true)
	last := log.records[len(log.records)-1]
	if last.Value != nil || last.Why == nil || last.Why.Actor != "op" || !strings.Contains(last.Why.Reason, "after all") {
		t.Errorf("dropped by a record with Why %+v", last.Why)
	}
	if _, err := desk.DropExemption(t.Context(), "op", "stolen", x.ID, "again"); !errors.Is(err, stream.ErrNoExemption) {
		t.Errorf("drop again: %v", err)
	}

	// An entry takes its exemptions along, and a list those of its entries.
	for _, gone := range []struct {
		name string
		do   func() error
	}{
		{"entry", func() error {
			_, err := desk.WithdrawEntry(t.Context(), "op", "stolen", e.ID, "found")
			return err
		}},
		{"list", func() error { _, err := desk.DropList(t.Context(), "op", "stolen", "over"); return err }},
	} {
		if e := h.entry("stolen", "AB-128-CD"); e == nil {
			t.Fatal("no entry")
		}
		if _, err := desk.PutExemption(t.Context(), "op", "stolen", e.ID, misread(t)); err != nil {
			t.Fatal(err)
		}
		if err := gone.do(); err != nil {
			t.Fatalf("%s: %v", gone.name, err)
		}
		h.replica.View(func(s *control.State) {
			if st := s.Stats(); st.Exemptions != 0 || st.HeldExemptions != 0 {
				t.Errorf("%s gone: stats %+v", gone.name, st)
			}
		})
	}
}

func TestExemptionsRefused(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceOCR)
	e := h.entry("stolen", "AB-128-CD")
	put := func(list, entry string, change func(*watchlist.ExemptionInput)) error {
		in := misread(t)
		if change != nil {
			change(&in)
		}
		_, err := h.desk.PutExemption(t.Context(), "op", list, entry, in)
		return err
	}
	drop := func(list, id, reason string) error {
		_, err := h.desk.DropExemption(t.Context(), "op", list, id, reason)
		return err
	}
	version := h.replica.Version()
	for _, tt := range []struct {
		name  string
		err   error
		is    error
		field string
	}{
		{"no list", put("x", e.ID, nil), stream.ErrNoList, ""},
		{"no entry", put("stolen", "x", nil), stream.ErrNoEntry, ""},
		{"no reason", put("stolen", e.ID, func(in *watchlist.ExemptionInput) { in.Reason = " " }), nil, "reason"},
		{"no end", put("stolen", e.ID, func(in *watchlist.ExemptionInput) { in.Until = time.Time{} }), nil, "until"},
		{"too long", put("stolen", e.ID, func(in *watchlist.ExemptionInput) { in.Until = time.Now().AddDate(2, 0, 0) }), nil, "until"},
		{"the plate itself", put("stolen", e.ID, func(in *watchlist.ExemptionInput) { in.Read = e.Key }), nil, "read"},
		{"drop without a reason", drop("stolen", "x", ""), nil, "reason"},
		{"drop on no list", drop("x", "x", "why"), stream.ErrNoList, ""},
		{"drop none", drop("stolen", "x", "why"), stream.ErrNoExemption, ""},
	} {
		if tt.is != nil {
			if !errors.Is(tt.err, tt.is) {
				t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.is)
			}
			continue
		}
		var invalid *stream.InvalidError
		if !errors.As(tt.err, &invalid) || len(invalid.Fields) != 1 || invalid.Fields[0].Field != tt.field || strings.Contains(tt.err.Error(), "AB12") {
			t.Errorf("%s: %v, want field %s and no plate", tt.name, tt.err, tt.field)
		}
	}
	if _, err := h.desk.Exemptions("x", "", 1); !errors.Is(err, stream.ErrNoList) {
		t.Errorf("exemptions of no list: %v", err)
	}
	if got := h.replica.Version(); got != version {
		t.Errorf("version %d after changes that were refused, %d before", got, version)
	}
}

// TestRepeatingConfirmsExemptions is TestRepeatingConfirms for the two changes here.
func TestRepeatingConfirmsExemptions(t *testing.T) {
	h := newHouse(t)
	h.list("stolen", watchlist.ToleranceOCR)
	e := h.entry("stolen", "AB-128-CD")
	var away atomic.Bool
	h.queues.Fail = func() error {
		if away.Load() {
			return errors.New("away")
		}
		return nil
	}
	id := ""
	for _, tc := range []struct {
		name   string
		change func() error
		after  error // what the repeat answers once it has confirmed
	}{
		{"put", func() error {
			x, err := h.desk.PutExemption(t.Context(), "op", "stolen", e.ID, misread(t))
			if err == nil {
				id = x.ID
			}
			return err
		}, nil},
		{"drop", func() error {
			_, err := h.desk.DropExemption(t.Context(), "op", "stolen", id, "wrong")
			return err
		}, stream.ErrNoExemption},
	} {
		away.Store(true)
		if err := tc.change(); !errors.Is(err, stream.ErrNotConfirmed) {
			t.Fatalf("%s with the queues away: %v, want ErrNotConfirmed", tc.name, err)
		}
		away.Store(false)
		if err := tc.change(); !errors.Is(err, tc.after) {
			t.Fatalf("%s repeated: %v, want %v", tc.name, err, tc.after)
		}
	}
}
