package frontdoor_test

import (
	"crypto/rand"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/sallyporttest"
	"sallyport.dev/session"
)

// liar offers one key and signs with another.
type liar struct {
	offers ssh.PublicKey
	signs  ssh.Signer
}

func (l liar) PublicKey() ssh.PublicKey { return l.offers }

func (l liar) Sign(r io.Reader, data []byte) (*ssh.Signature, error) { return l.signs.Sign(r, data) }

// A key that is offered but not proven makes nobody: neither alone, nor in the same
// connection as another that is.
func TestUnprovenKey(t *testing.T) {
	w := newWorld(t)
	alice := w.person("alice", sallyporttest.Everything)
	mallory := w.person("mallory", sallyporttest.Everything)
	lie := liar{alice.PublicKey(), mallory}
	if _, err := w.dial("frontend-1", ssh.PublicKeys(lie)); err == nil {
		t.Error("a key without its signature was taken")
	}
	// ssh asks about alice's key, of which it has the public half, and proves mallory's.
	if err := os.WriteFile(w.file("alice.pub"), ssh.MarshalAuthorizedKey(alice.PublicKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(w.file("alice")); err != nil {
		t.Fatal(err)
	}
	cfg := w.config("mallory", "IdentityFile "+w.file("alice"))
	r := w.ssh(cfg, "-v", "frontend-1@gateway", "true")
	if r.status != 0 || !strings.Contains(r.stderr, "Server accepts key: "+w.file("alice")) {
		t.Errorf("got %+v", r)
	}
	if got, want := w.sessions()[0].OwnerName, "mallory"; got != want {
		t.Errorf("the session is %s's, want %s's", got, want)
	}
}

// Who is let in, by key and by certificate.
func TestAuthentication(t *testing.T) {
	w := newWorld(t)
	alice := w.person("alice", sallyporttest.Everything)
	bob := w.person("bob", sallyporttest.Everything)
	shared := w.newKey("shared")
	w.register("alice", shared.PublicKey())
	w.register("bob", shared.PublicKey())
	certified := func(change func(*ssh.Certificate), ca ssh.Signer) ssh.Signer {
		cert := &ssh.Certificate{
			Key: alice.PublicKey(), CertType: ssh.UserCert, KeyId: "alice", ValidPrincipals: []string{"user/alice"},
			ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
		}
		change(cert)
		if err := cert.SignCert(rand.Reader, ca); err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewCertSigner(cert, alice)
		if err != nil {
			t.Fatal(err)
		}
		return signer
	}
	same := func(*ssh.Certificate) {}
	for _, c := range []struct {
		name, user string
		auth       ssh.AuthMethod
		ok         bool
	}{
		{"registered key", "frontend-1", ssh.PublicKeys(alice), true},
		{"registered key, person named", "alice@frontend-1", ssh.PublicKeys(alice), true},
		{"registered key, login named", "alice+deploy@frontend-1", ssh.PublicKeys(alice), true},
		{"another's name", "bob@frontend-1", ssh.PublicKeys(alice), false},
		{"key of two, unnamed", "frontend-1", ssh.PublicKeys(shared), false},
		{"key of two, named", "bob@frontend-1", ssh.PublicKeys(shared), true},
		{"key of two, named as for a jump", "bob", ssh.PublicKeys(shared), true},
		{"unknown key", "frontend-1", ssh.PublicKeys(w.newKey("stranger")), false},
		{"no key", "frontend-1", ssh.PublicKeys(), false},
		{"password", "frontend-1", ssh.Password("x"), false},
		{"certificate of an unknown authority", "frontend-1", ssh.PublicKeys(certified(same, w.newKey("ca"))), false},
		{"certificate signed by a person's key", "frontend-1", ssh.PublicKeys(certified(same, bob)), false},
		{"certificate signed by itself", "frontend-1", ssh.PublicKeys(certified(same, alice)), false},
		{"host certificate", "frontend-1", ssh.PublicKeys(certified(func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, bob)), false},
		{"newline", "frontend-1\nroot", ssh.PublicKeys(alice), false},
		{"NUL", "frontend-1\x00", ssh.PublicKeys(alice), false},
		{"nothing", "", ssh.PublicKeys(alice), false},
		{"no node", "alice@", ssh.PublicKeys(alice), false},
		{"very long", strings.Repeat("x", 400), ssh.PublicKeys(alice), false},
		{"not UTF-8", "front\xff", ssh.PublicKeys(alice), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := w.dial(c.user, c.auth)
			if err == nil {
				conn.Close()
			}
			if (err == nil) != c.ok {
				t.Errorf("got %v, want let in %v", err, c.ok)
			}
		})
	}
}

// The banner helps the person without a word on nodes.
func TestBanner(t *testing.T) {
	w := newWorld(t)
	w.person("alice", sallyporttest.Everything)
	w.newKey("stranger")
	r := w.ssh(w.config("stranger"), "frontend-1@gateway", "true")
	if r.status != 255 || !strings.Contains(r.stderr, "is nobody's here") || strings.Contains(r.stderr, "frontend-1") && !strings.Contains(r.stderr, "frontend-1@") {
		t.Errorf("got %+v", r)
	}
	w.person("bob", sallyporttest.Everything)
	r = w.ssh(w.config("alice"), "bob@frontend-1@gateway", "true")
	if r.status != 255 || !strings.Contains(r.stderr, "is not a key of bob's here") {
		t.Errorf("another's name: got %+v", r)
	}
}

// To people who may not use it, a node looks like one that does not exist.
func TestUnseenNodes(t *testing.T) {
	w := newWorld(t)
	deny := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*",
		"Condition":{"StringEquals":{"ssm:resourceTag/Department":"FrontEnd"}}}%s]}`
	for name, more := range map[string]string{
		"dora": "",
		"emil": `,{"Effect":"Deny","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Department":"BackEnd"}}}`,
	} {
		key := w.person(name, strings.Replace(deny, "%s", more, 1))
		for _, requests := range [][]request{{{"shell", nil}}, {{"exec", text("id")}}, {{"subsystem", text("sftp")}}} {
			said := map[string]string{}
			for _, node := range []string{"backend-1", "nothing-1", backend, "i-0a1b2c3d4e5f60009", "nöthing", "back"} {
				c, err := w.dial(node, ssh.PublicKeys(key))
				if err != nil {
					t.Fatal(err)
				}
				text, status := ask(t, c, requests...)
				c.Close()
				said[strings.ReplaceAll(text, node, "NODE")] += " " + node
				if status != 254 || !strings.Contains(text, "AccessDenied") {
					t.Errorf("%s on %s: got status %d, %q", requests[0].kind, node, status, text)
				}
			}
			if len(said) != 1 {
				t.Errorf("%s by %s: answers differ: %q", requests[0].kind, name, said)
			}
		}
	}
}

// Who may use every node is told that there is no such one, and who may not is not.
func TestUnknownNode(t *testing.T) {
	w := newWorld(t)
	for name, test := range map[string]struct{ policy, want string }{
		"alice": {sallyporttest.Everything, "There is no node nothing-1."},
		"dora":  {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Department":"FrontEnd"}}}]}`, "AccessDenied"},
	} {
		c, err := w.dial("nothing-1", ssh.PublicKeys(w.person(name, test.policy)))
		if err != nil {
			t.Fatal(err)
		}
		text, status := ask(t, c, request{"shell", nil})
		c.Close()
		if status != 254 || !strings.Contains(text, test.want) {
			t.Errorf("%s: got status %d, %q, want %q", name, status, text, test.want)
		}
	}
}

// More channels than a connection may have are refused, and the others go on.
func TestChannelFlood(t *testing.T) {
	w := newWorld(t)
	c, err := w.dial("frontend-1", ssh.PublicKeys(w.person("alice", sallyporttest.Everything)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var last ssh.Channel
	refused := 0
	for range 300 {
		ch, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			refused++
			continue
		}
		go ssh.DiscardRequests(requests)
		last = ch
	}
	if refused != 44 {
		t.Errorf("got %d refused of 300, want 44", refused)
	}
	last.Close()
	w.Eventually(func() bool {
		ch, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			return false
		}
		go ssh.DiscardRequests(requests)
		ch.Close()
		return true
	}, "there is room again")
}

// sleeper starts a program on the node and returns its process id.
func sleeper(t *testing.T, c *ssh.Client) (s *ssh.Session, pid int, stderr *strings.Builder) {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	stderr = &strings.Builder{}
	s.Stderr = stderr
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("echo $$; exec sleep 1000"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 32)
	n, err := out.Read(b)
	if err != nil {
		t.Fatalf("%v; stderr: %s", err, stderr)
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(b[:n]))); err != nil {
		t.Fatal(err)
	}
	return s, pid, stderr
}

func (w *world) gone(pid int) {
	w.t.Helper()
	w.Eventually(func() bool { return syscall.Kill(pid, 0) != nil }, "process %d on the node ends", pid)
}

// What a connection opened ends with it, and with its person's right to be here.
func TestEndings(t *testing.T) {
	w := newWorld(t)
	alice := w.newKey("alice")
	w.User("alice", nil, sallyporttest.Everything)
	id := w.register("alice", alice.PublicKey())
	dial := func(t *testing.T) *ssh.Client {
		c, err := w.dial("frontend-1", ssh.PublicKeys(alice))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	t.Run("the connection breaks", func(t *testing.T) {
		c := dial(t)
		_, pid, _ := sleeper(t, c)
		c.Close()
		w.gone(pid)
	})
	t.Run("the session is terminated", func(t *testing.T) {
		s, pid, stderr := sleeper(t, dial(t))
		active := true
		all, err := w.Store.Sessions(t.Context(), session.Filter{Active: &active})
		if err != nil || len(all) != 1 {
			t.Fatalf("got %d sessions, %v", len(all), err)
		}
		if err := w.API(w.User("admin", nil, sallyporttest.Everything)).TerminateSession(t.Context(), all[0].ID); err != nil {
			t.Fatal(err)
		}
		exit, ok := waitSession(s).(*ssh.ExitError)
		if !ok || exit.ExitStatus() != 254 || !strings.Contains(stderr.String(), "terminated by") {
			t.Errorf("got %v, %q", exit, stderr)
		}
		w.gone(pid)
	})
	t.Run("the key is made inactive", func(t *testing.T) {
		c := dial(t)
		s, pid, stderr := sleeper(t, c)
		if err := w.Store.UpdateSSHKey(t.Context(), "alice", id, false); err != nil {
			t.Fatal(err)
		}
		if err := waitSession(s); err == nil || !strings.Contains(stderr.String(), "your access was ended") {
			t.Errorf("got %v, %q", err, stderr)
		}
		w.gone(pid)
		if err := c.Wait(); err == nil {
			t.Error("the connection goes on")
		}
	})
	w.settled()
}

// Nobody else can attach to a session of the front door: not even its owner, by the API.
func TestSessionIsOfItsConnection(t *testing.T) {
	w := newWorld(t)
	key := w.User("alice", nil, sallyporttest.Everything)
	signer := w.newKey("alice")
	w.register("alice", signer.PublicKey())
	c, err := w.dial("frontend-1", ssh.PublicKeys(signer))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, pid, _ := sleeper(t, c)
	stolen, err := w.API(key).ResumeSession(t.Context(), w.sessions()[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if stolen.Token != "" {
		w.refusesClient(stolen.URL, stolen.Token)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the session's program: %v", err)
	}
	s.Close()
}

// Silent connections do not keep others out.
func TestSilentConnections(t *testing.T) {
	w := newWorld(t)
	alice := w.person("alice", sallyporttest.Everything)
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	closed := 0
	for range 100 {
		c, err := net.Dial("tcp", net.JoinHostPort(w.host, w.port))
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	for _, c := range idle {
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		b := make([]byte, 256)
		if _, err := c.Read(b); err != nil && !os.IsTimeout(err) {
			closed++
		}
	}
	if closed != 36 { // of 100, 64 may wait
		t.Errorf("got %d closed of 100, want 36", closed)
	}
	for _, c := range idle[:10] {
		c.Close()
	}
	w.Eventually(func() bool {
		c, err := w.dial("frontend-1", ssh.PublicKeys(alice))
		if err != nil {
			return false
		}
		c.Close()
		return true
	}, "there is room for others")
}
