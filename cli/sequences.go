package cli

import (
	"strings"
	"unicode/utf8"
)

// tokenKind is what a piece of terminal output is.
type tokenKind int

const (
	tokenText    tokenKind = iota // one printable character
	tokenControl                  // one C0 control character
	tokenEscape                   // ESC and what belongs to it
	tokenCSI                      // ESC [ … final
	tokenString                   // OSC, DCS, APC, PM and SOS, without their content
)

// token is one piece of terminal output. Text is the piece as it came; for a CSI,
// params is what is between [ and the final character.
type token struct {
	kind   tokenKind
	text   string
	params string
	final  byte
}

// maxSequence bounds an escape sequence that is still waited for the end of; strings
// are thrown away as they come.
const maxSequence = 256

// sequences cuts terminal output into tokens. It keeps what is incomplete at the end
// of a piece until the next.
type sequences struct {
	pending  strings.Builder // an unfinished escape sequence
	inString bool            // inside a string whose content is dropped
	escaped  bool            // an ESC in it, which \ would make its end
}

// feed calls yield for every complete token of s.
func (q *sequences) feed(s string, yield func(token)) {
	for _, r := range s {
		switch {
		case q.inString:
			q.feedString(r, yield)
		case q.pending.Len() > 0:
			q.feedEscape(r, yield)
		case r == 0x1b:
			q.pending.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			yield(token{kind: tokenControl, text: string(r), final: byte(r)})
		case r >= 0x80 && r < 0xa0:
			// C1 controls: terminals take them for escape sequences; programs that mean
			// well use ESC.
		default:
			yield(token{kind: tokenText, text: string(r)})
		}
	}
}

func (q *sequences) feedString(r rune, yield func(token)) {
	ended := r == 0x07 || r == 0x18 || r == 0x1a || (q.escaped && r == '\\')
	q.escaped = r == 0x1b
	if ended {
		q.inString, q.escaped = false, false
		yield(token{kind: tokenString})
	}
}

func (q *sequences) feedEscape(r rune, yield func(token)) {
	if r == 0x1b || r == 0x18 || r == 0x1a || q.pending.Len() > maxSequence {
		q.pending.Reset()
		if r == 0x1b {
			q.pending.WriteRune(r)
		}
		return
	}
	if r < 0x20 { // control characters act inside of sequences, too
		yield(token{kind: tokenControl, text: string(r), final: byte(r)})
		return
	}
	if r >= utf8.RuneSelf {
		q.pending.Reset()
		return
	}
	second := q.pending.Len() == 1
	q.pending.WriteRune(r)
	switch {
	case second && strings.ContainsRune("]P_^X", r):
		q.pending.Reset()
		q.inString = true
	case second && r == '[':
	case second && r >= 0x20 && r <= 0x2f:
	case strings.HasPrefix(q.pending.String(), "\x1b["):
		if r >= 0x40 && r <= 0x7e {
			q.finish(tokenCSI, yield)
		}
	case r >= 0x30:
		q.finish(tokenEscape, yield)
	}
}

func (q *sequences) finish(kind tokenKind, yield func(token)) {
	text := q.pending.String()
	q.pending.Reset()
	t := token{kind: kind, text: text, final: text[len(text)-1]}
	if kind == tokenCSI {
		t.params = text[2 : len(text)-1]
	}
	yield(t)
}

// harmless reports whether a token may be written to a terminal that did not run the
// recorded program. Strings (which set titles, clipboards and colours, or ask for
// them) and questions, whose answers the terminal would type into whatever runs next,
// are not.
func harmless(t token) bool {
	switch t.kind {
	case tokenText:
		return true
	case tokenControl:
		return t.final != 0x05 // ENQ: answerback
	case tokenEscape:
		return t.final != 'Z' // identify
	case tokenCSI:
		switch t.final {
		case 'c', 'n', 'x', 't', 'q', 'u', 'p', 'y', 'i', 'S':
			return harmlessCSI(t)
		}
		return true
	}
	return false
}

// harmlessCSI decides on final characters that stand for questions and for more.
func harmlessCSI(t token) bool {
	switch t.final {
	case 'q':
		return strings.HasSuffix(t.params, " ") // cursor shape
	case 'u':
		return t.params == "" // restore cursor
	case 'p':
		return t.params == "!" // soft reset
	case 'S':
		return !strings.HasPrefix(t.params, "?") // scroll, not graphics
	}
	return false
}
