package factor_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"sallyport.dev/factor"
	"sallyport.dev/identity"
)

// key is a security key in somebody's browser.
type key struct {
	site virtualwebauthn.RelyingParty
	auth virtualwebauthn.Authenticator
	cred virtualwebauthn.Credential
}

// wholeKey is the length of a public key as a security key tells it.
const wholeKey = 77

// newKey makes a key whose coordinates do not start with a zero: virtualwebauthn leaves
// such zeros out, which no security key does, and which is refused.
func newKey() *key {
	cred := virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2)
	for len(cred.Key.AttestationData()) != wholeKey {
		cred = virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2)
	}
	return &key{
		site: virtualwebauthn.RelyingParty{ID: "sallyport.example", Name: "Sallyport", Origin: "https://sallyport.example"},
		auth: virtualwebauthn.NewAuthenticator(),
		cred: cred,
	}
}

func (k *key) create(t *testing.T, options json.RawMessage) []byte {
	t.Helper()
	o, err := virtualwebauthn.ParseAttestationOptions(string(options))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(virtualwebauthn.CreateAttestationResponse(k.site, k.auth, k.cred, *o))
}

func (k *key) get(t *testing.T, options json.RawMessage) []byte {
	t.Helper()
	o, err := virtualwebauthn.ParseAssertionOptions(string(options))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(virtualwebauthn.CreateAssertionResponse(k.site, k.auth, k.cred, *o))
}

// register enrols a key for a user.
func (r *rig) register(u identity.User, k *key) error {
	r.t.Helper()
	options, state, err := r.keeper.BeginRegistration(r.t.Context(), u)
	r.must(err)
	_, err = r.keeper.FinishRegistration(r.t.Context(), u, "key", state, k.create(r.t, options))
	return err
}

// show shows a key of a user.
func (r *rig) show(u identity.User, k *key) error {
	r.t.Helper()
	options, state, err := r.keeper.BeginAssertion(r.t.Context(), u)
	r.must(err)
	_, err = r.keeper.FinishAssertion(r.t.Context(), u, state, k.get(r.t, options))
	return err
}

func TestWebAuthn(t *testing.T) {
	r := newRig(t)
	alice, k := r.user("alice"), newKey()
	r.must(r.register(alice, k))
	r.must(r.show(alice, k))
	k.cred.Counter = 5
	r.must(r.show(alice, k))
	all, err := r.keeper.Devices(t.Context(), alice.ID)
	r.must(err)
	if len(all) != 1 || all[0].Kind != factor.WebAuthn || all[0].Counter != 5 || all[0].Used.IsZero() {
		t.Errorf("got devices %+v", all)
	}
}

// A key's answer counts once, for whom it was asked for, in time, from our own pages, with
// the person verified, and from a key that is theirs.
func TestWebAuthnAttacks(t *testing.T) {
	for name, attack := range map[string]func(r *rig, alice, bob identity.User, k *key) error{
		"from another origin": func(r *rig, alice, _ identity.User, k *key) error {
			k.site.Origin = "https://sallyport.example.evil.example"
			return r.show(alice, k)
		},
		"from plain http": func(r *rig, alice, _ identity.User, k *key) error {
			k.site.Origin = "http://sallyport.example"
			return r.show(alice, k)
		},
		"for another site": func(r *rig, alice, _ identity.User, k *key) error {
			k.site.ID = "evil.example"
			return r.show(alice, k)
		},
		"without the person": func(r *rig, alice, _ identity.User, k *key) error {
			k.auth.Options.UserNotVerified = true
			return r.show(alice, k)
		},
		"of another key": func(r *rig, alice, _ identity.User, k *key) error {
			other := newKey()
			other.cred.ID = k.cred.ID
			return r.show(alice, other)
		},
		"of another person's key": func(r *rig, alice, bob identity.User, _ *key) error {
			theirs := newKey()
			r.must(r.register(bob, theirs))
			return r.show(alice, theirs)
		},
		"asked of another person": func(r *rig, alice, bob identity.User, k *key) error {
			r.must(r.register(bob, newKey()))
			options, state, err := r.keeper.BeginAssertion(r.t.Context(), alice)
			r.must(err)
			_, err = r.keeper.FinishAssertion(r.t.Context(), bob, state, k.get(r.t, options))
			return err
		},
		"to another question": func(r *rig, alice, _ identity.User, k *key) error {
			options, _, err := r.keeper.BeginAssertion(r.t.Context(), alice)
			r.must(err)
			_, state, err := r.keeper.BeginAssertion(r.t.Context(), alice)
			r.must(err)
			_, err = r.keeper.FinishAssertion(r.t.Context(), alice, state, k.get(r.t, options))
			return err
		},
		"twice": func(r *rig, alice, _ identity.User, k *key) error {
			options, state, err := r.keeper.BeginAssertion(r.t.Context(), alice)
			r.must(err)
			answer := k.get(r.t, options)
			_, err = r.keeper.FinishAssertion(r.t.Context(), alice, state, answer)
			r.must(err)
			_, err = r.keeper.FinishAssertion(r.t.Context(), alice, state, answer)
			return err
		},
		"too late": func(r *rig, alice, _ identity.User, k *key) error {
			options, state, err := r.keeper.BeginAssertion(r.t.Context(), alice)
			r.must(err)
			r.now = r.now.Add(6 * time.Minute)
			_, err = r.keeper.FinishAssertion(r.t.Context(), alice, state, k.get(r.t, options))
			return err
		},
		"with the state of an enrolment": func(r *rig, alice, _ identity.User, k *key) error {
			options, _, err := r.keeper.BeginAssertion(r.t.Context(), alice)
			r.must(err)
			_, state, err := r.keeper.BeginRegistration(r.t.Context(), alice)
			r.must(err)
			_, err = r.keeper.FinishAssertion(r.t.Context(), alice, state, k.get(r.t, options))
			return err
		},
		"with an invented state": func(r *rig, alice, _ identity.User, k *key) error {
			options, _, err := r.keeper.BeginAssertion(r.t.Context(), alice)
			r.must(err)
			_, err = r.keeper.FinishAssertion(r.t.Context(), alice, "AAAA", k.get(r.t, options))
			return err
		},
		"that is nonsense": func(r *rig, alice, _ identity.User, _ *key) error {
			_, state, err := r.keeper.BeginAssertion(r.t.Context(), alice)
			r.must(err)
			_, err = r.keeper.FinishAssertion(r.t.Context(), alice, state, []byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{}}`))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			alice, bob, k := r.user("alice"), r.user("bob"), newKey()
			r.must(r.register(alice, k))
			if err := attack(r, alice, bob, k); !errors.Is(err, factor.ErrWrong) && !errors.Is(err, factor.ErrUsed) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A key whose count of signatures goes back, or stays, is refused: somebody has a copy.
func TestClonedKey(t *testing.T) {
	r := newRig(t)
	alice, k := r.user("alice"), newKey()
	r.must(r.register(alice, k))
	k.cred.Counter = 7
	r.must(r.show(alice, k))
	wantErr(t, "the same count", r.show(alice, k), factor.ErrCloned)
	k.cred.Counter = 3
	wantErr(t, "a lower count", r.show(alice, k), factor.ErrCloned)
	k.cred.Counter = 8
	r.must(r.show(alice, k))
}

func TestEnrolmentAttacks(t *testing.T) {
	r := newRig(t)
	alice, bob, k := r.user("alice"), r.user("bob"), newKey()
	k.site.Origin = "https://evil.example"
	wantErr(t, "from another origin", r.register(alice, k), factor.ErrWrong)
	k = newKey()
	k.auth.Options.UserNotVerified = true
	wantErr(t, "without the person", r.register(alice, k), factor.ErrWrong)
	k = newKey()
	options, state, err := r.keeper.BeginRegistration(t.Context(), alice)
	r.must(err)
	_, err = r.keeper.FinishRegistration(t.Context(), bob, "key", state, k.create(t, options))
	wantErr(t, "for somebody else", err, factor.ErrWrong)
	_, err = r.keeper.FinishRegistration(t.Context(), alice, "key", state, k.create(t, options))
	r.must(err)
	_, err = r.keeper.FinishRegistration(t.Context(), alice, "key 2", state, k.create(t, options))
	wantErr(t, "twice", err, factor.ErrUsed)
}

func TestNoWebAuthn(t *testing.T) {
	for _, url := range []string{"", "https://127.0.0.1:8443"} {
		r := newRig(t, func(c *factor.Config) { c.URL = url })
		if _, _, err := r.keeper.BeginRegistration(t.Context(), r.user("alice")); !errors.Is(err, factor.ErrNoWebAuthn) {
			t.Errorf("%q: got %v", url, err)
		}
	}
	for _, url := range []string{"http://sallyport.example", "sallyport.example", "https://"} {
		r := newRig(t)
		_, err := factor.New(factor.Config{
			Store: r.store, People: r.store, Sealer: r.sealer, Logger: slog.New(slog.DiscardHandler), URL: url, Cost: cheap(),
		})
		if err == nil || !strings.Contains(err.Error(), "external URL") {
			t.Errorf("%q: got %v", url, err)
		}
	}
}

// FuzzAnswers: whatever a browser answers, it is refused and nothing breaks.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{"authenticatorData":"AA","clientDataJSON":"AA","signature":"AA"}}`))
	f.Add([]byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{"attestationObject":"oA","clientDataJSON":"e30"}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		r := newRig(t)
		alice := r.user("alice")
		_, state, err := r.keeper.BeginRegistration(t.Context(), alice)
		r.must(err)
		if _, err = r.keeper.FinishRegistration(t.Context(), alice, "key", state, answer); !errors.Is(err, factor.ErrWrong) {
			t.Errorf("enrolling: got %v", err)
		}
		r.must(r.register(alice, newKey()))
		_, state, err = r.keeper.BeginAssertion(t.Context(), alice)
		r.must(err)
		if _, err = r.keeper.FinishAssertion(t.Context(), alice, state, answer); !errors.Is(err, factor.ErrWrong) {
			t.Errorf("showing: got %v", err)
		}
	})
}
