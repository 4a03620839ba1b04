package session

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/wire"
)

// withInput makes a session a command with input.
func withInput(r *StartRequest) {
	withExec(wire.Exec{Command: "cat", Words: true})(r)
	r.Options.ClientReturns = true
}

// The client of a command with input comes back when its connection was lost, and
// nothing is lost with it.
func TestInputSurvivesItsConnection(t *testing.T) {
	w := newWorld(t)
	_, id, agent, client := w.pair(withInput)
	client.say("one ")
	agent.wantText("input", "one ")
	client.cut()
	w.wantState(id, StateDisconnected)
	client.say("two")
	agent.say("out")
	if !client.back() {
		t.Fatal("the client was not let in again")
	}
	agent.wantText("input", "one two")
	client.wantText("output", "out")
	w.wantState(id, StateConnected)
}

// One that does not come back ends its session.
func TestInputEndsWithItsClient(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.DisconnectGrace, c.Tick = time.Second, 5*time.Millisecond })
	_, id, _, client := w.pair(withInput) // within the grace
	client.cut()
	if row := w.wantState(id, StateTerminated); !strings.HasPrefix(row.EndReason, ReasonClientGone) {
		t.Errorf("ended by %q, want %q", row.EndReason, ReasonClientGone)
	}
}

// Output is recorded as it is without input, to its end. Input is recorded only where it
// is to be, up to the limit.
func TestInputRecording(t *testing.T) {
	for _, recorded := range []bool{false, true} {
		t.Run(fmt.Sprintf("record input %v", recorded), func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.RecordLimit = 4 })
			_, id, agent, client := w.pair(withInput, func(r *StartRequest) { r.Options.RecordInput = recorded })
			client.say("secret")
			agent.wantText("input", "secret")
			agent.say("0123456789")
			client.wantText("output", "0123456789")
			w.g.Terminate(t.Context(), id, &Cause{Reason: ReasonTerminated})
			w.wantState(id, StateTerminated)
			want := "0123456789"
			if recorded {
				const rest = "f056b8cae37dc3ed60ee52da9a2951f8a6c531fe3222a3ad6835dbdd905c7d2a" // sha256 of et
				want += "\r\n[sallyport] 2 more bytes of input were not recorded; SHA-256 of them: " + rest + "\r\n"
			}
			if diff := cmp.Diff(want, w.rec.text()); diff != "" {
				t.Error(diff)
			}
			if got, want := string(w.rec.input), map[bool]string{true: "secr"}[recorded]; got != want {
				t.Errorf("got input %q recorded, want %q", got, want)
			}
		})
	}
}
