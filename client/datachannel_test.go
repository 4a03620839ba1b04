package client

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"sallyport.dev/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func shellConfig(f *fakeServer, s *screen) ChannelConfig {
	cfg := f.config()
	cfg.Handlers[StandardStream] = s
	return cfg
}

func TestOpeningMessage(t *testing.T) {
	f := newFakeServer(t)
	run(t, shellConfig(f, newScreen()))
	c := f.next()
	c.opening.RequestID = mustNotBeEmpty(t, "RequestId", c.opening.RequestID)
	c.opening.ClientID = mustNotBeEmpty(t, "ClientId", c.opening.ClientID)
	want := wire.Opening{MessageSchemaVersion: "1.0", TokenValue: "token-0", ClientVersion: "1.2.700.0"}
	if diff := cmp.Diff(want, c.opening); diff != "" {
		t.Errorf("opening message (-want +got):\n%s", diff)
	}
}

func mustNotBeEmpty(t *testing.T, name, v string) string {
	if v == "" {
		t.Errorf("%s is empty", name)
	}
	return ""
}

func TestShellWithoutHandshake(t *testing.T) {
	f, s := newFakeServer(t), newScreen()
	r := run(t, shellConfig(f, s))
	c := f.next()
	c.send(0, wire.PayloadOutput, "$ ")
	c.receiveAcknowledgements(0)
	<-r.Started()
	if err := r.Send(context.Background(), wire.PayloadOutput, []byte("ls\r")); err != nil {
		t.Fatal(err)
	}
	m := c.receiveStream(wire.PayloadOutput)
	if got := string(m.Payload); got != "ls\r" || m.SequenceNumber != 0 {
		t.Errorf("input: got %q with number %d, want %q with 0", got, m.SequenceNumber, "ls\r")
	}
	status := 7
	c.closed("", &status)
	end, err := r.wait()
	if err != nil || end.ExitStatus == nil || *end.ExitStatus != 7 {
		t.Errorf("end: got %+v, %v, want exit status 7", end, err)
	}
}

// Output is shown in order and once, whatever order and however often it comes.
func TestOrder(t *testing.T) {
	f, s := newFakeServer(t), newScreen()
	r := run(t, shellConfig(f, s))
	c := f.next()
	c.send(1, wire.PayloadOutput, "b")
	c.send(3, wire.PayloadOutput, "d")
	c.send(0, wire.PayloadOutput, "a")
	c.send(0, wire.PayloadOutput, "a")
	c.send(3, wire.PayloadOutput, "d")
	c.send(2, wire.PayloadOutput, "c")
	c.receiveAcknowledgements(0, 1, 2, 3)
	s.waitFor(t, "abcd")
	c.send(1, wire.PayloadOutput, "b") // handled long ago: acknowledged once more
	c.receiveAcknowledgements(1)
	c.closed("", nil)
	r.wait()
	if got := s.text(); got != "abcd" {
		t.Errorf("screen: got %q, want %q", got, "abcd")
	}
}

// What arrived before the end is shown before the end, however slow the screen is.
func TestEverythingShownBeforeEnd(t *testing.T) {
	f, s := newFakeServer(t), newScreen()
	s.hold = make(chan struct{})
	r := run(t, shellConfig(f, s))
	c := f.next()
	want := ""
	for i := range int64(50) {
		c.send(i, wire.PayloadOutput, "x")
		want += "x"
	}
	c.closed("bye", nil)
	close(s.hold)
	end, err := r.wait()
	if err != nil || end.Output != "bye" {
		t.Errorf("end: got %+v, %v", end, err)
	}
	if s.text() != want {
		t.Errorf("screen: got %q, want %q", s.text(), want)
	}
}

// A message is acknowledged when it was taken, not before: that is the flow control.
func TestAcknowledgedAfterTaken(t *testing.T) {
	f, s := newFakeServer(t), newScreen()
	s.hold = make(chan struct{})
	run(t, shellConfig(f, s))
	c := f.next()
	c.send(0, wire.PayloadOutput, "slow")
	c.conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, _, err := c.conn.Read(); err == nil {
		t.Error("something was sent before the handler had taken the message")
	}
	close(s.hold)
}

func handshake(types ...string) string {
	req := wire.HandshakeRequest{AgentVersion: "3.3.40.0"}
	for _, typ := range types {
		p, _ := json.Marshal(wire.SessionTypeParameters{SessionType: typ, Properties: json.RawMessage(`{"portNumber":"22"}`)})
		req.RequestedClientActions = append(req.RequestedClientActions, wire.RequestedAction{ActionType: wire.ActionSessionType, ActionParameters: p})
	}
	b, _ := json.Marshal(req)
	return string(b)
}

func TestHandshake(t *testing.T) {
	kms := `{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"k"}}]}`
	odd := `{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"Dance","ActionParameters":{}}]}`
	tests := []struct {
		name, request string
		status        int
		error         string
	}{
		{"a type with a handler", handshake(NonInteractiveCommands), wire.ActionSuccess, ""},
		{"a type without one", handshake(Port), wire.ActionFailed, `session type "Port" is not supported by this client`},
		{"an unheard-of type", handshake("Telnet"), wire.ActionFailed, `session type "Telnet" is not supported by this client`},
		{"encryption", kms, wire.ActionUnsupported, "this client does not support encryption with KMS; the document sets kmsKeyId"},
		{"an unknown action", odd, wire.ActionUnsupported, `handshake action "Dance" is not known to this client`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeServer(t)
			cfg := f.config()
			cfg.Handlers[NonInteractiveCommands] = newScreen()
			run(t, cfg)
			c := f.next()
			c.send(0, wire.PayloadHandshakeRequest, tt.request)
			var res wire.HandshakeResponse
			if err := json.Unmarshal(c.receiveStream(wire.PayloadHandshakeResponse).Payload, &res); err != nil {
				t.Fatal(err)
			}
			if res.ClientVersion != Version || len(res.ProcessedClientActions) != 1 {
				t.Fatalf("response: got %+v", res)
			}
			if a := res.ProcessedClientActions[0]; a.ActionStatus != tt.status || a.Error != tt.error {
				t.Errorf("action: got %+v, want status %d, error %q", a, tt.status, tt.error)
			}
		})
	}
}

func TestHandshakeStartsHandler(t *testing.T) {
	f, s := newFakeServer(t), newScreen()
	cfg := f.config()
	cfg.Handlers[NonInteractiveCommands] = s
	var said []string
	cfg.Notify = func(text string) { said = append(said, text) }
	r := run(t, cfg)
	c := f.next()
	c.send(0, wire.PayloadHandshakeRequest, handshake(NonInteractiveCommands))
	c.receiveStream(wire.PayloadHandshakeResponse)
	c.send(1, wire.PayloadHandshakeComplete, `{"HandshakeTimeToComplete":1,"CustomerMessage":"welcome"}`)
	c.send(2, wire.PayloadOutput, "out")
	c.send(3, wire.PayloadStdErr, "err")
	c.send(4, wire.PayloadExitCode, "EXIT_CODE: 3")
	c.send(5, wire.PayloadFlag, flag(wire.FlagConnectToPortError))
	c.receiveAcknowledgements(0, 1, 2, 3, 4, 5)
	c.closed("", nil)
	r.wait()
	want := []wire.PayloadType{wire.PayloadOutput, wire.PayloadStdErr, wire.PayloadExitCode, wire.PayloadFlag}
	if diff := cmp.Diff(want, s.types); diff != "" {
		t.Errorf("payload types (-want +got):\n%s", diff)
	}
	if string(s.properties) != `{"portNumber":"22"}` {
		t.Errorf("properties: got %s", s.properties)
	}
	if diff := cmp.Diff([]string{"welcome"}, said); diff != "" {
		t.Errorf("said (-want +got):\n%s", diff)
	}
}

// A lost link is replaced; what was typed meanwhile and what was not acknowledged
// comes in order, with the numbers it had.
func TestResume(t *testing.T) {
	f, s := newFakeServer(t), newScreen()
	block := make(chan struct{})
	f.resume = func(n int) (Stream, error) {
		<-block
		return Stream{Token: "fresh", URL: f.url()}, nil
	}
	r := run(t, shellConfig(f, s))
	c := f.next()
	c.send(0, wire.PayloadOutput, "$ ")
	c.receiveAcknowledgements(0)
	r.Send(context.Background(), wire.PayloadOutput, []byte("a"))
	if m := c.receive(); string(m.Payload) != "a" { // and not acknowledged
		t.Fatalf("got %q", m.Payload)
	}
	c.drop()
	for _, key := range []string{"b", "c"} { // typed in the gap
		r.Send(context.Background(), wire.PayloadOutput, []byte(key))
	}
	close(block)
	c2 := f.next()
	if c2.opening.TokenValue != "fresh" || c2.opening.ClientID != c.opening.ClientID {
		t.Errorf("opening message: got %+v, want token fresh and client %s", c2.opening, c.opening.ClientID)
	}
	for i, want := range []string{"a", "b", "c"} {
		m := c2.receiveStream(wire.PayloadOutput)
		if string(m.Payload) != want || m.SequenceNumber != int64(i) {
			t.Errorf("message %d: got %q with number %d, want %q", i, m.Payload, m.SequenceNumber, want)
		}
	}
	c2.send(0, wire.PayloadOutput, "$ ") // the agent had not seen the acknowledgement
	c2.send(1, wire.PayloadOutput, "abc")
	s.waitFor(t, "$ abc")
}

func TestResumeRefused(t *testing.T) {
	tests := []struct {
		name   string
		stream Stream
		err    error
		want   error
	}{
		{"the session is over", Stream{}, nil, ErrTimedOut},
		{"the right was taken away", Stream{}, &smithy.GenericAPIError{Code: "AccessDeniedException", Message: "no"}, ErrLost},
		{"the session is unknown", Stream{}, &smithy.GenericAPIError{Code: "DoesNotExistException", Message: "no"}, ErrLost},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeServer(t)
			f.resume = func(int) (Stream, error) { return tt.stream, tt.err }
			r := run(t, shellConfig(f, newScreen()))
			c := f.next()
			c.send(0, wire.PayloadOutput, "$ ")
			c.receiveAcknowledgements(0)
			c.drop()
			if _, err := r.wait(); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// Busy servers and expired credentials are no reason to give up.
func TestResumeRetries(t *testing.T) {
	f, s := newFakeServer(t), newScreen()
	f.resume = func(n int) (Stream, error) {
		switch n {
		case 1:
			return Stream{}, &smithy.GenericAPIError{Code: "ExpiredTokenException"}
		case 2:
			return Stream{}, errors.New("connection refused")
		}
		return Stream{Token: "third", URL: f.url()}, nil
	}
	said := make(chan string, 8)
	cfg := shellConfig(f, s)
	cfg.Notify = func(text string) { said <- text }
	run(t, cfg)
	c := f.next()
	c.send(0, wire.PayloadOutput, "$ ")
	c.receiveAcknowledgements(0)
	c.drop()
	if got := f.next().opening.TokenValue; got != "third" {
		t.Errorf("token: got %q, want third", got)
	}
	for _, want := range []string{"connection lost", "reconnected"} {
		if got := <-said; !strings.Contains(got, want) {
			t.Errorf("said %q, want %q in it", got, want)
		}
	}
}

func TestResumeGivesUp(t *testing.T) {
	f := newFakeServer(t)
	f.resume = func(int) (Stream, error) { return Stream{}, errors.New("no route to host") }
	cfg := shellConfig(f, newScreen())
	cfg.ResumeFor = 300 * time.Millisecond
	r := run(t, cfg)
	c := f.next()
	c.send(0, wire.PayloadOutput, "$ ")
	c.receiveAcknowledgements(0)
	c.drop()
	if _, err := r.wait(); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "no route to host") {
		t.Errorf("got %v, want %v with its cause", err, ErrLost)
	}
}

// An unacknowledged message is sent again after a while, byte for byte.
func TestResend(t *testing.T) {
	f := newFakeServer(t)
	r := run(t, shellConfig(f, newScreen()))
	c := f.next()
	r.Send(context.Background(), wire.PayloadOutput, []byte("k"))
	first, second := c.receive(), c.receive()
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("resent message differs (-first +second):\n%s", diff)
	}
}

// A server that accepts everything and hangs up at once is not asked for ever.
func TestHangingUpServer(t *testing.T) {
	f := newFakeServer(t)
	cfg := shellConfig(f, newScreen())
	cfg.ResumeFor = 300 * time.Millisecond
	r := run(t, cfg)
	go func() {
		for {
			select {
			case c := <-f.conns:
				c.drop()
			case <-r.done:
				return
			}
		}
	}()
	if _, err := r.wait(); !errors.Is(err, ErrLost) {
		t.Errorf("got %v, want %v", err, ErrLost)
	}
}

// What a hostile server sends is dropped, or ends the link, and never the program.
func TestHostileServer(t *testing.T) {
	huge := wire.NewStream(wire.TypeOutputStreamData, 1, wire.PayloadOutput, time.Now(), make([]byte, wire.MaxMessage)).Encode()
	badDigest := wire.NewStream(wire.TypeOutputStreamData, 1, wire.PayloadOutput, time.Now(), []byte("forged")).Encode()
	badDigest[90] ^= 1
	badHeader := append([]byte{0xff, 0xff, 0xff, 0xff}, make([]byte, 200)...)
	tests := []struct {
		name string
		p    []byte
		cuts bool // the link ends
	}{
		{"short", []byte("hi"), false},
		{"header length beyond the end", badHeader, false},
		{"wrong digest", badDigest, false},
		{"oversize", huge, true},
		{"unknown type", wire.New("dance", time.Now(), nil).Encode(), false},
		{"acknowledgement of what was never sent", wire.NewAcknowledge(&wire.Message{SequenceNumber: 1 << 62}, time.Now()).Encode(), false},
		{"negative acknowledgement", wire.NewAcknowledge(&wire.Message{SequenceNumber: -5}, time.Now()).Encode(), false},
		{"acknowledgement that is no JSON", wire.New(wire.TypeAcknowledge, time.Now(), []byte("{")).Encode(), false},
		{"negative sequence", wire.NewStream(wire.TypeOutputStreamData, -1, wire.PayloadOutput, time.Now(), []byte("x")).Encode(), false},
		{"sequence far ahead", wire.NewStream(wire.TypeOutputStreamData, 1<<62, wire.PayloadOutput, time.Now(), []byte("x")).Encode(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, s := newFakeServer(t), newScreen()
			run(t, shellConfig(f, s))
			c := f.next()
			c.send(0, wire.PayloadOutput, "a")
			c.receiveAcknowledgements(0)
			c.raw(tt.p)
			if tt.cuts {
				c = f.next()
			}
			c.send(1, wire.PayloadOutput, "b")
			s.waitFor(t, "ab")
		})
	}
}

// What is held for a slow screen or across a gap is bounded.
func TestBoundedMemory(t *testing.T) {
	in := newIncoming()
	payload := make([]byte, 64<<10)
	for seq := int64(1); seq < 1000; seq++ { // 0 never comes
		in.arrive(&wire.Message{SequenceNumber: seq, Payload: payload})
	}
	if in.size > maxHeldBytes || len(in.held) > maxHeldMessages {
		t.Errorf("held: %d messages of %d bytes", len(in.held), in.size)
	}
	if v := in.arrive(&wire.Message{SequenceNumber: 0, Payload: payload}); v != take {
		t.Errorf("the missing message: got %v, want it taken whatever is held", v)
	}
	if v := in.arrive(&wire.Message{SequenceNumber: 500, Payload: payload}); v != wait {
		t.Errorf("a message beyond the limit while the handler moves: got %v, want wait", v)
	}
}

// A sender with too much unacknowledged waits, and goes on with the acknowledgements.
func TestSendWaitsForRoom(t *testing.T) {
	f := newFakeServer(t)
	r := run(t, shellConfig(f, newScreen()))
	c := f.next()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sent := make(chan int, 1)
	go func() {
		n := 0
		for ; n < 200; n++ {
			if r.Send(ctx, wire.PayloadOutput, make([]byte, 16<<10)) != nil {
				break
			}
		}
		sent <- n
	}()
	seen := map[int64]bool{}
	for len(seen) < 200 {
		m := c.receive()
		if m.Type == wire.TypeInputStreamData {
			seen[m.SequenceNumber] = true
			c.acknowledge(m)
		}
	}
	if n := <-sent; n != 200 {
		t.Errorf("sent: got %d, want 200", n)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out.bytes > maxUnackedBytes+(17<<10) {
		t.Errorf("kept: got %d bytes", r.out.bytes)
	}
}

// A full screen holds the server back instead of filling memory; leaving works even
// while a write hangs.
func TestLeavingWhileScreenHangs(t *testing.T) {
	f, s := newFakeServer(t), newScreen()
	s.hold = make(chan struct{})
	r := run(t, shellConfig(f, s))
	c := f.next()
	c.send(0, wire.PayloadOutput, "stuck")
	time.Sleep(50 * time.Millisecond)
	r.stop(ErrLeft)
	if _, err := r.wait(); !errors.Is(err, ErrLeft) {
		t.Errorf("got %v, want %v", err, ErrLeft)
	}
	close(s.hold)
}

func TestHandlerErrorEnds(t *testing.T) {
	f, s := newFakeServer(t), newScreen()
	s.fail = errors.New("disk full")
	r := run(t, shellConfig(f, s))
	f.next().send(0, wire.PayloadOutput, "x")
	if _, err := r.wait(); err != s.fail {
		t.Errorf("got %v, want %v", err, s.fail)
	}
}

// A link that is dead without being closed is noticed by the missing pong.
func TestDeadLinkIsNoticed(t *testing.T) {
	d := NewDataChannel(ChannelConfig{})
	link := &deadLink{closed: make(chan struct{})}
	start := time.Now()
	d.link, d.heard, d.nextPing = link, start, start
	d.keepOnce(start)
	if link.pings != 1 {
		t.Fatalf("pings: got %d, want 1", link.pings)
	}
	d.keepOnce(start.Add(pongTimeout))
	if link.isClosed() {
		t.Fatal("closed too early")
	}
	d.keepOnce(start.Add(pongTimeout + tick))
	if !link.isClosed() {
		t.Error("a link without pong is still open")
	}
}

// A missing acknowledgement makes the client ask at once whether the link lives.
func TestProbe(t *testing.T) {
	d := NewDataChannel(ChannelConfig{})
	link := &deadLink{closed: make(chan struct{})}
	start := time.Now()
	d.link, d.heard, d.nextPing = link, start, start.Add(pingEvery)
	d.now = func() time.Time { return start }
	d.trySend(wire.PayloadOutput, []byte("x"), false)
	for at := start; at.Before(start.Add(probeAfter)); at = at.Add(tick) {
		d.out.due(at) // resending does not put it off
	}
	d.mu.Lock()
	ping := d.pingDueLocked(start.Add(probeAfter + tick))
	d.mu.Unlock()
	if !ping {
		t.Error("no ping although an acknowledgement is overdue")
	}
}

type deadLink struct {
	pings  int
	closed chan struct{}
}

func (l *deadLink) Read() (bool, []byte, error) { <-l.closed; return false, nil, errors.New("closed") }
func (l *deadLink) Write(bool, []byte) error    { return nil }
func (l *deadLink) Ping() error                 { l.pings++; return nil }
func (l *deadLink) OnPong(func())               {}
func (l *deadLink) Close() error                { close(l.closed); return nil }
func (l *deadLink) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// A panic anywhere reaches the goroutine that called Run, so that what it deferred runs.
func TestPanicReachesCaller(t *testing.T) {
	f := newFakeServer(t)
	cfg := f.config()
	cfg.Handlers[StandardStream] = panicking{}
	go func() { f.next().send(0, wire.PayloadOutput, "x") }()
	defer func() {
		if p := recover(); p != "boom" {
			t.Errorf("recovered: got %v, want boom", p)
		}
	}()
	NewDataChannel(cfg).Run(context.Background())
	t.Error("Run returned")
}

type panicking struct{}

func (panicking) Start(json.RawMessage) error         { return nil }
func (panicking) Take(wire.PayloadType, []byte) error { panic("boom") }
