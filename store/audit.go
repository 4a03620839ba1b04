package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sallyport.dev/audit"
)

const auditColumns = "member, seq, time, event, principal, action, decision, node, session, hash, record"

// auditRows is how many records one INSERT holds.
const auditRows = 32

// AppendAudit implements audit.Store. It also refuses records whose Prev is not the
// hash of the one before.
func (s *Store) AppendAudit(ctx context.Context, records []audit.Record) error {
	if len(records) == 0 {
		return nil
	}
	return s.write(ctx, "appending to audit log", func(t tx) error {
		if err := checkChain(t, records); err != nil {
			return err
		}
		for chunk := range slices.Chunk(records, auditRows) {
			if err := insertAudit(t, chunk); err != nil {
				return err
			}
		}
		return nil
	})
}

func checkChain(t tx, records []audit.Record) error {
	member := records[0].Member
	seq, hash, err := lastLink(t, member)
	if err != nil {
		return err
	}
	for _, r := range records {
		switch {
		case r.Member != member:
			return fmt.Errorf("records of two members, %q and %q, in one append", member, r.Member)
		case r.Seq != seq+1:
			return fmt.Errorf("record %d of member %q follows %d: %w", r.Seq, member, seq, audit.ErrChain)
		case seq > 0 && r.Prev != hash:
			return fmt.Errorf("record %d of member %q does not continue record %d: %w", r.Seq, member, seq, audit.ErrChain)
		}
		seq, hash = r.Seq, r.Hash
	}
	return nil
}

// lastLink returns the end of a member's chain: 0 and "" where there is none.
func lastLink(t tx, member string) (int64, string, error) {
	type link struct {
		seq  int64
		hash string
	}
	l, err := one(t, errNoLink, func(r row) (l link, err error) { return l, r.Scan(&l.seq, &l.hash) },
		"SELECT seq, hash FROM audit WHERE member = $1 ORDER BY seq DESC LIMIT 1", member)
	if errors.Is(err, errNoLink) {
		return 0, "", nil
	}
	return l.seq, l.hash, err
}

var errNoLink = errors.New("no audit record")

func insertAudit(t tx, records []audit.Record) error {
	query := strings.Builder{}
	query.WriteString("INSERT INTO audit (" + auditColumns + ") VALUES ")
	var args []any
	for i, r := range records {
		text, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encoding record %d: %w", r.Seq, err)
		}
		if i > 0 {
			query.WriteString(", ")
		}
		values := []any{r.Member, r.Seq, micros(r.Time), r.Event, r.Principal, r.Action, r.Decision,
			r.Node, r.Session, r.Hash, string(text)}
		writePlaceholders(&query, len(args), len(values))
		args = append(args, values...)
	}
	_, err := t.exec(query.String(), args...)
	return err
}

// writePlaceholders writes ($after+1, …, $after+n).
func writePlaceholders(query *strings.Builder, after, n int) {
	for i := range n {
		query.WriteString(map[bool]string{true: "($", false: ", $"}[i == 0])
		query.WriteString(strconv.Itoa(after + i + 1))
	}
	query.WriteByte(')')
}

func scanAudit(r row) (a audit.Record, err error) { return a, r.Scan(encoded{&a}) }

// LastAudit implements audit.Store.
func (s *Store) LastAudit(ctx context.Context, member string) (audit.Record, bool, error) {
	r, err := one(s.read(ctx), errNoLink, scanAudit,
		"SELECT record FROM audit WHERE member = $1 ORDER BY seq DESC LIMIT 1", member)
	if errors.Is(err, errNoLink) {
		return audit.Record{}, false, nil
	}
	return r, err == nil, wrap("reading the end of the audit log", err)
}

// Audit implements audit.Store.
func (s *Store) Audit(ctx context.Context, f audit.Filter) ([]audit.Record, error) {
	t := s.read(ctx)
	w := auditWhere(f)
	if f.AfterMember != "" {
		at, err := one(t, about("audit record", fmt.Sprint(f.AfterMember, "/", f.AfterSeq), errNoLink), scanInt,
			"SELECT time FROM audit WHERE member = $1 AND seq = $2", f.AfterMember, f.AfterSeq)
		if err != nil {
			return nil, wrap("searching audit log", err)
		}
		w.add("(time, member, seq) > (?, ?, ?)", at, f.AfterMember, f.AfterSeq)
	}
	order := " ORDER BY time, member, seq"
	if f.Newest {
		order = " ORDER BY time DESC, member DESC, seq DESC"
	}
	all, err := list(t, scanAudit, "SELECT record FROM audit"+w.String()+order+limit(f.Limit), w.args...)
	if f.Newest {
		slices.Reverse(all)
	}
	return all, wrap("searching audit log", err)
}

// actionPattern turns a glob into a LIKE pattern.
var actionPattern = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`, `*`, `%`, `?`, `_`)

func auditWhere(f audit.Filter) where {
	w := where{}
	if !f.Since.IsZero() {
		w.add("time >= ?", micros(f.Since))
	}
	if !f.Until.IsZero() {
		w.add("time < ?", micros(f.Until))
	}
	w.equal("event", f.Event)
	w.equal("node", f.Node)
	w.equal("session", f.Session)
	w.equal("decision", f.Decision)
	if f.Principal != "" {
		w.like("principal", "%"+escapeLike.Replace(f.Principal)+"%")
	}
	if f.Action != "" {
		w.like("action", actionPattern.Replace(f.Action))
	}
	return w
}
