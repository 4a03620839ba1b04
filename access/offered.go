package access

import (
	"context"
	"fmt"

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
