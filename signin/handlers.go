package signin

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/signin/page"
)

// Paths of pages and endpoints.
const (
	pathSignIn    = "/sign-in"
	pathOut       = "/sign-in/out"
	pathWith      = "/sign-in/with/"     // and the provider's name
	pathCallback  = "/sign-in/callback/" // likewise
	pathAuthorize = "/sign-in/authorize"
	pathDevice    = "/sign-in/device"
	pathNewDevice = "/sign-in/device_authorization"
	pathToken     = "/sign-in/token"
	pathRevoke    = "/sign-in/revoke"
	pathMetadata  = "/.well-known/oauth-authorization-server" // RFC 8414
)

// Handlers are the service's pages and endpoints by patterns of http.ServeMux.
func (s *Service) Handlers() map[string]http.Handler {
	all := map[string]http.Handler{"GET " + page.StylePath: http.HandlerFunc(page.ServeStyle)}
	for pattern, h := range map[string]http.HandlerFunc{
		"GET " + pathSignIn:                  s.serveSignIn,
		"POST " + pathOut:                    s.serveOut,
		"GET " + pathWith + "{provider}":     s.serveWith,
		"GET " + pathCallback + "{provider}": s.serveCallback,
		"GET " + pathAuthorize:               s.serveAuthorize,
		"POST " + pathAuthorize:              s.serveAuthorized,
		"GET " + pathDevice:                  s.serveDevice,
		"POST " + pathDevice:                 s.serveDeviceDecided,
		"POST " + pathNewDevice:              s.serveNewDevice,
		"POST " + pathToken:                  s.serveToken,
		"POST " + pathRevoke:                 s.serveRevoke,
		"GET " + pathMetadata:                s.serveMetadata,
	} {
		all[pattern] = s.Page(h)
	}
	return all
}

// serveMetadata tells programs where the endpoints are (RFC 8414).
func (s *Service) serveMetadata(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer": s.URL(), "authorization_endpoint": s.URL() + pathAuthorize, "token_endpoint": s.URL() + pathToken,
		"device_authorization_endpoint": s.URL() + pathNewDevice, "revocation_endpoint": s.URL() + pathRevoke,
		"response_types_supported": []string{"code"}, "grant_types_supported": []string{grantCode, grantDevice, grantRefresh},
		"code_challenge_methods_supported": []string{"S256"}, "authorization_response_iss_parameter_supported": true,
		"token_endpoint_auth_methods_supported": []string{"none"},
	})
}

func encodeCookie(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func decodeCookie(text string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(text) }

// way is a way to sign in, as the page shows it.
type way struct{ Title, URL string }

func (s *Service) serveSignIn(w http.ResponseWriter, r *http.Request) {
	next := LocalPath(r.URL.Query().Get("next"))
	in, p, err := s.visitor(r)
	switch {
	case err == nil:
		s.show(w, r, http.StatusOK, "You are signed in", pageSignedIn, map[string]any{
			"Name": p.Name, "Method": in.Method, "Factor": in.Factor, "Until": when(in.Expires), "Next": next,
			"Out": pathOut, "Device": pathDevice, "FormToken": s.FormToken(r),
		})
	case errors.Is(err, ErrNotSignedIn):
		s.show(w, r, http.StatusOK, "Sign in", pageChoice, map[string]any{"Ways": s.ways(next)})
	default:
		s.serverError(w, r, err)
	}
}

func (s *Service) ways(next string) []way {
	var all []way
	for _, p := range s.providers {
		u := pathWith + p.Name
		if next != "" {
			u += "?next=" + url.QueryEscape(next)
		}
		all = append(all, way{p.Title, u})
	}
	for _, m := range s.methods {
		all = append(all, way{m.Title(), m.URL(next)})
	}
	return all
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func (s *Service) serveOut(w http.ResponseWriter, r *http.Request) {
	if err := s.CheckForm(r); err != nil {
		s.badForm(w, r)
		return
	}
	in, _, err := s.visitor(r)
	if err == nil {
		err = errors.Join(s.end(r.Context(), in.ID, "signed out"), s.recordEnd(r, in, "signed out"))
	}
	if err != nil && !errors.Is(err, ErrNotSignedIn) {
		s.serverError(w, r, err)
		return
	}
	s.setCookie(w, cookieSignIn, "", 0)
	http.Redirect(w, r, pathSignIn, http.StatusSeeOther)
}

// signedIn returns who is signed in; where nobody is, it sends the browser to sign in and
// come back, and ok is false.
func (s *Service) signedIn(w http.ResponseWriter, r *http.Request) (in SignIn, p identity.Principal, ok bool) {
	in, p, err := s.visitor(r)
	if errors.Is(err, ErrNotSignedIn) {
		next := ""
		if r.Method == http.MethodGet {
			next = r.URL.RequestURI()
		}
		http.Redirect(w, r, s.SignInURL(next), http.StatusSeeOther)
		return in, p, false
	}
	if err != nil {
		s.serverError(w, r, err)
		return in, p, false
	}
	return in, p, true
}

// stepUpFor is how old a second factor may be where a program asks for one.
const stepUpFor = 5 * time.Minute

// serveAuthorize asks the person whether a program on their machine may act for them.
func (s *Service) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	a, err := s.authorization(r.Context(), r.URL.Query())
	if err != nil {
		s.showError(w, r, http.StatusBadRequest, "The program asked in a wrong way: "+err.Error()+".")
		return
	}
	in, p, ok := s.signedIn(w, r)
	if !ok || s.sentToStepUp(w, r, in, a.StepUp) {
		return
	}
	// The answer is a redirect to the program, which the browser counts as the form's.
	page.Header(w.Header(), originOf(a.Redirect))
	s.show(w, r, http.StatusOK, "Let this computer in?", pageAuthorize, map[string]any{
		"Name": p.Name, "Program": a.Name, "Computer": a.Computer, "IP": s.sourceIP(r), "At": a.Redirect,
		"Action": pathAuthorize + "?" + r.URL.RawQuery, "FormToken": s.FormToken(r),
	})
}

// sentToStepUp sends the browser to give a second factor, if the program wants one and
// the last one is too old.
func (s *Service) sentToStepUp(w http.ResponseWriter, r *http.Request, in SignIn, want bool) bool {
	if !want || in.Factor != "" && s.config.Now().Sub(in.FactorAt) < stepUpFor {
		return false
	}
	if s.stepUp == nil {
		s.showError(w, r, http.StatusForbidden, "The program wants a second factor, and this server has none.")
		return true
	}
	http.Redirect(w, r, s.stepUp(LocalPath(r.URL.RequestURI())), http.StatusSeeOther)
	return true
}

func originOf(redirect string) string {
	u, err := url.Parse(redirect)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func (s *Service) serveAuthorized(w http.ResponseWriter, r *http.Request) {
	if err := s.CheckForm(r); err != nil {
		s.badForm(w, r)
		return
	}
	a, err := s.authorization(r.Context(), r.URL.Query())
	if err != nil {
		s.showError(w, r, http.StatusBadRequest, "The program asked in a wrong way: "+err.Error()+".")
		return
	}
	in, p, ok := s.signedIn(w, r)
	if !ok || s.sentToStepUp(w, r, in, a.StepUp) {
		return
	}
	if r.PostForm.Get("decision") != "confirm" {
		http.Redirect(w, r, a.answerURL(s.URL(), "error", "access_denied"), http.StatusSeeOther)
		return
	}
	code, err := s.authorize(r, in, p, a)
	if err != nil {
		s.serverError(w, r, err)
		return
	}
	http.Redirect(w, r, a.answerURL(s.URL(), "code", code), http.StatusSeeOther)
}

// serveDevice asks for a code, and shows what stands behind it.
func (s *Service) serveDevice(w http.ResponseWriter, r *http.Request) {
	in, p, ok := s.signedIn(w, r)
	if !ok {
		return
	}
	typed := r.URL.Query().Get("user_code")
	if typed == "" {
		s.askCode(w, r, "")
		return
	}
	pairing, ok := s.waitingFor(w, r, in, typed)
	if !ok {
		return
	}
	name, _, _ := s.client(r.Context(), pairing.Client, "")
	here := s.sourceIP(r)
	s.show(w, r, http.StatusOK, "Let this computer in?", pageDevice, map[string]any{
		"Name": p.Name, "Program": name, "Computer": pairing.Computer, "IP": pairing.IP, "Agent": pairing.Agent,
		"Elsewhere": pairing.IP != here, "Here": here, "Began": when(pairing.Created), "Code": ShowUserCode(pairing.UserCode),
		"Action": pathDevice, "FormToken": s.FormToken(r),
	})
}

func (s *Service) askCode(w http.ResponseWriter, r *http.Request, problem string) {
	status := http.StatusOK
	if problem != "" {
		status = http.StatusNotFound
	}
	s.show(w, r, status, "Enter the code", pageCode, map[string]any{"Action": pathDevice, "Problem": problem})
}

// waitingFor finds the pairing of a code that somebody typed. Who tries many is slowed
// down, by address and by person.
func (s *Service) waitingFor(w http.ResponseWriter, r *http.Request, in SignIn, typed string) (Pairing, bool) {
	if !s.rates.allow("code", s.sourceIP(r), rateCodes) || !s.rates.allow("code", in.User, rateCodes) {
		s.showError(w, r, http.StatusTooManyRequests, "Too many codes at once. Wait a minute.")
		return Pairing{}, false
	}
	pairing, err := s.config.Store.PairingByUserCode(r.Context(), readUserCode(typed))
	if errors.Is(err, identity.ErrNotFound) || err == nil && (pairing.State != PairingWaiting || !s.config.Now().Before(pairing.Expires)) {
		s.askCode(w, r, "This code is not known, was used, or is too old.")
		return Pairing{}, false
	}
	if err != nil {
		s.serverError(w, r, err)
		return Pairing{}, false
	}
	return pairing, true
}

func (s *Service) serveDeviceDecided(w http.ResponseWriter, r *http.Request) {
	if err := s.CheckForm(r); err != nil {
		s.badForm(w, r)
		return
	}
	in, p, ok := s.signedIn(w, r)
	if !ok {
		return
	}
	pairing, ok := s.waitingFor(w, r, in, r.PostForm.Get("user_code"))
	if !ok {
		return
	}
	confirmed := r.PostForm.Get("decision") == "confirm"
	switch err := s.decide(r, in, p, pairing, confirmed); {
	case errors.Is(err, ErrReused), errors.Is(err, ErrExpired):
		s.askCode(w, r, "This code is not known, was used, or is too old.")
	case err != nil:
		s.serverError(w, r, err)
	case confirmed:
		s.show(w, r, http.StatusOK, "Done", pageDone, map[string]any{"Text": "The other computer is signed in. You can close this page."})
	default:
		s.show(w, r, http.StatusOK, "Refused", pageDone, map[string]any{"Text": "The other computer was not let in."})
	}
}

// grantTypes of RFC 6749 and RFC 8628.
const (
	grantCode    = "authorization_code"
	grantDevice  = "urn:ietf:params:oauth:grant-type:device_code"
	grantRefresh = "refresh_token"
)

// serveNewDevice begins a sign-in by device code (RFC 8628, 3.1).
func (s *Service) serveNewDevice(w http.ResponseWriter, r *http.Request) {
	if !s.programForm(w, r) {
		return
	}
	d, err := s.StartDevice(r, r.PostForm.Get("client_id"), r.PostForm.Get("computer"), r.PostForm.Get("code_challenge"))
	if err != nil {
		s.tokenError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"device_code": d.Code, "user_code": d.UserCode, "verification_uri": d.URL, "verification_uri_complete": d.CompleteURL,
		"expires_in": int(d.Expires.Sub(s.config.Now()) / time.Second), "interval": int(d.Interval / time.Second),
	})
}

// programForm reads what a program sends; pages of other sites may not.
func (s *Service) programForm(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		oauthError(w, http.StatusForbidden, "invalid_request", "this is for programs, not for pages")
		return false
	}
	if err := r.ParseForm(); err != nil {
		oauthError(w, http.StatusBadRequest, "invalid_request", "the form cannot be read")
		return false
	}
	if !s.rates.allow("token", s.sourceIP(r), rateTokens) {
		oauthError(w, http.StatusTooManyRequests, "slow_down", "too many requests at once")
		return false
	}
	return true
}

// serveToken redeems codes and refreshes sign-ins. It answers with credentials at once.
func (s *Service) serveToken(w http.ResponseWriter, r *http.Request) {
	if !s.programForm(w, r) {
		return
	}
	in, err := s.tokenGrant(r)
	if err != nil {
		s.tokenError(w, r, err)
		return
	}
	cred, p, err := s.Credentials(r.Context(), in, 0)
	if err != nil {
		s.tokenError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, Answer{
		SignIn: in.ID, User: p.Name, ARN: p.ARN, Method: in.Method, Factor: in.Factor, Expires: in.Expires.UTC(),
		Account: s.config.Realm.Account, Region: s.config.Realm.Region,
		Credentials: AnswerCredentials{cred.AccessKeyID, cred.SecretAccessKey, cred.SessionToken, cred.Expires.UTC()},
	})
}

// Answer is what the token endpoint answers with.
type Answer struct {
	SignIn      string            `json:"sign_in"`
	User        string            `json:"user"`
	ARN         string            `json:"arn"`
	Method      string            `json:"method"`
	Factor      string            `json:"factor,omitempty"`
	Expires     time.Time         `json:"expires"` // of the sign-in
	Account     string            `json:"account"`
	Region      string            `json:"region"`
	Credentials AnswerCredentials `json:"credentials"`
}

// AnswerCredentials are AWS credentials as credential_process has them.
type AnswerCredentials struct {
	AccessKeyID     string    `json:"AccessKeyId"`
	SecretAccessKey string    `json:"SecretAccessKey"`
	SessionToken    string    `json:"SessionToken"`
	Expiration      time.Time `json:"Expiration"`
}

func (s *Service) tokenGrant(r *http.Request) (SignIn, error) {
	f := r.PostForm
	redemption := Redemption{Client: f.Get("client_id"), Verifier: f.Get("code_verifier"), Secret: f.Get("next")}
	// What our own command line gets is not for other programs, whose tokens are theirs.
	if redemption.Client != ClientCLI {
		return SignIn{}, ErrRefused
	}
	switch f.Get("grant_type") {
	case grantCode:
		redemption.Code, redemption.Redirect = f.Get("code"), f.Get("redirect_uri")
		if redemption.Redirect == "" {
			return SignIn{}, ErrRefused
		}
		return s.Redeem(r, redemption)
	case grantDevice:
		redemption.Code = f.Get("device_code")
		if !s.polls.allow(Hash(redemption.Code), s.config.Now()) {
			return SignIn{}, ErrTooFast
		}
		return s.Redeem(r, redemption)
	case grantRefresh:
		return s.Refresh(r, f.Get("refresh_token"), f.Get("next"))
	}
	return SignIn{}, fmt.Errorf("%w: grant_type", ErrRefused)
}

func (s *Service) serveRevoke(w http.ResponseWriter, r *http.Request) {
	if !s.programForm(w, r) {
		return
	}
	if err := s.Revoke(r, r.PostForm.Get("token")); err != nil {
		s.tokenError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, struct{}{})
}

// tokenError answers as RFC 6749 (5.2) and RFC 8628 (3.5) have it.
func (s *Service) tokenError(w http.ResponseWriter, r *http.Request, err error) {
	var refused *RefusedError
	switch {
	case errors.Is(err, ErrPending):
		oauthError(w, http.StatusBadRequest, "authorization_pending", "nobody has confirmed it yet")
	case errors.Is(err, ErrTooFast):
		oauthError(w, http.StatusBadRequest, "slow_down", "asked again too soon")
	case errors.Is(err, ErrTooMany):
		oauthError(w, http.StatusTooManyRequests, "slow_down", "too many wait to be confirmed")
	case errors.Is(err, ErrExpired):
		oauthError(w, http.StatusBadRequest, "expired_token", "it has expired")
	case errors.Is(err, ErrReused):
		oauthError(w, http.StatusBadRequest, "invalid_grant", "it was used before; the sign-in has been ended")
	case errors.Is(err, ErrDenied):
		oauthError(w, http.StatusBadRequest, "access_denied", "it was refused in the browser")
	case errors.Is(err, ErrRefused), errors.Is(err, ErrNotSignedIn), errors.As(err, &refused):
		oauthError(w, http.StatusBadRequest, "invalid_grant", "it is not known, was refused, or the sign-in has ended")
	default:
		s.config.Logger.Error("signing a program in", "error", err)
		oauthError(w, http.StatusInternalServerError, "server_error", "an internal error")
	}
}

func oauthError(w http.ResponseWriter, status int, code, text string) {
	writeJSON(w, status, map[string]string{"error": code, "error_description": text})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("signin: encoding an answer: " + err.Error()) // our own shapes encode
	}
	page.Header(w.Header())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Pragma", "no-cache")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // whoever asked has gone
}
