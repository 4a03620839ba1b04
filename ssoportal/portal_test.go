package ssoportal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"sallyport.dev/audit"
	"sallyport.dev/factor"
	"sallyport.dev/identity"
	"sallyport.dev/member"
)

const account = "111111111111"

// world is a member with people, and a clock that tests turn.
type world struct {
	t      *testing.T
	member *member.Member
	keeper *factor.Keeper
	url    string
	logs   *lockedBuffer

	mu     sync.Mutex
	ahead  time.Duration
	secret string // of alice's one-time codes
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.ahead)
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead += d
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

const (
	password    = "correct horse battery"
	mayAssume   = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}}`
	trustAll    = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + account + `"},"Action":"sts:AssumeRole"}}`
	trustNobody = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + account + `:user/nobody"},"Action":"sts:AssumeRole"}}`
	trustMFA    = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + account + `"},"Action":"sts:AssumeRole",
		"Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}}}`
)

// newWorld starts a member where alice has a password and may assume two of three roles.
func newWorld(t *testing.T, changes ...func(*member.Config)) *world {
	t.Helper()
	port := freePort(t)
	w := &world{t: t, url: "http://localhost:" + port, logs: &lockedBuffer{}}
	cfg := member.Config{
		Account: account, Region: "us-east-1", Member: "m1", DataDir: t.TempDir(), ListenPlain: "localhost:" + port,
		SignIn: &member.SignIn{URL: w.url, Local: &member.Local{}},
		Logger: slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})), Now: w.now,
	}
	for _, change := range changes {
		change(&cfg)
	}
	w.must(cfg.Check())
	var err error
	w.member, err = member.Start(t.Context(), cfg)
	w.must(err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := w.member.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	w.keeper, err = factor.New(factor.Config{Store: w.member.Store, People: w.member.Store, Sealer: w.member.Key, Realm: cfg.Realm(),
		Logger: cfg.Logger, Now: w.now, URL: w.url, Cost: factor.Cost{Memory: 8, Passes: 1, Threads: 1}})
	w.must(err)
	w.user("alice", mayAssume)
	w.role("Ops", trustAll)
	w.role("Reader", trustAll)
	w.role("Locked", trustNobody)
	return w
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (w *world) user(name string, policies ...string) identity.User {
	w.t.Helper()
	ctx := w.t.Context()
	u := identity.User{Name: name, ID: identity.NewUserID(), Path: "/", Created: w.now()}
	w.must(w.member.Store.CreateUser(ctx, u))
	for i, p := range policies {
		w.must(w.member.Store.PutInlinePolicy(ctx, identity.InlinePolicy{
			Owner: identity.Owner{Kind: identity.OwnerUser, Name: name}, Name: fmt.Sprint("p", i), Document: p}))
	}
	w.must(w.keeper.SetPassword(ctx, u, password, false))
	return u
}

func (w *world) role(name, trust string) {
	w.t.Helper()
	w.must(w.member.Store.CreateRole(w.t.Context(), identity.Role{
		Name: name, ID: identity.NewRoleID(), Path: "/", Created: w.now(), Trust: trust, MaxDuration: time.Hour}))
}

// enrol gives alice one-time codes.
func (w *world) enrol() {
	w.t.Helper()
	alice, err := w.member.Store.User(w.t.Context(), "alice")
	w.must(err)
	seed, err := w.keeper.AddTOTP(w.t.Context(), alice, "alice")
	w.must(err)
	w.secret = seed.Secret
	w.must(w.keeper.EnableTOTP(w.t.Context(), seed.Device, alice, "127.0.0.1", w.code()))
	w.advance(time.Minute)
}

func (w *world) code() string {
	w.t.Helper()
	code, err := totp.GenerateCode(w.secret, w.now())
	w.must(err)
	return code
}

// browser is somebody's browser.
type browser struct {
	w      *world
	client *http.Client
	page   string // the last answer's body
	at     *url.URL
	status int
}

func (w *world) browser() *browser {
	jar, err := cookiejar.New(nil)
	w.must(err)
	return &browser{w: w, client: &http.Client{Jar: jar}}
}

func (b *browser) take(res *http.Response, err error) {
	b.w.t.Helper()
	b.w.must(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	b.w.must(err)
	b.page, b.at, b.status = string(body), res.Request.URL, res.StatusCode
}

func (b *browser) open(url string) {
	b.w.t.Helper()
	b.take(b.client.Get(url))
}

var (
	formTag  = regexp.MustCompile(`(?s)<form[^>]*method="post"[^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	inputTag = regexp.MustCompile(`<input[^>]*>`)
	nameAttr = regexp.MustCompile(` name="([^"]*)"`)
	valAttr  = regexp.MustCompile(` value="([^"]*)"`)
)

// send sends the form of the page that has a field (or button) of the first name, with
// values for its fields: names and values by turns.
func (b *browser) send(pairs ...string) {
	b.w.t.Helper()
	for _, f := range formTag.FindAllStringSubmatch(b.page, -1) {
		if !strings.Contains(f[2], ` name="`+pairs[0]+`"`) {
			continue
		}
		values := url.Values{}
		for _, in := range inputTag.FindAllString(f[2], -1) {
			name, value := nameAttr.FindStringSubmatch(in), valAttr.FindStringSubmatch(in)
			if name != nil && value != nil {
				values.Set(html.UnescapeString(name[1]), html.UnescapeString(value[1]))
			}
		}
		for i := 0; i < len(pairs); i += 2 {
			values.Set(pairs[i], pairs[i+1])
		}
		to, err := b.at.Parse(html.UnescapeString(f[1]))
		b.w.must(err)
		b.take(b.client.PostForm(to.String(), values))
		return
	}
	b.w.t.Fatalf("no form with %s on %s:\n%s", pairs[0], b.at, b.page)
}

// signIn signs somebody in with a password, and alice with a code where she has any.
func (b *browser) signIn(name string) {
	b.w.t.Helper()
	b.open(b.w.url + "/sign-in/local")
	b.finishSignIn(name)
}

func (b *browser) finishSignIn(name string) {
	b.w.t.Helper()
	b.send("user", name, "password", password)
	if name == "alice" && b.w.secret != "" {
		b.send("code", b.w.code())
		b.w.advance(time.Minute)
	}
}

// rest calls an endpoint as a program does, and returns the answer's status and members.
func (w *world) rest(method, path, bearer string, in any) (int, map[string]any) {
	w.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		w.must(err)
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, w.url+path, body)
	w.must(err)
	if bearer != "" {
		r.Header.Set("X-Amz-Sso_bearer_token", bearer)
	}
	res, err := http.DefaultClient.Do(r)
	w.must(err)
	defer res.Body.Close()
	out := map[string]any{}
	w.must(json.NewDecoder(res.Body).Decode(&out))
	if res.StatusCode >= 400 {
		out["type"] = res.Header.Get("X-Amzn-Errortype")
	}
	return res.StatusCode, out
}

// program is a program that registered itself.
type program struct{ id, secret string }

func (w *world) register(scopes ...string) program {
	w.t.Helper()
	status, out := w.rest("POST", "/client/register", "", map[string]any{"clientName": "test", "clientType": "public", "scopes": scopes})
	if status != 200 {
		w.t.Fatalf("registering: got %d %v", status, out)
	}
	return program{out["clientId"].(string), out["clientSecret"].(string)}
}

func (w *world) device(p program) map[string]any {
	w.t.Helper()
	status, out := w.rest("POST", "/device_authorization", "", map[string]any{
		"clientId": p.id, "clientSecret": p.secret, "startUrl": w.url})
	if status != 200 {
		w.t.Fatalf("device authorisation: got %d %v", status, out)
	}
	return out
}

func (w *world) token(p program, pairs ...string) (int, map[string]any) {
	w.t.Helper()
	in := map[string]any{"clientId": p.id, "clientSecret": p.secret}
	for i := 0; i < len(pairs); i += 2 {
		in[pairs[i]] = pairs[i+1]
	}
	return w.rest("POST", "/token", "", in)
}

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// signedIn is a program that somebody let in: its tokens.
func (w *world) signedIn(name string, scopes ...string) (program, map[string]any) {
	w.t.Helper()
	p := w.register(scopes...)
	d := w.device(p)
	b := w.browser()
	b.signIn(name)
	b.open(d["verificationUriComplete"].(string))
	b.send("decision", "confirm")
	status, out := w.token(p, "grantType", deviceGrant, "deviceCode", d["deviceCode"].(string))
	if status != 200 {
		w.t.Fatalf("token: got %d %v", status, out)
	}
	return p, out
}

func credentialsPath(role string) string {
	return "/federation/credentials?role_name=" + role + "&account_id=" + account
}

func wantType(t *testing.T, what string, status int, out map[string]any, wantStatus int, wantType string) {
	t.Helper()
	if status != wantStatus || out["type"] != wantType {
		t.Errorf("%s: got %d %v, want %d %s", what, status, out, wantStatus, wantType)
	}
}

func TestDeviceSignIn(t *testing.T) {
	w := newWorld(t)
	w.enrol()
	p := w.register()
	d := w.device(p)
	status, out := w.token(p, "grantType", deviceGrant, "deviceCode", d["deviceCode"].(string))
	wantType(t, "before it is confirmed", status, out, 400, "AuthorizationPendingException")
	b := w.browser()
	b.open(d["verificationUriComplete"].(string))
	b.open(w.url + "/sign-in/local?next=" + url.QueryEscape("/sign-in/device?user_code="+d["userCode"].(string)))
	b.finishSignIn("alice")
	b.send("decision", "confirm")
	status, out = w.token(p, "grantType", deviceGrant, "deviceCode", d["deviceCode"].(string))
	if status != 200 || out["refreshToken"] != nil || out["expiresIn"].(float64) < 3600 {
		t.Fatalf("token: got %d %v", status, out)
	}
	bearer := out["accessToken"].(string)
	status, out = w.rest("GET", "/assignment/accounts?max_result=5", bearer, nil)
	if status != 200 || fmt.Sprint(out["accountList"]) != "[map[accountId:111111111111 accountName:Sallyport]]" {
		t.Errorf("accounts: got %d %v", status, out)
	}
	status, out = w.rest("GET", "/assignment/roles?account_id="+account+"&max_result=1", bearer, nil)
	if status != 200 || fmt.Sprint(out["roleList"]) != "[map[accountId:111111111111 roleName:Ops]]" || out["nextToken"] != "Ops" {
		t.Errorf("roles: got %d %v", status, out)
	}
	status, out = w.rest("GET", "/assignment/roles?account_id="+account+"&next_token=Ops", bearer, nil)
	if status != 200 || fmt.Sprint(out["roleList"]) != "[map[accountId:111111111111 roleName:Reader]]" || out["nextToken"] != nil {
		t.Errorf("more roles: got %d %v", status, out)
	}
	status, out = w.rest("GET", credentialsPath("Ops"), bearer, nil)
	if status != 200 || out["roleCredentials"].(map[string]any)["sessionToken"] == "" {
		t.Errorf("credentials: got %d %v", status, out)
	}
	if strings.Contains(w.logs.String(), bearer) || strings.Contains(w.logs.String(), d["deviceCode"].(string)) {
		t.Error("the log holds a token")
	}
}

// Roles that the person may not assume are neither listed nor given, and each refusal is
// recorded; so is what is given, with its sign-in.
func TestRoleNotAllowed(t *testing.T) {
	w := newWorld(t)
	_, out := w.signedIn("alice")
	bearer := out["accessToken"].(string)
	for role, want := range map[string]string{"Locked": "ForbiddenException", "None": "ForbiddenException", "a%2fb": "InvalidRequestException"} {
		status, out := w.rest("GET", credentialsPath(role), bearer, nil)
		if status < 400 || out["type"] != want {
			t.Errorf("%s: got %d %v", role, status, out)
		}
	}
	status, out := w.rest("GET", "/federation/credentials?role_name=Ops&account_id=222222222222", bearer, nil)
	wantType(t, "another account", status, out, 403, "ForbiddenException")
	w.user("bob")
	_, out = w.signedIn("bob")
	status, out = w.rest("GET", credentialsPath("Ops"), out["accessToken"].(string), nil)
	wantType(t, "without a policy", status, out, 403, "ForbiddenException")
	w.rest("GET", credentialsPath("Ops"), bearer, nil)
	refused, issued := 0, 0
	for r, err := range audit.All(t.Context(), w.member.Store, audit.Filter{Action: "sts:AssumeRole"}) {
		w.must(err)
		if r.Error == "AccessDenied" {
			refused++
		}
		if r.Reason == "credentials issued" && r.Details["sign_in"] != "" {
			issued++
		}
	}
	if refused != 3 || issued != 1 {
		t.Errorf("got %d refusals and %d issues in the audit log", refused, issued)
	}
}

// A second factor that was given at sign-in counts in the role's trust policy.
func TestSecondFactorReachesRoles(t *testing.T) {
	w := newWorld(t)
	w.role("Strong", trustMFA)
	_, out := w.signedIn("alice")
	status, out := w.rest("GET", credentialsPath("Strong"), out["accessToken"].(string), nil)
	wantType(t, "without", status, out, 403, "ForbiddenException")
	w.enrol()
	_, out = w.signedIn("alice")
	if status, out := w.rest("GET", credentialsPath("Strong"), out["accessToken"].(string), nil); status != 200 {
		t.Errorf("with: got %d %v", status, out)
	}
}

// What ends a sign-in ends its tokens and the credentials that came of it.
func TestEndedSignIn(t *testing.T) {
	for name, end := range map[string]func(w *world, bearer string){
		"signed out": func(w *world, bearer string) {
			if status, out := w.rest("POST", "/logout", bearer, nil); status != 200 {
				w.t.Fatalf("got %d %v", status, out)
			}
		},
		"disabled": func(w *world, _ string) {
			w.must(w.member.Store.UpdateUser(w.t.Context(), "alice", func(u *identity.User) error { u.Disabled = true; return nil }))
		},
		"expired": func(w *world, _ string) { w.advance(13 * time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p, out := w.signedIn("alice", "sso:account:access")
			bearer, refresh := out["accessToken"].(string), out["refreshToken"].(string)
			end(w, bearer)
			w.advance(2 * time.Second) // members remember for a second
			status, out := w.rest("GET", credentialsPath("Ops"), bearer, nil)
			wantType(t, "credentials", status, out, 401, "UnauthorizedException")
			status, out = w.token(p, "grantType", "refresh_token", "refreshToken", refresh)
			wantType(t, "refresh", status, out, 400, "InvalidGrantException")
		})
	}
}

func TestRefresh(t *testing.T) {
	w := newWorld(t)
	p, out := w.signedIn("alice", "sso:account:access")
	first, refresh := out["accessToken"].(string), out["refreshToken"].(string)
	w.advance(61 * time.Minute)
	status, out := w.rest("GET", credentialsPath("Ops"), first, nil)
	wantType(t, "an access token past its hour", status, out, 401, "UnauthorizedException")
	status, out = w.token(w.register(), "grantType", "refresh_token", "refreshToken", refresh)
	wantType(t, "another program", status, out, 400, "InvalidGrantException")
	status, out = w.token(p, "grantType", "refresh_token", "refreshToken", first)
	wantType(t, "an access token to refresh with", status, out, 400, "InvalidGrantException")
	status, out = w.rest("GET", credentialsPath("Ops"), refresh, nil)
	wantType(t, "a refresh token as a bearer", status, out, 401, "UnauthorizedException")
	status, out = w.token(p, "grantType", "refresh_token", "refreshToken", refresh)
	if status != 200 {
		t.Fatalf("got %d %v", status, out)
	}
	if status, out := w.rest("GET", credentialsPath("Ops"), out["accessToken"].(string), nil); status != 200 {
		t.Errorf("the next token: got %d %v", status, out)
	}
}

// A program on the person's machine gets a code through the browser, with PKCE.
func TestAuthorizationCode(t *testing.T) {
	w := newWorld(t)
	p := w.register("sso:account:access")
	b := w.browser()
	b.signIn("alice")
	caught := make(chan url.Values, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { caught <- r.URL.Query() })}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	redirect := "http://" + l.Addr().String() + "/oauth/callback"
	const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // RFC 7636, appendix B
	q := url.Values{"response_type": {"code"}, "client_id": {p.id}, "redirect_uri": {redirect}, "state": {"s"},
		"code_challenge_method": {"S256"}, "scopes": {"sso:account:access"}, "code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}}
	b.open(w.url + "/authorize?" + q.Encode())
	b.send("decision", "confirm")
	got := <-caught
	if got.Get("state") != "s" {
		t.Errorf("got %v", got)
	}
	status, out := w.token(p, "grantType", "authorization_code", "code", got.Get("code"), "redirectUri", redirect, "codeVerifier", "wrong")
	wantType(t, "another verifier", status, out, 400, "InvalidGrantException")
	status, out = w.token(p, "grantType", "authorization_code", "code", got.Get("code"), "redirectUri", redirect, "codeVerifier", verifier)
	if status != 200 || out["refreshToken"] == nil {
		t.Fatalf("got %d %v", status, out)
	}
	bearer := out["accessToken"].(string)
	if status, out := w.rest("GET", credentialsPath("Ops"), bearer, nil); status != 200 {
		t.Errorf("got %d %v", status, out)
	}
	status, out = w.token(p, "grantType", "authorization_code", "code", got.Get("code"), "redirectUri", redirect, "codeVerifier", verifier)
	wantType(t, "the code once more", status, out, 400, "InvalidGrantException")
	w.advance(2 * time.Second)
	status, out = w.rest("GET", credentialsPath("Ops"), bearer, nil)
	wantType(t, "what came of a code that was used twice", status, out, 401, "UnauthorizedException")
	b.open(w.url + "/authorize?" + strings.Replace(q.Encode(), "127.0.0.1", "evil.example", 1))
	if b.status == 200 || strings.Contains(b.page, "decision") {
		t.Errorf("a redirect elsewhere: got %d %s", b.status, b.page)
	}
}

// What nobody registered, sealed or sent like a program is refused.
func TestPortalAttacks(t *testing.T) {
	w := newWorld(t)
	p, other := w.register(), w.register()
	status, out := w.token(program{p.id, other.secret}, "grantType", deviceGrant, "deviceCode", "x")
	wantType(t, "another program's secret", status, out, 401, "InvalidClientException")
	status, out = w.token(program{"sallyport", p.secret}, "grantType", deviceGrant, "deviceCode", "x")
	wantType(t, "our own command line's id", status, out, 401, "InvalidClientException")
	status, out = w.token(p, "grantType", deviceGrant, "deviceCode", "x")
	wantType(t, "an invented code", status, out, 400, "InvalidGrantException")
	d := w.device(p)
	status, out = w.token(other, "grantType", deviceGrant, "deviceCode", d["deviceCode"].(string))
	wantType(t, "another program's code", status, out, 400, "InvalidGrantException")
	status, out = w.token(p, "grantType", "password")
	wantType(t, "another grant", status, out, 400, "UnsupportedGrantTypeException")
	for _, bearer := range []string{"", "x", strings.Repeat("A", 5000), p.secret} {
		status, out = w.rest("GET", credentialsPath("Ops"), bearer, nil)
		wantType(t, fmt.Sprintf("bearer %.10q", bearer), status, out, 401, "UnauthorizedException")
	}
	r, err := http.NewRequest("POST", w.url+"/client/register", strings.NewReader(`{"clientName":"x","clientType":"public"}`))
	w.must(err)
	r.Header.Set("Origin", "https://evil.example")
	res, err := http.DefaultClient.Do(r)
	w.must(err)
	res.Body.Close()
	if res.StatusCode != 403 {
		t.Errorf("from a page: got %d", res.StatusCode)
	}
	status, out = w.rest("POST", "/client/register", "", map[string]any{"clientName": strings.Repeat("x", 20<<10), "clientType": "public"})
	wantType(t, "endless", status, out, 400, "InvalidRequestException")
	w.advance(91 * 24 * time.Hour)
	status, out = w.token(p, "grantType", deviceGrant, "deviceCode", "x")
	wantType(t, "a registration of long ago", status, out, 401, "InvalidClientException")
}
