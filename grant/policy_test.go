package grant_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

const nodeFlows = `
flow "shell" {
  ask { groups = ["support"] }
  target "nodes" "front" {
    tags      = { Department = ["FrontEnd"] }
    documents = ["SSM-SessionManagerRunShell"]
    login     = "web"
  }
  stage "team" {
    of { groups = ["frontend"] }
  }
  clocks { default = "30m" }
}
flow "forward" {
  ask { groups = ["support"] }
  target "nodes" "back" {
    names     = ["backend-*"]
    documents = ["AWS-StartPortForwarding*"]
    commands  = true
  }
  stage "team" {
    of { groups = ["frontend"] }
  }
  clocks { default = "30m" }
}
flow "both" {
  ask { groups = ["support"] }
  target "nodes" "one" {
    ids = ["i-00000000000000001"]
  }
  target "group" "backend" { group = "backend" }
  stage "team" {
    of { groups = ["frontend"] }
  }
  clocks {
    default     = "30m"
    activate_by = "1h"
  }
}
flow "role" {
  ask { groups = ["support"] }
  target "role" "frontend" { role = "FrontEnd" }
  stage "team" {
    of { groups = ["frontend"] }
  }
  clocks { default = "30m" }
}
`

const (
	front1 = "i-00000000000000001"
	front2 = "i-00000000000000002"
	back1  = "mi-00000000000000003"
	shell  = "SSM-SessionManagerRunShell"
	port   = "AWS-StartPortForwardingSession"
)

// guarded is a world whose checker asks the engine.
type guarded struct {
	*world
	checker *access.Checker
}

func newGuarded(t testing.TB, changes ...func(*grant.Config)) *guarded {
	t.Helper()
	g := &guarded{}
	g.world = newWorld(t, append(changes, func(c *grant.Config) {
		c.Sources = func(ctx context.Context, o identity.Owner) ([]policy.Source, error) {
			return g.checker.SourcesOf(ctx, o)
		}
	})...)
	g.checker = access.New(access.Config{
		Store: g.store, Audit: g.log, Grants: g.Engine, Realm: realm, Now: g.now, Logger: slog.New(slog.DiscardHandler),
	})
	g.put(nodeFlows)
	g.must(g.store.CreateRole(t.Context(), identity.Role{Name: "Any", ID: identity.NewRoleID(), Path: "/", Created: g.now(), MaxDuration: time.Hour}))
	g.node(front1, "frontend-1", identity.Tags{"Department": "FrontEnd"})
	g.node(front2, "frontend-2", identity.Tags{"Department": "FrontEnd"})
	g.node(back1, "backend-1", identity.Tags{"Department": "BackEnd"})
	return g
}

// granted is a grant of carol's.
func (g *guarded) granted(flowName string, nodes ...string) grant.Request {
	g.t.Helper()
	in := asked(flowName)
	in.Nodes = nodes
	r, err := g.Ask(g.t.Context(), g.as("carol"), in)
	g.must(err)
	return g.approve(r, g.as("alice"))
}

// starts reports whether somebody may start a session; an empty document is unnamed, an
// empty login the node's default.
func (g *guarded) starts(a grant.Actor, nodeID, document, login string) bool {
	g.t.Helper()
	n, err := g.store.Node(g.t.Context(), nodeID)
	g.must(err)
	s := access.Start{
		Node: access.Resource{ARN: realm.Node(nodeID), Tags: n.Tags, Context: map[string][]string{
			access.KeyNodeID: {nodeID}, access.KeyNodeName: {n.AssignedName()},
		}},
		Document: access.Resource{ARN: realm.Document(document)}, Named: document != "", Login: login,
	}
	if document == "" {
		s.Document.ARN = realm.Document(shell)
	}
	if login == "" && document != port {
		s.Login = access.DefaultLogin
	}
	q := access.Query{Principal: a.Principal, Action: "ssm:StartSession", Origin: access.Origin{TLS: true, Time: g.now()}}
	_, err = g.checker.CheckStart(g.t.Context(), q, s)
	if denied := (*access.DeniedError)(nil); err != nil && !errors.As(err, &denied) {
		g.t.Fatal(err)
	}
	return err == nil
}

func (g *guarded) want(what string, got, want bool) {
	g.t.Helper()
	if got != want {
		g.t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func (g *guarded) inline(o identity.Owner, text string) {
	g.t.Helper()
	g.must(g.store.PutInlinePolicy(g.t.Context(), identity.InlinePolicy{Owner: o, Name: "p", Document: text}))
}

// A grant gives its own nodes with its own documents: of two, the node of one does not go
// with the document of the other.
func TestGrantsDoNotMix(t *testing.T) {
	g := newGuarded(t)
	carol := g.as("carol")
	g.want("before", g.starts(carol, front1, shell, "web"), false)
	g.granted("shell")
	g.granted("forward")
	for _, c := range []struct {
		node, document, login string
		want                  bool
	}{
		{front1, shell, "web", true},
		{front1, "", "web", true},
		{front2, shell, "web", true},
		{front1, shell, "", false},
		{front1, shell, "root", false},
		{front1, port, "", false},
		{back1, port, "", true},
		{back1, "AWS-StartPortForwardingSessionToRemoteHost", "", true},
		{back1, shell, "web", false},
		{back1, "", "web", false},
		{back1, "AWS-StartSSHSession", "", false},
	} {
		g.want(c.node+" "+c.document+" as "+c.login, g.starts(carol, c.node, c.document, c.login), c.want)
	}
	g.want("through a role of theirs", g.starts(g.through("carol", "Any", "x"), front1, shell, "web"), true)
	g.want("somebody else", g.starts(g.as("eve"), front1, shell, "web"), false)
	g.want("somebody else in a session of that name", g.starts(g.through("eve", "Any", "carol"), front1, shell, "web"), false)
}

// Nodes that a request names are all that its grant gives, and only while they are what
// the target offers.
func TestNamedNodes(t *testing.T) {
	g := newGuarded(t)
	carol := g.as("carol")
	in := asked("shell")
	in.Nodes = []string{back1}
	_, err := g.Ask(t.Context(), carol, in)
	wantRefused(t, err, "does not offer node "+back1)
	in.Nodes = []string{"i-0fffffffffffffff0"}
	_, err = g.Ask(t.Context(), carol, in)
	wantRefused(t, err, "does not offer node i-0fffffffffffffff0")
	g.granted("shell", front1)
	g.want("the named node", g.starts(carol, front1, shell, "web"), true)
	g.want("another one of the target", g.starts(carol, front2, shell, "web"), false)
	g.must(g.store.UpdateNode(t.Context(), front1, retag("Department", "BackEnd")))
	g.want("with another tag", g.starts(carol, front1, shell, "web"), false)

	g.granted("forward", back1)
	g.want("by name", g.starts(carol, back1, port, ""), true)
	g.must(g.store.UpdateNode(t.Context(), back1, retag("Name", "frontend-9")))
	g.want("under another name", g.starts(carol, back1, port, ""), false)
}

// What denies and what limits goes before grants.
func TestGrantsAreLimited(t *testing.T) {
	user := identity.Owner{Kind: identity.OwnerUser, Name: "carol"}
	g := newGuarded(t)
	g.granted("shell")
	carol := g.as("carol")
	g.want("granted", g.starts(carol, front1, shell, "web"), true)

	limited := carol
	limited.Principal.Boundary = "arn:aws:iam::111111111111:policy/none"
	g.want("with a boundary that leaves it out", g.starts(limited, front1, shell, "web"), false)
	narrowed := g.through("carol", "Any", "x")
	narrowed.Principal.SessionPolicies = []string{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:DescribeSessions","Resource":"*"}]}`}
	g.want("with a session policy that leaves it out", g.starts(narrowed, front1, shell, "web"), false)

	g.inline(user, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"ssm:StartSession","Resource":"*",
		"Condition":{"StringEquals":{"sallyport:NodeName":"frontend-1"}}}]}`)
	g.want("denied", g.starts(carol, front1, shell, "web"), false)
	g.want("not denied", g.starts(carol, front2, shell, "web"), true)
}

// A role may be assumed, and its policies are the person's, unless it has a boundary,
// which would not be theirs. A group's are as well.
func TestRolesAndGroups(t *testing.T) {
	g := newGuarded(t)
	carol := g.as("carol")
	role := identity.Role{Name: "FrontEnd", ID: identity.NewRoleID(), Path: "/ops/", Created: g.now(), MaxDuration: time.Hour}
	g.must(g.store.CreateRole(t.Context(), role))
	g.inline(identity.Owner{Kind: identity.OwnerRole, Name: "FrontEnd"}, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Department":"FrontEnd"}}}]}`)
	g.inline(identity.Owner{Kind: identity.OwnerGroup, Name: "backend"}, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Department":"BackEnd"}}}]}`)
	assumes := func(name string) bool {
		d, err := g.checker.Decide(t.Context(), access.Query{
			Principal: carol.Principal, Action: "sts:AssumeRole", Resources: []access.Resource{{ARN: realm.IAM("role", "/ops/", name)}},
		})
		g.must(err)
		return d.Allowed
	}
	r := g.granted("role")
	g.want("assuming the role", assumes("FrontEnd"), true)
	g.want("assuming another", assumes("NotFrontEnd"), false)
	g.want("with the role's policies", g.starts(carol, front1, shell, "root"), true)
	g.must(g.store.UpdateRole(t.Context(), "FrontEnd", func(r *identity.Role) error { r.Boundary = "arn:aws:iam::111111111111:policy/b"; return nil }))
	g.want("a role with a boundary", g.starts(carol, front1, shell, "root"), false)
	g.want("still to be assumed", assumes("FrontEnd"), true)

	tie := identity.GrantedRole{Role: "FrontEnd", Grants: []string{r.ID}}
	because, err := g.Granted(t.Context(), g.ids["carol"], tie)
	g.must(err)
	g.want("credentials under the grant", because == "", true)
	if because, _ = g.Granted(t.Context(), g.ids["eve"], tie); because == "" {
		t.Error("another person's credentials hold by carol's grant")
	}
	_, err = g.Revoke(t.Context(), g.as("alice"), r.ID, "enough", false)
	g.must(err)
	because, err = g.Granted(t.Context(), g.ids["carol"], tie)
	g.must(err)
	if !strings.Contains(because, r.ID) || !strings.Contains(because, "revoked by arn:aws:iam::111111111111:user/alice") || !strings.Contains(because, "enough") {
		t.Errorf("after revocation: got %q", because)
	}
	second := g.granted("role")
	if because, _ = g.Granted(t.Context(), g.ids["carol"], tie); because != "" {
		t.Errorf("with another grant of the role: got %q", because)
	}
	g.advance(time.Minute)
	_, err = g.Release(t.Context(), carol, second.ID)
	g.must(err)
	if because, _ = g.Granted(t.Context(), g.ids["carol"], tie); !strings.Contains(because, second.ID) {
		t.Errorf("got %q, want the grant that gave the role last", because)
	}

	both := g.granted("both")
	if _, err := g.Activate(t.Context(), carol, both.ID); err != nil {
		t.Fatal(err)
	}
	g.want("with the group's policies", g.starts(carol, back1, shell, ""), true)
	holders, err := g.GroupHolders(t.Context(), "backend")
	g.must(err)
	g.want("in the group", len(holders) == 1 && holders[0] == g.ids["carol"], true)
	// Membership by a grant decides nothing: who decides are real members.
	g.must(g.store.AddMember(t.Context(), "support", "eve"))
	r2, err := g.Ask(t.Context(), g.as("eve"), asked("role"))
	g.must(err)
	_, err = g.Decide(t.Context(), carol, r2.ID, r2.Hash, true, "")
	wantRefused(t, err, "carol is not among those who decide")
}

// What was approved begins on its first use, and not before: a question is no use, and
// what the grant does not give is none.
func TestFirstUse(t *testing.T) {
	g := newGuarded(t)
	carol := g.as("carol")
	r := g.granted("both")
	if r.State != grant.Approved {
		t.Fatalf("got %s", r.State)
	}
	g.advance(30 * time.Minute)
	q := access.Query{Principal: carol.Principal, Action: "ssm:StartSession", Resources: []access.Resource{{ARN: realm.Node(front1)}}}
	_, err := g.checker.Decide(t.Context(), q)
	g.must(err)
	g.want("another node", g.starts(carol, front2, shell, ""), false)
	g.want("somebody else", g.starts(g.as("eve"), front1, shell, ""), false)
	if got := g.read(r.ID); got.State != grant.Approved {
		t.Fatalf("got %s", got.State)
	}
	possible, err := g.checker.PossibleStart(t.Context(), q, access.Resource{ARN: realm.Node(front1)})
	g.must(err)
	g.want("listed as possible", possible, true)
	g.want("used", g.starts(carol, front1, shell, ""), true)
	got := g.read(r.ID)
	if got.State != grant.Active || got.EndsAt.Sub(g.now()) != 30*time.Minute {
		t.Errorf("got %s until %s", got.State, got.EndsAt)
	}
	g.advance(30 * time.Minute)
	g.want("afterwards", g.starts(carol, front1, shell, ""), false)

	lapsed := g.granted("both")
	g.advance(time.Hour)
	g.want("too late", g.starts(carol, front1, shell, ""), false)
	g.tick()
	if got := g.read(lapsed.ID); got.State != grant.Lapsed {
		t.Errorf("got %s", got.State)
	}
}

// A grant whose row was changed by hand is none.
func TestTamperedRow(t *testing.T) {
	s := &tampering{}
	g := newGuarded(t, func(c *grant.Config) { s.Store, c.Store = c.Store, s })
	g.granted("shell")
	g.want("granted", g.starts(g.as("carol"), front1, shell, "web"), true)
	s.on.Store(true)
	g.ask("role") // another revision
	g.want("changed", g.starts(g.as("carol"), back1, shell, "web"), false)
	g.want("changed, as it was", g.starts(g.as("carol"), front1, shell, "web"), false)
}

// tampering is a store whose rows somebody has changed.
type tampering struct {
	grant.Store
	on atomic.Bool
}

// OpenGrants implements grant.Store.
func (s *tampering) OpenGrants(ctx context.Context, person string) ([]grant.Request, error) {
	all, err := s.Store.OpenGrants(ctx, person)
	for i := range all {
		if s.on.Load() {
			all[i].Frozen.Targets[0].Nodes.Tags = map[string][]string{"Department": {"BackEnd"}}
		}
	}
	return all, err
}

// Who holds nothing costs one read of a decision.
func TestCheapRefusals(t *testing.T) {
	s := &counting{}
	g := newGuarded(t, func(c *grant.Config) { s.Store, c.Store = c.Store, s })
	g.starts(g.as("eve"), front1, shell, "")
	s.revisions.Store(0)
	s.grants.Store(0)
	for range 10 {
		_, err := g.Grants(t.Context(), g.as("eve").Principal)
		g.must(err)
	}
	if s.revisions.Load() != 10 || s.grants.Load() != 0 {
		t.Errorf("10 decisions: got %d reads of the revision and %d of grants, want 10 and 0", s.revisions.Load(), s.grants.Load())
	}
}

type counting struct {
	grant.Store
	revisions, grants atomic.Int64
}

// GrantRevision implements grant.Store.
func (s *counting) GrantRevision(ctx context.Context) (int64, error) {
	s.revisions.Add(1)
	return s.Store.GrantRevision(ctx)
}

// OpenGrants implements grant.Store.
func (s *counting) OpenGrants(ctx context.Context, person string) ([]grant.Request, error) {
	s.grants.Add(1)
	return s.Store.OpenGrants(ctx, person)
}

// Commands go to the nodes of a target that allows them, with its documents.
func TestCommands(t *testing.T) {
	g := newGuarded(t)
	g.granted("forward")
	g.granted("shell")
	sends := func(document string, ids ...string) bool {
		resources := []access.Resource{{ARN: realm.Document(document)}}
		for _, id := range ids {
			n, err := g.store.Node(t.Context(), id)
			g.must(err)
			resources = append(resources, access.Resource{ARN: realm.Node(id), Tags: n.Tags, Context: map[string][]string{
				access.KeyNodeID: {id}, access.KeyNodeName: {n.AssignedName()},
			}})
		}
		d, err := g.checker.Decide(t.Context(), access.Query{
			Principal: g.as("carol").Principal, Action: "ssm:SendCommand", Resources: resources,
			Context: map[string][]string{access.KeyDocumentName: {document}},
		})
		g.must(err)
		return d.Allowed
	}
	g.want("a document of the target on its node", sends(port, back1), true)
	g.want("another document", sends("AWS-RunShellScript", back1), false)
	g.want("another node", sends(port, front1), false)
	g.want("another node beside", sends(port, back1, front1), false)
	g.want("where no commands are allowed", sends(shell, front1), false)
}
