package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/recording"
)

// People with the right to may watch a session while it goes on. They are shown what its
// recording takes down, from the moment that it does, and nothing else: a session that is
// not recorded cannot be watched.
//
// A watch is a reader of the recording's last bytes, which are kept as long as somebody
// watches. Who falls behind reads the recording itself, and the session never waits.

// Errors of watching.
var (
	ErrNotRecorded = errors.New("session is not recorded")
	ErrWatchers    = errors.New("session has too many watchers")
	ErrNoWatch     = errors.New("no such watch")
)

const (
	// maxWatchers bounds the watches of one session, maxWatches those on one member.
	maxWatchers, maxWatches = 8, 64
	// maxOfPerson and maxOfPersonHere are how many of them one person may have, and
	// maxOwn how many of a member's people may have of their own sessions, which needs no
	// right: nobody is to fill the places and so not be watched.
	maxOfPerson, maxOfPersonHere, maxOwn = 2, 8, 16
	// watchTail is how much of a recording is kept for its watchers at least, in bytes,
	// and watchPiece how much one answer holds.
	watchTail, watchPiece = 256 << 10, 256 << 10
	// watchSilence is how long a watcher may ask nothing.
	watchSilence = 15 * time.Second
	// watchWait bounds how long a question waits for something to happen, and
	// watchGather how long what happens is gathered.
	watchWait   = 2 * time.Second
	watchGather = 30 * time.Millisecond
	// watchLinger is how long an ended session waits for its watchers to see its end.
	watchLinger = 2 * time.Second
)

// Watcher is who watches.
type Watcher struct {
	ARN       string `json:"arn"`
	ID        string `json:"id"`             // aws:userid
	Root      string `json:"root,omitempty"` // unique id of the user who is behind it
	Name      string `json:"name"`           // as the watched person is told
	SourceIP  string `json:"source_ip,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
}

// person is who watches, under whatever name of a role session.
func (w Watcher) person() string { return cmp.Or(w.Root, w.ID) }

// WatchRequest asks for what a session shows.
type WatchRequest struct {
	Watch   string  `json:"watch,omitempty"` // empty to begin one
	Watcher Watcher `json:"watcher"`
	Offset  int64   `json:"offset"`           // of the next byte of the recording that is wanted
	Notice  bool    `json:"notice,omitempty"` // tell the watched person; read when a watch begins
	Leave   string  `json:"leave,omitempty"`  // ends the watch, and says why
}

// WatchPiece is what happened, as a piece of the recording.
type WatchPiece struct {
	Watch string `json:"watch"`
	// Begin and End are the bytes of the recording that are at hand. Data begins at the
	// offset that was asked for; it is empty where that is before Begin: then the
	// recording itself has it.
	Begin int64  `json:"begin"`
	End   int64  `json:"end"`
	Data  []byte `json:"data,omitempty"`
	// Columns and Rows are the size of the terminal now; 0 while nobody said.
	Columns int    `json:"columns,omitempty"`
	Rows    int    `json:"rows,omitempty"`
	Over    bool   `json:"over,omitempty"` // nothing comes after End
	Reason  string `json:"reason,omitempty"`
}

// Watch answers what a session shows: what there is from an offset on, or after a wait of
// at most two seconds, nothing. Errors are ErrNotFound, ErrEnded, ErrNotRecorded,
// ErrWatchers, ErrNoWatch, ErrNoResponder, or of the store, the audit log and the routing.
func (g *Gateway) Watch(ctx context.Context, id string, req WatchRequest) (WatchPiece, error) {
	if s := g.session(id); s != nil {
		return s.watch(ctx, req)
	}
	row, err := g.cfg.Store.Session(ctx, id)
	if err != nil {
		return WatchPiece{}, fmt.Errorf("reading session: %w", err)
	}
	if !row.State.Active() {
		return WatchPiece{}, ErrEnded
	}
	answer, err := g.question(ctx, subjectOf(id), request{Op: "watch", Watch: &req})
	if err != nil {
		return WatchPiece{}, err
	}
	if answer.Watch == nil {
		return WatchPiece{}, fmt.Errorf("the session's member answered nothing")
	}
	return *answer.Watch, nil
}

// watching is what a session has for its watchers; empty while there are none.
type watching struct {
	mu      sync.Mutex // the recording's and the tail's are taken under it, no others
	tail    *tail      // nil while nobody watches
	watches map[string]*watch
	names   map[string]int // of whose watching the person was told, and how often
	notices []string       // what the person is still to be told
	telling bool           // somebody tells
}

// watch is one person's.
type watch struct {
	id      string
	by      Watcher
	own     bool // of who is watched
	notice  bool
	told    bool
	asking  bool
	began   time.Time
	asked   time.Time // when they last asked, or were answered
	sawOver bool
}

func (s *live) watch(ctx context.Context, req WatchRequest) (WatchPiece, error) {
	if req.Leave != "" {
		s.unwatch(req.Watch, req.Watcher, req.Leave)
		return WatchPiece{Watch: req.Watch, Over: true}, nil
	}
	if req.Watch == "" {
		return s.beginWatch(ctx, req)
	}
	w, t, err := s.askWatch(req)
	if err != nil {
		return WatchPiece{}, err
	}
	defer s.askedWatch(w)
	ctx, cancel := context.WithTimeout(ctx, watchWait)
	defer cancel()
	piece, err := t.read(ctx, req.Offset)
	return s.answerWatch(w, piece, req.Offset), err
}

// answerWatch completes an answer to a question from an offset on.
func (s *live) answerWatch(w *watch, p WatchPiece, offset int64) WatchPiece {
	p.Watch = w.id
	size := s.size.Load()
	p.Columns, p.Rows = int(size>>16), int(size&0xffff)
	if p.Over {
		if cause := s.cause.Load(); cause != nil {
			p.Reason = cause.Error()
		}
		s.watching.mu.Lock()
		w.sawOver = offset+int64(len(p.Data)) == p.End
		s.watching.mu.Unlock()
	}
	return p
}

// beginWatch lets somebody watch from here on. It is written down before anything is shown.
func (s *live) beginWatch(ctx context.Context, req WatchRequest) (WatchPiece, error) {
	if s.rec == nil {
		return WatchPiece{}, ErrNotRecorded
	}
	if s.g.watches.Add(1) > maxWatches {
		s.g.watches.Add(-1)
		return WatchPiece{}, fmt.Errorf("%w on this member: at most %d", ErrWatchers, maxWatches)
	}
	w, t, err := s.addWatch(req)
	if err != nil {
		s.g.watches.Add(-1)
		return WatchPiece{}, err
	}
	if err := s.admitWatch(ctx, w); err != nil {
		s.dropWatch(w)
		return WatchPiece{}, err
	}
	s.log.Info("watch began", "principal", w.by.ARN)
	s.tellWatches()
	// What the recording holds back is what the watcher is to read from it.
	if err := s.rec.Flush(); err != nil {
		s.end(recordingLost(err))
		return WatchPiece{}, err
	}
	piece, _ := t.piece(-1)
	return s.answerWatch(w, piece, -1), nil
}

// admitWatch finds out whether a watch that was just added may be, and writes that down.
// It is added before, so that who ends the session or counts watches has seen it.
func (s *live) admitWatch(ctx context.Context, w *watch) error {
	if s.isDone() || s.hasEnded() {
		return ErrEnded
	}
	if err := s.g.roomFor(w); err != nil {
		return err
	}
	return s.auditWatch(ctx, w, "began", nil)
}

// roomFor finds out whether a person, with a watch that was just added, has too many on
// this member, or people have too many of their own sessions.
func (g *Gateway) roomFor(w *watch) error {
	g.mu.Lock()
	all := slices.Collect(maps.Values(g.sessions))
	g.mu.Unlock()
	theirs, own := 0, 0
	for _, s := range all {
		s.watching.mu.Lock()
		t, o := s.watching.by(w.by.person())
		s.watching.mu.Unlock()
		theirs, own = theirs+t, own+o
	}
	switch {
	case theirs > maxOfPersonHere:
		return fmt.Errorf("%w on this member: at most %d of one person", ErrWatchers, maxOfPersonHere)
	case w.own && own > maxOwn:
		return fmt.Errorf("%w on this member: at most %d of people's own sessions", ErrWatchers, maxOwn)
	}
	return nil
}

// by counts the watches of a person, and those of who is watched themselves.
func (x *watching) by(person string) (theirs, own int) {
	for _, w := range x.watches {
		if w.by.person() == person {
			theirs++
		}
		if w.own {
			own++
		}
	}
	return theirs, own
}

func (s *live) hasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.endedAt.IsZero()
}

func (s *live) addWatch(req WatchRequest) (*watch, *tail, error) {
	now := s.g.now()
	w := &watch{id: rand.Text(), by: req.Watcher, notice: req.Notice, began: now, asked: now}
	w.own = w.by.person() == cmp.Or(s.row.RootID, s.row.OwnerID)
	x := &s.watching
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.watches) >= maxWatchers {
		return nil, nil, fmt.Errorf("%w: at most %d", ErrWatchers, maxWatchers)
	}
	if theirs, _ := x.by(w.by.person()); theirs >= maxOfPerson {
		return nil, nil, fmt.Errorf("%w: at most %d of one person", ErrWatchers, maxOfPerson)
	}
	if x.tail == nil {
		x.tail = newTail()
		x.tail.attached(s.rec.Attach(x.tail))
		x.watches, x.names = map[string]*watch{}, map[string]int{}
	}
	x.watches[w.id] = w
	return w, x.tail, nil
}

// askWatch finds a watch for a question of the person whose it is.
func (s *live) askWatch(req WatchRequest) (*watch, *tail, error) {
	x := &s.watching
	x.mu.Lock()
	defer x.mu.Unlock()
	w := x.watches[req.Watch]
	if w == nil || w.by.ARN != req.Watcher.ARN || w.by.ID != req.Watcher.ID {
		return nil, nil, ErrNoWatch
	}
	if w.asking {
		return nil, nil, fmt.Errorf("%w that waits for no answer: one question at a time", ErrNoWatch)
	}
	w.asking, w.asked = true, s.g.now()
	return w, x.tail, nil
}

func (s *live) askedWatch(w *watch) {
	s.watching.mu.Lock()
	defer s.watching.mu.Unlock()
	w.asking, w.asked = false, s.g.now()
}

// unwatch ends a watch of a person.
func (s *live) unwatch(id string, by Watcher, why string) {
	s.watching.mu.Lock()
	w := s.watching.watches[id]
	s.watching.mu.Unlock()
	if w != nil && w.by.ARN == by.ARN && w.by.ID == by.ID {
		s.endWatch(w, why)
	}
}

// endWatch ends a watch, once, and writes that down.
func (s *live) endWatch(w *watch, why string) {
	if !s.dropWatch(w) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.g.ctx), storeTimeout)
	defer cancel()
	lasted := s.g.now().Sub(w.began).Round(time.Millisecond).String()
	// It has ended, whether or not that can be audited; the log has the error.
	_ = s.auditWatch(ctx, w, "ended: "+why, map[string]string{"duration": lasted})
	s.log.Info("watch ended", "principal", w.by.ARN, "why", why)
}

// dropWatch forgets a watch, and reports whether it was still there. With the last one,
// nothing is kept for watchers any more.
func (s *live) dropWatch(w *watch) bool {
	x := &s.watching
	x.mu.Lock()
	if x.watches[w.id] != w {
		x.mu.Unlock()
		return false
	}
	delete(x.watches, w.id)
	last := x.tail
	if len(x.watches) == 0 {
		s.rec.Detach(last)
		x.tail = nil
	}
	gone := w.told && x.names[w.by.Name] == 1
	if w.told {
		x.names[w.by.Name]--
	}
	x.mu.Unlock()
	last.wake()
	s.g.watches.Add(-1)
	if gone {
		s.tellInTurn(w.by.Name + " is no longer watching this session.")
	}
	return true
}

func (s *live) auditWatch(ctx context.Context, w *watch, what string, details map[string]string) error {
	all := map[string]string{"watch": w.id, "owner": s.row.Owner, "notice": fmt.Sprint(w.notice)}
	for k, v := range details {
		all[k] = v
	}
	_, err := s.g.cfg.Audit.Append(ctx, audit.Record{
		Time: s.g.now(), Event: audit.EventWatch, Principal: w.by.ARN, Session: s.row.ID, Node: s.row.NodeID,
		Document: s.row.Document, SourceIP: w.by.SourceIP, UserAgent: w.by.UserAgent, Reason: what, Details: all,
	})
	if err != nil {
		s.log.Error("writing audit record", "event", audit.EventWatch, "error", err)
		return fmt.Errorf("writing audit record: %w", err)
	}
	return nil
}

// tellWatches tells the watched person of watches that they are to know of, as soon as
// something can be told.
func (s *live) tellWatches() {
	s.mu.Lock()
	shows := s.shows()
	s.mu.Unlock()
	if !shows {
		return
	}
	x := &s.watching
	if !x.mu.TryLock() {
		return // the clock looks again
	}
	names := x.untold()
	x.mu.Unlock()
	for _, name := range names {
		s.tellInTurn(name + " is watching this session.")
	}
}

// untold are the people of whom the watched one was not told, and is now.
func (x *watching) untold() (names []string) {
	for _, w := range x.watches {
		if !w.notice || w.told {
			continue
		}
		w.told = true
		if x.names[w.by.Name]++; x.names[w.by.Name] == 1 {
			names = append(names, w.by.Name)
		}
	}
	return names
}

// maxNotices bounds what waits to be told to a person whose terminal takes nothing.
const maxNotices = 32

// tellInTurn is tell for what must not overtake each other.
func (s *live) tellInTurn(text string) {
	if !s.canTell() || s.row.SessionType == "Port" {
		return
	}
	x := &s.watching
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.notices) >= maxNotices {
		return
	}
	x.notices = append(x.notices, text)
	if !x.telling {
		x.telling = s.g.start(s.tellNotices)
	}
}

func (s *live) tellNotices() {
	x := &s.watching
	for {
		x.mu.Lock()
		if len(x.notices) == 0 {
			x.telling = false
			x.mu.Unlock()
			return
		}
		text := x.notices[0]
		x.notices = x.notices[1:]
		x.mu.Unlock()
		s.tellNow(text)
	}
}

// tickWatches looks at what of watching depends on time. It does not wait for somebody
// who begins or ends to watch a recording that is slow: the clock is everybody's.
func (s *live) tickWatches(now time.Time) {
	x := &s.watching
	if !x.mu.TryLock() {
		return
	}
	var silent []*watch
	for _, w := range x.watches {
		if !w.asking && now.Sub(w.asked) >= watchSilence {
			silent = append(silent, w)
		}
	}
	watched := len(x.watches) > 0
	x.mu.Unlock()
	if watched {
		s.tellWatches()
	}
	for _, w := range silent {
		s.g.start(func() { s.endWatch(w, "the watcher went away") })
	}
}

// endWatches ends all watches with the session, once their watchers have seen the end.
func (s *live) endWatches() {
	limit := time.NewTimer(watchLinger)
	defer limit.Stop()
	for {
		left := s.watchesLeft(false)
		if len(left) == 0 {
			break
		}
		select {
		case <-time.After(watchGather):
			continue
		case <-limit.C:
		case <-s.g.ctx.Done():
		}
		break
	}
	for _, w := range s.watchesLeft(true) {
		s.endWatch(w, "the session ended")
	}
}

// watchesLeft are the watches, or those alone that have not seen the end.
func (s *live) watchesLeft(all bool) (left []*watch) {
	s.watching.mu.Lock()
	defer s.watching.mu.Unlock()
	for _, w := range s.watching.watches {
		if all || !w.sawOver {
			left = append(left, w)
		}
	}
	return left
}

// tail is the end of a recording that grows, for its watchers.
type tail struct {
	mu    sync.Mutex // a leaf: taken under the recording's
	start int64      // where in the recording it began
	begin int64      // of buf, from start on
	buf   []byte
	over  bool
	more  chan struct{} // closed when there is more
}

func newTail() *tail { return &tail{more: make(chan struct{})} }

func (t *tail) attached(offset int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.start = offset
}

// Follow implements recording.Follower.
func (t *tail) Follow(at time.Duration, kind recording.Kind, data []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = recording.AppendEvent(t.buf, at, kind, data)
	if cut := len(t.buf) - watchTail; cut > watchTail {
		t.buf = append(t.buf[:0], t.buf[cut:]...)
		t.begin += int64(cut)
	}
	t.over = t.over || kind == recording.KindEnd
	t.wakeLocked()
}

func (t *tail) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wakeLocked()
}

func (t *tail) wakeLocked() {
	close(t.more)
	t.more = make(chan struct{})
}

// read returns what there is from an offset on, waiting for it until ctx ends.
func (t *tail) read(ctx context.Context, offset int64) (WatchPiece, error) {
	p, more := t.piece(offset)
	if offset > p.End {
		return p, fmt.Errorf("%w: offset %d is behind the end of the recording, %d", ErrNoWatch, offset, p.End)
	}
	if offset < p.End || p.Over {
		return p, nil
	}
	select {
	case <-more:
	case <-ctx.Done():
		return p, nil
	}
	gather := time.NewTimer(watchGather)
	defer gather.Stop()
	select {
	case <-gather.C:
	case <-ctx.Done():
	}
	p, _ = t.piece(offset)
	return p, nil
}

func (t *tail) piece(offset int64) (WatchPiece, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := WatchPiece{Begin: t.start + t.begin, End: t.start + t.begin + int64(len(t.buf)), Over: t.over}
	if from := offset - p.Begin; from >= 0 && from < int64(len(t.buf)) {
		p.Data = append([]byte(nil), t.buf[from:min(from+watchPiece, int64(len(t.buf)))]...)
	}
	return p, t.more
}

// terminalSize notes the size of the terminal for watchers.
type terminalSize struct{ atomic.Uint32 }

func (t *terminalSize) set(cols, rows int) {
	t.Store(uint32(min(cols, 0xffff))<<16 | uint32(min(rows, 0xffff)))
}

// serveWatch answers a watcher who asked another member.
func (s *live) serveWatch(ctx context.Context, req WatchRequest) []byte {
	piece, err := s.watch(ctx, req)
	if err != nil {
		return replyFor(err)
	}
	b, _ := json.Marshal(reply{Watch: &piece}) // strings, numbers and bytes always encode
	return b
}
