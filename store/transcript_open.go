package store

import "fmt"

// sqliteGrams finds the blocks of transcripts by their trigrams. The text itself is in
// transcript_blocks alone.
const sqliteGrams = `CREATE VIRTUAL TABLE IF NOT EXISTS transcript_trigrams USING fts5(
	grams, tokenize = 'ascii', content = '', contentless_delete = 1, detail = none)`

// postgresGrams is its like.
const (
	postgresGrams = `CREATE TABLE IF NOT EXISTS transcript_trigrams (
	rowid BIGINT NOT NULL CONSTRAINT transcript_trigrams_pkey PRIMARY KEY,
	grams INT4[] NOT NULL)`
	postgresIndex = `CREATE INDEX IF NOT EXISTS transcript_trigrams_grams ON transcript_trigrams USING gin (grams)`
)

func prepareSQLiteGrams(t tx) error { return prepareGrams(t, sqliteGrams) }

func preparePostgresGrams(t tx) error { return prepareGrams(t, postgresGrams, postgresIndex) }

func prepareGrams(t tx, statements ...string) error {
	for _, sql := range statements {
		if _, err := t.exec(sql); err != nil {
			return fmt.Errorf("creating the index of transcripts: %w", err)
		}
	}
	return nil
}
