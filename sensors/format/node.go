package format

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// node is a value of a document, whatever the document is written in: an XML element or
// attribute, a member of a JSON object or an element of an array, a line of a Dahua event. All
// elements of an array have the name of the member, so that one value and an array of one are the
// same, as they are in XML.
type node struct {
	name string // without namespace prefix or the @ by which JSON marks attributes
	raw  []byte // text; of a JSON string as it is written, quotes included
	json bool
	leaf bool // is a text, not an object
	kids []node
}

// find returns the child that has one of the names, in any case; the first name that is there
// wins. A path of names is separated by slashes. It is nil when there is none, and a fault of
// the read when there are several, of which nobody could say which one is meant.
func (d *decoder) find(n *node, names ...string) *node {
	for _, name := range names {
		at := n
		for name != "" && at != nil {
			var step string
			step, name, _ = strings.Cut(name, "/")
			at = d.child(at, step)
		}
		if at != nil && !at.null() {
			return at
		}
	}
	return nil
}

func (d *decoder) child(n *node, name string) *node {
	var found *node
	for i := range n.kids {
		if !strings.EqualFold(n.kids[i].name, name) {
			continue
		}
		if found != nil {
			d.bad(name, "is there more than once, or as a list: it must be there once")
			return nil
		}
		found = &n.kids[i]
	}
	return found
}

// all returns the children at a path of names, in any case.
func all(n *node, path string) []*node {
	if n == nil {
		return nil
	}
	step, rest, _ := strings.Cut(path, "/")
	var out []*node
	for i := range n.kids {
		if k := &n.kids[i]; strings.EqualFold(k.name, step) {
			if rest == "" {
				out = append(out, k)
			} else {
				out = append(out, all(k, rest)...)
			}
		}
	}
	return out
}

// has reports whether there is a child at a path of names.
func has(n *node, path string) bool { return len(all(n, path)) > 0 }

// hasAny reports whether one of the names is there.
func hasAny(n *node, names ...string) bool {
	for _, name := range names {
		if has(n, name) {
			return true
		}
	}
	return false
}

// walk calls visit for n and all below, in the order of the document, until it returns
// false for a node, whose children are left out.
func walk(n *node, visit func(*node) bool) {
	if !visit(n) {
		return
	}
	for i := range n.kids {
		walk(&n.kids[i], visit)
	}
}

// null reports whether n is the null of JSON.
func (n *node) null() bool { return n.json && n.leaf && string(n.raw) == "null" }

// text returns the text of a leaf, or of an element that has its text in a member of its own,
// without white space around.
func (n *node) text() string {
	return strings.TrimSpace(n.exact())
}

// exact is text with its white space.
func (n *node) exact() string {
	if n == nil || n.null() {
		return ""
	}
	if n.json && n.leaf {
		if len(n.raw) > 0 && n.raw[0] == '"' {
			b, err := jsontext.AppendUnquote(nil, n.raw)
			if err != nil {
				return ""
			}
			return string(b)
		}
		return string(n.raw)
	}
	for i := range n.kids {
		if k := &n.kids[i]; k.json && k.leaf && (k.name == "#text" || k.name == "$" || k.name == "_text") {
			return k.exact()
		}
	}
	return string(n.raw)
}

// text returns the text at the first of the names that has one.
func (d *decoder) text(n *node, names ...string) string {
	for _, name := range names {
		if s := d.find(n, name).text(); s != "" {
			return s
		}
	}
	return ""
}

// firstText is the text of the first of several values at a path.
func firstText(n *node, paths ...string) string {
	for _, path := range paths {
		for _, k := range all(n, path) {
			if s := k.text(); s != "" {
				return s
			}
		}
	}
	return ""
}
