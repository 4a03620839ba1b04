package flow

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport.dev/internal/tags"
)

func TestRule(t *testing.T) {
	w := newWorld()
	now := w.now // a Friday, noon
	facts := func(change func(*Facts)) Facts {
		f := Facts{
			Person: w.people["ann"], Reason: "look", Duration: time.Hour, Channel: "cli",
			Values:  Values{"ticket": {"OPS-1"}, "ports": {"80", "443"}},
			Targets: []Target{{Name: "web", Kind: TargetNodes, Nodes: &Nodes{Tags: map[string][]string{"Env": {"prod"}}}}},
		}
		if change != nil {
			change(&f)
		}
		return f
	}
	nodes := func(all ...Node) func(*Facts) { return func(f *Facts) { f.Nodes = all } }
	prod := Node{ID: "i-1", Name: "web-1", Tags: tags.Tags{"Env": "prod"}}
	test1 := Node{ID: "i-2", Name: "web-2", Tags: tags.Tags{"Env": "test"}}
	both := Node{ID: "i-3", Name: "web-3", Tags: tags.Tags{"Env": "prod, test"}}
	const forbidProd = `@id("no-prod") forbid (principal, action, resource) when { resource.hasTag("Env") && resource.getTag("Env") == "prod" };`
	const permitProd = `@id("prod") permit (principal, action, resource) when { resource.hasTag("Env") && resource.getTag("Env") == "prod" };`
	tests := []struct {
		name, cedar    string
		facts          Facts
		forbid, permit string
		err            string
	}{
		{"no rules", "", facts(nil), "", "", ""},
		{"no rule speaks up", `permit (principal == Sallyport::User::"ben", action, resource);`, facts(nil), "", "", ""},
		{"by name", `permit (principal == Sallyport::User::"ann", action == Sallyport::Action::"request", resource);`, facts(nil), "", "line 1", ""},
		{"by group", `@id("devs") permit (principal in Sallyport::Group::"dev", action, resource);`, facts(nil), "", "devs", ""},
		{"not by group", `permit (principal in Sallyport::Group::"leads", action, resource);`, facts(nil), "", "", ""},
		{"forbid wins", `permit (principal, action, resource); @id("no") forbid (principal, action, resource);`, facts(nil), "no", "", ""},
		{"the first of two", "@id(\"b\") permit (principal, action, resource);\n@id(\"a\") permit (principal, action, resource);", facts(nil), "", "b", ""},
		{"context", `permit (principal, action, resource) when { context.reason like "lo*" && context.duration <= 3600 && context.channel == "cli" && context.values.ticket == "OPS-1" && context.values.ports.contains("443") && context.time.weekday == "fri" && context.time.hour == 12 };`, facts(nil), "", "line 1", ""},
		{"a target's tags", permitProd, facts(nil), "", "prod", ""},
		{"node", permitProd, facts(nodes(prod)), "", "prod", ""},
		{"every node is to be permitted", permitProd, facts(nodes(prod, test1)), "", "", ""},
		{"one prohibited node suffices", forbidProd, facts(nodes(test1, prod)), "no-prod", "", ""},
		{"one value that is prohibited suffices", forbidProd, facts(nodes(both)), "no-prod", "", ""},
		{"every value is to be permitted", permitProd, facts(nodes(both)), "", "", ""},
		{"a person's tags", `permit (principal, action, resource) when { principal.getTag("Team") == "payments" || principal.getTag("Team") == "search" };`, facts(nil), "", "line 1", ""},
		{"one of a person's tags", `permit (principal, action, resource) when { principal.getTag("Team") == "payments" };`, facts(nil), "", "", ""},
		{"role", `permit (principal, action, resource == Sallyport::Role::"R");`, facts(func(f *Facts) { f.Targets = []Target{{Name: "r", Kind: TargetRole, Role: "R"}} }), "", "line 1", ""},
		{"a role and another", `permit (principal, action, resource == Sallyport::Role::"R");`, facts(func(f *Facts) {
			f.Targets = []Target{{Name: "r", Kind: TargetRole, Role: "R"}, {Name: "g", Kind: TargetGroup, Group: "R"}}
		}), "", "", ""},
		{"an account", `forbid (principal, action, resource is Sallyport::PermissionSet) when { resource.account == "123456789012" };`, facts(func(f *Facts) {
			f.Targets = []Target{{Name: "p", Kind: TargetPermissionSet, PermissionSet: &PermissionSet{PermissionSetARN: "x", Account: "123456789012"}}}
		}), "line 1", "", ""},
		{"a permission that fails", `@id("p") permit (principal, action, resource) when { resource.getTag("Team") == "x" };`, facts(nil), "", "", "p: "},
		{"a prohibition that fails does not vanish", `permit (principal, action, resource); @id("f") forbid (principal, action, resource) when { resource.getTag("Team") == "x" };`, facts(nil), "", "", "f: "},
		{"nothing asked", `permit (principal, action, resource);`, facts(func(f *Facts) { f.Targets = nil }), "", "", "names nothing"},
		{"too many values", `permit (principal, action, resource);`, facts(nodes(Node{ID: "i-4", Tags: tags.Tags{"A": strings.Repeat("a,", 300)}})), "", "", "too many combinations"},
		{"broken", `permit`, facts(nil), "", "", "cedar: "},
		{"deep", strings.Repeat("(", 10_000), facts(nil), "", "", "nested too deep"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := &Flow{Name: "x", Cedar: test.cedar}
			f.Fields = []Field{{Name: "ticket", Type: FieldString}, {Name: "ports", Type: FieldIntList}}
			forbid, permit, err := f.Rule(context.Background(), test.facts, now)
			if forbid != test.forbid || permit != test.permit {
				t.Errorf("got forbid %q, permit %q, want %q, %q", forbid, permit, test.forbid, test.permit)
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got error %v, want %q", err, test.err)
			}
		})
	}
}

// One that is forbidden suffices, and nothing is permitted beside an error or by silence.
func TestCedarAll(t *testing.T) {
	for _, test := range []struct{ name, answers, forbid, permit, err string }{
		{name: "nothing"},
		{name: "all permitted", answers: "p p", permit: "p"},
		{name: "one is not", answers: "p - p"},
		{name: "one is forbidden", answers: "p f p", forbid: "f"},
		{name: "an error after what is permitted", answers: "p e", err: "e"},
		{name: "an error before", answers: "e p", err: "e"},
		{name: "forbidden after an error", answers: "e f", forbid: "f"},
	} {
		forbid, permit, err := CedarAll(context.Background(), strings.Fields(test.answers), func(a string) (string, string, error) {
			switch a {
			case "f":
				return a, "", nil
			case "p":
				return "", a, nil
			case "e":
				return "", "", errors.New(a)
			}
			return "", "", nil
		})
		said := ""
		if err != nil {
			said = err.Error()
		}
		if forbid != test.forbid || permit != test.permit || said != test.err {
			t.Errorf("%s: got %q, %q, %v", test.name, forbid, permit, err)
		}
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	_, permit, err := CedarAll(gone, []string{"p"}, func(string) (string, string, error) { return "", "p", nil })
	if permit != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("after its time: got %q, %v", permit, err)
	}
}
