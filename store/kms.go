package store

import (
	"context"
	"fmt"
	"time"

	"sallyport.dev/kms"
)

var _ kms.Store = (*Store)(nil)

const kmsKeyColumns = "id, description, state, created, deletion, version, rotated, on_demand, rotation"

func scanKMSKey(r row) (k kms.Key, err error) {
	return k, r.Scan(&k.ID, &k.Description, &k.State, stored{&k.Created}, stored{&k.Deletion}, &k.Version,
		stored{&k.Rotated}, &k.OnDemand, &k.Rotation)
}

func (t tx) kmsKey(id string) (kms.Key, error) {
	return one(t, about("key", id, kms.ErrNotFound), scanKMSKey, "SELECT "+kmsKeyColumns+" FROM kms_keys WHERE id = $1"+t.forUpdate, id)
}

// CreateKMSKey implements kms.Store.
func (s *Store) CreateKMSKey(ctx context.Context, k kms.Key, m kms.Material, limit int) error {
	return s.write(ctx, "creating key", func(t tx) error {
		n, err := t.count("SELECT COUNT(*) FROM kms_keys")
		if err != nil {
			return err
		}
		if n >= int64(limit) {
			return fmt.Errorf("%d keys: %w", n, kms.ErrLimit)
		}
		_, err = t.exec("INSERT INTO kms_keys ("+kmsKeyColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
			k.ID, k.Description, string(k.State), micros(k.Created), micros(k.Deletion), k.Version, micros(k.Rotated), k.OnDemand, k.Rotation)
		if err != nil {
			return err
		}
		return t.putKMSMaterial(m)
	})
}

func (t tx) putKMSMaterial(m kms.Material) error {
	_, err := t.exec("INSERT INTO kms_material (key_id, version, sealed, created) VALUES ($1, $2, $3, $4)",
		m.KeyID, m.Version, notNil(m.Sealed), micros(m.Created))
	return err
}

// KMSKey implements kms.Store.
func (s *Store) KMSKey(ctx context.Context, id string) (kms.Key, error) {
	k, err := s.read(ctx).kmsKey(id)
	return k, wrap("reading key", err)
}

// KMSKeys implements kms.Store.
func (s *Store) KMSKeys(ctx context.Context, after string, most int) ([]kms.Key, error) {
	all, err := list(s.read(ctx), scanKMSKey,
		"SELECT "+kmsKeyColumns+" FROM kms_keys WHERE id > $1 ORDER BY id"+limit(most), after)
	return all, wrap("listing keys", err)
}

// UpdateKMSKey implements kms.Store.
func (s *Store) UpdateKMSKey(ctx context.Context, id string, change func(*kms.Key) (*kms.Material, error)) error {
	return s.write(ctx, "changing key", func(t tx) error {
		k, err := t.kmsKey(id)
		if err != nil {
			return err
		}
		m, err := change(&k)
		if err != nil {
			return err
		}
		_, err = t.exec(`UPDATE kms_keys SET description = $1, state = $2, deletion = $3, version = $4, rotated = $5,
			on_demand = $6, rotation = $7 WHERE id = $8`,
			k.Description, string(k.State), micros(k.Deletion), k.Version, micros(k.Rotated), k.OnDemand, k.Rotation, id)
		if err != nil || m == nil {
			return err
		}
		return t.putKMSMaterial(*m)
	})
}

func scanKMSMaterial(r row) (m kms.Material, err error) {
	return m, r.Scan(&m.KeyID, &m.Version, &m.Sealed, stored{&m.Created})
}

// KMSMaterial implements kms.Store.
func (s *Store) KMSMaterial(ctx context.Context, id string, version int) (kms.Material, error) {
	m, err := one(s.read(ctx), about("material of key", id, kms.ErrNotFound), scanKMSMaterial,
		"SELECT key_id, version, sealed, created FROM kms_material WHERE key_id = $1 AND version = $2", id, version)
	return m, wrap("reading key material", err)
}

// DeleteKMSKey implements kms.Store.
func (s *Store) DeleteKMSKey(ctx context.Context, id string, now time.Time) error {
	return s.write(ctx, "deleting key", func(t tx) error {
		return t.must(about("key", id, kms.ErrNotFound), "DELETE FROM kms_keys WHERE id = $1 AND state = $2 AND deletion <= $3",
			id, string(kms.PendingDeletion), micros(now))
	})
}

func scanKMSAlias(r row) (a kms.Alias, err error) {
	return a, r.Scan(&a.Name, &a.KeyID, stored{&a.Created}, stored{&a.Updated})
}

// CreateKMSAlias implements kms.Store.
func (s *Store) CreateKMSAlias(ctx context.Context, a kms.Alias, limit int) error {
	return s.write(ctx, "creating alias", func(t tx) error {
		if _, err := t.kmsKey(a.KeyID); err != nil {
			return err
		}
		n, err := t.count("SELECT COUNT(*) FROM kms_aliases WHERE key_id = $1", a.KeyID)
		if err != nil {
			return err
		}
		if n >= int64(limit) {
			return about("aliases of key", a.KeyID, kms.ErrLimit)
		}
		_, err = t.exec("INSERT INTO kms_aliases (name, key_id, created, updated) VALUES ($1, $2, $3, $4)",
			a.Name, a.KeyID, micros(a.Created), micros(a.Updated))
		return orExists(err, about("alias", a.Name, kms.ErrExists))
	})
}

// KMSAlias implements kms.Store.
func (s *Store) KMSAlias(ctx context.Context, name string) (kms.Alias, error) {
	a, err := one(s.read(ctx), about("alias", name, kms.ErrNotFound), scanKMSAlias,
		"SELECT name, key_id, created, updated FROM kms_aliases WHERE name = $1", name)
	return a, wrap("reading alias", err)
}

// KMSAliases implements kms.Store.
func (s *Store) KMSAliases(ctx context.Context, key, after string, most int) ([]kms.Alias, error) {
	w := where{}
	w.equal("key_id", key)
	w.add("name > ?", after)
	all, err := list(s.read(ctx), scanKMSAlias,
		"SELECT name, key_id, created, updated FROM kms_aliases"+w.String()+" ORDER BY name"+limit(most), w.args...)
	return all, wrap("listing aliases", err)
}

// DeleteKMSAlias implements kms.Store.
func (s *Store) DeleteKMSAlias(ctx context.Context, name, key string) error {
	return s.write(ctx, "deleting alias", func(t tx) error {
		return t.must(about("alias", name, kms.ErrNotFound), "DELETE FROM kms_aliases WHERE name = $1 AND key_id = $2", name, key)
	})
}
