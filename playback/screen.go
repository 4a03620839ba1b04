package playback

import (
	"slices"
	"strings"

	"sallyport.dev/internal/escape"
)

const (
	// maxColumns, maxRows and maxCells bound a screen, whatever size a recording names.
	maxColumns = 1000
	maxRows    = 500
	maxCells   = 80_000
	tabWidth   = 8
)

// Screen is a terminal that shows and does nothing else: it answers no question, sets no
// title and no clipboard. It is not safe for concurrent use.
type Screen struct {
	cols, rows int
	main       buffer
	alternate  buffer
	on         *buffer // the one that is shown
	parser     escape.Parser

	noWrap, insert, origin, noCursor, reverse bool
	top, bottom                               int // rows that scroll: top inclusive, bottom exclusive
	tabs                                      []bool
	charsets                                  [2]bool // G0, G1 are line drawing
	shifted                                   bool    // G1 is in use
	last                                      rune    // the last character, for REP
}

// buffer is one of the two screens of a terminal.
type buffer struct {
	lines [][]Cell
	cur   cursor
	saved cursor
}

// cursor is where and how the next character is written.
type cursor struct {
	x, y  int
	wrap  bool // the next character begins a new line
	style Style
}

// NewScreen returns an empty screen of so many columns and rows, within bounds.
func NewScreen(cols, rows int) *Screen {
	s := &Screen{}
	s.cols, s.rows = bounded(cols, rows)
	s.main.lines, s.alternate.lines = s.blankLines(s.rows), s.blankLines(s.rows)
	s.reset()
	return s
}

func bounded(cols, rows int) (int, int) {
	cols = min(max(cols, 1), maxColumns)
	return cols, min(max(rows, 1), maxRows, maxCells/cols)
}

// reset is a terminal that was just switched on.
func (s *Screen) reset() {
	*s = Screen{
		cols: s.cols, rows: s.rows, bottom: s.rows, parser: s.parser, tabs: s.tabs,
		main: buffer{lines: s.main.lines}, alternate: buffer{lines: s.alternate.lines},
	}
	for _, s.on = range []*buffer{&s.alternate, &s.main} {
		s.clearLines(0, s.rows)
	}
	s.setTabs()
}

func (s *Screen) setTabs() {
	if len(s.tabs) != s.cols {
		s.tabs = make([]bool, s.cols)
	}
	clear(s.tabs)
	for x := 0; x < s.cols; x += tabWidth {
		s.tabs[x] = true
	}
}

func (s *Screen) blankLines(n int) [][]Cell {
	cells := make([]Cell, n*s.cols)
	for i := range cells {
		cells[i].Rune = ' '
	}
	lines := make([][]Cell, n)
	for i := range lines {
		lines[i], cells = cells[:s.cols:s.cols], cells[s.cols:]
	}
	return lines
}

// Size returns the columns and rows.
func (s *Screen) Size() (cols, rows int) { return s.cols, s.rows }

// Cursor returns where the cursor is, and whether it is shown.
func (s *Screen) Cursor() (x, y int, shown bool) {
	return min(s.on.cur.x, s.cols-1), s.on.cur.y, !s.noCursor
}

// Line returns the cells of a row. They are the screen's, and change with it.
func (s *Screen) Line(y int) []Cell { return s.on.lines[y] }

// Reversed reports whether foreground and background are swapped everywhere.
func (s *Screen) Reversed() bool { return s.reverse }

// Alternate reports whether a full-screen program has the screen.
func (s *Screen) Alternate() bool { return s.on == &s.alternate }

// Text returns what a row shows, without the spaces at its end.
func (s *Screen) Text(y int) string {
	var b strings.Builder
	for _, c := range s.on.lines[y] {
		b.WriteString(c.Text())
	}
	return strings.TrimRight(b.String(), " ")
}

// Write takes output. It may be cut anywhere but within a character.
func (s *Screen) Write(output string) {
	for _, r := range output {
		switch s.parser.Next(r) {
		case escape.Text:
			s.char(r)
		case escape.Control:
			s.control(byte(r))
		case escape.Escape:
			s.escape(s.parser.Middle, s.parser.Final)
		case escape.CSI:
			s.csi(&s.parser, s.parser.Final)
		}
	}
}

// Resize changes the size. Lines are cut or made longer, and what the cursor is in stays.
func (s *Screen) Resize(cols, rows int) {
	cols, rows = bounded(cols, rows)
	if cols == s.cols && rows == s.rows {
		return
	}
	was := s.cols
	s.cols = cols
	for _, b := range []*buffer{&s.main, &s.alternate} {
		s.resizeBuffer(b, was, rows)
	}
	s.rows, s.top, s.bottom = rows, 0, rows
	if cols != was {
		s.setTabs()
	}
}

func (s *Screen) resizeBuffer(b *buffer, was, rows int) {
	if cut := b.cur.y - rows + 1; cut > 0 { // as if it had scrolled
		b.lines = b.lines[cut:]
		b.cur.y -= cut
	}
	lines := s.blankLines(rows)
	for y := range min(rows, len(b.lines)) {
		n := copy(lines[y], b.lines[y])
		if n < was && lines[y][n-1].isWide() { // its right half was cut off
			lines[y][n-1] = blank(Style{})
		}
	}
	b.lines = lines
	b.cur.x, b.cur.wrap = min(b.cur.x, s.cols-1), false
	b.saved.x, b.saved.y, b.saved.wrap = min(b.saved.x, s.cols-1), min(b.saved.y, rows-1), false
}

func (c Cell) isWide() bool { return c.Rune != 0 && runeWidth(c.Rune) == 2 }

func blank(st Style) Cell { return Cell{Rune: ' ', Style: Style{BG: st.BG}} }

// char writes a character.
func (s *Screen) char(r rune) {
	if s.drawsLines() {
		r = escape.LineDrawing(r)
	}
	switch w := runeWidth(r); {
	case w == 0:
		s.mark(r)
	case w > 0 && w <= s.cols:
		s.put(r, w)
		s.last = r
	}
}

func (s *Screen) drawsLines() bool {
	if s.shifted {
		return s.charsets[1]
	}
	return s.charsets[0]
}

func (s *Screen) put(r rune, w int) {
	c := &s.on.cur
	if c.wrap || c.x+w > s.cols {
		s.wrapLine(w)
	}
	line := s.on.lines[c.y]
	if s.insert {
		s.shiftRight(c.x, w)
	}
	s.split(c.x)
	s.split(c.x + w)
	line[c.x] = Cell{Rune: r, Style: c.style}
	if w == 2 {
		line[c.x+1] = Cell{Style: c.style}
	}
	if c.x += w; c.x >= s.cols {
		c.x, c.wrap = s.cols-1, !s.noWrap
	}
}

// wrapLine makes room for a character at the end of a line.
func (s *Screen) wrapLine(w int) {
	c := &s.on.cur
	c.wrap = false
	if s.noWrap {
		c.x = s.cols - w
		return
	}
	c.x = 0
	s.lineFeed()
}

// split blanks a wide character whose halves the position is between.
func (s *Screen) split(x int) {
	line := s.on.lines[s.on.cur.y]
	if x <= 0 || x >= s.cols || line[x].Rune != 0 {
		return
	}
	line[x-1], line[x] = blank(line[x-1].Style), blank(line[x].Style)
}

// mark puts a combining character over the one before.
func (s *Screen) mark(r rune) {
	c := &s.on.cur
	x := c.x - 1
	if c.wrap {
		x = c.x
	}
	line := s.on.lines[c.y]
	if x > 0 && line[x].Rune == 0 {
		x--
	}
	if x < 0 {
		return
	}
	for i, m := range line[x].Marks {
		if m == 0 {
			line[x].Marks[i] = r
			return
		}
	}
}

func (s *Screen) control(ch byte) {
	c := &s.on.cur
	switch ch {
	case '\n', '\v', '\f':
		s.lineFeed()
	case '\r':
		c.x, c.wrap = 0, false
	case '\b':
		c.x, c.wrap = max(c.x-1, 0), false
	case '\t':
		s.tab(1)
	case 0x0e, 0x0f:
		s.shifted = ch == 0x0e
	}
}

// tab moves to the n-th tab stop ahead, or back where n is negative.
func (s *Screen) tab(n int) {
	c := &s.on.cur
	step := 1
	if n < 0 {
		n, step = -n, -1
	}
	for range min(n, s.cols) {
		for c.x += step; c.x > 0 && c.x < s.cols-1 && !s.tabs[c.x]; c.x += step {
		}
		c.x = min(max(c.x, 0), s.cols-1)
	}
	c.wrap = false
}

func (s *Screen) lineFeed() {
	c := &s.on.cur
	c.wrap = false
	switch {
	case c.y+1 == s.bottom:
		s.scrollUp(s.top, 1)
	case c.y+1 < s.rows:
		c.y++
	}
}

func (s *Screen) reverseLineFeed() {
	c := &s.on.cur
	c.wrap = false
	switch {
	case c.y == s.top:
		s.scrollDown(s.top, 1)
	case c.y > 0:
		c.y--
	}
}

// scrollUp moves the lines from a row to the end of the scrolling region up by n.
func (s *Screen) scrollUp(from, n int) {
	region := s.on.lines[from:s.bottom]
	n = min(n, len(region))
	slices.Reverse(region[:n])
	slices.Reverse(region[n:])
	slices.Reverse(region)
	s.clearLines(s.bottom-n, s.bottom)
}

func (s *Screen) scrollDown(from, n int) {
	region := s.on.lines[from:s.bottom]
	n = min(n, len(region))
	slices.Reverse(region)
	slices.Reverse(region[:n])
	slices.Reverse(region[n:])
	s.clearLines(from, from+n)
}

func (s *Screen) clearLines(from, to int) {
	for y := from; y < to; y++ {
		s.erase(y, 0, s.cols)
	}
}

// erase blanks part of a line, in the background that is set.
func (s *Screen) erase(y, from, to int) {
	line := s.on.lines[y]
	to = min(to, s.cols)
	if from > 0 && from < s.cols && line[from].Rune == 0 {
		line[from-1] = blank(line[from-1].Style)
	}
	if to < s.cols && line[to].Rune == 0 {
		line[to] = blank(line[to].Style)
	}
	if from >= to {
		return
	}
	line[from] = blank(s.on.cur.style)
	for done := 1; done < to-from; done *= 2 {
		copy(line[from+done:to], line[from:from+done])
	}
}

// shiftRight makes room for n characters in the cursor's line.
func (s *Screen) shiftRight(x, n int) {
	line := s.on.lines[s.on.cur.y]
	n = min(n, s.cols-x)
	s.split(x)
	if cut := s.cols - n; cut > x && line[cut].Rune == 0 {
		line[cut-1] = blank(line[cut-1].Style)
	}
	copy(line[x+n:], line[x:s.cols-n])
	s.erase(s.on.cur.y, x, x+n)
}

// shiftLeft takes n characters out of the cursor's line.
func (s *Screen) shiftLeft(x, n int) {
	line := s.on.lines[s.on.cur.y]
	n = min(n, s.cols-x)
	s.split(x)
	s.split(x + n)
	copy(line[x:], line[x+n:])
	s.erase(s.on.cur.y, s.cols-n, s.cols)
}
