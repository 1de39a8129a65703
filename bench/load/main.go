// Command load measures how long a matcher takes to be ready with a long list, and
// what it keeps in memory: the control log's records are decoded into the state,
// as a replica does at start, and the matcher is built from the state.
//
//	go run ./bench/load -entries 10000000
//
// The records are made beforehand, a part at a time, and that is not timed; nor is
// fetching them from Kafka.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"

	"vigie/bench/measure"
	"vigie/bench/workload"
	"vigie/matcher"
	"vigie/watchlist"
	"vigie/watchlist/control"
)

func main() {
	entries := flag.Int("entries", 10_000_000, "entries on the list")
	flag.Parse()
	r, err := run(*entries)
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	_ = e.Encode(r)
}

// result is what was measured.
type result struct {
	Machine      measure.Machine `json:"machine"`
	Entries      int             `json:"entries"`
	StateSeconds float64         `json:"state_seconds"` // records to state
	MatchSeconds float64         `json:"match_seconds"` // state to matcher
	Seconds      float64         `json:"seconds"`
	StateBytes   float64         `json:"state_bytes_per_entry"` // entry details included
	MatchBytes   float64         `json:"match_bytes_per_entry"` // keys, references and filter
}

// fetch is how many records come at a time.
const fetch = 1 << 16

func run(n int) (*result, error) {
	r := &result{Machine: measure.Here(), Entries: n}
	before := heap()
	salt := []byte("0123456789abcdef")
	w := workload.New(workload.Config{Seed: 1, Entries: n, Reads: 1})
	w.List.Salt = salt
	state := control.NewState()
	rec, err := control.ListRecord(w.List, "bench", workload.At)
	if err != nil {
		return nil, err
	}
	rec.Offset = 0
	if err := state.Load(rec); err != nil {
		return nil, err
	}
	var unreadable error
	recs := make([]control.Record, 0, fetch)
	for at := 0; at < n; at += len(recs) {
		recs = recs[:0]
		for i := at; i < min(n, at+fetch); i++ {
			e := &w.Entries[i]
			e.ID, e.Plate = watchlist.EntryID(w.List, e.Key, e.Country), e.Key.String()
			e.ListTag, e.Reason, e.CaseRef, e.Priority = w.List.Tag(), "stolen", "2026/1234", watchlist.PriorityMedium
			rec, err := control.EntryRecord(e, "bench", workload.At)
			if err != nil {
				return nil, err
			}
			rec.Offset = int64(i + 1)
			recs = append(recs, rec)
			*e = watchlist.Entry{Key: e.Key} // what is kept below is the state's
		}
		start := time.Now()
		err := state.LoadAll(recs, func(err *control.RecordError) { unreadable = err })
		r.StateSeconds += time.Since(start).Seconds()
		if err != nil {
			return nil, err
		}
	}
	start := time.Now()
	state.Settle()
	r.StateSeconds += time.Since(start).Seconds()
	if unreadable != nil {
		return nil, unreadable
	}
	if got := state.Len(w.List.ID); got != n {
		return nil, fmt.Errorf("%d entries in the state, want %d", got, n)
	}
	w, recs = nil, nil
	after := heap()
	r.StateBytes = (after - before) / float64(n)

	start = time.Now()
	m := matcher.New()
	m.Load(state.Everything(), int64(n))
	r.MatchSeconds = time.Since(start).Seconds()
	r.MatchBytes = (heap() - after) / float64(n)
	if got := m.Snapshot().Len(); got != n {
		return nil, fmt.Errorf("%d entries in the matcher, want %d", got, n)
	}
	r.Seconds = r.StateSeconds + r.MatchSeconds
	runtime.KeepAlive(state)
	return r, nil
}

// heap returns the bytes in use.
func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
