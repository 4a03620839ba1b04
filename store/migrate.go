package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/pressly/goose/v3"
)

// migrations are applied in order and never edited once released.
//
//go:embed migrations/*.sql
var migrations embed.FS

func newProvider(db *sql.DB, dialect goose.Dialect) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(dialect, db, files,
		goose.WithDisableGlobalRegistry(true),
		goose.WithSlog(slog.New(slog.DiscardHandler)))
}

// migrate brings the schema up to date.
func migrate(ctx context.Context, db *sql.DB, dialect goose.Dialect) error {
	provider, err := newProvider(db, dialect)
	if err != nil {
		return err
	}
	at, err := provider.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	if at > newest(provider) {
		return checkVersion(at, newest(provider))
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bringing the schema up to date: %w", err)
	}
	return nil
}

func newest(p *goose.Provider) int64 {
	sources := p.ListSources()
	return sources[len(sources)-1].Version
}

// checkSchema refuses a schema that is not exactly the one this program knows.
func checkSchema(ctx context.Context, db *sql.DB) error {
	provider, err := newProvider(db, goose.DialectSQLite3) // only for its list of files
	if err != nil {
		return err
	}
	t := tx{ctx: ctx, on: db}
	at, err := t.count("SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied")
	if err != nil {
		return fmt.Errorf("reading the schema's version: %w", err)
	}
	return checkVersion(at, newest(provider))
}

func checkVersion(at, known int64) error {
	switch {
	case at > known:
		return fmt.Errorf("schema is of version %d, made by a newer program: this one knows %d", at, known)
	case at < known:
		return fmt.Errorf("schema is of version %d, must be %d: open it once for writing", at, known)
	}
	return nil
}
