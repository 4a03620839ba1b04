package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
)

const (
	// DefaultWindow is how many bytes of one stream the peer may have under way or
	// unread, in the extension.
	DefaultWindow = 512 << 10
	// DefaultBuffer is how many unread bytes of all streams stop Receive in plain smux,
	// which has no windows: it is what AWS's programs hold. DefaultExtendedBuffer is the
	// same where windows make a stream that nobody reads harmless to the others, until
	// there are very many of them.
	DefaultBuffer         = 4 << 20
	DefaultExtendedBuffer = 64 << 20
	// DefaultStreams is how many streams a peer may have open at once.
	DefaultStreams = 1024
)

// Errors of sessions and streams.
var (
	ErrClosed = errors.New("multiplexer closed")
	errLimit  = errors.New("too many connections at once")
)

// ResetError says that the peer ended a stream, or would not open it.
type ResetError struct {
	Reason string // the peer's words; may be empty
}

// Error implements error.
func (e *ResetError) Error() string {
	if e.Reason == "" {
		return "connection reset"
	}
	return e.Reason
}

// Config says how a session works. Zero numbers have the defaults named.
type Config struct {
	// Client says that this end opens the streams; else Accept is called, in a goroutine
	// of its own, for every stream that the peer opens.
	Client bool
	Accept func(*Stream)
	// Send sends bytes to the peer, in order, and blocks while there is no room. It
	// must not keep them. An error ends the session.
	Send func([]byte) error
	// Extended says that the peer is ours and knows the extension.
	Extended bool
	Window   int // DefaultWindow
	Buffer   int // DefaultBuffer, or DefaultExtendedBuffer
	Streams  int // DefaultStreams
}

// Session is one end of a multiplexed channel. Whoever has the channel calls Receive
// with what arrives, in order.
type Session struct {
	cfg Config

	sending sync.Mutex // held while a frame is sent; taken before mu, never after
	scratch []byte     // guarded by sending

	accepts sync.WaitGroup

	mu      sync.Mutex
	room    *sync.Cond // on mu: something was read, or the session is over
	streams map[uint32]*Stream
	serving int    // Accepts that run, also for streams that are gone
	last    uint32 // number of the last stream opened here
	unread  int    // bytes of all streams
	err     error  // why the session is over

	in input
}

// input is the frame that Receive is in the middle of; of its caller alone.
type input struct {
	head [headerSize]byte
	have int // bytes of head
	h    header
	left int    // bytes of data still to come
	ctl  []byte // data of a frame that is no PSH
	size int    // of what Receive was given
}

// New makes a session.
func New(cfg Config) *Session {
	if cfg.Window == 0 {
		cfg.Window = DefaultWindow
	}
	if cfg.Buffer == 0 {
		if cfg.Buffer = DefaultBuffer; cfg.Extended {
			cfg.Buffer = DefaultExtendedBuffer
		}
	}
	if cfg.Streams == 0 {
		cfg.Streams = DefaultStreams
	}
	s := &Session{cfg: cfg, streams: map[uint32]*Stream{}}
	s.room = sync.NewCond(&s.mu)
	if cfg.Client {
		s.last = 1
	}
	return s
}

// Open opens a stream. Data may be written at once; Answer waits for the peer's word.
func (s *Session) Open() (*Stream, error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return nil, s.err
	}
	if s.last+2 < s.last {
		s.mu.Unlock()
		return nil, errors.New("no stream numbers left")
	}
	s.last += 2
	st := newStream(s, s.last)
	s.streams[st.id] = st
	s.mu.Unlock()
	if err := s.sendLocked(cmdSYN, st.id, nil); err != nil {
		return nil, err
	}
	return st, nil
}

// Len returns the number of open streams.
func (s *Session) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// KeepAlive sends a frame that means nothing, which AWS's programs of some versions
// and load balancers want to see now and then.
func (s *Session) KeepAlive() error { return s.send(cmdNOP, 0, nil) }

// Close ends the session and all its streams, whose readers and writers are told err.
// It returns when no Accept is running any more.
func (s *Session) Close(err error) {
	s.fail(err)
	s.accepts.Wait()
}

// Err returns why the session is over, or nil.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *Session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	if s.err = err; err == nil {
		s.err = ErrClosed
	}
	for _, st := range s.streams {
		st.failLocked(s.err)
	}
	clear(s.streams)
	s.room.Broadcast()
}

// send sends one frame.
func (s *Session) send(cmd byte, stream uint32, data []byte) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.sendLocked(cmd, stream, data)
}

func (s *Session) sendLocked(cmd byte, stream uint32, data []byte) error {
	if err := s.Err(); err != nil {
		return err
	}
	s.scratch = appendFrame(s.scratch[:0], cmd, stream, data)
	if err := s.cfg.Send(s.scratch); err != nil {
		s.fail(err)
		return err
	}
	return nil
}

// Receive takes bytes of the peer, whose slice the session keeps. It blocks while too
// much is unread, but never for sending. An error is for good.
func (s *Session) Receive(b []byte) error {
	s.in.size = len(b)
	for len(b) > 0 {
		var err error
		if s.in.left > 0 {
			b, err = s.receiveData(b)
		} else {
			b, err = s.receiveHeader(b)
		}
		if err != nil {
			s.fail(err)
			return err
		}
	}
	return s.Err()
}

func (s *Session) receiveHeader(b []byte) (rest []byte, err error) {
	n := copy(s.in.head[s.in.have:], b)
	if s.in.have += n; s.in.have < headerSize {
		return nil, nil
	}
	s.in.have = 0
	if s.in.h, err = readHeader(s.in.head[:]); err != nil {
		return nil, err
	}
	s.in.left = s.in.h.length
	if s.in.left == 0 {
		return b[n:], s.control(s.in.h, nil)
	}
	return b[n:], s.expects(s.in.h)
}

// expects reports a violation if a frame may not have the data it announces.
func (s *Session) expects(h header) error {
	switch {
	case h.cmd == cmdPSH:
		return nil
	case !s.cfg.Extended:
	case h.cmd == cmdWindow && h.length == 4, h.cmd == cmdReset && h.length <= maxReason:
		return nil
	}
	return fmt.Errorf("%w: command %d with %d bytes", ErrProtocol, h.cmd, h.length)
}

func (s *Session) receiveData(b []byte) (rest []byte, err error) {
	n := min(len(b), s.in.left)
	s.in.left -= n
	if s.in.h.cmd == cmdPSH {
		return b[n:], s.data(s.in.h.stream, b[:n:n])
	}
	s.in.ctl = append(s.in.ctl, b[:n]...)
	if s.in.left > 0 {
		return nil, nil
	}
	ctl := s.in.ctl
	s.in.ctl = nil
	return b[n:], s.control(s.in.h, ctl)
}

// data gives bytes to their stream. Those of a stream that is gone are dropped.
func (s *Session) data(id uint32, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.unread >= s.cfg.Buffer && s.err == nil {
		s.room.Wait()
	}
	st := s.streams[id]
	if st == nil {
		return nil
	}
	return st.arriveLocked(b, len(b) < s.in.size/2)
}

// control acts on a frame that is no data.
func (s *Session) control(h header, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[h.stream]
	switch {
	case h.cmd == cmdNOP, h.cmd == cmdPSH:
	case h.cmd == cmdSYN:
		return s.acceptLocked(h.stream)
	case h.cmd == cmdFIN:
		if st != nil {
			st.finLocked()
		}
	case !s.cfg.Extended:
		return fmt.Errorf("%w: command %d", ErrProtocol, h.cmd)
	case h.cmd == cmdWindow && len(data) == 4:
		if st != nil {
			return st.grantLocked(binary.LittleEndian.Uint32(data))
		}
	case h.cmd == cmdReset:
		if st != nil {
			st.resetLocked(&ResetError{strings.ToValidUTF8(string(data), "?")})
		}
	case h.cmd == cmdOpened:
		if st != nil {
			st.answerLocked()
		}
	default:
		return fmt.Errorf("%w: command %d", ErrProtocol, h.cmd)
	}
	return nil
}

// acceptLocked begins a stream of the peer. One too many is refused, in its own
// goroutine since Receive must not send; a peer that goes on all the same is no peer.
// Streams that the peer gave up count for as long as their targets are being dialled.
func (s *Session) acceptLocked(id uint32) error {
	_, open := s.streams[id]
	switch {
	case s.err != nil:
		return s.err
	case s.cfg.Accept == nil:
		return fmt.Errorf("%w: the peer opens streams", ErrProtocol)
	case open:
		return fmt.Errorf("%w: stream %d is open", ErrProtocol, id)
	case s.serving >= 2*s.cfg.Streams:
		return errLimit
	}
	st := newStream(s, id)
	full := s.serving >= s.cfg.Streams
	s.streams[id] = st
	s.serving++
	s.accepts.Go(func() {
		defer s.served()
		if full {
			st.Refuse(errLimit.Error())
			return
		}
		s.cfg.Accept(st)
	})
	return nil
}

func (s *Session) served() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving--
}
