package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"
)

// benchOutput shows a large text in sessions, one after the other, and checks that it
// arrived as it is. The terminal at the far end does not change newlines.
func benchOutput(ctx context.Context, l *lab) ([]figure, error) {
	s, err := l.system(ctx)
	if err != nil {
		return nil, err
	}
	pair, err := l.ssh(ctx)
	if err != nil {
		return nil, err
	}
	text, err := l.newText(l.pickInt(50, 10) << 20)
	if err != nil {
		return nil, err
	}
	const name, floor, ssh, jump = "sallyport connect, recorded", "local terminal", "ssh", "ssh -J"
	var r results
	err = s.server.profiling("output", func() (err error) {
		r, err = compete(ctx, l.pickInt(4, 3),
			contestant{name, l.shown(text, func() (*exec.Cmd, error) { return l.connect(s) })},
			contestant{floor, l.shownLocally(text)},
			contestant{ssh, l.shown(text, func() (*exec.Cmd, error) { return pair.command("-tt", "direct"), nil })},
			contestant{jump, l.shown(text, func() (*exec.Cmd, error) { return pair.command("-tt", "behind"), nil })},
		)
		return err
	})
	if err != nil {
		return nil, err
	}
	return []figure{r.figure(name, "MB/s", jump, ssh, floor)}, nil
}

// text is a file of lines and its digest.
type text struct {
	path string
	size int
	sum  [sha256.Size]byte
}

// newText makes lines of words, as logs have them, the same in every run.
func (l *lab) newText(size int) (text, error) {
	random := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < size {
		for range 6 + random.IntN(8) {
			fmt.Fprintf(&b, "%x ", random.Uint32()>>random.IntN(20))
		}
		b.WriteByte('\n')
	}
	b.Truncate(size)
	t := text{path: l.path("text"), size: size, sum: sha256.Sum256(b.Bytes())}
	return t, os.WriteFile(t.path, b.Bytes(), 0o600)
}

// line is what is typed to see the text between two marks.
func (t text) line() string {
	return "stty -opost -echo; printf 'BEG''IN\\n'; cat '" + t.path + "'; printf 'E''ND\\n'; exit\r"
}

// shown measures MB/s of the text through a program whose streams are pipes.
func (l *lab) shown(t text, command func() (*exec.Cmd, error)) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		cmd, err := command()
		if err != nil {
			return 0, err
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			return 0, err
		}
		r, w, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		defer r.Close()
		cmd.Stdout = w
		p, err := l.start(cmd, "output")
		w.Close()
		if err != nil {
			return 0, err
		}
		defer p.stop()
		defer in.Close()
		r.SetReadDeadline(time.Now().Add(4 * patience))
		rate, err := t.watch(r, in)
		return rate, p.maybeWhy(err)
	}
}

// shownLocally is the same on a terminal of this machine.
func (l *lab) shownLocally(t text) func(context.Context) (float64, error) {
	return func(context.Context) (float64, error) {
		cmd, err := l.localShell()
		if err != nil {
			return 0, err
		}
		term, err := l.onTerminal(cmd, "shell")
		if err != nil {
			return 0, err
		}
		defer term.end()
		return t.watch(term.tty, term.tty)
	}
}

// watch types the line once the shell shows something, reads to the end, and checks
// what came.
func (t text) watch(r io.Reader, w io.Writer) (float64, error) {
	const begin, end = "BEGIN\n", "END\n"
	got := make([]byte, 0, t.size+64<<10)
	var from int
	var began time.Time
	buffer := make([]byte, 64<<10)
	for {
		n, err := r.Read(buffer)
		if len(got) == 0 && n > 0 {
			if _, err := io.WriteString(w, t.line()); err != nil {
				return 0, err
			}
		}
		got = append(got, buffer[:n]...)
		if i := bytes.Index(got, []byte(begin)); began.IsZero() && i >= 0 {
			began, from = time.Now(), i+len(begin)
		}
		if !began.IsZero() && len(got) >= from+t.size+len(end) {
			rate := float64(t.size) / 1e6 / time.Since(began).Seconds()
			return rate, t.check(got[from:])
		}
		if err != nil {
			return 0, fmt.Errorf("after %d bytes: %w", len(got), err)
		}
	}
}

func (t text) check(got []byte) error {
	if sha256.Sum256(got[:t.size]) != t.sum || !bytes.HasPrefix(got[t.size:], []byte("END\n")) {
		return errors.New("the text did not arrive as it is")
	}
	return nil
}
