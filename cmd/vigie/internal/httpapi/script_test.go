package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestScripts plays the conversations of testdata/script against the real
// handler. A file is a list of exchanges:
//
//	### what is shown
//	> METHOD path [as token]
//	> Header: value
//	>
//	> body
//	< status
//	< Header: value       (those of keepHeaders that the answer has)
//	<
//	< body
//
// Exchanges of a file share one server. go test -update rewrites the answers.
// $ENTRY stands for the id of the entry that was put last.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			w.alerts.put(testAlert("a1", "patrol"))
			w.alerts.put(testAlert("a2", "discreet"))
			gone := testAlert("a3", "patrol")
			gone.Entry.ID = "e3"
			w.alerts.put(gone)
			w.withdraw("e3")

			var out strings.Builder
			entry := ""
			for part := range strings.SplitSeq(string(b), "### ") {
				if strings.TrimSpace(part) == "" {
					out.WriteString(part)
					continue
				}
				title, rest, _ := strings.Cut(part, "\n")
				var request, want []string
				for line := range strings.Lines(rest) {
					line = strings.TrimRight(line, "\n")
					switch {
					case strings.HasPrefix(line, ">"):
						request = append(request, line)
					case strings.HasPrefix(line, "<"):
						want = append(want, line)
					}
				}
				got := w.exchange(t, request, &entry)
				if !*update && strings.Join(got, "\n") != strings.Join(want, "\n") {
					t.Errorf("%s\n%s\ngot\n%s\nwant\n%s", title, strings.Join(request, "\n"), strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				fmt.Fprintf(&out, "### %s\n%s\n%s\n\n", title, strings.Join(request, "\n"), strings.Join(got, "\n"))
			}
			if *update {
				if err := os.WriteFile(file, []byte(strings.TrimRight(out.String(), "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

var keepHeaders = []string{"Content-Type", "Allow", "Location", "Retry-After", "WWW-Authenticate"}

// exchange sends the request of lines that begin with > and returns the answer
// as lines that begin with <.
func (w *world) exchange(t *testing.T, lines []string, entry *string) []string {
	t.Helper()
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(strings.TrimPrefix(line, ">"), " ")
	}
	first := strings.Fields(strings.ReplaceAll(lines[0], "$ENTRY", *entry))
	head := 1
	for head < len(lines) && lines[head] != "" {
		head++
	}
	body := ""
	if head < len(lines) {
		body = strings.Join(lines[head+1:], "\n")
	}
	req, err := http.NewRequest(first[0], w.URL()+first[1], strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if len(first) > 3 {
		req.Header.Set("Authorization", "Bearer "+secrets[first[3]])
	}
	for _, line := range lines[1:head] {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	for i := range lines {
		lines[i] = strings.TrimRight("> "+lines[i], " ")
	}
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	answer := strings.TrimRight(string(b), "\n")
	if loc := res.Header.Get("Location"); loc != "" {
		*entry = filepath.Base(loc)
	}
	out := []string{fmt.Sprintf("< %d", res.StatusCode)}
	for _, name := range keepHeaders {
		if v := res.Header.Get(name); v != "" {
			out = append(out, "< "+name+": "+v)
		}
	}
	out = append(out, "<")
	for line := range strings.SplitSeq(answer, "\n") {
		out = append(out, "< "+line)
	}
	if len(*entry) > 20 {
		for i := range out {
			out[i] = strings.ReplaceAll(out[i], *entry, "$ENTRY")
		}
	}
	return out
}
