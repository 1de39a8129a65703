package ledger

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sort"

	"vigie/watchlist/plate"
)

// forever is a time that never comes.
const forever = math.MaxInt64

// History is a ledger as Check needs it.
type History struct {
	Header  Header
	Torn    int  // bytes of a last line that was cut off
	Ended   bool // the run came to its end
	Reads   Tally
	Changes Tally
	Offsets []Offset

	targets  map[key]*target
	byEntry  map[string]*target
	kept     map[string]*keptRead // by id
	keptAll  bool                 // also reads of plates that were never listed
	lastSent int64
}

// Tally counts reads or changes by what became of them.
type Tally struct {
	Sent    int64 `json:"sent"`
	OK      int64 `json:"acknowledged"`
	Fail    int64 `json:"failed"`
	Unknown int64 `json:"unknown"`
}

// key is what entries and reads are compared by.
type key struct {
	plate   plate.Key
	country plate.Country
}

// target is a plate that was on the list at some time.
type target struct {
	key     key
	entries []string // ids, of which a list gives one for ever
	spans   []span
	steps   []step // confirmed, in order
	unsure  bool   // some change has no known outcome
}

// span is a time, in µs, during which an entry was possibly or certainly in effect.
type span struct {
	possibleFrom, certainFrom int64
	certainTo, possibleTo     int64
}

// step is a confirmed change at a version of the control log.
type step struct {
	version int64
	op      Op
	span    int // that an Add began
}

// keptRead is a read with its outcome.
type keptRead struct {
	Read
	key    key
	result Result
	known  int64 // µs: when the result was known
}

// Load reads a ledger, twice: what it keeps of the reads depends on the changes.
// Of a ledger for a list of tolerance exact it keeps the reads of plates that were
// ever on the list, of any other all reads.
func Load(r io.ReadSeeker) (*History, error) {
	h := &History{targets: map[key]*target{}, byEntry: map[string]*target{}, kept: map[string]*keptRead{}}
	changes := map[int64]*Change{}
	var order []int64
	changed := map[int64]*Changed{}
	err := h.pass(r, func(rec *Record) error {
		switch {
		case rec.Change != nil:
			if changes[rec.Change.N] != nil {
				return fmt.Errorf("ledger: change %d stands there twice", rec.Change.N)
			}
			changes[rec.Change.N] = rec.Change
			order = append(order, rec.Change.N)
		case rec.Changed != nil:
			if changes[rec.Changed.N] == nil {
				return fmt.Errorf("ledger: change %d has an outcome before it was made", rec.Changed.N)
			}
			changed[rec.Changed.N] = rec.Changed
		case rec.Offset != nil:
			h.Offsets = append(h.Offsets, *rec.Offset)
		case rec.End != nil:
			h.Ended = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, n := range order {
		if err := h.change(changes[n], changed[n]); err != nil {
			return nil, err
		}
	}
	h.keptAll = h.Header.Tolerance != "exact"
	return h, h.loadReads(r)
}

// pass hands every record to f.
func (h *History) pass(r io.ReadSeeker, f func(*Record) error) error {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	lr, err := NewReader(r)
	if err != nil {
		return err
	}
	h.Header = lr.Header()
	for {
		rec, err := lr.Next()
		if err == io.EOF {
			h.Torn = lr.Torn()
			return nil
		}
		if err == nil {
			err = f(&rec)
		}
		if err != nil {
			return err
		}
	}
}

// keyOf reads a plate. Its error says nothing of the text.
func keyOf(text, country string) (k key, err error) {
	k.plate, err = plate.Parse(text)
	k.country, _ = plate.ParseCountry(country)
	return k, err
}

// change takes a change and its outcome, nil when there is none, into account.
func (h *History) change(c *Change, done *Changed) error {
	k, err := keyOf(c.Plate, c.Country)
	if err != nil {
		return fmt.Errorf("ledger: change %d: %w", c.N, err)
	}
	t := h.targets[k]
	if t == nil {
		t = &target{key: k}
		h.targets[k] = t
	}
	result, confirmed := Unknown, int64(forever)
	if done != nil {
		result = done.Result.orUnknown()
		if result == OK {
			confirmed = done.Confirmed
			t.steps = append(t.steps, step{done.Version, c.Op, len(t.spans)})
		}
	}
	h.Changes.add(result, 1)
	for _, id := range entryIDs(c, done) {
		if h.byEntry[id] == nil {
			h.byEntry[id] = t
			t.entries = append(t.entries, id)
		} else if h.byEntry[id] != t {
			return fmt.Errorf("ledger: change %d: entry %s belongs to another plate", c.N, id)
		}
	}
	switch result {
	case Fail:
		return nil // nothing has changed
	case Unknown:
		t.unsure = true
	}
	switch c.Op {
	case Add:
		t.spans = append(t.spans, span{possibleFrom: c.Issued, certainFrom: confirmed, certainTo: forever, possibleTo: forever})
	case Withdraw:
		for i := range t.spans {
			s := &t.spans[i]
			if s.possibleTo == forever {
				s.certainTo, s.possibleTo = min(s.certainTo, c.Issued), confirmed
			}
		}
	default:
		return fmt.Errorf("ledger: change %d neither adds nor withdraws", c.N)
	}
	return nil
}

func entryIDs(c *Change, done *Changed) (ids []string) {
	if c.Entry != "" {
		ids = append(ids, c.Entry)
	}
	if done != nil && done.Entry != "" && done.Entry != c.Entry {
		ids = append(ids, done.Entry)
	}
	return ids
}

// add counts n of a result.
func (t *Tally) add(r Result, n int64) {
	t.Sent += n
	switch r {
	case OK:
		t.OK += n
	case Fail:
		t.Fail += n
	default:
		t.Unknown += n
	}
}

// errOutcome is the error of a ledger whose outcomes do not fit its reads.
var errOutcome = errors.New("ledger: an outcome stands there of reads that were not sent")

// loadReads is the second pass.
func (h *History) loadReads(r io.ReadSeeker) error {
	plates := make(map[plate.Key]bool, len(h.targets))
	for k := range h.targets {
		plates[k.plate] = true
	}
	var kept []*keptRead // by rising N
	var sent int64
	err := h.pass(r, func(rec *Record) error {
		switch {
		case rec.Read != nil:
			sent++
			h.lastSent = max(h.lastSent, rec.Read.Sent)
			k, err := keyOf(rec.Read.Plate, rec.Read.Country)
			if err != nil && !errors.Is(err, plate.ErrSentinel) {
				return fmt.Errorf("ledger: read %d: %w", rec.Read.N, err)
			}
			if !h.keptAll && !plates[k.plate] {
				return nil
			}
			if h.kept[rec.Read.ID] != nil {
				return fmt.Errorf("ledger: read %d has the id of another", rec.Read.N)
			}
			kr := &keptRead{Read: *rec.Read, key: k, result: Unknown, known: forever}
			h.kept[kr.ID] = kr
			// Batches go out side by side; reads come nearly in order.
			at := len(kept)
			for at > 0 && kept[at-1].N > kr.N {
				at--
			}
			kept = append(kept, nil)
			copy(kept[at+1:], kept[at:])
			kept[at] = kr
		case rec.Outcome != nil:
			o := rec.Outcome
			result := o.Result.orUnknown()
			if o.Count < 1 || o.First < 0 || o.Count > sent {
				return errOutcome
			}
			switch result {
			case OK:
				h.Reads.OK += o.Count
			case Fail:
				h.Reads.Fail += o.Count
			}
			for i := sort.Search(len(kept), func(i int) bool { return kept[i].N >= o.First }); i < len(kept) && kept[i].N < o.First+o.Count; i++ {
				kept[i].result = result
				if result != Unknown {
					kept[i].known = o.At
				}
			}
		}
		return nil
	})
	h.Reads.Sent = sent
	h.Reads.Unknown = sent - h.Reads.OK - h.Reads.Fail
	if err == nil && h.Reads.Unknown < 0 {
		err = errOutcome
	}
	return err
}
