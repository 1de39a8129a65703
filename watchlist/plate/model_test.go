package plate

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// outcome is what Parse makes of a text: a plate, or a word for why there is none.
type outcome struct{ plate, fault string }

// modelSeparators is the list in the comment of Parse, beyond ASCII, without the categories.
const modelSeparators = "·•‧∙⋅●・⁄∕∶¦´ʹʼ‘’‚‛“”„‟‹›«»′‵⁃−"

// modelLetters pairs letters beyond ASCII with the Latin letters they look like.
var modelLetters = func() map[rune]rune {
	m := make(map[rune]rune)
	for _, p := range [][2]string{
		{"АВЕКМНОРСТУХІЈЅԚԜҮӀѴ", "ABEKMHOPCTYXIJSQWYIV"}, // Cyrillic
		{"ΑΒΕΖΗΙΚΜΝΟΡΤΥΧͿ", "ABEZHIKMNOPTYXJ"},           // Greek
		{"ØĐÐŁĦŦ", "ODDLHT"},
	} {
		latin := []rune(p[1])
		for i, r := range []rune(p[0]) {
			m[r] = latin[i]
		}
	}
	return m
}()

// model is Parse written the slow and obvious way: normalise the whole text, then look at
// one rune after the other. Characters and bytes that do not belong are one fault to it.
func model(raw string) outcome {
	if len(raw) > 256 {
		return outcome{fault: "raw_too_long"}
	}
	if !utf8.ValidString(raw) {
		return outcome{fault: "bad"}
	}
	s := strings.ReplaceAll(raw, "´", "-") // NFKC would make a space and an accent of it
	s = norm.NFD.String(norm.NFKC.String(s))

	var plate []rune
	afterLetter := false
	for _, r := range s {
		if r >= 0x300 && r <= 0x36f {
			if !afterLetter {
				return outcome{fault: "bad"}
			}
			continue
		}
		afterLetter = false
		if strings.ContainsRune("-._/:|'\"` ", r) || strings.ContainsRune(modelSeparators, r) ||
			unicode.In(r, unicode.Zs, unicode.Zl, unicode.Zp, unicode.Pd, unicode.Cc, unicode.Cf) {
			continue
		}
		r = unicode.ToUpper(r)
		if latin, ok := modelLetters[r]; ok {
			r = latin
		}
		switch {
		case r >= 'A' && r <= 'Z':
			afterLetter = true
		case r >= '0' && r <= '9':
		default:
			return outcome{fault: "bad"}
		}
		plate = append(plate, r)
	}

	text := string(plate)
	switch text {
	case strings.Repeat("0", len(text)), // and the empty text
		"UNKNOWN", "NOPLATE", "UNLICENSED", "NOREAD", "UNREADABLE", "NONE", "NULL":
		return outcome{fault: "sentinel"}
	}
	switch n := len(text); {
	case n < 2:
		return outcome{fault: "too_short"}
	case n > 12:
		return outcome{fault: "too_long"}
	}
	return outcome{plate: text}
}

// modelFold is Fold on text.
func modelFold(plate string) string {
	return strings.NewReplacer("O", "0", "D", "0", "Q", "0", "I", "1", "B", "8", "S", "5", "Z", "2", "G", "6").Replace(plate)
}

// modelRepairs is Repairs for France on text, without the exception for plates that are
// valid as they stand: all ways of spelling the plate, of which it keeps SIV numbers.
func modelRepairs(plate string) map[string]bool {
	if len(plate) != 7 {
		return nil
	}
	digitOf := map[byte]string{'O': "0", 'D': "0", 'Q': "0", 'I': "1", 'L': "1", 'Z': "2", 'S': "5", 'B': "8", 'G': "6"}
	letterOf := map[byte]string{'8': "B", '5': "S", '2': "Z", '6': "G", '0': "DQ", '1': "LT"}
	ways := []string{""}
	for i := range len(plate) {
		digit := plate[i] <= '9'
		options := string(plate[i])
		switch wantDigit := i >= 2 && i <= 4; {
		case wantDigit && !digit:
			options = digitOf[plate[i]]
		case !wantDigit && digit:
			options = letterOf[plate[i]]
		}
		var longer []string
		for _, w := range ways {
			for _, o := range options {
				longer = append(longer, w+string(o))
			}
		}
		ways = longer
	}
	found := make(map[string]bool)
	for _, w := range ways {
		left, number, right := w[:2], w[2:5], w[5:]
		if w != plate && left != "SS" && right != "SS" && number != "000" && !strings.ContainsAny(left+right, "IOU") {
			found[w] = true
		}
	}
	return found
}
