package ssoportal

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/signin"
)

// SignIns is the part of signin.Service that the portal stands on.
type SignIns interface {
	StartDevice(r *http.Request, client, computer, challenge string) (signin.Device, error)
	Redeem(r *http.Request, in signin.Redemption) (signin.SignIn, error)
	Get(ctx context.Context, id string) (signin.SignIn, error)
	Principal(ctx context.Context, in signin.SignIn) (identity.Principal, error)
	End(ctx context.Context, id, because string) error
	SourceIP(r *http.Request) string
	URL() string
}

// Roles gives roles to people; *server.Server is one.
type Roles interface {
	// AssumableBy lists the names of the roles that a principal may assume now, in their
	// order.
	AssumableBy(r *http.Request, p identity.Principal) ([]string, error)
	// AssumeRole is sts:AssumeRole; a refusal is an *access.DeniedError.
	AssumeRole(r *http.Request, p identity.Principal, role, session string) (identity.Credentials, error)
}

// Auditor records what happens; Append returns when the record is durable.
type Auditor interface {
	Append(ctx context.Context, r audit.Record) (audit.Record, error)
}

// Config is what a Portal is made of; all of it is needed.
type Config struct {
	SignIns SignIns
	Account string // id of the one account that there is
	Sealer  identity.Sealer
	Audit   Auditor
	Logger  *slog.Logger
	Now     func() time.Time
}

// Portal answers both services. Its handlers may be used by several goroutines once
// SetRoles was called.
type Portal struct {
	config Config
	roles  Roles
	rates  rates
}

// New returns a Portal.
func New(c Config) *Portal { return &Portal{config: c, rates: rates{now: c.Now}} }

// SetRoles says who gives roles. It must be called before the first request.
func (p *Portal) SetRoles(r Roles) { p.roles = r }

// SignInClient implements signin.Clients: which programs there are is only told by the
// form of their ids, since anybody may register one. They are answered at loopback
// addresses of the person's own machine.
func (p *Portal) SignInClient(_ context.Context, id, redirect string) (name string, kind signin.Kind, ok bool) {
	return "the AWS command line or SDK", signin.KindSSO, isClient(id) && (redirect == "" || signin.LoopbackRedirect(redirect))
}

// Handlers are the endpoints by patterns of http.ServeMux.
func (p *Portal) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		"POST /client/register":       p.serve(p.register),
		"POST /device_authorization":  p.serve(p.authorizeDevice),
		"GET /authorize":              http.HandlerFunc(p.authorize),
		"POST /token":                 p.serve(p.token),
		"GET /assignment/accounts":    p.serve(p.accounts),
		"GET /assignment/roles":       p.serve(p.accountRoles),
		"GET /federation/credentials": p.serve(p.credentials),
		"POST /logout":                p.serve(p.logout),
	}
}

// record records something of a sign-in.
func (p *Portal) record(r *http.Request, rec audit.Record) error {
	agent := r.UserAgent()
	if len(agent) > 256 {
		agent = agent[:256]
	}
	rec.Event, rec.SourceIP, rec.UserAgent = audit.EventSignIn, p.config.SignIns.SourceIP(r), agent
	_, err := p.config.Audit.Append(context.WithoutCancel(r.Context()), rec)
	return err
}

// holder returns who a bearer token is of, if their sign-in still holds.
func (p *Portal) holder(ctx context.Context, purpose, text string) (Token, signin.SignIn, identity.Principal, error) {
	t, err := openToken(p.config.Sealer, purpose, text, p.config.Now())
	if err != nil {
		return t, signin.SignIn{}, identity.Principal{}, err
	}
	in, err := p.config.SignIns.Get(ctx, t.SignIn)
	if errors.Is(err, identity.ErrNotFound) || err == nil && in.User != t.User {
		return t, in, identity.Principal{}, errToken
	}
	if err != nil {
		return t, in, identity.Principal{}, err
	}
	who, err := p.config.SignIns.Principal(ctx, in)
	if errors.Is(err, signin.ErrNotSignedIn) {
		err = errToken
	}
	return t, in, who, err
}
