package frontdoor

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/access"
	"sallyport.dev/identity"
)

// strangers is a server that knows nobody.
type strangers struct {
	Server
	host    ssh.Signer
	refused chan error
}

func (s strangers) HostSigner(context.Context, []string) (ssh.Signer, error) { return s.host, nil }
func (s strangers) HostKey(context.Context) (ssh.Signer, error)              { return s.host, nil }

func (s strangers) SSHPrincipal(context.Context, ssh.PublicKey, string) (identity.Principal, error) {
	return identity.Principal{}, &identity.AuthError{Failure: identity.UnknownKey, Message: "not known"}
}

func (s strangers) SSHRefused(_ context.Context, _ access.Origin, cause error) {
	select {
	case s.refused <- cause:
	default:
	}
}

// openDoor serves a door that lets nobody in, until the test ends.
func openDoor(t *testing.T, cfg Config) (address string, refused chan error) {
	t.Helper()
	return openDoorOf(t, cfg, func(s strangers) Server { return s })
}

func openDoorOf(t *testing.T, cfg Config, of func(strangers) Server) (address string, refused chan error) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	refused = make(chan error, 1)
	cfg.Server, cfg.Gateway = of(strangers{host: host, refused: refused}), struct{ Gateway }{}
	cfg.Logger, cfg.Names = slog.New(slog.DiscardHandler), []string{"localhost"}
	d, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- d.Serve(l) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := d.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if got := d.Connections(); got != 0 {
			t.Errorf("got %d connections at the end, want 0", got)
		}
	})
	return l.Addr().String(), refused
}

// Who says nothing, or hardly anything, is gone after the handshake's time.
func TestSlowHandshakes(t *testing.T) {
	address, _ := openDoor(t, Config{HandshakeTimeout: 300 * time.Millisecond})
	for name, first := range map[string]string{"silent": "", "half a line": "SSH-2.0-x", "only a version": "SSH-2.0-x\r\n", "not SSH": "GET / HTTP/1.1\r\n\r\n"} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, first)
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: still there", name)
		}
	}
}

// Nobody is asked about keys for ever, and who comes to nothing is taken down.
func TestManyKeys(t *testing.T) {
	address, refused := openDoor(t, Config{})
	var keys []ssh.Signer
	for range 100 {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewSignerFromKey(private)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, signer)
	}
	banners := 0
	_, err := ssh.Dial("tcp", address, &ssh.ClientConfig{
		User: "frontend-1", HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		BannerCallback: func(string) error { banners++; return nil },
		Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
			return keys, nil
		})},
	})
	if err == nil {
		t.Fatal("a stranger was let in")
	}
	if banners != 1 {
		t.Errorf("got %d banners, want 1", banners)
	}
	select {
	case <-refused:
	case <-time.After(10 * time.Second):
		t.Error("the refusal was not taken down")
	}
}

// friends is a server that knows everybody, for a while.
type friends struct {
	strangers
	until time.Time
}

func (f friends) SSHPrincipal(context.Context, ssh.PublicKey, string) (identity.Principal, error) {
	return identity.Principal{Kind: identity.KindUser, Name: "alice", UserID: "AIDAALICE", ExpiresAt: f.until}, nil
}

// enter opens a connection to a door that knows everybody.
func enter(t *testing.T, until time.Time, cfg Config) (ssh.Conn, <-chan *ssh.Request) {
	t.Helper()
	address, _ := openDoorOf(t, cfg, func(s strangers) Server { return friends{s, until} })
	tcp, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return shake(t, tcp, "frontend-1")
}

// shake does the client's part of a handshake, with a new key.
func shake(t *testing.T, through net.Conn, user string) (ssh.Conn, <-chan *ssh.Request) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	conn, channels, requests, err := ssh.NewClientConn(through, "", &ssh.ClientConfig{
		User: user, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Auth: []ssh.AuthMethod{ssh.PublicKeys(key)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		for c := range channels {
			c.Reject(ssh.Prohibited, "")
		}
	}()
	return conn, requests
}

// ends waits for a connection to be closed by the door.
func ends(t *testing.T, conn ssh.Conn) {
	t.Helper()
	closed := make(chan struct{})
	go func() { conn.Wait(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("the connection goes on")
	}
}

// A connection ends with the credentials of its person, who is told beforehand.
func TestExpiry(t *testing.T) {
	conn, requests := enter(t, time.Now().Add(time.Second), Config{Recheck: 20 * time.Millisecond})
	go ssh.DiscardRequests(requests)
	ch, sessionRequests, err := conn.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(sessionRequests)
	said, err := io.ReadAll(ch.Stderr())
	if err != nil || !strings.Contains(string(said), "Your certificate expires in") {
		t.Errorf("got %q, %v", said, err)
	}
	ends(t, conn)
}

func TestDeadClients(t *testing.T) {
	conn, _ := enter(t, time.Time{}, Config{Keepalive: 50 * time.Millisecond}) // nobody reads requests
	ends(t, conn)
}

func TestUnusedConnections(t *testing.T) {
	conn, requests := enter(t, time.Time{}, Config{Recheck: 20 * time.Millisecond, Unused: 100 * time.Millisecond})
	go ssh.DiscardRequests(requests)
	ends(t, conn)
}

// A channel that nothing is asked of makes room again.
func TestIdleChannels(t *testing.T) {
	conn, requests := enter(t, time.Time{}, Config{HandshakeTimeout: 300 * time.Millisecond})
	go ssh.DiscardRequests(requests)
	ch, sessionRequests, err := conn.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { ssh.DiscardRequests(sessionRequests); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("the channel goes on")
	}
	ch.Close()
}

// Nobody keeps others out by connections of their own, whatever names they give
// themselves.
func TestConnectionsOfOne(t *testing.T) {
	address, _ := openDoorOf(t, Config{MaxConnectionsOf: 2}, func(s strangers) Server { return byUser{s} })
	dial := func(user string) ssh.Conn {
		tcp, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn, requests := shake(t, tcp, user)
		go ssh.DiscardRequests(requests)
		return conn
	}
	for _, user := range []string{"alice@n", "alice@n", "bob@n"} {
		if _, _, err := dial(user).SendRequest("keepalive@openssh.com", true, nil); err != nil {
			t.Errorf("%s: got %v, want a connection", user, err)
		}
	}
	ends(t, dial("alice@n"))
}

// Connections through a connection share its channels, or each of them would have as many
// of its own.
func TestChannelsThroughJumps(t *testing.T) {
	outer, requests := enter(t, time.Time{}, Config{MaxChannels: 3, Suffix: "nodes.example.com"})
	go ssh.DiscardRequests(requests)
	payload := ssh.Marshal(struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}{"n.nodes.example.com", 22, "", 0})
	ch, channelRequests, err := outer.OpenChannel("direct-tcpip", payload)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(channelRequests)
	inner, innerRequests := shake(t, &channelConn{Channel: ch, remote: &net.TCPAddr{}}, "alice")
	go ssh.DiscardRequests(innerRequests)
	for i, want := range []bool{true, true, false} {
		_, sessionRequests, err := inner.OpenChannel("session", nil)
		if got := err == nil; got != want {
			t.Errorf("channel %d through the connection: got %v, want it open: %v", i+1, err, want)
		}
		if err == nil {
			go ssh.DiscardRequests(sessionRequests)
		}
	}
}

// byUser is a server to which everybody is who they say, in role sessions of any name.
type byUser struct{ strangers }

func (byUser) SSHPrincipal(_ context.Context, key ssh.PublicKey, name string) (identity.Principal, error) {
	return identity.Principal{Kind: identity.KindRole, Name: "ops", UserID: "AROAOPS:" + ssh.FingerprintSHA256(key), Root: "AIDA" + name}, nil
}

// Requests that no client sends do no harm.
func TestMalformedRequests(t *testing.T) {
	conn, requests := enter(t, time.Time{}, Config{})
	go ssh.DiscardRequests(requests)
	for _, kind := range []string{"direct-tcpip", "direct-streamlocal@openssh.com", "x11", ""} {
		for _, payload := range [][]byte{nil, {0}, ssh.Marshal(struct{ A, B string }{"x", "y"}), make([]byte, 30_000)} {
			if ch, _, err := conn.OpenChannel(kind, payload); err == nil {
				ch.Close()
				t.Errorf("%s with %d bytes was opened", kind, len(payload))
			}
		}
	}
	ch, sessionRequests, err := conn.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(sessionRequests)
	long := string(make([]byte, 5000))
	for _, r := range []struct {
		kind    string
		payload any
	}{
		{"env", struct{ Name, Value string }{"LD_PRELOAD", "x"}},
		{"env", struct{ Name, Value string }{"LC_X", long}},
		{"env", struct{ Name, Value string }{"LC_X\nLD_PRELOAD", "x"}},
		{"pty-req", struct{ Term string }{"xterm"}},
		{"pty-req", struct {
			Term                      string
			Cols, Rows, Width, Height uint32
			Modes                     string
		}{"../../x", 1, 1, 1, 1, ""}},
		{"window-change", struct{ Cols, Rows, Width, Height uint32 }{1, 1, 1, 1}},
		{"signal", struct{ Name string }{"TERM"}},
		{"subsystem", struct{ Name string }{"netconf"}},
		{"exec", struct{ Command string }{""}},
		{"exec", struct{ Command string }{"a\x00b"}},
		{"x11-req", struct{ Single bool }{true}},
		{"unknown", struct{ A string }{long}},
	} {
		if ok, err := ch.SendRequest(r.kind, true, ssh.Marshal(r.payload)); ok || err != nil {
			t.Errorf("%s %.40v: got %v, %v", r.kind, r.payload, ok, err)
		}
	}
	for range 2 * maxVariables {
		if _, err := ch.SendRequest("env", false, ssh.Marshal(struct{ Name, Value string }{"LANG", "C"})); err != nil {
			t.Fatal(err)
		}
	}
}
