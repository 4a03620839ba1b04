package recording

import (
	"bytes"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// scan is where in a stream for a terminal the reader is.
type scan int

const (
	scanText scan = iota
	scanEscape
	scanCSI
	scanCharset
	scanString // the text of a title and the like
	scanStringEscape
)

// maxParams bounds the parameters of a sequence that are looked at, in bytes.
const maxParams = 32

// screenReader follows what a stream shows on a terminal, as far as redaction needs to
// know: what is text, and where programs wrap lines.
type screenReader struct {
	width  int // columns; 0 when there is no terminal
	col    int // characters before the cursor; up to width
	state  scan
	from   int64  // where the sequence began
	osc    bool   // the string is an OSC
	params []byte // of a CSI sequence
	erased bool   // a backspace came last
	wrap   bool   // a carriage return that wraps a line came last
	space  int64  // a space beyond the last column, which may wrap the line, or -1
}

// read takes the character r at an offset, with which rest begins.
func (c *screenReader) read(s *redactStream, r rune, at int64, rest []byte) {
	if isC1(r) && c.state != scanString && c.state != scanStringEscape {
		c.begin(at)
		c.escape(s, r-0x40, at)
		return
	}
	if c.state == scanText && r != '\x1b' {
		c.text(s, r, at, rest)
		return
	}
	if r == '\x1b' && c.state != scanString {
		c.begin(at)
		return
	}
	switch c.state {
	case scanEscape:
		c.escape(s, r, at)
	case scanCharset:
		c.state = scanText
	case scanCSI:
		c.control(s, r, at)
	case scanString:
		c.title(s, r, at, rest)
	case scanStringEscape:
		c.endString(s, at)
		if r != '\\' {
			c.state = scanEscape
			c.escape(s, r, at)
		}
	}
}

// begin begins a sequence.
func (c *screenReader) begin(at int64) {
	c.state, c.from, c.params = scanEscape, at, c.params[:0]
}

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
	case r == '\r':
		s.part(r, at, end, rest)
		if c.wrap = full; !full {
			s.show(r, at, end, rest)
		}
		c.col = 0
	case r == '\n' && wrap, r == ' ' && erased:
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
	n := columns(r)
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
	}
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		c.advance(r)
		p = p[n:]
	}
}

// escape takes the character after ESC.
func (c *screenReader) escape(s *redactStream, r rune, at int64) {
	switch {
	case r == '[':
		c.state = scanCSI
	case r == ']' || r == 'P' || r == 'X' || r == '^' || r == '_':
		c.state, c.osc = scanString, r == ']'
		s.part('\n', at, at, nil)
	case r >= 0x20 && r <= 0x2f:
		c.state = scanCharset
	default:
		c.state = scanText
		if r >= '7' && r <= '8' || r == 'D' || r == 'E' || r == 'M' || r == 'c' {
			s.part('\n', at, at, nil)
		}
	}
}

// control takes a character of a CSI sequence.
func (c *screenReader) control(s *redactStream, r rune, at int64) {
	if r < 0x40 || r > 0x7e {
		if len(c.params) < maxParams && r < utf8.RuneSelf {
			c.params = append(c.params, byte(r))
		}
		return
	}
	c.state = scanText
	switch r {
	case 'G', '`':
		c.col = c.param(0, 1) - 1
	case 'H', 'f':
		c.col = c.param(1, 1) - 1
	case 'C', 'a':
		c.col += c.param(0, 1)
	case 'D':
		c.col -= c.param(0, 1)
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

// param returns a parameter of the sequence.
func (c *screenReader) param(i, missing int) int {
	fields := bytes.Split(c.params, []byte{';'})
	if i >= len(fields) {
		return missing
	}
	n, err := strconv.Atoi(string(fields[i]))
	if err != nil || n < 1 || n > maxColumnsSeen {
		return missing
	}
	return n
}

// maxColumnsSeen bounds what is believed of a terminal's size.
const maxColumnsSeen = 10_000

// title takes a character of the text in a sequence.
func (c *screenReader) title(s *redactStream, r rune, at int64, rest []byte) {
	switch r {
	case '\x1b':
		c.state = scanStringEscape
	case '\a', 0x18, 0x1a, 0x9c:
		c.endString(s, at)
	default:
		if r >= ' ' && r != 0x7f {
			s.part(r, at, s.at, rest)
		}
	}
}

func (c *screenReader) endString(s *redactStream, at int64) {
	c.state = scanText
	s.part('\n', at, at, nil)
	if c.osc {
		s.told(c.from, at)
	}
}

// unfinished returns up to where a stream can be let go if it is safe up to an offset:
// not within sequences.
func (c *screenReader) unfinished(safe int64) int64 {
	if c.state != scanText {
		safe = min(safe, c.from)
	}
	if c.space >= 0 {
		safe = min(safe, c.space)
	}
	return safe
}

// close settles what is open at the end.
func (c *screenReader) close(s *redactStream) { c.settleSpace(s, -1) }
