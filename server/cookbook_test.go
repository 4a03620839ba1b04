package server

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport.dev/identity"
	"sallyport.dev/policy"
	"sallyport.dev/session"
)

const cookbook = "../docs/policies"

// example is something that a person with a policy of the cookbook may or may not do.
type example struct {
	allowed  bool
	tags     identity.Tags
	action   string // ssm:StartSession unless given
	node     string
	document string
	params   map[string][]string
	login    string
}

const (
	front1 = "i-060ee0879f3ec4eb7"  // FrontEnd, Development, payments
	front2 = "i-00000000000000002"  // FrontEnd, Production, payments and search
	back1  = "i-05b7516a19f826be9"  // BackEnd, Development, search
	far    = "mi-0a1b2c3d4e5f60718" // BackEnd, of no team
	sshd   = "AWS-StartSSHSession"  // to the node's SSH server
	local  = "AWS-StartPortForwardingSession"
	shell  = "SSM-SessionManagerRunShell" // named
)

func to(host, port string) map[string][]string {
	return map[string][]string{"host": {host}, "portNumber": {port}}
}

// examples are of every policy of docs/policies.md, as ExplainAccess decides them, which
// decides as StartSession does (TestRemoteConditions, TestRunAs).
var examples = map[string][]example{
	"one-node": {
		{allowed: true, node: front1},
		{allowed: false, node: front2},
		{allowed: false, action: "ssm:TerminateSession", node: front1},
	},
	"node-list": {
		{allowed: true, node: front1},
		{allowed: true, node: far},
		{allowed: false, node: back1},
	},
	"tag": {
		{allowed: true, node: front1},
		{allowed: true, node: front2, document: sshd},
		{allowed: false, node: back1},
	},
	"two-tags": {
		{allowed: true, node: front1},
		{allowed: false, node: front2},
		{allowed: false, node: back1},
	},
	"team": {
		{allowed: true, tags: identity.Tags{"Team": "payments"}, node: front1},
		{allowed: true, tags: identity.Tags{"Team": "search"}, node: front2},
		{allowed: true, tags: identity.Tags{"Team": "payments, search"}, node: back1},
		{allowed: false, tags: identity.Tags{"Team": "payments"}, node: back1},
		{allowed: false, tags: identity.Tags{"Team": "pay"}, node: front1},
		{allowed: false, tags: identity.Tags{"Team": "*"}, node: front1},
		{allowed: false, node: far},
		{allowed: false, node: front1},
	},
	"forward-only": {
		{allowed: true, node: front1, document: remoteHost, params: to("db.internal", "5432")},
		{allowed: false, node: back1, document: remoteHost, params: to("db.internal", "5432")},
		{allowed: false, node: front1},
		{allowed: false, node: front1, document: shell},
		{allowed: false, node: front1, document: sshd},
		{allowed: false, node: front1, document: local},
	},
	"forward-to-hosts": {
		{allowed: true, node: front1, document: remoteHost, params: to("db.internal", "5432")},
		{allowed: true, node: front1, document: remoteHost, params: to("A.Replica.Internal.", "5432")},
		{allowed: false, node: front1, document: remoteHost, params: to("db.internal", "22")},
		{allowed: false, node: front1, document: remoteHost, params: to("10.0.0.7", "5432")},
		{allowed: false, node: front1, document: local, params: map[string][]string{"portNumber": {"5432"}}},
		{allowed: false, node: front1},
		{allowed: false, node: back1, document: remoteHost, params: to("db.internal", "5432")},
	},
	"forward-to-networks": {
		{allowed: true, node: front1, document: remoteHost, params: to("10.20.3.4", "443")},
		{allowed: true, node: front1, document: remoteHost, params: to("::ffff:10.20.3.4", "443")},
		{allowed: false, node: front1, document: remoteHost, params: to("10.21.3.4", "443")},
		{allowed: false, node: front1, document: remoteHost, params: to("web.internal", "443")},
		{allowed: false, node: front1},
	},
	"one-command": {
		{allowed: true, node: front1, document: "Deploy", params: map[string][]string{"version": {"1.2"}}},
		{allowed: false, node: front1},
		{allowed: false, node: front1, document: shell},
		{allowed: false, node: front1, document: "AWS-StartInteractiveCommand", params: map[string][]string{"command": {"id"}}},
	},
	"no-root": {
		{allowed: true, tags: identity.Tags{runAsTag: "alice, web"}, node: front1, login: "web"},
		{allowed: true, tags: identity.Tags{runAsTag: "alice"}, node: front1, document: "As-Own"},
		{allowed: false, tags: identity.Tags{runAsTag: "alice"}, node: front1},
		{allowed: false, tags: identity.Tags{runAsTag: "root"}, node: front1, login: "root"},
		{allowed: false, tags: identity.Tags{runAsTag: "alice"}, node: front1, login: "postgres"},
		{allowed: false, node: front1, document: "AWS-PasswordReset", params: map[string][]string{"username": {"root"}}},
		{allowed: false, action: "ssm:SendCommand", node: front1},
	},
	"logins": {
		{allowed: true, node: back1},
		{allowed: true, node: back1, login: "postgres"},
		{allowed: true, node: back1, login: "root"},
		{allowed: true, tags: identity.Tags{runAsTag: "alice"}, node: back1, login: "alice"},
		{allowed: false, node: back1, login: "mysql"},
		{allowed: false, node: front1, login: "postgres"},
	},
	"file-transfer-only": {
		{allowed: true, node: front1, document: "Sallyport-FileTransfer"},
		{allowed: false, node: back1, document: "Sallyport-FileTransfer"},
		{allowed: false, node: front1},
		{allowed: false, node: front1, document: shell},
		{allowed: false, node: front1, document: "AWS-StartNonInteractiveCommand", params: map[string][]string{"command": {"scp -t /"}}},
	},
	"forward-agent": {
		{allowed: true, action: "sallyport:ForwardAgent", node: far},
		{allowed: false, action: "sallyport:ForwardAgent", node: front1},
	},
	"own-sessions": nil, // TestOwnSessionsOfTheCookbook
}

// Every policy of the cookbook does what the cookbook says of it.
func TestCookbook(t *testing.T) {
	r := newRelayed(t)
	r.node(front1, identity.Tags{"Department": "FrontEnd", "Environment": "Development", "Team": "payments"})
	r.node(front2, identity.Tags{"Department": "FrontEnd", "Environment": "Production", "Team": "payments, search"})
	r.node(back1, identity.Tags{"Department": "BackEnd", "Environment": "Development", "Team": "search"})
	r.node(far, identity.Tags{"Department": "BackEnd", "Role": "Bastion"})
	admin := r.user("admin", nil, allowAll)
	for name, content := range map[string]string{
		"Deploy": readExample(t, "../documents/deploy.json"),
		"As-Own": `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"runAsEnabled":true}}`,
	} {
		if got := r.json(admin, "AmazonSSM.CreateDocument", map[string]any{"Name": name, "DocumentType": "Session", "Content": content}); got.status != http.StatusOK {
			t.Fatalf("CreateDocument %s: %s", name, got.body)
		}
	}
	for name, list := range examples {
		text := readExample(t, name+".json")
		t.Run(name, func(t *testing.T) {
			if found := policy.Lint(name, []byte(text), policy.LintOptions{}); len(found) > 0 {
				t.Errorf("lint: %v", found)
			}
			for i, e := range list {
				user := name + "-" + string(rune('a'+i))
				r.user(user, e.tags, text)
				in := map[string]any{"Principal": user, "Action": orElse(e.action, "ssm:StartSession"), "NodeId": e.node,
					"Document": e.document, "Parameters": e.params, "RunAs": e.login}
				out := decodeInto[explainAccessOutput](t, r.json(admin, "Sallyport.ExplainAccess", in))
				if (out.Decision == "Allowed") != e.allowed {
					t.Errorf("%+v: got %s %q, want allowed %v", e, out.Decision, out.Message, e.allowed)
				}
			}
		})
	}
}

func readExample(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(cookbook, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The cookbook shows every policy as it is tested, and every policy has an example of
// what it allows and of what it does not.
func TestCookbookIsWhole(t *testing.T) {
	page, err := os.ReadFile(cookbook + ".md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(cookbook + "/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d files (%v)", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "```json\n"+string(text)+"```\n") {
			t.Errorf("%s is not shown in policies.md as it is", file)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		if name == "own-sessions" {
			continue
		}
		seen := map[bool]bool{}
		for _, e := range examples[name] {
			seen[e.allowed] = true
		}
		if len(seen) != 2 {
			t.Errorf("%s has no examples of what it allows and what not", file)
		}
	}
}

func TestOwnSessionsOfTheCookbook(t *testing.T) {
	r := newRelayed(t)
	r.node(channelNode, nil)
	text := readExample(t, "own-sessions.json")
	if found := policy.Lint("own-sessions", []byte(text), policy.LintOptions{}); len(found) > 0 {
		t.Errorf("lint: %v", found)
	}
	alice := r.user("alice", nil, text)
	r.user("alice-b", nil, text)
	for _, owner := range []string{"alice", "alice-b"} {
		u, err := r.store.User(t.Context(), owner)
		r.must(err)
		r.must(r.store.CreateSession(t.Context(), session.Session{
			ID: owner + "-0123456789abcdef0", NodeID: channelNode, Owner: testRealm.IAM("user", "/", owner), OwnerID: u.ID,
			State: session.StateConnected, Started: r.clock(), Document: shell,
		}))
	}
	for id, want := range map[string]string{"alice-0123456789abcdef0": "", "alice-b-0123456789abcdef0": "AccessDeniedException"} {
		for _, operation := range []string{"ResumeSession", "TerminateSession"} {
			body, err := json.Marshal(map[string]string{"SessionId": id})
			r.must(err)
			if got := r.json(alice, "AmazonSSM."+operation, string(body)); got.code() != want {
				t.Errorf("%s %s: got %s %s, want %q", operation, id, got.code(), got.message(), want)
			}
		}
	}
}
