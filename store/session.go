package store

import (
	"context"
	"fmt"
	"strings"

	"sallyport.dev/session"
)

const sessionColumns = `id, node_id, target, document, session_type, owner, owner_id, owner_name, reason, source_ip,
	run_as, state, started, ended, end_reason, exit_status, member, recording, bytes_in, bytes_out,
	max_duration, idle_timeout, root_id, authority, kms_key, encryption`

// activeState matches the WHERE of index sessions_active, and session.State.Active.
const activeState = "state NOT IN ('Terminated', 'Failed')"

func scanSession(r row) (s session.Session, err error) {
	err = r.Scan(&s.ID, &s.NodeID, &s.Target, &s.Document, &s.SessionType, &s.Owner, &s.OwnerID, &s.OwnerName,
		&s.Reason, &s.SourceIP, &s.RunAs, &s.State, stored{&s.Started}, stored{&s.Ended}, &s.EndReason, &s.ExitStatus,
		&s.Member, &s.Recording, &s.BytesIn, &s.BytesOut, lasting{&s.MaxDuration}, lasting{&s.IdleTimeout}, &s.RootID, &s.Authority,
		&s.KMSKey, &s.Encryption)
	return s, err
}

// sessionValues are what sessionColumns hold, but for the id.
func sessionValues(s session.Session) []any {
	return []any{s.NodeID, s.Target, s.Document, s.SessionType, s.Owner, s.OwnerID, s.OwnerName,
		s.Reason, s.SourceIP, s.RunAs, s.State, micros(s.Started), micros(s.Ended), s.EndReason, s.ExitStatus,
		s.Member, s.Recording, s.BytesIn, s.BytesOut, s.MaxDuration.Microseconds(), s.IdleTimeout.Microseconds(), s.RootID, s.Authority,
		s.KMSKey, s.Encryption}
}

func sessionByID(t tx, id string) (session.Session, error) {
	return one(t, about("session", id, session.ErrNotFound), scanSession,
		"SELECT "+sessionColumns+" FROM sessions WHERE id = $1"+t.forUpdate, id)
}

// CreateSession implements session.Store.
func (s *Store) CreateSession(ctx context.Context, n session.Session) error {
	return s.write(ctx, "creating session", func(t tx) error {
		_, err := t.exec("INSERT INTO sessions ("+sessionColumns+`) VALUES
			($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)`,
			append([]any{n.ID}, sessionValues(n)...)...)
		if isDuplicate(err) {
			return fmt.Errorf("session %q exists already", n.ID)
		}
		return err
	})
}

// Session implements session.Store.
func (s *Store) Session(ctx context.Context, id string) (session.Session, error) {
	found, err := sessionByID(s.read(ctx), id)
	return found, wrap("reading session", err)
}

// Sessions implements session.Store.
func (s *Store) Sessions(ctx context.Context, f session.Filter) ([]session.Session, error) {
	t := s.read(ctx)
	w := sessionsWhere(f)
	if f.After != "" {
		last, err := sessionByID(t, f.After)
		if err != nil {
			return nil, wrap("listing sessions", err)
		}
		w.add("(started, id) < (?, ?)", micros(last.Started), last.ID)
	}
	all, err := list(t, scanSession,
		"SELECT "+sessionColumns+" FROM sessions"+w.String()+" ORDER BY started DESC, id DESC"+limit(f.Limit), w.args...)
	return all, wrap("listing sessions", err)
}

func sessionsWhere(f session.Filter) where {
	w := where{}
	if f.Active != nil && *f.Active {
		w.add(activeState)
	} else if f.Active != nil {
		w.add("NOT (" + activeState + ")")
	}
	w.in("id", f.IDs)
	w.equal("node_id", f.NodeID)
	w.equal("owner", f.Owner)
	w.equal("owner_id", f.OwnerID)
	w.equal("root_id", f.RootID)
	w.equal("state", string(f.State))
	w.equal("member", f.Member)
	if !f.StartedAfter.IsZero() {
		w.add("started > ?", micros(f.StartedAfter))
	}
	if !f.StartedBefore.IsZero() {
		w.add("started < ?", micros(f.StartedBefore))
	}
	return w
}

// UpdateSession implements session.Store. The id stays what it is.
func (s *Store) UpdateSession(ctx context.Context, id string, change func(*session.Session) error) (changed bool, err error) {
	err = s.write(ctx, "changing session", func(t tx) error {
		changed = false
		now, err := sessionByID(t, id)
		if err != nil || !now.State.Active() {
			return err
		}
		before := sessionValues(now)
		if err := change(&now); err != nil {
			return err
		}
		err = updateSession(t, id, before, sessionValues(now))
		changed = err == nil
		return err
	})
	return changed && err == nil, err
}

// updateSession sets the columns whose values have changed: the others' indexes are
// left alone, and few combinations ever occur.
func updateSession(t tx, id string, before, after []any) error {
	set, args := []string(nil), []any{id}
	for i, column := range strings.Split(sessionColumns, ",")[1:] {
		if before[i] != after[i] {
			args = append(args, after[i])
			set = append(set, fmt.Sprintf("%s = $%d", strings.TrimSpace(column), len(args)))
		}
	}
	if len(set) == 0 {
		return nil
	}
	_, err := t.exec("UPDATE sessions SET "+strings.Join(set, ", ")+" WHERE id = $1", args...)
	return err
}
