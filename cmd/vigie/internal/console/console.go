// Package console is the page on which patrols watch their queue. It is plain
// HTML, CSS and one script, embedded in the program and fed only by the JSON
// and the event stream of package httpapi: a script of an operator can do
// whatever the page can.
//
// The page loads nothing from elsewhere and keeps its token in the tab alone.
package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"net/http"
	"path"
	"time"
)

//go:embed assets
var assets embed.FS

// policy allows what the page is made of and nothing else: no inline script or
// style, no other origin, no frame around it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// permissions gives the page the screen's wake lock and nothing else.
const permissions = "screen-wake-lock=(self), camera=(), geolocation=(), microphone=(), payment=(), usb=()"

// Handler serves the page at / and its parts below /console/.
func Handler() http.Handler {
	files := map[string]file{
		"/":                 load("index.html", "text/html; charset=utf-8"),
		"/console/app.css":  load("app.css", "text/css; charset=utf-8"),
		"/console/app.js":   load("app.js", "text/javascript; charset=utf-8"),
		"/console/icon.svg": load("icon.svg", "image/svg+xml"),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Permissions-Policy", permissions)
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache") // ask again each time: a page must fit its server
		h.Set("ETag", f.etag)
		h.Set("Content-Type", f.contentType)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
	})
}

// file is an embedded file, ready to be sent.
type file struct {
	body        []byte
	contentType string
	etag        string
}

func load(name, contentType string) file {
	body, err := assets.ReadFile(path.Join("assets", name))
	if err != nil {
		panic("console: " + name + " is not embedded")
	}
	sum := sha256.Sum256(body)
	return file{
		body:        body,
		contentType: contentType,
		etag:        `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
	}
}
