package spool

import "time"

const (
	// formatSince is before every read that a spool can have, milliseconds since 1970: the
	// format is not older than 2026. A clock that says less is not set.
	formatSince = 1_767_225_600_000
	// clockStep is from when on a step of the clock counts as one.
	clockStep = time.Minute
)

// moment is a look at the clocks. The wall clock of a machine may be set while it runs, by
// decades when it has none that goes on without power; the monotonic clock goes on evenly.
type moment struct {
	now    time.Time
	uptime time.Duration // since Open, by the monotonic clock
	ahead  time.Duration // how far the wall clock was set forward since Open; negative for back
}

// look reads the clocks.
func (s *Spool) look() moment {
	now := s.cfg.Clock()
	up := s.cfg.uptime(now)
	return moment{now, up, now.Round(0).Sub(s.began.Round(0)) - up} // Round: by the wall clock
}

// set is how far the wall clock was set since g was begun, 0 for less than clockStep.
func (m moment) set(g *segment) time.Duration {
	if set := m.ahead - g.ahead; set.Abs() >= clockStep {
		return set
	}
	return 0
}

// age is how long ago something of g came, which has received as its time by the clock of then,
// and ts as that of the sensor; both milliseconds since 1970, 0 for none.
//
// The clock of then is corrected by what it was set since. A time that lies in the future or
// before formatSince is none. The later of both counts: a gateway may have booted with
// the time at which it was switched off. What has no time counts from when g was begun or,
// if that was before, from Open.
func (m moment) age(g *segment, received, ts int64) time.Duration {
	latest := m.now.Add(clockStep).UnixMilli() // small steps are not corrected
	possible := func(t int64) bool { return t >= formatSince && t <= latest }
	var at int64
	switch corrected := received + m.set(g).Milliseconds(); {
	case possible(corrected):
		at = corrected
	case possible(received):
		at = received
	}
	if possible(ts) {
		at = max(at, ts)
	}
	if at == 0 {
		return m.uptime - g.begun
	}
	return max(0, m.now.Sub(time.UnixMilli(at)))
}
