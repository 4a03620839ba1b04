// Package tty follows what a program's output does to a terminal, so that the
// terminal can be given back as it was.
package tty

import (
	"bytes"
	"strings"
)

// modes are the private modes that are undone, in this order (xterm's "DEC Private
// Mode Set"). A terminal starts with those that are normal already on.
var modes = [...]struct {
	number string
	normal bool
}{
	{number: "1"},                // cursor keys send other sequences
	{number: "5"},                // reverse video
	{number: "7", normal: true},  // lines wrap
	{number: "25", normal: true}, // the cursor is visible
	{number: "66"},               // keypad, as ESC = sets it
	{number: "9"},                // mouse
	{number: "1000"},
	{number: "1001"},
	{number: "1002"},
	{number: "1003"},
	{number: "1004"}, // focus
	{number: "1005"},
	{number: "1006"},
	{number: "1015"},
	{number: "1016"},
	{number: "2004"}, // bracketed paste
	{number: "2026"}, // output is held back
	{number: "47"},   // the alternate screen comes last: leaving it restores the cursor
	{number: "1047"},
	{number: "1049"},
}

const keypadMode = "66"

// state is where in an escape sequence the output is.
type state int

const (
	inText state = iota
	atEscape
	inEscape // ESC and an intermediate character
	inCSI
	inString
	atStringEscape // ESC in a string, whose end it may begin
)

// maxParameters bounds the parameters of a sequence that are kept, in bytes; longer
// ones set no mode.
const maxParameters = 64

// Modes follows the output written to it. The zero value is a terminal as a shell
// leaves it. It is not safe for concurrent use.
type Modes struct {
	changed     [len(modes)]bool // from what is normal
	coloured    bool
	keys        bool // modifyOtherKeys
	open        bool // the cursor is within a line
	openOutside bool // it was, where the alternate screen was entered

	state  state
	params []byte
}

// Write follows output; sequences may be cut anywhere. It never fails.
func (m *Modes) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if m.state == inText {
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
		m.state, rest = atEscape, p[end+1:]
	}
	if line := bytes.TrimRight(p[:end], "\r\a"); len(line) > 0 {
		m.open = line[len(line)-1] != '\n'
	}
	return rest
}

func (m *Modes) sequence(c byte) {
	switch m.state {
	case atEscape:
		m.escape(c)
	case inEscape:
		if c < 0x20 || c > 0x2f {
			m.state = inText
		}
	case inCSI:
		m.csi(c)
	case inString:
		switch c {
		case 0x07, 0x18, 0x1a:
			m.state = inText
		case 0x1b:
			m.state = atStringEscape
		}
	case atStringEscape:
		if m.state = inString; c == '\\' {
			m.state = inText
		}
	}
}

func (m *Modes) escape(c byte) {
	m.state = inText
	switch c {
	case '[':
		m.state, m.params = inCSI, m.params[:0]
	case ']', 'P', '_', '^', 'X':
		m.state = inString
	case 0x1b:
		m.state = atEscape
	case '=', '>':
		m.set(keypadMode, c == '=')
	case 'c': // full reset
		*m = Modes{params: m.params}
	default:
		if c >= 0x20 && c <= 0x2f {
			m.state = inEscape
		}
	}
}

func (m *Modes) csi(c byte) {
	switch {
	case c == 0x1b:
		m.state = atEscape
	case c == 0x18 || c == 0x1a:
		m.state = inText
	case c >= 0x40 && c <= 0x7e:
		m.state = inText
		if len(m.params) <= maxParameters {
			m.finish(string(m.params), c)
		}
	case c >= 0x20 && len(m.params) <= maxParameters:
		m.params = append(m.params, c)
	}
}

func (m *Modes) finish(params string, final byte) {
	switch final {
	case 'h', 'l':
		if numbers, private := strings.CutPrefix(params, "?"); private {
			for number := range strings.SplitSeq(numbers, ";") {
				m.set(number, final == 'h')
			}
		}
	case 'm':
		if keys, ok := strings.CutPrefix(params, ">4"); ok {
			m.keys = keys != "" && keys != ";" && keys != ";0"
		} else if !strings.HasPrefix(params, ">") && !strings.HasPrefix(params, "?") {
			m.coloured = strings.Trim(params, "0;") != ""
		}
	}
}

func (m *Modes) set(number string, on bool) {
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
			b.WriteString("\x1b[?" + mode.number + "h")
		default:
			b.WriteString("\x1b[?" + mode.number + "l")
		}
	}
	open := m.open
	if m.Alternate() {
		open = m.openOutside
	}
	*m = Modes{params: m.params, open: open}
	return b.String()
}
