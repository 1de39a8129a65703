package matcher

import (
	"math/bits"
	"slices"

	"vigie/watchlist"
	"vigie/watchlist/plate"
)

// patternItem is a wildcard pattern and the entry that it stands for. In the
// text A-Z and 0-9 stand for themselves, ? for exactly one of them and * for any
// run of them, even none; small letters are raised, hyphens and spaces dropped. A
// text with any other character matches nothing.
type patternItem struct {
	text  string
	entry *watchlist.Packed
}

// patternSet is an immutable set of patterns, all of which are run at once: a
// pattern of m places is m+1 states, one bit each, and the states of some eight
// patterns share a 64-bit word, so that a character of a read costs one load and
// four operations for all of them. Nothing backtracks: the time is the number of
// words times the length of the read, whatever the patterns and the read.
//
// Filing patterns under a character that they demand, so that a read runs fewer
// words, was tried: 1.8 times as fast for 1,000 patterns, 1.4 times as slow for 100
// or fewer (mispredicted branches), and 70 lines. So were bitmaps over patterns for the
// places counted from an end, with a glob for the survivors: every *AB* survives.
//
// On French plates, 10 / 100 / 1,000 patterns of the forms AB-1??-*, ??-123-?? and
// *AB* take 15 / 85 / 700 ns a read, and 0.4 / 4 / 37 KB. The worst case for 1,000,
// twelve places each and a read of twelve, is 2.4 us and 88 KB (2 cores AMD EPYC,
// 2026-11-24, up to half as much again while others used the machine):
//
//	go test ./matcher -run '^$' -bench PatternSet
type patternSet struct {
	words   []patternWord
	entries []*watchlist.Packed // by number of pattern
}

// patternWord is the states of consecutive patterns, side by side. A pattern is
// in state k when its first k places have been read.
type patternWord struct {
	enter [patternChars]uint64 // by character: states that it leads to from the state before
	stay  uint64               // states followed by a star
	start uint64               // state 0 of each pattern
	end   uint64               // last state of each pattern
	first int                  // number of the first pattern
}

const (
	patternChars = 36               // characters of a plate
	anyChar      = patternChars     // the code of ?
	badChar      = patternChars + 1 // the code of what is not in a plate
)

// charCodes gives the code of a byte, below patternChars if it is in the
// alphabet of plates.
var charCodes = func() (t [256]uint8) {
	for i := range t {
		t[i] = badChar
	}
	for i := range uint8(10) {
		t['0'+i] = i
	}
	for i := range uint8(26) {
		t['A'+i] = 10 + i
	}
	t['?'] = anyChar
	return t
}()

// newPatternSet compiles items. Those that no plate can match are left out.
func newPatternSet(items []patternItem) *patternSet {
	p := new(patternSet)
	used := 64 // bits of the last word
	for _, it := range items {
		places, stars, ok := compilePattern(it.text)
		if !ok {
			continue
		}
		n := len(places)
		if used+n+1 > 64 {
			p.words = append(p.words, patternWord{first: len(p.entries)})
			used = 0
		}
		w := &p.words[len(p.words)-1]
		w.start |= 1 << used
		w.stay |= stars << used
		w.end |= 1 << (used + n)
		for i, code := range places {
			for c := range w.enter {
				if code == anyChar || int(code) == c {
					w.enter[c] |= 1 << (used + i + 1)
				}
			}
		}
		used += n + 1
		p.entries = append(p.entries, it.entry)
	}
	p.words, p.entries = slices.Clip(p.words), slices.Clip(p.entries)
	return p
}

// compilePattern returns the codes of the places of a pattern, and a bit for
// each number of places after which a star stands.
func compilePattern(text string) (places []uint8, stars uint64, ok bool) {
	for i := range len(text) {
		b := text[i]
		if 'a' <= b && b <= 'z' {
			b -= 'a' - 'A'
		}
		switch code := charCodes[b]; {
		case b == '*':
			stars |= 1 << len(places)
		case b == '-' || b == ' ':
		case code == badChar || len(places) == plate.MaxLen:
			return nil, 0, false
		default:
			places = append(places, code)
		}
	}
	return places, stars, len(places) > 0 || stars != 0
}

// match appends to dst the entries of the patterns that text, the characters of
// a plate, matches, in the order of the items. It allocates only if dst must grow.
func (p *patternSet) match(dst []*watchlist.Packed, text []byte) []*watchlist.Packed {
	if p == nil || len(text) > plate.MaxLen {
		return dst
	}
	var buf [plate.MaxLen]uint8
	codes := buf[:len(text)]
	for i, b := range text {
		if codes[i] = charCodes[b]; codes[i] >= patternChars {
			return dst
		}
	}
	for i := range p.words {
		w := &p.words[i]
		states := w.start
		for _, c := range codes {
			// The shift carries the last state of a pattern into state 0 of the
			// next, which no character enters. Stopping when no state is left is
			// no faster: it is one more branch, and hard to predict.
			states = states<<1&w.enter[c] | states&w.stay
		}
		for met := states & w.end; met != 0; met &= met - 1 {
			below := met&-met - 1
			dst = append(dst, p.entries[w.first+bits.OnesCount64(w.end&below)])
		}
	}
	return dst
}

// len returns the number of patterns.
func (p *patternSet) len() int {
	if p == nil {
		return 0
	}
	return len(p.entries)
}
