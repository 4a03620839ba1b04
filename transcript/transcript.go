package transcript

import (
	"fmt"
	"hash/maphash"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport.dev/internal/escape"
	"sallyport.dev/recording"
)

const (
	// dwell is how long a line stands still before it is told. The screen is looked at when
	// output comes, and no more often than looks in that time: a transcript does not depend
	// on who makes it, or when.
	dwell = 2 * time.Second
	// glance is dwell on the screen of a full-screen program: people turn pages.
	glance = 500 * time.Millisecond
	looks  = 4
	// tellRate and tellBurst bound what is told, in bytes per second and at once. Short
	// sequences can write long lines.
	tellRate  = 128 << 10
	tellBurst = 1 << 20
	// tellAgain is how much must be in the bucket before telling goes on.
	tellAgain = 128 << 10
	lineCost  = 16
	// repeatRate and repeatBurst bound characters that one sequence repeats.
	repeatRate  = 64 << 10
	repeatBurst = 64 << 10
	// recentLines is how many lines of a full-screen program are remembered, so that
	// what moves on its screen is not told again.
	recentLines = 256
)

// Config says what a transcript is made of and whom it tells.
type Config struct {
	Width, Height int           // at the start; 80×24 where 0
	Line          func(Line)    // is told each line, in order; optional
	Command       func(Command) // is told each command of a shell; optional
}

// Transcript reads the events of a session. It is not safe for concurrent use.
type Transcript struct {
	cfg    Config
	seed   maphash.Seed
	parser escape.Parser
	text   []byte // of an OSC string
	width  int
	height int
	main   *grid
	other  *grid // of a full-screen program; nil while there is none
	carry  carry
	recent []uint64
	next   int // of recent

	drawing [2]bool // character sets G0 and G1 are the one that boxes are drawn with
	shifted rune    // which of them is in use
	insert  bool
	noWrap  bool
	last    rune // the last character printed, for repeating it

	now     time.Duration
	held    string // on the cursor's line when the screen last stood still
	heldAt  time.Duration
	typing  *typing
	budget  bucket
	repeats bucket
	leftOut int // lines that were not told
	marks   tracker
}

// carry is the beginning of a wrapped line that has left the screen.
type carry struct {
	text string
	line int // its first row, counted from the first of the session
	at   time.Duration
	told uint64
}

// New returns a transcript that has read nothing.
func New(cfg Config) *Transcript {
	t := &Transcript{cfg: cfg, seed: maphash.MakeSeed()}
	t.budget.rate, t.budget.most = tellRate, tellBurst
	t.repeats.rate, t.repeats.most = repeatRate, repeatBurst
	t.width, t.height = size(cfg.Width, cfg.Height)
	return t
}

// Read reads a recording to its end, or as far as a crash left it.
func Read(r *recording.Reader, cfg Config) error {
	cfg.Width, cfg.Height = r.Header().Width, r.Header().Height
	t := New(cfg)
	var m Meter
	for {
		e, err := r.Next()
		if err == io.EOF {
			m.Flush(t.Take)
			t.End()
			return nil
		}
		if err != nil {
			return err
		}
		m.Take(e.At, e.Kind, []byte(e.Data), t.Take)
	}
}

// Take reads what a Meter passed on.
func (t *Transcript) Take(p Piece) {
	if p.LeftOut > 0 {
		t.gap(p)
	}
	switch p.Kind {
	case recording.KindOutput:
		t.Still(p.At)
		t.now = max(t.now, p.At)
		t.read(p.Data)
	case recording.KindInput:
		t.typed(p.At, p.Data)
	case recording.KindResize:
		t.resize(string(p.Data))
	case recording.KindEnd:
		t.now = max(t.now, p.At)
		t.End()
	}
}

// Still tells what has stood still on the screen for long enough at a time. It need not be
// called: the next output does it.
func (t *Transcript) Still(at time.Duration) {
	wait := dwell
	if t.other != nil {
		wait = glance
	}
	if step := wait / looks; t.main != nil && at/step > t.now/step {
		t.settle(at-wait, false)
	}
}

// End tells what is left.
func (t *Transcript) End() {
	if t.other != nil {
		t.leaveOther()
	}
	if t.main != nil {
		t.settle(t.now, true)
		t.main = nil
	}
	if t.typing != nil {
		t.typing.end()
		t.typing = nil
	}
	t.marks.end(t)
	t.tellLeftOut()
}

// gap goes on after a piece of output that was not read.
func (t *Transcript) gap(p Piece) {
	t.now = max(t.now, p.At)
	t.parser, t.text = escape.Parser{}, nil
	g := t.grid()
	t.settle(t.now, true)
	for i := range g.rows {
		g.rows[i].clear()
	}
	g.moveTo(0, 0)
	switch p.Screen {
	case MainScreen:
		t.leaveOther()
	case OtherScreen:
		t.enterOther()
	}
	t.marks.lost()
	t.tell(t.now, Note, fmt.Sprintf("[%s of output left out]", bytesText(p.LeftOut)))
}

func bytesText(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func (t *Transcript) typed(at time.Duration, data []byte) {
	if t.typing == nil {
		t.typing = &typing{tell: t.tell}
	}
	t.typing.feed(at, data)
}

// grid is the screen that is shown.
func (t *Transcript) grid() *grid {
	if t.other != nil {
		return t.other
	}
	if t.main == nil {
		t.main = newGrid(t.width, t.height)
	}
	return t.main
}

func (t *Transcript) resize(text string) {
	var w, h int
	if n, _ := fmt.Sscanf(text, "%dx%d", &w, &h); n != 2 {
		return
	}
	w, h = size(w, h)
	if w == t.width && h == t.height {
		return
	}
	t.width, t.height = w, h
	if t.main == nil && t.other == nil {
		return
	}
	t.settle(t.now, false)
	for _, g := range []*grid{t.main, t.other} {
		if g != nil {
			t.resizeGrid(g)
		}
	}
}

// resizeGrid keeps the cursor's row and those above it, as terminals do.
func (t *Transcript) resizeGrid(g *grid) {
	if over := g.y - (t.height - 1); over > 0 {
		g.scrollUp(0, g.height-1, over, func(r row) {
			t.gone(r, g == t.main)
			g.scrolled++
		})
		g.y -= over
	}
	rows := make([]row, t.height)
	copy(rows, g.rows)
	g.rows, g.width, g.height = rows, t.width, t.height
	g.top, g.bottom = 0, t.height-1
	g.moveTo(g.x, g.y)
}

// print shows a character.
func (t *Transcript) print(r rune) {
	switch {
	case r < 0x7f || unicode.IsLetter(r): // most are
	case unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp):
		return // no width, or of another direction
	case unicode.Is(unicode.Co, r) || unicode.Is(unicode.Zs, r):
		r = ' ' // icons of fonts, and blanks of all kinds
	case !unicode.IsGraphic(r):
		r = utf8.RuneError
	}
	if t.drawing[t.shifted] {
		r = escape.LineDrawing(r)
	}
	g := t.grid()
	n := escape.Columns(r)
	if n == 0 {
		g.combine(r)
		return
	}
	if n > g.width {
		return
	}
	if g.wrapNext || g.x+n > g.width {
		t.wrap(g, n)
	}
	if t.insert {
		g.shift(n)
	}
	g.put(r, n, t.now)
	t.last = r
}

// plain returns how many bytes at the beginning of data are characters of ASCII that do
// nothing but stand where the cursor is: most of what is shown.
func (t *Transcript) plain(data []byte) int {
	if !t.parser.InText() || t.drawing[t.shifted] || t.insert {
		return 0
	}
	n := 0
	for n < len(data) && data[n] >= ' ' && data[n] < 0x7f {
		n++
	}
	return n
}

// printPlain is print for each of such characters.
func (t *Transcript) printPlain(text []byte) {
	g := t.grid()
	t.last = rune(text[len(text)-1])
	for len(text) > 0 {
		if g.wrapNext {
			t.wrap(g, 1)
		}
		n := min(len(text), g.width-g.x)
		g.putPlain(text[:n], t.now)
		text = text[n:]
	}
}

// wrap goes on in the next row.
func (t *Transcript) wrap(g *grid, cells int) {
	if t.noWrap {
		g.moveTo(g.width-cells, g.y)
		return
	}
	g.row().wrapped = true
	g.x, g.wrapNext = 0, false
	t.lineFeed(g)
}

// lineFeed goes down, at the lower edge by scrolling.
func (t *Transcript) lineFeed(g *grid) {
	g.wrapNext = false
	switch {
	case g.y == g.bottom:
		t.scrollUp(g, g.top, 1)
	case g.y < g.height-1:
		g.y++
	}
}

func (t *Transcript) scrollUp(g *grid, top, n int) {
	whole := top == 0
	g.scrollUp(top, g.bottom, n, func(r row) {
		t.gone(r, whole && g == t.main)
		if whole {
			g.scrolled++
		}
	})
}

func (t *Transcript) scrollDown(g *grid, top, n int) {
	g.scrollDown(top, g.bottom, n, func(r row) { t.gone(r, false) })
}

// gone tells a row that leaves the screen. At the top of the screen a line may go on in
// the row below.
func (t *Transcript) gone(r row, joined bool) {
	if len(r.cells) == 0 && (!joined || t.carry.text == "") {
		return
	}
	var b strings.Builder
	r.appendTo(&b, 0)
	if !joined {
		t.tellOnce(r.at, b.String(), &r.told)
		return
	}
	if t.carry.text == "" {
		t.carry.told, t.carry.line = r.told, t.main.scrolled
	}
	t.carry.text += b.String()
	t.carry.at = max(t.carry.at, r.at)
	if !r.wrapped || len(t.carry.text) > MaxLine {
		t.flushCarry()
	}
}

func (t *Transcript) flushCarry() {
	if c := t.carry; c.text != "" {
		t.carry = carry{}
		t.tellOnce(c.at, c.text, &c.told)
	}
}

// settle tells the lines on the screen that were not told yet and whose last character came
// by a time. The cursor's line, which is still being written, is only held unless all are to
// be told.
func (t *Transcript) settle(by time.Duration, all bool) {
	g := t.grid()
	if g == t.main {
		t.missHeld(g)
	}
	joined := MaxLine/g.width + 1 // rows that are taken for one line, at most
	for first := 0; first < g.height; {
		last, changed, at := first, g.rows[first].changed, g.rows[first].at
		for last < g.height-1 && g.rows[last].wrapped && last-first < joined {
			last++
			changed, at = changed || g.rows[last].changed, max(at, g.rows[last].at)
		}
		changed = changed || first == 0 && t.carry.text != "" && g == t.main
		switch {
		case !changed || at > by:
		case !all && g.y >= first && g.y <= last:
			if g == t.main {
				t.hold(t.lineAt(g, first, last))
			}
		default:
			t.tellLineAt(g, first, last)
		}
		first = last + 1
	}
	if all && g == t.main {
		t.held, t.carry = "", carry{}
	}
}

func (t *Transcript) tellLineAt(g *grid, first, last int) {
	text, at := t.lineAt(g, first, last)
	told := &g.rows[first].told
	if first == 0 && g == t.main && t.carry.text != "" {
		told = &t.carry.told
	}
	for i := first; i <= last; i++ {
		g.rows[i].changed = false
	}
	t.tellOnce(at, text, told)
}

// lineAt joins the rows of a line.
func (t *Transcript) lineAt(g *grid, first, last int) (text string, at time.Duration) {
	var b strings.Builder
	if first == 0 && g == t.main && t.carry.text != "" {
		b.WriteString(t.carry.text)
		at = t.carry.at
	}
	for i := first; i <= last; i++ {
		g.rows[i].appendTo(&b, 0)
		at = max(at, g.rows[i].at)
	}
	return strings.TrimRight(b.String(), " "), at
}

// hold remembers what stands on the cursor's line: if it is not there any more when the
// line ends, it was seen all the same.
func (t *Transcript) hold(text string, at time.Duration) { t.held, t.heldAt = text, at }

// missHeld tells what was held unless it is still on the screen.
func (t *Transcript) missHeld(g *grid) {
	held := t.held
	if held == "" || g.row().begins(held) || t.carry.text != "" {
		return
	}
	t.held = ""
	for i := range g.rows {
		if g.rows[i].begins(held) {
			return
		}
	}
	t.tell(t.heldAt, Shown, held)
}

// tellOnce tells a line unless it is what was told of its place before.
func (t *Transcript) tellOnce(at time.Duration, text string, told *uint64) {
	text = strings.TrimRight(text, " ")
	if text == "" {
		return
	}
	h := max(1, maphash.String(t.seed, text)) // 0 is nothing told
	if *told == h {
		return
	}
	*told = h
	if t.other != nil && t.isRecent(h) {
		return
	}
	if t.held != "" && strings.HasPrefix(text, t.held) {
		t.held = ""
	}
	t.tell(at, Shown, text)
}

// isRecent reports whether a line was told of a full-screen program a short while ago,
// and remembers it.
func (t *Transcript) isRecent(h uint64) bool {
	for _, known := range t.recent {
		if known == h {
			return true
		}
	}
	if len(t.recent) < recentLines {
		t.recent = append(t.recent, h)
		return false
	}
	t.recent[t.next] = h
	t.next = (t.next + 1) % recentLines
	return false
}

// tell tells a line, in pieces where it is too long.
func (t *Transcript) tell(at time.Duration, kind Kind, text string) {
	for text != "" {
		piece := clip(text)
		text = text[len(piece):]
		piece = strings.TrimRight(piece, " ")
		if piece != "" {
			t.tellPiece(Line{At: at, Kind: kind, Text: piece})
		}
	}
}

func (t *Transcript) tellPiece(l Line) {
	room := t.budget.refill(t.now)
	if l.Kind != Note && (t.leftOut > 0 && room < tellAgain || !t.budget.take(t.now, len(l.Text)+lineCost)) {
		t.leftOut++
		return
	}
	t.tellLeftOut()
	if t.cfg.Line != nil {
		t.cfg.Line(l)
	}
}

// tellLeftOut says how many lines were too many.
func (t *Transcript) tellLeftOut() {
	n := t.leftOut
	if n == 0 {
		return
	}
	t.leftOut = 0
	if t.cfg.Line != nil {
		t.cfg.Line(Line{At: t.now, Kind: Note, Text: fmt.Sprintf("[%d lines left out]", n)})
	}
}

// clip returns at most MaxLine characters of a text, and not nothing.
func clip(s string) string {
	n := 0
	for i := range s {
		if n == MaxLine {
			return s[:i]
		}
		n++
	}
	return s
}

// enterOther gives the screen to a full-screen program.
func (t *Transcript) enterOther() {
	if t.other != nil {
		return
	}
	t.grid()
	t.settle(t.now, false)
	t.other = newGrid(t.width, t.height)
}

func (t *Transcript) leaveOther() {
	if t.other == nil {
		return
	}
	t.settle(t.now, true)
	t.other, t.recent, t.next = nil, nil, 0
}
