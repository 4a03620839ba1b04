package session

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/internal/vectors"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

const vectorDir = "../wire/testdata/vectors"

// TestReplayOfOfficialPrograms plays the recorded lines of AWS's plugin and agent
// against the gateway. Every line waits until the gateway has delivered what the
// lines before it led to, and everything delivered must be what was sent, byte for
// byte; acknowledgements are compared as sets.
func TestReplayOfOfficialPrograms(t *testing.T) {
	played := 0
	for _, tr := range vectors.LoadAll(t, vectorDir) {
		if len(tr.Info.Sessions) != 1 || !hasData(tr) {
			continue
		}
		played++
		t.Run(tr.Name, func(t *testing.T) {
			t.Parallel()
			newReplay(t, tr).run()
		})
	}
	if played < 18 {
		t.Errorf("%d transcripts were played, want at least 18", played)
	}
}

func hasData(tr *vectors.Transcript) bool {
	for _, l := range tr.Lines {
		if l.Chan == "data" && l.Event == "ws-binary" && l.From == "plugin" {
			return true
		}
	}
	return false
}

// replay is one transcript on its way through a gateway.
type replay struct {
	t     *testing.T
	tr    *vectors.Transcript
	w     *world
	agent *fakeAgent
	id    string
	token string
	ends  map[string]*recorded // plugin and agent
	sent  map[string][]byte    // by key: what a message was when first sent
	wants map[string][]string  // by receiver: keys, in the order of the recording
}

// recorded is an end that says what the recording says, and notes what it hears.
type recorded struct {
	mu     sync.Mutex
	conn   *websocket.Conn
	heard  map[string][]byte
	stream []int64 // numbers of stream messages, as first heard
	closed []wire.ChannelClosed
	gone   chan struct{}
}

func newReplay(t *testing.T, tr *vectors.Transcript) *replay {
	w := newWorld(t)
	r := &replay{
		t: t, tr: tr, w: w, agent: w.agent(testNode), id: tr.Info.Sessions[0],
		ends: map[string]*recorded{}, sent: map[string][]byte{}, wants: map[string][]string{},
	}
	for _, end := range []string{"plugin", "agent"} {
		r.ends[end] = &recorded{heard: map[string][]byte{}}
	}
	return r
}

func (r *replay) run() {
	defer r.close()
	for i := range r.tr.Lines {
		l := &r.tr.Lines[i]
		if !l.Background {
			r.play(l)
		}
	}
	r.settle("the end")
	r.compare()
}

func (r *replay) close() {
	for _, e := range r.ends {
		e.cut()
	}
}

// play plays one line.
func (r *replay) play(l *vectors.Line) {
	switch {
	case l.From == "server" && l.Event == "ws-binary" && l.Chan == "control":
		r.control(l)
	case l.From == "server" && l.Event == "ws-binary" && l.RelayOf != 0:
		r.wants[l.To] = append(r.wants[l.To], key(r.t, r.tr.Message(r.tr.Line(l.RelayOf))))
	case l.From == "server" && l.Event == "ws-drop" && l.Chan == "data":
		r.settle("a drop")
		r.ends[other(l)].cut()
	case l.Event == "http-request" && strings.Contains(l.Body, `"SessionId"`) && target(l) == "AmazonSSM.TerminateSession":
		r.settle("termination")
		if err := r.w.g.Terminate(r.t.Context(), r.id, &Cause{Reason: ReasonTerminated}); err != nil {
			r.t.Fatal(err)
		}
	case l.Event == "ws-text" && l.Chan == "data":
		r.open(l)
	case l.Event == "ws-binary" && l.From == "agent" && l.Chan == "control":
		r.report(l)
	case l.Event == "ws-binary" && l.Chan == "data" && l.From != "server":
		r.say(l)
	case l.Event == "ws-end" && l.From == "agent" && l.Chan == "data":
		r.settle("the agent leaves")
		r.ends["agent"].cut()
	}
}

// other names the end of a dropped connection.
func other(l *vectors.Line) string {
	if l.To != "" && l.To != "server" {
		return l.To
	}
	return l.From
}

func target(l *vectors.Line) string {
	for _, h := range l.Headers {
		if strings.EqualFold(h[0], "X-Amz-Target") {
			return h[1]
		}
	}
	return ""
}

// control starts the session where the recording's server did.
func (r *replay) control(l *vectors.Line) {
	m, err := wire.Decode(r.tr.Message(l))
	if err != nil {
		r.t.Fatal(err)
	}
	if m.Type != wire.TypeInteractiveShell || r.token != "" {
		return
	}
	var task wire.ControlTask
	var start wire.StartSession
	var doc struct {
		SessionType string `json:"sessionType"`
	}
	for _, step := range []struct {
		from []byte
		to   any
	}{{m.Payload, &task}, {nil, &start}, {nil, &doc}} {
		from := step.from
		if step.to == any(&start) {
			from = []byte(task.Content)
		} else if step.to == any(&doc) {
			from = start.DocumentContent
		}
		if err := json.Unmarshal(from, step.to); err != nil {
			r.t.Fatal(err)
		}
	}
	r.token, err = r.w.g.Start(r.t.Context(), StartRequest{
		Session: Session{ID: r.id, NodeID: testNode, Document: start.DocumentName, SessionType: doc.SessionType, Owner: start.SessionOwner},
		Start:   start,
		Options: Options{Record: doc.SessionType != "Port"},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "interactive_shell", func() bool { return r.agent.started() > 0 })
	got := r.agent.starts[0]
	got.DataChannelToken, got.Bulk, got.Reattach = "", nil, 0 // what only our agent knows
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(start)
	if !bytes.Equal(a, b) {
		r.t.Errorf("interactive_shell: got %s, want %s", a, b)
	}
}

// open opens a data channel as the recorded end does.
func (r *replay) open(l *vectors.Line) {
	r.settle("a channel is opened")
	var opening wire.Opening
	if err := json.Unmarshal([]byte(l.Text), &opening); err != nil {
		r.t.Fatal(err)
	}
	node := ""
	if l.From == "agent" {
		node = testNode
		token, err := r.w.g.AgentToken(r.t.Context(), r.id, node)
		if err != nil {
			r.t.Fatal(err)
		}
		opening.TokenValue = token
	} else if opening.TokenValue = r.token; r.ends["plugin"].gone != nil {
		token, err := r.w.g.Resume(r.t.Context(), r.id)
		if err != nil || token == "" {
			r.t.Fatalf("resuming: %q, %v", token, err)
		}
		opening.TokenValue = token
	}
	r.ends[l.From].use(r.t, r.w.dial("/v1/data-channel/"+r.id+"?role=publish_subscribe", node, opening))
}

// report plays a message on the control channel.
func (r *replay) report(l *vectors.Line) {
	r.settle("a report")
	m, err := wire.Decode(r.tr.Message(l))
	if err != nil {
		r.t.Fatal(err)
	}
	if m.Type != wire.TypeAgentTaskComplete {
		return
	}
	before := r.agent.acked()
	if err := r.agent.conn.Write(websocket.Binary, r.tr.Message(l)); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "acknowledgement of the report", func() bool { return r.agent.acked() > before })
	if got, want := r.agent.acks[len(r.agent.acks)-1].MessageID, l.Frame.ID; got != want {
		r.t.Errorf("acknowledged report: got %s, want %s", got, want)
	}
}

// say sends a message on a data channel.
func (r *replay) say(l *vectors.Line) {
	r.settle(fmt.Sprint("line ", l.N))
	data := r.tr.Message(l)
	if k := key(r.t, data); r.sent[k] == nil {
		r.sent[k] = data
	}
	e := r.ends[l.From]
	e.mu.Lock()
	conn := e.conn
	e.mu.Unlock()
	if conn != nil {
		conn.Write(websocket.Binary, data) // the plugin goes on typing into a channel that was closed
	}
}

// settle waits until everything that was to be relayed so far has arrived.
func (r *replay) settle(before string) {
	r.t.Helper()
	for _, end := range []string{"plugin", "agent"} {
		e := r.ends[end]
		for _, k := range r.wants[end] {
			deadline := time.Now().Add(5 * time.Second)
			for !e.has(k) {
				if time.Now().After(deadline) {
					r.t.Fatalf("before %s: %s did not get %s", before, end, k)
				}
				time.Sleep(time.Millisecond)
			}
		}
	}
}

// compare checks everything at the end.
func (r *replay) compare() {
	client := r.ends["plugin"]
	eventually(r.t, "channel_closed", func() bool { client.mu.Lock(); defer client.mu.Unlock(); return len(client.closed) > 0 })
	for end, e := range r.ends {
		e.mu.Lock()
		for k, data := range e.heard {
			if !strings.Contains(k, wire.TypeAcknowledge) && !bytes.Equal(data, r.sent[k]) {
				r.t.Errorf("%s got %s changed", end, k)
			}
		}
		for i, seq := range e.stream {
			if seq != int64(i) {
				r.t.Errorf("%s got message %d in place %d", end, seq, i)
			}
		}
		e.mu.Unlock()
	}
	if len(client.closed) != 1 {
		r.t.Errorf("%d channel_closed to the client, want 1", len(client.closed))
	}
	if got, want := client.closed[0].Output, r.output(); got != want {
		r.t.Errorf("text to the client: got %q, want %q", got, want)
	}
}

// output is the text that the recording's server closed the client's channel with.
func (r *replay) output() string {
	for _, l := range r.tr.Between("server", "plugin") {
		if l.Event != "ws-binary" || l.Hex == "" {
			continue
		}
		if m, err := wire.Decode(r.tr.Message(&l)); err == nil && m.Type == wire.TypeChannelClosed {
			var c wire.ChannelClosed
			json.Unmarshal(m.Payload, &c)
			return c.Output
		}
	}
	return ""
}

// key names a message: its type and number, or those of what it acknowledges.
func key(t testing.TB, data []byte) string {
	h, err := wire.Peek(data)
	if err != nil {
		t.Fatal(err)
	}
	seq := h.SequenceNumber
	if h.Type == wire.TypeAcknowledge {
		seq, _ = ackedSequence(h.Payload)
	}
	return fmt.Sprintf("%s %d", h.Type, seq)
}

func (e *recorded) use(t *testing.T, conn *websocket.Conn) {
	e.mu.Lock()
	e.conn, e.gone = conn, make(chan struct{})
	gone := e.gone
	e.mu.Unlock()
	go func() {
		defer close(gone)
		for {
			_, data, err := conn.Read()
			if err != nil {
				return
			}
			e.hear(t, bytes.Clone(data))
		}
	}()
}

func (e *recorded) hear(t *testing.T, data []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h, err := wire.Peek(data)
	if err != nil {
		t.Errorf("message: %v", err)
		return
	}
	if h.Type == wire.TypeChannelClosed {
		var c wire.ChannelClosed
		json.Unmarshal(h.Payload, &c)
		e.closed = append(e.closed, c)
		e.conn.Abort()
		return
	}
	k := key(t, data)
	if _, again := e.heard[k]; !again && h.Type != wire.TypeAcknowledge {
		e.stream = append(e.stream, h.SequenceNumber)
	}
	e.heard[k] = data
}

func (e *recorded) has(k string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.heard[k]
	return ok
}

func (e *recorded) cut() {
	e.mu.Lock()
	conn, gone := e.conn, e.gone
	e.conn = nil
	e.mu.Unlock()
	if conn != nil {
		conn.Abort()
		<-gone
	}
}
