package server

import (
	"net/http"
	"strings"
	"testing"

	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/wire"
)

// Conditions on where a forward leads hold for every spelling, and explanations say the
// same as decisions.
func TestRemoteConditions(t *testing.T) {
	r := newRestricted(t)
	const denied, parameters = "AccessDeniedException", "InvalidParameters"
	allowIf := func(condition string, more ...string) string {
		return `{"Version":"2012-10-17","Statement":[` + strings.Join(append(more,
			`{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{`+condition+`}}`,
			`{"Effect":"Allow","Action":"sallyport:ExplainAccess","Resource":"*"}`), ",") + `]}`
	}
	people := map[string]identity.Credentials{
		"host":    r.user("host", nil, allowIf(`"StringEquals":{"sallyport:RemoteHost":"db.internal"},"NumericEquals":{"sallyport:RemotePort":"5432"}`)),
		"names":   r.user("names", nil, allowIf(`"StringLike":{"sallyport:RemoteHost":"*.internal"}`)),
		"local":   r.user("local", nil, allowIf(`"StringEquals":{"sallyport:RemoteHost":"localhost"}`)),
		"network": r.user("network", nil, allowIf(`"IpAddress":{"sallyport:RemoteAddress":["10.0.0.0/8","fd00::/8"]}`)),
		"but": r.user("but", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*"},
			{"Effect":"Allow","Action":"sallyport:ExplainAccess","Resource":"*"},
			{"Effect":"Deny","Action":"ssm:StartSession","Resource":"*","Condition":{"IpAddress":{"sallyport:RemoteAddress":["10.99.0.0/16","127.0.0.0/8"]}}}]}`),
		"socket": r.user("socket", nil, allowIf(`"StringEquals":{"sallyport:RemoteSocket":"/run/postgresql/.s.PGSQL.5432"}`)),
	}
	const socketDocument = "Sallyport-StartPortForwardingSessionToNodeSocket"
	for _, test := range []struct{ who, document, host, port, code string }{
		{"host", remoteHost, "db.internal", "5432", ""},
		{"host", remoteHost, "DB.Internal.", "5432", ""},
		{"host", remoteHost, "db.internal", "5433", denied},
		{"host", remoteHost, "db2.internal", "5432", denied},
		{"host", remoteHost, "10.0.0.7", "5432", denied},
		{"host", "AWS-StartPortForwardingSession", "", "5432", denied},
		{"host", "", "", "", denied}, // a shell leads nowhere
		{"names", remoteHost, "a.internal", "1", ""},
		{"names", remoteHost, "a.internal.evil.example", "1", denied},
		{"names", remoteHost, "internal", "1", denied},
		{"names", remoteHost, "x%.internal", "1", denied},
		{"local", "AWS-StartPortForwardingSession", "", "80", ""},
		{"local", "AWS-StartSSHSession", "", "22", ""},
		{"local", remoteHost, "LocalHost", "80", ""},
		{"local", remoteHost, "127.0.0.1", "80", denied},
		{"network", remoteHost, "10.1.2.3", "80", ""},
		{"network", remoteHost, "FD00::1", "80", ""},
		{"network", remoteHost, "::ffff:10.1.2.3", "80", ""},
		{"network", remoteHost, "11.1.2.3", "80", denied},
		{"network", remoteHost, "db.internal", "80", denied}, // by name: its address is not known
		{"but", remoteHost, "10.98.0.1", "80", ""},
		{"but", remoteHost, "10.99.0.1", "80", denied},
		{"but", remoteHost, "::ffff:10.99.0.1", "80", denied},
		{"but", remoteHost, "::FFFF:0a63:0001", "80", denied},
		{"but", remoteHost, "db.internal", "80", denied}, // by name it might be denied
		{"but", "AWS-StartPortForwardingSession", "", "80", denied},
		{"but", "", "", "", ""},
		{"socket", socketDocument, "/run/postgresql/.s.PGSQL.5432", "", ""},
		{"socket", socketDocument, "/run/docker.sock", "", denied},
		{"socket", socketDocument, "/run/x/../postgresql/.s.PGSQL.5432", "", denied},
		{"socket", remoteHost, "db", "80", denied},
	} {
		t.Run(strings.Join([]string{test.who, test.document, test.host, test.port}, " "), func(t *testing.T) {
			in := map[string]any{"Target": channelNode}
			params := map[string][]string{}
			if test.document != "" {
				in["DocumentName"] = test.document
			}
			if test.document == socketDocument {
				params["unixSocket"] = []string{test.host}
			} else if test.host != "" {
				params["host"] = []string{test.host}
			}
			if test.port != "" {
				params["portNumber"] = []string{test.port}
			}
			if len(params) > 0 {
				in["Parameters"] = params
			}
			got := r.json(people[test.who], "AmazonSSM.StartSession", in)
			if got.code() != test.code {
				t.Errorf("got %d %s %q, want %q", got.status, got.code(), got.message(), test.code)
			}
			why := r.json(people[test.who], "Sallyport.ExplainAccess", map[string]any{
				"Action": "ssm:StartSession", "NodeId": channelNode, "Document": test.document, "Parameters": params})
			out := decodeInto[explainAccessOutput](t, why)
			if allowed := out.Decision == "Allowed"; allowed != (test.code == "") {
				t.Errorf("ExplainAccess: got %s %q", out.Decision, out.Message)
			}
		})
	}
	// Who may forward anywhere learns what is wrong with an address; nobody gets past it.
	for _, host := range []string{"2130706433", "127.1", "0x7f.1", "0.0.0.0", "::1%lo"} {
		got := r.json(r.admin, "AmazonSSM.StartSession", map[string]any{"Target": channelNode, "DocumentName": remoteHost, "Parameters": map[string][]string{"host": {host}}})
		if got.code() != parameters || !strings.Contains(got.message(), host) {
			t.Errorf("%s: got %s %q", host, got.code(), got.message())
		}
	}
}

// The server's rules for forwards go to the node; addresses are refused at once, and an
// agent that does not know the rules gets no names.
func TestForwardRules(t *testing.T) {
	rules := &wire.ForwardRules{Deny: []string{"10.99.0.0/16"}, Allow: []string{"10.0.0.0/8", "fd00::/8"}}
	r := newRestricted(t, func(c *Config) { c.Forward = rules })
	start := func(host string) answer {
		return r.json(r.admin, "AmazonSSM.StartSession", map[string]any{"Target": channelNode, "DocumentName": remoteHost, "Parameters": map[string][]string{"host": {host}}})
	}
	for host, allowed := range map[string]bool{
		"10.1.2.3": true, "10.99.0.1": false, "::ffff:10.99.0.1": false, "11.0.0.1": false, "fd00::1": true, "fe80::1": false,
		"db.internal": true, "localhost": true,
	} {
		got := start(host)
		if (got.status == http.StatusOK) != allowed {
			t.Errorf("%s: got %d %s, want allowed %v", host, got.status, got.message(), allowed)
		}
		if got.status != http.StatusOK {
			continue
		}
		if told := r.told(); told.Forward == nil || len(told.Forward.Deny) != 1 || len(told.Forward.Allow) != 2 {
			t.Errorf("%s: the node was told the rules %+v", host, told.Forward)
		}
	}
	if got := r.startSession(r.admin, `{"Target":"NODE"}`); got.status != http.StatusOK || r.told().Forward != nil {
		t.Errorf("a shell: got %s", got.body)
	}
	r.must(r.store.UpdateNode(t.Context(), channelNode, func(n *node.Node) error { n.AgentName = "amazon-ssm-agent"; return nil }))
	for host, allowed := range map[string]bool{"db.internal": false, "10.1.2.3": true, "localhost": true} {
		if got := start(host); (got.status == http.StatusOK) != allowed {
			t.Errorf("AWS's agent, %s: got %d %s, want allowed %v", host, got.status, got.message(), allowed)
		}
	}
	got := r.json(r.admin, "AmazonSSM.StartSession", map[string]any{"Target": channelNode,
		"DocumentName": "Sallyport-StartPortForwardingSessionToNodeSocket", "Parameters": map[string][]string{"unixSocket": {"/run/x"}}})
	if got.code() != "InvalidDocument" || !strings.Contains(got.message(), "sallyport-agent") {
		t.Errorf("AWS's agent, a socket: got %s %q", got.code(), got.message())
	}
}

// A login that takes an action of its own is explained by that action.
func TestExplainLogin(t *testing.T) {
	r := newRestricted(t)
	alice := r.user("alice", identity.Tags{runAsTag: "alice"}, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":["ssm:StartSession","sallyport:ExplainAccess"],"Resource":"*"},
		{"Effect":"Allow","Action":"sallyport:RunAs","Resource":"*","Condition":{"StringEquals":{"sallyport:RunAsUser":"postgres"}}}]}`)
	for login, want := range map[string]string{"": "Allowed", "alice": "Allowed", "postgres": "Allowed", "root": "ImplicitlyDenied"} {
		in := map[string]any{"Action": "ssm:StartSession", "NodeId": channelNode, "RunAs": login}
		out := decodeInto[explainAccessOutput](t, r.json(alice, "Sallyport.ExplainAccess", in))
		if out.Decision != want || want != "Allowed" && !strings.Contains(out.Message, "sallyport:RunAs") {
			t.Errorf("%q: got %s %q, want %s", login, out.Decision, out.Message, want)
		}
	}
}
