package frontdoor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/tracing"
)

// Door serves SSH connections.
type Door struct {
	cfg      Config
	log      *slog.Logger
	unproven *crowd[netip.Prefix]
	people   *crowd[string] // by who is at the root of their sessions
	asking   *crowd[string] // sessions that wait for access, likewise
	places   chan struct{}  // one per connection

	ctx    context.Context // lives as long as the door
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // connections
}

// causes of a connection's end, as the person is told.
var (
	errShutdown = errors.New("the server is shutting down")
	errGone     = errors.New("the connection does not answer")
	errUnused   = errors.New("the connection was not used")
	errExpired  = errors.New("your certificate has expired")
	errEnded    = errors.New("your access was ended")
	errCrowd    = errors.New("you have too many connections")
)

// New returns a door that Serve opens.
func New(ctx context.Context, cfg Config) (*Door, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	d := &Door{
		cfg: cfg, log: cfg.Logger,
		unproven: newCrowd[netip.Prefix](cfg.MaxUnproven, cfg.MaxUnprovenFrom),
		people:   newCrowd[string](cfg.MaxConnections, cfg.MaxConnectionsOf),
		asking:   newCrowd[string](cfg.MaxAsking, cfg.MaxAskingOf),
		places:   make(chan struct{}, cfg.MaxConnections),
	}
	// Makes the authority where there is none, and fails now rather than for everybody.
	if _, err := cfg.Server.HostSigner(ctx, cfg.Names); err != nil {
		return nil, fmt.Errorf("opening the front door: %w", err)
	}
	d.ctx, d.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	return d, nil
}

// Serve accepts connections until l is closed; that is no error.
func (d *Door) Serve(l net.Listener) error {
	for pause := time.Duration(0); ; {
		conn, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil && pause > time.Second:
			return err
		case err != nil: // no descriptors left, say
			pause = max(2*pause, 5*time.Millisecond)
			time.Sleep(pause)
			continue
		}
		pause = 0
		d.accept(conn)
	}
}

// accept serves a connection if there is room for it, and otherwise closes it at once:
// nobody has proven anything yet, so that nothing is said.
func (d *Door) accept(conn net.Conn) {
	leave, ok := d.unproven.enter(networkOf(conn.RemoteAddr()))
	if !ok {
		d.log.Debug("SSH connection refused: too many have not proven themselves", "from", conn.RemoteAddr())
		conn.Close()
		return
	}
	select {
	case d.places <- struct{}{}:
	default:
		leave()
		d.log.Warn("SSH connection refused: there are too many", "from", conn.RemoteAddr())
		conn.Close()
		return
	}
	d.wg.Go(func() {
		defer func() { <-d.places }()
		defer leave()
		d.serveConn(conn, leave)
	})
}

// serveConn serves a connection from outside.
func (d *Door) serveConn(conn net.Conn, proven func()) {
	defer conn.Close()
	h := &handshake{
		door: d, conn: conn, names: d.cfg.Names, origin: d.origin(conn.RemoteAddr()),
		places: make(chan struct{}, d.cfg.MaxChannels),
	}
	c, err := h.run(d.ctx)
	if err != nil {
		h.failed(err)
		return
	}
	proven()
	ctx, cancel := context.WithCancelCause(d.ctx)
	defer cancel(nil)
	if leave, ok := d.people.enter(c.proven.principal.RootID()); ok {
		defer leave()
	} else {
		cancel(errCrowd)
	}
	c.serve(ctx)
}

func (d *Door) origin(addr net.Addr) access.Origin {
	o := access.Origin{RequestID: tracing.NewID(), TLS: true, Time: d.cfg.Now()}
	if ip := addressOf(addr); ip.IsValid() {
		o.SourceIP = ip.String()
	}
	return o
}

// Close ends all connections, with a word to their people, and waits for them, at most
// until ctx ends. The listener is closed before.
func (d *Door) Close(ctx context.Context) error {
	d.cancel(errShutdown)
	done := make(chan struct{})
	go func() { d.wg.Wait(); close(done) }() // ends with the last connection
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Connections is how many there are.
func (d *Door) Connections() int { return len(d.places) }
