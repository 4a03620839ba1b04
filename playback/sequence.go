package playback

import "sallyport.dev/internal/escape"

// What escape sequences do to a screen (ECMA-48, DEC VT510, xterm's ctlseqs).

func (s *Screen) escape(middle, final byte) {
	switch middle {
	case 0:
		s.plainEscape(final)
	case '(', ')':
		s.charsets[middle-'('] = final == '0'
	case '#':
		if final == '8' { // alignment test
			s.fill('E')
		}
	}
}

func (s *Screen) plainEscape(final byte) {
	switch final {
	case '7':
		s.on.saved = s.on.cur
	case '8':
		s.restore()
	case 'D':
		s.lineFeed()
	case 'E':
		s.on.cur.x = 0
		s.lineFeed()
	case 'M':
		s.reverseLineFeed()
	case 'H':
		s.tabs[s.on.cur.x] = true
	case 'c':
		s.reset()
	}
}

func (s *Screen) restore() {
	s.on.cur = s.on.saved
	s.on.cur.x, s.on.cur.y = min(s.on.cur.x, s.cols-1), min(s.on.cur.y, s.rows-1)
}

func (s *Screen) fill(r rune) {
	for _, line := range s.on.lines {
		for x := range line {
			line[x] = Cell{Rune: r}
		}
	}
	s.moveTo(0, 0)
}

func (s *Screen) csi(p *escape.Parser, final byte) {
	switch {
	case p.Prefix == '?' && (final == 'h' || final == 'l'):
		s.privateModes(p, final == 'h')
	case p.Prefix == '?' && (final == 'J' || final == 'K'):
		s.eraseBy(p, final)
	case p.Prefix != 0:
	case p.Middle == '!' && final == 'p':
		s.softReset()
	case p.Middle != 0:
	case final >= '@' && final <= 'M' || final == 'P' || final == 'X':
		s.edit(p, final)
	default:
		s.more(p, final)
	}
}

// edit carries out the sequences that move the cursor, and those that change lines.
func (s *Screen) edit(p *escape.Parser, final byte) {
	n := p.Param(0, 1)
	c := &s.on.cur
	switch final {
	case 'A':
		s.moveUp(n)
	case 'B':
		s.moveDown(n)
	case 'C':
		s.moveTo(c.x+n, c.y)
	case 'D':
		s.moveTo(c.x-n, c.y)
	case 'E':
		s.moveDown(n)
		c.x = 0
	case 'F':
		s.moveUp(n)
		c.x = 0
	case 'G':
		s.moveTo(n-1, c.y)
	case 'H':
		s.moveAbsolute(p.Param(1, 1)-1, n-1)
	case 'I':
		s.tab(n)
	case 'J', 'K':
		s.eraseBy(p, final)
	default:
		s.editLine(n, final)
	}
}

// editLine carries out the sequences that insert and delete.
func (s *Screen) editLine(n int, final byte) {
	c := &s.on.cur
	inRegion := c.y >= s.top && c.y < s.bottom
	switch final {
	case '@':
		s.shiftRight(c.x, n)
	case 'P':
		s.shiftLeft(c.x, n)
	case 'X':
		s.erase(c.y, c.x, c.x+n)
	case 'L':
		if inRegion {
			s.scrollDown(c.y, n)
			c.x = 0
		}
	case 'M':
		if inRegion {
			s.scrollUp(c.y, n)
			c.x = 0
		}
	}
	c.wrap = false
}

func (s *Screen) more(p *escape.Parser, final byte) {
	n := p.Param(0, 1)
	c := &s.on.cur
	switch final {
	case 'S':
		s.scrollUp(s.top, n)
	case 'T':
		s.scrollDown(s.top, n)
	case 'Z':
		s.tab(-n)
	case '`':
		s.moveTo(n-1, c.y)
	case 'a':
		s.moveTo(c.x+n, c.y)
	case 'b':
		s.repeat(n)
	case 'd':
		s.moveAbsolute(c.x, n-1)
	case 'e':
		s.moveDown(n)
	case 'f':
		s.moveAbsolute(p.Param(1, 1)-1, n-1)
	case 'g':
		s.clearTabs(p)
	case 'h', 'l':
		if p.Param(0, 0) == 4 {
			s.insert = final == 'h'
		}
	case 'm':
		s.on.cur.style = restyled(s.on.cur.style, p)
	case 'r':
		s.setRegion(n-1, p.Param(1, s.rows))
	case 's':
		s.on.saved = s.on.cur
	case 'u':
		s.restore()
	}
}

// repeat writes the last character again, a line of it at most: a few bytes must not make
// much work.
func (s *Screen) repeat(n int) {
	if w := runeWidth(s.last); s.last != 0 && w > 0 && w <= s.cols {
		for range min(n, s.cols) {
			s.put(s.last, w)
		}
	}
}

func (s *Screen) clearTabs(p *escape.Parser) {
	switch p.Param(0, 0) {
	case 0:
		s.tabs[s.on.cur.x] = false
	case 3:
		clear(s.tabs)
	}
}

func (s *Screen) setRegion(top, bottom int) {
	bottom = min(bottom, s.rows)
	if top+1 >= bottom {
		return
	}
	s.top, s.bottom = top, bottom
	s.moveAbsolute(0, 0)
}

func (s *Screen) moveTo(x, y int) {
	c := &s.on.cur
	c.x, c.y, c.wrap = min(max(x, 0), s.cols-1), min(max(y, 0), s.rows-1), false
}

// moveAbsolute counts rows from where the scrolling region begins in origin mode.
func (s *Screen) moveAbsolute(x, y int) {
	if s.origin {
		y = min(max(y, 0)+s.top, s.bottom-1)
	}
	s.moveTo(x, y)
}

// moveUp and moveDown stop at the scrolling region's ends.
func (s *Screen) moveUp(n int) {
	y, least := s.on.cur.y, 0
	if y >= s.top {
		least = s.top
	}
	s.moveTo(s.on.cur.x, max(y-n, least))
}

func (s *Screen) moveDown(n int) {
	y, most := s.on.cur.y, s.rows-1
	if y < s.bottom {
		most = s.bottom - 1
	}
	s.moveTo(s.on.cur.x, min(y+n, most))
}

func (s *Screen) eraseBy(p *escape.Parser, final byte) {
	c := &s.on.cur
	c.wrap = false
	how := p.Param(0, 0)
	if final == 'J' {
		switch how {
		case 0:
			s.clearLines(c.y+1, s.rows)
		case 1:
			s.clearLines(0, c.y)
		case 2, 3:
			s.clearLines(0, s.rows)
		}
	}
	switch how {
	case 0:
		s.erase(c.y, c.x, s.cols)
	case 1:
		s.erase(c.y, 0, c.x+1)
	case 2:
		if final == 'K' {
			s.erase(c.y, 0, s.cols)
		}
	}
}

func (s *Screen) privateModes(p *escape.Parser, on bool) {
	for i := range p.Len() {
		switch p.Param(i, 0) {
		case 5:
			s.reverse = on
		case 6:
			s.origin = on
			s.moveAbsolute(0, 0)
		case 7:
			s.noWrap = !on
		case 25:
			s.noCursor = !on
		case 47, 1047:
			s.switchTo(on, false)
		case 1048:
			s.saveOrRestore(on)
		case 1049:
			s.switchTo(on, true)
		}
	}
}

func (s *Screen) saveOrRestore(save bool) {
	if save {
		s.on.saved = s.on.cur
	} else {
		s.restore()
	}
}

// switchTo shows the alternate screen or the main one. Mode 1049 saves the cursor and
// clears the alternate screen, too.
func (s *Screen) switchTo(alternate, whole bool) {
	if alternate == s.Alternate() {
		return
	}
	cur := s.on.cur
	if !alternate {
		s.on = &s.main
		if whole {
			s.restore()
			return
		}
		s.on.cur = cur
		return
	}
	if whole {
		s.on.saved = cur
	}
	s.on = &s.alternate
	s.on.cur = cur
	s.clearLines(0, s.rows)
}

func (s *Screen) softReset() {
	s.noWrap, s.insert, s.origin, s.noCursor = false, false, false, false
	s.top, s.bottom = 0, s.rows
	s.charsets, s.shifted = [2]bool{}, false
	s.on.cur.style, s.on.saved = Style{}, cursor{}
}

// restyled applies a sequence "select graphic rendition".
func restyled(st Style, p *escape.Parser) Style {
	if p.Len() == 0 {
		return Style{}
	}
	for i := 0; i < p.Len(); i++ {
		n := p.Param(i, 0)
		switch {
		case p.Joined(i):
		case n == 38 || n == 48 || n == 58:
			color, used := extendedColor(p, i)
			if used == 0 {
				return st
			}
			i += used
			setColor(&st, n, color)
		case n == 4 && p.Joined(i+1) && p.Given(i+1) && p.Param(i+1, 0) == 0: // 4:0, no underline
			st.Attr &^= Underline
		default:
			rendition(&st, n)
		}
	}
	return st
}

func setColor(st *Style, n int, c Color) {
	switch n {
	case 38:
		st.FG = c
	case 48:
		st.BG = c
	}
}

// extendedColor reads 38;5;N and 38;2;R;G;B, also with colons, and says how many
// parameters it took; 0 where it made no sense.
func extendedColor(p *escape.Parser, i int) (c Color, used int) {
	arg := func(k int) int { return min(p.Param(i+k, 0), 255) }
	if i+1 >= p.Len() {
		return 0, 0
	}
	joined := 0 // parameters behind colons
	for k := i + 1; p.Joined(k); k++ {
		joined++
	}
	switch arg(1) {
	case 5:
		return Indexed(uint8(arg(2))), max(2, joined)
	case 2:
		first := 2
		if joined >= 5 { // 38:2:SPACE:R:G:B
			first = 3
		}
		return RGB(uint8(arg(first)), uint8(arg(first+1)), uint8(arg(first+2))), max(4, joined)
	}
	return 0, joined
}

var attrsOn = map[int]Attr{1: Bold, 2: Faint, 3: Italic, 4: Underline, 7: Reverse, 8: Hidden, 9: Struck, 21: Underline}

var attrsOff = map[int]Attr{22: Bold | Faint, 23: Italic, 24: Underline, 27: Reverse, 28: Hidden, 29: Struck}

func rendition(st *Style, n int) {
	switch {
	case n == 0:
		*st = Style{}
	case attrsOn[n] != 0:
		st.Attr |= attrsOn[n]
	case attrsOff[n] != 0:
		st.Attr &^= attrsOff[n]
	case n >= 30 && n <= 37:
		st.FG = Indexed(uint8(n - 30))
	case n == 39:
		st.FG = 0
	case n >= 40 && n <= 47:
		st.BG = Indexed(uint8(n - 40))
	case n == 49:
		st.BG = 0
	case n >= 90 && n <= 97:
		st.FG = Indexed(uint8(n - 90 + 8))
	case n >= 100 && n <= 107:
		st.BG = Indexed(uint8(n - 100 + 8))
	}
}
