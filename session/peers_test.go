package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"sallyport.dev/internal/seal"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testNode = "mi-0c6b0d7a12f0720b1"

// world is one member: a gateway behind HTTP, with whom the test plays agent and
// client. The header X-Node stands for the signature of a node.
type world struct {
	t     testing.TB
	g     *Gateway
	store *memory
	bus   *bus
	rec   *notes
	url   string
}

// newWorld starts a member. Times are short, so that tests are.
func newWorld(t testing.TB, tune ...func(*Config)) *world {
	return newMember(t, newMemory(), newBus(), "m1", tune...)
}

func newMember(t testing.TB, store *memory, b *bus, id string, tune ...func(*Config)) *world {
	key, err := seal.New(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: store, bus: b, rec: &notes{}}
	cfg := Config{
		Store: store, Nodes: store, Cluster: seat{b, id}, Key: key, Audit: store,
		Logger:         slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Record:         func(context.Context, Session, Options) (Recorder, string, error) { return w.rec, "rec.cast", nil },
		OpeningTimeout: 500 * time.Millisecond, PingInterval: time.Second,
		StartResend: 100 * time.Millisecond, StartTimeout: 5 * time.Second,
		DisconnectGrace: 5 * time.Second, AgentGrace: 5 * time.Second,
		CloseHold: 50 * time.Millisecond, Linger: 5 * time.Second, Tick: 10 * time.Millisecond,
	}
	for _, f := range tune {
		f(&cfg)
	}
	if w.g, err = New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(w)
	w.url = "ws" + strings.TrimPrefix(s.URL, "http")
	t.Cleanup(func() {
		w.g.Close(t.Context())
		s.Close()
	})
	return w
}

// testLog keeps logs from a test that has ended out of the next one.
type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	if testing.Verbose() {
		l.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// ServeHTTP is what package server does, without its checks.
func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	node := r.Header.Get("X-Node")
	if id, ok := strings.CutPrefix(r.URL.Path, "/v1/control-channel/"); ok && id == node {
		w.g.ServeControl(rw, r, node)
	} else if id, ok := strings.CutPrefix(r.URL.Path, "/v1/data-channel/"); ok {
		w.g.ServeData(rw, r, id, node)
	} else if id, ok := strings.CutPrefix(r.URL.Path, "/v1/bulk/"); ok {
		if err := w.g.ServeBulk(rw, r, id); err != nil {
			http.Error(rw, err.Error(), http.StatusForbidden)
		}
	} else {
		http.Error(rw, "no", http.StatusForbidden)
	}
}

func (w *world) dial(path, node string, opening wire.Opening) *websocket.Conn {
	w.t.Helper()
	h := http.Header{}
	if node != "" {
		h.Set("X-Node", node)
	}
	conn, err := websocket.Dial(w.t.Context(), w.url+path, websocket.DialOptions{Header: h})
	if err != nil {
		w.t.Fatal(err)
	}
	opening.MessageSchemaVersion, opening.RequestID = "1.0", uuid.NewString()
	b, _ := json.Marshal(opening)
	if err := conn.Write(websocket.Text, b); err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// fakeAgent is a node's agent: its control channel, and what came over it.
type fakeAgent struct {
	w    *world
	node string
	conn *websocket.Conn

	mu     sync.Mutex
	starts []wire.StartSession
	closes []string
	acks   []wire.TaskAcknowledge
	done   chan struct{}
}

func (w *world) agent(node string) *fakeAgent {
	a := &fakeAgent{w: w, node: node, done: make(chan struct{})}
	a.conn = w.dial("/v1/control-channel/"+node, node, wire.Opening{TokenValue: w.g.ControlToken(node), AgentVersion: "3.3.40.0"})
	go a.read()
	w.t.Cleanup(func() { a.conn.Abort(); <-a.done })
	eventually(w.t, "node connects", func() bool {
		c := w.g.control(node)
		return c != nil && c.agentVersion != "" && w.store.memberOf(node) != ""
	})
	return a
}

func (a *fakeAgent) read() {
	defer close(a.done)
	for {
		_, data, err := a.conn.Read()
		if err != nil {
			return
		}
		m, err := wire.Decode(data)
		if err != nil {
			a.w.t.Errorf("control message: %v", err)
			continue
		}
		a.take(m)
	}
}

func (a *fakeAgent) take(m *wire.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch m.Type {
	case wire.TypeInteractiveShell:
		var task wire.ControlTask
		var start wire.StartSession
		json.Unmarshal(m.Payload, &task)
		if err := json.Unmarshal([]byte(task.Content), &start); err != nil {
			a.w.t.Errorf("interactive_shell content: %v", err)
		}
		a.starts = append(a.starts, start)
	case wire.TypeChannelClosed:
		var c wire.ChannelClosed
		json.Unmarshal(m.Payload, &c)
		a.closes = append(a.closes, c.SessionID)
	case wire.TypeAgentTaskAcknowledge:
		var ack wire.TaskAcknowledge
		json.Unmarshal(m.Payload, &ack)
		a.acks = append(a.acks, ack)
	}
}

func (a *fakeAgent) count(f func() int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return f()
}

func (a *fakeAgent) started() int { return a.count(func() int { return len(a.starts) }) }
func (a *fakeAgent) closed() int  { return a.count(func() int { return len(a.closes) }) }
func (a *fakeAgent) acked() int   { return a.count(func() int { return len(a.acks) }) }

// complete reports the end of a session.
func (a *fakeAgent) complete(id, status, output string, exit *int) {
	m := wire.NewJSON(wire.TypeAgentTaskComplete, time.Now(), wire.TaskComplete{
		SchemaVersion: 1, TaskID: id, Topic: "agent_task_complete", FinalTaskStatus: status,
		InstanceID: a.node, Output: output, RetryNumber: 1, ExitStatus: exit,
	})
	if err := a.conn.Write(websocket.Binary, m.Encode()); err != nil {
		a.w.t.Errorf("reporting the end: %v", err)
	}
}

// open opens the data channel of a session, as the agent does: it asks for a token.
func (a *fakeAgent) open(id string) *peer {
	a.w.t.Helper()
	token, err := a.w.g.AgentToken(a.w.t.Context(), id, a.node)
	if err != nil {
		a.w.t.Fatal(err)
	}
	p := newPeer(a.w.t, wire.TypeOutputStreamData, true)
	p.dial = func() *websocket.Conn {
		token, err := a.w.g.AgentToken(a.w.t.Context(), id, a.node)
		if err != nil {
			return nil
		}
		return a.w.dial("/v1/data-channel/"+id+"?role=publish_subscribe", a.node, wire.Opening{TokenValue: token, ClientInstanceID: a.node})
	}
	p.use(a.w.dial("/v1/data-channel/"+id+"?role=publish_subscribe", a.node, wire.Opening{TokenValue: token, ClientInstanceID: a.node}))
	p.sendState(id, "Connected")
	return p
}

// client opens a session's data channel as a client does.
func (w *world) client(id, token string) *peer {
	w.t.Helper()
	p := newPeer(w.t, wire.TypeInputStreamData, false)
	clientID := uuid.NewString()
	p.dial = func() *websocket.Conn {
		token, err := w.g.Resume(w.t.Context(), id)
		if err != nil || token == "" {
			return nil
		}
		return w.dial("/v1/data-channel/"+id, "", wire.Opening{TokenValue: token, ClientID: clientID, ClientVersion: "1.2.700.0"})
	}
	p.use(w.dial("/v1/data-channel/"+id, "", wire.Opening{TokenValue: token, ClientID: clientID, ClientVersion: "1.2.700.0"}))
	return p
}

// peer is one end of a session, with the manners of AWS's programs: it acknowledges
// what it takes in order, holds what comes early, and sends its oldest
// unacknowledged message again and again. Agents acknowledge repetitions, clients
// ignore them.
type peer struct {
	t       testing.TB
	typ     string
	isAgent bool
	dial    func() *websocket.Conn

	mu       sync.Mutex
	conn     *websocket.Conn
	seq      int64
	unacked  [][]byte
	expected int64
	early    map[int64]*wire.Message
	got      bytes.Buffer // Output payloads, in order
	payloads []wire.PayloadType
	frames   [][]byte // as received, stream messages and acknowledgements
	control  []string // pause_publication and the like
	closing  *wire.ChannelClosed
	noAck    bool // to play a receiver that does not answer
	stop     chan struct{}
	wg       sync.WaitGroup
}

func newPeer(t testing.TB, typ string, isAgent bool) *peer {
	p := &peer{t: t, typ: typ, isAgent: isAgent, early: map[int64]*wire.Message{}, stop: make(chan struct{})}
	p.wg.Go(p.resend)
	t.Cleanup(func() {
		close(p.stop)
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *peer) use(conn *websocket.Conn) {
	p.mu.Lock()
	p.conn = conn
	p.mu.Unlock()
	p.wg.Go(func() { p.read(conn) })
}

// cut drops the connection, with what is in flight.
func (p *peer) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.conn.Abort()
		p.conn = nil
	}
}

// back opens the channel again after a cut.
func (p *peer) back() bool {
	conn := p.dial()
	if conn == nil {
		return false
	}
	p.use(conn)
	return true
}

func (p *peer) resend() {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
		}
		p.mu.Lock()
		if len(p.unacked) > 0 && p.conn != nil {
			conn, oldest := p.conn, p.unacked[0]
			p.mu.Unlock()
			conn.Write(websocket.Binary, oldest)
			continue
		}
		p.mu.Unlock()
	}
}

func (p *peer) read(conn *websocket.Conn) {
	for {
		_, data, err := conn.Read()
		if err != nil {
			p.lost(conn)
			return
		}
		m, err := wire.Decode(data)
		if err != nil {
			p.t.Errorf("message: %v", err)
			continue
		}
		m.Payload = bytes.Clone(m.Payload)
		if ack := p.take(m, bytes.Clone(data)); ack != nil {
			conn.Write(websocket.Binary, ack)
		}
	}
}

// lost notes that a connection has ended: a late one of our own may have replaced it.
func (p *peer) lost(conn *websocket.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == conn {
		p.conn = nil
	}
}

// take handles a message and returns the acknowledgement that it asks for.
func (p *peer) take(m *wire.Message, data []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m.Type {
	case wire.TypeAcknowledge:
		p.frames = append(p.frames, data)
		var ack wire.Acknowledge
		json.Unmarshal(m.Payload, &ack)
		p.forget(ack.SequenceNumber)
		return nil
	case wire.TypeChannelClosed:
		var c wire.ChannelClosed
		json.Unmarshal(m.Payload, &c)
		if p.closing != nil {
			p.t.Error("channel_closed came twice")
		}
		p.closing = &c
		if p.conn != nil {
			p.conn.Abort()
		}
		return nil
	case wire.TypePausePublication, wire.TypeStartPublication, wire.TypeNotice:
		p.control = append(p.control, m.Type)
		return nil
	case wire.TypeInputStreamData, wire.TypeOutputStreamData:
		p.frames = append(p.frames, data)
		return p.takeStream(m)
	}
	p.t.Errorf("unexpected %s", m.Type)
	return nil
}

func (p *peer) takeStream(m *wire.Message) []byte {
	if p.noAck {
		return nil
	}
	ack := wire.NewAcknowledge(m, time.Now()).Encode()
	switch {
	case m.SequenceNumber < p.expected && !p.isAgent:
		return nil
	case m.SequenceNumber > p.expected:
		p.early[m.SequenceNumber] = m
	case m.SequenceNumber == p.expected:
		for ; m != nil; m = p.early[p.expected] {
			delete(p.early, p.expected)
			if m.PayloadType == wire.PayloadOutput {
				p.got.Write(m.Payload)
			}
			p.payloads = append(p.payloads, m.PayloadType)
			p.expected++
		}
	}
	return ack
}

func (p *peer) forget(seq int64) {
	for i, data := range p.unacked {
		if h, _ := wire.Peek(data); h.SequenceNumber == seq {
			p.unacked = append(p.unacked[:i:i], p.unacked[i+1:]...)
			return
		}
	}
}

// send sends stream data: numbered and kept, also while the connection is down.
func (p *peer) send(pt wire.PayloadType, payload string) {
	p.mu.Lock()
	data := wire.NewStream(p.typ, p.seq, pt, time.Now(), []byte(payload)).Encode()
	p.seq++
	p.unacked = append(p.unacked, data)
	conn := p.conn
	p.mu.Unlock()
	if conn != nil {
		conn.Write(websocket.Binary, data)
	}
}

func (p *peer) say(text string) { p.send(wire.PayloadOutput, text) }

func (p *peer) sendState(id, state string) {
	m := wire.NewJSON(wire.TypeAgentSessionState, time.Now(), wire.SessionState{SchemaVersion: 1, SessionState: state, SessionID: id})
	p.mu.Lock()
	conn := p.conn
	p.mu.Unlock()
	if conn != nil {
		conn.Write(websocket.Binary, m.Encode())
	}
}

func (p *peer) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got.String()
}

func (p *peer) goodbye() *wire.ChannelClosed {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closing
}

func (p *peer) settled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.unacked) == 0
}

func (p *peer) wantText(what, want string) {
	p.t.Helper()
	eventually(p.t, what, func() bool { return len(p.text()) >= len(want) })
	if got := p.text(); got != want {
		p.t.Fatalf("%s: got %q, want %q", what, got, want)
	}
}

func (p *peer) wantGoodbye(text string) *wire.ChannelClosed {
	p.t.Helper()
	eventually(p.t, "channel_closed", func() bool { return p.goodbye() != nil })
	c := p.goodbye()
	if !strings.Contains(c.Output, text) || text == "" && c.Output != "" {
		p.t.Fatalf("channel_closed: got %q, want %q", c.Output, text)
	}
	return c
}

// session is a started session with both ends attached.
func (w *world) started(a *fakeAgent, change ...func(*StartRequest)) (id, token string) {
	w.t.Helper()
	req := StartRequest{
		Session: Session{
			ID: NewID("alice"), NodeID: a.node, Document: "SSM-SessionManagerRunShell", SessionType: "Standard_Stream",
			Owner: "arn:aws:iam::111111111111:user/alice",
		},
		Start:   wire.StartSession{DocumentName: "SSM-SessionManagerRunShell", DocumentContent: json.RawMessage(`{}`)},
		Options: Options{Record: true},
	}
	for _, f := range change {
		f(&req)
	}
	token, err := w.g.Start(w.t.Context(), req)
	if err != nil {
		w.t.Fatal(err)
	}
	return req.Session.ID, token
}

func (w *world) pair(change ...func(*StartRequest)) (a *fakeAgent, id string, agent, client *peer) {
	w.t.Helper()
	a = w.agent(testNode)
	id, token := w.started(a, change...)
	agent = a.open(id)
	client = w.client(id, token)
	w.wantState(id, StateConnected)
	return a, id, agent, client
}

func (w *world) wantState(id string, want State) Session {
	w.t.Helper()
	eventually(w.t, "state "+string(want), func() bool { return w.store.row(id).State == want })
	return w.store.row(id)
}

var errDisk = errors.New("disk is full")

var _ io.Writer = testLog{}
