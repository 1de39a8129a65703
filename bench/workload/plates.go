package workload

import (
	"math/rand/v2"
	"strings"

	"vigie/watchlist/plate"
)

const (
	digits  = "0123456789"
	letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

	sivLetters = "ABCDEFGHJKLMNPQRSTVWXYZ" // no I O U
	// sivPairs is how many left-hand pairs had been reached on At: AA came in April
	// 2009, HA late in 2024, ten a year.
	sivPairs = 176
)

// appendSIV draws a French plate: AA-001-AA to the pair reached, no SS.
func appendSIV(b []byte, rng *rand.Rand) []byte {
	const n = len(sivLetters)
	left, right := rng.IntN(sivPairs), rng.IntN(n*n-1)
	const ss = 16*n + 16 // S is the letter 16; left never gets so far
	if right >= ss {
		right++
	}
	no := 1 + rng.IntN(999)
	return append(b, sivLetters[left/n], sivLetters[left%n], '-',
		digits[no/100], digits[no/10%10], digits[no%10], '-', sivLetters[right/n], sivLetters[right%n])
}

// country is one country of European traffic. In a form L stands for a letter of
// the country, D for a digit, N for a digit but 0, T for a town, Y for the age of
// a British plate; the rest stands for itself. What the form allows and the
// country does not issue is drawn again: plate.Key.Syntax judges.
type country struct {
	weight  int // per cent of traffic
	code    plate.Country
	letters string
	forms   []string // each as likely; repeated, likelier
	towns   []string
}

var (
	fr = mustCountry("FR")

	countries = []country{
		{weight: 34, code: fr}, // appendSIV
		{18, mustCountry("DE"), letters, []string{"T-L NDDD", "T-LL NDDD", "T-LL NDDD", "T-LL NDD", "T-L NDDDE"}, []string{
			"B", "M", "K", "F", "S", "H", "D", "HH", "KA", "FR", "OG", "SB", "MA", "HD", "TR", "AC", "DU", "EM", "RA", "WÜ", "BAD", "GER", "TUT", "KEL"}},
		{8, mustCountry("IT"), "ABCDEFGHJKLMNPRSTVWXYZ", []string{"GL DDD LL", "FL DDD LL", "FL DDD LL", "EL DDD LL", "CL DDD LL"}, nil},
		{8, mustCountry("ES"), "BCDFGHJKLMNPRSTVWXYZ", []string{"DDDD LLL"}, nil},
		{8, mustCountry("BE"), letters, []string{"1-LLL-DDD", "2-LLL-DDD", "1-LLL-DDD", "LLL-DDD"}, nil},
		{6, mustCountry("NL"), "BDFGHJKLNPRSTVXZ", []string{"DD-LLL-D", "D-LLL-DD", "LL-DDD-L", "L-DDD-LL", "LLL-DD-L"}, nil},
		{6, mustCountry("GB"), "ABCDEFGHJKLMNOPRSTUVWXY", []string{"LLY LLL"}, nil},
		{5, mustCountry("PL"), "ACEFGHJKLMNPRSTUVWXY", []string{"T DDDDD", "T DDDDL", "T DDDLL"}, []string{
			"WI", "WX", "KR", "PO", "GD", "DW", "SK", "LU", "RZ", "BI"}},
		{3, mustCountry("PT"), "ABCDEFGHIJLMNOPQRSTUVXZ", []string{"DD-LL-DD", "DD-DD-LL", "LL-DD-LL"}, nil},
		{2, mustCountry("CH"), "", []string{"T NDDDDD", "T NDDDDD", "T NDDDD", "T NDDD"}, []string{
			"VD", "GE", "ZH", "BE", "BS", "BL", "AG", "FR", "NE", "JU", "VS", "SO", "LU", "TI", "SG"}},
		{2, mustCountry("LU"), "ABCDEFGHJKLMNPQRSTUVWXYZ", []string{"LL DDDD"}, nil},
	}
)

func mustCountry(s string) plate.Country {
	c, ok := plate.ParseCountry(s)
	if !ok {
		panic("workload: no such country: " + s)
	}
	return c
}

func drawCountry(rng *rand.Rand) *country {
	at := rng.IntN(100)
	for i := range countries {
		if at -= countries[i].weight; at < 0 {
			return &countries[i]
		}
	}
	panic("workload: the weights are not 100")
}

// appendEuropean draws a plate as issued, with the separators of its country.
func appendEuropean(b []byte, rng *rand.Rand) ([]byte, plate.Country) {
	c := drawCountry(rng)
	if c.code == fr {
		return appendSIV(b, rng), fr
	}
	for _, f := range []byte(c.forms[rng.IntN(len(c.forms))]) {
		switch f {
		case 'L':
			b = append(b, c.letters[rng.IntN(len(c.letters))])
		case 'D':
			b = append(b, digits[rng.IntN(10)])
		case 'N':
			b = append(b, digits[1+rng.IntN(9)])
		case 'T':
			b = append(b, c.towns[rng.IntN(len(c.towns))]...)
		case 'Y':
			age := 8 + rng.IntN(19) + 50*rng.IntN(2)
			b = append(b, digits[age/10], digits[age%10])
		default:
			b = append(b, f)
		}
	}
	return b, c.code
}

// rewrite writes a plate as one sensor or another does: as issued (four in ten),
// bare (three), with spaces for hyphens and hyphens for spaces (two), or in small
// letters without separators (one).
func rewrite(b []byte, rng *rand.Rand) []byte {
	how := rng.IntN(10)
	if how < 4 {
		return b
	}
	out := b[:0]
	for _, c := range b {
		switch {
		case c != '-' && c != ' ':
			if how == 9 && 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			out = append(out, c)
		case how == 7 || how == 8:
			out = append(out, '-'+' '-c)
		}
	}
	return out
}

// confusions are the pairs that cameras confuse most. This is traffic for timing;
// how well misreads are judged is measured on real ones, in bench/accuracy.
const confusions = "0D 0Q 8B 2Z 6G 0O MW OQ VY NW 5S 68 1T MN 1I 1J EF"

// misread changes one character as cameras do: half of the time it is taken for
// another, most of them look-alikes; otherwise the length changes: the last
// character is lost, or an inner one, or one is added before the first.
func misread(b []byte, rng *rand.Rand) []byte {
	at := rng.IntN(len(b))
	for b[at] == '-' || b[at] == ' ' {
		at = rng.IntN(len(b))
	}
	switch p := rng.IntN(100); {
	case p < 35:
		if c := b[at]; c < 0x80 {
			var like []byte
			for pair := range strings.FieldsSeq(confusions) {
				if i := strings.IndexByte(pair, c); i >= 0 {
					like = append(like, pair[1-i])
				}
			}
			if len(like) > 0 {
				b[at] = like[rng.IntN(len(like))]
			}
		}
	case p < 50:
		b[at] = (letters + digits)[rng.IntN(36)]
	case p < 70:
		b = b[:len(b)-1]
	case p < 85:
		b = append(b[:at], b[at+1:]...)
	default:
		b = append(b, 0)
		copy(b[1:], b)
		b[0] = (letters + digits)[rng.IntN(36)]
	}
	return b
}
