package local_test

import (
	"html"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"sallyport.dev/audit"
	"sallyport.dev/internal/signintest"
	"sallyport.dev/member"
)

const done = "Until</dt>" // of the page that says who is signed in

func wantPage(t *testing.T, what string, b *signintest.Browser, status int, text string) {
	t.Helper()
	if b.Status != status || !strings.Contains(html.UnescapeString(b.Page), text) {
		t.Errorf("%s: got %d at %s, want %d with %q:\n%s", what, b.Status, b.At, status, text, b.Page)
	}
}

func TestPassword(t *testing.T) {
	w := signintest.Start(t)
	b := w.Browser()
	b.Open(w.URL + "/sign-in")
	if !strings.Contains(b.Page, "/sign-in/local") {
		t.Errorf("passwords are not offered:\n%s", b.Page)
	}
	b.Open(w.URL + "/sign-in/local?next=" + url.QueryEscape("/sign-in/device"))
	b.Send("user", "alice", "password", "wrong")
	wantPage(t, "a wrong password", b, 403, "The name or the password is not right.")
	b.Send("user", "nobody", "password", "wrong")
	wantPage(t, "nobody", b, 403, "The name or the password is not right.")
	b.Send("user", "alice", "password", signintest.Password)
	if b.At.Path != "/sign-in/device" {
		t.Errorf("got to %s:\n%s", b.At, b.Page)
	}
	if strings.Contains(w.Logs.String(), signintest.Password) {
		t.Error("the log holds a password")
	}
}

// Nothing of a sign-in leads elsewhere, and no field of it shows what is not text.
func TestPasswordAttacks(t *testing.T) {
	w := signintest.Start(t)
	for _, next := range []string{"https://evil.example", "//evil.example", `/\evil.example`, "/%0d%0aevil", "javascript:alert(1)"} {
		b := w.Browser()
		b.Open(w.URL + "/sign-in/local?next=" + url.QueryEscape(next))
		b.Send("user", "alice", "password", signintest.Password)
		if !strings.HasPrefix(b.At.String(), w.URL+"/") {
			t.Errorf("%q led to %s", next, b.At)
		}
	}
	b := w.Browser()
	b.Open(w.URL + "/sign-in/local")
	b.Send("user", `"><script>alert(1)</script>`, "password", "my secret password")
	if strings.Contains(b.Page, "<script>alert") {
		t.Errorf("a name becomes script:\n%s", b.Page)
	}
	b.Send("user", "alice", "password", signintest.Password, "form_token", "invented")
	wantPage(t, "another form's token", b, 400, "Begin again")
	for r, err := range audit.All(t.Context(), w.Member.Store, audit.Filter{Event: audit.EventSignIn}) {
		w.Must(err)
		if strings.Contains(r.Details["who"], "script") {
			t.Errorf("the audit log holds what cannot be a name: %v", r.Details)
		}
	}
}

// A password alone gets nobody further who has a second factor.
func TestSecondFactor(t *testing.T) {
	w := signintest.Start(t)
	w.Enrol()
	b := w.Browser()
	b.Open(w.URL + "/sign-in/local")
	b.Send("user", "alice", "password", signintest.Password)
	wantPage(t, "after the password", b, 200, "One-time code of alice")
	half := *b
	b.Open(w.URL + "/sign-in")
	if strings.Contains(b.Page, done) {
		t.Error("signed in with a password alone")
	}
	*b = half
	b.Send("code", "000000")
	wantPage(t, "a wrong code", b, 403, "That is not right.")
	thief := w.Browser()
	thief.Open(w.URL + "/sign-in/local")
	stolen := *b
	stolen.Page = strings.Replace(b.Page, tokenOf(b.Page), tokenOf(thief.Page), 1)
	thief.Page, thief.At = stolen.Page, b.At
	code := w.Code()
	thief.Send("code", code)
	wantPage(t, "the form in another browser", thief, 400, "Begin again")
	b.Send("code", code)
	wantPage(t, "the right code", b, 200, done)
	wantPage(t, "what kind", b, 200, "totp")
	again := w.Browser()
	again.Open(w.URL + "/sign-in/local")
	again.Send("user", "alice", "password", signintest.Password)
	again.Send("code", code)
	wantPage(t, "the same code again", again, 403, "used before")
	w.Advance(11 * time.Minute)
	again.Send("code", w.Code())
	wantPage(t, "eleven minutes after the password", again, 400, "Begin again")
	refused := 0
	for r, err := range audit.All(t.Context(), w.Member.Store, audit.Filter{Action: "sign-in:SecondFactor"}) {
		w.Must(err)
		if r.Decision == "Refused" {
			refused++
		}
	}
	if refused != 2 {
		t.Errorf("got %d records of refused factors", refused)
	}
}

var formToken = regexp.MustCompile(`name="form_token" value="([^"]*)"`)

func tokenOf(page string) string { return formToken.FindStringSubmatch(page)[1] }

// An initial password is good for setting another, once.
func TestInitialPassword(t *testing.T) {
	w := signintest.Start(t)
	bob := w.User("bob")
	const given, own = "given by an administrator", "a password of my own"
	w.Must(w.Keeper.SetPassword(t.Context(), bob, given, true))
	b := w.Browser()
	b.Open(w.URL + "/sign-in/local")
	b.Send("user", "bob", "password", given)
	wantPage(t, "initial", b, 200, "was given by somebody else")
	first := *b
	b.Send("password", "short", "again", "short")
	wantPage(t, "too short", b, 400, "12 or more")
	b.Send("password", own, "again", own+"x")
	wantPage(t, "two different", b, 400, "not the same")
	b.Send("password", own, "again", own)
	wantPage(t, "set", b, 200, done)
	first.Send("password", "by somebody who looked", "again", "by somebody who looked")
	wantPage(t, "the form once more", &first, 400, "Begin again")
	b = w.Browser()
	b.Open(w.URL + "/sign-in/local")
	b.Send("user", "bob", "password", given)
	wantPage(t, "the initial one afterwards", b, 403, "not right")
}

// Where a second factor is demanded, who has none enrols one before they are signed in.
func TestRequireFactor(t *testing.T) {
	w := signintest.Start(t, func(c *member.Config) { c.SignIn.Local.RequireFactor = true })
	b := w.Browser()
	b.Open(w.URL + "/sign-in/local")
	b.Send("user", "alice", "password", signintest.Password)
	wantPage(t, "after the password", b, 200, "Scan this with an authenticator app")
	half := *b
	b.Open(w.URL + "/sign-in")
	if strings.Contains(b.Page, done) {
		t.Error("signed in without a second factor")
	}
	*b = half
	b.Send("code", "000000")
	wantPage(t, "a wrong code", b, 403, "That is not right.")
	seed := regexp.MustCompile(`<code id="seed">([A-Z2-7]+)</code>`).FindStringSubmatch(b.Page)
	code, err := totp.GenerateCode(seed[1], w.Now())
	w.Must(err)
	b.Send("code", code)
	wantPage(t, "enrolled", b, 200, done)
	w.Secret = seed[1]
	w.Advance(time.Minute)
	again := w.Browser()
	again.SignIn("alice")
	wantPage(t, "the next time", again, 200, done)
	half.Send("code", w.Code())
	wantPage(t, "the first form again", &half, 400, "Begin again")
}

// Factors are changed by who showed one a short while ago or, where there is none, has
// just signed in.
func TestFactorsPage(t *testing.T) {
	w := signintest.Start(t)
	b := w.Browser()
	b.Open(w.URL + "/sign-in/factors")
	if b.At.Path != "/sign-in" {
		t.Errorf("nobody: got to %s", b.At)
	}
	b.SignIn("alice")
	w.Advance(16 * time.Minute)
	b.Open(w.URL + "/sign-in/factors")
	wantPage(t, "signed in a while ago", b, 403, "Sign out and in again")
	b = w.Browser()
	b.SignIn("alice")
	b.Open(w.URL + "/sign-in/factors")
	wantPage(t, "just signed in", b, 200, "has no second factor yet")
	b.SendForm(`value="codes"`)
	wantPage(t, "enrolling", b, 200, "data:image/png;base64,")
	seed := regexp.MustCompile(`<code id="seed">([A-Z2-7]+)</code>`).FindStringSubmatch(b.Page)
	w.Secret = seed[1]
	b.Send("code", w.Code())
	wantPage(t, "after enrolling", b, 200, "alice: one-time codes")
	w.Advance(16 * time.Minute)
	b.SendForm(`value="remove"`)
	if b.At.Path != "/sign-in/step-up" {
		t.Errorf("removing a while later: got to %s:\n%s", b.At, b.Page)
	}
	b.Send("code", w.Code())
	b.SendForm(`value="remove"`)
	wantPage(t, "removed", b, 200, "has no second factor yet")
}

// Who sends passwords without end makes neither the audit log nor the work grow with it.
func TestFloodOfPasswords(t *testing.T) {
	w := signintest.Start(t)
	b := w.Browser()
	b.Open(w.URL + "/sign-in/local")
	turned := 0
	for range 700 {
		b.Send("user", "nobody", "password", "wrong")
		if b.Status == 400 {
			turned++
			b.Open(w.URL + "/sign-in/local")
		}
	}
	if turned != 100 {
		t.Errorf("of 700 forms in a minute %d were turned away, want 100", turned)
	}
	records := 0
	for r, err := range audit.All(t.Context(), w.Member.Store, audit.Filter{Event: audit.EventSignIn}) {
		w.Must(err)
		if r.Decision == "Refused" {
			records++
		}
	}
	if records != 30 {
		t.Errorf("got %d records, want 30", records)
	}
}
