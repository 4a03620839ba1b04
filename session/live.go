package session

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport.dev/tracing"
	"sallyport.dev/wire"
)

// Options are properties of a session that only its home needs.
type Options struct {
	NodeName    string `json:"node_name,omitempty"` // as people call the node; for the recording
	Record      bool   `json:"record,omitempty"`
	RecordInput bool   `json:"record_input,omitempty"`
	// Command is the command line that the session runs, for the recording and the audit
	// log; empty for a shell. That of the task's Exec is put in.
	Command string `json:"command,omitempty"`
	// Terminal says that people type on a terminal, which echoes; the gateway sets it.
	Terminal bool `json:"-"`
	// KeepInUse says that the keep-alives of the client's multiplexer show that the
	// session is in use.
	KeepInUse bool `json:"keep_in_use,omitempty"`
	// ClientReturns says that the client of a session with an Exec may open the data
	// channel again when its connection is lost, as other clients do.
	ClientReturns bool `json:"client_returns,omitempty"`
	// Grants are the ids of the grants that the session was allowed by, for the audit log.
	Grants []string `json:"grants,omitempty"`
	// Log says where the text of the session is written beside its recording, as JSON of
	// package awslog, for who records it; empty for nowhere.
	Log json.RawMessage `json:"log,omitempty"`
	// Trace is the traceparent (W3C Trace Context) of the request that the session is for.
	Trace string `json:"trace,omitempty"`
	// Encrypted says that the ends encrypt the stream between them, with a data key of the
	// key that the session's document names as KMSKeyID. With Record the gateway takes that
	// data key to record the session; without it nothing can be read from the stream or put
	// into it.
	Encrypted bool   `json:"encrypted,omitempty"`
	KMSKeyID  string `json:"kms_key_id,omitempty"`
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
	rec  Recorder  // nil where the session is not recorded
	bulk *bulkEnds // nil where the session has none
	exec *program  // nil where the task has no Exec
	// encrypted is nil unless the ends encrypt the stream.
	encrypted *encrypted
	task      wire.StartSession
	log       sessionLog

	agentSpan, clientSpan span // until each end has attached

	cause   atomic.Pointer[Cause] // set once: the session is ending
	cut     atomic.Pointer[Cause] // set once: nothing more is shown
	done    chan struct{}         // closed when it has ended
	unserve func()                // stops answering other members

	watching watching
	size     terminalSize

	active          atomic.Int64 // when something last happened, ns
	bytesIn         atomic.Int64
	bytesOut        atomic.Int64
	unflushed       atomic.Bool // the recording holds what is not written out
	holding         atomic.Bool // a stage of it still does after a flush
	flushed         time.Time   // when it was last; the clock's
	armed           atomic.Bool // the key that asks for more time does so
	strange         atomic.Bool // a message that does not belong here was logged
	left            atomic.Bool // the client has ended a Port session and is on its way out
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
	ownClient      bool      // the client of a Port session is ours
	hushed         bool      // see hush.go
	paused         bool      // the agent was asked to pause
	agentAt        time.Time // since when the agent is away, or when the session opened
	clientAt       time.Time // the same for the client
	startedAt      time.Time // when the start was last sent
	warnedIdle     time.Time // activity that the last idle warning was about
	warnedDuration bool
	deadline       Deadline
	moreTime       string    // the request for more time that waits
	warned         int       // how many warnings of the deadline were given
	shown          bool      // the session has shown something
	severed        bool      // nothing more goes to the agent
	overdueAt      time.Time // when own messages were last repeated
	closed         bool      // channel_closed went out: nothing is relayed any more
	endedAt        time.Time
	saving, dirty  bool     // the row is being written; must be written again
	saved          rowState // what the row says; the one that saves alone
}

// rowState is what a row says of a session that goes on.
type rowState struct {
	state   State
	in, out int64 // bytes
}

func newLive(g *Gateway, row Session, task wire.StartSession, opts Options) *live {
	s := &live{g: g, row: row, task: task, opts: opts, done: make(chan struct{}), used: usedTokens{}}
	s.log = sessionLog{g.log.With("session", row.ID, "node", row.NodeID, "request", tracing.RequestOf(opts.Trace))}
	s.task.Trace = opts.Trace
	s.inRoom, s.outRoom, s.settled = sync.NewCond(&s.mu), sync.NewCond(&s.mu), sync.NewCond(&s.mu)
	s.saved.state = row.State
	s.exec = s.newProgram()
	s.encrypted = newEncrypted(opts)
	if s.exec != nil {
		s.opts.Command = s.exec.Command
	}
	if g.cfg.Redact != nil {
		s.opts.Command = g.cfg.Redact(s.opts.Command)
	}
	s.opts.Terminal = s.onTerminal()
	now := g.now()
	s.agentAt, s.clientAt = now, now
	s.active.Store(now.UnixNano())
	return s
}

// onTerminal reports whether people type on a terminal of the node, which echoes.
func (s *live) onTerminal() bool {
	if s.exec != nil {
		return s.exec.Terminal != nil
	}
	return s.row.SessionType == "Standard_Stream" || s.row.SessionType == "InteractiveCommands"
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
	done.Output = plainReport(done.Output)
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

// plainReport is what a node reports without the banner that AWS's agent puts first.
func plainReport(text string) string {
	return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "----------ERROR-------"))
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
	now := rowState{s.state(), s.bytesIn.Load(), s.bytesOut.Load()}
	if now == s.saved || !now.state.Active() {
		return // finish writes the last word
	}
	ctx, cancel := context.WithTimeout(s.g.ctx, storeTimeout)
	defer cancel()
	changed, err := s.g.cfg.Store.UpdateSession(ctx, s.row.ID, func(row *Session) error {
		row.State, row.BytesIn, row.BytesOut = now.state, now.in, now.out
		return nil
	})
	if changed {
		s.saved = now
	}
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
