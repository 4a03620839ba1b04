package sallyporttest_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"sallyport.dev/agent"
	"sallyport.dev/client"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/member"
	"sallyport.dev/node"
	"sallyport.dev/sallyporttest"
)

// What a grant opened ends with it: on every member, and within five seconds.

const grantedNode = "i-060ee0879f3ec4eb7"

// shortFlow gives the FrontEnd nodes for any time from two seconds on.
const shortFlow = `
flow "short" {
  label = "FrontEnd, shortly"
  ask { groups = ["support"] }
  target "nodes" "front" { tags = { Department = ["FrontEnd"] } }
  field "duration" { allowed = ["2s", "6s", "10s", "30s", "1h"] }
  stage "team" {
    of { users = ["bob"] }
  }
  clocks {
    pending = "1h"
    longest = "2h"
    extension = "30m"
    extensions = 2
  }
}
`

// lent is a system in which carol has what she is granted, and bob decides.
type lent struct {
	*sallyporttest.System // through which carol comes
	t                     *testing.T
	carol, bob            sallyporttest.Key
}

// lend makes carol, bob and the flow; the node is registered by the caller.
func lend(t *testing.T, s *sallyporttest.System) *lent {
	t.Helper()
	l := &lent{System: s, t: t}
	if err := s.CreateGroup(t.Context(), "support"); err != nil {
		t.Fatal(err)
	}
	l.carol, l.bob = s.User("carol", nil, ""), s.User("bob", nil, "")
	if err := s.Store.AddMember(t.Context(), "support", "carol"); err != nil {
		t.Fatal(err)
	}
	_, digest, err := s.Access().Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	admin := grant.Actor{Principal: identity.Principal{ARN: "arn:aws:iam::" + sallyporttest.Account + ":user/admin"}, Channel: "api"}
	if _, err := s.Access().PutFlows(t.Context(), admin, map[string][]byte{"short.sallyport.hcl": []byte(shortFlow)}, digest); err != nil {
		t.Fatal(err)
	}
	return l
}

// grant has carol ask and bob approve.
func (l *lent) grant(d time.Duration) *client.AccessRequest {
	l.t.Helper()
	r, err := l.API(l.carol).RequestAccess(l.t.Context(), client.RequestAccessInput{
		Flow: "short", Reason: "to see it end", Seconds: int64(d / time.Second), Values: map[string][]string{"duration": {d.String()}},
	})
	if err != nil {
		l.t.Fatalf("asking: %v", err)
	}
	return l.approve(r.RequestID, r.Hash)
}

func (l *lent) approve(id, hash string) *client.AccessRequest {
	l.t.Helper()
	r, err := l.API(l.bob).ApproveRequest(l.t.Context(), client.DecideInput{RequestID: id, Hash: hash})
	if err != nil {
		l.t.Fatalf("approving: %v", err)
	}
	return r
}

func (l *lent) step(k sallyporttest.Key, step, id string) {
	l.t.Helper()
	if _, err := l.API(k).Step(l.t.Context(), step, client.StepInput{RequestID: id, Reason: "enough"}); err != nil {
		l.t.Fatalf("%s: %v", step, err)
	}
}

// opened are live sessions of carol's of every kind.
type opened struct {
	shell *sallyporttest.Terminal
	port  *sallyporttest.Forward
	bulk  *sallyporttest.Forward
	conns []client.ForwardConn
}

// open opens a shell, a forward, and one whose connections go beside the data channel.
func (l *lent) open(bulkURL string) *opened {
	l.t.Helper()
	o := &opened{shell: l.Terminal(l.carol, grantedNode)}
	o.shell.Type("echo sum-$((6*7))\n")
	o.shell.WantShown("sum-42")
	echo := echoServer(l.t)
	_, port, _ := net.SplitHostPort(echo)
	params := map[string]string{"portNumber": port}
	o.port = l.Forward(l.carol, grantedNode, "AWS-StartPortForwardingSession", params, client.ForwardConfig{}, nil)
	o.bulk = l.BulkForward(l.carol, grantedNode, "AWS-StartPortForwardingSession", params, client.ForwardConfig{}, bulkURL)
	for _, f := range []*sallyporttest.Forward{o.port, o.bulk} {
		o.conns = append(o.conns, l.echoes(f))
	}
	return o
}

// echoes opens a connection through a forward and tries it.
func (l *lent) echoes(f *sallyporttest.Forward) client.ForwardConn {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 30*time.Second)
	defer cancel()
	conn, err := f.Open(ctx)
	if err != nil {
		l.t.Fatalf("opening a connection: %v", err)
	}
	l.t.Cleanup(func() { conn.Close() })
	echoed := make([]byte, 4)
	if _, err := conn.Write([]byte("ping")); err != nil {
		l.t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, echoed); err != nil || string(echoed) != "ping" {
		l.t.Fatalf("the forward echoes %q, %v", echoed, err)
	}
	return conn
}

func echoServer(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	return ln.Addr().String()
}

// wantOver checks that everything ends within five seconds, its connections included,
// and that the person is told why.
func (o *opened) wantOver(t *testing.T, text string) {
	t.Helper()
	late := time.After(5 * time.Second)
	for _, over := range []<-chan struct{}{o.shell.Over(), o.port.Over, o.bulk.Over} {
		select {
		case <-over:
		case <-late:
			t.Fatal("something is still open after five seconds")
		}
	}
	if got := o.shell.End(); !strings.Contains(got, text) {
		t.Errorf("the shell's person was told %q, want %q", got, text)
	}
	for _, f := range []*sallyporttest.Forward{o.port, o.bulk} {
		if end, err := f.End(); err != nil || !strings.Contains(end.Output, text) {
			t.Errorf("the forward's person was told %q (%v), want %q", end.Output, err, text)
		}
	}
	for _, c := range o.conns {
		if _, err := c.Write([]byte("ping")); err == nil {
			if _, err = io.ReadFull(c, make([]byte, 4)); err == nil {
				t.Error("a connection still echoes")
			}
		}
	}
}

func (l *lent) wantRefused() {
	l.t.Helper()
	_, err := l.API(l.carol).Start(l.t.Context(), client.StartInput{Target: grantedNode})
	if err == nil || !strings.Contains(err.Error(), "is not authorized to perform: ssm:StartSession") {
		l.t.Errorf("starting a session afterwards: got %v, want a refusal", err)
	}
}

// The node is connected to one member, carol comes through the other, and bob through
// either: what he takes back is over everywhere.
func TestGrantTakenBackOnEveryMember(t *testing.T) {
	a, b := pair(t)
	a.Node(grantedNode, identity.Tags{"Name": "frontend-1", "Department": "FrontEnd"}, a.TLSURL())
	b.Eventually(func() bool { return b.Connected(t.Context(), grantedNode) }, "b knows of the node")
	l := lend(t, b)
	for name, take := range map[string]func(r *client.AccessRequest) string{
		"revoked through the other member": func(r *client.AccessRequest) string {
			if _, err := a.API(l.bob).Step(t.Context(), client.RevokeRequest, client.StepInput{RequestID: r.RequestID, Reason: "enough"}); err != nil {
				t.Fatal(err)
			}
			return "Your access ended: grant " + r.RequestID + " was revoked by bob: enough."
		},
		"given back": func(r *client.AccessRequest) string {
			l.step(l.carol, client.ReleaseRequest, r.RequestID)
			return "Your access ended: grant " + r.RequestID + " was given back by carol."
		},
		"the node's tag changed": func(r *client.AccessRequest) string {
			tag(t, a, "BackEnd")
			return "Your access ended: a policy change took it away: "
		},
	} {
		t.Run(name, func(t *testing.T) {
			tag(t, a, "FrontEnd")
			r := l.grant(time.Hour)
			o := l.open(b.TLSURL())
			text := take(r)
			o.wantOver(t, text)
			l.wantRefused()
			if now, err := b.Access().Request(t.Context(), r.RequestID); err != nil || now.State == grant.Active {
				l.step(l.carol, client.ReleaseRequest, r.RequestID) // or it would allow what the next one opens
			}
		})
	}
}

func tag(t *testing.T, s *sallyporttest.System, department string) {
	t.Helper()
	err := s.Store.UpdateNode(t.Context(), grantedNode, func(n *node.Node) error {
		n.Tags = identity.Tags{"Name": "frontend-1", "Department": department}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A grant ends by the server's clock alone, whatever the node's and the person's say:
// minutes ahead of it, or behind. Nodes whose clocks differ by more are not let in.
func TestGrantEndsByTheServersClock(t *testing.T) {
	for name, skew := range map[string]time.Duration{"as the node's": 0, "ahead": 4 * time.Minute, "behind": -4 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			s := sallyporttest.Start(t, "one", sallyporttest.Options{Configure: func(c *member.Config) {
				c.Now = func() time.Time { return time.Now().Add(skew) }
			}})
			s.NodeWith(grantedNode, identity.Tags{"Name": "frontend-1", "Department": "FrontEnd"}, func(*agent.Config) {}, s.TLSURL())
			l := lend(t, s)
			began := time.Now()
			r := l.grant(6 * time.Second)
			o := l.open("")
			o.shell.WantShown("[sallyport] Your access ends in ")
			o.wantOver(t, "Your access ended: grant "+r.RequestID+" is over, its time was up.")
			if took := time.Since(began); took < 5*time.Second || took > 11*time.Second {
				t.Errorf("a grant of 6 seconds lasted %v", took)
			}
			l.wantRefused()
		})
	}
}

// One key asks for more, and the session goes on without a break.
func TestMoreTimeByKey(t *testing.T) {
	s := sallyporttest.Start(t, "one", sallyporttest.Options{})
	s.Node(grantedNode, identity.Tags{"Name": "frontend-1", "Department": "FrontEnd"})
	l := lend(t, s)
	r := l.grant(10 * time.Second)
	shell := l.Terminal(l.carol, grantedNode)
	shell.Type("cat -v\n")
	shell.Type("\x1d\n") // nobody was warned: the program's own
	shell.WantShown("^]")
	shell.WantShown("Press Ctrl-] to ask for more time.")
	shell.Type("\x1d")
	shell.WantShown("[sallyport] Asked bob for more time: oi-")
	var asked client.AccessRequest
	list, err := l.API(l.bob).ListAccessRequests(t.Context(), client.ListAccessRequestsInput{ToDecide: true})
	if err != nil || len(list.Requests) != 1 {
		t.Fatalf("bob is to decide on %+v, %v", list, err)
	}
	asked = list.Requests[0]
	l.approve(asked.RequestID, asked.Hash)
	shell.WantShown("[sallyport] Your access is extended until ")
	time.Sleep(max(0, time.Until(r.EndsAt.Time)) + 3*time.Second) // beyond its first end
	shell.Type("still here\n")
	shell.WantShown("still here\r\nstill here")
	l.step(l.bob, client.RevokeRequest, r.RequestID)
	if got := shell.End(); !strings.Contains(got, "was revoked by bob") {
		t.Errorf("told %q", got)
	}
}

// The person is disabled, or leaves the group by which they had access: everything of
// theirs ends, through whichever member that happens.
func TestPersonDisabled(t *testing.T) {
	s := sallyporttest.Start(t, "one", sallyporttest.Options{})
	s.Node(grantedNode, identity.Tags{"Name": "frontend-1", "Department": "FrontEnd"}, s.TLSURL())
	admin := s.User("admin", nil, sallyporttest.Everything)
	l := lend(t, s)
	l.grant(time.Hour)
	o := l.open("")
	if err := s.API(admin).DisableUser(t.Context(), "carol"); err != nil {
		t.Fatal(err)
	}
	o.wantOver(t, "disabled")
}

// A member that stops leaves nothing of a grant alive.
func TestMemberStopsWithGrant(t *testing.T) {
	s := sallyporttest.Start(t, "one", sallyporttest.Options{})
	s.Node(grantedNode, identity.Tags{"Name": "frontend-1", "Department": "FrontEnd"}, s.TLSURL())
	l := lend(t, s)
	l.grant(time.Hour)
	o := l.open("")
	s.Stop()
	o.wantOver(t, "shutting down")
}
