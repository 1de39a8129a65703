package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"vigie/watchlist/plate"
)

// text writes records as a ledger.
func text(t testing.TB, h Header, records ...Record) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, h)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(records...); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sample has every kind of record.
func sample(t testing.TB) []byte {
	return text(t, Header{Start: 1_000_000, List: "load", Queue: "load", Tolerance: "exact", Plan: Plan{Run: "r", Seed: 7}},
		Record{Change: &Change{N: 0, Op: Add, List: "load", Plate: "AB-123-CD", Country: "FR", Issued: 1}},
		Record{Changed: &Changed{N: 0, Entry: "e0", Version: 3, Result: OK, Confirmed: 2}},
		Record{Read: &Read{N: 0, ID: "r-0", Sensor: "s", Plate: "AB-123-CD", Country: "FR", TS: 1000, Sent: 1_000_000}},
		Record{Outcome: &Outcome{First: 0, Count: 1, Result: OK, At: 1_001_000}},
		Record{Offset: &Offset{Partition: 1, Committed: 5, At: 9}},
		Record{End: &End{At: 2_000_000}},
	)
}

func readAll(b []byte) (records []Record, torn int, err error) {
	r, err := NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, 0, err
	}
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return records, r.Torn(), nil
		}
		if err != nil {
			return records, 0, err
		}
		records = append(records, rec)
	}
}

// TestTornAtEveryByte cuts a ledger at every byte: what was written whole is read,
// the rest is counted, and Load takes it.
func TestTornAtEveryByte(t *testing.T) {
	whole := sample(t)
	header := bytes.IndexByte(whole, '\n') + 1
	for n := range len(whole) + 1 {
		cut := whole[:n]
		records, torn, err := readAll(cut)
		if n < header {
			if !errors.Is(err, ErrNoHeader) {
				t.Errorf("%d bytes: %v, want ErrNoHeader", n, err)
			}
			continue
		}
		wantLines := bytes.Count(cut, []byte{'\n'}) - 1
		wantTorn := n - 1 - bytes.LastIndexByte(cut, '\n')
		if err != nil || len(records) != wantLines || torn != wantTorn {
			t.Errorf("%d bytes: %d records, %d torn, %v; want %d, %d", n, len(records), torn, err, wantLines, wantTorn)
		}
		h, err := Load(bytes.NewReader(cut))
		if err != nil {
			t.Errorf("%d bytes: Load: %v", n, err)
			continue
		}
		if h.Torn != wantTorn || h.Ended != (n == len(whole)) {
			t.Errorf("%d bytes: Load found %d torn bytes, ended %v", n, h.Torn, h.Ended)
		}
		// However much is cut off, the one alert is no violation, unless the read or
		// the entry itself is.
		rep := Check(h, Observed{Queue: []Alert{{ID: idOf("r-0", "s", "e0"), Read: "r-0", Sensor: "s", TS: 1000, List: "load", Entry: "e0", Exact: true}}}, Options{})
		if wantLines >= 3 && !rep.OK() {
			t.Errorf("%d bytes: %v", n, rep.Violations)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	good := string(sample(t))
	first, rest, _ := strings.Cut(good, "\n")
	const canary = "QX777QZ"
	for _, tt := range []struct {
		name, text string
		want       string
	}{
		{"empty", "", "header"},
		{"no header", rest, "header"},
		{"other JSON", `{"plate":"` + canary + `"}` + "\n", "header"},
		{"newer", strings.Replace(good, `"version":1`, `"version":2`, 1), "newer"},
		{"rubbish in the middle", first + "\n" + canary + "\n" + rest, "line 2"},
		{"wrong type", first + "\n" + `{"read":{"n":"` + canary + `"}}` + "\n", "line 2"},
		{"two kinds on one line", first + "\n" + `{"end":{"at":1},"offset":{}}` + "\n", "line 2"},
		{"endless line", first + "\n" + strings.Repeat("x", 1<<20) + "\n", "line 2 is too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := readAll([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("the error repeats the text: %v", err)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	h := Header{List: "load", Tolerance: "exact"}
	add := func(n int64, plate string) Record {
		return Record{Change: &Change{N: n, Op: Add, Plate: plate, Country: "FR"}}
	}
	for name, records := range map[string][]Record{
		"a change twice":              {add(0, "AB123CD"), add(0, "AB123CD")},
		"an outcome without a change": {{Changed: &Changed{N: 4, Result: OK}}},
		"no plate":                    {add(0, "!")},
		"no op":                       {{Change: &Change{Plate: "AB123CD"}}},
		"an entry of two plates": {add(0, "AB123CD"), {Changed: &Changed{N: 0, Entry: "e"}},
			add(1, "AB124CD"), {Changed: &Changed{N: 1, Entry: "e"}}},
		"an outcome of no read": {{Outcome: &Outcome{First: 0, Count: 1, Result: OK}}},
		"a read id twice": {add(0, "AB123CD"), {Read: &Read{N: 0, ID: "r", Sensor: "s", Plate: "AB123CD"}},
			{Read: &Read{N: 1, ID: "r", Sensor: "s", Plate: "AB123CD"}}},
	} {
		if _, err := Load(bytes.NewReader(text(t, h, records...))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestWriterConcurrent has many writers; every line comes out whole.
func TestWriterConcurrent(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b, Header{})
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 8, 200
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				id := fmt.Sprintf("%d-%d", i, j)
				if err := w.Append(Record{Read: &Read{ID: id}}, Record{Read: &Read{ID: id + "b"}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	records, torn, err := readAll(b.Bytes())
	if err != nil || torn != 0 || len(records) != 2*writers*each {
		t.Fatalf("%d records, %d torn, %v", len(records), torn, err)
	}
	for i := 0; i < len(records); i += 2 {
		if records[i].Read.ID+"b" != records[i+1].Read.ID {
			t.Fatalf("records of one Append are apart: %s, %s", records[i].Read.ID, records[i+1].Read.ID)
		}
	}
}

type failing struct{ left int }

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func TestWriterFails(t *testing.T) {
	w, err := NewWriter(&failing{left: 1 << 10}, Header{})
	if err != nil {
		t.Fatal(err)
	}
	for range 10_000 {
		err = w.Append(Record{Read: &Read{ID: "r"}})
	}
	if err == nil || w.Flush() == nil {
		t.Error("a full disk goes unseen")
	}
}

func plan() Plan {
	return Plan{Seed: 5, Run: "run", Rate: 1000, Duration: 10 * time.Second, WantedShare: 0.05, MisreadShare: 0.1, Changes: 20, Entries: 50, Sensors: 10}
}

// TestGenerator: the same plan gives the same reads; the shares are those asked for;
// reads that are not meant to be wanted are not.
func TestGenerator(t *testing.T) {
	p := plan()
	a, err := NewGenerator(p)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := NewGenerator(p)
	p.Seed++
	c, _ := NewGenerator(p)
	wanted := map[plate.Key]bool{}
	for _, text := range a.Wanted() {
		k, err := plate.Parse(text)
		if err != nil || k.Syntax(mustCountry(t)) != plate.Valid {
			t.Fatalf("wanted plate %q: %v", text, err)
		}
		wanted[k] = true
	}
	if len(wanted) != 100 {
		t.Errorf("%d wanted plates, want 100", len(wanted))
	}
	ids, hits, misread, differ := map[string]bool{}, 0, 0, 0
	for range p.Reads() {
		r, ok := a.Next()
		again, _ := b.Next()
		other, _ := c.Next()
		if !ok || r != again {
			t.Fatalf("read %d: %+v and %+v", r.N, ok, r == again)
		}
		if r.Plate != other.Plate {
			differ++
		}
		if ids[r.ID] || !valid(r.ID) {
			t.Fatalf("id %q", r.ID)
		}
		ids[r.ID] = true
		k, err := plate.Parse(r.Plate)
		if err != nil {
			t.Fatal(err)
		}
		if wanted[k] {
			hits++
		}
		if k.Syntax(mustCountry(t)) != plate.Valid {
			misread++
		}
	}
	if _, ok := a.Next(); ok {
		t.Error("the plan does not end")
	}
	if len(ids) != 10_000 || differ < 9_000 {
		t.Errorf("%d reads, %d of which another seed would change", len(ids), differ)
	}
	if hits < 350 || hits > 550 { // 5 % of 10,000, a tenth of them misread
		t.Errorf("%d reads of wanted plates", hits)
	}
	if misread < 700 || misread > 1200 {
		t.Errorf("%d reads are misread", misread)
	}
	for range 100 {
		if a.NextChange() != b.NextChange() {
			t.Fatal("the same plan changes other entries")
		}
	}
	if p.Due(2500) != 2500*time.Millisecond || p.ChangeDue(0) != 50*time.Millisecond {
		t.Errorf("read 2500 is due at %v, the first change at %v", p.Due(2500), p.ChangeDue(0))
	}
}

func mustCountry(t *testing.T) plate.Country {
	c, ok := plate.ParseCountry(Country)
	if !ok {
		t.Fatal("no such country")
	}
	return c
}

func TestPlanRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Plan){
		"Run": func(p *Plan) { p.Run = "a b" }, "Rate": func(p *Plan) { p.Rate = 0 }, "Duration": func(p *Plan) { p.Duration = 0 },
		"WantedShare": func(p *Plan) { p.WantedShare = 1.5 }, "MisreadShare": func(p *Plan) { p.MisreadShare = -1 },
		"Changes": func(p *Plan) { p.Changes = -1 }, "Entries": func(p *Plan) { p.Entries = 0 }, "Sensors": func(p *Plan) { p.Sensors = 0 },
	} {
		p := plan()
		spoil(&p)
		if _, err := NewGenerator(p); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHidesPlates: what may be logged by mistake shows no plate.
func TestHidesPlates(t *testing.T) {
	r, c := Read{ID: "r-1", Plate: "QX777QZ"}, Change{N: 4, Op: Add, Plate: "QX777QZ"}
	for _, text := range []string{fmt.Sprint(r), fmt.Sprintf("%+v", r), fmt.Sprintf("%#v", r), fmt.Sprintf("%v %#v", c, c)} {
		if strings.Contains(text, "QX777QZ") {
			t.Errorf("shows the plate: %s", text)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(sample(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, torn, err := readAll(b)
		h, loadErr := Load(bytes.NewReader(b))
		if err != nil {
			if loadErr == nil {
				t.Fatal("Load takes what the Reader refuses")
			}
			return
		}
		// What was read can be written, and is read as the same again.
		r, _ := NewReader(bytes.NewReader(b))
		again, tornAgain, err := readAll(text(t, r.Header(), records...))
		if err != nil || tornAgain != 0 || len(again) != len(records) || torn > len(b) {
			t.Fatalf("%d records become %d: %v", len(records), len(again), err)
		}
		x, _ := json.Marshal(records)
		y, _ := json.Marshal(again)
		if !bytes.Equal(x, y) {
			t.Fatalf("%s\nbecomes\n%s", x, y)
		}
		if loadErr == nil {
			Check(h, Observed{Hits: []Alert{{}}}, Options{})
		}
	})
}
