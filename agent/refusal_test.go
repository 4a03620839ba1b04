package agent

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func eventually(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never came about")
		}
	}
}

// TestDeregistered deregisters a node whose activation is used up: the agent asks
// seldom, keeps its registration, and is back once the server knows it again.
func TestDeregistered(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	cfg.refusedWait = 300 * time.Millisecond
	a, _ := run(t, cfg)
	g.control()
	receive(t, g.facts, "facts")
	before, err := os.ReadFile(filepath.Join(cfg.StateDir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	g.refuse = func(op string) (int, string) {
		if op == "RegisterManagedInstance" {
			return 400, "RegistrationLimitExceeded"
		}
		return 0, ""
	}
	g.mu.Unlock()
	g.deregister(testNode)
	eventually(t, func() bool { return g.count("RegisterManagedInstance") == 2 })
	asked := g.count("UnrecognizedClientException")
	time.Sleep(time.Second)
	if got := g.count("UnrecognizedClientException") - asked; got > 4 {
		t.Errorf("asked %d times in a second, want a few", got)
	}
	if got := g.count("RegisterManagedInstance"); got != 2 {
		t.Errorf("offered the spent activation %d times, want once", got-1)
	}
	if after, _ := os.ReadFile(filepath.Join(cfg.StateDir, stateFile)); !bytes.Equal(before, after) {
		t.Error("the registration has changed")
	}
	g.restore(testNode)
	g.control()
	if got := a.NodeID(); got != testNode {
		t.Errorf("got node %q, want %q back", got, testNode)
	}
}

// TestRegisteredAnew gives a deregistered node an activation that it did not have.
func TestRegisteredAnew(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	cfg.refusedWait = 50 * time.Millisecond
	var act atomic.Pointer[Activation]
	act.Store(&cfg.Activation)
	cfg.FindActivation = func() (Activation, error) {
		if a := act.Load(); a != nil {
			return *a, nil
		}
		return Activation{}, errors.New("no file")
	}
	a, _ := run(t, cfg)
	g.control()
	receive(t, g.facts, "facts")
	act.Store(nil)
	g.deregister(testNode)
	eventually(t, func() bool { return g.count("UnrecognizedClientException") > 2 })
	if got := a.NodeID(); got != testNode {
		t.Errorf("without an activation: got node %q, want %q", got, testNode)
	}
	act.Store(&cfg.Activation)
	g.control()
	if got := a.NodeID(); got == testNode {
		t.Error("got the old node, want a new one")
	}
	facts := receive(t, g.facts, "facts")
	if facts.InstanceID != a.NodeID() {
		t.Errorf("got facts of %q, want of %q", facts.InstanceID, a.NodeID())
	}
}

// TestRefusedByClock has a server whose clock is off refuse a node: it knows the node,
// so that no activation is used.
func TestRefusedByClock(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	_, stop := run(t, cfg)
	g.control()
	stop()
	cfg.now = func() time.Time { return time.Now().Add(time.Hour) }
	cfg.refusedWait = 50 * time.Millisecond
	run(t, cfg)
	eventually(t, func() bool { return g.count("InvalidSignatureException") > 2 })
	if got := g.count("RegisterManagedInstance"); got != 1 {
		t.Errorf("registered %d times, want once", got)
	}
}

// TestRegisterInOtherRegion finds a wrong region while somebody looks.
func TestRegisterInOtherRegion(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	cfg.Region = "eu-west-1"
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Register(t.Context())
	if !errors.Is(err, ErrKeyRefused) || !strings.Contains(err.Error(), "registered as "+testNode) || !strings.Contains(err.Error(), "us-east-1") {
		t.Errorf("got %v, want a refusal that names node and region", err)
	}
	cfg.Region, cfg.Activation = "us-east-1", Activation{}
	run(t, cfg)
	g.control() // the registration was not lost
}
