package session

import (
	"context"
	"time"

	"sallyport.dev/wire"
)

// Sessions that hang on what comes to an end: on a grant of access just in time.

// Deadline is when a session loses what it is allowed on, as far as is known now.
type Deadline struct {
	At    time.Time     // by the server's clock; zero for none
	Whole time.Duration // how long the grant lasts in all, which says when to warn
	Grant string        // id of the grant that ends then
}

// Keeper says what sessions hang on, and asks for more.
type Keeper interface {
	// MoreTime asks for more time for a session, in the name of its person. It returns
	// what became of that, a sentence for the terminal, and whether asking again may help.
	MoreTime(ctx context.Context, s Session, d Deadline) (text string, again bool)
}

const (
	// MoreTimeKey asks for more time where it comes alone, after a warning: Ctrl-]. It has
	// been telnet's way to talk to what is between, and no shell has a use for it.
	MoreTimeKey = 0x1d
	// deadlineGrace is how long after its deadline a session may still be when nobody
	// said that it goes on: somebody may just be saying so.
	deadlineGrace = 2 * time.Second
	// moreTimeWait bounds asking for more time.
	moreTimeWait = 30 * time.Second
	// firstWarning and lastWarning are how long before the deadline a person is told, or
	// half and a fifth of a grant that is short.
	firstWarning = 5 * time.Minute
	lastWarning  = time.Minute
)

// Keep makes k the keeper of this member's sessions. Without one nobody can ask for more
// time.
func (g *Gateway) Keep(k Keeper) { g.keeper.Store(&k) }

// Opened is the number of sessions that this member has begun to relay. It grows after
// Live tells of them.
func (g *Gateway) Opened() int64 { return g.counters.started.Load() }

// Live returns the sessions whose home is this member and that are not about to end
// anyway, as they were opened.
func (g *Gateway) Live() []Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]Session, 0, len(g.sessions))
	for _, s := range g.sessions {
		if s.cut.Load() != nil || s.isDone() {
			continue
		}
		if cause := s.cause.Load(); cause == nil || cause.byAgent() {
			all = append(all, s.row)
		}
	}
	return all
}

// SetDeadline says when a session that this member relays will lose what it is allowed
// on. A person who was warned of an earlier deadline is told that there is more time.
func (g *Gateway) SetDeadline(id string, d Deadline) {
	s := g.session(id)
	if s == nil {
		return
	}
	s.mu.Lock()
	before := s.deadline
	if !before.At.Equal(d.At) {
		s.warned = 0
		s.armed.Store(false)
	}
	s.deadline = d
	s.mu.Unlock()
	switch {
	case before.At.IsZero() || before.At.Equal(d.At):
	case d.At.IsZero():
		s.tell("This session does not end with grant " + before.Grant + " any more.")
	case d.At.After(before.At):
		s.tell("Your access is extended until " + clockTime(d.At) + ".")
	}
}

// Tell writes a line of the server's own to who uses a session that this member relays,
// where there is a way to.
func (g *Gateway) Tell(id, text string) {
	if s := g.session(id); s != nil {
		s.tell(text)
	}
}

// Asked says which request for more time of a session's person waits for a decision; empty
// for none. Warnings do not offer to ask for it again.
func (g *Gateway) Asked(id, request string) {
	if s := g.session(id); s != nil {
		s.mu.Lock()
		s.moreTime = request
		s.mu.Unlock()
	}
}

// clockTime is a time of day for the terminal. The server does not know where the person
// is.
func clockTime(t time.Time) string { return t.UTC().Format("15:04:05 MST") }

// AccessEnded is the cause of a session that is not allowed any more. why is a clause
// such as "grant oi-… was revoked by bob".
func AccessEnded(grant, why string) *Cause {
	return &Cause{Reason: ReasonAccess, Detail: why, Terminal: accessEnded(why), Grant: grant}
}

func accessEnded(why string) string { return "Your access ended: " + why + "." }

// TimeUp is the cause of a session whose grant has come to its end.
func TimeUp(grant string) *Cause {
	return AccessEnded(grant, "grant "+grant+" is over, its time was up")
}

// overdue reports whether a session is past its deadline, and nobody said anything
// else: neither a store nor another member has to be reached for that.
func (s *live) overdue(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.deadline.At.IsZero() && now.Sub(s.deadline.At) >= deadlineGrace
}

// warnings are how long before its deadline a session's person is warned.
func (d Deadline) warnings() [2]time.Duration {
	if d.Whole <= 0 {
		return [2]time.Duration{firstWarning, lastWarning}
	}
	return [2]time.Duration{min(firstWarning, d.Whole/2), min(lastWarning, d.Whole/5)}
}

// warnDeadline writes into the terminal that what the session hangs on is about to end,
// and lets the key ask for more.
func (s *live) warnDeadline(now time.Time) {
	s.mu.Lock()
	d, asked := s.deadline, s.moreTime
	left, stage := d.At.Sub(now), 0
	for _, before := range d.warnings() {
		if left <= before {
			stage++
		}
	}
	due := !d.At.IsZero() && left > 0 && stage > s.warned && s.shows()
	if due {
		s.warned = stage
	}
	s.mu.Unlock()
	if due {
		s.sayWarning(d, left, asked)
	}
}

// shows reports whether what the server says now is shown, and not taken for the
// beginning of a handshake. It is called with mu held.
func (s *live) shows() bool {
	return s.shown || !s.handshakeDone.IsZero() || s.exec != nil && s.agentOnce // those have none
}

func (s *live) sayWarning(d Deadline, left time.Duration, asked string) {
	text := "Your access ends in " + in(left) + ", at " + clockTime(d.At) + ", with grant " + d.Grant + "."
	if asked != "" {
		s.tell(text + " More time was asked for and waits for a decision: " + asked + ".")
		return
	}
	if !s.hasTerminal() {
		s.tell(text + " \"sallyport extend " + d.Grant + "\" asks for more time.")
		return
	}
	s.tell(text + " Press Ctrl-] to ask for more time.")
	s.armed.Store(true)
}

// hasTerminal reports whether a person's keys come one by one, and can be read.
func (s *live) hasTerminal() bool {
	if s.exec != nil {
		return s.exec.Terminal != nil
	}
	return s.canTell()
}

// isMoreTimeKey reports whether a message of the client's is the key that asks for more
// time: pressed alone, and the first time after a warning. Later ones, and those that
// come with other input, belong to the program.
func (s *live) isMoreTimeKey(fromAgent bool, h wire.Header) bool {
	if fromAgent || h.PayloadType != wire.PayloadOutput || len(h.Payload) != 1 || h.Payload[0] != MoreTimeKey {
		return false
	}
	return s.armed.CompareAndSwap(true, false)
}

// takeMoreTimeKey asks for more time in place of passing the key on. Its message goes on
// without it: its number is needed.
func (s *live) takeMoreTimeKey(data []byte) (passed []byte, ok bool) {
	m, err := wire.Decode(data)
	if err != nil {
		s.armed.Store(true)
		return data, true // its receiver drops it, too
	}
	s.g.start(s.askMoreTime)
	m.Payload = nil
	return m.Encode(), true
}

func (s *live) askMoreTime() {
	keeper := s.g.keeper.Load()
	if keeper == nil {
		s.tell("There is nobody to ask for more time.")
		return
	}
	s.mu.Lock()
	d := s.deadline
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.g.ctx, moreTimeWait)
	defer cancel()
	text, again := (*keeper).MoreTime(ctx, s.row, d)
	if text != "" {
		s.tell(text)
	}
	if again {
		s.armed.Store(true)
	}
}

// sever keeps what the client sends, and has sent, from the agent.
func (s *live) sever() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.severed = true
	s.inRoom.Broadcast()
}

func (s *live) timeUp() *Cause {
	s.mu.Lock()
	defer s.mu.Unlock()
	return TimeUp(s.deadline.Grant)
}
