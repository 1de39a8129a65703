package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vigie/watchlist/plate"
)

// write makes a corpus of vehicles, each read right, with a look-alike, with a
// character lost, and as nothing.
func write(t *testing.T, vehicles int) string {
	r := rand.New(rand.NewPCG(1, 2))
	s := &series{places: plate.FormPlaces(siv)}
	var b strings.Builder
	b.WriteString("engine,confidence,true_plate,country,read_plate\n")
	for range vehicles {
		truth := s.draw(r).String()
		for _, read := range []string{truth, strings.NewReplacer("B", "8", "D", "0").Replace(truth), truth[1:], ""} {
			fmt.Fprintf(&b, "e,%.2f,%s,FR,%s\n", 0.7+0.29*r.Float64(), truth, read)
		}
	}
	path := filepath.Join(t.TempDir(), "reads.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRun(t *testing.T) {
	o := options{corpus: write(t, 300), list: 5000, vehicles: "held-out", draws: 2, seed: 1, plot: filepath.Join(t.TempDir(), "plot.svg")}
	rep, err := run(&o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Vehicles < 100 || rep.Vehicles > 200 || rep.Reads != 4*rep.Vehicles || rep.ReadsFR != rep.Reads {
		t.Errorf("%d reads of %d vehicles, %d French; want about half of 300 vehicles, four reads each", rep.Reads, rep.Vehicles, rep.ReadsFR)
	}
	// One read of four is right, one more is right or has look-alikes only; the
	// near list finds at least some of those that lost a character.
	if e := rep.Exact; e.RecallFR < 0.25 || e.RecallFR > 0.49 || e.RecallFR != e.RecallAll || e.FalseFR != 0 {
		t.Errorf("exact: %+v", e)
	}
	if o := rep.OCR; o.RecallFR <= rep.Exact.RecallFR || o.RecallFR > 0.76 || o.FalseFR <= 0 || o.Threshold <= 0 {
		t.Errorf("ocr: %+v", o)
	}
	if n := rep.Near; n.RecallFR <= rep.Exact.RecallFR || n.RecallFR > 0.76 || n.FalseFR <= 0 {
		t.Errorf("near: %+v", n)
	}
	var out bytes.Buffer
	if err := rep.print(&out, true); err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	for _, tolerance := range []string{"exact", "ocr", "near"} {
		for _, key := range []string{"recall_fr", "recall_all", "false_per_million_fr", "false_per_million_all"} {
			if _, ok := back[tolerance].(map[string]any)[key]; !ok {
				t.Errorf("the JSON has no %s of %s", key, tolerance)
			}
		}
	}
	out.Reset()
	if err := rep.print(&out, false); err != nil || !strings.Contains(out.String(), "near") {
		t.Errorf("table: %v, %q", err, out.String())
	}
	if svg, err := os.ReadFile(o.plot); err != nil || !bytes.HasPrefix(svg, []byte("<svg")) {
		t.Errorf("plot: %v", err)
	}
}

func TestErrors(t *testing.T) {
	good := write(t, 3)
	for _, tc := range []struct {
		name, csv, want string
		o               options
	}{
		{name: "no corpus", want: "--corpus is required"},
		{name: "no such file", o: options{corpus: filepath.Join(t.TempDir(), "none.csv")}, want: "no such file"},
		{name: "list", o: options{corpus: good, list: -1}, want: "--list"},
		{name: "vehicles", o: options{corpus: good, vehicles: "some"}, want: "--vehicles"},
		{name: "a column is missing", csv: "true_plate,country,read_plate\n", want: "no column confidence"},
		{name: "confidence", csv: "true_plate,country,read_plate,confidence\nAB123CD,FR,AB123CD,high\n", want: "line 2: confidence"},
		{name: "country", csv: "true_plate,country,read_plate,confidence\nAB123CD,Atlantis,AB123CD,0.9\n", want: "line 2: country"},
		{name: "true plate", csv: "true_plate,country,read_plate,confidence\n???,FR,AB123CD,0.9\n", want: "line 2: true_plate"},
		{name: "none is French", csv: "true_plate,country,read_plate,confidence\n1234BCD,ES,1234BCD,0.9\n", want: "no read of a French plate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := tc.o
			if tc.csv != "" {
				o.corpus = filepath.Join(t.TempDir(), "bad.csv")
				if err := os.WriteFile(o.corpus, []byte(tc.csv), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if o.list == 0 {
				o.list = 10
			}
			if o.vehicles == "" {
				o.vehicles = "all"
			}
			if _, err := run(&o, io.Discard); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}
