package watchlist_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/text/encoding/charmap"

	"vigie/watchlist"
)

// parse imports a text that is no fatal error.
func parse(t *testing.T, file string) *watchlist.Import {
	t.Helper()
	im, err := watchlist.ParseCSV(strings.NewReader(file), stolen(), now, paris)
	if err != nil {
		t.Fatalf("ParseCSV(%.80q): %v", file, err)
	}
	if im.Rows != len(im.Entries)+im.Rejected {
		t.Errorf("%d rows, %d entries, %d rejected", im.Rows, len(im.Entries), im.Rejected)
	}
	return im
}

// rowErrors renders errors as "row column" pairs.
func rowErrors(im *watchlist.Import) string {
	var s []string
	for _, e := range im.Errors {
		s = append(s, strings.TrimSpace(fmt.Sprintf("%d %s", e.Row, e.Column)))
	}
	return strings.Join(s, ", ")
}

// TestImportSpreadsheet is the file that a French operator saves.
func TestImportSpreadsheet(t *testing.T) {
	const file = "Immatriculation;Pays;Motif;Conduite à tenir;Priorité;N° dossier;Demandeur;Début;Échéance;Véhicule;Sécurité\r\n" +
		"AB-123-CD;F;\"vol; à main armée\";interpeller;haute;2026/1;BRI;01/03/2026;30/06/2026;Citroën C3;armé\r\n" +
		"ef 456 gh;;Contrôle;DISCRÈTE?;;2026/2;;;30/06/2026 12:00;;\r\n" +
		"EF-456-GH;B;Contrôle;Discret;Élevée;2026/2;;;2026-06-30;;\r\n" +
		";;;;;;;;;;\r\n"
	cp1252, err := charmap.Windows1252.NewEncoder().String(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{
		"UTF-8":                        file,
		"UTF-8 with a byte order mark": "\ufeff" + file,
		"Windows-1252":                 cp1252,
		"old Macintosh line breaks":    strings.ReplaceAll(file, "\r\n", "\r"),
		"Unix line breaks":             strings.ReplaceAll(file, "\r\n", "\n"),
		"no last line break":           strings.TrimRight(file, ";\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			im := parse(t, file)
			if got, want := rowErrors(im), "3 action"; got != want {
				t.Errorf("errors %q, want %q", got, want)
			}
			if len(im.Entries) != 2 || im.Rows != 3 {
				t.Fatalf("%d entries of %d rows, want 2 of 3", len(im.Entries), im.Rows)
			}
			e := im.Entries[0]
			if e.Key.String() != "AB123CD" || e.Country.String() != "FR" || e.Reason != "vol; à main armée" ||
				e.Action != watchlist.ActionIntercept || e.Priority != watchlist.PriorityHigh || e.CaseRef != "2026/1" ||
				e.Requester != "BRI" || e.Vehicle != "Citroën C3" || e.Safety != "armé" {
				t.Errorf("first entry: %+v", *e)
			}
			if from, until := e.ValidFrom.In(paris).Format(time.DateTime), e.ValidUntil.In(paris).Format(time.DateTime); from != "2026-03-01 00:00:00" || until != "2026-07-01 00:00:00" {
				t.Errorf("valid from %s until %s, want the start of 1 March and the end of 30 June", from, until)
			}
			if e := im.Entries[1]; e.Action != watchlist.ActionDiscreet || e.Priority != watchlist.PriorityHigh || e.ValidFrom != now {
				t.Errorf("second entry: %v %v %v", e.Action, e.Priority, e.ValidFrom)
			}
		})
	}
}

const head = "plate,country,reason,case_ref,valid_until\n"

func TestImportRows(t *testing.T) {
	const good = "AB-123-CD,FR,vol,1,2026-06-30\n"
	long := strings.Repeat("x", watchlist.MaxRowBytes+1)
	tests := []struct {
		name    string
		rows    string // below head
		entries int
		errors  string
	}{
		{"good", good, 1, ""},
		{"none", "", 0, ""},
		{"empty rows are counted by number only", "\n,,,,\n \t,\n" + good + "?,,,,\n", 1, "6 plate, 6 reason, 6 case_ref, 6 valid_until"},
		{"short row", "AB-123-CD,FR,vol\n", 0, "2 case_ref, 2 valid_until"},
		{"empty cells too many", "AB-123-CD,FR,vol,1,2026-06-30,,,\n", 1, ""},
		{"cells too many", "AB-123-CD,FR,vol,1,2026-06-30,x\n" + good, 1, "2"},
		{"quoted", `"AB-123-CD","FR","vol, ""aggravé""","1","2026-06-30"` + "\n", 1, ""},
		{"quote inside a cell", `AB-123-CD,FR,TV 32",1,2026-06-30` + "\n", 1, ""},
		{"line break in a cell", "AB-123-CD,FR,\"vol\r\nde nuit\",1,2026-06-30\n" + "?,FR,vol,1,2026-06-30\n", 1, "3 plate"},
		{"text after a quote", `AB-123-CD,FR,"vol" de nuit,1,2026-06-30` + "\n" + good, 1, "2"},
		{"text after a quote ends the file", `AB-123-CD,FR,"vol" de nuit,1,2026-06-30`, 0, "2"},
		{"quote not closed, short file", `AB-123-CD,FR,"vol,1,2026-06-30` + "\n" + good, 1, "2"},
		{"quote not closed, last row", good + `AB-123-CD,FR,"vol,1,2026-06-30`, 1, "3"},
		{"quote not closed, long file", `AB-123-CD,FR,"vol,1,2026-06-30` + "\n" + good + strings.Repeat("\n", watchlist.MaxRowBytes) + "?,FR,vol,1,2026-06-30\n",
			1, fmt.Sprintf("2, %d plate", watchlist.MaxRowBytes+4)},
		{"row too long", long + "\n" + good, 1, "2"},
		{"row too long, in many pieces", strings.Repeat(long, 5) + "\r\n" + good, 1, "2"},
		{"row too long ends the file", good + long + long, 1, "3"},
		{"longest row", "AB-123-CD,FR,vol,1,2026-06-30" + strings.Repeat(",", watchlist.MaxRowBytes-30) + "\n" + good, 1, "3 plate"},
		{"duplicate", good + "EF-456-GH,FR,vol,1,2026-06-30\n" + "ab123cd,F,vol,2,2026-06-30\n" + good, 2, "4 plate, 5 plate"},
		{"same plate, other country", good + "AB-123-CD,IT,vol,1,2026-06-30\n" + "AB-123-CD,,vol,1,2026-06-30\n", 3, ""},
		{"duplicate of a bad row", "AB-123-CD,FR,,1,2026-06-30\n" + good, 0, "2 reason, 3 plate"},
		{"bad country is no duplicate", "AB-123-CD,??,vol,1,2026-06-30\n" + "AB-123-CD,,vol,1,2026-06-30\n", 1, "2 country"},
		{"bad date, once", "AB-123-CD,FR,vol,1,30.06.2026\n", 0, "2 valid_until"},
		{"past date", "AB-123-CD,FR,vol,1,13/03/2026\n", 0, "2 valid_until"},
		{"today", "AB-123-CD,FR,vol,1,14/03/2026\n", 1, ""},
		{"control character", "AB-123-CD,FR,v\x01l,1,2026-06-30\n", 0, "2 reason"},
		{"Windows-1252 from here on", good + "EF-456-GH,FR,\xe9t\xe9,1,2026-06-30\n" + "IJ-456-GH,FR,\xe9t\xe9,1,2026-06-30\n", 3, ""},
		{"a byte without meaning in Windows-1252", "AB-123-CD,FR,\xe9\x81,1,2026-06-30\n", 0, "2 reason"},
		{"UTF-8, then not", "AB-123-CD,FR,été,1,2026-06-30\n" + "EF-456-GH,FR,\xe9t\xe9,1,2026-06-30\n", 1, "3"},
		{"formula", "AB-123-CD,FR,'=vol,1,2026-06-30\n", 1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			im := parse(t, head+tt.rows)
			if got := rowErrors(im); got != tt.errors || len(im.Entries) != tt.entries {
				t.Errorf("%d entries, errors %q (%v), want %d, %q", len(im.Entries), got, im.Errors, tt.entries, tt.errors)
			}
			// However the file arrives, it says the same.
			if len(tt.rows) < 1000 {
				slow, err := watchlist.ParseCSV(iotest.OneByteReader(strings.NewReader(head+tt.rows)), stolen(), now, paris)
				if err != nil || rowErrors(slow) != tt.errors {
					t.Errorf("byte by byte: %v, %v", slow.Errors, err)
				}
			}
		})
	}
}

func TestImportTexts(t *testing.T) {
	im := parse(t, head+"AB-123-CD,FR,\"a\r\nb \"\"c\"\"\",'=1,2026-06-30\n"+"EF-456-GH,FR,\u201cx\u201d,''@,2026-06-30\n"+"IJ-456-GH,FR,'x,'=1,2026-06-30\n")
	var got []string
	for _, e := range im.Entries {
		got = append(got, e.Reason, e.CaseRef)
	}
	if want := []string{`a b "c"`, "=1", "\u201cx\u201d", "'@", "'x", "=1"}; !slices.Equal(got, want) {
		t.Errorf("texts %q, want %q (errors %v)", got, want, im.Errors)
	}
}

func TestImportRefusesFile(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string // parts of the error
		not        string   // what it must not contain
	}{
		{"empty", "", []string{"is empty"}, ""},
		{"blank", "\ufeff\r\n \r\n", []string{"header"}, ""},
		{"no header", "AB-123-CD;FR;vol;1;2026-06-30\n", []string{"no header"}, "AB"},
		{"no header, but a word", "AB-123-CD;FR;fin;1;2026-06-30\n", []string{"unknown column 1", "missing column plate"}, "AB"},
		{"unknown column", "plate,reason,case_ref,valid_until,couleur,\n", []string{`unknown column "couleur"`, "vehicle"}, "missing"},
		{"unknown column that may be a plate", "plate,reason,case_ref,valid_until,AB-123-CD\n", []string{"unknown column 5"}, "AB"},
		{"unknown column of control characters", "plate,reason,case_ref,valid_until,\x1b[2J\n", []string{"unknown column 5"}, "\x1b"},
		{"missing columns", "immatriculation;pays\n", []string{"missing column reason", "missing column case_ref", "missing column valid_until"}, "missing column plate"},
		{"doubled column", "plate,immatriculation,reason,case_ref,valid_until\n", []string{"columns 1 and 2 both hold plate"}, ""},
		{"UTF-16", "\xff\xfep\x00l\x00", []string{"UTF-16"}, ""},
		{"workbook", "PK\x03\x04\x14\x00", []string{"workbook"}, ""},
		{"old workbook", "\xd0\xcf\x11\xe0\xa1\xb1", []string{"workbook"}, ""},
		{"endless first row", strings.Repeat("plate", 20000), []string{"row of more than"}, ""},
		{"first row broken", `"plate,reason` + "\n", []string{"no header"}, ""},
	}
	for _, tt := range tests {
		im, err := watchlist.ParseCSV(strings.NewReader(tt.file), stolen(), now, paris)
		var fe *watchlist.FileError
		if im != nil || !errors.As(err, &fe) {
			t.Errorf("%s: ParseCSV = %v, %v, want a FileError", tt.name, im, err)
			continue
		}
		for _, want := range append(tt.want, "plate, country, reason, action, priority, case_ref") {
			if !strings.Contains(fe.Error(), want) {
				t.Errorf("%s: %q does not say %q", tt.name, fe, want)
			}
		}
		if tt.not != "" && strings.Contains(fe.Error(), tt.not) {
			t.Errorf("%s: %q says %q", tt.name, fe, tt.not)
		}
	}
}

func TestImportHeaders(t *testing.T) {
	for header, row := range map[string]string{
		"plate,reason,case_ref,valid_until":                                 `AB-123-CD,"vol, de nuit",1,2026-06-30`,
		"PLATE;Reason;CASE REF;valid-until":                                 "AB-123-CD;vol, de nuit;1;2026-06-30",
		"License Plate\tReason\tCase-Reference\tExpiry":                     "AB-123-CD\tvol, de nuit\t1\t2026-06-30",
		"Plaque;Motif;Dossier;Fin":                                          "AB-123-CD;vol, de nuit;1;2026-06-30",
		" IMMATRICULATION ; Motif ; Référence dossier ; Date d’échéance":    "AB-123-CD;vol, de nuit;1;2026-06-30",
		`"Plaque d'immatriculation";"Motif";"N° dossier";"Valide jusqu'au"`: "AB-123-CD;vol, de nuit;1;2026-06-30",
		"Valid until,plate,,reason,case":                                    `2026-06-30,AB-123-CD,,"vol, de nuit",1`,
	} {
		im, err := watchlist.ParseCSV(strings.NewReader(header+"\n"+row+"\n"), stolen(), now, paris)
		if err != nil || len(im.Errors) != 0 || len(im.Entries) != 1 || im.Entries[0].Reason != "vol, de nuit" {
			t.Errorf("header %q: %v, %v", header, im, err)
		}
	}
	im := parse(t, "plate,reason,case_ref,valid_until,\nAB-123-CD,vol,1,2026-06-30,x\n")
	if got, want := rowErrors(im), "2"; got != want {
		t.Errorf("value under no name: errors %q, want %q", got, want)
	}
}

func TestImportReadError(t *testing.T) {
	broken := errors.New("broken")
	for _, before := range []string{"", head, head + strings.Repeat("AB-123-CD,FR,vol,1,2026-06-30\n", 4000)} {
		im, err := watchlist.ParseCSV(io.MultiReader(strings.NewReader(before), iotest.ErrReader(broken)), stolen(), now, paris)
		if im != nil || !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v, %v, want the error of the reader", len(before), im, err)
		}
	}
}

func TestImportCountsErrorsBeyondTheLimit(t *testing.T) {
	n := watchlist.MaxRowErrors/4 + 10
	im := parse(t, head+strings.Repeat("?\n", n))
	if len(im.Errors) != watchlist.MaxRowErrors || im.Omitted != 40 || im.Rejected != n {
		t.Errorf("%d errors, %d omitted, %d rejected", len(im.Errors), im.Omitted, im.Rejected)
	}
}

// TestImportNeverQuotesTheFile shifts plates into every column.
func TestImportNeverQuotesTheFile(t *testing.T) {
	const header = "plate,country,reason,action,priority,case_ref,requester,valid_from,valid_until,vehicle,safety\n"
	const secret = "QX-777-ZK"
	var rows strings.Builder
	for _, s := range []string{secret, "\u202e" + secret, secret + "?", `"` + secret + `"x`, strings.Repeat(secret, 100)} {
		rows.WriteString(strings.Repeat(s+",", 11) + "\n")
		rows.WriteString(s + "\n")
		rows.WriteString(strings.Repeat(s+",", 20) + "\n")
	}
	im := parse(t, header+rows.String())
	if len(im.Entries) != 0 {
		t.Errorf("%d entries", len(im.Entries))
	}
	for _, e := range im.Errors {
		if s := fmt.Sprintf("%v %+v", e, e); strings.Contains(s, "QX") || strings.Contains(s, "777") {
			t.Errorf("error quotes the file: %s", s)
		}
	}
}

func TestRowErrorsGolden(t *testing.T) {
	im := parse(t, head+
		"AB-123-CD,FR,vol,1,2026-06-30\n"+
		"AB 123 CD,France?,,1,30.06.2026\n"+
		"EF-456-GH,FR,\"vol,1,2026-06-30\n"+
		"inconnu,FR,vol,1,2026-06-30,x\n"+
		"ab123cd,F,vol,2,2029-06-30\n")
	golden(t, "row_errors.json", im.Errors)
}

func TestDiff(t *testing.T) {
	const first = head +
		"AB-123-CD,FR,vol,1,2026-06-30\n" +
		"EF-456-GH,FR,vol,1,2026-06-30\n" +
		"IJ-789-KL,FR,vol,1,2026-06-30\n"
	const second = head +
		"ab 123 cd,FR,vol,1,2026-06-30\n" + // written otherwise
		"EF-456-GH,FR,vol,1,2026-06-30\n" +
		"IJ-789-KL,FR,vol,1,2026-07-31\n" +
		"MN-012-PQ,FR,vol,1,2026-06-30\n"

	held := make(map[string]*watchlist.Entry)
	existing := func(id string) *watchlist.Entry { return held[id] }
	apply := func(es ...*watchlist.Entry) {
		for _, e := range es {
			c := *e
			c.Version = int64(100 + len(held))
			held[e.ID] = &c
		}
	}
	im := parse(t, first)
	added, changed, same := im.Diff(existing)
	if len(added) != 3 || len(changed) != 0 || same != 0 {
		t.Errorf("into an empty list: +%d ~%d =%d", len(added), len(changed), same)
	}
	apply(added...)

	// The same file an hour later: valid_from is not said, so it stays.
	im, err := watchlist.ParseCSV(strings.NewReader(first), stolen(), now.Add(time.Hour), paris)
	if err != nil {
		t.Fatal(err)
	}
	if added, changed, same := im.Diff(existing); len(added) != 0 || len(changed) != 0 || same != 3 {
		t.Errorf("the same file again: +%d ~%d =%d", len(added), len(changed), same)
	}

	im, err = watchlist.ParseCSV(strings.NewReader(second), stolen(), now.Add(time.Hour), paris)
	if err != nil {
		t.Fatal(err)
	}
	added, changed, same = im.Diff(existing)
	if len(added) != 1 || len(changed) != 2 || same != 1 {
		t.Fatalf("another file: +%d ~%d =%d", len(added), len(changed), same)
	}
	if added[0].Key.String() != "MN012PQ" || changed[0].Plate != "ab 123 cd" || !changed[0].ValidFrom.Equal(now) {
		t.Errorf("added %v, changed %v from %v", added[0], changed[0], changed[0].ValidFrom)
	}
	apply(append(added, changed...)...)
	if added, changed, same := im.Diff(existing); len(added) != 0 || len(changed) != 0 || same != 4 {
		t.Errorf("after it was applied: +%d ~%d =%d", len(added), len(changed), same)
	}

	// A valid_from that the row says is a change, as is an earlier default.
	im = parse(t, "plate,country,reason,case_ref,valid_from,valid_until\nEF-456-GH,FR,vol,1,2026-03-15,2026-06-30\n")
	if _, changed, _ := im.Diff(existing); len(changed) != 1 {
		t.Errorf("a new valid_from is no change")
	}
}

func TestWriteCSVRoundTrip(t *testing.T) {
	l := stolen()
	texts := []string{"vol", "=1+1", "'=1", "-", "@x", "+33", "a;b", `"q"`, "'", "été", "\u201cx\u201d", "a, b"}
	var want []*watchlist.Entry
	for i, s := range texts {
		in := input()
		in.Plate = fmt.Sprintf("AB-%03d-CD", i+1)
		in.Reason, in.CaseRef, in.Requester, in.Vehicle, in.Safety = s, s, s, s, s
		in.ValidFrom = now.Add(time.Duration(i) * 1001 * time.Millisecond)
		e, errs := watchlist.NewEntry(l, in, now)
		if errs != nil {
			t.Fatal(errs)
		}
		want = append(want, e)
	}
	var file bytes.Buffer
	if err := watchlist.WriteCSV(&file, slices.Values(want)); err != nil {
		t.Fatal(err)
	}
	im, err := watchlist.ParseCSV(&file, l, now, paris)
	if err != nil || len(im.Errors) > 0 || len(im.Entries) != len(want) {
		t.Fatalf("ParseCSV of an export: %v, %v", im, err)
	}
	for i, e := range im.Entries {
		if !e.Equal(want[i]) {
			t.Errorf("entry with %q came back with %q", want[i].Reason, e.Reason)
		}
	}

	broken := errors.New("broken")
	if err := watchlist.WriteCSV(failingWriter{broken}, slices.Values(want)); !errors.Is(err, broken) {
		t.Errorf("WriteCSV to a broken writer: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func ExampleParseCSV() {
	list := &watchlist.List{ID: "stolen", Salt: []byte("0123456789abcdef")}
	file := "Immatriculation;Pays;Motif;Dossier;Échéance\n" +
		"AB-123-CD;F;vol;2026/417;30/06/2026\n" +
		"AB-123-CE;F;;2026/418;31/06/2026\n"
	im, err := watchlist.ParseCSV(strings.NewReader(file), list, now, time.UTC)
	if err != nil {
		fmt.Println(err) // the file as a whole
		return
	}
	fmt.Println(len(im.Entries), "of", im.Rows)
	for _, e := range im.Errors {
		fmt.Println(e)
	}
	// Output:
	// 1 of 2
	// row 3, reason: is mandatory
	// row 3, valid_until: is not a date; use yyyy-mm-dd, dd/mm/yyyy, either with hh:mm, or RFC 3339
}

// FuzzParseCSV asserts that every row is either an entry or an error, that errors
// are in order and quote nothing, and that what was read survives an export.
func FuzzParseCSV(f *testing.F) {
	f.Add([]byte(head + "AB-123-CD,FR,vol,1,2026-06-30\n"))
	f.Add([]byte("\ufeffplaque;motif;dossier;fin;sécurité\r\n\"AB-123-CD\";\"a\r\nb\";'=1;30/06/2026;\xe9\r\n"))
	f.Add([]byte(head + "A\"B,\"\"\"\"\n\",\r\r\n"))
	f.Add([]byte(head + "QXQXQX,QXQXQX,QXQXQX,QXQXQX,QXQXQX,QXQXQX\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		l := stolen()
		im, err := watchlist.ParseCSV(bytes.NewReader(file), l, now, paris)
		if err != nil {
			return
		}
		if im.Rows != len(im.Entries)+im.Rejected {
			t.Fatalf("%d rows, %d entries, %d rejected", im.Rows, len(im.Entries), im.Rejected)
		}
		last := 1
		for _, e := range im.Errors {
			if e.Row < last || e.Row == 1 || strings.Contains(e.Error(), "QX") {
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
		for i, e := range again.Entries {
			if !e.Equal(im.Entries[i]) {
				t.Fatalf("row %d of the export differs", i+2)
			}
		}
	})
}

// BenchmarkParseCSV is the cost of a row from bytes to an entry with its id,
// which is mostly the keyed digest of the id.
func BenchmarkParseCSV(b *testing.B) {
	var file bytes.Buffer
	const rows = 10_000
	file.WriteString(head)
	for i := range rows {
		fmt.Fprintf(&file, "%c%c-%03d-CD,FR,vol du 12 mars,2026/%d,30/06/2026\n", 'A'+i%26, 'A'+i/26%26, 1+i/676, i)
	}
	l := stolen()
	for b.Loop() {
		im, err := watchlist.ParseCSV(bytes.NewReader(file.Bytes()), l, now, paris)
		if err != nil || len(im.Entries) != rows {
			b.Fatal(im.Errors[0], err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
}
