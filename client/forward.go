package client

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"sallyport.dev/wire"
)

const (
	// inUseEvery is how often a forward with silent connections shows itself.
	inUseEvery = 30 * time.Second
	// goodbye is how long leaving waits for the agent.
	goodbye = time.Second
)

// ForwardConn is one connection through a forward. CloseWrite says that no more will be
// written, where the agent can tell the target so; elsewhere it closes the connection,
// as AWS's programs do.
type ForwardConn interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// BulkDialer opens a forward's connections beside the data channel, when the agent
// offers that.
type BulkDialer interface {
	// Answer takes the agent's offer and says what to tell it.
	Answer(offer wire.BulkOffer) (wire.BulkAnswer, error)
	// Open opens a connection to the target. The error is a *ForwardRefusedError where
	// the target cannot be reached; after any other, the connection is opened through
	// the data channel.
	Open(ctx context.Context) (ForwardConn, error)
	// Close closes what is open.
	Close()
}

// ForwardConfig says how a forward behaves.
type ForwardConfig struct {
	// Event, if set, is told of each connection. It is called by several goroutines and
	// must not block.
	Event func(ForwardEvent)
	// Bulk, if set, is used when the agent offers it.
	Bulk BulkDialer
}

// ForwardEventKind says what happened to a connection.
type ForwardEventKind int

// What happens to connections.
const (
	ForwardOpened  ForwardEventKind = iota // it was accepted, or opened with Open
	ForwardClosed                          // it ended; Err says why if it broke
	ForwardRefused                         // the target was not reached; Err says why
)

// ForwardEvent is news of one connection.
type ForwardEvent struct {
	Kind ForwardEventKind
	Conn uint64   // the connection's number, from 1
	From net.Addr // who connected; nil where Open was called
	At   time.Time
	// Sent and Received are the bytes to and from the target so far.
	Sent, Received int64
	Err            error
}

// ForwardRefusedError says that the node did not reach the target, or may not.
type ForwardRefusedError struct {
	Reason string // the agent's words, not cleaned of control characters; may be empty
}

// Error implements error.
func (e *ForwardRefusedError) Error() string {
	if e.Reason == "" {
		return "the node could not connect to the destination port"
	}
	return Clean(e.Reason)
}

// ErrForwardOver says that a forward has ended.
var ErrForwardOver = errors.New("the forward has ended")

// opener is one way to carry a forward's connections over the data channel.
type opener interface {
	open(ctx context.Context) (ForwardConn, error)
	// take handles what the agent sends; it may block, which holds the agent back.
	take(pt wire.PayloadType, payload []byte) error
	// keepAlive shows the server that the forward is in use.
	keepAlive()
	// end says that the session is over, so that nothing new is to be waited for.
	end()
	// close ends every connection; err is what they are told.
	close(err error)
}

// Forward is the client's end of one Port session: connections to the one target that
// the session's document names. Whether they share the data channel, take turns on it
// or have connections of their own follows from what the agent can do.
type Forward struct {
	cfg     ForwardConfig
	channel *DataChannel
	terms   forwardTerms    // of the handshake; fixed before ready is closed
	way     opener          // set before ready is closed
	ready   chan struct{}   // closed when connections can be opened
	over    chan struct{}   // closed when Run is about to return
	ctx     context.Context // of Run, which everything of the forward lives in; set by it
	number  atomic.Uint64   // of the last connection
	ending  atomic.Bool     // the server has closed the channel
	left    atomic.Bool     // the agent knows that the session is over
	open    atomic.Int64    // connections that are open
}

// NewForward prepares a forward; Run opens it. The handlers of cfg are not used.
func NewForward(cfg ChannelConfig, fc ForwardConfig) *Forward {
	f := &Forward{cfg: fc, ready: make(chan struct{}), over: make(chan struct{})}
	if fc.Event == nil {
		f.cfg.Event = func(ForwardEvent) {}
	}
	cfg.Handlers = map[string]Handler{Port: (*portHandler)(f)}
	cfg.closing = f.closing
	f.channel = NewDataChannel(cfg)
	return f
}

// Ready is closed when the handshake is done and connections can be opened.
func (f *Forward) Ready() <-chan struct{} { return f.ready }

// Properties returns the document's properties. It is to be called once the forward is
// ready.
func (f *Forward) Properties() ForwardProperties { return f.terms.properties }

// Run opens the data channel and keeps it open until the session ends, as
// DataChannel.Run does. When ctx ends it first tells the agent that the session is over,
// for which it waits a moment.
func (f *Forward) Run(ctx context.Context) (End, error) {
	inner, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	f.ctx = inner
	var crew crew
	crew.run(stop, func() { f.watch(ctx, inner, stop) })
	crew.run(stop, func() { f.keepInUse(inner) })
	end, err := f.channel.Run(inner)
	stop(nil)
	close(f.over)
	if f.isReady() {
		f.way.close(ErrForwardOver)
	}
	if f.cfg.Bulk != nil {
		f.cfg.Bulk.Close()
	}
	crew.wait()
	if ctx.Err() != nil {
		return End{}, context.Cause(ctx)
	}
	return end, err
}

// closing is called when the server has closed the channel: what nobody waits for must
// not hold up the end.
func (f *Forward) closing() {
	f.ending.Store(true)
	if f.isReady() {
		f.way.end()
	}
}

// watch ends the session when ctx does: AWS's client does it with the same flag.
func (f *Forward) watch(ctx, inner context.Context, stop context.CancelCauseFunc) {
	select {
	case <-inner.Done():
		return
	case <-ctx.Done():
	}
	if f.isReady() {
		f.channel.trySend(wire.PayloadFlag, flagPayload(wire.FlagTerminateSession), true)
		f.channel.drain(inner, goodbye)
		f.left.Store(f.channel.isAcknowledged(f.channel.lastSent()))
	}
	stop(context.Cause(ctx))
}

// keepInUse shows the server now and then that there are open connections, also when
// they are silent: where the document sets no idle timeout, that counts as use.
func (f *Forward) keepInUse(ctx context.Context) {
	ticker := time.NewTicker(inUseEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if f.isReady() && f.open.Load() > 0 {
			f.way.keepAlive()
		}
	}
}

// Left reports, after Run, whether the agent was told that the session is over, so that
// the server need not be.
func (f *Forward) Left() bool { return f.left.Load() }

func (f *Forward) isReady() bool {
	select {
	case <-f.ready:
		return true
	default:
		return false
	}
}

func flagPayload(value uint32) []byte { return binary.BigEndian.AppendUint32(nil, value) }

// await waits until the forward is ready.
func (f *Forward) await(ctx context.Context) error {
	select {
	case <-f.ready:
	case <-f.over:
		return ErrForwardOver
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// Open opens a connection to the target and waits until the node has reached it, where
// the agent tells: AWS's does not. The error is a *ForwardRefusedError where the target
// was not reached.
func (f *Forward) Open(ctx context.Context) (ForwardConn, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	c := f.newConn(nil)
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	if err := c.answer(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
