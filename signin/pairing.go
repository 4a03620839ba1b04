package signin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
)

// ClientCLI is the id of our own command line.
const ClientCLI = "sallyport"

// Device is what a program shows to the person who is to confirm it (RFC 8628, 3.2).
type Device struct {
	Code        string // for the program alone
	UserCode    string // for the person to compare, or to type
	URL         string // where they type it
	CompleteURL string // the same with the code in it
	Expires     time.Time
	Interval    time.Duration // between two questions
}

// client finds a program by its id.
func (s *Service) client(ctx context.Context, id, redirect string) (name string, kind Kind, ok bool) {
	if id == ClientCLI {
		return "sallyport on the command line", KindCLI, redirect == "" || loopbackRedirect(redirect)
	}
	if s.clients == nil {
		return "", "", false
	}
	return s.clients.SignInClient(ctx, id, redirect)
}

// loopbackRedirect accepts the redirect URIs of programs on the person's own machine
// (RFC 8252, 7.3): an address, not a name, which somebody could point elsewhere.
func loopbackRedirect(redirect string) bool {
	u, err := url.Parse(redirect)
	if err != nil || u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	port, perr := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && addr.IsLoopback() && addr.Zone() == "" && perr == nil && port > 0
}

// StartDevice begins the sign-in of a program that has no browser. It returns
// *RefusedError for a program that nobody knows and ErrTooMany where too many wait.
func (s *Service) StartDevice(r *http.Request, client, computer, challenge string) (Device, error) {
	_, kind, ok := s.client(r.Context(), client, "")
	if !ok {
		return Device{}, &RefusedError{"there is no such program"}
	}
	if challenge != "" && !hashed(challenge) {
		return Device{}, &RefusedError{"the challenge is none of S256 (PKCE)"} // it is kept
	}
	if !s.rates.allow("device", s.sourceIP(r), rateDevice) {
		return Device{}, ErrTooMany
	}
	s.tidy(r.Context())
	now, code := s.config.Now(), NewSecret()
	p := Pairing{
		ID: Hash(code), UserCode: newUserCode(), Client: client, Kind: kind, Computer: cut(computer, 64), Challenge: challenge,
		IP: s.sourceIP(r), Agent: agentOf(r), Created: now, Expires: now.Add(pairingLife), State: PairingWaiting,
	}
	err := s.config.Store.CreatePairing(r.Context(), p, maxPairings)
	if errors.Is(err, identity.ErrLimit) {
		return Device{}, ErrTooMany
	}
	if err != nil {
		return Device{}, err
	}
	shown := ShowUserCode(p.UserCode)
	return Device{
		Code: code, UserCode: shown, URL: s.URL() + pathDevice,
		CompleteURL: s.URL() + pathDevice + "?user_code=" + shown, Expires: p.Expires, Interval: pollEvery,
	}, nil
}

// userCodeLetters has no vowels, so that no words arise (RFC 8628, 6.1); eight of them
// are 34 bits, for ten minutes.
const userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ"

const userCodeLength = 8

func newUserCode() string {
	code := make([]byte, 0, userCodeLength)
	var b [1]byte
	for len(code) < userCodeLength {
		rand.Read(b[:]) // never fails
		if b[0] < 240 { // the largest multiple of 20: every letter is as likely
			code = append(code, userCodeLetters[b[0]%20])
		}
	}
	return string(code)
}

// ShowUserCode writes a user code as people read it: BCDF-GHJK.
func ShowUserCode(code string) string {
	if len(code) != userCodeLength {
		return code
	}
	return code[:4] + "-" + code[4:]
}

// readUserCode takes a user code as people type it; empty if it cannot be one.
func readUserCode(text string) string {
	var code strings.Builder
	for _, c := range strings.ToUpper(cut(text, 64)) {
		switch {
		case strings.ContainsRune(userCodeLetters, c):
			code.WriteRune(c)
		case c != '-' && c != ' ':
			return ""
		}
	}
	if code.Len() != userCodeLength {
		return ""
	}
	return code.String()
}

// decide confirms or refuses a device's pairing for whoever is signed in.
func (s *Service) decide(r *http.Request, by SignIn, p identity.Principal, pairing Pairing, confirmed bool) error {
	decision, state := "Refused", PairingRefused
	if confirmed {
		decision, state = "Allowed", PairingConfirmed
	}
	if err := s.recordDecision(r, by, p, pairing, decision); err != nil {
		return err
	}
	return s.config.Store.UpdatePairing(r.Context(), pairing.ID, func(row *Pairing) error {
		if row.State != PairingWaiting {
			return ErrReused
		}
		if !s.config.Now().Before(row.Expires) {
			return ErrExpired
		}
		row.State = state
		row.confirm(by)
		return nil
	})
}

// confirm notes who confirmed a pairing, and how they had signed in.
func (p *Pairing) confirm(by SignIn) {
	p.User, p.By, p.Method, p.Factor, p.FactorAt = by.User, by.ID, by.Method, by.Factor, by.FactorAt
}

func (s *Service) recordDecision(r *http.Request, by SignIn, p identity.Principal, pairing Pairing, decision string) error {
	return s.record(r, audit.Record{
		Principal: p.ARN, Action: "sign-in:Confirm", Decision: decision,
		Details: details("sign_in", by.ID, "client", pairing.Client, "computer", pairing.Computer,
			"requester_ip", pairing.IP, "requester_agent", pairing.Agent, "user_code", ShowUserCode(pairing.UserCode)),
	})
}

// authorization is what a program on the person's machine asks for through their browser
// (RFC 6749, 4.1.1, with PKCE).
type authorization struct {
	Client, Redirect, State, Challenge, Computer string
	Name                                         string // of the program
	StepUp                                       bool   // it wants a fresh second factor
	kind                                         Kind
}

// maxState bounds what a program gets back unread, in characters.
const maxState = 512

// authorization reads and checks the parameters. What is wrong is told to the person and
// never to the redirect URI, which may be wrong itself.
func (s *Service) authorization(ctx context.Context, q url.Values) (authorization, error) {
	for name, values := range q {
		if len(values) > 1 {
			return authorization{}, fmt.Errorf("%.32q is given twice", name)
		}
	}
	a := authorization{
		Client: q.Get("client_id"), Redirect: q.Get("redirect_uri"), State: q.Get("state"),
		Challenge: q.Get("code_challenge"), Computer: cut(q.Get("computer"), 64),
		StepUp: q.Get("step_up") == "1",
	}
	var ok bool
	a.Name, a.kind, ok = s.client(ctx, a.Client, a.Redirect)
	switch {
	case !ok || a.Redirect == "":
		return a, errors.New("there is no such program, or it may not be answered at that address")
	case q.Get("response_type") != "code":
		return a, errors.New("response_type: want code")
	case q.Get("code_challenge_method") != "S256" || len(a.Challenge) != 43:
		return a, errors.New("code_challenge: want one of S256 (PKCE)")
	case len(a.State) > maxState:
		return a, errors.New("state: too long")
	}
	return a, nil
}

// answerURL is where the browser takes an answer to the program.
func (a authorization) answerURL(issuer string, pairs ...string) string {
	q := url.Values{"iss": {issuer}} // RFC 9207
	if a.State != "" {
		q.Set("state", a.State)
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return a.Redirect + "?" + q.Encode()
}

// authorize makes an authorisation code for whoever is signed in.
func (s *Service) authorize(r *http.Request, by SignIn, p identity.Principal, a authorization) (code string, err error) {
	now := s.config.Now()
	code = NewSecret()
	pairing := Pairing{
		ID: Hash(code), Client: a.Client, Kind: a.kind, Computer: a.Computer, Redirect: a.Redirect, Challenge: a.Challenge,
		IP: s.sourceIP(r), Agent: agentOf(r), Created: now, Expires: now.Add(codeLife), State: PairingConfirmed,
	}
	pairing.confirm(by)
	if err := s.recordDecision(r, by, p, pairing, "Allowed"); err != nil {
		return "", err
	}
	s.tidy(r.Context())
	// Device codes that strangers have asked for keep nobody out who is signed in.
	return code, s.config.Store.CreatePairing(r.Context(), pairing, math.MaxInt)
}

// Redemption is what a program shows to become signed in.
type Redemption struct {
	Client   string
	Code     string // device code, or authorisation code where Redirect is set
	Redirect string
	Verifier string // PKCE; needed if there was a challenge
	// Secret is the hash of what the program will show as the sign-in's token: it chooses
	// it, so that an answer that is lost loses nothing.
	Secret string
}

// Redeem makes a sign-in of a pairing that somebody has confirmed. Errors are ErrPending,
// ErrTooFast, ErrExpired, ErrRefused and ErrReused; a code that is used twice ends what
// came of it, since one of the two has stolen it.
func (s *Service) Redeem(r *http.Request, in Redemption) (SignIn, error) {
	ctx, id := r.Context(), Hash(in.Code)
	if !hashed(in.Secret) {
		return SignIn{}, fmt.Errorf("%w: the token's hash is none of SHA-256", ErrRefused)
	}
	p, err := s.config.Store.Pairing(ctx, id)
	if errors.Is(err, identity.ErrNotFound) {
		return SignIn{}, ErrRefused
	}
	if err != nil {
		return SignIn{}, err
	}
	if err := p.check(in, s.config.Now()); err != nil {
		if errors.Is(err, ErrReused) {
			return SignIn{}, errors.Join(err, s.stolen(r, p))
		}
		return SignIn{}, err
	}
	user, err := s.confirmed(ctx, p)
	if err != nil {
		return SignIn{}, err
	}
	made := s.signInOf(r, p, in.Secret)
	if err := s.begun(r, user, made); err != nil {
		return SignIn{}, err
	}
	made, err = s.config.Store.Redeem(ctx, id, func(row Pairing) (SignIn, error) { return made, row.check(in, s.config.Now()) })
	switch {
	case errors.Is(err, identity.ErrExists):
		return SignIn{}, fmt.Errorf("%w: the token is not new", ErrRefused)
	case errors.Is(err, ErrReused):
		return SignIn{}, errors.Join(err, s.raced(r, id))
	}
	return made, err
}

// raced ends the sign-in of a pairing that was redeemed twice at the same moment.
func (s *Service) raced(r *http.Request, id string) error {
	p, err := s.config.Store.Pairing(r.Context(), id)
	if err != nil {
		return err
	}
	return s.stolen(r, p)
}

// check tells whether a pairing may become a sign-in of who asks.
func (p Pairing) check(in Redemption, now time.Time) error {
	switch {
	case p.Client != in.Client || p.Redirect != in.Redirect:
		return ErrRefused
	case p.Challenge != "" && !same(oauth2.S256ChallengeFromVerifier(in.Verifier), p.Challenge):
		return ErrRefused
	case p.State == PairingUsed:
		return ErrReused
	case p.State == PairingRefused:
		return ErrDenied
	case !now.Before(p.Expires):
		return ErrExpired
	case p.State != PairingConfirmed:
		return ErrPending
	}
	return nil
}

// confirmed returns who confirmed a pairing, if they still may.
func (s *Service) confirmed(ctx context.Context, p Pairing) (identity.User, error) {
	by, err := s.config.Store.SignIn(ctx, p.By)
	if errors.Is(err, identity.ErrNotFound) {
		return identity.User{}, ErrRefused
	}
	if err != nil {
		return identity.User{}, err
	}
	if _, err := s.Principal(ctx, by); errors.Is(err, ErrNotSignedIn) {
		return identity.User{}, ErrRefused
	} else if err != nil {
		return identity.User{}, err
	}
	return s.config.Identities.UserByID(ctx, p.User)
}

func (s *Service) signInOf(r *http.Request, p Pairing, secret string) SignIn {
	now := s.config.Now()
	return SignIn{
		ID: NewID(), User: p.User, Kind: p.Kind, Method: p.Method, Factor: p.Factor, FactorAt: p.FactorAt, Computer: p.Computer,
		Created: now, Used: now, Expires: now.Add(s.config.Session), IP: s.sourceIP(r), Agent: agentOf(r), Secret: secret,
	}
}

// stolen ends the sign-in of a pairing that was redeemed twice.
func (s *Service) stolen(r *http.Request, p Pairing) error {
	return s.reused(r, p.SignIn, p.User, "its code was used twice")
}

func (s *Service) reused(r *http.Request, id, user, because string) error {
	if in, err := s.config.Store.SignIn(r.Context(), id); err == nil && !in.Ended.IsZero() {
		return nil // and it was recorded
	}
	err := s.end(r.Context(), id, because)
	return errors.Join(err, s.record(r, audit.Record{
		Action: "sign-in:End", Reason: because, Details: details("sign_in", id, "user_id", user),
	}))
}

// hashed reports whether text can be a hash of Hash's.
func hashed(text string) bool { return len(text) == 43 && challengeText(text) }

func challengeText(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool {
		return (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_'
	})
}
