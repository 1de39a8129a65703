package control

import (
	"iter"
	"slices"
	"sort"

	"vigie/watchlist"
)

// set is a set of entries, or of exemptions, in the order of their ids. The zero
// value is empty.
//
// It is a sequence of blocks, each a sorted slice: look-up, insertion and removal
// are two binary searches and one short move, at any size, and a page of entries
// is a walk. Ids are digests and arrive in random order, so blocks are about
// seven tenths full: 23 bytes per entry. A map needs more (36) and has no
// order; a map with a slice sorted when needed has both, but sorting ten million
// ids takes seconds, and every added entry would ask for it again.
type set[P identified] struct {
	blocks []block[P] // none is empty; every item sorts before those of the next block
	n      int
}

// maxBlock is the greatest length of a block. Insertion moves half a block, and
// the split of a block moves half the slice of blocks: 512 balances the two
// at ten million entries.
const maxBlock = 512

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
	*watchlist.Entry | *watchlist.Exemption
}

// idOf returns the id of what is in a set.
func idOf[P identified](v P) string {
	switch v := any(v).(type) {
	case *watchlist.Entry:
		return v.ID
	case *watchlist.Exemption:
		return v.ID
	}
	panic("control: not in any set")
}

// prefix returns the beginning of id, twelve characters of the base32 of
// watchlist.EntryID, as a number that never sorts against the order of ids and is spread
// evenly, so that a search can guess where an id is. What has another character is
// worth no more than the least id that sorts after all with the same beginning: such
// ids may share a prefix, which costs time and nothing else.
func prefix(id string) (p uint64) {
	const chars, bits = 12, 5
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

// less reports whether it sorts before an item with prefix p and the given id.
func (it item[P]) less(p uint64, id string) bool {
	if it.prefix != p {
		return it.prefix < p
	}
	return idOf(it.value) < id
}

// find returns where id is, or where it belongs. The block is len(s.blocks) only
// when the set is empty.
func (s *set[P]) find(id string) (b, i int, found bool) {
	p := prefix(id)
	// The last block that does not begin after id.
	b = sort.Search(len(s.blocks), func(i int) bool {
		bl := &s.blocks[i]
		if bl.first != p {
			return bl.first > p
		}
		return idOf(bl.items[0].value) > id
	})
	if b > 0 {
		b--
	} else if len(s.blocks) == 0 {
		return 0, 0, false
	}
	end := uint64(1 << 60)
	if b+1 < len(s.blocks) {
		end = s.blocks[b+1].first
	}
	items := s.blocks[b].items
	i = s.blocks[b].search(p, id, end)
	return b, i, i < len(items) && items[i].prefix == p && idOf(items[i].value) == id
}

// search returns where in the block an item with prefix p and the given id is or
// belongs. The block ends before prefix end. The items lie in some ninety lines of the
// cache, of which a binary search among ten million entries waits for seven: a guess
// from the prefix, and steps from there that double, wait for two or three.
func (bl *block[P]) search(p uint64, id string, end uint64) int {
	items := bl.items
	lo, hi := 0, len(items) // it is from lo to hi
	guess := 0
	if p > bl.first && end > bl.first {
		guess = int(float64(p-bl.first) / float64(end-bl.first) * float64(len(items)))
	}
	guess = min(guess, len(items)-1)
	const step = 8 // the error of the guess is half the root of the length
	if items[guess].less(p, id) {
		lo = guess + 1
		for d := step; lo+d < hi; d *= 2 {
			if !items[lo+d].less(p, id) {
				hi = lo + d
				break
			}
			lo += d + 1
		}
	} else {
		hi = guess
		for d := step; hi-d >= lo; d *= 2 {
			if items[hi-d].less(p, id) {
				lo = hi - d + 1
				break
			}
			hi -= d
		}
	}
	return lo + sort.Search(hi-lo, func(i int) bool { return !items[lo+i].less(p, id) })
}

// get returns the entry with an id, or nil.
func (s *set[P]) get(id string) P {
	if b, i, ok := s.find(id); ok {
		return s.blocks[b].items[i].value
	}
	return nil
}

// put adds e and returns the entry of the same id that it replaces, or nil.
func (s *set[P]) put(e P) (old P) {
	id := idOf(e)
	b, i, ok := s.find(id)
	if ok {
		it := &s.blocks[b].items[i]
		old, it.value = it.value, e
		return old
	}
	s.n++
	it := item[P]{prefix(id), e}
	if len(s.blocks) == 0 {
		s.blocks = []block[P]{{it.prefix, []item[P]{it}}}
		return nil
	}
	bl := &s.blocks[b]
	if len(bl.items) == maxBlock {
		s.split(b)
		if i > maxBlock/2 {
			b, i = b+1, i-maxBlock/2
		}
		bl = &s.blocks[b]
	}
	bl.items = slices.Insert(bl.items, i, it)
	bl.first = bl.items[0].prefix
	return nil
}

// split moves the second half of block b to a new block after it.
func (s *set[P]) split(b int) {
	items := s.blocks[b].items
	right := append(make([]item[P], 0, maxBlock), items[maxBlock/2:]...)
	clear(items[maxBlock/2:])
	s.blocks[b].items = items[:maxBlock/2]
	s.blocks = slices.Insert(s.blocks, b+1, block[P]{right[0].prefix, right})
}

// remove takes the entry with an id out and returns it, or nil.
func (s *set[P]) remove(id string) (old P) {
	b, i, ok := s.find(id)
	if !ok {
		return nil
	}
	s.n--
	bl := &s.blocks[b]
	old = bl.items[i].value
	bl.items = slices.Delete(bl.items, i, i+1)
	switch {
	case len(bl.items) == 0:
		s.blocks = slices.Delete(s.blocks, b, b+1)
		return old
	case len(bl.items) < maxBlock/4:
		s.join(b)
	}
	if b < len(s.blocks) {
		s.blocks[b].first = s.blocks[b].items[0].prefix
	}
	return old
}

// join moves the items of block b to a neighbour that has room, so that a list
// that shrinks gives its memory back.
func (s *set[P]) join(b int) {
	const room = maxBlock * 3 / 4
	n := len(s.blocks[b].items)
	switch {
	case b > 0 && len(s.blocks[b-1].items)+n <= room:
		b--
	case b+1 < len(s.blocks) && len(s.blocks[b+1].items)+n <= room:
	default:
		return
	}
	left := &s.blocks[b]
	left.items = append(left.items, s.blocks[b+1].items...)
	left.first = left.items[0].prefix
	s.blocks = slices.Delete(s.blocks, b+1, b+2)
}

// all yields the entries whose id sorts after the given one, in the order of ids.
func (s *set[P]) all(after string) iter.Seq[P] {
	return func(yield func(P) bool) {
		b, i, found := s.find(after)
		if found {
			i++
		}
		for ; b < len(s.blocks); b, i = b+1, 0 {
			for _, it := range s.blocks[b].items[i:] {
				if !yield(it.value) {
					return
				}
			}
		}
	}
}
