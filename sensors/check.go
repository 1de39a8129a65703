package sensors

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf8"

	"vigie/watchlist/plate"
)

// Limits of the fields of a Read, held by Check.
const (
	MaxIDBytes    = 64 // id, passage and sensor
	MaxPlateRunes = 64 // plate and the plate of a candidate
	MaxTextRunes  = 64 // direction, make and color
	MaxCandidates = 32
	MaxLane       = 999
	MaxSpeed      = 1000 // km/h
)

// maxTS is the first millisecond of the year 2100. Times in microseconds or
// nanoseconds lie far above it.
const maxTS = 4_102_444_800_000

// FieldError is one rule that a field of a read breaks. Its text never holds the
// content of a field.
type FieldError struct {
	Field  string `json:"field"`  // JSON name, such as "candidates[2].conf"
	Reason string `json:"reason"` // what is wrong and what would be right
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// Check reports the first field that is missing or out of bounds as a
// *FieldError. It looks at fields one by one:
//
//   - sensor is 1 to 64 letters, digits and - _ . : (ASCII); id and passage are
//     at most 64 visible ASCII characters, and may be empty;
//   - ts lies between 1970 and 2100 in milliseconds. Ten digits are refused as
//     seconds, although a dead clock that restarted in 1970 may come to them
//     after twelve days;
//   - plate is at most 64 characters of UTF-8. Whether it is a plate is for Key
//     to say; it may be empty, for a vehicle without one;
//   - conf, char_conf and the conf of at most 32 candidates are 0 to 1. That
//     char_conf has as many values as plate characters is not demanded: vendors
//     count separators or do not, and a read is not lost over evidence that can
//     be left aside;
//   - direction, make and color are at most 64 characters, none of them a
//     control character or one that turns the direction of writing;
//   - lane is at most 999, speed is 0 to 1000, lat within 90 and lon within 180 degrees,
//     image, context and received are not negative.
//
// A country is never refused, see CountryCode.
//
// It does not allocate when the read is in order.
func (r *Read) Check() error {
	if fault := r.check(); fault != nil {
		return fault
	}
	return nil
}

func (r *Read) check() *FieldError {
	switch {
	case r.Sensor == "":
		return &FieldError{"sensor", "is required"}
	case !validSensor(r.Sensor):
		return &FieldError{"sensor", "must be 1 to 64 letters, digits and - _ . :"}
	case !validID(r.ID):
		return &FieldError{"id", "must be at most 64 visible ASCII characters"}
	case !validID(r.Passage):
		return &FieldError{"passage", "must be at most 64 visible ASCII characters"}
	}
	if reason := checkTS(r.TS); reason != "" {
		return &FieldError{"ts", reason}
	}
	if reason := checkPlate(r.Plate); reason != "" {
		return &FieldError{"plate", reason}
	}
	if !isShare(r.Conf) {
		return &FieldError{"conf", reasonShare}
	}
	if len(r.Candidates) > MaxCandidates {
		return &FieldError{"candidates", "must be at most " + strconv.Itoa(MaxCandidates)}
	}
	for i := range r.Candidates {
		c := &r.Candidates[i]
		if reason := checkPlate(c.Plate); reason != "" {
			return &FieldError{indexed("candidates", i, "plate"), reason}
		}
		if !isShare(c.Conf) {
			return &FieldError{indexed("candidates", i, "conf"), reasonShare}
		}
	}
	if len(r.CharConf) > MaxPlateRunes {
		return &FieldError{"char_conf", "must be one value per character of the plate, at most " + strconv.Itoa(MaxPlateRunes)}
	}
	for i, c := range r.CharConf {
		if !isShare(c) {
			return &FieldError{indexed("char_conf", i, ""), reasonShare}
		}
	}
	switch {
	case !r.Image.valid():
		return &FieldError{"image", "partition and offset must not be negative"}
	case !r.Context.valid():
		return &FieldError{"context", "partition and offset must not be negative"}
	case !(r.Lat >= -90 && r.Lat <= 90): // refuses NaN too
		return &FieldError{"lat", "must be -90 to 90 degrees"}
	case !(r.Lon >= -180 && r.Lon <= 180):
		return &FieldError{"lon", "must be -180 to 180 degrees"}
	case r.Lane > MaxLane:
		return &FieldError{"lane", "must be at most " + strconv.Itoa(MaxLane)}
	case !(r.Speed >= 0 && r.Speed <= MaxSpeed): // refuses NaN too
		return &FieldError{"speed", fmt.Sprintf("must be 0 to %d km/h; leave it out when it was not measured", MaxSpeed)}
	case r.Received < 0 || r.Received >= maxTS:
		return &FieldError{"received", "must be in milliseconds since 1970, or left out"}
	}
	for _, f := range [...]struct{ name, text string }{
		{"direction", r.Direction}, {"make", r.Make}, {"color", r.Color},
	} {
		if reason := checkText(f.text); reason != "" {
			return &FieldError{f.name, reason}
		}
	}
	return nil
}

func (img *Image) valid() bool { return img == nil || img.Partition >= 0 && img.Offset >= 0 }

const reasonShare = "must be between 0 and 1 (0.95, not 95)"

// isShare refuses NaN too.
func isShare(v float32) bool { return v >= 0 && v <= 1 }

func validSensor(s string) bool {
	var bad uint8
	for i := range len(s) {
		bad |= notInSensor[s[i]]
	}
	return bad == 0 && s != "" && len(s) <= MaxIDBytes
}

// notInSensor is 1 for every byte that no id of a sensor has.
var notInSensor = func() (t [256]uint8) {
	for i := range t {
		switch c := byte(i); {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '_', c == '.', c == ':':
		default:
			t[i] = 1
		}
	}
	return t
}()

func validID(s string) bool { return len(s) <= MaxIDBytes && isVisible(s) }

func checkTS(ts int64) string {
	switch {
	case ts == 0:
		return "is required, in milliseconds since 1970"
	case ts < 0:
		return "must be after 1970, in milliseconds"
	case ts >= 1_000_000_000 && ts < 10_000_000_000:
		return "looks like seconds; milliseconds expected"
	case ts >= 1_000_000_000_000_000_000:
		return "looks like nanoseconds; milliseconds expected"
	case ts >= 1_000_000_000_000_000:
		return "looks like microseconds; milliseconds expected"
	case ts >= maxTS:
		return "must be before 2100, in milliseconds"
	}
	return ""
}

func checkPlate(s string) string {
	return checkRunes(s, MaxPlateRunes)
}

func checkRunes(s string, limit int) string {
	if len(s) <= limit && isASCII(s) {
		return ""
	}
	if !utf8.ValidString(s) {
		return reasonUTF8
	}
	if utf8.RuneCountInString(s) > limit {
		return "must be at most " + strconv.Itoa(limit) + " characters"
	}
	return ""
}

func checkText(s string) string {
	if s == "" {
		return ""
	}
	if reason := checkRunes(s, MaxTextRunes); reason != "" {
		return reason
	}
	for _, c := range s {
		if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) || c == '\u2028' || c == '\u2029' {
			return "must not hold control characters, line breaks or marks of writing direction"
		}
	}
	return ""
}

// Key returns the normalised plate. Its error is plate.ErrSentinel for a read
// that says there was no plate ("unknown", empty, zeros): such a read is in order
// and meets no entry. Any other error is a *plate.Error, without the text.
func (r *Read) Key() (plate.Key, error) { return plate.Parse(r.Plate) }

// AppendCharConf appends to dst the confidences in the characters of the key,
// and returns the extended slice. Sensors give one for each character of the
// plate as they write it, or only for its letters and digits; when their number
// fits neither, nothing is appended.
func (r *Read) AppendCharConf(dst []float32) []float32 {
	if len(r.CharConf) == 0 {
		return dst
	}
	written, counted := 0, 0
	for _, c := range r.Plate {
		written++
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			counted++
		}
	}
	switch len(r.CharConf) {
	case counted:
		return append(dst, r.CharConf...)
	case written:
		i := 0
		for _, c := range r.Plate {
			if unicode.IsLetter(c) || unicode.IsDigit(c) {
				dst = append(dst, r.CharConf[i])
			}
			i++
		}
	}
	return dst
}

// CountryCode returns the country of the plate, 0 when the sensor did not tell or
// told in a way that plate.ParseCountry does not know. Such a read is not refused:
// it can still meet an entry, one grade lower.
func (r *Read) CountryCode() plate.Country {
	c, _ := plate.ParseCountry(r.Country)
	return c
}

// stableIDs is the alphabet of RFC 4648 in lower case; 16 bytes make 26 characters.
var stableIDs = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// StableID returns the id of a read whose sensor gave none: 26 lower-case
// characters of base32, the first 128 bits of SHA-256 over sensor, ts and the
// normalised plate, or the plate as given when it does not parse. The same read
// sent again gets the same id, and AB-123-CD the same as AB123CD.
//
// It hides nothing: who knows sensor and time finds the plate by trying all
// plates. Treat the id as personal data and keep it out of logs.
func StableID(r *Read) string {
	// Every part but the last has a fixed length or says its length, and the kind
	// byte keeps a key apart from a raw text of the same bytes.
	const keyed, raw = 1, 0
	b := make([]byte, 0, 128)
	b = append(b, "vigie read 1\x00"...)
	b = binary.AppendUvarint(b, uint64(len(r.Sensor)))
	b = append(b, r.Sensor...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.TS))
	if key, err := r.Key(); err == nil {
		b = append(b, keyed)
		b = key.AppendTo(b) // spelled out: the packing of keys may change
	} else {
		b = append(b, raw)
		b = append(b, r.Plate...)
	}
	sum := sha256.Sum256(b)
	return stableIDs.EncodeToString(sum[:16])
}

// EnsureID sets ID to StableID when it is empty.
func (r *Read) EnsureID() {
	if r.ID == "" {
		r.ID = StableID(r)
	}
}
