package control

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"vigie/watchlist"
)

// ErrOffset is returned by Apply and Load for a record whose offset does not
// lie above the version of the State. Records come in order and once; this is a
// fault of the caller, and the State is as before.
var ErrOffset = errors.New("control: record out of order")

// State is what the control log says: lists, entries, exemptions and sensors at one
// version.
//
// A State is not safe for use while Apply, Load or Advance runs; all other
// methods may run at the same time as each other. What they return is shared and
// must not be changed, but stays as it is when the State moves on.
//
// Invariants: the content is a function of the last record of each key at or
// below the version; book.live counts the entries that book.owns, book.exempt the
// exemptions that book.effective; a book is kept only while it says something.
type State struct {
	version int64
	books   map[string]*book
	sensors map[string]*Sensor
	decoder decoder
	bulk    []*decoder // one for each goroutine of LoadAll
	stats   Stats      // counters of records only; Stats fills in the rest
}

// book is a list with its entries, or the entries of a list that is not there.
type book struct {
	id         string
	list       *watchlist.List        // nil when the log holds none that can be read
	unreadable bool                   // list is nil because its record cannot be read
	tag        uint32                 // of list
	entries    set[*watchlist.Packed] // of every list that bore the id
	live       int                    // how many of them list owns
	exemptions exemptions             // from entries of every list that bore the id
	exempt     int                    // how many of them are effective
	// lost are the ids of the entries whose record cannot be read: they are not in
	// entries, but their exemptions must not be swept.
	lost map[string]struct{}
}

// owns is list.Owns(e) without computing the tag, for an e whose List is b.id.
func (b *book) owns(e *watchlist.Packed) bool {
	tag := e.ListTag()
	return b.list != nil && (tag == 0 || tag == b.tag)
}

// exempted returns the exemptions of e.
func (b *book) exempted(e *watchlist.Packed) []*watchlist.Exemption {
	if len(b.exemptions.byEntry) == 0 {
		return nil
	}
	var id [watchlist.MaxIDBytes]byte
	return b.exemptions.byEntry[string(e.AppendID(id[:0]))]
}

// covers reports whether list owns x. x is effective when list owns its entry too.
func (b *book) covers(x *watchlist.Exemption) bool {
	return b.list != nil && (x.ListTag == 0 || x.ListTag == b.tag)
}

// effective reports whether x can silence anything: its entry is on the list.
func (b *book) effective(x *watchlist.Exemption) bool {
	if !b.covers(x) {
		return false
	}
	e := b.entries.get([]byte(x.Entry))
	return e != nil && b.owns(e)
}

func (b *book) empty() bool {
	return b.list == nil && !b.unreadable && b.entries.n == 0 && b.exemptions.byID.n == 0 && len(b.lost) == 0
}

// NewState returns the State before the first record, at version -1.
func NewState() *State {
	return &State{
		version: -1,
		books:   make(map[string]*book),
		sensors: make(map[string]*Sensor),
	}
}

// Apply moves s on by one record and appends the effects to dst, in an order that
// a consumer can follow: a list that appears comes before its entries, a list that
// goes comes after them; and so an entry with its exemptions. rec is not kept.
// Usually a record has one effect; dropping a list, or bringing back one whose
// entries are held, has one for each entry and each exemption.
//
// Apply is deterministic: every process that applies the same records, or what
// compaction left of them, holds the same content at the same version.
//
//   - A key of a kind that s does not know is passed over and counted.
//   - A value that cannot be read withdraws its key. The error is then a
//     *RecordError, the effects are appended and s has moved on: the caller
//     reports it and continues. Keeping the former value would be worse twice
//     over. The record may be what narrowed a list to other roads, or turned a
//     stop into a discreet check, and an alert on the former value is then a
//     wrong stop. And a process that starts after compaction cannot know the
//     former value, so that replicas would alert differently.
//   - An entry without its list is held: it counts and matches nothing until the
//     list comes. Compaction brings this about, for a list that was changed has a
//     higher offset than its entries. An exemption without its entry is held in
//     the same way.
//   - A list made anew under the id of a dropped one does not own the entries of
//     that one (see watchlist.List.Owns), although their records may still be there,
//     nor their exemptions.
//
// With any other error than a *RecordError nothing has happened.
func (s *State) Apply(rec Record, dst []Change) ([]Change, error) {
	p := s.decoder.parse(rec)
	err := s.apply(rec, &p, &dst)
	return dst, err
}

// Load is Apply without the effects, for catching up: ten million changes that
// nobody has seen the beginning of are better read once from Lists and All. For
// many records at a time there is LoadAll.
func (s *State) Load(rec Record) error {
	p := s.decoder.parse(rec)
	return s.apply(rec, &p, nil)
}

// Advance declares that the log holds no more records below next, and moves the
// version to next-1 unless it is there already. Compaction may have removed the
// last records of a log, whose offset others wait for.
func (s *State) Advance(next int64) { s.version = max(s.version, next-1) }

// apply applies rec, of which p is what a decoder made, and appends the effects to out
// unless that is nil.
func (s *State) apply(rec Record, p *parsed, out *[]Change) error {
	if rec.Offset <= s.version {
		return fmt.Errorf("%w: offset %d at version %d", ErrOffset, rec.Offset, s.version)
	}
	s.version = rec.Offset
	s.stats.Records++
	emit := func(c Change) {
		if out != nil {
			c.Version = rec.Offset
			*out = append(*out, c)
		}
	}

	kind, listID, id := p.kind, p.list, p.id
	bad := p.bad
	switch withdrawn := len(rec.Value) == 0; {
	case !p.ok:
		bad = fault(ReasonKey, "")
	case kind == KindUnknown:
		s.stats.Unknown++
	case kind == KindList:
		b := s.book(listID)
		var l *watchlist.List
		if !withdrawn {
			if l, bad = s.decoder.list(rec.Value, b.id); l != nil {
				l.Version = rec.Offset
			}
		}
		b.unreadable = bad != nil
		b.setList(l, emit)
		s.tidy(b)
	case kind == KindEntry:
		b := s.book(listID)
		b.setEntry(id, p.entry, emit)
		b.lose(id, bad != nil)
		s.tidy(b)
	case kind == KindExemption:
		b := s.book(listID)
		var x *watchlist.Exemption
		if !withdrawn {
			if x, bad = s.decoder.exemption(rec.Value, b.id, id); x != nil {
				x.Version = rec.Offset
			}
		}
		b.setExemption(string(id), x, emit)
		s.tidy(b)
	case kind == KindSensor:
		var sn *Sensor
		if !withdrawn {
			if sn, bad = s.decoder.sensor(rec.Value, string(id)); sn != nil {
				sn.Version = rec.Offset
			}
		}
		s.setSensor(string(id), sn, emit)
	}
	if bad == nil {
		return nil
	}
	s.stats.Unreadable++
	bad.Offset, bad.Kind = rec.Offset, kind
	return bad
}

// book returns the book of a list id, a new one when there is none.
func (s *State) book(id []byte) *book {
	if b := s.books[string(id)]; b != nil {
		return b
	}
	b := &book{id: string(id)}
	s.books[b.id] = b
	return b
}

// tidy forgets b when it says nothing any more.
func (s *State) tidy(b *book) {
	if b.empty() {
		delete(s.books, b.id)
	}
}

// setList replaces the list of b by l, nil to withdraw it. A list with the same
// salt as before owns the same entries, and costs no more than itself.
func (b *book) setList(l *watchlist.List, emit func(Change)) {
	before := *b
	b.list, b.tag = l, 0
	if l != nil {
		b.tag = l.Tag()
		watchlist.RememberSalt(l)
	}
	if before.list == nil && l == nil {
		return
	}
	sameOwner := before.list != nil && l != nil && before.tag == b.tag
	if before.list != nil && !sameOwner {
		for e := range b.entries.all(nil) {
			for _, x := range b.exempted(e) {
				if before.owns(e) && before.covers(x) && !(b.owns(e) && b.covers(x)) {
					b.exempt--
					emit(Change{OldExemption: x})
				}
			}
			if before.owns(e) && !b.owns(e) {
				b.live--
				emit(Change{OldEntry: e})
			}
		}
	}
	emit(Change{OldList: before.list, NewList: l})
	if l != nil && !sameOwner {
		for e := range b.entries.all(nil) {
			if b.owns(e) && !before.owns(e) {
				b.live++
				emit(Change{NewEntry: e})
			}
			for _, x := range b.exempted(e) {
				if b.owns(e) && b.covers(x) && !(before.owns(e) && before.covers(x)) {
					b.exempt++
					emit(Change{NewExemption: x})
				}
			}
		}
	}
}

// setEntry replaces the entry of b with an id by e, nil to withdraw it. Its
// exemptions go and come with it, and stay where it is only replaced.
func (b *book) setEntry(id []byte, e *watchlist.Packed, emit func(Change)) {
	var old *watchlist.Packed
	if e == nil {
		old = b.entries.remove(id)
	} else {
		old = b.entries.put(e)
	}
	live, exempt := b.tally(old, e)
	b.live += live
	b.exempt += exempt
	var c Change
	if old != nil && b.owns(old) {
		c.OldEntry = old
	}
	if e != nil && b.owns(e) {
		c.NewEntry = e
	}
	if c == (Change{}) {
		return
	}
	if exempt < 0 {
		for _, x := range b.exempted(old) {
			if b.covers(x) {
				emit(Change{OldExemption: x})
			}
		}
	}
	emit(c)
	if exempt > 0 {
		for _, x := range b.exempted(e) {
			if b.covers(x) {
				emit(Change{NewExemption: x})
			}
		}
	}
}

// tally returns what it does to b.live and b.exempt that e takes the place of old, which
// has the same id. Either may be nil.
func (b *book) tally(old, e *watchlist.Packed) (live, exempt int) {
	was, is := old != nil && b.owns(old), e != nil && b.owns(e)
	if was == is {
		return 0, 0
	}
	one := e
	if was {
		one = old
	}
	for _, x := range b.exempted(one) {
		if b.covers(x) {
			exempt++
		}
	}
	if is {
		return 1, exempt
	}
	return -1, -exempt
}

// lose notes whether the record of the entry with an id cannot be read.
func (b *book) lose(id []byte, lost bool) {
	switch {
	case !lost && len(b.lost) == 0:
	case !lost:
		delete(b.lost, string(id))
	case b.lost == nil:
		b.lost = map[string]struct{}{string(id): {}}
	default:
		b.lost[string(id)] = struct{}{}
	}
}

// setExemption replaces the exemption of b with an id by x, nil to withdraw it.
func (b *book) setExemption(id string, x *watchlist.Exemption, emit func(Change)) {
	var c Change
	if old := b.exemptions.replace(id, x); old != nil && b.effective(old) {
		c.OldExemption = old
		b.exempt--
	}
	if x != nil && b.effective(x) {
		c.NewExemption = x
		b.exempt++
	}
	if c != (Change{}) {
		emit(c)
	}
}

func (s *State) setSensor(id string, sn *Sensor, emit func(Change)) {
	old := s.sensors[id]
	if sn == nil {
		delete(s.sensors, id)
	} else {
		s.sensors[sn.ID] = sn
	}
	if old != nil || sn != nil {
		emit(Change{OldSensor: old, NewSensor: sn})
	}
}

// Version returns the offset that s has reached: that of the last record applied, or
// further after Advance, or -1.
func (s *State) Version() int64 { return s.version }

// List returns the list with an id, or nil.
func (s *State) List(id string) *watchlist.List {
	if b := s.books[id]; b != nil {
		return b.list
	}
	return nil
}

// Lists returns all lists in the order of their ids.
func (s *State) Lists() []*watchlist.List {
	var lists []*watchlist.List
	for _, b := range s.books {
		if b.list != nil {
			lists = append(lists, b.list)
		}
	}
	slices.SortFunc(lists, func(a, b *watchlist.List) int { return strings.Compare(a.ID, b.ID) })
	return lists
}

// Queues returns the name of every queue that a list sends its alerts to, once
// each, in order.
func (s *State) Queues() []string {
	set := make(map[string]struct{})
	for _, b := range s.books {
		if b.list != nil {
			set[b.list.Queue] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// Entry returns the entry with an id on a list, or nil. Like all that follow it
// sees only entries whose list exists.
func (s *State) Entry(list, id string) *watchlist.Entry {
	if e := s.Packed(list, id); e != nil {
		return e.Unpack()
	}
	return nil
}

// Packed is Entry for whoever needs little of it.
func (s *State) Packed(list, id string) *watchlist.Packed {
	if b := s.books[list]; b != nil {
		if e := b.entries.get([]byte(id)); e != nil && b.owns(e) {
			return e
		}
	}
	return nil
}

// Entries returns up to limit entries of a list in the order of their ids, from the
// first id above after on: a page, whose last id is after for the next one. The
// empty after is the beginning. The cost is that of the page, whatever the size
// of the list.
func (s *State) Entries(list, after string, limit int) []*watchlist.Entry {
	if limit <= 0 {
		return nil
	}
	var page []*watchlist.Entry
	for e := range s.entries(list, after) {
		if page = append(page, e.Unpack()); len(page) == limit {
			break
		}
	}
	return page
}

// All yields the entries of a list in the order of their ids.
func (s *State) All(list string) iter.Seq[*watchlist.Packed] { return s.entries(list, "") }

func (s *State) entries(list, after string) iter.Seq[*watchlist.Packed] {
	return func(yield func(*watchlist.Packed) bool) {
		b := s.books[list]
		if b == nil || b.live == 0 {
			return
		}
		for e := range b.entries.all([]byte(after)) {
			if b.owns(e) && !yield(e) {
				return
			}
		}
	}
}

// Len returns the number of entries of a list, in constant time.
func (s *State) Len(list string) int {
	if b := s.books[list]; b != nil {
		return b.live
	}
	return 0
}

// Exemption returns the exemption with an id on a list, or nil. Like the three that
// follow it sees only exemptions whose list and entry exist. Those that have ended
// are among them: a State knows no time.
func (s *State) Exemption(list, id string) *watchlist.Exemption {
	if b := s.books[list]; b != nil {
		if x := b.exemptions.byID.get([]byte(id)); x != nil && b.effective(x) {
			return x
		}
	}
	return nil
}

// Exemptions returns up to limit exemptions of a list in the order of their ids, from
// the first id above after on; see Entries.
func (s *State) Exemptions(list, after string, limit int) []*watchlist.Exemption {
	if limit <= 0 {
		return nil
	}
	var page []*watchlist.Exemption
	for x := range s.exemptions(list, after) {
		if page = append(page, x); len(page) == limit {
			break
		}
	}
	return page
}

// AllExemptions yields the exemptions of a list in the order of their ids.
func (s *State) AllExemptions(list string) iter.Seq[*watchlist.Exemption] {
	return s.exemptions(list, "")
}

func (s *State) exemptions(list, after string) iter.Seq[*watchlist.Exemption] {
	return func(yield func(*watchlist.Exemption) bool) {
		b := s.books[list]
		if b == nil || b.exempt == 0 {
			return
		}
		for x := range b.exemptions.byID.all([]byte(after)) {
			if b.effective(x) && !yield(x) {
				return
			}
		}
	}
}

// ExemptionsOf returns the exemptions of an entry on a list in the order of their ids.
func (s *State) ExemptionsOf(list, entry string) (of []*watchlist.Exemption) {
	b := s.books[list]
	if b == nil || b.exempt == 0 {
		return nil
	}
	if e := b.entries.get([]byte(entry)); e == nil || !b.owns(e) {
		return nil
	}
	for _, x := range b.exemptions.byEntry[entry] {
		if b.covers(x) {
			of = append(of, x)
		}
	}
	return of
}

// Sensor returns the sensor with an id, or nil.
func (s *State) Sensor(id string) *Sensor { return s.sensors[id] }

// Sensors returns all sensors in the order of their ids.
func (s *State) Sensors() []*Sensor {
	return slices.SortedFunc(maps.Values(s.sensors), func(a, b *Sensor) int { return strings.Compare(a.ID, b.ID) })
}

// WithdrawHeld returns the records that withdraw up to limit entries that have
// lost their list, and exemptions that have lost their list or their entry: what a
// dropped list leaves in the log, which nobody may keep longer than the purpose
// lasts. Until they are appended, writing the list again with the same salt brings
// all its entries back, with their exemptions, and writing an entry again its own.
//
// It is for a State that has caught up, since before that the list may be still to
// come. Entries and exemptions of a list whose record cannot be read are spared, and
// so are the exemptions of an entry whose record cannot be read: they belong to what
// a newer version of this program may be able to read.
func (s *State) WithdrawHeld(limit int) []Record {
	var recs []Record
	for _, id := range slices.Sorted(maps.Keys(s.books)) {
		b := s.books[id]
		if b.unreadable {
			continue
		}
		if b.exempt < b.exemptions.byID.n {
			for x := range b.exemptions.byID.all(nil) {
				if len(recs) >= limit {
					return recs
				}
				// An entry that cannot be read may belong to the list; if there is none, nothing does.
				_, lost := b.lost[x.Entry]
				if lost = lost && b.covers(x); !lost && !b.effective(x) {
					recs = append(recs, WithdrawExemption(x.List, x.ID))
				}
			}
		}
		if b.live == b.entries.n {
			continue
		}
		for e := range b.entries.all(nil) {
			if len(recs) >= limit {
				return recs
			}
			if !b.owns(e) {
				recs = append(recs, WithdrawEntry(e.List(), e.ID()))
			}
		}
	}
	return recs
}

// Stats are the sizes of a State and what became of the records applied to it.
type Stats struct {
	Version int64 `json:"version"`
	Lists   int   `json:"lists"`
	Entries int   `json:"entries"` // of these lists
	Held    int   `json:"held"`    // entries without their list, which match nothing
	// Exemptions of these entries, and those without their list or entry, which
	// exempt nothing.
	Exemptions     int `json:"exemptions"`
	HeldExemptions int `json:"held_exemptions"`
	Sensors        int `json:"sensors"`
	// Records counts the records applied. Among them are Unknown, of kinds that
	// only newer versions know, and Unreadable, for which Apply returned an error.
	Records    uint64 `json:"records"`
	Unknown    uint64 `json:"unknown"`
	Unreadable uint64 `json:"unreadable"`
}

// Stats returns the present figures. Its cost grows with the number of lists.
func (s *State) Stats() Stats {
	st := s.stats
	st.Version = s.version
	st.Sensors = len(s.sensors)
	for _, b := range s.books {
		if b.list != nil {
			st.Lists++
		}
		st.Entries += b.live
		st.Held += b.entries.n - b.live
		st.Exemptions += b.exempt
		st.HeldExemptions += b.exemptions.byID.n - b.exempt
	}
	return st
}
