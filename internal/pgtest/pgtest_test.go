package pgtest

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestDatabasesAreSeparateAndSurviveACrash(t *testing.T) {
	s := Start(t)
	one, two := s.Database(t), s.Database(t)
	run(t, one, "CREATE TABLE only_here (n BIGINT)")
	run(t, two, "CREATE TABLE only_here (n BIGINT)")
	if err := s.Down(); err != nil {
		t.Fatal(err)
	}
	if _, err := pgx.Connect(t.Context(), one); err == nil {
		t.Error("connecting to a stopped server: got no error")
	}
	if err := s.Up(); err != nil {
		t.Fatal(err)
	}
	run(t, one, "INSERT INTO only_here VALUES (1)")
}

func run(t *testing.T, url, statement string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}
