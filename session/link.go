package session

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// link is one end's connection.
type link struct {
	conn    conn
	role    role
	id      string // ClientId of the opening message: the same process comes back
	gone    bool   // replaced, failed or closed; guarded by the session's mu
	writing bool   // somebody takes from the flow and writes; guarded by the session's mu
	waiting bool   // the reader waits for room
	repeat  int64  // the last message that is repeated to this client, or -1
	writers sync.WaitGroup
	since   time.Time
	pinged  time.Time
	pinging atomic.Bool
	ended   chan struct{} // closed when the reader has returned
}

// attach makes conn the end's link and serves it until it is lost.
func (s *live) attach(conn conn, r role, opening wire.Opening) {
	l := &link{conn: conn, role: r, id: opening.ClientID, pinged: s.g.now(), since: s.g.now(), repeat: -1, ended: make(chan struct{})}
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
	s.mu.Lock()
	s.wakeLocked()
	s.mu.Unlock()
	err := s.readLoop(l)
	close(l.ended)
	s.detach(l)
	l.writers.Wait()
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
		s.agentSpan.end(nil)
		s.in.rewind()
		s.paused = false // agents forget it when they connect anew
	} else {
		old, s.client = s.client, l
		s.clientOnce = true
		s.clientSpan.end(nil)
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
		if s.onlyOnce() {
			s.g.start(func() { s.end(&Cause{Reason: ReasonClientGone}) })
		}
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

// toward returns the flow that a link's peer receives.
func (s *live) toward(l *link) *flow {
	if l.role == roleAgent {
		return &s.in
	}
	return &s.out
}

// wakeLocked starts a writer for each link that has something to write and none.
func (s *live) wakeLocked() {
	for _, l := range [...]*link{s.client, s.agent} {
		if s.idleLocked(l) {
			l.writing = true
			l.writers.Go(func() { s.write(l) })
		}
	}
}

// idleLocked reports whether something waits for a link that nobody writes to.
func (s *live) idleLocked(l *link) bool {
	return l != nil && !l.gone && !l.writing && !s.closed && !s.silentLocked(l) && s.toward(l).unwritten()
}

// write writes what is meant for a link's peer, as long as there is something.
func (s *live) write(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writeNextLocked(l) {
	}
	l.writing = false
}

// passOnLocked is wakeLocked for readers. What a person waits for, they write
// themselves, which spares it the way to another goroutine: one message, while little
// is on its way, to a connection whose buffer has room, so that reading never waits
// for the other end.
func (s *live) passOnLocked() {
	for _, l := range [...]*link{s.client, s.agent} {
		if s.idleLocked(l) && s.toward(l).bytes <= passBytes && l.conn.HasRoom() {
			l.writing = true
			s.writeNextLocked(l)
			l.writing = false
		}
	}
	s.wakeLocked()
}

// passBytes is how much may be unacknowledged for a reader to pass a message on.
const passBytes = 8 << 10

// writeNextLocked writes one message to a link, with mu let go meanwhile. It reports
// false when there is none, or the link is gone.
func (s *live) writeNextLocked(l *link) bool {
	if l.gone || s.closed || s.silentLocked(l) {
		return false
	}
	o, ok := s.toward(l).take()
	if !ok {
		return false
	}
	s.mu.Unlock()
	err := l.conn.Write(websocket.Binary, o.data)
	if err == nil && o.seq >= 0 && o.seq == l.repeat {
		err = l.conn.Ping(repeatPing(o.seq))
	}
	s.mu.Lock()
	if err != nil {
		l.gone = true
		return false // the reader finds the connection closed
	}
	if o.payload == wire.PayloadHandshakeComplete && l.role == roleClient {
		s.handshakeDone = s.g.now()
		s.hushLocked()
	}
	if s.cause.Load() != nil {
		s.settled.Broadcast()
	}
	return true
}

// settleTime is how long a client may take after its first message to be ready for
// the others, with much to spare.
const settleTime = 3 * time.Second

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
	s.out.presume(l.repeat, s.g.now().Sub(l.since) >= settleTime)
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
	s.wakeLocked()
}
