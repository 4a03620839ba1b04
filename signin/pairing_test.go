package signin_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/signin"
)

const (
	grantCode    = client.GrantCode
	grantDevice  = client.GrantDevice
	grantRefresh = client.GrantRefresh
)

// waitingDevice begins a device's sign-in with the verifier "v".
func (w *world) waitingDevice(computer string) (deviceCode, userCode string) {
	w.t.Helper()
	status, answer := w.program("/sign-in/device_authorization", url.Values{
		"client_id": {"sallyport"}, "computer": {computer}, "code_challenge": {hash("v")},
	})
	if status != http.StatusOK {
		w.t.Fatalf("got %d %v", status, answer)
	}
	return answer["device_code"].(string), answer["user_code"].(string)
}

func deviceForm(code, secret string) url.Values {
	return url.Values{
		"client_id": {"sallyport"}, "grant_type": {grantDevice}, "device_code": {code}, "code_verifier": {"v"}, "next": {hash(secret)},
	}
}

// redeemDevice asks for a device's sign-in as often as a program may.
func (w *world) redeemDevice(form url.Values) (int, map[string]any) {
	w.t.Helper()
	w.pass(6 * time.Second)
	return w.program("/sign-in/token", form)
}

// decide confirms or refuses a user code in a browser.
func (b *browser) decide(userCode, decision string) shown {
	b.t.Helper()
	page := b.get("/sign-in/device?user_code=" + userCode)
	return b.post("/sign-in/device", url.Values{"form_token": {tokenIn(b.t, page.text)}, "user_code": {userCode}, "decision": {decision}})
}

// signedInDevice signs a device in with a secret and returns the sign-in's id.
func (w *world) signedInDevice(b *browser, secret string) string {
	w.t.Helper()
	code, user := w.waitingDevice("laptop")
	if page := b.decide(user, "confirm"); page.StatusCode != http.StatusOK {
		w.t.Fatalf("confirming: got %d %s", page.StatusCode, page.text)
	}
	status, answer := w.redeemDevice(deviceForm(code, secret))
	if status != http.StatusOK {
		w.t.Fatalf("redeeming: got %d %v", status, answer)
	}
	return answer["sign_in"].(string)
}

func TestDevice(t *testing.T) {
	w := newWorld(t, nil)
	code, user := w.waitingDevice("lap<b>top\x1b[2J")
	form := deviceForm(code, "s1")
	_, answer := w.redeemDevice(form)
	wantError(t, "before anybody has confirmed it", answer, "authorization_pending")
	_, answer = w.program("/sign-in/token", form)
	wantError(t, "too soon", answer, "slow_down")

	b := w.browser()
	// Whoever is not signed in does so first, and comes back to the code.
	page := b.get("/sign-in/device?user_code=" + user)
	if got, want := page.Request.URL.RequestURI(), "/sign-in?next="+url.QueryEscape("/sign-in/device?user_code="+user); got != want {
		t.Errorf("sent to %q, want %q", got, want)
	}
	b.wantSignedIn("alice")
	page = b.get("/sign-in/device?user_code=" + strings.ToLower(strings.ReplaceAll(user, "-", " ")[:4]) + user[5:])
	for _, want := range []string{user, "127.0.0.1", "alice", "lap&lt;b&gt;top[2J", "Go-http-client"} {
		if !strings.Contains(page.text, want) {
			t.Errorf("the page lacks %q:\n%s", want, page.text)
		}
	}
	_, answer = w.redeemDevice(form)
	wantError(t, "after the page was only looked at", answer, "authorization_pending")

	// One click, by form, from a page of ours.
	if page := b.post("/sign-in/device", url.Values{"user_code": {user}, "decision": {"confirm"}}); page.StatusCode != http.StatusForbidden {
		t.Errorf("a form without a token: got %d", page.StatusCode)
	}
	if page := b.decide(user, "confirm"); page.StatusCode != http.StatusOK || !strings.Contains(page.text, "is signed in") {
		t.Fatalf("got %d %s", page.StatusCode, page.text)
	}
	if page := b.get("/sign-in/device?user_code=" + user); page.StatusCode != http.StatusNotFound {
		t.Errorf("the code again: got %d", page.StatusCode)
	}

	for name, change := range map[string]func(url.Values){
		"another program":  func(f url.Values) { f.Set("client_id", "else") },
		"no verifier":      func(f url.Values) { f.Del("code_verifier") },
		"another verifier": func(f url.Values) { f.Set("code_verifier", "w") },
		"as a browser's code": func(f url.Values) {
			f.Set("grant_type", grantCode)
			f.Set("code", code)
			f.Set("redirect_uri", "http://127.0.0.1:1/")
		},
		"another code":        func(f url.Values) { f.Set("device_code", signin.NewSecret()) },
		"a hash that is none": func(f url.Values) { f.Set("next", "x") },
		"no such grant":       func(f url.Values) { f.Set("grant_type", "password") },
	} {
		wrong := deviceForm(code, "s1")
		change(wrong)
		_, answer := w.redeemDevice(wrong)
		wantError(t, name, answer, "invalid_grant")
	}
	status, answer := w.redeemDevice(form)
	if status != http.StatusOK || answer["user"] != "alice" || answer["region"] != "us-east-1" {
		t.Fatalf("got %d %v", status, answer)
	}
	keys := answer["credentials"].(map[string]any)
	if !strings.HasPrefix(keys["AccessKeyId"].(string), "ASIA") {
		t.Errorf("got credentials %v", keys)
	}

	// A code that is used twice was stolen by one of the two.
	id := answer["sign_in"].(string)
	_, answer = w.redeemDevice(deviceForm(code, "s2"))
	wantError(t, "the same code again", answer, "invalid_grant")
	if because, err := w.SignIn(t.Context(), id, w.user("alice").ID); err != nil || !strings.Contains(because, "used twice") {
		t.Errorf("credentials of it: got %q, %v", because, err)
	}
}

func TestDeviceRefusedOrExpired(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	b.wantSignedIn("alice")
	code, user := w.waitingDevice("laptop")
	b.decide(user, "refuse")
	_, answer := w.redeemDevice(deviceForm(code, "s"))
	wantError(t, "refused", answer, "access_denied")

	code, user = w.waitingDevice("laptop")
	w.pass(11 * time.Minute)
	if page := b.get("/sign-in/device?user_code=" + user); page.StatusCode != http.StatusNotFound {
		t.Errorf("confirming too late: got %d", page.StatusCode)
	}
	_, answer = w.redeemDevice(deviceForm(code, "s"))
	wantError(t, "expired", answer, "expired_token")

	// Who confirmed it and is disabled since lets nobody in.
	code, user = w.waitingDevice("laptop")
	b.decide(user, "confirm")
	w.disable("alice")
	_, answer = w.redeemDevice(deviceForm(code, "s"))
	wantError(t, "of somebody disabled", answer, "invalid_grant")
}

// Of programs that redeem a code at the same moment, one is signed in for a while.
func TestRedeemRace(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	b.wantSignedIn("alice")
	code, user := w.waitingDevice("laptop")
	b.decide(user, "confirm")
	r, err := http.NewRequest(http.MethodPost, w.URL(), nil)
	w.must(err)
	r.RemoteAddr = "127.0.0.1:1"
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 8 {
		wg.Go(func() {
			_, err := w.Redeem(r, signin.Redemption{Client: "sallyport", Code: code, Verifier: "v", Secret: hash(fmt.Sprint(i))})
			if err == nil {
				mu.Lock()
				made++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if made != 1 {
		t.Errorf("%d were signed in, want 1", made)
	}
	live, err := w.List(t.Context(), signin.Filter{User: w.user("alice").ID, Live: true, Now: w.now()})
	w.must(err)
	for _, in := range live {
		if in.Kind == signin.KindCLI {
			t.Errorf("the sign-in %s lasts, though its code was stolen", in.ID)
		}
	}
}

// User codes cannot be tried, and not everybody's room taken.
func TestDeviceLimits(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	b.wantSignedIn("alice")
	refused := 0
	for range 30 {
		if b.get("/sign-in/device?user_code=BCDF-GHJK").StatusCode == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused != 10 {
		t.Errorf("of 30 codes %d were refused, want 10", refused)
	}
	begun := 0
	for range 15 {
		if status, _ := w.program("/sign-in/device_authorization", url.Values{"client_id": {"sallyport"}}); status == http.StatusOK {
			begun++
		}
	}
	if begun != 10 {
		t.Errorf("of 15 device codes %d were given, want 10", begun)
	}
	w.pass(time.Minute)
	long := url.Values{"client_id": {"sallyport"}, "code_challenge": {strings.Repeat("x", 10_000)}}
	if status, answer := w.program("/sign-in/device_authorization", long); status == http.StatusOK {
		t.Errorf("a challenge of ten thousand characters is kept: got %v", answer)
	}
	if status, answer := w.program("/sign-in/device_authorization", url.Values{"client_id": {"else"}}); status == http.StatusOK {
		t.Errorf("another program: got %v", answer)
	}
}

// crowded is a store in which as many wait as there is room for, once it is full.
type crowded struct {
	signin.Store
	full *bool
}

func (c crowded) CreatePairing(ctx context.Context, p signin.Pairing, limit int) error {
	if *c.full && limit < 1<<20 {
		return identity.ErrLimit
	}
	return c.Store.CreatePairing(ctx, p, limit)
}

// Who has a /64 of addresses is one place, and device codes that nobody confirms keep
// nobody from signing in through their own browser.
func TestDeviceCodesOfStrangers(t *testing.T) {
	full := false
	w := newWorld(t, func(c *signin.Config) { c.Store = crowded{c.Store, &full} })
	given := 0
	for i := range 30 {
		r, err := http.NewRequest(http.MethodPost, w.URL(), nil)
		w.must(err)
		r.RemoteAddr = fmt.Sprintf("[2001:db8::%x]:1", i+1)
		if _, err := w.StartDevice(r, "sallyport", "", ""); err == nil {
			given++
		}
	}
	if given != 10 {
		t.Errorf("a /64 got %d device codes, want 10", given)
	}
	full = true
	b := w.browser()
	b.wantSignedIn("alice")
	if at := b.letIn(authorizePath(), "confirm"); queryOf(at, "code") == "" {
		t.Errorf("the answer to the program: got %q, want a code", at)
	}
}

const loopback = "http://127.0.0.1:7777/sallyport"

func authorizePath(change ...string) string {
	q := url.Values{
		"response_type": {"code"}, "client_id": {"sallyport"}, "redirect_uri": {loopback}, "state": {"st&ate"},
		"code_challenge": {hash("v")}, "code_challenge_method": {"S256"}, "computer": {"laptop"},
	}
	for i := 0; i+1 < len(change); i += 2 {
		q.Set(change[i], change[i+1])
		if change[i+1] == "" {
			q.Del(change[i])
		}
	}
	return "/sign-in/authorize?" + q.Encode()
}

// letIn lets a program in and returns where its answer goes.
func (b *browser) letIn(path, decision string) string {
	b.t.Helper()
	page := b.get(path)
	answer := b.stay().post(path, url.Values{"form_token": {tokenIn(b.t, page.text)}, "decision": {decision}})
	return answer.Header.Get("Location")
}

func TestAuthorize(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	if page := b.get(authorizePath()); !strings.HasPrefix(page.Request.URL.RequestURI(), "/sign-in?next=%2Fsign-in%2Fauthorize") {
		t.Errorf("nobody signed in: got %s", page.Request.URL)
	}
	b.wantSignedIn("alice")
	page := b.stay().get(authorizePath())
	if page.StatusCode != http.StatusOK || !strings.Contains(page.text, "laptop") || !strings.Contains(page.text, loopback) {
		t.Fatalf("got %d %s", page.StatusCode, page.text)
	}
	if csp := page.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "form-action 'self' http://127.0.0.1:7777") {
		t.Errorf("got %q", csp)
	}
	if to := b.letIn(authorizePath(), "refuse"); !strings.HasPrefix(to, loopback+"?") || queryOf(to, "error") != "access_denied" || queryOf(to, "code") != "" {
		t.Errorf("refused: got %q", to)
	}
	if page := b.stay().post(authorizePath(), url.Values{"decision": {"confirm"}}); page.StatusCode != http.StatusForbidden {
		t.Errorf("a form without a token: got %d", page.StatusCode)
	}
	to := b.letIn(authorizePath(), "confirm")
	if !strings.HasPrefix(to, loopback+"?") || queryOf(to, "state") != "st&ate" || queryOf(to, "iss") != w.URL() {
		t.Fatalf("got %q", to)
	}
	form := func(change ...string) url.Values {
		f := url.Values{
			"client_id": {"sallyport"}, "grant_type": {grantCode}, "code": {queryOf(to, "code")}, "redirect_uri": {loopback},
			"code_verifier": {"v"}, "next": {hash("s")},
		}
		for i := 0; i+1 < len(change); i += 2 {
			f.Set(change[i], change[i+1])
		}
		return f
	}
	for _, wrong := range [][]string{{"code_verifier", "w"}, {"redirect_uri", "http://127.0.0.1:7778/sallyport"}, {"redirect_uri", ""}, {"code", "x"}} {
		_, answer := w.program("/sign-in/token", form(wrong...))
		wantError(t, fmt.Sprint(wrong), answer, "invalid_grant")
	}
	status, answer := w.program("/sign-in/token", form())
	if status != http.StatusOK || answer["user"] != "alice" {
		t.Fatalf("got %d %v", status, answer)
	}
	_, again := w.program("/sign-in/token", form())
	wantError(t, "the same code again", again, "invalid_grant")

	to = b.letIn(authorizePath(), "confirm")
	w.pass(2 * time.Minute)
	_, answer = w.program("/sign-in/token", form())
	wantError(t, "too late", answer, "expired_token")
}

// The answer goes to the person's own machine and nowhere else, and what is wrong with a
// question is told to the person, not to where it comes from.
func TestAuthorizeParameters(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	b.wantSignedIn("alice")
	for _, wrong := range [][]string{
		{"client_id", "else"}, {"client_id", ""}, {"response_type", "token"}, {"code_challenge_method", "plain"},
		{"code_challenge", ""}, {"code_challenge", "short"}, {"redirect_uri", ""}, {"state", strings.Repeat("x", 600)},
		{"redirect_uri", "https://evil.example.com/"},
		{"redirect_uri", "http://evil.example.com/"},
		{"redirect_uri", "http://localhost:7777/"},
		{"redirect_uri", "http://127.0.0.1/"},
		{"redirect_uri", "http://127.0.0.1:0/"},
		{"redirect_uri", "http://127.0.0.1:7777@evil.example.com/"},
		{"redirect_uri", "http://127.0.0.1.evil.example.com:7777/"},
		{"redirect_uri", "http://[::1%25eth0]:7777/"},
		{"redirect_uri", "http://127.0.0.1:7777/?x=y"},
		{"redirect_uri", "http://127.0.0.1:7777/#x"},
		{"redirect_uri", "javascript:alert(1)"},
		{"redirect_uri", "//127.0.0.1:7777/"},
	} {
		page := b.stay().get(authorizePath(wrong...))
		if page.StatusCode != http.StatusBadRequest || page.Header.Get("Location") != "" {
			t.Errorf("%v: got %d to %q", wrong, page.StatusCode, page.Header.Get("Location"))
		}
	}
	if page := b.stay().get(authorizePath() + "&redirect_uri=" + url.QueryEscape(loopback)); page.StatusCode != http.StatusBadRequest {
		t.Errorf("given twice: got %d", page.StatusCode)
	}
}

func refreshForm(token, secret string) url.Values {
	return url.Values{"client_id": {"sallyport"}, "grant_type": {grantRefresh}, "refresh_token": {token}, "next": {hash(secret)}}
}

func TestRefresh(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	browserID := b.wantSignedIn("alice")
	id := w.signedInDevice(b, "s1")
	if _, answer := w.program("/sign-in/token", refreshForm(id+".s1", "s2")); answer["sign_in"] != id {
		t.Fatalf("got %v", answer)
	}
	other := w.signedInDevice(b, "o1")
	_, answer := w.program("/sign-in/token", refreshForm(other+".o1", "s2"))
	wantError(t, "a secret that somebody has", answer, "invalid_grant")
	// The answer was lost; the same question is answered again.
	if _, answer := w.program("/sign-in/token", refreshForm(id+".s1", "s2")); answer["sign_in"] != id {
		t.Errorf("the same again: got %v", answer)
	}
	for name, token := range map[string]string{
		"no token": "", "no secret": id + ".", "no id": ".s2", "another secret": id + ".x", "a browser's": browserID + ".s2", "markup": "<>.s2",
	} {
		_, answer := w.program("/sign-in/token", refreshForm(token, "x"))
		wantError(t, name, answer, "invalid_grant")
	}
	for i := 2; i < 5; i++ {
		if _, answer := w.program("/sign-in/token", refreshForm(fmt.Sprint(id, ".s", i), fmt.Sprint("s", i+1))); answer["sign_in"] != id {
			t.Fatalf("round %d: got %v", i, answer)
		}
	}
	// A token of long ago, by whoever has it.
	_, answer = w.program("/sign-in/token", refreshForm(id+".s2", "thief"))
	wantError(t, "a spent token", answer, "invalid_grant")
	_, answer = w.program("/sign-in/token", refreshForm(id+".s5", "s6"))
	wantError(t, "the good token afterwards", answer, "invalid_grant")
	if because, err := w.SignIn(t.Context(), id, w.user("alice").ID); err != nil || !strings.Contains(because, "used twice") {
		t.Errorf("credentials of it: got %q, %v", because, err)
	}
	if got := w.records("sign-in:End"); len(got) != 1 || got[0].Details["sign_in"] != id {
		t.Errorf("audit: got %+v", got)
	}
}

// A thief who exchanges a token time and again does not make the owner's one that nobody
// knows: it still tells that there are two.
func TestThiefExchangesOften(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	b.wantSignedIn("alice")
	r, err := http.NewRequest(http.MethodPost, w.URL(), nil)
	w.must(err)
	exchange := func(id string, from, to int) error {
		for i := from; i < to; i++ {
			if _, err := w.Refresh(r, fmt.Sprint(id, ".", i), hash(fmt.Sprint(i+1))); err != nil {
				return err
			}
		}
		return nil
	}
	id := w.signedInDevice(b, "0")
	w.must(exchange(id, 0, 70))
	if _, err := w.Refresh(r, id+".0", hash("owner")); !errors.Is(err, signin.ErrReused) {
		t.Errorf("the owner's token: got %v, want it to be known for spent", err)
	}
	if because, err := w.SignIn(t.Context(), id, w.user("alice").ID); err != nil || !strings.Contains(because, "used twice") {
		t.Errorf("credentials of it: got %q, %v", because, err)
	}
	id = w.signedInDevice(b, "1000")
	if err := exchange(id, 1000, 2100); !errors.Is(err, signin.ErrRefused) {
		t.Errorf("without end: got %v, want a refusal", err)
	}
	if because, err := w.SignIn(t.Context(), id, w.user("alice").ID); err != nil || !strings.Contains(because, "too often") {
		t.Errorf("credentials afterwards: got %q, %v", because, err)
	}
}

func TestRefreshEnds(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	b.wantSignedIn("alice")
	for name, end := range map[string]func(id string){
		"ended":   func(id string) { w.must(w.End(t.Context(), id, "by an administrator")) },
		"revoked": func(id string) { w.program("/sign-in/revoke", url.Values{"token": {id + ".revoked"}}) },
		"all of the person's": func(string) {
			_, err := w.EndAll(t.Context(), w.user("alice").ID, "disabled")
			w.must(err)
			b.signIn()
		},
	} {
		id := w.signedInDevice(b, name)
		end(id)
		_, answer := w.program("/sign-in/token", refreshForm(id+"."+name, name+"2"))
		wantError(t, name, answer, "invalid_grant")
		if because, err := w.SignIn(t.Context(), id, w.user("alice").ID); err != nil || because == "" {
			t.Errorf("%s: credentials still hold (%v)", name, err)
		}
	}
	id := w.signedInDevice(b, "s1")
	w.program("/sign-in/revoke", url.Values{"token": {id + ".wrong"}})
	if _, answer := w.program("/sign-in/token", refreshForm(id+".s1", "s2")); answer["sign_in"] != id {
		t.Errorf("after a revocation with a wrong token: got %v", answer)
	}
	w.pass(13 * time.Hour)
	_, answer := w.program("/sign-in/token", refreshForm(id+".s2", "s3"))
	wantError(t, "expired", answer, "expired_token")
	if because, err := w.SignIn(t.Context(), id, w.user("alice").ID); err != nil || !strings.Contains(because, "expired") {
		t.Errorf("credentials of it: got %q, %v", because, err)
	}
	if because, err := w.SignInEnded(t.Context(), id, w.user("alice").ID); err != nil || because != "" {
		t.Errorf("what has begun: got %q, %v", because, err)
	}
}

// Credentials last no longer than the sign-in, and are of nobody else.
func TestTies(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	id := b.wantSignedIn("alice")
	in, err := w.Get(t.Context(), id)
	w.must(err)
	w.pass(11*time.Hour + 30*time.Minute)
	cred, p, err := w.Credentials(t.Context(), in, 0)
	w.must(err)
	if cred.Expires.After(in.Expires) || p.SignIn != id {
		t.Errorf("got credentials until %v, the sign-in lasts until %v", cred.Expires, in.Expires)
	}
	for _, c := range []struct{ id, user, want string }{
		{id, in.User, ""}, {id, "AIDAOTHER", "another person"}, {"si-0", in.User, "not known"},
	} {
		because, err := w.SignIn(t.Context(), c.id, c.user)
		w.must(err)
		if (because == "") != (c.want == "") || !strings.Contains(because, c.want) {
			t.Errorf("%s of %s: got %q, want %q", c.id, c.user, because, c.want)
		}
	}
}

// Programs' endpoints are not for pages of other sites, nor for floods.
func TestProgramEndpoints(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	form := url.Values{"client_id": {"sallyport"}}
	for _, header := range [][]string{{"Origin", "https://evil.example.com"}, {"Origin", w.URL()}, {"Sec-Fetch-Site", "same-origin"}} {
		for _, path := range []string{"/sign-in/token", "/sign-in/device_authorization", "/sign-in/revoke"} {
			if page := b.post(path, form, header...); page.StatusCode != http.StatusForbidden {
				t.Errorf("%s with %v: got %d", path, header, page.StatusCode)
			}
		}
	}
	if page := b.post("/sign-in/token", url.Values{"x": {strings.Repeat("y", 100_000)}}); page.StatusCode != http.StatusBadRequest {
		t.Errorf("a large form: got %d", page.StatusCode)
	}
}
