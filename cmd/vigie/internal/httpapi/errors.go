package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"time"

	strict "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"vigie/sensors"
	"vigie/sensors/ingest"
	"vigie/sensors/spool"
	"vigie/stream"
	"vigie/stream/redisqueue"
	"vigie/watchlist"
)

// Problem is the body of every answer that is not a success (RFC 9457). Its
// texts are for the person who reads them at night: Detail says what is wrong,
// Mend what to do. None of them ever holds a plate or anything else of the request.
type Problem struct {
	Type   string         `json:"type"` // urn:vigie:problem:<word>, stable
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail,omitempty"`
	Mend   string         `json:"mend,omitempty"`
	Errors []ProblemError `json:"errors,omitempty"`
	// Report is the plan of an import that was refused, without its errors.
	Report *stream.ImportReport `json:"report,omitempty"`
}

// ProblemError is one broken rule: of a field, of the read at an index of a
// batch, or of a row and column of an import.
type ProblemError struct {
	Index  *int   `json:"index,omitempty"`
	Row    int    `json:"row,omitzero"`
	Column string `json:"column,omitempty"`
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
}

// Errors that this package itself gives rise to. What they mean to a client
// stands in the table below.
var (
	errNoToken     = errors.New("no token")
	errBadToken    = errors.New("unknown token")
	errForbidden   = errors.New("role not allowed")
	errQueue       = errors.New("queue not allowed")
	errNotServed   = errors.New("audience not served")
	errNotFound    = errors.New("no such resource")
	errMethod      = errors.New("method not allowed")
	errWithdrawn   = errors.New("entry withdrawn")
	errMediaType   = errors.New("unsupported media type")
	errEncoding    = errors.New("unsupported content encoding")
	errBomb        = errors.New("body expands too much")
	errSlow        = errors.New("body too slow")
	errCut         = errors.New("body cut off")
	errBadGzip     = errors.New("body is not gzip")
	errNotJSON     = errors.New("body is not acceptable JSON")
	errBadParam    = errors.New("bad parameter")
	errImport      = errors.New("import rejected")
	errAllRejected = errors.New("every read rejected")
	errCatchingUp  = errors.New("lists are still being read")
	errBehind      = errors.New("lists are behind the alert")
	errStopping    = errors.New("server is stopping")
	errPanic       = errors.New("handler panicked")

	// Of sensors: who they are, and how much they send.
	errTwoWays         = errors.New("two credentials")
	errBadCert         = errors.New("certificate names no sensor")
	errExpired         = errors.New("certificate has expired")
	errContradiction   = errors.New("credentials of two callers")
	errBadSignature    = errors.New("signature is wrong")
	errStale           = errors.New("time of signature is not near")
	errReplayed        = errors.New("signed request came before")
	errNonces          = errors.New("too many signed requests to tell apart")
	errForeign         = errors.New("not the sensor of the caller")
	errTooManyFailures = errors.New("too many failed credentials")
	errTooManyRequests = errors.New("too many requests of one sensor")
	errTooManyOfSensor = errors.New("too many reads of one sensor")
	errTooMuch         = errors.New("too many bytes of one caller")
	errBusy            = errors.New("too many bytes at once")
)

// problems is the one place where an error becomes a status. The first row
// whose error is met counts; an error that no row meets came from a part behind
// the handler that did not answer, and repeating the request is safe: 503.
var problems = []struct {
	err    error
	status int
	kind   string // last part of Problem.Type
	title  string
	mend   string
}{
	{errNoToken, 401, "no-token", "This request carries no token", "send the header Authorization: Bearer <token>"},
	{errBadToken, 401, "bad-token", "This token is not known here", "check the token against the token file of this server; it is sent as Authorization: Bearer <token>"},
	{errTwoWays, 401, "two-credentials", "This request says twice who sends it", "send either Authorization or Vigie-Signature"},
	{errBadSignature, 401, "bad-signature", "The signature of this request is not right", "sign time, nonce, method, target and body with the hmac_key of the sensor in Vigie-Sensor; see /v1/openapi.yaml"},
	{errStale, 401, "stale-signature", "This request was signed too long ago, or ahead of time", "set the clock of the sensor by the Date of this answer, and sign each try anew"},
	{errReplayed, 409, "replayed", "This signed request came before", "sign each try anew, with a time and nonce of its own"},
	{errBadCert, 401, "bad-certificate", "The client certificate does not name one sensor", "give it one alternative name of the kind URI: vigie:sensor:<id>"},
	{errExpired, 401, "expired-certificate", "The client certificate has expired since the connection was made", "give the sensor a new one, and connect again"},
	{errContradiction, 403, "contradiction", "The certificate is of one caller and the token or signature of another", "send a token of the sensor in the certificate, or none"},
	{errForeign, 403, "forbidden-sensor", "This caller speaks for another sensor", "leave ?sensor= out, or name the sensor that the caller belongs to"},
	{errTooManyFailures, 429, "too-many-failures", "Too many wrong credentials came from this address", "correct the token or key of the sensors behind it"},
	{errTooManyRequests, 429, "too-many-requests", "This sensor sends too many requests", "wait as Retry-After says and send it again; put more reads into one request"},
	{errTooManyOfSensor, 429, "too-many-of-sensor", "This sensor sends too many reads", "wait as Retry-After says and send it again"},
	{errNonces, 429, "too-many-signed", "This sensor has signed too many requests for its time window", "wait as Retry-After says and send it again, signed anew; put more reads into one request"},
	{errTooMuch, 429, "too-much", "This caller has too many bytes on their way", "wait for the answers to what was sent, and send it again"},
	{errBusy, 503, "busy", "Too many bodies are on their way to this server", "send it again a moment later"},
	{ingest.ErrFormat, 415, "format", "No message of a format that is known here", "POST the message to /v1/ingest/ and the name of its format"},
	{ingest.ErrMessage, 400, "message", "The message cannot be read", "correct the sender, or name another format; vigie sensors decode shows what a message says"},
	{errForbidden, 403, "forbidden", "This token may not do that", "use a token with the role that the route needs; see /v1/openapi.yaml"},
	{errQueue, 403, "forbidden-queue", "This token may not see that queue", "ask for a queue that the token file grants to this token"},
	{errNotServed, 404, "not-served", "This process runs without that part", "ask the process that serves it; see --target of vigie serve"},
	{errNotFound, 404, "not-found", "There is nothing at this address", "see /v1/openapi.yaml for the addresses"},
	{errMethod, 405, "method", "This address does not take that method", "use a method named in the Allow header"},
	{stream.ErrNoList, 404, "no-list", "No list has that id", "GET /v1/lists names the lists"},
	{stream.ErrNoEntry, 404, "no-entry", "The list has no entry of that id", "it may be withdrawn already; GET /v1/lists/{list}/entries names the entries"},
	{stream.ErrNoSensor, 404, "no-sensor", "The registry has no sensor of that id", "it may be withdrawn already; GET /v1/sensors names the sensors"},
	{redisqueue.ErrUnknownAlert, 404, "no-alert", "No alert has that id", "it may be past its retention, or belong to another queue"},
	{redisqueue.ErrBadID, 400, "event-id", "No event of this stream has that id", "send the id of the last event you had, or leave it out"},
	{redisqueue.ErrClosed, 503, "stopping", "The server is stopping", "connect again"},
	{errWithdrawn, 410, "withdrawn", "The entry behind this alert was withdrawn", "do not act on it; close it if it was taken"},
	{errMediaType, 415, "media-type", "This content type is not taken here", "set Content-Type to one that /v1/openapi.yaml names for this address"},
	{errEncoding, 415, "content-encoding", "This content encoding is not taken here", "send the body plain or with Content-Encoding: gzip"},
	{sensors.ErrContentType, 415, "media-type", "This content type is not taken here", "send application/json, application/x-ndjson or application/x-protobuf"},
	{spool.ErrFull, 503, "spool-full", "Kafka is away and the spool of this gateway is full", "keep the reads and send them again as Retry-After says; here, bring Kafka back, raise gateway.spool.max_bytes or free the disk"},
	{sensors.ErrTooManyReads, 413, "too-many-reads", "The batch has too many reads", "send at most 10,000 reads at once"},
	{sensors.ErrBodyTooLarge, 413, "too-large", "The body is too large", "send smaller batches"},
	{errBomb, 413, "expands", "The body expands too much", "send smaller batches"},
	{errSlow, 408, "slow", "The body did not arrive in time", "send it again over a better link, or in smaller parts"},
	{errCut, 400, "cut", "The body did not arrive whole", "send it again"},
	{errBadGzip, 400, "gzip", "The body is not whole gzip", "compress the body again, or send it plain"},
	{errNotJSON, 400, "json", "The body is not acceptable JSON", "correct what is named and send it again"},
	{errBadParam, 400, "parameter", "A parameter of the address is wrong", "correct what is named and send it again"},
	{errImport, 422, "import-rejected", "The file was not imported, nothing has changed", "correct the rows named and import the whole file again"},
	{errAllRejected, 422, "reads-rejected", "No read of this batch was accepted", "correct the reads named; sending them unchanged is of no use"},
	{stream.ErrConflict, 409, "conflict", "Somebody else made that list at the same moment", "look at the list and repeat the request"},
	{stream.ErrChanged, 409, "list-changed", "The list was changed while the file was read, nothing was imported", "look at the list and import the file again"},
	{stream.ErrPatterns, 422, "list-patterns", "The list holds entries with wildcards, which only tolerance pattern knows", "withdraw the entries whose plate holds ? or *, or keep the tolerance"},
	{stream.ErrNotConfirmed, 503, "not-confirmed", "The change is recorded but not yet effective everywhere", "repeat the request: that is safe, and its success confirms the change"},
	{errCatchingUp, 503, "catching-up", "This process is still reading the lists", "wait until /readyz is green"},
	{errBehind, 503, "behind", "The lists of this process are behind the alert", "ask again; if it lasts, look at the control log in /readyz?verbose"},
	{errStopping, 503, "stopping", "The server is stopping", "connect again"},
	{errPanic, 500, "internal", "The server failed on this request", "report it with the time of the request; the cause is in the server's log"},
}

// retryAfter is the number of seconds that a 503 asks a client to wait, and a 429 that does not know better.
const retryAfter = "2"

// problemPrefix begins every Problem.Type.
const problemPrefix = "urn:vigie:problem:"

// detailed is an error with words for the person who sent the request.
type detailed struct {
	err    error // a row of problems
	detail string
	errs   []ProblemError
	report *stream.ImportReport
}

func (d *detailed) Error() string { return d.err.Error() }
func (d *detailed) Unwrap() error { return d.err }

// problemOf turns any error of a handler into what the client is told.
func problemOf(err error) Problem {
	var p Problem
	var (
		invalid  *stream.InvalidError
		field    *watchlist.FieldError
		full     *stream.FullError
		file     *watchlist.FileError
		body     *sensors.BodyError
		conflict *redisqueue.ConflictError
		tooLarge *http.MaxBytesError
	)
	switch {
	case errors.As(err, &invalid):
		p = invalidFields(invalid.Fields...)
	case errors.As(err, &field):
		p = invalidFields(*field)
	case errors.As(err, &full):
		p = Problem{Type: "list-full", Title: "The list would hold more entries than its tolerance allows, nothing has changed", Status: 422,
			Detail: "it would hold " + strconv.Itoa(full.Entries) + "; with tolerance " + full.Tolerance.String() + " it may hold " + strconv.Itoa(full.Max),
			Mend:   "withdraw what is no longer wanted, or put the rest on a list of another tolerance"}
	case errors.As(err, &file):
		p = Problem{Type: "import-file", Title: "The file cannot be imported, nothing has changed", Status: 422,
			Detail: file.Reason, Mend: "correct the file and import it again"}
	case errors.As(err, &body):
		p = Problem{Type: "body", Title: "The body cannot be read", Status: 400,
			Detail: "byte " + strconv.FormatInt(body.Offset, 10) + ": " + body.Reason, Mend: "correct the sender; no read of this batch was taken"}
	case errors.As(err, &conflict):
		p = Problem{Type: "conflict", Title: "The alert does not stand where this step begins", Status: 409,
			Detail: "it is " + conflict.State.String(), Mend: "look at the alert again before you go on"}
		if conflict.Owner != "" {
			p.Detail += ", and " + conflict.Owner + " has it"
		}
	case errors.As(err, &tooLarge):
		p = Problem{Type: "too-large", Title: "The body is too large", Status: 413,
			Detail: "this address takes at most " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes", Mend: "send less at a time"}
	default:
		p = Problem{Type: "unavailable", Title: "A part behind this server did not answer", Status: 503, Mend: "send the same request again: repeating it is safe"}
		for _, row := range problems {
			if errors.Is(err, row.err) {
				p = Problem{Type: row.kind, Title: row.title, Status: row.status, Mend: row.mend}
				break
			}
		}
	}
	p.Type = problemPrefix + p.Type
	var d *detailed
	if errors.As(err, &d) {
		p.Detail, p.Errors, p.Report = d.detail, d.errs, d.report
	}
	return p
}

func invalidFields(fields ...watchlist.FieldError) Problem {
	p := Problem{Type: "invalid", Title: "The values break rules", Status: 422, Mend: "correct the fields named and send it again"}
	for _, f := range fields {
		p.Errors = append(p.Errors, ProblemError{Field: f.Field, Reason: f.Reason})
	}
	return p
}

// writeProblem answers with the problem of err, and returns its status.
func writeProblem(w http.ResponseWriter, err error) int {
	p := problemOf(err)
	var limited *limitedError
	switch {
	case errors.Is(err, errBadToken):
		w.Header().Add("WWW-Authenticate", `Bearer realm="vigie", error="invalid_token"`)
	case p.Status == http.StatusUnauthorized:
		w.Header().Add("WWW-Authenticate", `Bearer realm="vigie"`)
	case errors.As(err, &limited):
		w.Header().Set("Retry-After", strconv.Itoa(limited.seconds()))
	case p.Status == http.StatusServiceUnavailable, p.Status == http.StatusTooManyRequests:
		w.Header().Set("Retry-After", retryAfter)
	}
	writeBody(w, p.Status, "application/problem+json", &p)
	return p.Status
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	writeBody(w, status, "application/json", v)
	return nil
}

func writeBody(w http.ResponseWriter, status int, contentType string, v any) {
	b := encode(v)
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b) //nolint:errcheck // the client is gone; nobody is left to tell
}

// encode writes JSON by the rules of encoding/json, for which the tags of the
// domain types were written; reading is stricter, see readJSON. A value that
// cannot be encoded is a mistake in this program: encode panics, and the wrapper
// around every handler answers for it. The result is one line and ends it.
func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // nosniff, and nobody puts it into HTML
	if err := enc.Encode(v); err != nil {
		panic("httpapi: answer cannot be encoded")
	}
	return b.Bytes()
}

// clientGone reports whether a request failed because its sender went away.
func clientGone(r *http.Request, err error) bool {
	return r.Context().Err() != nil && errors.Is(err, context.Canceled)
}

// fieldName is what may be repeated from a request: it looks like a JSON name
// of ours, in which no plate is written.
var fieldName = regexp.MustCompile(`^(/([a-z_]{1,24}|\d{1,3}))+$`)

// jsonProblem says what is wrong with a body, without quoting it: the messages
// of the decoder repeat the value, which may be a plate.
func jsonProblem(err error) error {
	var (
		syntactic *jsontext.SyntacticError
		semantic  *strict.SemanticError
		pointer   jsontext.Pointer
		reason    string
	)
	switch {
	case errors.As(err, new(*http.MaxBytesError)), errors.Is(err, errSlow), errors.Is(err, errCut),
		errors.Is(err, errBomb), errors.Is(err, errBadGzip), errors.Is(err, errTooMuch), errors.Is(err, errBusy):
		return err
	case errors.As(err, &syntactic):
		pointer = syntactic.JSONPointer
		switch {
		case errors.Is(err, jsontext.ErrDuplicateName):
			reason = "stands there twice; each name may stand once"
		case errors.Is(err, io.ErrUnexpectedEOF) && syntactic.ByteOffset == 0:
			pointer, reason = "", "the body is empty"
		case errors.Is(err, io.ErrUnexpectedEOF):
			pointer, reason = "", "the body ends in the middle"
		default:
			pointer, reason = "", "is not JSON from byte "+strconv.FormatInt(syntactic.ByteOffset, 10)+" on"
		}
	case errors.As(err, &semantic):
		pointer = semantic.JSONPointer
		if errors.Is(err, strict.ErrUnknownName) {
			reason = "is not a name known here; names are written in small letters"
		} else {
			reason = "must be " + describeType(semantic.GoType)
		}
	case errors.Is(err, io.EOF):
		reason = "the body is empty"
	default:
		return err // the connection broke
	}
	field := ""
	if fieldName.MatchString(string(pointer)) {
		field = string(pointer)[1:]
	}
	return &detailed{err: errNotJSON, errs: []ProblemError{{Field: field, Reason: reason}}}
}

// describeType says in words what a field takes.
func describeType(t reflect.Type) string {
	if t == nil {
		return "of another kind; see /v1/openapi.yaml"
	}
	switch t {
	case reflect.TypeFor[time.Time](), reflect.TypeFor[*time.Time]():
		return "a time such as 2026-03-01T08:00:00Z"
	case reflect.TypeFor[watchlist.Tolerance]():
		return "exact, ocr, near or pattern"
	case reflect.TypeFor[watchlist.Action]():
		return "inform, intercept, discreet, inquiry or specific"
	case reflect.TypeFor[watchlist.Priority]():
		return "critical, high, medium or info"
	}
	switch t.Kind() {
	case reflect.String:
		return "a text in quotes"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Uint32, reflect.Uint64:
		return "a whole number"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list in [ ]"
	case reflect.Struct, reflect.Map, reflect.Pointer:
		return "an object in { }"
	default:
		return "of another kind; see /v1/openapi.yaml"
	}
}
