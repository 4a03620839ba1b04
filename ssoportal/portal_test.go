package ssoportal_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/internal/signintest"
)

const account = signintest.Account

// world is a member whose portal programs use.
type world struct {
	*signintest.World
	t *testing.T
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{signintest.Start(t), t}
}

// rest calls an endpoint as a program does, and returns the answer's status and members.
func (w *world) rest(method, path, bearer string, in any) (int, map[string]any) {
	w.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		w.Must(err)
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, w.URL+path, body)
	w.Must(err)
	if bearer != "" {
		r.Header.Set("X-Amz-Sso_bearer_token", bearer)
	}
	res, err := http.DefaultClient.Do(r)
	w.Must(err)
	defer res.Body.Close()
	out := map[string]any{}
	w.Must(json.NewDecoder(res.Body).Decode(&out))
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
		"clientId": p.id, "clientSecret": p.secret, "startUrl": w.URL})
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
	b := w.Browser()
	b.SignIn(name)
	b.Open(d["verificationUriComplete"].(string))
	b.Send("decision", "confirm")
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
	w.Enrol()
	p := w.register()
	d := w.device(p)
	status, out := w.token(p, "grantType", deviceGrant, "deviceCode", d["deviceCode"].(string))
	wantType(t, "before it is confirmed", status, out, 400, "AuthorizationPendingException")
	b := w.Browser()
	b.Open(d["verificationUriComplete"].(string))
	b.Open(w.URL + "/sign-in/local?next=" + url.QueryEscape("/sign-in/device?user_code="+d["userCode"].(string)))
	b.FinishSignIn("alice")
	b.Send("decision", "confirm")
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
	if strings.Contains(w.Logs.String(), bearer) || strings.Contains(w.Logs.String(), d["deviceCode"].(string)) {
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
	w.User("bob")
	_, out = w.signedIn("bob")
	status, out = w.rest("GET", credentialsPath("Ops"), out["accessToken"].(string), nil)
	wantType(t, "without a policy", status, out, 403, "ForbiddenException")
	w.rest("GET", credentialsPath("Ops"), bearer, nil)
	refused, issued := 0, 0
	for r, err := range audit.All(t.Context(), w.Member.Store, audit.Filter{Action: "sts:AssumeRole"}) {
		w.Must(err)
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
	w.Role("Strong", signintest.TrustMFA)
	_, out := w.signedIn("alice")
	status, out := w.rest("GET", credentialsPath("Strong"), out["accessToken"].(string), nil)
	wantType(t, "without", status, out, 403, "ForbiddenException")
	w.Enrol()
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
			w.Must(w.Member.Store.UpdateUser(w.t.Context(), "alice", func(u *identity.User) error { u.Disabled = true; return nil }))
		},
		"expired": func(w *world, _ string) { w.Advance(13 * time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p, out := w.signedIn("alice", "sso:account:access")
			bearer, refresh := out["accessToken"].(string), out["refreshToken"].(string)
			end(w, bearer)
			w.Advance(2 * time.Second) // members remember for a second
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
	w.Advance(61 * time.Minute)
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
	b := w.Browser()
	b.SignIn("alice")
	caught := make(chan url.Values, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.Must(err)
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { caught <- r.URL.Query() })}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	redirect := "http://" + l.Addr().String() + "/oauth/callback"
	const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // RFC 7636, appendix B
	q := url.Values{"response_type": {"code"}, "client_id": {p.id}, "redirect_uri": {redirect}, "state": {"s"},
		"code_challenge_method": {"S256"}, "scopes": {"sso:account:access"}, "code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}}
	b.Open(w.URL + "/authorize?" + q.Encode())
	b.Send("decision", "confirm")
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
	w.Advance(2 * time.Second)
	status, out = w.rest("GET", credentialsPath("Ops"), bearer, nil)
	wantType(t, "what came of a code that was used twice", status, out, 401, "UnauthorizedException")
	b.Open(w.URL + "/authorize?" + strings.Replace(q.Encode(), "127.0.0.1", "evil.example", 1))
	if b.Status == 200 || strings.Contains(b.Page, "decision") {
		t.Errorf("a redirect elsewhere: got %d %s", b.Status, b.Page)
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
	r, err := http.NewRequest("POST", w.URL+"/client/register", strings.NewReader(`{"clientName":"x","clientType":"public"}`))
	w.Must(err)
	r.Header.Set("Origin", "https://evil.example")
	res, err := http.DefaultClient.Do(r)
	w.Must(err)
	res.Body.Close()
	if res.StatusCode != 403 {
		t.Errorf("from a page: got %d", res.StatusCode)
	}
	status, out = w.rest("POST", "/client/register", "", map[string]any{"clientName": strings.Repeat("x", 20<<10), "clientType": "public"})
	wantType(t, "endless", status, out, 400, "InvalidRequestException")
	w.Advance(91 * 24 * time.Hour)
	status, out = w.token(p, "grantType", deviceGrant, "deviceCode", "x")
	wantType(t, "a registration of long ago", status, out, 401, "InvalidClientException")
}
