package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/session"
)

func openFile(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func dbPath(t testing.TB) string { return filepath.Join(t.TempDir(), "state", "sallyport.db") }

func TestFilesAreClosedToOthers(t *testing.T) {
	path := dbPath(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil { // left open by someone
		t.Fatal(err)
	}
	s := openFile(t, path)
	if err := s.SetMeta(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 3 {
		t.Fatalf("files: got %v, %v, want the database, its log and its index", entries, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("mode of %s: got %04o, want 0600", e.Name(), got)
		}
	}
}

func TestNewFoldersAreClosedToOthers(t *testing.T) {
	path := dbPath(t)
	openFile(t, path)
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o700 {
		t.Errorf("mode of the folder: got %04o, want 0700", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	notes := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(notes, []byte(strings.Repeat("these are not the rows you are looking for\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, url string
		opts      Options
		want      string
	}{
		{"nothing", "", Options{}, "needs the path of a file"},
		{"memory", ":memory:", Options{}, "needs the path of a file"},
		{"no path", "sqlite:", Options{}, "needs the path of a file"},
		{"another scheme", "mysql://localhost/x", Options{}, `scheme "mysql": allowed are sqlite:PATH, a plain path, and postgres://`},
		{"a folder", dir, Options{}, "directory"},
		{"another kind of file", notes, Options{}, "not a database"},
		{"no file, read only", filepath.Join(dir, "none.db"), Options{ReadOnly: true}, "no such file"},
		{"an unreachable server", "postgres://sallyport:hunter2@127.0.0.1:1/x?connect_timeout=2", Options{}, "127.0.0.1"},
		{"a bad PostgreSQL URL", "postgres://sallyport:hunter2@127.0.0.1:port/x", Options{}, "port"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.opts.Logger = slog.New(slog.DiscardHandler)
			_, err := Open(t.Context(), tt.url, tt.opts)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
	if text, err := os.ReadFile(notes); err != nil || !strings.HasPrefix(string(text), "these are not") {
		t.Error("another kind of file was overwritten")
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := dbPath(t)
	s := openFile(t, path)
	err := s.write(t.Context(), "pretending", func(tx tx) error {
		_, err := tx.exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	for _, readOnly := range []bool{false, true} {
		_, err := Open(t.Context(), path, Options{Logger: slog.New(slog.DiscardHandler), ReadOnly: readOnly})
		if err == nil || !strings.Contains(err.Error(), "made by a newer program") {
			t.Errorf("read only %v: got %v, want a refusal", readOnly, err)
		}
	}
}

// blockWriter makes the writer wait until release is called, so that what is written
// meanwhile gathers.
func blockWriter(t *testing.T, s *Store) (release func()) {
	t.Helper()
	begun, gate, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		s.write(context.WithoutCancel(t.Context()), "blocking", func(tx) error { close(begun); <-gate; return nil })
	}()
	<-begun
	return func() { close(gate); <-done }
}

// queued waits until n changes wait for the writer.
func queued(t *testing.T, s *Store, n int) {
	t.Helper()
	w := s.db.(*sqliteDB).writer
	for end := time.Now().Add(5 * time.Second); len(w.queue) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("changes waiting: got %d, want %d", len(w.queue), n)
		}
	}
}

// TestChangesOfAGroupFailAlone: in one transaction, a change that fails, by its own
// decision, by a constraint or by a panic, takes nothing of the others' with it.
func TestChangesOfAGroupFailAlone(t *testing.T) {
	s := openFile(t, dbPath(t))
	release := blockWriter(t, s)
	refuse := errors.New("no")
	errs := make([]error, 40)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					errs[i] = fmt.Errorf("panic: %v", p)
				}
			}()
			errs[i] = s.write(t.Context(), "writing", func(tx tx) error {
				if _, err := tx.exec("INSERT INTO meta (key, value) VALUES ($1, 'x')", fmt.Sprint("key", i)); err != nil {
					return err
				}
				switch i % 4 {
				case 1:
					return refuse
				case 2:
					_, err := tx.exec("INSERT INTO meta (key, value) VALUES ($1, 'again')", fmt.Sprint("key", i))
					return err
				case 3:
					panic("bug")
				}
				return nil
			})
		})
	}
	queued(t, s, len(errs))
	release()
	wg.Wait()
	for i, err := range errs {
		value, readErr := s.Meta(t.Context(), fmt.Sprint("key", i))
		if readErr != nil {
			t.Fatal(readErr)
		}
		if stored := value != ""; stored != (i%4 == 0) || (err == nil) != stored {
			t.Errorf("change %d: got error %v, stored %v", i, err, stored)
		}
	}
}

// limitPages makes the disk seem full once the database has n pages; 0 frees it.
func limitPages(t *testing.T, s *Store, n int) {
	t.Helper()
	if n == 0 {
		n = 1 << 30
	}
	err := s.db.write(t.Context(), func(on tx) error {
		_, err := on.exec(fmt.Sprintf("PRAGMA max_page_count = %d", n))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk: changes that do not fit fail with an error, those that fit are made
// though they shared a transaction with the others, and nothing is damaged.
func TestFullDisk(t *testing.T) {
	path := dbPath(t)
	s := openFile(t, path)
	ctx := t.Context()
	for i := range 20 { // room within pages, so that small changes fit
		if err := s.SetMeta(ctx, fmt.Sprint("small", i), "xx"); err != nil {
			t.Fatal(err)
		}
	}
	limitPages(t, s, 1) // no page more than there are
	big := strings.Repeat("x", 1<<20)
	release := blockWriter(t, s)
	errs := make([]error, 20)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			value := "yy"
			if i%2 == 1 {
				value = big
			}
			errs[i] = s.SetMeta(ctx, fmt.Sprint("small", i), value)
		})
	}
	queued(t, s, len(errs))
	release()
	wg.Wait()
	for i, err := range errs {
		want := "yy"
		if i%2 == 1 {
			want = "xx"
			if !isFull(err) {
				t.Errorf("a change that does not fit: got %v, want an error of a full disk", err)
			}
		} else if err != nil {
			t.Errorf("a change that fits: got %v", err)
		}
		if got, err := s.Meta(ctx, fmt.Sprint("small", i)); err != nil || got != want {
			t.Errorf("value %d: got %.10q, %v, want %q", i, got, err, want)
		}
	}
	limitPages(t, s, 0)
	if err := s.SetMeta(ctx, "big", big); err != nil {
		t.Errorf("after room was made: %v", err)
	}
	checkIntegrity(t, s)
}

func isFull(err error) bool {
	e := (*sqlite.Error)(nil)
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_FULL
}

func checkIntegrity(t *testing.T, s *Store) {
	t.Helper()
	got, err := one(s.read(t.Context()), errors.New("no answer"), scanText, "PRAGMA integrity_check")
	if err != nil || got != "ok" {
		t.Errorf("integrity of the database: got %q, %v", got, err)
	}
}

// TestAuditOnAFullDisk: no record, no permission; and the chain goes on afterwards.
func TestAuditOnAFullDisk(t *testing.T) {
	s := openFile(t, dbPath(t))
	ctx := t.Context()
	l, err := audit.New(ctx, s, "m", time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	limitPages(t, s, 1)
	stored := 0
	for range 200 {
		if _, err := l.Append(ctx, audit.Record{Event: audit.EventDecision, Reason: strings.Repeat("x", 4000)}); err == nil {
			stored++
		}
	}
	if stored == 200 {
		t.Fatal("the disk was never full")
	}
	limitPages(t, s, 0)
	r, err := l.Append(ctx, audit.Record{Event: audit.EventDecision})
	if err != nil || r.Seq != int64(stored)+1 {
		t.Errorf("after room was made: got record %d, %v, want record %d", r.Seq, err, stored+1)
	}
	if err := audit.Verify(audit.All(ctx, s, audit.Filter{})); err != nil {
		t.Error(err)
	}
	checkIntegrity(t, s)
}

// TestReadOnlyFile: a file system that became read-only gives errors, not damage.
func TestReadOnlyFile(t *testing.T) {
	s := openFile(t, dbPath(t))
	ctx := t.Context()
	setReadOnly := func(on int) {
		if _, err := s.db.(*sqliteDB).writes.ExecContext(ctx, fmt.Sprintf("PRAGMA query_only = %d", on)); err != nil {
			t.Fatal(err)
		}
	}
	setReadOnly(1)
	if err := s.CreateUser(ctx, identity.User{Name: "u", ID: "AIDA"}); err == nil {
		t.Error("writing: got no error")
	}
	if _, err := s.Users(ctx, identity.Page{}); err != nil {
		t.Errorf("reading: %v", err)
	}
	setReadOnly(0)
	if err := s.CreateUser(ctx, identity.User{Name: "u", ID: "AIDA"}); err != nil {
		t.Errorf("writing afterwards: %v", err)
	}
	checkIntegrity(t, s)
}

// TestCloseMakesWhatWasAccepted: changes that wait when the store is closed are made.
func TestCloseMakesWhatWasAccepted(t *testing.T) {
	path := dbPath(t)
	s := openFile(t, path)
	release := blockWriter(t, s)
	errs := make(chan error, 50)
	for i := range cap(errs) {
		go func() { errs <- s.SetMeta(context.WithoutCancel(t.Context()), fmt.Sprint("key", i), "v") }()
	}
	queued(t, s, cap(errs))
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	release()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Errorf("an accepted change: got %v", err)
		}
	}
	if err := s.SetMeta(t.Context(), "late", "v"); !errors.Is(err, ErrClosed) {
		t.Errorf("a change after Close: got %v, want ErrClosed", err)
	}
	s = openFile(t, path)
	for i := range cap(errs) {
		if v, err := s.Meta(t.Context(), fmt.Sprint("key", i)); v != "v" || err != nil {
			t.Errorf("value %d: got %q, %v", i, v, err)
		}
	}
	if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		t.Error("the store is open without its log")
	}
}

// TestWriterChangesItsConnection: a connection that no transaction can begin on any
// more costs one change, not all that follow.
func TestWriterChangesItsConnection(t *testing.T) {
	s := openFile(t, dbPath(t))
	err := s.db.write(t.Context(), func(on tx) error {
		_, err := on.exec("COMMIT")
		if err == nil {
			_, err = on.exec("PRAGMA query_only = 1")
		}
		return err
	})
	if err == nil {
		t.Error("a change that ended its transaction: got no error")
	}
	if err := s.SetMeta(t.Context(), "k", "lost"); err == nil {
		t.Error("on a connection that only reads: got no error")
	}
	if err := s.SetMeta(t.Context(), "k", "v"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestWaitingChangesRespectContexts(t *testing.T) {
	s := openFile(t, dbPath(t))
	release := blockWriter(t, s)
	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("the caller left")
	done := make(chan error)
	go func() { done <- s.SetMeta(ctx, "k", "v") }()
	queued(t, s, 1)
	cancel(left)
	if err := <-done; !errors.Is(err, left) {
		t.Errorf("got %v while the writer was busy, want the cause", err)
	}
	release()
	if v, err := s.Meta(t.Context(), "k"); v != "" || err != nil {
		t.Errorf("an abandoned change was made: got %q, %v", v, err)
	}
}

func BenchmarkAppendAudit(b *testing.B) {
	for _, callers := range []int{1, 16, 128} {
		b.Run(fmt.Sprint(callers, " callers"), func(b *testing.B) {
			s := openFile(b, dbPath(b))
			l, err := audit.New(b.Context(), s, "m", time.Now, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			spread(b, callers, func(int) error {
				_, err := l.Append(b.Context(), sampleRecord())
				return err
			})
		})
	}
}

func sampleRecord() audit.Record {
	return audit.Record{Event: audit.EventDecision, Principal: "arn:aws:sts::111111111111:assumed-role/FrontEndSSHAccess/alice",
		Action: "ssm:StartSession", Decision: "Allowed", Node: "mi-0123456789abcdef0", Document: "SSM-SessionManagerRunShell",
		Resources: []string{"arn:aws:ec2:us-east-1:111111111111:instance/i-060ee0879f3ec4eb7"},
		SourceIP:  "192.0.2.1", UserAgent: "aws-cli/2.13.0 Python/3.11", RequestID: "0b2d8b3a-6f5a-4f57-9a3e-2f1c7a1b9d10"}
}

// BenchmarkSetUp does what a session's start writes: a decision, the row, a token,
// and the start's record.
func BenchmarkSetUp(b *testing.B) {
	for _, callers := range []int{1, 16, 128} {
		b.Run(fmt.Sprint(callers, " callers"), func(b *testing.B) {
			s := openFile(b, dbPath(b))
			l, err := audit.New(b.Context(), s, "m", time.Now, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			spread(b, callers, func(i int) error { return setUp(b.Context(), s, l, i) })
		})
	}
}

func setUp(ctx context.Context, s *Store, l *audit.Log, i int) error {
	if _, err := l.Append(ctx, sampleRecord()); err != nil {
		return err
	}
	id := fmt.Sprint("alice-", i)
	if err := s.CreateSession(ctx, session.Session{ID: id, State: session.StateConnecting, Started: time.Now()}); err != nil {
		return err
	}
	if _, err := s.UseToken(ctx, id, time.Now().Add(time.Minute)); err != nil {
		return err
	}
	_, err := l.Append(ctx, audit.Record{Event: audit.EventSessionStart, Session: id})
	return err
}

// spread runs b.N calls by a number of callers at once and reports calls per second.
func spread(b *testing.B, callers int, call func(i int) error) {
	b.ReportAllocs()
	next := make(chan int)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := range next {
				if err := call(i); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ResetTimer()
	for i := range b.N {
		next <- i
	}
	close(next)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "per-second")
}

func BenchmarkRead(b *testing.B) {
	s := openFile(b, dbPath(b))
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	must(s.CreateUser(b.Context(), identity.User{Name: "alice", ID: "AIDA", Path: "/", Tags: identity.Tags{"Team": "payments"}}))
	must(s.CreateAccessKey(b.Context(), identity.AccessKey{ID: "AKIA", User: "alice", Sealed: make([]byte, 81)}, 2))
	b.Run("AccessKey", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := s.AccessKey(b.Context(), "AKIA")
			must(err)
		}
	})
	b.Run("Revision", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := s.Revision(b.Context())
			must(err)
		}
	})
}
