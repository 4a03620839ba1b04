//go:build unix

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/wire"
)

// commandRun is a command with input that a client runs.
type commandRun struct {
	t         *testing.T
	stdin     *os.File // the far end of its standard input
	out, errs *output
	done      chan struct{}
	end       End
	err       error
}

func runCommand(t *testing.T, f *fakeServer, change ...func(*ChannelConfig)) *commandRun {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &commandRun{t: t, stdin: w, out: newOutput(), errs: newOutput(), done: make(chan struct{})}
	cfg := f.config()
	for _, ch := range change {
		ch(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(c.done)
		c.end, c.err = RunExec(ctx, cfg, &Terminal{Stdin: r, Stdout: c.out, Stderr: c.errs})
	}()
	t.Cleanup(func() {
		cancel()
		<-c.done
		r.Close()
		w.Close()
	})
	return c
}

func (c *commandRun) wait() (End, error) {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		c.t.Fatal("the command did not end")
	}
	return c.end, c.err
}

// control returns the client's next ExecControl.
func (c *fakeConn) control() (e wire.ExecControl) {
	c.t.Helper()
	if err := json.Unmarshal(c.receiveStream(wire.PayloadExecControl).Payload, &e); err != nil {
		c.t.Fatal(err)
	}
	return e
}

// Input, output and errors are passed on as they are, with no handshake.
func TestRunExec(t *testing.T) {
	f := newFakeServer(t)
	run := runCommand(t, f)
	c := f.next()
	run.stdin.WriteString("~.\x03\x04")
	if got := c.receiveStream(wire.PayloadOutput).Payload; string(got) != "~.\x03\x04" {
		t.Errorf("got input %q", got)
	}
	run.stdin.Close()
	if diff := cmp.Diff(wire.ExecControl{Op: wire.ExecEOF}, c.control()); diff != "" {
		t.Error(diff)
	}
	c.send(0, wire.PayloadOutput, "out\x1b[?25l")
	c.send(1, wire.PayloadStdErr, "err")
	c.send(2, wire.PayloadHandshakeRequest, "{}") // has no place
	c.send(3, wire.PayloadExecControl, `{"Op":"exit","Status":7}`)
	c.receiveAcknowledgements(0, 1, 2, 3)
	c.closed("", nil)
	if end, err := run.wait(); err != nil || end.ExitStatus == nil || *end.ExitStatus != 7 {
		t.Errorf("got %+v, %v, want status 7", end, err)
	}
	if run.out.String() != "out\x1b[?25l" || run.errs.String() != "err" {
		t.Errorf("got output %q and errors %q", run.out, run.errs)
	}
}

func TestRunExecStatus(t *testing.T) {
	seven, usr1 := 7, 128+30 // as macOS has it
	for _, test := range []struct {
		name, exit string // the agent's word; empty for none
		output     string // the server's
		status     *int
		want       End
	}{
		{"exit", `{"Op":"exit","Status":7}`, "", nil, End{ExitStatus: &seven}},
		{"a signal, by its number there", `{"Op":"exit","Signal":"USR1"}`, "", &usr1, End{ExitStatus: &usr1}},
		{"a signal", `{"Op":"exit","Signal":"KILL","Core":true}`, "", nil, End{ExitStatus: number(137)}},
		{"a signal without a name", `{"Op":"exit","Signal":"34"}`, "", nil, End{ExitStatus: number(162)}},
		{"a signal that is none", `{"Op":"exit","Signal":"\u001b[2J"}`, "", nil, End{ExitStatus: number(128)}},
		{"not started: said on standard error", `{"Op":"exit","Status":127}`, "Unable to start command: x", nil, End{ExitStatus: number(127)}},
		{"said twice", `{"Op":"exit","Status":7}{"Op":"exit"}`, "", nil, End{}},
		{"ended by the server", "", "Session terminated by bob.", nil, End{Output: "Session terminated by bob."}},
		{"another operation", `{"Op":"eof"}`, "gone", nil, End{Output: "gone"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeServer(t)
			run := runCommand(t, f)
			c := f.next()
			if test.exit != "" {
				c.send(0, wire.PayloadExecControl, test.exit)
				c.receiveAcknowledgements(0)
			}
			c.closed(test.output, test.status)
			end, err := run.wait()
			if diff := cmp.Diff(test.want, end); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

func number(n int) *int { return &n }

// An agent that takes nothing holds the input back, in a bounded buffer.
func TestRunExecHoldsInputBack(t *testing.T) {
	f := newFakeServer(t)
	run := runCommand(t, f)
	f.next()
	sent := make(chan int, 1)
	run.stdin.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	go func() {
		n, _ := run.stdin.Write(make([]byte, 10<<20))
		sent <- n
	}()
	if n := <-sent; n > maxUnackedBytes+maxPayload+128<<10 {
		t.Errorf("%d bytes were taken though none arrived", n)
	}
}

// A command that ends while its input is still coming ends the client.
func TestRunExecEndsBeforeItsInput(t *testing.T) {
	f := newFakeServer(t)
	run := runCommand(t, f)
	c := f.next()
	run.stdin.WriteString("one")
	c.receiveStream(wire.PayloadOutput)
	c.send(0, wire.PayloadExecControl, `{"Op":"exit"}`)
	c.receiveAcknowledgements(0)
	run.stdin.WriteString("two") // nobody is left to read it
	c.closed("", number(0))
	if end, err := run.wait(); err != nil || *end.ExitStatus != 0 {
		t.Errorf("got %+v, %v, want status 0", end, err)
	}
}

// The first signal goes to the command; the second ends the client. One that comes twice
// at once, as from timeout(1), is one.
func TestRunExecSignals(t *testing.T) {
	f := newFakeServer(t)
	run := runCommand(t, f)
	c := f.next()
	run.stdin.WriteString("x")
	c.receiveStream(wire.PayloadOutput)
	interrupt := func() {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	interrupt()
	interrupt()
	if diff := cmp.Diff(wire.ExecControl{Op: wire.ExecSignal, Signal: "INT"}, c.control()); diff != "" {
		t.Error(diff)
	}
	time.Sleep(signalEcho)
	interrupt()
	var signalled *SignalError
	if end, err := run.wait(); !errors.As(err, &signalled) || signalled.Status != 130 {
		t.Errorf("got %+v, %v, want the end by a signal, status 130", end, err)
	}
}

// A link that breaks is brought back, and what was not acknowledged is sent again. One
// that cannot be brought back ends the command with an error that says so.
func TestRunExecResumes(t *testing.T) {
	f := newFakeServer(t)
	run := runCommand(t, f)
	c := f.next()
	run.stdin.WriteString("one")
	if got := c.receive(); string(got.Payload) != "one" {
		t.Fatalf("got %q", got.Payload)
	}
	c.drop() // unacknowledged
	c = f.next()
	if got := c.receiveStream(wire.PayloadOutput); string(got.Payload) != "one" || got.SequenceNumber != 0 {
		t.Errorf("got %d %q, want the same again", got.SequenceNumber, got.Payload)
	}
	f.mu.Lock()
	f.resume = func(int) (Stream, error) { return Stream{}, nil }
	f.mu.Unlock()
	c.drop()
	if end, err := run.wait(); !errors.Is(err, ErrTimedOut) {
		t.Errorf("got %+v, %v, want %v", end, err, ErrTimedOut)
	}
}

// Input that cannot be read is not taken for its end.
func TestRunExecUnreadableInput(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	f := newFakeServer(t)
	_, err = RunExec(t.Context(), f.config(), &Terminal{Stdin: dir, Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}})
	if err == nil || !strings.Contains(err.Error(), "reading standard input") {
		t.Errorf("got %v, want that input cannot be read", err)
	}
}

// Output that nobody takes ends the command.
func TestRunExecBrokenOutput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	f := newFakeServer(t)
	done := make(chan error, 1)
	go func() {
		_, err := RunExec(t.Context(), f.config(), &Terminal{Stdout: w, Stderr: w})
		done <- err
	}()
	f.next().send(0, wire.PayloadOutput, "x")
	if err := <-done; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %v, want %v", err, syscall.EPIPE)
	}
}

// What a node says of its end is nothing to trip over.
func FuzzExecControl(f *testing.F) {
	f.Add([]byte(`{"Op":"exit","Signal":"KILL"}`))
	f.Add([]byte(`{"Op":"exit","Status":-1}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		e := &execution{stopReading: func() {}}
		e.control(payload)
		end, err := e.ended(End{}, nil)
		if err != nil || (end.ExitStatus != nil) != (e.exit != nil) {
			t.Errorf("got %+v, %v", end, err)
		}
	})
}
