package watchlist_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vigie/watchlist"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares v as indented JSON with a file of testdata.
func golden(t *testing.T, name string, v any) {
	t.Helper()
	var got bytes.Buffer
	enc := json.NewEncoder(&got)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s differs (go test -update rewrites it)\n got: %s\nwant: %s", path, got.Bytes(), want)
	}
}

// now is the moment of all tests.
var now = time.Date(2026, 3, 14, 8, 30, 0, 0, time.UTC)

// paris is in summer time from 29 March to 25 October 2026.
var paris = func() *time.Location {
	loc, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		panic(err)
	}
	return loc
}()

// stolen returns a list that passes Validate.
func stolen() *watchlist.List {
	return &watchlist.List{
		ID: "stolen", Name: "Véhicules volés", Owner: "DNPJ", LegalBasis: "CSI L233-1",
		DefaultAction: watchlist.ActionIntercept,
		Salt:          []byte("0123456789abcdef"),
	}
}

// input returns an entry that passes NewEntry.
func input() watchlist.EntryInput {
	return watchlist.EntryInput{
		Plate: "AB-123-CD", Country: "F", Reason: "vol du 12 mars", CaseRef: "2026/00417",
		ValidUntil: now.AddDate(0, 1, 0),
	}
}
