package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/audit"
	"sallyport.dev/recording"
	"sallyport.dev/wire"
)

func TestShellFromStartToExit(t *testing.T) {
	w := newWorld(t)
	a, id, agent, client := w.pair()
	client.send(wire.PayloadSize, `{"cols":100,"rows":30}`)
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	client.say("echo hi\n")
	agent.wantText("input", "echo hi\n")
	agent.say("hi\r\n$ ")
	client.wantText("echo", "$ hi\r\n$ ")
	client.say("exit\n")
	agent.wantText("input", "echo hi\nexit\n")
	agent.say("logout\r\n")
	agent.sendState(id, "Terminating")
	agent.cut()
	exit := 3
	a.complete(id, "Success", "", &exit)
	c := client.wantGoodbye("")
	if c.ExitStatus == nil || *c.ExitStatus != 3 {
		t.Errorf("exit status: got %v, want 3", c.ExitStatus)
	}
	if !strings.HasSuffix(client.text(), "logout\r\n") {
		t.Errorf("last output: got %q", client.text())
	}
	row := w.wantState(id, StateTerminated)
	if row.EndReason != ReasonExit || row.ExitStatus == nil || *row.ExitStatus != 3 || row.BytesIn == 0 || row.BytesOut == 0 {
		t.Errorf("row: got %+v", row)
	}
	if got, want := w.rec.text(), "$ hi\r\n$ logout\r\n"; got != want {
		t.Errorf("recorded %q, want %q", got, want)
	}
	if diff := cmp.Diff([][2]int{{100, 30}}, w.rec.sizes); diff != "" || w.rec.input != nil || w.rec.closed == nil {
		t.Errorf("recorded sizes (-want +got):\n%s, input %q, end %v", diff, w.rec.input, w.rec.closed)
	}
	if diff := cmp.Diff([]string{audit.EventSessionStart, audit.EventSessionEnd}, w.store.events(id)); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
	if got := w.store.lastOf(id).Details["exit_status"]; got != "3" {
		t.Errorf("audited exit status: got %q, want 3", got)
	}
	eventually(t, "acknowledgement of the report", func() bool { return a.acked() == 1 })
}

func TestReportOfTheEndIsAcknowledgedTwiceAndAppliedOnce(t *testing.T) {
	w := newWorld(t)
	a, id, agent, client := w.pair()
	agent.cut()
	a.complete(id, "Failed", "\n----------ERROR-------\nno such shell", nil)
	a.complete(id, "Failed", "\n----------ERROR-------\nno such shell", nil)
	client.wantGoodbye("no such shell")
	row := w.wantState(id, StateFailed)
	if got, want := row.EndReason, "failed: no such shell"; got != want { // without AWS's banner
		t.Errorf("end reason: got %q, want %q", got, want)
	}
	eventually(t, "both acknowledgements", func() bool { return a.acked() == 2 })
}

func TestTerminateEndsBothSides(t *testing.T) {
	w := newWorld(t)
	a, id, agent, client := w.pair()
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	if err := w.g.Terminate(t.Context(), id, Terminated("arn:aws:iam::111111111111:user/bob", "")); err != nil {
		t.Fatal(err)
	}
	client.wantGoodbye("terminated by arn:aws:iam::111111111111:user/bob")
	agent.wantGoodbye("")
	a.complete(id, "Success", "", nil)
	row := w.wantState(id, StateTerminated)
	if row.EndReason != "terminated: by arn:aws:iam::111111111111:user/bob" {
		t.Errorf("end reason: got %q", row.EndReason)
	}
	if _, err := w.g.AgentToken(t.Context(), id, testNode); err == nil {
		t.Error("an agent got a token for an ended session")
	}
}

func TestStartIsRepeatedUntilTheAgentAsks(t *testing.T) {
	w := newWorld(t)
	a := w.agent(testNode)
	id, _ := w.started(a)
	eventually(t, "three starts", func() bool { return a.started() >= 3 })
	a.mu.Lock()
	for _, s := range a.starts {
		if s.SessionID != id || s.DataChannelToken == "" {
			t.Errorf("start: got %+v, want session %s with a token", s, id)
		}
	}
	a.mu.Unlock()
	a.open(id)
	time.Sleep(50 * time.Millisecond)
	before := a.started()
	time.Sleep(250 * time.Millisecond)
	if got := a.started(); got != before {
		t.Errorf("%d starts after the agent has come", got-before)
	}
}

func TestAgentThatDoesNotStartFailsTheSession(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.StartTimeout = 200 * time.Millisecond })
	a := w.agent(testNode)
	id, token := w.started(a)
	client := w.client(id, token)
	client.wantGoodbye("did not start the session within")
	w.wantState(id, StateFailed)
	eventually(t, "the agent is told", func() bool { return a.closed() > 0 })
}

// TestRowIsWrittenTwiceUntilConnected: set-ups wait for the disk, so the row is made
// complete at once and changed when both ends have come.
func TestRowIsWrittenTwiceUntilConnected(t *testing.T) {
	w := newWorld(t)
	_, id, _, _ := w.pair()
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if row := w.store.sessions[id]; row.Recording != "rec.cast" || row.Member == "" || w.store.updates != 1 {
		t.Errorf("got recording %q, member %q and %d changes, want both and 1 change", row.Recording, row.Member, w.store.updates)
	}
}

func TestOutputBeforeTheClientIsHeld(t *testing.T) {
	w := newWorld(t)
	a := w.agent(testNode)
	id, token := w.started(a)
	agent := a.open(id)
	agent.say("early ")
	agent.say("bird")
	client := w.client(id, token)
	client.wantText("held output", "early bird")
}

func TestRecordingThatCannotBeWrittenEndsTheSession(t *testing.T) {
	t.Run("never starts", func(t *testing.T) {
		w := newWorld(t, func(c *Config) {
			c.Record = func(context.Context, Session, Options) (Recorder, string, error) { return nil, "", errDisk }
		})
		a := w.agent(testNode)
		id := NewID("alice")
		_, err := w.g.Start(t.Context(), StartRequest{Session: Session{ID: id, NodeID: testNode}, Options: Options{Record: true}})
		if err == nil || !strings.Contains(err.Error(), "cannot be recorded") {
			t.Errorf("got %v, want a refusal", err)
		}
		if w.store.row(id).State != StateFailed || a.started() != 0 {
			t.Errorf("row %v, %d starts; want Failed and none", w.store.row(id).State, a.started())
		}
	})
	t.Run("output is not shown", func(t *testing.T) {
		w := newWorld(t)
		_, id, agent, client := w.pair()
		w.rec.breakWith(errDisk)
		agent.say("secret")
		client.wantGoodbye("cannot be recorded any more")
		if client.text() != "" {
			t.Errorf("shown though not recorded: %q", client.text())
		}
		row := w.wantState(id, StateFailed)
		if !strings.HasPrefix(row.EndReason, ReasonRecordingLost) {
			t.Errorf("end reason: got %q", row.EndReason)
		}
	})
	t.Run("nothing is shown", func(t *testing.T) {
		w := newWorld(t)
		_, _, _, client := w.pair()
		w.rec.mu.Lock()
		w.rec.stopped = fmt.Errorf("%w: the spool", recording.ErrFull)
		w.rec.mu.Unlock()
		client.wantGoodbye("because the store of recordings does not take them")
	})
	t.Run("no room", func(t *testing.T) {
		w := newWorld(t, func(c *Config) {
			c.Record = func(context.Context, Session, Options) (Recorder, string, error) {
				return nil, "", fmt.Errorf("opening: %w", &recording.FullError{Why: "the store is away", Detail: "/srv/spool"})
			}
		})
		w.agent(testNode)
		_, err := w.g.Start(t.Context(), StartRequest{Session: Session{ID: NewID("alice"), NodeID: testNode}, Options: Options{Record: true}})
		if !errors.Is(err, ErrRecordingFull) || !errors.Is(err, ErrRecording) || err.Error() != "recordings cannot be kept now: the store is away" {
			t.Errorf("got %v, want ErrRecordingFull that says why, and not where", err)
		}
	})
	t.Run("found out by the flush", func(t *testing.T) {
		w := newWorld(t)
		_, _, agent, client := w.pair()
		agent.say("x")
		client.wantText("output", "x")
		eventually(t, "flush", func() bool { w.rec.mu.Lock(); defer w.rec.mu.Unlock(); return w.rec.flushes > 0 })
		w.rec.breakWith(errDisk)
		agent.say("y")
		client.wantGoodbye("cannot be recorded any more")
	})
	t.Run("encrypted", func(t *testing.T) {
		w := newWorld(t)
		w.agent(testNode)
		_, err := w.g.Start(t.Context(), StartRequest{
			Session: Session{ID: NewID("alice"), NodeID: testNode}, Options: Options{Record: true, Encrypted: true},
		})
		if err == nil || !strings.Contains(err.Error(), "cannot be recorded") {
			t.Errorf("got %v, want a refusal", err)
		}
	})
}

func TestAuditThatCannotBeWrittenPreventsTheSession(t *testing.T) {
	w := newWorld(t)
	a := w.agent(testNode)
	w.store.mu.Lock()
	w.store.auditErr = errDisk
	w.store.mu.Unlock()
	_, err := w.g.Start(t.Context(), StartRequest{Session: Session{ID: NewID("alice"), NodeID: testNode}, Options: Options{Record: true}})
	if err == nil || a.started() != 0 {
		t.Errorf("got %v and %d starts, want an error and none", err, a.started())
	}
}

// TestRowThatCannotBeWrittenPreventsTheSession: neither the agent nor the row that is
// in the way hears of it, and the audit log does not leave the session open.
func TestRowThatCannotBeWrittenPreventsTheSession(t *testing.T) {
	w := newWorld(t)
	a := w.agent(testNode)
	old := Session{ID: NewID("alice"), NodeID: testNode, State: StateConnected, Member: "another"}
	w.store.CreateSession(t.Context(), old)
	_, err := w.g.Start(t.Context(), StartRequest{Session: Session{ID: old.ID, NodeID: testNode}, Options: Options{Record: true}})
	if err == nil || a.started() != 0 || w.store.row(old.ID) != old {
		t.Errorf("got %v, %d starts, row %v; want an error, none and %v", err, a.started(), w.store.row(old.ID), old)
	}
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if last := w.store.records[len(w.store.records)-1]; last.Event != audit.EventSessionEnd || last.Session != old.ID {
		t.Errorf("last audit record: got %+v, want the session's end", last)
	}
}

func TestNodeThatIsNotConnected(t *testing.T) {
	w := newWorld(t)
	id := NewID("alice")
	_, err := w.g.Start(t.Context(), StartRequest{Session: Session{ID: id, NodeID: testNode}})
	if err == nil || !strings.Contains(err.Error(), "not connected") {
		t.Errorf("got %v, want not connected", err)
	}
	if w.store.row(id).State != StateFailed {
		t.Errorf("row: got %v, want Failed", w.store.row(id).State)
	}
	if last := w.store.lastOf(id); last.Event != audit.EventSessionEnd || !strings.Contains(last.Reason, "not connected") {
		t.Errorf("last audit record: got %+v, want the session's end", last)
	}
}

func TestKilledClientLeavesNothing(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.DisconnectGrace = time.Second })
	_, id, agent, client := w.pair()
	client.cut()
	w.wantState(id, StateDisconnected)
	agent.wantGoodbye("")
	row := w.wantState(id, StateTerminated)
	if !strings.HasPrefix(row.EndReason, ReasonClientGone) {
		t.Errorf("end reason: got %q", row.EndReason)
	}
}

func TestLostAgentEndsTheSessionAfterGrace(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.AgentGrace = time.Second })
	_, id, agent, client := w.pair()
	agent.cut()
	client.wantGoodbye("connection to the node was lost")
	w.wantState(id, StateFailed)
}

func TestClientComesBack(t *testing.T) {
	w := newWorld(t)
	_, id, agent, client := w.pair()
	agent.say("one ")
	client.wantText("before", "one ")
	client.cut()
	w.wantState(id, StateDisconnected)
	agent.say("two ")
	client.say("typed meanwhile")
	if !client.back() {
		t.Fatal("no token to resume")
	}
	agent.say("three")
	client.wantText("after", "one two three")
	agent.wantText("input", "typed meanwhile")
	w.wantState(id, StateConnected)
}

func TestAnotherClientTakesOver(t *testing.T) {
	w := newWorld(t)
	_, id, agent, client := w.pair()
	token, err := w.g.Resume(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	second := w.client(id, token)
	client.wantGoodbye("resumed elsewhere")
	agent.say("hello")
	second.wantText("output", "hello")
	w.wantState(id, StateConnected)
}

func TestIdleSessionIsWarnedAndEnded(t *testing.T) {
	w := newWorld(t)
	_, id, agent, client := w.pair(func(r *StartRequest) { r.Session.IdleTimeout = time.Second })
	agent.say("$ ")
	eventually(t, "warning", func() bool { return strings.Contains(client.text(), "idle and will end in") })
	agent.say("more") // numbers are shifted now
	eventually(t, "output behind the warning", func() bool { return strings.HasSuffix(client.text(), "more") })
	eventually(t, "acknowledgement, shifted back", agent.settled)
	client.say("typed")
	agent.wantText("input", "typed")
	first := time.Now()
	client.wantGoodbye("was idle for")
	if d := time.Since(first); d < 700*time.Millisecond {
		t.Errorf("ended %v after activity, want a second", d)
	}
	if n := strings.Count(client.text(), "[sallyport]"); n != 2 {
		t.Errorf("%d warnings in %q, want one before the activity and one after", n, client.text())
	}
	if row := w.wantState(id, StateTerminated); row.EndReason != ReasonIdle {
		t.Errorf("end reason: got %q", row.EndReason)
	}
	if got, want := w.rec.text(), client.text()+"\r\n[sallyport] The session was idle for 1 second.\r\n"; got != want {
		t.Errorf("recorded %q, shown %q", got, want)
	}
}

// What clients show of an agent's words after the handshake is recorded like its output.
func TestMessageOfTheHandshakeIsRecorded(t *testing.T) {
	w := newWorld(t)
	_, _, agent, client := w.pair()
	agent.send(wire.PayloadHandshakeComplete, `{"HandshakeTimeToComplete":1,"CustomerMessage":"This node is \u001b[1mold\u001b[0m."}`)
	agent.say("$ ")
	client.wantText("output", "$ ")
	if got, want := w.rec.text(), "This node is \x1b[1mold\x1b[0m.\r\n$ "; got != want {
		t.Errorf("recorded %q, want %q", got, want)
	}
}

// A recorder may hold something after a flush: it is asked again.
func TestHoldingRecorderIsFlushedAgain(t *testing.T) {
	rec := &holding{}
	w := newWorld(t, func(c *Config) {
		c.Tick = 5 * time.Millisecond
		c.Record = func(context.Context, Session, Options) (Recorder, string, error) { return rec, "name", nil }
	})
	_, _, agent, _ := w.pair()
	agent.say("$ ")
	eventually(t, "three flushes", func() bool { return rec.flushes.Load() == 3 })
}

// holding is a recorder that holds something until the third flush.
type holding struct {
	notes
	flushes atomic.Int64
}

func (h *holding) Flush() error {
	h.flushes.Add(1)
	return nil
}

func (h *holding) Holds() bool { return h.flushes.Load() < 3 }

func TestLongestDuration(t *testing.T) {
	w := newWorld(t)
	_, id, agent, client := w.pair(func(r *StartRequest) { r.Session.MaxDuration = 600 * time.Millisecond })
	agent.say("$ ")
	eventually(t, "warning", func() bool { return strings.Contains(client.text(), "longest duration") })
	client.wantGoodbye("longest duration")
	agent.wantGoodbye("")
	if row := w.wantState(id, StateTerminated); row.EndReason != ReasonMaxDuration {
		t.Errorf("end reason: got %q", row.EndReason)
	}
}

func TestPortsAreRelayedButNotWrittenInto(t *testing.T) {
	w := newWorld(t)
	_, _, agent, client := w.pair(func(r *StartRequest) {
		r.Session.SessionType, r.Session.IdleTimeout = "Port", 600*time.Millisecond
		r.Options = Options{}
	})
	nop := string([]byte{1, 3, 0, 0, 0, 0, 0, 0})
	stop := time.Now().Add(300 * time.Millisecond)
	for time.Now().Before(stop) {
		agent.say(nop) // keep-alives of the multiplexer are no activity
		time.Sleep(50 * time.Millisecond)
	}
	client.wantGoodbye("was idle for")
	if strings.Contains(client.text(), "sallyport") || w.rec.text() != "" {
		t.Errorf("a port's data was written into or recorded: %q, %q", client.text(), w.rec.text())
	}
}

func TestCloseKeepsItsDistanceFromTheHandshake(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.CloseHold = 400 * time.Millisecond })
	a, id, agent, client := w.pair(func(r *StartRequest) { r.Session.SessionType = "NonInteractiveCommands" })
	agent.send(wire.PayloadHandshakeComplete, `{"HandshakeTimeToComplete":1,"CustomerMessage":""}`)
	eventually(t, "handshake", func() bool { return agent.settled() })
	start := time.Now()
	agent.sendState(id, "Terminating")
	agent.cut()
	a.complete(id, "Success", "", nil)
	client.wantGoodbye("")
	if d := time.Since(start); d < 350*time.Millisecond {
		t.Errorf("channel_closed came %v after the handshake, want 400 ms", d)
	}
}

func TestShutdownTellsEveryone(t *testing.T) {
	w := newWorld(t)
	_, id, agent, client := w.pair()
	done := make(chan error)
	go func() { done <- w.g.Close(t.Context()) }()
	client.wantGoodbye("server is shutting down")
	agent.wantGoodbye("")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if row := w.store.row(id); row.EndReason != ReasonShutdown || w.store.memberOf(testNode) != "" {
		t.Errorf("row: got %+v, node held by %q", row, w.store.memberOf(testNode))
	}
}

// TestShutdownIsBounded has an agent that has lost its data channel and reports no end.
func TestShutdownIsBounded(t *testing.T) {
	w := newWorld(t)
	_, id, agent, _ := w.pair()
	agent.cut()
	s := w.g.session(id)
	eventually(t, "loss of the agent's link", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.agent == nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := w.g.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that it took too long", err)
	}
	if d := time.Since(start); d >= insist {
		t.Errorf("closing took %v", d)
	}
}

func TestRestartClosesWhatWasLeftOpen(t *testing.T) {
	store, b := newMemory(), newBus()
	store.sessions["alice-1"] = Session{ID: "alice-1", NodeID: testNode, State: StateConnected, Member: "m1", Started: time.Now()}
	store.sessions["alice-2"] = Session{ID: "alice-2", NodeID: testNode, State: StateConnected, Member: "m2", Started: time.Now()}
	w := newMember(t, store, b, "m1")
	if row := store.row("alice-1"); row.State != StateFailed || row.EndReason != ReasonRestart {
		t.Errorf("own session: got %+v", row)
	}
	if row := store.row("alice-2"); row.State != StateConnected {
		t.Errorf("another member's session: got %+v", row)
	}
	a := w.agent(testNode)
	eventually(t, "the agent is told", func() bool { return a.closed() == 1 })
}

func TestNewerControlChannelReplacesTheOld(t *testing.T) {
	w := newWorld(t)
	first := w.agent(testNode)
	old := w.g.control(testNode)
	second := w.dial("/v1/control-channel/"+testNode, testNode, wire.Opening{TokenValue: w.g.ControlToken(testNode), AgentVersion: "3.3.40.0"})
	defer second.Abort()
	<-first.done
	eventually(t, "replacement", func() bool { c := w.g.control(testNode); return c != nil && c != old })
	time.Sleep(20 * time.Millisecond)
	if got := w.store.memberOf(testNode); got != "m1" {
		t.Errorf("node is held by %q, want m1", got)
	}
	if !w.g.Connected(t.Context(), testNode) {
		t.Error("node does not count as connected")
	}
}

func TestSilentControlChannelIsDropped(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.PingInterval = 60 * time.Millisecond })
	conn := w.dial("/v1/control-channel/"+testNode, testNode, wire.Opening{TokenValue: w.g.ControlToken(testNode)})
	defer conn.Abort() // it never reads, so it never answers
	eventually(t, "connected", func() bool { return w.store.memberOf(testNode) == "m1" })
	eventually(t, "dropped", func() bool { return w.store.memberOf(testNode) == "" })
}

func TestNewID(t *testing.T) {
	for _, test := range []struct{ prefix, want string }{
		{"alice", "alice-"},
		{"a/../../b", "a--.--.-b-"},
		{"..", "session-"},
		{"bob@example.com", "bob@example.com-"},
		{"żółw", "----w-"},
		{strings.Repeat("x", 200), strings.Repeat("x", 78) + "-"},
	} {
		id := NewID(test.prefix)
		if !validID(id) || len(id) > maxID {
			t.Errorf("%q: id %q is not valid", test.prefix, id)
		}
		if got := id[:len(id)-idDigits]; strings.Trim(got, "-.") != strings.Trim(test.want, "-.") {
			t.Errorf("%q: got prefix %q, want %q", test.prefix, got, test.want)
		}
	}
	for _, bad := range []string{"", ".x", "a..b", "a/b", "a b", "a*", "a>", strings.Repeat("x", 97), "a\x00"} {
		if validID(bad) {
			t.Errorf("%q counts as an id", bad)
		}
	}
}
