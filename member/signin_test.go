package member

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/signin"
)

func TestSignInConfig(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := load(t, goodConfig+`
sign_in {
  url     = "https://sallyport.example.com"
  session = "8h"
  oidc "corp" {
    issuer             = "https://id.example.com"
    client_id          = "sallyport"
    client_secret_file = "`+secret+`"
    groups_claim       = "realm_access.roles"
    groups             = ["sre"]
    group_prefix       = "corp-"
    group "dba" { claimed = "0b3f2c" }
    tag "Team" { claim = "team" }
    require "hd" { values = ["example.com"] }
  }
}`)
	if err != nil {
		t.Fatal(err)
	}
	want := []signin.Provider{{
		Name: "corp", Title: "corp", Issuer: "https://id.example.com", ClientID: "sallyport", ClientSecret: "s3cret",
		Scopes: []string{"profile", "email"}, UserClaim: "preferred_username", GroupsClaim: "realm_access.roles",
		Groups: []string{"sre"}, GroupPrefix: "corp-", GroupNames: map[string]string{"dba": "0b3f2c"},
		Tags: map[string]string{"Team": "team"}, Require: map[string][]string{"hd": {"example.com"}},
	}}
	if diff := cmp.Diff(want, c.SignIn.providers); diff != "" {
		t.Errorf("providers (-want +got)\n%s", diff)
	}
	if got, want := c.SignIn.session, 8*time.Hour; got != want {
		t.Errorf("session: got %v, want %v", got, want)
	}
}

func TestSignInMistakes(t *testing.T) {
	loose := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(loose, []byte("s3cret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	oidc := func(lines string) string {
		return "url = \"https://s.example.com\"\noidc \"corp\" {\nclient_id = \"x\"\n" + lines + "\n}\n"
	}
	const issuer = "issuer = \"https://id.example.com\"\n"
	for name, c := range map[string]struct{ text, want string }{
		"plain http":             {`url = "http://sallyport.example.com"`, "sign_in.url"},
		"a path":                 {`url = "https://sallyport.example.com/x"`, "sign_in.url"},
		"a host only":            {`url = "sallyport.example.com"`, "sign_in.url"},
		"too long":               {"url = \"https://s.example.com\"\nsession = \"9000h\"", "sign_in.session"},
		"no duration":            {"url = \"https://s.example.com\"\nsession = \"long\"", "sign_in.session"},
		"issuer by plain http":   {oidc(`issuer = "http://id.example.com"`), `oidc "corp": issuer`},
		"groups without a claim": {oidc(issuer + `group_prefix = "x-"`), "groups_claim"},
		"a group that is none":   {oidc(issuer + "groups_claim = \"g\"\ngroups = [\"a b\"]"), `group "a b"`},
		"a reserved tag":         {oidc(issuer + `tag "aws:x" { claim = "y" }`), `tag "aws:x"`},
		"a secret for all":       {oidc(issuer + `client_secret_file = "` + loose + `"`), "mode 0644"},
		"no secret":              {oidc(issuer + `client_secret_file = "/nowhere"`), "client_secret_file"},
	} {
		if _, err := load(t, goodConfig+"sign_in {\n"+c.text+"\n}\n"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error about %s", name, err, c.want)
		}
	}
}
