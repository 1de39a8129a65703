package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"vigie/watchlist"
)

// plot is the curve of recall over false hits of French reads, for each
// tolerance: every point is a threshold that a list could set.
type plot struct{ curves []curve }

type curve struct {
	name   string
	points []point
	chosen point // at the default threshold
}

type point struct{ falsePerMillion, recall float64 }

// curve sorts the hits by score and adds up what each threshold would give.
func (p *plot) curve(tol watchlist.Tolerance, threshold float32, events []event, reads int) {
	slices.SortFunc(events, func(a, b event) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return 0
	})
	c := curve{name: tol.String()}
	var truths, falses float64
	for i, e := range events {
		if e.truth {
			truths++
		} else {
			falses += e.times
		}
		at := point{falses * 1e6 / float64(reads), truths / float64(reads)}
		if e.score >= threshold {
			c.chosen = at
		}
		if i == len(events)-1 || events[i+1].score != e.score {
			c.points = append(c.points, at)
		}
	}
	p.curves = append(p.curves, c)
}

// The frame of the picture, in its own units.
const (
	width, height            = 760, 480
	left, right, top, bottom = 70, 30, 60, 60
	minFalse, maxFalse       = 10.0, 2000.0
	minRecall, maxRecall     = 0.55, 0.90
)

func x(falsePerMillion float64) float64 {
	return left + (width-left-right)*math.Log(max(falsePerMillion, minFalse)/minFalse)/math.Log(maxFalse/minFalse)
}

func y(recall float64) float64 {
	return height - bottom - (height-top-bottom)*(recall-minRecall)/(maxRecall-minRecall)
}

// svg draws the picture. Its colours read on light and on dark ground.
func (p *plot) svg(r *report) []byte {
	var b strings.Builder
	f := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	f(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`, width, height)
	f(`<rect width="%d" height="%d" fill="white"/>`, width, height)
	f(`<text x="%d" y="24" font-size="16">Wanted vehicles found, against others shown to patrols</text>`, left)
	f(`<text x="%d" y="44" fill="#555">French plates, list of %d, %d single reads of vehicles not learnt from, %s. Dots: default threshold.</text>`, left, r.List, r.ReadsFR, r.Date)
	for _, v := range []float64{10, 20, 50, 100, 200, 500, 1000, 2000} {
		f(`<path d="M%.1f %d V%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%.0f</text>`, x(v), top, height-bottom, x(v), height-bottom+20, v)
	}
	for v := minRecall; v < maxRecall+0.001; v += 0.05 {
		f(`<path d="M%d %.1f H%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.0f %%</text>`, left, y(v), width-right, left-8, y(v)+4, 100*v)
	}
	f(`<text x="%d" y="%d" text-anchor="middle">false hits per million reads</text>`, (left+width-right)/2, height-16)
	colours := []string{"#333333", "#0067a5", "#be0032"}
	for i, c := range p.curves {
		colour := colours[i%len(colours)]
		var path strings.Builder
		for j, pt := range c.points {
			if pt.falsePerMillion > maxFalse || pt.recall < minRecall {
				continue
			}
			if path.Len() == 0 {
				fmt.Fprintf(&path, "M%.1f %.1f", x(pt.falsePerMillion), y(pt.recall))
			} else if j%25 == 0 || j == len(c.points)-1 {
				fmt.Fprintf(&path, "L%.1f %.1f", x(pt.falsePerMillion), y(pt.recall))
			}
		}
		f(`<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`, path.String(), colour)
		f(`<circle cx="%.1f" cy="%.1f" r="5" fill="%s"/>`, x(c.chosen.falsePerMillion), y(c.chosen.recall), colour)
		f(`<text x="%.1f" y="%.1f" fill="%s">%s: %.1f %% at %.0f</text>`, x(c.chosen.falsePerMillion)+10, y(c.chosen.recall)+18, colour, c.name, 100*c.chosen.recall, c.chosen.falsePerMillion)
	}
	f(`</svg>`)
	return []byte(b.String())
}
