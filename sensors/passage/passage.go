// Package passage finds out which messages of a sensor tell of the same vehicle passing it, and
// which of them tell something new. Cameras send 2 to 50 messages per vehicle; a patrol wants
// the first at once and then only what changes or strengthens it.
//
// Where it is not sure it takes two vehicles rather than one: a passage too many is an alert
// too many, but a read put into the passage of another vehicle may withdraw an alert that was
// right. It knows nothing of watchlists and never looks at a picture.
package passage

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"vigie/sensors"
	"vigie/watchlist/plate"
)

// Config configures New.
type Config struct {
	// Window is the longest gap between two reads of a vehicle at a sensor that does not
	// say which reads belong together; 5 s when 0.
	Window time.Duration
	// TrackAge is the longest gap between two messages of one track; 60 s when 0. Cameras
	// number their tracks from the beginning again when they restart.
	TrackAge time.Duration
	// MaxPerSensor and Max are how many passages are remembered, 256 and 100,000 when 0:
	// six full lanes have as many within TrackAge, and 1,600 vehicles a second. Those
	// longest unheard of go first.
	MaxPerSensor, Max int
}

// sure is the confidence from which on a reading of good syntax is taken at its word.
const sure = 0.8

const (
	// step is by how much a confidence must rise to count as stronger.
	step = 0.05
	// restart is the gap after which a wholly different plate under the same track means
	// that the camera has started its count again.
	restart = 10 * time.Second
	// maxTexts and maxSeen are how many texts and messages of a passage are remembered.
	maxTexts = 8
	maxSeen  = 16
	// retransmittedAge is how long a passage of retransmitted reads is remembered after the
	// last arrived.
	retransmittedAge = 10 * time.Minute
)

// Tracker knows the passages of the last minute. Its methods may be called at the same time;
// that the messages of one sensor are judged in their order is for the caller to see to.
type Tracker struct {
	cfg  Config
	seed maphash.Seed

	mu      sync.Mutex
	sensors map[string][]*passage // by sensor, the one heard of last at the end
	// Passages from the one heard of last (next) to the one longest unheard of (prev).
	ring  passage
	count int
	stats Stats
}

// Stats are counts of a Tracker since it was made, of committed decisions.
type Stats struct {
	// Decisions counts sightings by reason; the index is a Reason.
	Decisions [NumReasons]uint64
	// Evicted counts passages that were forgotten before their time, for want of room: what
	// is said of such a vehicle later begins a passage of its own.
	Evicted  uint64
	Passages int // remembered now
}

// Reason says why a sighting is forwarded or not. It is a closed set.
type Reason uint8

// Reasons. Those up to Evidence are for forwarding.
const (
	First      Reason = iota // of its passage
	Text                     // the plate differs from the last one, or that is not known
	Country                  // the country is another, or was unknown
	Confidence               // higher than any forwarded for this plate, by 0.05 at least
	Evidence                 // first confidences of characters, first candidates or first picture
	Nothing                  // tells nothing new
	Repeat                   // the message came before
	NumReasons = iota
)

var reasons = [NumReasons]string{"first", "text", "country", "confidence", "evidence", "nothing", "repeat"}

// String returns the reason as one word, fit for a label.
func (r Reason) String() string {
	if int(r) < len(reasons) {
		return reasons[r]
	}
	return "unknown"
}

// Decision is what is to be done with a sighting.
type Decision struct {
	Passage  string // id
	Revision uint32 // higher than that of any read of the passage forwarded before; 0 for the first
	Reason   Reason
	// ID is the id of the read: its own, or sensors.StableID, or one made from either and
	// Revision when the passage has had it before. A message that comes again after Abandon
	// has the id that it had. Empty unless forwarded.
	ID string

	p *passage
}

// Forward reports whether the sighting tells something new.
func (d *Decision) Forward() bool { return d.Reason <= Evidence }

// PicturesLost says that the pictures of the sighting were not stored, so that a later one
// with pictures is news. It is called before Commit.
func (d *Decision) PicturesLost() { d.p.pictures = false }

// passage is what is remembered of one. A change to it is made on a copy that Commit puts in
// its place.
type passage struct {
	prev, next *passage // of Tracker.ring

	id            string
	sensor, track string
	lane          uint32
	retransmitted bool
	heard         time.Time // arrival of the last message
	ts, firstTS   int64     // of capture, of the latest and of the first message
	forwarded     uint32
	shared        bool // track is, or was, that of several vehicles
	unsure        bool // a read was abandoned since the last that was stored

	texts   []text // a few, the present one last; empty as long as there was no plate
	country plate.Country

	charConf, candidates, pictures bool // whether any were told so far

	seen []uint64 // hashes of the last messages
	ids  []uint64 // hashes of the ids of the last forwarded reads

	abandoned []attempt // the last, of those that have not come again
}

// attempt is a read that was forwarded.
type attempt struct {
	message uint64 // hash, without the pictures
	own     uint64 // hash of the id that the read has by itself
	id      string
}

// text is one plate that was read in a passage.
type text struct {
	key  plate.Key
	conf float32 // the highest that was forwarded
	sure bool    // one reading was confident and of good syntax
}

// New returns a Tracker, or an error that names what is wrong with cfg.
func New(cfg Config) (*Tracker, error) {
	switch {
	case cfg.Window < 0, cfg.TrackAge < 0:
		return nil, errors.New("passage: Config.Window and TrackAge must not be negative")
	case cfg.MaxPerSensor < 0, cfg.Max < 0:
		return nil, errors.New("passage: Config.MaxPerSensor and Max must not be negative")
	}
	if cfg.Window == 0 {
		cfg.Window = 5 * time.Second
	}
	if cfg.TrackAge == 0 {
		cfg.TrackAge = time.Minute
	}
	if cfg.MaxPerSensor == 0 {
		cfg.MaxPerSensor = 256
	}
	if cfg.Max == 0 {
		cfg.Max = 100_000
	}
	t := &Tracker{cfg: cfg, seed: maphash.MakeSeed(), sensors: make(map[string][]*passage)}
	t.ring.prev, t.ring.next = &t.ring, &t.ring
	return t, nil
}

// Stats returns the counts so far.
func (t *Tracker) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats
	s.Passages = t.count
	return s
}

// Tx is the judgement of one message, which ends with Commit when its reads are stored and with
// Abandon when that is not known. When none of them is stored it needs no end: the Tracker
// is as if the message had not come. Its methods are for one goroutine.
type Tx struct {
	t       *Tracker
	now     time.Time
	changed []change
	old     map[*passage]bool // those of changed
	told    []telling
	counts  [NumReasons]uint64

	// What the message shows, when it has several sightings: plates, and tracks that are of
	// several vehicles.
	shown  map[view]bool
	shared map[trackOf]bool
}

// telling is a read of p that was forwarded by this Tx.
type telling struct {
	p *passage
	attempt
}

// view is a plate at a time of capture.
type view struct {
	sensor string
	ts     int64
	key    plate.Key
}

// trackOf is a track of a sensor.
type trackOf struct{ sensor, track string }

// change is a passage as it was, nil for a new one, and as it shall be.
type change struct{ old, new *passage }

// Begin starts the judgement of a message that arrived at now. A message of several sightings is
// given as a whole, since they tell of each other.
func (t *Tracker) Begin(now time.Time, message ...sensors.Sighting) *Tx {
	tx := &Tx{t: t, now: now}
	if len(message) > 1 {
		tx.survey(message)
	}
	return tx
}

// survey finds out what a message shows.
func (tx *Tx) survey(message []sensors.Sighting) {
	tx.shown, tx.shared = make(map[view]bool, len(message)), make(map[trackOf]bool)
	type first struct {
		lane uint32 // that was told
		sure view
	}
	seen := make(map[trackOf]first)
	for i := range message {
		g := look(&message[i])
		v := view{g.r.Sensor, g.r.TS, g.key}
		if g.key != 0 {
			tx.shown[v] = true
		}
		if g.track == "" {
			continue
		}
		name := trackOf{g.r.Sensor, g.track}
		f := seen[name]
		switch {
		case g.r.Lane == 0:
		case f.lane == 0:
			f.lane = g.r.Lane
		case f.lane != g.r.Lane:
			tx.shared[name] = true
		}
		switch {
		case !g.sure:
		case f.sure.key == 0:
			f.sure = v
		case f.sure.key != g.key && (f.sure.ts == v.ts || differ(f.sure.key, g.key)):
			tx.shared[name] = true
		}
		seen[name] = f
	}
}

// Decide judges a sighting that sensors.Read.Check finds in order and whose plate is one or
// says that there is none. Sightings of one message are judged in turn, each in the light of
// those before.
//
// Sightings with a track belong together when sensor and track are the same and not more than
// Config.TrackAge lies between them; after 10 s only unless both plates were read with
// confidence and are wholly different, which means that the camera has restarted. What the
// plate is does not matter otherwise: that it changes is what cameras report under one track.
// But a track is of several vehicles when one message has it in two lanes, or with two plates
// that were read with confidence and are wholly different or of the same time. Its sightings
// then belong together as those without a track do, within Config.TrackAge.
//
// Sightings without a track belong together when sensor and lane are the same (an unknown lane
// is any), not more than Config.Window lies between them, and the plate is the same or might be
// a misreading: equal after folding what cameras confuse, or one character away, and one of
// the two is in doubt. A plate is not in doubt when its syntax is good and its confidence 0.8 or
// more or not told. Two that are not in doubt are two vehicles: those of a fleet have
// consecutive plates and drive one behind the other. Two plates that one message shows at the same
// time are two vehicles, in doubt or not. Sightings without a plate belong together for one
// Config.Window and not with any plate.
//
// What lies between two sightings is the longer of what lies between their arrivals and
// between their times of capture, since cameras send the reads of an hour at once, and clocks
// jump. Retransmitted sightings belong together only with their like and by time of capture
// alone.
func (tx *Tx) Decide(s *sensors.Sighting) Decision {
	g := look(s)
	p := tx.find(&g)
	if p == nil {
		p = &passage{
			id: firstID(&g), sensor: strings.Clone(g.r.Sensor), track: strings.Clone(s.Track), lane: g.r.Lane,
			retransmitted: g.r.Retransmitted, ts: g.r.TS, firstTS: g.r.TS,
		}
		tx.changed = append(tx.changed, change{new: p})
	}
	p.shared = p.shared || g.shared
	hash := tx.hash(&g, g.picture)
	d := Decision{Passage: p.id, Revision: p.forwarded, Reason: p.judge(&g, hash), p: p}
	p.take(&g, &d, tx.now, hash)
	if d.Forward() {
		a := p.attempt(g.r, d.Revision, tx.hash(&g, false), tx.t.seed)
		tx.told = append(tx.told, telling{p, a})
		d.ID = a.id
		p.forwarded++
	}
	tx.counts[d.Reason]++
	return d
}

// find returns the passage that g belongs to, as a copy of this Tx; nil when g begins one.
// Among several it is the one that fits best, and of these the one heard of last. It finds out
// whether the track of g is of several vehicles.
func (tx *Tx) find(g *glance) *passage {
	t := tx.t
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.sensors[g.r.Sensor]
	g.shared = g.track != "" && (tx.shared[trackOf{g.r.Sensor, g.track}] ||
		slices.ContainsFunc(all, func(p *passage) bool { return p.shared && p.track == g.track }))
	best, fit, mine := (*passage)(nil), none, true
	for i := len(tx.changed) - 1; i >= max(0, len(tx.changed)-t.cfg.MaxPerSensor); i-- {
		if f := tx.fits(tx.changed[i].new, g); f > fit {
			best, fit = tx.changed[i].new, f
		}
	}
	for i := len(all) - 1; i >= 0; i-- {
		if tx.old[all[i]] {
			continue
		}
		if f := tx.fits(all[i], g); f > fit {
			best, fit, mine = all[i], f, false
		}
	}
	if best == nil || mine {
		return best
	}
	c := *best
	c.texts, c.seen, c.ids, c.abandoned = slices.Clone(c.texts), slices.Clone(c.seen), slices.Clone(c.ids), slices.Clone(c.abandoned)
	if tx.old == nil {
		tx.old = make(map[*passage]bool)
	}
	tx.old[best] = true
	tx.changed = append(tx.changed, change{old: best, new: &c})
	return &c
}

// Commit makes the decisions count: their reads are stored. Of two Tx of one sensor that
// overlap, which the caller prevents, the later to be committed does not know of the other.
func (tx *Tx) Commit() {
	t := tx.t
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, n := range tx.counts {
		t.stats.Decisions[i] += n
	}
	tx.put()
}

// Abandon ends a Tx of which it is not known whether its reads are stored, none or some of them.
// Their revisions are not given again, and as nobody knows what was said last of a passage, its
// next sighting with a plate is forwarded, unless it is an older message sent twice. Otherwise
// the message may come again as if it had not come: its reads have the same ids, and first ones
// are first again.
func (tx *Tx) Abandon() {
	t := tx.t
	t.mu.Lock()
	defer t.mu.Unlock()
	var unsure []change
	for _, c := range tx.changed {
		if c.old == nil || c.new.forwarded == c.old.forwarded {
			continue
		}
		p := *c.old // what was told last is as it is known to be
		p.prev, p.next = nil, nil
		p.heard, p.ts, p.forwarded, p.unsure, p.shared = c.new.heard, c.new.ts, c.new.forwarded, true, c.new.shared
		p.ids, p.abandoned = c.new.ids, c.new.abandoned
		for i := range tx.told {
			if tx.told[i].p == c.new {
				p.abandoned = remember(p.abandoned, tx.told[i].attempt)
			}
		}
		unsure = append(unsure, change{c.old, &p})
	}
	tx.changed = unsure
	tx.put()
}

// put puts the passages of tx in the place of those before. Tracker.mu is held.
func (tx *Tx) put() {
	t := tx.t
	for _, c := range tx.changed {
		if c.old != nil && c.old.next != nil { // still remembered
			t.remove(c.old)
		}
		t.add(c.new)
	}
	for i, c := range tx.changed {
		if i == 0 || c.new.sensor != tx.changed[i-1].new.sensor {
			t.expire(c.new.sensor, tx.now)
		}
	}
	tx.changed = nil
}

// add puts p in front. t.mu is held.
func (t *Tracker) add(p *passage) {
	p.prev, p.next = &t.ring, t.ring.next
	p.prev.next, p.next.prev = p, p
	t.sensors[p.sensor] = append(t.sensors[p.sensor], p)
	t.count++
}

// remove takes p out. t.mu is held.
func (t *Tracker) remove(p *passage) {
	p.prev.next, p.next.prev = p.next, p.prev
	p.prev, p.next = nil, nil
	t.count--
	all := t.sensors[p.sensor]
	i := slices.Index(all, p)
	all = slices.Delete(all, i, i+1)
	if len(all) == 0 {
		delete(t.sensors, p.sensor)
		return
	}
	t.sensors[p.sensor] = all
}

// expire forgets the passages of a sensor that are over, and those that there is no room for.
// t.mu is held.
func (t *Tracker) expire(sensor string, now time.Time) {
	for _, p := range slices.Clone(t.sensors[sensor]) {
		if t.over(p, now) {
			t.remove(p)
		}
	}
	for len(t.sensors[sensor]) > t.cfg.MaxPerSensor {
		t.evict(t.sensors[sensor][0], now)
	}
	for t.count > t.cfg.Max {
		t.evict(t.ring.prev, now)
	}
}

func (t *Tracker) evict(p *passage, now time.Time) {
	if !t.over(p, now) {
		t.stats.Evicted++
	}
	t.remove(p)
}

func (t *Tracker) over(p *passage, now time.Time) bool {
	age := t.age(p.track)
	if p.retransmitted {
		age = retransmittedAge
	}
	return now.Sub(p.heard) > age
}

// age is how long a passage goes on after the last message.
func (t *Tracker) age(track string) time.Duration {
	if track == "" {
		return t.cfg.Window
	}
	return t.cfg.TrackAge
}

// glance is a sighting as it is judged.
type glance struct {
	r       *sensors.Read
	track   string
	key     plate.Key // 0 when there is no plate
	country plate.Country
	sure    bool
	picture bool
	shared  bool // the track is of several vehicles
}

func look(s *sensors.Sighting) glance {
	g := glance{r: &s.Read, track: s.Track, country: s.Read.CountryCode()}
	if key, err := g.r.Key(); err == nil {
		g.key = key
		g.sure = key.Syntax(g.country) != plate.Invalid && (g.r.Conf == 0 || g.r.Conf >= sure)
	}
	g.picture = len(s.Plate) > 0 || len(s.Context) > 0 || g.r.Image != nil || g.r.Context != nil
	return g
}

// hash tells the message of g from others of the same passage; picture says that it has one.
func (tx *Tx) hash(g *glance, picture bool) uint64 {
	var h maphash.Hash
	h.SetSeed(tx.t.seed)
	b := make([]byte, 0, 64)
	b = binary.BigEndian.AppendUint64(b, uint64(g.r.TS))
	b = binary.BigEndian.AppendUint64(b, uint64(g.key))
	b = binary.BigEndian.AppendUint32(b, uint32(g.country))
	b = binary.BigEndian.AppendUint32(b, math.Float32bits(g.r.Conf))
	b = binary.AppendUvarint(b, uint64(len(g.r.CharConf)))
	b = binary.AppendUvarint(b, uint64(len(g.r.Candidates)))
	if picture {
		b = append(b, 1)
	}
	h.Write(b)
	return h.Sum64()
}

// How well a sighting fits a passage, from not at all.
const (
	none = iota
	similar
	same
)

// fits tells how well g fits p.
func (tx *Tx) fits(p *passage, g *glance) int {
	if p.sensor != g.r.Sensor || p.track != g.track || p.retransmitted != g.r.Retransmitted {
		return none
	}
	gap := (time.Duration(g.r.TS-p.ts) * time.Millisecond).Abs()
	if !p.retransmitted {
		gap = max(gap, tx.now.Sub(p.heard))
	}
	if gap > tx.t.age(g.track) {
		return none
	}
	if g.track != "" && !p.shared && !g.shared {
		if gap > restart && g.sure && p.contradicts(g.key) {
			return none
		}
		return same
	}
	if p.lane != 0 && g.r.Lane != 0 && p.lane != g.r.Lane {
		return none
	}
	if g.key == 0 || len(p.texts) == 0 {
		first := time.Duration(g.r.TS-p.firstTS) * time.Millisecond
		if g.key != 0 || len(p.texts) > 0 || first.Abs() > tx.t.cfg.Window {
			return none
		}
		return same
	}
	known, another := false, false
	last := p.texts[len(p.texts)-1].key
	for _, x := range p.texts {
		switch {
		case x.key == g.key:
			known = true
		case last != g.key && tx.shown[view{g.r.Sensor, g.r.TS, x.key}]:
			return none // the vehicle of p is another in the same picture
		default:
			another = another || x.sure && g.sure
		}
	}
	if known {
		return same
	}
	if !another && (g.key.Fold() == last.Fold() || oneEdit(g.key, last)) {
		return similar
	}
	return none
}

// contradicts reports whether p knows a plate for sure, and all it knows so differ from key.
func (p *passage) contradicts(key plate.Key) bool {
	found := false
	for _, x := range p.texts {
		if !x.sure {
			continue
		}
		if !differ(x.key, key) {
			return false
		}
		found = true
	}
	return found
}

// judge says what g tells that p has not told.
func (p *passage) judge(g *glance, hash uint64) Reason {
	if p.forwarded == 0 {
		return First
	}
	for i, h := range p.seen {
		// What came before and is older than what came since is a message sent twice, not a
		// plate that changes back.
		if h == hash && (i == len(p.seen)-1 && !p.unsure || g.r.TS < p.ts) {
			return Repeat
		}
	}
	if g.key == 0 {
		return Nothing // that a plate is gone tells nothing of the vehicle
	}
	if p.unsure || len(p.texts) == 0 || p.texts[len(p.texts)-1].key != g.key {
		return Text
	}
	switch {
	case g.country != 0 && g.country != p.country:
		return Country
	case g.r.Conf-p.texts[len(p.texts)-1].conf >= step-1e-6: // 0.95 of floats is not 0.90 + 0.05
		return Confidence
	case len(g.r.CharConf) > 0 && !p.charConf, len(g.r.Candidates) > 0 && !p.candidates, g.picture && !p.pictures:
		return Evidence
	}
	return Nothing
}

// take adds to p what g tells.
func (p *passage) take(g *glance, d *Decision, now time.Time, hash uint64) {
	p.heard = now
	p.ts = max(p.ts, g.r.TS)
	if g.r.Lane != 0 {
		p.lane = g.r.Lane
	}
	p.seen = remember(p.seen, hash)
	if g.key != 0 {
		p.read(g, d.Forward())
	}
	if !d.Forward() {
		return
	}
	p.unsure = false
	if g.country != 0 {
		p.country = g.country
	}
	p.charConf = p.charConf || len(g.r.CharConf) > 0
	p.candidates = p.candidates || len(g.r.Candidates) > 0
	p.pictures = p.pictures || g.picture
}

// read adds the plate of g to the texts of p, or moves it to their end.
func (p *passage) read(g *glance, forward bool) {
	i := slices.IndexFunc(p.texts, func(x text) bool { return x.key == g.key })
	if !forward { // it is the present one, or one of before that was sent twice
		if i >= 0 {
			p.texts[i].sure = p.texts[i].sure || g.sure
		}
		return
	}
	x := text{key: g.key}
	if i >= 0 {
		x = p.texts[i]
		p.texts = slices.Delete(p.texts, i, i+1)
	}
	x.conf, x.sure = max(x.conf, g.r.Conf), x.sure || g.sure
	if p.texts = append(p.texts, x); len(p.texts) > maxTexts {
		p.texts = slices.Delete(p.texts, 0, 1)
	}
}

// attempt returns r as it is forwarded, with its id, which p remembers.
func (p *passage) attempt(r *sensors.Read, revision uint32, message uint64, seed maphash.Seed) attempt {
	id := r.ID
	if id == "" {
		id = sensors.StableID(r)
	}
	a := attempt{message: message, own: maphash.String(seed, id), id: id}
	for i, b := range p.abandoned {
		if b.message == a.message && b.own == a.own {
			p.abandoned = slices.Delete(p.abandoned, i, i+1)
			return b
		}
	}
	hash := a.own
	if slices.Contains(p.ids, hash) {
		a.id = digest("vigie revision 1\x00", id, "", uint64(revision), "")
		hash = maphash.String(seed, a.id)
	}
	p.ids = remember(p.ids, hash)
	return a
}

// remember adds x to the last few.
func remember[T any](list []T, x T) []T {
	if list = append(list, x); len(list) > maxSeen {
		list = slices.Delete(list, 0, 1)
	}
	return list
}

// ID returns the id of the passage that a sensor calls track, which is of no other vehicle, and
// whose first message tells the time of capture firstTS: 26 characters of lower-case base32. The
// same first message sent again begins the same passage, also at another gateway and after a
// restart.
func ID(sensor, track string, firstTS int64) string {
	return digest("vigie passage 1\x00", sensor, track, uint64(firstTS), "")
}

// ReadID returns the id of the passage that begins with a read without a track: that of sensor,
// time, lane and normalised plate. As with sensors.StableID, who knows the rest finds the plate
// by trying.
func ReadID(r *sensors.Read) string {
	text := r.Plate
	if key, err := r.Key(); err == nil {
		text = key.String()
	}
	return digest("vigie passage 2\x00", r.Sensor, string(binary.AppendUvarint(nil, uint64(r.Lane))), uint64(r.TS), text)
}

func firstID(g *glance) string {
	switch {
	case g.track == "":
		return ReadID(g.r)
	case g.shared:
		return digest("vigie passage 3\x00", g.r.Sensor, g.track, uint64(g.r.TS), ReadID(g.r))
	}
	return ID(g.r.Sensor, g.track, g.r.TS)
}

// ids is the alphabet of RFC 4648 in lower case; 16 bytes make 26 characters.
var ids = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// digest is the first 128 bits of SHA-256 over its arguments. Each but the last has a fixed
// length or tells it.
func digest(kind, a, b string, n uint64, last string) string {
	buf := make([]byte, 0, 128)
	buf = append(buf, kind...)
	buf = binary.AppendUvarint(buf, uint64(len(a)))
	buf = append(buf, a...)
	buf = binary.AppendUvarint(buf, uint64(len(b)))
	buf = append(buf, b...)
	buf = binary.BigEndian.AppendUint64(buf, n)
	buf = append(buf, last...)
	sum := sha256.Sum256(buf)
	return ids.EncodeToString(sum[:16])
}
