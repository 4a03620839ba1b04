package recording

import (
	"sync"
	"time"
)

// HoldLimit is how long redaction holds back text that may be the beginning of a match:
// after that, what is likely to be one is replaced, and the rest is let go.
const HoldLimit = 500 * time.Millisecond

// Redactor is a Stage that lets no match of a Redaction through.
//
// What may be the beginning of a match is held back, at most 16 KiB and HoldLimit per
// direction; Flush lets go of it then. A match that goes on while its beginning is let go,
// as of a secret that is typed slowly, is still known for what it is. Not found are matches
// longer than 64 KiB; those of which more than 16 KiB or HoldLimit lies between the
// beginning and what tells them from other text; and those that are on the screen in one
// piece, but were not written so: by editors that write only what has changed, in columns,
// or from right to left.
type Redactor struct {
	redaction *Redaction
	next      Stage
	now       func() time.Time

	mu     sync.Mutex
	output direction
	input  direction
	cols   int
	queue  []queued // events that wait for the output before them
}

// direction is the output or the input of a session.
type direction struct {
	stream *redactStream // nil until something came
	emit   func(at time.Time, p []byte) error
	at     time.Time // of what came last

	// since is not after what is held longest came. What came after mark did so at markAt
	// or later.
	since, markAt time.Time
	mark          int64
}

// queued is an event that comes after held output.
type queued struct {
	after int64 // offset in the output
	tell  func() error
}

// maxQueued bounds the events that wait.
const maxQueued = 64

// Wrap returns a stage that redacts what it passes on to next. now is the clock that the
// times of events come from.
func (r *Redaction) Wrap(next Stage, cols int, now func() time.Time) *Redactor {
	return &Redactor{
		redaction: r, next: next, now: now, cols: cols,
		output: direction{emit: next.Output}, input: direction{emit: next.Input},
	}
}

// Output implements Stage.
func (r *Redactor) Output(at time.Time, p []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.feedLocked(&r.output, at, p); err != nil {
		return err
	}
	return r.tellLocked()
}

// Input implements Stage.
func (r *Redactor) Input(at time.Time, p []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.feedLocked(&r.input, at, p)
}

func (r *Redactor) feedLocked(d *direction, at time.Time, p []byte) error {
	if d.stream == nil {
		cols := r.cols
		if d == &r.input {
			cols = 0
		}
		d.stream = r.redaction.stream(cols, func(p []byte) error { return d.emit(d.at, p) })
	}
	d.at = at
	err := d.stream.feed(p)
	d.noteAge()
	return err
}

// noteAge keeps since up to date.
func (d *direction) noteAge() {
	switch {
	case !d.holds():
		d.since = time.Time{}
		return
	case d.since.IsZero():
		d.since = d.at
	case d.stream.base >= d.mark:
		d.since = d.markAt
	default:
		return
	}
	d.mark, d.markAt = d.stream.at, d.at
}

// holds reports whether something is held that can be let go: no half of a character, for
// which nothing waits.
func (d *direction) holds() bool { return d.stream != nil && d.stream.base < d.stream.at }

// Resize implements Stage.
func (r *Redactor) Resize(at time.Time, cols, rows int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cols = cols
	if r.output.stream != nil {
		r.output.stream.screen.width = cols
	}
	return r.orderLocked(func() error { return r.next.Resize(at, cols, rows) })
}

// Marker implements Stage.
func (r *Redactor) Marker(at time.Time, label string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	label = r.redaction.Text(label)
	return r.orderLocked(func() error { return r.next.Marker(at, label) })
}

// orderLocked tells of an event after the output before it.
func (r *Redactor) orderLocked(tell func() error) error {
	if !r.output.holds() {
		return tell()
	}
	if len(r.queue) == maxQueued {
		if err := r.output.stream.force(); err != nil {
			return err
		}
	}
	r.queue = append(r.queue, queued{r.output.stream.at, tell})
	return r.tellLocked()
}

// tellLocked tells of the events whose turn has come.
func (r *Redactor) tellLocked() error {
	for len(r.queue) > 0 && r.output.stream.base >= r.queue[0].after {
		tell := r.queue[0].tell
		r.queue = r.queue[1:]
		if err := tell(); err != nil {
			return err
		}
	}
	return nil
}

// Err implements Stage.
func (r *Redactor) Err() error { return r.next.Err() }

// Holds implements Stage.
func (r *Redactor) Holds() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.output.holds() || r.input.holds() || r.next.Holds()
}

// Flush implements Stage. It lets go of what was held for HoldLimit.
func (r *Redactor) Flush() error {
	if err := r.letGo(); err != nil {
		return err
	}
	return r.next.Flush()
}

func (r *Redactor) letGo() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	for _, d := range []*direction{&r.output, &r.input} {
		if !d.holds() || now.Sub(d.since) < HoldLimit {
			continue
		}
		if err := d.stream.overdue(); err != nil {
			return err
		}
		d.since = now
		d.noteAge()
	}
	return r.tellLocked()
}

// Close implements Stage.
func (r *Redactor) Close(end End) (Summary, error) {
	r.mu.Lock()
	for _, d := range []*direction{&r.output, &r.input} {
		if d.stream != nil {
			d.stream.end() // its error is that of closing
		}
	}
	r.tellLocked()
	r.mu.Unlock()
	return r.next.Close(end)
}
