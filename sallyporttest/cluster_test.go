package sallyporttest_test

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/internal/pgtest"
	"sallyport.dev/member"
	"sallyport.dev/sallyporttest"
	"sallyport.dev/session"
)

// pair starts two members that share PostgreSQL, NATS, master key and CA.
func pair(t *testing.T) (a, b *sallyporttest.System) {
	t.Helper()
	dir := t.TempDir()
	o := sallyporttest.Options{Store: pgtest.Start(t).Database(t), NATS: []string{sallyporttest.NATS(t)}, Dir: dir}
	start := func(name string) *sallyporttest.System {
		o.Configure = func(c *member.Config) {
			c.AdvertiseURL, c.Listen = advertised(t)
		}
		return sallyporttest.Start(t, name, o)
	}
	return start("a"), start("b")
}

// advertised returns a free loopback address and the URL that it is reached by.
func advertised(t *testing.T) (url, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "https://" + l.Addr().String(), l.Addr().String()
}

// A node is connected to one member and the user to the other; the session is the
// same as on one.
func TestSessionAcrossMembers(t *testing.T) {
	a, b := pair(t)
	key := a.User("admin", nil, sallyporttest.Everything)
	const id = "i-060ee0879f3ec4eb7"
	a.Node(id, identity.Tags{"Name": "frontend-1"}, a.TLSURL())

	b.Eventually(func() bool { return b.Connected(t.Context(), id) }, "b knows of the node")
	out := b.Shell(key, id, "echo sum-is-$((6*7))\nexit\n")
	if !strings.Contains(out, "sum-is-42") {
		t.Errorf("session through the other member showed %q", out)
	}
	sessions, err := b.Store.Sessions(t.Context(), session.Filter{})
	if err != nil || len(sessions) != 1 || sessions[0].Member != "a" || sessions[0].Recording == "" {
		t.Fatalf("got sessions %+v, %v; want one with a recording, kept by a, which holds the node", sessions, err)
	}
	piece, err := b.API(key).GetRecording(t.Context(), client.GetRecordingInput{SessionID: sessions[0].ID})
	if err != nil || !strings.Contains(string(piece.Data), "sum-is-42") {
		t.Errorf("its recording, read at b: got %+v, %v", piece, err)
	}
}

// The member that holds the node dies: the node comes back through the other one, a
// new session works there, and the old one is marked failed.
func TestMemberDies(t *testing.T) {
	a, b := pair(t)
	key := a.User("admin", nil, sallyporttest.Everything)
	const id = "i-060ee0879f3ec4eb7"
	a.Node(id, identity.Tags{"Name": "frontend-1"}, a.TLSURL(), b.TLSURL())
	if out := b.Shell(key, id, "echo before-$((6*7))\nexit\n"); !strings.Contains(out, "before-42") {
		t.Fatalf("session before showed %q", out)
	}

	a.Stop()
	b.Eventually(func() bool { return b.Connected(t.Context(), id) }, "the node comes back through b")
	if out := b.Shell(key, id, "echo after-$((6*7))\nexit\n"); !strings.Contains(out, "after-42") {
		t.Errorf("session after showed %q", out)
	}
	if resp, err := http.Get(b.PlainURL() + "/readyz"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("b is not ready: %v %v", resp, err)
	}
}
