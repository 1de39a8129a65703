package sim

import (
	"slices"
	"testing"

	"vigie/watchlist/plate"
)

func TestDice(t *testing.T) {
	roll := func(seed uint64) (out []int) {
		d := NewDice(seed)
		for range 100 {
			n := d.Between(3, 9)
			if n < 3 || n > 9 {
				t.Fatalf("Between(3, 9) gave %d", n)
			}
			out = append(out, n, int(d.Bits()>>1), int(1e6*d.Exp()))
		}
		return out
	}
	if !slices.Equal(roll(5), roll(5)) || slices.Equal(roll(5), roll(6)) {
		t.Error("dice of one seed fall differently, or those of two alike")
	}
	d, hits := NewDice(1), 0
	for range 2000 {
		text, conf := d.Misread("GK482TZ")
		key, err := plate.Parse(text)
		if err != nil || text == "GK482TZ" || key.String() != text || conf < 0.4 || conf > 1 {
			t.Fatalf("a misread of %d characters with confidence %g: %v", len(text), conf, err)
		}
		if d.Chance(0.25) {
			hits++
		}
	}
	if hits < 400 || hits > 600 {
		t.Errorf("a chance of 1 in 4 came %d times in 2000", hits)
	}
	if Alpha3("FR") != "FRA" || Alpha3("") != "" || Alpha3("XX") != "" {
		t.Error("Alpha3 knows FR and nothing else of these")
	}
}
