package store

import (
	"context"

	"sallyport.dev/identity"
)

const roleColumns = "id, name, path, created, description, trust, max_duration, tags, boundary"

func scanRole(r row) (o identity.Role, err error) {
	err = r.Scan(&o.ID, &o.Name, &o.Path, stored{&o.Created}, &o.Description, &o.Trust,
		lasting{&o.MaxDuration}, encoded{&o.Tags}, &o.Boundary)
	return o, err
}

func roleByName(t tx, name string) (identity.Role, error) {
	return one(t, about("role", name, identity.ErrNotFound), scanRole,
		"SELECT "+roleColumns+" FROM roles WHERE key = $1", key(name))
}

// CreateRole implements identity.Store.
func (s *Store) CreateRole(ctx context.Context, r identity.Role) error {
	return s.writeIdentity(ctx, "creating role", func(t tx) error {
		_, err := t.exec(`INSERT INTO roles (id, key, name, path, created, description, trust, max_duration, tags, boundary)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			r.ID, key(r.Name), r.Name, r.Path, micros(r.Created), r.Description, r.Trust,
			r.MaxDuration.Microseconds(), encode(r.Tags), r.Boundary)
		return orExists(err, about("role", r.Name, identity.ErrExists))
	})
}

// Role implements identity.Store.
func (s *Store) Role(ctx context.Context, name string) (identity.Role, error) {
	r, err := roleByName(s.read(ctx), name)
	return r, wrap("reading role", err)
}

// Roles implements identity.Store.
func (s *Store) Roles(ctx context.Context, p identity.Page) ([]identity.Role, error) {
	page, args := paged("roles", p, where{})
	all, err := list(s.read(ctx), scanRole, "SELECT "+roleColumns+" FROM roles"+page, args...)
	return all, wrap("listing roles", err)
}

// UpdateRole implements identity.Store. The id stays what it is.
func (s *Store) UpdateRole(ctx context.Context, name string, change func(*identity.Role) error) error {
	return s.writeIdentity(ctx, "changing role", func(t tx) error {
		r, err := roleByName(t, name)
		if err != nil {
			return err
		}
		id := r.ID
		if err := change(&r); err != nil {
			return err
		}
		_, err = t.exec(`UPDATE roles SET key = $1, name = $2, path = $3, created = $4, description = $5, trust = $6,
			max_duration = $7, tags = $8, boundary = $9 WHERE id = $10`,
			key(r.Name), r.Name, r.Path, micros(r.Created), r.Description, r.Trust,
			r.MaxDuration.Microseconds(), encode(r.Tags), r.Boundary, id)
		return orExists(err, about("role", r.Name, identity.ErrExists))
	})
}

// DeleteRole implements identity.Store.
func (s *Store) DeleteRole(ctx context.Context, name string) error {
	return s.writeIdentity(ctx, "deleting role", func(t tx) error {
		r, err := roleByName(t, name)
		if err != nil {
			return err
		}
		err = t.unused(about("role", r.Name, identity.ErrConflict), `
			SELECT (SELECT COUNT(*) FROM inline_policies WHERE owner_kind = 'role' AND owner_id = $1)
			     + (SELECT COUNT(*) FROM attachments WHERE owner_kind = 'role' AND owner_id = $1)`, r.ID)
		if err != nil {
			return err
		}
		_, err = t.exec("DELETE FROM roles WHERE id = $1", r.ID)
		return err
	})
}
