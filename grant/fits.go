package grant

import (
	"context"

	"sallyport.dev/flow"
	"sallyport.dev/identity"
)

// Fitter is what Rules may be beside: they tell whether a flow that would give a node may
// be asked for it at all, so that nobody is sent to one that refuses.
type Fitter interface {
	Fits(ctx context.Context, f *flow.Flow, who flow.Person, n flow.Node) (bool, error)
}

func (e *Engine) fits(ctx context.Context, p identity.Principal, f *flow.Flow, n flow.Node) (bool, error) {
	rules, ok := e.config.Rules.(Fitter)
	if !ok {
		return true, nil
	}
	who, because, err := e.behind(ctx, p)
	if err != nil || because != "" {
		return false, err
	}
	return rules.Fits(ctx, f, who, n)
}
