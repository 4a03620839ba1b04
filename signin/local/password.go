package local

import (
	"errors"
	"net/http"
	"strings"

	"sallyport.dev/audit"
	"sallyport.dev/factor"
	"sallyport.dev/identity"
	"sallyport.dev/signin"
)

// form is what the pages show; each shows some of it.
type form struct {
	Token, State, Next string
	Problem            string
	User               string
	Codes              bool   // there are one-time codes
	Key                string // options of a security key, JSON; empty for none
	KeyState           string
	Action             string
	Seed, QR           string // of a device that is being enrolled
	Factors            []shown
	EnrolKey           string // as Key, for a new one
	EnrolState         string
}

type shown struct{ ID, Kind, Name, Used string }

func (m *Method) form(r *http.Request) form {
	return form{Token: m.config.SignIns.FormToken(r)}
}

func (m *Method) showPassword(w http.ResponseWriter, r *http.Request) error {
	f := m.form(r)
	f.Next = signin.LocalPath(r.URL.Query().Get("next"))
	return m.render(w, r, http.StatusOK, "Sign in", passwordPage, f)
}

// password takes name and password, and goes on with what is needed beside them.
func (m *Method) password(w http.ResponseWriter, r *http.Request) error {
	if err := m.config.SignIns.CheckForm(r); err != nil {
		return err
	}
	name, next := strings.TrimSpace(r.PostForm.Get("user")), signin.LocalPath(r.PostForm.Get("next"))
	user, initial, err := m.config.Factors.CheckPassword(r.Context(), name, r.PostForm.Get("password"), m.config.SignIns.SourceIP(r))
	if mistake(err) {
		return m.passwordRefused(w, r, name, next, err)
	}
	if err != nil {
		return err
	}
	p, err := m.config.Factors.Password(r.Context(), user.ID)
	if err != nil {
		return err
	}
	s := state{User: user.ID, Next: next, Set: p.Set, Initial: initial}
	if !initial {
		return m.proceed(w, r, user, s, "")
	}
	return m.showSet(w, r, user, s, "")
}

// wrongPassword is the same for a name that nobody bears.
const wrongPassword = "The name or the password is not right."

func (m *Method) passwordRefused(w http.ResponseWriter, r *http.Request, name, next string, err error) error {
	refused := (*signin.RefusedError)(nil)
	if failed := m.config.SignIns.Fail(r, m.Name(), known(name), "password: "+err.Error()); !errors.As(failed, &refused) {
		return failed
	}
	f := m.form(r)
	f.Next, f.User, f.Problem = next, name, wrongPassword
	status := http.StatusForbidden
	if !errors.Is(err, factor.ErrWrong) {
		f.Problem, status = capital(err.Error()), http.StatusTooManyRequests
	}
	return m.render(w, r, status, "Sign in", passwordPage, f)
}

// known keeps what cannot be a user name out of the audit log: people type their password
// into the wrong field.
func known(name string) string {
	if len(name) > 64 || strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("_+=,.@-", c)
	}) {
		return "?"
	}
	return name
}

func capital(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }

// proceed asks for a second factor, or has one enrolled, or signs the person in.
func (m *Method) proceed(w http.ResponseWriter, r *http.Request, user identity.User, s state, problem string) error {
	devices, err := m.config.Factors.Devices(r.Context(), user.ID)
	if err != nil {
		return err
	}
	switch {
	case len(devices) > 0:
		return m.showFactor(w, r, user, s, problem)
	case m.config.RequireFactor:
		return m.showEnrol(w, r, user, s)
	}
	return m.complete(w, r, user, signin.Proof{Method: m.Name()}, s.Next)
}

func (m *Method) complete(w http.ResponseWriter, r *http.Request, user identity.User, by signin.Proof, next string) error {
	if err := m.config.Factors.Welcome(r.Context(), user.ID, m.config.SignIns.SourceIP(r)); err != nil {
		return err
	}
	return m.config.SignIns.Complete(w, r, user, by, next)
}

func (m *Method) showSet(w http.ResponseWriter, r *http.Request, user identity.User, s state, problem string) (err error) {
	f := m.form(r)
	f.User, f.Problem = user.Name, problem
	if f.State, err = m.seal(r, s); err != nil {
		return err
	}
	status := http.StatusOK
	if problem != "" {
		status = http.StatusBadRequest
	}
	return m.render(w, r, status, "Choose a password", setPage, f)
}

// set takes the password that replaces an initial one.
func (m *Method) set(w http.ResponseWriter, r *http.Request) error {
	s, user, err := m.open(r)
	if err != nil {
		return err
	}
	if !s.Initial {
		return signin.ErrBadForm
	}
	password := r.PostForm.Get("password")
	if password != r.PostForm.Get("again") {
		return m.showSet(w, r, user, s, "The two passwords are not the same.")
	}
	err = m.config.Factors.SetPassword(r.Context(), user, password, false)
	if mistake(err) {
		return m.showSet(w, r, user, s, capital(err.Error()))
	}
	if err != nil {
		return err
	}
	if err := m.record(r, user, audit.Record{Action: "sign-in:SetPassword", Reason: "password changed"}); err != nil {
		return err
	}
	p, err := m.config.Factors.Password(r.Context(), user.ID)
	if err != nil {
		return err
	}
	s.Initial, s.Set = false, p.Set
	return m.proceed(w, r, user, s, "")
}
