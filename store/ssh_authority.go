package store

import (
	"context"
	"errors"

	"sallyport.dev/identity"
)

const sshAuthorityColumns = "id, kind, public_key, sealed, signing, created"

func scanSSHAuthority(r row) (a identity.SSHAuthority, err error) {
	return a, r.Scan(&a.ID, &a.Kind, &a.PublicKey, &a.Sealed, &a.Signing, stored{&a.Created})
}

// SSHAuthorities implements identity.SSHStore: the signing ones first, then the newest.
func (s *Store) SSHAuthorities(ctx context.Context, kind identity.SSHAuthorityKind) ([]identity.SSHAuthority, error) {
	all, err := list(s.read(ctx), scanSSHAuthority, "SELECT "+sshAuthorityColumns+
		" FROM ssh_authorities WHERE kind = $1 ORDER BY signing DESC, created DESC, id", string(kind))
	return all, wrap("listing SSH authorities", err)
}

// ReplaceSSHAuthority implements identity.SSHStore.
func (s *Store) ReplaceSSHAuthority(ctx context.Context, a identity.SSHAuthority, old string) error {
	return s.writeIdentity(ctx, "replacing SSH authority", func(t tx) error {
		current, err := signing(t, a.Kind)
		if err != nil {
			return err
		}
		if current != old {
			return about("SSH authority", string(a.Kind), identity.ErrConflict)
		}
		if _, err := t.exec("UPDATE ssh_authorities SET signing = $1 WHERE id = $2", false, old); err != nil {
			return err
		}
		_, err = t.exec("INSERT INTO ssh_authorities ("+sshAuthorityColumns+") VALUES ($1, $2, $3, $4, $5, $6)",
			a.ID, string(a.Kind), a.PublicKey, a.Sealed, true, micros(a.Created))
		return orExists(err, about("SSH authority", a.ID, identity.ErrExists))
	})
}

// DeleteSSHAuthority implements identity.SSHStore.
func (s *Store) DeleteSSHAuthority(ctx context.Context, id string) error {
	return s.writeIdentity(ctx, "deleting SSH authority", func(t tx) error {
		a, err := one(t, about("SSH authority", id, identity.ErrNotFound), scanSSHAuthority,
			"SELECT "+sshAuthorityColumns+" FROM ssh_authorities WHERE id = $1", id)
		if err != nil {
			return err
		}
		if a.Signing {
			return about("SSH authority", id, identity.ErrConflict)
		}
		_, err = t.exec("DELETE FROM ssh_authorities WHERE id = $1", id)
		return err
	})
}

// GroupSSHKeys implements identity.SSHStore.
func (s *Store) GroupSSHKeys(ctx context.Context, group string) ([]identity.SSHPublicKey, error) {
	t := s.read(ctx)
	g, err := groupByName(t, group)
	if err != nil {
		return nil, wrap("listing SSH keys of a group", err)
	}
	all, err := list(t, scanSSHKey, "SELECT "+sshKeyColumns+sshKeyTables+`
		JOIN memberships m ON m.user_id = users.id
		WHERE m.group_id = $1 AND k.active = $2 AND users.disabled = $3
		ORDER BY users.key, k.uploaded, k.id`, g.ID, true, false)
	return all, wrap("listing SSH keys of a group", err)
}

// GroupsWithSSHKeys implements identity.SSHStore.
func (s *Store) GroupsWithSSHKeys(ctx context.Context) ([]identity.GroupSSHKey, error) {
	all, err := list(s.read(ctx), scanGroupSSHKey, `
		SELECT g.key, users.name, k.id FROM memberships m
		JOIN user_groups g ON g.id = m.group_id
		JOIN users ON users.id = m.user_id
		JOIN ssh_keys k ON k.user_id = users.id
		WHERE k.active = $1 AND users.disabled = $2
		ORDER BY g.key, users.key, k.id`, true, false)
	return all, wrap("listing SSH keys of groups", err)
}

func scanGroupSSHKey(r row) (k identity.GroupSSHKey, err error) {
	return k, r.Scan(&k.Group, &k.User, &k.KeyID)
}

var _ identity.SSHStore = (*Store)(nil)

var errNoAuthority = errors.New("no SSH authority signs")

// signing returns the id of the authority of a kind that signs, "" for none.
func signing(t tx, kind identity.SSHAuthorityKind) (string, error) {
	id, err := one(t, errNoAuthority, scanText,
		"SELECT id FROM ssh_authorities WHERE kind = $1 AND signing = $2", string(kind), true)
	if errors.Is(err, errNoAuthority) {
		return "", nil
	}
	return id, err
}
