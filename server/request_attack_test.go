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
		return a.json(a.eve, "Sallyport.ListFlows", listFlowsInput{NodeID: node, Document: "no document!"})
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
