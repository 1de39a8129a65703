package console_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"go.uber.org/zap"

	"vigie/cmd/vigie/internal/console"
	"vigie/cmd/vigie/internal/httpapi"
	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/redisqueue"
	"vigie/watchlist"
	"vigie/watchlist/plate"
)

const secret = "patrol-secret-for-the-console"

// service is the server that the page talks to: the real one, on queues in an
// in-process Redis.
type service struct {
	queues *redisqueue.Queues
	hub    *redisqueue.Hub
	url    string
	stop   func() // the server; start brings it back

	mu       sync.Mutex
	unwanted map[string]bool
	n        int // alerts put
}

type feed struct{ hub *redisqueue.Hub }

func (f feed) Subscribe(ctx context.Context, queue, after string) (httpapi.Subscription, error) {
	return f.hub.Subscribe(ctx, queue, after)
}

func newService(t *testing.T) *service {
	t.Helper()
	queues, err := redisqueue.Open(redisqueue.Config{Addr: miniredis.RunT(t).Addr()})
	if err != nil {
		t.Fatal(err)
	}
	s := &service{queues: queues, hub: redisqueue.NewHub(queues, redisqueue.HubConfig{}), unwanted: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.hub.Run(ctx) }()
	s.start(t, "127.0.0.1:0")
	t.Cleanup(func() {
		s.stop()
		cancel()
		if err := errors.Join(<-done, queues.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// start serves at addr until s.stop.
func (s *service) start(t *testing.T, addr string) {
	t.Helper()
	tokens := new(httpapi.Tokens)
	if err := tokens.Add(httpapi.Token{Name: "bri-12", Role: httpapi.RolePatrol, Queues: []string{"patrol"}}, secret); err != nil {
		t.Fatal(err)
	}
	server, err := httpapi.New(httpapi.Config{
		Addr: addr, Tokens: tokens, Log: zap.NewNop(), Alerts: s.queues, Feed: feed{s.hub},
		Console: console.Handler(), StillWanted: s.wanted,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.url = server.URL()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (s *service) wanted(c stream.Claim) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.unwanted[c.Entry]
}

func (s *service) withdraw(entry string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unwanted[entry] = true
}

// alert is an exact hit of high priority.
func (s *service) alert(id string) *alert.Alert {
	now := time.Now()
	fr, _ := plate.ParseCountry("FR")
	return &alert.Alert{
		ID: id, Queue: "patrol", Action: watchlist.ActionIntercept, Stop: true, Priority: watchlist.PriorityHigh,
		List: alert.ListRef{ID: "stolen", Name: "Véhicules volés", Owner: "DNPJ"},
		Entry: alert.EntryRef{
			ID: "entry-" + id, Version: 7, Plate: "AB-123-CD", Country: fr, Reason: "Vol avec violence, 28/02/2026", CaseRef: "PV 2026/00417",
			Vehicle: "Peugeot 308, grise",
		},
		Match: alert.Evidence{Kind: "exact", Country: "same", Grade: "high", Score: 0.97, Syntax: "valid", Read: "AB123CD", Entry: "AB123CD", Version: 1042},
		Read: sensors.Read{
			ID: "read-" + id, Sensor: "A7-118-2", Plate: "AB123CD", Country: "FR", TS: now.Add(-4 * time.Second).UnixMilli(),
			Conf: 0.93, Lane: 2, Make: "Peugeot", Color: "gris", Received: now.UnixMilli(),
		},
		Place:   &alert.Place{Name: "Péage de Vienne", Lat: 45.52, Lon: 4.87, Road: "A7", Direction: "Lyon"},
		Created: now.UnixMilli(),
	}
}

// put puts an alert, after change.
func (s *service) put(t *testing.T, id string, change func(*alert.Alert)) {
	t.Helper()
	s.n++
	a := s.alert(id)
	if change != nil {
		change(a)
	}
	if _, err := s.queues.Publish(t.Context(), []*alert.Alert{a}); err != nil {
		t.Fatal(err)
	}
}

// reread brings alert id up to a later read of its passage.
func (s *service) reread(t *testing.T, id, text string, hits bool, change func(*alert.Alert)) {
	t.Helper()
	a := s.alert(id)
	change(a)
	r := stream.Revision{Read: a.Read, At: time.Now()}
	r.Read.Plate = text
	if hits {
		r.Alerts = []*alert.Alert{a}
	}
	if _, err := s.queues.Revise(t.Context(), []stream.Revision{r}); err != nil {
		t.Fatal(err)
	}
}

// step does what another patrol would.
func (s *service) step(t *testing.T, id string, verb alert.Verb, actor, outcome string) {
	t.Helper()
	if _, err := s.queues.Step(t.Context(), redisqueue.StepRequest{AlertID: id, Verb: verb, Actor: actor, Outcome: outcome, Queues: []string{"patrol"}}); err != nil {
		t.Fatal(err)
	}
}

func (s *service) standing(t *testing.T, id string) alert.Standing {
	t.Helper()
	_, st, err := s.queues.Get(t.Context(), id, []string{"patrol"})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// chromium is the browser to test with. Without one the tests are skipped,
// unless VIGIE_TEST_REQUIRE says that this must not be.
func chromium(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("VIGIE_TEST_CHROMIUM"); path != "" {
		return path
	}
	if _, err := os.Stat("/usr/bin/chromium"); err == nil {
		return "/usr/bin/chromium"
	}
	if path, err := exec.LookPath("chromium"); err == nil {
		return path
	}
	const why = "no Chromium: name one in VIGIE_TEST_CHROMIUM, or install the package chromium"
	if os.Getenv("VIGIE_TEST_REQUIRE") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
	return ""
}

// browse starts the browser of a test.
func browse(t *testing.T) context.Context {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)),
		chromedp.NoSandbox, // a container has no user namespaces to build one from
		chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("mute-audio", true),
	)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(cancel)
	ctx, _ = chromedp.NewContext(ctx)
	t.Cleanup(func() { chromedp.Cancel(ctx) })
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return ctx
}

// page is one tab. A message on its console is a failure of the test: a breach of
// the content security policy, an exception, a resource that did not load.
type page struct {
	t   *testing.T
	ctx context.Context

	mu      sync.Mutex
	network bool // failures of the network are expected
}

func open(t *testing.T, browser context.Context, url string, width, height int64, dark bool) *page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	p := &page{t: t, ctx: ctx}
	messages := chromedp.Console(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m, err := range messages {
			if err != nil {
				return // the tab is closed
			}
			p.mu.Lock()
			if !(p.network && m.Source == "network") {
				t.Errorf("console %s %s: %s (%s:%d)", m.Type, m.Source, m.Text, m.URL, m.Line)
			}
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.EmulateViewport(width, height), chromedp.Navigate(url))
	return p
}

// link is the address of the page with its token behind the #.
func (s *service) link() string { return s.url + "/#token=" + secret + "&queue=patrol" }

func (p *page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

func eval[T any](p *page, expression string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// wait waits until an expression holds in the page.
func (p *page) wait(expression string) {
	p.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !eval[bool](p, "Boolean("+expression+")"); {
		if time.Now().After(deadline) {
			p.t.Fatalf("never so: %s\n%s", expression, eval[string](p, "document.body.innerText"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// shows waits until the text of an element has every part.
func (p *page) shows(selector string, parts ...string) {
	p.t.Helper()
	for _, part := range parts {
		p.wait("document.querySelector(" + quote(selector) + ")?.innerText.includes(" + quote(part) + ")")
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `\'`) + "'" }

// press clicks a button of the card once the card takes presses.
func (p *page) press(verb string) {
	p.t.Helper()
	p.wait("document.querySelector('#card [data-verb=" + verb + "]:enabled')")
	time.Sleep(400 * time.Millisecond) // presses right after a change of the card are dropped
	p.do(chromedp.Click(chromedp.CSS("#card [data-verb=" + verb + "]")))
}

// shoot keeps a picture when VIGIE_SCREENSHOTS names a folder.
func (p *page) shoot(name string) {
	p.t.Helper()
	dir := os.Getenv("VIGIE_SCREENSHOTS")
	if dir == "" {
		return
	}
	b, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), b, 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func TestHandler(t *testing.T) {
	h := console.Handler()
	for path, contentType := range map[string]string{
		"/": "text/html; charset=utf-8", "/console/app.js": "text/javascript; charset=utf-8",
		"/console/app.css": "text/css; charset=utf-8", "/console/icon.svg": "image/svg+xml",
	} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		head := rec.Result().Header
		if rec.Code != 200 || head.Get("Content-Type") != contentType || rec.Body.Len() == 0 {
			t.Errorf("%s: %d %s, %d bytes", path, rec.Code, head.Get("Content-Type"), rec.Body.Len())
		}
		csp := head.Get("Content-Security-Policy")
		for _, want := range []string{
			"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:",
			"base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'",
		} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: no %s in the policy %s", path, want, csp)
			}
		}
		if strings.Contains(csp, "unsafe") {
			t.Errorf("%s: %s", path, csp)
		}
		req := httptest.NewRequest("GET", path, nil)
		req.Header.Set("If-None-Match", head.Get("ETag"))
		rec = httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		if rec.Code != http.StatusNotModified {
			t.Errorf("%s asked for again: %d, want 304", path, rec.Code)
		}
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/console/other", nil))
	if rec.Code != 404 {
		t.Errorf("a file that is not there: %d", rec.Code)
	}
}

func TestConsole(t *testing.T) {
	browser := browse(t)

	t.Run("take, confirm, close", func(t *testing.T) {
		s := newService(t)
		p := open(t, browser, s.link(), 1280, 800, false)
		p.shows("#empty", "Aucune alerte")
		p.shows("#link", "En direct")
		if href := eval[string](p, "location.href"); strings.Contains(href, secret) {
			t.Errorf("the token is still in the address: %s", href)
		}
		s.put(t, "a1", nil)
		p.shows("#card", "INTERPELLER", "HAUTE", "EXACTE", "comme la fiche", "Véhicules volés", "Vol avec violence", "PV 2026/00417",
			"Peugeot 308", "Péage de Vienne", "Lyon", "il y a 0:", "93 %", "1042", "NON VÉRIFIÉE")
		if got := eval[string](p, "document.querySelector('.plate.read .chars').textContent"); got != "AB-123-CD" {
			t.Errorf("the plate is shown as %q", got)
		}
		if got := eval[string](p, "document.querySelector('#announce').textContent"); !strings.Contains(got, "HAUTE. INTERPELLER. A B 1 2 3 C D, France") {
			t.Errorf("announced as %q", got)
		}
		p.press("take")
		p.shows("#card", "prise en charge par vous")
		if st := s.standing(t, "a1"); st.State != alert.StateTaken || st.Owner != "bri-12" {
			t.Errorf("the server has it as %s of %q", st.State, st.Owner)
		}
		p.press("confirm")
		p.shows("#card", "✓ Lecture conforme", "vérifiée par vous")
		p.press("close")
		p.wait("document.querySelector('#sheet').open")
		p.shoot("sheet-1280-light")
		p.do(chromedp.Click(chromedp.CSS("input[value=intercepted]")), chromedp.SendKeys(chromedp.CSS("#note"), "RAS"), chromedp.Click(chromedp.CSS("#sheet-ok")))
		p.shows("#card", "ALERTE CLOSE", "Close par vous", "Véhicule intercepté")
		st := s.standing(t, "a1")
		if last := st.Events[len(st.Events)-1]; st.State != alert.StateClosed || last.Outcome != "intercepted" || last.Note != "RAS" {
			t.Errorf("the server has it as %s, %+v", st.State, last)
		}
		p.wait("!document.querySelector('#sheet').open")
	})

	t.Run("misread", func(t *testing.T) {
		s := newService(t)
		p := open(t, browser, s.link(), 360, 640, false)
		s.put(t, "a1", near)
		p.shows("#card", "APPROCHÉE", "1 caractère diffère", "8 lu, B sur la fiche")
		if got := eval[[]string](p, "[...document.querySelectorAll('.plate mark')].map((e) => e.textContent)"); strings.Join(got, "") != "8B" {
			t.Errorf("marked: %q", got)
		}
		p.press("take")
		p.press("reject")
		p.wait("document.querySelector('#sheet').open")
		p.do(chromedp.Click(chromedp.CSS("input[value=misread]")), chromedp.Click(chromedp.CSS("#sheet-ok")))
		p.shows("#card", "ALERTE ÉCARTÉE", "Écartée par vous", "Mal lu")
		if st := s.standing(t, "a1"); st.State != alert.StateRejected {
			t.Errorf("the server has it as %s", st.State)
		}
	})

	t.Run("another patrol is faster", func(t *testing.T) {
		s := newService(t)
		p := open(t, browser, s.link(), 1280, 800, false)
		s.put(t, "a1", nil)
		p.wait("document.querySelector('#card [data-verb=take]')")
		s.step(t, "a1", alert.VerbTake, "psig-4", "")
		p.shows("#card", "prise en charge par psig-4")
		if eval[bool](p, "document.querySelector('#card button') !== null") {
			t.Error("there is still something to press")
		}
	})

	t.Run("withdrawn", func(t *testing.T) {
		s := newService(t)
		p := open(t, browser, s.link(), 1280, 800, false)
		s.put(t, "a1", nil)
		p.shows("#card", "INTERPELLER")
		s.withdraw("entry-a1")
		p.shows("#card", "ALERTE RETIRÉE", "ne pas intervenir", "La fiche a été retirée de la liste.")
		p.shows("#rows", "Retirée")
		if eval[bool](p, "document.querySelector('#card button') !== null") {
			t.Error("there is still something to press")
		}
		s.put(t, "a2", nil)
		p.shows("#card", "INTERPELLER")
	})

	t.Run("the camera corrects itself", func(t *testing.T) {
		s := newService(t)
		p := open(t, browser, s.link(), 1280, 800, false)
		reads := func(revision uint32, conf float32) func(*alert.Alert) {
			return func(a *alert.Alert) { a.Read.Passage, a.Read.Revision, a.Read.Conf = "p1", revision, conf }
		}
		s.put(t, "a1", reads(0, 0.93))
		p.shows("#card", "INTERPELLER", "93 %")
		s.reread(t, "a1", "AB123CD", true, reads(1, 0.99))
		p.shows("#card", "INTERPELLER", "99 %")
		s.reread(t, "a1", "AB124CD", false, reads(2, 0.5)) // less sure than before
		p.shows("#card", "VÉRIFIER D’ABORD", "LA CAMÉRA S’EST CORRIGÉE", "NON VÉRIFIÉE")
		s.reread(t, "a1", "AB124CD", false, reads(3, 0.99))
		p.shows("#card", "ALERTE RETIRÉE", "ne pas intervenir", "La caméra lit maintenant une autre plaque.")
		p.shows("#rows", "Retirée")
		if eval[bool](p, "document.querySelector('#card button') !== null") {
			t.Error("there is still something to press")
		}
		s.reread(t, "a1", "AB123CD", true, reads(4, 0.97))
		p.shows("#card", "INTERPELLER", "97 %", "NON VÉRIFIÉE")
		if n := eval[int](p, "document.querySelectorAll('#rows li').length"); n != 1 {
			t.Errorf("%d rows for one alert", n)
		}
		p.press("take")
		p.shows("#card", "prise en charge par vous")
		s.reread(t, "a1", "AB124CD", false, reads(5, 0.97))
		p.shows("#card", "VÉRIFIER D’ABORD", "LA CAMÉRA S’EST CORRIGÉE", "prise en charge par vous")
		p.shoot("corrected-1280-light")
		p.press("confirm")
		p.shows("#card", "✓ Lecture conforme", "LA CAMÉRA S’EST CORRIGÉE")
		// Whoever comes later sees the same.
		late := open(t, browser, s.link(), 360, 640, true)
		late.shows("#card", "✓ Lecture conforme", "LA CAMÉRA S’EST CORRIGÉE", "97 %")
	})

	t.Run("no stop", func(t *testing.T) {
		s := newService(t)
		p := open(t, browser, s.link(), 1280, 800, false)
		s.put(t, "late", func(a *alert.Alert) { a.Late, a.Stop = true, false })
		p.shows("#card", "NE PAS ARRÊTER", "lecture tardive")
		s.put(t, "country", func(a *alert.Alert) {
			a.Stop, a.Read.Country, a.Match.Country, a.Match.Kind = false, "IT", "different", "ocr"
		})
		p.wait("document.querySelector('#newer:not([hidden])')")
		p.do(chromedp.Click(chromedp.CSS("#newer")))
		p.shows("#card", "NE PAS ARRÊTER", "PAYS DIFFÉRENT", "lu Italie, fiche France")
		if eval[bool](p, "document.body.innerText.includes('INTERPELLER')") {
			t.Error("the page asks for a stop")
		}
	})

	t.Run("a pattern", func(t *testing.T) {
		s := newService(t)
		p := open(t, browser, s.link(), 1280, 800, false)
		s.put(t, "a1", func(a *alert.Alert) {
			a.Match.Kind, a.Match.Entry, a.Entry.Plate = "pattern", "AB1??*", "AB-1??-*"
		})
		p.shows("#card", "APPROCHÉE", "Plaque partielle sur la fiche : ? vaut un caractère, * plusieurs ou aucun.")
		if eval[bool](p, "document.body.innerText.includes('plus long')") {
			t.Error("the page compares the lengths of a plate and a pattern")
		}
	})

	t.Run("an alert in hand is not replaced", func(t *testing.T) {
		s := newService(t)
		p := open(t, browser, s.link(), 1280, 800, false)
		s.put(t, "a1", nil)
		p.shows("#card", "NON VÉRIFIÉE")
		s.put(t, "a2", func(a *alert.Alert) {
			a.Priority, a.Match.Read, a.Match.Entry = watchlist.PriorityCritical, "EF456GH", "EF456GH"
		})
		p.shows("#newer", "1 autre alerte", "CRITIQUE", "EF-456-GH")
		p.shows("#card", "AB-123-CD")
		p.do(chromedp.Click(chromedp.CSS("#newer")))
		p.shows("#card", "CRITIQUE")
	})

	t.Run("the past of the queue", func(t *testing.T) {
		s := newService(t)
		s.put(t, "old", nil)
		s.put(t, "taken", nil)
		s.put(t, "new", func(a *alert.Alert) { a.Match.Read, a.Match.Entry = "EF456GH", "EF456GH" })
		s.step(t, "taken", alert.VerbTake, "psig-4", "")
		p := open(t, browser, s.link(), 1280, 800, false)
		p.wait("document.querySelectorAll('#rows li').length === 3")
		p.shows("#rows", "psig-4")
		p.wait("document.querySelector('.plate.read .chars')?.textContent === 'EF-456-GH'")
	})

	t.Run("link lost", func(t *testing.T) {
		s := newService(t)
		p := open(t, browser, s.link(), 1280, 800, false)
		s.put(t, "a1", nil)
		s.put(t, "a2", nil)
		p.wait("document.querySelectorAll('#rows li').length === 2")
		p.mu.Lock()
		p.network = true
		p.mu.Unlock()
		addr := strings.TrimPrefix(s.url, "http://")
		s.stop()
		p.shows("#loss", "Liaison perdue")
		p.shows("#link", "Liaison perdue")
		p.shoot("lost-1280-light")
		s.withdraw("entry-a1")
		s.put(t, "a3", nil)
		s.start(t, addr)
		p.wait("document.querySelector('#loss').hidden")
		p.wait("document.querySelectorAll('#rows li').length === 3")
		p.shows("#rows", "Retirée")
		p.shows(".bar", "1 alerte reçue pendant la coupure")
	})

	t.Run("wrong token", func(t *testing.T) {
		s := newService(t)
		p := open(t, browser, s.url, 360, 640, false)
		p.wait("!document.querySelector('#login').hidden")
		p.network = true
		p.do(chromedp.SendKeys(chromedp.ID("token"), "no such token at all"), chromedp.Click(chromedp.CSS("#login button")))
		p.shows("#login-error", "Ce jeton n’est pas reconnu.")
		if eval[bool](p, "sessionStorage.getItem('vigie') !== null || document.querySelector('#token').value !== ''") {
			t.Error("the token is still there")
		}
	})

	t.Run("keyboard", func(t *testing.T) {
		s := newService(t)
		p := open(t, browser, s.url, 1280, 800, false)
		p.wait("document.querySelector('#login').hidden === false")
		p.do(chromedp.Focus(chromedp.ID("token")), chromedp.KeyEvent(secret), chromedp.KeyEvent("\r"))
		p.shows("#link", "En direct")
		s.put(t, "a1", nil)
		p.wait("document.querySelector('#card [data-verb=take]')")
		time.Sleep(400 * time.Millisecond)
		for i := 0; eval[string](p, "document.activeElement.dataset?.verb ?? ''") != "take"; i++ {
			if i > 10 {
				t.Fatal("Tab does not reach the button")
			}
			p.do(chromedp.KeyEvent("\t"))
		}
		p.do(chromedp.KeyEvent("\r"))
		p.shows("#card", "prise en charge par vous")
	})

	t.Run("reload", func(t *testing.T) {
		s := newService(t)
		p := open(t, browser, s.link(), 1280, 800, false)
		s.put(t, "a1", nil)
		p.press("take")
		p.shows("#card", "prise en charge par vous")
		p.do(chromedp.Reload())
		p.shows("#card", "prise en charge par vous")
		p.do(chromedp.Click(chromedp.ID("leave")))
		p.wait("!document.querySelector('#login').hidden")
		if text := eval[string](p, "document.documentElement.textContent"); strings.Contains(text, "AB-123-CD") {
			t.Error("after the end of service a plate is still on the page")
		}
	})
}

// near is a read that differs from its entry in one character.
func near(a *alert.Alert) {
	a.Priority = watchlist.PriorityCritical
	a.Match.Kind, a.Match.Grade, a.Match.Read, a.Match.Syntax, a.Match.Differs = "ocr", "medium", "A8123CD", "invalid", []int{1}
	a.Read.Plate, a.Read.Country, a.Match.Country, a.Read.Conf = "A8123CD", "", "unknown", 0.71
	a.Entry.Safety = "Conducteur armé, dangereux"
}

func navigate(url string) chromedp.Action[chromedp.Void] { return chromedp.Navigate(url) }

func click(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.Click(chromedp.CSS(selector))
}

var (
	scrollDown = chromedp.Evaluate[chromedp.Void]("scrollTo(0, document.body.scrollHeight)")
	scrollUp   = chromedp.Evaluate[chromedp.Void]("scrollTo(0, 0)")
)
