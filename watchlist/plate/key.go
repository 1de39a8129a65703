package plate

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
)

// alphabet holds the characters in the order of their codes, with a filler for code 0.
const alphabet = "\x000123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

// text is a plate spelled out in ASCII at the end of c. It lives on the stack.
type text struct {
	c    [MaxLen]byte
	from int
}

// len returns the number of characters.
func (t *text) len() int { return MaxLen - t.from }

// bytes returns the characters. They are those of t.
func (t *text) bytes() []byte { return t.c[t.from:] }

// spell spells k out; the text is empty when k is not Valid.
func (k Key) spell() (t text) {
	t.from = MaxLen
	from := MaxLen
	for k != 0 {
		rest := k / base
		code := k - rest*base
		if code == 0 || from == 0 {
			return t
		}
		from--
		t.c[from] = alphabet[code]
		k = rest
	}
	if from <= MaxLen-MinLen {
		t.from = from
	}
	return t
}

// String returns the plate in its normalised form, A-Z and 0-9 without separators, or ""
// when k is not Valid. This is the plate in clear, personal data: see Format for what
// fmt prints.
func (k Key) String() string {
	t := k.spell()
	return string(t.bytes())
}

// AppendTo appends what String returns to dst. It allocates only if dst must grow.
func (k Key) AppendTo(dst []byte) []byte {
	t := k.spell()
	return append(dst, t.bytes()...)
}

// Len returns the number of characters of the plate, MinLen to MaxLen, or 0 when k is not
// Valid.
func (k Key) Len() int {
	t := k.spell()
	return t.len()
}

// Valid reports whether k is the packing of MinLen to MaxLen characters, whatever they
// are. Keys from Parse are; it is for keys read back from storage or from the network,
// and any uint64 may be asked. The words of ErrSentinel have valid packings too, although
// Parse returns none of them.
func (k Key) Valid() bool { return k.Len() != 0 }

// digestKey keys the digests of this process. A digest thus joins the log lines of one
// run, and is worthless to whoever gets hold of the logs: without the key, which is never
// written anywhere, the few hundred million plates of a country cannot be tried.
var digestKey = func() (key [sha256.Size]byte) {
	_, _ = rand.Read(key[:]) // never fails, crashes the process instead
	return key
}()

// digestBytes is how much of the HMAC a digest shows: 48 bits, with which two among a
// million plates of one log share a digest once in 560 runs.
const digestBytes = 6

// Digest returns "plate:" and 12 hexadecimal digits, the beginning of the HMAC-SHA256 of
// k under a key made at random at process start. Equal keys have equal digests for the
// life of the process, and no longer. It is not meant for the hot path.
func (k Key) Digest() string {
	h := hmac.New(sha256.New, digestKey[:])
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(k))
	h.Write(b[:])
	return "plate:" + hex.EncodeToString(h.Sum(nil)[:digestBytes])
}

// DigestText is Digest for a text that is nearly a plate, such as a pattern: kind, a colon
// and 12 hexadecimal digits, the beginning of the HMAC-SHA256 of kind and text under the
// same key. kind is a word that may be shown.
func DigestText(kind, text string) string {
	h := hmac.New(sha256.New, digestKey[:])
	_, _ = io.WriteString(h, kind+"\x00"+text) // a hash takes everything
	return kind + ":" + hex.EncodeToString(h.Sum(nil)[:digestBytes])
}

// Format implements fmt.Formatter: it prints the Digest for every verb, ignoring width,
// precision and flags, so that a plate does not reach a log line or an error text by
// accident.
func (k Key) Format(f fmt.State, verb rune) { _, _ = io.WriteString(f, k.Digest()) }

// LogValue implements slog.LogValuer with the Digest.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.Digest()) }

// MarshalText implements encoding.TextMarshaler with the Digest, for the sake of the
// loggers that encode whole structs as JSON. There is deliberately no way back: a format
// that is meant to carry plates names String, or uint64, in its own code.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.Digest()), nil }

// Fold takes keys apart two characters at a time: half as many divisions, each of which
// waits for the one before: 8 ns for a plate of seven characters instead of 11.5 ns.
const pairBase = base * base

// foldPairs holds the folds of two characters, by their packing.
var foldPairs = func() (t [pairBase]foldPair) {
	var fold [base]int
	for i := range fold {
		fold[i] = i
	}
	for _, class := range []string{"0ODQ", "1I", "8B", "5S", "2Z", "6G"} {
		for i := range len(class) {
			fold[ascii[class[i]]&codeMask] = int(ascii[class[0]] & codeMask)
		}
	}
	for i := range t {
		hi, lo := i/base, i%base
		t[i] = foldPair{to: uint16(fold[hi]*base + fold[lo]), gap: lo == 0, first: hi == 0}
	}
	return t
}()

type foldPair struct {
	to    uint16 // packing of the two folded characters
	gap   bool   // no second character, which no plate has
	first bool   // no first character, which only the beginning of a plate has
}

// Fold maps the characters that optical readers confuse most to one of each class:
// {0 O D Q} to 0, {1 I} to 1, {8 B} to 8, {5 S} to 5, {2 Z} to 2, {6 G} to 6. Two plates
// that may be readings of one another within these classes have equal folds. The result
// has the length of k and is for comparing with other folds only: it need not be a plate
// anyone issues, and may be the packing of a sentinel. Fold returns 0 when k is not Valid.
func (k Key) Fold() Key {
	if k < base {
		return 0 // no character, or one
	}
	var folded, place Key = 0, 1
	for range MaxLen / 2 {
		rest := k / pairBase
		p := &foldPairs[k-rest*pairBase]
		if p.gap || p.first && rest != 0 {
			return 0
		}
		folded += Key(p.to) * place
		if rest == 0 {
			return folded
		}
		place *= pairBase
		k = rest
	}
	return 0 // more than MaxLen characters
}
