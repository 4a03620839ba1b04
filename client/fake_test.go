package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// patience bounds every wait of a test.
const patience = 20 * time.Second

// fakeServer is a server with an agent behind it, on loopback: each data channel
// that a client opens is handed to the test.
type fakeServer struct {
	t     *testing.T
	http  *httptest.Server
	conns chan *fakeConn

	mu      sync.Mutex
	resumed int
	resume  func(n int) (Stream, error) // nil: a new token
}

func newFakeServer(t *testing.T) *fakeServer {
	f := &fakeServer{t: t, conns: make(chan *fakeConn, 16)}
	f.http = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.http.Close)
	return f
}

func (f *fakeServer) url() string { return "ws" + strings.TrimPrefix(f.http.URL, "http") }

func (f *fakeServer) serve(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Upgrade(w, r, websocket.Options{ReadLimit: wire.MaxMessage})
	if err != nil {
		return
	}
	kind, p, err := conn.Read()
	if err != nil || kind != websocket.Text {
		conn.Close()
		return
	}
	c := &fakeConn{t: f.t, conn: conn}
	if err := json.Unmarshal(p, &c.opening); err != nil {
		f.t.Errorf("opening message: %v", err)
	}
	f.conns <- c
}

// next waits for the client to open a data channel.
func (f *fakeServer) next() *fakeConn {
	f.t.Helper()
	select {
	case c := <-f.conns:
		return c
	case <-time.After(patience):
		f.t.Fatal("the client opened no data channel")
		return nil
	}
}

func (f *fakeServer) stream() Stream {
	return Stream{SessionID: "alice-0123456789abcdef0", Token: "token-0", URL: f.url()}
}

func (f *fakeServer) resumeSession(_ context.Context, id string) (Stream, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resumed++
	if f.resume != nil {
		return f.resume(f.resumed)
	}
	return Stream{SessionID: id, Token: fmt.Sprintf("token-%d", f.resumed), URL: f.url()}, nil
}

func (f *fakeServer) config() ChannelConfig {
	return ChannelConfig{
		Stream:   f.stream(),
		Dial:     Dialer(nil, "test"),
		Resume:   f.resumeSession,
		Handlers: map[string]Handler{},
	}
}

// fakeConn is the server's end of one data channel.
type fakeConn struct {
	t       *testing.T
	conn    *websocket.Conn
	opening wire.Opening
}

// send sends a stream message of the agent.
func (c *fakeConn) send(seq int64, pt wire.PayloadType, payload string) {
	m := wire.NewStream(wire.TypeOutputStreamData, seq, pt, time.Now(), []byte(payload))
	c.raw(m.Encode())
}

func (c *fakeConn) raw(p []byte) { c.conn.Write(websocket.Binary, p) }

// closed ends the session.
func (c *fakeConn) closed(output string, exit *int) {
	c.raw(wire.NewJSON(wire.TypeChannelClosed, time.Now(), wire.ChannelClosed{
		MessageType: wire.TypeChannelClosed, SchemaVersion: 1, CreatedDate: "now", Output: output, ExitStatus: exit,
	}).Encode())
}

// receive returns the client's next message.
func (c *fakeConn) receive() *wire.Message {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(patience))
	_, p, err := c.conn.Read()
	if err != nil {
		c.t.Fatalf("reading from the client: %v", err)
	}
	m, err := wire.Decode(append([]byte(nil), p...))
	if err != nil {
		c.t.Fatalf("the client sent a bad message: %v", err)
	}
	return m
}

// receiveStream returns the client's next stream message of a type, acknowledging
// every stream message on the way.
func (c *fakeConn) receiveStream(pt wire.PayloadType) *wire.Message {
	c.t.Helper()
	for {
		m := c.receive()
		if m.Type != wire.TypeInputStreamData {
			continue
		}
		c.acknowledge(m)
		if m.PayloadType == pt {
			return m
		}
	}
}

func (c *fakeConn) acknowledge(m *wire.Message) {
	c.raw(wire.NewAcknowledge(m, time.Now()).Encode())
}

// receiveAcknowledgements reads until the client acknowledged all of seqs.
func (c *fakeConn) receiveAcknowledgements(seqs ...int64) {
	c.t.Helper()
	want := map[int64]bool{}
	for _, s := range seqs {
		want[s] = true
	}
	for len(want) > 0 {
		if m := c.receive(); m.Type == wire.TypeAcknowledge {
			var ack wire.Acknowledge
			if err := json.Unmarshal(m.Payload, &ack); err != nil {
				c.t.Fatal(err)
			}
			delete(want, ack.SequenceNumber)
		}
	}
}

// drop breaks the link without a word.
func (c *fakeConn) drop() { c.conn.Close() }

// screen is a handler that keeps what it gets.
type screen struct {
	mu         sync.Mutex
	changed    chan struct{}
	shown      []byte
	types      []wire.PayloadType
	properties json.RawMessage
	hold       chan struct{} // when set, Take waits for it
	fail       error
}

func newScreen() *screen { return &screen{changed: make(chan struct{}, 1)} }

func (s *screen) Start(properties json.RawMessage) error {
	s.properties = properties
	return nil
}

func (s *screen) Take(pt wire.PayloadType, p []byte) error {
	if s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = append(s.shown, p...)
	s.types = append(s.types, pt)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return s.fail
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.shown)
}

// waitFor waits until the screen shows text and nothing else.
func (s *screen) waitFor(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(patience)
	for s.text() != text {
		select {
		case <-s.changed:
		case <-deadline:
			t.Fatalf("screen: got %q, want %q", s.text(), text)
		}
	}
}

// running is a data channel whose Run goes on.
type running struct {
	*DataChannel
	t    *testing.T
	stop context.CancelCauseFunc
	done chan struct{}
	end  End
	err  error
}

func run(t *testing.T, cfg ChannelConfig) *running {
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &running{DataChannel: NewDataChannel(cfg), t: t, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.end, r.err = r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel(nil)
		<-r.done
	})
	return r
}

func (r *running) wait() (End, error) {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		r.t.Fatal("the data channel did not end")
	}
	return r.end, r.err
}

func flag(v uint32) string { return string(binary.BigEndian.AppendUint32(nil, v)) }

func acknowledgedNumber(t *testing.T, m *wire.Message) int64 {
	t.Helper()
	var ack wire.Acknowledge
	if err := json.Unmarshal(m.Payload, &ack); err != nil {
		t.Fatal(err)
	}
	return ack.SequenceNumber
}

// output collects what is written, and lets tests wait for it.
type output struct {
	mu   sync.Mutex
	cond *sync.Cond
	buf  bytes.Buffer
}

func newOutput() *output {
	o := &output{}
	o.cond = sync.NewCond(&o.mu)
	return o
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cond.Broadcast()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// waitFor waits until text is part of what was written.
func (o *output) waitFor(t *testing.T, text string) {
	t.Helper()
	timer := time.AfterFunc(patience, o.cond.Broadcast)
	defer timer.Stop()
	deadline := time.Now().Add(patience)
	o.mu.Lock()
	defer o.mu.Unlock()
	for !strings.Contains(o.buf.String(), text) {
		if time.Now().After(deadline) {
			t.Fatalf("output: got %q, want %q in it", o.buf.String(), text)
		}
		o.cond.Wait()
	}
}
