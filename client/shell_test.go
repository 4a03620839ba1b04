//go:build unix

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"sallyport.dev/wire"
)

// desk is a person at a terminal that runs a session.
type desk struct {
	t        *testing.T
	keyboard *os.File // the far side of the terminal
	tty      *os.File
	before   *term.State
	seen     *output
	said     *output
	copied   chan struct{}

	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}
	end    End
	err    error
}

// sit opens a terminal of 100 columns and 30 rows and starts a session on it.
func sit(t *testing.T, f *fakeServer, cfg ShellConfig) *desk {
	t.Helper()
	keyboard, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(keyboard, &pty.Winsize{Cols: 100, Rows: 30}); err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, keyboard: keyboard, tty: tty, seen: newOutput(), said: newOutput(), copied: make(chan struct{}), done: make(chan struct{})}
	if d.before, err = term.GetState(int(tty.Fd())); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.copied)
		io.Copy(d.seen, keyboard)
	}()
	cfg.Terminal = &Terminal{Stdin: tty, Stdout: tty, Stderr: d.said}
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	go func() {
		defer close(d.done)
		d.end, d.err = RunShell(d.ctx, f.config(), cfg)
	}()
	t.Cleanup(func() {
		d.cancel(nil)
		<-d.done
		tty.Close()
		keyboard.Close()
		<-d.copied
	})
	return d
}

func (d *desk) wait() (End, error) {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(patience):
		d.t.Fatal("the session did not end")
	}
	return d.end, d.err
}

func (d *desk) typeKeys(s string) {
	d.t.Helper()
	if _, err := d.keyboard.WriteString(s); err != nil {
		d.t.Fatal(err)
	}
}

// isRaw reports whether the terminal's modes are other than at the start.
func (d *desk) isRaw() bool {
	now, err := term.GetState(int(d.tty.Fd()))
	if err != nil {
		d.t.Fatal(err)
	}
	return !reflect.DeepEqual(d.before, now)
}

// prompt waits for the client, checks its first word and shows a prompt.
func prompt(f *fakeServer) *fakeConn {
	c := f.next()
	c.send(0, wire.PayloadOutput, "$ ")
	return c
}

func size(t *testing.T, m *wire.Message) wire.TerminalSize {
	t.Helper()
	var s wire.TerminalSize
	if err := json.Unmarshal(m.Payload, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSizeIsTheFirstMessage(t *testing.T) {
	f := newFakeServer(t)
	sit(t, f, ShellConfig{})
	m := f.next().receive()
	if m.Type != wire.TypeInputStreamData || m.PayloadType != wire.PayloadSize || m.SequenceNumber != 0 {
		t.Fatalf("first message: got %s of type %d, number %d", m.Type, m.PayloadType, m.SequenceNumber)
	}
	if got, want := size(t, m), (wire.TerminalSize{Cols: 100, Rows: 30}); got != want {
		t.Errorf("size: got %+v, want %+v", got, want)
	}
}

func TestResizeIsToldAtOnce(t *testing.T) {
	f := newFakeServer(t)
	d := sit(t, f, ShellConfig{})
	c := prompt(f)
	d.seen.waitFor(t, "$ ")
	c.receiveStream(wire.PayloadSize)
	c.receiveStream(wire.PayloadSize) // once more when the session starts
	pty.Setsize(d.keyboard, &pty.Winsize{Cols: 132, Rows: 43})
	start := time.Now()
	syscall.Kill(os.Getpid(), syscall.SIGWINCH)
	if got, want := size(t, c.receiveStream(wire.PayloadSize)), (wire.TerminalSize{Cols: 132, Rows: 43}); got != want {
		t.Errorf("size: got %+v, want %+v", got, want)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

// Every key reaches the session while the terminal is raw, also those that would
// stop or end a program here.
func TestKeys(t *testing.T) {
	f := newFakeServer(t)
	d := sit(t, f, ShellConfig{Escape: true})
	c := prompt(f)
	d.waitRaw()
	const keys = "\x03\x1c\x1a\x13\x11\x04~/x\rżółć\x16"
	d.typeKeys(keys)
	var got string
	for len(got) < len(keys) {
		got += string(c.receiveStream(wire.PayloadOutput).Payload)
	}
	if got != keys {
		t.Errorf("keys: got %q, want %q", got, keys)
	}
	c.closed("", nil)
	if _, err := d.wait(); err != nil {
		t.Error(err)
	}
	if d.isRaw() {
		t.Error("the terminal was not restored")
	}
}

func (d *desk) waitRaw() {
	d.t.Helper()
	deadline := time.Now().Add(patience)
	for !d.isRaw() {
		if time.Now().After(deadline) {
			d.t.Fatal("the terminal never became raw")
		}
		time.Sleep(time.Millisecond)
	}
	// Input is read from when both the session's first word and raw mode are there.
	time.Sleep(20 * time.Millisecond)
}

// However a session ends, the terminal is what it was.
func TestTerminalIsRestored(t *testing.T) {
	status := 3
	tests := []struct {
		name string
		end  func(*desk, *fakeServer, *fakeConn)
		want error
	}{
		{"the shell exits", func(_ *desk, _ *fakeServer, c *fakeConn) { c.closed("", &status) }, nil},
		{"the server ends it", func(_ *desk, _ *fakeServer, c *fakeConn) { c.closed("terminated", nil) }, nil},
		{"the person leaves", func(d *desk, _ *fakeServer, _ *fakeConn) { d.typeKeys("~.") }, ErrLeft},
		{"SIGTERM", func(*desk, *fakeServer, *fakeConn) { syscall.Kill(os.Getpid(), syscall.SIGTERM) }, &SignalError{}},
		{"SIGHUP", func(*desk, *fakeServer, *fakeConn) { syscall.Kill(os.Getpid(), syscall.SIGHUP) }, &SignalError{}},
		{"the session is over when resumed", func(_ *desk, _ *fakeServer, c *fakeConn) { c.drop() }, ErrTimedOut},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeServer(t)
			f.resume = func(int) (Stream, error) { return Stream{}, nil }
			d := sit(t, f, ShellConfig{Escape: true})
			c := prompt(f)
			d.seen.waitFor(t, "$ ")
			d.waitRaw()
			tt.end(d, f, c)
			_, err := d.wait()
			var signalled *SignalError
			if _, ok := tt.want.(*SignalError); ok {
				if !errors.As(err, &signalled) || signalled.Status < 129 {
					t.Errorf("error: got %v, want a signal", err)
				}
			} else if !errors.Is(err, tt.want) {
				t.Errorf("error: got %v, want %v", err, tt.want)
			}
			if d.isRaw() {
				t.Error("the terminal was not restored")
			}
		})
	}
}

// A session that ends while a full-screen program is up leaves no trace of it.
func TestModesAreUndone(t *testing.T) {
	const program = "\x1b[?1049h\x1b[?1h\x1b=\x1b[?1002h\x1b[?1006h\x1b[?2004h\x1b[?25l~"
	const undone = "\x1b[?1l\x1b[?25h\x1b>\x1b[?1002l\x1b[?1006l\x1b[?2004l\x1b[?1049l"
	tests := []struct {
		name, output, want string
		end                func(*desk, *fakeConn)
	}{
		{"terminated", program, undone, func(_ *desk, c *fakeConn) { c.closed("terminated", nil) }},
		{"left", program, undone, func(d *desk, _ *fakeConn) { d.typeKeys("~.") }},
		{"lost", program, undone, func(_ *desk, c *fakeConn) { c.drop() }},
		{"a signal", program, undone, func(*desk, *fakeConn) { syscall.Kill(os.Getpid(), syscall.SIGTERM) }},
		{"nothing set", "done\r\n", "", func(_ *desk, c *fakeConn) { c.closed("", nil) }},
		{"a program that ended", program + undone, "", func(_ *desk, c *fakeConn) { c.closed("terminated", nil) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeServer(t)
			f.resume = func(int) (Stream, error) { return Stream{}, nil }
			d := sit(t, f, ShellConfig{Escape: true})
			c := prompt(f)
			d.seen.waitFor(t, "$ ")
			d.waitRaw()
			c.send(1, wire.PayloadOutput, tt.output)
			c.receiveAcknowledgements(1)
			tt.end(d, c)
			d.wait()
			d.tty.WriteString("#") // what the shell here would write next
			d.seen.waitFor(t, "#")
			if got, want := d.seen.String(), "$ "+tt.output+tt.want+"#"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// What the client says stands on a line of its own, and no line is left empty for it.
func TestSayStartsLine(t *testing.T) {
	for _, tt := range []struct{ output, want string }{
		{"$ ", "\r\n"}, {"done\r\n", ""}, {"done\r\n\x1b[?2004l", ""}, {"", ""},
	} {
		keyboard, tty, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		seen := newOutput()
		copied := make(chan struct{})
		go func() {
			defer close(copied)
			io.Copy(seen, keyboard)
		}()
		terminal := &Terminal{Stdin: tty, Stdout: tty, Stderr: tty}
		terminal.MakeRaw()
		io.WriteString(tty, tt.output)
		terminal.follow(tty, []byte(tt.output))
		terminal.Say("reconnected")
		terminal.Say("again")
		seen.waitFor(t, "again\r\n")
		if got, want := seen.String(), tt.output+tt.want+"sallyport: reconnected\r\nsallyport: again\r\n"; got != want {
			t.Errorf("after %q: got %q, want %q", tt.output, got, want)
		}
		terminal.Restore()
		tty.Close()
		keyboard.Close()
		<-copied
	}
}

func TestEscapeHelp(t *testing.T) {
	f := newFakeServer(t)
	d := sit(t, f, ShellConfig{Escape: true})
	prompt(f)
	d.seen.waitFor(t, "$ ")
	d.waitRaw()
	d.typeKeys("~?")
	d.said.waitFor(t, "~. leaves the session")
	if strings.Contains(d.seen.String(), "leaves") {
		t.Error("the help is on standard output")
	}
}

// piped runs a session whose standard input is a pipe with this text in it.
func piped(t *testing.T, f *fakeServer, text string, cfg ShellConfig) (out, errs *output, wait func() (End, error)) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		w.WriteString(text)
		w.Close()
	}()
	out, errs = newOutput(), newOutput()
	cfg.Terminal = &Terminal{Stdin: r, Stdout: out, Stderr: errs}
	var end End
	done := make(chan error, 1)
	go func() {
		var err error
		end, err = RunShell(context.Background(), f.config(), cfg)
		r.Close()
		<-written
		done <- err
	}()
	return out, errs, func() (End, error) {
		t.Helper()
		select {
		case err := <-done:
			return end, err
		case <-time.After(patience):
			t.Fatal("the session did not end")
			return end, nil
		}
	}
}

// Piped input is typed, then the end of input, until the session ends by itself.
func TestPipedInput(t *testing.T) {
	tests := []struct {
		name, input, want string
		exact             bool
	}{
		{"whole line", "ls\n", "ls\n\x04", false},
		{"no newline at the end, for a shell", "ls", "ls\n\x04", false},
		{"no newline at the end, for a command", "data", "data\x04\x04", true},
		{"nothing", "", "\x04", false},
		{"escape sequences mean nothing", "a\n~.b\n", "a\n~.b\n\x04", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeServer(t)
			out, _, wait := piped(t, f, tt.input, ShellConfig{Escape: true, Exact: tt.exact})
			c := prompt(f)
			got := ""
			for len(got) < len(tt.want) {
				got += string(c.receiveStream(wire.PayloadOutput).Payload)
			}
			if got != tt.want {
				t.Errorf("input: got %q, want %q", got, tt.want)
			}
			if m := c.receiveStream(wire.PayloadOutput); string(m.Payload) != "\x04" {
				t.Errorf("then: got %q, want the end of input once more", m.Payload)
			}
			c.send(1, wire.PayloadOutput, "file\r\n")
			c.closed("", nil)
			if _, err := wait(); err != nil {
				t.Error(err)
			}
			if got := out.String(); got != "$ file\r\n" {
				t.Errorf("standard output: got %q", got)
			}
		})
	}
}

// Nothing is typed before the agent is ready: in a handshake it would be lost.
func TestInputWaitsForAgent(t *testing.T) {
	f := newFakeServer(t)
	f.resume = func(int) (Stream, error) { return Stream{}, nil }
	_, _, wait := piped(t, f, "ls\n", ShellConfig{})
	c := f.next()
	if m := c.receive(); m.PayloadType != wire.PayloadSize {
		t.Fatalf("first message: got payload type %d", m.PayloadType)
	}
	c.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, p, err := c.conn.Read(); err == nil {
		t.Errorf("sent before the agent's first word: %q", p)
	}
	c.drop()
	if _, err := wait(); !errors.Is(err, ErrTimedOut) {
		t.Error(err)
	}
}

// A silent shell gets its input soon after the agent took the size.
func TestInputOfSilentShell(t *testing.T) {
	f := newFakeServer(t)
	_, _, wait := piped(t, f, "ls\n", ShellConfig{})
	c := f.next()
	start := time.Now()
	if m := c.receiveStream(wire.PayloadOutput); string(m.Payload) != "ls\n" {
		t.Errorf("input: got %q", m.Payload)
	}
	if took := time.Since(start); took > holdInput-time.Second {
		t.Errorf("took %s", took)
	}
	c.closed("", nil)
	wait()
}

// While a handshake goes on, input waits for its end.
func TestInputWaitsForHandshake(t *testing.T) {
	f := newFakeServer(t)
	_, _, wait := piped(t, f, "ls\n", ShellConfig{})
	c := f.next()
	c.acknowledge(c.receive()) // the size, which an agent in a handshake throws away
	c.send(0, wire.PayloadHandshakeRequest, handshake(InteractiveCommands))
	for m := c.receive(); m.PayloadType != wire.PayloadHandshakeResponse; m = c.receive() {
		if m.PayloadType == wire.PayloadOutput {
			t.Errorf("sent before the handshake: %q", m.Payload)
		}
	}
	c.conn.SetReadDeadline(time.Now().Add(2 * handshakeGrace))
	for {
		_, p, err := c.conn.Read()
		if err != nil {
			break
		}
		if m, err := wire.Decode(p); err == nil && m.PayloadType == wire.PayloadOutput {
			t.Errorf("sent during the handshake: %q", m.Payload)
		}
	}
	c = f.next()
	c.send(1, wire.PayloadHandshakeComplete, "{}")
	if m := c.receiveStream(wire.PayloadOutput); string(m.Payload) != "ls\n" {
		t.Errorf("input: got %q", m.Payload)
	}
	c.closed("", nil)
	wait()
}

func TestCommandStreams(t *testing.T) {
	f := newFakeServer(t)
	out, errs, wait := piped(t, f, "", ShellConfig{})
	c := f.next()
	c.send(0, wire.PayloadHandshakeRequest, handshake(NonInteractiveCommands))
	c.receiveStream(wire.PayloadHandshakeResponse)
	c.send(1, wire.PayloadHandshakeComplete, `{"HandshakeTimeToComplete":1}`)
	c.send(2, wire.PayloadOutput, "out\n")
	c.send(3, wire.PayloadStdErr, "err\n")
	c.send(4, wire.PayloadExitCode, "EXIT_CODE: 7")
	c.receiveAcknowledgements(2, 3, 4)
	c.closed("", nil)
	end, err := wait()
	if err != nil || end.ExitStatus == nil || *end.ExitStatus != 7 {
		t.Errorf("end: got %+v, %v, want exit status 7", end, err)
	}
	if out.String() != "out\n" || errs.String() != "err\n" {
		t.Errorf("streams: got %q and %q", out.String(), errs.String())
	}
}

// As the plugin everything goes to standard output, as AWS's does it.
func TestPluginStreams(t *testing.T) {
	f := newFakeServer(t)
	out, _, wait := piped(t, f, "", ShellConfig{Plugin: true})
	c := prompt(f)
	c.send(1, wire.PayloadStdErr, "err ")
	c.send(2, wire.PayloadExitCode, "EXIT_CODE: 7")
	c.receiveAcknowledgements(1, 2)
	c.closed("", nil)
	wait()
	if got, want := out.String(), "$ err EXIT_CODE: 7"; got != want {
		t.Errorf("standard output: got %q, want %q", got, want)
	}
}

// The agent's words for the person are cleaned: they could hide or fake something.
func TestNoticesAreCleaned(t *testing.T) {
	f := newFakeServer(t)
	_, errs, wait := piped(t, f, "", ShellConfig{})
	c := f.next()
	c.send(0, wire.PayloadHandshakeRequest, handshake(StandardStream))
	c.receiveStream(wire.PayloadHandshakeResponse)
	c.send(1, wire.PayloadHandshakeComplete, `{"CustomerMessage":"hi\u001b]0;owned\u0007\u202etxt"}`)
	c.receiveAcknowledgements(1)
	c.closed("", nil)
	wait()
	if got := errs.String(); strings.ContainsAny(got, "\x1b\x07\u202e") || !strings.Contains(got, "sallyport: hi") {
		t.Errorf("standard error: got %q", got)
	}
}

// A pasted 100 kB arrives whole although the link breaks on the way.
func TestPaste(t *testing.T) {
	f := newFakeServer(t)
	text := strings.Repeat("0123456789abcde\n", 6400)
	_, _, wait := piped(t, f, text, ShellConfig{Exact: true})
	c := prompt(f)
	var got bytes.Buffer
	next := int64(0)
	for cuts := 0; got.Len() < len(text); {
		m := c.receive()
		if m.Type != wire.TypeInputStreamData {
			continue
		}
		c.acknowledge(m)
		if m.SequenceNumber != next { // resent although it had arrived
			continue
		}
		next++
		if m.PayloadType == wire.PayloadOutput {
			got.Write(m.Payload)
		}
		if cuts < 3 && got.Len() > (cuts+1)*20000 {
			cuts++
			c.drop()
			c = f.next()
		}
	}
	if !strings.HasPrefix(got.String(), text) {
		t.Error("the pasted text arrived damaged")
	}
	c.closed("", nil)
	wait()
}

func TestWriteErrorEnds(t *testing.T) {
	f := newFakeServer(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	done := make(chan error, 1)
	go func() {
		_, err := RunShell(context.Background(), f.config(), ShellConfig{Terminal: &Terminal{Stdout: w, Stderr: io.Discard}})
		done <- err
	}()
	prompt(f)
	if err := <-done; !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v, want %v", err, unix.EPIPE)
	}
}
