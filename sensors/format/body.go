package format

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"vigie/sensors"
)

// run splits the message into documents and takes each.
func (d *decoder) run() error {
	media, params := contentType(d.in.ContentType)
	body := d.in.Body
	switch {
	case strings.HasPrefix(media, "multipart/"):
		if params["boundary"] == "" {
			return d.badBoundary("is missing: name it")
		}
		return d.multipart(body, params["boundary"], media == "multipart/form-data")
	case media == "application/x-www-form-urlencoded" && !isText(body):
		return d.form(body)
	}
	if boundary := firstBoundary(body); boundary != "" {
		return d.multipart(body, boundary, false)
	}
	return d.documents(body)
}

// badBoundary is fail about the boundary of a multipart body.
func (d *decoder) badBoundary(reason string) *Error {
	e := d.fail(reason)
	e.Field = "boundary of the content type"
	return e
}

// contentType reads a content type as cameras write it, which is not always as it should be.
func contentType(s string) (media string, params map[string]string) {
	media, params, err := mime.ParseMediaType(s)
	if err == nil {
		return media, params
	}
	media, rest, _ := strings.Cut(s, ";")
	params = map[string]string{}
	for field := range strings.SplitSeq(rest, ";") {
		if key, value, _ := strings.Cut(field, "="); strings.EqualFold(strings.TrimSpace(key), "boundary") {
			params["boundary"] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return strings.ToLower(strings.TrimSpace(media)), params
}

// documents takes the documents of a text, one after the other.
func (d *decoder) documents(body []byte) error {
	body = bytes.TrimPrefix(body, bom)
	body = bytes.TrimLeft(body, " \t\r\n")
	switch {
	case len(body) == 0:
		return d.fail("is empty")
	case body[0] == '{', body[0] == '[':
		return d.jsonDocuments(body)
	case body[0] == '<':
		return d.xmlDocuments(body)
	case looksLikeEvent(body):
		root, err := parseEvent(body)
		if err != nil {
			return d.fail(err.Error())
		}
		return d.document(root)
	case len(body) <= 64 && utf8.Valid(body):
		return d.document(&node{name: "#text", raw: body, leaf: true})
	}
	if d.vendor == nil {
		return ErrFormat
	}
	return d.fail("is neither JSON nor XML nor another text that is read here")
}

func (d *decoder) jsonDocuments(body []byte) error {
	for broken := 0; ; {
		r := newJSONReader(body)
		for {
			start := int(r.dec.InputOffset())
			root, err := r.next()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				if broken++; d.doc == 0 || broken > maxBroken {
					return d.fail(jsonReason(err))
				}
				// One line of many: the others may be in order.
				d.bad("", jsonReason(err))
				d.reject()
				body = bytes.TrimLeft(body[start:], " \t\r\n")
				next := bytes.IndexByte(body, '\n')
				if next < 0 {
					return nil
				}
				body = bytes.TrimLeft(body[next:], " \t\r\n")
				if len(body) == 0 {
					return nil
				}
				break
			}
			if body[start:][bytes.IndexAny(body[start:], "{[")] == '{' {
				if err := d.document(root); err != nil {
					return err
				}
			} else {
				for i := range root.kids {
					if err := d.document(&root.kids[i]); err != nil {
						return err
					}
				}
				if len(root.kids) == 0 {
					return d.fail("is an empty array")
				}
			}
			if d.only {
				return nil
			}
		}
	}
}

func (d *decoder) xmlDocuments(body []byte) error {
	r := &xmlReader{rest: body}
	for {
		root, err := r.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return d.fail(xmlReason(err))
		}
		if err := d.document(root); err != nil || d.only {
			return err
		}
	}
}

// form takes a form in which one field is the message.
func (d *decoder) form(body []byte) error {
	if bytes.Count(body, []byte("&")) >= maxParts {
		return d.fail("is a form of too many fields: at most 16 are read")
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return d.fail("is not a form as its content type says")
	}
	for _, name := range []string{"json", "data", "event", "payload"} {
		if v := values[name]; len(v) == 1 {
			return d.documents([]byte(v[0]))
		} else if len(v) > 1 {
			return d.fail("is a form that has its message twice")
		}
	}
	return d.fail("is a form without the field json")
}

// firstBoundary returns the boundary of a multipart body of which no content type is known: its
// first line, when a header follows.
func firstBoundary(body []byte) string {
	body = bytes.TrimLeft(body, "\r\n")
	line, rest, _ := bytes.Cut(body, []byte("\n"))
	line = bytes.TrimRight(line, "\r \t")
	b, ok := bytes.CutPrefix(line, []byte("--"))
	if !ok || len(b) == 0 || len(b) > 72 || len(rest) < 8 || !strings.EqualFold(string(rest[:8]), "Content-") {
		return ""
	}
	return string(b)
}

// part is one part of a multipart body.
type part struct {
	name  string // of the field or the file, or an id
	media string
	body  []byte // a slice of the message
}

// multipart takes the parts of a body: texts as documents, pictures for the reads around. A form must
// be complete; a stream may be cut off after any part.
func (d *decoder) multipart(body []byte, boundary string, form bool) error {
	parts, err := d.split(body, boundary, form)
	if err != nil {
		return err
	}
	d.parts = true
	var waiting []part // pictures before the first message
	first := 0         // sightings before the message that pictures belong to
	for _, p := range parts {
		switch {
		case isPicture(p):
			if d.doc == 0 {
				waiting = append(waiting, p)
			} else {
				d.picture(p, first)
			}
		case isText(p.body):
			docs, reads := d.doc, len(d.msg.Sightings)
			if err := d.documents(p.body); err != nil {
				return err
			}
			if d.doc == docs { // something else
				continue
			}
			if d.only {
				return nil
			}
			first = reads
			for _, w := range waiting {
				d.picture(w, first)
			}
			waiting = nil
		}
	}
	switch {
	case d.doc > 0:
		return nil
	case d.vendor == nil:
		return ErrFormat
	}
	return d.fail("is multipart without a part that holds a message of this format")
}

// split finds the parts of a multipart body.
func (d *decoder) split(body []byte, boundary string, form bool) ([]part, error) {
	mark := []byte("--" + boundary)
	if !bytes.Contains(body, mark) {
		// Some cameras name the boundary with the dashes that stand before it.
		if mark = []byte(boundary); !bytes.HasPrefix(mark, []byte("--")) || !bytes.Contains(body, mark) {
			return nil, d.badBoundary("is not in the body: name the one that is")
		}
	}
	limit := maxStream
	if form {
		limit = maxParts
	}
	var parts []part
	at := delimiter(body, mark)
	if at < 0 {
		return nil, d.badBoundary("begins no line of the body")
	}
	for {
		rest := body[at+len(mark):]
		if bytes.HasPrefix(rest, []byte("--")) {
			return parts, nil
		}
		line := bytes.IndexByte(rest, '\n')
		if line < 0 {
			break
		}
		rest = rest[line+1:]
		next := delimiter(rest, mark)
		content := rest
		if next >= 0 {
			content = bytes.TrimSuffix(bytes.TrimSuffix(rest[:next], []byte("\n")), []byte("\r"))
		} else if form {
			break
		}
		if len(bytes.TrimSpace(content)) > 0 {
			if len(parts) == limit {
				return nil, d.fail("has too many parts: at most " + strconv.Itoa(limit) + " are read")
			}
			p, err := d.part(content)
			if err != nil {
				return nil, err
			}
			parts = append(parts, p)
		}
		if next < 0 {
			return parts, nil
		}
		body, at = rest, next
	}
	if form {
		return nil, d.fail("ends without the last boundary")
	}
	return parts, nil
}

// delimiter returns where the next line begins that is a boundary, -1 when there is none.
func delimiter(b, mark []byte) int {
	for from := 0; ; {
		i := bytes.Index(b[from:], mark)
		if i < 0 {
			return -1
		}
		i += from
		after := b[i+len(mark):]
		if (i == 0 || b[i-1] == '\n') && (len(after) == 0 || after[0] == '\r' || after[0] == '\n' || after[0] == ' ' || bytes.HasPrefix(after, []byte("--"))) {
			return i
		}
		from = i + len(mark)
	}
}

// part reads the header of a part.
func (d *decoder) part(content []byte) (part, error) {
	var p part
	encoding := ""
	for lines := 0; ; lines++ {
		line, rest, ok := bytes.Cut(content, []byte("\n"))
		line = bytes.TrimRight(line, "\r")
		if len(line) == 0 {
			content = rest
			break
		}
		if !ok || lines == 32 || len(line) > 4096 {
			return p, d.fail("has a part without an empty line after its header")
		}
		content = rest
		key, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch strings.ToLower(string(key)) {
		case "content-disposition":
			if _, params, err := mime.ParseMediaType(string(value)); err == nil {
				p.name = params["name"] + " " + params["filename"]
			} else {
				p.name = string(value)
			}
		case "content-id":
			p.name += " " + string(value)
		case "content-type":
			p.media, _ = contentType(string(value))
		case "content-transfer-encoding":
			encoding = strings.ToLower(string(value))
		}
	}
	p.name = strings.ToLower(p.name)
	p.body = content
	if encoding == "base64" {
		p.body = decodeBase64(content)
	}
	return p, nil
}

func isPicture(p part) bool {
	return strings.HasPrefix(p.media, "image/") || bytes.HasPrefix(p.body, []byte("\xff\xd8\xff")) || bytes.HasPrefix(p.body, []byte("\x89PNG"))
}

// isText reports whether a body or a part may be a document: other fields of a form are passed over, and
// so is the content type of a form that tools give to whatever they post.
func isText(b []byte) bool {
	b = bytes.TrimLeft(bytes.TrimPrefix(b, bom), " \t\r\n")
	return len(b) > 0 && (b[0] == '{' || b[0] == '[' || b[0] == '<' || looksLikeEvent(b) || string(bytes.TrimSpace(b)) == "Heartbeat")
}

// picture gives a picture to the sightings from first on. Its name tells whether it is one of the
// plate; among those of the scene the largest wins.
func (d *decoder) picture(p part, first int) {
	plate := false
	for _, word := range []string{"plate", "cutout", "lpr", "lp_"} {
		plate = plate || strings.Contains(p.name, word)
	}
	of := d.msg.Sightings[first:]
	for i := range of {
		switch s := &of[i]; {
		case !plate && len(p.body) > len(s.Context):
			s.Context = p.body
		case plate && len(of) == 1 && s.Plate == nil:
			s.Plate = p.body
		}
	}
}

// picture returns the picture that a text holds, with or without "data:...;base64," in front;
// nil when it holds none.
func (n *node) picture() []byte {
	if n == nil || !n.leaf || len(n.raw) < 8 {
		return nil
	}
	b := n.raw
	if n.json {
		if b[0] != '"' {
			return nil
		}
		b = b[1 : len(b)-1]
		if bytes.IndexByte(b, '\\') >= 0 {
			var err error
			if b, err = jsontext.AppendUnquote(make([]byte, 0, len(n.raw)), n.raw); err != nil {
				return nil
			}
		}
	}
	if bytes.HasPrefix(b, []byte("data:")) {
		_, b, _ = bytes.Cut(b, []byte(","))
	}
	return decodeBase64(b)
}

// decodeBase64 returns nil for a text that is not base64. Spaces and missing padding do not matter.
func decodeBase64(b []byte) []byte {
	b = bytes.TrimRight(bytes.TrimSpace(b), "=")
	if bytes.ContainsAny(b, " \t") {
		b = bytes.Join(bytes.Fields(b), nil)
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(b)))
	n, err := base64.RawStdEncoding.Decode(out, b)
	if err != nil || n == 0 {
		return nil
	}
	return out[:n]
}

// pictures sets those of a sighting that are texts of the document.
func (d *decoder) pictures(s *sensors.Sighting, plate, context *node) {
	s.Plate, s.Context = plate.picture(), context.picture()
}
