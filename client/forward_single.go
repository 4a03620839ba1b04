package client

import (
	"context"
	"errors"
	"io"
	"sync"

	"sallyport.dev/wire"
)

// errOneOnly says that a session carries one connection and has had it.
var errOneOnly = errors.New("the session carries one connection only")

// singleWay carries bytes as they are: of one connection in all, or of one after the
// other with the agents that do not multiplex (basic mode).
type singleWay struct {
	f      *Forward
	serial bool // one after the other
	turn   chan struct{}

	mu      sync.Mutex
	changed *sync.Cond
	current *singleConn // nil between connections
	had     bool        // there was one
	ending  bool        // no connection is waited for any more
	parting int64       // number of the message that says it has ended
	err     error       // why the way is closed
}

func newSingleWay(f *Forward, serial bool) *singleWay {
	w := &singleWay{f: f, serial: serial, turn: make(chan struct{}, 1)}
	w.changed = sync.NewCond(&w.mu)
	return w
}

func (w *singleWay) keepAlive() {} // there is nothing that the target would not get

// open waits for its turn.
func (w *singleWay) open(ctx context.Context) (ForwardConn, error) {
	select {
	case w.turn <- struct{}{}:
	case <-w.f.over:
		return nil, ErrForwardOver
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		<-w.turn
		return nil, w.err
	case w.had && !w.serial:
		<-w.turn
		return nil, errOneOnly
	}
	w.had = true
	r, p := io.Pipe()
	w.current = &singleConn{way: w, r: r, w: p}
	w.changed.Broadcast()
	return w.current, nil
}

// take hands what the target sent to the connection. Before there is one it waits: a
// target that speaks first must not have spoken to nobody.
func (w *singleWay) take(pt wire.PayloadType, payload []byte) error {
	if pt != wire.PayloadOutput {
		return nil
	}
	w.mu.Lock()
	if w.current == nil && w.had && !w.f.channel.isAcknowledged(w.parting) {
		w.mu.Unlock()
		return nil // the agent still sends what was for the last one
	}
	for w.current == nil && w.err == nil && !w.ending {
		w.changed.Wait()
	}
	c := w.current
	w.mu.Unlock()
	if c != nil {
		c.w.Write(payload) // an error: the connection is gone, and so is who would read this
	}
	return nil
}

// end lets go of who waits for a connection; one that there is gets what has arrived.
func (w *singleWay) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending = true
	w.changed.Broadcast()
}

func (w *singleWay) close(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	w.err = err
	if w.current != nil {
		w.current.w.CloseWithError(io.EOF) // the session's end is the target's
	}
	w.changed.Broadcast()
}

// done ends a connection, and with it one that is the only one.
func (w *singleWay) done(c *singleConn) {
	c.r.Close()
	end := wire.FlagTerminateSession
	if w.serial {
		end = wire.FlagDisconnectToPort
	}
	w.mu.Lock()
	if w.err == nil {
		w.f.channel.trySend(wire.PayloadFlag, flagPayload(end), true)
		w.parting = w.f.channel.lastSent()
	}
	w.current = nil
	w.mu.Unlock()
	<-w.turn
}

// singleConn is the connection of the moment.
type singleConn struct {
	way  *singleWay
	r    *io.PipeReader
	w    *io.PipeWriter
	once sync.Once
}

// Read implements io.Reader.
func (c *singleConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// Write implements io.Writer.
func (c *singleConn) Write(p []byte) (total int, err error) {
	for len(p) > 0 {
		n := min(len(p), maxPayload)
		if err := c.way.f.channel.Send(c.way.f.ctx, wire.PayloadOutput, p[:n]); err != nil {
			return total, err
		}
		total += n
		p = p[n:]
	}
	return total, nil
}

// CloseWrite implements ForwardConn: AWS's agent cannot be told of half an end.
func (c *singleConn) CloseWrite() error { return c.Close() }

// Close implements io.Closer.
func (c *singleConn) Close() error {
	c.once.Do(func() { c.way.done(c) })
	return nil
}
