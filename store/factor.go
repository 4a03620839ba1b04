package store

import (
	"context"
	"time"

	"sallyport.dev/factor"
	"sallyport.dev/identity"
)

var _ factor.Store = (*Store)(nil)

const passwordColumns = "user_id, hash, set_at, initial, expires"

func scanPassword(r row) (p factor.Password, err error) {
	return p, r.Scan(&p.UserID, &p.Hash, stored{&p.Set}, &p.Initial, stored{&p.Expires})
}

// Password implements factor.Store.
func (s *Store) Password(ctx context.Context, user string) (factor.Password, error) {
	p, err := one(s.read(ctx), about("password of", user, identity.ErrNotFound), scanPassword,
		"SELECT "+passwordColumns+" FROM passwords WHERE user_id = $1", user)
	return p, wrap("reading password", err)
}

// PutPassword implements factor.Store.
func (s *Store) PutPassword(ctx context.Context, p factor.Password) error {
	return s.write(ctx, "setting password", func(t tx) error {
		if err := t.hasUser(p.UserID); err != nil {
			return err
		}
		_, err := t.exec("INSERT INTO passwords ("+passwordColumns+`) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, set_at = excluded.set_at,
			initial = excluded.initial, expires = excluded.expires`,
			p.UserID, p.Hash, micros(p.Set), p.Initial, micros(p.Expires))
		return err
	})
}

// hasUser fails unless there is a user, whom it keeps from being deleted meanwhile.
func (t tx) hasUser(id string) error {
	_, err := one(t, about("user", id, identity.ErrNotFound), scanText, "SELECT id FROM users WHERE id = $1"+t.forUpdate, id)
	return err
}

// DeletePassword implements factor.Store.
func (s *Store) DeletePassword(ctx context.Context, user string) error {
	return s.write(ctx, "deleting password", func(t tx) error {
		return t.must(about("password of", user, identity.ErrNotFound), "DELETE FROM passwords WHERE user_id = $1", user)
	})
}

const deviceColumns = "id, COALESCE(user_id, ''), kind, name, path, sealed, credential, counter, created, enabled, used"

func scanDevice(r row) (d factor.Device, err error) {
	return d, r.Scan(&d.ID, &d.UserID, &d.Kind, &d.Name, &d.Path, &d.Sealed, &d.Credential, &d.Counter,
		stored{&d.Created}, stored{&d.Enabled}, stored{&d.Used})
}

// CreateDevice implements factor.Store.
func (s *Store) CreateDevice(ctx context.Context, d factor.Device, limit int) error {
	return s.write(ctx, "creating second factor", func(t tx) error {
		if err := t.roomForDevice(d.UserID, limit); err != nil {
			return err
		}
		_, err := t.exec(`INSERT INTO factors (id, user_id, kind, key, name, path, sealed, credential, counter, created, enabled, used)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
			d.ID, orNull(d.UserID), string(d.Kind), d.Key(), d.Name, d.Path, notNil(d.Sealed), notNil(d.Credential), d.Counter,
			micros(d.Created), micros(d.Enabled), micros(d.Used))
		return orExists(err, about("second factor", d.Name, identity.ErrExists))
	})
}

// roomForDevice fails where a user, or nobody, has limit devices.
func (t tx) roomForDevice(user string, limit int) error {
	query, args := "SELECT COUNT(*) FROM factors WHERE user_id IS NULL", []any{}
	if user != "" {
		if err := t.hasUser(user); err != nil {
			return err
		}
		query, args = "SELECT COUNT(*) FROM factors WHERE user_id = $1", []any{user}
	}
	n, err := t.count(query, args...)
	if err == nil && n >= int64(limit) {
		return about("second factors of", user, identity.ErrLimit)
	}
	return err
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func (t tx) device(id string) (factor.Device, error) {
	return one(t, about("second factor", id, identity.ErrNotFound), scanDevice,
		"SELECT "+deviceColumns+" FROM factors WHERE id = $1"+t.forUpdate, id)
}

// Device implements factor.Store.
func (s *Store) Device(ctx context.Context, id string) (factor.Device, error) {
	d, err := s.read(ctx).device(id)
	return d, wrap("reading second factor", err)
}

// DeviceByKey implements factor.Store.
func (s *Store) DeviceByKey(ctx context.Context, key string) (factor.Device, error) {
	d, err := one(s.read(ctx), about("second factor", key, identity.ErrNotFound), scanDevice,
		"SELECT "+deviceColumns+" FROM factors WHERE key = $1", key)
	return d, wrap("reading second factor", err)
}

// Devices implements factor.Store.
func (s *Store) Devices(ctx context.Context, user string) ([]factor.Device, error) {
	all, err := list(s.read(ctx), scanDevice,
		"SELECT "+deviceColumns+" FROM factors WHERE user_id = $1 ORDER BY created, id", user)
	return all, wrap("listing second factors", err)
}

// AllDevices implements factor.Store.
func (s *Store) AllDevices(ctx context.Context) ([]factor.Device, error) {
	all, err := list(s.read(ctx), scanDevice, "SELECT "+deviceColumns+" FROM factors ORDER BY key")
	return all, wrap("listing second factors", err)
}

// EnableDevice implements factor.Store.
func (s *Store) EnableDevice(ctx context.Context, id, user string, counter int64, at time.Time, limit int) error {
	return s.write(ctx, "enabling second factor", func(t tx) error {
		d, err := t.device(id)
		if err != nil {
			return err
		}
		if !d.Enabled.IsZero() || d.UserID != "" && d.UserID != user {
			return about("second factor", d.Name, identity.ErrConflict)
		}
		if d.UserID == "" {
			if err := t.roomForDevice(user, limit); err != nil {
				return err
			}
		}
		_, err = t.exec("UPDATE factors SET user_id = $1, counter = $2, enabled = $3 WHERE id = $4", user, counter, micros(at), id)
		return err
	})
}

// UseDevice implements factor.Store.
func (s *Store) UseDevice(ctx context.Context, id string, counter int64, credential []byte, at time.Time) error {
	return s.write(ctx, "using second factor", func(t tx) error {
		return t.must(about("second factor", id, identity.ErrConflict), `
			UPDATE factors SET counter = $1, used = $2, credential = $3
			WHERE id = $4 AND enabled > 0 AND (counter < $5 OR counter = 0 AND $6 = 0)`,
			counter, micros(at), notNil(credential), id, counter, counter)
	})
}

// ReleaseDevice implements factor.Store.
func (s *Store) ReleaseDevice(ctx context.Context, id string) error {
	return s.write(ctx, "releasing second factor", func(t tx) error {
		return t.must(about("second factor", id, identity.ErrNotFound), "UPDATE factors SET user_id = NULL, enabled = 0 WHERE id = $1", id)
	})
}

// DeleteDevice implements factor.Store.
func (s *Store) DeleteDevice(ctx context.Context, id string) error {
	return s.write(ctx, "deleting second factor", func(t tx) error {
		return t.must(about("second factor", id, identity.ErrNotFound), "DELETE FROM factors WHERE id = $1", id)
	})
}

// Attempt implements factor.Store. A key's row holds the moment at which all of its
// attempts are forgotten; each moves it on.
func (s *Store) Attempt(ctx context.Context, limits []factor.Limit, now time.Time) (wait time.Duration, err error) {
	err = s.write(ctx, "counting attempts", func(t tx) error {
		wait = 0
		if _, err := t.exec("DELETE FROM factor_attempts WHERE until < $1", micros(now)); err != nil {
			return err
		}
		until := make([]time.Time, len(limits))
		for i, l := range limits {
			at, err := t.attempts(l.Key, now)
			if err != nil {
				return err
			}
			until[i] = at.Add(l.Every)
			wait = max(wait, until[i].Sub(now)-time.Duration(l.Burst)*l.Every)
		}
		if wait > 0 {
			return nil
		}
		return t.setAttempts(limits, until)
	})
	return wait, err
}

// attempts reads, and locks, when a key's attempts are forgotten: now at the earliest.
func (t tx) attempts(key string, now time.Time) (time.Time, error) {
	_, err := t.exec("INSERT INTO factor_attempts (key, until) VALUES ($1, $2) ON CONFLICT DO NOTHING", key, micros(now))
	if err != nil {
		return time.Time{}, err
	}
	us, err := one(t, about("attempts of", key, identity.ErrNotFound), scanInt,
		"SELECT until FROM factor_attempts WHERE key = $1"+t.forUpdate, key)
	if at := when(us); at.After(now) {
		return at, err
	}
	return now, err
}

func (t tx) setAttempts(limits []factor.Limit, until []time.Time) error {
	for i, l := range limits {
		if _, err := t.exec("UPDATE factor_attempts SET until = $1 WHERE key = $2", micros(until[i]), l.Key); err != nil {
			return err
		}
	}
	return nil
}

// Forgive implements factor.Store.
func (s *Store) Forgive(ctx context.Context, limits []factor.Limit, now time.Time) error {
	return s.write(ctx, "forgiving an attempt", func(t tx) error {
		until := make([]time.Time, len(limits))
		for i, l := range limits {
			at, err := t.attempts(l.Key, now)
			if err != nil {
				return err
			}
			until[i] = at.Add(-l.Every)
		}
		return t.setAttempts(limits, until)
	})
}

// Familiar implements factor.Store.
func (s *Store) Familiar(ctx context.Context, user, address string, now time.Time) (bool, error) {
	n, err := s.read(ctx).count("SELECT COUNT(*) FROM familiar_addresses WHERE user_id = $1 AND address = $2 AND until > $3",
		user, address, micros(now))
	return n > 0, wrap("asking for familiar addresses", err)
}

// MakeFamiliar implements factor.Store.
func (s *Store) MakeFamiliar(ctx context.Context, user, address string, until time.Time, limit int) error {
	return s.write(ctx, "noting an address", func(t tx) error {
		if err := t.hasUser(user); err != nil {
			return err
		}
		_, err := t.exec(`INSERT INTO familiar_addresses (user_id, address, until) VALUES ($1, $2, $3)
			ON CONFLICT (user_id, address) DO UPDATE SET until = excluded.until`, user, address, micros(until))
		if err != nil {
			return err
		}
		_, err = t.exec(`DELETE FROM familiar_addresses WHERE user_id = $1 AND address NOT IN (
			SELECT address FROM familiar_addresses WHERE user_id = $2 ORDER BY until DESC, address LIMIT $3)`, user, user, limit)
		return err
	})
}
