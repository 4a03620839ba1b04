package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	maxDepth = 32    // of nested lists and objects
	maxNodes = 20000 // values in a document
)

// kind is what a node of a document is.
type kind int

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindText
	kindList
	kindObject
)

func (k kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "a list", "an object"}[k]
}

// node is a value of a document with its place in the text. Checking may replace a
// value by the form that agents accept.
type node struct {
	kind      kind
	text      string // of a string, a number as written, or "true" and "false"
	items     []*node
	keys      []string // in the order written
	fields    map[string]*node
	line, col int // from 1; 0 if unknown
}

// fault describes a mistake at n.
func (n *node) fault(path, format string, args ...any) error {
	return &Error{Path: path, Line: n.line, Column: n.col, Problem: fmt.Sprintf(format, args...)}
}

func (n *node) field(key string) *node {
	if n == nil {
		return nil
	}
	return n.fields[key]
}

func (n *node) set(key string, v *node) {
	if _, ok := n.fields[key]; !ok {
		n.keys = append(n.keys, key)
	}
	n.fields[key] = v
}

func (n *node) setBool(b bool) { n.kind, n.text = kindBool, strconv.FormatBool(b) }

func newObject() *node { return &node{kind: kindObject, fields: map[string]*node{}} }

// clone returns a deep copy.
func (n *node) clone() *node {
	c := *n
	c.keys = slices.Clone(n.keys)
	c.items = nil
	for _, item := range n.items {
		c.items = append(c.items, item.clone())
	}
	if n.fields != nil {
		c.fields = make(map[string]*node, len(n.fields))
		for k, v := range n.fields {
			c.fields[k] = v.clone()
		}
	}
	return &c
}

// appendJSON appends n as JSON, keys in the order written.
func (n *node) appendJSON(b []byte) []byte {
	switch n.kind {
	case kindNull:
		return append(b, "null"...)
	case kindBool, kindNumber:
		return append(b, n.text...)
	case kindText:
		return appendText(b, n.text)
	case kindList:
		b = append(b, '[')
		for i, item := range n.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		return append(b, ']')
	}
	b = append(b, '{')
	for i, key := range n.keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, key), ':')
		b = n.fields[key].appendJSON(b)
	}
	return append(b, '}')
}

func (n *node) json() json.RawMessage { return n.appendJSON(nil) }

// appendText appends s as a JSON string. Escaping of <, > and & would only make
// commands hard to read.
func appendText(b []byte, s string) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return append(b, bytes.TrimRight(buf.Bytes(), "\n")...)
}

// parseTree reads JSON or YAML. Text that starts with a brace is JSON.
func parseTree(b []byte) (*node, error) {
	if len(b) > MaxSize {
		return nil, &Error{Problem: fmt.Sprintf("has %d bytes; at most %d are allowed", len(b), MaxSize)}
	}
	if !utf8.Valid(b) {
		return nil, &Error{Problem: "is not UTF-8 text"}
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	if strings.HasPrefix(strings.TrimSpace(string(b)), "{") {
		return parseJSON(b)
	}
	return parseYAML(b)
}

// jsonParser builds nodes from JSON tokens.
type jsonParser struct {
	text  []byte
	lines []int // offsets at which lines begin
	dec   *json.Decoder
	nodes int
}

func parseJSON(b []byte) (*node, error) {
	p := &jsonParser{text: b, lines: []int{0}, dec: json.NewDecoder(bytes.NewReader(b))}
	p.dec.UseNumber()
	for i, c := range b {
		if c == '\n' {
			p.lines = append(p.lines, i+1)
		}
	}
	root, err := p.value("", 0)
	if err != nil {
		return nil, err
	}
	at := p.next()
	if _, err := p.dec.Token(); err != io.EOF {
		return nil, p.faultAt(at, "", "unexpected text after the document")
	}
	return root, nil
}

// next returns the offset of the next token.
func (p *jsonParser) next() int {
	at := int(p.dec.InputOffset())
	for at < len(p.text) && strings.IndexByte(" \t\r\n,:", p.text[at]) >= 0 {
		at++
	}
	return at
}

func (p *jsonParser) faultAt(offset int, path, problem string) error {
	line, col := p.position(offset)
	return &Error{Path: path, Line: line, Column: col, Problem: problem}
}

// position turns an offset into line and column, both from 1.
func (p *jsonParser) position(offset int) (line, col int) {
	offset = min(offset, len(p.text))
	line = sort.SearchInts(p.lines, offset+1)
	return line, 1 + utf8.RuneCount(p.text[p.lines[line-1]:offset])
}

func (p *jsonParser) value(path string, depth int) (*node, error) {
	at := p.next()
	tok, err := p.dec.Token()
	if err != nil {
		return nil, p.syntax(at, path, err)
	}
	p.nodes++
	if depth > maxDepth || p.nodes > maxNodes {
		return nil, p.faultAt(at, path, "is nested too deeply or has too many values")
	}
	n := &node{}
	n.line, n.col = p.position(at)
	switch v := tok.(type) {
	case nil:
		n.kind = kindNull
	case bool:
		n.setBool(v)
	case json.Number:
		n.kind, n.text = kindNumber, v.String()
	case string:
		n.kind, n.text = kindText, v
	case json.Delim:
		if v == '[' {
			return n, p.list(n, path, depth)
		}
		return n, p.object(n, path, depth)
	}
	return n, nil
}

func (p *jsonParser) list(n *node, path string, depth int) error {
	n.kind = kindList
	for p.dec.More() {
		item, err := p.value(indexed(path, len(n.items)), depth+1)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
	return p.closing(path)
}

func (p *jsonParser) object(n *node, path string, depth int) error {
	n.kind, n.fields = kindObject, map[string]*node{}
	for p.dec.More() {
		at := p.next()
		tok, err := p.dec.Token()
		if err != nil {
			return p.syntax(at, path, err)
		}
		key := tok.(string) // the decoder admits nothing else here
		if n.fields[key] != nil {
			return p.faultAt(at, joined(path, key), "is given twice")
		}
		v, err := p.value(joined(path, key), depth+1)
		if err != nil {
			return err
		}
		n.set(key, v)
	}
	return p.closing(path)
}

func (p *jsonParser) closing(path string) error {
	at := p.next()
	if _, err := p.dec.Token(); err != nil {
		return p.syntax(at, path, err)
	}
	return nil
}

func (p *jsonParser) syntax(at int, path string, err error) error {
	var se *json.SyntaxError
	switch {
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		return p.faultAt(len(p.text), path, "the text ends too early")
	case errors.As(err, &se):
		return p.faultAt(max(at, int(se.Offset)-1), path, se.Error())
	}
	return p.faultAt(at, path, err.Error())
}

// yamlBuilder turns YAML's tree into ours. Aliases, anchors and tags are refused:
// documents need none, and expanding them is how a small file becomes a large one.
type yamlBuilder struct{ nodes int }

func parseYAML(b []byte) (*node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if err == io.EOF {
			return nil, &Error{Problem: "is empty"}
		}
		return nil, &Error{Problem: err.Error()}
	}
	if err := dec.Decode(&more); err != io.EOF {
		return nil, &Error{Problem: "holds more than one YAML document"}
	}
	return (&yamlBuilder{}).value(doc.Content[0], "", 0)
}

func (p *yamlBuilder) value(y *yaml.Node, path string, depth int) (*node, error) {
	n := &node{line: y.Line, col: y.Column}
	p.nodes++
	switch {
	case depth > maxDepth || p.nodes > maxNodes:
		return nil, n.fault(path, "is nested too deeply or has too many values")
	case y.Kind == yaml.AliasNode || y.Anchor != "":
		return nil, n.fault(path, "YAML anchors and aliases are not allowed")
	case y.Kind == yaml.SequenceNode:
		return n, p.list(n, y, path, depth)
	case y.Kind == yaml.MappingNode:
		return n, p.object(n, y, path, depth)
	}
	return n, scalar(n, y, path)
}

func (p *yamlBuilder) list(n *node, y *yaml.Node, path string, depth int) error {
	n.kind = kindList
	for i, c := range y.Content {
		item, err := p.value(c, indexed(path, i), depth+1)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
	return nil
}

func (p *yamlBuilder) object(n *node, y *yaml.Node, path string, depth int) error {
	n.kind, n.fields = kindObject, map[string]*node{}
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, err := p.value(y.Content[i], path, depth+1)
		if err != nil {
			return err
		}
		if k.kind == kindList || k.kind == kindObject || y.Content[i].ShortTag() == "!!merge" {
			return k.fault(path, "keys must be plain words")
		}
		if n.fields[k.text] != nil {
			return k.fault(joined(path, k.text), "is given twice")
		}
		v, err := p.value(y.Content[i+1], joined(path, k.text), depth+1)
		if err != nil {
			return err
		}
		n.set(k.text, v)
	}
	return nil
}

func scalar(n *node, y *yaml.Node, path string) error {
	switch y.ShortTag() {
	case "!!str", "!!timestamp", "!!merge":
		n.kind, n.text = kindText, y.Value
	case "!!null":
		n.kind = kindNull
	case "!!bool":
		var b bool
		if err := y.Decode(&b); err != nil {
			return n.fault(path, "%v", err)
		}
		n.setBool(b)
	case "!!int", "!!float":
		return number(n, y, path)
	default:
		return n.fault(path, "YAML tag %s is not allowed", y.ShortTag())
	}
	return nil
}

// number keeps a number as written where JSON can write it so too.
func number(n *node, y *yaml.Node, path string) error {
	n.kind, n.text = kindNumber, y.Value
	if json.Valid([]byte(y.Value)) {
		return nil
	}
	var f float64
	if err := y.Decode(&f); err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return n.fault(path, "%q is no number that JSON can hold", y.Value)
	}
	n.text = strconv.FormatFloat(f, 'f', -1, 64)
	return nil
}

func joined(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func indexed(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
