package session

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/wire"
)

const testGrant = "oi-0123456789ab"

// keeping is a keeper that answers what it is told to.
type keeping struct {
	mu     sync.Mutex
	answer string
	again  bool
	asked  []Deadline
}

func (k *keeping) MoreTime(_ context.Context, _ Session, d Deadline) (string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, d)
	return k.answer, k.again
}

func (k *keeping) times() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.asked)
}

// ends makes a session's grant, of a length, end after a time.
func (w *world) ends(id string, after, whole time.Duration) {
	w.g.SetDeadline(id, Deadline{At: time.Now().Add(after), Whole: whole, Grant: testGrant})
}

func TestWarnings(t *testing.T) {
	for _, test := range []struct {
		whole       time.Duration
		first, last time.Duration
	}{
		{30 * time.Minute, 5 * time.Minute, time.Minute},
		{10 * time.Minute, 5 * time.Minute, time.Minute},
		{5 * time.Minute, 150 * time.Second, time.Minute},
		{time.Minute, 30 * time.Second, 12 * time.Second},
		{0, 5 * time.Minute, time.Minute}, // not known
	} {
		got := Deadline{Whole: test.whole}.warnings()
		if want := [2]time.Duration{test.first, test.last}; got != want {
			t.Errorf("a grant of %v is warned of %v before its end, want %v", test.whole, got, want)
		}
	}
}

// A session is warned, then ended, by the gateway's own clock: nobody has to tell it when
// the time has come. The agent never says a word.
func TestSessionEndsWithItsGrant(t *testing.T) {
	w := newWorld(t)
	_, id, agent, client := w.pair()
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	w.ends(id, time.Second, 2*time.Second)
	client.wantText("warning", "$ \r\n[sallyport] Your access ends in 1 second, at "+clockTime(w.g.session(id).deadline.At)+
		", with grant "+testGrant+". Press Ctrl-] to ask for more time.\r\n")
	client.wantGoodbye("Your access ended: grant " + testGrant + " is over, its time was up.")
	w.wantState(id, StateTerminated)
	if got := w.store.lastOf(id); got.Event != audit.EventSessionEnd || got.Details["grant"] != testGrant || !strings.HasPrefix(got.Reason, ReasonAccess) {
		t.Errorf("audited %+v", got)
	}
	if !strings.Contains(w.rec.text(), "Your access ends in") {
		t.Errorf("the warning is not in the recording: %q", w.rec.text())
	}
}

// The key asks once, and the program gets every other one: before a warning, with other
// input, and after it was used. Nothing that follows is lost or changed.
func TestMoreTimeKey(t *testing.T) {
	w := newWorld(t)
	k := &keeping{answer: "Asked bob; " + testGrant + "."}
	w.g.Keep(k)
	_, id, agent, client := w.pair()
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	client.say("\x1d")
	agent.wantText("a key without a warning", "\x1d")
	w.ends(id, 10*time.Second, 10*time.Minute)
	s := w.g.session(id)
	eventually(t, "a warning", func() bool { return s.armed.Load() })
	client.say("a\x1db")
	agent.wantText("a key among others", "\x1da\x1db")
	client.say("\x1d")
	eventually(t, "asking", func() bool { return k.times() == 1 })
	eventually(t, "the answer", func() bool { return strings.Contains(client.text(), "Asked bob") })
	client.say("\x1d")
	client.say("ls\n")
	agent.wantText("what follows", "\x1da\x1db\x1dls\n")
	agent.say("file")
	eventually(t, "output", func() bool { return strings.HasSuffix(client.text(), "file") })
	eventually(t, "acknowledgements", func() bool { return client.settled() && agent.settled() })
	if k.times() != 1 || k.asked[0].Grant != testGrant {
		t.Errorf("asked %d times: %+v, want once", k.times(), k.asked)
	}
}

// Where asking failed, the key may be pressed again.
func TestMoreTimeKeyAgain(t *testing.T) {
	w := newWorld(t)
	k := &keeping{answer: "Try again.", again: true}
	w.g.Keep(k)
	_, id, agent, client := w.pair()
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	w.ends(id, 10*time.Second, 10*time.Minute)
	s := w.g.session(id)
	for i := range 2 {
		eventually(t, "the key", func() bool { return s.armed.Load() })
		client.say("\x1d")
		eventually(t, "asking", func() bool { return k.times() == i+1 })
	}
}

// Who has asked for more time is not told to ask again while that waits.
func TestWarningWhileAsked(t *testing.T) {
	w := newWorld(t)
	_, id, agent, client := w.pair()
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	w.g.Asked(id, "oi-aaaaaaaaaaaa")
	w.ends(id, 10*time.Second, 10*time.Minute)
	eventually(t, "a warning", func() bool {
		return strings.Contains(client.text(), "More time was asked for and waits for a decision: oi-aaaaaaaaaaaa.")
	})
	if w.g.session(id).armed.Load() || strings.Contains(client.text(), "Ctrl-]") {
		t.Errorf("the key asks again: %q", client.text())
	}
}

// More time is told of and warned of anew; a deadline that goes away does not end
// anything.
func TestDeadlineMoves(t *testing.T) {
	w := newWorld(t)
	_, id, agent, client := w.pair()
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	w.ends(id, time.Second, 2*time.Second)
	s := w.g.session(id)
	eventually(t, "a warning", func() bool { return s.armed.Load() })
	w.ends(id, time.Hour, 2*time.Hour)
	eventually(t, "word of it", func() bool { return strings.Contains(client.text(), "Your access is extended until ") })
	if s.armed.Load() {
		t.Error("the key still asks")
	}
	w.g.SetDeadline(id, Deadline{})
	eventually(t, "word of no end", func() bool { return strings.Contains(client.text(), "does not end with grant "+testGrant+" any more") })
	time.Sleep(1500 * time.Millisecond) // beyond the first deadline
	if got := w.store.row(id); !got.State.Active() {
		t.Errorf("the session ended: %s", got.EndReason)
	}
}

// An end of access does not wait for a node that says that the session has ended, and
// goes on, nor for a client that reads nothing and leaves its last word unanswered.
func TestAccessEndsAtOnce(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.DisconnectGrace = time.Minute })
	_, id, agent, client := w.pair()
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	began := time.Now()
	if err := w.g.Terminate(t.Context(), id, AccessEnded(testGrant, "grant "+testGrant+" was revoked by bob")); err != nil {
		t.Fatal(err)
	}
	client.say("rm -rf /\n") // who ignores it has nobody to talk to
	client.wantGoodbye("Your access ended: grant " + testGrant + " was revoked by bob.")
	row := w.wantState(id, StateTerminated)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if row.EndReason != "access-ended: grant "+testGrant+" was revoked by bob" {
		t.Errorf("end reason: got %q", row.EndReason)
	}
	if got := agent.text(); strings.Contains(got, "rm") {
		t.Errorf("the node got %q", got)
	}
	if got, want := lateText(row.EndReason), "Your access ended: grant "+testGrant+" was revoked by bob."; got != want {
		t.Errorf("told later: got %q, want %q", got, want)
	}
}

// Before anything was shown nothing is said: it would come in front of the handshake.
func TestNoWarningBeforeTheSessionBegan(t *testing.T) {
	w := newWorld(t)
	a := w.agent(testNode)
	id, token := w.started(a)
	client := w.client(id, token)
	w.ends(id, time.Minute, time.Minute)
	time.Sleep(600 * time.Millisecond)
	if client.text() != "" {
		t.Errorf("shown: %q", client.text())
	}
	a.open(id).send(wire.PayloadOutput, "$ ")
	client.wantText("prompt", "$ ")
}

// A forward has no terminal: our client is told beside it, another one only at the end.
func TestWarningBesideForward(t *testing.T) {
	for _, test := range []struct {
		name, result string
		want         bool
	}{{"our client", `{"Streams":1}`, true}, {"another one", "null", false}} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.CloseHold = 50 * time.Millisecond })
			_, id, agent, client := w.pair(func(r *StartRequest) { r.Session.SessionType, r.Options = "Port", Options{} })
			client.send(wire.PayloadHandshakeResponse, `{"ClientVersion":"1","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":`+test.result+`,"Error":""}],"Errors":null}`)
			eventually(t, "answer", func() bool { return client.settled() })
			agent.send(wire.PayloadHandshakeComplete, `{"HandshakeTimeToComplete":1,"CustomerMessage":""}`)
			eventually(t, "handshake", func() bool { return agent.settled() })
			w.ends(id, time.Second, 2*time.Second)
			client.wantGoodbye("Your access ended: grant " + testGrant + " is over")
			client.mu.Lock()
			defer client.mu.Unlock()
			if got := len(client.control) > 0; got != test.want {
				t.Errorf("the client was sent %q, want a notice: %v", client.control, test.want)
			}
			if got := client.got.String(); got != "" {
				t.Errorf("the forward carried %q", got)
			}
		})
	}
}
