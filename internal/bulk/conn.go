package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// TargetError says that the agent did not reach the target, or may not.
type TargetError struct {
	Reason string // the agent's words, not cleaned of control characters
}

// Error implements error.
func (e *TargetError) Error() string {
	return fmt.Sprintf("the node could not reach the target: %q", e.Reason)
}

// ErrReset says that the target, or the way to it, broke the connection.
var ErrReset = errors.New("connection reset by the target")

// drainWait bounds how long the agent may take to end what the client has given up.
const drainWait = 2 * time.Second

// Conn is one forwarded connection at the client. Reading and writing are for one
// goroutine each; Close may be called by any.
type Conn struct {
	link *link
	free func(l *link, good bool) // gives the link back, once
	// spawn starts a goroutine of whoever owns the link, who waits for it; false where
	// that is too late.
	spawn func(func()) bool

	reading sync.Mutex // held while frames are read
	body    body
	reached bool // the agent has reached the target

	// The link's writing guards these. opened is set when the agent was told of the
	// connection, ending when our last frame is about to be written: nothing follows it.
	// unused is a connection that was closed before the agent was told of it.
	opened, ending, unused bool

	mu     sync.Mutex // taken after the link's writing
	sent   bool       // our last frame is written
	got    bool       // the agent's has come
	failed error      // what reading and writing are told
	freed  bool
	closed bool
}

// Begin tells the agent of the connection, along with what r has to say already. Without
// it whatever is called first does.
func (c *Conn) Begin(r net.Conn) (int, error) {
	if Quiet(r) {
		return 0, c.begin()
	}
	b := c.link.pool.get(small)
	defer c.link.pool.put(b)
	n, err := r.Read(b[headerSize:])
	if n > 0 {
		err = c.send(b[:headerSize+n])
	}
	if err == io.EOF { // for whoever reads next
		err = nil
	}
	return n, err
}

// begin tells the agent of the connection unless it knows.
func (c *Conn) begin() error {
	c.link.writing.Lock()
	err := c.beginLocked()
	c.link.writing.Unlock()
	if err != nil {
		c.fail(fmt.Errorf("bulk connection: %w", err))
		return c.err()
	}
	return nil
}

// beginLocked is begin with the link's writing held.
func (c *Conn) beginLocked() error {
	if c.unused {
		return net.ErrClosed
	}
	if c.opened {
		return nil
	}
	c.opened = true
	return c.link.writeLocked(kindOpen, textFrame(""))
}

// fail ends the connection and its link.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.failed == nil {
		c.failed = err
	}
	c.mu.Unlock()
	c.release(false)
}

func (c *Conn) release(good bool) {
	c.mu.Lock()
	first := !c.freed
	c.freed = true
	c.mu.Unlock()
	if first {
		c.free(c.link, good)
	}
}

// err returns why the connection is over, nil if it is not.
func (c *Conn) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// Read implements io.Reader. The target's end is io.EOF; a target that was not reached
// is a *TargetError, one that broke off ErrReset.
func (c *Conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	return c.readLocked(p)
}

func (c *Conn) readLocked(p []byte) (int, error) {
	for c.body.left == 0 {
		if err := c.nextLocked(); err != nil {
			return 0, err
		}
	}
	if err := c.err(); err != nil {
		return 0, err
	}
	n, err := c.body.Read(p)
	if err != nil {
		c.fail(fmt.Errorf("bulk connection: %w", err))
		return n, c.err()
	}
	return n, nil
}

// nextLocked reads the next frame's header, and what it is unless that is data.
func (c *Conn) nextLocked() error {
	c.mu.Lock()
	got, err := c.got, c.failed
	c.mu.Unlock()
	switch {
	case err != nil:
		return err
	case got:
		return io.EOF
	}
	if err := c.begin(); err != nil {
		return err
	}
	k, n, err := readHeader(c.link.rw)
	if err == nil && (k == kindOpen || k == kindAsk) {
		err = fmt.Errorf("%w: frame of kind %d from the agent", errFrame, k)
	}
	if err != nil {
		c.fail(fmt.Errorf("bulk connection: %w", noEOF(err)))
		return c.err()
	}
	c.body.left = n
	if k == kindStill {
		return nil
	}
	c.reached = true
	if k.ends() {
		c.reached = k != kindRefused
		return c.ended(k)
	}
	return nil
}

// Answer waits until the agent has reached the target. The error is a *TargetError if it
// has not.
func (c *Conn) Answer(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := c.ask(); err != nil {
		return err
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	for !c.reached {
		if err := c.nextLocked(); err != nil && err != io.EOF {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
	return nil
}

func (c *Conn) ask() error {
	c.link.writing.Lock()
	defer c.link.writing.Unlock()
	if c.ending {
		return c.err()
	}
	if err := c.beginLocked(); err != nil {
		return err
	}
	return c.link.writeLocked(kindAsk, textFrame(""))
}

// noEOF keeps the end of a link from looking like the end of a connection.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ended handles the agent's last frame.
func (c *Conn) ended(k kind) error {
	text, err := c.body.text()
	if err != nil {
		c.fail(fmt.Errorf("bulk connection: %w", err))
		return c.err()
	}
	switch k {
	case kindRefused:
		err = &TargetError{Reason: text}
	case kindAbort:
		err = ErrReset
	default:
		err = io.EOF
	}
	c.mu.Lock()
	c.got = true
	if k != kindEnd && c.failed == nil {
		c.failed = err
	}
	c.mu.Unlock()
	if k != kindEnd {
		c.finish(kindEnd)
	}
	c.settle()
	return err
}

// finish writes our last frame, once.
func (c *Conn) finish(k kind) error {
	first, err := c.writeLast(k)
	if err != nil {
		c.fail(fmt.Errorf("bulk connection: %w", err))
		return c.err()
	}
	if first {
		c.mu.Lock()
		c.sent = true
		c.mu.Unlock()
		c.settle()
	}
	return nil
}

func (c *Conn) writeLast(k kind) (first bool, err error) {
	c.link.writing.Lock()
	defer c.link.writing.Unlock()
	if c.ending {
		return false, nil
	}
	c.ending = true
	if err := c.beginLocked(); err != nil {
		return true, err
	}
	return true, c.link.writeLocked(k, textFrame(""))
}

// settle gives the link back when both ends have come.
func (c *Conn) settle() {
	c.mu.Lock()
	over := c.sent && c.got
	c.mu.Unlock()
	if over {
		c.release(true)
	}
}

// Write implements io.Writer.
func (c *Conn) Write(p []byte) (int, error) {
	b := c.link.pool.get(min(len(p)+headerSize, chunk))
	defer func() { c.link.pool.put(b) }()
	n := 0
	for n < len(p) {
		k := copy(b[headerSize:min(len(b), chunk)], p[n:])
		if err := c.send(b[:headerSize+k]); err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// send writes one data frame.
func (c *Conn) send(b []byte) error {
	c.link.writing.Lock()
	err := c.err()
	if err == nil && c.ending {
		err = net.ErrClosed
	}
	if err != nil {
		c.link.writing.Unlock()
		return err
	}
	k := kindData
	if !c.opened {
		k, c.opened = kindOpen, true
	}
	err = c.link.writeLocked(k, b)
	c.link.writing.Unlock()
	if err != nil {
		c.fail(fmt.Errorf("bulk connection: %w", err))
		return c.err()
	}
	return nil
}

// ReadFrom implements io.ReaderFrom: it sends what r gives in large frames.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	return pour(r, c.link.pool, c.send)
}

// pour reads r until its end and sends what it gives, in a buffer that follows what
// comes at once.
func pour(r io.Reader, pool *buffers, send func(b []byte) error) (int64, error) {
	b := pool.get(small)
	defer func() { pool.put(b) }()
	var sum int64
	for {
		n, err := r.Read(b[headerSize:min(len(b), chunk)])
		if n > 0 {
			if err := send(b[:headerSize+n]); err != nil {
				return sum, err
			}
			sum += int64(n)
		}
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
		b = pool.fit(b, n+headerSize)
	}
}

// WriteTo implements io.WriterTo: it gathers what has come before it writes.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	b := c.link.pool.get(small)
	defer func() { c.link.pool.put(b) }()
	var sum int64
	for {
		n, rerr := c.gather(b)
		if n > 0 {
			written, err := w.Write(b[:n])
			sum += int64(written)
			if err != nil {
				return sum, err
			}
		}
		if rerr == io.EOF {
			return sum, nil
		}
		if rerr != nil {
			return sum, rerr
		}
		b = c.link.pool.fit(b, n)
	}
}

// gather reads once and then as much more as needs no waiting.
func (c *Conn) gather(b []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	n, err := c.readLocked(b)
	for err == nil && n < len(b) && c.link.whole() {
		var k int
		k, err = c.readLocked(b[n:])
		n += k
	}
	return n, err
}

// CloseWrite tells the target that no more will be written.
func (c *Conn) CloseWrite() error {
	if err := c.err(); err != nil {
		return err
	}
	return c.finish(kindEnd)
}

// Close ends the connection. What has not ended by itself is broken off; its link is
// kept if the agent ends its part soon.
func (c *Conn) Close() error {
	c.mu.Lock()
	again := c.freed || c.closed
	c.closed = true
	if c.failed == nil {
		c.failed = net.ErrClosed
	}
	got := c.got
	c.mu.Unlock()
	if again {
		return nil
	}
	if c.neverBegan() {
		c.release(true)
		return nil
	}
	c.link.socket.SetDeadline(time.Now().Add(drainWait))
	if got {
		c.finish(kindEnd)
		return nil
	}
	if !c.spawn(c.drain) {
		c.release(false)
	}
	return nil
}

// neverBegan reports whether the agent was not told of the connection, and will not be.
func (c *Conn) neverBegan() bool {
	if !c.link.writing.TryLock() {
		return false // it is being told
	}
	defer c.link.writing.Unlock()
	if c.opened {
		return false
	}
	c.unused, c.ending = true, true
	return true
}

// drain breaks the connection off and reads the rest of it, so that its link can carry
// another.
func (c *Conn) drain() {
	if err := c.giveUp(); err != nil {
		c.release(false)
		return
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	for !c.over() {
		k, err := c.skip()
		if err != nil {
			c.release(false)
			return
		}
		if k.ends() {
			c.mu.Lock()
			c.got = true
			c.mu.Unlock()
			c.settle()
		}
	}
}

func (c *Conn) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got || c.freed
}

// giveUp tells the agent that nothing more will be read, even where all was written.
func (c *Conn) giveUp() error {
	first, err := c.writeLast(kindAbort)
	if err == nil && !first {
		err = c.link.write(kindAbort, textFrame(""))
	}
	if err == nil {
		c.mu.Lock()
		c.sent = true
		c.mu.Unlock()
		c.settle()
	}
	return err
}

// skip reads what is left of one frame and then a whole one, and forgets both.
func (c *Conn) skip() (kind, error) {
	if err := c.body.discard(); err != nil {
		return 0, err
	}
	k, n, err := readHeader(c.link.rw)
	if err != nil {
		return 0, err
	}
	if k == kindOpen {
		return 0, errFrame
	}
	c.body.left = n
	return k, c.body.discard()
}
