package frontdoor_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/internal/needs"
	"sallyport.dev/sallyporttest"
)

// echo is a TCP server that sends back what it gets, up to the end: at 127.0.0.1, which
// is the node itself, and at 127.0.0.2, which is not.
func echo(t testing.TB) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port = l.Addr().(*net.TCPAddr).Port
	other, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	serveEcho(t, l)
	serveEcho(t, other)
	return port
}

func serveEcho(t testing.TB, l net.Listener) {
	var conns sync.WaitGroup
	t.Cleanup(func() { l.Close(); conns.Wait() })
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				io.Copy(conn, conn)
			})
		}
	})
}

// through sends a text through a forward and half-closes; what comes back must be it.
func through(t *testing.T, conn interface {
	io.ReadWriteCloser
	CloseWrite() error
}, text string) {
	t.Helper()
	defer conn.Close()
	go func() {
		io.WriteString(conn, text)
		conn.CloseWrite()
	}()
	b, err := io.ReadAll(conn)
	if err != nil || string(b) != text {
		t.Errorf("got %d bytes, %v; want %d", len(b), err, len(text))
	}
}

func TestForwards(t *testing.T) {
	w := newWorld(t)
	key := w.person("alice", sallyporttest.Everything)
	port := echo(t)
	c, err := w.dial("frontend-1", ssh.PublicKeys(key))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	open := func(t *testing.T, address string) net.Conn {
		t.Helper()
		conn, err := c.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	long := strings.Repeat("0123456789abcdef", 100_000)
	t.Run("the node itself", func(t *testing.T) {
		through(t, open(t, fmt.Sprintf("localhost:%d", port)).(halfCloser), long)
	})
	t.Run("another host", func(t *testing.T) {
		through(t, open(t, fmt.Sprintf("127.0.0.2:%d", port)).(halfCloser), long)
	})
	t.Run("many at once share a session", func(t *testing.T) {
		var all sync.WaitGroup
		for i := range 50 {
			conn := open(t, fmt.Sprintf("localhost:%d", port)).(halfCloser)
			all.Go(func() { through(t, conn, fmt.Sprintf("number %d", i)) })
		}
		all.Wait()
	})
	t.Run("nothing listens there", func(t *testing.T) {
		if _, err := c.Dial("tcp", "localhost:"+freePort(t)); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("got %v, want that the connection was refused", err)
		}
	})
	t.Run("metadata address", func(t *testing.T) {
		for _, address := range []string{"169.254.169.254:80", "[::ffff:169.254.169.254]:80"} {
			if _, err := c.Dial("tcp", address); err == nil || !strings.Contains(err.Error(), "is forbidden") {
				t.Errorf("%s: got %v, want that the address is forbidden", address, err)
			}
		}
	})
	t.Run("socket of the node", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if conn, err := l.Accept(); err == nil {
				io.Copy(conn, conn)
				conn.Close()
			}
		}()
		conn, err := c.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		through(t, conn.(halfCloser), "by socket")
	})
	t.Run("remote forwards are refused", func(t *testing.T) {
		if l, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
			l.Close()
			t.Error("a remote forward was opened")
		}
	})
	documents := map[string]int{}
	for _, s := range w.sessions() {
		documents[s.Document]++
	}
	if got := documents["AWS-StartPortForwardingSession"]; got != 2 { // the echo server and the free port
		t.Errorf("sessions to the node's ports: got %d, want 2; all: %v", got, documents)
	}
	c.Close()
	w.settled()
}

type halfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// A forward's session ends when nobody has used it for a while.
func TestForwardLingers(t *testing.T) {
	w := newWorld(t)
	key := w.person("alice", sallyporttest.Everything)
	port := echo(t)
	c, err := w.dial("frontend-1", ssh.PublicKeys(key))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		conn, err := c.Dial("tcp", fmt.Sprintf("localhost:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		through(t, conn.(halfCloser), "again")
	}
	if got := len(w.sessions()); got != 1 {
		t.Errorf("got %d sessions, want 1", got)
	}
}

// What policy allows of forwards, and what else is refused by it.
func TestForwardOnly(t *testing.T) {
	w := newWorld(t)
	port := echo(t)
	key := w.person("dora", fmt.Sprintf(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ssm:StartSession",
		"Resource":["arn:aws:ec2:*:*:instance/*","arn:aws:ssm:*::document/AWS-StartPortForwardingSessionToRemoteHost"],
		"Condition":{"StringEquals":{"ssm:resourceTag/Department":"FrontEnd"},"StringEqualsIfExists":{"sallyport:RemotePort":"%d"}}}}`, port))
	dial := func(node string) *ssh.Client {
		c, err := w.dial(node, ssh.PublicKeys(key))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	front, back := dial("frontend-1"), dial("backend-1")
	conn, err := front.Dial("tcp", fmt.Sprintf("127.0.0.2:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	through(t, conn.(halfCloser), "allowed")
	for name, try := range map[string]func() error{
		"another port": func() error { _, err := front.Dial("tcp", "127.0.0.2:1"); return err },
		"another node": func() error { _, err := back.Dial("tcp", fmt.Sprintf("127.0.0.2:%d", port)); return err },
		"the node itself": func() error {
			_, err := front.Dial("tcp", fmt.Sprintf("localhost:%d", port))
			return err
		},
		"a socket": func() error { _, err := front.Dial("unix", "/run/docker.sock"); return err },
	} {
		if err := try(); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("%s: got %v, want AccessDenied", name, err)
		}
	}
	pty := request{"pty-req", ssh.Marshal(terminalRequest{"xterm", 80, 24, 0, 0, ""})}
	for name, requests := range map[string][]request{
		"shell":                   {{"shell", nil}},
		"shell with a terminal":   {pty, {"shell", nil}},
		"command":                 {{"exec", text("id")}},
		"command with a terminal": {pty, {"exec", text("id")}},
		"file transfer":           {{"subsystem", text("sftp")}},
	} {
		if said, status := ask(t, front, requests...); status != 254 || !strings.Contains(said, "AccessDenied") {
			t.Errorf("%s: got status %d, %q", name, status, said)
		}
	}
}

func TestOpenSSHForwards(t *testing.T) {
	w := newWorld(t)
	w.person("alice", sallyporttest.Everything)
	cfg := w.config("alice")
	port := echo(t)
	local, socks := freePort(t), freePort(t)
	cmd := exec.Command(needs.Program(t, "ssh"), "-F", cfg, "-N", "-L", fmt.Sprintf("%s:localhost:%d", local, port), "-D", socks, "frontend-1@gateway")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	var conn net.Conn
	w.Eventually(func() bool {
		var err error
		conn, err = net.Dial("tcp", "127.0.0.1:"+local)
		return err == nil
	}, "ssh listens")
	through(t, conn.(halfCloser), "by -L")
	conn, err := net.Dial("tcp", "127.0.0.1:"+socks)
	if err != nil {
		t.Fatal(err)
	}
	// SOCKS5 without authentication, to 127.0.0.2 by address.
	conn.Write([]byte{5, 1, 0})
	conn.Write([]byte{5, 1, 0, 1, 127, 0, 0, 2, byte(port >> 8), byte(port)})
	if _, err := io.ReadFull(conn, make([]byte, 2+10)); err != nil {
		t.Fatal(err)
	}
	through(t, conn.(halfCloser), "by -D")
}

// An SSH agent is forwarded where a policy allows it, and only then.
func TestForwardedAgent(t *testing.T) {
	w := newWorld(t)
	w.person("alice", sallyporttest.Everything)
	w.person("carl", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*"}}`)
	needs.Program(t, "ssh-agent")
	socket := w.file("agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { agent.Process.Kill(); agent.Wait() }()
	w.Eventually(func() bool { _, err := os.Stat(socket); return err == nil }, "ssh-agent listens")
	t.Setenv("SSH_AUTH_SOCK", socket)
	if out, err := exec.Command("ssh-add", w.file("alice")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run := func(who string) result {
		script := fmt.Sprintf("SSH_AUTH_SOCK=%s ssh -F %s -o IdentityAgent=SSH_AUTH_SOCK -A frontend-1@gateway 'ssh-add -l 2>&1; echo ${SSH_AUTH_SOCK:+there}'", socket, w.config(who))
		return w.run(nil, "sh", "-c", script)
	}
	if r := run("alice"); !strings.Contains(r.stdout, "ED25519") || !strings.HasSuffix(r.stdout, "there\n") {
		t.Errorf("allowed: got %+v", r)
	}
	r := run("carl")
	if strings.Contains(r.stdout, "ED25519") || strings.HasSuffix(r.stdout, "there\n") || !strings.Contains(r.stderr, "agent is not forwarded") {
		t.Errorf("refused: got %+v", r)
	}
}
