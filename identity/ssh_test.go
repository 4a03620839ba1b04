package identity_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/internal/seal"
	"sallyport.dev/store"
)

// sshWorld is an SSH on a real store, with a clock that tests turn.
type sshWorld struct {
	t     *testing.T
	ssh   *identity.SSH
	store *store.Store
	key   *seal.Key
	now   time.Time
	res   *identity.Resolver
}

func newSSHWorld(t *testing.T) *sshWorld {
	t.Helper()
	w := &sshWorld{t: t, now: time.Now().Truncate(time.Second)}
	var err error
	w.store, err = store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "s.db"), store.Options{Logger: slog.New(slog.DiscardHandler)})
	w.must(err)
	t.Cleanup(func() { w.store.Close() })
	w.key, err = seal.New(bytes.Repeat([]byte{3}, seal.KeySize))
	w.must(err)
	clock := func() time.Time { return w.now }
	w.res = identity.NewResolver(arn.Realm{Account: "111111111111", Region: "us-east-1"}, w.store, nil, clock)
	w.ssh = identity.NewSSH(identity.SSHConfig{Store: w.store, Resolver: w.res, Sealer: w.key, Now: clock})
	for _, name := range []string{"alice", "bob"} {
		w.must(w.store.CreateUser(t.Context(), identity.User{
			Name: name, ID: "AIDA" + strings.ToUpper(name), Path: "/", Created: w.now, Tags: identity.Tags{"Team": "payments"},
		}))
	}
	return w
}

func (w *sshWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func line(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// upload registers a key and returns its id.
func (w *sshWorld) upload(user string, key ssh.PublicKey, active bool) string {
	w.t.Helper()
	id := identity.NewSSHKeyID()
	w.must(w.store.CreateSSHKey(w.t.Context(), identity.SSHPublicKey{
		ID: id, User: user, Body: line(key) + " me@laptop", Fingerprint: ssh.FingerprintLegacyMD5(key), Active: active, Uploaded: w.now,
	}, 5))
	return id
}

// alice is the principal that alice is with a long-lived access key.
func (w *sshWorld) alice() identity.Principal {
	w.t.Helper()
	key, _ := identity.NewAccessKey(w.key, "alice", w.now)
	w.must(w.store.CreateAccessKey(w.t.Context(), key, 2))
	p, err := w.res.Resolve(w.t.Context(), identity.Proof{AccessKeyID: key.ID, Key: &key})
	w.must(err)
	return p
}

// role is a session of the role Ops that alice assumed, with all that one may have.
func (w *sshWorld) role() identity.Principal {
	w.t.Helper()
	w.must(w.store.CreateRole(w.t.Context(), identity.Role{
		Name: "Ops", ID: "AROAOPS", Path: "/", Created: w.now, Trust: "{}", MaxDuration: time.Hour, Tags: identity.Tags{"Team": "all"},
	}))
	p, err := w.res.Resolve(w.t.Context(), identity.Proof{AccessKeyID: "ASIAX", Claims: &identity.Claims{
		Kind: identity.KindRole, Name: "Ops", ID: "AROAOPS", SessionName: "alice@example.com",
		Tags: identity.Tags{"SSMSessionRunAs": "deploy, web"}, Transitive: []string{"SSMSessionRunAs"},
		MFA: true, MFAAt: w.now.Add(-time.Minute).UTC(), IssuedAt: w.now.UTC(), ExpiresAt: w.now.Add(time.Hour).UTC(),
		Source: "arn:aws:iam::111111111111:user/alice", SourceIdentity: "alice", Root: "AIDAALICE",
		Policies: []string{`{"Version":"2012-10-17","Statement":[]}`}, PolicyARNs: []string{"arn:aws:iam::111111111111:policy/p"},
	}})
	w.must(err)
	return p
}

func (w *sshWorld) certify(p identity.Principal, key ssh.PublicKey) *ssh.Certificate {
	w.t.Helper()
	cert, err := w.ssh.Certify(w.t.Context(), p, key, 0)
	w.must(err)
	// As a server sees it: from the wire.
	parsed, err := ssh.ParsePublicKey(cert.Marshal())
	w.must(err)
	return parsed.(*ssh.Certificate)
}

// refused checks that nobody is behind a key, and why.
func (w *sshWorld) refused(what string, key ssh.PublicKey, name string, want identity.Failure) {
	w.t.Helper()
	p, err := w.ssh.Principal(w.t.Context(), key, name)
	var e *identity.AuthError
	if !errors.As(err, &e) || e.Failure != want || p.ARN != "" {
		w.t.Errorf("%s: got %q, %v, want %s", what, p.ARN, err, want)
	}
}

func (w *sshWorld) accepted(what string, key ssh.PublicKey, name, want string) {
	w.t.Helper()
	p, err := w.ssh.Principal(w.t.Context(), key, name)
	if err != nil || p.Name != want {
		w.t.Errorf("%s: got %q, %v, want %s", what, p.Name, err, want)
	}
}

// Role sessions and users come back from their certificates as they were.
func TestCertificateCarriesThePrincipal(t *testing.T) {
	w := newSSHWorld(t)
	for _, p := range []identity.Principal{w.alice(), w.role()} {
		cert := w.certify(p, newKey(t).PublicKey())
		got, err := w.ssh.Principal(t.Context(), cert, "")
		w.must(err)
		if d := cmp.Diff(p, got); d != "" {
			t.Errorf("%s (-asked, +came back):\n%s", p.ARN, d)
		}
		if cert.KeyId != p.ARN || cert.CertType != ssh.UserCert || len(cert.CriticalOptions) != 0 {
			t.Errorf("%s: got id %q, type %d, options %v", p.ARN, cert.KeyId, cert.CertType, cert.CriticalOptions)
		}
		// Nothing of tags and policies can be read in it.
		if b := cert.Marshal(); bytes.Contains(b, []byte("SSMSessionRunAs")) || bytes.Contains(b, []byte("Statement")) {
			t.Errorf("%s: the certificate shows what it should seal", p.ARN)
		}
	}
}

func TestCertificatePrincipalsAndTimes(t *testing.T) {
	w := newSSHWorld(t)
	w.must(w.store.CreateGroup(t.Context(), identity.Group{Name: "ops", ID: "AGPA1", Path: "/", Created: w.now}))
	w.must(w.store.AddMember(t.Context(), "ops", "alice"))
	alice, role := w.alice(), w.role()
	plain := role
	plain.SessionPolicies, plain.SessionPolicyARNs = nil, nil
	for _, tt := range []struct {
		name       string
		p          identity.Principal
		lifetime   time.Duration
		principals []string
		lasts      time.Duration
	}{
		{"a user", alice, 0, []string{"user/alice", "group/ops"}, 8 * time.Hour},
		{"as long as asked", alice, time.Minute, []string{"user/alice", "group/ops"}, time.Minute},
		{"no longer than the limit", alice, 99 * time.Hour, []string{"user/alice", "group/ops"}, 12 * time.Hour},
		{"a role, no longer than its credentials", plain, 0, []string{"role/Ops"}, time.Hour},
		{"a role that is narrowed", role, time.Minute, []string{"assumed-role/Ops/alice@example.com"}, time.Minute},
	} {
		cert, err := w.ssh.Certify(t.Context(), tt.p, newKey(t).PublicKey(), tt.lifetime)
		w.must(err)
		if d := cmp.Diff(tt.principals, cert.ValidPrincipals); d != "" {
			t.Errorf("%s: principals (-want, +got):\n%s", tt.name, d)
		}
		if got := time.Unix(int64(cert.ValidBefore), 0).Sub(w.now); got != tt.lasts {
			t.Errorf("%s: lasts %v, want %v", tt.name, got, tt.lasts)
		}
		if got := w.now.Sub(time.Unix(int64(cert.ValidAfter), 0)); got != identity.SSHBackdate {
			t.Errorf("%s: begins %v ago, want %v", tt.name, got, identity.SSHBackdate)
		}
	}
}

func TestNobodyElseIsCertified(t *testing.T) {
	w := newSSHWorld(t)
	key := newKey(t).PublicKey()
	if _, err := w.ssh.Certify(t.Context(), identity.Principal{Kind: identity.KindNode, ARN: "n", Name: "i-1"}, key, 0); err == nil {
		t.Error("a node was certified")
	}
	alice := w.alice()
	if _, err := w.ssh.Certify(t.Context(), alice, w.certify(alice, key), 0); err == nil {
		t.Error("a certificate was certified")
	}
	over := alice
	over.ExpiresAt = w.now
	var e *identity.AuthError
	if _, err := w.ssh.Certify(t.Context(), over, key, 0); !errors.As(err, &e) || e.Failure != identity.ExpiredToken {
		t.Errorf("credentials that are over: got %v", err)
	}
}

// Certificates stop with what they were issued to.
func TestCertificateIsCheckedLive(t *testing.T) {
	disable := func(w *sshWorld, _ identity.Principal) {
		w.must(w.store.UpdateUser(t.Context(), "alice", func(u *identity.User) error { u.Disabled = true; return nil }))
	}
	for _, tt := range []struct {
		name   string
		who    func(*sshWorld) identity.Principal
		change func(*sshWorld, identity.Principal)
		want   identity.Failure
	}{
		{"user disabled", (*sshWorld).alice, disable, identity.UnknownKey},
		{"role of a disabled user", (*sshWorld).role, disable, identity.UnknownKey},
		{"access key made inactive", (*sshWorld).alice, func(w *sshWorld, p identity.Principal) {
			w.must(w.store.UpdateAccessKey(t.Context(), "alice", p.AccessKeyID, false))
		}, identity.UnknownKey},
		{"access key deleted", (*sshWorld).alice, func(w *sshWorld, p identity.Principal) {
			w.must(w.store.DeleteAccessKey(t.Context(), "alice", p.AccessKeyID))
		}, identity.UnknownKey},
		{"user made anew under the same name", (*sshWorld).alice, func(w *sshWorld, p identity.Principal) {
			w.must(w.store.DeleteAccessKey(t.Context(), "alice", p.AccessKeyID))
			w.must(w.store.DeleteUser(t.Context(), "alice"))
			w.must(w.store.CreateUser(t.Context(), identity.User{Name: "alice", ID: "AIDAOTHER", Path: "/", Created: w.now}))
		}, identity.UnknownKey},
		{"role deleted", (*sshWorld).role, func(w *sshWorld, _ identity.Principal) {
			w.must(w.store.DeleteRole(t.Context(), "Ops"))
		}, identity.UnknownKey},
		{"role session over", (*sshWorld).role, func(w *sshWorld, _ identity.Principal) {
			w.now = w.now.Add(time.Hour)
		}, identity.InvalidToken},
		{"certificate over", (*sshWorld).alice, func(w *sshWorld, _ identity.Principal) {
			w.now = w.now.Add(identity.DefaultSSHLifetime)
		}, identity.InvalidToken},
		{"certificate not begun", (*sshWorld).alice, func(w *sshWorld, _ identity.Principal) {
			w.now = w.now.Add(-identity.SSHBackdate - time.Second)
		}, identity.InvalidToken},
	} {
		w := newSSHWorld(t)
		p := tt.who(w)
		cert := w.certify(p, newKey(t).PublicKey())
		w.accepted(tt.name+", before", cert, "", p.Name)
		tt.change(w, p)
		w.refused(tt.name, cert, "", tt.want)
	}
}

// Certificates that somebody made or changed are nobody's.
func TestForgedCertificates(t *testing.T) {
	w := newSSHWorld(t)
	alice := w.alice()
	mine := newKey(t)
	authority := func(kind identity.SSHAuthorityKind) ssh.Signer { return w.openAuthority(kind) }
	users := authority(identity.SSHUsers)
	sign := func(by ssh.Signer, change func(*ssh.Certificate)) *ssh.Certificate {
		c := w.certify(alice, mine.PublicKey())
		change(c)
		w.must(c.SignCert(rand.Reader, by))
		return c
	}
	keep := func(*ssh.Certificate) {}
	for _, tt := range []struct {
		name string
		key  ssh.PublicKey
	}{
		{"signed by its own key", sign(mine, keep)},
		{"signed by another authority", sign(newKey(t), keep)},
		{"signed by the host authority", sign(authority(identity.SSHHosts), keep)},
		{"signed by the gateway's host key", sign(authority(identity.SSHGateway), keep)},
		{"of type host", sign(users, func(c *ssh.Certificate) { c.CertType = ssh.HostCert })},
		{"without principals", sign(users, func(c *ssh.Certificate) { c.ValidPrincipals = nil })},
		{"with a critical option that we know", sign(users, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "10.0.0.0/8"} })},
		{"with one that nobody knows", sign(users, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x": ""} })},
		{"without an end", sign(users, func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity })},
		{"without an identity", sign(users, func(c *ssh.Certificate) { delete(c.Extensions, identity.SSHIdentityExtension) })},
		{"with another certificate's identity", sign(users, func(c *ssh.Certificate) {
			other := w.certify(w.role(), mine.PublicKey())
			c.Extensions[identity.SSHIdentityExtension] = other.Extensions[identity.SSHIdentityExtension]
		})},
		{"for another key", sign(users, func(c *ssh.Certificate) { c.Key = newKey(t).PublicKey() })},
		{"with a huge identity", sign(users, func(c *ssh.Certificate) {
			c.Extensions[identity.SSHIdentityExtension] = strings.Repeat("A", 1<<20)
		})},
	} {
		w.refused(tt.name, tt.key, "", identity.InvalidToken)
	}
	changed := w.certify(alice, mine.PublicKey())
	changed.ValidBefore += 3600
	w.refused("with a later end", changed, "", identity.InvalidToken)
	w.refused("another's name", w.certify(alice, mine.PublicKey()), "bob", identity.UnknownKey)
	// CVE-2025-49825: a certificate is no authority, whatever key is in it.
	w.refused("an authority's key itself", users.PublicKey(), "alice", identity.UnknownKey)
	nested := sign(users, keep)
	nested.SignatureKey = w.certify(alice, mine.PublicKey())
	w.refused("signed by a certificate", nested, "", identity.InvalidToken)
}

// openAuthority returns the private key of the authority of a kind, as only whoever has
// the master key can.
func (w *sshWorld) openAuthority(kind identity.SSHAuthorityKind) ssh.Signer {
	w.t.Helper()
	all, err := w.ssh.Authorities(w.t.Context(), kind)
	w.must(err)
	seed, err := w.key.Open("ssh-authority", all[0].Sealed, []byte(string(kind)+"/"+all[0].ID))
	w.must(err)
	signer, err := ssh.NewSignerFromSigner(ed25519.NewKeyFromSeed(seed))
	w.must(err)
	return signer
}

func TestRegisteredKeys(t *testing.T) {
	w := newSSHWorld(t)
	hers, shared, old := newKey(t).PublicKey(), newKey(t).PublicKey(), newKey(t).PublicKey()
	id := w.upload("alice", hers, true)
	w.upload("alice", shared, true)
	w.upload("bob", shared, true)
	w.upload("alice", old, false)

	w.accepted("her key", hers, "", "alice")
	w.accepted("her key, named in other case", hers, "Alice", "alice")
	w.refused("her key, another's name", hers, "bob", identity.UnknownKey)
	w.refused("a key that nobody registered", newKey(t).PublicKey(), "alice", identity.UnknownKey)
	w.refused("an inactive key", old, "", identity.UnknownKey)
	w.refused("a shared key without a name", shared, "", identity.NameNeeded)
	w.accepted("a shared key with a name", shared, "bob", "bob")

	p, err := w.ssh.Principal(t.Context(), hers, "")
	w.must(err)
	if p.AccessKeyID != id || p.Temporary() || p.Kind != identity.KindUser {
		t.Errorf("got key %s, temporary %v, kind %s", p.AccessKeyID, p.Temporary(), p.Kind)
	}
	w.must(w.store.UpdateUser(t.Context(), "alice", func(u *identity.User) error { u.Disabled = true; return nil }))
	w.refused("a disabled user's key", hers, "", identity.UnknownKey)
	w.must(w.store.UpdateUser(t.Context(), "alice", func(u *identity.User) error { u.Disabled = false; return nil }))
	w.must(w.store.UpdateSSHKey(t.Context(), "alice", id, false))
	w.refused("a key made inactive", hers, "", identity.UnknownKey)
}

// Fingerprints are MD5: another key with the same one is another key.
func TestFingerprintIsNotEnough(t *testing.T) {
	w := newSSHWorld(t)
	victim, attacker := newKey(t).PublicKey(), newKey(t).PublicKey()
	w.must(w.store.CreateSSHKey(t.Context(), identity.SSHPublicKey{
		ID: identity.NewSSHKeyID(), User: "alice", Body: line(victim), Fingerprint: ssh.FingerprintLegacyMD5(attacker), Active: true,
	}, 5))
	w.refused("a colliding key", attacker, "", identity.UnknownKey)
}

func TestHostSigner(t *testing.T) {
	w := newSSHWorld(t)
	signer, err := w.ssh.HostSigner(t.Context(), []string{"gateway.example.com", "*.nodes.example.com"})
	w.must(err)
	cert, ok := signer.PublicKey().(*ssh.Certificate)
	if !ok || cert.CertType != ssh.HostCert {
		t.Fatalf("got %T of type %d, want a host certificate", signer.PublicKey(), cert.CertType)
	}
	again, err := w.ssh.HostSigner(t.Context(), []string{"*.nodes.example.com", "gateway.example.com"})
	w.must(err)
	if again != signer {
		t.Error("the certificate was made anew")
	}
	w.now = w.now.Add(13 * time.Hour)
	again, err = w.ssh.HostSigner(t.Context(), []string{"gateway.example.com", "*.nodes.example.com"})
	w.must(err)
	if again == signer {
		t.Error("the certificate was not renewed")
	}
	host, err := w.ssh.HostKey(t.Context())
	w.must(err)
	if !bytes.Equal(again.PublicKey().(*ssh.Certificate).Key.Marshal(), host.PublicKey().Marshal()) {
		t.Error("the certificate is for another key than the gateway's")
	}
	for _, names := range [][]string{nil, {}, {""}, {"a", ""}} {
		if _, err := w.ssh.HostSigner(t.Context(), names); err == nil {
			t.Errorf("%q: got a certificate for every host", names)
		}
	}
	// A host certificate is no person's.
	w.refused("a host certificate", cert, "", identity.InvalidToken)
}

func TestRotation(t *testing.T) {
	w := newSSHWorld(t)
	ctx := t.Context()
	before := w.certify(w.alice(), newKey(t).PublicKey())
	first, err := w.ssh.Authorities(ctx, identity.SSHUsers)
	w.must(err)
	w.must(w.ssh.Rotate(ctx, identity.SSHUsers, first[0].ID))
	if err := w.ssh.Rotate(ctx, identity.SSHUsers, first[0].ID); !errors.Is(err, identity.ErrConflict) {
		t.Errorf("rotating twice from the same state: got %v", err)
	}
	both, err := w.ssh.Authorities(ctx, identity.SSHUsers)
	w.must(err)
	if len(both) != 2 || both[0].ID == first[0].ID || !both[0].Signing || both[1].Signing {
		t.Fatalf("after rotating: got %+v", both)
	}
	w.accepted("a certificate of the old authority", before, "", "alice")
	if err := w.store.DeleteSSHAuthority(ctx, both[0].ID); !errors.Is(err, identity.ErrConflict) {
		t.Errorf("deleting the one that signs: got %v", err)
	}
	w.must(w.store.DeleteSSHAuthority(ctx, first[0].ID))
	w.refused("a certificate of an authority that is not trusted any more", before, "", identity.InvalidToken)
}

// All members end up with the same authority, made once.
func TestAuthorityIsMadeOnce(t *testing.T) {
	w := newSSHWorld(t)
	ids := make(chan string, 8)
	for range cap(ids) {
		go func() {
			s := identity.NewSSH(identity.SSHConfig{Store: w.store, Resolver: w.res, Sealer: w.key, Now: func() time.Time { return w.now }})
			all, err := s.Authorities(context.Background(), identity.SSHHosts)
			if err != nil || len(all) != 1 {
				ids <- "none"
				return
			}
			ids <- all[0].ID
		}()
	}
	want := <-ids
	for range cap(ids) - 1 {
		if got := <-ids; got != want || got == "none" {
			t.Errorf("got authorities %s and %s", got, want)
		}
	}
}

// An authority whose row was changed signs nothing.
func TestTamperedAuthority(t *testing.T) {
	w := newSSHWorld(t)
	all, err := w.ssh.Authorities(t.Context(), identity.SSHUsers)
	w.must(err)
	forged := all[0]
	forged.ID, forged.PublicKey = "SSHAFORGED", line(newKey(t).PublicKey())
	w.must(w.store.ReplaceSSHAuthority(t.Context(), forged, all[0].ID))
	if _, err := w.ssh.Certify(t.Context(), w.alice(), newKey(t).PublicKey(), 0); err == nil {
		t.Error("a changed row signed a certificate")
	}
}

// A key of any kind that IAM takes can be certified.
func TestCertifiesEveryKind(t *testing.T) {
	w := newSSHWorld(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	key, err := ssh.NewPublicKey(&private.PublicKey)
	w.must(err)
	w.accepted("ecdsa", w.certify(w.alice(), key), "alice", "alice")
}

// lapsing are ties that hold until told otherwise.
type lapsing struct{ signIn, grant string }

func (l *lapsing) SignIn(context.Context, string, string) (string, error) { return l.signIn, nil }
func (l *lapsing) Granted(context.Context, string, identity.GrantedRole) (string, error) {
	return l.grant, nil
}

// A certificate ends with the sign-in and the grants that its credentials came from, and
// so do further credentials that it helped to get.
func TestCertificateEndsWithItsTies(t *testing.T) {
	for name, end := range map[string]func(*lapsing){
		"the sign-in was ended": func(l *lapsing) { l.signIn = "the sign-in was ended" },
		"the grant was revoked": func(l *lapsing) { l.grant = "the grant was revoked" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newSSHWorld(t)
			ties := &lapsing{}
			w.res.Tie(ties)
			p := w.role()
			p.SignIn, p.Granted = "si-1", []identity.GrantedRole{{Role: "Ops", Grants: []string{"oi-0123456789ab"}}}
			cert := w.certify(p, newKey(t).PublicKey())
			got, err := w.ssh.Principal(t.Context(), cert, "")
			w.must(err)
			if got.SignIn != p.SignIn || !slices.EqualFunc(got.Granted, p.Granted, func(a, b identity.GrantedRole) bool { return a.Role == b.Role }) {
				t.Errorf("the certificate says the sign-in %q and %v", got.SignIn, got.Granted)
			}
			claims := got.Claims()
			end(ties)
			w.refused(name, cert, "", identity.ExpiredToken)
			if _, err := w.res.Restore(t.Context(), claims); err != nil {
				t.Errorf("what was begun with it has nobody behind it: %v", err)
			}
		})
	}
}
