package bulk

import (
	"context"
	"crypto/tls"
	"errors"
	"sync/atomic"
)

// maker makes links.
type maker struct {
	dialer Dialer
	prover *Prover
	config *tls.Config
	pool   *buffers
	// raw is set when the ends have understood each other outside of the outer TLS,
	// missed counts how often they did not before: something between may not let that
	// pass.
	raw    atomic.Bool
	missed atomic.Int32
}

// maxMissed is how often leaving the outer TLS is tried.
const maxMissed = 3

// dial opens a connection to the gateway.
func (m *maker) dial(ctx context.Context) (*dialled, error) {
	return m.dialer.dial(ctx, m.prover, !m.raw.Load() && m.missed.Load() >= maxMissed)
}

// make makes the client's end of a link.
func (m *maker) make(ctx context.Context) (*link, error) {
	c, err := m.dial(ctx)
	if err != nil {
		return nil, err
	}
	return m.shake(ctx, c, false)
}

// shake is the ends' handshake on a connection.
func (m *maker) shake(ctx context.Context, c *dialled, server bool) (*link, error) {
	within, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	l, err := newLink(within, c.Conn, c.socket, m.config, server, m.pool)
	switch {
	case !c.raw || ctx.Err() != nil || errors.Is(err, errPeer):
	case err == nil:
		m.raw.Store(true)
	default:
		m.missed.Add(1)
	}
	return l, err
}
