package apply_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/apply"
	"sallyport.dev/identity"
)

func TestDraft(t *testing.T) {
	now := world(t)
	before := parse(t, `group "dev" {
		inline_policy "old" { document = "{}" }
	}`)
	draft := apply.NewDraft(now, parse(t, `
		user "ann" { tags = { Team = "search" } }
		user "carol" { groups = ["dev"] }
		group "dev" { policies = ["some"] }
		group "ops" { members = ["ann"] }
		policy "some" { document = "{}" }
		role "new" { trust = "{}" }`), before)

	got := map[string]any{}
	ann, err := draft.User(t.Context(), "ann")
	must(t, err)
	got["ann's team"] = ann.Tags["Team"]
	got["ann's groups"] = groups(t, draft, "ann")
	_, err = draft.UserByID(t.Context(), ann.ID)
	must(t, err)
	policies, err := draft.AttachedPolicies(t.Context(), identity.Owner{Kind: identity.OwnerGroup, Name: "dev"})
	must(t, err)
	version, err := draft.PolicyVersion(t.Context(), policies[0].ARN, policies[0].DefaultVersion)
	must(t, err)
	got["dev's policy"] = policies[0].Name + " " + version.Document
	role, err := draft.Role(t.Context(), "new")
	must(t, err)
	got["new role"] = role.Trust
	want := map[string]any{
		"ann's team": "search", "ann's groups": []string{"dev", "ops"}, "dev's policy": "some {}", "new role": "{}",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if real, err := now.Identities.User(t.Context(), "ann"); err != nil || real.Tags["Team"] != "payments" {
		t.Errorf("the draft has changed what there is: %v %v", real, err)
	}
}

// What the files had and have no more: people are disabled, the rest is not there.
func TestDraftWithout(t *testing.T) {
	draft := apply.NewDraft(world(t), parse(t, ""), parse(t, `
		user "ann" {}
		group "dev" {}`))
	ann, err := draft.User(t.Context(), "ann")
	must(t, err)
	if !ann.Disabled {
		t.Error("ann is not disabled")
	}
	if got := groups(t, draft, "ann"); len(got) != 0 {
		t.Errorf("ann is in %v", got)
	}
}

// Names are the same in any case.
func TestDraftInAnotherCase(t *testing.T) {
	now := world(t)
	dev := identity.Owner{Kind: identity.OwnerGroup, Name: "dev"}
	must(t, now.Identities.PutInlinePolicy(t.Context(), identity.InlinePolicy{Owner: dev, Name: "own", Document: allowAll}))
	draft := apply.NewDraft(now, parse(t, `group "DEV" {
		members = []
		inline_policy "Own" { document = "{}" }
	}`), parse(t, ""))
	if got := groups(t, draft, "ann"); len(got) != 0 {
		t.Errorf("ann is in %v", got)
	}
	inline, err := draft.InlinePolicies(t.Context(), dev)
	must(t, err)
	if len(inline) != 1 || inline[0].Document != "{}" {
		t.Errorf("got the policies %+v", inline)
	}
}

func groups(t *testing.T, d *apply.Draft, user string) (names []string) {
	t.Helper()
	all, err := d.GroupsOf(t.Context(), user, identity.Page{})
	must(t, err)
	for _, g := range all {
		names = append(names, g.Name)
	}
	return names
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
