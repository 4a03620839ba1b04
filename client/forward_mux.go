package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"sallyport.dev/internal/mux"
	"sallyport.dev/wire"
)

// nopEvery is how often an old AWS agent is to be shown that the client is there: it
// gives up after 30 to 60 seconds without a frame.
const nopEvery = 10 * time.Second

// muxWay multiplexes connections over the data channel: as smux for AWS's agent, with
// our extension for ours.
type muxWay struct {
	f        *Forward
	session  *mux.Session
	extended bool
	ticking  sync.WaitGroup
	done     chan struct{}
	closing  sync.Once

	mu       sync.Mutex
	refusals int // that AWS's agent told of, not yet put down to a connection
}

func newMuxWay(f *Forward, extended bool) *muxWay {
	w := &muxWay{f: f, extended: extended, done: make(chan struct{})}
	w.session = mux.New(mux.Config{Client: true, Extended: extended, Send: func(b []byte) error {
		return f.channel.Send(f.ctx, wire.PayloadOutput, b)
	}})
	if !extended && wire.CompareVersions(f.terms.agent, withoutKeepAlive) <= 0 {
		w.ticking.Go(w.tick)
	}
	return w
}

func (w *muxWay) tick() {
	ticker := time.NewTicker(nopEvery)
	defer ticker.Stop()
	for {
		select {
		case <-w.done:
			return
		case <-ticker.C:
			w.keepAlive()
		}
	}
}

func (w *muxWay) keepAlive() {
	if err := w.session.KeepAlive(); err != nil {
		w.f.channel.cfg.Logger.Debug("keeping the forward alive", "error", err)
	}
}

func (w *muxWay) open(context.Context) (ForwardConn, error) {
	st, err := w.session.Open()
	if err != nil {
		return nil, err
	}
	return &muxConn{st, w}, nil
}

func (w *muxWay) take(pt wire.PayloadType, payload []byte) error {
	switch pt {
	case wire.PayloadOutput:
		if err := w.session.Receive(payload); err != nil {
			return fmt.Errorf("the agent's multiplexed connections: %w", err)
		}
	case wire.PayloadFlag:
		if len(payload) == 4 && binary.BigEndian.Uint32(payload) == wire.FlagConnectToPortError {
			w.refused()
		}
	}
	return nil
}

// refused notes AWS's agent's word that some connection was not made. It closes that
// one next.
func (w *muxWay) refused() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusals++
}

// claim reports whether a connection that ended without a byte was refused.
func (w *muxWay) claim() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refusals == 0 {
		return false
	}
	w.refusals--
	return true
}

func (w *muxWay) end() {} // nothing waits for a connection

func (w *muxWay) close(err error) {
	w.closing.Do(func() { close(w.done) })
	w.session.Close(err)
	w.ticking.Wait()
}

// muxConn is a stream whose errors are told in our words.
type muxConn struct {
	*mux.Stream
	way *muxWay
}

// Answer implements answerer.
func (c *muxConn) Answer(ctx context.Context) error { return c.explain(c.Stream.Answer(ctx)) }

// Read implements io.Reader.
func (c *muxConn) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	if err == io.EOF {
		return n, c.ended()
	}
	return n, c.explain(err)
}

// WriteTo implements io.WriterTo.
func (c *muxConn) WriteTo(w io.Writer) (int64, error) {
	n, err := c.Stream.WriteTo(w)
	if err == nil {
		if err = c.ended(); err == io.EOF {
			err = nil
		}
	}
	return n, c.explain(err)
}

// ended tells the end of what the target sends from a refusal, which AWS's agent tells
// beside the connection.
func (c *muxConn) ended() error {
	if !c.way.extended && c.Received() == 0 && c.way.claim() {
		return &ForwardRefusedError{}
	}
	return io.EOF
}

// explain turns the agent's refusal into a ForwardRefusedError. After the target was
// reached, a reset is no refusal.
func (c *muxConn) explain(err error) error {
	var reset *mux.ResetError
	if errors.As(err, &reset) && reset.Reason != "" && c.Received() == 0 {
		return &ForwardRefusedError{reset.Reason}
	}
	return err
}
