package transcript

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"sallyport.dev/internal/escape"
)

const (
	maxColumns = 1000
	maxRows    = 300
	maxCells   = 64 << 10 // of a screen
	maxMarks   = 4        // combining characters on one character
)

// filler stands in the cell behind a wide character.
const filler = rune(-1)

// row is one row of a screen. Its cells are those that were written to, so that an empty
// screen takes no memory.
type row struct {
	cells   []rune
	marks   map[int][]rune // combining characters, by cell
	wrapped bool           // the line goes on in the next row
	at      time.Duration  // when the last character came
	told    uint64         // hash of the line that was told of this row, if it begins one
	changed bool           // since that was told
}

// clear empties the row.
func (r *row) clear() { *r = row{} }

func (r *row) pad(n int) {
	if n > cap(r.cells) {
		r.cells = slices.Grow(r.cells, n-len(r.cells))
	}
	for len(r.cells) < n {
		r.cells = append(r.cells, ' ')
	}
}

// split takes away wide characters of which only one half would be left at a border
// before col.
func (r *row) split(col int) {
	if col > 0 && col < len(r.cells) && r.cells[col] == filler {
		r.cells[col-1], r.cells[col] = ' ', ' '
	}
}

func (r *row) blank(from, to int) {
	from, to = max(from, 0), min(to, len(r.cells))
	if from >= to {
		return
	}
	r.changed = true
	r.split(from)
	r.split(to)
	for i := from; i < to; i++ {
		r.cells[i] = ' '
		delete(r.marks, i)
	}
}

func (r *row) cut(col int) {
	if col < len(r.cells) {
		r.split(col)
		r.blank(col, len(r.cells))
		r.cells = r.cells[:col]
	}
	r.wrapped = false
}

func (r *row) appendTo(b *strings.Builder, from int) {
	b.Grow(len(r.cells) - from)
	for i := from; i < len(r.cells); i++ {
		switch c := r.cells[i]; {
		case c == filler:
			continue
		case c < utf8.RuneSelf:
			b.WriteByte(byte(c))
		default:
			b.WriteRune(c)
		}
		if len(r.marks) > 0 {
			for _, m := range r.marks[i] {
				b.WriteRune(m)
			}
		}
	}
}

// begins reports whether the row begins with a text, or is the beginning of it.
func (r *row) begins(text string) bool {
	var b strings.Builder
	r.appendTo(&b, 0)
	line := b.String()
	return strings.HasPrefix(line, text) || r.wrapped && strings.HasPrefix(text, line)
}

// grid is a screen: rows and a cursor. It is not playback.Screen, which takes seven times the
// memory of a session that is followed (docs/decisions/0014-one-reader-of-terminal-output.md).
type grid struct {
	width, height int
	rows          []row
	x, y          int
	wrapNext      bool // the cursor stands behind the last column
	top, bottom   int  // the scrolling region, both inclusive
	savedX        int
	savedY        int
	scrolled      int // rows that have left at the top, for telling places on the screen
}

// size bounds what a terminal says of itself.
func size(w, h int) (int, int) {
	if w < 1 {
		w = 80
	}
	if h < 1 {
		h = 24
	}
	w = min(w, maxColumns)
	return w, min(h, maxRows, max(1, maxCells/w))
}

func newGrid(w, h int) *grid {
	g := &grid{width: w, height: h}
	g.rows = make([]row, h)
	g.bottom = h - 1
	return g
}

func (g *grid) row() *row { return &g.rows[g.y] }

func (g *grid) moveTo(x, y int) {
	g.x, g.y = min(max(x, 0), g.width-1), min(max(y, 0), g.height-1)
	g.wrapNext = false
}

// put writes a character at the cursor, in a cell or two.
func (g *grid) put(c rune, cells int, at time.Duration) {
	r := g.room(cells, at)
	r.cells[g.x] = c
	if cells == 2 {
		r.cells[g.x+1] = filler
	}
	g.advance(cells)
}

// putPlain writes characters of a cell each; the row has room for them.
func (g *grid) putPlain(text []byte, at time.Duration) {
	r := g.room(len(text), at)
	for i, c := range text {
		r.cells[g.x+i] = rune(c)
	}
	g.advance(len(text))
}

// room makes room for some cells at the cursor, in which anything may stand.
func (g *grid) room(cells int, at time.Duration) *row {
	r := g.row()
	r.at, r.changed = at, true
	end := g.x + cells
	r.split(g.x)
	r.split(end)
	r.pad(end)
	for i := g.x; i < end && len(r.marks) > 0; i++ {
		delete(r.marks, i)
	}
	return r
}

func (g *grid) advance(cells int) {
	g.x += cells
	if g.x >= g.width {
		g.x, g.wrapNext = g.width-1, true
	}
}

// combine adds a combining character to the one before the cursor.
func (g *grid) combine(c rune) {
	r, x := g.row(), g.x-1
	if g.wrapNext {
		x = g.x
	}
	if x >= 0 && x < len(r.cells) && r.cells[x] == filler {
		x--
	}
	if x < 0 || x >= len(r.cells) {
		return
	}
	r.changed = true
	if whole := []rune(norm.NFC.String(string([]rune{r.cells[x], c}))); len(whole) == 1 && len(r.marks[x]) == 0 {
		r.cells[x] = whole[0]
		return
	}
	if len(r.marks[x]) >= maxMarks {
		return
	}
	if r.marks == nil {
		r.marks = map[int][]rune{}
	}
	r.marks[x] = append(r.marks[x], c)
}

// shift opens (n > 0) or closes cells at the cursor.
func (g *grid) shift(n int) {
	r := g.row()
	if g.x >= len(r.cells) {
		return
	}
	r.split(g.x)
	r.marks, r.changed = nil, true
	if n < 0 {
		r.split(g.x - n)
		r.cells = append(r.cells[:g.x], r.cells[min(g.x-n, len(r.cells)):]...)
		return
	}
	n = min(n, g.width-g.x)
	old := len(r.cells)
	r.pad(min(old+n, g.width))
	copy(r.cells[g.x+n:], r.cells[g.x:min(old, g.width-n)])
	for i := g.x; i < min(g.x+n, len(r.cells)); i++ {
		r.cells[i] = ' '
	}
	if last := len(r.cells) - 1; len(r.cells) == g.width && escape.Columns(max(r.cells[last], 0)) == 2 {
		r.cells[last] = ' ' // its second half went over the edge
	}
}

// scrollUp moves the rows from top to bottom up by n; gone gets each that leaves.
func (g *grid) scrollUp(top, bottom, n int, gone func(row)) {
	n = min(n, bottom-top+1)
	for i := range n {
		gone(g.rows[top+i])
	}
	copy(g.rows[top:], g.rows[top+n:bottom+1])
	for i := bottom - n + 1; i <= bottom; i++ {
		g.rows[i] = row{}
	}
}

// scrollDown moves the rows from top to bottom down by n; gone gets each that leaves.
func (g *grid) scrollDown(top, bottom, n int, gone func(row)) {
	n = min(n, bottom-top+1)
	for i := bottom - n + 1; i <= bottom; i++ {
		gone(g.rows[i])
	}
	copy(g.rows[top+n:bottom+1], g.rows[top:bottom+1-n])
	for i := top; i < top+n; i++ {
		g.rows[i] = row{}
	}
}
