package member

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/server"
)

const goodConfig = `
account  = "111111111111"
region   = "us-east-1"
data_dir = "/var/lib/sallyport"
listen   = "127.0.0.1:8443"
`

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sallyportd.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadConfig(path)
}

func TestConfigDefaults(t *testing.T) {
	c, err := load(t, goodConfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []struct{ key, got, want string }{
		{"store", c.Store, "sqlite:/var/lib/sallyport/sallyport.db"},
		{"master_key_file", c.MasterKeyFile, "/var/lib/sallyport/master.key"},
		{"recordings.store", c.Recordings.Store, "/var/lib/sallyport/recordings"},
		{"recordings.key", c.Recordings.Key, "/var/lib/sallyport/recordings.key"},
		{"recordings.spool", c.Recordings.Spool, "/var/lib/sallyport/spool"},
		{"disconnect_grace", c.Sessions.disconnectGrace.String(), "1m0s"},
	} {
		if d.got != d.want {
			t.Errorf("%s: got %q, want %q", d.key, d.got, d.want)
		}
	}
}

// A mistake gets one line that names the key and says what is allowed.
func TestConfigMistakes(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"account too short", strings.Replace(goodConfig, "111111111111", "1111", 1), `account: "1111" is not twelve digits`},
		{"region with capitals", strings.Replace(goodConfig, "us-east-1", "US East", 1), `region: "US East" is not a region`},
		{"no listener", strings.Replace(goodConfig, `listen   = "127.0.0.1:8443"`, "", 1), "listen: missing"},
		{"unknown key", goodConfig + `listne = "x"`, "listne"},
		{"plain HTTP for everybody", goodConfig + `listen_plain = "0.0.0.0:80"`, "listen_plain: \"0.0.0.0:80\" is not a loopback address"},
		{"plain HTTP by name", goodConfig + `listen_plain = "sallyport.example.com:80"`, "is not a loopback address"},
		{"metrics for everybody", goodConfig + `listen_admin = ":9480"`, "listen_admin: \":9480\" is not a loopback address"},
		{"advertised over http", goodConfig + `advertise_url = "http://a.example"`, "advertise_url"},
		{"half a certificate", goodConfig + "tls {\n cert_file = \"x\"\n}", "cert_file and key_file go together"},
		{"cluster on SQLite", goodConfig + "nats {\n urls = [\"nats://127.0.0.1:1\"]\n}", "store: members of a cluster share a PostgreSQL database"},
		{"two stores", goodConfig + "store = \"a\"\nstore_file = \"b\"", "store and store_file"},
		{"grace without a unit", goodConfig + "sessions {\n agent_grace = \"60\"\n}", `sessions.agent_grace: "60" is not a duration from 1s to 24h`},
		{"a host as a network", goodConfig + "sessions {\n deny_forward = [\"db.internal\"]\n}", `sessions.deny_forward: "db.internal" is not a network`},
		{"a network with host bits", goodConfig + "sessions {\n allow_forward = [\"10.0.0.1/8\"]\n}", `sessions.allow_forward: "10.0.0.1/8" is not a network`},
		{"an IPv4 network as IPv6", goodConfig + "sessions {\n deny_forward = [\"::ffff:10.0.0.0/104\"]\n}", `is not a network`},
		{"everyone as a proxy", goodConfig + `trusted_proxies = ["0.0.0.0/0"]`, `trusted_proxies: "0.0.0.0/0" trusts everyone`},
		{"SSH without a port", goodConfig + "ssh {\n listen = \"2222\"\n}", `ssh.listen: "2222" is not HOST:PORT`},
		{"SSH suffix with a dot before it", goodConfig + "ssh {\n listen = \":2222\"\n suffix = \".nodes.example.com\"\n}", `ssh.suffix: ".nodes.example.com" is not a domain`},
		{"SSH environment that is no name", goodConfig + "ssh {\n listen = \":2222\"\n environment = [\"LC-*\"]\n}", `ssh.environment: "LC-*"`},
		{"SSH recording of nothing", goodConfig + "ssh {\n listen = \":2222\"\n record_limit_mib = -1\n}", "ssh.record_limit_mib: -1"},
		{"spans in the clear", goodConfig + "tracing {\n endpoint = \"http://otel.example.com/v1/traces\"\n}", "tracing.endpoint: \"otel.example.com:80\" is not a loopback address"},
		{"spans to nowhere", goodConfig + "tracing {\n endpoint = \"otel\"\n}", "tracing.endpoint: want a URL"},
		{"more spans than requests", goodConfig + "tracing {\n endpoint = \"https://otel.example.com/v1/traces\"\n sample = 2\n}", "tracing.sample: 2 is not from 0 to 1"},
		{"member with a dot", goodConfig + `member = "a.b"`, "member: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.text)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want it to contain %q", err, c.want)
			}
		})
	}
}

// A password in the store's URL can stay out of the configuration.
func TestStoreFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte("postgres://u:p@db/sallyport\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := load(t, goodConfig+`store_file = "`+file+`"`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Store, "postgres://u:p@db/sallyport"; got != want {
		t.Errorf("store: got %q, want %q", got, want)
	}
}

// Networks come in any spelling and leave in one.
func TestNetworks(t *testing.T) {
	c, err := load(t, goodConfig+`
trusted_proxies = ["10.1.2.3", "fd00::/8"]
sessions {
  deny_forward  = ["169.254.0.0/16", "FD00:EC2::254"]
  allow_forward = ["10.0.0.0/8"]
}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(c.trustedProxies), "[10.1.2.3/32 fd00::/8]"; got != want {
		t.Errorf("trusted_proxies: got %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(*c.Sessions.forward()), "{[169.254.0.0/16 fd00:ec2::254/128] [10.0.0.0/8]}"; got != want {
		t.Errorf("forward: got %s, want %s", got, want)
	}
}

func TestConfigMenuAndTags(t *testing.T) {
	c, err := load(t, goodConfig+`
menu {
  dimension "Platform" {}
  dimension "Environment" {
    title   = "Stage"
    missing = "not sorted yet"
    order   = ["Production"]
  }
}
tag "Environment" {
  required = true
  pattern  = "[A-Z][a-z]+"
}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []server.MenuDimension{{Key: "Platform"}, {Key: "Environment", Title: "Stage", Missing: "not sorted yet", Order: []string{"Production"}}}
	if diff := cmp.Diff(want, c.Menu.dimensions()); diff != "" {
		t.Errorf("menu (-want +got)\n%s", diff)
	}
	if _, err := load(t, goodConfig+"tag \"A\" {\n pattern = \"(\"\n}\n"); err == nil || !strings.Contains(err.Error(), `tag "A": pattern`) {
		t.Errorf("got %v, want an error about the pattern", err)
	}
}

func TestConfigAWSLogs(t *testing.T) {
	for _, test := range []struct{ block, want string }{
		{`buckets = ["logs", "logs/a/*"]
		log_groups = ["/sallyport/*"]
		s3_endpoint = "http://127.0.0.1:9000"`, ""},
		{`buckets = ["/a"]`, `aws_logs.buckets: "/a"`},
		{`log_groups = [""]`, `aws_logs.log_groups: ""`},
		{`region = "Frankfurt!"`, `aws_logs.region: "Frankfurt!"`},
		{`s3_endpoint = "http://minio.example.com"`, "aws_logs.s3_endpoint:"},
		{`logs_endpoint = "ftp://127.0.0.1"`, "aws_logs.logs_endpoint:"},
		{`logs_endpoint = "https://user:secret@logs.example.com"`, "aws_logs.logs_endpoint:"},
	} {
		_, err := load(t, goodConfig+"\naws_logs {\n"+test.block+"\n}\n")
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: got %v", test.block, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want an error with %s", test.block, err, test.want)
		}
	}
}
