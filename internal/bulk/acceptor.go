package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	// minParked and maxParked bound the connections that wait at the gateway for the
	// client's; maxServed bounds them and those that it was paired with.
	minParked, maxParked = 2, 32
	maxServed            = maxLinks + maxParked
	// shortPark is a wait at the gateway so short that it counts as a failure.
	shortPark = time.Second
)

// Acceptor is the agent's end of a session's bulk connections: it keeps some waiting at
// the gateway, and connects what the client opens to the target.
type Acceptor struct {
	maker  maker
	target func(context.Context) (net.Conn, error)
	log    *slog.Logger

	wg      sync.WaitGroup
	changed chan struct{} // room for one

	mu       sync.Mutex
	parked   int // waiting at the gateway, or being dialled
	dialling int
	served   int
	want     int // that should wait
	failures int
	retry    time.Time // not before
	off      bool      // the server has no bulk connections
	links    map[*link]bool
}

// NewAcceptor makes an acceptor. peer is the client's fingerprint; target connects to
// the session's target, and its errors are told to the person.
func NewAcceptor(d Dialer, p *Prover, id *Identity, peer string, target func(context.Context) (net.Conn, error), log *slog.Logger) *Acceptor {
	return &Acceptor{
		maker:  maker{dialer: d, prover: p, config: id.config(peer), pool: &buffers{}},
		target: target, log: log, want: minParked, changed: make(chan struct{}, 1),
		links: map[*link]bool{},
	}
}

// Run serves until ctx ends, and waits until nothing of it is left.
func (a *Acceptor) Run(ctx context.Context) {
	defer a.wg.Wait()
	look := time.NewTicker(keepEvery)
	defer look.Stop()
	for {
		retry := time.NewTimer(a.grow(ctx))
		select {
		case <-ctx.Done():
		case <-a.changed:
		case <-retry.C:
		case now := <-look.C:
			a.look(now)
		}
		retry.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// look closes the links whose other end is gone without a word, and says something on
// those that are silent.
func (a *Acceptor) look(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for l := range a.links {
		switch {
		case Stalled(l.socket):
			l.close()
		case l.isSilent(now):
			a.wg.Go(l.still)
		}
	}
}

// grow dials what is missing, and returns when to look again at the latest.
func (a *Acceptor) grow(ctx context.Context) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if left := time.Until(a.retry); left > 0 {
		return left
	}
	for !a.off && a.parked < a.want && a.parked+a.served < maxServed && (a.failures == 0 || a.dialling == 0) {
		a.parked++
		a.dialling++
		a.wg.Go(func() {
			a.attend(ctx)
			a.wake()
		})
	}
	return maxRetry
}

func (a *Acceptor) wake() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// attend is one connection from its dialling to its end.
func (a *Acceptor) attend(ctx context.Context) {
	c, err := a.maker.dial(ctx)
	a.dialled(ctx, err)
	if err != nil {
		return
	}
	defer c.socket.Close()
	stop := context.AfterFunc(ctx, func() { c.socket.Close() })
	defer stop()
	if !a.park(c) {
		return
	}
	l, err := a.maker.shake(ctx, c, true)
	a.entered(l)
	defer a.leave(l)
	if err != nil {
		a.log.Debug("bulk connection", "error", err)
		return
	}
	if err := a.serve(ctx, l); err != nil && ctx.Err() == nil {
		a.log.Debug("bulk connection ended", "error", err)
	}
}

// dialled notes how dialling went.
func (a *Acceptor) dialled(ctx context.Context, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dialling--
	if err == nil {
		a.failures = 0
		a.wake()
		return
	}
	a.parked--
	if ctx.Err() != nil {
		return
	}
	var refused *RefusedError
	if errors.As(err, &refused) && refused.Permanent() {
		a.off = true
	}
	a.failedLocked()
	a.log.Debug("no bulk connection", "error", err, "for good", a.off)
}

func (a *Acceptor) failedLocked() {
	if now := time.Now(); !now.Before(a.retry) { // what fails together fails once
		a.retry = now.Add(min(firstRetry<<min(a.failures, 10), maxRetry))
		a.failures++
	}
}

// park waits at the gateway for the client's end, and reports whether it came. The
// gateway then says how many more clients are waiting.
func (a *Acceptor) park(c *dialled) bool {
	began := time.Now()
	var more [1]byte
	_, err := io.ReadFull(c.Conn, more[:])
	if err != nil && c.raw {
		a.maker.missed.Add(1)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parked--
	if err != nil {
		if time.Since(began) < shortPark {
			a.failedLocked()
		}
		return false
	}
	a.served++
	a.want = min(max(minParked, int(more[0])), maxParked)
	a.wake()
	return true
}

// entered notes a link, unless it is nil.
func (a *Acceptor) entered(l *link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l != nil {
		a.links[l] = true
	}
}

func (a *Acceptor) leave(l *link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.links, l)
	a.served--
}

// serve carries one forwarded connection after the other, until the link ends.
func (a *Acceptor) serve(ctx context.Context, l *link) error {
	var s *served
	defer func() {
		l.close()
		if s != nil {
			s.breakOff()
			<-s.done
		}
	}()
	for {
		k, n, err := readHeader(l.rw)
		if err != nil {
			return err
		}
		b := &body{l: l, left: n}
		if k == kindOpen {
			if s != nil && !s.isOver() {
				return fmt.Errorf("%w: a connection was opened before the last one had ended", errFrame)
			}
			s = a.begin(ctx, l)
		}
		if err := s.take(k, b); err != nil {
			return err
		}
	}
}

// served is one forwarded connection at the agent. The goroutine that reads the link
// takes what the client says; another one, carry, sends what the target says.
type served struct {
	link   *link
	target net.Conn // nil where it was not reached
	dead   bool     // the target takes nothing more
	ended  bool     // the client's last frame has come
	done   chan struct{}

	last bool // our last frame is written; under the link's writing

	mu     sync.Mutex
	broken bool // the client gave the connection up
	halves int  // directions that have ended
}

// begin connects to the target and starts to carry what it says.
func (a *Acceptor) begin(ctx context.Context, l *link) *served {
	s := &served{link: l, done: make(chan struct{})}
	target, err := a.target(ctx)
	if err != nil {
		defer close(s.done)
		s.dead = true
		s.writeLast(kindRefused, err.Error())
		return s
	}
	s.target = target
	l.writing.Lock()
	l.mute = false
	l.writing.Unlock()
	a.wg.Go(func() { s.carry(ctx) })
	return s
}

// isOver reports whether the client had reason to open another connection.
func (s *served) isOver() bool {
	s.link.writing.Lock()
	over := s.ended && s.last
	s.link.writing.Unlock()
	if over {
		<-s.done // a moment at most
	}
	return over
}

// carry sends what the target says, and how it ends.
func (s *served) carry(ctx context.Context) {
	defer close(s.done)
	defer s.half()
	stop := context.AfterFunc(ctx, func() { s.target.Close() })
	defer stop()
	sound := true
	_, err := pour(s.target, s.link.pool, func(b []byte) error {
		err := s.link.write(kindData, b)
		sound = err == nil
		return err
	})
	if !sound {
		s.link.close()
		return
	}
	if err != nil {
		s.writeLast(kindAbort, "")
		return
	}
	s.writeLast(kindEnd, "")
}

// writeLast writes our last frame.
func (s *served) writeLast(k kind, text string) {
	s.link.writing.Lock()
	defer s.link.writing.Unlock()
	s.last, s.link.mute = true, true
	if s.link.writeLocked(k, textFrame(text)) != nil {
		s.link.close()
	}
}

// half notes that one direction has ended. After both the target is closed.
func (s *served) half() {
	s.mu.Lock()
	s.halves++
	over := s.halves == 2
	s.mu.Unlock()
	if over {
		s.target.Close()
	}
}

// take acts on a frame from the client, of a connection or of the one before.
func (s *served) take(k kind, b *body) error {
	switch {
	case k == kindStill:
		return nil
	case s == nil || s.ended:
		// The client gave up what had ended at the same moment.
		if k != kindAbort {
			return fmt.Errorf("%w: frame of kind %d outside of a connection", errFrame, k)
		}
		if s != nil {
			s.breakOff()
		}
		return b.discard()
	case k == kindOpen, k == kindData:
		return s.pass(b)
	case k == kindAsk:
		return s.answer()
	case !k.ends(), k == kindRefused:
		return fmt.Errorf("%w: frame of kind %d from the client", errFrame, k)
	}
	s.ended = true
	if s.target == nil {
		return b.discard()
	}
	if k == kindAbort {
		s.breakOff()
	} else {
		s.endWriting()
	}
	s.half()
	return b.discard()
}

// answer tells that the target was reached. A refusal was told already, and the target's
// end is an answer, too.
func (s *served) answer() error {
	s.link.writing.Lock()
	defer s.link.writing.Unlock()
	if s.last {
		return nil
	}
	return s.link.writeLocked(kindReached, textFrame(""))
}

// pass writes a frame's payload to the target.
func (s *served) pass(b *body) error {
	if s.dead {
		return b.discard()
	}
	p := s.link.pool.get(min(b.left, chunk))
	defer s.link.pool.put(p)
	for b.left > 0 {
		n, err := b.gather(p)
		if err != nil {
			return err
		}
		if _, err := s.target.Write(p[:n]); err != nil {
			s.dead = true // how it broke is for carry to find and to tell
			return b.discard()
		}
	}
	return nil
}

func (s *served) endWriting() {
	if c, ok := s.target.(interface{ CloseWrite() error }); ok && !s.dead {
		_ = c.CloseWrite() // a target that has gone is found by carry
	}
}

// breakOff closes the target as the client's own end was closed: at once.
func (s *served) breakOff() {
	s.mu.Lock()
	first := !s.broken
	s.broken = true
	s.mu.Unlock()
	if !first || s.target == nil {
		return
	}
	if c, ok := s.target.(*net.TCPConn); ok {
		_ = c.SetLinger(0) // a reset tells the target that data was lost
	}
	s.target.Close()
}
