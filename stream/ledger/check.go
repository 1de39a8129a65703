package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"vigie/sensors"
	"vigie/stream/alert"
	"vigie/watchlist/plate"
)

// Observed is what a service has produced. Check judges what belongs to the list
// and the time of the ledger and passes over the rest.
type Observed struct {
	// Queue is every alert message of the queue, repeats included.
	Queue []Alert
	// Hits is every hit of the hits topic, repeats included. Nil means that the
	// topic was not looked at.
	Hits []Alert
	// Offsets are committed offsets in the order in which they were seen, beside
	// those of the ledger.
	Offsets []Offset
}

// Alert is an alert as it was found. None of its fields holds a plate.
type Alert struct {
	ID      string
	Read    string // id of the read
	Sensor  string // of the read
	TS      int64  // of the read, milliseconds since the Unix epoch
	List    string
	Entry   string // id of the entry
	Exact   bool   // the texts of read and entry are the same
	Late    bool
	Version int64 // control-log version by which the read was matched
	Stored  int64 // milliseconds since the Unix epoch
}

// AlertOf is what Check needs of an alert that was stored at a time, in
// milliseconds since the Unix epoch.
func AlertOf(a *alert.Alert, stored int64) Alert {
	return Alert{
		ID: a.ID, Read: a.Read.ID, Sensor: a.Read.Sensor, TS: a.Read.TS, List: a.List.ID, Entry: a.Entry.ID,
		Exact: a.Match.Kind == "exact", Late: a.Late, Version: a.Match.Version, Stored: stored,
	}
}

// Options says how patient Check is.
type Options struct {
	// Staleness is how long a confirmed change may take to be in effect for the
	// next read: 250 ms when 0. A read that was sent less than that after its entry
	// was confirmed may alert or not.
	Staleness time.Duration
	// Lag is how long a read may wait in Kafka before it is matched; Staleness
	// when 0. A list that changes meanwhile changes what the read raises, rightly.
	// After an outage it is the length of the outage.
	Lag time.Duration
}

// Kind says which promise is broken. It is a closed set.
type Kind string

// The promises.
const (
	// Missing: an alert that must be in the queue is not (I1).
	Missing Kind = "missing"
	// NotRecorded: an alert that must be on the hits topic is not (I1).
	NotRecorded Kind = "not recorded"
	// Repeat: the queue holds an alert more than once (I2).
	Repeat Kind = "repeat"
	// Ghost: an alert without a read that was sent, or of an entry that was not
	// there yet (I3).
	Ghost Kind = "ghost"
	// Withdrawn: an alert although its entry was withdrawn, and the withdrawal
	// confirmed, before the read was sent or matched (I3).
	Withdrawn Kind = "withdrawn"
	// Rewound: a committed offset is below an earlier one.
	Rewound Kind = "rewound"
)

// Violation is one broken promise. It names things by their ids and holds no plate.
type Violation struct {
	Kind   Kind   `json:"kind"`
	Alert  string `json:"alert,omitempty"`
	Read   string `json:"read,omitempty"`
	Entry  string `json:"entry,omitempty"`
	Detail string `json:"detail"`
}

// String is the violation on one line.
func (v Violation) String() string {
	s := string(v.Kind) + ": "
	for _, f := range [...]struct{ name, id string }{{"alert ", v.Alert}, {"read ", v.Read}, {"entry ", v.Entry}} {
		if f.id != "" {
			s += f.name + f.id + ", "
		}
	}
	return s + v.Detail
}

// Report is the verdict on a history.
type Report struct {
	Reads    Tally `json:"reads"`
	Changes  Tally `json:"changes"`
	Complete bool  `json:"complete"`   // the ledger came to its end
	Torn     int   `json:"torn_bytes"` // of its last line

	Expected int `json:"expected"` // alerts that must be there
	Found    int `json:"found"`    // of these, how many are
	Allowed  int `json:"allowed"`  // further alerts that may be there, and are
	Late     int `json:"late"`     // alerts marked late, of those found and allowed
	Passed   int `json:"passed_over"`
	// HitsChecked says whether the hits topic was looked at; HitRepeats counts what
	// it holds again, as it may.
	HitsChecked bool `json:"hits_checked"`
	HitRepeats  int  `json:"hit_repeats"`
	// OffsetSamples is how many committed offsets were compared with another.
	OffsetSamples int `json:"offset_samples"`
	// StoredMS is the time from sending a read to its alert being stored, to the
	// millisecond, by the clocks of two machines where there are two.
	StoredMS struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
		Max float64 `json:"max"`
	} `json:"stored_ms"`

	Violations []Violation `json:"violations"` // never nil
}

// OK reports whether every promise was kept. That says nothing when Expected is 0.
func (r *Report) OK() bool { return len(r.Violations) == 0 }

// Count is how many violations of a kind there are.
func (r *Report) Count(k Kind) (n int) {
	for i := range r.Violations {
		if r.Violations[i].Kind == k {
			n++
		}
	}
	return n
}

// judge is one call of Check.
type judge struct {
	*History
	rep            Report
	staleness, lag int64 // µs
	queue          map[string]bool
	hits           map[string]bool
	took           []int64 // µs
}

// Check holds what a service has produced to the ledger.
//
// An alert must be there when its read was acknowledged and its entry was in
// effect for certain from Staleness before the read was sent until Lag after it
// was acknowledged. It may be there when the read was not refused and the entry was
// possibly in effect at some time from sending the read on until then. Everything
// else must not be there. A change is possible from when it was issued, and certain
// from when it was confirmed; one of unknown outcome stays possible for ever.
//
// Of a list whose tolerance is not exact, alerts on texts that differ from their
// entry are allowed where an exact one would be; which of them must be there, the
// ledger does not know.
func Check(h *History, obs Observed, opt Options) Report {
	if opt.Staleness == 0 {
		opt.Staleness = 250 * time.Millisecond
	}
	if opt.Lag == 0 {
		opt.Lag = opt.Staleness
	}
	j := &judge{
		History: h, staleness: opt.Staleness.Microseconds(), lag: opt.Lag.Microseconds(),
		queue: map[string]bool{}, hits: map[string]bool{},
	}
	j.rep = Report{
		Reads: h.Reads, Changes: h.Changes, Complete: h.Ended, Torn: h.Torn,
		HitsChecked: obs.Hits != nil, Violations: []Violation{},
	}
	expected := j.expected()
	j.rep.Expected = len(expected)
	for i := range obs.Queue {
		j.inQueue(&obs.Queue[i], expected)
	}
	for i := range obs.Hits {
		j.inHits(&obs.Hits[i])
	}
	j.absent(expected)
	j.offsets(obs.Offsets)
	slices.Sort(j.took)
	if n := len(j.took); n > 0 {
		ms := func(i int) float64 { return float64(j.took[i]) / 1000 }
		j.rep.StoredMS.P50, j.rep.StoredMS.P99, j.rep.StoredMS.Max = ms(n/2), ms(min(n-1, n*99/100)), ms(n-1)
	}
	return j.rep
}

func (j *judge) violation(k Kind, a, read, entry, format string, args ...any) {
	j.rep.Violations = append(j.rep.Violations, Violation{Kind: k, Alert: a, Read: read, Entry: entry, Detail: fmt.Sprintf(format, args...)})
}

// due is an alert that must be there.
type due struct{ read, entry string }

// expected returns the alerts that must be there, by id.
func (j *judge) expected() map[string]due {
	all := map[string]due{}
	byPlate := map[plate.Key][]*target{}
	for _, t := range j.targets {
		byPlate[t.key.plate] = append(byPlate[t.key.plate], t)
	}
	for _, r := range j.kept {
		if r.result != OK {
			continue
		}
		for _, t := range byPlate[r.key.plate] {
			if len(t.entries) != 1 || plate.Relate(r.key.country, t.key.country) == plate.CountryDifferent {
				continue
			}
			for _, s := range t.spans {
				if s.certainFrom <= r.Sent-j.staleness && s.certainTo >= r.known+j.lag {
					all[idOf(r.ID, r.Sensor, t.entries[0])] = due{r.ID, t.entries[0]}
					break
				}
			}
		}
	}
	return all
}

func idOf(read, sensor, entry string) string {
	return alert.ID(&sensors.Read{ID: read, Sensor: sensor}, entry)
}

// inQueue judges an alert of the queue.
func (j *judge) inQueue(a *Alert, expected map[string]due) {
	if !j.ours(a) {
		j.rep.Passed++
		return
	}
	if j.queue[a.ID] {
		j.violation(Repeat, a.ID, a.Read, a.Entry, "is in the queue again")
		return
	}
	j.queue[a.ID] = true
	if r := j.kept[a.Read]; r != nil {
		j.took = append(j.took, max(0, a.Stored*1000-r.Sent))
	}
	if !j.permitted(a, "in the queue") {
		return
	}
	if _, must := expected[a.ID]; must {
		j.rep.Found++
	} else {
		j.rep.Allowed++
	}
	if a.Late {
		j.rep.Late++
	}
}

// inHits judges a hit of the hits topic.
func (j *judge) inHits(a *Alert) {
	switch {
	case !j.ours(a):
	case j.hits[a.ID]:
		j.rep.HitRepeats++
	default:
		j.hits[a.ID] = true
		if !j.queue[a.ID] { // else it was judged there
			j.permitted(a, "on the hits topic")
		}
	}
}

// ours reports whether an alert belongs to this ledger: to its list, and not to an
// earlier time.
func (j *judge) ours(a *Alert) bool {
	return a.List == j.Header.List && (j.kept[a.Read] != nil || a.TS >= j.Header.Start/1000)
}

// permitted reports whether an alert may be there, and says why not.
func (j *judge) permitted(a *Alert, where string) bool {
	bad := func(k Kind, format string, args ...any) bool {
		j.violation(k, a.ID, a.Read, a.Entry, where+"; "+format, args...)
		return false
	}
	r := j.kept[a.Read]
	switch {
	case r == nil && j.keptAll:
		return bad(Ghost, "no read of that id was sent")
	case r == nil:
		return bad(Ghost, "no read of that id was sent of a plate that was ever on the list")
	case r.result == Fail:
		return bad(Ghost, "its read was refused")
	case a.Sensor != r.Sensor || a.ID != idOf(r.ID, r.Sensor, a.Entry):
		return bad(Ghost, "its id is not that of its read and entry")
	}
	t := j.byEntry[a.Entry]
	if t == nil {
		// An entry whose addition was never confirmed has no known id.
		if t = j.unnamed(r); t == nil {
			return bad(Ghost, "no entry of that id was ever on the list")
		}
	} else if t.key.plate != r.key.plate || plate.Relate(t.key.country, r.key.country) == plate.CountryDifferent {
		if !j.keptAll || a.Exact {
			return bad(Ghost, "its read is of another plate than its entry")
		}
	}
	return j.inEffect(a, r, t, bad)
}

// unnamed returns the target of a read if the ledger knows no id of its entry.
func (j *judge) unnamed(r *keptRead) *target {
	for _, t := range j.targets {
		if t.key.plate == r.key.plate && len(t.entries) == 0 {
			return t
		}
	}
	return nil
}

// inEffect reports whether the entry of an alert may have been in effect for its read.
func (j *judge) inEffect(a *Alert, r *keptRead, t *target, bad func(Kind, string, ...any) bool) bool {
	until := int64(forever)
	if r.known < forever {
		until = r.known + j.lag
	}
	gone, there := int64(-1), false
	for _, s := range t.spans {
		switch {
		case s.possibleTo < r.Sent:
			gone = max(gone, s.possibleTo)
		case s.possibleFrom <= until:
			there = true
		}
	}
	if !t.unsure && a.Version > 0 {
		return j.byVersion(a, r, t, there, bad)
	}
	switch {
	case there:
		return true
	case len(t.spans) == 0:
		return bad(Ghost, "its entry was never added")
	case gone >= 0:
		return bad(Withdrawn, "its entry was withdrawn and that confirmed %v before the read was sent", micros(r.Sent-gone))
	default:
		return bad(Ghost, "its entry was not added until %v after the read was sent", micros(first(t)-r.Sent))
	}
}

// byVersion is inEffect where every change is known: the version by which a read was
// matched tells, without any clock, whether its entry was on the list.
func (j *judge) byVersion(a *Alert, r *keptRead, t *target, there bool, bad func(Kind, string, ...any) bool) bool {
	last := step{version: -1}
	for _, s := range t.steps {
		if s.version <= a.Version && s.version > last.version {
			last = s
		}
	}
	switch last.op {
	case Withdraw:
		return bad(Withdrawn, "it was matched at version %d, and its entry was withdrawn at version %d", a.Version, last.version)
	case Add:
	default:
		return bad(Ghost, "it was matched at version %d, before its entry was added", a.Version)
	}
	s := t.spans[last.span]
	switch {
	case s.possibleTo < r.Sent:
		return bad(Withdrawn, "it was matched at version %d, older than a withdrawal that was confirmed %v before the read was sent", a.Version, micros(r.Sent-s.possibleTo))
	case !there:
		return bad(Ghost, "its entry was not added until %v after the read was sent", micros(s.possibleFrom-r.Sent))
	}
	return true
}

func first(t *target) int64 {
	at := int64(forever)
	for _, s := range t.spans {
		at = min(at, s.possibleFrom)
	}
	return at
}

func micros(us int64) time.Duration { return time.Duration(us) * time.Microsecond }

// absent says which alerts are missing from the queue or from the hits topic.
func (j *judge) absent(expected map[string]due) {
	var missing []Violation
	for id, d := range expected {
		if !j.queue[id] {
			missing = append(missing, Violation{Missing, id, d.read, d.entry, "must be in the queue and is not"})
		}
	}
	if j.rep.HitsChecked {
		for id, d := range expected {
			if !j.hits[id] {
				missing = append(missing, Violation{NotRecorded, id, d.read, d.entry, "must be on the hits topic and is not"})
			}
		}
		for id := range j.queue {
			if _, must := expected[id]; !must && !j.hits[id] {
				missing = append(missing, Violation{Kind: NotRecorded, Alert: id, Detail: "is in the queue and not on the hits topic"})
			}
		}
		for id := range j.hits {
			if _, must := expected[id]; !must && !j.queue[id] {
				missing = append(missing, Violation{Kind: Missing, Alert: id, Detail: "is on the hits topic and not in the queue"})
			}
		}
	}
	slices.SortFunc(missing, func(a, b Violation) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Alert, b.Alert)) })
	j.rep.Violations = append(j.rep.Violations, missing...)
}

// offsets checks that no committed offset went back.
func (j *judge) offsets(more []Offset) {
	highest := map[int]Offset{}
	for _, o := range slices.Concat(j.Offsets, more) {
		before, seen := highest[o.Partition]
		if seen {
			j.rep.OffsetSamples++
		}
		if seen && o.Committed < before.Committed {
			j.violation(Rewound, "", "", "", "partition %d was committed at offset %d and %v later at %d",
				o.Partition, before.Committed, micros(o.At-before.At), o.Committed)
		}
		// After a rewind the next must not go below the lower one.
		highest[o.Partition] = o
	}
}
