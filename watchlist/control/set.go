package control

import (
	"bytes"
	"iter"
	"slices"

	"vigie/watchlist"
)

// set is a set of entries, or of exemptions, in the order of their ids. The zero
// value is empty.
//
// It is a sequence of runs of blocks, each block a sorted slice: look-up, insertion and
// removal are three searches and one short move, at any size, and a page of entries
// is a walk. Ids are digests and arrive in random order, so blocks become about
// seven tenths full: 23 bytes per entry, until settle. A map needs more (36) and has no
// order; a map with a slice sorted when needed has both, but sorting ten million
// ids takes seconds, and every added entry would ask for it again.
type set[P identified] struct {
	runs []run[P] // none is empty; every item sorts before those of the next run
	n    int
}

// Greatest lengths. What counts with ten million entries is how many lines of memory an
// insertion waits for and moves: blocks of 512 in one sequence took 1.3 us, these 0.9.
const (
	maxBlock = 32  // items of a block
	maxRun   = 512 // blocks of a run
)

type run[P identified] struct {
	first  uint64     // prefix of the first item
	blocks []block[P] // none is empty; every item sorts before those of the next block
}

type block[P identified] struct {
	first uint64 // prefix of the first item, so that the search stays in one array
	items []item[P]
}

// item is an entry with the start of its id, which spares the search most visits
// to entries.
type item[P identified] struct {
	prefix uint64
	value  P
}

// identified is what a set holds.
type identified interface {
	*watchlist.Packed | *watchlist.Exemption
}

// appendID appends the id of what is in a set.
func appendID[P identified](dst []byte, v P) []byte {
	switch v := any(v).(type) {
	case *watchlist.Packed:
		return v.AppendID(dst)
	case *watchlist.Exemption:
		return append(dst, v.ID...)
	}
	panic("control: not in any set")
}

// sought is an id that is looked for. An entry may have to compute its own, and next to
// always the prefix alone tells.
type sought[P identified] struct {
	prefix uint64
	id     []byte
	of     P // whose id it is, where id is not known; else nil
}

// compare compares the id of what is in a set with the one that is looked for.
func (s *sought[P]) compare(v P) int {
	var buf [watchlist.MaxIDBytes]byte
	if s.of != nil {
		s.id, s.of = appendID(nil, s.of), nil
	}
	return bytes.Compare(appendID(buf[:0], v), s.id)
}

// prefix returns the beginning of id, twelve characters of the base32 of
// watchlist.EntryID, as a number that never sorts against the order of ids and is spread
// evenly, so that a search can guess where an id is. What has another character is
// worth no more than the least id that sorts after all with the same beginning: such
// ids may share a prefix, which costs time and nothing else.
func prefix[T string | []byte](id T) (p uint64) {
	const chars, bits = 12, prefixBits / 12
	for i := range chars {
		if i == len(id) {
			return p << (bits * (chars - i))
		}
		rank := rankOf[id[i]]
		p = p<<bits | uint64(rank&(1<<bits-1))
		if rank >= 1<<bits {
			rest := bits * (chars - 1 - i)
			if p <<= rest; id[i] > 'z' {
				p |= 1<<rest - 1
			}
			return p
		}
	}
	return p
}

// prefixBits is the length of a prefix.
const prefixBits = 60

// rankOf gives each character of the base32 its value, and to each other one 32 and the
// value of the next character of the base32 after it, or of the last.
var rankOf = func() (t [256]uint8) {
	next := uint8(0)
	for c := range t {
		switch {
		case '2' <= c && c <= '7', 'a' <= c && c <= 'z':
			t[c] = next
			next++
		default:
			t[c] = 1<<5 | min(next, 1<<5-1)
		}
	}
	return t
}()

// less reports whether it sorts before what is looked for.
func (it item[P]) less(s *sought[P]) bool {
	if it.prefix != s.prefix {
		return it.prefix < s.prefix
	}
	return s.compare(it.value) < 0
}

// begins reports whether a run or a block whose first item is it, with prefix first,
// begins at or before what is looked for.
func begins[P identified](first uint64, it *item[P], s *sought[P]) bool {
	if first != s.prefix {
		return first < s.prefix
	}
	return s.compare(it.value) <= 0
}

// place is where an item is, or where it belongs.
type place struct{ run, block, item int }

// find returns where id is, or where it belongs. The run and the block exist unless the
// set is empty.
func (s *set[P]) find(id []byte) (at place, found bool) {
	return s.findSought(&sought[P]{prefix: prefix(id), id: id})
}

func (s *set[P]) findSought(it *sought[P]) (at place, found bool) {
	if len(s.runs) == 0 {
		return place{}, false
	}
	at, end := s.findBlock(it)
	b := &s.runs[at.run].blocks[at.block]
	items := b.items
	at.item = search(len(items), guess(len(items), it.prefix, b.first, end), func(i int) bool { return items[i].less(it) })
	return at, at.item < len(items) && items[at.item].prefix == it.prefix && it.compare(items[at.item].value) == 0
}

// findBlock returns the run and the block of a set that is not empty in which an id
// is, or where it belongs, and the prefix at which the next block begins.
func (s *set[P]) findBlock(it *sought[P]) (at place, end uint64) {
	p := it.prefix
	end = 1 << prefixBits
	n := search(len(s.runs), guess(len(s.runs), p, 0, end), func(i int) bool {
		return begins(s.runs[i].first, &s.runs[i].blocks[0].items[0], it)
	})
	at.run = max(0, n-1)
	r := &s.runs[at.run]
	if at.run+1 < len(s.runs) {
		end = s.runs[at.run+1].first
	}
	n = search(len(r.blocks), guess(len(r.blocks), p, r.first, end), func(i int) bool {
		return begins(r.blocks[i].first, &r.blocks[i].items[0], it)
	})
	at.block = max(0, n-1)
	if at.block+1 < len(r.blocks) {
		end = r.blocks[at.block+1].first
	}
	return at, end
}

// guess returns which of n things, whose prefixes are spread evenly between two, would
// be the one of prefix p.
func guess(n int, p, from, to uint64) int {
	if p <= from || to <= from {
		return 0
	}
	return min(n-1, int(float64(p-from)/float64(to-from)*float64(n)))
}

// search returns how many of n things, which are in order, come before something; before
// says it of one. It begins with a guess and goes on from there in steps that double: a
// binary search would wait for three times as many lines of memory.
func search(n, guess int, before func(int) bool) int {
	lo, hi := 0, n // the answer is one of lo to hi
	step := 4      // about the error of a guess, half the root of n
	if before(guess) {
		for lo = guess + 1; lo+step < hi; step *= 2 {
			if !before(lo + step) {
				hi = lo + step
				break
			}
			lo += step + 1
		}
	} else {
		for hi = guess; hi-step >= lo; step *= 2 {
			if before(hi - step) {
				lo = hi - step + 1
				break
			}
			hi -= step
		}
	}
	for lo < hi {
		if mid := int(uint(lo+hi) / 2); before(mid) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// get returns the entry with an id, or nil.
func (s *set[P]) get(id []byte) P {
	if at, ok := s.find(id); ok {
		return s.runs[at.run].blocks[at.block].items[at.item].value
	}
	return nil
}

// put adds e and returns the entry of the same id that it replaces, or nil.
func (s *set[P]) put(e P) (old P) {
	var buf [watchlist.MaxIDBytes]byte
	return s.putItem(item[P]{prefix(appendID(buf[:0], e)), e})
}

func (s *set[P]) putItem(it item[P]) (old P) {
	at, ok := s.findSought(&sought[P]{prefix: it.prefix, of: it.value})
	if ok {
		there := &s.runs[at.run].blocks[at.block].items[at.item]
		old, there.value = there.value, it.value
		return old
	}
	s.n++
	if len(s.runs) == 0 {
		s.runs = []run[P]{{it.prefix, []block[P]{{it.prefix, []item[P]{it}}}}}
		return nil
	}
	if len(s.runs[at.run].blocks[at.block].items) == maxBlock {
		at = s.split(at)
	}
	r := &s.runs[at.run]
	b := &r.blocks[at.block]
	b.items = slices.Insert(b.items, at.item, it)
	b.first = b.items[0].prefix
	r.first = r.blocks[0].first
	return nil
}

// split moves the second half of the full block at a place to a new block after it,
// and if its run is full, the second half of that first. It returns where the place is now.
func (s *set[P]) split(at place) place {
	if r := &s.runs[at.run]; len(r.blocks) == maxRun {
		right := append(make([]block[P], 0, maxRun), r.blocks[maxRun/2:]...)
		clear(r.blocks[maxRun/2:])
		r.blocks = r.blocks[:maxRun/2]
		s.runs = slices.Insert(s.runs, at.run+1, run[P]{right[0].first, right})
		if at.block >= maxRun/2 {
			at.run, at.block = at.run+1, at.block-maxRun/2
		}
	}
	r := &s.runs[at.run]
	items := r.blocks[at.block].items
	right := append(make([]item[P], 0, maxBlock), items[maxBlock/2:]...)
	clear(items[maxBlock/2:])
	r.blocks[at.block].items = items[:maxBlock/2]
	r.blocks = slices.Insert(r.blocks, at.block+1, block[P]{right[0].prefix, right})
	if at.item > maxBlock/2 {
		at.block, at.item = at.block+1, at.item-maxBlock/2
	}
	return at
}

// remove takes the entry with an id out and returns it, or nil.
func (s *set[P]) remove(id []byte) (old P) {
	at, ok := s.find(id)
	if !ok {
		return nil
	}
	s.n--
	r := &s.runs[at.run]
	b := &r.blocks[at.block]
	old = b.items[at.item].value
	b.items = slices.Delete(b.items, at.item, at.item+1)
	if len(b.items) == 0 {
		r.blocks = slices.Delete(r.blocks, at.block, at.block+1)
	} else {
		b.first = b.items[0].prefix
		r.blocks = join(r.blocks, at.block, maxBlock, func(b *block[P]) *[]item[P] { return &b.items })
	}
	if len(r.blocks) == 0 {
		s.runs = slices.Delete(s.runs, at.run, at.run+1)
		return old
	}
	r.first = r.blocks[0].first
	s.runs = join(s.runs, at.run, maxRun, func(r *run[P]) *[]block[P] { return &r.blocks })
	return old
}

// join moves what the part at i holds to a neighbour that has room, if it has become
// small, so that a list that shrinks gives its memory back. Parts are the blocks of a
// run, or the runs; limit is the greatest length of one.
func join[T, U any](parts []T, i, limit int, in func(*T) *[]U) []T {
	n := len(*in(&parts[i]))
	if n >= limit/4 {
		return parts
	}
	room := limit*3/4 - n
	switch {
	case i > 0 && len(*in(&parts[i-1])) <= room:
		i--
	case i+1 < len(parts) && len(*in(&parts[i+1])) <= room:
	default:
		return parts
	}
	left := in(&parts[i])
	*left = append(*left, *in(&parts[i+1])...)
	return slices.Delete(parts, i+1, i+2)
}

// settle lays the items out anew in full blocks with no room behind: after a load they
// are seven tenths full, 23 bytes an item instead of 16. A block that is full splits when
// something is put there.
func (s *set[P]) settle() {
	old := s.runs
	s.runs = nil
	var blocks []block[P]
	var items []item[P]
	for _, r := range old {
		for _, b := range r.blocks {
			for _, it := range b.items {
				if items = append(items, it); len(items) == maxBlock {
					blocks = append(blocks, block[P]{items[0].prefix, slices.Clone(items)})
					items = items[:0]
				}
				if len(blocks) == maxRun {
					s.runs = append(s.runs, run[P]{blocks[0].first, blocks})
					blocks = nil
				}
			}
		}
	}
	if len(items) > 0 {
		blocks = append(blocks, block[P]{items[0].prefix, slices.Clone(items)})
	}
	if len(blocks) > 0 {
		s.runs = append(s.runs, run[P]{blocks[0].first, slices.Clone(blocks)})
	}
}

// part holds all of a set from one prefix to another, for a goroutine of its own.
type part[P identified] struct {
	set[P]
	from, to uint64 // inclusive
	touched  uint64 // keeps the compiler from leaving out touch
}

// take gives all of s to at most n parts of about as many runs. Until they are united,
// s is theirs.
func (s *set[P]) take(n int) []part[P] {
	parts := make([]part[P], 0, n)
	begin, from := 0, uint64(0)
	for i := 1; i < n; i++ {
		end := len(s.runs) * i / n
		if end == begin {
			continue
		}
		blocks := s.runs[end-1].blocks
		items := blocks[len(blocks)-1].items
		if items[len(items)-1].prefix == s.runs[end].first {
			continue // ids of one prefix must not lie on both sides
		}
		parts = append(parts, part[P]{set[P]{runs: s.runs[begin:end:end]}, from, s.runs[end].first - 1, 0})
		begin, from = end, s.runs[end].first
	}
	return append(parts, part[P]{set[P]{runs: s.runs[begin:]}, from, ^uint64(0), 0})
}

// unite takes back what take gave to parts.
func (s *set[P]) unite(parts []part[P]) {
	s.runs = parts[0].runs // with no room behind, unless it is the only one
	s.n += parts[0].n
	for i := range parts[1:] {
		s.runs = append(s.runs, parts[1+i].runs...)
		s.n += parts[1+i].n
	}
}

// putAll puts those of items that belong to p, the later of two with one id last, and
// calls done with what each replaced. In the order of ids one finds what it needs where
// the one before has left it. The block it does not, but there what a few of them
// will look at can be asked for at once, instead of waiting for each.
func (p *part[P]) putAll(items []item[P], done func(old, new P)) {
	mine := p.sorted(items)
	const ahead = 16
	for some := range slices.Chunk(mine, ahead) {
		for i := range some {
			p.touch(some[i])
		}
		for i := range some {
			done(p.putItem(some[i]), some[i].value)
		}
	}
}

// sorted returns those of items that belong to p, sorted by the first bits of their
// prefixes, and otherwise in the order they have.
func (p *part[P]) sorted(items []item[P]) []item[P] {
	const bits, buckets = 12, 1 << 12
	var next [buckets + 1]int
	bucket := func(it *item[P]) uint64 { return it.prefix >> (prefixBits - bits) }
	for i := range items {
		if it := &items[i]; p.from <= it.prefix && it.prefix <= p.to {
			next[bucket(it)+1]++
		}
	}
	for i := range buckets {
		next[i+1] += next[i]
	}
	mine := make([]item[P], next[buckets])
	for i := range items {
		if it := &items[i]; p.from <= it.prefix && it.prefix <= p.to {
			mine[next[bucket(it)]] = *it
			next[bucket(it)]++
		}
	}
	return mine
}

// touch reads what putting an item will read and move: about every line of memory, of four
// items each, from where it belongs to the end of the block. No look waits for another.
func (p *part[P]) touch(it item[P]) {
	if len(p.runs) == 0 {
		return
	}
	at, end := p.findBlock(&sought[P]{prefix: it.prefix, of: it.value})
	b := &p.runs[at.run].blocks[at.block]
	for i := max(0, guess(len(b.items), it.prefix, b.first, end)-4); i < len(b.items); i += 4 {
		p.touched += b.items[i].prefix
	}
}

// all yields the entries whose id sorts after the given one, in the order of ids.
func (s *set[P]) all(after []byte) iter.Seq[P] {
	return func(yield func(P) bool) {
		at, found := s.find(after)
		if found {
			at.item++
		}
		for ; at.run < len(s.runs); at = (place{run: at.run + 1}) {
			r := &s.runs[at.run]
			for ; at.block < len(r.blocks); at.block, at.item = at.block+1, 0 {
				for _, it := range r.blocks[at.block].items[at.item:] {
					if !yield(it.value) {
						return
					}
				}
			}
		}
	}
}
