package agent

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"sallyport.dev/agent/forward"
	"sallyport.dev/internal/mux"
	"sallyport.dev/wire"
)

// Version gates of AWS's clients (docs/protocol.md §17): from the first on they
// multiplex, above the second they do without keep-alives.
const (
	multiplexes      = "1.1.70"
	withoutKeepAlive = "1.2.331.0"
	// nopEvery is how often a client that wants keep-alives gets one.
	nopEvery = 10 * time.Second
	// maxTurns bounds the connections of basic mode that wait for their turn.
	maxTurns = 16
)

// port is the agent's part of a Port session.
type port struct {
	turns chan *inlet // the inlets of basic mode's connections, in order

	mu sync.Mutex
	in *inlet // where the client's bytes go
}

func newPort() *port {
	p := &port{in: newInlet(), turns: make(chan *inlet, maxTurns)}
	p.turns <- p.in
	return p
}

// hold takes the client's bytes; they are acknowledged when they have been used.
func (p *port) hold(pt wire.PayloadType, b []byte, taken func()) (known, kept bool) {
	if pt != wire.PayloadOutput {
		return false, false
	}
	p.mu.Lock()
	in := p.in
	p.mu.Unlock()
	return true, in.put(b, taken)
}

// disconnect begins the next connection of basic mode: what comes from now on is for
// that one.
func (p *port) disconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := newInlet()
	select {
	case p.turns <- next:
		p.in.end()
		p.in = next
	default: // a client that says so again and again has nothing to lose
	}
}

func (p *port) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.in.close()
}

// portFlag acts on a Flag payload of the client.
func (s *session) portFlag(b []byte) {
	if s.port == nil || len(b) != 4 {
		return
	}
	switch binary.BigEndian.Uint32(b) {
	case wire.FlagTerminateSession:
		s.cancel(errClosed)
	case wire.FlagDisconnectToPort:
		s.port.disconnect()
	}
}

// servePort runs a Port session: it finds the target, agrees with the client on how to
// carry connections, and carries them.
func (s *session) servePort(ctx context.Context, p plan) outcome {
	target, err := s.resolveTarget(ctx, p)
	if err != nil {
		return outcome{status: statusFailed, output: err.Error()}
	}
	select {
	case <-ctx.Done():
		return s.ended(ctx)
	case <-s.stream.attached:
	}
	terms, err := s.agreeOnPort(ctx, p)
	switch {
	case ctx.Err() != nil:
		return s.ended(ctx)
	case err != nil:
		return failed("Encountered error while initiating handshake. %v", err)
	}
	defer s.port.close()
	many := p.port.Type == forward.LocalPortForwarding
	switch {
	case terms.streams:
		return s.serveStreams(ctx, target, terms)
	case many && wire.CompareVersions(terms.client, multiplexes) >= 0:
		return s.serveStreams(ctx, target, terms)
	}
	return s.serveTurns(ctx, target, many)
}

// resolveTarget finds the target that the document names, if the rules allow it.
func (s *session) resolveTarget(ctx context.Context, p plan) (*forward.Target, error) {
	rules, err := s.rules.With(s.start.Forward)
	if err != nil {
		return nil, err
	}
	return forward.Resolve(ctx, p.port, rules)
}

// portTerms are what the two ends of a Port session have agreed on.
type portTerms struct {
	client  string // the client's version
	streams bool   // our multiplexer
	bulk    *bulkSide
	answer  wire.PortAnswer
}

// agreeOnPort makes the handshake of a Port session.
func (s *session) agreeOnPort(ctx context.Context, p plan) (portTerms, error) {
	beside, offer := s.offerBulk()
	r, err := s.shake(ctx, wire.SessionTypeParameters{
		SessionType: p.sessionType, Properties: p.properties, Streams: wire.StreamsVersion, Bulk: offer,
	})
	if err != nil {
		return portTerms{}, err
	}
	terms := portTerms{client: r.ClientVersion, bulk: beside}
	for _, a := range r.ProcessedClientActions {
		if a.ActionType == wire.ActionSessionType && len(a.ActionResult) > 0 {
			// AWS's clients answer null.
			if err := json.Unmarshal(a.ActionResult, &terms.answer); err != nil {
				return terms, fmt.Errorf("decoding the client's answer: %w", err)
			}
		}
	}
	terms.streams = terms.answer.Streams == wire.StreamsVersion
	return terms, nil
}

// serveStreams carries the connections that the client opens, multiplexed.
func (s *session) serveStreams(ctx context.Context, target *forward.Target, terms portTerms) outcome {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m := mux.New(mux.Config{
		Extended: terms.streams, Send: s.sendOutput,
		Accept: func(st *mux.Stream) { s.carry(ctx, target, st, terms.streams) },
	})
	var feeding sync.WaitGroup
	feeding.Go(func() { cancel(s.feed(m)) })
	feeding.Go(func() { s.serveBulk(ctx, terms.bulk, terms.answer.Bulk, target) })
	if !terms.streams && wire.CompareVersions(terms.client, withoutKeepAlive) <= 0 {
		feeding.Go(func() { keepAlive(ctx, m) })
	}
	<-ctx.Done()
	s.port.close()
	m.Close(context.Cause(ctx))
	feeding.Wait()
	return s.portEnded(ctx)
}

// feed hands what the client sends to the multiplexer. There is one turn: a client that
// begins another has ended the session.
func (s *session) feed(m *mux.Session) error {
	in := <-s.port.turns
	for {
		p, ok := in.next()
		if !ok {
			return errClosed
		}
		err := m.Receive(p.data)
		p.done()
		if err != nil {
			return err
		}
	}
}

func keepAlive(ctx context.Context, m *mux.Session) {
	tick := time.NewTicker(nopEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if m.KeepAlive() != nil {
			return
		}
	}
}

var errStreamEnded = errors.New("the session has ended")

func (s *session) sendOutput(b []byte) error {
	if !s.stream.Send(wire.PayloadOutput, b) {
		return errStreamEnded
	}
	return nil
}

// carry connects one stream with the target, or tells the client why it cannot: with the
// reason, or, AWS's, by the flag that says that much.
func (s *session) carry(ctx context.Context, target *forward.Target, st *mux.Stream, extended bool) {
	conn, err := target.Dial(ctx)
	if err != nil {
		s.log.Info("connection not forwarded", "target", target.String(), "error", err)
		if !extended {
			s.stream.Send(wire.PayloadFlag, binary.BigEndian.AppendUint32(nil, wire.FlagConnectToPortError))
		}
		st.Refuse(err.Error())
		return
	}
	if st.Opened() != nil {
		conn.Close()
		return
	}
	forward.Carry(ctx, conn, st)
}

// portEnded is the outcome of a Port session whose context has ended.
func (s *session) portEnded(ctx context.Context) outcome {
	if errors.Is(context.Cause(ctx), io.EOF) {
		return outcome{status: statusSuccess} // the target has ended it
	}
	return s.ended(ctx)
}

// serveTurns carries bytes as they are: of one connection, as for SSH, or for old
// clients (many) of one after the other, where a new one is made when there is something
// to send on it.
func (s *session) serveTurns(session context.Context, target *forward.Target, many bool) outcome {
	ctx, cancel := context.WithCancelCause(session)
	defer cancel(nil)
	c, err := s.takeTurn(ctx, target, many, cancel)
	if err != nil {
		cancel(err)
	}
	stop := context.AfterFunc(ctx, s.port.close)
	defer stop()
	for in := s.port.turn(ctx); in != nil; in = s.port.turn(ctx) {
		for p, ok := in.next(); ok; p, ok = in.next() {
			if c == nil {
				if c, err = s.takeTurn(ctx, target, many, cancel); err != nil {
					cancel(err)
					break
				}
			}
			c.conn.Write(p.data) // an error shows to who reads the connection
			p.done()
			if many && c.isOver() {
				c = c.end()
			}
		}
		c = c.end()
		if !many {
			cancel(errClosed)
		}
	}
	c.end()
	s.stream.drain(session, drainPatience)
	return s.portEnded(ctx)
}

// turn waits for the bytes of the next connection; nil when ctx ends.
func (p *port) turn(ctx context.Context) *inlet {
	if ctx.Err() != nil {
		return nil
	}
	select {
	case in := <-p.turns:
		return in
	case <-ctx.Done():
		return nil
	}
}

// turn is a connection to the target that has the data channel for itself.
type turn struct {
	conn net.Conn
	over chan struct{} // closed when the target has ended it
}

// unreachedError says that the target of a session with one connection, or of one after
// the other, was not reached.
type unreachedError struct{ cause error }

// Error implements error, in the words of AWS's agent.
func (e *unreachedError) Error() string {
	return fmt.Sprintf("Unable to connect to specified port: %v", e.cause)
}

// takeTurn connects to the target and begins to send what that says. The end of a
// connection that is the only one is the session's.
func (s *session) takeTurn(ctx context.Context, target *forward.Target, many bool, cancel context.CancelCauseFunc) (*turn, error) {
	conn, err := target.Dial(ctx)
	if err != nil {
		return nil, &unreachedError{err}
	}
	c := &turn{conn: conn, over: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	s.wg.Go(func() {
		defer close(c.over)
		defer stop()
		if err := s.sendFrom(conn); !many {
			cancel(err)
		}
	})
	return c, nil
}

// sendFrom sends what conn says until it ends; the error is io.EOF if it did so in order.
func (s *session) sendFrom(conn net.Conn) error {
	b := make([]byte, maxPayload)
	for {
		n, err := conn.Read(b)
		if n > 0 && !s.stream.Send(wire.PayloadOutput, b[:n]) {
			return errStreamEnded
		}
		if err != nil {
			return err
		}
	}
}

func (c *turn) isOver() bool {
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}

// end closes the connection, waits until nobody reads it any more, and returns nil.
func (c *turn) end() *turn {
	if c != nil {
		c.conn.Close()
		<-c.over
	}
	return nil
}
