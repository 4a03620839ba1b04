package grant

import "context"

// History returns the steps of a request's life, in order.
func (e *Engine) History(ctx context.Context, id string) ([]Event, error) {
	return e.config.Store.Events(ctx, id)
}
