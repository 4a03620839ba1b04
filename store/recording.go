package store

import (
	"context"
	"fmt"
	"strings"

	"sallyport.dev/archive"
	"sallyport.dev/recording"
)

const recordingColumns = `name, session, node, node_name, principal, document, member, started, ended, end_reason,
	state, size, sha256, manifest_sha256, key_id, delete_after, deleted_at, deleted_by, delete_reason`

func scanRecording(r row) (v archive.Row, err error) {
	err = r.Scan(&v.Name, &v.Session, &v.Node, &v.NodeName, &v.Principal, &v.Document, &v.Member, stored{&v.Started},
		stored{&v.Ended}, &v.EndReason, &v.State, &v.Size, &v.SHA256, &v.Manifest, &v.KeyID,
		stored{&v.DeleteAfter}, stored{&v.DeletedAt}, &v.DeletedBy, &v.DeleteReason)
	return v, err
}

// recordingValues are what recordingColumns hold, but for the name.
func recordingValues(v archive.Row) []any {
	return []any{v.Session, v.Node, v.NodeName, v.Principal, v.Document, v.Member, micros(v.Started),
		micros(v.Ended), v.EndReason, v.State, v.Size, v.SHA256, v.Manifest, v.KeyID,
		micros(v.DeleteAfter), micros(v.DeletedAt), v.DeletedBy, v.DeleteReason}
}

func recordingByName(t tx, name string) (archive.Row, error) {
	return one(t, about("recording", name, recording.ErrNotFound), scanRecording,
		"SELECT "+recordingColumns+" FROM recordings WHERE name = $1"+t.forUpdate, name)
}

// PutRecording implements archive.Rows.
func (s *Store) PutRecording(ctx context.Context, r archive.Row) error {
	return s.write(ctx, "adding recording", func(t tx) error {
		_, err := t.exec("INSERT INTO recordings ("+recordingColumns+`) VALUES
			($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
			ON CONFLICT (name) DO NOTHING`, append([]any{r.Name}, recordingValues(r)...)...)
		return err
	})
}

// Recording implements archive.Rows.
func (s *Store) Recording(ctx context.Context, name string) (archive.Row, error) {
	found, err := recordingByName(s.read(ctx), name)
	return found, wrap("reading recording", err)
}

// Recordings implements custody.Store.
func (s *Store) Recordings(ctx context.Context, f archive.RowFilter) ([]archive.Row, error) {
	t := s.read(ctx)
	w := recordingsWhere(f)
	if f.After != "" {
		last, err := recordingByName(t, f.After)
		if err != nil {
			return nil, wrap("listing recordings", err)
		}
		w.add("(started, name) < (?, ?)", micros(last.Started), last.Name)
	}
	all, err := list(t, scanRecording,
		"SELECT "+recordingColumns+" FROM recordings"+w.String()+" ORDER BY started DESC, name DESC"+limit(f.Limit), w.args...)
	return all, wrap("listing recordings", err)
}

func recordingsWhere(f archive.RowFilter) where {
	w := where{}
	w.equal("session", f.Session)
	w.equal("node", f.Node)
	w.equal("principal", f.Principal)
	w.equal("key_id", f.KeyID)
	w.equal("state", string(f.State))
	if !f.StartedAfter.IsZero() {
		w.add("started > ?", micros(f.StartedAfter))
	}
	if !f.StartedBefore.IsZero() {
		w.add("started < ?", micros(f.StartedBefore))
	}
	return w
}

// UpdateRecording implements archive.Rows.
func (s *Store) UpdateRecording(ctx context.Context, name string, change func(*archive.Row) error) error {
	return s.write(ctx, "changing recording", func(t tx) error {
		now, err := recordingByName(t, name)
		if err != nil {
			return err
		}
		before := recordingValues(now)
		if err := change(&now); err != nil {
			return err
		}
		return updateRecording(t, name, before, recordingValues(now))
	})
}

// updateRecording sets the columns whose values have changed.
func updateRecording(t tx, name string, before, after []any) error {
	set, args := []string(nil), []any{name}
	for i, column := range strings.Split(recordingColumns, ",")[1:] {
		if before[i] != after[i] {
			args = append(args, after[i])
			set = append(set, fmt.Sprintf("%s = $%d", strings.TrimSpace(column), len(args)))
		}
	}
	if len(set) == 0 {
		return nil
	}
	return t.must(about("recording", name, recording.ErrNotFound), "UPDATE recordings SET "+strings.Join(set, ", ")+" WHERE name = $1", args...)
}
