package index_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"sallyport.dev/index"
	"sallyport.dev/recording"
	"sallyport.dev/session"
	"sallyport.dev/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var started = time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)

// place is a store with recordings, and a clock.
type place struct {
	*store.Store
	t     testing.TB
	mu    sync.Mutex
	now   time.Time
	casts map[string][]byte
	fails error // of AddBlocks
}

func newPlace(t testing.TB) *place {
	t.Helper()
	s, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "s.db"), store.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &place{Store: s, t: t, now: started, casts: map[string][]byte{}}
}

func (p *place) clock() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *place) at(d time.Duration) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = started.Add(d)
	return p.now
}

// AddBlocks implements index.Store, and may fail.
func (p *place) AddBlocks(ctx context.Context, member string, all []index.Addition, now time.Time) ([]int64, error) {
	p.mu.Lock()
	fails := p.fails
	p.mu.Unlock()
	if fails != nil {
		return nil, fails
	}
	return p.Store.AddBlocks(ctx, member, all, now)
}

func (p *place) keeper(member string) *index.Keeper { return p.opening(member, p.open) }

func (p *place) opening(member string, open func(context.Context, string) (io.ReadCloser, error)) *index.Keeper {
	return index.New(index.Config{Store: p, Open: open, Member: member, Now: p.clock, Logger: slog.New(slog.DiscardHandler)})
}

func (p *place) open(_ context.Context, name string) (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cast, ok := p.casts[name]; ok {
		return io.NopCloser(bytes.NewReader(cast)), nil
	}
	return nil, fmt.Errorf("recording %s: %w", name, fs.ErrNotExist)
}

// session begins a session that k follows.
func (p *place) session(k *index.Keeper, id string) (*recording.Writer, *bytes.Buffer) {
	p.t.Helper()
	if err := p.CreateSession(p.t.Context(), session.Session{ID: id, State: session.StateConnected, Started: started, Recording: "rec/" + id}); err != nil {
		p.t.Fatal(err)
	}
	var cast bytes.Buffer
	h := recording.Header{Width: 80, Height: 24, Metadata: recording.Metadata{Session: id, Started: started}}
	w, err := recording.NewWriter(&cast, h)
	if err != nil {
		p.t.Fatal(err)
	}
	if k != nil {
		w.Attach(k.Follow(h))
	}
	return w, &cast
}

// over ends the session's row, as the gateway or its sweeper does, and keeps what there
// is of its recording.
func (p *place) over(id string, cast []byte) {
	p.t.Helper()
	_, err := p.UpdateSession(p.t.Context(), id, func(s *session.Session) error {
		s.State, s.Ended = session.StateTerminated, p.clock()
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.casts["rec/"+id] = cast
}

// lines are those of a session that hold a text, with their times.
func (p *place) lines(id, text string) string {
	p.t.Helper()
	q, err := index.Text(text)
	if err != nil {
		p.t.Fatal(err)
	}
	hits, _, err := index.Hits(p.t.Context(), p, id, q, 100)
	if err != nil {
		p.t.Fatal(err)
	}
	var all []string
	for _, h := range hits {
		all = append(all, fmt.Sprint(h.At, " ", h.Text))
	}
	return strings.Join(all, "; ")
}

// A session's lines can be found while it runs and afterwards.
func TestFollow(t *testing.T) {
	p := newPlace(t)
	k := p.keeper("m")
	w, _ := p.session(k, "alice")
	w.Output(p.at(time.Second), []byte("$ echo hello\r\nhello\r\n$ "))
	passed := time.Second
	await(t, func() bool {
		passed = min(passed+100*time.Millisecond, 15*time.Second)
		p.at(passed)
		return p.lines("alice", "hello") != ""
	})
	if got := p.lines("alice", "hello"); got != "1s $ echo hello; 1s hello" {
		t.Errorf("while it runs: got %q", got)
	}
	w.Output(p.at(20*time.Second), []byte("make\r\ncompiling\r\n"))
	w.Input(p.at(21*time.Second), []byte("hello again\r"))
	w.Close(recording.End{Ended: p.at(22 * time.Second)})
	p.over("alice", nil)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if got := p.lines("alice", "e"); got != "1s $ echo hello; 1s hello; 21s hello again; 20s $ make" {
		t.Errorf("afterwards: got %q", got)
	}
	if left, _ := p.ClaimTranscripts(t.Context(), "x", p.at(time.Hour), p.clock(), 10); len(left) > 0 {
		t.Errorf("%v counts as partial", left)
	}
}

// await waits for what another goroutine does soon.
func await(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

// What a crash cut off, what a store would not take and what was never indexed is made
// of the recordings, and holds what it would have held.
func TestRepair(t *testing.T) {
	p := newPlace(t)
	record := func(w *recording.Writer) {
		w.Output(p.at(time.Second), []byte("$ echo hello\r\nhello\r\n"))
		w.Output(p.at(20*time.Second), []byte("$ more\r\n"))
	}
	// The member dies: its keeper never hears of the end.
	first := p.keeper("m")
	w, cast := p.session(first, "crashed")
	record(w)
	w.Flush()
	first.Close()
	p.over("crashed", cast.Bytes()[:cast.Len()-3])
	// The store fails.
	second := p.keeper("m")
	w, cast = p.session(second, "failed")
	p.fails = errors.New("disk full")
	record(w)
	w.Close(recording.End{Ended: p.clock()})
	second.Close()
	p.fails = nil
	p.over("failed", cast.Bytes())
	// There was no index.
	w, cast = p.session(nil, "before")
	record(w)
	w.Close(recording.End{Ended: p.clock()})
	p.over("before", cast.Bytes())
	// Recordings that are gone, or are none.
	p.session(nil, "deleted")
	p.over("deleted", nil)
	delete(p.casts, "rec/deleted")
	p.session(nil, "spoilt")
	p.over("spoilt", []byte("no recording"))

	p.at(2 * time.Hour)
	k := p.keeper("other")
	await(t, func() bool { return k.Stats().Repaired == 5 })
	k.Close()
	for id, want := range map[string]string{
		"crashed": "1s $ echo hello; 1s hello", "failed": "1s $ echo hello; 1s hello; 20s $ more", "before": "1s $ echo hello; 1s hello; 20s $ more",
		"deleted": "", "spoilt": "",
	} {
		if got := p.lines(id, "e"); got != want && !(id == "crashed" && got == want+"; 20s $ more") {
			t.Errorf("%s: got %q, want %q", id, got, want)
		}
	}
	if err := k.Delete(t.Context(), "before"); err != nil || p.lines("before", "hello") != "" {
		t.Errorf("deleted: got %q, %v", p.lines("before", "hello"), err)
	}
	if left, _ := p.MissingTranscripts(t.Context(), 10); len(left) > 0 {
		t.Errorf("%v would be made again", left)
	}
}

// A recording may lack its end, or be missing, because the member that has it is away: what
// there is can be found, and the rest once the member is back.
func TestRepairOfWhatIsAway(t *testing.T) {
	p := newPlace(t)
	w, cast := p.session(nil, "cut")
	w.Output(p.at(time.Second), []byte("$ echo hello\r\nhello\r\n"))
	w.Flush()
	sent := bytes.Clone(cast.Bytes())
	w.Output(p.at(2*time.Second), []byte("hello again\r\n"))
	w.Close(recording.End{Ended: p.clock()})
	p.over("cut", sent)
	p.session(nil, "missing")
	p.over("missing", nil)
	delete(p.casts, "rec/missing")

	p.at(20 * time.Minute)
	k := p.keeper("m")
	await(t, func() bool { return k.Stats().Repaired == 1 && k.Stats().Failures == 1 })
	k.Close()
	if got := p.lines("cut", "hello"); got != "1s $ echo hello; 1s hello" {
		t.Errorf("while its member is away: got %q", got)
	}
	p.casts["rec/cut"], p.casts["rec/missing"] = cast.Bytes(), cast.Bytes()
	p.at(40 * time.Minute)
	k = p.keeper("m")
	await(t, func() bool { return k.Stats().Repaired == 2 })
	k.Close()
	for _, id := range []string{"cut", "missing"} {
		if got := p.lines(id, "hello"); got != "1s $ echo hello; 1s hello; 2s hello again" {
			t.Errorf("%s, when its member is back: got %q", id, got)
		}
	}
}

// While the store of recordings is away transcripts wait, however long each try takes.
func TestRepairWhileRecordingsAreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		const sessions = 10
		for i := range sessions {
			id := fmt.Sprint("s", i)
			p.session(nil, id)
			p.over(id, nil)
			if _, err := p.CreateTranscript(t.Context(), id, "m", index.Partial, started); err != nil {
				t.Fatal(err)
			}
		}
		p.at(2 * time.Hour)
		var tries atomic.Int64
		k := p.opening("m", func(ctx context.Context, _ string) (io.ReadCloser, error) {
			p.at(p.clock().Sub(started) + time.Minute)
			if tries.Add(1) > 2*sessions {
				<-ctx.Done()
			}
			return nil, errors.New("the store is away")
		})
		synctest.Wait()
		if got := tries.Load(); got != sessions {
			t.Errorf("got %d tries at once, want %d", got, sessions)
		}
		k.Close()
	})
}

// A session may be over before its follower has read all of it. What the follower adds and
// says then is not taken for what is to be made of the recording.
func TestRepairOfWhatIsStillFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		var away atomic.Bool
		k := p.opening("m", func(ctx context.Context, name string) (io.ReadCloser, error) {
			if away.Load() {
				return nil, errors.New("the store is away")
			}
			return p.open(ctx, name)
		})
		pass := func(d time.Duration) {
			for range 4 { // told, its block ended and written
				p.at(p.clock().Sub(started) + d)
				time.Sleep(time.Second)
			}
		}
		w, cast := p.session(k, "alice")
		w.Output(p.at(time.Second), []byte("hello\r\n"))
		pass(10 * time.Second)
		p.over("alice", nil)
		away.Store(true)
		p.at(2 * time.Hour)
		time.Sleep(2 * time.Minute)
		if p.lines("alice", "hello") != "" {
			t.Fatal("the transcript was not claimed")
		}
		w.Output(p.at(2*time.Hour+time.Minute), []byte("bye\r\n"))
		w.Close(recording.End{Ended: p.clock()})
		pass(10 * time.Second)
		p.over("alice", cast.Bytes())
		away.Store(false)
		p.at(6 * time.Hour)
		time.Sleep(2 * time.Minute)
		k.Close()
		if got := p.lines("alice", "e"); got != "1s hello; 2h1m0s bye" {
			t.Errorf("got %q", got)
		}
	})
}

// Sessions that flood the index cost bounded memory, and none waits.
func TestFlood(t *testing.T) {
	p := newPlace(t)
	k := p.keeper("m")
	var writers []*recording.Writer
	for i := range 100 {
		w, _ := p.session(k, fmt.Sprint("s", i))
		writers = append(writers, w)
	}
	flood := bytes.Repeat([]byte("no end of this in sight\r\n"), 300)
	for range 100 { // 73 MB
		for _, w := range writers {
			w.Output(started, flood)
		}
	}
	if got := k.Stats().Queued; got > 33<<20 {
		t.Errorf("%d bytes wait", got)
	}
	for i, w := range writers {
		w.Close(recording.End{Ended: started})
		p.over(fmt.Sprint("s", i), nil)
	}
	p.mu.Lock()
	p.fails = index.ErrGone // all deleted; this test is not of the store
	p.mu.Unlock()
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if got := k.Stats(); got.Queued != 0 || got.Partial == 0 {
		t.Errorf("got %+v", got)
	}
}

// hanging is a store that does not answer.
type hanging struct{ index.Store }

func (hanging) CreateTranscript(ctx context.Context, _, _ string, _ index.State, _ time.Time) (int64, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// Closing is not held up by a store that does not answer, however many sessions there are.
func TestCloseWhileTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		k := index.New(index.Config{Store: hanging{p}, Open: p.open, Member: "m", Now: p.clock, Logger: slog.New(slog.DiscardHandler)})
		for i := range 20 {
			p.session(k, fmt.Sprint("s", i))
		}
		began := time.Now()
		k.Close()
		if took := time.Since(began); took > 11*time.Second {
			t.Errorf("it took %s, want about one write's time", took)
		}
	})
}

// A session that is idle is visited no more, and the next event wakes it.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		k := p.keeper("m")
		w, _ := p.session(k, "alice")
		for i := range 5 {
			w.Output(p.at(time.Duration(i)*time.Minute), []byte(fmt.Sprintf("line %d\r\n$ ", i)))
			for range 3 { // told, kept, and left alone
				time.Sleep(time.Second)
				p.at(p.clock().Sub(started) + 10*time.Second)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if n := k.Active(); n != 0 {
				t.Errorf("%d sessions are visited while all are idle", n)
			}
		}
		k.Close()
		if got := strings.Count(p.lines("alice", "line "), "line"); got != 5 {
			t.Errorf("got %s", p.lines("alice", "line "))
		}
	})
}
