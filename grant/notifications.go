package grant

import (
	"context"
	"errors"
	"slices"

	"sallyport.dev/flow"
)

// Notifications are whom the flow's code wants to be told of a request, in which order
// and with which time-outs. flow.ErrNoFunction means that it leaves that open.
func (e *Engine) Notifications(ctx context.Context, r Request) ([]flow.Notification, error) {
	v := e.look(ctx, r)
	if v.code == nil {
		if len(v.warnings) > 0 {
			return nil, errors.New(v.warnings[0])
		}
		return nil, flow.ErrNoFunction
	}
	return v.code.Notifications(ctx, v.env(e.now()), flow.Happening{Facts: v.facts(), Actor: r.Frozen.Person, Channel: r.Frozen.Channel})
}

// Persons are the people whom a selection of them names, at most limit. Schedules are
// those of the flows in force.
func (e *Engine) Persons(ctx context.Context, p flow.People, limit int) ([]flow.Person, error) {
	set, err := e.Flows(ctx)
	if err != nil {
		return nil, err
	}
	all, err := env{e, set, e.now()}.listed(ctx, p, limit)
	return slices.Clip(all), err
}
