package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// conn is what statements run on: the pool, or the connection of a transaction.
type conn interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// tx runs statements, in one transaction or (made by Store.read) outside of any. It
// lives as long as the call or the transaction, and so does its context.
type tx struct {
	ctx context.Context
	on  conn
	// forUpdate ends a SELECT that must lock its rows; empty on SQLite, whose
	// writers are alone anyway.
	forUpdate string
	failed    *atomic.Int64 // counts statements that failed; nil for nobody
}

// note counts a statement that failed for a reason of the database's: a row that is there
// already and a caller who left are none.
func (t tx) note(err error) {
	if err != nil && t.failed != nil && t.ctx.Err() == nil && !isDuplicate(err) {
		t.failed.Add(1)
	}
}

// exec runs a statement and returns how many rows it changed.
func (t tx) exec(query string, args ...any) (int64, error) {
	res, err := t.on.ExecContext(t.ctx, query, args...)
	t.note(err)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// must runs a statement that must change a row, or else fails with absent.
func (t tx) must(absent error, query string, args ...any) error {
	n, err := t.exec(query, args...)
	if err == nil && n == 0 {
		return absent
	}
	return err
}

// row is a row being read.
type row interface{ Scan(into ...any) error }

// list reads every row of a query.
func list[T any](t tx, scan func(row) (T, error), query string, args ...any) ([]T, error) {
	rows, err := t.on.QueryContext(t.ctx, query, args...)
	t.note(err)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	t.note(rows.Err())
	return all, rows.Err()
}

// one reads the only row of a query, or fails with absent.
func one[T any](t tx, absent error, scan func(row) (T, error), query string, args ...any) (T, error) {
	all, err := list(t, scan, query, args...)
	if err == nil && len(all) == 0 {
		err = absent
	}
	if err != nil {
		var zero T
		return zero, err
	}
	return all[0], nil
}

func scanInt(r row) (n int64, err error) { return n, r.Scan(&n) }

func scanText(r row) (s string, err error) { return s, r.Scan(&s) }

// count reads a single number.
func (t tx) count(query string, args ...any) (int64, error) {
	return one(t, sql.ErrNoRows, scanInt, query, args...)
}

// read runs statements outside of a transaction.
func (s *Store) read(ctx context.Context) tx { return tx{ctx: ctx, on: s.db.pool(), failed: &s.failed} }

// write runs change in a transaction; doing says in error texts what was attempted.
func (s *Store) write(ctx context.Context, doing string, change func(tx) error) error {
	made := false
	err := s.db.write(ctx, func(t tx) error {
		t.failed = &s.failed
		err := change(t)
		made = err == nil
		return err
	})
	if err != nil && made { // by the commit
		s.failed.Add(1)
	}
	return wrap(doing, err)
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// about says which thing an error is about: user "alice": no such entity.
func about(kind, name string, err error) error {
	return fmt.Errorf("%s %q: %w", kind, name, err)
}

// where gathers the conditions of a query and their arguments.
type where struct {
	conditions []string
	args       []any
}

// add adds a condition in which each ? stands for the next of args.
func (w *where) add(condition string, args ...any) {
	for _, a := range args {
		w.args = append(w.args, a)
		condition = strings.Replace(condition, "?", "$"+strconv.Itoa(len(w.args)), 1)
	}
	w.conditions = append(w.conditions, condition)
}

// equal adds column = value unless value is empty.
func (w *where) equal(column, value string) {
	if value != "" {
		w.add(column+" = ?", value)
	}
}

// in adds column IN (values) unless there are none.
func (w *where) in(column string, values []string) {
	if len(values) == 0 {
		return
	}
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	w.add(column+" IN (?"+strings.Repeat(", ?", len(values)-1)+")", args...)
}

// like adds a comparison with a pattern that ignores case; % and _ in it are wild.
func (w *where) like(column, pattern string) {
	w.add(`lower(`+column+`) LIKE ? ESCAPE '\'`, strings.ToLower(pattern))
}

func (w *where) String() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

// escapeLike makes text stand for itself in a LIKE pattern.
var escapeLike = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// limit returns a LIMIT clause; 0 is none.
func limit(n int) string {
	if n <= 0 {
		return ""
	}
	return " LIMIT " + strconv.Itoa(n)
}

// key is the form in which names are compared.
func key(name string) string { return strings.ToLower(name) }

// micros is how times are stored: microseconds since 1970, 0 for the zero time.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// when reads what micros stored, in UTC.
func when(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// stored reads a time column.
type stored struct{ at *time.Time }

// Scan implements sql.Scanner.
func (s stored) Scan(v any) error {
	us, ok := v.(int64)
	if !ok {
		return fmt.Errorf("time is stored as %T, must be a whole number", v)
	}
	*s.at = when(us)
	return nil
}

// lasting reads a column of microseconds.
type lasting struct{ d *time.Duration }

// Scan implements sql.Scanner.
func (l lasting) Scan(v any) error {
	us, ok := v.(int64)
	if !ok {
		return fmt.Errorf("duration is stored as %T, must be a whole number", v)
	}
	*l.d = time.Duration(us) * time.Microsecond
	return nil
}

// encoded reads a JSON column; empty lists and maps come back as nil.
type encoded struct{ into any }

// Scan implements sql.Scanner.
func (e encoded) Scan(v any) error {
	switch v := v.(type) {
	case string:
		return decode([]byte(v), e.into)
	case []byte:
		return decode(v, e.into)
	}
	return fmt.Errorf("JSON is stored as %T, must be text", v)
}

func decode(text []byte, into any) error {
	if s := string(text); s == "" || s == "null" {
		return nil
	}
	return json.Unmarshal(text, into)
}

// encode stores strings, lists and maps of strings as JSON, and nothing as "".
func encode[T ~map[string]string | ~[]string](v T) string {
	if len(v) == 0 {
		return ""
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic("store: encoding strings: " + err.Error()) // strings always encode
	}
	return string(text)
}

// isDuplicate reports whether a statement broke a unique constraint.
func isDuplicate(err error) bool {
	return isSQLiteDuplicate(err) || isPostgresDuplicate(err)
}

// orExists turns a broken unique constraint into the domain's error.
func orExists(err, exists error) error {
	if isDuplicate(err) {
		return exists
	}
	return err
}
