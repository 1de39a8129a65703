package watchlist

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"vigie/watchlist/plate"
)

// MaxIDBytes is the greatest length of a list id, an entry id and a queue name.
const MaxIDBytes = 64

// idRule is what ValidID asks, for error texts.
const idRule = "must be 1 to 64 characters of a-z 0-9 - _ and begin with a letter or digit"

// ValidID reports whether id may name a list, an entry or a queue: 1 to
// MaxIDBytes bytes of a-z, 0-9, '-' and '_', the first a letter or digit. Such
// an id needs no quoting in a URL, a Kafka key, a Redis key or a shell.
func ValidID(id string) bool {
	if id == "" || len(id) > MaxIDBytes {
		return false
	}
	var bad uint8
	for i := range len(id) {
		bad |= notInID[id[i]]
	}
	return bad == 0 && id[0] != '-' && id[0] != '_'
}

// notInID is 1 for every byte that no id has. Ten million ids are checked when a process
// starts.
var notInID = func() (t [256]uint8) {
	for c := range t {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			t[c] = 1
		}
	}
	return t
}()

// SaltSize is the length of List.Salt in bytes: 128 bits cannot be guessed.
const SaltSize = 16

// NewSalt returns the salt for a new list, read from rand, which must be a
// cryptographic source (crypto/rand.Reader). It fails when rand does.
func NewSalt(rand io.Reader) ([]byte, error) {
	salt := make([]byte, SaltSize)
	if _, err := io.ReadFull(rand, salt); err != nil {
		return nil, fmt.Errorf("watchlist: new salt: %w", err)
	}
	return salt, nil
}

// EntryIDLen is the length of what EntryID returns.
const EntryIDLen = 26

var entryIDEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// EntryID returns the id of the entry for plate k and country c on list l:
// EntryIDLen characters of lower-case base32, the first 128 bits of HMAC-SHA256
// under the salt of the list.
//
// The same plate and country on the same list always have the same id, so that
// adding one again replaces it and importing a file twice changes nothing. The
// digest is keyed because there are too few plates for a plain one: whoever
// meets an id in a URL or a log could try them all. It covers the texts of key
// and country rather than their numbers, so that ids outlive a change of
// plate.Packing.
//
// EntryID panics when the salt of l is shorter than SaltSize.
func EntryID(l *List, k plate.Key, c plate.Country) string { return entryID(l, k.String(), c) }

// PatternID is EntryID for an entry with a pattern. No plate has the same id, for
// a pattern holds a wildcard and a plate none.
func PatternID(l *List, p Pattern, c plate.Country) string { return entryID(l, p.Text(), c) }

func entryID(l *List, text string, c plate.Country) string {
	return l.keyedID(entryText, text, c.String())
}

// ExemptionID returns the id of the exemption of a read from the entry with an id on
// list l, made as EntryID makes that of an entry, and for the same reasons. It
// panics when the salt of l is shorter than SaltSize.
func ExemptionID(l *List, entry string, read plate.Key) string {
	return l.keyedID("vigie exemption 1", entry, read.String())
}

// keyedID is the HMAC of what, the id of l, and two texts. None may hold a NUL.
func (l *List) keyedID(what, a, b string) string {
	if len(l.Salt) < SaltSize {
		panic("watchlist: an id under a list without a salt")
	}
	raw := rawID(hmac.New(sha256.New, l.Salt), []byte(what+"\x00"+l.ID+"\x00"+a+"\x00"+b), nil)
	return entryIDEncoding.EncodeToString(raw)
}

// idBytes is what EntryIDLen characters stand for.
const idBytes = 16

// rawID is what the id made of text under a key stands for, in buf if that has room for sha256.Size.
func rawID(mac hash.Hash, text, buf []byte) []byte {
	mac.Reset()
	mac.Write(text)
	return mac.Sum(buf[:0])[:idBytes]
}

// appendEntryText appends what the id of an entry for plate k and country c on a list is made
// of.
func appendEntryText(dst []byte, list string, k plate.Key, c plate.Country) []byte {
	dst = append(append(append(dst, entryText+"\x00"...), list...), 0)
	dst = append(k.AppendTo(dst), 0)
	return append(dst, c.String()...)
}

const entryText = "vigie entry 1"

// Tag returns a 32-bit digest of the salt, the mark of this list among all that
// ever bore its id. It is 0 only for a list without a salt.
func (l *List) Tag() uint32 {
	if len(l.Salt) == 0 {
		return 0
	}
	sum := sha256.Sum256(append([]byte("vigie list 1\x00"), l.Salt...))
	return max(1, binary.BigEndian.Uint32(sum[:]))
}

// Owns reports whether e is an entry of l: it names the id of l, and was made
// for this list and not for an earlier one, since dropped, under the same id.
func (l *List) Owns(e *Entry) bool {
	return e.List == l.ID && (e.ListTag == 0 || e.ListTag == l.Tag())
}
