package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/internal/datakey"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// Bounds of a session's stream.
const (
	maxPayload    = 32 << 10 // bytes of a stream message
	windowCount   = 64       // messages in flight, unacknowledged
	windowBytes   = 2 << 20  // and their bytes
	maxPending    = 64 << 10 // bytes taken from the program and not yet numbered
	maxEarlyCount = 1024     // messages that came out of order
	maxEarlyBytes = 1 << 20
	maxAcks       = 8192 // acknowledgements waiting to be written

	// ackHold is how long an acknowledgement waits: a person waits for the echo, nobody
	// for the acknowledgement, which would compete with the echo for every processor
	// on the way if it followed at once. ackRush is the number that does not wait.
	ackHold = 3 * time.Millisecond
	ackRush = 8

	firstRTO = 200 * time.Millisecond
	minRTO   = 100 * time.Millisecond
	maxRTO   = time.Second
	maxWait  = 5 * time.Second // between resends of one message
)

// errTerminated is what the server answers for a session that it has ended.
var errTerminated = errors.New("session is already terminated")

// stream is the agent's end of a session's data channel: numbered, acknowledged
// messages over as many connections, one after the other, as it takes.
//
// One goroutine (run) connects and reads, one per connection (write) writes; whoever
// has output calls Send, which blocks while the window is full. Reading never waits
// for writing: two ends that both did would stop each other for good.
type stream struct {
	session string
	node    string
	now     func() time.Time
	// connect opens a connection and sends the opening message; first is true until
	// one has been opened.
	connect func(ctx context.Context, first bool) (*websocket.Conn, error)
	// deliver takes stream data in order. False means that there is no room now:
	// the message stays unacknowledged and the peer sends it again. One that was
	// acknowledged before its turn must be taken.
	deliver func(pt wire.PayloadType, payload []byte, must bool) bool
	// hold, where it is set and knows the type, takes stream data in deliver's place:
	// the message is acknowledged when taken is called, not before. Without taken it
	// must be kept. It returns whether it knows the type and whether there was room.
	hold func(pt wire.PayloadType, payload []byte, taken func()) (known, kept bool)
	// closed is called when the server closes the channel.
	closed   func()
	attached chan struct{}               // closed when the first connection is open
	key      atomic.Pointer[datakey.Key] // of a session that is encrypted, once it is agreed on
	wake     chan struct{}               // the writer has something to do; room for one
	progress chan struct{}               // something was acknowledged; room for one

	mu     sync.Mutex
	room   *sync.Cond // Send may go on
	ended  bool
	paused bool
	link   int // counts connections

	pending      []chunk // output not yet numbered
	pendingBytes int
	unacked      []*frame // in order of their numbers
	unackedBytes int
	nextSeq      int64
	states       []string // agent_session_state messages to send
	closing      bool     // close the connection once states are written
	acks         []ackOf
	acksDue      time.Time // when they are to be written

	expected   int64              // of the peer's stream
	owed       map[int64]struct{} // delivered but not taken: to be acknowledged then
	early      map[int64]early
	earlyBytes int

	rtt, rttvar, rto time.Duration
}

type chunk struct {
	pt   wire.PayloadType
	data []byte
}

// frame is a stream message in flight.
type frame struct {
	seq     int64
	encoded []byte
	link    int // the connection that it was last sent on; 0 is none
	sent    time.Time
	resends int
}

// ackOf is a message to acknowledge.
type ackOf struct {
	id  uuid.UUID
	seq int64
}

type early struct {
	pt      wire.PayloadType
	payload []byte
}

func newStream(session, node string, now func() time.Time) *stream {
	s := &stream{
		session: session, node: node, now: now, rto: firstRTO, rtt: 100 * time.Millisecond,
		attached: make(chan struct{}), wake: make(chan struct{}, 1), progress: make(chan struct{}, 1),
		states: []string{"Connected"},
	}
	s.room = sync.NewCond(&s.mu)
	return s
}

// run keeps the stream connected until it is finished, ctx ends or connect gives up.
func (s *stream) run(ctx context.Context) error {
	defer s.end()
	first := true
	for {
		conn, err := s.connect(ctx, first)
		if err != nil {
			return err
		}
		if first {
			close(s.attached)
			first = false
		}
		s.serve(ctx, conn)
		if s.finished() {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// serve uses one connection to its end.
func (s *stream) serve(ctx context.Context, conn *websocket.Conn) {
	stop := context.AfterFunc(ctx, conn.Abort)
	defer stop()
	link := s.relink()
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.write(conn, link)
	}()
	for {
		_, b, err := conn.Read()
		if err != nil {
			break
		}
		if m, err := wire.Decode(b); err == nil {
			s.receive(m)
		}
	}
	conn.Abort()
	s.unlink(link)
	<-written
}

// relink makes a new connection current: everything unacknowledged is due again.
func (s *stream) relink() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link++
	s.paused = false
	return s.link
}

// unlink tells the writer of a connection that is gone.
func (s *stream) unlink(link int) {
	s.mu.Lock()
	if s.link == link {
		s.link++
	}
	s.mu.Unlock()
	notify(s.wake)
}

// end lets go of whoever waits for the stream.
func (s *stream) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.room.Broadcast()
	notify(s.progress)
}

func (s *stream) finished() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing && len(s.states) == 0
}

// Send takes b for sending, in order, and returns when there is room for more. It
// reports false once the stream has ended.
func (s *stream) Send(pt wire.PayloadType, b []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(b) > 0 {
		for !s.ended && s.pendingBytes >= maxPending {
			s.room.Wait()
		}
		if s.ended {
			return false
		}
		b = b[s.appendLocked(pt, b):]
		notify(s.wake)
	}
	return !s.ended
}

// appendLocked adds to the last chunk or begins one, so that what cannot be sent yet
// gathers into full messages and what can be leaves at once.
func (s *stream) appendLocked(pt wire.PayloadType, b []byte) int {
	last := len(s.pending) - 1
	if last < 0 || s.pending[last].pt != pt || len(s.pending[last].data) >= maxPayload || !joinable(pt) {
		s.pending = append(s.pending, chunk{pt: pt})
		last++
	}
	c := &s.pending[last]
	n := min(len(b), maxPayload-len(c.data))
	c.data = append(c.data, b[:n]...)
	s.pendingBytes += n
	return n
}

// joinable reports whether payloads of a type are a stream of bytes: the others are
// one thing each.
func joinable(pt wire.PayloadType) bool {
	return pt == wire.PayloadOutput || pt == wire.PayloadStdErr || pt == wire.PayloadExecStreams
}

// write writes to one connection until it or the stream is done.
func (s *stream) write(conn *websocket.Conn, link int) {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		b, wait, done := s.next(link)
		switch {
		case done:
			conn.Close()
			return
		case b != nil:
			if conn.Write(websocket.Binary, b) != nil {
				conn.Abort()
				return
			}
			continue
		case wait >= 0:
			retry.Reset(wait)
		}
		select {
		case <-s.wake:
		case <-retry.C:
		case <-ping.C:
			if conn.Ping(keepalive) != nil {
				conn.Abort()
				return
			}
		}
	}
}

// next chooses what to write: acknowledgements that are due, then states, then what
// this connection has not carried yet, then what is overdue, then new output if the
// window has room. Without anything it returns how long to wait for what comes due
// next, negative for none. done says that the connection has no more use.
func (s *stream) next(link int) (b []byte, wait time.Duration, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != link {
		return nil, 0, true
	}
	hold := s.holdLocked()
	if hold == 0 {
		return s.ackLocked(), 0, false
	}
	if len(s.states) > 0 {
		return s.stateLocked(), 0, false
	}
	if s.closing {
		return nil, 0, true
	}
	if s.paused {
		return nil, hold, false
	}
	f, wait := s.dueLocked()
	if f == nil {
		f = s.numberLocked()
	}
	if f == nil {
		return nil, sooner(wait, hold), false
	}
	f.link, f.sent = s.link, s.now()
	return f.encoded, 0, false
}

// holdLocked returns how long acknowledgements may still wait, negative if there are
// none.
func (s *stream) holdLocked() time.Duration {
	switch {
	case len(s.acks) == 0:
		return -1
	case len(s.acks) >= ackRush, s.closing:
		return 0
	}
	return max(s.acksDue.Sub(s.now()), 0)
}

// sooner returns the shorter of two waits, of which negative ones are none.
func sooner(a, b time.Duration) time.Duration {
	if a < 0 || b >= 0 && b < a {
		return b
	}
	return a
}

func (s *stream) ackLocked() []byte {
	a := s.acks[0]
	if s.acks = s.acks[1:]; len(s.acks) == 0 {
		s.acks = nil
	}
	of := wire.Message{Type: wire.TypeInputStreamData, ID: a.id, SequenceNumber: a.seq}
	return wire.NewAcknowledge(&of, s.now()).Encode()
}

func (s *stream) stateLocked() []byte {
	m := wire.NewJSON(wire.TypeAgentSessionState, s.now(), wire.SessionState{
		SchemaVersion: 1, SessionState: s.states[0], SessionID: s.session,
	})
	m.Flags = wire.FlagSYN | wire.FlagFIN
	s.states = s.states[1:]
	return m.Encode()
}

// dueLocked returns the message to send again: any that this connection has not
// carried, or the oldest once its time is over; else when that will be.
func (s *stream) dueLocked() (*frame, time.Duration) {
	for _, f := range s.unacked {
		if f.link != s.link {
			f.resends++
			return f, 0
		}
	}
	if len(s.unacked) == 0 {
		return nil, -1
	}
	head := s.unacked[0]
	wait := head.sent.Add(min(s.rto<<min(head.resends, 8), maxWait)).Sub(s.now())
	if wait > 0 {
		return nil, wait
	}
	head.resends++
	return head, 0
}

// numberLocked makes a message of the oldest output if the window has room.
func (s *stream) numberLocked() *frame {
	if len(s.pending) == 0 || len(s.unacked) >= windowCount || s.unackedBytes >= windowBytes {
		return nil
	}
	c := s.pending[0]
	s.pending[0] = chunk{}
	if s.pending = s.pending[1:]; len(s.pending) == 0 {
		s.pending = nil
	}
	s.pendingBytes -= len(c.data)
	data := c.data
	if key := s.key.Load(); key != nil && c.pt.IsEncrypted(true) {
		data = key.Seal(true, data)
	}
	m := wire.NewStream(wire.TypeOutputStreamData, s.nextSeq, c.pt, s.now(), data)
	if s.nextSeq == 0 {
		m.Flags = wire.FlagSYN
	}
	f := &frame{seq: s.nextSeq, encoded: m.Encode()}
	s.nextSeq++
	s.unacked = append(s.unacked, f)
	s.unackedBytes += len(f.encoded)
	s.room.Broadcast()
	return f
}

// receive acts on one message of the peer.
func (s *stream) receive(m *wire.Message) {
	switch m.Type {
	case wire.TypeInputStreamData:
		s.input(m)
	case wire.TypeAcknowledge:
		var a wire.Acknowledge
		if json.Unmarshal(m.Payload, &a) == nil {
			s.acknowledged(a.SequenceNumber)
		}
	case wire.TypePausePublication:
		s.pause(true)
	case wire.TypeStartPublication:
		s.pause(false)
	case wire.TypeChannelClosed:
		var c wire.ChannelClosed
		if json.Unmarshal(m.Payload, &c) == nil {
			s.closed()
		}
	}
}

func (s *stream) pause(on bool) {
	s.mu.Lock()
	s.paused = on
	s.mu.Unlock()
	notify(s.wake)
}

// input takes one message of the peer's stream: in order it is delivered, ahead of
// its turn it is kept, and one that was had before is only acknowledged again.
func (s *stream) input(m *wire.Message) {
	s.mu.Lock()
	s.paused = false // a peer that sends is there to receive
	expected := s.expected
	_, owed := s.owed[m.SequenceNumber]
	s.mu.Unlock()
	switch seq := m.SequenceNumber; {
	case owed:
	case seq < expected:
		s.acknowledge(m.ID, seq)
	case seq > expected:
		if s.keep(m) {
			s.acknowledge(m.ID, seq)
		}
	case s.turn(m):
		s.advance()
	}
	notify(s.wake)
}

// turn delivers the message whose turn it is; false if there was no room for it.
func (s *stream) turn(m *wire.Message) bool {
	if s.hold != nil {
		if known, kept := s.holdMessage(m.PayloadType, m.Payload, m.ID, m.SequenceNumber); known {
			return kept
		}
	}
	if !s.deliver(m.PayloadType, m.Payload, false) {
		return false
	}
	s.acknowledge(m.ID, m.SequenceNumber)
	return true
}

func (s *stream) holdMessage(pt wire.PayloadType, b []byte, id uuid.UUID, seq int64) (known, kept bool) {
	s.owe(seq)
	known, kept = s.hold(pt, b, func() {
		s.settle(seq)
		s.acknowledge(id, seq)
		notify(s.wake)
	})
	if !known || !kept {
		s.settle(seq)
	}
	return known, kept
}

func (s *stream) owe(seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owed == nil {
		s.owed = make(map[int64]struct{})
	}
	s.owed[seq] = struct{}{}
}

func (s *stream) settle(seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.owed, seq)
}

// deliverEarly delivers a message that has been acknowledged already.
func (s *stream) deliverEarly(e early) {
	if s.hold != nil {
		if known, _ := s.hold(e.pt, e.payload, nil); known {
			return
		}
	}
	s.deliver(e.pt, e.payload, true)
}

// advance moves on past a delivered message and delivers what waited for it.
func (s *stream) advance() {
	s.mu.Lock()
	s.expected++
	e, ok := s.early[s.expected]
	s.mu.Unlock()
	for ok {
		s.deliverEarly(e)
		s.mu.Lock()
		delete(s.early, s.expected)
		s.earlyBytes -= len(e.payload)
		s.expected++
		e, ok = s.early[s.expected]
		s.mu.Unlock()
	}
}

// keep stores a message that came ahead of its turn; false if there is no room.
func (s *stream) keep(m *wire.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, had := s.early[m.SequenceNumber]; had {
		return true
	}
	if m.SequenceNumber-s.expected > maxEarlyCount || len(s.early) >= maxEarlyCount ||
		s.earlyBytes+len(m.Payload) > maxEarlyBytes {
		return false
	}
	if s.early == nil {
		s.early = make(map[int64]early)
	}
	s.early[m.SequenceNumber] = early{m.PayloadType, append([]byte(nil), m.Payload...)}
	s.earlyBytes += len(m.Payload)
	return true
}

func (s *stream) acknowledge(id uuid.UUID, seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.acks) == 0 {
		s.acksDue = s.now().Add(ackHold)
	}
	if len(s.acks) < maxAcks { // beyond that the peer sends again and is answered then
		s.acks = append(s.acks, ackOf{id, seq})
	}
}

// acknowledged removes a message from flight.
func (s *stream) acknowledged(seq int64) {
	s.mu.Lock()
	s.paused = false
	for i, f := range s.unacked {
		if f.seq != seq {
			continue
		}
		if f.resends == 0 {
			s.sampleLocked(s.now().Sub(f.sent))
		}
		s.unackedBytes -= len(f.encoded)
		s.unacked = append(s.unacked[:i], s.unacked[i+1:]...)
		break
	}
	s.mu.Unlock()
	notify(s.wake)
	notify(s.progress)
}

// sampleLocked follows the round trip time (docs/protocol.md §7).
func (s *stream) sampleLocked(r time.Duration) {
	s.rttvar = (3*s.rttvar + (s.rtt - r).Abs()) / 4
	s.rtt = (7*s.rtt + r) / 8
	s.rto = min(max(s.rtt+max(10*time.Millisecond, 4*s.rttvar), minRTO), maxRTO)
}

// drain waits until everything sent is acknowledged. It gives up when ctx ends, the
// stream does, or nothing has been acknowledged for the given time.
func (s *stream) drain(ctx context.Context, patience time.Duration) bool {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		s.mu.Lock()
		empty, ended := len(s.unacked) == 0 && len(s.pending) == 0, s.ended
		s.mu.Unlock()
		if empty || ended {
			return empty
		}
		select {
		case <-ctx.Done():
			return false
		case <-limit.C:
			return false
		case <-s.progress:
			limit.Reset(patience)
		}
	}
}

// finish says that the session is terminating, if it ended of itself, and then closes
// the connection; run returns.
func (s *stream) finish(say bool) {
	s.mu.Lock()
	s.closing = true
	if say {
		s.states = append(s.states, "Terminating")
	}
	s.mu.Unlock()
	notify(s.wake)
}

// dataChannel returns the connect function of a session's stream. The token that came
// with the session opens the first connection; every other one is asked for. It gives
// up on a first connection after firstAttach, on a later one after reattach.
func (a *Agent) dataChannel(id, token string, reattach time.Duration) func(ctx context.Context, first bool) (*websocket.Conn, error) {
	return func(ctx context.Context, first bool) (*websocket.Conn, error) {
		limit := reattach
		if first {
			limit = firstAttach
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		wait := backoff{min: minBackoff, max: maxReattach}
		for {
			conn, err := a.openData(ctx, id, token)
			token = ""
			if err == nil {
				return conn, nil
			}
			if strings.Contains(strings.ToLower(err.Error()), errTerminated.Error()) {
				return nil, errTerminated
			}
			if refused(err) {
				a.forget()
			}
			a.log.Info("opening data channel", "session", id, "error", err)
			if !wait.wait(ctx) {
				return nil, fmt.Errorf("setting up data channel with id %s failed: %w", id, err)
			}
		}
	}
}

// reattach is how long a session is kept whose data channel is lost. What the server has
// given up by then, with all that it knew of whether it is still allowed, nobody could
// end any more.
func (a *Agent) reattach(start wire.StartSession) time.Duration {
	if start.Reattach > 0 {
		return min(a.cfg.Reattach, time.Duration(start.Reattach)*time.Second)
	}
	return a.cfg.Reattach
}

const (
	firstAttach = 30 * time.Second
	maxReattach = 5 * time.Second
)

func (a *Agent) openData(ctx context.Context, id, token string) (*websocket.Conn, error) {
	e := a.endpoint()
	sign, err := a.signWith(ctx, e)
	if err != nil {
		return nil, err
	}
	if token == "" {
		if token, err = e.channelToken(ctx, "data-channel", id, sign); err != nil {
			return nil, err
		}
	}
	return e.dial(ctx, "/v1/data-channel/"+id, "role=publish_subscribe", sign, wire.Opening{
		MessageSchemaVersion: "1.0", RequestID: uuid.NewString(), TokenValue: token, ClientInstanceID: a.NodeID(),
	})
}
