package cli

import (
	"strings"
	"unicode/utf8"

	"sallyport.dev/internal/escape"
)

// harmlessOutput passes on what a recorded program wrote, without what would act on a
// terminal that did not run it: strings, which set titles, clipboards and colours, or ask
// for them, and questions, whose answers the terminal would type into whatever runs next.
// Sequences are written anew, so that a terminal reads nothing that was not judged.
type harmlessOutput struct {
	parser escape.Parser
}

// append adds to b what is harmless of output, which may be cut anywhere but within a
// character.
func (h *harmlessOutput) append(b []byte, output string) []byte {
	for _, r := range output {
		switch found := h.parser.Next(r); found {
		case escape.Text:
			b = utf8.AppendRune(b, r)
		case escape.Control:
			if r != 0x05 { // ENQ: answerback
				b = append(b, byte(r))
			}
		case escape.Escape, escape.CSI:
			if isHarmless(found, &h.parser) {
				b = append(b, h.parser.Sequence(found)...)
			}
		}
	}
	return b
}

// isHarmless decides on a sequence.
func isHarmless(found escape.Found, p *escape.Parser) bool {
	if found == escape.Escape {
		return p.Final != 'Z' // identify
	}
	plain := p.Prefix == 0 && p.Len() == 0
	switch p.Final {
	case 'q':
		return p.Middle == ' ' // cursor shape
	case 'u':
		return plain && p.Middle == 0 // restore cursor
	case 'p':
		return plain && p.Middle == '!' // soft reset
	case 'S':
		return p.Prefix != '?' // scroll, not graphics
	}
	return !strings.ContainsRune("cnxtyi", rune(p.Final))
}
