package format

import (
	"math"
	"strconv"
	"strings"
	"time"

	"vigie/sensors"
)

// Times before firstTime are those of a clock that was never set, and times from endTime on
// are read wrongly; both milliseconds since 1970.
const (
	firstTime = 946_684_800_000   // 2000
	endTime   = 4_102_444_800_000 // 2100
)

// stamp is a time as a message writes it.
type stamp struct {
	t time.Time // as if written in UTC when no offset is named
	// named says that the text tells its place on the time line: an epoch, a Z or an offset.
	named bool
	fixed bool // the offset is another than that of UTC
}

// when sets the time of capture of a read from the first of the texts that tells one. A text without an
// offset is a time in the zone of the profile, or in UTC when utc says that the vendor calls it so.
func (d *decoder) when(s *sensors.Sighting, utc bool, texts ...string) {
	if d.in.Profile.Clock == sensors.ClockGateway {
		return
	}
	for _, text := range texts {
		st, ok := parseTime(text)
		if !ok {
			continue
		}
		zone := d.in.Profile.Zone
		if zone == nil {
			zone = time.UTC
		}
		switch {
		case d.in.Profile.Clock == sensors.ClockLocal && !st.fixed:
			st.t, s.Clock = inZone(st.t, zone), sensors.ClockLocal
		case !st.named && !utc:
			s.Clock = sensors.ClockUTC
			if zone != time.UTC {
				st.t, s.Clock = inZone(st.t, zone), sensors.ClockLocal
			}
		}
		if ms := st.t.UnixMilli(); ms >= firstTime && ms < endTime {
			s.Read.TS = ms
			return
		}
		s.Clock = ""
	}
}

// noTime gives the time of arrival to a sighting that has none.
func (d *decoder) noTime(s *sensors.Sighting) {
	s.Read.TS, s.Clock = d.in.Received.UnixMilli(), sensors.ClockGateway
}

// inZone is the moment at which a clock on the wall of zone shows what one in UTC shows at t.
func inZone(t time.Time, zone *time.Location) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), zone)
}

// parseTime reads a time as cameras write it:
//
//   - an epoch in seconds, milliseconds, microseconds or nanoseconds, told apart by its size,
//     with or without a fraction or an exponent;
//   - 20260314064107, with milliseconds behind it, or with a space or T in the middle;
//   - year, month, day with - / . or : between, or day, month, year; then a space or T and
//     hours, minutes and perhaps seconds with a fraction, or with : and three digits; then perhaps AM
//     or PM, and Z, UTC or an offset, behind which the name of a zone may stand in brackets. A day and a
//     month in the American order are read only where they can be nothing else, and not at all
//     then: half of them would be read wrongly;
//   - Sat, 14 Mar 2026 06:41:07 GMT, as HTTP and mail have it.
func parseTime(s string) (stamp, bool) {
	s = strings.TrimSpace(s)
	if len(s) < 8 || len(s) > 64 {
		return stamp{}, false
	}
	s = mailDate(s)
	if v, ok := decimal(s); ok && strings.ContainsAny(s, "eE") && v >= 1e9 && v < 1e20 {
		s = strconv.FormatFloat(v, 'f', 3, 64)
	}
	if digits(s) == len(s) || strings.Count(s, ".") == 1 && digits(strings.Replace(s, ".", "", 1)) == len(s)-1 && digits(s) >= 9 {
		return parseDigits(s)
	}
	if n := digits(s); n == 8 && len(s) > 8 { // 20260314 064107412
		rest := strings.TrimLeft(s[8:], "T _-")
		if m := digits(rest); m == 6 || m == 9 {
			st, ok := parseDigits(s[:8] + rest[:m])
			if !ok {
				return st, false
			}
			rest = fraction(&st.t, rest[m:])
			return offset(st, rest)
		}
		return stamp{}, false
	}
	year, rest, ok := number(s)
	if !ok || rest == "" || !strings.Contains("-/.:", rest[:1]) {
		return stamp{}, false
	}
	sep := rest[:1]
	month, rest, ok := number(rest[1:])
	if !ok || !strings.HasPrefix(rest, sep) {
		return stamp{}, false
	}
	rest = rest[1:]
	width := digits(rest)
	day, rest, ok := number(rest)
	if !ok {
		return stamp{}, false
	}
	switch {
	case year >= 1000 && width <= 2:
	case width == 4 && year <= 31:
		year, day = day, year
	default:
		return stamp{}, false
	}
	rest = strings.TrimLeft(rest, " T,_")
	hour, rest, ok := number(rest)
	if !ok || rest == "" || rest[0] != ':' {
		return stamp{}, false
	}
	minute, rest, ok := number(rest[1:])
	if !ok {
		return stamp{}, false
	}
	second := 0
	if strings.HasPrefix(rest, ":") {
		if second, rest, ok = number(rest[1:]); !ok {
			return stamp{}, false
		}
	}
	t := time.Time{}
	if len(rest) >= 4 && rest[0] == ':' && digits(rest[1:]) == 3 {
		rest = "." + rest[1:]
	}
	rest = fraction(&t, rest)
	nanos := t.Nanosecond()
	rest = strings.TrimLeft(rest, " ")
	if len(rest) >= 2 {
		switch half := strings.ToUpper(rest[:2]); {
		case half != "AM" && half != "PM":
		case hour < 1 || hour > 12:
			return stamp{}, false
		default:
			hour, rest = hour%12, rest[2:]
			if half == "PM" {
				hour += 12
			}
		}
	}
	st, ok := civil(year, month, day, hour, minute, second, nanos)
	if !ok {
		return st, false
	}
	return offset(st, rest)
}

// mailDate writes Sat, 14 Mar 2026 06:41:07 GMT as 2026-3-14 06:41:07 GMT, and leaves other texts alone.
func mailDate(s string) string {
	if s[3] != ',' {
		return s
	}
	f := strings.Fields(s)
	if len(f) < 5 || len(f) > 6 {
		return s
	}
	for m := time.January; m <= time.December; m++ {
		if strings.EqualFold(f[2], m.String()[:3]) {
			return f[3] + "-" + strconv.Itoa(int(m)) + "-" + f[1] + " " + strings.Join(f[4:], " ")
		}
	}
	return s
}

// civil refuses what is on no calendar or clock. A leap second is the last of its minute.
func civil(year, month, day, hour, minute, second, nanos int) (stamp, bool) {
	if second == 60 {
		second = 59
	}
	if month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59 {
		return stamp{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	return stamp{t: t}, t.Day() == day && t.Month() == time.Month(month)
}

// parseDigits reads an epoch, or a date and a time without anything between.
func parseDigits(s string) (stamp, bool) {
	whole, frac, _ := strings.Cut(s, ".")
	if n := len(whole); (n == 14 || n == 17) && frac == "" && whole[0] == '2' && whole[1] == '0' {
		part := func(i, j int) int { v, _ := strconv.Atoi(whole[i:j]); return v }
		nanos := 0
		if n == 17 {
			nanos = part(14, 17) * 1_000_000
		}
		return civil(part(0, 4), part(4, 6), part(6, 8), part(8, 10), part(10, 12), part(12, 14), nanos)
	}
	v, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return stamp{}, false
	}
	var t time.Time
	switch {
	case v < 1e11:
		t = time.Unix(v, 0)
		if frac != "" {
			f, _ := strconv.ParseFloat("0."+frac, 64)
			t = t.Add(time.Duration(math.Round(f*1000)) * time.Millisecond)
		}
	case v < 1e14:
		t = time.UnixMilli(v)
	case v < 1e17:
		t = time.UnixMicro(v)
	default:
		t = time.Unix(0, v)
	}
	return stamp{t: t.UTC(), named: true}, true
}

// fraction adds a fraction of a second that s begins with.
func fraction(t *time.Time, s string) (rest string) {
	if s == "" || s[0] != '.' && s[0] != ',' {
		return s
	}
	n := digits(s[1:])
	f, _ := strconv.ParseFloat("0."+s[1:1+n], 64)
	*t = t.Add(time.Duration(f * 1e9).Round(time.Microsecond))
	return s[1+n:]
}

// offset reads what stands behind a time.
func offset(st stamp, s string) (stamp, bool) {
	s = strings.TrimSpace(s)
	if i := strings.IndexByte(s, '['); i > 0 && s[len(s)-1] == ']' {
		s = strings.TrimSpace(s[:i])
	}
	switch strings.ToUpper(s) {
	case "":
		return st, true
	case "Z", "UTC", "GMT":
		st.named = true
		return st, true
	}
	sign := 1
	switch s[0] {
	case '+':
	case '-':
		sign = -1
	default:
		return st, false
	}
	hour, rest, ok := number(s[1:])
	if !ok {
		return st, false
	}
	minute := 0
	switch {
	case strings.HasPrefix(rest, ":"):
		if minute, rest, ok = number(rest[1:]); !ok || rest != "" {
			return st, false
		}
	case rest != "":
		return st, false
	case hour > 99: // 0100
		hour, minute = hour/100, hour%100
	}
	if hour > 14 || minute > 59 {
		return st, false
	}
	by := time.Duration(sign) * (time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
	st.t = st.t.Add(-by)
	st.named, st.fixed = true, by != 0
	return st, true
}

// digits is how many digits s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return n
}

// number reads the number of at most 4 digits that s begins with.
func number(s string) (v int, rest string, ok bool) {
	n := digits(s)
	if n == 0 || n > 4 {
		return 0, s, false
	}
	v, _ = strconv.Atoi(s[:n])
	return v, s[n:], true
}
