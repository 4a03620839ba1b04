package grant

import (
	"context"
	"errors"

	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// What somebody has asked for, and may ask for.

// maxAsked bounds the requests of one person that Asked returns.
const maxAsked = 100

// Asked are the requests of who is behind a principal that wait for a decision, or for
// their first use; newest first.
func (e *Engine) Asked(ctx context.Context, p identity.Principal) ([]Request, error) {
	all, err := e.config.Store.Requests(ctx, Filter{Person: p.RootID(), States: []State{Pending, Approved}, Limit: maxAsked})
	now := e.now()
	var open []Request
	for _, r := range all {
		if r.State == Approved || now.Before(r.expiresAt()) {
			open = append(open, r)
		}
	}
	return open, err
}

// Recent are the newest requests of a user, whatever became of them.
func (e *Engine) Recent(ctx context.Context, person string, limit int) ([]Request, error) {
	return e.config.Store.Requests(ctx, Filter{Person: person, Limit: limit})
}

// Offered are the policies that a person would have if everything were granted that they
// may ask for by a channel.
func (e *Engine) Offered(ctx context.Context, p identity.Principal, channel string) ([]policy.Source, error) {
	offers, err := e.Offers(ctx, p, channel)
	if err != nil {
		return nil, err
	}
	var all []policy.Source
	for _, o := range offers {
		r := Request{ID: "oi-000000000000", Frozen: Frozen{Flow: *o.Flow, Targets: o.Flow.Targets}}
		own, err := e.policies(r)
		if err != nil {
			return nil, err
		}
		if all, err = e.addSources(ctx, all, held{r, own}); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// MayRevoke reports whether a person decides on such requests, so that they may take one
// back, whoever approved it. Of one that is over code is not asked whom it would choose:
// listings ask about all there ever were, and code may ask others.
func (e *Engine) MayRevoke(ctx context.Context, p identity.Principal, r Request) (bool, error) {
	v := e.look(ctx, r)
	if r.State.Over() {
		v.code = nil
	}
	err := v.mayRevoke(ctx, Actor{Principal: p}, false)
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		return false, nil
	}
	return err == nil, err
}
