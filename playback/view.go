package playback

import (
	"slices"
	"strconv"
	"strings"
)

// View draws screens on a terminal, which may be smaller or larger, with a status line
// below. What it writes is made of characters, colours and cursor movements of its own.
// It takes the alternate screen, so that leaving it gives the terminal back as it was.
type View struct {
	cols, rows int      // of the terminal
	drawn      [][]Cell // what it shows; nil where that is not known
	status     string
	cursor     string
	top, left  int // of the screen's part that is shown
	out        strings.Builder
	style      Style
	styled     bool // style is what the terminal has
}

// What is written before the first drawing and after the last. Lines do not wrap: a
// character in the last column must not scroll.
const (
	enterView = "\x1b[?1049h\x1b[?7l\x1b[0m\x1b[2J"
	leaveView = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// NewView is a view on a terminal of so many columns and rows.
func NewView(cols, rows int) *View {
	v := &View{}
	v.Resize(cols, rows)
	return v
}

// Enter returns what makes a terminal ready to be drawn on, and Leave what gives it back.
func (v *View) Enter() string { return enterView }

// Leave undoes Enter.
func (v *View) Leave() string { return leaveView }

// Resize notes that the terminal has another size now: everything is drawn anew.
func (v *View) Resize(cols, rows int) {
	v.cols, v.rows = min(max(cols, 1), maxColumns), min(max(rows, 1), maxRows)
	v.drawn = nil
}

// Fit is Resize for a terminal that may have changed its size.
func (v *View) Fit(cols, rows int) {
	if cols != v.cols || rows != v.rows {
		v.Resize(cols, rows)
	}
}

// Area is the columns and rows that there are for a screen.
func (v *View) Area() (cols, rows int) { return v.cols, max(v.rows-1, 1) }

// Draw returns what makes the terminal show the screen and the status. Of a screen that
// is larger, it is the part around the cursor.
func (v *View) Draw(s *Screen, status string) string {
	v.out.Reset()
	v.styled = false
	v.out.WriteString(hideCursor)
	if v.drawn == nil {
		v.out.WriteString("\x1b[0m\x1b[2J")
		v.drawn, v.status, v.cursor = v.empty(), "", ""
	}
	v.follow(s)
	for y := range v.drawn {
		v.drawRow(y, v.row(s, y))
	}
	v.drawStatus(status)
	drawn := v.out.Len() > len(hideCursor)
	if cursor := v.cursorOf(s); drawn || cursor != v.cursor {
		v.cursor = cursor
		return v.out.String() + cursor
	}
	return "" // all is as it was
}

const hideCursor = "\x1b[?25l"

func (v *View) empty() [][]Cell {
	cols, rows := v.Area()
	all := make([][]Cell, rows)
	for y := range all {
		all[y] = slices.Repeat([]Cell{{Rune: ' '}}, cols)
	}
	return all
}

// follow moves the part that is shown as little as keeps the cursor in it.
func (v *View) follow(s *Screen) {
	cols, rows := v.Area()
	width, height := s.Size()
	x, y, _ := s.Cursor()
	v.top = within(v.top, y-rows+1, y, height-rows)
	v.left = within(v.left, x-cols+1, x, width-cols)
}

func within(at, least, most, last int) int {
	return max(min(min(max(at, least), most), max(last, 0)), 0)
}

// Cropped reports whether the last screen that was drawn had more than was shown.
func (v *View) Cropped(s *Screen) bool {
	cols, rows := v.Area()
	width, height := s.Size()
	return width > cols || height > rows
}

// row is what a row of the terminal is to show.
func (v *View) row(s *Screen, y int) []Cell {
	cols, _ := v.Area()
	row := make([]Cell, cols)
	for x := range row {
		row[x] = Cell{Rune: ' '}
	}
	if _, height := s.Size(); y+v.top >= height {
		return row
	}
	line := s.Line(y + v.top)
	n := copy(row, line[min(v.left, len(line)):])
	if n > 0 && row[0].Rune == 0 { // its left half is not shown
		row[0].Rune = ' '
	}
	if n > 0 && row[n-1].isWide() && (n == len(row) || row[n].Rune != 0) {
		row[n-1].Rune = ' '
	}
	if s.Reversed() {
		for x := range row[:n] {
			row[x].Style.Attr ^= Reverse
		}
	}
	return row
}

func (v *View) drawRow(y int, row []Cell) {
	have := v.drawn[y]
	first, last := 0, len(row)-1
	for first <= last && have[first] == row[first] {
		first++
	}
	for last > first && have[last] == row[last] {
		last--
	}
	if first > last {
		return
	}
	for first > 0 && row[first].Rune == 0 {
		first--
	}
	v.moveTo(first, y)
	for x := first; x <= last; x++ {
		v.cell(x, row[x])
	}
	v.drawn[y] = row
}

func (v *View) cell(x int, c Cell) {
	if c.Rune == 0 {
		return
	}
	v.setStyle(c.Style)
	if c.Style.Attr&Hidden != 0 {
		c.Rune, c.Marks = ' ', [2]rune{}
	}
	v.out.WriteString(c.Text())
	if c.Rune >= 0x80 { // terminals do not agree how wide it is
		v.out.WriteString("\x1b[" + strconv.Itoa(x+1+max(runeWidth(c.Rune), 1)) + "G")
	}
}

func (v *View) moveTo(x, y int) { v.out.WriteString(position(x, y)) }

func position(x, y int) string { return "\x1b[" + strconv.Itoa(y+1) + ";" + strconv.Itoa(x+1) + "H" }

func (v *View) setStyle(st Style) {
	if v.styled && v.style == st {
		return
	}
	v.style, v.styled = st, true
	v.out.WriteString(sgr(st))
}

// drawStatus writes the status into the last row, where there is one beside the screen.
func (v *View) drawStatus(status string) {
	if v.rows < 2 || status == v.status {
		return
	}
	v.status = status
	v.moveTo(0, v.rows-1)
	v.setStyle(Style{Attr: Reverse})
	v.out.WriteString(fit(status, v.cols))
}

// fit makes a text so many columns wide.
func fit(text string, cols int) string {
	var b strings.Builder
	used := 0
	for _, r := range text {
		w := runeWidth(r)
		if w < 1 {
			continue
		}
		if used+w > cols {
			break
		}
		b.WriteRune(r)
		used += w
	}
	return b.String() + strings.Repeat(" ", cols-used)
}

// cursorOf is what puts the cursor where the screen's is.
func (v *View) cursorOf(s *Screen) string {
	x, y, shown := s.Cursor()
	if shown {
		return position(x-v.left, y-v.top) + "\x1b[?25h"
	}
	return position(x-v.left, y-v.top)
}

var attrCodes = [...]struct {
	attr Attr
	code string
}{{Bold, ";1"}, {Faint, ";2"}, {Italic, ";3"}, {Underline, ";4"}, {Reverse, ";7"}, {Struck, ";9"}}

// sgr selects a style, whatever was selected before.
func sgr(st Style) string {
	b := []byte("\x1b[0")
	for _, a := range attrCodes {
		if st.Attr&a.attr != 0 {
			b = append(b, a.code...)
		}
	}
	b = appendColor(b, st.FG, 38)
	b = appendColor(b, st.BG, 48)
	return string(append(b, 'm'))
}

func appendColor(b []byte, c Color, code int) []byte {
	if n, ok := c.Index(); ok {
		return appendIndexed(b, int(n), code)
	}
	r, g, bl, ok := c.RGB()
	if !ok {
		return b
	}
	for _, n := range []int{code, 2, int(r), int(g), int(bl)} {
		b = strconv.AppendInt(append(b, ';'), int64(n), 10)
	}
	return b
}

// appendIndexed uses the older codes for the first 16 colours, which terminals colour as
// their people like them.
func appendIndexed(b []byte, n, code int) []byte {
	b = append(b, ';')
	switch {
	case n < 8:
		return strconv.AppendInt(b, int64(code-8+n), 10)
	case n < 16:
		return strconv.AppendInt(b, int64(code+52+n-8), 10)
	}
	b = append(strconv.AppendInt(b, int64(code), 10), ";5;"...)
	return strconv.AppendInt(b, int64(n), 10)
}

// Print returns what writes the screen's rows, with their colours, from the cursor of any
// terminal on: up to the last that shows anything, and no wider than cols.
func (s *Screen) Print(cols int) string {
	var b strings.Builder
	last := s.rows - 1
	for last >= 0 && s.Text(last) == "" {
		last--
	}
	for y := 0; y <= last; y++ {
		s.printRow(&b, s.on.lines[y][:min(cols, s.cols)])
	}
	return b.String()
}

func (s *Screen) printRow(b *strings.Builder, row []Cell) {
	n := len(row)
	for n > 0 && row[n-1] == (Cell{Rune: ' '}) {
		n--
	}
	if n > 0 && row[n-1].isWide() {
		n--
	}
	var style Style
	for _, c := range row[:n] {
		if c.Style != style {
			style = c.Style
			b.WriteString(sgr(style))
		}
		if c.Style.Attr&Hidden != 0 {
			c = Cell{Rune: ' '}
		}
		b.WriteString(c.Text())
	}
	if style != (Style{}) {
		b.WriteString("\x1b[0m")
	}
	b.WriteString("\r\n")
}
