package server

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/wire"
)

// machine is an agent in the making.
type machine struct {
	key         *rsa.PrivateKey
	fingerprint string
	id          string
	credentials identity.Credentials
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return &machine{key: key, fingerprint: "8f1c0c1e-8e5a-4d7c-9a55-0d6f3f1a2b3c"}
}

func (m *machine) publicKey() string {
	der, _ := x509.MarshalPKIXPublicKey(&m.key.PublicKey)
	return base64.StdEncoding.EncodeToString(der)
}

func (m *machine) registration(id, code string) wire.RegisterManagedInstance {
	return wire.RegisterManagedInstance{
		ActivationID: id, ActivationCode: code, Fingerprint: m.fingerprint, PublicKey: m.publicKey(), PublicKeyType: "Rsa",
	}
}

// register calls RegisterManagedInstance, which is not signed.
func (h *harness) register(in wire.RegisterManagedInstance) answer {
	h.t.Helper()
	return h.send(h.jsonRequest("AmazonSSM.RegisterManagedInstance", in))
}

// rsaSigned calls an operation with the node's key, as agents do (docs/protocol.md §7).
func (h *harness) rsaSigned(m *machine, target string, in any) answer {
	h.t.Helper()
	r := h.jsonRequest(target, in)
	stamp := h.clock().UTC().Format("20060102T150405Z")
	scope := stamp[:8] + "/us-east-1/ssm/aws4_request"
	r.Header.Set("X-Amz-Date", stamp)
	canonical := strings.Join([]string{"POST", "/", "",
		"content-type:" + r.Header.Get("Content-Type"), "host:" + r.URL.Host, "x-amz-date:" + stamp, "x-amz-target:" + target, "",
		"content-type;host;x-amz-date;x-amz-target", bodyHash(h.t, r)}, "\n")
	hash := sha256.Sum256([]byte(canonical))
	digest := sha256.Sum256([]byte("AWS4-HMAC-SHA256\n" + stamp + "\n" + scope + "\n" + hex.EncodeToString(hash[:])))
	signature, err := rsa.SignPSS(rand.Reader, m.key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: 32})
	h.must(err)
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+m.id+"/"+scope+
		", SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature="+base64.StdEncoding.EncodeToString(signature))
	return h.send(r)
}

// activation makes an activation for so many nodes, or for those ids.
func (h *harness) activation(limit int, ids ...string) (id, code string) {
	h.t.Helper()
	code, hash := node.NewCode()
	a := node.Activation{
		ID: node.NewActivationID(), CodeHash: hash, Limit: limit, NodeIDs: ids, DefaultName: "web", IAMRole: "nodes",
		Tags: identity.Tags{"Team": "payments"}, Created: h.clock(), Expires: h.clock().Add(time.Hour),
	}
	h.must(h.store.CreateActivation(context.Background(), a))
	return a.ID, code
}

// agent registers a machine and gets it credentials.
func (h *harness) agent() *machine {
	h.t.Helper()
	m := newMachine(h.t)
	id, code := h.activation(1)
	var out wire.RegisterManagedInstanceResult
	h.must(json.Unmarshal([]byte(h.register(m.registration(id, code)).body), &out))
	m.id = out.InstanceID
	m.credentials = h.roleToken(m)
	return m
}

func (h *harness) roleToken(m *machine) identity.Credentials {
	h.t.Helper()
	got := h.rsaSigned(m, "AmazonSSM.RequestManagedInstanceRoleToken", wire.RequestManagedInstanceRoleToken{Fingerprint: m.fingerprint})
	var out wire.RequestManagedInstanceRoleTokenResult
	h.must(json.Unmarshal([]byte(got.body), &out))
	if got.code() != "" || out.AccessKeyID == "" || !strings.Contains(got.body, `"UpdateKeyPair":false`) {
		h.t.Fatalf("role token: %s", got.body)
	}
	return identity.Credentials{AccessKeyID: out.AccessKeyID, SecretAccessKey: out.SecretAccessKey, SessionToken: out.SessionToken}
}

func TestRegistration(t *testing.T) {
	h := newHarness(t)
	m := newMachine(t)
	id, code := h.activation(2)
	fixedID, fixedCode := h.activation(1, frontend1)
	takenID, takenCode := h.activation(1, frontend1)
	overID, overCode := h.activation(1)
	weak := m.registration(id, code)
	weak.PublicKeyType = "Dsa"
	bad := m.registration(id, code)
	bad.Fingerprint = "x\n"
	for _, test := range []struct {
		name string
		in   wire.RegisterManagedInstance
		code string
	}{
		{"an unknown activation", m.registration("00000000-0000-0000-0000-000000000000", code), "InvalidActivation"},
		{"a wrong code", m.registration(id, overCode), "InvalidActivation"},
		{"an empty code", m.registration(id, ""), "InvalidActivation"},
		{"a huge code", m.registration(id, strings.Repeat("x", 10_000)), "InvalidActivation"},
		{"a bad key", weak, "InvalidPublicKey"},
		{"a bad fingerprint", bad, "ValidationException"},
		{"the first", m.registration(id, code), ""},
		{"the second", m.registration(id, code), ""},
		{"the third of two", m.registration(id, code), "RegistrationLimitExceeded"},
		{"a fixed id", m.registration(fixedID, fixedCode), ""},
		{"a fixed id that is taken", m.registration(takenID, takenCode), "InstanceAlreadyRegistered"},
	} {
		if got := h.register(test.in); got.code() != test.code {
			t.Errorf("%s: got %s %s, want %q", test.name, got.code(), got.message(), test.code)
		}
	}
	unknown, wrong := h.register(m.registration("nope", code)), h.register(m.registration(id, "nope"))
	if unknown.body != wrong.body || unknown.status != wrong.status {
		t.Errorf("an unknown id and a wrong code can be told apart: %s, %s", unknown.body, wrong.body)
	}
	h.advance(2 * time.Hour)
	if got := h.register(m.registration(overID, overCode)); got.code() != "ActivationExpired" {
		t.Errorf("too late: got %s", got.body)
	}
	n, err := h.store.Node(context.Background(), frontend1)
	h.must(err)
	if n.Name != "web" || n.Tags["Team"] != "payments" || n.IAMRole != "nodes" || n.Fingerprint != m.fingerprint {
		t.Errorf("node: %+v", n)
	}
	if got := len(h.audited(audit.EventNode)); got != 3 {
		t.Errorf("%d registrations were recorded, want 3", got)
	}
	for _, code := range []string{code, fixedCode} {
		if strings.Contains(h.logs.String()+fmt.Sprint(h.audited(audit.EventNode), h.audited(audit.EventLogin)), code) {
			t.Error("an activation code was written down")
		}
	}
}

// Wrong codes are throttled and make no flood of records; a right code passes all the
// same, or one machine could keep the others behind its address from registering.
func TestGuessingActivationCodes(t *testing.T) {
	h := newHarness(t)
	m := newMachine(t)
	id, code := h.activation(1)
	throttled := 0
	for i := range 2 * failuresPerSource {
		if h.register(m.registration(id, fmt.Sprintf("guess-%020d", i))).code() == "ThrottlingException" {
			throttled++
		}
	}
	if throttled != failuresPerSource {
		t.Errorf("%d of %d guesses were throttled", throttled, 2*failuresPerSource)
	}
	if got := h.register(m.registration("unknown", code)); got.code() != "ThrottlingException" {
		t.Errorf("another activation's id while throttled: got %s", got.body)
	}
	if got := h.register(m.registration(id, code)); got.code() != "" {
		t.Errorf("right code while throttled: got %s", got.body)
	}
	if got := len(h.audited(audit.EventLogin)); got == 0 || got > 3 {
		t.Errorf("%d records of the guesses, want one and no flood", got)
	}
	h.advance(failureWindow)
	if got := h.register(m.registration(id, "guess-again")); got.code() != "InvalidActivation" {
		t.Errorf("wrong code a minute later: got %s", got.body)
	}
}

func TestSourceKey(t *testing.T) {
	for ip, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "2001:db8:1:2::1": "2001:db8:1:2::/64", "": "",
	} {
		if got := sourceKey(ip); got != want {
			t.Errorf("%q: got %q, want %q", ip, got, want)
		}
	}
}

// A machine made from an image shows the key of the original with a fingerprint of
// its own: it gets no credentials, and the original keeps its.
func TestClonesAreToldApart(t *testing.T) {
	h := newHarness(t)
	m := h.agent()
	clone := *m
	clone.fingerprint = "0f0f0f0f-8e5a-4d7c-9a55-0d6f3f1a2b3c"
	got := h.rsaSigned(&clone, "AmazonSSM.RequestManagedInstanceRoleToken", wire.RequestManagedInstanceRoleToken{Fingerprint: clone.fingerprint})
	if got.code() != "MachineFingerprintDoesNotMatch" {
		t.Errorf("clone: got %s", got.body)
	}
	h.roleToken(m)
	if len(h.audited(audit.EventLogin)) == 0 {
		t.Error("the copy was not recorded")
	}
}

// Credentials that were stolen from a node cannot renew themselves, nor replace the
// node's key: both need the key that never leaves it.
func TestStolenCredentialsEnd(t *testing.T) {
	h := newHarness(t)
	m := h.agent()
	thief := newMachine(t)
	for target, in := range map[string]any{
		"AmazonSSM.RequestManagedInstanceRoleToken": wire.RequestManagedInstanceRoleToken{Fingerprint: m.fingerprint},
		"AmazonSSM.UpdateManagedInstancePublicKey":  wire.UpdateManagedInstancePublicKey{NewPublicKey: thief.publicKey(), NewPublicKeyType: "Rsa"},
	} {
		if got := h.json(m.credentials, target, in); got.code() != "AccessDeniedException" {
			t.Errorf("%s: got %d %s", target, got.status, got.body)
		}
	}
	h.advance(roleTokenLifetime)
	if got := h.json(m.credentials, "AmazonSSM.UpdateInstanceInformation", wire.UpdateInstanceInformation{InstanceID: m.id}); got.code() != "ExpiredTokenException" {
		t.Errorf("after an hour: got %s", got.body)
	}
}

func TestKeyRotation(t *testing.T) {
	h := newHarness(t)
	m := h.agent()
	next := newMachine(t)
	next.id, next.fingerprint = m.id, m.fingerprint
	if got := h.rsaSigned(m, "AmazonSSM.UpdateManagedInstancePublicKey", wire.UpdateManagedInstancePublicKey{NewPublicKey: next.publicKey(), NewPublicKeyType: "Rsa"}); got.code() != "" {
		t.Fatal(got.body)
	}
	h.roleToken(next)
	if got := h.rsaSigned(m, "AmazonSSM.RequestManagedInstanceRoleToken", wire.RequestManagedInstanceRoleToken{Fingerprint: m.fingerprint}); got.code() != "InvalidSignatureException" {
		t.Errorf("the old key: got %s", got.body)
	}
}

// A node acts for itself only; people do not act for nodes, nor nodes as people.
func TestNodesActForThemselves(t *testing.T) {
	h := newHarness(t)
	m, other := h.agent(), h.agent()
	admin := h.user("admin", nil, allowAll)
	for _, test := range []struct {
		name, target string
		who          identity.Credentials
		in           any
		code         string
	}{
		{"own report", "AmazonSSM.UpdateInstanceInformation", m.credentials, wire.UpdateInstanceInformation{InstanceID: m.id}, ""},
		{"another's report", "AmazonSSM.UpdateInstanceInformation", m.credentials, wire.UpdateInstanceInformation{InstanceID: other.id, ComputerName: "evil"}, "AccessDeniedException"},
		{"a person's report", "AmazonSSM.UpdateInstanceInformation", admin, wire.UpdateInstanceInformation{InstanceID: m.id}, "AccessDeniedException"},
		{"another's associations", "AmazonSSM.ListInstanceAssociations", m.credentials, map[string]string{"InstanceId": other.id}, "AccessDeniedException"},
		{"another's inventory", "AmazonSSM.PutInventory", m.credentials, map[string]any{"InstanceId": other.id, "Items": []int{}}, "AccessDeniedException"},
		{"own associations", "AmazonSSM.ListInstanceAssociations", m.credentials, map[string]any{"InstanceId": m.id, "MaxResults": 20}, ""},
		{"another's messages", "EC2WindowsMessageDeliveryService.GetMessages", m.credentials, map[string]string{"Destination": other.id}, "AccessDeniedException"},
		{"own tags", "AmazonSSM.AddTagsToResource", m.credentials, map[string]any{"ResourceType": "ManagedInstance", "ResourceId": m.id, "Tags": []tag{{"Team", "search"}}}, "AccessDeniedException"},
		{"listing nodes", "AmazonSSM.DescribeInstanceInformation", m.credentials, map[string]any{}, "AccessDeniedException"},
		{"deregistering itself", "AmazonSSM.DeregisterManagedInstance", m.credentials, map[string]any{"InstanceId": m.id}, "AccessDeniedException"},
		{"reading a document", "AmazonSSM.GetDocument", m.credentials, map[string]any{"Name": "AWS-StartSSHSession"}, ""},
		{"writing a document", "AmazonSSM.CreateDocument", m.credentials, map[string]any{"Name": "Mine", "Content": "{}"}, "AccessDeniedException"},
		{"acknowledging", "EC2WindowsMessageDeliveryService.AcknowledgeMessage", m.credentials, map[string]string{"MessageId": "aws.ssm.x"}, ""},
	} {
		if got := h.json(test.who, test.target, test.in); got.code() != test.code {
			t.Errorf("%s: got %s %s, want %q", test.name, got.code(), got.message(), test.code)
		}
	}
	n, err := h.store.Node(context.Background(), other.id)
	h.must(err)
	if n.ComputerName != "" || n.Tags["Team"] != "payments" {
		t.Errorf("the other node was changed: %+v", n)
	}
}

// Whatever an agent reports is accepted, for a refused first report makes agents
// sleep; what is kept of it fits, and cannot write to a terminal.
func TestReportsAreTamed(t *testing.T) {
	h := newHarness(t)
	m := h.agent()
	got := h.json(m.credentials, "AmazonSSM.UpdateInstanceInformation", wire.UpdateInstanceInformation{
		AgentName: strings.Repeat("a", 5000), AgentVersion: "not.a.version", PlatformType: "linux",
		PlatformName: "Debian \x1b[31mred\x1b[0m\r\n", ComputerName: "front\u200b\nfront-2", IPAddress: "10.0.0.1; rm -rf /",
	})
	if got.code() != "" {
		t.Fatal(got.body)
	}
	n, err := h.store.Node(context.Background(), m.id)
	h.must(err)
	if len(n.AgentName) != 128 || n.AgentVersion != "" || n.PlatformType != "Linux" || n.PlatformName != "Debian [31mred[0m" ||
		n.ComputerName != "" || n.IPAddress != "" || !n.LastPing.Equal(h.clock()) {
		t.Errorf("kept %+v", n)
	}
}

func TestReportsAreWrittenOnceAMinute(t *testing.T) {
	h := newHarness(t)
	m := h.agent()
	report := wire.UpdateInstanceInformation{InstanceID: m.id, AgentName: "sallyport-agent"}
	first := h.clock()
	for range 5 {
		h.json(m.credentials, "AmazonSSM.UpdateInstanceInformation", report)
		h.advance(time.Second)
	}
	n, err := h.store.Node(context.Background(), m.id)
	h.must(err)
	if !n.LastPing.Equal(first) {
		t.Errorf("the row was written again after %v", n.LastPing.Sub(first))
	}
}

// A poll is held, one at a time for a node, and ends when the server does.
func TestPollsAreHeldAndLetGo(t *testing.T) {
	h := newHarness(t)
	m := h.agent()
	poll := func() <-chan answer {
		done := make(chan answer, 1)
		r := h.signed(m.credentials, h.jsonRequest("EC2WindowsMessageDeliveryService.GetMessages",
			map[string]any{"Destination": m.id, "MessagesRequestId": "r", "VisibilityTimeoutInSeconds": 10}))
		go func() { done <- h.send(r) }()
		return done
	}
	first := poll()
	waitForPoll(t, h, m.id, nil)
	h.server.agents.mu.Lock()
	held := h.server.agents.polls[m.id]
	h.server.agents.mu.Unlock()
	second := poll()
	if got := <-first; got.code() != "" || !strings.Contains(got.body, `"Messages":[]`) {
		t.Errorf("the replaced poll: got %s", got.body)
	}
	waitForPoll(t, h, m.id, held)
	h.server.EndPolls()
	if got := <-second; got.code() != "" {
		t.Errorf("the poll at shutdown: got %s", got.body)
	}
	if got := <-poll(); got.code() != "" {
		t.Errorf("a poll after shutdown: got %s", got.body)
	}
}

// waitForPoll waits until a node has a poll other than before.
func waitForPoll(t *testing.T, h *harness, id string, before chan struct{}) {
	t.Helper()
	for range 500 {
		h.server.agents.mu.Lock()
		now := h.server.agents.polls[id]
		h.server.agents.mu.Unlock()
		if now != nil && now != before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no poll came")
}

// What is deregistered is out at once: key, credentials and all.
func TestDeregisteredNodesAreOut(t *testing.T) {
	h := newHarness(t)
	m := h.agent()
	admin := h.user("admin", nil, allowAll)
	removed := ""
	h.server.nodeRemoved = func(_ context.Context, id string) error { removed = id; return nil }
	if got := h.json(admin, "AmazonSSM.DeregisterManagedInstance", map[string]string{"InstanceId": m.id}); got.code() != "" {
		t.Fatal(got.body)
	}
	if removed != m.id {
		t.Errorf("channels of %q were closed, want %q", removed, m.id)
	}
	if got := h.json(m.credentials, "AmazonSSM.UpdateInstanceInformation", wire.UpdateInstanceInformation{}); got.code() != "UnrecognizedClientException" {
		t.Errorf("its credentials: got %s", got.body)
	}
	if got := h.rsaSigned(m, "AmazonSSM.RequestManagedInstanceRoleToken", wire.RequestManagedInstanceRoleToken{Fingerprint: m.fingerprint}); got.code() != "UnrecognizedClientException" {
		t.Errorf("its key: got %s", got.body)
	}
	if got := h.json(admin, "AmazonSSM.DeregisterManagedInstance", map[string]string{"InstanceId": m.id}); got.code() != "InvalidInstanceId" {
		t.Errorf("again: got %s", got.body)
	}
}

// A token of a node that was deregistered does not come back to life when its id is
// given to another machine.
func TestOldCredentialsDieWithTheRegistration(t *testing.T) {
	h := newHarness(t)
	register := func() *machine {
		m := newMachine(t)
		id, code := h.activation(1, frontend1)
		if got := h.register(m.registration(id, code)); got.code() != "" {
			t.Fatal(got.body)
		}
		m.id = frontend1
		m.credentials = h.roleToken(m)
		return m
	}
	old := register()
	h.must(h.store.DeleteNode(context.Background(), frontend1))
	h.advance(time.Second)
	register()
	if got := h.json(old.credentials, "AmazonSSM.UpdateInstanceInformation", wire.UpdateInstanceInformation{}); got.code() != "UnrecognizedClientException" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// A name that a node gave itself is told as such, and finds nothing.
func TestReportedNames(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	m := h.agent()
	got := h.json(m.credentials, "AmazonSSM.UpdateInstanceInformation", wire.UpdateInstanceInformation{ComputerName: "front"})
	if got.status != 200 {
		t.Fatal(got.body)
	}
	h.must(h.store.UpdateNode(context.Background(), m.id, func(n *node.Node) error {
		n.Name = ""
		delete(n.Tags, "Name")
		return nil
	}))
	list := h.json(admin, "Sallyport.ListNodes", struct{}{})
	if !strings.Contains(list.body, `"Name":"front","NameReported":true`) {
		t.Errorf("listed as %s", list.body)
	}
	why := h.json(admin, "Sallyport.ExplainAccess", map[string]string{"Action": "ssm:StartSession", "NodeId": "front"})
	if why.code() != "InvalidInstanceId" {
		t.Errorf("explained for %d %s", why.status, why.body)
	}
}
