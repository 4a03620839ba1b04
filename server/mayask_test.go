package server

import (
	"context"
	"slices"
	"strings"
	"testing"

	"sallyport.dev/access"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
)

const (
	offeredNode   = "i-060ee0879f3ec4eb7"
	unofferedNode = "i-05b7516a19f826be9"
)

// listed are the nodes that somebody is shown, by id.
func (a *asking) listed(c identity.Credentials) map[string]listedNode {
	a.t.Helper()
	nodes := map[string]listedNode{}
	for _, n := range decodeInto[listNodesOutput](a.t, a.json(c, "Sallyport.ListNodes", listNodesInput{})).Nodes {
		nodes[n.NodeID] = n
	}
	return nodes
}

// Who may only ask sees what they may ask for, so that names resolve, and nothing else.
func TestListNodesThatMayBeAskedFor(t *testing.T) {
	a := newAsking(t)
	got := a.listed(a.carol)
	if n := got[offeredNode]; len(got) != 1 || !n.MayAsk || n.MayConnect || n.MayStart || n.Name != "frontend-1" {
		t.Errorf("carol: got %+v, want frontend-1 to ask for", got)
	}
	a.refused(a.eve, "ListNodes", listNodesInput{}, "AccessDeniedException", "sallyport:ListNodes")
	if got := a.query(a.carol, "ec2", "DescribeInstances"); got.code() != "UnauthorizedOperation" {
		t.Errorf("DescribeInstances: got %d %s, want it refused: it goes by policy", got.status, got.body)
	}
	for name, out := range map[string]answer{
		"of another": a.json(a.carol, "Sallyport.ListFlows", listFlowsInput{NodeID: unofferedNode}),
		"of none":    a.json(a.carol, "Sallyport.ListFlows", listFlowsInput{NodeID: "i-0123456789abcdef0"}),
		"eve's":      a.json(a.eve, "Sallyport.ListFlows", listFlowsInput{NodeID: offeredNode}),
	} {
		if out.status != 200 || string(out.body) != `{"Flows":[]}` {
			t.Errorf("flows %s: got %d %s, want none", name, out.status, out.body)
		}
	}
	r := a.call(a.carol, "RequestAccess", requestAccessInput{Flow: "front", Reason: "look", Targets: []string{"nodes"}})
	a.call(a.bob, "ApproveRequest", decideInput{RequestID: r.RequestID, Hash: r.Hash})
	if n := a.listed(a.carol)[offeredNode]; !n.MayConnect || n.MayAsk {
		t.Errorf("with a grant: got %+v, want it to connect to", n)
	}
	a.call(a.carol, "ReleaseRequest", stepInput{RequestID: r.RequestID})
	if n := a.listed(a.carol)[offeredNode]; n.MayConnect || !n.MayAsk {
		t.Errorf("given back: got %+v, want it to ask for", n)
	}
}

// A deny, and the end of the right to ask, take nodes from the listing.
func TestListNodesThatMayNotBeAskedFor(t *testing.T) {
	a := newAsking(t)
	a.must(a.store.RemoveMember(context.Background(), "support", "carol"))
	a.refused(a.carol, "ListNodes", listNodesInput{}, "AccessDeniedException", "sallyport:ListNodes")
	a.must(a.store.AddMember(context.Background(), "support", "carol"))
	a.inline(identity.Owner{Kind: identity.OwnerUser, Name: "carol"}, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"ssm:StartSession","Resource":"*"}]}`)
	a.refused(a.carol, "ListNodes", listNodesInput{}, "AccessDeniedException", "sallyport:ListNodes")
}

// By SSH a beginning of a name stands for what one may ask for, and for nothing else.
func TestNodeNamedThatMayBeAskedFor(t *testing.T) {
	a := newAsking(t)
	for name, want := range map[string]string{"front": offeredNode, "back": ""} {
		n, known, err := a.server.NodeNamed(t.Context(), a.principal(a.carol), access.Origin{}, name)
		if err != nil || n.ID != want || known != (want != "") {
			t.Errorf("carol's %s: got %q, %v, %v, want %q", name, n.ID, known, err, want)
		}
	}
	if n, known, err := a.server.NodeNamed(t.Context(), a.principal(a.eve), access.Origin{}, "front"); known || err != nil {
		t.Errorf("eve: got %q, %v, %v, want nothing", n.ID, known, err)
	}
}

// An explanation tells of grants, of requests and of the flows that would help.
func TestExplainAsking(t *testing.T) {
	a := newAsking(t)
	explain := func(c identity.Credentials, in explainAccessInput) explainAccessOutput {
		t.Helper()
		in.Action = orElse(in.Action, "ssm:StartSession")
		return decodeInto[explainAccessOutput](t, a.json(c, "Sallyport.ExplainAccess", in))
	}
	targets := func(out explainAccessOutput) (names []string) {
		for _, f := range out.Flows {
			for _, target := range f.Targets {
				names = append(names, f.Name+" "+target.Name)
			}
		}
		return names
	}
	out := explain(a.carol, explainAccessInput{NodeID: offeredNode})
	if got, want := targets(out), []string{"front nodes"}; out.Decision == "Allowed" || !slices.Equal(got, want) || len(out.Requests) > 0 {
		t.Errorf("before: got %s, %v, %d requests, want %v", out.Decision, got, len(out.Requests), want)
	}
	if out := explain(a.carol, explainAccessInput{NodeID: unofferedNode}); len(out.Flows) > 0 || strings.Contains(out.Message, "backend-1") {
		t.Errorf("a node that nobody offers: got %+v", out)
	}
	out = explain(a.carol, explainAccessInput{Action: "sts:AssumeRole", Resource: testRealm.IAM("role", "/", "FrontEnd")})
	if got, want := targets(out), []string{"front role"}; !slices.Equal(got, want) {
		t.Errorf("the role: got %v, want %v", got, want)
	}
	r := a.call(a.carol, "RequestAccess", requestAccessInput{Flow: "front", Reason: "look", Targets: []string{"nodes"}})
	out = explain(a.carol, explainAccessInput{NodeID: offeredNode})
	if len(out.Requests) != 1 || out.Requests[0].State != string(grant.Pending) || !slices.Equal(out.Requests[0].Stages[0].People, []string{"bob"}) {
		t.Errorf("asked: got %+v, want the request with who may decide", out.Requests)
	}
	a.call(a.bob, "ApproveRequest", decideInput{RequestID: r.RequestID, Hash: r.Hash})
	out = explain(a.carol, explainAccessInput{NodeID: offeredNode})
	if out.Decision != "Allowed" || len(out.Flows) > 0 || out.Requests[0].State != string(grant.Active) || !strings.Contains(strings.Join(out.Resources[0].Sources, " "), r.RequestID) {
		t.Errorf("granted: got %+v", out)
	}
	if out := explain(a.admin, explainAccessInput{Principal: "carol", NodeID: offeredNode}); out.Decision != "Allowed" || len(out.Requests) != 1 {
		t.Errorf("asked about by an administrator: got %+v", out)
	}
	a.refused(a.eve, "ExplainAccess", explainAccessInput{Principal: "carol", Action: "ssm:StartSession"}, "AccessDeniedException", "sallyport:ExplainAccess")
	if out := explain(a.eve, explainAccessInput{NodeID: offeredNode}); len(out.Requests)+len(out.Flows) > 0 {
		t.Errorf("eve: got %+v, want nothing of carol's", out)
	}
}
