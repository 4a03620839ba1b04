package approval_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"sallyport.dev/approval"
	"sallyport.dev/document"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
)

const action = `action == AWS::SSM::Action::"getTokenForInstanceAccess"`

// permit and forbid make statements; who and when may be empty.
func permit(who, when string) string { return statement("permit", who, when) }
func forbid(who, when string) string { return statement("forbid", who, when) }

func statement(effect, who, when string) string {
	principal := "principal"
	if who != "" {
		principal += ` in AWS::IdentityStore::Group::"` + who + `"`
	}
	if when != "" {
		when = " when { " + when + " }"
	}
	return effect + "(" + principal + ", " + action + ", resource)" + when + ";\n"
}

func tagged(key, value string) string {
	return `resource.hasTag("` + key + `") && resource.getTag("` + key + `") == "` + value + `"`
}

// Decisions: deny, then automatic approval, then people (the empty verdict).
func TestCedarDecisions(t *testing.T) {
	const people, yes, no = "people", "permit", "forbid"
	prod := flow.Node{ID: "i-060ee0879f3ec4eb7", Tags: identity.Tags{"Env": "Prod"}}
	dev := flow.Node{ID: "mi-060ee0879f3ec4eb7", Tags: identity.Tags{"Env": "Dev"}}
	both := flow.Node{ID: "i-0123456789abcdef0", Tags: identity.Tags{"Env": "Prod, Dev"}}
	bare := flow.Node{ID: "i-0123456789abcdef1"}
	b := newBench(t)
	id := b.group("oncall").ID
	b.group("dba")
	carol := b.user("carol", identity.Tags{"costcenter": "42", "employeeNumber": "E-123", "Team": "web"}, "oncall")
	b.user("bob", nil)
	b.manual("All", `"approvers":["bob"]`)
	for _, test := range []struct {
		name       string
		auto, deny string
		nodes      []flow.Node
		hours      int // 1 unless given
		want       string
	}{
		{name: "no policy", nodes: []flow.Node{dev}, want: people},
		{name: "everybody, everything", auto: permit("", ""), nodes: []flow.Node{dev}, want: yes},
		{name: "a group by name", auto: permit("oncall", ""), nodes: []flow.Node{dev}, want: yes},
		{name: "a group by id", auto: permit("GROUPID", ""), nodes: []flow.Node{dev}, want: yes},
		{name: "another group", auto: permit("dba", ""), nodes: []flow.Node{dev}, want: people},
		{name: "a user by name", auto: `permit(principal == AWS::IdentityStore::User::"carol", ` + action + `, resource);`, nodes: []flow.Node{dev}, want: yes},
		{name: "a tag", auto: permit("", tagged("Env", "Dev")), nodes: []flow.Node{dev}, want: yes},
		{name: "another tag", auto: permit("", tagged("Env", "Dev")), nodes: []flow.Node{prod}, want: people},
		{name: "no tag", auto: permit("", tagged("Env", "Dev")), nodes: []flow.Node{bare}, want: people},
		{name: "all nodes must be permitted", auto: permit("", tagged("Env", "Dev")), nodes: []flow.Node{dev, prod}, want: people},
		{name: "in any order", auto: permit("", tagged("Env", "Dev")), nodes: []flow.Node{prod, dev}, want: people},
		{name: "all values of a tag must be permitted", auto: permit("", tagged("Env", "Dev")), nodes: []flow.Node{both}, want: people},
		{name: "all values are", auto: permit("", tagged("Env", "Dev")) + permit("", tagged("Env", "Prod")), nodes: []flow.Node{both}, want: yes},
		{name: "an attribute", auto: permit("", `principal has costCenter && principal.costCenter == "42"`), nodes: []flow.Node{dev}, want: yes},
		{name: "an attribute with a pattern", auto: permit("", `principal has employeeNumber && principal.employeeNumber like "E-1*"`), nodes: []flow.Node{dev}, want: yes},
		{name: "an attribute that is not there", auto: permit("", `principal has division && principal.division == "42"`), nodes: []flow.Node{dev}, want: people},
		{name: "a principal's tag", auto: permit("", `context.iam.principalTags.hasTag("Team") && context.iam.principalTags.getTag("Team") == "web"`), nodes: []flow.Node{dev}, want: yes},
		{name: "instances", auto: `permit(principal, ` + action + `, resource is AWS::EC2::Instance);`, nodes: []flow.Node{prod}, want: yes},
		{name: "managed instances", auto: `permit(principal, ` + action + `, resource is AWS::SSM::ManagedInstance);`, nodes: []flow.Node{dev}, want: yes},
		{name: "one node", auto: `permit(principal, ` + action + `, resource == AWS::EC2::Instance::"i-060ee0879f3ec4eb7");`, nodes: []flow.Node{prod}, want: yes},
		{name: "a forbid beside the permit", auto: permit("", "") + forbid("", tagged("Env", "Prod")), nodes: []flow.Node{prod}, want: people},
		{name: "longer than an hour", auto: permit("", ""), nodes: []flow.Node{dev}, hours: 2, want: people},
		{name: "denied", auto: permit("", ""), deny: forbid("", tagged("Env", "Prod")), nodes: []flow.Node{prod}, want: people},
		{name: "denied for one node of two", auto: permit("", ""), deny: forbid("", tagged("Env", "Prod")), nodes: []flow.Node{dev, prod}, want: people},
		{name: "denied for one value of two", auto: permit("", ""), deny: forbid("", tagged("Env", "Prod")), nodes: []flow.Node{both}, want: people},
		{name: "denied to others", auto: permit("", ""), deny: forbid("dba", ""), nodes: []flow.Node{prod}, want: yes},
		{name: "denied elsewhere", auto: permit("", ""), deny: forbid("", tagged("Env", "Prod")), nodes: []flow.Node{dev}, want: yes},
		{name: "denied where nothing permits", deny: forbid("", ""), nodes: []flow.Node{dev}, want: people},
		{name: "no nodes named", auto: permit("", ""), want: no},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, text := range map[string]string{document.AutoApproval: test.auto, document.DenyAccess: test.deny} {
				if text != "" {
					b.must(b.create(name, document.TypeAutoApproval, strings.ReplaceAll(text, "GROUPID", id)))
					t.Cleanup(func() { b.must(b.store.DeleteDocument(context.Background(), name)) })
				}
			}
			facts := flow.Facts{Person: carol, Nodes: test.nodes, Duration: time.Duration(max(1, test.hours)) * time.Hour}
			verdict, err := b.Decide(context.Background(), b.flow("ssm.All"), facts)
			b.must(err)
			if got := kind(verdict); got != test.want {
				t.Errorf("got %s (%+v), want %s", got, verdict, test.want)
			}
		})
	}
}

func kind(v grant.Verdict) string {
	switch {
	case v.Forbid != "":
		return "forbid"
	case v.Permit != "":
		return "permit"
	}
	return "people"
}

// What cannot be evaluated is left to people, whichever policy it is in.
func TestEvaluationErrorsFailClosed(t *testing.T) {
	overflow := permit("", `9223372036854775807 + 1 > 0`)
	for _, test := range []struct{ name, auto, deny string }{
		{"in the auto-approval policy", permit("", "") + overflow, ""},
		{"in the deny-access policy", permit("", ""), strings.Replace(overflow, "permit", "forbid", 1)},
		{"a text that does not parse any more", "permit(", ""},
		{"a deny text that does not", permit("", ""), "forbid("},
	} {
		b := newBench(t)
		carol := b.user("carol", nil)
		b.user("bob", nil)
		b.manual("All", `"approvers":["bob"]`)
		b.put(document.AutoApproval, document.TypeAutoApproval, test.auto)
		if test.deny != "" {
			b.put(document.DenyAccess, document.TypeAutoApproval, test.deny)
		}
		facts := flow.Facts{Person: carol, Nodes: []flow.Node{{ID: "i-1"}}, Duration: time.Hour}
		verdict, err := b.Decide(context.Background(), b.flow("ssm.All"), facts)
		if kind(verdict) != "people" || err == nil {
			t.Errorf("%s: got %+v and %v, want people and an error for them to see", test.name, verdict, err)
		}
	}
}

// The flow's own rules come first, and AWS's deny-access policy holds against their
// permits, too; for nodes only, and wherever they are not named.
func TestFlowRulesAndDenyAccess(t *testing.T) {
	node := flow.Node{ID: "i-1", Tags: identity.Tags{"Env": "Prod"}}
	nodes := []flow.Target{{Name: "n", Kind: flow.TargetNodes, Nodes: &flow.Nodes{Tags: map[string][]string{"Env": {"Prod"}}}}}
	role := []flow.Target{{Name: "r", Kind: flow.TargetRole, Role: "Ops"}}
	const yes, no = `permit(principal, action, resource);`, `forbid(principal, action, resource);`
	for _, test := range []struct {
		name, cedar, deny string
		facts             flow.Facts
		want              string
	}{
		{"nothing says anything", "", "", flow.Facts{Targets: role}, "people"},
		{"permitted", yes, "", flow.Facts{Targets: role}, "permit"},
		{"forbidden", yes + no, "", flow.Facts{Targets: role}, "forbid"},
		{"permitted, denied", yes, forbid("", tagged("Env", "Prod")), flow.Facts{Targets: nodes, Nodes: []flow.Node{node}}, "people"},
		{"permitted, denied for others", yes, forbid("", tagged("Env", "Dev")), flow.Facts{Targets: nodes, Nodes: []flow.Node{node}}, "permit"},
		{"permitted, for nodes that are not named", yes, forbid("", tagged("Env", "Dev")), flow.Facts{Targets: nodes}, "people"},
		{"permitted, for a role", yes, forbid("", ""), flow.Facts{Targets: role}, "permit"},
		{"forbidden stays forbidden", no, forbid("", ""), flow.Facts{Targets: role}, "forbid"},
	} {
		b := newBench(t)
		test.facts.Person = b.user("carol", nil)
		if test.deny != "" {
			b.must(b.create(document.DenyAccess, document.TypeAutoApproval, test.deny))
		}
		// Not asked about flows of files.
		b.must(b.create(document.AutoApproval, document.TypeAutoApproval, permit("", "")))
		verdict, err := b.Decide(context.Background(), &flow.Flow{Name: "prod", Cedar: test.cedar}, test.facts)
		b.must(err)
		if got := kind(verdict); got != test.want {
			t.Errorf("%s: got %s (%+v), want %s", test.name, got, verdict, test.want)
		}
	}
}

// A request under one document's flow for another's nodes is not decided by the first.
func TestAskingUnderTheWrongDocument(t *testing.T) {
	b := newBench(t)
	carol := b.user("carol", nil)
	b.user("bob", nil)
	b.manual("All", `"approvers":["carol","bob"]`)
	b.manual("Prod", `"targets":[{"Key":"tag:Env","Values":["Prod"]}],"approvers":["bob"]`)
	b.manual("Web", `"targets":[{"Key":"tag:Tier","Values":["Web"]}],"approvers":["bob"]`)
	for _, test := range []struct {
		flow string
		tags identity.Tags
		want string
	}{
		{"ssm.All", nil, "people"},
		{"ssm.Prod", identity.Tags{"Env": "Prod"}, "people"},
		{"ssm.All", identity.Tags{"Env": "Prod"}, "forbid"},
		{"ssm.Web", identity.Tags{"Env": "Prod"}, "forbid"},
		{"ssm.Prod", identity.Tags{"Env": "Prod", "Tier": "Web"}, "forbid"},
	} {
		facts := flow.Facts{Person: carol, Nodes: []flow.Node{{ID: "i-1", Tags: test.tags}}, Duration: time.Hour}
		verdict, err := b.Decide(context.Background(), b.flow(test.flow), facts)
		b.must(err)
		if got := kind(verdict); got != test.want {
			t.Errorf("%s for %v: got %+v, want %s", test.flow, test.tags, verdict, test.want)
		}
	}
}

// Who has the name of a user that is gone has none of what that user had; session tags
// are no attributes of the user.
func TestWhoIsAsking(t *testing.T) {
	b := newBench(t)
	carol := b.user("carol", nil)
	b.user("bob", nil)
	b.manual("All", `"approvers":["bob"]`)
	b.must(b.create(document.AutoApproval, document.TypeAutoApproval, permit("", `principal has costCenter && principal.costCenter == "42"`)))
	facts := flow.Facts{Person: carol, Nodes: []flow.Node{{ID: "i-1"}}, Duration: time.Hour}
	facts.Person.Tags = identity.Tags{"costCenter": "42"}
	verdict, err := b.Decide(context.Background(), b.flow("ssm.All"), facts)
	b.must(err)
	if kind(verdict) != "people" {
		t.Errorf("a session tag makes an attribute: %+v", verdict)
	}
	facts.Person.ID = "AIDAOTHER"
	if _, err := b.Decide(context.Background(), b.flow("ssm.All"), facts); err == nil {
		t.Error("the user's namesake is taken for the user")
	}
}

// Nobody is sent to a flow that would refuse.
func TestFits(t *testing.T) {
	b := newBench(t)
	b.group("oncall")
	carol := b.user("carol", nil, "oncall")
	bob := b.user("bob", nil)
	b.manual("All", `"approvers":["bob"]`)
	b.manual("Prod", `"targets":[{"Key":"tag:Env","Values":["Prod"]}],"approvers":["bob"]`)
	b.must(b.create(document.AutoApproval, document.TypeAutoApproval, permit("oncall", tagged("Env", "Dev"))))
	prod, dev := identity.Tags{"Env": "Prod"}, identity.Tags{"Env": "Dev"}
	for _, test := range []struct {
		flow string
		who  flow.Person
		tags identity.Tags
		want bool
	}{
		{"ssm.All", bob, dev, true},
		{"ssm.All", bob, prod, false},
		{"ssm.Prod", bob, prod, true},
		{approval.AutoFlow, carol, dev, true},
		{approval.AutoFlow, carol, prod, false},
		{approval.AutoFlow, bob, dev, false},
	} {
		got, err := b.Fits(context.Background(), b.flow(test.flow), test.who, flow.Node{ID: "i-1", Tags: test.tags})
		b.must(err)
		if got != test.want {
			t.Errorf("%s for %s and %v: got %v", test.flow, test.who.Name, test.tags, got)
		}
	}
	if fits, _ := b.Fits(context.Background(), &flow.Flow{Name: "prod"}, bob, flow.Node{}); !fits {
		t.Error("a flow of a file does not fit")
	}
}

func TestCheckCedar(t *testing.T) {
	for _, test := range []struct{ name, document, text, want string }{
		{"a permit", document.AutoApproval, permit("", ""), ""},
		{"AWS's example", document.AutoApproval, permit("e8c17310-e011-7089-d989-10da1EXAMPLE", `principal has costCenter && resource.hasTag("CostCenter") && principal.costCenter == resource.getTag("CostCenter")`), ""},
		{"with comments", document.AutoApproval, "// who may\n" + permit("", ""), ""},
		{"a deny", document.DenyAccess, forbid("", tagged("Env", "Prod")), ""},
		{"nothing", document.AutoApproval, "// later\n", "has no statement"},
		{"half of one", document.AutoApproval, "permit(principal,\n  action", ":2:"},
		{"JSON", document.AutoApproval, `{"schemaVersion":"1.0"}`, "parse error"},
		{"a permit that denies", document.DenyAccess, "\n" + permit("", ""), "line 2: a deny-access policy has forbid statements only"},
		{"another action", document.AutoApproval, `permit(principal, action == AWS::SSM::Action::"startSession", resource);`, "line 1"},
		{"another principal", document.AutoApproval, `permit(principal in AWS::IAM::Group::"x", ` + action + `, resource);`, "AWS::IdentityStore::Group"},
		{"an attribute that users do not have", document.AutoApproval, permit("", `principal.email == "x"`), "costCenter"},
		{"a tag that may not be there", document.AutoApproval, permit("", `resource.getTag("Env") == "Dev"`), "line 1"},
		{"brackets without end", document.AutoApproval, strings.Repeat("(", 50000), "nested too deep"},
	} {
		err := approval.CheckCedar(test.document, test.text)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

func TestNamesOfCedarDocuments(t *testing.T) {
	_, err := approval.Parse("MyPolicy", document.TypeAutoApproval, permit("", ""))
	if err == nil || !strings.Contains(err.Error(), document.AutoApproval) || !strings.Contains(err.Error(), document.DenyAccess) {
		t.Errorf("got %v, want an error that says the names", err)
	}
}

// Tags with many values are no way to make the server think for long.
func TestTooManyWorlds(t *testing.T) {
	b := newBench(t)
	carol := b.user("carol", nil)
	b.user("bob", nil)
	b.manual("All", `"approvers":["bob"]`)
	b.must(b.create(document.AutoApproval, document.TypeAutoApproval, permit("", "")))
	tags := identity.Tags{}
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		tags[key] = "1,2,3,4,5,6,7,8,9"
	}
	facts := flow.Facts{Person: carol, Nodes: []flow.Node{{ID: "i-1", Tags: tags}}, Duration: time.Hour}
	verdict, err := b.Decide(context.Background(), b.flow("ssm.All"), facts)
	if kind(verdict) != "people" || err == nil {
		t.Errorf("got %+v and %v, want people and an error", verdict, err)
	}
}

func FuzzCheckCedar(f *testing.F) {
	f.Add(permit("oncall", tagged("Env", "Dev")))
	f.Add(forbid("", `principal has division && principal.division != "Finance"`))
	f.Fuzz(func(t *testing.T, text string) {
		_ = approval.CheckCedar(document.AutoApproval, text)
		_ = approval.CheckCedar(document.DenyAccess, text)
	})
}
