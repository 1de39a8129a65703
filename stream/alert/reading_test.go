package alert

import (
	"testing"

	"vigie/sensors"
)

func TestOverrules(t *testing.T) {
	reading := func(plate string, conf float32) Reading {
		return ReadingOf(&sensors.Read{Plate: plate, Country: "FR", Conf: conf})
	}
	const valid, other, invalid = "AB-123-CD", "ab 124 cd", "A8-123-CDE"
	for _, tc := range []struct {
		name          string
		later, before Reading
		want          bool
	}{
		{"as sure", reading(other, 0.9), reading(valid, 0.9), true},
		{"surer", reading(other, 0.99), reading(valid, 0.5), true},
		{"hardly less sure", reading(other, 0.85), reading(valid, 0.9), true},
		{"less sure", reading(other, 0.84), reading(valid, 0.9), false},
		{"tells none", reading(other, 0), reading(valid, 0.9), true},
		{"none was told", reading(other, 0.1), reading(valid, 0), true},
		{"worse syntax", reading(invalid, 0.99), reading(valid, 0.5), false},
		{"better syntax", reading(valid, 0.9), reading(invalid, 0.9), true},
		{"better syntax and less sure", reading(valid, 0.3), reading(invalid, 0.9), false},
	} {
		if got := tc.later.Overrules(tc.before); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	if a, b := reading(valid, 0.9), reading("ab123cd", 0.3); a.Text != b.Text {
		t.Errorf("one plate written twice has two texts")
	}
	italian := ReadingOf(&sensors.Read{Plate: valid, Country: "IT"})
	if italian.Text == reading(valid, 0).Text {
		t.Error("the country makes no difference")
	}
	if got := ReadingOf(&sensors.Read{Plate: "#"}); got.Overrules(reading(valid, 0.9)) {
		t.Error("what is no plate overrules one")
	}
}
