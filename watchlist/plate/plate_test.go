package plate

import (
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct{ name, raw, want string }{
		{"dashes", "AB-123-CD", "AB123CD"},
		{"bare", "AB123CD", "AB123CD"},
		{"lower case", "ab 123 cd", "AB123CD"},
		{"mixed separators", " AB.123_CD/ ", "AB123CD"},
		{"quotes, colon, bar", `'AB:123|CD"` + "`", "AB123CD"},
		{"control characters", "AB\t123\r\nCD\x00", "AB123CD"},
		{"byte order mark", "\ufeffAB123CD", "AB123CD"},
		{"zero width and bidi", "AB\u200b12\u200d3\u202eCD\u2066", "AB123CD"},
		{"unicode spaces", "AB\u00a0123\u2009CD\u3000", "AB123CD"},
		{"unicode dashes", "AB\u2010123\u2014CD\u2212", "AB123CD"},
		{"middle dots and bullets", "AB·123•CD●", "AB123CD"},
		{"typographic quotes", "“AB’123´CD”", "AB123CD"},
		{"full width", "ＡＢ－１２３－ｃｄ", "AB123CD"},
		{"mathematical digits", "AB𝟏𝟚𝟹CD", "AB123CD"},
		{"umlauts", "MÜ-ÄÖ 123", "MUAO123"},
		{"umlauts, decomposed", "MU\u0308-A\u0308O\u0308 123", "MUAO123"},
		{"umlauts, lower case", "mü-äö 123", "MUAO123"},
		{"stroke letters", "Ł1 Ø2 Đ3 Ħ4", "L1O2D3H4"},
		{"turkish i", "34 ıi İI 12", "34IIII12"},
		{"russian", "А123ВС77", "A123BC77"},
		{"russian, lower case", "а123вс77", "A123BC77"},
		{"russian, all twelve", "АВЕКМНОРСТУХ", "ABEKMHOPCTYX"},
		{"ukrainian", "АІ 1234 ІВ", "AI1234IB"},
		{"macedonian and serbian", "ЅК 123 ЈА", "SK123JA"},
		{"greek", "ΥΖΗ-1234", "YZH1234"},
		{"greek, lower case", "αβε-1234", "ABE1234"},
		{"greek, with accent", "άβέ-1234", "ABE1234"},
		{"cyrillic yo", "Ё123ЕЕ", "E123EE"},
		{"shortest", "A1", "A1"},
		{"longest", "ABCDEFGHIJK9", "ABCDEFGHIJK9"},
		{"letters only", "MARIE", "MARIE"},
		{"zeros as its only digits", "AB-000-CD", "AB000CD"},
		{"zeros beside another digit", "0001", "0001"},
		{"container", "CSQU 305438-3", "CSQU3054383"},
		{"the gap is lost", "UEM-A 123", "UEMA123"},
		{"a sentinel and more", "UNKNOWN1", "UNKNOWN1"},
		{"a sentinel cut off", "UNKNOW", "UNKNOW"},
		{"not available, without its slash", "NA", "NA"},
		{"not a number", "NAN", "NAN"},
		{"three X", "XXX", "XXX"},
		{"X and a digit", "XXXX1", "XXXX1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := Parse(tt.raw)
			if err != nil || k.String() != tt.want {
				t.Fatalf("Parse(%q) = %s, %v; want %s", tt.raw, k.String(), err, tt.want)
			}
			if b, err := ParseBytes([]byte(tt.raw)); b != k || err != nil {
				t.Errorf("ParseBytes(%q) = %s, %v; want %s", tt.raw, b.String(), err, tt.want)
			}
			if again, err := Parse(k.String()); again != k || err != nil {
				t.Errorf("Parse of its own String = %s, %v; want %s", again.String(), err, tt.want)
			}
		})
	}
}

func TestParsePacking(t *testing.T) {
	// Stored data depend on these numbers: a change needs a new Packing.
	for _, tt := range []struct {
		raw  string
		want Key
	}{
		{"01", 1*37 + 2},
		{"Z9", 36*37 + 10},
		{"A10", 11*37*37 + 2*37 + 1},
		{"AB-123-CD", 29059024235},
		{"ZZZZZZZZZZZZ", 6582952005840035280},
	} {
		if k, err := Parse(tt.raw); k != tt.want || err != nil {
			t.Errorf("Parse(%q) = %d, %v; want %d", tt.raw, uint64(k), err, uint64(tt.want))
		}
	}
}

func TestParseSentinels(t *testing.T) {
	for _, raw := range []string{
		"", " ", "---", "\t\r\n", "\u200b\ufeff", "''", "...",
		"0", "00", "000", "0-0", "0000000", "00000000000000000000", "０００",
		"unknown", "UNKNOWN", "Un-known", "NO PLATE", "NoPlate", "no_plate", "NOPLATE",
		"Unlicensed", "NO READ", "no-read", "unreadable", "None", "null", "NULL", "ＮＵＬＬ",
		"NOTREAD", "NOT_READ", "NOT_DETECTED", "not detected", "Unrecognized", "N/A", " n/a\n", "xxxx", "XXXXXX", "XXX-XXXX", "XXXXXXXXXXXX",
		"?", "????", "?? ??", "***", "？？？", "无车牌", "无牌车", " 无牌 ", "车牌", "未识别",
	} {
		if k, err := Parse(raw); k != 0 || !errors.Is(err, ErrSentinel) {
			t.Errorf("Parse(%q) = %d, %v; want ErrSentinel", raw, uint64(k), err)
		}
		if k, err := ParseBytes([]byte(raw)); k != 0 || !errors.Is(err, ErrSentinel) {
			t.Errorf("ParseBytes(%q) = %d, %v; want ErrSentinel", raw, uint64(k), err)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct {
		name, raw string
		want      Error
		message   string
	}{
		{"one character", "A", Error{Reason: TooShort, Count: 1}, "plate: 1 character, at least 2"},
		{"one digit and separators", "- 7 -", Error{Reason: TooShort, Count: 1}, "plate: 1 character, at least 2"},
		{"thirteen characters", "ABCDEFGHIJKLM", Error{Reason: TooLong, Count: 13}, "plate: 13 characters, at most 12"},
		{"seventeen characters", "AB123CD-AB123CD-123", Error{Reason: TooLong, Count: 17}, "plate: 17 characters, at most 12"},
		{"a key that wraps round", strings.Repeat("9", 100), Error{Reason: TooLong, Count: 100}, "plate: 100 characters, at most 12"},
		{"question mark", "AB?23CD", Error{Reason: BadCharacter, Pos: 3}, "plate: character 3 is not a letter or digit"},
		{"question marks behind a letter", "A???", Error{Reason: BadCharacter, Pos: 2}, "plate: character 2 is not a letter or digit"},
		{"no plate and a plate", "无车牌A1", Error{Reason: BadCharacter, Pos: 1}, "plate: character 1 is not a letter or digit"},
		{"star", "*AB123CD", Error{Reason: BadCharacter, Pos: 1}, "plate: character 1 is not a letter or digit"},
		{"comma", "AB12,CD34", Error{Reason: BadCharacter, Pos: 5}, "plate: character 5 is not a letter or digit"},
		{"characters are counted, not bytes", "ÄÖ·1#", Error{Reason: BadCharacter, Pos: 5}, "plate: character 5 is not a letter or digit"},
		{"sharp s", "Fuß 12", Error{Reason: BadCharacter, Pos: 3}, "plate: character 3 is not a letter or digit"},
		{"ae", "Æ12", Error{Reason: BadCharacter, Pos: 1}, "plate: character 1 is not a letter or digit"},
		{"cyrillic without a double", "А1Ж", Error{Reason: BadCharacter, Pos: 3}, "plate: character 3 is not a letter or digit"},
		{"chinese", "京A·12345", Error{Reason: BadCharacter, Pos: 1}, "plate: character 1 is not a letter or digit"},
		{"arabic digits", "AB٣", Error{Reason: BadCharacter, Pos: 3}, "plate: character 3 is not a letter or digit"},
		{"emblem", "W🦅12345A", Error{Reason: BadCharacter, Pos: 2}, "plate: character 2 is not a letter or digit"},
		{"variation selector", "A1\ufe0f", Error{Reason: BadCharacter, Pos: 3}, "plate: character 3 is not a letter or digit"},
		{"mark on a digit", "A1\u0308", Error{Reason: BadCharacter, Pos: 3}, "plate: character 3 is not a letter or digit"},
		{"mark on nothing", "\u0308A1", Error{Reason: BadCharacter, Pos: 1}, "plate: character 1 is not a letter or digit"},
		{"mark on a separator", "A-\u0308B", Error{Reason: BadCharacter, Pos: 3}, "plate: character 3 is not a letter or digit"},
		{"replacement character", "AB\ufffd12", Error{Reason: BadCharacter, Pos: 3}, "plate: character 3 is not a letter or digit"},
		{"latin-1", "M\xdc123", Error{Reason: BadUTF8, Pos: 2}, "plate: character 2 is not UTF-8"},
		{"cut off", "AB12\xc3", Error{Reason: BadUTF8, Pos: 5}, "plate: character 5 is not UTF-8"},
		{"surrogate", "A\xed\xa0\x80", Error{Reason: BadUTF8, Pos: 2}, "plate: character 2 is not UTF-8"},
		{"long", "AB123CD" + strings.Repeat(" ", 250), Error{Reason: RawTooLong, Count: 257}, "plate: 257 bytes, at most 256"},
		{"a megabyte", strings.Repeat("\u0308", 1<<19), Error{Reason: RawTooLong, Count: 1 << 20}, "plate: 1048576 bytes, at most 256"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse(tt.raw)
			got, ok := errors.AsType[*Error](err)
			if !ok || *got != tt.want {
				t.Fatalf("Parse(%.40q) = %#v; want %#v", tt.raw, err, tt.want)
			}
			if err.Error() != tt.message {
				t.Errorf("message %q; want %q", err, tt.message)
			}
			if _, err := ParseBytes([]byte(tt.raw)); err == nil || err.Error() != tt.message {
				t.Errorf("ParseBytes: %v; want %q", err, tt.message)
			}
		})
	}
	if k, err := Parse("AB123CD" + strings.Repeat(" ", MaxRaw-7)); err != nil || k.String() != "AB123CD" {
		t.Errorf("a text of MaxRaw bytes: %v", err)
	}
}

func TestReasonString(t *testing.T) {
	want := map[Reason]string{0: "unknown", BadCharacter: "bad_character", BadUTF8: "bad_utf8",
		TooShort: "too_short", TooLong: "too_long", RawTooLong: "raw_too_long", 99: "unknown"}
	for r, s := range want {
		if r.String() != s {
			t.Errorf("Reason(%d) = %q; want %q", r, r, s)
		}
	}
	if got := (&Error{}).Error(); got != "plate: not a plate" {
		t.Errorf("zero Error: %q", got)
	}
}

// parsed is the outcome of Parse in the words of the model.
func parsed(raw string) outcome {
	k, err := Parse(raw)
	if err == nil {
		return outcome{plate: k.String()}
	}
	if errors.Is(err, ErrSentinel) {
		return outcome{fault: "sentinel"}
	}
	e, _ := errors.AsType[*Error](err)
	if e.Reason == BadCharacter || e.Reason == BadUTF8 {
		return outcome{fault: "bad"}
	}
	return outcome{fault: e.Reason.String()}
}

// Every rune of the planes that hold letters, digits, separators and marks, in each place
// where it may matter.
func TestParseEveryRune(t *testing.T) {
	check := func(r rune) {
		for _, raw := range []string{string(r) + "12", "A" + string(r) + "1", "1" + string(r) + "A", string(r) + "\u0308B1"} {
			if got, want := parsed(raw), model(raw); got != want {
				t.Errorf("U+%04X: Parse(%q) = %v; want %v", r, raw, got, want)
			}
		}
	}
	for r := rune(0); r < 0x20000; r++ {
		check(r)
	}
	for r := rune(0xe0000); r < 0xe1000; r++ {
		check(r)
	}
}

// nasty are pieces of text that normalisation and Unicode make difficult.
var nasty = []string{
	"Ä", "A\u0308", "\u0308", "\u0345", "ᾳ", "ﬁ", "ｆ", "１", "Ⅳ", "½", "㎏", "№", "Å", "K", "ſ", "ı", "İ", "ß", "ẞ", "Æ",
	"А", "в", "Ё", "й", "Ж", "ӏ", "α", "ν", "ς", "µ", "ΐ", "Ϳ", "Ø", "ł", "đ", "ð",
	" ", "-", ".", "_", "/", ":", "|", "'", "`", "\"", "´", "¨", "·", "•", "…", "″", "‐", "—", "−", "\u00a0", "\u3000",
	"\u200b", "\u200d", "\u202e", "\ufeff", "\u034f", "\ufe0f", "\u20e3", "\u00ad", "\x00", "\x7f", "\u0085",
	",", ";", "?", "*", "#", "+", "\\", "京", "٣", "🇫🇷", "\xff", "\xc3", "\xed\xa0\x80", "한", "\u1100\u1161",
	"unknown", "NOPLATE", "none", "0", "00", "n/a", "XXXX", "??", "？", "车牌",
}

// randomText draws a text of letters, digits, separators and, now and then, worse.
func randomText(r *rand.Rand) string {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcxyz00123456789- ."
	worse := r.IntN(4)
	var b strings.Builder
	for range r.IntN(16) {
		if r.IntN(8) < worse {
			b.WriteString(nasty[r.IntN(len(nasty))])
		} else {
			b.WriteByte(plain[r.IntN(len(plain))])
		}
	}
	return b.String()
}

func TestParseAgainstModel(t *testing.T) {
	const seed = 20260314
	r := rand.New(rand.NewPCG(seed, 1))
	plates := 0
	for range 200_000 {
		raw := randomText(r)
		got, want := parsed(raw), model(raw)
		if got != want {
			t.Fatalf("seed %d: Parse(%q) = %v; want %v", seed, raw, got, want)
		}
		if got.plate != "" {
			plates++
		}
	}
	if plates < 50_000 {
		t.Errorf("only %d of the random texts are plates: the test tests little", plates)
	}
}

// message is all that an error of Parse may say.
var message = regexp.MustCompile(`^plate: (character \d+ is not (a letter or digit|UTF-8)|1 character, at least 2|\d+ (characters|bytes), at most (12|256)|no plate)$`)

func TestErrorsQuoteNothing(t *testing.T) {
	const seed = 20260315
	r := rand.New(rand.NewPCG(seed, 1))
	for range 20_000 {
		raw := "QX731ZK" + randomText(r) + "QX731ZK"
		_, err := Parse(raw)
		if err == nil {
			continue
		}
		if !message.MatchString(err.Error()) || strings.Contains(err.Error(), "QX731ZK") {
			t.Fatalf("seed %d: Parse(%q): %q", seed, raw, err)
		}
	}
}

func TestParseAllocations(t *testing.T) {
	texts := []string{"AB-123-CD", "AB123CD", "ab 123 cd", "AB-000-CD", "unknown", "ＡＢ－１２３", "А123ВС77", "MÜ-ÄÖ 123", ""}
	for _, raw := range texts {
		if n := testing.AllocsPerRun(100, func() { _, _ = Parse(raw) }); n != 0 {
			t.Errorf("Parse(%q) allocates %v times; want 0", raw, n)
		}
	}
	raw := []byte("AB-123-CD")
	if n := testing.AllocsPerRun(100, func() { _, _ = ParseBytes(raw) }); n != 0 {
		t.Errorf("ParseBytes allocates %v times; want 0", n)
	}
	huge := strings.Repeat("Ä-", 1<<19)
	if n := testing.AllocsPerRun(100, func() { _, _ = Parse(huge) }); n > 1 {
		t.Errorf("Parse of a megabyte allocates %v times; want its error only", n)
	}
	hugeBytes := []byte(huge)
	if n := testing.AllocsPerRun(100, func() { _, _ = ParseBytes(hugeBytes) }); n > 1 {
		t.Errorf("ParseBytes of a megabyte allocates %v times; want its error only", n)
	}
}
