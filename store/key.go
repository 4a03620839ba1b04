package store

import (
	"context"
	"strings"
	"time"

	"sallyport.dev/identity"
)

const (
	accessKeyColumns = "k.id, users.name, k.sealed, k.active, k.created, k.last_used"
	accessKeyTables  = " FROM access_keys k JOIN users ON users.id = k.user_id"
)

func scanAccessKey(r row) (k identity.AccessKey, err error) {
	return k, r.Scan(&k.ID, &k.User, &k.Sealed, &k.Active, stored{&k.Created}, stored{&k.LastUsed})
}

// CreateAccessKey implements identity.Store.
func (s *Store) CreateAccessKey(ctx context.Context, k identity.AccessKey, limit int) error {
	return s.writeIdentity(ctx, "creating access key", func(t tx) error {
		u, err := userByName(t, k.User)
		if err != nil {
			return err
		}
		n, err := t.count("SELECT COUNT(*) FROM access_keys WHERE user_id = $1", u.ID)
		if err != nil {
			return err
		}
		if n >= int64(limit) {
			return about("user", u.Name, identity.ErrLimit)
		}
		_, err = t.exec(`INSERT INTO access_keys (id, user_id, sealed, active, created, last_used)
			VALUES ($1, $2, $3, $4, $5, $6)`,
			k.ID, u.ID, k.Sealed, k.Active, micros(k.Created), micros(k.LastUsed))
		return orExists(err, about("access key", k.ID, identity.ErrExists))
	})
}

// AccessKey implements identity.Store.
func (s *Store) AccessKey(ctx context.Context, id string) (identity.AccessKey, error) {
	k, err := one(s.read(ctx), about("access key", id, identity.ErrNotFound), scanAccessKey,
		"SELECT "+accessKeyColumns+accessKeyTables+" WHERE k.id = $1", id)
	return k, wrap("reading access key", err)
}

// AccessKeys implements identity.Store, oldest first.
func (s *Store) AccessKeys(ctx context.Context, user string) ([]identity.AccessKey, error) {
	t := s.read(ctx)
	u, err := userByName(t, user)
	if err != nil {
		return nil, wrap("listing access keys", err)
	}
	all, err := list(t, scanAccessKey,
		"SELECT "+accessKeyColumns+accessKeyTables+" WHERE k.user_id = $1 ORDER BY k.created, k.id", u.ID)
	return all, wrap("listing access keys", err)
}

// UpdateAccessKey implements identity.Store.
func (s *Store) UpdateAccessKey(ctx context.Context, user, id string, active bool) error {
	return s.writeIdentity(ctx, "changing access key", func(t tx) error {
		u, err := userByName(t, user)
		if err != nil {
			return err
		}
		return t.must(about("access key", id, identity.ErrNotFound),
			"UPDATE access_keys SET active = $1 WHERE id = $2 AND user_id = $3", active, id, u.ID)
	})
}

// TouchAccessKey implements identity.Store. The time never goes back.
func (s *Store) TouchAccessKey(ctx context.Context, id string, at time.Time) error {
	return s.write(ctx, "noting use of access key", func(t tx) error {
		return t.must(about("access key", id, identity.ErrNotFound), `
			UPDATE access_keys SET last_used = CASE WHEN last_used < $1 THEN $1 ELSE last_used END WHERE id = $2`,
			micros(at), id)
	})
}

// DeleteAccessKey implements identity.Store.
func (s *Store) DeleteAccessKey(ctx context.Context, user, id string) error {
	return s.writeIdentity(ctx, "deleting access key", func(t tx) error {
		u, err := userByName(t, user)
		if err != nil {
			return err
		}
		return t.must(about("access key", id, identity.ErrNotFound),
			"DELETE FROM access_keys WHERE id = $1 AND user_id = $2", id, u.ID)
	})
}

const (
	sshKeyColumns = "k.id, users.name, k.body, k.fingerprint, k.active, k.uploaded"
	sshKeyTables  = " FROM ssh_keys k JOIN users ON users.id = k.user_id"
)

func scanSSHKey(r row) (k identity.SSHPublicKey, err error) {
	return k, r.Scan(&k.ID, &k.User, &k.Body, &k.Fingerprint, &k.Active, stored{&k.Uploaded})
}

// material is what makes an SSH key itself: its type and base64, without the comment.
func material(body string) string {
	fields := strings.Fields(body)
	return strings.Join(fields[:min(2, len(fields))], " ")
}

// CreateSSHKey implements identity.Store. Bodies that differ in their comments only
// are duplicates.
func (s *Store) CreateSSHKey(ctx context.Context, k identity.SSHPublicKey, limit int) error {
	return s.writeIdentity(ctx, "creating SSH key", func(t tx) error {
		u, err := userByName(t, k.User)
		if err != nil {
			return err
		}
		n, err := t.count("SELECT COUNT(*) FROM ssh_keys WHERE user_id = $1 AND material <> $2", u.ID, material(k.Body))
		if err != nil {
			return err
		}
		if n >= int64(limit) {
			return about("user", u.Name, identity.ErrLimit)
		}
		_, err = t.exec(`INSERT INTO ssh_keys (id, user_id, material, body, fingerprint, active, uploaded)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			k.ID, u.ID, material(k.Body), k.Body, k.Fingerprint, k.Active, micros(k.Uploaded))
		return orExists(err, about("SSH key", k.Fingerprint, identity.ErrExists))
	})
}

// SSHKey implements identity.Store.
func (s *Store) SSHKey(ctx context.Context, user, id string) (identity.SSHPublicKey, error) {
	t := s.read(ctx)
	u, err := userByName(t, user)
	if err != nil {
		return identity.SSHPublicKey{}, wrap("reading SSH key", err)
	}
	k, err := one(t, about("SSH key", id, identity.ErrNotFound), scanSSHKey,
		"SELECT "+sshKeyColumns+sshKeyTables+" WHERE k.id = $1 AND k.user_id = $2", id, u.ID)
	return k, wrap("reading SSH key", err)
}

// SSHKeys implements identity.Store, oldest first.
func (s *Store) SSHKeys(ctx context.Context, user string) ([]identity.SSHPublicKey, error) {
	t := s.read(ctx)
	u, err := userByName(t, user)
	if err != nil {
		return nil, wrap("listing SSH keys", err)
	}
	all, err := list(t, scanSSHKey,
		"SELECT "+sshKeyColumns+sshKeyTables+" WHERE k.user_id = $1 ORDER BY k.uploaded, k.id", u.ID)
	return all, wrap("listing SSH keys", err)
}

// SSHKeysByFingerprint implements identity.Store: several users may have one key.
func (s *Store) SSHKeysByFingerprint(ctx context.Context, fingerprint string) ([]identity.SSHPublicKey, error) {
	all, err := list(s.read(ctx), scanSSHKey,
		"SELECT "+sshKeyColumns+sshKeyTables+" WHERE k.fingerprint = $1 ORDER BY users.key", fingerprint)
	return all, wrap("finding SSH keys", err)
}

// UpdateSSHKey implements identity.Store.
func (s *Store) UpdateSSHKey(ctx context.Context, user, id string, active bool) error {
	return s.writeIdentity(ctx, "changing SSH key", func(t tx) error {
		u, err := userByName(t, user)
		if err != nil {
			return err
		}
		return t.must(about("SSH key", id, identity.ErrNotFound),
			"UPDATE ssh_keys SET active = $1 WHERE id = $2 AND user_id = $3", active, id, u.ID)
	})
}

// DeleteSSHKey implements identity.Store.
func (s *Store) DeleteSSHKey(ctx context.Context, user, id string) error {
	return s.writeIdentity(ctx, "deleting SSH key", func(t tx) error {
		u, err := userByName(t, user)
		if err != nil {
			return err
		}
		return t.must(about("SSH key", id, identity.ErrNotFound),
			"DELETE FROM ssh_keys WHERE id = $1 AND user_id = $2", id, u.ID)
	})
}
