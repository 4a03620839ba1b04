package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqliteDB is a SQLite file: a writer with a connection of its own, and a pool of
// connections that only read and, the journal being a write-ahead log, never wait
// for the writer.
type sqliteDB struct {
	path    string
	readers *sql.DB
	reads   *prepared // on readers
	writes  *sql.DB   // nil when read-only
	writer  *writer   // nil when read-only
}

func openSQLite(ctx context.Context, path string, opts Options) (database, error) {
	if path == "" || path == ":memory:" {
		return nil, errors.New("SQLite needs the path of a file")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if opts.ReadOnly {
		return openSQLiteReadOnly(ctx, path)
	}
	if err := prepareFile(path, opts.Logger); err != nil {
		return nil, err
	}
	s := &sqliteDB{path: path, writes: openSQLitePool(path, 1, nil)}
	if err := migrate(ctx, s.writes, goose.DialectSQLite3); err != nil {
		return nil, errors.Join(err, s.writes.Close())
	}
	if err := prepareSQLiteGrams(tx{ctx: ctx, on: s.writes}); err != nil {
		return nil, errors.Join(err, s.writes.Close())
	}
	s.openReaders(path)
	s.writer = startWriter(ctx, s.writes)
	return s, nil
}

func openSQLiteReadOnly(ctx context.Context, path string) (database, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	s := &sqliteDB{}
	s.openReaders(path)
	if err := checkSchema(ctx, s.readers); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// prepareFile sees to it that nobody else can read the file. SQLite gives the files
// that it puts beside it (-wal, -shm) the same mode.
func prepareFile(path string, logger *slog.Logger) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	logger.Warn("database file was open to others, closing it to them", "path", path, "mode", info.Mode().Perm())
	return f.Chmod(0o600)
}

func (s *sqliteDB) openReaders(path string) {
	s.readers = openSQLitePool(path, max(4, runtime.GOMAXPROCS(0)), []string{"query_only(1)"})
	s.reads = &prepared{on: s.readers}
}

// openSQLitePool opens a pool of connections. FULL makes every commit reach the disk
// before it returns, as durable audit needs; NORMAL could lose the last ones when
// the power fails.
func openSQLitePool(path string, size int, pragmas []string) *sql.DB {
	q := url.Values{"_pragma": append([]string{
		"busy_timeout(5000)", // first, since the next one may already have to wait
		"journal_mode(wal)",
		"synchronous(full)",
		"foreign_keys(1)",
		"cache_size(-8000)", // KiB
	}, pragmas...)}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		panic("store: " + err.Error()) // only for an unknown driver
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db
}

func (s *sqliteDB) pool() conn { return s.reads }

func (s *sqliteDB) write(ctx context.Context, change func(tx) error) error {
	if s.writer == nil {
		return ErrReadOnly
	}
	return s.writer.write(ctx, change)
}

func (s *sqliteDB) waiting() int {
	if s.writer == nil {
		return 0
	}
	return len(s.writer.queue)
}

func (s *sqliteDB) close() error {
	if s.writer == nil {
		return s.readers.Close()
	}
	s.writer.close()
	// The last connection to close folds the log into the file, so it must be one
	// that may write.
	return errors.Join(s.readers.Close(), s.writes.Close())
}

func isSQLiteDuplicate(err error) bool {
	e := (*sqlite.Error)(nil)
	return errors.As(err, &e) &&
		(e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// endsTransaction reports whether SQLite may have rolled back the whole transaction
// because of an error: all but those that concern the statement alone.
func endsTransaction(err error) bool {
	e := (*sqlite.Error)(nil)
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE:
		return false
	}
	return true
}
