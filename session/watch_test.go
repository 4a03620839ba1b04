package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/audit"
	"sallyport.dev/recording"
	"sallyport.dev/wire"
)

// tape is a recording in memory, as recordings are: with a writer that can be followed.
type tape struct {
	*recording.Writer
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *tape) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *tape) bytes() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.b.Bytes())
}

// watched makes a member record for real.
func watched(t *testing.T) (*tape, func(*Config)) {
	p := &tape{}
	return p, func(c *Config) {
		c.Record = func(_ context.Context, s Session, _ Options) (Recorder, string, error) {
			var err error
			p.Writer, err = recording.NewWriter(p, recording.Header{Width: 80, Height: 24, Metadata: recording.Metadata{Started: s.Started}})
			return p.Writer, "rec", err
		}
	}
}

var (
	bob   = Watcher{ARN: "arn:aws:iam::111111111111:user/bob", ID: "AIDABOB", Name: "bob"}
	carol = Watcher{ARN: "arn:aws:iam::111111111111:user/carol", ID: "AIDACAROL", Name: "carol"}
)

// spectator asks as a client does.
type spectator struct {
	t    *testing.T
	g    *Gateway
	id   string // of the session
	who  Watcher
	seen []byte // of the recording, from where it began
	at   int64
	last WatchPiece
}

func (w *world) spectator(id string, who Watcher, notice bool) *spectator {
	w.t.Helper()
	p, err := w.g.Watch(w.t.Context(), id, WatchRequest{Watcher: who, Notice: notice})
	if err != nil {
		w.t.Fatal(err)
	}
	if p.Watch == "" || len(p.Data) > 0 {
		w.t.Errorf("begun with %+v, want a watch and nothing yet", p)
	}
	return &spectator{t: w.t.(*testing.T), g: w.g, id: id, who: who, at: p.Begin, last: p}
}

func (s *spectator) ask() error {
	p, err := s.g.Watch(s.t.Context(), s.id, WatchRequest{Watch: s.last.Watch, Watcher: s.who, Offset: s.at})
	if err == nil {
		s.seen = append(s.seen, p.Data...)
		s.at += int64(len(p.Data))
		s.last = p
	}
	return err
}

// sees asks until the watcher has seen a text.
func (s *spectator) sees(text string) {
	s.t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(string(s.seen), text); {
		if err := s.ask(); err != nil || time.Now().After(end) {
			s.t.Fatalf("%s has seen %q, %v; want %q in it", s.who.Name, s.seen, err, text)
		}
	}
}

func (s *spectator) leave() {
	if _, err := s.g.Watch(s.t.Context(), s.id, WatchRequest{Watch: s.last.Watch, Watcher: s.who, Leave: "the watcher left"}); err != nil {
		s.t.Error(err)
	}
}

// watches are the audit records of watching a session, without what differs.
func (m *memory) watches(session string) (all []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.records {
		if r.Event == audit.EventWatch && r.Session == session {
			all = append(all, r.Principal[strings.LastIndexByte(r.Principal, '/')+1:]+" "+r.Reason)
		}
	}
	return all
}

// A watcher gets the recording, byte by byte as it is, from where they began to its end.
func TestWatch(t *testing.T) {
	rec, tune := watched(t)
	w := newWorld(t, tune)
	a, id, agent, client := w.pair()
	client.send(wire.PayloadSize, `{"cols":100,"rows":30}`)
	agent.say("before ")
	client.wantText("output", "before ")
	s := w.spectator(id, bob, false)
	if !bytes.Contains(rec.bytes(), []byte("before ")) {
		t.Error("what was recorded before is not in the recording, where watchers read it")
	}
	began := s.at
	agent.say("during ")
	s.sees("during ")
	if s.last.Columns != 100 || s.last.Rows != 30 {
		t.Errorf("size: got %dx%d, want 100x30", s.last.Columns, s.last.Rows)
	}
	a.complete(id, "Success", "", nil)
	agent.cut()
	client.wantGoodbye("")
	for !s.last.Over {
		if err := s.ask(); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := string(s.seen), string(rec.bytes()[began:]); got != want {
		t.Errorf("seen: got %q, want %q", got, want)
	}
	if !strings.Contains(string(s.seen), `"e", `) || s.last.Reason != ReasonExit {
		t.Errorf("end: got %+v", s.last)
	}
	eventually(t, "the watch ends with its session", func() bool {
		return cmp.Equal([]string{"bob began", "bob ended: the session ended"}, w.store.watches(id))
	})
	if _, err := w.g.Watch(t.Context(), id, WatchRequest{Watcher: carol}); !errors.Is(err, ErrEnded) {
		t.Errorf("a session that has ended: got %v, want ErrEnded", err)
	}
	if got := w.g.watches.Load(); got != 0 {
		t.Errorf("%d watches are counted, want none: a refused one keeps no place", got)
	}
}

// From another member it is the same.
func TestWatchThroughAnotherMember(t *testing.T) {
	store, b := newMemory(), newBus()
	b.setMembers(Member{ID: "m1", URL: "http://m1"}, Member{ID: "m2", URL: "http://m2"})
	_, tune := watched(t)
	first, second := newMember(t, store, b, "m1"), newMember(t, store, b, "m2", tune)
	a := second.agent(testNode)
	id, token := first.started(a)
	agent := a.open(id)
	client := second.client(id, token)
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	s := first.spectator(id, bob, true)
	client.wantText("notice", "$ \r\n[sallyport] bob is watching this session.\r\n")
	agent.say("hello")
	s.sees("hello")
	for _, mistaken := range []struct {
		name string
		req  WatchRequest
		want error
	}{
		{"another person's watch", WatchRequest{Watch: s.last.Watch, Watcher: carol, Offset: s.at}, ErrNoWatch},
		{"a guess", WatchRequest{Watch: strings.Repeat("A", 26), Watcher: bob}, ErrNoWatch},
	} {
		if _, err := first.g.Watch(t.Context(), id, mistaken.req); !errors.Is(err, mistaken.want) {
			t.Errorf("%s: got %v, want %v", mistaken.name, err, mistaken.want)
		}
	}
	if p, err := first.g.Watch(t.Context(), id, WatchRequest{Watch: s.last.Watch, Watcher: bob, Offset: 1 << 40}); err == nil {
		t.Errorf("an offset behind the end: got %+v", p)
	}
	// Nobody ends another's watch.
	first.g.Watch(t.Context(), id, WatchRequest{Watch: s.last.Watch, Watcher: carol, Leave: "so there"})
	agent.say("still")
	s.sees("still")
	s.leave()
	const told = "[sallyport] bob is watching this session.\r\nhellostill\r\n[sallyport] bob is no longer watching this session.\r\n"
	client.wantText("notice", "$ \r\n"+told)
	if err := s.ask(); !errors.Is(err, ErrNoWatch) {
		t.Errorf("after leaving: got %v, want ErrNoWatch", err)
	}
	if diff := cmp.Diff([]string{"bob began", "bob ended: the watcher left"}, store.watches(id)); diff != "" {
		t.Errorf("audited (-want +got):\n%s", diff)
	}
	if _, err := first.g.Watch(t.Context(), "alice-none", WatchRequest{Watcher: bob}); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such session: got %v, want ErrNotFound", err)
	}
}

// The person is told once of somebody who watches twice, and only of whom they are to know.
func TestWatchNotice(t *testing.T) {
	_, tune := watched(t)
	w := newWorld(t, tune)
	_, id, agent, client := w.pair()
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	one, two := w.spectator(id, bob, true), w.spectator(id, bob, true)
	hidden := w.spectator(id, carol, false)
	one.leave()
	hidden.leave()
	two.leave()
	want := "$ \r\n[sallyport] bob is watching this session.\r\n\r\n[sallyport] bob is no longer watching this session.\r\n"
	client.wantText("notices", want)
	if got := client.text(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Before the session shows anything, a line of the server's would be taken for its
// beginning: it waits.
func TestWatchNoticeWaits(t *testing.T) {
	_, tune := watched(t)
	w := newWorld(t, tune)
	a := w.agent(testNode)
	id, token := w.started(a)
	w.spectator(id, bob, true)
	agent := a.open(id)
	client := w.client(id, token)
	time.Sleep(50 * time.Millisecond)
	if got := client.text(); got != "" {
		t.Errorf("told %q before the session began", got)
	}
	agent.say("$ ")
	client.wantText("notice", "$ \r\n[sallyport] bob is watching this session.\r\n")
}

// A watcher who asks nothing holds nothing up: what they have not seen is in the
// recording.
func TestSlowWatcher(t *testing.T) {
	rec, tune := watched(t)
	w := newWorld(t, tune)
	_, id, agent, client := w.pair()
	s := w.spectator(id, bob, false)
	line := strings.Repeat("x", 1000) + "\r\n"
	for range 3 * watchTail / len(line) {
		agent.say(line)
	}
	agent.say("done")
	eventually(t, "the session goes on", func() bool { return strings.HasSuffix(client.text(), "done") })
	if err := s.ask(); err != nil || s.last.Begin <= s.at || len(s.last.Data) > 0 {
		t.Fatalf("got %d bytes, from %d on of %d to %d, %v; want none, and to read the recording", len(s.last.Data), s.at, s.last.Begin, s.last.End, err)
	}
	if kept := s.last.End - s.last.Begin; kept < watchTail || kept > 2*watchTail+(64<<10) {
		t.Errorf("%d bytes are kept", kept)
	}
	if err := rec.Flush(); err != nil {
		t.Fatal(err)
	}
	s.seen = rec.bytes()[s.at:s.last.Begin]
	s.at = s.last.Begin
	s.sees("done")
	if got, want := int64(len(s.seen)), s.at-(s.last.End-int64(len(s.seen))); got != want {
		t.Errorf("seen: got %d bytes, want %d", got, want)
	}
}

func TestWatchBounds(t *testing.T) {
	_, tune := watched(t)
	var later atomic.Int64
	w := newWorld(t, tune, func(c *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	_, id, agent, client := w.pair()
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	for i := range maxWatchers {
		w.spectator(id, person(i), false)
	}
	if _, err := w.g.Watch(t.Context(), id, WatchRequest{Watcher: carol}); !errors.Is(err, ErrWatchers) {
		t.Errorf("one more: got %v, want ErrWatchers", err)
	}
	if got := w.g.watches.Load(); got != maxWatchers {
		t.Errorf("got %d watches counted, want %d", got, maxWatchers)
	}
	// Those who have gone without a word make room.
	later.Store(int64(watchSilence))
	eventually(t, "silent watchers are forgotten", func() bool { return w.g.watches.Load() == 0 })
	if got := w.store.watches(id); len(got) != 2*maxWatchers || !strings.HasSuffix(got[len(got)-1], "ended: the watcher went away") {
		t.Errorf("audited: %q", got)
	}
	w.spectator(id, carol, false).leave()
	w.g.watches.Store(maxWatches)
	if _, err := w.g.Watch(t.Context(), id, WatchRequest{Watcher: carol}); !errors.Is(err, ErrWatchers) {
		t.Errorf("too many on the member: got %v, want ErrWatchers", err)
	}
}

// person is one of many, who are no two the same.
func person(i int) Watcher {
	who := bob
	who.ARN, who.ID = who.ARN+fmt.Sprint(i), who.ID+fmt.Sprint(i)
	return who
}

// Attack: people may watch their own sessions. Who fills all places with themselves, under
// many names of a role session, would not be watched by anybody else, and who does so with
// many sessions would keep a whole member from being watched.
func TestWatchPlacesAreForEverybody(t *testing.T) {
	_, tune := watched(t)
	w := newWorld(t, tune)
	_, id, agent, client := w.pair()
	agent.say("$ ")
	client.wantText("prompt", "$ ")
	filled := 0
	for i := range maxWatchers {
		who := Watcher{ARN: fmt.Sprint("arn:aws:sts::111111111111:assumed-role/own/", i), ID: fmt.Sprint("AROA:", i), Root: "AIDAEVE"}
		switch _, err := w.g.Watch(t.Context(), id, WatchRequest{Watcher: who}); {
		case err == nil:
			filled++
		case !errors.Is(err, ErrWatchers):
			t.Fatal(err)
		}
	}
	if filled > maxOfPerson {
		t.Errorf("one person has %d of %d places, want %d at most", filled, maxWatchers, maxOfPerson)
	}
	if got := w.g.watches.Load(); got != int64(filled) {
		t.Errorf("%d watches are counted, want %d: a refused one keeps no place", got, filled)
	}
	w.spectator(id, carol, false)
}

// Attack: of many sessions, people take all places of a member.
func TestWatchPlacesOfMember(t *testing.T) {
	_, tune := watched(t)
	w := newWorld(t, tune)
	rec := &tape{}
	rec.Writer, _ = recording.NewWriter(rec, recording.Header{Width: 80, Height: 24})
	begin := func(owner string, by Watcher) error {
		s := newLive(w.g, Session{ID: "s-" + fmt.Sprint(len(w.g.sessions)), RootID: owner}, wire.StartSession{}, Options{})
		s.rec = rec
		w.g.mu.Lock()
		w.g.sessions[s.row.ID] = s
		w.g.mu.Unlock()
		t.Cleanup(func() {
			w.g.mu.Lock()
			defer w.g.mu.Unlock()
			delete(w.g.sessions, s.row.ID)
		})
		_, err := s.watch(t.Context(), WatchRequest{Watcher: by})
		return err
	}
	for i := range maxOfPersonHere {
		if err := begin("AIDAALICE", carol); err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
	}
	if err := begin("AIDAALICE", carol); !errors.Is(err, ErrWatchers) {
		t.Errorf("one person's watch %d: got %v, want ErrWatchers", maxOfPersonHere+1, err)
	}
	for i := range maxOwn {
		if err := begin(person(i).ID, person(i)); err != nil {
			t.Fatalf("own session %d: %v", i, err)
		}
	}
	if err := begin(person(99).ID, person(99)); !errors.Is(err, ErrWatchers) {
		t.Errorf("own watch %d: got %v, want ErrWatchers", maxOwn+1, err)
	}
	if err := begin("AIDAALICE", bob); err != nil {
		t.Errorf("another's session: %v", err)
	}
}

// A person asks one question at a time: many at once would hold the home's places.
func TestWatchOneQuestionAtATime(t *testing.T) {
	_, tune := watched(t)
	w := newWorld(t, tune)
	_, id, agent, _ := w.pair()
	s := w.spectator(id, bob, false)
	first := make(chan error, 1)
	go func() { first <- s.ask() }()
	live := w.g.session(id)
	eventually(t, "the question waits", func() bool {
		live.watching.mu.Lock()
		defer live.watching.mu.Unlock()
		return live.watching.watches[s.last.Watch].asking
	})
	if _, err := w.g.Watch(t.Context(), id, WatchRequest{Watch: s.last.Watch, Watcher: bob, Offset: s.at}); !errors.Is(err, ErrNoWatch) {
		t.Errorf("a second question: got %v, want ErrNoWatch", err)
	}
	agent.say("x")
	if err := <-first; err != nil {
		t.Error(err)
	}
	// An offset that is not there is the watcher's mistake, and not the server's.
	s.at = 1 << 40
	if err := s.ask(); !errors.Is(err, ErrNoWatch) {
		t.Errorf("behind the end: got %v, want ErrNoWatch", err)
	}
}

func TestWatchRefused(t *testing.T) {
	t.Run("not recorded", func(t *testing.T) {
		w := newWorld(t)
		_, id, _, _ := w.pair(func(r *StartRequest) { r.Options.Record = false })
		if _, err := w.g.Watch(t.Context(), id, WatchRequest{Watcher: bob}); !errors.Is(err, ErrNotRecorded) {
			t.Errorf("got %v, want ErrNotRecorded", err)
		}
	})
	t.Run("not audited", func(t *testing.T) {
		_, tune := watched(t)
		w := newWorld(t, tune)
		_, id, _, _ := w.pair()
		w.store.mu.Lock()
		w.store.auditErr = errDisk
		w.store.mu.Unlock()
		p, err := w.g.Watch(t.Context(), id, WatchRequest{Watcher: bob})
		if !errors.Is(err, errDisk) || p.Watch != "" || w.g.watches.Load() != 0 {
			t.Errorf("got %+v, %v and %d watches, want a refusal", p, err, w.g.watches.Load())
		}
		w.store.mu.Lock()
		w.store.auditErr = nil
		w.store.mu.Unlock()
	})
}
