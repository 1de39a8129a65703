package format

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

var errTooMany = errors.New("has too many values: at most 50,000 are read")

// jsonReader reads JSON documents one after the other.
type jsonReader struct {
	body  []byte
	dec   *jsontext.Decoder
	nodes int
}

func newJSONReader(body []byte) *jsonReader {
	// A decoder over a bytes.Buffer reads its bytes where they are.
	return &jsonReader{body: body, dec: jsontext.NewDecoder(bytes.NewBuffer(body))}
}

// next returns the next document, or io.EOF. Repeated names in an object, also ones that
// differ only in case, are refused by the decoder and by decoder.find.
func (r *jsonReader) next() (*node, error) {
	r.nodes = 0
	if _, err := r.dec.ReadToken(); err != nil {
		return nil, err
	}
	// ReadToken took the opening brace or bracket, or the whole of a scalar.
	root := &node{json: true}
	kind := r.body[r.dec.InputOffset()-1]
	if kind != '{' && kind != '[' {
		return nil, errors.New("must be a JSON object or an array of them")
	}
	if err := r.fill(root, kind, 1); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return root, nil
}

// fill reads the members or elements of n up to its closing brace or bracket.
func (r *jsonReader) fill(n *node, kind byte, depth int) error {
	if depth > maxDepth {
		return errors.New("is nested too deeply: at most 64 levels are read")
	}
	for {
		name := n.name
		switch r.dec.PeekKind() {
		case '}', ']':
			_, err := r.dec.ReadToken()
			return err
		case 0:
			_, err := r.dec.ReadToken()
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if kind == '{' {
			tok, err := r.dec.ReadToken()
			if err != nil {
				return err
			}
			name = local(tok.String())
		}
		if r.nodes++; r.nodes > maxNodes {
			return errTooMany
		}
		var kid node
		switch open := r.dec.PeekKind(); open {
		case '{', '[':
			if _, err := r.dec.ReadToken(); err != nil {
				return err
			}
			kid = node{name: name, json: true}
			if err := r.fill(&kid, byte(open), depth+1); err != nil {
				return err
			}
			if open == '[' && kind == '{' { // its elements are members of the same name
				n.kids = append(n.kids, kid.kids...)
				continue
			}
		default:
			v, err := r.dec.ReadValue()
			if err != nil {
				return err
			}
			end := int(r.dec.InputOffset())
			kid = node{name: name, json: true, leaf: true, raw: r.body[end-len(v) : end]}
		}
		n.kids = append(n.kids, kid)
	}
}

// local returns a name without a namespace prefix or the mark of an attribute. Names that have
// spaces or slashes are not of that kind.
func local(name string) string {
	name = strings.TrimPrefix(name, "@")
	if i := strings.IndexByte(name, ':'); i > 0 && i < len(name)-1 && !strings.ContainsAny(name, " /") {
		return name[i+1:]
	}
	return name
}

// jsonReason says what is wrong with a JSON document without any of it.
func jsonReason(err error) string {
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return "has a JSON object with a name twice: every name must be there once"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "ends within the JSON document"
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return "is not JSON in UTF-8"
	}
	return err.Error()
}
