//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"vigie/bench/workload"
	"vigie/stream/kafka"
	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// wanted are the ids of entries by the keys of their plates.
type wanted map[plate.Key]string

// fillControl writes a list with the plates of entries to the control log, as an import
// does, and returns those that one of the reads hits.
func fillControl(ctx context.Context, log *kafka.ControlLog, entries []watchlist.Entry, reads ...[]workload.Read) (wanted, error) {
	now := time.Now()
	salt, err := watchlist.NewSalt(rand.Reader)
	if err != nil {
		return nil, err
	}
	list := &watchlist.List{
		ID: "stolen", Name: "Véhicules volés", Owner: "SDLP", LegalBasis: "CSI L233-1", Salt: salt,
		Tolerance: watchlist.ToleranceExact, Queue: queue, DefaultAction: watchlist.ActionIntercept,
	}
	rec, err := control.ListRecord(list, "bench", now)
	if err != nil {
		return nil, err
	}
	hit := wanted{}
	for _, rs := range reads {
		for i := range rs {
			if !rs[i].Hit {
				continue
			}
			k, err := plate.Parse(rs[i].Text)
			if err != nil {
				return nil, fmt.Errorf("read %d of the workload: %w", i, err)
			}
			hit[k] = ""
		}
	}
	const batch = 20_000
	recs := append(make([]control.Record, 0, batch+1), rec)
	for i := range entries {
		drawn := &entries[i]
		e, bad := watchlist.NewEntry(list, watchlist.EntryInput{
			Plate: drawn.Plate, Country: drawn.Country.String(), Reason: "Véhicule volé",
			CaseRef: fmt.Sprintf("2026/%07d", i), Requester: "Brigade de répression du banditisme",
			ValidFrom: now.AddDate(0, -1, 0), ValidUntil: now.AddDate(0, 11, 0),
		}, now)
		if len(bad) > 0 {
			return nil, errors.Join(fmt.Errorf("entry %d of the workload", i), bad[0])
		}
		if _, ok := hit[e.Key]; ok {
			hit[e.Key] = e.ID
		}
		if rec, err = control.EntryRecord(e, "bench", now); err != nil {
			return nil, err
		}
		if recs = append(recs, rec); len(recs) >= batch || i == len(entries)-1 {
			if _, err := log.Append(ctx, recs); err != nil {
				return nil, err
			}
			recs = recs[:0]
		}
	}
	return hit, nil
}
