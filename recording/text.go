package recording

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	"sallyport.dev/internal/escape"
)

const (
	maxColumns = 1000    // terminals are taken to be no wider
	maxTextRow = 1 << 16 // characters of one line of text, wrapped rows included
)

// TextWriter writes what a recording showed as plain text, line by line, with everything
// that scrolled by. Carriage returns, backspaces and the editing of the current line have
// their effect; colours and other controls are dropped, so the text is safe to show on a
// terminal. What a full-screen program drew is left out, with a note. The same events give
// the same text, however they come. It is not safe for concurrent use.
type TextWriter struct{ screen *textScreen }

// NewTextWriter returns what writes text to w, of a terminal that is so many columns wide.
func NewTextWriter(w io.Writer, width int) *TextWriter {
	return &TextWriter{newTextScreen(w, width)}
}

// Take reads an event. Lines that it ended are written at the next Flush, or before.
func (t *TextWriter) Take(e Event) error {
	switch e.Kind {
	case KindOutput:
		t.screen.write(e.Data)
	case KindResize:
		t.screen.resize(e.Data)
	}
	return t.screen.err
}

// Flush writes the lines that have ended.
func (t *TextWriter) Flush() error {
	if err := t.screen.w.Flush(); err != nil {
		return fmt.Errorf("writing text: %w", err)
	}
	return nil
}

// Close writes what is left, the line that has not ended included.
func (t *TextWriter) Close() error { return t.screen.finish() }

// textScreen is a terminal one line high. Rows that the terminal wrapped stay in
// wrapped until the line ends, because the reader wants them joined.
type textScreen struct {
	w       *bufio.Writer
	err     error
	width   int
	parser  escape.Parser
	wrapped []rune
	row     []rune
	col     int
	hidden  bool // a full-screen program has the screen
}

func newTextScreen(w io.Writer, width int) *textScreen {
	t := &textScreen{w: bufio.NewWriter(w)}
	t.setWidth(width)
	return t
}

func (t *textScreen) setWidth(width int) {
	if width < 1 || width > maxColumns {
		width = maxColumns
	}
	t.width = width
}

func (t *textScreen) resize(size string) {
	cols, _, _ := strings.Cut(size, "x")
	if n, err := strconv.Atoi(cols); err == nil {
		t.setWidth(n)
	}
}

func (t *textScreen) write(s string) {
	for _, r := range s {
		switch t.parser.Next(r) {
		case escape.Text:
			if !t.hidden && unicode.IsGraphic(r) { // not what turns the text's direction
				t.put(r)
			}
		case escape.Control:
			if !t.hidden {
				t.control(r)
			}
		case escape.CSI:
			t.csi(&t.parser)
		}
	}
}

func (t *textScreen) control(r rune) {
	switch r {
	case '\n', '\v', '\f':
		t.newline()
	case '\r':
		t.col = 0
	case '\b':
		t.col = max(0, t.col-1)
	case '\t':
		t.moveTo(t.col/8*8 + 8)
	}
}

func (t *textScreen) put(r rune) {
	if t.col >= t.width {
		t.wrap()
	}
	t.pad(t.col)
	if t.col < len(t.row) {
		t.row[t.col] = r
	} else {
		t.row = append(t.row, r)
	}
	t.col++
}

// wrap goes on in the next row, as a terminal does at its right edge.
func (t *textScreen) wrap() {
	t.wrapped = append(t.wrapped, t.row...)
	t.row, t.col = t.row[:0], 0
	if len(t.wrapped) > maxTextRow {
		t.newline()
	}
}

func (t *textScreen) pad(col int) {
	for len(t.row) < col {
		t.row = append(t.row, ' ')
	}
}

func (t *textScreen) moveTo(col int) { t.col = min(max(0, col), t.width-1) }

func (t *textScreen) newline() {
	line := strings.TrimRight(string(t.wrapped)+string(t.row), " ")
	if _, err := t.w.WriteString(line + "\n"); err != nil && t.err == nil {
		t.err = err
	}
	t.wrapped, t.row, t.col = t.wrapped[:0], t.row[:0], 0
}

// freshLine ends the line if there is something on it.
func (t *textScreen) freshLine() {
	if len(t.wrapped)+len(t.row) > 0 {
		t.newline()
	}
}

func (t *textScreen) finish() error {
	t.freshLine()
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("writing text: %w", err)
	}
	return nil
}

// csi carries out the sequences that edit the current line.
func (t *textScreen) csi(p *escape.Parser) {
	switch {
	case p.Prefix == '?' && (p.Final == 'h' || p.Final == 'l'):
		t.mode(p)
		return
	case t.hidden || p.Prefix != 0 || p.Middle != 0:
		return
	}
	n := min(p.Param(0, 1), maxColumns)
	switch p.Final {
	case 'C':
		t.moveTo(t.col + n)
	case 'D':
		t.moveTo(t.col - n)
	case 'G', '`':
		t.moveTo(n - 1)
	case 'K':
		t.eraseLine(p.Param(0, 0))
	case 'P':
		t.delete(n)
	case '@':
		t.insert(n)
	case 'X':
		t.blank(t.col, t.col+n)
	case 'J':
		if p.Param(0, 0) == 0 { // as shells do before a prompt
			t.eraseLine(0)
			return
		}
		t.freshLine()
	case 'H', 'f': // the cursor leaves the line
		t.freshLine()
	}
}

// mode notices when a full-screen program takes the other screen and gives it back.
func (t *textScreen) mode(p *escape.Parser) {
	on := p.Final == 'h'
	for i := range p.Len() {
		if n := p.Param(i, 0); n != 1049 && n != 1047 && n != 47 {
			continue
		}
		if on && !t.hidden {
			t.freshLine()
			t.row = append(t.row, []rune("[full-screen program]")...)
			t.newline()
		}
		t.hidden = on
	}
}

func (t *textScreen) eraseLine(how int) {
	switch how {
	case 0:
		t.row = t.row[:min(t.col, len(t.row))]
	case 1:
		t.blank(0, t.col+1)
	case 2:
		t.row = t.row[:0]
	}
}

func (t *textScreen) blank(from, to int) {
	for i := from; i < min(to, len(t.row)); i++ {
		t.row[i] = ' '
	}
}

func (t *textScreen) delete(n int) {
	if t.col < len(t.row) {
		t.row = append(t.row[:t.col], t.row[min(t.col+n, len(t.row)):]...)
	}
}

func (t *textScreen) insert(n int) {
	if t.col >= len(t.row) {
		return
	}
	rest := append([]rune(strings.Repeat(" ", n)), t.row[t.col:]...)
	t.row = append(t.row[:t.col], rest...)
	t.row = t.row[:min(len(t.row), t.width)]
}
