package member

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/index"
)

// Clearing the index leaves nothing of it in the database's file, is audited, and is done by
// nobody while the member runs or would make the index again.
func TestClearIndex(t *testing.T) {
	off := false
	cfg := Config{
		Account: "111111111111", Region: "us-east-1", Member: "m1", DataDir: t.TempDir(), ListenPlain: "127.0.0.1:0",
		Logger: slog.New(slog.DiscardHandler),
	}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	if _, err := ClearIndex(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "search { index = false }") {
		t.Errorf("with the index on: got %v, want what to set", err)
	}
	cfg.Search = &Search{Index: &off}
	s, err := OpenState(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	const secret = "a secret that stood on the screen"
	n, err := s.Store.CreateTranscript(t.Context(), "alice-1", "m1", index.Live, time.Now())
	if err == nil {
		_, err = s.Store.AddBlocks(t.Context(), "m1", []index.Addition{{Number: n, Block: index.Block{Text: secret, Times: []byte{'o', 2}}}}, time.Now())
	}
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	if !filesHold(t, cfg.DataDir, secret) {
		t.Fatal("the text is not in the files that are to be looked through")
	}

	m, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ClearIndex(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "stop the server first") {
		t.Errorf("while the member runs: got %v, want what to do", err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := ClearIndex(t.Context(), cfg); err != nil || got != 1 {
		t.Fatalf("got %d sessions, %v, want 1", got, err)
	}
	if filesHold(t, cfg.DataDir, secret) {
		t.Error("the database's files still hold the text")
	}
	s, err = OpenState(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cleared := 0
	for r, err := range audit.All(t.Context(), s.Store, audit.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Action == "sallyport:ClearIndex" {
			cleared++
		}
	}
	if cleared != 1 {
		t.Errorf("got %d records of it in the audit log, want 1", cleared)
	}
}

// filesHold reports whether one of the files of a member's database holds a text.
func filesHold(t *testing.T, dir, text string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "sallyport.db*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got the files %q, %v, want a database", files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes", filepath.Base(name), len(b))
		if bytes.Contains(b, []byte(text)) {
			return true
		}
	}
	return false
}
