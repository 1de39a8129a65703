package watchlist

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"vigie/watchlist/plate"
)

// Packed is an Entry as processes keep millions of them: some 45 bytes without a
// pointer in them, where the Entry with its texts has 260 and seven pointers that
// every garbage collection follows. It never changes. Two are the same entry at the
// same version when the pointers are equal.
//
// What a read is compared with lies at fixed places and is read where it is; Unpack
// gives the whole Entry.
//
// A Packed is the first byte of its encoding, which a Packer made; it cannot be
// copied, and its zero value is none:
//
//	0   flags
//	1   action, priority
//	3   country
//	5   key
//	13  valid from and until: seconds in 4 bytes each, milliseconds in 6, or in 8
//	..  length of the rest, a uvarint
//	    owner: list and its tag, a number in owners
//	    version
//	    id: nothing where owner and plate give it, 16 bytes, or a text
//	    plate: where key has separators, or a text
//	    pattern, with that flag only
//	    reason, requester, vehicle, safety, case reference
//
// A text is a uvarint n and, for an even one, n/2 bytes; for an odd one it is text
// n/2 of texts, which many entries share.
type Packed struct{ flags uint8 }

const (
	packedSeconds = 1 << iota // validity in seconds, 4 bytes
	packedMillis              // in milliseconds, 6 bytes
	packedID                  // the id is the base32 of 16 bytes
	packedWritten             // the plate is a text
	packedSpaces              // the separators are spaces, else hyphens
	packedPattern
	packedDerived // the id is EntryID under the salt of the owner
)

const (
	packedHead  = 13 // bytes before the validity
	packedShort = packedHead + 8
	packedLong  = packedHead + 12
	packedWide  = packedHead + 16
)

func (p *Packed) head() *[packedShort]byte { return (*[packedShort]byte)(unsafe.Pointer(p)) }

// Action is what the patrol is asked to do.
func (p *Packed) Action() Action { return Action(p.head()[1]) }

// Country is that of the plate, 0 when not known.
func (p *Packed) Country() plate.Country {
	return plate.Country(binary.LittleEndian.Uint16(p.head()[3:]))
}

// Key is the plate, 0 for a pattern.
func (p *Packed) Key() plate.Key { return plate.Key(binary.LittleEndian.Uint64(p.head()[5:])) }

// Validity returns Entry.ValidFrom and ValidUntil in milliseconds since the Unix epoch.
func (p *Packed) Validity() (from, until int64) {
	b := p.head()
	if b[0]&packedSeconds != 0 {
		return int64(binary.LittleEndian.Uint32(b[packedHead:])) * 1000, int64(binary.LittleEndian.Uint32(b[packedHead+4:])) * 1000
	}
	if b[0]&packedMillis != 0 {
		// Read with what lies before: the last 8 of these bytes end with the validity.
		long := (*[packedLong]byte)(unsafe.Pointer(p))
		return int64(binary.LittleEndian.Uint64(long[packedHead-2:]) >> 16), int64(binary.LittleEndian.Uint64(long[packedHead+4:]) >> 16)
	}
	wide := (*[packedWide]byte)(unsafe.Pointer(p))
	return int64(binary.LittleEndian.Uint64(wide[packedHead:])), int64(binary.LittleEndian.Uint64(wide[packedHead+8:]))
}

// List is the id of the list.
func (p *Packed) List() string { return p.owner().list }

// ListTag is Entry.ListTag.
func (p *Packed) ListTag() uint32 { return p.owner().tag }

func (p *Packed) owner() owner {
	n, _ := binary.Uvarint(p.rest())
	return owners.at(n)
}

// rest is what follows the fixed places.
func (p *Packed) rest() []byte {
	at := packedWide
	switch p.flags & (packedSeconds | packedMillis) {
	case packedSeconds:
		at = packedShort
	case packedMillis:
		at = packedLong
	}
	n := 0
	for shift := 0; ; shift += 7 {
		c := *(*byte)(unsafe.Add(unsafe.Pointer(p), at))
		at++
		n |= int(c&0x7f) << shift
		if c < 0x80 {
			return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(p), at)), n)
		}
	}
}

// AppendID appends the id to dst.
func (p *Packed) AppendID(dst []byte) []byte {
	b := p.rest()
	for range 2 { // owner and version
		_, size := binary.Uvarint(b)
		b = b[size:]
	}
	switch {
	case p.flags&packedDerived != 0:
		return p.appendDerived(dst)
	case p.flags&packedID != 0:
		return entryIDEncoding.AppendEncode(dst, b[:idBytes])
	}
	n, size := binary.Uvarint(b)
	if n&1 != 0 {
		return append(dst, texts.at(n/2)...)
	}
	return append(dst, b[size:][:n/2]...)
}

// appendDerived appends the id that owner and plate give.
func (p *Packed) appendDerived(dst []byte) []byte {
	n, _ := binary.Uvarint(p.rest())
	s := salts.at(n)
	m := s.macs.Get().(*idMaker)
	defer s.macs.Put(m)
	return entryIDEncoding.AppendEncode(dst, m.entry(owners.at(n).list, p.Key(), p.Country()))
}

// ID is Entry.ID.
func (p *Packed) ID() string { return string(p.AppendID(make([]byte, 0, MaxIDBytes))) }

// IsPattern reports whether Pattern is one.
func (p *Packed) IsPattern() bool { return p.flags&packedPattern != 0 }

// Pattern is that of the entry, the zero Pattern for a plate.
func (p *Packed) Pattern() Pattern {
	if !p.IsPattern() {
		return Pattern{}
	}
	return p.Unpack().Pattern
}

// Unpack returns the entry.
func (p *Packed) Unpack() *Entry {
	r := unpacker{rest: string(p.rest())}
	o := owners.at(r.uvarint())
	e := &Entry{
		List: o.list, ListTag: o.tag, Version: r.varint(),
		Key: p.Key(), Country: p.Country(), Action: p.Action(), Priority: Priority(p.head()[2]),
	}
	from, until := p.Validity()
	e.ValidFrom, e.ValidUntil = time.UnixMilli(from).UTC(), time.UnixMilli(until).UTC()
	switch {
	case p.flags&packedDerived != 0:
		e.ID = p.ID()
	case p.flags&packedID != 0:
		e.ID = entryIDEncoding.EncodeToString([]byte(r.take(idBytes)))
	default:
		e.ID = r.text()
	}
	if p.flags&packedWritten != 0 {
		e.Plate = r.text()
	} else {
		e.Plate = separate(e.Key, r.take(2), p.flags&packedSpaces != 0)
	}
	if p.IsPattern() {
		e.Pattern, _ = ParsePattern(r.text()) // it has parsed before
	}
	e.Reason, e.Requester, e.Vehicle, e.Safety, e.CaseRef = r.text(), r.text(), r.text(), r.text(), r.text()
	return e
}

// String names the entry without its plate.
func (p *Packed) String() string { return p.Unpack().String() }

// GoString is String, so that %#v gives no more away.
func (p *Packed) GoString() string { return p.String() }

// unpacker reads the rest of a Packed from its beginning.
type unpacker struct{ rest string }

func (r *unpacker) take(n int) string {
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *unpacker) uvarint() (v uint64) {
	for shift := 0; ; shift += 7 {
		c := r.take(1)[0]
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

func (r *unpacker) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (r *unpacker) text() string {
	n := r.uvarint()
	if n&1 != 0 {
		return texts.at(n / 2)
	}
	return r.take(int(n / 2))
}

// separate spells k with separators before the characters whose bits are set in mask,
// two bytes, the lowest bit for the first.
func separate(k plate.Key, mask string, spaces bool) string {
	sep := byte('-')
	if spaces {
		sep = ' '
	}
	bits := uint16(mask[0]) | uint16(mask[1])<<8
	var plain [plate.MaxLen]byte
	out := make([]byte, 0, 2*plate.MaxLen)
	for i, c := range k.AppendTo(plain[:0]) {
		if bits>>i&1 != 0 {
			out = append(out, sep)
		}
		out = append(out, c)
	}
	return string(out)
}

// separated is the inverse of separate. It reports false for a text that separate does
// not give for k.
func separated(k plate.Key, text string) (mask uint16, spaces, ok bool) {
	var plain [plate.MaxLen]byte
	at := 0
	var sep byte
	for i, c := range k.AppendTo(plain[:0]) {
		if at < len(text) && (text[at] == '-' || text[at] == ' ') {
			if sep != 0 && sep != text[at] {
				return 0, false, false
			}
			sep = text[at]
			mask |= 1 << i
			at++
		}
		if at == len(text) || text[at] != c {
			return 0, false, false
		}
		at++
	}
	return mask, sep == ' ', at == len(text)
}

// owner is what an entry belongs to.
type owner struct {
	list string
	tag  uint32
}

// table gives numbers to values that are used again and again, for the life of the
// process. at never waits.
type table[T comparable] struct {
	mu      sync.RWMutex
	numbers map[T]uint64
	values  atomic.Pointer[[]T] // only ever appended to
}

func (t *table[T]) at(n uint64) T { return (*t.values.Load())[n] }

// number returns the number of v. A new one is given to what keep makes of v, unless
// there are limit already.
func (t *table[T]) number(v T, limit int, keep func(T) T) (n uint64, ok bool) {
	if n, ok = t.find(v); ok {
		return n, true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.numbers[v]; ok {
		return n, true
	}
	if len(t.numbers) >= limit {
		return 0, false
	}
	if t.numbers == nil {
		t.numbers = map[T]uint64{}
	}
	var values []T
	if old := t.values.Load(); old != nil {
		values = *old
	}
	v = keep(v)
	n = uint64(len(values))
	values = append(values, v)
	t.values.Store(&values)
	t.numbers[v] = n
	return n, true
}

// find returns the number of v, if it has one.
func (t *table[T]) find(v T) (n uint64, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, ok = t.numbers[v]
	return n, ok
}

// owners and texts are of all entries of the process. There are as many owners as lists
// were made. A text gets a number when a Packer meets it for the second time: a list whose
// every vehicle is described in other words must not use the numbers up for all others.
var (
	owners table[owner]
	texts  table[string]
)

// saltTable has the salts of owners, by their numbers. A salt stays what it was first: ids are
// made with it that were found right with it.
type saltTable struct {
	mu    sync.Mutex
	salts atomic.Pointer[[]*salt] // never written to; nil for an owner whose salt is not known
}

// salt is the salt of a list, in makers of ids that are used again: millions of ids are made
// when lists are loaded, and some for every patrol and second.
type salt struct{ macs sync.Pool } // of *idMaker

// idMaker makes ids under one salt. One goroutine may use it at a time.
type idMaker struct {
	mac  hash.Hash
	text []byte
	sum  [sha256.Size]byte
}

func newIDMaker(salt []byte) *idMaker { return &idMaker{mac: hmac.New(sha256.New, salt)} }

// entry is what the id of an entry stands for; it stays until the next call.
func (m *idMaker) entry(list string, k plate.Key, c plate.Country) []byte {
	m.text = appendEntryText(m.text[:0], list, k, c)
	return rawID(m.mac, m.text, m.sum[:])
}

func (t *saltTable) at(owner uint64) *salt {
	if salts := t.salts.Load(); salts != nil && owner < uint64(len(*salts)) {
		return (*salts)[owner]
	}
	return nil
}

func (t *saltTable) put(owner uint64, key []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at(owner) != nil {
		return
	}
	var salts []*salt
	if old := t.salts.Load(); old != nil {
		salts = slices.Clone(*old)
	}
	for uint64(len(salts)) <= owner {
		salts = append(salts, nil)
	}
	key = slices.Clone(key)
	salts[owner] = &salt{sync.Pool{New: func() any { return newIDMaker(key) }}}
	t.salts.Store(&salts)
}

var salts saltTable

// RememberSalt lets the entries of l that are packed from now on do without their ids, a
// quarter of them: list and plate give them.
func RememberSalt(l *List) {
	if len(l.Salt) >= SaltSize {
		salts.put(ownerNumber(owner{l.ID, l.Tag()}), l.Salt)
	}
}

func ownerNumber(o owner) uint64 {
	n, _ := owners.number(o, math.MaxInt, func(o owner) owner { return owner{strings.Clone(o.list), o.tag} })
	return n
}

const (
	maxTexts = 1 << 15
	maxText  = 128 // bytes of one of texts
)

// Packer packs entries. Its zero value is ready. It remembers the numbers of what it
// has met; one goroutine may use it at a time.
type Packer struct {
	// Bulk makes it place many entries in one allocation, which stays as long as one
	// of them: for a load of many that will stay.
	Bulk bool

	slab    []byte // of Bulk, not yet used
	buf     []byte
	numbers map[string]uint64   // of texts
	met     map[uint64]struct{} // hashes of those met once
	owner   owner               // the last one
	ownerN  uint64
	maker   *idMaker // under the salt of owner; nil when that is not known
}

// packerSlab is what Bulk allocates at once: a size class of the runtime.
const packerSlab = 8 << 10

// Pack returns e packed. Nothing of e is kept.
func Pack(e *Entry) *Packed { return new(Packer).Pack(e) }

// Pack returns e packed. Nothing of e is kept.
func (k *Packer) Pack(e *Entry) *Packed {
	var b [packedWide]byte
	b[1], b[2] = uint8(e.Action), uint8(e.Priority)
	binary.LittleEndian.PutUint16(b[3:], uint16(e.Country))
	binary.LittleEndian.PutUint64(b[5:], uint64(e.Key))
	n := packedWide
	from, until := e.ValidFrom.UnixMilli(), e.ValidUntil.UnixMilli()
	switch {
	case wholeSeconds(from) && wholeSeconds(until):
		b[0] |= packedSeconds
		binary.LittleEndian.PutUint32(b[packedHead:], uint32(from/1000))
		binary.LittleEndian.PutUint32(b[packedHead+4:], uint32(until/1000))
		n = packedShort
	case uint64(from) < 1<<48 && uint64(until) < 1<<48:
		b[0] |= packedMillis
		binary.LittleEndian.PutUint64(b[packedHead:], uint64(from))
		binary.LittleEndian.PutUint64(b[packedHead+6:], uint64(until))
		n = packedLong
	default:
		binary.LittleEndian.PutUint64(b[packedHead:], uint64(from))
		binary.LittleEndian.PutUint64(b[packedHead+8:], uint64(until))
	}

	rest := binary.AppendUvarint(k.buf[:0], k.ownerNumber(owner{e.List, e.ListTag}))
	rest = binary.AppendVarint(rest, e.Version)
	switch id, ok := packID(e.ID); {
	case ok && k.derives(id, e):
		b[0] |= packedDerived
	case ok:
		b[0] |= packedID
		rest = append(rest, id[:]...)
	default:
		rest = appendText(rest, e.ID)
	}
	if mask, spaces, ok := separated(e.Key, e.Plate); ok {
		if spaces {
			b[0] |= packedSpaces
		}
		rest = binary.LittleEndian.AppendUint16(rest, mask)
	} else {
		b[0] |= packedWritten
		rest = appendText(rest, e.Plate)
	}
	if !e.Pattern.IsZero() {
		b[0] |= packedPattern
		rest = appendText(rest, e.Pattern.Text())
	}
	for _, s := range [...]string{e.Reason, e.Requester, e.Vehicle, e.Safety} {
		rest = k.appendShared(rest, s)
	}
	rest = appendText(rest, e.CaseRef)
	k.buf = rest

	var varint [binary.MaxVarintLen64]byte
	length := binary.AppendUvarint(varint[:0], uint64(len(rest)))
	p := k.room(n + len(length) + len(rest))[:0]
	p = append(append(append(p, b[:n]...), length...), rest...)
	return (*Packed)(unsafe.Pointer(&p[0]))
}

// wholeSeconds reports whether ms are seconds that fit into 32 bits.
func wholeSeconds(ms int64) bool { return ms >= 0 && ms/1000 <= math.MaxUint32 && ms%1000 == 0 }

// packID returns what id is the base32 of, if it is.
func packID(id string) (raw [idBytes]byte, ok bool) {
	if len(id) != EntryIDLen {
		return raw, false
	}
	var in, back [EntryIDLen]byte
	var out [idBytes + 1]byte
	copy(in[:], id)
	if n, err := entryIDEncoding.Decode(out[:], in[:]); err != nil || n != idBytes {
		return raw, false
	}
	copy(raw[:], out[:])
	entryIDEncoding.Encode(back[:], raw[:])
	return raw, back == in // the last character has bits that stand for nothing
}

func (k *Packer) ownerNumber(o owner) uint64 {
	if k.owner != o || k.owner.list == "" {
		k.ownerN = ownerNumber(o)
		k.owner, k.maker = owners.at(k.ownerN), nil
	}
	if k.maker == nil {
		if s := salts.at(k.ownerN); s != nil {
			k.maker = s.macs.Get().(*idMaker)
		}
	}
	return k.ownerN
}

// derives reports whether the owner, which is that of e, and the plate of e give the id.
func (k *Packer) derives(id [idBytes]byte, e *Entry) bool {
	return k.maker != nil && e.Pattern.IsZero() && bytes.Equal(k.maker.entry(e.List, e.Key, e.Country), id[:])
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))*2), s...)
}

// appendShared is appendText of a text that other entries are likely to have too.
func (k *Packer) appendShared(b []byte, s string) []byte {
	if len(s) < 2 || len(s) > maxText {
		return appendText(b, s)
	}
	n, ok := k.numbers[s]
	if !ok {
		if n, ok = texts.find(s); !ok && k.again(s) {
			n, ok = texts.number(s, maxTexts, strings.Clone)
		}
		if !ok {
			return appendText(b, s)
		}
		if k.numbers == nil {
			k.numbers = map[string]uint64{}
		}
		k.numbers[texts.at(n)] = n
	}
	return binary.AppendUvarint(b, n*2+1)
}

// again reports whether s was met before, and notes that it was.
func (k *Packer) again(s string) bool {
	h := maphash.String(textSeed, s)
	if _, ok := k.met[h]; ok {
		return true
	}
	if k.met == nil || len(k.met) >= maxTexts {
		k.met = make(map[uint64]struct{})
	}
	k.met[h] = struct{}{}
	return false
}

var textSeed = maphash.MakeSeed()

// room returns n bytes for an entry.
func (k *Packer) room(n int) []byte {
	if !k.Bulk || n > packerSlab/16 {
		return make([]byte, n)
	}
	if len(k.slab) < n {
		k.slab = make([]byte, packerSlab)
	}
	b := k.slab[:n:n]
	k.slab = k.slab[n:]
	return b
}
