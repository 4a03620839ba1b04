package access_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/policy"
	"sallyport.dev/store"
)

var realm = arn.Realm{Account: "111111111111", Region: "us-east-1"}

// bench is a Checker on a real store, whose records are kept.
type bench struct {
	*access.Checker
	t       testing.TB
	store   *store.Store
	records []audit.Record
	broken  error // what Append fails with
	grants  []policy.Source
}

func (b *bench) Append(_ context.Context, r audit.Record) (audit.Record, error) {
	if b.broken != nil {
		return r, b.broken
	}
	b.records = append(b.records, r)
	return r, nil
}

func (b *bench) Grants(context.Context, identity.Principal) ([]policy.Source, error) {
	return b.grants, nil
}

func newBench(t testing.TB) *bench {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := store.Open(context.Background(), "sqlite:"+filepath.Join(t.TempDir(), "state.db"), store.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b := &bench{t: t, store: s}
	b.Checker = access.New(access.Config{Store: s, Audit: b, Grants: b, Realm: realm, Now: time.Now, Logger: logger})
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) user(name string, policies ...string) identity.Principal {
	b.t.Helper()
	ctx := context.Background()
	b.must(b.store.CreateUser(ctx, identity.User{Name: name, ID: identity.NewUserID(), Path: "/", Created: time.Now()}))
	b.policies(identity.OwnerUser, name, policies...)
	a := realm.IAM("user", "/", name)
	return identity.Principal{Kind: identity.KindUser, ARN: a, PolicyARN: a, Name: name, UserID: "AIDA" + name}
}

func (b *bench) policies(kind identity.OwnerKind, name string, policies ...string) {
	b.t.Helper()
	for i, text := range policies {
		b.must(b.store.PutInlinePolicy(context.Background(), identity.InlinePolicy{
			Owner: identity.Owner{Kind: kind, Name: name}, Name: string(rune('a' + i)), Document: text}))
	}
}

func (b *bench) managed(name, text string) string {
	b.t.Helper()
	a := realm.IAM("policy", "/", name)
	b.must(b.store.CreatePolicy(context.Background(), identity.ManagedPolicy{
		ARN: a, Name: name, ID: identity.NewPolicyID(), Path: "/", DefaultVersion: "v1", Created: time.Now(), Updated: time.Now()}, text))
	return a
}

func (b *bench) role(name string) identity.Principal {
	b.t.Helper()
	b.must(b.store.CreateRole(context.Background(), identity.Role{Name: name, ID: identity.NewRoleID(), Path: "/", Created: time.Now(), MaxDuration: time.Hour}))
	return identity.Principal{Kind: identity.KindRole, Name: name, SessionName: "s", UserID: "AROA:s",
		ARN: realm.AssumedRole(name, "s"), PolicyARN: realm.IAM("role", "/", name), IssuedAt: time.Now()}
}

func statement(effect, action, resource string, condition ...string) string {
	s := `{"Version":"2012-10-17","Statement":[{"Effect":"` + effect + `","Action":"` + action + `","Resource":` + resource
	if len(condition) > 0 {
		s += `,"Condition":` + condition[0]
	}
	return s + "}]}"
}

const (
	nodeARN     = "arn:aws:ec2:us-east-1:111111111111:instance/i-060ee0879f3ec4eb7"
	shellARN    = "arn:aws:ssm:us-east-1:111111111111:document/SSM-SessionManagerRunShell"
	forwardARN  = "arn:aws:ssm:us-east-1::document/AWS-StartPortForwardingSession"
	anyNode     = `"arn:aws:ec2:*:*:instance/*"`
	checkTrue   = `{"BoolIfExists":{"ssm:SessionDocumentAccessCheck":"true"}}`
	checkFalse  = `{"Bool":{"ssm:SessionDocumentAccessCheck":"false"}}`
	samePayment = `{"StringEquals":{"ssm:resourceTag/Team":"payments"}}`
)

// The rule of ssm:StartSession: the node always, the document if it is named or if a
// statement asks for the check.
func TestStartSession(t *testing.T) {
	start, all := "ssm:StartSession", `"*"`
	forward := `["arn:aws:ec2:*:*:instance/*","` + forwardARN + `"]`
	shell := `["arn:aws:ec2:*:*:instance/*","` + shellARN + `"]`
	for _, test := range []struct {
		name     string
		policies []string
		document string // named; empty for the default one
		require  bool
		want     string // ARN that refuses, or empty
	}{
		{name: "everything, unnamed", policies: []string{statement("Allow", start, all)}},
		{name: "everything, named", policies: []string{statement("Allow", start, all)}, document: forwardARN},
		{name: "nodes only, unnamed: the default shell is not checked", policies: []string{statement("Allow", start, anyNode)}},
		{name: "nodes only, named", policies: []string{statement("Allow", start, anyNode)}, document: shellARN, want: shellARN},
		{name: "nodes only, unnamed, checked always", policies: []string{statement("Allow", start, anyNode)}, require: true, want: shellARN},
		{name: "forwarding only grants a shell where nothing asks for the check", policies: []string{statement("Allow", start, forward)}},
		{name: "forwarding only with the check: no shell", policies: []string{statement("Allow", start, forward, checkTrue)}, want: shellARN},
		{name: "forwarding only with the check: forwarding", policies: []string{statement("Allow", start, forward, checkTrue)}, document: forwardARN},
		{name: "the shell with the check, unnamed", policies: []string{statement("Allow", start, shell, checkTrue)}},
		{name: "the shell with the check, named", policies: []string{statement("Allow", start, shell, checkTrue)}, document: shellARN},
		{name: "a deny of unchecked sessions leaves checked ones",
			policies: []string{statement("Allow", start, shell), statement("Deny", start, all, checkFalse)}},
		{name: "a deny of unchecked sessions, without the document",
			policies: []string{statement("Allow", start, anyNode), statement("Deny", start, all, checkFalse)}, want: shellARN},
		{name: "node's tags stand for the document too", policies: []string{statement("Allow", start, all, samePayment)}, document: forwardARN},
		{name: "nothing for the node", policies: []string{statement("Allow", start, `"`+shellARN+`"`)}, want: nodeARN},
		{name: "no policy", want: nodeARN},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			q := access.Query{Principal: b.user("alice", test.policies...), Action: start}
			s := access.Start{
				Node:  access.Resource{ARN: nodeARN, Tags: identity.Tags{"Team": "payments"}},
				Named: test.document != "", RequireDocument: test.require,
				Document: access.Resource{ARN: test.document},
			}
			if test.document == "" {
				s.Document.ARN = shellARN
			}
			_, err := b.CheckStart(context.Background(), q, s)
			refusing := ""
			if denied := (*access.DeniedError)(nil); errors.As(err, &denied) {
				refusing = denied.Resource
			} else if err != nil {
				t.Fatal(err)
			}
			if refusing != test.want {
				t.Errorf("got refused by %q, want %q (%v)", refusing, test.want, err)
			}
			if len(b.records) != 1 {
				t.Errorf("got %d audit records, want 1", len(b.records))
			}
			e, err := b.ExplainStart(context.Background(), q, s)
			b.must(err)
			if e.Allowed != (test.want == "") || len(b.records) != 1 {
				t.Errorf("explained: allowed %v, %d records", e.Allowed, len(b.records))
			}
		})
	}
}

// Refusals are worded as AWS words them, for each kind of policy that refuses.
func TestWording(t *testing.T) {
	b := newBench(t)
	boundary := b.managed("limits", statement("Allow", "iam:*", `"*"`))
	denyAll := b.managed("nothing", statement("Deny", "*", `"*"`))
	all := b.user("all", statement("Allow", "*", `"*"`))
	none := b.user("none")
	deny := b.user("deny", statement("Allow", "*", `"*"`), statement("Deny", "ssm:*", `"*"`))
	with := func(p identity.Principal, change func(*identity.Principal)) identity.Principal {
		change(&p)
		return p
	}
	prefix := " is not authorized to perform: ssm:StartSession on resource: " + nodeARN + " "
	for _, test := range []struct {
		who  identity.Principal
		want string
	}{
		{none, "because no identity-based policy allows the ssm:StartSession action"},
		{deny, "with an explicit deny in an identity-based policy"},
		{with(all, func(p *identity.Principal) { p.Boundary = boundary }), "because no permissions boundary allows the ssm:StartSession action"},
		{with(all, func(p *identity.Principal) { p.Boundary = denyAll }), "with an explicit deny in a permissions boundary"},
		{with(all, func(p *identity.Principal) { p.Boundary = boundary + "-gone" }), "because no permissions boundary allows the ssm:StartSession action"},
		{with(all, func(p *identity.Principal) { p.SessionPolicies = []string{statement("Allow", "iam:*", `"*"`)} }), "because no session policy allows the ssm:StartSession action"},
		{with(all, func(p *identity.Principal) { p.SessionPolicies = []string{statement("Deny", "ssm:*", `"*"`)} }), "with an explicit deny in a session policy"},
		{with(all, func(p *identity.Principal) { p.SessionPolicyARNs = []string{boundary} }), "because no session policy allows the ssm:StartSession action"},
	} {
		_, err := b.Check(context.Background(), access.Query{
			Principal: test.who, Action: "ssm:StartSession", Resources: []access.Resource{{ARN: nodeARN}}})
		want := "User: " + test.who.ARN + prefix + test.want
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if last := b.records[len(b.records)-1]; last.Reason != want || last.Decision == "Allowed" {
			t.Errorf("recorded %+v", last)
		}
	}
}

// Policies come from everywhere they can stand, and a change counts at once.
func TestSources(t *testing.T) {
	ctx := context.Background()
	b := newBench(t)
	alice := b.user("alice")
	allow := func() bool {
		t.Helper()
		d, err := b.Decide(ctx, access.Query{Principal: alice, Action: "ssm:StartSession", Resources: []access.Resource{{ARN: nodeARN}}})
		b.must(err)
		return d.Allowed
	}
	expect := func(want bool, after string) {
		t.Helper()
		if got := allow(); got != want {
			t.Errorf("%s: allowed is %v, want %v", after, got, want)
		}
	}
	text := statement("Allow", "ssm:*", `"*"`)
	user, group := identity.Owner{Kind: identity.OwnerUser, Name: "alice"}, identity.Owner{Kind: identity.OwnerGroup, Name: "ops"}
	expect(false, "nothing")
	b.policies(identity.OwnerUser, "alice", text)
	expect(true, "inline policy of the user")
	b.must(b.store.DeleteInlinePolicy(ctx, user, "a"))
	expect(false, "inline policy removed")

	b.must(b.store.CreateGroup(ctx, identity.Group{Name: "ops", ID: identity.NewGroupID(), Path: "/", Created: time.Now()}))
	b.policies(identity.OwnerGroup, "ops", text)
	expect(false, "not in the group")
	b.must(b.store.AddMember(ctx, "ops", "alice"))
	expect(true, "inline policy of the group")
	b.must(b.store.DeleteInlinePolicy(ctx, group, "a"))

	managed := b.managed("m", text)
	b.must(b.store.AttachPolicy(ctx, group, managed, 10))
	expect(true, "policy attached to the group")
	v2, err := b.store.CreatePolicyVersion(ctx, managed, statement("Allow", "iam:*", `"*"`), time.Now(), true)
	b.must(err)
	expect(false, "another default version")
	b.must(b.store.SetDefaultPolicyVersion(ctx, managed, "v1"))
	expect(true, "the first version again ("+v2.ID+" before)")
	b.must(b.store.RemoveMember(ctx, "ops", "alice"))
	expect(false, "out of the group")
	b.must(b.store.AttachPolicy(ctx, user, managed, 10))
	expect(true, "policy attached to the user")
	b.must(b.store.DetachPolicy(ctx, user, managed))
	expect(false, "detached")

	doc, err := policy.Parse([]byte(text))
	b.must(err)
	b.grants = []policy.Source{{Kind: policy.Grant, Name: "grant 1", Document: doc}}
	expect(true, "a grant")
	b.grants = nil
	expect(false, "the grant is over")
}

// A policy in the store that cannot be read refuses everything, rather than being left
// out.
func TestUnreadablePolicyRefuses(t *testing.T) {
	b := newBench(t)
	alice := b.user("alice", statement("Allow", "*", `"*"`), `{"Version":`)
	_, err := b.Check(context.Background(), access.Query{Principal: alice, Action: "ssm:StartSession", Resources: []access.Resource{{ARN: nodeARN}}})
	if denied := (*access.DeniedError)(nil); err == nil || errors.As(err, &denied) {
		t.Errorf("got %v, want an error that is no decision", err)
	}
}

func TestNoResourceIsNoPermission(t *testing.T) {
	b := newBench(t)
	alice := b.user("alice", statement("Allow", "*", `"*"`))
	if _, err := b.Check(context.Background(), access.Query{Principal: alice, Action: "ssm:StartSession"}); err == nil {
		t.Error("a check of nothing passed")
	}
}

// One refused resource refuses all; the record names all of them.
func TestEveryResourceMustBeAllowed(t *testing.T) {
	b := newBench(t)
	alice := b.user("alice", statement("Allow", "*", `"`+nodeARN+`"`))
	_, err := b.Check(context.Background(), access.Query{Principal: alice, Action: "ssm:SendCommand",
		Resources: []access.Resource{{ARN: nodeARN}, {ARN: shellARN}}})
	if err == nil || !strings.Contains(err.Error(), shellARN) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{nodeARN, shellARN}, b.records[0].Resources); diff != "" {
		t.Errorf("recorded resources (-want +got):\n%s", diff)
	}
}

// Nothing is allowed without its record; quiet calls need none, refusals always do.
func TestAuditing(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	q := access.Query{Principal: b.user("alice", statement("Allow", "ssm:*", `"*"`)), Action: "ssm:StartSession",
		Resources: []access.Resource{{ARN: nodeARN}}, Quiet: true}
	if _, err := b.Check(ctx, q); err != nil || len(b.records) != 0 {
		t.Errorf("quiet: got %v, %d records", err, len(b.records))
	}
	q.Action = "iam:CreateUser"
	if _, err := b.Check(ctx, q); err == nil || len(b.records) != 1 {
		t.Errorf("quiet refusal: got %v, %d records", err, len(b.records))
	}
	q.Action, q.Quiet = "ssm:StartSession", false
	b.broken = errors.New("disk is full")
	d, err := b.Check(ctx, q)
	if err == nil || d.Allowed || !errors.Is(err, b.broken) {
		t.Errorf("without audit: got %+v, %v", d, err)
	}
}

func TestConditions(t *testing.T) {
	b := newBench(t)
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	origin := access.Origin{SourceIP: "192.0.2.7", UserAgent: "aws-cli/2", TLS: true, Time: at}
	user := b.user("alice")
	user.Tags = identity.Tags{"Team": "payments, search"}
	role := b.role("Ops")
	role.IssuedAt, role.MFA, role.MFAAt, role.SourceIdentity = at.Add(-time.Hour), true, at.Add(-time.Minute), "ann"
	node := access.Resource{ARN: nodeARN, Tags: identity.Tags{"Team": "payments"}, Context: map[string][]string{"x:y": {"z"}}}
	common := policy.Context{
		"aws:principalaccount": {"111111111111"}, "aws:sourceip": {"192.0.2.7"}, "aws:useragent": {"aws-cli/2"},
		"aws:securetransport": {"true"}, "aws:currenttime": {"2026-11-20T12:00:00Z"}, "aws:epochtime": {"1795176000"},
		"aws:requestedregion": {"us-east-1"},
	}
	for _, test := range []struct {
		name     string
		who      identity.Principal
		action   string
		resource access.Resource
		want     policy.Context
	}{
		{"a user with a long-lived key", user, "ssm:StartSession", node, policy.Context{
			"aws:principalarn": {user.ARN}, "aws:principaltype": {"User"}, "aws:userid": {user.UserID}, "aws:username": {"alice"},
			"aws:principaltag/team": {"payments", "search"}, "aws:resourceaccount": {"111111111111"}, "x:y": {"z"},
			"aws:resourcetag/team": {"payments"}, "ssm:resourcetag/team": {"payments"}, "ec2:resourcetag/team": {"payments"},
		}},
		{"a role session with a second factor", role, "iam:GetUser", access.Resource{ARN: "*"}, policy.Context{
			"aws:principalarn": {role.PolicyARN}, "aws:principaltype": {"AssumedRole"}, "aws:userid": {"AROA:s"},
			"aws:sourceidentity": {"ann"}, "aws:multifactorauthpresent": {"true"}, "aws:multifactorauthage": {"60"},
			"aws:tokenissuetime": {"2026-11-20T11:00:00Z"},
		}},
	} {
		for key, values := range common {
			test.want[key] = values
		}
		got := b.Conditions(access.Query{Principal: test.who, Action: test.action, Origin: origin}, test.resource)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// What is one's own needs no policy, but a deny counts.
func TestOwn(t *testing.T) {
	b := newBench(t)
	limited := b.user("limited")
	limited.SessionPolicies = []string{statement("Allow", "iam:*", `"*"`)}
	for _, test := range []struct {
		who  identity.Principal
		want bool
	}{
		{b.user("none"), true},
		{b.user("denied", statement("Deny", "ssm:TerminateSession", `"*"`)), false},
		{limited, false},
	} {
		_, err := b.CheckOwn(context.Background(), access.Query{Principal: test.who, Action: "ssm:TerminateSession", Resources: []access.Resource{{ARN: "*"}}})
		if (err == nil) != test.want {
			t.Errorf("%s: got %v, want allowed %v", test.who.Name, err, test.want)
		}
	}
}

// Who is trusted by name needs no policy, but their boundary and session policies and
// an explicit deny still refuse; who is trusted by account needs one.
func TestAssume(t *testing.T) {
	b := newBench(t)
	const role = "arn:aws:iam::111111111111:role/Ops"
	trusting := func(principal string) *policy.Document {
		d, err := policy.ParseTrust([]byte(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + principal + `"},"Action":"sts:AssumeRole"}]}`))
		b.must(err)
		return d
	}
	none := b.user("none")
	bounded, session := none, none
	bounded.Boundary = b.managed("limits", statement("Allow", "iam:*", `"*"`))
	session.SessionPolicies = []string{statement("Allow", "iam:*", `"*"`)}
	chained := b.role("First")
	const account = "arn:aws:iam::111111111111:root"
	for _, test := range []struct {
		name  string
		who   identity.Principal
		trust string
		want  string // end of the refusal
	}{
		{"by name", none, none.ARN, ""},
		{"by everyone", none, "*", ""},
		{"by name, within a boundary that leaves it out", bounded, none.ARN, "because no permissions boundary allows the sts:AssumeRole action"},
		{"by name, with a session policy that leaves it out", session, none.ARN, "because no session policy allows the sts:AssumeRole action"},
		{"by name, with a deny", b.user("denied", statement("Deny", "sts:*", `"*"`)), "arn:aws:iam::111111111111:user/denied", "with an explicit deny in an identity-based policy"},
		{"by account, without a policy", none, account, "because no identity-based policy allows the sts:AssumeRole action"},
		{"by account, with a policy", b.user("allowed", statement("Allow", "sts:*", `"*"`)), account, ""},
		{"another user", none, "arn:aws:iam::111111111111:user/denied", "because no trust policy allows the sts:AssumeRole action"},
		{"a session by its role", chained, chained.PolicyARN, ""},
		{"a session by its own ARN", chained, chained.ARN, ""},
	} {
		_, err := b.CheckAssume(context.Background(), access.Query{Principal: test.who, Action: "sts:AssumeRole",
			Resources: []access.Resource{{ARN: role}}}, trusting(test.trust))
		got := ""
		if err != nil {
			got = strings.TrimPrefix(err.Error(), "User: "+test.who.ARN+" is not authorized to perform: sts:AssumeRole on resource: "+role+" ")
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	bench := newBench(b)
	q := access.Query{Principal: bench.user("alice", statement("Allow", "ssm:*", `"*"`)), Action: "ssm:StartSession",
		Resources: []access.Resource{{ARN: nodeARN}}, NoAudit: true}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bench.Check(context.Background(), q); err != nil {
			b.Fatal(err)
		}
	}
}
