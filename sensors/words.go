package sensors

import (
	"encoding/binary"
	"unicode/utf8"
	"unsafe"
)

// Texts are looked at eight bytes at a time, the first lowest. In what the tests below
// return, the lowest bit that is set is that of the first byte that fits; those above it
// mean nothing. See Henry S. Warren, Hacker's Delight, 6-1.
const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// load returns s[i] to s[i+7], which the caller knows to be there.
func load(s string, i int) uint64 {
	return binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), i))[:])
}

// equal marks the bytes of w that are c.
func equal(w uint64, c uint8) uint64 {
	w ^= uint64(c) * ones
	return (w - ones) &^ w & highs
}

// less marks the bytes of w below c, which is at most 0x80.
func less(w uint64, c uint8) uint64 { return (w - uint64(c)*ones) &^ w & highs }

// isASCII reports whether all of s is ASCII.
func isASCII(s string) bool {
	if len(s) < 8 {
		var all byte
		for i := range len(s) {
			all |= s[i]
		}
		return all < utf8.RuneSelf
	}
	all := load(s, len(s)-8)
	for i := 0; i+8 < len(s); i += 8 {
		all |= load(s, i)
	}
	return all&highs == 0
}

// isVisible reports whether all of s is ASCII that can be seen, without spaces.
func isVisible(s string) bool {
	if len(s) < 8 {
		for i := range len(s) {
			if s[i] <= ' ' || s[i] >= 0x7f {
				return false
			}
		}
		return true
	}
	w := load(s, len(s)-8)
	bad := less(w, '!') | w&highs | equal(w, 0x7f)
	for i := 0; i+8 < len(s); i += 8 {
		w := load(s, i)
		bad |= less(w, '!') | w&highs | equal(w, 0x7f)
	}
	return bad == 0
}

// eightDigits is the number that the eight bytes of w spell, if they are digits: first in
// pairs, then in fours.
func eightDigits(w uint64) (v int64, ok bool) {
	const high, digit = 0xf0 * ones, 0x30 * ones
	if w&high != digit || (w+0x06*ones)&high != digit {
		return 0, false
	}
	w = (w & (0x0f * ones)) * (10<<8 + 1) >> 8
	w = (w & 0x00ff00ff00ff00ff) * (100<<16 + 1) >> 16
	return int64((w & 0x0000ffff0000ffff) * (10000<<32 + 1) >> 32), true
}
