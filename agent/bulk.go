package agent

import (
	"context"
	"net"
	"net/http"

	"sallyport.dev/agent/forward"
	"sallyport.dev/internal/bulk"
	"sallyport.dev/wire"
)

// bulkSide is the agent's part of a Port session's bulk connections (docs/protocol.md
// §28.11).
type bulkSide struct {
	id     *bulk.Identity
	prover *bulk.Prover
}

// besideDataChannel returns how bulk connections of a session reach the server: as its
// data channel does. No request is signed; each brings its proof.
func (a *Agent) besideDataChannel(session string) func() bulk.Dialer {
	return func() bulk.Dialer {
		e := a.endpoint()
		return bulk.Dialer{
			URL: e.base.JoinPath("/v1/bulk/", session).String(), TLS: e.tls, Proxy: e.proxy,
			Header: http.Header{"User-Agent": {Name}},
		}
	}
}

// offerBulk prepares what the client is offered; nil where the server gave no tokens.
func (s *session) offerBulk() (*bulkSide, *wire.BulkOffer) {
	b := s.start.Bulk
	if b == nil || s.beside == nil {
		return nil, nil
	}
	prover, err := bulk.NewProver(s.start.SessionID, bulk.Agent, b.AgentToken)
	if err != nil {
		s.log.Warn("no bulk connections", "error", err)
		return nil, nil
	}
	id, err := bulk.NewIdentity()
	if err != nil {
		s.log.Warn("no bulk connections", "error", err)
		return nil, nil
	}
	return &bulkSide{id: id, prover: prover}, &wire.BulkOffer{Token: b.ClientToken, Certificate: id.Fingerprint()}
}

// serveBulk connects what the client opens beside the data channel to the target, until
// ctx ends.
func (s *session) serveBulk(ctx context.Context, b *bulkSide, answer *wire.BulkAnswer, target *forward.Target) {
	if b == nil || answer == nil || !bulk.ValidFingerprint(answer.Certificate) {
		return
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		c, err := target.Dial(ctx)
		if err != nil {
			s.log.Info("connection not forwarded", "target", target.String(), "error", err)
		}
		return c, err
	}
	bulk.NewAcceptor(s.beside(), b.prover, b.id, answer.Certificate, dial, s.log).Run(ctx)
}
