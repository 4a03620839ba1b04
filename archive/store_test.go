package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"

	"sallyport.dev/recording"
)

// fault is what the store does to a call.
type fault int32

const (
	works   fault = iota
	away          // it answers nothing
	fails         // it refuses, without having done anything
	forgets       // it has done what was asked, and answers with an error
	wavers        // any of these, or none
)

// s3server is a real S3 server, which can be made to fail.
type s3server struct {
	url   string
	mode  atomic.Int32
	slow  atomic.Int64 // nanoseconds that each write takes
	calls atomic.Int64
}

func newS3(t testing.TB) *s3server {
	t.Helper()
	backend := s3mem.New()
	must(t, backend.CreateBucket("recordings"))
	real := gofakes3.New(backend).Server()
	s := &s3server{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		mode := fault(s.mode.Load())
		if mode == wavers {
			mode = []fault{works, works, away, fails, forgets}[rand.N(5)]
		}
		if r.Method == http.MethodPut {
			time.Sleep(time.Duration(s.slow.Load()))
		}
		switch mode {
		case works:
			real.ServeHTTP(w, r)
		case away:
			panic(http.ErrAbortHandler)
		case forgets:
			real.ServeHTTP(httptest.NewRecorder(), r)
			http.Error(w, "", http.StatusInternalServerError)
		default:
			http.Error(w, "", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *s3server) set(f fault) { s.mode.Store(int32(f)) }

func (s *s3server) bucket(t testing.TB) *blob.Bucket {
	t.Helper()
	client := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: &s.url, UsePathStyle: true, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	}, func(o *s3.Options) { o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired })
	b, err := s3blob.OpenBucket(t.Context(), client, "recordings", nil)
	must(t, err)
	return b
}

// with makes a system whose store is the server.
func (s *s3server) with(t testing.TB, change ...func(*Config)) *system {
	sys := newSystem(t, change...)
	sys.s3 = s
	sys.bucket = s.bucket(t)
	return sys
}

// everyone records n sessions at once and returns their recordings.
func everyone(t testing.TB, a *Archive, n int) []*Recording {
	t.Helper()
	all := make([]*Recording, n)
	for i := range all {
		all[i] = create(t, a, fmt.Sprint("s", i))
	}
	return all
}

// showAll has each recording take down lines, side by side.
func showAll(t testing.TB, all []*Recording, from, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for _, r := range all {
		wg.Go(func() {
			for i := from; i < from+n; i++ {
				err := r.Output(start.Add(time.Duration(i)*time.Second), []byte(lines(i, 1)))
				if err := errors.Join(err, r.Flush()); err != nil {
					t.Errorf("%s: %v", r.Name, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// The store is away while a hundred sessions go on, begin and end: nobody notices, and
// nothing is missing, or there twice, afterwards.
func TestStoreAway(t *testing.T) {
	store := newS3(t)
	a := store.with(t, func(c *Config) { c.ChunkSize, c.ChunkInterval = 1500, 50*time.Millisecond }).open()
	all := everyone(t, a, 50)
	showAll(t, all, 0, 20)
	store.set(away)
	showAll(t, all, 20, 20)
	all = append(all, create(t, a, "late"))
	showAll(t, all[50:], 0, 40)
	for _, r := range all[:10] {
		showAll(t, []*Recording{r}, 40, 20)
		end(t, r)
	}
	eventually(t, "the store to be missed", func() bool { return a.Stats().StoreErrors > 3 })
	if s := a.Stats(); s.StoreError == "" || s.SpoolBytes == 0 || s.Lag < 0 {
		t.Errorf("got %+v", s)
	}
	if text, _ := shown(t, mustRead(t, a, all[50].Name)); text != lines(0, 40) {
		t.Errorf("what is in the spool cannot be read: got %d bytes", len(text))
	}
	store.set(works)
	showAll(t, all[10:50], 40, 20)
	showAll(t, all[50:], 40, 20)
	for _, r := range all[10:] {
		end(t, r)
	}
	waitStored(t, a)
	for _, r := range all {
		checkWhole(t, a, r.Name, lines(0, 60))
	}
	if s := a.Stats(); s.StoreError != "" || s.SpoolBytes != 0 {
		t.Errorf("got %+v, want an empty spool and no error", s)
	}
}

// Who reads is told whether it is the store or the key that keeps them from it.
func TestUnreadable(t *testing.T) {
	store := newS3(t)
	keeper := &strangerKeeper{}
	s := store.with(t, func(c *Config) { keeper.Keeper, c.Keeper = c.Keeper, keeper })
	a := s.open()
	r := create(t, a, "one")
	end(t, r)
	waitStored(t, a)
	name := r.Name
	keeper.strange.Store(true)
	key := (*KeyError)(nil)
	_, err := a.Verify(t.Context(), name)
	if !errors.As(err, &key) || key.ID != keeper.ID() || !errors.Is(err, ErrUnknownKey) || errors.Is(err, ErrStore) {
		t.Errorf("unknown key: got %v, want a KeyError of it", err)
	}
	store.set(away)
	if _, err := a.Open(t.Context(), name); !errors.Is(err, ErrStore) {
		t.Errorf("store away: got %v, want ErrStore", err)
	}
	if _, err := a.Verify(t.Context(), name); !errors.Is(err, ErrStore) {
		t.Errorf("store away: got %v, want ErrStore", err)
	}
	store.set(works)
}

// strangerKeeper knows no key any more at times.
type strangerKeeper struct {
	Keeper
	strange atomic.Bool
}

func (k *strangerKeeper) Unwrap(ctx context.Context, id string, wrapped []byte) ([]byte, error) {
	if k.strange.Load() {
		return nil, fmt.Errorf("%w: %q", ErrUnknownKey, id)
	}
	return k.Keeper.Unwrap(ctx, id, wrapped)
}

// checkWhole wants a recording to be good, and to show exactly the text.
func checkWhole(t testing.TB, a *Archive, name, want string) {
	t.Helper()
	if text, end := shown(t, mustRead(t, a, name)); text != want || end == nil {
		t.Errorf("%s: got %d bytes and the end %v, want %d", name, len(text), end, len(want))
	}
	report, err := a.Verify(context.Background(), name)
	if err != nil || len(report.Damage) > 0 {
		t.Errorf("%s: got %v, %v", name, report.Damage, err)
	}
}

// A store that fails as it likes, loses its answers or is slow makes no holes and no
// duplicates.
func TestStoreFails(t *testing.T) {
	for name, f := range map[string]fault{"wavers": wavers, "forgets": forgets, "fails": fails} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newS3(t)
			store.slow.Store(int64(2 * time.Millisecond))
			a := store.with(t, func(c *Config) { c.ChunkSize = 2000 }).open()
			store.set(f)
			all := everyone(t, a, 10)
			showAll(t, all, 0, 60)
			for _, r := range all {
				end(t, r)
			}
			eventually(t, "some errors", func() bool { return a.Stats().StoreErrors > 10 })
			if f == wavers {
				eventually(t, "some luck", func() bool { return a.Stats().Stored > 30 })
			}
			store.set(works)
			waitStored(t, a)
			for _, r := range all {
				checkWhole(t, a, r.Name, lines(0, 60))
			}
		})
	}
}

// A database that is away for a while is ridden out as the store is.
func TestRowsAway(t *testing.T) {
	s := newSystem(t)
	s.rows.err = errors.New("the database is away")
	a := s.open()
	r := create(t, a, "alice-1")
	show(t, r, 0, 3)
	end(t, r)
	eventually(t, "the database to be missed", func() bool {
		s.rows.mu.Lock()
		defer s.rows.mu.Unlock()
		return s.rows.failed > 0
	})
	s.rows.mu.Lock()
	s.rows.err = nil
	s.rows.mu.Unlock()
	waitStored(t, a)
	checkWhole(t, a, r.Name, lines(0, 3))
	if row, err := s.rows.Recording(t.Context(), r.Name); err != nil || row.State != Stored || row.SHA256 == "" {
		t.Errorf("got %+v, %v", row, err)
	}
}

// What was finished late is told of once, though its row cannot be changed right after.
func TestToldOnce(t *testing.T) {
	var told atomic.Int32
	s := newSystem(t)
	setRows := func(err error) {
		s.rows.mu.Lock()
		defer s.rows.mu.Unlock()
		s.rows.err = err
	}
	s.cfg.Finished = func(context.Context, Manifest) error {
		told.Add(1)
		setRows(errors.New("the database is away"))
		return nil
	}
	s.cfg.Ended = func(context.Context, string) (recording.End, bool) {
		return recording.End{Reason: "terminated", Ended: start.Add(time.Minute)}, true
	}
	a := s.open()
	show(t, create(t, a, "alice-1"), 0, 3)
	kill(a)
	a = s.open()
	eventually(t, "the row to be tried", func() bool {
		s.rows.mu.Lock()
		defer s.rows.mu.Unlock()
		return s.rows.failed > 0
	})
	setRows(nil)
	waitStored(t, a)
	if n := told.Load(); n != 1 {
		t.Errorf("told %d times, want once", n)
	}
}

// fill records until the spool has a number of bytes.
func fill(t *testing.T, a *Archive, r *Recording, bytes int64) {
	t.Helper()
	noise := make([]byte, 4000)
	for i := 0; a.Stats().SpoolBytes < bytes; i++ {
		for k := range noise {
			noise[k] = ' ' + byte(rand.N(94))
		}
		err := r.Output(start.Add(time.Duration(i)*time.Second), noise)
		if err := errors.Join(err, r.Flush()); err != nil {
			t.Fatalf("with %d bytes in the spool: %v", a.Stats().SpoolBytes, err)
		}
	}
}

// A spool at its limit refuses new recordings with the reason, and lets live ones go on up to
// the hard limit, where they end, and are whole all the same.
func TestSpoolFullRefuses(t *testing.T) {
	store := newS3(t)
	store.set(fails)
	a := store.with(t, func(c *Config) { c.SpoolLimit, c.HardLimit = 100_000, 200_000 }).open()
	r, idle := create(t, a, "alice-1"), create(t, a, "alice-2")
	fill(t, a, r, 100_000)
	eventually(t, "the store's error", func() bool { return a.Stats().StoreError != "" })
	_, err := a.Create(t.Context(), header("alice-3"))
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), a.cfg.Spool) || !strings.Contains(err.Error(), "503") {
		t.Errorf("got %v, want ErrFull that names the spool and the store's error", err)
	}
	if err := a.Ready(); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want not to be ready", err)
	}
	if r.Err() != nil || idle.Err() != nil {
		t.Errorf("got %v and %v, want live recordings to go on", r.Err(), idle.Err())
	}
	fill(t, a, r, 200_000)
	if err := idle.Err(); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want an idle recording to end at the hard limit", err)
	}
	err = r.Output(start.Add(time.Hour), bytes.Repeat([]byte("x"), 20<<10))
	if !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull at the hard limit", err)
	}
	for _, r := range []*Recording{r, idle} {
		if _, err := r.Close(recording.End{Reason: "recording-lost", Ended: start.Add(2 * time.Hour)}); err != nil && !errors.Is(err, ErrFull) {
			t.Errorf("got %v, want the end to be recorded", err)
		}
	}
	store.set(works)
	waitStored(t, a)
	for _, r := range []*Recording{r, idle} {
		_, end := shown(t, mustRead(t, a, r.Name))
		report, err := a.Verify(t.Context(), r.Name)
		if end == nil || end.Reason != "recording-lost" || err != nil || len(report.Damage) > 0 {
			t.Errorf("got the end %+v and %+v, %v", end, report, err)
		}
	}
	if r, err := a.Create(t.Context(), header("alice-4")); err != nil {
		t.Errorf("got %v, want room again", err)
	} else {
		end(t, r)
	}
}

// With WhenFull End, live recordings end at the limit, those that show nothing too.
func TestSpoolFullEnds(t *testing.T) {
	store := newS3(t)
	store.set(fails)
	a := store.with(t, func(c *Config) { c.SpoolLimit, c.WhenFull = 100_000, End }).open()
	r, idle := create(t, a, "alice-1"), create(t, a, "alice-2")
	fill(t, a, r, 100_000)
	if err := idle.Err(); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if _, err := a.Create(t.Context(), header("alice-3")); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
}

// A disk that takes nothing more ends the recording; what was shown until then is finished
// when there is room again, and told of.
func TestDiskFull(t *testing.T) {
	var told atomic.Int32
	s := newSystem(t, func(c *Config) {
		c.ChunkInterval = 40 * time.Millisecond
		c.Finished = func(context.Context, Manifest) error { told.Add(1); return nil }
	})
	a := s.open()
	r := create(t, a, "alice-1")
	show(t, r, 0, 5)
	eventually(t, "the first chunk", func() bool { return a.Stats().Stored >= 2 })
	// A folder in the chunk's place is as good as a disk without room.
	in := filepath.Join(s.cfg.Spool, r.Name, chunkName(2))
	must(t, os.Mkdir(in, 0o700))
	must(t, r.Output(start.Add(5*time.Second), []byte(lines(5, 1))))
	if err := r.Flush(); err == nil {
		t.Fatal("got no error, want that of the disk")
	}
	if err := r.Output(start.Add(6*time.Second), []byte("not shown")); err == nil || r.Err() == nil {
		t.Errorf("got %v and %v, want errors", err, r.Err())
	}
	sum, err := r.Close(recording.End{Reason: "recording-lost", Ended: start.Add(time.Hour)})
	if err == nil || sum.SHA256 != "" {
		t.Errorf("got %+v, %v, want an error and no digest", sum, err)
	}
	must(t, os.Remove(in))
	waitStored(t, a)
	checkWhole(t, a, r.Name, lines(0, 6))
	if told.Load() != 1 {
		t.Errorf("told %d times, want once", told.Load())
	}
}

// An object that is in the store already, from an upload whose answer was lost before the
// process was killed, is written again, and the recording is good.
func TestSentTwice(t *testing.T) {
	store := newS3(t)
	s := store.with(t, func(c *Config) { c.ChunkSize = 1000 })
	a := s.open()
	r := create(t, a, "alice-1")
	store.set(forgets)
	show(t, r, 0, 30)
	eventually(t, "uploads", func() bool { return a.Stats().StoreErrors > 2 })
	kill(a)
	store.set(works)
	a = s.open()
	waitStored(t, a)
	checkWhole(t, a, r.Name, lines(0, 30))
}

// Lag is how long the oldest object has waited, also where the store takes one after the other,
// slowly.
func TestLag(t *testing.T) {
	var later atomic.Int64
	store := newS3(t)
	store.set(away)
	a := store.with(t, func(c *Config) {
		c.ChunkSize = 1000
		c.Now = func() time.Time { return start.Add(time.Duration(later.Load())) }
	}).open()
	r := create(t, a, "alice-1")
	show(t, r, 0, 40)
	later.Store(int64(time.Hour))
	show(t, r, 40, 40)
	want := func(want time.Duration) {
		t.Helper()
		if got := a.Stats().Lag; got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	a.mu.Lock()
	p := a.parcels[r.Name]
	a.mu.Unlock()
	want(time.Hour)
	must(t, a.sent(p)) // the key
	want(time.Hour)
	a.mu.Lock()
	p.todo = nil
	a.mu.Unlock()
	want(0)
}
