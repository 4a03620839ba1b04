package session

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/tracing"
	"sallyport.dev/wire"
)

const (
	// maxID bounds a session id, in bytes: the public API allows 96.
	maxID = 96
	// idDigits are the hexadecimal digits that end an id.
	idDigits = 17
)

// NewID returns a fresh session id: the caller's name, made safe for paths and
// subjects, a hyphen and 17 hexadecimal digits.
func NewID(prefix string) string {
	safe := strings.Map(func(r rune) rune {
		if isIDRune(r) {
			return r
		}
		return '-'
	}, prefix)
	safe = strings.Trim(strings.ReplaceAll(safe, "..", "-."), ".-")
	safe = safe[:min(len(safe), maxID-idDigits-1)]
	if safe == "" {
		safe = "session"
	}
	var b [(idDigits + 1) / 2]byte
	rand.Read(b[:])
	return safe + "-" + hex.EncodeToString(b[:])[:idDigits]
}

func isIDRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '=' || r == ',' || r == '@' || r == '+' || r == '.'
}

// validID reports whether id can be a session's. Ids become subjects of the routing,
// paths and file names.
func validID(id string) bool {
	if len(id) == 0 || len(id) > maxID || id[0] == '.' || strings.Contains(id, "..") {
		return false
	}
	return strings.IndexFunc(id, func(r rune) bool { return !isIDRune(r) }) < 0
}

// subject returns the subject on which a session's home answers. Dots would split it.
func subjectOf(id string) string { return subjectSession + strings.ReplaceAll(id, ".", "_") }

// StartRequest is a session to start, authorised already.
type StartRequest struct {
	Session Session // ID, NodeID, Document, Owner, … as stored; State and times are set here
	Start   wire.StartSession
	Options Options
}

// Start opens a session on whichever member holds its node's control channel, and
// returns the token with which the client opens the data channel. Errors are
// ErrNotConnected, ErrRecording, or of the store and the routing.
func (g *Gateway) Start(ctx context.Context, req StartRequest) (clientToken string, err error) {
	row := req.Session
	row.State, row.Started, row.Member = StateConnecting, g.now(), g.cfg.Cluster.Member()
	req.Start.SessionID = row.ID
	if !validID(row.ID) {
		return "", fmt.Errorf("session id %q is not allowed", row.ID)
	}
	err = g.openAnywhere(ctx, request{Op: "open", Session: &row, Start: &req.Start, Options: req.Options})
	if err != nil {
		g.startFailed(ctx, row, tracing.RequestOf(req.Options.Trace), err)
		return "", err
	}
	return g.newToken(roleClient, row.ID), nil
}

// openAnywhere opens a session here if its node is connected here, or else asks the
// member where it is.
func (g *Gateway) openAnywhere(ctx context.Context, req request) error {
	if c := g.control(req.Session.NodeID); c != nil {
		return g.open(ctx, c, req, g.create)
	}
	if err := g.create(ctx, *req.Session); err != nil {
		return err
	}
	err := g.ask(ctx, subjectNode+req.Session.NodeID, req)
	if errors.Is(err, ErrNoResponder) {
		return fmt.Errorf("%s: %w", req.Session.NodeID, ErrNotConnected)
	}
	return err
}

// errStoring marks a session that has no row because the store took none.
var errStoring = errors.New("storing session")

func (g *Gateway) create(ctx context.Context, row Session) error {
	if err := g.cfg.Store.CreateSession(ctx, row); err != nil {
		return fmt.Errorf("%w: %w", errStoring, err)
	}
	return nil
}

// startFailed notes in the row and in the audit log why the session that a request is for
// did not begin, making the row where it did not come to that.
func (g *Gateway) startFailed(ctx context.Context, row Session, request string, cause error) {
	if errors.Is(cause, errStoring) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	fail := func(s *Session) error {
		s.State, s.Ended, s.EndReason = StateFailed, g.now(), clip(cause.Error())
		return nil
	}
	changed, err := g.cfg.Store.UpdateSession(ctx, row.ID, fail)
	if errors.Is(err, ErrNotFound) {
		fail(&row)
		changed, err = true, g.create(ctx, row)
	}
	if err != nil {
		g.log.Error("saving a session that did not start", "session", row.ID, "error", err)
	} else if changed {
		g.audit(ctx, audit.EventSessionEnd, row, request, clip(cause.Error()), nil)
	}
}

// lateFor is how long after its end a session's client is still told why it ended.
const lateFor = time.Hour

// Resume returns a token with which a client opens the data channel again. One that is
// ending may still hold what the client has not seen; where the session has ended
// lately, the channel tells why and closes. Later the token is empty, which AWS's
// client takes for a session that timed out.
func (g *Gateway) Resume(ctx context.Context, id string) (clientToken string, err error) {
	row, err := g.cfg.Store.Session(ctx, id)
	if err != nil {
		return "", fmt.Errorf("reading session: %w", err)
	}
	if !row.State.Active() && g.now().Sub(row.Ended) > lateFor {
		return "", nil
	}
	return g.newToken(roleClient, id), nil
}

// Terminate ends a session wherever its home is. A session that has ended already,
// or that nobody relays any more, is no error.
func (g *Gateway) Terminate(ctx context.Context, id string, cause *Cause) error {
	if s := g.session(id); s != nil {
		s.end(cause)
		return nil
	}
	row, err := g.cfg.Store.Session(ctx, id)
	if err != nil {
		return fmt.Errorf("reading session: %w", err)
	}
	if !row.State.Active() {
		return nil
	}
	err = g.ask(ctx, subjectOf(id), request{Op: "end", Cause: cause})
	if errors.Is(err, ErrNoResponder) {
		return g.failRow(ctx, row, ReasonMemberLost)
	}
	return err
}

// Home returns the URL of the member that relays a session. It is empty when that
// is this one, and when the session has ended; ErrNotFound when there is none.
func (g *Gateway) Home(ctx context.Context, id string) (url string, err error) {
	if !validID(id) {
		return "", ErrNotFound
	}
	if g.session(id) != nil {
		return "", nil
	}
	row, err := g.cfg.Store.Session(ctx, id)
	if err != nil {
		return "", fmt.Errorf("reading session: %w", err)
	}
	if !row.State.Active() || row.Member == g.cfg.Cluster.Member() {
		return "", nil
	}
	for _, m := range g.cfg.Cluster.Members() {
		if m.ID == row.Member {
			return m.URL, nil
		}
	}
	return "", nil
}

// AgentToken returns a token with which the session's node opens its data channel.
// It is ErrEnded for a session that has ended, and ErrNotFound for another node's:
// nodes learn nothing about each other's sessions.
func (g *Gateway) AgentToken(ctx context.Context, id, node string) (string, error) {
	s := g.session(id)
	if s == nil {
		return "", g.tokenRefusal(ctx, id, node)
	}
	if s.row.NodeID != node {
		return "", ErrNotFound
	}
	s.mu.Lock()
	s.asked = true
	s.agentSpan.note("agent asked for its data channel")
	over := s.closed
	s.mu.Unlock()
	if over {
		return "", ErrEnded
	}
	return g.newToken(roleAgent, id), nil
}

// tokenRefusal says why there is no token, and tells a node that still runs a session
// which has ended to end it, too.
func (g *Gateway) tokenRefusal(ctx context.Context, id, node string) error {
	row, err := g.cfg.Store.Session(ctx, id)
	if err != nil {
		return fmt.Errorf("reading session: %w", err)
	}
	if row.NodeID != node {
		return ErrNotFound
	}
	g.sendClosed(ctx, node, id)
	return ErrEnded
}

// ServeData upgrades r to a data channel of a session whose home is this member.
// node is the id of the node that signed r, or empty: then a client is calling. It
// returns at once; the channel lives on.
func (g *Gateway) ServeData(w http.ResponseWriter, r *http.Request, id, node string) {
	opts := websocket.Options{ReadLimit: maxOpening}
	conn, err := websocket.Upgrade(w, r, opts)
	if err != nil {
		g.log.Info("data channel refused", "session", id, "error", err)
		return
	}
	if !g.start(func() { g.runData(conn, id, node) }) {
		conn.Close()
	}
}

func (g *Gateway) runData(conn conn, id, node string) {
	defer conn.Close()
	want := roleClient
	if node != "" {
		want = roleAgent
	}
	opening, err := g.readOpening(conn)
	if err != nil {
		g.log.Info("data channel refused", "session", id, "error", err)
		return
	}
	t, err := g.openToken(opening.TokenValue, id, want)
	if err != nil {
		g.log.Warn("data channel refused", "session", id, "role", string(want), "node", node, "error", err)
		return
	}
	s := g.session(id)
	if s == nil {
		g.tellLate(conn, id, want)
		return
	}
	if err := s.admit(t, node); err != nil {
		g.log.Warn("data channel refused", "session", id, "role", string(want), "node", node, "error", err)
		return
	}
	conn.SetReadDeadline(time.Time{})
	conn.SetReadLimit(wire.MaxMessage)
	if want == roleAgent {
		conn.SetReadTimeout(agentSilence)
	}
	s.attach(conn, want, opening)
}

// admit checks that a token was not used before, and that an agent's data channel is
// opened by the session's own node.
func (s *live) admit(t token, node string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if node != "" && node != s.row.NodeID {
		return fmt.Errorf("session is on another node: %w", ErrToken)
	}
	if t.Role == roleClient && s.onlyOnce() && s.clientOnce {
		return fmt.Errorf("its SSH connection is gone: %w", ErrToken)
	}
	if !s.used.use(t, s.g.now()) {
		return fmt.Errorf("used before: %w", ErrToken)
	}
	return nil
}

// lateText tells a person the end reason of a session's row.
func lateText(reason string) string {
	switch reason {
	case "":
		return "The session has ended."
	case ReasonRestart:
		return "The session has ended: the server was restarted."
	case ReasonMemberLost:
		return "The session has ended: the server that relayed it was lost."
	}
	if why, ok := strings.CutPrefix(reason, ReasonAccess+": "); ok {
		return accessEnded(why)
	}
	return "The session has ended: " + reason + "."
}

// tellLate tells a client that came after the end of its session, and after the
// gateway had forgotten it.
func (g *Gateway) tellLate(conn conn, id string, r role) {
	ctx, cancel := context.WithTimeout(g.ctx, storeTimeout)
	defer cancel()
	row, err := g.cfg.Store.Session(ctx, id)
	if err != nil || r != roleClient {
		return
	}
	conn.SetWriteDeadline(time.Now().Add(farewell))
	conn.Write(websocket.Binary, channelClosed(row.NodeID, id, lateText(row.EndReason), row.ExitStatus, g.now()).Encode())
	conn.SetReadDeadline(time.Now().Add(farewell))
	for {
		if _, _, err := conn.Read(); err != nil {
			return
		}
	}
}
