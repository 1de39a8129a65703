package format

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"

	"golang.org/x/text/encoding/charmap"
)

// xmlReader reads XML documents one after the other.
type xmlReader struct {
	rest []byte
}

// next returns the next document, or io.EOF.
func (r *xmlReader) next() (*node, error) {
	r.rest = bytes.TrimLeft(r.rest, " \t\r\n\x00")
	r.rest = bytes.TrimPrefix(r.rest, bom)
	if len(r.rest) == 0 {
		return nil, io.EOF
	}
	end, err := measure(r.rest)
	if err != nil {
		return nil, err
	}
	doc := r.rest[:end]
	r.rest = r.rest[end:]
	return parseXML(doc)
}

var bom = []byte("\ufeff")

// measure finds the end of the first document of b and refuses what must not reach a parser
// that keeps all attributes of an element, or all names of open elements, in memory.
func measure(b []byte) (end int, err error) {
	depth, nodes := 0, 0
	for i := 0; i < len(b); {
		at := bytes.IndexByte(b[i:], '<')
		if at < 0 {
			break
		}
		i += at
		var stop string
		switch rest := b[i:]; {
		case bytes.HasPrefix(rest, []byte("<!--")):
			stop = "-->"
		case bytes.HasPrefix(rest, []byte("<![CDATA[")):
			stop = "]]>"
		case bytes.HasPrefix(rest, []byte("<?")):
			stop = "?>"
		case bytes.HasPrefix(rest, []byte("<!")):
			return 0, errors.New("has a DOCTYPE or another declaration: leave it out")
		}
		if nodes++; nodes > 2*maxNodes {
			return 0, errTooMany
		}
		if stop != "" {
			n := bytes.Index(b[i:], []byte(stop))
			if n < 0 {
				return 0, io.ErrUnexpectedEOF
			}
			i += n + len(stop)
			continue
		}
		n, attrs := tag(b[i:])
		switch {
		case attrs > maxAttrs:
			return 0, errors.New("has an element with too many attributes: at most 64 are read")
		case n < 0:
			return 0, io.ErrUnexpectedEOF
		}
		nodes += attrs
		closes, empty := b[i+1] == '/', b[i+n-2] == '/'
		i += n
		switch {
		case closes:
			depth--
		case !empty:
			depth++
		}
		switch {
		case depth > maxDepth:
			return 0, errors.New("is nested too deeply: at most 64 levels are read")
		case depth <= 0:
			return i, nil
		}
	}
	return 0, io.ErrUnexpectedEOF
}

// tag returns the length of the tag that b begins with, -1 when it does not end, and how many
// values in quotes it has, which is how many attributes.
func tag(b []byte) (n, attrs int) {
	for i := 1; i < len(b); i++ {
		switch c := b[i]; c {
		case '>':
			return i + 1, attrs
		case '"', '\'':
			attrs++
			end := bytes.IndexByte(b[i+1:], c)
			if end < 0 {
				return -1, attrs
			}
			i += end + 1
		}
	}
	return -1, attrs
}

// parseXML reads one document that measure found in order.
func parseXML(doc []byte) (*node, error) {
	dec := xml.NewDecoder(bytes.NewReader(doc))
	dec.CharsetReader = charset
	root, err := (*node)(nil), error(nil)
	for root == nil && err == nil {
		var tok xml.Token
		if tok, err = dec.Token(); err == nil {
			if start, ok := tok.(xml.StartElement); ok {
				root = new(node)
				err = fillXML(dec, root, start, 1)
			}
		}
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return root, err
}

func fillXML(dec *xml.Decoder, n *node, start xml.StartElement, depth int) error {
	if depth > maxDepth {
		return errors.New("is nested too deeply: at most 64 levels are read")
	}
	n.name = start.Name.Local
	for _, a := range start.Attr {
		if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
			n.kids = append(n.kids, node{name: a.Name.Local, raw: []byte(a.Value), leaf: true})
		}
	}
	elements := false
	for {
		tok, err := dec.Token()
		if err != nil {
			return err
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if !elements { // the white space before it
				elements, n.raw = true, nil
			}
			var kid node
			if err := fillXML(dec, &kid, t, depth+1); err != nil {
				return err
			}
			n.kids = append(n.kids, kid)
		case xml.CharData:
			if !elements {
				n.raw = append(n.raw, t...)
			}
		case xml.EndElement:
			n.leaf = !elements
			return nil
		case xml.Directive:
			return errors.New("has a DOCTYPE or another declaration: leave it out")
		}
	}
}

// charset reads the encodings in which cameras write.
func charset(label string, in io.Reader) (io.Reader, error) {
	switch strings.ToLower(strings.TrimSpace(label)) {
	case "utf-8", "utf8", "us-ascii", "ascii":
		return in, nil
	case "iso-8859-1", "latin1":
		return charmap.ISO8859_1.NewDecoder().Reader(in), nil
	case "windows-1252", "cp1252":
		return charmap.Windows1252.NewDecoder().Reader(in), nil
	case "windows-1251", "cp1251":
		return charmap.Windows1251.NewDecoder().Reader(in), nil
	}
	return nil, errCharset
}

var errCharset = errors.New("is in an encoding that is not read: UTF-8, windows-1252, windows-1251 and ISO 8859-1 are")

// xmlReason says what is wrong with an XML document without any of it.
func xmlReason(err error) string {
	var syntax *xml.SyntaxError
	switch {
	case errors.Is(err, errCharset):
		return errCharset.Error()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "ends within the XML document"
	case errors.As(err, &syntax):
		return "is not XML in the encoding that it names"
	case strings.HasPrefix(err.Error(), "xml:"): // quotes the document
		return "is not XML that is read here"
	}
	return err.Error()
}
