package session

import (
	"context"
	"errors"
	"testing"
	"time"
)

// Two members share the store and the bus; the node is connected to the second.
func twoMembers(t *testing.T) (first, second *world, a *fakeAgent) {
	store, b := newMemory(), newBus()
	b.setMembers(Member{ID: "m1", URL: "http://m1"}, Member{ID: "m2", URL: "http://m2"})
	first, second = newMember(t, store, b, "m1"), newMember(t, store, b, "m2")
	return first, second, second.agent(testNode)
}

func TestSessionIsAtHomeWhereItsNodeIs(t *testing.T) {
	first, second, a := twoMembers(t)
	id, token := first.started(a)
	if row := first.store.row(id); row.Member != "m2" || row.Recording == "" {
		t.Errorf("row: got %+v, want a recorded session of m2", row)
	}
	if url, err := first.g.Home(t.Context(), id); url != "http://m2" || err != nil {
		t.Errorf("home seen from m1: got %q, %v", url, err)
	}
	if url, err := second.g.Home(t.Context(), id); url != "" || err != nil {
		t.Errorf("home seen from m2: got %q, %v", url, err)
	}
	if !first.g.Connected(t.Context(), testNode) {
		t.Error("m1 does not know that the node is connected")
	}
	agent := a.open(id)
	client := second.client(id, token) // a token of m1
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	if err := first.g.Terminate(t.Context(), id, &Cause{Reason: ReasonTerminated, Terminal: "bye"}); err != nil {
		t.Fatal(err)
	}
	client.wantGoodbye("bye")
	agent.wantGoodbye("")
	a.complete(id, "Success", "", nil)
	first.wantState(id, StateTerminated)
}

func TestErrorsKeepTheirIdentityBetweenMembers(t *testing.T) {
	first, second, _ := twoMembers(t)
	second.g.cfg.Record = func(context.Context, Session, Options) (Recorder, string, error) { return nil, "", errDisk }
	_, err := first.g.Start(t.Context(), StartRequest{
		Session: Session{ID: NewID("alice"), NodeID: testNode}, Options: Options{Record: true},
	})
	if !errors.Is(err, ErrRecording) {
		t.Errorf("got %v, want ErrRecording", err)
	}
}

// The node's control channel moves to the other member while a session goes on.
func TestNodeMovesToAnotherMember(t *testing.T) {
	first, second, a := twoMembers(t)
	id, token := first.started(a)
	agent := a.open(id)
	client := second.client(id, token)
	moved := first.agent(testNode)
	<-a.done // the second member lets go
	if got := first.store.memberOf(testNode); got != "m1" {
		t.Errorf("node is held by %q, want m1", got)
	}
	agent.say("still ")
	client.wantText("output", "still ")
	agent.cut()
	exit := 7
	moved.complete(id, "Success", "", &exit)
	c := client.wantGoodbye("")
	if c.ExitStatus == nil || *c.ExitStatus != 7 {
		t.Errorf("exit status: got %v, want 7", c.ExitStatus)
	}
	second.wantState(id, StateTerminated)
}

func TestWhatALostMemberLeavesIsCleanedUp(t *testing.T) {
	store, b := newMemory(), newBus()
	b.setMembers(Member{ID: "m1"}, Member{ID: "m2"})
	w := newMember(t, store, b, "m1")
	a := w.agent(testNode)
	for _, member := range []string{"m2", "never heard of"} {
		store.CreateSession(t.Context(), Session{ID: "alice-" + member[:2], NodeID: testNode, State: StateConnected, Member: member, Started: time.Now()})
		store.SetConnected(t.Context(), "mi-of-"+member[:2], member, time.Now())
	}
	active := func() (n int) {
		for _, id := range []string{"alice-m2", "alice-ne"} {
			if store.row(id).State.Active() {
				n++
			}
		}
		return n
	}
	s := sweep{alive: map[string]int{}}
	for round, want := range []int{2, 1, 1, 0, 0} { // m2 dies after the second round
		if round == 2 {
			b.setMembers(Member{ID: "m1"})
		}
		if err := s.run(w.g); err != nil {
			t.Fatal(err)
		}
		if got := active(); got != want {
			t.Errorf("after round %d: %d sessions are active, want %d", round+1, got, want)
		}
	}
	if row := store.row("alice-m2"); row.State != StateFailed || row.EndReason != ReasonMemberLost {
		t.Errorf("row: got %+v", row)
	}
	if store.memberOf("mi-of-m2") != "" || store.memberOf("mi-of-ne") != "" || store.memberOf(testNode) != "m1" {
		t.Errorf("nodes are held by %v, want %s alone, by m1", store.connected, testNode)
	}
	eventually(t, "the agent is told", func() bool { return a.closed() >= 2 })
}

func TestTerminatingASessionThatNobodyRelays(t *testing.T) {
	w := newWorld(t)
	w.store.CreateSession(t.Context(), Session{ID: "alice-1", NodeID: testNode, State: StateConnected, Member: "gone", Started: time.Now()})
	if err := w.g.Terminate(t.Context(), "alice-1", Terminated("arn", "")); err != nil {
		t.Fatal(err)
	}
	if row := w.store.row("alice-1"); row.State != StateFailed {
		t.Errorf("row: got %+v", row)
	}
	if err := w.g.Terminate(t.Context(), "alice-1", Terminated("arn", "")); err != nil {
		t.Errorf("terminating it again: %v", err)
	}
}

func TestRemovedNodeLosesEverything(t *testing.T) {
	first, second, a := twoMembers(t)
	id, token := first.started(a)
	client := second.client(id, token)
	if err := first.g.RemoveNode(t.Context(), testNode); err != nil {
		t.Fatal(err)
	}
	client.wantGoodbye("deregistered")
	<-a.done
	eventually(t, "node gone", func() bool { return !first.g.Connected(t.Context(), testNode) })
}
