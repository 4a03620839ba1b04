package recording

import (
	"bytes"
	"regexp"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"sallyport.dev/internal/escape"
)

const (
	// maxTyped bounds what is held of one line, in bytes, and maxLines how many lines wait
	// for their echo. What exceeds them is not recorded.
	maxTyped = 4 << 10
	maxLines = 64
	// maxPrompt bounds what is looked at of the line before the cursor, in bytes.
	maxPrompt = 512
)

// HiddenInput labels the marker that stands for input which was not evidently echoed, as
// of a password. It says neither what nor how much that was.
const HiddenInput = "hidden input"

// asksForSecret matches what stands before the cursor when a program asks for what must
// not be seen. It is a second wall: some programs show a star for each key.
var asksForSecret = regexp.MustCompile(`(?i)(?:pass(?:word|wd|phrase|code)|passwor[td]|kennwort|mot de passe|contraseñ|has[lł]o|heslo|\bpin\b|\botp\b|secret|token|verification code)[^\n]{0,100}[:?]\s*$`)

// EchoGuard is a Stage that lets no input through but what the session's output has
// evidently echoed. Input is held in memory, line by line, until its echo has come; a line
// of which any character was not echoed is dropped, and a marker says that there was one.
//
// A line is echoed when from its first character to Enter the output shows exactly its
// characters, each after it was typed, in their order and place: moving back and forth,
// erasing and showing again what is there already is allowed, as line editors do it; other
// text only as the answer to a key of a line editor, such as Tab, while no character waits
// for its echo; the beginning of a new line never. So what a job in the background writes
// while a password is typed makes the line count as hidden, and so do the inputs of
// full-screen programs. What is recorded was on the screen, and is in the recorded output.
type EchoGuard struct {
	next Stage

	mu      sync.Mutex
	keys    keyReader
	lines   []*typedLine // the last one is being typed
	done    []*typedLine // still to be told of
	echo    echoReader
	prompt  []byte // the end of what was shown, up to a line
	newline bool   // the echo of an Enter may still come
	hidden  bool   // the marker was the last that was told of input
}

// typedLine is what was typed up to a key that ends lines.
type typedLine struct {
	raw     []byte
	want    []rune // what is still to be echoed; editKey for keys that may change the line
	ended   bool
	dropped bool
	loose   bool // a key of a line editor was typed
	asked   bool // it was looked for what the line answers
}

// editKey stands for a key whose answer is not its echo.
const editKey rune = -1

// NewEchoGuard returns a stage in front of next for sessions on a terminal.
func NewEchoGuard(next Stage) *EchoGuard { return &EchoGuard{next: next} }

// Output implements Stage.
func (g *EchoGuard) Output(at time.Time, p []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listens() {
		g.echo.read(g, p)
	} else if g.newline && bytes.IndexByte(p, '\n') >= 0 {
		g.newline = false
	}
	g.keepPrompt(p)
	if err := g.settle(at); err != nil {
		return err
	}
	return g.next.Output(at, p)
}

// listens reports whether anything waits for its echo, or may be taken back.
func (g *EchoGuard) listens() bool { return len(g.lines) > 0 && !g.lines[0].dropped }

// Input implements Stage.
func (g *EchoGuard) Input(at time.Time, p []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(p) > 0 {
		k, rest := g.keys.next(p)
		p = rest
		if k.raw != nil {
			g.typed(k)
		}
	}
	return g.settle(at)
}

// typed takes one key.
func (g *EchoGuard) typed(k key) {
	if len(g.lines) == 0 {
		g.beginEcho()
	}
	if len(g.lines) == 0 || g.lines[len(g.lines)-1].ended {
		if len(g.lines) == maxLines {
			g.dropAll()
			g.advance()
		}
		g.lines = append(g.lines, &typedLine{})
	}
	l := g.lines[len(g.lines)-1]
	if k.kind == keyText && !l.asked {
		l.asked = true
		if asksForSecret.Match(plainText(g.prompt)) {
			l.drop()
		}
	}
	l.add(k)
	l.ended = k.kind == keyEnter
}

func (l *typedLine) add(k key) {
	if l.dropped {
		return
	}
	if k.kind == keyStrange || len(l.raw)+len(k.raw) > maxTyped {
		l.drop()
		return
	}
	l.raw = append(l.raw, k.raw...)
	switch k.kind {
	case keyText:
		l.want = append(l.want, k.r)
	case keyEdit:
		l.want = append(l.want, editKey)
	}
	l.excuse()
}

// excuse lets the keys of line editors be answered whose turn has come.
func (l *typedLine) excuse() {
	for len(l.want) > 0 && l.want[0] == editKey {
		l.want, l.loose = l.want[1:], true
	}
}

func (l *typedLine) drop() {
	clear(l.raw[:cap(l.raw)])
	clear(l.want[:cap(l.want)])
	l.raw, l.want, l.dropped = nil, nil, true
}

// waits reports whether a character of the line still waits for its echo.
func (l *typedLine) waits() bool { return len(l.want) > 0 }

// advance lets the lines go on whose fate is known.
func (g *EchoGuard) advance() {
	for len(g.lines) > 0 && g.lines[0].ended && !g.lines[0].waits() {
		g.done = append(g.done, g.lines[0])
		g.lines = g.lines[1:]
		g.newline = true
		g.echo.lineBegins()
	}
}

// accepts reports whether text may follow: not behind the last character of a line that
// was ended before its echo came.
func (l *typedLine) accepts(text bool) bool { return !text || !l.ended || l.waits() }

// settle records the lines that are echoed, and tells of those that are not.
func (g *EchoGuard) settle(at time.Time) error {
	g.advance()
	for _, l := range g.done {
		if err := g.tell(at, l); err != nil {
			return err
		}
	}
	g.done = nil
	if len(g.lines) == 0 {
		g.lines = nil
	}
	return nil
}

// tell records a line, or that there was one.
func (g *EchoGuard) tell(at time.Time, l *typedLine) error {
	if !l.dropped {
		g.hidden = false
		return g.next.Input(at, l.raw)
	}
	if g.hidden {
		return nil
	}
	g.hidden = true
	return g.next.Marker(at, HiddenInput)
}

// dropAll gives up the echo of everything that was typed.
func (g *EchoGuard) dropAll() {
	for _, l := range g.lines {
		l.drop()
	}
}

// keepPrompt keeps the end of what was shown.
func (g *EchoGuard) keepPrompt(p []byte) {
	if i := bytes.LastIndexByte(p, '\n'); i >= 0 {
		g.prompt, p = g.prompt[:0], p[i+1:]
	}
	if over := len(g.prompt) + len(p) - maxPrompt; over > 0 {
		if over >= len(g.prompt) {
			g.prompt, p = g.prompt[:0], p[max(0, len(p)-maxPrompt):]
		} else {
			g.prompt = slices.Delete(g.prompt, 0, over)
		}
	}
	g.prompt = append(g.prompt, p...)
}

// beginEcho prepares for an echo: it may come in the middle of a sequence.
func (g *EchoGuard) beginEcho() {
	g.echo = echoReader{}
	for _, r := range string(g.prompt) {
		g.echo.parser.Next(r)
	}
}

// plainText returns what a terminal shows of p.
func plainText(p []byte) []byte {
	var parser escape.Parser
	var text []byte
	for _, r := range string(p) {
		if parser.Next(r) == escape.Text {
			text = utf8.AppendRune(text, r)
		}
	}
	return text
}

// Resize implements Stage.
func (g *EchoGuard) Resize(at time.Time, cols, rows int) error { return g.next.Resize(at, cols, rows) }

// Marker implements Stage.
func (g *EchoGuard) Marker(at time.Time, label string) error { return g.next.Marker(at, label) }

// Err implements Stage.
func (g *EchoGuard) Err() error { return g.next.Err() }

// Holds implements Stage. Input waits for its echo, not for a Flush.
func (g *EchoGuard) Holds() bool { return g.next.Holds() }

// Flush implements Stage.
func (g *EchoGuard) Flush() error { return g.next.Flush() }

// Close implements Stage. Of what was typed last, that is recorded which was echoed.
func (g *EchoGuard) Close(end End) (Summary, error) {
	g.mu.Lock()
	for _, l := range g.lines {
		if l.waits() {
			l.drop()
		}
		g.tell(end.Ended, l) // its error is that of closing
	}
	g.lines = nil
	g.mu.Unlock()
	return g.next.Close(end)
}

// NoInput is a Stage that lets no input through: that of programs without a terminal,
// where nothing is ever echoed. A marker says that there was some.
type NoInput struct {
	Stage
	told sync.Once
}

// Input implements Stage.
func (n *NoInput) Input(at time.Time, p []byte) (err error) {
	if len(p) > 0 {
		n.told.Do(func() { err = n.Marker(at, HiddenInput) })
	}
	return err
}
