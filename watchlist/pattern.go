package watchlist

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unique"

	"golang.org/x/text/unicode/norm"

	"vigie/watchlist/plate"
)

// Pattern is a plate of which some characters are not known: A-Z and 0-9 stand
// for themselves, ? for exactly one of them, * for any run of them, even none.
// It is matched against the whole of a normalised plate. The zero Pattern is
// none and matches nothing. Two are the same if they compare equal.
//
// A Pattern made by ParsePattern is canonical: two are equal only if they are
// written alike after normalisation, each run of wildcards being all its ? and
// then at most one *. It has at least one wildcard, MinPatternFixed letters or
// digits, and at most plate.MaxLen places, the * not counted.
//
// A pattern is a partial plate and personal data. Like plate.Key it therefore
// prints as a keyed digest; Text is the pattern in clear. The ways round the digest
// that the comment of plate.Key names give an address here and not the text, for a
// Pattern is a handle.
type Pattern struct{ text unique.Handle[string] }

// MinPatternFixed is the least number of letters and digits in a pattern. With
// fewer it would hit a good part of all traffic.
const MinPatternFixed = 2

const wildcards = "?*"

// Errors of ParsePattern besides those of package plate. None repeats the text.
var (
	// ErrNoWildcard says that a text has neither ? nor *, and so is no pattern;
	// it may be a plate.
	ErrNoWildcard = errors.New("has no wildcard, ? or *")
	// ErrPatternLoose says that a pattern has too few letters and digits.
	ErrPatternLoose = fmt.Errorf("needs at least %d letters or digits beside its wildcards: with fewer it would hit anybody", MinPatternFixed)
	// ErrPatternLong says that a pattern has more places than a plate can have.
	ErrPatternLong = fmt.Errorf("has more than %d letters, digits and ?: no plate is as long", plate.MaxLen)
)

// ParsePattern reads a pattern as people and files write it. Letters, digits and
// separators are taken as plate.Parse takes them, small letters and look-alikes
// of other alphabets included; the wildcards too may be full-width.
//
// The error is ErrNoWildcard, ErrPatternLoose or ErrPatternLong, or the
// *plate.Error that plate.Parse has for a character that is none. It never
// repeats the text. For every p that it returns, ParsePattern(p.Text()) is p.
func ParsePattern(text string) (Pattern, error) {
	normal, err := plate.AppendNormal(make([]byte, 0, 2*plate.MaxLen+1), text, wildcards)
	if err != nil {
		return Pattern{}, err
	}
	canonical := make([]byte, 0, len(normal))
	fixed, wild, star := 0, false, false
	for _, c := range normal {
		switch c {
		case '*':
			wild, star = true, true // written after the last ? of its run
			continue
		case '?':
			wild = true
		default:
			fixed++
			if star {
				canonical, star = append(canonical, '*'), false
			}
		}
		canonical = append(canonical, c)
	}
	places := len(canonical) - strings.Count(string(canonical), "*")
	if star {
		canonical = append(canonical, '*')
	}
	switch {
	case !wild:
		return Pattern{}, ErrNoWildcard
	case fixed < MinPatternFixed:
		return Pattern{}, ErrPatternLoose
	case places > plate.MaxLen:
		return Pattern{}, ErrPatternLong
	}
	return Pattern{unique.Make(string(canonical))}, nil
}

// HasWildcard reports whether text, as a person or a file gives it, holds a
// wildcard of ParsePattern, and so cannot be a plate.
func HasWildcard(text string) bool {
	return strings.ContainsAny(text, wildcards) || strings.ContainsAny(norm.NFKC.String(text), wildcards)
}

// Text returns the pattern in clear, personal data: A-Z, 0-9, ? and *.
// It is "" for the zero Pattern.
func (p Pattern) Text() string {
	if p.IsZero() {
		return ""
	}
	return p.text.Value()
}

// IsZero reports whether p is none.
func (p Pattern) IsZero() bool { return p == Pattern{} }

// Matches reports whether read, a normalised plate (plate.Key.String), matches the
// whole of p. It is the plain meaning of a pattern, for checks and tests; the
// matcher runs all patterns at once instead.
func (p Pattern) Matches(read string) bool {
	return !p.IsZero() && len(read) <= plate.MaxLen && matches(p.Text(), read)
}

func matches(pattern, text string) bool {
	switch {
	case pattern == "":
		return text == ""
	case pattern[0] == '*':
		return matches(pattern[1:], text) || text != "" && matches(pattern, text[1:])
	case text == "":
		return false
	}
	return (pattern[0] == '?' || pattern[0] == text[0]) && matches(pattern[1:], text[1:])
}

// Digest returns "pattern:" and 12 hexadecimal digits, see plate.Key.Digest.
func (p Pattern) Digest() string { return plate.DigestText("pattern", p.Text()) }

// String returns the Digest; Text is the pattern in clear.
func (p Pattern) String() string { return p.Digest() }

// Format implements fmt.Formatter: it prints the Digest for every verb, ignoring
// width, precision and flags.
func (p Pattern) Format(f fmt.State, verb rune) { _, _ = io.WriteString(f, p.Digest()) }

// LogValue implements slog.LogValuer with the Digest.
func (p Pattern) LogValue() slog.Value { return slog.StringValue(p.Digest()) }

// MarshalText implements encoding.TextMarshaler with the Digest, for the sake of
// loggers that encode whole structs. There is deliberately no way back.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.Digest()), nil }
