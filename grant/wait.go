package grant

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Waiting for what becomes of a request.

// Bounds on who waits at one member at a time: in all, and of one person, so that nobody
// takes all the places.
const (
	maxWaiters      = 512
	maxWaitersOfOne = 64
)

// ErrBusy is returned where too many wait already.
var ErrBusy = errors.New("too many wait for requests at a time")

// waits wakes who waits for requests to change.
type waits struct {
	mu      sync.Mutex
	n       int
	of      map[string]int // by person
	changed chan struct{}  // closed at the next change
	closed  bool           // nobody waits any more
}

// enter counts one who waits.
func (w *waits) enter(person string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.n >= maxWaiters || person != "" && w.of[person] >= maxWaitersOfOne {
		return false
	}
	if w.of == nil {
		w.of = map[string]int{}
	}
	w.n++
	w.of[person]++
	return true
}

func (w *waits) leave(person string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n--
	if w.of[person]--; w.of[person] == 0 {
		delete(w.of, person)
	}
}

// close lets everybody go.
func (w *waits) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wake()
}

func (w *waits) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// next returns a channel that is closed at the next change.
func (w *waits) next() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.changed
}

func (w *waits) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// lookEvery is how often who waits looks without being woken: another member's change is
// seen by then, whatever this member's clocks do.
const lookEvery = 5 * time.Second

// Request returns a request.
func (e *Engine) Request(ctx context.Context, id string) (Request, error) {
	return e.config.Store.Request(ctx, id)
}

// Requests lists requests, newest first.
func (e *Engine) Requests(ctx context.Context, f Filter) ([]Request, error) {
	return e.config.Store.Requests(ctx, f)
}

// Wait returns a request once its revision is above after, or as it is when the context
// ends. It returns ErrBusy where too many wait.
func (e *Engine) Wait(ctx context.Context, id string, after int64) (Request, error) {
	return e.WaitFor(ctx, "", id, after)
}

// WaitFor is Wait for somebody, by their unique id, who does not wait too often at a time.
func (e *Engine) WaitFor(ctx context.Context, person, id string, after int64) (Request, error) {
	r, err := e.config.Store.Request(ctx, id)
	if err != nil || r.Revision > after {
		return r, err
	}
	if !e.waits.enter(person) {
		return r, ErrBusy
	}
	defer e.waits.leave(person)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		changed := e.waits.next() // before looking: no change falls between
		now, err := e.config.Store.Request(ctx, id)
		if ctx.Err() != nil {
			return r, nil
		}
		if err != nil || now.Revision > after || e.waits.over() {
			return now, err
		}
		r = now
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return r, nil
		}
	}
}

// History returns the steps of a request's life, in order.
func (e *Engine) History(ctx context.Context, id string) ([]Event, error) {
	return e.config.Store.Events(ctx, id)
}
