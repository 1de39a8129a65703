package watchlist

import (
	"bytes"
	"strings"
	"unicode"
)

// ncicOrder are the columns of an NCIC record with the type of the plate.
var ncicOrder = []column{
	colRecord, colAgency, colDate, colPlate, colState, colPlateYear,
	colPlateType, colYear, colMake, colModel, colBody, colColour,
}

// ncicShort are those of a record of cells without it.
var ncicShort = []column{
	colRecord, colAgency, colDate, colPlate, colState, colPlateYear,
	colYear, colMake, colModel, colBody, colColour,
}

// ncicEnds is where the columns of ncicOrder end on a line; the colour goes on to
// the end of the line.
var ncicEnds = [...]int{10, 19, 27, 37, 39, 43, 45, 49, 53, 56, 58}

// minRecord is a line up to the first byte of the plate: not all extracts go on to
// the colour.
const minRecord = 28

// ncicFiles is what the letters of the NCIC files stand for.
var ncicFiles = map[byte]string{
	'A': "Amber alert",
	'B': "stolen boat",
	'C': "supervised release",
	'F': "felony",
	'H': "protection order",
	'K': "protective interest",
	'L': "violent person",
	'M': "missing person",
	'N': "immigration violator",
	'P': "stolen licence plate",
	'R': "Canadian record (CPIC)",
	'T': "gang or terrorist organisation member",
	'V': "stolen vehicle",
	'W': "wanted person",
	'X': "sex offender",
}

// Codes of states that NCIC writes otherwise than the postal services: NB is
// Nebraska, NK New Brunswick, and US the federal government.
const (
	ncicStates    = usStates + " NB US"
	ncicProvinces = "AB BC MB NF NK NL NS NT NU ON PE PQ QC SK YT"
)

// cutRecord cuts the line in cells into the columns of ncicOrder.
func (rows *fileRows) cutRecord(cells [][]byte) ([][]byte, string) {
	if len(cells) > 1 {
		return nil, "holds a NUL byte"
	}
	line, _, _ := bytes.Cut(cells[0], []byte("\t"+errorMark))
	if len(line) < minRecord {
		return nil, "is shorter than a record of NCIC"
	}
	rows.record = rows.record[:0]
	start := 0
	for _, end := range append(ncicEnds[:], len(line)) {
		end = max(start, min(end, len(line)))
		rows.record = append(rows.record, line[start:end])
		start = end
	}
	return rows.record, ""
}

// countRecord finds out by the number of cells which columns a record has.
func (rows *fileRows) countRecord(cells [][]byte) (fault string) {
	switch len(cells) {
	case len(ncicOrder):
		rows.columns = ncicOrder
	case len(ncicShort):
		rows.columns = ncicShort
	default:
		return "has another number of cells than the 11 or 12 of a record of NCIC"
	}
	return ""
}

// isRecord reports whether a line begins as a record of fixed width does.
func isRecord(line []byte) bool {
	line, _, _ = bytes.Cut(line, []byte("\t"+errorMark))
	return len(line) >= minRecord && isRecordNumber(string(line[:10])) && isDigits(string(line[19:27]), 8)
}

// isRecordNumber reports whether s is a record number: the letter of the file,
// with some extracts two digits before it, and a number.
func isRecordNumber(s string) bool {
	s = strings.TrimSpace(s)
	if len(s) > 3 && isDigits(s[:2], 2) {
		s = s[2:]
	}
	return len(s) >= 7 && s[0] >= 'A' && s[0] <= 'Z' && isDigits(s[1:], len(s)-1)
}

// isDigits reports whether s is n digits, with white space around.
func isDigits(s string, n int) bool {
	s = strings.TrimSpace(s)
	return len(s) == n && strings.Trim(s, "0123456789") == ""
}

// fromNCIC makes fields of the columns of a record.
func (row *fileRow) fromNCIC() {
	c := &row.cells
	if c[colRecord] != "" {
		c[colCaseRef] = c[colRecord]
		if at := strings.IndexFunc(c[colRecord], unicode.IsUpper); at >= 0 {
			c[colReason] = ncicFiles[c[colRecord][at]]
		}
	}
	c[colRequester] = zeroIsO(c[colAgency], 2)
	row.date(colDate, colValidFrom, "20060102", "is not a date; NCIC has yyyymmdd")
	state := zeroIsO(c[colState], 2)
	switch {
	case isOneOf(ncicStates, state):
		c[colCountry] = "US"
	case isOneOf(ncicProvinces, state):
		c[colCountry] = "CA"
	case strings.Trim(state, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "":
		row.faults.add(colState.String(), "is not a code of two letters")
	}
	c[colVehicle] = joinWords("; ",
		joinWords(" ", c[colColour], c[colYear], zeroIsO(c[colMake], len(c[colMake])), c[colModel], c[colBody]),
		plateOf(state, c[colPlateYear]))
}

// zeroIsO writes the letter O for the digit 0 among the first n bytes of a code
// that has letters only: NCIC has no letter O.
func zeroIsO(code string, n int) string {
	n = min(n, len(code))
	return strings.ReplaceAll(code[:n], "0", "O") + code[n:]
}
