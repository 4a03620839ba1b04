package approval_test

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

	"sallyport.dev/approval"
	"sallyport.dev/document"
	"sallyport.dev/flow"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/store"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// bench is rules on a real store.
type bench struct {
	*approval.Rules
	t     *testing.T
	store *store.Store
}

func newBench(t *testing.T) *bench {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := store.Open(context.Background(), "sqlite:"+filepath.Join(t.TempDir(), "state.db"), store.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b := &bench{t: t, store: s}
	b.Rules = approval.New(approval.Config{
		Documents: s, Directory: s, Realm: arn.Realm{Account: "111111111111", Region: "us-east-1"},
		Now: func() time.Time { return now },
	})
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// user makes a user in groups, with tags.
func (b *bench) user(name string, tags identity.Tags, groups ...string) flow.Person {
	b.t.Helper()
	ctx := context.Background()
	u := identity.User{Name: name, ID: identity.NewUserID(), Path: "/", Created: now, Tags: tags}
	b.must(b.store.CreateUser(ctx, u))
	for _, g := range groups {
		b.must(b.store.AddMember(ctx, g, name))
	}
	return flow.Person{ID: u.ID, Name: name, Groups: groups, Tags: tags}
}

func (b *bench) group(name string) identity.Group {
	b.t.Helper()
	g := identity.Group{Name: name, ID: identity.NewGroupID(), Path: "/", Created: now}
	b.must(b.store.CreateGroup(context.Background(), g))
	return g
}

// put stores a document without looking at it.
func (b *bench) put(name, kind, content string) {
	b.t.Helper()
	b.must(b.store.CreateDocument(context.Background(), document.Stored{
		Name: name, Type: kind, Format: "JSON", DefaultVersion: 1, LatestVersion: 1, Created: now,
	}, document.Version{Document: name, Number: 1, Format: "JSON", Content: content, Created: now}))
}

func (b *bench) manual(name, members string) {
	b.t.Helper()
	b.put(name, document.TypeManualApproval, `{"schemaVersion":"1.0","accessDuration":4,`+members+`}`)
}

// create is put for what passes the checks at creation.
func (b *bench) create(name, kind, content string) error {
	b.t.Helper()
	d, err := approval.Parse(name, kind, content)
	if err == nil {
		err = b.Check(context.Background(), d)
	}
	if err == nil {
		b.put(name, kind, content)
	}
	return err
}

func (b *bench) flow(name string) *flow.Flow {
	b.t.Helper()
	flows, err := b.Flows(context.Background())
	b.must(err)
	for _, f := range flows {
		if f.Name == name {
			return f
		}
	}
	b.t.Fatalf("there is no flow %s among %d", name, len(flows))
	return nil
}

func TestManualDocumentsAreFlows(t *testing.T) {
	b := newBench(t)
	b.group("dba")
	b.user("bob", nil, "dba")
	b.manual("Databases", `"description":"What holds data","targets":[{"Key":"tag:Tier","Values":["Database","Cache"]},{"Key":"tag:Env","Values":["Prod"]}],
		"approvalLevels":[{"approvers":["dba"],"minRequiredApprovals":2},{"approvers":["bob"]}],"documents":["SSM-SessionManagerRunShell"],"login":"db"`)
	b.manual("Everything", `"approvers":["bob","nobody"],"requesters":["dba"]`)
	nodes := func(n flow.Nodes) *flow.Nodes {
		n.Documents, n.Login = []string{"SSM-SessionManagerRunShell"}, "db"
		return &n
	}
	form := []flow.Field{{Name: "tags", Label: "Tags", Type: flow.FieldStringList}}
	want := []*flow.Flow{{
		Name: "ssm.Databases", Label: "Databases", Description: "What holds data", Ask: flow.People{Everyone: true}, Fields: form,
		Targets: []flow.Target{
			{Name: "tag:Tier", Kind: flow.TargetNodes, Nodes: nodes(flow.Nodes{Tags: map[string][]string{"Tier": {"Database", "Cache"}}})},
			{Name: "tag:Env", Kind: flow.TargetNodes, Nodes: nodes(flow.Nodes{Tags: map[string][]string{"Env": {"Prod"}}})},
		},
		Stages: []flow.Stage{
			{Name: "level 1", Approvals: 2, Of: flow.People{Groups: []string{"dba"}}},
			{Name: "level 2", Approvals: 1, Of: flow.People{Users: []string{"bob"}}},
		},
		Clocks: flow.Clocks{Pending: 24 * time.Hour, Default: 4 * time.Hour, Longest: 4 * time.Hour},
	}, {
		Name: "ssm.Everything", Label: "Everything", Ask: flow.People{Groups: []string{"dba"}}, Fields: form,
		Targets: []flow.Target{{Name: "all nodes", Kind: flow.TargetNodes, Nodes: &flow.Nodes{IDs: []string{flow.EveryNode}}}},
		Stages:  []flow.Stage{{Name: "level 1", Approvals: 1, Of: flow.People{Users: []string{"bob"}}}},
		Clocks:  flow.Clocks{Pending: 24 * time.Hour, Default: 4 * time.Hour, Longest: 4 * time.Hour},
	}}
	got, err := b.Flows(context.Background())
	b.must(err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flows (-want +got):\n%s", diff)
	}
}

// One document that cannot be read is told, and takes no other with it.
func TestUnreadableDocument(t *testing.T) {
	b := newBench(t)
	b.user("bob", nil)
	b.manual("Good", `"targets":[{"Key":"tag:Env","Values":["Prod"]}],"approvers":["bob"]`)
	b.put("Bad", document.TypeManualApproval, "{")
	flows, err := b.Flows(context.Background())
	if len(flows) != 1 || err == nil || !strings.Contains(err.Error(), `document "Bad"`) {
		t.Errorf("got %d flows and %v, want one and an error", len(flows), err)
	}
	// It may be the one for these nodes: then nobody is let in by another.
	_, _, err = b.Manual(context.Background(), []flow.Node{{ID: "i-1", Tags: identity.Tags{"Env": "Prod"}}})
	if err == nil {
		t.Error("got a policy for a node although one cannot be read")
	}
}

func TestWhichDocumentAppliesToANode(t *testing.T) {
	b := newBench(t)
	b.user("bob", nil)
	b.manual("Databases", `"targets":[{"Key":"tag:Tier","Values":["Database"]},{"Key":"tag:Data","Values":["yes"]}],"approvers":["bob"]`)
	b.manual("Production", `"targets":[{"Key":"tag:Env","Values":["Prod","Stage"]}],"approvers":["bob"]`)
	node := func(id string, tags ...string) flow.Node {
		n := flow.Node{ID: id, Tags: identity.Tags{}}
		for i := 0; i < len(tags); i += 2 {
			n.Tags[tags[i]] = tags[i+1]
		}
		return n
	}
	check := func(name, want string, targets []string, nodes ...flow.Node) {
		t.Helper()
		got, chosen, err := b.Manual(context.Background(), nodes)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		if diff := cmp.Diff(targets, chosen); diff != "" {
			t.Errorf("%s: targets (-want +got):\n%s", name, diff)
		}
	}
	check("one tag", "ssm.Databases", []string{"tag:Tier"}, node("i-1", "Tier", "Database"))
	check("two tags of one document", "ssm.Databases", []string{"tag:Data", "tag:Tier"}, node("i-1", "Tier", "Database", "Data", "yes"))
	check("one of several values", "ssm.Production", []string{"tag:Env"}, node("i-1", "Env", "Dev, Stage"))
	check("another value", "no approval policy applies to node i-1", nil, node("i-1", "Env", "Dev"))
	check("two documents", "approval policies Databases and Production both apply to node i-1", nil, node("i-1", "Tier", "Database", "Env", "Prod"))
	check("two nodes under one", "ssm.Databases", []string{"tag:Data", "tag:Tier"}, node("i-1", "Tier", "Database"), node("i-2", "Data", "yes"))
	check("two nodes under two", "request them one by one", nil, node("i-1", "Tier", "Database"), node("i-2", "Env", "Prod"))

	b.manual("Everything", `"approvers":["bob"]`)
	check("all nodes", "ssm.Everything", []string{"all nodes"}, node("i-1", "Env", "Dev"))
	check("a tag beats all nodes", "ssm.Databases", []string{"tag:Tier"}, node("i-1", "Tier", "Database"))
	check("two documents beat all nodes", "both apply", nil, node("i-1", "Tier", "Database", "Env", "Prod"))
	b.manual("Everything2", `"approvers":["bob"]`)
	check("two documents for all nodes", "both apply to all nodes", nil, node("i-1", "Env", "Dev"))
}

func TestChecksAtCreation(t *testing.T) {
	b := newBench(t)
	b.group("ops")
	b.group("both")
	b.user("bob", nil)
	b.user("both", nil)
	manual := func(members string) string { return `{"schemaVersion":"1.0","accessDuration":4,` + members + `}` }
	const prod = `"targets":[{"Key":"tag:Env","Values":["Prod"]}],`
	for _, test := range []struct{ name, document, content, want string }{
		{"first", "Prod", manual(prod + `"approvers":["ops"]`), ""},

		{"a tag twice", "Prod2", manual(`"targets":[{"Key":"tag:Env","Values":["Dev","Prod"]}],"approvers":["ops"]`), "nodes with the tag Env=Prod are those of document Prod already"},
		{"another value", "Dev", manual(`"targets":[{"Key":"tag:Env","Values":["Dev"]}],"approvers":["user/bob"]`), ""},
		{"all nodes", "All", manual(`"approvers":["arn:aws:iam::111111111111:group/ops"]`), ""},
		{"all nodes twice", "All2", manual(`"approvers":["ops"]`), "document All is for all nodes already"},
		{"nobody known", "X", manual(`"targets":[{"Key":"tag:X","Values":["1"]}],"approvers":["eve"]`), `there is no user or group "eve"`},
		{"no such group", "X", manual(`"targets":[{"Key":"tag:X","Values":["1"]}],"approvers":["group/bob"]`), `there is no group "bob"`},
		{"no such requester", "X", manual(`"targets":[{"Key":"tag:X","Values":["1"]}],"approvers":["bob"],"requesters":["eve"]`), `requesters: there is no user or group "eve"`},
		{"two of one name", "X", manual(`"targets":[{"Key":"tag:X","Values":["1"]}],"approvers":["both"]`), "write user/both or group/both"},
		{"another account", "X", manual(`"targets":[{"Key":"tag:X","Values":["1"]}],"approvers":["arn:aws:iam::222222222222:user/bob"]`), "of account 222222222222"},
		{"a name of the others", document.AutoApproval, manual(`"approvers":["bob"]`), "is that of a document of type AutoApprovalPolicy"},
	} {
		err := b.create(test.document, document.TypeManualApproval, test.content)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

func TestFiftyDocuments(t *testing.T) {
	b := newBench(t)
	b.user("bob", nil)
	for i := range 50 {
		value := strings.Repeat("x", i+1)
		b.must(b.create("Doc-"+value, document.TypeManualApproval, `{"schemaVersion":"1.0","accessDuration":1,"targets":[{"Key":"tag:Env","Values":["`+value+`"]}],"approvers":["bob"]}`))
	}
	err := b.create("OneMore", document.TypeManualApproval, `{"schemaVersion":"1.0","accessDuration":1,"approvers":["bob"]}`)
	if !errors.Is(err, approval.ErrLimit) {
		t.Errorf("got %v, want ErrLimit", err)
	}
}

// A document is checked beside the others, not beside what it was.
func TestNextVersion(t *testing.T) {
	b := newBench(t)
	b.user("bob", nil)
	text := func(hours string) string {
		return `{"schemaVersion":"1.0","accessDuration":` + hours + `,"targets":[{"Key":"tag:Env","Values":["Prod"]}],"approvers":["bob"]}`
	}
	b.must(b.create("Prod", document.TypeManualApproval, text("1")))
	d, err := approval.Parse("Prod", document.TypeManualApproval, text("2"))
	b.must(err)
	b.must(b.Check(context.Background(), d))
}
