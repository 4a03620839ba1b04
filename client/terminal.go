package client

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"

	"sallyport.dev/internal/tty"
	"sallyport.dev/wire"
)

// pipedSize is the size of the remote terminal when there is none here, as AWS's
// client has it: wide, so that lines are not broken.
var pipedSize = wire.TerminalSize{Cols: 300, Rows: 100}

const (
	minSize = 1
	maxSize = 1<<16 - 1
)

// Terminal is the person's end of a session: standard streams, which may be a
// terminal, pipes or files.
type Terminal struct {
	Stdin  *os.File
	Stdout io.Writer
	Stderr io.Writer

	mu    sync.Mutex
	raw   *term.State // what to restore; nil while not raw
	modes func()      // undoes what else was set
	shown tty.Modes   // what sessions did to the terminal that Stdout is
}

// Interactive reports whether standard input is a terminal.
func (t *Terminal) Interactive() bool {
	return t.Stdin != nil && term.IsTerminal(int(t.Stdin.Fd()))
}

// Size returns the size of the terminal that output goes to, or input comes from.
func (t *Terminal) Size() wire.TerminalSize {
	for _, f := range []any{t.Stdout, t.Stdin} {
		file, ok := f.(*os.File)
		if !ok || file == nil {
			continue
		}
		if cols, rows, err := term.GetSize(int(file.Fd())); err == nil && cols >= minSize && rows >= minSize {
			return wire.TerminalSize{Cols: uint32(min(cols, maxSize)), Rows: uint32(min(rows, maxSize))}
		}
	}
	return pipedSize
}

// MakeRaw hands every key to the session. Restore undoes it. Without a terminal it
// does nothing.
func (t *Terminal) MakeRaw() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.raw != nil || !t.Interactive() {
		return nil
	}
	state, err := term.MakeRaw(int(t.Stdin.Fd()))
	if err != nil {
		return fmt.Errorf("setting the terminal to raw mode: %w", err)
	}
	t.raw = state
	t.modes = prepareConsole(t.Stdout)
	return nil
}

// follow notes what output written to w did to the terminal.
func (t *Terminal) follow(w io.Writer, p []byte) {
	if !isTerminal(w) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shown.Write(p)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && f != nil && term.IsTerminal(int(f.Fd()))
}

// reset undoes what the output of a session has left set: the alternate screen, the
// mouse and others. What the session set back itself, or never set, is let alone.
func (t *Terminal) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if undo := t.shown.Undo(); undo != "" {
		io.WriteString(t.Stdout, undo)
	}
}

// StartLine begins a new line if a session's output has left the cursor within one.
func (t *Terminal) StartLine() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shown.InLine() {
		io.WriteString(t.Stdout, "\r\n")
		t.shown.StartLine()
	}
}

// Restore gives the terminal back as it was. It may be called any number of times.
func (t *Terminal) Restore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.raw == nil {
		return
	}
	t.modes()
	term.Restore(int(t.Stdin.Fd()), t.raw)
	t.raw = nil
}

// again sets raw mode anew, after the process was stopped and a shell had the terminal.
func (t *Terminal) again() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.raw != nil {
		term.MakeRaw(int(t.Stdin.Fd()))
	}
}

// Say writes "sallyport: text" to standard error, cleaned, on lines of its own.
func (t *Terminal) Say(text string) {
	t.StartLine()
	t.mu.Lock()
	defer t.mu.Unlock()
	text = "sallyport: " + Clean(text) + "\n"
	if t.raw != nil {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	io.WriteString(t.Stderr, text)
}
