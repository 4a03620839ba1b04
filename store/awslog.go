package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sallyport.dev/awslog"
)

var _ awslog.Store = (*Store)(nil)

const awsLogColumns = `session, kind, recording, node_id, owner, place, name, encrypted, streaming, run_as,
	state, position, created, due, tries, error, written, member, lease`

func awsLogFields(j *awslog.Job) []any {
	return []any{&j.ID, &j.Kind, &j.Recording, &j.Node, &j.Owner, &j.Place, &j.Name, &j.Encrypted, &j.Streaming, &j.RunAs,
		&j.State, &j.Position, stored{&j.Created}, stored{&j.Due}, &j.Tries, &j.Error, stored{&j.Written}, &j.Member, stored{&j.Lease}}
}

func scanAWSLog(r row) (j awslog.Job, err error) { return j, r.Scan(awsLogFields(&j)...) }

// scanClaimedLog reads what its session's row says, too.
func scanClaimedLog(r row) (j awslog.Job, err error) {
	return j, r.Scan(append(awsLogFields(&j), stored{&j.Ended}, &j.Void)...)
}

// AddLogs implements awslog.Store.
func (s *Store) AddLogs(ctx context.Context, jobs []awslog.Job) error {
	return s.write(ctx, "adding session logs", func(t tx) error {
		for _, j := range jobs {
			_, err := t.exec("INSERT INTO aws_logs ("+awsLogColumns+`) VALUES
				($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) ON CONFLICT (session, kind) DO NOTHING`,
				j.ID, string(j.Kind), j.Recording, j.Node, j.Owner, j.Place, j.Name, j.Encrypted, j.Streaming, j.RunAs,
				string(j.State), j.Position, micros(j.Created), micros(j.Due), j.Tries, j.Error, micros(j.Written), j.Member, micros(j.Lease))
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// ClaimLogs implements awslog.Store.
func (s *Store) ClaimLogs(ctx context.Context, c awslog.Claim) ([]awslog.Job, error) {
	due, err := s.dueLogs(ctx, c)
	if err != nil || len(due) == 0 {
		return nil, wrap("claiming session logs", err)
	}
	var claimed []awslog.Job
	err = s.write(ctx, "claiming session logs", func(t tx) error {
		claimed = nil
		for _, j := range due {
			n, err := t.exec(`UPDATE aws_logs SET member = $3, lease = $4
				WHERE session = $1 AND kind = $2 AND state = 'waiting' AND due <= $5 AND lease <= $5 AND position = $6 AND tries = $7`,
				j.ID, string(j.Kind), c.Member, micros(c.Lease), micros(c.Now), j.Position, j.Tries)
			if err != nil {
				return err
			}
			if n > 0 { // else another member was first, or it was tried meanwhile
				j.Member, j.Lease = c.Member, c.Lease
				claimed = append(claimed, j)
			}
		}
		return nil
	})
	return claimed, err
}

// dueLogs reads what could be claimed: there is seldom anything, and reading does not wait
// for the writer.
func (s *Store) dueLogs(ctx context.Context, c awslog.Claim) ([]awslog.Job, error) {
	w := where{}
	w.add("l.state = 'waiting'")
	w.add("l.due <= ?", micros(c.Now))
	w.add("l.lease <= ?", micros(c.Now))
	if c.Live {
		w.add("l.streaming = ?", true)
		w.add("s." + activeState)
		w.add("(s.member = ? OR l.due <= ?)", c.Member, micros(c.Orphaned))
	} else {
		w.add("NOT (s." + activeState + ")")
	}
	columns := "l." + strings.ReplaceAll(strings.Join(strings.Fields(awsLogColumns), " "), ", ", ", l.")
	return list(s.read(ctx), scanClaimedLog, fmt.Sprintf(`SELECT %s, s.ended, s.state = 'Failed' FROM aws_logs l JOIN sessions s ON s.id = l.session%s
		ORDER BY l.due%s`, columns, w.String(), limit(c.Limit)), w.args...)
}

// RenewLogs implements awslog.Store.
func (s *Store) RenewLogs(ctx context.Context, member string, lease time.Time) (map[string]time.Time, error) {
	type end struct {
		session string
		at      time.Time
	}
	held := "state = 'waiting' AND member = $1 AND lease > 0"
	n, err := s.read(ctx).count("SELECT COUNT(*) FROM aws_logs WHERE "+held, member)
	if err != nil || n == 0 {
		return nil, wrap("holding session logs", err)
	}
	err = s.write(ctx, "holding session logs", func(t tx) error {
		_, err := t.exec("UPDATE aws_logs SET lease = $2 WHERE "+held, member, micros(lease))
		return err
	})
	if err != nil {
		return nil, err
	}
	scan := func(r row) (e end, err error) { return e, r.Scan(&e.session, stored{&e.at}) }
	all, err := list(s.read(ctx), scan, `SELECT DISTINCT s.id, s.ended FROM aws_logs l JOIN sessions s ON s.id = l.session
		WHERE l.state = 'waiting' AND l.member = $1 AND l.lease > 0 AND s.ended > 0`, member)
	ended := make(map[string]time.Time, len(all))
	for _, e := range all {
		ended[e.session] = e.at
	}
	return ended, wrap("holding session logs", err)
}

// ReleaseLogs implements awslog.Store.
func (s *Store) ReleaseLogs(ctx context.Context, member string) error {
	return s.write(ctx, "releasing session logs", func(t tx) error {
		_, err := t.exec("UPDATE aws_logs SET lease = 0 WHERE state = 'waiting' AND member = $1 AND lease > 0", member)
		return err
	})
}

// SaveLog implements awslog.Store.
func (s *Store) SaveLog(ctx context.Context, j awslog.Job) error {
	return s.write(ctx, "saving session log", func(t tx) error {
		return t.must(awslog.ErrLost, `UPDATE aws_logs SET state = $4, position = $5, due = $6, tries = $7, error = $8, written = $9,
				lease = CASE WHEN $10 THEN lease ELSE 0 END
			WHERE session = $1 AND kind = $2 AND member = $3 AND state = 'waiting' AND lease > 0`,
			j.ID, string(j.Kind), j.Member, string(j.State), j.Position, micros(j.Due), j.Tries, j.Error, micros(j.Written), !j.Lease.IsZero())
	})
}

// Logs implements awslog.Store.
func (s *Store) Logs(ctx context.Context, sessions []string) ([]awslog.Job, error) {
	if len(sessions) == 0 {
		return nil, nil
	}
	w := where{}
	w.in("session", sessions)
	all, err := list(s.read(ctx), scanAWSLog, "SELECT "+awsLogColumns+" FROM aws_logs"+w.String()+" ORDER BY session, kind DESC", w.args...)
	return all, wrap("reading session logs", err)
}

// PendingLogs implements awslog.Store.
func (s *Store) PendingLogs(ctx context.Context) (awslog.Pending, error) {
	scan := func(r row) (p awslog.Pending, err error) {
		return p, r.Scan(&p.Jobs, &p.Failing, stored{&p.Oldest})
	}
	p, err := one(s.read(ctx), nil, scan, `SELECT COUNT(*), COALESCE(SUM(CASE WHEN l.tries > 0 THEN 1 ELSE 0 END), 0),
			COALESCE(MIN(CASE WHEN s.ended > 0 THEN s.ended END), 0)
		FROM aws_logs l JOIN sessions s ON s.id = l.session WHERE l.state = 'waiting'`)
	return p, wrap("counting session logs", err)
}
