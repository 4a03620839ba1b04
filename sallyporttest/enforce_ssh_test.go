package sallyporttest_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/identity"
	"sallyport.dev/internal/readalong"
	"sallyport.dev/member"
	"sallyport.dev/sallyporttest"
)

// Channels of the SSH front door end with the grant: the shell is warned first, the key
// asks for more in it, too, and a forward within the same connection closes.
func TestGrantEndsSSHChannels(t *testing.T) {
	s := sallyporttest.Start(t, "one", sallyporttest.Options{Configure: func(c *member.Config) { c.SSH = &member.SSH{Listen: "127.0.0.1:0"} }})
	s.Node(grantedNode, identity.Tags{"Name": "frontend-1", "Department": "FrontEnd"})
	l := lend(t, s)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RegisterSSHKey(t.Context(), "carol", string(ssh.MarshalAuthorizedKey(key.PublicKey()))); err != nil {
		t.Fatal(err)
	}
	r := l.grant(10 * time.Second)

	conn, err := ssh.Dial("tcp", s.SSHAddress(), &ssh.ClientConfig{
		User: "frontend-1", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 30 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	shell, err := conn.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out := &readalong.Text{}
	shell.Stdout, shell.Stderr = out, out
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.RequestPty("xterm", 30, 100, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	if err := shell.Shell(); err != nil {
		t.Fatal(err)
	}
	shows := func(text string) {
		t.Helper()
		s.Eventually(func() bool { return strings.Contains(out.String(), text) }, "the channel shows %q; it shows %q", text, out)
	}
	io.WriteString(in, "echo sum-$((6*7))\n")
	shows("sum-42")
	echo := echoServer(t)
	forward, err := conn.Dial("tcp", echo)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := forward.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(forward, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	shows("Press Ctrl-] to ask for more time.")
	io.WriteString(in, "\x1d")
	shows("[sallyport] Asked bob for more time: oi-")
	ended := make(chan error, 1)
	go func() { ended <- shell.Wait() }()
	select {
	case <-ended:
	case <-time.After(time.Until(r.EndsAt.Time) + 5*time.Second):
		t.Fatal("the shell is still open")
	}
	shows("Your access ended: grant " + r.RequestID + " is over, its time was up.")
	cut := make(chan error, 1)
	go func() { _, err := forward.Read(make([]byte, 1)); cut <- err }()
	select {
	case err := <-cut:
		if err == nil {
			t.Error("the forward goes on")
		}
	case <-time.After(5 * time.Second):
		t.Error("the forward is still open")
	}
	if again, err := conn.Dial("tcp", echo); err == nil {
		again.Close()
		t.Error("another forward was opened afterwards")
	}
}
