package server

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"sallyport.dev/identity"
	"sallyport.dev/session"
)

// assumed are credentials of a role under a name of the caller's choice.
func (h *harness) assumed(c identity.Credentials, role, name string, fields ...string) identity.Credentials {
	h.t.Helper()
	got := h.query(c, "sts", "AssumeRole", append([]string{
		"RoleArn", "arn:aws:iam::111111111111:role/" + role, "RoleSessionName", name}, fields...)...)
	if got.status != 200 {
		h.t.Fatalf("assuming %s as %s: got %d %s", role, name, got.status, got.body)
	}
	return got.credentials()
}

// sessionOf stores an active session that credentials would have started.
func (h *harness) sessionOf(c identity.Credentials, id string) {
	h.t.Helper()
	p := h.principal(c)
	h.must(h.store.CreateSession(context.Background(), session.Session{
		ID: id, NodeID: channelNode, Document: defaultDocument, State: session.StateConnected, Started: h.clock(),
		Owner: p.ARN, OwnerID: p.UserID, OwnerName: p.Name, RootID: p.RootID(),
	}))
}

// Who takes the name of another person's role session does not get their sessions:
// the people behind both must be the same.
func TestBorrowedSessionNames(t *testing.T) {
	for condition, suffix := range map[string]string{
		"StringEquals": "", "StringLike": "", "StringEqualsIgnoreCase": "", "StringEqualsIfExists": "",
		"ForAllValues:StringLike": "", "ForAnyValue:StringEquals": "", "StringLikeIfExists": "*",
	} {
		for _, name := range []string{"alice", "alice,two"} {
			t.Run(condition+" "+name, func(t *testing.T) {
				own := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ssm:ResumeSession","ssm:TerminateSession"],"Resource":"*",
					"Condition":{"` + condition + `":{"ssm:resourceTag/aws:ssmmessages:session-id":"${aws:userid}` + suffix + `"}}}]}`
				r := newRelayed(t)
				r.node(channelNode, identity.Tags{"Team": "payments"})
				alice, eve := r.user("alice", nil, allowAll), r.user("eve", nil, allowAll)
				r.role("Ops", trustAccount, own)
				victim, thief := r.assumed(alice, "Ops", name), r.assumed(eve, "Ops", name)
				again := r.assumed(alice, "Ops", name)
				r.sessionOf(victim, "alice-0a1b")
				in := map[string]string{"SessionId": "alice-0a1b"}
				for _, target := range []string{"Sallyport.GetSession", "Sallyport.GetRecording", "AmazonSSM.ResumeSession", "AmazonSSM.TerminateSession"} {
					if got := r.json(thief, target, in); got.code() != "AccessDeniedException" {
						t.Errorf("eve may %s: got %d %s", target, got.status, got.body)
					}
				}
				if out := decodeInto[listSessionsOutput](t, r.json(thief, "Sallyport.ListSessions", struct{}{})); len(out.Sessions) != 0 {
					t.Errorf("eve sees %d sessions", len(out.Sessions))
				}
				for _, target := range []string{"Sallyport.GetSession", "AmazonSSM.ResumeSession", "AmazonSSM.TerminateSession"} {
					if got := r.json(again, target, in); got.status != 200 {
						t.Errorf("alice may not %s: got %d %s", target, got.status, got.body)
					}
				}
				if out := decodeInto[listSessionsOutput](t, r.json(again, "Sallyport.ListSessions", struct{}{})); len(out.Sessions) != 1 {
					t.Errorf("alice sees %d sessions", len(out.Sessions))
				}
			})
		}
	}
}

// A user reads what they did in a role. The role reads nothing that its user did outside of
// it, and users do not read each other's.
func TestReadingThroughRoles(t *testing.T) {
	h := newHarness(t)
	h.node(channelNode, nil)
	alice, eve := h.user("alice", nil, allowAssume), h.user("eve", nil, allowAssume)
	h.role("Ops", trustAccount)
	inRole := h.assumed(alice, "Ops", "alice")
	h.sessionOf(inRole, "alice-0a1b")
	h.sessionOf(alice, "alice-0a1c")
	for _, c := range []struct {
		name, session string
		who           identity.Credentials
		want          int
	}{
		{"the user, what the role did", "alice-0a1b", alice, 200},
		{"the role, what it did", "alice-0a1b", inRole, 200},
		{"the role, what the user did", "alice-0a1c", inRole, 400},
		{"another user", "alice-0a1b", eve, 400},
		{"another's role of the same name", "alice-0a1b", h.assumed(eve, "Ops", "alice"), 400},
	} {
		if got := h.json(c.who, "Sallyport.GetSession", map[string]string{"SessionId": c.session}); got.status != c.want {
			t.Errorf("%s: got %d %s, want %d", c.name, got.status, got.body, c.want)
		}
	}
	for name, want := range map[string]int{"user": 2, "role": 1} {
		who := map[string]identity.Credentials{"user": alice, "role": inRole}[name]
		if out := decodeInto[listSessionsOutput](t, h.json(who, "Sallyport.ListSessions", struct{}{})); len(out.Sessions) != want {
			t.Errorf("the %s sees %d sessions, want %d", name, len(out.Sessions), want)
		}
	}
}

const allowAssume = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}]}`

// Tags of a node cannot stand for the tags that the system gives a session.
func TestSystemTagsOfSessions(t *testing.T) {
	h := newHarness(t)
	alice, eve := h.user("alice", nil), h.user("eve", nil)
	h.node(channelNode, identity.Tags{"AWS:ssmmessages:session-id": h.principal(eve).UserID, "Team": "payments"})
	h.sessionOf(alice, "alice-0a1b")
	v, err := h.store.Session(context.Background(), "alice-0a1b")
	h.must(err)
	c := &Call{Server: h.server, Principal: h.principal(eve)}
	got, err := c.sessionResource(context.Background(), v)
	h.must(err)
	if len(got.Tags) != 1 || got.Tags["Team"] != "payments" {
		t.Errorf("got tags %v", got.Tags)
	}
	for key, want := range map[string]string{"session-id": h.principal(alice).UserID, "target-id": channelNode} {
		for _, prefix := range []string{"ssm:resourceTag/", "aws:ResourceTag/"} {
			if have := got.Context[prefix+"aws:ssmmessages:"+key]; len(have) != 1 || have[0] != want {
				t.Errorf("%s%s: got %v, want %s", prefix, key, have, want)
			}
		}
	}
}

// shipped reads a policy of the sample world.
func shipped(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "cmd", "sallyportd", "world", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The sample world's role bears its holder's own name in its sessions.
func TestSessionNameOfTheSampleRole(t *testing.T) {
	h := newHarness(t)
	h.role("FrontEndSSHAccess", shipped(t, "frontend-ssh-trust.json"), shipped(t, "frontend-ssh-access.json"))
	assume := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sts:AssumeRole","sts:TagSession"],"Resource":"*"}]}`
	alice, eve := h.user("alice", nil, assume), h.user("eve", nil, assume)
	for _, test := range []struct {
		who  identity.Credentials
		name string
		code string
	}{
		{alice, "alice", ""}, {eve, "eve", ""}, {eve, "alice", "AccessDenied"}, {eve, "eve,alice", "AccessDenied"},
		{h.assumed(alice, "FrontEndSSHAccess", "alice"), "alice", "AccessDenied"}, // a role has no aws:username
	} {
		got := h.query(test.who, "sts", "AssumeRole", "RoleArn", "arn:aws:iam::111111111111:role/FrontEndSSHAccess", "RoleSessionName", test.name,
			"Tags.member.1.Key", "Ticket", "Tags.member.1.Value", "1")
		if got.code() != test.code {
			t.Errorf("as %s: got %d %s, want code %q", test.name, got.status, got.body, test.code)
		}
	}
}

// Users whose names begin with another's keep their sessions to themselves under the
// policy of the sample world.
func TestNamesThatBeginWithAnothers(t *testing.T) {
	r := newRelayed(t)
	r.node(channelNode, identity.Tags{"Team": "payments"})
	users := map[string]identity.Credentials{}
	for _, name := range []string{"a", "a-b"} {
		users[name] = r.user(name, identity.Tags{"Team": "payments"}, shipped(t, "team-access.json"))
		r.sessionOf(users[name], name+"-0a1b")
	}
	for name, c := range users {
		for owner := range users {
			for _, operation := range []string{"ResumeSession", "TerminateSession"} {
				got := r.json(c, "AmazonSSM."+operation, map[string]string{"SessionId": owner + "-0a1b"})
				if allowed := got.status == 200; allowed != (name == owner) {
					t.Errorf("%s, %s of %s's session: got %d %s", name, operation, owner, got.status, got.body)
				}
			}
		}
	}
}
