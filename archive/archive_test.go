package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gocloud.dev/blob"

	"sallyport.dev/archive/bucket"
	"sallyport.dev/recording"
)

var start = time.Date(2026, 11, 20, 9, 22, 1, 0, time.UTC)

// rows keeps rows in memory. Those of package store pass the suite of storetest.
type rows struct {
	mu     sync.Mutex
	rows   map[string]Row
	err    error
	failed int // calls
}

func (r *rows) PutRecording(_ context.Context, row Row) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		r.failed++
		return r.err
	}
	if _, ok := r.rows[row.Name]; !ok {
		r.rows[row.Name] = row
	}
	return nil
}

func (r *rows) Recording(_ context.Context, name string) (Row, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	row, ok := r.rows[name]
	if !ok {
		return row, recording.ErrNotFound
	}
	return row, nil
}

func (r *rows) UpdateRecording(_ context.Context, name string, change func(*Row) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	row := r.rows[name]
	if r.err != nil {
		r.failed++
		return r.err
	}
	if err := change(&row); err != nil {
		return err
	}
	r.rows[name] = row
	return nil
}

// bench is an archive under test, whose parts can be used again by the next one.
type system struct {
	t      testing.TB
	cfg    Config
	bucket *blob.Bucket // for looking at the store beside the archive
	store  string       // its folder
	s3     *s3server    // the store instead of the folder, if there is one
	rows   *rows
}

func newSystem(t testing.TB, change ...func(*Config)) *system {
	t.Helper()
	keeper, err := KeyFile(filepath.Join(t.TempDir(), "recordings.key"))
	if err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, rows: &rows{rows: map[string]Row{}}, store: t.TempDir()}
	s.bucket = folder(t, s.store)
	s.cfg = Config{
		Keeper: keeper, Rows: s.rows, Logger: slog.New(slog.DiscardHandler), Member: "one",
		Spool: filepath.Join(t.TempDir(), "spool"), ChunkInterval: time.Hour,
	}
	for _, c := range change {
		c(&s.cfg)
	}
	return s
}

func folder(t testing.TB, dir string) *blob.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), bucket.Config{URL: dir})
	must(t, err)
	return b.Bucket
}

// awayKeeper is a key service that cannot be reached at times.
type awayKeeper struct {
	Keeper
	away atomic.Bool
}

var errAway = errors.New("the key service is away")

func (k *awayKeeper) Wrap(ctx context.Context, key []byte) ([]byte, error) {
	if k.away.Load() {
		return nil, errAway
	}
	return k.Keeper.Wrap(ctx, key)
}

func (k *awayKeeper) Unwrap(ctx context.Context, id string, wrapped []byte) ([]byte, error) {
	if k.away.Load() {
		return nil, errAway
	}
	return k.Keeper.Unwrap(ctx, id, wrapped)
}

// open opens the archive; it is closed when the test ends, if not before.
func (s *system) open() *Archive {
	s.t.Helper()
	cfg := s.cfg
	switch {
	case s.s3 != nil:
		cfg.Bucket = s.s3.bucket(s.t)
	default:
		cfg.Bucket = folder(s.t, s.store)
	}
	a, err := Open(s.t.Context(), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { closeNow(s.t, a) })
	return a
}

func closeNow(t testing.TB, a *Archive) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := a.Close(ctx); err != nil {
		t.Errorf("closing the archive: %v", err)
	}
}

// kill stops an archive as SIGKILL does: nothing is finished, nothing written any more.
func kill(a *Archive) {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.wg.Wait()
	a.spool.close()
}

func header(session string) recording.Header {
	return recording.Header{
		Width: 80, Height: 24, Title: "alice on web-1",
		Metadata: recording.Metadata{
			Session: session, Principal: "arn:aws:iam::111111111111:user/alice", Node: "mi-1", NodeName: "web-1",
			Document: "SSM-SessionManagerRunShell", Reason: "a secret reason", Started: start,
		},
	}
}

func create(t testing.TB, a *Archive, session string) *Recording {
	t.Helper()
	r, err := a.Create(t.Context(), header(session))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// show records n lines of output, flushed one by one, beginning with number from.
func show(t testing.TB, r *Recording, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		must(t, r.Output(start.Add(time.Duration(i)*time.Second), fmt.Appendf(nil, "line %06d %s\r\n", i, strings.Repeat("x", 40))))
		must(t, r.Flush())
	}
}

func end(t testing.TB, r *Recording) recording.Summary {
	t.Helper()
	s, err := r.Close(recording.End{Reason: "exit", Ended: start.Add(time.Hour)})
	must(t, err)
	return s
}

// readAll reads a recording in pieces of a size.
func readAll(t testing.TB, a *Archive, name string, piece int) ([]byte, error) {
	t.Helper()
	var all []byte
	for {
		r, err := a.Open(t.Context(), name)
		if err != nil {
			return all, err
		}
		b := make([]byte, piece)
		n, err := r.ReadAt(b, int64(len(all)))
		r.Close()
		all = append(all, b[:n]...)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

func mustRead(t testing.TB, a *Archive, name string) []byte {
	t.Helper()
	b, err := readAll(t, a, name, 512<<10)
	must(t, err)
	return b
}

// shown is what the recording showed.
func shown(t testing.TB, cast []byte) (text string, last *recording.End) {
	t.Helper()
	r, err := recording.NewReader(bytes.NewReader(cast))
	must(t, err)
	for {
		e, err := r.Next()
		if err == io.EOF {
			return text, r.End()
		}
		must(t, err)
		if e.Kind == recording.KindOutput {
			text += e.Data
		}
	}
}

// waitStored waits until the store has the recording whole.
func waitStored(t testing.TB, a *Archive) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); a.Stats().Waiting > 0; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for the store to have everything: %+v", a.Stats())
		}
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}

// lines is what show shows.
func lines(from, n int) string {
	var b strings.Builder
	for i := from; i < from+n; i++ {
		fmt.Fprintf(&b, "line %06d %s\r\n", i, strings.Repeat("x", 40))
	}
	return b.String()
}

// A recording is read back as it was recorded: while it is written, while the store has it
// in part, when the store has it all, and by the next run.
func TestRoundTrip(t *testing.T) {
	s := newSystem(t, func(c *Config) { c.ChunkSize = 2000 })
	a := s.open()
	r := create(t, a, "alice-1")
	if r.Name != "2026/11/20/alice-1" {
		t.Errorf("got the name %q", r.Name)
	}
	for n := range 10 {
		show(t, r, n*10, 10)
		text, last := shown(t, mustRead(t, a, r.Name))
		if want := lines(0, n*10+10); text != want || last != nil {
			t.Fatalf("after %d lines: got %d bytes and end %v, want %d bytes", n*10+10, len(text), last, len(want))
		}
	}
	summary := end(t, r)
	for range 2 {
		cast := mustRead(t, a, r.Name)
		text, last := shown(t, cast)
		if text != lines(0, 100) || last == nil || last.Reason != "exit" {
			t.Fatalf("got %d bytes and end %v", len(text), last)
		}
		if summary.SHA256 != sum(cast) || summary.Size != int64(len(cast)) {
			t.Errorf("got %+v, want the digest %s of %d bytes", summary, sum(cast), len(cast))
		}
		waitStored(t, a)
	}
	row, err := s.rows.Recording(t.Context(), r.Name)
	must(t, err)
	want := Row{
		Name: r.Name, Session: "alice-1", Node: "mi-1", NodeName: "web-1", Principal: "arn:aws:iam::111111111111:user/alice",
		Document: "SSM-SessionManagerRunShell", Member: "one", Started: start, Ended: start.Add(time.Hour), EndReason: "exit",
		State: Stored, Size: summary.Size, SHA256: summary.SHA256, Manifest: summary.Manifest, KeyID: s.cfg.Keeper.ID(),
	}
	if diff := cmp.Diff(want, row); diff != "" {
		t.Errorf("row (-want +got)\n%s", diff)
	}
	if left, err := a.spool.names(); err != nil || len(left) > 0 || a.spool.bytes.Load() != 0 {
		t.Errorf("got %v and %d bytes left in the spool (%v), want nothing", left, a.spool.bytes.Load(), err)
	}
	closeNow(t, a)
	a = s.open()
	if text, _ := shown(t, mustRead(t, a, r.Name)); text != lines(0, 100) {
		t.Errorf("the next run: got %d bytes", len(text))
	}
	digest, size, manifest, err := a.Digest(t.Context(), r.Name)
	if err != nil || digest != summary.SHA256 || size != summary.Size || manifest != summary.Manifest {
		t.Errorf("got %s %d %s %v, want %+v", digest, size, manifest, err, summary)
	}
	report, err := a.Verify(t.Context(), r.Name)
	if err != nil || len(report.Damage) > 0 || report.Manifest.SHA256 != summary.SHA256 {
		t.Errorf("got %+v, %v, want a good report", report, err)
	}
}

// Any piece at any offset is the same bytes.
func TestReadAt(t *testing.T) {
	s := newSystem(t, func(c *Config) { c.ChunkSize = 1500 })
	a := s.open()
	r := create(t, a, "alice-1")
	show(t, r, 0, 60)
	end(t, r)
	waitStored(t, a)
	cast := mustRead(t, a, r.Name)
	got, err := a.Open(t.Context(), r.Name)
	must(t, err)
	defer got.Close()
	if got.Size() != int64(len(cast)) {
		t.Errorf("got size %d, want %d", got.Size(), len(cast))
	}
	for _, off := range []int{0, 1, 700, len(cast) / 2, len(cast) - 1, 3, len(cast) - 2000} {
		for _, n := range []int{1, 100, 1999} {
			b := make([]byte, n)
			n, err := got.ReadAt(b, int64(off))
			if want := cast[off:min(len(cast), off+len(b))]; !bytes.Equal(b[:n], want) || (err == io.EOF) != (n < len(b)) {
				t.Errorf("%d bytes at %d: got %d bytes, %v", len(b), off, n, err)
			}
		}
	}
	if n, err := got.ReadAt(make([]byte, 10), int64(len(cast))+5); n != 0 || err != io.EOF {
		t.Errorf("past the end: got %d, %v", n, err)
	}
	if _, err := got.ReadAt(make([]byte, 10), -1); err == nil || err == io.EOF {
		t.Errorf("before the beginning: got %v", err)
	}
}

// What was shown, and why, is nowhere in plain text, and only the owner can read the files.
func TestNothingPlainOnDisk(t *testing.T) {
	s := newSystem(t)
	s.cfg.ChunkSize = 1000
	a := s.open()
	stored := create(t, a, "alice-1")
	must(t, stored.Output(start, []byte("the password is hunter2\r\n")))
	must(t, stored.Flush())
	end(t, stored)
	waitStored(t, a)
	open := create(t, a, "alice-2")
	must(t, open.Output(start, []byte("the password is hunter2\r\n")))
	must(t, open.Flush())
	check := func(where string, b []byte) {
		for _, secret := range []string{"hunter2", "password", "a secret reason", "alice on web-1"} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds %q", where, secret)
			}
		}
	}
	files := 0
	for _, dir := range []string{s.cfg.Spool, s.store} {
		must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			must(t, err)
			info, err := d.Info()
			must(t, err)
			if path == s.store {
				return nil
			}
			if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; info.Mode().Perm() != want {
				t.Errorf("%s: got mode %v, want %v", path, info.Mode().Perm(), want)
			}
			if !d.IsDir() {
				b, err := os.ReadFile(path)
				must(t, err)
				check(path, b)
				files++
			}
			return nil
		}))
	}
	if files < 7 {
		t.Errorf("looked at %d files only", files)
	}
}

// Sessions' recordings have names that stay inside, and never replace each other.
func TestNames(t *testing.T) {
	a := newSystem(t).open()
	for _, session := range []string{"", "../x", "a/b", ".hidden", "a\x00", strings.Repeat("x", 129), "a b"} {
		h := header(session)
		if _, err := a.Create(t.Context(), h); !errors.Is(err, recording.ErrName) {
			t.Errorf("session %q: got %v, want ErrName", session, err)
		}
	}
	for _, name := range []string{"", ".", "../x", "2026/11/20/../x", "2026/11/20", "2026/11/20/", "2026/1/2/x", "/2026/11/20/x", "2026/11/20/a/b", "2026/11/20/.x"} {
		if _, err := a.Open(t.Context(), name); !errors.Is(err, recording.ErrName) {
			t.Errorf("%q: got %v, want ErrName", name, err)
		}
	}
	if _, err := a.Open(t.Context(), "2026/11/20/none"); !errors.Is(err, recording.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	create(t, a, "alice-1")
	if _, err := a.Create(t.Context(), header("alice-1")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want an error: there is a recording of the name", err)
	}
}

// Two processes do not share a spool.
func TestSpoolLocked(t *testing.T) {
	s := newSystem(t)
	s.open()
	cfg := s.cfg
	cfg.Bucket = s.bucket
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("got %v, want an error: the spool is taken", err)
	}
}
