package signin

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
)

// Names of the cookies, before a prefix that makes browsers keep them to this host.
const (
	cookieSignIn = "sallyport-signin" // the secret of a sign-in
	cookieVisit  = "sallyport-visit"  // random; forms of people who are not signed in
	cookieBegin  = "sallyport-begin"  // sealed; what we asked a provider
)

// cookieName adds __Host-, which a browser takes over https only, without a domain and
// for the whole host, so that no neighbour can plant one.
func (s *Service) cookieName(name string) string {
	if s.secure() {
		return "__Host-" + name
	}
	return name
}

func (s *Service) setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	c := &http.Cookie{
		Name: s.cookieName(name), Value: value, Path: "/", HttpOnly: true, Secure: s.secure(), SameSite: http.SameSiteLaxMode,
		MaxAge: int(life / time.Second),
	}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// cookie returns a cookie's value; empty where there is none, or several: one of them
// was planted.
func (s *Service) cookie(r *http.Request, name string) string {
	found := r.CookiesNamed(s.cookieName(name))
	if len(found) != 1 || len(found[0].Value) > maxCookie {
		return ""
	}
	return found[0].Value
}

// maxCookie bounds the cookies that are looked at, in characters.
const maxCookie = 4096

// usedEvery is how often the last use of a sign-in is noted.
const usedEvery = time.Minute

// Visitor returns who is signed in in the browser that sent a request: a principal of
// kind user whose SignIn is set. ErrNotSignedIn means that nobody is.
func (s *Service) Visitor(r *http.Request) (identity.Principal, error) {
	_, p, err := s.visitor(r)
	return p, err
}

func (s *Service) visitor(r *http.Request) (SignIn, identity.Principal, error) {
	secret := s.cookie(r, cookieSignIn)
	if secret == "" {
		return SignIn{}, identity.Principal{}, ErrNotSignedIn
	}
	in, err := s.config.Store.SignInBySecret(r.Context(), Hash(secret))
	if errors.Is(err, identity.ErrNotFound) || err == nil && in.Kind != KindBrowser {
		return SignIn{}, identity.Principal{}, ErrNotSignedIn
	}
	if err != nil {
		return SignIn{}, identity.Principal{}, fmt.Errorf("finding the sign-in of a browser: %w", err)
	}
	p, err := s.Principal(r.Context(), in)
	if err != nil {
		return SignIn{}, p, err
	}
	s.used(r.Context(), in)
	return in, p, nil
}

// used notes that a sign-in was used, now and then. What cannot be noted is lost: it is
// information for people.
func (s *Service) used(ctx context.Context, in SignIn) {
	now := s.config.Now()
	if now.Sub(in.Used) < usedEvery {
		return
	}
	_, _ = s.config.Store.UpdateSignIn(ctx, in.ID, func(row *SignIn) error {
		row.Used = now
		return nil
	})
}

// SignInURL is the page where people sign in and come back to next, a local path with
// its query; anything else becomes the page that says that they are signed in.
func (s *Service) SignInURL(next string) string {
	if next = LocalPath(next); next == "" {
		return pathSignIn
	}
	return pathSignIn + "?next=" + url.QueryEscape(next)
}

// LocalPath returns next if it is a path of ours, "" otherwise. Browsers read
// backslashes as slashes and drop control characters, so that //host, /\host and
// /<tab>/host lead away.
func LocalPath(next string) string {
	if len(next) > maxNext || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") {
		return ""
	}
	for _, c := range next {
		if c == '\\' || c <= ' ' || c == 0x7f || c > '~' {
			return ""
		}
	}
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || strings.HasPrefix(u.Path, "//") {
		return ""
	}
	return next
}

// maxNext bounds the paths to come back to, in characters.
const maxNext = 2048

// FormToken is the hidden field form_token of a form: it shows that the form was made for
// the browser that sends it, and for who is signed in there. The handler must be inside
// of Page.
func (s *Service) FormToken(r *http.Request) string {
	visit, made := r.Context().Value(newVisit{}).(string)
	if !made {
		visit = s.cookie(r, cookieVisit)
	}
	if visit == "" {
		return ""
	}
	mac := hmac.New(sha256.New, []byte(visit))
	mac.Write([]byte("form\x00" + s.cookie(r, cookieSignIn)))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// FormField is the name of the field that FormToken is for.
const FormField = "form_token"

// CheckForm returns ErrBadForm unless a form was sent by POST, from a page of ours, with
// the token that FormToken gave. It parses the form.
func (s *Service) CheckForm(r *http.Request) error {
	if r.Method != http.MethodPost {
		return fmt.Errorf("%w: it was not sent by POST", ErrBadForm)
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != s.URL() {
		return fmt.Errorf("%w: it comes from another site", ErrBadForm)
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return fmt.Errorf("%w: it comes from another site", ErrBadForm)
	}
	if !s.rates.allow("form", s.sourceIP(r), rateForms) {
		return fmt.Errorf("%w: there are too many at once", ErrBadForm)
	}
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("%w: it cannot be read", ErrBadForm)
	}
	want := s.FormToken(r)
	if want == "" || len(r.PostForm[FormField]) != 1 || !same(want, r.PostForm.Get(FormField)) {
		return ErrBadForm
	}
	return nil
}

func same(a, b string) bool { return hmac.Equal([]byte(a), []byte(b)) }

// maxBody bounds what browsers and programs may send, in bytes.
const maxBody = 16 << 10

// visitLife is how long a browser keeps the cookie that its forms hang on.
const visitLife = 24 * time.Hour

// newVisit is the context key of the cookie that Page has just given the browser.
type newVisit struct{}

// Page wraps a handler of pages: it bounds what is sent, and gives the browser what
// FormToken needs.
func (s *Service) Page(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if s.cookie(r, cookieVisit) == "" {
			visit := NewSecret()
			s.setCookie(w, cookieVisit, visit, visitLife)
			r = r.WithContext(context.WithValue(r.Context(), newVisit{}, visit))
		}
		h.ServeHTTP(w, r)
	})
}

// Proof is how somebody has shown who they are.
type Proof struct {
	Method   string    // local, or oidc NAME
	Factor   string    // second factor: totp or webauthn; empty for none
	FactorAt time.Time // zero without
}

// Complete signs a person in in the browser that sent a request, and sends it on to next.
// A sign-in that the browser had before is ended: its cookie is never taken over. Errors
// are not yet answered.
func (s *Service) Complete(w http.ResponseWriter, r *http.Request, user identity.User, by Proof, next string) error {
	if user.Disabled {
		return s.fail(r, by.Method, user.Name, "the person is disabled")
	}
	secret := NewSecret()
	now := s.config.Now()
	in := SignIn{
		ID: NewID(), User: user.ID, Kind: KindBrowser, Method: by.Method, Factor: by.Factor, FactorAt: by.FactorAt,
		Created: now, Used: now, Expires: now.Add(s.config.Session), IP: s.sourceIP(r), Agent: agentOf(r), Secret: Hash(secret),
	}
	if err := s.begun(r, user, in); err != nil {
		return err
	}
	if before, _, err := s.visitor(r); err == nil {
		if err := s.end(r.Context(), before.ID, "replaced by a new sign-in in the same browser"); err != nil {
			return err
		}
	}
	if err := s.config.Store.CreateSignIn(r.Context(), in); err != nil {
		return err
	}
	s.setCookie(w, cookieSignIn, secret, s.config.Session)
	s.setCookie(w, cookieVisit, NewSecret(), visitLife)
	s.setCookie(w, cookieBegin, "", 0)
	if next = LocalPath(next); next == "" {
		next = pathSignIn
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

// Strengthen notes that whoever is signed in in the browser has given a second factor
// now.
func (s *Service) Strengthen(r *http.Request, factor string) error {
	in, p, err := s.visitor(r)
	if err != nil {
		return err
	}
	err = s.record(r, audit.Record{Principal: p.ARN, Action: "sign-in:Strengthen", Details: map[string]string{"sign_in": in.ID, "factor": factor}})
	if err != nil {
		return err
	}
	_, err = s.config.Store.UpdateSignIn(r.Context(), in.ID, func(row *SignIn) error {
		row.Factor, row.FactorAt = factor, s.config.Now()
		return nil
	})
	return err
}

// begun records a sign-in before it is made.
func (s *Service) begun(r *http.Request, user identity.User, in SignIn) error {
	return s.record(r, audit.Record{
		Principal: s.config.Realm.IAM("user", user.Path, user.Name), Action: "sign-in:Begin", Decision: "Allowed",
		Details: details("sign_in", in.ID, "kind", string(in.Kind), "method", in.Method, "factor", in.Factor,
			"computer", in.Computer, "expires", in.Expires.UTC().Format(time.RFC3339)),
	})
}

// details makes the details of a record of keys and values, without empty ones.
func details(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			m[pairs[i]] = pairs[i+1]
		}
	}
	return m
}

// RefusedError says to a person why they are not signed in.
type RefusedError struct{ Reason string }

// Error implements error.
func (e *RefusedError) Error() string { return "not signed in: " + e.Reason }

// Fail records that somebody was not signed in and returns a *RefusedError. who is what
// they said to be; it may be empty.
func (s *Service) Fail(r *http.Request, method, who, reason string) error {
	return s.fail(r, method, who, reason)
}

func (s *Service) fail(r *http.Request, method, who, reason string) error {
	err := s.Refused(r, audit.Record{
		Action: "sign-in:Begin", Decision: "Refused", Reason: cut(reason, 512),
		Details: details("method", method, "who", cut(who, 128)),
	})
	if err != nil {
		return err
	}
	return &RefusedError{reason}
}
