package watchlist

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"vigie/watchlist/plate"
)

// Format is the layout of a file of entries.
type Format uint8

const (
	// FormatAuto is recognised by the first rows of the file; what is none of the
	// others is FormatCSV.
	FormatAuto Format = iota
	// FormatCSV has a header that names the columns, see ParseCSV. WriteCSV
	// writes it.
	FormatCSV
	// FormatNCIC is the licence plate extract of the US National Crime
	// Information Center, a record of fixed width on each line. Lines before the
	// first record are headers.
	FormatNCIC
	// FormatNCICCSV is the same extract as cells, eleven or, with the type of the
	// plate, twelve: record number, agency, date, plate, state, year of the plate,
	// [type,] year, make, model, body, colour.
	FormatNCICCSV
	// FormatGenetec is a hotlist of Genetec AutoVu: Category; PlateState;
	// PlateNumber; EffectiveDate; ExpiryDate, in this order or under a header with
	// these names. A * in a plate is any run of characters here, see Pattern;
	// Genetec also lets the characters it stands for be elsewhere in the plate.
	FormatGenetec
	// FormatOpenALPR is an alert list of OpenALPR and Rekor Scout: a header with
	// Plate Number, and Description, State/Province, Category or List beside it.
	// Match Strategy is passed over: the tolerance belongs to the list.
	FormatOpenALPR
)

var formatNames = []string{"auto", "csv", "ncic", "ncic-csv", "genetec", "openalpr"}

// ParseFormat returns the format called word: auto, csv, ncic, ncic-csv, genetec,
// openalpr.
func ParseFormat(word string) (Format, error) { return parseWord[Format]("format", formatNames, word) }

// String returns the word for f, or "Format(n)" for a value out of range.
func (f Format) String() string { return wordOr("Format", formatNames, f) }

// MarshalText returns the word for f. It fails for a value out of range.
func (f Format) MarshalText() ([]byte, error) { return wordBytes("format", formatNames, f) }

// UnmarshalText is ParseFormat.
func (f *Format) UnmarshalText(b []byte) error { return setWord(f, ParseFormat, b) }

// ImportOptions say how a file is read. The zero value recognises the format and
// fills nothing.
type ImportOptions struct {
	Format   Format
	Defaults Defaults
	Zone     *time.Location // of bare dates; UTC when nil
}

// Defaults fill what a row of a file does not say; what it says stands.
type Defaults struct {
	Reason    string
	CaseRef   string
	Requester string
	Country   string // anything that plate.ParseCountry takes
	// ValidUntil is anything that the function ParseValidUntil takes. ValidFor is a number
	// of days such as 30d: to the end of the day so many days after today. At
	// most one of the two may be given.
	ValidUntil string
	ValidFor   string
}

// DefaultsError says which defaults of an import are wrong, or missing for a
// format that does not say it. Fields are named reason, case_ref, requester,
// country, valid_until and valid_for.
type DefaultsError struct{ Fields []FieldError }

func (e *DefaultsError) Error() string {
	texts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		texts[i] = f.Error()
	}
	return strings.Join(texts, "; ")
}

// filling is Defaults that were checked.
type filling struct {
	Defaults
	country plate.Country
	until   time.Time
}

// check reads the defaults, or returns a *DefaultsError.
func (d Defaults) check(now time.Time, loc *time.Location) (filling, error) {
	f := filling{Defaults: d}
	var errs fieldErrors
	for _, t := range []struct {
		field string
		text  *string
		limit int
	}{
		{"reason", &f.Reason, MaxLongText},
		{"case_ref", &f.CaseRef, MaxShortText},
		{"requester", &f.Requester, MaxShortText},
	} {
		*t.text = strings.TrimSpace(*t.text)
		errs.text(t.field, *t.text, t.limit)
	}
	var ok bool
	if f.country, ok = plate.ParseCountry(d.Country); !ok {
		errs.add("country", "is not a country; use ISO 3166-1 alpha-2 such as FR")
	}
	field := "valid_until"
	switch {
	case d.ValidUntil != "" && d.ValidFor != "":
		errs.add("valid_for", "cannot be given together with valid_until")
	case d.ValidUntil != "":
		var err error
		if f.until, err = ParseValidUntil(d.ValidUntil, loc); err != nil {
			errs.add(field, err.Error())
		}
	case d.ValidFor != "":
		field = "valid_for"
		days, found := strings.CutSuffix(strings.TrimSpace(d.ValidFor), "d")
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil || !found {
			errs.add(field, "must be a number of days such as 30d")
			break
		}
		y, m, day := now.In(loc).Date()
		f.until = time.Date(y, m, day+int(n)+1, 0, 0, 0, 0, loc)
	}
	switch {
	case f.until.IsZero():
	case !f.until.After(now):
		errs.add(field, "is not in the future")
	case f.until.Sub(now) > MaxValidity:
		errs.add(field, fmt.Sprintf("is more than %d days ahead", MaxValidity/(24*time.Hour)))
	}
	if errs != nil {
		return f, &DefaultsError{errs}
	}
	return f, nil
}

// has reports whether a mandatory field is filled.
func (f *filling) has(c column) bool {
	switch c {
	case colReason:
		return f.Reason != ""
	case colCaseRef:
		return f.CaseRef != ""
	case colValidUntil:
		return !f.until.IsZero()
	}
	return false
}

// defaultFlags are the flags of vigie lists import that fill a mandatory field.
var defaultFlags = map[column]string{
	colReason:     "--reason",
	colCaseRef:    "--case-ref",
	colValidUntil: "--valid-until or --valid-for",
}

// orFlag says how a field may be filled, as the end of a sentence, or is empty.
func orFlag(c column) string {
	if flag, ok := defaultFlags[c]; ok {
		return ", or give it to all rows with " + flag
	}
	return ""
}

// Columns of layouts other than FormatCSV, beside those that they share with it.
const (
	colRecord    = numColumns + iota // NCIC: letter of the file, number of the record
	colAgency                        // NCIC: who wrote the record
	colDate                          // NCIC: of the record, yyyymmdd
	colEffective                     // Genetec: yyyy-mm-dd
	colExpiry                        // Genetec: yyyy-mm-dd
	colState                         // NCIC: code of a state
	colArea                          // state, province or country
	colPlateYear                     // NCIC: the last year of the plate
	colPlateType                     // NCIC
	colYear                          // NCIC: of the vehicle, as what follows
	colMake
	colModel
	colBody
	colColour
	colCategory    // why a plate is wanted
	colDescription // of the vehicle, often with the reason
	colPassed      // known, and of no use
	allColumns
)

// layoutColumns has for each of them the field that an error names, and the
// fields that it fills.
var layoutColumns = map[column]struct {
	field column
	fills []column
}{
	colRecord:      {colCaseRef, []column{colCaseRef, colReason}},
	colAgency:      {colRequester, nil},
	colDate:        {colValidFrom, nil},
	colEffective:   {colValidFrom, nil},
	colExpiry:      {colValidUntil, []column{colValidUntil}},
	colState:       {colCountry, nil},
	colArea:        {colCountry, nil},
	colPlateYear:   {colVehicle, nil},
	colPlateType:   {colVehicle, nil},
	colYear:        {colVehicle, nil},
	colMake:        {colVehicle, nil},
	colModel:       {colVehicle, nil},
	colBody:        {colVehicle, nil},
	colColour:      {colVehicle, nil},
	colCategory:    {colReason, []column{colReason}},
	colDescription: {colVehicle, []column{colReason}},
	colPassed:      {colVehicle, nil},
}

// genetecOrder are the columns of a hotlist without a header.
var genetecOrder = []column{colCategory, colArea, colPlate, colEffective, colExpiry}

// Headers by their fold.
var (
	genetecNames = map[string]column{
		"category": colCategory, "platestate": colArea, "platenumber": colPlate,
		"effectivedate": colEffective, "expirydate": colExpiry, errorColumn: colError,
	}
	openALPRNames = map[string]column{
		"platenumber": colPlate, "plate": colPlate, "licenseplate": colPlate,
		"description": colDescription, "notes": colDescription,
		"category": colCategory, "list": colCategory, "listname": colCategory, "alertlist": colCategory,
		"stateprovince": colArea, "state": colArea, "province": colArea, "region": colArea, "country": colArea,
		"matchstrategy": colPassed, errorColumn: colError,
	}
)

// ParseEntries reads a file of entries for list l. It reads r once, to its end,
// and keeps only the entries and the errors. Every format may be UTF-8 or
// Windows-1252 and have any line break, as ParseCSV says of CSV.
//
// How an entry comes of a row of a format other than FormatCSV: an NCIC record
// gives its number as case reference, the meaning of its letter as reason, its
// agency as requester, its date as valid_from. The category of the others is the
// reason. States of the US and provinces of Canada become the country and are
// kept, with make, model and colour, in the vehicle description. A Genetec or
// OpenALPR file may mean a state or a country by two letters: it is the state with
// the default country US or CA, the country with another or none.
//
// What a row does not say is filled from opt.Defaults. The error is a
// *DefaultsError when these are wrong, or lack something that no row of the
// format says; otherwise it is that of ParseCSV. Bad rows are in Import.Errors, under
// the names of the fields of an entry, whatever the columns of the file are called.
func ParseEntries(r io.Reader, l *List, now time.Time, opt ImportOptions) (*Import, error) {
	loc := opt.Zone
	if loc == nil {
		loc = time.UTC
	}
	fill, err := opt.Defaults.check(now, loc)
	if err != nil {
		return nil, err
	}
	needed := slices.DeleteFunc(slices.Clone(mandatoryColumns), fill.has)
	rows, err := openRows(r, opt.Format, needed)
	if err != nil {
		return nil, err
	}
	im := &Import{Format: rows.format}
	seen := make(map[wanted]int)
	for {
		cells, fault, err := rows.next()
		switch {
		case err == io.EOF && rows.seeking && im.Rows == 0:
			return nil, &FileError{"the file holds no record of format " + rows.format.String()}
		case err == io.EOF:
			return im, nil
		case err != nil:
			return nil, fmt.Errorf("watchlist: read the file after row %d: %w", rows.row, err)
		case fault == "" && blank(cells):
			continue
		}
		if im.Rows++; im.Rows > MaxImportRows {
			return nil, &FileError{fmt.Sprintf("the file has more than %d rows; cut it up: an import adds to the list", MaxImportRows)}
		}
		var errs fieldErrors
		row := fileRow{format: rows.format, fill: &fill}
		if fault != "" {
			errs.add("", fault)
		} else {
			errs = row.assign(rows, cells)
		}
		if errs == nil {
			errs = row.parse(l, now, loc)
			if w := (wanted{row.entry.Key, row.entry.Pattern, row.entry.Country}); !row.badCountry && (w.key != 0 || !w.pattern.IsZero()) {
				if first, ok := seen[w]; ok {
					errs.add(colPlate.String(), fmt.Sprintf("is the same plate and country as in row %d", first))
				} else {
					seen[w] = rows.row
				}
			}
		}
		if errs != nil {
			im.reject(rows.row, errs)
			continue
		}
		im.Entries = append(im.Entries, row.entry)
		im.fromNow = append(im.fromNow, row.input.ValidFrom.IsZero())
	}
}

// minYear is where dates of a file begin: what is earlier is a slip, and years
// before 0 have no form that can be read back.
const minYear = 1900

// fileRow is one row on its way to an entry.
type fileRow struct {
	format     Format
	fill       *filling
	cells      [allColumns]string
	faults     fieldErrors // of cells, which stand for what NewEntry says of the field
	input      EntryInput
	entry      *Entry
	badCountry bool
}

// assign puts the cells of a row under their columns. The errors are of the row
// as a whole.
func (row *fileRow) assign(rows *fileRows, cells [][]byte) (errs fieldErrors) {
	if !rows.text.look(cells) {
		errs.add("", "is not UTF-8, as the file is up to here")
		return errs
	}
	for i, cell := range cells {
		s := strings.TrimSpace(rows.text.decode(cell))
		switch {
		case s == "":
		case i >= len(rows.columns) && rows.names != nil:
			errs.add("", fmt.Sprintf("has more cells than the header, which has %d", len(rows.columns)))
			return errs
		case i >= len(rows.columns):
			errs.add("", fmt.Sprintf("has more than the %d cells of the format", len(rows.columns)))
			return errs
		case rows.columns[i] == colUnnamed:
			errs.add("", fmt.Sprintf("has a value in column %d, which the header does not name", i+1))
		case rows.columns[i] == colError:
		case runs(s):
			row.faults.add(rows.columns[i].String(), "is a formula of a spreadsheet; write what it means, or an apostrophe before it if it is meant as text")
		default:
			row.cells[rows.columns[i]] = unescapeCell(s)
		}
	}
	return errs
}

// parse makes the entry, or says everything that is wrong with the row.
func (row *fileRow) parse(l *List, now time.Time, loc *time.Location) fieldErrors {
	c := &row.cells
	switch row.format {
	case FormatNCIC, FormatNCICCSV:
		row.fromNCIC()
	case FormatGenetec, FormatOpenALPR:
		row.fromHotlist()
	}
	for _, d := range [...]struct { // in this order
		col   column
		value string
	}{
		{colReason, row.fill.Reason},
		{colReason, c[colDescription]},
		{colCaseRef, row.fill.CaseRef},
		{colRequester, row.fill.Requester},
		{colCountry, row.fill.Country},
	} {
		if c[d.col] == "" {
			c[d.col] = d.value
		}
	}
	row.input = EntryInput{
		Plate:      c[colPlate],
		Country:    c[colCountry],
		Reason:     c[colReason],
		Action:     csvWord(colAction, c[colAction]),
		Priority:   csvWord(colPriority, c[colPriority]),
		CaseRef:    c[colCaseRef],
		Requester:  c[colRequester],
		Vehicle:    c[colVehicle],
		Safety:     c[colSafety],
		ValidUntil: row.fill.until,
	}
	date := func(col column, dst *time.Time, parse func(string, *time.Location) (time.Time, error)) {
		if c[col] == "" {
			return
		}
		t, err := parse(c[col], loc)
		switch {
		case err != nil:
			row.faults.add(col.String(), err.Error())
		case t.Year() < minYear:
			row.faults.add(col.String(), fmt.Sprintf("is before the year %d", minYear))
		default:
			*dst = t
		}
	}
	date(colValidFrom, &row.input.ValidFrom, ParseValidFrom)
	date(colValidUntil, &row.input.ValidUntil, ParseValidUntil)

	entry, errs := newEntry(l, row.input, now)
	row.entry = entry
	if row.format != FormatCSV {
		// Nobody can add a column to these.
		for i := range errs {
			for _, col := range mandatoryColumns {
				if errs[i].Field == col.String() && c[col] == "" && !row.fill.has(col) {
					errs[i].Reason += orFlag(col)
				}
			}
		}
	}
	// A cell that cannot be read says enough; what newEntry made of its absence
	// would mislead.
	errs = slices.DeleteFunc(errs, func(e FieldError) bool { return row.faulty(e.Field) })
	errs = append(errs, row.faults...)
	row.badCountry = slices.ContainsFunc(errs, func(e FieldError) bool { return e.Field == colCountry.String() })
	return errs
}

// faulty reports whether the cells under a field could not be read. Of two dates
// the one that can be read may depend on the other.
func (row *fileRow) faulty(field string) bool {
	return slices.ContainsFunc(row.faults, func(e FieldError) bool {
		return e.Field == field || isDate(e.Field) && isDate(field)
	})
}

func isDate(field string) bool {
	return field == colValidFrom.String() || field == colValidUntil.String()
}

// fromHotlist makes fields of the columns of Genetec and OpenALPR.
func (row *fileRow) fromHotlist() {
	c := &row.cells
	c[colReason] = c[colCategory]
	// Where many of these files come from the month stands before the day: read is
	// only the order that nobody takes for another.
	row.date(colEffective, colValidFrom, "2006-1-2", "is not a date; a hotlist has yyyy-mm-dd")
	row.date(colExpiry, colValidUntil, "2006-1-2", "is not a date; a hotlist has yyyy-mm-dd")
	state := ""
	switch code := strings.ToUpper(c[colArea]); {
	case row.fill.country.String() == "US" && isOneOf(usStates, code),
		row.fill.country.String() == "CA" && isOneOf(provinces, code):
		c[colCountry], state = row.fill.country.String(), code
	case row.fill.country.String() == "US" && isOneOf(provinces, code):
		c[colCountry], state = "CA", code
	case row.fill.country.String() == "CA" && isOneOf(usStates, code):
		c[colCountry], state = "US", code
	default:
		_, known := plate.ParseCountry(code)
		if !known && (isOneOf(usStates, code) || isOneOf(provinces, code)) {
			row.faults.add(colArea.String(), "is a state or province, and others of the file may read as countries: say with --country US or CA that they are none")
			return
		}
		c[colCountry] = code
		if area, of, ok := strings.Cut(code, "-"); ok && known && area != "EU" {
			state = of
		}
	}
	c[colVehicle] = joinWords("; ", c[colDescription], plateOf(state, ""))
}

// date makes a date of an entry of one that a format writes as layout.
func (row *fileRow) date(from, to column, layout, fault string) {
	if row.cells[from] == "" {
		return
	}
	t, err := time.Parse(layout, row.cells[from])
	if err != nil {
		row.faults.add(to.String(), fault)
		return
	}
	row.cells[to] = t.Format(time.DateOnly)
}

// plateOf says what a vehicle description keeps of a plate.
func plateOf(state, year string) string {
	if state == "" && year == "" {
		return ""
	}
	return joinWords(" ", "plate", state, year)
}

// joinWords joins those that are not empty.
func joinWords(sep string, words ...string) string {
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), sep)
}

// Codes of the US Postal Service and of Canada Post, and PQ and NF, which older
// lists have.
const (
	usStates  = "AL AK AZ AR CA CO CT DE DC FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY AS GU MP PR VI"
	provinces = "AB BC MB NB NF NL NS NT NU ON PE PQ QC SK YT"
)

// isOneOf reports whether code is one of the words of two letters.
func isOneOf(words, code string) bool {
	return len(code) == 2 && strings.Contains(" "+words+" ", " "+code+" ")
}

// fileRows reads the rows of a file of a known format.
type fileRows struct {
	*rowReader
	format  Format
	columns []column // of the cells of the current row
	names   []string // the header as written; nil when the format has none
	// seeking says that an NCIC file has not yet had a record; heads are the
	// lines before it, of which the first few are kept.
	seeking bool
	heads   []string
	record  [][]byte // the cells of a record of fixed width
}

// errorMark begins what WriteRejected adds to a row of a format without a header.
const errorMark = "error: "

// maxHeads is how many lines before the first record are kept.
const maxHeads = 10

// openRows finds out how to read a file. The columns needed must be in the header
// of a CSV, or what fills them be in the columns of another format.
func openRows(r io.Reader, format Format, needed []column) (*fileRows, error) {
	rows := &fileRows{rowReader: newRowReader(r), format: format}
	if err := rows.begin(); err != nil {
		return nil, err
	}
	if format == FormatAuto {
		rows.format = rows.recognise()
	}
	switch rows.format {
	case FormatNCIC:
		rows.sep, rows.columns, rows.seeking = 0, ncicOrder, true // no line holds a NUL
	case FormatNCICCSV:
		rows.sep, rows.columns, rows.seeking = rows.separator(), ncicOrder, true
	case FormatGenetec:
		if cols, names := rows.bestHeader(genetecNames); isGenetecHeader(cols) {
			return rows, rows.takeHeader(cols, names, needed)
		}
		rows.sep, rows.columns = rows.separator(), genetecOrder
	case FormatOpenALPR:
		cols, names := rows.bestHeader(openALPRNames)
		return rows, rows.takeHeader(cols, names, needed)
	default:
		cols, names := rows.bestHeader(columnsByName)
		return rows, rows.takeHeader(cols, names, needed)
	}
	return rows, rows.lacks(needed)
}

// takeHeader passes over the first row, the header.
func (rows *fileRows) takeHeader(cols []column, names []string, needed []column) error {
	rows.columns, rows.names = cols, names
	fault := "has no header: no cell of its first row is the name of a column"
	if cols != nil {
		if _, _, err := rows.rowReader.next(); err != nil {
			return err
		}
		if rows.format == FormatCSV {
			fault = checkHeader(cols, names, needed)
		} else {
			fault = checkHeader(cols, names, []column{colPlate})
		}
	}
	switch {
	case fault != "" && rows.format == FormatCSV:
		return headerError(fault)
	case fault != "":
		return &FileError{"the file " + fault + "; see the format " + rows.format.String()}
	case rows.format != FormatCSV:
		return rows.lacks(needed)
	}
	return nil
}

// lacks returns a *DefaultsError for what is needed and in no column.
func (rows *fileRows) lacks(needed []column) error {
	var errs fieldErrors
	for _, want := range needed {
		if want != colPlate && !slices.ContainsFunc(rows.columns, func(c column) bool { return slices.Contains(layoutColumns[c].fills, want) }) {
			errs.add(want.String(), "is not in a file of this form; give it to all rows with "+defaultFlags[want])
		}
	}
	if errs != nil {
		return &DefaultsError{errs}
	}
	return nil
}

// recognise guesses the format by the first rows.
func (rows *fileRows) recognise() Format {
	defer func(text textDecoder) { rows.text = text }(rows.text)
	if cols, _ := rows.bestHeader(genetecNames); isGenetecHeader(cols) {
		return FormatGenetec
	}
	if cols, _ := rows.bestHeader(columnsByName); slices.Contains(cols, colPlate) && !slices.Contains(cols, colUnknown) {
		return FormatCSV
	}
	if cols, _ := rows.bestHeader(openALPRNames); slices.Contains(cols, colPlate) && !slices.Contains(cols, colUnknown) {
		return FormatOpenALPR
	}
	for _, sep := range separators {
		for _, cells := range rows.sample(sep) {
			if len(cells) >= len(ncicOrder)-1 && isRecordNumber(cells[0]) && isDigits(cells[2], 8) {
				return FormatNCICCSV
			}
		}
	}
	for _, cells := range rows.sample(0) {
		if len(cells) == 1 && isRecord([]byte(cells[0])) {
			return FormatNCIC
		}
	}
	for _, sep := range separators {
		if first := rows.sample(sep); len(first) > 0 && isGenetecRow(first[0]) {
			return FormatGenetec
		}
	}
	return FormatCSV
}

func isGenetecHeader(cols []column) bool {
	return slices.Contains(cols, colPlate) && (slices.Contains(cols, colArea) || slices.Contains(cols, colEffective) || slices.Contains(cols, colExpiry))
}

// isGenetecRow reports whether a row has what no CSV header has: dates.
func isGenetecRow(cells []string) bool {
	if len(cells) != len(genetecOrder) || cells[2] == "" || cells[3]+cells[4] == "" {
		return false
	}
	for _, s := range cells[3:] {
		if _, _, err := parseDate(s, nil); s != "" && err != nil {
			return false
		}
	}
	return true
}

// separator returns the one by which a row near the start of the file has the
// most cells.
func (rows *fileRows) separator() byte {
	best, most := byte(';'), 0
	for _, sep := range []byte{best, ',', '\t'} {
		for _, cells := range rows.sample(sep) {
			if len(cells) > most {
				best, most = sep, len(cells)
			}
		}
	}
	return best
}

// sampleRows is how many rows are looked at to recognise a format.
const sampleRows = 10

// sample returns the first rows in the window, cut at sep, without the mark of
// WriteRejected. Reading goes on where it was.
func (rows *fileRows) sample(sep byte) (sample [][]string) {
	rows.sep = sep
	for at := rows.r; at < rows.w && len(sample) < sampleRows; {
		n, fault := rows.split(rows.buf[at:rows.w])
		if n == 0 {
			break
		}
		at += n
		if fault != "" {
			continue
		}
		var texts []string
		for _, cell := range unmarked(rows.cells) {
			texts = append(texts, strings.TrimSpace(string(cell)))
		}
		sample = append(sample, texts)
	}
	return sample
}

// unmarked returns cells without the one that WriteRejected added.
func unmarked(cells [][]byte) [][]byte {
	if len(cells) > 0 && bytes.HasPrefix(cells[0], []byte(errorMark)) {
		return cells[1:]
	}
	return cells
}

// next is rowReader.next with the cells that the format makes of a row, nil when it
// could not be cut. Header lines before the first NCIC record are passed over.
func (rows *fileRows) next() (cells [][]byte, fault string, err error) {
	for {
		cells, fault, err = rows.rowReader.next()
		switch {
		case fault != "" || err != nil:
			return nil, fault, err
		case rows.names != nil:
			return cells, "", nil
		}
		// What was once rejected is no header.
		if bytes.Contains(cells[0], []byte(errorMark)) {
			rows.seeking = false
		}
		switch cells = unmarked(cells); {
		case blank(cells) || rows.format == FormatGenetec:
			return cells, "", nil
		case rows.format == FormatNCIC:
			cells, fault = rows.cutRecord(cells)
		case rows.format == FormatNCICCSV:
			fault = rows.countRecord(cells)
		}
		if len(cells) > 2 && (isRecordNumber(string(cells[0])) || isDigits(string(cells[2]), 8)) {
			rows.seeking = false
		}
		if !rows.seeking {
			return cells, fault, nil
		}
		if len(rows.heads) < maxHeads {
			rows.heads = append(rows.heads, rows.rawLine())
		}
	}
}

// line is the text of the current row, and rawLine its bytes, without the line
// break.
func (rows *fileRows) line() string    { return decodeAnyhow(&rows.text, rows.raw) }
func (rows *fileRows) rawLine() string { return strings.TrimRight(string(rows.raw), "\r\n") }

// decodeAnyhow is decode for a row that may have been refused for its encoding.
func decodeAnyhow(text *textDecoder, cell []byte) string {
	if !text.look([][]byte{cell}) {
		text = &textDecoder{cp1252: true}
	}
	return text.decode(cell)
}

// WriteRejected copies from a file, read as format, the rows that errs names, in
// the layout of the file, each with what is wrong with it: under a header in a first
// column called error, without one in a first cell, after an NCIC record of fixed
// width behind a tab. An import passes over what was added, so that the rows can be
// mended and imported as they are. Cells that a spreadsheet would run get an
// apostrophe, and all but the records of fixed width are UTF-8. It returns the number
// of rows copied. errs must be in the order of the file, as in Import.Errors.
func WriteRejected(w io.Writer, file io.Reader, format Format, errs []RowError) (int, error) {
	rows, err := openRows(file, format, nil)
	if err != nil {
		return 0, err
	}
	out := rejectWriter{rows: rows, w: w}
	n := 0
	for len(errs) > 0 {
		cells, _, err := rows.next()
		if err == io.EOF {
			break // it is not the file that errs are of
		} else if err != nil {
			return n, fmt.Errorf("watchlist: read the file after row %d: %w", rows.row, err)
		}
		if cells != nil {
			rows.text.look(cells) // as ParseEntries does, for the sake of later rows
		}
		end := 0
		for end < len(errs) && errs[end].Row <= rows.row {
			end++
		}
		if end > 0 {
			if err := out.write(cells, errs[:end]); err != nil {
				return n, err
			}
			n++
		}
		errs = errs[end:]
	}
	return n, out.flush()
}

// rejectWriter writes rows of a file again.
type rejectWriter struct {
	rows  *fileRows
	w     io.Writer
	cells *csv.Writer // nil before the first row
}

// write writes the current row of the file, which has errs and, if it could be cut,
// cells.
func (rw *rejectWriter) write(cells [][]byte, errs []RowError) (err error) {
	texts := make([]string, len(errs))
	for i, e := range errs {
		if texts[i] = e.Reason; e.Column != "" {
			texts[i] = e.Column + ": " + e.Reason
		}
	}
	text := fmt.Sprintf("row %d: %s", errs[0].Row, strings.Join(texts, "; "))
	rows, first := rw.rows, rw.cells == nil
	if first {
		rw.cells = csv.NewWriter(rw.w)
		rw.cells.UseCRLF = true
		if rows.sep != 0 {
			rw.cells.Comma = rune(rows.sep)
		}
	}
	if rows.format == FormatNCIC {
		if first {
			for _, head := range rows.heads {
				if err == nil {
					_, err = io.WriteString(rw.w, head+"\r\n")
				}
			}
		}
		line, _, _ := strings.Cut(rows.rawLine(), "\t"+errorMark)
		if err == nil {
			_, err = io.WriteString(rw.w, line+"\t"+errorMark+text+"\r\n")
		}
		return wrapRejected(err)
	}
	if first {
		if _, err := io.WriteString(rw.w, "\ufeff"); err != nil {
			return wrapRejected(err)
		}
		if rows.names != nil {
			if err := rw.cells.Write(rw.record(errorColumn, rows.names)); err != nil {
				return wrapRejected(err)
			}
		}
	}
	if rows.names == nil {
		text = errorMark + text
	}
	return wrapRejected(rw.cells.Write(rw.record(text, rw.texts(cells))))
}

// texts are the cells of the current row, or the row in one cell when it could not
// be cut.
func (rw *rejectWriter) texts(cells [][]byte) (texts []string) {
	if cells == nil {
		return []string{rw.rows.line()}
	}
	for _, cell := range cells {
		texts = append(texts, decodeAnyhow(&rw.rows.text, cell))
	}
	return texts
}

// record puts what is wrong before the cells of a row, in the place of what an
// earlier WriteRejected wrote.
func (rw *rejectWriter) record(text string, cells []string) []string {
	out := []string{text}
	for i, s := range cells {
		if rw.rows.names == nil || i >= len(rw.rows.columns) || rw.rows.columns[i] != colError {
			out = append(out, escapeCell(unescapeCell(strings.TrimSpace(s))))
		}
	}
	return out
}

// flush writes what is held back.
func (rw *rejectWriter) flush() error {
	if rw.cells == nil {
		return nil
	}
	rw.cells.Flush()
	return wrapRejected(rw.cells.Error())
}

func wrapRejected(err error) error {
	if err != nil {
		return fmt.Errorf("watchlist: write the rejected rows: %w", err)
	}
	return nil
}
