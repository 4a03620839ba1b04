package node_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/identity"
	"sallyport.dev/node"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestIDs(t *testing.T) {
	for id, want := range map[string]bool{
		"i-060ee0879f3ec4eb7":       true,
		"i-060ee087":                true,
		"mi-060ee0879f3ec4eb7":      true,
		"mi-060ee087":               false,
		"i-060EE0879F3EC4EB7":       false,
		"i-060ee0879f3ec4eb":        false,
		"i-060ee0879f3ec4eb7\n":     false,
		"mi-../../etc/passwd000000": false,
		"":                          false,
	} {
		if got := node.ValidID(id); got != want {
			t.Errorf("ValidID(%q): got %v, want %v", id, got, want)
		}
	}
	seen := map[string]bool{}
	for range 1000 {
		id := node.NewID()
		if !node.ValidID(id) || !strings.HasPrefix(id, "mi-") || seen[id] {
			t.Fatalf("NewID gave %q", id)
		}
		seen[id] = true
	}
}

func TestPing(t *testing.T) {
	for _, test := range []struct {
		name string
		node node.Node
		want node.PingStatus
	}{
		{"never reported", node.Node{}, node.Inactive},
		{"just registered and connected", node.Node{Member: "a", ConnectedAt: noon}, node.Online},
		{"reported a minute ago", node.Node{LastPing: noon.Add(-time.Minute)}, node.Online},
		{"reported long ago but connected", node.Node{Member: "a", LastPing: noon.Add(-time.Hour)}, node.Online},
		{"its member died long ago", node.Node{Member: "a", ConnectedAt: noon.Add(-3 * time.Hour), LastPing: noon.Add(-2 * time.Hour)}, node.ConnectionLost},
		{"silent for ten minutes", node.Node{LastPing: noon.Add(-10 * time.Minute)}, node.ConnectionLost},
		{"silent for 31 days", node.Node{LastPing: noon.Add(-31 * 24 * time.Hour)}, node.Inactive},
	} {
		if got := test.node.Ping(noon); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

func TestReportsAreWrittenWhenTheySaySomething(t *testing.T) {
	n := node.Node{ComputerName: "web", AgentVersion: "3.3.40.0", LastPing: noon}
	for _, test := range []struct {
		name   string
		report node.Report
		after  time.Duration
		want   bool
	}{
		{"the same again at once", node.Report{ComputerName: "web"}, time.Second, false},
		{"the empty ping of a starting agent", node.Report{AgentVersion: "3.3.40.0"}, time.Second, false},
		{"a new version", node.Report{AgentVersion: "3.3.41.0"}, time.Second, true},
		{"the same after a minute", node.Report{ComputerName: "web"}, time.Minute, true},
	} {
		if got := n.Stale(test.report, noon.Add(test.after)); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
	n.Apply(node.Report{AgentVersion: "3.3.41.0"}, noon.Add(time.Hour))
	want := node.Node{ComputerName: "web", AgentVersion: "3.3.41.0", LastPing: noon.Add(time.Hour)}
	if diff := cmp.Diff(want, n); diff != "" {
		t.Errorf("Apply (-want +got):\n%s", diff)
	}
}

func TestActivationCheck(t *testing.T) {
	ok := node.Activation{Limit: 2, Expires: noon.Add(time.Hour)}
	for _, test := range []struct {
		name   string
		change func(*node.Activation)
		want   string // part of the error, or empty
	}{
		{"plain", func(*node.Activation) {}, ""},
		{"no registrations", func(a *node.Activation) { a.Limit = 0 }, "RegistrationLimit is 0"},
		{"too many", func(a *node.Activation) { a.Limit = 1001 }, "between 1 and 1000"},
		{"over already", func(a *node.Activation) { a.Expires = noon }, "in the past"},
		{"too long", func(a *node.Activation) { a.Expires = noon.Add(31 * 24 * time.Hour) }, "30 days"},
		{"fixed ids", func(a *node.Activation) { a.NodeIDs = []string{"i-060ee0879f3ec4eb7", "mi-060ee0879f3ec4eb7"} }, ""},
		{"fewer ids than registrations", func(a *node.Activation) { a.NodeIDs = []string{"i-060ee0879f3ec4eb7"} }, "must be equal"},
		{"an id twice", func(a *node.Activation) { a.NodeIDs = []string{"i-060ee0879f3ec4eb7", "i-060ee0879f3ec4eb7"} }, "fixed twice"},
		{"a path for an id", func(a *node.Activation) { a.NodeIDs = []string{"../x", "i-060ee0879f3ec4eb7"} }, "must be i- or mi-"},
	} {
		a := ok
		test.change(&a)
		err := a.Check(noon)
		if got := fmt.Sprint(err); (err == nil) != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestCodes(t *testing.T) {
	code, hash := node.NewCode()
	if len(code) < 20 {
		t.Errorf("code of %d characters, which agents refuse", len(code))
	}
	a := node.Activation{CodeHash: hash}
	if !a.CodeMatches(code) {
		t.Error("the code does not match its own hash")
	}
	for _, wrong := range []string{"", code[1:], strings.ToUpper(code), string(hash)} {
		if a.CodeMatches(wrong) {
			t.Errorf("%q matches", wrong)
		}
	}
	if (node.Activation{}).CodeMatches("") {
		t.Error("the zero activation matches the empty code")
	}
}

func pkix(t *testing.T, pub any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func TestParsePublicKey(t *testing.T) {
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GODEBUG", "rsa1024min=0") // lets the test make what an attacker would
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := pkix(t, &strong.PublicKey)
	for _, test := range []struct{ name, key, kind, want string }{
		{"RSA of 2048 bits", good, "Rsa", ""},
		{"another kind", good, "Ed25519", "must be Rsa"},
		{"RSA of 1024 bits", pkix(t, &weak.PublicKey), "Rsa", "1024 bits"},
		{"an elliptic curve", pkix(t, &curve.PublicKey), "Rsa", "not an RSA key"},
		{"not base64", "@@@", "Rsa", "not base64"},
		{"not DER", "AAAA", "Rsa", "not PKIX"},
		{"empty", "", "Rsa", "not PKIX"},
		{"huge", strings.Repeat("A", 1<<20), "Rsa", "longer than"},
	} {
		_, err := node.ParsePublicKey(test.key, test.kind)
		if (err == nil) != (test.want == "") || !strings.Contains(fmt.Sprint(err), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
		if err != nil && !errors.Is(err, node.ErrInvalidPublicKey) {
			t.Errorf("%s: %v is not ErrInvalidPublicKey", test.name, err)
		}
	}
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add("AAAA", "Rsa")
	f.Fuzz(func(t *testing.T, key, kind string) {
		if pub, err := node.ParsePublicKey(key, kind); err == nil && pub.N.BitLen() < 2048 {
			t.Errorf("accepted a key of %d bits", pub.N.BitLen())
		}
	})
}

func TestAttempts(t *testing.T) {
	now := noon
	a := node.NewAttempts(3, time.Minute, func() time.Time { return now })
	for range 3 {
		if !a.Failed("attacker") {
			t.Fatal("too many before the limit")
		}
	}
	if a.Failed("attacker") {
		t.Error("not too many after the limit")
	}
	if !a.Failed("other") {
		t.Error("another's failures count")
	}
	now = now.Add(time.Minute)
	if !a.Failed("attacker") {
		t.Error("too many in the next window")
	}
}

func TestConditions(t *testing.T) {
	n := node.Node{
		ID: "i-060ee0879f3ec4eb7", ActivationID: "a", IAMRole: "nodes",
		AgentVersion: "3.3.40.0", PlatformType: "Linux", IPAddress: "10.1.2.3", ComputerName: "web-1.example.org",
		Tags:   identity.Tags{"Name": "frontend-1", "Team": "payments, search", "Odd": "a*b"},
		Member: "m", ConnectedAt: noon,
	}
	is := func(key string, values ...string) []node.Condition {
		return []node.Condition{{Key: key, Values: values}}
	}
	like := func(key string, values ...string) []node.Condition {
		return []node.Condition{{Key: key, Values: values, Operator: node.Like}}
	}
	with := func(op node.Operator, key, value string) []node.Condition {
		return []node.Condition{{Key: key, Values: []string{value}, Operator: op}}
	}
	for _, test := range []struct {
		name       string
		vocabulary node.Vocabulary
		conditions []node.Condition
		want       bool
	}{
		{"none", node.SSM(), nil, true},
		{"id", node.SSM(), is("InstanceIds", "i-0", n.ID), true},
		{"another id", node.SSM(), is("InstanceIds", "i-0"), false},
		{"online", node.SSM(), is("PingStatus", "Online"), true},
		{"platform", node.SSM(), is("PlatformTypes", "Windows"), false},
		{"kind", node.SSM(), is("ResourceType", "EC2Instance"), true},
		{"associations do not exist", node.SSM(), is("AssociationStatus", "Success"), false},
		{"tag", node.SSM(), is("tag:Name", "frontend-1"), true},
		{"tags are case sensitive", node.SSM(), is("tag:name", "frontend-1"), false},
		{"one of several values", node.SSM(), is("tag:Team", "search"), true},
		{"all of several values", node.SSM(), is("tag:Team", "payments, search"), true},
		{"part of a value", node.SSM(), is("tag:Team", "pay"), false},
		{"tag key", node.SSM(), is("tag-key", "Team"), true},
		{"stars are text here", node.SSM(), is("tag:Name", "front*"), false},
		{"both conditions", node.SSM(), append(is("tag:Name", "frontend-1"), is("tag:Team", "billing")...), false},
		{"newer agents", node.SSM(), with(node.GreaterThan, "AgentVersion", "3.3.9.0"), true},
		{"older agents", node.SSM(), with(node.LessThan, "AgentVersion", "3.3.9.0"), false},
		{"prefix", node.SSM(), with(node.BeginWith, "AgentVersion", "3.3."), true},
		{"not equal", node.SSM(), with(node.NotEqual, "PlatformTypes", "Windows"), true},
		{"EC2 id", node.EC2(), like("instance-id", "i-060*"), true},
		{"EC2 state", node.EC2(), like("instance-state-name", "running"), true},
		{"EC2 name", node.EC2(), like("tag:Name", "frontend-?"), true},
		{"EC2 name too long", node.EC2(), like("tag:Name", "frontend-??"), false},
		{"EC2 several stars", node.EC2(), like("private-dns-name", "*1*example*"), true},
		{"EC2 escaped star", node.EC2(), like("tag:Odd", `a\*b`), true},
		{"EC2 escaped star is no wild card", node.EC2(), like("tag:Name", `frontend\*`), false},
		{"EC2 address", node.EC2(), like("private-ip-address", "10.1.*"), true},
		{"EC2 tag key", node.EC2(), like("tag-key", "T*m"), true},
	} {
		match, err := test.vocabulary.Compile(test.conditions)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if got := match(n, noon); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
	for _, key := range []string{"", "tag:", "instance-id", "nonsense"} {
		if _, err := node.SSM().Compile(is(key, "x")); err == nil {
			t.Errorf("key %q is accepted", key)
		}
	}
}

// A pattern made to backtrack must not cost more than its length times the text's.
func TestWildcardsDoNotExplode(t *testing.T) {
	n := node.Node{Tags: identity.Tags{"Name": strings.Repeat("a", 256)}}
	match, err := node.EC2().Compile([]node.Condition{{
		Key: "tag:Name", Values: []string{strings.Repeat("*a", 500) + "b"}, Operator: node.Like,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if match(n, noon) {
		t.Error("matched")
	}
}
