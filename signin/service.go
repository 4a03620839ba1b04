package signin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/internal/loopback"
)

// Identities is the part of identity.Store that sign-ins need.
type Identities interface {
	identity.People
	UpdateUser(ctx context.Context, name string, change func(*identity.User) error) error
	Group(ctx context.Context, name string) (identity.Group, error)
	GroupsOf(ctx context.Context, user string, p identity.Page) ([]identity.Group, error)
	AddMember(ctx context.Context, group, user string) error
	RemoveMember(ctx context.Context, group, user string) error
}

// Auditor records what happens; Append returns when the record is durable.
type Auditor interface {
	Append(ctx context.Context, r audit.Record) (audit.Record, error)
}

// Sealer seals what a browser keeps for us; *seal.Key is one.
type Sealer interface {
	Seal(purpose string, plaintext, context []byte) []byte
	Open(purpose string, sealed, context []byte) ([]byte, error)
}

// Config is what a Service is made of. All but the fields marked optional are needed.
type Config struct {
	// URL is where browsers find this server: scheme, host and port, nothing else. It is
	// never taken from a request. Plain http is for loopback addresses only.
	URL        string
	Realm      arn.Realm
	Store      Store
	Identities Identities
	Audit      Auditor
	Sealer     Sealer
	Logger     *slog.Logger
	Now        func() time.Time
	// Session is how long a sign-in lasts; 0 is DefaultSession.
	Session time.Duration
	// Providers are the OpenID providers; optional.
	Providers []Provider
	// TrustedProxies are networks whose X-Forwarded-For counts; optional.
	TrustedProxies []netip.Prefix
	// Client calls providers; optional.
	Client *http.Client
}

// DefaultSession is how long a sign-in lasts; the longest is MaxSession.
const (
	DefaultSession = 12 * time.Hour
	MaxSession     = 30 * 24 * time.Hour
)

// Service is the pages and endpoints by which people sign in. Its methods may be used
// by several goroutines, Add, SetStepUp and SetClients only before the first request.
type Service struct {
	config    Config
	base      *url.URL
	issuer    *identity.Issuer
	resolver  *identity.Resolver
	providers []*provider
	methods   []Method
	stepUp    func(next string) string
	clients   Clients
	ties      *tied
	rates     rates
	refusals  refusals
	polls     polls
	tidied    atomic.Int64 // when tidy last ran, in microseconds
}

// Method is a way to sign in beside OpenID Connect: a password, a passkey. When it knows
// who somebody is, it calls Service.Complete.
type Method interface {
	// Name stands in sign-ins and the audit log: local.
	Name() string
	// Title is what the button says: Password.
	Title() string
	// URL is the page where it begins, with where to go afterwards; a local path.
	URL(next string) string
}

// Clients know the programs, beside our own command line, that may become signed in.
type Clients interface {
	// SignInClient returns what a program is called, what kind of sign-in it gets and
	// whether it may have a redirect URI; ok is false for one that nobody knows.
	SignInClient(ctx context.Context, id, redirect string) (name string, kind Kind, ok bool)
}

// New returns a Service.
func New(c Config) (*Service, error) {
	base, err := checkURL(c.URL)
	if err != nil {
		return nil, fmt.Errorf("sign_in: url: %w", err)
	}
	if c.Session == 0 {
		c.Session = DefaultSession
	}
	if c.Session < 5*time.Minute || c.Session > MaxSession {
		return nil, fmt.Errorf("sign_in: session: %v is not between 5m and %v", c.Session, MaxSession)
	}
	s := &Service{
		config: c, base: base,
		issuer:   identity.NewIssuer(c.Sealer),
		resolver: identity.NewResolver(c.Realm, c.Identities, nil, c.Now),
		ties:     newTied(c.Store, c.Now),
		rates:    newRates(c.Now), refusals: newRefusals(c.Now), polls: newPolls(),
	}
	if err := s.addProviders(c.Providers); err != nil {
		return nil, fmt.Errorf("sign_in: %w", err)
	}
	return s, nil
}

// CheckURL tells what is wrong with a Config's URL, if anything.
func CheckURL(text string) error {
	_, err := checkURL(text)
	return err
}

// checkURL accepts https, and http on loopback.
func checkURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, fmt.Errorf("%q: want https://HOST or https://HOST:PORT", text)
	case u.Scheme == "https", u.Scheme == "http" && loopback.Is(u.Hostname()):
		u.Path = ""
		return u, nil
	}
	return nil, fmt.Errorf("%q: want https://, or http:// on a loopback address", text)
}

// Add adds a way to sign in.
func (s *Service) Add(m Method) { s.methods = append(s.methods, m) }

// SetStepUp tells where people who are signed in give a second factor; url returns a
// local path. That page calls Strengthen.
func (s *Service) SetStepUp(url func(next string) string) { s.stepUp = url }

// SetClients tells which programs there are beside our own.
func (s *Service) SetClients(c Clients) { s.clients = c }

// URL is where browsers find this server, without a slash at its end.
func (s *Service) URL() string { return s.base.String() }

// secure reports whether cookies are for https only.
func (s *Service) secure() bool { return s.base.Scheme == "https" }

// Principal returns who a sign-in is of, as they are now; ErrNotSignedIn where it holds
// no more or the person is disabled.
func (s *Service) Principal(ctx context.Context, in SignIn) (identity.Principal, error) {
	if !in.Live(s.config.Now()) {
		return identity.Principal{}, ErrNotSignedIn
	}
	user, err := s.config.Identities.UserByID(ctx, in.User)
	if errors.Is(err, identity.ErrNotFound) || err == nil && user.Disabled {
		return identity.Principal{}, ErrNotSignedIn
	}
	if err != nil {
		return identity.Principal{}, err
	}
	p := s.resolver.UserPrincipal(user)
	p.SignIn, p.Factor, p.MFA, p.MFAAt = in.ID, in.Factor, in.Factor != "", in.FactorAt
	p.IssuedAt, p.ExpiresAt = in.Created, in.Expires
	return p, nil
}

// sourceIP is the address that a request came from, as the API sees it.
func (s *Service) sourceIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	peer, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	peer = peer.Unmap().WithZone("")
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && s.trusts(peer); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		peer = hop.Unmap().WithZone("")
	}
	return peer.String()
}

func (s *Service) trusts(addr netip.Addr) bool {
	for _, p := range s.config.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// record writes an audit record of a request by a person or program.
func (s *Service) record(r *http.Request, rec audit.Record) error {
	rec.Event, rec.SourceIP, rec.UserAgent = audit.EventSignIn, s.sourceIP(r), agentOf(r)
	_, err := s.config.Audit.Append(context.WithoutCancel(r.Context()), rec)
	return err
}

// Refused records a refusal of whom perhaps nobody knows. Many from one place become one
// record.
func (s *Service) Refused(r *http.Request, rec audit.Record) error {
	rec.Event, rec.SourceIP, rec.UserAgent = audit.EventSignIn, s.sourceIP(r), agentOf(r)
	for _, due := range s.refusals.note(rec) {
		if _, err := s.config.Audit.Append(context.WithoutCancel(r.Context()), due); err != nil {
			return err
		}
	}
	return nil
}

// maxAgent bounds what is kept of a User-Agent header, in bytes.
const maxAgent = 256

func agentOf(r *http.Request) string { return cut(r.UserAgent(), maxAgent) }

// cut makes text of others fit to be kept and shown: valid, on one line, not too long.
func cut(text string, n int) string {
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == 0xfffd || c >= 0x80 && c < 0xa0 || c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069 || c == 0x2028 || c == 0x2029 {
			return -1
		}
		return c
	}, text)
	if len(text) > n {
		text = strings.ToValidUTF8(text[:n], "")
	}
	return text
}
