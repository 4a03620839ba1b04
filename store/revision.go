package store

import "context"

// Revision implements identity.Store.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	n, err := s.read(ctx).count("SELECT value FROM revision")
	return n, wrap("reading revision", err)
}

// writeIdentity changes identities or policies. It bumps the revision before
// anything else: that locks its row, so that these (rare) changes happen one after
// the other among all members too, and what a change has checked (that a group is
// empty, that a limit is not reached) still holds when it commits.
func (s *Store) writeIdentity(ctx context.Context, doing string, change func(tx) error) error {
	return s.write(ctx, doing, func(t tx) error {
		if _, err := t.exec("UPDATE revision SET value = value + 1"); err != nil {
			return err
		}
		return change(t)
	})
}
