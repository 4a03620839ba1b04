// Package sallyporttest runs a whole system in one process, for tests: members,
// nodes with real agents, and users with real keys.
package sallyporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sallyport.dev/agent"
	"sallyport.dev/agent/shell"
	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/member"
)

// Account and region of test systems.
const (
	Account = "111111111111"
	Region  = "us-east-1"
)

// patience bounds how long a test waits for something that should happen soon, also on a
// machine that has much else to do.
const patience = 2 * time.Minute

// Options say what a system is like. The zero value is one member with SQLite.
type Options struct {
	// Store is the URL of a shared store; a SQLite file by default.
	Store string
	// NATS are the URLs of a shared NATS server.
	NATS []string
	// Dir is where members keep state; a temporary folder by default. Members of one
	// cluster share it for the master key and the CA.
	Dir string
	// Configure changes a member's configuration before it starts.
	Configure func(*member.Config)
}

// System is one member and what a test hangs on it.
type System struct {
	*member.Member
	t    testing.TB
	stop sync.Once

	mu   sync.Mutex
	apis map[Key]*client.API
}

// Start starts a member named name, which is closed when the test ends.
func Start(t testing.TB, name string, o Options) *System {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	cfg := member.Config{
		Account: Account, Region: Region, Member: name,
		DataDir:     o.Dir,
		Recordings:  &member.Recordings{Spool: filepath.Join(o.Dir, "spool-"+name)},
		Store:       o.Store,
		ListenPlain: "127.0.0.1:0",
		Listen:      "127.0.0.1:0",
		Logger:      Logger(t),
	}
	if len(o.NATS) > 0 {
		cfg.NATS = &member.NATS{URLs: o.NATS}
	}
	if o.Configure != nil {
		o.Configure(&cfg)
	}
	if err := cfg.Check(); err != nil {
		t.Fatalf("configuration of member %s: %v", name, err)
	}
	m, err := member.Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("starting member %s: %v", name, err)
	}
	s := &System{Member: m, t: t, apis: map[Key]*client.API{}}
	t.Cleanup(s.Stop)
	return s
}

// Stop closes the member; tests that watch a member die call it early.
func (s *System) Stop() {
	s.stop.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			s.t.Errorf("closing member: %v", err)
		}
	})
}

// Logger returns a logger that shows what was logged if the test fails.
func Logger(t testing.TB) *slog.Logger {
	b := &lockedBuffer{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", b.String())
		}
	})
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// lockedBuffer keeps the last part of what is written to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const keptLog = 256 << 10

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() > keptLog {
		l.b.Next(l.b.Len() - keptLog/2)
	}
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Node is a node of a test system.
type Node struct {
	ID       string
	StateDir string
	Stop     func() // ends the agent and waits for it
}

// Node registers a node with the given id and tags, runs its agent in this process,
// and returns when it is connected. Servers are the URLs that the agent dials, this
// member's by default.
func (s *System) Node(id string, tags identity.Tags, servers ...string) *Node {
	s.t.Helper()
	return s.NodeWith(id, tags, func(*agent.Config) {}, servers...)
}

// NodeWith is Node with a change to its agent's configuration.
func (s *System) NodeWith(id string, tags identity.Tags, change func(*agent.Config), servers ...string) *Node {
	s.t.Helper()
	activation, code, err := s.CreateActivation(s.t.Context(), tags["Name"], tags, []string{id})
	if err != nil {
		s.t.Fatalf("activation for %s: %v", id, err)
	}
	if len(servers) == 0 {
		servers = []string{s.PlainURL()}
	}
	dir := s.t.TempDir()
	cfg := agent.Config{
		Servers: servers, Region: Region, StateDir: dir, CAFile: s.caFile(),
		Activation: agent.Activation{ID: activation, Code: code},
		Shell:      shell.Options{RunAsSelf: true, Program: plainShell(s.t)},
		Logger:     Logger(s.t),
	}
	change(&cfg)
	n := StartAgent(s.t, id, cfg)
	s.Eventually(func() bool { return s.Connected(s.t.Context(), id) }, "node %s connects", id)
	return n
}

// plainShell is a shell that reads nobody's start-up files, which may do anything, and which
// every login may run.
func plainShell(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shell") // the test's own folder is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "shell")
	script := "#!/bin/sh\nexec bash --norc --noprofile \"$@\"\n"
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// StartAgent runs the agent of a node in this process, at whichever server, until the
// test ends.
func StartAgent(t testing.TB, id string, cfg agent.Config) *Node {
	t.Helper()
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatalf("agent of %s: %v", id, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil {
			t.Errorf("agent of %s: %v", id, err)
		}
	}()
	n := &Node{ID: id, StateDir: cfg.StateDir, Stop: sync.OnceFunc(func() { cancel(); <-done })}
	t.Cleanup(n.Stop)
	return n
}

func (s *System) caFile() string {
	if s.TLSURL() == "" {
		return ""
	}
	return s.CAFile()
}

// Eventually fails the test unless the condition holds within the test's patience.
func (s *System) Eventually(holds func() bool, format string, args ...any) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited %v for: %s", patience, fmt.Sprintf(format, args...))
		}
	}
}

// Key is a user's access key, or with a token temporary credentials.
type Key struct{ ID, Secret, Token string }

// User makes a user with tags and, unless it is empty, one inline policy.
func (s *System) User(name string, tags identity.Tags, policy string) Key {
	s.t.Helper()
	ctx := s.t.Context()
	if err := s.CreateUser(ctx, name, tags, ""); err != nil {
		s.t.Fatalf("user %s: %v", name, err)
	}
	if policy != "" {
		if err := s.PutInlinePolicy(ctx, identity.Owner{Kind: identity.OwnerUser, Name: name}, "test", policy); err != nil {
			s.t.Fatalf("policy of user %s: %v", name, err)
		}
	}
	id, secret, err := s.CreateAccessKey(ctx, name)
	if err != nil {
		s.t.Fatalf("key of user %s: %v", name, err)
	}
	return Key{ID: id, Secret: secret}
}

// Everything is the policy of an administrator.
const Everything = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`

// Env returns the environment of a program that acts with the key, without what
// this process has of AWS's.
func (s *System) Env(k Key) []string {
	return append(os.Environ(),
		"AWS_ACCESS_KEY_ID="+k.ID, "AWS_SECRET_ACCESS_KEY="+k.Secret, "AWS_SESSION_TOKEN="+k.Token,
		"AWS_REGION="+Region, "AWS_DEFAULT_REGION="+Region, "AWS_PROFILE=",
		"AWS_ENDPOINT_URL="+s.PlainURL(),
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=",
	)
}
