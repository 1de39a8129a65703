package console_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vigie/stream/alert"
	"vigie/watchlist"
)

// faults is a script that returns what is wrong with what can be seen: text with
// too little contrast (WCAG 2.2, 1.4.3), things to press that are too small
// (2.5.8 asks for 24 px, gloves for more), and content wider than the screen.
const faults = `(() => {
  const found = [];
  const rgba = (text) => { const m = text.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3]));
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
  const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().width > 2;
  const behind = (e) => {
    const chain = [];
    for (let p = e; p; p = p.parentElement) chain.push(p);
    let c = [255, 255, 255];
    for (const p of chain.reverse()) {
      const s = getComputedStyle(p);
      if (s.backgroundImage.includes('gradient')) c = rgba(s.backgroundImage.match(/rgba?\([^)]*\)/)[0]).slice(0, 3);
      c = over(rgba(s.backgroundColor), c);
    }
    return c;
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; (n = walk.nextNode());) {
    const e = n.parentElement;
    if (!n.textContent.trim() || !seen(e)) continue;
    const s = getComputedStyle(e), back = behind(e);
    let ink = rgba(s.color);
    let alpha = ink[3];
    for (let p = e; p; p = p.parentElement) alpha *= Number(getComputedStyle(p).opacity);
    const size = parseFloat(s.fontSize), large = size >= 24 || (size >= 18.66 && Number(s.fontWeight) >= 700);
    const got = ratio(over([...ink.slice(0, 3), alpha], back), back);
    if (e.closest(':disabled') === null && got < (large ? 3 : 4.5)) found.push('contrast ' + got.toFixed(2) + ': ' + n.textContent.trim().slice(0, 40));
  }
  for (const e of document.querySelectorAll('button, input:not([type=radio]), textarea, .outcome')) {
    if (!seen(e)) continue;
    const r = e.getBoundingClientRect();
    if (r.height < 36 || r.width < 44) found.push('small ' + r.width + 'x' + r.height + ': ' + (e.textContent || e.id));
  }
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) found.push('wider than the screen by ' + wide);
  const card = document.querySelector('#card:not([hidden])');
  for (const p of card?.querySelectorAll('.plate') ?? []) {
    if (p.scrollWidth > p.clientWidth + 1 || p.getBoundingClientRect().right > card.getBoundingClientRect().right) found.push('a plate is cut off');
  }
  return found;
})()`

// TestLooks lays the page out on the two screens that patrols have, in light and
// dark, in each of its states, and looks for faults. With VIGIE_SCREENSHOTS it
// leaves a picture of each for a person to look at.
func TestLooks(t *testing.T) {
	browser := browse(t)
	for _, size := range []struct{ w, h int64 }{{360, 640}, {1280, 800}} {
		for _, dark := range []bool{false, true} {
			scheme := map[bool]string{false: "light", true: "dark"}[dark]
			name := func(state string) string { return fmt.Sprintf("%s-%d-%s", state, size.w, scheme) }
			t.Run(fmt.Sprintf("%dx%d %s", size.w, size.h, scheme), func(t *testing.T) {
				s := newService(t)
				p := open(t, browser, s.url, size.w, size.h, dark)
				look := func(state string) {
					t.Helper()
					p.shoot(name(state))
					if found := eval[[]string](p, faults); len(found) > 0 {
						t.Errorf("%s:\n  %s", state, strings.Join(found, "\n  "))
					}
				}
				p.wait("!document.querySelector('#login').hidden")
				look("login")
				p.do(navigate(s.link()))
				p.shows("#link", "En direct")
				look("empty")

				s.put(t, "exact", nil)
				p.shows("#card", "INTERPELLER")
				look("exact")
				s.put(t, "near", near)
				s.put(t, "discreet", func(a *alert.Alert) {
					a.Action, a.Stop, a.Priority = watchlist.ActionDiscreet, false, watchlist.PriorityMedium
					a.Match.Read, a.Match.Entry, a.Read.Country = "1234AB75", "1234AB75", "FR"
				})
				s.put(t, "late", func(a *alert.Alert) {
					a.Late, a.Stop, a.Priority = true, false, watchlist.PriorityInfo
					a.Read.TS -= 45 * 60_000
					a.Match.Read, a.Match.Entry = "WXYZ12345678", "WXYZ12345678"
					a.Read.Country, a.Match.Country, a.Place, a.Entry.Vehicle = "DE", "same", nil, ""
				})
				s.put(t, "long", func(a *alert.Alert) {
					a.Entry.Reason = strings.Repeat("Motif très long qui tient sur plusieurs lignes ", 4)
					a.Entry.CaseRef = strings.Repeat("PV/", 30)
					a.List.Name = "Objets et véhicules signalés, fichier des véhicules volés"
				})
				p.wait("document.querySelectorAll('#rows li').length === 5")
				s.step(t, "discreet", alert.VerbTake, "psig-4", "")
				p.shows("#rows", "psig-4")
				for i, state := range []string{"long", "late", "discreet", "near"} { // newest first
					p.do(click(fmt.Sprintf("#rows li:nth-child(%d) button", i+1)))
					p.wait("document.querySelectorAll('#rows [aria-current]').length === 1")
					look(state)
				}
				p.press("take")
				p.shows("#card", "prise en charge par vous")
				look("taken")
				p.do(scrollDown)
				look("scrolled")
				p.press("reject")
				p.wait("document.querySelector('#sheet').open")
				look("sheet")
				p.do(click("#sheet-cancel"))
				s.withdraw("entry-near")
				p.shows("#card", "ALERTE RETIRÉE")
				p.do(scrollUp)
				look("withdrawn")
				time.Sleep(50 * time.Millisecond)
			})
		}
	}
}
