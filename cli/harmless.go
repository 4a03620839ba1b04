package cli

import (
	"slices"
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

// isHarmless decides on a sequence: what is not known to do nothing but show is not
// passed on. New terminals have new questions.
func isHarmless(found escape.Found, p *escape.Parser) bool {
	if found == escape.Escape {
		// Not ESC % @: without UTF-8, bytes of characters are C1 controls.
		charset := strings.ContainsRune("()*+", rune(p.Middle)) && p.Middle != 0
		return charset || p.Middle == 0 && strings.ContainsRune("78DEHMcno", rune(p.Final)) || p.Middle == '#' && p.Final == '8'
	}
	plain := p.Prefix == 0 && p.Len() == 0
	switch p.Final {
	case 'h', 'l':
		return showsOnly(p)
	case 'q':
		return p.Prefix == 0 && p.Middle == ' ' // cursor shape
	case 'u':
		return plain && p.Middle == 0 // restore cursor
	case 'p':
		return plain && p.Middle == '!' // soft reset
	case 'J', 'K':
		return p.Middle == 0 && (p.Prefix == 0 || p.Prefix == '?')
	}
	return p.Prefix == 0 && p.Middle == 0 && strings.ContainsRune("@ABCDEFGHILMPSTXZ`abdefgmrs", rune(p.Final))
}

// showsOnly reports whether modes that are set change what is shown, and not what the
// terminal sends: reports of the mouse and of focus, and other codes for keys, would be
// typed into whatever runs next.
func showsOnly(p *escape.Parser) bool {
	for i := range p.Len() {
		switch n := p.Param(i, 0); {
		case p.Middle != 0:
			return false
		case p.Prefix == 0 && (n == 4 || n == 20):
		case p.Prefix == '?' && slices.Contains([]int{3, 5, 6, 7, 12, 25, 45, 47, 69, 1047, 1048, 1049, 2026}, n):
		default:
			return false
		}
	}
	return p.Len() > 0
}
