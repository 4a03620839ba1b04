package transcript

import (
	"time"
	"unicode"

	"sallyport.dev/internal/escape"
)

// typedLine is the line that is being typed, as a line editor with the usual keys keeps
// it. Keys that ask the shell for something (arrows, Tab, searching) leave no trace: what
// they gave is on the screen.
type typedLine struct {
	text []rune
}

func (t *typedLine) print(r rune) {
	if len(t.text) < MaxLine && unicode.IsGraphic(r) {
		t.text = append(t.text, r)
	}
}

func (t *typedLine) key(r rune) {
	switch r {
	case '\b', 0x7f:
		if n := len(t.text); n > 0 {
			t.text = t.text[:n-1]
		}
	case 0x15: // ^U
		t.text = t.text[:0]
	case 0x17: // ^W
		t.word()
	}
}

func (t *typedLine) word() {
	n := len(t.text)
	for n > 0 && t.text[n-1] == ' ' {
		n--
	}
	for n > 0 && t.text[n-1] != ' ' {
		n--
	}
	t.text = t.text[:n]
}

// typing reads what is typed.
type typing struct {
	parser escape.Parser
	line   typedLine
	tell   func(at time.Duration, kind Kind, text string)
	at     time.Duration
	skip   bool // the next character is the rest of a key
}

func (t *typing) feed(at time.Duration, data []byte) {
	t.at = at
	for _, r := range string(data) {
		switch t.parser.Next(r) {
		case escape.Text:
			t.print(r)
		case escape.Control:
			t.control(r)
		case escape.Escape:
			t.skip = t.parser.Final == 'O' // SS3: keys send it before one character more
		}
	}
}

func (t *typing) print(r rune) {
	if !t.skip {
		t.line.print(r)
	}
	t.skip = false
}

func (t *typing) control(c rune) {
	switch c {
	case '\r', '\n', 0x03, 0x04: // Enter, ^C, ^D
		t.end()
	default:
		t.line.key(c)
	}
}

// end tells the line.
func (t *typing) end() {
	t.tell(t.at, Typed, string(t.line.text))
	t.line.text = nil
}
