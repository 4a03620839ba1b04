package index

import (
	"sync"
	"time"

	"sallyport.dev/recording"
	"sallyport.dev/transcript"
)

// follower makes the transcript of a session that is being recorded. What its recorder
// tells is queued under mu; all else is the keeper's goroutine's.
type follower struct {
	k       *Keeper
	session string
	started time.Time

	mu     sync.Mutex // before the keeper's
	meter  transcript.Meter
	pieces []queued
	data   []byte // of pieces
	lost   bool   // something did not fit into the queue
	active bool   // the keeper knows that there is something
	last   time.Duration

	number   int64
	begun    bool
	failed   bool
	done     bool
	reader   *transcript.Transcript
	builder  builder
	oldest   time.Time // when the first of the builder's lines came
	unsettle bool      // the screen has changed since it was told
}

// queued is a piece whose data is the next n bytes of the follower's.
type queued struct {
	piece transcript.Piece
	n     int
}

// size is what the piece takes in memory, in bytes.
func (q queued) size() int64 { return int64(pieceSize + q.n) }

func newFollower(k *Keeper, h recording.Header) *follower {
	f := &follower{k: k, session: h.Session, started: h.Started, active: true}
	f.reader = transcript.New(transcript.Config{Width: h.Width, Height: h.Height, Line: f.line})
	return f
}

// Follow implements recording.Follower: it copies what is to be read.
func (f *follower) Follow(at time.Duration, kind recording.Kind, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = at
	f.meter.Take(at, kind, data, f.queueLocked)
	if !f.active {
		f.active = true
		f.k.activate(f)
	}
}

func (f *follower) queueLocked(p transcript.Piece) {
	q := queued{p, len(p.Data)}
	if f.k.queued.Add(q.size()) > maxQueued && p.Kind != recording.KindEnd {
		f.k.queued.Add(-q.size())
		f.lost = true
		return
	}
	f.data = append(f.data, p.Data...)
	q.piece.Data = nil
	f.pieces = append(f.pieces, q)
}

// take returns what waits. A session that has been silent for a while has told the last
// of a flood, too.
func (f *follower) take(silent bool) (pieces []queued, data []byte, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if silent {
		f.meter.Flush(f.queueLocked)
	}
	pieces, data, lost = f.pieces, f.data, f.lost
	f.pieces, f.data = nil, nil
	return pieces, data, lost
}

// silence is for how long nothing was recorded.
func (f *follower) silence(now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return now.Sub(f.started) - f.last
}

// rest has the next event wake the keeper, unless one waits already.
func (f *follower) rest() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active = len(f.pieces) > 0
	if f.active {
		f.k.activate(f)
	}
}

// step reads what waits and reports whether there is more to be done soon.
func (f *follower) step(now time.Time, last bool) bool {
	if f.done {
		return false
	}
	f.begin(now)
	silent := f.silence(now) >= stillAge
	pieces, data, lost := f.take(silent)
	for _, q := range pieces {
		q.piece.Data = data[:q.n:q.n]
		data = data[q.n:]
		f.k.queued.Add(-q.size())
		f.reader.Take(q.piece)
		f.unsettle = true
		if q.piece.Kind == recording.KindEnd {
			f.done = true
		}
	}
	if silent && f.unsettle {
		f.reader.Still(now.Sub(f.started))
		f.unsettle = false
	}
	f.store(now, last)
	if f.done {
		f.end(now, lost)
		return false
	}
	return f.unsettle || f.builder.n > 0
}

// begin makes the transcript known, so that a crash from now on is noticed.
func (f *follower) begin(now time.Time) {
	if f.begun {
		return
	}
	f.begun = true
	ctx, cancel := f.k.storing()
	defer cancel()
	number, err := f.k.cfg.Store.CreateTranscript(ctx, f.session, f.k.cfg.Member, Live, now)
	if err != nil {
		f.k.failed("beginning a transcript", f.session, err)
	}
	f.number, f.failed = number, number == 0
}

func (f *follower) line(l transcript.Line) {
	if !f.failed {
		f.builder.add(l)
		f.k.stats.lines.Add(1)
	}
}

// store writes blocks that are full, or old.
func (f *follower) store(now time.Time, last bool) {
	switch {
	case f.builder.n == 0:
		f.oldest = time.Time{}
	case f.oldest.IsZero():
		f.oldest = now
	}
	if last || f.done || !f.oldest.IsZero() && now.Sub(f.oldest) >= lineAge {
		f.builder.end()
		f.oldest = time.Time{}
	}
	for _, b := range f.builder.take() {
		f.k.add(f, b, now)
	}
}

// end says how much there is.
func (f *follower) end(now time.Time, lost bool) {
	if f.number == 0 {
		return
	}
	f.k.write(now) // the last blocks before the end
	state := Whole
	if f.failed || lost {
		state = Partial
		f.k.stats.partial.Add(1)
	}
	ctx, cancel := f.k.storing()
	defer cancel()
	if err := f.k.cfg.Store.EndTranscript(ctx, f.number, f.k.cfg.Member, state, now); err != nil {
		f.k.failed("ending a transcript", f.session, err)
	}
}
