package local

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/signin"
)

const (
	purposeState = "local-sign-in"
	// stateLasts is how long somebody may take from the password to the second factor.
	stateLasts = 10 * time.Minute
	fieldState = "state"
)

// state is how far a sign-in has come. It travels in the form, sealed, for the browser
// that the form was made for.
type state struct {
	User string `json:"user"`
	Next string `json:"next,omitempty"`
	// Set is when the password that was shown had been set: one that has been changed
	// since is worth nothing.
	Set     time.Time `json:"set"`
	Initial bool      `json:"initial,omitempty"`
	Device  string    `json:"device,omitempty"` // that is being enrolled
	Expires time.Time `json:"exp"`
}

func (m *Method) seal(r *http.Request, s state) (string, error) {
	s.Expires = m.config.Now().Add(stateLasts)
	plain, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	sealed := m.config.Sealer.Seal(purposeState, plain, []byte(m.config.SignIns.FormToken(r)))
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// open reads the state that came with a form, and who it is about. The password must still
// be the one that was shown.
func (m *Method) open(r *http.Request) (s state, user identity.User, err error) {
	if err := m.config.SignIns.CheckForm(r); err != nil {
		return s, user, err
	}
	sealed, err := base64.RawURLEncoding.DecodeString(r.PostForm.Get(fieldState))
	if err != nil {
		return s, user, signin.ErrBadForm
	}
	plain, err := m.config.Sealer.Open(purposeState, sealed, []byte(m.config.SignIns.FormToken(r)))
	if err != nil || json.Unmarshal(plain, &s) != nil || !m.config.Now().Before(s.Expires) {
		return s, user, signin.ErrBadForm
	}
	if user, err = m.config.People.UserByID(r.Context(), s.User); err != nil {
		return s, user, err
	}
	p, err := m.config.Factors.Password(r.Context(), user.ID)
	if err != nil || !p.Set.Equal(s.Set) || p.Initial != s.Initial || user.Disabled {
		return s, user, signin.ErrBadForm
	}
	return s, user, nil
}
