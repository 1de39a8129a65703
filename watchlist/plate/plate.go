// Package plate says how a licence plate is written and when two plates are the same.
// Sensors, watchlist and matcher all come here, so a plate typed by an operator and one
// read by a camera pass through the same [Parse] and compare as integers.
//
// A [Key] is the plate and nothing else: not its country, not its spacing, not how sure
// the camera was. The codes of freight containers (ISO 6346) are identifiers of the same
// kind, for port gates; [Key.IsContainer] tells them from plates. [Key.Syntax] grades a key
// against the scheme of a country, [Key.FormOf] and [FormPlaces] say which characters may
// stand where, [Key.Fold] what cameras confuse. The package grades; it never decides that a
// plate is wrong, never drops one, and never compares plates that are merely alike: that
// needs evidence and belongs to the matcher.
//
// A plate is personal data. A Key therefore prints as a keyed digest in fmt, in slog and in
// encoders that honour encoding.TextMarshaler (the comment of Key has the exceptions), and
// no error of this package carries a character of its input. The plate itself comes out
// where it is asked for by name: [Key.String] and [Key.AppendTo].
//
// # What a key loses
//
// Separators are dropped, for sensors, operators and lists never agree on them. In most
// countries they carry nothing. In Germany they do: UE-MA 123 (Uelzen) and UEM-A 123
// (Ueckermünde) are two plates and one Key. Callers keep the raw text beside the key and
// show both texts to whoever must decide.
package plate

import (
	"errors"
	"strings"
)

const (
	// MinLen and [MaxLen] bound the letters and digits of a plate. One character is more
	// often dirt than a plate. Twelve is what base 37 fits in 64 bits, and is longer than
	// any plate of the countries known to Syntax (10) or a container code (11, ISO 6346).
	MinLen = 2
	MaxLen = 12

	// MaxRaw is the length in bytes above which Parse refuses a text unread, so that a
	// hostile sensor cannot make it work: twelve characters of four bytes, each followed
	// by several separators, stay well below.
	MaxRaw = 256

	// Packing is the version of the packing of Key. It is stored beside keys, and it
	// changes when a stored key would no longer equal a newly parsed one.
	Packing = 1
)

// Key is a normalised plate, packed in base 37: the first character is the most
// significant; 0 to 9 have the codes 1 to 10, A to Z the codes 11 to 36, and the code 0,
// no character, never occurs inside a plate. Two plates are the same when their keys are
// equal. The zero Key is no plate.
//
// The order of keys is by length, then digits before letters: of no use to people, but
// fixed for a given Packing.
//
// Ways round the digest remain, because fmt offers no hook for them. All print the bare
// integer, which is as good as the plate: a Key in an unexported field of a struct that has
// no Format method of its own; and fmt's complaint about a verb that does not fit its
// operand, %!p(plate.Key=...), which the verbs %p and %w earn with a Key, and %s and %q with
// a struct in which a pointer leads to a Key. Code that logs such structs gives them a
// LogValue or a Format. Anything that prefers String over Format or MarshalText
// (zap.Stringer, and zap.Any with it) must be handed the Digest instead.
type Key uint64

// base is the radix of the packing: 36 characters and "none".
const base = 37

// ErrSentinel is returned by Parse for texts by which sensors and lists say that there is
// no plate. Callers count them; they are neither errors of the sensor nor plates.
//
// The set is closed. After normalisation it holds: the text without a letter or digit
// (empty, or separators only); zeros only, of any length, which NCIC extracts use as a
// placeholder; UNKNOWN and NOPLATE, which cameras send (Hikvision, Dahua, Genetec AutoVu);
// UNLICENSED, NOREAD, NOTREAD, NOTDETECTED, UNRECOGNIZED, UNREADABLE, NONE and NULL, which
// other sensors and exported lists write for the same; and four X or more. Such a word could
// be a personal plate in the few registers that allow plates without a digit; there it loses
// to the many reads that mean what they say. NA, NAN and ABSENT, which are shorter or
// rarer, are plates.
//
// Some texts are sentinels only as they stand, space around them aside: nothing but question
// marks and stars, with separators or without; N/A in any case; and the words of Chinese
// firmwares, 无车牌 无牌车 无牌 车牌 未识别.
var ErrSentinel = errors.New("plate: no plate")

// sentinels are the words of ErrSentinel.
var sentinels = func() map[Key]bool {
	m := make(map[Key]bool)
	for _, w := range []string{
		"UNKNOWN", "NOPLATE", "UNLICENSED", "NOREAD", "NOTREAD", "NOTDETECTED", "UNRECOGNIZED", "UNREADABLE", "NONE", "NULL",
	} {
		m[pack(w)] = true
	}
	for n := 4; n <= MaxLen; n++ {
		m[pack(strings.Repeat("X", n))] = true
	}
	return m
}()

// pack packs a text of A-Z and 0-9, at most MaxLen long.
func pack(s string) Key {
	var k Key
	for i := range len(s) {
		k = k*base + Key(ascii[s[i]]&codeMask)
	}
	return k
}

// Parse reads a plate as sensors, lists and people write it. It applies NFKC, takes the
// base letter of Latin letters with diacritics (Ä Ö Ü are A O U; Ø Đ Ð Ł Ħ Ŧ, which
// Unicode does not decompose, are O D D L H T), replaces Cyrillic and Greek letters by
// the Latin letter that their capital looks like, puts all in upper case, and drops
// separators:
//
//   - every Unicode space, dash (Zs, Zl, Zp, Pd), control and format character (Cc, Cf:
//     zero width, bidi, byte order mark), and the minus sign and hyphen bullet;
//   - full stop, middle dots and bullets: . · • ‧ ∙ ⋅ ● ・
//   - underscore, slashes _ / ⁄ ∕, colons : ∶ and bars | ¦
//   - apostrophes, quotation marks and primes: ' " ` ´ ʹ ʼ ‘ ’ ‚ ‛ “ ” „ ‟ ‹ › « » ′ ‵
//
// What remains must be MinLen to MaxLen of A-Z and 0-9. Everything else is an error, and
// deliberately so: commas and semicolons join two plates, ? and * belong to patterns, and
// an emblem or a letter without a Latin look-alike is a fault of the sensor's set-up that
// someone should see. Æ, Œ, ß and Þ have no base letter and are errors too.
//
// Parse returns ErrSentinel for a text that says "no plate", otherwise an *Error, which
// never quotes its input. For every key it returns, Parse(k.String()) is k. On ASCII text
// that is a plate with a digit other than zero it is one pass over a table, without
// allocation.
func Parse(raw string) (Key, error) {
	if k := parseASCII(raw); k != 0 {
		return k, nil
	}
	return parseText(raw)
}

// ParseBytes is Parse for bytes. It does not keep raw.
func ParseBytes(raw []byte) (Key, error) {
	if k := parseASCII(raw); k != 0 {
		return k, nil
	}
	if len(raw) > MaxRaw {
		return 0, &Error{Reason: RawTooLong, Count: len(raw)}
	}
	return parseText(string(raw))
}

// The table of parseASCII: the code of a letter or digit in the low six bits, plus
// nonzero for 1 to 9; separator; or 0 for a byte that parseText must judge.
const (
	codeMask  = 1<<6 - 1
	nonzero   = 1 << 6
	separator = 1 << 7

	code0 = 1  // code of 0
	codeA = 11 // code of A
)

var ascii = func() (t [256]uint8) {
	for c := range byte(10) {
		t['0'+c] = code0 + c | nonzero
	}
	t['0'] = code0
	for c := range byte(26) {
		t['A'+c] = codeA + c
		t['a'+c] = codeA + c
	}
	for c := range byte(' ' + 1) {
		t[c] = separator // C0 controls and space
	}
	t[0x7f] = separator
	for _, c := range []byte("-._/:|'\"`") {
		t[c] = separator
	}
	return t
}()

// seven packs the seven characters of v, the first in the lowest byte: the length of most
// plates in Europe. It returns 0 when one is neither letter nor digit, or when none is a
// digit other than zero. All characters are judged at once, a byte each ("SIMD within a
// register", Lamport, "Multiple byte processing with full-word instructions", 1975), and
// packed in three multiplications, where a loop has to wait for seven in a row.
func seven(v uint64) Key {
	const each = 0x0101010101010101
	v = v<<8 | '0' // an eighth character in front, taken off again below
	letter := (v >> 6 & each) * 0xff
	n := v&(0x0f*each) | v&letter&(0x10*each) // digits 0 to 9, letters 1 to 26
	n += each &^ letter                       // digits 1 to 10
	most := 10*each + letter&(16*each)
	bad := v&(0x80*each) | // not ASCII
		(v^(0x30*each))&(0x70*each)&^letter | // neither letter nor digit by its high bits
		^(n+0x7f*each)&(0x80*each) | // below the first letter
		^(most+0x80*each-n)&(0x80*each) // beyond the last, or beyond 9
	if bad != 0 || (n+0x7e*each)&(0x80*each)&^letter == 0 {
		return 0
	}
	n += letter & (10 * each)
	// Two characters to 16 bits, four to 32, eight to 64.
	n = (n&0x00ff00ff00ff00ff)*base + n>>8&0x00ff00ff00ff00ff
	n = (n&0x0000ffff0000ffff)*(base*base) + n>>16&0x0000ffff0000ffff
	n = (n&0xffffffff)*(base*base*base*base) + n>>32
	const front = code0 * base * base * base * base * base * base * base
	return Key(n - front)
}

// parseASCII is the fast path of Parse: it returns the key of an ASCII plate that holds a
// digit other than zero, and 0 for any text that needs thought. The digit rules out all
// sentinels at the price of one OR per character. k wraps round on long texts, which n then
// refuses. Tried and no faster: multiplying by 1 at separators instead of branching.
func parseASCII[T string | []byte](raw T) Key {
	var v uint64
	switch {
	case len(raw) == 7:
		v = uint64(raw[0]) | uint64(raw[1])<<8 | uint64(raw[2])<<16 | uint64(raw[3])<<24 |
			uint64(raw[4])<<32 | uint64(raw[5])<<40 | uint64(raw[6])<<48
	case len(raw) == 9 && ascii[raw[2]] == separator && ascii[raw[6]] == separator:
		v = uint64(raw[0]) | uint64(raw[1])<<8 | uint64(raw[3])<<16 | uint64(raw[4])<<24 |
			uint64(raw[5])<<32 | uint64(raw[7])<<40 | uint64(raw[8])<<48
	case len(raw) > MaxRaw:
		return 0
	}
	if v != 0 {
		if k := seven(v); k != 0 {
			return k
		}
	}
	var k Key
	var n int
	var seen uint8
	for i := range len(raw) {
		e := ascii[raw[i]]
		code := e & codeMask
		if code == 0 {
			if e != separator {
				return 0
			}
			continue
		}
		k = k*base + Key(code)
		seen |= e
		n++
	}
	if seen&nonzero == 0 || n < MinLen || n > MaxLen {
		return 0
	}
	return k
}
