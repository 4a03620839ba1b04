// Package signintest is a member whose people sign in, and their browsers, for tests.
package signintest

import (
	"context"
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

	"sallyport.dev/factor"
	"sallyport.dev/identity"
	"sallyport.dev/internal/readalong"
	"sallyport.dev/member"
)

// Account is the account of worlds.
const Account = "111111111111"

// World is a member with people, and a clock that tests turn.
type World struct {
	t      *testing.T
	Member *member.Member
	Keeper *factor.Keeper // cheap, on the member's store
	URL    string
	Logs   *readalong.Text

	mu     sync.Mutex
	ahead  time.Duration
	Secret string // of alice's one-time codes; empty while there are none
}

// Now is the clock of the world.
func (w *World) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.ahead)
}

// Advance turns the clock.
func (w *World) Advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead += d
}

// Must ends the test on an error.
func (w *World) Must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// What people and roles of a world have.
const (
	Password    = "correct horse battery"
	MayAssume   = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}}`
	TrustAll    = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + Account + `"},"Action":"sts:AssumeRole"}}`
	TrustNobody = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + Account + `:user/nobody"},"Action":"sts:AssumeRole"}}`
	TrustMFA    = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + Account + `"},"Action":"sts:AssumeRole",
		"Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}}}`
)

// Start starts a member where alice has a password and may assume two of three roles.
func Start(t *testing.T, changes ...func(*member.Config)) *World {
	t.Helper()
	port := freePort(t)
	w := &World{t: t, URL: "http://localhost:" + port, Logs: &readalong.Text{}}
	cfg := member.Config{
		Account: Account, Region: "us-east-1", Member: "m1", DataDir: t.TempDir(), ListenPlain: "localhost:" + port,
		SignIn: &member.SignIn{URL: w.URL, Local: &member.Local{}},
		Logger: slog.New(slog.NewTextHandler(w.Logs, &slog.HandlerOptions{Level: slog.LevelDebug})), Now: w.Now,
	}
	for _, change := range changes {
		change(&cfg)
	}
	w.Must(cfg.Check())
	var err error
	w.Member, err = member.Start(t.Context(), cfg)
	w.Must(err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := w.Member.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	w.Keeper, err = factor.New(factor.Config{Store: w.Member.Store, People: w.Member.Store, Sealer: w.Member.Key, Realm: cfg.Realm(),
		Logger: cfg.Logger, Now: w.Now, URL: w.URL, Cost: factor.Cost{Memory: 8, Passes: 1, Threads: 1}})
	w.Must(err)
	w.User("alice", MayAssume)
	w.Role("Ops", TrustAll)
	w.Role("Reader", TrustAll)
	w.Role("Locked", TrustNobody)
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

// User makes a user with Password and inline policies.
func (w *World) User(name string, policies ...string) identity.User {
	w.t.Helper()
	ctx := w.t.Context()
	u := identity.User{Name: name, ID: identity.NewUserID(), Path: "/", Created: w.Now()}
	w.Must(w.Member.Store.CreateUser(ctx, u))
	for i, p := range policies {
		w.Must(w.Member.Store.PutInlinePolicy(ctx, identity.InlinePolicy{
			Owner: identity.Owner{Kind: identity.OwnerUser, Name: name}, Name: fmt.Sprint("p", i), Document: p}))
	}
	w.Must(w.Keeper.SetPassword(ctx, u, Password, false))
	return u
}

// Role makes a role that others may assume by a trust policy.
func (w *World) Role(name, trust string) {
	w.t.Helper()
	w.Must(w.Member.Store.CreateRole(w.t.Context(), identity.Role{
		Name: name, ID: identity.NewRoleID(), Path: "/", Created: w.Now(), Trust: trust, MaxDuration: time.Hour}))
}

// Enrol gives alice one-time codes.
func (w *World) Enrol() {
	w.t.Helper()
	alice, err := w.Member.Store.User(w.t.Context(), "alice")
	w.Must(err)
	seed, err := w.Keeper.AddTOTP(w.t.Context(), alice, "alice")
	w.Must(err)
	w.Secret = seed.Secret
	w.Must(w.Keeper.EnableTOTP(w.t.Context(), seed.Device, alice, "127.0.0.1", w.Code()))
	w.Advance(time.Minute)
}

// Code is alice's one-time code at this moment.
func (w *World) Code() string {
	w.t.Helper()
	code, err := totp.GenerateCode(w.Secret, w.Now())
	w.Must(err)
	return code
}

// Browser is somebody's browser.
type Browser struct {
	w      *World
	client *http.Client
	Page   string // the last answer's body
	At     *url.URL
	Status int
}

// Browser opens a browser without cookies.
func (w *World) Browser() *Browser {
	jar, err := cookiejar.New(nil)
	w.Must(err)
	return &Browser{w: w, client: &http.Client{Jar: jar}}
}

func (b *Browser) take(res *http.Response, err error) {
	b.w.t.Helper()
	b.w.Must(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	b.w.Must(err)
	b.Page, b.At, b.Status = string(body), res.Request.URL, res.StatusCode
}

// Open opens a page.
func (b *Browser) Open(url string) {
	b.w.t.Helper()
	b.take(b.client.Get(url))
}

var (
	formTag  = regexp.MustCompile(`(?s)<form[^>]*method="post"[^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	inputTag = regexp.MustCompile(`<input[^>]*>`)
	nameAttr = regexp.MustCompile(` name="([^"]*)"`)
	valAttr  = regexp.MustCompile(` value="([^"]*)"`)
)

// Send sends the form of the page that has a field (or button) of the first name, with
// values for its fields: names and values by turns.
func (b *Browser) Send(pairs ...string) {
	b.w.t.Helper()
	b.SendForm(` name="`+pairs[0]+`"`, pairs...)
}

// SendForm sends the first form of the page that holds a text.
func (b *Browser) SendForm(holding string, pairs ...string) {
	b.w.t.Helper()
	for _, f := range formTag.FindAllStringSubmatch(b.Page, -1) {
		if !strings.Contains(f[2], holding) {
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
		to, err := b.At.Parse(html.UnescapeString(f[1]))
		b.w.Must(err)
		b.take(b.client.PostForm(to.String(), values))
		return
	}
	b.w.t.Fatalf("no form with %s on %s:\n%s", holding, b.At, b.Page)
}

// SignIn signs somebody in with a password, and alice with a code where she has any.
func (b *Browser) SignIn(name string) {
	b.w.t.Helper()
	b.Open(b.w.URL + "/sign-in/local")
	b.FinishSignIn(name)
}

// FinishSignIn is SignIn on the page with the password.
func (b *Browser) FinishSignIn(name string) {
	b.w.t.Helper()
	b.Send("user", name, "password", Password)
	if name == "alice" && b.w.Secret != "" {
		b.Send("code", b.w.Code())
		b.w.Advance(time.Minute)
	}
}
