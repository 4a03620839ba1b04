package local

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/factor"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/signin"
)

// Paths of the pages.
const (
	pathPassword = "/sign-in/local"          // name and password
	pathSet      = "/sign-in/local/password" // another password in place of an initial one
	pathFactor   = "/sign-in/local/factor"   // second factor of a sign-in
	pathEnrol    = "/sign-in/local/enrol"    // a first one, where one is demanded
	pathStepUp   = "/sign-in/step-up"        // second factor of who is signed in
	pathFactors  = factor.EnrolPath
	pathScript   = "/sign-in/factor.js"
)

// SignIns is the part of signin.Service that this package needs.
type SignIns interface {
	Visitor(r *http.Request) (identity.Principal, error)
	SignInURL(next string) string
	FormToken(r *http.Request) string
	CheckForm(r *http.Request) error
	Page(h http.Handler) http.Handler
	Complete(w http.ResponseWriter, r *http.Request, user identity.User, by signin.Proof, next string) error
	Strengthen(r *http.Request, factor string) error
	Fail(r *http.Request, method, who, reason string) error
	Refused(r *http.Request, rec audit.Record) error
	SourceIP(r *http.Request) string
}

// Auditor records what happens; Append returns when the record is durable.
type Auditor interface {
	Append(ctx context.Context, r audit.Record) (audit.Record, error)
}

// Config is what a Method is made of. All fields are needed but RequireFactor.
type Config struct {
	SignIns SignIns
	Factors *factor.Keeper
	People  factor.People
	Realm   arn.Realm
	Audit   Auditor
	Sealer  identity.Sealer
	Logger  *slog.Logger
	Now     func() time.Time
	// Passwords offers signing in with name and password; without it there are only the
	// pages of second factors.
	Passwords bool
	// RequireFactor makes everybody who signs in with a password have a second factor.
	RequireFactor bool
}

// Method is signing in with a password. It implements signin.Method.
type Method struct{ config Config }

// New returns a Method.
func New(c Config) *Method { return &Method{c} }

// Name implements signin.Method.
func (m *Method) Name() string { return "local" }

// Title implements signin.Method.
func (m *Method) Title() string { return "Password" }

// URL implements signin.Method.
func (m *Method) URL(next string) string { return withNext(pathPassword, next) }

// StepUpURL is the page where who is signed in shows a second factor.
func (m *Method) StepUpURL(next string) string { return withNext(pathStepUp, next) }

func withNext(path, next string) string {
	if next = signin.LocalPath(next); next == "" {
		return path
	}
	return path + "?next=" + url.QueryEscape(next)
}

// Handlers are the pages, by patterns of http.ServeMux.
func (m *Method) Handlers() map[string]http.Handler {
	all := map[string]http.Handler{
		"GET " + pathStepUp:   m.page(m.showStepUp),
		"POST " + pathStepUp:  m.page(m.stepUp),
		"GET " + pathFactors:  m.page(m.showFactors),
		"POST " + pathFactors: m.page(m.changeFactors),
		"GET " + pathScript:   http.HandlerFunc(serveScript),
	}
	if m.config.Passwords {
		all["GET "+pathPassword] = m.page(m.showPassword)
		all["POST "+pathPassword] = m.page(m.password)
		all["POST "+pathSet] = m.page(m.set)
		all["POST "+pathFactor] = m.page(m.factor)
		all["POST "+pathEnrol] = m.page(m.enrol)
	}
	return all
}

// page makes a handler of a function that answers, or returns an error to be shown.
func (m *Method) page(serve func(http.ResponseWriter, *http.Request) error) http.Handler {
	return m.config.SignIns.Page(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := serve(w, r); err != nil {
			m.showError(w, r, err)
		}
	}))
}

// person returns the user who is signed in in a browser.
func (m *Method) person(r *http.Request) (identity.User, identity.Principal, error) {
	p, err := m.config.SignIns.Visitor(r)
	if err != nil {
		return identity.User{}, p, err
	}
	user, err := m.config.People.UserByID(r.Context(), p.UserID)
	return user, p, err
}

// record records what happened with somebody's factors or password.
func (m *Method) record(r *http.Request, user identity.User, rec audit.Record) error {
	name := m.config.Realm.IAM("user", user.Path, user.Name)
	rec.Event, rec.Principal, rec.Resources = audit.EventSignIn, name, []string{name}
	rec.SourceIP, rec.UserAgent = m.config.SignIns.SourceIP(r), clip(r.UserAgent())
	_, err := m.config.Audit.Append(context.WithoutCancel(r.Context()), rec)
	return err
}

func clip(text string) string {
	if len(text) > 256 {
		text = text[:256]
	}
	return text
}

// refused records a factor that was not taken.
func (m *Method) refused(r *http.Request, user identity.User, kind factor.Kind, err error) error {
	name := m.config.Realm.IAM("user", user.Path, user.Name)
	return m.config.SignIns.Refused(r, audit.Record{
		Principal: name, Resources: []string{name},
		Action: "sign-in:SecondFactor", Decision: "Refused", Reason: "second factor: " + err.Error(),
		Details: map[string]string{"factor": string(kind)},
	})
}

// mistake reports whether an error is the person's, to be told to them as it is.
func mistake(err error) bool {
	wait, weak := (*factor.WaitError)(nil), (*factor.WeakError)(nil)
	return errors.Is(err, factor.ErrWrong) || errors.Is(err, factor.ErrUsed) || errors.Is(err, factor.ErrCloned) ||
		errors.Is(err, factor.ErrBusy) || errors.As(err, &wait) || errors.As(err, &weak)
}
