package transcript

import (
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"sallyport.dev/internal/escape"
	"sallyport.dev/recording"
)

const maxCommands = 10000 // of a session

// Command is a command that was run in a session.
type Command struct {
	At   time.Duration // when it began
	Text string        // as it stood on the screen, or as the shell told it
	// Took is how long it ran, and Exit its status, where Ended says that it ended.
	Took  time.Duration
	Exit  *int
	Ended bool
	// Exact is set where the gateway knows the command, as it does of SSH's exec
	// requests. All else is what the node's output says of itself: shells mark their
	// prompts, and whoever may write to the terminal may write such marks.
	Exact bool
}

// Commands returns the commands of a recording in order, at most 10,000 of them. They are
// those of shells that mark prompts and commands (OSC 133, as FinalTerm began it, and OSC
// 633 of Visual Studio Code), and the command line of a session that ran one.
func Commands(r io.Reader) ([]Command, error) {
	rec, err := recording.NewReader(r)
	if err != nil {
		return nil, err
	}
	var all []Command
	if text := rec.Header().Command; text != "" {
		all = append(all, Command{Text: safeText(text), Exact: true})
	}
	var last time.Duration
	err = Read(rec, Config{Command: func(c Command) {
		if len(all) < maxCommands {
			all = append(all, c)
		}
		last = c.At
	}})
	if end := rec.End(); end != nil && len(all) > 0 && all[0].Exact {
		all[0].Exit, all[0].Ended = end.ExitStatus, true
		all[0].Took = max(end.Ended.Sub(rec.Header().Started), last)
	}
	return all, err
}

// safeText drops what terminals would act on.
func safeText(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsGraphic(r):
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(clip(s))
}

// tracker follows a shell's marks.
type tracker struct {
	begun   bool // the prompt has ended: what follows is typed
	line    int  // where, counted from the first line of the session
	x       int
	told    string // what the shell itself said that the command is
	running bool
	now     Command
}

// osc reads the marks that shells put around prompts and commands; all other OSC strings
// are for the terminal alone.
func (t *Transcript) osc(text string) {
	kind, rest, _ := strings.Cut(text, ";")
	if kind != "133" && kind != "633" || t.cfg.Command == nil {
		return
	}
	mark, params, _ := strings.Cut(rest, ";")
	switch mark {
	case "A", "B":
		g := t.grid()
		t.marks.end(t)
		t.marks.begun, t.marks.line, t.marks.x = true, g.scrolled+g.y, g.x
	case "C":
		t.marks.start(t, params)
	case "D":
		t.marks.finish(t, params)
	case "E":
		if kind == "633" {
			line, _, _ := strings.Cut(params, ";")
			t.marks.told = unescape633(line)
		}
	}
}

// start is mark C: what was typed is being run.
func (m *tracker) start(t *Transcript, params string) {
	text := m.told
	if text == "" {
		text = told133(params)
	}
	if text == "" && m.begun {
		text = t.since(m.line, m.x)
	}
	if text == "" && m.running {
		return // a mark that nothing came before
	}
	m.end(t)
	*m = tracker{running: true, now: Command{At: t.now, Text: safeText(text)}}
}

// finish is mark D: a command has ended.
func (m *tracker) finish(t *Transcript, params string) {
	if !m.running {
		return
	}
	m.now.Ended, m.now.Took = true, t.now-m.now.At
	status, _, _ := strings.Cut(params, ";")
	if n, err := strconv.ParseInt(status, 10, 32); err == nil {
		exit := int(n)
		m.now.Exit = &exit
	}
	m.end(t)
}

// end tells of the command that is running, if one is.
func (m *tracker) end(t *Transcript) {
	if m.running && m.now.Text != "" && t.cfg.Command != nil {
		t.cfg.Command(m.now)
	}
	m.running = false
}

// lost forgets places on the screen, after a piece of output was left out.
func (m *tracker) lost() { m.begun = false }

// since returns what stands on the screen from a place on, to the cursor.
func (t *Transcript) since(line, x int) string {
	g := t.grid()
	from := line - g.scrolled
	var b strings.Builder
	if from < 0 {
		if t.carry.text != "" && t.carry.line == line {
			b.WriteString(skipCells(t.carry.text, x))
		}
		from, x = 0, 0
	}
	for i := from; i <= g.y && i < g.height; i++ {
		g.rows[i].appendTo(&b, min(x, len(g.rows[i].cells)))
		if !g.rows[i].wrapped {
			b.WriteByte(' ')
		}
		x = 0
	}
	return strings.TrimSpace(b.String())
}

// skipCells returns what stands from a column on.
func skipCells(s string, x int) string {
	for i, r := range s {
		if x <= 0 {
			return s[i:]
		}
		x -= escape.Columns(r)
	}
	return ""
}

// told133 returns the command line that some shells put into mark C.
func told133(params string) string {
	for p := range strings.SplitSeq(params, ";") {
		key, value, _ := strings.Cut(p, "=")
		switch key {
		case "cmdline_url":
			if text, err := url.PathUnescape(value); err == nil {
				return text
			}
		case "cmdline":
			return value
		}
	}
	return ""
}

// unescape633 undoes the escapes of OSC 633;E: \\ and \xHH.
func unescape633(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		if s[i+1] == 'x' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		i++
		b.WriteByte(s[i])
	}
	return b.String()
}
