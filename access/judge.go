package access

import (
	"context"
	"fmt"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// Judge decides for one principal by policies that were read once: about sessions that
// live, and about times that are still to come. It records nothing and activates nothing.
type Judge struct {
	checker *Checker
	sources sources
	set     ruling // of sources
}

// Moment says which grants count to a Judge.
type Moment struct {
	// At is a time to come: only grants that still hold then count. Zero is now.
	At time.Time
	// WithoutGrants leaves out all of them: what remains is standing permission.
	WithoutGrants bool
}

// LaterGrants is a GrantSource that knows which grants still hold at a time, were
// nothing to change. Of another source all that hold now count at any time.
type LaterGrants interface {
	GrantsAt(ctx context.Context, p identity.Principal, at time.Time) ([]policy.Source, error)
}

// Judge reads the policies of a principal.
func (c *Checker) Judge(ctx context.Context, p identity.Principal, m Moment) (*Judge, error) {
	grants, err := c.grantsOf(ctx, p, m)
	if err != nil {
		return nil, err
	}
	s, err := c.sourcesOf(ctx, p, grants, nil)
	if err != nil {
		return nil, err
	}
	return &Judge{c, s, s.rule(nil)}, nil
}

func (c *Checker) grantsOf(ctx context.Context, p identity.Principal, m Moment) ([]policy.Source, error) {
	later, ok := c.config.Grants.(LaterGrants)
	switch {
	case m.WithoutGrants:
		return nil, nil
	case m.At.IsZero() || !ok:
		return c.grants(ctx, p)
	}
	grants, err := later.GrantsAt(ctx, p, m.At)
	if err != nil {
		return nil, fmt.Errorf("reading grants: %w", err)
	}
	return grants, nil
}

// Decide decides as Check does.
func (j *Judge) Decide(q Query) Decision {
	if len(q.Resources) == 0 || q.combined() > maxCombinations {
		return Decision{Resource: firstARN(q), Because: "because there is too much or nothing to decide on"}
	}
	return j.checker.evaluate(j.set, q)
}

// Start decides as CheckStart does.
func (j *Judge) Start(q Query, s Start) (d Decision) {
	for _, q = range s.queries(q) {
		if d = j.Decide(q); d.Allowed {
			break
		}
	}
	if because := s.unresolved(j.set); d.Allowed && because != "" {
		return Decision{Resource: firstARN(q), Because: because}
	}
	return d
}

// Assume decides as CheckAssume does, on a role and its trust policy.
func (j *Judge) Assume(q Query, trust *policy.Document) Decision {
	set := j.sources.rule(j.checker.owned("trust policy of the role"))
	for one := range q.combinations() {
		t := j.checker.evaluateTrust(one, trust)
		if !t.Allowed() {
			return decision(firstARN(q), t)
		}
		if t.Delegated {
			set = j.set
		}
	}
	return j.checker.evaluate(set, q)
}

// Uses reports whether a policy asks for a condition key.
func (j *Judge) Uses(key string) bool { return j.set.Uses(key) }

// Denied words a refusal as Check does; nil where d allows.
func Denied(q Query, d Decision) *DeniedError {
	if d.Allowed {
		return nil
	}
	return &DeniedError{Principal: q.Principal.ARN, Action: q.Action, Resource: d.Resource, Decision: d.Policy, Because: d.Because}
}

// Possible reports whether any session on a node is allowed: with some document, to some
// host, as some login.
func (j *Judge) Possible(q Query, node Resource) bool {
	return j.checker.possible(j.set, q, node)
}
