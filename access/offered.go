package access

import (
	"context"
	"fmt"

	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// PossibleWith is PossibleStart, were there more policies: what a person may ask for.
func (c *Checker) PossibleWith(ctx context.Context, q Query, node Resource, more []policy.Source) (bool, error) {
	set, err := c.policies(ctx, q.Principal, more)
	if err != nil {
		return false, fmt.Errorf("deciding %s: %w", q.Action, err)
	}
	return c.possible(set, q, node), nil
}

// Offers reports whether policies may allow a principal an action on anything at all. Where
// they do not, what is not the principal's own need not be looked at.
func (c *Checker) Offers(ctx context.Context, p identity.Principal, action string) (bool, error) {
	set, err := c.policies(ctx, p, nil)
	if err != nil {
		return false, fmt.Errorf("deciding %s: %w", action, err)
	}
	return set.Offers(action), nil
}
