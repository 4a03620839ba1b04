package server

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/identity"
)

// sshKey makes a key pair.
func (h *harness) sshKey() ssh.PublicKey {
	h.t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	h.must(err)
	key, err := ssh.NewPublicKey(public)
	h.must(err)
	return key
}

func sshText(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// issue asks for a certificate and returns it as a server sees it.
func (h *harness) issue(c identity.Credentials, key ssh.PublicKey, lifetime int) (*ssh.Certificate, answer) {
	h.t.Helper()
	got := h.json(c, "Sallyport.IssueSSHCertificate", map[string]any{"PublicKey": sshText(key), "LifetimeSeconds": lifetime})
	if got.code() != "" {
		return nil, got
	}
	var out struct{ Certificate string }
	h.must(json.Unmarshal([]byte(got.body), &out))
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(out.Certificate))
	h.must(err)
	return parsed.(*ssh.Certificate), got
}

// Whoever has credentials gets a certificate that is as good as they are, and no better.
func TestIssueSSHCertificate(t *testing.T) {
	h := newHarness(t)
	alice := h.user("alice", identity.Tags{"Team": "payments"}, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":["sts:AssumeRole","sts:TagSession"],"Resource":"*"}]}`)
	h.role("Ops", trustAccount, allowAll)
	session := h.query(alice, "sts", "AssumeRole", "RoleArn", "arn:aws:iam::111111111111:role/Ops", "RoleSessionName", "night-shift",
		"DurationSeconds", "900", "Policy", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ssm:*","sallyport:IssueSSHCertificate"],"Resource":"*"}]}`,
		"Tags.member.1.Key", "SSMSessionRunAs", "Tags.member.1.Value", "deploy")
	for _, tt := range []struct {
		name  string
		c     identity.Credentials
		arn   string
		lasts time.Duration
	}{
		{"a user", alice, "arn:aws:iam::111111111111:user/alice", 8 * time.Hour},
		{"a role session", session.credentials(), "arn:aws:sts::111111111111:assumed-role/Ops/night-shift", 15 * time.Minute},
	} {
		cert, got := h.issue(tt.c, h.sshKey(), 0)
		if cert == nil {
			t.Fatalf("%s: %s", tt.name, got.body)
		}
		if lasts := time.Unix(int64(cert.ValidBefore), 0).Sub(h.clock()); cert.KeyId != tt.arn || lasts != tt.lasts {
			t.Errorf("%s: got id %s, for %v, want %s, %v", tt.name, cert.KeyId, lasts, tt.arn, tt.lasts)
		}
		// The principal is the one that the API knows by the same credentials.
		want, err := h.server.identify(h.signed(tt.c, h.jsonRequest("Sallyport.GetStatus", struct{}{})), []byte("{}"), access.Origin{}, "sallyport")
		h.must(err)
		p, err := h.server.SSHPrincipal(t.Context(), cert, "")
		h.must(err)
		if d := cmp.Diff(want, p); d != "" {
			t.Errorf("%s (-API, +SSH):\n%s", tt.name, d)
		}
	}
}

func TestIssueSSHCertificateRefuses(t *testing.T) {
	h := newHarness(t)
	alice := h.user("alice", nil)
	denied := h.user("denied", nil, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Deny","Action":"sallyport:IssueSSHCertificate","Resource":"arn:aws:iam::111111111111:user/denied"}]}`)
	node := h.agent()
	good := sshText(h.sshKey())
	cert, _ := h.issue(alice, h.sshKey(), 0)
	for _, tt := range []struct {
		name, key string
		c         identity.Credentials
		lifetime  int
		code      string
	}{
		{"an explicit deny", good, denied, 0, "AccessDeniedException"},
		{"a node", good, node.credentials, 0, "AccessDeniedException"},
		{"longer than twelve hours", good, alice, 43201, "ValidationException"},
		{"a negative lifetime", good, alice, -1, "ValidationException"},
		{"no key", "nonsense", alice, 0, "InvalidPublicKey"},
		{"a certificate", sshText(cert), alice, 0, "InvalidPublicKey"},
		{"options", `command="id" ` + good, alice, 0, "InvalidPublicKey"},
		{"two keys", good + "\n" + good, alice, 0, "InvalidPublicKey"},
	} {
		got := h.json(tt.c, "Sallyport.IssueSSHCertificate", map[string]any{"PublicKey": tt.key, "LifetimeSeconds": tt.lifetime})
		if got.code() != tt.code {
			t.Errorf("%s: got %s", tt.name, got.body)
		}
	}
	if records := h.audited(audit.EventDecision); !slices.ContainsFunc(records, func(r audit.Record) bool { return r.Action == "sallyport:IssueSSHCertificate" && r.Decision != "" }) {
		t.Error("certificates are not in the audit log")
	}
}

func TestGetSSHAuthorities(t *testing.T) {
	h := newHarness(t, func(c *Config) {
		c.SSH = SSHGateway{Address: "gateway.example.com:2222", Suffix: "nodes.example.com"}
	})
	nobody := h.user("nobody", nil)
	var out sshAuthoritiesOutput
	h.must(json.Unmarshal([]byte(h.json(nobody, "Sallyport.GetSSHAuthorities", struct{}{}).body), &out))
	if len(out.Authorities) != 5 || len(out.TrustedUserCAKeys) != 1 || len(out.KnownHosts) != 2 {
		t.Fatalf("got %+v", out)
	}
	marker, hosts, key, _, _, err := ssh.ParseKnownHosts([]byte(out.KnownHosts[0]))
	h.must(err)
	if marker != "cert-authority" || strings.Join(hosts, ",") != "[gateway.example.com]:2222,*.nodes.example.com" || key.Type() != ssh.KeyAlgoED25519 {
		t.Errorf("known_hosts: got %s", out.KnownHosts[0])
	}
	if strings.Fields(out.TrustedUserCAKeys[0])[1] == strings.Fields(out.KnownHosts[0])[3] {
		t.Error("one key certifies people and hosts")
	}
	// The line is the one that the front door's certificates are signed for.
	signer, err := h.server.HostSigner(t.Context(), []string{"gateway.example.com"})
	h.must(err)
	checker := ssh.CertChecker{Clock: h.clock, IsHostAuthority: func(auth ssh.PublicKey, _ string) bool {
		return string(auth.Marshal()) == string(key.Marshal())
	}}
	h.must(checker.CheckHostKey("gateway.example.com:2222", nil, signer.PublicKey()))

	if got := h.json(nobody, "Sallyport.RotateSSHAuthority", map[string]string{"Kind": "user", "Signing": out.Authorities[0].ID}); got.code() != "AccessDeniedException" {
		t.Errorf("rotating: got %s", got.body)
	}
	admin := h.user("admin", nil, allowAll)
	rotate := func() answer {
		return h.json(admin, "Sallyport.RotateSSHAuthority", map[string]string{"Kind": "user", "Signing": out.Authorities[0].ID})
	}
	if got := rotate(); got.code() != "" {
		t.Errorf("rotating: got %s", got.body)
	}
	if got := rotate(); got.code() != "ResourceInUseException" {
		t.Errorf("rotating twice: got %s", got.body)
	}
	if got := h.json(admin, "Sallyport.DeleteSSHAuthority", map[string]string{"Id": out.Authorities[0].ID}); got.code() != "" {
		t.Errorf("deleting the old one: got %s", got.body)
	}
}

// groupWithKeys makes a group whose members have so many keys each.
func (h *harness) groupWithKeys(group string, keys int, members ...string) {
	h.t.Helper()
	ctx := context.Background()
	h.must(h.store.CreateGroup(ctx, identity.Group{Name: group, ID: "AGPA" + group, Path: "/", Created: h.clock()}))
	for _, m := range members {
		h.user(m, nil)
		h.must(h.store.AddMember(ctx, group, m))
		for range keys {
			h.register1(m)
		}
	}
}

// register1 registers one more key of a user and returns its id.
func (h *harness) register1(user string) string {
	h.t.Helper()
	key, id := h.sshKey(), identity.NewSSHKeyID()
	h.must(h.store.CreateSSHKey(context.Background(), identity.SSHPublicKey{
		ID: id, User: user, Body: sshText(key) + " it's mine", Fingerprint: ssh.FingerprintLegacyMD5(key), Active: true, Uploaded: h.clock(),
	}, 5))
	return id
}

// groupKeysOf lists the users whose keys a caller is told, page by page, or the error.
func (h *harness) groupKeysOf(c identity.Credentials, in map[string]any) (users []string, code string) {
	h.t.Helper()
	for {
		got := h.json(c, "Sallyport.ListGroupSSHKeys", in)
		if got.code() != "" {
			return nil, got.code()
		}
		var out groupKeysOutput
		h.must(json.Unmarshal([]byte(got.body), &out))
		for _, k := range out.Keys {
			users = append(users, k.UserName)
			if len(strings.Fields(k.PublicKey)) != 2 {
				h.t.Errorf("a key came with more than itself: %q", k.PublicKey)
			}
		}
		if out.NextToken == "" {
			slices.Sort(users)
			return users, ""
		}
		in["NextToken"] = out.NextToken
	}
}

// A node is told the keys of the groups that its tag names, and of nobody else.
func TestNodesReadTheKeysOfTheirGroups(t *testing.T) {
	h := newHarness(t)
	h.groupWithKeys("Ops", 1, "alice", "bob")
	h.groupWithKeys("finance", 1, "carol")
	m := h.agent()
	read := func(in map[string]any) string {
		users, code := h.groupKeysOf(m.credentials, in)
		return strings.Join(append(users, code), " ")
	}
	if got := read(map[string]any{"GroupName": "Ops"}); got != "AccessDeniedException" {
		t.Errorf("without a tag: got %s", got)
	}
	admin := h.user("admin", nil, allowAll)
	h.json(admin, "AmazonSSM.AddTagsToResource", map[string]any{"ResourceType": "ManagedInstance", "ResourceId": m.id,
		"Tags": []map[string]string{{"Key": "SSHKeyGroups", "Value": "web, ops, gone"}}})
	for _, tt := range []struct {
		name string
		in   map[string]any
		want string
	}{
		{"a group of its tag", map[string]any{"GroupName": "Ops"}, "alice bob "},
		{"another group", map[string]any{"GroupName": "finance"}, "AccessDeniedException"},
		{"the tag's value as a name", map[string]any{"GroupName": "web, ops"}, "ValidationException"},
		{"a group that there is not", map[string]any{"GroupName": "gone"}, "DoesNotExistException"},
		{"a user", map[string]any{"UserName": "alice"}, "AccessDeniedException"},
		{"both", map[string]any{"UserName": "alice", "GroupName": "Ops"}, "ValidationException"},
		{"neither", map[string]any{}, "AccessDeniedException"},
	} {
		if got := read(tt.in); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	// The user who has left, is disabled or has made the key inactive is gone at once.
	ctx := t.Context()
	h.must(h.store.UpdateUser(ctx, "alice", func(u *identity.User) error { u.Disabled = true; return nil }))
	if got := read(map[string]any{"GroupName": "Ops"}); got != "bob " {
		t.Errorf("alice is disabled: got %q", got)
	}
	h.must(h.store.RemoveMember(ctx, "ops", "bob"))
	if got := read(map[string]any{"GroupName": "Ops"}); got != "" {
		t.Errorf("bob has left: got %q", got)
	}
	// A node cannot give itself the tag.
	h.json(m.credentials, "AmazonSSM.AddTagsToResource", map[string]any{"ResourceType": "ManagedInstance", "ResourceId": m.id,
		"Tags": []map[string]string{{"Key": "SSHKeyGroups", "Value": "finance"}}})
	if got := read(map[string]any{"GroupName": "finance"}); got != "AccessDeniedException" {
		t.Errorf("after tagging itself: got %q", got)
	}
}

func TestPeopleReadKeysByPolicy(t *testing.T) {
	h := newHarness(t)
	h.groupWithKeys("ops", 3, "alice", "bob", "carol", "dave", "erin", "frank")
	h.groupWithKeys("finance", 1, "gina")
	sshd := h.user("sshd", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sallyport:ListGroupSSHKeys",
		"Resource":["arn:aws:iam::111111111111:group/ops","arn:aws:iam::111111111111:user/alice"]}]}`)
	users, code := h.groupKeysOf(sshd, map[string]any{"GroupName": "ops", "MaxResults": 5})
	if len(users) != 18 || code != "" {
		t.Errorf("in pages: got %d, %s, want 18", len(users), code)
	}
	if users, code = h.groupKeysOf(sshd, map[string]any{"UserName": "alice"}); len(users) != 3 {
		t.Errorf("a user: got %v, %s", users, code)
	}
	for _, in := range []map[string]any{{"GroupName": "finance"}, {"UserName": "bob"}, {"UserName": "nobody"}, {"GroupName": "nobody"}} {
		if _, code := h.groupKeysOf(sshd, in); code != "AccessDeniedException" {
			t.Errorf("%v: got %s", in, code)
		}
	}
}

// hinted takes the place of the gateway.
type hinted struct {
	mu    sync.Mutex
	nodes []string
	told  []string
}

func (f *hinted) KeySyncNodes() []string { return f.nodes }

func (f *hinted) KeysChanged(_ context.Context, node string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, node)
	return nil
}

// Nodes are told when keys change that they may read, and only then.
func TestKeyWatch(t *testing.T) {
	h := newHarness(t)
	h.groupWithKeys("ops", 1, "alice")
	h.groupWithKeys("web", 1, "bob")
	h.node("i-00000000000000001", identity.Tags{"SSHKeyGroups": "OPS"})
	h.node("i-00000000000000002", identity.Tags{"SSHKeyGroups": "ops, web"})
	h.node("i-00000000000000003", nil)
	f := &hinted{nodes: []string{"i-00000000000000001", "i-00000000000000002", "i-00000000000000003", "i-0000000000000dead"}}
	w := &keyWatch{server: h.server, nodes: f}
	ctx := t.Context()
	h.must(w.look(ctx))
	id := ""
	for _, tt := range []struct {
		name   string
		change func()
		want   string
	}{
		{"nothing", func() {}, ""},
		{"a policy", func() { h.inline(identity.Owner{Kind: identity.OwnerUser, Name: "alice"}, allowAll) }, ""},
		{"a key was uploaded", func() { id = h.register1("alice") }, "1 2"},
		{"a key was made inactive", func() { h.must(h.store.UpdateSSHKey(ctx, "alice", id, false)) }, "1 2"},
		{"an inactive key was deleted", func() { h.must(h.store.DeleteSSHKey(ctx, "alice", id)) }, ""},
		{"bob joined", func() { h.must(h.store.AddMember(ctx, "ops", "bob")) }, "1 2"},
		{"bob left", func() { h.must(h.store.RemoveMember(ctx, "ops", "bob")) }, "1 2"},
		{"bob was disabled", func() {
			h.must(h.store.UpdateUser(ctx, "bob", func(u *identity.User) error { u.Disabled = true; return nil }))
		}, "2"},
		{"somebody in no group came", func() { h.user("zoe", nil); h.register1("zoe") }, ""},
	} {
		f.told = nil
		tt.change()
		h.must(w.look(ctx))
		var told []string
		for _, node := range f.told {
			told = append(told, strings.TrimLeft(strings.TrimPrefix(node, "i-"), "0"))
		}
		if got := strings.Join(told, " "); got != tt.want {
			t.Errorf("%s: told %q, want %q", tt.name, got, tt.want)
		}
	}
	watchKeys(h.server, f, time.Millisecond).close()
}
