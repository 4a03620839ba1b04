package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/xtaci/smux"

	"sallyport.dev/internal/mux"
	"sallyport.dev/wire"
)

// fakeAgent is the agent of a Port session behind a fakeServer. Read gives the bytes of
// the client's Output payloads, as AWS's agent has them, and Write sends such.
type fakeAgent struct {
	t     *testing.T
	conn  *fakeConn
	r     *io.PipeReader
	w     *io.PipeWriter
	flags chan uint32
	ended chan struct{}
	reply wire.HandshakeResponse

	mu  sync.Mutex
	seq int64
}

// shake makes the handshake of an agent with the given version.
func shake(t *testing.T, f *fakeServer, version string, p wire.SessionTypeParameters) *fakeAgent {
	t.Helper()
	a := &fakeAgent{t: t, conn: f.next(), flags: make(chan uint32, 64), ended: make(chan struct{})}
	a.r, a.w = io.Pipe()
	p.SessionType = Port
	params, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	a.sendJSON(wire.PayloadHandshakeRequest, wire.HandshakeRequest{AgentVersion: version, RequestedClientActions: []wire.RequestedAction{
		{ActionType: wire.ActionSessionType, ActionParameters: params},
	}})
	m := a.conn.receiveStream(wire.PayloadHandshakeResponse)
	if err := json.Unmarshal(m.Payload, &a.reply); err != nil {
		t.Fatal(err)
	}
	a.sendJSON(wire.PayloadHandshakeComplete, wire.HandshakeComplete{})
	go a.pump()
	t.Cleanup(func() {
		a.conn.drop()
		a.r.Close()
		<-a.ended
	})
	return a
}

func (a *fakeAgent) pump() {
	defer close(a.ended)
	defer a.w.Close()
	for {
		_, p, err := a.conn.conn.Read()
		if err != nil {
			return
		}
		m, err := wire.Decode(bytes.Clone(p))
		if err != nil || m.Type != wire.TypeInputStreamData {
			continue
		}
		switch m.PayloadType {
		case wire.PayloadOutput:
			a.w.Write(m.Payload)
		case wire.PayloadFlag:
			a.flags <- binary.BigEndian.Uint32(m.Payload)
		}
		a.conn.acknowledge(m)
	}
}

func (a *fakeAgent) sendJSON(pt wire.PayloadType, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		a.t.Fatal(err)
	}
	a.send(pt, b)
}

func (a *fakeAgent) send(pt wire.PayloadType, b []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conn.send(a.seq, pt, string(b))
	a.seq++
}

func (a *fakeAgent) Read(b []byte) (int, error) { return a.r.Read(b) }
func (a *fakeAgent) Close() error               { return a.r.Close() }
func (a *fakeAgent) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), 1024) // as AWS's agent cuts it
		a.send(wire.PayloadOutput, rest[:n])
		rest = rest[n:]
	}
	return len(b), nil
}

func (a *fakeAgent) wantFlag(want uint32) {
	a.t.Helper()
	select {
	case got := <-a.flags:
		if got != want {
			a.t.Errorf("flag: got %d, want %d", got, want)
		}
	case <-time.After(patience):
		a.t.Fatalf("flag %d did not come", want)
	}
}

var manyPorts = json.RawMessage(`{"portNumber":"80","type":"LocalPortForwarding","localPortNumber":"0"}`)

// forwarding runs a forward.
func forwarding(t *testing.T, f *fakeServer, cfg ForwardConfig) (forward *Forward, stop func() (End, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	forward = NewForward(f.config(), cfg)
	done := make(chan struct{})
	var end End
	var err error
	go func() {
		defer close(done)
		end, err = forward.Run(ctx)
	}()
	stop = func() (End, error) {
		cancel()
		<-done
		return end, err
	}
	t.Cleanup(func() { stop() })
	return forward, stop
}

// AWS's agents above 3.0.196.0 get plain smux. A refusal, which they tell of beside the
// connection, is put down to the connection that they close next.
func TestForwardOfficialMux(t *testing.T) {
	f := newFakeServer(t)
	events := make(chan ForwardEvent, 64)
	forward, stop := forwarding(t, f, ForwardConfig{Event: func(e ForwardEvent) { events <- e }})
	a := shake(t, f, "3.3.0.0", wire.SessionTypeParameters{Properties: manyPorts})
	if got := string(a.reply.ProcessedClientActions[0].ActionResult); got != "null" {
		t.Errorf("answer to AWS's agent: got %s, want null", got)
	}
	cfg := smux.DefaultConfig()
	cfg.KeepAliveDisabled = true
	session, err := smux.Server(a, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	c, err := forward.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	st, err := session.AcceptStream()
	if err != nil {
		t.Fatal(err)
	}
	c.Write([]byte("hello"))
	b := make([]byte, 5)
	if _, err := io.ReadFull(st, b); err != nil || string(b) != "hello" {
		t.Fatalf("got %q, %v", b, err)
	}
	st.Write([]byte("world"))
	st.Close()
	if got, err := io.ReadAll(c); string(got) != "world" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	c.Close()
	wantEvents(t, events, ForwardOpened, ForwardClosed)

	c, err = forward.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	st, err = session.AcceptStream()
	if err != nil {
		t.Fatal(err)
	}
	a.send(wire.PayloadFlag, []byte(flag(wire.FlagConnectToPortError)))
	st.Close()
	var refused *ForwardRefusedError
	if _, err := io.ReadAll(c); !errors.As(err, &refused) {
		t.Errorf("refused connection: got %v", err)
	}
	c.Close()
	wantEvents(t, events, ForwardOpened, ForwardRefused)

	if _, err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("end: got %v", err)
	}
	a.wantFlag(wire.FlagTerminateSession)
	if !forward.Left() {
		t.Error("the agent was not told of the end")
	}
}

func wantEvents(t *testing.T, events <-chan ForwardEvent, kinds ...ForwardEventKind) {
	t.Helper()
	for _, want := range kinds {
		select {
		case e := <-events:
			if e.Kind != want {
				t.Errorf("event: got %+v, want kind %d", e, want)
			}
		case <-time.After(patience):
			t.Fatalf("no event of kind %d", want)
		}
	}
}

// Towards agents that do not multiplex, connections take turns: the flag between them
// has the agent connect anew, and what it still sends for the last is not the next's.
func TestForwardBasic(t *testing.T) {
	for _, version := range []string{"3.0.196.0", "2.3.722.0", "strange"} {
		t.Run(version, func(t *testing.T) {
			f := newFakeServer(t)
			forward, _ := forwarding(t, f, ForwardConfig{})
			a := shake(t, f, version, wire.SessionTypeParameters{Properties: manyPorts})
			a.send(wire.PayloadOutput, []byte("banner")) // before anybody has connected
			for i := range 3 {
				c, err := forward.Open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(c, "request %d", i)
				b := make([]byte, 9)
				if _, err := io.ReadFull(a, b); err != nil || string(b) != fmt.Sprintf("request %d", i) {
					t.Fatalf("got %q, %v", b, err)
				}
				want := fmt.Sprintf("answer %d", i)
				a.send(wire.PayloadOutput, []byte(want))
				if i == 0 {
					want = "banner" + want
				}
				b = make([]byte, len(want))
				if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
					t.Errorf("got %q, %v, want %q", b, err, want)
				}
				if i == 0 {
					wantBusy(t, forward)
				}
				c.Close()
				a.wantFlag(wire.FlagDisconnectToPort)
			}
		})
	}
}

// wantBusy wants a second connection to wait for the first.
func wantBusy(t *testing.T, forward *Forward) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := forward.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second connection: got %v, want it to wait", err)
	}
}

// A session without the forwarding type carries one connection; its end is the
// session's.
func TestForwardSingleConnection(t *testing.T) {
	f := newFakeServer(t)
	forward, stop := forwarding(t, f, ForwardConfig{})
	a := shake(t, f, "3.3.0.0", wire.SessionTypeParameters{Properties: json.RawMessage(`{"portNumber":"22"}`)})
	c, err := forward.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !forward.Properties().Single() {
		t.Error("the forward does not know that it carries one connection")
	}
	c.Write([]byte("\n")) // AWS's client makes a carriage return of this
	b := make([]byte, 1)
	if _, err := io.ReadFull(a, b); err != nil || b[0] != '\n' {
		t.Errorf("got %q, %v", b, err)
	}
	a.send(wire.PayloadOutput, []byte("last words"))
	a.conn.closed("", nil)
	if got, err := io.ReadAll(c); string(got) != "last words" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	c.Close()
	if _, err := stop(); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := forward.Open(t.Context()); !errors.Is(err, ErrForwardOver) {
		t.Errorf("opening after the end: got %v", err)
	}
}

// Our agent's streams are ours, whatever the document's type; nothing of that is said to
// one that does not offer them.
func TestForwardOurAgent(t *testing.T) {
	f := newFakeServer(t)
	forward, _ := forwarding(t, f, ForwardConfig{})
	a := shake(t, f, "3.3.40.0", wire.SessionTypeParameters{Properties: json.RawMessage(`{"portNumber":"22"}`), Streams: wire.StreamsVersion})
	if got := string(a.reply.ProcessedClientActions[0].ActionResult); got != `{"Streams":1}` {
		t.Errorf("answer: got %s", got)
	}
	refusal := "connecting to 10.0.0.1:22: connection refused\x1b[2J"
	session := mux.New(mux.Config{Extended: true, Send: func(b []byte) error { _, err := a.Write(b); return err }, Accept: func(st *mux.Stream) { st.Refuse(refusal) }})
	defer session.Close(nil)
	go func() {
		for b := make([]byte, 4096); ; b = make([]byte, 4096) {
			n, err := a.Read(b)
			if err != nil || session.Receive(b[:n]) != nil {
				return
			}
		}
	}()
	var refused *ForwardRefusedError
	_, err := forward.Open(t.Context())
	if !errors.As(err, &refused) || !strings.HasPrefix(err.Error(), "connecting to 10.0.0.1:22: connection refused") || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("got %q", err)
	}
}

// A forward that is over says so to whoever opens, serves or waits.
func TestForwardEnds(t *testing.T) {
	f := newFakeServer(t)
	forward, _ := forwarding(t, f, ForwardConfig{})
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- forward.Serve(context.Background(), l) }()
	a := shake(t, f, "3.3.0.0", wire.SessionTypeParameters{Properties: manyPorts})
	local, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	<-forward.Ready()
	time.Sleep(20 * time.Millisecond)
	a.conn.closed("the grant has expired", nil)
	if err := <-served; !errors.Is(err, ErrForwardOver) {
		t.Errorf("Serve: got %v", err)
	}
	local.SetReadDeadline(time.Now().Add(patience))
	if _, err := local.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("local connection: got %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}

// A unix socket is its owner's alone, replaces a dead one, and nothing else.
func TestListenUnix(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v, %v, want 0600", info.Mode(), err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	if _, err := Listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "another program listens") {
		t.Errorf("second listener: got %v", err)
	}
	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: got %v", err)
	}
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if l, err = Listen("unix:" + path); err != nil {
		t.Errorf("over a dead socket: %v", err)
	} else {
		l.Close()
	}
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(precious, link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{precious, link} {
		if _, err := Listen("unix:" + p); err == nil || !strings.Contains(err.Error(), "no socket") {
			t.Errorf("%s: got %v", p, err)
		}
	}
	if b, err := os.ReadFile(precious); string(b) != "data" || err != nil {
		t.Errorf("the file: got %q, %v", b, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
}

// recordedPort is what the official plugin sent in a Port session of the transcripts:
// per stream (0 where nothing is multiplexed), and flags.
type recordedPort struct {
	data   map[uint32]string
	opened []uint32
	flags  []uint32
	rest   []byte
}

// add takes one message of the plugin and returns the streams that it opens, with what
// it says on each.
func (r *recordedPort) add(m *wire.Message, multiplexed bool) (opens []uint32, says map[uint32]string, closes []uint32) {
	says = map[uint32]string{}
	switch {
	case m.PayloadType == wire.PayloadFlag:
		r.flags = append(r.flags, binary.BigEndian.Uint32(m.Payload))
	case m.PayloadType != wire.PayloadOutput:
	case !multiplexed:
		says[0] = string(m.Payload)
		r.data[0] += string(m.Payload)
	default:
		for r.rest = append(r.rest, m.Payload...); len(r.rest) >= 8; {
			n, id := 8+int(binary.LittleEndian.Uint16(r.rest[2:])), binary.LittleEndian.Uint32(r.rest[4:])
			switch r.rest[1] {
			case 0:
				opens = append(opens, id)
			case 1:
				closes = append(closes, id)
			case 2:
				says[id] += string(r.rest[8:n])
				r.data[id] += string(r.rest[8:n])
			}
			r.rest = r.rest[n:]
		}
	}
	r.opened = append(r.opened, opens...)
	return opens, says, closes
}

// Our client sends what the official plugin sent, stream by stream, and hands over what
// that got, when it gets the official agent's frames.
func TestReplayForwards(t *testing.T) {
	for name, multiplexed := range map[string]bool{
		"07-forward-mux": true, "09-forward-remote-host": true, "08-forward-basic": false, "12-ssh-session": false,
	} {
		t.Run(name, func(t *testing.T) {
			lines := vector(t, name)
			f := newFakeServer(t)
			forward, stop := forwarding(t, f, ForwardConfig{})
			p := &replayedPort{t: t, forward: forward, conn: f.next(), multiplexed: multiplexed,
				conns: map[uint32]ForwardConn{}, got: map[uint32]*output{}, hex: map[int]string{},
				want: &recordedPort{data: map[uint32]string{}}, answered: &recordedPort{data: map[uint32]string{}}, sent: &recordedPort{data: map[uint32]string{}}}
			collected := make(chan struct{})
			go func() { defer close(collected); p.collect() }()
			for _, l := range lines {
				p.play(l)
			}
			stop()
			p.conn.drop()
			<-collected
			p.check()
		})
	}
}

type replayedPort struct {
	t           *testing.T
	forward     *Forward
	conn        *fakeConn
	multiplexed bool
	conns       map[uint32]ForwardConn
	got         map[uint32]*output // what came, by stream
	hex         map[int]string
	want        *recordedPort
	answered    *recordedPort // by the agent
	reading     sync.WaitGroup

	sent *recordedPort // of collect until it ends
}

func (p *replayedPort) collect() {
	for {
		_, b, err := p.conn.conn.Read()
		if err != nil {
			return
		}
		m, err := wire.Decode(bytes.Clone(b))
		if err != nil || m.Type != wire.TypeInputStreamData {
			continue
		}
		p.sent.add(m, p.multiplexed)
		p.conn.acknowledge(m)
	}
}

func (p *replayedPort) play(l line) {
	if l.Hex != "" {
		p.hex[l.N] = l.Hex
	}
	if l.Event != "ws-binary" || l.Chan != "data" {
		return
	}
	b, err := hex.DecodeString(l.Hex)
	if l.Hex == "" {
		b, err = hex.DecodeString(p.hex[l.RelayOf])
	}
	if err != nil || len(b) == 0 {
		p.t.Fatalf("line %d: %v", l.N, err)
	}
	m, err := wire.Decode(b)
	if err != nil {
		p.t.Fatalf("line %d: %v", l.N, err)
	}
	switch {
	case l.From == "server" && l.To == "plugin" && m.Type == wire.TypeOutputStreamData:
		p.conn.raw(b)
		if m.PayloadType == wire.PayloadOutput {
			p.answered.add(m, p.multiplexed)
			for id, data := range p.answered.data {
				p.got[id].waitFor(p.t, data)
			}
		}
	case l.From == "plugin" && m.Type == wire.TypeInputStreamData:
		p.act(m)
	}
}

// act does at our client's local end what happened at the plugin's.
func (p *replayedPort) act(m *wire.Message) {
	if m.PayloadType == wire.PayloadHandshakeResponse {
		return
	}
	opens, says, closes := p.want.add(m, p.multiplexed)
	if !p.multiplexed && m.PayloadType == wire.PayloadFlag && p.want.flags[len(p.want.flags)-1] == wire.FlagDisconnectToPort {
		closes = []uint32{0}
	}
	if !p.multiplexed && len(says) > 0 && p.conns[0] == nil {
		opens = []uint32{0}
	}
	for _, id := range opens {
		c, err := p.forward.Open(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		p.conns[id] = c
		if p.got[id] == nil {
			p.got[id] = newOutput()
		}
		out := p.got[id]
		p.reading.Go(func() { io.Copy(out, c) })
	}
	for id, text := range says {
		io.WriteString(p.conns[id], text)
	}
	for _, id := range closes {
		p.conns[id].Close()
		p.conns[id] = nil
	}
}

func (p *replayedPort) check() {
	p.reading.Wait()
	if diff := cmp.Diff(p.want.data, p.sent.data); diff != "" {
		p.t.Errorf("sent (-plugin +ours):\n%s", diff)
	}
	if diff := cmp.Diff(p.want.opened, p.sent.opened); diff != "" {
		p.t.Errorf("opened (-plugin +ours):\n%s", diff)
	}
	if len(p.want.flags) > 0 {
		if diff := cmp.Diff(p.want.flags, p.sent.flags); diff != "" {
			p.t.Errorf("flags (-plugin +ours):\n%s", diff)
		}
	}
	for id, out := range p.got {
		if got := out.String(); got != p.answered.data[id] || got == "" {
			p.t.Errorf("stream %d: got %q, want %q", id, got, p.answered.data[id])
		}
	}
}
