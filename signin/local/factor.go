package local

import (
	"context"
	"errors"
	"net/http"

	"sallyport.dev/factor"
	"sallyport.dev/identity"
	"sallyport.dev/signin"
)

// ask fills in what a page needs to ask for a second factor of a user.
func (m *Method) ask(ctx context.Context, user identity.User, f *form) error {
	devices, err := m.config.Factors.Devices(ctx, user.ID)
	if err != nil {
		return err
	}
	keys := false
	for _, d := range devices {
		f.Codes = f.Codes || d.Kind == factor.TOTP
		keys = keys || d.Kind == factor.WebAuthn
	}
	if !keys || !m.config.Factors.HasWebAuthn() {
		return nil
	}
	options, state, err := m.config.Factors.BeginAssertion(ctx, user)
	f.Key, f.KeyState = string(options), state
	return err
}

// take checks the second factor that a form brings: a code, or the answer of a security
// key. Mistakes are recorded.
func (m *Method) take(r *http.Request, user identity.User) (d factor.Device, err error) {
	kind := factor.TOTP
	if answer := r.PostForm.Get("response"); answer != "" {
		kind = factor.WebAuthn
		d, err = m.config.Factors.FinishAssertion(r.Context(), user, r.PostForm.Get("ceremony"), []byte(answer))
	} else {
		d, err = m.config.Factors.CheckTOTP(r.Context(), user, "", r.PostForm.Get("code"), m.config.SignIns.SourceIP(r))
	}
	if mistake(err) {
		return d, errors.Join(err, m.refused(r, user, kind, err))
	}
	return d, err
}

// told is what a person is told of a factor that was not taken.
func told(err error) string {
	wait := (*factor.WaitError)(nil)
	switch {
	case errors.As(err, &wait):
		return capital(wait.Error())
	case errors.Is(err, factor.ErrCloned):
		return "This security key counts backwards: there may be a copy of it. Tell an administrator."
	case errors.Is(err, factor.ErrUsed):
		return "That was used before. Wait for the next code."
	}
	return "That is not right."
}

func (m *Method) showFactor(w http.ResponseWriter, r *http.Request, user identity.User, s state, problem string) (err error) {
	f := m.form(r)
	f.User, f.Problem, f.Action = user.Name, problem, pathFactor
	if f.State, err = m.seal(r, s); err != nil {
		return err
	}
	if err := m.ask(r.Context(), user, &f); err != nil {
		return err
	}
	return m.render(w, r, statusOf(problem), "Second factor", factorPage, f)
}

func statusOf(problem string) int {
	if problem == "" {
		return http.StatusOK
	}
	return http.StatusForbidden
}

// factor takes the second factor of a sign-in.
func (m *Method) factor(w http.ResponseWriter, r *http.Request) error {
	s, user, err := m.open(r)
	if err != nil {
		return err
	}
	if s.Initial {
		return signin.ErrBadForm
	}
	d, err := m.take(r, user)
	if mistake(err) {
		return m.showFactor(w, r, user, s, told(err))
	}
	if err != nil {
		return err
	}
	return m.complete(w, r, user, m.proof(d), s.Next)
}

func (m *Method) proof(d factor.Device) signin.Proof {
	return signin.Proof{Method: m.Name(), Factor: string(d.Kind), FactorAt: m.config.Now()}
}

func (m *Method) showStepUp(w http.ResponseWriter, r *http.Request) error {
	user, _, err := m.person(r)
	next := signin.LocalPath(r.URL.Query().Get("next"))
	if errors.Is(err, signin.ErrNotSignedIn) {
		http.Redirect(w, r, m.config.SignIns.SignInURL(m.StepUpURL(next)), http.StatusSeeOther)
		return nil
	}
	if err != nil {
		return err
	}
	return m.showStep(w, r, user, next, "")
}

func (m *Method) showStep(w http.ResponseWriter, r *http.Request, user identity.User, next, problem string) error {
	f := m.form(r)
	f.User, f.Problem, f.Action, f.Next = user.Name, problem, pathStepUp, next
	if err := m.ask(r.Context(), user, &f); err != nil {
		return err
	}
	return m.render(w, r, statusOf(problem), "Second factor", factorPage, f)
}

// stepUp takes a second factor of who is signed in, and marks the sign-in.
func (m *Method) stepUp(w http.ResponseWriter, r *http.Request) error {
	if err := m.config.SignIns.CheckForm(r); err != nil {
		return err
	}
	user, _, err := m.person(r)
	if err != nil {
		return err
	}
	next := signin.LocalPath(r.PostForm.Get("next"))
	d, err := m.take(r, user)
	if mistake(err) {
		return m.showStep(w, r, user, next, told(err))
	}
	if err != nil {
		return err
	}
	if err := m.config.SignIns.Strengthen(r, string(d.Kind)); err != nil {
		return err
	}
	if next == "" {
		next = pathFactors
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}
