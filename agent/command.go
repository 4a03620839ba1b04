package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"

	"sallyport.dev/agent/shell"
	"sallyport.dev/wire"
)

// handshakeWait is how long the client has to answer a handshake (docs/protocol.md,
// handshake).
const handshakeWait = 15 * time.Second

// prefixForm is what may be put before each piece of a command's output.
var prefixForm = regexp.MustCompile(`^[A-Za-z0-9\r\n_:-]{0,30}$`)

// serveCommand runs a NonInteractiveCommands session: a handshake, then a program
// without a terminal whose output, errors and exit status are told apart on demand.
func (s *session) serveCommand(ctx context.Context, u shell.User, p plan) outcome {
	if err := s.handshake(ctx, p); err != nil {
		return s.unshaken(ctx, err)
	}
	c := p.command
	separate := bool(c.SeparateOutputStream)
	if separate && !prefixForm.MatchString(c.StdOutPrefix) {
		return outcome{status: statusFailed, output: "invalid stdoutSeparatorPrefix " + c.StdOutPrefix}
	}
	if separate && !prefixForm.MatchString(c.StdErrPrefix) {
		return outcome{status: statusFailed, output: "invalid stderrSeparatorPrefix " + c.StdErrPrefix}
	}
	proc, err := s.opts.Command(u, p.commands, separate)
	if err != nil {
		return s.failedCommand(ctx, separate, err)
	}
	s.mu.Lock()
	s.proc = proc
	s.mu.Unlock()
	if !separate {
		return s.attend(ctx, proc, func() { s.pump(proc.Read, wire.PayloadOutput, "") }, nil)
	}
	return s.attend(ctx, proc, func() {
		var both sync.WaitGroup
		both.Go(func() { s.pump(proc.Read, wire.PayloadOutput, c.StdOutPrefix) })
		s.pump(proc.ReadError, wire.PayloadStdErr, c.StdErrPrefix)
		both.Wait()
	}, s.sendExitCode)
}

func (s *session) sendExitCode(e shell.Exit) {
	s.stream.Send(wire.PayloadExitCode, []byte("EXIT_CODE: "+strconv.Itoa(e.Status)))
}

// failedCommand tells the client what the completion tells the server.
func (s *session) failedCommand(ctx context.Context, separate bool, err error) outcome {
	out := failed("Unable to start command: %v", err)
	if separate {
		s.sendExitCode(shell.Exit{Status: 1})
	}
	s.stream.Send(wire.PayloadStdErr, []byte("Unable to start command: "+err.Error()+"\n"))
	s.stream.drain(ctx, drainPatience)
	return out
}

// handshake tells the client the session's type, and that it is to be encrypted where
// that is so, and waits for its consent.
func (s *session) handshake(ctx context.Context, p plan) error {
	parameters := wire.SessionTypeParameters{SessionType: p.sessionType, Properties: json.RawMessage("null")}
	if p.encrypted() {
		return s.shakeEncrypted(ctx, parameters, p.in.KMSKeyID)
	}
	_, err := s.shake(ctx, parameters)
	return err
}

// unshaken is the outcome of a session whose handshake failed.
func (s *session) unshaken(ctx context.Context, err error) outcome {
	if ctx.Err() != nil {
		return s.ended(ctx)
	}
	return failed("Encountered error while initiating handshake. %v", err)
}

// shake makes a handshake with the given parameters and returns the client's consent.
func (s *session) shake(ctx context.Context, parameters wire.SessionTypeParameters) (r wire.HandshakeResponse, err error) {
	began := time.Now()
	if r, err = s.askConsent(ctx, handshakeRequest(parameters)); err != nil {
		return r, err
	}
	return r, s.completeHandshake(began, "")
}

// completeHandshake lets the client begin; message is shown to its person.
func (s *session) completeHandshake(began time.Time, message string) error {
	return s.sendJSON(wire.PayloadHandshakeComplete, wire.HandshakeComplete{
		HandshakeTimeToComplete: time.Since(began).Nanoseconds(), CustomerMessage: message,
	})
}

// askConsent asks the client for what a handshake is about and returns its consent.
func (s *session) askConsent(ctx context.Context, request wire.HandshakeRequest) (r wire.HandshakeResponse, err error) {
	if err := s.sendJSON(wire.PayloadHandshakeRequest, request); err != nil {
		return r, err
	}
	limit := time.NewTimer(handshakeWait)
	defer limit.Stop()
	select {
	case <-ctx.Done():
		return r, context.Cause(ctx)
	case <-limit.C:
		return r, errors.New("the client did not answer: handshake timed out")
	case r = <-s.responses:
		return r, consent(r)
	}
}

func handshakeRequest(p wire.SessionTypeParameters) wire.HandshakeRequest {
	parameters, err := json.Marshal(p)
	if err != nil {
		panic("agent: encoding a handshake: " + err.Error())
	}
	return wire.HandshakeRequest{
		AgentVersion: ProtocolVersion,
		RequestedClientActions: []wire.RequestedAction{
			{ActionType: wire.ActionSessionType, ActionParameters: parameters},
		},
	}
}

func consent(r wire.HandshakeResponse) error {
	for _, a := range r.ProcessedClientActions {
		if a.ActionStatus != wire.ActionSuccess {
			return fmt.Errorf("%s failed on the client with status %d: %s", a.ActionType, a.ActionStatus, a.Error)
		}
	}
	return nil
}

func (s *session) sendJSON(pt wire.PayloadType, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if !s.stream.Send(pt, b) {
		return errors.New("the data channel is closed")
	}
	return nil
}

// handshakeResponse takes the client's answer; one that cannot be parsed stays
// unacknowledged.
func (s *session) handshakeResponse(b []byte) bool {
	var r wire.HandshakeResponse
	if json.Unmarshal(b, &r) != nil {
		return false
	}
	select {
	case s.responses <- r:
	default: // one was enough
	}
	return true
}

// interrupt passes on the one thing that a command without input understands.
func (s *session) interrupt(b []byte) {
	i := bytes.IndexAny(b, "\x03\x1c")
	s.mu.Lock()
	proc := s.proc
	s.mu.Unlock()
	if i < 0 || proc == nil {
		return
	}
	sig := syscall.SIGINT
	if b[i] == 0x1c {
		sig = syscall.SIGQUIT
	}
	proc.Signal(sig)
}
