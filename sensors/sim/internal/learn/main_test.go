package main

import (
	"reflect"
	"strings"
	"testing"
)

func TestAlign(t *testing.T) {
	for _, tt := range []struct {
		truth, read string
		want        []edit
	}{
		{"AB123CD", "AB123CD", nil},
		{"AB123CD", "A8123CO", []edit{{6, 'D', 'O'}, {1, 'B', '8'}}},
		{"AB123CD", "AB123C", []edit{{6, 'D', 0}}},
		{"AB123CD", "B123CD", []edit{{0, 'A', 0}}},
		{"AB123CD", "AB13CD", []edit{{3, '2', 0}}},
		{"AB123CD", "IAB123CD", []edit{{0, 0, 'I'}}},
		{"AB123CD", "AB123CD1", []edit{{7, 0, '1'}}},
		{"AB123CD", "AB1723CD", []edit{{3, 0, '7'}}},
		{"AB123CD", "X", []edit{{6, 'D', 'X'}, {5, 'C', 0}, {4, '3', 0}, {3, '2', 0}, {2, '1', 0}, {1, 'B', 0}, {0, 'A', 0}}},
	} {
		if got := align(tt.truth, tt.read); len(got) != len(tt.want) || len(got) > 0 && !reflect.DeepEqual(got, tt.want) {
			t.Errorf("align(%s, %s) = %v, want %v", tt.truth, tt.read, got, tt.want)
		}
	}
}

func TestCount(t *testing.T) {
	const reads = `engine,read_plate,true_plate,confidence
x,AB123CD,AB123CD,0.95
x,A8123CD,AB123CD,0.5
x,AB123C,AB123CD,0.55
x,1AB123CD,AB123CD,1.0
y,WW,GH456JK,0.1
`
	c, err := count(strings.NewReader(reads))
	if err != nil {
		t.Fatal(err)
	}
	if c.reads != 5 || c.plates != 2 || c.longer != 3 {
		t.Errorf("%d reads of %d plates, %d of another length; want 5, 2, 3", c.reads, c.plates, c.longer)
	}
	if want := [maxEdits + 1]int{1, 3, 0, 0, 0, 0, 0, 1, 0}; c.edits != want {
		t.Errorf("edits %v, want %v", c.edits, want)
	}
	if c.subs[11][8] != 1 || c.deletions[2] < 1 || c.insertions[0] != 1 || c.inserted[1] != 1 {
		t.Errorf("B read as 8: %d, last character deleted: %d, inserted in front: %d, inserted 1: %d",
			c.subs[11][8], c.deletions[2], c.insertions[0], c.inserted[1])
	}
	if c.band[9] != [2]int{1, 1} || c.band[5] != [2]int{0, 2} || c.band[1] != [2]int{0, 1} {
		t.Errorf("bands %v", c.band)
	}
	src, err := c.source("reads.csv", "2026-01-02")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"DO NOT EDIT", "Counted on 2026-01-02 from 5 reads of 2 plates, 4 of them wrong", "engine, read_plate, true_plate, confidence", "-csv reads.csv"} {
		if !strings.Contains(string(src), want) {
			t.Errorf("the file does not say %q", want)
		}
	}
	if strings.Contains(string(src), "AB123CD") {
		t.Error("the file holds a plate")
	}
}

func TestCountRefuses(t *testing.T) {
	for body, want := range map[string]string{
		"":                                   "header",
		"true_plate,read_plate\n":            "no column confidence",
		"true_plate,read_plate,confidence\n": "right and wrong reads",
		"true_plate,read_plate,confidence\nAB-123-CD,AB123CD,1\n": "line 2: a plate is not in A-Z and 0-9",
		"true_plate,read_plate,confidence\nAB123CD,,1\n":          "line 2: a plate is not in A-Z and 0-9",
		"true_plate,read_plate,confidence\nAB123CD,AB123CD,95\n":  "line 2: confidence is not a number from 0 to 1",
	} {
		if _, err := count(strings.NewReader(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("count(%q): %v, want %q", body, err, want)
		}
	}
}
