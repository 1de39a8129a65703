package httpapi

import (
	"compress/gzip"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"

	strict "github.com/go-json-experiment/json"
)

// maxRatio is how many times larger than itself a compressed body may become,
// once it has grown past ratioFrom. Reads as JSON shrink about twenty times.
const (
	maxRatio  = 100
	ratioFrom = 1 << 20
)

// openBody returns the body of a request in plain form: of one of the content
// types given, at most limit bytes long before and after decompression.
func openBody(w http.ResponseWriter, r *http.Request, limit int64, types ...string) (io.Reader, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || !slices.Contains(types, t) {
		return nil, &detailed{err: errMediaType, detail: "this address takes " + strings.Join(types, ", ")}
	}
	return plainBody(w, r, limit)
}

// plainBody is openBody for any content type.
func plainBody(w http.ResponseWriter, r *http.Request, limit int64) (io.Reader, error) {
	body := &arriving{r: http.MaxBytesReader(w, r.Body, limit)}
	switch r.Header.Get("Content-Encoding") {
	case "", "identity":
		return body, nil
	case "gzip":
		return &gunzip{packed: body, limit: limit}, nil
	default:
		return nil, errEncoding
	}
}

// gunzip unpacks a body as it arrives and stops at a bomb: neither the size nor
// the ratio that the packed bytes promise is believed.
type gunzip struct {
	packed *arriving
	plain  *gzip.Reader // nil before the first Read
	limit  int64        // of unpacked bytes
	n      int64        // unpacked so far
}

func (g *gunzip) Read(p []byte) (int, error) {
	if g.plain == nil {
		plain, err := gzip.NewReader(g.packed)
		if err != nil {
			return 0, g.explain()
		}
		g.plain = plain
	}
	n, err := g.plain.Read(p)
	g.n += int64(n)
	switch {
	case g.n > g.limit:
		return 0, &http.MaxBytesError{Limit: g.limit}
	case g.n > ratioFrom && g.n > maxRatio*g.packed.n:
		return 0, errBomb
	case err != nil && err != io.EOF:
		return n, g.explain()
	}
	return n, err
}

// explain tells bytes that are not gzip from a body that did not arrive.
func (g *gunzip) explain() error {
	if g.packed.err != nil && g.packed.err != io.EOF {
		return g.packed.err
	}
	return errBadGzip
}

// arriving is a body on its way: it counts what has come, and gives what can
// happen to it names of our own, since a Redis that is too slow ends with the
// same os.ErrDeadlineExceeded as a client that is.
type arriving struct {
	r   io.Reader
	n   int64
	err error // what ended it
}

func (a *arriving) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	a.n += int64(n)
	switch {
	case err == nil, err == io.EOF, errors.As(err, new(*http.MaxBytesError)):
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errSlow
	default:
		err = errCut
	}
	a.err = err
	return n, err
}

// readJSON decodes a body that is one JSON value. Unknown and repeated names
// are refused: two programs that read them differently would disagree about
// what was asked.
func readJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	body, err := openBody(w, r, limit, "application/json")
	if err != nil {
		return err
	}
	if err := strict.UnmarshalRead(body, v, strict.RejectUnknownMembers(true)); err != nil {
		return jsonProblem(err)
	}
	return nil
}

// readOptionalJSON is readJSON for a body that may be left out.
func readOptionalJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	if r.ContentLength == 0 {
		return nil
	}
	return readJSON(w, r, limit, v)
}
