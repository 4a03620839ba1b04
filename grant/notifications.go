package grant

import (
	"context"

	"sallyport.dev/flow"
)

// Notifications are whom the flow's code wants to be told of a request, in which order
// and with which time-outs. flow.ErrNoFunction means that it leaves that open.
func (e *Engine) Notifications(ctx context.Context, r Request) ([]flow.Notification, error) {
	return nil, flow.ErrNoFunction
}

// Persons are the people whom a selection of them names, at most limit.
func (e *Engine) Persons(ctx context.Context, p flow.People, limit int) ([]flow.Person, error) {
	return nil, nil
}
