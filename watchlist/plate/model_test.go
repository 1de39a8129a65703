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
	switch strings.TrimSpace(raw) {
	case "N/A", "N/a", "n/A", "n/a", "无车牌", "无牌车", "无牌", "车牌", "未识别":
		return outcome{fault: "sentinel"}
	}
	s := strings.ReplaceAll(raw, "´", "-") // NFKC would make a space and an accent of it
	s = norm.NFD.String(norm.NFKC.String(s))

	var plate []rune
	unread := 0
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
		case r == '?' || r == '*':
			unread++
			continue
		default:
			return outcome{fault: "bad"}
		}
		plate = append(plate, r)
	}

	text := string(plate)
	switch {
	case unread > 0 && text != "":
		return outcome{fault: "bad"}
	case unread > 0, len(text) >= 4 && len(text) <= 12 && strings.Trim(text, "X") == "":
		return outcome{fault: "sentinel"}
	}
	switch text {
	case strings.Repeat("0", len(text)), // and the empty text
		"UNKNOWN", "NOPLATE", "UNLICENSED", "NOREAD", "NOTREAD", "NOTDETECTED", "UNRECOGNIZED", "UNREADABLE", "NONE", "NULL":
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
