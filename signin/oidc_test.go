package signin_test

import (
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/identity"
	"sallyport.dev/signin"
)

// Somebody who was never seen before becomes a user; from then on the provider keeps
// groups and tags up to date, as far as it has a say in them.
func TestPersonFromProvider(t *testing.T) {
	w := newWorld(t, nil)
	w.idp.become(map[string]any{
		"sub": "1", "preferred_username": "alice", "team": []string{"payments", "search"}, "login": "alice",
		"groups": []string{"sre", "web", "0b3f", "admin", "dba", "nowhere"},
	})
	id := w.browser().wantSignedIn("alice")
	u := w.user("alice")
	if got, want := u.Path, "/people/"; got != want {
		t.Errorf("path: got %q, want %q", got, want)
	}
	if diff := cmp.Diff(identity.Tags{"Team": "payments,search", "SSMSessionRunAs": "alice"}, u.Tags); diff != "" {
		t.Errorf("tags (-want +got)\n%s", diff)
	}
	// admin is claimed and there, but nothing lets the provider give it.
	if got, want := w.groupsOf("alice"), "corp-web dba sre"; got != want {
		t.Errorf("groups: got %q, want %q", got, want)
	}
	in, err := w.Get(t.Context(), id)
	w.must(err)
	if in.Method != "oidc corp" || in.User != u.ID || in.Kind != signin.KindBrowser || in.IP != "127.0.0.1" {
		t.Errorf("sign-in: got %+v", in)
	}

	// Local groups and tags stay; the provider's change.
	w.must(w.store.AddMember(t.Context(), "admin", "alice"))
	w.must(w.store.UpdateUser(t.Context(), "alice", func(u *identity.User) error { u.Tags["Floor"] = "3"; return nil }))
	w.idp.become(map[string]any{"sub": "1", "preferred_username": "renamed", "team": "web", "groups": "sre"})
	w.browser().wantSignedIn("alice")
	if diff := cmp.Diff(identity.Tags{"Team": "web", "Floor": "3"}, w.user("alice").Tags); diff != "" {
		t.Errorf("tags after the second sign-in (-want +got)\n%s", diff)
	}
	if got, want := w.groupsOf("alice"), "admin sre"; got != want {
		t.Errorf("groups after the second sign-in: got %q, want %q", got, want)
	}
	if got := len(w.records("sign-in:Enrol")); got != 1 {
		t.Errorf("enrolled %d times, want once", got)
	}
}

// What the provider says must be true of us, of this sign-in, and said by it.
func TestLyingProvider(t *testing.T) {
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, lie := range []struct {
		name    string
		tell    func(*fakeProvider)
		because string
	}{
		{"token of another client", func(p *fakeProvider) { p.lie = func(c map[string]any) { c["aud"] = "them" } }, "ID token is not valid"},
		{"token of several clients without a party", func(p *fakeProvider) { p.lie = func(c map[string]any) { c["aud"] = []string{"us", "them"} } }, "another client"},
		{"token whose party is another client", func(p *fakeProvider) {
			p.lie = func(c map[string]any) { c["aud"], c["azp"] = []string{"us", "them"}, "them" }
		}, "another client"},
		{"token of another issuer", func(p *fakeProvider) { p.lie = func(c map[string]any) { c["iss"] = "https://other.example.com" } }, "ID token is not valid"},
		{"token of another sign-in", func(p *fakeProvider) { p.lie = func(c map[string]any) { c["nonce"] = "x" } }, "another sign-in"},
		{"token without a nonce", func(p *fakeProvider) { p.lie = func(c map[string]any) { delete(c, "nonce") } }, "another sign-in"},
		{"token that has expired", func(p *fakeProvider) { p.lie = func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() } }, "ID token is not valid"},
		{"token without a subject", func(p *fakeProvider) { p.lie = func(c map[string]any) { delete(c, "sub") } }, "no subject"},
		{"token with alg none", func(p *fakeProvider) {
			p.sign = func(_, body string) string { return b64([]byte(`{"alg":"none"}`)) + "." + body + "." }
		}, "ID token is not valid"},
		{"token signed with the client secret", func(p *fakeProvider) { p.sign = signHS256([]byte("secret")) }, "ID token is not valid"},
		{"token signed with the public key as a secret", func(p *fakeProvider) { p.sign = signHS256(p.key.N.Bytes()) }, "ID token is not valid"},
		{"token signed with another key", func(p *fakeProvider) { p.sign = signRS256(other) }, "ID token is not valid"},
		{"answer that names another issuer", func(p *fakeProvider) { p.iss = "https://other.example.com" }, "not from this provider"},
		{"user information of somebody else", func(p *fakeProvider) {
			p.userInfo = func(string) map[string]any { return map[string]any{"sub": "2", "groups": "sre"} }
		}, "somebody else"},
		{"user name that is none", func(p *fakeProvider) { p.claims["preferred_username"] = "../admin" }, "no name of a user"},
		{"team that would be two", func(p *fakeProvider) { p.claims["team"] = "web, payments" }, "cannot be the tag Team"},
		{"team in a list that would be two", func(p *fakeProvider) { p.claims["team"] = []string{"web,payments"} }, "cannot be the tag Team"},
		{"groups that are an object", func(p *fakeProvider) { p.claims["groups"] = map[string]any{"sre": true} }, "neither a text nor a list"},
	} {
		t.Run(lie.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			lie.tell(w.idp)
			b := w.browser()
			b.wantRefused(b.signIn(), lie.because)
			if _, err := w.store.User(t.Context(), "alice"); err == nil {
				t.Error("a user was made")
			}
			if got := w.records("sign-in:Begin"); len(got) != 1 || got[0].Decision != "Refused" {
				t.Errorf("audit: got %+v, want one refusal", got)
			}
		})
	}
}

// An address that the provider has not verified is anybody's.
func TestUnverifiedEmail(t *testing.T) {
	w := newWorld(t, func(c *signin.Config) { c.Providers[0].UserClaim = "email" })
	b := w.browser()
	for _, verified := range []any{nil, false, "true", 1} {
		w.idp.become(map[string]any{"sub": "1", "email": "alice@example.com", "email_verified": verified})
		b.wantRefused(b.signIn(), "not verified")
	}
	w.idp.become(map[string]any{"sub": "1", "email": "alice@example.com", "email_verified": true})
	b.wantSignedIn("alice@example.com")
}

// An address that anybody can write makes nobody the one who is on call, who gets mail, or
// who is let in.
func TestUnverifiedEmailElsewhere(t *testing.T) {
	w := newWorld(t, func(c *signin.Config) { c.Providers[0].Tags["Email"] = "email" })
	b := w.browser()
	for verified, want := range map[any]string{false: "", "true": "", true: "boss@example.com"} {
		w.idp.become(map[string]any{"sub": "1", "preferred_username": "alice", "email": "boss@example.com", "email_verified": verified})
		b.wantSignedIn("alice")
		if got := w.user("alice").Tags["Email"]; got != want {
			t.Errorf("verified %v: got the tag %q, want %q", verified, got, want)
		}
	}
	w = newWorld(t, func(c *signin.Config) { c.Providers[0].Require = map[string][]string{"email": {"boss@example.com"}} })
	b = w.browser()
	w.idp.become(map[string]any{"sub": "1", "preferred_username": "alice", "email": "boss@example.com"})
	b.wantRefused(b.signIn(), "does not let you in")
}

// What the provider gives at its user-info endpoint only counts as well.
func TestUserInfo(t *testing.T) {
	w := newWorld(t, nil)
	w.idp.userInfo = func(sub string) map[string]any {
		return map[string]any{"sub": sub, "groups": []string{"sre"}, "preferred_username": "notthis"}
	}
	w.browser().wantSignedIn("alice")
	if got, want := w.groupsOf("alice"), "sre"; got != want {
		t.Errorf("groups: got %q, want %q", got, want)
	}
}

func TestRequiredClaim(t *testing.T) {
	w := newWorld(t, func(c *signin.Config) { c.Providers[0].Require = map[string][]string{"hd": {"example.com"}} })
	b := w.browser()
	b.wantRefused(b.signIn(), "does not let you in")
	w.idp.become(map[string]any{"sub": "1", "preferred_username": "alice", "hd": "example.com"})
	b.wantSignedIn("alice")
}

// A second factor that the provider saw counts only where it is trusted for that, and
// only with the time.
func TestProviderFactor(t *testing.T) {
	at := time.Now().Add(-time.Minute).Unix()
	for _, c := range []struct {
		trust  bool
		amr    any
		at     any
		factor string
	}{
		{true, []string{"pwd", "otp"}, at, "totp"},
		{true, []string{"otp", "hwk"}, at, "webauthn"},
		{true, []string{"pwd"}, at, ""},
		{true, []string{"otp"}, nil, ""},
		{false, []string{"otp"}, at, ""},
	} {
		w := newWorld(t, func(config *signin.Config) { config.Providers[0].TrustFactors = c.trust })
		w.idp.become(map[string]any{"sub": "1", "preferred_username": "alice", "amr": c.amr, "auth_time": c.at})
		in, err := w.Get(t.Context(), w.browser().wantSignedIn("alice"))
		w.must(err)
		if in.Factor != c.factor || (in.Factor != "") != (in.FactorAt.Unix() == at) {
			t.Errorf("%+v: got %q at %v", c, in.Factor, in.FactorAt)
		}
	}
}

// A factor that a provider says to have seen next year is not new until then.
func TestProviderFactorToCome(t *testing.T) {
	w := newWorld(t, func(config *signin.Config) { config.Providers[0].TrustFactors = true })
	w.idp.become(map[string]any{"sub": "1", "preferred_username": "alice", "amr": []string{"otp"}, "auth_time": time.Now().Add(9000 * time.Hour).Unix()})
	in, err := w.Get(t.Context(), w.browser().wantSignedIn("alice"))
	w.must(err)
	if in.Factor != "totp" || in.FactorAt.After(w.now()) {
		t.Errorf("got %q at %v, want it to be now at the latest", in.Factor, in.FactorAt)
	}
}

// Two people do not become one because they are called the same, whatever the case.
func TestIdentityConfusion(t *testing.T) {
	w := newWorld(t, nil)
	w.must(w.store.CreateUser(t.Context(), identity.User{Name: "Admin", ID: identity.NewUserID(), Path: "/", Created: w.now()}))
	b := w.browser()
	for _, name := range []string{"Admin", "admin", "ADMIN"} {
		w.idp.become(map[string]any{"sub": "1", "preferred_username": name})
		b.wantRefused(b.signIn(), "not linked")
	}
	// The same account at another provider is another account.
	w.idp.become(map[string]any{"sub": "7", "preferred_username": "alice"})
	b.wantSignedIn("alice")
	w.idp2.become(map[string]any{"sub": "7", "preferred_username": "alice"})
	second := w.browser()
	second.wantRefused(second.get("/sign-in/with/other?next=/page"), "not linked")

	// An administrator may link them.
	w.must(w.Link(t.Context(), "corp", "1", w.user("admin").ID, "arn:aws:iam::111111111111:user/root"))
	w.idp.become(map[string]any{"sub": "1", "preferred_username": "whatever"})
	w.browser().wantSignedIn("Admin")
	w.must(w.Unlink(t.Context(), "corp", "1", w.user("admin").ID))
	w.idp.become(map[string]any{"sub": "1", "preferred_username": "admin"})
	third := w.browser()
	third.wantRefused(third.signIn(), "not linked")
}

// callback is where a provider sends a browser that wants to sign in, without going there.
func (b *browser) callback(path string) string {
	b.t.Helper()
	there := b.stay().get(path).Header.Get("Location")
	back := b.stay().get(there).Header.Get("Location")
	if !strings.HasPrefix(back, b.URL()+"/sign-in/callback/") {
		b.t.Fatalf("%s leads to %q and back to %q", path, there, back)
	}
	return back
}

func with(address, key, value string) string {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	q := u.Query()
	q.Set(key, value)
	u.RawQuery = q.Encode()
	return u.String()
}

func queryOf(address, key string) string {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	return u.Query().Get(key)
}

func TestCallbackAttacks(t *testing.T) {
	const corp = "/sign-in/with/corp?next=/page"
	w := newWorld(t, nil)

	t.Run("another state", func(t *testing.T) {
		b := w.browser()
		b.wantRefused(b.get(with(b.callback(corp), "state", "x")), "did not begin it")
	})
	t.Run("state of an attacker's browser (login CSRF)", func(t *testing.T) {
		attacker, victim := w.browser(), w.browser()
		link := attacker.callback(corp)
		victim.wantRefused(victim.get(link), "did not begin it")
		victim.callback(corp) // and where the victim has begun one as well
		victim.wantRefused(victim.get(link), "did not begin it")
	})
	t.Run("code of an attacker's browser (PKCE, nonce)", func(t *testing.T) {
		attacker, victim := w.browser(), w.browser()
		code := queryOf(attacker.callback(corp), "code")
		victim.wantRefused(victim.get(with(victim.callback(corp), "code", code)), "refused the code")
	})
	t.Run("the answer again", func(t *testing.T) {
		b := w.browser()
		link := b.callback(corp)
		if page := b.get(link); page.StatusCode != http.StatusOK {
			t.Fatalf("got %d %s", page.StatusCode, page.text)
		}
		before := w.idp.tokens
		again := b.stay().get(link)
		if again.StatusCode != http.StatusForbidden || w.idp.tokens != before {
			t.Errorf("got %d and %d more tokens, want a refusal and none", again.StatusCode, w.idp.tokens-before)
		}
	})
	t.Run("another provider's answer (mix-up)", func(t *testing.T) {
		b := w.browser()
		link := b.callback(corp)
		b.wantRefused(b.get(strings.Replace(link, "/callback/corp", "/callback/other", 1)), "did not begin it")
		if w.idp2.tokens != 0 {
			t.Error("the code was given to the other provider")
		}
	})
	t.Run("too late", func(t *testing.T) {
		b := w.browser()
		link := b.callback(corp)
		w.pass(11 * time.Minute)
		b.wantRefused(b.get(link), "too long ago")
	})
	t.Run("an error with markup", func(t *testing.T) {
		b := w.browser()
		link := with(b.callback(corp), "error", "<script>alert(1)</script>")
		page := b.get(link)
		b.wantRefused(page, "says: &lt;script&gt;")
		if strings.Contains(page.text, "<script>") {
			t.Errorf("got %s", page.text)
		}
	})
	t.Run("two states", func(t *testing.T) {
		b := w.browser()
		b.wantRefused(b.get(b.callback(corp)+"&state=x"), "did not begin it")
	})
}

// Whoever signs in gets a cookie that nobody had before, and the sign-in of before ends.
func TestSessionFixation(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	first := b.wantSignedIn("alice")
	u, err := url.Parse(w.URL())
	w.must(err)
	before := map[string]string{}
	for _, c := range b.http.Jar.Cookies(u) {
		before[c.Name] = c.Value
	}
	second := b.wantSignedIn("alice")
	for _, c := range b.http.Jar.Cookies(u) {
		if before[c.Name] == c.Value {
			t.Errorf("the cookie %s stayed the same", c.Name)
		}
	}
	in, err := w.Get(t.Context(), first)
	w.must(err)
	if first == second || in.Ended.IsZero() {
		t.Errorf("the first sign-in goes on: %+v", in)
	}

	// A cookie that somebody planted beside the real one makes neither count.
	r, err := http.NewRequest(http.MethodGet, w.URL()+"/page", nil)
	w.must(err)
	r.AddCookie(&http.Cookie{Name: "sallyport-signin", Value: "planted"})
	answer, err := b.http.Do(r)
	w.must(err)
	if page := b.read(answer); page.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %d %s", page.StatusCode, page.text)
	}
}

func TestCookies(t *testing.T) {
	w := newWorld(t, nil)
	for _, c := range w.browser().stay().get("/sign-in/with/corp").Cookies() {
		if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
			t.Errorf("got %+v", c)
		}
	}
	secure := newWorld(t, func(c *signin.Config) { c.URL = "https://sallyport.example.com" })
	r, err := http.NewRequest(http.MethodGet, "http://"+secure.web.Listener.Addr().String()+"/sign-in/with/corp", nil)
	w.must(err)
	r.Host = "evil.example.com"
	answer, err := secure.browser().stay().http.Do(r)
	w.must(err)
	answer.Body.Close()
	for _, c := range answer.Cookies() {
		if !c.Secure || !strings.HasPrefix(c.Name, "__Host-") {
			t.Errorf("over https: got %+v", c)
		}
	}
	// Where the provider is to send the browser to does not depend on what the request says.
	if got, want := queryOf(answer.Header.Get("Location"), "redirect_uri"), "https://sallyport.example.com/sign-in/callback/corp"; got != want {
		t.Errorf("redirect_uri: got %q, want %q", got, want)
	}
}

func TestLocalPath(t *testing.T) {
	for next, want := range map[string]string{
		"/":                             "/",
		"/page?a=b&c=%2F%2Fx":           "/page?a=b&c=%2F%2Fx",
		"/sign-in/device?u=B-C":         "/sign-in/device?u=B-C",
		"":                              "",
		"page":                          "",
		"//evil.example.com":            "",
		"/\\evil.example.com":           "",
		"/\t/evil.example.com":          "",
		"/ /evil.example.com":           "",
		"/\n/evil.example.com":          "",
		"https://evil.example.com":      "",
		"javascript:alert(1)":           "",
		"/é":                            "",
		"/%zz":                          "",
		"/" + strings.Repeat("a", 3000): "",
	} {
		if got := signin.LocalPath(next); got != want {
			t.Errorf("%q: got %q, want %q", next, got, want)
		}
	}
	w := newWorld(t, nil)
	for _, next := range []string{"//evil.example.com", "/\\evil.example.com", "https://evil.example.com/"} {
		page := w.browser().get("/sign-in/with/corp?next=" + url.QueryEscape(next))
		if got, want := page.Request.URL.String(), w.URL()+"/sign-in"; got != want {
			t.Errorf("%q leads to %q, want %q", next, got, want)
		}
	}
}

func FuzzLocalPath(f *testing.F) {
	f.Add("/page?x=1")
	f.Add("//x")
	f.Fuzz(func(t *testing.T, next string) {
		got := signin.LocalPath(next)
		if got == "" {
			return
		}
		base, err := url.Parse("https://sallyport.example.com/sign-in")
		if err != nil {
			t.Fatal(err)
		}
		to, err := base.Parse(got)
		if err != nil || to.Host != base.Host || to.Scheme != base.Scheme || strings.ContainsAny(got, "\\\r\n\t ") {
			t.Errorf("%q leads to %v (%v)", next, to, err)
		}
	})
}

func TestSignOut(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	id := b.wantSignedIn("alice")
	token := tokenIn(t, b.get("/sign-in").text)
	stranger := w.browser()
	stranger.wantSignedIn("alice")
	strange := tokenIn(t, stranger.get("/sign-in").text)
	for name, send := range map[string]func() shown{
		"no token":                func() shown { return b.post("/sign-in/out", url.Values{}) },
		"another browser's token": func() shown { return b.post("/sign-in/out", url.Values{"form_token": {strange}}) },
		"two tokens":              func() shown { return b.post("/sign-in/out", url.Values{"form_token": {token, token}}) },
		"another site": func() shown {
			return b.post("/sign-in/out", url.Values{"form_token": {token}}, "Origin", "https://evil.example.com")
		},
		"a page that hides where it is from": func() shown { return b.post("/sign-in/out", url.Values{"form_token": {token}}, "Origin", "null") },
		"cross-site": func() shown {
			return b.post("/sign-in/out", url.Values{"form_token": {token}}, "Sec-Fetch-Site", "cross-site")
		},
	} {
		if page := send(); page.StatusCode != http.StatusForbidden {
			t.Errorf("%s: got %d", name, page.StatusCode)
		}
		if page := b.get("/page"); page.StatusCode != http.StatusOK {
			t.Fatalf("%s: signed out", name)
		}
	}
	if page := b.get("/sign-in/out"); page.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: got %d", page.StatusCode)
	}
	b.post("/sign-in/out", url.Values{"form_token": {token}}, "Origin", w.URL(), "Sec-Fetch-Site", "same-origin")
	if page := b.get("/page"); page.StatusCode != http.StatusUnauthorized {
		t.Errorf("after signing out: got %d %s", page.StatusCode, page.text)
	}
	if because, err := w.SignIn(t.Context(), id, w.user("alice").ID); err != nil || !strings.Contains(because, "signed out") {
		t.Errorf("credentials of it: got %q, %v", because, err)
	}
}

func TestDisabledPerson(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	b.wantSignedIn("alice")
	w.disable("alice")
	if page := b.get("/page"); page.StatusCode != http.StatusUnauthorized {
		t.Errorf("the cookie: got %d %s", page.StatusCode, page.text)
	}
	fresh := w.browser()
	fresh.wantRefused(fresh.signIn(), "disabled")
}

// Pages cannot be framed, run no scripts, and are kept nowhere.
func TestPageHeaders(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	for _, path := range []string{"/sign-in", "/sign-in/with/nobody"} {
		h := b.get(path).Header
		csp := h.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") ||
			h.Get("X-Frame-Options") != "DENY" || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got %v", path, h)
		}
	}
}

// A stranger cannot fill the audit log: of many refusals a number is kept.
func TestManyRefusals(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	for range 100 {
		b.get("/sign-in/callback/corp?code=x&state=y")
	}
	told := w.records("sign-in:Begin")
	if len(told) != 30 {
		t.Errorf("got %d records of 100 refusals, want 30", len(told))
	}
	w.pass(time.Minute)
	b.get("/sign-in/callback/corp?code=x&state=y")
	repeated := 0
	for _, r := range w.records("sign-in:Begin") {
		if r.Details["repeated"] == "70" && r.Decision == "Refused" && r.SourceIP == "127.0.0.1" {
			repeated++
		}
	}
	if repeated != 1 {
		t.Errorf("got %d records of the 70 others, want 1", repeated)
	}
}
