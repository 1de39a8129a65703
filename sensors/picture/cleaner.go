package picture

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"
)

// ErrBusy says that too many pictures wait already, or that one has waited too long.
var ErrBusy = errors.New("picture: too many pictures at once")

// Config configures NewCleaner. The zero value of a field takes the default.
type Config struct {
	Limits Limits
	// AtOnce is how many pictures are worked on at the same time. One per processor; that is
	// also the most, since more would only take more memory.
	AtOnce int
	// Backlog is how many may wait for that; four times AtOnce.
	Backlog int
	// Wait is how long one may wait, for the read that it belongs to waits too; 100 ms.
	Wait time.Duration
}

// Cleaner cleans pictures, few at a time. Its methods may be called at the same time.
type Cleaner struct {
	cfg     Config
	working chan struct{} // has one element for each that is worked on
	waiting chan struct{} // and for each that waits or is worked on

	cleaned, busy, refused atomic.Uint64
}

// NewCleaner returns a Cleaner.
func NewCleaner(cfg Config) *Cleaner {
	if most := runtime.GOMAXPROCS(0); cfg.AtOnce <= 0 || cfg.AtOnce > most {
		cfg.AtOnce = most
	}
	if cfg.Backlog <= 0 {
		cfg.Backlog = 4 * cfg.AtOnce
	}
	if cfg.Wait <= 0 {
		cfg.Wait = 100 * time.Millisecond
	}
	return &Cleaner{cfg: cfg, working: make(chan struct{}, cfg.AtOnce), waiting: make(chan struct{}, cfg.AtOnce+cfg.Backlog)}
}

// Clean is the function Clean for one picture among many. It returns ErrBusy, after Config.Wait at
// the latest, when there are too many or ctx ends while it waits: the read goes on without its
// picture.
func (c *Cleaner) Clean(ctx context.Context, raw []byte) ([]byte, error) {
	select {
	case c.waiting <- struct{}{}:
		defer func() { <-c.waiting }()
	default:
		c.busy.Add(1)
		return nil, ErrBusy
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Wait)
	defer cancel()
	select {
	case c.working <- struct{}{}:
		defer func() { <-c.working }()
	case <-ctx.Done():
		c.busy.Add(1)
		return nil, ErrBusy
	}
	jpeg, err := Clean(raw, c.cfg.Limits)
	if err != nil {
		c.refused.Add(1)
		return nil, err
	}
	c.cleaned.Add(1)
	return jpeg, nil
}

// Stats counts what a Cleaner has done.
type Stats struct {
	Cleaned uint64 // pictures made
	Refused uint64 // too large, damaged or of another format
	Busy    uint64 // left out because there were too many
}

// Stats returns the counters so far.
func (c *Cleaner) Stats() Stats {
	return Stats{Cleaned: c.cleaned.Load(), Refused: c.refused.Load(), Busy: c.busy.Load()}
}
