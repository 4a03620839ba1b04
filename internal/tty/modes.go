// Package tty follows what a program's output does to a terminal, so that the
// terminal can be given back as it was.
package tty

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"sallyport.dev/internal/escape"
)

// modes are the private modes that are undone, in this order (xterm's "DEC Private
// Mode Set"). A terminal starts with those that are normal already on.
var modes = [...]struct {
	number int
	normal bool
}{
	{number: 1},                // cursor keys send other sequences
	{number: 5},                // reverse video
	{number: 7, normal: true},  // lines wrap
	{number: 25, normal: true}, // the cursor is visible
	{number: 66},               // keypad, as ESC = sets it
	{number: 9},                // mouse
	{number: 1000},
	{number: 1001},
	{number: 1002},
	{number: 1003},
	{number: 1004}, // focus
	{number: 1005},
	{number: 1006},
	{number: 1015},
	{number: 1016},
	{number: 2004}, // bracketed paste
	{number: 2026}, // output is held back
	{number: 47},   // the alternate screen comes last: leaving it restores the cursor
	{number: 1047},
	{number: 1049},
}

const keypadMode = 66

// Modes follows the output written to it. The zero value is a terminal as a shell
// leaves it. It is not safe for concurrent use.
type Modes struct {
	changed     [len(modes)]bool // from what is normal
	coloured    bool
	keys        bool // modifyOtherKeys
	open        bool // the cursor is within a line
	openOutside bool // it was, where the alternate screen was entered

	parser escape.Parser
}

// Write follows output; sequences may be cut anywhere. It never fails.
func (m *Modes) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if m.parser.InText() {
			p = m.text(p)
			continue
		}
		m.sequence(p[0])
		p = p[1:]
	}
	return n, nil
}

// text takes what is before the next escape sequence.
func (m *Modes) text(p []byte) (rest []byte) {
	end := bytes.IndexByte(p, 0x1b)
	if end < 0 {
		end = len(p)
	} else {
		m.parser.Next(0x1b)
		rest = p[end+1:]
	}
	if line := bytes.TrimRight(p[:end], "\r\a"); len(line) > 0 {
		m.open = line[len(line)-1] != '\n'
	}
	return rest
}

// sequence takes a byte of a sequence. Of a character beyond ASCII no more need be known
// than that it is one.
func (m *Modes) sequence(c byte) {
	r := rune(c)
	if r >= utf8.RuneSelf {
		r = utf8.RuneError
	}
	switch m.parser.Next(r) {
	case escape.Escape:
		m.escape()
	case escape.CSI:
		m.csi(&m.parser)
	}
}

func (m *Modes) escape() {
	if m.parser.Middle != 0 {
		return
	}
	switch final := m.parser.Final; final {
	case '=', '>':
		m.set(keypadMode, final == '=')
	case 'c': // full reset
		*m = Modes{}
	}
}

func (m *Modes) csi(p *escape.Parser) {
	switch {
	case p.Middle != 0:
	case p.Prefix == '?' && (p.Final == 'h' || p.Final == 'l'):
		for i := range p.Len() {
			m.set(p.Param(i, 0), p.Final == 'h')
		}
	case p.Prefix == '>' && p.Final == 'm' && p.Param(0, 0) == 4:
		m.keys = p.Param(1, 0) != 0
	case p.Prefix == 0 && p.Final == 'm':
		m.coloured = false
		for i := range p.Len() {
			m.coloured = m.coloured || p.Param(i, 0) != 0
		}
	}
}

func (m *Modes) set(number int, on bool) {
	for i, mode := range modes {
		if mode.number != number {
			continue
		}
		was := m.Alternate()
		m.changed[i] = on != mode.normal
		switch now := m.Alternate(); {
		case now && !was:
			m.openOutside, m.open = m.open, false
		case was && !now:
			m.open = m.openOutside
		}
	}
}

// Alternate reports whether the alternate screen is shown.
func (m *Modes) Alternate() bool {
	for i := len(modes) - 3; i < len(modes); i++ {
		if m.changed[i] {
			return true
		}
	}
	return false
}

// InLine reports whether the cursor is behind text of a line, so that something else
// should begin a new one.
func (m *Modes) InLine() bool { return m.open }

// StartLine notes that something else moved the cursor to the start of a line.
func (m *Modes) StartLine() { m.open = false }

// Undo returns what gives the terminal back as it was before the output, empty if
// nothing is left set; from then on it counts as undone.
func (m *Modes) Undo() string {
	var b strings.Builder
	if m.coloured {
		b.WriteString("\x1b[0m")
	}
	if m.keys {
		b.WriteString("\x1b[>4m")
	}
	for i, mode := range modes {
		switch {
		case !m.changed[i]:
		case mode.number == keypadMode:
			b.WriteString("\x1b>")
		case mode.normal:
			fmt.Fprintf(&b, "\x1b[?%dh", mode.number)
		default:
			fmt.Fprintf(&b, "\x1b[?%dl", mode.number)
		}
	}
	open := m.open
	if m.Alternate() {
		open = m.openOutside
	}
	*m = Modes{open: open}
	return b.String()
}
