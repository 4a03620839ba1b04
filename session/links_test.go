package session

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// TestNoByteIsLostOrRepeated cuts both ends' links at random while they talk, with a
// warning of the server's own in between, and compares what each got with what the
// other sent. The recording must hold what the client saw.
func TestNoByteIsLostOrRepeated(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 2))
			w := newWorld(t)
			_, id, agent, client := w.pair()
			var fromAgent, fromClient strings.Builder
			agent.say("$ ")
			client.wantText("first output", "$ ")
			fromAgent.WriteString("$ ")
			injected := 0
			for i := range 400 {
				switch n := r.IntN(100); {
				case n < 45:
					text := fmt.Sprintf("<%d %s>", i, strings.Repeat("o", r.IntN(2000)))
					fromAgent.WriteString(text)
					agent.say(text)
				case n < 85:
					text := fmt.Sprintf("(%d)", i)
					fromClient.WriteString(text)
					client.say(text)
				case n < 91:
					client.cut()
				case n < 97:
					agent.cut()
				case n < 98 && injected < 3:
					w.g.session(id).inject([]byte("|warning|"))
					injected++
				}
				if r.IntN(4) == 0 {
					comeBack(t, agent, client)
				}
			}
			comeBack(t, agent, client)
			defer func() {
				if t.Failed() {
					t.Log(w.describe(id, agent, client))
				}
			}()
			eventually(t, "everything acknowledged", func() bool {
				comeBack(t, agent, client)
				return agent.settled() && client.settled()
			})
			eventually(t, "warnings", func() bool { return strings.Count(client.text(), "|warning|") == injected })
			if diff := cmp.Diff(fromAgent.String(), strings.ReplaceAll(client.text(), "|warning|", "")); diff != "" {
				t.Errorf("client got (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(fromClient.String(), agent.text()); diff != "" {
				t.Errorf("agent got (-want +got):\n%s", diff)
			}
			if w.rec.text() != client.text() {
				t.Error("the recording differs from what the client saw")
			}
		})
	}
}

// describe tells where the messages of a session are, for tests that fail.
func (w *world) describe(id string, agent, client *peer) string {
	s := w.g.session(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	text := ""
	for name, f := range map[string]*flow{"in": &s.in, "out": &s.out} {
		text += fmt.Sprintf("%s: expects %d, next out %d, held %d from %d written %d, early %d, again %v, acks %d, ready %v\n",
			name, f.expected, f.out, len(f.frames), f.first(), f.next, len(f.early), f.again, len(f.acks), f.ready)
	}
	for name, p := range map[string]*peer{"agent": agent, "client": client} {
		p.mu.Lock()
		oldest := int64(-1)
		if len(p.unacked) > 0 {
			h, _ := wire.Peek(p.unacked[0])
			oldest = h.SequenceNumber
		}
		text += fmt.Sprintf("%s: sent %d, unacknowledged %d from %d, expects %d, early %d, connected %v\n",
			name, p.seq, len(p.unacked), oldest, p.expected, len(p.early), p.conn != nil)
		p.mu.Unlock()
	}
	return text
}

// first is the number of the first message held.
func (f *flow) first() int64 {
	if len(f.frames) == 0 {
		return -1
	}
	return f.frames[0].seq
}

func comeBack(t *testing.T, peers ...*peer) {
	for _, p := range peers {
		p.mu.Lock()
		away := p.conn == nil
		p.mu.Unlock()
		if away && !p.back() {
			t.Fatal("cannot come back")
		}
	}
}

// A client that stops reading holds up its session, not the server's memory: what is
// held stays within the bound, the agent is asked to pause, and afterwards nothing is
// missing.
func TestSlowReaderIsHeldWithinBounds(t *testing.T) {
	const buffer = 256 << 10
	w := newWorld(t, func(c *Config) { c.Buffer = buffer })
	a := w.agent(testNode)
	id, token := w.started(a)
	agent := a.open(id)
	client := w.client(id, token)
	client.mu.Lock()
	client.noAck = true
	client.mu.Unlock()
	chunk := strings.Repeat("x", 16<<10)
	done := make(chan struct{})
	const chunks = 100
	go func() {
		defer close(done)
		for range chunks {
			agent.say(chunk)
		}
	}()
	s := w.g.session(id)
	held := func() int { s.mu.Lock(); defer s.mu.Unlock(); return s.out.bytes }
	eventually(t, "pause", func() bool { agent.mu.Lock(); defer agent.mu.Unlock(); return len(agent.control) > 0 })
	eventually(t, "the bound", func() bool { return held() >= buffer })
	time.Sleep(100 * time.Millisecond)
	if got := held(); got > buffer+len(chunk)+wire.PrefixLength+frameCost {
		t.Errorf("%d bytes are held, want at most %d and a message", got, buffer)
	}
	client.mu.Lock()
	client.noAck = false
	client.mu.Unlock()
	client.cut()
	client.back()
	<-done
	eventually(t, "all output", func() bool { return len(client.text()) >= chunks*len(chunk) })
	eventually(t, "start", func() bool {
		agent.mu.Lock()
		defer agent.mu.Unlock()
		return len(agent.control) > 0 && agent.control[len(agent.control)-1] == wire.TypeStartPublication
	})
	if got := client.text(); got != strings.Repeat(chunk, chunks) {
		t.Errorf("client got %d bytes, want %d, or others", len(got), chunks*len(chunk))
	}
}

// The end of the shell does not cut off what a slow client has not read yet.
func TestOutputIsDrainedBeforeTheEnd(t *testing.T) {
	w := newWorld(t)
	a, id, agent, client := w.pair()
	want := strings.Repeat("last words ", 200000)
	for i := 0; i < len(want); i += 20000 {
		agent.say(want[i:min(i+20000, len(want))])
	}
	agent.sendState(id, "Terminating")
	a.complete(id, "Success", "", nil)
	client.wantGoodbye("")
	if got := client.text(); got != want {
		t.Errorf("client got %d bytes, want %d", len(got), len(want))
	}
}

// A client whose link was down when the shell ended still gets what the shell said.
func TestClientComesBackForTheLastWords(t *testing.T) {
	w := newWorld(t)
	a, id, agent, client := w.pair()
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	client.cut()
	w.wantState(id, StateDisconnected)
	agent.say("last words")
	agent.sendState(id, "Terminating")
	a.complete(id, "Success", "", nil)
	w.wantState(id, StateTerminating)
	for range 3 {
		eventually(t, "link back", client.back)
		client.cut()
	}
	eventually(t, "link back", client.back)
	client.wantGoodbye("")
	client.wantText("all", "$ last words")
}

// What is left for a client that stays away does not keep the session.
func TestLastWordsAreKeptForAWhileOnly(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.DisconnectGrace = time.Second })
	a, id, agent, client := w.pair()
	client.cut()
	agent.say("last words")
	agent.sendState(id, "Terminating")
	a.complete(id, "Success", "", nil)
	w.wantState(id, StateTerminated)
}

func TestLateClientIsToldWhyTheSessionEnded(t *testing.T) {
	for _, forgotten := range []bool{false, true} {
		t.Run(fmt.Sprint("forgotten ", forgotten), func(t *testing.T) {
			w := newWorld(t, func(c *Config) {
				if forgotten {
					c.Linger = time.Millisecond
				}
			})
			a := w.agent(testNode)
			id, token := w.started(a)
			a.complete(id, "Failed", "no such user", nil)
			w.wantState(id, StateFailed)
			eventually(t, "forgetting", func() bool { return !forgotten || w.g.session(id) == nil })
			w.client(id, token).wantGoodbye("no such user")
		})
	}
}

// A client that lost its link, and asks for another after the end, gets a channel that
// does no more than tell it. It is not worth telling for ever.
func TestResumingAnEndedSession(t *testing.T) {
	var later atomic.Int64
	w := newWorld(t, func(c *Config) {
		c.Linger = time.Millisecond
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	a, id, _, client := w.pair()
	if err := w.g.Terminate(t.Context(), id, Terminated("bob", "")); err != nil {
		t.Fatal(err)
	}
	client.wantGoodbye("terminated by bob")
	a.complete(id, "Success", "", nil)
	w.wantState(id, StateTerminated)
	eventually(t, "forgetting", func() bool { return w.g.session(id) == nil })
	token, err := w.g.Resume(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	w.client(id, token).wantGoodbye("The session has ended: terminated: by bob.")
	later.Store(int64(lateFor + time.Minute))
	if token, err := w.g.Resume(t.Context(), id); token != "" || err != nil {
		t.Errorf("resuming what ended long ago: got %q, %v; want no token", token, err)
	}
}

func TestHostilePeers(t *testing.T) {
	const other = "mi-0ffffffffffffffff"
	w := newWorld(t, func(c *Config) { c.OpeningTimeout = 200 * time.Millisecond })
	a := w.agent(testNode)
	w.agent(other)
	id, token := w.started(a)
	otherID, otherToken := w.started(a)
	agentToken, err := w.g.AgentToken(t.Context(), id, testNode)
	if err != nil {
		t.Fatal(err)
	}
	path := "/v1/data-channel/" + id
	refused := func(t *testing.T, conn *websocket.Conn) {
		t.Helper()
		defer conn.Abort()
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, data, err := conn.Read(); err == nil {
			t.Errorf("got %q, want the end", data)
		}
		s := w.g.session(id)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.client != nil || s.agent != nil {
			t.Error("the channel was attached")
		}
	}
	t.Run("no token", func(t *testing.T) { refused(t, w.dial(path, "", wire.Opening{})) })
	t.Run("made-up token", func(t *testing.T) { refused(t, w.dial(path, "", wire.Opening{TokenValue: "c2VjcmV0"})) })
	t.Run("too many that say nothing", func(t *testing.T) {
		for len(w.g.waiting) < cap(w.g.waiting) {
			w.g.waiting <- struct{}{}
		}
		refused(t, w.dial(path, "", wire.Opening{TokenValue: token}))
		for len(w.g.waiting) > 0 {
			<-w.g.waiting
		}
	})
	t.Run("long token", func(t *testing.T) {
		refused(t, w.dial(path, "", wire.Opening{TokenValue: strings.Repeat("A", 10000)}))
	})
	t.Run("another session's token", func(t *testing.T) { refused(t, w.dial(path, "", wire.Opening{TokenValue: otherToken})) })
	t.Run("agent's token as a client", func(t *testing.T) { refused(t, w.dial(path, "", wire.Opening{TokenValue: agentToken})) })
	t.Run("client's token as an agent", func(t *testing.T) { refused(t, w.dial(path, testNode, wire.Opening{TokenValue: token})) })
	t.Run("agent's token as another node", func(t *testing.T) { refused(t, w.dial(path, other, wire.Opening{TokenValue: agentToken})) })
	t.Run("control token", func(t *testing.T) {
		refused(t, w.dial(path, testNode, wire.Opening{TokenValue: w.g.ControlToken(testNode)}))
	})
	t.Run("another node asks for a token", func(t *testing.T) {
		if token, err := w.g.AgentToken(t.Context(), id, other); err == nil {
			t.Errorf("got %q, want a refusal", token)
		}
	})
	t.Run("expired token", func(t *testing.T) {
		past := &Gateway{cfg: w.g.cfg}
		past.cfg.Now = func() time.Time { return time.Now().Add(-tokenLife - time.Second) }
		refused(t, w.dial(path, "", wire.Opening{TokenValue: past.newToken(roleClient, id)}))
	})
	t.Run("silence instead of an opening message", func(t *testing.T) {
		conn, err := websocket.Dial(t.Context(), w.url+path, websocket.DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		refused(t, conn)
	})
	t.Run("binary opening message", func(t *testing.T) {
		conn, err := websocket.Dial(t.Context(), w.url+path, websocket.DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(websocket.Binary, []byte(`{}`))
		refused(t, conn)
	})
	t.Run("huge opening message", func(t *testing.T) {
		conn, err := websocket.Dial(t.Context(), w.url+path, websocket.DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(websocket.Text, bytes.Repeat([]byte("x"), maxOpening+1))
		refused(t, conn)
	})
	t.Run("end of another node's session reported", func(t *testing.T) {
		w.g.session(id).taskComplete(wire.TaskComplete{TaskID: id, InstanceID: other, FinalTaskStatus: "Success"})
		if w.g.session(id).cause.Load() != nil {
			t.Error("the session ended")
		}
	})
	t.Run("token used twice", func(t *testing.T) {
		first := w.client(otherID, otherToken)
		w.g.session(otherID)
		eventually(t, "attached", func() bool {
			s := w.g.session(otherID)
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.client != nil
		})
		conn := w.dial("/v1/data-channel/"+otherID, "", wire.Opening{TokenValue: otherToken})
		defer conn.Abort()
		if _, data, err := conn.Read(); err == nil {
			t.Errorf("got %q, want the end", data)
		}
		if first.goodbye() != nil {
			t.Error("the first client was thrown out")
		}
	})
}

// What either end may not say is dropped, and the channel lives on.
func TestMessagesThatAreDropped(t *testing.T) {
	w := newWorld(t)
	_, _, agent, client := w.pair()
	good := wire.NewStream(wire.TypeInputStreamData, 0, wire.PayloadOutput, time.Now(), []byte("good")).Encode()
	spoil := func(change func(b []byte)) []byte {
		b := bytes.Clone(good)
		change(b)
		return b
	}
	for name, data := range map[string][]byte{
		"short":            good[:100],
		"empty":            {},
		"long header":      spoil(func(b []byte) { b[0] = 0xff }),
		"blank type":       spoil(func(b []byte) { copy(b[4:36], make([]byte, 32)) }),
		"no date":          spoil(func(b []byte) { copy(b[40:48], make([]byte, 8)) }),
		"negative number":  spoil(func(b []byte) { b[48] = 0xff }),
		"huge number":      spoil(func(b []byte) { b[48] = 0x7f }),
		"bad digest":       spoil(func(b []byte) { b[80]++ }),
		"channel_closed":   wire.New(wire.TypeChannelClosed, time.Now(), []byte(`{}`)).Encode(),
		"pause":            wire.New(wire.TypePausePublication, time.Now(), []byte(`{}`)).Encode(),
		"output by client": wire.NewStream(wire.TypeOutputStreamData, 0, wire.PayloadOutput, time.Now(), []byte("forged")).Encode(),
		"state by client":  wire.New(wire.TypeAgentSessionState, time.Now(), []byte(`{"SessionState":"Terminating"}`)).Encode(),
		"unknown":          wire.New("something_new", time.Now(), []byte(`{}`)).Encode(),
		"ack of nothing":   wire.NewJSON(wire.TypeAcknowledge, time.Now(), wire.Acknowledge{SequenceNumber: 7}).Encode(),
		"ack of no number": wire.New(wire.TypeAcknowledge, time.Now(), []byte(`{"AcknowledgedMessageSequenceNumber":"x"}`)).Encode(),
	} {
		if err := client.conn.Write(websocket.Binary, data); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	client.say("good")
	agent.wantText("what follows", "good")
	agent.mu.Lock()
	defer agent.mu.Unlock()
	if len(agent.control) != 0 || agent.closing != nil || len(agent.early) != 0 {
		t.Errorf("agent got %v, %v, %d early messages; want nothing", agent.control, agent.closing, len(agent.early))
	}
}

// A node that sends something else under a number that it has used cannot make the
// client see what was not recorded.
func TestOutputCannotBeChangedAfterItWasRecorded(t *testing.T) {
	w := newWorld(t)
	_, _, agent, client := w.pair()
	client.mu.Lock()
	client.noAck = true
	client.mu.Unlock()
	write := func(text string) {
		agent.conn.Write(websocket.Binary, wire.NewStream(wire.TypeOutputStreamData, 0, wire.PayloadOutput, time.Now(), []byte(text)).Encode())
	}
	sent := func(n int) func() bool {
		return func() bool { client.mu.Lock(); defer client.mu.Unlock(); return len(client.frames) >= n }
	}
	write("recorded")
	eventually(t, "message", sent(1))
	write("not recorded")
	eventually(t, "repetition", sent(2))
	for _, data := range client.frames {
		if m, _ := wire.Decode(data); string(m.Payload) != "recorded" {
			t.Errorf("client was sent %q", m.Payload)
		}
	}
	if got := w.rec.text(); got != "recorded" {
		t.Errorf("recorded %q", got)
	}
}

// AWS's plugin shows a payload whatever its type is. A node cannot use that to show
// what is not recorded: what has no place in the session arrives empty, in its turn.
func TestNothingIsShownThatIsNotRecorded(t *testing.T) {
	for _, test := range []struct {
		sessionType string
		payloadType wire.PayloadType
		payload     string
		want        string
	}{
		{"Standard_Stream", wire.PayloadError, "unseen", ""},
		{"Standard_Stream", wire.PayloadParameter, "unseen", ""},
		{"Standard_Stream", wire.PayloadEncChallengeRequest, "unseen", ""},
		{"Standard_Stream", wire.PayloadFlag, "unseen", ""},
		{"Standard_Stream", wire.PayloadSize, "unseen", ""},
		{"Standard_Stream", wire.PayloadExitCode, "EXIT_CODE: 3", ""},
		{"Standard_Stream", 99, "unseen", ""},
		{"NonInteractiveCommands", wire.PayloadExitCode, "unseen", ""},
		{"NonInteractiveCommands", wire.PayloadExitCode, "EXIT_CODE: 3", "EXIT_CODE: 3"},
		{"NonInteractiveCommands", wire.PayloadStdErr, "seen", "seen"},
	} {
		t.Run(fmt.Sprint(test.sessionType, test.payloadType, test.payload), func(t *testing.T) {
			w := newWorld(t)
			_, _, agent, client := w.pair(func(r *StartRequest) { r.Session.SessionType = test.sessionType })
			agent.conn.Write(websocket.Binary, wire.NewStream(wire.TypeOutputStreamData, 0, test.payloadType, time.Now(), []byte(test.payload)).Encode())
			agent.conn.Write(websocket.Binary, wire.NewStream(wire.TypeOutputStreamData, 1, wire.PayloadOutput, time.Now(), []byte("seen")).Encode())
			eventually(t, "both messages", func() bool { client.mu.Lock(); defer client.mu.Unlock(); return len(client.frames) >= 2 })
			client.mu.Lock()
			defer client.mu.Unlock()
			var got []string
			for _, data := range client.frames[:2] {
				m, err := wire.Decode(data)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprint(m.SequenceNumber, " ", string(m.Payload)))
			}
			if diff := cmp.Diff([]string{"0 " + test.want, "1 seen"}, got); diff != "" {
				t.Errorf("client got (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOversizeMessageEndsTheLinkNotTheSession(t *testing.T) {
	w := newWorld(t)
	_, id, agent, client := w.pair()
	client.conn.Write(websocket.Binary, make([]byte, wire.MaxMessage+1))
	w.wantState(id, StateDisconnected)
	client.cut()
	client.back()
	agent.say("still here")
	client.wantText("output", "still here")
}

// FuzzMessages feeds arbitrary messages to a session from both ends.
func FuzzMessages(f *testing.F) {
	f.Add(true, wire.NewStream(wire.TypeOutputStreamData, 0, wire.PayloadOutput, epoch, []byte("x")).Encode())
	f.Add(false, wire.NewStream(wire.TypeInputStreamData, 0, wire.PayloadSize, epoch, []byte(`{"cols":1,"rows":2}`)).Encode())
	f.Add(false, wire.NewJSON(wire.TypeAcknowledge, epoch, wire.Acknowledge{SequenceNumber: 0}).Encode())
	f.Add(true, wire.NewJSON(wire.TypeAgentSessionState, epoch, wire.SessionState{SessionState: "Connected"}).Encode())
	w := newWorld(f)
	s := newLive(w.g, Session{ID: "fuzz-1", NodeID: testNode, SessionType: "Standard_Stream"}, wire.StartSession{}, Options{RecordInput: true})
	f.Fuzz(func(t *testing.T, fromAgent bool, data []byte) {
		s.out, s.in, s.rec = flow{}, flow{}, &notes{}
		h, err := wire.Peek(data)
		if err != nil || h.Type == wire.TypeAgentSessionState && bytes.Contains(data, []byte("Terminating")) {
			return
		}
		l := &link{role: roleClient}
		if fromAgent {
			l.role = roleAgent
			s.fromAgent(l, h, data)
			s.fromAgent(l, h, data)
		} else {
			s.fromClient(l, h, data)
			s.fromClient(l, h, data)
		}
		for _, f := range []*flow{&s.in, &s.out} {
			for {
				if _, ok := f.take(); !ok {
					break
				}
			}
			f.rewind()
			if f.bytes < 0 || f.earlyBytes < 0 || f.ackBytes < 0 {
				t.Fatalf("negative sums: %d %d %d", f.bytes, f.earlyBytes, f.ackBytes)
			}
		}
	})
}
