package client

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sallyport.dev/internal/mux"
)

// conn is one connection through a forward, which counts and tells of it.
type conn struct {
	f      *Forward
	number uint64
	from   net.Addr

	way            ForwardConn
	sent, received atomic.Int64
	once           sync.Once
	finished       atomic.Bool // CloseWrite was called

	mu     sync.Mutex
	broken error
}

// answerer is a connection that knows whether its target has been reached.
type answerer interface {
	// Answer waits for that. The error is a *ForwardRefusedError if it has not.
	Answer(ctx context.Context) error
}

// beginner is a connection of which the agent is told along with what local has said
// already, if that is left to it.
type beginner interface {
	begin(local net.Conn) (sent int, err error)
}

func (f *Forward) newConn(from net.Addr) *conn {
	return &conn{f: f, number: f.number.Add(1), from: from}
}

// connect opens the connection: beside the data channel where the agent offers that and
// it works, else through it.
func (c *conn) connect(ctx context.Context) (err error) {
	if c.way, err = c.f.dial(ctx); err != nil {
		c.tell(ForwardRefused, err)
		return err
	}
	c.f.open.Add(1)
	c.tell(ForwardOpened, nil)
	return nil
}

func (f *Forward) dial(ctx context.Context) (ForwardConn, error) {
	if f.terms.bulk {
		c, err := f.cfg.Bulk.Open(ctx)
		var refused *ForwardRefusedError
		if err == nil || errors.As(err, &refused) || ctx.Err() != nil {
			return c, err
		}
		f.channel.cfg.Logger.Debug("opening a connection beside the data channel", "error", err)
	}
	return f.way.open(ctx)
}

// begin sends what local has said already.
func (c *conn) begin(local net.Conn) {
	b, ok := c.way.(beginner)
	if !ok {
		return
	}
	n, err := b.begin(local)
	c.sent.Add(int64(n))
	if err != nil {
		c.breaks(err) // reading and writing will find it, too
	}
}

func (c *conn) answer(ctx context.Context) error {
	a, ok := c.way.(answerer)
	if !ok {
		return nil
	}
	err := a.Answer(ctx)
	if err != nil {
		c.breaks(err)
	}
	return err
}

func (c *conn) tell(kind ForwardEventKind, err error) {
	c.f.cfg.Event(ForwardEvent{
		Kind: kind, Conn: c.number, From: c.from, At: time.Now(),
		Sent: c.sent.Load(), Received: c.received.Load(), Err: err,
	})
}

// breaks notes why the connection is at its end; the first cause counts. That this end
// has closed it is none.
func (c *conn) breaks(err error) {
	if isClosed(err) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = err
	}
}

// Read implements io.Reader.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.way.Read(p)
	c.received.Add(int64(n))
	if c.closedWhole(err) {
		return n, io.EOF
	}
	if err != nil && err != io.EOF {
		c.breaks(err)
	}
	return n, err
}

// closedWhole reports whether an error of reading says no more than that CloseWrite has
// closed the connection, where half of it cannot be closed.
func (c *conn) closedWhole(err error) bool { return isClosed(err) && c.finished.Load() }

// isClosed reports whether an error says that this end has closed the connection.
func isClosed(err error) bool {
	return errors.Is(err, mux.ErrClosed) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}

// WriteTo implements io.WriterTo, so that what arrived is not copied once more.
func (c *conn) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(&counter{w, &c.received}, c.way)
	if c.closedWhole(err) {
		return n, nil
	}
	if err != nil {
		c.breaks(err)
	}
	return n, err
}

// counter counts what is written to w.
type counter struct {
	w io.Writer
	n *atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// Write implements io.Writer.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.way.Write(p)
	c.sent.Add(int64(n))
	if err != nil {
		c.breaks(err)
	}
	return n, err
}

// ReadFrom implements io.ReaderFrom: a way that can read for itself need not have it
// copied.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	way, ok := c.way.(io.ReaderFrom)
	if !ok {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	n, err := way.ReadFrom(&countedReader{r, &c.sent})
	if err != nil {
		c.breaks(err)
	}
	return n, err
}

// countedReader counts what is read from r.
type countedReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// CloseWrite implements ForwardConn.
func (c *conn) CloseWrite() error {
	c.finished.Store(true)
	return c.way.CloseWrite()
}

// Close implements io.Closer.
func (c *conn) Close() error {
	var err error
	c.once.Do(func() {
		err = c.way.Close()
		c.f.open.Add(-1)
		c.mu.Lock()
		broken := c.broken
		c.mu.Unlock()
		kind := ForwardClosed
		var refused *ForwardRefusedError
		if errors.As(broken, &refused) {
			kind = ForwardRefused
		}
		c.tell(kind, broken)
	})
	return err
}
