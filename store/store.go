package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"sallyport.dev/audit"
	"sallyport.dev/command"
	"sallyport.dev/document"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/session"
)

// Options say how a store is opened.
type Options struct {
	Logger   *slog.Logger // required
	ReadOnly bool         // refuse every change; the schema must be current
}

// Store is the state of a deployment. It is safe for concurrent use.
//
// Functions that callers pass in (the change of UpdateUser, the newID of Register)
// run inside a transaction, which may have to run again: they must do nothing but
// compute, and must not call the store.
type Store struct {
	db     database
	failed atomic.Int64 // see Stats
}

// Stats are figures of a store, for metrics.
type Stats struct {
	// Failed counts the statements and commits that failed since the start of the
	// process, but for what callers gave up or had to expect.
	Failed int64
	// Waiting is how many changes wait for SQLite's one writer; 0 with PostgreSQL.
	Waiting int
}

// Stats returns the store's figures.
func (s *Store) Stats() Stats { return Stats{Failed: s.failed.Load(), Waiting: s.db.waiting()} }

var (
	_ identity.Store = (*Store)(nil)
	_ node.Store     = (*Store)(nil)
	_ session.Store  = (*Store)(nil)
	_ audit.Store    = (*Store)(nil)
	_ document.Store = (*Store)(nil)
	_ command.Store  = (*Store)(nil)
	_ grant.Store    = (*Store)(nil)
)

// Errors of the store itself.
var (
	ErrClosed   = errors.New("store is closed")
	ErrReadOnly = errors.New("store is open for reading only")
)

// database is SQLite or PostgreSQL.
type database interface {
	// pool answers reads outside of transactions.
	pool() conn
	// write runs change in a transaction and returns once that is durable, or was
	// rolled back because change or the commit failed. It may run change again.
	write(ctx context.Context, change func(tx) error) error
	// clearTranscripts empties the index, so that its text is in none of the database's files.
	clearTranscripts(ctx context.Context) error
	waiting() int // changes that wait to be made
	close() error
}

// Open opens the store at a URL (sqlite:PATH, a plain path, or postgres://…),
// creating it or bringing its schema up to date. The context bounds opening only.
func Open(ctx context.Context, url string, opts Options) (*Store, error) {
	db, err := open(ctx, url, opts)
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	return &Store{db: db}, nil
}

func open(ctx context.Context, url string, opts Options) (database, error) {
	scheme, rest, found := strings.Cut(url, ":")
	switch {
	case found && (scheme == "postgres" || scheme == "postgresql"):
		return openPostgres(ctx, url, opts)
	case found && scheme == "sqlite":
		return openSQLite(ctx, strings.TrimPrefix(rest, "//"), opts)
	case found && strings.HasPrefix(rest, "//"):
		return nil, fmt.Errorf("scheme %q: allowed are sqlite:PATH, a plain path, and postgres://…", scheme)
	}
	return openSQLite(ctx, url, opts)
}

// Close writes what has been accepted and closes the store.
func (s *Store) Close() error { return s.db.close() }

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if _, err := s.Revision(ctx); err != nil {
		return fmt.Errorf("asking the database: %w", err)
	}
	return nil
}
