package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

// last returns the last record of an event about an action.
func (h *harness) last(event, action string) audit.Record {
	h.t.Helper()
	records, err := h.store.Audit(context.Background(), audit.Filter{Event: event, Action: action, Newest: true, Limit: 1})
	h.must(err)
	if len(records) == 0 {
		h.t.Fatalf("no %s record of %s", event, action)
	}
	return records[0]
}

// The audit log tells what was changed, and holds no secret and no whole document.
func TestAuditTellsWhatChanged(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	h.user("bob", nil)
	h.node(channelNode, nil)
	h.role("Ops", trustAccount, allowAll)
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:*","Resource":"*"}]}`
	document := `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"shellProfile":{"linux":"export TOKEN=hunter2"}}}`
	long := strings.Repeat("é", maxDetail)
	for _, test := range []struct {
		action string
		got    answer
		want   map[string]string
	}{
		{"iam:TagUser", h.query(admin, "iam", "TagUser", "UserName", "bob", "Tags.member.1.Key", "Team", "Tags.member.1.Value", "search"),
			map[string]string{"UserName": "bob", "Tags": `[{"Key":"Team","Value":"search"}]`}},
		{"iam:UntagUser", h.query(admin, "iam", "UntagUser", "UserName", "bob", "TagKeys.member.1", "Team"),
			map[string]string{"UserName": "bob", "TagKeys": `["Team"]`}},
		{"iam:CreateGroup", h.query(admin, "iam", "CreateGroup", "GroupName", "g"), map[string]string{"GroupName": "g"}},
		{"iam:AddUserToGroup", h.query(admin, "iam", "AddUserToGroup", "GroupName", "g", "UserName", "bob"),
			map[string]string{"GroupName": "g", "UserName": "bob"}},
		{"iam:PutUserPolicy", h.query(admin, "iam", "PutUserPolicy", "UserName", "bob", "PolicyName", "p", "PolicyDocument", policy),
			map[string]string{"UserName": "bob", "PolicyName": "p", "PolicyDocument": digestOf(policy)}},
		{"ssm:AddTagsToResource", h.json(admin, "AmazonSSM.AddTagsToResource", map[string]any{"ResourceType": "ManagedInstance", "ResourceId": channelNode,
			"Tags": []map[string]string{{"Key": "Team", "Value": "a, b"}}}),
			map[string]string{"ResourceType": "ManagedInstance", "ResourceId": channelNode, "Tags": `[{"Key":"Team","Value":"a, b"}]`}},
		{"ssm:CreateDocument", h.json(admin, "AmazonSSM.CreateDocument", map[string]any{"Name": "Doc", "DocumentType": "Session", "Content": document}),
			map[string]string{"Name": "Doc", "DocumentType": "Session", "Content": digestOf(document)}},
		{"ssm:StartSession", h.json(admin, "AmazonSSM.StartSession", map[string]any{"Target": channelNode, "Reason": "why",
			"DocumentName": "AWS-StartInteractiveCommand", "Parameters": map[string][]string{"command": {"login hunter2"}}}),
			map[string]string{"Target": channelNode, "Reason": "why", "DocumentName": "AWS-StartInteractiveCommand", "Parameters": `["command"]`}},
		{"ssm:TerminateSession", h.json(admin, "AmazonSSM.TerminateSession", map[string]any{"SessionId": "none-0a1b"}), map[string]string{"SessionId": "none-0a1b"}},
		{"sallyport:ExplainAccess", h.json(admin, "Sallyport.ExplainAccess", explainAccessInput{Action: "ssm:StartSession", Resource: long}),
			map[string]string{"Action": "ssm:StartSession", "Resource": long[:maxDetail] + fmt.Sprintf("… (cut from %d bytes)", len(long))}},
		{"sts:AssumeRole", h.query(admin, "sts", "AssumeRole", "RoleArn", "arn:aws:iam::111111111111:role/Ops", "RoleSessionName", "one", "ExternalId", "hunter2"),
			map[string]string{"RoleArn": "arn:aws:iam::111111111111:role/Ops", "RoleSessionName": "one"}},
	} {
		test.want["access_key_id"] = admin.AccessKeyID
		if diff := cmp.Diff(test.want, h.last(audit.EventDecision, test.action).Details); diff != "" {
			t.Errorf("%s (-want +got):\n%s\nthe answer was %d %s", test.action, diff, test.got.status, test.got.body)
		}
	}
	all, err := json.Marshal(h.audited(""))
	h.must(err)
	if strings.Contains(string(all), "hunter2") {
		t.Error("a secret is in the audit log")
	}
}

// Members that may be secret, or are whole documents, are marked.
func TestSecretsAreMarked(t *testing.T) {
	delicate := regexp.MustCompile(`(?i)secret|password|externalid|tokencode|activationcode|body$|^content$|document$|^policy$|publickey$`)
	names := []string{"ExplainAccess.Document", "SimulateAccess.Document"} // the names of some
	for _, o := range operations() {
		for _, f := range o.shape.fields {
			id := o.Name + "." + f.name
			if o.Caller != CallerAnonymous && !o.quiet && delicate.MatchString(f.name) && !f.rules.secret && !f.rules.digest && !slices.Contains(names, id) {
				t.Errorf("%s goes into the audit log as it is", id)
			}
		}
	}
}

// An activation's record has all the ids that it fixes, however many.
func TestAuditOfManyNodes(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	var metadata []map[string]string
	var ids []string
	for i := range 1000 {
		ids = append(ids, fmt.Sprintf("i-%017x", i+1))
	}
	for part := range slices.Chunk(ids, 100) {
		metadata = append(metadata, map[string]string{"Key": "NodeIds", "Value": strings.Join(part, " ")})
	}
	out := decodeInto[createActivationOutput](t, h.json(admin, "AmazonSSM.CreateActivation", map[string]any{
		"IamRole": "x", "RegistrationLimit": 1000, "RegistrationMetadata": metadata}))
	r := h.last(audit.EventDecision, "ssm:CreateActivation")
	if len(r.Resources) != 1000 || r.Resources[999] != testRealm.Node(ids[999]) {
		t.Errorf("got %d resources", len(r.Resources))
	}
	if got := h.last(audit.EventChange, "ssm:CreateActivation").Details["made"]; got != out.ActivationID {
		t.Errorf("got id %q, want %q", got, out.ActivationID)
	}
	if all, _ := json.Marshal(h.audited("")); strings.Contains(string(all), out.ActivationCode) {
		t.Error("the code is in the audit log")
	}
}

// What temporary credentials do can be traced to who got them, and to the user at the
// beginning of the chain.
func TestAuditOfTemporaryCredentials(t *testing.T) {
	h := newHarness(t)
	alice := h.user("alice", nil, allowAll)
	trust := strings.Replace(trustAccount, `"sts:TagSession"`, `"sts:TagSession","sts:SetSourceIdentity"`, 1)
	h.role("First", trust, allowAll)
	h.role("Second", trust, allowAll)
	first := h.assumed(alice, "First", "one", "SourceIdentity", "alice-smith")
	second := h.assumed(first, "Second", "two")
	issued := h.last(audit.EventChange, "sts:AssumeRole")
	owner := h.principal(alice)
	want := map[string]string{
		"issued_access_key_id": second.AccessKeyID, "access_key_id": first.AccessKeyID, "role_session_name": "two",
		"source_identity": "alice-smith", "root_id": owner.UserID, "expires": issued.Details["expires"],
	}
	if diff := cmp.Diff(want, issued.Details); diff != "" {
		t.Errorf("issuing (-want +got):\n%s", diff)
	}
	h.json(second, "Sallyport.QueryAudit", struct{}{})
	want = map[string]string{
		"access_key_id": second.AccessKeyID, "source": "arn:aws:sts::111111111111:assumed-role/First/one",
		"root": owner.ARN, "root_id": owner.UserID, "source_identity": "alice-smith",
	}
	if diff := cmp.Diff(want, h.last(audit.EventDecision, "sallyport:QueryAudit").Details); diff != "" {
		t.Errorf("using (-want +got):\n%s", diff)
	}
	token := h.query(alice, "sts", "GetSessionToken").credentials()
	if got := h.last(audit.EventChange, "sts:GetSessionToken").Details["issued_access_key_id"]; got != token.AccessKeyID {
		t.Errorf("GetSessionToken: got %q", got)
	}
	for _, secret := range []identity.Credentials{first, second, token} {
		if all, _ := json.Marshal(h.audited("")); strings.Contains(string(all), secret.SecretAccessKey) || strings.Contains(string(all), secret.SessionToken) {
			t.Error("a secret is in the audit log")
		}
	}
}

// A node's role token is recorded once in an hour.
func TestAuditOfRoleTokens(t *testing.T) {
	h := newHarness(t)
	m := h.agent()
	count := func() (n int) {
		for _, r := range h.audited(audit.EventNode) {
			if r.Reason == "credentials issued" {
				n++
			}
		}
		return n
	}
	for _, want := range []int{1, 1, 2} {
		got := h.rsaSigned(m, "AmazonSSM.RequestManagedInstanceRoleToken", wire.RequestManagedInstanceRoleToken{Fingerprint: m.fingerprint})
		if got.status != 200 || count() != want {
			t.Errorf("got %d %s and %d records, want %d", got.status, got.body, count(), want)
		}
		h.advance(31 * 60e9)
	}
}

// The audit log tells where forwards led, or would have, who sessions ran as and what.
func TestAuditTellsWhereSessionsLead(t *testing.T) {
	r := newRestricted(t)
	carol := r.user("carol", nil, forwardsOnly)
	const socket = "Sallyport-StartPortForwardingSessionToNodeSocket"
	for _, test := range []struct {
		name string
		who  identity.Credentials
		body string
		want map[string]string // of the decision on the start
		runs string            // in the record of the session's start
	}{
		{"a host", carol, `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["DB.Internal."],"portNumber":["5432"]}}`,
			map[string]string{"RemoteHost": "db.internal", "RemotePort": "5432"}, ""},
		{"an address", carol, `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["::ffff:10.0.0.7"]}}`,
			map[string]string{"RemoteHost": "10.0.0.7", "RemoteAddress": "10.0.0.7", "RemotePort": "80"}, ""},
		{"a refusal", carol, `{"Target":"OTHER","DocumentName":"FORWARD","Parameters":{"host":["db"]}}`,
			map[string]string{"RemoteHost": "db"}, ""},
		{"a socket", r.admin, `{"Target":"NODE","DocumentName":"` + socket + `","Parameters":{"unixSocket":["/run/docker.sock"]}}`,
			map[string]string{"RemoteSocket": "/run/docker.sock"}, ""},
		{"a login", r.admin, `{"Target":"NODE","RunAs":"root"}`, map[string]string{"RunAsUser": "root"}, ""},
		{"a command", r.admin, `{"Target":"NODE","DocumentName":"AWS-StartInteractiveCommand","Parameters":{"command":["uptime"]}}`,
			map[string]string{"RunAsUser": ""}, "uptime"},
	} {
		got := r.startSession(test.who, test.body)
		details := r.last(audit.EventDecision, "ssm:StartSession").Details
		for key, want := range test.want {
			if details[key] != want {
				t.Errorf("%s: got %s %q, want %q", test.name, key, details[key], want)
			}
		}
		if got.status != http.StatusOK {
			continue
		}
		if begun := r.last(audit.EventSessionStart, "").Details["command"]; begun != test.runs {
			t.Errorf("%s: got the command %q, want %q", test.name, begun, test.runs)
		}
	}
}
