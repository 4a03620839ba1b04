package storetest

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/node"
)

func activation(id string, limit int) node.Activation {
	return node.Activation{ID: id, CodeHash: []byte{1, 2, 3}, Description: "d", DefaultName: "web", IAMRole: "r",
		Limit: limit, Expires: at(100), Created: at(1), Tags: identity.Tags{"k": "v"}}
}

func nodeID(n node.Node) string { return n.ID }

func testActivations(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	a, b := activation("a", 5), activation("b", 1)
	b.NodeIDs, b.Tags = []string{"i-1"}, nil
	must(t, s.CreateActivation(ctx, b))
	must(t, s.CreateActivation(ctx, a))
	wantSame(t, "activation", get[node.Activation](t)(s.Activation(ctx, "b")), b)
	wantSame(t, "activations", get[[]node.Activation](t)(s.Activations(ctx, "", 0)), []node.Activation{a, b})
	wantSame(t, "first", get[[]node.Activation](t)(s.Activations(ctx, "", 1)), []node.Activation{a})
	wantSame(t, "next", get[[]node.Activation](t)(s.Activations(ctx, "a", 1)), []node.Activation{b})
	must(t, s.DeleteActivation(ctx, "a"))
	wantErr(t, "deleting twice", s.DeleteActivation(ctx, "a"), node.ErrInvalidActivation)
	_, err := s.Activation(ctx, "a")
	wantErr(t, "deleted activation", err, node.ErrInvalidActivation)
}

func testRegister(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.CreateActivation(ctx, activation("a", 3)))
	ids := []string{"mi-1", "mi-1", "mi-2"} // the generator meets a taken id
	newID := func() string { id := ids[0]; ids = ids[1:]; return id }
	n := node.Node{Name: "web", Tags: identity.Tags{"k": "v"}, ActivationID: "a", IAMRole: "r", Fingerprint: "f",
		PublicKey: "key", PublicKeyType: "Rsa", Registered: at(2)}
	got := get[node.Node](t)(s.Register(ctx, n, at(2), newID))
	n.ID = "mi-1"
	wantSame(t, "registered node", got, n)
	wantSame(t, "stored node", get[node.Node](t)(s.Node(ctx, "mi-1")), n)
	second := get[node.Node](t)(s.Register(ctx, n, at(2), newID))
	wantSame(t, "id of the second", second.ID, "mi-2")
	wantSame(t, "registrations", get[node.Activation](t)(s.Activation(ctx, "a")).Count, 2)

	same := func() string { return "mi-1" }
	if _, err := s.Register(ctx, n, at(2), same); err == nil {
		t.Error("a generator that gives taken ids only: got no error")
	}
	wantSame(t, "registrations after a failure", get[node.Activation](t)(s.Activation(ctx, "a")).Count, 2)
	_, err := s.Register(ctx, n, at(100), func() string { return "mi-3" })
	wantErr(t, "at the moment of expiry", err, node.ErrActivationExpired)
	get[node.Node](t)(s.Register(ctx, n, at(99), func() string { return "mi-3" }))
	_, err = s.Register(ctx, n, at(2), func() string { return "mi-4" })
	wantErr(t, "over the limit", err, node.ErrRegistrationLimit)
	n.ActivationID = "none"
	_, err = s.Register(ctx, n, at(2), func() string { return "mi-4" })
	wantErr(t, "unknown activation", err, node.ErrInvalidActivation)

	fixed := activation("f", 5)
	fixed.NodeIDs = []string{"i-1", "i-2"}
	must(t, s.CreateActivation(ctx, fixed))
	n.ActivationID = "f"
	for _, want := range fixed.NodeIDs {
		wantSame(t, "fixed id", get[node.Node](t)(s.Register(ctx, n, at(2), same)).ID, want)
	}
	_, err = s.Register(ctx, n, at(2), same)
	wantErr(t, "no fixed ids left", err, node.ErrRegistrationLimit)

	theft := activation("theft", 1)
	theft.NodeIDs = []string{"i-1"}
	must(t, s.CreateActivation(ctx, theft))
	n.ActivationID = "theft"
	_, err = s.Register(ctx, n, at(2), same)
	wantErr(t, "taking the place of a registered node", err, node.ErrExists)
	must(t, s.DeleteNode(ctx, "i-1"))
	wantSame(t, "after it was deregistered", get[node.Node](t)(s.Register(ctx, n, at(2), same)).ID, "i-1")
	undone := activation("undone", 2)
	undone.NodeIDs = []string{"i-8", "i-9"}
	must(t, s.CreateActivation(ctx, undone))
	n.ActivationID = "undone"
	first, last := get[node.Node](t)(s.Register(ctx, n, at(2), same)), get[node.Node](t)(s.Register(ctx, n, at(2), same))
	must(t, s.Unregister(ctx, first))
	wantSame(t, "registrations after that of an earlier id was undone", get[node.Activation](t)(s.Activation(ctx, "undone")).Count, 2)
	must(t, s.Unregister(ctx, last))
	wantSame(t, "after that of the last", get[node.Activation](t)(s.Activation(ctx, "undone")).Count, 1)
	wantSame(t, "the id is given out again", get[node.Node](t)(s.Register(ctx, n, at(2), same)).ID, "i-9")
	wantErr(t, "undone twice", s.Unregister(ctx, first), node.ErrNotFound)
	must(t, s.Unregister(ctx, second))
	wantSame(t, "registrations of any id", get[node.Activation](t)(s.Activation(ctx, "a")).Count, 2)
}

// testRegisterRace: many machines cloned from one image register at once, through
// two members; no more get in than the activation allows, each with its own id.
func testRegisterRace(t *testing.T, fresh Fresh) {
	url := fresh(t)
	members := [](interface {
		node.Store
	}){Open(t, url), Open(t, url)}
	ctx := t.Context()
	must(t, members[0].CreateActivation(ctx, activation("a", 20)))
	var last atomic.Int64
	newID := func() string { return fmt.Sprintf("mi-%03d", last.Add(1)) }
	counts := atOnce(t, 50, func(i int) error {
		_, err := members[i%2].Register(ctx, node.Node{ActivationID: "a"}, at(2), newID)
		return err
	}, node.ErrRegistrationLimit)
	wantSame(t, "registered", counts[nil], 20)
	wantSame(t, "refused", counts[node.ErrRegistrationLimit], 30)
	wantSame(t, "nodes", len(get[[]node.Node](t)(members[1].Nodes(ctx, node.Filter{}))), 20)
	wantSame(t, "count", get[node.Activation](t)(members[1].Activation(ctx, "a")).Count, 20)
}

func testNodes(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.CreateActivation(ctx, activation("a", 10)))
	for _, id := range []string{"mi-b", "i-z", "mi-a", "i-0"} {
		get[node.Node](t)(s.Register(ctx, node.Node{ActivationID: "a"}, at(2), func() string { return id }))
	}
	list := func(f node.Filter) string { return names(get[[]node.Node](t)(s.Nodes(ctx, f)), nodeID) }
	wantSame(t, "all", list(node.Filter{}), "i-0 i-z mi-a mi-b")
	wantSame(t, "limited", list(node.Filter{Limit: 2}), "i-0 i-z")
	wantSame(t, "after", list(node.Filter{After: "i-z", Limit: 1}), "mi-a")
	wantSame(t, "by ids", list(node.Filter{IDs: []string{"mi-a", "i-0", "none"}}), "i-0 mi-a")

	full := node.Node{ID: "forged", Name: "n", Tags: identity.Tags{"a": "b"}, ActivationID: "a", IAMRole: "r",
		Fingerprint: "f", PublicKey: "k", PublicKeyType: "Rsa", Registered: at(3),
		AgentName: "an", AgentVersion: "av", AgentStatus: "as", PlatformType: "pt", PlatformName: "pn", PlatformVersion: "pv",
		ComputerName: "cn", IPAddress: "ip", AvailabilityZone: "az", LastPing: at(4), Member: "m", ConnectedAt: at(5)}
	must(t, s.UpdateNode(ctx, "mi-a", func(n *node.Node) error { *n = full; return nil }))
	full.ID = "mi-a"
	wantSame(t, "changed node", get[node.Node](t)(s.Node(ctx, "mi-a")), full)
	_, err := s.Node(ctx, "forged")
	wantErr(t, "an id cannot be changed", err, node.ErrNotFound)
	wantErr(t, "changing an unknown node", s.UpdateNode(ctx, "x", func(*node.Node) error { return nil }), node.ErrNotFound)

	revision := func() int64 { return get[int64](t)(s.NodeRevision(ctx)) }
	change := func(change func(*node.Node)) {
		must(t, s.UpdateNode(ctx, "mi-a", func(n *node.Node) error { change(n); return nil }))
	}
	for what, grows := range map[string]func(){
		"a tag":        func() { change(func(n *node.Node) { n.Tags["a"] = "c" }) },
		"another tag":  func() { change(func(n *node.Node) { n.Tags = identity.Tags{"b": "c"} }) },
		"a name":       func() { change(func(n *node.Node) { n.Name = "other" }) },
		"another node": func() { must(t, s.DeleteNode(ctx, "mi-b")) },
	} {
		before := revision()
		if grows(); revision() <= before {
			t.Errorf("the revision of nodes did not grow with %s", what)
		}
	}
	before := revision()
	change(func(n *node.Node) { n.LastPing, n.AgentVersion = at(9), "new" })
	wantSame(t, "revision after a report", revision(), before)

	must(t, s.DeleteNode(ctx, "mi-a"))
	wantErr(t, "deleting twice", s.DeleteNode(ctx, "mi-a"), node.ErrNotFound)
}

func testConnected(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.CreateActivation(ctx, activation("a", 1)))
	get[node.Node](t)(s.Register(ctx, node.Node{ActivationID: "a"}, at(2), func() string { return "mi-1" }))
	held := func() (string, time.Time) {
		n := get[node.Node](t)(s.Node(ctx, "mi-1"))
		return n.Member, n.ConnectedAt
	}
	want := func(what, member string, since time.Time) {
		t.Helper()
		m, c := held()
		wantSame(t, what+": member", m, member)
		wantSame(t, what+": since", c, since)
	}
	want("at first", "", time.Time{})
	must(t, s.SetConnected(ctx, "mi-1", "one", at(1)))
	want("connected", "one", at(1))
	must(t, s.SetConnected(ctx, "mi-1", "two", at(2)))
	must(t, s.ClearConnected(ctx, "mi-1", "one"))
	want("the first member notices late", "two", at(2))
	must(t, s.ClearConnected(ctx, "mi-1", "two"))
	want("gone", "", time.Time{})
	wantErr(t, "unknown node", s.SetConnected(ctx, "x", "one", at(1)), node.ErrNotFound)
	must(t, s.ClearConnected(ctx, "x", "one"))
}

func testNodeKeys(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.CreateActivation(ctx, activation("a", 1)))
	n := node.Node{ActivationID: "a", Fingerprint: "f", PublicKey: "key", PublicKeyType: "Rsa", Registered: at(2)}
	get[node.Node](t)(s.Register(ctx, n, at(2), func() string { return "mi-1" }))
	k := node.Keys{NodeID: "mi-1", Reported: at(3), More: true, Keys: []node.Key{
		{Login: "root", File: "/root/.ssh/authorized_keys", Fingerprint: "SHA256:x", Type: "ssh-ed25519", Comment: "c", Authority: true},
	}}
	must(t, s.SetKeys(ctx, k))
	wantSame(t, "keys", get[[]node.Keys](t)(s.Keys(ctx)), []node.Keys{k})
	k = node.Keys{NodeID: "mi-1", Reported: at(4)}
	must(t, s.SetKeys(ctx, k))
	wantSame(t, "keys reported again", get[[]node.Keys](t)(s.Keys(ctx)), []node.Keys{k})
	wantErr(t, "keys of no node", s.SetKeys(ctx, node.Keys{NodeID: "mi-2"}), node.ErrNotFound)
	must(t, s.DeleteNode(ctx, "mi-1"))
	if got := get[[]node.Keys](t)(s.Keys(ctx)); len(got) != 0 {
		t.Errorf("keys of a deleted node: got %v, want none", got)
	}
}
