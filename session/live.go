package session

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/recording"
	"sallyport.dev/wire"
)

// Options are properties of a session that only its home needs.
type Options struct {
	Record      bool `json:"record,omitempty"`
	RecordInput bool `json:"record_input,omitempty"`
	// Encrypted says that the ends encrypt the stream between them, so that nothing
	// can be read from it or put into it.
	Encrypted bool `json:"encrypted,omitempty"`
}

// live is a session that this member relays.
//
// Two goroutines serve each end's link while it lasts: one reads, one writes. What
// depends on time is done by tick, what ends the session by finish.
//
// Locks: a flow's entering is taken before mu. The gateway's locks are never taken
// under mu, except its leaf.
type live struct {
	g    *Gateway
	row  Session // as opened; State and what follows it are in the fields below
	opts Options
	rec  Recorder // nil where the session is not recorded
	task wire.StartSession
	log  sessionLog

	cause   atomic.Pointer[Cause] // set once: the session is ending
	done    chan struct{}         // closed when it has ended
	unserve func()                // stops answering other members

	active          atomic.Int64 // when something last happened, ns
	bytesIn         atomic.Int64
	bytesOut        atomic.Int64
	unflushed       atomic.Bool // the recording holds what is not written out
	flushing        atomic.Bool
	enterIn         sync.Mutex // held while messages of a client enter
	enterOut        sync.Mutex // held while messages of an agent enter
	mu              sync.Mutex
	in, out         flow       // client to agent, agent to client
	inRoom, outRoom *sync.Cond // a reader waits for the flow to shrink
	settled         *sync.Cond // finish waits for something to change

	client, agent  *link
	used           usedTokens
	asked          bool // the agent has asked for the data channel
	agentOnce      bool // the agent has opened the data channel at some time
	clientOnce     bool // the same of the client
	agentEnded     bool // the agent said that there is nothing more to come
	complete       *wire.TaskComplete
	handshakeDone  time.Time // when the client was sent HandshakeComplete
	paused         bool      // the agent was asked to pause
	agentAt        time.Time // since when the agent is away, or when the session opened
	clientAt       time.Time // the same for the client
	startedAt      time.Time // when the start was last sent
	warnedIdle     time.Time // activity that the last idle warning was about
	warnedDuration bool
	overdueAt      time.Time // when own messages were last repeated
	closed         bool      // channel_closed went out: nothing is relayed any more
	endedAt        time.Time
	saving, dirty  bool // the row is being written; must be written again
}

// link is one end's connection.
type link struct {
	conn    *websocket.Conn
	role    role
	id      string     // ClientId of the opening message: the same process comes back
	work    *sync.Cond // something to write, or gone
	gone    bool       // replaced, failed or closed; guarded by the session's mu
	waiting bool       // the reader waits for room
	repeat  int64      // the last message that is repeated to this client, or -1
	pinged  time.Time
	pinging atomic.Bool
	ended   chan struct{} // closed when the reader has returned
}

func newLive(g *Gateway, row Session, task wire.StartSession, opts Options) *live {
	s := &live{g: g, row: row, task: task, opts: opts, done: make(chan struct{}), used: usedTokens{}}
	s.log = sessionLog{g.log.With("session", row.ID, "node", row.NodeID)}
	s.inRoom, s.outRoom, s.settled = sync.NewCond(&s.mu), sync.NewCond(&s.mu), sync.NewCond(&s.mu)
	now := g.now()
	s.agentAt, s.clientAt = now, now
	s.active.Store(now.UnixNano())
	return s
}

// attach makes conn the end's link and serves it until it is lost.
func (s *live) attach(conn *websocket.Conn, r role, opening wire.Opening) {
	l := &link{conn: conn, role: r, id: opening.ClientID, pinged: s.g.now(), repeat: -1, ended: make(chan struct{})}
	l.work = sync.NewCond(&s.mu)
	old, late := s.enterLink(l)
	if late {
		s.refuseLate(l)
		return
	}
	if old != nil {
		s.supersede(old, l)
	}
	s.save()
	conn.OnPong(func(p []byte) { s.pong(l, p) })
	var wg sync.WaitGroup
	wg.Go(func() { s.writeLoop(l) })
	err := s.readLoop(l)
	close(l.ended)
	s.detach(l)
	wg.Wait()
	s.save()
	s.log.Debug("link lost", "role", string(r), "cause", err)
}

// refuseLate tells a client that came after the end why it ended.
func (s *live) refuseLate(l *link) {
	if l.role != roleClient {
		return
	}
	l.conn.SetReadDeadline(time.Now().Add(farewell))
	l.conn.SetWriteDeadline(time.Now().Add(farewell))
	cause := s.cause.Load()
	if s.writeClosed(l, cause.Terminal, cause.Exit) != nil {
		return
	}
	for {
		if _, _, err := l.conn.Read(); err != nil {
			return
		}
	}
}

// enterLink puts l in its place and returns the link that was there. It is too late
// for that once the end has been announced.
func (s *live) enterLink(l *link) (old *link, late bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, true
	}
	if l.role == roleAgent {
		old, s.agent = s.agent, l
		s.asked, s.agentOnce = true, true
		s.in.rewind()
		s.paused = false // agents forget it when they connect anew
	} else {
		old, s.client = s.client, l
		s.clientOnce = true
		s.out.rewind()
		l.repeat = s.out.lastRepeat()
	}
	if old != nil {
		s.leaveLocked(old)
	}
	s.settled.Broadcast()
	return old, false
}

// supersede closes a replaced link. A client of another process is told, so that it
// does not come back; the same one knows.
func (s *live) supersede(old, by *link) {
	if old.role == roleAgent || old.id == by.id || !s.handshakeCold() {
		old.conn.Abort()
		return
	}
	s.g.start(func() {
		old.conn.SetWriteDeadline(time.Now().Add(farewell))
		s.writeClosed(old, "The session was resumed elsewhere.", nil)
		old.conn.Close()
	})
}

// leaveLocked makes everybody who waits on a link look up.
func (s *live) leaveLocked(l *link) {
	l.gone = true
	l.work.Broadcast()
	s.inRoom.Broadcast()
	s.outRoom.Broadcast()
	s.settled.Broadcast()
}

// detach takes a lost link out of its place.
func (s *live) detach(l *link) {
	l.conn.Abort()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveLocked(l)
	switch l {
	case s.client:
		s.client, s.clientAt = nil, s.g.now()
	case s.agent:
		s.agent, s.agentAt = nil, s.g.now()
	}
}

// readLoop takes in what a link's peer sends until the link is lost.
func (s *live) readLoop(l *link) error {
	for {
		_, data, err := l.conn.Read()
		if err != nil {
			return err
		}
		h, err := wire.Peek(data)
		if err != nil {
			s.log.Debug("message dropped", "role", string(l.role), "error", err)
			continue
		}
		if l.role == roleAgent {
			s.fromAgent(l, h, data)
		} else {
			s.fromClient(l, h, data)
		}
	}
}

func (s *live) fromAgent(l *link, h wire.Header, data []byte) {
	switch h.Type {
	case wire.TypeOutputStreamData:
		s.enter(l, &s.enterOut, &s.out, s.outRoom, h, data)
	case wire.TypeAcknowledge:
		s.acknowledged(&s.in, &s.out, h, data)
	case wire.TypeAgentSessionState:
		s.agentState(h.Payload)
	}
}

func (s *live) fromClient(l *link, h wire.Header, data []byte) {
	switch h.Type {
	case wire.TypeInputStreamData:
		s.enter(l, &s.enterIn, &s.in, s.inRoom, h, data)
	case wire.TypeAcknowledge:
		s.acknowledged(&s.out, &s.in, h, data)
	}
}

// enter takes a stream message into its flow: waits for room, puts it in order,
// takes it down and wakes the writer.
func (s *live) enter(l *link, entering *sync.Mutex, f *flow, room *sync.Cond, h wire.Header, data []byte) {
	entering.Lock()
	defer entering.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	l.waiting = true
	for f.bytes >= s.g.cfg.Buffer && !l.gone && !s.closed {
		room.Wait()
	}
	l.waiting = false
	if l.gone || s.closed {
		return
	}
	switch f.classify(h.SequenceNumber) {
	case arrivedInTurn:
		s.enterTurnLocked(f, bytes.Clone(data))
		for next, ok := f.held(); ok; next, ok = f.held() {
			s.enterTurnLocked(f, next)
		}
	case arrivedEarly:
		f.hold(h.SequenceNumber, bytes.Clone(data))
	case arrivedAgain:
		f.resend(h.SequenceNumber)
	case arrivedTwice:
		s.acknowledgeAgainLocked(f, data)
	}
	s.wakeLocked()
	s.regulateLocked()
}

// enterTurnLocked enters the message whose turn it is. What is recorded is recorded
// before it is passed on; mu is let go for that, while entering keeps the order.
func (s *live) enterTurnLocked(f *flow, data []byte) {
	h, err := wire.Peek(data)
	if err != nil {
		return
	}
	s.mu.Unlock()
	ok := s.tap(f == &s.out, h, data)
	s.mu.Lock()
	if ok && !s.closed {
		f.push(data)
	}
}

// acknowledgeAgainLocked answers the repetition of a message whose acknowledgement
// the sender has missed: the receiver gave one, and gives no second.
func (s *live) acknowledgeAgainLocked(f *flow, data []byte) {
	m, err := wire.Decode(data)
	if err != nil {
		return
	}
	back := &s.in
	if f == &s.in {
		back = &s.out
	}
	back.acknowledge(wire.NewAcknowledge(m, s.g.now()).Encode())
}

// wakeLocked wakes the writers that have something to write.
func (s *live) wakeLocked() {
	if s.client != nil && s.out.unwritten() {
		s.client.work.Signal()
	}
	if s.agent != nil && s.in.unwritten() {
		s.agent.work.Signal()
	}
}

// acknowledged handles an acknowledgement: the receiver of f sent it, and it goes
// back to the sender of f, along with back.
func (s *live) acknowledged(f, back *flow, h wire.Header, data []byte) {
	seq, ok := ackedSequence(h.Payload)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	origin, ours, known := f.acked(seq)
	if !known {
		return
	}
	if !ours && !s.closed {
		back.acknowledge(shiftAck(data, seq, origin))
	}
	s.wakeLocked()
	s.regulateLocked()
	if f == &s.in {
		s.inRoom.Signal()
	} else {
		s.outRoom.Signal()
	}
	if s.cause.Load() != nil {
		s.settled.Broadcast()
	}
}

var ackField = []byte(`"AcknowledgedMessageSequenceNumber":`)

// ackedSequence reads the number of the acknowledged message. Both official programs
// write the field without spaces, which is worth a shortcut for every message.
func ackedSequence(payload []byte) (int64, bool) {
	if i := bytes.Index(payload, ackField); i >= 0 {
		rest := payload[i+len(ackField):]
		if j := bytes.IndexAny(rest, ",}"); j > 0 {
			if n, err := strconv.ParseInt(string(rest[:j]), 10, 64); err == nil {
				return n, true
			}
		}
	}
	var ack wire.Acknowledge
	if json.Unmarshal(payload, &ack) != nil {
		return 0, false
	}
	return ack.SequenceNumber, true
}

// shiftAck returns a copy of an acknowledgement with the number that the sender of
// the message knows it by.
func shiftAck(data []byte, seq, origin int64) []byte {
	if seq == origin {
		return bytes.Clone(data)
	}
	m, err := wire.Decode(data)
	if err != nil {
		return bytes.Clone(data)
	}
	var ack wire.Acknowledge
	if json.Unmarshal(m.Payload, &ack) != nil {
		return bytes.Clone(data)
	}
	ack.SequenceNumber = origin
	m.Payload, _ = json.Marshal(ack) // strings and numbers always encode
	return m.Encode()
}

// writeLoop writes what is meant for a link's peer until the link is lost.
func (s *live) writeLoop(l *link) {
	f := &s.out
	if l.role == roleAgent {
		f = &s.in
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for !l.gone {
		var o outgoing
		ok := false
		if !s.closed {
			o, ok = f.take()
		}
		if !ok {
			l.work.Wait()
			continue
		}
		s.mu.Unlock()
		err := l.conn.Write(websocket.Binary, o.data)
		if err == nil && o.seq >= 0 && o.seq == l.repeat {
			err = l.conn.Ping(repeatPing(o.seq))
		}
		s.mu.Lock()
		if err != nil {
			l.gone = true
			return // the reader finds the connection closed
		}
		if o.payload == wire.PayloadHandshakeComplete && l.role == roleClient {
			s.handshakeDone = s.g.now()
		}
		if s.cause.Load() != nil {
			s.settled.Broadcast()
		}
	}
}

// repeatPing is the payload of the ping behind the last repeated message: its pong
// says that the client has read them all.
func repeatPing(seq int64) []byte { return fmt.Appendf(nil, "repeat %d", seq) }

// pong takes the word of a terminal's client that it has read what was repeated. The
// clients of ports are not asked: they leave messages unread by choice.
func (s *live) pong(l *link, payload []byte) {
	if l.repeat < 0 || s.row.SessionType == "Port" || !bytes.Equal(payload, repeatPing(l.repeat)) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.gone {
		return
	}
	s.out.presume(l.repeat)
	s.outRoom.Signal()
	s.regulateLocked()
	s.settled.Broadcast()
}

// regulateLocked asks the agent to pause when its output piles up, and to go on when
// it has gone down. Only sessions that read from a terminal can be paused; AWS's
// agent takes a pause for an error in others.
func (s *live) regulateLocked() {
	if s.agent == nil || s.closed {
		return
	}
	pausable := s.row.SessionType == "Standard_Stream" || s.row.SessionType == "InteractiveCommands"
	switch {
	case !s.paused && pausable && s.out.bytes > s.g.cfg.Buffer/2:
		s.paused = true
		s.in.acknowledge(wire.New(wire.TypePausePublication, s.g.now(), []byte("{}")).Encode())
	case s.paused && s.out.bytes < s.g.cfg.Buffer/4:
		s.paused = false
		s.in.acknowledge(wire.New(wire.TypeStartPublication, s.g.now(), []byte("{}")).Encode())
	default:
		return
	}
	s.agent.work.Signal()
}

// tap counts a message that enters and takes down what is to be recorded. It reports
// whether the message may pass.
func (s *live) tap(fromAgent bool, h wire.Header, data []byte) bool {
	if fromAgent {
		s.bytesOut.Add(int64(len(h.Payload)))
	} else {
		s.bytesIn.Add(int64(len(h.Payload)))
	}
	now := s.g.now()
	if isActivity(s.row.SessionType, h) {
		s.active.Store(now.UnixNano())
	}
	if s.rec == nil {
		return true
	}
	// What is recorded must be what the receiver takes, and receivers drop a payload
	// that does not match its digest.
	if _, err := wire.Decode(data); err != nil {
		s.log.Warn("message with a bad digest", "error", err)
		return false
	}
	if err := s.record(fromAgent, h, now); err != nil {
		s.end(recordingLost(err))
		return false
	}
	return true
}

func recordingLost(err error) *Cause {
	return &Cause{
		Reason: ReasonRecordingLost, Detail: err.Error(), Failed: true,
		Terminal: "The session cannot be recorded any more, so it has ended.",
	}
}

func (s *live) record(fromAgent bool, h wire.Header, now time.Time) (err error) {
	switch {
	case fromAgent && isScreen(h.PayloadType):
		err = s.rec.Output(now, h.Payload)
	case !fromAgent && h.PayloadType == wire.PayloadSize:
		var size wire.TerminalSize
		if json.Unmarshal(h.Payload, &size) != nil || size.Cols > 0xffff || size.Rows > 0xffff {
			return nil
		}
		err = s.rec.Resize(now, int(size.Cols), int(size.Rows))
	case !fromAgent && h.PayloadType == wire.PayloadOutput && s.opts.RecordInput:
		err = s.rec.Input(now, h.Payload)
	default:
		return nil
	}
	s.unflushed.Store(true)
	return err
}

// isActivity reports whether a message shows that the session is in use: stream data
// other than the size of the terminal, and the keep-alives of the multiplexer.
func isActivity(sessionType string, h wire.Header) bool {
	switch h.PayloadType {
	case wire.PayloadOutput:
		return sessionType != "Port" || !isKeepAlive(h.Payload)
	case wire.PayloadStdErr, wire.PayloadFlag, wire.PayloadExitCode:
		return true
	}
	return false
}

// isKeepAlive reports whether a payload is one smux NOP frame: version, command 3,
// length and stream 0.
func isKeepAlive(p []byte) bool {
	return len(p) == 8 && (p[0] == 1 || p[0] == 2) && bytes.Equal(p[1:], []byte{3, 0, 0, 0, 0, 0, 0})
}

// agentState notes that the agent's program has ended. What the program left behind
// came before this on the same connection.
func (s *live) agentState(payload []byte) {
	var st wire.SessionState
	if json.Unmarshal(payload, &st) != nil || st.SessionState != "Terminating" {
		return
	}
	s.mu.Lock()
	s.agentEnded = true
	s.settled.Broadcast()
	s.mu.Unlock()
	s.end(&Cause{Reason: ReasonExit})
}

// taskComplete applies the agent's report of the end.
func (s *live) taskComplete(done wire.TaskComplete) {
	if done.InstanceID != s.row.NodeID {
		s.log.Warn("end reported by another node", "by", done.InstanceID)
		return
	}
	s.mu.Lock()
	if s.complete == nil {
		s.complete = &done
	}
	s.settled.Broadcast()
	s.mu.Unlock()
	cause := &Cause{Reason: ReasonExit, Terminal: done.Output, Exit: done.ExitStatus}
	if done.FinalTaskStatus == "Failed" {
		cause.Reason, cause.Failed = ReasonFailed, true
		cause.Detail = clip(done.Output)
	}
	s.end(cause)
}

// clip shortens a text that a node sent, for rows and logs.
func clip(text string) string {
	const most = 500
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// save brings the row up to date, in the background and as often as needed.
func (s *live) save() {
	s.mu.Lock()
	busy := s.saving
	s.saving, s.dirty = true, busy
	s.mu.Unlock()
	if !busy && !s.g.start(s.saveLoop) {
		s.mu.Lock()
		s.saving = false
		s.mu.Unlock()
	}
}

func (s *live) saveLoop() {
	for {
		s.saveOnce()
		s.mu.Lock()
		again := s.dirty
		s.dirty, s.saving = false, again
		s.mu.Unlock()
		if !again {
			return
		}
	}
}

func (s *live) saveOnce() {
	state := s.state()
	if !state.Active() {
		return // finish writes the last word
	}
	ctx, cancel := context.WithTimeout(s.g.ctx, storeTimeout)
	defer cancel()
	changed, err := s.g.cfg.Store.UpdateSession(ctx, s.row.ID, func(row *Session) error {
		row.State = state
		row.BytesIn, row.BytesOut = s.bytesIn.Load(), s.bytesOut.Load()
		return nil
	})
	switch {
	case err != nil:
		s.log.Error("saving session", "error", err)
	case !changed && s.cause.Load() == nil:
		s.end(&Cause{Reason: ReasonMemberLost, Detail: "ended by another member", Failed: true, Terminal: "The session was ended by the server."})
	}
}

// state derives the session's state from what is attached.
func (s *live) state() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.endedAt.IsZero():
		return s.cause.Load().state()
	case s.cause.Load() != nil:
		return StateTerminating
	case !s.agentOnce, !s.clientOnce:
		return StateConnecting
	case s.client == nil:
		return StateDisconnected
	}
	return StateConnected
}

// open starts a session on a node connected here, on behalf of any member.
func (g *Gateway) open(ctx context.Context, c *control, req request) error {
	if req.Session == nil || req.Start == nil {
		return fmt.Errorf("opening session: session or start is missing")
	}
	s := newLive(g, *req.Session, *req.Start, req.Options)
	s.task.DataChannelToken = g.newToken(roleAgent, s.row.ID)
	if err := s.openRecording(); err != nil {
		return err
	}
	if err := s.enterGateway(ctx); err != nil {
		s.abandon(err)
		return err
	}
	g.counters.started.Add(1)
	s.log.Info("session opened", "principal", s.row.Owner, "document", s.row.Document)
	s.sendStart(c)
	return nil
}

func (s *live) openRecording() error {
	if !s.opts.Record {
		return nil
	}
	if s.g.cfg.Record == nil || s.opts.Encrypted {
		return fmt.Errorf("%w: its ends encrypt it, or recordings have no place", ErrRecording)
	}
	rec, name, err := s.g.cfg.Record(s.row)
	if err != nil {
		s.log.Error("opening recording", "error", err)
		return fmt.Errorf("%w: %w", ErrRecording, err)
	}
	s.rec, s.row.Recording = rec, name
	return nil
}

// enterGateway makes the session known: in the store, in the audit log, on its
// subject and here.
func (s *live) enterGateway(ctx context.Context) error {
	g := s.g
	changed, err := g.cfg.Store.UpdateSession(ctx, s.row.ID, func(row *Session) error {
		row.Member, row.Recording = g.cfg.Cluster.Member(), s.row.Recording
		return nil
	})
	if err != nil {
		return fmt.Errorf("saving session: %w", err)
	}
	if !changed {
		return ErrEnded
	}
	if err := g.audit(ctx, audit.EventSessionStart, s.row, s.row.Reason, nil); err != nil {
		return err
	}
	stop, err := g.cfg.Cluster.Serve(subjectOf(s.row.ID), func(ctx context.Context, data []byte) ([]byte, error) {
		return s.serve(data), nil
	})
	if err != nil {
		return fmt.Errorf("serving session: %w", err)
	}
	s.unserve = stop
	g.mu.Lock()
	g.sessions[s.row.ID] = s
	g.mu.Unlock()
	return nil
}

// abandon undoes openRecording when the session does not begin.
func (s *live) abandon(err error) {
	close(s.done)
	s.g.mu.Lock()
	delete(s.g.sessions, s.row.ID)
	s.g.mu.Unlock()
	if s.rec != nil {
		s.rec.Close(recording.End{Reason: err.Error(), Ended: s.g.now()})
	}
}

// serve answers members that want something of this session.
func (s *live) serve(data []byte) []byte {
	var req request
	if err := json.Unmarshal(data, &req); err != nil {
		return replyFor(fmt.Errorf("decoding request: %w", err))
	}
	switch {
	case req.Op == "end" && req.Cause != nil:
		s.end(req.Cause)
		return replyFor(nil)
	case req.Op == "complete" && req.Complete != nil:
		s.taskComplete(*req.Complete)
		return replyFor(nil)
	}
	return replyFor(fmt.Errorf("unknown request %q", req.Op))
}

// sendStart asks the agent to start the session.
func (s *live) sendStart(c *control) {
	s.mu.Lock()
	s.startedAt = s.g.now()
	s.mu.Unlock()
	if err := c.send(s.startMessage()); err != nil {
		s.log.Info("starting session", "error", err)
	}
}

func (s *live) startMessage() *wire.Message {
	content, _ := json.Marshal(s.task) // of strings and JSON that was checked
	return wire.NewJSON(wire.TypeInteractiveShell, s.g.now(), wire.ControlTask{
		Content: string(content), TaskID: s.row.ID, Topic: wire.TypeInteractiveShell, SchemaVersion: 1,
	})
}

// repeatStart sends the start again while the agent has not answered it: agents drop
// what comes in the first seconds of a control channel.
func (s *live) repeatStart() {
	s.mu.Lock()
	needed := !s.asked && s.cause.Load() == nil
	if needed {
		s.startedAt = s.g.now()
	}
	s.mu.Unlock()
	if !needed {
		return
	}
	ctx, cancel := context.WithTimeout(s.g.ctx, storeTimeout)
	defer cancel()
	if err := s.g.sendControl(ctx, s.row.NodeID, s.startMessage()); err != nil {
		s.log.Info("repeating the start", "error", err)
	}
}
