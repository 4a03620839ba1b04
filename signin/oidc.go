package signin

import (
	"encoding/json"
	"errors"
	"net/http"
)

const purposeBegin = "sign-in-begin"

// Requests per minute that one address may make of each kind.
const (
	ratePages  = 120 // sign-ins begun and come back from
	rateDevice = 10  // device codes
	rateCodes  = 20  // user codes typed, per address and per person
	rateTokens = 240 // redemptions and refreshes
	rateForms  = 600 // forms that people send
)

// serveWith sends the browser to a provider.
func (s *Service) serveWith(w http.ResponseWriter, r *http.Request) {
	p := s.provider(r.PathValue("provider"))
	if p == nil {
		s.showError(w, r, http.StatusNotFound, "There is no such way to sign in.")
		return
	}
	if !s.rates.allow("with", s.sourceIP(r), ratePages) {
		s.showError(w, r, http.StatusTooManyRequests, "Too many sign-ins at once. Wait a minute.")
		return
	}
	d, err := p.discover(r.Context())
	if err != nil {
		s.config.Logger.Warn("an OpenID provider does not answer", "provider", p.Name, "error", err)
		s.showError(w, r, http.StatusBadGateway, p.Title+" does not answer. Try again later.")
		return
	}
	b := begun{
		Provider: p.Name, State: NewSecret(), Nonce: NewSecret(), Verifier: NewSecret(),
		Next: LocalPath(r.URL.Query().Get("next")), Expires: s.config.Now().Add(beginLife),
	}
	plain, err := json.Marshal(b)
	if err != nil {
		s.serverError(w, r, err)
		return
	}
	s.setCookie(w, cookieBegin, encodeCookie(s.config.Sealer.Seal(purposeBegin, plain, nil)), beginLife)
	http.Redirect(w, r, p.authURL(d, b), http.StatusSeeOther)
}

// begunBy opens what the browser kept for us; ok is false where that is missing, too old
// or not ours.
func (s *Service) begunBy(r *http.Request) (b begun, ok bool) {
	sealed, err := decodeCookie(s.cookie(r, cookieBegin))
	if err != nil || len(sealed) == 0 {
		return b, false
	}
	plain, err := s.config.Sealer.Open(purposeBegin, sealed, nil)
	if err != nil || json.Unmarshal(plain, &b) != nil {
		return begun{}, false
	}
	return b, s.config.Now().Before(b.Expires)
}

// serveCallback takes a browser that comes back from a provider. Whatever becomes of it,
// what we asked is used up: an answer counts once.
func (s *Service) serveCallback(w http.ResponseWriter, r *http.Request) {
	p := s.provider(r.PathValue("provider"))
	if p == nil {
		s.showError(w, r, http.StatusNotFound, "There is no such way to sign in.")
		return
	}
	if !s.rates.allow("callback", s.sourceIP(r), ratePages) {
		s.showError(w, r, http.StatusTooManyRequests, "Too many sign-ins at once. Wait a minute.")
		return
	}
	b, ok := s.begunBy(r)
	s.setCookie(w, cookieBegin, "", 0)
	q := r.URL.Query()
	if !ok || b.Provider != p.Name || len(q["state"]) != 1 || !same(q.Get("state"), b.State) {
		s.refuse(w, r, s.fail(r, "oidc "+p.Name, "", "this browser did not begin it here, or too long ago"))
		return
	}
	if problem := q.Get("error"); problem != "" {
		s.refuse(w, r, s.fail(r, "oidc "+p.Name, "", p.Title+" says: "+cut(problem, 64)))
		return
	}
	if err := s.cameBack(w, r, p, b); err != nil {
		s.refuse(w, r, err)
	}
}

func (s *Service) cameBack(w http.ResponseWriter, r *http.Request, p *provider, b begun) error {
	q := r.URL.Query()
	if len(q["code"]) != 1 || len(q["iss"]) > 1 {
		return s.fail(r, "oidc "+p.Name, "", "the provider gave no code")
	}
	d, err := p.discover(r.Context())
	if err != nil {
		return err
	}
	c, err := p.redeem(r.Context(), d, b, answer{q.Get("code"), q.Get("iss")})
	if err != nil {
		return s.fail(r, "oidc "+p.Name, "", err.Error())
	}
	user, err := s.person(r, p, c)
	if err != nil {
		return err
	}
	by := Proof{Method: "oidc " + p.Name}
	by.Factor, by.FactorAt = p.factor(c, s.config.Now())
	return s.Complete(w, r, user, by, b.Next)
}

// refuse shows why somebody is not signed in; other errors than *RefusedError are ours.
func (s *Service) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var refused *RefusedError
	if errors.As(err, &refused) {
		s.showError(w, r, http.StatusForbidden, "You are not signed in: "+refused.Reason+".")
		return
	}
	s.serverError(w, r, err)
}
