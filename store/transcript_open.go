package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// sqliteGrams finds the blocks of transcripts by their trigrams. The text itself is in
// transcript_blocks alone.
const sqliteGrams = `CREATE VIRTUAL TABLE IF NOT EXISTS transcript_trigrams USING fts5(
	grams, tokenize = 'ascii', content = '', contentless_delete = 1, detail = none)`

// sqliteMerge has FTS5 merge eight segments of its index where four are usual: each word is
// written anew less often, and looked for in a few more places.
const sqliteMerge = `INSERT INTO transcript_trigrams (transcript_trigrams, rank) VALUES ('automerge', 8)`

// postgresGrams is its like.
const (
	postgresGrams = `CREATE TABLE IF NOT EXISTS transcript_trigrams (
	rowid BIGINT NOT NULL CONSTRAINT transcript_trigrams_pkey PRIMARY KEY,
	grams INT4[] NOT NULL)`
	postgresIndex = `CREATE INDEX IF NOT EXISTS transcript_trigrams_grams ON transcript_trigrams USING gin (grams)`
)

// clearTranscripts implements database. Deleting rows of FTS5 would leave their words until
// they are merged; freed pages keep their bytes until the file is written anew.
func (s *sqliteDB) clearTranscripts(ctx context.Context) error {
	err := s.write(ctx, func(t tx) error {
		return execAll(t, "INSERT INTO transcript_trigrams (transcript_trigrams) VALUES ('delete-all')",
			"DELETE FROM transcript_blocks", "DELETE FROM transcripts")
	})
	if err != nil {
		return err
	}
	db := openSQLitePool(s.path, 1, nil) // the writer's own connection is in its hands
	if err = rewriteSQLite(ctx, db); err != nil {
		err = fmt.Errorf("it is empty, but the files still hold what it was: %w", err)
	}
	return errors.Join(err, db.Close())
}

// rewriteSQLite writes the file anew and empties the log beside it.
func rewriteSQLite(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, "VACUUM"); err != nil {
		return err
	}
	var busy, pages, moved int64
	err := db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
	if err == nil && busy != 0 {
		err = errors.New("somebody else is using the database")
	}
	return err
}

// clearTranscripts implements database.
func (p *postgresDB) clearTranscripts(ctx context.Context) error {
	return p.write(ctx, func(t tx) error {
		return execAll(t, "TRUNCATE transcript_trigrams, transcript_blocks, transcripts")
	})
}

func execAll(t tx, statements ...string) error {
	for _, sql := range statements {
		if _, err := t.exec(sql); err != nil {
			return err
		}
	}
	return nil
}

func prepareSQLiteGrams(t tx) error { return prepareGrams(t, sqliteGrams, sqliteMerge) }

func preparePostgresGrams(t tx) error { return prepareGrams(t, postgresGrams, postgresIndex) }

func prepareGrams(t tx, statements ...string) error {
	if err := execAll(t, statements...); err != nil {
		return fmt.Errorf("creating the index of transcripts: %w", err)
	}
	return nil
}
