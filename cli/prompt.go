package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"sallyport.dev/client"
)

// maxLine bounds what a person types at a prompt, in bytes; terminals give no longer
// lines.
const maxLine = 4 << 10

// errInterrupted is that a person left a question with Ctrl-C.
var errInterrupted = errors.New("interrupted")

// interrupted makes a program that the person interrupted exit as shells have it.
func interrupted(err error) error {
	if errors.Is(err, errInterrupted) || errors.Is(err, errNothingChosen) {
		return &statusError{status: statusInterrupted}
	}
	return err
}

// untilInterrupted is a context that Ctrl-C and the signals that end programs cancel,
// with errInterrupted as the cause.
func untilInterrupted(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() { // ends with the context
		defer close(done)
		select {
		case <-signals:
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(signals); cancel(nil); <-done }
}

// line asks for one line of text. The terminal itself lets people edit it, and gives one
// line at a time: what is typed beyond belongs to what comes next.
func (p *program) line(ctx context.Context, question string) (string, error) {
	ctx, stop := untilInterrupted(ctx)
	defer stop()
	fmt.Fprintf(p.stderr, "%s ", client.CleanLine(question))
	in, cancel := cancelable(p.stdin)
	defer context.AfterFunc(ctx, cancel)()
	buf := make([]byte, maxLine)
	n, err := in.Read(buf)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(p.stderr)
		return "", context.Cause(ctx)
	case err != nil || n == 0:
		fmt.Fprintln(p.stderr)
		return "", errInterrupted // Ctrl-D
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

// typedText checks that what was typed is text: keys that move the cursor arrive as
// control characters.
func typedText(s string) error {
	switch {
	case !utf8.ValidString(s):
		return errors.New("it is not UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("it holds a control character")
	}
	return nil
}

// yes asks a question that has two answers; anything but yes is no.
func (p *program) yes(ctx context.Context, question string) (bool, error) {
	answer, err := p.line(ctx, question+" [y/N]")
	answer = strings.ToLower(answer)
	return answer == "y" || answer == "yes", err
}

// choice lets a person pick one of several lines; cursor is where it begins.
func (p *program) choice(title string, lines []string, cursor int) (int, error) {
	clean := make([]string, len(lines))
	for i, l := range lines {
		clean[i] = client.CleanLine(l)
	}
	return p.pickFrom(&picker{title: client.CleanLine(title), lines: clean, cursor: cursor})
}

// atTerminal is the program with its questions on the terminal that the person sits at,
// also where standard input and error lead elsewhere, as those of ssh's ProxyCommand do.
// ok is false where nobody can be asked; close gives the terminal back.
func (p *program) atTerminal() (asking *program, close func(), ok bool) {
	tty, err := os.OpenFile(controllingTerminal, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, false
	}
	if !term.IsTerminal(int(tty.Fd())) || !inForeground(tty) || p.quiet() || batchParent() {
		tty.Close()
		return nil, nil, false
	}
	q := *p
	q.stdin, q.stderr = tty, tty
	return &q, func() { tty.Close() }, true
}

// askVariable is the environment variable that keeps commands from asking for access
// where they are refused.
const askVariable = "SALLYPORT_ASK"

// quiet reports whether nobody wants to be asked.
func (p *program) quiet() bool {
	switch strings.ToLower(p.getenv(askVariable)) {
	case "never", "no", "0", "false":
		return true
	}
	return p.flags.json
}

// mayAsk reports whether a person can be asked on the standard streams.
func (p *program) mayAsk() bool { return p.interactive() && !p.quiet() }

// writeStatus draws a line in place of the one before it, or takes it away; width is
// the terminal's.
func writeStatus(w io.Writer, line string) {
	width := 80
	if f, ok := w.(*os.File); ok {
		if cols, _, err := term.GetSize(int(f.Fd())); err == nil && cols > 10 {
			width = cols
		}
	}
	io.WriteString(w, "\r"+cut(line, width-1)+"\x1b[K")
}

// isBatch reports whether a command line of OpenSSH's switches questions off.
func isBatch(words []string) bool {
	for i, w := range words {
		w = strings.TrimPrefix(w, "-o")
		if w == "" && i+1 < len(words) {
			continue // its value is the next word
		}
		key, value, _ := strings.Cut(strings.Replace(strings.TrimSpace(w), " ", "=", 1), "=")
		if strings.EqualFold(key, "BatchMode") && strings.EqualFold(strings.TrimSpace(value), "yes") {
			return true
		}
	}
	return false
}
