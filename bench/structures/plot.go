package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// The plot reads on white and on black: no background, grey text of the same
// contrast to both, colours of middle lightness (Okabe and Ito, who chose them to
// be told apart by colour-blind eyes, too).
var colours = map[string]string{
	nameBloom:   "#d55e00",
	nameBlocked: "#0f8a66",
	nameFlat:    "#b98a00",
	nameMap:     "#2f8fc4",
	nameText:    "#b8618f",
	nameMatcher: "#767676",
}

const (
	plotWidth, plotHeight = 960, 400
	top, bottom           = 50, 340
	linesLeft, linesRight = 50, 330 // of the lines
	barsLeft, barsRight   = 690, 900
	grey                  = "#767676"
)

// svg draws what a miss costs over the number of entries and, beside it, the
// bytes per entry with the most entries.
func (r *results) svg() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="13" fill="%s">`+"\n", plotWidth, plotHeight, grey)
	text := func(x, y float64, anchor, colour, s string) {
		fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, colour, escape.Replace(s))
	}
	stroke := func(x1, y1, x2, y2 float64, colour string, width float64) {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%.1f" stroke-linecap="round"/>`+"\n", x1, y1, x2, y2, colour, width)
	}

	var sizes []int
	var names []string
	var slowest float64
	at := map[string]map[int]row{}
	for _, m := range r.Rows {
		if !slices.Contains(sizes, m.Entries) {
			sizes = append(sizes, m.Entries)
		}
		if at[m.Structure] == nil {
			at[m.Structure] = map[int]row{}
			names = append(names, m.Structure)
		}
		at[m.Structure][m.Entries] = m
		slowest = max(slowest, m.MissNs)
	}
	if len(sizes) == 0 {
		return b.String() + "</svg>\n"
	}
	slices.Sort(sizes)
	most := sizes[len(sizes)-1]

	// Lines: linear from 0, so that a height is a cost.
	step := niceStep(slowest / 5)
	highest := math.Ceil(slowest/step) * step
	y := func(ns float64) float64 { return bottom - ns/highest*(bottom-top) }
	x := func(i int) float64 {
		if len(sizes) == 1 {
			return linesRight
		}
		return linesLeft + float64(i)*(linesRight-linesLeft)/float64(len(sizes)-1)
	}
	text(linesLeft-30, 24, "start", grey, "a miss, ns")
	for v := 0.0; v <= highest; v += step {
		fmt.Fprintf(&b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="%s" stroke-opacity="0.3"/>`+"\n", linesLeft, y(v), linesRight, y(v), grey)
		text(linesLeft-8, y(v)+4, "end", grey, fmt.Sprint(v))
	}
	for i, n := range sizes {
		text(x(i), bottom+22, "middle", grey, count(n))
	}
	text((linesLeft+linesRight)/2, bottom+44, "middle", grey, "entries")
	for _, name := range names {
		for i, n := range sizes {
			here, ok := at[name][n]
			if !ok {
				continue
			}
			if i > 0 {
				if before, ok := at[name][sizes[i-1]]; ok {
					stroke(x(i-1), y(before.MissNs), x(i), y(here.MissNs), colours[name], 2.5)
				}
			}
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"/>`+"\n", x(i), y(here.MissNs), colours[name])
		}
	}

	// Labels at the end of the lines, pushed apart from the top down.
	byCost := slices.Clone(names)
	slices.SortFunc(byCost, func(a, b string) int {
		return cmp.Compare(at[b][most].MissNs, at[a][most].MissNs)
	})
	const gap = 19
	labels := make([]float64, len(byCost))
	for i, name := range byCost {
		labels[i] = y(at[name][most].MissNs) + 4
		if i > 0 {
			labels[i] = max(labels[i], labels[i-1]+gap)
		}
	}
	for i := len(labels) - 1; i >= 0; i-- { // those pushed below the axis come back up
		labels[i] = min(labels[i], bottom+4-float64(len(labels)-1-i)*gap)
	}
	for i, name := range byCost {
		stroke(linesRight+8, y(at[name][most].MissNs), linesRight+22, labels[i]-4, colours[name], 1)
		text(linesRight+27, labels[i], "start", colours[name], fmt.Sprintf("%s: %.0f", name, at[name][most].MissNs))
	}

	// Bars in the order of the table.
	text(barsLeft, 24, "start", grey, "bytes per entry, "+count(most)+" entries")
	var widest float64
	for _, name := range names {
		widest = max(widest, at[name][most].Bytes)
	}
	for i, name := range names {
		h := (bottom - top) / float64(len(names))
		w := max(1, at[name][most].Bytes/widest*(barsRight-barsLeft))
		y := top + float64(i)*h
		text(barsLeft, y+12, "start", colours[name], name)
		fmt.Fprintf(&b, `<rect x="%d" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", barsLeft, y+18, w, h-26, colours[name])
		text(barsLeft+w+6, y+18+(h-26)/2+4, "start", grey, fmt.Sprintf("%.1f", at[name][most].Bytes))
	}
	text(plotWidth/2, plotHeight-6, "middle", grey, r.Machine.String())
	b.WriteString("</svg>\n")
	return b.String()
}

var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// niceStep is 1, 2 or 5 times a power of ten, not below v.
func niceStep(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5} {
		if f*p >= v {
			return f * p
		}
	}
	return 10 * p
}
