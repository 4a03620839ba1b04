package recording

import (
	"slices"
	"unicode/utf8"

	"sallyport.dev/internal/escape"
)

// echoReader compares what is shown with the line that is being typed.
type echoReader struct {
	parser escape.Parser
	half   []byte // of a character that is not whole

	shown  []rune // of the line, since its first key; 0 for a place made for a character
	pos    int    // of the cursor in shown
	erased bool   // a backspace came last
	space  bool   // a space came last that wraps the line, or was not asked for
	ghost  int    // where text began that a line editor suggests, or -1
	echoed bool   // this message echoed something
}

// lineBegins forgets the line before.
func (e *echoReader) lineBegins() {
	e.shown, e.pos, e.erased, e.space = nil, 0, false, false
}

// read takes what is shown while something that was typed waits.
func (e *echoReader) read(g *EchoGuard, p []byte) {
	e.ghost, e.echoed = -1, false
	p = append(e.half, p...)
	e.half = nil
	for len(p) > 0 && g.listens() {
		if !utf8.FullRune(p) {
			e.half = slices.Clone(p)
			break
		}
		r, n := utf8.DecodeRune(p)
		p = p[n:]
		if !g.lines[0].accepts(e.parser.InText() && r >= ' ') {
			g.dropAll()
		}
		g.advance()
		if !g.listens() {
			break
		}
		switch e.parser.Next(r) {
		case escape.Text, escape.Control:
			e.text(g, r)
		case escape.CSI:
			e.control(g, &e.parser)
		case escape.Escape:
			if p := &e.parser; p.Middle == 0 && p.Final != '=' && p.Final != '>' {
				e.away(g)
			}
		}
	}
	if e.ghost >= 0 && g.listens() {
		if e.pos != e.ghost {
			g.dropAll()
		}
		e.cut(e.ghost)
	}
}

// text takes a character that is shown, or moves the cursor by itself.
func (e *echoReader) text(g *EchoGuard, r rune) {
	space, erased := e.space, e.erased
	e.space, e.erased = false, false
	wanted := g.lines[0].waits() && g.lines[0].want[0] == r
	switch {
	case space && r == '\r', r == '\a':
	case space && !e.echoed:
		g.dropAll()
	case space:
		e.ghost, e.shown = e.pos, append(e.shown, ' ')
		e.pos++
		e.text(g, r)
	case r == '\n' && g.newline:
		g.newline = false
		e.lineBegins()
	case r == '\n':
		g.dropAll()
	case r == '\r':
		if !g.newline {
			e.away(g)
		}
	case r == '\b':
		e.erased = true
		e.move(g, -1)
	case r < ' ' || r == 0x7f:
		e.away(g)
	case r == ' ' && erased && !wanted:
		e.cut(e.pos)
		e.pos++
	default:
		e.character(g, r, wanted)
	}
}

// character takes a character in its place. One that is there already is no echo.
func (e *echoReader) character(g *EchoGuard, r rune, wanted bool) {
	l := g.lines[0]
	within := e.pos < len(e.shown)
	switch {
	case e.pos > len(e.shown):
		g.dropAll()
		return
	case within && e.shown[e.pos] == r:
	case wanted:
		if within && e.shown[e.pos] == 0 {
			e.shown[e.pos] = r
		} else {
			e.shown = slices.Insert(e.shown, e.pos, r)
		}
		l.want, e.echoed = l.want[1:], true
		l.excuse()
	case l.waits():
		g.dropAll()
		return
	case within && l.loose:
		e.shown[e.pos] = r
	case within:
		g.dropAll()
		return
	case l.loose:
		e.shown = append(e.shown, r)
	case r == ' ' && e.ghost < 0:
		e.space = true
		return
	case e.echoed: // a suggestion, if the cursor goes back before it
		if e.ghost < 0 {
			e.ghost = e.pos
		}
		e.shown = append(e.shown, r)
	default:
		g.dropAll()
		return
	}
	e.pos++
	e.bound(g)
}

// bound gives up a line of which more is shown than may be typed.
func (e *echoReader) bound(g *EchoGuard) {
	if len(e.shown) > 2*maxTyped {
		g.dropAll()
	}
}

// control takes a CSI sequence.
func (e *echoReader) control(g *EchoGuard, p *escape.Parser) {
	e.space, e.erased = false, false
	n := p.Param(0, 1)
	switch p.Final {
	case 'm', 'h', 'l', 'n', 'c', 'q', 't', 'u', 'p':
		return
	}
	if p.Prefix != 0 || p.Middle != 0 {
		e.away(g)
		return
	}
	switch p.Final {
	case 'K', 'J':
		if p.Param(0, 0) != 0 {
			e.away(g)
			return
		}
		e.cut(e.pos)
	case 'C':
		e.move(g, n)
	case 'D':
		e.move(g, -n)
	case 'P':
		if e.pos < len(e.shown) {
			e.shown = slices.Delete(e.shown, e.pos, min(e.pos+n, len(e.shown)))
		}
	case '@':
		if e.pos <= len(e.shown) {
			e.shown = slices.Insert(e.shown, e.pos, make([]rune, min(n, maxTyped))...)
			e.bound(g)
		}
	default:
		e.away(g)
	}
}

// move moves the cursor within the line.
func (e *echoReader) move(g *EchoGuard, by int) {
	if to := e.pos + by; to < 0 || to > len(e.shown)+1 {
		e.away(g)
	} else {
		e.pos = to
	}
}

// away moves the cursor out of the line. Line editors do so to show it anew.
func (e *echoReader) away(g *EchoGuard) {
	if l := g.lines[0]; !l.loose || l.waits() {
		g.dropAll()
		return
	}
	e.lineBegins()
}

// cut forgets what is shown from a place on.
func (e *echoReader) cut(from int) { e.shown = e.shown[:min(from, len(e.shown))] }
