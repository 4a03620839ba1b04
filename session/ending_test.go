package session

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// A node that says that a session has ended, and goes on with it together with its
// client, cannot keep it: neither from who terminates it nor beyond its time.
func TestEndThatTheNodeDrawsOut(t *testing.T) {
	for name, test := range map[string]struct {
		tune   func(*StartRequest)
		end    func(w *world, id string) error
		reason string
	}{
		"terminated": {func(*StartRequest) {}, func(w *world, id string) error {
			return w.g.Terminate(t.Context(), id, Terminated("bob", ""))
		}, "terminated: by bob"},
		"too long": {func(r *StartRequest) { r.Session.MaxDuration = time.Second }, func(*world, string) error { return nil }, "max-duration"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.DisconnectGrace = time.Minute })
			_, id, agent, client := w.pair(test.tune)
			s := w.g.session(id)
			client.mu.Lock()
			client.noAck = true
			conn := client.conn
			client.mu.Unlock()
			agent.say("0")
			agent.sendState(id, "Terminating")
			stop := make(chan struct{})
			var talking sync.WaitGroup
			talking.Go(func() {
				// There is always something that the client has not acknowledged yet.
				for seq := int64(-3); ; seq++ {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
					}
					agent.say("still here")
					m := &wire.Message{Type: wire.TypeOutputStreamData, SequenceNumber: seq}
					conn.Write(websocket.Binary, wire.NewAcknowledge(m, time.Now()).Encode())
				}
			})
			defer talking.Wait()
			defer close(stop)
			eventually(t, "the node's word", func() bool { return s.cause.Load() != nil })
			time.Sleep(200 * time.Millisecond)
			if err := test.end(w, id); err != nil {
				t.Fatal(err)
			}
			for began := time.Now(); w.store.row(id).State.Active() && time.Since(began) < 5*time.Second; {
				time.Sleep(10 * time.Millisecond)
			}
			if got := w.store.row(id); got.State.Active() || got.EndReason != test.reason {
				t.Errorf("the session is %s: %q, want an end: %q", got.State, got.EndReason, test.reason)
			}
		})
	}
}

// A node that has the client encrypt a session whose document does not demand it would show
// what the recording has as noise alone: it has no session.
func TestUnaskedEncryption(t *testing.T) {
	for _, kind := range []string{"Standard_Stream", "NonInteractiveCommands", "Port"} {
		for _, record := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, recorded %v", kind, record), func(t *testing.T) {
				w := newWorld(t)
				_, id, agent, client := w.pair(func(r *StartRequest) {
					r.Session.SessionType, r.Options.Record = kind, record && kind != "Port"
				})
				agent.send(wire.PayloadHandshakeRequest, `{"AgentVersion":"3.3.40.0","RequestedClientActions":[
					{"ActionType":"SessionType","ActionParameters":{"SessionType":"`+kind+`","Properties":null}},
					{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"alias/nodes-own","Challenge":"random"}}]}`)
				client.wantGoodbye("asked for encryption")
				client.mu.Lock()
				got := client.payloads
				client.mu.Unlock()
				if len(got) > 0 {
					t.Errorf("the client got payloads %v", got)
				}
				w.wantState(id, StateFailed)
			})
		}
	}
}

// A node that begins another kind of session than was asked for has none: its clients
// would open what their user did not ask for.
func TestAnotherKindOfSession(t *testing.T) {
	for name, test := range map[string]struct{ asked, begun string }{
		"a port in a shell":   {"Standard_Stream", "Port"},
		"a shell in a port":   {"Port", "Standard_Stream"},
		"a port in a command": {"NonInteractiveCommands", "Port"},
		"nothing in a shell":  {"Standard_Stream", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, id, agent, client := w.pair(func(r *StartRequest) {
				r.Session.SessionType, r.Options.Record = test.asked, test.asked != "Port"
			})
			agent.send(wire.PayloadHandshakeRequest, `{"AgentVersion":"3.3.40.0","RequestedClientActions":[{"ActionType":"SessionType",
				"ActionParameters":{"SessionType":"`+test.begun+`","Properties":{"localConnectionType":"unix","localUnixSocket":"/run/x"}}}]}`)
			client.wantGoodbye("another kind of session")
			client.mu.Lock()
			got := client.payloads
			client.mu.Unlock()
			if len(got) > 0 {
				t.Errorf("the client got payloads %v", got)
			}
			w.wantState(id, StateFailed)
		})
	}
}

// A gateway that closes does not wait for the client of a session that its agent has
// ended: nobody can come back to it.
func TestCloseDoesNotAwaitClients(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.DisconnectGrace = time.Hour })
	_, id, agent, client := w.pair()
	client.cut()
	w.wantState(id, StateDisconnected)
	agent.say("unread")
	agent.sendState(id, "Terminating")
	eventually(t, "the node's word", func() bool { return w.g.session(id).cause.Load() != nil })
	agent.cut()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := w.g.Close(ctx); err != nil {
		t.Errorf("closing: %v", err)
	}
}
