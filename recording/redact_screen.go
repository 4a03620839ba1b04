package recording

import (
	"bytes"
	"unicode"
	"unicode/utf8"

	"sallyport.dev/internal/escape"
)

// screenReader follows what a stream shows on a terminal, as far as redaction needs to
// know: what is text, and where programs wrap lines.
type screenReader struct {
	width  int // columns; 0 when there is no terminal
	col    int // characters before the cursor; up to width
	parser escape.Parser
	from   int64 // where the sequence began
	erased bool  // a backspace came last
	wrap   bool  // a carriage return that wraps a line came last
	space  int64 // a space beyond the last column, which may wrap the line, or -1
	line   correctedLine
}

// read takes the character r at an offset, with which rest begins.
func (c *screenReader) read(s *redactStream, r rune, at int64, rest []byte) {
	began, osc := c.from, c.inOSC()
	if r == '\x1b' || isC1(r) && !c.parser.InString() {
		c.from = at
	}
	switch c.parser.Next(r) {
	case escape.Text, escape.Control:
		c.text(s, r, at, rest)
	case escape.Escape:
		c.escape(s, at)
	case escape.CSI:
		c.control(s, at)
	case escape.StringText:
		s.part(r, at, s.at, rest)
	case escape.StringBegin:
		s.part('\n', at, at, nil)
	case escape.StringEnd, escape.StringCut:
		s.part('\n', at, at, nil)
		if osc {
			s.told(began, at)
		}
	}
}

// inOSC reports whether what comes next is the text of an OSC.
func (c *screenReader) inOSC() bool { return c.parser.InString() && c.parser.Final == ']' }

// isC1 reports whether a character is one that terminals take for ESC and another one.
func isC1(r rune) bool { return r >= 0x80 && r < 0xa0 }

// isUnseen reports whether a character takes no room, and neither terminals nor texts
// that are made of recordings show it.
func isUnseen(r rune) bool { return r >= 0xad && unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) }

// text takes a character outside of sequences.
func (c *screenReader) text(s *redactStream, r rune, at int64, rest []byte) {
	end := s.at
	erased, wrap := c.erased, c.wrap
	c.erased, c.wrap = false, false
	if c.settleSpace(s, r) {
		s.part(r, at, end, rest)
		return
	}
	full := c.width > 0 && c.col >= c.width
	switch {
	case r == '\b':
		c.erased, c.col = true, max(c.col-1, 0)
		c.line.move(-1)
	case r == '\r':
		s.part(r, at, end, rest)
		if c.wrap = full; !full {
			s.show(r, at, end, rest)
		}
		c.col = 0
	case r == ' ' && erased:
		s.part(r, at, end, rest)
		c.line.put(r)
		c.line.moved = true
		c.advance(r)
	case r == '\n' && wrap:
		s.part(r, at, end, rest)
		c.advance(r)
	case r == ' ' && full:
		s.part(r, at, end, rest)
		c.space = at
	case isUnseen(r):
		s.part(r, at, end, rest)
	case r == '\n', r == '\t', r >= ' ' && r != 0x7f:
		s.part(r, at, end, rest)
		s.show(r, at, end, rest)
		c.advance(r)
	}
}

// settleSpace decides what a space beyond the last column was: readline wraps lines with
// one and a carriage return, which is r then.
func (c *screenReader) settleSpace(s *redactStream, r rune) (wraps bool) {
	if c.space < 0 {
		return false
	}
	at := c.space
	c.space = -1
	if r == '\r' {
		c.col = 0
		return true
	}
	s.show(' ', at, at+1, nil)
	c.col = 1
	return false
}

// advance moves the cursor behind a character.
func (c *screenReader) advance(r rune) {
	switch {
	case r == '\n':
		c.col = 0
		return
	case r == '\t':
		c.col = min(c.col&^7+8, max(c.width-1, c.col))
		return
	case r < ' ' || r == 0x7f:
		return
	}
	n := escape.Columns(r)
	if c.width > 0 && c.col+n > c.width {
		c.col = 0
	}
	c.col += n
}

// pass takes text that nothing need be found in.
func (c *screenReader) pass(p []byte) {
	c.erased, c.wrap = false, false
	if i := max(bytes.LastIndexByte(p, '\n'), bytes.LastIndexByte(p, '\r')); i >= 0 {
		c.col, p = 0, p[i+1:]
		c.line.put('\n')
	}
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		c.advance(r)
		c.line.put(r)
		p = p[n:]
	}
}

// escape takes an escape sequence that ends at an offset.
func (c *screenReader) escape(s *redactStream, at int64) {
	if c.parser.Middle == 0 && bytes.IndexByte([]byte("78DEMc"), c.parser.Final) >= 0 {
		s.part('\n', at, at, nil)
	}
}

// control takes a CSI sequence that ends at an offset.
func (c *screenReader) control(s *redactStream, at int64) {
	p := &c.parser
	if p.Prefix != 0 || p.Middle != 0 {
		return
	}
	c.line.edit(p)
	switch p.Final {
	case 'G', '`':
		c.col = p.Param(0, 1) - 1
	case 'H', 'f':
		c.col = p.Param(1, 1) - 1
	case 'C', 'a':
		c.col += p.Param(0, 1)
	case 'D':
		c.col -= p.Param(0, 1)
	case 'E', 'F':
		c.col = 0
	case 'A', 'B', 'd', 'e':
	default:
		return
	}
	c.col = max(c.col, 0)
	if c.width > 0 {
		c.col = min(c.col, c.width-1)
	}
	s.part('\n', at, at, nil)
}

// unfinished returns up to where a stream can be let go if it is safe up to an offset:
// not within sequences.
func (c *screenReader) unfinished(safe int64) int64 {
	if !c.parser.InText() {
		safe = min(safe, c.from)
	}
	if c.space >= 0 {
		safe = min(safe, c.space)
	}
	return safe
}

// close settles what is open at the end.
func (c *screenReader) close(s *redactStream) { c.settleSpace(s, -1) }
