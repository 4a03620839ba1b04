package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"sallyport.dev/client"
)

// Why not a library: the usual ones ask the terminal about its colours as soon as they
// are linked in, on standard output, which belongs to the session alone.

var (
	errNothingChosen = errors.New("nothing was chosen")
	errBack          = errors.New("back") // where a list can be left for the one before
)

// pickerRows is how many lines of the list are shown at once.
const pickerRows = 12

// picker is a list in which a person chooses a line: the arrows move, typing narrows
// it down, Enter chooses, Escape and Ctrl-C leave.
type picker struct {
	title string
	lines []string
	// always is how many of the lines, the first ones, are shown before anything is
	// typed; the others are found by typing. 0 shows all.
	always int
	// cursor is on the line that it is set to; in matches.
	cursor int
	// steps makes the left arrow, and Backspace where nothing is typed, go back.
	steps bool

	width   int
	filter  string
	matches []int // of lines
	back    bool  // the person went back
	drawn   int   // lines on the screen
}

// pick shows a list and returns which line was chosen.
func (p *program) pick(title string, lines []string) (int, error) {
	return p.pickFrom(&picker{title: title, lines: lines})
}

// pickFrom shows the list on standard error and returns which line was chosen; errBack
// if the person went back.
func (p *program) pickFrom(l *picker) (int, error) {
	terminal := &client.Terminal{Stdin: p.stdin, Stdout: p.stderr, Stderr: p.stderr}
	if err := terminal.MakeRaw(); err != nil {
		return 0, err
	}
	defer terminal.Restore()
	l.width = 80
	if f, ok := p.stderr.(*os.File); ok {
		if cols, _, err := term.GetSize(int(f.Fd())); err == nil && cols > 10 {
			l.width = cols
		}
	}
	at := l.cursor
	l.narrow("")
	l.cursor = max(min(at, len(l.matches)-1), 0)
	return l.run(p.stdin, p.stderr)
}

func (l *picker) run(in io.Reader, out io.Writer) (int, error) {
	defer func() { io.WriteString(out, l.clear()) }()
	buf := make([]byte, 64)
	for {
		if _, err := io.WriteString(out, l.clear()+l.draw()); err != nil {
			return 0, err
		}
		n, err := in.Read(buf)
		if err != nil {
			return 0, errNothingChosen
		}
		switch done := l.keys(string(buf[:n])); {
		case done && l.back:
			return 0, errBack
		case done && len(l.matches) > 0:
			return l.matches[l.cursor], nil
		case done:
			return 0, errNothingChosen
		}
	}
}

// keys acts on what was read at once, which over a slow line, or when text is pasted, is
// several keys. What comes after the choice is let go.
func (l *picker) keys(typed string) (done bool) {
	for typed != "" && !done {
		n := keyLength(typed)
		done = l.key(typed[:n])
		typed = typed[n:]
	}
	return done
}

// keyLength is how much of what was typed is one key, or text without any.
func keyLength(typed string) int {
	switch {
	case len(typed) >= 3 && typed[0] == '\x1b' && (typed[1] == '[' || typed[1] == 'O'):
		for i := 2; i < len(typed); i++ {
			if typed[i] >= '@' && typed[i] <= '~' {
				return i + 1
			}
		}
		return len(typed)
	case typed[0] == '\x1b':
		return len(typed) // alone, or a key with Alt
	case typed[0] < ' ' || typed[0] == '\x7f':
		return 1
	}
	if i := strings.IndexFunc(typed, unicode.IsControl); i > 0 {
		return i
	}
	return len(typed)
}

// key acts on what was typed at once; done ends the choosing, with matches empty if
// nothing is chosen.
func (l *picker) key(typed string) (done bool) {
	switch typed {
	case "\x1b[A", "\x1bOA", "\x10":
		l.cursor = max(l.cursor-1, 0)
	case "\x1b[B", "\x1bOB", "\x0e":
		l.cursor = max(min(l.cursor+1, len(l.matches)-1), 0)
	case "\r", "\n":
		return len(l.matches) > 0
	case "\x1b", "\x03", "\x04":
		l.matches = nil
		return true
	case "\x1b[D", "\x1bOD":
		l.back = l.steps
		return l.back
	case "\x7f", "\b":
		if l.filter == "" {
			l.back = l.steps
			return l.back
		}
		_, size := utf8.DecodeLastRuneInString(l.filter)
		l.narrow(l.filter[:len(l.filter)-size])
	default:
		if !strings.ContainsFunc(typed, unicode.IsControl) {
			l.narrow(l.filter + typed)
		}
	}
	return false
}

// narrow shows the lines that hold filter.
func (l *picker) narrow(filter string) {
	l.filter, l.matches, l.cursor = filter, nil, 0
	shown := l.lines
	if filter == "" && l.always > 0 {
		shown = l.lines[:l.always]
	}
	for i, line := range shown {
		if strings.Contains(strings.ToLower(line), strings.ToLower(filter)) {
			l.matches = append(l.matches, i)
		}
	}
}

// draw is the list as it is shown, the cursor behind it.
func (l *picker) draw() string {
	var b strings.Builder
	b.WriteString(cut(l.title+" "+l.filter, l.width-1) + "\r\n")
	first := max(0, min(l.cursor-pickerRows/2, len(l.matches)-pickerRows))
	last := min(first+pickerRows, len(l.matches))
	for i := first; i < last; i++ {
		mark := "  "
		if i == l.cursor {
			mark = "> "
		}
		b.WriteString(cut(mark+l.lines[l.matches[i]], l.width-1) + "\r\n")
	}
	l.drawn = 1 + last - first
	b.WriteString(cut(l.help(), l.width-1))
	return b.String()
}

func (l *picker) help() string {
	total := len(l.lines)
	if l.always > 0 && l.filter == "" {
		total = l.always
	}
	back := ""
	if l.steps {
		back = "left goes back, "
	}
	return fmt.Sprintf("%d of %d; arrows move, typing narrows, Enter chooses, %sCtrl-C leaves", len(l.matches), total, back)
}

// clear takes the list off the screen.
func (l *picker) clear() string {
	if l.drawn == 0 {
		return ""
	}
	n := l.drawn
	l.drawn = 0
	return fmt.Sprintf("\r\x1b[%dA\x1b[J", n)
}

// cut shortens s to n characters.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(n-1, 0)]) + "…"
}

// confirm asks a person to agree, unless yes says that they do. Where nobody can be asked,
// it says how to go on; who does not agree is told what that leaves.
func (p *program) confirm(yes bool, question, otherwise string) error {
	if yes {
		return nil
	}
	if !p.interactive() {
		return usagef("%s standard input is no terminal; give --yes", question)
	}
	fmt.Fprintf(p.stderr, "%s [y/N] ", client.CleanLine(question))
	answer, err := bufio.NewReader(io.LimitReader(p.stdin, 1<<10)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &statusError{status: statusRefused, err: errors.New(otherwise)}
}
