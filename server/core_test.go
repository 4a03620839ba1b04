package server

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

func TestGetCallerIdentityNeedsNoPermission(t *testing.T) {
	h := newHarness(t)
	alice := h.user("alice", nil)
	got := h.query(alice, "sts", "GetCallerIdentity")
	if got.status != 200 || got.element("Arn") != "arn:aws:iam::111111111111:user/alice" || got.element("Account") != "111111111111" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if got.header.Get("X-Amzn-Requestid") == "" || got.header.Get("X-Amzn-Requestid") != got.element("RequestId") {
		t.Errorf("request ids: header %q, body %q", got.header.Get("X-Amzn-Requestid"), got.element("RequestId"))
	}
}

// Every row of the table has an action, and refuses a caller without policies, which
// is recorded, unless it is one of those that everybody may do.
func TestEveryOperationIsAuthorised(t *testing.T) {
	exempt := map[string]bool{
		"sts:GetCallerIdentity": true, "sts:GetSessionToken": true, "sallyport:GetStatus": true,
		"sallyport:ListSessions": true,                                       // one's own
		"sallyport:ListFlows":    true, "sallyport:ListAccessRequests": true, // likewise
		"sallyport:GetChatCode": true, "sallyport:LinkChat": true, "sallyport:ListChatLinks": true,
		// Documents and flows say who may ask and decide; one's own token (TestSomebodyElsesToken).
		"ssm:StartAccessRequest": true, "ssm:GetAccessToken": true, "ssm:GetOpsItem": true, "ssm:SendAutomationSignal": true,
		"sallyport:GetSSHAuthorities": true, "sallyport:IssueSSHCertificate": true, // of one's own key
		"sallyport:ListRecordings": true, // shows what may be listed (TestListRecordings)
		"sallyport:SearchSessions": true, // finds what sallyport:GetRecording allows (TestSearchSessions)
		// One's own: roles, factors and password (TestStolenKey, TestStepUp, TestFirstFactorBesidePassword).
		"sallyport:ListAssumableRoles": true,
		"sallyport:AddFactor":          true, "sallyport:EnableFactor": true, "sallyport:ChangePassword": true, "sallyport:StepUp": true,
	}
	h, _ := withAccess(t, withKeeper, withSignIns)
	nobody := h.user("nobody", nil)
	for service, operations := range h.server.table.operations {
		for name, o := range operations {
			id := service + ":" + name
			if o.Action == "" || !strings.Contains(o.Action, ":") {
				t.Errorf("%s: action %q", id, o.Action)
			}
			if known, _ := policy.KnownAction(o.Action); !known {
				t.Errorf("%s: policy lint and why do not know the action %s", id, o.Action)
			}
			if o.Caller == CallerAnonymous || exempt[id] {
				continue
			}
			if o.Caller == CallerIdentity {
				t.Errorf("%s needs no permission and is not among the exceptions of this test", id)
			}
			h.advance(time.Minute) // more refusals in a minute are counted
			before := len(h.audited(audit.EventDecision))
			c := &Call{Server: h.server, Operation: o, Host: "test"}
			c.Origin.Time = h.clock()
			var err error
			proof := identity.Proof{AccessKeyID: nobody.AccessKeyID, Key: &identity.AccessKey{ID: nobody.AccessKeyID, User: "nobody"}}
			c.Principal, err = h.server.resolver.Resolve(context.Background(), proof)
			h.must(err)
			in := sample(o)
			err = c.authorize(context.Background(), in)
			if err == nil && o.selfCheck {
				_, err = o.run(context.Background(), c, in)
			}
			if e, _ := h.server.table.services[service].exception(err); err == nil || !strings.Contains(e.Error(), "is not authorized to perform") {
				t.Errorf("%s: got %v, want a refusal", id, err)
				continue
			}
			if after := len(h.audited(audit.EventDecision)); after == before {
				t.Errorf("%s: the refusal was not recorded", id)
			}
		}
	}
}

// sample makes an input whose strings name things that do not exist.
func sample(o *Operation) any {
	in := o.input()
	tree := map[string]any{}
	for _, f := range o.shape.fields {
		if f.shape.kind == kindString && len(f.rules.enum) == 0 && !slices.Contains([]string{"NextToken", "Principal", "Marker", "SerialNumber", "TokenCode"}, f.name) {
			tree[f.name] = "i-00000000000000000"
		}
	}
	if _, ok := tree["RoleArn"]; ok {
		tree["RoleArn"] = "arn:aws:iam::111111111111:role/none"
	}
	if o.Name == "ExplainAccess" {
		tree["Principal"] = "someone-else"
	}
	b := &binder{}
	_ = b.bind(reflect.ValueOf(in).Elem(), o.shape, tree, "")
	return in
}

func TestRefusalsAreWordedAsAWSDoes(t *testing.T) {
	h := newHarness(t)
	h.node("i-060ee0879f3ec4eb7", identity.Tags{"Team": "payments"})
	const allowTagged = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sallyport:*"],"Resource":"*"},
		{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"}}}]}`
	alice := h.user("alice", identity.Tags{"Team": "payments"}, allowTagged)
	bob := h.user("bob", identity.Tags{"Team": "search"}, allowTagged)
	for _, test := range []struct {
		who  identity.Credentials
		name string
		may  bool
		why  string
	}{
		{alice, "alice", true, ""},
		{bob, "bob", false, "User: arn:aws:iam::111111111111:user/bob is not authorized to perform: ssm:StartSession on resource: " +
			"arn:aws:ec2:us-east-1:111111111111:instance/i-060ee0879f3ec4eb7 because no identity-based policy allows the ssm:StartSession action"},
	} {
		var out struct{ Nodes []listedNode }
		got := h.json(test.who, "Sallyport.ListNodes", struct{}{})
		h.must(json.Unmarshal([]byte(got.body), &out))
		if len(out.Nodes) != 1 || out.Nodes[0].MayConnect != test.may || out.Nodes[0].Reason != test.why {
			t.Errorf("%s: got %s", test.name, got.body)
		}
	}
}

// Without the right to list, people see the nodes that they may connect to, or are
// refused if there are none.
func TestNodesAreListedByWhatOneMayConnectTo(t *testing.T) {
	h := newHarness(t)
	h.node("i-060ee0879f3ec4eb7", identity.Tags{"Team": "payments"})
	h.node("i-05b7516a19f826be9", identity.Tags{"Team": "search"})
	const tagged = `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"}}}]}`
	alice := h.user("alice", identity.Tags{"Team": "payments"}, tagged)
	eve := h.user("eve", identity.Tags{"Team": "none"}, tagged)
	var out struct{ Nodes []listedNode }
	h.must(json.Unmarshal([]byte(h.json(alice, "Sallyport.ListNodes", struct{}{}).body), &out))
	if len(out.Nodes) != 1 || out.Nodes[0].NodeID != "i-060ee0879f3ec4eb7" {
		t.Errorf("alice: got %v", out.Nodes)
	}
	if got := h.json(eve, "Sallyport.ListNodes", struct{}{}); got.code() != "AccessDeniedException" {
		t.Errorf("eve: got %d %s", got.status, got.body)
	}
}

// Who may forward, but start no shell, is told that there is some session to start.
func TestNodesTellOfOtherSessions(t *testing.T) {
	h := newHarness(t)
	h.node("i-060ee0879f3ec4eb7", identity.Tags{"Team": "payments"})
	const forwards = `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"sallyport:ListNodes","Resource":"*"},
		{"Effect":"Allow","Action":"ssm:StartSession","Resource":["arn:aws:ec2:*:*:instance/*","arn:aws:ssm:*:*:document/AWS-StartPortForwardingSession"],
		"Condition":{"BoolIfExists":{"ssm:SessionDocumentAccessCheck":"true"}}}]}`
	const lists = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sallyport:ListNodes","Resource":"*"}]}`
	for name, test := range map[string]struct {
		policy         string
		connect, start bool
	}{
		"all":      {allowAll, true, true},
		"forwards": {forwards, false, true},
		"lists":    {lists, false, false},
	} {
		var out struct{ Nodes []listedNode }
		got := h.json(h.user(name, nil, test.policy), "Sallyport.ListNodes", struct{}{})
		h.must(json.Unmarshal([]byte(got.body), &out))
		if len(out.Nodes) != 1 || out.Nodes[0].MayConnect != test.connect || out.Nodes[0].MayStart != test.start {
			t.Errorf("%s: got %s", name, got.body)
		}
	}
}

const trustAccount = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:root"},"Action":["sts:AssumeRole","sts:TagSession"]}]}`

func TestAssumeRole(t *testing.T) {
	const mayAssume = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"arn:aws:iam::111111111111:role/*"}]}`
	const mayTag = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sts:AssumeRole","sts:TagSession"],"Resource":"*"}]}`
	const trustAlice = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:user/alice"},"Action":"sts:AssumeRole",
		"Condition":{"StringEquals":{"sts:ExternalId":"blue"}}}]}`
	const denyAssume = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"sts:AssumeRole","Resource":"*"}]}`
	for _, test := range []struct {
		name     string
		trust    string
		policies []string
		fields   []string
		code     string
		message  string // part of it
	}{
		{name: "the account is trusted and the caller's policy allows", trust: trustAccount, policies: []string{mayAssume}},
		{name: "the account is trusted and no policy allows", trust: trustAccount, code: "AccessDenied",
			message: "is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::111111111111:role/Ops because no identity-based policy allows the sts:AssumeRole action"},
		{name: "the caller is trusted by name", trust: trustAlice, fields: []string{"ExternalId", "blue"}},
		{name: "trusted under a condition that does not hold", trust: trustAlice, policies: []string{allowAll}, code: "AccessDenied",
			message: "because no trust policy allows the sts:AssumeRole action"},
		{name: "trusted by name, denied by policy", trust: trustAlice, policies: []string{denyAssume}, fields: []string{"ExternalId", "blue"},
			code: "AccessDenied", message: "with an explicit deny in an identity-based policy"},
		{name: "no such role", trust: trustAccount, policies: []string{allowAll}, fields: []string{"RoleArn", "arn:aws:iam::111111111111:role/Nope"},
			code: "AccessDenied", message: "role/Nope because no trust policy allows"},
		{name: "a role of another account", trust: trustAccount, policies: []string{allowAll}, fields: []string{"RoleArn", "arn:aws:iam::222222222222:role/Ops"},
			code: "AccessDenied"},
		{name: "tags without sts:TagSession", trust: trustAccount, policies: []string{mayAssume},
			fields: []string{"Tags.member.1.Key", "Team", "Tags.member.1.Value", "red"}, code: "AccessDenied", message: "sts:TagSession"},
		{name: "tags", trust: trustAccount, policies: []string{mayTag}, fields: []string{"Tags.member.1.Key", "Team", "Tags.member.1.Value", "red"}},
		{name: "a tag given twice", trust: trustAccount, policies: []string{mayTag},
			fields: []string{"Tags.member.1.Key", "Team", "Tags.member.1.Value", "red", "Tags.member.2.Key", "team", "Tags.member.2.Value", "blue"}, code: "InvalidParameterValue"},
		{name: "a tag with several values", trust: trustAccount, policies: []string{mayTag},
			fields: []string{"Tags.member.1.Key", "Team", "Tags.member.1.Value", "red,blue"}, code: "ValidationError", message: "regular expression"},
		{name: "a reserved tag", trust: trustAccount, policies: []string{mayTag},
			fields: []string{"Tags.member.1.Key", "aws:x", "Tags.member.1.Value", "y"}, code: "InvalidParameterValue", message: "reserved"},
		{name: "longer than the role allows", trust: trustAccount, policies: []string{mayAssume}, fields: []string{"DurationSeconds", "7201"},
			code: "ValidationError", message: "MaxSessionDuration"},
		{name: "longer than anything", trust: trustAccount, policies: []string{mayAssume}, fields: []string{"DurationSeconds", "43201"},
			code: "ValidationError", message: "Value '43201' at 'durationSeconds' failed to satisfy constraint: Member must have value less than or equal to 43200"},
		{name: "a session name with a slash", trust: trustAccount, policies: []string{mayAssume}, fields: []string{"RoleSessionName", "a/../b"},
			code: "ValidationError", message: "'roleSessionName'"},
		{name: "a malformed session policy", trust: trustAccount, policies: []string{mayAssume}, fields: []string{"Policy", "{\n \"Version\""},
			code: "MalformedPolicyDocument", message: "line 2"},
		{name: "a session policy that does not exist", trust: trustAccount, policies: []string{mayAssume},
			fields: []string{"PolicyArns.member.1.arn", "arn:aws:iam::111111111111:policy/none"}, code: "InvalidParameterValue"},
		{name: "a second factor", trust: trustAccount, policies: []string{mayAssume},
			fields: []string{"SerialNumber", "arn:aws:iam::111111111111:mfa/alice", "TokenCode", "123456"}, code: "AccessDenied", message: "verify your MFA serial number"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHarness(t)
			alice := h.user("alice", nil, test.policies...)
			h.role("Ops", test.trust)
			got := h.query(alice, "sts", "AssumeRole", append([]string{
				"RoleArn", "arn:aws:iam::111111111111:role/Ops", "RoleSessionName", "deploy"}, test.fields...)...)
			if got.code() != test.code || !strings.Contains(got.message(), test.message) {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			if test.code != "" {
				return
			}
			who := h.query(got.credentials(), "sts", "GetCallerIdentity")
			if want := "arn:aws:sts::111111111111:assumed-role/Ops/deploy"; who.element("Arn") != want {
				t.Errorf("got %s, want %s", who.body, want)
			}
		})
	}
}

// Temporary credentials end with their time, their role, and their user.
func TestTemporaryCredentialsEnd(t *testing.T) {
	h := newHarness(t)
	alice := h.user("alice", nil, allowAll)
	h.role("Ops", trustAccount, allowAll)
	assume := func(fields ...string) identity.Credentials {
		return h.query(alice, "sts", "AssumeRole", append([]string{
			"RoleArn", "arn:aws:iam::111111111111:role/Ops", "RoleSessionName", "deploy"}, fields...)...).credentials()
	}
	session := assume("DurationSeconds", "900")
	token := h.query(alice, "sts", "GetSessionToken", "DurationSeconds", "3600").credentials()
	for _, c := range []identity.Credentials{session, token} {
		if got := h.query(c, "sts", "GetCallerIdentity"); got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
	h.advance(901 * time.Second)
	if got := h.query(session, "sts", "GetCallerIdentity"); got.code() != "ExpiredToken" || got.status != 403 {
		t.Errorf("expired: got %d %s", got.status, got.body)
	}
	if got := h.json(session, "Sallyport.GetStatus", struct{}{}); got.code() != "ExpiredTokenException" {
		t.Errorf("expired: got %d %s", got.status, got.body)
	}

	session = assume()
	h.must(h.store.DeleteInlinePolicy(context.Background(), identity.Owner{Kind: identity.OwnerRole, Name: "Ops"}, "p0"))
	h.must(h.store.DeleteRole(context.Background(), "Ops"))
	h.role("Ops", trustAccount, allowAll) // made anew: the old session is not its
	if got := h.query(session, "sts", "GetCallerIdentity"); got.code() != "InvalidClientTokenId" {
		t.Errorf("role made anew: got %d %s", got.status, got.body)
	}

	admin := h.user("admin", nil, allowAll)
	session = assume()
	if got := h.json(admin, "Sallyport.DisableUser", userInput{UserName: "alice"}); got.status != 200 {
		t.Fatalf("disabling: got %d %s", got.status, got.body)
	}
	for name, c := range map[string]identity.Credentials{"key": alice, "session token": token, "role": session} {
		if got := h.query(c, "sts", "GetCallerIdentity"); got.code() != "InvalidClientTokenId" {
			t.Errorf("%s of a disabled user: got %d %s", name, got.status, got.body)
		}
	}
	if got := h.json(admin, "Sallyport.DisableUser", userInput{UserName: "admin"}); got.code() != "ValidationException" {
		t.Errorf("disabling oneself: got %d %s", got.status, got.body)
	}
	if got := h.json(admin, "Sallyport.EnableUser", userInput{UserName: "alice"}); got.status != 200 {
		t.Fatalf("enabling: got %d %s", got.status, got.body)
	}
	if got := h.query(alice, "sts", "GetCallerIdentity"); got.status != 200 {
		t.Errorf("enabled again: got %d %s", got.status, got.body)
	}
}

// Transitive tags pass along a chain and cannot be changed in it; a chained session
// lives an hour at most.
func TestRoleChains(t *testing.T) {
	h := newHarness(t)
	alice := h.user("alice", nil, allowAll)
	h.role("First", trustAccount, allowAll)
	h.role("Second", trustAccount, allowAll)
	assume := func(c identity.Credentials, role string, fields ...string) answer {
		return h.query(c, "sts", "AssumeRole", append([]string{
			"RoleArn", "arn:aws:iam::111111111111:role/" + role, "RoleSessionName", "deploy"}, fields...)...)
	}
	first := assume(alice, "First", "Tags.member.1.Key", "Team", "Tags.member.1.Value", "red",
		"Tags.member.2.Key", "Local", "Tags.member.2.Value", "x", "TransitiveTagKeys.member.1", "Team")
	if first.status != 200 {
		t.Fatalf("got %d %s", first.status, first.body)
	}
	second := assume(first.credentials(), "Second")
	if second.status != 200 {
		t.Fatalf("got %d %s", second.status, second.body)
	}
	p := h.principal(second.credentials())
	if diff := cmp.Diff(identity.Tags{"Team": "red"}, p.SessionTags); diff != "" {
		t.Errorf("tags of the second session (-want +got):\n%s", diff)
	}
	if got := assume(first.credentials(), "Second", "Tags.member.1.Key", "team", "Tags.member.1.Value", "blue"); got.code() != "InvalidParameterValue" {
		t.Errorf("changing a transitive tag: got %d %s", got.status, got.body)
	}
	if got := assume(first.credentials(), "Second", "DurationSeconds", "3601"); got.code() != "ValidationError" {
		t.Errorf("a long chained session: got %d %s", got.status, got.body)
	}
	if got := h.query(first.credentials(), "sts", "GetSessionToken"); got.code() != "AccessDenied" {
		t.Errorf("GetSessionToken with a role session: got %d %s", got.status, got.body)
	}
}

// principal resolves credentials as a request signed with them would.
func (h *harness) principal(c identity.Credentials) identity.Principal {
	h.t.Helper()
	r := h.signedFor(c, "sts", h.queryRequest("GetCallerIdentity"))
	body := "Action=GetCallerIdentity&Version=2011-06-15"
	r.Host = r.URL.Host
	proof, err := h.server.verifier.Verify(context.Background(), r, []byte(body))
	h.must(err)
	p, err := h.server.resolver.Resolve(context.Background(), proof)
	h.must(err)
	return p
}

// A session policy narrows what the role may do.
func TestSessionPolicyNarrows(t *testing.T) {
	h := newHarness(t)
	alice := h.user("alice", nil, allowAll)
	h.role("Ops", trustAccount, allowAll)
	got := h.query(alice, "sts", "AssumeRole", "RoleArn", "arn:aws:iam::111111111111:role/Ops", "RoleSessionName", "deploy",
		"Policy", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sallyport:ListNodes","Resource":"*"}]}`)
	c := got.credentials()
	if got := h.json(c, "Sallyport.ListNodes", struct{}{}); got.status != 200 {
		t.Errorf("allowed by the session policy: got %d %s", got.status, got.body)
	}
	got = h.json(c, "Sallyport.QueryAudit", struct{}{})
	if got.code() != "AccessDeniedException" || !strings.HasSuffix(got.message(), "because no session policy allows the sallyport:QueryAudit action") {
		t.Errorf("left out by the session policy: got %d %s", got.status, got.body)
	}
}
