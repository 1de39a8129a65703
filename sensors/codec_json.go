package sensors

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth is how many objects and arrays a JSON read may nest. The documented
// members need three; the rest is for the unknown ones of foreign producers.
const maxDepth = 16

// Documented names of the JSON form, in the order of the struct fields.
var (
	readNames = []string{"id", "sensor", "plate", "country", "ts", "conf", "passage", "candidates", "char_conf",
		"image", "lane", "direction", "speed", "make", "color", "received", "retransmitted",
		"revision", "lat", "lon", "context"}
	candidateNames = []string{"plate", "conf"}
	imageNames     = []string{"partition", "offset"}
)

// strictJSON decodes the JSON form with jsontext, which refuses repeated names
// and text that is not UTF-8 by itself. It is the authority on what is accepted:
// plainJSON only answers sooner in the common case, and a fuzz test holds the two
// together.
func (d *decoder) strictJSON(value []byte, r *Read) error {
	w := walkers.Get().(*walker)
	defer walkers.Put(w)
	w.buf, w.value = *bytes.NewBuffer(value), value
	w.dec.Reset(&w.buf)
	defer func() {
		w.buf, w.value = bytes.Buffer{}, nil
		w.dec.Reset(&w.buf) // lets go of value
	}()

	err := w.object(readNames, func(name string) error {
		switch name {
		case "id":
			return w.text(&r.ID)
		case "sensor":
			return w.text(&r.Sensor)
		case "plate":
			return w.text(&r.Plate)
		case "country":
			return w.text(&r.Country)
		case "passage":
			return w.text(&r.Passage)
		case "direction":
			return w.text(&r.Direction)
		case "make":
			return w.text(&r.Make)
		case "color":
			return w.text(&r.Color)
		case "ts":
			return w.integer(&r.TS)
		case "received":
			return w.integer(&r.Received)
		case "conf":
			return w.float(&r.Conf)
		case "speed":
			return w.float(&r.Speed)
		case "lat":
			return w.float(&r.Lat)
		case "lon":
			return w.float(&r.Lon)
		case "lane":
			return w.count(&r.Lane)
		case "revision":
			return w.count(&r.Revision)
		case "retransmitted":
			return w.boolean(&r.Retransmitted)
		case "candidates":
			return w.array(func() error {
				var c Candidate
				err := w.object(candidateNames, func(name string) error {
					if name == "plate" {
						return w.text(&c.Plate)
					}
					return w.float(&c.Conf)
				})
				r.Candidates = append(r.Candidates, c)
				return err
			})
		case "char_conf":
			return w.array(func() error {
				var v float32
				err := w.float(&v)
				r.CharConf = append(r.CharConf, v)
				return err
			})
		default: // image and context
			if w.null() {
				return w.skip()
			}
			img := d.imageOf(r, name == "context")
			return w.object(imageNames, func(name string) error {
				if name == "offset" {
					return w.integer(&img.Offset)
				}
				var v int64
				err := w.integer(&v)
				if err == nil && v != int64(int32(v)) {
					return w.fail(reasonRange)
				}
				img.Partition = int32(v)
				return err
			})
		}
	})
	if err == nil {
		if _, next := w.dec.ReadToken(); next != io.EOF {
			err = w.fail(reasonTrailing)
		}
	}
	return err
}

// walker reads the members of a JSON value one by one. Every error of its methods
// is a *DecodeError.
type walker struct {
	dec   jsontext.Decoder
	buf   bytes.Buffer
	value []byte
}

var walkers = sync.Pool{New: func() any { return new(walker) }}

// token reads a token. It puts an error of jsontext, whose own text quotes the
// value, into words of the closed set.
func (w *walker) token() (jsontext.Token, error) {
	tok, err := w.dec.ReadToken()
	if err == nil {
		return tok, nil
	}
	f := &DecodeError{Form: FormJSON, Offset: len(w.value), Reason: reasonSyntax}
	s, ok := errors.AsType[*jsontext.SyntacticError](err)
	if ok {
		f.Offset = int(s.ByteOffset)
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF:
		f.Reason = reasonTruncated
	case errors.Is(err, jsontext.ErrDuplicateName):
		f.Reason = reasonDuplicate
		if name := s.JSONPointer.LastToken(); slices.Contains(readNames, name) || slices.Contains(imageNames, name) {
			f.Field = name
		}
	case !utf8.Valid(w.value):
		f.Reason = reasonUTF8
	}
	return tok, f
}

// fail is a fault of the value just read.
func (w *walker) fail(reason string) error {
	return &DecodeError{Form: FormJSON, Offset: int(w.dec.InputOffset()), Reason: reason}
}

// within puts name in front of the field of a fault.
func within(name string, err error) error {
	if f, ok := errors.AsType[*DecodeError](err); ok {
		if strings.HasPrefix(f.Field, "[") {
			f.Field = name + f.Field
		} else {
			f.Field = dotted(name, f.Field)
		}
	}
	return err
}

// object reads an object, calling member in front of the value of every name in
// names. Other members are skipped, unless the name is a documented one in other
// letters: encoding/json would take PLATE for plate, and a reader that does not
// must refuse it rather than see another car.
func (w *walker) object(names []string, member func(name string) error) error {
	if w.null() {
		return w.skip()
	}
	tok, err := w.token()
	if err != nil {
		return err
	}
	if tok.Kind() != '{' {
		return w.fail(reasonObject)
	}
	for {
		tok, err := w.token()
		if err != nil {
			return err
		}
		if tok.Kind() == '}' {
			return nil
		}
		name := tok.String()
		i := slices.Index(names, name)
		if i >= 0 {
			if err := member(names[i]); err != nil {
				return within(names[i], err)
			}
			continue
		}
		if known := variantOf(name, names); known != "" {
			return within(known, w.fail(reasonVariant))
		}
		if err := w.skip(); err != nil {
			return err
		}
	}
}

// variantOf returns the documented name that name differs from only in case or
// in separators, and "" when there is none.
func variantOf(name string, names []string) string {
	if len(name) > 64 {
		return ""
	}
	bare := separators.Replace(name)
	for _, known := range names {
		if strings.EqualFold(bare, separators.Replace(known)) {
			return known
		}
	}
	return ""
}

var separators = strings.NewReplacer("_", "", "-", "")

// array reads an array, calling element in front of every element.
func (w *walker) array(element func() error) error {
	if w.null() {
		return w.skip()
	}
	tok, err := w.token()
	if err != nil {
		return err
	}
	if tok.Kind() != '[' {
		return w.fail(reasonArray)
	}
	for i := 0; w.dec.PeekKind() != ']'; i++ {
		if i == maxElements {
			return w.fail(reasonElements)
		}
		if err := element(); err != nil {
			return within("["+strconv.Itoa(i)+"]", err)
		}
	}
	_, err = w.token()
	return err
}

// null reports whether a null comes next.
func (w *walker) null() bool { return w.dec.PeekKind() == 'n' }

// skip reads over a value of any kind.
func (w *walker) skip() error {
	base := w.dec.StackDepth()
	for {
		if _, err := w.token(); err != nil {
			return err
		}
		switch depth := w.dec.StackDepth(); {
		case depth == base:
			return nil
		case depth > maxDepth:
			return w.fail(reasonDepth)
		}
	}
}

// scalar reads a value of one kind. ok is false for a null.
func (w *walker) scalar(kind jsontext.Kind, reason string) (tok jsontext.Token, ok bool, err error) {
	tok, err = w.token()
	if err != nil || tok.Kind() == 'n' {
		return tok, false, err
	}
	if tok.Kind() != kind {
		return tok, false, w.fail(reason)
	}
	return tok, true, nil
}

func (w *walker) text(dst *string) error {
	tok, ok, err := w.scalar('"', reasonString)
	if ok {
		*dst = tok.String()
	}
	return err
}

// float reads a number as the nearest float32.
func (w *walker) float(dst *float32) error {
	tok, ok, err := w.scalar('0', reasonNumber)
	if !ok {
		return err
	}
	v, err := strconv.ParseFloat(tok.String(), 32)
	if err != nil {
		return w.fail(reasonRange)
	}
	*dst = float32(v)
	return nil
}

// integer reads a number without fraction and exponent.
func (w *walker) integer(dst *int64) error {
	tok, ok, err := w.scalar('0', reasonInteger)
	if !ok {
		return err
	}
	v, err := strconv.ParseInt(tok.String(), 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return w.fail(reasonRange)
	case err != nil:
		return w.fail(reasonInteger)
	}
	*dst = v
	return nil
}

// count reads a number as integer does, 0 or more.
func (w *walker) count(dst *uint32) error {
	tok, ok, err := w.scalar('0', reasonInteger)
	if !ok {
		return err
	}
	v, err := strconv.ParseInt(tok.String(), 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && (v > math.MaxUint32 || tok.String()[0] == '-'): // also -0
		return w.fail(reasonRange)
	case err != nil:
		return w.fail(reasonInteger)
	}
	*dst = uint32(v)
	return nil
}

func (w *walker) boolean(dst *bool) error {
	tok, err := w.token()
	if err != nil {
		return err
	}
	switch tok.Kind() {
	case 't', 'f':
		*dst = tok.Bool()
	case 'n':
	default:
		return w.fail(reasonBool)
	}
	return nil
}

// plainJSON decodes what nearly every producer sends: documented names only,
// texts without escapes, plain numbers. It reports false for everything else,
// right or wrong, with r in any state. The texts of r point into s.
//
// It exists for its cost: in BenchmarkDecode it takes a seventh of the time of
// strictJSON and does not allocate, which is the difference between one core and
// several at the rate of a replay.
func (d *decoder) plainJSON(s string, r *Read) bool {
	p := plain{s: s, i: 1}
	if p.next() == '}' {
		p.i++
		return p.end()
	}
	var seen uint32
	for {
		// First the way of nearly all reads: a short name, no white space.
		bit, next := 0, 0
		if i := p.i; i+9 <= len(s) && s[i] == '"' {
			w := load(s, i+1)
			quote := bits.TrailingZeros64(equal(w, '"')) / 8 // 8 for none
			if i += quote + 2; i+1 < len(s) && s[i] == ':' {
				switch w & (1<<(8*quote+8) - 1) {
				case wordID:
					r.ID, next = plainText(s, i+1)
				case wordSensor:
					bit = 1
					r.Sensor, next = plainText(s, i+1)
				case wordPlate:
					bit = 2
					r.Plate, next = plainText(s, i+1)
				case wordCountry:
					bit = 3
					r.Country, next = plainText(s, i+1)
				case wordTS:
					bit = 4
					r.TS, next = plainDigits(s, i+1)
				case wordConf:
					bit = 5
					r.Conf, next = plainShare(s, i+1)
				}
			}
		}
		if next > 0 && next < len(s) && seen&(1<<bit) == 0 {
			seen |= 1 << bit
			if p.i = next; s[next] == ',' && next+1 < len(s) && s[next+1] == '"' {
				p.i++
				continue
			}
		} else if !d.plainMember(&p, r, &seen) {
			return false
		}
		switch p.next() {
		case ',':
			p.i++
			p.next()
		case '}':
			p.i++
			return p.end()
		default:
			return false
		}
	}
}

// plainMember reads a name and a value of any member, whose bit it sets in seen.
func (d *decoder) plainMember(p *plain, r *Read, seen *uint32) bool {
	name, ok := p.text()
	member := slices.Index(readNames, name)
	if !ok || member < 0 || *seen&(1<<member) != 0 || !p.eat(':') {
		return false
	}
	*seen |= 1 << member
	switch member {
	case 0:
		ok = p.textOrNull(&r.ID)
	case 1:
		ok = p.textOrNull(&r.Sensor)
	case 2:
		ok = p.textOrNull(&r.Plate)
	case 3:
		ok = p.textOrNull(&r.Country)
	case 4:
		ok = p.integerOrNull(&r.TS)
	case 5:
		ok = p.floatOrNull(&r.Conf)
	case 6:
		ok = p.textOrNull(&r.Passage)
	case 7:
		ok = p.candidates(r)
	case 8:
		ok = p.charConf(r)
	case 9:
		ok = d.plainImage(p, r, false)
	case 10:
		ok = p.countOrNull(&r.Lane)
	case 11:
		ok = p.textOrNull(&r.Direction)
	case 12:
		ok = p.floatOrNull(&r.Speed)
	case 13:
		ok = p.textOrNull(&r.Make)
	case 14:
		ok = p.textOrNull(&r.Color)
	case 15:
		ok = p.integerOrNull(&r.Received)
	case 16:
		ok = p.boolOrNull(&r.Retransmitted)
	case 17:
		ok = p.countOrNull(&r.Revision)
	case 18:
		ok = p.floatOrNull(&r.Lat)
	case 19:
		ok = p.floatOrNull(&r.Lon)
	case 20:
		ok = d.plainImage(p, r, true)
	}
	return ok
}

// plain is a cursor over a JSON value. Every method leaves i after what it read
// and reports false when the value is not plain.
type plain struct {
	s string
	i int
}

// next skips white space and returns the byte there, 0 at the end.
func (p *plain) next() byte {
	for ; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// eat skips white space, c and white space.
func (p *plain) eat(c byte) bool {
	if p.i+1 < len(p.s) && p.s[p.i] == c && p.s[p.i+1] > ' ' { // no white space, as nearly always
		p.i++
		return true
	}
	if p.next() != c {
		return false
	}
	p.i++
	p.next()
	return true
}

// Short names of readNames and the quote after them, as load gives them.
const (
	wordID      = 'i' | 'd'<<8 | '"'<<16
	wordSensor  = 's' | 'e'<<8 | 'n'<<16 | 's'<<24 | 'o'<<32 | 'r'<<40 | '"'<<48
	wordPlate   = 'p' | 'l'<<8 | 'a'<<16 | 't'<<24 | 'e'<<32 | '"'<<40
	wordCountry = 'c' | 'o'<<8 | 'u'<<16 | 'n'<<24 | 't'<<32 | 'r'<<40 | 'y'<<48 | '"'<<56
	wordTS      = 't' | 's'<<8 | '"'<<16
	wordConf    = 'c' | 'o'<<8 | 'n'<<16 | 'f'<<24 | '"'<<32
)

// plainText reads a text at i and returns where it ends, 0 when it is not ASCII or not
// plain, or not short of the end of s by a few bytes.
func plainText(s string, i int) (text string, next int) {
	if s[i] != '"' {
		return "", 0
	}
	i++
	for from := i; i+8 <= len(s); i += 8 {
		w := load(s, i)
		if stop := equal(w, '"') | equal(w, '\\') | less(w, ' ') | w&highs; stop != 0 {
			if i += bits.TrailingZeros64(stop) / 8; s[i] == '"' {
				return s[from:i], i + 1
			}
			return "", 0
		}
	}
	return "", 0
}

// plainDigits reads a number of 8 to 18 digits, without sign and leading zeros, and returns
// where it ends, 0 for any other.
func plainDigits(s string, i int) (v int64, next int) {
	if i+9 > len(s) || s[i] == '0' {
		return 0, 0
	}
	v, ok := eightDigits(load(s, i))
	if !ok {
		return 0, 0
	}
	from := i
	for i += 8; i < len(s) && s[i]-'0' <= 9; i++ {
		v = v*10 + int64(s[i]-'0')
	}
	if i-from > 18 || i == len(s) || s[i] == '.' || s[i]|0x20 == 'e' {
		return 0, 0
	}
	return v, i
}

// plainShare reads 0. and one to six digits, the form of nearly all confidences, and
// returns where it ends, 0 for any other number.
func plainShare(s string, i int) (v float32, next int) {
	if i+2 >= len(s) || s[i] != '0' || s[i+1] != '.' {
		return 0, 0
	}
	n, from := 0, i+2
	for i = from; i < len(s) && s[i]-'0' <= 9; i++ {
		n = n*10 + int(s[i]-'0')
	}
	if i == from || i > from+6 || i == len(s) || s[i]|0x20 == 'e' {
		return 0, 0
	}
	return float32(n) / tens[i-from], i
}

// end reports that nothing but white space is left.
func (p *plain) end() bool { return p.next() == 0 && p.i == len(p.s) }

// word skips lit.
func (p *plain) word(lit string) bool {
	if !strings.HasPrefix(p.s[p.i:], lit) {
		return false
	}
	p.i += len(lit)
	return true
}

func (p *plain) text() (string, bool) {
	if p.i >= len(p.s) || p.s[p.i] != '"' {
		return "", false
	}
	start := p.i + 1
	i := start
	for i+8 <= len(p.s) {
		w := load(p.s, i)
		stop := equal(w, '"') | equal(w, '\\') | less(w, ' ') | w&highs
		if stop == 0 {
			i += 8
			continue
		}
		if i += bits.TrailingZeros64(stop) / 8; p.s[i] == '"' {
			p.i = i + 1
			return p.s[start:i], true
		}
		break
	}
	var high byte
	for ; i < len(p.s); i++ {
		c := p.s[i]
		if c == '"' {
			p.i = i + 1
			text := p.s[start:i]
			return text, high < utf8.RuneSelf || utf8.ValidString(text)
		}
		if c == '\\' || c < ' ' {
			return "", false
		}
		high |= c
	}
	return "", false
}

func (p *plain) textOrNull(dst *string) (ok bool) {
	if *dst, ok = p.text(); ok {
		return true
	}
	return p.word("null")
}

func (p *plain) boolOrNull(dst *bool) bool {
	*dst = p.word("true")
	return *dst || p.word("false") || p.word("null")
}

func (p *plain) countOrNull(dst *uint32) bool {
	var v int64
	ok := p.i < len(p.s) && p.s[p.i] != '-' && p.integerOrNull(&v) && v <= math.MaxUint32
	*dst = uint32(v)
	return ok
}

// integerOrNull takes up to 18 digits, which cannot overflow.
func (p *plain) integerOrNull(dst *int64) bool {
	if p.word("null") {
		return true
	}
	neg := p.word("-")
	v, n := p.digits()
	if n == 0 || n > 18 || p.moreOfNumber() {
		return false
	}
	*dst = v
	if neg {
		*dst = -v
	}
	return true
}

// digits reads a run of digits, of which a leading 0 must be the only one.
func (p *plain) digits() (v int64, n int) {
	start := p.i
	if p.i+8 <= len(p.s) {
		if w, ok := eightDigits(load(p.s, p.i)); ok {
			v, p.i = w, p.i+8
		}
	}
	for ; p.i < len(p.s) && p.s[p.i]-'0' <= 9; p.i++ {
		v = v*10 + int64(p.s[p.i]-'0')
	}
	n = p.i - start
	if n > 1 && p.s[start] == '0' {
		return 0, 0
	}
	return v, n
}

// moreOfNumber reports that the number goes on in a way that p does not read.
func (p *plain) moreOfNumber() bool {
	return p.i < len(p.s) && (p.s[p.i] == '.' || p.s[p.i] == 'e' || p.s[p.i] == 'E')
}

// floatOrNull takes numbers without exponent. With at most 24 bits of digits and
// ten places both operands of the division are exact, so its result is the
// nearest float32; longer ones go to strconv.
func (p *plain) floatOrNull(dst *float32) bool {
	if p.word("null") {
		return true
	}
	start := p.i
	neg := p.word("-")
	v, n := p.digits()
	if n == 0 {
		return false
	}
	places := 0
	if p.word(".") {
		first := p.i
		for ; p.i < len(p.s) && p.s[p.i]-'0' <= 9; p.i++ {
			v = v*10 + int64(p.s[p.i]-'0')
		}
		if places = p.i - first; places == 0 {
			return false
		}
	}
	if p.moreOfNumber() {
		return false
	}
	if n+places <= 18 && v < 1<<24 && places < len(tens) {
		f := float32(v) / tens[places]
		if neg {
			f = -f
		}
		*dst = f
		return true
	}
	f, err := strconv.ParseFloat(p.s[start:p.i], 32)
	*dst = float32(f)
	return err == nil
}

// tens are the powers of ten that float32 holds exactly.
var tens = [...]float32{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10}

// list reads an array of up to maxElements, calling element in front of each.
func (p *plain) list(element func() bool) bool {
	if p.word("null") {
		return true
	}
	if !p.eat('[') {
		return false
	}
	if p.next() == ']' {
		p.i++
		return true
	}
	for n := 0; n < maxElements && element(); n++ {
		switch p.next() {
		case ',':
			p.i++
			p.next()
		case ']':
			p.i++
			return true
		default:
			return false
		}
	}
	return false
}

func (p *plain) charConf(r *Read) bool {
	return p.list(func() bool {
		var v float32
		ok := p.floatOrNull(&v)
		r.CharConf = append(r.CharConf, v)
		return ok
	})
}

func (p *plain) candidates(r *Read) bool {
	return p.list(func() bool {
		var c Candidate
		ok := p.pair("plate", "conf", func(first bool) bool {
			if first {
				return p.textOrNull(&c.Plate)
			}
			return p.floatOrNull(&c.Conf)
		})
		r.Candidates = append(r.Candidates, c)
		return ok
	})
}

func (d *decoder) plainImage(p *plain, r *Read, context bool) bool {
	if p.word("null") {
		return true
	}
	img := d.imageOf(r, context)
	return p.pair("partition", "offset", func(first bool) bool {
		if !first {
			return p.integerOrNull(&img.Offset)
		}
		var v int64
		ok := p.integerOrNull(&v)
		img.Partition = int32(v)
		return ok && v == int64(img.Partition)
	})
}

// pair reads an object that holds each of two names at most once and nothing
// else, calling member in front of their values.
func (p *plain) pair(a, b string, member func(first bool) bool) bool {
	if !p.eat('{') {
		return false
	}
	if p.next() == '}' {
		p.i++
		return true
	}
	var seenA, seenB bool
	for {
		name, ok := p.text()
		if !ok || !p.eat(':') {
			return false
		}
		switch {
		case name == a && !seenA:
			seenA, ok = true, member(true)
		case name == b && !seenB:
			seenB, ok = true, member(false)
		default:
			return false
		}
		if !ok {
			return false
		}
		switch p.next() {
		case ',':
			p.i++
			p.next()
		case '}':
			p.i++
			return true
		default:
			return false
		}
	}
}
