package access

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// Activator is a GrantSource some of whose grants begin on their first use.
type Activator interface {
	// Waiting are the policies of the grants of a principal that would begin on their
	// first use.
	Waiting(ctx context.Context, p identity.Principal) ([]policy.Source, error)
	// ActivateFor begins those that would allow what was refused, and reports whether
	// there was one.
	ActivateFor(ctx context.Context, p identity.Principal, would func(more []policy.Source) bool) (bool, error)
}

// used decides again about what was refused, if grants that wait for their first use
// allow it: this is it. Only attempts are uses, not questions.
func (c *Checker) used(ctx context.Context, q Query, d Decision, evaluate func(more []policy.Source) (Decision, error)) (Decision, error) {
	waiting, ok := c.config.Grants.(Activator)
	refusedByLack := !d.Allowed && d.Because == "" && d.Policy.Effect == policy.ImplicitlyDenied && d.Policy.Kind == policy.Identity
	if !ok || q.NoAudit || !refusedByLack {
		return d, nil
	}
	begun, err := waiting.ActivateFor(ctx, q.Principal, func(more []policy.Source) bool {
		would, err := evaluate(more)
		return err == nil && would.Allowed
	})
	if err != nil {
		return d, fmt.Errorf("beginning grants on their first use: %w", err)
	}
	if !begun {
		return d, nil
	}
	return evaluate(nil)
}

// DecideWith decides as Decide does, were there more policies.
func (c *Checker) DecideWith(ctx context.Context, q Query, more []policy.Source) (Decision, error) {
	d, err := c.decide(ctx, q, more...)
	if err != nil {
		return Decision{}, fmt.Errorf("deciding %s: %w", q.Action, err)
	}
	return d, nil
}

// StartWith decides as CheckStart does, were there more policies, and records nothing.
func (c *Checker) StartWith(ctx context.Context, q Query, s Start, more []policy.Source) (d Decision, err error) {
	for _, q := range s.queries(q) {
		if d, err = c.DecideWith(ctx, q, more); err != nil || d.Allowed {
			return d, err
		}
	}
	return d, nil
}

// SourcesOf returns the policies that a user, group or role has itself.
func (c *Checker) SourcesOf(ctx context.Context, o identity.Owner) ([]policy.Source, error) {
	revision, err := c.config.Store.Revision(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the revision of policies: %w", err)
	}
	key := "owner\n" + string(o.Kind) + "\n" + strings.ToLower(o.Name)
	if e := c.cache.get(revision, key); e != nil {
		return e.sources, nil
	}
	g := gatherer{checker: c, ctx: ctx}
	g.owner(o)
	if g.err != nil {
		return nil, fmt.Errorf("gathering policies of %s %s: %w", o.Kind, o.Name, g.err)
	}
	c.cache.put(revision, key, &compiled{sources: slices.Clip(g.sources)})
	return g.sources, nil
}
