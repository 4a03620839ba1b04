package local

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"rsc.io/qr"

	"sallyport.dev/audit"
	"sallyport.dev/factor"
	"sallyport.dev/identity"
	"sallyport.dev/signin"
)

// fresh is how long ago somebody may have signed in, or shown a factor, to change their
// factors.
const fresh = 15 * time.Minute

// errStale is shown to who must sign in again first.
var errStale = errors.New("the sign-in is too old for that")

// mayChange returns errStale unless who is signed in may change their factors now: with a
// factor that was shown a short while ago or, while there is none, a sign-in that is new.
func (m *Method) mayChange(r *http.Request, p identity.Principal) (stepUp bool, err error) {
	now := m.config.Now()
	if p.MFA && now.Sub(p.MFAAt) <= fresh {
		return false, nil
	}
	devices, err := m.config.Factors.Devices(r.Context(), p.UserID)
	switch {
	case err != nil:
		return false, err
	case len(devices) > 0:
		return true, nil
	case now.Sub(p.IssuedAt) <= fresh:
		return false, nil
	}
	return false, errStale
}

// changing returns who is signed in and may change their factors; nobody where it has
// answered already.
func (m *Method) changing(w http.ResponseWriter, r *http.Request) (identity.User, bool, error) {
	user, p, err := m.person(r)
	if errors.Is(err, signin.ErrNotSignedIn) {
		http.Redirect(w, r, m.config.SignIns.SignInURL(pathFactors), http.StatusSeeOther)
		return user, false, nil
	}
	if err != nil {
		return user, false, err
	}
	stepUp, err := m.mayChange(r, p)
	if stepUp {
		http.Redirect(w, r, m.StepUpURL(pathFactors), http.StatusSeeOther)
	}
	return user, err == nil && !stepUp, err
}

func (m *Method) showFactors(w http.ResponseWriter, r *http.Request) error {
	user, ok, err := m.changing(w, r)
	if err != nil || !ok {
		return err
	}
	return m.listFactors(w, r, user, "")
}

func (m *Method) listFactors(w http.ResponseWriter, r *http.Request, user identity.User, problem string) error {
	f := m.form(r)
	f.User, f.Problem, f.Action = user.Name, problem, pathFactors
	devices, err := m.config.Factors.Devices(r.Context(), user.ID)
	if err != nil {
		return err
	}
	for _, d := range devices {
		used := "never used"
		if !d.Used.IsZero() {
			used = "last used " + d.Used.UTC().Format("2006-01-02")
		}
		f.Factors = append(f.Factors, shown{d.ID, words(d.Kind), d.Name, used})
	}
	if m.config.Factors.HasWebAuthn() {
		options, state, err := m.config.Factors.BeginRegistration(r.Context(), user)
		if err != nil {
			return err
		}
		f.EnrolKey, f.EnrolState = string(options), state
	}
	return m.render(w, r, statusOf(problem), "Second factors", factorsPage, f)
}

func words(k factor.Kind) string {
	if k == factor.WebAuthn {
		return "security key"
	}
	return "one-time codes"
}

// changeFactors enrols or removes a factor of who is signed in.
func (m *Method) changeFactors(w http.ResponseWriter, r *http.Request) error {
	if err := m.config.SignIns.CheckForm(r); err != nil {
		return err
	}
	user, ok, err := m.changing(w, r)
	if err != nil || !ok {
		return err
	}
	switch r.PostForm.Get("do") {
	case "key":
		err = m.enrolKey(r, user)
	case "codes":
		return m.newCodes(w, r, user, state{}, pathFactors, "")
	case "enable":
		var problem string
		if problem, err = m.enableCodes(r, user, r.PostForm.Get("device")); problem != "" && err == nil {
			return m.listFactors(w, r, user, problem)
		}
		if err == nil { // who enrols a factor shows it
			err = m.config.SignIns.Strengthen(r, string(factor.TOTP))
		}
	case "remove":
		err = m.remove(r, user, r.PostForm.Get("id"))
	default:
		err = signin.ErrBadForm
	}
	if mistake(err) || errors.Is(err, identity.ErrExists) || errors.Is(err, identity.ErrLimit) || errors.Is(err, identity.ErrNotFound) {
		return m.listFactors(w, r, user, wordsOf(err))
	}
	if err != nil {
		return err
	}
	http.Redirect(w, r, pathFactors, http.StatusSeeOther)
	return nil
}

func wordsOf(err error) string {
	switch {
	case errors.Is(err, identity.ErrExists):
		return "There is a second factor of that name."
	case errors.Is(err, identity.ErrLimit):
		return fmt.Sprintf("There are %d second factors, which is the most.", factor.MaxDevices)
	case errors.Is(err, identity.ErrNotFound):
		return "There is no such second factor."
	}
	return told(err)
}

func (m *Method) enrolKey(r *http.Request, user identity.User) error {
	name := strings.TrimSpace(r.PostForm.Get("name"))
	if name == "" {
		name = "key"
	}
	if name != known(name) {
		return &factor.WeakError{Because: "the name may have letters, digits and _+=,.@- only"}
	}
	d, err := m.config.Factors.FinishRegistration(r.Context(), user, name, r.PostForm.Get("ceremony"), []byte(r.PostForm.Get("response")))
	if err != nil {
		return err
	}
	return errors.Join(m.changed(r, user, d, "second factor enrolled"), m.config.SignIns.Strengthen(r, string(d.Kind)))
}

func (m *Method) changed(r *http.Request, user identity.User, d factor.Device, what string) error {
	return m.record(r, user, audit.Record{
		Action: "sign-in:ChangeFactors", Reason: what,
		Details: map[string]string{"factor": string(d.Kind), "serial_number": d.Serial(m.config.Realm, user.Name)},
	})
}

func (m *Method) remove(r *http.Request, user identity.User, id string) error {
	d, err := m.config.Factors.Find(r.Context(), user.ID, id)
	if err != nil {
		return err
	}
	if err := m.changed(r, user, d, "second factor removed"); err != nil {
		return err
	}
	return m.config.Factors.Remove(r.Context(), d)
}

// newCodes makes a device of one-time codes and shows its seed, this once.
func (m *Method) newCodes(w http.ResponseWriter, r *http.Request, user identity.User, s state, action, problem string) error {
	name, err := m.freeName(r, user)
	if err != nil {
		return err
	}
	seed, err := m.config.Factors.AddTOTP(r.Context(), user, name)
	if errors.Is(err, identity.ErrLimit) && action == pathFactors {
		return m.listFactors(w, r, user, wordsOf(err))
	}
	if err != nil {
		return err
	}
	f := m.form(r)
	f.User, f.Problem, f.Action, f.Seed = user.Name, problem, action, seed.Secret
	if f.QR, err = pngOf(seed.URL); err != nil {
		return err
	}
	f.Next = seed.ID
	if s.User != "" {
		s.Device = seed.ID
		if f.State, err = m.seal(r, s); err != nil {
			return err
		}
	}
	return m.render(w, r, statusOf(problem), "One-time codes", codesPage, f)
}

// freeName finds a name for another device of a user: their own, or with a number.
func (m *Method) freeName(r *http.Request, user identity.User) (string, error) {
	all, err := m.config.Factors.All(r.Context())
	if err != nil {
		return "", err
	}
	taken := map[string]bool{}
	for _, d := range all {
		mine := d.UserID == user.ID && d.Enabled.IsZero() // it is replaced
		if d.Kind == factor.TOTP && !mine {
			taken[strings.ToLower(d.Name)] = true
		}
	}
	name := user.Name
	for n := 2; taken[strings.ToLower(name)]; n++ {
		name = fmt.Sprintf("%s-%d", user.Name, n)
	}
	return name, nil
}

func pngOf(text string) (string, error) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(code.PNG()), nil
}

// enableCodes makes a device of a user's count; problem is what the person got wrong.
func (m *Method) enableCodes(r *http.Request, user identity.User, id string) (problem string, err error) {
	d, err := m.config.Factors.Device(r.Context(), id)
	if errors.Is(err, identity.ErrNotFound) || err == nil && d.UserID != user.ID {
		return "", signin.ErrBadForm
	}
	if err != nil {
		return "", err
	}
	err = m.config.Factors.EnableTOTP(r.Context(), d, user, m.config.SignIns.SourceIP(r), r.PostForm.Get("code"))
	if mistake(err) {
		return told(err), m.refused(r, user, factor.TOTP, err)
	}
	if err != nil {
		return "", err
	}
	return "", m.changed(r, user, d, "second factor enrolled")
}

func (m *Method) showEnrol(w http.ResponseWriter, r *http.Request, user identity.User, s state) error {
	return m.newCodes(w, r, user, s, pathEnrol, "")
}

// enrol takes the first code of who must have a second factor to sign in.
func (m *Method) enrol(w http.ResponseWriter, r *http.Request) error {
	s, user, err := m.open(r)
	if err != nil {
		return err
	}
	devices, err := m.config.Factors.Devices(r.Context(), user.ID)
	if err != nil {
		return err
	}
	if s.Initial || s.Device == "" || len(devices) > 0 {
		return signin.ErrBadForm
	}
	problem, err := m.enableCodes(r, user, s.Device)
	if err != nil {
		return err
	}
	if problem != "" {
		return m.newCodes(w, r, user, s, pathEnrol, problem)
	}
	return m.complete(w, r, user, m.proof(factor.Device{Kind: factor.TOTP}), s.Next)
}
