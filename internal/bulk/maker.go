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
	// inside is set when the ends did not understand each other after one of them had
	// left the outer TLS: something between may not let that pass.
	inside atomic.Bool
}

// make makes the client's end of a link.
func (m *maker) make(ctx context.Context) (*link, error) {
	c, err := m.dialer.dial(ctx, m.prover, m.inside.Load())
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
	if err != nil && ctx.Err() == nil && c.raw && !errors.Is(err, errPeer) {
		m.inside.Store(true)
	}
	return l, err
}
