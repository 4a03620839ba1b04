package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"sallyport.dev/client"
)

const (
	// maxTargets bounds the sessions of one proxy, and targetIdle how long one is kept
	// that nobody uses.
	maxTargets = 64
	targetIdle = 2 * time.Minute
	// refusedFor is how long a target that was refused is not asked for again.
	refusedFor = 10 * time.Second
	// socksPatience bounds how long a program may take to say what it wants.
	socksPatience = 15 * time.Second
)

// socks is a proxy: one lane for each target that programs have asked for.
type socks struct {
	start startPort
	tell  func(tunnelEvent)
	crew  *sync.WaitGroup // of whoever waits for the lanes
	log   *slog.Logger
	now   func() time.Time

	mu             sync.Mutex
	lanes          map[target]*socksLane
	sent, received int64 // of lanes that are gone
}

// socksLane is a lane that is kept while it is used.
type socksLane struct {
	*lane
	users  int // connections that hold it; guarded by socks.mu
	cancel context.CancelFunc
	ended  chan struct{}
	failed time.Time // when it ended by itself; zero while it has not
	err    error
}

func newSOCKS(start startPort, tell func(tunnelEvent), crew *sync.WaitGroup, log *slog.Logger) *socks {
	return &socks{start: start, tell: tell, crew: crew, log: log, now: time.Now, lanes: map[target]*socksLane{}}
}

// serve serves one program.
func (s *socks) serve(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	defer c.Close()
	c.SetDeadline(s.now().Add(socksPatience))
	to, err := socksRequest(c)
	if err != nil {
		var refused *socksError
		if errors.As(err, &refused) {
			socksReply(c, refused.reply)
		}
		s.log.Debug("serving SOCKS", "error", err)
		return
	}
	c.SetDeadline(time.Time{})
	if err := s.carry(ctx, c, to); err != nil {
		socksReply(c, replyTo(err))
	}
}

// carry opens the connection that was asked for, answers, and carries it. An error is
// one that is still to be answered.
func (s *socks) carry(ctx context.Context, c net.Conn, to target) (err error) {
	l, err := s.hold(ctx, to)
	if err != nil {
		return err
	}
	defer s.release(l)
	l.use(func() {
		var remote client.ForwardConn
		if remote, err = l.open(ctx); err != nil {
			l.refused(err)
			return
		}
		if socksReply(c, socksSucceeded) != nil {
			remote.Close()
			return
		}
		l.splice(ctx, c, remote)
	})
	if err != nil {
		select {
		case <-l.ended: // it was the session that was refused
			return l.err
		default:
		}
	}
	return err
}

// replyTo words an error as SOCKS does.
func replyTo(err error) byte {
	var refused *client.ForwardRefusedError
	switch {
	case errors.As(err, &refused):
		return socksRefused
	case isDenied(err):
		return socksNotAllowed
	}
	return socksFailure
}

var errManyTargets = fmt.Errorf("%d targets are in use at once, and there may be no more", maxTargets)

// hold returns the lane to a target, a new one if need be.
func (s *socks) hold(ctx context.Context, to target) (*socksLane, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidyLocked()
	l := s.lanes[to]
	if l != nil && !l.failed.IsZero() {
		return nil, l.err
	}
	if l == nil {
		if len(s.lanes) >= maxTargets && !s.evictLocked() {
			s.tell(tunnelEvent{Event: eventRefused, Target: to.String(), Error: errManyTargets.Error()})
			return nil, errManyTargets
		}
		l = s.startLocked(ctx, to)
	}
	l.users++
	return l, nil
}

func (s *socks) startLocked(ctx context.Context, to target) *socksLane {
	ctx, cancel := context.WithCancel(ctx)
	l := &socksLane{lane: newLane(to, s.start, s.tell), cancel: cancel, ended: make(chan struct{})}
	s.lanes[to] = l
	s.crew.Go(func() {
		defer cancel()
		err := l.run(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		l.failed, l.err = s.now(), err
		if err == nil && s.lanes[to] == l {
			s.dropLocked(l)
		}
		close(l.ended)
	})
	return l
}

func (s *socks) release(l *socksLane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.users--
}

// tidyLocked ends lanes that nobody uses, and forgets refusals that are old.
func (s *socks) tidyLocked() {
	now := s.now()
	for _, l := range s.lanes {
		switch {
		case !l.failed.IsZero() && now.Sub(l.failed) > refusedFor:
			s.dropLocked(l)
		case l.failed.IsZero() && l.users == 0 && l.idleFor(now) > targetIdle:
			s.dropLocked(l)
			l.cancel()
		}
	}
}

// evictLocked makes room: the lane that has been idle longest goes. It reports false if
// all are in use.
func (s *socks) evictLocked() bool {
	var oldest *socksLane
	now := s.now()
	for _, l := range s.lanes {
		if l.users == 0 && (oldest == nil || l.idleFor(now) > oldest.idleFor(now)) {
			oldest = l
		}
	}
	if oldest == nil {
		return false
	}
	s.dropLocked(oldest)
	oldest.cancel()
	return true
}

func (s *socks) dropLocked(l *socksLane) {
	delete(s.lanes, l.target)
	s.sent += l.sent.Load()
	s.received += l.received.Load()
}

// tidy ends idle lanes until ctx does.
func (s *socks) tidy(ctx context.Context) {
	for sleep(ctx, targetIdle/4) == nil {
		s.mu.Lock()
		s.tidyLocked()
		s.mu.Unlock()
	}
}

func (s *socks) usage() usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := usage{sent: s.sent, received: s.received}
	live := 0
	for _, l := range s.lanes {
		if l.failed.IsZero() {
			live++
		}
		u.conns += int(l.conns.Load())
		u.sent += l.sent.Load()
		u.received += l.received.Load()
	}
	u.state = count(live, "target")
	return u
}
