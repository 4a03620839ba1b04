package frontdoor_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/internal/needs"
	"sallyport.dev/member"
	"sallyport.dev/sallyporttest"
	"sallyport.dev/session"
)

const (
	frontend = "i-0a1b2c3d4e5f60001"
	backend  = "i-0a1b2c3d4e5f60002"
	suffix   = "nodes.example.com"
)

// world is a system with a front door, and alice's folder with her key.
type world struct {
	*sallyporttest.System
	t    testing.TB
	dir  string
	host string
	port string
}

// newWorld starts a member with a front door and the nodes frontend-1 and backend-1,
// both run by this process's user.
func newWorld(t testing.TB, change ...func(*member.Config)) *world {
	t.Helper()
	s := sallyporttest.Start(t, "m1", sallyporttest.Options{Configure: func(c *member.Config) {
		c.SSH = &member.SSH{Listen: "127.0.0.1:0", Suffix: suffix}
		for _, f := range change {
			f(c)
		}
	}})
	s.Node(frontend, identity.Tags{"Name": "frontend-1", "Department": "FrontEnd"})
	s.Node(backend, identity.Tags{"Name": "backend-1", "Department": "BackEnd"})
	w := &world{System: s, t: t, dir: t.TempDir()}
	var err error
	if w.host, w.port, err = net.SplitHostPort(s.SSHAddress()); err != nil {
		t.Fatal(err)
	}
	return w
}

// newKey makes a key and writes it to the folder, for the programs of OpenSSH.
func (w *world) newKey(name string) ssh.Signer {
	w.t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.file(name), pem.EncodeToMemory(block), 0o600); err != nil {
		w.t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		w.t.Fatal(err)
	}
	return signer
}

func (w *world) file(name string) string { return filepath.Join(w.dir, name) }

// register uploads a public key, as "aws iam upload-ssh-public-key" does.
func (w *world) register(user string, key ssh.PublicKey) (id string) {
	w.t.Helper()
	k := identity.SSHPublicKey{
		ID: identity.NewSSHKeyID(), User: user, Body: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))),
		Fingerprint: ssh.FingerprintLegacyMD5(key), Active: true, Uploaded: time.Now(),
	}
	if err := w.Store.CreateSSHKey(w.t.Context(), k, 5); err != nil {
		w.t.Fatal(err)
	}
	return k.ID
}

// person makes a user with a policy and a registered key of the same name.
func (w *world) person(name, policy string) ssh.Signer {
	w.t.Helper()
	w.User(name, nil, policy)
	key := w.newKey(name)
	w.register(name, key.PublicKey())
	return key
}

// config writes an ssh_config that uses the key and trusts the host authority.
func (w *world) config(key string, lines ...string) string {
	w.t.Helper()
	authorities, err := w.Store.SSHAuthorities(w.t.Context(), identity.SSHHosts)
	if err != nil || len(authorities) == 0 {
		w.t.Fatalf("host authorities: %d, %v", len(authorities), err)
	}
	known := fmt.Sprintf("@cert-authority [%s]:%s,*.%s %s\n", w.host, w.port, suffix, authorities[0].PublicKey)
	if err := os.WriteFile(w.file("known_hosts"), []byte(known), 0o600); err != nil {
		w.t.Fatal(err)
	}
	text := strings.Join(append(lines, fmt.Sprintf(`
Host gateway
  HostName %s
  Port %s
Host *.%s
  ProxyJump %s@gateway
Host *
  IdentityFile %s
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile %s
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 20
`, w.host, w.port, suffix, key, w.file(key), w.file("known_hosts"))), "\n")
	path := w.file("config-" + key)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// result is what a program of OpenSSH did.
type result struct {
	stdout, stderr string
	status         int
}

// run runs a program to its end.
func (w *world) run(stdin io.Reader, name string, args ...string) result {
	w.t.Helper()
	path := needs.Program(w.t, name)
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_TEST=from-client", "SECRET_TEST=from-client", "LD_TEST=from-client", "TERM=xterm", "SSH_AUTH_SOCK=")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	exit := (*exec.ExitError)(nil)
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("%s: %v", name, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ssh runs ssh with a config.
func (w *world) ssh(config string, args ...string) result {
	w.t.Helper()
	return w.run(nil, "ssh", append([]string{"-F", config}, args...)...)
}

// want fails the test unless the program succeeded and showed the text.
func (w *world) want(r result, stdout string) {
	w.t.Helper()
	if r.status != 0 || r.stdout != stdout {
		w.t.Errorf("got status %d, %q\nstderr: %s\nwant status 0, %q", r.status, r.stdout, r.stderr, stdout)
	}
}

// records returns the audit records of an event.
func (w *world) records(event string) []audit.Record {
	w.t.Helper()
	var all []audit.Record
	for r, err := range audit.All(w.t.Context(), w.Store, audit.Filter{Event: event}) {
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// sessions returns all sessions, newest first.
func (w *world) sessions() []session.Session {
	w.t.Helper()
	all, err := w.Store.Sessions(w.t.Context(), session.Filter{})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// settled waits until no session is active.
func (w *world) settled() {
	w.t.Helper()
	w.Eventually(func() bool {
		for _, s := range w.sessions() {
			if s.State.Active() {
				return false
			}
		}
		return true
	}, "all sessions end")
}

// dial opens a connection with Go's client.
func (w *world) dial(user string, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	return ssh.Dial("tcp", net.JoinHostPort(w.host, w.port), &ssh.ClientConfig{
		User: user, Auth: auth, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 10 * time.Second,
	})
}

// request is a request on a channel, and terminalRequest what asks for a terminal.
type request struct {
	kind    string
	payload []byte
}

type terminalRequest struct {
	Term                      string
	Cols, Rows, Width, Height uint32
	Modes                     string
}

func text(s string) []byte { return ssh.Marshal(struct{ Text string }{s}) }

// ask opens a session with requests, all of which must be taken, and returns what it
// says on standard error and its exit status; -1 if it tells none.
func ask(t testing.TB, c *ssh.Client, requests ...request) (said string, status int) {
	t.Helper()
	ch, incoming, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ch.Close()
	statuses := make(chan int, 1)
	go func() {
		status := -1
		for r := range incoming {
			var exit struct{ Status uint32 }
			if r.Type == "exit-status" && ssh.Unmarshal(r.Payload, &exit) == nil {
				status = int(exit.Status)
			}
		}
		statuses <- status
	}()
	for _, r := range requests {
		if ok, err := ch.SendRequest(r.kind, true, r.payload); !ok || err != nil {
			t.Fatalf("%s: got %v, %v", r.kind, ok, err)
		}
	}
	ch.CloseWrite()
	stderr := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(ch.Stderr())
		stderr <- string(b)
	}()
	io.Copy(io.Discard, ch)
	ch.Close()
	return <-stderr, <-statuses
}

// refusesClient checks that a data channel does not let a client in.
func (w *world) refusesClient(url, token string) {
	w.t.Helper()
	link, err := client.Dialer(nil, "test")(w.t.Context(), url)
	if err != nil {
		return
	}
	defer link.Close()
	opening := fmt.Sprintf(`{"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":%q,"ClientId":"c","ClientVersion":"1.2.700.0"}`, token)
	if err := link.Write(true, []byte(opening)); err != nil {
		return
	}
	if _, b, err := link.Read(); err == nil {
		w.t.Errorf("the data channel let somebody in: %d bytes", len(b))
	}
}

// waitSession waits for a session that was started.
func waitSession(s *ssh.Session) error {
	done := make(chan error, 1)
	go func() { done <- s.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		return errors.New("the session does not end")
	}
}
