package store

import (
	"fmt"
	"log/slog"
)

// sqliteGrams finds the blocks of transcripts by their trigrams. The text itself is in
// transcript_blocks alone, and so is the place of a trigram within it.
const sqliteGrams = `CREATE VIRTUAL TABLE IF NOT EXISTS transcript_grams USING fts5(
	folded, tokenize = 'trigram case_sensitive 1', content = '', contentless_delete = 1, detail = none)`

// postgresGrams is its like; the index on it needs an extension that PostgreSQL brings
// along, and that the owner of a database may create.
const (
	postgresGrams = `CREATE TABLE IF NOT EXISTS transcript_grams (
	rowid  BIGINT NOT NULL CONSTRAINT transcript_grams_pkey PRIMARY KEY,
	folded TEXT   COLLATE "C" NOT NULL)`
	postgresTrigrams = `CREATE EXTENSION IF NOT EXISTS pg_trgm`
	postgresIndex    = `CREATE INDEX IF NOT EXISTS transcript_grams_folded ON transcript_grams USING gin (folded gin_trgm_ops)`
)

func prepareSQLiteGrams(t tx) error {
	if _, err := t.exec(sqliteGrams); err != nil {
		return fmt.Errorf("creating the index of transcripts: %w", err)
	}
	return nil
}

// preparePostgresGrams goes on without the index where it cannot be had: searching reads
// everything then, and finds the same.
func preparePostgresGrams(t tx, logger *slog.Logger) error {
	if _, err := t.exec(postgresGrams); err != nil {
		return fmt.Errorf("creating the table of transcripts: %w", err)
	}
	for _, sql := range []string{postgresTrigrams, postgresIndex} {
		if _, err := t.exec(sql); err != nil {
			logger.Warn("searching sessions will read all transcripts: without the extension pg_trgm they have no index", "error", err)
			return nil
		}
	}
	return nil
}
