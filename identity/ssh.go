package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// SSHConfig is what an SSH needs.
type SSHConfig struct {
	Store interface {
		SSHStore
		People
		GroupsOf(ctx context.Context, user string, p Page) ([]Group, error)
		SSHKeysByFingerprint(ctx context.Context, fingerprint string) ([]SSHPublicKey, error)
	}
	Resolver *Resolver
	Sealer   Sealer
	Now      func() time.Time
}

// SSH knows people and hosts by SSH: it certifies both, and tells who is behind a key
// or a certificate.
type SSH struct {
	config SSHConfig

	mu    sync.Mutex
	hosts map[string]hostCertificate // by their names
}

// NewSSH returns an SSH.
func NewSSH(c SSHConfig) *SSH { return &SSH{config: c, hosts: map[string]hostCertificate{}} }

// Limits of user certificates. SSHBackdate tolerates clocks that are a little behind.
const (
	DefaultSSHLifetime = 8 * time.Hour
	MaxSSHLifetime     = 12 * time.Hour
	SSHBackdate        = 5 * time.Minute
)

// SSHIdentityExtension is the extension of user certificates that holds, sealed, who
// the certificate was issued to.
const SSHIdentityExtension = "identity@sallyport.dev"

const purposeSSHIdentity = "ssh-identity"

// maxSSHIdentity bounds the sealed identity in a certificate, in characters. Session
// tokens may be as large (maxToken).
const maxSSHIdentity = 96 << 10

// sshClaims are who a certificate was issued to. LongLived says that it was issued to
// a user who signed with the long-lived access key KeyID.
type sshClaims struct {
	Claims
	KeyID     string `json:"key_id"`
	LongLived bool   `json:"long_lived,omitempty"`
}

// Certify issues a certificate for key to the principal p, which must be a user or a
// role session. It lasts for lifetime (0: DefaultSSHLifetime; MaxSSHLifetime at most),
// but never longer than the credentials that p signed with.
//
// Its principals are names of what p is, not of users of an operating system, so that a
// node's sshd that trusts the authority lets nobody in until it is told whom: user/NAME
// and group/NAME of a user, role/NAME of a role session. A role session that session
// policies narrow has only assumed-role/NAME/SESSION: whoever lets the role in means
// all that the role may.
func (s *SSH) Certify(ctx context.Context, p Principal, key ssh.PublicKey, lifetime time.Duration) (*ssh.Certificate, error) {
	if p.Kind != KindUser && p.Kind != KindRole {
		return nil, fmt.Errorf("certifying %s: only users and role sessions are", p.ARN)
	}
	if _, nested := key.(*ssh.Certificate); nested {
		return nil, errors.New("certifying a key: it is a certificate")
	}
	names, err := s.principals(ctx, p)
	if err != nil {
		return nil, err
	}
	now := s.config.Now()
	until := now.Add(clampLifetime(lifetime))
	if !p.ExpiresAt.IsZero() && p.ExpiresAt.Before(until) {
		until = p.ExpiresAt
	}
	if !until.After(now) {
		return nil, authError(ExpiredToken, "%s", messageExpired)
	}
	cert := &ssh.Certificate{
		Key: key, Serial: newSerial(), CertType: ssh.UserCert, KeyId: p.ARN, ValidPrincipals: names,
		ValidAfter: uint64(now.Add(-SSHBackdate).Unix()), ValidBefore: uint64(until.Unix()),
	}
	cert.Extensions = map[string]string{
		"permit-pty": "", "permit-port-forwarding": "", "permit-agent-forwarding": "",
	}
	if cert.Extensions[SSHIdentityExtension], err = s.sealIdentity(p, cert); err != nil {
		return nil, err
	}
	authority, _, err := s.signs(ctx, SSHUsers)
	if err != nil {
		return nil, err
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	return cert, nil
}

func clampLifetime(d time.Duration) time.Duration {
	if d <= 0 {
		return DefaultSSHLifetime
	}
	return min(d, MaxSSHLifetime)
}

func newSerial() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

// maxSSHPrincipals is how many principals OpenSSH reads in a certificate, less one.
const maxSSHPrincipals = 255

func (s *SSH) principals(ctx context.Context, p Principal) ([]string, error) {
	if p.Kind == KindRole {
		if len(p.SessionPolicies)+len(p.SessionPolicyARNs) > 0 {
			return []string{"assumed-role/" + p.Name + "/" + p.SessionName}, nil
		}
		return []string{"role/" + p.Name}, nil
	}
	names := []string{"user/" + p.Name}
	if len(p.SessionPolicies)+len(p.SessionPolicyARNs) > 0 {
		return names, nil
	}
	groups, err := s.config.Store.GroupsOf(ctx, p.Name, Page{Limit: maxSSHPrincipals - 1})
	if err != nil {
		return nil, fmt.Errorf("listing groups of %s: %w", p.Name, err)
	}
	for _, g := range groups {
		names = append(names, "group/"+g.Name)
	}
	return names, nil
}

func (s *SSH) sealIdentity(p Principal, cert *ssh.Certificate) (string, error) {
	plain, err := json.Marshal(sshClaimsOf(p))
	if err != nil {
		return "", fmt.Errorf("sealing an identity: %w", err)
	}
	sealed := base64.StdEncoding.EncodeToString(s.config.Sealer.Seal(purposeSSHIdentity, plain, sshContext(cert)))
	if len(sealed) > maxSSHIdentity {
		return "", fmt.Errorf("sealing an identity: it has %d characters; at most %d are allowed", len(sealed), maxSSHIdentity)
	}
	return sealed, nil
}

// sshContext binds an identity to one certificate.
func sshContext(c *ssh.Certificate) []byte {
	return append(binary.BigEndian.AppendUint64(nil, c.Serial), c.Key.Marshal()...)
}

func sshClaimsOf(p Principal) sshClaims {
	return sshClaims{Claims: p.Claims(), KeyID: p.AccessKeyID, LongLived: !p.Temporary()}
}

// Principal returns who is behind a key, or a certificate, that has proven itself in an
// SSH handshake. name is whom the SSH user name names, "" for nobody: it chooses among
// users who registered the same key, and otherwise must be right.
//
// A key registered with IAM makes the user as with long-lived keys, whose AccessKeyID is
// the key's id (APKA…). A certificate makes the principal that it was issued to: with
// the same tags, policies and times, and only as long as the user, and the access key
// that asked for it, are still good. Both are looked up each time, so that calling
// again tells whether somebody may stay.
//
// SSH servers ask about keys before they are proven: an answer is no proof. Refusals
// are *AuthError; nothing is recorded here.
func (s *SSH) Principal(ctx context.Context, key ssh.PublicKey, name string) (Principal, error) {
	var p Principal
	var err error
	if cert, ok := key.(*ssh.Certificate); ok {
		p, err = s.certified(ctx, cert)
	} else {
		p, err = s.registered(ctx, key, name)
	}
	if err != nil {
		return Principal{}, sshRefusal(err)
	}
	if !namesPrincipal(p, name) {
		return Principal{}, authError(UnknownKey, "The SSH key is not that of %.64q.", name)
	}
	return p, nil
}

// sshRefusal leaves no trace of why nobody is behind a key.
func sshRefusal(err error) error {
	if errors.Is(err, ErrNotFound) {
		return authError(UnknownKey, "The SSH key or certificate is not known.")
	}
	return err
}

func namesPrincipal(p Principal, name string) bool {
	return name == "" || strings.EqualFold(name, p.Name) || p.SessionName != "" && name == p.SessionName
}

// registered finds the user who registered a key. Fingerprints are MD5, so that the
// whole keys are compared.
func (s *SSH) registered(ctx context.Context, key ssh.PublicKey, name string) (Principal, error) {
	rows, err := s.config.Store.SSHKeysByFingerprint(ctx, ssh.FingerprintLegacyMD5(key))
	if err != nil {
		return Principal{}, fmt.Errorf("looking up an SSH key: %w", err)
	}
	rows = slices.DeleteFunc(rows, func(k SSHPublicKey) bool {
		return !k.Active || !sameSSHKey(k.Body, key) || name != "" && !strings.EqualFold(k.User, name)
	})
	switch {
	case len(rows) == 0:
		return Principal{}, ErrNotFound
	case len(rows) > 1:
		return Principal{}, authError(NameNeeded, "Several users have registered this SSH key; the user name must tell which one it is.")
	}
	user, err := s.config.Store.User(ctx, rows[0].User)
	if err != nil {
		return Principal{}, err
	}
	p, err := s.config.Resolver.user(user)
	p.AccessKeyID = rows[0].ID
	return p, err
}

func sameSSHKey(line string, key ssh.PublicKey) bool {
	stored, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	return err == nil && bytes.Equal(stored.Marshal(), key.Marshal())
}

// certified checks a user certificate and returns whom it was issued to.
func (s *SSH) certified(ctx context.Context, cert *ssh.Certificate) (Principal, error) {
	if err := s.checkCertificate(ctx, cert); err != nil {
		return Principal{}, err
	}
	sealed, err := base64.StdEncoding.DecodeString(cert.Extensions[SSHIdentityExtension])
	if err != nil || len(sealed) == 0 {
		return Principal{}, badCertificate("it says nobody")
	}
	plain, err := s.config.Sealer.Open(purposeSSHIdentity, sealed, sshContext(cert))
	if err != nil {
		return Principal{}, badCertificate("its identity does not open")
	}
	var c sshClaims
	if err := json.Unmarshal(plain, &c); err != nil {
		return Principal{}, badCertificate("its identity cannot be read")
	}
	return s.claimed(ctx, c)
}

func badCertificate(why string) error {
	return authError(InvalidToken, "The SSH certificate is not valid: %s.", why)
}

// checkCertificate accepts what our own authority signed for a person, now. It does
// not lean on ssh.CertChecker.Authenticate, which takes a certificate without
// principals for everybody's and ties principals to the SSH user name.
func (s *SSH) checkCertificate(ctx context.Context, cert *ssh.Certificate) error {
	switch {
	case cert.CertType != ssh.UserCert:
		return badCertificate("it is not one for users")
	case len(cert.ValidPrincipals) == 0:
		return badCertificate("it names no principal")
	case len(cert.CriticalOptions) > 0:
		return badCertificate("it has critical options")
	case cert.ValidBefore == ssh.CertTimeInfinity:
		return badCertificate("it has no end")
	case len(cert.Extensions[SSHIdentityExtension]) > maxSSHIdentity:
		return badCertificate("it is too large")
	}
	authorities, err := s.config.Store.SSHAuthorities(ctx, SSHUsers)
	if err != nil {
		return err
	}
	// Compared as bytes: a certificate of one of our keys is not one of our keys.
	signedBy := slices.ContainsFunc(authorities, func(a SSHAuthority) bool { return sameSSHKey(a.PublicKey, cert.SignatureKey) })
	if !signedBy {
		return badCertificate("it was not signed here")
	}
	checker := ssh.CertChecker{Clock: s.config.Now}
	if err := checker.CheckCert(cert.ValidPrincipals[0], cert); err != nil {
		return badCertificate(strings.TrimPrefix(err.Error(), "ssh: "))
	}
	return nil
}

// claimed makes the principal of a certificate's claims as it is now.
func (s *SSH) claimed(ctx context.Context, c sshClaims) (Principal, error) {
	proof := Proof{AccessKeyID: c.KeyID, Claims: &c.Claims}
	if !c.LongLived {
		if !s.config.Now().Before(c.ExpiresAt) {
			return Principal{}, authError(ExpiredToken, "%s", messageExpired)
		}
		return s.config.Resolver.Resolve(ctx, proof)
	}
	key, err := s.config.Store.AccessKey(ctx, c.KeyID)
	if err != nil {
		return Principal{}, err
	}
	if !key.Active {
		return Principal{}, ErrNotFound
	}
	p, err := s.config.Resolver.Resolve(ctx, Proof{AccessKeyID: c.KeyID, Key: &key})
	if err == nil && p.UserID != c.ID {
		err = ErrNotFound
	}
	return p, err
}
