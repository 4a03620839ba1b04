package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport.dev/archive"
	"sallyport.dev/archive/custody"
	"sallyport.dev/internal/tags"
	"sallyport.dev/recording"
)

var _ custody.Store = (*Store)(nil)

const holdColumns = "id, kind, value, also, reason, held_by, held_at, released_by, release_reason, released_at"

func scanHold(r row) (h custody.Hold, err error) {
	return h, r.Scan(&h.ID, &h.Subject.Kind, &h.Subject.Value, &h.Also, &h.Reason, &h.By, stored{&h.At},
		&h.ReleasedBy, &h.ReleaseReason, stored{&h.ReleasedAt})
}

// writeCustody changes what decides on deletions. It locks one row before anything else,
// so that these changes happen one after the other among all members: whoever holds and
// whoever deletes see what the other did.
func (s *Store) writeCustody(ctx context.Context, doing string, change func(tx) error) error {
	return s.write(ctx, doing, func(t tx) error {
		if _, err := t.exec("UPDATE recording_guard SET changes = changes + 1"); err != nil {
			return err
		}
		return change(t)
	})
}

// custodyRow makes sure that a recording has a row in recording_custody.
func custodyRow(t tx, name string) error {
	_, err := t.exec(`INSERT INTO recording_custody (name, node_tags, owner_tags, plan, rule, leased, purged, problem)
		VALUES ($1, '', '', '', '', 0, 0, '') ON CONFLICT (name) DO NOTHING`, name)
	return err
}

// PutRecordingFacts implements custody.Store.
func (s *Store) PutRecordingFacts(ctx context.Context, name string, f custody.Facts) error {
	node, err := json.Marshal(f.NodeTags)
	if err != nil {
		return fmt.Errorf("encoding tags: %w", err)
	}
	owner, err := json.Marshal(f.OwnerTags)
	if err != nil {
		return fmt.Errorf("encoding tags: %w", err)
	}
	return s.write(ctx, "noting facts of recording", func(t tx) error {
		if err := custodyRow(t, name); err != nil {
			return err
		}
		_, err := t.exec("UPDATE recording_custody SET node_tags = $1, owner_tags = $2 WHERE name = $3 AND node_tags = ''",
			string(node), string(owner), name)
		return err
	})
}

func scanSubject(r row) (v custody.Subject, err error) { return v, r.Scan(&v.Kind, &v.Value) }

// PutRecordingSubjects implements custody.Store. It is called whenever a recording is looked
// at, and writes nothing where nothing is new: subjects are never taken away.
func (s *Store) PutRecordingSubjects(ctx context.Context, name string, subjects []custody.Subject) error {
	known, err := list(s.read(ctx), scanSubject, "SELECT kind, value FROM recording_subjects WHERE name = $1", name)
	if err != nil {
		return wrap("reading subjects of recording", err)
	}
	isKnown := func(v custody.Subject) bool { return slices.Contains(known, v) }
	if subjects = slices.DeleteFunc(slices.Clone(subjects), isKnown); len(subjects) == 0 {
		return nil
	}
	return s.write(ctx, "noting subjects of recording", func(t tx) error {
		for _, v := range subjects {
			_, err := t.exec("INSERT INTO recording_subjects (name, kind, value) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
				name, string(v.Kind), v.Value)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func scanCustody(r row) (v custody.State, err error) {
	var node, owner string
	if err := r.Scan(&node, &owner, &v.Rule, stored{&v.Purged}, &v.Problem); err != nil {
		return v, err
	}
	v.NodeTags, v.OwnerTags, err = decodeFacts(node, owner)
	return v, err
}

func decodeFacts(node, owner string) (n, o tags.Tags, err error) {
	if node == "" {
		return nil, nil, nil
	}
	if err := errors.Join(json.Unmarshal([]byte(node), &n), json.Unmarshal([]byte(owner), &o)); err != nil {
		return nil, nil, fmt.Errorf("decoding tags: %w", err)
	}
	return n, o, nil
}

// RecordingState implements custody.Store.
func (s *Store) RecordingState(ctx context.Context, name string) (custody.State, error) {
	all, err := list(s.read(ctx), scanCustody,
		"SELECT node_tags, owner_tags, rule, purged, problem FROM recording_custody WHERE name = $1", name)
	if err != nil || len(all) == 0 {
		return custody.State{}, wrap("reading custody of recording", err)
	}
	return all[0], nil
}

// CreateRecordingHold implements custody.Store.
func (s *Store) CreateRecordingHold(ctx context.Context, h custody.Hold, limit int) (recordings int64, err error) {
	err = s.writeCustody(ctx, "placing hold", func(t tx) error {
		n, err := t.count("SELECT COUNT(*) FROM recording_holds WHERE released_at = 0")
		if err != nil {
			return err
		}
		if n >= int64(limit) {
			return fmt.Errorf("%d holds: %w", n, custody.ErrTooMany)
		}
		if recordings, err = heldBy(t, h); err != nil {
			return err
		}
		if recordings == 0 && h.Subject.Kind == custody.OfSession {
			return about("session", h.Subject.Value, custody.ErrDeleted)
		}
		_, err = t.exec("INSERT INTO recording_holds ("+holdColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, '', '', 0)",
			h.ID, string(h.Subject.Kind), h.Subject.Value, h.Also, h.Reason, h.By, micros(h.At))
		return err
	})
	return recordings, err
}

// heldBy counts the recordings that a hold is on. Those of a session, node or person have
// their own columns as well: their subjects may not be noted yet.
func heldBy(t tx, h custody.Hold) (int64, error) {
	column := map[custody.Kind]string{custody.OfSession: "session", custody.OfNode: "node", custody.OfPerson: "principal"}[h.Subject.Kind]
	own := ""
	if column != "" {
		own = " OR r." + column + " IN ($2, $3)"
	}
	return t.count(`SELECT COUNT(*) FROM recordings r WHERE r.state <> '`+string(archive.Deleted)+`' AND (EXISTS
		(SELECT 1 FROM recording_subjects s WHERE s.name = r.name AND s.kind = $1 AND s.value IN ($2, $3))`+own+`)`,
		string(h.Subject.Kind), h.Subject.Value, notEmpty(h.Also, h.Subject.Value))
}

func notEmpty(text, instead string) string {
	if text == "" {
		return instead
	}
	return text
}

// ReleaseRecordingHold implements custody.Store.
func (s *Store) ReleaseRecordingHold(ctx context.Context, id, by, reason string, at time.Time) (h custody.Hold, err error) {
	err = s.writeCustody(ctx, "releasing hold", func(t tx) (err error) {
		h, err = one(t, about("hold", id, custody.ErrNoHold), scanHold, "SELECT "+holdColumns+" FROM recording_holds WHERE id = $1", id)
		if err != nil {
			return err
		}
		if !h.Active() {
			return about("hold", id, custody.ErrReleased)
		}
		h.ReleasedBy, h.ReleaseReason, h.ReleasedAt = by, reason, at
		_, err = t.exec("UPDATE recording_holds SET released_by = $1, release_reason = $2, released_at = $3 WHERE id = $4",
			by, reason, micros(at), id)
		return err
	})
	return h, err
}

// RecordingHolds implements custody.Store.
func (s *Store) RecordingHolds(ctx context.Context, f custody.HoldFilter) ([]custody.Hold, error) {
	w := where{}
	w.equal("kind", string(f.Subject.Kind))
	if f.Subject.Value != "" {
		w.add("? IN (value, also)", f.Subject.Value)
	}
	if f.Active {
		w.add("released_at = 0")
	}
	if f.After != "" {
		w.add("id > ?", f.After)
	}
	all, err := list(s.read(ctx), scanHold, "SELECT "+holdColumns+" FROM recording_holds"+w.String()+" ORDER BY id"+limit(f.Limit), w.args...)
	return all, wrap("listing holds", err)
}

// HoldsOnRecording implements custody.Store.
func (s *Store) HoldsOnRecording(ctx context.Context, name string) ([]custody.Hold, error) {
	all, err := holdsOn(s.read(ctx), name)
	return all, wrap("reading holds of recording", err)
}

func holdsOn(t tx, name string) ([]custody.Hold, error) {
	return list(t, scanHold, "SELECT "+holdColumns+` FROM recording_holds h WHERE h.released_at = 0 AND EXISTS
		(SELECT 1 FROM recording_subjects s WHERE s.name = $1 AND s.kind = h.kind AND s.value IN (h.value, h.also))
		ORDER BY h.held_at, h.id`+limit(maxShownHolds), name)
}

// maxShownHolds bounds the holds that are read of one recording.
const maxShownHolds = 100

// CondemnRecording implements custody.Store.
func (s *Store) CondemnRecording(ctx context.Context, name string, c custody.Condemnation) error {
	return s.writeCustody(ctx, "deleting recording", func(t tx) error {
		r, err := recordingByName(t, name)
		if err != nil {
			return err
		}
		if err := mayDelete(t, r, c); err != nil {
			return err
		}
		_, err = t.exec("UPDATE recordings SET state = $1, deleted_at = $2, deleted_by = $3, delete_reason = $4 WHERE name = $5",
			string(archive.Deleted), micros(c.At), c.By, c.Reason, name)
		return err
	})
}

func mayDelete(t tx, r archive.Row, c custody.Condemnation) error {
	if err := inStore(r); err != nil {
		return err
	}
	if err := custodyRow(t, r.Name); err != nil {
		return err
	}
	leased, err := t.count("SELECT leased FROM recording_custody WHERE name = $1", r.Name)
	if err != nil {
		return err
	}
	if leased > micros(c.At) {
		return about("recording", r.Name, custody.ErrBusy)
	}
	if c.Plan != "" {
		if err := isDue(t, r, c); err != nil {
			return err
		}
	}
	holds, err := holdsOn(t, r.Name)
	if err == nil && len(holds) > 0 {
		return &custody.HeldError{Name: r.Name, Holds: holds}
	}
	return err
}

// isDue refuses recordings whose time has not come by the plan of retention.
func isDue(t tx, r archive.Row, c custody.Condemnation) error {
	n, err := t.count("SELECT COUNT(*) FROM recording_custody WHERE name = $1 AND plan = $2", r.Name, c.Plan)
	if err != nil {
		return err
	}
	if n == 0 || r.DeleteAfter.IsZero() || r.DeleteAfter.After(c.At) {
		return about("recording", r.Name, custody.ErrNotDue)
	}
	return nil
}

// inStore refuses recordings that the store does not have, or not any more.
func inStore(r archive.Row) error {
	switch r.State {
	case archive.Stored:
		return nil
	case archive.Deleted:
		return about("recording", r.Name, custody.ErrDeleted)
	}
	return about("recording", r.Name, custody.ErrUnstored)
}

// PurgedRecording implements custody.Store.
func (s *Store) PurgedRecording(ctx context.Context, name string, at time.Time, problem string) error {
	if problem != "" {
		at = time.Time{}
	}
	return s.write(ctx, "noting deletion of recording", func(t tx) error {
		return t.must(about("recording", name, recording.ErrNotFound),
			"UPDATE recording_custody SET purged = $1, problem = $2 WHERE name = $3", micros(at), problem, name)
	})
}

// UnpurgedRecordings implements custody.Store.
func (s *Store) UnpurgedRecordings(ctx context.Context, before time.Time, after string, most int) ([]string, error) {
	return s.recordingNames(ctx, `JOIN recording_custody c ON c.name = r.name
		WHERE r.state = 'deleted' AND c.purged = 0 AND r.deleted_at <= $1 AND r.name > $2`, most, micros(before), after)
}

// UnplannedRecordings implements custody.Store.
func (s *Store) UnplannedRecordings(ctx context.Context, plan string, most int) ([]string, error) {
	return s.recordingNames(ctx, `LEFT JOIN recording_custody c ON c.name = r.name
		WHERE r.state = 'stored' AND (c.name IS NULL OR c.plan <> $1)`, most, plan)
}

// DueRecordings implements custody.Store.
func (s *Store) DueRecordings(ctx context.Context, plan string, now time.Time, after string, most int) ([]string, error) {
	return s.recordingNames(ctx, `JOIN recording_custody c ON c.name = r.name
		WHERE r.state = 'stored' AND r.delete_after > 0 AND r.delete_after <= $1 AND c.plan = $2 AND r.name > $3`,
		most, micros(now), plan, after)
}

// RecordingsWrappedBy implements custody.Store.
func (s *Store) RecordingsWrappedBy(ctx context.Context, from, now, after string, most int) ([]string, error) {
	if from != "" {
		return s.recordingNames(ctx, "WHERE r.state = 'stored' AND r.key_id = $1 AND r.name > $2", most, from, after)
	}
	return s.recordingNames(ctx, "WHERE r.state = 'stored' AND r.key_id <> $1 AND r.name > $2", most, now, after)
}

// RecordingKeys returns how many recordings in the store each key wraps, by the key's id.
func (s *Store) RecordingKeys(ctx context.Context) (map[string]int64, error) {
	type count struct {
		id string
		n  int64
	}
	all, err := list(s.read(ctx), func(r row) (c count, err error) { return c, r.Scan(&c.id, &c.n) },
		"SELECT key_id, COUNT(*) FROM recordings WHERE state = 'stored' GROUP BY key_id")
	counts := make(map[string]int64, len(all))
	for _, c := range all {
		counts[c.id] = c.n
	}
	return counts, wrap("counting recordings by key", err)
}

func (s *Store) recordingNames(ctx context.Context, rest string, most int, args ...any) ([]string, error) {
	all, err := list(s.read(ctx), scanText, "SELECT r.name FROM recordings r "+rest+" ORDER BY r.name"+limit(most), args...)
	return all, wrap("listing recordings", err)
}

// PlanRecording implements custody.Store.
func (s *Store) PlanRecording(ctx context.Context, name, plan, rule string, deleteAfter time.Time) error {
	return s.write(ctx, "planning deletion of recording", func(t tx) error {
		if err := custodyRow(t, name); err != nil {
			return err
		}
		if _, err := t.exec("UPDATE recording_custody SET plan = $1, rule = $2 WHERE name = $3", plan, rule, name); err != nil {
			return err
		}
		_, err := t.exec("UPDATE recordings SET delete_after = $1 WHERE name = $2", micros(deleteAfter), name)
		return err
	})
}

// LeaseRecording implements custody.Store.
func (s *Store) LeaseRecording(ctx context.Context, name string, now, until time.Time) error {
	return s.writeCustody(ctx, "leasing recording", func(t tx) error {
		r, err := recordingByName(t, name)
		if err != nil {
			return err
		}
		if err := errors.Join(inStore(r), custodyRow(t, name)); err != nil {
			return err
		}
		return t.must(about("recording", name, custody.ErrBusy),
			"UPDATE recording_custody SET leased = $1 WHERE name = $2 AND leased <= $3", micros(until), name, micros(now))
	})
}

// UnleaseRecording implements custody.Store.
func (s *Store) UnleaseRecording(ctx context.Context, name string) error {
	return s.write(ctx, "ending lease of recording", func(t tx) error {
		_, err := t.exec("UPDATE recording_custody SET leased = 0 WHERE name = $1", name)
		return err
	})
}
