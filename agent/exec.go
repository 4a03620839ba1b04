package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"sallyport.dev/agent/shell"
	"sallyport.dev/wire"
)

// Sessions with an Exec (docs/protocol.md §28.4) run their program as an SSH server
// would: without a handshake, with end of input, signals and the way it ended told
// apart from data.

const (
	subsystemSFTP = "sftp"
	// notStarted is the status of a program that could not be started.
	notStarted = 127
	maxSignals = 16 // that came before the program runs
)

// execution is what an Exec has besides a session's program.
type execution struct {
	stdin *inlet
	auth  *inlet // bytes of the smux connection for the SSH agent

	mu      sync.Mutex
	started *shell.Process
	early   []syscall.Signal
}

func newExecution() *execution { return &execution{stdin: newInlet(), auth: newInlet()} }

// hold keeps the client's bytes until the program has taken them.
func (e *execution) hold(pt wire.PayloadType, b []byte, taken func()) (known, kept bool) {
	switch pt {
	case wire.PayloadOutput:
		return true, e.stdin.put(b, taken)
	case wire.PayloadExecStreams:
		return true, e.auth.put(b, taken)
	}
	return false, false
}

// close drops what nobody will take any more.
func (e *execution) close() {
	e.stdin.close()
	e.auth.close()
}

// signal passes a signal on, to the program that runs or will.
func (e *execution) signal(sig syscall.Signal) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.started != nil:
		e.started.Signal(sig)
	case len(e.early) < maxSignals:
		e.early = append(e.early, sig)
	}
}

// closeOutput lets the program find a broken pipe when it writes next.
func (e *execution) closeOutput() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.started != nil { // there was output already, or nobody would have stopped taking it
		e.started.CloseRead()
	}
}

// runs notes that the program runs.
func (e *execution) runs(p *shell.Process) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.started = p
	for _, sig := range e.early {
		p.Signal(sig)
	}
	e.early = nil
}

// execControl acts on what the client tells besides data; what is unknown is ignored.
func (s *session) execControl(b []byte) {
	var c wire.ExecControl
	if s.exec == nil || json.Unmarshal(b, &c) != nil {
		return
	}
	switch c.Op {
	case wire.ExecEOF:
		s.exec.stdin.end()
	case wire.ExecNoOutput:
		s.exec.closeOutput()
	case wire.ExecSignal:
		if sig := signalNumber(c.Signal); sig != 0 {
			s.exec.signal(sig)
		}
	}
}

// signalNumber returns the number of a signal named without SIG, 0 if there is none.
func signalNumber(name string) syscall.Signal {
	return unix.SignalNum("SIG" + strings.ToUpper(name))
}

// signalName is the name of a signal without SIG, or its number.
func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return fmt.Sprintf("%d", int(sig))
}

// serveExec runs a session's Exec.
func (s *session) serveExec(ctx context.Context, u shell.User, p plan) outcome {
	defer s.exec.close()
	e, err := s.execOf(p)
	if err != nil {
		return s.failedExec(ctx, err)
	}
	if s.start.Exec.ForwardAgent {
		sock, err := s.openAuthSocket(u)
		if err != nil {
			s.log.Warn("forwarding the SSH agent", "error", err) // the program does without
		} else {
			defer sock.close()
			e.AuthSocket = sock.path
		}
	}
	proc, err := s.opts.Exec(u, e)
	if err != nil {
		return s.failedExec(ctx, err)
	}
	s.runs(proc, e)
	s.wg.Go(func() { s.feedProgram(proc, p) })
	return s.attend(ctx, proc, func() { s.pumpExec(proc) }, s.sendExit)
}

// runs makes known that the program runs: to the client's signals, and to its sizes, of
// which one may have come since the terminal was opened.
func (s *session) runs(proc *shell.Process, e shell.Exec) {
	s.mu.Lock()
	s.proc = proc
	if t := e.Terminal; t != nil && s.size != (shell.Size{}) && s.size != t.Size {
		if err := proc.Resize(s.size); err != nil {
			s.log.Debug("resizing the terminal", "error", err)
		}
	}
	s.mu.Unlock()
	s.exec.runs(proc)
}

// execOf is the Exec that was asked for, as far as the document allows it.
func (s *session) execOf(p plan) (shell.Exec, error) {
	in := s.start.Exec
	e := shell.Exec{Command: in.Command, Words: in.Words, Environment: in.Environment}
	switch in.Subsystem {
	case "":
	case subsystemSFTP:
		e.SFTP = true
	default:
		return e, fmt.Errorf("there is no subsystem %q on this node: there is sftp", in.Subsystem)
	}
	if p.sessionType == typeNonInteractive && in.Terminal != nil {
		return e, errors.New("the session's document allows no terminal")
	}
	if p.sessionType != typeShell && e.Command == "" && !e.SFTP {
		e.Command = p.commands
	}
	if t := in.Terminal; t != nil && !e.SFTP {
		e.Terminal = &shell.Terminal{Term: t.Term, Modes: t.Modes, Size: s.sizeOf(t)}
	}
	return e, nil
}

// sizeOf is the terminal's size: the one asked for, unless the client has sent another
// meanwhile.
func (s *session) sizeOf(t *wire.ExecTerminal) shell.Size {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size != (shell.Size{}) {
		return s.size
	}
	return shell.Size{Cols: uint16(min(t.Cols, 0xffff)), Rows: uint16(min(t.Rows, 0xffff))}
}

// feedProgram gives the program its input, first the document's profile for shells.
func (s *session) feedProgram(proc *shell.Process, p plan) {
	if profile := p.profile(); profile != "" && s.start.Exec.Command == "" && s.start.Exec.Subsystem == "" {
		io.WriteString(proc, profile+"\n") // what is wrong with it shows right below
	}
	if err := s.exec.stdin.writeTo(proc); err != nil {
		s.log.Debug("the program takes no more input", "error", err)
	}
	proc.CloseWrite()
}

func (s *session) pumpExec(proc *shell.Process) {
	if s.start.Exec.Terminal != nil && s.start.Exec.Subsystem == "" {
		s.pump(proc.Read, wire.PayloadOutput, "")
		return
	}
	var both sync.WaitGroup
	both.Go(func() { s.pump(proc.ReadError, wire.PayloadStdErr, "") })
	s.pump(proc.Read, wire.PayloadOutput, "")
	both.Wait()
}

// sendExit tells the client how the program ended, behind all its output.
func (s *session) sendExit(e shell.Exit) {
	c := wire.ExecControl{Op: wire.ExecExit, Status: e.Status}
	if e.Signal != 0 {
		c = wire.ExecControl{Op: wire.ExecExit, Signal: signalName(e.Signal), Core: e.Core}
	}
	if err := s.sendJSON(wire.PayloadExecControl, c); err != nil {
		s.log.Debug("reporting the exit", "error", err)
	}
}

// failedExec tells the client what the completion tells the server.
func (s *session) failedExec(ctx context.Context, err error) outcome {
	s.stream.Send(wire.PayloadStdErr, []byte("Unable to start command: "+err.Error()+"\n"))
	s.sendExit(shell.Exit{Status: notStarted})
	s.stream.drain(ctx, drainPatience)
	return failed("Unable to start command: %v", err)
}
