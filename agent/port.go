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
	mu      sync.Mutex
	in      *inlet      // where the client's bytes go
	turns   chan *inlet // the inlets of basic mode's connections, in order
	single  bool        // set once connections take turns
	flagged func(value uint32)
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
	answer  wire.PortAnswer
}

// agreeOnPort makes the handshake of a Port session.
func (s *session) agreeOnPort(ctx context.Context, p plan) (portTerms, error) {
	r, err := s.shake(ctx, wire.SessionTypeParameters{
		SessionType: p.sessionType, Properties: p.properties, Streams: wire.StreamsVersion,
	})
	if err != nil {
		return portTerms{}, err
	}
	terms := portTerms{client: r.ClientVersion}
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
	if !terms.streams && wire.CompareVersions(terms.client, withoutKeepAlive) <= 0 {
		feeding.Go(func() { keepAlive(ctx, m) })
	}
	<-ctx.Done()
	s.port.close()
	m.Close(context.Cause(ctx))
	feeding.Wait()
	return s.portEnded(ctx)
}

// feed hands what the client sends to the multiplexer.
func (s *session) feed(m *mux.Session) error {
	for {
		p, ok := s.port.in.next()
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
	if err := context.Cause(ctx); errors.Is(err, io.EOF) {
		return outcome{status: statusSuccess}
	}
	return s.ended(ctx)
}

// serveTurns carries bytes as they are: one connection, as for SSH, or for old clients
// one after the other.
func (s *session) serveTurns(ctx context.Context, target *forward.Target, many bool) outcome {
	conn, err := target.Dial(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return s.ended(ctx)
		}
		return failed("Unable to connect to specified port: %v", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, s.port.close)
	defer stop()
	for ctx.Err() == nil {
		in := s.nextTurn(ctx)
		if in == nil {
			break
		}
		err := s.turn(ctx, conn, in, many)
		if !many {
			cancel(err)
			break
		}
		if conn, err = s.redial(ctx, target); err != nil {
			cancel(err)
		}
	}
	if conn != nil {
		conn.Close()
	}
	if errors.Is(context.Cause(ctx), io.EOF) {
		s.stream.drain(ctx, drainPatience)
	}
	return s.portEnded(ctx)
}
