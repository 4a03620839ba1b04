package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// SSHAuthorityKind says what the keys of an SSH authority sign.
type SSHAuthorityKind string

// Kinds of SSH authorities. Each has keys of its own: what certifies people can never
// pass for a host, nor the other way round.
const (
	SSHUsers   SSHAuthorityKind = "user"    // certifies people
	SSHHosts   SSHAuthorityKind = "host"    // certifies hosts
	SSHGateway SSHAuthorityKind = "gateway" // certifies nothing: the front door's own host key
	// SSHEvidence certifies nothing: it signs what is exported of the audit log.
	SSHEvidence SSHAuthorityKind = "evidence"
	// SSHAudit certifies nothing: it signs checkpoints of the audit log.
	SSHAudit SSHAuthorityKind = "audit"
)

// SSHAuthority is a key of an SSH authority. Several may be trusted; one of each kind
// signs.
type SSHAuthority struct {
	ID        string // SSHA…
	Kind      SSHAuthorityKind
	PublicKey string // as in authorized_keys, without a comment
	Sealed    []byte // the Ed25519 seed (purpose "ssh-authority", context kind/id)
	Signing   bool
	Created   time.Time
}

// GroupSSHKey tells that a member of a group has an active key.
type GroupSSHKey struct {
	Group string // in lower case
	User  string
	KeyID string
}

// SSHStore is the part of Store that is about SSH alone.
type SSHStore interface {
	// SSHAuthorities lists the authorities of a kind, the one that signs first.
	SSHAuthorities(ctx context.Context, kind SSHAuthorityKind) ([]SSHAuthority, error)
	// ReplaceSSHAuthority makes a the authority that signs in place of the one with
	// the id old ("" for none yet), which stays trusted; ErrConflict if another signs.
	ReplaceSSHAuthority(ctx context.Context, a SSHAuthority, old string) error
	// DeleteSSHAuthority ends the trust in an authority; ErrConflict for one that signs.
	DeleteSSHAuthority(ctx context.Context, id string) error

	// GroupSSHKeys lists the active keys of a group's members who are not disabled, in
	// order of the members' names.
	GroupSSHKeys(ctx context.Context, group string) ([]SSHPublicKey, error)
	// GroupsWithSSHKeys tells the same of all groups at once, in order of the groups.
	GroupsWithSSHKeys(ctx context.Context) ([]GroupSSHKey, error)
}

const purposeSSHAuthority = "ssh-authority"

// NewSSHAuthority makes a new authority, which signs once it is stored.
func NewSSHAuthority(sealer Sealer, kind SSHAuthorityKind, at time.Time) (SSHAuthority, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return SSHAuthority{}, fmt.Errorf("making the key of an SSH authority: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return SSHAuthority{}, fmt.Errorf("making the key of an SSH authority: %w", err)
	}
	a := SSHAuthority{ID: newID("SSHA", 16), Kind: kind, PublicKey: sshLine(key), Signing: true, Created: at}
	a.Sealed = sealer.Seal(purposeSSHAuthority, private.Seed(), a.context())
	return a, nil
}

func (a SSHAuthority) context() []byte { return []byte(string(a.Kind) + "/" + a.ID) }

// signer opens the authority's private key.
func (a SSHAuthority) signer(sealer Sealer) (ssh.Signer, error) {
	seed, err := sealer.Open(purposeSSHAuthority, a.Sealed, a.context())
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("opening the key of SSH authority %s: %w", a.ID, errors.Join(err, errSeed(seed)))
	}
	signer, err := ssh.NewSignerFromSigner(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return nil, err
	}
	// The public half is not sealed: a row that was tampered with signs nothing.
	if sshLine(signer.PublicKey()) != a.PublicKey {
		return nil, fmt.Errorf("the public key of SSH authority %s is not that of its private key", a.ID)
	}
	return signer, nil
}

func errSeed(seed []byte) error {
	if len(seed) == ed25519.SeedSize {
		return nil
	}
	return fmt.Errorf("it has %d bytes, must have %d", len(seed), ed25519.SeedSize)
}

func sshLine(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// Authorities returns the trusted authorities of a kind, the one that signs first. It
// makes one where there is none yet.
func (s *SSH) Authorities(ctx context.Context, kind SSHAuthorityKind) ([]SSHAuthority, error) {
	all, err := s.config.Store.SSHAuthorities(ctx, kind)
	if err != nil || len(all) > 0 && all[0].Signing {
		return all, err
	}
	if err := s.replace(ctx, kind, ""); err != nil && !errors.Is(err, ErrConflict) {
		return nil, err
	}
	all, err = s.config.Store.SSHAuthorities(ctx, kind) // maybe another member's
	if err == nil && (len(all) == 0 || !all[0].Signing) {
		err = fmt.Errorf("SSH authority %s: %w", kind, ErrNotFound)
	}
	return all, err
}

// Rotate makes a new authority of a kind that signs from now on. The one with the id
// old, which must be the one that signs now, and all before it stay trusted until they
// are deleted.
func (s *SSH) Rotate(ctx context.Context, kind SSHAuthorityKind, old string) error {
	return s.replace(ctx, kind, old)
}

func (s *SSH) replace(ctx context.Context, kind SSHAuthorityKind, old string) error {
	a, err := NewSSHAuthority(s.config.Sealer, kind, s.config.Now())
	if err != nil {
		return err
	}
	return s.config.Store.ReplaceSSHAuthority(ctx, a, old)
}

// EvidenceSigner returns the key that signs exports now.
func (s *SSH) EvidenceSigner(ctx context.Context) (ssh.Signer, error) {
	signer, _, err := s.signs(ctx, SSHEvidence)
	return signer, err
}

// AuditSigner returns the key that signs checkpoints now.
func (s *SSH) AuditSigner(ctx context.Context) (ssh.Signer, error) {
	signer, _, err := s.signs(ctx, SSHAudit)
	return signer, err
}

// AuditKeys returns the public keys whose checkpoints are trusted. One whose private key
// is not sealed beside it is none: somebody else wrote it into the database.
func (s *SSH) AuditKeys(ctx context.Context) ([]ssh.PublicKey, error) {
	all, err := s.Authorities(ctx, SSHAudit)
	if err != nil {
		return nil, err
	}
	var keys []ssh.PublicKey
	for _, a := range all {
		if signer, err := a.signer(s.config.Sealer); err == nil {
			keys = append(keys, signer.PublicKey())
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("SSH authority %s: %w", SSHAudit, ErrNotFound)
	}
	return keys, nil
}

// signs returns the signer of the authority of a kind that signs, and its id.
func (s *SSH) signs(ctx context.Context, kind SSHAuthorityKind) (ssh.Signer, string, error) {
	all, err := s.Authorities(ctx, kind)
	if err != nil {
		return nil, "", err
	}
	signer, err := all[0].signer(s.config.Sealer)
	return signer, all[0].ID, err
}
