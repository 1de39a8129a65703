package plate

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Error says why a text is not a plate. Its message never holds a character of the text,
// so it may be logged and returned to a sensor. Parse returns it as *Error.
type Error struct {
	Reason Reason // why; a closed set, fit for a metric label
	Pos    int    // for BadCharacter and BadUTF8: the character at fault, counted from 1 in the raw text
	Count  int    // for TooShort and TooLong: letters and digits; for RawTooLong: bytes
}

// Reason is the closed set of reasons for which Parse refuses a text.
type Reason uint8

const (
	BadCharacter Reason = iota + 1 // a character is neither letter, digit nor separator
	BadUTF8                        // the bytes are not UTF-8
	TooShort                       // fewer than MinLen letters and digits, but not none
	TooLong                        // more than MaxLen letters and digits
	RawTooLong                     // more than MaxRaw bytes, left unread
)

// String returns a word in snake case, for metric labels: "bad_character", "bad_utf8",
// "too_short", "too_long", "raw_too_long"; "unknown" for any other value.
func (r Reason) String() string {
	switch r {
	case BadCharacter:
		return "bad_character"
	case BadUTF8:
		return "bad_utf8"
	case TooShort:
		return "too_short"
	case TooLong:
		return "too_long"
	case RawTooLong:
		return "raw_too_long"
	}
	return "unknown"
}

// Error tells the fault in a sentence.
func (e *Error) Error() string {
	switch e.Reason {
	case BadCharacter:
		return fmt.Sprintf("plate: character %d is not a letter or digit", e.Pos)
	case BadUTF8:
		return fmt.Sprintf("plate: character %d is not UTF-8", e.Pos)
	case TooShort:
		return fmt.Sprintf("plate: %d character, at least %d", e.Count, MinLen)
	case TooLong:
		return fmt.Sprintf("plate: %d characters, at most %d", e.Count, MaxLen)
	case RawTooLong:
		return fmt.Sprintf("plate: %d bytes, at most %d", e.Count, MaxRaw)
	}
	return "plate: not a plate"
}

// parseText is the whole of Parse; parseASCII only gets there sooner. It walks the text
// rune by rune through the decomposition tables of NFKD instead of normalising into a
// buffer: the composed and the decomposed form lead to the same base letters, and so
// nothing is allocated but errors.
func parseText(raw string) (Key, error) {
	if len(raw) > MaxRaw {
		return 0, &Error{Reason: RawTooLong, Count: len(raw)}
	}
	var t tally
	if err := t.addAll(raw); err != nil {
		if isUnread(raw) {
			return 0, ErrSentinel
		}
		return 0, err
	}
	switch {
	case t.seen == 0, t.zeros == t.n:
		return 0, ErrSentinel
	case t.n == len("NA") && strings.EqualFold(strings.TrimSpace(raw), "N/A"):
		return 0, ErrSentinel
	case t.n < MinLen:
		return 0, &Error{Reason: TooShort, Count: t.n}
	case t.n > MaxLen:
		return 0, &Error{Reason: TooLong, Count: t.n}
	case t.seen&nonzero == 0 && sentinels[t.k]:
		return 0, ErrSentinel
	}
	return t.k, nil
}

// isUnread reports whether a text that no plate can be says that there was none: in Chinese,
// or with question marks and stars alone.
func isUnread(raw string) bool {
	switch strings.TrimSpace(raw) {
	case "无车牌", "无牌车", "无牌", "车牌", "未识别":
		return true
	}
	var text [MaxRaw]byte
	t := tally{spell: true, text: text[:0], extra: "?*"}
	return t.addAll(raw) == nil && t.n == 0
}

// AppendNormal appends raw to dst as Parse normalises it, A-Z and 0-9 without separators,
// and keeps the characters of extra, ASCII that Parse refuses, where they stand. It is for
// texts that are nearly plates, such as patterns with ? and *: it neither counts
// characters nor looks for sentinels. For every raw that Parse takes it appends the String
// of the key, whatever extra holds.
//
// The error is an *Error, BadCharacter, BadUTF8 or RawTooLong, and dst comes back as it was.
func AppendNormal(dst []byte, raw, extra string) ([]byte, error) {
	if len(raw) > MaxRaw {
		return dst, &Error{Reason: RawTooLong, Count: len(raw)}
	}
	t := tally{spell: true, text: dst, extra: extra}
	if err := t.addAll(raw); err != nil {
		return dst, err
	}
	return t.text, nil
}

// tally is the plate as far as it has been read.
type tally struct {
	k      Key
	n      int   // characters in k, which wraps round beyond MaxLen
	zeros  int   // of them, zeros
	seen   uint8 // table entries of the characters, ORed
	letter bool  // the character before is a letter, so it may carry marks

	spell bool   // for AppendNormal:
	text  []byte // what has been read, spelled out
	extra string // characters to keep that have no place in a plate
}

// addAll adds the text, or says what in it has no place in a plate.
func (t *tally) addAll(raw string) error {
	for i, pos := 0, 1; i < len(raw); pos++ {
		r, size := utf8.DecodeRuneInString(raw[i:])
		if r == utf8.RuneError && size == 1 {
			return &Error{Reason: BadUTF8, Pos: pos}
		}
		if !t.addRaw(r, raw[i:]) {
			return &Error{Reason: BadCharacter, Pos: pos}
		}
		i += size
	}
	return nil
}

// addRaw adds one rune of the raw text, the first of rest; false if it has no place in a
// plate.
func (t *tally) addRaw(r rune, rest string) bool {
	if r < utf8.RuneSelf {
		return t.add(r)
	}
	if isSeparator(r) { // before decomposing: ´ would become a space and a stray accent
		t.letter = false
		return true
	}
	d := norm.NFKD.PropertiesString(rest).Decomposition()
	if d == nil {
		return t.add(r)
	}
	for len(d) > 0 {
		r, size := utf8.DecodeRune(d)
		if !t.add(r) {
			return false
		}
		d = d[size:]
	}
	return true
}

// add adds one rune of the decomposed text; false if it has no place in a plate.
func (t *tally) add(r rune) bool {
	if r >= utf8.RuneSelf {
		if r >= firstMark && r <= lastMark {
			return t.letter
		}
		if isSeparator(r) {
			t.letter = false
			return true
		}
		if r = lookalike(unicode.ToUpper(r)); r == 0 {
			return false
		}
	}
	e := ascii[r]
	if e == 0 {
		if strings.IndexByte(t.extra, byte(r)) < 0 {
			return false
		}
		t.text = append(t.text, byte(r))
		t.letter = false
		return true
	}
	code := e & codeMask
	if t.letter = code >= codeA; code == 0 {
		return true
	}
	if t.spell {
		t.text = append(t.text, alphabet[code])
	}
	t.k = t.k*base + Key(code)
	t.n++
	t.seen |= e
	if code == code0 {
		t.zeros++
	}
	return true
}

// The Unicode block Combining Diacritical Marks. Its marks are dropped after a letter;
// elsewhere, and all other marks (enclosing, variation selectors), are not plate text.
const firstMark, lastMark = '\u0300', '\u036f'

// isSeparator reports whether r, beyond ASCII, is in the closed set listed at Parse.
func isSeparator(r rune) bool {
	switch r {
	case '\u00a6', // ¦ broken bar
		'\u00ab', '\u00bb', // « »
		'\u00b4',           // ´ acute accent, typed as an apostrophe
		'\u00b7',           // · middle dot
		'\u02b9', '\u02bc', // ʹ ʼ modifier letters prime, apostrophe
		'\u2018', '\u2019', '\u201a', '\u201b', // ‘ ’ ‚ ‛
		'\u201c', '\u201d', '\u201e', '\u201f', // “ ” „ ‟
		'\u2022', '\u2027', // • ‧
		'\u2032', '\u2035', // ′ ‵ primes; the double and triple ones decompose into these
		'\u2039', '\u203a', // ‹ ›
		'\u2043',           // ⁃ hyphen bullet
		'\u2044', '\u2215', // ⁄ ∕
		'\u2212',           // − minus sign
		'\u2219', '\u22c5', // ∙ ⋅
		'\u2236', // ∶ ratio
		'\u25cf', // ● black circle
		'\u30fb': // ・ katakana middle dot
		return true
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Pd, unicode.Z)
}

// lookalike returns the Latin letter, or 0, for an upper-case letter beyond ASCII.
//
// Cyrillic: the twelve letters that Russian plates may use because they have a Latin
// double (GOST R 50577), the Ukrainian, Serbian and Macedonian І Ј Ѕ, and the few other
// letters of the block drawn like a Latin capital. Greek: the fourteen letters of Greek
// plates, chosen for the same reason, and Ϳ. Latin: letters with a stroke or bar, which
// Unicode does not decompose. A lower-case letter is taken by its capital: в is В is B,
// and ν is Ν is N although it is drawn like a v.
func lookalike(upper rune) rune {
	switch upper {
	case '\u0410', '\u0391': // Cyrillic, Greek
		return 'A'
	case '\u0412', '\u0392': // Cyrillic, Greek
		return 'B'
	case '\u0421': // Cyrillic
		return 'C'
	case '\u0110', '\u00d0': // Đ, Ð
		return 'D'
	case '\u0415', '\u0395': // Cyrillic, Greek
		return 'E'
	case '\u041d', '\u0397', '\u0126': // Cyrillic, Greek, Ħ
		return 'H'
	case '\u0406', '\u04c0', '\u0399': // Cyrillic, Cyrillic, Greek
		return 'I'
	case '\u0408', '\u037f': // Cyrillic, Greek
		return 'J'
	case '\u041a', '\u039a': // Cyrillic, Greek
		return 'K'
	case '\u0141': // Ł
		return 'L'
	case '\u041c', '\u039c': // Cyrillic, Greek
		return 'M'
	case '\u039d': // Greek
		return 'N'
	case '\u041e', '\u039f', '\u00d8': // Cyrillic, Greek, Ø
		return 'O'
	case '\u0420', '\u03a1': // Cyrillic, Greek
		return 'P'
	case '\u051a': // Cyrillic
		return 'Q'
	case '\u0405': // Cyrillic
		return 'S'
	case '\u0422', '\u03a4', '\u0166': // Cyrillic, Greek, Ŧ
		return 'T'
	case '\u0474': // Cyrillic
		return 'V'
	case '\u051c': // Cyrillic
		return 'W'
	case '\u0425', '\u03a7': // Cyrillic, Greek
		return 'X'
	case '\u0423', '\u04ae', '\u03a5': // Cyrillic, Cyrillic, Greek
		return 'Y'
	case '\u0396': // Greek
		return 'Z'
	}
	if upper < utf8.RuneSelf {
		return upper // the capital of ı is I
	}
	return 0
}
