package control

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	strict "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/text/encoding/charmap"

	"vigie/watchlist"
	"vigie/watchlist/plate"
)

// Limits of a file of sensors.
const (
	MaxSensorFile = 16 << 20 // bytes
	MaxSensorRows = 100_000
)

// SensorFile is a file of sensors that was read, before anything is written.
type SensorFile struct {
	// Rows is the number of sensors in it, good or bad.
	Rows int
	// Errors are all that is wrong with them, in the order of the file. Plan adds to
	// them: some rules hold only for what a row and the registry say together.
	Errors []watchlist.RowError

	rows []sensorRow
	bad  map[int]bool // rows with errors
}

type sensorRow struct {
	row int
	sensorFields
}

// sensorFields is what a file says of a sensor. What is nil it does not say.
type sensorFields struct {
	ID        *string   `json:"id"`
	Name      *string   `json:"name"`
	Lat       *float64  `json:"lat"`
	Lon       *float64  `json:"lon"`
	Road      *string   `json:"road"`
	Direction *string   `json:"direction"`
	Zones     *[]string `json:"zones"`
	Owner     *string   `json:"owner"`
	Kind      *string   `json:"kind"`
	Format    *string   `json:"format"`
	Clock     *string   `json:"clock"`
	Zone      *string   `json:"time_zone"`
	Scale     *string   `json:"scale"`
	Country   *string   `json:"country"`
	Lists     *[]string `json:"lists"`
	Purposes  *[]string `json:"purposes"`
	Version   *int64    `json:"version"` // of an export; it says nothing here
}

// texts, numbers and sets are the places in f of the columns of their kind.
func (f *sensorFields) texts() map[string]**string {
	return map[string]**string{
		"id": &f.ID, "name": &f.Name, "road": &f.Road, "direction": &f.Direction, "owner": &f.Owner, "kind": &f.Kind,
		"format": &f.Format, "clock": &f.Clock, "time_zone": &f.Zone, "scale": &f.Scale, "country": &f.Country,
	}
}

func (f *sensorFields) numbers() map[string]**float64 {
	return map[string]**float64{"lat": &f.Lat, "lon": &f.Lon}
}

func (f *sensorFields) sets() map[string]**[]string {
	return map[string]**[]string{"zones": &f.Zones, "lists": &f.Lists, "purposes": &f.Purposes}
}

// over returns s with what f says in place of what it was.
func (f *sensorFields) over(s Sensor) Sensor {
	put(&s.ID, f.ID)
	put(&s.Name, f.Name)
	put(&s.Lat, f.Lat)
	put(&s.Lon, f.Lon)
	put(&s.Road, f.Road)
	put(&s.Direction, f.Direction)
	put(&s.Zones, f.Zones)
	put(&s.Owner, f.Owner)
	put((*string)(&s.Kind), f.Kind)
	put(&s.Format, f.Format)
	put(&s.Clock, f.Clock)
	put(&s.Zone, f.Zone)
	put(&s.Scale, f.Scale)
	put(&s.Country, f.Country)
	put(&s.Lists, f.Lists)
	put(&s.Purposes, f.Purposes)
	s.Version = 0
	s.Normalise()
	return s
}

func put[T any](dst, v *T) {
	if v != nil {
		*dst = *v
	}
}

// Normalise writes the country of s as alpha-2, if it is one.
func (s *Sensor) Normalise() {
	if c, ok := plate.ParseCountry(s.Country); ok {
		s.Country = c.String()
	}
}

// sensorColumns begins with the JSON names of Sensor; what follows is met in French files.
var sensorColumns = [][]string{
	{"id", "identifiant", "capteur", "sensor"},
	{"name", "nom", "libellé"},
	{"lat", "latitude"},
	{"lon", "lng", "longitude"},
	{"road", "route", "voie", "axe"},
	{"direction", "sens"},
	{"zones", "zone"},
	{"owner", "service", "propriétaire"},
	{"kind", "type"},
	{"format", "constructeur"},
	{"clock", "horloge"},
	{"time_zone", "timezone", "fuseau", "fuseau_horaire"},
	{"scale", "échelle"},
	{"country", "pays"},
	{"lists", "list", "listes", "liste"},
	{"purposes", "purpose", "finalités", "finalité"},
	{"version"},
}

// knownSensorColumns is for error texts.
var knownSensorColumns = func() string {
	var names []string
	for _, c := range sensorColumns {
		names = append(names, c[0])
	}
	return strings.Join(names, ", ")
}()

// sensorColumn returns the JSON name for the head of a column, or "".
func sensorColumn(head string) string {
	head = strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(strings.TrimSpace(head)))
	for _, c := range sensorColumns {
		if slices.Contains(c, head) {
			return c[0]
		}
	}
	return ""
}

// ReadSensors reads a file of sensors, CSV or JSON. What is wrong with single rows stands
// in the result; the error is a *watchlist.FileError for what is no such file, or that
// of r.
//
// CSV has a row of column names, in English or French, in any order; ; , or tab between
// cells, UTF-8 or Windows-1252. The members of zones, lists and purposes stand in one cell
// with | between them; a latitude may have a decimal comma. JSON is an array of sensors as
// the API shows them, or an object with one called sensors.
//
// What a file does not say of a sensor stays as it is: a column that is not there, or in
// JSON a name. An empty cell empties, but leaves a position as it is.
func ReadSensors(r io.Reader) (*SensorFile, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxSensorFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("control: read sensors: %w", err)
	case len(b) > MaxSensorFile:
		return nil, &watchlist.FileError{Reason: fmt.Sprintf("the file is longer than %d MB", MaxSensorFile>>20)}
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	f := &SensorFile{bad: map[int]bool{}}
	switch start := bytes.TrimSpace(b); {
	case len(start) == 0:
		return nil, &watchlist.FileError{Reason: "the file is empty"}
	case start[0] == '[' || start[0] == '{':
		err = f.readJSON(start)
	default:
		err = f.readCSV(b)
	}
	if err != nil {
		return nil, err
	}
	if f.Rows > MaxSensorRows {
		return nil, &watchlist.FileError{Reason: fmt.Sprintf("the file has %d sensors; at most %d are allowed", f.Rows, MaxSensorRows)}
	}
	f.checkIDs()
	return f, nil
}

func (f *SensorFile) reject(row int, column, reason string) {
	f.Errors = append(f.Errors, watchlist.RowError{Row: row, Column: column, Reason: reason})
	f.bad[row] = true
}

// Rejected is the number of sensors with errors.
func (f *SensorFile) Rejected() int { return len(f.bad) }

// checkIDs refuses rows that name no sensor, or one that was named before.
func (f *SensorFile) checkIDs() {
	seen := map[string]int{}
	for i := range f.rows {
		row := &f.rows[i]
		switch {
		case row.ID == nil || *row.ID == "":
			if !f.bad[row.row] {
				f.reject(row.row, "id", "is mandatory")
			}
		case seen[*row.ID] > 0:
			f.reject(row.row, "id", fmt.Sprintf("is the same as in row %d", seen[*row.ID]))
		default:
			seen[*row.ID] = row.row
		}
	}
}

// Plan compares the file with the registry: existing returns the sensor with an id, or
// nil; check returns every rule that a sensor breaks, (*Sensor).Validate or more. It
// returns the sensors to be written, new ones and those that differ, and the number that
// need not be; it is called once. With an error in any row nothing should be written.
func (f *SensorFile) Plan(existing func(id string) *Sensor, check func(*Sensor) []watchlist.FieldError) (added, changed []*Sensor, same int) {
	for i := range f.rows {
		row := &f.rows[i]
		if f.bad[row.row] {
			continue
		}
		var before Sensor
		old := existing(*row.ID)
		if old != nil {
			before = *old
		}
		s := row.over(before)
		errs := check(&s)
		for _, e := range errs {
			f.reject(row.row, e.Field, e.Reason)
		}
		switch {
		case len(errs) > 0:
		case old == nil:
			added = append(added, &s)
		case s.Equal(old):
			same++
		default:
			changed = append(changed, &s)
		}
	}
	slices.SortStableFunc(f.Errors, func(a, b watchlist.RowError) int { return a.Row - b.Row })
	return added, changed, same
}

func (f *SensorFile) readJSON(b []byte) error {
	var file struct {
		Sensors []jsontext.Value `json:"sensors"`
		Next    string           `json:"next"` // of a page of the API
	}
	var err error
	if b[0] == '[' {
		err = strict.Unmarshal(b, &file.Sensors)
	} else {
		err = strict.Unmarshal(b, &file, strict.RejectUnknownMembers(true))
	}
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.As(err, &syntactic):
		return &watchlist.FileError{Reason: fmt.Sprintf("the file is not JSON from byte %d on, or a name stands there twice", syntactic.ByteOffset)}
	case err != nil:
		return &watchlist.FileError{Reason: `the file is JSON, but neither an array of sensors nor {"sensors": […]}`}
	case file.Next != "":
		return &watchlist.FileError{Reason: "the file is one page of several; export all (vigie sensors list -o json)"}
	}
	f.Rows = len(file.Sensors)
	for i, v := range file.Sensors {
		row := sensorRow{row: i + 1}
		if err := strict.Unmarshal(v, &row.sensorFields, strict.RejectUnknownMembers(true)); err != nil {
			var semantic *strict.SemanticError
			column := ""
			if errors.As(err, &semantic) {
				column, _, _ = strings.Cut(strings.TrimPrefix(string(semantic.JSONPointer), "/"), "/")
			}
			if !slices.ContainsFunc(sensorColumns, func(c []string) bool { return c[0] == column }) {
				f.reject(row.row, "", "is no sensor, or says something that is not known of one; known are "+knownSensorColumns)
				continue
			}
			f.reject(row.row, column, "is of the wrong kind: lat and lon are numbers, zones, lists and purposes lists of texts, all else is a text")
			continue
		}
		f.rows = append(f.rows, row)
	}
	return nil
}

func (f *SensorFile) readCSV(b []byte) error {
	switch {
	case bytes.HasPrefix(b, []byte("\xff\xfe")), bytes.HasPrefix(b, []byte("\xfe\xff")):
		return &watchlist.FileError{Reason: "the file is UTF-16; save it as CSV in UTF-8"}
	case bytes.HasPrefix(b, []byte("PK\x03\x04")):
		return &watchlist.FileError{Reason: "the file is a workbook; save it as CSV in UTF-8"}
	case !utf8.Valid(b):
		var err error
		if b, err = charmap.Windows1252.NewDecoder().Bytes(b); err != nil {
			return &watchlist.FileError{Reason: "the file is neither UTF-8 nor Windows-1252"}
		}
	}
	columns, r, err := sensorHeader(b)
	if err != nil {
		return err
	}
	var say sensorFields // of the row in hand
	fill := f.filler(columns, &say)
	for {
		cells, err := r.Read()
		if err == io.EOF {
			return nil
		}
		if f.Rows > MaxSensorRows {
			return nil // enough is known
		}
		var fault *csv.ParseError
		if errors.As(err, &fault) {
			f.Rows++
			f.reject(fault.StartLine, "", "has a quote that is not closed, or text after one that is")
			continue
		}
		if !slices.ContainsFunc(cells, func(c string) bool { return strings.TrimSpace(c) != "" }) {
			continue
		}
		line, _ := r.FieldPos(0)
		f.Rows++
		say = sensorFields{}
		fill(line, cells)
		f.rows = append(f.rows, sensorRow{line, say})
	}
}

// sensorHeader finds the separator, and the JSON name of each column.
func sensorHeader(b []byte) (columns []string, r *csv.Reader, err error) {
	var heads []string
	best := 0
	for _, sep := range []rune{';', ',', '\t'} {
		try := csv.NewReader(bytes.NewReader(b))
		try.Comma, try.FieldsPerRecord = sep, -1
		cells, err := try.Read()
		if err != nil {
			continue
		}
		names, known := make([]string, len(cells)), 0
		for i, c := range cells {
			if names[i] = sensorColumn(c); names[i] != "" {
				known++
			}
		}
		if known > best {
			columns, r, heads, best = names, try, cells, known
		}
	}
	if best == 0 {
		return nil, nil, &watchlist.FileError{Reason: "the file has no header: no cell of its first row is the name of a column; known are " + knownSensorColumns}
	}
	var faults []string
	for i, name := range columns {
		switch {
		case name == "" && strings.TrimSpace(heads[i]) != "":
			faults = append(faults, fmt.Sprintf("column %d is not known", i+1))
		case name != "" && slices.Index(columns, name) < i:
			faults = append(faults, fmt.Sprintf("columns %d and %d both hold %s", slices.Index(columns, name)+1, i+1, name))
		}
	}
	if !slices.Contains(columns, "id") {
		faults = append(faults, "column id is missing")
	}
	if faults != nil {
		return nil, nil, &watchlist.FileError{Reason: "the file has a wrong header: " + strings.Join(faults, "; ") + "; known are " + knownSensorColumns}
	}
	return columns, r, nil
}

// filler returns what takes the cells of a row into say.
func (f *SensorFile) filler(columns []string, say *sensorFields) func(row int, cells []string) {
	texts, numbers, sets := say.texts(), say.numbers(), say.sets()
	return func(row int, cells []string) {
		for i, cell := range cells {
			cell = strings.TrimSpace(cell)
			name := ""
			if i < len(columns) {
				name = columns[i]
			}
			switch {
			case name == "":
				if cell != "" {
					f.reject(row, "", fmt.Sprintf("has a value in column %d, which the header does not name", i+1))
				}
			case texts[name] != nil:
				*texts[name] = &cell
			case numbers[name] != nil && cell != "":
				v, err := strconv.ParseFloat(strings.Replace(cell, ",", ".", 1), 64)
				if err != nil {
					f.reject(row, name, "is not a number of degrees such as 48.8566")
				}
				*numbers[name] = &v
			case sets[name] != nil:
				members := []string{}
				for m := range strings.SplitSeq(cell, "|") {
					if m = strings.TrimSpace(m); m != "" {
						members = append(members, m)
					}
				}
				if name != "purposes" && strings.ContainsAny(cell, ",;") {
					f.reject(row, name, "has a comma or semicolon; put | between its members")
				}
				*sets[name] = &members
			}
		}
	}
}
