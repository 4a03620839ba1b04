package member

import (
	"strings"
	"testing"
)

func TestAuditConfig(t *testing.T) {
	secret := secretFile(t, "0123456789abcdef", 0o600)
	c, err := load(t, goodConfig+`
audit {
  checkpoint_every = "30s"
  forward "syslog" "siem" {
    address            = "tcp+tls://siem.example.com:6514"
    structured_data_id = "sallyport@12345"
    facility           = 4
    format             = "ocsf"
  }
  forward "webhook" "siem" {
    url         = "https://siem.example.com/hook"
    secret_file = "`+secret+`"
  }
  forward "s3" "lake" {
    url    = "s3://logs/sallyport?region=eu-central-1"
    format = "ecs"
    from   = "now"
  }
}
`)
	if err != nil {
		t.Fatal(err)
	}
	if c.Audit.every.String() != "30s" || len(c.Audit.Forward) != 3 || c.Audit.Forward[1].id() != "webhook/siem" {
		t.Errorf("got %+v", c.Audit)
	}
	if d, err := c.Audit.Forward[2].describe(); err != nil || !d.FromNow {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestAuditMistakes(t *testing.T) {
	secret := secretFile(t, "0123456789abcdef", 0o600)
	forward := func(kind, text string) string {
		return "audit {\n forward \"" + kind + "\" \"x\" {\n" + text + "\n}\n}\n"
	}
	for _, c := range []struct{ name, text, want string }{
		{"too often", "audit {\n checkpoint_every = \"1s\"\n}", `audit.checkpoint_every: "1s" is not a duration from 10s to 24h`},
		{"an unknown kind", forward("kafka", ""), `audit.forward "kafka" "x": "kafka" is none of syslog, webhook, s3`},
		{"an unknown format", forward("syslog", "address = \"tcp+tls://h:1\"\nformat = \"cef\""), `format: "cef" is none of json, ocsf, ecs`},
		{"an unknown beginning", forward("syslog", "address = \"tcp+tls://h:1\"\nfrom = \"yesterday\""), `from: "yesterday"`},
		{"plain TCP to elsewhere", forward("syslog", `address = "tcp://192.0.2.1:514"`), "loopback"},
		{"plain HTTP to elsewhere", forward("webhook", "url = \"http://hooks.example.com\"\nsecret_file = SECRET"), "want https://"},
		{"no secret", forward("webhook", `url = "https://hooks.example.com"`), "secret_file"},
		{"a secret that others can read", forward("webhook", "url = \"https://h\"\nsecret_file = \""+secretFile(t, "0123456789abcdef", 0o644)+`"`), "secret_file"},
		{"a CA that is not there", forward("syslog", "address = \"tcp+tls://h:1\"\nca_file = \"/nonexistent\""), "ca_file"},
		{"half a certificate", forward("syslog", "address = \"tcp+tls://h:1\"\ncert_file = \"/nonexistent\""), "cert_file and key_file go together"},
		{"what another kind has", forward("s3", "url = \"s3://logs\"\naddress = \"tcp+tls://h:1\""), "address: s3 has no use for it; known are format, from, url"},
		{"no bucket", forward("s3", `url = "https://logs"`), "url"},
		{"two of a name", "audit {\n" + strings.Repeat("forward \"s3\" \"x\" {\n url = \"s3://logs\"\n}\n", 2) + "}", "there are two of that name"},
	} {
		_, err := load(t, goodConfig+strings.ReplaceAll(c.text, "SECRET", `"`+secret+`"`))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "0123456789abcdef") {
			t.Errorf("%s: the secret is in the error: %v", c.name, err)
		}
	}
}
