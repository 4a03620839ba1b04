package store

import (
	"context"

	"sallyport.dev/identity"
)

const userColumns = "users.id, users.name, users.path, users.created, users.tags, users.boundary, users.disabled"

func scanUser(r row) (u identity.User, err error) {
	err = r.Scan(&u.ID, &u.Name, &u.Path, stored{&u.Created}, encoded{&u.Tags}, &u.Boundary, &u.Disabled)
	return u, err
}

func userByName(t tx, name string) (identity.User, error) {
	return one(t, about("user", name, identity.ErrNotFound), scanUser,
		"SELECT "+userColumns+" FROM users WHERE key = $1", key(name))
}

// CreateUser implements identity.Store.
func (s *Store) CreateUser(ctx context.Context, u identity.User) error {
	return s.writeIdentity(ctx, "creating user", func(t tx) error { return insertUser(t, u) })
}

func insertUser(t tx, u identity.User) error {
	_, err := t.exec(`INSERT INTO users (id, key, name, path, created, tags, boundary, disabled)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		u.ID, key(u.Name), u.Name, u.Path, micros(u.Created), encode(u.Tags), u.Boundary, u.Disabled)
	return orExists(err, about("user", u.Name, identity.ErrExists))
}

// User implements identity.Store.
func (s *Store) User(ctx context.Context, name string) (identity.User, error) {
	u, err := userByName(s.read(ctx), name)
	return u, wrap("reading user", err)
}

// UserByID implements identity.Store.
func (s *Store) UserByID(ctx context.Context, id string) (identity.User, error) {
	u, err := one(s.read(ctx), about("user", id, identity.ErrNotFound), scanUser,
		"SELECT "+userColumns+" FROM users WHERE id = $1", id)
	return u, wrap("reading user", err)
}

// paged selects a page of a table that has name keys and paths.
func paged(table string, p identity.Page, w where) (query string, args []any) {
	if p.After != "" {
		w.add(table+".key > ?", key(p.After))
	}
	if p.PathPrefix != "" {
		w.add(table+`.path LIKE ? ESCAPE '\'`, escapeLike.Replace(p.PathPrefix)+"%")
		w.add("substr("+table+".path, 1, length(?)) = ?", p.PathPrefix, p.PathPrefix) // LIKE ignores case on SQLite
	}
	return w.String() + " ORDER BY " + table + ".key" + limit(p.Limit), w.args
}

// Users implements identity.Store.
func (s *Store) Users(ctx context.Context, p identity.Page) ([]identity.User, error) {
	page, args := paged("users", p, where{})
	all, err := list(s.read(ctx), scanUser, "SELECT "+userColumns+" FROM users"+page, args...)
	return all, wrap("listing users", err)
}

// UpdateUser implements identity.Store. The id stays what it is.
func (s *Store) UpdateUser(ctx context.Context, name string, change func(*identity.User) error) error {
	return s.writeIdentity(ctx, "changing user", func(t tx) error {
		u, err := userByName(t, name)
		if err != nil {
			return err
		}
		id := u.ID
		if err := change(&u); err != nil {
			return err
		}
		_, err = t.exec(`UPDATE users SET key = $1, name = $2, path = $3, created = $4, tags = $5, boundary = $6, disabled = $7
			WHERE id = $8`,
			key(u.Name), u.Name, u.Path, micros(u.Created), encode(u.Tags), u.Boundary, u.Disabled, id)
		return orExists(err, about("user", u.Name, identity.ErrExists))
	})
}

// DeleteUser implements identity.Store.
func (s *Store) DeleteUser(ctx context.Context, name string) error {
	return s.writeIdentity(ctx, "deleting user", func(t tx) error {
		u, err := userByName(t, name)
		if err != nil {
			return err
		}
		err = t.unused(about("user", u.Name, identity.ErrConflict), `
			SELECT (SELECT COUNT(*) FROM memberships WHERE user_id = $1)
			     + (SELECT COUNT(*) FROM access_keys WHERE user_id = $1)
			     + (SELECT COUNT(*) FROM ssh_keys WHERE user_id = $1)
			     + (SELECT COUNT(*) FROM inline_policies WHERE owner_kind = 'user' AND owner_id = $1)
			     + (SELECT COUNT(*) FROM attachments WHERE owner_kind = 'user' AND owner_id = $1)`, u.ID)
		if err != nil {
			return err
		}
		if err := forgetSignIns(t, u.ID); err != nil {
			return err
		}
		_, err = t.exec("DELETE FROM users WHERE id = $1", u.ID)
		return err
	})
}

// unused fails with inUse unless a count of uses is zero.
func (t tx) unused(inUse error, uses string, args ...any) error {
	n, err := t.count(uses, args...)
	if err == nil && n > 0 {
		return inUse
	}
	return err
}
