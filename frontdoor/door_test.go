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

// openDoor serves a door until the test ends.
func openDoor(t *testing.T, cfg Config) (address string, refused chan error) {
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
	cfg.Server, cfg.Gateway = strangers{host: host, refused: refused}, struct{ Gateway }{}
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
