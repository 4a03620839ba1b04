package bulk

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// ErrUnavailable says that a connection is better opened another way.
var ErrUnavailable = errors.New("no bulk connection is ready")

const (
	// minSpare and maxSpare bound the links that are ready beyond those in use.
	minSpare, maxSpare = 2, 16
	// maxLinks bounds the links of a client, maxDialling those being made at once.
	maxLinks, maxDialling = 256, 16
	// openWait is how long a connection waits for a link rather than sharing the data
	// channel for as long as it lasts.
	openWait = 300 * time.Millisecond
	// idleLink is how long links beyond the spare ones stay unused.
	idleLink = 30 * time.Second
	// keepEvery is the period of looking at links that nobody uses.
	keepEvery = 5 * time.Second
	// firstRetry and maxRetry bound the pause after a link could not be made.
	firstRetry, maxRetry = 250 * time.Millisecond, 30 * time.Second
)

// Opener is the client's end of a session's bulk connections: a small pool of links,
// made ahead and used again, grown on demand and shrunk when idle.
type Opener struct {
	maker  maker
	log    *slog.Logger
	ctx    context.Context // lives as long as the opener
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	ready    []idle // newest last
	waiting  []chan *link
	links    map[*link]bool // all, in use or not
	dialling int
	spare    int
	failures int       // since a link was made last
	retry    time.Time // not before
	off      bool      // the server has no bulk connections
}

type idle struct {
	link  *link
	since time.Time
}

// NewOpener starts an opener, which makes its first links at once. peer is the agent's
// fingerprint.
func NewOpener(d Dialer, p *Prover, id *Identity, peer string, log *slog.Logger) *Opener {
	pool := &buffers{}
	o := &Opener{
		maker: maker{dialer: d, prover: p, config: id.config(peer), pool: pool},
		log:   log, links: map[*link]bool{}, spare: minSpare,
	}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	o.wg.Go(o.keep)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.growLocked()
	return o
}

// Close breaks off what is open and waits until nothing is left of it.
func (o *Opener) Close() {
	o.mu.Lock()
	o.cancel()
	o.off = true
	for l := range o.links {
		l.close()
	}
	o.wakeLocked()
	o.mu.Unlock()
	o.wg.Wait()
}

// Open opens a connection to the target, without waiting for the target: that it was
// not reached shows when reading. The error is ErrUnavailable where no link comes soon.
func (o *Opener) Open(ctx context.Context) (*Conn, error) {
	l, err := o.take(ctx)
	if err != nil {
		return nil, err
	}
	return &Conn{link: l, free: o.free, spawn: o.spawn, body: body{l: l}}, nil
}

// spawn starts a goroutine that Close waits for.
func (o *Opener) spawn(f func()) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ctx.Err() != nil {
		return false
	}
	o.wg.Go(f)
	return true
}

// take takes a link out of the pool, or waits for one.
func (o *Opener) take(ctx context.Context) (*link, error) {
	o.mu.Lock()
	for len(o.ready) > 0 {
		last := len(o.ready) - 1
		l := o.ready[last].link
		o.ready = o.ready[:last]
		if l.fresh() {
			o.growLocked()
			o.mu.Unlock()
			return l, nil
		}
		o.dropLocked(l)
	}
	if o.off || o.failures > 0 || o.dialling == 0 && len(o.links) >= maxLinks {
		o.growLocked()
		o.mu.Unlock()
		return nil, ErrUnavailable
	}
	o.spare = min(o.spare*2, maxSpare)
	place := make(chan *link, 1)
	o.waiting = append(o.waiting, place)
	o.growLocked()
	o.mu.Unlock()
	return o.await(ctx, place)
}

// await waits at a place in the queue.
func (o *Opener) await(ctx context.Context, place chan *link) (*link, error) {
	t := time.NewTimer(openWait)
	defer t.Stop()
	var err error
	select {
	case l := <-place:
		if l == nil {
			return nil, ErrUnavailable
		}
		return l, nil
	case <-t.C:
		err = ErrUnavailable
	case <-ctx.Done():
		err = ctx.Err()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, w := range o.waiting {
		if w == place {
			o.waiting = append(o.waiting[:i], o.waiting[i+1:]...)
			return nil, err
		}
	}
	if l := <-place; l != nil { // it came in this moment
		return l, nil
	}
	return nil, err
}

// wakeLocked sends everybody who waits another way.
func (o *Opener) wakeLocked() {
	for _, place := range o.waiting {
		place <- nil
	}
	o.waiting = nil
}

// giveLocked gives a link to whoever waits longest, or keeps it.
func (o *Opener) giveLocked(l *link) {
	if len(o.waiting) > 0 {
		o.waiting[0] <- l
		o.waiting = o.waiting[1:]
		return
	}
	o.ready = append(o.ready, idle{l, time.Now()})
}

// free takes a link back from a connection that is over.
func (o *Opener) free(l *link, good bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if good = good && !o.off && l.rest(); good {
		good = l.socket.SetDeadline(time.Time{}) == nil
	}
	if good {
		o.giveLocked(l)
		return
	}
	o.dropLocked(l)
	o.growLocked()
}

func (o *Opener) dropLocked(l *link) {
	delete(o.links, l)
	l.close()
}

// growLocked starts making the links that are missing.
func (o *Opener) growLocked() {
	if o.off || o.ctx.Err() != nil || time.Now().Before(o.retry) {
		return
	}
	most := maxDialling
	if o.failures > 0 {
		most = 1
	}
	want := o.spare + len(o.waiting)
	for len(o.ready)+o.dialling < want && o.dialling < most && len(o.links)+o.dialling < maxLinks {
		o.dialling++
		o.wg.Go(o.grow)
	}
}

func (o *Opener) grow() {
	l, err := o.maker.make(o.ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dialling--
	if err != nil {
		o.failedLocked(err)
		return
	}
	o.failures = 0
	if o.off {
		l.close()
		return
	}
	o.links[l] = true
	o.giveLocked(l)
	o.growLocked()
}

// failedLocked sends everybody another way, and waits before the next try.
func (o *Opener) failedLocked(err error) {
	if o.ctx.Err() != nil {
		return
	}
	var refused *RefusedError
	if errors.As(err, &refused) && refused.Permanent() {
		o.off = true
	}
	if now := time.Now(); !now.Before(o.retry) { // what fails together fails once
		o.retry = now.Add(min(firstRetry<<min(o.failures, 10), maxRetry))
		o.failures++
	}
	o.log.Debug("no bulk connection", "error", err, "for good", o.off)
	o.wakeLocked()
}

// keep drops idle links that are broken or too many, and replaces what is missing.
func (o *Opener) keep() {
	t := time.NewTicker(keepEvery)
	defer t.Stop()
	for {
		select {
		case <-o.ctx.Done():
			return
		case now := <-t.C:
			o.mu.Lock()
			o.shrinkLocked(now)
			o.growLocked()
			for l := range o.links {
				if l.isSilent(now) {
					o.wg.Go(l.still)
				}
			}
			o.mu.Unlock()
		}
	}
}

func (o *Opener) shrinkLocked(now time.Time) {
	for l := range o.links {
		if Stalled(l.socket) {
			l.close() // whoever uses it gives it back
		}
	}
	var kept []idle
	for i, r := range o.ready { // the ones longest unused come first
		old := now.Sub(r.since) > idleLink
		if old && o.spare > minSpare {
			o.spare--
		}
		left := len(o.ready) - i + len(kept)
		if old && left > o.spare || !r.link.fresh() {
			o.dropLocked(r.link)
			continue
		}
		kept = append(kept, r)
	}
	o.ready = kept
}
