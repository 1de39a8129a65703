package watchlist_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"vigie/watchlist"
)

// options fill everything that some format does not say.
func options() watchlist.ImportOptions {
	return watchlist.ImportOptions{Zone: paris, Defaults: watchlist.Defaults{CaseRef: "2026/9", ValidFor: "30d"}}
}

// TestFormatsGolden reads the files of testdata/formats, recognised by their first
// rows, into what a person may review: entries, errors, and the reject file.
func TestFormatsGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/formats/*.[ct][sx][vt]")
	if err != nil || len(files) < 8 {
		t.Fatalf("files of testdata/formats: %v, %v", files, err)
	}
	formats := map[string]string{
		"french": "csv", "genetec": "genetec", "genetec-header": "genetec", "genetec-pattern": "genetec",
		"ncic": "ncic", "ncic-rough": "ncic", "ncic-csv": "ncic-csv", "ncic-csv-short": "ncic-csv",
		"openalpr": "openalpr", "openalpr-lists": "openalpr",
	}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		t.Run(name, func(t *testing.T) {
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			opt := options()
			switch name {
			case "genetec-header":
				opt.Defaults.Country = "US"
			case "openalpr":
				opt.Defaults.Reason = ""
			case "openalpr-lists":
				opt.Defaults.Reason, opt.Defaults.Country, opt.Defaults.Requester = "wanted", "US", "desk"
			case "french":
				opt.Defaults = watchlist.Defaults{}
			}
			im, err := watchlist.ParseEntries(bytes.NewReader(file), stolen(), now, opt)
			if err != nil {
				t.Fatal(err)
			}
			if got := im.Format.String(); got != formats[name] {
				t.Errorf("recognised as %s, want %s", got, formats[name])
			}
			if im.Rows != len(im.Entries)+im.Rejected {
				t.Errorf("%d rows, %d entries, %d rejected", im.Rows, len(im.Entries), im.Rejected)
			}
			golden(t, "formats/"+name+".json", struct {
				Format   watchlist.Format     `json:"format"`
				Rows     int                  `json:"rows"`
				Rejected int                  `json:"rejected"`
				Errors   []watchlist.RowError `json:"errors"`
				Entries  []*watchlist.Entry   `json:"entries"`
			}{im.Format, im.Rows, im.Rejected, im.Errors, im.Entries})

			opt.Format = im.Format
			slow, err := watchlist.ParseEntries(iotest.OneByteReader(bytes.NewReader(file)), stolen(), now, opt)
			if err != nil || !slices.Equal(slow.Errors, im.Errors) || len(slow.Entries) != len(im.Entries) {
				t.Errorf("byte by byte and with the format told: %v, %v", slow, err)
			}

			var rejected bytes.Buffer
			n, err := watchlist.WriteRejected(&rejected, bytes.NewReader(file), watchlist.FormatAuto, im.Errors)
			if err != nil || n != im.Rejected {
				t.Fatalf("WriteRejected = %d, %v, want %d", n, err, im.Rejected)
			}
			if n == 0 {
				return
			}
			goldenText(t, "formats/"+name+".rejected", rejected.Bytes())
		})
	}
}

func goldenText(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update rewrites it)\n got: %s\nwant: %s", path, got, want)
	}
}

// TestFrenchSpreadsheet is a file with a byte order mark, semicolons and French
// dates, of which one pass names everything that is wrong.
func TestFrenchSpreadsheet(t *testing.T) {
	file, err := os.ReadFile("testdata/formats/french.csv")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(file, []byte("\ufeff")) {
		t.Fatal("the file has no byte order mark")
	}
	im, err := watchlist.ParseEntries(bytes.NewReader(file), stolen(), now, watchlist.ImportOptions{Zone: paris})
	if err != nil {
		t.Fatal(err)
	}
	want := "4 plate, " + // the plate of row 2, written otherwise
		"5 country, " +
		"6 valid_until, " + // yesterday
		"7 reason, " + // a formula
		"8 reason, 8 case_ref, 8 vehicle, 8 valid_until" // missing, missing, a formula, no such day
	if got := rowErrors(im); got != want {
		t.Errorf("errors %q, want %q", got, want)
	}
	if im.Rows != 8 || im.Rejected != 5 || len(im.Entries) != 3 {
		t.Errorf("%d rows, %d rejected, %d entries", im.Rows, im.Rejected, len(im.Entries))
	}
	for _, e := range im.Errors {
		if e.Row == 7 && !strings.Contains(e.Reason, "formula") {
			t.Errorf("row 7: %v", e)
		}
	}
	if last := im.Entries[2]; last.Requester != "+33 1 23" || last.Vehicle != "- sans plaque arrière" {
		t.Errorf("texts that only begin like a formula: %q, %q", last.Requester, last.Vehicle)
	}
}

func TestFormulasAreRefused(t *testing.T) {
	for cell, refused := range map[string]bool{
		"=1+1": true, "@SUM(A1)": true, "+cmd|' /C calc'!A0": true, "-2+3+cmd|' /C calc'!A0": true, "  =1": true, "+SUM(A1)": true, "-1+SUM(A1)": true,
		"'=1+1": false, "'@x": false, "+33 1 23": false, "+33(0)123": false, "- sale(s)!": false, "+(1)": false, "-": false, "+": false, "- sans": false, "a=b": false, "'": false,
	} {
		im := parse(t, "plate;country;reason;case_ref;valid_until\nAB-123-CD;FR;\""+cell+"\";1;2026-06-30\n")
		if got := rowErrors(im) == "2 reason"; got != refused || len(im.Entries) == 1 == refused {
			t.Errorf("%q: errors %v, want refused %t", cell, im.Errors, refused)
		}
	}
}

// TestPatternsOfAHotlist puts a row with * on a list that takes patterns.
func TestPatternsOfAHotlist(t *testing.T) {
	const file = "Wildcard;FR;GK4*2T*;2026-03-01;2026-03-15\n"
	im, err := watchlist.ParseEntries(strings.NewReader(file), partial(), now, options())
	if err != nil || len(im.Entries) != 1 || im.Entries[0].Pattern.Text() != "GK4*2T*" {
		t.Errorf("on a list of patterns: %v, %v", im, err)
	}
	im, err = watchlist.ParseEntries(strings.NewReader(file), stolen(), now, options())
	if err != nil || rowErrors(im) != "1 plate" {
		t.Errorf("on a list of plates: %v, %v", im, err)
	}
}

func TestStates(t *testing.T) {
	tests := []struct {
		format, state, country  string // of the file, and the default
		want, vehicle, rejected string
	}{
		{"genetec", "FR", "", "FR", "", ""},
		{"genetec", "DE", "", "DE", "", ""},
		{"genetec", "DE", "US", "US", "plate DE", ""},
		{"genetec", "DE", "FR", "DE", "", ""},
		{"genetec", "TX", "", "", "", "1 country"},
		{"genetec", "tx", "US", "US", "plate TX", ""},
		{"genetec", "ON", "US", "CA", "plate ON", ""},
		{"genetec", "ON", "CA", "CA", "plate ON", ""},
		{"genetec", "TX", "CA", "US", "plate TX", ""},
		{"genetec", "CA", "US", "US", "plate CA", ""},
		{"genetec", "CA", "", "CA", "", ""},
		{"genetec", "", "US", "US", "", ""},
		{"genetec", "", "", "", "", ""},
		{"genetec", "??", "US", "", "", "1 country"},
		{"openalpr", "us-mo", "", "US", "plate MO", ""},
		{"openalpr", "eu-fr", "", "FR", "", ""},
		{"ncic", "0H", "", "US", "plate OH", ""},
		{"ncic", "NB", "", "US", "plate NB", ""},
		{"ncic", "0N", "", "CA", "plate ON", ""},
		{"ncic", "QR", "", "", "plate QR", ""}, // of no state known here, and of no other country
		{"ncic", "QR", "MX", "MX", "plate QR", ""},
		{"ncic", "1H", "", "", "", "1 country"},
	}
	for _, tt := range tests {
		var file string
		switch tt.format {
		case "genetec":
			file = "Stolen;" + tt.state + ";GGX6728;2026-03-01;2026-06-30\n"
		case "openalpr":
			file = "Plate Number,Category,State/Province\nGGX6728,Stolen," + tt.state + "\n"
		case "ncic":
			file = "V123456789LA057020020260309GGX6728   " + tt.state + "\n"
		}
		opt := options()
		opt.Defaults.Country = tt.country
		im, err := watchlist.ParseEntries(strings.NewReader(file), stolen(), now, opt)
		if err != nil || rowErrors(im) != tt.rejected {
			t.Errorf("%s %q with %q: %v, %v", tt.format, tt.state, tt.country, im, err)
			continue
		}
		if tt.rejected != "" {
			continue
		}
		if e := im.Entries[0]; e.Country.String() != tt.want || e.Vehicle != tt.vehicle {
			t.Errorf("%s %q with %q: %q %q, want %q %q", tt.format, tt.state, tt.country, e.Country, e.Vehicle, tt.want, tt.vehicle)
		}
	}
}

func TestDefaults(t *testing.T) {
	tests := []struct {
		name, file string
		d          watchlist.Defaults
		want       []string // parts of the error
	}{
		{"NCIC has no end", "V123456789LA057020020260309GK482TZ   CA\n", watchlist.Defaults{}, []string{"valid_until: ", "--valid-until or --valid-for"}},
		{"NCIC as cells neither", "C165399977,0H0671200,20200124,GGX6728,0H,2021,2009,D0DG,CHA,4D,GRY\n", watchlist.Defaults{}, []string{"--valid-for"}},
		{"a hotlist has no case", "Stolen;FR;GK482TZ;2026-03-01;2026-03-31\n", watchlist.Defaults{}, []string{"case_ref: ", "--case-ref"}},
		{"a hotlist without ends", "PlateNumber;PlateState\nGK482TZ;FR\n", watchlist.Defaults{}, []string{"--reason", "--case-ref", "--valid-until"}},
		{"OpenALPR without a reason", "Plate Number,State/Province\nGK482TZ,FR\n", watchlist.Defaults{}, []string{"reason: ", "--reason", "case_ref: ", "valid_until: "}},
		{"CSV", "plate\nAB-123-CD\n", watchlist.Defaults{Reason: "vol"}, []string{"missing column case_ref, or give it to all rows with --case-ref; missing column valid_until"}},
		{"not a country", "plate\n", watchlist.Defaults{Country: "France?"}, []string{"country: is not a country"}},
		{"not a date", "plate\n", watchlist.Defaults{ValidUntil: "soon"}, []string{"valid_until: is not a date"}},
		{"the past", "plate\n", watchlist.Defaults{ValidUntil: "13/03/2026"}, []string{"valid_until: is not in the future"}},
		{"too far", "plate\n", watchlist.Defaults{ValidFor: "733d"}, []string{"valid_for: is more than 732 days ahead"}},
		{"not days", "plate\n", watchlist.Defaults{ValidFor: "30"}, []string{"valid_for: must be a number of days such as 30d"}},
		{"hours", "plate\n", watchlist.Defaults{ValidFor: "12h"}, []string{"valid_for: "}},
		{"both", "plate\n", watchlist.Defaults{ValidFor: "1d", ValidUntil: "2026-06-30"}, []string{"valid_for: cannot be given together"}},
		{"a line break", "plate\n", watchlist.Defaults{Reason: "a\nb", CaseRef: strings.Repeat("x", 101), Requester: "\x00"}, []string{"reason: ", "case_ref: ", "requester: "}},
	}
	for _, tt := range tests {
		im, err := watchlist.ParseEntries(strings.NewReader(tt.file), stolen(), now, watchlist.ImportOptions{Defaults: tt.d, Zone: paris})
		if im != nil || err == nil {
			t.Errorf("%s: %v, want an error", tt.name, im)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", tt.name, err, want)
			}
		}
	}

	// They fill a CSV too, and what a row says stands.
	im, err := watchlist.ParseEntries(strings.NewReader("plate;reason\nAB-123-CD;\nEF-456-GH;perdu\n"), stolen(), now, watchlist.ImportOptions{
		Zone: paris, Defaults: watchlist.Defaults{Reason: " vol ", CaseRef: "1", Requester: "BRI", Country: "F", ValidFor: "2d"},
	})
	if err != nil || len(im.Entries) != 2 {
		t.Fatal(im, err)
	}
	e := im.Entries[0]
	if e.Reason != "vol" || e.CaseRef != "1" || e.Requester != "BRI" || e.Country.String() != "FR" || im.Entries[1].Reason != "perdu" {
		t.Errorf("filled: %q %q %q %q, %q", e.Reason, e.CaseRef, e.Requester, e.Country, im.Entries[1].Reason)
	}
	if got := e.ValidUntil.In(paris).Format(time.DateTime); got != "2026-03-17 00:00:00" {
		t.Errorf("2d from the 14th ends %s, want the end of the 16th", got)
	}

	// A row that lacks what its format may say is told which flag would help.
	im, err = watchlist.ParseEntries(strings.NewReader("Q123456789LA057020020260309GK482TZ   CA\n"), stolen(), now, options())
	if err != nil || rowErrors(im) != "1 reason" || !strings.Contains(im.Errors[0].Reason, "--reason") {
		t.Errorf("NCIC file Q: %v, %v", im, err)
	}
}

func TestFormatErrors(t *testing.T) {
	for _, tt := range []struct {
		format watchlist.Format
		file   string
		want   string
	}{
		{watchlist.FormatNCIC, "HEADER\nHEADER\n", "no record of format ncic"},
		{watchlist.FormatNCICCSV, "a,b,c\n", "no record of format ncic-csv"},
		{watchlist.FormatOpenALPR, "a,b\n", "no header"},
		{watchlist.FormatOpenALPR, "Plate Number,Colour\n", `unknown column "Colour"; see the format openalpr`},
		{watchlist.FormatGenetec, "PlateNumber;PlateState;VIN\n", `unknown column "VIN"`},
		{watchlist.FormatNCIC, "", "is empty"},
		{watchlist.FormatAuto, "AB-123-CD\n", "has no header"},
	} {
		_, err := watchlist.ParseEntries(strings.NewReader(tt.file), stolen(), now, watchlist.ImportOptions{
			Format: tt.format, Defaults: watchlist.Defaults{Reason: "vol", CaseRef: "1", ValidFor: "1d"},
		})
		var fe *watchlist.FileError
		if !errors.As(err, &fe) || !strings.Contains(fe.Reason, tt.want) {
			t.Errorf("%s %q: %v, want a FileError with %q", tt.format, tt.file, err, tt.want)
		}
	}
	for _, f := range []string{"auto", "csv", "ncic", "ncic-csv", "genetec", "openalpr"} {
		if got, err := watchlist.ParseFormat(f); err != nil || got.String() != f {
			t.Errorf("ParseFormat(%q) = %v, %v", f, got, err)
		}
	}
	if _, err := watchlist.ParseFormat("excel"); err == nil || !strings.Contains(err.Error(), "openalpr") {
		t.Errorf("ParseFormat of an unknown word: %v", err)
	}
	broken := errors.New("broken")
	r := io.MultiReader(strings.NewReader("Stolen;FR;GK482TZ;2026-03-01;2026-03-31\n"), iotest.ErrReader(broken))
	if _, err := watchlist.ParseEntries(r, stolen(), now, options()); !errors.Is(err, broken) {
		t.Errorf("a reader that breaks: %v", err)
	}
}

// TestRejectFileIsMended imports a reject file again: first as it is, which rejects
// it for the same reason, then with the plate mended and what was added still there.
func TestRejectFileIsMended(t *testing.T) {
	for format, tt := range map[string]struct{ file, bad, good string }{
		"csv":     {head + "AB-123-CD,FR,vol,1,2026-06-30\n0,FR,\"vol, de nuit\",'=1,2026-06-30\n", "0,FR", "EF456GH,FR"},
		"genetec": {"Stolen;FR;AB123CD;2026-03-01;2026-06-30\nStolen;FR;0;2026-03-01;2026-06-30\n", ";0;", ";EF456GH;"},
		"ncic": {"HEADER é\nV123456789LA057020020260309AB123CD   CA2027MC2019YAMACYLMCBLK\nV123456789LA0570200202603090         CA2027MC2019YAMACYLMCBLK\n",
			"0         CA", "EF456GH   CA"},
		"ncic-csv": {"V123456789,0H0671200,20200124,AB123CD,0H,2021,2009,D0DG,CHA,4D,GRY\nV123456789,0H0671200,20200124,0,0H,2021,2009,D0DG,CHA,4D,GRY\n",
			",0,0H", ",EF456GH,0H"},
		"openalpr": {"Plate Number,Description,State/Province\nAB123CD,x,us-tx\n0,\"a \"\"b\"\"\",us-tx\n", "0,", "EF456GH,"},
	} {
		t.Run(format, func(t *testing.T) {
			read := func(file string, rejected int) *watchlist.Import {
				t.Helper()
				im, err := watchlist.ParseEntries(strings.NewReader(file), stolen(), now, options())
				if err != nil {
					t.Fatal(err)
				}
				if im.Format.String() != format || im.Rejected != rejected {
					t.Fatalf("format %s, %d rejected: %v", im.Format, im.Rejected, im.Errors)
				}
				return im
			}
			want := read(mended(tt.file, tt.bad, tt.good), 0).Entries[1]
			file := tt.file
			for range 2 {
				im := read(file, 1)
				var out strings.Builder
				n, err := watchlist.WriteRejected(&out, strings.NewReader(file), im.Format, im.Errors)
				if err != nil || n != 1 {
					t.Fatalf("WriteRejected = %d, %v", n, err)
				}
				file = out.String()
				if n := strings.Count(file, "unread plate"); n != 1 {
					t.Fatalf("the reject file says %d times why:\n%s", n, file)
				}
			}
			im := read(mended(file, tt.bad, tt.good), 0)
			if len(im.Entries) != 1 || !im.Entries[0].Equal(want) {
				t.Errorf("the mended row differs:\n%s", file)
			}
		})
	}
}

// mended replaces the last of bad.
func mended(file, bad, good string) string {
	at := strings.LastIndex(file, bad)
	return file[:at] + good + file[at+len(bad):]
}

func TestWriteRejectedTexts(t *testing.T) {
	long := strings.Repeat("x", watchlist.MaxRowBytes+1)
	file := head +
		"AB-123-CD,FR,vol,1,2026-06-30\n" +
		`EF-456-GH,FR,"vol,1,2026-06-30` + "\n" + // row 3: the quote is not closed
		"?,FR,vol,1,2026-06-30,more\n" + // row 4: too many cells
		long + "\n" +
		"0,FR,\xe9t\xe9,1,2026-06-30\n" // row 6: Windows-1252 from here on
	im := parse(t, file)
	var out bytes.Buffer
	n, err := watchlist.WriteRejected(&out, strings.NewReader(file), watchlist.FormatAuto, im.Errors)
	if err != nil || n != 4 {
		t.Fatalf("WriteRejected = %d, %v", n, err)
	}
	want := "\ufefferror,plate,country,reason,case_ref,valid_until\r\n" +
		`row 3: opens a quote that is not closed,"EF-456-GH,FR,""vol,1,2026-06-30"` + "\r\n" +
		`"row 4: has more cells than the header, which has 5",?,FR,vol,1,2026-06-30,more` + "\r\n" +
		"row 5: is longer than 65536 bytes,\r\n" +
		`"row 6: plate: is a word for an unread plate, not a plate",0,FR,été,1,2026-06-30` + "\r\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}

	broken := errors.New("broken")
	if _, err := watchlist.WriteRejected(failingWriter{broken}, strings.NewReader(file), watchlist.FormatAuto, im.Errors); !errors.Is(err, broken) {
		t.Errorf("a writer that breaks: %v", err)
	}
	if n, err := watchlist.WriteRejected(io.Discard, strings.NewReader(head), watchlist.FormatAuto, im.Errors); err != nil || n != 0 {
		t.Errorf("another file: %d, %v", n, err)
	}
}

// checkImport is what holds of every file: each row is an entry or an error, errors
// are in order and quote nothing, entries survive an export, and a reject file has every
// rejected row and can be read again.
func checkImport(t *testing.T, file []byte, format watchlist.Format) {
	opt := options()
	opt.Format, opt.Defaults.Reason = format, "vol"
	l := partial()
	im, err := watchlist.ParseEntries(bytes.NewReader(file), l, now, opt)
	if err != nil {
		return
	}
	if im.Rows != len(im.Entries)+im.Rejected {
		t.Fatalf("%d rows, %d entries, %d rejected", im.Rows, len(im.Entries), im.Rejected)
	}
	last := 0
	for _, e := range im.Errors {
		if e.Row < last || strings.Contains(e.Error(), "QX") {
			t.Fatalf("error after row %d: %v", last, e)
		}
		last = e.Row
	}
	var export bytes.Buffer
	if err := watchlist.WriteCSV(&export, slices.Values(im.Entries)); err != nil {
		t.Fatal(err)
	}
	again, err := watchlist.ParseCSV(&export, l, now, paris)
	if err != nil || len(again.Errors) > 0 || len(again.Entries) != len(im.Entries) {
		t.Fatalf("export of %d entries: %v, %v", len(im.Entries), again, err)
	}
	held := make(map[string]*watchlist.Entry)
	for _, e := range im.Entries {
		held[e.ID] = e
	}
	if added, changed, same := again.Diff(func(id string) *watchlist.Entry { return held[id] }); same != len(im.Entries) {
		t.Fatalf("export imported again: +%d ~%d =%d", len(added), len(changed), same)
	}
	var reject bytes.Buffer
	n, err := watchlist.WriteRejected(&reject, bytes.NewReader(file), format, im.Errors)
	if err != nil || n != im.Rejected && im.Omitted == 0 {
		t.Fatalf("reject file of %d of %d rows: %v", n, im.Rejected, err)
	}
	if n == 0 {
		return
	}
	opt.Format = im.Format
	mend, err := watchlist.ParseEntries(&reject, l, now, opt)
	if err != nil || mend.Rows > n {
		t.Fatalf("reject file of %d rows: %v, %v", n, mend, err)
	}
}

func fuzzFormat(f *testing.F, format watchlist.Format, patterns ...string) {
	for _, pattern := range patterns {
		files, err := filepath.Glob("testdata/formats/" + pattern)
		if err != nil || len(files) == 0 {
			f.Fatal(files, err)
		}
		for _, path := range files {
			b, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, file []byte) { checkImport(t, file, format) })
}

func FuzzAuto(f *testing.F) {
	fuzzFormat(f, watchlist.FormatAuto, "*.txt", "*.csv", "*.rejected")
}
func FuzzNCIC(f *testing.F) {
	fuzzFormat(f, watchlist.FormatNCIC, "ncic.txt", "ncic-rough.txt", "ncic-rough.rejected")
}
func FuzzNCICCSV(f *testing.F) {
	fuzzFormat(f, watchlist.FormatNCICCSV, "ncic-csv*.csv", "ncic-csv.rejected")
}
func FuzzGenetec(f *testing.F) { fuzzFormat(f, watchlist.FormatGenetec, "genetec*") }
func FuzzOpenALPR(f *testing.F) {
	fuzzFormat(f, watchlist.FormatOpenALPR, "openalpr*")
}

// TestFormatsNeverQuoteTheFile puts a plate into every cell of every format.
func TestFormatsNeverQuoteTheFile(t *testing.T) {
	const secret = "QX777ZK"
	cells := func(n int, sep string) string { return strings.Repeat(secret+sep, n) + "\n" }
	for format, file := range map[string]string{
		"ncic":     "V123456789" + strings.Repeat(secret, 9) + "\n" + secret + "\n",
		"ncic-csv": "V123456789," + cells(10, ",") + cells(3, ",") + "\"" + secret + "\"x\n",
		"genetec":  cells(5, ";") + cells(9, ";") + secret + ";=" + secret + "\n",
		"openalpr": "Plate Number,State,Category\n" + cells(3, ",") + cells(4, ",") + "=" + cells(3, ","),
	} {
		opt := options()
		opt.Format, _ = watchlist.ParseFormat(format)
		im, err := watchlist.ParseEntries(strings.NewReader(file), stolen(), now, opt)
		if err != nil || len(im.Errors) < 2 {
			t.Errorf("%s: %v, %v", format, im, err)
			continue
		}
		for _, e := range im.Errors {
			if strings.Contains(e.Error(), secret) || strings.Contains(e.Reason, "QX") {
				t.Errorf("%s: error quotes the file: %v", format, e)
			}
		}
	}
}
