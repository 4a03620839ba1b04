package apply_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/apply"
	"sallyport.dev/document"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/policy"
	"sallyport.dev/store"
)

var realm = arn.Realm{Account: "111111111111", Region: "us-east-1"}

func parse(t *testing.T, text string) *apply.World {
	t.Helper()
	w, err := apply.Parse(map[string][]byte{"world.sallyport.hcl": []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

const allowAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`

// world is a deployment with a group dev, a member ann, and a policy that dev has.
func world(t *testing.T) apply.Now {
	t.Helper()
	ctx := t.Context()
	s, err := store.Open(ctx, filepath.Join(t.TempDir(), "s.db"), store.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	at := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	for _, err := range []error{
		s.CreateGroup(ctx, identity.Group{Name: "dev", ID: "AGPA1", Path: "/", Created: at}),
		s.CreateUser(ctx, identity.User{Name: "ann", ID: "AIDA1", Path: "/", Created: at, Tags: identity.Tags{"Team": "payments"}}),
		s.AddMember(ctx, "dev", "ann"),
		s.CreatePolicy(ctx, identity.ManagedPolicy{ARN: realm.IAM("policy", "/", "all"), Name: "all", ID: "ANPA1", Path: "/", DefaultVersion: "v1", Created: at}, allowAll),
		s.AttachPolicy(ctx, identity.Owner{Kind: identity.OwnerGroup, Name: "dev"}, realm.IAM("policy", "/", "all"), 10),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return apply.Now{Identities: s, Documents: s, Realm: realm}
}

// shown is a plan as people see it.
func shown(p apply.Plan) []string {
	lines := []string{}
	for _, s := range p.Steps {
		lines = append(lines, fmt.Sprintf("%s %s %s: %s", s.Verb, s.Kind, s.Name, strings.Join(s.Lines, "; ")))
	}
	return lines
}

func TestPlan(t *testing.T) {
	for _, test := range []struct {
		name, before, want string
		plan               []string
	}{
		{"what is as the files say needs nothing", "", `
			group "dev" { policies = ["all"] }
			user "ann" {
				tags   = { Team = "payments" }
				groups = ["dev"]
			}
			policy "all" { document = jsonencode({Version = "2012-10-17", Statement = [{Effect = "Allow", Action = "*", Resource = "*"}]}) }`,
			[]string{}},
		{"what is not said is left alone", "", `user "ann" {}`, []string{}},
		{"new people, with all that is theirs", "", `
			user "carol" {
				tags     = { Team = "search" }
				groups   = ["dev"]
				policies = ["all"]
				inline_policy "own" { document = jsonencode({}) }
			}`,
			[]string{"create user carol: policy arn:aws:iam::111111111111:policy/all is attached; inline_policy own; joins group dev"}},
		{"tags and groups become those listed", "", `
			user "ann" {
				tags   = { Squad = "a" }
				groups = []
			}`,
			[]string{"change user ann: tags go: Team; tag Squad none → a; leaves group dev"}},
		{"a group may list its members instead", "", `
			group "dev" { members = ["bob"] }
			user "bob" {}`,
			[]string{"create user bob: ", "change group dev: member bob joins; member ann leaves"}},
		{"a policy changes by a version", "", `policy "all" { document = jsonencode({Version = "2012-10-17", Statement = []}) }`,
			[]string{"change policy all: document changes"}},
		{"what the files have no more is taken away, people are disabled", `
			user "ann" {}
			group "dev" {}
			policy "all" { document = "{}" }`, ``,
			[]string{
				"disable user ann: keys, sessions, sign-ins and grants end; sallyport user enable undoes it",
				"delete group dev: member ann leaves",
				"delete policy all: ",
			}},
		{"what no file ever named is left alone, though it is in the way of nothing", `role "gone" { trust = "{}" }`, ``, []string{}},
		{"a role, with its boundary", "", `
			role "ops" {
				trust                = jsonencode({})
				max_duration         = "2h"
				permissions_boundary = "all"
			}`,
			[]string{"create role ops: "}},
		{"a name in another case is the same", `
			user "ann" {
				groups = ["dev"]
				inline_policy "own" { document = "{}" }
			}
			group "dev" { policies = ["all"] }
			policy "all" { document = jsonencode({Version = "2012-10-17", Statement = [{Effect = "Allow", Action = "*", Resource = "*"}]}) }
			role "ops" {
				trust = "{}"
				inline_policy "own" { document = "{}" }
			}`, `
			user "Ann" { groups = ["DEV"] }
			group "Dev" { policies = ["ALL"] }
			policy "All" { document = jsonencode({Version = "2012-10-17", Statement = [{Effect = "Allow", Action = "*", Resource = "*"}]}) }
			role "OPS" { trust = "{}" }`,
			[]string{"create role OPS: "}},
		{"what is in no file any more, in another case than it is", `
			user "ANN" {}
			group "DEV" {}
			policy "ALL" { document = "{}" }`, ``,
			[]string{
				"disable user ANN: keys, sessions, sign-ins and grants end; sallyport user enable undoes it",
				"delete group DEV: member ann leaves",
				"delete policy ALL: ",
			}},
		{"who leaves a group that goes leaves it once", `group "dev" {}`, `user "ANN" { groups = [] }`,
			[]string{"change user ANN: leaves group dev", "delete group dev: "}},
		{"a list of members decides, however its group is written", "", `
			user "ann" { groups = [] }
			group "DEV" { members = ["Ann"] }`, []string{}},
		{"documents of names in different case are different", `document "my-shell" { content = "{}" }`, `document "My-Shell" { content = "{}" }`,
			[]string{"create document My-Shell: "}},
		{"a document", "", `document "my-shell" { content = "{}" }`, []string{"create document my-shell: "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan, err := apply.NewPlan(t.Context(), world(t), parse(t, test.want), parse(t, test.before))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.plan, shown(plan)); d != "" {
				t.Errorf("plan differs (-want +got):\n%s", d)
			}
		})
	}
}

// A plan's hash is what a person agreed to: it changes with what would be done, and not
// otherwise.
func TestHash(t *testing.T) {
	now := world(t)
	plan := func(tag string) string {
		p, err := apply.NewPlan(context.Background(), now, parse(t, `user "ann" { tags = { Team = "`+tag+`" } }`), parse(t, ""))
		if err != nil {
			t.Fatal(err)
		}
		return p.Hash
	}
	first, again, other := plan("a"), plan("a"), plan("b")
	if first != again {
		t.Error("two plans of the same have different hashes")
	}
	if first == other {
		t.Error("plans of different things have one hash")
	}
}

func TestParseErrors(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"twice", "user \"a\" {}\nuser \"A\" {}", `world.sallyport.hcl: user "A" is there twice`},
		{"not JSON", `policy "p" { document = "no" }`, `policy "p": document: not JSON: give file("NAME.json") or jsonencode({…})`},
		{"path", `user "a" { path = "x" }`, `user "a": path: "x" does not begin and end with a slash`},
		{"duration", `role "r" {
			trust = "{}"
			max_duration = "5m"
		}`, `role "r": max_duration: "5m" is not a duration from 1h to 12h`},
		{"both ends", `user "a" { groups = ["g"] }
			group "g" { members = [] }`, `user "a": groups: group "g" lists its members itself; say a membership at one end`},
		{"both ends, in another case", `user "a" { groups = ["G"] }
			group "g" { members = [] }`, `user "a": groups: group "G" lists its members itself; say a membership at one end`},
		{"no such file", `policy "p" { document = file("../secret") }`, "world.sallyport.hcl:1"},
		{"unknown argument", "user \"a\" { colour = 1 }", "world.sallyport.hcl:1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := apply.Parse(map[string][]byte{"world.sallyport.hcl": []byte(test.text)})
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %s…", err, test.want)
			}
		})
	}
}

// Who has left out several files is told of each, and where it is named.
func TestMissingFiles(t *testing.T) {
	_, err := apply.Parse(map[string][]byte{
		"a.sallyport.hcl": []byte("policy \"p\" {\n  document = file(\"p.json\")\n}\nrole \"r\" {\n  trust = file(\"r.json\")\n}\n"),
		"b.sallyport.hcl": []byte("policy \"q\" {\n  document = file(\"q.json\")\n}\n"),
	})
	if err == nil {
		t.Fatal("got no error")
	}
	lines := strings.Split(err.Error(), "\n")
	want := []string{`a\.sallyport\.hcl:2,.* no file p\.json `, `a\.sallyport\.hcl:5,.* no file r\.json `, `b\.sallyport\.hcl:2,.* no file q\.json `}
	if len(lines) != len(want) {
		t.Fatalf("got %q", lines)
	}
	for i, pattern := range want {
		if !regexp.MustCompile(pattern).MatchString(lines[i]) {
			t.Errorf("got %q, want %s", lines[i], pattern)
		}
	}
}

// The first example of the documentation can be typed as it stands.
func TestExample(t *testing.T) {
	page, err := os.ReadFile("../docs/configuration.md")
	must(t, err)
	_, rest, _ := strings.Cut(string(page), "```hcl\n")
	text, _, _ := strings.Cut(rest, "```")
	w := parse(t, text)
	_, err = policy.ParseTrust([]byte(w.Roles["FrontEndSSHAccess"].Trust))
	must(t, err)
	for _, p := range []string{w.Roles["FrontEndSSHAccess"].Inline[0].Document, w.Policies["team-access"].Document} {
		_, err = policy.Parse([]byte(p))
		must(t, err)
	}
	_, err = document.Parse("restart-web", []byte(w.Documents["restart-web"].Content))
	must(t, err)
}

func FuzzParse(f *testing.F) {
	f.Add(`user "a" { tags = { a = file("x.json") } }`)
	f.Add(`role "r" { trust = jsonencode({a = [1, null, true]}) }`)
	f.Fuzz(func(t *testing.T, text string) {
		w, err := apply.Parse(map[string][]byte{"a.sallyport.hcl": []byte(text), "x.json": []byte("{}")})
		if (w == nil) == (err == nil) && err == nil {
			t.Error("neither a world nor an error")
		}
	})
}
