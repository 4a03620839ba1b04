package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/audit/checkpoint"
	"sallyport.dev/audit/forward"
)

var (
	_ checkpoint.Store = (*Store)(nil)
	_ forward.Store    = (*Store)(nil)
)

// AuditHeads returns the ends of all chains as the columns have them, in order of
// members. It jumps from member to member, so that the log's length costs nothing.
func (s *Store) AuditHeads(ctx context.Context) ([]audit.Head, error) {
	heads, err := list(s.read(ctx), scanHead, `WITH RECURSIVE members (member) AS (
			SELECT MIN(member) FROM audit
			UNION ALL
			SELECT (SELECT MIN(member) FROM audit WHERE member > members.member) FROM members WHERE members.member IS NOT NULL)
		SELECT a.member, a.seq, a.hash FROM members
		JOIN audit a ON a.member = members.member AND a.seq = (SELECT MAX(seq) FROM audit WHERE member = members.member)
		ORDER BY a.member`)
	return heads, wrap("reading the ends of the audit log", err)
}

func scanHead(r row) (h audit.Head, err error) { return h, r.Scan(&h.Member, &h.Seq, &h.Hash) }

// AuditRows returns at most n rows of a member's chain after a sequence number, in
// order, as they lie in the database: nothing in them has been checked.
func (s *Store) AuditRows(ctx context.Context, member string, after int64, n int) ([]audit.Row, error) {
	all, err := list(s.read(ctx), scanAuditRow, "SELECT "+auditColumns+
		" FROM audit WHERE member = $1 AND seq > $2 ORDER BY seq"+limit(n), member, after)
	return all, wrap("reading the audit log", err)
}

func scanAuditRow(r row) (w audit.Row, err error) {
	return w, r.Scan(&w.Member, &w.Seq, stored{&w.Time}, &w.Event, &w.Principal, &w.Action, &w.Decision,
		&w.Node, &w.Session, &w.Hash, &w.Text)
}

const checkpointColumns = "number, text, signature, public_key, stored"

func scanCheckpoint(r row) (c checkpoint.Signed, err error) {
	return c, r.Scan(&c.Number, &c.Text, &c.Signature, &c.PublicKey, &c.Stored)
}

// Checkpoints returns at most n checkpoints after a number, in order; 0 for all.
func (s *Store) Checkpoints(ctx context.Context, after int64, n int) ([]checkpoint.Signed, error) {
	all, err := list(s.read(ctx), scanCheckpoint, "SELECT "+checkpointColumns+
		" FROM audit_checkpoints WHERE number > $1 ORDER BY number"+limit(n), after)
	return all, wrap("reading checkpoints", err)
}

// UnstoredCheckpoints implements checkpoint.Store.
func (s *Store) UnstoredCheckpoints(ctx context.Context, n int) ([]checkpoint.Signed, int, error) {
	t := s.read(ctx)
	waiting, err := t.count("SELECT COUNT(*) FROM audit_checkpoints WHERE NOT stored")
	if err != nil {
		return nil, 0, wrap("reading checkpoints", err)
	}
	all, err := list(t, scanCheckpoint, "SELECT "+checkpointColumns+
		" FROM audit_checkpoints WHERE NOT stored ORDER BY number"+limit(n))
	return all, int(waiting), wrap("reading checkpoints", err)
}

var errNoCheckpoint = errors.New("no checkpoint")

// LastCheckpoint implements checkpoint.Store.
func (s *Store) LastCheckpoint(ctx context.Context) (checkpoint.Signed, bool, error) {
	c, err := lastCheckpoint(s.read(ctx))
	if errors.Is(err, errNoCheckpoint) {
		return c, false, nil
	}
	return c, err == nil, wrap("reading the last checkpoint", err)
}

func lastCheckpoint(t tx) (checkpoint.Signed, error) {
	return one(t, errNoCheckpoint, scanCheckpoint, "SELECT "+checkpointColumns+
		" FROM audit_checkpoints ORDER BY number DESC LIMIT 1")
}

// AddCheckpoint implements checkpoint.Store.
func (s *Store) AddCheckpoint(ctx context.Context, c checkpoint.Signed, prev string, made time.Time) error {
	return s.write(ctx, "storing checkpoint", func(t tx) error {
		last, err := lastCheckpoint(t)
		if err != nil && !errors.Is(err, errNoCheckpoint) {
			return err
		}
		if last.Number+1 != c.Number || last.Number > 0 && hexSum(last.Text) != prev {
			return fmt.Errorf("checkpoint %d after %d: %w", c.Number, last.Number, checkpoint.ErrConflict)
		}
		_, err = t.exec("INSERT INTO audit_checkpoints (number, made, text, signature, public_key, stored) VALUES ($1, $2, $3, $4, $5, $6)",
			c.Number, micros(made), c.Text, c.Signature, c.PublicKey, c.Stored)
		return orExists(err, fmt.Errorf("checkpoint %d: %w", c.Number, checkpoint.ErrConflict))
	})
}

func hexSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// CheckpointStored implements checkpoint.Store.
func (s *Store) CheckpointStored(ctx context.Context, number int64) error {
	return s.write(ctx, "noting a stored checkpoint", func(t tx) error {
		_, err := t.exec("UPDATE audit_checkpoints SET stored = $1 WHERE number = $2", true, number)
		return err
	})
}

// HoldDestination implements forward.Store.
func (s *Store) HoldDestination(ctx context.Context, name, holder string, now, until time.Time) (held bool, err error) {
	err = s.write(ctx, "taking a destination of the audit log", func(t tx) error {
		_, err := t.exec("INSERT INTO audit_destinations (name, holder, until) VALUES ($1, '', 0) ON CONFLICT DO NOTHING", name)
		if err != nil {
			return err
		}
		n, err := t.exec("UPDATE audit_destinations SET holder = $1, until = $2 WHERE name = $3 AND (holder = $4 OR until <= $5)",
			holder, micros(until), name, holder, micros(now))
		held = n > 0
		return err
	})
	return held && err == nil, err
}

// DropDestination implements forward.Store.
func (s *Store) DropDestination(ctx context.Context, name, holder string) error {
	return s.write(ctx, "giving up a destination of the audit log", func(t tx) error {
		_, err := t.exec("UPDATE audit_destinations SET holder = '', until = 0 WHERE name = $1 AND holder = $2", name, holder)
		return err
	})
}

// AuditCursors implements forward.Store.
func (s *Store) AuditCursors(ctx context.Context, destination string) (map[string]int64, error) {
	all, err := list(s.read(ctx), scanCursor, "SELECT member, seq FROM audit_cursors WHERE destination = $1", destination)
	cursors := make(map[string]int64, len(all))
	for _, c := range all {
		cursors[c.Member] = c.Seq
	}
	return cursors, wrap("reading how far the audit log was forwarded", err)
}

func scanCursor(r row) (h audit.Head, err error) { return h, r.Scan(&h.Member, &h.Seq) }

// MoveAuditCursor implements forward.Store.
func (s *Store) MoveAuditCursor(ctx context.Context, destination, holder string, to ...audit.Head) error {
	return s.write(ctx, "noting how far the audit log was forwarded", func(t tx) error {
		// Locks the row, so that a member that lost the lease cannot move a cursor back.
		err := t.must(forward.ErrLease, "UPDATE audit_destinations SET holder = holder WHERE name = $1 AND holder = $2", destination, holder)
		if err != nil {
			return err
		}
		for _, h := range to {
			_, err := t.exec(`INSERT INTO audit_cursors (destination, member, seq) VALUES ($1, $2, $3)
				ON CONFLICT (destination, member) DO UPDATE SET seq = excluded.seq`, destination, h.Member, h.Seq)
			if err != nil {
				return err
			}
		}
		return nil
	})
}
