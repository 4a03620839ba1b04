package cli

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"sallyport.dev/client"
)

// Connecting is asking: refused, asked, approved, in.
func TestConnectAsks(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	c := s.onTerminal("connect", "frontend-1")
	c.want(`AccessDeniedException: User: .*carol is not authorized`)
	c.want(`You may ask for it: Front-end access, role FrontEndSSHAccess \(flow frontend\). Ask\? \[y/N\]`)
	c.typed("y\n")
	c.want(`Reason:`)
	c.typed("ab\n")
	c.want(`say a little more`)
	c.typed("the build\n")
	c.want(`Duration\?`)
	c.typed("1h\r")
	c.want(`waiting for`)
	s.approveNext(true)
	c.want(`is approved by bob`)
	c.ends(3) // the session's own
	if got := c.stdout.String(); !strings.Contains(got, "hello") {
		t.Errorf("got %q, want the session's output", got)
	}
	var got client.RequestAccessInput
	json.Unmarshal([]byte(s.asked("RequestAccess")[0]), &got)
	if got.Reason != "the build" || got.Seconds != 3600 || len(got.NodeIDs) > 0 || len(got.Targets) != 1 || got.Targets[0] != "role" {
		t.Errorf("got %+v", got)
	}
}

// A target of nodes is asked for the one node only.
func TestConnectAsksForTheNode(t *testing.T) {
	flow := nodesFlow
	flow.Targets, flow.Fields = flow.Targets[:1], nil
	s := newAccessServer(t, flow)
	c := s.onTerminal("connect", "frontend-1")
	c.want(`Ask\?`)
	c.typed("y\n")
	c.want(`waiting for`)
	s.approveNext(true)
	c.ends(3)
	if got := s.asked("RequestAccess")[0]; !strings.Contains(got, `"NodeIds":["i-060ee0879f3ec4eb7"]`) {
		t.Errorf("got %s, want the node named", got)
	}
}

// Who has asked already is not asked again.
func TestConnectTakesUpRequest(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	s.run("request", "--reason", "the build")
	c := s.onTerminal("connect", "frontend-1")
	c.want(`oi-000000abc000 asks for role FrontEndSSHAccess`)
	c.want(`waiting for`)
	s.approveNext(true)
	c.ends(3)
	if asked := s.asked("RequestAccess"); len(asked) != 1 {
		t.Errorf("got %d requests, want the one", len(asked))
	}
}

func TestConnectDenied(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	c := s.onTerminal("connect", "frontend-1")
	c.want(`Ask\?`)
	c.typed("\n")
	c.want(`nothing was asked for`)
	c.ends(statusRefused)

	s.run("request", "--reason", "the build")
	c = s.onTerminal("connect", "frontend-1")
	c.want(`waiting for`)
	s.approveNext(false)
	c.want(`was denied by bob`)
	c.ends(statusRefused)
	if s.started > 0 {
		t.Error("a session was started")
	}
}

// Ctrl-C leaves the request; connecting again goes on with it.
func TestConnectInterrupted(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	s.run("request", "--reason", "the build")
	c := s.onTerminal("connect", "frontend-1")
	c.want(`waiting for`)
	syscall.Kill(os.Getpid(), syscall.SIGINT)
	c.want(`goes on waiting for a decision`)
	c.ends(statusInterrupted)
	c = s.onTerminal("connect", "frontend-1")
	c.want(`waiting for`)
	s.approveNext(true)
	c.ends(3)
}

// Without a terminal nobody is asked: the command that asks is named, and the status is
// the refusal's.
func TestNobodyIsAsked(t *testing.T) {
	s := newAccessServer(t, frontendFlow, nodesFlow)
	for _, args := range [][]string{
		{"connect", "frontend-1"},
		{"connect", "frontend-1", "--", "uptime"},
		{"tunnel", "frontend-1", "0:80"},
		{"proxy", "frontend-1"},
	} {
		t.Run(args[0], func(t *testing.T) {
			t.Setenv("SALLYPORT_ASK", "never")
			status, stdout, stderr := s.run(args...)
			if status != statusRefused || stdout != "" {
				t.Errorf("%q: got status %d, %q: %s", args, status, stdout, stderr)
			}
			wantText(t, args[0], stderr, `(?m)^hint: sallyport request frontend --target role --reason TEXT --wait  # Front-end access$`)
			wantText(t, args[0], stderr, `(?m)^hint: sallyport why connect i-060ee0879f3ec4eb7`)
		})
	}
	if asked := s.asked("RequestAccess"); len(asked) > 0 {
		t.Errorf("got %q, want nothing asked for", asked)
	}
}

func TestTunnelAsks(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	c := s.onTerminal("tunnel", "frontend-1", "0:80", "0:81")
	c.want(`Ask\?`)
	c.typed("y\n")
	c.want(`Reason:`)
	c.typed("the build\n")
	c.want(`Duration\?`)
	c.typed("\r")
	c.want(`waiting for`)
	s.approveNext(true)
	c.want(`is approved by bob`)
	select { // the canned session is no forward: it ends at once
	case <-c.status:
	case <-t.Context().Done():
	}
	if asked := s.asked("RequestAccess"); len(asked) != 1 || s.started == 0 {
		t.Errorf("got %d requests, %d sessions; want one request for both forwards", len(asked), s.started)
	}
}

func TestNodesThatMayBeAskedFor(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	_, stdout, stderr := s.run("nodes")
	wantText(t, "nodes", stdout, `(?m)^frontend-1 .*connected +ask`)
	wantText(t, "hint", stderr, `sallyport connect NODE asks`)
}
