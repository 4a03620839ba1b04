package grant

import (
	"context"

	"sallyport.dev/identity"
)

// What enforcing grants needs of the engine, beside Grants, GrantsAt and Held.

// Revision grows with every change of any request: one row, to look for changes with.
func (e *Engine) Revision(ctx context.Context) (int64, error) {
	return e.config.Store.GrantRevision(ctx)
}

// Usable are the requests of who is behind a principal that give something now, or would
// on their first use: active ones whose time is not up, and approved ones that are still
// to be activated in time.
func (e *Engine) Usable(ctx context.Context, p identity.Principal) ([]Request, error) {
	if p.IsNode() {
		return nil, nil
	}
	open, err := e.opened(ctx, p.RootID())
	now := e.now()
	var usable []Request
	for _, h := range open {
		if h.Holds(now) || h.waitsForUse(now) {
			usable = append(usable, h.Request)
		}
	}
	return usable, err
}
