package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/smithy-go"

	"sallyport.dev/client"
)

const (
	// openPatience is how long a new connection waits for a session that is being
	// started anew.
	openPatience = 20 * time.Second
	firstRetry   = time.Second
	lastRetry    = 10 * time.Second
	// shortLived is how long a session must last to count as one that worked, and
	// maxShort how many in a row may not.
	shortLived = 10 * time.Second
	maxShort   = 4
)

// portSession is one session that forwards: *client.Forward.
type portSession interface {
	Run(ctx context.Context) (client.End, error)
	Ready() <-chan struct{}
	// Open opens a connection and waits until the target was reached.
	Open(ctx context.Context) (client.ForwardConn, error)
	// Carry carries a local connection, which it closes, and waits for nothing.
	Carry(ctx context.Context, local net.Conn)
}

// startPort starts a session to a target. leave ends it when the person leaves.
type startPort func(ctx context.Context, l *lane) (s portSession, id string, leave func(), err error)

// lane is the way to one target: a session, and another when that is lost.
type lane struct {
	target target
	start  startPort
	tell   func(tunnelEvent)
	wait   func(ctx context.Context, d time.Duration) error

	sent, received atomic.Int64
	conns          atomic.Int64

	mu      sync.Mutex
	session portSession // nil while there is none
	changed chan struct{}
	over    error     // why there will be none any more
	idle    time.Time // since when there has been no connection
}

func newLane(t target, start startPort, tell func(tunnelEvent)) *lane {
	return &lane{target: t, start: start, tell: tell, wait: sleep, changed: make(chan struct{}), idle: time.Now()}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run keeps a session up until ctx ends, which is no error, or until it is plain that
// there will be none. The first one must succeed.
func (l *lane) run(ctx context.Context) error {
	err := l.keep(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	l.set(nil, overError{err})
	return err
}

// overError says why there will be no session any more, and is client.ErrForwardOver.
type overError struct{ cause error }

func (e overError) Error() string {
	if e.cause == nil {
		return client.ErrForwardOver.Error()
	}
	return e.cause.Error()
}

func (e overError) Is(target error) bool { return target == client.ErrForwardOver }
func (e overError) Unwrap() error        { return e.cause }

func (l *lane) keep(ctx context.Context) error {
	retry, short := firstRetry, 0
	for first := true; ; first = false {
		began := time.Now()
		worked, err := l.one(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Since(began) > shortLived {
			retry, short = firstRetry, 0
		} else if worked {
			short++
		}
		if first && !worked || final(err) || short >= maxShort {
			return err
		}
		l.tell(lostEvent(l.target, worked, err))
		if err := l.wait(ctx, retry); err != nil {
			return err
		}
		retry = min(2*retry, lastRetry)
	}
}

// lostEvent tells why there is no session now.
func lostEvent(t target, worked bool, err error) tunnelEvent {
	e := tunnelEvent{Event: eventFailed, Target: t.String(), Error: errorText(err)}
	if worked {
		e.Event = eventLost
	}
	if expired(err) {
		e.Error += "; log in again, and it goes on"
	}
	return e
}

// one runs one session to its end; worked tells whether it was ready. The error is never
// nil.
func (l *lane) one(ctx context.Context) (worked bool, err error) {
	s, id, leave, err := l.start(ctx, l)
	if err != nil {
		return false, err
	}
	type end struct {
		client.End
		err error
	}
	done := make(chan end, 1)
	go func() { // ends with the session, and is waited for below
		e, err := s.Run(ctx)
		done <- end{e, err}
	}()
	var e end
	select {
	case <-s.Ready():
		l.set(s, nil)
		l.tell(tunnelEvent{Event: eventUp, Target: l.target.String(), Session: id})
		e, worked = <-done, true
		l.set(nil, nil)
	case e = <-done:
	}
	if ctx.Err() != nil {
		leave()
	}
	return worked, endOf(e.End, e.err)
}

// endedError is that the other side ended a session, in its words.
type endedError struct{ words string }

func (e *endedError) Error() string { return e.words }

func endOf(e client.End, err error) error {
	switch {
	case err != nil:
		return err
	case e.Output != "":
		return &endedError{client.Clean(words(e.Output))}
	}
	return &endedError{"the session has ended"}
}

// How a server words that somebody ended a session on purpose, and that the access that
// the session was opened on is over.
const (
	terminatedBy = "Session terminated by "
	accessEnded  = "Your access ended: "
)

// again are the codes of refusals that pass: those of a server or a node that is away or
// busy, and of credentials that may be renewed.
var again = []string{
	"TargetNotConnected", "InternalServerError", "InternalFailure", "ServiceUnavailable", "ServiceUnavailableException",
	"Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded",
	"ExpiredToken", "ExpiredTokenException", "RequestExpired",
}

// final reports whether starting another session is of no use, or not wanted.
func final(err error) bool {
	var api smithy.APIError
	var ended *endedError
	var status *statusError
	switch {
	case errors.As(err, &status): // a person was asked, and told
		return true
	case errors.As(err, &api):
		return !slices.Contains(again, api.ErrorCode())
	case errors.As(err, &ended):
		return strings.HasPrefix(ended.words, terminatedBy) || strings.HasPrefix(ended.words, accessEnded)
	case errors.Is(err, client.ErrNoRegion), noCredentials(err):
		return true
	}
	return false
}

// expired reports whether the credentials have to be renewed.
func expired(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && slices.Contains([]string{"ExpiredToken", "ExpiredTokenException", "RequestExpired"}, api.ErrorCode())
}

func (l *lane) set(s portSession, over error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session, l.over = s, over
	close(l.changed)
	l.changed = make(chan struct{})
}

// up reports whether there is a session.
func (l *lane) up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session != nil
}

// ready waits until there is a session.
func (l *lane) ready(ctx context.Context) (portSession, error) {
	for {
		l.mu.Lock()
		s, over, changed := l.session, l.over, l.changed
		l.mu.Unlock()
		if s != nil || over != nil {
			return s, over
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// patiently bounds the wait for a session.
func (l *lane) patiently(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, openPatience, fmt.Errorf("there was no session for %v", openPatience))
}

// carry carries a local connection, waiting for a session if it must.
func (l *lane) carry(ctx context.Context, local net.Conn) error {
	waiting, cancel := l.patiently(ctx)
	s, err := l.ready(waiting)
	cancel()
	if err != nil {
		abort(local)
		return err
	}
	s.Carry(ctx, &countedConn{local, l})
	return nil
}

// open opens a connection to the target, waiting for a session if it must.
func (l *lane) open(ctx context.Context) (client.ForwardConn, error) {
	ctx, cancel := l.patiently(ctx)
	defer cancel()
	for {
		s, err := l.ready(ctx)
		if err != nil {
			return nil, err
		}
		c, err := s.Open(ctx)
		if !errors.Is(err, client.ErrForwardOver) {
			return c, err
		}
		if err := l.wait(ctx, firstRetry/10); err != nil { // its successor comes
			return nil, err
		}
	}
}

// use counts a connection while f runs.
func (l *lane) use(f func()) {
	l.conns.Add(1)
	defer func() {
		l.mu.Lock()
		l.idle = time.Now()
		l.mu.Unlock()
		l.conns.Add(-1)
	}()
	f()
}

// idleFor is how long no connection has been using the lane.
func (l *lane) idleFor(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns.Load() > 0 {
		return 0
	}
	return now.Sub(l.idle)
}

// halfCloser is a connection of which one direction can end.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// splice carries bytes between a local connection and one through the forward until
// both directions have ended or one broke. It closes both.
func (l *lane) splice(ctx context.Context, local net.Conn, remote client.ForwardConn) {
	stop := context.AfterFunc(ctx, func() { local.Close(); remote.Close() })
	defer stop()
	defer remote.Close()
	defer local.Close()
	var back sync.WaitGroup
	back.Go(func() {
		if _, err := io.Copy(&counted{local, &l.received}, remote); err != nil {
			abort(local)
			remote.Close()
		} else if h, ok := local.(halfCloser); !ok || h.CloseWrite() != nil {
			local.Close()
		}
	})
	buf := buffers.Get().(*[]byte)
	_, err := io.CopyBuffer(&counted{remote, &l.sent}, readerOnly{local}, *buf)
	buffers.Put(buf)
	if err != nil || remote.CloseWrite() != nil {
		remote.Close()
		local.Close()
	}
	back.Wait()
}

// buffers are what is read of local connections at once: as much as a connection
// through a forward takes in one piece.
var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// readerOnly keeps io.CopyBuffer from asking the connection to write itself.
type readerOnly struct{ io.Reader }

// counted counts what is written.
type counted struct {
	io.Writer
	n *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// countedConn counts what a local connection carries.
type countedConn struct {
	net.Conn
	l *lane
}

// Read implements net.Conn.
func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.l.sent.Add(int64(n))
	return n, err
}

// Write implements net.Conn.
func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.l.received.Add(int64(n))
	return n, err
}

// CloseWrite ends one direction, where the connection can.
func (c *countedConn) CloseWrite() error {
	if h, ok := c.Conn.(halfCloser); ok {
		return h.CloseWrite()
	}
	return c.Conn.Close()
}

// abort closes a connection so that the program behind it learns that it broke, and
// does not take it for the end of what it was sent.
func abort(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}
