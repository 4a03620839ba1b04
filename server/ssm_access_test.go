package server

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/approval"
	"sallyport.dev/audit"
	"sallyport.dev/document"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/policy"
)

// documents is a harness with access just in time by AWS's documents.
type documents struct {
	*harness
	engine *grant.Engine
	late   *lateServer
	admin  identity.Credentials
	carol  identity.Credentials
	bob    identity.Credentials
}

const (
	frontNode = "i-060ee0879f3ec4eb7"
	backNode  = "i-05b7516a19f826be9"
)

func newDocuments(t *testing.T) *documents {
	t.Helper()
	d := &documents{late: &lateServer{}}
	d.harness = newHarness(t, func(c *Config) {
		c.Approval = approval.New(approval.Config{Documents: c.Documents, Directory: c.Identities, Realm: c.Realm, Now: c.Now})
		d.engine = grant.New(grant.Config{
			Store: c.Identities.(grant.Store), Directory: c.Identities, Nodes: c.Nodes, Audit: c.Audit, Rules: c.Approval,
			Realm: c.Realm, Now: c.Now, Logger: c.Logger, Policies: d.late,
			Sources: func(context.Context, identity.Owner) ([]policy.Source, error) { return nil, nil },
		})
		c.Access, c.Ties = d.engine, documentTies{d.engine}
	})
	d.late.Policies = d.server.AccessPolicies()
	t.Cleanup(d.engine.Close)
	d.admin = d.user("admin", nil, allowAll)
	d.carol, d.bob = d.user("carol", nil), d.user("bob", nil)
	d.must(d.store.CreateGroup(context.Background(), identity.Group{Name: "support", ID: identity.NewGroupID(), Path: "/", Created: d.clock()}))
	d.must(d.store.AddMember(context.Background(), "support", "carol"))
	d.node(frontNode, identity.Tags{"Env": "Dev"})
	d.node(backNode, identity.Tags{"Env": "Prod"})
	return d
}

// lateServer is the part of a server that is made after its engine.
type lateServer struct{ grant.Policies }

type documentTies struct{ *grant.Engine }

func (documentTies) SignIn(ctx context.Context, id, user string) (string, error) {
	return identity.NoTies{}.SignIn(ctx, id, user)
}

// create makes a document as admin.
func (d *documents) create(name, kind, content string) answer {
	d.t.Helper()
	return d.json(d.admin, "AmazonSSM.CreateDocument", map[string]any{"Name": name, "DocumentType": kind, "Content": content})
}

func (d *documents) manual(name, members string) {
	d.t.Helper()
	if a := d.create(name, document.TypeManualApproval, `{"schemaVersion":"1.0","accessDuration":4,`+members+`}`); a.code() != "" {
		d.t.Fatalf("creating %s: %s", name, a.body)
	}
}

func onNodes(ids ...string) map[string]any {
	return map[string]any{"Reason": "deploy", "Targets": []map[string]any{{"Key": "InstanceIds", "Values": ids}}}
}

// ask starts an access request and returns its id.
func (d *documents) ask(c identity.Credentials, ids ...string) string {
	d.t.Helper()
	a := d.json(c, "AmazonSSM.StartAccessRequest", onNodes(ids...))
	var out struct {
		AccessRequestID string `json:"AccessRequestId"`
	}
	if err := json.Unmarshal([]byte(a.body), &out); err != nil || out.AccessRequestID == "" {
		d.t.Fatalf("asking: %d %s", a.status, a.body)
	}
	return out.AccessRequestID
}

// approve has bob approve by AWS's signal.
func (d *documents) approve(id string) {
	d.t.Helper()
	r, err := d.engine.Request(context.Background(), id)
	d.must(err)
	if a := d.signal(d.bob, r, "Approve"); a.code() != "" {
		d.t.Fatalf("approving: %s", a.body)
	}
}

func (d *documents) signal(c identity.Credentials, r grant.Request, signal string) answer {
	d.t.Helper()
	return d.json(c, "AmazonSSM.SendAutomationSignal", map[string]any{
		"AutomationExecutionId": executionID(r), "SignalType": signal, "Payload": map[string]any{"Comment": []string{"so"}},
	})
}

// token gets the access token of a request.
func (d *documents) token(c identity.Credentials, id string) (status string, cred identity.Credentials) {
	d.t.Helper()
	a := d.json(c, "AmazonSSM.GetAccessToken", map[string]any{"AccessRequestId": id})
	var out struct {
		AccessRequestStatus string
		Credentials         struct {
			AccessKeyID     string `json:"AccessKeyId"`
			SecretAccessKey string
			SessionToken    string
			ExpirationTime  float64
		}
	}
	if a.code() != "" {
		return a.code(), cred
	}
	d.must(json.Unmarshal([]byte(a.body), &out))
	return out.AccessRequestStatus, identity.Credentials{
		AccessKeyID: out.Credentials.AccessKeyID, SecretAccessKey: out.Credentials.SecretAccessKey, SessionToken: out.Credentials.SessionToken,
		Expires: time.UnixMilli(int64(out.Credentials.ExpirationTime * 1000)),
	}
}

// start tries a session: "" if it would start, were the node connected.
func (d *documents) start(c identity.Credentials, node string) string {
	d.t.Helper()
	a := d.json(c, "AmazonSSM.StartSession", map[string]any{"Target": node})
	switch code := a.code(); {
	case code == "TargetNotConnected", strings.Contains(d.logs.String(), "no gateway") && code == "InternalServerError":
		return ""
	default:
		return code
	}
}

func (d *documents) wantStart(c identity.Credentials, node, want, when string) {
	d.t.Helper()
	if got := d.start(c, node); got != want {
		d.t.Errorf("%s: starting a session on %s: got %q, want %q", when, node, got, want)
	}
}

func TestAccessToken(t *testing.T) {
	d := newDocuments(t)
	d.manual("Dev", `"targets":[{"Key":"tag:Env","Values":["Dev"]}],"approvers":["bob"]`)
	id := d.ask(d.carol, frontNode)
	if status, cred := d.token(d.carol, id); status != "Pending" || cred.AccessKeyID != "" {
		t.Errorf("got %s, want Pending and no credentials", status)
	}
	d.approve(id)
	d.advance(time.Hour)
	status, cred := d.token(d.carol, id)
	if status != "Approved" || !cred.Expires.Equal(d.clock().Add(3*time.Hour)) {
		t.Errorf("got %s until %v, want Approved for the 3 hours that are left", status, cred.Expires.Sub(d.clock()))
	}
	d.wantStart(cred, frontNode, "", "with the token")
	d.wantStart(cred, backNode, "AccessDeniedException", "with the token")

	// Nothing else, by whatever service.
	for target, in := range map[string]any{
		"AmazonSSM.DescribeInstanceInformation": map[string]any{},
		"AmazonSSM.GetAccessToken":              map[string]any{"AccessRequestId": id},
		"AmazonSSM.StartAccessRequest":          onNodes(frontNode),
		"AmazonSSM.GetOpsItem":                  map[string]any{"OpsItemId": id},
		"AmazonSSM.GetDocument":                 map[string]any{"Name": "SSM-SessionManagerRunShell"},
		"AmazonSSM.SendCommand":                 map[string]any{"InstanceIds": []string{frontNode}, "DocumentName": "AWS-RunShellScript", "Parameters": map[string]any{"commands": []string{"id"}}},
		"Sallyport.ListNodes":                   map[string]any{},
	} {
		if a := d.json(cred, target, in); a.code() != "AccessDeniedException" && !emptyAnswer(a) {
			t.Errorf("%s: got %d %s", target, a.status, a.body)
		}
	}
	for _, call := range [][]string{{"iam", "ListUsers"}, {"sts", "GetSessionToken"}} {
		if a := d.query(cred, call[0], call[1]); a.code() != "AccessDenied" {
			t.Errorf("%s: got %d %s", call[1], a.status, a.body)
		}
	}

	// It ends with the grant, to the second.
	d.advance(3*time.Hour - time.Second)
	d.wantStart(cred, frontNode, "", "a second before the end")
	d.advance(time.Second)
	d.wantStart(cred, frontNode, "ExpiredTokenException", "at the end")
	if status, cred := d.token(d.carol, id); status != "Expired" || cred.AccessKeyID != "" {
		t.Errorf("got %s, want Expired and no credentials", status)
	}
	if issued := d.last(audit.EventChange, "ssm:GetAccessToken"); issued.Details["issued_access_key_id"] != cred.AccessKeyID {
		t.Errorf("the token is not in the audit log: %+v", issued)
	}
}

// emptyAnswer tells listings that show nothing instead of refusing.
func emptyAnswer(a answer) bool {
	return a.status == 200 && !strings.Contains(a.body, frontNode)
}

func TestAccessStatuses(t *testing.T) {
	d := newDocuments(t)
	d.manual("All", `"approvers":["bob"]`)
	actor := func(c identity.Credentials) grant.Actor {
		return grant.Actor{Principal: d.principal(c), Channel: "api"}
	}
	ctx := context.Background()
	for want, become := range map[string]func(id string){
		"Pending":  func(string) {},
		"Approved": d.approve,
		"Rejected": func(id string) {
			r, err := d.engine.Request(ctx, id)
			d.must(err)
			if a := d.signal(d.bob, r, "Reject"); a.code() != "" {
				t.Fatal(a.body)
			}
			// Who has decided may look at what they did.
			if a := d.json(d.bob, "AmazonSSM.GetOpsItem", map[string]any{"OpsItemId": id}); a.code() != "" {
				t.Error(a.body)
			}
		},
		"Revoked": func(id string) {
			d.approve(id)
			r, err := d.engine.Request(ctx, id)
			d.must(err)
			if a := d.signal(d.bob, r, "Revoke"); a.code() != "" {
				t.Fatal(a.body)
			}
		},
	} {
		id := d.ask(d.carol, frontNode)
		become(id)
		if got, cred := d.token(d.carol, id); got != want || (cred.AccessKeyID != "") != (want == "Approved") {
			t.Errorf("got %s with key %q, want %s", got, cred.AccessKeyID, want)
		}
	}
	id := d.ask(d.carol, frontNode)
	_, err := d.engine.Cancel(ctx, actor(d.carol), id)
	d.must(err)
	if got, _ := d.token(d.carol, id); got != "Revoked" {
		t.Errorf("cancelled: got %s, want Revoked", got)
	}
}

// Attacks.

func TestSomebodyElsesToken(t *testing.T) {
	d := newDocuments(t)
	d.manual("All", `"approvers":["bob"]`)
	id := d.ask(d.carol, frontNode)
	d.approve(id)
	// Even whom policy allows everything, and who approved it.
	for _, other := range []identity.Credentials{d.bob, d.admin} {
		if got, cred := d.token(other, id); got != "AccessDeniedException" || cred.AccessKeyID != "" {
			t.Errorf("got %s", got)
		}
	}
	refused := d.last(audit.EventDecision, "ssm:GetAccessToken")
	if refused.Error == "" || !strings.Contains(refused.Reason, "somebody else's") {
		t.Errorf("the refusal is not in the audit log: %+v", refused)
	}
	// A user made anew under the name is somebody else, too.
	ctx := context.Background()
	d.must(d.store.RemoveMember(ctx, "support", "carol"))
	d.must(d.store.DeleteAccessKey(ctx, "carol", d.carol.AccessKeyID))
	d.must(d.store.DeleteUser(ctx, "carol"))
	if got, _ := d.token(d.user("carol", nil), id); got != "AccessDeniedException" {
		t.Errorf("a new carol: got %s", got)
	}
}

func TestTokenAfterRevocation(t *testing.T) {
	d := newDocuments(t)
	d.manual("All", `"approvers":["bob"]`)
	id, other := d.ask(d.carol, frontNode), d.ask(d.carol, frontNode)
	d.approve(id)
	d.approve(other)
	_, cred := d.token(d.carol, id)
	d.wantStart(cred, frontNode, "", "while it holds")
	r, err := d.engine.Request(context.Background(), id)
	d.must(err)
	if a := d.signal(d.bob, r, "Revoke"); a.code() != "" {
		t.Fatal(a.body)
	}
	// Another grant of the same node does not keep this one's token alive.
	d.wantStart(cred, frontNode, "ExpiredTokenException", "once it is revoked")
	_, cred = d.token(d.carol, other)
	d.wantStart(cred, frontNode, "", "with the other's token")
}

func TestDocumentThatApprovesItsAuthor(t *testing.T) {
	d := newDocuments(t)
	d.manual("Mine", `"approvers":["admin"]`)
	id := d.ask(d.admin, frontNode)
	r, err := d.engine.Request(context.Background(), id)
	d.must(err)
	if a := d.signal(d.admin, r, "Approve"); a.code() != "AccessDeniedException" {
		t.Errorf("got %d %s", a.status, a.body)
	}
	// Who may make documents of sessions does not thereby make such.
	writer := d.user("writer", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:*","Resource":"*"}]}`)
	for name, content := range map[string]string{
		"Other":               `{"schemaVersion":"1.0","accessDuration":1,"targets":[{"Key":"tag:Env","Values":["Dev"]}],"approvers":["bob"]}`,
		document.AutoApproval: `permit(principal, action, resource);`,
	} {
		kind := document.TypeManualApproval
		if name == document.AutoApproval {
			kind = document.TypeAutoApproval
		}
		a := d.json(writer, "AmazonSSM.CreateDocument", map[string]any{"Name": name, "DocumentType": kind, "Content": content})
		if a.code() != "AccessDeniedException" || !strings.Contains(a.message(), "sallyport:PutFlows") {
			t.Errorf("%s: got %d %s", name, a.status, a.body)
		}
	}
	for operation, in := range map[string]any{
		"UpdateDocument":               map[string]any{"Name": "Mine", "Content": `{"schemaVersion":"1.0","accessDuration":1,"approvers":["writer"]}`},
		"UpdateDocumentDefaultVersion": map[string]any{"Name": "Mine", "DocumentVersion": "1"},
		"DeleteDocument":               map[string]any{"Name": "Mine"},
	} {
		if a := d.json(writer, "AmazonSSM."+operation, in); a.code() != "AccessDeniedException" {
			t.Errorf("%s: got %d %s", operation, a.status, a.body)
		}
	}
}

// The condition key by which AWS tells documents apart.
func TestDocumentTypeKey(t *testing.T) {
	d := newDocuments(t)
	d.manual("Mine", `"approvers":["bob"]`)
	only := d.user("only", nil, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":["ssm:*Document*","sallyport:PutFlows"],"Resource":"*"},
		{"Effect":"Deny","Action":"ssm:*","Resource":"*","Condition":{"StringLike":{"ssm:DocumentType":"*ApprovalPolicy"}}}]}`)
	for operation, in := range map[string]any{
		"CreateDocument":               map[string]any{"Name": "New", "DocumentType": "ManualApprovalPolicy", "Content": "{}"},
		"UpdateDocument":               map[string]any{"Name": "Mine", "Content": "{}"},
		"UpdateDocumentDefaultVersion": map[string]any{"Name": "Mine", "DocumentVersion": "1"},
		"DeleteDocument":               map[string]any{"Name": "Mine"},
		"GetDocument":                  map[string]any{"Name": "Mine"},
		"DescribeDocument":             map[string]any{"Name": "Mine"},
	} {
		if a := d.json(only, "AmazonSSM."+operation, in); a.code() != "AccessDeniedException" || !strings.Contains(a.message(), "explicit deny") {
			t.Errorf("%s: got %d %s", operation, a.status, a.body)
		}
	}
	a := d.json(only, "AmazonSSM.CreateDocument", map[string]any{"Name": "Shell", "DocumentType": "Session", "Content": `{"schemaVersion":"1.0","sessionType":"Standard_Stream"}`})
	if a.code() != "" {
		t.Errorf("a session document: %s", a.body)
	}
}

// What targets select when asking is what is asked for: nodes that get the tag later are
// not among them.
func TestTargetListThatGrows(t *testing.T) {
	d := newDocuments(t)
	d.manual("Dev", `"targets":[{"Key":"tag:Env","Values":["Dev","Prod"]}],"approvers":["bob"]`)
	a := d.json(d.carol, "AmazonSSM.StartAccessRequest", map[string]any{"Reason": "deploy", "Targets": []map[string]any{{"Key": "tag:Env", "Values": []string{"Dev"}}}})
	var out map[string]string
	d.must(json.Unmarshal([]byte(a.body), &out))
	id := out["AccessRequestId"]
	d.approve(id)
	d.tag(backNode, identity.Tags{"Env": "Dev"})
	_, cred := d.token(d.carol, id)
	d.wantStart(cred, frontNode, "", "the node that was selected")
	d.wantStart(cred, backNode, "AccessDeniedException", "a node that got the tag later")
	d.wantStart(d.carol, backNode, "AccessDeniedException", "without the token, too")
}

func (d *documents) tag(id string, tags identity.Tags) {
	d.t.Helper()
	d.must(d.store.UpdateNode(context.Background(), id, func(n *node.Node) error { n.Tags = tags; return nil }))
}

// A node that loses the tags that it was asked for under is given no more.
func TestTagsChangedBetweenAskingAndUsing(t *testing.T) {
	d := newDocuments(t)
	d.manual("Dev", `"targets":[{"Key":"tag:Env","Values":["Dev"]}],"approvers":["bob"]`)
	id := d.ask(d.carol, frontNode)
	d.approve(id)
	_, cred := d.token(d.carol, id)
	d.wantStart(cred, frontNode, "", "with the tag")
	d.tag(frontNode, identity.Tags{"Env": "Prod"})
	d.wantStart(cred, frontNode, "AccessDeniedException", "without it")
	if status, cred := d.token(d.carol, id); cred.AccessKeyID != "" {
		t.Errorf("got another token: %s", status)
	}
}

// A token does not hand on more than its holder has: what narrows them narrows it, and
// it does not outlive what it was got with.
func TestTokenOfNarrowedCredentials(t *testing.T) {
	d := newDocuments(t)
	d.manual("All", `"approvers":["bob"]`)
	d.role("Ops", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:user/carol"},"Action":"sts:AssumeRole"}]}`)
	assume := func(more ...string) identity.Credentials {
		t.Helper()
		a := d.query(d.carol, "sts", "AssumeRole", append([]string{"RoleArn", "arn:aws:iam::111111111111:role/Ops", "RoleSessionName", "carol", "DurationSeconds", "900"}, more...)...)
		if a.code() != "" {
			t.Fatal(a.body)
		}
		return a.credentials()
	}
	id := d.ask(d.carol, frontNode)
	d.approve(id)
	role := assume()
	_, cred := d.token(role, id)
	d.wantStart(cred, frontNode, "", "got in a role")
	if left := cred.Expires.Sub(d.clock()); left > 15*time.Minute {
		t.Errorf("the token lives for %v, longer than the credentials it was got with", left)
	}
	narrow := assume("Policy", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:GetAccessToken","Resource":"*"}]}`)
	status, cred := d.token(narrow, id)
	if status != "Approved" {
		t.Fatalf("got %s", status)
	}
	d.wantStart(cred, frontNode, "AccessDeniedException", "got with a session policy that allows no sessions")
	none := assume("Policy", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*"}]}`)
	if status, _ := d.token(none, id); status != "AccessDeniedException" {
		t.Errorf("got with a session policy that leaves it out: %s", status)
	}
}

func TestExplicitDenyOfAsking(t *testing.T) {
	d := newDocuments(t)
	d.manual("All", `"approvers":["bob"]`)
	for _, action := range []string{"ssm:StartAccessRequest", "sallyport:RequestAccess"} {
		denied := d.user("d"+strings.ToLower(action[:3]), nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"`+action+`","Resource":"*"}]}`)
		if a := d.json(denied, "AmazonSSM.StartAccessRequest", onNodes(frontNode)); a.code() != "AccessDeniedException" {
			t.Errorf("%s: got %d %s", action, a.status, a.body)
		}
	}
}

// A request may be decided on by a signal about what was looked at only.
func TestForgedSignals(t *testing.T) {
	d := newDocuments(t)
	d.manual("All", `"approvers":["bob"]`)
	id := d.ask(d.carol, frontNode)
	r, err := d.engine.Request(context.Background(), id)
	d.must(err)
	other := r
	other.Hash = strings.Repeat("0", 64)
	if a := d.signal(d.bob, other, "Approve"); a.code() != "AutomationExecutionNotFoundException" {
		t.Errorf("another hash: got %d %s", a.status, a.body)
	}
	if a := d.signal(d.carol, r, "Approve"); a.code() != "AccessDeniedException" {
		t.Errorf("one's own: got %d %s", a.status, a.body)
	}
	if a := d.signal(d.admin, r, "Approve"); a.code() != "AccessDeniedException" {
		t.Errorf("an administrator who is no approver: got %d %s", a.status, a.body)
	}
	if a := d.signal(d.bob, r, "Resume"); a.code() != "InvalidAutomationSignalException" {
		t.Errorf("another signal: got %d %s", a.status, a.body)
	}
	if status, _ := d.token(d.carol, id); status != "Pending" {
		t.Errorf("got %s, want Pending still", status)
	}
}

func TestAccessRequestInput(t *testing.T) {
	d := newDocuments(t)
	d.manual("Dev", `"targets":[{"Key":"tag:Env","Values":["Dev"]}],"approvers":["bob"]`)
	target := func(key string, values ...string) map[string]any {
		return map[string]any{"Reason": "x", "Targets": []map[string]any{{"Key": key, "Values": values}}}
	}
	long := make([]map[string]any, 6)
	for i := range long {
		long[i] = map[string]any{"Key": "InstanceIds", "Values": []string{frontNode}}
	}
	for _, test := range []struct {
		name string
		in   map[string]any
		want string
	}{
		{"no reason", map[string]any{"Targets": target("InstanceIds", frontNode)["Targets"]}, "ValidationException"},
		{"a long reason", map[string]any{"Reason": strings.Repeat("x", 257), "Targets": target("InstanceIds", frontNode)["Targets"]}, "ValidationException"},
		{"a reason that paints the terminal", map[string]any{"Reason": "x\x1b[2Jy", "Targets": target("InstanceIds", frontNode)["Targets"]}, "ValidationException"},
		{"no targets", map[string]any{"Reason": "x", "Targets": []any{}}, "ValidationException"},
		{"six targets", map[string]any{"Reason": "x", "Targets": long}, "ValidationException"},
		{"another key", target("ResourceGroup", "x"), "ValidationException"},
		{"all nodes", target("InstanceIds", "*"), "ValidationException"},
		{"no such node", target("InstanceIds", "i-0123456789abcdef0"), "ResourceNotFoundException"},
		{"one of two", target("InstanceIds", frontNode, "i-0123456789abcdef0"), "ResourceNotFoundException"},
		{"no policy for it", target("InstanceIds", backNode), "ResourceNotFoundException"},
		{"no node has the tag", target("tag:Env", "Test"), "ResourceNotFoundException"},
		{"right", target("InstanceIds", frontNode), ""},
		{"right, by tag", target("tag:Env", "Dev"), ""},
	} {
		if a := d.json(d.carol, "AmazonSSM.StartAccessRequest", test.in); a.code() != test.want {
			t.Errorf("%s: got %q, want %q: %s", test.name, a.code(), test.want, a.body)
		}
	}
	if a := d.json(d.carol, "AmazonSSM.GetAccessToken", map[string]any{"AccessRequestId": "oi-12345"}); a.code() != "ValidationException" {
		t.Errorf("another id: got %s", a.code())
	}
	if status, _ := d.token(d.carol, "oi-000000000000"); status != "ResourceNotFoundException" {
		t.Errorf("no such request: got %s", status)
	}
}

func TestTooManyRequests(t *testing.T) {
	d := newDocuments(t)
	d.manual("All", `"approvers":["bob"]`)
	for range 20 {
		d.ask(d.carol, frontNode)
	}
	if a := d.json(d.carol, "AmazonSSM.StartAccessRequest", onNodes(frontNode)); a.code() != "ServiceQuotaExceededException" {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

// Auto-approval for one group, but not for one tag.
func TestAutomaticApproval(t *testing.T) {
	d := newDocuments(t)
	const action = `action == AWS::SSM::Action::"getTokenForInstanceAccess"`
	for name, text := range map[string]string{
		document.AutoApproval: `permit(principal in AWS::IdentityStore::Group::"support", ` + action + `, resource);`,
		document.DenyAccess:   `forbid(principal, ` + action + `, resource) when { resource.hasTag("Env") && resource.getTag("Env") == "Prod" };`,
	} {
		if a := d.create(name, document.TypeAutoApproval, text); a.code() != "" {
			t.Fatal(a.body)
		}
	}
	id := d.ask(d.carol, frontNode)
	status, cred := d.token(d.carol, id)
	if status != "Approved" || !cred.Expires.Equal(d.clock().Add(time.Hour)) {
		t.Errorf("got %s for %v, want Approved for an hour", status, cred.Expires.Sub(d.clock()))
	}
	d.wantStart(cred, frontNode, "", "approved automatically")
	for who, c := range map[string]identity.Credentials{"carol, in production": d.carol, "bob, who is not in the group": d.bob} {
		node := map[bool]string{true: backNode, false: frontNode}[strings.HasPrefix(who, "carol")]
		if a := d.json(c, "AmazonSSM.StartAccessRequest", onNodes(node)); a.code() != "ResourceNotFoundException" {
			t.Errorf("%s, without approvers: got %d %s", who, a.status, a.body)
		}
	}
	d.manual("All", `"approvers":["admin"]`)
	if status, _ := d.token(d.carol, d.ask(d.carol, backNode)); status != "Pending" {
		t.Errorf("in production people decide: got %s", status)
	}
	if status, _ := d.token(d.carol, d.ask(d.carol, frontNode, backNode)); status != "Pending" {
		t.Errorf("for both nodes people decide: got %s", status)
	}
	if status, _ := d.token(d.bob, d.ask(d.bob, frontNode)); status != "Pending" {
		t.Errorf("for others people decide: got %s", status)
	}
}

func TestTokenPolicyNamesNodesAndDocuments(t *testing.T) {
	d := newDocuments(t)
	d.manual("Dev", `"targets":[{"Key":"tag:Env","Values":["Dev","Prod"]}],"approvers":["bob"],"documents":["SSM-SessionManagerRunShell"]`)
	id := d.ask(d.carol, frontNode, backNode)
	d.approve(id)
	_, cred := d.token(d.carol, id)
	p := d.principal(cred)
	if len(p.SessionPolicies) != 1 || len(p.Granted) != 1 {
		t.Fatalf("got %+v", p)
	}
	var doc tokenDocument
	d.must(json.Unmarshal([]byte(p.SessionPolicies[0]), &doc))
	want := []string{
		"arn:aws:ssm:*:*:document/SSM-SessionManagerRunShell",
		"arn:aws:ec2:us-east-1:111111111111:instance/" + backNode, "arn:aws:ec2:us-east-1:111111111111:instance/" + frontNode,
	}
	got := slices.Clone(doc.Statement[1].NotResource)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("resources (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]identity.GrantedRole{{Grants: []string{id}}}, p.Granted); diff != "" {
		t.Errorf("ties (-want +got):\n%s", diff)
	}
}
