package sensors

import (
	"cmp"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// Health is how the sensors of a gateway do. It is kept in memory alone: a gateway that
// starts again knows nothing, and learns again what is usual (see SensorHealth.WarmingUp).
type Health struct {
	At    time.Time `json:"at"`
	Since time.Time `json:"since"` // when this gateway began to watch
	// Sensors are those that this gateway has heard of since, by id.
	Sensors []SensorHealth `json:"sensors"`
	// Silent and Unregistered are how many of them are so. A sensor that is not in the
	// registry does not count as silent.
	Silent       int `json:"silent"`
	Unregistered int `json:"unregistered"`
	// Untold counts reads of further sensors, beyond Config.MaxSensors.
	Untold uint64 `json:"untold,omitempty"`
	// Spool is Config.SpoolDepth; absent without one.
	Spool *int64 `json:"spool,omitempty"`
}

// SensorHealth is what a gateway knows of a sensor. All times are by the gateway's clock.
type SensorHealth struct {
	ID           string `json:"id"`
	Unregistered bool   `json:"unregistered,omitempty"`
	Accepted     uint64 `json:"accepted"` // reads, quarantined ones too
	// Duplicates are the accepted reads whose id came among the last few dozen before:
	// a sensor that repeats itself, or an answer that did not reach it.
	Duplicates    uint64    `json:"duplicates"`
	LastRead      time.Time `json:"last_read,omitzero"`
	LastHeartbeat time.Time `json:"last_heartbeat,omitzero"`

	// Silent says that nothing was heard, read or heartbeat, for longer than expected:
	// for 5 minutes at least, and then for three times the gap between heartbeats, or for
	// as long as 10 reads usually take at this time of the day, or for a day.
	Silent bool    `json:"silent"`
	Missed float64 `json:"missed"` // reads that would usually have come since

	// HourReads are the reads of the present hour (UTC), Usual what came in the same hour
	// of the days before (the last ones count most; workdays and Sundays alike), and Rate
	// how many times the usual it is, up to this minute. Retransmitted reads and
	// duplicates are left out, and so are hours of which the gateway or the sensor missed
	// a part. Rate is absent when less than 5 reads were to be expected so far.
	HourReads uint32   `json:"hour_reads"`
	Usual     *float64 `json:"usual_hour_reads,omitempty"`
	Rate      *float64 `json:"rate,omitempty"`
	// WarmingUp says that this hour was seen on less than 3 days so far: Usual and Rate
	// rest on little, and Silent on the mean of the hours seen.
	WarmingUp bool `json:"warming_up,omitempty"`

	// Skew is the median of arrival minus capture over the last reads, in seconds: the
	// way plus what the clock of the sensor is behind; negative, and it is ahead.
	// Retransmitted reads are left out.
	Skew *float64 `json:"skew_seconds,omitempty"`
	// Conf is the mean confidence of the last few hundred reads that told one, NoPlate
	// the share, 0 to 1, of those on which the camera saw no plate.
	Conf    *float64 `json:"conf,omitempty"`
	NoPlate float64  `json:"no_plate"`

	Rejected      uint64     `json:"rejected"`
	LastRejected  time.Time  `json:"last_rejected,omitzero"`
	LastRejection *Rejection `json:"last_rejection,omitempty"` // its Index is that of its request
}

const (
	hourMillis = int64(time.Hour / time.Millisecond)
	dayMillis  = 24 * hourMillis

	leastSilence = int64(5 * time.Minute / time.Millisecond)
	missedReads  = 10 // by chance alone once in 22,000 gaps
	missedBeats  = 3
	warmDays     = 3
	warmReads    = 20 // before the mean of a new sensor counts
	leastReads   = 5  // expected, for Rate

	skewReads = 32
	seenReads = 64
	// longMemory is the number of reads behind Conf and NoPlate.
	longMemory = 256
	// forgetStranger is how long a sensor that is not in the registry is remembered.
	forgetStranger = 7 * dayMillis
)

// watched is what is kept of one sensor: less than 1 KiB, and nothing that grows.
type watched struct {
	id       string
	stranger bool // not in the registry when last looked at
	partial  bool // of the present hour a part was missed

	accepted, duplicates, rejected uint64
	counted                        uint64 // reads that count for the rate

	// Milliseconds since the Unix epoch; 0 for never.
	first, lastRead, lastBeat, lastRejected int64

	rejection Rejection

	beatGap float32 // milliseconds, smoothed
	beats   uint8   // gaps in it, up to missedBeats

	hour  int64       // since the Unix epoch
	count uint32      // reads in it
	usual [24]float32 // reads by hour of the day, smoothed over the days
	days  [24]uint8   // in each of them, up to 7

	conf, noPlate   float32 // smoothed
	confN, noPlateN uint16  // reads in them, up to longMemory

	skew  [skewReads]int32 // milliseconds, a ring
	skewN uint32           // ever written

	// seen has the hash of an id in the place that its lowest bits say, so that asking
	// costs one look; an id is forgotten when another needs its place.
	seen [seenReads]uint32
}

// health keeps what is known of every sensor.
type health struct {
	max   int
	since int64
	seed  maphash.Seed

	reporting sync.Mutex // held over a report: it alone takes sensors out

	mu        sync.Mutex // guards what follows
	sensors   map[string]*watched
	all       []*watched // the same
	strangers int        // among them
	untold    uint64
}

func (h *health) init(max int, now time.Time) {
	h.max, h.since = max, now.UnixMilli()
	h.seed = maphash.MakeSeed()
	h.sensors = make(map[string]*watched)
}

// of returns what is kept of a sensor, nil when there is no room for another one.
// Strangers get a quarter of it: who may send as any sensor must not be able to push
// those of the registry out. h.mu is held.
func (h *health) of(id string, known bool) *watched {
	w := h.sensors[id]
	switch {
	case w != nil && w.stranger == !known:
	case w != nil:
		w.stranger = !known
		h.strangers += 1 - 2*btoi(known)
	case len(h.all) >= h.max, !known && h.strangers >= max(1, h.max/4):
		return nil
	default:
		w = &watched{id: strings.Clone(id), stranger: !known}
		h.sensors[w.id] = w
		h.all = append(h.all, w)
		h.strangers += btoi(!known)
	}
	return w
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// saw takes note of accepted reads and returns how many are duplicates.
func (h *health) saw(b portion, known func(string) bool, now int64) (duplicates uint64) {
	if len(b.reads) == 0 {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var w *watched // of the read before: requests come from one sensor mostly
	last := ""
	for i := range b.reads {
		r := &b.reads[i]
		if r.Sensor != last || i == 0 {
			last = r.Sensor
			if w = h.of(last, known(last)); w != nil {
				w.heard(now)
				w.lastRead = max(w.lastRead, now) // requests may end in another order than they began
			}
		}
		if w == nil {
			h.untold++
			continue
		}
		w.accepted++
		hash := uint32(maphash.String(h.seed, r.ID)) | 1 // 0 is an empty place
		if place := &w.seen[hash>>1%seenReads]; *place == hash {
			w.duplicates++
			duplicates++
			continue
		} else {
			*place = hash
		}
		w.noPlate = smooth(w.noPlate, float32(btoi(b.blank.has(i))), &w.noPlateN)
		if r.Conf > 0 {
			w.conf = smooth(w.conf, r.Conf, &w.confN)
		}
		if r.Retransmitted {
			continue
		}
		w.counted++
		w.count++
		w.skew[w.skewN%skewReads] = int32(max(min(r.Received-r.TS, math.MaxInt32), math.MinInt32))
		w.skewN++
	}
	return duplicates
}

// smooth takes v into a mean of the last values.
func smooth(mean, v float32, n *uint16) float32 {
	if *n >= longMemory {
		return mean + (v-mean)*(1.0/longMemory)
	}
	*n++
	return mean + (v-mean)/float32(*n)
}

// refused takes note of a read that was not taken.
func (h *health) refused(sensor string, known bool, rej Rejection, now int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.of(sensor, known)
	if w == nil {
		h.untold++
		return
	}
	w.rejected++
	w.rejection, w.lastRejected = rej, max(w.lastRejected, now)
}

// beat takes note of a heartbeat.
func (h *health) beat(sensor string, known bool, now int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.of(sensor, known)
	if w == nil {
		return
	}
	outage := w.heard(now)
	if gap := float32(now - w.lastBeat); w.lastBeat > 0 && gap > 0 && !outage {
		if w.beats == 0 {
			w.beatGap = gap
		}
		w.beatGap += (gap - w.beatGap) / 8
		w.beats = min(w.beats+1, missedBeats)
	}
	w.lastBeat = max(w.lastBeat, now)
}

// heard moves w on to now, at which its sensor tells something, and reports whether it
// had been silent until then. What was missed for longer than usual tells nothing of
// what is usual: a sensor that is dead for a week must not be dead as usual.
func (w *watched) heard(now int64) (outage bool) {
	hour := now / hourMillis
	if w.first == 0 {
		w.first, w.hour, w.partial = now, hour, true
		return false
	}
	if outage = w.silent(now); outage {
		w.partial = true
	}
	if hour <= w.hour {
		return outage
	}
	if !w.partial {
		w.learn(w.hour, w.count)
	}
	if !outage {
		for h := w.hour + 1; h < hour; h++ { // less than a day, or it was silent
			w.learn(h, 0)
		}
	}
	w.hour, w.count, w.partial = hour, 0, outage
	return outage
}

// learn takes a whole hour into what is usual. A week is remembered, more or less.
func (w *watched) learn(hour int64, reads uint32) {
	i := hour % 24
	w.days[i] = min(w.days[i]+1, 7)
	w.usual[i] += (float32(reads) - w.usual[i]) / float32(w.days[i])
}

// rate is how many reads an hour may be expected to have.
func (w *watched) rate(hour int64) float64 {
	switch i := hour % 24; {
	case w.days[i] > 0:
		return float64(w.usual[i])
	case w.counted < warmReads:
		return 0
	default:
		return float64(w.counted) * float64(hourMillis) / float64(max(w.lastRead-w.first, hourMillis))
	}
}

// missed is how many reads would usually have come since w was heard last.
func (w *watched) missed(now int64) (reads float64) {
	at := max(w.lastRead, w.lastBeat, now-dayMillis)
	for at < now {
		hour := at / hourMillis
		end := min((hour+1)*hourMillis, now)
		reads += w.rate(hour) * float64(end-at) / float64(hourMillis)
		at = end
	}
	return reads
}

// silent is SensorHealth.Silent.
func (w *watched) silent(now int64) bool {
	last := max(w.lastRead, w.lastBeat)
	switch gap := now - last; {
	case last == 0 || gap < leastSilence:
		return false
	case gap >= dayMillis:
		return true
	case w.beats == missedBeats && float32(gap) > missedBeats*w.beatGap:
		return true
	default:
		return w.missed(now) >= missedReads
	}
}

// report is w as it is told.
func (w *watched) report(now int64) SensorHealth {
	s := SensorHealth{
		ID: w.id, Accepted: w.accepted, Duplicates: w.duplicates, Rejected: w.rejected,
		LastRead: moment(w.lastRead), LastHeartbeat: moment(w.lastBeat), LastRejected: moment(w.lastRejected),
		Silent: w.silent(now), NoPlate: rounded(float64(w.noPlate)),
	}
	hour := now / hourMillis
	partial := w.partial
	if hour == w.hour {
		s.HourReads = w.count
	} else {
		partial = s.Silent // nothing has come in this hour
	}
	i := hour % 24
	if max(w.lastRead, w.lastBeat) > 0 {
		s.Missed = rounded(w.missed(now))
		s.WarmingUp = w.days[i] < warmDays
	}
	if w.days[i] > 0 {
		usual := float64(w.usual[i])
		s.Usual = number(usual)
		if expected := usual * float64(now%hourMillis) / float64(hourMillis); expected >= leastReads && (!partial || s.Silent) {
			s.Rate = number(float64(s.HourReads) / expected)
		}
	}
	if n := min(w.skewN, skewReads); n > 0 {
		ring := w.skew
		slices.Sort(ring[:n])
		s.Skew = number(float64(ring[n/2]) / 1000)
	}
	if w.confN > 0 {
		s.Conf = number(float64(w.conf))
	}
	if w.rejected > 0 {
		s.LastRejection = &Rejection{Index: w.rejection.Index, Field: w.rejection.Field, Reason: w.rejection.Reason}
	}
	return s
}

func moment(millis int64) time.Time {
	if millis == 0 {
		return time.Time{}
	}
	return time.UnixMilli(millis).UTC()
}

func rounded(v float64) float64 { return math.Round(v*1000) / 1000 }

func number(v float64) *float64 {
	v = rounded(v)
	return &v
}

// chunk is how many sensors a report copies at a time, while reads wait.
const chunk = 256

// Health returns how the sensors do.
func (g *Gateway) Health() Health {
	h := &g.health
	now := g.cfg.Clock().UnixMilli()
	out := Health{At: moment(now), Since: moment(h.since), Sensors: []SensorHealth{}}
	if g.cfg.SpoolDepth != nil {
		depth := g.cfg.SpoolDepth()
		out.Spool = &depth
	}
	h.reporting.Lock()
	defer h.reporting.Unlock()
	var gone []string
	copies := make([]watched, 0, chunk)
	for i := 0; ; i += len(copies) {
		copies = copies[:0]
		h.mu.Lock()
		for _, w := range h.all[min(i, len(h.all)):min(i+chunk, len(h.all))] {
			copies = append(copies, *w)
		}
		out.Untold = h.untold
		h.mu.Unlock()
		if len(copies) == 0 {
			break
		}
		for k := range copies {
			w := &copies[k]
			s := w.report(now)
			s.Unregistered = !g.known(w.id)
			switch {
			case s.Unregistered && now-max(w.lastRead, w.lastBeat, w.lastRejected) > forgetStranger:
				gone = append(gone, w.id)
				continue
			case s.Unregistered:
				out.Unregistered++
			case s.Silent:
				out.Silent++
			}
			out.Sensors = append(out.Sensors, s)
		}
	}
	h.forget(gone)
	slices.SortFunc(out.Sensors, func(a, b SensorHealth) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// forget drops sensors. h.reporting is held.
func (h *health) forget(ids []string) {
	if len(ids) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		w := h.sensors[id]
		h.strangers -= btoi(w.stranger)
		delete(h.sensors, id)
		i := slices.Index(h.all, w)
		h.all[i] = h.all[len(h.all)-1]
		h.all = h.all[:len(h.all)-1]
	}
}

// Heartbeat takes note that a sensor is alive; at is the arrival of its message by the
// clock of the gateway. What cannot be the id of a sensor is passed over.
func (g *Gateway) Heartbeat(sensor string, at time.Time) {
	if validSensor(sensor) {
		g.health.beat(sensor, g.known(sensor), at.UnixMilli())
	}
}

// bitset is a set of small numbers; nil is the empty one.
type bitset []uint64

func (b bitset) has(i int) bool { return b != nil && b[i/64]&(1<<(i%64)) != 0 }

// with returns b with i; n is above every number that it is to hold.
func (b bitset) with(i, n int) bitset {
	if b == nil {
		b = make(bitset, (n+63)/64)
	}
	b[i/64] |= 1 << (i % 64)
	return b
}
