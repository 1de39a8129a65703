package watchlist

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/unicode/norm"

	"vigie/watchlist/plate"
)

// Limits of an import.
const (
	MaxImportRows = 10_000_000 // rows with content
	MaxRowBytes   = 64 << 10   // one row, quotes and line breaks included
	MaxRowErrors  = 10_000     // errors reported one by one; the rest is counted
)

// Import is a parsed file, before anything is written.
type Import struct {
	// Format is the layout of the file: as told, or as recognised.
	Format Format
	// Entries are the good rows in the order of the file. An entry here may
	// still be replaced by its copy in Diff; write what Diff returns.
	Entries []*Entry
	// Rows is the number of rows that have content, headers not counted: the
	// good ones and the Rejected ones.
	Rows, Rejected int
	// Errors are all errors of all rows in the order of the file, but at most
	// MaxRowErrors of them. Omitted counts the others.
	Errors  []RowError
	Omitted int

	// fromNow has one element per entry: its row says no valid_from.
	fromNow []bool
}

// RowError is one rule that one row breaks. Its text never contains what the
// row holds.
type RowError struct {
	Row    int    `json:"row"`              // as a spreadsheet numbers it: 1 is the first, the header if there is one
	Column string `json:"column,omitempty"` // English name of the column; empty for the row as a whole
	Reason string `json:"reason"`
}

func (e RowError) Error() string {
	if e.Column == "" {
		return fmt.Sprintf("row %d: %s", e.Row, e.Reason)
	}
	return fmt.Sprintf("row %d, %s: %s", e.Row, e.Column, e.Reason)
}

// FileError is the reason why a file cannot be imported at all. It never
// contains what a row holds.
type FileError struct{ Reason string }

func (e *FileError) Error() string { return e.Reason }

// column is a column that an import knows.
type column int

const (
	colPlate column = iota
	colCountry
	colReason
	colAction
	colPriority
	colCaseRef
	colRequester
	colValidFrom
	colValidUntil
	colVehicle
	colSafety
	numColumns

	colUnnamed column = -1
	colUnknown column = -2
	colError   column = -3 // what WriteRejected wrote; not read
)

// columnNames begins with the English name, which is the JSON name of the field;
// the synonyms after it are those met in French files. They are compared by fold.
var columnNames = [numColumns][]string{
	colPlate: {"plate", "license plate", "licence plate", "registration", "registration number",
		"plaque", "plaque d'immatriculation", "immatriculation", "immat", "numéro d'immatriculation", "n° immatriculation"},
	colCountry:  {"country", "country code", "pays", "code pays", "nationalité"},
	colReason:   {"reason", "motif", "raison"},
	colAction:   {"action", "conduite", "conduite à tenir", "cat", "mesure"},
	colPriority: {"priority", "priorité"},
	colCaseRef: {"case_ref", "case", "case reference", "reference", "ref",
		"référence", "réf", "dossier", "n° dossier", "numéro de dossier", "référence dossier", "référence du dossier", "procédure"},
	colRequester:  {"requester", "requested by", "demandeur", "service demandeur", "requérant"},
	colValidFrom:  {"valid_from", "from", "start", "début", "date de début", "date début", "valide du", "du"},
	colValidUntil: {"valid_until", "until", "end", "expiry", "expires", "fin", "date de fin", "date fin", "échéance", "date d'échéance", "expiration", "date d'expiration", "valide jusqu'au", "au"},
	colVehicle:    {"vehicle", "véhicule", "description", "description du véhicule", "signalement"},
	colSafety:     {"safety", "officer safety", "sécurité", "consigne de sécurité", "mise en garde", "danger"},
}

// errorColumn is the header of the column that WriteRejected adds.
const errorColumn = "error"

// mandatoryColumns must be in the header, or be given to all rows by Defaults:
// NewEntry refuses an entry without them.
var mandatoryColumns = []column{colPlate, colReason, colCaseRef, colValidUntil}

// frenchWords are what French files say for an action or a priority.
var frenchWords = map[column]map[string]string{
	colAction: folded(map[string]string{
		"informer": "inform", "information": "inform", "renseignement": "inform", "signaler": "inform",
		"intercepter": "intercept", "interpeller": "intercept", "interception": "intercept",
		"discret": "discreet", "contrôle discret": "discreet", "surveillance discrète": "discreet",
		"investigation": "inquiry", "contrôle d'investigation": "inquiry",
		"spécifique": "specific", "contrôle spécifique": "specific",
	}),
	colPriority: folded(map[string]string{
		"critique": "critical", "haute": "high", "élevée": "high", "moyenne": "medium", "normale": "medium",
		"information": "info", "basse": "info", "faible": "info",
	}),
}

// String is the JSON name of the field of an entry that c fills.
func (c column) String() string {
	if c >= numColumns {
		return layoutColumns[c].field.String()
	}
	return columnNames[c][0]
}

// columnsByName finds a column by the fold of its header.
var columnsByName = func() map[string]column {
	m := map[string]column{errorColumn: colError}
	for c, names := range columnNames {
		for _, name := range names {
			m[fold(name)] = column(c)
		}
	}
	return m
}()

// knownColumns lists the English names, for error texts.
var knownColumns = func() string {
	var names []string
	for c := range numColumns {
		names = append(names, c.String())
	}
	return strings.Join(names, ", ")
}()

func folded(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[fold(k)] = v
	}
	return out
}

// fold reduces a header or word to what makes it that word: lower case, without
// accents, and without anything that is neither letter nor digit.
func fold(s string) string {
	var b strings.Builder
	for _, r := range norm.NFD.String(strings.ToLower(s)) {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// ParseCSV reads a file of entries for list l, as spreadsheets write it. It
// reads r once, to its end, and keeps only the entries and the errors.
//
// Cells are separated by comma, semicolon or tab: by whichever makes the most of
// the header. Text is UTF-8, with or without a byte order mark, up to the first
// row that is not; that row and the rest are then Windows-1252, unless a mark or
// an earlier row has shown the file to be UTF-8. A quoted cell may hold
// separators, doubled quotes, and line breaks, which become spaces. Empty rows
// are skipped, but RowError.Row counts them, as spreadsheets do. A cell that a
// spreadsheet would run as a formula is an error; an apostrophe before = + - or @
// says that it is text, and is dropped: exports put it there.
//
// The first row names the columns, in any order; case, accents, spaces,
// underscores, dashes and apostrophes make no difference. Mandatory are plate,
// reason, case_ref and valid_until. A column of another name is an error, since
// what it holds would be lost silently; only one called error, which WriteRejected
// adds, is passed over. The names, and those met in other files:
//
//	plate        license plate, licence plate, registration, registration number, plaque,
//	             plaque d'immatriculation, immatriculation, immat, numéro d'immatriculation,
//	             n° immatriculation
//	country      country code, pays, code pays, nationalité
//	reason       motif, raison
//	action       conduite, conduite à tenir, CAT, mesure
//	priority     priorité
//	case_ref     case, case reference, reference, ref, référence, réf, dossier, n° dossier,
//	             numéro de dossier, référence dossier, référence du dossier, procédure
//	requester    requested by, demandeur, service demandeur, requérant
//	valid_from   from, start, début, date de début, date début, valide du, du
//	valid_until  until, end, expiry, expires, fin, date de fin, date fin, échéance,
//	             date d'échéance, expiration, date d'expiration, valide jusqu'au, au
//	vehicle      véhicule, description, description du véhicule, signalement
//	safety       officer safety, sécurité, consigne de sécurité, mise en garde, danger
//
// Actions and priorities are the words of ParseAction and ParsePriority in any
// case, or French: informer, information, renseignement, signaler; intercepter,
// interception, interpeller; discret, contrôle discret, surveillance discrète;
// investigation, contrôle d'investigation; spécifique, contrôle spécifique;
// critique; haute, élevée; moyenne, normale; information, basse, faible.
//
// Dates are read by ParseValidFrom and ParseValidUntil in loc (nil: UTC). The
// other rules are those of NewEntry. A second row for the same plate and country
// is an error that names both rows; the first stands.
//
// The error is a *FileError when no row can be used: no header, an unknown,
// missing or doubled column, a spreadsheet's own format, more than MaxImportRows
// rows. Otherwise it is that of r. Bad rows are no error but are in Import.Errors,
// so that all can be mended at once.
func ParseCSV(r io.Reader, l *List, now time.Time, loc *time.Location) (*Import, error) {
	return ParseEntries(r, l, now, ImportOptions{Format: FormatCSV, Zone: loc})
}

// wanted is what a list holds once.
type wanted struct {
	key     plate.Key
	pattern Pattern
	country plate.Country
}

func (im *Import) reject(row int, errs []FieldError) {
	im.Rejected++
	for _, e := range errs {
		if len(im.Errors) == MaxRowErrors {
			im.Omitted++
			continue
		}
		im.Errors = append(im.Errors, RowError{Row: row, Column: e.Field, Reason: e.Reason})
	}
}

// Diff compares the good rows with what the list holds: existing returns the
// entry with an id, or nil. It returns the entries that must be written, those
// that are new and those that differ in any field other than Version, and
// the number that need not be.
//
// An entry whose row says no valid_from keeps the one it has: otherwise the same
// file imported again would change every entry.
func (im *Import) Diff(existing func(id string) *Entry) (added, changed []*Entry, same int) {
	for i, e := range im.Entries {
		old := existing(e.ID)
		if old == nil {
			added = append(added, e)
			continue
		}
		if im.fromNow[i] && old.ValidFrom.Before(e.ValidFrom) {
			kept := *e
			kept.ValidFrom = old.ValidFrom
			e = &kept
		}
		if e.Equal(old) {
			same++
		} else {
			changed = append(changed, e)
		}
	}
	return added, changed, same
}

// csvWord returns the word that NewEntry knows for a word in a file.
func csvWord(c column, s string) string {
	if word, ok := frenchWords[c][fold(s)]; ok {
		return word
	}
	return strings.ToLower(s)
}

func blank(cells [][]byte) bool {
	for _, c := range cells {
		if len(bytes.TrimSpace(c)) > 0 {
			return false
		}
	}
	return true
}

// textDecoder decides from row to row how a file is encoded.
type textDecoder struct {
	utf8, cp1252 bool // at most one; neither while all was ASCII
}

// look takes the next row into account. It reports whether the row can be decoded.
func (d *textDecoder) look(cells [][]byte) bool {
	if d.cp1252 {
		return true
	}
	for _, c := range cells {
		switch {
		case isASCII(c):
		case utf8.Valid(c):
			d.utf8 = true
		case d.utf8:
			return false
		default:
			d.cp1252 = true
			return true
		}
	}
	return true
}

// decode returns the text of a cell of a row that was looked at.
func (d *textDecoder) decode(cell []byte) string {
	if d.cp1252 && !isASCII(cell) {
		// Bytes without a meaning become U+FFFD, which NewEntry refuses.
		cell, _ = charmap.Windows1252.NewDecoder().Bytes(cell)
	}
	if bytes.ContainsAny(cell, "\r\n") {
		cell = bytes.Join(bytes.FieldsFunc(cell, func(r rune) bool { return r == '\r' || r == '\n' }), []byte{' '})
	}
	return string(cell)
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// rowReader cuts a file into rows and rows into cells. It holds one window of the
// file and never more: a quote that is not closed costs its row, not memory.
//
// encoding/csv is not used because it reads such a row to the end of the file,
// skips empty lines without counting them, and does not recover.
type rowReader struct {
	src  io.Reader
	sep  byte // 0 for lines without quotes, cut at NUL
	text textDecoder
	row  int    // number of the row that next returned last
	raw  []byte // that row with its line break, in buf; nil when it is too long

	buf  [MaxRowBytes + 1]byte
	r, w int  // buf[r:w] is read and not yet used
	eof  bool // src has no more

	cells [][]byte // of the current row, in buf or copied
}

func newRowReader(src io.Reader) *rowReader { return &rowReader{src: src} }

// begin reads the first window, and refuses what is no text.
func (rr *rowReader) begin() error {
	if err := rr.fill(); err != nil {
		return fmt.Errorf("watchlist: read the file: %w", err)
	}
	start := rr.buf[:rr.w]
	switch {
	case len(bytes.TrimSpace(start)) == 0:
		return headerError("is empty")
	case bytes.HasPrefix(start, []byte("\xff\xfe")), bytes.HasPrefix(start, []byte("\xfe\xff")):
		return headerError("is UTF-16; save it as CSV in UTF-8")
	case bytes.HasPrefix(start, []byte("PK\x03\x04")), bytes.HasPrefix(start, []byte("\xd0\xcf\x11\xe0")):
		return headerError("is a workbook; save it as CSV in UTF-8")
	case bytes.HasPrefix(start, []byte("\xef\xbb\xbf")):
		rr.text.utf8 = true
		rr.r = 3
		if err := rr.fill(); err != nil {
			return fmt.Errorf("watchlist: read the file: %w", err)
		}
	}
	if !rr.eof && lineLen(rr.buf[:rr.w]) == 0 {
		return headerError(fmt.Sprintf("begins with a row of more than %d bytes", MaxRowBytes))
	}
	return nil
}

// separators are tried in this order.
var separators = []byte{',', ';', '\t'}

// bestHeader finds the separator that makes the most of the first row as names
// of table. It returns the column and the text of each cell, or nothing when no
// cell is a name; reading goes on at the first row.
func (rr *rowReader) bestHeader(table map[string]column) (cols []column, names []string) {
	if bytes.HasPrefix(bytes.TrimPrefix(rr.buf[:rr.w], []byte{'"'}), []byte(errorMark)) {
		return nil, nil // a row that WriteRejected wrote
	}
	bestKnown := 0
	var sep byte
	for _, s := range separators {
		rr.r, rr.row, rr.sep = 0, 0, s
		cells, fault, err := rr.next()
		if fault != "" || err != nil || !rr.text.look(cells) {
			continue
		}
		c, texts, known := make([]column, len(cells)), make([]string, len(cells)), 0
		for i, cell := range cells {
			texts[i] = strings.TrimSpace(rr.text.decode(cell))
			c[i] = columnOf(texts[i], table)
			if c[i] >= 0 {
				known++
			}
		}
		if known > bestKnown {
			cols, names, sep, bestKnown = c, texts, s, known
		}
	}
	rr.r, rr.row, rr.sep = 0, 0, sep
	return cols, names
}

func columnOf(name string, table map[string]column) column {
	if name == "" {
		return colUnnamed
	}
	if c, ok := table[fold(name)]; ok {
		return c
	}
	return colUnknown
}

// checkHeader returns what is wrong with a header in which the columns needed
// must stand, or "".
func checkHeader(cols []column, names []string, needed []column) string {
	var faults []string
	hasPlate := slices.Contains(cols, colPlate)
	at := make(map[column]int)
	for i, c := range cols {
		switch {
		case c == colUnnamed, c == colError:
		case c == colUnknown:
			// Without a plate column the row may be data rather than a header,
			// and a name with a digit may be a plate: then say where it stands only.
			name := fmt.Sprintf("column %d", i+1)
			if hasPlate && !strings.ContainsFunc(names[i], unicode.IsDigit) && CheckText(names[i], MaxShortText) == "" {
				name = fmt.Sprintf("column %q", names[i])
			}
			faults = append(faults, "unknown "+name)
		case at[c] > 0:
			faults = append(faults, fmt.Sprintf("columns %d and %d both hold %s", at[c], i+1, c))
		default:
			at[c] = i + 1
		}
	}
	for _, c := range needed {
		if at[c] == 0 {
			faults = append(faults, "missing column "+c.String()+orFlag(c))
		}
	}
	if faults == nil {
		return ""
	}
	return "has a wrong header: " + strings.Join(faults, "; ")
}

func headerError(what string) error {
	return &FileError{fmt.Sprintf("the file %s; known columns: %s", what, knownColumns)}
}

// fill reads until the window is full or the file ends.
func (rr *rowReader) fill() error {
	copy(rr.buf[:], rr.buf[rr.r:rr.w])
	rr.w -= rr.r
	rr.r = 0
	for !rr.eof && rr.w < len(rr.buf) {
		n, err := rr.src.Read(rr.buf[rr.w:])
		rr.w += n
		if err == io.EOF {
			rr.eof = true
		} else if err != nil {
			return err
		}
	}
	return nil
}

// next returns the cells of the next row, valid until the following call, or the
// reason why it has none: the row is then passed over up to its first line
// break. At the end of the file err is io.EOF.
func (rr *rowReader) next() (cells [][]byte, fault string, err error) {
	n, fault := rr.split(rr.buf[rr.r:rr.w])
	if n == 0 && !rr.eof {
		if err := rr.fill(); err != nil {
			return nil, "", err
		}
		n, fault = rr.split(rr.buf[rr.r:rr.w])
	}
	if n == 0 {
		// The window is full, or the file ends, inside this row.
		line := lineLen(rr.buf[rr.r:rr.w])
		if rr.r == rr.w {
			return nil, "", io.EOF
		}
		switch {
		case line > 0:
			n, fault = line, "opens a quote that is not closed"
		case rr.eof:
			n, fault = rr.w-rr.r, "opens a quote that is not closed"
		default:
			rr.row++
			rr.raw = nil
			return nil, fmt.Sprintf("is longer than %d bytes", MaxRowBytes), rr.skipLine()
		}
	}
	rr.raw = rr.buf[rr.r : rr.r+n]
	rr.r += n
	rr.row++
	return rr.cells, fault, nil
}

// skipLine passes over everything up to the next line break, however far.
func (rr *rowReader) skipLine() error {
	for {
		if n := lineLen(rr.buf[rr.r:rr.w]); n > 0 {
			rr.r += n
			return nil
		}
		if rr.eof {
			rr.r = rr.w
			return nil
		}
		rr.r = rr.w
		if rr.buf[rr.w-1] == '\r' {
			rr.r-- // its '\n' may come next
		}
		if err := rr.fill(); err != nil {
			return err
		}
	}
}

// lineLen returns the length of the first line of b with its line break (\n,
// \r\n or \r), or 0 when b has no whole line.
func lineLen(b []byte) int {
	i := bytes.IndexAny(b, "\r\n")
	switch {
	case i < 0, b[i] == '\r' && i+1 == len(b):
		return 0
	case b[i] == '\r' && b[i+1] == '\n':
		return i + 2
	default:
		return i + 1
	}
}

// split cuts the first row of b into rr.cells and returns its length with its line
// break, or 0 when b ends before the row does. A row with a fault ends at its first
// line break.
func (rr *rowReader) split(b []byte) (n int, fault string) {
	rr.cells = rr.cells[:0]
	for i := 0; ; {
		var cell []byte
		if i < len(b) && b[i] == '"' && rr.sep != 0 {
			end := closingQuote(b[i+1:])
			if end < 0 {
				return 0, ""
			}
			cell = b[i+1 : i+1+end]
			if bytes.IndexByte(cell, '"') >= 0 {
				cell = bytes.ReplaceAll(cell, []byte(`""`), []byte(`"`))
			}
			i += end + 2
			if i == len(b) && !rr.eof {
				return 0, ""
			}
			if i < len(b) && b[i] != rr.sep && b[i] != '\r' && b[i] != '\n' {
				if n = lineLen(b); n == 0 && rr.eof {
					n = len(b)
				}
				return n, "has text after a closing quote"
			}
		} else {
			start := i
			for i < len(b) && b[i] != rr.sep && b[i] != '\r' && b[i] != '\n' {
				i++
			}
			if i == len(b) && !rr.eof {
				return 0, ""
			}
			cell = b[start:i]
		}
		rr.cells = append(rr.cells, cell)
		switch {
		case i == len(b): // the file ends without a line break
			return i, ""
		case b[i] == rr.sep:
			i++
		default:
			if end := lineLen(b[i:]); end > 0 {
				return i + end, ""
			}
			if rr.eof { // a single '\r' ends the file
				return i + 1, ""
			}
			return 0, ""
		}
	}
}

// closingQuote returns the index in b of the quote that closes a cell, passing
// over doubled ones, or -1.
func closingQuote(b []byte) int {
	for i := 0; i < len(b); i++ {
		j := bytes.IndexByte(b[i:], '"')
		if j < 0 {
			return -1
		}
		i += j
		if i+1 == len(b) || b[i+1] != '"' {
			return i
		}
		i++
	}
	return -1
}

// WriteCSV writes entries as ParseCSV reads them back, times in UTC. The
// separator is the semicolon and the text begins with a byte order mark, because
// exports are opened with a double click in spreadsheets set to French; programs
// take the JSON form. A cell that a spreadsheet would take for a formula begins with an
// apostrophe. The error is that of w.
func WriteCSV(w io.Writer, entries iter.Seq[*Entry]) error {
	if _, err := io.WriteString(w, "\ufeff"); err != nil {
		return fmt.Errorf("watchlist: write CSV: %w", err)
	}
	cw := csv.NewWriter(w)
	cw.Comma = ';'
	cw.UseCRLF = true
	record := make([]string, numColumns)
	for c := range numColumns {
		record[c] = c.String()
	}
	err := cw.Write(record)
	for e := range entries {
		if err != nil {
			break
		}
		record[colPlate] = e.Plate
		record[colCountry] = e.Country.String()
		record[colReason] = e.Reason
		record[colAction] = e.Action.String()
		record[colPriority] = e.Priority.String()
		record[colCaseRef] = e.CaseRef
		record[colRequester] = e.Requester
		record[colValidFrom] = e.ValidFrom.UTC().Format(csvTime)
		record[colValidUntil] = e.ValidUntil.UTC().Format(csvTime)
		record[colVehicle] = e.Vehicle
		record[colSafety] = e.Safety
		for c, s := range record {
			record[c] = escapeCell(s)
		}
		err = cw.Write(record)
	}
	if err == nil {
		cw.Flush()
		err = cw.Error()
	}
	if err != nil {
		return fmt.Errorf("watchlist: write CSV: %w", err)
	}
	return nil
}

// csvTime is RFC 3339 to the millisecond.
const csvTime = "2006-01-02T15:04:05.999Z07:00"

// escapeCell keeps a spreadsheet from running a cell as a formula (OWASP, CSV
// injection). Tab and carriage return, which do the same, are in no entry.
func escapeCell(s string) string {
	if isFormula(s) {
		return "'" + s
	}
	return s
}

// isFormula reports whether a spreadsheet would run s, but for the apostrophes
// before it: an apostrophe of the text itself gets one more on export and loses
// it on import.
func isFormula(s string) bool {
	s = strings.TrimLeft(s, "'")
	return s != "" && strings.IndexByte("=+-@", s[0]) >= 0
}

// unescapeCell undoes escapeCell.
func unescapeCell(s string) string {
	if strings.HasPrefix(s, "'") && isFormula(s) {
		return s[1:]
	}
	return s
}

// runs reports whether s is a formula rather than a text that begins like one: a
// telephone number may begin with + and a remark with -, but neither begins with
// the call of a function or of another program.
func runs(s string) bool {
	switch {
	case s == "":
		return false
	case s[0] == '=', s[0] == '@':
		return true
	case s[0] != '+' && s[0] != '-':
		return false
	}
	call := strings.IndexByte(s, '(')
	return strings.Contains(s, "|") ||
		call > 1 && unicode.IsLetter(rune(s[call-1])) && !strings.Contains(s[:call], " ")
}
