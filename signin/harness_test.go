package signin_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/internal/seal"
	"sallyport.dev/signin"
	"sallyport.dev/store"
)

// world is a server at which people sign in, with a provider that can be made to lie.
type world struct {
	*signin.Service
	t     *testing.T
	web   *httptest.Server
	store *store.Store
	idp   *fakeProvider
	idp2  *fakeProvider

	mu     sync.Mutex
	offset time.Duration
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.offset)
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offset += d
}

// newWorld starts one; change may change its configuration.
func newWorld(t *testing.T, change func(*signin.Config)) *world {
	t.Helper()
	w := &world{t: t}
	w.idp, w.idp2 = newFakeProvider(t, "us", w.now), newFakeProvider(t, "us", w.now)
	logger := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), store.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	log, err := audit.New(t.Context(), st, "test", w.now, logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	key, err := seal.New(seal.Generate())
	if err != nil {
		t.Fatal(err)
	}
	w.store = st
	w.web = httptest.NewUnstartedServer(nil)
	config := signin.Config{
		URL: "http://" + w.web.Listener.Addr().String(), Realm: arn.Realm{Account: "111111111111", Region: "us-east-1"},
		Store: st, Identities: st, Audit: log, Sealer: key, Logger: logger, Now: w.now,
		Providers: []signin.Provider{
			{Name: "corp", Issuer: w.idp.URL, ClientID: "us", ClientSecret: "secret", GroupsClaim: "groups",
				Groups: []string{"sre"}, GroupPrefix: "corp-", GroupNames: map[string]string{"dba": "0b3f"},
				Tags: map[string]string{"Team": "team", "SSMSessionRunAs": "login"}},
			{Name: "other", Issuer: w.idp2.URL, ClientID: "us", ClientSecret: "secret"},
		},
	}
	if change != nil {
		change(&config)
	}
	if w.Service, err = signin.New(config); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for pattern, h := range w.Handlers() {
		mux.Handle(pattern, h)
	}
	mux.HandleFunc("GET /page", func(out http.ResponseWriter, r *http.Request) {
		p, err := w.Visitor(r)
		if err != nil {
			http.Error(out, err.Error(), http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(out, p.Name+" "+p.SignIn)
	})
	w.web.Config.Handler = mux
	w.web.Start()
	t.Cleanup(w.web.Close)
	w.idp.become(map[string]any{"sub": "1", "preferred_username": "alice"})
	for _, g := range []string{"sre", "dba", "corp-web", "admin"} {
		w.must(st.CreateGroup(t.Context(), identity.Group{Name: g, ID: identity.NewGroupID(), Path: "/", Created: w.now()}))
	}
	return w
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// browser is a browser: it keeps cookies and follows redirects, unless told not to.
type browser struct {
	*world
	http *http.Client
}

func (w *world) browser() *browser {
	jar, err := cookiejar.New(nil)
	w.must(err)
	return &browser{w, &http.Client{Jar: jar, Timeout: 10 * time.Second}}
}

// shown is a page with how the browser came to it.
type shown struct {
	*http.Response
	text string
}

func (b *browser) get(path string) shown {
	b.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = b.URL() + path
	}
	answer, err := b.http.Get(path)
	b.must(err)
	return b.read(answer)
}

func (b *browser) read(answer *http.Response) shown {
	b.t.Helper()
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	b.must(err)
	return shown{answer, string(text)}
}

// stay makes the browser not follow redirects.
func (b *browser) stay() *browser {
	c := *b.http
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &browser{b.world, &c}
}

// post sends a form as the page at our address would, header by header.
func (b *browser) post(path string, form url.Values, headers ...string) shown {
	b.t.Helper()
	r, err := http.NewRequest(http.MethodPost, b.URL()+path, strings.NewReader(form.Encode()))
	b.must(err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := b.http.Do(r)
	b.must(err)
	return b.read(answer)
}

var formToken = regexp.MustCompile(`name="form_token" value="([^"]+)"`)

func tokenIn(t *testing.T, page string) string {
	t.Helper()
	m := formToken.FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("no form token in %s", page)
	}
	return m[1]
}

// signIn signs in at the first provider.
func (b *browser) signIn() shown { b.t.Helper(); return b.get("/sign-in/with/corp?next=/page") }

// wantSignedIn signs in and returns the sign-in's id.
func (b *browser) wantSignedIn(name string) (id string) {
	b.t.Helper()
	page := b.signIn()
	who, id, _ := strings.Cut(page.text, " ")
	if page.StatusCode != http.StatusOK || who != name {
		b.t.Fatalf("signing in: got %d %s, want to be %s", page.StatusCode, page.text, name)
	}
	return id
}

// wantRefused checks that a page refuses and that nobody is signed in.
func (b *browser) wantRefused(page shown, because string) {
	b.t.Helper()
	if page.StatusCode != http.StatusForbidden || !strings.Contains(page.text, because) {
		b.t.Errorf("got %d %s, want a refusal because %q", page.StatusCode, page.text, because)
	}
	if who := b.get("/page"); who.StatusCode != http.StatusUnauthorized {
		b.t.Errorf("signed in after all: %s", who.text)
	}
}

// records returns the audit records of sign-ins with an action.
func (w *world) records(action string) []audit.Record {
	w.t.Helper()
	all, err := w.store.Audit(w.t.Context(), audit.Filter{Event: audit.EventSignIn, Action: action})
	w.must(err)
	return all
}

// program posts a form as a program does, and reads the answer.
func (w *world) program(path string, form url.Values) (status int, answer map[string]any) {
	w.t.Helper()
	got, err := http.PostForm(w.URL()+path, form)
	w.must(err)
	defer got.Body.Close()
	w.must(json.NewDecoder(got.Body).Decode(&answer))
	return got.StatusCode, answer
}

// wantError checks the error code of a program's answer.
func wantError(t *testing.T, what string, answer map[string]any, want string) {
	t.Helper()
	if got := answer["error"]; got != want {
		t.Errorf("%s: got %v, want the error %s", what, answer, want)
	}
}

func (w *world) user(name string) identity.User {
	w.t.Helper()
	u, err := w.store.User(context.Background(), name)
	w.must(err)
	return u
}

func (w *world) groupsOf(name string) string {
	w.t.Helper()
	all, err := w.store.GroupsOf(context.Background(), name, identity.Page{})
	w.must(err)
	var names []string
	for _, g := range all {
		names = append(names, g.Name)
	}
	return strings.Join(names, " ")
}

func (w *world) disable(name string) {
	w.t.Helper()
	w.must(w.store.UpdateUser(context.Background(), name, func(u *identity.User) error { u.Disabled = true; return nil }))
}

var hash = client.HashSecret
