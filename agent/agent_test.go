package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport.dev/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestShell is the whole way: register, connect, start, type, resize, exit.
func TestShell(t *testing.T) {
	g := newGateway(t)
	a, stop := run(t, g.config())
	c := g.control()
	if got := a.NodeID(); got != testNode {
		t.Errorf("got node id %q, want %q", got, testNode)
	}
	facts := receive(t, g.facts, "facts")
	if facts.AgentName != "sallyport-agent" || facts.InstanceID != testNode || facts.PlatformType != "Linux" || facts.ComputerName == "" {
		t.Errorf("got facts %+v", facts)
	}
	began := time.Now()
	c.start(wire.StartSession{SessionID: "alice-1", DataChannelToken: "given"})
	p := g.attach("alice-1")
	p.state("Connected")
	p.size(100, 30)
	p.expect("$ ")
	t.Logf("first prompt after %v", time.Since(began))
	p.typed("stty size\n")
	p.expect("30 100")
	p.size(132, 43)
	p.typed("stty size\n")
	p.expect("43 132")
	p.typed("printf '\\305\\274\\303\\263\\305\\202\\304\\207\\n'\n")
	p.expect("żółć")
	p.typed("sleep 100\n")
	running(t, "sleep", "100")
	p.typed("\x03")
	p.typed("echo rc=$?\n")
	p.expect("rc=130")
	ended := time.Now()
	p.typed("exit 7\n")
	tc := c.completed("alice-1")
	t.Logf("end after %v", time.Since(ended))
	if tc.FinalTaskStatus != "Success" || tc.ExitStatus == nil || *tc.ExitStatus != 7 || tc.InstanceID != testNode {
		t.Errorf("got %+v, want Success with exit status 7", tc)
	}
	p.state("Terminating")
	if got := g.asked["alice-1"]; got != 0 {
		t.Errorf("asked for a token %d times although one was given", got)
	}
	if got := g.openings["alice-1"][0]; got.TokenValue != "given" || got.ClientInstanceID != testNode {
		t.Errorf("got opening %+v", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestSessionWithoutToken(t *testing.T) {
	g := newGateway(t)
	run(t, g.config())
	c := g.control()
	c.start(wire.StartSession{SessionID: "s"})
	p := g.attach("s")
	p.expect("$ ") // without any size
	if got := g.openings["s"][0].TokenValue; got != "token-s" {
		t.Errorf("got token %q, want the one asked for", got)
	}
	c.terminate("s")
	if tc := c.completed("s"); tc.FinalTaskStatus != "Success" || tc.ExitStatus != nil {
		t.Errorf("got %+v, want Success without an exit status", tc)
	}
}

func TestStateFile(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	_, stop := run(t, cfg)
	g.control()
	stop()
	info, err := os.Stat(cfg.StateDir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got directory %v, %v, want mode 0700", info.Mode(), err)
	}
	info, err = os.Stat(filepath.Join(cfg.StateDir, stateFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got file %v, %v, want mode 0600", info.Mode(), err)
	}
	status, err := ReadStatus(cfg.StateDir)
	if err != nil || status.InstanceID != testNode || !status.SameMachine || status.Running {
		t.Errorf("got status %+v, %v", status, err)
	}
	// The registration is used again, without an activation.
	cfg.Activation = Activation{}
	_, stop = run(t, cfg)
	g.control()
	if status, _ := ReadStatus(cfg.StateDir); !status.Running {
		t.Error("status does not show the running agent")
	}
	stop()
	if got := g.count("RegisterManagedInstance"); got != 1 {
		t.Errorf("registered %d times, want once", got)
	}
}

func TestRegisterRefused(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(cfg.StateDir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Activation.Code = "WRONG-ACTIVATION-CODE-1"
	if a, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err = a.Register(t.Context()); !hasCode(err, "InvalidActivation") {
		t.Errorf("got %v, want InvalidActivation", err)
	}
	after, _ := os.ReadFile(filepath.Join(cfg.StateDir, stateFile))
	if string(before) != string(after) {
		t.Error("a refused registration changed the one there was")
	}
	if strings.Contains(err.Error(), "WRONG") {
		t.Error("the error shows the activation code")
	}
}

func TestNotRegistered(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	cfg.Activation = Activation{}
	_, stop := run(t, cfg)
	if err := stop(); err != nil && !errors.Is(err, ErrNotRegistered) {
		t.Errorf("got %v, want %v", err, ErrNotRegistered)
	}
}

// TestClone copies a node's disk to another machine.
func TestClone(t *testing.T) {
	original := machine{ID: "m1", Product: "p1", Hostname: "h", MACs: []string{"02:00:00:00:00:01"}}
	clone := machine{ID: "m1", Product: "p2", Hostname: "h", MACs: []string{"02:00:00:00:00:02"}}
	g := newGateway(t)
	cfg := g.config()
	cfg.machine = func() machine { return original }
	a, stop := run(t, cfg)
	g.control()
	stop()
	cfg.machine = func() machine { return clone }
	cfg.Activation = Activation{}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Run(t.Context()); !errors.Is(err, ErrOtherMachine) {
		t.Errorf("without an activation: got %v, want %v", err, ErrOtherMachine)
	}
	cfg.Activation = Activation{ID: testID, Code: testCode}
	b, stop = run(t, cfg)
	g.control()
	if a.NodeID() == b.NodeID() || b.NodeID() == "" {
		t.Errorf("got node ids %q and %q, want two", a.NodeID(), b.NodeID())
	}
	stop()
}

// TestFingerprintRefused has the server tell that the machine is another one.
func TestFingerprintRefused(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	_, stop := run(t, cfg)
	g.control()
	stop()
	g.mu.Lock()
	g.prints[testNode] = "another"
	g.mu.Unlock()
	without := cfg
	without.Activation = Activation{}
	a, err := New(without)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); !errors.Is(err, ErrOtherMachine) {
		t.Errorf("without an activation: got %v, want %v", err, ErrOtherMachine)
	}
	a, _ = run(t, cfg)
	g.control()
	if a.NodeID() == testNode {
		t.Error("the node was not registered anew")
	}
}

func TestOneAgentPerState(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	run(t, cfg)
	g.control()
	second, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestKeyRotation(t *testing.T) {
	for _, lost := range []bool{false, true} {
		g := newGateway(t)
		g.rotate = true
		if lost {
			g.lose = "UpdateManagedInstancePublicKey"
		}
		cfg := g.config()
		_, stop := run(t, cfg)
		g.control()
		stop()
		// The next agent must know which key counts.
		_, stop = run(t, cfg)
		g.control()
		stop()
		r, err := loadRegistration(cfg.StateDir)
		if err != nil || r.NextKey != "" {
			t.Errorf("lost %v: got unsettled rotation, %v", lost, err)
		}
		key, err := decodeKey(r.PrivateKey)
		if err != nil || !key.PublicKey.Equal(g.keys[testNode]) {
			t.Errorf("lost %v: key on disk is not the server's, %v", lost, err)
		}
		if got := g.count("RegisterManagedInstance"); got != 1 {
			t.Errorf("lost %v: registered %d times, want once", lost, got)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"servers: at least one":       func(c *Config) { c.Servers = nil },
		"https:// is required":        func(c *Config) { c.Servers = []string{"http://192.0.2.1"} },
		"not of the form":             func(c *Config) { c.Servers = []string{"https://u:p@h"} },
		"ca_file":                     func(c *Config) { c.CAFile = "/nonexistent" },
		"ca_sha256":                   func(c *Config) { c.CASHA256 = "abc" },
		"region":                      func(c *Config) { c.Region = "a/b" },
		"activation: id and code":     func(c *Config) { c.Activation.Code = "" },
		"max_sessions: -1":            func(c *Config) { c.MaxSessions = -1 },
		"https:// is required except": func(c *Config) { c.Servers = []string{"http://example.com"} },
	} {
		cfg := Config{Servers: []string{"https://localhost"}, Activation: Activation{ID: "a", Code: "b"}}
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
