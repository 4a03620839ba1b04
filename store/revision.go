package store

import "context"

// Revision implements identity.Store.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	n, err := s.read(ctx).count("SELECT value FROM revision")
	return n, wrap("reading revision", err)
}

// NodeRevision grows with every change of what policies know of nodes: their tags and
// names. A node that is registered anew changes nothing that was decided before.
func (s *Store) NodeRevision(ctx context.Context) (int64, error) {
	n, err := s.read(ctx).count("SELECT nodes FROM revision")
	return n, wrap("reading the revision of nodes", err)
}

func nodesChanged(t tx) error {
	_, err := t.exec("UPDATE revision SET nodes = nodes + 1")
	return err
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
