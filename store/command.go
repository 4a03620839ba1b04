package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"sallyport.dev/command"
)

const (
	commandBrief = `id, document, document_version, comment, parameters, node_ids, targets, max_concurrency, max_errors,
	delivery, execution, requested, owner, owner_id, owner_name, root_id, source_ip, status, details, target_count,
	completed_count, error_count, undelivered, cancelled_by, ended, revision, member, lease`
	commandColumns = commandBrief + ", content, filled, authority"

	invocationBrief = `command_id, node_id, node_name, rank, requested, status, details, trace, tries, tried, sent, delivered,
	started, ended, cancel_asked, cancel_tries, cancel_tried, revision`
	invocationColumns = invocationBrief + ", steps"
)

func briefCommand(c *command.Command) []any {
	return []any{&c.ID, &c.Document, &c.DocumentVersion, &c.Comment, encoded{&c.Parameters}, encoded{&c.NodeIDs},
		encoded{&c.Targets}, &c.MaxConcurrency, &c.MaxErrors, lasting{&c.Delivery}, lasting{&c.Execution},
		stored{&c.Requested}, &c.Owner, &c.OwnerID, &c.OwnerName, &c.RootID, &c.SourceIP, &c.Status, &c.Details,
		&c.TargetCount, &c.CompletedCount, &c.ErrorCount, &c.DeliveryTimedOutCount, &c.CancelledBy, stored{&c.Ended},
		&c.Revision, &c.Member, stored{&c.Lease}}
}

func scanBriefCommand(r row) (c command.Command, err error) { return c, r.Scan(briefCommand(&c)...) }

func scanCommand(r row) (c command.Command, err error) {
	return c, r.Scan(append(briefCommand(&c), encoded{&c.Content}, encoded{&c.Values}, &c.Authority)...)
}

func briefInvocation(i *command.Invocation) []any {
	return []any{&i.CommandID, &i.NodeID, &i.NodeName, &i.Rank, stored{&i.Requested}, &i.Status, &i.Details, &i.Trace,
		&i.Tries, stored{&i.Tried}, stored{&i.Sent}, stored{&i.Delivered}, stored{&i.Started}, stored{&i.Ended},
		stored{&i.CancelAsked}, &i.CancelTries, stored{&i.CancelTried}, &i.Revision}
}

func scanBriefInvocation(r row) (i command.Invocation, err error) {
	return i, r.Scan(briefInvocation(&i)...)
}

func scanInvocation(r row) (i command.Invocation, err error) {
	return i, r.Scan(append(briefInvocation(&i), encoded{&i.Steps})...)
}

// jsonText stores what holds no cycles, channels or functions.
func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("store: encoding JSON: " + err.Error())
	}
	return string(b)
}

// CreateCommand implements command.Store.
func (s *Store) CreateCommand(ctx context.Context, c command.Command, all []command.Invocation) error {
	return s.write(ctx, "creating command", func(t tx) error {
		if err := insertCommand(t, c); err != nil {
			return err
		}
		for _, i := range all {
			if err := insertInvocation(t, i); err != nil {
				return err
			}
		}
		return nil
	})
}

func insertCommand(t tx, c command.Command) error {
	_, err := t.exec("INSERT INTO commands ("+commandColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
		$13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31)`,
		c.ID, c.Document, c.DocumentVersion, c.Comment, jsonText(c.Parameters), jsonText(c.NodeIDs), jsonText(c.Targets),
		c.MaxConcurrency, c.MaxErrors, c.Delivery.Microseconds(), c.Execution.Microseconds(), micros(c.Requested),
		c.Owner, c.OwnerID, c.OwnerName, c.RootID, c.SourceIP, c.Status, c.Details, c.TargetCount, c.CompletedCount,
		c.ErrorCount, c.DeliveryTimedOutCount, c.CancelledBy, micros(c.Ended), c.Revision, c.Member, micros(c.Lease),
		jsonText(c.Content), jsonText(c.Values), c.Authority)
	if isDuplicate(err) {
		return fmt.Errorf("command %q exists already", c.ID)
	}
	return err
}

func insertInvocation(t tx, i command.Invocation) error {
	_, err := t.exec("INSERT INTO command_invocations ("+invocationColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9,
		$10, $11, $12, $13, $14, $15, $16, $17, $18, $19)`,
		i.CommandID, i.NodeID, i.NodeName, i.Rank, micros(i.Requested), i.Status, i.Details, i.Trace, i.Tries, micros(i.Tried),
		micros(i.Sent), micros(i.Delivered), micros(i.Started), micros(i.Ended), micros(i.CancelAsked), i.CancelTries,
		micros(i.CancelTried), i.Revision, jsonText(i.Steps))
	if isDuplicate(err) {
		return fmt.Errorf("node %q is named twice", i.NodeID)
	}
	return err
}

func commandByID(t tx, id string) (command.Command, error) {
	return one(t, about("command", id, command.ErrNotFound), scanCommand,
		"SELECT "+commandColumns+" FROM commands WHERE id = $1"+t.forUpdate, id)
}

// Command implements command.Store.
func (s *Store) Command(ctx context.Context, id string) (command.Command, error) {
	c, err := commandByID(s.read(ctx), id)
	return c, wrap("reading command", err)
}

// Commands implements command.Store.
func (s *Store) Commands(ctx context.Context, f command.Filter) ([]command.Command, error) {
	t := s.read(ctx)
	w := commandsWhere(f)
	if f.After != "" {
		last, err := commandByID(t, f.After)
		if err != nil {
			return nil, wrap("listing commands", err)
		}
		w.add("(requested, id) < (?, ?)", micros(last.Requested), last.ID)
	}
	all, err := list(t, scanBriefCommand, "SELECT "+commandBrief+" FROM commands"+w.String()+
		" ORDER BY requested DESC, id DESC"+limit(f.Limit), w.args...)
	return all, wrap("listing commands", err)
}

func commandsWhere(f command.Filter) where {
	w := where{}
	w.in("id", f.IDs)
	w.equal("root_id", f.RootID)
	w.equal("document", f.Document)
	if f.NodeID != "" {
		w.add("id IN (SELECT command_id FROM command_invocations WHERE node_id = ?)", f.NodeID)
	}
	switch {
	case f.Active == nil:
	case *f.Active:
		w.add("ended = 0")
	default:
		w.add("ended <> 0")
	}
	w.requested(f.Status, f.RequestedAfter, f.RequestedBefore)
	return w
}

// requested adds what filters of commands and of invocations share.
func (w *where) requested(status string, after, before time.Time) {
	if status != "" {
		w.add("(status = ? OR details = ?)", status, status)
	}
	if !after.IsZero() {
		w.add("requested > ?", micros(after))
	}
	if !before.IsZero() {
		w.add("requested < ?", micros(before))
	}
}

// UpdateCommand implements command.Store. What the caller of SendCommand gave stays as
// it is.
func (s *Store) UpdateCommand(ctx context.Context, id string, change func(*command.Command) error) (changed bool, err error) {
	err = s.write(ctx, "changing command", func(t tx) error {
		changed = false
		c, err := commandByID(t, id)
		if err != nil || !c.Ended.IsZero() {
			return err
		}
		if err := change(&c); err != nil {
			return err
		}
		_, err = t.exec(`UPDATE commands SET status = $1, details = $2, completed_count = $3, error_count = $4,
			undelivered = $5, cancelled_by = $6, ended = $7, revision = revision + 1 WHERE id = $8`,
			c.Status, c.Details, c.CompletedCount, c.ErrorCount, c.DeliveryTimedOutCount, c.CancelledBy, micros(c.Ended), id)
		changed = err == nil
		return err
	})
	return changed && err == nil, err
}

func invocationOf(t tx, id, node string) (command.Invocation, error) {
	return one(t, about("command "+id+" on node", node, command.ErrNoInvocation), scanInvocation,
		"SELECT "+invocationColumns+" FROM command_invocations WHERE command_id = $1 AND node_id = $2"+t.forUpdate, id, node)
}

// Invocation implements command.Store.
func (s *Store) Invocation(ctx context.Context, id, node string) (command.Invocation, error) {
	i, err := invocationOf(s.read(ctx), id, node)
	return i, wrap("reading invocation", err)
}

// Invocations implements command.Store.
func (s *Store) Invocations(ctx context.Context, f command.InvocationFilter) ([]command.Invocation, error) {
	t := s.read(ctx)
	w := invocationsWhere(f)
	if f.AfterCommand != "" {
		last, err := invocationOf(t, f.AfterCommand, f.AfterNode)
		if err != nil {
			return nil, wrap("listing invocations", err)
		}
		w.after(f, last)
	}
	columns, scan := invocationBrief, scanBriefInvocation
	if f.Steps {
		columns, scan = invocationColumns, scanInvocation
	}
	order := " ORDER BY requested DESC, command_id DESC, rank"
	if f.ByRevision {
		order = " ORDER BY revision"
	}
	all, err := list(t, scan, "SELECT "+columns+" FROM command_invocations"+w.String()+order+limit(f.Limit), w.args...)
	return all, wrap("listing invocations", err)
}

// after continues a listing behind an invocation.
func (w *where) after(f command.InvocationFilter, last command.Invocation) {
	same := []any{last.CommandID, last.Rank}
	if f.CommandID != "" {
		w.add("(command_id = ? AND rank > ?)", same...)
		return
	}
	w.add("((command_id = ? AND rank > ?) OR (requested, command_id) < (?, ?))",
		append(same, micros(last.Requested), last.CommandID)...)
}

func invocationsWhere(f command.InvocationFilter) where {
	w := where{}
	w.equal("command_id", f.CommandID)
	w.equal("node_id", f.NodeID)
	w.in("node_id", f.NodeIDs)
	if f.Active {
		w.add("ended = 0")
	}
	if f.ByRevision {
		w.add("revision > ?", f.Since)
	}
	if f.Document != "" {
		w.add("command_id IN (SELECT id FROM commands WHERE document = ?)", f.Document)
	}
	w.requested(f.Status, f.RequestedAfter, f.RequestedBefore)
	return w
}

// UpdateInvocation implements command.Store.
func (s *Store) UpdateInvocation(ctx context.Context, id, node string, change func(*command.Invocation) error) (changed bool, err error) {
	err = s.write(ctx, "changing invocation", func(t tx) error {
		changed = false
		i, err := invocationOf(t, id, node)
		if err != nil || !i.Ended.IsZero() {
			return err
		}
		before := jsonText(i.Steps)
		if err := change(&i); err != nil {
			return err
		}
		err = updateInvocation(t, i, before)
		changed = err == nil
		return err
	})
	return changed && err == nil, err
}

func updateInvocation(t tx, i command.Invocation, stepsBefore string) error {
	revision, err := one(t, about("command", i.CommandID, command.ErrNotFound), scanInt,
		"UPDATE commands SET revision = revision + 1 WHERE id = $1 RETURNING revision", i.CommandID)
	if err != nil {
		return err
	}
	set := `status = $3, details = $4, trace = $5, tries = $6, tried = $7, sent = $8, delivered = $9, started = $10,
		ended = $11, cancel_asked = $12, cancel_tries = $13, cancel_tried = $14, revision = $15`
	args := []any{i.CommandID, i.NodeID, i.Status, i.Details, i.Trace, i.Tries, micros(i.Tried), micros(i.Sent),
		micros(i.Delivered), micros(i.Started), micros(i.Ended), micros(i.CancelAsked), i.CancelTries, micros(i.CancelTried), revision}
	if after := jsonText(i.Steps); after != stepsBefore {
		set, args = set+", steps = $16", append(args, after)
	}
	_, err = t.exec("UPDATE command_invocations SET "+set+" WHERE command_id = $1 AND node_id = $2", args...)
	return err
}

// ClaimCommands implements command.Store.
func (s *Store) ClaimCommands(ctx context.Context, member string, now, until time.Time) (ids []string, err error) {
	err = s.write(ctx, "claiming commands", func(t tx) error {
		ids, err = list(t, scanText, `UPDATE commands SET member = $1, lease = $2
			WHERE ended = 0 AND (member = $1 OR lease < $3) RETURNING id`, member, micros(until), micros(now))
		return err
	})
	return ids, err
}

// ReleaseCommands implements command.Store.
func (s *Store) ReleaseCommands(ctx context.Context, member string) error {
	return s.write(ctx, "releasing commands", func(t tx) error {
		_, err := t.exec("UPDATE commands SET lease = 0 WHERE ended = 0 AND member = $1", member)
		return err
	})
}

// DeleteCommands implements command.Store.
func (s *Store) DeleteCommands(ctx context.Context, before time.Time, most int) (deleted int, err error) {
	err = s.write(ctx, "deleting commands", func(t tx) error {
		ids, err := list(t, scanText, "SELECT id FROM commands WHERE ended > 0 AND ended < $1 ORDER BY ended"+limit(most), micros(before))
		if deleted = len(ids); err != nil || deleted == 0 {
			return err
		}
		w := where{}
		w.in("command_id", ids)
		if _, err := t.exec("DELETE FROM command_invocations"+w.String(), w.args...); err != nil {
			return err
		}
		_, err = t.exec(strings.Replace("DELETE FROM commands"+w.String(), "command_id IN", "id IN", 1), w.args...)
		return err
	})
	return deleted, err
}
