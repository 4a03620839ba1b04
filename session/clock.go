package session

import (
	"log/slog"
	"time"

	"sallyport.dev/wire"
)

// sessionLog is the logger of one session, with its ids.
type sessionLog struct{ *slog.Logger }

const (
	// pingLink is how often data channels are pinged, to keep middle boxes awake and
	// to find dead peers. farewell bounds the last words to an end.
	pingLink = 20 * time.Second
	farewell = 2 * time.Second
	// agentSilence is how long an agent's link may stay silent, pings included.
	agentSilence = 60 * time.Second
	// flushEvery is how often the recording of a busy session is written out: what was shown
	// is to outlive a crash after a second, and each time costs a frame and a write.
	flushEvery = 500 * time.Millisecond
	// overdueAfter is when the gateway repeats its own unacknowledged messages.
	overdueAfter = time.Second
)

// tick looks at everything in the session that depends on time.
func (s *live) tick(now time.Time) {
	if s.cause.Load() == nil {
		if cause := s.overtime(now); cause != nil {
			s.end(cause)
		}
		s.warn(now)
		s.warnDeadline(now)
		s.startAgain(now)
	} else if s.tooLong(now) { // while what its agent left is shown
		s.end(longest(s.row.MaxDuration))
	} else if s.overdue(now) {
		s.end(s.timeUp())
	}
	s.keepLinks(now)
	s.tickWatches(now)
	s.unhush(now)
	s.flush(now)
	if s.bulk != nil {
		s.bulk.expire(now)
	}
}

// overtime returns the cause of an end by the clock, if the time has come.
func (s *live) overtime(now time.Time) *Cause {
	if s.overdue(now) {
		return s.timeUp()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cfg := &s.g.cfg
	switch {
	case !s.agentOnce && now.Sub(s.row.Started) >= cfg.StartTimeout:
		return &Cause{
			Reason: ReasonStartTimeout, Failed: true,
			Terminal: "The node did not start the session within " + in(cfg.StartTimeout) + "; its agent's log may say why.",
		}
	case s.client == nil && now.Sub(s.clientAt) >= cfg.DisconnectGrace:
		return &Cause{Reason: ReasonClientGone, Detail: "for " + in(cfg.DisconnectGrace)}
	case s.agentOnce && s.agent == nil && now.Sub(s.agentAt) >= cfg.AgentGrace:
		return &Cause{
			Reason: ReasonAgentLost, Failed: true,
			Terminal: "The connection to the node was lost and did not come back within " + in(cfg.AgentGrace) + ".",
		}
	case s.idleFor(now) >= s.idleTimeout():
		return &Cause{Reason: ReasonIdle, Terminal: "The session was idle for " + in(s.idleTimeout()) + "."}
	case s.tooLong(now):
		return longest(s.row.MaxDuration)
	}
	return nil
}

func (s *live) tooLong(now time.Time) bool {
	return s.row.MaxDuration > 0 && now.Sub(s.row.Started) >= s.row.MaxDuration
}

func longest(d time.Duration) *Cause {
	return &Cause{Reason: ReasonMaxDuration, Terminal: "The session has reached its longest duration, " + in(d) + "."}
}

func (s *live) idleTimeout() time.Duration {
	if s.row.IdleTimeout > 0 {
		return s.row.IdleTimeout
	}
	return s.g.cfg.IdleTimeout
}

func (s *live) idleFor(now time.Time) time.Duration {
	return now.Sub(time.Unix(0, s.active.Load()))
}

// warning is how long before an end by the clock the person is told: a minute, or a
// fifth of the whole where that is less.
func warning(whole time.Duration) time.Duration { return min(time.Minute, whole/5) }

// warn writes into the terminal that the session is about to end.
func (s *live) warn(now time.Time) {
	active := time.Unix(0, s.active.Load())
	idle, whole := s.idleTimeout(), s.row.MaxDuration
	s.mu.Lock()
	warnIdle := now.Sub(active) >= idle-warning(idle) && !s.warnedIdle.Equal(active)
	if warnIdle {
		s.warnedIdle = active
	}
	age := now.Sub(s.row.Started)
	warnDuration := whole > 0 && !s.warnedDuration && age >= whole-warning(whole)
	if warnDuration {
		s.warnedDuration = true
	}
	s.mu.Unlock()
	if warnIdle {
		s.tell("This session is idle and will end in " + in(idle-now.Sub(active)) + ". Press a key to keep it.")
	}
	if warnDuration {
		s.tell("This session will reach its longest duration and end in " + in(whole-age) + ".")
	}
}

// tell writes a line of the server's own into the terminal, in the background.
func (s *live) tell(text string) {
	if s.row.SessionType == "Port" {
		s.notice(text)
	} else if s.canTell() {
		s.g.start(func() { s.tellNow(text) })
	}
}

// tellNow writes a line into the terminal, and waits while the client takes nothing.
func (s *live) tellNow(text string) { s.inject([]byte("\r\n[sallyport] " + text + "\r\n")) }

// notice sends a line of the server's own to a client of ours that forwards a port, beside
// what it forwards. Another client would not know what to do with it.
func (s *live) notice(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ownClient || s.closed {
		return
	}
	s.out.acknowledge(wire.NewJSON(wire.TypeNotice, s.g.now(), wire.Notice{Text: text}).Encode())
	s.wakeLocked()
}

// canTell reports whether the session has a terminal that the server can write to:
// not the data of a port or of a command's output, and nothing encrypted with a key that
// it does not have.
func (s *live) canTell() bool {
	if s.exec != nil {
		return true
	}
	terminal := s.row.SessionType == "Standard_Stream" || s.row.SessionType == "InteractiveCommands"
	return terminal && (s.encrypted == nil || s.encrypted.follows)
}

// inject puts output of the gateway's own into the stream.
func (s *live) inject(text []byte) {
	s.enterOut.Lock()
	defer s.enterOut.Unlock()
	now, sent := s.g.now(), text
	if s.encrypted != nil {
		var ok bool
		if sent, ok = s.encrypted.sealOwn(text); !ok {
			return // it cannot be read yet
		}
	}
	if s.rec != nil {
		s.unflushed.Store(true)
		if err := s.rec.Output(now, text); err != nil {
			s.end(recordingLost(err))
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.out.inject(wire.NewStream(wire.TypeOutputStreamData, 0, s.ownPayload(), now, sent))
	s.wakeLocked()
}

// ownPayload is the type of the server's own lines: beside the output of a program that
// has no terminal, not in it.
func (s *live) ownPayload() wire.PayloadType {
	if s.exec != nil && s.exec.Terminal == nil {
		return wire.PayloadStdErr
	}
	return wire.PayloadOutput
}

// startAgain repeats the start of a session that the agent has not answered.
func (s *live) startAgain(now time.Time) {
	s.mu.Lock()
	due := !s.asked && !s.startedAt.IsZero() && now.Sub(s.startedAt) >= s.g.cfg.StartResend
	if due {
		s.startedAt = now
	}
	s.mu.Unlock()
	if due {
		s.g.start(s.repeatStart)
	}
}

// keepLinks pings both ends, and repeats the gateway's own messages while the client
// has not acknowledged them.
func (s *live) keepLinks(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range []*link{s.client, s.agent} {
		if l == nil || now.Sub(l.pinged) < pingLink {
			continue
		}
		l.pinged = now
		s.pingLocked(l)
	}
	if s.client != nil && now.Sub(s.overdueAt) >= overdueAfter {
		s.overdueAt = now
		s.askAgainLocked()
	}
}

// askAgainLocked repeats the gateway's own messages that the client has not
// acknowledged, and asks again whether it has read what was repeated to it.
func (s *live) askAgainLocked() {
	if len(s.out.injected) > 0 {
		s.out.overdue()
		s.wakeLocked()
	}
	if l := s.client; l.repeat >= 0 && s.out.repeats() {
		s.g.start(func() { l.conn.Ping(repeatPing(l.repeat)) })
	}
}

// pingLocked pings a link in the background, once at a time: a peer that does not
// read blocks the ping. An agent whose messages wait for room is not being read, so
// that its own pings go unanswered; a pong that it did not ask for keeps it from
// giving up.
func (s *live) pingLocked(l *link) {
	if l.pinging.Swap(true) {
		return
	}
	waiting := l.waiting
	s.g.start(func() {
		defer l.pinging.Store(false)
		if waiting {
			l.conn.Pong(nil)
			return
		}
		l.conn.Ping(nil)
	})
}

// flush writes out what the recording holds, in the background: a slow disk must
// hold up its own session only.
func (s *live) flush(now time.Time) {
	if s.rec == nil {
		return
	}
	if err := s.rec.Err(); err != nil && s.cause.Load() == nil {
		s.end(recordingLost(err)) // where nothing is shown, too
		return
	}
	if !s.flushDue(now) || s.flushing.Swap(true) {
		return
	}
	s.flushed = now
	s.g.start(func() {
		defer s.flushing.Store(false)
		s.unflushed.Store(false)
		if err := s.rec.Flush(); err != nil && s.cause.Load() == nil {
			s.end(recordingLost(err))
		}
		s.holding.Store(s.rec.Holds()) // then it is to be asked again, though nothing follows
	})
}

// flushDue reports whether the recording holds what is to be written out now.
func (s *live) flushDue(now time.Time) bool {
	if s.holding.Load() {
		return true
	}
	since := now.Sub(s.flushed) // negative where the clock was set back
	return s.unflushed.Load() && (since < 0 || since >= flushEvery-s.g.cfg.Tick/2)
}

// forgotten reports whether the session has ended long enough ago.
func (s *live) forgotten(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.endedAt.IsZero() && now.Sub(s.endedAt) >= s.g.cfg.Linger
}
