package session

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"syscall"
	"time"

	"sallyport.dev/recording"
	"sallyport.dev/wire"
)

// tap counts a message that enters and takes down what is to be recorded. It returns
// what may pass, if anything.
func (s *live) tap(fromAgent bool, h wire.Header, data []byte) (passed []byte, ok bool) {
	if fromAgent {
		s.bytesOut.Add(int64(len(h.Payload)))
	} else {
		s.bytesIn.Add(int64(len(h.Payload)))
	}
	now := s.g.now()
	if s.isActivity(fromAgent, h) {
		s.active.Store(now.UnixNano())
	}
	if !fromAgent && s.row.SessionType == "Port" && isFlag(h, wire.FlagTerminateSession) {
		s.left.Store(true)
	}
	if s.encrypted != nil {
		return s.tapEncrypted(fromAgent, h, data, now)
	}
	if s.isMoreTimeKey(fromAgent, h) {
		return s.takeMoreTimeKey(data)
	}
	if fromAgent && h.PayloadType == wire.PayloadHandshakeRequest {
		if cause := s.misleads(h.Payload); cause != nil {
			s.end(cause)
			return nil, false
		}
	}
	if s.rec == nil && s.exec == nil {
		return data, true
	}
	// What is recorded must be what the receiver takes, and receivers drop a payload
	// that does not match its digest.
	var m wire.Message
	if err := m.Parse(data); err != nil {
		s.log.Warn("message with a bad digest", "error", err)
		return nil, false
	}
	if !s.speaks(fromAgent, h) {
		if s.strange.CompareAndSwap(false, true) {
			s.log.Warn("messages without a place in the session are emptied", "from_agent", fromAgent, "payload_type", h.PayloadType)
		}
		// Its number is needed, and nothing else of it.
		m.PayloadType, m.Payload = wire.PayloadOutput, nil
		return m.Encode(), true
	}
	if s.exec != nil {
		if err := s.exec.passes(fromAgent, h); err != nil {
			s.end(unfollowable(err))
			return nil, false
		}
	}
	if err := s.record(fromAgent, h, now); err != nil {
		s.end(recordingLost(err))
		return nil, false
	}
	return data, true
}

// misleads is why an agent's handshake must not reach the client of a session that is not
// to be encrypted, nil if it may.
func (s *live) misleads(payload []byte) *Cause {
	switch {
	case !s.isOwnKind(payload):
		return anotherKind()
	case asksForKey(payload):
		return unaskedEncryption()
	}
	return nil
}

// asksForKey reports whether an agent's handshake has the client encrypt the session.
// Clients do so with any key: what they then show nobody could record.
func asksForKey(payload []byte) bool {
	var request wire.HandshakeRequest
	if json.Unmarshal(payload, &request) != nil {
		return false
	}
	return slices.ContainsFunc(request.RequestedClientActions, func(a wire.RequestedAction) bool {
		return a.ActionType == wire.ActionKMSEncryption
	})
}

func unaskedEncryption() *Cause {
	return &Cause{
		Reason: ReasonAgentLost, Detail: "the agent asked for encryption that the session's document does not demand", Failed: true,
		Terminal: "The node asked for encryption that the session's document does not demand, so the session was ended.",
	}
}

// isOwnKind reports whether an agent's handshake is for the session's own type. Clients
// do what it says: one for a port, in a shell, would have them listen where the node
// likes, and one for a shell, in a forward, show what is not recorded.
func (s *live) isOwnKind(payload []byte) bool {
	var request wire.HandshakeRequest
	if json.Unmarshal(payload, &request) != nil {
		return false
	}
	for _, a := range request.RequestedClientActions {
		var p wire.SessionTypeParameters
		if a.ActionType != wire.ActionSessionType {
			continue
		}
		if json.Unmarshal(a.ActionParameters, &p) != nil || p.SessionType != s.row.SessionType {
			return false
		}
	}
	return true
}

func anotherKind() *Cause {
	return &Cause{
		Reason: ReasonAgentLost, Detail: "the agent began a session of another type", Failed: true,
		Terminal: "The node began another kind of session than was asked for, so it was ended.",
	}
}

// speaks reports whether a message may be in a recorded session. AWS's plugin shows
// the payload of any stream message, whatever its type, so that a node could show
// what is not recorded.
func (s *live) speaks(fromAgent bool, h wire.Header) bool {
	if s.exec != nil {
		return s.exec.speaks(fromAgent, h)
	}
	switch h.PayloadType {
	case wire.PayloadOutput:
		return true
	case wire.PayloadStdErr, wire.PayloadHandshakeRequest, wire.PayloadHandshakeComplete:
		return fromAgent
	case wire.PayloadExitCode:
		return fromAgent && s.row.SessionType == "NonInteractiveCommands" && exitCode.Match(h.Payload)
	case wire.PayloadSize, wire.PayloadFlag, wire.PayloadHandshakeResponse:
		return !fromAgent
	}
	return false
}

var exitCode = regexp.MustCompile(`^EXIT_CODE: -?[0-9]{1,10}$`)

func recordingLost(err error) *Cause {
	text := "The session cannot be recorded any more, so it has ended."
	if errors.Is(err, recording.ErrFull) {
		text = "The session cannot be recorded any more, because the store of recordings does not take them, so it has ended."
	}
	return &Cause{Reason: ReasonRecordingLost, Detail: whyNotRecorded(err), Failed: true, Terminal: text, err: err}
}

// recordingFull is ErrRecordingFull.
type recordingFull struct{}

// Error implements error.
func (recordingFull) Error() string { return "recordings cannot be kept now" }

// Unwrap returns ErrRecording.
func (recordingFull) Unwrap() error { return ErrRecording }

// whyNotRecorded is what those may learn of an error whose session it is: no file and no
// store.
func whyNotRecorded(err error) string {
	if full := (*recording.FullError)(nil); errors.As(err, &full) {
		return full.Why
	}
	var no syscall.Errno
	switch {
	case errors.Is(err, recording.ErrFull):
		return "there is no room"
	case errors.As(err, &no):
		return no.Error()
	}
	return "the server's log tells the cause"
}

func (s *live) record(fromAgent bool, h wire.Header, now time.Time) (err error) {
	switch {
	case s.rec == nil:
		return nil
	case fromAgent && isScreen(h.PayloadType):
		err = s.rec.Output(now, s.within(fromAgent, h.Payload))
	case fromAgent && h.PayloadType == wire.PayloadHandshakeComplete:
		var done wire.HandshakeComplete
		if json.Unmarshal(h.Payload, &done) != nil || done.CustomerMessage == "" {
			return nil
		}
		err = s.rec.Output(now, []byte(done.CustomerMessage+"\r\n")) // clients show it
	case !fromAgent && h.PayloadType == wire.PayloadSize:
		var size wire.TerminalSize
		if json.Unmarshal(h.Payload, &size) != nil || size.Cols > 0xffff || size.Rows > 0xffff {
			return nil
		}
		s.size.set(int(size.Cols), int(size.Rows))
		err = s.rec.Resize(now, int(size.Cols), int(size.Rows))
	case !fromAgent && h.PayloadType == wire.PayloadOutput && s.opts.RecordInput:
		err = s.rec.Input(now, s.within(fromAgent, h.Payload))
	default:
		return nil
	}
	s.unflushed.Store(true)
	return err
}

// within returns what of a payload is to be recorded: all of it in terminals, and as
// much as the limit leaves of what other programs write and read.
func (s *live) within(fromAgent bool, p []byte) []byte {
	switch {
	case s.exec == nil || s.exec.limit == nil:
		return p
	case fromAgent:
		return s.exec.limit.output.take(p)
	}
	return s.exec.limit.input.take(p)
}

// isActivity reports whether a message shows that the session is in use: stream data
// other than the size of the terminal, and the keep-alives of the multiplexer. Our client
// sends those while it has open connections; where no idle timeout was asked for, that
// counts as use, so that a forward does not end below a database connection that is
// silent for a while. AWS's client sends none to agents of our day.
func (s *live) isActivity(fromAgent bool, h wire.Header) bool {
	switch h.PayloadType {
	case wire.PayloadOutput:
		return s.row.SessionType != "Port" || !isKeepAlive(h.Payload) || s.opts.KeepInUse && !fromAgent
	case wire.PayloadStdErr, wire.PayloadFlag, wire.PayloadExitCode, wire.PayloadExecControl, wire.PayloadExecStreams:
		return true
	}
	return false
}

func isFlag(h wire.Header, value uint32) bool {
	return h.PayloadType == wire.PayloadFlag && len(h.Payload) == 4 && binary.BigEndian.Uint32(h.Payload) == value
}

// isKeepAlive reports whether a payload is one smux NOP frame: version, command 3,
// length and stream 0.
func isKeepAlive(p []byte) bool {
	return len(p) == 8 && (p[0] == 1 || p[0] == 2) && bytes.Equal(p[1:], []byte{3, 0, 0, 0, 0, 0, 0})
}
