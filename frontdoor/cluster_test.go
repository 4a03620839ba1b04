package frontdoor_test

import (
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/internal/pgtest"
	"sallyport.dev/member"
	"sallyport.dev/sallyporttest"
)

// The door of one member leads to nodes that another one holds; host keys are the same
// on both.
func TestAcrossMembers(t *testing.T) {
	o := sallyporttest.Options{Store: pgtest.Start(t).Database(t), NATS: []string{sallyporttest.NATS(t)}, Dir: t.TempDir()}
	start := func(name string) *sallyporttest.System {
		o.Configure = func(c *member.Config) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			c.Listen, c.AdvertiseURL = l.Addr().String(), "https://"+l.Addr().String()
			c.SSH = &member.SSH{Listen: "127.0.0.1:0", Suffix: suffix}
		}
		return sallyporttest.Start(t, name, o)
	}
	a, b := start("a"), start("b")
	a.Node(frontend, identity.Tags{"Name": "frontend-1"}, a.TLSURL())
	b.Eventually(func() bool { return b.Connected(t.Context(), frontend) }, "b knows of the node")

	w := &world{System: b, t: t, dir: t.TempDir()}
	alice := w.person("alice", sallyporttest.Everything)
	port := echo(t)
	var hostKeys []string
	for _, s := range []*sallyporttest.System{a, b} {
		w.System = s
		w.host, w.port, _ = net.SplitHostPort(s.SSHAddress())
		c, err := ssh.Dial("tcp", s.SSHAddress(), &ssh.ClientConfig{User: "frontend-1", Auth: []ssh.AuthMethod{ssh.PublicKeys(alice)},
			HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
			HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
				hostKeys = append(hostKeys, ssh.FingerprintSHA256(key))
				return nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		session, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		session.Stdin = strings.NewReader(strings.Repeat("x", 1<<20))
		if out, err := session.Output("wc -c"); err != nil || strings.TrimSpace(string(out)) != "1048576" {
			t.Errorf("got %q, %v", out, err)
		}
		conn, err := c.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		through(t, conn.(halfCloser), strings.Repeat("through the other member", 10_000))
		c.Close()
	}
	if hostKeys[0] != hostKeys[1] {
		t.Errorf("host keys differ: %q", hostKeys)
	}
	if got := len(w.records(audit.EventSessionStart)); got != 4 {
		t.Errorf("got %d sessions in the audit log, want 4", got)
	}
	w.settled()
}
