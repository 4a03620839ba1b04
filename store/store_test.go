package store_test

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"sallyport.dev/internal/pgtest"
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
}

func TestKilledSQLite(t *testing.T) { testKilled(t, sqliteFile) }
