package notify_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/internal/seal"
	"sallyport.dev/notify"
	"sallyport.dev/signin"
)

// site is the pages, with people who sign in.
type site struct {
	*world
	url string
}

// newSite serves the pages of a world. /as/NAME signs somebody in, with ?factor=totp by a
// second factor.
func newSite(t *testing.T) *site {
	t.Helper()
	w := newWorld(t)
	key, err := seal.New(seal.Generate())
	w.must(err)
	server := httptest.NewUnstartedServer(nil)
	s := &site{w, "http://" + server.Listener.Addr().String()}
	people, err := signin.New(signin.Config{
		URL: s.url, Realm: w.realm, Store: w.store, Identities: w.store, Audit: w.audit, Sealer: key,
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	w.must(err)
	people.SetStepUp(func(next string) string { return "/step-up?next=" + url.QueryEscape(next) })
	pages := w.create("web", func(c *notify.Config) { c.Pages, c.URL = people, s.url })
	mux := http.NewServeMux()
	for pattern, h := range pages.Handlers() {
		mux.Handle(pattern, h)
	}
	mux.HandleFunc("GET /sign-in", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "sign in, please") })
	mux.HandleFunc("GET /as/{name}", func(out http.ResponseWriter, r *http.Request) {
		by := signin.Proof{Method: "local", Factor: r.URL.Query().Get("factor")}
		if by.Factor != "" {
			by.FactorAt = time.Now()
		}
		user, err := w.store.User(r.Context(), r.PathValue("name"))
		if err == nil {
			err = people.Complete(out, r, user, by, "/sign-in")
		}
		if err != nil {
			http.Error(out, err.Error(), http.StatusInternalServerError)
		}
	})
	server.Config.Handler = mux
	server.Start()
	t.Cleanup(server.Close)
	return s
}

// browser is a browser of somebody who is signed in; "" for nobody.
type browser struct {
	*site
	http *http.Client
}

func (s *site) browser(as string) *browser {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	s.must(err)
	b := &browser{s, &http.Client{Jar: jar}}
	if as != "" {
		if status, text := b.get("/as/" + as); status != http.StatusOK {
			s.t.Fatalf("signing in: %d %s", status, text)
		}
	}
	return b
}

func (b *browser) read(resp *http.Response, err error) (int, string) {
	b.t.Helper()
	b.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	b.must(err)
	return resp.StatusCode, string(text)
}

func (b *browser) get(path string) (int, string) {
	b.t.Helper()
	return b.read(b.http.Get(b.url + path))
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([a-z_]+)" value="([^"]*)">`)

// form are the hidden fields of a page.
func form(page string) url.Values {
	v := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(page, -1) {
		v.Set(m[1], m[2])
	}
	return v
}

func (b *browser) post(path string, v url.Values) (int, string) {
	b.t.Helper()
	return b.read(b.http.PostForm(b.url+path, v))
}

// The link of a mail leads to a page that asks who one is; there one decides.
func TestDecideOnPage(t *testing.T) {
	s := newSite(t)
	r := s.asked("frontend", "<script>alert(1)</script>")
	path := "/requests/" + r.ID
	if _, text := s.browser("").get(path); !strings.Contains(text, "sign in, please") {
		t.Errorf("nobody: got %s, want to be asked who one is", text)
	}
	b := s.browser("bob")
	status, text := b.get(path)
	if status != http.StatusOK || strings.Contains(text, "<script>") || !strings.Contains(text, "&lt;script&gt;") || !strings.Contains(text, r.Hash) {
		t.Fatalf("got %d %s", status, text)
	}
	v := form(text)
	v.Set("decision", "approve")
	v.Set("comment", "fine")
	if status, text = b.post(path, v); status != http.StatusOK || !strings.Contains(text, "Granted by bob") {
		t.Fatalf("got %d %s", status, text)
	}
	got := s.becomes(r.ID, grant.Active)
	if d := got.Decisions[0]; d.By.Name != "bob" || d.Channel != "web" || d.Comment != "fine" || d.SourceIP == "" {
		t.Errorf("got %+v", d)
	}
}

// A link, a form or a cookie of somebody else decides nothing.
func TestPageRefuses(t *testing.T) {
	s := newSite(t)
	r := s.asked("frontend", "x")
	path := "/requests/" + r.ID
	bob := s.browser("bob")
	_, text := bob.get(path)
	bobs := form(text)
	bobs.Set("decision", "approve")
	without := func(key, value string) url.Values {
		v := url.Values{}
		for k := range bobs {
			v.Set(k, bobs.Get(k))
		}
		v.Set(key, value)
		return v
	}
	for _, c := range []struct {
		name string
		who  *browser
		form url.Values
		want int
	}{
		{"nobody, with bob's form", s.browser(""), bobs, http.StatusOK}, // the page that asks who one is
		{"dave, with bob's form", s.browser("dave"), bobs, http.StatusForbidden},
		{"bob, without the token", bob, without("form_token", ""), http.StatusForbidden},
		{"bob, with another token", bob, without("form_token", "AAAA"), http.StatusForbidden},
		{"bob, in another browser", s.browser("bob"), bobs, http.StatusForbidden},
		{"bob, by another hash", bob, without("hash", strings.Repeat("0", 64)), http.StatusConflict},
		{"bob, without a decision", bob, without("decision", "maybe"), http.StatusBadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			if status, text := c.who.post(path, c.form); status != c.want {
				t.Errorf("got %d %s, want %d", status, text, c.want)
			}
		})
	}
	t.Run("mallory", func(t *testing.T) {
		m := s.browser("mallory")
		status, text := m.get(path)
		missing, other := m.get("/requests/oi-000000000000")
		if status != http.StatusNotFound || missing != status || text != other {
			t.Errorf("got %d %s, want what one gets of a request that there is not", status, text)
		}
	})
	t.Run("carol", func(t *testing.T) {
		c := s.browser("carol")
		status, text := c.get(path)
		if status != http.StatusOK || strings.Contains(text, "<form") {
			t.Errorf("got %d %s, want to see it without a form", status, text)
		}
	})
	t.Run("another site", func(t *testing.T) {
		req, err := http.NewRequest(http.MethodPost, s.url+path, strings.NewReader(bobs.Encode()))
		s.must(err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", "https://evil.example")
		if status, _ := bob.read(bob.http.Do(req)); status != http.StatusForbidden {
			t.Errorf("got %d, want 403", status)
		}
	})
	s.stays(r)
	t.Run("bob, disabled", func(t *testing.T) {
		s.must(s.store.UpdateUser(t.Context(), "bob", func(u *identity.User) error { u.Disabled = true; return nil }))
		if status, text := bob.post(path, bobs); status == http.StatusOK && !strings.Contains(text, "sign in, please") {
			t.Errorf("got %d %s", status, text)
		}
		s.stays(r)
	})
}

// A second factor is asked for, and counts.
func TestPageSecondFactor(t *testing.T) {
	s := newSite(t)
	r := s.asked("strong", "x")
	path := "/requests/" + r.ID
	weak := s.browser("bob")
	_, text := weak.get(path)
	if strings.Contains(text, `name="decision"`) || !strings.Contains(text, "/step-up?next="+url.QueryEscape(path)) {
		t.Errorf("without one: got %s, want to be sent for it", text)
	}
	strong := s.browser("dave?factor=totp")
	_, text = strong.get(path)
	v := form(text)
	v.Set("decision", "approve")
	if status, text := strong.post(path, v); status != http.StatusOK {
		t.Fatalf("with one: got %d %s", status, text)
	}
	if d := s.becomes(r.ID, grant.Active).Decisions[0]; d.Factor != "totp" {
		t.Errorf("got %+v", d)
	}
}
