package session

import (
	"strings"
	"testing"
	"time"

	"sallyport.dev/wire"
)

const smuxNOP = "\x01\x03\x00\x00\x00\x00\x00\x00"

// The client's keep-alives show that a forward has open connections. That is use where
// nobody asked for an idle timeout; the agent's never are.
func TestOpenForwardIsInUse(t *testing.T) {
	const idle = 500 * time.Millisecond
	for name, tt := range map[string]struct {
		keep    bool
		clients bool // the keep-alives come from the client
		lives   bool
	}{
		"no timeout asked for":     {keep: true, clients: true, lives: true},
		"a timeout asked for":      {keep: false, clients: true},
		"keep-alives of the agent": {keep: true, clients: false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			_, _, agent, client := w.pair(func(r *StartRequest) {
				r.Session.SessionType, r.Session.IdleTimeout = "Port", idle
				r.Options = Options{KeepInUse: tt.keep}
			})
			sender := agent
			if tt.clients {
				sender = client
			}
			for stop := time.Now().Add(3 * idle); time.Now().Before(stop) && client.goodbye() == nil; time.Sleep(idle / 8) {
				sender.say(smuxNOP)
			}
			if got := client.goodbye() == nil; got != tt.lives {
				t.Errorf("lives on: got %t, want %t", got, tt.lives)
			}
			if tt.lives {
				client.wantGoodbye("was idle for") // once they stop
			}
		})
	}
}

// A client that has ended its Port session is not waited for with what it did not
// acknowledge: it will not come back.
// AWS's client dies of whatever comes while it sets up its multiplexer.
func TestForwardsClientHearsNothingAfterTheHandshake(t *testing.T) {
	const own = `{"ClientVersion":"1.2.700.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":{"Streams":1},"Error":""}],"Errors":null}`
	const theirs = `{"ClientVersion":"1.2.694.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":null}`
	for _, test := range []struct {
		name, answer string
		hold         time.Duration
		speaks, want bool
	}{
		{"until it speaks", theirs, time.Hour, true, true},
		{"while it is silent", theirs, time.Hour, false, false},
		{"not for ever", theirs, 50 * time.Millisecond, false, true},
		{"unless it is ours", own, time.Hour, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.CloseHold = test.hold })
			_, _, agent, client := w.pair(func(r *StartRequest) {
				r.Session.SessionType, r.Options = "Port", Options{}
			})
			client.send(wire.PayloadHandshakeResponse, test.answer)
			eventually(t, "answer", func() bool { return client.settled() })
			agent.send(wire.PayloadHandshakeComplete, `{"HandshakeTimeToComplete":1,"CustomerMessage":""}`)
			eventually(t, "handshake", func() bool { return agent.settled() })
			agent.say("early")
			if test.speaks {
				client.say("stream")
			}
			if test.want {
				client.wantText("early output", "early")
				return
			}
			time.Sleep(50 * time.Millisecond)
			if got := client.text(); strings.Contains(got, "early") {
				t.Errorf("client was sent %q while it cannot take it", got)
			}
		})
	}
}

func TestClientThatEndedItsForwardIsNotAwaited(t *testing.T) {
	w := newWorld(t)
	a, id, agent, client := w.pair(func(r *StartRequest) {
		r.Session.SessionType, r.Options = "Port", Options{}
	})
	client.send(wire.PayloadFlag, "\x00\x00\x00\x02")
	eventually(t, "the flag", func() bool { return client.settled() })
	client.cut()
	agent.say("that nobody reads")
	began := time.Now()
	agent.cut()
	a.complete(id, "Success", "", nil)
	w.wantState(id, StateTerminated)
	if d := time.Since(began); d > w.g.cfg.DisconnectGrace/2 {
		t.Errorf("the end took %v", d)
	}
}
