package store_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport.dev/audit"
	"sallyport.dev/internal/pgtest"
	"sallyport.dev/store"
	"sallyport.dev/store/storetest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childURL) != "" {
		os.Exit(appendForEver())
	}
	goleak.VerifyTestMain(m)
}

// sqliteFile is a storetest.Fresh.
func sqliteFile(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "sallyport.db") }

func TestSQLite(t *testing.T) { storetest.Run(t, sqliteFile) }

func TestPostgreSQL(t *testing.T) {
	server := pgtest.Start(t)
	t.Run("suite", func(t *testing.T) { storetest.Run(t, server.Database) })
	t.Run("killed", func(t *testing.T) { testKilled(t, server.Database) })
	t.Run("migrated at once", func(t *testing.T) { testMigratedAtOnce(t, server.Database(t)) })
	t.Run("restarted", func(t *testing.T) { testServerRestarts(t, server) })
}

// testMigratedAtOnce: members that start together on an empty database all get it.
func testMigratedAtOnce(t *testing.T, url string) {
	results := make(chan error, 5)
	for range cap(results) {
		go func() {
			s, err := store.Open(t.Context(), url, store.Options{Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				err = s.Close()
			}
			results <- err
		}()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// testServerRestarts: while the database is away a member refuses what it cannot
// audit; once it is back the member goes on, its chain whole.
func testServerRestarts(t *testing.T, server *pgtest.Server) {
	s := storetest.Open(t, server.Database(t))
	l, err := audit.New(t.Context(), s, "m", time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Append(t.Context(), audit.Record{Reason: "before"}); err != nil {
		t.Fatal(err)
	}
	if err := server.Down(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), audit.Record{Reason: "during"}); err == nil {
		t.Error("appending while the database is away: got no error")
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("ping while the database is away: got no error")
	}
	if err := server.Up(); err != nil {
		t.Fatal(err)
	}
	r, err := l.Append(t.Context(), audit.Record{Reason: "after"})
	if err != nil || r.Seq != 2 {
		t.Errorf("after the restart: got record %d, %v, want record 2", r.Seq, err)
	}
	if err := audit.Verify(audit.All(t.Context(), s, audit.Filter{})); err != nil {
		t.Error(err)
	}
}

func TestKilledSQLite(t *testing.T) { testKilled(t, sqliteFile) }
