package agent

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/agent/shell"
	"sallyport.dev/identity"
	"sallyport.dev/internal/seal"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

const (
	testNode     = "mi-0123456789abcdef0"
	testCode     = "EXAMPLE-ACTIVATION-CODE"
	testID       = "11111111-2222-3333-4444-555555555555"
	patience     = time.Minute // of tests; nothing should take as long, on the busiest machine
	testDocument = `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{}}`
)

// gateway is a server's side of the protocol with a script in place of a mind. It
// checks signatures with the server's own verifier.
type gateway struct {
	t        testing.TB
	srv      *httptest.Server
	sealer   *seal.Key
	verifier *identity.Verifier

	facts    chan wire.UpdateInstanceInformation
	controls chan *websocket.Conn
	life     time.Duration // of credentials

	mu       sync.Mutex
	conns    []*websocket.Conn
	keys     map[string]*rsa.PublicKey
	gone     map[string]*rsa.PublicKey // of nodes that were deregistered
	prints   map[string]string
	rotate   bool                            // ask for a new key with the next credentials
	lose     string                          // operation whose next answer is lost after it took effect
	refuse   func(op string) (int, string)   // status and code
	denied   func(id string) string          // body of a refusal of a data channel
	decrypt  func(in decryptInput) []byte    // of the key service; nil for what it refuses
	data     map[string]chan *websocket.Conn // by session
	openings map[string][]wire.Opening       // of data channels, by session
	asked    map[string]int                  // tokens asked for, by session
	counts   map[string]int                  // calls, by operation
}

func newGateway(t testing.TB) *gateway {
	t.Helper()
	key, err := seal.New(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{
		t: t, sealer: key, life: time.Hour,
		facts: make(chan wire.UpdateInstanceInformation, 64), controls: make(chan *websocket.Conn, 64),
		keys: map[string]*rsa.PublicKey{}, gone: map[string]*rsa.PublicKey{}, prints: map[string]string{}, data: map[string]chan *websocket.Conn{},
		openings: map[string][]wire.Opening{}, asked: map[string]int{}, counts: map[string]int{},
	}
	g.verifier = identity.NewVerifier(identity.VerifierConfig{
		Machines: g, Sealer: key, Now: time.Now, Regions: []string{"us-east-1"},
	})
	g.srv = httptest.NewUnstartedServer(g)
	g.srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	g.srv.StartTLS()
	t.Cleanup(g.close) // after the agent has been stopped
	return g
}

func (g *gateway) close() {
	g.srv.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, conn := range g.conns {
		conn.Abort()
	}
}

// Machine implements identity.Machines.
func (g *gateway) Machine(_ context.Context, id string) (identity.Machine, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.keys[id] == nil {
		return identity.Machine{}, identity.ErrNotFound
	}
	return identity.Machine{ID: id, PublicKey: g.keys[id]}, nil
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	op := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSSM.")
	if op != "RegisterManagedInstance" {
		if err := g.authenticate(r, body); err != nil {
			code := "InvalidSignatureException"
			var e *identity.AuthError
			if errors.As(err, &e) && e.Failure == identity.UnknownKey {
				code = "UnrecognizedClientException"
			}
			g.note(code)
			fail(w, http.StatusForbidden, code, err.Error())
			return
		}
	}
	switch {
	case op != "":
		g.operation(w, op, body)
	case r.Method == http.MethodPost:
		g.createChannel(w, r)
	case strings.HasPrefix(r.URL.Path, "/v1/control-channel/"):
		if conn := g.upgrade(w, r); conn != nil {
			g.controls <- conn
		}
	default:
		g.dataChannel(w, r)
	}
}

// authenticate checks the signature, and that the node is still there.
func (g *gateway) authenticate(r *http.Request, body []byte) error {
	proof, err := g.verifier.Verify(r.Context(), r, body)
	if err != nil || proof.Claims == nil {
		return err
	}
	if _, err := g.Machine(r.Context(), proof.Claims.Name); err != nil {
		return &identity.AuthError{Failure: identity.UnknownKey}
	}
	return nil
}

func fail(w http.ResponseWriter, status int, code, text string) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": text})
}

func (g *gateway) operation(w http.ResponseWriter, op string, body []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts[op]++
	if g.refuse != nil {
		if status, code := g.refuse(op); status != 0 {
			fail(w, status, code, "refused by the test")
			return
		}
	}
	switch op {
	case "RegisterManagedInstance":
		g.register(w, body)
	case "RequestManagedInstanceRoleToken":
		g.roleToken(w, body)
	case "UpdateManagedInstancePublicKey":
		var in wire.UpdateManagedInstancePublicKey
		json.Unmarshal(body, &in)
		g.keys[testNode] = parseKey(g.t, in.NewPublicKey)
		if g.lose == op {
			g.lose = ""
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, "{}")
	case "UpdateInstanceInformation":
		var in wire.UpdateInstanceInformation
		json.Unmarshal(body, &in)
		select {
		case g.facts <- in:
		default:
		}
		io.WriteString(w, "{}")
	case "TrentService.Decrypt":
		g.decryptKey(w, body)
	default:
		fail(w, http.StatusBadRequest, "UnknownOperationException", op)
	}
}

func (g *gateway) decryptKey(w http.ResponseWriter, body []byte) {
	var in decryptInput
	json.Unmarshal(body, &in)
	key := g.decrypt(in)
	if key == nil {
		fail(w, http.StatusBadRequest, "AccessDeniedException", "not this key")
		return
	}
	json.NewEncoder(w).Encode(map[string][]byte{"Plaintext": key})
}

func (g *gateway) register(w http.ResponseWriter, body []byte) {
	var in wire.RegisterManagedInstance
	json.Unmarshal(body, &in)
	if in.ActivationCode != testCode || in.ActivationID != testID {
		fail(w, http.StatusBadRequest, "InvalidActivation", "")
		return
	}
	id := testNode
	if n := len(g.prints); n > 0 {
		id = fmt.Sprintf("mi-%017d", n)
	}
	g.keys[id], g.prints[id] = parseKey(g.t, in.PublicKey), in.Fingerprint
	json.NewEncoder(w).Encode(wire.RegisterManagedInstanceResult{InstanceID: id})
}

func (g *gateway) roleToken(w http.ResponseWriter, body []byte) {
	var in wire.RequestManagedInstanceRoleToken
	json.Unmarshal(body, &in)
	node := ""
	for id, print := range g.prints {
		if print == in.Fingerprint {
			node = id
		}
	}
	if node == "" {
		fail(w, http.StatusBadRequest, "MachineFingerprintDoesNotMatch", "")
		return
	}
	now := time.Now()
	c, err := identity.NewIssuer(g.sealer).Issue(identity.Claims{
		Kind: identity.KindNode, Name: node, IssuedAt: now, ExpiresAt: now.Add(g.life),
	})
	if err != nil {
		g.t.Error(err)
	}
	out := wire.RequestManagedInstanceRoleTokenResult{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
		TokenExpirationDate: float64(c.Expires.Unix() + 1), UpdateKeyPair: g.rotate,
	}
	g.rotate = false
	json.NewEncoder(w).Encode(out)
}

func parseKey(t testing.TB, s string) *rsa.PublicKey {
	t.Helper()
	der, _ := base64.StdEncoding.DecodeString(s)
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Error(err)
		return nil
	}
	return k.(*rsa.PublicKey)
}

func (g *gateway) createChannel(w http.ResponseWriter, r *http.Request) {
	kind, id, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	g.mu.Lock()
	g.asked[id]++
	denied := g.denied
	g.mu.Unlock()
	if kind == "data-channel" && denied != nil {
		if text := denied(id); text != "" {
			http.Error(w, text, http.StatusBadRequest)
			return
		}
	}
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, "<CreateChannelAnswer><MessageSchemaVersion>1.0</MessageSchemaVersion><TokenValue>token-%s</TokenValue></CreateChannelAnswer>", id)
}

func (g *gateway) upgrade(w http.ResponseWriter, r *http.Request) *websocket.Conn {
	conn, err := websocket.Upgrade(w, r, websocket.Options{ReadLimit: wire.MaxMessage})
	if err != nil {
		return nil
	}
	_, b, err := conn.Read()
	var o wire.Opening
	if err != nil || json.Unmarshal(b, &o) != nil || o.MessageSchemaVersion != "1.0" || o.RequestID == "" {
		g.t.Errorf("got opening %q, %v", b, err)
		conn.Abort()
		return nil
	}
	id := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	g.mu.Lock()
	g.openings[id] = append(g.openings[id], o)
	g.conns = append(g.conns, conn)
	g.mu.Unlock()
	return conn
}

func (g *gateway) dataChannel(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.Path, "/v1/data-channel/")
	if conn := g.upgrade(w, r); conn != nil {
		g.links(id) <- conn
	}
}

func (g *gateway) links(id string) chan *websocket.Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.data[id] == nil {
		g.data[id] = make(chan *websocket.Conn, 64)
	}
	return g.data[id]
}

// note counts a refusal by its code.
func (g *gateway) note(code string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts[code]++
}

// deregister forgets a node and closes its channels, as the server does.
func (g *gateway) deregister(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gone[id] = g.keys[id]
	delete(g.keys, id)
	for _, conn := range g.conns {
		conn.Abort()
	}
}

// restore brings a node back that was deregistered.
func (g *gateway) restore(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keys[id] = g.gone[id]
}

func (g *gateway) count(op string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counts[op]
}

// config is the configuration of an agent of this gateway.
func (g *gateway) config() Config {
	dir := g.t.TempDir()
	ca := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.srv.Certificate().Raw}), 0o600); err != nil {
		g.t.Fatal(err)
	}
	var log io.Writer = io.Discard
	if testing.Verbose() {
		log = g.t.Output()
	}
	return Config{
		Servers: []string{g.srv.URL}, CAFile: ca, StateDir: filepath.Join(dir, "state"),
		Activation: Activation{ID: testID, Code: testCode}, Shell: shell.Options{RunAsSelf: true, Program: plainShell(g.t)},
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// plainShell is a shell with a prompt known beforehand, whoever runs the tests.
func plainShell(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shell")
	script := "#!/bin/sh\nexec env PS1='$ ' sh\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs an agent until the test ends; stop stops it earlier and returns its error.
func run(t testing.TB, cfg Config) (a *Agent, stop func() error) {
	t.Helper()
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = a.Run(ctx)
	}()
	stop = func() error {
		cancel()
		<-done
		return err
	}
	t.Cleanup(func() { stop() })
	return a, stop
}

// control is the server's end of a control channel.
type control struct {
	t        testing.TB
	conn     *websocket.Conn
	noAck    bool
	complete chan wire.TaskComplete
	jobs     chan *wire.Message
	gone     chan struct{}
}

// control waits for the agent to open a control channel and serves it.
func (g *gateway) control() *control {
	g.t.Helper()
	c := g.rawControl()
	go c.serve()
	return c
}

func (g *gateway) rawControl() *control {
	g.t.Helper()
	return &control{
		t: g.t, conn: receive(g.t, g.controls, "a control channel"), complete: make(chan wire.TaskComplete, 1024),
		jobs: make(chan *wire.Message, 64), gone: make(chan struct{}),
	}
}

func receive[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

func (c *control) serve() {
	defer close(c.gone)
	for {
		_, b, err := c.conn.Read()
		if err != nil {
			return
		}
		m, err := wire.Decode(b)
		if err != nil {
			c.t.Errorf("decoding a control message: %v", err)
			continue
		}
		switch m.Type {
		case wire.TypeAgentTaskComplete:
			var tc wire.TaskComplete
			json.Unmarshal(m.Payload, &tc)
			if !c.noAck {
				c.write(wire.NewJSON(wire.TypeAgentTaskAcknowledge, time.Now(), wire.TaskAcknowledge{
					SchemaVersion: 1, MessageID: m.ID.String(), TaskID: tc.TaskID, Topic: tc.Topic,
				}))
			}
			c.complete <- tc
		case wire.TypeAgentJobAck, wire.TypeAgentJobReply:
			m.Payload = bytes.Clone(m.Payload)
			c.jobs <- m
		default:
			c.t.Errorf("got control message %s", m.Type)
		}
	}
}

func (c *control) write(m *wire.Message) { c.conn.Write(websocket.Binary, m.Encode()) }

// start asks for a session.
func (c *control) start(s wire.StartSession) {
	if s.DocumentContent == nil {
		s.DocumentContent = json.RawMessage(testDocument)
	}
	content, err := json.Marshal(s)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(wire.NewJSON(wire.TypeInteractiveShell, time.Now(), wire.ControlTask{
		Content: string(content), TaskID: s.SessionID, Topic: "StartSession", SchemaVersion: 1,
	}))
}

func (c *control) terminate(id string) {
	c.write(wire.NewJSON(wire.TypeChannelClosed, time.Now(), wire.ChannelClosed{
		MessageType: wire.TypeChannelClosed, SessionID: id, SchemaVersion: 1, CreatedDate: "now",
	}))
}

// completed waits for the end of a session.
func (c *control) completed(id string) wire.TaskComplete {
	c.t.Helper()
	for {
		tc := receive(c.t, c.complete, "the end of session "+id)
		if tc.TaskID == id {
			return tc
		}
	}
}

// peer is the client's end of a session, relayed: it puts output in order,
// acknowledges it, and repeats its own input until that is acknowledged.
type peer struct {
	t    testing.TB
	g    *gateway
	id   string
	wake chan struct{}

	mu       sync.Mutex
	conn     *websocket.Conn
	out      bytes.Buffer
	states   []string
	expected int64
	early    map[int64][]byte
	types    map[int64]wire.PayloadType
	repeats  int // messages received that had been received before
	payloads []wire.PayloadType
	firsts   [][]byte // what payloads are the types of; the first of a session
	byType   map[wire.PayloadType]string
	joined   string // without handshake messages
	streamed []byte // of PayloadExecStreams, which out leaves out
	acked    []int64
	inputSeq int64
	unacked  map[int64]*wire.Message
	noAcks   bool
	largest  int
	ended    chan struct{} // the current link's reader has ended
}

const maxFirsts = 1000

// attach waits for the agent's data channel and serves it.
func (g *gateway) attach(id string) *peer {
	g.t.Helper()
	p := &peer{t: g.t, g: g, id: id, wake: make(chan struct{}, 1), early: map[int64][]byte{}, unacked: map[int64]*wire.Message{}, types: map[int64]wire.PayloadType{}, byType: map[wire.PayloadType]string{}}
	p.reattach()
	return p
}

func (p *peer) reattach() {
	p.t.Helper()
	conn := receive(p.t, p.g.links(p.id), "a data channel")
	p.mu.Lock()
	p.conn, p.ended = conn, make(chan struct{})
	for seq := range p.inputSeq {
		if m := p.unacked[seq]; m != nil {
			conn.Write(websocket.Binary, m.Encode())
		}
	}
	ended := p.ended
	p.mu.Unlock()
	go p.read(conn, ended)
}

func (p *peer) read(conn *websocket.Conn, ended chan struct{}) {
	defer notify(p.wake)
	defer close(ended)
	for {
		_, b, err := conn.Read()
		if err != nil {
			return
		}
		m, err := wire.Decode(b)
		if err != nil {
			p.t.Errorf("decoding: %v", err)
			continue
		}
		p.message(conn, m)
		notify(p.wake)
	}
}

func (p *peer) message(conn *websocket.Conn, m *wire.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m.Type {
	case wire.TypeOutputStreamData:
		p.output(m)
		if !p.noAcks {
			conn.Write(websocket.Binary, wire.NewAcknowledge(m, time.Now()).Encode())
		}
	case wire.TypeAcknowledge:
		var a wire.Acknowledge
		json.Unmarshal(m.Payload, &a)
		delete(p.unacked, a.SequenceNumber)
		p.acked = append(p.acked, a.SequenceNumber)
	case wire.TypeAgentSessionState:
		var s wire.SessionState
		json.Unmarshal(m.Payload, &s)
		p.states = append(p.states, s.SessionState)
	default:
		p.t.Errorf("got message %s", m.Type)
	}
}

func (p *peer) output(m *wire.Message) {
	p.largest = max(p.largest, len(m.Payload))
	if _, had := p.early[m.SequenceNumber]; had || m.SequenceNumber < p.expected {
		p.repeats++
		return
	}
	p.early[m.SequenceNumber] = bytes.Clone(m.Payload)
	p.types[m.SequenceNumber] = m.PayloadType
	for {
		b, ok := p.early[p.expected]
		if !ok {
			return
		}
		pt := p.types[p.expected]
		p.payloads = append(p.payloads, pt)
		if len(p.firsts) < maxFirsts {
			p.firsts = append(p.firsts, b)
		}
		if pt == wire.PayloadExecStreams {
			p.streamed = append(p.streamed, b...)
		} else if pt != wire.PayloadHandshakeRequest && pt != wire.PayloadHandshakeComplete {
			p.out.Write(b)
			p.transcript(pt, b)
		}
		delete(p.early, p.expected)
		p.expected++
	}
}

// transcript keeps a replayed session's output by type; bulk is not replayed.
func (p *peer) transcript(pt wire.PayloadType, b []byte) {
	if len(p.joined) < 1<<16 {
		p.byType[pt] += string(b)
		p.joined += string(b)
	}
}

// send sends input.
func (p *peer) send(pt wire.PayloadType, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := wire.NewStream(wire.TypeInputStreamData, p.inputSeq, pt, time.Now(), b)
	p.unacked[p.inputSeq] = m
	p.inputSeq++
	p.conn.Write(websocket.Binary, m.Encode())
}

func (p *peer) typed(s string) { p.send(wire.PayloadOutput, []byte(s)) }

func (p *peer) size(cols, rows int) {
	p.send(wire.PayloadSize, fmt.Appendf(nil, `{"cols":%d,"rows":%d}`, cols, rows))
}

// screen is the output so far.
func (p *peer) screen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// until waits until cond, which is called with p.mu held, holds.
func (p *peer) until(what string, cond func() bool) {
	p.t.Helper()
	limit := time.After(patience)
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		p.mu.Lock()
		ok := cond()
		p.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-p.wake:
		case <-again.C:
			p.repeat()
		case <-limit:
			s := p.screen()
			p.t.Fatalf("%s: did not happen; screen ends in %q", what, s[max(0, len(s)-500):])
		}
	}
}

// repeat sends the oldest unacknowledged input again, as the official client does.
func (p *peer) repeat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for seq := range p.inputSeq {
		if m := p.unacked[seq]; m != nil {
			p.conn.Write(websocket.Binary, m.Encode())
			return
		}
	}
}

func (p *peer) expect(text string) {
	p.t.Helper()
	p.until("output of "+text, func() bool { return bytes.Contains(p.out.Bytes(), []byte(text)) })
}

func (p *peer) state(s string) {
	p.t.Helper()
	p.until("state "+s, func() bool { return len(p.states) > 0 && p.states[len(p.states)-1] == s })
}

// cut drops the link as a broken network would, and waits for the agent's next one.
func (p *peer) cut() {
	p.t.Helper()
	p.mu.Lock()
	conn, ended := p.conn, p.ended
	p.mu.Unlock()
	conn.Abort()
	<-ended
	p.reattach()
}
