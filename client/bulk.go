package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"sallyport.dev/internal/bulk"
	"sallyport.dev/wire"
)

// BulkConfig says how a forward's bulk connections reach the server: as its data channel
// does.
type BulkConfig struct {
	SessionID string
	URL       string // of the data channel
	Trust     *tls.Config
	UserAgent string
	Logger    *slog.Logger // none: nothing is logged
}

// Bulk opens a forward's connections beside its data channel (docs/protocol.md §28.11).
// It is a BulkDialer.
type Bulk struct {
	cfg BulkConfig

	mu     sync.Mutex
	opener *bulk.Opener // nil before the agent's offer
	closed bool
}

// NewBulk prepares bulk connections; nothing is dialled before the agent offers them.
func NewBulk(cfg BulkConfig) *Bulk {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Bulk{cfg: cfg}
}

// Answer implements BulkDialer. It starts to dial ahead.
func (b *Bulk) Answer(offer wire.BulkOffer) (wire.BulkAnswer, error) {
	url, err := bulk.URLBeside(b.cfg.URL, b.cfg.SessionID)
	if err != nil {
		return wire.BulkAnswer{}, err
	}
	if err := secure("the session's URL", url); err != nil {
		return wire.BulkAnswer{}, err
	}
	if !bulk.ValidFingerprint(offer.Certificate) {
		return wire.BulkAnswer{}, errors.New("the agent's fingerprint is malformed")
	}
	prover, err := bulk.NewProver(b.cfg.SessionID, bulk.Client, offer.Token)
	if err != nil {
		return wire.BulkAnswer{}, err
	}
	id, err := bulk.NewIdentity()
	if err != nil {
		return wire.BulkAnswer{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.opener != nil {
		return wire.BulkAnswer{}, errors.New("there was an offer before, or the forward is over")
	}
	b.opener = bulk.NewOpener(bulk.Dialer{
		URL: url, TLS: b.cfg.Trust, Proxy: http.ProxyFromEnvironment,
		Header: http.Header{"User-Agent": {b.cfg.UserAgent}},
	}, prover, id, offer.Certificate, b.cfg.Logger)
	return wire.BulkAnswer{Certificate: id.Fingerprint()}, nil
}

// Open implements BulkDialer. It does not wait for the target.
func (b *Bulk) Open(ctx context.Context) (ForwardConn, error) {
	b.mu.Lock()
	opener := b.opener
	b.mu.Unlock()
	if opener == nil {
		return nil, bulk.ErrUnavailable
	}
	c, err := opener.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening a bulk connection: %w", err)
	}
	return bulkConn{c}, nil
}

// Close implements BulkDialer.
func (b *Bulk) Close() {
	b.mu.Lock()
	opener := b.opener
	b.closed = true
	b.mu.Unlock()
	if opener != nil {
		opener.Close()
	}
}

// bulkConn words refusals as other connections do.
type bulkConn struct{ *bulk.Conn }

func explainBulk(err error) error {
	var refused *bulk.TargetError
	if errors.As(err, &refused) {
		return &ForwardRefusedError{Reason: refused.Reason}
	}
	return err
}

// Answer implements answerer.
func (c bulkConn) Answer(ctx context.Context) error { return explainBulk(c.Conn.Answer(ctx)) }

// begin implements beginner.
func (c bulkConn) begin(local net.Conn) (int, error) {
	n, err := c.Conn.Begin(local)
	return n, explainBulk(err)
}

func (c bulkConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, explainBulk(err)
}

func (c bulkConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, explainBulk(err)
}

func (c bulkConn) WriteTo(w io.Writer) (int64, error) {
	n, err := c.Conn.WriteTo(w)
	return n, explainBulk(err)
}

func (c bulkConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.Conn.ReadFrom(r)
	return n, explainBulk(err)
}

func (c bulkConn) CloseWrite() error { return explainBulk(c.Conn.CloseWrite()) }
