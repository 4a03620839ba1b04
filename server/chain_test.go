package server

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
)

// presigned makes a URL that is good for some seconds, as anyone may send it.
func (h *harness) presigned(c identity.Credentials, service, query, seconds string) *http.Request {
	h.t.Helper()
	r, err := http.NewRequest(http.MethodGet, h.http.URL+"/?"+query+"&X-Amz-Expires="+seconds, nil)
	h.must(err)
	signed, _, err := v4.NewSigner().PresignHTTP(context.Background(), awsCredentials(c), r, bodyHash(h.t, r), service, testRealm.Region, h.clock())
	h.must(err)
	r, err = http.NewRequest(http.MethodGet, signed, nil)
	h.must(err)
	return r
}

// A URL that somebody finds in a log reads a little and for a short time: it gives no
// credentials and changes nothing.
func TestPresignedRequestsOnlyRead(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	h.role("Ops", trustAccount)
	for _, test := range []struct{ service, query, code string }{
		{"sts", "Action=GetCallerIdentity&Version=2011-06-15", ""},
		{"iam", "Action=ListUsers&Version=2010-05-08", ""},
		{"sts", "Action=GetSessionToken&Version=2011-06-15", "AccessDenied"},
		{"sts", "Action=AssumeRole&Version=2011-06-15&RoleArn=arn:aws:iam::111111111111:role/Ops&RoleSessionName=one", "AccessDenied"},
		{"iam", "Action=CreateAccessKey&Version=2010-05-08", "AccessDenied"},
		{"iam", "Action=CreateUser&Version=2010-05-08&UserName=eve", "AccessDenied"},
	} {
		if got := h.send(h.presigned(admin, test.service, test.query, "60")); got.code() != test.code {
			t.Errorf("%s: got %d %s, want code %q", test.query, got.status, got.body, test.code)
		}
	}
	const who = "Action=GetCallerIdentity&Version=2011-06-15"
	young, old := h.presigned(admin, "sts", who, "604800"), h.presigned(admin, "sts", who, "604800")
	h.advance(15 * time.Minute)
	if got := h.send(young); got.status != 200 {
		t.Errorf("after 15 minutes: got %d %s", got.status, got.body)
	}
	h.advance(time.Second)
	if got := h.send(old); got.code() != "SignatureDoesNotMatch" {
		t.Errorf("later: got %d %s", got.status, got.body)
	}
}

// Who is behind a chain of roles stays the same in all of it.
func TestSourceIdentityStays(t *testing.T) {
	h := newHarness(t)
	trust := strings.Replace(trustAccount, `"sts:TagSession"`, `"sts:TagSession","sts:SetSourceIdentity"`, 1)
	alice := h.user("alice", nil, allowAll)
	h.role("First", trust, allowAll)
	h.role("Second", trust, allowAll)
	first := h.assumed(alice, "First", "one", "SourceIdentity", "alice")
	second := func(c identity.Credentials, fields ...string) answer {
		return h.query(c, "sts", "AssumeRole", append([]string{
			"RoleArn", "arn:aws:iam::111111111111:role/Second", "RoleSessionName", "two"}, fields...)...)
	}
	if got := second(first, "SourceIdentity", "bob"); got.code() != "AccessDenied" || !strings.Contains(got.message(), "cannot be changed") {
		t.Errorf("another: got %d %s", got.status, got.body)
	}
	if r := h.last(audit.EventDecision, "sts:AssumeRole"); r.Error != "AccessDenied" || r.Details["SourceIdentity"] != "bob" {
		t.Errorf("the refusal was recorded as %+v", r)
	}
	for _, fields := range [][]string{nil, {"SourceIdentity", "alice"}} {
		got := second(first, fields...)
		if p := h.principal(got.credentials()); p.SourceIdentity != "alice" {
			t.Errorf("%v: got %q", fields, p.SourceIdentity)
		}
	}
	if got := second(h.assumed(alice, "First", "one"), "SourceIdentity", "alice"); got.status != 200 {
		t.Errorf("set later in the chain: got %d %s", got.status, got.body)
	}
}

// Nodes have nobody behind them: they assume no roles, even where everyone may.
func TestNodesNeitherAssumeNorAsk(t *testing.T) {
	r := newRelayed(t)
	r.node(channelNode, nil)
	r.role("Open", strings.Replace(trustAccount, `{"AWS":"arn:aws:iam::111111111111:root"}`, `"*"`, 1), allowAll)
	c := r.nodeCredentials(channelNode)
	if got := r.query(c, "sts", "AssumeRole", "RoleArn", "arn:aws:iam::111111111111:role/Open", "RoleSessionName", "one"); got.code() != "AccessDenied" {
		t.Errorf("AssumeRole: got %d %s", got.status, got.body)
	}
	if got := r.json(c, "Sallyport.ExplainAccess", explainAccessInput{Action: "ssm:StartSession"}); got.code() != "AccessDeniedException" {
		t.Errorf("ExplainAccess: got %d %s", got.status, got.body)
	}
}

// Explanations do not tell which nodes there are, nor their tags, to who may neither
// list them nor connect.
func TestExplanationsOfUnseenNodes(t *testing.T) {
	h := newHarness(t)
	h.node(channelNode, identity.Tags{"Team": "search", "Name": "backend-1"})
	h.node(otherNode, identity.Tags{"Team": "payments", "Name": "frontend-1"})
	const byTeam = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*",
		"Condition":{"StringEquals":{"ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"}}}]}`
	alice := h.user("alice", identity.Tags{"Team": "payments"}, byTeam)
	for _, action := range []string{"ssm:StartSession", "ssm:GetConnectionStatus"} {
		ask := func(target string) string {
			got := h.json(alice, "Sallyport.ExplainAccess", explainAccessInput{Action: action, NodeID: target})
			return strings.ReplaceAll(got.body, target, "TARGET")
		}
		if unseen, unknown := ask(channelNode), ask("i-00000000000000001"); unseen != unknown {
			t.Errorf("%s by id: got\n%s\nof an unseen node and\n%s\nof an unknown one", action, unseen, unknown)
		}
		if unseen, unknown := ask("backend-1"), ask("nothing-1"); unseen != unknown {
			t.Errorf("%s by name: got\n%s\nof an unseen node and\n%s\nof an unknown one", action, unseen, unknown)
		}
	}
	out := decodeInto[explainAccessOutput](t, h.json(alice, "Sallyport.ExplainAccess", explainAccessInput{Action: "ssm:StartSession", NodeID: "frontend-1"}))
	if out.Decision != "Allowed" || out.NodeID != otherNode {
		t.Errorf("a node that alice may connect to: got %+v", out)
	}
}
