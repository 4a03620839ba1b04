package store

import (
	"context"
	"errors"
	"time"
)

// tokenGrace is how long after its expiry a used token is remembered, so that a
// member whose clock is behind does not take it for a fresh one.
const tokenGrace = 10 * time.Minute

// UseToken notes that a single-use token has been used, and remembers it until some
// time after it expires. It reports whether this was the first use on any member.
// One that has expired already is not usable and so never first.
func (s *Store) UseToken(ctx context.Context, id string, expires time.Time) (first bool, err error) {
	now := time.Now()
	if !now.Before(expires) {
		return false, nil
	}
	err = s.write(ctx, "using token", func(t tx) error {
		if _, err := t.exec("DELETE FROM used_tokens WHERE expires < $1", micros(now.Add(-tokenGrace))); err != nil {
			return err
		}
		n, err := t.exec("INSERT INTO used_tokens (id, expires) VALUES ($1, $2) ON CONFLICT DO NOTHING", id, micros(expires))
		first = n == 1
		return err
	})
	return first && err == nil, err
}

var errNoMeta = errors.New("no such value")

// Meta returns a small value that the members share, or "" if there is none.
func (s *Store) Meta(ctx context.Context, key string) (string, error) {
	value, err := one(s.read(ctx), errNoMeta, scanText, "SELECT value FROM meta WHERE key = $1", key)
	if errors.Is(err, errNoMeta) {
		return "", nil
	}
	return value, wrap("reading "+key, err)
}

// SetMeta keeps a small value that the members share.
func (s *Store) SetMeta(ctx context.Context, key, value string) error {
	return s.write(ctx, "keeping "+key, func(t tx) error {
		_, err := t.exec(`INSERT INTO meta (key, value) VALUES ($1, $2)
			ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
		return err
	})
}
