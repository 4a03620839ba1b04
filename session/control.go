package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// control is a node's control channel.
type control struct {
	node         string
	conn         *websocket.Conn
	agentVersion string
	gone         atomic.Bool // a newer channel has taken its place
	ping         atomic.Pointer[time.Timer]
	features     []string    // of our own that the agent understands
	hinting      atomic.Bool // a hint at changed keys waits to be written
}

const (
	// maxOpening bounds an opening message, maxControl a message on a control
	// channel, in bytes. Results of commands are the largest: agents cut them at
	// 120,000.
	maxOpening = 16 << 10
	maxControl = wire.MaxMessage
	// controlWrite bounds a write to a control channel, and storeTimeout a row.
	controlWrite = 10 * time.Second
	storeTimeout = 10 * time.Second
	// staleSessions and staleAge bound which ended sessions a node is told about
	// when it connects.
	staleSessions = 100
	staleAge      = 24 * time.Hour
)

// ControlToken returns a token for opening the node's control channel.
func (g *Gateway) ControlToken(node string) string { return g.newToken(roleControl, node) }

// ServeControl upgrades r to the control channel of the node that signed it. It
// returns at once; the channel lives on.
func (g *Gateway) ServeControl(w http.ResponseWriter, r *http.Request, node string) {
	silence := g.cfg.PingInterval * 5 / 2
	conn, err := websocket.Upgrade(w, r, websocket.Options{ReadLimit: maxOpening, WriteTimeout: controlWrite})
	if err != nil {
		g.log.Info("control channel refused", "node", node, "error", err)
		return
	}
	if !g.start(func() { g.runControl(conn, node, silence) }) {
		conn.Close()
	}
}

// runControl reads a control channel to its end.
func (g *Gateway) runControl(conn *websocket.Conn, node string, silence time.Duration) {
	defer conn.Close()
	opening, err := g.readOpening(conn)
	if err == nil {
		_, err = g.openToken(opening.TokenValue, node, roleControl)
	}
	if err != nil {
		g.log.Info("control channel refused", "node", node, "error", err)
		return
	}
	conn.SetReadDeadline(time.Time{})
	conn.SetReadTimeout(silence)
	conn.SetReadLimit(maxControl)
	c := &control{node: node, conn: conn, agentVersion: opening.AgentVersion, features: opening.Features}
	stop, err := g.register(c)
	if err != nil {
		g.log.Error("control channel refused", "node", node, "error", err)
		return
	}
	g.auditNode(node, "connected", map[string]string{"agent_version": c.agentVersion})
	err = g.readControl(c)
	stop()
	g.log.Info("node disconnected", "node", node, "cause", err)
	g.auditNode(node, "disconnected", map[string]string{"cause": fmt.Sprint(err)})
}

// readOpening reads the opening message of any channel, within its own deadline.
func (g *Gateway) readOpening(conn conn) (wire.Opening, error) {
	select {
	case g.waiting <- struct{}{}:
		defer func() { <-g.waiting }()
	default:
		return wire.Opening{}, errors.New("too many channels wait to be opened")
	}
	conn.SetReadDeadline(time.Now().Add(g.cfg.OpeningTimeout))
	kind, data, err := conn.Read()
	if err != nil {
		return wire.Opening{}, fmt.Errorf("reading opening message: %w", err)
	}
	if kind != websocket.Text {
		return wire.Opening{}, errors.New("opening message must be a text message")
	}
	var opening wire.Opening
	if err := json.Unmarshal(data, &opening); err != nil {
		return wire.Opening{}, fmt.Errorf("decoding opening message: %w", err)
	}
	return opening, nil
}

// register makes c the node's control channel: here, in the store and, by telling
// them, in the other members. The returned function undoes it.
func (g *Gateway) register(c *control) (stop func(), err error) {
	unserve, err := g.cfg.Cluster.Serve(subjectNode+c.node, func(ctx context.Context, data []byte) ([]byte, error) {
		return g.serveNode(ctx, c.node, data), nil
	})
	if err != nil {
		return nil, fmt.Errorf("serving node: %w", err)
	}
	g.mu.Lock()
	old := g.controls[c.node]
	g.controls[c.node] = c
	g.mu.Unlock()
	if old != nil {
		g.replace(old)
	}
	stop = func() { unserve(); g.unregister(c) }
	ctx, cancel := context.WithTimeout(g.ctx, storeTimeout)
	defer cancel()
	if err := g.cfg.Nodes.SetConnected(ctx, c.node, g.cfg.Cluster.Member(), g.now()); err != nil {
		stop()
		return nil, fmt.Errorf("noting that the node is connected: %w", err)
	}
	g.announce(c.node)
	g.schedulePing(c)
	g.log.Info("node connected", "node", c.node, "agent_version", c.agentVersion)
	g.greet(ctx, c)
	return stop, nil
}

// replace ends a control channel whose node has opened another.
func (g *Gateway) replace(old *control) {
	old.gone.Store(true)
	g.start(func() { old.conn.Close() })
}

func (g *Gateway) unregister(c *control) {
	if t := c.ping.Load(); t != nil {
		t.Stop()
	}
	g.mu.Lock()
	current := g.controls[c.node] == c
	if current {
		delete(g.controls, c.node)
	}
	g.mu.Unlock()
	if !current || c.gone.Load() {
		return
	}
	// The gateway's context may have ended: this is how the row learns of it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(g.ctx), storeTimeout)
	defer cancel()
	if err := g.cfg.Nodes.ClearConnected(ctx, c.node, g.cfg.Cluster.Member()); err != nil {
		g.log.Error("noting that the node is disconnected", "node", c.node, "error", err)
	}
}

// taken tells members which of them has a node's newest control channel.
type taken struct {
	Node   string `json:"node"`
	Member string `json:"member"`
}

func (g *Gateway) announce(node string) {
	b, _ := json.Marshal(taken{Node: node, Member: g.cfg.Cluster.Member()}) // strings always encode
	if err := g.cfg.Cluster.Broadcast(subjectTaken, b); err != nil {
		g.log.Warn("telling members of a node", "node", node, "error", err)
	}
}

// heardTaken drops the control channel of a node that has gone to another member.
func (g *Gateway) heardTaken(data []byte) {
	var t taken
	if json.Unmarshal(data, &t) != nil || t.Member == g.cfg.Cluster.Member() {
		return
	}
	g.mu.Lock()
	c := g.controls[t.Node]
	delete(g.controls, t.Node)
	g.mu.Unlock()
	if c != nil {
		g.replace(c)
	}
}

// schedulePing pings c now and then, at slightly uneven times, so that the pings of
// nodes that came together spread out. A ping under way when the channel ends fails,
// and is the last.
func (g *Gateway) schedulePing(c *control) {
	interval := g.cfg.PingInterval
	c.ping.Store(time.AfterFunc(interval/2+rand.N(interval/2), func() {
		if c.conn.Ping(nil) == nil {
			c.ping.Load().Reset(interval - rand.N(interval/10+1))
		}
	}))
}

func (g *Gateway) control(node string) *control {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.controls[node]
}

// greet tells a node that has just connected what it may have missed: sessions that
// are to start, and sessions that ended without its knowing.
func (g *Gateway) greet(ctx context.Context, c *control) {
	g.mu.Lock()
	var here []*live
	for _, s := range g.sessions {
		if s.row.NodeID == c.node {
			here = append(here, s)
		}
	}
	g.mu.Unlock()
	for _, s := range here {
		s.repeatStart()
	}
	g.greetJobs(c)
	inactive := false
	ended, err := g.cfg.Store.Sessions(ctx, Filter{
		NodeID: c.node, Active: &inactive, StartedAfter: g.now().Add(-staleAge), Limit: staleSessions,
	})
	if err != nil {
		g.log.Error("listing ended sessions", "node", c.node, "error", err)
	}
	for _, s := range ended {
		if s.EndReason != ReasonExit && s.EndReason != ReasonFailed {
			c.send(channelClosed(c.node, s.ID, "", nil, g.now()))
		}
	}
}

func (c *control) send(m *wire.Message) error {
	return c.conn.Write(websocket.Binary, m.Encode())
}

// readControl handles messages until the channel ends. What it does not know it
// passes over: agents are newer or older than the server.
func (g *Gateway) readControl(c *control) error {
	for {
		_, data, err := c.conn.Read()
		if err != nil {
			return err
		}
		m, err := wire.Decode(data)
		if err != nil {
			g.log.Debug("control message dropped", "node", c.node, "error", err)
			continue
		}
		switch m.Type {
		case wire.TypeAgentTaskComplete:
			err = g.taskComplete(c, m)
		case wire.TypeAgentJobAck, wire.TypeAgentJobReply:
			err = g.jobMessage(c, m)
		}
		if err != nil {
			return err
		}
	}
}

// taskComplete acknowledges the end of a session on the node, every time it is
// reported, and applies it once.
func (g *Gateway) taskComplete(c *control, m *wire.Message) error {
	var done wire.TaskComplete
	if err := json.Unmarshal(m.Payload, &done); err != nil {
		g.log.Info("agent_task_complete dropped", "node", c.node, "error", err)
		return nil
	}
	err := c.send(wire.NewJSON(wire.TypeAgentTaskAcknowledge, g.now(), wire.TaskAcknowledge{
		SchemaVersion: 1, MessageID: m.ID.String(), TaskID: done.TaskID, Topic: wire.TypeAgentTaskComplete,
	}))
	if err != nil {
		return err
	}
	done.InstanceID = c.node // whatever it says: a node speaks for itself only
	if s := g.session(done.TaskID); s != nil {
		s.taskComplete(done)
		return nil
	}
	g.start(func() { g.forwardComplete(done) })
	return nil
}

// forwardComplete passes the end of a session on to its home.
func (g *Gateway) forwardComplete(done wire.TaskComplete) {
	if !validID(done.TaskID) {
		return
	}
	ctx, cancel := context.WithTimeout(g.ctx, storeTimeout)
	defer cancel()
	err := g.ask(ctx, subjectOf(done.TaskID), request{Op: "complete", Complete: &done})
	if err != nil && !errors.Is(err, ErrNoResponder) && !errors.Is(err, ErrEnded) {
		g.log.Warn("passing on the end of a session", "session", done.TaskID, "error", err)
	}
}

// serveNode answers members that want something of a node connected here.
func (g *Gateway) serveNode(ctx context.Context, node string, data []byte) []byte {
	var req request
	if err := json.Unmarshal(data, &req); err != nil {
		return replyFor(fmt.Errorf("decoding request: %w", err))
	}
	c := g.control(node)
	if c == nil {
		return replyFor(fmt.Errorf("%s: %w", node, ErrNotConnected))
	}
	switch req.Op {
	case "ping":
		return replyFor(nil)
	case "open":
		return replyFor(g.open(ctx, c, req, g.adopt))
	case "keys":
		return replyFor(g.hintKeys(c))
	case "send":
		return replyFor(c.conn.Write(websocket.Binary, req.Frame))
	case "remove":
		g.start(func() { c.conn.Close() })
		return replyFor(nil)
	}
	return replyFor(fmt.Errorf("unknown request %q", req.Op))
}

// sendControl sends a message to a node by whichever member holds its channel.
func (g *Gateway) sendControl(ctx context.Context, node string, m *wire.Message) error {
	if c := g.control(node); c != nil {
		return c.send(m)
	}
	err := g.ask(ctx, subjectNode+node, request{Op: "send", Frame: m.Encode()})
	if errors.Is(err, ErrNoResponder) {
		return ErrNotConnected
	}
	return err
}

// sendClosed tells a node, on its control channel, to end a session.
func (g *Gateway) sendClosed(ctx context.Context, node, session string) {
	err := g.sendControl(ctx, node, channelClosed(node, session, "", nil, g.now()))
	if err != nil && !errors.Is(err, ErrNotConnected) {
		g.log.Warn("telling a node to end a session", "session", session, "node", node, "error", err)
	}
}

// channelClosed makes the message that ends a session at either end. Text is for the
// person and only on the client's side; exit is known to our own client.
func channelClosed(node, session, text string, exit *int, at time.Time) *wire.Message {
	m := wire.New(wire.TypeChannelClosed, at, nil)
	body, _ := json.Marshal(wire.ChannelClosed{ // strings and numbers always encode
		MessageType:   wire.TypeChannelClosed,
		MessageID:     uuid.NewString(),
		DestinationID: node,
		SessionID:     session,
		SchemaVersion: 1,
		CreatedDate:   at.UTC().Format("2006-01-02T15:04:05.000Z"),
		Output:        text,
		ExitStatus:    exit,
	})
	m.Payload = body
	return m
}

// Connected reports whether a node's control channel is held by any member.
func (g *Gateway) Connected(ctx context.Context, node string) bool {
	return g.control(node) != nil || g.ask(ctx, subjectNode+node, request{Op: "ping"}) == nil
}

// RemoveNode ends the node's sessions and its control channel, wherever it is held:
// for a node that has been deregistered.
func (g *Gateway) RemoveNode(ctx context.Context, node string) error {
	active := true
	rows, err := g.cfg.Store.Sessions(ctx, Filter{NodeID: node, Active: &active})
	if err != nil {
		return fmt.Errorf("listing sessions of %s: %w", node, err)
	}
	for _, row := range rows {
		if err := g.Terminate(ctx, row.ID, &Cause{Reason: ReasonNodeRemoved, Terminal: "The node was deregistered."}); err != nil {
			return err
		}
	}
	err = g.ask(ctx, subjectNode+node, request{Op: "remove"})
	if errors.Is(err, ErrNoResponder) || errors.Is(err, ErrNotConnected) {
		return nil
	}
	return err
}
