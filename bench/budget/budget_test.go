package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"strings"
	"testing"
	"time"

	"vigie/matcher"
	"vigie/watchlist/plate"
)

// fault is a Match that is asked of every read.
type fault func(dst []matcher.Hit, q *matcher.Query) []matcher.Hit

func (f fault) Match(dst []matcher.Hit, q *matcher.Query) []matcher.Hit { return f(dst, q) }

func (f fault) MayHit(dst []uint64, keys []plate.Key) []uint64 {
	for range (len(keys) + 63) / 64 {
		dst = append(dst, ^uint64(0))
	}
	return dst
}

// TestGuardsBreak is the negative control: each guard is given a matcher with the
// fault it is there for, and must say so.
func TestGuardsBreak(t *testing.T) {
	in := load(20_000, 1)
	s := size{"20k", 20_000, missNs1M, firstRatio1M, keysRatio1M, textRatio1M, 0}
	good := in.m.Snapshot()
	slow := fault(func(dst []matcher.Hit, q *matcher.Query) []matcher.Hit {
		for start := time.Now(); time.Since(start) < 6*time.Microsecond; {
		}
		return good.Match(dst, q)
	})
	leaks := fault(func(dst []matcher.Hit, q *matcher.Query) []matcher.Hit {
		return append([]matcher.Hit(nil), good.Match(dst, q)...)
	})
	// A few reads are enough to see a fault.
	w := *in.w
	w.Reads = w.Reads[:5000]
	w.Hits = newReader(good).pass(w.Reads)
	few := &input{w: &w, misses: in.misses[:5000], m: in.m}
	deaf := fault(func(dst []matcher.Hit, _ *matcher.Query) []matcher.Hit { return dst })

	for _, tc := range []struct {
		name string
		run  func(r *report)
		want string // guard, what it measures
	}{
		{"slow, single", func(r *report) { guardSingle(r, "single", few, slow, 7) }, "single: batch of one read, p99"},
		{"slow, near", func(r *report) { guardNearCost(r, "near", few, slow, 7) }, "near: parse and match, 20000 near entries beside"},
		{"slow, miss", func(r *report) { guardMiss(r, "miss", s, few, slow, 7) },
			"miss: parse and match; miss: from the text: textbook as first written / parse and match; miss: normalised read: textbook / match; miss: from the text: textbook / parse and match"},
		{"hits are lost", func(r *report) { guardMiss(r, "miss", s, few, deaf, 7) }, "miss: hits"},
		{"allocates", func(r *report) { guardAllocations(r, "allocations", in, leaks) },
			"allocations: allocations of 2000 reads, half of them hits"},
		{"control", func(r *report) { guardAllocations(r, "allocations", in, good) }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := new(report)
			tc.run(r)
			var got []string
			for _, row := range r.Rows {
				if row.Verdict == broken {
					got = append(got, row.Guard+": "+row.What)
				}
			}
			if got := strings.Join(got, "; "); got != tc.want {
				t.Errorf("broken: %q\nwant    %q", got, tc.want)
			}
			var out bytes.Buffer
			if err := r.print(&out); err != nil || strings.Contains(out.String(), "BROKEN") != (tc.want != "") {
				t.Errorf("table, %v:\n%s", err, out.String())
			}
		})
	}
}

func TestRun(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"-only", "^nothing$", "-o", "json"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Machine.Go == "" || len(r.Rows) != 0 {
		t.Errorf("%s: %v", out.String(), err)
	}
	for _, args := range []string{"-rounds 6", "-o xml", "extra", "-only ("} {
		if err := run(strings.Fields(args), io.Discard, io.Discard); err == nil || errors.Is(err, flag.ErrHelp) {
			t.Errorf("%s: %v, want an error", args, err)
		}
	}
}

// TestNothing: what was not measured is broken, not kept.
func TestNothing(t *testing.T) {
	r := new(report)
	r.atMost("g", "w", "", nil, 1)
	r.atLeast("g", "w", "", nil, 1)
	if r.broken() != 2 {
		t.Error("nothing measured is not broken")
	}
}

// TestTries: what is measured again takes the place of what was broken.
func TestTries(t *testing.T) {
	r := new(report)
	r.atMost("a", "one", "", []float64{9}, 1)
	r.info("a", "beside", "", []float64{9})
	r.atMost("b", "two", "", []float64{1}, 1)
	again := new(report)
	if only := r.brokenGuards(); !only.MatchString("a") || only.MatchString("b") {
		t.Errorf("broken: %s", only)
	}
	again.atMost("a", "one", "", []float64{1}, 1)
	again.info("a", "beside", "", []float64{1})
	r.replace(again)
	if r.broken() != 0 || len(r.Rows) != 3 || r.Rows[0].Median != 1 || r.Rows[2].Guard != "b" {
		t.Errorf("rows %+v", r.Rows)
	}
}
