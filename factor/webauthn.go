package factor

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"sallyport.dev/identity"
)

const (
	purposeCeremony = "webauthn-ceremony"
	ceremonyLasts   = 5 * time.Minute
	// maxResponse bounds what a browser answers, in bytes: attestations have chains of
	// certificates.
	maxResponse = 64 << 10
)

// newWebAuthn is the relying party of an origin; nil where that has no name of a host,
// which security keys need.
func newWebAuthn(origin, issuer string) (*webauthn.WebAuthn, error) {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("external URL %q is not https://HOST[:PORT]", origin)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return nil, nil
	}
	if u.Scheme != "https" && u.Hostname() != "localhost" {
		return nil, fmt.Errorf("external URL %q is not https://HOST[:PORT]", origin)
	}
	w, err := webauthn.New(&webauthn.Config{
		RPID: u.Hostname(), RPDisplayName: issuer, RPOrigins: []string{u.Scheme + "://" + u.Host},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			UserVerification: protocol.VerificationRequired,
			ResidentKey:      protocol.ResidentKeyRequirementDiscouraged,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("preparing for security keys: %w", err)
	}
	return w, nil
}

// HasWebAuthn reports whether security keys can be used.
func (k *Keeper) HasWebAuthn() bool { return k.webauthn != nil }

// person is a user as go-webauthn wants to see them.
type person struct {
	user        identity.User
	credentials []webauthn.Credential
}

func (p person) WebAuthnID() []byte                         { return []byte(p.user.ID) }
func (p person) WebAuthnName() string                       { return p.user.Name }
func (p person) WebAuthnDisplayName() string                { return p.user.Name }
func (p person) WebAuthnCredentials() []webauthn.Credential { return p.credentials }

// person reads a user's security keys, and which device each is.
func (k *Keeper) person(ctx context.Context, user identity.User) (person, map[string]Device, error) {
	p, byID := person{user: user}, map[string]Device{}
	devices, err := k.Devices(ctx, user.ID)
	if err != nil {
		return p, nil, err
	}
	for _, d := range devices {
		if d.Kind != WebAuthn {
			continue
		}
		var c webauthn.Credential
		if err := json.Unmarshal(d.Credential, &c); err != nil {
			return p, nil, fmt.Errorf("reading security key %s: %w", d.ID, err)
		}
		c.Authenticator.SignCount = uint32(d.Counter)
		p.credentials = append(p.credentials, c)
		byID[string(c.ID)] = d
	}
	return p, byID, nil
}

// ceremony is what must come back with the browser's answer, sealed.
type ceremony struct {
	User    string               `json:"user"`
	Purpose string               `json:"purpose"` // registration or assertion
	Session webauthn.SessionData `json:"session"`
	Expires time.Time            `json:"exp"`
}

func (k *Keeper) sealCeremony(user, purpose string, s *webauthn.SessionData) (string, error) {
	plain, err := json.Marshal(ceremony{user, purpose, *s, k.config.Now().Add(ceremonyLasts)})
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(k.config.Sealer.Seal(purposeCeremony, plain, nil)), nil
}

// openCeremony reads the state of a ceremony and uses it up. Of one that is not that
// user's, not for that purpose, too old or used before it only says ErrWrong.
func (k *Keeper) openCeremony(ctx context.Context, user, purpose, state string) (webauthn.SessionData, error) {
	var c ceremony
	sealed, err := base64.RawURLEncoding.DecodeString(state)
	if err != nil || len(state) > maxResponse {
		return c.Session, ErrWrong
	}
	plain, err := k.config.Sealer.Open(purposeCeremony, sealed, nil)
	if err != nil || json.Unmarshal(plain, &c) != nil {
		return c.Session, ErrWrong
	}
	if c.User != user || c.Purpose != purpose || !k.config.Now().Before(c.Expires) {
		return c.Session, ErrWrong
	}
	// The store's clock, by which it forgets, is not ours in tests: an hour is enough.
	first, err := k.config.Store.UseToken(ctx, "webauthn/"+c.Session.Challenge, time.Now().Add(time.Hour))
	if err == nil && !first {
		err = ErrUsed
	}
	return c.Session, err
}

// BeginRegistration begins to enrol a security key of a user: options are what the
// browser's navigator.credentials.create takes, in JSON, and state must come back with
// its answer.
func (k *Keeper) BeginRegistration(ctx context.Context, user identity.User) (options json.RawMessage, state string, err error) {
	if k.webauthn == nil {
		return nil, "", ErrNoWebAuthn
	}
	p, _, err := k.person(ctx, user)
	if err != nil {
		return nil, "", err
	}
	creation, session, err := k.webauthn.BeginRegistration(p,
		webauthn.WithExclusions(webauthn.Credentials(p.credentials).CredentialDescriptors()))
	if err != nil {
		return nil, "", fmt.Errorf("beginning to enrol a security key: %w", err)
	}
	if options, err = json.Marshal(creation); err != nil {
		return nil, "", err
	}
	state, err = k.sealCeremony(user.ID, "registration", session)
	return options, state, err
}

// FinishRegistration enrols the security key that answered, under a name.
func (k *Keeper) FinishRegistration(ctx context.Context, user identity.User, name, state string, response []byte) (Device, error) {
	if k.webauthn == nil {
		return Device{}, ErrNoWebAuthn
	}
	session, err := k.openCeremony(ctx, user.ID, "registration", state)
	if err != nil {
		return Device{}, err
	}
	if len(response) > maxResponse {
		return Device{}, ErrWrong
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return Device{}, k.refused("enrolling a security key", err)
	}
	credential, err := k.webauthn.CreateCredential(person{user: user}, session, parsed)
	if err != nil {
		return Device{}, k.refused("enrolling a security key", err)
	}
	text, err := json.Marshal(credential)
	if err != nil {
		return Device{}, err
	}
	now := k.config.Now()
	d := Device{ID: newID(), UserID: user.ID, Kind: WebAuthn, Name: name, Path: "/", Credential: text,
		Counter: int64(credential.Authenticator.SignCount), Created: now, Enabled: now}
	return d, k.config.Store.CreateDevice(ctx, d, MaxDevices)
}

// refused hides from callers what exactly a security key or its browser got wrong; our
// log tells.
func (k *Keeper) refused(doing string, err error) error {
	detail := ""
	if e := (*protocol.Error)(nil); errors.As(err, &e) {
		detail = e.DevInfo
	}
	k.config.Logger.Info("refused", "doing", doing, "error", err, "detail", detail)
	return ErrWrong
}

// BeginAssertion asks for one of a user's security keys: options are what
// navigator.credentials.get takes, and state must come back with its answer.
func (k *Keeper) BeginAssertion(ctx context.Context, user identity.User) (options json.RawMessage, state string, err error) {
	if k.webauthn == nil {
		return nil, "", ErrNoWebAuthn
	}
	p, _, err := k.person(ctx, user)
	if err != nil {
		return nil, "", err
	}
	if len(p.credentials) == 0 {
		return nil, "", fmt.Errorf("security keys of user %q: %w", user.Name, identity.ErrNotFound)
	}
	assertion, session, err := k.webauthn.BeginLogin(p)
	if err != nil {
		return nil, "", fmt.Errorf("asking for a security key: %w", err)
	}
	if options, err = json.Marshal(assertion); err != nil {
		return nil, "", err
	}
	state, err = k.sealCeremony(user.ID, "assertion", session)
	return options, state, err
}

// FinishAssertion checks the answer of a security key. ErrCloned means that its count of
// signatures went back.
func (k *Keeper) FinishAssertion(ctx context.Context, user identity.User, state string, response []byte) (Device, error) {
	if k.webauthn == nil {
		return Device{}, ErrNoWebAuthn
	}
	session, err := k.openCeremony(ctx, user.ID, "assertion", state)
	if err != nil {
		return Device{}, err
	}
	p, byID, err := k.person(ctx, user)
	if err != nil {
		return Device{}, err
	}
	if len(response) > maxResponse {
		return Device{}, ErrWrong
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return Device{}, k.refused("checking a security key", err)
	}
	credential, err := k.webauthn.ValidateLogin(p, session, parsed)
	if err != nil {
		return Device{}, k.refused("checking a security key", err)
	}
	d := byID[string(credential.ID)]
	if credential.Authenticator.CloneWarning {
		return d, ErrCloned
	}
	text, err := json.Marshal(credential)
	if err != nil {
		return d, err
	}
	err = k.use(ctx, d, int64(credential.Authenticator.SignCount), text)
	if errors.Is(err, ErrUsed) {
		err = ErrCloned
	}
	return d, err
}
