package ssoportal_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport.dev/client"
	"sallyport.dev/internal/needs"
	"sallyport.dev/internal/readalong"
	"sallyport.dev/wire"
)

// home is the home of somebody who uses the AWS command line.
type home struct {
	w   *world
	cli string
	dir string
	env []string
}

func (w *world) home(cli, config string, env ...string) *home {
	w.t.Helper()
	h := &home{w: w, cli: cli, dir: w.t.TempDir(), env: env}
	w.Must(os.MkdirAll(h.dir+"/.aws", 0o700))
	w.Must(os.WriteFile(h.dir+"/.aws/config", []byte(strings.ReplaceAll(config, "URL", w.URL)), 0o600))
	return h
}

func (h *home) cmd(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.cli, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER="}, h.env...)
	return cmd
}

func (h *home) run(args ...string) string {
	h.w.t.Helper()
	ctx, cancel := context.WithTimeout(h.w.t.Context(), time.Minute)
	defer cancel()
	out, err := h.cmd(ctx, args...).CombinedOutput()
	if err != nil {
		return err.Error() + ": " + string(out)
	}
	return string(out)
}

const legacyProfile = `[profile ops]
sso_start_url = URL/start
sso_region = us-east-1
sso_account_id = 111111111111
sso_role_name = Ops
region = us-east-1
`

const sessionProfile = `[profile ops]
sso_session = mine
sso_account_id = 111111111111
sso_role_name = Ops
region = us-east-1
services = here
[sso-session mine]
sso_start_url = URL/start
sso_region = us-east-1
sso_registration_scopes = sso:account:access
[services here]
sso =
  endpoint_url = URL
sso_oidc =
  endpoint_url = URL
sts =
  endpoint_url = URL
`

const whoAmI = "assumed-role/Ops/alice"

// A profile with sso_start_url works with the token that sallyport login caches, whichever
// way the endpoint is set.
func TestProfileWithCachedToken(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the aws command several times")
	}
	cli := needs.AWS(t)["1"]
	if cli == "" {
		needs.Missing(t, "the aws command, version 1, is not installed")
	}
	w := newWorld(t)
	_, out := w.signedIn("alice")
	token := client.SSOToken{AccessToken: out["accessToken"].(string), Expires: wire.Time{Time: w.Now().Add(time.Hour)}}
	for name, test := range map[string]struct {
		config, cached string
		env            []string
	}{
		"start URL, one endpoint":         {legacyProfile, w.URL + "/start", []string{"AWS_ENDPOINT_URL=" + w.URL}},
		"start URL, endpoints by service": {legacyProfile, w.URL + "/start", []string{"AWS_ENDPOINT_URL_SSO=" + w.URL, "AWS_ENDPOINT_URL_STS=" + w.URL}},
		"start URL, endpoint in profile":  {legacyProfile + "endpoint_url = URL\n", w.URL + "/start", nil},
		"session, services":               {sessionProfile, "mine", nil},
	} {
		h := w.home(cli, test.config, test.env...)
		path, err := client.SaveSSOToken(h.dir+"/.aws/sso/cache", test.cached, w.URL+"/start", "us-east-1", token)
		w.Must(err)
		if got := h.run("--profile", "ops", "sts", "get-caller-identity"); !strings.Contains(got, whoAmI) {
			t.Errorf("%s: got %s", name, got)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, %v", name, info.Mode(), err)
		}
	}
	w.rest("POST", "/logout", token.AccessToken, nil)
	h := w.home(cli, legacyProfile, "AWS_ENDPOINT_URL="+w.URL)
	_, err := client.SaveSSOToken(h.dir+"/.aws/sso/cache", w.URL+"/start", w.URL+"/start", "us-east-1", token)
	w.Must(err)
	if got := h.run("--profile", "ops", "sts", "get-caller-identity"); !strings.Contains(got, "SSO session associated with this profile has expired or is otherwise invalid") {
		t.Errorf("signed out: got %s", got)
	}
}

// The stock command line refreshes its token by itself.
func TestProfileRefreshes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the aws command")
	}
	cli := needs.AWS(t)["1"]
	if cli == "" {
		needs.Missing(t, "the aws command, version 1, is not installed")
	}
	w := newWorld(t)
	p, out := w.signedIn("alice", "sso:account:access")
	h := w.home(cli, sessionProfile)
	cache := h.dir + "/.aws/sso/cache/"
	w.Must(os.MkdirAll(cache, 0o700))
	w.Must(os.WriteFile(cache+client.SSOCacheName("mine"), []byte(`{"startUrl":"`+w.URL+`/start","region":"us-east-1","accessToken":"old","expiresAt":"2026-01-01T00:00:00Z",
		"clientId":"`+p.id+`","clientSecret":"`+p.secret+`","registrationExpiresAt":"2099-01-01T00:00:00Z","refreshToken":"`+out["refreshToken"].(string)+`"}`), 0o600))
	if got := h.run("--profile", "ops", "sts", "get-caller-identity"); !strings.Contains(got, whoAmI) {
		t.Errorf("got %s", got)
	}
	b, err := os.ReadFile(cache + client.SSOCacheName("mine"))
	if err != nil || strings.Contains(string(b), `"old"`) {
		t.Errorf("got cache %s, %v", b, err)
	}
}

// aws sso login of version 2, whose code is on this machine though it is too old to be told
// of endpoints: its data say where they are.
func TestAWSSSOLogin(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the aws command several times")
	}
	cli := needs.AWS(t)["2"]
	if cli == "" {
		needs.Missing(t, "the aws command, version 2, is not installed")
	}
	for name, config := range map[string]string{"start URL": legacyProfile, "session": sessionProfile} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			data := t.TempDir()
			for _, service := range []string{"sso/2019-06-10", "sso-oidc/2019-06-10", "sts/2011-06-15"} {
				w.Must(os.MkdirAll(data+"/"+service, 0o700))
				w.Must(os.WriteFile(data+"/"+service+"/endpoint-rule-set-1.json", []byte(strings.ReplaceAll(ruleSet, "URL", w.URL)), 0o600))
			}
			h := w.home(cli, config, "AWS_DATA_PATH="+data)
			h.login(t)
			if got := h.run("--profile", "ops", "sts", "get-caller-identity"); !strings.Contains(got, whoAmI) {
				t.Errorf("got %s", got)
			}
			if got := h.run("--profile", "ops", "sso", "logout"); strings.Contains(got, "rror") {
				t.Errorf("logout: got %s", got)
			}
			if got := h.run("--profile", "ops", "sts", "get-caller-identity"); strings.Contains(got, whoAmI) {
				t.Errorf("after logout: got %s", got)
			}
		})
	}
}

const ruleSet = `{"version":"1.0","parameters":{
	"Region":{"builtIn":"AWS::Region","required":false,"documentation":"","type":"String"},
	"UseDualStack":{"builtIn":"AWS::UseDualStack","required":true,"default":false,"documentation":"","type":"Boolean"},
	"UseFIPS":{"builtIn":"AWS::UseFIPS","required":true,"default":false,"documentation":"","type":"Boolean"},
	"UseGlobalEndpoint":{"builtIn":"AWS::STS::UseGlobalEndpoint","required":true,"default":false,"documentation":"","type":"Boolean"},
	"Endpoint":{"builtIn":"SDK::Endpoint","required":false,"documentation":"","type":"String"}},
	"rules":[{"conditions":[],"endpoint":{"url":"URL","properties":{"authSchemes":[{"name":"sigv4","signingName":"sts","signingRegion":"us-east-1"}]},"headers":{}},"type":"endpoint"}]}`

var userCode = regexp.MustCompile(`user_code=([A-Z]{4}-[A-Z]{4})`)

// login runs aws sso login and lets it in.
func (h *home) login(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := h.cmd(ctx, "--profile", "ops", "sso", "login", "--no-browser")
	cmd.Env = append(cmd.Env, "PYTHONUNBUFFERED=1")
	var out readalong.Text
	cmd.Stdout, cmd.Stderr = &out, &out
	h.w.Must(cmd.Start())
	for !userCode.MatchString(out.String()) && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
	}
	code := userCode.FindStringSubmatch(out.String())
	if code == nil {
		t.Fatalf("aws sso login showed no code:\n%s", out.String())
	}
	b := h.w.Browser()
	b.SignIn("alice")
	b.Open(h.w.URL + "/sign-in/device?user_code=" + code[1])
	b.Send("decision", "confirm")
	if err := cmd.Wait(); err != nil || !bytes.Contains([]byte(out.String()), []byte("Successfully logged into Start URL")) {
		t.Fatalf("aws sso login: %v\n%s", err, out.String())
	}
}
