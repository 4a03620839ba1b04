package policy

import (
	"fmt"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a policy's JSON; a valid one needs six levels.
const maxDepth = 16

type jsonKind int

const (
	jsonNull jsonKind = iota
	jsonBool
	jsonNumber
	jsonString
	jsonArray
	jsonObject
)

func (k jsonKind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "an array", "an object"}[k]
}

// node is a JSON value that knows where it stands in the text.
type node struct {
	kind    jsonKind
	text    string // of a string decoded, of a boolean or number as written
	elems   []node
	members []member
	off     int // of the first byte
	end     int // after the last byte
}

type member struct {
	name  string
	off   int // of the name
	value node
}

func (n *node) member(name string) *node {
	for i := range n.members {
		if n.members[i].name == name {
			return &n.members[i].value
		}
	}
	return nil
}

// scanner reads JSON as RFC 8259 has it, and stricter: names must not repeat,
// strings hold no control characters. A lenient reader would let two readers see
// two policies in one text.
type scanner struct {
	src []byte
	pos int
}

func parseJSON(src []byte) (node, error) {
	s := &scanner{src: src}
	if len(src) > MaxSize {
		return node{}, s.errorf(MaxSize, "the policy is longer than %d bytes", MaxSize)
	}
	if i := invalidUTF8(src); i >= 0 {
		return node{}, s.errorf(i, "byte 0x%02x is not valid UTF-8", src[i])
	}
	s.space()
	if s.pos == len(src) {
		return node{}, s.errorf(s.pos, "the policy is empty")
	}
	n, err := s.value(0)
	if err != nil {
		return node{}, err
	}
	s.space()
	if s.pos < len(src) {
		return node{}, s.errorf(s.pos, "%s after the end of the policy", s.found())
	}
	return n, nil
}

func invalidUTF8(src []byte) int {
	for i := 0; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return -1
}

func (s *scanner) errorf(off int, format string, args ...any) *ParseError {
	p := position(s.src, off)
	return &ParseError{Line: p.Line, Column: p.Column, Message: fmt.Sprintf(format, args...)}
}

// position turns an offset into a line and column.
func position(src []byte, off int) Position {
	p := Position{Line: 1, Column: 1}
	for _, r := range string(src[:min(off, len(src))]) {
		p.Column++
		if r == '\n' {
			p = Position{Line: p.Line + 1, Column: 1}
		}
	}
	return p
}

func (s *scanner) space() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// found describes what stands at the current place.
func (s *scanner) found() string {
	if s.pos >= len(s.src) {
		return "end of text"
	}
	r, _ := utf8.DecodeRune(s.src[s.pos:])
	switch r {
	case '\u201c', '\u201d', '\u2018', '\u2019':
		return fmt.Sprintf("curly quote %q (JSON strings need straight double quotes)", r)
	case '\'':
		return "single quote (JSON strings need double quotes)"
	case '/', '#':
		return fmt.Sprintf("%q (JSON has no comments)", r)
	case '\ufeff':
		return "byte order mark"
	}
	return fmt.Sprintf("%q", r)
}

func (s *scanner) peek() byte {
	if s.pos < len(s.src) {
		return s.src[s.pos]
	}
	return 0
}

func (s *scanner) value(depth int) (node, error) {
	if depth > maxDepth {
		return node{}, s.errorf(s.pos, "nested more than %d levels deep", maxDepth)
	}
	switch c := s.peek(); {
	case c == '{':
		return s.object(depth)
	case c == '[':
		return s.array(depth)
	case c == '"':
		return s.string()
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	case 'a' <= c && c <= 'z':
		return s.word()
	}
	return node{}, s.errorf(s.pos, "expected a value, found %s", s.found())
}

func (s *scanner) object(depth int) (node, error) {
	n := node{kind: jsonObject, off: s.pos}
	s.pos++
	s.space()
	if s.peek() == '}' {
		s.pos++
		n.end = s.pos
		return n, nil
	}
	seen := make(map[string]bool)
	for {
		m, err := s.member(depth)
		if err != nil {
			return n, err
		}
		if seen[m.name] {
			return n, s.errorf(m.off, "duplicate element %q", m.name)
		}
		seen[m.name] = true
		n.members = append(n.members, m)
		if done, err := s.separator('}', "object"); done || err != nil {
			n.end = s.pos
			return n, err
		}
	}
}

func (s *scanner) member(depth int) (member, error) {
	if s.peek() != '"' {
		return member{}, s.errorf(s.pos, "expected an element name in double quotes, found %s", s.found())
	}
	name, err := s.string()
	if err != nil {
		return member{}, err
	}
	s.space()
	if s.peek() != ':' {
		return member{}, s.errorf(s.pos, "missing colon after %q, found %s", name.text, s.found())
	}
	s.pos++
	s.space()
	v, err := s.value(depth + 1)
	return member{name: name.text, off: name.off, value: v}, err
}

func (s *scanner) array(depth int) (node, error) {
	n := node{kind: jsonArray, off: s.pos}
	s.pos++
	s.space()
	if s.peek() == ']' {
		s.pos++
		n.end = s.pos
		return n, nil
	}
	for {
		v, err := s.value(depth + 1)
		if err != nil {
			return n, err
		}
		n.elems = append(n.elems, v)
		if done, err := s.separator(']', "array"); done || err != nil {
			n.end = s.pos
			return n, err
		}
	}
}

// separator reads the comma before the next item, or the closing bracket.
func (s *scanner) separator(closing byte, what string) (done bool, err error) {
	after := s.pos
	s.space()
	switch c := s.peek(); {
	case s.pos == len(s.src):
		return false, s.errorf(s.pos, "the %s is not closed: missing %q", what, closing)
	case c == closing:
		s.pos++
		return true, nil
	case c == ',':
		s.pos++
		s.space()
		if s.peek() == closing {
			return false, s.errorf(s.pos, "comma before the closing %q", closing)
		}
		return false, nil
	case c == '"' || c == '{' || c == '[' || c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z':
		return false, s.errorf(after, "missing comma before %s", s.upcoming())
	}
	return false, s.errorf(s.pos, "expected a comma or %q, found %s", closing, s.found())
}

// upcoming names the item that lacks a comma before it.
func (s *scanner) upcoming() string {
	p := position(s.src, s.pos)
	if s.peek() == '"' {
		at := s.pos
		if n, err := s.string(); err == nil && len(n.text) <= 60 {
			return fmt.Sprintf("%q (line %d, column %d)", n.text, p.Line, p.Column)
		}
		s.pos = at
	}
	return fmt.Sprintf("%q (line %d, column %d)", s.peek(), p.Line, p.Column)
}

func (s *scanner) word() (node, error) {
	off := s.pos
	for c := s.peek(); 'a' <= c && c <= 'z'; c = s.peek() {
		s.pos++
	}
	n := node{text: string(s.src[off:s.pos]), off: off, end: s.pos}
	switch n.text {
	case "true", "false":
		n.kind = jsonBool
		return n, nil
	case "null":
		return n, nil
	}
	return n, s.errorf(off, "unquoted word %q: strings need double quotes", shorten(n.text))
}

func (s *scanner) digits() int {
	start := s.pos
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.pos++
	}
	return s.pos - start
}

func (s *scanner) number() (node, error) {
	off := s.pos
	if s.peek() == '-' {
		s.pos++
	}
	leading := s.peek()
	whole := s.digits()
	ok := whole > 0 && (leading != '0' || whole == 1)
	if s.peek() == '.' {
		s.pos++
		ok = s.digits() > 0 && ok
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		ok = s.digits() > 0 && ok
	}
	n := node{kind: jsonNumber, text: string(s.src[off:s.pos]), off: off, end: s.pos}
	if !ok {
		return n, s.errorf(off, "malformed number %q", shorten(n.text))
	}
	return n, nil
}

func (s *scanner) string() (node, error) {
	off := s.pos
	s.pos++
	var buf []byte
	for {
		start := s.pos
		if s.pos >= len(s.src) {
			return node{}, s.errorf(off, "the string that starts here is not closed")
		}
		c := s.src[s.pos]
		s.pos++
		switch {
		case c == '"':
			return node{kind: jsonString, text: string(buf), off: off, end: s.pos}, nil
		case c == '\n':
			return node{}, s.errorf(off, "the string that starts here is not closed on its line")
		case c != '\\':
			buf = append(buf, c)
		default:
			r, err := s.escape(start)
			if err != nil {
				return node{}, err
			}
			buf = utf8.AppendRune(buf, r)
			c = 'x'
			if r < 0x80 {
				c = byte(r)
			}
		}
		if c < 0x20 || c == 0x7f {
			return node{}, s.errorf(start, "control character U+%04X in a string", c)
		}
	}
}

// escape reads what follows a backslash.
func (s *scanner) escape(off int) (rune, error) {
	c := s.peek()
	s.pos++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b', 'f', 'n', 'r', 't':
		return 0, s.errorf(off, "control character \\%c in a string", c)
	case 'u':
		return s.unicode(off)
	}
	return 0, s.errorf(off, "unknown escape in a string: a backslash itself is written \\\\")
}

func (s *scanner) unicode(off int) (rune, error) {
	r, ok := s.hex4()
	if ok && 0xd800 <= r && r < 0xdc00 && s.peek() == '\\' {
		s.pos++
		if s.peek() == 'u' {
			s.pos++
			if low, lowOK := s.hex4(); lowOK && 0xdc00 <= low && low < 0xe000 {
				return (r-0xd800)<<10 + (low - 0xdc00) + 0x10000, nil
			}
		}
		ok = false
	}
	if !ok || 0xd800 <= r && r < 0xe000 {
		return 0, s.errorf(off, "malformed \\u escape in a string")
	}
	return r, nil
}

func (s *scanner) hex4() (rune, bool) {
	if s.pos+4 > len(s.src) {
		return 0, false
	}
	var r rune
	for _, c := range s.src[s.pos : s.pos+4] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	s.pos += 4
	return r, true
}

// shorten keeps quoted input in messages readable.
func shorten(s string) string {
	const limit = 80
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
