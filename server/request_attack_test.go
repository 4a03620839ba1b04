package server

import (
	"context"
	"testing"

	"sallyport.dev/identity"
)

// The web is a way that the server vouches for; a caller does not name it.
func TestClaimedChannel(t *testing.T) {
	a := newAsking(t)
	if r := a.call(a.carol, "RequestAccess", requestAccessInput{Flow: "front", Reason: "ticket", Channel: "web"}); r.Channel != "cli" {
		t.Errorf("got channel %s", r.Channel)
	}
}

// A document's name that is none is answered alike, whether there is the node or not.
func TestListFlowsTellsOfNoNode(t *testing.T) {
	a := newAsking(t)
	ask := func(node string) answer {
		return a.json(a.eve, "Sallyport.ListFlows", listFlowsInput{NodeID: node, Document: "arn:aws:ssm:us-east-1:222222222222:document/x"})
	}
	if there, none := ask("i-05b7516a19f826be9"), ask("i-00000000000000000"); there.code() != none.code() || there.message() != none.message() {
		t.Errorf("got %s for a node that there is, %s for none", there.body, none.body)
	}
}

// What AWS's commands ask of policies knows whether the call came by TLS, as all others do.
func TestSignalByPlainHTTP(t *testing.T) {
	d := newDocuments(t)
	d.manual("All", `"approvers":["bob"]`)
	d.inline(identity.Owner{Kind: identity.OwnerUser, Name: "bob"}, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Deny","Action":"sallyport:ApproveRequest","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}`)
	r, err := d.engine.Request(context.Background(), d.ask(d.carol, frontNode))
	d.must(err)
	if a := d.signal(d.bob, r, "Approve"); a.code() != "AccessDeniedException" {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

// A grant gives a node, a role a login: the two do not mix.
func TestLoginOfARoleOnGrantedNodes(t *testing.T) {
	const front = "i-060ee0879f3ec4eb7"
	a := newAsking(t)
	ctx := context.Background()
	a.role("DBA", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::111111111111:user/carol"}}]}`)
	a.must(a.store.UpdateRole(ctx, "DBA", func(r *identity.Role) error {
		r.Tags = identity.Tags{runAsTag: "postgres"}
		return nil
	}))
	a.must(a.store.UpdateUser(ctx, "carol", func(u *identity.User) error {
		u.Tags = identity.Tags{runAsTag: "carol"}
		return nil
	}))
	r := a.call(a.carol, "RequestAccess", requestAccessInput{Flow: "front", Targets: []string{"nodes"}, Reason: "ticket"})
	a.call(a.bob, "ApproveRequest", decideInput{RequestID: r.RequestID, Hash: r.Hash})
	dba := a.query(a.carol, "sts", "AssumeRole", "RoleArn", testRealm.IAM("role", "/", "DBA"), "RoleSessionName", "carol").credentials()
	for _, c := range []struct {
		who         identity.Credentials
		login, want string
	}{
		{a.carol, "carol", "TargetNotConnected"},
		{a.carol, "postgres", "AccessDeniedException"},
		{dba, "carol", "AccessDeniedException"}, // in the role that login is not theirs
		{dba, "postgres", "AccessDeniedException"},
		{dba, "", "TargetNotConnected"},
	} {
		in := map[string]any{"Target": front}
		if c.login != "" {
			in["RunAs"] = c.login
		}
		if got := a.json(c.who, "AmazonSSM.StartSession", in); got.code() != c.want && !(c.want == "TargetNotConnected" && got.code() == "InternalServerError") {
			t.Errorf("%s as %q: got %d %s", c.who.AccessKeyID, c.login, got.status, got.body)
		}
	}
}

// What a policy or a boundary keeps from a person a role does not bring back: the grant is the
// person's.
func TestGrantInARole(t *testing.T) {
	const front = "i-060ee0879f3ec4eb7"
	for _, c := range []struct {
		name   string
		narrow func(a *asking)
		want   string // "" for a session that would start
	}{
		{"nothing", func(*asking) {}, ""},
		{"a deny", func(a *asking) {
			a.inline(identity.Owner{Kind: identity.OwnerUser, Name: "carol"},
				`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"ssm:StartSession","Resource":"*"}]}`)
		}, "AccessDeniedException"},
		{"a boundary", func(a *asking) {
			a.must(a.store.UpdateUser(context.Background(), "carol", func(u *identity.User) error {
				u.Boundary = testRealm.IAM("policy", "/", "none")
				return nil
			}))
		}, "AccessDeniedException"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAsking(t)
			a.role("Ops", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::111111111111:user/carol"}}]}`)
			r := a.call(a.carol, "RequestAccess", requestAccessInput{Flow: "front", Targets: []string{"nodes"}, Reason: "ticket"})
			a.call(a.bob, "ApproveRequest", decideInput{RequestID: r.RequestID, Hash: r.Hash})
			ops := a.query(a.carol, "sts", "AssumeRole", "RoleArn", testRealm.IAM("role", "/", "Ops"), "RoleSessionName", "carol").credentials()
			c.narrow(a)
			for who, cred := range map[string]identity.Credentials{"carol": a.carol, "in a role": ops} {
				got := a.json(cred, "AmazonSSM.StartSession", map[string]any{"Target": front})
				if code := got.code(); code != c.want && !(c.want == "" && (code == "TargetNotConnected" || code == "InternalServerError")) {
					t.Errorf("%s: got %d %s", who, got.status, got.body)
				}
			}
		})
	}
}
