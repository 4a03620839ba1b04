package main

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/member"
)

// A folder of an older program gets carol and the flow that she may ask, once: what people
// change afterwards is left alone.
func TestWorldOfAnOlderProgram(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	o := devOptions{listen: "127.0.0.1:0"}
	m, err := startDevMember(ctx, o, dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer closeMember(m, slog.New(slog.DiscardHandler))
	if err := makePeople(ctx, m); err != nil {
		t.Fatal(err)
	}
	if err := m.Store.SetMeta(ctx, worldMark, "1"); err != nil {
		t.Fatal(err)
	}
	credentials := filepath.Join(dir, "aws", "credentials")
	keys, err := seed(ctx, m, credentials)
	if err != nil {
		t.Fatal(err)
	}
	if keys["carol"].id == "" || !hasFlow(t, m) {
		t.Errorf("got keys %v, flow %v; want carol and her flow", keys, hasFlow(t, m))
	}
	if groups, err := m.Store.GroupsOf(ctx, "carol", identity.Page{}); err != nil || len(groups) != 1 || groups[0].Name != supportGroup {
		t.Errorf("carol's groups: got %v, %v", groups, err)
	}
	for _, o := range []identity.Owner{{Kind: identity.OwnerUser, Name: "carol"}, {Kind: identity.OwnerGroup, Name: supportGroup}} {
		if policies, err := m.Store.InlinePolicies(ctx, o); err != nil || len(policies) > 0 {
			t.Errorf("%s: got %d policies, %v, want none", o.Name, len(policies), err)
		}
	}

	_, digest, err := m.Access().Files(ctx)
	if err != nil {
		t.Fatal(err)
	}
	admin := grant.Actor{Principal: identity.Principal{ARN: "arn:aws:iam::111111111111:user/admin"}, Channel: "api"}
	if _, err := m.Access().PutFlows(ctx, admin, nil, digest); err != nil {
		t.Fatal(err)
	}
	if _, err := seed(ctx, m, credentials); err != nil {
		t.Fatal(err)
	}
	if hasFlow(t, m) {
		t.Error("the flow that was taken away is back")
	}
}

// The sample flow stands beside flows that somebody has applied before.
func TestSampleFlowBesideOthers(t *testing.T) {
	ctx := t.Context()
	m, err := startDevMember(ctx, devOptions{listen: "127.0.0.1:0"}, t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer closeMember(m, slog.New(slog.DiscardHandler))
	own := `flow "own" {
  ask { everyone = true }
  target "group" "ops" { group = "ops" }
  stage "boss" {
    of { users = ["admin"] }
  }
}`
	admin := grant.Actor{Principal: identity.Principal{ARN: "arn:aws:iam::111111111111:user/admin"}, Channel: "api"}
	if _, err := m.Access().PutFlows(ctx, admin, map[string][]byte{"own.sallyport.hcl": []byte(own)}, ""); err != nil {
		t.Fatal(err)
	}
	if err := makeWorld(ctx, m); err != nil {
		t.Fatal(err)
	}
	set, err := m.Access().Flows(ctx)
	if err != nil || set.Flows["own"] == nil || set.Flows["frontend"] == nil {
		t.Errorf("got %v, %v, want both flows", set, err)
	}
	if err := makeWorld(ctx, m); err != nil && !errors.Is(err, identity.ErrExists) {
		t.Error(err)
	}
}

func hasFlow(t *testing.T, m *member.Member) bool {
	t.Helper()
	set, err := m.Access().Flows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return set.Flows["frontend"] != nil
}
