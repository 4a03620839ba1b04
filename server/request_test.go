package server

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
)

const requestFlow = `
flow "front" {
  label = "Front end"
  ask { groups = ["support"] }
  target "role" "role" { role = "FrontEnd" }
  target "nodes" "nodes" {
    tags = { Department = ["FrontEnd"] }
  }
  field "ticket" {
    pattern = "[A-Z]+-[0-9]+"
    default = "OPS-1"
  }
  stage "team" {
    of { groups = ["frontend"] }
  }
  clocks {
    pending    = "1h"
    default    = "30m"
    longest    = "2h"
    extension  = "10m"
    extensions = 1
  }
}`

// people of the tests of requests, with the flow in force.
type asking struct {
	*harness
	carol, bob, eve, admin identity.Credentials
}

func newAsking(t *testing.T) *asking {
	t.Helper()
	h, _ := withAccess(t)
	a := &asking{harness: h}
	a.carol, a.bob, a.eve, a.admin = h.user("carol", nil), h.user("bob", nil), h.user("eve", nil), h.user("admin", nil, allowAll)
	for group, user := range map[string]string{"support": "carol", "frontend": "bob"} {
		h.must(h.store.CreateGroup(context.Background(), identity.Group{Name: group, ID: identity.NewGroupID(), Path: "/", Created: h.clock()}))
		h.must(h.store.AddMember(context.Background(), group, user))
	}
	h.node("i-060ee0879f3ec4eb7", identity.Tags{"Department": "FrontEnd", "Name": "frontend-1"})
	h.node("i-05b7516a19f826be9", identity.Tags{"Department": "BackEnd", "Name": "backend-1"})
	h.role("FrontEnd", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::111111111111:root"}}]}`)
	out := decodeInto[putFlowsOutput](t, h.json(a.admin, "Sallyport.PutFlows", putFlowsInput{Files: map[string]string{"a.sallyport.hcl": requestFlow}}))
	if !slices.Equal(out.Flows, []string{"front"}) || out.Digest == "" {
		t.Fatalf("flows: got %+v", out)
	}
	return a
}

func (a *asking) call(c identity.Credentials, operation string, in any) accessRequest {
	a.t.Helper()
	return decodeInto[accessRequest](a.t, a.json(c, "Sallyport."+operation, in))
}

func (a *asking) refused(c identity.Credentials, operation string, in any, code, part string) {
	a.t.Helper()
	got := a.json(c, "Sallyport."+operation, in)
	if got.code() != code || !strings.Contains(got.message(), part) {
		a.t.Errorf("%s: got %d %s, want %s with %q", operation, got.status, got.body, code, part)
	}
}

// From asking to the role, and out again when it is over, by the API alone.
func TestRequests(t *testing.T) {
	a := newAsking(t)
	assume := func() answer {
		return a.query(a.carol, "sts", "AssumeRole", "RoleArn", testRealm.IAM("role", "/", "FrontEnd"), "RoleSessionName", "carol")
	}
	if got := assume(); got.code() != "AccessDenied" {
		t.Fatalf("before: got %d %s", got.status, got.body)
	}
	for _, wrong := range []string{"Reason: is required", "Colour: the form has no such field"} {
		a.refused(a.carol, "RequestAccess", requestAccessInput{Flow: "front", Values: map[string][]string{"colour": {"red"}}}, "ValidationException", wrong)
	}
	r := a.call(a.carol, "RequestAccess", requestAccessInput{Flow: "front", Reason: "ticket", Seconds: 60})
	if r.State != "Pending" || r.Seconds != 60 || r.Stages[0].Deciders != "group frontend" || !slices.Equal(r.Stages[0].People, []string{"bob"}) || r.MayDecide {
		t.Fatalf("got %+v", r)
	}
	if listed := decodeInto[listAccessRequestsOutput](t, a.json(a.bob, "Sallyport.ListAccessRequests", listAccessRequestsInput{ToDecide: true})); len(listed.Requests) != 1 || !listed.Requests[0].MayDecide {
		t.Fatalf("to decide: got %+v", listed)
	}
	a.refused(a.carol, "ApproveRequest", decideInput{RequestID: r.RequestID, Hash: r.Hash}, "AccessDeniedException", "nobody decides on what they ask for themselves, and flow front makes no exception")
	a.refused(a.admin, "ApproveRequest", decideInput{RequestID: r.RequestID, Hash: r.Hash}, "AccessDeniedException", "admin is not among those who decide")
	a.refused(a.bob, "ApproveRequest", decideInput{RequestID: r.RequestID, Hash: strings.Repeat("0", 64)}, "ConflictException", "")
	waited := make(chan accessRequest, 1)
	go func() {
		waited <- a.call(a.carol, "GetAccessRequest", getAccessRequestInput{RequestID: r.RequestID, After: r.Revision, Wait: 10})
	}()
	if r = a.call(a.bob, "ApproveRequest", decideInput{RequestID: r.RequestID, Hash: r.Hash, Comment: "ok"}); r.State != "Active" {
		t.Fatalf("approved: got %+v", r)
	}
	if r := <-waited; r.State != "Active" {
		t.Errorf("who waits: got %+v", r)
	}
	cred := assume().credentials()
	if got := a.query(cred, "sts", "GetCallerIdentity"); got.status != 200 {
		t.Errorf("in the role: got %d %s", got.status, got.body)
	}
	a.advance(61 * time.Second)
	if got := a.query(cred, "sts", "GetCallerIdentity"); got.code() != "ExpiredToken" || !strings.Contains(got.message(), r.RequestID) {
		t.Errorf("when the grant is over: got %d %s", got.status, got.body)
	}
	if got := assume(); got.code() != "AccessDenied" {
		t.Errorf("afterwards: got %d %s", got.status, got.body)
	}
	// The row has not changed yet, but nobody is shown a grant that is over.
	if got := a.call(a.carol, "GetAccessRequest", getAccessRequestInput{RequestID: r.RequestID}); got.State != "Ended" || len(got.Events) != 4 {
		t.Errorf("shown: got %s, %d events", got.State, len(got.Events))
	}
	var actions []string
	for _, rec := range a.audited(audit.EventRequest) {
		actions = append(actions, rec.Action+" by "+rec.Principal[strings.LastIndex(rec.Principal, "/")+1:])
	}
	want := []string{"request:requested by carol", "request:approved by bob", "request:granted by bob", "request:activated by bob"}
	if !slices.Equal(actions, want) {
		t.Errorf("the audit log: got %q, want %q", actions, want)
	}
}

// Requests are shown to who asked, who decides, and who may by policy; others cannot even
// tell whether there is one.
func TestRequestsVisible(t *testing.T) {
	a := newAsking(t)
	r := a.call(a.carol, "RequestAccess", requestAccessInput{Flow: "front", Reason: "ticket"})
	none := "oi-0123456789ab"
	for _, id := range []string{r.RequestID, none} {
		for operation, in := range map[string]any{
			"GetAccessRequest": getAccessRequestInput{RequestID: id},
		} {
			a.refused(a.eve, operation, in, "AccessDeniedException", "because no identity-based policy allows the sallyport:GetAccessRequest action")
		}
	}
	a.refused(a.admin, "GetAccessRequest", getAccessRequestInput{RequestID: none}, "DoesNotExistException", "")
	for name, c := range map[string]struct {
		who  identity.Credentials
		in   listAccessRequestsInput
		want int
	}{
		"who asked":            {a.carol, listAccessRequestsInput{}, 1},
		"who asked, mine":      {a.carol, listAccessRequestsInput{Mine: true}, 1},
		"who decides":          {a.bob, listAccessRequestsInput{}, 1},
		"who decides, mine":    {a.bob, listAccessRequestsInput{Mine: true}, 0},
		"somebody else":        {a.eve, listAccessRequestsInput{}, 0},
		"by policy":            {a.admin, listAccessRequestsInput{Person: "carol", States: []string{"Pending"}}, 1},
		"by policy, to decide": {a.admin, listAccessRequestsInput{ToDecide: true}, 0},
		"of another":           {a.admin, listAccessRequestsInput{Person: "bob"}, 0},
	} {
		out := decodeInto[listAccessRequestsOutput](t, a.json(c.who, "Sallyport.ListAccessRequests", c.in))
		if len(out.Requests) != c.want {
			t.Errorf("%s: got %d, want %d", name, len(out.Requests), c.want)
		}
	}
	for range 4 {
		a.call(a.carol, "RequestAccess", requestAccessInput{Flow: "front", Reason: "ticket"})
	}
	seen, in := map[string]bool{}, listAccessRequestsInput{Limit: 2}
	for {
		out := decodeInto[listAccessRequestsOutput](t, a.json(a.carol, "Sallyport.ListAccessRequests", in))
		for _, r := range out.Requests {
			seen[r.RequestID] = true
		}
		if in.NextToken = out.NextToken; in.NextToken == "" {
			break
		}
	}
	if len(seen) != 5 {
		t.Errorf("page by page: got %d", len(seen))
	}
}

// Policies allow nothing of this, but may deny it; who is disabled loses it.
func TestRequestsDenied(t *testing.T) {
	a := newAsking(t)
	deny := func(user, action, resource string) {
		a.inline(identity.Owner{Kind: identity.OwnerUser, Name: user}, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"`+action+`","Resource":"`+resource+`"}]}`)
	}
	flowARN := "arn:aws:sallyport:us-east-1:111111111111:flow/"
	deny("carol", "sallyport:RequestAccess", flowARN+"other")
	r := a.call(a.carol, "RequestAccess", requestAccessInput{Flow: "front", Reason: "ticket"})
	deny("carol", "sallyport:RequestAccess", flowARN+"front")
	a.refused(a.carol, "RequestAccess", requestAccessInput{Flow: "front", Reason: "ticket"}, "AccessDeniedException", "with an explicit deny in an identity-based policy")
	deny("bob", "sallyport:ApproveRequest", "*")
	a.refused(a.bob, "ApproveRequest", decideInput{RequestID: r.RequestID, Hash: r.Hash}, "AccessDeniedException", "with an explicit deny in an identity-based policy")
	deny("bob", "sallyport:DenyRequest", "*")
	r = a.call(a.bob, "ApproveRequest", decideInput{RequestID: r.RequestID, Hash: r.Hash})
	a.refused(a.eve, "RevokeRequest", stepInput{RequestID: r.RequestID, Reason: "x"}, "AccessDeniedException", "eve decides in no stage of flow front")
	if got := a.json(a.admin, "Sallyport.DisableUser", userInput{UserName: "carol"}); got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	if got := a.call(a.admin, "GetAccessRequest", getAccessRequestInput{RequestID: r.RequestID}); got.State != "Revoked" || !strings.Contains(got.Because, "was disabled by") {
		t.Errorf("after the person was disabled: got %s, %s", got.State, got.Because)
	}
	if got := a.json(a.eve, "Sallyport.PutFlows", putFlowsInput{Files: map[string]string{}, Digest: "x"}); got.code() != "AccessDeniedException" {
		t.Errorf("flows put by somebody: got %d %s", got.status, got.body)
	}
	if got := a.json(a.eve, "Sallyport.GetFlows", getFlowsInput{}); got.code() != "AccessDeniedException" {
		t.Errorf("flows read by somebody: got %d %s", got.status, got.body)
	}
}

// What comes in is bounded and is text.
func TestRequestInputs(t *testing.T) {
	a := newAsking(t)
	long := strings.Repeat("a", 2001)
	for _, c := range []struct {
		in   requestAccessInput
		part string
	}{
		{requestAccessInput{Flow: "front", Reason: long}, "Member must have length less than or equal to 2000"},
		{requestAccessInput{Flow: "front", Reason: "\x1b]0;owned\a"}, "Reason"},
		{requestAccessInput{Flow: "front", Reason: "x", Values: map[string][]string{"ticket": {"nonsense"}}}, "Ticket"},
		{requestAccessInput{Flow: "front", Reason: "x", Values: map[string][]string{"nosuch": {"1"}}}, "Nosuch"},
		{requestAccessInput{Flow: "front", Reason: "x", Seconds: 7201}, "Duration"},
		{requestAccessInput{Flow: "front", Reason: "x", Values: map[string][]string{"extends": {"oi-0123456789ab"}}}, "Extends"},
		{requestAccessInput{Flow: "front"}, "Reason"},
		{requestAccessInput{Flow: "front", Reason: "x", Channel: "slack"}, "channel"},
		{requestAccessInput{Flow: "front", Reason: "x", Targets: []string{"nosuch"}}, "Targets"},
	} {
		a.refused(a.carol, "RequestAccess", c.in, "ValidationException", c.part)
	}
	a.refused(a.carol, "RequestAccess", requestAccessInput{Flow: "front", Reason: "x", NodeIDs: []string{"i-05b7516a19f826be9"}}, "AccessDeniedException", "does not offer node")
	r := a.call(a.carol, "RequestAccess", requestAccessInput{Flow: "front", Reason: "x", NodeIDs: []string{"i-060ee0879f3ec4eb7"}, DryRun: true})
	if len(r.Targets) != 1 || r.Targets[0].Kind != "nodes" || r.Stages[0].People[0] != "bob" {
		t.Errorf("a dry run: got %+v", r)
	}
	if listed := decodeInto[listAccessRequestsOutput](t, a.json(a.carol, "Sallyport.ListAccessRequests", listAccessRequestsInput{})); len(listed.Requests) != 0 {
		t.Errorf("a dry run made %+v", listed)
	}
	flows := decodeInto[listFlowsOutput](t, a.json(a.carol, "Sallyport.ListFlows", listFlowsInput{NodeID: "i-060ee0879f3ec4eb7"}))
	if len(flows.Flows) != 1 || len(flows.Flows[0].Targets) != 1 || flows.Flows[0].Targets[0].Gives != "nodes with Department=FrontEnd" {
		t.Errorf("flows that help: got %+v", flows)
	}
	for _, c := range []identity.Credentials{a.eve, a.bob} {
		if flows := decodeInto[listFlowsOutput](t, a.json(c, "Sallyport.ListFlows", listFlowsInput{})); len(flows.Flows) != 0 {
			t.Errorf("flows of somebody else: got %+v", flows)
		}
	}
	got := a.json(a.admin, "Sallyport.PutFlows", putFlowsInput{Files: map[string]string{"a.sallyport.hcl": "flow \"x\" {"}, Digest: ""})
	if got.code() != "ValidationException" || !strings.Contains(got.message(), "a.sallyport.hcl:") {
		t.Errorf("broken flows: got %d %s", got.status, got.body)
	}
	if got := a.json(a.admin, "Sallyport.PutFlows", putFlowsInput{Files: map[string]string{}, Digest: "old"}); got.code() != "ConflictException" {
		t.Errorf("other flows than those in force: got %d %s", got.status, got.body)
	}
}
