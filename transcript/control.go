package transcript

import (
	"unicode/utf8"

	"sallyport.dev/internal/escape"
)

// What control characters and sequences do to the screen: those of ECMA-48 and of
// xterm (its ctlseqs) that move the cursor, change text or switch screens. Colours,
// titles, the mouse and all the rest leave text alone.

// read reads whole characters.
func (t *Transcript) read(data []byte) {
	for len(data) > 0 {
		if n := t.plain(data); n > 0 {
			t.printPlain(data[:n])
			data = data[n:]
			continue
		}
		r, n := utf8.DecodeRune(data)
		data = data[n:]
		switch t.parser.Next(r) {
		case escape.Text:
			t.print(r)
		case escape.Control:
			t.control(r)
		case escape.Escape:
			t.escape(t.parser.Middle, t.parser.Final)
		case escape.CSI:
			t.csi(&t.parser)
		case escape.StringText:
			t.keepOSC(r)
		case escape.StringEnd:
			t.osc(string(t.text))
			t.text = nil
		case escape.StringCut:
			t.text = nil
		}
	}
}

// maxString bounds what is kept of an OSC string, in bytes.
const maxString = 6 << 10

func (t *Transcript) keepOSC(r rune) {
	if t.parser.Final == ']' && len(t.text) < maxString {
		t.text = utf8.AppendRune(t.text, r)
	}
}

func (t *Transcript) control(c rune) {
	g := t.grid()
	switch c {
	case '\n', '\v', '\f':
		// Programs without a terminal send no carriage returns, and terminals' drivers
		// add theirs: only full-screen programs go straight down.
		if t.other == nil {
			g.x = 0
		}
		t.lineFeed(g)
	case '\r':
		g.moveTo(0, g.y)
	case '\b':
		g.moveTo(g.x-1, g.y)
	case '\t':
		g.moveTo(g.x/8*8+8, g.y)
	case 0x0e, 0x0f: // SO, SI
		t.shifted = 0x0f - c
	}
}

func (t *Transcript) escape(middle, final byte) {
	g := t.grid()
	switch {
	case middle == '(' || middle == ')':
		t.drawing[middle-'('] = final == '0'
		return
	case middle != 0:
		return
	}
	switch final {
	case 'D': // IND
		t.lineFeed(g)
	case 'E': // NEL
		g.x = 0
		t.lineFeed(g)
	case 'M': // RI
		t.reverseFeed(g)
	case '7':
		g.savedX, g.savedY = g.x, g.y
	case '8':
		g.moveTo(g.savedX, g.savedY)
	case 'c': // RIS
		t.reset()
	}
}

func (t *Transcript) reverseFeed(g *grid) {
	g.wrapNext = false
	switch {
	case g.y == g.top:
		t.scrollDown(g, g.top, 1)
	case g.y > 0:
		g.y--
	}
}

// reset is RIS: all as at the start.
func (t *Transcript) reset() {
	t.leaveOther()
	t.erase(2)
	g := t.grid()
	g.moveTo(0, 0)
	g.top, g.bottom = 0, g.height-1
	t.drawing, t.shifted, t.insert, t.noWrap = [2]bool{}, 0, false, false
}

func (t *Transcript) csi(p *escape.Parser) {
	if p.Middle != 0 {
		return
	}
	if p.Final == 'h' || p.Final == 'l' {
		t.mode(p)
		return
	}
	if p.Prefix != 0 {
		return // nothing of ours
	}
	g := t.grid()
	n := p.Param(0, 1)
	if t.moves(g, n, p) {
		return
	}
	switch p.Final {
	case 'J':
		t.erase(p.Param(0, 0))
	case 'K':
		t.eraseLine(g, p.Param(0, 0))
	case '@':
		g.shift(n)
	case 'P':
		g.shift(-n)
	case 'X':
		g.row().blank(g.x, g.x+n)
	case 'L':
		t.insertRows(g, n)
	case 'M':
		t.deleteRows(g, n)
	case 'S':
		t.scrollUp(g, g.top, min(n, g.height))
	case 'T':
		t.scrollDown(g, g.top, min(n, g.height))
	case 'b':
		t.repeat(g, n)
	case 'r':
		t.region(g, p)
	}
}

// moves carries out the sequences that move the cursor.
func (t *Transcript) moves(g *grid, n int, p *escape.Parser) bool {
	switch p.Final {
	case 'A':
		g.moveTo(g.x, g.y-n)
	case 'B', 'e':
		g.moveTo(g.x, g.y+n)
	case 'C', 'a':
		g.moveTo(g.x+n, g.y)
	case 'D':
		g.moveTo(g.x-n, g.y)
	case 'E':
		g.moveTo(0, g.y+n)
	case 'F':
		g.moveTo(0, g.y-n)
	case 'G', '`':
		g.moveTo(n-1, g.y)
	case 'd':
		g.moveTo(g.x, n-1)
	case 'H', 'f':
		g.moveTo(p.Param(1, 1)-1, n-1)
	case 's':
		g.savedX, g.savedY = g.x, g.y
	case 'u':
		g.moveTo(g.savedX, g.savedY)
	case 'I':
		g.moveTo((g.x/8+n)*8, g.y)
	case 'Z':
		g.moveTo((g.x+7)/8*8-n*8, g.y)
	default:
		return false
	}
	return true
}

func (t *Transcript) repeat(g *grid, n int) {
	n = min(n, g.width)
	if t.last == 0 || !t.repeats.take(t.now, n) {
		return
	}
	for range n {
		t.print(t.last)
	}
}

func (t *Transcript) region(g *grid, p *escape.Parser) {
	top, bottom := p.Param(0, 1)-1, p.Param(1, g.height)-1
	bottom = min(bottom, g.height-1)
	if top < bottom {
		g.top, g.bottom = top, bottom
		g.moveTo(0, 0)
	}
}

func (t *Transcript) insertRows(g *grid, n int) {
	if g.y >= g.top && g.y <= g.bottom {
		t.scrollDown(g, g.y, n)
		g.moveTo(0, g.y)
	}
}

func (t *Transcript) deleteRows(g *grid, n int) {
	if g.y >= g.top && g.y <= g.bottom {
		g.scrollUp(g.y, g.bottom, n, func(r row) { t.gone(r, false) })
		g.moveTo(0, g.y)
	}
}

// erase clears the screen below the cursor, above it, or whole. A screen that is cleared
// as a whole was seen.
func (t *Transcript) erase(how int) {
	g := t.grid()
	from, to := 0, g.height
	switch how {
	case 0:
		if g.x == 0 && g.y == 0 {
			t.erase(2)
			return
		}
		g.row().cut(g.x)
		from = g.y + 1
	case 1:
		g.row().blank(0, g.x+1)
		to = g.y
	case 2:
		t.settle(t.now, true)
	default:
		return
	}
	for i := from; i < to; i++ {
		told := g.rows[i].told
		g.rows[i].clear()
		if g == t.other {
			g.rows[i].told = told // full-screen programs draw the same again
		}
	}
}

func (t *Transcript) eraseLine(g *grid, how int) {
	switch how {
	case 0:
		g.row().cut(g.x)
	case 1:
		g.row().blank(0, g.x+1)
	case 2:
		g.row().cut(0)
	}
	g.wrapNext = false
}

// mode sets and resets modes; those with ? are DEC's and xterm's.
func (t *Transcript) mode(p *escape.Parser) {
	on := p.Final == 'h'
	for i := range p.Len() {
		switch n := p.Param(i, 0); {
		case p.Prefix == '?' && (n == 1049 || n == 1047 || n == 47):
			if on {
				t.enterOther()
			} else {
				t.leaveOther()
			}
		case p.Prefix == '?' && n == 7:
			t.noWrap = !on
		case p.Prefix == 0 && n == 4:
			t.insert = on
		}
	}
}
